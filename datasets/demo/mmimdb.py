"""Small MM-IMDB-like data in the official file form: questions about pictures (easy-vqa), or synthetic posters."""

import json
from pathlib import Path

from util.cli import UserError, quoted
from util.files import atomic_path

HELP = "posters, text vectors and genres in the form of multimodal_imdb.hdf5"
EASY_VQA_COUNTS = {"train": 6000, "dev": 1500, "test": 1500}
SYNTHETIC_COUNTS = {"train": 900, "dev": 300, "test": 300}
SHARES = {"train": 0.6, "dev": 0.2, "test": 0.2}
QUESTIONS_PER_IMAGE = 3
MIN_SIDE = 32
FIELDS = ("features", "images", "genres", "imdb_ids")


def add_arguments(parser):
    """Add the flags of ``make_demo.py mmimdb``."""
    what = parser.add_argument_group("what to make")
    what.add_argument(
        "--source",
        required=True,
        choices=("easy-vqa", "synthetic"),
        help="easy-vqa: real pictures and questions of the Python package, 13 answers as genres;"
        " synthetic: generated posters and texts, 23 genres",
    )
    what.add_argument("--out", required=True, help="folder for multimodal_imdb.hdf5 and the prepared dataset/")
    what.add_argument("--hdf5_only", action="store_true", help="do not prepare dataset/")
    size = parser.add_argument_group("size")
    size.add_argument("--size", type=int, help="films in all, divided 60/20/20 into train, dev and test")
    for split in SHARES:
        counts = f"{EASY_VQA_COUNTS[split]} easy-vqa, {SYNTHETIC_COUNTS[split]} synthetic"
        size.add_argument(f"--{split}", type=int, help=f"films in {split} (default: the share of --size, or {counts})")
    size.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="height and width in pixels (default: 64 64 easy-vqa, 256 160 synthetic)",
    )
    size.add_argument(
        "--questions_per_image",
        type=int,
        help=f"maximum number of questions per easy-vqa picture (default: {QUESTIONS_PER_IMAGE})",
    )
    size.add_argument("--seed", type=int, default=0, help="seed of every choice (default: %(default)s)")


def make(args):
    """Write ``<out>/multimodal_imdb.hdf5`` and prepare ``<out>/dataset``.

    Raises:
        UserError: a size is out of range, easy-vqa is not installed, or the folder cannot be written.
    """
    demo = _open_demo(args)
    hdf5 = Path(args.out) / "multimodal_imdb.hdf5"
    _check_room(hdf5, demo)
    write_hdf5(hdf5, demo)
    counts = ", ".join(f"{split} {count:,}" for split, count in demo.counts.items())
    print(f"wrote {hdf5}: {demo.description} ({counts})")
    if args.hdf5_only:
        print(
            f"next: python datasets/prepare_mmimdb.py --hdf5 {quoted(hdf5)} --out {quoted(Path(args.out) / 'dataset')}"
        )
        return
    # Imported here so that `--help` does not wait for it.
    from datasets.prepare_mmimdb import prepare

    folder = Path(args.out) / "dataset"
    prepare(hdf5, folder)
    flags = f"--datadir {quoted(folder)} --num_outputs {len(demo.label_names)} --backbone_weights random"
    print(f"next: python main_darts_searchable_mmimdb.py {flags}")


def _check_room(path, demo):
    """Raise UserError if the data do not fit on the disk, or would replace a file that is not a demo."""
    import math
    import shutil

    import h5py

    folder = next(parent for parent in path.absolute().parents if parent.exists())
    needed = sum(demo.counts.values()) * (math.prod(demo.image_shape) + 4 * 300)
    if needed > shutil.disk_usage(folder).free:
        raise UserError(f"{needed:,} bytes of films do not fit on the disk of {path.parent}; give a smaller size")
    if path.exists():
        try:
            with h5py.File(path, locking=False) as file:
                if "synthetic" in file.attrs:
                    return
        except OSError:
            pass
        raise UserError(f"{path} exists and is not a demo file; it is not replaced: choose another --out")


def _open_demo(args):
    counts = _counts(args, EASY_VQA_COUNTS if args.source == "easy-vqa" else SYNTHETIC_COUNTS)
    if args.image_size and min(args.image_size) < MIN_SIDE:
        raise UserError(f"--image_size {args.image_size[0]} {args.image_size[1]}: both must be {MIN_SIDE} or more")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: must be 0 or more")
    if args.source == "easy-vqa":
        from datasets.demo.mmimdb_rows import EasyVQADemo

        per_image = QUESTIONS_PER_IMAGE if args.questions_per_image is None else args.questions_per_image
        if per_image < 1:
            raise UserError(f"--questions_per_image {per_image}: must be 1 or more")
        return EasyVQADemo(counts, args.seed, args.image_size, per_image)
    if args.questions_per_image is not None:
        raise UserError("--questions_per_image belongs to --source easy-vqa; leave it out with --source synthetic")
    from datasets.demo.mmimdb_rows import SyntheticDemo

    return SyntheticDemo(counts, args.seed, args.image_size)


def _counts(args, defaults):
    """dict split -> number of films, from --size and from --train, --dev, --test."""
    counts = dict(defaults)
    if args.size is not None:
        counts = {split: round(args.size * share) for split, share in SHARES.items()}
        counts["train"] = args.size - counts["dev"] - counts["test"]
    counts |= {split: getattr(args, split) for split in SHARES if getattr(args, split) is not None}
    for split, count in counts.items():
        if count < 1:
            raise UserError(f"the {split} split would have {count} films: give a larger --size or --{split}")
    return counts


def write_hdf5(path, demo):
    """Write ``demo`` in the official form, block by block.

    Args:
        path: The file to write; an error leaves no partial file.
        demo: An object with ``counts``, ``label_names``, ``image_shape``, ``description``, ``synthetic`` and
            ``blocks()``, which yields dicts of ``images`` uint8 (n, 3, H, W), ``features`` float32 (n, 300),
            ``genres`` (n, G) and ``imdb_ids`` (n,): first those of train, then dev, then test.
    """
    import h5py

    count, labels = sum(demo.counts.values()), len(demo.label_names)
    with atomic_path(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        file.create_dataset("features", (count, 300), dtype="float32")
        # lzf compresses flat pictures well, and takes hardly any time on noise.
        chunk = (min(16, count), *demo.image_shape)
        file.create_dataset("images", (count, *demo.image_shape), dtype="uint8", chunks=chunk, compression="lzf")
        file.create_dataset("genres", (count, labels), dtype="int32")
        file.create_dataset("imdb_ids", (count,), dtype="S16")
        start = 0
        for block in demo.blocks():
            stop = start + len(block["features"])
            for field in FIELDS:
                file[field][start:stop] = block[field]
            start = stop
        file.attrs["split"] = _fuel_split(demo.counts)
        file.attrs["genre_names"] = json.dumps(demo.label_names)
        file["genres"].attrs["target_names"] = json.dumps(demo.label_names)
        file.attrs["description"] = demo.description
        file.attrs["synthetic"] = demo.synthetic


def _fuel_split(counts):
    """The split in the official form: an array with one record per split and field, which has a range of rows."""
    import h5py
    import numpy as np

    form = [("split", "S5"), ("source", "S8"), ("start", "i8"), ("stop", "i8")]
    form += [("indices", h5py.ref_dtype), ("available", "?"), ("comment", "S1")]
    records, start = [], 0
    for split, count in counts.items():
        records += [(split, field, start, start + count, h5py.Reference(), True, ".") for field in FIELDS]
        start += count
    return np.array(records, dtype=form)
