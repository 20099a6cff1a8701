"""Signs that a model hides its gradients rather than being robust, after Carlini et al. (2019),
section 5, and AutoAttack's checks.

A raised flag does not say that a model is not robust; it says that its gradient rows must not be
believed. The thresholds were set on linear models and plain networks of the digits, where no
gradient is masked, before any model of the book was judged. Each flag keeps the numbers that its
figure draws (:func:`support.book.plots.protocol`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

ZERO_GRADIENT = 0.01
"""Share of the images that are right whose loss has no derivative at all, in float32: more than
that is a flag."""
GAP = 0.02
"""Accuracy by which a weaker attack may beat a stronger one; two standard errors of the paired
difference are allowed if they are more."""
PLATEAU = 0.15
"""Accuracy by which the longest BIM may stay above the worst case without falling on the way (and
two standard errors, if more): a linear model of ten classes shows 0.09, which other losses and
starts gain."""
LOSS_GAP = 0.1
"""Accuracy by which one loss may leave more than another in the same attack (and two standard
errors, if more): a linear model of ten classes shows 0.06 between cross-entropy and margin."""
NO_PROGRESS = 0.02
"""Share of the images that PGD neither broke nor brought below the best of the clean image and
random noise."""

THRESHOLDS = {
    "zero gradient": ZERO_GRADIENT,
    "black box or transfer": GAP,
    "more iterations": GAP,
    "chance at a large eps": 0.0,
    "loss at failed points": NO_PROGRESS,
    "loss gap": LOSS_GAP,
}
"""The flags; where chance or the number of images decides, the threshold is at least this."""
NAMES = tuple(THRESHOLDS)
BLACK_BOX = ("uniform noise", "Gaussian noise", "Square", "hard label", "transfer from peer")
GRADIENT = (
    "FGSM", "PGD cross-entropy", "PGD margin", "multi-targeted", "APGD-CE", "APGD-T", "FAB-T",
)  # fmt: skip
"""White-box rows besides every BIM."""
OTHER_LOSS = ("PGD margin", "multi-targeted", "APGD-T", "FAB-T")
"""Those of them that do not climb the cross-entropy."""


@dataclass(frozen=True)
class Flag:
    """One sign of masked gradients.

    Attributes:
        name: one of :data:`NAMES`.
        raised: ``None`` if the budget left out what it needs.
        value: what was measured, ``None`` if it was not.
        threshold: it is raised above this.
        says: the finding in a sentence.
        eps: the radius at which it was found: of several the one that is furthest above its
            threshold.
        curves: the numbers behind it, for its figure.
        rows: the rows of the report that must not be believed if it is raised.
    """

    name: str
    raised: bool | None
    value: float | None
    threshold: float
    says: str
    eps: float
    curves: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Finding:
    """What was measured for a flag, without its name and radius."""

    value: float
    threshold: float
    says: str
    curves: Mapping[str, Tensor]
    rows: tuple[str, ...]


def of_radius(
    eps: float,
    robust: Mapping[str, Tensor],
    margins: Mapping[str, Tensor],
    slopes: Mapping[str, Tensor],
    sweep: Mapping[float, Tensor],
    y: Tensor,
) -> tuple[Flag, ...]:
    """All flags at one radius.

    Args:
        eps: above zero.
        robust: (n,) bool for each row that ran, n its own number of images, the first ones; with
            "clean" and "worst case".
        margins: (n,) the margins behind them.
        slopes: the largest absolute derivative (N,) of each loss by a pixel, at the clean images.
        sweep: (n,) bool, still right under PGD on the margin, for each radius of the sweep.
        y: (N,) labels.
    """
    findings = (
        _zero_gradient(robust, slopes),
        _black_box(robust),
        _iterations(robust),
        _chance(sweep, y),
        _failed_points(robust, margins),
        _loss_gap(robust),
    )
    return tuple(_flag(*named, eps) for named in zip(NAMES, findings, strict=True))


def _flag(name: str, found: _Finding | str, eps: float) -> Flag:
    """``found`` is a string where nothing was measured: what is missing."""
    if isinstance(found, str):
        return Flag(name, None, None, THRESHOLDS[name], f"not run: {found}", eps)
    raised = found.value > found.threshold
    measured = found.value, found.threshold, found.says
    return Flag(name, raised, *measured, eps, found.curves, found.rows)


def worst(per_radius: Sequence[tuple[Flag, ...]]) -> tuple[Flag, ...]:
    """Of several radii, for each flag the one furthest above its threshold; one that ran before one
    that did not."""

    def excess(flag: Flag) -> float:
        return float("-inf") if flag.value is None else flag.value - flag.threshold

    return tuple(max(same, key=excess) for same in zip(*per_radius, strict=True))


def _difference(first: Tensor, second: Tensor, least: float) -> tuple[float, float]:
    """Accuracy of the first minus that of the second on the images that both saw, and what may be
    chance or strength alone."""
    count = min(len(first), len(second))
    each = first[:count].double() - second[:count].double()
    error = float(each.std(correction=1)) / count**0.5 if count > 1 else 1.0
    return float(each.mean()), max(least, 2 * error)


def _bims(robust: Mapping[str, Tensor]) -> list[tuple[int, Tensor]]:
    """Every length of BIM and its mask, by length."""
    rows = (row for row in robust if row.startswith("BIM-") and row[4:].isdigit())
    return sorted(((int(row[4:]), robust[row]) for row in rows), key=lambda pair: pair[0])


def _white(robust: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows that climb a gradient."""
    return {
        row: seen
        for row, seen in robust.items()
        if row.removesuffix(", own loss") in GRADIENT or row.startswith("BIM-")
    }


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())


def _zero_gradient(robust: Mapping[str, Tensor], slopes: Mapping[str, Tensor]) -> _Finding | str:
    right = robust["clean"]
    if not slopes or not bool(right.any()):
        return "no image is right"
    curves = {name: size[right] for name, size in slopes.items()}
    shares = {name: _share(size == 0) for name, size in curves.items()}
    loss = max(shares, key=shares.__getitem__)
    says = (
        f"the gradient of the {loss} is exactly zero at {shares[loss]:.1%} of the images that are "
        "right"
    )
    own = loss != "cross-entropy"
    climbing = [row for row in _white(robust) if row.endswith(", own loss") == own]
    blind = [row for row in climbing if row not in OTHER_LOSS]
    return _Finding(shares[loss], ZERO_GRADIENT, says, curves, tuple(blind))


def _black_box(robust: Mapping[str, Tensor]) -> _Finding | str:
    white = _white(robust)
    black = {row: robust[row] for row in BLACK_BOX if row in robust}
    if not white or not black:
        return "no black box and white box to compare"
    gaps, shares = {}, {}
    for row, seen in black.items():
        together = torch.ones_like(seen)
        for other in white.values():
            together[: len(other)] &= other[: len(seen)]
        gaps[row], shares[row] = _difference(together, seen, GAP), (_share(together), _share(seen))
    row = max(gaps, key=lambda name: gaps[name][0] - gaps[name][1])
    white_box, black_box = shares[row]
    says = (
        f"{row} leaves {black_box:.1%} right where all gradient attacks together leave "
        f"{white_box:.1%}"
    )
    return _Finding(*gaps[row], says, _curves(gaps), tuple(white))


def _iterations(robust: Mapping[str, Tensor]) -> _Finding | str:
    bims = _bims(robust)
    if len(bims) < 2:
        return "fewer than two lengths of BIM"
    count = min(len(robust["worst case"]), *(len(seen) for _, seen in bims))
    rows = tuple(f"BIM-{steps}" for steps, _ in bims)
    accuracy = torch.stack([seen[:count].double().mean() for _, seen in bims])
    floor = robust["worst case"][:count]
    curves = {
        "steps": torch.tensor([steps for steps, _ in bims], device="cpu"),
        "accuracy": accuracy,
        "worst case": floor.double().mean()[None],
    }
    rises = [
        (
            *_difference(later[:count], earlier[:count], GAP),
            f"BIM-{more} leaves more right than BIM-{steps}",
        )
        for (steps, earlier), (more, later) in combinations(bims, 2)
    ]
    rise, allowed, says = max(rises, key=lambda found: found[0] - found[1])
    (first, earliest), (last, latest) = bims[0], bims[-1]
    above, plateau = _difference(latest[:count], floor, PLATEAU)
    fall, _ = _difference(earliest[:count], latest[:count], 0.0)
    if rise <= allowed and fall < GAP and above - plateau > rise - allowed:
        says = (
            f"from BIM-{first} to BIM-{last} accuracy does not fall, and stays {above:.1%} above "
            "the worst case"
        )
        return _Finding(above, plateau, says, curves, rows)
    pairs = zip(accuracy.tolist(), bims, strict=True)
    path = ", ".join(f"{value:.1%} with {steps}" for value, (steps, _) in pairs)
    weaker = f"{says} ({path} steps)"
    says = weaker if rise > allowed else f"more iterations are no weaker: {path} steps"
    return _Finding(rise, allowed, says, curves, rows)


def _chance(sweep: Mapping[float, Tensor], y: Tensor) -> _Finding | str:
    far = {radius: seen for radius, seen in sweep.items() if radius >= 0.5}
    if not far:
        return "no sweep up to eps 0.5, where a grey image is in every ball"
    count = len(next(iter(far.values())))
    # All images can be made the same grey, to which the model gives one class: it is right about
    # one class at the most.
    chance = float(y[:count].bincount().amax()) / count
    radii, left = sorted(sweep), min(map(_share, far.values()))
    says = (
        f"at eps {min(far):g}, where one grey image is in every ball and no classifier has more "
        f"than {chance:.1%}, PGD leaves {left:.1%}"
    )
    curves = {
        "eps": torch.tensor(radii, dtype=torch.float64, device="cpu"),
        "accuracy": torch.stack([sweep[radius].double().mean() for radius in radii]),
        "chance": torch.tensor([chance], dtype=torch.float32, device="cpu"),
    }
    return _Finding(left, chance, says, curves, ("PGD margin",))


def _failed_points(robust: Mapping[str, Tensor], margins: Mapping[str, Tensor]) -> _Finding | str:
    attacks = [row for row in ("PGD cross-entropy", "PGD margin") if row in margins]
    if not attacks or "uniform noise" not in margins:
        return "no PGD and noise to compare"
    shares, curves = {}, {}
    for row in attacks:
        count = min(len(margins[row]), len(margins["uniform noise"]))
        reached, failed = margins[row][:count], robust[row][:count]
        without = torch.fmin(margins["clean"][:count], margins["uniform noise"][:count])
        shares[row] = _share(failed & ~(reached < without))
        curves[f"{row}: without a gradient"] = without[failed]
        curves[f"{row}: reached"] = reached[failed]
    row = max(shares, key=shares.__getitem__)
    says = (
        f"at {shares[row]:.1%} of the images {row} fails and ends no nearer the boundary than the "
        "clean image or random noise"
    )
    stuck = tuple(name for name, stays in shares.items() if stays > NO_PROGRESS)
    return _Finding(shares[row], NO_PROGRESS, says, curves, stuck)


def _loss_gap(robust: Mapping[str, Tensor]) -> _Finding | str:
    pairs = [(f"{row}, own loss", row) for row in robust if f"{row}, own loss" in robust]
    both = "PGD cross-entropy", "PGD margin"
    pairs += [both, both[::-1]] if all(row in robust for row in both) else []
    if not pairs:
        return "no two losses to compare"
    gaps = {pair: _difference(robust[pair[0]], robust[pair[1]], LOSS_GAP) for pair in pairs}
    pair = max(gaps, key=lambda key: gaps[key][0] - gaps[key][1])
    left, other = (_share(robust[row]) for row in pair)
    says = f"{pair[0]} leaves {left:.1%} right where {pair[1]} leaves {other:.1%}"
    weaker = tuple(first for (first, _), (gap, allowed) in gaps.items() if gap > allowed)
    curves = _curves({" against ".join(key): gaps[key] for key in gaps})
    return _Finding(*gaps[pair], says, curves, weaker)


def _curves(gaps: Mapping[str, tuple[float, float]]) -> dict[str, Tensor]:
    return {
        name: torch.tensor(found, dtype=torch.float64, device="cpu") for name, found in gaps.items()
    }
