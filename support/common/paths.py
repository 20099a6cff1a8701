"""Where things lie: the project's root, the data sets, the cache. One place, so that nothing else
builds a path.

Four environment variables move them: ``BOOK_ROOT``, ``BOOK_DATA``, ``BOOK_OUTPUT`` and
``BOOK_CACHE``. A relative one of the last three is relative to the root, wherever a notebook or a
test happens to run.
"""

import os
from pathlib import Path

MARKER = "_toc.yml"


def root() -> Path:
    """The project's root: ``BOOK_ROOT``, else the nearest parent of the working directory or of
    this file that holds a ``_toc.yml``.

    Raises:
        FileNotFoundError: no such folder; the message names the variable that would say where it
            is.
    """
    if given := os.environ.get("BOOK_ROOT"):
        folder = Path(given).expanduser().resolve()
        if not (folder / MARKER).is_file():
            raise FileNotFoundError(
                f"BOOK_ROOT={given} has no {MARKER}: it must name the book's top folder"
            )
        return folder
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / MARKER).is_file():
                return folder
    raise FileNotFoundError(
        f"no {MARKER} in {Path.cwd()} or above: run from inside the book, or set BOOK_ROOT to its "
        "top folder"
    )


def _under_root(variable: str, default: str) -> Path:
    return (root() / Path(os.environ.get(variable) or default).expanduser()).resolve()


def data_sets() -> Path:
    """Folder of the data sets in torchvision's layout: ``BOOK_DATA``, default ``data/sets``."""
    return _under_root("BOOK_DATA", "data/sets")


def output() -> Path:
    """Ignored folder of all that is made here and can be made again: ``BOOK_OUTPUT``, default
    ``_build``."""
    return _under_root("BOOK_OUTPUT", "_build")


def cache() -> Path:
    """Folder of trained weights and attack results: ``BOOK_CACHE``, default ``data/cache``, or
    ``cache`` in ``BOOK_OUTPUT`` where that is set."""
    given = os.environ.get("BOOK_OUTPUT")
    return _under_root("BOOK_CACHE", f"{given}/cache" if given else "data/cache")


def local_runs() -> Path:
    """Folder of the runs made here, in the output: ``runs/<profile>/<chapter>/<part>.ipynb``."""
    return output() / "runs"


def recorded_runs() -> Path:
    """Tracked folder of the recorded runs: ``data/runs/<profile>/<chapter>/<part>.ipynb`` with a
    manifest beside each."""
    return root() / "data" / "runs"
