"""How a script ends: a user's mistake is one clear line and a non-zero exit, never a traceback."""

import errno
import os
import sys
from collections.abc import Callable

# How torch and the system say that memory has run out; torch has no exception of its own for a CPU's.
_MEMORY_SIGNS = ("out of memory", "allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
# Faults of the machine, and not of the program: no space, no rights, a broken disk or file server, too many files.
SYSTEM_FAULTS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "EMFILE", "ENFILE", "ENAMETOOLONG")
    if hasattr(errno, name)
}


class UserError(Exception):
    """A mistake that the user can mend.

    The message is shown as it is. It names the file or flag, says what was expected, and gives
    the remedy (a command or a flag).
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory has run out: by its type or in words, never by saying nothing."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _MEMORY_SIGNS)


def run_cli(main: Callable[[], object]) -> None:
    """Run ``main()`` as a script: user errors exit with 2, an interrupt with 130; other errors keep their traceback.

    Of several processes that were started together only the first reports an interrupt, which reaches all of them.
    """
    _print_any_name()
    try:
        main()
    except UserError as error:
        print(f"error: {_message(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        if os.environ.get("RANK", "0") == "0":
            print(f"\ninterrupted; {str(interrupt) or 'what was saved so far is kept'}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone: not a fault, and nothing left to say.
        sys.stderr.close()
        sys.exit(141)
    except (MemoryError, RuntimeError, OSError) as error:
        text = _known(error)
        if text is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        sys.exit(2)


def _known(error: BaseException) -> str | None:
    """One line on what the machine, and not the program, lacks; None for any other error."""
    if died := dead_worker(error):
        return died
    if is_out_of_memory(error):
        # A data loading process puts a traceback in front.
        lines = [line for line in str(error).splitlines() if any(sign in line for sign in _MEMORY_SIGNS)]
        reason = " ".join((lines[-1] if lines else str(error)).split())[:200]
        return f"not enough memory{f': {reason}' if reason else ''}; use smaller sizes"
    if isinstance(error, OSError) and error.errno in SYSTEM_FAULTS:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; what was saved so far is kept"
    return None


def dead_worker(error: BaseException) -> str | None:
    """One line about the `RuntimeError` by which torch reports that a data worker died; None for any other error.

    torch raises it from a signal handler, so it can come out of any line of the main process.
    """
    text = " ".join(str(error).split())
    if isinstance(error.__cause__, RuntimeError):  # torch's first word, which names the signal
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
    return f"{reason}; use a smaller --num_workers (0 reads in the main process), and --resume RUN_DIR to go on"


def _print_any_name():
    """Let a file name be printed whatever its bytes and the terminal's encoding are, as ``\\udcd5`` where need be."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _message(error: BaseException) -> str:
    # A data loading process hands its error on with a traceback in front of the message.
    message = str(error).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
    # A name of a file, too, may hold a line end.
    return " ".join(message.splitlines())
