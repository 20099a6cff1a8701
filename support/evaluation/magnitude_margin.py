"""The magnitude-margin ratio of wang2022: how far a decision is from changing, to first order at
the image (chapter 2). It certifies nothing."""

from collections.abc import Callable

import torch
from torch import Tensor

from support.attacks.base import (
    LEAST_ROWS,
    Model,
    check,
    check_scores,
    even,
    fast_rows,
    first_outputs,
    gradient,
    margin,
    packed,
    refuse_probabilities,
)
from support.attacks.gradient import difference_slope
from support.common.arguments import choice, class_vector, function


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
    choice("norm", norm, ("mean", "l2"))
    function("scores", scores, "(model, x) -> (n, K)", optional=True)

    def ask(at: Tensor) -> Tensor:
        return model(at) if scores is None else scores(model, at)

    x = x.detach().contiguous()
    few = x[:LEAST_ROWS]

    def fits(z: Tensor) -> None:
        check_scores(z, len(few), f"scores of {len(few)} images must be ({len(few)}, K)")

    first_outputs(ask, few, fits, module=model)
    rows = even(len(x), batch_size or fast_rows(x, model=model, backward=True))
    ratios, seen = x.new_empty(len(x)), []
    for index, real in packed(torch.arange(len(x), device=x.device), rows):
        with torch.enable_grad():
            leaf, label = x[index].requires_grad_(), y[index]
            z = ask(leaf.clone())
        found = z.detach()
        class_vector("y", label, len(label), found.shape[1])
        rival = found.scatter(1, label[:, None], -torch.inf).argmax(1)
        slope = gradient(z, leaf, difference_slope(found, label, rival)).flatten(1)
        size = slope.abs().mean(1) if norm == "mean" else torch.linalg.vector_norm(slope, dim=1)
        margins = margin(found, label)
        ratio = torch.where(margins > 0, size / margins, torch.nan)
        ratios[index[:real]] = ratio[:real].to(x.dtype)
        seen.append(found[:real])
    refuse_probabilities(torch.cat(seen))
    return ratios
