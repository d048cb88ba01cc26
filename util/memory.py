"""The memory that is available to a process, within the limits of the machine and of its container."""

import os
from pathlib import Path, PurePosixPath

# Files with the limit and the usage of a control group, and the entry of memory.stat for inactive page cache.
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_memory(root: Path | str = "/") -> int:
    """Number of bytes that are available without swapping; 0 if the system does not report it.

    Page cache counts as available, since the kernel releases it when memory is needed. Control groups (version 1 or 2,
    and all groups around this process's) count the page cache of their processes as used, so it is subtracted there.

    Args:
        root: Folder that contains ``proc`` and ``sys``.
    """
    root = Path(root)
    free = [_machine(root), *(_left(folder, names) for folder, names in _groups(root))]
    return max(0, min(value for value in free if value is not None))


def _machine(root):
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return 0


def _groups(root):
    """(folder, names of its files) of the control groups that this process is in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    base = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            tops, names = [base, base / "unified"], _VERSION_2
        elif "memory" in controllers.split(","):
            tops, names = [base / "memory"], _VERSION_1
        else:
            continue
        # Inside a container the path may be that of the host, of which only the top level exists here.
        inner = [part for part in (PurePosixPath(path), *PurePosixPath(path).parents) if ".." not in part.parts]
        for top in tops:
            yield from ((top / str(part).lstrip("/"), names) for part in inner)


def _left(folder, names):
    """Bytes left below the limit of a control group; None if it has no limit."""
    limit, used, cache = names
    try:
        free = int((folder / limit).read_text()) - int((folder / used).read_text())
    except (OSError, ValueError):  # missing, or "max"
        return None
    try:
        entries = dict(line.split(None, 1) for line in (folder / "memory.stat").read_text().splitlines())
        return free + int(entries.get(cache, 0))
    except (OSError, ValueError):
        return free
