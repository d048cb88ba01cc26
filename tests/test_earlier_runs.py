"""Runs that earlier versions began go on in this one, and end as they would have then."""

import json
import shutil
from pathlib import Path

import pytest

from engine.report import restored_record
from engine.run import Run
from tests import earlier_runs

KEPT = Path(__file__).parent / "data" / "runs"
RUNS = sorted(path.relative_to(KEPT) for path in KEPT.glob("*/*/"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """What the runs read: it lies elsewhere now."""
    folder = tmp_path_factory.mktemp("moved")
    earlier_runs.make_inputs(folder)
    return folder


def moved(inputs, name):
    """Flags with the places of a run's inputs."""
    flags = {
        "search_mmimdb": "--datadir films --image_cp weights/image.pth --text_cp weights/text.pth",
        "search_vgd": "--data scenes --features scenes/features --word_vectors weights/words.txt",
        "train_vgd": "--data scenes --features scenes/features --word_vectors weights/words.txt --ARCH_PATH "
        "weights/arch.json",
    }
    return [word if word.startswith("--") else str(inputs / word) for word in flags[name].split()]


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_a_run_of_an_earlier_version_goes_on(inputs, tmp_path, path):
    folder, name = tmp_path / "run", path.name
    shutil.copytree(KEPT / path, folder)
    expected = json.loads((KEPT / f"{path}.json").read_text())
    script = __import__(earlier_runs.RUNS[name][0])
    result = script.main(["--resume", str(folder), *moved(inputs, name)])
    assert [record["epoch"] for record in Run(folder, None, None).records()] == [0, 1]
    for key in ("selected_epoch", "epochs"):
        assert result[key] == expected[key], key
    # A later version may say more of it, such as its format.
    assert result["genotype"].items() >= expected["genotype"].items()
    metrics = restored_record(expected["metrics"])
    assert result["metrics"].keys() == metrics.keys()
    for split, scores in metrics.items():
        # Processors round differently.
        assert result["metrics"][split] == pytest.approx(scores, rel=2e-3, abs=1e-4), split
    log = (folder / "log.txt").read_text()
    assert "resumed" in log and "assumed to be the same" in log


def test_every_released_version_has_left_runs_of_both_families():
    kept = {version.name: {run.name for run in version.iterdir() if run.is_dir()} for version in KEPT.iterdir()}
    assert "0.1.0" in kept
    for runs in kept.values():
        assert {"search_mmimdb", "search_vgd", "train_vgd"} <= runs
