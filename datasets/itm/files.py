"""Captions of images in the form of SCAN's precomp folders, and the tables that the preparation makes from them.

``<split>_caps.txt`` contains one caption per line, with the five captions of each image in a row. ``<split>_ids.txt``
contains one id per image, or one per caption, which is then repeated five times. For Flickr30K the id is the ``imgid``
in ``dataset_flickr30k.json``, whose ``filename`` contains the photo's id; for COCO it is the image's id. SCAN's region
features, ``<split>_ims.npy`` (images, 36, 2048) without boxes, are packed into a store.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.regions.files import BadRegions, Regions, image_id_of
from datasets.regions.store import RegionStore, RegionStoreWriter, encode_regions
from datasets.text.vocabulary import Vocabulary, tokenise
from util.arrays import MappedFile
from util.cli import UserError
from util.files import read_json, read_text, write_json
from util.progress import progress

CAPTIONS_PER_IMAGE = 5
SPLITS = {"flickr": ("train", "dev", "test"), "coco": ("train", "dev", "test", "testall")}
PRECOMP = {"flickr": "f30k_precomp", "coco": "coco_precomp"}
# Images per split in the published files.
OFFICIAL_COUNTS = {
    "flickr": {"train": 29000, "dev": 1014, "test": 1000},
    "coco": {"train": 113287, "dev": 5000, "test": 1000, "testall": 5000},
}
STORE_FOLDER, META_FILE, VOCABULARY_FILE = "store", "meta.json", "vocabulary.json"
FORMAT, VERSION = "image-captions", 1
# Placeholder for the unknown image size, which only features of boxes would use; these files have no boxes.
UNKNOWN_SIZE = 1.0


class Split(NamedTuple):
    """The captions of n images.

    image_ids: int64 (n,).
    captions: List of 5 n str, with the five of each image in a row.
    rows: int64 (n,), position of each image among all images in the files.
    total: Number of all images in the files.
    """

    image_ids: np.ndarray
    captions: list
    rows: np.ndarray
    total: int

    def taken(self, rows):
        """A `Split` of the images ``rows``, bool or int (m,) or a slice, with their captions."""
        rows = np.arange(len(self.image_ids))[rows]
        each = (CAPTIONS_PER_IMAGE * rows[:, None] + np.arange(CAPTIONS_PER_IMAGE)).ravel()
        captions = [self.captions[row] for row in each.tolist()]
        return Split(self.image_ids[rows], captions, self.rows[rows], self.total)


def read_precomp(folder, split):
    """Read the captions and ids of a split from its two files.

    Args:
        folder: Folder of the files.
        split: Name of the split.

    Returns:
        `Split` with the ids of the file.

    Raises:
        UserError: a file is missing or not text, there are not five captions per image, a caption has no words, or an
            id is not a number.
    """
    paths = [Path(folder) / f"{split}_{kind}.txt" for kind in ("caps", "ids")]
    captions, ids = (_lines(path) for path in paths)
    if not captions or len(captions) % CAPTIONS_PER_IMAGE:
        raise UserError(
            f"{paths[0]} has {len(captions):,} lines: every image needs five captions, in a row; complete the file"
        )
    for number, caption in enumerate(captions, start=1):
        if not tokenise(caption):
            raise UserError(f"{paths[0]} line {number} is a caption without words: {caption!r}; write one there")
    for number, text in enumerate(ids, start=1):
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise UserError(f"{paths[1]} line {number} is {text[:40]!r}, not an image id; expected a number per line")
    images = len(captions) // CAPTIONS_PER_IMAGE
    image_ids = _per_image(np.array(ids, dtype=np.int64), len(captions), paths[1])
    return Split(image_ids, captions, np.arange(images), images)


def _lines(path):
    if not path.exists():
        raise UserError(f"{path} is missing; give --captions the folder of the *_caps.txt and *_ids.txt")
    # Not splitlines(), which also splits at characters that may occur in a caption.
    lines = read_text(path).split("\n")
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def _per_image(ids, captions, path):
    """Reduce ids per image or per caption to one id per image: int64 (n,)."""
    images = captions // CAPTIONS_PER_IMAGE
    if len(ids) == images:
        return ids
    if len(ids) != captions:
        raise UserError(
            f"{path} has {len(ids):,} lines for {captions:,} captions; expected {images:,} (one per image) or"
            f" {captions:,} (one per caption): every image needs five captions"
        )
    groups = ids.reshape(images, CAPTIONS_PER_IMAGE)
    mixed = np.flatnonzero((groups != groups[:, :1]).any(axis=1))
    if len(mixed):
        line = CAPTIONS_PER_IMAGE * int(mixed[0]) + 1
        raise UserError(
            f"{path} lines {line} to {line + CAPTIONS_PER_IMAGE - 1} are not the same id: every image needs five"
            " captions, in a row; fix the file"
        )
    return groups[:, 0]


class PhotoNames(NamedTuple):
    """Content of ``dataset_flickr30k.json``: ``photos``, a dict imgid -> id of the photo, and the file's ``info``."""

    photos: dict
    info: dict


def read_photo_names(path):
    """Read the `PhotoNames` of a ``dataset_flickr30k.json``.

    Raises:
        UserError: the file is missing or has another form, or a file name contains no id.
    """
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    photos = {}
    for image in images if isinstance(images, list) else ():
        name, imgid = (image.get(key) for key in ("filename", "imgid")) if isinstance(image, dict) else (None, None)
        photo = image_id_of(name) if isinstance(name, str) else None
        if photo is None or type(imgid) is not int or photos.setdefault(imgid, photo) != photo:
            raise UserError(
                f"{path} has the image {str(image)[:60]}; expected a unique number imgid and a filename like"
                " 1000092795.jpg"
            )
    if not photos:
        form = '{"images": [{"filename", "imgid"}, ...]}'
        raise UserError(f"{path} is not a dataset_flickr30k.json; expected {form}")
    info = content.get("info")
    return PhotoNames(photos, info if isinstance(info, dict) else {})


def to_photos(split, names, ids_file, json_file, skip_missing):
    """Replace the imgids of a `Split` by the ids of photos.

    Args:
        split: The `Split` from `read_precomp`.
        names: `PhotoNames`.
        ids_file, json_file: The files, for messages.
        skip_missing: Leave out images that the JSON lacks.

    Returns:
        (the new `Split`, number of images left out).

    Raises:
        UserError: the JSON lacks an id and ``skip_missing`` is not set, or it lacks all of them.
    """
    known = np.array([imgid in names.photos for imgid in split.image_ids.tolist()], dtype=bool)
    if not known.all() and (not skip_missing or not known.any()):
        first = split.image_ids[~known][0]
        raise UserError(
            f"{ids_file}: {json_file} has no image with the imgid {first} (nor {int((~known).sum()) - 1:,} others);"
            " give the JSON that belongs to these captions" + (", or --skip_missing" if known.any() else "")
        )
    split = split.taken(known)
    photos = np.array([names.photos[imgid] for imgid in split.image_ids.tolist()], dtype=np.int64)
    return split._replace(image_ids=photos), int((~known).sum())


def write_tables(folder, splits, meta):
    """Write ``<split>.json``, ``vocabulary.json`` and, last, ``meta.json``, which marks the data as finished.

    Args:
        folder: Folder of the data set.
        splits: dict split -> `Split`; the vocabulary contains their words in this order.
        meta: dict with dataset, description and synthetic.
    """
    folder = Path(folder)
    (folder / META_FILE).unlink(missing_ok=True)
    for name, split in splits.items():
        content = {"image_ids": split.image_ids.tolist(), "captions": split.captions}
        write_json(folder / f"{name}.json", content)
    words = Vocabulary.of_texts(caption for split in splits.values() for caption in split.captions)
    write_json(folder / VOCABULARY_FILE, words.to_dict())
    counts = {name: len(split.image_ids) for name, split in splits.items()}
    write_json(folder / META_FILE, {"format": FORMAT, "version": VERSION, "images": counts, **meta})


def read_meta(folder, remedy):
    """Read ``meta.json`` of a prepared data set, a dict.

    Raises:
        UserError: the file is missing, or describes something else; the message has ``remedy``, the command to make it.
    """
    path = Path(folder) / META_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing: no captions are prepared there; make them with `{remedy}`")
    meta = read_json(path)
    head = meta if isinstance(meta, dict) else {}
    if (head.get("format"), head.get("version")) != (FORMAT, VERSION):
        raise UserError(f"{path} is not {FORMAT} of version {VERSION}; make it with `{remedy}`")
    if not isinstance(meta.get("description"), str):
        raise UserError(f"{path} lacks the description of the data; make it with `{remedy}`")
    return meta


def read_split(folder, name, remedy):
    """Read a `Split` that `write_tables` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: the split {name} is not prepared; make it with `{remedy}`")
    content = read_json(path)
    ids, captions = (content.get(key) if isinstance(content, dict) else None for key in ("image_ids", "captions"))
    good = isinstance(ids, list) and isinstance(captions, list)
    good = good and all(type(one) is int and 0 <= one < 2**63 for one in ids)
    if not good or len(captions) != CAPTIONS_PER_IMAGE * len(ids) or not all(isinstance(one, str) for one in captions):
        raise UserError(f"{path} is damaged: expected image_ids and five captions for each; make it with `{remedy}`")
    return Split(np.array(ids, dtype=np.int64), captions, np.arange(len(ids)), len(ids))


def scan_files(folder, splits):
    """dict split -> `Path` of ``<split>_ims.npy``, for those of ``splits`` that have such a file."""
    paths = {split: Path(folder) / f"{split}_ims.npy" for split in splits}
    return {split: path for split, path in paths.items() if path.is_file()}


def pack_scan(files, splits, out, *, remedy, dtype="float16"):
    """Write the store of the images of ``splits``, or resume one that was interrupted.

    Args:
        files: dict split -> path, see `scan_files`.
        splits: dict split -> `Split`.
        out: Folder of the store.
        remedy: Command that makes the store, for messages.
        dtype: dtype of the stored features, ``float16`` or ``float32``.

    Returns:
        The finished `RegionStore`. Its boxes are zeros, which its description states.

    Raises:
        UserError: a file is missing, has another form or width, or its number of images does not match the captions.
    """
    opened = {split: _open(files, split, splits[split].total) for split in splits}
    ids = set()
    with RegionStoreWriter(out, dtype) as writer:
        stamps = writer.stamps()
        for split, (file, step) in opened.items():
            status = os.stat(files[split])
            numbered = list(zip(splits[split].rows.tolist(), splits[split].image_ids.tolist(), strict=True))
            for row, image_id in progress(numbered, f"packing {split}", unit="image"):
                stamp = f"{files[split].name} {status.st_size} {status.st_mtime_ns} {row}"
                # An image can be in two splits (COCO's test and testall); its first row is used.
                if image_id in ids:
                    continue
                ids.add(image_id)
                if image_id not in stamps:
                    _add(writer, image_id, stamp, file.array[row * step], files[split])
                elif stamps[image_id] != stamp:
                    raise UserError(f"{files[split]} has changed since it was packed; delete {out} and pack again")
        name = next(iter(files.values())).parent.name
        about = {"description": f"SCAN's region features of {name} (no boxes)", "extraction": None, "boxes": False}
        writer.finish(sorted(ids), about)
    return RegionStore(out, remedy)


def _open(files, split, images):
    """(`MappedFile` of a split, number of its rows per image)."""
    path = files.get(split)
    if path is None:
        folder = next(iter(files.values())).parent
        raise UserError(f"{folder} has no {split}_ims.npy but has captions of {split}; put the file there")
    file = MappedFile(path, "fetch it again")
    array = file.array
    if array.ndim != 3 or array.dtype.kind != "f" or len(array) not in (images, CAPTIONS_PER_IMAGE * images):
        raise UserError(
            f"{path} has {array.dtype} of shape {array.shape}; expected numbers ({images:,} images, regions, width), or"
            f" a row for each of {CAPTIONS_PER_IMAGE * images:,} captions"
        )
    return file, len(array) // images


def _add(writer, image_id, stamp, features, path):
    count, width = features.shape
    if not np.isfinite(features).all():
        raise UserError(f"{path} contains NaN or infinite values (image {image_id}); fetch it again")
    regions = Regions(features, np.zeros((count, 4), dtype=np.float32), UNKNOWN_SIZE, UNKNOWN_SIZE)
    try:
        writer.add(image_id, stamp, encode_regions(regions, writer.dtype), count, width, (UNKNOWN_SIZE, UNKNOWN_SIZE))
    except BadRegions as reason:
        raise UserError(f"{path} {reason} (image {image_id}); every split needs the same features") from None
