"""Progress bars for long work, one place that decides where they go.

``BOOK_PROGRESS`` unset: tqdm chooses (a widget in a notebook, else stderr). ``off``: no bars. A
path: that terminal or file, so that a chapter that runs in its own process shows its bars on the
terminal of whoever started it.
"""

import contextlib
import os
from collections.abc import Iterator

from tqdm import tqdm as plain_tqdm
from tqdm.auto import tqdm


@contextlib.contextmanager
def bar(total: int, desc: str, *, initial: int = 0) -> Iterator[plain_tqdm]:
    """A bar for work that reports its own progress with ``bar.update(n)``.

    Args:
        total: number of steps.
        desc: what is being done, a few words.
        initial: steps that were done before.
    """
    where = os.environ.get("BOOK_PROGRESS", "")
    kind, stream = tqdm, contextlib.nullcontext()
    if where not in ("", "off"):
        try:
            kind, stream = plain_tqdm, open(where, "a", encoding="utf-8")  # noqa: SIM115
        except OSError:  # the terminal is gone: no reason to stop the work
            where = "off"
    look = {"initial": initial, "leave": False, "dynamic_ncols": True, "disable": where == "off"}
    with stream as file, kind(total=total, desc=desc, file=file, **look) as shown:
        yield shown
