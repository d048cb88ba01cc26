"""Results, genotypes and architectures show themselves in IPython and in notebooks."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from models.genotypes import load_genotype
from models.mmnas.architecture import load_architecture
from tasks.results import load_result
from util.cli import UserError

ROOT = Path(__file__).parent.parent.parent
GENOTYPE = ROOT / "genotypes" / "mmimdb_author_2020.json"
VALUES = {
    "kind": "training",
    "protocol": "last epoch; <b>test</b> scored once",
    "selected_epoch": 1,
    "metrics": {"dev": {"loss": 0.5, "f1": 0.25}, "test": {"f1": 0.62914885}},
    "parameters": {"fusion_part": 532416},
    "data": {"description": "posters", "synthetic": True, "samples": {"dev": 17, "test": 7799}},
    "genotype": json.loads(GENOTYPE.read_text()),
    "seconds": 12.3,
    "device": "cpu: x",
    "git_commit": "abc",
    "arguments": {"recipe": "mmimdb-1"},
}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(VALUES))
    return tmp_path


def displayed(thing):
    """What IPython shows of ``thing``: kind of content -> text."""
    formatters = pytest.importorskip("IPython.core.formatters")
    return formatters.DisplayFormatter().format(thing)[0]


@pytest.mark.parametrize("thing", [load_genotype(GENOTYPE), load_architecture(ROOT / "arch" / "mmnas_vqa.json")])
def test_an_architecture_is_shown_as_its_picture(thing):
    picture = displayed(thing)["image/svg+xml"]
    assert ET.fromstring(picture).tag.endswith("svg") and picture == thing.to_svg()


def test_a_result_is_shown_as_a_table_with_its_picture(run):
    shown = displayed(load_result(run))
    html, picture = shown["text/html"], load_genotype(GENOTYPE).to_svg()
    assert "<th>split</th><th>samples</th><th>loss</th><th>f1</th>" in html
    assert "<td>test</td><td>7,799</td><td></td><td>0.6291</td>" in html
    assert "&lt;b&gt;test&lt;/b&gt;" in html and "posters (synthetic)" in html and "recipe: mmimdb-1" in html
    assert picture in html
    assert not re.search(r"<(?!/?(table|tr|td|th|p|br)\b)", html.replace(picture, "")), "no other markup"
    lines = shown["text/plain"].splitlines()
    assert lines[0].split() == ["split", "samples", "loss", "f1"] and lines[2].split() == ["test", "7,799", "0.6291"]
    assert "weights: fusion_part 532,416" in lines


def test_results_of_real_runs_are_read(searched):
    result = load_result(searched.folder)
    assert result.values == json.loads((searched.folder / "result.json").read_text())
    assert result.scores == searched.result["metrics"]
    assert result.architecture == load_genotype(searched.folder / "genotype.json")
    assert load_result(searched.folder / "result.json").folder == searched.folder
    assert "search" in repr(result)


def test_a_result_without_an_architecture_has_no_picture(run):
    values = {**VALUES, "genotype": None}
    (run / "result.json").write_text(json.dumps(values))
    result = load_result(run)
    assert result.architecture is None and "<svg" not in result._repr_html_()
    architecture = load_architecture(ROOT / "arch" / "mmnas_itm.json")
    (run / "result.json").write_text(json.dumps({**values, "genotype": architecture.to_dict()}))
    assert load_result(run).architecture == architecture


def test_what_is_no_result_is_told(tmp_path):
    with pytest.raises(UserError, match=r"result\.json does not exist: name the folder of a finished run"):
        load_result(tmp_path)
    (tmp_path / "result.json").write_text('{"metrics": {}, "genotype": {"edges": 1}}')
    with pytest.raises(UserError, match="its genotype is damaged"):
        load_result(tmp_path)
    for text in ("[]", "{}", '{"metrics": 1}'):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(UserError, match="is not the result of a run"):
            load_result(tmp_path)


def test_a_score_that_is_no_number_is_shown_as_one(run):
    """Files have null for it; a score that a split does not have stays empty."""
    (run / "result.json").write_text(json.dumps({**VALUES, "metrics": {"dev": {"loss": None, "f1": 0.5}, "test": {}}}))
    assert load_result(run).table()[1:] == [["dev", "17", "nan", "0.5000"], ["test", "7,799", "", ""]]
