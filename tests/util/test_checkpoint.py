"""Checkpoints: they are written completely or not at all, cannot run code, and report what does not fit."""

import argparse
import datetime
import os
import random
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from util.checkpoint import load_checkpoint, load_state_dict_file, load_weights, save_checkpoint
from util.cli import UserError

VALUE = {
    "net": {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)},
    "epoch": 3,
    "score": None,
    "names": ["a", "b"],
    "state": (3, (1, 2), None),
    "random": [torch.zeros(4, dtype=torch.uint8), 0.5, True],
}


def test_plain_data_is_read_back_equal(tmp_path):
    save_checkpoint(tmp_path / "new" / "last.pth", VALUE)
    read = load_checkpoint(tmp_path / "new" / "last.pth")
    assert torch.equal(read["net"]["weight"], VALUE["net"]["weight"]) and read["net"]["steps"] == 7
    assert {k: read[k] for k in ("epoch", "score", "names", "state")} == {
        k: VALUE[k] for k in ("epoch", "score", "names", "state")
    }
    assert torch.equal(read["random"][0], VALUE["random"][0]) and read["random"][1:] == [0.5, True]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["last.pth"]


class Interrupts:
    def __reduce__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["value", "file"])
def test_an_interrupt_while_saving_stays_an_interrupt(tmp_path, monkeypatch, place):
    """torch's writer turns an interrupt in the middle of a write into a RuntimeError."""

    def interrupted(value, file):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos")  # as torch's writer does when it is closed

    if place == "file":
        monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "last.pth", {"a": Interrupts()})
    assert not list(tmp_path.iterdir())


class CannotBeSaved:
    def __reduce__(self):
        raise OSError(28, "no space")


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "last.pth", VALUE)
    with pytest.raises(UserError, match=r"cannot write .*last\.pth: no"):
        save_checkpoint(tmp_path / "last.pth", {"net": torch.zeros(1000), "bad": CannotBeSaved()})
    assert load_checkpoint(tmp_path / "last.pth")["epoch"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_a_full_disk_is_named_in_the_systems_words(tmp_path):
    """Simulated by a limit of the file size; torch's own message mentions neither."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*last\.pth: File too large") as error:
            save_checkpoint(tmp_path / "last.pth", {"net": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_a_fault_of_the_program_is_not_taken_for_a_full_disk(tmp_path):
    class Broken:
        def __reduce__(self):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match=r"^no$"):
        save_checkpoint(tmp_path / "last.pth", Broken())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write .*file/last\.pth"):
        save_checkpoint(tmp_path / "file" / "last.pth", VALUE)


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_never_runs(tmp_path, zipped):
    path = tmp_path / "best.pth"
    torch.save({"net": Harm(tmp_path / "harm")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"best\.pth is not a readable checkpoint") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harm").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "harm").exists(), "the file would have run code"


SCALARS = {
    "best_acc": np.float64(67.25),
    "steps": np.int64(-3),
    "done": np.bool_(True),
    "name": np.str_("\u00fc"),
    "big": np.array(1.5, dtype=">f4")[()],
    "complex": np.complex64(1 + 2j),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("older", [True, False])
def test_scalars_of_numpy_become_plain_numbers(tmp_path, zipped, older):
    """This includes scalars of NumPy 1, whose functions have other names."""
    path = tmp_path / "best.pth"
    torch.save({"state_dict": {"module.w": torch.ones(2)}, **SCALARS}, path, _use_new_zipfile_serialization=zipped)
    if older:
        rename(path, b"numpy._core.multiarray", b"numpy.core.multiarray", zipped)
    read = load_checkpoint(path)
    assert {name: read[name] for name in SCALARS} == {name: value.item() for name, value in SCALARS.items()}
    assert {type(read[name]) for name in SCALARS} == {float, int, bool, str, complex}
    assert list(load_state_dict_file(path)) == ["w"]


def rename(path, old, new, zipped):
    """Rewrite the pickle of a checkpoint with another name in it."""
    if not zipped:
        path.write_bytes(path.read_bytes().replace(old, new))
        return
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (argparse.Namespace(lr=1), "argparse.Namespace"),
        (np.arange(3), r"numpy\._?core\.multiarray\._reconstruct"),
        (np.datetime64("2020-01-01"), "numpy.dtype"),
        (datetime.date(2020, 1, 1), "datetime.date"),
    ],
)
def test_other_objects_are_named(tmp_path, value, name):
    torch.save({"state_dict": {}, "more": value}, tmp_path / "best.pth")
    with pytest.raises(UserError, match=f"it holds {name}, and only tensors and plain data are read") as error:
        load_checkpoint(tmp_path / "best.pth")
    assert "\n" not in str(error.value)


def test_a_changed_byte_never_passes(tmp_path):
    """torch itself does not verify checksums; a file that was written without checksums is read."""
    path = tmp_path / "best.pth"
    save_checkpoint(path, {"w": torch.arange(500.0)})
    whole, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            assert torch.equal(load_checkpoint(path)["w"], torch.arange(500.0))
        except UserError as error:
            refused += 1
            assert "is not a readable checkpoint" in str(error)
    assert refused > 75
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(500.0)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_checkpoint(path)["w"], torch.arange(500.0))


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"net\.pth is not a readable checkpoint"):
        load_checkpoint(tmp_path / "net.pth")


def test_damaged_files_give_one_line(tmp_path):
    """Truncated anywhere, or with something else inside."""
    path = tmp_path / "last.pth"
    save_checkpoint(path, VALUE)
    whole = path.read_bytes()
    rng = random.Random(0)
    damaged = [whole[:n] for n in (0, 1, 2, 100, *(rng.randrange(len(whole)) for _ in range(40)), len(whole) - 1)]
    damaged += [b"text\n", b"a line of text\n", b"<html>\n", b"PK\x03\x04", rng.randbytes(500)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"last\.pth is not a readable checkpoint .+") as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("left", [0, 5_000, 50_000, 150_000])
def test_a_large_truncated_file_is_called_damaged(tmp_path, left):
    path = tmp_path / "best.pth"
    save_checkpoint(path, {"net": {"w": torch.zeros(50_000)}})
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=r"is not a readable checkpoint .*: it is damaged"):
        load_checkpoint(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"last\.pth does not exist; expected a checkpoint file"):
        load_checkpoint(tmp_path / "last.pth")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path)


def test_the_prefix_of_data_parallel_is_taken_off(tmp_path):
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    torch.save(nn.DataParallel(net).state_dict(), tmp_path / "a.pth")
    assert all(key.startswith("module.") for key in torch.load(tmp_path / "a.pth"))
    state = load_state_dict_file(tmp_path / "a.pth")
    assert list(state) == list(net.state_dict())
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())


def test_only_the_first_prefix_goes(tmp_path):
    torch.save({"module.module.w": torch.zeros(1), "module_list.w": torch.ones(1)}, tmp_path / "a.pth")
    assert list(load_state_dict_file(tmp_path / "a.pth")) == ["module.w", "module_list.w"]


@pytest.mark.parametrize("value", [{}, [], {"epoch": 3}, {"net": {"w": torch.zeros(1)}}, torch.zeros(2)], ids=str)
def test_what_is_no_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth is not a state dict"):
        load_state_dict_file(tmp_path / "a.pth")


class TestLoadWeights:
    def test_fitting_weights_are_copied(self):
        source, target = nn.Linear(3, 2), nn.Linear(3, 2)
        load_weights(target, source.state_dict(), "a.pth")
        assert torch.equal(source.weight, target.weight) and torch.equal(source.bias, target.bias)

    def test_every_kind_of_misfit_is_counted_and_named(self):
        net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4))
        before = {key: value.clone() for key, value in net.state_dict().items()}
        shapes = {"0.weight": (2, 3), "1.weight": (4, 5), "2.weight": (1,), "x": (1,)}
        state = {key: torch.zeros(shape) for key, shape in shapes.items()}
        with pytest.raises(UserError) as error:
            load_weights(net, state, "file.pth")
        assert str(error.value) == (
            "file.pth does not fit Sequential: 2 missing (0.bias, 1.bias); 2 unknown (2.weight, x); "
            "1 of another shape (1.weight (4, 5), expected (4, 2))"
        )
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()), "nothing was loaded"

    def test_long_lists_are_cut(self):
        net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
        with pytest.raises(UserError) as error:
            load_weights(net, {}, "file.pth")
        assert str(error.value) == (
            "file.pth does not fit Sequential: 8 missing (0.weight, 0.bias, 1.weight, ... 5 more)"
        )
