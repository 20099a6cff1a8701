"""Progress bars for long work, one place that decides where they go.

``BOOK_PROGRESS`` unset: tqdm chooses (a widget in a notebook, else stderr). ``off``: no bars. A
    path: that terminal or file,
so that a chapter that runs in its own process shows its bars on the terminal of whoever started it.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm as plain_tqdm
from tqdm.auto import tqdm

T = TypeVar("T")


@contextmanager
def bar(total: int, desc: str, *, initial: int = 0) -> Iterator[plain_tqdm]:
    """A bar for work that reports its own progress with ``bar.update(n)``.

    Args:
        total: number of steps.
        desc: what is being done, a few words.
        initial: steps that were done before.
    """
    where = os.environ.get("BOOK_PROGRESS", "")
    common = {
        "total": total,
        "desc": desc,
        "initial": initial,
        "leave": False,
        "dynamic_ncols": True,
    }
    if where in ("", "off"):
        with tqdm(disable=where == "off", **common) as shown:
            yield shown
        return
    try:
        stream = open(where, "a", encoding="utf-8")  # noqa: SIM115 (closed below, after the bar)
    except OSError:  # the terminal is gone: no reason to stop the work
        with plain_tqdm(disable=True, **common) as shown:
            yield shown
        return
    with stream, plain_tqdm(file=stream, **common) as shown:
        yield shown


def track(iterable: Iterable[T], *, total: int | None = None, desc: str = "") -> Iterator[T]:
    """Iterate with a bar.

    Args:
        iterable: what is worked through.
        total: its length, needed where it has none.
        desc: what is being done, a few words.
    """
    items = iterable if total is not None or hasattr(iterable, "__len__") else list(iterable)
    with bar(total if total is not None else len(items), desc) as shown:
        for item in items:
            yield item
            shown.update()
