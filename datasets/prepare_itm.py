#!/usr/bin/env python
"""Prepare image-text matching: check captions and ids, pack the region features, and build the vocabulary.

    python datasets/prepare_itm.py --captions f30k_precomp --json dataset_flickr30k.json --features DIR --out data/itm
    python datasets/prepare_itm.py --dataset coco --captions coco_precomp --features DIR --out data/itm

This reads {train,dev,test}_caps.txt and _ids.txt (COCO has testall too), with five captions per image. DIR contains one
.npz file per image, named by its photo or image id (directly, or in subfolders), .tsv files of bottom-up attention,
.pth files of grid features, or SCAN's {train,dev,test}_ims.npy, which have no boxes. The captions, the vocabulary and
the features (store/) go to <out>/<dataset>/. With the official files of Flickr30K it should print: train 29,000, dev
1,014, test 1,000 images.

The same command resumes a run that was interrupted.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.regions.flags import add_packing_flags, packing_options
from util.cli import OneLineParser, UserError, quoted, run_cli


def get_args_parser():
    parser = OneLineParser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--captions", required=True, help="folder of *_caps.txt and *_ids.txt")
    data.add_argument("--dataset", choices=("flickr", "coco"), default="flickr")
    data.add_argument("--json", help="dataset_flickr30k.json, which maps the ids of Flickr30K to photos")
    data.add_argument("--features", required=True, help="folder of .npz, .tsv or .pth files, or of SCAN's *_ims.npy")
    data.add_argument("--out", required=True, help="folder of the prepared data, e.g. data/itm")
    work = add_packing_flags(parser)
    work.add_argument("--skip_missing", action="store_true", help="leave out images without features or not in --json")
    return parser


def main(argv=None):
    args = get_args_parser().parse_args(argv)
    prepare(
        args.captions,
        args.features,
        args.out,
        dataset=args.dataset,
        names=args.json,
        skip_missing=args.skip_missing,
        **packing_options(args),
    )


def prepare(
    captions,
    features,
    out,
    *,
    dataset="flickr",
    names=None,
    dtype="float16",
    workers=None,
    skip_missing=False,
    skip_invalid=False,
):
    """Check the captions, pack the features, and write captions and vocabulary.

    Args:
        captions: Folder of ``*_caps.txt`` and ``*_ids.txt``.
        features: Folder of SCAN's ``*_ims.npy``, or of features as in `regions.packing.pack_regions`.
        out: Folder of the prepared data sets; this one goes into its subfolder ``dataset``.
        dataset, names: ``flickr`` with the path of ``dataset_flickr30k.json``, or ``coco`` with None.
        dtype: dtype of the packed features, ``float16`` or ``float32``.
        workers: Number of processes; None for one per processor.
        skip_missing: Leave out images without features or not in ``names``.
        skip_invalid: Leave out faulty features instead of ending with an error.

    Returns:
        dict split -> number of images.

    Raises:
        UserError: files are missing, faulty or do not fit together, or ``out`` cannot be written.
    """
    from datasets.itm.files import SPLITS, STORE_FOLDER, pack_scan, scan_files, write_tables
    from datasets.regions.packing import pack_regions

    folder = Path(out) / dataset
    splits, about = _read_splits(captions, dataset, names, skip_missing)
    given = f"--captions {quoted(captions)}{f' --json {quoted(names)}' if names else ''}"
    given += f" --features {quoted(features)} --out {quoted(out)}"
    remedy = f"python datasets/prepare_itm.py --dataset {dataset} {given}"
    published = scan_files(features, SPLITS[dataset])
    if published:
        store = pack_scan(published, splits, folder / STORE_FOLDER, remedy=remedy, dtype=dtype)
        print("note: SCAN's features have no boxes; operations on relations between regions learn nothing from them")
    else:
        options = {"remedy": remedy, "dtype": dtype, "workers": workers, "skip_invalid": skip_invalid}
        store = pack_regions(features, folder / STORE_FOLDER, **options)
    splits = {name: _with_features(store, name, split, features, skip_missing) for name, split in splits.items()}
    write_tables(folder, splits, about)
    _print_summary(folder, about, splits, store)
    return {name: len(split.image_ids) for name, split in splits.items()}


def _read_splits(captions, dataset, names, skip_missing):
    """Read the captions; returns dict split -> `Split`, whose ids name the features, and facts for meta.json."""
    from datasets.itm.files import OFFICIAL_COUNTS, SPLITS, read_photo_names, read_precomp, to_photos

    if (dataset == "flickr") != bool(names):
        raise UserError(
            "--dataset flickr needs --json dataset_flickr30k.json, which maps ids to photos"
            if dataset == "flickr"
            else "--json belongs to --dataset flickr: ids of COCO are image ids already; leave it out"
        )
    splits = {name: read_precomp(captions, name) for name in SPLITS[dataset]}
    counts = {name: len(split.image_ids) for name, split in splits.items()}
    source = "" if counts == OFFICIAL_COUNTS[dataset] else "in the form "
    official = {"flickr": "Flickr30K", "coco": "COCO"}[dataset]
    about = {"dataset": dataset, "description": f"captions {source}of {official}", "synthetic": False}
    if not names:
        return splits, about
    photos = read_photo_names(names)
    for name, split in splits.items():
        splits[name], absent = to_photos(split, photos, Path(captions) / f"{name}_ids.txt", names, skip_missing)
        if absent:
            print(f"note: {name}: {absent:,} images are not in {names} and are left out")
    if photos.info.get("synthetic"):
        about |= {"description": str(photos.info.get("description", "synthetic")), "synthetic": True}
    return splits, about


def _with_features(store, name, split, features, skip_missing):
    """The `Split` without images that have no features; raises UserError about them unless ``skip_missing`` is set."""
    from datasets.regions.reading import rows_of

    present = rows_of(store, split.image_ids) >= 0
    if present.all():
        return split
    first, count = split.image_ids[~present][0], int((~present).sum())
    if not skip_missing or not present.any():
        raise UserError(
            f"--features {features} has no features of image {first} of {name} ({count:,} of {len(present):,} images"
            " lack them); add them" + (", or --skip_missing to leave these images out" if present.any() else "")
        )
    print(f"note: {name}: {count:,} of {len(present):,} images have no features and are left out, first {first}")
    return split.taken(present)


def _print_summary(folder, about, splits, store):
    """Print a summary, and how it differs from the published files."""
    import numpy as np

    from datasets.itm.files import OFFICIAL_COUNTS, VOCABULARY_FILE
    from util.files import read_json

    for name, split in splits.items():
        images, expected = len(split.image_ids), OFFICIAL_COUNTS[about["dataset"]][name]
        differs = "" if images == expected or about["synthetic"] else f" (the published split has {expected:,})"
        print(f"{name} {images:,} images, {len(split.captions):,} captions{differs}")
        double = images - len(np.unique(split.image_ids))
        if double:
            print(f"note: {name}: {double:,} images occur twice; each copy counts as wrong for the other's captions")
    words, counts = len(read_json(folder / VOCABULARY_FILE)["words"]), store.counts()
    print(f"vocabulary {words:,} words; images with {counts.min()} to {counts.max()} regions of {store.feature_size}")
    print(f"wrote {folder}")


if __name__ == "__main__":
    run_cli(main)
