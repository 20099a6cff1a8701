"""The command line: ``python -m support``. What takes long to import is imported by the command
that needs it.

Exit status: 0 done; 1 a chapter failed or a check found differences; 2 the request cannot be
carried out; 130 interrupted. A command returns its own; one that returns nothing is done.
"""

import contextlib
import fnmatch
import functools
import io
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from support.book import manifests, markup
from support.book.profiles import SIZES, Estimate, near, parse_override
from support.classroom.commands import assign_app
from support.common import files, paths

app = typer.Typer(
    name="python -m support",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Run, judge and publish the book.

\b
Examples:
  python -m support list                             what there is, what is recorded
  python -m support run                              every chapter at its quick profile
  python -m support run 01 --set pgd_steps=100       one chapter with a parameter changed
  python -m support run 01 --profile standard --estimate
  python -m support build                            the pages as HTML
  python -m support score                            every claim with its verdicts
  python -m support assign build 01                  a chapter's exercises as an assignment

Each command explains itself: python -m support run --help
""",
)
data_app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Get or check data sets and published networks, in the folder that BOOK_DATA names "
    "(default data/sets).",
)
app.add_typer(data_app, name="data")
app.add_typer(assign_app, name="assign")


@app.callback()
@data_app.callback()
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


class Refused(Exception):
    """A request that cannot be carried out; the message is the line that is shown."""


_SETS = (
    "digits, mnist, fashion-mnist, cifar10, cifar100 or svhn; published networks such as "
    "cifar10/resnet20, or a pattern such as 'mnist/*'."
)
Names = Annotated[list[str], typer.Argument(help=_SETS, show_default=False)]
_CHAPTERS = "Chapters by name or by the beginning of it, such as 01; all when none is given."
Chapters = Annotated[list[str] | None, typer.Argument(help=_CHAPTERS, show_default=False)]
_MANIFEST = "A manifest (.json) or an executed notebook."
Run = Annotated[Path, typer.Argument(help=_MANIFEST, show_default=False)]


def _option(text: str, *flags: str, **more: Any) -> Any:
    return typer.Option(*flags, help=text, **more)


@app.command(name="list")
def list_() -> int:
    """The chapters, their profiles, what is recorded, and how long each takes."""
    toc = (paths.root() / paths.MARKER).read_text(encoding="utf-8")
    wrong = False
    for chapter in _chosen(None):
        listed = "" if f"book/{chapter}/" in toc else " (not in _toc.yml)"
        typer.echo(f"{chapter}: {manifests.title(chapter)}{listed}")
        try:
            manifests.check_source(chapter)
            for profile in SIZES:
                state = "not recorded"
                if manifest := manifests.collect(profile).get(chapter):
                    older = ", with older code" * manifests.is_stale(manifest)
                    state = f"recorded {manifest.finished[:10]}{older}"
                needs = _needs(manifests.estimate(chapter, profile))
                typer.echo(f"  {profile:<9} {state}; {needs}")
        except Exception as error:
            typer.echo(f"  {_told(error)}", err=True)
            wrong = True
    return int(wrong)


_CHANGE = "Change a field of the profile; can be given several times."
_JOBS = (
    "Chapters at a time; 0: as many as the cores and the memory carry at quick, one at a time at "
    "the other profiles, which use all cores themselves."
)


@app.command()
def run(
    chapters: Chapters = None,
    profile: Annotated[str, _option("quick, standard or paper.")] = "quick",
    seed: Annotated[int, _option("First random seed.")] = 0,
    device: Annotated[str, _option("cpu, cuda, or auto for a GPU where there is one.")] = "cpu",
    changes: Annotated[list[str] | None, _option(_CHANGE, "--set", metavar="NAME=VALUE")] = None,
    jobs: Annotated[int, _option(_JOBS, min=0)] = 0,
    part: Annotated[str, _option("Only the evidence, the lesson or the exercises.")] = "",
    limit: Annotated[float, _option("Minutes for a chapter; 0: as long as it takes.", min=0)] = 0,
    estimate: Annotated[bool, _option("Only say what it would take.", "--estimate")] = False,
    record: Annotated[bool, _option("Keep the results in the tracked files.", "--record")] = False,
    force: Annotated[bool, _option("Run again even if nothing changed.", "--force")] = False,
) -> int:
    """Execute chapters: evidence, lesson, exercises; results land in _build/runs/ and the cache.

    A run that is killed and started again continues from the models and attacks that were finished.
    A run that would only repeat the last one is not done again. Fields of a profile, with their
    bounds, stand in data/profiles/<chapter>.yml.

    \b
    Examples:
      python -m support run                                every chapter, quick, side by side
      python -m support run 01 --profile standard --estimate
      python -m support run 01 --profile standard --device auto
      python -m support run 01 --set pgd_steps=100 --set "fgsm_eps=[0.1, 0.2]" --seed 7
      python -m support run 01 --record                    refresh the committed pages
    """
    names = _chosen(chapters)
    pairs = [parse_override(change) for change in changes or []]
    overrides = dict(pairs)
    if len(overrides) < len(pairs):
        raise Refused("--set names the same field twice")
    if part not in ("", *manifests.PARTS):
        there = ", ".join(manifests.PARTS)
        raise Refused(f"unknown part {part!r}: {near(part, manifests.PARTS)}there are {there}")
    if estimate:
        for name in names:
            manifests.check_request(name, profile, seed, overrides)
        _print_estimates(names, profile, bool(overrides))
        return 0
    request = (profile, seed, device, overrides)
    from support.book import execute, kernels, parallel

    waiting, failed = {}, 0
    for name in names:
        try:
            manifests.check_request(name, profile, seed, overrides, record=record)
            parts = execute.wanted_parts(name, profile, part)
            again = record or force
            if again or not all(execute.finished_run(name, each, *request) for each in parts):
                waiting[name] = execute.check_machine(name, profile, device, overrides)
            else:
                typer.echo(f"{name} at {profile}: up to date")
        except Exception as error:  # a chapter that cannot run does not stop the others
            if failed == len(names) - 1:
                raise
            typer.echo(_told(error), err=True)
            failed += 1
    if not waiting:
        return int(failed > 0)
    beside = min(jobs or (parallel.cores() if profile == "quick" else 1), len(waiting))
    options = {"record": record, "force": force, "only": part, "limit": limit, "bars": beside == 1}
    doing = "recording" if record else "running"

    def task(name: str) -> str:
        typer.echo(f"{name} at {profile}: {doing} ...", err=True)
        started = time.perf_counter()
        made = execute.execute(name, *request, sums=waiting[name], **options)
        where = f"{'recorded in ' * record}{manifests.shown(made[0].parent)}"
        return f"{name} at {profile}: done in {time.perf_counter() - started:.0f} s, {where}"

    found = {name: manifests.estimate(name, profile) for name in waiting}
    needs = {name: (needed.minutes, needed.memory_gb) for name, needed in found.items()}
    tasks = {name: functools.partial(task, name) for name in waiting}
    running = parallel.run(tasks, needs, beside, parallel.free_memory_gb(), kernels.stop)
    try:
        # Closed here: collected later, it would stop the kernels of whatever runs by then.
        with contextlib.closing(running):
            for _, done in running:
                try:
                    typer.echo(done.result())
                except Exception as error:
                    typer.echo(_told(error), err=True)
                    failed += 1
    except KeyboardInterrupt:
        stopped = f"\ninterrupted: {', '.join(waiting)} at {profile}: nothing is half-written"
        typer.echo(f"{stopped}; {execute.CONTINUES}", err=True)
        return 130
    return int(failed > 0)


def _print_estimates(names: list[str], profile: str, changed: bool) -> None:
    found = {name: manifests.estimate(name, profile) for name in names}
    for name, needs in found.items():
        typer.echo(f"{name} at {profile}: {_needs(needs)}")
    if len(found) > 1:
        minutes, memory, disk, _ = zip(*map(dict.values, map(dict, found.values())), strict=True)
        total = f"{max(memory):.1f} GB of memory, {sum(disk):.0f} MB of disk"
        typer.echo(f"one after the other: {manifests.duration(60 * sum(minutes))}, {total}")
    if changed:
        typer.echo("This is for the profile as it stands; what --set changes is not counted.")


@app.command()
def build(
    pdf: Annotated[bool, _option("Also print them into one file, with a Chromium.")] = False,
) -> None:
    """Build the book's pages as HTML, warnings as errors, and say where they are.

    Each part of a chapter is shown with its largest recorded profile, or a fresher run made here.
    Run the chapters first: python -m support run
    """
    from support.book import printed, publish

    typer.echo(publish.build())
    if pdf:
        out = paths.output() / "book.pdf"
        count = printed.write(paths.output() / "book", publish.pages(), out)
        typer.echo(f"{out}: {count} sheets")


@app.command(name="new-chapter")
def new_chapter(
    name: Annotated[str, typer.Argument(help="Of its folder, such as 09_margins.")],
    paper: Annotated[str, _option("Key of its paper, such as author2024.")],
    title: Annotated[str, _option("Of its lesson.")],
) -> None:
    """Begin a chapter: three parts, parameters and a claim, which run and build as they are.

    \b
    Example:
      python -m support new-chapter 09_margins --paper author2024 --title "Margins"
    """
    from support.book import new_chapter as beginning

    for file in beginning.make(name, paper, title):
        typer.echo(manifests.shown(file))
    typer.echo(f"next: python -m support run {name[:2]}")


@app.command()
def score(
    write: Annotated[bool, _option("Write data/verdicts.csv.", "--write")] = False,
    check: Annotated[
        bool, _option("Exit with 1 where records and table differ.", "--check")
    ] = False,
    find: Annotated[str, _option("Only claims with all these words, also of verdicts.")] = "",
    full: Annotated[
        bool, _option("Show statements, published numbers and ours.", "--full")
    ] = False,
) -> int:
    """Every claim with its verdicts at each profile, computed from the recorded runs.

    The scoreboard page and its CSV and JSON have more ways to look.

    \b
    Examples:
      python -m support score --find "bell2023 refuted" --full
      python -m support score --check      what the tests check
      python -m support score --write      after recording a run, or changing a rule
    """
    from support.book import verdict_table

    if write:
        typer.echo(f"wrote {manifests.shown(verdict_table.write())}")
    if check:
        if problems := verdict_table.check():
            typer.echo("\n".join(problems), err=True)
            return 1
        typer.echo("records, registry and data/verdicts.csv agree")
    if write or check:
        return 0
    words = find.lower().split()
    if not (every := verdict_table.lines()):
        raise Refused("the registry data/claims has no claims")
    lines = [line for line in every if all(word in _searched(line) for word in words)]
    rows = [["claim", *SIZES], *([line.claim.id, *map(_verdict, line.entries)] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = {"lines": lines, "full": full, "rows": rows, "widths": widths}
    typer.echo(markup.fill("score.txt.j2", counts=verdict_table.counts(lines), **shown))
    return 0


def _searched(line) -> str:
    claim, rows = line.claim, (entry.row for entry in line.entries)
    words = [word for row in rows for word in row.values()]
    true = claim.erratum.text if claim.erratum else ""
    told = [claim.id, claim.kind, claim.where, claim.says, true, claim.remark, *words]
    return " ".join(told).lower()


def _verdict(entry) -> str:
    row = entry.row
    words = " ".join(filter(None, [row["verdict"], row["direction"]]))
    return "; ".join(filter(None, [words, row["survives"]])) + "*" * entry.stale


@app.command()
def diff(first: Run, second: Run) -> int:
    """What two runs differ in: parameters, versions, machine, code, and each claim's numbers and
    verdicts. Exits with 1 if anything.

    \b
    Example:
      python -m support diff data/runs/quick/01_softmax_kmeans/evidence.json
      _build/runs/quick/01_softmax_kmeans/evidence.json
    """
    from support.book import verdict_table

    pair = manifests.manifest_of(first), manifests.manifest_of(second)
    lines = verdict_table.differences(*pair)
    typer.echo("\n".join(lines) or "no differences")
    return int(bool(lines))


_MINUTES = "For each of three runs at the records' own profile, however far they come."


@app.command()
def carry(
    chapters: Chapters = None,
    profile: Annotated[str, _option("Of the records.")] = "standard",
    minutes: Annotated[float, _option(_MINUTES, min=0.1)] = 10,
) -> int:
    """Keep records through a refactoring: stamp those whose numbers the new code computes as well.

    Each chapter's evidence runs at quick under the record's commit and under today's, and a sample
    of its units of work at the record's own profile; see support/book/carry.py for what must be the
    same. Exits with 1 if a record stays stale.

    \b
    Example:
      python -m support carry 01
    """
    from support.book import carry as carrying

    left = False
    for name in _chosen(chapters):
        try:
            tried = carrying.carry(name, profile, minutes).units
            told = f" ({tried} units of work compared)" if tried else ""
            typer.echo(f"{name} at {profile}: carried to today's code{told}")
        except carrying.NotCarried as error:
            typer.echo(f"not carried: {error}", err=True)
            left = True
    return int(left)


@app.command()
def calibrate() -> None:
    """Check the attackers against properties that verifiers have settled and beside other
    libraries, and write the numbers of the page "Do our attacks work?" to data/calibration.json.

    Needs the networks and properties of VNN-COMP 2021, MNIST and CIFAR-10 under BOOK_DATA, and the
    extra tests (foolbox); takes about half an hour of one core.

    \b
    Example:
      BOOK_DATA=~/datasets python -m support calibrate
    """
    from support.book import calibration_page

    typer.echo(calibration_page.write(typer.echo))


@data_app.command()
def get(names: Names) -> None:
    """Download data sets and published networks that are missing, checksums verified.

    \b
    Examples:
      BOOK_DATA=~/datasets python -m support data get mnist cifar10
      python -m support data get cifar10/resnet20 "*/provable*"
    """
    for source, name in _known(names):
        typer.echo(source.get(name))


@data_app.command(name="check")
def check_data(names: Names) -> None:
    """Read every file of data sets and published networks, and compare with the official
    checksums; downloads nothing.

    \b
    Example:
      python -m support data check mnist
    """
    for source, name in _known(names):
        typer.echo(source.check(name))


def _known(names: list[str]) -> list[tuple[Any, str]]:
    """The data sets and networks of that name or pattern, each with the module that gets it."""
    from support import data
    from support.models import published

    home = dict.fromkeys(data.NAMES, data) | dict.fromkeys(published.NETWORKS, published)
    found: list[tuple[Any, str]] = []
    for name in names:
        if not (fitting := fnmatch.filter(home, name)):
            known = ", ".join(data.NAMES)
            raise Refused(
                f"unknown data set {name!r}: {near(name, home)}there are {known}, and the networks "
                f"{', '.join(published.NETWORKS)}"
            )
        found += [(home[one], one) for one in fitting]
    return found


def _chosen(chapters: list[str] | None) -> list[str]:
    """The chapters of these names, each once; all where none is given."""
    if not (known := manifests.chapters()):
        raise Refused(f"no chapters: {paths.root() / 'book'} holds no NN_name/evidence.py")
    return list(dict.fromkeys(map(manifests.resolve_chapter, chapters))) if chapters else known


def _needs(needs: Estimate) -> str:
    room = f"{needs.memory_gb:.1f} GB of memory, {needs.disk_mb:.0f} MB of disk"
    return f"about {manifests.duration(60 * needs.minutes)}, {room} ({needs.source})"


def _told(error: Exception) -> str:
    """The line that says what is wrong with a request or a file; any other error is raised."""
    # typer and click each have a class for usage errors, depending on their versions; both format
    # themselves, and every class of ours says in one line what is wrong.
    if hasattr(error, "format_message"):
        message = error.format_message()
    elif type(error).__module__.startswith("support."):
        message = str(error)
    elif isinstance(error, OSError):
        message = files.trouble(error)
    else:
        raise error
    return f"error: {' '.join(message.split())}"


def main(arguments: list[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit status."""
    for stream in (sys.stdout, sys.stderr):  # what the terminal's encoding lacks is a question mark
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = app(args=arguments, prog_name="python -m support", standalone_mode=False)
    except Exception as error:
        typer.echo(_told(error), err=True)
        return 2
    return status if isinstance(status, int) else 0
