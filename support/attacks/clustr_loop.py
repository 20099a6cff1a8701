"""Attacks as papers ran them, kept with their defects: what they measured is part of the record.

For new work take :func:`support.attacks.pgd`.
"""

import torch
from torch import Tensor

from support.attacks.base import (
    LEAST_ROWS,
    AttackResult,
    attack,
    check,
    first_scores,
    interval,
    margin,
    per_image,
    uniform,
)
from support.common.arguments import choice, radii, random_stream, whole_number
from support.models.architectures import Classifier
from support.models.heads import ClusterHead, cluster_log_prob, squared_distances

SCORES = ("kernel", "log")
MERGES = ("loss", "success")


@attack
def clustr_pgd(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    steps: int = 20,
    step_size: float = 2 / 255,
    restarts: int = 10,
    scores: str = "kernel",
    merge: str = "loss",
    nearest: int | None = None,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """The evaluation loop published with alfarra2021, and the same loop with each of its three
    defects mended alone.

    The loop: per restart a uniform start, then signed steps up a cross-entropy for the images that
    are still classified correctly (the others stay where they are), at last one point per restart,
    of which one is kept.

    - ``scores="kernel"``: what is climbed is the cross-entropy of the *unnormalised* sums of Eq.
      4's numerator, taken for logits: a softmax of what is no logarithm. They lie between 0 and K,
      so the loss of an image hardly depends on its margin, and far from all centres its gradient
      underflows. ``"log"``: the log-probabilities of Eq. 4, whose cross-entropy is Eq. 5.
    - ``merge="loss"``: of all restarts the point of largest loss is kept, though another one was
      misclassified. ``"success"``: a misclassified point goes before any other.
    - ``nearest=D``: only the D nearest clusters count. ``None``: all.

    The verdict is the model's own, from all clusters, whatever the loop climbed; the published loop
    judges by its scores, which differ where D hides a cluster or all kernels underflow. Used in
    chapter 4.

    Args:
        model: a classifier with a :class:`~support.models.heads.ClusterHead`.
        x: (N, ...) images in [0, 1].
        y: (N,) int64 labels.
        eps: radius in the maximum norm, in units of [0, 1].
        steps: of each restart.
        step_size: of a step, in units of [0, 1]; the paper has 2/255.
        restarts: the paper has 10. All images share each start's noise.
        scores, merge, nearest: as above; the published values are "kernel", "loss" and, on
            CIFAR-10, all clusters.
        generator: of the starts. ``None``: a fresh one of fixed seed.

    Returns:
        The points that were kept, misclassified or not; ``queries`` counts the passes of an image.

    Raises:
        ValueError: a model without a cluster head, an unknown word, D out of range, numbers that
            are impossible.
    """
    check(model, x, y, generator=generator)
    choice("scores", scores, SCORES)
    choice("merge", merge, MERGES)
    whole_number("steps", steps, 1)
    whole_number("restarts", restarts, 1)
    radius, step = radii("eps", eps, x), float(radii("step_size", step_size, x, positive=True)[0])
    head = getattr(model, "head", None)
    if not isinstance(head, ClusterHead):
        raise ValueError(
            f"the loop needs a model with a ClusterHead; the head given is {type(head).__name__}"
        )
    if nearest is not None:
        whole_number("nearest", nearest, 1, head.centers.shape[0] * head.centers.shape[1])
    first_scores(model, x.detach()[: 2 * LEAST_ROWS], int(y.max()))
    x = x.detach().clone(memory_format=torch.contiguous_format)
    stream = random_stream(generator)
    low, high = interval(x, radius)
    reach = per_image(radius, x).to(x.dtype)

    def seen(at: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and answers at some images, of which the model gets a copy."""
        at = at.clone()
        if scores == "kernel":
            found = kernel_scores(model, at, nearest)
        else:
            features = model.features(at)
            found = cluster_log_prob(features, head.centers, head.variance, nearest)
        return torch.nn.functional.cross_entropy(found, y, reduction="none"), found.argmax(1)

    ends, losses, fooled = [], [], []
    queries = torch.zeros_like(y)
    for _ in range(restarts):
        at = torch.clamp(x + reach * (2 * uniform(x.shape[1:], stream, x) - 1), low, high)
        alive = torch.arange(len(x), device=x.device)
        for _ in range(steps):
            with torch.enable_grad():
                leaf = at[alive].requires_grad_()
                loss, answer = seen(leaf, y[alive])
                slope = torch.autograd.grad(loss.sum(), leaf)[0]
            queries[alive] += 1
            right = answer == y[alive]
            moved = torch.clamp(leaf.detach() + step * slope.sign(), low[alive], high[alive])
            alive = alive[right]
            at[alive] = moved[right]
            if not len(alive):
                break
        loss, answer = seen(at, y)
        ends.append(at)
        losses.append(loss)
        fooled.append(answer != y)
        queries += 1
    kept = kept_restart(torch.stack(losses), torch.stack(fooled), merge)
    x_adv = torch.stack(ends)[kept, torch.arange(len(x), device=x.device)]
    margins = margin(model(x_adv.clone()), y)
    return AttackResult(x_adv, margins < 0, margins, queries + 1)


def kept_restart(losses: Tensor, success: Tensor, merge: str) -> Tensor:
    """Which restart's point is kept for each image: the last one of largest loss, or with
    ``merge="success"`` such a one among successes.

    Args:
        losses: (R, N).
        success: (R, N) bool.
        merge: "loss" (as published) or "success".

    Returns:
        (N,) int64 in 0 .. R - 1.
    """
    rank = losses.nan_to_num(nan=-torch.inf, posinf=torch.inf)
    if merge == "success":
        rank = rank.masked_fill(success.any(0) & ~success, -torch.inf)
    return len(losses) - 1 - rank.flip(0).argmax(0)


def kernel_scores(model: Classifier, x: Tensor, nearest: int | None = None) -> Tensor:
    """Sums of exp(-d^2 / 2 var) over the clusters of each class, (N, K), zero beyond the
    ``nearest``: not divided by their total.

    What the code published with alfarra2021 takes for logits, in its attacks and in the QTRADES
    term of its training.
    """
    head = model.head
    kernel = (
        squared_distances(model.features(x), head.centers.flatten(0, 1)) / (-2 * head.variance)
    ).exp()
    if nearest is not None:
        counted = torch.zeros_like(kernel, dtype=torch.bool).scatter_(
            1, kernel.topk(nearest, dim=1).indices, True
        )
        kernel = torch.where(counted, kernel, 0.0)
    return kernel.unflatten(1, head.centers.shape[:2]).sum(2)
