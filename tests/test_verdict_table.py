"""The table of verdicts and its gate: each way in which records, registry and table can disagree is found."""

import nbformat
import pytest
import tiny_book

from support.book import claims, execute, manifests, markup, verdict_table

CHAPTER = tiny_book.CHAPTER


def edit_notebook(change) -> None:
    file = manifests.recorded_run(CHAPTER, "quick")
    notebook = nbformat.read(file, as_version=4)
    change(notebook)
    file.write_text(execute.text_of(notebook))


def edit_table(old: str, new: str) -> None:
    text = verdict_table.verdicts_file().read_text()
    assert old in text
    verdict_table.verdicts_file().write_text(text.replace(old, new))


def test_the_table_has_a_row_for_each_claim_and_profile(book):
    assert verdict_table.verdicts_file().read_text() == (
        "claim,profile,verdict,direction,survives\n"
        "tiny2020.thm1,quick,reproduced,,\n"
        "tiny2020.thm1,standard,not run,,\n"
        "tiny2020.thm1,paper,not run,,\n"
        "tiny2020.table1,quick,scaled-down,,broken\n"
        "tiny2020.table1,standard,not run,,not run\n"
        "tiny2020.table1,paper,not run,,not run\n"
    )
    assert verdict_table.check() == []
    assert verdict_table.counts(verdict_table.lines()) == {
        "quick": {"Reproduces?": {"reproduced": 1, "scaled-down": 1}, "Survives?": {"broken": 1}, "Answered?": {}},
        "best of each claim": {"Reproduces?": {"reproduced": 1, "scaled-down": 1}, "Survives?": {"broken": 1}, "Answered?": {}},
    }, "a profile at which nothing was run is left out"


def test_questions_are_counted_apart(book):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("kind: identity", "kind: question"))
    assert verdict_table.counts(verdict_table.lines())["quick"] == {
        "Reproduces?": {"scaled-down": 1}, "Survives?": {"broken": 1}, "Answered?": {"yes": 1},
    }  # fmt: skip
    assert "tiny2020.thm1,quick,yes,," in verdict_table.as_csv(verdict_table.lines())


def test_words_are_told_in_the_order_of_the_verdicts():
    for order in (claims.VERDICTS, claims.SURVIVALS, claims.ANSWERS):
        assert list(markup.tally(reversed(order))) == list(order)
    assert list(markup.tally(["not judged", "no", "yes", "no"], ("no",)).items()) == [("no", 2), ("not judged", 1), ("yes", 1)]


def test_a_line_says_where_its_verdicts_come_from(book):
    first = verdict_table.lines()[0]
    notebook = nbformat.read(manifests.recorded_run(CHAPTER, "quick"), as_version=4)
    assert "tiny2020.thm1" in notebook.cells[first.best.cell].source
    assert (first.chapter, first.stale, first.failed, first.best.profile) == (CHAPTER, False, False, "quick")
    assert first.in_full.startswith("tiny2020.thm1 (Theorem 1; 01_tiny): Two times two is four.\n[quick, cell 5] tiny2020.thm1")
    tiny_book.make(book, source=tiny_book.SOURCE.replace("2 * 2 - 4", "2 * 3 - 6"))
    assert [line.stale for line in verdict_table.lines()] == [True, True]


def test_verdicts_are_computed_from_the_measurements_and_the_rules_of_today(book):
    one_more = "fails: {error: 1}}, {type: interval, value: error, low: 1, passes: {error: 1}, fails: {error: 0}"
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("fails: {error: 1}", one_more))
    assert verdict_table.lines()[0].best.judgement.verdict == "partly"
    problems = verdict_table.check()
    assert "data/verdicts.csv has the row tiny2020.thm1,quick,reproduced,," in problems
    assert "data/verdicts.csv lacks the row tiny2020.thm1,quick,partly,," in problems
    assert any("cell 5 does not show what its numbers and the registry give" in problem for problem in problems)
    verdict_table.write()
    assert verdict_table.check() == []
    assert "tiny2020.thm1 (Theorem 1): partly" in manifests.recorded_run(CHAPTER, "quick").read_text()


COLUMNS = (("has", "verdict", "profile"), ("lacks", "profile", "verdict"))


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        ("thm1,quick,reproduced", "thm1,quick,refuted", ["has thm1,quick,refuted,,", "lacks thm1,quick,reproduced,,"]),
        ("down,,broken", "down,away,broken", ["has table1,quick,scaled-down,away,broken", "lacks table1,quick,scaled-down,,broken"]),
        ("tiny2020.thm1,paper,not run,,\n", "", ["lacks thm1,paper,not run,,"]),
        ("thm1,paper", "thm2,paper", ["has thm2,paper,not run,,", "lacks thm1,paper,not run,,"]),
        ("thm1,paper", "thm1,quick", ["has thm1,quick,not run,,", "lacks thm1,paper,not run,,"]),
        ("profile,verdict", "verdict,profile", [f"{word} claim,{a},{b},direction,survives" for word, a, b in COLUMNS]),
    ],
)  # fmt: skip
def test_a_table_that_was_edited_is_found(book, old, new, problems):
    edit_table(old, new)
    found = [
        problem.replace("data/verdicts.csv ", "").replace("the row ", "").replace("tiny2020.", "") for problem in verdict_table.check()
    ]
    assert found == problems


def test_a_missing_table_is_found(book):
    verdict_table.verdicts_file().unlink()
    assert len(verdict_table.check()) == 7


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda nb: nb.cells[4].update(outputs=[]), "the notebook and its manifest differ in what is stated where"),
        (lambda nb: nb.cells[4].outputs[0].metadata.support.claim.update(id="tiny2020.thm9"), "differ in what is stated where"),
        (lambda nb: nb.cells[4].update(outputs=nb.cells[4].outputs * 2), "differ in what is stated where"),
        (lambda nb: nb.cells[5].outputs[0].data.update({"text/html": "accuracy = 0.99"}), "cell 6 does not show what its numbers"),
        (lambda nb: nb.cells[3].outputs[0].data.update({"text/plain": "[7]"}), "shows something else than it did when it was run"),
    ],
)  # fmt: skip
def test_a_notebook_that_was_edited_is_found(book, change, problem):
    edit_notebook(change)
    assert any(problem in found for found in verdict_table.check())


def test_a_manifest_that_was_edited_is_found(book):
    file = manifests.manifest_path(manifests.recorded_run(CHAPTER, "quick"))
    file.write_text(file.read_text().replace("0.9,", "0.7,").replace("tiny2020.thm1", "tiny2020.thm9"))
    problems = verdict_table.check()
    for problem in ("the registered claim tiny2020.thm1 has no cell", "cell 5 names no claim of this chapter: tiny2020.thm9"):
        assert f"01_tiny at quick: {problem}" in problems
    assert "01_tiny at quick: cell 6 does not show what its numbers and the registry give" in problems


def test_a_claim_registered_after_the_record_is_found(book):
    more = tiny_book.CLAIMS + tiny_book.CLAIMS.split("claims:\n")[1].split("  - id: tiny2020.table1")[0].replace("thm1", "thm2")
    tiny_book.make(book, claims=more)
    problems = verdict_table.check()
    assert "01_tiny at quick: the registered claim tiny2020.thm2 has no cell" in problems
    assert "data/verdicts.csv lacks the row tiny2020.thm2,quick,not run,," in problems


def test_rules_that_ask_for_other_numbers_than_the_record_has_are_found(book):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("error", "mistake"))
    assert any("its rules want mistake beside error" in problem for problem in verdict_table.check())
    assert verdict_table.lines()[0].best.judgement.verdict == "not run"


@pytest.mark.parametrize("lost", ["book/01_tiny/evidence.ipynb", "data/runs/quick/01_tiny/evidence.json"])
def test_a_notebook_without_its_manifest_is_found(book, lost):
    (book / lost).unlink()
    assert any("only one is there" in problem for problem in verdict_table.check())


def test_an_empty_registry_is_no_pass(book):
    (book / "data" / "claims" / "tiny2020.yml").unlink()
    assert verdict_table.check() == ["the registry data/claims has no claims, so there is nothing to check"]


def test_differences_of_two_runs(book):
    first = manifests.manifest_of(manifests.recorded_run(CHAPTER, "quick"))
    assert verdict_table.differences(first, first) == []
    claims_changed = dict(first.claims)
    claims_changed["tiny2020.table1"] = first.claims["tiny2020.table1"].model_copy(update={"measured": {"accuracy": [0.5, 0.7]}})
    del claims_changed["tiny2020.thm1"]
    second = first.model_copy(
        update={"seed": 3, "parameters": first.parameters | {"steps": 6}, "versions": {"torch": "1"}, "claims": claims_changed}
    )
    lines = verdict_table.differences(first, second)
    for line in (
        "seed: 0 -> 3",
        "parameters.steps: 5 -> 6",
        "tiny2020.thm1 error: 0 -> –",
        "tiny2020.table1 accuracy: 0.9 -> 0.6 [0.5, 0.7]",
        "tiny2020.table1 direction: towards -> away",
    ):
        assert line in lines
    assert f"versions.python: {first.versions['python']} -> –" in lines
    assert all("rate" not in line for line in lines)


def test_numbers_that_todays_rules_cannot_judge_are_compared_without_a_verdict(book):
    first = manifests.manifest_of(manifests.recorded_run(CHAPTER, "quick"))
    older = first.claims["tiny2020.table1"].model_copy(update={"measured": {"right": [0.5]}})
    lines = verdict_table.differences(first.model_copy(update={"claims": {"tiny2020.table1": older}}), first)
    assert "tiny2020.table1 right: 0.5 -> –" in lines
    assert "tiny2020.table1 direction: – -> towards" in lines
