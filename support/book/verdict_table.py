"""The table of verdicts, computed from the executed notebooks and the claims registry, and the gate
that guards it.

``data/verdicts.csv`` is committed: one row per registered claim and profile. A change that flips a
verdict must change it too.
"""

import collections
import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from support.book import claims, execute, manifests
from support.book.profiles import SIZES
from support.common import fingerprint, paths

COLUMNS = ("claim", "profile", "verdict", "direction", "survives")


@dataclass(frozen=True)
class Entry:
    """A claim at a profile: its verdicts, and where they come from.

    ``judgement`` is None where there is no record, or none that the rules of today can judge;
    ``cell`` is the number of the notebook's cell that stated it, from 0.
    """

    claim: claims.Claim
    chapter: str
    profile: str
    judgement: claims.Judgement | None = None
    cell: int | None = None
    stale: bool = False

    @property
    def row(self) -> dict[str, str]:
        """The claim's row of the table."""
        judged = self.judgement
        verdicts = (
            (judged.verdict, judged.direction, judged.survives)
            if judged
            else ("not run", "", "not run" if self.claim.survives_rules else "")
        )
        return dict(zip(COLUMNS, (self.claim.id, self.profile, *verdicts), strict=True))


@dataclass(frozen=True)
class Line:
    """A claim with its entries from the smallest profile to the largest: one line of the
    scoreboard."""

    paper: claims.Paper
    entries: tuple[Entry, ...]

    @property
    def claim(self) -> claims.Claim:
        """The claim."""
        return self.entries[0].claim

    @property
    def chapter(self) -> str:
        """The chapter that computes it."""
        return self.entries[0].chapter

    @property
    def best(self) -> Entry:
        """The claim at its best profile: the largest that measured it, and the smallest if none
        did."""
        return next(
            (entry for entry in reversed(self.entries) if entry.row["verdict"] != "not run"),
            self.entries[0],
        )

    def at(self, profile: str | None) -> Entry:
        """The claim at a profile; None stands for its best one."""
        return self.entries[SIZES.index(profile)] if profile else self.best


def _stated(chapter: str, profile: str) -> list[tuple[int, dict]]:
    """What a recorded notebook states: (cell, record); empty where there is none."""
    file = manifests.recorded_run(chapter, profile)
    if not file.is_file() or not manifests.manifest_path(file).is_file():
        return []
    return execute.records_in(nbformat.read(file, as_version=4), "claim")


def _survey() -> tuple[list[Entry], list[str]]:
    """Every registered claim at every profile, and what is wrong with the records."""
    entries, problems = [], []
    papers = claims.registry()
    by_chapter = collections.defaultdict(list)
    for paper in papers.values():
        for claim in paper.claims:
            by_chapter[paper.chapter_of(claim)].append(claim)
    for chapter in sorted({*by_chapter, *manifests.chapters()}):
        source = manifests.source_file(chapter)
        current = (
            fingerprint.digest([source]) if source.is_file() else ""
        )  # once a chapter: it is the slow part
        for profile in SIZES:
            stated = _stated(chapter, profile)
            found = {record["id"]: (cell, record) for cell, record in stated}
            notebook = manifests.recorded_run(chapter, profile)
            manifest = (
                manifests.manifest_of(notebook)
                if notebook.is_file() and manifests.manifest_path(notebook).is_file()
                else None
            )
            stale = manifest is not None and manifest.code != current
            place = f"{chapter} at {profile}"
            if notebook.is_file() != manifests.manifest_path(notebook).is_file():
                problems.append(
                    f"{place}: of the notebook and its manifest only one is there; record the chapter again"
                )
            registered = {claim.id: claim for claim in by_chapter[chapter]}
            problems += [
                f"{place}: cell {cell + 1} names no claim of this chapter: {record['id']}"
                for cell, record in stated
                if record["id"] not in registered
            ]
            problems += [
                f"{place}: {name} is stated {count} times"
                for name, count in collections.Counter(record["id"] for _, record in stated).items()
                if count > 1
            ]
            problems += [
                f"{place}: {record['id']} was judged as {record['profile']}"
                for _, record in stated
                if record["profile"] != profile
            ]
            if manifest:
                in_notebook = {
                    name: (record["measured"], record["modern"], cell)
                    for name, (cell, record) in found.items()
                }
                in_manifest = {
                    name: (record.measured, record.modern, record.cell)
                    for name, record in manifest.claims.items()
                }
                problems += [
                    f"{place}: {name}: the notebook and its manifest differ"
                    for name in sorted({*in_notebook, *in_manifest})
                    if in_notebook.get(name) != in_manifest.get(name)
                ]
            for claim in by_chapter[chapter]:
                entry = Entry(claim, chapter, profile)
                if manifest and claim.id not in found:
                    problems.append(f"{place}: the registered claim {claim.id} has no cell")
                elif manifest:
                    cell, record = found[claim.id]
                    try:
                        judgement = claims.judge(
                            claim, record["measured"], profile, record["modern"]
                        )
                        entry = Entry(claim, chapter, profile, judgement, cell, stale)
                    except claims.ClaimError as error:
                        problems.append(f"{place}: {error}")
                entries.append(entry)
    order = {
        claim.id: index
        for index, claim in enumerate(claim for paper in papers.values() for claim in paper.claims)
    }
    return sorted(
        entries, key=lambda entry: (order[entry.claim.id], SIZES.index(entry.profile))
    ), problems


def entries() -> list[Entry]:
    """Every registered claim at every profile, in the registry's order, judged afresh from the
    recorded measurements."""
    return _survey()[0]


def lines(found: Sequence[Entry]) -> list[Line]:
    """The scoreboard, one line per claim: chapter by chapter, in each as in the registry."""
    papers = claims.registry()
    by_claim = collections.defaultdict(list)
    for entry in found:
        by_claim[entry.claim.id].append(entry)
    unsorted = [
        Line(papers[name.partition(".")[0]], tuple(some)) for name, some in by_claim.items()
    ]
    return sorted(unsorted, key=lambda line: line.chapter)


def select(
    found: Iterable[Line],
    *,
    paper: str = "",
    chapter: str = "",
    kind: str = "",
    profile: str = "",
    verdict: str = "",
    survives: str = "",
    text: str = "",
) -> list[Line]:
    """The lines that meet every condition that is given; an empty one is none.

    Args:
        paper: key of the paper.
        chapter: name of the chapter.
        kind: kind of the claim.
        profile: where the two verdicts are looked up; empty: at each claim's best profile.
        verdict: the first verdict.
        survives: the second verdict.
        text: words that must all occur in the claim's id, its place in the paper, its statement or
            its correction.
    """
    wanted = {"verdict": verdict, "survives": survives}
    return [
        line
        for line in found
        if paper in ("", line.paper.key)
        and chapter in ("", line.chapter)
        and kind in ("", line.claim.kind)
        and all(word in ("", line.at(profile).row[column]) for column, word in wanted.items())
        and all(word in _words(line.claim) for word in text.lower().split())
    ]


def _words(claim: claims.Claim) -> str:
    return " ".join((claim.id, claim.where, claim.says, claim.corrected)).lower()


def counts(found: Sequence[Entry]) -> dict[str, dict[str, int]]:
    """Number of claims with each verdict and each survival, by profile: ``{"quick": {"reproduced":
    12, ...}, ...}``."""
    return {
        profile: count(entry for entry in found if entry.profile == profile) for profile in SIZES
    }


def count(found: Iterable[Entry]) -> dict[str, int]:
    """Number of entries with each verdict and each survival; words without an entry are left out,
    and so is a survival not run."""
    rows = [entry.row for entry in found]
    verdicts = collections.Counter(row["verdict"] for row in rows)
    survivals = collections.Counter(
        row["survives"] for row in rows if row["survives"] and row["survives"] != "not run"
    )
    return {
        word: counter[word]
        for words, counter in ((claims.VERDICTS, verdicts), (claims.SURVIVALS, survivals))
        for word in words
        if counter[word]
    }


def verdicts_file() -> Path:
    """The committed table."""
    return paths.root() / "data" / "verdicts.csv"


def as_csv(found: list[Entry]) -> str:
    """The table as the text of its file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(entry.row for entry in found)
    return text.getvalue()


def read() -> list[dict[str, str]]:
    """The rows of the committed table; none where it is missing.

    Raises:
        ClaimError: the columns are not those of :data:`COLUMNS`.
    """
    file = verdicts_file()
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise claims.ClaimError(
                f"data/verdicts.csv has the columns {reader.fieldnames}, not {', '.join(COLUMNS)}: score --write makes it"
            )
        return list(reader)


def write() -> Path:
    """Write the committed table, and make the rows in the recorded notebooks agree with their
    numbers and the registry."""
    for chapter, _, file in _records():
        again = execute.text_of(execute.rendered_again(nbformat.read(file, as_version=4), chapter))
        if again != file.read_text(encoding="utf-8"):
            manifests.write_whole(file, again)
    manifests.write_whole(verdicts_file(), as_csv(entries()))
    return verdicts_file()


def _records() -> list[tuple[str, str, Path]]:
    return [
        (chapter, profile, manifests.recorded_run(chapter, profile))
        for profile in SIZES
        for chapter in manifests.collect(profile)
    ]


def check() -> list[str]:
    """Everything in which records, registry and the committed table disagree; an empty list is a
    pass.

    Found: a verdict that differs from the computed one, a row too many, too few or twice, a claim
        judged below its smallest profile,
    a claim without a cell, a cell without a claim, a notebook that differs from its manifest, a row
    whose text is not what its numbers give, and a registry without claims.
    """
    found, problems = _survey()
    if not found:
        return ["the registry data/claims has no claims, so there is nothing to check"]
    committed = read()
    smallest = {entry.claim.id: entry.claim.smallest for entry in found}
    computed = {(entry.claim.id, entry.profile): entry.row for entry in found}
    keys = [(row["claim"], row["profile"]) for row in committed]
    problems += [
        f"data/verdicts.csv has two rows for {name} at {profile}"
        for (name, profile), count in collections.Counter(keys).items()
        if count > 1
    ]
    problems += [
        f"data/verdicts.csv has a row for {name} at {profile}, which is not registered"
        for name, profile in keys
        if (name, profile) not in computed
    ]
    problems += [
        f"data/verdicts.csv has no row for {name} at {profile}"
        for name, profile in computed
        if (name, profile) not in keys
    ]
    for row in committed:
        name, profile = key = (row["claim"], row["profile"])
        if key not in computed:
            continue
        problems += [
            f"{name} at {profile}: {column} is committed as {row[column]!r}, computed as {computed[key][column]!r}"
            for column in COLUMNS[2:]
            if row[column] != computed[key][column]
        ]
        if SIZES.index(profile) < SIZES.index(smallest[name]) and row["verdict"] not in (
            "scaled-down",
            "not run",
        ):
            problems.append(
                f"{name} at {profile}: {row['verdict']!r} is more than this profile can say; it takes {smallest[name]}"
            )
    for chapter, profile, file in _records():
        shown = nbformat.read(file, as_version=4)
        again = execute.rendered_again(nbformat.read(file, as_version=4), chapter)
        for index, (old, new) in enumerate(zip(shown.cells, again.cells, strict=True)):
            if old.get("outputs") != new.get("outputs"):
                problems.append(
                    f"{chapter} at {profile}: cell {index + 1} does not show what its numbers and the registry give"
                )
    return problems


def differences(first: manifests.Manifest, second: manifests.Manifest) -> list[str]:
    """What two runs differ in: parameters, versions, machine, code, data, and each claim's numbers
    and verdicts."""
    lines = []
    for name in (
        "chapter",
        "profile",
        "seed",
        "device",
        "device_name",
        "threads",
        "platform",
        "commit",
        "dirty",
        "code",
    ):
        lines += _change(name, getattr(first, name), getattr(second, name))
    for group in ("parameters", "versions", "data"):
        left, right = getattr(first, group), getattr(second, group)
        for name in [*left, *(name for name in right if name not in left)]:
            lines += _change(f"{group}.{name}", left.get(name), right.get(name))
    known = {claim.id: claim for paper in claims.registry().values() for claim in paper.claims}
    for name in [*first.claims, *(name for name in second.claims if name not in first.claims)]:
        left, right = first.claims.get(name), second.claims.get(name)
        numbers = [
            {} if record is None else record.measured | record.modern for record in (left, right)
        ]
        for value in [*numbers[0], *(value for value in numbers[1] if value not in numbers[0])]:
            lines += _change(f"{name} {value}", numbers[0].get(value), numbers[1].get(value))
        if name in known and left and right:
            old, new = (
                claims.judge(known[name], record.measured, run.profile, record.modern)
                for record, run in ((left, first), (right, second))
            )
            for word in ("verdict", "direction", "survives"):
                lines += _change(f"{name} {word}", getattr(old, word), getattr(new, word))
    return lines


def _change(name: str, old: object, new: object) -> list[str]:
    return [] if old == new else [f"{name}: {_value(old)} -> {_value(new)}"]


def _value(value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(item, float) for item in value):
        return claims.quantity(claims.interval(value))
    return "–" if value in (None, "", []) else str(value)
