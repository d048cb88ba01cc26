"""The VQA data set: splits, order, batches by definition, tables, and one clear line for every fault."""

import math
import pickle
import shutil

import numpy as np
import pytest
import torch

from datasets.regions import open_regions, read_batch, rows_of, samples
from datasets.regions.samples import SMALL_SIZE, cut
from datasets.text.vocabulary import Vocabulary, tokenise
from datasets.vqa import open_vqa, open_vqa_parts
from datasets.vqa.answers import AnswerTable
from datasets.vqa.files import ANNOTATION_FILES, QUESTION_FILES
from tests.datasets.vqa_files import (
    FEATURE_SIZE,
    make_annotations,
    make_questions,
    ten,
    write_annotations,
    write_npz,
    write_questions,
    write_vqa,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Data with all four parts, only read."""
    return write_vqa(tmp_path_factory.mktemp("vqa"), ("train", "val", "test", "vg"))


@pytest.fixture
def made(tmp_path):
    """Data of train and val to be damaged."""
    return write_vqa(tmp_path, ("train", "val"), images=3)


def ids_of(records):
    return [record["question_id"] for record in records]


def open_small(data, split, **options):
    return open_vqa(data, split, **{"min_answer_count": 1, **options})


def test_order_of_the_splits(shared):
    annotations, questions = shared.annotations, shared.questions
    joined = annotations["train"] + annotations["val"] + annotations["vg"]
    expected = {
        "train": annotations["train"],
        "train+val": annotations["train"] + annotations["val"],
        "train+val+vg": joined,
        "val": questions["val"],
        "test": questions["test"],
    }
    for split, records in expected.items():
        dataset = open_small(shared.data, split)
        assert dataset.split == split and dataset.question_ids.dtype == np.int64
        assert dataset.question_ids.tolist() == ids_of(records)
        assert dataset.image_ids.tolist() == [record["image_id"] for record in records]
        assert len(dataset) == len(records)


def test_same_question_id_in_two_files(shared, tmp_path):
    """Visual Genome has its own numbering; a question is looked up in its own file."""
    data = write_vqa(tmp_path, ("train", "val", "vg"), images=2)
    twin = data.questions["train"][0]["question_id"]
    data.questions["vg"][0]["question_id"] = data.annotations["vg"][-1]["question_id"] = twin
    write_questions(tmp_path / "annotations" / QUESTION_FILES["vg"], data.questions["vg"])
    write_annotations(tmp_path / "annotations" / ANNOTATION_FILES["vg"], data.annotations["vg"])
    dataset = open_small(tmp_path, "train+val+vg", padding="full")
    rows = np.flatnonzero(dataset.question_ids == twin)
    texts = [data.questions[part][0]["question"] for part in ("train", "vg")]
    assert torch.equal(dataset.read(rows)["tokens"], torch.from_numpy(dataset.vocabulary.encode(texts, 14)).long())


@pytest.mark.parametrize("padding", ["batch", "full"])
def test_batch_by_definition(shared, padding):
    dataset = open_small(shared.data, "train", padding=padding)
    rows = [4, 0, 4, 11]
    batch = dataset.__getitems__(rows)
    records = [shared.annotations["train"][row] for row in rows]
    questions = {record["question_id"]: record["question"] for record in shared.questions["train"]}
    source = open_regions(shared.tree)
    images = rows_of(source, np.array([record["image_id"] for record in records]))
    for key, value in read_batch(source, images, padding=padding).items():
        assert batch[key].dtype == value.dtype and torch.equal(batch[key], value)
    assert batch["regions"].shape[1] == (100 if padding == "full" else batch["counts"].max())
    words = [tokenise(questions[record["question_id"]])[:14] for record in records]
    length = 14 if padding == "full" else max(map(len, words))
    assert batch["tokens"].dtype == torch.int64 and batch["tokens"].shape == (4, length)
    for row, text in zip(batch["tokens"].tolist(), words, strict=True):
        assert [dataset.vocabulary.words[number] for number in row if number] == text
        assert row == [number for number in row if number] + [0] * (length - len(text))
    assert batch["label"].dtype == torch.float32 and batch["label"].shape == (4, dataset.num_answers)
    for row, record in zip(batch["label"], records, strict=True):
        assert torch.equal(row, torch.from_numpy(expected_target(dataset.answers, record)))
    assert torch.equal(batch["index"], torch.tensor(rows))


def expected_target(table, record):
    """float32 (A,) by counting: the helper's answers are red, 2 and a colour."""
    target = np.zeros(len(table), dtype=np.float32)
    normal = {"two": "2", "Yes.": "yes"}
    given = [normal.get(one["answer"], one["answer"]) for one in record["answers"]]
    for number, name in enumerate(table.names):
        target[number] = (0, 0.3, 0.6, 0.9, 1)[min(given.count(name), 4)]
    return target


def test_inputs_can_be_left_out(shared):
    dataset = open_small(shared.data, "val")
    assert set(dataset.read([0], only=("tokens",))) == {"tokens", "label", "index"}
    regions = {"regions", "boxes", "image_size", "counts"}
    assert set(dataset.read([0], without=("tokens",), epoch=3)) == {*regions, "label", "index"}
    single = dataset[2]
    assert single["index"] == 2 and single["regions"].shape == (int(single["counts"]), FEATURE_SIZE)
    with pytest.raises(IndexError):
        dataset.read([len(dataset)])


def test_answers_are_unknown_in_test(shared):
    dataset = open_small(shared.data, "test")
    assert not dataset.has_answers and dataset.ground_truth() is None
    assert not dataset.read(range(len(dataset)))["label"].any()
    val = open_small(shared.data, "val")
    assert val.has_answers and val.read([0])["label"].sum() > 0
    assert ids_of(val.ground_truth()) == val.question_ids.tolist()


def test_test_answers_are_used_where_they_exist(shared, tmp_path):
    shutil.copytree(shared.data, tmp_path, dirs_exist_ok=True)
    before = open_small(tmp_path, "train").answers
    records = make_annotations(shared.questions["test"])
    records[0]["multiple_choice_answer"] = "only in test"
    write_annotations(tmp_path / "annotations" / ANNOTATION_FILES["test"], records)
    dataset = open_small(tmp_path, "test")
    assert dataset.has_answers and ids_of(dataset.ground_truth()) == ids_of(shared.questions["test"])
    assert dataset.answers == before


def test_ground_truth_follows_parts_and_order(shared):
    dataset = open_small(shared.data, "train+val", part=("last", 0.7))
    records = shared.annotations["train"] + shared.annotations["val"]
    assert dataset.ground_truth() == records[math.floor(0.3 * len(records)) :]


@pytest.mark.parametrize("count", [24, 23, 7])
@pytest.mark.parametrize("share", [0.8, 0.5, 0.29])
def test_parts_divide_the_split(count, share):
    first, last = (range(count)[cut(count, part)] for part in (("first", share), ("last", 1 - share)))
    assert [*first, *last] == list(range(count)) and len(first) == math.floor(share * count)


def test_part_of_a_split(shared):
    whole = open_small(shared.data, "train")
    first = open_small(shared.data, "train", part=("first", 0.8))
    last = open_small(shared.data, "train", part=("last", 0.2))
    assert [*first.question_ids, *last.question_ids] == whole.question_ids.tolist()
    assert len({whole.fingerprint, first.fingerprint, last.fingerprint}) == 3
    assert torch.equal(last.read([0])["regions"], whole.read([len(first)])["regions"])


def test_features_are_opened_once(shared, monkeypatch):
    """By the parts of a split, and by another split beside them."""
    opened = []
    monkeypatch.setattr(samples, "open_regions", lambda *args, **options: opened.append(args) or open_regions(*args))
    parts = open_vqa_parts(shared.data, "train", {"a": ("first", 0.8), "b": ("last", 0.2)}, min_answer_count=1)
    val = open_small(shared.data, "val", features=parts["a"].source)
    assert len(opened) == 1 and parts["a"].source is parts["b"].source is val.source
    assert val.identity == open_small(shared.data, "val").identity and len(opened) == 2


def test_vocabulary_of_all_files_in_the_official_order(shared, caplog):
    dataset = open_small(shared.data, "test")
    texts = [record["question"] for part in ("train", "val", "test", "vg") for record in shared.questions[part]]
    seen = []
    for word in (word for text in texts for word in tokenise(text)):
        if word not in seen:
            seen.append(word)
    assert dataset.vocabulary.words == ("PAD", "UNK", "CLS", *seen)
    assert "lacks" not in caplog.text
    assert dataset.answers.names == tuple(dict.fromkeys(names_of(shared)))


def names_of(shared):
    for record in shared.annotations["train"] + shared.annotations["val"]:
        yield {"two": "2", "Yes.": "yes"}.get(record["multiple_choice_answer"], record["multiple_choice_answer"])


def test_missing_official_files_are_logged(made, caplog):
    open_small(made.data, "train")
    assert QUESTION_FILES["test"] in caplog.text and ANNOTATION_FILES["vg"] in caplog.text


def test_tables_of_a_checkpoint(shared, caplog):
    dataset = open_small(
        shared.data, "val", vocabulary=Vocabulary(["what", "color"]), answers=AnswerTable(["blue", "2"]), padding="full"
    )
    assert dataset.num_answers == 2 and dataset.read([0])["label"].shape == (1, 2)
    # what color is the val red things 101
    assert dataset.read([0])["tokens"][0].tolist() == [3, 4, 1, 1, 1, 1, 1, 1, *[0] * 6]
    with caplog.at_level("INFO"):
        open_small(shared.data, "val", vocabulary=Vocabulary(), answers=AnswerTable(["blue"]))
    assert f"{len(dataset)} samples have words outside the vocabulary" in caplog.text


def test_empty_questions_are_padding(made, caplog):
    for record in made.questions["val"]:
        record["question"] = "?!"
    write_questions(made.data / "annotations" / QUESTION_FILES["val"], made.questions["val"])
    with caplog.at_level("INFO"):
        dataset = open_small(made.data, "val")
    assert "6 samples have no words" in caplog.text
    assert dataset.read([0, 1])["tokens"].tolist() == [[0], [0]]


def test_small_and_lengths(tmp_path):
    data = write_vqa(tmp_path, ("train",), images=40)
    whole, small = (open_small(tmp_path, "train", small=small) for small in (False, True))
    assert len(whole) == 80 and len(small) == SMALL_SIZE and small.fingerprint != whole.fingerprint
    short = open_small(tmp_path, "train", max_tokens=3, max_regions=10, padding="full").read([0, 5])
    assert short["tokens"].shape == (2, 3) and short["regions"].shape == (2, 10, FEATURE_SIZE)
    assert short["counts"].tolist() == [10, 10] and (short["tokens"] > 0).all()
    assert data.questions["train"]


def test_pickle_is_small_and_works(shared):
    dataset = open_small(shared.data, "train")
    data = pickle.dumps(dataset)
    assert len(data) < 6000
    for key, value in pickle.loads(data).read([1, 7]).items():
        assert torch.equal(value, dataset.read([1, 7])[key])
    many = open_vqa(shared.data, "train", min_answer_count=1)
    assert many.fingerprint == dataset.fingerprint
    assert isinstance(dataset._tokens, np.ndarray) and dataset._tokens.dtype == np.int32


def test_what_the_data_are(shared):
    dataset = open_small(shared.data, "train")
    assert dataset.synthetic and dataset.description == "synthetic questions; region features of bua-r101-max100"
    assert dataset.feature_size == FEATURE_SIZE and dataset.extraction is None


def test_fingerprint_follows_content_and_options(made):
    first = open_small(made.data, "val").fingerprint
    assert open_small(made.data, "val").fingerprint == first
    assert open_small(made.data, "val", padding="full").fingerprint != first
    assert open_small(made.data, "val", answers=AnswerTable(["red"])).fingerprint != first
    made.annotations["val"][0]["answers"] = ten("green")
    write_annotations(made.data / "annotations" / ANNOTATION_FILES["val"], made.annotations["val"])
    assert open_small(made.data, "val").fingerprint != first


def test_visual_genome_needs_no_choice_of_answer(shared):
    records = make_annotations(make_questions("vg"))
    for record in records:
        del record["multiple_choice_answer"]
    path = shared.data / "annotations" / ANNOTATION_FILES["vg"]
    before = path.read_text()
    write_annotations(path, records)
    assert len(open_small(shared.data, "train+val+vg")) == 36
    path.write_text(before)


def test_features_from_elsewhere(made, tmp_path):
    for part, first in (("train", 1), ("val", 101)):
        for image_id in range(first, first + 3):
            write_npz(tmp_path / "other", part, image_id, x=np.ones((5, 2), np.float32), bbox=np.ones((2, 4)))
    dataset = open_small(made.data, "val", features=tmp_path / "other")
    assert dataset.feature_size == 5 and dataset.read([0])["counts"].tolist() == [2]
