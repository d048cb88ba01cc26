"""Starts one process per GPU for a script that was started once: what torchrun does, for `--GPU '0, 1, 2, 3'`."""

import os
import socket
import sys

from util.cli import UserError, run_cli


def launch(main, argv, gpus, device="auto"):
    """Run ``main(argv)`` once for each GPU of a list, or say that this process shall do it alone.

    The processes form one group; each finds its place in the environment, as under torchrun.

    Args:
        main: A script's `main`, importable by name.
        argv: Its arguments; None takes this process's.
        gpus: Value of ``--GPU``, e.g. ``"0, 1"``, or None.
        device: Value of ``--device``; ``cpu`` starts as many processes without any GPU.

    Returns:
        Whether the work has been done by others.

    Raises:
        UserError: the list is no list, or names a GPU that is not there, or a process was killed.
        SystemExit: a process failed; its own message is on stderr.
    """
    if gpus is None or "RANK" in os.environ:
        return False
    numbers = [word.strip() for word in gpus.split(",") if word.strip()]
    if not numbers or not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise UserError(f"--GPU {gpus!r} is no list of GPUs; expected numbers, e.g. --GPU '0, 1, 2, 3'")
    import torch

    # Asked before the variable is set: afterwards torch counts only those that are named.
    count = torch.cuda.device_count() if device != "cpu" else len(numbers)
    if device != "cpu" and max(map(int, numbers)) >= count:
        raise UserError(f"--GPU {gpus}: this torch sees {count or 'no'} GPUs; leave the flag out, or pass --device cpu")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(numbers)
    if len(numbers) == 1:
        return False
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        torch.multiprocessing.spawn(_work, (main, words, len(numbers), _free_port()), nprocs=len(numbers))
    except torch.multiprocessing.ProcessExitedException as error:
        if error.signal_name:  # it could not say anything itself
            reason = ", most likely because memory ran out" if error.signal_name == "SIGKILL" else ""
            raise UserError(
                f"process {error.error_index} was killed by {error.signal_name}{reason}; --resume RUN_DIR goes on"
            ) from None
        sys.exit(error.exit_code)
    return True


def _work(rank, main, argv, world_size, port):
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    run_cli(lambda: main(argv))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
