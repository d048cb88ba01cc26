"""Synthetic RefCOCO data in the official form, small enough for a test."""

import json
import pickle
from types import SimpleNamespace

import numpy as np

from datasets.vgd.refer import DATASETS
from tests.datasets.vqa_files import region_arrays

WORDS = ("the", "red", "cube", "left", "of", "ball")
HEIGHT = 400


def make_refs(splits=("train", "val", "testA", "testB"), images=3):
    """References: two objects in each of ``images`` images per split, the first with two sentences."""
    refs, sentence = [], 0
    for number, split in enumerate(splits):
        for image_id in range(100 * number + 1, 100 * number + 1 + images):
            for thing in range(2):
                sentences = []
                for turn in range(2 - thing):
                    tokens = [WORDS[(image_id + turn + place) % len(WORDS)] for place in range(3 + turn)] + [split]
                    text = " ".join(tokens)
                    sentences.append({"tokens": tokens, "raw": text, "sent": text, "sent_id": sentence})
                    sentence += 1
                refs.append(
                    {
                        "ref_id": len(refs),
                        "ann_id": 10 * image_id + thing,
                        "image_id": image_id,
                        "category_id": 1 + thing,
                        "file_name": f"COCO_train2014_{image_id:012d}_{thing}.jpg",
                        "split": split,
                        "sent_ids": [one["sent_id"] for one in sentences],
                        "sentences": sentences,
                    }
                )
    return refs


def make_instances(refs):
    """The instances of references; the box of an object is the second or third region of its image."""
    images, annotations = {}, []
    for ref in refs:
        image_id, arrays = ref["image_id"], region_arrays(ref["image_id"])
        images[image_id] = {
            "id": image_id,
            "file_name": f"COCO_train2014_{image_id:012d}.jpg",
            "height": HEIGHT,
            "width": 500 + image_id,
        }
        x1, y1, x2, y2 = arrays["bbox"][1 + ref["category_id"]].astype(float).round(2).tolist()
        box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
        annotations.append(
            {"id": ref["ann_id"], "image_id": image_id, "category_id": ref["category_id"], "bbox": box, "area": 1.0}
        )
    return {
        "info": {"description": "synthetic expressions", "synthetic": True},
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cube"}, {"id": 2, "name": "ball"}],
    }


def write_refer(folder, dataset, refs, instances=None, protocol=2):
    """Write the two official files of a data set."""
    place = folder / dataset
    place.mkdir(parents=True, exist_ok=True)
    (place / f"refs({DATASETS[dataset].split_by}).p").write_bytes(pickle.dumps(refs, protocol=protocol))
    (place / "instances.json").write_text(json.dumps(instances or make_instances(refs)))


def write_features(tree, image_ids):
    """Write the ``.npz`` files of images as `make_instances` sees them."""
    tree.mkdir(parents=True, exist_ok=True)
    for image_id in image_ids:
        np.savez(tree / f"COCO_train2014_{image_id:012d}.jpg.npz", **region_arrays(image_id))


def make_vgd(folder, dataset="refcoco"):
    """Official files and features in ``folder``; ``.refer``, ``.tree``, ``.out``, ``.refs`` and ``.instances``."""
    refs = make_refs(tuple(DATASETS[dataset].counts))
    made = SimpleNamespace(
        refer=folder / "refer", tree=folder / "npz", out=folder / "vgd", refs=refs, instances=make_instances(refs)
    )
    write_refer(made.refer, dataset, refs, made.instances)
    write_features(made.tree, sorted({ref["image_id"] for ref in refs}))
    return made
