"""The scoreboard and the errata as pages: parts that are computed from the records and the
registry, as MyST Markdown and as files.

A page of ours holds its prose and, where a part belongs, a placeholder that names it, three
backticks and ``{computed} table``; :func:`filled` puts the part there. So nothing on these pages
that could be wrong is typed. :mod:`support.book.sphinx_pages` does it in a build.
"""

import collections
import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jupytext

from support.book import claims, manifests, registry_index, verdict_table
from support.book.profiles import SIZES
from support.book.verdict_table import Entry, Line
from support.common import paths

PLACEHOLDER = re.compile(r"^```\{computed\} *(\S*)\n```$", re.MULTILINE)
SECTION = "What did not reproduce, and why"
CSV, JSON = "scoreboard.csv", "scoreboard.json"
FAILED = {"partly", "not reproduced", "refuted", "weakened", "broken"}
COLUMNS = (
    "claim", "paper", "chapter", "page", "where", "kind", "says", "smallest", "published", "profile", "verdict", "direction", "survives",
    "measured", "runs", "cell", "older_than_its_code", "corrected",
)  # fmt: skip


class BoardError(ValueError):
    """A page with a placeholder that names no part. The message is one line."""


@dataclass(frozen=True)
class Board:
    """What the parts are made of: every claim with its entries, and the pages that a link can lead
    to."""

    lines: tuple[Line, ...]
    pages: frozenset[str]

    def address(self, line: Line) -> str:
        """Where the cell of a claim is shown, seen from a page beside the chapters; empty if its
        chapter is no page of the book."""
        return (
            f"{line.chapter}.html#{line.claim.id}" if f"book/{line.chapter}" in self.pages else ""
        )


def board(pages: Iterable[str]) -> Board:
    """The board of today, of a book with these pages, such as ``"book/index"``."""
    return Board(tuple(verdict_table.lines(verdict_table.entries())), frozenset(pages))


# --- words ------------------------------------------------------------------------------------------------------------------------


def title(chapter: str) -> str:
    """A chapter's title; its name where it has none."""
    source = manifests.source_file(chapter)
    lines = source.read_text(encoding="utf-8").splitlines() if source.is_file() else []
    return next((line.removeprefix("# # ") for line in lines if line.startswith("# # ")), chapter)


def explanation(chapter: str) -> str:
    """A chapter's own words on what did not reproduce, as Markdown: its section of that name,
    without the sentences about its table.

    Headings become bold, so that the words can be quoted, and labels are dropped, so that they stay
    unique. Empty without the section.
    """
    source = manifests.source_file(chapter)
    cells = jupytext.read(source).cells if source.is_file() else []
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = re.search(
        rf"^## {re.escape(SECTION)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    words = re.sub(r"^#+ (.*)$", r"**\1**", found[1] if found else "", flags=re.MULTILINE)
    words = re.sub(r"^\([\w-]+\)=\n", "", words, flags=re.MULTILINE)
    paragraphs = [paragraph.strip() for paragraph in words.split("\n\n")]
    return "\n\n".join(
        paragraph
        for paragraph in paragraphs
        if paragraph and not paragraph.startswith("The table collects")
    )


def authors(paper: claims.Paper) -> str:
    """A paper as it is cited in a sentence: ``Wang and Loog 2022``, ``Alfarra et al. 2021``, ``this
    book``."""
    if paper.authors.islower():  # no person: this book itself
        return paper.authors
    names = [name.split()[-1] for name in paper.authors.split(", ")]
    return f"{f'{names[0]} et al.' if len(names) > 2 else ' and '.join(names)} {paper.year}"


def _counted(found: Iterable[Entry], column: str, words: Sequence[str]) -> str:
    table = collections.Counter(entry.row[column] for entry in found)
    return ", ".join(f"{table[word]} {word}" for word in words if table[word])


def _raw(*parts: str) -> str:
    return "\n".join(("```{raw} html", *parts, "```"))


def _link(address: str, words: str) -> str:
    return (
        f'<a class="reference internal" href="{html.escape(address)}">{words}</a>'
        if address
        else words
    )


def _cell_of(found: Board, line: Line, entry: Entry) -> str:
    where = html.escape(title(line.chapter)) + (
        f", cell {entry.cell + 1}" if entry.cell is not None else ""
    )
    return _link(found.address(line), where)


# --- the parts --------------------------------------------------------------------------------------------------------------------


def summary(found: Board) -> str:
    """How many claims there are and how they fare, each at its best profile."""
    best = [line.best for line in found.lines]
    robust = [entry for entry in best if entry.claim.survives_rules]
    judged = [entry for entry in best if entry.row["verdict"] not in ("scaled-down", "not run")]
    verdicts = _counted(judged, "verdict", claims.VERDICTS) or "none yet"
    others = _counted((entry for entry in best if entry not in judged), "verdict", claims.VERDICTS)
    older = sum(any(entry.stale for entry in line.entries) for line in found.lines)
    names = {line.paper.key: authors(line.paper) for line in found.lines}
    sources = collections.Counter(line.paper.key for line in found.lines)
    if not best:
        return "The registry holds no claim yet."
    return "\n".join(
        [
            f"The registry holds **{len(best)} claims**: {', '.join(f'{count} of {names[key]}' for key, count in sources.items())}.",
            f"Each at its best profile, **{len(judged)} {'is' if len(judged) == 1 else 'are'} judged**: {verdicts}.",
            f"The rest: {others or 'none'}.",
            f"Under today's protocol, of the {len(robust)} claims about robustness:"
            f" {_counted(robust, 'survives', claims.SURVIVALS) or 'none yet'}.",
            f"{older or 'No'} claim{'s have' if older > 1 else ' has'} a record that is older than its code.",
        ]
    )


def counts(found: Board) -> str:
    """Two tables: the verdicts by profile, and at the best profile by chapter."""
    by_profile = {profile: [line.at(profile) for line in found.lines] for profile in SIZES}
    chapters = {}
    for line in found.lines:
        chapters.setdefault(line.chapter, []).append(line.best)
    linked = {
        _link(
            f"{chapter}.html" if f"book/{chapter}" in found.pages else "",
            html.escape(title(chapter)),
        ): entries
        for chapter, entries in chapters.items()
    }
    best = {"best of each claim": [line.best for line in found.lines]}
    return _raw(_count_table("Profile", by_profile | best), _count_table("Chapter", linked))


def _count_table(first: str, rows: dict[str, list[Entry]]) -> str:
    survivals = [word for word in claims.SURVIVALS if word != "not run"]
    header = [first, "claims", *claims.VERDICTS, *survivals]
    found = {name: verdict_table.count(entries) for name, entries in rows.items()}
    body = [
        [name, str(len(rows[name])), *(str(table.get(word, "")) for word in header[2:])]
        for name, table in found.items()
    ]
    return _table("score-counts", header, body, f"Counts by {first.lower()}")


def _table(name: str, header: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """A table in a frame of its own, in which it scrolls; ``label`` says what it holds to whoever
    cannot see it."""
    head = "".join(f'<th scope="col">{name}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td>{cell}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="score-scroll" role="region" aria-label="{html.escape(label)}" tabindex="0">'
        f'<table class="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def table(found: Board) -> str:
    """Every claim, with the controls that a script of ours brings to life; without scripts the
    table is complete and has none."""
    head = '<th scope="col" data-sort="claim">Claim</th><th scope="col">Published</th>' + "".join(
        f'<th scope="col" data-sort="{profile}" data-profile="{profile}">Profile {profile}</th>'
        for profile in SIZES
    )
    rows = [_row(found, line) for line in found.lines]
    return _raw(
        '<div class="scoreboard">',
        _controls(found),
        f'<p class="score-count" role="status">{len(found.lines)} claims</p>',
        '<div class="score-scroll" role="region" aria-label="Every claim" tabindex="0">',
        f'<table class="score"><thead><tr>{head}</tr></thead><tbody>',
        *rows,
        "</tbody></table></div></div>",
        '<script defer src="../_static/scoreboard.js"></script>',
    )


def _controls(found: Board) -> str:
    papers = {line.paper.key: authors(line.paper) for line in found.lines}
    chapters = {line.chapter: title(line.chapter) for line in found.lines}
    order = {
        "": "by chapter",
        "claim": "by name",
        "verdict": "by first verdict",
        "survives": "by second verdict",
    }
    choices = {
        "profile": (
            "Profile",
            {"": "the best of each claim"} | {profile: profile for profile in SIZES},
        ),
        "paper": ("Paper", {"": "all"} | papers),
        "chapter": ("Chapter", {"": "all"} | chapters),
        "kind": ("Kind", {"": "all"} | {word: word for word in claims.KINDS}),
        "verdict": ("Reproduces?", {"": "all"} | {word: word for word in claims.VERDICTS}),
        "survives": ("Survives?", {"": "all"} | {word: word for word in claims.SURVIVALS}),
        "sort": ("Order", order | {profile: f"by first verdict at {profile}" for profile in SIZES}),
    }
    selects = "".join(
        f'<label>{label} <select name="{name}">'
        + "".join(
            f'<option value="{html.escape(value)}">{html.escape(words)}</option>'
            for value, words in options.items()
        )
        + "</select></label>"
        for name, (label, options) in choices.items()
    )
    search = '<label>Words <input type="search" name="text" autocomplete="off"></label>'
    older = '<label class="score-check"><input type="checkbox" name="older"> older than its code</label>'
    controls = f'{selects}{search}{older}<button type="reset">Show all</button>'
    return f'<form class="score-controls" hidden aria-label="Filter the claims">{controls}</form>'


def _row(found: Board, line: Line) -> str:
    claim, best = line.claim, line.best
    facts = {
        "paper": line.paper.key,
        "chapter": line.chapter,
        "kind": claim.kind,
        "best": best.profile,
        "older": "yes" if any(entry.stale for entry in line.entries) else "",
    }
    data = "".join(f' data-{name}="{html.escape(value)}"' for name, value in facts.items())
    first = (
        f'<span class="score-name">{claim.id}</span><br>{html.escape(claim.says)}'
        f"<br><small>{html.escape(claim.where)} · {claim.kind} · judged from {claim.smallest}<br>{_cell_of(found, line, best)}</small>"
    )
    cells = "".join(_profile_cell(entry) for entry in line.entries)
    published = claims.cell(claims.published_lines(claim))
    return f'<tr id="{claim.id}"{data}><th scope="row">{first}</th><td>{published}</td>{cells}</tr>'


def _profile_cell(entry: Entry) -> str:
    row, judged = entry.row, entry.judgement
    shown = [claims.badge(row["verdict"], claims.towards(judged) if judged else "")]
    if judged and judged.intervals:
        shown += [claims.cell(claims.rule_lines(judged.rows))]
    if row["survives"]:
        shown += [f"<small>today's protocol:</small> {claims.badge(row['survives'])}"]
    if judged and judged.intervals:
        shown += [claims.cell(claims.rule_lines(judged.modern_rows))] * bool(judged.modern_rows)
        if more := claims.other_lines(entry.claim, judged):
            shown += [f"<details><summary>{len(more)} more</summary>{claims.cell(more)}</details>"]
    if entry.stale:
        shown += ['<small class="score-older">recorded with older code</small>']
    data = f' data-profile="{entry.profile}" data-verdict="{row["verdict"]}" data-survives="{row["survives"]}"'
    return f"<td{data}>" + "".join(f"<div>{part}</div>" for part in shown) + "</td>"


def explanations(found: Board) -> str:
    """What did not reproduce, chapter by chapter: the chapter's own words, and beside them the
    claims concerned."""
    parts = []
    for chapter in sorted({*manifests.chapters(), *(line.chapter for line in found.lines)}):
        lines = [line for line in found.lines if line.chapter == chapter]
        failed = [line for line in lines if FAILED & set(line.best.row.values())]
        words = explanation(chapter)
        if not failed and not words:
            continue
        name = title(chapter)
        parts.append(f"### {f'[{name}]({chapter})' if f'book/{chapter}' in found.pages else name}")
        parts += ["\n".join(f"> {line}".rstrip() for line in words.splitlines())] * bool(words)
        if failed:
            header = ["Claim", "Reproduces?", "Survives?", "What fails here", "What is true"]
            parts.append(
                _raw(
                    _table(
                        "score-failures",
                        header,
                        [_failure(found, line) for line in failed],
                        f"Claims of {name}",
                    )
                )
            )
    return "\n\n".join(parts)


def _failure(found: Board, line: Line) -> list[str]:
    row = line.best.row
    name = _link(found.address(line), f'<span class="score-name">{line.claim.id}</span>')
    source = f"{name}<br><small>{html.escape(line.claim.where)}</small>"
    judged = line.best.judgement
    fails = claims.cell(
        claims.rule_lines(
            [rule for rule in (*judged.rows, *judged.modern_rows) if rule.status != "pass"]
        )
    )
    return [
        source,
        claims.badge(row["verdict"]),
        claims.badge(row["survives"]) or "–",
        fails,
        html.escape(line.claim.corrected) or "–",
    ]


def errata(found: Board) -> str:
    """Per paper what it says, what is true, and the cell that shows it: the claims that the
    registry corrects."""
    parts = []
    for paper in dict.fromkeys(line.paper.key for line in found.lines):
        lines = [line for line in found.lines if line.paper.key == paper and line.claim.corrected]
        if not lines:
            continue
        said = authors(lines[0].paper)
        parts.append(f"## {said}")
        parts.append(f"*{lines[0].paper.title}*{f' {{cite:p}}`{paper}`' if _cited(paper) else ''}.")
        header = ["Where", "The paper says", "What is true", "Shown by"]
        parts.append(
            _raw(
                _table(
                    "score-errata",
                    header,
                    [_erratum(found, line) for line in lines],
                    f"Errata of {said}",
                )
            )
        )
    return "\n\n".join(parts)


def _erratum(found: Board, line: Line) -> list[str]:
    claim, best = line.claim, line.best
    where = f'{html.escape(claim.where)}<br><a href="scoreboard.html#{claim.id}"><span class="score-name">{claim.id}</span></a>'
    shown = f"{_cell_of(found, line, best)}<br>{claims.badge(best.row['verdict'])}"
    return [where, html.escape(claim.says), html.escape(claim.corrected), shown]


def _cited(paper: str) -> bool:
    file = paths.root() / "book" / "references.bib"
    return file.is_file() and f"{{{paper}," in file.read_text(encoding="utf-8")


def left_out(_: Board) -> str:
    """What of the papers is in the index and stands for no claim, with the reason."""
    rows = [
        [paper, html.escape("; ".join(group.items)), html.escape(group.reason)]
        for paper, group in registry_index.exclusions()
    ]
    return _raw(
        _table(
            "score-left-out", ["Paper", "Where", "Why it is not judged"], rows, "What is not judged"
        )
    )


PARTS: dict[str, Callable[[Board], str]] = {
    part.__name__.replace("_", "-"): part
    for part in (summary, counts, table, explanations, errata, left_out)
}


def filled(text: str, found: Board) -> str:
    """A page with each placeholder replaced by its part.

    Raises:
        BoardError: a placeholder names no part.
    """

    def part(match: re.Match) -> str:
        if match[1] not in PARTS:
            raise BoardError(f"no computed part {match[1]!r}: there are {', '.join(PARTS)}")
        return PARTS[match[1]](found)

    return PLACEHOLDER.sub(part, text)


# --- the downloads ----------------------------------------------------------------------------------------------------------------


def as_csv(found: Board) -> str:
    """One row per claim and profile; numbers as the page shows them, several in a cell joined by
    semicolons."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in found.lines:
        claim = line.claim
        common = {
            name: getattr(claim, name)
            for name in ("where", "kind", "says", "smallest", "corrected")
        }
        common |= {"paper": line.paper.key, "chapter": line.chapter, "page": found.address(line)}
        common |= {"published": "; ".join(claims.published_lines(claim))}
        for entry in line.entries:
            intervals = entry.judgement.intervals if entry.judgement else {}
            here = {
                "measured": "; ".join(
                    f"{name} = {claims.quantity(value)}" for name, value in intervals.items()
                ),
                "runs": max((value.runs for value in intervals.values()), default=""),
                "cell": "" if entry.cell is None else entry.cell + 1,
                "older_than_its_code": "yes" if entry.stale else "",
            }
            writer.writerow(common | entry.row | here)
    return text.getvalue()


def as_json(found: Board) -> str:
    """Everything: each claim with its rules, and at each profile every number of every run with its
    interval and each rule's outcome."""
    content = [
        {
            "paper": line.paper.model_dump(exclude={"claims", "chapter"}),
            "chapter": line.chapter,
            "page": found.address(line),
            **json.loads(line.claim.model_dump_json(exclude={"chapter"})),
            "best": line.best.profile,
            "profiles": {entry.profile: _entry(entry) for entry in line.entries},
        }
        for line in found.lines
    ]
    return json.dumps({"claims": content}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _entry(entry: Entry) -> dict:
    judged = entry.judgement
    rows = (
        {name: [vars(row) for row in getattr(judged, name)] for name in ("rows", "modern_rows")}
        if judged
        else {}
    )
    return {
        **{name: entry.row[name] for name in ("verdict", "direction", "survives")},
        "cell": None if entry.cell is None else entry.cell + 1,
        "older_than_its_code": entry.stale,
        "runs": {name: list(values) for name, values in judged.numbers.items()} if judged else {},
        "intervals": {name: value._asdict() for name, value in judged.intervals.items()}
        if judged
        else {},
        **rows,
    }


def downloads(found: Board) -> dict[str, str]:
    """The files that lie beside the page, by name."""
    return {CSV: as_csv(found), JSON: as_json(found)}
