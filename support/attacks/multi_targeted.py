"""Few steps towards every rival, in rounds that differ: what finds most, for its passes, of what
verifiers know to be there.

Built of the parts of :mod:`support.attacks.gradient`, and judged as its attacks are.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from support.attacks.base import AttackResult, Model, attack, gradient, rivals, uniform
from support.attacks.gradient import Goal, begin, climb
from support.common.arguments import random_stream, whole_number


@dataclass(frozen=True)
class _Rise(Goal):
    """The score of the rival itself is climbed, whatever the label's does."""

    def slope(self, model: Model, x: Tensor, y: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            outputs = model(leaf.clone())  # the model may write where it reads
            scores = outputs.detach()
            weights = torch.zeros_like(scores).scatter_(1, aim[:, None], 1)
            return gradient(outputs, leaf, weights), scores


@dataclass(frozen=True)
class _Round:
    """What is climbed, from which part of the ball, along how much of earlier gradients."""

    goal: Goal
    share: float
    decay: float


_AWAY = Goal("margin", sweep=True)
ROUNDS = (
    _Round(_AWAY, 0.5, 0.75),
    _Round(_Rise("margin", sweep=True), 0.5, 0.75),
    _Round(_AWAY, 0.0, 0.0),
)
"""The rounds, one after the other and from the beginning again: the rival's score minus the
label's, the rival's score alone, and the difference again from the image itself without momentum.
On the properties of VNN-COMP 2021 none of the three alone finds all that is violated."""


@attack
def multi_targeted(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    steps: int = 5,
    rounds: int = 3,
    classes: int | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """A few falling gradient steps towards every other class, and again by another objective where
    an image holds out.

    As in :func:`support.attacks.pgd_targets`, the rivals are tried from the best clean score down
    (Gowal et al. 2019), the first step is as wide as the ball, and any misclassification is a
    success. Two things differ. Rounds are short, for where a step is wide the first few decide
    which region is reached; and they change what is climbed and from where (:data:`ROUNDS`), for
    more steps from the same start towards the same goal end where the first ended. It is the attack
    with which the page "Do our attacks work?" finds every property that verifiers found violated.

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        eps: radius in the maximum norm, in units of [0,1]; one number or (N,).
        steps: steps towards each class in a round; the first is ``2 * eps``, and they fall to zero
            in a straight line.
        rounds: how many rounds; from the fourth on the first ones again, with other starts.
        classes: how many rivals are tried; ``None``: all K - 1.
        generator: source of the starts, one draw of an image's shape a round. ``None``: a fresh one
            of fixed seed.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result; an image that holds out costs ``rounds * classes * (steps + 1) + 2`` queries.

    Raises:
        ValueError: a wrong input, or a model whose scores do not depend differentiably on the
            image.
    """
    whole_number("steps", steps, 1)
    whole_number("rounds", rounds, 1)
    if classes is not None:
        whole_number("classes", classes, 1)
    stream = random_stream(generator)
    search = begin(model, x, y, eps, _AWAY, batch_size, share=2)
    order = rivals(search.call)[:, :classes]
    for number in range(rounds):
        now = ROUNDS[number % len(ROUNDS)]
        start = search.start(2 * uniform(x.shape[1:], stream, x) - 1, now.share)
        for rival in order.unbind(1):
            own = replace(search, goal=now.goal)
            climb(own, start, steps, aim=rival, decay=now.decay, falling=True)
    return search.result()
