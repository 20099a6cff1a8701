"""How a verdict is reached, on an example, and how often each word falls, as ``how_to_read`` shows.

Every number is computed by the functions that judge the claims.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from support import intervals
from support.book import claims, power, rules
from support.sampling import Difference, Share

BOUND = 0.9
_RUNS = tuple(Share(hits, 300) for hits in (286, 281, 277))
PAIRS = {"n10": 24, "n01": 9, "of": 300}
_RULE = rules.IntervalRule(type="interval", value="accuracy", low=BOUND)


class Step(NamedTuple):
    """A run of the example: what it measured, with its interval, and what it says."""

    hits: int
    of: int
    measured: str
    says: str


def steps() -> list[Step]:
    """The runs of the example, one by one."""
    return [
        Step(one.hits, one.of, rules.quantity(rules.interval([one])), together((one,)).status)
        for one in _RUNS
    ]


def together(runs: tuple[Share, ...] = _RUNS) -> rules.Outcome:
    """What some runs say together, by default all of the example."""
    return rules.apply("", _RULE, {"accuracy": runs})


def pair() -> dict[str, Any]:
    """The interval of a difference of two networks over the same images, paired, and as it would be
    if the images were others; half of the images that do not tell them apart are right."""
    gap = Difference(**PAIRS)
    both = (gap.of - gap.n10 - gap.n01) // 2
    first, second = (Share(both + only, gap.of) for only in (gap.n10, gap.n01))
    apart = rules.Interval(float(gap), *map(float, intervals.difference(first, second)), 1)
    paired = rules.quantity(rules.interval([gap]))
    return PAIRS | {"paired": paired, "apart": rules.quantity(apart)}


# --- how often each word falls --------------------------------------------------------------------

SIZES, RUNS = (100, 300, 1000, 3000, 10_000), (1, 3, 5)
SCATTER, DIFFER = 0.01, 0.15
WORDS = tuple(claims.VERDICTS[place] for place in (0, 4, 2))  # as a rule passes, is open, fails


class Rates(NamedTuple):
    """How often each word falls where a claim is true, on its bound, and false.

    Attributes:
        says: the claim, and what is true of it, in words.
        truths: the three truths.
        rows: for each number of images, for each truth and each number of runs, the probabilities.
    """

    says: str
    truths: tuple[float, float, float]
    rows: list[tuple[int, list[list[power.Words]]]]


def rates(sizes: Sequence[int] = SIZES, draws: int = 2000) -> list[Rates]:
    """The tables of the page: a share in runs alike, in runs that scatter, and a difference of two
    shares over the same images, by simulation.

    Args:
        sizes: numbers of images.
        draws: of the simulation.
    """

    def alike(truth: float, images: int, runs: int) -> power.Words:
        return power.of_runs([power.of_run(truth, BOUND, images)] * runs)

    def scattered(truth: float, images: int, runs: int) -> power.Words:
        return power.of_runs([power.of_any_run(truth, BOUND, images, SCATTER)] * runs)

    def paired(truth: float, images: int, runs: int) -> power.Words:
        return power.of_pairs(truth, 0.0, DIFFER, [images] * runs, draws)

    claim = f"accuracy is at least {BOUND:g}"
    around = (BOUND + 0.03, BOUND, BOUND - 0.03)
    tables = [
        (f"{claim}; every run has the same", around, alike),
        (f"{claim}; runs scatter by a standard deviation of {SCATTER:g}", around, scattered),
        (
            "one network is at least as accurate as another on the same images, of which "
            f"{DIFFER:.0%} are right under one only",
            (0.03, 0.0, -0.03), paired,
        ),
    ]  # fmt: skip
    found = []
    for says, truths, words in tables:
        rows = [
            (images, [[words(truth, images, runs) for runs in RUNS] for truth in truths])
            for images in sizes
        ]
        found.append(Rates(says, truths, rows))
    return found
