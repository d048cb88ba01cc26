#!/usr/bin/env python
"""Prepare EgoGesture: make the annotation from the official label files, check it, and pack the frames.

    python datasets/prepare_ego.py --dir EgoGesture --labels labels-final-revised1 --out EgoGesture_packed

--dir contains SubjectXX/SceneY/Color/rgbK/000001.jpg, ... and Depth/depthK/000001.jpg, ... Only frames that belong to a
clip are packed, as unchanged JPEG files; where clips overlap, each clip has its own copy. The same command resumes a
run that was interrupted. With the official data it should print: training 14,416 clips, validation 4,768 clips,
testing 4,977 clips.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import OneLineParser, UserError, run_cli

LISTED = 20


def get_args_parser():
    parser = OneLineParser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--dir", required=True, help="folder with SubjectXX/SceneY/Color and Depth")
    data.add_argument(
        "--labels", help="official folder labels-final-revised1: make the annotation from its CSV files and save it"
    )
    data.add_argument(
        "--class_names",
        metavar="FILE",
        help="file of lines `1 name`, `2 name`, ... for --labels (default: the 83 gestures)",
    )
    data.add_argument(
        "--annotation",
        metavar="FILE",
        help="annotation to read, or to make with --labels (default: egogestureall_but_None.json in --dir)",
    )
    data.add_argument(
        "--out", help="folder for the packed frames; give it to training as --datadir (default: only check)"
    )
    work = parser.add_argument_group("work")
    work.add_argument("--workers", type=int, help="processes that read and check (default: all cores)")
    work.add_argument("--skip_invalid", action="store_true", help="leave out clips with missing or broken frames")
    work.add_argument(
        "--verify",
        action="store_true",
        help="check every image of a finished --out against its checksum; without --out decode every frame in --dir",
    )
    return parser


def prepare(
    folder,
    out=None,
    *,
    labels=None,
    class_names=None,
    annotation=None,
    workers=None,
    skip_invalid=False,
    verify=False,
):
    """Make the annotation, check the frames, pack them; see `get_args_parser`.

    Returns:
        dict subset -> number of usable clips.

    Raises:
        UserError: something is missing or faulty, or ``out`` cannot be written.
    """
    # Imported here so that `--help` does not wait for it.
    from datasets.ego.annotation import ANNOTATION_FILE
    from datasets.ego.pack import FAULTS_FILE, finished_store, pack
    from util.processors import usable_processors

    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: must be 1 or more")
    workers = workers or usable_processors()
    folder = Path(folder)
    path = Path(annotation or folder / ANNOTATION_FILE)
    _check_arguments(folder, out, path, class_names, labels)
    faults = _make_annotation(labels, class_names, path, skip_invalid) if labels else []
    if out is None:
        return _check(folder, path, workers, skip_invalid, verify, faults)
    store = finished_store(out, path, skip_invalid)
    if store is None:
        skipped = pack(folder, out, path, workers=workers, skip_invalid=skip_invalid, faults=faults)
        print(f"wrote {out}")
    else:
        skipped = store.known_faults()
        print(f"{out} is finished already")
    _list(skipped, f"all in {Path(out) / FAULTS_FILE}")
    if verify:
        _verify(out)
    return _print_counts(path, skipped)


def _check_arguments(folder, out, path, class_names, labels):
    """Raise an error early if the data are not where they should be."""
    if class_names and not labels:
        raise UserError("--class_names belongs to --labels; leave it out, since an annotation file has its own names")
    if not any(place.is_dir() for place in folder.glob("Subject*")):
        raise UserError(f"--dir {folder} contains no SubjectXX folders; give the folder with the EgoGesture frames")
    if not labels and not path.is_file():
        raise UserError(
            f"no annotation {path}; make it with --labels labels-final-revised1, or name the file with --annotation"
        )
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise UserError(f"--out {out} is a file; give a folder")
    if out is not None and Path(out).resolve() == folder.resolve():
        raise UserError(f"--out {out} is the folder with the frames; give another one")


def _make_annotation(labels, class_names, path, skip_invalid):
    """Write the annotation of the label files; returns the faulty rows."""
    from datasets.ego.annotation import (
        GESTURES,
        annotation_of_labels,
        read_class_names,
        refuse_faults,
        write_annotation,
    )

    names = read_class_names(class_names) if class_names else GESTURES
    clips, faults = annotation_of_labels(labels, names)
    if not skip_invalid:
        refuse_faults(faults, f"--labels {labels}", "fix that, or leave such rows out with --skip_invalid")
    write_annotation(path, names, clips)
    print(f"annotation of {len(clips):,} clips and {len(names):,} classes: {path}")
    return faults


def _check(folder, path, workers, skip_invalid, decode_all, faults):
    """Check annotation and frames without packing them; returns dict subset -> number of usable clips."""
    from datasets.ego.annotation import read_annotation, refuse_faults
    from datasets.ego.frames import FrameFolders
    from datasets.ego.pack import check_clips

    annotation = read_annotation(path)
    faults = [*faults, *annotation.faults, *check_clips(FrameFolders(folder), annotation.clips, workers, decode_all)]
    if not skip_invalid:
        refuse_faults(faults, path, "fix that, or leave such clips out of training with --skip_invalid")
    _list(faults, "pack with --out to get a file that lists all")
    return _print_counts(path, faults)


def _verify(out):
    from datasets.ego.frames import PreparedFrames

    PreparedFrames(out).verify()
    print(f"every image in {out} matches its checksum")


def _list(faults, where):
    """Print the first faults."""
    if faults:
        print("\n  ".join([f"note: left out {len(faults):,} clips:", *map(str, faults[:LISTED])]))
    if len(faults) > LISTED:
        print(f"  and {len(faults) - LISTED:,} more ({where})")


def _print_counts(path, faults):
    """Print how many clips can be used, and how many the official data have; returns dict subset -> usable clips."""
    from datasets.ego.annotation import OFFICIAL_COUNTS, SUBSETS, read_annotation

    left_out = {fault.name for fault in faults}
    annotation = read_annotation(path)
    counts = {subset: sum(clip.name not in left_out for clip in annotation.subset(subset)) for subset in SUBSETS}
    for subset, count in counts.items():
        print(f"{subset} {count:,} clips")
    if counts == OFFICIAL_COUNTS:
        print(f"these are all {sum(counts.values()):,} clips of the official data")
    else:
        official = " / ".join(f"{count:,}" for count in OFFICIAL_COUNTS.values())
        usable, all_clips = sum(counts.values()), sum(OFFICIAL_COUNTS.values())
        print(f"note: {usable:,} clips, the official data have {all_clips:,} ({official})")
    return counts


def main(argv=None):
    args = get_args_parser().parse_args(argv)
    prepare(
        args.dir,
        args.out,
        labels=args.labels,
        class_names=args.class_names,
        annotation=args.annotation,
        workers=args.workers,
        skip_invalid=args.skip_invalid,
        verify=args.verify,
    )


if __name__ == "__main__":
    run_cli(main)
