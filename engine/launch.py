"""Starts one process per GPU for ``--GPU '0, 1, 2, 3'``, as torchrun would."""

import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from engine.identity import remember_launch
from util.cli import UserError, run_cli

logger = logging.getLogger("mdarts")

MASK = "CUDA_VISIBLE_DEVICES"
# Seconds to wait for processes to end after an interrupt, which a terminal sends to all of them.
_GRACE = 10


def launch(script: str, argv: Sequence[str] | None, gpus: str | None, device: str = "auto") -> bool:
    """Run a script's ``main(argv)`` in one process per GPU of a list.

    The processes form one group. As under torchrun, each reads its rank from environment variables.

    Args:
        script: Name of the script's module, its ``__name__``.
        argv: Its command line; None: that of this process.
        gpus: Value of ``--GPU``, e.g. ``"0, 1"``, or None; see `choose_gpus`.
        device: Value of ``--device``; ``cpu`` starts the same number of processes without GPUs.

    Returns:
        True if other processes have done the work; False if the caller should do it itself.

    Raises:
        UserError: the list is malformed or names a GPU that does not exist, or a process was killed.
        SystemExit: a process failed (its own message is on stderr), or all were interrupted.
    """
    if gpus is None or "RANK" in os.environ:
        return False
    import torch

    if device == "cpu":
        count = len(_words(gpus, _names(os.environ.get(MASK))))
    else:
        # The GPUs must be counted before the variable is set; afterwards torch only sees the chosen ones.
        chosen = choose_gpus(gpus, os.environ.get(MASK), torch.cuda.device_count())
        if os.environ.get(MASK) is not None:
            logger.info("--GPU %s: %s of %s=%s", gpus, ",".join(chosen), MASK, os.environ[MASK])
        os.environ[MASK] = ",".join(chosen)
        count = len(chosen)
    if count == 1:
        return False
    words = list(sys.argv[1:] if argv is None else argv)
    _wait(torch.multiprocessing.spawn(_work, (script, words, count, _free_port()), nprocs=count, join=False))
    return True


def choose_gpus(gpus: str, mask: str | None, count: int) -> list[str]:
    """Convert a ``--GPU`` list to entries of `CUDA_VISIBLE_DEVICES`.

    Args:
        gpus: Numbers of GPUs as torch counts them, from 0 within the mask; or, if these do not exist, entries of the
            mask itself, as a scheduler assigns them (``4,5``, ``GPU-3f2a...``, ``MIG-...``).
        mask: Value of `CUDA_VISIBLE_DEVICES`, or None if it is not set.
        count: Number of GPUs that torch sees within the mask.

    Returns:
        List of names: entries of the mask if there is one, otherwise numbers.

    Raises:
        UserError: the list is malformed or names a GPU that does not exist.
    """
    # CUDA ignores everything after the first unknown name, so the first `count` names are the GPUs that exist.
    names = list(map(str, range(count))) if mask is None else _names(mask)[:count]
    words = _words(gpus, names)
    if all(word.isdecimal() and int(word) < len(names) for word in words):
        chosen = [names[int(word)] for word in words]
    elif set(words) <= set(names):
        chosen = words
    else:
        seen = f"{count or 'no'} GPUs" + (f" within {MASK}={mask}" if mask is not None else "")
        known = f"count them from 0 to {count - 1}" if count else "drop the flag"
        named = f", or name them: {', '.join(names)}" if count and mask is not None else ""
        raise UserError(f"--GPU {gpus}: this torch sees {seen}; {known}{named}, or pass --device cpu")
    if len(set(chosen)) < len(chosen):
        raise UserError(f"--GPU {gpus!r} names a GPU twice; name each GPU once")
    return chosen


def _names(mask):
    return [word.strip() for word in (mask or "").split(",")]


def _words(gpus, names):
    """Parse a ``--GPU`` list into distinct entries, each a number or one of ``names``."""
    words = [word.strip() for word in gpus.split(",") if word.strip()]
    fit = all(word.isdecimal() or word in names for word in words)
    if not words or len(set(words)) < len(words) or not fit:
        raise UserError(
            f"--GPU {gpus!r} is not a list of GPUs; expected different numbers, e.g. --GPU '0, 1, 2, 3', or names from "
            f"{MASK}"
        )
    return words


def _wait(context):
    """Wait for the processes that `torch.multiprocessing.spawn` has started.

    Raises:
        UserError: a process was killed.
        SystemExit: a process failed, or all were interrupted; they have printed their own messages.
    """
    from torch.multiprocessing import ProcessExitedException

    try:
        while not context.join():
            pass
    except ProcessExitedException as error:
        if error.signal_name:  # a killed process could not print a message itself
            reason = ", most likely because memory ran out" if error.signal_name == "SIGKILL" else ""
            raise UserError(
                f"process {error.error_index} was killed by {error.signal_name}{reason}; continue with --resume RUN_DIR"
            ) from None
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        # Suppress a second interrupt by an impatient user, which must not leave processes behind.
        with contextlib.suppress(KeyboardInterrupt):
            for process in context.processes:
                process.join(_GRACE)
        for process in context.processes:
            if process.is_alive():
                process.terminate()
        sys.exit(128 + signal.SIGINT)


def _work(rank, script, argv, world_size, port):
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    remember_launch()
    # A script that runs as __main__ is also __main__ in this process.
    run_cli(lambda: importlib.import_module(script).main(argv))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
