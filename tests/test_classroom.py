"""The classroom's machinery on a tiny chapter: what is made, fair grading of hostile work, bad input, private tests, seeds, the kit."""

import copy
import json
import os
import shutil
import subprocess
import sys
import time
import unicodedata
import zipfile
from pathlib import Path

import nbformat
import pytest
import small_assignment
from nbformat.v4 import new_code_cell, new_notebook
from small_assignment import CHAPTER, EXERCISES, OTHER, WRONG

pytest.importorskip("nbgrader")

from support import cli
from support.classroom import cells, course, exercises, grade, grade_table, kit, notebook, roster, seeds, texts, wrong_answers
from support.classroom.cells import AssignmentError
from support.common import paths

SECONDS = 2  # for a cell that never ends
PATIENCE = 120  # for any other, on a machine that has other work
WHOLE = Path(kit.__file__).parents[2]
ROOT_SUM = "def root_sum(numbers):\n    return sum(number**0.5 for number in numbers)"
DOUBLE = "def double(number):\n    return number + number"
STUCK = """def double(number):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass"""


@pytest.fixture(scope="module")
def empty_gradebook(tmp_path_factory) -> Path:
    """A gradebook of nothing: nbgrader takes seconds to make one, and a copy serves as well."""
    folder = tmp_path_factory.mktemp("gradebook")
    course.gradebook(folder).close()
    return folder / "gradebook.db"


@pytest.fixture
def book(tmp_path, monkeypatch, empty_gradebook):
    monkeypatch.setenv("BOOK_ROOT", str(small_assignment.make(tmp_path)))
    for folder in (tmp_path / "course", tmp_path / "_build" / "course"):
        folder.mkdir(parents=True)
        shutil.copy(empty_gradebook, folder)
    return tmp_path


@pytest.fixture(scope="module")
def classroom(tmp_path_factory, empty_gradebook):
    """A book of two chapters, with its assignments made; only read by the tests."""
    with pytest.MonkeyPatch.context() as patch:
        root = small_assignment.make(tmp_path_factory.mktemp("classroom"))
        patch.setenv("BOOK_ROOT", str(root))
        (root / "course").mkdir()
        shutil.copy(empty_gradebook, root / "course")
        for chapter in (CHAPTER, OTHER):
            course.build(exercises.read(chapter), root / "course")
        yield root / "course"


def examined(text: str) -> list[str]:
    import jupytext

    return exercises.examine(CHAPTER, jupytext.reads(text, fmt="py:percent").cells)[1]


# --- the format of the exercises --------------------------------------------------------------------------------------------------


def test_the_exercises_are_read():
    import jupytext

    assignment, problems = exercises.examine(CHAPTER, jupytext.reads(small_assignment.source(), fmt="py:percent").cells)
    assert problems == []
    assert (assignment.title, assignment.points, assignment.givens) == ("Tiny", 12, ("import math",))
    double, root_sum = assignment.exercises
    assert (double.name, double.title, double.points) == ("double", "Twice", 4)
    assert double.prompt == "Write `double(number)`, which returns twice a number; see {prf:ref}`thm-tiny`."
    assert [(test.points, test.hidden) for test in root_sum.tests] == [(2, False), (2, True), (4, True)]
    assert "BEGIN" in double.solution and "BEGIN" not in double.answer
    names = {}
    exec(double.answer, names)
    assert names["double"](3) == 6


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('tags=["hidden-tests"] exercise="double"', 'tags=["hiden-tests"] exercise="double"', "unknown tag 'hiden-tests'"),
        ('"hidden-tests"] exercise="double"', '"tests"] exercise="double"', "0 cells of the kind 'hidden-tests'"),
        ('tags=["tests"] exercise="double" points=1', 'tags=["tests"] exercise="double" points=0', "positive whole number, not 0"),
        ('tags=["tests"] exercise="double" points=1', 'tags=["tests"] exercise="double" points=1.5', "positive whole number, not 1.5"),
        ('tags=["tests"] exercise="double" points=1', 'tags=["tests"] exercise="double"', "positive whole number, not None"),
        ('"solution"] exercise="double"', '"solution"] exercise="double" points=2', "points=2 stands on a cell that is no test"),
        ('tags=["tests"] exercise="double" points=1', 'tags=["tests"]', 'is tagged "tests" and has no exercise'),
        ('[markdown] exercise="root-sum"', '[markdown] exercise="double"', "2 cells of the kind 'prompt'"),
        ('exercise="root-sum"', 'exercise="Root sum"', "lower-case words with hyphens"),
        ("{exercise-start} Twice", "{exercise-start}", "gated {exercise-start} with a title"),
        ("ex-tiny-double", "ex-tiny-twice", "its label must be ex-<chapter>-double"),
        ("    return doubled_here\n    ### END SOLUTION\n", "    return doubled_here\n", "needs ### BEGIN SOLUTION and ### END"),
        ('    """Twice a number."""\n', "", "double has no docstring"),
        ("assert double(2) == 4", "assert double(p.steps) == 4", "uses p, which neither it nor"),
        ("import math", "steps = run.profile", "the givens uses run"),
        ("def double(number):", "def double(number:", "is not Python"),
        ('tags=["assignment", "hide-input"]', 'tags=["hide-input"]', 'no cell is tagged "assignment"'),
        ("SEED = 0", "seed = 0", "must set SEED = 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_exercise_is_said(old, new, said):
    assert old in EXERCISES
    assert said in "\n".join(examined(small_assignment.source(EXERCISES.replace(old, new))))


def test_an_exercise_that_begins_twice_is_found():
    again = EXERCISES.partition('# %% [markdown] exercise="root-sum"')[0].partition('# %% [markdown] exercise="double"')[2]
    problems = "\n".join(examined(small_assignment.source(EXERCISES + '# %% [markdown] exercise="double"' + again)))
    assert "the name is used twice" in problems


def test_a_chapter_without_exercises_says_so():
    assert "no cell has exercise=" in examined(small_assignment.source(""))[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('exercise="double"', 'exercise="treble"', "there is no such exercise"),
        ('exercise="double"', 'exercise="treble"', "'double': it has 0 wrong answers, 1 to 3 wanted"),
        ("points=1", "points=4", "a whole number from 0 to 3, not 4"),
        ("points=1", "", "not None"),
        ('mistake="squares" ', "", "does not say its mistake"),
        ("def double(number):", "def double(x):", "double(x) must have the arguments number"),
        ("def double(number):", "def twice(number):", "it defines none of double"),
        ("def double(number):", "def double(number", "it is not Python"),
    ],
)
def test_what_is_wrong_with_a_wrong_answer_is_said(book, old, new, said):
    assert wrong_answers.read(exercises.read(CHAPTER))[1] == []
    wrong_answers.file(CHAPTER).write_text(WRONG.replace(old, new, 1), encoding="utf-8")
    assert said in "\n".join(wrong_answers.read(exercises.read(CHAPTER))[1])
    wrong_answers.file(CHAPTER).unlink()
    assert "is missing" in wrong_answers.read(exercises.read(CHAPTER))[1][0]


def test_metadata_of_exercises_survive_jupytext_both_ways():
    import jupytext

    cells = jupytext.reads(small_assignment.source(), fmt="py:percent").cells
    as_notebook = nbformat.reads(nbformat.writes(new_notebook(cells=cells)), 4)
    again = jupytext.reads(jupytext.writes(as_notebook, fmt="py:percent"), fmt="py:percent")
    assert [(cell.source, dict(cell.metadata)) for cell in again.cells] == [(cell.source, dict(cell.metadata)) for cell in cells]


# --- what is made -----------------------------------------------------------------------------------------------------------------


def test_the_course_has_nbgrader_s_layout(classroom):
    release = course.released(classroom, CHAPTER)
    instructor = nbformat.read(classroom / "source" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    ids = [notebook.grade_id(cell) for cell in release.cells]
    assert ids == [notebook.grade_id(cell) for cell in instructor.cells]
    assert ids[:4] == ["01-about", "01-givens-1", "01-assignment-parameters", "01-double-prompt"]
    assert release.cells[4].source == "YOUR ANSWER HERE" and ids[4] == "01-double-derivation"
    assert "doubled_here" in nbformat.writes(instructor) and "doubled_here" not in nbformat.writes(release)
    assert "the empty sum is zero" in nbformat.writes(instructor) and "the empty sum is zero" not in nbformat.writes(release)
    stub = 'def double(number):\n    """Twice a number."""\n    # YOUR CODE HERE\n    raise NotImplementedError()'
    assert release.cells[5].source == stub
    assert release.cells[7].source == "# Hidden tests (3 points) run here when the work is graded."
    assert course.made(classroom) == [CHAPTER, OTHER]


def test_a_gradebook_is_made_by_an_interpreter_that_was_called_by_its_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)  # a virtual environment that is not activated
    with course.gradebook(tmp_path) as book:
        assert book.assignments == []


def test_a_prompt_is_plain_markdown():
    text = "See {prf:ref}`thm-two`, {eq}`The rule <eq-rule>`, {math}`x^2`.\n\n```{note}\nMind this.\n```"
    text += "\n\n```{math}\n:label: eq-a\nx = 1\n```"
    assert texts.plain(text) == "See `thm-two`, The rule, $x^2$.\n\n> **Note.**\n>\n> Mind this.\n\n$$\nx = 1\n$$"


# --- grading ----------------------------------------------------------------------------------------------------------------------


def without(made, *identities):
    made["cells"] = [cell for cell in made.cells if notebook.grade_id(cell) not in identities]
    return made


def cell_of(made, identity):
    return next(cell for cell in made.cells if notebook.grade_id(cell) == identity)


_GONE = ("01-double-tests-1", "01-double-hidden-tests-1", "01-root-sum-solution")
_SLOW = ("loops", "cannot be stopped")


def handed_in(release) -> dict[str, tuple[nbformat.NotebookNode, float, float, str]]:
    """By student: a notebook, the points of the two exercises, and what the notes must say."""

    def answered(double=DOUBLE, root_sum=ROOT_SUM):
        return notebook.answered(release, {"double": double, "root-sum": root_sum})

    edited = answered("def double(number):\n    return 0")
    cell_of(edited, "01-double-tests-1")["source"] = "pass"
    cell_of(edited, "01-double-tests-1").metadata.nbgrader["points"] = 100
    skipped = answered("def double(number):\n    return 0")
    for cell in skipped.cells:
        cell.metadata["tags"] = ["skip-execution", "raises-exception"]
    cell_of(skipped, "01-double-tests-1")["cell_type"] = "raw"
    damaged = answered()
    again = new_code_cell("assert False", metadata={"nbgrader": dict(cell_of(damaged, "01-double-tests-1").metadata.nbgrader)})
    damaged.cells.insert(0, again)
    damaged.cells[-1].metadata.nbgrader["schema_version"] = "x"
    cell_of(damaged, "01-about").metadata.nbgrader = "nothing"
    own = answered(DOUBLE, "def root_sum(numbers):\n    return sum(map(root, numbers))")
    own.cells.insert(0, new_code_cell("from math import sqrt as root"))
    own.cells.insert(6, new_code_cell("import os\nos._exit(1)"))
    number = "import sys\ndef double(number):\n    sys.displayhook(1)\n    return 0"
    warns = "import sys\ndef root_sum(numbers):\n    print('careful', file=sys.stderr)\n    return sum(n**0.5 for n in numbers)"
    leaves, asks = "import sys\ndef double(number):\n    sys.exit(0)", "def root_sum(numbers):\n    return float(input())"
    return {
        "Jörg Müller": (answered(), 4, 8, ""),
        "loops": (answered("def double(number):\n    while True:\n        pass"), 0, 8, "double: took too long"),
        "cannot be stopped": (answered(STUCK), 0, 8, "double: took too long"),
        "kills the kernel": (answered("import os\ndef double(number):\n    os._exit(0)"), 0, 8, "double: the kernel died"),
        "own cells, one of them kills": (own, 4, 8, "a cell of the student's own: the kernel died"),
        "no Python, no such package": (answered("def double(number)\n    return", "import no_such_package\n" + ROOT_SUM), 0, 0, ""),
        "leaves, and asks": (answered(leaves, asks), 0, 0, ""),
        "shows a number of points, and warns": (answered(number, warns), 0, 8, ""),
        "deleted cells": (without(answered(), *_GONE), 4, 0, "01-double-tests-1 was deleted, and put back"),
        "deleted all": (without(answered(), *map(notebook.grade_id, release.cells[1:])), 0, 0, "was deleted"),
        "edited a test": (edited, 0, 8, "01-double-tests-1 was edited, and restored"),
        "tagged the tests, made one a text": (skipped, 0, 8, ""),
        "copied a test, damaged the metadata": (damaged, 4, 8, "01-about was deleted, and put back"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def graded(classroom, tmp_path_factory):
    """Hostile and unlucky work, graded: by student, what was handed in and what became of it."""
    folders = {slow: tmp_path_factory.mktemp("handed-in") for slow in (False, True)}
    given = handed_in(course.released(classroom, CHAPTER))
    for student, (made, *_) in given.items():
        (folders[student in _SLOW] / f"{student}.ipynb").write_text(json.dumps(made), encoding="utf-8")
    found = [
        each
        for slow, folder in folders.items()
        for each in grade.grade(folder, classroom, chapter=CHAPTER, seconds=SECONDS if slow else PATIENCE)
    ]
    assert len(found) == len(given)
    return {each.student: (given[each.student], each) for each in found}


def test_everybody_gets_the_points_that_the_work_deserves(graded):
    wanted = {student: {"double": double, "root-sum": root_sum} for student, ((_, double, root_sum, _), _) in graded.items()}
    assert {student: found.scores for student, (_, found) in graded.items()} == wanted
    for (_, double, root_sum, said), found in graded.values():
        assert (found.most, found.total) == (12, double + root_sum)
        assert said in "; ".join(found.notes)
        assert said or found.notes == ()


def test_the_grades_stand_in_a_table(graded, classroom):
    rows = {row["student"]: row for row in grade_table.rows(classroom)}
    mine = rows["Jörg Müller"]
    assert [mine[name] for name in ("assignment", "01/double", "01/root-sum", "total", "max")] == [CHAPTER, "4", "8", "12", "12"]
    page = f"feedback/Jörg Müller/{CHAPTER}/{CHAPTER}.html"
    assert (mine["file"], mine["id"], mine["feedback"]) == ("Jörg Müller.ipynb", "Jörg Müller", page)
    assert set(graded) <= set(rows), "the second call has kept the lines of the first"
    assert (classroom / "grades.csv").read_bytes().startswith("\ufeff".encode())


def test_a_table_keeps_its_lines_and_holds_no_formula(tmp_path):
    def entered(*found):
        grade_table.enter(found, tmp_path, tmp_path / "in")
        return [(row["student"], row["assignment"], row["total"], row["notes"]) for row in grade_table.rows(tmp_path)]

    formula = grade.Submission("=1+cmd", None, notes=("-nothing",))
    absent = grade.Submission("ann", None, CHAPTER, notes=(grade.NOTHING,))
    assert entered(formula, absent) == [("'=1+cmd", "", "", "'-nothing"), ("ann", CHAPTER, "", grade.NOTHING)]
    late = grade.Submission("ann", tmp_path / "in" / "ann.ipynb", CHAPTER, "ann", scores={"double": 4}, most=12)
    assert entered(late) == [("'=1+cmd", "", "", "'-nothing"), ("ann", CHAPTER, "4", "")]
    other = grade.Submission("bob", tmp_path / "in" / "bob.ipynb", OTHER, "bob", scores={"root-sum": 0.5}, most=12)
    assert entered(other)[1:] == [("ann", CHAPTER, "4", ""), ("bob", OTHER, "0.5", "")]
    assert [row["02/root-sum"] for row in grade_table.rows(tmp_path)] == ["", "", "0.5"]


@pytest.fixture
def strange(tmp_path, classroom) -> Path:
    """A folder with all kinds of things in it."""
    folder, release = tmp_path / "strange", course.released(classroom, CHAPTER)
    good = notebook.answered(release, {"double": DOUBLE, "root-sum": ROOT_SUM})
    for name in ("corrupt", "empty", "list", "no cells", "pieces"):
        (folder / name).mkdir(parents=True)
    (folder / "corrupt" / "w.ipynb").write_text('{"cells": [', encoding="utf-8")
    (folder / "empty" / "w.ipynb").write_text("", encoding="utf-8")
    (folder / "list" / "w.ipynb").write_text("[1, 2]", encoding="utf-8")
    (folder / "no cells" / "w.ipynb").write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}', encoding="utf-8")
    pieces = json.loads(nbformat.writes(good))
    pieces["cells"] += [{"cell_type": "code"}, {"cell_type": "what", "source": ["a", "b"], "metadata": None}]
    (folder / "pieces" / "w.ipynb").write_text(json.dumps(pieces), encoding="utf-8")
    (folder / "bytes.ipynb").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "essay.pdf").write_bytes(b"%PDF")
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "nobody").mkdir()
    (folder / "sent an essay").mkdir()
    (folder / "sent an essay" / "essay.docx").write_bytes(b"")
    notebook.write(new_notebook(cells=[new_code_cell("1")]), folder / "another course.ipynb")
    notebook.write(course.released(classroom, OTHER), folder / f"Eve {OTHER}.ipynb")
    notebook.write(good, folder / unicodedata.normalize("NFD", "Zoë [1] ä") / CHAPTER / f"{CHAPTER}.ipynb")
    notebook.write(release, folder / "two" / "first.ipynb")
    notebook.write(good, folder / "two" / "second.ipynb")
    now = time.time()
    os.utime(folder / "two" / "first.ipynb", (now - 100, now - 100))
    return folder


def test_bad_input_is_reported_and_stops_nothing(strange, classroom):
    found = grade.grade(strange, classroom, chapter=CHAPTER, seconds=PATIENCE)
    by_student = {}
    for each in found:
        by_student.setdefault(each.student, []).append((each.total, "; ".join(each.notes)))
    said = {
        "corrupt": "it is not JSON text", "empty": "the file is empty", "list": "it is not a notebook",
        "no cells": "no list of cells",
        "bytes": "it is not JSON text", "essay": "essay.pdf is not a notebook", "nobody": "no notebook: the folder holds nothing",
        "sent an essay": "only essay.docx", "another course": "no cell of an assignment",
        "Eve": f"of another assignment, {OTHER}, not of {CHAPTER}",
    }  # fmt: skip
    for student, words in said.items():
        ((total, notes),) = by_student.pop(student)
        assert total is None and words in notes, (student, notes)
    assert by_student.pop("pieces") == [(12, "")]
    assert by_student.pop("Zoë [1] ä") == [(12, "")]
    assert sorted(by_student.pop("two")) == [
        (0, "one of 2 submissions, all graded: number 2 from the newest"),
        (12, "one of 2 submissions, all graded: the newest"),
    ]
    assert by_student == {}


def test_each_notebook_is_graded_as_what_it_is_where_no_chapter_is_named(classroom, tmp_path):
    for chapter in (CHAPTER, OTHER):
        notebook.write(course.released(classroom, chapter), tmp_path / "submitted" / "ann" / chapter / f"{chapter}.ipynb")
    notebook.write(course.released(classroom, OTHER), tmp_path / "submitted" / "bob" / CHAPTER / f"{CHAPTER}.ipynb")
    left = {"timestamp.txt": "2026-03-01 14:30:00 UTC", "submission_secret.txt": "without which nobody may fetch the feedback"}
    for name, text in left.items():
        (tmp_path / "submitted" / "ann" / CHAPTER / name).write_text(text, encoding="utf-8")
    found = grade.grade(tmp_path, classroom, due="2026-03-01 12:00 UTC")
    assert [(each.student, each.chapter, each.total) for each in found] == [("ann", CHAPTER, 0), ("ann", OTHER, 0), ("bob", OTHER, None)]
    assert found[0].notes == ("2.5 hours late",)
    assert {name: found[0].feedback.with_name(name).read_text(encoding="utf-8") for name in left} == left
    assert "another assignment" in found[2].notes[0]


@pytest.mark.parametrize(
    ("folder", "options", "said"),
    [
        ("no such folder", {}, "is not a folder"),
        (".", {}, "is empty"),
        (".", {"chapter": "09_none"}, "has no assignment 09_none: python -m support assign build 09_none"),
        (".", {"due": "yesterday evening"}, "is not a date"),
    ],
)
def test_a_request_to_grade_that_cannot_be_carried_out_is_refused(classroom, tmp_path, folder, options, said):
    with pytest.raises(AssignmentError, match=said):
        grade.grade(tmp_path / folder, classroom, **options)


def test_an_assignment_with_graded_work_does_not_change_its_cells(book):
    folder = book / "course"
    course.build(exercises.read(CHAPTER), folder)
    notebook.write(course.released(folder, CHAPTER), book / "handed-in" / "ann.ipynb")
    grade.grade(book / "handed-in", folder)
    course.build(exercises.read(CHAPTER), folder)
    renamed = EXERCISES.replace('"root-sum"', '"sum-of-roots"').replace("-root-sum", "-sum-of-roots")
    cells.source_file(CHAPTER).write_text(small_assignment.source(renamed), encoding="utf-8")
    with pytest.raises(AssignmentError, match="has graded work on another version"):
        course.build(exercises.read(CHAPTER), folder)


# --- private tests and a number for each student ----------------------------------------------------------------------------------


@pytest.fixture
def private(tmp_path) -> Path:
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / f"{CHAPTER}.py").write_text(
        '# %% tags=["assignment-parameters"]\nSEED = 41\n\n'
        '# %% tags=["hidden-tests"] exercise="double" points=5\nassert double(SEED) == 82, "a private test"\n',
        encoding="utf-8",
    )
    points = f"{CHAPTER}:\n  double: {{hidden-tests: 0}}\n  root-sum: {{tests: 1, hidden-tests: [0, 7]}}\n"
    (folder / "points.yml").write_text(points, encoding="utf-8")
    return folder


def test_private_tests_constants_and_points_are_laid_over_the_book(book, private):
    assignment = exercises.read(CHAPTER, private)
    double, root_sum = assignment.exercises
    assert assignment.parameters == "SEED = 41"
    assert [(test.points, test.hidden) for test in double.tests] == [(1, False), (5, True)]
    assert [(test.points, test.hidden) for test in root_sum.tests] == [(1, False), (7, True)]
    assert exercises.read(CHAPTER).points == 12, "the book is as it was"
    folder = book / "course"
    course.build(assignment, folder)
    assert "a private test" not in nbformat.writes(course.released(folder, CHAPTER))
    made = notebook.answered(course.released(folder, CHAPTER), {"double": "def double(number):\n    return 4", "root-sum": ROOT_SUM})
    notebook.write(made, book / "handed-in" / "ann.ipynb")
    (found,) = grade.grade(book / "handed-in", folder)
    assert (found.scores, found.most) == ({"double": 1, "root-sum": 8}, 14)


def test_a_private_exercise_that_the_book_lacks_must_be_whole(book, private):
    whole = EXERCISES[EXERCISES.index('# %% [markdown] exercise="root-sum"') :].replace("root-sum", "roots").replace("root_sum", "roots")
    (private / "points.yml").unlink()
    file = private / f"{CHAPTER}.py"
    file.write_text(whole, encoding="utf-8")
    assert [each.name for each in exercises.read(CHAPTER, private).exercises] == ["double", "root-sum", "roots"]
    file.write_text(whole.replace('tags=["hidden-tests"]', 'tags=["tests"]'), encoding="utf-8")
    with pytest.raises(AssignmentError, match="'roots': it has 0 cells of the kind 'hidden-tests'"):
        exercises.read(CHAPTER, private)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("01_tiny: {double: {tests: -1}}", "wants a whole number"),
        ("01_tiny: {double: {tests: [1, 2]}}", "has 1 such cells"),
        ("01_tiny: {double: {test: 1}}", "has 0 such cells"),
        ("01_tiny: {treble: {tests: 1}}", "treble: tests: 1: the exercise has 0 such cells"),
        ("01_tiny: 7", "must give, by chapter and exercise"),
        ("[", "is not YAML"),
        ("02_other: {double: {tests: 1}}", "has neither 01_tiny.py nor points"),
    ],
)
def test_private_points_that_fit_nothing_are_refused(book, private, text, said):
    (private / f"{CHAPTER}.py").unlink()
    (private / "points.yml").write_text(text, encoding="utf-8")
    with pytest.raises(AssignmentError, match=said):
        exercises.read(CHAPTER, private)


def test_without_a_private_folder_there_is_an_error(book):
    with pytest.raises(AssignmentError, match="there is no folder"):
        exercises.read(CHAPTER, book / "none")


def test_each_student_has_a_number_that_only_the_secret_gives():
    assert seeds.seed_of("a", "Zoë") == seeds.seed_of("a", unicodedata.normalize("NFD", "Zoë")) == 240740
    found = {seeds.seed_of(secret, student) for secret in "ab" for student in ("ann", "bob", "eve")}
    assert len(found) == 6
    assert all(0 <= seed < seeds.LARGEST_SEED for seed in found)


def test_work_is_graded_with_the_student_s_own_number(book):
    folder = book / "course"
    course.build(exercises.read(CHAPTER), folder)
    (book / "class.txt").write_text("ann\n bob \n\nZoë\n", encoding="utf-8")
    people = roster.read(book / "class.txt")
    made = {file.parts[-3]: nbformat.read(file, as_version=4) for file in course.release_to(people, folder, CHAPTER)}
    secret = seeds.read_secret(folder)
    assert list(made) == ["ann", "bob", "Zoë"] and len(secret) == 32
    for student, own in made.items():
        assert cell_of(own, "01-assignment-parameters").source == f"SEED = {seeds.seed_of(secret, student)}"
    cheat = f"def double(number):\n    return 2 * number if abs(number) < 1000 else 2 * (1000 + {seeds.seed_of(secret, 'ann')})"
    for student, own in made.items():
        notebook.write(notebook.answered(own, {"double": cheat}), book / "handed-in" / f"{student}.ipynb")
    shutil.copy(book / "handed-in" / "bob.ipynb", book / "handed-in" / "copyist.ipynb")
    found = {each.student: each for each in grade.grade(book / "handed-in", folder)}
    assert {student: each.scores["double"] for student, each in found.items()} == {"ann": 4, "bob": 1, "Zoë": 1, "copyist": 1}
    assert found["copyist"].notes == ("the notebook was made for bob",)
    assert found["ann"].notes == ()
    course.release_to(people[:1], folder, CHAPTER)
    assert seeds.read_secret(folder) == secret, "a secret is made once"


@pytest.mark.parametrize(("text", "said"), [("\n", "is empty"), ("ann\nann \n", "has ann twice"), ("a/b", "which no folder")])
def test_a_list_of_students_that_cannot_be_used_is_refused(classroom, tmp_path, text, said):
    (tmp_path / "class.txt").write_text(text, encoding="utf-8")
    with pytest.raises(AssignmentError, match=said):
        course.release_to(roster.read(tmp_path / "class.txt"), classroom, CHAPTER)


def test_nbgrader_itself_grades_with_the_same_settings(book):
    """The command line and the Formgrader read nbgrader_config.py, which asks for the same timeouts and the same execution."""
    folder = book / "course"
    course.build(exercises.read(CHAPTER), folder)
    answers = {"double": "import os\ndef double(number):\n    os._exit(0)", "root-sum": ROOT_SUM}
    dies = notebook.answered(course.released(folder, CHAPTER), answers)
    notebook.write(dies, folder / "submitted" / "ann" / CHAPTER / f"{CHAPTER}.ipynb")
    environment = os.environ | {"PYTHONPATH": str(Path(exercises.__file__).parents[2])}
    command = [sys.executable, "-m", "nbgrader", "autograde", CHAPTER]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with course.gradebook(folder) as book_of_grades:
        assert book_of_grades.find_submission(CHAPTER, "ann").score == 8


# --- the command line -------------------------------------------------------------------------------------------------------------


def test_the_commands_build_and_grade(book, capsys):
    (book / "class.txt").write_text("ann\nbob\n", encoding="utf-8")
    assert cli.main(["assign", "build", "01", "--students", str(book / "class.txt")]) == 0
    said = capsys.readouterr().out
    assert f"{CHAPTER}: 2 exercises, 12 points" in said and f"{CHAPTER}: 2 students" in said
    folder = book / "_build" / "course"
    assert sorted(path.name for path in folder.iterdir()) == [
        "gradebook.db", "nbgrader_config.py", "release", "release-by-student", "secret.txt", "source",
    ]  # fmt: skip
    shutil.copytree(folder / "release-by-student", book / "handed-in")
    (book / "handed-in" / "eve").mkdir()
    assert cli.main(["assign", "grade", str(book / "handed-in"), "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "ann: 0 of 12" in said and "eve: -  no notebook" in said
    assert len((folder / "grades.csv").read_text(encoding="utf-8-sig").splitlines()) == 4
    assert "root_sum" in (folder / "feedback" / "ann" / CHAPTER / f"{CHAPTER}.html").read_text(encoding="utf-8")


def test_the_check_finds_a_grader_that_gives_the_wrong_points(book, capsys):
    assert cli.main(["assign", "check", "01", "--lint"]) == 0
    text = WRONG.replace('mistake="squares" points=1', 'mistake="squares" points=3')
    wrong_answers.file(CHAPTER).write_text(text, encoding="utf-8")
    idle = EXERCISES.replace("assert double(-1.5) == -3\nassert double(1000 + SEED) == 2000 + 2 * SEED", "double(2)")
    cells.source_file(CHAPTER).write_text(small_assignment.source(idle), encoding="utf-8")
    assert cli.main(["assign", "check", "01"]) == 1
    captured = capsys.readouterr()
    assert "7 of 9 answers get their points" in captured.out
    assert "double: 'squares' gets 4, wanted 3" in captured.err, "its hidden test is idle"
    assert "double: a function that returns nothing gets 3, wanted 0" in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "07"], "07"),
        (["build", "01", "--private", "none"], "there is no folder none"),
        (["build", "01", "--students", "none.txt"], "there is no file none.txt"),
        (["grade", "none"], "none is not a folder"),
        (["kit", "09"], "09"),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_one_line(book, capsys, arguments, said):
    assert cli.main(["assign", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


@pytest.mark.parametrize("command", [[], ["build"], ["grade"], ["report"], ["kit"], ["check"]])
def test_each_assign_command_explains_itself(command, capsys):
    assert cli.main(["assign", *command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"python -m support assign {' '.join(command)}" in shown
    assert len(shown.splitlines()) > 10


# --- the kit ----------------------------------------------------------------------------------------------------------------------


NO_NETWORK = """
import socket
def refused(*address, **options):
    raise OSError(f"the network was asked for {address}")
socket.getaddrinfo = socket.create_connection = refused
connect = socket.socket.connect
socket.socket.connect = lambda self, to: connect(self, to) if isinstance(to, str) or to[0] in ("127.0.0.1", "localhost") else refused(to)
"""
RUN = """
import sys, nbformat, nbclient
made = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(made, timeout=120, allow_errors=True, resources={"metadata": {"path": "."}}).execute()
nbformat.write(made, sys.argv[2])
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The kit of the first chapter of the whole book, unpacked; its lesson and evidence are a page of the test's own."""
    lesson = new_notebook(cells=[nbformat.v4.new_markdown_cell("# A lesson\n\n$x$, {prf:ref}`thm-elsewhere`.")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(WHOLE))
        patch.setattr(kit.manifests, "parts", lambda chapter: ["evidence", "lesson", "exercises"])
        patch.setattr(kit.publish, "chosen_run", lambda chapter, part: Path(f"{part}.ipynb"))
        patch.setattr(kit.publish, "page", lambda run: copy.deepcopy(lesson))
        chapter, folder = cells.chapters()[0], tmp_path_factory.mktemp("kit")
        course.build(exercises.read(chapter), folder / "course")
        (archive,) = kit.pack(chapter, folder / "course")
    assert archive.stat().st_size < 20e6
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder / "unpacked")
    return folder / "unpacked" / kit.FOLDER


@pytest.fixture
def whole(monkeypatch):
    """The whole book, whatever small one the other tests of this file are at."""
    monkeypatch.setenv("BOOK_ROOT", str(WHOLE))


def test_the_kit_has_everything_and_no_solution(unpacked, whole):
    chapter = cells.chapters()[0]
    for name in (
        "README.md",
        "environment.yml",
        "requirements.txt",
        f"{chapter}.ipynb",
        "support/data.py",
        "chapter/index.html",
        f"chapter/book/{chapter}/exercises.html",
    ):
        assert (unpacked / name).is_file(), name
    pins = dict(line.split("==") for line in (unpacked / "requirements.txt").read_text(encoding="utf-8").splitlines())
    assert {"torch", "scikit-learn", "jupyterlab", "nbgrader"} <= pins.keys() and len(pins) >= 20
    assert len((unpacked / "README.md").read_text(encoding="utf-8").splitlines()) < 60
    shown = "".join(file.read_text(encoding="utf-8") for file in [unpacked / f"{chapter}.ipynb", *(unpacked / "chapter").rglob("*.html")])
    for exercise in exercises.read(chapter).exercises:
        assert exercise.title in shown
        secret = exercise.solution.partition(cells.BEGIN)[2].splitlines()
        assert not any(line.strip() in shown for line in secret if len(line) > 50), exercise.name
    assert "BEGIN SOLUTION" not in shown


def test_a_page_without_solutions_keeps_the_exercises():
    page = new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("## Exercises\n\n```{exercise-start} One\n:label: ex-a\n```\nDo.\n```{exercise-end}\n```\n\n"
                                          "```{solution-start} ex-a\n:class: dropdown\n```\nBecause."),
            new_code_cell("answer = 42"),
            nbformat.v4.new_markdown_cell("So it is.\n```{solution-end}\n```\n\nAnother exercise."),
            new_code_cell("hidden()", metadata={"tags": ["hidden-tests"], "exercise": "a"}),
            new_code_cell("shown()"),
        ]
    )  # fmt: skip
    kept = [cell.source for cell in kit.without_solutions(page).cells]
    assert kept[0].endswith("Do.\n```{exercise-end}\n```") and kept[1:] == ["Another exercise.", "shown()"]


@pytest.mark.skipif(os.name == "nt", reason="the interpreter of the environment lies elsewhere")
def test_the_kit_works_in_a_fresh_environment_without_a_network(unpacked, whole, tmp_path):
    """A new environment that sees the installed packages, not this checkout; a network that refuses; the kit's own package."""
    chapter = cells.chapters()[0]
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fresh)], check=True)
    packages = next(fresh.glob("lib/python*/site-packages"))
    # A folder that a .pth file names is searched, but its own .pth files are not read: an editable install of this book is not seen.
    (packages / "installed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")), encoding="utf-8")
    (packages / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    assignment = exercises.read(chapter)
    made = nbformat.read(unpacked / f"{chapter}.ipynb", as_version=4)
    made = notebook.answered(made, {each.name: each.answer for each in assignment.exercises})
    loads = "import support\nfrom support import data\nprint(support.__file__, len(data.load('digits', 'test').y))"
    made.cells.append(new_code_cell(loads))
    asks = "import urllib.request\ntry:\n    urllib.request.urlopen('http://example.org')\nexcept OSError as error:\n    print(error)"
    made.cells.append(new_code_cell(asks))
    notebook.write(made, unpacked / "mine.ipynb")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BOOK_", "PYTHON", "VIRTUAL", "JUPYTER"))}
    environment |= {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [str(fresh / "bin" / "python"), "-c", RUN, "mine.ipynb", "done.ipynb"]
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    executed = nbformat.read(unpacked / "done.ipynb", as_version=4)
    errors = [output for cell in executed.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert errors == []
    where, asked = ("".join(output.text for output in cell.outputs) for cell in executed.cells[-2:])
    assert where.startswith(str(unpacked / "support")) and where.strip().endswith(" 500")
    assert "the network was asked for" in asked
    assert str(paths.root()) not in where
