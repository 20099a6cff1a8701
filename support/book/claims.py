"""Claims: what each paper asserts, as data, and the verdicts that follow from what was measured.

``data/claims/<key>.yml`` is the registry; its rules are those of :mod:`support.book.rules`. Design:
every number that a page shows beside a claim passes through here.
"""

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from support.book import markup, rules
from support.book.markup import Rendered
from support.book.profiles import SIZES, Size, first_problem, near, parse_yaml
from support.book.rules import ClaimError, Interval, Measured, Name, Outcome, Rule, Strict
from support.common import paths

VERDICTS = (
    "reproduced", "partly", "not reproduced", "refuted", "undecided", "scaled-down", "not run",
)  # fmt: skip
ANSWERS = ("yes", "no", "undecided", "scaled-down", "not run")
SURVIVALS = ("survives", "weakened", "broken", "undecided", "not run")
Kind = Literal["identity", "empirical", "robustness", "question"]
KINDS = get_args(Kind)


# --- the registry ---------------------------------------------------------------------------------


class Erratum(Strict):
    """What is true where the paper is wrong, and what shows it: a test, as
    ``tests/test_heads.py::test_x``, or the cell of an evidence that states a claim, as
    ``03_adversarial_directions/evidence#zou2018.thm1``."""

    text: Annotated[str, Field(min_length=1)]
    shown_by: Annotated[
        str, Field(pattern=r"^(tests/\w+\.py::\w+(\[.+\])?|[0-9]{2}_\w+/evidence#[\w.-]+)$")
    ]


class Claim(Strict):
    """One assertion of a paper: where it stands, what it says, the published numbers, and the rules
    that judge it.

    Attributes:
        published: numbers that the paper prints.
        ranges: the least and the greatest value that a measurement can take.
        nulls: for a measurement, the name of the one that shows what it is where there is no
            effect.
        erratum: a mistake of the paper, mended.
        remark: what else a reader should know.
    """

    id: Annotated[str, Field(pattern=r"^[a-z]+[0-9]{4}\.[a-z0-9]+([-.][a-z0-9]+)*$")]
    kind: Kind
    where: Annotated[str, Field(min_length=1)]
    says: Annotated[str, Field(min_length=1)]
    published: dict[Name, Annotated[float, Field(allow_inf_nan=False)] | int] = Field({})
    rules: Annotated[list[Rule], Field(min_length=1)]
    survives_rules: list[Rule] = Field([])
    smallest: Size
    ranges: dict[Name, tuple[float, float]] = Field({})
    nulls: dict[Name, Name] = Field({})
    erratum: Erratum | None = None
    remark: str = ""
    chapter: str = ""  # the paper's chapter where this is empty

    @model_validator(mode="after")
    def _rules_fit(self) -> "Claim":
        if (self.kind == "robustness") != bool(self.survives_rules):
            raise ValueError(
                f"{self.id}: survives_rules are for robustness claims, and each of those needs some"
            )
        for rule in self.every_rule:
            for word in ("passes", "fails"):
                example = getattr(rule, word)
                differences = {rules.minus(*pair) for pair in rule.pairs}
                if set(example) - differences != set(rule.names):
                    raise ValueError(
                        f"{self.id}: a rule about {', '.join(rule.names)} wants an example with "
                        f"these names that {word}; given {', '.join(example) or 'none'}"
                    )
                self.check_ranges(rules.numbers(self.id, example))
        return self

    @property
    def every_rule(self) -> tuple[Rule, ...]:
        """The rules of both questions."""
        return (*self.rules, *self.survives_rules)

    def check_ranges(self, found: rules.Numbers) -> None:
        """Refuse numbers that the quantity cannot take.

        Raises:
            ClaimError: a number outside its range.
        """
        for name, (low, high) in self.ranges.items():
            if outside := [value for value in found.get(name, ()) if not low <= value <= high]:
                raise ClaimError(
                    f"{self.id}: {name} lies in {rules.number(low)} to {rules.number(high)}; given "
                    f"{rules.number(outside[0])}"
                )

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


@lru_cache(maxsize=64)  # a build asks for each file twenty times, and reading YAML takes long
def parsed(name: str, text: str, schema: Any) -> Any:
    """The content of a YAML file, as pydantic reads it by a model or another type.

    Raises:
        ClaimError: it breaks the schema; the message names the file and the entry.
    """
    try:
        return TypeAdapter(schema).validate_python(parse_yaml(text))
    except yaml.YAMLError as error:
        raise ClaimError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ClaimError(f"{name}: {first_problem(error)}") from error


def registry() -> dict[str, Paper]:
    """Every paper of the registry by its key.

    Raises:
        ClaimError: a file that breaks the schema; the message names the file and the entry.
    """
    found = {}
    for file in sorted(folder().glob("*.yml")):
        content = parsed(file.name, file.read_text(encoding="utf-8"), _File)
        if (key := content.paper.key) != file.stem:
            raise ClaimError(f"{file.name}: paper.key is {key}, but the file is named {file.stem}")
        found[key] = content.paper.model_copy(update={"claims": content.claims})
    return found


def entries() -> list[tuple[Paper, Claim]]:
    """Every claim with its paper, in the registry's order."""
    return [(paper, claim) for paper in registry().values() for claim in paper.claims]


def of_chapter(chapter: str) -> list[Claim]:
    """The claims that a chapter must state, in the registry's order."""
    return [claim for paper, claim in entries() if paper.chapter_of(claim) == chapter]


def find(claim_id: str) -> tuple[Paper, Claim]:
    """A claim and its paper.

    Raises:
        ClaimError: no such claim; the message offers near names.
    """
    known = {claim.id: (paper, claim) for paper, claim in entries()}
    if claim_id not in known:
        near_names = near(claim_id, list(known))
        raise ClaimError(f"no claim {claim_id!r} in the registry. {near_names}".strip())
    return known[claim_id]


# --- verdicts -------------------------------------------------------------------------------------


# What is said where all rules pass, where some pass and some fail, and where all fail.
_SURVIVES = ("survives", "weakened", "broken")
_POINTS = ("towards", "mixed", "away")


def _reproduces(kind: Kind) -> tuple[str, str, str]:
    if kind == "question":
        return "yes", "undecided", "no"
    return "reproduced", "partly", "refuted" if kind == "identity" else "not reproduced"


def _word(rows: Sequence[Outcome], all_pass: str, mixed: str, all_fail: str) -> str:
    """The word for the outcomes of rules; ``undecided`` where they decide too little for any of the
    three, and ``not run`` where one misses its measurement."""
    statuses = {row.status for row in rows}
    if "missing" in statuses:
        return "not run"
    if {"pass", "fail"} <= statuses:
        return mixed
    alone = statuses.pop() if len(statuses) == 1 else "undecided"
    return {"pass": all_pass, "fail": all_fail}.get(alone, "undecided")


@dataclass(frozen=True)
class Judgement:
    """A claim's two verdicts at a profile, with the outcome of each rule.

    ``direction`` is ``towards``, ``away``, ``mixed`` or ``undecided`` for a claim that this profile
    is too small to judge, else empty; ``survives`` is empty unless the claim is about robustness.
    ``numbers`` holds every measurement, one number per run.
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
    def compared(self) -> list[tuple[str, str, str]]:
        """Name, published number and number here, of what is both published and measured.

        Without a deviation that is judged by a tolerance: its digits are the machine's.
        """
        deviations = {rule.value for rule in self.claim.every_rule if rule.type == "max_abs"}
        here = {name: one for name, one in self.intervals.items() if name not in deviations}
        return [
            (name, rules.number(value), rules.quantity(here[name]))
            for name, value in self.claim.published.items()
            if name in here
        ]

    @property
    def lines(self) -> list[str]:
        """What the rules of the first question say, one line each."""
        return _lines(self.rows)

    @property
    def modern_lines(self) -> list[str]:
        """What the rules of the second question say, one line each."""
        return _lines(self.modern_rows)

    @property
    def null_lines(self) -> list[str]:
        """What numbers are where there is no effect, one line each."""
        return [
            f"{name}: without an effect {rules.named(null, self.numbers.get(null, ()))}"
            for name, null in self.claim.nulls.items()
        ]

    @property
    def other_lines(self) -> list[str]:
        """What was measured beside the numbers that the rules and the nulls name, one line each."""
        every = self.claim.every_rule
        told = {name for rule in every for name in rule.names} | set(self.claim.nulls.values())
        told |= {rules.minus(*pair) for rule in every for pair in rule.pairs}
        # Sorted as a record keeps them, so that a row reads the same live and from its record.
        rest = sorted(name for name in self.numbers if name not in told)
        return [rules.named(name, self.numbers[name]) for name in rest]

    @property
    def points(self) -> str:
        """Which way a claim points that its profile is too small to judge, in words; empty for any
        other."""
        asked = self.claim.kind == "question"
        words = {
            "towards": "points to yes" if asked else "points towards the paper",
            "away": "points to no" if asked else "points away from the paper",
            "mixed": "points both ways",
            "undecided": "undecided at this size",
        }
        return words.get(self.direction, "")


def _lines(rows: Sequence[Outcome]) -> list[str]:
    """The outcomes, and above them how many hold where they do not all say the same."""
    count = collections.Counter(row.status for row in rows)
    told = [
        f"{number} {'fail' if number > 1 else 'fails'}" if word == "fail" else f"{number} {word}"
        for word in ("fail", "undecided", "missing")
        if (number := count[word])
    ]
    holds = f"{count['pass']} of {len(rows)} rules {'holds' if count['pass'] == 1 else 'hold'}"
    tally = [", ".join([holds, *told])] if len(count) > 1 else []
    return tally + [row.line for row in rows]


def judge(
    claim: Claim, measured: Measured, profile: str, modern: Measured | None = None
) -> Judgement:
    """The verdicts on a claim.

    Args:
        measured: what the claim's rules name, as a number or one number per run; further numbers
            are kept and shown. None, NaN and an empty list mean "not measured"; so does an empty
            mapping. As a chapter gives it, or as its record has it.
        profile: the size it was measured at.
        modern: the same for ``survives_rules``, under today's evaluation protocol.

    Returns:
        ``reproduced`` if every rule passes; ``refuted`` (an identity) or ``not reproduced`` if
        every rule fails; ``partly`` if some pass and some fail; else ``undecided``. A question is
        answered ``yes`` if every rule passes, ``no`` if every rule fails, else ``undecided``. At a
        profile below ``claim.smallest``: ``scaled-down``, with the direction. A missing
        measurement: ``not run``.

    Raises:
        ClaimError: a value that is no number or outside its range, unequal numbers of runs, a
            rule's value left out while others are given (say None), or ``modern`` for a claim
            without a second question.
    """
    if modern and not claim.survives_rules:
        raise ClaimError(f"{claim.id} has no survives_rules, so it takes no modern measurements")
    numbers = read(claim, claim.rules, measured)
    modern_numbers = read(claim, claim.survives_rules, modern or {})
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
    verdict, direction = _word(rows, *_reproduces(claim.kind)), ""
    if verdict != "not run" and SIZES.index(profile) < SIZES.index(claim.smallest):
        verdict, direction = "scaled-down", _word(rows, *_POINTS)
    survives = _word(modern_rows, *_SURVIVES) if modern_rows else ""
    return Judgement(claim, verdict, direction, survives, rows, modern_rows, both)


def read(claim: Claim, asking: Sequence[Rule], measured: Measured) -> dict[str, tuple[float, ...]]:
    """Measurements as numbers, with the paired differences that some of a claim's rules judge.

    Raises:
        ClaimError: see :func:`judge`.
    """
    numbers = rules.numbers(claim.id, measured)
    absent = sorted({name for rule in asking for name in rule.names} - set(numbers))
    if numbers and absent:
        raise ClaimError(
            f"{claim.id}: its rules want {', '.join(absent)} beside {', '.join(numbers)}; give "
            "None for what was not measured"
        )
    claim.check_ranges(numbers)
    return numbers | rules.paired(asking, numbers)


# --- how a row looks ------------------------------------------------------------------------------


def render(claim: Claim, judgement: Judgement) -> Rendered:
    """The row of a claim: what it says, published, here with intervals, and the verdicts."""
    return markup.rendered("claim", claim=claim, found=judgement)


def verdict_link(judgement: Judgement, *, second: bool = False) -> str:
    """The first or the ``second`` verdict as a badge that leads from a chapter's lesson to the
    claim's row in its evidence, as HTML that a line of Markdown can hold.

    Raises:
        ClaimError: a second verdict on a claim that is not about robustness.
    """
    word = judgement.survives if second else judgement.verdict
    if not word:
        raise ClaimError(f"{judgement.claim.id} has no second verdict")
    note = ("at this size" * bool(judgement.direction)) if second else judgement.points
    return markup.fill("verdict_link.html.j2", found=judgement, word=word, note=note)


def render_verdicts(judged: Sequence[tuple[Claim, Judgement]]) -> Rendered:
    """The verdicts side by side, and under them what is true where the paper is wrong or loose."""
    return markup.rendered("verdicts", judged=[found for _, found in judged])


def render_record(record: Mapping[str, Any]) -> Rendered:
    """A run's record, as :meth:`support.book.chapter_run.Run.record` gives it, as a folded
    table."""
    text = markup.fill("record.txt.j2", record=record)
    lines = [line.partition(": ")[::2] for line in text.splitlines()]
    return Rendered(markup.fill("record.html.j2", lines=lines), text)
