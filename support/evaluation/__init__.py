"""Today's evaluation of a classifier's robustness in the maximum norm: one call, one table, and
flags for masked gradients.

Here are :func:`evaluate` and what it may spend (:class:`Budget`, :data:`BUDGETS`);
:mod:`~support.evaluation.rows` computes its rows, :mod:`~support.evaluation.gradient_masking` its
flags, and :mod:`~support.evaluation.report` is what comes out, also of several models side by side
(:func:`compare`, :func:`compare_flags`). Beside it stand
:mod:`~support.evaluation.substitute_model` (a copy of a network that can only be asked),
:mod:`~support.evaluation.magnitude_margin` (a ratio that a small loss of accuracy was predicted
from) and :mod:`~support.evaluation.rank_tests` (does one number order models as another does?).

:func:`evaluate` takes a model, images, labels and a radius (or several), and runs every row that
its :class:`Budget` grants: noise, our own gradient attacks on log-scores, AutoAttack's four
attacks, of which Square is a black box that sees scores, a black box that sees decisions only
(RayS), and transfer from and to a paired network. Every chapter ends with it; the chapter
"softRmax" explains it.

- **A row's accuracy is its own.** Each row attacks all images that it sees; an image that the clean
  model gets wrong is wrong in every row.
  Rows that cost much see fewer images, always the first ones: ``table()`` says how many.
- **The worst case** is over the images that every row saw, the first ones: an image counts as right
  if no row broke it, at this radius or at a smaller one of the same call (whose ball lies inside).
  So it is never above one of its rows on the same images. "transfer to peer" is no part of it: it
  judges the peer.
- **Verdicts are ours.** Whatever a library returns is cut to the ball and the box, exactly in
  float64, and judged by our own pass in float32. A tie is no success.
- **At eps = 0** every row that the budget grants is the clean one.

AutoAttack's rows draw for a whole batch at once, so an image's result there depends on the batch
that it is in; in all other rows it depends on the image alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from support import attacks
from support.attacks.base import Model, check, prepare
from support.common.arguments import number, radii, whole_number
from support.evaluation import gradient_masking, rows
from support.evaluation.gradient_masking import Flag
from support.evaluation.magnitude_margin import magnitude_margin_ratio
from support.evaluation.report import (
    ROWS,
    TO_PEER,
    WORST,
    Report,
    compare,
    compare_flags,
    row_names,
)

__all__ = [
    "BUDGETS", "ROWS", "WORST", "Budget", "Flag", "Report", "compare", "compare_flags", "evaluate",
    "magnitude_margin_ratio",
]  # fmt: skip

LONG = 1000
"""Steps from which a BIM has a number of images of its own."""


@dataclass(frozen=True)
class Budget:
    """What each row may spend. Zero images, draws or queries, or an empty tuple, leave the row out:
    it is "not run".

    Attributes:
        images: of every row that has no number of its own; the worst case is over the fewest that
            a row sees.
        noise_draws: of each kind of noise; an image is right if it is right under all of them.
        bim: lengths of BIM, in steps of ``eps / length``.
        long_images: of BIM with 1000 steps or more.
        pgd_steps, pgd_restarts: of PGD with cross-entropy and with the margin.
        targeted_images, targeted_rounds, targeted_classes: of short rounds of steps towards every
            other class (:func:`support.attacks.multi_targeted`); ``None``: all classes.
        autoattack_images: of APGD-CE, APGD-T and FAB-T, with 100 steps each.
        square_images, square_queries: of the black box that sees scores.
        hard_label_images, hard_label_queries: of the black box that sees decisions only.
        transfer_images: of both directions of transfer, if there is a peer.
        sweep, sweep_images: the radii up to 0.5 or more at which PGD on the margin must bring
            accuracy down to chance.
    """

    images: int
    noise_draws: int = 10
    bim: tuple[int, ...] = (10, 100, 1000)
    long_images: int = 0
    pgd_steps: int = 50
    pgd_restarts: int = 1
    targeted_images: int = 0
    targeted_rounds: int = 3
    targeted_classes: int | None = None
    autoattack_images: int = 0
    square_images: int = 0
    square_queries: int = 1000
    hard_label_images: int = 0
    hard_label_queries: int = 1000
    transfer_images: int = 0
    sweep: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
    sweep_images: int = 0

    def __post_init__(self) -> None:
        for eps in self.sweep:
            number("each radius in sweep", eps, above=0, most=1)
        for steps in self.bim:
            whole_number("each length in bim", steps, 1)
        least = {"images": 1, "pgd_steps": 1, "targeted_rounds": 1, "targeted_classes": 1}
        for part in fields(self):
            value = getattr(self, part.name)
            everyone = part.name == "targeted_classes" and value is None
            if part.name not in ("sweep", "bim") and not everyone:
                whole_number(part.name, value, least.get(part.name, 0))


BUDGETS: Mapping[str, Budget] = {
    "quick": Budget(
        images=100, bim=(10, 100), pgd_steps=20, targeted_images=100, hard_label_images=50,
        hard_label_queries=300, transfer_images=100, sweep=(0.1, 0.2, 0.35, 0.5), sweep_images=50,
    ),
    "standard": Budget(
        images=500, long_images=100, pgd_restarts=3, targeted_images=500, autoattack_images=100,
        square_images=200, square_queries=1000, hard_label_images=100, hard_label_queries=1000,
        transfer_images=500, sweep_images=100,
    ),
    "paper": Budget(
        images=1000, noise_draws=100, long_images=1000, pgd_steps=100, pgd_restarts=10,
        targeted_images=1000, targeted_rounds=9, autoattack_images=1000, square_images=1000,
        square_queries=5000, hard_label_images=1000, hard_label_queries=5000, transfer_images=1000,
        sweep=(0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0), sweep_images=1000,
    ),
}  # fmt: skip
"""By profile. Quick leaves out AutoAttack and the longest BIM and takes seconds; standard takes
minutes of one core; paper is for a GPU."""


@dataclass(frozen=True)
class _Row:
    """How one row is computed: for the first ``images`` images, by a function of
    :mod:`support.evaluation.rows` under some settings."""

    name: str
    images: int
    function: Callable[..., Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)


def _plainly(function: Callable, *args: Any, **settings: Any) -> Any:
    return function(*args, **settings)


@torch.inference_mode(False)
@torch.no_grad()
def evaluate(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Sequence[float],
    *,
    budget: Budget,
    peer: Model | None = None,
    loss_own: rows.OwnLoss | None = None,
    seed: int = 0,
    once: Callable = _plainly,
) -> Report:
    """Attack a classifier with every row that a budget grants.

    Args:
        model: maps (n, C, H, W) images in [0,1] to (n, K) log-scores; in evaluation mode if it has
            dropout or batch norm.
        x: (N, C, H, W) float32 images in [0,1]; the first ``budget.images`` are used.
        y: (N,) int64 true labels.
        eps: radius in the maximum norm in units of [0,1], or several, all different.
        budget: what each row may spend; ``dataclasses.replace(BUDGETS["standard"], ...)`` changes
            one.
        peer: a network of the same classes, usually the softmax one trained alike, for the two rows
            of transfer.
        loss_own: the model's own training loss ``(model, x, y) -> (n,)``: adds rows in which FGSM
            and BIM climb it, as a paper's own evaluation does, where all others climb losses of the
            log-scores.
        seed: of every draw; the same seed gives the same report.
        once: ``once(function, *args, **settings)`` returns what ``function(*args, **settings)``
            does, for example from a cache (``run.once`` of a chapter): asked for each row at each
            radius, by a function of :mod:`support.evaluation.rows` and everything that decides it.

    Returns:
        The report. APGD-T is not run for fewer than four classes, where its loss is not defined.

    Raises:
        ValueError: wrong images, labels, radii or scores; a peer of other classes.
    """
    x, y = x[: budget.images], y[: budget.images]
    check(model, x, y, pictures=True)
    # a library may take contiguous images for granted
    x, y = x.clone(memory_format=torch.contiguous_format), y.clone()
    if x.dtype != torch.float32:
        raise ValueError(f"x must be float32, in which verdicts are judged, not {x.dtype}")
    whole_number("seed", seed, 0)
    sizes = _radii(eps, x)
    clean = prepare(model, x, y).scores
    classes = clean.shape[1]
    if peer is not None:
        check(peer, x, y, pictures=True)
        theirs = prepare(peer, x[:1], torch.zeros_like(y[:1])).scores.shape[1]
        if theirs != classes:
            raise ValueError(
                f"peer must score the same {classes} classes as the model; it scores {theirs}"
            )

    def margins_of(row: _Row, size: float) -> Tensor:
        """(n,) of the images that the row sees."""
        seen = x[: row.images], y[: row.images]
        return once(row.function, model, *seen, size, **row.settings).to(x.device).float()

    right = {False: ~(attacks.margin(clean, y) < 0)}
    if peer is not None:
        right[True] = ~(rows.margins(peer, x, y) < 0)
    margins, found = {}, {}  # (n,) of each row at each radius
    for size in sizes:
        margins["clean", size], found["clean", size] = attacks.margin(clean, y), right[False]
        for row in _plan(budget, peer, loss_own, seed):
            if classes < rows.LEAST_CLASSES.get(row.name, 2):
                continue
            found[row.name, size] = right[row.name == TO_PEER][: row.images]
            if size:
                margins[row.name, size] = margins_of(row, size)
                found[row.name, size] = found[row.name, size] & ~(margins[row.name, size] < 0)
    names = row_names(budget.bim, loss_own is not None)
    for size in sizes:
        inside = [other for other in sizes if other <= size]
        found[WORST, size] = _worst(found, names, inside)

    slopes = {"cross-entropy": once(rows.slope, model, x, y, loss=rows.cross_entropy).cpu()}
    if loss_own is not None:
        slopes["model's own loss"] = once(rows.slope, model, x, y, loss=loss_own).cpu()
    climb = {"attack": attacks.pgd, "loss": "margin", "steps": budget.pgd_steps, "seed": seed}
    far, sweep = _Row("sweep", min(budget.sweep_images, len(x)), rows.attacked, climb), {}
    for size in budget.sweep if far.images else ():
        held = ~(margins_of(far, float(size)) < 0)
        sweep[float(size)] = (right[False][: far.images] & held).cpu()

    def at(size: float, table: Mapping[tuple[str, float], Tensor]) -> dict[str, Tensor]:
        return {name: values.cpu() for (name, radius), values in table.items() if radius == size}

    tables = [(size, at(size, found), at(size, margins)) for size in sizes]
    flags = [gradient_masking.of_radius(*table, slopes, sweep, y.cpu()) for table in tables]
    found = {key: seen.cpu() for key, seen in found.items()}
    return Report(sizes, len(x), names, found, gradient_masking.worst(flags))


def _radii(eps: float | Sequence[float], x: Tensor) -> tuple[float, ...]:
    sizes = tuple(eps) if isinstance(eps, Sequence) else (eps,)
    if not sizes or len(set(sizes)) < len(sizes):
        raise ValueError(f"eps must be one radius or several different ones, not {eps!r}")
    return tuple(float(radii("eps", size, x)[0]) for size in sizes)


def _plan(
    budget: Budget, peer: Model | None, loss_own: rows.OwnLoss | None, seed: int
) -> list[_Row]:
    """The rows that a budget grants."""
    planned: list[_Row] = []

    def add(label: str, images: int, function: Callable[..., Tensor], /, **settings: Any) -> None:
        if images:
            planned.append(_Row(label, min(images, budget.images), function, settings))

    everyone, steps = budget.images, budget.pgd_steps
    for name, gaussian in (("uniform noise", False), ("Gaussian noise", True)):
        noisy = everyone * bool(budget.noise_draws)
        add(name, noisy, rows.noise, draws=budget.noise_draws, gaussian=gaussian, seed=seed)
    for loss, note in (("ce", ""), (loss_own, ", own loss")):
        if loss is None:
            continue
        add(f"FGSM{note}", everyone, rows.attacked, attack=attacks.fgsm, loss=loss)
        for count in sorted(set(budget.bim)):
            images = budget.long_images if count >= LONG else everyone
            bim = {"attack": attacks.bim, "steps": count, "loss": loss}
            add(f"BIM-{count}{note}", images, rows.attacked, **bim)
    for loss, name in (("ce", "PGD cross-entropy"), ("margin", "PGD margin")):
        images = everyone * bool(budget.pgd_restarts)
        pgd = {"attack": attacks.pgd, "steps": steps, "restarts": budget.pgd_restarts}
        add(name, images, rows.attacked, **pgd, loss=loss, seed=seed)
    sweep = {"rounds": budget.targeted_rounds, "classes": budget.targeted_classes}
    sweep |= {"attack": attacks.multi_targeted, "seed": seed}
    add("multi-targeted", budget.targeted_images, rows.attacked, **sweep)
    for name in ("APGD-CE", "APGD-T", "FAB-T"):
        add(name, budget.autoattack_images, rows.autoattack, name=name, seed=seed)
    squares = budget.square_images * bool(budget.square_queries)
    add("Square", squares, rows.autoattack, name="Square", seed=seed, queries=budget.square_queries)
    asked = {"attack": attacks.rays, "queries": budget.hard_label_queries, "seed": seed}
    add("hard label", budget.hard_label_images * bool(asked["queries"]), rows.attacked, **asked)
    if peer is not None:
        for name, to_peer in (("transfer from peer", False), (TO_PEER, True)):
            pair = {"peer": peer, "to_peer": to_peer}
            add(name, budget.transfer_images, rows.transfer, steps=steps, **pair)
    return planned


def _worst(
    found: Mapping[tuple[str, float], Tensor], names: Sequence[str], sizes: Sequence[float]
) -> Tensor:
    """(n,) bool: right under each row, at each of these radii, for the n images that all saw."""
    seen = [
        mask
        for (name, size), mask in found.items()
        if size in sizes and name in names and name not in (TO_PEER, WORST)
    ]
    count = min(map(len, seen))
    return torch.stack([mask[:count] for mask in seen]).all(0)
