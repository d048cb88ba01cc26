#!/usr/bin/env python
"""Prepare RefCOCO, RefCOCO+ or RefCOCOg: split files of the official annotations, and packed region features.

    python datasets/prepare_vgd.py --dataset refcoco --refer data/refer --out data/vgd

This reads data/refer/refcoco/instances.json and refs(unc).p (RefCOCO and RefCOCO+) or refs(umd).p (RefCOCOg), and
writes data/vgd/refcoco/{train,val,testA,testB}.json, one record per expression. Features are packed into
data/vgd/store, which all three data sets share, from --features DIR or data/vgd/bua-r101-fix100/*.npz. With the
official files RefCOCO has 120,624 / 10,834 / 5,657 / 5,095 expressions, RefCOCO+ 120,191 / 10,758 / 5,726 / 4,889, and
RefCOCOg (train, val, test) 80,512 / 4,896 / 9,602.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.regions.flags import add_packing_flags, packing_options
from util.cli import OneLineParser, UserError, quoted, run_cli

INVALID_FILE = "invalid.txt"
LISTED = 20


def get_args_parser():
    parser = OneLineParser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", required=True, choices=("refcoco", "refcoco+", "refcocog"), help="data set")
    data.add_argument(
        "--refer", required=True, metavar="DIR", help="folder of <dataset>/instances.json and refs(...).p"
    )
    data.add_argument("--out", default="data/vgd", metavar="DIR", help="data folder to fill (default: %(default)s)")
    data.add_argument(
        "--features",
        metavar="DIR",
        help="folder of .npz or .tsv files, or a .tsv file (default: bua-r101-fix100 or features in --out)",
    )
    add_packing_flags(parser, "expressions and feature files")
    return parser


def main(argv=None):
    args = get_args_parser().parse_args(argv)
    prepare(args.dataset, args.refer, args.out, features=args.features, **packing_options(args))


def prepare(dataset, refer, out, *, features=None, dtype="float16", workers=None, skip_invalid=False):
    """Write the split files of a data set and pack the features.

    Args:
        dataset: ``refcoco``, ``refcoco+`` or ``refcocog``.
        refer: Folder of ``<dataset>/instances.json`` and ``refs(...).p``, or of these files themselves.
        out: Data folder: split files go to ``out/<dataset>``, features to ``out/store``.
        features: Folder of the features, see `regions.packing.pack_regions`; None to use those in ``out``, if there
            are any.
        dtype: dtype of the packed features, ``float16`` or ``float32``.
        workers: Number of processes; None for one per processor.
        skip_invalid: Leave out faulty expressions and feature files instead of ending with an error.

    Returns:
        dict split -> number of expressions.

    Raises:
        UserError: files are missing, faulty, or from another data set or split, or ``out`` cannot be written.
    """
    from datasets.vgd.files import FEATURE_FOLDERS
    from datasets.vgd.refer import read_instances, read_refs, refer_folder

    out, folder = Path(out), refer_folder(refer, dataset)
    places = [out / name for name in FEATURE_FOLDERS["vg_woref"]]
    tree = Path(features) if features else next((place for place in places if place.is_dir()), None)
    if tree is not None:
        _check_boxes(tree)
    path, refs = read_refs(folder, dataset)
    instances = read_instances(folder)
    records = _write_splits(dataset, path, refs, instances, out, skip_invalid)
    if tree is not None:
        from datasets.regions.packing import pack_regions

        places = f"--refer {quoted(refer)} --out {quoted(out)} --features {quoted(tree)}"
        remedy = f"python datasets/prepare_vgd.py --dataset {dataset} {places}"
        pack_regions(tree, out / "store", remedy=remedy, dtype=dtype, workers=workers, skip_invalid=skip_invalid)
    _print_features(dataset, records, out)
    return {split: len(rows) for split, rows in records.items()}


def _check_boxes(tree):
    """Refuse features without usable boxes, because grounding chooses among the boxes."""
    from datasets.regions import grid
    from datasets.regions.packing import form_of

    if form_of(tree) == grid.ENDING:
        raise UserError(
            f"--features {tree} contains grid features, which have no boxes in pixels of the pictures; grounding needs"
            " features of a detector (.npz or .tsv files)"
        )


def _write_splits(dataset, path, refs, instances, out, skip_invalid):
    """Check and write the records of all splits; returns them."""
    from datasets.vgd.files import TITLES, write_splits
    from datasets.vgd.refer import DATASETS, records_of
    from util.files import write_text

    records, faults = records_of(refs, instances, dataset)
    if faults and not skip_invalid:
        count = f"{len(faults):,} expressions" if len(faults) > 1 else "1 expression"
        raise UserError(
            f"{path}: {count} cannot be used, first {faults[0]}; fetch both official files again, or add"
            " --skip_invalid to leave such expressions out"
        )
    empty = [split for split, rows in records.items() if not rows]
    if empty:
        raise UserError(f"{path} leaves no expression in split {empty[0]}; fetch both official files again")
    synthetic = bool(instances.info.get("synthetic", False))
    about = str(instances.info.get("description", "")) if synthetic else TITLES[dataset]
    counts = {split: len(rows) for split, rows in records.items()}
    meta = {"description": about, "synthetic": synthetic, "expressions": counts, "left out": len(faults)}
    write_splits(out / dataset, records, meta)
    for split, count in counts.items():
        official = DATASETS[dataset].counts[split]
        differs = "" if synthetic or count == official else f" (note: the official {TITLES[dataset]} has {official:,})"
        print(f"{split} {count:,} expressions{differs}")
    (out / dataset / INVALID_FILE).unlink(missing_ok=True)
    if faults:
        write_text(out / dataset / INVALID_FILE, "".join(f"{fault}\n" for fault in faults))
        print(f"note: {len(faults):,} expressions left out (all are listed in {out / dataset / INVALID_FILE}):")
        for fault in faults[:LISTED]:
            print(f"  {fault}")
    return records


def _print_features(dataset, records, out):
    """Print the size of the store, and how many images of each split have no features in it."""
    import numpy as np

    from datasets.regions.reading import rows_of
    from datasets.regions.store import META_FILE, RegionStore
    from datasets.vgd.files import FEATURE_FOLDERS, prepare_command

    remedy = f"{prepare_command(out, dataset)} --features NPZ_DIR"
    if not (out / "store" / META_FILE).is_file():
        print(f"note: no features yet: put .npz files into {out / FEATURE_FOLDERS['vg_woref'][0]}, or `{remedy}`")
        return
    store = RegionStore(out / "store", remedy)
    counts = store.counts()
    print(
        f"{len(counts):,} images with {counts.min()} to {counts.max()} regions (mean {counts.mean():.1f}) of width"
        f" {store.feature_size}"
    )
    for split, rows in records.items():
        images = np.unique([record["image_id"] for record in rows])
        absent = images[rows_of(store, images) < 0]
        if len(absent):
            print(f"note: {split}: {len(absent):,} of {len(images):,} images have no features, first {absent[0]}")


if __name__ == "__main__":
    run_cli(main)
