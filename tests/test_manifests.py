"""Runs that were made: where they lie, whether they still say what a run made now would say, and that nothing is half-written."""

import re
from pathlib import Path

import pytest
import tiny_book
import tiny_runs

from support.book import chapter_run, manifests
from support.book.claims import ClaimError
from support.book.manifests import DEFAULTS, RecordError, local_run, manifest_of, recorded_run
from support.book.profiles import ProfileError
from support.common import fingerprint, identity

CHAPTER = tiny_book.CHAPTER


REAL, KNOWN = fingerprint.digest, {}


def _remembered(files: list[Path]) -> str:
    key = tuple((file.name, file.read_text(encoding="utf-8")) for file in files)
    if key not in KNOWN:
        KNOWN[key] = REAL(files)
    return KNOWN[key]


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    # The whole package is read for each answer; it does not change here, and a chapter counts by its name and text alone.
    monkeypatch.setattr(fingerprint, "digest", _remembered)
    return tmp_path


def rewrite(book, part: str, old: str, new: str) -> None:
    file = book / "book" / CHAPTER / f"{part}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# --- where they lie -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "profile", "part", "notebook", "manifest"),
    [
        (recorded_run, "quick", "lesson", "book/01_tiny/lesson.ipynb", "data/runs/quick/01_tiny/lesson.json"),
        (recorded_run, "paper", "evidence", "data/runs/paper/01_tiny/evidence.ipynb", "data/runs/paper/01_tiny/evidence.json"),
        (local_run, "quick", "exercises", "_build/runs/quick/01_tiny/exercises.ipynb", "_build/runs/quick/01_tiny/exercises.json"),
        (local_run, "standard", "lesson", "_build/runs/standard/01_tiny/lesson.ipynb", "_build/runs/standard/01_tiny/lesson.json"),
    ],
)
def test_every_run_has_its_place(book, place, profile, part, notebook, manifest):
    found = place(CHAPTER, profile, part)
    assert (found, manifests.manifest_path(found)) == (book / notebook, book / manifest)
    assert place(CHAPTER, profile) == found.with_name("evidence.ipynb"), "the evidence is meant where no part is named"


def test_a_chapter_is_a_folder_with_evidence_and_has_the_parts_that_are_there(book):
    for file in ("02_next/evidence.py", "03_lost/lesson.py", "notes/evidence.py", "04_old.py"):
        (book / "book" / file).parent.mkdir(exist_ok=True)
        (book / "book" / file).write_text("")
    assert manifests.chapters() == [CHAPTER, "02_next"]
    assert manifests.parts(CHAPTER) == ["evidence", "lesson", "exercises"]
    assert manifests.parts("02_next") == ["evidence"]


@pytest.mark.parametrize("name", ["01_tiny", "01", "1", "01_t"])
def test_chapters_are_found_by_their_beginning(name):
    assert manifests.resolve_chapter(name) == CHAPTER


@pytest.mark.parametrize("name", ["2", "", "tiny", "01_tony", "../book/01_tiny"])
def test_unknown_chapters_are_refused(name):
    with pytest.raises(RecordError, match="unknown chapter"):
        manifests.resolve_chapter(name)


def test_a_beginning_of_several_chapters_is_refused(book):
    (book / "book/01_other").mkdir()
    (book / "book/01_other/evidence.py").write_text("")
    with pytest.raises(RecordError, match="several chapters: 01_other, 01_tiny"):
        manifests.resolve_chapter("01")


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"chapter": "02"}, RecordError, "unknown chapter"),
        ({"profile": "slow"}, ProfileError, "unknown profile"),
        ({"seed": -1}, ProfileError, "wants an integer"),
        ({"overrides": {"step": 1}}, ProfileError, "did you mean steps"),
        ({"record": True, "seed": 1}, RecordError, "as it stands"),
        ({"record": True, "overrides": {"steps": 6}}, RecordError, "as it stands"),
    ],
)
def test_a_request_that_no_machine_could_carry_out_is_refused(request_, error, words):
    usual = {"chapter": CHAPTER, "profile": "quick", "seed": 0, "overrides": {}}
    manifests.check_request(**usual, record=True)
    with pytest.raises(error, match=words):
        manifests.check_request(**usual | request_)


def test_a_registry_that_breaks_its_schema_stops_a_request(book):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("kind: identity", "kind: law"))
    with pytest.raises(ClaimError, match=r"tiny2020\.yml: claims\.0\.kind"):
        manifests.check_request(CHAPTER, "quick", 0, {})


def test_what_is_no_manifest_is_refused_in_one_line(book):
    file = book / "some.json"
    for text in ("{}", "no json", "\xff"):
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(RecordError, match=r"^some\.json is not a manifest: [^\n]*$"):
            manifest_of(file)
    with pytest.raises(RecordError, match="run or record the chapter first"):
        manifest_of(book / "none.ipynb")


# --- how old they are ---------------------------------------------------------------------------------------------------------------

THM2 = tiny_book.CLAIMS + tiny_book.CLAIMS.split("claims:\n")[1].split("  - id: tiny2020.table1")[0].replace("thm1", "thm2")


def _versions(monkeypatch):
    monkeypatch.setattr(identity, "versions", lambda: {"python": "4.0"})


AGEING = {  # what happens: which of the parts are stale by their code, which are not current
    "nothing": (lambda book, patch: None, "", ""),
    "prose": (lambda book, patch: rewrite(book, "evidence", "first words", "last words"), "", ""),
    "a comment": (lambda book, patch: rewrite(book, "lesson", "p = run.profile\n", "p = run.profile  # fields\n\n"), "", ""),
    "a figure": (lambda book, patch: rewrite(book, "evidence", "list(range(p.steps))", "list(range(p.steps + 1))"), "", ""),
    "code": (lambda book, patch: rewrite(book, "evidence", "2 * 2 - 4", "2 * 3 - 6"), "evidence", "evidence"),
    "the exercises": (lambda book, patch: rewrite(book, "exercises", "3 * 2", "2 * 3"), "exercises", "exercises"),
    "a profile": (
        lambda book, patch: tiny_book.make(book, profile=tiny_book.PROFILE.replace("quick: 5", "quick: 6")),
        "", "evidence lesson exercises",
    ),
    "a help text": (lambda book, patch: tiny_book.make(book, profile=tiny_book.PROFILE.replace("steps taken", "steps")), "", ""),
    "a claim more": (lambda book, patch: tiny_book.make(book, claims=THM2), "", "evidence"),
    "a rule": (lambda book, patch: tiny_book.make(book, claims=tiny_book.CLAIMS.replace("low: 0.8", "low: 0.85")), "", ""),
    "a library": (lambda book, patch: _versions(patch), "", "evidence lesson exercises"),
    "a number kept": (
        lambda book, patch: tiny_runs.leave(local_run(CHAPTER, "quick"), tiny_runs.manifest(kept={"steps": 6})), "", "lesson",
    ),
    "a figure redrawn": (
        lambda book, patch: tiny_runs.leave(local_run(CHAPTER, "quick"), tiny_runs.manifest(outputs="1" * 16)), "", "lesson",
    ),
    "the same again": (
        lambda book, patch: tiny_runs.leave(local_run(CHAPTER, "quick"), tiny_runs.manifest(finished="later", wall_seconds=2)), "", "",
    ),
    "the evidence lost": (lambda book, patch: local_run(CHAPTER, "quick").unlink(), "", "evidence lesson"),
}  # fmt: skip


@pytest.mark.parametrize("name", AGEING)
def test_a_run_is_old_when_one_made_now_could_say_something_else(book, monkeypatch, name):
    change, stale, old = AGEING[name]
    runs = {part: tiny_runs.leave(local_run(CHAPTER, "quick", part), tiny_runs.manifest(part)) for part in manifests.PARTS}
    found = {part: manifest_of(run) for part, run in runs.items()}
    assert found["lesson"].evidence == found["evidence"].content()
    change(book, monkeypatch)
    assert [part for part, manifest in found.items() if manifests.is_stale(manifest)] == stale.split()
    assert [part for part in found if manifests.current_run(CHAPTER, part, **DEFAULTS) is None] == old.split()


def test_a_run_with_a_field_that_is_gone_is_old():
    assert not manifests.is_current(tiny_runs.manifest(overrides={"moves": 3}))


@pytest.mark.parametrize(
    ("left", "asked", "there"),
    [
        ({}, {}, True),
        ({}, {"overrides": {"steps": 5}}, True),  # as it is anyway
        ({}, {"overrides": {"steps": 6}}, False),
        ({}, {"seed": 1}, False),
        ({}, {"profile": "standard"}, False),
        ({}, {"device": "auto"}, True),
        ({"device": "cuda"}, {}, False),
        ({"seed": 1}, {"seed": 1}, True),
        (None, {}, False),  # no manifest
        ("{}", {}, False),  # none that is one
    ],
)
def test_a_request_is_answered_by_the_run_that_it_would_repeat(monkeypatch, left, asked, there):
    monkeypatch.setattr(chapter_run.torch.cuda, "is_available", lambda: False)
    run = tiny_runs.leave(local_run(CHAPTER, "quick"), tiny_runs.manifest(**left if isinstance(left, dict) else {}))
    if left is None:
        manifests.manifest_path(run).unlink()
    elif isinstance(left, str):
        manifests.manifest_path(run).write_text(left)
    assert manifests.current_run(CHAPTER, "evidence", **DEFAULTS | asked) == (run if there else None)


@pytest.mark.parametrize(
    ("local", "record", "chosen"),
    [
        ({}, {}, "local"),
        ({}, None, "local"),
        (None, {}, "record"),
        (None, {"code": "older"}, "record"),  # an old number is better than none, and the lesson is current with it
        ({"code": "older"}, {}, "record"),
        ({"code": "older"}, None, "local"),
        ({"seed": 1}, {}, "record"),
        ({"parameters": {"steps": 6}}, {}, "record"),
        ({"seed": 1}, {"parameters": {}}, None),
        (None, None, None),
    ],
)
def test_a_lesson_reads_the_run_made_here_if_it_is_up_to_date_else_the_record(local, record, chosen):
    places = {"local": local_run(CHAPTER, "quick"), "record": recorded_run(CHAPTER, "quick")}
    for place, changes in zip(places.values(), (local, record), strict=True):
        if changes is not None:
            tiny_runs.leave(place, tiny_runs.manifest(**changes))
    wanted = CHAPTER, "quick", tiny_runs.manifest().parameters, 0
    if chosen is None:
        with pytest.raises(RecordError, match=re.escape("python -m support run 01 --profile quick")):
            manifests.evidence_run(*wanted)
    else:
        assert manifests.evidence_run(*wanted) == places[chosen]


# --- what they tell -----------------------------------------------------------------------------------------------------------------


def test_records_that_are_whole_are_collected(book):
    found = tiny_runs.manifest()
    tiny_runs.leave(recorded_run(CHAPTER, "quick"), found)
    half = tiny_runs.leave(recorded_run(CHAPTER, "standard"), tiny_runs.manifest(profile="standard"))
    half.unlink()
    assert [manifests.collect(profile) for profile in ("quick", "standard", "paper")] == [{CHAPTER: found}, {}, {}]
    assert manifests.collect("quick", "lesson") == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (None, (1, 1, 5, "declared in the profile")),
        ({}, (2, 0.5, 5, "recorded on A processor, 1 thread")),
        ({"threads": 2, "peak_memory_mb": None}, (2, 1, 5, "recorded on A processor, 2 threads")),
        ({"units_from_cache": 1}, (1, 0.5, 5, "time declared in the profile (the record used a cache)")),
    ],
)
def test_an_estimate_is_what_was_measured_or_else_declared(changes, expected):
    if changes is not None:
        tiny_runs.leave(recorded_run(CHAPTER, "quick"), tiny_runs.manifest(**changes))
    assert tuple(dict(manifests.estimate(CHAPTER, "quick")).values()) == expected


def test_recorded_numbers_that_todays_rules_cannot_judge_are_left_out(book):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("error", "mistake"))
    assert [claim.id for claim, _ in manifests.judged(tiny_runs.manifest())] == ["tiny2020.table1"]


# --- sources that no run could finish -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("evidence", "2 * 2 - 4", "2 * 2 - 4 +"), r"01_tiny/evidence\.py is no Python: line 24: "),
        (("lesson", "p = run.profile", "p = run.profile("), r"01_tiny/lesson\.py is no Python: line \d+: "),
        (("evidence", 'run.claim("tiny2020.thm1", error=2 * 2 - 4)', "pass"), r"01_tiny never states tiny2020\.thm1: "),
        (("evidence", '"tiny2020.thm1"', 'f"{name}.thm1"'), r"01_tiny never states tiny2020\.thm1: "),
        (("evidence", '"tiny2020.thm1"', 'f"tiny2020.{name}"'), None),
        (("evidence", '"tiny2020.thm1"', 'f"tiny2020.{name}1"'), None),
        (("evidence", '"tiny2020.thm1"', 'f"tiny2020.{name}2"'), r"01_tiny never states tiny2020\.thm1: "),
    ],
)
def test_a_source_that_no_run_could_finish_is_refused_before_one_begins(book, change, words):
    manifests.check_source(CHAPTER)
    rewrite(book, *change)
    if words is None:
        manifests.check_source(CHAPTER)
    else:
        with pytest.raises(RecordError, match=words):
            manifests.check_source(CHAPTER)


def test_a_manifest_that_cannot_be_read_hides_no_other(book):
    record = tiny_runs.leave(recorded_run(CHAPTER, "quick"), tiny_runs.manifest())
    local = tiny_runs.leave(local_run(CHAPTER, "quick"), tiny_runs.manifest(finished="later"))
    parameters = tiny_runs.manifest().parameters
    assert manifests.evidence_run(CHAPTER, "quick", parameters, 0) == local
    local.with_suffix(".json").write_text("{")
    assert manifests.evidence_run(CHAPTER, "quick", parameters, 0) == record
    manifests.manifest_path(record).write_text("{")
    assert manifests.collect("quick") == {}
    assert "quick/01_tiny/evidence.json is not a manifest" in manifests.unreadable(manifests.manifest_path(record))
