"""The scoreboard as files beside its page: a CSV for spreadsheets, a JSON for programs, and the
JSON's schema.

The JSON is what the models below say; :func:`beside` publishes them.
"""

import collections
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from support.book import claims, computed_pages, manifests, rules, verdict_table
from support.book.computed_pages import Board
from support.book.profiles import Size
from support.book.rules import Strict
from support.book.verdict_table import Entry, Line
from support.common import files

CSV, JSON, SCHEMA = "scoreboard.csv", "scoreboard.json", "scoreboard.schema.json"
FORMAT = 1
COLUMNS = (
    "claim", "paper", "chapter", "page", "where", "kind", "says", "smallest", "published",
    "profile", "verdict", "direction", "survives", "measured", "runs", "cell",
    "older_than_its_code", "erratum", "shown_by", "remark",
)  # fmt: skip


def as_csv(found: Board) -> str:
    """One row per claim and profile that was run; numbers as the page shows them, several in a cell
    joined by semicolons."""
    rows = []
    for line in found.lines:
        common = vars(line.claim) | {
            "claim": line.claim.id,
            "paper": line.paper.key,
            "chapter": line.chapter,
            "page": found.address(line.chapter, line.claim.id),
            "published": "; ".join(line.claim.published_lines),
            "erratum": line.claim.erratum.text if line.claim.erratum else "",
            "shown_by": line.claim.erratum.shown_by if line.claim.erratum else "",
        }
        for entry in line.recorded or line.entries[:1]:  # the first says that none was
            numbers = {name: runs for name, runs in entry.judgement.numbers.items() if runs}
            here = {
                "measured": "; ".join(map(rules.named, numbers, numbers.values())),
                "runs": max(map(len, numbers.values()), default=""),
                "cell": "" if entry.cell is None else entry.cell + 1,
                "older_than_its_code": "yes" if entry.stale else "",
            }
            rows.append(common | entry.row | here)
    return files.csv_text(COLUMNS, rows, end="\n")


# --- the JSON -------------------------------------------------------------------------------------


class Record(Strict):
    """A recorded run of a chapter's evidence, by the file of its numbers."""

    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    commit: str | None
    finished: str
    older_than_its_code: bool


class Source(Strict, from_attributes=True):
    """What states claims: a paper, or this book."""

    title: str
    authors: str
    year: int


class Quantity(Strict):
    """What was measured: the mean over runs, from the lowest to the highest end of the runs' 95 %
    intervals (null: one number without sampling error), and each run with what makes its
    interval: ``hits`` of ``of``; ``n10`` and ``n01`` of ``of`` for a difference of two shares over
    the same entries; or the interval itself."""

    mean: float
    low: float | None
    high: float | None
    runs: list[float | dict[str, int | float]]


class RuleOutcome(Strict, from_attributes=True):
    """What a rule wants, what was seen, and how it was decided."""

    status: rules.Status
    seen: str
    wants: str


class Counts(Strict):
    """How many rules of a question were decided how."""

    passed: int  # in the order of the statuses of a rule
    failed: int
    undecided: int
    missing: int


class Found(Strict):
    """A claim at a profile that was run: both verdicts and what they come from. ``survives`` is
    empty for a claim without a second question, ``direction`` for one that the profile can
    judge."""

    verdict: Literal[(*dict.fromkeys((*claims.VERDICTS, *claims.ANSWERS)),)]
    direction: Literal["", "towards", "away", "mixed", "undecided"]
    survives: Literal[("", *claims.SURVIVALS)]
    rules: Counts
    survives_rules: Counts
    outcomes: list[RuleOutcome]
    survives_outcomes: list[RuleOutcome]
    numbers: dict[str, Quantity]
    not_measured: list[str]
    cell: int
    record: str


class Stated(Strict):
    """A claim with what the registry says of it, and what was found at each profile that was
    run."""

    id: str
    kind: claims.Kind
    paper: str
    chapter: str
    page: str
    where: str
    says: str
    published: dict[str, float]
    smallest: Size
    erratum: claims.Erratum | None
    remark: str
    rules: list[dict[str, Any]]
    survives_rules: list[dict[str, Any]]
    best: Size | None
    profiles: dict[Size, Found]


class Scoreboard(Strict):
    """Every claim of the book with its verdicts and numbers."""

    format: Literal[FORMAT]
    title: str
    version: str | None
    licence: str | None
    commit: str | None
    papers: dict[str, Source]
    records: dict[str, Record]
    claims: list[Stated]


def scoreboard(found: Board) -> Scoreboard:
    """The board as data; records are named ``<profile>/<chapter>``."""
    from support.book import chapter_run  # torch takes seconds to import

    about = computed_pages.citation()
    records = verdict_table.records().items()
    return Scoreboard(
        format=FORMAT,
        title=about.get("title", ""),
        version=about.get("version"),
        licence=about.get("license"),
        commit=chapter_run.commit()["commit"],
        papers={line.paper.key: line.paper for line in found.lines},
        records={f"{size}/{chapter}": _record(run) for (size, chapter), run in records},
        claims=[_stated(line, found) for line in found.lines],
    )


def _record(manifest: manifests.Manifest) -> Record:
    notebook = manifests.recorded_run(manifest.chapter, manifest.profile)
    file = manifests.manifest_path(notebook)
    return Record(
        file=manifests.shown(file),
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        commit=manifest.commit,
        finished=manifest.finished,
        older_than_its_code=manifests.is_stale(manifest),
    )


def _stated(line: Line, found: Board) -> Stated:
    examples = {"__all__": {"passes", "fails"}}
    left_out = {"ranges": True, "nulls": True, "rules": examples, "survives_rules": examples}
    return Stated(
        **line.claim.model_dump(mode="json", exclude=left_out | {"chapter": True}),
        paper=line.paper.key,
        chapter=line.chapter,
        page=found.address(line.chapter, line.claim.id),
        best=line.best.profile if line.recorded else None,
        profiles={entry.profile: _found(entry, line.chapter) for entry in line.recorded},
    )


def _found(entry: Entry, chapter: str) -> Found:
    judged = entry.judgement
    kept = rules.plain(judged.numbers)
    return Found(
        **{word: getattr(judged, word) for word in verdict_table.WORDS},
        rules=_counts(judged.rows),
        survives_rules=_counts(judged.modern_rows),
        outcomes=judged.rows,
        survives_outcomes=judged.modern_rows,
        numbers={
            name: Quantity(mean=mean, low=low, high=high, runs=kept[name])
            for name, (mean, low, high, _) in judged.intervals.items()
        },
        not_measured=[name for name, runs in judged.numbers.items() if not runs],
        cell=entry.cell + 1,
        record=f"{entry.profile}/{chapter}",
    )


def _counts(rows: tuple[rules.Outcome, ...]) -> Counts:
    found = collections.Counter(row.status for row in rows)
    counted = zip(Counts.model_fields, get_args(rules.Status), strict=True)
    return Counts(**{name: found[status] for name, status in counted})


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def beside(found: Board) -> dict[str, str]:
    """The files that lie beside the page, by name."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= Scoreboard.model_json_schema(mode="serialization")
    data = scoreboard(found).model_dump(mode="json")
    return {CSV: as_csv(found), JSON: _text(data), SCHEMA: _text(schema)}


def write_beside(static: Path, today: Callable[[], Board]) -> None:
    """Write these files and the pictures into the folder of static files, once a page has asked for
    the board, which is kept in a :func:`functools.cache`."""
    if today.cache_info().currsize:
        contents = beside(today()) | today().files
        files.write_all({static / name: content for name, content in contents.items()})
