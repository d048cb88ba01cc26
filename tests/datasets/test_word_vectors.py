"""Word vectors from every source, and one clear line for every fault."""

import sys
import types

import numpy as np
import pytest

from datasets.text import word_vectors
from datasets.text.word_vectors import find_word_vectors, load_word_vectors
from tests.datasets.vqa_files import refusal

WORDS = ["PAD", "UNK", "CLS", "what", "émile", "2+2=", "absent"]
# Before the tests' fixture hides them.
PLACES = word_vectors.PLACES
ROWS = {"what": [1.0, -2.5, 0.25], "émile": [0.5, 0.0, 3.0], "other": [9.0, 9.0, 9.0]}


def check(vectors, found=("what", "émile")):
    assert vectors.matrix.dtype == np.float32 and vectors.matrix.shape == (len(WORDS), 3)
    assert vectors.found.tolist() == [word in found for word in WORDS]
    for word, row in zip(WORDS, vectors.matrix.tolist(), strict=True):
        assert row == (ROWS[word] if word in found else [0.0, 0.0, 0.0])
    assert f"{len(found)} of 7 words" in vectors.description


def lines(rows=ROWS):
    return "".join(f"{word} {' '.join(map(str, values))}\n" for word, values in rows.items())


@pytest.mark.parametrize("heading", ["", "4 3\n"])
def test_text_file(tmp_path, heading):
    """With or without word2vec's heading; words with spaces and repeated words as in the published files."""
    path = tmp_path / "glove.3d.txt"
    text = heading + lines() + "what . 5 5 5\n" + "what 7 7 7\n"
    path.write_text(text, encoding="utf-8")
    check(load_word_vectors(str(path), WORDS))


def test_text_file_of_windows(tmp_path):
    path = tmp_path / "glove.3d.txt"
    path.write_bytes(b"\xef\xbb\xbf" + lines().replace("\n", "\r\n").encode())
    check(load_word_vectors(str(path), [*WORDS[:-1], "half \ud83d"]))
    path.write_bytes(lines().encode("utf-16"))
    refusal(lambda: load_word_vectors(str(path), WORDS), path, "saved as UTF-16")


@pytest.mark.parametrize(("text", "words"), [
    ("", "none of the 7 words"),
    ("other 1 2 3\n", "none of the 7 words"),
    ("other 1 2 3\nwhat 1 2\n", "line 2 does not have 3"),
    ("other 1 2 3\nwhat 1 2 x\n", "line 2 does not have 3 finite"),
    ("other 1 2 3\nwhat 1 2 nan\n", "line 2 does not have 3 finite"),
    ("alone\n", "line 1 is not a word followed by numbers"),
    ("a b c\n", "line 1 is not a word followed by numbers"),
])  # fmt: skip
def test_damaged_text_file(tmp_path, text, words):
    path = tmp_path / "glove.txt"
    path.write_text(text)
    refusal(lambda: load_word_vectors(str(path), WORDS), path, words)


@pytest.mark.parametrize("first", ["what 1.0 -2.5 0.25", ". . . 5 5 5", "at 3 5 5 5", "7 5 5 5", "2 1 0 5 5 5"])
def test_the_first_line_may_hold_an_odd_word(tmp_path, first):
    """As in glove.840B: words with spaces, among them words that end in numbers or are numbers."""
    path = tmp_path / "glove.840B.txt"
    path.write_text(f"{first}\n{lines()}name@domain.com 1 1 1\nin 2007 1 1 1\nhe . 1 1 1 \n", encoding="utf-8")
    check(load_word_vectors(str(path), WORDS))


def test_npz_file(tmp_path):
    path = tmp_path / "vectors.npz"
    names, vectors = np.array([*ROWS, "what"]), np.array([*ROWS.values(), [7, 7, 7]], dtype=np.float64)
    np.savez(path, words=names, vectors=vectors)
    check(load_word_vectors(str(path), WORDS))
    np.savez(path, words=names[:2], vectors=vectors)
    refusal(lambda: load_word_vectors(str(path), WORDS), path, "expected arrays words")
    np.savez(path, words=names.astype(object), vectors=vectors)
    refusal(lambda: load_word_vectors(str(path), WORDS), path, "damaged or of another form")
    np.savez(path, words=names, vectors=vectors + np.inf)
    refusal(lambda: load_word_vectors(str(path), WORDS), path, "NaN or infinite")
    path.write_bytes(b"PK\x03\x04")
    refusal(lambda: load_word_vectors(str(path), WORDS), path, "damaged")


def test_package(monkeypatch):
    def pipeline(text):
        return types.SimpleNamespace(vector=np.array(ROWS.get(text, [0, 0, 0]), dtype=np.float32))

    package = types.ModuleType("xx_vectors_web")
    package.load = lambda: pipeline
    monkeypatch.setitem(sys.modules, "xx_vectors_web", package)
    check(load_word_vectors("xx_vectors_web", WORDS))
    monkeypatch.setitem(sys.modules, "xx_other", types.ModuleType("xx_other"))
    refusal(lambda: load_word_vectors("xx_other", WORDS), "cannot be loaded")


def test_none():
    assert load_word_vectors("none", WORDS) is None


@pytest.mark.parametrize(("source", "words"), [
    ("glove.6B.300d.txt", "there is no such file"),
    ("folder/glove", "there is no such file"),
    ("en_vectors_web_lg", "neither a file nor an installed package"),
    ("", "there is no such file"),
])  # fmt: skip
def test_nothing_there(source, words):
    refusal(lambda: load_word_vectors(source, WORDS), source, words, "GloVe")


class TestAuto:
    """What ``auto`` takes, out of the places that the documentation names."""

    @pytest.fixture(autouse=True)
    def places(self, tmp_path, monkeypatch):
        monkeypatch.setattr(word_vectors, "PLACES", PLACES)
        self.folder = tmp_path

    def put(self, name, text="what 1 2 3\n"):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def test_nothing(self):
        self.put("data/glove/LICENSE.txt", "Public domain.\n")
        self.put("data/glove/glove.840B.300d.zip")
        self.put("data/vqa/what.txt")
        self.put("glove.txt")
        (self.folder / "data" / "glove.300d.txt").mkdir()
        assert find_word_vectors(self.folder) is None

    @pytest.mark.parametrize(
        "name", ["data/glove/any.txt", "data/glove.6B.50d.txt", "checkpoints/glove.TXT", "checkpoints/glove/a.npz"]
    )
    def test_a_file(self, name):
        path = self.put(name)
        assert find_word_vectors(self.folder) == path

    def test_the_most_like_the_originals(self):
        found = []
        for name in ("data/glove/a.50d.txt", "checkpoints/glove.6B.300d.txt", "data/glove/x.840B.300d.txt"):
            found.append(self.put(name))
            assert find_word_vectors(self.folder) == found[-1]
        self.put("data/glove/b.50d.txt")
        assert find_word_vectors(self.folder) == found[-1]

    def test_the_originals_package_comes_first(self, monkeypatch):
        self.put("data/glove/any.txt")
        monkeypatch.setattr(word_vectors, "PACKAGE", "json")
        assert find_word_vectors(self.folder) == "json"
