"""Data workers: as many as fit into shared memory; no batch is lost; a dead worker ends the run with one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine import data_workers
from engine.launch import launch
from engine.loading import build_loader, build_loaders, reading_processes
from util.cli import UserError, dead_worker, run_cli

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
MB = 2**20


class Data(torch.utils.data.Dataset):
    """Samples of one megabyte; a batch records the process that read it."""

    def __init__(self, count=12, fault=None):
        self.count, self.fault = count, fault

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        if self.fault and 7 in indices:
            self.fault()
        rows = torch.tensor(list(indices))
        return {
            "label": rows,
            "x": rows[:, None].expand(-1, MB).to(torch.uint8).contiguous(),
            "parts": [rows + 1],
            "read_by": torch.full_like(rows, os.getpid()),
        }


@pytest.fixture
def messages(caplog, monkeypatch):
    """Function that returns the warnings so far, as in a process that has not warned before."""
    monkeypatch.setattr(data_workers, "_logged", set())
    monkeypatch.setattr(data_workers.logger, "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records]


def loader(data, num_workers=1, batch_size=4, **options):
    options = {"shuffle": False, "seed": 0, "device": CPU} | options
    return build_loader(data, batch_size, num_workers=num_workers, **options)


def check(batches, count=12, readers=None):
    """Check that every sample was read once, in order and completely; return the processes that read."""
    read = torch.cat([batch["label"] for batch in batches]).tolist()
    assert read == list(range(count))
    for batch in batches:
        assert torch.equal(batch["x"][:, -1], batch["label"].to(torch.uint8))
        assert torch.equal(batch["parts"][0], batch["label"] + 1)
    return {pid for batch in batches for pid in batch["read_by"].tolist()}


class TestHowMany:
    @pytest.mark.parametrize(
        ("room", "expected"),
        [
            (1000, (4, 2)),
            (40, (4, 2)),  # 2 * 4 + 2 batches of 4 MB
            (39, (4, 1)),
            (24, (4, 1)),
            (23, (3, 1)),
            (12, (1, 1)),
            (11, (0, 1)),
            (0, (0, 1)),
        ],
    )
    def test_as_many_as_fit(self, monkeypatch, messages, room, expected):
        monkeypatch.setattr(data_workers, "_room", lambda: room * MB + 1000)
        assert data_workers.affordable(Data(), 4, 4) == expected
        assert len(messages()) == (expected[0] < 4)

    def test_what_is_said(self, monkeypatch, messages):
        monkeypatch.setattr(data_workers, "_room", lambda: 17 * MB)
        data_workers.affordable(Data(), 4, 4)
        data_workers.affordable(Data(), 4, 4)
        (line,) = messages()
        assert line.startswith("/dev/shm has room for 17 MB, but 4 data workers would fill 40 MB (batches of 4.0 MB)")
        assert "using 2 data workers" in line and "--shm-size" in line
        monkeypatch.setattr(data_workers, "_room", lambda: 0)
        data_workers.affordable(Data(), 4, 4)
        assert "reading data in the main process" in messages()[-1]

    def test_ranks_of_a_machine_share_the_room(self, monkeypatch, messages):
        monkeypatch.setattr(data_workers, "_room", lambda: 50 * MB)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        assert data_workers.affordable(Data(), 4, 4) == (4, 1)

    def test_a_system_that_does_not_tell(self, monkeypatch, messages):
        monkeypatch.setattr(data_workers, "SHARED_FOLDER", "/nowhere/at/all")
        assert data_workers.affordable(Data(), 4, 4) == (4, 2)

    @pytest.mark.parametrize("error", [ImportError, OSError, PermissionError])
    def test_a_system_without_semaphores(self, monkeypatch, messages, error):
        def refuses():
            raise error("no")

        monkeypatch.setattr(data_workers.multiprocessing, "get_context", refuses)
        assert data_workers.affordable(Data(), 4, 4)[0] == 0
        assert "main process" in messages()[0]

    def test_no_data_and_no_workers(self):
        assert data_workers.affordable(Data(0), 4, 4) == (0, None)
        assert data_workers.affordable(Data(), 0, 4) == (0, None)

    @pytest.mark.parametrize(
        ("device", "cores", "expected"),
        [("cpu", 1, 1), ("cpu", 2, 1), ("cpu", 16, 4), ("cuda", 1, 1), ("cuda", 2, 1), ("cuda", 16, 8)],
    )
    def test_processors_are_left_to_the_network(self, monkeypatch, device, cores, expected):
        monkeypatch.setattr("engine.loading.own_processors", lambda: cores)
        assert reading_processes(8, torch.device(device)) == expected
        assert reading_processes(0, torch.device(device)) == 0

    @pytest.mark.parametrize(("num_workers", "reads"), [(1, [1, 0]), (0, [0, 0])])
    def test_one_split_is_measured_for_all(self, num_workers, reads):
        """And none if this process reads."""
        counted = []

        class Counted(Data):
            def __getitems__(self, indices):
                counted.append(self)
                return super().__getitems__(indices)

        splits = {"train": Counted(), "dev": Counted(8)}
        loaders = build_loaders(splits, 4, shuffle=False, seed=0, num_workers=num_workers, device=CPU)
        assert [counted.count(data) for data in splits.values()] == reads
        assert [loader.num_workers for loader in loaders.values()] == [num_workers] * 2


class TestReading:
    def test_workers_read(self):
        batches = loader(Data())
        assert batches.num_workers == 1
        for _ in range(2):
            assert os.getpid() not in check(list(batches))

    def test_they_may_open_more_files(self):
        resource = pytest.importorskip("resource")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
            loader(Data())
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 65536) if hard > 0 else 65536, hard)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_workers_compute_in_one_thread(self):
        class Threads(Data):
            def __getitems__(self, indices):
                return {"label": torch.tensor([torch.get_num_threads()])}

        (batch, *_) = loader(Threads())
        assert batch["label"].item() == 1

    @pytest.mark.parametrize("left", [0, 5])
    def test_the_main_process_reads_what_finds_no_room(self, monkeypatch, messages, left):
        """Shared memory fills up after it was measured. With 5 MB left, a batch fits once the previous one is freed."""
        batches = loader(Data())
        monkeypatch.setattr(data_workers, "_room", lambda: left * MB)
        readers = check(list(batches))
        assert readers == {os.getpid()} if left == 0 else len(readers) == 1
        assert len(messages()) == (left == 0)
        if left == 0:
            assert "/dev/shm is full: the main process reads" in messages()[0]

    def test_a_tensor_that_cannot_be_shared_sends_the_batch_to_the_main_process(self, monkeypatch, messages):
        batches = loader(Data())

        def full(tensor):
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
            )

        monkeypatch.setattr(torch.Tensor, "share_memory_", full)
        assert check(list(batches)) == {os.getpid()}

    def test_a_users_mistake_keeps_its_line(self, capsys):
        def fault():
            raise UserError("image 7 is damaged; fetch it again")

        with pytest.raises(SystemExit) as end:
            run_cli(lambda: list(loader(Data(fault=fault))))
        assert end.value.code == 2
        assert capsys.readouterr().err == "error: image 7 is damaged; fetch it again\n"


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def bus_error():
    os.kill(os.getpid(), signal.SIGBUS)


def end_self():
    os._exit(3)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [(kill_self, "was killed, most likely because memory ran out"), (bus_error, "bus error"), (end_self, "ended")],
)
def test_a_worker_that_dies_ends_the_run_in_one_line(fault, reason):
    with pytest.raises(UserError, match=reason) as error:
        list(loader(Data(fault=fault)))
    assert "\n" not in str(error.value) and "--num_workers" in str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_worker_killed_while_the_network_computes(capsys):
    """torch raises its error in a signal handler, whatever the main process is doing."""

    def run():
        for batch in loader(Data()):
            os.kill(batch["read_by"][0].item(), signal.SIGKILL)
            for _ in range(600):
                time.sleep(0.05)
        raise AssertionError("nobody noticed")

    with pytest.raises(SystemExit) as end:
        run_cli(run)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a data worker was killed") and "--resume" in line


def test_a_batch_that_cannot_be_sent_ends_its_worker():
    """The sending thread cannot pickle the batch; without our handler the main process would wait forever."""

    class Unsendable(Data):
        def __getitems__(self, indices):
            return super().__getitems__(indices) | {"rows": (row for row in indices)}

    with pytest.raises(UserError, match="a data worker ended"):
        list(loader(Unsendable()))


@pytest.mark.parametrize(("signal_name", "reason"), [("SIGKILL", "memory ran out"), ("SIGTERM", "SIGTERM; continue")])
def test_a_process_of_several_that_is_killed_is_named(monkeypatch, signal_name, reason):
    class Killed:
        def join(self):
            raise torch.multiprocessing.ProcessExitedException("", 1, 0, -9, signal_name)

    monkeypatch.setattr(torch.multiprocessing, "spawn", lambda *_, **__: Killed())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match=f"process 1 was killed by {signal_name}") as error:
        launch("search_vqa", [], "0, 1", "cpu")
    assert reason in str(error.value)


def test_other_errors_are_not_taken_for_a_dead_worker():
    assert dead_worker(RuntimeError("DataLoader is a fine thing")) is None
    assert dead_worker(RuntimeError()) is None
    for text in ("Too many open files. Communication with the workers is no longer", "received 0 items of ancdata"):
        assert "open files" in dead_worker(RuntimeError(text))


def test_shared_memory_of_a_container(tmp_path):
    """Shared memory of 64 MB, as in docker; needs the right to mount a file system."""
    script = (
        "import sys; sys.path[:0] = ['.', 'tests/engine']\n"
        "import logging; logging.basicConfig(format='%(message)s')\n"
        "from test_data_workers import Data, check, loader\n"
        "for size in (4, 30): check(list(loader(Data(64), num_workers=1, batch_size=size)), 64)\n"
        "print('done')\n"
    )
    mount = 'mount -t tmpfs -o size=64M tmpfs /dev/shm && exec "$0" -c "$1"'
    try:
        probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if probe.returncode:
        pytest.skip("needs the right to mount")
    command = ["unshare", "-m", "sh", "-c", mount, sys.executable, script]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert outcome.stdout == "done\n", outcome.stderr
    # The first batches fit, but `list` keeps all 64 MB of them. Of the larger ones not even two fit.
    full, small = outcome.stderr.splitlines()
    assert full.startswith("/dev/shm is full")
    assert "/dev/shm has room for" in small and "reading data in the main process" in small
