"""Chapters side by side, as many as the cores and the memory carry.

A chapter computes the same beside others as alone: its kernel is a process of its own, at quick
each has one thread, and what is trained by two of them is found in the cache by one or trained
twice to the same bits.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

_AGAIN = 0.2  # seconds


def cores() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def free_memory_gb() -> float:
    """Memory that a process could have now, files that are only remembered included; infinite where
    the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 2**20
    return float("inf")


def _with_its_loop(task: Callable[[], Any]) -> Any:
    """A task, and the end of the event loop that waited for its process, if there was one."""
    try:
        return task()
    finally:
        with contextlib.suppress(RuntimeError):
            asyncio.get_event_loop().close()


def run(
    tasks: Mapping[str, Callable[[], Any]],
    needs: Mapping[str, tuple[float, float]],
    jobs: int,
    memory_gb: float,
    stop: Callable[[], None],
) -> Iterator[tuple[str, Future]]:
    """Carry out tasks side by side, each of which waits for a process of its own.

    Args:
        tasks: name -> what to do.
        needs: name -> (minutes, gigabytes of memory); the longest starts first, and one that does
            not fit beside those that run waits.
        jobs: how many at a time.
        memory_gb: what they may take together.
        stop: ends the processes, so that the tasks that run end too; called on an interruption,
            again and again until all have ended: one may be between two processes.

    Yields:
        Each task's name and what came of it, as they end.
    """
    waiting = sorted(tasks, key=lambda name: -needs[name][0])
    running: dict[Future, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                taken = sum(needs[name][1] for name in running.values())
                fits = [n for n in waiting if not running or taken + needs[n][1] <= memory_gb]
                if fits and len(running) < jobs:
                    waiting.remove(fits[0])
                    running[pool.submit(_with_its_loop, tasks[fits[0]])] = fits[0]
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future
        except BaseException:
            stop()
            while wait(running, _AGAIN).not_done:
                stop()
            raise
