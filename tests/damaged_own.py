"""Data of one's own, and what reports, sweeps and tables of networks read: small files to damage, and their readers."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.damaged_cases import Case, Checkpoint, json_case
from tests.run_folders import make_run

ROWS = [
    {"id": f"s{n}", "words": f"a plot of {n}", "size": n / 4, "land": ("FR", "US")[n % 2], "genre": "abc"[n % 3]}
    for n in range(24)
]
FLAGS = ["--text", "words", "--numbers", "size", "--categories", "land", "--label", "genre"]


def _read_own(folder):
    from datasets.checks import Report
    from datasets.own import open_own
    from datasets.own.check import check

    for split in ("train", "dev", "test"):
        data = open_own(folder, split)
        rows, names = range(min(3, len(data))), [name for name in data.manifest.modalities if name != "text"]
        batch = data.read(rows, only=names)
        for name in data.manifest.modalities:
            data.raw(name, rows)
        numbers = [value for value in batch.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
        assert all(bool(torch.isfinite(value).all()) for value in numbers), "no NaN reaches a network"
    check(Report(), folder)


def _prepare_own(flags, out):
    from datasets.prepare_own import main

    main([*flags, "--out", str(out), "--workers", "0"])


def _prepared(flags):
    """What reads a file that is prepared with ``flags``."""

    def read(scratch):
        _prepare_own(flags, scratch / "out")
        _read_own(scratch / "out")

    return read


def _table(name):
    def case(folder):
        place = folder / "own_tables"
        place.mkdir(exist_ok=True)
        path = place / name
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        elif path.suffix == ".parquet":
            arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            parquet.write_table(arrow.Table.from_pylist(ROWS), path)
        else:
            with open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ROWS[0], delimiter="\t" if path.suffix == ".tsv" else ",")
                writer.writeheader()
                writer.writerows(ROWS)
        return Case(path=path, read=_prepared(["--table", str(path), *FLAGS]), value=None)

    return case


def own_json(folder):
    path = folder / "rows.json"
    path.write_text(json.dumps(ROWS))
    return json_case(path, _prepared(["--table", str(path), *FLAGS]))


def _array(name):
    def case(folder):
        place = folder / "own_arrays"
        place.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        arrays = {"x": rng.normal(size=(24, 3)), "z": rng.normal(size=(24, 2, 2)), "y": np.arange(24) % 3}
        for key, array in arrays.items():
            np.save(place / f"{key}.npy", array)
        np.savez(place / "all.npz", **arrays)
        flags = ["--arrays", str(place / "all.npz")]
        if not name.endswith(".npz"):
            flags = ["--arrays", f"x={place / 'x.npy'}", f"z={place / 'z.npy'}", "--labels", str(place / "y.npy")]
        return Case(path=place / name, read=_prepared(flags), value=None)

    return case


def _store(name):
    """A file of a prepared folder."""

    def case(folder):
        place = folder / "own_store"
        if not place.exists():
            _table("films.csv")(folder)
            _prepare_own(["--table", str(folder / "own_tables" / "films.csv"), *FLAGS], place)
        path = place / name
        read = lambda _: _read_own(place)  # noqa: E731
        return json_case(path, read) if path.suffix == ".json" else Case(path=path, read=read, value=None)

    return case


def _report(place):
    from reports.comparing import compare
    from reports.contents import as_csv, as_latex, as_markdown, sections_of
    from reports.live import under_way, version_of
    from reports.page import page
    from reports.reading import read_runs

    records = read_runs([place])
    sections = sections_of(compare(records))
    for form in (as_markdown, as_latex, as_csv):
        form(sections)
    page(sections, head=under_way(records), live=version_of([place]))


def _run(name, kind):
    """A file of a run folder, read for a report, for the live page, and by `load_result`."""

    def case(folder):
        place = folder / "reported"
        if not place.exists():
            for seed in range(2):
                make_run(place, seed)
            make_run(place, kind="search")
        path = place / f"{kind}-EXP-0" / name

        def read(_):
            from tasks.results import load_result

            _report(place)
            load_result(path.parent)._repr_html_()

        return json_case(path, read) if path.suffix == ".json" else Case(path=path, read=read, value=None)

    return case


def sweep_plan(folder):
    from sweeping.plan import Command, RunOf, commands_text, jobs_of, plan_file
    from util.files import read_json

    path = folder / "sweep.json"
    search = Command("search", "main_darts_searchable_mmimdb.py", ("--seed", "1"), "out", "out/search-*")
    words = ("--search_exp_dir", RunOf("search", "out/search-*"))
    commands = [search, Command("train", "main_darts_found_mmimdb.py", words, "out", "out/search-*/eval-*")]
    path.write_text(json.dumps(plan_file([commands], {"seeds": [1]})))
    return json_case(path, lambda _: commands_text(jobs_of(read_json(path), folder)))


def derivation(folder):
    """What an interrupted derivation goes on from."""
    from search.derive import FILE_NAME, _Memory

    place, key = folder / "derivation", ["perturbation", "mixture", 3, 2]
    place.mkdir(exist_ok=True)
    (place / FILE_NAME).write_text(json.dumps({"key": key, "scores": [[0.5, -1.0], [0.25, -2.0], [3]]}))

    def read(_):
        run = SimpleNamespace(folder=place, write=lambda name, text: None)
        remember = _Memory(run, key)
        for _ in range(4):
            assert all(isinstance(number, (int, float)) for number in remember(lambda: (0.5, -1.0)))

    return json_case(place / FILE_NAME, read)


def fusion_bench(folder):
    from benchmarks.fusion_bench import FusionBench, describe
    from util.files import read_json

    path = folder / "bench.json"
    table = read_json("benchmarks/fusion_bench/htad.json")
    table["genotypes"] = table["genotypes"][:3]
    path.write_text(json.dumps(table))
    return json_case(path, lambda _: describe(FusionBench(str(path))))


def imported(folder):
    """A checkpoint of the original project that import_checkpoint.py makes a run folder of."""
    import import_checkpoint
    from models.mmnas.published import to_published
    from tests.damaged_runs import _vqa_network

    data, content = _vqa_network(folder / "imported")
    architecture, path = folder / "imported" / "arch.json", folder / "imported" / "epoch3.pkl"
    architecture.write_text(json.dumps({"epoch0": content["genotype"]}))
    value = {"state_dict": to_published(content["net"]), "optimizer": {}, "lr_base": 1e-4, "epoch": 3}
    torch.save(value, path)
    words = ["--task", "vqa", "--file", str(path), "--arch", str(architecture)]
    flags = ["--flags", "--data", str(data), "--hsize", "64"]
    read = lambda scratch: import_checkpoint.main([*words, "--out", str(scratch / "run"), *flags])  # noqa: E731
    return Checkpoint(path=path, read=read, value=value)


TABLES = ("films.csv", "films.tsv", "films.jsonl", "films.parquet")
ARRAYS = ("x.npy", "y.npy", "all.npz")
STORES = ("own.json", "train/label.npy", "train/numbers.npy", "train/text.bin", "train/text.ends.npy", "train/id.bin")
REPORTED = ("result.json", "run.json", "args.json", "log.jsonl")
OWN = {
    **{f"own {name}": _table(name) for name in TABLES},
    "own rows.json": own_json,
    **{f"own {name}": _array(name) for name in ARRAYS},
    **{f"own store {name}": _store(name) for name in STORES},
    **{f"reported {name} of a training": _run(name, "eval") for name in REPORTED},
    **{f"reported {name} of a search": _run(name, "search") for name in REPORTED},
    "sweep plan": sweep_plan,
    "derivation": derivation,
    "fusion bench": fusion_bench,
    "imported checkpoint": imported,
}
