"""Locks admit one process at a time, on any file system, and are released when their process dies."""

import errno
import os
import threading
import time

import filelock
import pytest

from util import locks
from util.cli import UserError
from util.locks import locked, make_once

REFUSALS = sorted(locks.NO_LOCKS)


def no_locks(monkeypatch, number):
    """A file system that rejects locks with an error; leases on it expire quickly."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "LEASE_SECONDS", 0.6)


def check_excludes(path):
    with locked(path, busy="somebody is here"):
        for _ in range(2):
            with pytest.raises(UserError, match="somebody is here"), locked(path, busy="somebody is here"):
                raise AssertionError("two at once")
    with locked(path, busy="somebody is here"):
        pass


def test_a_second_one_is_refused(tmp_path):
    check_excludes(tmp_path / "a.lock")


@pytest.mark.parametrize("number", REFUSALS)
def test_without_locks_a_lease_excludes(tmp_path, monkeypatch, number):
    no_locks(monkeypatch, number)
    check_excludes(tmp_path / "a.lock")
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".lease")]


def test_a_system_without_the_module(tmp_path, monkeypatch):
    monkeypatch.setattr(filelock, "has_fcntl", False)
    monkeypatch.setattr(locks, "LEASE_SECONDS", 0.6)
    check_excludes(tmp_path / "a.lock")


@pytest.mark.parametrize("number", [None, errno.ENOLCK])
def test_waiting(tmp_path, monkeypatch, caplog, number):
    if number:
        no_locks(monkeypatch, number)
    monkeypatch.setattr(locks.logger, "propagate", True)
    caplog.set_level("INFO", "mdarts")
    held, order = threading.Event(), []

    def first():
        with locked(tmp_path / "a.lock"):
            held.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    with locked(tmp_path / "a.lock", waiting="waiting for another run"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert [record.getMessage() for record in caplog.records] == ["waiting for another run"]


def test_the_lease_of_a_dead_run_on_another_machine_is_taken_over(tmp_path, monkeypatch):
    no_locks(monkeypatch, errno.ENOLCK)
    with locked(tmp_path / "a.lock"):
        (lease,) = (path for path in tmp_path.iterdir() if path.name.endswith(".lease"))
        text = lease.read_text()
    lease.write_text(text.replace("host=", "host=elsewhere-"))
    with locked(tmp_path / "a.lock", busy="a dead run must not block"):
        pass


def test_other_faults_are_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"exists|Not a directory"), locked(tmp_path / "file" / "a.lock"):
        pass
    no_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / "a.lock"):
        pass


def test_of_several_that_want_a_file_one_makes_it(tmp_path):
    sign, made = tmp_path / "demo" / "store" / "meta.json", []

    def make():
        made.append(threading.get_ident())
        time.sleep(0.05)
        sign.parent.mkdir()
        sign.write_text("{}")

    threads = [threading.Thread(target=make_once, args=(sign, make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    make_once(sign, make)
    assert len(made) == 1
