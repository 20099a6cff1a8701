"""Claims: what each paper asserts, as data, and the verdicts that follow from what was measured.

``data/claims/<key>.yml`` is the registry; its rules are those of :mod:`support.book.rules`. Design:
every number that a page shows beside a claim passes through here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from support.book import markup, rules
from support.book.markup import Rendered
from support.book.profiles import SIZES, Size, first_problem, near, parse_yaml
from support.book.rules import ClaimError, Interval, Measured, Name, Outcome, Rule, Strict
from support.common import paths

VERDICTS = ("reproduced", "partly", "not reproduced", "refuted", "scaled-down", "not run")
SURVIVALS = ("survives", "weakened", "broken", "not run")
Kind = Literal["identity", "empirical", "robustness", "open"]
KINDS = get_args(Kind)


# --- the registry ---------------------------------------------------------------------------------


class Claim(Strict):
    """One assertion of a paper: where it stands, what it says, the published numbers, and the rules
    that judge it."""

    id: Annotated[str, Field(pattern=r"^[a-z]+[0-9]{4}\.[a-z0-9]+([-.][a-z0-9]+)*$")]
    kind: Kind
    where: Annotated[str, Field(min_length=1)]
    says: Annotated[str, Field(min_length=1)]
    published: dict[Name, Annotated[float, Field(allow_inf_nan=False)] | int] = Field({})
    rules: Annotated[list[Rule], Field(min_length=1)]
    survives_rules: list[Rule] = Field([])
    smallest: Size
    corrected: str = ""
    chapter: str = ""  # the paper's chapter where this is empty

    @model_validator(mode="after")
    def _second_question(self) -> "Claim":
        if (self.kind == "robustness") != bool(self.survives_rules):
            raise ValueError(
                f"{self.id}: survives_rules are for robustness claims, and each of those needs some"
            )
        return self

    @property
    def published_lines(self) -> list[str]:
        """The published numbers, one line each."""
        return [f"{name} = {rules.number(value)}" for name, value in self.published.items()]


class Paper(Strict):
    """A paper and what it claims."""

    key: Annotated[str, Field(pattern=r"^[a-z]+[0-9]{4}$")]
    title: str
    authors: str
    year: int
    chapter: str
    claims: tuple[Claim, ...] = ()

    @cached_property
    def by_id(self) -> dict[str, Claim]:
        return {claim.id: claim for claim in self.claims}

    def chapter_of(self, claim: Claim) -> str:
        """The chapter that computes a claim."""
        return claim.chapter or self.chapter


class _File(Strict):
    paper: Paper
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ids(self) -> "_File":
        ids = [claim.id for claim in self.claims]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"ids given twice: {', '.join(twice)}")
        if strange := [name for name in ids if name.partition(".")[0] != self.paper.key]:
            raise ValueError(f"ids that do not start with {self.paper.key}.: {', '.join(strange)}")
        return self


def folder() -> Path:
    """Where the registry lies."""
    return paths.root() / "data" / "claims"


def load(key: str) -> Paper:
    """One paper of the registry.

    Raises:
        ClaimError: no such paper, or a file that breaks the schema; the message names the file and
            the entry.
    """
    known = sorted(path.stem for path in folder().glob("*.yml"))
    if key not in known:
        raise ClaimError(
            f"no paper {key!r} in the claims registry: {near(key, known)}papers: "
            f"{', '.join(known) or 'none'}"
        )
    return _parsed(key, (folder() / f"{key}.yml").read_text(encoding="utf-8"))


@lru_cache(maxsize=64)  # a build asks for each file twenty times, and reading YAML takes long
def _parsed(key: str, text: str) -> Paper:
    try:
        content = _File.model_validate(parse_yaml(text))
    except yaml.YAMLError as error:
        raise ClaimError(f"{key}.yml is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ClaimError(f"{key}.yml: {first_problem(error)}") from error
    if content.paper.key != key:
        raise ClaimError(
            f"{key}.yml: paper.key is {content.paper.key}, but the file is named {key}"
        )
    return content.paper.model_copy(update={"claims": content.claims})


def registry() -> dict[str, Paper]:
    """Every paper of the registry by its key."""
    return {file.stem: load(file.stem) for file in sorted(folder().glob("*.yml"))}


def of_chapter(chapter: str) -> list[Claim]:
    """The claims that a chapter must state, in the registry's order."""
    return [
        claim
        for paper in registry().values()
        for claim in paper.claims
        if paper.chapter_of(claim) == chapter
    ]


def find(claim_id: str) -> tuple[Paper, Claim]:
    """A claim and its paper.

    Raises:
        ClaimError: no such claim; the message offers near names.
    """
    known = {name: paper for paper in registry().values() for name in paper.by_id}
    if claim_id not in known:
        near_names = near(claim_id, list(known))
        raise ClaimError(f"no claim {claim_id!r} in the registry. {near_names}".strip())
    return known[claim_id], known[claim_id].by_id[claim_id]


# --- verdicts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """A claim's two verdicts at a profile, with the outcome of each rule.

    ``direction`` is ``towards``, ``away`` or ``mixed`` for a claim that this profile is too small
    to judge, else empty; ``survives`` is empty unless the claim is about robustness. ``numbers``
    holds every measurement as one float per run.
    """

    claim: Claim
    verdict: str
    direction: str
    survives: str
    rows: tuple[Outcome, ...]
    modern_rows: tuple[Outcome, ...]
    numbers: dict[str, tuple[float, ...]]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Mean and interval of every measurement that was made."""
        return {name: rules.interval(values) for name, values in self.numbers.items() if values}

    @property
    def other_lines(self) -> list[str]:
        """What was measured beside the numbers that the rules name, one line each."""
        both = (*self.claim.rules, *self.claim.survives_rules)
        ruled = {name for rule in both for name in rule.names}
        return [rules.named(*found) for found in self.numbers.items() if found[0] not in ruled]

    @property
    def points(self) -> str:
        """Which way a claim points that its profile is too small to judge, in words; empty for any
        other."""
        if self.direction in ("", "mixed"):
            return "points both ways" if self.direction else ""
        return f"points {self.direction} {'from ' * (self.direction == 'away')}the paper"


def _summary(rows: Sequence[Outcome], all_pass: str, mixed: str, none_pass: str) -> str:
    statuses = {row.status for row in rows}
    if "missing" in statuses:
        return "not run"
    return all_pass if statuses == {"pass"} else none_pass if statuses == {"fail"} else mixed


def judge(
    claim: Claim, measured: Measured, profile: str, modern: Measured | None = None
) -> Judgement:
    """The verdicts on a claim.

    Args:
        measured: what the claim's rules name, as a number or one number per run; further numbers
            are kept and shown. None, NaN and an empty list mean "not measured"; so does an empty
            mapping.
        profile: the size it was measured at.
        modern: the same for ``survives_rules``, under today's evaluation protocol.

    Returns:
        ``reproduced`` if every rule passes; ``refuted`` (an identity) or ``not reproduced`` if
        every rule fails; else ``partly``. At a profile below ``claim.smallest``: ``scaled-down``,
        with the direction. A missing measurement: ``not run``.

    Raises:
        ClaimError: a value that is no number, unequal numbers of runs, a rule's value left out
            while others are given (say None), or ``modern`` for a claim without a second question.
    """
    numbers = rules.numbers(claim.id, measured)
    modern_numbers = rules.numbers(claim.id, modern or {})
    if modern and not claim.survives_rules:
        raise ClaimError(f"{claim.id} has no survives_rules, so it takes no modern measurements")
    for given, asking in ((numbers, claim.rules), (modern_numbers, claim.survives_rules)):
        absent = sorted({name for rule in asking for name in rule.names} - set(given))
        if given and absent:
            raise ClaimError(
                f"{claim.id}: its rules want {', '.join(absent)} beside {', '.join(given)}; give "
                "None for what was not measured"
            )
    both = numbers | modern_numbers
    if shared := sorted(name for name in numbers if numbers[name] != both[name]):
        raise ClaimError(
            f"{claim.id}: {', '.join(shared)} has one value as measured and another as modern: "
            "give them two names"
        )
    rows = tuple(rules.apply(claim.id, rule, numbers) for rule in claim.rules)
    modern_rows = tuple(
        rules.apply(claim.id, rule, modern_numbers) for rule in claim.survives_rules
    )
    none_pass = "refuted" if claim.kind == "identity" else "not reproduced"
    verdict, direction = _summary(rows, "reproduced", "partly", none_pass), ""
    if verdict != "not run" and SIZES.index(profile) < SIZES.index(claim.smallest):
        verdict, direction = "scaled-down", _summary(rows, "towards", "mixed", "away")
    survives = _summary(modern_rows, "survives", "weakened", "broken") if modern_rows else ""
    return Judgement(claim, verdict, direction, survives, rows, modern_rows, both)


# --- how a row looks ------------------------------------------------------------------------------


def render(claim: Claim, judgement: Judgement) -> Rendered:
    """The row of a claim: what it says, published, here with intervals, and the verdicts."""
    return markup.rendered("claim", claim=claim, found=judgement)


def render_verdicts(judged: Sequence[tuple[Claim, Judgement]]) -> Rendered:
    """The verdicts side by side, and under them what is true where the paper is wrong or loose."""
    return markup.rendered("verdicts", judged=[found for _, found in judged])


def render_record(record: Mapping[str, Any]) -> Rendered:
    """A run's record, as :meth:`support.book.chapter_run.Run.record` gives it, as a folded
    table."""
    text = markup.fill("record.txt.j2", record=record)
    lines = [line.partition(": ")[::2] for line in text.splitlines()]
    return Rendered(markup.fill("record.html.j2", lines=lines), text)
