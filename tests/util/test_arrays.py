"""Arrays in files: a truncated file, before or while it is read, gives a one-line error and never a bus error."""

import os
import pickle

import numpy as np
import pytest

from util.arrays import MappedFile, NpyFile, NpyWriter
from util.cli import UserError


class TestMappedFile:
    @pytest.mark.parametrize("shape", [(1000, 3), (0, 3), ()])
    def test_npy(self, tmp_path, shape):
        values = np.ones(shape, dtype=np.float32)
        np.save(tmp_path / "a.npy", values)
        file = MappedFile(tmp_path / "a.npy", "make it again")
        np.testing.assert_array_equal(file.array, values)
        assert type(file.array) is np.ndarray and not file.array.flags.writeable

    def test_bare_numbers(self, tmp_path):
        (tmp_path / "a.bin").write_bytes(bytes(range(12)))
        assert MappedFile(tmp_path / "a.bin", "make it again", "<u2").array[1] == 0x0302

    @pytest.mark.parametrize("dtype", [None, np.uint8])
    @pytest.mark.parametrize("left", [0, 100, 4096, 5000])
    def test_cut_short_while_it_is_open(self, tmp_path, dtype, left):
        path = tmp_path / "a.npy"
        np.save(path, np.ones(10_000, dtype=np.uint8))
        file = MappedFile(path, "make it again", dtype)
        assert file.array[-1] == 1
        os.truncate(path, left)
        with pytest.raises(UserError, match=r"a\.npy was cut short while it was open; make it again"):
            file.array[-1]

    def test_what_grows_or_is_replaced_stays_readable(self, tmp_path):
        path = tmp_path / "a.bin"
        path.write_bytes(b"old")
        file = MappedFile(path, "make it again", np.uint8)
        with path.open("ab") as growing:
            growing.write(b" and more")
        assert file.array.tobytes() == b"old"
        (tmp_path / "new").write_bytes(b"")
        os.replace(tmp_path / "new", path)
        assert file.array.tobytes() == b"old"

    @pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"nothing of the kind"])
    def test_damaged(self, tmp_path, data):
        (tmp_path / "a.npy").write_bytes(data)
        with pytest.raises(UserError, match=r"a\.npy is damaged or cut short.*; make it again") as error:
            MappedFile(tmp_path / "a.npy", "make it again")
        assert "\n" not in str(error.value)

    def test_an_archive_is_no_array(self, tmp_path):
        with open(tmp_path / "a.npy", "wb") as file:
            np.savez(file, x=np.ones(3))
        with pytest.raises(UserError, match=r"is an \.npz archive, not an \.npy file"):
            MappedFile(tmp_path / "a.npy", "make it again")


class TestNpyWriter:
    def test_rows_in_any_order(self, tmp_path):
        values = np.random.default_rng(0).random((7, 2, 3), dtype=np.float32)
        with NpyWriter(tmp_path / "a.npy", values.shape) as file:
            file[3:7] = values[3:]
            file[0:3] = values[:3]
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values)

    def test_numbers_of_another_shape_are_refused(self, tmp_path):
        with NpyWriter(tmp_path / "a.npy", (7, 3)) as file, pytest.raises(ValueError, match="does not fit"):
            file[0:2] = np.ones((2, 4))

    def test_what_was_not_filled_is_no_array(self, tmp_path):
        with NpyWriter(tmp_path / "a.npy", (7, 3)) as file:
            file[0:2] = np.ones((2, 3))
        with pytest.raises(UserError, match="damaged or cut short"):
            MappedFile(tmp_path / "a.npy", "make it again")


class TestNpyFile:
    def test_reads_but_does_not_write(self, tmp_path):
        values = np.arange(12, dtype=np.float32).reshape(4, 3)
        np.save(tmp_path / "a.npy", values)
        file = NpyFile(tmp_path / "a.npy")
        assert not file.array.flags.writeable
        assert len(file) == 4
        np.testing.assert_array_equal(file[[2, 0]], values[[2, 0]])

    @pytest.mark.parametrize("opened", [False, True])
    def test_pickles_small_and_opens_anew(self, tmp_path, opened):
        values = np.random.default_rng(0).random((1000, 100))
        np.save(tmp_path / "a.npy", values)
        file = NpyFile(tmp_path / "a.npy")
        if opened:
            assert file[0, 0] == values[0, 0]
        data = pickle.dumps(file)
        assert len(data) < 1000 < values.nbytes
        other = pickle.loads(data)
        np.testing.assert_array_equal(other[:], values)
        assert other.array is not file.array

    def test_opens_late(self, tmp_path):
        file = NpyFile(tmp_path / "a.npy")
        np.save(tmp_path / "a.npy", np.ones(3))
        assert len(file) == 3

    @pytest.mark.parametrize("data", [None, b"", b"\x93NUMPY", b"nothing of the kind"])
    def test_a_missing_or_damaged_file_is_named(self, tmp_path, data):
        if data is not None:
            (tmp_path / "a.npy").write_bytes(data)
        with pytest.raises(UserError, match=r"a\.npy is (missing|damaged or cut short.*); delete its folder") as error:
            NpyFile(tmp_path / "a.npy")[0]
        assert "\n" not in str(error.value)

    def test_a_truncated_file_is_noticed(self, tmp_path):
        np.save(tmp_path / "a.npy", np.ones((100, 100)))
        whole = (tmp_path / "a.npy").read_bytes()
        (tmp_path / "a.npy").write_bytes(whole[:-8])
        with pytest.raises(UserError, match=r"a\.npy is damaged or cut short"):
            NpyFile(tmp_path / "a.npy")[0]

    def test_objects_are_never_unpickled(self, tmp_path):
        class Harm:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'harm'}",)

        np.save(tmp_path / "a.npy", np.array([Harm()], dtype=object), allow_pickle=True)
        with pytest.raises(UserError, match=r"a\.npy holds Python objects, which are not read since they can run code"):
            NpyFile(tmp_path / "a.npy")[0]
        assert not (tmp_path / "harm").exists()
