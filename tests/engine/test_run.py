"""Runs: separate folders, logs that survive a kill, restored state, the selected epoch, verifiable results."""

import json
import logging
import math
import platform
import random
import re
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from engine.report import peak_memory_mb
from engine.run import _run_folder, seed_everything, start_run
from engine.run_log import close_log, open_log
from engine.training import BestEpoch, fit
from util.checkpoint import load_checkpoint
from util.cli import UserError
from util.files import write_text

ROOT = Path(__file__).parent.parent.parent


def arguments(**changes):
    values = {"seed": 2, "device": "cpu", "save": "EXP", "resume": None, "parallel": False}
    return SimpleNamespace(**{**values, **changes})


def record(epoch=0, **changes):
    return {"epoch": epoch, "dev": {"loss": 0.5, "f1": 0.25}, "best": False, "seconds": 1.0, **changes}


class TestFolder:
    def test_name_and_arguments(self, tmp_path):
        args = arguments(save="mine", lr=0.1)
        with start_run(args, "search", tmp_path / "a" / "b") as run:
            assert run.folder.parent == tmp_path / "a" / "b"
            assert re.fullmatch(r"search-mine-\d{8}-\d{6}", run.folder.name)
            assert json.loads((run.folder / "args.json").read_text()) == vars(args)
            assert run.device == torch.device("cpu") and run.epoch == 0 and not run.stopped
            assert str(run.folder) in (run.folder / "log.txt").read_text()

    def test_runs_of_one_second_have_different_folders(self, tmp_path):
        folders = []
        for _ in range(5):
            with start_run(arguments(), "search", tmp_path) as run:
                folders.append(run.folder)
        assert len(set(folders)) == 5 and all((folder / "args.json").exists() for folder in folders)

    def test_runs_that_start_together_have_different_folders(self, tmp_path):
        found = []

        def make():
            found.append(_run_folder(arguments(), "search", tmp_path))

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 8

    @pytest.mark.parametrize("parent", ["file", "file/inside"])
    def test_a_place_that_cannot_be_written_is_named(self, tmp_path, parent):
        (tmp_path / "file").write_text("x")
        expected = pytest.raises(UserError, match=r"cannot create the run folder .*file.*choose another --out_dir")
        with expected as error, start_run(arguments(), "search", tmp_path / parent):
            pass
        assert "\n" not in str(error.value)

    def test_a_finished_run_without_its_checkpoint_does_not_start_again(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            (run.folder / "log.jsonl").write_text(json.dumps(record()) + "\n")
            (run.folder / "result.json").write_text("{}")
        kept = (run.folder / "log.jsonl").read_text()
        expected = pytest.raises(UserError, match=r"last\.pth is missing, but the run is finished; restore")
        with expected, start_run(arguments(resume=str(run.folder)), "search", tmp_path) as again:
            again.track(net=nn.Linear(1, 1))
        assert (run.folder / "log.jsonl").read_text() == kept and (run.folder / "result.json").read_text() == "{}"

    def test_resuming_stays_in_the_folder(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            folder = run.folder
        with start_run(arguments(resume=str(folder)), "search", tmp_path) as run:
            assert run.folder == folder
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
        assert (folder / "log.txt").read_text().count("run folder") == 2, "the log goes on"

    def test_the_log_is_closed_with_the_run(self, tmp_path):
        before = list(logging.getLogger("mdarts").handlers)
        with pytest.raises(ZeroDivisionError), start_run(arguments(), "search", tmp_path):
            raise ZeroDivisionError
        assert logging.getLogger("mdarts").handlers == before

    def test_an_interrupt_says_how_to_go_on(self, tmp_path):
        expected = pytest.raises(KeyboardInterrupt, match=r"continue with --resume .*/search-EXP-")
        with expected, start_run(arguments(), "search", tmp_path) as run:
            raise KeyboardInterrupt
        assert f"--resume {run.folder}" in (run.folder / "log.txt").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_missing_gpu_is_one_line(tmp_path, device):
    expected = pytest.raises(UserError, match=rf"--device {device}: this torch sees no GPUs; use --device cpu")
    with expected as error, start_run(arguments(device=device), "search", tmp_path):
        pass
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_the_automatic_device_is_found(tmp_path):
    with start_run(arguments(device="auto"), "search", tmp_path) as run:
        assert run.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


class TestLog:
    @pytest.mark.parametrize("torn", ['{"epoch": 2, "dev": {"lo', "{", "null"])
    def test_a_torn_last_line_is_ignored_and_replaced(self, tmp_path, torn):
        with start_run(arguments(), "search", tmp_path) as run:
            run.track()
            for epoch in range(2):
                run.finish_epoch(record(epoch))
            log = run.folder / "log.jsonl"
            log.write_text(log.read_text() + torn)
            assert [r["epoch"] for r in run.records()] == [0, 1]
        with start_run(arguments(resume=str(run.folder)), "search", tmp_path) as run:
            run.track()
            run.finish_epoch(record(2))
            assert run.records() == [record(0), record(1), record(2)]

    @pytest.mark.parametrize("left", ['{"epoch": 0, "de', json.dumps(record(0)) + "\n"], ids=["torn", "whole"])
    def test_a_kill_in_the_first_epoch_leaves_nothing_behind(self, tmp_path, left):
        with start_run(arguments(), "search", tmp_path) as run:
            (run.folder / "log.jsonl").write_text(left)
        with start_run(arguments(resume=str(run.folder)), "search", tmp_path) as run:
            run.track()
            run.finish_epoch(record(0, seconds=2.0))
            assert run.records() == [record(0, seconds=2.0)]

    def test_an_epoch_counts_once_its_checkpoint_is_written(self, tmp_path, monkeypatch):
        """If a run is killed between log and checkpoint, the epoch is run and logged again."""
        import engine.run

        with start_run(arguments(), "search", tmp_path) as run:
            run.track()
            run.finish_epoch(record(0))

            def killed(path, value):
                raise KeyboardInterrupt

            monkeypatch.setattr(engine.run, "save_checkpoint", killed)
            with pytest.raises(KeyboardInterrupt):
                run.finish_epoch(record(1, seconds=5.0))
            monkeypatch.undo()
            assert len(run.records()) == 2
        with start_run(arguments(resume=str(run.folder)), "search", tmp_path) as run:
            run.track()
            assert run.epoch == 1 and run.records() == [record(0)]

    def test_there_are_no_records_before_the_first_epoch(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            assert run.records() == []

    def test_lines_and_warnings_reach_the_log(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            run.track()
            run.finish_epoch(record(0, warnings=["collapsed"], best=True))
        text = (run.folder / "log.txt").read_text()
        assert "epoch 0 | dev loss 0.5000 f1 0.2500 | best so far | 1.0 s" in text
        assert "WARNING epoch 0: collapsed" in text

    def test_the_best_epoch_is_kept_with_its_genotype(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            run.track()
            run.finish_epoch(record(0), {"net": {"w": torch.ones(1)}, "genotype": {"edges": []}})
            run.finish_epoch(record(1))
            assert torch.equal(run.load_best()["net"]["w"], torch.ones(1))
            assert json.loads((run.folder / "genotype.json").read_text()) == {"edges": []}


def strict(text):
    """Parse JSON, and reject NaN and infinity, which it does not have."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


class TestNotANumber:
    def test_it_is_null_in_files_and_comes_back(self, tmp_path):
        about = {"genotype": {"inputs": None}, "probabilities": {"a": {"b": {"c": math.nan}}}}
        first = record(0, dev={"loss": math.nan, "f1": 0.5}, **about)
        with start_run(arguments(), "search", tmp_path) as run:
            run.track()
            run.finish_epoch(first)
            run.write_result({"metrics": {"dev": {"loss": math.inf}}})
            (line,) = (run.folder / "log.jsonl").read_text().splitlines()
            assert strict(line)["dev"] == {"loss": None, "f1": 0.5}
            assert strict((run.folder / "result.json").read_text())["metrics"] == {"dev": {"loss": None}}
            (read,) = run.records()
        assert math.isnan(read["dev"]["loss"]) and math.isnan(read["probabilities"]["a"]["b"]["c"])
        assert read["genotype"] == {"inputs": None}
        assert (run.folder / "curves.svg").exists()

    def test_a_log_of_version_0_1_0_is_read_and_mended(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            run.track()
            run.finish_epoch(record(0))
            (run.folder / "log.jsonl").write_text(json.dumps(record(0, dev={"loss": math.nan, "f1": 0.5})) + "\n")
        with start_run(arguments(resume=str(run.folder)), "search", tmp_path) as run:
            run.track()
        assert strict((run.folder / "log.jsonl").read_text())["dev"]["loss"] is None


class Late(Exception):
    """An error at the end of a run."""


def failed(folder, work, **changes):
    """The folder that is left after a run that calls ``work(run)`` and fails."""
    with pytest.raises(Late), start_run(arguments(**changes), "test", folder) as run:
        work(run)
        raise Late
    return run.folder


class TestFailure:
    def test_what_is_worth_nothing_is_removed(self, tmp_path):
        assert not failed(tmp_path, lambda run: None).exists()
        assert not failed(tmp_path, lambda run: run.write("genotype.svg", "<svg/>")).exists()

    @pytest.mark.parametrize(
        "work",
        [
            lambda run: run.write("predictions.json", "[]"),
            lambda run: run.log_scores("test", {"f1": 0.5}),
            lambda run: run.track(),
            lambda run: (run.folder / "anything").mkdir(),
        ],
    )
    def test_what_is_worth_something_stays(self, tmp_path, work):
        folder = failed(tmp_path, work)
        assert folder.exists() and "error" in (folder / "log.txt").read_text()

    def test_a_resumed_run_stays(self, tmp_path):
        with start_run(arguments(), "test", tmp_path) as run:
            pass
        assert failed(tmp_path, lambda run: None, resume=str(run.folder)).exists()

    def test_a_fault_that_spoils_nothing_is_told_at_the_end(self, tmp_path):
        with pytest.raises(UserError, match="cannot write a copy"), start_run(arguments(), "test", tmp_path) as run:
            run.fail_later("cannot write a copy")
            run.write_result({"kind": "test"})
        assert (run.folder / "result.json").exists()

    def test_predictions_survive_an_unwritable_second_place(self, tmp_path, monkeypatch):
        from tasks.mmnas.checkpoints import write_predicted

        monkeypatch.chdir(tmp_path)
        (tmp_path / "logs").write_text("a file")
        args = arguments(RUN="test")
        expected = pytest.raises(UserError, match=r"cannot write logs/.*; the predictions are in runs/.*/pred")
        with expected as error, start_run(args, "test", "runs") as run:
            written = write_predicted(args, run, lambda place: write_text(place, "[1]"))
            assert written == [str(run.folder / "predictions.json")]
            run.write_result({"kind": "test", "predictions": written})
        assert "\n" not in str(error.value)
        assert (run.folder / "predictions.json").read_text() == "[1]" and (run.folder / "result.json").exists()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
    def test_a_full_disk_is_one_line(self, tmp_path, capsys):
        expected = pytest.raises(UserError, match=r"cannot write .*log\.jsonl: No space left on device")
        with expected, start_run(arguments(), "search", tmp_path) as run:
            run.track()
            run.finish_epoch(record(0))
            for name in ("log.jsonl", "log.txt"):
                (run.folder / name).rename(run.folder / f"{name}.before")
                (run.folder / name).symlink_to("/dev/full")
            run.finish_epoch(record(1))
        assert (run.folder / "last.pth").exists()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
    def test_a_log_that_cannot_be_written_is_told_once(self, tmp_path, capfd):
        (tmp_path / "log.txt").symlink_to("/dev/full")
        handlers = open_log(tmp_path / "log.txt")
        for number in range(3):
            logging.getLogger("mdarts").info("line %d", number)
        close_log(handlers)
        printed = capfd.readouterr().err
        assert printed.count("cannot write") == 1 and "Traceback" not in printed and "line 2" in printed


def draws():
    """The next draws of every generator; two of each, so that a half-used state counts too."""
    return (
        [random.random(), random.gauss(0, 1)],
        [np.random.rand(), np.random.randn()],
        [torch.rand(3).tolist(), torch.randn(3).tolist()],
    )


class TestRandomState:
    def test_resuming_continues_every_source(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            run.track()
            draws()  # leaves the second number of a normal pair in NumPy and Python
            run.finish_epoch(record(0))
            expected = draws()
        seed_everything(99)
        with start_run(arguments(resume=str(run.folder)), "search", tmp_path) as run:
            run.track()
            assert draws() == expected

    def test_a_new_run_depends_on_the_seed_alone(self, tmp_path):
        found = []
        for seed in (1, 1, 2):
            draws()
            with start_run(arguments(seed=seed), "search", tmp_path) as run:
                run.track()
                found.append(draws())
        assert found[0] == found[1]
        assert all(one != two for one, two in zip(found[1], found[2], strict=True))

    def test_seeds_of_all_sources(self):
        seed_everything(7)
        first = draws()
        seed_everything(7)
        assert draws() == first
        random.seed(7)
        torch.manual_seed(7)
        np.random.seed(8)
        assert [a == b for a, b in zip(draws(), first, strict=True)] == [True, False, True]


class TestTrack:
    def test_objects_are_restored_by_name(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            net = nn.Linear(2, 2)
            optimizer = torch.optim.Adam(net.parameters(), lr=0.5)
            run.track(net=net, optimizer=optimizer)
            net(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            run.finish_epoch(record(0))
        with start_run(arguments(resume=str(run.folder)), "search", tmp_path) as run:
            other = nn.Linear(2, 2)
            second = torch.optim.Adam(other.parameters(), lr=0.1)
            run.track(optimizer=second, net=other)
            assert run.epoch == 1 and torch.equal(other.weight, net.weight)
            assert second.param_groups[0]["lr"] == 0.5
            moments = [[s["exp_avg"] for s in o.state_dict()["state"].values()] for o in (optimizer, second)]
            assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))

    @pytest.mark.parametrize("names", [["net", "alphas"], [], ["weights"]])
    def test_a_checkpoint_with_other_objects_is_refused(self, tmp_path, names):
        with start_run(arguments(), "search", tmp_path) as run:
            run.track(net=nn.Linear(1, 1))
            run.finish_epoch(record(0))
        with start_run(arguments(resume=str(run.folder)), "search", tmp_path) as run:
            with pytest.raises(UserError, match=r"last\.pth was written by another script: it holds net") as error:
                run.track(**{name: nn.Linear(1, 1) for name in names})
            assert "\n" not in str(error.value)

    def test_what_is_read_must_stay_the_same(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            run.depends_on("train data", "a1", "--data")
            run.track(net=nn.Linear(1, 1))
            run.finish_epoch(record(0))
        with start_run(arguments(resume=str(run.folder), data="new"), "search", tmp_path) as run:
            run.depends_on("train data", "a1", "--data")
            run.track(net=nn.Linear(1, 1))
        with start_run(arguments(resume=str(run.folder), data="other"), "search", tmp_path) as run:
            run.depends_on("train data", "b2", "--data")
            with pytest.raises(UserError, match=r"the train data differs from what the run started with; .*--data"):
                run.track(net=nn.Linear(1, 1))
        assert json.loads((run.folder / "args.json").read_text())["data"] == "new", "what is refused is not noted"

    def test_memory_that_runs_out_is_not_taken_for_a_checkpoint_that_does_not_fit(self, tmp_path):
        class Greedy(nn.Linear):
            def load_state_dict(self, state):
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

        with start_run(arguments(), "search", tmp_path) as run:
            run.track(net=nn.Linear(1, 1))
            run.finish_epoch(record(0))
        expected = pytest.raises(RuntimeError, match="out of memory")
        with expected, start_run(arguments(resume=str(run.folder)), "search", tmp_path) as run:
            run.track(net=Greedy(1, 1))

    def test_a_damaged_checkpoint_is_named(self, tmp_path):
        with start_run(arguments(), "search", tmp_path) as run:
            (run.folder / "last.pth").write_bytes(b"PK\x03\x04 cut")
            with pytest.raises(UserError, match=r"last\.pth is not a readable checkpoint"):
                run.track(net=nn.Linear(1, 1))


class TestSelection:
    def chosen(self, scores, split="dev"):
        selection = BestEpoch(split, "f1", "why")
        answers = [selection.update(epoch, {"dev": {"f1": score}}) for epoch, score in enumerate(scores)]
        return selection, answers

    @pytest.mark.parametrize(
        ("scores", "epoch"),
        [([0.1, 0.3, 0.2], 1), ([0.3, 0.3, 0.3], 0), ([0.1, 0.4, 0.4], 1), ([0.0, 0.0], 0), ([-2.0, -1.0], 1)],
    )
    def test_the_best_epoch_and_of_equals_the_earlier(self, scores, epoch):
        """This also holds if every score is 0, in which case the original saves nothing."""
        selection, answers = self.chosen(scores)
        assert (selection.epoch, selection.score) == (epoch, max(scores))
        assert answers == [score > max([float("-inf"), *scores[:i]]) for i, score in enumerate(scores)]

    def test_the_last_epoch_needs_no_score(self):
        selection = BestEpoch("last", "f1", "why")
        assert [selection.update(epoch, {"train": {}}) for epoch in range(3)] == [True] * 3
        assert (selection.epoch, selection.score) == (2, None)

    def test_a_score_beats_a_missing_one(self):
        """A first epoch whose score is NaN must not stay the best forever."""
        selection, _ = self.chosen([float("nan"), 0.2, 0.1])
        assert selection.epoch == 1

    def test_a_missing_score_beats_nothing(self):
        assert self.chosen([0.2, float("nan")])[0].epoch == 0

    def test_it_continues_where_it_was(self):
        first, _ = self.chosen([0.1, 0.3])
        second = BestEpoch("dev", "f1", "why")
        second.load_state_dict(first.state_dict())
        assert not second.update(2, {"dev": {"f1": 0.3}}) and second.epoch == 1
        assert second.update(3, {"dev": {"f1": 0.31}}) and (second.epoch, second.score) == (3, 0.31)


class Counter:
    """An object with a state: the epochs that were run."""

    def __init__(self):
        self.done = []

    def state_dict(self):
        return {"done": list(self.done)}

    def load_state_dict(self, state):
        self.done = list(state["done"])


def run_epochs(folder, epochs, scores, resume=None, stop_at=None):
    """Run `fit`; return the run, the counter and the epochs that this call ran."""
    counter, now, selection = Counter(), [], BestEpoch("dev", "f1", "why")

    def one_epoch(epoch):
        now.append(epoch)
        counter.done.append(epoch)
        result = {"dev": {"loss": 1.0, "f1": scores[epoch]}, "draw": random.random()}
        return result if stop_at is None else {**result, "stop": epoch == stop_at}

    with start_run(arguments(resume=resume, epochs=epochs), "search", folder) as run:
        run.track(counter=counter, selection=selection)
        fit(run, epochs, one_epoch, selection, lambda: {"net": {"done": list(counter.done)}})
        records = run.records()
    return SimpleNamespace(run=run, counter=counter, now=now, records=records, selection=selection)


class TestFit:
    def test_epochs_are_logged_and_the_best_is_kept(self, tmp_path):
        done = run_epochs(tmp_path, 4, [0.1, 0.5, 0.5, 0.2])
        assert done.now == [0, 1, 2, 3] and done.run.epoch == 4
        assert [r["best"] for r in done.records] == [True, True, False, False]
        assert [r["dev"]["f1"] for r in done.records] == [0.1, 0.5, 0.5, 0.2]
        assert all(r["seconds"] >= 0 and "stop" not in r for r in done.records)
        best = load_checkpoint(done.run.folder / "best.pth")
        assert (best["epoch"], best["score"], best["net"]) == (1, 0.5, {"done": [0, 1]})

    def test_zero_scores_still_leave_a_best_epoch(self, tmp_path):
        done = run_epochs(tmp_path, 2, [0.0, 0.0])
        assert load_checkpoint(done.run.folder / "best.pth")["epoch"] == 0

    def test_in_parts_as_in_one(self, tmp_path):
        scores = [0.1, 0.5, 0.2, 0.6, 0.3]
        whole = run_epochs(tmp_path / "whole", 5, scores)
        part = run_epochs(tmp_path / "part", 2, scores)
        rest = run_epochs(tmp_path / "part", 5, scores, resume=str(part.run.folder))
        assert (part.now, rest.now, rest.counter.done) == ([0, 1], [2, 3, 4], [0, 1, 2, 3, 4])
        assert rest.selection.state_dict() == whole.selection.state_dict() == {"epoch": 3, "score": 0.6}

        def without_time(records):
            return [{k: v for k, v in r.items() if k != "seconds"} for r in records]

        assert without_time(rest.records) == without_time(whole.records)

    def test_a_stop_ends_the_run_and_it_stays_ended(self, tmp_path):
        first = run_epochs(tmp_path, 10, [0.1] * 10, stop_at=2)
        assert first.now == [0, 1, 2] and first.run.stopped and len(first.records) == 3
        again = run_epochs(tmp_path, 10, [0.1] * 10, resume=str(first.run.folder))
        assert again.now == [] and again.run.stopped and again.run.epoch == 3

    def test_more_epochs_make_a_stopped_run_longer(self, tmp_path):
        first = run_epochs(tmp_path, 10, [0.1] * 10, stop_at=2)
        again = run_epochs(tmp_path, 12, [0.1] * 12, resume=str(first.run.folder), stop_at=4)
        assert again.now == [3, 4] and again.run.longer and again.run.stopped
        last = run_epochs(tmp_path, 13, [0.1] * 13, resume=str(first.run.folder))
        assert last.now == list(range(5, 13)) and not last.run.stopped

    def test_a_longer_run_that_was_killed_at_once_is_longer_still(self, tmp_path):
        first = run_epochs(tmp_path, 10, [0.1] * 10, stop_at=2)
        with start_run(arguments(resume=str(first.run.folder), epochs=12), "search", tmp_path) as run:
            run.track(counter=Counter(), selection=BestEpoch("dev", "f1", "why"))
        assert run_epochs(tmp_path, 12, [0.1] * 12, resume=str(first.run.folder)).now == list(range(3, 12))

    def test_version_0_1_0_did_not_note_how_long_a_run_was_to_be(self, tmp_path):
        first = run_epochs(tmp_path, 10, [0.1] * 10, stop_at=2)
        path = first.run.folder / "last.pth"
        state = load_checkpoint(path)
        torch.save({name: value for name, value in state.items() if name not in ("epochs", "inputs")}, path)
        assert run_epochs(tmp_path, 10, [0.1] * 10, resume=str(first.run.folder)).now == []
        torch.save({name: value for name, value in state.items() if name not in ("epochs", "inputs")}, path)
        assert run_epochs(tmp_path, 12, [0.1] * 12, resume=str(first.run.folder)).now == list(range(3, 12))

    def test_fewer_epochs_than_are_done_are_refused(self, tmp_path):
        first = run_epochs(tmp_path, 4, [0.1] * 4)
        with pytest.raises(UserError, match=r"--epochs 3: .* has already done 4 epochs; pass --epochs 4 to end"):
            run_epochs(tmp_path, 3, [0.1] * 4, resume=str(first.run.folder))
        assert json.loads((first.run.folder / "args.json").read_text())["epochs"] == 4, "what is refused is not noted"

    def test_a_run_can_be_ended_where_it_is(self, tmp_path):
        with pytest.raises(IndexError):
            run_epochs(tmp_path, 10, [0.1, 0.2])
        (folder,) = tmp_path.iterdir()
        assert run_epochs(tmp_path, 2, [0.1, 0.2], resume=str(folder)).now == []
        assert json.loads((folder / "args.json").read_text())["epochs"] == 2

    def test_of_the_last_epoch_it_is_not_said_that_it_is_the_best(self, tmp_path):
        selection = BestEpoch("last", None, "the last")
        with start_run(arguments(), "search", tmp_path) as run:
            run.track(selection=selection)
            fit(run, 2, lambda epoch: {"train": {"loss": 1.0}}, selection, lambda: {"net": {}})
        assert "best so far" not in (run.folder / "log.txt").read_text()
        assert load_checkpoint(run.folder / "best.pth")["epoch"] == 1

    def test_a_finished_run_does_nothing_more(self, tmp_path):
        first = run_epochs(tmp_path, 2, [0.1, 0.2])
        assert run_epochs(tmp_path, 2, [0.1, 0.2], resume=str(first.run.folder)).now == []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A finished run: its arguments, the result that was returned, and the result file."""
    args = arguments(eta_max=1e-3)
    with start_run(args, "search", tmp_path_factory.mktemp("runs")) as run:
        run.track()
        run.finish_epoch(record(0))
        returned = run.write_result({"kind": "test", "metrics": {"test": {"f1": 0.5}}})
    return SimpleNamespace(args=args, returned=returned, run=run, file=run.folder / "result.json")


class TestResult:
    def test_what_is_returned_is_what_is_written(self, written):
        assert json.loads(written.file.read_text()) == json.loads(json.dumps(written.returned))
        assert written.returned["kind"] == "test" and written.returned["metrics"] == {"test": {"f1": 0.5}}

    def test_versions_device_arguments_and_time(self, written):
        import torchvision

        result = written.returned
        assert result["versions"] == {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        }
        assert result["device"].startswith("cpu: ") and result["threads"] == torch.get_num_threads()
        assert result["arguments"] == vars(written.args) and result["seconds"] >= 0

    def test_memory_is_the_peak_of_this_process(self, written):
        status = Path("/proc/self/status")
        if not status.exists():
            pytest.skip("the system does not tell a process its peak memory")
        now = peak_memory_mb(torch.device("cpu"))
        assert now == pytest.approx(int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024, abs=1)
        assert 50 < written.returned["peak_memory_mb"] <= now

    def test_commit_of_the_project(self, written):
        commit = written.returned["git_commit"]
        head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
        if head.returncode:
            assert commit is None
        else:
            assert commit.removesuffix("-dirty") == head.stdout.strip() and len(commit.removesuffix("-dirty")) == 40
            changed = subprocess.run(["git", "-C", str(ROOT), "diff", "--quiet", "HEAD"]).returncode
            assert commit.endswith("-dirty") == bool(changed)

    def test_time_of_a_resumed_run_goes_on(self, written, tmp_path):
        with start_run(arguments(resume=str(written.run.folder)), "search", tmp_path) as run:
            run.track()
            saved = run.seconds
            assert saved > 0
            assert run.write_result({})["seconds"] >= round(saved, 1)
