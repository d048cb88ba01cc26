#!/usr/bin/env python
"""Make region features of raw images: one .npz file per image, in the form of the published bottom-up features.

Photographs, with the networks and weights of torchvision (a GPU helps much):

    python datasets/extract_features.py --images data/vqa/images --out data/vqa/features --backbone fasterrcnn
    python datasets/extract_features.py --images data/vqa/images --out data/vqa/features --backbone resnet101-grid

Drawn objects on a plain background, without any network:

    python datasets/extract_features.py --images data/easy_vqa/images --out data/easy_vqa/features --backbone pixels

--from_tsv converts published features to .npz files of the same form: TSV files of bottom-up attention or LXMERT, or a
folder of .pth files of grid features. The prepare scripts can also read such files without conversion:

    python datasets/extract_features.py --from_tsv trainval_36/*.tsv --out data/vqa/features

The subfolders of --images are kept in --out. The same command resumes a run that was interrupted.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import OneLineParser, UserError, run_cli

META_FILE = "meta.json"
BACKBONES = ("resnet101-grid", "fasterrcnn", "pixels")
# Below this number of images, starting processes takes longer than it saves.
MIN_PARALLEL = 256


def get_args_parser():
    parser = OneLineParser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--images", help="folder of the images, with or without subfolders; links are followed")
    data.add_argument(
        "--from_tsv", nargs="+", metavar="PATH", help="convert .tsv files, or folders of .tsv or .pth files, instead"
    )
    data.add_argument("--out", required=True, help="folder of the features: NAME.jpg.npz for every NAME.jpg")
    regions = parser.add_argument_group("regions")
    regions.add_argument(
        "--backbone",
        choices=BACKBONES,
        help="what a region is: a cell of a grid, a box of a detector, or, for drawn pictures, the pixels of a"
        " connected foreground part",
    )
    regions.add_argument("--grid", type=int, help="resnet101-grid: cells along each side (default: 7)")
    regions.add_argument("--boxes", type=int, help="fasterrcnn, pixels: maximum regions per image (default: 100)")
    regions.add_argument("--feature_size", type=int, help="pixels: numbers per region (default: 512)")
    regions.add_argument(
        "--short_side", type=int, help="pixels of the resized image's shorter side (default: grid 448, fasterrcnn 600)"
    )
    weights = parser.add_argument_group("weights (default: torchvision's cache or a download)")
    weights.add_argument("--weights", help="torchvision's ResNet-101 state dict, or `random` (for tests)")
    weights.add_argument("--detector_weights", help="torchvision's Faster R-CNN state dict, or `random` (for tests)")
    work = parser.add_argument_group("work")
    work.add_argument("--device", help="device of the networks: auto (default), cpu, cuda or cuda:N")
    work.add_argument("--batch_size", type=int, help="images that go through a network together (default: 8)")
    work.add_argument("--workers", type=int, help="processes that read images (default: one per processor)")
    work.add_argument("--skip_invalid", action="store_true", help="leave out unreadable images instead of stopping")
    return parser


def main(argv=None):
    args = get_args_parser().parse_args(argv)
    check_workers(args.workers)
    if args.from_tsv:
        _convert(args)
        return
    if not args.images or not args.backbone:
        raise UserError("give --images DIR and --backbone NAME, or --from_tsv FILE to convert published features")
    from datasets.regions.extractors import accepted, build_extractor
    from datasets.regions.files import list_images

    # Only for its errors: a wrong folder should be reported before weights are downloaded.
    list_images(args.images)
    settings = ("grid", "boxes", "feature_size", "short_side", "weights", "detector_weights", "device", "batch_size")
    given = {name: getattr(args, name) for name in settings}
    if "device" in accepted(args.backbone):
        given["device"] = args.device or "auto"
    extractor = build_extractor(args.backbone, **given)
    extract(args.images, args.out, extractor, workers=args.workers, skip_invalid=args.skip_invalid)


def _convert(args):
    from datasets.regions.packing import convert

    ours = ("from_tsv", "out", "workers", "skip_invalid")
    for name in (name for name, value in vars(args).items() if value is not None and name not in ours):
        raise UserError(f"--{name} belongs to --images; leave it out, or leave out --from_tsv")
    convert(args.from_tsv, args.out, skip_invalid=args.skip_invalid)


def check_workers(workers):
    """Raise UserError if ``--workers`` is out of range."""
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: must be 1 or more")


def extract(images, out, extractor, *, workers=None, skip_invalid=False):
    """Write or complete the features of a folder of images.

    Args:
        images: Folder of the images.
        out: Folder of the features (see `datasets.regions.files.write_regions`) and of meta.json.
        extractor: What makes regions of an image; see `datasets.regions.extractors`.
        workers: Number of processes that read; None for one per processor.
        skip_invalid: Leave out unreadable images instead of ending with an error.

    Returns:
        dict: the content of meta.json.

    Raises:
        UserError: there are no images, some cannot be read, ``out`` cannot be written, or it was made with other
            settings.
    """
    from datasets.regions.files import ENDING, list_images, stored_shape, write_regions
    from datasets.storage.invalid import report_invalid
    from util.progress import progress

    images, out = Path(images), Path(out)
    names = list_images(images)
    meta = _begin(out, extractor)
    counts = {}
    for name in progress(names, "checking", unit="image"):
        shape = _fresh_shape(images / name, out / f"{name}{ENDING}", stored_shape)
        if shape and shape[1] == extractor.feature_size:
            counts[name] = shape[0]
    remaining = [name for name in names if name not in counts]
    if counts:
        print(f"{len(counts):,} images are done already, {len(remaining):,} to go")
    invalid = {}
    work = _regions(images, remaining, extractor, workers, invalid)
    for name, x, boxes, size in progress(work, "extracting", total=len(remaining), unit="image"):
        write_regions(out / f"{name}{ENDING}", x, boxes, *size)
        counts[name] = len(x)
    report_invalid(out, invalid, skip_invalid, kinds=("image", "images"), done="extracted", root=images)
    return _finish(out, meta, counts, invalid)


def _begin(out, extractor):
    """Write a preliminary meta.json, and remove what killed runs left; returns the content of meta.json.

    Raises:
        UserError: the folder contains features that were made with other settings.
    """
    from datasets.regions.files import ENDING
    from util.files import read_json, write_json
    from util.trees import list_files

    path = out / META_FILE
    present = [out / name for name in (list_files(out) if out.is_dir() else ()) if ENDING in name.rsplit("/", 1)[-1]]
    if path.exists():
        meta = read_json(path)
        if _making(meta.get("extractor") if isinstance(meta, dict) else None) != _making(extractor.settings):
            raise UserError(f"{out} holds features made with other settings ({path}); choose another --out")
    elif present:
        raise UserError(f"{out} holds {ENDING} files but no {META_FILE}; choose another --out")
    for left in present:
        if left.name.startswith("."):
            left.unlink()
    meta = {"extractor": extractor.settings, "feature_size": extractor.feature_size, "versions": _versions()}
    write_json(path, meta | {"complete": False})
    return meta


def _making(settings):
    """The settings that determine the features: they include the digest of the weights, but not their path."""
    if not isinstance(settings, dict):
        return None
    return {name: value for name, value in settings.items() if name not in ("weights", "detector_weights")}


def _versions():
    import importlib.metadata
    import platform

    names = ("numpy", "pillow", "opencv-python-headless", "opencv-python", "torch", "torchvision")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _fresh_shape(image, features, stored_shape):
    """Shape (n, D) of the features in a complete file that is not older than its image, else None."""
    try:
        fresh = features.stat().st_mtime_ns >= image.stat().st_mtime_ns
    except OSError:
        return None
    return stored_shape(features) if fresh else None


def _regions(images, names, extractor, workers, invalid):
    """Yield (name, features, boxes, (height, width)) of the readable images; the others go into ``invalid``."""
    from datasets.storage.workers import map_tasks
    from util.processors import usable_processors

    workers = workers or (usable_processors() if len(names) >= MIN_PARALLEL else 1)
    tasks = ((str(images / name), name, extractor.prepare) for name in names)
    waiting = []
    for (_, name, _), outcome in map_tasks(_read, tasks, workers):
        if outcome is None:
            invalid[name] = "crashes the process that reads it (faulty decoder or out of memory)"
        elif isinstance(outcome, str):
            invalid[name] = outcome
        else:
            waiting.append((name, *outcome))
        if len(waiting) == extractor.window:
            yield from _finished(waiting, extractor)
            waiting = []
    yield from _finished(waiting, extractor)


def _read(task):
    """The prepared image and its (height, width), or the reason why it cannot be read."""
    from datasets.regions.files import read_image
    from datasets.storage.pictures import BadImage

    path, _, prepare = task
    try:
        image = read_image(path)
    except BadImage as reason:
        return str(reason)
    return prepare(image), image.shape[:2]


def _finished(waiting, extractor):
    regions = extractor.finish([item for _, item, _ in waiting])
    for (name, _, size), (x, boxes) in zip(waiting, regions, strict=True):
        yield name, x, boxes, size


def _finish(out, meta, counts, invalid):
    """Write the final meta.json, and print a summary."""
    from datasets.storage.invalid import INVALID_FILE
    from util.files import write_json

    if not counts:
        raise UserError(f"none of the images can be read (see {out / INVALID_FILE})")
    numbers = counts.values()
    meta |= {"images": len(counts), "regions": sum(numbers), "regions_per_image": [min(numbers), max(numbers)]}
    meta |= {"skipped": dict(sorted(invalid.items())), "complete": True}
    write_json(out / META_FILE, meta)
    regions = f"{meta['regions']:,} regions of {meta['feature_size']:,} numbers each"
    print(f"wrote {out}: {len(counts):,} images, {regions} ({min(numbers)} to {max(numbers)} per image)")
    if "random" in meta["extractor"].values():
        print("note: made with random weights: only useful for smoke tests")
    return meta


if __name__ == "__main__":
    run_cli(main)
