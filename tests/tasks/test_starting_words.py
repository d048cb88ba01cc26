"""What the words of an MMNas network start from, what the log says of it, and what a checkpoint needs of it."""

import logging
from argparse import Namespace

import numpy as np
import pytest
import torch

from datasets.text.vocabulary import Vocabulary
from datasets.vqa.answers import AnswerTable
from models.mmnas.architecture import Architecture
from tasks import itm, vgd, vqa
from tasks.mmnas.checkpoints import Checkpoint, load_net
from tasks.mmnas.networks import WORD_SIZE

WORDS = ["what", "is", "absent", "blue"]
TABLES = {"vocabulary": Vocabulary(WORDS).to_dict(), "feature_size": 5, "answers": AnswerTable(["yes"]).to_dict()}
SMALL = Architecture((("self_att_64",),), (("guided_att_64",),))
TASKS = {"vqa": vqa, "vgd": vgd, "itm": itm}


def arguments(source, resume=None):
    choices = {"scores_loss": "kld", "padded_regions": "ignore"}
    return Namespace(hsize=64, drpt=0.0, word_vectors=source, resume=resume, **choices)


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "glove.840B.4d.txt"
    path.write_text(". . . 0 0 0 0\nwhat 1 2 3 4\nis 5 6 7 8\nblue 9 9 9 9\n")
    return path


@pytest.fixture
def said(caplog):
    """Function () -> the lines that the log has so far, as (level, text), but for that of `models.mmnas.fast`."""
    caplog.set_level(logging.INFO, logger="mdarts")
    return lambda: [(record.levelno, record.getMessage()) for record in caplog.records if record.module != "fast"]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_file_is_used_and_its_coverage_logged(task, vectors, said):
    net = task.build_net(arguments(str(vectors)), TABLES, SMALL)
    assert net.embedding.weight[3].tolist() == [1, 2, 3, 4] and not net.embedding.weight[5].any()
    assert said() == [(logging.INFO, "word vectors: glove.840B.4d.txt (3 of 7 words)")]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_without_a_file_the_default_warns_and_names_it(task, said):
    net = task.build_net(arguments("auto"), TABLES, SMALL)
    assert net.embedding.weight.shape == (7, WORD_SIZE) and net.embedding.weight.any(1).all()
    ((level, text),) = said()
    assert level == logging.WARNING and "glove.840B.300d.txt" in text and "https://" in text and "data/glove/" in text


def test_the_default_takes_the_file_in_its_place(tmp_path, vectors, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.text.word_vectors.PLACES", ("data/glove/*",))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "glove").mkdir()
    vectors.rename(tmp_path / "data" / "glove" / vectors.name)
    net = vqa.build_net(arguments("auto"), TABLES, SMALL)
    assert net.embedding.weight.shape == (7, 4) and said()[0][1].endswith("(3 of 7 words)")


def test_none_is_said_and_is_no_warning(said):
    vqa.build_net(arguments("none"), TABLES, SMALL)
    ((level, text),) = said()
    assert level == logging.INFO and "random" in text


def test_a_checkpoint_and_a_resumed_run_need_no_file(tmp_path, vectors, said):
    """Also where the vectors are of another width than the originals'."""
    net = vqa.build_net(arguments(str(vectors)), TABLES, SMALL)
    vectors.unlink()
    loaded = load_net(vqa.TASK, arguments("auto"), Checkpoint(net.state_dict(), SMALL, {}, TABLES, tmp_path), None)
    assert torch.equal(loaded.embedding.weight, net.embedding.weight)
    torch.save({"objects": {"net": net.state_dict(), "paths": {"state": 1}}}, tmp_path / "last.pth")
    resumed = vqa.build_net(arguments(str(vectors), resume=str(tmp_path)), TABLES, SMALL)
    assert resumed.embedding.weight.shape == (7, 4)
    assert len(said()) == 1


def test_vectors_in_an_npz_file(tmp_path, said):
    np.savez(tmp_path / "v.npz", words=np.array(["is"]), vectors=np.ones((1, 6), np.float32))
    net = vqa.build_net(arguments(str(tmp_path / "v.npz")), TABLES, SMALL)
    assert net.embedding.weight[4].tolist() == [1] * 6 and said()[0][1] == "word vectors: v.npz (1 of 7 words)"
