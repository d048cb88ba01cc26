"""The frames of EgoGesture, in the official folders or a prepared store, and the transforms of clips (with Pillow)."""

import hashlib
import io
import os
import random
from functools import cache
from pathlib import Path

import numpy as np

from datasets.ego.annotation import ANNOTATION_FILE, Fault, depth_folder
from datasets.storage.frames import FrameStore
from datasets.storage.pictures import BadImage, open_grey, open_picture
from util.cli import UserError, quoted
from util.files import read_json
from util.hashes import files_hash

FIELDS = ("rgb", "depth")
PREPARED_FORMAT = "ego-store"
PREPARED_VERSION = 1
META_FILE = "meta.json"
# Describes data other than the official ones: {"description": text, "synthetic": bool}.
ABOUT_FILE = "about.json"
SCALES = (1.0, 0.84089641525, 0.7071067811803005, 0.5946035574934808, 0.4999999999911653)
CHANNELS = {"rgb": 3, "depth": 1}
OPENERS = {"rgb": open_picture, "depth": open_grey}


def prepare_command(out):
    """The command that packs the frames of the official folders into ``out``."""
    return f"python datasets/prepare_ego.py --dir EGOGESTURE --out {quoted(out)}"


def describe_folder(folder):
    """dict of ``description`` and ``synthetic`` of the data in an official folder tree."""
    path = Path(folder) / ABOUT_FILE
    about = read_json(path) if path.is_file() else {}
    if not isinstance(about, dict):
        raise UserError(f'{path} must contain {{"description": text, "synthetic": true or false}}; fix or delete it')
    return {
        "description": str(about.get("description", "EgoGesture")),
        "synthetic": bool(about.get("synthetic", False)),
    }


@cache
def _listing(path, _modified):
    """Numbers of the frames in a folder: sorted int32 array. Cached for the other splits until the folder changes."""
    numbers = []
    with os.scandir(path) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() == ".jpg" and stem.isascii() and stem.isdigit() and stem == f"{int(stem):06d}":
                numbers.append(int(stem))
    return np.array(sorted(numbers), dtype=np.int32)


class FrameFolders:
    """Frames in the official folders: ``SubjectXX/SceneY/Color/rgbK/%06d.jpg`` and ``Depth/depthK/%06d.jpg``.

    Args:
        folder: The folder that contains ``SubjectXX``.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.annotation = self.folder / ANNOTATION_FILE
        about = describe_folder(folder)
        self.description, self.synthetic = about["description"], about["synthetic"]

    def path(self, clip, field, position):
        """Path of the frame at ``position`` (from 0) of a clip."""
        path = self.folder / clip.source(field) / f"{clip.start + position:06d}.jpg"
        upper = path.with_suffix(".JPG")
        return path if path.exists() or not upper.exists() else upper

    def name(self, clip, field, position):
        """Name of this frame for messages."""
        return str(self.path(clip, field, position))

    def fault(self, clip, fields=FIELDS):
        """The `Fault` of a clip whose frames are missing; None if all of them exist."""
        for field in fields:
            folder = self.folder / clip.source(field)
            try:
                numbers = _listing(folder, os.stat(folder).st_mtime_ns)
            except OSError:
                return Fault(clip.name, f"the folder {folder} is missing")
            first, last = np.searchsorted(numbers, [clip.start, clip.end + 1])
            missing = clip.length - (last - first)
            if missing:
                gaps = np.flatnonzero(numbers[first:last] != np.arange(clip.start, clip.start + last - first))
                path = self.path(clip, field, int(gaps[0]) if len(gaps) else int(last - first))
                return Fault(clip.name, f"{path} is missing ({missing:,} of {clip.length:,} frames)")
        return None

    def known_faults(self):
        """Always empty: no clips are deliberately left out here."""
        return []

    def lacks(self, folders):
        """dict colour folder -> missing folder, for those of ``folders`` that lack colour or depth frames."""
        missing = {}
        for folder in folders:
            for source in (folder, depth_folder(folder)):
                if not (self.folder / source).is_dir():
                    missing[folder] = source
        return missing

    def damage(self, clip):
        """Always empty: the files have no check sums."""
        return ""

    def contents(self, clips):
        """Always None: the content of a clip is only known once it has been read."""
        return None

    def jpeg(self, clip, field, position):
        """The bytes of one file.

        Raises:
            OSError: the file cannot be read.
        """
        return self.path(clip, field, position).read_bytes()

    def fingerprint(self, clips):
        """Short hex string from names, modification times of folders, and sizes and times of the first frames.

        It does not change if a later frame of a clip is rewritten in place; in a prepared store it does.
        """
        digest = hashlib.blake2b(digest_size=8)
        for clip in clips:
            digest.update(f"{clip.name} {clip.start} {clip.end}".encode("utf-8", "surrogatepass"))
            for field in FIELDS:
                path = self.path(clip, field, 0)
                for status in (os.stat(path.parent), os.stat(path)):
                    digest.update(f" {status.st_size} {status.st_mtime_ns}".encode())
        return digest.hexdigest()

    def identity(self, clips):
        """Short hex string from names and the content of first frames: the same for a copy elsewhere."""
        first = [(clip, field) for clip in clips for field in FIELDS]
        files = [(f"{clip.name} {clip.start} {clip.end} {field}", self.path(clip, field, 0)) for clip, field in first]
        return files_hash(files)

    def remedy(self):
        """What a user can do about a frame that cannot be read."""
        return f"fetch it again, or leave its clip out with `{self._prepare()} --skip_invalid`"

    def _prepare(self):
        return f"python datasets/prepare_ego.py --dir {quoted(self.folder)} --out NEW_DIR"


class PreparedFrames:
    """Frames in a folder made by ``prepare_ego.py``: two frame stores, a copy of the annotation, and meta.json.

    Args:
        folder: The folder.

    Raises:
        UserError: something is missing, unfinished or damaged.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        path = self.folder / META_FILE
        meta = read_json(path)
        known = (meta.get("format"), meta.get("version")) if isinstance(meta, dict) else None
        if known != (PREPARED_FORMAT, PREPARED_VERSION):
            raise UserError(
                f"{path} is not an {PREPARED_FORMAT} of version {PREPARED_VERSION};"
                f" make it with `{prepare_command(folder)}`"
            )
        try:
            self.description, self.synthetic = str(meta["description"]), bool(meta["synthetic"])
            self.annotation = self.folder / meta["annotation"]
            self._skipped = [Fault(str(name), str(reason)) for name, reason in meta["skipped"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} lacks {error}; delete it and run `{prepare_command(folder)}` again") from None
        self._stores = {field: FrameStore(self.folder / field, prepare_command(folder)) for field in FIELDS}

    def name(self, clip, field, position):
        """Name of this frame for messages."""
        return f"frame {clip.start + position} of {clip.name} in {self.folder / field}"

    def fault(self, clip, fields=FIELDS):
        """The `Fault` of a clip that is not stored completely; None if it is."""
        for field in fields:
            store = self._stores[field]
            try:
                numbers = store.numbers(store.row(clip.name))
            except KeyError:
                return Fault(clip.name, f"is not among the clips of {self.folder}")
            if len(numbers) != clip.length or numbers[0] != clip.start or numbers[-1] != clip.end:
                return Fault(clip.name, f"{self.folder} has frames of it other than {clip.start} to {clip.end}")
        return None

    def known_faults(self):
        """list of `Fault` of the clips that the preparation left out."""
        return self._skipped

    def lacks(self, folders):
        """Always empty: a store contains only complete clips."""
        return {}

    def damage(self, clip):
        """Which frames of a clip do not match their check sum: ``rgb``, ``depth``, or an empty text for none."""
        damaged = (field for field, store in self._stores.items() if not store.is_intact(store.row(clip.name)))
        return next(damaged, "")

    def contents(self, clips):
        """List of one key per clip; clips of equal content have equal keys."""
        columns = [store.crcs([store.row(clip.name) for clip in clips]) for store in self._stores.values()]
        return list(zip(*columns, strict=True))

    def jpeg(self, clip, field, position):
        """The bytes of one image."""
        store = self._stores[field]
        return store.jpeg(store.row(clip.name), position).tobytes()

    def fingerprint(self, clips):
        """Short hex string that changes with the names, the order and the images of the clips."""
        digest = hashlib.blake2b(digest_size=8)
        for field in FIELDS:
            store = self._stores[field]
            digest.update(store.fingerprint([store.row(clip.name) for clip in clips]).encode())
        return digest.hexdigest()

    # The fingerprint already depends on the content alone.
    identity = fingerprint

    def remedy(self):
        """What a user can do about a frame that cannot be read."""
        return f"delete {self.folder} and make it again with `{prepare_command(self.folder)}`"

    def verify(self):
        """Check every stored image against its checksum.

        Raises:
            UserError: an image is damaged; the message names its clip.
        """
        for store in self._stores.values():
            store.verify()


def centre_begin(length, duration):
    """First frame (from 0) of the middle ``duration`` frames of a clip of ``length`` frames."""
    return max(0, length // 2 - duration // 2)


def random_begin(length, duration, rng):
    """Random first frame (from 0). NOTE: as in the original, the last possible one is never drawn."""
    return rng.randint(0, max(0, length - duration - 1))


def take_frames(length, begin, duration):
    """Choose ``duration`` frames of a clip, starting at ``begin``; if fewer are left, these are repeated in a loop.

    Returns:
        int64 array (duration,) of positions in 0..length-1.
    """
    count = min(begin + duration, length) - begin
    return begin + np.arange(duration) % count


def draw_crop(rng):
    """Draw the scale and position of a training crop: (scale, across, down), the latter two in [0, 1)."""
    return SCALES[rng.randint(0, len(SCALES) - 1)], rng.random(), rng.random()


def sample_generator(seed, epoch, index):
    """Random generator for sample ``index`` in ``epoch``; its draws depend on nothing but the arguments."""
    return random.Random(f"{seed} {epoch} {index}")


def random_crop(image, crop, size):
    """Cut out the square that ``crop`` (from `draw_crop`) describes, and resize it to ``size`` x ``size``."""
    from PIL import Image

    scale, across, down = crop
    width, height = image.size
    side = int(min(width, height) * scale)
    left, top = across * (width - side), down * (height - side)
    # Pillow rounds the edges of the box itself, half to even.
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)


def centre_crop(image, size):
    """Resize the image so that its shorter edge is ``size``, then cut out the middle ``size`` x ``size``."""
    from PIL import Image

    width, height = image.size
    if min(width, height) != size:
        scaled = (size, int(size * height / width)) if width < height else (int(size * width / height), size)
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def decode(data, field):
    """Decode one image file.

    Args:
        data: The bytes of the file.
        field: ``rgb`` for three channels, ``depth`` for 8-bit grey.

    Returns:
        A Pillow image of mode RGB or L, see `datasets.storage.pictures`.

    Raises:
        ValueError: the bytes are not a complete image.
    """
    try:
        return OPENERS[field](io.BytesIO(data))
    except BadImage as reason:
        raise ValueError(str(reason).removeprefix("is ")) from None


def pixels(image):
    """Convert a Pillow image to uint8 (channels, height, width)."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
