"""Chapters side by side, each in a process of its own, as many as the cores and the memory carry.

A chapter computes the same beside others as alone: at quick each has one thread, and what is
trained by two of them is found in the cache by one or trained twice to the same bits.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.common import paths

_PACKAGE = Path(__file__).resolve().parents[2]
_PATIENCE = 30.0  # seconds that interrupted chapters have to stop by themselves


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


def run(
    commands: Mapping[str, Sequence[str]],
    needs: Mapping[str, tuple[float, float]],
    jobs: int,
    memory_gb: float,
) -> dict[str, int]:
    """Run command lines of ``python -m support`` side by side.

    Args:
        commands: name -> arguments.
        needs: name -> (minutes, gigabytes of memory); the longest starts first, and one that does
            not fit beside those that run waits.
        jobs: how many at a time.
        memory_gb: what they may take together.

    Returns:
        The exit status of each.
    """
    waiting = sorted(commands, key=lambda name: -needs[name][0])
    running: dict[str, subprocess.Popen] = {}
    done: dict[str, int] = {}
    try:
        while waiting or running:
            taken = sum(needs[name][1] for name in running)
            fits = [n for n in waiting if not running or taken + needs[n][1] <= memory_gb]
            if fits and len(running) < jobs:
                waiting.remove(fits[0])
                running[fits[0]] = _start(commands[fits[0]])
                continue
            for name in [name for name, process in running.items() if process.poll() is not None]:
                done[name] = running.pop(name).returncode
            time.sleep(0.05)
    finally:
        # Interrupted at a terminal, each has had the signal as well, and stops its own kernel.
        deadline = time.monotonic() + _PATIENCE
        for process in running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
    return done


def _start(arguments: Sequence[str]) -> subprocess.Popen:
    known = os.environ.get("PYTHONPATH", "")
    environment = os.environ | {
        "BOOK_PROGRESS": "off",
        "BOOK_ROOT": str(paths.root()),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_PACKAGE), known])),
    }
    command = [sys.executable, "-m", "support", *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
