"""The command line: what it says, what it refuses in one line before any work, and its exit status."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_book
import tiny_runs

from support import cli
from support.book import chapter_run, execute, kernels, manifests, parallel
from support.book.manifests import local_run, manifest_of, recorded_run
from support.cli import main

CHAPTER = tiny_book.CHAPTER
PACKAGE = Path(cli.__file__).parents[1]
DRAW = """import torch

def draw(n, *, seed):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))

run.keep("drawn", [x.tolist() for x in run.each_seed(draw, p.steps)])
"""


def add(root: Path, name: str, source: str = tiny_book.SOURCE) -> None:
    """Another chapter, of evidence alone, which states no claims."""
    (root / "book" / name).mkdir()
    lines = (line for line in source.replace(CHAPTER, name).splitlines(keepends=True) if not line.startswith("run.claim"))
    (root / "book" / name / "evidence.py").write_text("".join(lines))
    (root / "data" / "profiles" / f"{name}.yml").write_text(tiny_book.PROFILE)


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    monkeypatch.setenv("BOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def idle(book, monkeypatch):
    """A book in which nothing may run."""
    monkeypatch.setattr(execute, "_execute", lambda *_, **__: pytest.fail("ran"))
    return book


@pytest.fixture
def instant(book, monkeypatch):
    """A book whose chapter runs in no time: what was asked for is noted."""
    asked = []

    def finished(*arguments, **options):
        asked.append((arguments, options))
        return [local_run(arguments[0], arguments[1])]

    monkeypatch.setattr(execute, "execute", finished)
    return asked


def refusal(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


def test_help_teaches_and_imports_nothing_heavy(book):
    script = (
        "import sys\nfrom support.cli import main\nassert main(['--help']) == 0\n"
        "print([name for name in ('torch', 'scipy', 'papermill', 'jupytext', 'nbformat') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PACKAGE, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("list", "run", "build", "score", "diff", "carry", "data"):
        assert f"\n  {command} " in done.stdout
    assert "python -m support run 01 --set" in done.stdout


@pytest.mark.parametrize("command", ["list", "run", "build", "score", "diff", "carry", "data", "data get", "data check"])
def test_each_command_explains_itself(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"python -m support {command}" in shown
    assert len(shown.splitlines()) > 5


@pytest.mark.parametrize("command", [[], ["data"]])
def test_without_a_command_there_is_help(command, capsys):
    assert main(command) == 0
    assert "Commands:" in capsys.readouterr().out


# --- refusing -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "02"], "unknown chapter '02'"),
        (["run", "01", "--profile", "slow"], "unknown profile 'slow'"),
        (["run", "01", "--set", "step=3"], "did you mean steps?"),
        (
            ["run", "01", "--set", "steps=1.5"],
            "steps: Input should be a valid integer, given 1.5 (steps taken)",
        ),
        (["run", "01", "--set", "steps"], "wants name=value"),
        (["run", "01", "--set", "steps=3", "--set", "steps=4"], "same field twice"),
        (["run", "01", "--seed", "x"], "--seed"),
        (["run", "01", "--seed", "-1"], "wants an integer from 0"),
        (["run", "01", "--device", "gpu"], "unknown device 'gpu'"),
        (["run", "01", "--record", "--seed", "1"], "as it stands"),
        (["run", "01", "--record", "--set", "steps=6"], "as it stands"),
        (["run", "01", "--profile", "slow", "--estimate"], "unknown profile 'slow'"),
        (["run", "01", "--set", "step=3", "--estimate"], "did you mean steps?"),
        (["run", "--quick"], "--quick"),
        (["run", "--jobs", "-1"], "--jobs"),
        (["run", "01", "--part", "lessons"], "unknown part 'lessons': did you mean lesson?"),
        (["run", "01", "--part", "exercises", "--profile", "standard"], "has no part 'exercises' at standard: it has evidence, lesson"),
        (["walk"], "walk"),
        (["diff", "a.json"], "Missing argument"),
        (["diff", "a.json", "b.json"], "no manifest a.json"),
        (["data", "get"], "Missing argument"),
        (["data", "check", "minst"], "did you mean mnist"),
        (["data", "get", "imagenet"], "unknown data set 'imagenet'"),
        (["data", "get", "cifar10/resnet2"], "did you mean cifar10/resnet"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_before_any_work(idle, capsys, arguments, words):
    assert words in refusal(capsys, *arguments)


def test_a_missing_gpu_is_refused(idle, capsys, monkeypatch):
    monkeypatch.setattr(chapter_run.torch.cuda, "is_available", lambda: False)
    assert "no device cuda" in refusal(capsys, "run", "01", "--device", "cuda")


def test_a_missing_data_set_is_refused(idle, capsys, monkeypatch):
    monkeypatch.delenv("BOOK_DATA", raising=False)
    assert "mnist" in refusal(capsys, "data", "check", "mnist")
    assert "data get mnist/provable-0.1" in refusal(capsys, "data", "check", "mnist/*")


def test_a_cache_that_cannot_be_written_is_refused(idle, capsys, monkeypatch):
    (idle / "occupied").write_text("")
    monkeypatch.setenv("BOOK_CACHE", str(idle / "occupied"))
    assert "occupied" in refusal(capsys, "run", "01")


def test_a_broken_profile_or_registry_is_refused(idle, capsys):
    tiny_book.make(idle, profile="fields: [")
    assert "01_tiny.yml is not YAML" in refusal(capsys, "run", "01")
    tiny_book.make(idle, claims=tiny_book.CLAIMS.replace("kind: identity", "kind: law"))
    assert "tiny2020.yml: claims.0.kind" in refusal(capsys, "run", "01")


def test_a_book_that_is_not_there_is_refused(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    assert "has no _toc.yml" in refusal(capsys, "list")
    (tmp_path / "_toc.yml").write_text("")
    assert "no chapters" in refusal(capsys, "run")


def test_a_bad_chapter_is_refused_and_the_others_run(book, instant, capsys):
    add(book, "02_other")

    def refused(*options: str) -> str:
        instant.clear()
        assert main(["run", "--force", *options]) == 1
        assert [given[0] for given, _ in instant] == [CHAPTER]
        return capsys.readouterr().err

    assert "error: 02_other has no part 'lesson' at quick: it has evidence\n" in refused("--part", "lesson")
    file = book / "book" / "02_other" / "evidence.py"
    whole = file.read_text()
    file.write_text(whole.replace("overrides: dict = {}", "# none"))
    assert "error: 02_other/evidence.py: its cell tagged `parameters` does not declare overrides\n" in refused()
    file.write_text(whole.replace("p = run.profile", "p = run.profile("))
    assert "error: 02_other/evidence.py is no Python: line " in refused()
    assert main(["list"]) == 1
    captured = capsys.readouterr()
    assert "is no Python" in captured.err and captured.out.count("  quick ") == 1
    (book / "data" / "profiles" / "02_other.yml").unlink()
    assert "error: unknown chapter '02_other'" in refused()


# --- running ------------------------------------------------------------------------------------------------------------------------


def test_the_request_reaches_the_runner(instant, capsys):
    changes = ["--set", "steps=7", "--set", "sizes=[1, 2.5]", "--set", "rate=1e-3"]
    assert main(["run", "1", "--profile", "standard", "--seed", "3", *changes, "--force", "--part", "lesson"]) == 0
    ((given, options),) = instant
    assert given == (CHAPTER, "standard", 3, "cpu", {"steps": 7, "sizes": [1, 2.5], "rate": 0.001})
    assert options == {"record": False, "force": True, "only": "lesson", "limit": 0, "bars": True, "sums": {}}
    captured = capsys.readouterr()
    assert captured.err == "01_tiny at standard: running ...\n"
    assert captured.out.startswith("01_tiny at standard: done in 0 s, ")


@pytest.mark.parametrize(
    ("options", "jobs", "made"),
    [
        ([], min(2, parallel.cores()), {}),
        (["--jobs", "9", "--profile", "standard", "--seed", "2"], 2, {"profile": "standard", "seed": 2}),
        (["--set", "steps=7", "--set", "rate=1", "--force"], min(2, parallel.cores()), {"changed": {"steps": 7, "rate": 1}, "force": True}),
        (["--record", "--part", "evidence"], min(2, parallel.cores()), {"record": True, "only": "evidence"}),
        (["--jobs", "1"], 1, {}),
        (["--profile", "standard"], 1, {"profile": "standard"}),  # its chapters use all cores themselves
    ],
)  # fmt: skip
def test_several_chapters_run_side_by_side_where_each_has_one_thread(book, instant, monkeypatch, options, jobs, made):
    add(book, "02_other")
    asked, run = [], parallel.run
    monkeypatch.setattr(parallel, "run", lambda *given: asked.append(given) or run(*given))
    assert main(["run", "02", "1", "01_tiny", *options]) == 0
    ((_, needs, most, memory, stop),) = asked
    assert set(needs.values()) == {(30, 2) if "standard" in options else (1, 1)}
    assert (most, stop) == (jobs, kernels.stop) and memory > 0
    request = (made.get("profile", "quick"), made.get("seed", 0), "cpu", made.get("changed", {}))
    wanted = {"record": made.get("record", False), "force": made.get("force", False), "only": made.get("only", "")}
    wanted |= {"limit": 0, "bars": jobs == 1, "sums": {}}
    assert sorted(instant, key=str) == [((name, *request), wanted) for name in (CHAPTER, "02_other")]


def test_a_chapter_that_fails_does_not_stop_the_others(book, capsys, monkeypatch):
    for name in ("00_first", "02_last"):
        add(book, name)

    def finished(chapter, *_, **__):
        if chapter == CHAPTER:
            raise execute.ChapterFailed("01_tiny failed in cell 3 (In [2]): ValueError: no")
        return [local_run(chapter, "quick")]

    monkeypatch.setattr(execute, "execute", finished)
    assert main(["run", "--jobs", "1"]) == 1
    captured = capsys.readouterr()
    assert "01_tiny failed in cell 3" in captured.err
    assert [line.split()[0] for line in captured.out.splitlines()] == ["00_first", "02_last"]


def _interrupt(*_, **__):
    raise KeyboardInterrupt


def test_an_interruption_is_one_line_and_130(book, capsys, monkeypatch):
    monkeypatch.setattr(execute, "execute", _interrupt)
    assert main(["run"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("interrupted: 01_tiny at quick")
    monkeypatch.setattr(manifests, "chapters", _interrupt)
    assert main(["list"]) == 130


def test_what_is_up_to_date_is_said_and_not_done_again(idle, capsys):
    for part in manifests.PARTS:
        tiny_runs.leave(local_run(CHAPTER, "quick", part), tiny_runs.manifest(part), *execute.read_source(CHAPTER, part).cells)
    assert main(["run"]) == 0
    assert capsys.readouterr().out == "01_tiny at quick: up to date\n"
    file = idle / "book" / CHAPTER / "exercises.py"
    file.write_text(file.read_text().replace("3 * 2", "2 * 3"))
    assert main(["run", "--part", "lesson"]) == 0
    assert capsys.readouterr().out == "01_tiny at quick: up to date\n"
    with pytest.raises(pytest.fail.Exception, match="ran"):
        main(["run"])


def test_a_run_that_is_broken_off_stops_its_kernels_then_and_not_those_of_a_later_one(idle, monkeypatch):
    stops = []
    monkeypatch.setattr(kernels, "stop", lambda: stops.append(1))
    with pytest.raises(pytest.fail.Exception, match="ran") as kept:  # with its traceback, which holds the run
        main(["run"])
    assert stops == [1] and kept.tb


def test_estimates_start_nothing(idle, capsys):
    add(idle, "02_other")
    assert main(["run", "--profile", "paper", "--device", "cuda", "--estimate", "--set", "steps=9"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "01_tiny at paper: about 90 min, 8.0 GB of memory, 50 MB of disk (declared in the profile)",
        "02_other at paper: about 90 min, 8.0 GB of memory, 50 MB of disk (declared in the profile)",
        "one after the other: 3.0 h, 8.0 GB of memory, 100 MB of disk",
        "This is for the profile as it stands; what --set changes is not counted.",
    ]


# --- two chapters, run and recorded -------------------------------------------------------------------------------------------------


def _two_chapters(root: Path, patch: pytest.MonkeyPatch) -> Path:
    source = tiny_book.SOURCE.replace('print("steps", p.steps)', DRAW)
    tiny_book.make(root, source, lesson="", exercises="")
    add(root, "02_other", source)
    patch.setenv("BOOK_ROOT", str(root))
    patch.setenv("BOOK_CACHE", str(root / "cache"))
    return root


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two chapters recorded at quick, one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        root = _two_chapters(tmp_path_factory.mktemp("recorded"), patch)
        assert main(["run", "--record", "--jobs", "1"]) == 0
    return root


@pytest.fixture
def scored(recorded, idle, monkeypatch):
    """A copy of that book, in which nothing may run."""
    root = idle / "copy"
    shutil.copytree(recorded, root)
    monkeypatch.setenv("BOOK_ROOT", str(root))
    return root


def test_chapters_side_by_side_find_what_they_find_one_after_the_other(recorded, tmp_path, monkeypatch, capfd):
    alone = {file.parent.name: manifest_of(file) for file in recorded.glob("_build/runs/quick/*/evidence.json")}
    root = _two_chapters(tmp_path, monkeypatch)
    fails = "# %%\nraise ValueError('no')\n\n"
    at_once = '# %% tags=["hide-input"]'
    add(root, "00_broken", tiny_book.SOURCE.replace(at_once, fails + at_once))
    assert main(["run", "--jobs", "3"]) == 1
    captured = capfd.readouterr()
    assert sorted(line.partition(": ")[0] for line in captured.out.splitlines()) == ["01_tiny at quick", "02_other at quick"]
    assert [line for line in captured.err.splitlines() if "failed in cell 3 (In [2]): ValueError: no" in line]
    beside = {name: manifest_of(local_run(name, "quick")) for name in alone}
    assert set(alone) == {CHAPTER, "02_other"} and len(alone[CHAPTER].kept["drawn"]) == 2
    assert {name: run.content() for name, run in beside.items()} == {name: run.content() for name, run in alone.items()}


def test_a_recorded_book_is_listed_and_scored(scored, capsys):
    assert main(["run"]) == 0
    assert capsys.readouterr().out.count("up to date") == 2
    assert main(["run", "01", "--record"]) == 0  # from the run that is current
    assert capsys.readouterr().err == "01_tiny at quick: recording ...\n"
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("  quick     recorded 20") == 2 and shown.count("  standard  not recorded; about 30 min") == 2
    assert "02_other: Tiny: the evidence (not in _toc.yml)" in shown

    assert main(["score", "--check"]) == 1
    assert "data/verdicts.csv lacks the row tiny2020.thm1,quick,reproduced" in capsys.readouterr().err
    assert main(["score", "--write", "--check"]) == 0
    assert "agree" in capsys.readouterr().out
    file = scored / "book" / CHAPTER / "evidence.py"
    file.write_text(file.read_text().replace("2 * 2 - 4", "2 * 3 - 6"))
    assert main(["list"]) == 0
    assert capsys.readouterr().out.count("with older code") == 1
    assert main(["score"]) == 0
    shown = capsys.readouterr().out
    assert "reproduced*" in shown and shown.endswith("* recorded with older code\n")


@pytest.mark.parametrize(
    ("arguments", "there", "not_there"),
    [
        ([], ["tiny2020.table1  scaled-down towards; broken  not run; not run  not run; not run", "tiny2020.thm1    reproduced",
              "quick: Reproduces? 1 reproduced, 1 scaled-down; Survives? 1 broken\n", "best of each claim: Reproduces?"], ["older"]),
        (["--find", "ATTACK broken"], ["tiny2020.table1", "quick: Reproduces? 1 scaled-down; Survives? 1 broken"], ["thm1"]),
        (["--find", "theorem"], ["tiny2020.thm1"], ["table1"]),
        (["--find", "theorem broken"], ["quick: no claims"], ["tiny2020"]),
        (["--find", "table1", "--full"], ["tiny2020.table1 (Table 1; 01_tiny): The accuracy is kept & the attack fails.\n[quick, cell 6]"],
         ["thm1"]),
    ],
)  # fmt: skip
def test_claims_are_found_by_words(scored, capsys, arguments, there, not_there):
    assert main(["score", *arguments]) == 0
    shown = capsys.readouterr().out
    assert [text for text in there if text not in shown] == [text for text in not_there if text in shown] == []


def test_two_runs_are_compared(scored, capsys):
    record, local = manifests.manifest_path(recorded_run(CHAPTER, "quick")), local_run(CHAPTER, "quick")
    assert main(["diff", str(record), str(local)]) == 0
    assert capsys.readouterr().out == "no differences\n"
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 5'))
    assert main(["diff", str(record), str(local)]) == 1
    assert capsys.readouterr().out == "seed: 5 -> 0\n"


# --- the rest -----------------------------------------------------------------------------------------------------------------------


def test_digits_are_always_there(book, capsys):
    assert main(["data", "check", "digits"]) == 0
    assert "1297 + 500 images" in capsys.readouterr().out


def test_an_error_of_ours_is_not_hidden(book, monkeypatch):
    monkeypatch.setattr(manifests, "chapters", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["list"])
