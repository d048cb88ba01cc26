"""Genotypes: they are read back as written, checked field by field, and can never run code."""

import io
import json
import os
import pickle
import random
import sys
import types
from collections import namedtuple
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bmnas.operations import STEP_OPERATIONS
from models.genotypes import (
    FusionGenotype,
    StepGenotype,
    check_genotype,
    eligible_pairs,
    load_genotype,
    random_genotype,
)
from util.cli import UserError

# The worked example of the paper's MM-IMDB network, in the original's field order.
EXAMPLE = (
    [("skip", 2), ("skip", 5), ("skip", 3), ("skip", 5)],
    [
        ([("skip", 0), ("skip", 1)], ["ScaleDotAttn"], [2]),
        ([("skip", 1), ("skip", 0)], ["LinearGLU"], [2]),
    ],
    [6, 7],
)


def example():
    edges, steps, concat = EXAMPLE
    steps = tuple(StepGenotype(tuple(e), tuple(names), tuple(c)) for e, names, c in steps)
    return FusionGenotype(tuple(edges), steps, tuple(concat))


@st.composite
def sizes(draw):
    """Sizes of a search space, including more concatenated states than steps."""
    num_inputs, steps, node_steps = draw(st.integers(2, 8)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return {
        "num_inputs": num_inputs,
        "steps": steps,
        "multiplier": draw(st.integers(1, num_inputs + steps)),
        "node_steps": node_steps,
        "node_multiplier": draw(st.integers(1, 2 + node_steps)),
    }


@settings(max_examples=80, deadline=None)
@given(sizes(), st.integers(0, 10**6), st.booleans())
def test_random_genotypes_are_valid_and_survive_json(size, seed, named):
    names = [f"Input {i} <é>" for i in range(size["num_inputs"])] if named else []
    genotype = random_genotype(random.Random(seed), list(STEP_OPERATIONS), inputs=names, **size)
    genotype.check(STEP_OPERATIONS, size["num_inputs"])
    assert FusionGenotype.from_dict(json.loads(json.dumps(genotype.to_dict()))) == genotype
    assert genotype.num_inputs == size["num_inputs"]
    assert len(genotype.concat) == size["multiplier"] and genotype.concat[-1] == size["num_inputs"] + size["steps"] - 1
    for step in genotype.steps:
        assert len(step.inner_steps) == size["node_steps"]
        assert step.inner_concat == tuple(range(2 + size["node_steps"]))[-size["node_multiplier"] :]


def test_a_saved_genotype_is_read_back(tmp_path):
    path = tmp_path / "new folder" / "genotype.json"
    example().save(path)
    assert load_genotype(path) == example()
    assert json.loads(path.read_text())["edges"] == [["skip", 2], ["skip", 5], ["skip", 3], ["skip", 5]]


@pytest.fixture
def originals(monkeypatch):
    """The original's two classes, importable under their original module path."""
    module = types.ModuleType("models.search.darts.genotypes")
    for name, fields in (("Genotype", "edges steps concat"), ("StepGenotype", "inner_edges inner_steps inner_concat")):
        setattr(module, name, namedtuple(name, fields, module=module.__name__))
    for parent in ("models.search", "models.search.darts"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def original_example(module, rename=None):
    edges, steps, concat = EXAMPLE
    rename = rename or {}
    steps = [module.StepGenotype(e, [rename.get(name, name) for name in names], c) for e, names, c in steps]
    return module.Genotype(edges, steps, concat)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_the_original_are_read(originals, tmp_path, protocol):
    path = tmp_path / "best_genotype.pkl"
    path.write_bytes(pickle.dumps(original_example(originals), protocol=protocol))
    assert load_genotype(path) == example()


@pytest.mark.parametrize(
    ("older", "name"),
    [("sum", "Sum"), ("scale_dot_attn", "ScaleDotAttn"), ("cat_conv_glu", "LinearGLU"), ("cat_conv_relu", "ConcatFC")],
)
def test_older_operation_names_are_translated(originals, tmp_path, older, name):
    path = tmp_path / "best_genotype.pkl"
    path.write_bytes(pickle.dumps(original_example(originals, {"ScaleDotAttn": older})))
    assert load_genotype(path).steps[0].inner_steps == (name,)


class _Reduces:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("inside", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_does_nothing(originals, tmp_path, protocol, inside):
    harm = _Reduces(os.system, f"touch {tmp_path / 'harm'}")
    value = originals.Genotype(harm, [], [6, 7]) if inside else harm
    path = tmp_path / "g.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    with pytest.raises(UserError, match=r"g\.pkl is not a genotype: it names \w+\.system") as error:
        load_genotype(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harm").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "harm").exists(), "the pickle would have run code"


def test_classes_from_elsewhere_are_refused_without_importing_them(tmp_path):
    (tmp_path / "g.pkl").write_bytes(b"cmodels.search.darts.no_such_module\nGenotype\n)R.")
    with pytest.raises(UserError, match=r"it names models\.search\.darts\.no_such_module\.Genotype"):
        load_genotype(tmp_path / "g.pkl")
    assert "models.search.darts.no_such_module" not in sys.modules
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(io.BytesIO(b"x")))
    with pytest.raises(UserError, match=r"_io\.BytesIO"):
        load_genotype(tmp_path / "g.pkl")


@pytest.mark.parametrize("value", [None, {"edges": []}, [1, 2]])
def test_a_pickle_of_something_else_is_refused(tmp_path, value):
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match=r"g\.pkl is not a genotype: .*holds something else"):
        load_genotype(tmp_path / "g.pkl")


def test_damaged_pickles_give_one_line(originals, tmp_path):
    """Every prefix of a real genotype file, an impossible length inside it, and other files under its name."""
    whole = pickle.dumps(original_example(originals), protocol=4)
    damaged = [whole[:n] for n in range(len(whole))]
    damaged += [whole[:3] + b"\xff" * 8 + whole[11:], b"text\n", b"a line of text\n", b"<html>", b"{}\n", b"\x80\xff."]
    path = tmp_path / "g.pkl"
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"g\.pkl is not a genotype: .") as error:
            load_genotype(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["g.json", "g.pkl"])
def test_a_missing_or_misplaced_file_is_named(tmp_path, name):
    with pytest.raises(UserError, match=rf"{name} does not exist"):
        load_genotype(tmp_path / name)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=name):
        load_genotype(tmp_path / "file" / name)


def changed(path, value):
    """The example's dict with the entry at ``path`` replaced, or removed for ``...``."""
    whole = json.loads(json.dumps(example().to_dict()))
    place = whole
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return whole


SKIP = ["skip", 0]
INVALID = {
    "unknown operation": (("steps", 1, "inner_steps", 0), "Multiply", r"steps\[1\].*'Multiply'.*Sum"),
    "unknown edge operation": (("edges", 2), ["jump", 0], r"edges\[2\].*'jump'"),
    "unknown inner edge operation": (
        ("steps", 0, "inner_edges", 1),
        ["jump", 0],
        r"steps\[0\]\.inner_edges\[1\].*'jump'",
    ),
    "state from the future": (("edges", 1), ["skip", 6], r"edges\[1\] reads state 6; states 0\.\.5"),
    "own output": (("edges", 3), ["skip", 7], r"edges\[3\] reads state 7; states 0\.\.6"),
    "negative state": (("edges", 0), ["skip", -1], r"edges\[0\] reads state -1"),
    "inner state from the future": (
        ("steps", 1, "inner_edges", 0),
        ["skip", 2],
        r"steps\[1\]\.inner_edges\[0\] reads state 2; states 0\.\.1",
    ),
    "odd edges": (("edges",), [SKIP] * 3, r"3 edges for 2 steps"),
    "too many edges": (("edges",), [SKIP] * 6, r"6 edges for 2 steps"),
    "odd inner edges": (("steps", 0, "inner_edges"), [SKIP], r"steps\[0\] has 1 inner edges for 1 inner steps"),
    "no steps": (("steps",), [], r"edges for 0 steps"),
    "no inner steps": (("steps", 1), {"inner_edges": [], "inner_steps": [], "inner_concat": [1]}, r"steps\[1\]"),
    "empty concat": (("concat",), [], r"concat"),
    "concat with a gap": (("concat",), [5, 7], r"concat is \[5, 7\]"),
    "concat out of order": (("concat",), [7, 6], r"7, 6|6 input features|5 input features"),
    "negative concat": (("concat",), [-1, 0], r"concat|input features"),
    "empty inner concat": (("steps", 0, "inner_concat"), [], r"steps\[0\]\.inner_concat is \[\]"),
    "wrong inner concat": (("steps", 0, "inner_concat"), [1], r"steps\[0\]\.inner_concat is \[1\]"),
    "too long inner concat": (("steps", 0, "inner_concat"), [-1, 0, 1, 2], r"steps\[0\]\.inner_concat"),
    "other number of inputs": (("concat",), [8, 9], r"made for 8 input features, the network has 6"),
    "missing edges": (("edges",), ..., r"edges"),
    "missing concat": (("concat",), ..., r"concat"),
    "missing steps": (("steps",), ..., r"steps"),
    "missing inner steps": (("steps", 0, "inner_steps"), ..., r"inner_steps"),
    "missing inner concat": (("steps", 1, "inner_concat"), ..., r"inner_concat"),
    "index as text": (("edges", 0), ["skip", "2"], r"'2' is not an index"),
    "index as fraction": (("edges", 0), ["skip", 2.0], r"2\.0 is not an index"),
    "index as truth value": (("concat",), [6, True], r"True is not an index"),
    "operation as number": (("steps", 0, "inner_steps", 0), 3, r"steps\[0\].*3"),
}


@pytest.mark.parametrize("fault", INVALID)
def test_an_invalid_genotype_is_named_in_one_line(tmp_path, fault):
    path, value, message = INVALID[fault]
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(UserError, match=message) as error:
        check_genotype(load_genotype(file), STEP_OPERATIONS, 6, file)
    assert "\n" not in str(error.value) and str(file) in str(error.value)


WRONG_FORM = {
    "number for edges": (("edges",), 5, "edges"),
    "null for edges": (("edges",), None, "edges"),
    "edge with three parts": (("edges", 1), ["skip", 0, 0], "edges"),
    "edge with one part": (("edges", 1), ["skip"], "edges"),
    "edge as number": (("edges", 1), 5, "edges"),
    "number for concat": (("concat",), 7, "concat"),
    "number for steps": (("steps",), 2, "steps"),
    "step as number": (("steps", 0), 2, "steps"),
    "step as list": (("steps", 0), [1, 2], "steps"),
    "number for inner steps": (("steps", 0, "inner_steps"), 2, "inner_steps"),
    "list as operation": (("steps", 0, "inner_steps", 0), ["Sum"], "inner_steps"),
    "null for inputs": (("inputs",), None, "inputs"),
}


@pytest.mark.parametrize("fault", WRONG_FORM)
def test_a_field_of_the_wrong_form_is_named_in_one_line(fault):
    path, value, field = WRONG_FORM[fault]
    with pytest.raises(ValueError, match=field) as error:
        FusionGenotype.from_dict(changed(path, value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, [], "genotype", 3])
def test_json_that_is_no_object_is_refused(tmp_path, value):
    (tmp_path / "g.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"g\.json is not a genotype: a JSON object was expected"):
        load_genotype(tmp_path / "g.json")


@pytest.mark.parametrize("text", ["", "{", "\x80"])
def test_broken_json_is_refused(tmp_path, text):
    (tmp_path / "g.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"g\.json is not a readable JSON file"):
        load_genotype(tmp_path / "g.json")


SPACE = {"num_inputs": 6, "steps": 2, "multiplier": 2, "node_steps": 2, "node_multiplier": 2}


def draw(seed, **changes):
    return random_genotype(random.Random(seed), list(STEP_OPERATIONS), **{**SPACE, **changes})


def test_random_genotypes_depend_on_the_seed_alone():
    random.seed(1)
    first = [draw(seed) for seed in range(30)]
    random.seed(2)
    assert [draw(seed) for seed in range(30)] == first
    assert len(set(first)) == 30
    operations = {name for genotype in first for step in genotype.steps for name in step.inner_steps}
    assert operations == set(STEP_OPERATIONS)
    assert {index for genotype in first for _, index in genotype.edges} == set(range(6))


def test_random_genotypes_are_ones_that_a_search_can_derive():
    """Pairs of inputs are ordered and never both taken already, and inner states of a pair differ."""
    for seed in range(100):
        genotype = draw(seed)
        taken = set()
        for x, y in zip(genotype.edges[::2], genotype.edges[1::2], strict=True):
            assert x[0] == y[0] == "skip" and x[1] < y[1] < 6
            assert not {x[1], y[1]} <= taken
            taken |= {x[1], y[1]}
        for step in genotype.steps:
            assert step.inner_edges[0][1] != step.inner_edges[1][1] and step.inner_edges[2][1] != step.inner_edges[3][1]


def test_pairs_run_out():
    """With 4 inputs and 3 steps, two disjoint pairs use all inputs, and every pair becomes eligible again."""
    everything = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert eligible_pairs(4, set()) == everything
    assert eligible_pairs(4, {0, 1}) == everything[1:]
    assert eligible_pairs(4, {0, 1, 2}) == [(0, 3), (1, 3), (2, 3)]
    assert eligible_pairs(4, {0, 1, 2, 3}) == everything
    exhausted = 0
    for seed in range(50):
        genotype = draw(seed, num_inputs=4, steps=3)
        genotype.check(STEP_OPERATIONS, 4)
        exhausted += len({index for _, index in genotype.edges[:4]}) == 4
    assert exhausted > 5
    draw(0, num_inputs=2, steps=3).check(STEP_OPERATIONS, 2)


def test_used_inputs_are_those_that_steps_read():
    assert example().used_inputs() == [2, 3, 5]
    chained = changed(("edges", 2), ["skip", 6])
    assert FusionGenotype.from_dict(chained).used_inputs() == [2, 5]


def test_pictures_are_svg_with_every_operation_and_used_input():
    genotype = FusionGenotype.from_dict({**example().to_dict(), "inputs": [f"Feature {i}" for i in range(6)]})
    svg = genotype._repr_svg_()
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    for text in ("ScaleDotAttn", "LinearGLU", "Feature 2", "Feature 3", "Feature 5"):
        assert text in svg


def test_text_form_shows_wiring_in_argument_order():
    assert str(example()) == "step 0: (2, 5) -> ScaleDotAttn(0, 1); step 1: (3, 5) -> LinearGLU(1, 0); concat [6, 7]"
    cut = FusionGenotype.from_dict(changed(("edges", 0), ["none", 2]))
    assert str(cut).startswith("step 0: (none 2, 5) -> ")


def test_genotypes_are_values():
    """Genotypes are equal by content, hashable, and immutable."""
    assert len({example(), example(), draw(0)}) == 2
    with pytest.raises(AttributeError):
        example().concat = (7,)


def test_the_shipped_example_is_valid():
    genotype = load_genotype(Path(__file__).parent.parent.parent / "genotypes" / "mmimdb_example.json")
    genotype.check(STEP_OPERATIONS, 6)
    assert len(genotype.inputs) in (0, 6)
