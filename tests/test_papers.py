"""The papers' figures: every place that quotes one agrees with docs/paper_results.json."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch

import main_darts_found_mmimdb as found
from datasets.ego.annotation import OFFICIAL_COUNTS as EGO_COUNTS
from datasets.mmimdb import OFFICIAL_COUNTS as MMIMDB_COUNTS
from datasets.ntu.names import OFFICIAL_COUNT as NTU_COUNT
from datasets.ntu.names import SUBJECTS, missing_skeletons, parse_id
from tasks import mmimdb
from tasks.bmnas import flags
from tasks.bmnas.networks import build_found_net, find_genotype
from tests.documents import PAGES, read
from tools import paper_tables
from util.cli import UserError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = json.loads((ROOT / "docs" / "paper_results.json").read_text(encoding="utf-8"))
TABLES = {table["id"]: table for table in RESULTS["tables"]}
README = read("README.md")
# Script name's last part -> tables whose figures it may quote.
QUOTED = {
    "mmimdb": ("bmnas-1", "bmnas-8"),
    "ntu": ("bmnas-2", "bmnas-8"),
    "ego": ("bmnas-3", "bmnas-8"),
    "vqa": ("mmnas-vqa",),
    "vgd": ("mmnas-vgd-paper", "mmnas-vgd-released"),
    "itm": ("mmnas-itm-paper", "mmnas-itm-released"),
}
# Tables that the task's page may quote besides.
OTHER_TABLES = {"mmimdb": ("bmnas-run",), "vqa": ("mmnas-vqa-val",)}
# Own data have no published scores.
SCRIPTS = [
    path
    for kind in ("main_*", "search_*", "train_*")
    for path in sorted(ROOT.glob(f"{kind}.py"))
    if not path.stem.endswith("_own")
]


def figure(table, column, *names):
    """The figure, as it is printed, in the row whose first cells are ``names``; "-" where there is none."""
    table = TABLES[table]
    rows = [row["values"] for row in table["rows"] if tuple(row["values"][: len(names)]) == names]
    assert len(rows) == 1, names
    return paper_tables.cell(rows[0][table["columns"].index(column)], table["digits"].get(column)) or "-"


def grounding(table):
    """All splits of the three data sets."""
    splits = {"RefCOCO": ("val", "testA", "testB"), "RefCOCO+": ("val", "testA", "testB"), "RefCOCOg": ("val", "test")}
    return "; ".join(" / ".join(figure(table, s, "MMNas", data) for s in names) for data, names in splits.items())


def matching(table):
    return " / ".join(figure(table, f"{way} R@1", "MMNas") for way in ("image to text", "text to image"))


def test_every_row_says_where_it_was_read():
    for table in RESULTS["tables"]:
        for row in table["rows"]:
            assert row["source"] in RESULTS["sources"] and row["status"] in RESULTS["statuses"], table["id"]
            assert len(row["values"]) == len(table["columns"]), table["id"]
            figures = [value for value in row["values"] if not isinstance(value, str) and value is not None]
            assert row["status"] != "unverified" or not figures, "nothing is quoted from memory"


def test_the_page_is_up_to_date(tmp_path, monkeypatch):
    assert paper_tables.PAGE.read_text(encoding="utf-8") == paper_tables.page(RESULTS)
    paper_tables.main(["--check"])
    monkeypatch.setattr(paper_tables, "PAGE", tmp_path / "papers.md")
    with pytest.raises(UserError, match=r"run python tools/paper_tables\.py"):
        paper_tables.main(["--check"])
    paper_tables.main([])
    paper_tables.main(["--check"])


def test_the_readme_quotes_the_papers_and_the_released_checkpoints_apart():
    lines = [line for line in README.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head = next(row for row in cells if "released checkpoint" in row)
    shown = {row[0].split(" (")[0]: dict(zip(head, row, strict=True)) for row in cells if len(row) == len(head)}
    expected = {
        "MM-IMDB": (figure("bmnas-1", "weighted F1", "BM-NAS"), "-"),
        "NTU RGB+D 60": (figure("bmnas-2", "accuracy", "BM-NAS"), "-"),
        "EgoGesture": (figure("bmnas-3", "accuracy", "BM-NAS"), "-"),
        "VQA v2": (
            figure("mmnas-vqa", "overall", "MMNas, paper", "test-dev") + " ¹",
            figure("mmnas-vqa", "overall", "MMNas, released checkpoint", "test-dev"),
        ),
        "RefCOCO, RefCOCO+, RefCOCOg": (
            grounding("mmnas-vgd-paper") + " (val / test) ¹",
            grounding("mmnas-vgd-released") + " (val / test)",
        ),
        "Flickr30K": (matching("mmnas-itm-paper") + " ¹", matching("mmnas-itm-released")),
    }
    for name, (paper, released) in expected.items():
        assert (shown[name]["paper"], shown[name]["released checkpoint"]) == (paper, released), name


def test_the_task_pages_give_both_search_costs_and_the_authors_run():
    pages = {name: " ".join(read(f"docs/{name}.md").split()) for name in ("mmimdb", "ntu", "ego")}
    first = [figure("bmnas-5", name, "BM-NAS") for name in ("MM-IMDB", "NTU RGB+D 60")]
    second = [figure("bmnas-8", "search, GPU hours", name) for name in ("mmimdb-1", "ntu-1", "ego-1")]
    assert f"GPU hours: {first[0]} in its Table 5 and {second[0]} in its Table 8" in pages["mmimdb"]
    assert f"GPU hours: {first[1]} in its Table 5 and {second[1]} in its Table 8" in pages["ntu"]
    assert f"{second[2]} GPU hours in its Table 8" in pages["ego"]
    scores = [100 * row["values"][1] for row in TABLES["bmnas-run"]["rows"][:2]]
    assert "weighted F1 {:.2f}, macro F1 {:.2f} and 532,416 fusion parameters".format(*scores) in pages["mmimdb"]
    # They say what is not from memory, or which count and which term is.
    allowed = {"docs/data.md", "docs/fidelity.md", "docs/papers.md"}
    assert {page for page in PAGES if "from memory" in read(page)} <= allowed


@pytest.mark.parametrize("task", QUOTED)
def test_expected_scores_of_a_task_page_are_those_of_its_tables(task):
    section = read(f"docs/{task}.md").partition("## Expected scores")[2].partition("\n## ")[0]
    tables = [*QUOTED[task], *OTHER_TABLES.get(task, ())]
    quoted = set(re.findall(r"(?<![\w.])\d{1,2}\.\d{1,2}(?!\d)", section)) - {"0.5"}
    assert quoted and quoted <= known_figures(tables)


def known_figures(tables):
    """The figures of the tables as they are printed, and the scores of the authors' run in per cent."""
    found = set()
    for table in (TABLES[name] for name in tables):
        for row in table["rows"]:
            for column, value in zip(table["columns"], row["values"], strict=True):
                found |= set(paper_tables.cell(value, table["digits"].get(column)).split(" ± "))
                if isinstance(value, float) and value < 1:
                    found.add(f"{100 * value:.2f}")
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_quote_scores_of_their_own_tables(path):
    known = known_figures(QUOTED[path.stem.split("_")[-1]])
    quoted = re.findall(r"(?<![\w.])\d{1,2}\.\d{2}(?!\d)", ast.get_docstring(ast.parse(path.read_text("utf-8"))))
    assert set(quoted) <= known
    assert quoted or path.name.startswith("search_"), "the expected score belongs at the head of a script"


def test_the_authors_run_has_as_many_fusion_parameters_here():
    """README of the original repository, commit 02be0795: "Fusion Model Params: 532416"."""
    genotype = str(ROOT / "genotypes" / "mmimdb_author_2020.json")
    parser = found.get_args_parser()
    args = flags.parse_found(
        mmimdb.TASK, parser, ["--genotype", genotype, "--backbone_weights", "random", "--C", "192", "--L", "16"], None
    )
    with torch.device("meta"):
        backbones, found_one = mmimdb.build_backbones(args), find_genotype(mmimdb.TASK, args)
        counts = build_found_net(mmimdb.TASK, args, backbones, found_one, frozen=False).count_parameters()
    logged = dict(row["values"] for row in TABLES["bmnas-run"]["rows"])
    assert counts["fusion_part"] == 532416 == logged["fusion parameters (reshape layers and cells)"]
    notes = " ".join(TABLES["bmnas-run"]["notes"])
    assert f"The classifier adds {counts['classifier']:,}" in notes


def test_counts_of_samples_are_those_that_preparation_checks():
    counts = {count["data"]: count for count in RESULTS["counts"]}
    assert counts["MM-IMDB"]["checked"] == list(MMIMDB_COUNTS.values()) == counts["MM-IMDB"]["paper"]
    assert counts["EgoGesture"]["checked"] == list(EGO_COUNTS.values()) == counts["EgoGesture"]["paper"]
    assert counts["NTU RGB+D 60"]["checked"] == [NTU_COUNT]
    subjects = [parse_id(name).subject for name in missing_skeletons()]
    faulty = [sum(subject in SUBJECTS[split] for subject in subjects) for split in ("test", "dev", "train")]
    assert "{} of test subjects, {} of validation, {} of training".format(*faulty) in counts["NTU RGB+D 60"]["verdict"]
