"""Write synthetic scenes as the official files of three tasks: RefCOCO, Flickr30K (precomp and JSON) and VQA v2.

All three are about the same pictures. Each task has its own random stream for the words of a scene, so that the words
of one task affect neither those of another nor the pictures.
"""

import json
import pickle
import random

from datasets.demo.scene_pictures import HEIGHT, SHAPES, WIDTH
from datasets.demo.scene_words import captions, expressions, questions
from util.files import atomic_path, write_text
from util.progress import progress

# Folder of the RefCOCO files; folder of the Flickr30K files, and the folder of captions in it.
REFER, ITM_RAW, PRECOMP = "refer", "itm_raw", "f30k_precomp"
REFER_DATASET, REFS_FILE, INSTANCES_FILE = "refcoco", "refs(unc).p", "instances.json"
FLICKR_JSON = "dataset_flickr30k.json"
# Maximum number of shapes per picture that are referred to, and of expressions per shape.
REFERENTS, SENTENCES = 3, 3
# The official file was written by Python 2, which has no later protocol.
PICKLE_PROTOCOL = 2


def picture_name(number):
    """File name of picture ``number``, which is also its image id."""
    return f"COCO_train2014_{number:012d}.png"


def words_of(seed, task, number):
    """`random.Random` that draws the words of a task (vgd, itm, vqa) about a scene."""
    return random.Random(f"{task} {seed} {number}")


def write_refcoco(out, splits, seed, about):
    """Write ``refer/refcoco/instances.json`` and ``refs(unc).p``.

    Args:
        out: Folder of the demo.
        splits: dict split (train, val, testA, testB) -> list of `Scene`.
        seed: Seed of the words.
        about: Description of the data, which becomes ``info`` in instances.json.

    Returns:
        dict split -> number of expressions.

    Raises:
        UserError: a file cannot be written.
    """
    images, annotations, refs, counts = [], [], [], {}
    for split, scenes in splits.items():
        before = sum(len(ref["sent_ids"]) for ref in refs)
        for scene in progress(scenes, f"expressions of {split}", unit="picture"):
            size = {"height": HEIGHT, "width": WIDTH, "license": 0}
            images.append({"id": scene.number, "file_name": picture_name(scene.number), **size})
            first = len(annotations) + 1
            annotations += [_instance(first + row, scene.number, thing) for row, thing in enumerate(scene.things)]
            _add_refs(refs, words_of(seed, "vgd", scene.number), scene, split, first)
        counts[split] = sum(len(ref["sent_ids"]) for ref in refs) - before
    categories = [{"id": row, "name": name, "supercategory": "shape"} for row, name in enumerate(SHAPES, 1)]
    instances = {"info": about, "images": images, "annotations": annotations, "categories": categories}
    folder = out / REFER / REFER_DATASET
    write_text(folder / INSTANCES_FILE, json.dumps(instances))
    with atomic_path(folder / REFS_FILE) as temporary:
        temporary.write_bytes(pickle.dumps(refs, protocol=PICKLE_PROTOCOL))
    return counts


def _instance(number, image_id, thing):
    x1, y1, x2, y2 = thing.box
    key = {"id": number, "image_id": image_id, "category_id": SHAPES.index(thing.shape) + 1, "iscrowd": 0}
    return key | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}


def _add_refs(refs, draw, scene, split, first):
    """Add the records of some shapes of a scene; ``first`` is the annotation id of its first shape."""
    added = 0
    for row in draw.sample(range(len(scene.things)), len(scene.things)):
        texts = expressions(draw, scene.things[row], scene.things, SENTENCES)
        if not texts or added == REFERENTS:
            continue
        added += 1
        start = refs[-1]["sent_ids"][-1] + 1 if refs else 0
        sentences = [
            {"sent_id": start + place, "sent": text, "raw": text, "tokens": text.split()}
            for place, text in enumerate(texts)
        ]
        refs.append(
            {
                "ref_id": len(refs),
                "ann_id": first + row,
                "image_id": scene.number,
                "category_id": SHAPES.index(scene.things[row].shape) + 1,
                "file_name": picture_name(scene.number).replace(".png", f"_{first + row}.png"),
                "split": split,
                "sent_ids": [sentence["sent_id"] for sentence in sentences],
                "sentences": sentences,
            }
        )


def write_flickr(out, splits, seed, about):
    """Write ``itm_raw/f30k_precomp/*_caps.txt`` and ``*_ids.txt``, and ``itm_raw/dataset_flickr30k.json``.

    Args:
        out, seed, about: See `write_refcoco`.
        splits: dict split (train, dev, test) -> list of `Scene`.

    Returns:
        dict split -> number of captions.

    Raises:
        UserError: a file cannot be written.
    """
    images, counts = [], {}
    for split, scenes in splits.items():
        texts, ids = [], []
        for scene in scenes:
            imgid = len(images)
            texts_of_scene = captions(words_of(seed, "itm", scene.number), scene)
            images.append(_flickr_image(imgid, scene.number, "val" if split == "dev" else split, texts_of_scene))
            texts += texts_of_scene
            ids += [imgid] * (1 if split == "train" else len(texts_of_scene))
        folder = out / ITM_RAW / PRECOMP
        write_text(folder / f"{split}_caps.txt", "".join(f"{text}\n" for text in texts))
        write_text(folder / f"{split}_ids.txt", "".join(f"{imgid}\n" for imgid in ids))
        counts[split] = len(texts)
    content = {"dataset": "flickr30k", "info": about, "images": images}
    write_text(out / ITM_RAW / FLICKR_JSON, json.dumps(content))
    return counts


def _flickr_image(imgid, number, split, texts):
    sentids = [imgid * len(texts) + place for place in range(len(texts))]
    sentences = [
        {"sentid": sentid, "imgid": imgid, "raw": text, "tokens": text.replace(",", "").replace(":", "").split()}
        for sentid, text in zip(sentids, texts, strict=True)
    ]
    about = {"imgid": imgid, "filename": picture_name(number), "split": split}
    return about | {"sentids": sentids, "sentences": sentences}


def write_vqa(out, splits, seed, about, ask=questions):
    """Write the question and annotation files of VQA v2 into ``vqa/annotations``.

    Args:
        out, seed, about: See `write_refcoco`.
        splits: dict split (train, val, test) -> list of `Scene`.
        ask: Function (random.Random, scene) -> list of (question, answer).

    Returns:
        dict split -> number of questions.

    Raises:
        UserError: a file cannot be written.
    """
    from datasets.vqa.files import write_questions

    counts = {}
    for split, scenes in splits.items():
        asked = ((scene.number, ask(words_of(seed, "vqa", scene.number), scene)) for scene in scenes)
        counts[split] = write_questions(out / "vqa", split, asked, {"info": about, "license": {}})
    return counts
