"""Running a chapter, from its second cell to the manifest: a tiny book, chapters that fail, runs that are repeated and recorded."""

import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import psutil
import pytest
import tiny_book
import torch
from safetensors.torch import load_file

from support.book import chapter_run, execute, manifests
from support.book.chapter_run import RunError
from support.book.claims import ClaimError
from support.book.execute import ChapterFailed
from support.book.manifests import RecordError
from support.book.profiles import ProfileError

CHAPTER = tiny_book.CHAPTER


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    monkeypatch.delenv("BOOK_CACHE", raising=False)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A book whose chapter has been run once at its defaults; not to be changed by a test."""
    root = tiny_book.make(tmp_path_factory.mktemp("executed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(root))
        patch.setenv("MPLBACKEND", "Agg")  # a setting of the caller that would lose the figures
        execute.execute(CHAPTER)
    return root


@pytest.fixture
def finished(executed, tmp_path, monkeypatch):
    """A copy of that book."""
    root = tmp_path / "copy"
    shutil.copytree(executed, root)
    monkeypatch.setenv("BOOK_ROOT", str(root))
    return root


def change_source(root: Path, old: str, new: str) -> None:
    assert old in tiny_book.SOURCE
    tiny_book.make(root, source=tiny_book.SOURCE.replace(old, new))


# --- the chapter's side -----------------------------------------------------------------------------------------------------------


def test_a_run_has_its_parameters_seeds_and_device(book):
    run = chapter_run.start(CHAPTER, "standard", 4, "cpu", {"steps": 7})
    assert (run.profile.steps, run.profile.name, run.seeds, run.device) == (7, "standard", [4, 5, 6], torch.device("cpu"))
    assert len(run.load("digits", "test")) == 500
    record = run.record()
    assert record["overrides"] == {"steps": 7}
    assert record["parameters"]["steps"] == 7
    assert list(record["data"]) == ["digits/test"]
    assert len(record["data"]["digits/test"]) == 64
    assert record["commit"] is None  # a temporary folder is no checkout
    json.dumps(record)


def test_an_override_that_changes_nothing_is_none(book):
    assert chapter_run.start(CHAPTER, overrides={"steps": 5}).record()["overrides"] == {}


def test_quick_computes_on_one_thread(book):
    torch.set_num_threads(2)
    assert chapter_run.start(CHAPTER, "standard").record()["threads"] == 2
    assert chapter_run.start(CHAPTER, "quick").record()["threads"] == 1


def test_the_global_generators_start_from_the_seed(book):
    draws = []
    for seed in (3, 3, 4):
        chapter_run.start(CHAPTER, seed=seed)
        draws.append(float(torch.rand(())))
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"device": "gpu"}, RunError, "unknown device"),
        ({"seed": -1}, ProfileError, "wants an integer"),
        ({"profile": "fast"}, ProfileError, "unknown profile"),
        ({"overrides": {"step": 3}}, ProfileError, "did you mean steps"),
    ],
)
def test_a_run_that_cannot_start_says_why(book, arguments, error, words):
    with pytest.raises(error, match=words):
        chapter_run.start(CHAPTER, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named_and_auto_does_without(book):
    with pytest.raises(RunError, match="no device cuda"):
        chapter_run.resolve_device("cuda")
    assert chapter_run.resolve_device("auto") == torch.device("cpu")


def test_a_cache_that_is_a_file_is_refused_at_the_start(book, monkeypatch):
    (book / "occupied").write_text("")
    monkeypatch.setenv("BOOK_CACHE", str(book / "occupied"))
    with pytest.raises(RuntimeError, match="occupied"):
        chapter_run.start(CHAPTER)


def test_outside_ipython_the_rows_are_printed(book, capsys):
    run = chapter_run.start(CHAPTER)
    run.claim("tiny2020.thm1", error=0.0)
    assert "tiny2020.thm1 (Theorem 1): reproduced" in capsys.readouterr().out


def test_claims_that_are_unknown_foreign_or_stated_twice_are_refused(book):
    registry = tiny_book.CLAIMS.replace("    where: Table 1\n", "    where: Table 1\n    chapter: 02_next\n")
    tiny_book.make(book, claims=registry)
    run = chapter_run.start(CHAPTER)
    with pytest.raises(ClaimError, match=r"no claim 'tiny2020\.thm2'"):
        run.claim("tiny2020.thm2", error=0)
    with pytest.raises(ClaimError, match="belongs to chapter 02_next, not to 01_tiny"):
        run.claim("tiny2020.table1", accuracy=1)
    run.claim("tiny2020.thm1", error=0)
    with pytest.raises(ClaimError, match="stated twice"):
        run.claim("tiny2020.thm1", error=0)
    run.finish()


def test_a_chapter_must_state_all_its_claims(book):
    run = chapter_run.start(CHAPTER)
    run.claim("tiny2020.thm1", error=0)
    with pytest.raises(ClaimError, match=r"never states tiny2020\.table1"):
        run.finish()


def test_units_of_earlier_runs_are_counted_and_reused(book):
    def compute():
        calls.append(1)
        return {"x": torch.ones(2)}

    calls: list[int] = []
    first = chapter_run.start(CHAPTER)
    first.unit("ones", {"n": 2}, compute, code=[])
    first.unit("ones", {"n": 2}, compute, code=[])
    assert (len(calls), first.record()["units_from_cache"]) == (1, 0)
    time.sleep(0.05)  # the clock of the file system is coarse
    second = chapter_run.start(CHAPTER)
    second.unit("ones", {"n": 2}, compute, code=[])
    assert (len(calls), second.record()["units_from_cache"]) == (1, 1)
    torch.set_num_threads(2)
    second.unit("ones", {"n": 2}, compute, code=[])
    assert len(calls) == 2  # another number of threads may give other digits


def test_a_dirty_tree_is_one_that_differs_in_more_than_records(book, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*arguments):
        subprocess.run(["git", "-C", str(book), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    clean = chapter_run.start(CHAPTER).record()
    assert re.fullmatch(r"[0-9a-f]{40}", clean["commit"])
    (book / ".gitignore").write_text("/data/cache\n")
    git("add", ".")
    git("commit", "-m", "ignore the cache")
    assert chapter_run.start(CHAPTER).record()["dirty"] is False
    (book / "data" / "runs" / "quick").mkdir(parents=True)
    (book / "data" / "runs" / "quick" / "01_tiny.json").write_text("{}")
    (book / "book" / "01_tiny.ipynb").write_text("{}")
    (book / "data" / "verdicts.csv").write_text("")
    assert chapter_run.start(CHAPTER).record()["dirty"] is False
    (book / "book" / "02_other.py").write_text("")
    assert chapter_run.start(CHAPTER).record()["dirty"] is True


# --- executing --------------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_an_executed_notebook_and_its_manifest(finished):
    notebook = nbformat.read(manifests.local_run(CHAPTER, "quick"), as_version=4)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code_cells] == list(range(1, len(code_cells) + 1))
    assert not any("injected-parameters" in cell.metadata.get("tags", []) for cell in code_cells)  # quick at its defaults
    assert not {"papermill", "jupytext"} & set(notebook.metadata)
    assert not any("papermill" in cell.metadata for cell in notebook.cells)
    assert [record["id"] for _, record in execute.records_in(notebook, "claim")] == ["tiny2020.thm1", "tiny2020.table1"]

    manifest = manifests.manifest_of(manifests.local_run(CHAPTER, "quick"))
    assert (manifest.chapter, manifest.profile, manifest.seeds, manifest.threads, manifest.overrides) == (CHAPTER, "quick", [0, 1], 1, {})
    assert manifest.parameters == {"seeds": 2, "steps": 5, "rate": 0.5, "sizes": [0.5, 1.0], "data": "digits", "wide": False}
    assert manifest.claims["tiny2020.table1"].measured == {"accuracy": [0.9, 0.9]}
    assert manifest.claims["tiny2020.table1"].modern == {"worst": [0.1]}
    assert manifest.wall_seconds > manifest.computing_seconds > 0
    assert manifest.peak_memory_mb > 50
    assert manifest.versions["torch"] == importlib.metadata.version("torch")
    assert manifests.is_current(manifest)
    assert [file.name for file in manifests.local_run(CHAPTER, "quick").parent.iterdir() if file.name.startswith(".")] == []


def test_the_kernel_is_this_python_with_this_package_and_inline_figures(executed, monkeypatch, tmp_path):
    source = tiny_book.SOURCE.replace(
        'print("steps", p.steps)',
        'import sys, os, support\nprint(sys.executable, support.__file__, os.environ["MPLBACKEND"], os.environ["BOOK_PROGRESS"])',
    )
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path / "book here", source=source)))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "kernels"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    spec = tmp_path / "kernels" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["false"], "display_name": "another", "language": "python"}')
    notebook = nbformat.read(execute.execute(CHAPTER), as_version=4)
    (line,) = [
        output.text for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs if output.output_type == "stream"
    ]
    assert line.split() == [
        sys.executable,
        chapter_run.paths.__file__.replace("paths.py", "__init__.py"),
        "module://matplotlib_inline.backend_inline",
        "off",
    ]


def test_a_current_run_is_not_done_again(finished, monkeypatch):
    monkeypatch.setattr(execute, "_execute", lambda *_: pytest.fail("ran again"))
    assert execute.execute(CHAPTER) == manifests.local_run(CHAPTER, "quick")
    assert execute.execute(CHAPTER, overrides={"steps": 5}) == manifests.local_run(CHAPTER, "quick")
    assert execute.execute(CHAPTER, device="auto") == manifests.local_run(CHAPTER, "quick") or torch.cuda.is_available()


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        ({"seed": 1}, None),
        ({"overrides": {"steps": 6}}, None),
        ({"force": True}, None),
        ({}, ("2 * 2 - 4", "2 * 3 - 6")),
        ({}, ("profile", "quick: 5")),
        ({}, ("claims", "tiny2020.table1")),
        ({}, ("manifest", "")),
    ],
)
def test_whatever_could_change_the_numbers_runs_again(finished, monkeypatch, arguments, change):
    if change and change[0] == "profile":
        tiny_book.make(finished, profile=tiny_book.PROFILE.replace("quick: 5", "quick: 6"))
    elif change and change[0] == "claims":
        tiny_book.make(finished, claims=tiny_book.CLAIMS.replace("tiny2020.table1", "tiny2020.table2"))
    elif change and change[0] == "manifest":
        manifests.manifest_path(manifests.local_run(CHAPTER, "quick")).write_text("{}")
    elif change:
        change_source(finished, *change)
    monkeypatch.setattr(execute, "_execute", lambda *_: Path("ran"))
    assert execute.execute(CHAPTER, **arguments) == Path("ran")


def test_comments_and_prose_do_not_make_a_run_old(finished):
    change_source(finished, "# The first words.", "# Other words.")
    assert manifests.current_run(CHAPTER) is not None
    change_source(finished, "p = run.profile\n", "p = run.profile  # fields\n\n")
    assert manifests.current_run(CHAPTER) is not None


def test_parameters_that_differ_are_injected_and_hidden(book):
    notebook = nbformat.read(execute.execute(CHAPTER, "standard", 2, overrides={"sizes": [2, 3]}), as_version=4)
    (cell,) = [cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert cell.metadata.tags == ["injected-parameters", "remove-input"]
    assert "device" not in cell.source
    manifest = manifests.manifest_of(manifests.local_run(CHAPTER, "standard"))
    assert (manifest.seeds, manifest.overrides, manifest.parameters["sizes"]) == ([2, 3, 4], {"sizes": [2.0, 3.0]}, [2.0, 3.0])
    with pytest.raises(RecordError, match="changed parameters"):
        execute.record_run(manifests.local_run(CHAPTER, "standard"))


FAILURES = {
    "a cell raises": (
        ('print("steps", p.steps)', 'raise ValueError("no such\\nthing")'),
        r"in cell 3 \(In \[2\]\): ValueError: no such thing",
    ),
    "a claim is missing": (('run.claim("tiny2020.thm1", error=2 * 2 - 4)', "pass"), r"never states tiny2020\.thm1"),
    "no finish": (("run.finish()\n", ""), r"must call run\.finish\(\) once; it was called 0 times"),
    "the kernel dies": (('print("steps", p.steps)', "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"), "kernel died"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_chapter_that_fails_keeps_the_last_good_run(finished, name):
    change, reason = FAILURES[name]
    before = manifests.local_run(CHAPTER, "quick").read_text(), manifests.manifest_of(manifests.local_run(CHAPTER, "quick"))
    change_source(finished, *change)
    with pytest.raises(ChapterFailed, match=reason) as caught:
        execute.execute(CHAPTER)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("01_tiny failed ")
    failed = manifests.local_run(CHAPTER, "quick").with_name("01_tiny.failed.ipynb")
    assert f"{failed.relative_to(finished)} shows how far it came" in str(caught.value)
    nbformat.validate(nbformat.read(failed, as_version=4))
    assert (manifests.local_run(CHAPTER, "quick").read_text(), manifests.manifest_of(manifests.local_run(CHAPTER, "quick"))) == before


def test_a_chapter_without_its_parameters_is_refused_before_it_runs(book, monkeypatch):
    monkeypatch.setattr(execute, "_execute", lambda *_: pytest.fail("ran"))
    change_source(book, "overrides: dict = {}  # changes", "")
    with pytest.raises(RecordError, match="does not declare overrides"):
        execute.execute(CHAPTER)
    change_source(book, '# %% tags=["parameters"]', "# %%")
    with pytest.raises(RecordError, match="does not declare profile, seed, device, overrides"):
        execute.execute(CHAPTER)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_stops_the_kernel_and_leaves_nothing(book):
    change_source(book, 'print("steps", p.steps)', 'import os, time\nopen("started", "w").write(str(os.getpid()))\ntime.sleep(600)')
    package = str(Path(chapter_run.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-m", "support", "run", "01"],
        cwd=package,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BOOK_ROOT": str(book)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it, and so would its children
    )
    kernel = _wait_for(book / "book" / "started")
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1].strip().splitlines()
    assert process.returncode == 130
    assert errors[0] == "01_tiny at quick: running ..."
    assert [line for line in errors[1:] if line] == [line for line in errors if line.startswith("interrupted: 01_tiny at quick")]
    assert len(errors) >= 2
    deadline = time.monotonic() + 30
    while _alive(kernel) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(kernel)
    assert not list(book.rglob("01_tiny*.ipynb"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_that_is_killed_continues_from_its_finished_units(book):
    work = """import os, time, torch
first = run.unit("first", {}, lambda: {"draw": torch.rand(3)}, code=[])
if not os.path.exists("second-time"):
    open("started", "w").write(str(os.getpid()))
    time.sleep(600)
print(first["draw"].tolist() == [float(x) for x in open("drawn").read().split()] if os.path.exists("drawn") else "")"""
    change_source(book, 'print("steps", p.steps)', work)
    package = str(Path(chapter_run.__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-m", "support", "run", "01"], cwd=package, env=os.environ | {"BOOK_ROOT": str(book)})
    kernel = _wait_for(book / "book" / "started")
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while _alive(kernel) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(kernel)
    assert not (book / "_build").exists()

    (unit,) = (book / "data" / "cache").glob("first-*.safetensors")
    (book / "book" / "drawn").write_text(" ".join(map(repr, load_file(unit)["draw"].tolist())))
    (book / "book" / "second-time").write_text("")
    notebook = nbformat.read(execute.execute(CHAPTER), as_version=4)
    assert notebook.cells[2].outputs[0].text == "True\n"
    assert manifests.manifest_of(manifests.local_run(CHAPTER, "quick")).units_from_cache == 1


def _wait_for(file: Path) -> int:
    deadline = time.monotonic() + 120
    while not (file.is_file() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return int(file.read_text())


def _alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- recording --------------------------------------------------------------------------------------------------------------------


def test_recording_quick_makes_the_pair_of_the_source(finished):
    notebook_file = execute.execute(CHAPTER, record=True)
    assert notebook_file == finished / "book" / "01_tiny.ipynb"
    notebook, source = nbformat.read(notebook_file, as_version=4), jupytext.read(finished / "book" / "01_tiny.py")
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [(cell.cell_type, cell.source) for cell in source.cells]
    assert notebook.metadata.jupytext.formats == "ipynb,py:percent"
    assert jupytext.writes(notebook, fmt="py:percent") == jupytext.writes(source, fmt="py:percent")
    assert manifests.manifest_of(notebook_file) == manifests.manifest_of(finished / "data" / "runs" / "quick" / "01_tiny.json")
    assert str(finished) not in notebook_file.read_text()
    assert list(manifests.collect("quick")) == [CHAPTER]
    first = notebook_file.read_text()
    execute.execute(CHAPTER, record=True)
    assert notebook_file.read_text() == first


def test_recording_another_profile_goes_to_its_folder(book):
    notebook = execute.execute(CHAPTER, "standard", record=True)
    assert notebook == book / "data" / "runs" / "standard" / "01_tiny.ipynb"
    assert "jupytext" not in nbformat.read(notebook, as_version=4).metadata
    assert manifests.manifest_of(notebook).profile == "standard"
    assert (manifests.collect("quick"), list(manifests.collect("standard"))) == ({}, [CHAPTER])
    assert manifests.estimate(CHAPTER, "standard").source.startswith("recorded on ")
    assert manifests.estimate(CHAPTER, "paper") == (90, 8, 50, "declared in the profile")


@pytest.mark.parametrize("arguments", [{"seed": 1}, {"overrides": {"steps": 6}}])
def test_a_record_is_of_a_profile_as_it_stands(book, monkeypatch, arguments):
    monkeypatch.setattr(execute, "_execute", lambda *_: pytest.fail("ran"))
    with pytest.raises(RecordError, match="as it stands"):
        execute.execute(CHAPTER, record=True, **arguments)


def _with_output(root: Path, data: dict) -> None:
    file = manifests.local_run(CHAPTER, "quick")
    notebook = nbformat.read(file, as_version=4)
    notebook.cells[2].outputs.append(nbformat.v4.new_output("display_data", data=data))
    file.write_text(nbformat.writes(notebook))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"text/plain": "saved in /home/ann/book"}, "path of this machine: /home/ann/book"),
        ({"text/html": "<b>/tmp/tmpab12/x</b>"}, "path of this machine: /tmp/tmpab12/x"),
        ({"text/plain": r"C:\Users\ann"}, "path of this machine"),
        ({"text/plain": "ROOT"}, "path of this machine"),
        ({"image/svg+xml": "<svg/>"}, "pictures must be PNG"),
        ({"image/png": "A" * 6_000_000}, "6.0 MB"),
    ],
)
def test_notebooks_that_must_not_be_committed_are_refused(finished, data, complaint):
    _with_output(finished, {kind: str(finished) if text == "ROOT" else text for kind, text in data.items()})
    with pytest.raises(RecordError, match=re.escape(complaint)):
        execute.record_run(manifests.local_run(CHAPTER, "quick"))
    assert not (finished / "book" / "01_tiny.ipynb").exists()


@pytest.mark.parametrize("text", ["the mean/root ratio", "see data/sets/mnist", "a/home/run", "1/tmp", "https://example.org/users/a"])
def test_harmless_text_is_recorded(finished, text):
    _with_output(finished, {"text/plain": text})
    assert execute.record_run(manifests.local_run(CHAPTER, "quick")).is_file()


def test_a_run_older_than_its_code_is_not_recorded(finished):
    change_source(finished, "2 * 2 - 4", "2 * 3 - 6")
    with pytest.raises(RecordError, match="older than its chapter"):
        execute.record_run(manifests.local_run(CHAPTER, "quick"))


# --- reading ----------------------------------------------------------------------------------------------------------------------


def test_a_page_has_the_prose_of_today_around_the_numbers_of_the_run(finished):
    change_source(finished, "# The first words.", "# Other words.")
    found = execute.page(manifests.local_run(CHAPTER, "quick"))
    assert found.cells[0].source.endswith("Other words.")
    assert found.cells[2].outputs[0].text == "steps 5\n"


def test_a_page_whose_code_changed_stays_as_it_was_run(finished):
    change_source(finished, 'print("steps", p.steps)', 'print("more steps", p.steps)')
    found = execute.page(manifests.local_run(CHAPTER, "quick"))
    assert "more steps" not in found.cells[2].source
    assert manifests.is_stale(manifests.manifest_of(manifests.local_run(CHAPTER, "quick")))


def test_an_exercise_that_is_newer_than_the_run_stands_on_its_page_and_makes_only_the_quick_run_old(finished):
    exercise = '# %% tags=["tests"] exercise="a" points=1\nassert 1 + 1 == 2\n\n'
    run = manifests.local_run(CHAPTER, "quick")
    assert manifests.current_run(CHAPTER) == run
    change_source(finished, "# %%\nrun.show_verdicts()", f"{exercise}# %%\nrun.show_verdicts()")
    assert not manifests.is_stale(manifests.manifest_of(run))
    assert manifests.current_run(CHAPTER) is None
    found = execute.page(run)
    assert [cell.source for cell in found.cells[-2:]] == ["assert 1 + 1 == 2", "run.show_verdicts()\nrun.finish()"]
    assert found.cells[-2].outputs == [] and found.cells[-1].outputs


def test_a_page_judges_by_the_registry_of_today(finished):
    tiny_book.make(finished, claims=tiny_book.CLAIMS.replace("smallest: standard", "smallest: quick").replace("low: 0.8", "low: 0.95"))
    found = execute.page(manifests.local_run(CHAPTER, "quick"))
    row = found.cells[5].outputs[0].data
    assert "tiny2020.table1 (Table 1): not reproduced" in row["text/plain"]
    assert "not reproduced" in found.cells[6].outputs[0].data["text/html"]  # the table of verdicts


def test_a_manifest_that_is_none_is_refused_in_one_line(finished, tmp_path):
    file = tmp_path / "some.json"
    for text, words in (("{}", "not a manifest"), ("no json", "not a manifest")):
        file.write_text(text)
        with pytest.raises(RecordError, match=words) as caught:
            manifests.manifest_of(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(RecordError, match="run or record the chapter first"):
        manifests.manifest_of(tmp_path / "none.ipynb")


@pytest.mark.parametrize(("name", "chapter"), [("01_tiny", "01_tiny"), ("01", "01_tiny"), ("1", "01_tiny"), ("01_t", "01_tiny")])
def test_chapters_are_found_by_their_beginning(book, name, chapter):
    assert manifests.resolve_chapter(name) == chapter


@pytest.mark.parametrize("name", ["2", "", "tiny", "01_tony", "../book/01_tiny"])
def test_unknown_chapters_are_refused(book, name):
    with pytest.raises(RecordError, match="unknown chapter"):
        manifests.resolve_chapter(name)
    (book / "book" / "01_other.py").write_text("")
    with pytest.raises(RecordError, match="several chapters"):
        manifests.resolve_chapter("01")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "folder" / "file"
    manifests.write_whole(target, "old")
    with pytest.raises(UnicodeEncodeError):
        manifests.write_whole(target, "new \ud800")
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]
