"""Word vectors for a vocabulary: a GloVe text file, an ``.npz`` file, a spaCy package, or none."""

import importlib
import importlib.util
import itertools
import zipfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from util.cli import UserError
from util.files import NotText, decode_text
from util.progress import progress

NONE, AUTO = "none", "auto"
REMEDY = "give a GloVe .txt file, an .npz file with words and vectors, an installed spaCy package, or none"
# `auto` looks for the package whose vectors the original uses, then for files in these places below the working
# directory.
PACKAGE = "en_vectors_web_lg"
PLACES = ("data/glove/*", "data/glove*", "checkpoints/glove/*", "checkpoints/glove*")
ENDINGS = (".txt", ".npz")
# The file in which the makers of that package's vectors publish them.
ORIGINAL, LINK = "glove.840B.300d.txt", "https://nlp.stanford.edu/data/glove.840B.300d.zip"
# Number of lines that are looked at to find out how many numbers a line has.
_LOOK = 100


class WordVectors(NamedTuple):
    """Vectors of a vocabulary's V words.

    matrix: float32 (V, E); rows of words without a vector are zeros, as in the original.
    found: bool (V,), which words have a vector.
    description: Where the vectors come from, and how many were found.
    """

    matrix: np.ndarray
    found: np.ndarray
    description: str


def find_word_vectors(folder="."):
    """Find the word vectors that ``auto`` means: `PACKAGE` if it is installed, else a file in `PLACES`.

    If there are several files, those with 840B in their name, like `ORIGINAL`, come first, then those with 300.

    Args:
        folder: The working directory.

    Returns:
        A source for `load_word_vectors`, or None if there is none.
    """
    if importlib.util.find_spec(PACKAGE):
        return PACKAGE
    paths = {path for place in PLACES for path in Path(folder).glob(place) if _may_hold_vectors(path)}
    order = sorted(paths, key=lambda path: ("840b" not in path.name.lower(), "300" not in path.name, str(path)))
    return str(order[0]) if order else None


def _may_hold_vectors(path):
    """Whether a file may contain vectors, rather than their licence, for example."""
    if path.suffix.lower() not in ENDINGS or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return path.suffix.lower() == ".npz" or _trailing_numbers(file.readline()) > 1
    except OSError:
        return False


def load_word_vectors(source, words):
    """Load the vectors of ``words``.

    Args:
        source: Path of a GloVe text file (a word and E numbers per line), path of an ``.npz`` file (arrays ``words``
            (W,) of text and ``vectors`` (W, E)), name of a spaCy package with vectors, or ``none``.
        words: The V words of a vocabulary, the special ones first; they are looked up exactly as spelt.

    Returns:
        `WordVectors`; None if ``source`` is ``none``: the network then starts with random vectors.

    Raises:
        UserError: there is no such file or package, it is damaged, or it has no vector for any of the words.
    """
    if source == NONE:
        return None
    path = Path(source)
    if path.is_file():
        read = _read_npz if path.suffix.lower() == ".npz" else _read_text
        vectors = read(path, words)
    elif not source.isidentifier():
        raise UserError(f"word vectors {source}: there is no such file; {REMEDY}")
    else:
        vectors = _read_spacy(source, words)
    size = len(next(iter(vectors.values()), ()))
    if not size:
        raise UserError(f"word vectors {source}: none of the {len(words):,} words has a vector; {REMEDY}")
    matrix, found = np.zeros((len(words), size), dtype=np.float32), np.zeros(len(words), dtype=bool)
    for row, word in enumerate(words):
        if word in vectors:
            matrix[row], found[row] = vectors[word], True
    name = path.name if path.is_file() else source
    return WordVectors(matrix, found, f"{name} ({int(found.sum()):,} of {len(words):,} words)")


def _read_text(path, words):
    """Read a GloVe text file: dict word -> float32 (E,); if a word occurs twice, its first line is used."""
    # A word from a JSON file may contain a lone surrogate, which cannot occur in a UTF-8 file.
    wanted = {word.encode("utf-8", "surrogatepass"): word for word in words}
    vectors, size = {}, None
    with path.open("rb") as file:
        for number, line in enumerate(progress(file, f"reading {path.name}", unit="line"), start=1):
            if number == 1:
                line = _begin(path, line)
            size = size or _width(path, number, line)
            # Only the lines of wanted words are split, because a file has millions of lines.
            if size and line.split(b" ", 1)[0] in wanted:
                # Split from the right, since some words of GloVe contain spaces.
                word, *values = line.rstrip().rsplit(b" ", size)
                if word in wanted and word not in vectors:
                    vectors[word] = _parse(path, number, values, size)
    return {wanted[word]: vector for word, vector in vectors.items()}


def _begin(path, line):
    """The first line without a byte order mark. Only its encoding is checked: GloVe has malformed words later on."""
    try:
        return decode_text(line).encode()
    except NotText as reason:
        raise UserError(f"word vectors {path}: {reason}") from None


def _width(path, number, line):
    """Count the numbers per line in the first lines; None if ``line`` is the header of a word2vec file."""
    values = line.split()
    if number == 1 and len(values) == 2 and all(value.isdigit() for value in values):
        return None
    # The most frequent count is used, since a word with spaces may end in numbers.
    with path.open("rb") as file:
        sizes = Counter(map(_trailing_numbers, itertools.islice(file, number - 1, number - 1 + _LOOK)))
    size = sizes.most_common(1)[0][0]
    if size < 1:
        raise UserError(f"word vectors {path}: line {number} is not a word followed by numbers; {REMEDY}")
    return size


def _trailing_numbers(line):
    """Count the numbers at the end of a line of bytes; its first word is not counted."""
    return sum(1 for _ in itertools.takewhile(_is_number, reversed(line.split()[1:])))


def _is_number(value):
    try:
        float(value)
    except ValueError:
        return False
    return True


def _parse(path, number, values, size):
    try:
        vector = np.array([float(value) for value in values], dtype=np.float32)
    except ValueError:
        vector = np.zeros(0)
    if len(vector) != size or not np.isfinite(vector).all():
        raise UserError(f"word vectors {path}: line {number} does not have {size} finite numbers; fetch the file again")
    return vector


def _read_npz(path, words):
    """Read an ``.npz`` file: dict word -> float32 (E,)."""
    expected = "expected arrays words (W,) of text and vectors (W, E) of numbers"
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            names, vectors = file["words"], file["vectors"]
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile):
        raise UserError(f"word vectors {path} are damaged or of another form: {expected}") from None
    good = names.ndim == 1 and names.dtype.kind == "U" and vectors.ndim == 2 and vectors.dtype.kind == "f"
    if not good or len(names) != len(vectors):
        actual = f"words {names.dtype} {names.shape} and vectors {vectors.dtype} {vectors.shape}"
        raise UserError(f"word vectors {path} contain {actual}; {expected}")
    rows = {name: row for row, name in reversed(list(enumerate(names.tolist())))}
    chosen = {word: vectors[rows[word]].astype(np.float32) for word in words if word in rows}
    if not all(np.isfinite(vector).all() for vector in chosen.values()):
        raise UserError(f"word vectors {path} contain NaN or infinite values; make the file again")
    return chosen


def _read_spacy(name, words):
    """Look words up in the spaCy package ``name``: dict word -> float32 (E,), without words that have no vector."""
    try:
        pipeline = importlib.import_module(name).load()
    except ModuleNotFoundError as error:
        missing = "is neither a file nor an installed package" if error.name == name else f"needs {error.name}"
        raise UserError(f"word vectors {name} {missing}; {REMEDY}") from None
    except (AttributeError, OSError) as error:
        raise UserError(f"word vectors {name}: the package cannot be loaded ({error}); {REMEDY}") from None
    vectors = {}
    for word in progress(words, f"reading {name}", unit="word"):
        # spaCy splits a word such as 2+2= into several tokens; the mean of their vectors is used, as in the original.
        vector = np.asarray(pipeline(word).vector, dtype=np.float32)
        if vector.any():
            vectors[word] = vector
    return vectors
