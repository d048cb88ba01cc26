"""Check VQA v2, or other data in its form: questions, annotations, features, and the saved vocabulary."""

import numpy as np

from datasets.checks import Seen, folder_or_file
from datasets.regions.check import check_features
from datasets.text.word_vectors import LINK, ORIGINAL, find_word_vectors
from datasets.vqa.answers import TABLES_FILE, read_tables
from datasets.vqa.dataset import prepare_command
from datasets.vqa.files import (
    ANNOTATORS,
    FEATURE_FOLDERS,
    OFFICIAL_COUNTS,
    QUESTION_FILES,
    VQAFolder,
    find,
    is_official,
)
from util.cli import UserError

SOURCE = "the official files of VQA v2, as in prepare_vqa.py"
FETCH = "fetch both official files of this split again"


def check(report, data, features=None):
    """Check the data in a folder, and add the findings to a `datasets.checks.Report`.

    Args:
        report: The `Report`.
        data: The folder.
        features: Folder of the features, if it is elsewhere; None to find them in ``data``.
    """
    fix = f"put the official files into its annotations/ (docs/data.md) and run `{prepare_command(data)}`"
    path, folder = folder_or_file(report, data, fix), None
    if path is not None:
        with report.catching(path):
            folder = VQAFolder(path)
    if folder is None:
        return
    questions = {}
    for part in QUESTION_FILES:
        if folder.has_questions(part):
            with report.catching(folder.questions_path(part)):
                questions[part] = folder.questions(part)
    official = any(is_official(one.info) for one in questions.values())
    for part, one in questions.items():
        _check_part(report, folder, part, one)
    for name in folder.missing() if official else ():
        # Only one of the three training splits uses Visual Genome.
        severity = "note" if name.startswith("VG_") else "warning"
        text = "the file is missing; published networks use the words of all official files"
        report.add(severity, folder.folder / name, text, "put it there")
    if official:
        check_word_vectors(report)
    _check_splits(report, folder, questions)
    ids = {part: one.image_ids for part, one in questions.items()}
    command = prepare_command(data)
    source = check_features(report, data, ids, command=command, trees=FEATURE_FOLDERS, features=features)
    if source is not None:
        _check_tables(report, source.folder, folder, command)


def check_word_vectors(report):
    """Add a note if there are no word vectors, which the original uses."""
    if find_word_vectors() is None:
        text = "no word vectors: embeddings start at random, those of the published results with GloVe"
        report.add("note", "data/glove", text, f"put {ORIGINAL} there ({LINK})")


def _check_part(report, folder, part, questions):
    """Check one part: number of questions, questions without words, and whether annotations match the questions."""
    count = len(questions.ids)
    expected = OFFICIAL_COUNTS.get(part) if is_official(questions.info) else None
    report.count(part, count, expected, SOURCE if expected else "", FETCH)
    seen, path = Seen(), folder.questions_path(part)
    for number, text in zip(questions.ids.tolist(), questions.texts, strict=True):
        if not text.strip():
            seen.fault("warning", "questions without words", f"question {number}")
    report.faults(path, seen.faults)
    if not folder.has_annotations(part):
        if part != "test":
            report.missing(folder.annotations_path(part), "the annotations are", FETCH)
        return
    path, annotations = folder.annotations_path(part), None
    with report.catching(path):
        annotations = folder.annotations(part)
    if annotations is not None:
        _check_answers(report, path, part, questions, annotations)


def _check_answers(report, path, part, questions, annotations):
    rows = find(questions.ids, annotations.question_ids)
    unknown = annotations.question_ids[rows < 0]
    if len(unknown):
        text = f"{len(unknown):,} annotations match no question of {QUESTION_FILES[part]}, first {unknown[0]}"
        report.add("error", path, text, FETCH)
    lacking = np.setdiff1d(questions.ids, annotations.question_ids)
    if len(lacking):
        # Training leaves such questions out, but val and test have to be scored completely.
        severity = "warning" if part in ("train", "vg") else "error"
        report.add(severity, path, f"{len(lacking):,} questions have no annotation, first {lacking[0]}", FETCH)
    seen = Seen()
    for number, record in zip(annotations.question_ids.tolist(), annotations.records, strict=True):
        if len(record["answers"]) != ANNOTATORS and part != "vg":
            text = f"has {len(record['answers'])} answers, expected {ANNOTATORS}"
            seen.fault("warning", f"questions without {ANNOTATORS} answers", f"question {number}", text)
    images = dict(zip(questions.ids.tolist(), questions.image_ids.tolist(), strict=True))
    for number, record in zip(annotations.question_ids.tolist(), annotations.records, strict=True):
        if record.get("image_id", images.get(number)) != images.get(number, record.get("image_id")):
            seen.fault("error", "annotations of another image than the question", f"question {number}")
    report.faults(path, seen.faults, FETCH)


def _check_splits(report, folder, questions):
    # Visual Genome is not compared, since some of its pictures are those of COCO.
    parts = {part: one for part, one in questions.items() if part != "vg"}
    asked = {part: {number: number for number in one.ids.tolist()} for part, one in parts.items()}
    report.repeats(folder.folder, asked, "questions (by id)", fix=FETCH)
    shown = {part: {number: number for number in one.image_ids.tolist()} for part, one in parts.items()}
    report.repeats(folder.folder, shown, "images (by id)", fix=FETCH)


def _check_tables(report, store, folder, command):
    """Check whether the vocabulary saved with the features was made from these question files."""
    try:
        tables = read_tables(store, folder)
    except UserError as error:
        report.add("error", store / TABLES_FILE, str(error))
        return
    if tables is not None:
        report.about.append(f"vocabulary {len(tables[0]):,} words, {len(tables[1]):,} answers")
    elif (store / TABLES_FILE).is_file():
        text = "was made from other question files and is not used: every start counts words and answers again"
        report.add("warning", store / TABLES_FILE, text, f"run `{command}` again")
