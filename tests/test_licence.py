"""The licence, the notices that travel with other people's data, and one version everywhere."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_licence_is_named_alike_everywhere():
    assert read("LICENSE").startswith("MIT License\n\nCopyright (c) 2026 the authors\n")
    assert 'license = "MIT"' in read("pyproject.toml") and "\nlicense: MIT\n" in read("CITATION.cff")
    named = re.search(r"license-files = (\[.*\])", read("pyproject.toml"))[1]
    assert all((ROOT / name).is_file() for name in json.loads(named))


def test_the_contraction_table_keeps_its_notice():
    """BSD-2-Clause: the copyright, the conditions and the disclaimer stay with the data."""
    table = json.loads(read("util/vqa_contractions.json"))
    notices = " ".join(read("THIRD_PARTY_NOTICES.md").split())
    assert "Copyright (c) 2014, Aishwarya Agrawal" in table["notice"] and len(table["licence"]) == 4
    for part in ("Copyright (c) 2014, Aishwarya Agrawal. All rights reserved.", *table["licence"]):
        assert part in notices
    for name in re.findall(r"^\| `([^`]+)`", read("THIRD_PARTY_NOTICES.md"), re.M):
        assert list(ROOT.glob(name.rstrip("/"))), name


def test_the_citation_names_both_papers():
    """Validated against the schema with cffconvert when it was written; here, that it still says what it should."""
    citation = read("CITATION.cff")
    for text in ("arXiv:2104.09379", "arXiv:2004.12070", "cff-version: 1.2.0", "references:"):
        assert text in citation
    assert citation.count("type: conference-paper") == 2


def test_there_is_one_version():
    version = re.search(r'^version = "(.+)"', read("pyproject.toml"), re.M)[1]
    assert re.search(r"^version: (.+)$", read("CITATION.cff"), re.M)[1] == version
    released = re.findall(r"^## \[([^\]]+)\]", read("CHANGELOG.md"), re.M)
    assert released[0] == "Unreleased" and released[1] == version


def test_every_given_package_is_required():
    packages = {re.split(r"[><=]", line)[0] for line in read("requirements.txt").splitlines() if line[:1] not in "#"}
    given = {"torch", "torchvision", "numpy", "scikit-learn", "h5py", "tqdm", "ipython", "opencv-python-headless"}
    assert given <= packages
