"""Synthetic NTU-like data in the official file formats: half of the actions show in the skeleton, half in the video."""

from pathlib import Path
from typing import NamedTuple

from util.cli import UserError, quoted
from util.files import atomic_path, write_json, write_text

HELP = "videos and skeletons of eight synthetic actions in the file formats of NTU RGB+D"
SUBJECTS = 40
# Subject 3 is the first test subject, so that with fewer subjects a split would be empty.
MIN_SUBJECTS = 3
REPETITIONS = 2
SIZE = 32
RAW_SIZE = (96, 54)
BIT_RATE = 2_000_000
SECOND_PERSON_SHARE = 0.2


def add_arguments(parser):
    """Add the flags of ``make_demo.py ntu``."""
    what = parser.add_argument_group("what to make")
    what.add_argument("--out", required=True, help="folder for the official files and the prepared dataset/")
    what.add_argument("--seed", type=int, default=0, help="seed of every choice (default: %(default)s)")
    size = parser.add_argument_group("size")
    size.add_argument("--subjects", type=int, default=SUBJECTS, help="persons, 3 to 40 (default: %(default)s)")
    size.add_argument(
        "--repetitions",
        type=int,
        default=REPETITIONS,
        help="clips of every person and action (default: %(default)s)",
    )
    size.add_argument("--size", type=int, default=SIZE, help="pixels of a side in dataset/ (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="processes (default: one per processor)")


class Clip(NamedTuple):
    """One clip to make: its id, its class, and everything else that determines the random draws."""

    id: str
    subject: int
    action: int
    repetition: int
    seed: int
    folder: str


def make(args):
    """Write ``<out>/nturgb+d_rgb`` and ``<out>/nturgb+d_skeletons``, and prepare ``<out>/dataset``.

    Raises:
        UserError: a number is out of range, the folder contains other data, or it cannot be written.
    """
    from datasets.demo.ntu_clips import CLASSES
    from datasets.prepare_ntu import check_form, prepare_store
    from datasets.storage.workers import map_tasks
    from util.processors import usable_processors
    from util.progress import progress

    _check(args)
    check_form(size=args.size, workers=args.workers)
    out = Path(args.out)
    videos, skeletons = out / "nturgb+d_rgb", out / "nturgb+d_skeletons"
    description = f"synthetic stick figures and shapes, {args.subjects} persons x 8 actions x {args.repetitions}"
    about = {"description": f"{description}, seed {args.seed}", "synthetic": True, "label_names": list(CLASSES)}
    _keep_about(out, about)
    clips = list_clips(args.subjects, args.repetitions, args.seed, out)
    workers = args.workers or usable_processors()
    todo = [clip for clip in clips if not all(path.exists() for path in _paths(clip))]
    for clip, done in progress(map_tasks(write_clip, todo, workers), "making clips", total=len(todo), unit="clip"):
        if done is None:
            raise UserError(f"the process that made {clip.id} died, perhaps out of memory: give fewer --workers")
    print(f"wrote {videos} and {skeletons}: {about['description']} ({len(clips):,} clips)")
    prepare_store(videos, skeletons, out / "dataset", size=args.size, workers=workers)
    flags = f"--datadir {quoted(out / 'dataset')} --num_outputs {len(CLASSES)} --backbone_weights random"
    print(f"next: python main_darts_searchable_ntu.py {flags}")


def _check(args):
    if not MIN_SUBJECTS <= args.subjects <= SUBJECTS:
        raise UserError(f"--subjects {args.subjects}: must be {MIN_SUBJECTS} to {SUBJECTS}, so that no split is empty")
    if not 1 <= args.repetitions <= 999:
        raise UserError(f"--repetitions {args.repetitions}: must be 1 to 999")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: must be 0 or more")


def _keep_about(out, about):
    """Record what the folder contains; raises UserError if it already contains something else."""
    from datasets.ntu.tree import ABOUT_FILE, read_about

    if (out / ABOUT_FILE).is_file():
        old = read_about(out)
        if old != about:
            raise UserError(
                f"{out} contains {old.get('description')!r}, not {about['description']!r}: choose another --out"
            )
    elif any((out / name).exists() for name in ("nturgb+d_rgb", "nturgb+d_skeletons", "dataset")):
        raise UserError(f"{out} contains NTU data that are not a demo; they are not replaced: choose another --out")
    else:
        write_json(out / ABOUT_FILE, about)


def list_clips(subjects, repetitions, seed, folder):
    """List of every `Clip` to make; each of the official subjects is in one setup and seen by one camera."""
    from datasets.demo.ntu_clips import CLASSES
    from datasets.ntu.names import SampleName

    return [
        Clip(
            SampleName(1 + (subject - 1) // 5, 1 + subject % 3, subject, repetition, action).id,
            *(subject, action, repetition, seed, str(folder)),
        )
        for subject in range(1, subjects + 1)
        for repetition in range(1, repetitions + 1)
        for action in range(1, len(CLASSES) + 1)
    ]


def _paths(clip):
    folder = Path(clip.folder)
    return folder / "nturgb+d_rgb" / f"{clip.id}_rgb.avi", folder / "nturgb+d_skeletons" / f"{clip.id}.skeleton"


def write_clip(clip):
    """Write the video and the skeleton file of a `Clip`; their content depends on the clip's numbers alone.

    A sample in the official list of missing skeletons has a skeleton file without frames, as in the real data.

    Returns:
        The id of the clip.
    """
    import numpy as np

    from datasets.demo import ntu_clips as scenes
    from datasets.ntu.names import missing_skeletons

    subject = scenes.draw_subject(np.random.default_rng([clip.seed, clip.subject]))
    draw = np.random.default_rng([clip.seed, clip.subject, clip.action, clip.repetition])
    length = int(draw.integers(scenes.LENGTHS[0], scenes.LENGTHS[1] + 1))
    action, company = clip.action - 1, draw.random() < SECOND_PERSON_SHARE
    figure = scenes.figure(action, length, subject, draw)
    persons = [[joints] for joints in figure]
    if company:
        # The other person is present for a part of the time.
        other = scenes.figure(len(scenes.CLASSES), length, scenes.draw_subject(draw), draw)
        for frame in range(int(draw.integers(0, length // 2)), length):
            persons[frame].append(other[frame])
    pictures = scenes.scene(action, length, *RAW_SIZE, subject, draw, extra=company)
    video, skeleton = _paths(clip)
    with atomic_path(video) as temporary:
        _write_video(temporary, pictures)
    write_text(skeleton, "0\n" if clip.id in missing_skeletons() else scenes.skeleton_text(persons))
    return clip.id


def _write_video(path, pictures):
    """Write RGB pictures, uint8 (T, H, W, 3), as an AVI file like the raw ones, at 30 frames per second."""
    import av

    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = BIT_RATE
        stream.codec_context.thread_count = 1
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
