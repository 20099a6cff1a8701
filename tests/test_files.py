"""Files that are whole or absent, and folders of processes that were killed."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from support.common import files, paths


def _full(real, fails_at: int):
    """``os.fdopen`` of a disk that is full from the n-th file on."""
    opened = []

    def opening(handle, *arguments, **options):
        opened.append(handle)
        if len(opened) >= fails_at:
            os.close(handle)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, *arguments, **options)

    return opening


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_full_disk_loses_no_file_that_was_there(tmp_path, monkeypatch, fails_at):
    places = [tmp_path / "runs" / "a.ipynb", tmp_path / "runs" / "deep" / "a.json"]
    files.write_all(dict.fromkeys(places, "old"))
    monkeypatch.setattr(files.os, "fdopen", _full(os.fdopen, fails_at))
    with pytest.raises(OSError, match="No space left"):
        files.write_all(dict.fromkeys(places, "new"))
    assert [file.read_text() for file in places] == ["old", "old"]
    assert sorted(file for file in (tmp_path / "runs").rglob("*") if file.is_file()) == sorted(places), "nothing half-written is left"


def test_files_are_written_whole_and_can_be_read_by_others(tmp_path):
    file = tmp_path / "folder" / "file"
    files.write_all({file: "old\n"})
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"old\n", 0o644)
    with pytest.raises(UnicodeEncodeError):
        files.write_all({file: "new \ud800"})
    assert (file.read_text(), list(file.parent.iterdir())) == ("old\n", [file])


SCRATCH = """
import os, signal, sys
from support.common import files
with files.scratch("book-test-") as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps the folders")
def test_the_folder_of_a_killed_process_goes_with_the_next_and_that_of_a_living_one_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    killed, living = (subprocess.Popen([sys.executable, "-c", SCRATCH], **pipes) for _ in range(2))
    try:
        folders = [process.stdout.readline().strip() for process in (killed, living)]
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        with files.scratch("book-test-") as own:
            assert sorted(map(str, tmp_path.iterdir())) == sorted([folders[1], str(own)])
        living.communicate("")
        assert list(tmp_path.iterdir()) == []
    finally:
        living.kill()
        living.wait()


def test_what_was_not_finished_an_hour_ago_is_swept_up(tmp_path):
    old, young = tmp_path / ".a-1.tmp", tmp_path / ".a-2.tmp"
    for file in (old, young, tmp_path / "a.json"):
        file.write_bytes(b"x")
    for file in (old, tmp_path / "a.json"):
        os.utime(file, (time.time() - 7200,) * 2)
    files.check_writable(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".a-2.tmp", "a.json"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "", "a/b"), "a/b cannot be used (No space left on device): free some space there, or set BOOK_X"),
        (PermissionError(errno.EACCES, "", "a/b"), "a/b cannot be used (Permission denied): make it writable, or set BOOK_X"),
        (OSError(errno.EROFS, ""), "a file cannot be used (Read-only file system): make it writable, or set BOOK_X"),
        (FileNotFoundError(errno.ENOENT, "", "a"), "a cannot be used (No such file or directory): put it there, or set BOOK_X"),
        (FileNotFoundError("no book here"), "no book here"),
    ],
)
def test_trouble_is_one_line_that_says_what_to_do(error, words):
    assert files.trouble(error, variable="BOOK_X") == words + " to another folder" * ("BOOK_X" in words)


@pytest.mark.parametrize(
    ("given", "output", "cache"),
    [
        ({}, "_build", "data/cache"),
        ({"BOOK_OUTPUT": "made"}, "made", "made/cache"),
        ({"BOOK_OUTPUT": "made", "BOOK_CACHE": "kept"}, "made", "kept"),
        ({"BOOK_CACHE": "kept"}, "_build", "kept"),
    ],
)
def test_two_variables_move_what_is_made_and_what_is_kept(tmp_path, monkeypatch, given, output, cache):
    (tmp_path / "_toc.yml").write_text("")
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    for name in ("BOOK_OUTPUT", "BOOK_CACHE"):
        monkeypatch.delenv(name, raising=False)
        if name in given:
            monkeypatch.setenv(name, given[name])
    assert (paths.output(), paths.local_runs()) == (tmp_path / output, tmp_path / output / "runs")
    assert paths.cache() == tmp_path / cache


def test_the_advice_names_the_variable_that_has_put_the_file_there(tmp_path, monkeypatch):
    (tmp_path / "_toc.yml").write_text("")
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    monkeypatch.setenv("BOOK_CACHE", str(tmp_path / "_build" / "deep"))
    monkeypatch.delenv("BOOK_OUTPUT", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for name, variable in (("_build/deep/x", "BOOK_CACHE"), ("_build/x", "BOOK_OUTPUT"), ("temporary/x", "TMPDIR")):
        told = files.trouble(OSError(errno.EROFS, "", str(tmp_path / name)))
        assert told.endswith(f": make it writable, or set {variable} to another folder")
    assert files.trouble(OSError(errno.EROFS, "", str(tmp_path / "data"))).endswith("(Read-only file system): make it writable")
