"""Scripts of users that import the modules of version 0.1.0 still run, and are told the new names."""

import importlib
import pickle
import subprocess
import sys

import pytest

import datasets
from tests.processes import start

OLD_NAMES = [
    ("region_packing", "pack_regions"),
    ("ntu_skeleton", "read_skeleton"),
    ("ntu_names", "BadSample"),
    ("word_vectors", "load_word_vectors"),
    ("itm_scan", "pack_scan"),
]
PACKAGES = ["mmimdb", "ntu", "ego", "vqa", "vgd", "itm", "regions"]


@pytest.mark.parametrize(("old", "name"), OLD_NAMES)
def test_an_old_module_is_the_new_one(old, name):
    new = importlib.import_module(f"datasets.{datasets.MOVED[old]}")
    sys.modules.pop(f"datasets.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"datasets\.{old} is now {new.__name__}$") as told:
        module = importlib.import_module(f"datasets.{old}")
    assert module is new
    assert told[0].filename != datasets.__file__
    assert new.__spec__.name == new.__name__
    assert getattr(module, name).__module__ == new.__name__
    assert pickle.loads(pickle.dumps(getattr(module, name))) is getattr(new, name)


def import_old_modules():
    for old in datasets.MOVED:
        importlib.import_module(f"datasets.{old}")


def test_every_old_module_is_found(tmp_path):
    """In a process of its own, so that none of the new ones is there before."""
    process = start(import_old_modules, log=tmp_path / "log.txt")
    process.join(100)
    assert process.exitcode == 0, (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_export_what_opens_their_data(package):
    module = importlib.import_module(f"datasets.{package}")
    home = "reading" if package == "regions" else "dataset"
    found = getattr(module, f"open_{package}")
    assert found is getattr(importlib.import_module(f"datasets.{package}.{home}"), f"open_{package}")


def test_other_names_of_a_module_that_became_a_package():
    from datasets.mmimdb.dataset import TEXT_DIM

    with pytest.warns(DeprecationWarning, match=r"datasets\.mmimdb\.TEXT_DIM is now .*dataset\.TEXT_DIM$"):
        from datasets.mmimdb import TEXT_DIM as old
    assert old == TEXT_DIM
    with pytest.raises(ImportError):
        from datasets.mmimdb import no_such_name  # noqa: F401


def test_unknown_modules_stay_unknown():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("datasets.no_such_module")


def test_a_package_imports_little():
    code = "import sys, datasets.mmimdb, datasets.regions.flags; from datasets.ntu import names; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "PIL", "h5py"} & set(out)
