"""Today's evaluation of a classifier's robustness in the maximum norm: one call, one table, and
flags for masked gradients.

:func:`evaluate` takes a model, images, labels and a radius (or several), and runs every row that
its :class:`Budget` grants: noise, our own gradient attacks on log-scores, AutoAttack's four
attacks, of which Square is a black box that sees scores, a black box that sees decisions only
(RayS), and transfer from and to a paired network. Every chapter ends with it; the chapter
"softRmax" explains it.

- **A row's accuracy is its own.** Each row attacks all images that it sees; an image that the clean
  model gets wrong is wrong in every row.
  Rows that cost much see fewer images, always the first ones: ``table()`` says how many.
- **The worst case** is over the first ``budget.images`` images: an image counts as right if no row
  that saw it broke it, at this radius or at a smaller one of the same call (whose ball lies
  inside). "transfer to peer" is no part of it: it judges the peer.
- **Verdicts are ours.** Whatever a library returns is cut to the ball and the box, exactly in
  float64, and judged by our own pass in float32. A tie is no success.
- **At eps = 0** every row that the budget grants is the clean one.

AutoAttack's rows draw for a whole batch at once, so an image's result there depends on the batch
that it is in; in all other rows it depends on the image alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from support import attacks
from support.attacks.base import Model, check, fast_rows, prepare
from support.common.arguments import radii, whole_number
from support.evaluation import gradient_masking, rows
from support.evaluation.gradient_masking import Flag
from support.evaluation.report import (
    ROWS,
    TO_PEER,
    WORST,
    Report,
    compare,
    compare_flags,
    row_names,
)
from support.evaluation.rows import Case, OwnLoss
from support.models.architectures import fingerprint

__all__ = [
    "BUDGETS",
    "ROWS",
    "WORST",
    "Budget",
    "Flag",
    "Report",
    "compare",
    "compare_flags",
    "evaluate",
]

LONG = 1000
"""Steps from which a BIM has a number of images of its own."""

Unit = Callable[[str, Mapping[str, Any], Callable[[], dict], list], dict[str, Tensor]]


@dataclass(frozen=True)
class Budget:
    """What each row may spend. Zero images, draws or queries, or an empty tuple, leave the row out:
    it is "not run".

    Attributes:
        images: of every row that has no number of its own; the worst case is over these.
        noise_draws: of each kind of noise; an image is right if it is right under all of them.
        bim: lengths of BIM, in steps of ``eps / length``.
        long_images: of BIM with 1000 steps or more.
        pgd_steps, pgd_restarts: of PGD with cross-entropy and with the margin.
        targeted_images, targeted_restarts, targeted_classes: of PGD towards every other class;
            ``None``: all classes.
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
    targeted_restarts: int = 1
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
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "sweep":
                if not all(isinstance(eps, int | float) and 0 < eps <= 1 for eps in value):
                    raise ValueError(f"sweep must hold radii above 0 and up to 1, not {value!r}")
            elif field.name == "bim":
                for steps in value:
                    whole_number("each length in bim", steps, 1)
            elif field.name != "targeted_classes" or value is not None:
                least = (
                    1
                    if field.name
                    in {"images", "pgd_steps", "targeted_restarts", "targeted_classes"}
                    else 0
                )
                whole_number(field.name, value, least)


BUDGETS: Mapping[str, Budget] = {
    "quick": Budget(
        images=100, bim=(10, 100), pgd_steps=20, targeted_images=100, hard_label_images=50, hard_label_queries=300, transfer_images=100,
        sweep=(0.1, 0.2, 0.35, 0.5), sweep_images=50,
    ),
    "standard": Budget(
        images=500, long_images=100, pgd_restarts=3, targeted_images=200, autoattack_images=100, square_images=200, square_queries=1000,
        hard_label_images=100, hard_label_queries=1000, transfer_images=500, sweep_images=100,
    ),
    "paper": Budget(
        images=1000, noise_draws=100, long_images=1000, pgd_steps=100, pgd_restarts=10, targeted_images=1000, autoattack_images=1000,
        square_images=1000, square_queries=5000, hard_label_images=1000, hard_label_queries=5000, transfer_images=1000,
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
    attack: Callable[..., Tensor]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class _Keeper:
    """Computes rows, or takes them from the cache, where ``prints`` stand for the model and its
    peer."""

    unit: Unit | None
    name: str
    whole: Case
    prints: tuple[str, ...]

    def __call__(self, row: _Row, eps: float) -> Tensor:
        """(n,) of the row at this radius."""
        whole = self.whole
        case = replace(whole, x=whole.x[: row.images], y=whole.y[: row.images], eps=eps)
        if self.unit is None:
            return row.attack(case, **row.settings).float()
        key = {
            "model": self.prints[0],
            "x": case.x,
            "y": case.y,
            "eps": eps,
            "seed": whole.seed,
            **row.settings,
        }
        if "to_peer" in row.settings:
            key["peer"] = self.prints[1]
        if row.settings.get("own"):
            key["loss"] = whole.loss_own
        if row.attack is rows.autoattack:
            key["torchattacks"] = version("torchattacks")
        label = re.sub(
            r"[^A-Za-z0-9._-]+",
            "-",
            "-".join(filter(None, ["protocol", self.name, row.name, f"{eps:.4g}"])),
        )
        return self.unit(
            label, key, lambda: {"values": row.attack(case, **row.settings).float()}, [rows]
        )["values"].to(case.x.device)


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
    loss_own: OwnLoss | None = None,
    seed: int = 0,
    unit: Unit | None = None,
    name: str = "",
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
        unit: ``run.unit`` of a chapter, or another function ``(name, key, compute, code)``: each
            row at each radius is then cached under the fingerprints of the networks, the images,
            the radius and what of the budget decides it.
        name: of the model, part of the units' names.

    Returns:
        The report. APGD-T is not run for fewer than four classes, where its loss is not defined.

    Raises:
        ValueError: wrong images, labels, radii or scores; a peer of other classes; a model that is
            no module and cannot be cached.
    """
    x, y = x[: budget.images], y[: budget.images]
    check(model, x, y, batch_size=None, pictures=True)
    if x.dtype != torch.float32:
        raise ValueError(f"x must be float32, in which verdicts are judged, not {x.dtype}")
    whole_number("seed", seed, 0)
    sizes = _radii(eps, x)
    clean = prepare(model, x, y, fast_rows(x, model=model)).scores
    classes = clean.shape[1]
    if peer is not None:
        check(peer, x, y, batch_size=None, pictures=True)
        theirs = prepare(peer, x[:1], torch.zeros_like(y[:1]), 1).scores.shape[1]
        if theirs != classes:
            raise ValueError(
                f"peer must score the same {classes} classes as the model; it scores {theirs}"
            )
    if unit is not None and not all(
        isinstance(net, nn.Module) for net in (model, peer) if net is not None
    ):
        raise ValueError(
            "only modules can be cached, by their parameters; give unit=None for another callable"
        )
    whole = Case(model, x, y, sizes[0], seed, peer, loss_own)
    keep = _Keeper(
        unit,
        name,
        whole,
        () if unit is None else tuple(fingerprint(net) for net in (model, peer) if net is not None),
    )

    margins: dict[tuple[str, float], Tensor] = {}
    found: dict[tuple[str, float], Tensor] = {}
    right = {False: ~(attacks.margin(clean, y) < 0)}
    if peer is not None:
        right[True] = ~(rows.margins(peer, x, y) < 0)
    planned = [
        row
        for row in _plan(budget, peer is not None, loss_own is not None)
        if classes >= rows.LEAST_CLASSES.get(row.name, 2)
    ]
    for size in sizes:
        margins["clean", size], found["clean", size] = attacks.margin(clean, y), right[False]
        for row in planned:
            was_right = right[row.name == TO_PEER][: row.images]
            if size:
                margins[row.name, size] = keep(row, size)
                found[row.name, size] = was_right & ~(margins[row.name, size] < 0)
            else:
                found[row.name, size] = was_right
    names = row_names(budget.bim, loss_own is not None)
    for size in sizes:
        found[WORST, size] = _worst(
            found, names, [other for other in sizes if other <= size], len(x)
        )
    signs = _signs(keep, budget, sizes, found, margins)
    return Report(sizes, len(x), names, {key: seen.cpu() for key, seen in found.items()}, signs)


def _radii(eps: float | Sequence[float], x: Tensor) -> tuple[float, ...]:
    sizes = tuple(eps) if isinstance(eps, Sequence) else (eps,)
    if not sizes or len(set(sizes)) < len(sizes):
        raise ValueError(f"eps must be one radius or several different ones, not {eps!r}")
    return tuple(float(radii("eps", size, x)[0]) for size in sizes)


def _plan(budget: Budget, peer: bool, own: bool) -> list[_Row]:
    """The rows that a budget grants."""

    def row(label: str, images: int, attack: Callable[..., Tensor], **settings: Any) -> _Row:
        return _Row(label, min(images, budget.images), attack, settings)

    steps, restarts, everyone = budget.pgd_steps, budget.pgd_restarts, budget.images
    noisy, climbed = everyone * bool(budget.noise_draws), everyone * bool(restarts)
    squares, labels = (
        budget.square_images * bool(budget.square_queries),
        budget.hard_label_images * bool(budget.hard_label_queries),
    )
    lengths = [
        (count, budget.long_images if count >= LONG else everyone)
        for count in sorted(set(budget.bim))
    ]
    planned = [
        row("uniform noise", noisy, rows.noise, draws=budget.noise_draws, gaussian=False),
        row("Gaussian noise", noisy, rows.noise, draws=budget.noise_draws, gaussian=True),
        row("FGSM", everyone, rows.fgsm),
        *(row(f"BIM-{count}", images, rows.bim, steps=count) for count, images in lengths),
        *([row("FGSM, own loss", everyone, rows.fgsm, own=True)] if own else []),
        *(row(f"BIM-{count}, own loss", images, rows.bim, steps=count, own=True) for count, images in lengths if own),
        row("PGD cross-entropy", climbed, rows.pgd, loss="ce", steps=steps, restarts=restarts),
        row("PGD margin", climbed, rows.pgd, loss="margin", steps=steps, restarts=restarts),
        row("PGD targeted", budget.targeted_images, rows.pgd_targets, steps=steps, restarts=budget.targeted_restarts,
            classes=budget.targeted_classes),
        *(row(name, budget.autoattack_images, rows.autoattack, name=name) for name in ("APGD-CE", "APGD-T", "FAB-T")),
        row("Square", squares, rows.autoattack, name="Square", queries=budget.square_queries),
        row("hard label", labels, rows.hard_label, queries=budget.hard_label_queries),
    ]  # fmt: skip
    if peer:
        planned += [
            row(name, budget.transfer_images, rows.transfer, steps=steps, to_peer=to)
            for name, to in (("transfer from peer", False), (TO_PEER, True))
        ]
    return [row for row in planned if row.images]


def _worst(
    found: Mapping[tuple[str, float], Tensor],
    names: Sequence[str],
    sizes: Sequence[float],
    count: int,
) -> Tensor:
    """(count,) bool: right under each row that saw the image, at each of these radii."""
    left = torch.ones(count, dtype=torch.bool, device=found["clean", sizes[0]].device)
    for size in sizes:
        for name in names:
            seen = found.get((name, size)) if name not in (TO_PEER, WORST) else None
            if seen is not None:
                left[: len(seen)] &= seen
    return left


def _signs(
    keep: _Keeper,
    budget: Budget,
    sizes: Sequence[float],
    found: Mapping[tuple[str, float], Tensor],
    margins: Mapping[tuple[str, float], Tensor],
) -> tuple[Flag, ...]:
    """The flags at every radius above zero, and of each kind the worst."""
    whole, right = keep.whole, found["clean", sizes[0]]
    steep = {"cross-entropy": keep(_Row("slope", len(right), rows.slope, {}), 0.0)}
    if whole.loss_own is not None:
        steep["model's own loss"] = keep(
            _Row("slope, own loss", len(right), rows.slope, {"own": True}), 0.0
        )
    sweep = {}
    for far in budget.sweep if budget.sweep_images else ():
        row = _Row(
            "sweep",
            min(budget.sweep_images, len(right)),
            rows.pgd,
            {"loss": "margin", "steps": budget.pgd_steps, "restarts": 1},
        )
        sweep[float(far)] = (right[: row.images] & ~(keep(row, float(far)) < 0)).cpu()
    steep = {loss: values.cpu() for loss, values in steep.items()}

    def at(size: float, table: Mapping[tuple[str, float], Tensor]) -> dict[str, Tensor]:
        return {name: values.cpu() for (name, radius), values in table.items() if radius == size}

    return gradient_masking.worst(
        [
            gradient_masking.of_radius(
                size, at(size, found), at(size, margins), steep, sweep, whole.y.cpu()
            )
            for size in sizes
        ]
    )
