"""Rules: measured numbers held against bounds.

A rule is data, never an evaluated string. A measurement is a number, or one number per training
run. A rule on runs is judged by their mean, and is *undecided* when the 95 % Student interval over
the runs straddles its bound.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

CONFIDENCE = 0.95
Measured = Mapping[str, float | Sequence[float] | None]
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
    bounds = f"{number(found.low)}, {number(found.high)}"
    return f"{number(found.mean)} [{'interval unbounded' if math.isinf(found.low) else bounds}]"


def named(name: str, values: Sequence[float]) -> str:
    """A measurement as text: ``accuracy = 0.972 [0.968, 0.976]``."""
    return f"{name} = {quantity(interval(values)) if len(values) else 'not measured'}"


def _listed(values: Any) -> list[Any]:
    values = values.tolist() if hasattr(values, "tolist") else values
    return list(values) if isinstance(values, list | tuple) else [values]


def plain(measured: Mapping[str, Any] | None) -> dict[str, list[float | None]]:
    """Measurements as JSON can hold them: one list of floats per name, None for what is not
    finite."""
    return {
        name: [
            float(value) if value is not None and math.isfinite(value) else None
            for value in _listed(values)
        ]
        for name, values in (measured or {}).items()
    }


def numbers(claim_id: str, measured: Measured) -> dict[str, tuple[float, ...]]:
    """Each measurement as a tuple of floats; what was not measured (None, nothing, or any value
    that is not finite) is empty.

    Raises:
        ClaimError: a value that is no number.
    """
    for name, given in measured.items():
        if not all(isinstance(value, int | float | None) for value in _listed(given)):
            raise ClaimError(
                f"{claim_id}: {name} must be a number or a list with one number per run, given "
                f"{given!r:.80}"
            )
    return {
        name: () if None in values else tuple(values) for name, values in plain(measured).items()
    }


# --- rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a rule says of a measurement: its status, what was seen, and what the rule wants."""

    status: Status
    seen: str
    wants: str

    @property
    def line(self) -> str:
        """All of it in one line, with a sign for the status."""
        plain = not self.wants or (self.status == "pass" and self.seen.endswith(self.wants))
        return f"{MARKS[self.status]} {self.seen}" + ("" if plain else f" (wants {self.wants})")


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


class _Bounded(Strict):
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
    """The mean lies in [low, high]."""

    type: Literal["interval"]
    value: Name

    @property
    def names(self) -> tuple[str, ...]:
        return (self.value,)

    def apply(self, values: np.ndarray) -> Outcome:
        (row,) = values
        below = [_above(row, self.low)] if math.isfinite(self.low) else []
        above = [_above(-row, -self.high)] if math.isfinite(self.high) else []
        return Outcome(_both(below + above), named(self.value, row), self.wants)


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
        top, bottom = values
        if (bottom < 0).any():
            raise ClaimError(
                f"{self.denominator} is below zero: a ratio rule wants a denominator of zero or "
                "more"
            )
        parts = f"({named(self.numerator, top)}) / ({named(self.denominator, bottom)})"
        if not values.any():
            return Outcome("undecided", f"{parts}, no ratio", self.wants)
        below = [_above(top - self.low * bottom, 0.0)] if math.isfinite(self.low) else []
        above = [_above(self.high * bottom - top, 0.0)] if math.isfinite(self.high) else []
        ratio = quantity(ratio_interval(top, bottom))
        return Outcome(_both(below + above), f"{parts} = {ratio}", self.wants)


class OrderingRule(Strict):
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
        seen = ", ".join(map(named, self.values, values))
        gap = f", by {number(self.gap)}" if self.gap else ""
        return Outcome(_both(steps), seen, " ≥ ".join(self.values) + gap)


class MaxAbsRule(Strict):
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
        return Outcome("pass", f"{self.value} {'= ' * (wants == '0')}{wants}", wants)


Rule = Annotated[IntervalRule | RatioRule | OrderingRule | MaxAbsRule, Field(discriminator="type")]


def apply(claim_id: str, rule: Rule, measured: Mapping[str, tuple[float, ...]]) -> Outcome:
    """What a rule says of what :func:`numbers` gives; a name with one number goes with any number
    of runs.

    Raises:
        ClaimError: unequal numbers of runs.
    """
    samples = [measured.get(name, ()) for name in rule.names]
    if absent := [name for name, values in zip(rule.names, samples, strict=True) if not values]:
        return Outcome("missing", f"{', '.join(absent)}: not measured", getattr(rule, "wants", ""))
    runs = max(map(len, samples))
    if any(len(values) not in (1, runs) for values in samples):
        given = ", ".join(str(len(values)) for values in samples)
        raise ClaimError(
            f"{claim_id}: {', '.join(rule.names)} must have the same number of runs, given {given}"
        )
    return rule.apply(np.array([values * (runs // len(values)) for values in samples]))
