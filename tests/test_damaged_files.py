"""Damaged files of every format: they are read, or refused in one line; never another exception, never a hang."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.damage import damaged_bytes, damaged_value, examples, no_hang
from tests.damaged_cases import CASES
from tests.damaged_own import OWN
from tests.damaged_runs import RUNS
from util.cli import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def refused(case, scratch):
    """Whether the damaged file of a case is refused; any exception but a user error of one line is a fault."""
    try:
        with no_hang():
            case.read(scratch)
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return True
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return False


@pytest.mark.parametrize("name", [*CASES, *RUNS, *OWN])
def test_damaged_files_are_read_or_refused(folder, name, tmp_path):
    case = (CASES | RUNS | OWN)[name](folder)
    whole = case.path.read_bytes()
    assert not refused(case, tmp_path / "scratch"), "the whole file is read"

    @examples(4)
    @given(st.data())
    def attempt(data):
        if case.value is not None and data.draw(st.booleans()):
            case.write(data.draw(damaged_value(case.value)))
        else:
            case.path.write_bytes(data.draw(damaged_bytes(whole)))
        (tmp_path / "scratch").mkdir(exist_ok=True)
        refused(case, tmp_path / "scratch")

    try:
        attempt()
    finally:
        case.path.write_bytes(whole)
