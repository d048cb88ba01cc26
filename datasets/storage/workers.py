"""Divide work among processes. They end when their parent ends, and the work goes on if one of them dies."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool

from util.processors import use_one_thread

# Tasks submitted per process: enough to keep it busy, few enough that their results fit in memory.
AHEAD = 3


def map_tasks(function, tasks, workers):
    """Call ``function`` with every task, in ``workers`` processes.

    Args:
        function: A picklable function of one task.
        tasks: Iterable of picklable tasks.
        workers: Number of processes; with 0 or 1 all work is done in this process.

    Yields:
        (task, result) in the order in which tasks finish; the result is None if the task crashed its process twice.
    """
    if workers > 1 and not _has_semaphores():
        print("note: no semaphores on this system (is /dev/shm full?): working in one process, which is slower")
        workers = 1
    if workers <= 1:
        for task in tasks:
            yield task, function(task)
        return
    remaining = iter(tasks)
    while True:
        lost = []
        yield from _run(function, remaining, workers, lost)
        if not lost:
            return
        # One of these tasks crashed its process. They run again one by one, to find out which.
        for task in lost:
            again = []
            yield from _run(function, iter([task]), 1, again)
            if again:
                yield task, None


def _has_semaphores():
    try:
        multiprocessing.get_context("spawn").Lock()
    except (ImportError, OSError):
        return False
    return True


def _run(function, tasks, workers, lost):
    """Yield (task, result) until ``tasks`` end or a process dies; then the unfinished tasks are added to ``lost``."""
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)
    running = {}
    try:
        while True:
            while not lost and len(running) < AHEAD * workers:
                try:
                    task = next(tasks)
                except StopIteration:
                    break
                try:
                    running[pool.submit(function, task)] = task
                except BrokenProcessPool:
                    lost.append(task)
            if not running:
                return
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    lost.append(task)
                    continue
                yield task, result
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent():
    # The parent handles interrupts, and a killed parent must not leave processes behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
