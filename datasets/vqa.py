"""Visual question answering in the official form of VQA v2: image regions, a question, soft scores of answers."""

from pathlib import Path

import torch

from datasets import vqa_samples
from datasets.region_samples import RegionSamples, cut, find_features, open_features
from datasets.regions import MAX_REGIONS, PADDING
from datasets.vqa_files import FEATURE_FOLDERS, SPLITS, STORE_FOLDER, VQAFolder
from datasets.vqa_tables import load_tables
from util.cli import UserError

MAX_TOKENS = 14


def prepare_command(data):
    """The command that packs the features of ``data``."""
    return f"python datasets/prepare_vqa.py --data {data} --out {Path(data) / STORE_FOLDER}"


def open_vqa(
    data,
    split,
    *,
    vocabulary=None,
    answers=None,
    features=None,
    padding="batch",
    max_regions=MAX_REGIONS,
    max_tokens=MAX_TOKENS,
    small=False,
    part=None,
    skip_missing=False,
    min_answer_count=None,
    feature_size=None,
):
    """Open one split of VQA v2, or of other data in its form.

    Args:
        data: Folder with ``annotations/`` (the official files) and with features, see `find_features`.
        split: ``train``, ``train+val``, ``train+val+vg`` (in the annotations' order), ``val``, ``test`` (questions').
        vocabulary, answers: `Vocabulary` and `AnswerTable` of a checkpoint; None for those of the data.
        features: Folder of other features, a store or ``.npz`` files.
        padding: ``batch`` (as long as the longest of a batch) or ``full``.
        max_regions, max_tokens: Most regions of an image and most words of a question; the first are kept.
        small: Keep only the first 64 questions.
        part: ``("first", f)`` or ``("last", f)``: that share of the split; see `region_samples.cut`.
        skip_missing: Leave out questions about images without features.
        min_answer_count: Least number of occurrences of an answer; None for that of the store, or 9.
        feature_size: The width that features must have; None for any.

    Returns:
        A `VQA` dataset.

    Raises:
        UserError: unknown split or option; missing, damaged or mismatched files; images without features.
    """
    _check_choices(split, padding)
    folder = VQAFolder(data)
    pairs, samples = vqa_samples.read_split(folder, split)
    samples = samples.taken(cut(len(samples.parts), part, small))
    remedy = prepare_command(data)
    place = Path(features) if features else find_features(data, remedy, FEATURE_FOLDERS)
    image_ids = vqa_samples.column(pairs, samples, lambda questions: questions.image_ids)
    wanted = {"feature_size": feature_size, "max_regions": max_regions, "skip_missing": skip_missing}
    source, image_rows, kept = open_features(place, image_ids, remedy=remedy, **wanted)
    samples = samples.taken(kept)
    tables = load_tables(folder, place, vocabulary, answers, min_answer_count)
    options = {"padding": padding, "max_regions": int(max_regions), "max_tokens": int(max_tokens)}
    return VQA(folder, split, (pairs, samples), (source, image_rows), tables, options)


def _check_choices(split, padding):
    for name, value, choices in (("split", split, SPLITS), ("padding", padding, PADDING)):
        if value not in choices:
            raise UserError(f"unknown VQA {name} {value!r}: choose one of {', '.join(choices)}")


class VQA(RegionSamples):
    """One split; see `RegionSamples`.

    Attributes:
        vocabulary, answers: `Vocabulary` and `AnswerTable`.
        num_answers: Number of answer classes A.
        num_questions: Questions in the split's files, also those that were left out.
        question_ids, image_ids: int64 (N,).
        fingerprint: Short hex string that changes with content and options.
        description: What the data are, in words.
        synthetic: Whether they are made up.
    """

    def __init__(self, folder, split, chosen, regions, tables, options):
        (pairs, samples), (source, image_rows), (self.vocabulary, self.answers) = chosen, regions, tables
        tokens = self.vocabulary.encode(vqa_samples.texts_of(pairs, samples), options["max_tokens"])
        super().__init__(split, source, image_rows, tokens, options)
        self._folder, self._samples = folder, samples
        self.question_ids = vqa_samples.column(pairs, samples, lambda questions: questions.ids)
        self.image_ids = vqa_samples.column(pairs, samples, lambda questions: questions.image_ids)
        self._targets = targets = vqa_samples.targets_of(pairs, samples, self.answers)
        self.num_answers = len(self.answers)
        self.num_questions = sum(len(pair.questions.ids) for pair in pairs)
        info = pairs[0].questions.info
        # The first sentence of what the files say of themselves.
        about = str(info.get("description", "VQA v2")).split(". ")[0].rstrip(".")
        self.description = f"{about}; {source.description}"
        self.synthetic = bool(info.get("synthetic", False))
        self.fingerprint = self._digest([self.num_answers], self.question_ids, targets.classes, targets.levels)
        self._identifying = (self._image_rows, self._tokens, self.question_ids, targets.classes, targets.levels)

    def ground_truth(self):
        """The official annotation record of each question: list of N dicts, or None where answers are secret.

        Read from the files anew: only an evaluation needs them.

        Raises:
            UserError: a file is missing or damaged.
        """
        if not self.has_answers:
            return None
        pairs = [vqa_samples.Pair(None, self._folder.annotations(part)) for part in SPLITS[self.split]]
        return vqa_samples.records_of(pairs, self._samples)

    @property
    def has_answers(self):
        """Whether the right answers are known."""
        return bool((self._samples.records >= 0).all())

    def labels(self, rows):
        """Soft scores of the answers, float32 (B, A); zeros where answers are unknown."""
        return torch.from_numpy(self._targets.dense(rows))
