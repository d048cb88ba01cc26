"""Pickles of plain data are read, including those of Python 2; pickles that name a function are refused."""

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from util.cli import UserError
from util.plain_pickle import read_array_pickle, read_plain_pickle

PLAIN = [{"tokens": ["caf\xe9", "2"], "n": 3, "big": 2**70, "f": 0.5, "t": (1, None, True), "b": b"x"}, [], {}]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data(tmp_path, protocol):
    assert read_plain_pickle(write(tmp_path / "x.p", pickle.dumps(PLAIN, protocol=protocol))) == PLAIN


@pytest.mark.parametrize(
    "data",
    [
        # What pickle and cPickle of Python 2 write for [{"w": "caf\xe9", u"u": u"\u20ac", "n": 7L}].
        b"(lp0\n(dp1\nS'w'\np2\nS'caf\\xe9'\np3\nsVu\np4\nV\\u20ac\np5\nsS'n'\np6\nL7L\nsa.",
        b"\x80\x02]q\x00}q\x01(U\x01wq\x02U\x04caf\xe9q\x03X\x01\x00\x00\x00uq\x04X\x03\x00\x00\x00\xe2\x82\xacq\x05"
        b"U\x01nq\x06\x8a\x01\x07ua.",
    ],
)
def test_pickles_of_python_2(tmp_path, data):
    assert read_plain_pickle(write(tmp_path / "x.p", data)) == [{"w": "caf\xe9", "u": "\u20ac", "n": 7}]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(tmp_path, protocol):
    trap = tmp_path / "trap"
    for content in (Evil(trap), [{"tokens": Evil(trap)}], OrderedDict(a=1), {1, 2} if protocol < 4 else complex(1)):
        path = write(tmp_path / "x.p", pickle.dumps(content, protocol=protocol))
        with pytest.raises(UserError, match="is not read: a pickle of plain data names no function") as error:
            read_plain_pickle(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not trap.exists()


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(PLAIN)[:-9], b"\x80\x02", b"(lp0\nI1\na", b"."])
def test_damage_is_one_line(tmp_path, data):
    with pytest.raises(UserError, match="is not a pickle, or is damaged or cut short") as error:
        read_plain_pickle(write(tmp_path / "x.p", data))
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_plain_pickle(tmp_path / "x.p")
    with pytest.raises(UserError, match="cannot be read"):
        read_plain_pickle(tmp_path)


ARRAYS = {
    "x": np.arange(12, dtype=np.float32).reshape(3, 4),
    "turned": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    "id": np.array([["a", 1], ["b", 2]], dtype=object),
    "words": np.array(["один", "二"]),
    "raw": [np.float64(0.5), (np.int64(3), np.array([], dtype=np.float32))],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays(tmp_path, protocol):
    path = write(tmp_path / "x.p", pickle.dumps(ARRAYS, protocol=protocol))
    found = read_array_pickle(path)
    assert list(found) == list(ARRAYS)
    for name in ("x", "turned", "id", "words"):
        assert np.array_equal(found[name], ARRAYS[name]) and found[name].dtype == ARRAYS[name].dtype
    assert found["raw"][0] == 0.5 and found["raw"][1][0] == 3 and found["raw"][1][1].shape == (0,)
    with pytest.raises(UserError, match="a pickle of plain data names no functions"):
        read_plain_pickle(path)


def forged(kind, data):
    """A pickle of an array whose bytes do not fit its dtype."""
    array = np.zeros(2, np.int64)
    return pickle.dumps(array, protocol=2).replace(b"i8", kind).replace(array.tobytes(), data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (forged(b"O8", bytes(16)), "holds an array of another type, or is damaged"),
        (forged(b"V8", bytes(16)), "holds an array of another type, or is damaged"),
        (pickle.dumps(np.zeros(2, dtype=[("a", "i4")])), "is not a pickle, or is damaged"),
        (pickle.dumps(np.zeros(2, dtype="M8[s]")), "holds an array of another type|is damaged"),
        (pickle.dumps(Path("x")), "is not read: only plain data and numpy arrays are"),
        (b"cnumpy\nload\n.", "names numpy.load and is not read"),
        (b"cnumpy.core.multiarray\n_reconstruct\n}(S'x'\nI1\nub.", "is not a pickle, or is damaged"),
    ],
)
def test_forged_arrays(tmp_path, data, message):
    with pytest.raises(UserError, match=message) as error:
        read_array_pickle(write(tmp_path / "x.p", data))
    assert "\n" not in str(error.value)
