"""Tiny data in the real formats, created once per session."""

import functools
import gc
import importlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import util  # noqa: F401 - before torch: sets how OpenMP's threads wait
from tests.narrow_backbones import narrow_backbones
from tests.processes import no_word_vectors
from util.locks import locked
from util.processors import usable_processors

# On a busy machine, two threads wait for each other in every small operation. Results must not depend on their number.
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--rewrite_golden_runs", action="store_true", help="keep the figures that tiny searches give now")


def pytest_xdist_auto_num_workers(config):
    """Test processes of ``-n auto``: one more than cores, since many tests wait for processes that they started."""
    return usable_processors() + 1


def pytest_collection_modifyitems(items):
    """Start the longest tests first, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish():
    """Exclude all imported modules from further garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_long_waits():
    """Read no word vectors, and spend next to no time on measuring speed and latency."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.estimate._PROBE_SECONDS", 0.01)
        patch.setattr("engine.cost.SECONDS", 0.0)
        with no_word_vectors():
            yield


@pytest.fixture(scope="module", name="narrow_backbones")
def _narrow_backbones():
    """Tests that use `searched` or `searched_clips` need the narrow backbones with which these were made."""
    with narrow_backbones():
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A function (name, make) that returns a folder; only one of all test processes calls ``make(folder)``."""

    def made(name, make):
        base = tmp_path_factory.getbasetemp()
        # Each of several workers has its own folder inside one that they share.
        folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
        with locked(folder.with_suffix(".lock")):
            if not folder.with_suffix(".made").exists():
                make(folder)
                folder.with_suffix(".made").touch()
        return folder

    return made


@pytest.fixture(scope="session")
def films(made_once):
    """Synthetic films (3x32x32 posters): ``.folder`` is the prepared data, ``.flags`` the flags for every script."""

    def make(out):
        from datasets.make_demo import main as make_demo

        sizes = ["--train", "40", "--dev", "17", "--test", "16", "--image_size", "32", "32"]
        make_demo(["mmimdb", "--source", "synthetic", "--out", str(out), *sizes])

    out = made_once("films", make)
    flags = f"--datadir {out / 'dataset'} --backbone_weights random --batchsize 8 --num_workers 0 --cache_features ram"
    return SimpleNamespace(folder=out / "dataset", hdf5=out / "multimodal_imdb.hdf5", flags=flags.split())


SIZES = ["--C", "8", "--L", "4"]


@pytest.fixture(scope="session")
def searched(films, tmp_path_factory):
    """A finished tiny search: ``.result`` and ``.folder``."""
    import main_darts_searchable_mmimdb as search

    out = tmp_path_factory.mktemp("search")
    with narrow_backbones():
        result = search.main([*films.flags, *SIZES, "--epochs", "2", "--out_dir", str(out)])
    return SimpleNamespace(result=result, folder=Path(result["folder"]))


@pytest.fixture(scope="session")
def easy_vqa(made_once):
    """easy-VQA's first pictures, packed: ``.data``, and ``.flags`` for every script."""

    def make(data):
        from datasets.prepare_easy_vqa import main as prepare_easy_vqa
        from datasets.prepare_vqa import main as prepare_vqa

        prepare_easy_vqa(["--out", str(data), "--small", "12"])
        prepare_vqa(["--data", str(data), "--out", str(data / "store"), "--workers", "1"])

    data = made_once("vqa", make)
    return SimpleNamespace(data=data, flags=["--data", str(data), "--min_answer_count", "1", "--num_workers", "0"])


MMNAS_SIZES = "--hsize 64 --enc_blocks 2 --dec_blocks 3 --batchsize 16 --epochs 2 --num_workers 0 --device cpu"


def mmnas_search(script, flags, out, *search_flags, **facts):
    """Run a tiny search of MMNas: ``.flags`` for every script, ``.folder`` and ``.result`` of the run."""
    flags = [*MMNAS_SIZES.split(), *flags, "--out_dir", str(out / "runs")]
    result = importlib.import_module(script).main([*flags, "--alpha_start", "1", "--alpha_every", "2", *search_flags])
    return SimpleNamespace(out=out, flags=flags, result=result, folder=Path(result["folder"]), **facts)


@pytest.fixture(scope="session")
def searched_vqa(easy_vqa, tmp_path_factory):
    """A `mmnas_search` on `easy_vqa`, with ``.data``."""
    return mmnas_search("search_vqa", easy_vqa.flags, tmp_path_factory.mktemp("runs"), data=easy_vqa.data)


@pytest.fixture(scope="session")
def searched_vgd(tmp_path_factory):
    """A `mmnas_search` on a few scenes, with ``.data`` and ``.images``."""
    from datasets.demo.scenes import make

    out = tmp_path_factory.mktemp("scenes")
    make(out / "data", train=10, scored=4, matched=4, tasks=("vgd",))
    data = out / "data" / "vgd"
    return mmnas_search("search_vgd", ["--data", str(data)], out, data=data, images=out / "data" / "images")


@pytest.fixture(scope="session")
def searched_itm(tmp_path_factory):
    """A `mmnas_search` on a few scenes, with ``.data`` and ``.images``."""
    from datasets.demo.scenes import make

    out = tmp_path_factory.mktemp("itm")
    make(out / "scenes", train=12, scored=6, matched=6, tasks=("itm",))
    data, images = out / "scenes" / "itm", out / "scenes" / "images"
    flags = ["--data", str(data), "--neg_rand", "6"]
    return mmnas_search("search_itm", flags, out, "--neg_start_epoch", "1", data=data, images=images)


CLIPS = {"ntu": ["--subjects", "5", "--repetitions", "1"], "ego": ["--clips_per_subject", "1"]}
CLIP_FLAGS = {"ntu": "--batchsize 8", "ego": "--batchsize 8 --sample_size 16 --sample_duration 8"}


@pytest.fixture(scope="session")
def clip_data(made_once):
    """A function from ``ntu`` or ``ego`` to a folder with that task's tiny data."""

    def make_clips(name):
        def make(out):
            from datasets.make_demo import main as make_demo

            make_demo([name, "--out", str(out), "--workers", "1", *CLIPS[name]])

        return made_once(name, make) / "dataset"

    return make_clips


@pytest.fixture(scope="session")
def searched_clips(clip_data, tmp_path_factory):
    """A function from ``ntu`` or ``ego`` to that task on tiny data.

    Its result has the task's module and scripts, ``.flags`` for all of them, and ``.folder`` and ``.result`` of a
    finished search.
    """

    @functools.cache
    def search_clips(name):
        out = tmp_path_factory.mktemp(f"{name}_runs")
        names = {"search": "darts_searchable", "found": "darts_found", "unimodal": "unimodal"}
        scripts = {key: importlib.import_module(f"main_{kind}_{name}") for key, kind in names.items()}
        sizes = "--L 4 --num_outputs 8 --num_workers 0 --cache_features ram --device cpu"
        shared = [*sizes.split(), *CLIP_FLAGS[name].split(), "--datadir", str(clip_data(name))]
        random = [*shared, "--backbone_weights", "random"]
        flags = [*random, "--C", "8"]
        with narrow_backbones():
            result = scripts["search"].main(
                [*flags, "--epochs", "2", "--augment_views", "1", "--out_dir", str(out / "runs")]
            )
        # EgoGesture's networks start from random weights, or from a file.
        own = {"flags": flags, "unimodal_flags": shared if name == "ego" else random}
        task = importlib.import_module(f"tasks.{name}")
        facts = {"name": name, "task": task, "out": out, "result": result, "folder": Path(result["folder"])}
        return SimpleNamespace(**scripts, **own, **facts)

    return search_clips
