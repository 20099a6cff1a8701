"""A notebook's side of a run, without a kernel: parameters, seeds, device, claims, what is kept and shown, where it comes from."""

import json
import math
import re
import subprocess
import time

import nbformat
import pytest
import tiny_book
import tiny_runs
import torch

from support import measures
from support.book import chapter_run, manifests
from support.book.chapter_run import RunError
from support.book.claims import ClaimError
from support.book.manifests import RecordError
from support.book.profiles import ProfileError
from support.common.cache import CacheError

CHAPTER = tiny_book.CHAPTER
EVIDENCE, LESSON, EXERCISES = (f"{CHAPTER}/{part}" for part in ("evidence", "lesson", "exercises"))


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    monkeypatch.setenv("BOOK_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


# --- what a run starts with ---------------------------------------------------------------------------------------------------------


def test_a_run_has_its_parameters_seeds_and_device():
    run = chapter_run.start(EVIDENCE, "standard", 4, "cpu", {"steps": 7, "rate": 0.1})
    assert (run.chapter, run.part, run.profile.name, run.profile.steps) == (CHAPTER, "evidence", "standard", 7)
    assert (run.seeds, run.device) == ([4, 5, 6], torch.device("cpu"))
    assert len(run.load("digits", "test")) == 500
    record = json.loads(json.dumps(run.record()))
    assert (record["part"], record["parameters"]["steps"]) == ("evidence", 7)
    assert record["overrides"] == {"steps": 7}, "the rate is what it was anyway"
    assert [len(checksum) for checksum in record["data"].values()] == [64] and list(record["data"]) == ["digits/test"]
    manifests.Manifest(**record, wall_seconds=1, finished="", outputs="")


def test_quick_computes_on_one_thread_and_the_generators_start_from_the_seed():
    torch.set_num_threads(2)
    assert chapter_run.start(EVIDENCE, "standard").record()["threads"] == 2
    draws = []
    for seed in (3, 3, 4):
        run = chapter_run.start(EVIDENCE, "quick", seed)
        draws.append(float(torch.rand(())))
    assert run.record()["threads"] == 1
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("page", "arguments", "error", "words"),
    [
        (CHAPTER, {}, RunError, "wants a chapter and a part"),
        (f"{CHAPTER}/teaser", {}, RunError, "wants a chapter and a part"),
        ("02_other/lesson", {}, ProfileError, "unknown chapter"),
        (EVIDENCE, {"device": "gpu"}, RunError, "unknown device"),
        (EVIDENCE, {"seed": -1}, ProfileError, "wants an integer"),
        (EVIDENCE, {"profile": "fast"}, ProfileError, "unknown profile"),
        (EVIDENCE, {"overrides": {"step": 3}}, ProfileError, "did you mean steps"),
    ],
)
def test_a_run_that_cannot_start_says_why(page, arguments, error, words):
    with pytest.raises(error, match=words):
        chapter_run.start(page, **arguments)


def test_a_cache_that_cannot_be_written_is_refused_at_the_start(book, monkeypatch):
    (book / "occupied").write_text("")
    monkeypatch.setenv("BOOK_CACHE", str(book / "occupied"))
    with pytest.raises(CacheError, match="occupied"):
        chapter_run.start(EVIDENCE)


def test_a_missing_gpu_is_named_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="no device cuda"):
        chapter_run.resolve_device("cuda")
    assert chapter_run.resolve_device("auto") == torch.device("cpu")


def _draw(n, *, seed):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def test_long_work_is_counted_and_found_again_by_a_run_of_as_many_threads():
    first = chapter_run.start(EVIDENCE)
    drawn = [first.each_seed(_draw, 2) for _ in range(2)][1]
    assert [x.tolist() for x in drawn] == [_draw(2, seed=seed).tolist() for seed in (0, 1)]
    counts = []
    time.sleep(0.05)  # the clock of the file system is coarse
    torch.set_num_threads(2)
    for run in (first, chapter_run.start(EVIDENCE, "standard"), chapter_run.start(EVIDENCE)):
        assert torch.equal(run.once(_draw, 2, seed=0), drawn[0])
        counts.append([run.record()[name] for name in ("units", "units_from_cache")])
    assert counts == [[2, 0], [1, 0], [1, 1]]  # another number of threads may give other digits


# --- claims and what is kept --------------------------------------------------------------------------------------------------------


def test_a_claim_has_one_row_in_the_evidence_of_its_chapter(book, capsys):
    registry = tiny_book.CLAIMS.replace("    where: Table 1\n", "    where: Table 1\n    chapter: 02_next\n")
    tiny_book.make(book, claims=registry)
    run = chapter_run.start(EVIDENCE)
    with pytest.raises(ClaimError, match=r"no claim 'tiny2020\.thm2'"):
        run.claim("tiny2020.thm2", error=0)
    with pytest.raises(ClaimError, match="belongs to chapter 02_next, not to 01_tiny"):
        run.claim("tiny2020.table1", accuracy=1)
    run.claim("tiny2020.thm1", error=0)
    assert "tiny2020.thm1 (Theorem 1): reproduced" in capsys.readouterr().out, "outside IPython a row is printed"
    with pytest.raises(ClaimError, match="stated twice"):
        run.claim("tiny2020.thm1", error=0)
    run.finish()
    for page in (LESSON, EXERCISES):
        with pytest.raises(ClaimError, match=f"in the evidence, not in the {page.partition('/')[2]}"):
            chapter_run.start(page).claim("tiny2020.thm1", error=0)


def test_a_claim_wants_its_null_and_keeps_what_its_numbers_know(book, capsys):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("    published: {error: 0}", "    nulls: {error: untrained}"))
    run = chapter_run.start(EVIDENCE, "quick")
    with pytest.raises(ClaimError, match=r"tiny2020\.thm1: its nulls want untrained"):
        run.claim("tiny2020.thm1", error=0)
    run = chapter_run.start(EVIDENCE, "quick")
    run.claim("tiny2020.thm1", error=0, untrained=measures.share(torch.tensor([True, False])))
    assert "without an effect untrained = 0.5 [0.01258, 0.9874]" in capsys.readouterr().out


def test_a_lesson_finds_the_mean_of_the_numbers_whatever_they_know():
    numbers = [{"value": 0.5, "hits": 1, "of": 2}, {"value": 1.0, "hits": 2, "of": 2}]
    record = {"measured": {"error": [1.0, 2.0], "untrained": numbers, "nothing": [None]}, "modern": {"error": [4.0]}, "cell": 1}
    tiny_runs.leave(manifests.local_run(CHAPTER, "quick"), tiny_runs.manifest(claims={"tiny2020.thm1": record}))
    run = chapter_run.start(LESSON, "quick")
    found = [run.found("tiny2020.thm1", name) for name in ("error", "untrained")]
    assert found == [1.5, 0.75]
    assert run.found("tiny2020.thm1", "error", modern=True) == 4
    assert math.isnan(run.found("tiny2020.thm1", "nothing"))
    with pytest.raises(RecordError, match="does not state tiny2020"):
        run.found("tiny2020.thm2", "error")


def test_a_lesson_asks_for_a_papers_claims_without_its_key():
    record = {"measured": {"error": [0.0]}, "modern": {}, "cell": 1}
    tiny_runs.leave(manifests.local_run(CHAPTER, "quick"), tiny_runs.manifest(claims={"tiny2020.thm1": record}))
    paper = chapter_run.start(LESSON, "quick").paper("tiny2020")
    assert (paper.found("thm1", "error"), paper.judgement("thm1").verdict) == (0, "reproduced")
    assert "reproduced" in paper.verdict("thm1") and "tiny2020.thm1" in paper.verdict("thm1")
    with pytest.raises(RecordError, match=r"no judgement of tiny2020\.thm9"):
        paper.verdict("thm9")


def test_the_evidence_states_every_claim_and_the_other_parts_none():
    run = chapter_run.start(EVIDENCE)
    run.claim("tiny2020.thm1", error=0)
    with pytest.raises(ClaimError, match=r"never states tiny2020\.table1"):
        run.finish()
    chapter_run.start(EXERCISES).finish()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (0.1, 0.1), (3, 3), (True, True), (None, None), ("PGD", "PGD"), ([0.1, [1, 2]], [0.1, [1, 2]]), ((1, 2), [1, 2]),
        ({"a": {"b": [1.5]}}, {"a": {"b": [1.5]}}),
    ],
)  # fmt: skip
def test_what_the_evidence_keeps_reaches_its_lesson(value, found):
    run = chapter_run.start(EVIDENCE)
    run.keep("it", value)
    record = json.loads(json.dumps(run.record()))
    place = tiny_runs.leave(manifests.local_run(CHAPTER, "quick"), tiny_runs.manifest(kept=record["kept"]))
    assert manifests.manifest_of(place).kept == {"it": found}
    assert chapter_run.start(LESSON).evidence.kept == {"it": found}


@pytest.mark.parametrize("value", [torch.ones(2), {1, 2}, float("nan"), [1.0, float("inf")]])
def test_what_json_cannot_hold_is_not_kept(value):
    run = chapter_run.start(EVIDENCE)
    with pytest.raises(ClaimError, match="it cannot be kept"):
        run.keep("it", value)


def test_a_name_is_kept_once_and_what_was_kept_does_not_change():
    run, value = chapter_run.start(EVIDENCE), [1]
    run.keep("it", value)
    value.append(2)
    with pytest.raises(ClaimError, match="kept twice"):
        run.keep("it", 3)
    assert run.record()["kept"] == {"it": [1]}


# --- what a lesson reads ------------------------------------------------------------------------------------------------------------

ANOTHER = {"image/png": "AAAA", "text/plain": "<Figure>"}


@pytest.fixture
def shown(monkeypatch):
    """An evidence with a figure, two tables and a cell that only prints; gives the list of what is displayed."""
    new, found = nbformat.v4.new_output, []
    tiny_runs.leave(
        manifests.local_run(CHAPTER, "quick"),
        tiny_runs.manifest(),
        tiny_runs.shows("fig-one", new("stream", text="a word"), new("display_data", data=tiny_runs.PNG)),
        tiny_runs.shows("tables", new("display_data", data=ANOTHER), new("execute_result", data={"text/plain": "7"}, execution_count=1)),
        tiny_runs.shows("fig-none", new("stream", text="only a word")),
    )
    monkeypatch.setattr(chapter_run, "display", lambda data, **_: found.append(data))
    return found


def test_a_lesson_shows_what_its_evidence_showed(shown):
    run = chapter_run.start(LESSON)
    run.show("fig-one")
    run.show("tables")
    assert shown == [tiny_runs.PNG, ANOTHER, {"text/plain": "7"}]
    for name, words in (("fig-on", "did you mean fig-one"), ("fig-none", "shows nothing named 'fig-none'")):
        with pytest.raises(RecordError, match=words):
            run.show(name)


@pytest.mark.parametrize("read", [lambda run: run.evidence, lambda run: run.show("fig-one"), lambda run: run.show_verdicts()])
def test_a_lesson_notes_the_evidence_that_it_read(shown, read):
    run = chapter_run.start(LESSON)
    assert run.record()["evidence"] is None
    read(run)
    assert run.record()["evidence"] == tiny_runs.manifest().content()


def test_a_lesson_shows_the_verdicts_of_its_evidence(shown, capsys):
    chapter_run.start(LESSON).show_verdicts()
    assert re.search(r"tiny2020\.thm1.*reproduced", capsys.readouterr().out, re.S)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"overrides": {"steps": 6}}, {"profile": "standard"}])
def test_an_evidence_of_other_parameters_is_not_read(shown, changes):
    run = chapter_run.start(LESSON, **changes)
    with pytest.raises(RecordError, match="was not run with these parameters: python -m support run 01"):
        run.show("fig-one")


# --- where it comes from ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def git(monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def call(folder, *arguments):
        given = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(folder), *given, *arguments], check=True, capture_output=True)

    return call


def test_the_commit_is_known_and_a_dirty_tree_is_one_that_differs_in_more_than_records(book, git):
    def dirty():
        return chapter_run.start(EXERCISES).record()["dirty"]

    assert chapter_run.start(EXERCISES).record()["commit"] is None  # a temporary folder is no checkout
    (book / ".gitignore").write_text("/cache\n")
    git(book, "init")
    git(book, "add", ".")
    git(book, "commit", "-m", "all")
    assert re.fullmatch(r"[0-9a-f]{40}", chapter_run.start(EXERCISES).record()["commit"])
    assert dirty() is False
    tiny_runs.leave(manifests.recorded_run(CHAPTER, "quick"), tiny_runs.manifest())
    tiny_runs.leave(manifests.recorded_run(CHAPTER, "paper"), tiny_runs.manifest())
    (book / "data" / "verdicts.csv").write_text("")
    assert dirty() is False
    for file in ("book/02_other/lesson.py", "data/new.yml", "book/01_tiny/evidence.py"):
        (book / file).parent.mkdir(exist_ok=True)
        before = (book / file).read_bytes() if (book / file).exists() else None
        (book / file).write_text("other")
        assert dirty() is True, file
        (book / file).unlink() if before is None else (book / file).write_bytes(before)
    assert dirty() is False


def test_a_book_inside_somebody_elses_repository_has_no_commit(book, git, monkeypatch):
    inner = tiny_book.make(book / "copies" / "book")
    git(book, "init")
    git(book, "add", ".")
    git(book, "commit", "-m", "all")
    monkeypatch.setenv("BOOK_ROOT", str(inner))
    record = chapter_run.start(EXERCISES).record()
    assert (record["commit"], record["dirty"]) == (None, None)
