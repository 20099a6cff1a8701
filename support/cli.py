"""The command line: ``python -m support``. What takes long to import is imported by the command
that needs it.

Exit status: 0 done; 1 a chapter failed or a check found differences; 2 the request cannot be
    carried out; 130 interrupted.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from support.book.profiles import SIZES, ProfileError, near, parse_override
from support.common import paths

app = typer.Typer(
    name="python -m support",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Run, judge and publish the book.

\b
Examples:
  python -m support list                             what there is, what is recorded, how long it
  takes python -m support run                              every chapter at its quick profile
  python -m support run 01 --set pgd_steps=100       one chapter with a parameter changed
  python -m support run 01 --profile standard --estimate
  python -m support build                            the pages as HTML
  python -m support score                            every claim with its verdicts

Each command explains itself: python -m support run --help
""",
)
data_app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Get or check data sets, in the folder that BOOK_DATA names (default data/sets).",
)
app.add_typer(data_app, name="data")
assign_app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="""Graded assignments from the exercises of the chapters, with nbgrader. The page
    book/teach.md is the manual.

\b
Examples:
  python -m support assign build 01              the instructor's and the student's version
  python -m support assign kit 01                one archive for a student without a network
  python -m support assign grade handed-in       grades.csv and a feedback page for each student
  python -m support assign check 01              are the exercises well formed, does the grading
  work
""",
)
app.add_typer(assign_app, name="assign")


@app.callback()
@data_app.callback()
@assign_app.callback()
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


class Refused(Exception):
    """A request that cannot be carried out; the message is the line that is shown."""


Names = Annotated[
    list[str],
    typer.Argument(
        help="digits, mnist, fashion-mnist, cifar10, cifar100 or svhn", show_default=False
    ),
]


@app.command(name="list")
def list_() -> None:
    """The chapters, their profiles, what is recorded, and how long each takes."""
    from support.book import manifests

    for chapter in _some_chapters():
        typer.echo(
            f"{chapter}: {_title(manifests.source_file(chapter))}"
            + ("" if _in_toc(chapter) else " (not in _toc.yml)")
        )
        for profile in SIZES:
            manifest = manifests.collect(profile).get(chapter)
            state = (
                f"recorded {manifest.finished[:10]}{', with older code' * manifests.is_stale(manifest)}"
                if manifest
                else "not recorded"
            )
            typer.echo(f"  {profile:<9} {state}; {_needs(manifests.estimate(chapter, profile))}")


@app.command()
def run(
    chapters: Annotated[
        list[str] | None,
        typer.Argument(
            help="Chapters by name or by the beginning of it, such as 01; all of them when none is given.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[str, typer.Option(help="quick, standard or paper.")] = "quick",
    seed: Annotated[int, typer.Option(help="First random seed.")] = 0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto for a GPU where there is one.")
    ] = "cpu",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a field of the profile; can be given several times.",
            show_default=False,
        ),
    ] = None,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Only say what it would take in time, memory and disk."),
    ] = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Keep the result in the tracked files: book/ and data/runs/."
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Run again even if nothing has changed since the last run."),
    ] = False,
) -> None:
    """Execute chapters; results land in _build/runs/ and in the cache.

    A run that is killed and started again continues from the models and attacks that were finished.
    A run that would only repeat the last one is not done again. Fields of a profile, with their
    bounds, stand in data/profiles/<chapter>.yml.

    \b
    Examples:
      python -m support run                                      every chapter, quick
      python -m support run 01 --profile standard --estimate     minutes, memory and disk, without
      running python -m support run 01 --profile standard --device auto
      python -m support run 01 --set pgd_steps=100 --set "fgsm_eps=[0.1, 0.2]" --seed 7
      python -m support run 01 --record                          refresh the committed page
    """
    from support.book import manifests

    known = _some_chapters()
    names = list(dict.fromkeys(map(manifests.resolve_chapter, chapters))) if chapters else known
    pairs = [parse_override(change) for change in changes or []]
    overrides = dict(pairs)
    if len(overrides) < len(pairs):
        raise Refused("--set names the same field twice")
    for name in names:
        manifests.check_request(name, profile, seed, overrides, record=record)
    if estimate:
        _print_estimates(names, profile, bool(overrides))
        return
    request = (profile, seed, device, overrides)
    current = (
        {}
        if force
        else {name: found for name in names if (found := manifests.current_run(name, *request))}
    )
    if waiting := [name for name in names if name not in current]:
        from support.book import execute

        for name in waiting:
            execute.check_machine(name, device)
    failed = 0
    for name in names:
        if name in current and not record:
            typer.echo(f"{name} at {profile}: up to date, {_relative(current[name])}")
        else:
            failed += not _execute(
                name, request, record, force, "recording" if name in current else "running"
            )
    if failed:
        raise typer.Exit(1)


def _execute(name: str, request: tuple, record: bool, force: bool, doing: str) -> bool:
    """Run one chapter and say how it went; False if it failed."""
    from support.book import execute

    started, place = time.perf_counter(), f"{name} at {request[0]}"
    typer.echo(f"{place}: {doing} ...", err=True)
    try:
        notebook = execute.execute(name, *request, record=record, force=force)
    except KeyboardInterrupt:
        stopped = f"\ninterrupted: {place} is not finished and left nothing half-written; the same command continues with what the cache has"
        typer.echo(stopped, err=True)
        raise typer.Exit(130) from None
    except execute.ChapterFailed as error:
        typer.echo(str(error), err=True)
        return False
    typer.echo(
        f"{place}: done in {time.perf_counter() - started:.0f} s, {'recorded in ' * record}{_relative(notebook)}"
    )
    return True


def _print_estimates(names: list[str], profile: str, changed: bool) -> None:
    from support.book import manifests

    found = {name: manifests.estimate(name, profile) for name in names}
    for name, needs in found.items():
        typer.echo(f"{name} at {profile}: {_needs(needs)}")
    if len(found) > 1:
        minutes, memory, disk = zip(*(needs[:3] for needs in found.values()), strict=True)
        typer.echo(
            f"all: {_minutes(sum(minutes))}, {max(memory):.1f} GB of memory, {sum(disk):.0f} MB of disk"
        )
    if changed:
        typer.echo("This is for the profile as it stands; what --set changes is not counted.")


@app.command()
def build(
    check: Annotated[
        bool,
        typer.Option(
            help="Compare the built pages with the table of contents and refuse an incomplete book."
        ),
    ] = True,
) -> None:
    """Build the book's pages as HTML, warnings as errors, and print where they are.

    Each chapter is shown with its largest recorded profile, or a fresher run made here. Run the
    chapters first: python -m support run
    """
    from support.book import publish

    typer.echo(publish.build(check=check))


@app.command()
def score(
    write: Annotated[bool, typer.Option("--write", help="Write data/verdicts.csv.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Exit with 1 if records, registry and data/verdicts.csv disagree."
        ),
    ] = False,
    paper: Annotated[
        str, typer.Option(help="Only the claims of this paper, by its key, such as hess2020.")
    ] = "",
    chapter: Annotated[
        str, typer.Option(help="Only those of this chapter, by name or by the beginning of it.")
    ] = "",
    kind: Annotated[
        str, typer.Option(help="Only identity, empirical, robustness or open claims.")
    ] = "",
    verdict: Annotated[
        str, typer.Option(help="Only those with this first verdict, such as refuted.")
    ] = "",
    survives: Annotated[
        str, typer.Option(help="Only those with this second verdict, such as broken.")
    ] = "",
    profile: Annotated[
        str,
        typer.Option(
            help="Where the two verdicts are looked up; else at the best profile of each claim."
        ),
    ] = "",
    find: Annotated[
        str,
        typer.Option(help="Only those whose id, place, statement or correction has these words."),
    ] = "",
    full: Annotated[
        bool,
        typer.Option("--full", help="Show what each claim says, the published numbers and ours."),
    ] = False,
) -> None:
    """Every claim with its verdicts at each profile, computed from the recorded runs.

    \b
    Examples:
      python -m support score
      python -m support score --verdict refuted --paper bell2023
      python -m support score --survives broken --profile standard --full
      python -m support score --check      what the tests check
      python -m support score --write      after recording a run, or changing a rule
    """
    from support.book import verdict_table

    if write:
        typer.echo(f"wrote {_relative(verdict_table.write())}")
    if check:
        problems = verdict_table.check()
        for problem in problems:
            typer.echo(problem, err=True)
        if problems:
            raise typer.Exit(1)
        typer.echo("records, registry and data/verdicts.csv agree")
    if write or check:
        return
    asked = {
        "paper": paper,
        "chapter": chapter,
        "kind": kind,
        "profile": profile,
        "verdict": verdict,
        "survives": survives,
    }
    conditions = _words_of_the_scoreboard(asked)
    entries = verdict_table.entries()
    if not entries:
        raise Refused("the registry data/claims has no claims")
    found = verdict_table.select(verdict_table.lines(entries), text=find, **conditions)
    if full:
        for line in found:
            _print_line(line)
    else:
        rows = [[line.claim.id, *map(_verdict, line.entries)] for line in found]
        widths = [max(map(len, column)) for column in zip(["claim", *SIZES], *rows, strict=True)]
        for row in [["claim", *SIZES], *rows]:
            typer.echo(
                "  ".join(
                    f"{cell:<{space}}" for cell, space in zip(row, widths, strict=True)
                ).rstrip()
            )
    shown = [entry for line in found for entry in line.entries]
    for name, table in [
        *verdict_table.counts(shown).items(),
        ("best of each claim", verdict_table.count(line.best for line in found)),
    ]:
        typer.echo(
            f"{name}: "
            + (", ".join(f"{count} {word}" for word, count in table.items()) or "no claims")
        )
    if len(shown) < len(entries):
        typer.echo(f"shown: {len(found)} of {len(entries) // len(SIZES)} claims")
    if any(entry.stale for entry in shown):
        typer.echo("* recorded with older code")


def _words_of_the_scoreboard(asked: dict[str, str]) -> dict[str, str]:
    """What was asked for, checked: an unknown word would silently select nothing."""
    from support.book import claims, manifests

    known = {
        "paper": list(claims.registry()), "kind": claims.KINDS, "profile": SIZES,
        "verdict": claims.VERDICTS, "survives": claims.SURVIVALS,
    }  # fmt: skip
    for name, words in known.items():
        if asked[name] and asked[name] not in words:
            raise Refused(
                f"unknown {name} {asked[name]!r}: {near(asked[name], words)}there are {', '.join(words)}"
            )
    return (
        asked | {"chapter": manifests.resolve_chapter(asked["chapter"])}
        if asked["chapter"]
        else asked
    )


def _print_line(line) -> None:
    from support.book import claims

    for entry in line.entries:
        if entry.judgement:
            typer.echo(
                f"[{entry.profile}, {entry.chapter}, cell {entry.cell + 1}{', with older code' * entry.stale}]"
            )
            typer.echo(claims.render(entry.claim, entry.judgement).text)
    if not any(entry.judgement for entry in line.entries):
        typer.echo(f"{line.claim.id} ({line.claim.where}): not run")
    typer.echo(f"  says: {line.claim.says}\n")


def _verdict(entry) -> str:
    row = entry.row
    words = " ".join(filter(None, [row["verdict"], row["direction"]]))
    return "; ".join(filter(None, [words, row["survives"]])) + "*" * entry.stale


@app.command()
def diff(
    first: Annotated[
        Path, typer.Argument(help="A manifest (.json) or an executed notebook.", show_default=False)
    ],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
) -> None:
    """What two runs differ in: parameters, versions, machine, code, and each claim's numbers and
    verdicts. Exits with 1 if anything.

    \b
    Example:
      python -m support diff data/runs/quick/01_softmax_kmeans.json
      _build/runs/quick/01_softmax_kmeans.ipynb
    """
    from support.book import manifests, verdict_table

    lines = verdict_table.differences(manifests.manifest_of(first), manifests.manifest_of(second))
    typer.echo("\n".join(lines) or "no differences")
    if lines:
        raise typer.Exit(1)


@data_app.command()
def get(names: Names) -> None:
    """Download data sets that are missing, checksums verified.

    \b
    Example:
      BOOK_DATA=~/datasets python -m support data get mnist cifar10
    """
    from support import data

    for name in _known(data, names):
        typer.echo(data.get(name))


@data_app.command(name="check")
def check_data(names: Names) -> None:
    """Read every file of data sets and compare with the official checksums; downloads nothing.

    \b
    Example:
      python -m support data check mnist
    """
    from support import data

    for name in _known(data, names):
        typer.echo(data.check(name))


Course = Annotated[
    Path | None,
    typer.Option(
        "--course",
        metavar="FOLDER",
        help="The course folder, in nbgrader's layout.",
        show_default="_build/course",
    ),
]
Private = Annotated[
    Path | None,
    typer.Option(
        "--private",
        metavar="FOLDER",
        help="Your own tests, constants and points, laid over the book's.",
        show_default=False,
    ),
]
Students = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A list of students, one a line: each gets a version with another SEED.",
        show_default=False,
    ),
]
OneChapter = Annotated[
    str,
    typer.Argument(
        help="A chapter by name or by the beginning of it, such as 01.", show_default=False
    ),
]
AllOrOne = Annotated[
    str | None,
    typer.Argument(
        help="A chapter by name or by the beginning of it, such as 01; all when none is given.",
        show_default=False,
    ),
]


@assign_app.command(name="build")
def assign_build(
    chapter: AllOrOne = None,
    folder: Course = None,
    private: Private = None,
    students: Students = None,
) -> None:
    """Make the instructor's version (source/) and the student's version (release/) of an
    assignment, in nbgrader's course layout.

    The student's version has no solution and no hidden test. With --students there is also
    release-by-student/, in which the numbers of the exercises differ from student to student; they
    follow from secret.txt in the course folder, which is made once: keep it.

    \b
    Examples:
      python -m support assign build                                   every chapter, into
      _build/course python -m support assign build 01 --course ~/course              where "make
      clean" does not reach python -m support assign build 01 --private ~/my-tests           your
      hidden tests as well python -m support assign build 01 --students class.txt
    """
    from support.book import manifests
    from support.classroom import course, exercises

    names = [manifests.resolve_chapter(chapter)] if chapter else _some_chapters()
    folder = folder or course.default_folder()
    listed = _text(students).splitlines() if students else None
    for name in names:
        assignment = exercises.read(name, private)
        made = course.build(assignment, folder)
        typer.echo(
            f"{name}: {len(assignment.exercises)} exercises, {assignment.points} points, {_relative(made)}"
        )
        if listed is not None:
            typer.echo(
                f"{name}: {len(course.release_to(listed, folder, name))} students, {_relative(folder / course.PERSONAL)}"
            )


@assign_app.command(name="kit")
def assign_kit(
    chapter: OneChapter,
    folder: Course = None,
    students: Students = None,
) -> None:
    """Make one archive for students without a network: notebook, package, the chapter's pages,
    environment files, a README.

    The assignment is the one in the course folder, with its private tests and points; it is made
    from the book where it is missing. The page shows the chapter's largest recorded run, without
    the solutions. With --students everybody gets an archive of their own.

    \b
    Examples:
      python -m support assign kit 01
      _build/course/kits/01_softmax_kmeans.zip python -m support assign kit 01 --students class.txt
         one for each student, with other numbers
    """
    from support.book import manifests
    from support.classroom import course, exercises, kit

    folder, chapter = folder or course.default_folder(), manifests.resolve_chapter(chapter)
    if chapter not in course.made(folder):
        course.build(exercises.read(chapter), folder)
    for made in kit.pack(chapter, folder, _text(students).splitlines() if students else None):
        typer.echo(f"{_relative(made)}, {made.stat().st_size / 1e6:.1f} MB")


@assign_app.command(name="grade")
def assign_grade(
    submissions: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="What was handed in: a notebook or a folder for each student."
        ),
    ],
    folder: Course = None,
    chapter: Annotated[
        str, typer.Option(help="Grade this assignment only.", show_default=False)
    ] = "",
    due: Annotated[
        str,
        typer.Option(help='When it was due, such as "2026-03-01 12:00 UTC".', show_default=False),
    ] = "",
    seconds: Annotated[
        int, typer.Option(min=1, help="Time for one cell; a cell that needs more gets no points.")
    ] = 6,
) -> None:
    """Grade a folder of submissions: grades.csv, a feedback page for each student, and nbgrader's
    gradebook, all in the course folder.

    FOLDER holds anna.ipynb, ben.ipynb, ...; or anna/, ben/, ... with notebooks in them, as nbgrader
    and learning platforms give; or it is a course folder with submitted/. What cannot be graded has
    a line that says why, and stops nothing. The grades are read from the gradebook. Assignments
    that the course folder lacks are made from the book first.

    \b
    Examples:
      python -m support assign grade handed-in
      python -m support assign grade handed-in --course ~/course --chapter 01 --seconds 10
      python -m support assign grade ~/course --course ~/course --due "2026-03-01 12:00 UTC"
    """
    from support.book import manifests
    from support.classroom import course, exercises, grade

    folder = folder or course.default_folder()
    chapter = manifests.resolve_chapter(chapter) if chapter else ""
    if not (chapter in course.made(folder) if chapter else course.made(folder)):
        for name in [chapter] if chapter else _some_chapters():
            course.build(exercises.read(name), folder)
    found = grade.grade(submissions, folder, chapter=chapter, due=due, seconds=seconds)
    for each in found:
        points = "-" if each.total is None else f"{each.total:g} of {each.most:g}"
        typer.echo(
            "  ".join(
                filter(None, [f"{each.student}: {points}", each.chapter, "; ".join(each.notes)])
            )
        )
    typer.echo(f"wrote {_relative(grade.write_csv(found, folder / grade.CSV))}")


@assign_app.command(name="check")
def assign_check(
    chapter: AllOrOne = None,
    private: Private = None,
    lint: Annotated[
        bool, typer.Option("--lint", help="Only look at the cells; execute nothing.")
    ] = False,
) -> None:
    """Are the exercises well formed, and does the grading work? Exits with 1 if not.

    The instructor's solution must get full marks, the untouched notebook none, and each answer of
    tests/wrong_answers/ its points. With --private the wrong answers are not handed in: your points
    differ from the book's.

    \b
    Examples:
      python -m support assign check 01 --lint
      python -m support assign check 01
      python -m support assign check 01 --private ~/my-tests
    """
    import tempfile

    from support.book import manifests
    from support.classroom import exercises, self_check

    problems = []
    for name in [manifests.resolve_chapter(chapter)] if chapter else _some_chapters():
        assignment = exercises.read(name, private)
        wrong, found = ([], []) if private else exercises.wrong_answers(assignment)
        problems += [f"{name}: {problem}" for problem in found]
        if lint:
            typer.echo(
                f"{name}: {len(assignment.exercises)} exercises, {assignment.points} points, {len(wrong)} wrong answers"
            )
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="assign-check-") as temporary:
            results = self_check.outcomes(assignment, wrong, Path(temporary))
        bad = [str(each) for each in results if each.got != each.wanted]
        problems += bad
        typer.echo(
            f"{name}: {len(results) - len(bad)} of {len(results)} answers get their points, {time.perf_counter() - started:.0f} s"
        )
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)


def _text(file: Path) -> str:
    if not file.is_file():
        raise Refused(f"there is no file {file}")
    return file.read_text(encoding="utf-8-sig")


def _known(data, names: list[str]) -> list[str]:
    for name in names:
        if name not in data.NAMES:
            raise Refused(
                f"unknown data set {name!r}: {near(name, data.NAMES)}there are {', '.join(data.NAMES)}"
            )
    return names


def _some_chapters() -> list[str]:
    from support.book import manifests

    if not (known := manifests.chapters()):
        raise Refused(f"no chapters: {paths.root() / 'book'} holds no NN_name.py")
    return known


def _title(source: Path) -> str:
    lines = source.read_text(encoding="utf-8").splitlines()
    return next(
        (line.removeprefix("# # ").strip() for line in lines if line.startswith("# # ")), ""
    )


def _in_toc(chapter: str) -> bool:
    return f"book/{chapter}" in (paths.root() / paths.MARKER).read_text(encoding="utf-8")


def _minutes(minutes: float) -> str:
    return (
        f"{minutes * 60:.0f} s"
        if minutes < 1
        else f"{minutes:.0f} min"
        if minutes < 120
        else f"{minutes / 60:.1f} h"
    )


def _needs(needs) -> str:
    return f"about {_minutes(needs.minutes)}, {needs.memory_gb:.1f} GB of memory, {needs.disk_mb:.0f} MB of disk ({needs.source})"


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _user_errors() -> tuple[type[Exception], ...]:
    """The errors that say in one line what is wrong with a request; only those whose modules were
    imported can have been raised."""
    names = {
        "support.classroom.exercises": "AssignmentError", "support.book.computed_pages": "BoardError", "support.common.cache": "CacheError",
        "support.book.claims": "ClaimError", "support.data": "DataError", "support.book.publish": "PublishError",
        "support.book.manifests": "RecordError", "support.book.chapter_run": "RunError",
    }  # fmt: skip
    loaded = [
        getattr(sys.modules[module], name, None)
        for module, name in names.items()
        if module in sys.modules
    ]
    return (Refused, ProfileError, *filter(None, loaded))


def main(arguments: list[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit status."""
    try:
        status = app(args=arguments, prog_name="python -m support", standalone_mode=False)
    except Exception as error:
        # typer and click each have a class for usage errors, depending on their versions; both
        # format themselves.
        if hasattr(error, "format_message"):
            message = error.format_message()
        elif isinstance(error, (*_user_errors(), FileNotFoundError)):
            message = str(error)
        else:
            raise
        typer.echo(f"error: {' '.join(message.split())}", err=True)
        return 2
    return status if isinstance(status, int) else 0
