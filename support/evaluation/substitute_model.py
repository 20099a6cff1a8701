"""A substitute for a network that can only be asked: Papernot's black-box recipe (wang2022, section
4.2.3 and Table 2; chapter 2).

A copy is trained on the target's answers to a few images of one's own; the images are then moved to
where the copy is most sensitive, the target is asked again, and so on. Attacks on the copy are
tried on the target. The true labels are never used: a network trained on them is a second
classifier, not a copy of the first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from support import training
from support.attacks import fgsm
from support.attacks.base import check, prepare
from support.common.arguments import images, number, radii, whole_number
from support.common.cache import Cache
from support.models.architectures import Classifier


@dataclass(frozen=True)
class Substitute:
    """A copy, and what it cost.

    Attributes:
        model: the trained copy, in evaluation mode, on the device of the seed images.
        queries: images that the target was asked about.
        agreement: share of them on which the copy gives the target's answer, by rounds: after the
            seed images, after the first augmentation, and so on. It is measured on the images it
            was trained on; judge the copy on others.
    """

    model: Classifier
    queries: int
    agreement: tuple[float, ...]


def substitute(
    target_model: Callable[[Tensor], Tensor],
    x_seed: Tensor,
    build: Callable[[int], Classifier],
    *,
    rounds: int,
    step: float = 0.1,
    max_queries: int | None = None,
    epochs: int = 50,
    lr: float = 0.05,
    batch_size: int = 64,
    seed: int = 0,
    cache: Cache | None = None,
    name: str = "substitute",
) -> Substitute:
    """Train a copy of a classifier from its answers alone (Papernot et al. 2017, Algorithm 1).

    Each round asks the target for the class of every image that is new, trains a fresh copy on all
    answers so far, and adds to each image x its Jacobian-based augmentation ``x + step * sign(grad
    p_a(x))``, with a the target's answer and p_a the copy's probability of it, cut to [0,1]. The
    set doubles, so that n seed images cost ``n * 2**rounds`` queries. The answers are classes,
    never scores.

    Args:
        target_model: maps (n, C, H, W) images to (n, K) log-scores, of which only the largest
            counts.
        x_seed: (n, C, H, W) images in [0,1], float32, which the target's training has not seen if
            the attack is to be fair.
        build: ``seed -> untrained Classifier`` of K classes, of any architecture, on the CPU.
        rounds: augmentations, at least 0. The paper has 6.
        step: lambda, in units of [0,1]; the paper has 0.1.
        max_queries: the budget. The round that would exceed it takes a random part of its images,
            and is the last.
        epochs, lr, batch_size: of every round's training, see :func:`support.training.fitting.fit`.
            A few dozen seed images want more epochs or smaller batches, for that first copy decides
            where the next images lie.
        seed: of the first weights, the order of training and the choice under the budget.
        cache: keeps every round's trained copy; the target's answers are part of the key.
        name: on the progress bar.

    Returns:
        The copy of the last round.

    Raises:
        ValueError: a wrong input, a budget below the number of seed images, or a copy with another
            number of classes than the target.
    """
    images("x_seed", x_seed, pictures=True)
    if x_seed.dtype != torch.float32:
        raise ValueError(
            f"x_seed must be float32, as the copy's weights are; given is {x_seed.dtype}"
        )
    whole_number("rounds", rounds, 0)
    radii("step", step, x_seed[:1], positive=True)
    if max_queries is not None:
        whole_number("max_queries", max_queries, len(x_seed))
    whole_number("epochs", epochs, 1)
    whole_number("batch_size", batch_size, 1)
    whole_number("seed", seed, 0)
    number("lr", lr, above=0)
    if not isinstance(fresh := build(seed), Classifier):
        raise ValueError(f"build must map a seed to a Classifier; it made a {type(fresh).__name__}")
    answers, classes = _answers(target_model, x_seed)
    if (copied := training.predict(fresh, x_seed[:1].cpu()).shape[1]) != classes:
        raise ValueError(f"build makes copies of {copied} classes, but the target has {classes}")
    x, agreement = x_seed.detach(), []
    stream = torch.Generator().manual_seed(seed)
    for turn in range(rounds + 1):
        fitted = training.fit(
            build(seed), x, answers, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed,
            device=x.device, cache=cache, name=f"{name}-{turn}",
        )  # fmt: skip
        right = training.predict(fitted.model, x).argmax(1) == answers
        agreement.append(float(right.double().mean()))
        free = len(x) if max_queries is None else min(len(x), max_queries - len(x))
        if turn == rounds or not free:
            break
        order = torch.randperm(len(x), generator=stream, device=stream.device)
        chosen = order[:free].sort().values.to(x.device)
        moved = fgsm(fitted.model, x[chosen], answers[chosen], step, targeted=True).x_adv
        x, answers = torch.cat([x, moved]), torch.cat([answers, _answers(target_model, moved)[0]])
    return Substitute(fitted.model, len(x), tuple(agreement))


def _answers(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, int]:
    """The target's classes (n,) int64 of images, each asked for once, and how many classes it
    has."""
    # the checks want labels; 0 is one of any model's
    nobody = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    check(model, x, nobody)
    scores = prepare(model, x, nobody, looks=0).scores  # it is asked once
    return scores.argmax(1), scores.shape[1]
