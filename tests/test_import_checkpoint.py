"""Files of both original projects become run folders: scored, continued, and named where something is left over."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch

import import_checkpoint
import main_darts_found_mmimdb as found
import main_unimodal_mmimdb as unimodal
import train_vqa
from models.bmnas import published as bmnas
from models.genotypes import load_genotype
from models.mmnas import published as mmnas
from tasks.mmimdb import TASK
from tasks.results import load_result
from tests.test_scripts import EXAMPLE, SIZES, pickle_as_the_original, train_found
from util.checkpoint import load_checkpoint
from util.cli import UserError


def imported(capsys, *words):
    """The run folder that an import makes, and what it says."""
    folder = import_checkpoint.main(list(map(str, words)))
    return folder, capsys.readouterr().out


@pytest.fixture(scope="module")
def original(narrow_backbones, films, tmp_path_factory):
    """A folder of the original with a network and its genotype, and the scores of the network."""
    out = tmp_path_factory.mktemp("original")
    result = train_found(films, "--genotype", EXAMPLE, "--out_dir", out)
    state = load_checkpoint(Path(result["folder"]) / "best.pth")["net"]
    (out / "run" / "best").mkdir(parents=True)
    theirs = bmnas.to_published(state, TASK.published_names, found=True)
    torch.save(theirs, out / "run" / "best" / "best_test_model.pt")
    pickled = pickle_as_the_original(load_genotype(EXAMPLE))
    (out / "run" / "best" / "best_test_genotype.pkl").write_bytes(pickled)
    return out / "run", result["metrics"]["test"], theirs


@pytest.mark.usefixtures("narrow_backbones")
class TestFusion:
    def test_a_network_is_scored(self, films, original, tmp_path, capsys):
        run, scores, _ = original
        folder, said = imported(capsys, "--task", "mmimdb", "--file", run, "--out", tmp_path / "net")
        assert "not used" not in said and f"--eval_exp_dir={folder}" in said
        # No sizes are given: the tensors say them.
        tested = found.main([*films.flags, "--eval_exp_dir", str(folder)])
        assert tested["metrics"]["test"] == pytest.approx(scores, rel=1e-5)
        facts = load_result(folder).values["imported_from"]
        assert facts["file"].endswith("best_test_model.pt") and len(facts["sha256"]) == 64 and facts["not_used"] == []

    def test_what_is_left_over_is_named(self, films, original, tmp_path, capsys):
        _, scores, theirs = original
        more = {"module.central_classifier.extra": torch.zeros(1), "module.head.weight": torch.zeros(2)}
        content = {"state_dict": {f"module.{key}": value for key, value in theirs.items()} | more, "lr": 0.1}
        torch.save(content, tmp_path / "net.pt")
        words = "--task", "mmimdb", "--file", tmp_path / "net.pt", "--out", tmp_path / "net"
        with pytest.raises(UserError, match=r"no best_test_genotype.pkl or best_genotype.pkl next to it; pass --gen"):
            imported(capsys, *words)
        assert not (tmp_path / "net").exists()
        folder, said = imported(capsys, *words, "--genotype", EXAMPLE)
        assert "not used: lr, which a test does not need" in said
        assert "not used: head.weight, which no network of this task has" in said
        assert "not used: classifier.extra, which the network of this architecture lacks" in said
        tested = found.main([*films.flags, "--eval_exp_dir", str(folder)])
        assert tested["metrics"]["test"] == pytest.approx(scores, rel=1e-5)
        with pytest.raises(UserError, match="exists already; name a new folder"):
            imported(capsys, *words, "--genotype", EXAMPLE)

    def test_a_genotype_is_trained(self, films, original, tmp_path, capsys):
        file = original[0] / "best" / "best_test_genotype.pkl"
        folder, said = imported(capsys, "--task", "mmimdb", "--file", file, "--out", tmp_path / "search")
        assert f"--search_exp_dir={folder}" in said
        assert load_genotype(folder).same_network(load_genotype(EXAMPLE))
        flags = [*films.flags, *SIZES, "--search_exp_dir", str(folder), "--freeze_backbones", "--epochs", "1"]
        assert found.main(flags)["metrics"]["test"]

    def test_backbones_by_their_tensors(self, films, tmp_path, capsys):
        result = unimodal.main([*films.flags, "--modality", "text", "--epochs", "1", "--out_dir", str(tmp_path)])
        state = load_checkpoint(Path(result["folder"]) / "backbone.pth")
        # As of a torch without counts, with a head for other classes, and with something more.
        old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        old |= {"hid2val.weight": torch.zeros(7, 128), "hid2val.bias": torch.zeros(7), "extra": torch.zeros(1)}
        torch.save({"state_dict": old, "epoch": 3}, tmp_path / "text.checkpoint")
        words = "--task", "mmimdb", "--file", tmp_path / "text.checkpoint", "--out", tmp_path / "text"
        folder, said = imported(capsys, *words)
        assert f"--text_cp {folder}" in said and "not used: epoch" in said and "not used: extra, which" in said
        assert load_result(folder).values["arguments"]["num_outputs"] == 7
        kept = load_checkpoint(folder / "backbone.pth")
        assert set(kept) == set(state) and torch.equal(kept["op1.lin.weight"], state["op1.lin.weight"])
        torch.save({"op1.lin.weight": torch.zeros(320, 300)}, tmp_path / "part.pt")
        with pytest.raises(UserError, match=r"is not a backbone of mmimdb: it lacks .* tensors of the image network"):
            imported(capsys, "--task", "mmimdb", "--file", tmp_path / "part.pt", "--out", tmp_path / "part")

    def test_video_backbones(self, narrow_backbones, tmp_path, capsys):
        from models.backbones.resnext3d import ResNeXt101

        for name, channels in (("rgb", 3), ("depth", 1)):
            torch.save(ResNeXt101(83, channels).state_dict(), tmp_path / f"{name}.pth")
            words = "--task", "ego", "--file", tmp_path / f"{name}.pth", "--out", tmp_path / name
            assert f"--{name}_cp {tmp_path / name}" in imported(capsys, *words)[1]

    def test_refusals(self, original, tmp_path, capsys):
        run, _, theirs = original
        out = "--out", tmp_path / "out"
        supernet = {"fusion_net.cell._step_nodes.0.node_cell.node_ops.0._ops.1.ln.weight": torch.zeros(1)}
        torch.save(supernet, tmp_path / "best_model.pt")
        (tmp_path / "run.pkl").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
        cut = {key: value for key, value in theirs.items() if "central_classifier" not in key}
        torch.save(cut, tmp_path / "cut.pt")
        torch.save([1], tmp_path / "list.pt")
        example = "--genotype", EXAMPLE
        for words, text in (
            (["--file", tmp_path / "best_model.pt"], "is the supernet of a search"),
            (["--file", tmp_path / "run.pkl"], r"names (os|posix)?\.?system, which does not belong|is not a genotype"),
            (["--file", tmp_path / "cut.pt", *example], r"lacks the tensors of classifier\.weight"),
            (["--file", tmp_path / "list.pt"], "contains no state dict"),
            (["--file", tmp_path / "none"], "does not exist"),
            (["--file", tmp_path], "is a folder without best/best_test_model.pt"),
            (["--file", EXAMPLE, "--genotype", "README.md"], "is a genotype itself; drop --genotype"),
            (["--file", run, "--arch", EXAMPLE], "--arch is for vqa, vgd, itm"),
        ):
            with pytest.raises(UserError, match=text):
                imported(capsys, "--task", "mmimdb", *words, *out)
            assert not (tmp_path / "out").exists()


def as_the_original(folder):
    """The content of a training's folder as the original saves it: names, order and prefix of its tensors."""
    best, last = load_checkpoint(folder / "best.pth"), load_checkpoint(folder / "last.pth")
    theirs = mmnas.to_published(best["net"])
    # Our optimiser has the network's parameters in their order, without those that no path reads.
    optimizer = last["objects"]["weights"]["optimizer"]
    ours = list(best["net"])
    if len(optimizer["param_groups"][0]["params"]) < len(ours):
        ours = [key for key in ours if not key.startswith("relation_linear.")]
    moments = dict(zip(ours, map(optimizer["state"].get, optimizer["param_groups"][0]["params"]), strict=True))
    names = dict(zip(best["net"], theirs, strict=True))
    # Another order than ours, as in the original.
    keys = sorted(theirs)
    of_theirs = {names[key]: one for key, one in moments.items()}
    group = {**optimizer["param_groups"][0], "params": list(range(len(keys)))}
    state = {number: of_theirs[key] for number, key in enumerate(keys) if of_theirs.get(key)}
    saved = {"state_dict": {key: theirs[key] for key in keys}, "epoch": last["epoch"]}
    return saved | {"net_optim": {"state": state, "param_groups": [group]}, "arg": "x"}


SLOW = pytest.mark.slow


@pytest.mark.parametrize("task", ["vqa", pytest.param("vgd", marks=SLOW), pytest.param("itm", marks=SLOW)])
class TestAttention:
    def test_a_training_is_scored_and_goes_on_as_it_would_have(self, request, task, tmp_path, capsys):
        searched = request.getfixturevalue(f"searched_{task}")
        script, given = importlib.import_module(f"train_{task}"), [*searched.flags, "--drpt", "0", "--epochs", "1"]
        flags = [*given, "--out_dir", str(tmp_path)]
        own = Path(script.main([*flags, "--ARCH_PATH", str(searched.folder)])["folder"])
        file = tmp_path / f"train_{task}-full_epoch1.pkl"
        torch.save(as_the_original(own), file)
        arch = "--arch", searched.folder / "genotype.json"
        words = ["--task", task, "--file", file, *arch, "--out", tmp_path / "got", "--flags", *flags]
        folder, said = imported(capsys, *words)
        assert "--RESUME" in said and "not used: arg, which are not needed" in said and "net_optim" not in said
        scored = script.main(["--RUN", "val", "--CKPT_PATH", str(folder), "--num_workers", "0", "--device", "cpu"])
        split = "dev" if task == "itm" else "val"
        before = load_result(own).scores[split]
        assert scored["metrics"][split] == pytest.approx(before, rel=1e-5)
        # Without dropout the random state, which the file lacks, decides nothing.
        resume = ["--RUN", "train", "--RESUME", "--CKPT_PATH", "", "--epochs", "2"]
        ends = []
        for run in (own, folder):
            resume[-3] = str(run)
            ends.append(script.main(resume))
        for split, scores in ends[0]["metrics"].items():
            assert ends[1]["metrics"][split] == pytest.approx(scores, rel=1e-4), split
        assert ends[1]["training_mode_metrics"] == {
            "train": pytest.approx(ends[0]["training_mode_metrics"]["train"], rel=1e-4)
        }


@pytest.fixture(scope="module")
def trained_file(searched_vqa, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    flags = [*searched_vqa.flags, "--epochs", "1", "--small_dataset", "--out_dir", str(out)]
    own = Path(train_vqa.main([*flags, "--ARCH_PATH", str(searched_vqa.folder)])["folder"])
    torch.save(as_the_original(own), out / "file.pkl")
    return out / "file.pkl", searched_vqa.folder / "genotype.json"


class TestAttentionFaults:
    def changed(self, file, path, **changes):
        content = {**load_checkpoint(file), **changes}
        torch.save({name: value for name, value in content.items() if value is not None}, path)
        return path

    def test_what_cannot_be_continued_is_said(self, trained_file, tmp_path, capsys):
        file, arch = trained_file
        optimizer = load_checkpoint(file)["net_optim"]
        few = {**optimizer, "param_groups": [{**optimizer["param_groups"][0], "params": [0, 1]}]}
        turned = {
            **optimizer,
            "state": dict(zip(optimizer["state"], reversed(optimizer["state"].values()), strict=True)),
        }
        for number, (changes, text) in enumerate((
            ({"net_optim": few}, "because it has 2 parameters, but the network has"),
            ({"net_optim": turned}, "because its moments do not fit the parameters"),
            ({"net_optim": {"state": []}}, "because it is not the state of Adam"),
            ({"epoch": None}, "because the file has no epoch"),
            ({"epoch": 5000}, "because 4 steps are not a multiple of 5000 epochs"),
        )):  # fmt: skip
            path = self.changed(file, tmp_path / "file.pkl", **changes)
            words = "--task", "vqa", "--file", path, "--arch", arch, "--out", tmp_path / str(number)
            folder, said = imported(capsys, *words)
            assert f"not used: net_optim, {text}" in said and "--RESUME" not in said
            assert not (folder / "last.pth").exists() and (folder / "best.pth").exists()

    def test_other_data_are_refused_when_it_goes_on(self, trained_file, searched_vqa, tmp_path, capsys):
        file, arch = trained_file
        flags = ["--flags", *searched_vqa.flags, "--epochs", "2"]
        words = "--task", "vqa", "--file", file, "--arch", arch, "--out", tmp_path / "net", *flags
        folder, _ = imported(capsys, *words)
        with pytest.raises(UserError, match=r"its epochs had 4 steps, now \d+: other data or batch size"):
            train_vqa.main(["--RESUME", "--CKPT_PATH", str(folder)])

    def test_refusals(self, trained_file, tmp_path, capsys):
        file, arch = trained_file
        state = load_checkpoint(file)["state_dict"]
        supernet = {**state, "module.backnone.cells_enc.0.dag.0.0.alpha_prob": torch.zeros(2)}
        few = {key: value for key, value in state.items() if "imgfeat" not in key}
        lacking = {key: value for key, value in state.items() if "proj_norm" not in key}
        for changes, extra, text in (
            ({}, [], r"does not contain its architecture; pass --arch FILE"),
            ({"state_dict": supernet}, ["--arch", arch], "is the supernet of a search"),
            ({"state_dict": few}, ["--arch", arch], r"lacks the tensors of region_linear\.weight"),
            ({"state_dict": lacking}, ["--arch", arch], r"2 missing \(head\.proj_norm"),
            ({}, ["--arch", "arch/mmnas_itm.json"], "missing"),
        ):
            path = self.changed(file, tmp_path / "file.pkl", **changes)
            with pytest.raises(UserError, match=text):
                imported(capsys, "--task", "vqa", "--file", path, *extra, "--out", tmp_path / "out")
            assert not (tmp_path / "out").exists()

    def test_a_moved_folder_needs_nothing_else(self, trained_file, searched_vqa, tmp_path, capsys):
        file, arch = trained_file
        words = (
            "--task",
            "vqa",
            "--file",
            file,
            "--arch",
            arch,
            "--out",
            tmp_path / "net",
            "--flags",
            *searched_vqa.flags,
        )
        folder, _ = imported(capsys, *words)
        shutil.move(folder, tmp_path / "moved")
        flags = ["--RUN", "val", "--CKPT_PATH", str(tmp_path / "moved"), "--small_dataset"]
        assert train_vqa.main(flags)["metrics"]["val"]
        assert json.loads((tmp_path / "moved" / "result.json").read_text())["kind"] == "import"
