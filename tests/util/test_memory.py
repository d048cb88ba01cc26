"""Available memory: of a machine, and of a container with control groups of either version."""

import os

import pytest

from util.memory import available_memory

MIB = 2**20


def system(root, available=1000, groups="", **files):
    """A root folder with ``proc`` and ``sys``; ``files`` are those below sys/fs/cgroup, with __ for /."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9999999 kB\nMemFree: 1 kB\nMemAvailable: {available * 1024} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else str(content * MIB))
    return root


def version_2(limit, used, inactive=0, folder=""):
    """Files of a control group, version 2."""
    stat = f"anon {used * MIB}\nfile 5\ninactive_file {inactive * MIB}\nactive_file 7\n"
    return {f"{folder}memory-max": limit, f"{folder}memory-current": used, f"{folder}memory-stat": stat}


def version_1(limit, used, inactive=0, folder=""):
    stat = f"cache 3\ninactive_file 1\ntotal_inactive_file {inactive * MIB}\n"
    names = ("memory-limit_in_bytes", "memory-usage_in_bytes", "memory-stat")
    return dict(zip((f"memory__{folder}{name}" for name in names), (limit, used, stat), strict=True))


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 1000),
        ("0::/\n", version_2(600, 500), 100),
        # Reading files has filled the container's page cache, which does not count as used.
        ("0::/\n", version_2(600, 590, inactive=400), 410),
        ("0::/\n", version_2("max\n", 500), 1000),
        ("0::/\n", version_2(5000, 500), 1000),
        ("0::/\n", version_2(100, 200), 0),
        # The strictest of the process's groups counts.
        ("0::/a/b\n", version_2(700, 100, folder="a__b__") | version_2(300, 100, folder="a__"), 200),
        # The path is that of the host, and does not exist here.
        ("0::/docker/12ab\n", version_2(600, 500), 100),
        ("0::/../../x\n", version_2(600, 500), 100),
        ("4:memory:/\n3:cpu:/\n", version_1(600, 590, inactive=400), 410),
        ("4:cpu,memory:/docker/12ab\n", version_1(600, 500), 100),
        ("4:memory:/a\n0::/\n", version_1(600, 500, folder="a__"), 100),
        ("4:memory:/\n", version_1(str(2**63 - 4096), 500), 1000),
        ("nonsense\n\n", version_2("nonsense", 500), 1000),
    ],
)
def test_of_a_system(tmp_path, groups, files, expected):
    assert available_memory(system(tmp_path, groups=groups, **files)) == expected * MIB


def test_of_a_system_that_does_not_say(tmp_path):
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available_memory(tmp_path) == total // 2


def test_of_this_machine():
    assert 0 < available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
