"""Synthetic captions in the published forms, small enough for a test."""

import json
from types import SimpleNamespace

import numpy as np

from tests.datasets.vqa_files import FEATURE_SIZE, region_arrays

IMAGES = {"train": 7, "dev": 3, "test": 4, "testall": 5}
FIRST = {"train": 0, "dev": 20, "test": 30, "testall": 30}
COLOURS = ("red", "blue", "green", "black", "white")


def photo_of(imgid):
    """Id of the photo with an imgid."""
    return 1000 + 3 * imgid


def captions_of(imgid, split):
    """Five captions of uneven length."""
    return [f"A {c} {split}-thing, number {imgid}" + " and more" * (imgid % 3) for c in COLOURS]


def write_precomp(folder, splits=("train", "dev", "test"), repeated=("dev", "test")):
    """Write the ``*_caps.txt`` and ``*_ids.txt``; of ``repeated`` splits with an id per caption."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        ids = range(FIRST[split], FIRST[split] + IMAGES[split])
        texts = [text for imgid in ids for text in captions_of(imgid, split)]
        (folder / f"{split}_caps.txt").write_text("".join(f"{text}\n" for text in texts))
        lines = [imgid for imgid in ids for _ in range(5 if split in repeated else 1)]
        (folder / f"{split}_ids.txt").write_text("".join(f"{imgid}\n" for imgid in lines))


def imgids(splits=("train", "dev", "test")):
    """All imgids of the splits."""
    return [imgid for split in splits for imgid in range(FIRST[split], FIRST[split] + IMAGES[split])]


def write_json(path, ids, **info):
    """Write a ``dataset_flickr30k.json``."""
    images = [{"filename": f"{photo_of(imgid)}.jpg", "imgid": imgid, "split": "any"} for imgid in ids]
    path.write_text(json.dumps({"dataset": "flickr30k", "info": info, "images": images}))


def write_features(folder, photos, counts=None, size=FEATURE_SIZE):
    """Write an ``.npz`` file for each photo, with 2 to 4 regions."""
    folder.mkdir(parents=True, exist_ok=True)
    for photo in photos:
        np.savez(folder / f"{photo}.npz", **region_arrays(photo, counts or 2 + photo % 3, size))


def write_flickr(folder):
    """Write everything that ``prepare_itm.py`` needs; returns ``.flags`` for it and the places."""
    write_precomp(folder / "f30k_precomp")
    write_json(folder / "dataset_flickr30k.json", imgids(), description="synthetic", synthetic=True)
    write_features(folder / "npz", map(photo_of, imgids()))
    flags = ["--captions", folder / "f30k_precomp", "--json", folder / "dataset_flickr30k.json"]
    flags += ["--features", folder / "npz", "--out", folder / "itm", "--workers", "1"]
    return SimpleNamespace(
        flags=[str(flag) for flag in flags],
        captions=folder / "f30k_precomp",
        json=folder / "dataset_flickr30k.json",
        features=folder / "npz",
        out=folder / "itm",
    )
