#!/usr/bin/env python
"""Prepare MM-IMDB: convert the official multimodal_imdb.hdf5 to a compact store that training opens directly.

    python datasets/prepare_mmimdb.py --hdf5 multimodal_imdb.hdf5 --out BM-NAS_dataset/mmimdb/dataset

With the official file it should print: train 15,552 films, dev 2,608 films, test 7,799 films.
"""

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import OneLineParser, UserError, run_cli

LISTED_IDS = 20


def get_args_parser():
    parser = OneLineParser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--hdf5", required=True, help="multimodal_imdb.hdf5 with imdb_ids, images, features, genres")
    data.add_argument("--out", required=True, help="folder of the store; give it to training as --datadir")
    data.add_argument(
        "--split",
        help='JSON file {"train": [ids], "dev": [ids], "test": [ids]}; films in neither train nor dev count as test'
        " (without it, the first of: the split attribute of the file; split.json or mmimdb_split.json next to it; the"
        " official order)",
    )
    faults = parser.add_argument_group("faulty films and earlier results")
    faults.add_argument(
        "--skip_invalid",
        action="store_true",
        help="leave out films with NaN or infinite values, or with genres other than 0 and 1, instead of stopping",
    )
    faults.add_argument("--overwrite", action="store_true", help="write the store again even if it is up to date")
    return parser


def prepare(hdf5, out, split=None, skip_invalid=False, overwrite=False):
    """Write the store of ``hdf5`` into the folder ``out``; an older store is kept until the new one is complete.

    Args:
        hdf5: The official file.
        out: Folder of the store.
        split: JSON file with the lists of ids, or None to find the split as `official.resolve_split` does.
        skip_invalid: Leave out faulty films instead of stopping.
        overwrite: Write the store again even if ``out`` already contains the store of this file.

    Returns:
        dict split -> number of films.

    Raises:
        UserError: the file, the split or a film is faulty, or ``out`` cannot be written.
    """
    # Imported here so that `--help` does not wait for it.
    from datasets.mmimdb.official import OfficialFile, resolve_split
    from datasets.mmimdb.store import staging_folder

    with OfficialFile(hdf5) as source:
        order, origin = resolve_split(source, split)
        request = _describe_request(source, order, skip_invalid)
        with staging_folder(out) as staging:
            counts = None if overwrite else _finished_counts(out, request)
            if counts is None:
                done = "wrote"
                counts = _write_store(staging, source, order, {"request": request, "split_from": origin}, skip_invalid)
            else:
                done = "already up to date (--overwrite writes it again):"
    print(f"{done} {out}")
    for name, count in counts.items():
        print(f"{name} {count:,} films")
    return counts


def _describe_request(source, order, skip_invalid):
    """dict of everything that the store depends on: equal requests give equal stores."""
    status = source.path.stat()
    rows = hashlib.blake2b(digest_size=8)
    for name, values in order.items():
        rows.update(name.encode() + values.tobytes())
    return {
        "hdf5": source.path.name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "split": rows.hexdigest(),
        "skip_invalid": skip_invalid,
    }


def _finished_counts(out, request):
    """dict split -> number of films of a complete store that was made for the same request, else None."""
    from datasets.mmimdb.dataset import META_FILE, SPLITS, open_mmimdb
    from util.files import read_json

    if not (Path(out) / META_FILE).is_file():
        return None
    try:
        counts = {split: len(open_mmimdb(out, split)) for split in SPLITS}
        return counts if read_json(Path(out) / META_FILE).get("request") == request else None
    except UserError:
        # A damaged store is written again.
        return None


def _write_store(folder, source, order, meta, skip_invalid):
    """Check everything and write the store into ``folder``; returns dict split -> number of films."""
    import numpy as np

    from datasets.mmimdb.store import StoreWriter

    used = np.zeros(source.count, dtype=bool)
    used[np.concatenate(list(order.values()))] = True
    texts, bad_texts = source.read_texts()
    labels, bad_labels = source.read_labels()
    skipped = _report(source, bad_texts & used, "features with NaN or infinite values", skip_invalid)
    skipped += _report(source, bad_labels & used, "genres other than 0 and 1", skip_invalid)
    writer = StoreWriter(folder, order, source.count, source.image_shape)
    bad_images = np.zeros(source.count, dtype=bool)
    for start, images, bad in source.image_chunks():
        rows = slice(start, start + len(images))
        bad_images[rows] = bad & used[rows]
        writer.add_images(start, images, ~(bad | bad_texts[rows] | bad_labels[rows]))
    skipped += _report(source, bad_images, "images with NaN or infinite values", skip_invalid)
    left_out = bad_texts | bad_labels | bad_images
    for name, rows in order.items():
        if left_out[rows].all():
            raise UserError(f"{source.path}: every film of the {name} split is invalid; fetch or build the file again")
    meta = meta | {
        "description": str(source.attributes.get("description", "MM-IMDB")),
        "synthetic": bool(np.all(source.attributes.get("synthetic", False))),
        "num_labels": source.num_labels,
        "label_names": source.label_names,
        "skipped": sorted(set(skipped)),
    }
    splits = writer.finish(texts, labels, source.ids, meta)
    return {name: counts["films"] for name, counts in splits.items()}


def _report(source, bad, what, skip_invalid):
    """Raise UserError about faulty films, or print their ids if they are to be left out; returns the ids."""
    ids = source.ids[bad].tolist()
    if ids and not skip_invalid:
        raise UserError(
            f"{source.path}: {len(ids):,} films have {what}, first film {ids[0]!r};"
            " --skip_invalid leaves such films out"
        )
    if ids:
        more = f" and {len(ids) - LISTED_IDS:,} more (all in meta.json)" if len(ids) > LISTED_IDS else ""
        print(f"note: left out {len(ids):,} films with {what}: {', '.join(ids[:LISTED_IDS])}{more}")
    return ids


def main(argv=None):
    """Prepare the data; returns the number of films of each split, a dict."""
    args = get_args_parser().parse_args(argv)
    return prepare(args.hdf5, args.out, args.split, args.skip_invalid, args.overwrite)


if __name__ == "__main__":
    run_cli(main)
