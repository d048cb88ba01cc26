"""Flags of the MMNas scripts: what a run takes over from the run that it uses, where it lies, batches, sizes."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
import torch

from engine.loading import total_batch
from models.mmnas.architecture import Architecture, add_epoch, load_architecture
from tasks.mmnas import flags, networks
from tasks.mmnas.checkpoints import DATA
from util.cli import UserError

TASKS = ("vqa", "vgd", "itm")
FOUND = Architecture((("self_att_64",), ("feed_forward",)), (("guided_att_64",),) * 3)
LAST = Architecture((("feed_forward",), ("feed_forward",)), (("guided_att_64",),) * 3)


def script(task, kind="train"):
    return importlib.import_module(f"{kind}_{task}")


def parse(task, *words):
    module = script(task)
    return flags.parse_train(module.TASK, module.get_args_parser(), list(map(str, words)), module.DEMO)


def parse_search(task, *words):
    module = script(task, "search")
    return flags.parse_search(module.TASK, module.get_args_parser(), list(map(str, words)), module.DEMO)


def searched(folder, task, *words):
    """A run folder as a search of two epochs leaves it."""
    folder.mkdir()
    (folder / "args.json").write_text(json.dumps(vars(parse_search(task, *words))))
    add_epoch(folder / "arch.json", 1, FOUND)
    add_epoch(folder / "arch.json", 2, LAST)
    (folder / "genotype.json").write_text(json.dumps(LAST.to_dict()))
    return folder


def trained(folder, task, *words, architecture=FOUND, **kept):
    """A run folder with what a training leaves for an evaluation."""
    args = parse(task, "--ARCH_PATH", "mcan", *words)
    folder.mkdir()
    (folder / "args.json").write_text(json.dumps(vars(args)))
    names = ("hsize", "drpt", "save", *DATA, *script(task).TASK.checkpoint_args)
    known = {name: getattr(args, name) for name in names if hasattr(args, name)} | kept
    tables = {"vocabulary": {"words": []}, "feature_size": 7, "extraction": None}
    about = {"task": f"tasks.{task}", "arguments": known, "tables": tables, "genotype": architecture.to_dict()}
    torch.save({"net": {}, **about}, folder / "best.pth")
    return folder


@pytest.mark.parametrize("task", TASKS)
class TestUsingARun:
    @pytest.mark.parametrize("run", ["val", "test"])
    @pytest.mark.parametrize("file", ["", "best.pth"])
    def test_a_demo_checkpoint_is_scored_with_its_own_architecture(self, tmp_path, task, run, file):
        folder = trained(tmp_path / "run", task, "--demo", "--hsize", "192", "--data", "elsewhere")
        args = parse(task, "--demo", "--RUN", run, "--CKPT_PATH", folder / file)
        assert args.ARCH_PATH is None and (args.enc_blocks, args.dec_blocks) == (2, 3)
        assert (args.hsize, args.data, args.out_dir) == (192, "elsewhere", str(folder))

    def test_it_lies_inside_that_run_unless_told_otherwise(self, tmp_path, task):
        search, training = searched(tmp_path / "s", task), trained(tmp_path / "t", task)
        assert parse(task, "--ARCH_PATH", search).out_dir == str(search)
        assert parse(task, "--search_exp_dir", search).out_dir == str(search)
        assert parse(task, "--ARCH_PATH", search / "genotype.json", "--demo").out_dir == str(search)
        assert parse(task, "--RUN", "val", "--CKPT_PATH", training).out_dir == str(training)
        assert parse(task, "--ARCH_PATH", search, "--out_dir", "here").out_dir == "here"
        assert parse(task, "--RUN", "test", "--CKPT_PATH", training, "--out_dir", "here").out_dir == "here"
        for alone in ("mcan", "random", "arch/mmnas_vqa.json"):
            assert parse(task, "--ARCH_PATH", alone).out_dir == f"final_exp/{task}"

    @pytest.mark.parametrize("word", ["mcan", "random"])
    def test_the_folder_that_it_is_started_in_says_nothing(self, tmp_path, task, word, monkeypatch):
        searched(tmp_path / "s", task, "--data", "elsewhere", "--skip_missing")
        monkeypatch.chdir(tmp_path / "s")
        args = parse(task, "--ARCH_PATH", word)
        assert args.data == f"data/{task}" and not args.skip_missing and args.out_dir == f"final_exp/{task}"
        assert parse(task, "--ARCH_PATH", "genotype.json").data == "elsewhere", "but the run around a file does"

    def test_an_architecture_by_any_of_its_names(self, tmp_path, task):
        folder = searched(tmp_path / "s", task, "--data", "elsewhere")
        ways = [["--ARCH_PATH", folder], ["--genotype", folder / "arch.json"], ["--search_exp_dir", folder]]
        for way in ways:
            args = parse(task, *way)
            assert networks.find_architecture(args) == LAST and args.data == "elsewhere"
            assert args.ARCH_EPOCH == 2, "a search that goes on changes nothing for a training that is resumed"
            assert networks.find_architecture(parse(task, *way, "--ARCH_EPOCH", "1")) == FOUND
        one = parse(task, "--ARCH_PATH", folder / "genotype.json")
        assert networks.find_architecture(one) == LAST and one.data == "elsewhere"
        (folder / "arch.json").unlink()
        assert networks.find_architecture(parse(task, "--ARCH_PATH", folder)) == LAST

    def test_a_search_of_another_task_gives_its_architecture_but_not_its_data(self, tmp_path, task):
        other = searched(tmp_path / "s", TASKS[TASKS.index(task) - 1], "--data", "elsewhere")
        args = parse(task, "--ARCH_PATH", other)
        assert args.data == f"data/{task}" and networks.find_architecture(args) == LAST

    def test_a_missing_folder_is_named(self, tmp_path, task):
        for words in (["--search_exp_dir", "nowhere"], ["--search_exp_dir", "nowhere", "--ARCH_PATH", "random"]):
            with pytest.raises(UserError, match="nowhere does not exist"):
                parse(task, *words)


@pytest.mark.parametrize("task", TASKS)
class TestSizes:
    def test_an_architecture_fixes_them(self, tmp_path, task):
        search, training = searched(tmp_path / "s", task), trained(tmp_path / "t", task)
        for words, blocks in (
            (["--ARCH_PATH", search], "3"),
            (["--search_exp_dir", search], "3"),
            (["--ARCH_PATH", "arch/mmnas_vqa.json"], "18"),
            (["--RUN", "val", "--CKPT_PATH", training], "3"),
        ):
            assert parse(task, *words).dec_blocks == int(blocks), "as the result will say"
            parse(task, *words, "--dec_blocks", blocks)
            with pytest.raises(UserError, match=f"--dec_blocks 30: .* has {blocks} decoder blocks; drop") as error:
                parse(task, *words, "--dec_blocks", "30")
            assert "\n" not in str(error.value)
            with pytest.raises(UserError, match="--enc_ops: only a search and --ARCH_PATH random"):
                parse(task, *words, "--enc_ops", "feed_forward")

    def test_mcan_has_as_many_blocks_as_asked_for(self, tmp_path, task):
        for words, sizes in (
            ([], (12, 18)),
            (["--enc_blocks", "20", "--dec_blocks", "30"], (20, 30)),
            (["--demo"], (2, 4)),
            (["--search_exp_dir", searched(tmp_path / "s", task, "--enc_blocks", "5")], (5, 18)),
        ):
            found = networks.find_architecture(parse(task, "--ARCH_PATH", "mcan", *words))
            assert (len(found.enc), len(found.dec)) == sizes
        with pytest.raises(UserError, match="--dec_ops: only a search"):
            parse(task, "--ARCH_PATH", "mcan", "--dec_ops", "feed_forward")


@pytest.mark.parametrize("task", TASKS)
class TestRandom:
    def test_it_is_of_the_searched_space(self, tmp_path, task):
        space = ["--enc_ops", "gated_linear_1", "--dec_ops", "skip_connect", "--enc_blocks", "4", "--dec_blocks", "5"]
        folder = searched(tmp_path / "s", task, *space)
        args = parse(task, "--ARCH_PATH", "random", "--search_exp_dir", folder)
        assert networks.find_architecture(args) == Architecture((("gated_linear_1",),) * 4, (("skip_connect",),) * 5)
        facts = networks.architecture_facts(args)
        assert facts["from"] == "random" and facts["space_from"] == str(folder) and args.out_dir == str(folder)
        assert facts["space"] == {
            "enc_ops": ["gated_linear_1"],
            "dec_ops": ["skip_connect"],
            "enc_blocks": 4,
            "dec_blocks": 5,
        }
        wider = parse(task, "--ARCH_PATH", "random", "--search_exp_dir", folder, "--enc_ops", "self_att_64")
        assert networks.find_architecture(wider).enc == (("self_att_64",),) * 4, "an explicit flag wins"

    def test_it_is_of_the_space_of_the_flags(self, task):
        args = parse(task, "--ARCH_PATH", "random")
        facts = networks.architecture_facts(args)
        assert facts["space_from"] == "flags" and facts["seed"] == args.seed
        assert facts["space"]["dec_ops"] == ["self_att_64", "rel_self_att_64", "guided_att_64", "feed_forward"]
        drawn = networks.find_architecture(parse(task, "--ARCH_PATH", "random", "--dec_ops", "skip_connect"))
        assert drawn.dec == (("skip_connect",),) * 18
        with pytest.raises(UserError, match="--dec_ops: there is no operation 'jump'"):
            networks.find_architecture(parse(task, "--ARCH_PATH", "random", "--dec_ops", "jump"))

    def test_a_run_without_a_space_is_refused(self, tmp_path, task):
        (tmp_path / "args.json").write_text('{"steps": 2}')
        with pytest.raises(UserError, match="is not the run of an MMNas search"):
            parse(task, "--ARCH_PATH", "random", "--search_exp_dir", tmp_path)


class TestMetric:
    def test_it_is_that_of_the_training(self, tmp_path):
        folder = trained(tmp_path / "run", "vqa", "--metric", "official")
        assert parse("vqa", "--RUN", "val", "--CKPT_PATH", folder).metric == "official"
        assert parse("vqa", "--RUN", "val", "--CKPT_PATH", folder, "--metric", "original").metric == "original"

    def test_checkpoints_of_older_versions_have_it_beside_them(self, tmp_path):
        folder = trained(tmp_path / "run", "vqa", "--metric", "official")
        content = torch.load(folder / "best.pth", weights_only=True)
        del content["arguments"]["metric"]
        torch.save(content, folder / "best.pth")
        assert parse("vqa", "--RUN", "val", "--CKPT_PATH", folder).metric == "official"

    @pytest.mark.parametrize(
        ("task", "name", "value"),
        [
            ("vqa", "metric", "official"),
            ("vgd", "iou", "continuous"),
            ("vgd", "padded_regions", "score"),
            ("vgd", "scores_loss", "bce"),
            ("vgd", "DATASET", "refcocog"),
            ("itm", "scores_loss", "margin"),
            ("itm", "DATASET", "coco"),
        ],
    )
    def test_what_a_score_means_is_kept(self, tmp_path, task, name, value):
        folder = trained(tmp_path / "run", task, f"--{name}", value)
        assert getattr(parse(task, "--RUN", "val", "--CKPT_PATH", folder), name) == value

    def test_it_is_said_in_words(self):
        own = {task: importlib.import_module(f"tasks.{task}") for task in TASKS}
        said = {
            own["vqa"].TASK.metric_text(parse("vqa", "--ARCH_PATH", "mcan", "--metric", metric))
            for metric in ("original", "official")
        }
        said |= {
            own["vgd"].TASK.metric_text(parse("vgd", "--ARCH_PATH", "mcan", "--iou", iou, "--padded_regions", padding))
            for iou in ("pixels", "continuous")
            for padding in ("ignore", "score")
        }
        assert len(said) == 6 and all("--metric" in text or "--iou" in text for text in said)
        assert "mean_recall" in own["itm"].TASK.metric_text(parse("itm", "--ARCH_PATH", "mcan"))


@pytest.mark.parametrize("task", TASKS)
class TestBatches:
    def test_the_published_size_is_that_of_each_process(self, task, monkeypatch):
        args = parse(task, "--ARCH_PATH", "mcan")
        assert (args.batchsize, args.batchsize_per_process) == (None, 64)
        assert total_batch(args) == 64
        monkeypatch.setattr("engine.loading.world_size", lambda: 4)
        assert total_batch(args) == 256
        assert total_batch(parse(task, "--ARCH_PATH", "mcan", "--batchsize", "64")) == 64
        for flag in ("--BS", "--batchsize_per_process"):
            assert total_batch(parse(task, "--ARCH_PATH", "mcan", flag, "1")) == 4

    @pytest.mark.parametrize("other", ["--BS", "--batchsize_per_process"])
    def test_both_at_once_are_refused_also_if_one_is_the_default(self, task, other, capsys):
        with pytest.raises(SystemExit):
            parse(task, "--ARCH_PATH", "mcan", "--batchsize", "128", other, "64")
        assert "pass only one of them" in capsys.readouterr().err

    @pytest.mark.parametrize("kind", ["search", "train"])
    def test_a_run_of_an_older_version_keeps_its_meaning(self, tmp_path, task, kind):
        """There --batchsize counted for each process, and mining counted from epoch 0."""
        read, words = (parse, ["--ARCH_PATH", "mcan"]) if kind == "train" else (parse_search, [])
        old = vars(read(task, *words))
        for new in ("batchsize_per_process", "neg_period_from"):
            old.pop(new, None)
        if kind == "train":
            for new in ("search_exp_dir", "enc_ops", "dec_ops"):
                del old[new]
        old["batchsize"] = 16
        (tmp_path / "args.json").write_text(json.dumps(old))
        args = read(task, "--resume", tmp_path)
        assert (args.batchsize, args.batchsize_per_process) == (None, 16)
        assert getattr(args, "neg_period_from", "zero") == "zero"
        (tmp_path / "args.json").write_text(json.dumps(vars(args)))
        again = read(task, "--resume", tmp_path)
        assert (again.batchsize, again.batchsize_per_process) == (None, 16)
        with pytest.raises(UserError, match=r"--batchsize_per_process 32 \(was 16\)"):
            read(task, "--resume", tmp_path, "--BS", "32")
        with pytest.raises(UserError, match=r"--batchsize 16 \(was None\)"):
            read(task, "--resume", tmp_path, "--batchsize", "16")


def test_a_checkpoint_of_the_original_says_nothing_of_its_sizes(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "x.pkl")
    words = ["--RUN", "val", "--CKPT_PATH", tmp_path / "x.pkl", "--ARCH_PATH", "arch/mcan.json"]
    args = parse("vqa", *words)
    assert (args.enc_blocks, args.dec_blocks, args.out_dir) == (12, 18, "final_exp/vqa")
    assert networks.find_architecture(args) == load_architecture(Path("arch/mcan.json"))
    with pytest.raises(UserError, match="--enc_blocks 3"):
        parse("vqa", *words, "--enc_blocks", "3")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["search", "train"])
def test_a_demo_run_is_resumed_with_its_one_batch_size(task, kind, tmp_path):
    read = parse if kind == "train" else parse_search
    args = read(task, "--demo", *(["--ARCH_PATH", "mcan"] if kind == "train" else []))
    assert (args.batchsize is None) != (args.batchsize_per_process is None)
    both = {**vars(args), "batchsize": total_batch(args), "batchsize_per_process": 64}
    for saved in (vars(args), both):  # The second as an earlier version wrote it for VQA.
        (tmp_path / "args.json").write_text(json.dumps(saved))
        words = ["--resume", tmp_path] if kind == "search" else ["--RESUME", "--CKPT_PATH", tmp_path]
        assert total_batch(read(task, *words)) == total_batch(args)


def test_the_validation_of_a_task_can_be_a_plain_tuple():
    task = dataclasses.replace(script("vqa").TASK, validation=("dev", "loss"))
    assert (task.validation.split, task.validation.score) == ("dev", "loss")
    with pytest.raises(UserError, match="validation is a tuple of a split and a score"):
        dataclasses.replace(task, validation="val")


def test_a_resumed_training_keeps_its_architecture(tmp_path):
    search, run = searched(tmp_path / "search", "vqa"), tmp_path / "run"
    args = parse("vqa", "--RUN", "train", "--ARCH_PATH", search)
    args.resume = str(run)
    run.mkdir()
    (run / "args.json").write_text(json.dumps(vars(args)))
    (run / "genotype.json").write_text(json.dumps(LAST.to_dict()))
    (search / "arch.json").unlink()
    with pytest.raises(UserError, match="has no epoch 2"):  # nothing is kept before the first epoch
        networks.find_architecture(args)
    (run / "last.pth").touch()
    assert networks.find_architecture(args) == LAST
    args.ARCH_PATH = "mcan"  # named on the command line
    assert networks.find_architecture(args) != LAST


def test_a_space_is_read_from_a_run_folder_only(tmp_path):
    for architecture in ("mcan", "random"):
        with pytest.raises(UserError, match=r"--search_exp_dir .* is not a run folder: it has no args\.json"):
            parse("vqa", "--ARCH_PATH", architecture, "--search_exp_dir", tmp_path)
