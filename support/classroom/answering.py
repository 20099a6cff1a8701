"""The process in which a student's code runs: executes cells, and calls the functions that they
defined. It gets no test and gives no grade; :mod:`~support.classroom.judge` talks to it.
"""

import contextlib
import functools
import os
import select
import signal
import sys
import time

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats
from IPython.display import display
from IPython.utils.capture import capture_output

from support.classroom import wire

_OUTPUT = 20_000  # characters of a cell
_PICTURE = 1_000_000


def main() -> None:
    """Serve the process that started this one, by its standard streams."""
    _end_with_grader()
    with contextlib.suppress(ImportError):  # Windows has none
        import resource

        kinds = (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA)
        for kind, most in zip(kinds, (0, *map(int, sys.argv[1:])), strict=True):
            resource.setrlimit(kind, (most, most))
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    send = functools.partial(print, file=os.fdopen(os.dup(1), "w", encoding="utf-8"), flush=True)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    shell = InteractiveShell.instance(colors="nocolor", history_length=0)

    def resolve(name: str):
        if name == wire.RUN:
            return lambda source: _run(shell, source)
        if name not in shell.user_ns:
            raise NameError(f"name {name!r} is not defined")
        return shell.user_ns[name]

    wire.Peer(send, lines.readline, resolve).serve()


def _end_with_grader() -> None:
    """Start a process that ends this one's group when the grader is gone: of an endless loop in C
    no thread would hear of it, and nobody else would stop it."""
    if not hasattr(os, "fork") or os.fork():  # Windows; the process of the student
        return
    os.close(1)  # whose end is for the grader to notice
    grader = select.poll()
    grader.register(0, select.POLLIN)
    while not any(event & select.POLLHUP for _, event in grader.poll()):
        time.sleep(0.25)  # a line has come, which is not for this process
    os.killpg(0, signal.SIGKILL)


def _run(shell: InteractiveShell, source: str) -> dict:
    """Execute a cell: what it wrote and showed, and its error if it ended in one."""
    with capture_output() as captured:
        result = shell.run_cell(source, store_history=True)
        if plots := sys.modules.get("matplotlib.pyplot"):
            select_figure_formats(shell, {"png"})
            for number in plots.get_fignums():
                display(plots.figure(number))
            plots.close("all")
    error = result.error_before_exec or result.error_in_exec

    def crosses(data: object) -> bool:
        return isinstance(data, str) and len(data) <= _PICTURE

    return {
        "stdout": captured.stdout[:_OUTPUT],
        "stderr": captured.stderr[:_OUTPUT],
        "shown": [
            {kind: data for kind, data in output.data.items() if crosses(data)}
            for output in captured.outputs[:20]
        ],
        "error": None if error is None else [type(error).__name__, str(error)[:2000]],
    }


if __name__ == "__main__":
    main()
