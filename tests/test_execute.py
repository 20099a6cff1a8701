"""The launching side of a run: a tiny book whose chapter is executed once, parts that fail, records and pages."""

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
import tiny_runs
from papermill.clientwrap import PapermillNotebookClient

import support
from support import data
from support.book import execute, manifests
from support.book.execute import ChapterFailed
from support.book.manifests import RecordError, local_run, manifest_of, recorded_run
from support.models import pretrained
from support.models.published import NETWORKS

CHAPTER = tiny_book.CHAPTER
STEPS = 'print("steps", p.steps)'  # the cell of the evidence that a test gives something else to do
WHERE = """import os, sys, support
import matplotlib.pyplot as plt
plt.close(plt.figure())
drawn = plt.Figure in get_ipython().display_formatter.formatters["image/png"].type_printers
print(sys.executable, support.__file__, os.environ["MPLBACKEND"], os.environ["BOOK_PROGRESS"], drawn)"""
PATIENCE = 300  # seconds for what a busy machine does when it comes to it
AT_ONCE = '# %% tags=["hide-input"]\nfrom support'  # where a cell may stand that wants no seconds for imports


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A book whose chapter has been run once at its defaults, from where much would go wrong; not to be changed by a test."""
    root = tmp_path_factory.mktemp("executed")
    kernels = root / "kernels" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text('{"argv": ["false"], "display_name": "another", "language": "python"}')
    book = tiny_book.make(root / "a book", tiny_book.SOURCE.replace(STEPS, f"{WHERE}\n{STEPS}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(book))
        patch.setenv("JUPYTER_PATH", str(root / "kernels"))
        patch.setenv("MPLBACKEND", "Agg")  # a setting of the caller that would lose the figures
        execute.execute(CHAPTER)
    return book


@pytest.fixture
def finished(executed, tmp_path, monkeypatch):
    """A copy of that book."""
    root = tmp_path / "copy"
    shutil.copytree(executed, root)
    monkeypatch.setenv("BOOK_ROOT", str(root))
    return root


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """The parts that would run now, in order; none does."""
    parts = []

    def noted(chapter, part, given, *_):
        parts.append(part)
        return local_run(chapter, given["profile"], part)

    monkeypatch.setattr(execute, "_execute", noted)
    return parts


def rewrite(root: Path, old: str, new: str, part: str = "evidence") -> None:
    file = root / "book" / CHAPTER / f"{part}.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def outputs(notebook: Path) -> list[str]:
    """What each cell that shows something says as plain text."""
    cells = nbformat.read(notebook, as_version=4).cells
    found = [output.get("text") or output["data"]["text/plain"] for cell in cells for output in cell.get("outputs", [])]
    return [text.strip() for text in found]


# --- executing ----------------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_notebook_and_a_manifest_of_each_part(finished):
    runs = [local_run(CHAPTER, "quick", part) for part in ("evidence", "lesson", "exercises")]
    for run in runs:
        notebook = nbformat.read(run, as_version=4)
        code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code_cells] == list(range(1, len(code_cells) + 1))
        assert not any("injected-parameters" in cell.metadata.get("tags", []) for cell in code_cells)  # quick at its defaults
        assert not {"papermill", "jupytext"} & set(notebook.metadata)
        assert not any({"papermill", "execution"} & set(cell.metadata) for cell in notebook.cells)
        assert manifest_of(run).outputs == execute.outputs_digest(notebook)
    made = {file.name for file in runs[0].parent.iterdir()}
    assert made == {run.with_suffix(end).name for run in runs for end in (".ipynb", ".json")}

    evidence, lesson, exercises = map(manifest_of, runs)
    assert (evidence.chapter, evidence.profile, evidence.seeds, evidence.threads, evidence.overrides) == (CHAPTER, "quick", [0, 1], 1, {})
    assert evidence.parameters == {"seeds": 2, "steps": 5, "rate": 0.5, "sizes": [0.5, 1.0], "data": "digits", "wide": False}
    assert {name: (record.measured, record.modern) for name, record in evidence.claims.items()} == {
        "tiny2020.thm1": ({"error": [0]}, {}), "tiny2020.table1": ({"accuracy": [0.9, 0.9]}, {"worst": [0.1]}),
    }  # fmt: skip
    assert evidence.wall_seconds > evidence.computing_seconds > 0
    assert evidence.peak_memory_mb > 50
    assert evidence.versions["torch"] == importlib.metadata.version("torch")
    assert [part.claims for part in (lesson, exercises)] == [{}, {}]
    assert [part.evidence for part in (evidence, lesson, exercises)] == [None, evidence.content(), None]


def test_the_numbers_of_a_claim_stand_in_the_manifest_alone(finished):
    notebook = nbformat.read(local_run(CHAPTER, "quick"), as_version=4)
    stated = execute.records_in(notebook, "claim")
    assert [record for _, record in stated] == [{"id": "tiny2020.thm1"}, {"id": "tiny2020.table1"}]
    assert [cell for cell, _ in stated] == [record.cell for record in manifest_of(local_run(CHAPTER, "quick")).claims.values()]


def test_the_kernel_is_this_python_with_this_package_and_inline_figures(finished):
    line = outputs(local_run(CHAPTER, "quick"))[0].splitlines()[0]
    assert line.split() == [sys.executable, support.__file__, "module://matplotlib_inline.backend_inline", "off", "True"]


def test_a_lesson_shows_what_its_evidence_found(finished):
    figure, kept, verdicts, _ = outputs(local_run(CHAPTER, "quick", "lesson"))
    assert (figure, kept) == ("[0, 1, 2, 3, 4]", "kept 5 claims 2")
    assert re.search(r"tiny2020\.thm1.*reproduced.*tiny2020\.table1.*broken", verdicts, re.S)


@pytest.mark.parametrize(
    ("change", "arguments", "parts"),
    [
        (None, {}, []),
        (None, {"overrides": {"steps": 5}}, []),
        (None, {"force": True}, ["evidence", "lesson", "exercises"]),
        (None, {"seed": 1}, ["evidence", "lesson", "exercises"]),
        (None, {"profile": "standard"}, ["evidence", "lesson"]),  # the exercises use nothing of the profile
        (("2 * 2 - 4", "2 * 3 - 6", "evidence"), {}, ["evidence"]),  # and the lesson only if this finds something else
        (("()\nrun.finish()", "()\n\n# %%\nrun.finish()", "evidence"), {}, ["evidence"]),  # the same code, but another page
        (("print(3 * 2)", "print(2 * 3)", "exercises"), {}, ["exercises"]),
        (('"kept": {', '"kept": {\n  "more": 1,', None), {}, ["lesson"]),
    ],
)
def test_what_could_say_something_else_runs_again_the_evidence_first(finished, ran, change, arguments, parts):
    if change and change[2]:
        rewrite(finished, *change)
    elif change:
        file = local_run(CHAPTER, "quick").with_suffix(".json")
        assert change[0] in file.read_text()
        file.write_text(file.read_text().replace(*change[:2]))
    profile = arguments.get("profile", "quick")
    wanted = ["evidence", "lesson", "exercises"][: 3 if profile == "quick" else 2]
    assert execute.execute(CHAPTER, **arguments) == [local_run(CHAPTER, profile, part) for part in wanted]
    assert ran == parts


# --- failing ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ('raise ValueError("no such\\nthing")', r"in cell 3 \(In \[2\]\): ValueError: no such thing"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "because its kernel died"),
    ],
    ids=["a cell raises", "the kernel dies"],
)
def test_a_part_that_fails_keeps_the_last_good_run(finished, does, reason):
    good = {file: file.read_bytes() for file in local_run(CHAPTER, "quick").parent.iterdir()}
    rewrite(finished, AT_ONCE, f"# %%\n{does}\n\n{AT_ONCE}")
    with pytest.raises(ChapterFailed, match=reason) as caught:
        execute.execute(CHAPTER)
    message, failed = str(caught.value), local_run(CHAPTER, "quick").with_name("evidence.failed.ipynb")
    assert message.startswith("01_tiny/evidence failed ") and "\n" not in message
    assert f"{failed.relative_to(finished)} shows how far it came" in message
    nbformat.validate(nbformat.read(failed, as_version=4))
    assert {file: file.read_bytes() for file in failed.parent.iterdir() if file != failed} == good


@pytest.mark.parametrize(("calls", "words"), [(0, "it was called 0 times"), (2, "it was called 2 times")])
def test_a_part_that_does_not_finish_once_leaves_no_record(finished, monkeypatch, calls, words):
    def pretended(_, target, **__):
        notebook = nbformat.read(local_run(CHAPTER, "quick", "exercises"), as_version=4)
        (last,) = notebook.cells[-1].outputs
        notebook.cells[-1].outputs = [last] * calls
        nbformat.write(notebook, target)

    monkeypatch.setattr(execute.papermill, "execute_notebook", pretended)
    with pytest.raises(ChapterFailed, match=rf"must call run\.finish\(\) once; {words}"):
        execute.execute(CHAPTER, force=True)


@pytest.mark.parametrize("part", manifests.PARTS)
def test_a_part_without_its_parameters_is_refused_before_any_runs(finished, ran, part):
    rewrite(finished, "overrides: dict = {}  # changes", "", part)
    with pytest.raises(RecordError, match=rf"{part}\.py: .*does not declare overrides"):
        execute.execute(CHAPTER, force=True)
    rewrite(finished, '# %% tags=["parameters"]', "# %%", part)
    with pytest.raises(RecordError, match="does not declare profile, seed, device, overrides"):
        execute.execute(CHAPTER, force=True)
    assert ran == []


def test_a_chapter_over_its_time_is_stopped_and_says_that_a_rerun_continues(finished):
    started = time.monotonic()
    rewrite(finished, AT_ONCE, f"# %%\nimport time\ntime.sleep({PATIENCE})\n\n{AT_ONCE}", "exercises")
    with pytest.raises(ChapterFailed, match="because its time was over; a rerun continues with what the cache has"):
        execute.execute(CHAPTER, only="exercises", limit=0.1)
    assert time.monotonic() - started < PATIENCE / 2


def test_a_busy_machine_has_time_to_start_a_kernel_and_to_hear_from_it(finished, monkeypatch):
    real, told = PapermillNotebookClient.execute, []

    def noted(client, **options):
        told.append((client.startup_timeout, client.iopub_timeout))
        return real(client, **options)

    monkeypatch.setattr(PapermillNotebookClient, "execute", noted)
    execute.execute(CHAPTER, only="exercises", force=True)
    assert min(*told[0]) >= PATIENCE


def test_data_that_a_profile_names_are_checked_before_any_cell(finished, ran, monkeypatch):
    monkeypatch.setenv("BOOK_DATA", str(finished / "sets"))
    raw = finished / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in data._MNIST:
        (finished / "sets" / name).write_bytes(b"short")
    with pytest.raises(data.DataError, match=r"mnist: .* is truncated: 5 of"):
        execute.execute(CHAPTER, overrides={"data": "mnist"})
    assert ran == []


PICTURED = tiny_book.PROFILE.replace("  wide:", """
  published: {type: "list[str]", choices: [none, alexnet, cifar10/resnet20], help: "net", quick: [none], standard: [none], paper: [alexnet]}
  body: {type: str, choices: [mlp, alexnet], help: "what is trained here", quick: mlp, standard: mlp, paper: alexnet}
  wide:""")  # fmt: skip


def test_published_weights_and_pictures_are_checked_before_any_cell(tmp_path, ran, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path, profile=PICTURED)))
    (tmp_path / "sets").mkdir()
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "sets"))
    (tmp_path / "sets" / "weights").mkdir()
    (tmp_path / "sets" / "weights" / "alexnet.pth").write_bytes(b"short")
    assert execute.check_machine(CHAPTER, "quick", "cpu", {"body": "alexnet"}) == {}
    (tmp_path / "sets" / NETWORKS["cifar10/resnet20"].file.place).write_bytes(b"short")
    with pytest.raises(data.DataError, match=r"cifar10-resnet20.* is not the published file"):
        execute.execute(CHAPTER, overrides={"published": ["cifar10/resnet20"]})
    with pytest.raises(data.DataError, match=r"alexnet\.pth is not a file that is known"):
        execute.execute(CHAPTER, overrides={"published": ["none", "alexnet"]})
    assert ran == []


def test_what_was_checked_stands_in_the_record_of_the_evidence(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path, profile=PICTURED, lesson="", exercises="")))
    monkeypatch.setattr(pretrained, "check", lambda name: {f"imagenet/{name}": "f" * 64})
    (made,) = execute.execute(CHAPTER, overrides={"published": ["alexnet"]})
    assert manifest_of(made).data == {"imagenet/alexnet": "f" * 64}
    shown = "".join(str(cell.get("outputs", "")) for cell in execute.page(made).cells)
    assert "imagenet/alexnet (sha256 ffffffffffff" in shown


def start(root: Path, *arguments: str, **options) -> subprocess.Popen:
    """The command line as a person starts it: Ctrl-C works also where the suite runs in the background and ignores it."""
    return subprocess.Popen(
        [sys.executable, "-m", "support", "run", *arguments],
        cwd=Path(support.__file__).parents[1],
        env=os.environ | {"BOOK_ROOT": str(root), "TMPDIR": str(root / "temporary")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
        text=True,
        **options,
    )


def wait_for(file: Path, process: subprocess.Popen) -> int:
    """The number that a running command writes."""
    deadline = time.monotonic() + PATIENCE
    while not (file.is_file() and file.read_text()) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return int(file.read_text())


def ends(process: int) -> bool:
    """Whether a process is gone in the end."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a group of processes")
def test_ctrl_c_stops_chapters_side_by_side_and_leaves_nothing(book):
    names = [CHAPTER, "02_other"]
    for name in names:
        waits = f"# %%\nimport os, time\nopen('started-{name}', 'w').write(str(os.getpid()))\ntime.sleep(600)\n\n"
        (book / "book" / name).mkdir(exist_ok=True)
        (book / "book" / name / "evidence.py").write_text(tiny_book.SOURCE.replace(AT_ONCE, waits + AT_ONCE))
        (book / "data" / "profiles" / f"{name}.yml").write_text(tiny_book.PROFILE)
    (book / "temporary").mkdir()
    process = start(book, "--jobs", "2", stderr=subprocess.PIPE)
    try:
        kernels = [wait_for(book / "book" / f"started-{name}", process) for name in names]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        lines = [line for line in process.communicate(timeout=PATIENCE)[1].splitlines() if line]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert sorted(lines[:2]) == [f"{name} at quick: running ..." for name in names]
    assert [line.partition(": nothing is")[0] for line in lines[2:]] == [f"interrupted: {', '.join(names)} at quick"]
    assert all(map(ends, kernels))
    assert not [file for file in (book / "_build").rglob("*") if file.is_file()]
    assert [file.name for file in (book / "temporary").iterdir() if file.name.startswith("book-run")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
def test_a_temporary_folder_of_a_long_name_is_no_trouble(book):
    folder = book / ("long" * 30)
    folder.mkdir()
    environment = os.environ | {"BOOK_ROOT": str(book), "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "support", "run", "01"]
    done = subprocess.run(command, cwd=Path(support.__file__).parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


WORK = """import os, time, torch

def draw(n):
    open("draws", "a").write("one more ")
    return torch.rand(n)

first = run.once(draw, 3)
if not os.path.exists("second-time"):
    open("started", "w").write(str(os.getpid()))
    time.sleep(600)
print(open("draws").read().count("one more"))"""


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    """The evidence with changed parameters, killed in the middle of its work and run again."""
    if sys.platform == "win32":
        pytest.skip("Windows has no SIGKILL")
    root = tiny_book.make(tmp_path_factory.mktemp("continued"), tiny_book.SOURCE.replace(STEPS, WORK), lesson="", exercises="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(root))
        patch.setenv("BOOK_CACHE", str(root / "cache"))
        process = start(root, "01", "--profile", "standard", "--seed", "2", "--set", "sizes=[2, 3]")
        try:
            kernel = wait_for(root / "book" / "started", process)
        finally:
            process.kill()
            process.wait()
        assert ends(kernel)
        assert not [file for file in (root / "_build").rglob("*") if file.is_file()]
        (root / "book" / "second-time").write_text("")
        (run,) = execute.execute(CHAPTER, "standard", 2, overrides={"sizes": [2, 3]})
        yield run


def test_a_run_that_is_killed_continues_from_its_finished_work(continued):
    assert outputs(continued)[0] == "1"
    manifest = manifest_of(continued)
    assert (manifest.units, manifest.units_from_cache) == (1, 1)


def test_parameters_that_differ_are_injected_and_hidden(continued):
    notebook, manifest = nbformat.read(continued, as_version=4), manifest_of(continued)
    (cell,) = [cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert cell.metadata.tags == ["injected-parameters", "remove-input"]
    assert "device" not in cell.source
    assert (manifest.seeds, manifest.overrides, manifest.parameters["sizes"]) == ([2, 3, 4], {"sizes": [2.0, 3.0]}, [2.0, 3.0])
    with pytest.raises(RecordError, match="changed parameters"):
        execute.record_run(continued)


# --- recording ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(finished):
    """The book without the line that says where it runs: that names paths of this machine."""
    for part in manifests.PARTS:
        file = local_run(CHAPTER, "quick", part)
        notebook = nbformat.read(file, as_version=4)
        for cell in notebook.cells:
            cell["source"] = cell.source.replace(f"{WHERE}\n", "")
            for output in cell.get("outputs", []):
                if output.get("text", "").startswith(sys.executable):
                    output["text"] = output["text"].partition("\n")[2]
        file.write_text(execute.text_of(notebook))
    rewrite(finished, f"{WHERE}\n", "")
    _restamp("evidence")
    _restamp("lesson", evidence=manifest_of(local_run(CHAPTER, "quick")).content())
    return finished


def _restamp(part: str, **changes) -> None:
    run = local_run(CHAPTER, "quick", part)
    shown = execute.outputs_digest(nbformat.read(run, as_version=4))
    found = manifest_of(run).model_copy(update={"code": manifests.code_of(CHAPTER, part), "outputs": shown} | changes)
    manifests.manifest_path(run).write_text(execute.text_of_manifest(found))


def test_recording_quick_makes_the_pairs_of_the_sources(quiet, ran):
    recorded = execute.execute(CHAPTER, record=True)
    assert recorded == [quiet / "book" / CHAPTER / f"{part}.ipynb" for part in ("evidence", "lesson", "exercises")]
    for file in recorded:
        notebook, source = nbformat.read(file, as_version=4), jupytext.read(file.with_suffix(".py"))
        assert notebook.metadata.jupytext.formats == "ipynb,py:percent"
        assert jupytext.writes(notebook, fmt="py:percent") == jupytext.writes(source, fmt="py:percent")
        manifest = manifest_of(file)
        assert manifest == manifest_of(quiet / "data" / "runs" / "quick" / CHAPTER / f"{file.stem}.json")
        assert manifest == manifest_of(local_run(CHAPTER, "quick", file.stem))
        assert str(quiet) not in file.read_text()
    before = [file.read_bytes() for file in recorded]
    assert execute.execute(CHAPTER, record=True) == recorded
    assert [file.read_bytes() for file in recorded] == before
    assert ran == []


def test_a_number_that_somebody_edits_in_a_record_is_noticed(quiet):
    file = execute.record_run(local_run(CHAPTER, "quick"))
    assert execute.outputs_digest(nbformat.read(file, as_version=4)) == manifest_of(file).outputs
    text = file.read_text()
    assert text.count("steps 5") == 1
    file.write_text(text.replace("steps 5", "steps 6"))
    assert execute.outputs_digest(nbformat.read(file, as_version=4)) != manifest_of(file).outputs


def test_recording_another_profile_goes_to_its_folder(quiet):
    run, place = local_run(CHAPTER, "standard"), recorded_run(CHAPTER, "standard")
    tiny_runs.leave(run, tiny_runs.manifest(profile="standard"), *nbformat.read(local_run(CHAPTER, "quick"), as_version=4).cells)
    assert execute.record_run(run) == place == quiet / "data" / "runs" / "standard" / CHAPTER / "evidence.ipynb"
    assert "jupytext" not in nbformat.read(place, as_version=4).metadata
    assert manifest_of(place) == manifest_of(run)


def _with_output(data: dict) -> Path:
    run = local_run(CHAPTER, "quick")
    notebook = nbformat.read(run, as_version=4)
    notebook.cells[2].outputs.append(nbformat.v4.new_output("display_data", data=data))
    run.write_text(nbformat.writes(notebook))
    _restamp("evidence")
    return run


@pytest.mark.parametrize(
    ("kind", "content", "complaint"),
    [
        ("text/plain", "saved in /home/ann/book", "path of this machine: /home/ann/book"),
        ("text/html", "<b>/tmp/tmpab12/x</b>", "path of this machine: /tmp/tmpab12/x"),
        ("text/plain", r"C:\Users\ann", "path of this machine"),
        ("text/plain", "ROOT", "path of this machine"),
        ("image/svg+xml", "<svg/>", "pictures must be PNG"),
        ("image/png", "A" * 6_000_000, "6.0 MB"),
    ],
)
def test_notebooks_that_must_not_be_committed_are_refused(quiet, kind, content, complaint):
    run = _with_output({kind: content.replace("ROOT", str(quiet))})
    with pytest.raises(RecordError, match=re.escape(complaint)):
        execute.record_run(run)
    assert not recorded_run(CHAPTER, "quick").exists()


@pytest.mark.parametrize("text", ["the mean/root ratio", "see data/sets/mnist", "a/home/run", "1/tmp", "https://example.org/users/a"])
def test_harmless_text_is_recorded(quiet, text):
    assert execute.record_run(_with_output({"text/plain": text})).is_file()


def test_a_run_older_than_its_code_or_evidence_is_not_recorded(quiet):
    _restamp("evidence", kept={"steps": 6})
    with pytest.raises(RecordError, match="older than its source, profile, claims or evidence"):
        execute.record_run(local_run(CHAPTER, "quick", "lesson"))
    rewrite(quiet, "2 * 2 - 4", "2 * 3 - 6")
    with pytest.raises(RecordError, match="older than its source"):
        execute.record_run(local_run(CHAPTER, "quick"))


# --- reading ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "cell", "source", "prose"),
    [
        ("# The first words.", "# Other words.", 2, STEPS, "Other words."),
        (STEPS, 'print("more steps", p.steps)', 2, STEPS, "The first words."),  # other code: the page stays as it was run
        (STEPS, f"{STEPS}  # five", 2, f"{STEPS}  # five", "The first words."),
        ("list(range(p.steps))", "list(range(9))", 3, "list(range(p.steps))", "Other words."),  # a figure: shown with its code
        ("# %%\nrun.show_verdicts()", "# %%\n1\n\n# %%\nrun.show_verdicts()", 2, STEPS, "The first words."),  # one cell more
    ],
)
def test_a_page_has_the_prose_of_today_around_the_outputs_and_the_code_of_the_run(quiet, old, new, cell, source, prose):
    if prose == "Other words." and old != "# The first words.":
        rewrite(quiet, "# The first words.", "# Other words.")
    rewrite(quiet, old, new)
    found = execute.page(local_run(CHAPTER, "quick"))
    assert found.cells[cell].source.endswith(source)
    assert found.cells[0].source.endswith(prose)
    assert found.cells[2].outputs[0].text == "steps 5\n"


@pytest.mark.parametrize("part", ["evidence", "lesson"])
def test_a_page_judges_by_the_registry_of_today(quiet, part):
    easier = tiny_book.CLAIMS.replace("smallest: standard", "smallest: quick")
    (quiet / "data" / "claims" / "tiny2020.yml").write_text(easier.replace("low: 0.8", "low: 0.95"))
    cells = execute.page(local_run(CHAPTER, "quick", part)).cells
    said = [output.data["text/plain"] for cell in cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("not reproduced" in text for text in said) == (2 if part == "evidence" else 1)  # its row, and the table of verdicts
    assert json.dumps(said).count("scaled-down") == 0
