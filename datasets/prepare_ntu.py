#!/usr/bin/env python
"""Prepare NTU RGB+D 60: scale the raw videos, parse the skeletons, and store both for training.

A store of the skeletons and of those frames that training can request (fast; give --out to training as --datadir):

    python datasets/prepare_ntu.py --dir NTU/nturgb+d_rgb --skeletons NTU/nturgb+d_skeletons --out NTU/store

The originals' file tree, one small AVI file per video, in NTU/nturgb+d_rgb_256x256_30 (give NTU as --datadir):

    python datasets/prepare_ntu.py --dir NTU/nturgb+d_rgb

The same command resumes a run that was interrupted.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import OneLineParser, UserError, run_cli

RECORD_FILE = "prepared.json"
SIZES = (16, 1024)


def get_args_parser():
    parser = OneLineParser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--dir", required=True, help="folder of the videos SsssCcccPpppRrrrAaaa_rgb.avi, raw or scaled")
    data.add_argument("--skeletons", help="folder of the files SsssCcccPpppRrrrAaaa.skeleton; --out needs it")
    data.add_argument("--out", help="folder of the store (without it: the originals' tree next to --dir)")
    form = parser.add_argument_group("form of the videos")
    form.add_argument("--size", type=int, default=256, help="pixels of a side, even (default: %(default)s)")
    form.add_argument("--fps", type=int, default=30, help="frames per second (default: %(default)s)")
    form.add_argument("--quality", type=int, default=95, help="JPEG quality in the store (default: %(default)s)")
    form.add_argument(
        "--bodies",
        choices=("first", "motion"),
        default="first",
        help="which bodies --out keeps where there are more than two: the first two of each frame, as the original"
        " does, or the two that move most in the clip (default: %(default)s)",
    )
    form.add_argument("--ffmpeg", help="ffmpeg program that writes the tree (default: the PyAV package)")
    work = parser.add_argument_group("work")
    work.add_argument("--workers", type=int, help="processes (default: one per processor)")
    work.add_argument(
        "--skip_invalid", action="store_true", help="leave out faulty files instead of stopping at the end"
    )
    work.add_argument("--verify", action="store_true", help="only check what an earlier run made")
    return parser


def main(argv=None):
    args = get_args_parser().parse_args(argv)
    # Symbolic links are not resolved, so that the tree of a linked folder is placed next to the link.
    videos = Path(os.path.abspath(args.dir))
    _check(args)
    how = {"size": args.size, "fps": args.fps}
    work = {"workers": args.workers, "skip_invalid": args.skip_invalid}
    if args.verify:
        verify(args.out or tree_folder(videos, **how))
    elif args.out:
        how |= {"quality": args.quality, "bodies": args.bodies}
        prepare_store(videos, args.skeletons, args.out, **how, **work)
    else:
        prepare_tree(videos, ffmpeg=args.ffmpeg, **how, **work)


def _check(args):
    check_form(args.size, args.fps, args.quality, args.workers)
    if args.out and args.ffmpeg:
        raise UserError("--ffmpeg belongs to the originals' tree; leave it out, or leave out --out")
    if args.bodies != "first" and not args.out:
        raise UserError(f"--bodies {args.bodies} belongs to --out: the originals' tree uses official skeleton files")
    if args.out and not args.skeletons and not args.verify:
        raise UserError("--out needs the skeletons as well: give --skeletons DIR")


def check_form(size=256, fps=30, quality=95, workers=None):
    """Raise UserError if a number is out of range; the message names the flag that is called like the argument."""
    if not SIZES[0] <= size <= SIZES[1] or size % 2:
        raise UserError(f"--size {size}: must be an even number from {SIZES[0]} to {SIZES[1]}")
    if not 1 <= quality <= 100:
        raise UserError(f"--quality {quality}: must be 1 to 100")
    if fps < 1:
        raise UserError(f"--fps {fps}: must be 1 or more")
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: must be 1 or more")


def prepare_store(
    videos, skeletons, out, *, size=256, fps=30, quality=95, bodies="first", workers=None, skip_invalid=False
):
    """Write or complete the store in ``out``.

    Args:
        videos, skeletons: Folders of the raw files.
        out: Folder of the store.
        size, fps, quality: Pixels of a side, frames per second and JPEG quality.
        bodies: ``first`` or ``motion``, see `ntu.skeleton.read_skeleton`.
        workers: Number of processes; None for one per processor.
        skip_invalid: Leave out faulty files instead of ending with an error.

    Returns:
        Number of samples in the store.

    Raises:
        UserError: a folder is missing, files are faulty, ``out`` cannot be written, or it was begun with other
            settings.
    """
    from datasets.ntu.sources import Sources
    from datasets.ntu.store import SkeletonWriter
    from datasets.storage.frames import FrameStoreWriter

    sources = Sources(videos, skeletons)
    how = {"size": size, "fps": fps, "quality": quality}
    # Stores that were written before this option existed do not have it in their settings.
    how |= {} if bodies == "first" else {"bodies": bodies}
    request = how | {"files": sources.digest(), "skip_invalid": skip_invalid}
    count = _finished_count(out, request)
    if count is not None:
        print(f"already up to date: {out}\n{count:,} samples")
        return count
    with FrameStoreWriter(out, how) as frames, SkeletonWriter(out) as poses:
        _fill(frames, poses, sources, how, workers)
        sources.check_invalid(out, skip_invalid)
        count = len(frames.done)
        if not count:
            raise UserError(f"{videos} and {skeletons} have no usable sample (see {Path(out) / 'invalid.txt'})")
        meta = _meta(videos, how, request, sources) | {"dropped_bodies": poses.dropped()}
        frames.finish(meta | {"skeleton_sums": poses.finish()})
    print(f"wrote {out}")
    sources.print_counts(count, meta["synthetic"])
    _print_bodies(*meta["dropped_bodies"], bodies)
    return count


def _print_bodies(samples, count, bodies):
    """Print how many bodies were left out, counted in every frame."""
    if samples:
        kept = "the first two of each frame" if bodies == "first" else "the two that move most"
        other = "; --bodies motion keeps the two that move most" if bodies == "first" else ""
        print(
            f"note: {samples:,} sample{'s' * (samples > 1)} with more than two bodies: kept {kept}, left out {count:,}"
            f" bodies, counted per frame{other}"
        )


def _fill(frames, poses, sources, how, workers):
    """Add the samples that the two writers do not have yet."""
    from datasets.ntu.sources import prepare_sample
    from datasets.storage.workers import map_tasks
    from util.processors import usable_processors
    from util.progress import progress

    done = frames.done & poses.done
    tasks = [sources.task(name, **how) for name in sources.ids if name not in done]
    if len(tasks) < len(sources.ids):
        print(f"{len(sources.ids) - len(tasks):,} samples are done already, {len(tasks):,} to go")
    outcomes = map_tasks(prepare_sample, tasks, workers or usable_processors())
    for task, outcome in progress(outcomes, "preparing", total=len(tasks), unit="clip"):
        if not sources.accept(task, outcome):
            continue
        # The skeleton comes first, so that every sample with frames has a skeleton even if the process is killed.
        if task.id not in poses.done:
            poses.add(task.id, outcome.skeleton)
        if task.id not in frames.done:
            frames.add(task.id, *outcome.clip)


def _meta(videos, how, request, sources):
    from datasets.ntu.store import DATASET
    from datasets.ntu.tree import read_about

    about = {"description": DATASET, "synthetic": False} | read_about(Path(videos).parent)
    faults = {"skipped": dict(sorted(sources.invalid.items())), "missing_skeletons": sorted(sources.missing)}
    return {"dataset": DATASET} | about | how | {"request": request} | faults


def _finished_count(out, request):
    """Number of samples of a complete store that was made for the same request, else None."""
    from datasets.ntu.store import StoreSource
    from datasets.storage.frames import META_FILE
    from util.files import read_json

    path = Path(out) / META_FILE
    if not path.is_file():
        return None
    meta = read_json(path)
    if not isinstance(meta, dict) or meta.get("request") != request:
        return None
    return len(StoreSource(out).names)


def tree_folder(videos, size=256, fps=30):
    """Path of the folder of scaled videos, next to the folder of raw ones."""
    return videos.with_name(f"{videos.name}_{size}x{size}_{fps}")


def prepare_tree(videos, *, size=256, fps=30, workers=None, skip_invalid=False, ffmpeg=None):
    """Write one scaled AVI file per raw video into `tree_folder`; existing files are kept.

    Args:
        videos: Folder of the raw videos.
        size, fps: Pixels of a side and frames per second.
        workers: Number of processes; None for one per processor.
        skip_invalid: Leave out faulty files instead of ending with an error.
        ffmpeg: Program to use in place of PyAV.

    Returns:
        dict id -> number of frames.

    Raises:
        UserError: the folder is missing, files are faulty, or the tree cannot be written.
    """
    import shutil

    from datasets.ntu.names import VIDEO_ENDING
    from datasets.ntu.sources import Sources, prepare_avi
    from datasets.storage.workers import map_tasks
    from util.files import write_json
    from util.processors import usable_processors
    from util.progress import progress

    if ffmpeg and not shutil.which(ffmpeg):
        raise UserError(f"--ffmpeg {ffmpeg} is not a program; give its path, or leave it out to use PyAV")
    sources, target = Sources(videos), tree_folder(videos, size, fps)
    lengths = _existing_lengths(target, sources.ids)
    how = {"size": size, "fps": fps, "ffmpeg": ffmpeg or ""}
    files = {name: str(target / f"{name}{VIDEO_ENDING}") for name in sources.ids if name not in lengths}
    tasks = [sources.task(name, target=path, **how) for name, path in files.items()]
    if lengths:
        print(f"{len(lengths):,} videos are done already, {len(tasks):,} to go")
    outcomes = map_tasks(prepare_avi, tasks, workers or usable_processors())
    for task, outcome in progress(outcomes, "scaling", total=len(tasks), unit="clip"):
        if sources.accept(task, outcome):
            lengths[task.id] = outcome.clip
    write_json(target / RECORD_FILE, {"frames": dict(sorted(lengths.items())), "invalid": sources.invalid})
    sources.check_invalid(target, skip_invalid)
    print(f"wrote {target}")
    sources.print_counts(len(lengths))
    return lengths


def _existing_lengths(target, ids):
    """dict id -> number of frames of the complete AVI files; removes temporary files that a killed run left."""
    from datasets.ntu.names import VIDEO_ENDING, BadSample
    from datasets.ntu.video import avi_length

    if not target.is_dir():
        return {}
    present = {path.name for path in target.iterdir()}
    for name in present:
        if name.startswith(".S") and f"{VIDEO_ENDING}." in name:
            (target / name).unlink()
    known, lengths = _recorded_lengths(target) if RECORD_FILE in present else {}, {}
    for name in ids:
        if f"{name}{VIDEO_ENDING}" not in present:
            continue
        try:
            lengths[name] = known.get(name) or avi_length(target / f"{name}{VIDEO_ENDING}")
        except BadSample:
            # A damaged file is not listed, so it is written again.
            continue
    return lengths


def _recorded_lengths(folder):
    """dict id -> number of frames, as recorded by an earlier run."""
    from util.files import read_json

    path = folder / RECORD_FILE
    record = read_json(path)
    lengths = record.get("frames") if isinstance(record, dict) else None
    if not isinstance(lengths, dict) or not all(type(length) is int and length > 0 for length in lengths.values()):
        raise UserError(f"{path} does not contain the numbers of frames; delete it and run the command again")
    return lengths


def verify(folder):
    """Check a finished store byte by byte, or that every AVI file of a tree opens with its number of frames.

    Raises:
        UserError: something is damaged or unfinished; the message names it.
    """
    from datasets.ntu.names import VIDEO_ENDING, BadSample
    from datasets.ntu.scaling import whole_avi_length
    from datasets.ntu.store import StoreSource
    from datasets.storage.frames import META_FILE
    from util.progress import progress

    folder = Path(folder)
    if not (folder / RECORD_FILE).is_file():
        if not (folder / META_FILE).is_file():
            raise UserError(f"{folder} contains nothing finished to verify; run the command without --verify first")
        count = StoreSource(folder).verify()
    else:
        lengths = _recorded_lengths(folder)
        for name, length in progress(lengths.items(), "checking", unit="clip"):
            path = folder / f"{name}{VIDEO_ENDING}"
            try:
                actual = whole_avi_length(path)
            except BadSample as reason:
                raise UserError(f"{path} {reason}; delete it and run the command without --verify") from None
            if actual != length:
                raise UserError(f"{path} has {actual} frames, not {length}; delete it and run without --verify")
        count = len(lengths)
    print(f"{folder}: {count:,} samples are intact")


if __name__ == "__main__":
    run_cli(main)
