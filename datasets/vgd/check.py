"""Check RefCOCO, RefCOCO+ and RefCOCOg: the official files or the prepared ones, and the features."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from datasets.checks import Seen, folder_or_file
from datasets.regions.check import check_features
from datasets.regions.reading import rows_of
from datasets.vgd.files import FEATURE_FOLDERS, TITLES, VGDFolder, corners_of, prepare_command
from datasets.vgd.refer import DATASETS, INSTANCES_FILE, TOLERANCE, read_instances, read_refs, records_of
from datasets.vqa.check import check_word_vectors
from util.boxes import overlaps
from util.cli import UserError, quoted

SOURCE = "the official files, as in prepare_vgd.py"
# If some region overlaps by half with the boxes of fewer expressions than this share, the features are probably not
# those of the images.
LEAST_FOUND = 0.5
FOUND, MIN_OVERLAP = "overlap by half", 0.5


def check(report, data, features=None):
    """Check the data in a folder, and add the findings to a `datasets.checks.Report`.

    Args:
        report: The `Report`.
        data: The folder.
        features: Folder of the features, if it is elsewhere; None to find them in ``data``.
    """
    path = folder_or_file(report, data, f"make them with `{prepare_command(data, 'refcoco')}`")
    if path is None:
        return
    found, synthetic, prepared = {}, True, False
    for dataset, official in DATASETS.items():
        if any((path / dataset / f"{split}.json").is_file() for split in official.counts):
            records, made = _prepared(report, path, dataset)
            prepared = True
        elif (path / dataset / INSTANCES_FILE).is_file():
            records, made = _original(report, path / dataset, dataset)
        else:
            continue
        found[dataset], synthetic = records, synthetic and made
        for split, rows in records.items():
            count, source = (None, "") if made else (official.counts[split], SOURCE)
            report.count(f"{dataset} {split}", len(rows), count, source, "fetch both official files, prepare again")
        _check_records(report, path / dataset, dataset, records)
    if not found:
        names = ", ".join(DATASETS)
        fix = f"`{prepare_command(data, 'refcoco')}`"
        report.add("error", path, f"has neither prepared splits nor official files of {names}", f"make them with {fix}")
        return
    if not synthetic:
        check_word_vectors(report)
    if prepared or features:
        _check_features(report, data, found, features)
    else:
        report.about.append("no features were checked (name them with --features DIR)")


def _prepared(report, data, dataset):
    """Read prepared files: (dict split -> records, whether they are synthetic)."""
    folder, records = None, {}
    with report.catching(data / dataset):
        folder = VGDFolder(data, dataset)
    if folder is None:
        return {}, True
    report.about.append(f"{folder.folder}: {folder.description}{' (synthetic)' if folder.synthetic else ''}")
    for split in DATASETS[dataset].counts:
        with report.catching(folder.folder / f"{split}.json"):
            records[split] = folder.records(split)
            made = folder.counts.get(split, len(records[split]))
            if len(records[split]) != made:
                text = f"{len(records[split]):,} expressions, the preparation wrote {made:,}"
                report.add(
                    "error", folder.folder / f"{split}.json", text, f"run `{prepare_command(data, dataset)}` again"
                )
    return records, folder.synthetic


def _original(report, folder, dataset):
    """Read official files: (dict split -> records, whether they are synthetic); refused expressions become findings."""
    records, synthetic = {}, False
    with report.catching(folder):
        path, refs = read_refs(folder, dataset)
        instances = read_instances(folder)
        synthetic = bool(instances.info.get("synthetic", False))
        records, faults = records_of(refs, instances, dataset)
        command = f"python datasets/prepare_vgd.py --dataset {dataset} --refer {quoted(folder.parent)} --out OUT"
        report.about.append(f"{folder}: {TITLES[dataset]}, not prepared yet (`{command}`)")
        named = [("error", "expressions that cannot be used", *fault.split(": ", 1)) for fault in faults]
        report.faults(path, named, "fetch both official files again, or prepare with --skip_invalid")
    return records, synthetic


def _check_records(report, place, dataset, records):
    """Add findings about boxes beyond their image, expressions without words, and images in two splits."""
    seen, images = Seen(), {}
    for split, rows in records.items():
        images[split] = {record["image_id"]: f"image {record['image_id']}" for record in rows}
        for number, record in enumerate(rows):
            x, y, w, h = record["bbox"]
            name = f"{split} {number}"
            beyond = x + w > record["width"] + TOLERANCE or y + h > record["height"] + TOLERANCE
            if beyond or min(x, y) < -TOLERANCE:
                size = f"{record['width']} x {record['height']}"
                seen.fault("error", "boxes beyond their image", name, f"box {record['bbox']} in an image of {size}")
            if not any(word.strip() for word in record["tokens"]):
                seen.fault("warning", "expressions without words", name)
    report.faults(place, seen.faults, f"prepare {dataset} again from the official files")
    # The unc and umd splits are by image, see tensorflow.org/datasets/catalog/ref_coco.
    fix = "the official splits share no image: prepare again"
    report.repeats(place, images, "images", "warning", fix)


def _check_features(report, data, datasets, features):
    ids = {
        f"{dataset} {split}": np.array([record["image_id"] for record in rows], dtype=np.int64)
        for dataset, records in datasets.items()
        for split, rows in records.items()
    }
    command = prepare_command(data, next(iter(datasets)))
    trees = FEATURE_FOLDERS["vg_woref"]
    source = check_features(report, data, ids, command=command, trees=trees, features=features)
    if source is None:
        return
    rows = [record for records in datasets.values() for part in records.values() for record in part]
    present = rows_of(source, np.array([record["image_id"] for record in rows], dtype=np.int64)) >= 0
    rows = [record for record, there in zip(rows, present.tolist(), strict=True) if there]
    seen = report.read(partial(_read, source), rows, what="expressions", place=Path(source.folder), unit="expression")
    found = seen.measured.get(FOUND, [])
    if found and np.mean(found) < LEAST_FOUND:
        text = f"only {np.mean(found):.0%} of the boxes overlap a region by half"
        report.add("warning", source.folder, text, "are the features of these images, and the boxes x1, y1, x2, y2?")
    elif found:
        report.about.append(f"  a region overlaps {np.mean(found):.1%} of the boxes by half: no network can do better")


def _read(source, records):
    """Compare some expressions with the regions of their images; returns a `Seen`."""
    seen = Seen()
    boxes = corners_of(records)
    rows = rows_of(source, np.array([record["image_id"] for record in records], dtype=np.int64))
    for record, box, row in zip(records, boxes, rows.tolist(), strict=True):
        name = f"image {record['image_id']}"
        try:
            regions = source.load(row)
        except UserError:
            continue  # reported by the check of the features
        if (regions.height, regions.width) != (record["height"], record["width"]):
            sizes = f"{regions.height:g} x {regions.width:g}, its boxes on {record['height']} x {record['width']}"
            text = f"features were made on {sizes} pixels: make them of the official images"
            seen.fault("error", "features of images of another size", name, text)
            continue
        best = overlaps(torch.from_numpy(box)[None], torch.tensor(np.asarray(regions.boxes))).max().item()
        seen.measured.setdefault(FOUND, []).append(best >= MIN_OVERLAP)
    return seen
