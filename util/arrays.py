"""Arrays in ``.npy`` files, read so that whatever is wrong with a file is one kind of error."""

import zlib
from pathlib import Path

import numpy as np


class DamagedArray(Exception):
    """A file that holds no array; the message follows the file's name in a sentence."""


def read_array(path, *, mapped=True):
    """The array of a ``.npy`` file, read only and by memory map, or (``mapped`` false) as a copy in memory.

    Raises:
        DamagedArray: the file is missing, damaged, cut short, or something else.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise DamagedArray("is missing") from None
    except Exception:  # numpy parses the header as Python code, which fails in almost any way
        raise DamagedArray("is damaged or cut short, or no .npy file") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DamagedArray("is an .npz archive, not an .npy file")
    return array


def sums_of(folder, names):
    """Check sums of files, for `check_sums`: dict name -> CRC-32."""
    return {name: _crc(Path(folder) / name) for name in names}


def check_sums(folder, sums):
    """The first file of ``sums``, made by `sums_of`, that is not as it was then; None where all are.

    Stores of older versions have no sums (None). A file that is missing is not looked at: whoever opens it says so.
    """
    for name, expected in (sums if isinstance(sums, dict) else {}).items():
        path = Path(folder) / Path(name).name
        if path.is_file() and _crc(path) != expected:
            return path
    return None


def _crc(path):
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
    return crc
