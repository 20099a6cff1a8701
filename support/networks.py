"""The classifiers of the five papers on one backbone, with one budget: the models that chapter 8
puts every probe to.

========================  ============================================
======================================== name                      training
             paper, chapter ========================  ============================================
             ========================================
nominal                   cross-entropy                                  the reference of all five
Gauss                     features pulled to frozen class means          hess2020, Algorithm 1,
chapter 1 softRmax                  log softRmax of the scores                     wang2022, Eq. 12,
chapter 2 Magnet                    Magnet loss from random weights                alfarra2021,
appendix A, chapter 4 ClusTR                    Magnet loss after cross-entropy
alfarra2021, section 3.3, chapter 4 QTRADES                   cross-entropy and one quick adversary
        alfarra2021, section 4.2, chapter 4 ClusTR + QTRADES          Magnet loss and one quick
        adversary            alfarra2021, Eq. 6, chapter 4
adversarial               cross-entropy on PGD's images                  the yardstick of the field
========================  ============================================
========================================

Each sees the training images ``warm + tuned`` times. All but softRmax and Magnet share their first
``warm`` passes, with cross-entropy; those two start from the same random weights and take all
passes by themselves. What differs is the cost of a pass: an adversary costs passes of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from support import clustering, models, training
from support.attacks import interval
from support.common import cache
from support.models import heads
from support.models.architectures import Classifier
from support.training import clustr
from support.training.fitting import Loss

NAMES = (
    "nominal",
    "Gauss",
    "softRmax",
    "Magnet",
    "ClusTR",
    "QTRADES",
    "ClusTR + QTRADES",
    "adversarial",
)


@dataclass(frozen=True)
class Recipe:
    """How the networks are trained. Rates and weights are those of the chapters that the networks
    come from.

    Attributes:
        warm, tuned: passes over the data before and after the common start.
        lr, tuned_lr: largest learning rate of SGD in the first passes, and after them.
        magnet_lr: learning rate of Adam under the Magnet loss.
        eps: radius of every adversary, in units of [0, 1].
        pgd_steps: steps of the yardstick's adversary, each ``2.5 eps / pgd_steps`` long.
        quick_weight, joint_weight: lambda of Eq. 6 for QTRADES alone and for ClusTR + QTRADES.
        clusters, alpha: clusters of a class, and the gap of the Magnet loss.
        rejected: share of the right training images that the Gauss network's threshold 1/K rejects,
            which sets its kernel's width.
        augment: random crops and flips.
    """

    warm: int
    tuned: int
    lr: float
    tuned_lr: float
    magnet_lr: float
    eps: float
    pgd_steps: int
    quick_weight: float = 1.0
    joint_weight: float = 8.0
    clusters: int = 2
    alpha: float = 12.5
    rejected: float = 0.05
    augment: bool = False


@dataclass(frozen=True)
class _Start:
    """Where all networks of a seed begin."""

    build: Callable[[], Classifier]
    x: Tensor
    y: Tensor
    classes: int
    recipe: Recipe
    seed: int
    device: torch.device
    cache: cache.Cache | None
    name: str

    def fit(
        self,
        model: Classifier,
        label: str,
        epochs: int,
        lr: float,
        loss: Loss = training.cross_entropy,
    ) -> Classifier:
        return training.fit(
            model, self.x, self.y, loss=loss, epochs=epochs, lr=lr, augment=self.recipe.augment, seed=self.seed, device=self.device,
            cache=self.cache, name=f"{self.name}-{slug(label)}-{self.seed}",
        ).model  # fmt: skip


def slug(label: str) -> str:
    """A name that a cached unit may bear: ``"ClusTR + QTRADES"`` becomes ``clustr-qtrades``."""
    return label.lower().replace(" + ", "-").replace(" ", "-")


def train(
    names: Sequence[str],
    backbone: str,
    x: Tensor,
    y: Tensor,
    classes: int,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    cache: cache.Cache | None = None,
    name: str = "zoo",
) -> dict[str, Classifier]:
    """Train the networks of one seed.

    Args:
        names: of :data:`NAMES`.
        backbone: of :data:`support.models.architectures.NAMES`.
        x, y: (N, C, H, W) training images in [0, 1] and (N,) int64 labels.
        classes: K.
        recipe: the budget.
        seed: of the first weights and of all draws.
        device: where to train.
        cache: keeps every network as a unit of its own; None trains always.
        name: first part of the units' names.

    Returns:
        The networks by name, in evaluation mode.

    Raises:
        ValueError: an unknown name, or what the trainings refuse.
    """
    if strange := [label for label in names if label not in NAMES]:
        raise ValueError(f"unknown networks {strange}: there are {', '.join(NAMES)}")

    def build() -> Classifier:
        return models.build(backbone, x.shape[1:], classes, seed=seed)

    start = _Start(build, x, y, classes, recipe, seed, torch.device(device), cache, name)
    shared: Classifier | None = None
    found = {}
    for label in names:
        if label in _FROM_WARM:
            shared = (
                start.fit(build(), "warm", recipe.warm, recipe.lr) if shared is None else shared
            )
            found[label] = _FROM_WARM[label](
                start, models.with_head(shared, shared.head, copy=True)
            )
        else:
            found[label] = _FROM_NOTHING[label](start)
    return found


def adversarial_loss(eps: float, steps: int) -> Loss:
    """Cross-entropy at the end of PGD's climb, as a training loss: a uniform start in the ball,
    then signed steps of 2.5 eps / steps.

    The climb is made in evaluation mode, with draws of torch's global generator, which
    :func:`support.training.fitting.fit` seeds for every epoch. Unlike :func:`support.attacks.pgd`
    it takes all its steps for all images, and its last iterate whatever it has reached.

    Raises:
        ValueError: no step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1; {steps} was given")

    def loss(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        low, high = interval(x, eps)
        at = torch.clamp(x + eps * (2 * torch.rand_like(x) - 1), low, high)
        scores = clustr._evaluating(model, clustr._scores)
        for _ in range(steps):
            at = at.detach().requires_grad_()
            slope = torch.autograd.grad(
                torch.nn.functional.cross_entropy(scores(at), y, reduction="sum"), at
            )[0]
            at = torch.clamp(at.detach() + 2.5 * eps / steps * slope.sign(), low, high)
        return torch.nn.functional.cross_entropy(model(at.detach()), y, reduction="none")

    return loss


def kernel_width(features: Tensor, labels: Tensor, centers: Tensor, rejected: float) -> float:
    """gamma at which a share of the correctly classified images falls below the confidence 1 / K of
    the Gauss kernel (chapter 1).

    Args:
        features: (N, d), of the training images.
        labels: (N,).
        centers: (K, d), one per class.
        rejected: the share, above 0 and below 1.
    """
    d2 = heads.squared_distances(features, centers)
    labels = labels.to(d2.device)
    own = d2.gather(1, labels[:, None])[:, 0][d2.argmin(1) == labels]
    return float(math.log(len(centers)) / own.double().quantile(1 - rejected))


def _nominal(start: _Start, model: Classifier) -> Classifier:
    return start.fit(model, "nominal", start.recipe.tuned, start.recipe.tuned_lr)


def _gauss(start: _Start, model: Classifier) -> Classifier:
    centers = clustering.class_centroids(
        training.extract(model, start.x), start.y, start.classes
    ).to(start.device)
    unit = (
        (centers - centers.mean(0)).square().sum(1).mean()
    )  # so that the rate does not depend on the features' scale

    def pull(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        return (model.features(x) - centers[y]).square().sum(1) / unit

    tailored = start.fit(
        models.with_head(model, heads.GaussHead(centers)),
        "gauss",
        start.recipe.tuned,
        start.recipe.tuned_lr,
        pull,
    )
    gamma = kernel_width(
        training.extract(tailored, start.x), start.y, centers, start.recipe.rejected
    )
    return models.with_head(tailored, heads.GaussHead(centers, gamma=gamma))


def _softrmax(start: _Start) -> Classifier:
    model = start.build()
    with_head = models.with_head(model, heads.SoftRmaxHead(model.head.weight, model.head.bias))
    return start.fit(with_head, "softrmax", start.recipe.warm + start.recipe.tuned, start.recipe.lr)


def _qtrades(start: _Start, model: Classifier) -> Classifier:
    eps, weight = start.recipe.eps, start.recipe.quick_weight

    def loss(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        return clustr.qtrades_loss(model, x, y, eps=eps, step_size=1.25 * eps, weight=weight)

    return start.fit(model, "qtrades", start.recipe.tuned, start.recipe.tuned_lr, loss)


def _adversarial(start: _Start, model: Classifier) -> Classifier:
    recipe = start.recipe  # from random weights it may stay at chance for half of a short training
    return start.fit(
        model,
        "adversarial",
        recipe.tuned,
        recipe.tuned_lr,
        adversarial_loss(recipe.eps, recipe.pgd_steps),
    )


def _magnet(
    start: _Start, model: Classifier, label: str, epochs: int, weight: float = 0.0
) -> Classifier:
    """Magnet training of ``model``, kept as a unit: the training of
    :func:`support.training.clustr.fine_tune` has no cache of its own."""
    recipe = start.recipe
    chosen = {
        "clusters": recipe.clusters, "alpha": recipe.alpha, "epochs": epochs, "lr": recipe.magnet_lr, "weight": weight, "eps": recipe.eps,
        "step_size": 1.25 * recipe.eps, "as_published": weight > 0, "augment": recipe.augment, "seed": start.seed,
    }  # fmt: skip

    def compute() -> dict[str, Tensor]:
        own = models.with_head(model, model.head, copy=True)
        tuned = clustr.fine_tune(
            own,
            start.x,
            start.y,
            start.classes,
            device=start.device,
            name=f"{start.name}-{label}",
            **chosen,
        ).model
        body = {f"body.{key}": value for key, value in tuned.body.state_dict().items()}
        return {
            "centers": tuned.head.centers,
            "variance": torch.tensor(tuned.head.variance, dtype=torch.float64),
            **body,
        }

    keep = cache.NO_CACHE if start.cache is None else start.cache
    key = {
        "start": models.fingerprint(model),
        "x": start.x,
        "y": start.y,
        "device": start.device.type,
        **chosen,
    }
    unit = keep.unit(f"{start.name}-{slug(label)}-{start.seed}", key, compute, [clustr.fine_tune])
    found = models.with_head(
        model, heads.ClusterHead(unit["centers"], float(unit["variance"])), copy=True
    )
    found.body.load_state_dict(
        {key.removeprefix("body."): value for key, value in unit.items() if key.startswith("body.")}
    )
    return found.to(start.device).eval()


_FROM_WARM: dict[str, Callable[[_Start, Classifier], Classifier]] = {
    "nominal": _nominal,
    "Gauss": _gauss,
    "ClusTR": lambda start, model: _magnet(start, model, "ClusTR", start.recipe.tuned),
    "QTRADES": _qtrades,
    "ClusTR + QTRADES": lambda start, model: _magnet(
        start, model, "ClusTR + QTRADES", start.recipe.tuned, start.recipe.joint_weight
    ),
    "adversarial": _adversarial,
}
_FROM_NOTHING: dict[str, Callable[[_Start], Classifier]] = {
    "softRmax": _softrmax,
    "Magnet": lambda start: _magnet(
        start, start.build(), "Magnet", start.recipe.warm + start.recipe.tuned
    ),
}
