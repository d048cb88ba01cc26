"""Check the data of image-text matching: the published captions or the prepared ones, and the features."""

from collections import Counter

from datasets.checks import Seen, folder_or_file
from datasets.itm.dataset import prepare_command
from datasets.itm.files import (
    OFFICIAL_COUNTS,
    PRECOMP,
    SPLITS,
    STORE_FOLDER,
    VOCABULARY_FILE,
    read_meta,
    read_photo_names,
    read_precomp,
    read_split,
    to_photos,
)
from datasets.regions.check import check_features
from datasets.text.vocabulary import Vocabulary, tokenise
from datasets.vqa.check import check_word_vectors
from util.files import read_json

SOURCE = "the published files, as in prepare_itm.py"
NAMES_FILE = "dataset_flickr30k.json"


def check(report, data, features=None):
    """Check the data in a folder, and add the findings to a `datasets.checks.Report`.

    Args:
        report: The `Report`.
        data: The folder.
        features: Folder of the features, if it is elsewhere; None for the store in ``data``.
    """
    path = folder_or_file(report, data, f"make them with `{prepare_command(data, 'flickr')} --features DIR`")
    if path is None:
        return
    found = 0
    for dataset in SPLITS:
        command = prepare_command(data, dataset)
        if (path / dataset).is_dir():
            _check_prepared(report, path / dataset, dataset, command, features)
        elif folder := _precomp(path, dataset):
            _check_published(report, path, folder, dataset, command, features)
        else:
            continue
        found += 1
    if not found:
        fix = f"make them with `{prepare_command(data, 'flickr')} --features DIR`"
        report.add("error", path, f"has neither {' nor '.join(SPLITS)}, nor {' nor '.join(PRECOMP.values())}", fix)


def _precomp(path, dataset):
    """The folder of the published captions, or None."""
    places = [path / PRECOMP[dataset]] + ([path] if path.name == PRECOMP[dataset] else [])
    return next((place for place in places if (place / "train_caps.txt").is_file()), None)


def _check_prepared(report, folder, dataset, command, features):
    meta, splits = None, {}
    with report.catching(folder):
        meta = read_meta(folder, f"{command} --features DIR")
    if meta is None:
        return
    report.about.append(f"{folder}: {meta['description']}{' (synthetic)' if meta.get('synthetic') else ''}")
    for split in SPLITS[dataset]:
        with report.catching(folder / f"{split}.json"):
            splits[split] = read_split(folder, split, f"{command} --features DIR")
    _check_captions(report, folder, dataset, splits, bool(meta.get("synthetic")), f"{command} --features DIR")
    with report.catching(folder / VOCABULARY_FILE):
        known = set(Vocabulary.from_dict(read_json(folder / VOCABULARY_FILE), str(folder / VOCABULARY_FILE)).words)
        used = {word for split in splits.values() for caption in split.captions for word in tokenise(caption)}
        if unknown := sorted(used - known):
            text = f"lacks {len(unknown):,} words of the captions, first {unknown[0]!r}"
            report.add("error", folder / VOCABULARY_FILE, text, f"run `{command} --features DIR` again")
    ids = {split: one.image_ids for split, one in splits.items()}
    place = features or folder / STORE_FOLDER
    if ids:
        check_features(report, folder, ids, command=command, trees=("npz",), features=place)


def _check_published(report, path, folder, dataset, command, features):
    report.about.append(f"{folder}: captions of {dataset}, not prepared yet (`{command} --features DIR`)")
    splits, photos = {}, {}
    for split in SPLITS[dataset]:
        with report.catching(folder):
            splits[split] = read_precomp(folder, split)
    synthetic = False
    if dataset == "flickr":
        photos, synthetic = _photos(report, path, folder, splits)
    _check_captions(report, folder, dataset, splits, synthetic, command)
    ids = {split: one.image_ids for split, one in (photos if dataset == "flickr" else splits).items()}
    if features and ids:
        check_features(report, path, ids, command=command, trees=("npz",), features=features)
    else:
        report.about.append("no features were checked (name them with --features DIR)")


def _photos(report, path, folder, splits):
    """For Flickr30K: dict split -> `Split` with the ids of photos, and whether the data are synthetic."""
    file = next((place / NAMES_FILE for place in (path, folder) if (place / NAMES_FILE).is_file()), None)
    if file is None:
        report.missing(path / NAMES_FILE, "the names of the photos are", "put the published file there")
        return {}, False
    names, photos = None, {}
    with report.catching(file):
        names = read_photo_names(file)
    for split, one in splits.items() if names is not None else ():
        with report.catching(folder / f"{split}_ids.txt"):
            photos[split], _ = to_photos(one, names, folder / f"{split}_ids.txt", file, False)
    return photos, names is not None and bool(names.info.get("synthetic"))


def _check_captions(report, folder, dataset, splits, synthetic, command):
    """Record the counts, and add findings about captions without words and images that occur twice."""
    images, seen, again = {}, Seen(), f"run `{command}` on the published files"
    for split, one in splits.items():
        official, source = (None, "") if synthetic else (OFFICIAL_COUNTS[dataset][split], SOURCE)
        report.count(f"{dataset} {split}", len(one.image_ids), official, source, again)
        for number, caption in enumerate(one.captions):
            if not tokenise(caption):
                seen.fault("error", "captions without words", f"{split} caption {number}")
        for image, count in Counter(one.image_ids.tolist()).items():
            if count > 1:
                text = f"is there {count} times: each copy counts as wrong for the other's captions"
                seen.fault("warning", "images that are twice in a split", f"{split} image {image}", text)
        # COCO's test is a part of its testall.
        if split != "testall":
            images[split] = {image: f"image {image}" for image in one.image_ids.tolist()}
    report.faults(folder, seen.faults, f"run `{command}` again")
    report.repeats(folder, images, "images", fix=again)
    if not synthetic:
        check_word_vectors(report)
