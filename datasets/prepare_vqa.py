#!/usr/bin/env python
"""Prepare VQA v2: check the official files, pack the region features into one store, and build the vocabulary.

    python datasets/prepare_vqa.py --data data/vqa --out data/vqa/store

This reads data/vqa/annotations/v2_*.json and the features data/vqa/bua-r101-max100/{train2014,val2014,test2015}/*.npz
(or those in --features DIR, which may also contain the .tsv files of bottom-up attention or LXMERT, or .pth files of
grid features). With the official files it should print: train 443,757 questions, val 214,354 questions, test 447,793
questions. Training finds a store in data/vqa/store by itself.

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
    data.add_argument("--data", required=True, help="folder with annotations/ and normally the features")
    data.add_argument(
        "--features",
        help="folder of .npz, .tsv or .pth files, or a .tsv file (default: bua-r101-max100 or features in --data)",
    )
    data.add_argument("--out", help="folder of the store (default: store in --data)")
    data.add_argument(
        "--visual_genome",
        help="folder of VG_questions.json and VG_annotations.json, which are copied into annotations/"
        " (for the split train+val+vg)",
    )
    data.add_argument(
        "--min_answer_count",
        type=int,
        default=9,
        help="minimum number of occurrences of an answer in train and val (default: %(default)s, as in the original)",
    )
    work = add_packing_flags(parser)
    work.add_argument("--verify", action="store_true", help="only check what an earlier run made")
    return parser


def main(argv=None):
    args = get_args_parser().parse_args(argv)
    if args.min_answer_count < 1:
        raise UserError(f"--min_answer_count {args.min_answer_count}: must be 1 or more")
    options = packing_options(args)
    out = args.out or Path(args.data) / "store"
    if args.verify:
        verify(out)
        return
    prepare(
        args.data,
        out,
        features=args.features,
        visual_genome=args.visual_genome,
        min_answer_count=args.min_answer_count,
        **options,
    )


def prepare(
    data,
    out,
    *,
    features=None,
    visual_genome=None,
    min_answer_count=9,
    dtype="float16",
    workers=None,
    skip_invalid=False,
):
    """Check the official files in ``data``, pack the features into ``out``, build vocabulary and answer table.

    Args:
        data: Folder with ``annotations/``.
        out: Folder of the store.
        features: Folder of the features, see `regions.packing.pack_regions`; None to find it in ``data``.
        visual_genome: Folder of the two Visual Genome files to copy into ``annotations/``, or None.
        min_answer_count: Minimum number of occurrences of an answer in train and val.
        dtype: dtype of the packed features, ``float16`` or ``float32``.
        workers: Number of processes; None for one per processor.
        skip_invalid: Leave out faulty files instead of ending with an error.

    Returns:
        Number of images in the store.

    Raises:
        UserError: files are missing, faulty or do not fit together, or ``out`` cannot be written.
    """
    from datasets.regions.packing import pack_regions
    from datasets.vqa.answers import build_answers, build_vocabulary, write_tables
    from datasets.vqa.files import VQAFolder

    if visual_genome:
        _copy_visual_genome(Path(visual_genome), Path(data))
    folder = VQAFolder(data)
    tree = Path(features) if features else _find_tree(data)
    image_ids = _check_questions(folder)
    vocabulary, answers = build_vocabulary(folder), build_answers(folder, min_answer_count)
    print(f"vocabulary {len(vocabulary):,} words, {len(answers):,} answers")
    remedy = f"python datasets/prepare_vqa.py --data {quoted(data)} --features {quoted(tree)} --out {quoted(out)}"
    store = pack_regions(tree, out, remedy=remedy, dtype=dtype, workers=workers, skip_invalid=skip_invalid)
    write_tables(out, folder, vocabulary, answers, min_answer_count)
    _print_regions(store, image_ids)
    return len(store.ids)


def _find_tree(data):
    from datasets.vqa.files import FEATURE_FOLDERS

    for name in FEATURE_FOLDERS:
        if (Path(data) / name).is_dir():
            return Path(data) / name
    raise UserError(
        f"{data} has no {' or '.join(FEATURE_FOLDERS)}: give --features DIR, the folder of the features (.npz, .tsv or"
        " .pth files, or folders of them); from raw images: `python datasets/extract_features.py --help`"
    )


def _copy_visual_genome(source, data):
    """Copy the two Visual Genome files into ``annotations/``, each atomically; raises UserError if one is missing."""
    import shutil

    from datasets.vqa.files import ANNOTATION_FILES, ANNOTATION_FOLDER, QUESTION_FILES
    from util.files import atomic_path

    for name in (QUESTION_FILES["vg"], ANNOTATION_FILES["vg"]):
        path, target = source / name, data / ANNOTATION_FOLDER / name
        if not path.is_file():
            raise UserError(f"--visual_genome {source} has no {name}; give the folder of both Visual Genome files")
        if not target.exists() or not target.samefile(path):
            with atomic_path(target) as temporary:
                shutil.copyfile(path, temporary)
            print(f"copied {path} to {target}")


def _check_questions(folder):
    """Check every official file and print the number of its questions; returns dict part -> image ids of questions."""
    from datasets.vqa.files import OFFICIAL_COUNTS, QUESTION_FILES, is_official, match_annotations

    image_ids, official = {}, False
    for part in QUESTION_FILES:
        if not folder.has_questions(part):
            continue
        questions = folder.questions(part)
        image_ids[part], count = questions.image_ids, len(questions.ids)
        answered, differs = "", ""
        if part in ("train", "val") and not folder.has_annotations(part):
            raise UserError(
                f"{folder.annotations_path(part)} is missing: the possible answers come from it; put the "
                "official file there"
            )
        if folder.has_annotations(part):
            annotations = folder.annotations(part)
            paths = folder.questions_path(part), folder.annotations_path(part)
            match_annotations(questions, annotations, *paths)
            answered = f", {len(annotations.question_ids):,} with answers"
        if is_official(questions.info):
            official = True
            expected = OFFICIAL_COUNTS.get(part, count)
            differs = "" if expected == count else f" (the official VQA v2 has {expected:,})"
        print(f"{part} {count:,} questions{answered}{differs}")
    for name in folder.missing() if official else ():
        print(f"note: {folder.folder / name} is missing; published networks use the words of all official files")
    return image_ids


def _print_regions(store, image_ids):
    """Print how many regions the images have, and how many images of each part have no features."""
    import numpy as np

    from datasets.regions.reading import rows_of

    counts = store.counts()
    print(
        f"{len(counts):,} images with {counts.min()} to {counts.max()} regions (mean {counts.mean():.1f}) of width"
        f" {store.feature_size}"
    )
    for part, ids in image_ids.items():
        images = np.unique(ids)
        absent = images[rows_of(store, images) < 0]
        if len(absent):
            print(f"note: {part}: {len(absent):,} of {len(images):,} images have no features, first {absent[0]}")


def verify(out):
    """Check a finished store byte by byte.

    Raises:
        UserError: something is damaged or unfinished; the message names it.
    """
    from datasets.regions.store import RegionStore

    store = RegionStore(out, "python datasets/prepare_vqa.py --data data/vqa --out STORE")
    store.verify()
    print(f"{out}: {len(store.ids):,} images are intact")


if __name__ == "__main__":
    run_cli(main)
