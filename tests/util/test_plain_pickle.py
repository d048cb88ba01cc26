"""Pickles of plain data are read, of Python 2 as well; whatever names a function is refused before it runs."""

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest

from util.cli import UserError
from util.plain_pickle import read_plain_pickle

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
        # What Python 2's pickle and cPickle write of [{"w": "caf\xe9", u"u": u"\u20ac", "n": 7L}].
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
