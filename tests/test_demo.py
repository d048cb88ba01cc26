"""Every documented command with --demo, and every step of `make demo`, runs: on tiny data, for one epoch.

The commands are read from the README, from the other documents, from the heads of the scripts, and from runs/.
"""

import ast
import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import sweep
from tests.narrow_backbones import narrow_backbones
from tools import reading_distance

ROOT = Path(__file__).resolve().parent.parent
BMNAS = "--epochs 1 --Ti 1 --batchsize 8 --num_workers 0 --device cpu --small_dataset"
OWN = "--epochs 1 --Ti 1 --batchsize 8 --num_workers 0 --device cpu"
MMNAS = "--epochs 1 --batchsize 16 --num_workers 0 --device cpu --small_dataset"
# What makes a command small, by a word in the script's name; "make": the same for a step of `make demo`.
TINY = {
    "mmimdb": BMNAS,
    "ntu": f"{BMNAS} --augment_views 1",
    "ego": f"{BMNAS} --augment_views 1 --sample_size 16 --sample_duration 8",
    "searchable_own": f"{OWN} --derive argmax",
    "own": OWN,
    "search_vqa": f"{MMNAS} --alpha_start 0 --min_answer_count 1",
    "search": f"{MMNAS} --alpha_start 0",
    "train_vqa": f"{MMNAS} --min_answer_count 1",
    "train": MMNAS,
}
TINY_STEPS = {"own_table": "--epochs 1", "mmnas_table": "--epochs 1"}
TASKS = ("mmimdb", "ntu", "ego", "own", "vqa", "vgd", "itm")
RUN = "<search run>"
SWEEP, DISTANCE = "sweep.py", "tools/reading_distance.py"


def documented():
    """Every command with --demo: its words without the interpreter, in one string."""
    # tools/gallery.py makes the gallery by the commands of that page.
    pages = (path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "gallery.md")
    texts = [path.read_text("utf-8") for path in (ROOT / "README.md", *pages)]
    heads = [ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in sorted(ROOT.glob("*.py"))]
    lines = [line.strip("` ") for text in (*texts, *heads) for line in re.findall(r"^.*\.py.*$", text, re.M)]
    lines += re.findall(r"`((?:\.venv/bin/)?python [^`]+)`", "\n".join(texts))
    found = [re.fullmatch(r"(?:\.venv/bin/)?python (\S+\.py .*)", line) for line in lines]
    commands = [re.split("  |`", match[1])[0] for match in found if match and "--demo" in match[1]]
    return list(dict.fromkeys([*commands, *demo_steps()]))


def demo_steps():
    """The commands with --demo of runs/*.sh, as a document would write them."""
    texts = [path.read_text("utf-8") for path in sorted((ROOT / "runs").glob("*.sh"))]
    commands = re.findall(r"^step \S+ (\S+\.py .*--demo.*)$", "\n".join(texts), re.M)
    return [command.replace('"$(run_of search)"', f"'{RUN}'") for command in commands]


def steps():
    """The commands of `make demo`."""
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.M)
    return re.findall(r"^\t\$\(RUN\) (.+)$", recipe[1], re.M)


def module_of(script):
    return importlib.import_module(".".join(Path(script).with_suffix("").parts))


def smaller(script):
    """The flags that make a run of ``script`` a tiny one."""
    return next(flags for word, flags in TINY.items() if word in Path(script).stem).split()


def make_two_sensors(folder):
    """A prepared folder in the form of HTAD's, with made-up numbers."""
    from datasets.prepare_own import main as prepare_own

    rng = np.random.default_rng(0)
    arrays = {"audio": rng.normal(size=(60, 6)), "accelerometer": rng.normal(size=(60, 4)), "y": np.arange(60) % 3}
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    inputs = [f"{name}={folder / name}.npy" for name in arrays if name != "y"]
    prepare_own(["--arrays", *inputs, "--labels", str(folder / "y.npy"), "--out", str(folder / "dataset")])


@pytest.fixture(scope="module")
def home(tmp_path_factory, easy_vqa, clip_data):
    """A folder with the demo's data, in tiny, where the scripts look for them."""
    from datasets.demo.scenes import make
    from datasets.make_demo import main as make_demo

    demo = tmp_path_factory.mktemp("home") / "demo"
    make(demo / "scenes", train=10, scored=4, matched=4, tasks=("vgd", "itm"))
    sizes = ["--train", "40", "--dev", "17", "--test", "16", "--image_size", "32", "32"]
    make_demo(["mmimdb", "--source", "easy-vqa", "--out", str(demo / "mmimdb"), *sizes])
    shutil.copytree(easy_vqa.data, demo / "vqa")
    make_two_sensors(demo / "htad")
    for name in ("ntu", "ego"):
        (demo / name).mkdir()
        (demo / name / "dataset").symlink_to(clip_data(name))
    with narrow_backbones(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(demo.parent)
        yield demo.parent


@pytest.fixture(scope="module")
def search_of(home):
    """A function from a script of a training to the run folder of a tiny search of its task."""
    folders = {}

    def search(script):
        task = next(task for task in TASKS if task in script)
        name = f"search_{task}" if task in ("vqa", "vgd", "itm") else f"main_darts_searchable_{task}"
        if name not in folders:
            folders[name] = importlib.import_module(name).main(["--demo", *smaller(name)])["folder"]
        return folders[name]

    return search


def test_the_documents_have_such_commands_and_they_are_found():
    scripts = {command.split()[0] for command in documented()}
    searches = {f"search_{task}.py" for task in TASKS[4:]} | {f"main_darts_searchable_{task}.py" for task in TASKS[:4]}
    assert scripts >= searches | {"train_vqa.py"}
    assert [command.split()[0] for command in demo_steps()] == ["search_vqa.py", "train_vqa.py"]
    assert [Path(step.split()[0]).stem for step in steps()] == ["own_table", "mmnas_table"]


@pytest.mark.parametrize("command", [one for one in documented() if one.split()[0] not in (SWEEP, DISTANCE)])
def test_a_documented_command_runs(command, home, search_of):
    script, *words = shlex.split(command)
    words = [search_of(script) if word == RUN else word.replace(RUN, "") + search_of(script) if RUN in word else word
             for word in words]  # fmt: skip
    result = module_of(script).main([*words, *smaller(script)])
    folder = Path(result["folder"])
    assert folder.resolve().is_relative_to(home.resolve()) and (folder / "result.json").exists()
    assert result["arguments"]["demo"] and result["epochs"] == 1 and result["metrics"]


@pytest.mark.parametrize("command", [one for one in documented() if one.split()[0] == SWEEP])
def test_a_documented_sweep_is_planned(command, home, capsys):
    sweep.main(["--dry_run", *shlex.split(command)[1:]])
    lines = [line for line in capsys.readouterr().out.splitlines() if ".py " in line]
    assert lines and all("--demo" in line for line in lines)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the tool needs Python 3.11")
@pytest.mark.parametrize("command", [one for one in documented() if one.split()[0] == DISTANCE])
def test_a_documented_distance_is_measured(command, home, capsys):
    words = shlex.split(command)[1:]
    script = next(word for word in words if importlib.util.find_spec(word))
    reading_distance.main([*words, *smaller(script)])
    shown = capsys.readouterr().out
    assert all(re.search(rf"{part}: [1-9]\d* functions, [1-9]\d* files", shown) for part in reading_distance.PARTS)


@pytest.mark.long
@pytest.mark.parametrize("step", steps())
def test_a_step_of_make_demo_runs(step, home, capsys):
    script, *words = shlex.split(step)
    module = module_of(script)
    extra = TINY_STEPS[Path(script).stem].split()
    rows = module.main([*words, *extra])
    shown = capsys.readouterr().out
    assert "What next?" in shown and shown.count("\n| ") >= 2
    results = rows if isinstance(rows, dict) else rows[-1]
    assert results["search"]["genotype"] and all(
        Path(row["folder"], "result.json").exists() for row in results.values() if isinstance(row, dict)
    )
    assert list(home.glob("demo/*/table.md"))
