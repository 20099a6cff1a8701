"""Kernels of this interpreter and this package, whatever kernels and start-up files a machine has.

On Linux a kernel is forked from one process that has imported what every notebook imports, instead
of importing it again: three notebooks a chapter would spend a third of a quick run on imports.
Where the temporary folder's name is too long for that, each imports for itself.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from support.book import kernel_process
from support.common import fingerprint, paths

INTERRUPTED, OVER = "it was interrupted", "its time was over"
LOG = "kernel.log"
LINES = "BOOK_LINES"  # names the file in which a run notes the lines that it goes through
_FORKED = "book-forked"
_running: weakref.WeakSet[AsyncKernelManager] = weakref.WeakSet()


def manager(scratch: Path, progress: str) -> type[AsyncKernelManager]:
    """What starts and stops a kernel for papermill.

    Args:
        scratch: a folder of its own; what the kernel's process says is written to ``LOG`` there.
        progress: where its bars go, see :mod:`support.common.progress`.
    """
    package = str(fingerprint.PACKAGE.parent)
    folders = (package, os.environ.get("PYTHONPATH"))
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    if lines := os.environ.get(LINES):
        where = f"--include={package}/support/*,*/ipykernel_*/*"
        argv[1:1] = ["-m", "coverage", "run", f"--data-file={lines}", where]
    spec = KernelSpec(
        argv=argv,
        display_name="Python 3",
        language="python",
        env={
            "BOOK_ROOT": str(paths.root()),
            "BOOK_PROGRESS": progress,
            "IPYTHONDIR": str(scratch / "ipython"),
            "MPLBACKEND": kernel_process.BACKEND,
            "PYTHONSTARTUP": "",  # IPython would run it
            "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        },
        resource_dir=str(scratch),
    )
    if sys.platform == "linux" and not lines and _has_room(tempfile.gettempdir()):
        entry = EntryPoint(_FORKED, f"{__name__}:Forked", KernelProvisionerFactory.GROUP_NAME)
        KernelProvisionerFactory.instance().provisioners[_FORKED] = entry
        spec.metadata["kernel_provisioner"] = {"provisioner_name": _FORKED}

    class BookKernel(AsyncKernelManager):
        kernel_spec = spec
        stopped = ""  # why, where we stopped it

        async def start_kernel(self, **options: Any) -> None:
            _running.add(self)
            # What the process itself says (about its channels, about being interrupted) is not for
            # the reader's terminal. papermill would change the folder of the whole process.
            with (scratch / LOG).open("w", encoding="utf-8") as log:
                await super().start_kernel(
                    **options | {"stderr": log, "cwd": str(paths.root() / "book")}
                )

    return BookKernel


def _has_room(folder: str) -> bool:
    """Whether the socket of the process that forks can lie there: the name of one has at most 107
    bytes."""
    return len(os.fsencode(folder)) + len("/pymp-......../listener-........") <= 107


class Forked(LocalProvisioner):
    """Starts a kernel's process as a fork of the one that has imported everything."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> KernelConnectionInfo:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([kernel_process.__name__, *kernel_process.IMPORTED])
        given = (
            cmd[cmd.index("-f") :],
            dict(options["env"]),
            options["cwd"],
            options["stderr"].name,
        )
        started = context.Process(target=kernel_process.main, args=given)
        started.start()
        self.process, self.pid, self.cwd = _Started(started), started.pid, options["cwd"]
        return self.connection_info


class _Started:
    """A process of :mod:`multiprocessing` as the one of :mod:`subprocess` that jupyter expects."""

    stdin = stdout = stderr = None

    def __init__(self, process: multiprocessing.Process) -> None:
        self._process, self.pid = process, process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def stop(why: str = INTERRUPTED, kind: type[AsyncKernelManager] = AsyncKernelManager) -> None:
    """Kill every running kernel of a kind; its class says by ``stopped`` why."""
    for kernel in list(_running):
        if isinstance(kernel, kind) and kernel.has_kernel:
            type(kernel).stopped = why
            kernel.provisioner.process.kill()


@contextlib.contextmanager
def stopped_at(end: float | None, kind: type[AsyncKernelManager]) -> Iterator[None]:
    """Kernels of a kind are killed when this time has come (``time.monotonic``), if they still
    run."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(max(0.2, end - time.monotonic())):  # again, for one that is only coming
            stop(OVER, kind)

    watcher = threading.Thread(target=watch, daemon=True)
    if end is not None:
        watcher.start()
    try:
        yield
    finally:
        done.set()
