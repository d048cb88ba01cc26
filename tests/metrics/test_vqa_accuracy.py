"""VQA accuracy against the golden evaluation and the definition, and by hand where the two protocols differ."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metrics.vqa_accuracy import AnswerScores, VQAAccuracy, write_results
from tests.datasets.vqa_files import refusal, ten
from tests.golden import DATA
from util.cli import UserError


def read(name):
    return json.loads((DATA / "mmnas" / f"vqa_eval_{name}.json").read_text())


ANNOTATIONS, RESULTS, EXPECTED = read("annotations"), read("results"), read("expected")
RECORDS = ANNOTATIONS["annotations"]


def percent(scores):
    return round(100 * sum(scores) / len(scores), 2)


def test_golden_evaluation():
    """The mean scores of the toolkit, of all questions and by type."""
    accuracy, scorer = EXPECTED["accuracy"], AnswerScores(RECORDS)
    answers = {result["question_id"]: result["answer"] for result in RESULTS}
    scores = [scorer.score(row, answers[record["question_id"]]) for row, record in enumerate(RECORDS)]
    assert percent(scores) == accuracy["overall"]
    for field, expected in (("answer_type", "perAnswerType"), ("question_type", "perQuestionType")):
        by_type = {}
        for record, score in zip(RECORDS, scores, strict=True):
            by_type.setdefault(record[field], []).append(score)
        assert {kind: percent(part) for kind, part in by_type.items()} == accuracy[expected]


def test_golden_questions():
    scores = AnswerScores(RECORDS)
    answers = {result["question_id"]: result["answer"] for result in RESULTS}
    for row, record in enumerate(RECORDS):
        found = round(100 * scores.score(row, answers[record["question_id"]]), 2)
        assert found == EXPECTED["per_question"][str(record["question_id"])]


def logits_for(names, answers):
    logits = torch.randn(len(answers), len(names), generator=torch.Generator().manual_seed(0))
    for row, answer in enumerate(answers):
        logits[row, names.index(answer)] = 9
    return logits


def test_metric_gives_the_golden_accuracy():
    """Answers come in batches and out of order, and some questions twice, as with distributed padding."""
    names = sorted({result["answer"] for result in RESULTS})
    answers = [result["answer"] for result in RESULTS]
    metric = VQAAccuracy(names, [result["question_id"] for result in RESULTS], RECORDS)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    logits = logits_for(names, answers)
    for rows in (*order.split(64), order[:5]):
        metric.update(logits[rows], {"index": rows})
    values = metric.compute()
    accuracy = EXPECTED["accuracy"]
    expected = {"accuracy": accuracy["overall"], **accuracy["perAnswerType"]}
    assert {key: round(100 * value, 2) for key, value in values.items()} == expected
    question_ids, given = metric.results()
    assert question_ids.tolist() == [result["question_id"] for result in RESULTS] and given == answers
    metric.reset()
    assert math.isnan(metric.compute()["accuracy"])


def test_ranks_are_joined(monkeypatch):
    """Of two ranks, the second repeats a question of the first, as distributed padding does."""
    records = [{"answers": ten(text), "answer_type": "other"} for text in ("red", "red", "no")]
    metric = VQAAccuracy(["red", "no"], [5, 6, 7], records)
    metric.update(torch.eye(2)[[0, 1]], {"index": torch.tensor([0, 1])})
    other = (np.array([2, 0]), np.array([1, 1]))
    monkeypatch.setattr("metrics.vqa_accuracy.gather", lambda own: [own, other])
    assert metric.compute() == pytest.approx({"accuracy": 2 / 3, "other": 2 / 3})
    assert metric.results()[1] == ["red", "no", "no"]


def test_metric_covers_what_was_seen():
    metric = VQAAccuracy(["red", "no"], [5, 6, 7], [{"answers": ten(text), "answer_type": text} for text in "abc"])
    metric.update(torch.tensor([[1.0, 0.0]]), {"index": torch.tensor([2])})
    assert metric.compute() == {"accuracy": 0.0, "c": 0.0}
    assert metric.results()[0].tolist() == [7] and metric.results()[1] == ["red"]


def test_secret_answers_leave_results_alone():
    metric = VQAAccuracy(["red", "no"], np.array([5, 6]))
    metric.update(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), {"index": torch.tensor([0, 1])})
    assert math.isnan(metric.compute()["accuracy"])
    assert metric.results()[1] == ["no", "red"]


TEXTS = st.sampled_from(["a", "b", "c"])


@given(st.lists(TEXTS, min_size=10, max_size=10), TEXTS)
def test_definition(answers, result):
    """Mean over annotators k of min(1, matches among the other nine / 3), here for plain answers."""
    texts = [f"x{text}" for text in answers]
    others = [sum(text == f"x{result}" for text in texts[:k] + texts[k + 1 :]) for k in range(10)]
    expected = sum(min(1, count / 3) for count in others) / 10
    for protocol in ("original", "official"):
        scores = AnswerScores([{"answers": [{"answer": text} for text in texts]}], protocol)
        assert scores.score(0, f"x{result}") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("answers", "result", "original", "official"), [
    (("two", "two", "two", "two", "x"), "two", 0.0, 1.0),  # number words of annotators are not converted
    (("Two dogs", "x"), "2 dogs", 0.0, 0.3),
    (("The dog", "dog"), "dog", 1.0, 1.0),
    (("U.S.", "USA", "x"), "us", 0.0, 0.3),
    (("t-shirt", "t shirt", "x"), "T-Shirt", 0.6, 0.6),
    (("two",), "two", 0.0, 1.0),  # all agree, so the passes are not applied to the annotators' answers
    (("Yes",), "yes", 0.0, 0.0),
    (("yes",), "Yes.", 1.0, 0.0),
    (("2",), "two", 1.0, 0.0),
    ((" yes ",), "yes\n", 0.0, 1.0),
    (("yes", "yes "), "yes", 0.3, 1.0),  # stripped first, so all agree
    (("no",), "never seen", 0.0, 0.0),
])  # fmt: skip
def test_protocols_by_hand(answers, result, original, official):
    record = {"answers": ten(*answers)}
    for protocol, expected in (("original", original), ("official", official)):
        assert AnswerScores([record], protocol).score(0, result) == pytest.approx(expected), protocol


def test_unknown_protocol():
    refusal(lambda: AnswerScores([], "new"), "--metric new", "original, official")


def test_results_are_written_in_the_server_form(tmp_path):
    path = tmp_path / "result" / "result_train_vqa.json"
    write_results(path, np.array([458752000, 7]), ["yes", "don't know"])
    expected = [{"answer": "yes", "question_id": 458752000}, {"answer": "don't know", "question_id": 7}]
    assert json.loads(path.read_text()) == expected
    with pytest.raises(UserError):
        write_results(path / "inside", [1], ["x"])
