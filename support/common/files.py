"""Files that are written whole or not at all, and what is left of processes that were killed.

A file is written beside its place, under a name that begins with a dot and ends in ``.tmp``, and
moved there. So nobody ever reads half of it, and a full disk loses nothing that was there.
"""

import contextlib
import csv
import errno
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from support.common import paths

_STALE_SECONDS = 3600.0  # what is this old, and was not finished, belongs to a process that is gone
_LOCK = ".lock"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_all(contents: Mapping[Path, str | bytes], *, durable: bool = False) -> None:
    """Write several files, all of them before any takes its place; text as UTF-8.

    Args:
        contents: of each file.
        durable: wait until the disk has them.

    Raises:
        OSError: a full disk, a folder that cannot be written; then no file has changed.
    """
    waiting: dict[Path, str] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            prefix = f".{path.stem[:40]}-"
            handle, waiting[path] = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp")
            with os.fdopen(handle, "wb") as stream:
                stream.write(content.encode() if isinstance(content, str) else content)
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            os.chmod(waiting[path], 0o644)  # mkstemp makes it private
        for path in contents:
            os.replace(waiting[path], path)
            del waiting[path]
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the temporary one
        raise
    finally:
        for temporary in waiting.values():
            Path(temporary).unlink(missing_ok=True)


def csv_text(
    columns: Iterable[str], rows: Iterable[Mapping[str, object]], end: str = "\r\n"
) -> str:
    """A table as CSV, for a file: cells that a row lacks are empty, and what belongs to no column
    is left out.

    Args:
        columns: the titles, in order.
        rows: cells by title.
        end: of a line; without another, the one of the standard, which spreadsheets write.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator=end)
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def check_writable(folder: Path) -> None:
    """See that a folder exists and takes a file, before hours of work depend on it; sweep up after
    processes that were killed while they wrote there.

    Raises:
        OSError: it does not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    for left in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process has just finished
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A temporary folder, which is gone afterwards; and those of its kind whose processes were
    killed go first.

    Its process holds a lock in it as long as it lives, so that others know that it does.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError), (left / _LOCK).open("rb+") as stream:
            if _locked(stream.fileno()):
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        taken = Path(folder) / f"{_LOCK}ed"
        with taken.open("wb") as stream:
            if _locked(stream.fileno()):  # it has its name only once it is held
                os.replace(taken, taken.with_name(_LOCK))
            yield Path(folder)


def _locked(handle: int) -> bool:
    """Whether this process could take the lock of an open file."""
    try:
        import fcntl
    except ImportError:  # Windows: nobody can tell, so everything stays
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def trouble(error: OSError, folder: str = "", variable: str = "") -> str:
    """What an error of the file system means, and what to do, in one line.

    Args:
        error: of Python's own; where one has no number, its words.
        folder: what could not be written, by default the file that the error names.
        variable: the environment variable that would put the files elsewhere, by default the one
            that has put them where they are.
    """
    if error.errno is None:
        return str(error)
    place = folder or error.filename or "a file"
    what = f"{place} cannot be {'written' if folder else 'used'} ({os.strerror(error.errno)})"
    absent = "put it there" if error.errno == errno.ENOENT else "make it writable"
    advice = "free some space there" if error.errno in _FULL else absent
    moved = {"BOOK_CACHE": paths.cache, "BOOK_OUTPUT": paths.output, "TMPDIR": tempfile.gettempdir}
    for name, where in moved.items():
        with contextlib.suppress(FileNotFoundError):  # no book
            if not variable and Path(place).is_relative_to(where()):
                variable = name
    return f"{what}: {advice}" + (f", or set {variable} to another folder" if variable else "")
