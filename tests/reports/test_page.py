"""The forms of a report: Markdown, LaTeX, CSV, and a page of one file that needs no other."""

import csv
import html.parser
import io
import json
import threading
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET

import pytest

import report
import watch
from models.genotypes import load_genotype
from reports.comparing import compare
from reports.contents import as_csv, as_latex, as_markdown, sections_of
from reports.page import MAX_BYTES, page
from reports.pictures import highlighted, pareto_front
from reports.reading import read_runs
from reports.tables import Table, latex, latex_text, markdown
from tests.run_folders import GENOTYPE, edit, make_run
from util.cli import UserError

NASTY = 'a<b>&"c"|d_e%f'


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Searches and trainings of two strategies, and runs that do not count."""
    place = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        for number, strategy in enumerate(("published", "gdas")):
            search = make_run(place, seed, kind="search", name=strategy, arguments={"strategy": strategy})
            made = make_run(
                search, seed, 0.5 + 0.1 * number + 0.01 * seed * (number + 1), architecture={"from": str(search)}
            )
            if number and seed == 2:
                other = load_genotype(GENOTYPE).to_dict()
                other["steps"][0]["inner_steps"] = ["Sum"]
                (made / "result.json").unlink()
                edit(made / "args.json", lambda arguments: arguments.update(save=NASTY))
    curve = {"title": "noise", "x_label": "level", "x": [0, 0.5, 1], "series": {"f1": [0.6, 0.5, None]}}
    (search / "robustness.json").write_text(json.dumps({"curves": [curve]}))
    return place


@pytest.fixture(scope="module")
def sections(runs):
    return sections_of(compare(read_runs([runs])))


class Reader(html.parser.HTMLParser):
    """Collects tags and attributes, and checks that what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "img", "input", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_one_file_with_tables_pictures_and_commands(sections):
    text = page(sections)
    tags = Reader(text).tags
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption") == sum(len(s.tables) for s in sections)
    assert "script" not in names and not [a for _, a in tags if a.get("src") or "http" in str(a.get("href"))]
    assert "prefers-color-scheme: dark" in text and "@media print" in text and '<html lang="en">' in text
    assert names.count("svg") == names.count("figure") >= 8
    scrolled = [a for _, a in tags if a.get("class", "").startswith("scroll")]
    assert scrolled and all(a["tabindex"] == "0" and a["aria-label"] for a in scrolled)
    ids = {a["id"] for _, a in tags if "id" in a}
    assert {a["href"][1:] for tag, a in tags if tag == "a"} <= ids
    assert "python main_darts_found_mmimdb.py --seed 1" in text and "entropy of the choices" in text
    assert "probabilities of the candidates" in text and "against parameters" not in text
    assert "robustness" in text and text.count("62.92 ± 0.03") == 1 and "interrupted or still running" in text
    assert "53.00 ± " not in text and "51.00 ± 1.00" in text


def test_names_cannot_break_the_forms(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, seed, data={"description": NASTY, "synthetic": False, "identity": {}, "samples": {}})
    sections = sections_of(compare(read_runs([tmp_path])))
    assert "a<b>" not in page(sections) and Reader(page(sections))
    table = Table(NASTY, ["x", NASTY], [[NASTY, "1 ± 2"]], [NASTY], frozenset([NASTY]))
    assert markdown(table).splitlines()[2] == '| x | a<b>&"c"\\|d_e%f |'
    assert r"a\textless{}b\textgreater{}\&" in latex(table) and r"1 $\pm$ 2" in latex(table)
    assert latex_text("a_b\\c") == r"a\_b\textbackslash{}c" and r"\begin{tabular}{lr}" in latex(table)


def test_markdown_and_latex_have_the_same_cells(sections):
    text = as_markdown(sections)
    assert "| searched architecture, published | 51.00 ± 1.00 | 3 | 0, 1, 2 |" in text
    assert (
        "searched architecture, published | searched architecture, gdas | -10.50 | -16.85 to -4.15 | 2 | yes |" in text
    )
    assert r"searched architecture, published & 51.00 $\pm$ 1.00 & 3 & 0, 1, 2" in as_latex(sections)


def test_csv_has_a_line_per_score_with_full_numbers(sections):
    rows = list(csv.DictReader(io.StringIO(as_csv(sections))))
    (row,) = [r for r in rows if r["kind"] == "training" and r["strategy"] == "published"]
    assert float(row["mean"]) == pytest.approx(0.51) and float(row["standard_deviation"]) == pytest.approx(0.01)
    assert row["seeds"] == "0 1 2" and float(row["parameters"]) == 42 and row["not_comparable_with_published"] == ""


def test_the_difference_of_two_architectures_is_marked_and_told():
    first = load_genotype(GENOTYPE)
    value = first.to_dict()
    value["steps"][0]["inner_steps"] = ["Sum"] if first.steps[0].inner_steps != ("Sum",) else ["ConcatFC"]
    value["edges"][0] = [
        value["edges"][0][0],
        next(i for i in range(6) if [value["edges"][0][0], i] not in value["edges"]),
    ]
    second = type(first).from_dict(value)
    marked, words = highlighted(second.to_svg(), first.to_svg())
    ET.fromstring(marked)
    assert marked.count('class="node differs"') >= 1 and marked.count('class="edge differs"') >= 1
    assert any(" instead of " in word for word in words) and any(word.startswith("connection ") for word in words)
    assert highlighted(first.to_svg(), first.to_svg()) == (first.to_svg(), [])


def test_the_front_holds_what_nothing_beats():
    points = [(5, 0.7), (1, 0.5), (3, 0.4), (3, 0.6), (9, 0.7), (1, 0.3)]
    assert pareto_front(points) == [(1, 0.5), (3, 0.6), (5, 0.7)]


def test_parameters_and_scores_make_a_front(tmp_path):
    for number, size in enumerate((10, 30)):
        arguments, parameters = {"C": number + 1}, {"fusion": size, "classifier": 2}
        make_run(tmp_path, name=f"n{number}", score=0.5 + 0.1 * number, arguments=arguments, parameters=parameters)
    text = page(sections_of(compare(read_runs([tmp_path]))))
    assert "test f1, % against parameters" in text and text.count("on the front: ") == 2


def test_fronts_of_searches_are_drawn_from_their_results_in_one_picture(tmp_path):
    sizes = ((10, 0.5), (20, 0.7), (30, None))
    for seed in (0, 1):
        front = [{"score": y and y - 0.1 * seed, "parameters": x, "flops": 2 * x} for x, y in sizes]
        trainings = {"objectives": ["score", "parameters", "flops"], "front": front}
        make_run(tmp_path, seed, kind="search", trainings=trainings)
    make_run(tmp_path, 2, kind="search", trainings={"objectives": 3, "front": [{"score": 1}]})
    text = page(sections_of(compare(read_runs([tmp_path]))))
    assert "Pareto fronts of 2 searches: score against parameters and flops" in text
    assert "seed 0: 3 candidates on its front, 2 of them on the front of all runs" in text
    assert "seed 1: 3 candidates on its front, 0 of them on the front of all runs" in text
    picture = next(part for part in text.split("<figure>") if "Pareto fronts" in part)
    assert picture.count("<circle") == 2 * 2 * 2 and picture.count(">flops<") == 1


def test_a_page_of_many_runs_stays_small(runs, monkeypatch, sections):
    whole = len(page(sections).encode())
    monkeypatch.setattr("reports.page.MAX_BYTES", 40_000)
    short = page(sections)
    assert len(short.encode()) < whole - 10_000 and "Some pictures are left out" in short
    assert MAX_BYTES < 5_000_000


def test_the_script_writes_what_the_suffix_says(runs, tmp_path, capsys):
    assert report.main([str(runs)]).startswith("# Report") and "## mmimdb: searches" in capsys.readouterr().out
    report.main([str(runs), "--out", str(tmp_path / "t.tex")])
    assert r"\toprule" in (tmp_path / "t.tex").read_text()
    with pytest.raises(UserError, match=r"--out t\.doc: \.doc is not a known format; pass --format"):
        report.main([str(runs), "--out", "t.doc"])
    with pytest.raises(UserError, match="not a folder"):
        report.main([str(tmp_path / "missing")])


def test_a_robustness_file_of_another_form_is_named(tmp_path):
    folder = make_run(tmp_path)
    (folder / "robustness.json").write_text('{"curves": [{"x": [1], "series": {"f1": [1, 2]}, "title": "t"}]}')
    assert "robustness.json does not have the format" in page(sections_of(compare(read_runs([tmp_path]))))


def get(server, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=10) as answer:
        return answer.read().decode()


def test_watch_serves_a_page_that_changes_with_the_runs(tmp_path):
    with watch.make_server([str(tmp_path)], 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert "No run yet" in get(server, "/")
            folder = make_run(tmp_path, kind="search", finished=False)
            (folder / "architectures").mkdir()
            (folder / "architectures" / "epoch_2.svg").write_text(load_genotype(GENOTYPE).to_svg())
            first, text = get(server, "/version"), get(server, "/")
            assert first in text and "3 of 3" in text and "unchanged for 2 epochs" in text and text.count("<svg") == 4
            assert get(server, "/version") == first
            with open(folder / "log.jsonl", "a") as file:
                file.write(
                    (folder / "log.jsonl").read_text().splitlines()[-1].replace('"epoch": 2', '"epoch": 3') + "\n"
                )
            assert get(server, "/version") != first and "4 of 3" in get(server, "/")
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(server, "/args.json")
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(UserError, match="not a folder"):
        watch.make_server([str(tmp_path / "missing")], 0)
