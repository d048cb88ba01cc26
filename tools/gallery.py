#!/usr/bin/env python
"""Make docs/gallery.md and its pictures, by running the commands that the page shows next to them.

  python tools/gallery.py --out demo/gallery       # about four minutes on two CPU cores; runs and data go to --out

Every picture is one that a script wrote into its run folder, or one that report.py draws from several run folders.
"""

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reports.comparing import compare
from reports.pictures import pictures_of
from reports.reading import read_runs
from util.cli import UserError, run_cli
from util.files import write_text

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
HTAD = "HTAD (real: sound and wrist movement of seven home tasks)"
SCENES = "synthetic scenes of coloured shapes"
ABOUT = """Pictures that the scripts draw, each with the commands that made it. `OUT` is any folder, and a star replaces
the date in a folder's name. `python tools/gallery.py` runs all commands and writes this page. The data and settings are
small: the pictures illustrate the output, not the scores that can be reached."""
# Together, as the documentation stays small.
MAX_BYTES = 1_000_000
# Questions in the table for the contact sheet.
ROWS = 240


class Shown(NamedTuple):
    """A picture of the gallery: file name, title, text, commands, and its source, a glob pattern or a caption."""

    name: str
    title: str
    text: str
    commands: tuple[str, ...]
    source: str


SEARCH = "python main_darts_searchable_own.py --datadir OUT/htad --demo --out_dir OUT/own --device cpu"
FRONT = (
    f"{SEARCH} --strategy evolution --budget 24 --population 8 --training_epochs 2 --objectives score,parameters"
    " --save front"
)
MMNAS = (
    "python search_vgd.py --data OUT/scenes/vgd --hsize 64 --batchsize 16 --word_vectors none --enc_blocks 4"
    " --dec_blocks 6 --epochs 8 --alpha_start 1 --alpha_every 2 --num_workers 0"
    " --out_dir OUT/vgd --save gallery --seed 0 --device cpu"
)
PICTURES = (
    Shown(
        "fusion.svg",
        "A fusion network that a search of BM-NAS found",
        f"On {HTAD}. Each cell step reads two features, and its inner step is an operation on them.",
        (
            "python datasets/prepare_own.py --embedded htad --out OUT/htad",
            f"{SEARCH} --save gallery --seed 0",
        ),
        "own/search-gallery-*/genotype.svg",
    ),
    Shown(
        "fusion_probabilities.svg",
        "Its probabilities over the epochs",
        "Every panel shows a choice, and every line a candidate. The search is the one above.",
        (),
        "own/search-gallery-*/probabilities.svg",
    ),
    Shown(
        "attention.svg",
        "An encoder-decoder that a search of MMNas found",
        f"For visual grounding, on {SCENES}. The operations at the top read words, those at the bottom regions.",
        (
            "python datasets/make_demo.py scenes --train 48 --scored 12 --matched 6 --workers 1 --out OUT/scenes",
            MMNAS,
        ),
        "vgd/search-gallery-*/genotype.svg",
    ),
    Shown(
        "attention_probabilities.svg",
        "Its probabilities over the epochs",
        f"The search is the one above, on {SCENES}.",
        (),
        "vgd/search-gallery-*/probabilities.svg",
    ),
    Shown(
        "robustness.svg",
        "Robustness curves",
        f"Scores of the trained fusion network with increasing noise on each input, and on all of them. On {HTAD}.",
        (
            "python main_darts_found_own.py --search_exp_dir OUT/own/search-gallery-* --demo --out_dir OUT/own"
            " --save gallery --seed 0",
            "python robustness.py --run OUT/own/eval-gallery-*",
        ),
        "own/eval-gallery-*/robustness.svg",
    ),
    Shown(
        "pareto.svg",
        "Pareto fronts of two searches",
        f"Two seeds of evolution with score and size as objectives, in one picture of `report.py`. On {HTAD}.",
        (*(f"{FRONT} --seed {seed}" for seed in (0, 1)), "python report.py OUT/own --out OUT/report.html"),
        "Pareto fronts",
    ),
    Shown(
        "contact_sheet.png",
        "A contact sheet of prepared pictures",
        "`prepare_own.py` writes a contact sheet next to the data. Here the data are a table with the pictures,"
        " questions and answers of easy-VQA (real), which `tools/gallery.py` makes.",
        ("python datasets/prepare_own.py --table OUT/easy_vqa.csv --image image --text question --label answer"
         " --out OUT/easy_vqa",),
        "easy_vqa/contact_sheet.png",
    ),
)  # fmt: skip


def get_args_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="demo/gallery", metavar="DIR", help="new folder for data and runs")
    return parser


def main(argv=None):
    """Run every command, copy the pictures, and write the page."""
    out = Path(get_args_parser().parse_args(argv).out)
    if out.exists():
        raise UserError(f"--out {out}: it exists already; name a new folder")
    out.mkdir(parents=True)
    write_table(out / "easy_vqa.csv")
    for shown in PICTURES:
        for command in shown.commands:
            run(command, out)
        text = picture_of(shown, out)
        FOLDER.mkdir(parents=True, exist_ok=True)
        if isinstance(text, Path):
            shutil.copyfile(text, FOLDER / shown.name)
        else:
            write_text(FOLDER / shown.name, text)
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    if size > MAX_BYTES:
        raise UserError(f"{FOLDER} has {size:,} bytes, but at most {MAX_BYTES:,} are allowed; draw smaller pictures")
    write_text(PAGE, page())
    print(f"wrote {PAGE.relative_to(ROOT)} and {len(PICTURES)} pictures ({size:,} bytes)")


def run(command, out):
    """Run a command in the repository; patterns with a star are replaced by the matching files of earlier commands."""
    _, script, *words = shlex.split(command.replace("OUT", str(out.resolve())))
    print(f"$ {command}", flush=True)
    found = [str(match) for word in words for match in (_matches(word) if "*" in word else [word])]
    if subprocess.run([sys.executable, script, *found], cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
        raise UserError(f"`{command}` failed; its messages are above")


def _matches(pattern):
    place = Path(pattern)
    return sorted(place.parent.glob(place.name))


def picture_of(shown, out):
    """The file of a picture, or its SVG text if a report draws it."""
    if "/" in shown.source:
        (path,) = out.glob(shown.source)
        return path
    drawn = (picture for table in compare(read_runs([out / "own"])) for picture in pictures_of(table))
    return next(picture.svg for picture in drawn if picture.caption.startswith(shown.source))


def write_table(path):
    """Write a CSV table of pictures, questions and answers from easy-VQA's test set."""
    import easy_vqa

    data = Path(easy_vqa.__file__).parent / "data" / "test"
    questions = json.loads((data / "questions.json").read_text(encoding="utf-8"))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "question", "answer"])
        for question, answer, number in questions[:: len(questions) // ROWS]:
            writer.writerow([data / "images" / f"{number}.png", question, answer])


def page():
    """The page as Markdown."""
    parts = ["# Gallery", ABOUT]
    for shown in PICTURES:
        parts += [
            f"## {shown.title}",
            textwrap.fill(shown.text, 118),
            f"![{shown.title}](pictures/gallery/{shown.name})",
        ]
        if shown.commands:
            parts.append("```\n" + "\n".join(shown.commands) + "\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    run_cli(main)
