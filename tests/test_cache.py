"""The cache: keys that mean what they say, files that are whole or absent, and errors that say what to do."""

import json
import multiprocessing
import os
import re
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from support import clustering, models, training
from support.common.cache import NO_CACHE, Cache, CacheError, code_digest, describe
from support.models import heads

RESULT = {
    "weights": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "mask": torch.tensor([True, False]),
    "count": torch.tensor(7),
    "precise": torch.tensor([0.1], dtype=torch.float64),
    "none": torch.zeros(0, 4),
}


def counted(result=RESULT):
    """A computation, and the list of its calls."""
    calls = []
    return calls, lambda: calls.append(1) or dict(result)


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


# --- units ------------------------------------------------------------------------------------------------------------


def test_a_unit_is_computed_once_and_comes_back_equal(tmp_path):
    calls, compute = counted()
    cache = Cache(tmp_path / "new" / "folder")
    first = cache.unit("a-unit", {"eps": 0.3}, compute)
    second = Cache(tmp_path / "new" / "folder").unit("a-unit", {"eps": 0.3}, compute)
    assert len(calls) == 1
    assert same(first, RESULT) and same(second, RESULT)
    (file,) = files(cache.folder)
    assert re.fullmatch(r"a-unit-[0-9a-f]{16}\.safetensors", file)


def test_arrays_and_shared_memory_can_be_kept(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    made = {"array": np.arange(3, dtype=np.int64), "one": base, "other": base, "column": base[:, 1], "turned": base.T}
    calls, compute = counted(made)
    for _ in range(2):
        unit = Cache(tmp_path).unit("u", {}, compute)
        assert all(torch.equal(unit[k], torch.as_tensor(v)) for k, v in made.items())
        unit["one"].zero_()  # what a caller does to its unit is its own affair
    assert len(calls) == 1 and float(base.sum()) == 66


@pytest.mark.parametrize("changed", [{"eps": 0.30000000000000004}, {"eps": 0.3, "steps": 1}, {"Eps": 0.3}, {"eps": "0.3"}, {"eps": [0.3]}])
def test_another_key_is_another_unit(tmp_path, changed):
    calls, compute = counted()
    Cache(tmp_path).unit("u", {"eps": 0.3}, compute)
    Cache(tmp_path).unit("u", changed, compute)
    assert len(calls) == 2 and len(files(tmp_path)) == 2


def test_the_order_of_a_key_does_not_matter(tmp_path):
    cache = Cache(tmp_path)
    assert cache.locate("u", {"a": 1, "b": {"c": 2.0, "d": None}}) == cache.locate("u", {"b": {"d": None, "c": 2.0}, "a": 1})


def test_no_cache_computes_always(tmp_path):
    calls, compute = counted()
    for _ in range(2):
        assert same(NO_CACHE.unit("u", {}, compute), RESULT)
    assert len(calls) == 2
    NO_CACHE.writable()


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="a unit's name has letters"):
        Cache(tmp_path).unit(name, {}, dict)


@pytest.mark.parametrize("made", [None, [torch.zeros(1)], {"a": 1.0}, {1: torch.zeros(1)}])
def test_a_result_that_is_no_mapping_of_tensors_is_refused(tmp_path, made):
    for cache in (Cache(tmp_path), NO_CACHE):
        with pytest.raises(ValueError, match="the unit 'u' must compute a mapping of strings to tensors"):
            cache.unit("u", {}, lambda: made)
    assert files(tmp_path) == []


# --- keys -------------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def plain(value):
    """A value whose equality is that of types and contents: True is not 1, -0.0 is not 0.0."""
    if isinstance(value, list):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return "dict", frozenset((k, plain(v)) for k, v in value.items())
    return type(value), repr(value)


@settings(max_examples=200, deadline=None)
@given(values, values)
def test_descriptions_differ_exactly_where_values_do(a, b):
    assert (json.dumps(describe(a)) == json.dumps(describe(b))) == (plain(a) == plain(b))  # as JSON: to Python, 0 == False


def test_tensors_are_described_by_type_shape_and_content():
    x = torch.arange(6.0)
    different = [x, x.double(), x.reshape(2, 3), x + 1e-6, x.int(), x.bfloat16(), x.numpy(), torch.tensor(3.0), torch.tensor(3)]
    assert len({repr(describe(v)) for v in different}) == len(different)
    assert describe(x) == describe(torch.arange(12.0)[:6]) == describe(torch.arange(0.0, 3.0, 0.5)[:, None].repeat(1, 2)[:, 1] * 2)


def test_models_are_described_by_what_they_compute():
    model = models.mlp((1, 2, 2), (3,), 2)
    assert describe(model) == describe(models.mlp((1, 2, 2), (3,), 2))
    assert describe(model) != describe(models.mlp((1, 2, 2), (3,), 2, seed=1))


def make_loss(factor, head=None):
    def loss(model, x, y):
        return factor * model(x).sum(1) if head is None else head(model.features(x)).sum(1)

    return loss


def test_functions_are_described_by_their_code_and_what_they_refer_to():
    gauss, wider = heads.GaussHead(torch.zeros(2, 3)), heads.GaussHead(torch.zeros(2, 3), 2.0)
    different = [
        make_loss(1.0), make_loss(2.0), make_loss(torch.ones(3)), make_loss(1.0, gauss), make_loss(1.0, wider),
        training.cross_entropy, torch.nn.functional.cross_entropy, lambda a, b, c: a, lambda a, b, c: b, lambda a, b, c=1: b,
    ]  # fmt: skip
    assert len({repr(describe(f)) for f in different}) == len(different)
    assert describe(make_loss(1.0)) == describe(make_loss(1.0))


SCRIPT = """
import torch
from support.cache import describe
from support import heads
scale = {scale}
def helper(x):
    "A docstring."
    return scale * x if x in {{"a", "b", "c"}} else x
def loss(model, x, y):
    {comment}
    return helper(model(x)) + torch.nn.functional.relu(x)
print(describe(loss))
"""


def description(**parts) -> str:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(**parts)], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_a_scripts_functions_are_described_with_the_globals_that_they_use_alike_in_every_process():
    first = description(scale="2.0", comment="# a comment")
    assert description(scale="2.0", comment="# a longer\n    # comment") == first
    assert description(scale="3.0", comment="# a comment") != first


def test_what_has_no_lasting_identity_is_refused_in_one_line(tmp_path):
    with open(__file__, encoding="utf-8") as stream:
        for thing in (stream, threading.Lock(), make_loss(stream), object()):
            with pytest.raises(CacheError, match="has no lasting identity and cannot be part of a cache key") as caught:
                Cache(tmp_path).unit("u", {"thing": thing}, dict)
            assert "\n" not in str(caught.value)


def test_code_is_part_of_the_key(tmp_path):
    module = tmp_path / "one.py"
    module.write_text("def f(x):\n    return x + 1\n")
    before = code_digest(module)
    module.write_text('def f(x):\n    """Documented."""\n    return x + 1  # the same\n')
    assert code_digest(module) == before
    module.write_text("def f(x):\n    return x + 2\n")
    assert code_digest(module) != before
    cache = Cache(tmp_path)
    parts = ((), [module], [heads], [clustering], [heads, clustering], [make_loss], [clustering.assign], [clustering.bisector_bound])
    assert len({cache.locate("u", {}, code)[0] for code in parts}) == len(parts)
    assert cache.locate("u", {}, [heads, clustering]) == cache.locate("u", {}, [clustering, heads])
    with pytest.raises(CacheError, match="code must be files, modules or functions; a str"):
        code_digest("one.py")


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["truncated", "empty", "garbage", "foreign"])
def test_an_unreadable_file_is_computed_again_with_a_warning(tmp_path, harm):
    cache = Cache(tmp_path)
    calls, compute = counted()
    cache.unit("u", {}, compute)
    path, _ = cache.locate("u", {})
    if harm == "foreign":  # as if two keys had the same hash
        cache.unit("u", {"other": 1}, compute)
        os.replace(cache.locate("u", {"other": 1})[0], path)
        calls.pop()
    else:
        whole = path.read_bytes()
        path.write_bytes({"truncated": whole[:-3], "empty": b"", "garbage": b"\xff" * 100}[harm])
    with pytest.warns(UserWarning, match=rf"{path.name} cannot be read .*computing it again"):
        assert same(cache.unit("u", {}, compute), RESULT)
    assert len(calls) == 2
    assert same(cache.unit("u", {}, compute), RESULT) and len(calls) == 2


def test_a_failing_computation_leaves_nothing(tmp_path):
    for error in (ZeroDivisionError, KeyboardInterrupt):

        def compute(error=error):
            raise error

        with pytest.raises(error):
            Cache(tmp_path).unit("u", {}, compute)
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_failing_write_leaves_nothing(tmp_path, monkeypatch, error):
    cache = Cache(tmp_path)
    cache.writable()

    def fail(*_args):
        raise error

    monkeypatch.setattr("support.common.cache.os.replace", fail)
    with pytest.raises((CacheError, KeyboardInterrupt)) as caught:
        cache.unit("u", {}, lambda: RESULT)
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


def test_a_disk_that_really_is_full(full_disk):
    cache = Cache(full_disk)
    kept = cache.unit("small", {}, lambda: RESULT)
    with pytest.raises(CacheError, match=r"cannot be written \(No space left on device\): free some space there, or set BOOK_CACHE"):
        cache.unit("large", {}, lambda: {"x": torch.zeros(100_000)})
    assert files(full_disk) == [cache.locate("small", {})[0].name]
    assert same(cache.unit("small", {}, lambda: {}), kept)
    (full_disk / "filler").write_bytes(b"\0" * 40_000)
    with pytest.raises(CacheError, match="free some space"):
        cache.unit("medium", {}, lambda: {"x": torch.zeros(10_000)})


def test_a_folder_that_cannot_be_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    calls, compute = counted()
    cache = Cache(tmp_path / "file" / "folder")
    for use in (cache.writable, lambda: cache.unit("u", {}, compute)):
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
        import os, torch
        from support.cache import Cache, CacheError
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            Cache({str(folder)!r}).unit("u", {{}}, lambda: print("computed") or {{"x": torch.zeros(1)}})
        except CacheError as error:
            print(error)
    """
    for parent in folder.parents:  # pytest's own folders are private
        if parent != tmp_path and parent.stat().st_uid == os.geteuid() and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith(f"the cache folder {folder} cannot be written (Permission denied): make it writable"), done.stdout
    assert files(folder) == []


def test_writable_sweeps_up_after_killed_runs_only(tmp_path):
    old, young = tmp_path / ".u-1.tmp", tmp_path / ".u-2.tmp"
    for file in (old, young, tmp_path / "u.safetensors"):
        file.write_bytes(b"x")
    for file in (old, tmp_path / "u.safetensors"):
        os.utime(file, (time.time() - 7200,) * 2)
    Cache(tmp_path).writable()
    assert files(tmp_path) == [".u-2.tmp", "u.safetensors"]


# --- several processes ------------------------------------------------------------------------------------------------


def _race(folder, barrier, value):
    torch.set_num_threads(1)
    barrier.wait()
    for i in range(20):
        Cache(folder).unit(f"u{i}", {}, lambda: {"x": torch.full((1000,), float(value))})


def test_two_processes_racing_leave_whole_files(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_race, args=(tmp_path, barrier, value)) for value in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert len(files(tmp_path)) == 20
    for file in tmp_path.iterdir():
        assert load_file(file)["x"].unique().numel() == 1


def test_a_process_killed_while_writing_leaves_no_half_written_unit(tmp_path):
    script = f"""
        import os, signal, torch
        from support import cache
        def kill(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        cache.os.replace = kill
        cache.Cache({str(tmp_path)!r}).unit("u", {{}}, lambda: {{"x": torch.zeros(1000)}})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=120, check=False)
    assert done.returncode != 0
    assert all(name.startswith(".") and name.endswith(".tmp") for name in files(tmp_path)) and len(files(tmp_path)) == 1
    calls, compute = counted()
    assert same(Cache(tmp_path).unit("u", {}, compute), RESULT) and len(calls) == 1
