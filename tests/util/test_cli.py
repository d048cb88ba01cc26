"""How a script ends on a fault of the machine it runs on."""

import errno
import os

import pytest

from util.cli import run_cli


def fails(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("path", ["/data/log.jsonl", None])
def test_a_fault_of_the_machine_is_one_line(capsys, number, path):
    with pytest.raises(SystemExit) as end:
        run_cli(fails(OSError(number, os.strerror(number), path)))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and os.strerror(number) in line and (path or "") in line


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(FileNotFoundError):
        run_cli(fails(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")))
