"""Two epochs of a tiny search of every task give the losses and architectures that they gave before.

Kernels differ between processors, so losses and probabilities are compared with a tolerance, and the architecture only
where no probability has moved far enough to change it. `tools/compare_runs.py` compares two versions to the last bit.
Rewrite the figures, when a change of them is intended, with

  python -m pytest tests/test_golden_runs.py --rewrite_golden_runs
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.report import git_commit
from util.files import read_json, write_text

GOLDEN = Path(__file__).parent / "data" / "golden_runs.json"
# Measured between AVX-512, AVX2 and SSE kernels: losses 1e-6, probabilities 2e-7.
LOSS_RTOL = 1e-3
# Mean over all probabilities: Adam may turn the rounding of one gradient near zero into a full step.
PROBABILITY_ATOL = 2e-5
TASKS = ("mmimdb", "ntu", "ego", "vqa", "vgd", "itm")


def search_of(task, request):
    """Run folder of the task's tiny search, which other tests use as well."""
    if task in ("ntu", "ego"):
        return request.getfixturevalue("searched_clips")(task).folder
    return request.getfixturevalue("searched" if task == "mmimdb" else f"searched_{task}").folder


def figures_of(folder):
    """Losses of each epoch, and genotype and probabilities of the last one."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [{k: v["loss"] for k, v in record.items() if isinstance(v, dict) and "loss" in v} for record in records]
    return {
        "losses": losses,
        "genotype": records[-1]["genotype"],
        "selected": read_json(folder / "genotype.json"),
        "probabilities": records[-1]["probabilities"],
    }


def table_of(probabilities):
    """All probabilities, each row's together: a list of arrays."""
    return [np.array(list(row.values())) for rows in probabilities.values() for row in rows.values()]


def smallest_gap(probabilities):
    """How close the closest two candidates of a choice are: operations of a row, or rows of edges."""
    gaps = []
    for rows in probabilities.values():
        if all("skip" in row for row in rows.values()):
            choices = [[row["skip"] for row in rows.values()]]
        else:
            choices = [list(row.values()) for row in rows.values()]
        gaps += [np.diff(np.sort(choice)).min() for choice in choices]
    return min(gaps)


def assert_golden(figures, golden):
    """Compare a search with the figures that are kept."""
    assert [list(epoch) for epoch in figures["losses"]] == [list(epoch) for epoch in golden["losses"]]
    for epoch, (found, kept) in enumerate(zip(figures["losses"], golden["losses"], strict=True)):
        assert found == pytest.approx(kept, rel=LOSS_RTOL), f"losses of epoch {epoch}"
    found, kept = (np.concatenate(table_of(side["probabilities"])) for side in (figures, golden))
    moved = np.abs(found - kept)
    assert moved.mean() <= PROBABILITY_ATOL
    if moved.max() < smallest_gap(golden["probabilities"]) / 2:
        # A later version may say more of it, such as its format.
        assert figures["genotype"].items() >= golden["genotype"].items()


@pytest.mark.parametrize("task", TASKS)
def test_a_search_gives_the_figures_that_are_kept(task, request):
    figures = figures_of(search_of(task, request))
    if not request.config.getoption("rewrite_golden_runs"):
        assert_golden(figures, read_json(GOLDEN)["runs"][task])
        return
    about = {"commit": git_commit(), "torch": torch.__version__}
    runs = read_json(GOLDEN)["runs"] if GOLDEN.exists() else {}
    runs[task] = figures
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(runs[name])}" for name in TASKS if name in runs)
    write_text(GOLDEN, f'{{\n"made with": {json.dumps(about)},\n"runs": {{\n{lines}\n}}\n}}\n')


def test_kept_figures_notice_a_change():
    golden = read_json(GOLDEN)["runs"]["vqa"]
    assert_golden(golden, golden)
    changed = json.loads(json.dumps(golden))
    changed["losses"][1]["train"] *= 1.002
    with pytest.raises(AssertionError, match="epoch 1"):
        assert_golden(changed, golden)
    changed = json.loads(json.dumps(golden))
    changed["genotype"]["dec"].reverse()
    with pytest.raises(AssertionError):
        assert_golden(changed, golden)
    # Half of the untrained probabilities' way from a step that was left out.
    changed = json.loads(json.dumps(golden))
    for rows in changed["probabilities"].values():
        for row in rows.values():
            row.update({name: value + 1e-4 for name, value in row.items()})
    with pytest.raises(AssertionError):
        assert_golden(changed, golden)
