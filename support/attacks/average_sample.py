"""The average-sample attack: a step along the sign of the difference of two class means, without
any gradient."""

import torch
from torch import Tensor

from support.attacks.base import (
    AttackResult,
    Model,
    attack,
    check,
    interval,
    judged,
    margin,
    prepare,
    rivals,
    score,
)
from support.common.arguments import class_vector, images, labels, radii, whole_number


def class_means(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """The mean image of each class, Avg_y of wang2022, section 4.2.3 (chapter "softRmax").

    The paper does not name the split. Means of a test batch leak the images that are attacked: take
    the training set's.

    Args:
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 labels below ``classes``.
        classes: K, at least 1.

    Returns:
        (K, ...) in the images' dtype, summed in float64. A pixel that all images of a class share
        is their mean, to the bit.

    Raises:
        ValueError: a wrong input, a label that is too large, a class without an image.
    """
    images("x", x)
    class_vector("y", y, len(x), whole_number("classes", classes, 1))
    counts = y.bincount(minlength=classes)
    if empty := (counts == 0).nonzero()[:, 0].tolist():
        raise ValueError(
            f"every class needs an image; of {classes} classes, these have none: "
            f"{', '.join(map(str, empty))}"
        )
    return torch.stack([_mean(x.detach()[y == k]) for k in range(classes)])


@attack
def average_sample(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    means: Tensor,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """``x + eps * sign(Avg_t - Avg_y)``, cut to [0,1] (wang2022, Eq. 16; chapter "softRmax").

    No gradient and no search: the direction from the own class's mean image to that of class t, for
    all images of a class alike. A pixel whose two means are equal stays. The paper says that such a
    step cannot lead into the tail, which holds for small eps only.

    ``target`` names the direction, not the verdict: a success is any misclassification, as
    elsewhere.

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        eps: radius in the maximum norm, in units of [0,1]; one number or (N,).
        means: (K, ...) mean images in [0,1], see :func:`class_means`.
        target: a class t, or (N,) int64, one for each image: one step, which is always taken, as by
            :func:`fgsm`; an image of class t itself stays. ``None``: a step from the image towards
            every other class in turn, from the best clean score down, until one succeeds; a clean
            image that is misclassified is returned as it is.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result; ``queries`` is 2 with a target, and K + 1 without one for an image that holds
        out.

    Raises:
        ValueError: a wrong input, or means that are not one image for each of the model's classes.
    """
    check(model, x, y, batch_size=batch_size)
    radius = radii("eps", eps, x)
    _check_means(means, x, y)
    aims = None if target is None else _targets(target, means, x)
    call = prepare(model, x, y, batch_size)
    if call.scores.shape[1] != len(means):
        raise ValueError(
            f"means must hold one image for each of the model's {call.scores.shape[1]} classes; "
            f"{len(means)} were given"
        )
    low, high = interval(call.x, radius)

    def step(index: Tensor, aim: Tensor) -> Tensor:
        """The images ``index`` moved towards the classes ``aim``, over the whole pixel range: cut
        to the box, they end in its corner."""
        direction = (means[aim] - means[call.y[index]]).sign().to(x.dtype)
        return (call.x[index] + direction).clamp(low[index], high[index])

    queries = torch.ones_like(call.y)
    if aims is not None:
        return judged(call, step(torch.arange(len(aims), device=aims.device), aims), queries)
    x_adv, best = call.x.clone(), margin(call.scores, call.y)
    best = torch.where(best.isnan(), torch.inf, best)  # between two scores of minus infinity
    for rival in rivals(call).unbind(1):
        alive = ((best >= 0) & (radius > 0)).nonzero()[:, 0]
        if not len(alive):
            break
        moved = step(alive, rival[alive])
        margins = margin(score(call.model, moved, call.rows), call.y[alive])
        queries[alive] += 1
        better = margins < best[alive]
        x_adv[alive[better]], best[alive[better]] = moved[better], margins[better]
    return judged(call, x_adv, queries)


def _mean(x: Tensor) -> Tensor:
    """The mean of images (n, ...), exact where they agree: two classes that share a black border
    differ by nothing there."""
    first = x[0].double()
    return (first + (x.double() - first).mean(0)).clamp_(0, 1).to(x.dtype)


def _check_means(means: Tensor, x: Tensor, y: Tensor) -> None:
    images("means", means)
    if means.shape[1:] != x.shape[1:] or means.device != x.device:
        raise ValueError(
            f"means must be (K, {', '.join(map(str, x.shape[1:]))}) on {x.device}, one image for "
            f"each class; {tuple(means.shape)} on {means.device} was given"
        )
    class_vector("y", y, len(x), len(means))


def _targets(target: int | Tensor, means: Tensor, x: Tensor) -> Tensor:
    """One target class for each image."""
    if isinstance(target, Tensor):
        return labels("target", target, x, len(means))
    whole_number("target", target, 0, len(means) - 1)
    return torch.full((len(x),), int(target), device=x.device)
