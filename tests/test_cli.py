"""The command line: what it says, what it refuses in one line before any work, and its exit status."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_book

from support import cli
from support.book import chapter_run, execute, manifests
from support.cli import main

CHAPTER = tiny_book.CHAPTER
PACKAGE = Path(cli.__file__).parents[1]


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    monkeypatch.delenv("BOOK_CACHE", raising=False)
    return tmp_path


@pytest.fixture
def idle(book, monkeypatch):
    """A book in which nothing may run."""
    monkeypatch.setattr(execute, "_execute", lambda *_: pytest.fail("ran"))
    return book


@pytest.fixture
def instant(book, monkeypatch):
    """A book whose chapter runs in no time: what was asked for is noted."""
    asked = []

    def finished(*arguments, **options):
        asked.append((arguments, options))
        return manifests.local_run(arguments[0], arguments[1])

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
    for command in ("list", "run", "build", "score", "diff", "data"):
        assert f"\n  {command} " in done.stdout
    assert "python -m support run 01 --set" in done.stdout


@pytest.mark.parametrize("command", [["list"], ["run"], ["build"], ["score"], ["diff"], ["data"], ["data", "get"], ["data", "check"]])
def test_each_command_explains_itself(command, capsys):
    assert main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"python -m support {' '.join(command)}" in shown
    assert len(shown.splitlines()) > 5


@pytest.mark.parametrize("command", [[], ["data"]])
def test_without_a_command_there_is_help(command, capsys):
    assert main(command) == 0
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "02"], "unknown chapter '02'"),
        (["run", "01", "--profile", "slow"], "unknown profile 'slow'"),
        (["run", "01", "--set", "step=3"], "did you mean steps?"),
        (["run", "01", "--set", "steps=1.5"], "wants an integer, 1 to 100"),
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
        (["walk"], "walk"),
        (["diff", "a.json"], "Missing argument"),
        (["diff", "a.json", "b.json"], "no manifest a.json"),
        (["score", "--verdict", "refutd"], "unknown verdict 'refutd': did you mean refuted?"),
        (["score", "--paper", "tiny"], "unknown paper 'tiny'"),
        (["score", "--profile", "slow"], "there are quick, standard, paper"),
        (["score", "--chapter", "02"], "unknown chapter '02'"),
        (["data", "get"], "Missing argument"),
        (["data", "check", "minst"], "did you mean mnist"),
        (["data", "get", "imagenet"], "unknown data set 'imagenet'"),
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


def test_one_bad_chapter_stops_all_before_any_runs(idle, capsys):
    (idle / "book" / "02_other.py").write_text(tiny_book.SOURCE)
    assert "unknown chapter '02_other'" in refusal(capsys, "run")  # it has no profile


def test_the_request_reaches_the_runner(instant, capsys):
    arguments = ["run", "1", "--profile", "standard", "--seed", "3", "--set", "steps=7", "--set", "sizes=[1, 2.5]", "--set", "rate=1e-3"]
    assert main([*arguments, "--force"]) == 0
    ((given, options),) = instant
    assert given == (CHAPTER, "standard", 3, "cpu", {"steps": 7, "sizes": [1, 2.5], "rate": 0.001})
    assert options == {"record": False, "force": True}
    captured = capsys.readouterr()
    assert captured.err == "01_tiny at standard: running ...\n"
    assert captured.out.startswith("01_tiny at standard: done in 0 s, ")


def test_every_chapter_runs_once_when_none_is_named_or_one_is_named_twice(instant):
    assert main(["run"]) == 0
    assert main(["run", "01", "01_tiny"]) == 0
    assert [given[0] for given, _ in instant] == [CHAPTER, CHAPTER]


def test_a_chapter_that_fails_does_not_stop_the_others(book, capsys, monkeypatch):
    for name in ("00_first", "02_last"):
        (book / "book" / f"{name}.py").write_text(tiny_book.SOURCE)
        (book / "data" / "profiles" / f"{name}.yml").write_text(tiny_book.PROFILE)

    def finished(chapter, *_, **__):
        if chapter == CHAPTER:
            raise execute.ChapterFailed("01_tiny failed in cell 3 (In [2]): ValueError: no")
        return manifests.local_run(chapter, "quick")

    monkeypatch.setattr(execute, "execute", finished)
    assert main(["run"]) == 1
    captured = capsys.readouterr()
    assert "01_tiny failed in cell 3" in captured.err
    assert [line.split()[0] for line in captured.out.splitlines()] == ["00_first", "02_last"]


def test_an_interruption_is_one_line_and_130(book, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "execute", interrupt)
    assert main(["run"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("interrupted: 01_tiny at quick")


def test_estimates_start_nothing(idle, capsys):
    (idle / "book" / "02_other.py").write_text(tiny_book.SOURCE)
    (idle / "data" / "profiles" / "02_other.yml").write_text(tiny_book.PROFILE)
    assert main(["run", "--profile", "paper", "--device", "cuda", "--estimate", "--set", "steps=9"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "01_tiny at paper: about 90 min, 8.0 GB of memory, 50 MB of disk (declared in the profile)",
        "02_other at paper: about 90 min, 8.0 GB of memory, 50 MB of disk (declared in the profile)",
        "all: 3.0 h, 8.0 GB of memory, 100 MB of disk",
        "This is for the profile as it stands; what --set changes is not counted.",
    ]


def test_a_book_from_its_first_run_to_its_score(book, capsys, monkeypatch):
    """Everything in order, with one real execution."""
    assert main(["list"]) == 0
    assert "  quick     not recorded; about 1 min" in capsys.readouterr().out
    assert main(["score", "--check"]) == 1
    assert "no row for tiny2020.thm1 at quick" in capsys.readouterr().err

    assert main(["run", "01", "--record"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "01_tiny at quick: running ...\n"
    assert "recorded in " in captured.out

    monkeypatch.setattr(execute, "_execute", lambda *_: pytest.fail("ran"))
    assert main(["run"]) == 0
    assert "up to date" in capsys.readouterr().out
    assert main(["run", "--record"]) == 0  # from the run that is current
    assert capsys.readouterr().err == "01_tiny at quick: recording ...\n"

    assert main(["score", "--write", "--check"]) == 0
    assert "agree" in capsys.readouterr().out
    assert main(["score"]) == 0
    shown = capsys.readouterr().out
    assert "tiny2020.table1  scaled-down towards; broken  not run; not run  not run; not run" in shown
    assert "quick: 1 reproduced, 1 scaled-down, 1 broken" in shown
    assert "best of each claim: 1 reproduced, 1 scaled-down, 1 broken" in shown
    assert main(["score", "--survives", "broken", "--chapter", "01", "--find", "attack", "--full"]) == 0
    shown = capsys.readouterr().out
    assert "[quick, 01_tiny, cell 6]\ntiny2020.table1 (Table 1): scaled-down, points towards the paper\n" in shown
    assert "  says: The accuracy is kept & the attack fails.\n" in shown
    assert "shown: 1 of 2 claims" in shown
    assert main(["score", "--verdict", "refuted"]) == 0
    assert "best of each claim: no claims\nshown: 0 of 2 claims\n" in capsys.readouterr().out
    assert main(["list"]) == 0
    assert "  quick     recorded 20" in capsys.readouterr().out

    recorded, local = book / "data" / "runs" / "quick" / "01_tiny.json", manifests.local_run(CHAPTER, "quick")
    assert main(["diff", str(recorded), str(local)]) == 0
    assert capsys.readouterr().out == "no differences\n"
    recorded.write_text(recorded.read_text().replace('"seed": 0', '"seed": 5'))
    assert main(["diff", str(recorded), str(local)]) == 1
    assert capsys.readouterr().out == "seed: 5 -> 0\n"

    tiny_book.make(book, source=tiny_book.SOURCE.replace("2 * 2 - 4", "2 * 3 - 6"))
    assert main(["list"]) == 0
    assert "with older code" in capsys.readouterr().out
    assert main(["score"]) == 0
    assert "reproduced*" in capsys.readouterr().out


def test_digits_are_always_there(book, capsys):
    assert main(["data", "check", "digits"]) == 0
    assert "1297 + 500 images" in capsys.readouterr().out


def test_an_error_of_ours_is_not_hidden(book, monkeypatch):
    monkeypatch.setattr(manifests, "chapters", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["list"])
