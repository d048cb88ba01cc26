"""Scripts of runs/: every command that they give is run by a stand-in for Python, and parses."""

import importlib.util
import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from util.files import read_json

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "runs").glob("*.sh") if path.name != "common.sh")
# Files and folders that each script asks for, by the variable that names them.
DATA = {
    "mmimdb_table1.sh": ("HDF5",),
    "ntu_table2.sh": ("VIDEOS", "SKELETONS"),
    "ego_table3.sh": ("FRAMES", "LABELS"),
    "vqa.sh": ("FEATURES",),
    "vgd.sh": ("REFER", "FEATURES"),
    "itm.sh": ("CAPTIONS", "NAMES", "FEATURES"),
    "easy_vqa.sh": (),
}
# Writes down its arguments, one line per command, and leaves what a run would: with $LEFT, result.json or last.pth.
STAND_IN = """#!/bin/sh
line=
out=
previous=
for word in "$@"; do
    line="$line$word\t"
    [ "$previous" != --out_dir ] || out=$word
    previous=$word
done
printf '%s\\n' "$line" >> "$LOG"
case $1 in
    check_data.py) exit "${CHECKED:-0}" ;;
esac
[ -z "$out" ] || { mkdir -p "$out/run"; : > "$out/run/$LEFT"; }
"""


class Outcome:
    def __init__(self, process, log):
        self.status, self.said, self.errors = process.returncode, process.stdout, process.stderr
        lines = log.read_text().splitlines() if log.exists() else []
        self.commands = [line.rstrip("\t").split("\t") for line in lines]
        log.unlink(missing_ok=True)

    def of(self, script):
        return [words[1:] for words in self.commands if words[0] == script]


@pytest.fixture
def run(tmp_path):
    """A function that runs one of the scripts with the stand-in; further arguments are variables."""
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def start(script, left="result.json", missing=(), **variables):
        places = {name: tmp_path / name for name in DATA[script] if name not in missing}
        for place in places.values():
            place.mkdir(exist_ok=True)
        (tmp_path / "data" / "annotations").mkdir(parents=True, exist_ok=True)
        own = {"PYTHON": python, "LOG": log, "LEFT": left, "RUNS": tmp_path / "runs", "DATA": tmp_path / "data"}
        own |= places | dict.fromkeys(missing, tmp_path / "missing") | variables
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
        command = ["sh", str(ROOT / "runs" / script)]
        return Outcome(subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path), log)

    return start


@cache
def parser_of(script):
    spec = importlib.util.spec_from_file_location("run_script", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_args_parser()


def test_there_is_a_script_for_each_headline_result():
    assert set(SCRIPTS) == set(DATA)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_parses(run, script):
    outcome = run(script, ARCH="search", VISUAL_GENOME="vg") if "table" not in script else run(script)
    assert outcome.status == 0, outcome.errors
    names = {words[0] for words in outcome.commands} - {"-c"}
    assert "check_data.py" in names and any(name.startswith(("main_darts_found", "train_")) for name in names)
    for name, *flags in outcome.commands:
        if name != "-c":
            parser_of(name).parse_args(flags)
    # What a step needs of an earlier one is there.
    assert all(word for words in outcome.commands for word in words)
    for words in (*outcome.of("main_darts_found_mmimdb.py"), *outcome.of("train_vqa.py")):
        assert any("/search/run" in word or "/train/run" in word for word in words)


@pytest.mark.parametrize("script", [script for script in SCRIPTS if DATA[script]])
def test_missing_data_are_named_in_one_line(run, script):
    for name in DATA[script]:
        outcome = run(script, missing=(name,))
        assert outcome.status == 2 and not outcome.commands
        assert outcome.errors.count("\n") == 1 and "missing does not exist" in outcome.errors
        assert "docs/data.md" in outcome.errors and name in outcome.errors


def test_steps_are_skipped_when_done_and_continued_when_interrupted(run):
    first = run("mmimdb_table1.sh", left="last.pth", SEEDS="1 2")
    trainings = [words for words in first.commands if words[0].startswith("main_")]
    assert len(trainings) == 5 and not any("--resume" in words for words in trainings)
    again = run("mmimdb_table1.sh", SEEDS="1 2")
    assert [words[1] for words in again.commands if words[0].startswith("main_")] == ["--resume"] * 5
    for folder in (words[2] for words in again.commands if "--resume" in words):
        Path(folder, "result.json").touch()
    done = run("mmimdb_table1.sh", SEEDS="1 2")
    assert not [words for words in done.commands if words[0].startswith("main_")]
    assert done.said.count("is done: ") == 5


def test_faulty_data_end_a_script_and_warnings_do_not(run, tmp_path):
    assert run("easy_vqa.sh", CHECKED=3).of("train_vqa.py")
    outcome = run("easy_vqa.sh", CHECKED=1, RUNS=tmp_path / "other")
    assert outcome.status == 1 and not outcome.of("train_vqa.py")


def test_released_backbones_are_used_where_they_are(run, tmp_path):
    for name in ("rgb_8frames_83.91.checkpoint", "skeleton_32frames_85.24.checkpoint"):
        (tmp_path / name).touch()
    outcome = run("ntu_table2.sh", CHECKPOINTS=tmp_path)
    assert not outcome.of("main_unimodal_ntu.py")
    (search,) = outcome.of("main_darts_searchable_ntu.py")
    assert f"{tmp_path}/rgb_8frames_83.91.checkpoint" in search


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_head_says_what_to_expect(script):
    head = [line for line in (ROOT / "runs" / script).read_text().splitlines()[:8] if line.startswith("#")]
    assert head[0] == "#!/bin/sh" and f"sh runs/{script}" in "\n".join(head)
    assert os.access(ROOT / "runs" / script, os.X_OK)


def known_numbers():
    """Numbers with decimals in papers' tables (also as percentages), and in our experiments."""
    numbers = set(re.findall(r"\d+\.\d+", (ROOT / "docs" / "experiments.md").read_text()))

    def collect(value):
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                collect(inner)
        elif isinstance(value, float | int):
            numbers.update({str(value), f"{value:.1f}", f"{value:.2f}", f"{100 * value:.2f}"})
        else:
            numbers.update(re.findall(r"\d+\.\d+", str(value)))

    collect(read_json(ROOT / "docs" / "paper_results.json"))
    return numbers


@pytest.mark.parametrize("page", ["docs/reproduce.md", *(f"runs/{script}" for script in SCRIPTS)])
def test_expected_numbers_have_a_source(page):
    text = re.sub(r"(?:rgb|skeleton|egogesture)_\S+", "", (ROOT / page).read_text())  # names of released files
    numbers = set(re.findall(r"\d+\.\d+", text))
    named = {"0.5", "0.3", "94.01", "93.61"}  # two thresholds, and what names of released files contain
    assert numbers and numbers <= known_numbers() | named, numbers - known_numbers()


def test_the_page_of_data_has_the_counts_that_checks_compare():
    from datasets.ego.annotation import OFFICIAL_COUNTS as CLIPS
    from datasets.itm.files import OFFICIAL_COUNTS as CAPTIONS
    from datasets.mmimdb.dataset import OFFICIAL_COUNTS as FILMS
    from datasets.ntu.names import OFFICIAL_COUNT as ACTIONS
    from datasets.vgd.refer import DATASETS
    from datasets.vqa.files import OFFICIAL_COUNTS as QUESTIONS

    text = (ROOT / "docs" / "data.md").read_text()
    counts = [ACTIONS, *(count for one in (CLIPS, FILMS, QUESTIONS, *CAPTIONS.values()) for count in one.values())]
    counts += [count for one in DATASETS.values() for count in one.counts.values()]
    assert not [count for count in counts if f"{count:,}" not in text]
