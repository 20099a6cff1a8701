"""Every network of the book, by name.

``get("mnist/lenet/gauss", seed=0)`` trains that network, or finds it in a cache. A name is
``data/body/kind``:

- data: one of :data:`IMAGES`, or some of its classes, labelled in this order (``digits:3,5,8``);
- body: one of :data:`BODIES`, with its sizes behind it where it has any (``mlp-64-9``);
- kind: one of :data:`RECIPES`, that is head, loss and training; ``published`` for weights that
  others have trained (:data:`PUBLISHED`).

The bodies :data:`WARM` begin with published weights: ``softmax`` is these, trained on for as many
passes as it is told (by default none), and the other kinds go on from there.

A recipe may go on from another network: ``gauss`` tailors the ``softmax`` network of the same seed
and settings, and who asks for both trains the first once. What a training is told, such as its
passes over the data, has a value for every profile (:func:`settings`) and can be changed. Two who
ask for the same network with the same settings share it in the cache, whatever else they do.
"""

import difflib
import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from support import clustering, data, models, training
from support.attacks import interval
from support.common import arguments, paths
from support.common.cache import Cache, call
from support.models import architectures, heads, pretrained, published
from support.models.architectures import Classifier
from support.training import clustr, fitting

Shape = tuple[int, int, int]
Probe = Callable[[Classifier], Sequence[float]]

IMAGES = {
    "digits": ((1, 8, 8), 10), "mnist": ((1, 28, 28), 10), "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100), "svhn": ((3, 32, 32), 10),
}  # fmt: skip
"""Shape and number of classes of each data set."""

PROFILES = ("quick", "standard", "paper")
SETTINGS = {
    "train": None, "draw": None, "test": None, "augment": False, "batch_size": 128,
    "weight_decay": 0.0, "strength": 0.01, "rejected": 0.05, "clusters": 2, "alpha": 12.5,
    "pgd_steps": 5, "joint_weight": 8.0,
    "epochs": (30, 6, 20), "lr": (0.1, 0.05, 0.05), "tuned": (20, 5, 20),
    "tuned_lr": (0.05, 0.02, 0.02), "magnet_lr": (3e-3, 1e-3, 3e-4),
    "quick_weight": (2.0, 1.0, 1.0),
}  # fmt: skip
"""What trainings are told, at the three profiles, unless a chapter says otherwise: see
:func:`settings`."""


@dataclass(frozen=True)
class Trained:
    """A network and how it came about.

    Attributes:
        model: in evaluation mode.
        history: mean ``loss`` of each epoch of its last training; of SGD also ``accuracy``.
        trace: (epochs + 1, ...) float64, what the probe saw before the first epoch and after each;
            None without a probe.
        starts: how often it was begun.
        seconds: what all its trainings took when they were made, by
            :func:`support.training.fitting.clock`.
    """

    model: nn.Module
    history: dict[str, list[float]]
    seconds: float = 0.0
    trace: Tensor | None = None
    starts: int = 1


@dataclass(frozen=True)
class Body:
    """A feature map under a linear head: what it is, ``build(shape, classes, *sizes, seed=0)``, and
    the data sets whose images it takes."""

    line: str
    build: Callable[..., Classifier]
    data: tuple[str, ...] = tuple(IMAGES)


@dataclass(frozen=True)
class Recipe:
    """How the networks of a kind are made.

    Attributes:
        train: ``(bench, model, settings) -> Trained``.
        reads: the settings that it has, besides those of the kind that it goes on from.
        after: the kind whose network ``model`` is; ``""``: it has random weights.
        head: puts another head on those.
        deep: whether it moves the features, so that they need weights.
        line: what the networks are.
    """

    train: Callable[..., Trained]
    reads: str
    after: str = ""
    head: Callable[[Classifier], Classifier] = lambda model: model
    deep: bool = False
    line: str = ""


@dataclass(frozen=True)
class _Name:
    data: str
    classes: tuple[int, ...]  # empty: all
    body: str
    sizes: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class _Bench:
    """Where a network is made: its data, and what all its trainings share."""

    name: _Name
    images: data.ImageData
    seed: int
    device: torch.device
    cache: Cache | None
    probe: Probe | None

    def fit(self, model: Classifier, epochs: int, lr: float, **more) -> Trained:
        if self.probe is not None:
            raise ValueError("a probe watches Magnet trainings only, and this network's is none")
        label = f"{self.name.data}-{self.name.body}-{self.seed}"
        found = training.fit(
            model, self.images.x, self.images.y, epochs=epochs, lr=lr, seed=self.seed,
            device=self.device, cache=self.cache, name=label, **more,
        )  # fmt: skip
        return Trained(found.model, found.history, found.seconds)

    def magnet(self, model: Classifier, s, epochs: int, **quick) -> Trained:
        """Magnet training from where ``model`` stands. It is kept whole: the states of a killed one
        are not."""
        chosen = {
            "clusters": s.clusters, "alpha": s.alpha, "augment": s.augment, "epochs": epochs,
            "lr": s.magnet_lr, "seed": self.seed, "device": self.device.type, **quick,
        }  # fmt: skip
        once = call if self.cache is None else self.cache.once
        images, classes = self.images, len(self.images.classes)
        kept = once(_magnet_training, model, images.x, images.y, classes, self.probe, **chosen)
        model.body.load_state_dict(kept["body"])
        head = heads.ClusterHead(kept["centers"], kept["variance"])
        found = models.with_head(model, head).to(self.device).eval()
        return Trained(found, {"loss": kept["loss"]}, kept["seconds"], kept["trace"])


def get(name: str, **how) -> nn.Module:
    """A network of the book, in evaluation mode on its device: the model of :func:`train`, which
    says what it is asked for with (``seed``, ``profile``, ``device``, ``cache``, settings)."""
    return train(name, **how).model


def train(
    name: str,
    *,
    seed: int = 0,
    profile: str = "quick",
    device: str | torch.device = "cpu",
    cache: Cache | None = None,
    probe: Probe | None = None,
    **changes,
) -> Trained:
    """A network of the book, and how its last training went.

    Args:
        name: ``data/body/kind``, see :func:`names`.
        seed: of the first weights and of all draws; published weights have none.
        profile: whose values the settings have that are not changed.
        device: where to train, and where the network stays.
        cache: keeps every training; None trains always.
        probe: looks on at a Magnet training: called with the model before the first epoch and after
            each, it returns as many numbers each time. With a cache it is part of the key.
        **changes: of the settings, see :func:`settings`.

    Raises:
        ValueError: an unknown name, profile or setting, or a value that the training refuses.
        DataError: the images or weights are not there and cannot be had.
    """
    parsed, found = _parse(name), settings(name, profile=profile)
    if strange := [key for key in changes if key not in found]:
        raise ValueError(
            f"{name} has no setting {strange[0]!r}: it has {', '.join(found) or 'none at all'}"
        )
    device = torch.device(device)
    if parsed.kind == "published":
        return Trained(PUBLISHED[f"{parsed.data}/{parsed.body}"]().to(device), {})
    chosen = SimpleNamespace(**found | changes)
    images = _images(parsed, chosen.train, chosen.draw)
    return _made(_Bench(parsed, images, seed, device, cache, probe), parsed.kind, chosen)


def untrained(name: str, *, seed: int = 0, device: str | torch.device = "cpu") -> Classifier:
    """Random weights under the network's head: those with which its training begins, unless its
    body is one of :data:`WARM`.

    Raises:
        ValueError: an unknown name, or published weights, whose start is not known.
    """
    parsed = _parse(name)
    if parsed.kind == "published":
        raise ValueError(f"{name} was trained by others: its first weights are not known")
    return _fresh(parsed, _stages(parsed.kind)[0], seed).to(torch.device(device))


def settings(name: str, *, profile: str = "quick") -> dict[str, object]:
    """What the training of a network is told at a profile, by name.

    ============================ ==================================================================
    train, draw                  at most so many images (None: all), the first ones (None) or a
                                 random draw of this seed with the classes alike
    epochs, lr                   passes and largest learning rate of the first training
    batch_size, weight_decay     of the first training
    augment                      random crops and flips in all trainings
    tuned, tuned_lr              passes and rate of the training that goes on from it
    magnet_lr, clusters, alpha   Adam's rate, clusters of a class and gap of the Magnet loss
    eps, pgd_steps               radius of the adversary in training, and steps of PGD's
    quick_weight, joint_weight   lambda of Eq. 6 for QTRADES alone and for ClusTR + QTRADES
    rejected                     share of the right training images that the Gauss network's
                                 threshold 1/K rejects, which sets its kernel's width
    strength                     factor of the penalty on the last layer's weights
    test                         images that say whether a network has died, as ``train``
    ============================ ==================================================================

    Raises:
        ValueError: an unknown name or profile.
    """
    parsed, column = _parse(name), PROFILES.index(arguments.choice("profile", profile, PROFILES))
    if parsed.kind == "published":
        return {}
    values = {k: v[column] if isinstance(v, tuple) else v for k, v in SETTINGS.items()}
    values["eps"] = 8 / 255 if IMAGES[parsed.data][0][0] == 3 else 0.1
    if parsed.body in WARM:
        values["epochs"] = 0 if "softmax" in _stages(parsed.kind) else values["tuned"]
    reads = " ".join(["train draw", *(RECIPES[kind].reads for kind in _stages(parsed.kind))])
    return {key: values[key] for key in reads.split()}


def names(pattern: str = "*") -> dict[str, str]:
    """The networks whose name fits a pattern such as ``"mnist/lenet/*"``, with a line on each.
    Names with sizes of a body or with some classes of a data set are as good, and not listed."""
    found = {
        f"{source}/{word}/{kind}": f"{body.line}; {recipe.line}"
        for word, body in BODIES.items()
        for source in body.data
        for kind, recipe in RECIPES.items()
        if not (recipe.deep and word in LINEAR)
    }
    found |= {f"{place}/published": "weights as their authors trained them" for place in PUBLISHED}
    return {name: found[name] for name in fnmatch.filter(found, pattern)}


def adversarial_loss(eps: float, steps: int) -> fitting.Loss:
    """Cross-entropy at the end of PGD's climb, as a training loss: a uniform start in the ball,
    then signed steps of 2.5 eps / steps.

    The climb is made in evaluation mode, with draws of torch's global generator, which
    :func:`support.training.fit` seeds for every epoch. Unlike :func:`support.attacks.pgd` it takes
    all its steps for all images, and its last iterate whatever it has reached.

    Raises:
        ValueError: no step.
    """
    arguments.whole_number("steps", steps, 1)

    def loss(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        low, high = interval(x, eps)
        at = torch.clamp(x + eps * (2 * torch.rand_like(x) - 1), low, high)
        scores = fitting.evaluating(model)
        for _ in range(steps):
            at = at.detach().requires_grad_()
            climbed = nn.functional.cross_entropy(scores(at), y, reduction="sum")
            slope = torch.autograd.grad(climbed, at)[0]
            at = torch.clamp(at.detach() + 2.5 * eps / steps * slope.sign(), low, high)
        return training.cross_entropy(model, at.detach(), y)

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
    arguments.number("rejected", rejected, above=0, below=1)
    d2 = heads.squared_distances(features, centers)
    labels = labels.to(d2.device)
    own = d2.gather(1, labels[:, None])[:, 0][d2.argmin(1) == labels]
    return float(math.log(len(centers)) / own.double().quantile(1 - rejected))


# --- recipes --------------------------------------------------------------------------------------


def _softmax(bench: _Bench, model: Classifier, s) -> Trained:
    sizes = {"batch_size": s.batch_size, "weight_decay": s.weight_decay, "augment": s.augment}
    if not s.epochs and bench.name.body in WARM:
        return Trained(model.to(bench.device), {})
    return bench.fit(model, s.epochs, s.lr, **sizes)


def _near(bench: _Bench, model: Classifier, s) -> Trained:
    """softRmax from its softmax network's weights, which published ones must be scaled for: their
    scores lie so far from all centres that every class is as likely (chapter 2)."""
    if bench.name.body in WARM:
        few = bench.images.take(min(len(bench.images), 2000))
        with torch.no_grad():
            z = model.head.logits(training.extract(model.to(bench.device), few.x))
        own = float(z.gather(1, few.y.to(z.device)[:, None]).mean())
        model = _softrmax(model, 1 / own)
    return _softmax(bench, model, s)


def _proximal(bench: _Bench, model: Classifier, s) -> Trained:
    """hess2020's proximal update, as chapter 1 reconstructs it."""

    def project(model: Classifier, epoch: int) -> None:
        with torch.no_grad():
            model.head.weight.copy_(clustering.equal_norm_projection(model.head.weight))

    return bench.fit(model, s.epochs, s.lr, on_epoch=project)


def _penalised(
    penalty: Callable[[Tensor, float], Tensor], bench: _Bench, model: Classifier, s
) -> Trained:
    strength = s.strength

    def loss(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        return training.cross_entropy(model, x, y) + penalty(model.head.weight, strength)

    return bench.fit(model, s.epochs, s.lr, loss=loss)


def _restarted(bench: _Bench, model: Classifier, s) -> Trained:
    """A network that answers at random after training has died, and begins with other weights."""
    test = _images(bench.name, s.test, None, "test")
    for start in range(10):
        fresh = _fresh(bench.name, bench.name.kind, bench.seed + 1000 * start)
        found = bench.fit(fresh, s.epochs, s.lr)
        right = training.predict(found.model, test.x).argmax(1).cpu() == test.y
        if float(right.double().mean()) > 2 / len(test.classes):
            break
    return replace(found, starts=start + 1)


def _tuned(bench: _Bench, model: Classifier, s, **more) -> Trained:
    return bench.fit(model, s.tuned, s.tuned_lr, augment=s.augment, **more)


def _class_means(bench: _Bench, model: Classifier) -> tuple[Tensor, Tensor]:
    """The class means (K, d) of the training features, and their mean squared distance from their
    own mean: the unit in which a loss does not depend on the features' scale."""
    f, images = training.extract(model, bench.images.x), bench.images
    centers = clustering.class_centroids(f, images.y, len(images.classes)).to(bench.device)
    return centers, (centers - centers.mean(0)).square().sum(1).mean()


def _gauss(bench: _Bench, model: Classifier, s) -> Trained:
    centers, unit = _class_means(bench, model)

    def pull(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        return (model.features(x) - centers[y]).square().sum(1) / unit

    found = _tuned(bench, models.with_head(model, heads.GaussHead(centers)), s, loss=pull)
    f = training.extract(found.model, bench.images.x)
    gamma = kernel_width(f, bench.images.y, centers, s.rejected)
    return replace(found, model=models.with_head(found.model, heads.GaussHead(centers, gamma)))


def _gauss_by_cross_entropy(bench: _Bench, model: Classifier, s) -> Trained:
    centers, unit = _class_means(bench, model)
    head = heads.GaussHead(centers, gamma=5 / float(unit))
    return _tuned(bench, models.with_head(model, head), s)


def _magnet_training(
    model: Classifier, x: Tensor, y: Tensor, classes: int, probe: Probe | None, **chosen
) -> dict:
    """:func:`support.training.clustr.fine_tune` in parts that can be kept."""
    trace: list[Sequence[float]] = []
    watch = None if probe is None else lambda model, epoch: trace.append(probe(model))
    tuned = clustr.fine_tune(model, x, y, classes, on_epoch=watch, **chosen)
    head = tuned.model.head
    return {
        "body": dict(tuned.model.body.state_dict()),
        "centers": head.centers,
        "variance": head.variance,
        "loss": tuned.history["loss"],
        "seconds": tuned.seconds,
        "trace": None if probe is None else torch.tensor(trace, dtype=torch.float64, device="cpu"),
    }


def _magnet(bench: _Bench, model: Classifier, s) -> Trained:
    return bench.magnet(model, s, s.epochs)


def _clustr(bench: _Bench, model: Classifier, s) -> Trained:
    return bench.magnet(model, s, s.tuned)


def _clustr_qtrades(bench: _Bench, model: Classifier, s) -> Trained:
    quick = {"weight": s.joint_weight, "eps": s.eps, "step_size": 1.25 * s.eps}
    return bench.magnet(model, s, s.tuned, as_published=s.joint_weight > 0, **quick)


def _qtrades(bench: _Bench, model: Classifier, s) -> Trained:
    quick = {"eps": s.eps, "step_size": 1.25 * s.eps, "weight": s.quick_weight}
    return _tuned(bench, model, s, loss=partial(clustr.qtrades_loss, **quick))


def _adversarial(bench: _Bench, model: Classifier, s) -> Trained:
    # From random weights it may stay at chance for half of a short training.
    return _tuned(bench, model, s, loss=adversarial_loss(s.eps, s.pgd_steps))


def _without_bias(model: Classifier) -> Classifier:
    return models.with_head(model, heads.LinearHead(model.head.weight))


def _softrmax(model: Classifier, factor: float = 1.0) -> Classifier:
    weight, bias = factor * model.head.weight, factor * model.head.bias
    return models.with_head(model, heads.SoftRmaxHead(weight, bias))


def _far(model: Classifier) -> Classifier:
    return _softrmax(model, 100.0)


def _far_softmax(model: Classifier) -> Classifier:
    return models.with_head(model, heads.LinearHead(100 * model.head.weight, 100 * model.head.bias))


_FIRST, _SECOND = "epochs lr batch_size weight_decay augment", "tuned tuned_lr augment"
_MAGNET = "magnet_lr clusters alpha augment"
_PENALISED = "epochs lr strength"
_SQUARES = partial(_penalised, lambda weight, by: by * weight.square().sum() / len(weight))
_NORM = partial(_penalised, lambda weight, by: by * weight.norm() / weight.numel())

RECIPES = {
    "softmax": Recipe(_softmax, _FIRST, line="cross-entropy"),
    "softmax/no-bias": Recipe(
        _softmax, _FIRST, head=_without_bias, line="cross-entropy, without a bias"),
    "softmax/tuned": Recipe(_tuned, _SECOND, "softmax", line="cross-entropy twice"),
    "softmax/decay": Recipe(
        _SQUARES, _PENALISED, line="cross-entropy, and the last weights' squares over the units"),
    "softmax/printed-decay": Recipe(
        _NORM, _PENALISED, line="cross-entropy, and the last weights' norm over their number"),
    "softmax/restarted": Recipe(
        _restarted, "epochs lr test", line="cross-entropy, begun anew where the network dies"),
    "proximal": Recipe(
        _proximal, "epochs lr", head=_without_bias,
        line="cross-entropy, class weights on equal norms"),
    "softmax/far": Recipe(
        _softmax, _FIRST, head=_far_softmax,
        line="cross-entropy from a last layer 100 times as large"),
    "softrmax": Recipe(_near, _FIRST, head=_softrmax, line="its own log-probability"),
    "softrmax/far": Recipe(
        _softmax, _FIRST, head=_far, line="softrmax from a last layer 100 times as large"),
    "gauss": Recipe(
        _gauss, _SECOND + " rejected", "softmax", deep=True,
        line="features of a softmax network pulled to its class means"),
    "gauss/cross-entropy": Recipe(
        _gauss_by_cross_entropy, _SECOND, "softmax", deep=True,
        line="cross-entropy of the Gauss scores about a softmax network's class means"),
    "magnet": Recipe(
        _magnet, "epochs " + _MAGNET, deep=True, line="Magnet loss from random weights"),
    "clustr": Recipe(
        _clustr, "tuned " + _MAGNET, "softmax", deep=True, line="Magnet loss after softmax"),
    "qtrades": Recipe(
        _qtrades, _SECOND + " eps quick_weight", "softmax",
        line="cross-entropy and one quick adversary an image, after softmax"),
    "clustr-qtrades": Recipe(
        _clustr_qtrades, "tuned eps joint_weight " + _MAGNET, "softmax", deep=True,
        line="Magnet loss and one quick adversary an image, after softmax"),
    "adversarial": Recipe(
        _adversarial, _SECOND + " eps pgd_steps", "softmax",
        line="cross-entropy on PGD's images, after softmax"),
}  # fmt: skip

# --- bodies ---------------------------------------------------------------------------------------


def _mlp(shape: Shape, classes: int, *hidden: int, seed: int) -> Classifier:
    return models.mlp(shape, hidden or (128, 64), classes, seed=seed)


def _small_cnn(shape: Shape, classes: int, width: int = 16, *, seed: int) -> Classifier:
    return models.small_cnn(shape, classes, seed=seed, width=width)


def _convnet(shape: Shape, classes: int, channels: int = 8, kernel: int = 0, *, seed: int):
    kernel = kernel or (5 if shape[1] > 8 else 2)
    return models.convnet(shape, channels, classes, seed=seed, kernel=kernel)


def _linear_normal(shape: Shape, classes: int, *, seed: int) -> Classifier:
    pixels, stream = math.prod(shape), torch.Generator().manual_seed(seed)
    drawn = {"generator": stream, "dtype": torch.float32, "device": "cpu"}
    weight = torch.randn(classes, pixels, **drawn) / math.sqrt(pixels)
    return Classifier(nn.Flatten(), heads.LinearHead(weight, weight.new_zeros(classes)))


def _two_convolutions(shape: Shape, classes: int, *, seed: int) -> Classifier:
    with architectures.seeded(seed):
        layers = [
            models.Normalise(0.5, 0.5),
            nn.Conv2d(shape[0], 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(16 * (shape[1] // 4) * (shape[2] // 4), 64), nn.ReLU(),
        ]  # fmt: skip
        return architectures.linear_classifier(layers, 64, classes)


def _dropout(shape: Shape, classes: int, *, seed: int) -> Classifier:
    with architectures.seeded(seed):
        layers = [
            nn.Flatten(), nn.Linear(math.prod(shape), 128), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.5),
        ]  # fmt: skip
        return architectures.linear_classifier(layers, 64, classes)


def _resnet50(shape: Shape, classes: int, *, seed: int) -> Classifier:
    return pretrained.resnet50(classes, seed=seed)


def _cifar_resnet(depth: int, shape: Shape, classes: int, *, seed: int) -> Classifier:
    return architectures.cifar_resnet(depth, classes, seed=seed)


_COLOUR = ("cifar10", "cifar100", "svhn")
_LARGE = ("mnist", "fashion-mnist", *_COLOUR)
LINEAR = ("linear", "linear_normal")
SIZED = ("mlp", "small_cnn", "convnet")
WARM = ("resnet20", "resnet32", "resnet44", "resnet56")
"""Bodies that begin with published weights, for all classes of their data set."""

BODIES = {
    "mlp": Body("hidden layers of 128 and 64 units, or of its sizes", _mlp),
    "lenet": Body("LeNet", models.lenet, _LARGE),
    "small_cnn": Body(
        "four convolutions with batch norm, 16 channels first, or its size", _small_cnn
    ),
    "convnet": Body("four convolutions of 8 channels, or of its sizes: channels, kernel", _convnet),
    "two_convolutions": Body("8 and 16 channels", _two_convolutions),
    "dropout": Body("hidden layers of 128 and 64 units with dropout", _dropout),
    "linear": Body("linear in the pixels", models.linear_model),
    "linear_normal": Body("linear in the pixels, begun with normal weights", _linear_normal),
    "resnet18": Body("ResNet-18", partial(models.build, "resnet18"), _COLOUR),
    "vgg16": Body("VGG-16", partial(models.build, "vgg16"), _COLOUR),
    "resnet50": Body("ResNet-50 from ImageNet's weights", _resnet50, _COLOUR),
    **{
        word: Body(
            f"ResNet-{word[6:]}, begun with published weights",
            partial(_cifar_resnet, int(word[6:])),
            ("cifar10",),
        )
        for word in WARM
    },
}

PUBLISHED: dict[str, Callable[[], nn.Module]] = {
    f"imagenet/{name}": partial(pretrained.network, name)
    for name in ("squeezenet1_0", "alexnet", "vgg16", "resnet50")
} | {name: partial(published.network, name) for name in published.NETWORKS}

# --- names, data, and the chain of trainings ------------------------------------------------------


def _parse(name: str) -> _Name:
    source, body, kind = (*str(name).split("/", 2), "", "")[:3]
    if kind == "published" and f"{source}/{body}" in PUBLISHED:
        return _Name(source, (), body, (), kind)
    (source, *chosen), (word, *sizes) = source.split(":"), body.split("-")
    spelled = re.fullmatch(r"[^/:]+(:\d+(,\d+)*)?/\w+(-\d+)*/.+", str(name))
    if not (spelled and source in IMAGES and word in BODIES and kind in RECIPES):
        near = (_nearest(source, IMAGES), _nearest(word, BODIES), _nearest(kind, RECIPES))
        likely = ["/".join(near), *(f"{place}/published" for place in PUBLISHED)]
        raise ValueError(
            f"unknown network {name!r}: did you mean {_nearest(str(name), likely)!r}? "
            "networks.names() lists them"
        )
    if sizes and word not in SIZED:
        raise ValueError(f"{word} has no sizes to choose: write {source}/{word}/{kind}")
    if source not in BODIES[word].data:
        raise ValueError(f"{word} takes images of {', '.join(BODIES[word].data)}, not of {source}")
    if RECIPES[kind].deep and word in LINEAR:
        raise ValueError(f"{kind} moves the features, and those of {word} are the pixels")
    classes = tuple(int(k) for k in chosen[0].split(",")) if chosen else ()
    if len(set(classes)) < len(classes) or max(classes, default=0) >= IMAGES[source][1]:
        raise ValueError(f"{source} has the classes 0 .. {IMAGES[source][1] - 1}, each once")
    if classes and word in WARM:
        raise ValueError(f"{word} begins with published weights, which are for all of {source}")
    return _Name(source, classes, word, tuple(map(int, sizes)), kind)


def _nearest(word: str, words: Iterable[str]) -> str:
    return difflib.get_close_matches(word, list(words), 1, cutoff=0.0)[0]


def _stages(kind: str) -> list[str]:
    """The kinds of the trainings that lead to one, the first first."""
    before = RECIPES[kind].after
    return [*(_stages(before) if before else ()), kind]


def _fresh(name: _Name, kind: str, seed: int) -> Classifier:
    shape, classes = IMAGES[name.data]
    body = BODIES[name.body].build(shape, len(name.classes) or classes, *name.sizes, seed=seed)
    return RECIPES[kind].head(body)


def _first(bench: _Bench, kind: str) -> Classifier:
    """What the first training begins with."""
    if bench.name.body not in WARM:
        return _fresh(bench.name, kind, bench.seed)
    weights = published.network(f"{bench.name.data}/{bench.name.body}")
    return RECIPES[kind].head(weights.requires_grad_(True))


def _made(bench: _Bench, kind: str, s: SimpleNamespace) -> Trained:
    recipe = RECIPES[kind]
    if not recipe.after:
        return recipe.train(bench, _first(bench, kind), s)
    start = _made(replace(bench, probe=None), recipe.after, s)
    found = recipe.train(bench, start.model, s)
    return replace(found, seconds=start.seconds + found.seconds)


def _images(name: _Name, n: int | None, draw: int | None, split: str = "train") -> data.ImageData:
    found = _loaded(name.data, split, str(paths.data_sets()))
    if name.classes:
        own = torch.stack([found.y == k for k in name.classes])
        kept, classes = own.any(0), tuple(found.classes[k] for k in name.classes)
        found = replace(found, x=found.x[kept], y=own.long().argmax(0)[kept], classes=classes)
    return found.take(len(found) if n is None else min(n, len(found)), draw)


@lru_cache(maxsize=1)
def _loaded(source: str, split: str, root: str) -> data.ImageData:
    return data.load(source, split)
