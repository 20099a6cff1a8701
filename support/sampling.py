"""Numbers that know their sampling error: shares, differences of shares, and estimates.

Each is a ``float``, so that whatever wants a number takes it; arithmetic gives plain floats, except
that the difference of two shares over as many entries stays paired. What interval they have is
said by :func:`support.intervals.of`; a plain float has none, such as a count or a closed form.
"""

from dataclasses import dataclass, fields

import numpy as np


class _Sampled(float):
    def __reduce__(self):
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, eq=False, repr=False)
class Share(_Sampled):
    """Share of independent entries that have a property; NaN of none.

    Attributes:
        hits: how many have it.
        of: how many there are.
        mask: which ones, so that two shares over the same entries can be compared entry by entry;
            None where that is not known any more.
    """

    hits: int
    of: int
    mask: np.ndarray | None = None

    def __new__(cls, hits: int, of: int, mask: np.ndarray | None = None):
        if not 0 <= hits <= of:
            raise ValueError(f"a share wants 0 <= hits <= of; {hits} of {of} were given")
        return super().__new__(cls, hits / of if of else np.nan)

    def __sub__(self, other: float) -> float:
        """With another share over as many entries, the entries paired in order: exact where they
        are the same, and still valid where they are independent. With one over other entries, as
        the difference of two independent shares; a plain float with what is no share."""
        plain = float(self) - float(other)
        if not isinstance(other, Share) or np.isnan(plain):
            return plain
        first, second = self.mask, other.mask
        if first is None or second is None or self.of != other.of:
            from support import intervals  # which imports this module

            return Estimate(plain, *intervals.difference(self, other), min(self.of, other.of))
        return Difference(int((first & ~second).sum()), int((second & ~first).sum()), self.of)


@dataclass(frozen=True, eq=False, repr=False)
class Difference(_Sampled):
    """A share minus another one over the same entries.

    Attributes:
        n10: how many entries only the first counts.
        n01: how many only the second counts.
        of: how many there are.
    """

    n10: int
    n01: int
    of: int

    def __new__(cls, n10: int, n01: int, of: int):
        if min(n10, n01) < 0 or n10 + n01 > of:
            raise ValueError(
                f"a difference wants n10 + n01 <= of; {n10}, {n01} and {of} were given"
            )
        return super().__new__(cls, (n10 - n01) / of if of else np.nan)


@dataclass(frozen=True, eq=False, repr=False)
class Estimate(_Sampled):
    """A number with the 95 % interval that draws or a bootstrap give it.

    Attributes:
        value: the number.
        low, high: its interval.
        of: number of draws or images behind it.
    """

    value: float
    low: float
    high: float
    of: int

    def __new__(cls, value: float, low: float, high: float, of: int):
        if low > high:
            raise ValueError(f"an estimate wants low <= high; {low} and {high} were given")
        return super().__new__(cls, value)
