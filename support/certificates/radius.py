"""The magnitude-margin ratio of wang2022: how far a decision is from changing, to first order at
the image, which certifies nothing (chapter 2)."""

from collections.abc import Callable

import torch
from torch import Tensor

from support.attacks.base import Model, check, even, fast_rows, margin, packed, refuse_probabilities


@torch.inference_mode(False)
@torch.no_grad()
def magnitude_margin_ratio(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    scores: Callable[[Model, Tensor], Tensor] | None = None,
    norm: str = "mean",
    batch_size: int | None = None,
) -> Tensor:
    """R = m / M_z, the size of the margin's gradient over the margin (wang2022, Eq. 17; chapter 2).

    ``M_z = z_y - z_j`` with j the best other class (Eq. 4), and m the mean of ``|d M_z / d x|``
    over the image's n pixels and channels. To first order, ``eps n R = 1`` where a signed step of
    size eps brings the margin to zero. R does not change when z is multiplied by
    a number, but it depends on what z is: compare networks on the z before softmax and softRmax,
        not on log-probabilities.

    One forward and one backward pass for each batch: the margins' sum has every image's own
        gradient.

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        scores: ``(model, x) -> (n, K)``, the z to be judged; default ``model(x)``. For a softRmax
            network: ``lambda model, x: model.head.logits(model.features(x))``.
        norm: "mean" as in the paper, or "l2", the Euclidean norm of the gradient, as in the
            authors' code: then ``1 / R`` is to first order the Euclidean distance to the boundary.
        batch_size: at most so many images in one pass; ``None`` picks what is fast on the device.

    Returns:
        (N,) in the dtype of ``x``, per unit of [0,1]; NaN for images whose z does not rank the
        label strictly first: Eq. 4 has no margin for them.

    Raises:
        ValueError: a wrong input, or scores that are NaN, probabilities, or no differentiable
            function of the image.
    """
    check(model, x, y, batch_size=batch_size)
    if norm not in ("mean", "l2"):
        raise ValueError(f'norm must be "mean" or "l2", not {norm!r}')
    if scores is not None and not callable(scores):
        raise ValueError(
            f"scores must be None or a callable (model, x) -> (n, K), not {type(scores).__name__}"
        )
    rows = even(len(x), batch_size or fast_rows(x, model=model, backward=True))
    ratios, seen = x.new_empty(len(x)), []
    for index, real in packed(torch.arange(len(x), device=x.device), rows):
        leaf, label = x.detach()[index].requires_grad_(), y[index]
        with torch.enable_grad():
            z = model(leaf) if scores is None else scores(model, leaf)
        _check_scores(z, label)
        found = z.detach()
        rival = found.scatter(1, label[:, None], -torch.inf).argmax(1)
        direction = (
            torch.zeros_like(found).scatter_(1, rival[:, None], -1).scatter_(1, label[:, None], 1)
        )
        slope = (
            torch.autograd.grad(z, leaf, direction, allow_unused=True)[0]
            if z.requires_grad
            else None
        )
        if slope is None:
            raise ValueError(
                "the scores do not depend differentiably on the image, so the margin has no gradient"
            )
        flat, margins = slope.flatten(1), margin(found, label)
        size = flat.abs().mean(1) if norm == "mean" else torch.linalg.vector_norm(flat, dim=1)
        ratios[index[:real]] = torch.where(margins > 0, size / margins, torch.nan)[:real].to(
            x.dtype
        )
        seen.append(found[:real])
    refuse_probabilities(torch.cat(seen))
    return ratios


def _check_scores(z: Tensor, y: Tensor) -> None:
    if (
        not isinstance(z, Tensor)
        or z.ndim != 2
        or len(z) != len(y)
        or z.shape[1] < 2
        or z.dtype not in (torch.float32, torch.float64)
    ):
        given = (
            f"{z.dtype} of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        )
        raise ValueError(
            f"scores of {len(y)} images must be float32 or float64 of shape ({len(y)}, K) with K >= 2; they are {given}"
        )
    if int(y.max()) >= z.shape[1]:
        raise ValueError(
            f"y holds label {int(y.max())}, but the model scores {z.shape[1]} classes, from 0 to {z.shape[1] - 1}"
        )
