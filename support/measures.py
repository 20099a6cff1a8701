"""Small measurements that every chapter makes, and the random draws that they make them with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from support import intervals
from support.data import ImageData
from support.sampling import Estimate, Share
from support.training.fitting import predict


def draws(seed: int) -> torch.Generator:
    """A generator of random numbers on the CPU that begins at a seed."""
    return torch.Generator().manual_seed(seed)


def share(mask: Tensor) -> Share:
    """Share of the true entries of a mask of any shape, which knows its sampling error; NaN of an
    empty one. A chapter that compares two of them over the same images gets their difference with
    ``-``, paired image by image.

    Raises:
        ValueError: not a mask.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"share wants a mask, dtype bool; {mask.dtype} was given")
    entries = mask.detach().cpu().numpy().ravel()
    return Share(int(entries.sum()), entries.size, entries)


def accuracy(model: nn.Module, images: ImageData) -> Share:
    """Share of images whose class a model gets right; see :func:`support.training.predict`."""
    return share(predict(model, images.x).argmax(1).cpu() == images.y.cpu())


def paired_bootstrap(
    statistic: Callable[..., float], *samples: Tensor, draws: int = 2000, seed: int = 0
) -> Estimate:
    """A statistic of images with its 95 % interval: the middle of what it is on images drawn again
    with replacement, the same ones from each sample (Efron 1979). It cannot leave the range of the
    statistic; with fewer than about 20 images, or where all agree, it is too narrow.

    Args:
        statistic: of as many arrays as there are samples, such as a difference of two medians.
        *samples: numbers of the same images in the same order, shape (n,) each, n at least 2.
        draws: number of repetitions.
        seed: of the draws.

    Raises:
        ValueError: samples that differ in length, or with fewer than two entries.
    """
    from scipy.stats import bootstrap  # a second to import

    given = [np.asarray(sample, dtype=float).ravel() for sample in samples]
    if len({len(sample) for sample in given}) != 1 or len(given[0]) < 2:
        raise ValueError(
            "paired_bootstrap wants samples of one length, 2 or more; given "
            f"{[len(sample) for sample in given]}"
        )
    found = bootstrap(
        given, statistic, paired=True, n_resamples=draws, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    value = float(statistic(*given))
    low, high = found.confidence_interval
    return Estimate(value, min(float(low), value), max(float(high), value), len(given[0]))


def mean_over(values: Tensor, seed: int = 0) -> Estimate:
    """Mean of one number per image, with its :func:`paired_bootstrap` interval."""
    return paired_bootstrap(np.mean, values, seed=seed)


def area(inside: Tensor, outside: Tensor) -> Estimate:
    """Area under the ROC curve of a score that should be larger inside: the chance that one inside
    has a larger score than one outside, half for equal ones. Its 95 % interval is the score
    interval of Newcombe (2006, method 5), which stays in [0, 1] and does not shrink to a point
    where the scores are told apart without error.

    Args:
        inside, outside: (n,) and (m,) scores of independent images, infinite ones allowed.

    Raises:
        ValueError: no score on one side, or NaN.
    """
    one, other = (np.asarray(scores, dtype=float).ravel() for scores in (inside, outside))
    if not len(one) or not len(other) or np.isnan(one).any() or np.isnan(other).any():
        raise ValueError(
            "area wants a score or more on each side, and no NaN; given "
            f"{len(one)} inside and {len(other)} outside"
        )
    larger, equal = (one[:, None] > other).mean(), (one[:, None] == other).mean()
    value, size = float(larger + equal / 2), (len(one) + len(other)) / 2 - 1

    def distance(truth: float) -> float:
        spread = 1 + size * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        variance = truth * (1 - truth) * spread / (len(one) * len(other))
        return (value - truth) ** 2 - intervals.Z**2 * variance

    ends = []
    for far in (0.0, 1.0):
        near = value  # of one sign here, of the other at the end of the range
        for _ in range(52):
            middle = (near + far) / 2
            near, far = (near, middle) if distance(middle) > 0 else (middle, far)
        ends.append(near)
    return Estimate(value, *ends, len(one) + len(other))
