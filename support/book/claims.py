"""Claims: what each paper asserts, as data, and the verdicts that follow from what was measured.

``data/claims/<key>.yml`` is the registry. A rule compares measured numbers with bounds; it is data,
never an evaluated string. A measurement is a number, or one number per training run. A rule on runs
is judged by their mean, and is *undecided* when the 95 % Student interval over the runs straddles
its bound. Design: every number that a page shows beside a claim passes through here.
"""

import html
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from support.book.profiles import SIZES, Size, first_problem, near, parse_yaml
from support.common import paths

CONFIDENCE = 0.95
VERDICTS = ("reproduced", "partly", "not reproduced", "refuted", "scaled-down", "not run")
SURVIVALS = ("survives", "weakened", "broken", "not run")
Measured = Mapping[str, float | Sequence[float] | None]
Kind = Literal["identity", "empirical", "robustness", "open"]
KINDS = get_args(Kind)
Status = Literal["pass", "fail", "undecided", "missing"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class ClaimError(ValueError):
    """A registry that breaks its schema, an unknown claim, or a measurement that is not a number.
    The message is one line."""


# --- what was measured
# ------------------------------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean over runs with its 95 % Student interval; the bounds are None for a single run."""

    mean: float
    low: float | None
    high: float | None
    runs: int


def interval(values: Sequence[float]) -> Interval:
    """Mean of independent runs and its 95 % Student t interval.

    Args:
        values: one finite number per run, at least one.
    """
    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, None, None, len(sample))
    half = float(_quantile(len(sample)) * sample.std(ddof=1) / math.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half, len(sample))


def _quantile(runs: int) -> float:
    from scipy.stats import t as student  # a second to import, and a single run needs none

    return float(student.ppf((1 + CONFIDENCE) / 2, runs - 1))


def ratio_interval(numerator: Sequence[float], denominator: Sequence[float]) -> Interval:
    """Ratio of two means over paired runs with Fieller's 95 % interval, which stays exact where a
    denominator comes near zero.

    The bounds are infinite when the denominator's mean cannot be told from zero, and None for a
    single run.
    """
    pair = np.stack([np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)])
    runs, (top, bottom) = pair.shape[1], pair.mean(1)
    ratio = float(top / bottom) if bottom else math.copysign(math.inf, top) if top else math.nan
    if runs < 2:
        return Interval(ratio, None, None, runs)
    spread = _quantile(runs) ** 2 * np.cov(pair) / runs
    a, b, c = bottom**2 - spread[1, 1], top * bottom - spread[0, 1], top**2 - spread[0, 0]
    if a <= 0:
        return Interval(ratio, -math.inf, math.inf, runs)
    root = math.sqrt(max(b * b - a * c, 0.0))
    return Interval(ratio, float((b - root) / a), float((b + root) / a), runs)


def _numbers(claim_id: str, measured: Measured) -> dict[str, tuple[float, ...]]:
    """Each measurement as a tuple of floats; what was not measured (None, nothing, or any value
    that is not finite) is empty."""
    found = {}
    for name, given in measured.items():
        values = given.tolist() if hasattr(given, "tolist") else given
        values = (
            ()
            if values is None
            else tuple(values)
            if isinstance(values, list | tuple)
            else (values,)
        )
        if not all(isinstance(value, int | float) or value is None for value in values):
            raise ClaimError(
                f"{claim_id}: {name} must be a number or a list with one number per run, given {given!r:.80}"
            )
        found[name] = (
            tuple(map(float, values))
            if all(value is not None and math.isfinite(value) for value in values)
            else ()
        )
    return found


# --- rules ------------------------------------------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Outcome:
    """What a rule says of a measurement: its status, what was seen, and what the rule wants."""

    status: Status
    seen: str
    wants: str


def _above(values: np.ndarray, bound: float) -> Status:
    """Whether the mean of ``values`` is at least ``bound``; undecided when their interval has the
    bound strictly inside."""
    found = interval(values)
    # Equal runs have no spread, but the rounding of their mean leaves one.
    if found.low is not None and np.ptp(values) > 0 and found.low < bound < found.high:
        return "undecided"
    return "pass" if found.mean >= bound or np.all(values == bound) else "fail"


def _both(statuses: Iterable[Status]) -> Status:
    statuses = set(statuses)
    return next((status for status in ("fail", "undecided") if status in statuses), "pass")


def _within(samples: np.ndarray, low: float, high: float) -> Status:
    below = [_above(samples, low)] if math.isfinite(low) else []
    return _both(below + ([_above(-samples, -high)] if math.isfinite(high) else []))


class _Bounded(_Strict):
    low: float = -math.inf
    high: float = math.inf

    @model_validator(mode="after")
    def _bounds(self):
        if (
            math.isnan(self.low)
            or math.isnan(self.high)
            or self.low > self.high
            or (math.isinf(self.low) and math.isinf(self.high))
        ):
            raise ValueError(
                f"wants low <= high, at least one of them finite; given {self.low} and {self.high}"
            )
        return self

    @property
    def wants(self) -> str:
        if math.isinf(self.high):
            return f"at least {number(self.low)}"
        return (
            f"at most {number(self.high)}"
            if math.isinf(self.low)
            else f"{number(self.low)} to {number(self.high)}"
        )


class IntervalRule(_Bounded):
    """The mean lies in [low, high]."""

    type: Literal["interval"]
    value: Name

    @property
    def names(self) -> tuple[str, ...]:
        return (self.value,)

    def apply(self, values: np.ndarray) -> Outcome:
        return Outcome(
            _within(values[0], self.low, self.high),
            f"{self.value} = {quantity(interval(values[0]))}",
            self.wants,
        )


class RatioRule(_Bounded):
    """The ratio of two means lies in [low, high]; judged on numerator - bound * denominator, so
    that nothing is divided by zero."""

    type: Literal["ratio"]
    numerator: Name
    denominator: Name

    @property
    def names(self) -> tuple[str, ...]:
        return (self.numerator, self.denominator)

    def apply(self, values: np.ndarray) -> Outcome:
        if (values[1] < 0).any():
            raise ClaimError(
                f"{self.denominator} is below zero: a ratio rule wants a denominator of zero or more"
            )
        parts = " / ".join(
            f"({name} = {quantity(interval(row))})"
            for name, row in zip(self.names, values, strict=True)
        )
        if not values.any():
            return Outcome("undecided", f"{parts}, no ratio", self.wants)
        low = [_above(values[0] - self.low * values[1], 0.0)] if math.isfinite(self.low) else []
        high = [_above(self.high * values[1] - values[0], 0.0)] if math.isfinite(self.high) else []
        return Outcome(
            _both(low + high), f"{parts} = {quantity(ratio_interval(*values))}", self.wants
        )


class OrderingRule(_Strict):
    """Each mean is at least the next one plus ``gap``; judged on the differences, run by run."""

    type: Literal["ordering"]
    values: Annotated[list[Name], Field(min_length=2)]
    gap: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    def apply(self, values: np.ndarray) -> Outcome:
        steps = [
            _above(larger - smaller, self.gap) for larger, smaller in itertools.pairwise(values)
        ]
        seen = ", ".join(
            f"{name} = {quantity(interval(row))}"
            for name, row in zip(self.values, values, strict=True)
        )
        return Outcome(
            _both(steps),
            seen,
            " ≥ ".join(self.values) + (f", by {number(self.gap)}" if self.gap else ""),
        )


class MaxAbsRule(_Strict):
    """No run's value is farther from zero than ``tolerance``. A value that is shown as "≤
    tolerance" reads the same on every machine."""

    type: Literal["max_abs"]
    value: Name
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.value,)

    def apply(self, values: np.ndarray) -> Outcome:
        largest = float(np.abs(values).max())
        wants = f"≤ {number(self.tolerance)}" if self.tolerance else "0"
        if largest > self.tolerance:
            return Outcome("fail", f"{self.value} = {number(largest)}", wants)
        return Outcome(
            "pass", f"{self.value} {wants}" if self.tolerance else f"{self.value} = 0", wants
        )


Rule = Annotated[IntervalRule | RatioRule | OrderingRule | MaxAbsRule, Field(discriminator="type")]


def _apply(
    claim_id: str,
    rule: IntervalRule | RatioRule | OrderingRule | MaxAbsRule,
    measured: Mapping[str, tuple[float, ...]],
) -> Outcome:
    samples = [measured.get(name, ()) for name in rule.names]
    if not all(samples):
        absent = ", ".join(
            name for name, values in zip(rule.names, samples, strict=True) if not values
        )
        return Outcome("missing", f"{absent}: not measured", getattr(rule, "wants", ""))
    runs = max(map(len, samples))
    if any(len(values) not in (1, runs) for values in samples):
        raise ClaimError(
            f"{claim_id}: {', '.join(rule.names)} must have the same number of runs, given {', '.join(str(len(v)) for v in samples)}"
        )
    return rule.apply(np.array([values * (runs // len(values)) for values in samples]))


# --- the registry -----------------------------------------------------------------------------------------------------------------


class Claim(_Strict):
    """One assertion of a paper: where it stands, what it says, the published numbers, and the rules
    that judge it."""

    id: Annotated[str, Field(pattern=r"^[a-z]+[0-9]{4}\.[a-z0-9]+([-.][a-z0-9]+)*$")]
    kind: Kind
    where: Annotated[str, Field(min_length=1)]
    says: Annotated[str, Field(min_length=1)]
    published: dict[Name, Annotated[float, Field(allow_inf_nan=False)] | int] = {}
    rules: Annotated[list[Rule], Field(min_length=1)]
    survives_rules: list[Rule] = []
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


class Paper(_Strict):
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


class _File(_Strict):
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
    file = folder() / f"{key}.yml"
    known = sorted(path.stem for path in folder().glob("*.yml"))
    if key not in known:
        raise ClaimError(
            f"no paper {key!r} in the claims registry: {near(key, known)}papers: {', '.join(known) or 'none'}"
        )
    try:
        content = _File.model_validate(parse_yaml(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ClaimError(f"{file.name} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ClaimError(f"{file.name}: {first_problem(error)}") from error
    if content.paper.key != key:
        raise ClaimError(
            f"{file.name}: paper.key is {content.paper.key}, but the file is named {key}"
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
    papers = registry()
    for paper in papers.values():
        if claim_id in paper.by_id:
            return paper, paper.by_id[claim_id]
    raise ClaimError(
        f"no claim {claim_id!r} in the registry. {near(claim_id, [name for paper in papers.values() for name in paper.by_id])}".strip()
    )


# --- verdicts ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """A claim's two verdicts at a profile, with the outcome of each rule.

    ``direction`` is ``towards``, ``away`` or ``mixed`` for a claim that this profile is too small
    to judge, else empty; ``survives`` is empty unless the claim is about robustness. ``numbers``
    holds every measurement as one float per run.
    """

    verdict: str
    direction: str
    survives: str
    rows: tuple[Outcome, ...]
    modern_rows: tuple[Outcome, ...]
    numbers: dict[str, tuple[float, ...]]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Mean and interval of every measurement that was made."""
        return {name: interval(values) for name, values in self.numbers.items() if values}


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
    numbers, modern_numbers = _numbers(claim.id, measured), _numbers(claim.id, modern or {})
    if modern and not claim.survives_rules:
        raise ClaimError(f"{claim.id} has no survives_rules, so it takes no modern measurements")
    for given, rules in ((numbers, claim.rules), (modern_numbers, claim.survives_rules)):
        absent = sorted({name for rule in rules for name in rule.names} - set(given))
        if given and absent:
            raise ClaimError(
                f"{claim.id}: its rules want {', '.join(absent)} beside {', '.join(given)}; give None for what was not measured"
            )
    if shared := sorted(
        name for name in numbers.keys() & modern_numbers if numbers[name] != modern_numbers[name]
    ):
        raise ClaimError(
            f"{claim.id}: {', '.join(shared)} has one value as measured and another as modern: give them two names"
        )
    rows = tuple(_apply(claim.id, rule, numbers) for rule in claim.rules)
    modern_rows = tuple(_apply(claim.id, rule, modern_numbers) for rule in claim.survives_rules)
    verdict = _summary(
        rows, "reproduced", "partly", "refuted" if claim.kind == "identity" else "not reproduced"
    )
    direction = ""
    if verdict != "not run" and SIZES.index(profile) < SIZES.index(claim.smallest):
        verdict, direction = "scaled-down", _summary(rows, "towards", "mixed", "away")
    survives = (
        _summary(modern_rows, "survives", "weakened", "broken") if claim.survives_rules else ""
    )
    return Judgement(verdict, direction, survives, rows, modern_rows, numbers | modern_numbers)


# --- how a row looks --------------------------------------------------------------------------------------------------------------

# A sign and a word, so that nothing hangs on the colour; white on each colour has a contrast of at
# least 4.5 on any page.
_LOOKS = {
    "reproduced": ("✓", "#1a7f37"), "survives": ("✓", "#1a7f37"),
    "partly": ("◐", "#8a5a00"), "weakened": ("◐", "#8a5a00"),
    "not reproduced": ("✗", "#b3261e"), "refuted": ("✗", "#b3261e"), "broken": ("✗", "#b3261e"),
    "scaled-down": ("△", "#0b5cad"), "not run": ("–", "#5f6368"),
}  # fmt: skip
_MARKS = {"pass": "✓", "fail": "✗", "undecided": "?", "missing": "–"}


def number(value: float) -> str:
    """A number with four significant digits; whole numbers in full, and what is nearly 1 by what it
    lacks: ``1 - 3e-05``."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"1 - {1 - value:.1g}" if 0.99995 <= value < 1 else f"{value:.4g}"


def quantity(found: Interval) -> str:
    """A mean and its interval as text: ``0.972 [0.968, 0.976]``."""
    if found.low is None or not found.low < found.high:
        return number(found.mean)
    bounds = (
        "interval unbounded"
        if math.isinf(found.low)
        else f"{number(found.low)}, {number(found.high)}"
    )
    return f"{number(found.mean)} [{bounds}]"


class Rendered(NamedTuple):
    """One thing to show, twice: for a page and for a terminal."""

    html: str
    text: str


def badge(word: str, note: str = "") -> str:
    """A verdict as a coloured label with a sign."""
    if not word:
        return ""
    sign, colour = _LOOKS[word]
    label = f'<span style="background:{colour};color:#fff;border-radius:0.3em;padding:0.05em 0.45em;white-space:nowrap">{sign} {word}</span>'
    return label + (f" <small>{html.escape(note)}</small>" if note else "")


def towards(judgement: Judgement) -> str:
    """Which way a claim points that its profile is too small to judge, in words; empty for any
    other."""
    return {"": "", "mixed": "points both ways"}.get(
        judgement.direction,
        f"points {judgement.direction} {'from ' * (judgement.direction == 'away')}the paper",
    )


def other_lines(claim: Claim, judgement: Judgement) -> list[str]:
    """What was measured beside the numbers that the rules name, one line each."""
    ruled = {name for rule in (*claim.rules, *claim.survives_rules) for name in rule.names}
    return [
        f"{name} = {quantity(interval(values)) if values else 'not measured'}"
        for name, values in judgement.numbers.items()
        if name not in ruled
    ]


def published_lines(claim: Claim) -> list[str]:
    """The published numbers, one line each."""
    return [f"{name} = {number(value)}" for name, value in claim.published.items()]


def rule_lines(rows: Sequence[Outcome]) -> list[str]:
    """What each rule saw and wants, with a sign for its outcome, one line each."""
    return [
        f"{_MARKS[row.status]} {row.seen}"
        + (
            f" (wants {row.wants})"
            if row.wants and not (row.status == "pass" and row.seen.endswith(row.wants))
            else ""
        )
        for row in rows
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, even: bool = False) -> str:
    """An HTML table of headings and cells that are HTML already; it takes its colours from the
    page, light or dark, and never outgrows it.

    Args:
        even: all columns equally wide, for cells that are to be compared.
    """
    style = f"width:100%;table-layout:{'fixed' if even else 'auto'};overflow-wrap:anywhere"
    style_of_cell = "text-align:left;vertical-align:top;white-space:normal"
    head = "".join(f'<th style="{style_of_cell}">{name}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{style_of_cell}">{content}</td>' for content in row) + "</tr>"
        for row in rows
    )
    return f'<table class="claims" style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def cell(lines: Sequence[str]) -> str:
    """Lines of text as the HTML content of a table's cell."""
    return "<br>".join(html.escape(line).replace("_", " ") for line in lines) or "–"


def _name(claim: Claim) -> str:
    # Not <code>: the theme's dark mode writes it in a light colour on the light ground that it
    # gives to HTML outputs.
    return f'<span style="font-family:monospace;font-weight:bold">{claim.id}</span>'


def _statement(claim: Claim) -> str:
    return f"{_name(claim)}<br>{html.escape(claim.says)}<br><small>{html.escape(claim.where)} · {claim.kind}</small>"


def render(claim: Claim, judgement: Judgement) -> Rendered:
    """The row of a claim: what it says, published, here with intervals, and the verdicts."""
    here, modern = (
        rule_lines(judgement.rows) + other_lines(claim, judgement),
        rule_lines(judgement.modern_rows),
    )
    size = "at this size" if judgement.direction else ""
    columns = {
        "Published": cell(published_lines(claim)),
        f"Here {badge(judgement.verdict, towards(judgement))}": cell(here),
    }
    text = [
        f"{claim.id} ({claim.where}): {judgement.verdict}"
        + (f", {towards(judgement)}" if judgement.direction else "")
    ]
    text += [f"  published {line}" for line in published_lines(claim)] + [
        f"  {line}" for line in here
    ]
    if claim.survives_rules:
        columns[f"Under today's protocol {badge(judgement.survives, size)}"] = cell(modern)
        text += [f"  under today's protocol: {judgement.survives}" + (f", {size}" if size else "")]
        text += [f"  {line}" for line in modern]
    top = f"<p>{_statement(claim)}</p>"
    below = (
        f"<p><small><strong>What is true:</strong> {html.escape(claim.corrected)}</small></p>"
        if claim.corrected
        else ""
    )
    text += [f"  what is true: {claim.corrected}"] if claim.corrected else []
    return Rendered(
        top + table(list(columns), [list(columns.values())], even=True) + below, "\n".join(text)
    )


def render_claims(claims: Sequence[Claim]) -> Rendered:
    """What is going to be checked: each claim with its kind, its published numbers and the smallest
    profile that may judge it."""
    rows = [[_statement(claim), cell(published_lines(claim)), claim.smallest] for claim in claims]
    text = "\n".join(
        f"{claim.id} ({claim.where}; {claim.kind}, from {claim.smallest}): {claim.says}"
        for claim in claims
    )
    return Rendered(table(["Claim", "Published", "Judged from profile"], rows), text)


def render_verdicts(judged: Sequence[tuple[Claim, Judgement]]) -> Rendered:
    """The verdicts side by side, and under them what is true where the paper is wrong or loose."""
    rows = [
        [
            f"{_name(claim)}<br><small>{html.escape(claim.where)}</small>",
            badge(found.verdict, towards(found)),
            badge(found.survives) or "–",
        ]
        for claim, found in judged
    ]
    text = []
    for claim, found in judged:
        direction, survives = (
            f" ({towards(found)})" if found.direction else "",
            f"; {found.survives}" if found.survives else "",
        )
        text.append(f"{claim.id}: {found.verdict}{direction}{survives}")
    corrected = [claim for claim, _ in judged if claim.corrected]
    items = "".join(
        f"<li>{_name(claim)}: {html.escape(claim.corrected)}</li>" for claim in corrected
    )
    below = f"<p><strong>What is true instead</strong></p><ul>{items}</ul>" if items else ""
    text += [f"what is true, {claim.id}: {claim.corrected}" for claim in corrected]
    return Rendered(
        table(["Claim", "Reproduces?", "Survives today's protocol?"], rows) + below, "\n".join(text)
    )


def plain(measured: Mapping[str, Any] | None) -> dict[str, list[float | None]]:
    """Measurements as JSON can hold them: one list of floats per name, None for what is not
    finite."""
    found = {}
    for name, values in (measured or {}).items():
        values = values.tolist() if hasattr(values, "tolist") else values
        values = list(values) if isinstance(values, list | tuple) else [values]
        found[name] = [
            float(value) if value is not None and math.isfinite(value) else None for value in values
        ]
    return found
