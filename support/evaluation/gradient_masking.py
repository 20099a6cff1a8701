"""Signs that a model hides its gradients rather than being robust, after Carlini et al. (2019),
section 5, and AutoAttack's checks.

A raised flag does not say that a model is not robust; it says that its gradient rows must not be
believed. The thresholds were set on linear models and plain networks of the digits, where no
gradient is masked, before any model of the book was judged. Each flag keeps the numbers that its
figure draws (:func:`support.book.plots.protocol`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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

NAMES = (
    "zero gradient",
    "black box or transfer",
    "more iterations",
    "chance at a large eps",
    "loss at failed points",
    "loss gap",
)
BLACK_BOX = ("uniform noise", "Gaussian noise", "Square", "hard label", "transfer from peer")
GRADIENT = ("FGSM", "PGD cross-entropy", "PGD margin", "PGD targeted", "APGD-CE", "APGD-T", "FAB-T")
"""White-box rows besides every BIM."""


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
    """

    name: str
    raised: bool | None
    value: float | None
    threshold: float
    says: str
    eps: float
    curves: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


def not_run(name: str, eps: float, threshold: float, what: str) -> Flag:
    """A flag that nothing was measured for."""
    return Flag(name, None, None, threshold, f"not run: {what}", eps)


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
    return (
        _zero_gradient(eps, robust, slopes),
        _black_box(eps, robust),
        _iterations(eps, robust),
        _chance(eps, sweep, y),
        _failed_points(eps, robust, margins),
        _loss_gap(eps, robust),
    )


def worst(per_radius: Sequence[tuple[Flag, ...]]) -> tuple[Flag, ...]:
    """Of several radii, for each flag the one furthest above its threshold; one that ran before one
    that did not."""

    def excess(flag: Flag) -> float:
        return float("-inf") if flag.value is None else flag.value - flag.threshold

    return tuple(max(same, key=excess) for same in zip(*per_radius, strict=True))


def _judged(
    name: str, eps: float, value: float, threshold: float, says: str, curves: Mapping[str, Tensor]
) -> Flag:
    return Flag(name, value > threshold, value, threshold, says, eps, curves)


def _difference(first: Tensor, second: Tensor, least: float) -> tuple[float, float]:
    """Accuracy of the first minus that of the second on the images that both saw, and what may be
    chance or strength alone."""
    count = min(len(first), len(second))
    each = first[:count].double() - second[:count].double()
    error = float(each.std(correction=1)) / count**0.5 if count > 1 else 1.0
    return float(each.mean()), max(least, 2 * error)


def _bims(robust: Mapping[str, Tensor]) -> list[tuple[int, Tensor]]:
    found = [
        (int(row[4:]), seen)
        for row, seen in robust.items()
        if row.startswith("BIM-") and row[4:].isdigit()
    ]
    return sorted(found, key=lambda pair: pair[0])


def _zero_gradient(eps: float, robust: Mapping[str, Tensor], slopes: Mapping[str, Tensor]) -> Flag:
    right = robust["clean"]
    shares = {
        loss: float((size[right] == 0).double().mean())
        for loss, size in slopes.items()
        if bool(right.any())
    }
    if not shares:
        return not_run(NAMES[0], eps, ZERO_GRADIENT, "no image is right")
    loss = max(shares, key=shares.__getitem__)
    says = f"the gradient of the {loss} is exactly zero at {shares[loss]:.1%} of the images that are right"
    return _judged(
        NAMES[0],
        eps,
        shares[loss],
        ZERO_GRADIENT,
        says,
        {name: size[right] for name, size in slopes.items()},
    )


def _black_box(eps: float, robust: Mapping[str, Tensor]) -> Flag:
    white = [
        seen
        for row, seen in robust.items()
        if row.removesuffix(", own loss") in GRADIENT or row.startswith("BIM-")
    ]
    black = {row: robust[row] for row in BLACK_BOX if row in robust}
    if not white or not black:
        return not_run(NAMES[1], eps, GAP, "no black box and white box to compare")
    gaps = {}
    for row, seen in black.items():
        together = torch.ones_like(seen)
        for other in white:
            together[: len(other)] &= other[: len(seen)]
        gaps[row] = (
            *_difference(together, seen, GAP),
            float(together.double().mean()),
            float(seen.double().mean()),
        )
    row = max(gaps, key=lambda name: gaps[name][0] - gaps[name][1])
    gap, allowed, white_box, black_box = gaps[row]
    says = f"{row} leaves {black_box:.1%} right where all gradient attacks together leave {white_box:.1%}"
    curves = {
        name: torch.tensor([found[0], found[1]], dtype=torch.float64)
        for name, found in gaps.items()
    }
    return _judged(NAMES[1], eps, gap, allowed, says, curves)


def _iterations(eps: float, robust: Mapping[str, Tensor]) -> Flag:
    bims = _bims(robust)
    if len(bims) < 2:
        return not_run(NAMES[2], eps, GAP, "fewer than two lengths of BIM")
    count = min(len(seen) for _, seen in bims)
    accuracy = torch.stack([seen[:count].double().mean() for _, seen in bims])
    floor = robust["worst case"][:count]
    curves = {
        "steps": torch.tensor([steps for steps, _ in bims]),
        "accuracy": accuracy,
        "worst case": floor.double().mean()[None],
    }
    rises = [
        (
            *_difference(later[:count], earlier[:count], GAP),
            f"BIM-{more} leaves more right than BIM-{steps}",
        )
        for place, (steps, earlier) in enumerate(bims)
        for more, later in bims[place + 1 :]
    ]
    rise, allowed, says = max(rises, key=lambda found: found[0] - found[1])
    (first, earliest), (last, latest) = bims[0], bims[-1]
    above, plateau = _difference(latest[:count], floor, PLATEAU)
    fall, _ = _difference(earliest[:count], latest[:count], 0.0)
    if rise <= allowed and fall < GAP and above - plateau > rise - allowed:
        says = f"from BIM-{first} to BIM-{last} accuracy does not fall, and stays {above:.1%} above the worst case"
        return _judged(NAMES[2], eps, above, plateau, says, curves)
    path = ", ".join(
        f"{value:.1%} with {steps}"
        for value, (steps, _) in zip(accuracy.tolist(), bims, strict=True)
    )
    says = (
        f"{says} ({path} steps)"
        if rise > allowed
        else f"more iterations are no weaker: {path} steps"
    )
    return _judged(NAMES[2], eps, rise, allowed, says, curves)


def _chance(eps: float, sweep: Mapping[float, Tensor], y: Tensor) -> Flag:
    far = {radius: seen for radius, seen in sweep.items() if radius >= 0.5}
    if not far:
        return not_run(
            NAMES[3], eps, 0.0, "no sweep up to eps 0.5, where a grey image is in every ball"
        )
    count = len(next(iter(far.values())))
    # All images can be made the same grey, to which the model gives one class: it is right about
    # one class at the most.
    chance = float(y[:count].bincount().amax()) / count
    radii = sorted(sweep)
    accuracy = torch.stack([sweep[radius].double().mean() for radius in radii])
    left = float(min(seen.double().mean() for seen in far.values()))
    says = f"at eps {min(far):g}, where one grey image is in every ball and no classifier has more than {chance:.1%}, PGD leaves {left:.1%}"
    curves = {
        "eps": torch.tensor(radii, dtype=torch.float64),
        "accuracy": accuracy,
        "chance": torch.tensor([chance]),
    }
    return _judged(NAMES[3], eps, left, chance, says, curves)


def _failed_points(eps: float, robust: Mapping[str, Tensor], margins: Mapping[str, Tensor]) -> Flag:
    attacks = [row for row in ("PGD cross-entropy", "PGD margin") if row in margins]
    if not attacks or "uniform noise" not in margins:
        return not_run(NAMES[4], eps, NO_PROGRESS, "no PGD and noise to compare")
    shares, curves = {}, {}
    for row in attacks:
        count = min(len(margins[row]), len(margins["uniform noise"]))
        reached = margins[row][:count]
        without = torch.fmin(margins["clean"][:count], margins["uniform noise"][:count])
        failed = robust[row][:count]
        shares[row] = float((failed & ~(reached < without)).double().mean())
        curves |= {
            f"{row}: without a gradient": without[failed],
            f"{row}: reached": reached[failed],
        }
    row = max(shares, key=shares.__getitem__)
    says = f"at {shares[row]:.1%} of the images {row} fails and ends no nearer the boundary than the clean image or random noise"
    return _judged(NAMES[4], eps, shares[row], NO_PROGRESS, says, curves)


def _loss_gap(eps: float, robust: Mapping[str, Tensor]) -> Flag:
    pairs = [(f"{row}, own loss", row) for row in robust if f"{row}, own loss" in robust]
    both = "PGD cross-entropy", "PGD margin"
    pairs += [both, both[::-1]] if all(row in robust for row in both) else []
    if not pairs:
        return not_run(NAMES[5], eps, LOSS_GAP, "no two losses to compare")
    gaps = {pair: _difference(robust[pair[0]], robust[pair[1]], LOSS_GAP) for pair in pairs}
    pair = max(gaps, key=lambda key: gaps[key][0] - gaps[key][1])
    gap, allowed = gaps[pair]
    left, other = (float(robust[row].double().mean()) for row in pair)
    says = f"{pair[0]} leaves {left:.1%} right where {pair[1]} leaves {other:.1%}"
    curves = {
        f"{first} against {second}": torch.tensor(found, dtype=torch.float64)
        for (first, second), found in gaps.items()
    }
    return _judged(NAMES[5], eps, gap, allowed, says, curves)
