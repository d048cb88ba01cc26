"""Flags of the BM-NAS found scripts: which genotype, of which space, its sizes, batches, and where the run lies."""

import importlib
import json
import shutil

import pytest

from engine import arguments
from engine.loading import total_batch
from models.genotypes import load_genotype
from models.mmnas.architecture import load_architecture
from tasks.bmnas import flags, networks
from tests.mmnas_golden import ARCHITECTURES
from util.cli import UserError

TASKS = ("mmimdb", "ntu", "ego")
SIZES = {"steps": 3, "multiplier": 2, "node_steps": 2, "node_multiplier": 1}
WORDS = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]


def parse(name, *words):
    module = importlib.import_module(f"main_darts_found_{name}")
    return flags.parse_found(module.TASK, module.get_args_parser(), list(map(str, words)), module.DEMO)


def genotype_of(name, *words):
    return networks.find_genotype(importlib.import_module(f"tasks.{name}").TASK, parse(name, *words))


@pytest.fixture(params=TASKS)
def run(request, tmp_path):
    """(task, run folder of a search in a space of other sizes than the published one)."""
    name, folder = request.param, tmp_path / "search"
    parser = importlib.import_module(f"main_darts_searchable_{name}").get_args_parser()
    folder.mkdir()
    (folder / "args.json").write_text(json.dumps(vars(parser.parse_args([*WORDS, "--datadir", "elsewhere"]))))
    genotype_of(name, "--genotype", "random", *WORDS, "--seed", "9").save(folder / "genotype.json")
    return name, folder


def trained(folder):
    """The folder of a training of what the search in ``folder`` found."""
    made = shutil.copytree(folder, folder.parent / "training")
    saved = json.loads((made / "args.json").read_text())
    (made / "args.json").write_text(json.dumps({**saved, "fusion": "genotype"}))
    return made


def test_a_genotype_by_any_of_its_names(run):
    name, folder = run
    expected = load_genotype(folder)
    for words in (
        ["--search_exp_dir", folder],
        ["--search_exp_dir", folder / "genotype.json"],
        ["--genotype", folder],
        ["--genotype", folder / "genotype.json"],
        ["--ARCH_PATH", folder],
    ):
        args = parse(name, *words)
        assert genotype_of(name, *words) == expected
        assert args.datadir == "elsewhere" and {name: getattr(args, name) for name in SIZES} == SIZES
        # A run that uses another one lies inside it.
        assert args.out_dir == str(folder) and parse(name, *words, "--out_dir", "here").out_dir == "here"
        assert networks.genotype_facts(args) == {"from": str(words[1])}


def test_a_test_lies_inside_its_training(run):
    name, folder = run[0], trained(run[1])
    args = parse(name, "--eval_exp_dir", folder, "--search_exp_dir", "elsewhere")
    assert args.out_dir == str(folder)
    assert parse(name, "--eval_exp_dir", folder, "--out_dir", "here").out_dir == "here"
    parse(name, "--eval_exp_dir", folder, "--genotype", folder / "genotype.json")
    other = genotype_of(name, "--genotype", "random", *WORDS, "--seed", "10")
    other.save(folder / "other.json")
    for genotype in (folder / "other.json", "random"):
        with pytest.raises(UserError, match="tests that run's own network; drop the flag"):
            parse(name, "--eval_exp_dir", folder, "--genotype", genotype)


def test_a_genotype_fixes_its_sizes(run):
    name, folder = run
    tested = ["--eval_exp_dir", trained(folder)]
    for words in (["--search_exp_dir", folder], ["--genotype", folder / "genotype.json"], tested):
        parse(name, *words, *WORDS)
        for size in SIZES:
            with pytest.raises(UserError, match=f"--{size} 7: the genotype of .* has {SIZES[size]}.*drop") as error:
                parse(name, *words, f"--{size}", "7")
            assert "\n" not in str(error.value)


def test_a_genotype_that_is_not_of_the_recipe_is_told(run):
    name, folder = run
    recipe = f"{name}-1"
    for words in (["--genotype", folder / "genotype.json"], ["--search_exp_dir", folder]):
        with pytest.raises(UserError, match=rf"--recipe {recipe} does not fit .*--steps 3 \(recipe: 2\)"):
            parse(name, *words, "--recipe", recipe)
    (folder / "args.json").unlink()
    with pytest.raises(UserError, match=rf"--recipe {recipe} does not fit .*genotype.json, .*--steps 3"):
        parse(name, "--genotype", folder / "genotype.json", "--recipe", recipe)
    assert parse(name, "--genotype", "random", "--recipe", recipe).steps == 2


def test_late_fusion_has_no_sizes():
    parse("mmimdb", "--fusion", "late", "--C", "8")
    with pytest.raises(UserError, match="--node_steps 2: --fusion late has no cell"):
        parse("mmimdb", "--fusion", "late", "--node_steps", "2")


def test_a_random_genotype_is_of_the_searched_space(run):
    name, folder = run
    words = ["--genotype", "random", "--search_exp_dir", folder]
    assert genotype_of(name, *words).sizes() == SIZES
    args = parse(name, *words)
    assert args.out_dir == str(folder) and args.datadir == "elsewhere"
    facts = networks.genotype_facts(args)
    assert facts["from"] == "random" and facts["space_from"] == str(folder)
    assert {name: facts["space"][name] for name in SIZES} == SIZES and "Sum" in facts["space"]["operations"]
    assert genotype_of(name, *words, "--steps", "1", "--multiplier", "1").sizes() == {
        **SIZES,
        "steps": 1,
        "multiplier": 1,
    }
    alone = networks.genotype_facts(parse(name, "--genotype", "random"))
    assert alone["space_from"] == "flags" and alone["space"]["steps"] == 2


def test_a_random_genotype_of_what_was_no_search_is_refused(tmp_path):
    (tmp_path / "args.json").write_text('{"enc_blocks": 12}')
    with pytest.raises(UserError, match="is not the run of a BM-NAS search"):
        parse("mmimdb", "--genotype", "random", "--search_exp_dir", tmp_path)


def test_an_architecture_of_the_other_family_is_told(tmp_path):
    (tmp_path / "genotype.json").write_text(json.dumps(load_architecture(ARCHITECTURES / "mcan.json").to_dict()))
    for words in (["--search_exp_dir", tmp_path], ["--genotype", ARCHITECTURES / "mcan.json"]):
        with pytest.raises(UserError, match="it holds an architecture of MMNas, which train_") as error:
            parse("mmimdb", *words)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["darts_searchable", "darts_found", "unimodal"])
def test_a_batch_is_that_of_all_processes_or_of_each(kind, monkeypatch, tmp_path):
    module = importlib.import_module(f"main_{kind}_mmimdb")
    monkeypatch.setattr("engine.loading.world_size", lambda: 3)

    def size(*words):
        return total_batch(arguments.parse_args(module.get_args_parser(), list(words), demo=module.DEMO))

    assert size() == 8 and size("--batchsize", "12") == 12 and size("--batchsize_per_process", "12") == 36
    assert size("--demo") == 64 and size("--demo", "--batchsize_per_process", "2") == 6
    with pytest.raises(SystemExit):
        size("--batchsize", "8", "--batchsize_per_process", "8")
    old = vars(module.get_args_parser().parse_args([]))
    del old["batchsize_per_process"]
    (tmp_path / "args.json").write_text(json.dumps(old))
    assert size("--resume", str(tmp_path)) == 8, "a run of an older version"
    new = vars(module.get_args_parser().parse_args(["--batchsize_per_process", "5"]))
    (tmp_path / "args.json").write_text(json.dumps(new))
    assert size("--resume", str(tmp_path)) == 15
    for both in (None, 5):
        (tmp_path / "args.json").write_text(json.dumps({**new, "batchsize": both, "batchsize_per_process": both}))
        with pytest.raises(UserError, match=r"args.json: expected a value for exactly one of batchsize and batch"):
            size("--resume", str(tmp_path))


@pytest.mark.parametrize("recorded", [True, False])
def test_a_search_of_another_task_is_refused_before_its_data_are_missed(run, recorded):
    name, folder = run
    other = "ntu" if name != "ntu" else "mmimdb"
    script = f"main_darts_searchable_{name}.py"
    if recorded:
        (folder / "run.json").write_text(json.dumps({"script": script, "sessions": []}))
    message = rf"--search_exp_dir {folder} is a search of {script}; use main_darts_found_{name}\.py"
    with pytest.raises(UserError, match=message):
        parse(other, "--search_exp_dir", folder)
    with pytest.raises(UserError, match=rf"is a training of .*; use main_darts_found_{name}\.py"):
        parse(other, "--eval_exp_dir", trained(folder) if not recorded else _recorded(trained(folder), name))
    assert parse(name, "--search_exp_dir", folder).datadir == "elsewhere"
    # A copy of the recipe may have any name.
    (folder / "run.json").write_text(json.dumps({"script": "main_darts_searchable_clips.py", "sessions": []}))
    assert parse(other, "--search_exp_dir", folder).datadir == "elsewhere"


def _recorded(folder, name):
    (folder / "run.json").write_text(json.dumps({"script": f"main_darts_found_{name}.py", "sessions": []}))
    return folder
