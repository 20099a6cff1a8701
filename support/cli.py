"""The command line: ``python -m support``. What takes long to import is imported by the command that needs it.

Exit status: 0 done; 1 a chapter failed or a check found differences; 2 the request cannot be carried out; 130 interrupted.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from support import paths
from support.profiles import SIZES, ProfileError, load, near, parse_override

app = typer.Typer(
    name="python -m support",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Run, judge and publish the book.

\b
Examples:
  python -m support list                             what there is, what is recorded, how long it takes
  python -m support run                              every chapter at its quick profile
  python -m support run 01 --set pgd_steps=100       one chapter with a parameter changed
  python -m support run 01 --profile standard --estimate
  python -m support build                            the pages as HTML
  python -m support score                            every claim with its verdicts

Each command explains itself: python -m support run --help
""",
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Get or check data sets, in the folder that BOOK_DATA names (default data/sets).")
app.add_typer(data_app, name="data")


class Refused(Exception):
    """A request that cannot be carried out; the message is the line that is shown."""


Names = Annotated[list[str], typer.Argument(help="digits, mnist, fashion-mnist, cifar10, cifar100 or svhn", show_default=False)]


@app.command(name="list")
def list_() -> None:
    """The chapters, their profiles, what is recorded, and how long each takes."""
    from support import runner

    _some_chapters(runner)
    for chapter in runner.chapters():
        typer.echo(f"{chapter}: {_title(runner.source_file(chapter))}" + ("" if _in_toc(chapter) else " (not in _toc.yml)"))
        for profile in SIZES:
            found = runner.estimate(chapter, profile)
            manifest = runner.collect(profile).get(chapter)
            state = "not recorded"
            if manifest:
                state = f"recorded {manifest.finished[:10]}" + (", with older code" if runner.is_stale(manifest) else "")
            typer.echo(f"  {profile:<9} {state}; {_needs(found)}")


@app.command()
def run(
    chapters: Annotated[list[str] | None, typer.Argument(help="Chapters by name or by the beginning of it, such as 01; all of them when none is given.", show_default=False)] = None,
    profile: Annotated[str, typer.Option(help="quick, standard or paper.")] = "quick",
    seed: Annotated[int, typer.Option(help="First random seed.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU where there is one.")] = "cpu",
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a field of the profile; can be given several times.", show_default=False)] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say what it would take in time, memory and disk.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Keep the result in the tracked files: book/ and data/runs/.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run again even if nothing has changed since the last run.")] = False,
) -> None:
    """Execute chapters; results land in _build/runs/ and in the cache.

    A run that is killed and started again continues from the models and attacks that were finished. A run that would only repeat
    the last one is not done again. Fields of a profile, with their bounds, stand in data/profiles/<chapter>.yml.

    \b
    Examples:
      python -m support run                                      every chapter, quick
      python -m support run 01 --profile standard --estimate     minutes, memory and disk, without running
      python -m support run 01 --profile standard --device auto
      python -m support run 01 --set pgd_steps=100 --set "fgsm_eps=[0.1, 0.2]" --seed 7
      python -m support run 01 --record                          refresh the committed page
    """
    from support import runner

    _some_chapters(runner)
    names = list(dict.fromkeys(map(runner.resolve_chapter, chapters))) if chapters else runner.chapters()
    pairs = [parse_override(change) for change in changes or []]
    overrides = dict(pairs)
    if len(overrides) < len(pairs):
        raise Refused("--set names the same field twice")
    if estimate:
        _print_estimates(runner, names, profile, overrides)
        return
    for name in names:
        runner.check_request(name, profile, seed, device, overrides, record=record)
    failed = 0
    for name in names:
        try:
            failed += not _run_one(runner, name, (profile, seed, device, overrides), record, force)
        except KeyboardInterrupt:
            typer.echo(f"\ninterrupted: {name} at {profile} was not finished and left nothing half-written; the same command continues from the results in the cache", err=True)
            raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


def _run_one(runner, name: str, request: tuple, record: bool, force: bool) -> bool:
    started = time.perf_counter()
    current = None if force else runner.current_run(name, *request)
    if current is None:
        typer.echo(f"{name} at {request[0]}: running ...", err=True)
    try:
        notebook = runner.execute(name, *request, record=record, force=force)
    except runner.ChapterFailed as error:
        typer.echo(str(error), err=True)
        return False
    done = "up to date" if current else f"done in {time.perf_counter() - started:.0f} s"
    typer.echo(f"{name} at {request[0]}: {done}, {'recorded in ' * record}{_relative(notebook)}")
    return True


def _print_estimates(runner, names: list[str], profile: str, overrides: dict) -> None:
    for name in names:
        load(name, profile, overrides)
    found = {name: runner.estimate(name, profile) for name in names}
    for name, needs in found.items():
        typer.echo(f"{name} at {profile}: {_needs(needs)}")
    if len(found) > 1:
        typer.echo(f"all: {_minutes(sum(needs.minutes for needs in found.values()))}, {max(needs.memory_gb for needs in found.values()):.1f} GB of memory, {sum(needs.disk_mb for needs in found.values()):.0f} MB of disk")
    if overrides:
        typer.echo("This is for the profile as it stands; what --set changes is not counted.")


@app.command()
def build(check: Annotated[bool, typer.Option(help="Compare the built pages with the table of contents and refuse an incomplete book.")] = True) -> None:
    """Build the book's pages as HTML, warnings as errors, and print where they are.

    Each chapter is shown with its largest recorded profile, or a fresher run made here. Run the chapters first: python -m support run
    """
    from support import publish

    typer.echo(publish.build(check=check))


@app.command()
def score(
    write: Annotated[bool, typer.Option("--write", help="Write data/verdicts.csv.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if records, registry and data/verdicts.csv disagree.")] = False,
) -> None:
    """Every claim with its verdicts at each profile, computed from the recorded runs.

    \b
    Examples:
      python -m support score
      python -m support score --check      what the tests check
      python -m support score --write      after recording a run, or changing a rule
    """
    from support import scoreboard

    if write:
        typer.echo(f"wrote {_relative(scoreboard.write())}")
    if check:
        problems = scoreboard.check()
        for problem in problems:
            typer.echo(problem, err=True)
        if problems:
            raise typer.Exit(1)
        typer.echo("records, registry and data/verdicts.csv agree")
    if write or check:
        return
    found = scoreboard.entries()
    if not found:
        raise Refused("the registry data/claims has no claims")
    width = max(len(entry.claim.id) for entry in found)
    shown = [[_verdict(entry) for entry in found if entry.profile == profile] for profile in SIZES]
    widths = [max(map(len, [profile, *column])) for profile, column in zip(SIZES, shown, strict=True)]
    typer.echo("  ".join([f"{'claim':<{width}}", *(f"{profile:<{space}}" for profile, space in zip(SIZES, widths, strict=True))]).rstrip())
    for entry, *cells in zip((entry for entry in found if entry.profile == SIZES[0]), *shown, strict=True):
        typer.echo("  ".join([f"{entry.claim.id:<{width}}", *(f"{cell:<{space}}" for cell, space in zip(cells, widths, strict=True))]).rstrip())
    for profile, table in scoreboard.counts(found).items():
        typer.echo(f"{profile}: " + ", ".join(f"{count} {word}" for word, count in table.items()))
    if any(entry.stale for entry in found):
        typer.echo("* recorded with older code")


def _verdict(entry) -> str:
    row = entry.row
    return f"{row['verdict']}{' ' * bool(row['direction'])}{row['direction']}{'; ' * bool(row['survives'])}{row['survives']}{'*' * entry.stale}"


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="A manifest (.json) or an executed notebook.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
) -> None:
    """What two runs differ in: parameters, versions, machine, code, and each claim's numbers and verdicts. Exits with 1 if anything.

    \b
    Example:
      python -m support diff data/runs/quick/01_softmax_kmeans.json _build/runs/quick/01_softmax_kmeans.ipynb
    """
    from support import runner, scoreboard

    lines = scoreboard.differences(runner.manifest_of(first), runner.manifest_of(second))
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


def _known(data, names: list[str]) -> list[str]:
    for name in names:
        if name not in data.NAMES:
            raise Refused(f"unknown data set {name!r}: {near(name, data.NAMES)}there are {', '.join(data.NAMES)}")
    return names


def _some_chapters(runner) -> None:
    if not runner.chapters():
        raise Refused(f"no chapters: {paths.root() / 'book'} holds no NN_name.py")


def _title(source: Path) -> str:
    lines = source.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# # ").strip() for line in lines if line.startswith("# # ")), "")


def _in_toc(chapter: str) -> bool:
    return f"book/{chapter}" in (paths.root() / paths.MARKER).read_text(encoding="utf-8")


def _minutes(minutes: float) -> str:
    return f"{minutes * 60:.0f} s" if minutes < 1 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _needs(needs) -> str:
    return f"about {_minutes(needs.minutes)}, {needs.memory_gb:.1f} GB of memory, {needs.disk_mb:.0f} MB of disk ({needs.source})"


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _user_errors() -> tuple[type[Exception], ...]:
    """The errors that say in one line what is wrong with a request; only those whose modules were imported can have been raised."""
    names = {
        "support.cache": "CacheError", "support.claims": "ClaimError", "support.data": "DataError", "support.publish": "PublishError",
        "support.runner": "RunnerError", "support.runs": "RunError",
    }  # fmt: skip
    loaded = [getattr(sys.modules[module], name, None) for module, name in names.items() if module in sys.modules]
    return (Refused, ProfileError, *filter(None, loaded))


def main(arguments: list[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit status."""
    try:
        status = app(args=arguments, prog_name="python -m support", standalone_mode=False)
    except Exception as error:
        # typer and click each have a class for usage errors, depending on their versions; both format themselves.
        if hasattr(error, "format_message"):
            message = error.format_message() or "nothing to do; --help says what there is"
        elif isinstance(error, (*_user_errors(), FileNotFoundError)):
            message = str(error)
        else:
            raise
        typer.echo(f"error: {' '.join(message.split())}", err=True)
        return 2
    if status == 130:
        return 130
    return status if isinstance(status, int) else 0
