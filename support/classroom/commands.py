"""The commands ``python -m support assign ...``. What takes long to import is imported by the
command that needs it."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from support.common import paths

assign_app = typer.Typer(name="assign", invoke_without_command=True, rich_markup_mode=None)
_A_CHAPTER = "A chapter by name or by the beginning of it, such as 01"
OneChapter = Annotated[str, typer.Argument(help=f"{_A_CHAPTER}.", show_default=False)]
AllOrOne = Annotated[
    str | None, typer.Argument(help=f"{_A_CHAPTER}; all when none is given.", show_default=False)
]


def _path(flag: str, metavar: str, text: str, default: str | bool = False):
    """The annotation of an option that names a file or folder."""
    option = typer.Option(flag, metavar=metavar, help=text, show_default=default)
    return Annotated[Path | None, option]


Course = _path("--course", "FOLDER", "The course folder, in nbgrader's layout.", "_build/course")
Private = _path("--private", "FOLDER", "Your own tests and points, laid over the book's.")
_LIST = "The class, one name a line or as Moodle and Canvas export it"
Students = _path("--students", "FILE", f"{_LIST}: each gets a version of their own.")
Roster = _path("--students", "FILE", f"{_LIST}: shows who handed in nothing.")
Derivation = Annotated[int, typer.Option(min=0, help="Points for each derivation, given by hand.")]
Jobs = Annotated[int, typer.Option(min=0, help="Submissions at a time; 0: one for each core.")]
Lint = Annotated[bool, typer.Option("--lint", help="Only look at the cells; execute nothing.")]
Seconds = Annotated[int, typer.Option(min=1, help="Time that one cell of a student may compute.")]
Submissions = Annotated[Path, typer.Argument(metavar="FOLDER", help="What was handed in.")]
Only = Annotated[str, typer.Option(help="Grade this assignment only.", show_default=False)]
Due = Annotated[str, typer.Option(help='When it was due: "2026-03-01 12:00 UTC".')]


@assign_app.callback()
def assign(context: typer.Context) -> None:
    """Graded assignments from the exercises of the chapters, with nbgrader. The page book/teach.md
    is the manual.

    \b
    Examples:
      python -m support assign build 01          the instructor's and the student's version
      python -m support assign kit 01            one archive for a student without a network
      python -m support assign grade handed-in   grades.csv and a feedback page for each student
      python -m support assign check 01          are the exercises well formed, does grading work
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@assign_app.command()
def build(
    chapter: AllOrOne = None,
    folder: Course = None,
    private: Private = None,
    students: Students = None,
    derivation: Derivation = 0,
) -> None:
    """Make the instructor's version (source/) and the student's version (release/) of an
    assignment, in nbgrader's course layout.

    The student's version has no solution and no hidden test. Each exercise has a cell for the
    derivation, which is graded by hand in nbgrader's Formgrader. With --students there is also
    release-by-student/, in which the numbers of the exercises differ from student to student; they
    follow from secret.txt in the course folder, which is made once: keep it.

    \b
    Examples:
      python -m support assign build                           every chapter, into _build/course
      python -m support assign build 01 --course ~/course      where "make clean" does not reach
      python -m support assign build 01 --private ~/my-tests   your hidden tests as well
      python -m support assign build 01 --students class.txt
    """
    from support.classroom import course, exercises

    folder, listed = folder or course.default_folder(), _people(students)
    for name in _chosen(chapter):
        assignment = exercises.read(name, private)
        made = _shown(course.build(assignment, folder, derivation))
        count = f"{len(assignment.exercises)} exercises, {assignment.points} points"
        typer.echo(f"{name}: {count}, {made}")
        if listed:
            count = len(course.release_to(listed, folder, name))
            typer.echo(f"{name}: {count} students, {_shown(folder / course.PERSONAL)}")


@assign_app.command()
def kit(chapter: OneChapter, folder: Course = None, students: Students = None) -> None:
    """Make one archive for students without a network: notebook, package, the chapter's pages,
    environment files, a README.

    The assignment is the one in the course folder, with its private tests and points; it is made
    from the book where it is missing. The pages show the chapter's largest recorded run, without
    the solutions. With --students everybody gets an archive of their own.

    \b
    Examples:
      python -m support assign kit 01                       _build/course/kits/01_softmax_kmeans.zip
      python -m support assign kit 01 --students class.txt  one for each, with other numbers
    """
    from support.classroom import course
    from support.classroom import kit as archive

    folder, (name,) = folder or course.default_folder(), _chosen(chapter)
    course.make_missing([name], folder)
    for made in archive.pack(name, folder, _people(students)):
        typer.echo(f"{_shown(made)}, {made.stat().st_size / 1e6:.1f} MB")


@assign_app.command()
def grade(
    submissions: Submissions,
    folder: Course = None,
    chapter: Only = "",
    due: Due = "",
    seconds: Seconds = 6,
    students: Roster = None,
    jobs: Jobs = 0,
) -> None:
    """Grade what was handed in: grades.csv, a feedback page for each student, nbgrader's gradebook,
    and what report makes, all in the course folder.

    FOLDER holds anna.ipynb, ben.ipynb, ...; or anna/, ben/, ... with notebooks in them; or it is
    what Moodle or Canvas gives, a zip or unpacked; or a course folder with submitted/. What cannot
    be graded has a line that says why, and stops nothing. Each line of grades.csv is written as
    soon as it is known, and no other line is lost; a grading that was stopped goes on when it is
    called again. Assignments that the course folder lacks are made from the book first.

    \b
    Examples:
      python -m support assign grade handed-in
      python -m support assign grade moodle.zip --course ~/course --students participants.csv
      python -m support assign grade handed-in --course ~/course --chapter 01 --seconds 10
      python -m support assign grade ~/course --course ~/course --due "2026-03-01 12:00 UTC"
    """
    from support.book import parallel
    from support.classroom import course, sandbox
    from support.classroom import grade as grading

    folder, people = folder or course.default_folder(), _people(students)
    name = _chosen(chapter)[0] if chapter else ""
    if name or not course.made(folder):
        course.make_missing(_chosen(chapter), folder)
    if missing := sandbox.weakness():
        typer.echo(f"note: {missing}", err=True)

    def tell(each: grading.Submission) -> None:
        points = "-" if each.total is None else f"{each.total:g} of {each.most:g}"
        said = [f"{each.student}: {points}", each.chapter, "; ".join(each.notes)]
        _say("  ".join(filter(None, said)))

    chosen = {"chapter": name, "due": due, "seconds": seconds, "people": people}
    grading.grade(submissions, folder, **chosen, jobs=jobs or parallel.cores(), tell=tell)
    _report(folder, people)


@assign_app.command()
def report(folder: Course = None, students: Roster = None) -> None:
    """What was graded so far: grades.csv with the points of today's gradebook, a page on how each
    exercise did, and the class list with the points.

    Call it again after you have graded derivations by hand. items.csv and report.html have, for
    each exercise, the share that was right, how well it tells good work from bad, the time it took
    and the known mistakes that were made, and name submissions that are alike. With --students,
    points.csv is that list with a column for each assignment; Moodle and Canvas import it.

    \b
    Examples:
      python -m support assign report --course ~/course
      python -m support assign report --course ~/course --students canvas-export.csv
    """
    from support.classroom import course

    _report(folder or course.default_folder(), _people(students))


def _report(folder: Path, people) -> None:
    from support.classroom import item_analysis

    for file in item_analysis.report(folder, people):
        _say(f"wrote {_shown(file)}")


def _say(line: str) -> None:
    """A line on the terminal, whatever characters that knows."""
    encoding = sys.stdout.encoding or "ascii"
    typer.echo(line.encode(encoding, "replace").decode(encoding))


@assign_app.command()
def check(chapter: AllOrOne = None, private: Private = None, lint: Lint = False) -> None:
    """Are the exercises well formed, and does the grading work? Exits with 1 if not.

    The instructor's solution must get full marks, the untouched notebook and functions that return
    nothing none, and each answer of tests/wrong_answers/ its points. With --private the wrong
    answers are not handed in: your points differ from the book's.

    \b
    Examples:
      python -m support assign check 01 --lint
      python -m support assign check 01
      python -m support assign check 01 --private ~/my-tests
    """
    from support.classroom import exercises, self_check, wrong_answers

    problems = []
    for name in _chosen(chapter):
        assignment = exercises.read(name, private)
        wrong, found = ([], []) if private else wrong_answers.read(assignment)
        problems += [f"{name}: {problem}" for problem in found]
        if lint:
            count = f"{len(assignment.exercises)} exercises, {assignment.points} points"
            typer.echo(f"{name}: {count}, {len(wrong)} wrong answers")
            continue
        started = time.perf_counter()
        results = self_check.outcomes(assignment, wrong)
        bad = [str(each) for each in results if each.got != each.wanted]
        problems += bad
        good = f"{len(results) - len(bad)} of {len(results)} answers get their points"
        typer.echo(f"{name}: {good}, {time.perf_counter() - started:.0f} s")
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)


def _chosen(chapter: str | None) -> list[str]:
    """The chapter that a request names by its beginning; all that have exercises if it names
    none."""
    from support.book import manifests
    from support.classroom import cells

    known = [manifests.resolve_chapter(chapter)] if chapter else cells.chapters()
    if not known:
        raise cells.AssignmentError(f"no exercises: {paths.root() / 'book'} has no chapter")
    return known


def _people(file: Path | None):
    from support.classroom import roster

    return roster.read(file) if file else ()


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
