"""Rules: measured numbers held against bounds.

A rule is data, never an evaluated string. A measurement is one number per run, an independent
repetition of the same kind of network; what sampling error a number has, it knows
(:mod:`support.sampling`). A rule is decided run by run, and by the agreement of the runs:

- In a run it passes or fails where the whole 95 % interval lies on one side of its bound, and is
  undecided where the bound lies inside. So where the truth lies on the bound, or beyond it, a run
  says the opposite with a probability of 2.5 % at most.
- Over runs it passes if no run fails and more than half pass, fails if no run passes and more than
  half fail, and is undecided otherwise. So with 3 runs of the same truth on the wrong side it
  passes with a probability of 0.2 % at most, and one run that contradicts the others is enough for
  "undecided". Where the runs' own truths scatter around a bound, one run says little of the next;
  ``how_to_read`` has the rates at which each word falls. Many repetitions are a share, or an
  estimate, of their own: of a hundred runs a few contradict by chance.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from support import intervals
from support.book import power
from support.sampling import Difference, Estimate, Share

Measured = Mapping[str, Any]
Numbers = Mapping[str, tuple[float, ...]]
Status = Literal["pass", "fail", "undecided", "missing"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
MARKS: dict[Status, str] = {"pass": "✓", "fail": "✗", "undecided": "?", "missing": "–"}


class ClaimError(ValueError):
    """A registry that breaks its schema, an unknown claim, or a measurement that is not a number.
    The message is one line."""


class Strict(BaseModel):
    """A model that is frozen and takes no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- what was measured ----------------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean over runs with the hull of the runs' own intervals; the bounds are None for a single
    number without sampling error."""

    mean: float
    low: float | None
    high: float | None
    runs: int


def interval(values: Sequence[float]) -> Interval:
    """Mean of runs, and from the lowest end to the highest of their intervals.

    Args:
        values: one finite number per run, at least one.
    """
    mean = math.fsum(values) / len(values)
    return _hull(mean, [intervals.of(value) for value in values])


def _hull(mean: float, ends: Sequence[tuple[float, float]]) -> Interval:
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    exact = len(ends) == 1 and low == high
    return Interval(mean, *((None, None) if exact else (low, high)), len(ends))


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
    return f"{number(found.mean)} [{number(found.low)}, {number(found.high)}]"


def named(name: str, values: Sequence[float]) -> str:
    """A measurement as text: ``accuracy = 0.972 [0.968, 0.976]``."""
    return f"{name} = {quantity(interval(values)) if len(values) else 'not measured'}"


def _listed(values: Any) -> list[Any]:
    values = values.tolist() if hasattr(values, "tolist") else values
    return list(values) if isinstance(values, list | tuple) else [values]


_FORMS = {("hits", "of"): Share, ("n10", "n01", "of"): Difference, ("low", "high", "of"): Estimate}


def _number(given: Any) -> float | None:
    """A measured number from what a chapter or a record gives; None for what is not finite.

    Raises:
        ValueError: it is none.
    """
    if isinstance(given, Mapping):
        parts = dict(given)
        value = parts.pop("value", None)
        kind = next((kind for names, kind in _FORMS.items() if set(parts) == set(names)), None)
        if kind is None:
            raise ValueError
        given = kind(**({"value": value} if kind is Estimate else {}), **parts)
    if not isinstance(given, int | float | None):
        raise ValueError
    if given is None or not math.isfinite(given):
        return None
    return given if isinstance(given, Share | Difference | Estimate) else float(given)


def numbers(claim_id: str, measured: Measured) -> dict[str, tuple[float, ...]]:
    """Each measurement as a tuple with one number per run; what was not measured (None, nothing, or
    any value that is not finite) is empty.

    Args:
        measured: for each name a number, or a list with one per run: floats, those of
            :mod:`support.sampling`, or what :func:`plain` made of them.

    Raises:
        ClaimError: a value that is no number.
    """
    found = {}
    for name, given in measured.items():
        try:
            values = [_number(value) for value in _listed(given)]
        except (ValueError, TypeError) as error:
            raise ClaimError(
                f"{claim_id}: {name} must be a number or a list with one number per run, given "
                f"{given!r:.80}" + f": {error}" * bool(str(error))
            ) from error
        found[name] = () if None in values else tuple(values)
    return found


def plain(found: Numbers) -> dict[str, list[Any]]:
    """What :func:`numbers` gives, as JSON can hold it: floats and, with their sampling error,
    mappings; [None] for what was not measured."""
    return {name: [_plain(value) for value in values] or [None] for name, values in found.items()}


def _plain(value: float) -> Any:
    for names, kind in _FORMS.items():
        if isinstance(value, kind):
            return {"value": float(value)} | {name: getattr(value, name) for name in names}
    return value


def minus(first: str, second: str) -> str:
    """The name of the paired difference of two measurements."""
    return f"{first} - {second}"


def paired(rules: Iterable["Rule"], found: Numbers) -> dict[str, tuple[float, ...]]:
    """The differences that rules judge of two shares over the same entries, under the name that
    :func:`minus` gives; none where the shares do not know their entries."""
    differences = {}
    for first, second in {pair for rule in rules for pair in rule.pairs}:
        runs = max(len(found.get(first, ())), len(found.get(second, ())))
        both = [_repeated(found.get(name, ()), runs) for name in (first, second)]
        gaps = [a - b for a, b in zip(*both, strict=False)]
        if gaps and all(isinstance(gap, Difference) for gap in gaps):
            differences[minus(first, second)] = tuple(gaps)
    return dict(sorted(differences.items()))


def _repeated(values: tuple[float, ...], runs: int) -> tuple[float, ...]:
    return values * runs if len(values) == 1 else values


# --- rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a rule says of a measurement: its status, what was seen, and what the rule wants.

    ``open`` holds what left it undecided: bounds with the numbers that were held against them.
    """

    status: Status
    seen: str
    wants: str
    open: tuple[tuple[float, tuple[float, ...]], ...] = ()

    @property
    def line(self) -> str:
        """All of it in one line, with a sign for the status."""
        plain = not self.wants or (self.status == "pass" and self.seen.endswith(self.wants))
        wants = "" if plain else f" (wants {self.wants})"
        return f"{MARKS[self.status]} {self.seen}{wants}{self._detects}"

    @property
    def _detects(self) -> str:
        """What an undecided rule would have seen with 80 % probability at its size."""
        told = [power.detectable(*one) for one in self.open if self.status == "undecided"]
        ends = [
            " or ".join(
                f"{word} {end:.2g}"
                for word, end in (("below", low), ("above", high))
                if not math.isnan(end)
            )
            for low, high in filter(None, told)
        ]
        decided = (f"only {end}" if end else "nothing" for end in ends)
        return "".join(f"; of so many images {end} would be decided" for end in decided)


Ends = tuple[float, float]


def _inside(ends: Ends, low: float, high: float) -> Status:
    """Whether an interval lies within [low, high], outside, or across a bound."""
    if math.isnan(ends[0]):  # 0 / 0
        return "undecided"
    if low <= ends[0] and ends[1] <= high:
        return "pass"
    return "fail" if ends[1] < low or high < ends[0] else "undecided"


def _straddles(values: Sequence[float], bound: float) -> bool:
    """Whether a bound lies within the hull of the runs' intervals."""
    low, high = _hull(0.0, [intervals.of(value) for value in values])[1:3]
    return low is not None and low <= bound <= high


def agreed(runs: Sequence[Status]) -> Status:
    """What several runs say together: see the head of the module."""
    for word, against in (("pass", "fail"), ("fail", "pass")):
        if against not in runs and 2 * runs.count(word) > len(runs):
            return word
    return "undecided"


class _Rule(Strict):
    """What all rules have.

    Attributes:
        passes, fails: an example of measurements that pass, and one that fails, as :func:`numbers`
            takes them.
    """

    passes: dict[str, Any] = Field({})
    fails: dict[str, Any] = Field({})

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The names that are compared with each other."""
        return ()


class _Bounded(_Rule):
    low: float = -math.inf
    high: float = math.inf

    @model_validator(mode="after")
    def _bounds(self):
        given = (self.low, self.high)
        if not self.low <= self.high or all(map(math.isinf, given)):  # also refuses NaN
            raise ValueError(
                f"wants low <= high, at least one of them finite; given {self.low} and {self.high}"
            )
        return self

    @property
    def wants(self) -> str:
        if math.isinf(self.high):
            return f"at least {number(self.low)}"
        high = number(self.high)
        return f"at most {high}" if math.isinf(self.low) else f"{number(self.low)} to {high}"


class IntervalRule(_Bounded):
    """The number lies in [low, high]."""

    type: Literal["interval"]
    value: Name

    @property
    def names(self) -> tuple[str, ...]:
        return (self.value,)

    def apply(self, found: Numbers) -> Outcome:
        values = found[self.value]
        runs = [_inside(intervals.of(value), self.low, self.high) for value in values]
        bounds = [bound for bound in (self.low, self.high) if math.isfinite(bound)]
        held = tuple((bound, values) for bound in bounds if _straddles(values, bound))
        return Outcome(agreed(runs), named(self.value, values), self.wants, held)


class RatioRule(_Bounded):
    """The ratio of two numbers lies in [low, high]; paired where they are shares over the same
    entries, else as of two independent numbers."""

    type: Literal["ratio"]
    numerator: Name
    denominator: Name

    @property
    def names(self) -> tuple[str, ...]:
        return (self.numerator, self.denominator)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        return (self.names,)

    def apply(self, found: Numbers) -> Outcome:
        top, bottom = found[self.numerator], found[self.denominator]
        if min(bottom) < 0:
            raise ClaimError(
                f"{self.denominator} is below zero: a ratio rule wants a denominator of zero or "
                "more"
            )
        parts = f"({named(self.numerator, top)}) / ({named(self.denominator, bottom)})"
        gaps = found.get(minus(*self.names), [None] * len(top))
        ends = list(map(_ratio, top, bottom, gaps))
        runs = [_inside(each, self.low, self.high) for each in ends]
        if not any(top) and not any(bottom):
            return Outcome("undecided", f"{parts}, no ratio", self.wants)
        whole = math.fsum(bottom)
        mean = math.fsum(top) / whole if whole else math.copysign(math.inf, math.fsum(top))
        return Outcome(agreed(runs), f"{parts} = {quantity(_hull(mean, ends))}", self.wants)


def _ratio(top: float, bottom: float, gap: Difference | None) -> Ends:
    if gap is None:
        return intervals.ratio(top, bottom)
    low, high = intervals.paired_ratio(top.hits, bottom.hits, gap.n10, gap.of)
    return float(low), float(high)


class OrderingRule(_Rule):
    """Each number is at least the next one plus ``gap``, in each run; paired where they are shares
    over the same entries, else as two independent numbers."""

    type: Literal["ordering"]
    values: Annotated[list[Name], Field(min_length=2)]
    gap: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        return tuple(itertools.pairwise(self.values))

    @property
    def wants(self) -> str:
        return " ≥ ".join(self.values) + (f", by {number(self.gap)}" if self.gap else "")

    def apply(self, found: Numbers) -> Outcome:
        seen = [named(name, found[name]) for name in self.values]
        steps, held = [], []
        for first, second in self.pairs:
            larger, smaller = found[first], found[second]
            if gaps := found.get(minus(first, second)):
                steps.append([intervals.of(gap) for gap in gaps])
                seen.append(named(minus(first, second), gaps))
                held += [(self.gap, gaps)] if _straddles(gaps, self.gap) else []
            else:
                steps.append(list(map(intervals.difference, larger, smaller)))
        runs = [
            _all_of([_inside(ends, self.gap, math.inf) for ends in run])
            for run in zip(*steps, strict=True)
        ]
        return Outcome(agreed(runs), ", ".join(seen), self.wants, tuple(held))


def _all_of(parts: Sequence[Status]) -> Status:
    return next((status for status in ("fail", "undecided") if status in parts), "pass")


class MaxAbsRule(_Rule):
    """No run's value is farther from zero than ``tolerance``: one that is, is a counterexample,
    whatever the others say, so that values count and not their sampling error. A value that is
    shown as "≤ tolerance" reads the same on every machine."""

    type: Literal["max_abs"]
    value: Name
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.value,)

    def apply(self, found: Numbers) -> Outcome:
        largest = max(map(abs, found[self.value]))
        wants = f"≤ {number(self.tolerance)}" if self.tolerance else "0"
        if largest > self.tolerance:
            return Outcome("fail", f"{self.value} = {number(largest)}", wants)
        return Outcome("pass", f"{self.value} {'= ' * (wants == '0')}{wants}", wants)


Rule = Annotated[IntervalRule | RatioRule | OrderingRule | MaxAbsRule, Field(discriminator="type")]


def apply(claim_id: str, rule: Rule, measured: Numbers) -> Outcome:
    """What a rule says of what :func:`numbers` and :func:`paired` give; a name with one number goes
    with any number of runs.

    Raises:
        ClaimError: unequal numbers of runs.
    """
    samples = {name: measured.get(name, ()) for name in rule.names}
    if absent := [name for name, values in samples.items() if not values]:
        return Outcome("missing", f"{', '.join(absent)}: not measured", getattr(rule, "wants", ""))
    runs = max(map(len, samples.values()))
    if any(len(values) not in (1, runs) for values in samples.values()):
        given = ", ".join(str(len(values)) for values in samples.values())
        raise ClaimError(
            f"{claim_id}: {', '.join(rule.names)} must have the same number of runs, given {given}"
        )
    gaps = {minus(*pair): measured.get(minus(*pair), ()) for pair in rule.pairs}
    known = {name: values for name, values in gaps.items() if len(values) in (1, runs)}
    found = {name: _repeated(values, runs) for name, values in (samples | known).items()}
    return rule.apply(found)
