"""The tool that counts how far a reader of a recipe travels."""

from tools.reading_distance import describe, trace_text

CALLS = [(0, "a.py", "main"), (1, "b.py", "Net.forward"), (1, "b.py", "Net.forward"), (1, "a.py", "finish")]


def test_changes_of_file_are_counted_and_marked():
    assert describe("in a step", CALLS) == "in a step: 3 functions, 2 files, 2 changes of file"
    marks = [line[0] for line in trace_text(CALLS).splitlines()]
    assert marks == ["*", "*", " ", "*"]
