"""Words, answers and soft scores against the golden values and independent computations."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.regions.files import image_id_of
from datasets.text.vocabulary import UNK, Vocabulary, tokenise
from datasets.vqa.answers import SCORES, AnswerTable, SoftTargets
from tests.datasets.vqa_files import refusal
from tests.golden import DATA
from util.answers import contractions, normalise_answer, normalise_words, strip_punctuation

SPEC = json.loads((DATA / "mmnas" / "answers_tokens.json").read_text())


@pytest.mark.parametrize("case", SPEC["answers"], ids=lambda case: case["raw"][:20])
def test_golden_answers(case):
    raw = case["raw"]
    assert strip_punctuation(raw) == case["punct"]
    assert normalise_words(raw) == case["digit_article"]
    assert normalise_answer(raw) == case["preprocessed"]


def test_only_the_first_32_periods_go():
    assert strip_punctuation("a" + "." * 40) == "a" + "." * 8
    assert strip_punctuation("3.") == "3" and strip_punctuation("3.5") == "3.5"


def test_contractions_with_capitals_are_out_of_reach():
    assert len(contractions()) == 120 and contractions()["Im"] == "I'm"
    assert normalise_answer("Im") == "im" and normalise_answer("Dont") == "don't"


def test_golden_vocabulary_and_tokens():
    questions = SPEC["tokens"]["proc_ques"]
    vocabulary = Vocabulary.of_texts(case["question"] for case in questions[:18])
    assert list(enumerate(vocabulary.words)) == [(n, word) for word, n in SPEC["tokens"]["vocab_from_first_18"]]
    numbers = vocabulary.encode([case["question"] for case in questions], 14)
    assert numbers.dtype == np.int32
    assert numbers.tolist() == [case["ix"] for case in questions]


def test_words_that_look_special_have_the_special_numbers():
    words = Vocabulary.of_words([["UNK", "cat"], ["cat", "PAD"]])
    assert words.words == ("PAD", "UNK", "CLS", "cat")
    assert words.encode_words([["UNK", "cat"]], 1, 3).tolist() == [[1, 3, 0]]


def test_golden_image_ids():
    for path, number in SPEC["tokens"]["image_ids"].items():
        assert image_id_of(path.rsplit("/", 1)[-1]) == int(number)
    assert image_id_of("cat.npz") is None and image_id_of("COCO_x٣.npz") is None


@given(st.text(alphabet="abAB .,'!?-/#:;\t\n", max_size=40))
def test_tokens_are_clean_words(text):
    words = tokenise(text)
    assert all(word and word == word.lower() and not set(word) & set(" .,'!?-/#:;\t\n") for word in words)
    kept = "".join(letter for letter in text.lower() if letter.isalpha())
    assert "".join(words) == kept


def test_golden_answer_table():
    spec = SPEC["vocab"]
    table = AnswerTable.of_answers(spec["counts_in"])
    assert [[name, number] for number, name in enumerate(table.names)] == spec["ans_to_ix"]


def test_golden_soft_scores():
    table = AnswerTable.of_answers(SPEC["vocab"]["counts_in"])
    targets = table.targets(case["answers"] for case in SPEC["soft_scores"])
    dense = targets.dense(np.arange(len(targets)))
    assert dense.dtype == np.float32
    assert np.array_equal(dense, np.array([case["vector"] for case in SPEC["soft_scores"]], dtype=np.float32))
    by_count = [SPEC["score_by_count"][str(count)] for count in range(11)]
    assert SCORES[np.minimum(np.arange(11), 4)].tolist() == pytest.approx(by_count)


def test_counts_are_of_normalised_answers():
    assert AnswerTable.of_answers(["Two", "2", "two", "a cat"], min_count=3).names == ("2",)
    assert AnswerTable.of_answers(["b", "a", "the b"], min_count=1).names == ("b", "")


NAMES = ["yes", "no", "2", "red"]


@given(st.lists(st.lists(st.sampled_from([*NAMES, "Two", "other"]), max_size=10), min_size=1, max_size=8), st.data())
def test_soft_targets_follow_the_definition(questions, data):
    targets = AnswerTable(NAMES).targets(questions)
    expected = np.zeros((len(questions), 4), dtype=np.float32)
    for row, answers in enumerate(questions):
        counts = Counter("2" if answer == "Two" else answer for answer in answers)
        expected[row] = [(0, 0.3, 0.6, 0.9, 1)[min(counts[name], 4)] for name in NAMES]
    rows = np.array(data.draw(st.lists(st.integers(0, len(questions) - 1), max_size=12)), dtype=np.int64)
    assert np.array_equal(targets.dense(rows), expected[rows])
    assert np.array_equal(targets.taken(rows).dense(np.arange(len(rows))), expected[rows])


def test_unknown_targets_are_zero():
    assert not SoftTargets.unknown(3, 5).dense(np.array([2, 0])).any()


def test_tables_survive_a_checkpoint():
    vocabulary, table = Vocabulary(["what", "is"]), AnswerTable(["yes", ""])
    copies = json.loads(json.dumps([vocabulary.to_dict(), table.to_dict()]))
    assert Vocabulary.from_dict(copies[0]) == vocabulary
    assert AnswerTable.from_dict(copies[1]) == table
    assert Vocabulary.from_dict(copies[0]).encode(["IS, it"], 3).tolist() == [[4, UNK, 0]]


@pytest.mark.parametrize("value", [None, {}, {"words": ["what"]}, {"words": ["PAD", "UNK", "CLS", "a", "a"]}])
def test_damaged_vocabulary_is_refused(value):
    refusal(lambda: Vocabulary.from_dict(value, "net.pkl"), "net.pkl", "PAD, UNK, CLS")


@pytest.mark.parametrize("value", [None, {"answers": []}, {"answers": ["a", "a"]}, {"answers": [1]}])
def test_damaged_answers_are_refused(value):
    refusal(lambda: AnswerTable.from_dict(value, "net.pkl"), "net.pkl", "distinct answers")
