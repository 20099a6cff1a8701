"""The average-sample attack: a step along the sign of the difference of two class means, without
any gradient."""

from numbers import Integral

import torch
from torch import Tensor

from support.attacks.base import (
    AttackResult,
    Model,
    _check_images,
    _check_labels,
    check,
    fast_rows,
    interval,
    margin,
    prepare,
    radii,
    score,
    whole_number,
)


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
    _check_images(x, pictures=False)
    _check_labels(y, x)
    whole_number("classes", classes, 1)
    counts = y.bincount(minlength=classes)
    if len(counts) > classes:
        raise ValueError(
            f"y holds label {len(counts) - 1}, but classes is {classes}: labels go from 0 to {classes - 1}"
        )
    if empty := (counts == 0).nonzero()[:, 0].tolist():
        raise ValueError(
            f"every class needs an image; of {classes} classes, these have none: {', '.join(map(str, empty))}"
        )
    return torch.stack([_mean(x.detach()[y == k]) for k in range(classes)])


@torch.inference_mode(False)
@torch.no_grad()
def average_sample(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    means: Tensor,
    target: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """``x + eps * sign(Avg_t - Avg_y)``, cut to [0,1] (wang2022, Eq. 16; chapter "softRmax").

    No gradient and no search: the direction from the own class's mean image to that of class t, for
        all images of a class alike. A pixel
    whose two means are equal stays. The paper says that such a step cannot lead into the tail,
    which holds for small eps only.

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
        generator: unused, nothing is drawn; there so that all attacks are called alike.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result; ``queries`` is 2 with a target, and K + 1 without one for an image that holds
        out.

    Raises:
        ValueError: a wrong input, or means that are not one image for each of the model's classes.
    """
    check(model, x, y, batch_size=batch_size, generator=generator)
    radius = radii("eps", eps, x)
    _check_means(means, x, y)
    aims = _targets(target, means, x)
    call = prepare(model, x, y, batch_size or fast_rows(x, model=model))
    if call.scores.shape[1] != len(means):
        raise ValueError(
            f"means must hold one image for each of the model's {call.scores.shape[1]} classes; {len(means)} were given"
        )
    low, high = interval(call.x, radius)

    def step(index: Tensor, aim: Tensor) -> Tensor:
        """The images ``index`` moved towards the classes ``aim``."""
        direction = means[aim] - means[call.y[index]]
        return torch.where(
            direction > 0, high[index], torch.where(direction < 0, low[index], call.x[index])
        )

    queries = torch.ones_like(call.y)
    if aims is not None:
        x_adv = step(torch.arange(len(aims), device=aims.device), aims)
    else:
        x_adv, best = call.x.clone(), margin(call.scores, call.y)
        best = torch.where(
            best.isnan(), torch.inf, best
        )  # of two scores of minus infinity: no number
        ranked = call.scores.scatter(1, call.y[:, None], -torch.inf).argsort(
            dim=1, descending=True, stable=True
        )
        for rival in ranked[ranked != call.y[:, None]].view(len(ranked), -1).unbind(1):
            alive = ((best >= 0) & (radius > 0)).nonzero()[:, 0]
            if not len(alive):
                break
            moved = step(alive, rival[alive])
            margins = margin(score(call.model, moved, call.rows), call.y[alive])
            queries[alive] += 1
            better = margins < best[alive]
            x_adv[alive[better]], best[alive[better]] = moved[better], margins[better]
    margins = margin(score(call.model, x_adv, call.rows), call.y)
    return AttackResult(x_adv, margins < 0, margins, queries + 1)


def _mean(x: Tensor) -> Tensor:
    """The mean of images (n, ...), exact where they agree: two classes that share a black border
    differ by nothing there."""
    first = x[0].double()
    return (first + (x.double() - first).mean(0)).clamp_(0, 1).to(x.dtype)


def _check_means(means: Tensor, x: Tensor, y: Tensor) -> None:
    wanted = f"means must be a floating tensor (K, {', '.join(map(str, x.shape[1:]))}) on {x.device}, one image in [0,1] for each class"
    if not isinstance(means, Tensor) or not means.is_floating_point():
        raise ValueError(
            f"{wanted}; given is {means.dtype if isinstance(means, Tensor) else type(means).__name__}"
        )
    if (
        means.ndim != x.ndim
        or means.shape[1:] != x.shape[1:]
        or not len(means)
        or means.device != x.device
    ):
        raise ValueError(f"{wanted}; given is shape {tuple(means.shape)} on {means.device}")
    low, high = (end.item() for end in means.aminmax())
    if not (low >= 0 and high <= 1):  # false for NaN as well
        raise ValueError(f"{wanted}; given are values from {low:g} to {high:g}")
    if int(y.max()) >= len(means):
        raise ValueError(
            f"y holds label {int(y.max())}, but means holds {len(means)} classes, from 0 to {len(means) - 1}"
        )


def _targets(target: int | Tensor | None, means: Tensor, x: Tensor) -> Tensor | None:
    """One target class for each image, or None for all in turn."""
    if target is None:
        return None
    wanted = f"target must be None, a class from 0 to {len(means) - 1}, or an int64 tensor of {len(x)} such on {x.device}"
    if isinstance(target, Tensor):
        if (
            target.dtype != torch.int64
            or tuple(target.shape) != (len(x),)
            or target.device != x.device
        ):
            raise ValueError(
                f"{wanted}; given is {target.dtype} of shape {tuple(target.shape)} on {target.device}"
            )
    elif isinstance(target, bool) or not isinstance(target, Integral):
        raise ValueError(f"{wanted}; given is {target!r}")
    found = torch.as_tensor(
        target if isinstance(target, Tensor) else int(target), device=x.device
    ).expand(len(x))
    if int(found.min()) < 0 or int(found.max()) >= len(means):
        raise ValueError(f"{wanted}; given are {int(found.min())} to {int(found.max())}")
    return found
