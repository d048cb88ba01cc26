"""The official files of RefCOCO, RefCOCO+ and RefCOCOg: ``instances.json`` and ``refs(...).p``, read with checks.

A ``refs`` file is a pickled list with one entry per object that is referred to: ``ref_id``, ``ann_id`` (the id of an
annotation in ``instances.json``), ``image_id``, ``split`` and ``sentences``, each with its ``tokens``.
"""

from pathlib import Path
from typing import NamedTuple

from util.cli import UserError
from util.files import read_json
from util.plain_pickle import read_plain_pickle

INSTANCES_FILE = "instances.json"


class Official(NamedTuple):
    """One data set: who split it (the name in its ``refs`` file), and the number of expressions of each split."""

    split_by: str
    counts: dict


DATASETS = {
    "refcoco": Official("unc", {"train": 120624, "val": 10834, "testA": 5657, "testB": 5095}),
    "refcoco+": Official("unc", {"train": 120191, "val": 10758, "testA": 5726, "testB": 4889}),
    "refcocog": Official("umd", {"train": 80512, "val": 4896, "test": 9602}),
}
# How far a box may extend beyond its image, in pixels: official boxes are rounded.
TOLERANCE = 1.0
KINDS = {"ref_id": int, "ann_id": int, "image_id": int, "split": str, "sentences": list}


def refer_folder(refer, dataset):
    """Path of the folder with a data set's two files: ``refer/<dataset>``, or ``refer`` itself if they are there."""
    refer = Path(refer)
    inner = refer / dataset
    return inner if inner.is_dir() or not (refer / INSTANCES_FILE).exists() else refer


def read_refs(folder, dataset):
    """Read the entries of a ``refs`` file.

    Args:
        folder: Folder that `refer_folder` returned.
        dataset: A key of `DATASETS`.

    Returns:
        (path of the file, list of its dicts, unchanged).

    Raises:
        UserError: the file is missing, damaged, or has another form, or it belongs to another split or data set.
    """
    official = DATASETS[dataset]
    path = Path(folder) / f"refs({official.split_by}).p"
    if not path.is_file():
        others = sorted(one.name for one in Path(folder).glob("refs(*).p") if one.is_file() and one != path)
        there = f" (there is {', '.join(others)}, split otherwise)" if others else ""
        fault = "is not a file" if path.exists() else "is missing"
        raise UserError(
            f"{path} {fault}{there}; the splits of {dataset} are those of {path.name}: give --refer the folder with"
            f" {dataset}/{path.name} and {dataset}/{INSTANCES_FILE}"
        )
    refs = read_plain_pickle(path)
    _check_form(path, refs)
    splits, expected = {ref["split"] for ref in refs}, set(official.counts)
    if splits != expected:
        raise UserError(
            f"{path} has the splits {', '.join(sorted(splits))}; {path.name} of {dataset} has"
            f" {', '.join(official.counts)}: it is the file of another data set or split; fetch the right one"
        )
    counts = dict.fromkeys(official.counts, 0)
    for ref in refs:
        counts[ref["split"]] += len(ref["sentences"])
    twins = [name for name, other in DATASETS.items() if name != dataset and other.counts == counts]
    if twins:
        raise UserError(
            f"{path} has as many expressions as {twins[0]} in every split: it is that data set's file; fetch the one"
            f" of {dataset}, or pass --dataset {twins[0]}"
        )
    return path, refs


def _check_form(path, refs):
    if not isinstance(refs, list) or not refs:
        raise UserError(f"{path} contains no list of references; fetch the file again")
    for number, ref in enumerate(refs):
        for field, kind in KINDS.items():
            value = ref.get(field) if isinstance(ref, dict) else None
            if not isinstance(value, kind) or isinstance(value, bool):
                raise UserError(
                    f"{path}: entry {number} has no {field} ({kind.__name__}) but {str(value)[:40]!r}; expected the"
                    " official form; fetch the file again"
                )
        for sentence in ref["sentences"]:
            tokens = sentence.get("tokens") if isinstance(sentence, dict) else None
            if not isinstance(tokens, list) or not all(isinstance(word, str) for word in tokens):
                raise UserError(f"{path}: a sentence of entry {number} has no list of tokens; fetch the file again")


class Instances(NamedTuple):
    """Content of ``instances.json``: images, annotations and category names by id, and the file's ``info``."""

    images: dict
    annotations: dict
    categories: dict
    info: dict


def read_instances(folder):
    """Read the `Instances` of a folder.

    Raises:
        UserError: the file is missing or has another form.
    """
    path = Path(folder) / INSTANCES_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing; put the official {INSTANCES_FILE} next to the refs file")
    content = read_json(path)
    parts = []
    for name in ("images", "annotations", "categories"):
        records = content.get(name) if isinstance(content, dict) else None
        good = isinstance(records, list) and all(isinstance(one, dict) for one in records)
        if not good or not all(type(one.get("id")) is int for one in records):
            raise UserError(f"{path} has no list {name!r} of records with an id; fetch the official file again")
        parts.append({one["id"]: one for one in records})
        for one in records:
            if parts[-1][one["id"]] != one:
                raise UserError(
                    f"{path} has two different {name} with the id {one['id']}; fetch the official file again"
                )
    names = {number: str(one.get("name", "")) for number, one in parts[2].items()}
    info = content.get("info")
    return Instances(parts[0], parts[1], names, info if isinstance(info, dict) else {})


def records_of(refs, instances, dataset):
    """Make the record of each expression that training needs, in the form of the original's split files.

    Args:
        refs: The list from `read_refs`.
        instances: `Instances`.
        dataset: Name of the data set.

    Returns:
        (dict split -> list of dicts, list of faults). There is one dict per expression with tokens, file_name,
        image_id, split, bbox [x, y, w, h] in pixels, name (of the category), height and width; and one fault (str) per
        expression that cannot be used.
    """
    records, faults = {split: [] for split in DATASETS[dataset].counts}, []
    for ref in refs:
        record, fault = _place(ref, instances)
        for sentence in ref["sentences"]:
            words = [word for word in sentence["tokens"] if word.strip()]
            if fault or not words:
                about = f"sentence {sentence.get('sent_id', '?')} of ref {ref['ref_id']}"
                faults.append(f"{about}: {fault or 'an expression without words'}")
            else:
                records[ref["split"]].append({"tokens": sentence["tokens"]} | record)
    return records, faults


def _place(ref, instances):
    """(record without its tokens, None), or (None, reason why there is none)."""
    annotation, image = instances.annotations.get(ref["ann_id"]), instances.images.get(ref["image_id"])
    if annotation is None:
        return None, f"annotation id {ref['ann_id']} is missing in {INSTANCES_FILE}"
    if image is None:
        return None, f"image id {ref['image_id']} is missing in {INSTANCES_FILE}"
    if annotation.get("image_id") != ref["image_id"]:
        return None, f"annotation id {ref['ann_id']} is of image {annotation.get('image_id')}, not {ref['image_id']}"
    box, height, width = annotation.get("bbox"), image.get("height"), image.get("width")
    numbers = [*box, height, width] if isinstance(box, list) and len(box) == 4 else [None]
    if not all(isinstance(one, (int, float)) and not isinstance(one, bool) and abs(one) < 1e7 for one in numbers):
        return None, f"annotation id {ref['ann_id']} has bbox {str(box)[:60]} in an image of {height} x {width}"
    kind = annotation.get("category_id")
    if not isinstance(kind, (int, str, type(None))):
        return None, f"annotation id {ref['ann_id']} has category_id {str(kind)[:60]}"
    x, y, w, h = box
    if not (w > 0 and h > 0):
        return None, f"the box {box} of annotation id {ref['ann_id']} has no size"
    if not (min(x, y) >= -TOLERANCE and x + w <= width + TOLERANCE and y + h <= height + TOLERANCE):
        return None, f"the box {box} of annotation id {ref['ann_id']} lies outside its image of {width} x {height}"
    return {
        "file_name": str(image.get("file_name", "")),
        "image_id": ref["image_id"],
        "split": ref["split"],
        "bbox": box,
        "name": instances.categories.get(kind, ""),
        "height": height,
        "width": width,
    }, None
