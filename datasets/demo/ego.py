"""Small EgoGesture-like data in the official form: synthetic hands, folders of frames and label files."""

from functools import partial
from pathlib import Path

from util.cli import UserError, quoted
from util.files import read_json, write_fault, write_json, write_text

HELP = "synthetic colour and depth frames of gestures, in the folders of EgoGesture"
CLIPS_PER_SUBJECT = 10
CLIPS_PER_VIDEO = 5
SIZE = (48, 36)
MIN_SIDE = 16
JPEG_QUALITY = 90
# A generous estimate: small files take complete blocks of the disk, and everything is stored twice.
BYTES_PER_FRAME = 12_000
FRAMES_PER_CLIP = 80
DESCRIPTION = "synthetic hands in synthetic rooms, generated; not EgoGesture"


def add_arguments(parser):
    """Add the flags of ``make_demo.py ego``."""
    what = parser.add_argument_group("what to make")
    what.add_argument("--out", required=True, help="folder for raw/, labels-final-revised1/ and the prepared dataset/")
    size = parser.add_argument_group("size")
    size.add_argument(
        "--clips_per_subject",
        type=int,
        default=CLIPS_PER_SUBJECT,
        help="clips of each of the 50 subjects: 30 training, 10 validation, 10 testing (default: %(default)s)",
    )
    size.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("W", "H"),
        default=SIZE,
        help="width and height of the frames in pixels (default: 48 36; the official ones have 320 240)",
    )
    size.add_argument("--seed", type=int, default=0, help="seed of every choice (default: %(default)s)")
    size.add_argument("--workers", type=int, help="number of processes (default: all cores)")


def make(args):
    """Write ``<out>/raw`` and ``<out>/labels-final-revised1``, and prepare ``<out>/dataset``.

    Raises:
        UserError: a number is out of range, the folder contains other data, or it cannot be written.
    """
    # Imported here so that `--help` does not wait for it.
    from datasets.demo.ego_gestures import GESTURES
    from datasets.prepare_ego import prepare
    from util.processors import usable_processors

    settings = _settings(args)
    out, workers = Path(args.out), args.workers or usable_processors()
    raw, labels, class_names = out / "raw", out / "labels-final-revised1", out / "class_names.txt"
    about = {"description": DESCRIPTION, "synthetic": True, "settings": settings}
    if not _is_complete(raw, about):
        _check_room(out, settings)
        write_json(raw / "about.json", about)
        write_text(class_names, "".join(f"{number} {name}\n" for number, name in enumerate(GESTURES, 1)))
        clips = _write_subjects(raw, labels, settings, workers)
        write_json(raw / "about.json", about | {"complete": True})
        print(f"wrote {raw}: {DESCRIPTION} ({clips:,} clips, {len(GESTURES)} gestures)")
    folder = out / "dataset"
    prepare(raw, folder, labels=labels, class_names=class_names, workers=workers)
    flags = f"--datadir {quoted(folder)} --num_outputs {len(GESTURES)} --sample_size 32 --backbone_weights random"
    print(f"next: python main_darts_searchable_ego.py {flags}")


def _settings(args):
    """Check the flags; returns a dict of everything that the frames depend on."""
    if args.clips_per_subject < 1:
        raise UserError(f"--clips_per_subject {args.clips_per_subject}: must be 1 or more")
    if min(args.size) < MIN_SIDE:
        raise UserError(f"--size {args.size[0]} {args.size[1]}: both must be {MIN_SIDE} or more")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: must be 0 or more")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers}: must be 1 or more")
    return {"clips_per_subject": args.clips_per_subject, "size": list(args.size), "seed": args.seed}


def _is_complete(raw, about):
    """Whether all frames already exist; raises UserError about other data, which are never replaced."""
    if not raw.exists():
        return False
    existing = read_json(raw / "about.json") if (raw / "about.json").is_file() else None
    existing = existing if isinstance(existing, dict) else {}
    complete = existing.pop("complete", False)
    if existing != about:
        what = "a demo with other sizes or another seed" if "settings" in existing else "not a demo"
        raise UserError(f"{raw} exists and is {what}; it is not replaced: choose another --out, or delete it")
    return complete


def _check_room(out, settings):
    import shutil

    width, height = settings["size"]
    frames = 50 * settings["clips_per_subject"] * FRAMES_PER_CLIP
    needed = frames * max(BYTES_PER_FRAME, width * height)
    folder = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    if needed > shutil.disk_usage(folder).free:
        raise UserError(f"about {needed:,} bytes of frames do not fit on the disk of {out}; give a smaller size")


def _write_subjects(raw, labels, settings, workers):
    """Write the frames and label files of all subjects; returns the number of clips."""
    from datasets.ego.annotation import SUBJECTS
    from datasets.storage.workers import map_tasks
    from util.progress import progress

    # Subjects are numbered within their subset, so that every subset has each gesture equally often.
    tasks = [(subject, number) for subjects in SUBJECTS.values() for number, subject in enumerate(subjects)]
    results = map_tasks(partial(write_subject, raw, labels, settings), tasks, workers)
    counts = [count for _, count in progress(results, "drawing frames", total=len(tasks), unit="subject")]
    if None in counts:
        raise UserError(f"a process drawing frames for {raw} was killed: run the same command with fewer --workers")
    return sum(counts)


def write_subject(raw, labels, settings, task):
    """Write all videos of one subject, and their label files.

    Args:
        raw: Folder of ``SubjectXX``.
        labels: Folder of ``subjectXX``.
        settings: dict of clips_per_subject, size and seed.
        task: (number of the subject, its position among the subjects of its subset).

    Returns:
        Number of clips.
    """
    import numpy as np

    from datasets.demo.ego_gestures import GESTURES, Person, draw_video

    subject, place = task
    rng, count = np.random.default_rng([settings["seed"], subject]), settings["clips_per_subject"]
    person = Person(rng, settings["size"])
    gestures = rng.permutation((place * count + np.arange(count)) % len(GESTURES)).tolist()
    for video, start in enumerate(range(0, count, CLIPS_PER_VIDEO)):
        scene, number = f"Scene{video // 2 + 1}", video % 2 + 1
        clips, rows = draw_video(rng, person, gestures[start : start + CLIPS_PER_VIDEO])
        _write_frames(raw / f"Subject{subject:02d}" / scene, number, clips)
        text = "".join(f"{gesture},{first},{last}\n" for gesture, first, last in rows)
        write_text(labels / f"subject{subject:02d}" / scene / f"Group{number}.csv", text)
    return count


def _write_frames(scene, number, clips):
    """Write the frames of one video as JPEG files, numbered from 1."""
    from PIL import Image

    folders = scene / "Color" / f"rgb{number}", scene / "Depth" / f"depth{number}"
    frame = 0
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for clip in clips:
            for images in zip(*clip, strict=True):
                frame += 1
                for folder, image in zip(folders, images, strict=True):
                    Image.fromarray(image).save(folder / f"{frame:06d}.jpg", quality=JPEG_QUALITY)
    except OSError as error:
        raise UserError(f"cannot write {scene}: {write_fault(error, 'choose another --out')}") from error
