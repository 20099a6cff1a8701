"""A class of a few students, from the zip of a learning platform to the points that it imports: lists, feedback, work by hand, analysis."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import psutil
import pytest
import small_assignment
from nbformat.v4 import new_code_cell
from small_assignment import CHAPTER

pytest.importorskip("nbgrader")

from support import cli
from support.classroom import course, exercises, grade, grade_table, item_analysis, judge, notebook, roster, similarity, submissions
from support.classroom.cells import AssignmentError

DOUBLE, ROOT_SUM = "def double(number):\n    return number + number", "def root_sum(numbers):\n    return sum(n**0.5 for n in numbers)"
SQUARES = "def double(number):\n    return number**2"
# Passes on what hidden tests pass to it, in every way that there is.
TELLS = """seen = []
def double(number):
    seen.append(number)
    print("told", seen)
    raise type(f"told{number:.0f}".replace("-", "m"), (Exception,), {})(f"told {seen}")"""
TELLS_LATER = """def root_sum(numbers):
    print("told", seen)
    raise ValueError(f"told {seen}")"""
ANSWERS = {
    "Anna Example": (DOUBLE, ROOT_SUM), "Jörg Groß": (SQUARES, ROOT_SUM), "Zoë O'Neil": (SQUARES, "def root_sum(numbers):\n    return 5"),
    "Tom Tells": (TELLS, TELLS_LATER), "Una Touched": (None, None),
}  # fmt: skip
LIST = "First name\tLast name\tID number\tEmail address\r\n" + "".join(
    f"{name.rpartition(' ')[0]}\t{name.rpartition(' ')[2]}\t{100 + number}\t{number}@example.org\r\n"
    for number, name in enumerate([*ANSWERS, "Nobody Here"])
)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A course folder with odd characters in its path, in which a class was graded; its book, the zip and the list."""
    root = tmp_path_factory.mktemp("class [1] é ü")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_ROOT", str(small_assignment.make(root)))
        folder, file, class_list = root / "my course", root / "moodle.zip", root / "list.csv"
        course.build(exercises.read(CHAPTER), folder, derivation=2)
        with zipfile.ZipFile(file, "w") as archive:
            for number, (name, (double, root_sum)) in enumerate(ANSWERS.items()):
                given = {key: code for key, code in {"double": double, "root-sum": root_sum}.items() if code}
                made = notebook.answered(course.released(folder, CHAPTER), given)
                if name == "Anna Example":
                    next(cell for cell in made.cells if notebook.grade_id(cell) == "01-double-derivation")["source"] = (
                        "Because $1 + 1 = 2$."
                    )
                if name == "Tom Tells":
                    made.cells.append(new_code_cell("print('told', seen)\nseen"))
                archive.writestr(f"{name}_{900 + number}_assignsubmission_file/work.IPYNB", nbformat.writes(made))
        class_list.write_bytes(LIST.encode("utf-16"))
        people = roster.read(class_list)
        told = []
        grade.grade(file, folder, people=people, jobs=2, seconds=60, tell=told.append)
        yield folder, file, class_list, told


def test_a_class_is_graded_from_a_platform_s_zip(taught):
    folder, _, _, told = taught
    assert {each.student: each.total for each in told} == {
        "Anna Example": 12, "Jörg Groß": 9, "Zoë O'Neil": 3, "Tom Tells": 0, "Una Touched": 0,
    }  # fmt: skip
    rows = {row["student"]: row for row in grade_table.rows(folder)}
    assert set(rows) == {*ANSWERS, "Nobody Here"}
    assert (rows["Nobody Here"]["total"], rows["Nobody Here"]["notes"]) == ("", grade.NOTHING)
    assert rows["Anna Example"]["notes"] == f"1 {course.BY_HAND}"
    assert rows["Anna Example"]["file"] == "Anna Example_900_assignsubmission_file/work.IPYNB"
    assert all((folder / row["feedback"]).is_file() for row in rows.values() if row["total"])


def test_a_grading_that_was_stopped_goes_on_and_executes_nothing_twice(taught, monkeypatch, tmp_path):
    folder, file, class_list, _ = taught
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    executed = []

    def judged(made, *others):
        executed.append(made)
        return real(made, *others)

    real = judge.judge
    monkeypatch.setattr(judge, "judge", judged)
    people = roster.read(class_list)
    assert {each.total for each in grade.grade(file, again, people=people, seconds=60)} == {12, 9, 3, 0, None}
    assert executed == []
    shutil.rmtree(again / "autograded" / "Una Touched")
    grade.grade(file, again, people=people, seconds=60)
    assert len(executed) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
def test_a_grading_that_is_killed_leaves_no_process_and_goes_on(taught, tmp_path):
    folder, whole, _, _ = taught
    mine, file = tmp_path / "mine", tmp_path / "three.zip"  # two that run when it is killed, and one that waits
    shutil.copytree(folder, mine)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(file, "w") as three:
        for name in archive.namelist()[:3]:
            three.writestr(name, archive.read(name))
    for made in ("autograded", "feedback", "mended", "grades.csv"):
        shutil.rmtree(mine / made) if (mine / made).is_dir() else (mine / made).unlink()
    command = [sys.executable, "-um", "support", "assign", "grade", str(file), "--course", str(mine), "--jobs", "2", "--seconds", "60"]
    environment = os.environ | {"PYTHONPATH": str(Path(exercises.__file__).parents[2])}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    first = running.stdout.readline().partition(":")[0]
    children = psutil.Process(running.pid).children(recursive=True)
    assert children
    running.kill()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    running.communicate()
    assert first in {row["student"] for row in grade_table.rows(mine)}
    assert {each.total for each in grade.grade(file, mine, seconds=60)} == {12, 9, 3}


def feedback(folder: Path, name: str) -> str:
    row = next(row for row in grade_table.rows(folder) if row["student"] == name)
    return (folder / row["feedback"]).read_text(encoding="utf-8")


def test_feedback_says_what_was_asked_and_the_likely_mistake(taught):
    page = feedback(taught[0], "Jörg Groß")
    for words in ("Write <code>double(number)</code>", "twice any number", "Not met", "A likely mistake: squares", "number<", "Twice"):
        assert words in page, words
    assert "Because" in feedback(taught[0], "Anna Example")
    assert "A likely mistake" not in feedback(taught[0], "Una Touched")


def test_feedback_gives_nothing_away_and_asks_no_server(taught):
    for name in ANSWERS:
        page = re.sub(r"<style.*?</style>", "", feedback(taught[0], name), flags=re.S)
        assert not re.search(r"<script|src=\"http|href=\"http|@import", page)
        for secret in ("-1.5", "1000", "2000", "1e-12", "the empty sum is zero", "abs(root_sum"):
            assert secret not in page, (name, secret)
    said = re.sub(r"<style.*?</style>|<pre>.*?</pre>", "", feedback(taught[0], "Tom Tells"), flags=re.S)
    assert "told" not in said and "your code ended in an error" in said


def test_work_by_hand_counts_and_the_report_says_how_the_exercises_did(taught, tmp_path):
    folder, _, class_list, _ = taught
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    with course.gradebook(mine) as book:
        part = book.find_grade("01-double-derivation", CHAPTER, CHAPTER, "Anna Example")
        part.manual_score, part.needs_manual_grade = 1.5, False
        book.db.commit()
    written = item_analysis.report(mine, roster.read(class_list))
    assert [file.name for file in written] == ["grades.csv", "items.csv", "report.html", "points.csv"]
    row = next(row for row in grade_table.rows(mine) if row["student"] == "Anna Example")
    assert (row["total"], row["max"], row["01/double"], row["notes"]) == ("13.5", "16", "5.5", "")
    items = list(csv.DictReader((mine / "items.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [(item["exercise"], item["max"], item["right"], item["mistakes"]) for item in items] == [
        ("double", "4", "0.20", "squares (2)"), ("root-sum", "8", "0.40", "the visible number (1)"),
    ]  # fmt: skip
    assert float(items[0]["mean"]) == pytest.approx((4 + 1 + 1) / 20, abs=0.005)
    page = written[2].read_text(encoding="utf-8")
    assert "<svg" in page and "squares (2)" in page and not re.search(r"<script|src=\"http", page)
    points = list(csv.DictReader(written[3].read_text(encoding="utf-8-sig").splitlines()))
    assert [(row["ID number"], row[CHAPTER]) for row in points] == [
        ("100", "13.5"), ("101", "9"), ("102", "3"), ("103", "0"), ("104", "0"), ("105", ""),
    ]  # fmt: skip


def test_discrimination_is_the_correlation_with_the_other_exercises():
    def work(double, root_sum):
        points = course.Points({}, {"double": double, "root-sum": root_sum}, {"double": 4, "root-sum": 8}, 12, ())
        return item_analysis.Work(points, judge.Report(), {})

    found = item_analysis.analysed([work(4, 8), work(4, 6), work(1, 2), work(0, 0)])
    assert [item["discrimination"] for item in found] == [f"{22 / (12.75 * 40) ** 0.5:.2f}"] * 2
    assert item_analysis.analysed([work(4, 8), work(4, 2), work(4, 0)])[0]["discrimination"] == ""


def test_the_commands_grade_whatever_the_terminal_knows(taught, tmp_path, monkeypatch):
    folder, file, class_list, _ = taught
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr("sys.stdout", terminal)
    said = {"--course": mine, "--students": class_list, "--seconds": 60, "--jobs": 1}
    assert cli.main(["assign", "grade", str(file), *(str(word) for pair in said.items() for word in pair)]) == 0
    terminal.seek(0)
    assert "J?rg Gro?: 9 of 16" in terminal.read()
    assert cli.main(["assign", "report", "--course", str(mine)]) == 0


# --- lists and names --------------------------------------------------------------------------------------------------------------

CANVAS = 'Student,ID,SIS User ID,SIS Login ID,Section\n"    Points Possible",,,,\n'
CANVAS += '"Example, Anna",12345,s1,aex,1\n"Groß, Jörg",777,s2,jg,1\n"Student, Test",1,,,\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "cp1250", "mac_roman"])
@pytest.mark.parametrize(
    "text",
    ["Anna Example\nJörg Groß\n", "Example, Anna\r\nGroß, Jörg", "Name\rAnna Example\rJörg Groß\r",
     "sep=;\r\nName;Matrikel\r\nAnna Example;1\r\nJörg Groß;777\r\n",
     "Vorname;Nachname;E-Mail-Adresse\nAnna;Example;a@x.de\nJörg;Groß;j@x.de\n", CANVAS,
     "Identifier,Full name,Email address,Status,Grade\nParticipant 12345,Anna Example,a@x.de,,\nParticipant 777,Jörg Groß,j@x.de,,\n"],
)  # fmt: skip
def test_a_class_list_is_read_whoever_wrote_it(text, encoding, tmp_path):
    (tmp_path / "list").write_bytes(text.encode(encoding))
    people = roster.read(tmp_path / "list")
    assert [each.name for each in people] == ["Anna Example", "Jörg Groß"]
    for name in (
        "Jörg Groß",
        "Groß, Jörg",
        "grossjoerg",
        "jorg gross",
        "GROSS JÖRG",
        *(["777"] if "Identifier" in text or "SIS" in text else []),
    ):
        assert roster.match(people, name) is people[1], name
    assert roster.match(people, "Anna") is None


def test_two_who_could_be_meant_are_nobody(tmp_path):
    (tmp_path / "list").write_text("Anna Maria\nMaria Anna\n", encoding="utf-8")
    assert roster.match(roster.read(tmp_path / "list"), "annamaria") is None


def test_points_go_back_to_canvas_and_hold_no_formula(tmp_path):
    (tmp_path / "list.csv").write_text(CANVAS.replace("s1", "=1+1"), encoding="utf-8")
    file = roster.write_points(roster.read(tmp_path / "list.csv"), {"A1": {"Anna Example": 7.5}}, {"A1": 12.0}, tmp_path / "points.csv")
    rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "A1"]
    assert [row[0::5] for row in rows[1:]] == [["    Points Possible", "12"], ["Example, Anna", "7.5"], ["Groß, Jörg", ""]]
    assert rows[2][2] == "'=1+1"


@pytest.mark.parametrize(
    ("name", "student", "also"),
    [
        ("Anna Maria Example_12345_assignsubmission_file_", "Anna Maria Example", ("12345",)),
        ("exampleanna_12345_67890_01_tiny-2", "exampleanna", ("12345",)),
        ("exampleanna_LATE_12345_67890_work", "exampleanna", ("12345",)),
        ("Anna Example", "Anna Example", ()),
        ("anna_example", "anna_example", ()),
    ],
)
def test_names_of_platforms_are_understood(name, student, also, tmp_path, taught):
    notebook.write(course.released(taught[0], CHAPTER), tmp_path / f"{name}.ipynb")
    (found,) = submissions.found(tmp_path)
    assert (found.student, found.also) == (student, also)


def test_two_names_of_one_student_do_not_take_each_other_s_place(tmp_path, taught):
    for name in ("Anna Example", "exampleanna_12345_67890_01_tiny", "Somebody Else"):
        notebook.write(course.released(taught[0], CHAPTER), tmp_path / "in" / f"{name}.ipynb")
    (tmp_path / "list").write_text("Anna Example\n", encoding="utf-8")
    found = submissions.found(tmp_path / "in", roster.read(tmp_path / "list"))
    assert sorted((each.student, each.identity) for each in found) == [
        ("Anna Example", "Anna Example"), ("Anna Example", "Anna Example (2)"), ("Somebody Else", "Somebody Else"),
    ]  # fmt: skip
    assert [each.notes for each in found if each.student == "Somebody Else"] == [("not on the class list",)]


def test_zips_in_a_folder_are_unpacked_and_none_leaves_it(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("ann", "eve"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.writestr("../../escaped.ipynb" if name == "eve" else "work.ipynb", "{}")
    with submissions.opened(folder) as handed_in:
        assert sorted(path.relative_to(handed_in).as_posix() for path in handed_in.rglob("*.ipynb")) == [
            "ann/work.ipynb",
            "eve/escaped.ipynb",
        ]
    assert list(tmp_path.rglob("escaped*")) == []
    (tmp_path / "no.zip").write_text("no", encoding="utf-8")
    with pytest.raises(AssignmentError, match="no zip file"), submissions.opened(tmp_path / "no.zip"):
        pass


# --- answers that are alike -------------------------------------------------------------------------------------------------------

LONG = """def f(x, y):
    total = 0
    for first in x:
        for second in y:
            if first > second and first - second < 3:
                total += first * second - (first + second) / 2
            else:
                total -= abs(first - second) ** 2
    return total / max(1, len(x) * len(y))
"""


def test_renamed_copies_are_found_and_short_or_common_answers_are_not():
    copied = (
        re.sub(r"\bfirst\b", "a", re.sub(r"\btotal\b", "s", LONG))
        .replace("def f(x, y):", 'def f(u, y):\n    """Mine."""  # own work')
        .replace("in x", "in u")
        .replace("len(x)", "len(u)")
    )
    other = (
        "import math\ndef f(x, y):\n    return math.fsum((a * b if 0 < a - b < 3 else -abs(a - b)) for a in x for b in y) / (len(x) or 1)\n"
    )
    handed_in = {"ann": LONG, "bob": copied, "eve": other, "syn": "def f("}
    found = similarity.pairs({name: {"long": code, "short": DOUBLE} for name, code in handed_in.items()})
    assert found == [similarity.Pair("ann", "bob", ("long",))]
    assert similarity.pairs({f"s{number}": {"long": LONG} for number in range(9)}) == []
