"""A process for one student's code, which cannot reach what is not its own.

With bubblewrap (``bwrap``, on Linux) the process sees Python, the package ``support`` and an empty
folder of its own: no course folder, no gradebook, no other student's work, no chapter of the book
with its solutions, no process of anybody else, and no network. Everywhere it has the environment of
the course, not that of the teacher, and limits of memory, processes and time.
"""

import contextlib
import functools
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from support.classroom import wire
from support.classroom.wire import Lost
from support.common import fingerprint

MEMORY_GB, PROCESSES, FILE_MB = 4.0, 64, 100
_TICK = 0.25  # seconds between two looks at memory and processes


@functools.cache
def tool() -> str | None:
    """The program that shuts students' code in; None where there is none that works here."""
    if found := shutil.which("bwrap"):
        tried = subprocess.run([found, *_WALLS, "--ro-bind", "/", "/", "true"], capture_output=True)
        return found if tried.returncode == 0 else None
    return None


_WALLS = ("--unshare-all", "--die-with-parent", "--new-session", "--proc", "/proc", "--dev", "/dev")


def weakness() -> str:
    """What is missing on this machine, in a sentence; empty where students' code is shut in."""
    if tool():
        return ""
    return (
        "students' code is not shut in here: it could read the solutions and the gradebook, and "
        "use the network; on Linux install bubblewrap (bwrap)"
    )


class Student:
    """A running process with a student's code.

    Args:
        shared: names of functions that the process has as well, by their ``id`` in this one.
    """

    def __init__(self, shared: Mapping[int, str] | None = None) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="assign-", ignore_cleanup_errors=True)
        self._lines: queue.Queue[str] = queue.Queue(4)
        self._closed = False
        self._deadline = self._most = 0.0
        self.process = subprocess.Popen(
            _command(self._home.name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(self._home.name),
            cwd=self._home.name,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self.peer = wire.Peer(self._send, self._receive, _nothing, shared or {})
        self.run = self.peer.function(wire.RUN)

    def allow(self, seconds: float) -> None:
        """From now on it may compute this long, and take ten times as long on a busy machine."""
        self._deadline = time.monotonic() + 10 * seconds
        self._most = _used(self.process)[1] + seconds

    def close(self) -> None:
        """End the process, and everything that it started."""
        self._closed = True
        self._kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        self._home.cleanup()

    def _kill(self) -> None:
        for each in reversed(_tree(self.process)):
            with contextlib.suppress(psutil.Error):
                each.kill()

    def _listen(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            while line := self.process.stdout.readline(wire.MOST):
                self._put(line.decode("utf-8", "replace"))
        self._put("")

    def _put(self, line: str) -> None:
        while not self._closed:  # whoever floods the line has to wait
            with contextlib.suppress(queue.Full):
                return self._lines.put(line, timeout=_TICK)

    def _send(self, text: str) -> None:
        # Whoever does not read could make this wait for ever.
        late = threading.Timer(self._deadline - time.monotonic(), self._kill)
        late.start()
        try:
            self.process.stdin.write(f"{text}\n".encode())
            self.process.stdin.flush()
        except OSError:  # what is gone is noticed when it should answer
            pass
        finally:
            late.cancel()

    def _receive(self) -> str:
        while (left := self._deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                if line := self._lines.get(timeout=min(left, _TICK)):
                    return line
                raise Lost("the kernel died")
            processes, seconds, memory = _used(self.process)
            if processes > PROCESSES:
                raise Lost(f"more than {PROCESSES} processes")
            if memory > MEMORY_GB * 1e9:
                raise Lost(f"more than {MEMORY_GB:g} GB of memory")
            if seconds > self._most:
                break
        raise Lost("took too long")


def _nothing(name: str) -> Any:
    raise NameError(f"{name} is not for students")


def _command(home: str) -> list[str]:
    """The command line of the process: limits, and walls where there is a tool for them."""
    limits = [str(FILE_MB * 10**6), str(int(MEMORY_GB * 1e9))]
    start = [sys.executable, "-um", "support.classroom.answering", *limits]
    if not tool():
        return start
    system = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    pythons = dict.fromkeys([sys.base_prefix, sys.prefix, *packages])
    shown = [*system, *pythons, str(fingerprint.PACKAGE)]
    binds = [word for path in shown for word in ("--ro-bind-try", path, path)]
    return [tool(), *_WALLS, "--tmpfs", "/tmp", *binds, "--bind", home, home, "--chdir", home,
            "--", *start]  # fmt: skip


def _environment(home: str) -> dict[str, str]:
    """The environment of the course: nothing of the teacher's, but what the system needs."""
    kept = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "WINDIR", "COMSPEC")
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    switches = ("PYTHONNOUSERSITE", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE")
    places = ("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "IPYTHONDIR", "MPLCONFIGDIR")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **dict.fromkeys((*threads, *switches), "1"),
        **dict.fromkeys(places, home),
        "PYTHONPATH": str(fingerprint.PACKAGE.parent),
        "PYTHONHASHSEED": "0",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "MPLBACKEND": "agg",
        "BOOK_PROGRESS": "off",
    }


def _tree(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def _used(process: subprocess.Popen) -> tuple[int, float, int]:
    """What a process and its children take: how many they are, the seconds that they have computed,
    and bytes of memory."""
    tree, seconds, memory = _tree(process), 0.0, 0
    for each in tree[:PROCESSES]:  # where there are more, they are ended for that
        with contextlib.suppress(psutil.Error):
            seconds += sum(each.cpu_times()[:2])
            memory += each.memory_info().rss
    return len(tree), seconds, memory
