"""The table of verdicts, computed from the recorded manifests and the claims registry, and the gate
that guards it.

``data/verdicts.csv`` is committed: one row per registered claim and profile. A change that flips a
verdict must change it too.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from support.book import claims, execute, front, manifests, markup, rules
from support.book.profiles import SIZES
from support.common import files, paths

WORDS = ("verdict", "direction", "survives")  # of a judgement
COLUMNS = ("claim", "profile", *WORDS)
REPRODUCES, SURVIVES, ANSWERED = "Reproduces?", "Survives?", "Answered?"
QUESTIONS = {
    REPRODUCES: claims.VERDICTS, SURVIVES: claims.SURVIVALS[:-1], ANSWERED: claims.ANSWERS,
}  # fmt: skip
FAILED = {"partly", "not reproduced", "refuted", "weakened", "broken"}


@dataclass(frozen=True)
class Entry:
    """A claim at a profile: its verdicts, and where they come from.

    ``cell`` is the number of the evidence's cell that stated it, from 0; None where there is no
    record, or none that the rules of today can judge, and ``problem`` says why.
    """

    judgement: claims.Judgement
    profile: str
    cell: int | None = None
    stale: bool = False
    problem: str = ""

    @property
    def row(self) -> dict[str, str]:
        """The claim's row of the table."""
        words = {word: getattr(self.judgement, word) for word in WORDS}
        return {"claim": self.judgement.claim.id, "profile": self.profile} | words


@dataclass(frozen=True)
class Line:
    """A claim with its entries from the smallest profile to the largest: one line of the
    scoreboard."""

    paper: claims.Paper
    claim: claims.Claim
    entries: tuple[Entry, ...]

    @property
    def recorded(self) -> list[Entry]:
        """Its entries at the profiles whose record states it."""
        return [entry for entry in self.entries if entry.cell is not None]

    @property
    def chapter(self) -> str:
        """The chapter that computes it."""
        return self.paper.chapter_of(self.claim)

    @property
    def best(self) -> Entry:
        """The claim at its best profile: the largest that measured it, and the smallest if none
        did."""
        ran = [entry for entry in self.entries if entry.judgement.verdict != "not run"]
        return (ran or self.entries[:1])[-1]

    @property
    def stale(self) -> bool:
        """Whether one of its records is older than its code."""
        return any(entry.stale for entry in self.entries)

    @property
    def failed(self) -> bool:
        """Whether it does not reproduce, or does not survive, in full at its best profile."""
        return not FAILED.isdisjoint(self.best.row.values())

    @property
    def in_full(self) -> str:
        """What the claim says, and its row at each profile that measured it, for a terminal."""
        return markup.fill("line.txt.j2", line=self)

    def at(self, profile: str) -> Entry:
        """The claim at a profile."""
        return self.entries[SIZES.index(profile)]


def _entry(claim: claims.Claim, profile: str, manifest: manifests.Manifest | None) -> Entry:
    nothing = claims.judge(claim, {}, profile)
    if manifest is None:
        return Entry(nothing, profile)
    if claim.id not in manifest.claims:
        return Entry(nothing, profile, problem=f"the registered claim {claim.id} has no cell")
    record = manifest.claims[claim.id]
    try:
        judgement = claims.judge(claim, record.measured, profile, record.modern)
    except claims.ClaimError as error:
        return Entry(nothing, profile, problem=str(error))
    return Entry(judgement, profile, record.cell, manifests.is_stale(manifest))


def records() -> dict[tuple[str, str], manifests.Manifest]:
    """The recorded evidence by profile and chapter."""
    return {
        (profile, chapter): manifest
        for profile in SIZES
        for chapter, manifest in manifests.collect(profile).items()
    }


def _registered() -> list[Line]:
    found, recorded = [], records()
    for paper, claim in claims.entries():
        chapter = paper.chapter_of(claim)
        entries = [_entry(claim, size, recorded.get((size, chapter))) for size in SIZES]
        found.append(Line(paper, claim, tuple(entries)))
    return found


def lines() -> list[Line]:
    """The scoreboard, one line per registered claim, judged afresh from the recorded measurements:
    chapter by chapter, in each as in the registry."""
    return sorted(_registered(), key=lambda line: line.chapter)


Counts = dict[str, Counter[str]]  # a question of QUESTIONS: how often each word


def count(found: Iterable[Entry]) -> Counts:
    """How often each word is the verdict of a claim, the answer to a question, and the verdict on
    whether a claim survives; words without an entry are left out, and so is a survival not run."""
    said: dict[str, list[str]] = {group: [] for group in QUESTIONS}
    for judged in (entry.judgement for entry in found):
        said[ANSWERED if judged.claim.kind == "question" else REPRODUCES].append(judged.verdict)
        said[SURVIVES] += [judged.survives] if judged.survives not in ("", "not run") else []
    return {group: markup.tally(words) for group, words in said.items()}


def counts(found: Sequence[Line]) -> dict[str, Counts]:
    """:func:`count` by profile, of those that were run, and at the best one of each claim."""
    by_profile = {profile: count(line.at(profile) for line in found) for profile in sizes(found)}
    return by_profile | {"best of each claim": count(line.best for line in found)}


def sizes(found: Sequence[Line]) -> list[str]:
    """The profiles at which something was run, in order; the smallest where nothing was."""
    ran = {entry.profile for line in found for entry in line.recorded}
    return [size for size in SIZES if size in ran] or list(SIZES[:1])


def verdicts_file() -> Path:
    """The committed table."""
    return paths.root() / "data" / "verdicts.csv"


def as_csv(found: Sequence[Line]) -> str:
    """The table as the text of its file."""
    entries = [entry for line in found for entry in line.entries]
    # Where the networks are toys, which way a claim points says nothing worth a diff.
    toys = {SIZES[0]: {"direction": ""}}
    return files.csv_text(COLUMNS, (e.row | toys.get(e.profile, {}) for e in entries), end="\n")


def write() -> Path:
    """Write the committed table and the README's picture, and make the rows in the recorded
    notebooks agree with their numbers and the registry."""
    for (profile, chapter), manifest in records().items():
        file = manifests.recorded_run(chapter, profile)
        again = execute.text_of(execute.rendered_again(nbformat.read(file, as_version=4), manifest))
        if again != file.read_text(encoding="utf-8"):
            files.write_all({file: again})
    files.write_all({verdicts_file(): as_csv(_registered())})
    if cover := front.new_cover():
        files.write_all({front.cover_file(): cover})
    return verdicts_file()


def check() -> list[str]:
    """Everything in which records, registry and the committed table disagree; an empty list is a
    pass.

    Found: a row of the table that is not what is computed, a claim without a cell, a cell without
    a claim, a notebook that states or shows something else than its manifest knows, a row whose
    text is not what its numbers give, half a record, a picture of the README that is not of the
    record, and a registry without claims.
    """
    found = _registered()
    if not found:
        return ["the registry data/claims has no claims, so there is nothing to check"]
    problems = [
        f"{line.chapter} at {entry.profile}: {entry.problem}"
        for line in found
        for entry in line.entries
        if entry.problem
    ]
    problems += [
        f"{chapter} at {profile}: of the notebook and its manifest only one is there; record the "
        "chapter again"
        for chapter in manifests.chapters()
        for profile in SIZES
        for notebook in [manifests.recorded_run(chapter, profile)]
        if notebook.is_file() != manifests.manifest_path(notebook).is_file()
    ]
    problems += filter(None, map(manifests.unreadable, paths.recorded_runs().glob("*/*/*.json")))
    file = verdicts_file()
    committed = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    changed = list(difflib.unified_diff(committed, as_csv(found).splitlines(), lineterm="", n=0))
    problems += [
        f"data/verdicts.csv {'has' if line[0] == '-' else 'lacks'} the row {line[1:]}"
        for line in changed[2:]
        if line[0] != "@"
    ]
    if front.new_cover():
        problems.append("book/_static/first.png is not the record's figure")
    return problems + [
        f"{chapter} at {profile}: {problem}"
        for (profile, chapter), manifest in records().items()
        for problem in _misprints(manifests.recorded_run(chapter, profile), manifest)
    ]


def _misprints(file: Path, manifest: manifests.Manifest) -> list[str]:
    """In which cells a recorded notebook does not show what its manifest and the registry give."""
    shown = nbformat.read(file, as_version=4)
    stated = [(cell, record["id"]) for cell, record in execute.records_in(shown, "claim")]
    known = {claim.id for claim in claims.of_chapter(manifest.chapter)}
    problems = [
        f"cell {record.cell + 1} names no claim of this chapter: {name}"
        for name, record in manifest.claims.items()
        if name not in known
    ]
    if sorted(stated) != sorted((record.cell, name) for name, record in manifest.claims.items()):
        problems.append("the notebook and its manifest differ in what is stated where")
    if execute.outputs_digest(shown) != manifest.outputs:
        problems.append("the notebook shows something else than it did when it was run")
    again = execute.rendered_again(nbformat.read(file, as_version=4), manifest)
    for index, (old, new) in enumerate(zip(shown.cells, again.cells, strict=True), 1):
        if old.get("outputs") != new.get("outputs"):
            problems.append(f"cell {index} does not show what its numbers and the registry give")
    return problems


# --- two runs -------------------------------------------------------------------------------------

_FACTS = (
    "chapter", "part", "profile", "seed", "device", "device_name", "threads", "platform", "commit",
    "dirty", "code",
)  # fmt: skip


def differences(first: manifests.Manifest, second: manifests.Manifest) -> list[str]:
    """What two runs differ in: parameters, versions, machine, code, data, and each claim's numbers
    and verdicts."""
    old, new = _told(first), _told(second)
    return [
        f"{name}: {_value(old.get(name))} -> {_value(new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _told(run: manifests.Manifest) -> dict[str, object]:
    """Everything that two runs are compared by."""
    found = {name: getattr(run, name) for name in _FACTS}
    for group in ("parameters", "versions", "data"):
        found |= {f"{group}.{name}": value for name, value in getattr(run, group).items()}
    judged = {claim.id: judgement for claim, judgement in manifests.judged(run)}
    for name, record in run.claims.items():
        numbers = record.measured | record.modern
        if name in judged:
            numbers |= {word: getattr(judged[name], word) for word in WORDS}
        found |= {f"{name} {what}": value for what, value in numbers.items()}
    return found


def _value(value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(item, float | dict) for item in value):
        return rules.quantity(rules.interval(rules.numbers("", {"": value})[""]))
    return "–" if value in (None, "", []) else str(value)
