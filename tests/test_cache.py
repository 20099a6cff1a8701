"""The cache: results that come back as they were, files that are whole or absent, and errors that say what to do."""

import multiprocessing
import os
import re
import stat
import subprocess
import sys
import textwrap
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from support.common.cache import Cache, CacheError, call

RESULT = {
    "weights": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "mask": torch.tensor([True, False]),
    "count": torch.tensor(7),
    "precise": torch.tensor([0.1], dtype=torch.float64),
    "none": torch.zeros(0, 4),
}


def counted(size: int = 1) -> dict:
    sys.book_calls.append(size)
    return dict(RESULT)


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """What :func:`counted` was called with."""
    monkeypatch.setattr(sys, "book_calls", [], raising=False)  # in a library, which counts by its version
    return sys.book_calls


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_computed_once_and_comes_back_equal(tmp_path, calls):
    cache = Cache(tmp_path / "new" / "folder")
    first, second = cache.once(counted), cache.once(counted)
    later = Cache(tmp_path / "new" / "folder")
    os.utime(cache.place(counted, (), {}).path, (1, 1))
    third = later.once(counted)
    assert calls == [1] and all(same(found, RESULT) for found in (first, second, third))
    assert (cache.hits, cache.misses, later.hits, later.misses) == (0, 1, 1, 0)
    (file,) = files(cache.folder)
    assert re.fullmatch(r"counted-[0-9a-f]{16}\.safetensors", file)


@dataclass(frozen=True)
class Found:
    numbers: torch.Tensor
    inner: object = None


Pair = namedtuple("Pair", "left right")
BASE = torch.arange(12.0).reshape(3, 4)
KEPT = {
    "plain": [None, True, 3, -0.0, float("inf"), "text", (), (1, (2,)), [], {}, {1: "one", (2, 3): "pair"}],
    "tensors": [BASE, BASE, BASE[:, 1], BASE.T, torch.zeros(0), torch.tensor(2.0, dtype=torch.bfloat16)],
    "arrays": [np.arange(3, dtype=np.int64), np.float64(0.1), np.int32(3), np.bool_(True)],
    "objects": [Found(BASE), Found(BASE, Found(BASE[0], [1])), Pair(1, BASE)],
}


def produce(kind: str):
    return KEPT[kind]


def alike(a, b) -> bool:
    if isinstance(b, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(b, np.ndarray):
        return bool((a == b).all()) and a.dtype == b.dtype
    if isinstance(b, np.generic):
        return type(a) in (bool, int, float) and a == b.item()
    if isinstance(b, Found):
        return type(a) is Found and alike(a.numbers, b.numbers) and alike(a.inner, b.inner)
    if isinstance(b, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(alike, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@pytest.mark.parametrize("kind", KEPT)
def test_a_hit_and_a_miss_give_what_the_function_gives(tmp_path, kind):
    cache = Cache(tmp_path)
    for _ in range(2):
        found = cache.once(produce, kind)
        assert alike(found, KEPT[kind])
        for part in found:  # what a caller does to its result is its own affair
            if isinstance(part, torch.Tensor):
                part.zero_()
    assert cache.misses == 1 and float(BASE.sum()) == 66


def test_nan_and_gradients_come_back_as_numbers(tmp_path):
    def made():
        return float("nan"), torch.ones(2, requires_grad=True) * 2

    for _ in range(2):
        number, tensor = Cache(tmp_path).once(made)
        assert number != number and not tensor.requires_grad and tensor.tolist() == [2, 2]


@pytest.mark.parametrize("made", [object(), {"deep": [lambda: 0]}, torch.nn.Linear(1, 1), 1j])
def test_a_result_that_cannot_be_kept_is_refused(tmp_path, made, monkeypatch):
    monkeypatch.setattr(sys, "book_made", made, raising=False)

    def give():
        return sys.book_made

    with pytest.raises(CacheError, match=r"the result give.* which cannot be kept: return numbers"):
        Cache(tmp_path).once(give)
    assert files(tmp_path) == []


def test_where_it_was_computed_is_part_of_the_key(tmp_path):
    assert len({Cache(tmp_path, where=where).place(counted, (), {}).path for where in ("", "cuda", "cpu, 1 threads")}) == 3


def test_a_kernel_without_a_cache_calls(calls):
    assert same(call(counted, 2), RESULT) and same(call(counted, size=2), RESULT) and calls == [2, 2]


def test_a_place_keeps_the_state_of_unfinished_work(tmp_path):
    place = Cache(tmp_path).place(counted, (3,), {})
    assert place.read() is None and place.partial.read() is None
    place.partial.write({"x": torch.ones(2)}, durable=False)
    assert place.read() is None and place.partial.read()["x"].tolist() == [1, 1]
    place.write(RESULT)
    place.partial.remove()
    assert same(place.read(), RESULT) and len(files(tmp_path)) == 1


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["truncated", "empty", "garbage", "foreign"])
def test_an_unreadable_file_is_computed_again_with_a_warning(tmp_path, harm, calls):
    cache = Cache(tmp_path)
    cache.once(counted)
    path = cache.place(counted, (), {}).path
    if harm == "foreign":  # as if two keys had the same hash
        cache.once(counted, 5)
        os.replace(cache.place(counted, (5,), {}).path, path)
    else:
        whole = path.read_bytes()
        path.write_bytes({"truncated": whole[:-3], "empty": b"", "garbage": b"\xff" * 100}[harm])
    done = len(calls)
    with pytest.warns(UserWarning, match=rf"{path.name} cannot be read .*computing it again"):
        assert same(cache.once(counted), RESULT)
    assert same(cache.once(counted), RESULT) and len(calls) == done + 1


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failing_computation_leaves_nothing(tmp_path, error):
    def fail():
        raise error

    with pytest.raises(error):
        Cache(tmp_path).once(fail)
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_failing_write_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(*_args):
        raise error

    monkeypatch.setattr("support.common.files.os.replace", fail)
    with pytest.raises((CacheError, KeyboardInterrupt)) as caught:
        Cache(tmp_path).once(counted)
    assert files(tmp_path) == []
    if isinstance(error, OSError):
        advice = "free some space there, or set BOOK_CACHE to another folder"
        assert str(caught.value) == f"the cache folder {tmp_path} cannot be written (No space left on device): {advice}"


@pytest.fixture
def full_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def zeros(n: int) -> torch.Tensor:
    return torch.zeros(n)


def test_a_disk_that_really_is_full(full_disk):
    cache = Cache(full_disk)
    cache.once(counted)
    with pytest.raises(CacheError, match=r"cannot be written \(No space left on device\): free some space there, or set BOOK_CACHE"):
        cache.once(zeros, 100_000)
    assert files(full_disk) == [cache.place(counted, (), {}).path.name]
    (full_disk / "filler").write_bytes(b"\0" * 40_000)
    with pytest.raises(CacheError, match="free some space"):
        cache.once(zeros, 10_000)
    assert same(cache.once(counted), RESULT) and cache.misses == 1


def test_a_folder_that_cannot_be_is_refused_before_any_work(tmp_path, calls):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "folder")
    for use in (cache.writable, lambda: cache.once(counted)):
        with pytest.raises(CacheError, match=r"the cache folder .*folder cannot be written \(Not a directory\): make it writable"):
            use()
    assert calls == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_read_only_folder_is_refused_before_any_work(tmp_path):
    """In a process of its own, as an ordinary user if this one is the administrator, whom no permission stops."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
    script = f"""
        import os, numpy.random, torch
        from support.common.cache import Cache, CacheError
        if os.geteuid() == 0:
            os.seteuid(65534)
        def work():
            print("computed")
            return torch.zeros(1)
        try:
            Cache({str(folder)!r}).once(work)
        except CacheError as error:
            print(error)
    """
    for parent in folder.parents:  # pytest's own folders are private
        if parent != tmp_path and parent.stat().st_uid == os.geteuid() and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith(f"the cache folder {folder} cannot be written (Permission denied): make it writable"), done.stdout
    assert files(folder) == []


# --- several processes ------------------------------------------------------------------------------------------------


def full(number: int) -> torch.Tensor:
    return torch.full((1000,), float(number))


def _race(folder, barrier):
    torch.set_num_threads(1)
    barrier.wait()
    for number in range(20):
        Cache(folder).once(full, number)


def test_two_processes_racing_leave_whole_files(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_race, args=(tmp_path, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    assert len(files(tmp_path)) == 20
    assert sorted(float(load_file(file)["0"].unique()) for file in tmp_path.iterdir()) == list(range(20))


def test_a_process_killed_while_writing_leaves_no_half_written_file(tmp_path, calls):
    script = f"""
        import os, signal, torch
        from support.common import cache, files
        def kill(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        files.os.replace = kill
        def work():
            return torch.zeros(1000)
        cache.Cache({str(tmp_path)!r}).once(work)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=300, check=False)
    assert done.returncode != 0
    assert all(name.startswith(".") and name.endswith(".tmp") for name in files(tmp_path)) and len(files(tmp_path)) == 1
    assert same(Cache(tmp_path).once(counted), RESULT) and calls == [1]
