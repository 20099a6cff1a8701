"""The table of verdicts and its gate: each way in which records, registry and table can disagree is found."""

import shutil

import nbformat
import pytest
import tiny_book

from support.book import execute, manifests, verdict_table
from support.book.claims import ClaimError

CHAPTER = tiny_book.CHAPTER


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A book with its chapter recorded at quick and the table written; not to be changed by a test."""
    root = tiny_book.make(tmp_path_factory.mktemp("scored"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(root))
        execute.execute(CHAPTER, record=True)
        verdict_table.write()
    return root


@pytest.fixture
def book(scored, tmp_path, monkeypatch):
    """A copy of that book."""
    root = tmp_path / "book"
    shutil.copytree(scored, root)
    monkeypatch.setenv("BOOK_ROOT", str(root))
    return root


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
        "tiny2020.table1,quick,scaled-down,towards,broken\n"
        "tiny2020.table1,standard,not run,,not run\n"
        "tiny2020.table1,paper,not run,,not run\n"
    )
    assert verdict_table.check() == []
    assert verdict_table.read() == [entry.row for entry in verdict_table.entries()]


def test_entries_say_where_they_come_from(book):
    first = verdict_table.entries()[0]
    notebook = nbformat.read(manifests.recorded_run(CHAPTER, "quick"), as_version=4)
    assert "tiny2020.thm1" in notebook.cells[first.cell].source
    assert (first.chapter, first.stale) == (CHAPTER, False)
    tiny_book.make(book, source=tiny_book.SOURCE.replace("2 * 2 - 4", "2 * 3 - 6"))
    assert [entry.stale for entry in verdict_table.entries() if entry.judgement] == [True, True]


def test_counts(book):
    assert verdict_table.counts(verdict_table.entries()) == {
        "quick": {"reproduced": 1, "scaled-down": 1, "broken": 1},
        "standard": {"not run": 2},
        "paper": {"not run": 2},
    }


def test_verdicts_are_computed_from_the_measurements_and_the_rules_of_today(book):
    one_more = "tolerance: 1.0e-9}, {type: interval, value: error, low: 1"
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("tolerance: 1.0e-9", one_more))
    assert verdict_table.entries()[0].row["verdict"] == "partly"
    problems = verdict_table.check()
    assert "tiny2020.thm1 at quick: verdict is committed as 'reproduced', computed as 'partly'" in problems
    assert any("cell 5 does not show what its numbers and the registry give" in problem for problem in problems)
    verdict_table.write()
    assert verdict_table.check() == []
    assert "tiny2020.thm1 (Theorem 1): partly" in manifests.recorded_run(CHAPTER, "quick").read_text()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("thm1,quick,reproduced", "thm1,quick,refuted", "thm1 at quick: verdict is committed as 'refuted', computed as 'reproduced'"),
        ("towards,broken", "away,broken", "tiny2020.table1 at quick: direction is committed as 'away', computed as 'towards'"),
        ("towards,broken", "towards,survives", "tiny2020.table1 at quick: survives is committed as 'survives', computed as 'broken'"),
        ("table1,quick,scaled-down,towards", "table1,quick,reproduced,", "more than this profile can say; it takes standard"),
        ("tiny2020.thm1,paper,not run,,\n", "", "data/verdicts.csv has no row for tiny2020.thm1 at paper"),
        ("tiny2020.thm1,paper", "tiny2020.thm2,paper", "data/verdicts.csv has a row for tiny2020.thm2 at paper, which is not registered"),
        ("tiny2020.thm1,paper", "tiny2020.thm1,quick", "data/verdicts.csv has two rows for tiny2020.thm1 at quick"),
    ],
)  # fmt: skip
def test_a_table_that_was_edited_is_found(book, old, new, problem):
    edit_table(old, new)
    assert any(problem in found for found in verdict_table.check())


def test_a_missing_table_is_found(book):
    verdict_table.verdicts_file().unlink()
    assert len(verdict_table.check()) == 6


def test_a_table_with_other_columns_is_refused(book):
    edit_table("verdict,direction", "direction,verdict")
    with pytest.raises(ClaimError, match="score --write"):
        verdict_table.check()


def recorded(notebook, cell: int):
    return notebook.cells[cell].outputs[0].metadata.support.claim


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda nb: nb.cells[4].update(outputs=[]), "the registered claim tiny2020.thm1 has no cell"),
        (lambda nb: recorded(nb, 4).update(id="tiny2020.thm9"), "cell 5 names no claim of this chapter: tiny2020.thm9"),
        (lambda nb: nb.cells[4].update(outputs=nb.cells[4].outputs * 2), "tiny2020.thm1 is stated 2 times"),
        (lambda nb: recorded(nb, 4).update(profile="paper"), "tiny2020.thm1 was judged as paper"),
        (lambda nb: recorded(nb, 5).measured.update(accuracy=[0.9, 0.91]), "the notebook and its manifest differ"),
        (lambda nb: recorded(nb, 5).measured.pop("accuracy"), "tiny2020.table1: the notebook and its manifest differ"),
        (lambda nb: nb.cells[5].outputs[0].data.update({"text/html": "accuracy = 0.99"}), "cell 6 does not show what its numbers"),
        (lambda nb: [cell.update(outputs=[]) for cell in nb.cells if "outputs" in cell], "registered claim tiny2020.table1 has no cell"),
    ],
)  # fmt: skip
def test_a_notebook_that_was_edited_is_found(book, change, problem):
    edit_notebook(change)
    assert any(problem in found for found in verdict_table.check())


def test_a_claim_registered_after_the_record_is_found(book):
    more = tiny_book.CLAIMS + tiny_book.CLAIMS.split("claims:\n")[1].split("  - id: tiny2020.table1")[0].replace("thm1", "thm2")
    tiny_book.make(book, claims=more)
    problems = verdict_table.check()
    assert "01_tiny at quick: the registered claim tiny2020.thm2 has no cell" in problems
    assert "data/verdicts.csv has no row for tiny2020.thm2 at quick" in problems


def test_rules_that_ask_for_other_numbers_than_the_record_has_are_found(book):
    tiny_book.make(book, claims=tiny_book.CLAIMS.replace("value: error", "value: mistake"))
    assert any("its rules want mistake beside error" in problem for problem in verdict_table.check())
    assert verdict_table.entries()[0].row["verdict"] == "not run"


@pytest.mark.parametrize("lost", ["book/01_tiny.ipynb", "data/runs/quick/01_tiny.json"])
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
        "tiny2020.table1 accuracy: 0.9 -> 0.6 [-0.6706, 1.871]",
        "tiny2020.table1 direction: towards -> mixed",
    ):
        assert line in lines
    assert f"versions.python: {first.versions['python']} -> –" in lines
    assert all("rate" not in line for line in lines)
