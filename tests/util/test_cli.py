"""How scripts end: one line for errors of the user or the machine, a traceback for errors of the program."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from util.cli import UserError, is_out_of_memory, run_cli

ROOT = Path(__file__).resolve().parent.parent.parent


def ended(error, capsys):
    """Exit code and output of a script that raises ``error``."""

    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        run_cli(main)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError(),
        RuntimeError(),
        RuntimeError("shape mismatch"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
    ],
    ids=repr,
)
def test_a_fault_of_the_program_keeps_its_traceback(error, capsys):
    """An error without a message is not a known error either."""
    with pytest.raises(type(error)):
        run_cli(lambda: (_ for _ in ()).throw(error))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("--x 1: use 2"), "--x 1: use 2"),
        (MemoryError(), "not enough memory; use smaller sizes"),
        (MemoryError("Unable to allocate 3 GiB"), "not enough memory: Unable to allocate 3 GiB; use smaller sizes"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory: [Errno 12] Cannot allocate memory; "),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried"), "not enough memory: CUDA out of memory. Tried; "),
        (
            RuntimeError("Caught it in DataLoader worker\nTraceback\nRuntimeError: can't allocate memory: 9 bytes"),
            "not enough memory: RuntimeError: can't allocate memory: 9 bytes; use smaller sizes",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "a/b.json"), "a/b.json: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error; everything saved so far is kept"),
    ],
)
def test_what_user_or_machine_lack_is_one_line(error, line, capsys):
    code, printed = ended(error, capsys)
    assert code == 2 and printed.startswith(f"error: {line}") and printed.count("\n") == 1


def test_torch_says_in_these_words_that_memory_has_run_out():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize(("rank", "lines"), [(None, 1), ("0", 1), ("1", 0)])
def test_of_several_processes_one_reports_an_interrupt(rank, lines, capsys, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    code, printed = ended(KeyboardInterrupt("continue with --resume r"), capsys)
    assert code == 130 and printed.strip() == "interrupted; continue with --resume r" * lines


@pytest.mark.parametrize("script", ["report.py", "datasets/prepare_own.py", "tools/gallery.py", None])
def test_an_interrupt_during_imports_is_one_line_in_scripts_only(script):
    main = f"sys.modules['__main__'].__file__ = {str(ROOT / script)!r}" if script else "pass"
    lines = ["import os, signal, sys", main, "import util.cli", "os.kill(os.getpid(), signal.SIGINT)", "print('on')"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True)
    if script and not script.startswith("tools"):
        assert (done.returncode, done.stderr, done.stdout) == (130, "\ninterrupted\n", "")
    else:
        assert "KeyboardInterrupt" in done.stderr and done.returncode not in (0, 130)
