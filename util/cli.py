"""How scripts end: a user error is reported in one line, without a traceback, and with a non-zero exit status."""

import argparse
import errno
import gc
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# Messages of torch and the system that report a lack of memory; torch has no exception type for CPU memory.
_MEMORY_SIGNS = ("out of memory", "allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
# Faults of the machine, not of the program: full disk, missing permissions, failing disk or server, too many files.
SYSTEM_FAULTS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "EMFILE", "ENFILE", "ENAMETOOLONG")
    if hasattr(errno, name)
}


class UserError(Exception):
    """An error that the user can fix.

    The message is shown as it is. It names the file or flag, states what was expected, and gives the remedy (a command
    or a flag).
    """


def quoted(path: object) -> str:
    """A path as a word of a command that can be pasted into a shell, whatever characters it contains."""
    return shlex.quote(str(path))


class OneLineParser(argparse.ArgumentParser):
    """A parser that keeps the layout of its description, and reports a usage error in one line."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        super().__init__(
            description=description, **{"formatter_class": argparse.RawDescriptionHelpFormatter, **options}
        )

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        self.exit(2, f"error: {message}; see {Path(sys.argv[0]).name} --help\n")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception reports, by its type or message, that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _MEMORY_SIGNS)


def _quiet_until_main():
    """Let Ctrl-C end a script without a traceback while it imports torch; `run_cli` restores the usual behaviour.

    Programs that only import modules of the suite keep their own behaviour: the main module must be a script of ours.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    root = Path(__file__).resolve().parent.parent
    ours = main is not None and Path(main).resolve().parent in (root, root / "datasets")
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours and usual and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _end_quietly)


def _end_quietly(number, frame):
    if os.environ.get("RANK", "0") == "0":
        os.write(2, b"\ninterrupted\n")
    os._exit(130)  # an exception could be caught, and mistaken for a fault, by what is being imported


def run_cli(main: Callable[[], object]) -> None:
    """Run ``main()`` as a script.

    A user error exits with status 2, an interrupt with 130. Other errors keep their traceback. An interrupt reaches all
    processes of a run, but only rank 0 reports it.
    """
    _print_any_name()
    try:
        if signal.getsignal(signal.SIGINT) is _end_quietly:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except UserError as error:
        print(f"error: {_message(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        if os.environ.get("RANK", "0") == "0":
            print(f"\ninterrupted; {str(interrupt) or 'everything saved so far is kept'}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (`| head`) has closed it, which is not an error.
        sys.stderr.close()
        sys.exit(141)
    except (MemoryError, RuntimeError, OSError) as error:
        text = _known(error)
        if text is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        sys.exit(2)
    finally:
        # Memory is freed with the process. Searching all of torch's objects for cycles first takes half a second.
        gc.freeze()


def _known(error: BaseException) -> str | None:
    """One line about an error that the machine caused and not the program; None for any other error."""
    if died := dead_worker(error):
        return died
    if is_out_of_memory(error):
        # A data loading process prepends a traceback.
        lines = [line for line in str(error).splitlines() if any(sign in line for sign in _MEMORY_SIGNS)]
        reason = " ".join((lines[-1] if lines else str(error)).split())[:200]
        return f"not enough memory{f': {reason}' if reason else ''}; use smaller sizes"
    if isinstance(error, OSError) and error.errno in SYSTEM_FAULTS:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; everything saved so far is kept"
    return None


def dead_worker(error: BaseException) -> str | None:
    """One line about the `RuntimeError` with which torch reports that a data worker died; None for any other error.

    torch raises it in a signal handler, so it can occur at any line of the main process.
    """
    text = " ".join(str(error).split())
    if isinstance(error.__cause__, RuntimeError):  # torch's first message, which names the signal
        text += " ".join(str(error.__cause__).split())
    signal = text.partition("killed by signal: ")[2].split(".")[0]
    if "Communication with the workers" in text or "items of ancdata" in text:
        reason = "too many open files for so many data workers (`ulimit -n 65536` raises the limit)"
    elif not text.startswith("DataLoader worker (pid"):
        return None
    elif signal == "Killed":
        reason = "a data worker was killed, most likely because memory ran out"
    elif signal == "Bus error":
        reason = "a data worker died of a bus error: a data file was cut short while it was read, or /dev/shm is full"
    elif signal:
        reason = f"a data worker died ({signal})"
    else:
        reason = "a data worker ended (its own message, if any, is above)"
    return f"{reason}; use a smaller --num_workers (0 reads in the main process), and continue with --resume RUN_DIR"


def _print_any_name():
    """Make every file name printable, whatever its bytes and the terminal's encoding, as ``\\udcd5`` if necessary."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _message(error: BaseException) -> str:
    # A data loading process prepends a traceback to the message.
    message = str(error).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
    # File names may contain line breaks.
    return " ".join(message.splitlines())


_quiet_until_main()
