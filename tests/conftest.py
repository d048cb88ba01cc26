"""Tiny data in the true formats, made once per session."""

from types import SimpleNamespace

import pytest
import torch

import util  # noqa: F401 - before torch: sets how OpenMP's threads wait

# Two threads on a busy machine wait for each other in every small operation; results must not depend on their number.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_word_vectors():
    """Those that the machine may have would be read by every training, which takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.word_vectors.PLACES", ())
        patch.setattr("datasets.word_vectors.PACKAGE", "no_such_package")
        yield


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """Synthetic films (3x32x32 posters): ``.folder`` is the prepared store, ``.flags`` what every script needs."""
    from datasets.make_demo import main as make_demo

    out = tmp_path_factory.mktemp("films")
    sizes = ["--train", "40", "--dev", "17", "--test", "16", "--image_size", "32", "32"]
    make_demo(["mmimdb", "--source", "synthetic", "--out", str(out), *sizes])
    flags = f"--datadir {out / 'dataset'} --backbone_weights random --batchsize 8 --num_workers 0 --cache_features ram"
    return SimpleNamespace(folder=out / "dataset", hdf5=out / "multimodal_imdb.hdf5", flags=flags.split())


SIZES = ["--C", "8", "--L", "4"]


@pytest.fixture(scope="session")
def searched(films, tmp_path_factory):
    """A finished tiny search: ``.result`` and ``.folder``."""
    from pathlib import Path

    import main_darts_searchable_mmimdb as search

    out = tmp_path_factory.mktemp("search")
    result = search.main([*films.flags, *SIZES, "--epochs", "2", "--out_dir", str(out)])
    return SimpleNamespace(result=result, folder=Path(result["folder"]))


@pytest.fixture(scope="session")
def easy_vqa(tmp_path_factory):
    """easy-VQA's first pictures, packed: ``.data``, and ``.flags`` that every script needs."""
    from datasets.prepare_easy_vqa import main as prepare_easy_vqa
    from datasets.prepare_vqa import main as prepare_vqa

    data = tmp_path_factory.mktemp("vqa") / "data"
    prepare_easy_vqa(["--out", str(data), "--small", "12"])
    prepare_vqa(["--data", str(data), "--out", str(data / "store"), "--workers", "1"])
    return SimpleNamespace(data=data, flags=["--data", str(data), "--min_answer_count", "1", "--num_workers", "0"])
