# %% [markdown]
# # Evidence: Every probe on every model
#
# What the {doc}`lesson <lesson>` tells, measured: eight networks (three at the quick profile), every quantity of the five papers on each of them, and the rank correlation of each with measured robustness.

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # quick, standard or paper: see data/profiles
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, such as {"images": 20}

# %% tags=["hide-input"]
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from support import (
    attacks,
    certificates,
    clustering,
    evaluation,
    geometry,
    models,
    networks,
    path_kernel,
    smoothing,
    training,
)
from support.book import chapter_run, plots
from support.evaluation import rank_tests
from support.measures import draws, share
from support.models import heads
from support.sampling import Estimate

run = chapter_run.start("08_every_probe/evidence", profile, seed, device, overrides)
p = run.profile
plots.use_style()

# %% [markdown]
# ## The networks
#
# All networks of a seed begin with the same weights and see the same images.
# The seconds of a training are kept with the network: a run that finds it in the cache shows the time of the first.

# %% tags=["hide-input"]
KINDS = {
    "nominal": "softmax/tuned",
    "Gauss": "gauss",
    "softRmax": "softrmax",
    "Magnet": "magnet",
    "ClusTR": "clustr",
    "QTRADES": "qtrades",
    "ClusTR + QTRADES": "clustr-qtrades",
    "adversarial": "adversarial",
}
train = run.load(p.data, "train").take(p.train)
test = run.load(p.data, "test").take(p.test)
classes, shape = len(train.classes), train.x.shape[1:]
NAMES = list(p.networks)
told = {
    "train": p.train,
    "epochs": p.warm,
    "lr": p.lr,
    "tuned": p.tuned,
    "tuned_lr": p.tuned_lr,
    "magnet_lr": p.magnet_lr,
    "eps": p.eps,
    "pgd_steps": p.pgd_steps,
    "quick_weight": p.quick_weight,
    "joint_weight": p.joint_weight,
    "augment": p.augment,
}


def trained(label: str, s: int) -> networks.Trained:
    """A network of this chapter, and how long its training took."""
    name = f"{p.data}/{p.backbone}/{KINDS[label]}"
    known = networks.settings(name, profile=profile)
    own = {key: value for key, value in told.items() if key in known}
    if "tuned" not in own:  # no common start: all passes by themselves
        own["epochs"] = p.warm + p.tuned
    place = {"profile": profile, "device": run.device, "cache": run.cache}
    return networks.train(name, seed=s, **place, **own)


made = {(label, s): trained(label, s) for s in run.seeds for label in NAMES}
nets = {key: one.model for key, one in made.items()}
seconds = {"training": {key: one.seconds for key, one in made.items()}}

# %% [markdown]
# ## The probes
#
# A probe is a function of a network that returns numbers.
# Each probe of each network and seed is computed once, with the seconds that it took: of this process on a CPU, which others on the machine do not lengthen, and of the wall where a GPU computes.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Timed:
    """What a probe found on a network, and the seconds that it took."""

    found: Any
    seconds: float


def timed(probe: Callable, net: nn.Module, **settings: Any) -> Timed:
    """Put a probe to a network."""
    on_cpu = next(net.parameters()).device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    begun = clock()
    found = probe(net, **settings)
    return Timed(found, clock() - begun)


Key = tuple[str, int]  # a network's name and seed


def measure(title: str, probe: Callable, **settings: Any) -> dict[Key, Any]:
    """What a probe finds on every network; the time goes into `seconds`."""
    found = {key: run.once(timed, probe, net, **settings) for key, net in nets.items()}
    seconds[title] = {key: one.seconds for key, one in found.items()}
    return {key: one.found for key, one in found.items()}


x, y = test.x[: p.images].to(run.device), test.y[: p.images].to(run.device)


def right(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Images that the network classifies correctly, by their index."""
    return torch.nonzero(training.predict(net, x).argmax(1) == y)[:, 0]


# %% [markdown]
# ### Answers: accuracy, calibration, confidence where there is nothing to see
#
# The calibration error has fifteen bins.
# The outsiders are other images, or at quick the test images' own pixels in another order.


# %% tags=["hide-input"]
def calibration_error(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over bins of equal width."""
    place = (confidence * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, place, confidence - correct.double())
    return float(gap.abs().sum() / len(confidence))


@dataclass(frozen=True)
class Answers:
    """How a network answers: images, noise, and images from elsewhere."""

    accuracy: float
    calibration: float
    noise: float
    outside: float


def confidence(net: nn.Module, x: Tensor) -> Tensor:
    """The network's own confidence in its answers, (N,), in float64."""
    scores = training.predict(net, x).cpu()
    return net.head.confidence(scores.double()).amax(1)


def answers(
    net: nn.Module, x: Tensor, y: Tensor, noise: Tensor, outside: Tensor
) -> Answers:
    """Accuracy, calibration, confidence on noise, and as a detector of outsiders."""
    sure = confidence(net, x)
    correct = training.predict(net, x).argmax(1).cpu() == y
    beyond = confidence(net, outside)
    inside = sure[: len(noise)]
    known = [1] * len(inside) + [0] * len(outside)
    return Answers(
        share(correct),
        calibration_error(sure, correct),
        float(confidence(net, noise).mean()),
        float(roc_auc_score(known, torch.cat([inside, beyond]))),
    )


if p.outside == "shuffled":
    order = torch.randperm(x[0].numel(), generator=draws(seed + 1)).to(run.device)
    outside = x.flatten(1)[:, order].reshape(x.shape)
else:
    outside = run.load(p.outside, "test").take(p.images).x.to(run.device)
noise = torch.rand(x.shape, generator=draws(seed + 2)).to(run.device)
answered = measure("answers", answers, x=test.x, y=test.y, noise=noise, outside=outside)

# %% [markdown]
# ### Features: near the own centre, far from the others
#
# Centres are the class means of the first 5,000 training images' features, for all networks alike.


# %% tags=["hide-input"]
def seen_rows(net: nn.Module) -> tuple[Tensor, bool]:
    """What the head sees of the features, as rows, and whether a direction that adds
    the same to all of them is lost on it."""
    if isinstance(net.head, heads.LinearHead):
        softrmax = isinstance(net.head, heads.SoftRmaxHead)
        return net.head.weight.detach(), not softrmax
    return net.head.centers.flatten(0, -2), True


def unseen(net: nn.Module, vectors: Tensor) -> float:
    """Mean share of the squared length of feature vectors in the null space, over that
    of a random direction."""
    rows, invariant = seen_rows(net)
    lost = geometry.adversarial_directions(rows, shift_invariant=invariant)
    chance = len(lost) / vectors.shape[1]
    if not chance:
        return math.nan
    part = geometry.null_share(rows, vectors, shift_invariant=invariant)
    return float(part.nanmean() / chance)


@dataclass(frozen=True)
class Features:
    """Distances of features, relative, and their share in the null space."""

    own: float
    between: float
    unseen: float


def features(
    net: nn.Module, x: Tensor, y: Tensor, train_x: Tensor, train_y: Tensor, classes: int
) -> Features:
    """To the own centre and between centres; the share in the null space."""
    f, inside = (training.extract(net, part).double() for part in (train_x, x))
    centers = clustering.class_centroids(f, train_y.to(f.device), classes)
    middle = f.mean(0)
    own = (inside - centers[y.to(f.device)]).square().sum(1).mean()
    own = own / (inside - middle).square().sum(1).mean()
    apart = torch.pdist(centers)
    between = float(apart.min() / apart.mean())
    return Features(float(own.sqrt()), between, unseen(net, inside - middle))


some = {"train_x": train.x[:5000], "train_y": train.y[:5000], "classes": classes}
gathered = measure("features", features, x=test.x, y=test.y, **some)

# %% [markdown]
# ### The least perturbation, and where it points
#
# L-BFGS inside the box, from images that the network classifies correctly.


# %% tags=["hide-input"]
def lipschitz_of(net: nn.Module, shape: tuple[int, ...]) -> float:
    """The product of the layers' norms, NaN where a layer has no known bound."""
    try:
        return certificates.lipschitz_upper_bound(net, shape)
    except ValueError:  # residual blocks
        return math.nan


def one_centre_a_class(net: nn.Module, f: Tensor) -> tuple[Tensor, Tensor]:
    """Features and centres such that the nearest centre names the head's class."""
    if isinstance(net.head, heads.GaussHead):
        return f, net.head.centers.double()
    weight, bias = net.head.weight.detach(), net.head.bias.detach()
    z = clustering.equidistant_centroids(weight, bias)
    return torch.cat([f, f.new_ones(len(f), 1)], 1), z.centers


def theorem_2(net: nn.Module, a: Tensor, b: Tensor, label: Tensor) -> float:
    """Median of Theorem 2's bound at its best, over the length found."""
    lipschitz = lipschitz_of(net, tuple(a.shape[1:]))
    if isinstance(net.head, heads.ClusterHead) or math.isnan(lipschitz):
        return math.nan
    own, centers = one_centre_a_class(net, training.extract(net, a).double())
    moved, _ = one_centre_a_class(net, training.extract(net, b).double())
    rival = training.predict(net, b).argmax(1)
    bound = clustering.distortion_bound(
        own, moved, centers, label, rival, lipschitz, best=True
    )
    length = (b - a).double().flatten(1).norm(dim=1)
    return float((bound / length).median())


@dataclass(frozen=True)
class Least:
    """The shortest perturbations: images before, after, and what is read off them."""

    before: Tensor
    after: Tensor
    length: float
    unseen: float
    theorem2: float
    degrees: float


def crossing_angles(net: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """Angles of incidence of the lines from a to b at the boundary, in degrees."""
    crossing = geometry.bisect(net, a, b)
    normal = geometry.gradient_normals(net, crossing.point, *crossing.classes.T)
    return geometry.incidence(b - a, normal)


def least_perturbation(net: nn.Module, x: Tensor, y: Tensor) -> Least:
    """Lengths, what they do to the features, and how they cross."""
    keep = right(net, x, y)
    found = attacks.lbfgs(net, x[keep], y[keep])
    a, b = x[keep][found.success], found.x_adv[found.success]
    f, moved = (training.extract(net, part).double() for part in (a, b))
    return Least(
        a,
        b,
        float((b - a).double().flatten(1).norm(dim=1).median()),
        unseen(net, moved - f),
        theorem_2(net, a, b, y[keep][found.success]),
        float(crossing_angles(net, a, b).double().median()),
    )


attacked = measure("least perturbation", least_perturbation, x=x, y=y)

# %% [markdown]
# ### A certificate
#
# Wrong answers count as radius 0.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Certificate:
    """Median certified radius, NaN where the body has no known bound."""

    radius: float


def certificate(net: nn.Module, x: Tensor, y: Tensor, classes: int) -> Certificate:
    """The distance of the features to the nearest bisector over the Lipschitz bound."""
    lipschitz = lipschitz_of(net, tuple(x.shape[1:]))
    if math.isnan(lipschitz):
        return Certificate(math.nan)
    f = training.extract(net, x).double()
    correct = training.predict(net, x).argmax(1) == y
    if isinstance(net.head, heads.LinearHead):
        weight, bias = net.head.weight.detach(), net.head.bias.detach()
        length = clustering.bisector_bound(f, weight, bias, lipschitz)
    else:
        centers = net.head.centers.flatten(0, -2)
        kinds = torch.arange(classes, device=f.device)
        kinds = kinds.repeat_interleave(len(centers) // classes)
        length = certificates.robustness_radius(f, centers, kinds, lipschitz)
    return Certificate(float(torch.where(correct, length, 0.0).median()))


certified = measure("certificate", certificate, x=x, y=y, classes=classes)

# %% [markdown]
# ### The slope of the margin
#
# softRmax is judged on the scores before its last activation, as its paper does; the other heads on their log-scores.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Slope:
    """Median magnitude-margin ratio of the images that are classified correctly."""

    ratio: float


def logits(net: nn.Module, x: Tensor) -> Tensor:
    """The scores z of a softRmax head, before its last activation."""
    return net.head.logits(net.features(x))


def slope(net: nn.Module, x: Tensor, y: Tensor) -> Slope:
    """The ratio R of wang2022."""
    on_z = logits if isinstance(net.head, heads.SoftRmaxHead) else None
    ratio = evaluation.magnitude_margin_ratio(net, x, y, scores=on_z)
    return Slope(float(ratio.double().nanmedian()))


sloped = measure("slope", slope, x=x, y=y)

# %% [markdown]
# ### One pixel
#
# Every pixel of every image is set to every corner of the colour cube.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Pricked:
    """Share of images that some one-pixel change misleads, under both rules."""

    any: float
    confident: float


@torch.no_grad()
def one_pixel(net: nn.Module, x: Tensor, y: Tensor, classes: int) -> Pricked:
    """Of the right images, and of the right and accepted ones."""
    scores = training.predict(net, x)
    correct, sure = scores.argmax(1) == y, net.head.confidence(scores).amax(1)
    misled = torch.zeros(len(x), dtype=scores.dtype, device=x.device)
    for index, changed in attacks.corner_outputs(net, x):
        wrong = attacks.margin(changed, y[index]) < 0
        reached = net.head.confidence(changed).amax(1) * wrong
        misled.scatter_reduce_(0, index, reached, "amax")
    accepted = correct & (sure > 1 / classes)
    return Pricked(share(misled[correct] > 0), share(misled[accepted] > 1 / classes))


few = slice(p.corner_images)
pricked = measure("one pixel", one_pixel, x=x[few], y=y[few], classes=classes)

# %% [markdown]
# ### Noise
#
# Persistence is cut off at a standard deviation of 8.
# The pairs are those of the least perturbation, the first ones of each network.

# %% tags=["hide-input"]
SIGMA_MAX = 8.0


@dataclass(frozen=True)
class Shaken:
    """Median persistence, and the median ratio behind the crossing to before it."""

    natural: float
    least: float
    behind: float


def under_noise(
    net: nn.Module, a: Tensor, b: Tensor, samples: int, seed: int
) -> Shaken:
    """Persistence of images, of least adversarial ones and of the mirror images."""
    behind = torch.lerp(a, b, 2.0).clamp(0, 1)
    found = smoothing.persistence(
        net,
        torch.cat([a, b, behind]),
        0.7,
        samples=samples,
        precision=0.3,
        max_sigma=SIGMA_MAX,
        generator=draws(seed),
    )
    natural, least, mirrored = found.sigma.clamp(max=SIGMA_MAX).double().split(len(a))
    left = training.predict(net, behind).argmax(1) != training.predict(net, a).argmax(1)
    ratio = (mirrored / natural)[left].median()
    return Shaken(float(natural.median()), float(least.median()), float(ratio))


def noisy(key: Key) -> Timed:
    """The persistence of one network's pairs."""
    pair = attacked[key]
    a, b = (part[: p.noise_images].to(run.device) for part in (pair.before, pair.after))
    settings = {"a": a, "b": b, "samples": p.noise_samples, "seed": seed + 3}
    return run.once(timed, under_noise, nets[key], **settings)


found = {key: noisy(key) for key in nets}
seconds["noise"] = {key: one.seconds for key, one in found.items()}
shaken = {key: one.found for key, one in found.items()}

# %% [markdown]
# ### The boundary between two images
#
# Lines between right test images of different classes; heights over the tangent plane at the distance `bend_reach` of the profile.
# Where the boundary is not found within it, the height counts as that distance.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Boundary:
    """Median angle of incidence between images, and the radius of curvature there."""

    degrees: float
    radius: float


def boundary(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    pairs: int,
    places: int,
    directions: int,
    reach: float,
    seed: int,
) -> Boundary:
    """How lines between images cross, and how the boundary bends where they do."""
    first, second = right(net, x, y).tensor_split(2)
    second = second[: len(first)]
    first = first[: len(second)]
    differ = y[first] != y[second]
    a, b = x[first[differ][:pairs]], x[second[differ][:pairs]]
    crossing = geometry.bisect(net, a, b)
    normal = geometry.gradient_normals(net, crossing.point, *crossing.classes.T)
    at, own = crossing.point[:places], crossing.classes[:places, 0]
    frames = geometry.tangent_frames(normal[:places], directions, generator=draws(seed))
    height = geometry.heights(net, at, own, normal[:places], reach * frames, reach)
    bent = height.abs().nan_to_num(nan=reach).double().median()
    degrees = geometry.incidence(b - a, normal).double().median()
    return Boundary(float(degrees), float(reach**2 / (2 * bent)))


drawn = measure(
    "boundary",
    boundary,
    x=x,
    y=y,
    pairs=p.pairs,
    places=p.bend_places,
    directions=p.bend_directions,
    reach=p.bend_reach,
    seed=seed + 4,
)

# %% [markdown]
# ### The kernel of training
#
# What a path of weights would take for all networks of this page; then the tangent kernel at the end of training, read by the class means.

# %% tags=["nbval-check-output", "hide-input"]
passes = math.ceil(len(train) / 128) * (p.warm + p.tuned)
steps = passes * len(nets)
weights = sum(value.numel() for value in nets[NAMES[0], seed].parameters())
size = 8 * steps * weights / 2**30
print(f"a path of every network: {steps:,} steps of {weights:,} weights,")
print(f"{size:,.1f} GiB in float64")


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Kernel:
    """How well the normalised mass of the tangent kernel tells insiders."""

    outside: float


def tangent(
    net: nn.Module,
    queries: Tensor,
    count: int,
    train_x: Tensor,
    train_y: Tensor,
    classes: int,
) -> Kernel:
    """AUROC of the mass over training images; queries are training images, test images
    and outsiders, `count` of each."""
    f = training.extract(net, train_x)
    means = clustering.class_centroids(f, train_y.to(f.device), classes)
    reading = heads.LinearHead(2 * means, -means.square().sum(1))
    try:
        read = models.with_head(net, reading)
        gram = path_kernel.ntk(read, queries, trace=True).double().cpu()
    except ValueError:  # a layer that the chain does not know, such as a residual block
        return Kernel(math.nan)
    mass = gram[count:, :count].mean(1) / gram.diagonal()[count:].sqrt()
    known = [1] * count + [0] * (len(mass) - count)
    return Kernel(float(roc_auc_score(known, mass)))


count = p.kernel_images
parts = [train.x[:count].to(run.device), x[:count], outside[:count]]
kernelled = measure(
    "tangent kernel", tangent, queries=torch.cat(parts), count=count, **some
)

# %% [markdown]
# ### Measured robustness
#
# The protocol's budget is cut to what the machine of each profile can pay for all networks, and what it leaves out is not run.
# The peer of every network is the nominal one of the first seed.

# %% tags=["hide-input"]
budget = evaluation.Budget(
    images=p.protocol_images,
    noise_draws=5,
    bim=(10, 100),
    pgd_steps=p.protocol_steps,
    pgd_restarts=1,
    targeted_images=p.protocol_images,
    targeted_classes=3,
    autoattack_images=p.protocol_heavy,
    square_images=p.protocol_heavy,
    square_queries=500,
    hard_label_images=p.protocol_heavy,
    hard_label_queries=500,
    transfer_images=p.protocol_images,
    sweep=(0.1, 0.2, 0.35, 0.5),
    sweep_images=min(30, p.protocol_images),
)
ROWS = ("clean", "FGSM", "PGD cross-entropy", "PGD margin", "multi-targeted", "Square")
ROWS += (evaluation.WORST,)


@dataclass(frozen=True)
class Judged:
    """Accuracy under the rows of the protocol, None where not run, and flags raised."""

    rows: dict[str, float | None]
    flags: int

    @property
    def worst(self) -> float:
        """The worst case."""
        return self.rows[evaluation.WORST]


def under_attack(
    net: nn.Module,
    peer: nn.Module | None,
    x: Tensor,
    y: Tensor,
    eps: float,
    budget: evaluation.Budget,
    seed: int,
) -> Judged:
    """The protocol's rows that the matrix and the table show."""
    report = evaluation.evaluate(net, x, y, eps, budget=budget, peer=peer, seed=seed)
    raised = sum(bool(flag.raised) for flag in report.flags)
    return Judged({row: report.accuracy(row) for row in ROWS}, raised)


def protocol(key: Key) -> Timed:
    """One network under the protocol."""
    nominal = nets.get(("nominal", seed))
    settings = {
        "peer": None if key == ("nominal", seed) else nominal,
        "x": test.x[: p.protocol_images].to(run.device),
        "y": test.y[: p.protocol_images].to(run.device),
        "eps": p.eps,
        "budget": budget,
        "seed": seed,
    }
    return run.once(timed, under_attack, nets[key], **settings)


found = {key: protocol(key) for key in nets}
seconds["protocol"] = {key: one.seconds for key, one in found.items()}
judged = {key: one.found for key, one in found.items()}

# %% name="table-protocol" tags=["hide-input"]
table = {}
for name in NAMES:
    of_seeds = [judged[name, s] for s in run.seeds]
    accuracies = {row: [one.rows[row] for one in of_seeds] for row in ROWS}
    table[name] = {
        row: np.nan if None in values else np.mean(values)
        for row, values in accuracies.items()
    }
    table[name]["flags raised"] = np.mean([float(one.flags) for one in of_seeds])
plots.table(
    pd.DataFrame(table),
    f"Accuracy under rows of the protocol, {p.protocol_images} images "
    f"({p.protocol_heavy} under Square), eps = {p.eps:.3g}, mean over {p.seeds} seeds; "
    "– : not run",
)

# %% [markdown]
# ## The matrix
#
# The mean over the seeds in each cell, and the rank within the row.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Probe:
    """A row of the matrix.

    Attributes:
        source: whose story it is.
        story: 1 if more of it should mean more robust, -1 if less.
        found, part: where its number is.
        form: how it is printed.
        undefined: why some networks have none.
    """

    source: str
    story: int
    found: dict[Key, Any]
    part: str
    form: str = "{:.2f}"
    undefined: str = ""


ONE_CENTRE = "Theorem 2 has one centre a class, these heads have two, "
ONE_CENTRE += "or the body has no known Lipschitz bound"
NO_BOUND = "the body has no known Lipschitz bound"
NO_CHAIN = "the chain of layers is not one that the kernel knows"
TARGET = "worst case of the protocol"
CLEAN = "clean accuracy"
LENGTH = "least perturbation, l2"
PROBES = {
    TARGET: Probe("", 1, judged, "worst"),
    CLEAN: Probe("", 1, answered, "accuracy", "{:.3f}"),
    LENGTH: Probe("bell2023", 1, attacked, "length"),
    "one pixel, any error": Probe("hess2020", -1, pricked, "any"),
    "one pixel, confident error": Probe("hess2020", -1, pricked, "confident"),
    "calibration error": Probe("hess2020", -1, answered, "calibration", "{:.3f}"),
    "confidence on noise": Probe("wang2022", -1, answered, "noise"),
    "outsiders by confidence, AUROC": Probe("wang2022", 1, answered, "outside"),
    "distance to own centre": Probe("hess2020", -1, gathered, "own"),
    "distance between centres": Probe("hess2020", 1, gathered, "between"),
    "Theorem 2's margin": Probe(
        "hess2020", 1, attacked, "theorem2", "{:.2g}", ONE_CENTRE
    ),
    "magnitude-margin ratio": Probe("wang2022", -1, sloped, "ratio", "{:.3f}"),
    "features in the null space": Probe("zou2018", -1, gathered, "unseen"),
    "attack in the null space": Probe("zou2018", -1, attacked, "unseen"),
    "certified radius": Probe(
        "alfarra2021", 1, certified, "radius", "{:.2g}", NO_BOUND
    ),
    "persistence, natural": Probe("bell2023", 1, shaken, "natural"),
    "persistence, least adversarial": Probe("bell2023", 1, shaken, "least", "{:.2g}"),
    "persistence behind over before": Probe("bell2023", 1, shaken, "behind"),
    "skewness between images, degrees": Probe(
        "bell2023", -1, drawn, "degrees", "{:.0f}"
    ),
    "skewness of attacks, degrees": Probe(
        "bell2023", -1, attacked, "degrees", "{:.0f}"
    ),
    "radius of curvature": Probe("bell2023", 1, drawn, "radius", "{:.3g}"),
    "outsiders by tangent kernel, AUROC": Probe(
        "bell2023", 1, kernelled, "outside", "{:.2f}", NO_CHAIN
    ),
}


def numbers(probe: Probe) -> np.ndarray:
    """What a probe found, (networks, seeds)."""
    return np.array(
        [[getattr(probe.found[n, s], probe.part) for s in run.seeds] for n in NAMES]
    )


values = {title: numbers(probe) for title, probe in PROBES.items()}
run.keep("networks", list(NAMES))
known = {title: np.where(np.isnan(one), None, one) for title, one in values.items()}
run.keep("values", {title: one.tolist() for title, one in known.items()})
means = {title: found.mean(1) for title, found in values.items()}
mean = pd.DataFrame(means, index=NAMES).T


def shade(row: pd.Series, story: int) -> np.ndarray:
    """Rank within the row from 0 to 1, 1 on the robust side; NaN where no number is."""
    found = np.full(len(row), np.nan)
    known = row.notna().to_numpy()
    if known.sum() > 1:
        ranks = rankdata(story * row.to_numpy()[known])
        found[known] = (ranks - 1) / (known.sum() - 1)
    return found


shades = np.array([shade(mean.loc[title], one.story) for title, one in PROBES.items()])

# %% name="fig-matrix" tags=["hide-input"] mystnb={"image": {"alt": "Matrix of all probes, one a row, by all networks, one a column, with the worst case of the protocol above the line. Numbers in the cells are means over seeds; the colour is the rank within the row, the stronger the blue, the more robust by the probe's paper. Where a probe is not defined, the cell is grey."}}
_, ax = plt.subplots(figsize=(2.9 + 0.72 * len(NAMES), 0.3 * len(PROBES) + 0.9))
ax.imshow(
    np.ma.masked_invalid(shades), cmap="Blues", vmin=-0.15, vmax=1.35, aspect="auto"
)
ax.set_facecolor("#d9d9d9")
for i, (title, probe) in enumerate(PROBES.items()):
    for j, name in enumerate(NAMES):
        value = mean.loc[title, name]
        absent = math.isnan(value)
        ax.text(
            j,
            i,
            "not\ndefined" if absent else probe.form.format(value),
            ha="center",
            va="center",
            fontsize=6 if absent else 8,
            linespacing=0.8,
            color="white" if shades[i, j] > 0.8 else "black",
        )
labels = [name.replace(" + ", " +\n") for name in NAMES]
ax.set_xticks(range(len(NAMES)), labels, fontsize=8)
ax.xaxis.tick_top()
signs = ["(+)" if probe.story > 0 else "(–)" for probe in PROBES.values()]
labels = [f"{title}  {sign}" for title, sign in zip(PROBES, signs, strict=True)]
ax.set_yticks(range(len(PROBES)), labels, fontsize=8)
ax.tick_params(length=0)
for side in ax.spines.values():
    side.set_visible(False)
ax.axhline(0.5, color="black", linewidth=1)
plt.show()

# %% name="table-undefined" tags=["hide-input"]
absent = mean[mean.isna().any(axis=1)]
rows = []
for title, row in absent.iterrows():
    why = PROBES[title].undefined or "no image was left to measure it on"
    rows.append([title, ", ".join(mean.columns[row.isna()]), why])
why = "no path is kept, and four of the losses are not of the theorem's form"
rows.append(["path-kernel mass", "all: not run", why])
columns = ["probe", "networks without a number", "why"]
frame = pd.DataFrame(rows, columns=columns).set_index("probe")
plots.table(frame, "Not defined, or not run")

# %% [markdown]
# ### What it cost
#
# As it was when each was computed.

# %% name="table-seconds" tags=["hide-input"]
times = pd.DataFrame(seconds).groupby(level=0, sort=False).mean().T
times["all"] = times.sum(axis=1)
times.loc["sum"] = times.sum()
plots.table(times, f"Seconds, mean over {p.seeds} seeds", digits=1)

# %% [markdown]
# ## Which probe predicts robustness?
#
# The correlation by hand, beside the package's.

# %% tags=["hide-input"]
one, worst = mean.loc["persistence, natural"], mean.loc[TARGET]
ranks = np.array([rankdata(one), rankdata(worst)])
by_hand = float(np.corrcoef(ranks)[0, 1])
packaged = rank_tests.rank_correlation(one, worst)
print(f"by hand {by_hand:.6f}, the package {packaged:.6f}, {len(NAMES)} networks")
run.keep("by hand", [by_hand, packaged])

# %% [markdown]
# Every probe is asked the same questions.
# An interval holds the correlations of a population of networks that these few do not rule out; each is so wide that all of them hold together in 95 of 100 cases.

# %% tags=["hide-input"]
ASKED = [title for title in PROBES if title not in (TARGET, CLEAN, LENGTH)]
TAIL = 0.025 / len(ASKED)  # on each side: as many questions are asked at once
accuracies = values[CLEAN].mean(1)
matched = accuracies >= accuracies.max() - p.matched_points


@dataclass(frozen=True)
class Order:
    """How one probe orders the networks that have it, turned by its story."""

    networks: int
    correlation: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    partial: float = math.nan
    partial_p: float = math.nan
    matched_networks: float = math.nan
    matched: float = math.nan
    pairs: float = math.nan
    of_seeds: float = math.nan
    power: float = math.nan  # where the population's is 0.8


def order_of(title: str) -> Order:
    """The rank correlation of a probe with the worst case, and what it hangs on."""
    known = ~np.isnan(values[title]).any(1)
    if known.sum() < 3:
        return Order(int(known.sum()))
    found, robust = PROBES[title].story * values[title][known], values[TARGET][known]
    one, worst, clean = found.mean(1), robust.mean(1), values[CLEAN][known].mean(1)
    correlation, count = rank_tests.rank_correlation(one, worst), int(known.sum())
    low = high = math.nan
    if not math.isnan(correlation):
        low, high = rank_tests.correlation_interval(correlation, count, TAIL)
    partial = partial_p = among = math.nan
    if known.sum() >= 5:  # fewer leave nothing beside a control
        partial = rank_tests.rank_correlation(one, worst, clean)
        partial_p = rank_tests.p_value(rank_tests.permuted(one, worst, clean))
    alike = matched[known]
    if alike.sum() >= 3:
        among = rank_tests.rank_correlation(one[alike], worst[alike])
    of_seeds = [
        rank_tests.rank_correlation(found[:, i], robust[:, i]) for i in range(p.seeds)
    ]
    return Order(
        networks=count,
        correlation=correlation,
        low=low,
        high=high,
        p=rank_tests.p_value(rank_tests.permuted(one, worst)),
        partial=partial,
        partial_p=partial_p,
        matched_networks=int(alike.sum()),
        matched=among,
        pairs=rank_tests.ordered_pairs(one, worst),
        of_seeds=float(np.mean(of_seeds)),
        power=rank_tests.power(0.8, count, TAIL),
    )


orders = [order_of(title) for title in ASKED]
asked = pd.DataFrame(orders, index=ASKED, dtype=float)
asked["Holm_p"] = rank_tests.holm(asked["p"])
asked["partial_Holm_p"] = rank_tests.holm(asked["partial_p"])
in_order = asked.sort_values("correlation").index

# %% name="fig-correlations" tags=["hide-input"] mystnb={"image": {"alt": "Left: rank correlation of each probe with the protocol's worst case, its sign turned so that positive agrees with what the probe's paper tells, with intervals; open diamonds, where drawn, are partial correlations given clean accuracy. Right: share of pairs of networks that each probe orders as the protocol does, with a dotted line at one half."}}
at, shown = np.arange(len(in_order)), asked.loc[in_order]
size = (8.6, 0.27 * len(ASKED) + 1.3)
figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=(2, 1))
interval = {"color": plots.PALETTE[5], "linewidth": 3}
axes[0].hlines(at, shown["low"], shown["high"], **interval)
told = "rank correlation, 95 % intervals of all together"
axes[0].plot(shown["correlation"], at, "o", color=plots.PALETTE[0], label=told)
hollow = {"color": plots.PALETTE[1], "fillstyle": "none"}
axes[0].plot(shown["partial"], at, "D", label="given clean accuracy", **hollow)
axes[0].axvline(0, color="grey", linewidth=0.8)
labels = [f"{title} ({PROBES[title].source[:-4]})" for title in in_order]
axes[0].set_yticks(at, labels, fontsize=8)
ticks = np.linspace(-1, 1, 5)
axes[0].set(
    xlim=(-1.05, 1.05), xticks=ticks, xlabel="rank correlation, turned by the story"
)
ordered = {"color": plots.PALETTE[2], "label": "pairs in the protocol's order"}
axes[1].plot(shown["pairs"], at, "s", **ordered)
axes[1].axvline(0.5, color="grey", linewidth=0.8, linestyle=":")
axes[1].set(xlim=(-0.03, 1.03), xlabel="share of pairs")
for ax in axes:
    ax.tick_params(axis="x", labelsize=9)
    ax.xaxis.label.set_size(10)
figure.legend(loc="outside lower center", ncols=3, fontsize=8)
plt.show()

# %% name="table-correlations" tags=["hide-input"]
frame = asked.loc[in_order[::-1]].rename(columns=lambda name: name.replace("_", " "))
p_values = {name: ".3f" for name in ("p", "Holm p", "partial p", "partial Holm p")}
whole = {name: ".0f" for name in ("networks", "matched networks")}
plots.table(
    frame,
    f"Rank correlations with the protocol's worst case over {len(NAMES)} networks; "
    f"{int(matched.sum())} of them lie within {p.matched_points:g} of the best clean "
    "accuracy; – : too few networks",
    digits=2,
    columns=p_values | whole,
)

# %% [markdown]
# ### How sure can so few networks make us?
#
# The robustness of the networks, dealt out in every order, for all probes that every network has.

# %% tags=["hide-input"]
complete = [title for title in ASKED if not np.isnan(values[title]).any()]
dealt = [
    rank_tests.permuted(values[title].mean(1), values[TARGET].mean(1))
    for title in complete
]
largest = np.nanmax(np.abs(dealt), axis=0)
needed = float(np.quantile(largest, 0.95))
strongest = asked.loc[complete, "correlation"].abs()

# %% name="fig-chance" tags=["hide-input"] mystnb={"image": {"alt": "Histogram of the largest absolute rank correlation over all probes when robustness is dealt out to the networks at random, with vertical lines at the 95 percent quantile and at the largest one found."}}
_, ax = plt.subplots(figsize=(6.4, 2.9))
bins = np.linspace(0, 1, 41)
ax.hist(largest, bins=bins, color=plots.PALETTE[5], label="none knows anything")
once = "exceeded once in twenty times"
ax.axvline(needed, color="black", linestyle="--", label=once)
ax.axvline(strongest.max(), color=plots.PALETTE[1], label="found")
what = f"largest absolute correlation of {len(complete)} probes over {len(NAMES)}"
ax.set(xlabel=f"{what} networks", ylabel="orders")
ax.legend(fontsize=8, loc="upper left")
plt.show()

# %% tags=["hide-input"]
found = asked["correlation"]
beyond = [f"{name} ({found[name]:+.2f})" for name in complete]
beyond = [
    words
    for name, words in zip(complete, beyond, strict=True)
    if strongest[name] > needed
]
print(f"needed with {len(NAMES)} networks and {len(complete)} probes: {needed:.2f}")
print(f"beyond it: {', '.join(beyond) or 'none'}")
chances = {at: rank_tests.power(at, len(NAMES), TAIL) for at in (0.6, 0.8, 0.9)}
for at, chance in chances.items():
    print(f"a correlation of {at} in all networks would be decided: {chance:.0%}")
run.keep("needed", needed)
run.keep("complete", len(complete))
run.keep("strongest", float(strongest.max()))
run.keep("beyond", beyond)
run.keep("power", [chances[0.8], chances[0.9]])

# %% [markdown]
# ## Story by story
#
# The correlation is turned by the story: *yes* needs an interval above 0, *no* one below it.
# Beside it stand how probable a decision is where the correlation of all networks is .8 (`power_at_0_8`), the adjusted p-value, the correlation given clean accuracy, the one among matched networks, and the share of ordered pairs.
# Five probes of the table at the end are measured beside the stories and are no claims (any one-pixel error, calibration, Theorem 2's margin, persistence of least adversarial images, skewness of attacks): what it says of them is no verdict.

# %% tags=["hide-input"]
BESIDE = {
    "power_at_0_8": "power",
    "adjusted_p": "Holm_p",
    "ordered_pairs": "pairs",
    "partial": "partial",
    "matched": "matched",
    "networks": "networks",
}


def state(claim_id: str, title: str) -> None:
    """The row of one story; what is not defined is left out."""
    row = asked.loc[title]
    beside = {name: float(row[column]) for name, column in BESIDE.items()}
    beside = {n: v for n, v in beside.items() if not math.isnan(v)}
    found = None
    if not math.isnan(row["correlation"]):
        ends = row["correlation"], row["low"], row["high"]
        found = Estimate(*map(float, ends), int(row["networks"]))
    run.claim(claim_id, rank_correlation=found, **beside)


# %% tags=["hide-input"]
state("probes2026.one-pixel", "one pixel, confident error")

# %% tags=["hide-input"]
state("probes2026.noise-confidence", "confidence on noise")

# %% tags=["hide-input"]
state("probes2026.own-centre", "distance to own centre")

# %% tags=["hide-input"]
state("probes2026.between-centres", "distance between centres")

# %% tags=["hide-input"]
state("probes2026.outsiders", "outsiders by confidence, AUROC")

# %% tags=["hide-input"]
state("probes2026.slope", "magnitude-margin ratio")

# %% tags=["hide-input"]
state("probes2026.null-features", "features in the null space")

# %% tags=["hide-input"]
state("probes2026.null-attack", "attack in the null space")

# %% tags=["hide-input"]
state("probes2026.certificate", "certified radius")

# %% tags=["hide-input"]
state("probes2026.persistence", "persistence, natural")

# %% tags=["hide-input"]
state("probes2026.cone", "persistence behind over before")

# %% tags=["hide-input"]
state("probes2026.skewness", "skewness between images, degrees")

# %% tags=["hide-input"]
state("probes2026.curvature", "radius of curvature")

# %% tags=["hide-input"]
state("probes2026.kernel-mass", "outsiders by tangent kernel, AUROC")


# %% name="table-stories" tags=["hide-input"]
def reading(row: pd.Series) -> str:
    """What one row says, in words."""
    if math.isnan(row["correlation"]):
        return "no answer: it does not vary"
    if row["low"] < 0 < row["high"]:
        return "undecided"
    if row["correlation"] < 0:
        return "the other way round"
    joined = "and" if row["partial_Holm_p"] <= 0.05 else "but not shown"
    return f"as told, {joined} given clean accuracy"


bounds = zip(asked["low"], asked["high"], strict=True)
frame = {
    "story of": [PROBES[title].source for title in ASKED],
    "asks for": ["more" if PROBES[title].story > 0 else "less" for title in ASKED],
    "correlation": asked["correlation"],
    "interval": [f"{low:.2f} to {high:.2f}" for low, high in bounds],
    "decided, were it .8": [f"{chance:.0%}" for chance in asked["power"]],
    "found": asked.apply(reading, axis=1),
}
frame = pd.DataFrame(frame, index=ASKED)
frame = frame.sort_values(["story of", "correlation"], ascending=[True, False])
plots.table(frame, f"Story by story, over {len(NAMES)} networks", digits=2)

# %% [markdown]
# ## What did not reproduce, and why
#
# These are questions, so nothing in this chapter is reproduced or not.
# A story is answered with *yes* or *no* only where its interval leaves zero out.
# A probe may also go along with robustness only because it goes along with clean accuracy; the table says where that has not been told apart.
# The sign of an undecided correlation is no finding.
#
# Whatever the table says, it says of the networks in it.
# They were chosen, most of them because five papers made them, and not drawn from all networks there are.
# Of the eight, half come from one paper.
# And those that meet an adversary in training meet it in the protocol's own norm and radius, so any quantity which adversarial training happens to change will look like a predictor.
# A story with a yes has passed a first test, which is no law; an undecided one has not been shown to be wrong.
# Rounding alone can turn such an answer: with the same code and seeds, networks trained on a processor of another make answered yes to the skewness of crossings and to curvature, and those of this record leave both open.
#
# Two limits lie in the probes themselves.
# Quantities in feature space have no unit in pixels: a loss that draws features to their centres can do so without moving any image away from the boundary.
# Only those that divide by a slope, as the ratio $R$ and the certificate do, can know how far an image is from it, and the certificate divides by a bound on the steepest slope anywhere.
# Quantities that are measured along an attack, such as the skewness of attacks, describe the attack's box and norm as well as the network.
#
# What would settle more is plain: more networks, made by more ideas than five papers have, at matched clean accuracy.
# The number of probes is no substitute for them; each one more raises the bar that multiple questions set.

# %% tags=["hide-input"]
run.finish()
