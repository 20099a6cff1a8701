# %% [markdown]
# # Every probe on every model
#
# Each of the five papers explains robustness by a quantity of its own: the distance to a class centre {cite:p}`hess2020`, the slope of the margin {cite:p}`wang2022`, the subspace that the last layer cannot see {cite:p}`zou2018`, a certified radius {cite:p}`alfarra2021`, the noise that an image stands and the shape of the boundary {cite:p}`bell2023`.
# Each measures it on its own networks, and mostly on two of them.
#
# Here all quantities are measured on all networks.
# Then we ask what no single paper could: *which of them orders networks as their measured robustness does?*
#
# Eight networks are few.
# So the page says of each answer how sure it can be with that many, and the first thing to learn from it is how much a table of eight rows leaves open.

# %% tags=["parameters"]
profile: str = "quick"  # quick, standard or paper: which column of data/profiles/08_every_probe.yml
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, for example {"images": 20}

# %% tags=["hide-input"]
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from support import attacks, clustering, evaluation, geometry, models, networks, path_kernel, smoothing, training
from support.book import chapter_run, plots
from support.certificates import radius
from support.evaluation import rank_tests
from support.geometry import nullspace
from support.models import heads

run = chapter_run.start("08_every_probe", profile, seed, device, overrides)
p = run.profile
plots.use_style()


def stream(offset: int = 0) -> torch.Generator:
    """A fresh generator of the chapter's seed."""
    return torch.Generator().manual_seed(seed + offset)


def clock() -> float:
    """Seconds: of this process on a CPU, which others on the machine do not lengthen; of the wall where a GPU computes."""
    return time.perf_counter() if run.device.type == "cuda" else time.process_time()


# %% [markdown]
# ## What we ask
#
# No paper compares its quantity with the others', so there is no published number to reproduce.
# But each tells a story that can be asked of any network: where this quantity is larger (or smaller), the network is more robust.
# Each row below is such a sentence, with a rule that was written before the networks were trained: over the networks, the rank correlation with the protocol's worst case is at least one half in the story's direction, and its p-value, adjusted for the number of questions asked, is at most 0.05.

# %% tags=["hide-input", "output_scroll"]
run.show_claims()

# %% [markdown]
# ## The networks
#
# All have the same body, see the same training images equally often, and start from the same weights of their seed.
# They differ in the head and in the loss.
#
# | network | head | training |
# |---|---|---|
# | nominal | linear | cross-entropy |
# | Gauss | Gauss kernel of the distance to a class mean | features pulled to frozen class means ({doc}`01_softmax_kmeans`) |
# | softRmax | linear, then inverse squared distances to the unit vectors | its own log-probability ({doc}`02_softrmax`) |
# | Magnet | clusters, two a class | Magnet loss from random weights ({doc}`04_clustr`) |
# | ClusTR | the same | Magnet loss after cross-entropy |
# | QTRADES | linear | cross-entropy, and one quick adversary an image |
# | ClusTR + QTRADES | clusters | Magnet loss, and one quick adversary an image |
# | adversarial | linear | cross-entropy, then cross-entropy on the images that PGD finds {cite:p}`madry2018` |
#
# The last one belongs to no paper of this book.
# It is the yardstick: the one method in the list that makes networks robust by common agreement.
#
# softRmax and Magnet take all passes by themselves; the others share the first part of their training, with cross-entropy.
# An adversary costs passes of its own, so an equal number of looks at the data is no equal number of seconds: the table of times further down shows both.
# The networks are trained by `support.networks`, with the rates that the chapters use.

# %%
train, test = run.load(p.data, "train").take(p.train), run.load(p.data, "test").take(p.test)
classes, shape = len(train.classes), train.x.shape[1:]
recipe = networks.Recipe(
    warm=p.warm, tuned=p.tuned, lr=p.lr, tuned_lr=p.tuned_lr, magnet_lr=p.magnet_lr, eps=p.eps, pgd_steps=p.pgd_steps,
    quick_weight=p.quick_weight, joint_weight=p.joint_weight, augment=p.augment,
)
NAMES = list(p.networks)
nets, training_seconds = {}, {}
for s in run.seeds:
    for name in NAMES:
        begun = clock()
        net = networks.train([name], p.backbone, train.x, train.y, classes, recipe, seed=s, device=run.device, cache=run.cache, name="zoo")[name]
        spent = torch.tensor(clock() - begun, dtype=torch.float64)
        nets[name, s] = net
        # Kept with the network that it belongs to: a later run, which finds the network in the cache, shows the time of the first.
        training_seconds[name, s] = float(run.unit(f"clock-{networks.slug(name)}-{s}", {"model": models.fingerprint(net)}, lambda spent=spent: {"seconds": spent}, code=[])["seconds"])

# %% [markdown]
# ## The probes
#
# A probe is a function of a network that returns numbers.
# Each probe of each network and seed is a unit of its own in the cache, with the seconds that it took, so a run that is stopped goes on where it was, and a second run computes nothing.
#
# `measure` puts one probe to all networks.

# %%
seconds: dict[str, dict] = {}


def measure(title: str, probe: Callable, settings: dict, code: list) -> dict[tuple[str, int], dict[str, torch.Tensor]]:
    """What a probe `(model) -> tensors` finds on every network; the time goes into `seconds`."""
    found = {}
    for (name, s), net in nets.items():

        def compute(net=net):
            begun = clock()
            return {key: torch.as_tensor(value) for key, value in probe(net).items()} | {"seconds": torch.tensor(clock() - begun, dtype=torch.float64)}

        key = {"model": models.fingerprint(net), "train": train.sha256, "test": test.sha256, "seed": seed, **settings}
        found[name, s] = run.unit(f"probe-{title.replace(' ', '-')}-{networks.slug(name)}-{s}", key, compute, code=[probe, *code])
    seconds[title] = {key: float(unit["seconds"]) for key, unit in found.items()}
    return found


x, y = test.x[: p.images].to(run.device), test.y[: p.images].to(run.device)


def right(net) -> torch.Tensor:
    """The first images that the network classifies correctly, by their index."""
    return torch.nonzero(training.predict(net, x).argmax(1) == y)[:, 0]


# %% [markdown]
# ### Answers: accuracy, calibration, confidence where there is nothing to see
#
# The *expected calibration error* sorts answers by their confidence into fifteen bins of equal width and averages how far confidence and accuracy lie apart.
# It is the network's own confidence that counts, as its paper defines it: for the Gauss network that is no probability and need not sum to one.
#
# A network that knows what it does not know is unsure of noise, and surer of test images than of images from elsewhere.
# The second is an area under the ROC curve: the chance that a test image gets a higher confidence than an outsider.

# %%
def calibration_error(confidence: torch.Tensor, correct: torch.Tensor, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by how many answers they hold."""
    place = (confidence * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, confidence - correct.double())
    return float(gap.abs().sum() / len(confidence))


if p.outside == "shuffled":
    order = torch.randperm(x[0].numel(), generator=stream(1)).to(run.device)
    outside = x.flatten(1)[:, order].reshape(x.shape)
else:
    outside = run.load(p.outside, "test").take(p.images).x.to(run.device)
noise = torch.rand(x.shape, generator=stream(2)).to(run.device)


def answers(net) -> dict:
    """Accuracy, calibration error, mean confidence on noise, and how well confidence tells test images from outsiders."""
    scores = training.predict(net, test.x).cpu()
    sure = {name: net.head.confidence(found.double()).amax(1) for name, found in (("test", scores), ("noise", training.predict(net, noise).cpu()), ("outside", training.predict(net, outside).cpu()))}
    correct = scores.argmax(1) == test.y
    inside = sure["test"][: len(x)]
    area = roc_auc_score([1] * len(inside) + [0] * len(outside), torch.cat([inside, sure["outside"]]))
    return {"accuracy": correct.double().mean(), "calibration": calibration_error(sure["test"], correct), "noise": sure["noise"].mean(), "outside": area}


answered = measure("answers", answers, {"images": p.images, "outside": outside, "tests": len(test)}, [calibration_error, training.predict, heads])

# %% [markdown]
# ### Features: near the own centre, far from the others
#
# One algebra ties the book together: scores are log-kernels of distances to centres.
# To compare networks whose features have different sizes, we take lengths relative to the features themselves.
# The centres are the class means of the training features, for all networks alike.
#
# - *Distance to the own centre*: root mean square over test images, as a share of the distance to the mean of all. It is 0 where all classes have collapsed to points, and 1 where class means tell nothing.
# - *Distance between centres*: the smallest one as a share of their mean. It is 1 if all are equally far apart.
# - *Share of the features in the null space* of the last layer, of the squared length about the mean, over the share that a random direction has. Below 1 the features avoid the null space. A head with clusters sees what its centres span; softRmax sees all that its weights see, since it does not ignore a number added to all scores.

# %%
def rows_of(net) -> tuple[torch.Tensor, bool]:
    """What the head sees of the features, as rows, and whether a direction that adds the same to all of them is lost on it."""
    if isinstance(net.head, heads.LinearHead):
        return net.head.weight.detach(), not isinstance(net.head, heads.SoftRmaxHead)
    return net.head.centers.flatten(0, -2), True


def unseen(net, vectors: torch.Tensor) -> float:
    """Mean share of the squared length of feature vectors that lies in the null space, over that of a random direction."""
    rows, invariant = rows_of(net)
    chance = len(nullspace.adversarial_directions(rows, shift_invariant=invariant)) / vectors.shape[1]
    return float(nullspace.null_share(rows, vectors, shift_invariant=invariant).nanmean() / chance) if chance else math.nan


def clusters(net) -> dict:
    """Distances to the own centre and between centres, relative; the features' share in the null space."""
    f, inside = (training.extract(net, part).double() for part in (train.x[:5000], test.x))
    centers = clustering.class_centroids(f, train.y[:5000].to(f.device), classes)
    middle = f.mean(0)
    own = (inside - centers[test.y.to(f.device)]).square().sum(1).mean() / (inside - middle).square().sum(1).mean()
    apart = torch.pdist(centers)
    return {"own": own.sqrt().cpu(), "between": (apart.min() / apart.mean()).cpu(), "unseen": unseen(net, inside - middle)}


gathered = measure("features", clusters, {"tests": len(test), "trained": len(train)}, [unseen, rows_of, nullspace, clustering.class_centroids])

# %% [markdown]
# ### The least perturbation, and where it points
#
# L-BFGS looks for the shortest perturbation that changes the class (Euclidean length, inside the box; {doc}`05_persistence`).
# Its length is a second measurement of robustness, in another norm than the protocol's.
# Three quantities are read off the same pairs of images.
#
# - *Share of the attack in the null space*: of the squared length by which the features move, over that of a random direction.
# - *Theorem 2's margin*: the lower bound of {prf:ref}`thm-distortion` at its best over the two freedoms that it leaves open, over the length found. It is defined for one centre a class, and needs a Lipschitz constant.
# - *Skewness*: the angle between the perturbation and the normal of the boundary where it crosses. The shortest way to a smooth boundary crosses at 0 degrees, if the box allows it.

# %%
def lipschitz_of(net) -> float:
    """The product of the layers' norms, NaN where a layer has no known bound."""
    try:
        return radius.lipschitz_upper_bound(net, shape)
    except ValueError:  # residual blocks
        return math.nan


def one_centre_a_class(net, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and centres such that the nearest centre names the head's class (Theorem 1 of hess2020 for a linear head)."""
    if isinstance(net.head, heads.GaussHead):
        return f, net.head.centers.double()
    found = clustering.equidistant_centroids(net.head.weight.detach(), net.head.bias.detach())
    return torch.cat([f, f.new_ones(len(f), 1)], 1), found.centers


def least_perturbation(net) -> dict:
    """The shortest perturbations of right images: their lengths, what they do to the features, and how they cross."""
    keep = right(net)
    found = attacks.lbfgs(net, x[keep], y[keep])
    a, b, label = x[keep][found.success], found.x_adv[found.success], y[keep][found.success]
    length = (b - a).double().flatten(1).norm(dim=1)
    f, moved = (training.extract(net, part).double() for part in (a, b))
    crossing = geometry.bisect(net, a, b)
    normal = geometry.gradient_normals(net, crossing.point, *crossing.classes.T)
    bound = math.nan
    if not isinstance(net.head, heads.ClusterHead) and not math.isnan(lipschitz := lipschitz_of(net)):
        (f_own, centers), (f_adv, _) = (one_centre_a_class(net, part) for part in (f, moved))
        rival = training.predict(net, b).argmax(1)
        bound = float((clustering.distortion_bound(f_own, f_adv, centers, label, rival, lipschitz, best=True) / length).median())
    return {"a": a, "b": b, "length": length.median(), "won": found.success.double().mean(), "unseen": unseen(net, moved - f), "theorem2": bound, "degrees": geometry.incidence(b - a, normal).double().median()}


attacked = measure("least perturbation", least_perturbation, {"images": p.images}, [right, unseen, rows_of, one_centre_a_class, lipschitz_of, attacks.lbfgs, geometry.crossings, clustering, nullspace, radius.lipschitz_upper_bound])

# %% [markdown]
# ### A certificate
#
# The distance of the features to the nearest bisector, over an upper bound on the Lipschitz constant: no shorter perturbation changes the class of the nearest centre ({prf:ref}`thm-clustr-radius`).
# For the linear heads the bisectors are those of the scores.
# For heads with clusters it certifies the class of the nearest cluster, which is not quite the class of the soft sum.
# Residual blocks have no bound here, so ResNet has no certificate on this page.

# %%
def certificate(net) -> dict:
    """Median certified radius of the test images, 0 for wrong answers."""
    lipschitz = lipschitz_of(net)
    if math.isnan(lipschitz):
        return {"radius": math.nan}
    f, correct = training.extract(net, x).double(), training.predict(net, x).argmax(1) == y
    if isinstance(net.head, heads.LinearHead):
        length = clustering.bisector_bound(f, net.head.weight.detach(), net.head.bias.detach(), lipschitz)
    else:
        centers = net.head.centers.flatten(0, -2)
        kinds = torch.arange(classes, device=f.device).repeat_interleave(len(centers) // classes)
        length = radius.robustness_radius(f, centers, kinds, lipschitz)
    return {"radius": torch.where(correct, length, 0.0).median()}


certified = measure("certificate", certificate, {"images": p.images}, [lipschitz_of, radius, clustering.bisector_bound])

# %% [markdown]
# ### The slope of the margin
#
# The magnitude-margin ratio $R$ divides the mean size of the margin's gradient by the margin ({doc}`02_softrmax`).
# softRmax is judged on the scores before its last activation, as its paper does; the other heads on their log-scores.

# %%
def slope(net) -> dict:
    """Median magnitude-margin ratio of the images that are classified correctly."""
    on_z = (lambda net, x: net.head.logits(net.features(x))) if isinstance(net.head, heads.SoftRmaxHead) else None
    return {"ratio": radius.magnitude_margin_ratio(net, x, y, scores=on_z).double().nanmedian()}


sloped = measure("slope", slope, {"images": p.images}, [radius.magnitude_margin_ratio])

# %% [markdown]
# ### One pixel
#
# Every pixel of every image is set to every corner of the colour cube, and two rules judge the result ({doc}`01_softmax_kmeans`): *any* change of class, and a change with a confidence above $1/K$, the outlier threshold of the Gauss network.
# For a softmax the two rules are nearly the same.

# %%
@torch.no_grad()
def one_pixel(net) -> dict:
    """Share of the right and accepted images that some one-pixel change misleads, under both rules."""
    images, labels = x[: p.corner_images], y[: p.corner_images]
    scores = training.predict(net, images)
    correct, sure = scores.argmax(1) == labels, net.head.confidence(scores).amax(1)
    misled = torch.zeros(len(images), dtype=scores.dtype, device=images.device)
    for index, changed in attacks.corner_outputs(net, images):
        wrong = attacks.margin(changed, labels[index]) < 0
        misled.scatter_reduce_(0, index, net.head.confidence(changed).amax(1) * wrong, "amax")
    accepted = correct & (sure > 1 / classes)
    return {"any": (misled[correct] > 0).double().mean(), "confident": (misled[accepted] > 1 / classes).double().mean()}


pricked = measure("one pixel", one_pixel, {"images": p.corner_images}, [attacks.corner_outputs, attacks.margin])

# %% [markdown]
# ### Noise
#
# The $0.7$-persistence of an image is the largest standard deviation of Gaussian noise under which it keeps its class for seven draws of ten ({doc}`05_persistence`).
# We measure it at natural images, at the adversarial images of least perturbation, and at the natural images' *mirror images*: as far behind the crossing as the natural image lies before it.
# If the boundary were flat there, the mirror image would stand as much noise as the image.
# {cite:t}`bell2023` reads a loss of persistence behind the boundary as the cone that adversarial images live in.

# %%
SIGMA_MAX = 8.0


def under_noise(net, a: torch.Tensor, b: torch.Tensor) -> dict:
    """Median persistence of natural and of least adversarial images, and the median ratio of that behind the crossing to that before."""
    a, b = a[: p.noise_images], b[: p.noise_images]
    behind = torch.lerp(a, b, 2.0).clamp(0, 1)
    found = smoothing.persistence(net, torch.cat([a, b, behind]), 0.7, samples=p.noise_samples, precision=0.3, max_sigma=SIGMA_MAX, generator=stream(3)).sigma
    natural, least, mirrored = found.clamp(max=SIGMA_MAX).double().split(len(a))
    left = training.predict(net, behind).argmax(1) != training.predict(net, a).argmax(1)
    return {"natural": natural.median(), "least": least.median(), "behind": (mirrored / natural)[left].median(), "left": left.double().mean()}


def noisy(net) -> dict:
    unit = attacked[next(key for key, other in nets.items() if other is net)]
    return under_noise(net, unit["a"].to(run.device), unit["b"].to(run.device))


shaken = measure("noise", noisy, {"images": p.images, "of": p.noise_images, "samples": p.noise_samples, "cap": SIGMA_MAX}, [under_noise, attacks.lbfgs, smoothing])

# %% [markdown]
# ### The boundary between two images
#
# Straight lines between test images of different classes cross the boundary somewhere.
# There we measure the angle of incidence, and how the boundary bends: {doc}`07_decision_boundaries` goes a distance $r$ into the tangent plane and looks how far along the normal the boundary lies from there, the height $h$.
# A sphere of radius $R$ has left its tangent plane by $h \approx r^2 / 2R$, so we call $R = r^2 / 2h$, with the median height over places and directions, the *radius of curvature* at the scale $r$, `bend_reach` of the profile.
# Where the boundary is not found within $r$, the height counts as $r$.

# %%
def lines(net) -> dict:
    """Median angle of incidence on lines between images, and the radius of curvature there."""
    first, second = right(net).tensor_split(2)
    second = second[: len(first)]
    first = first[: len(second)]
    differ = y[first] != y[second]
    a, b = x[first[differ][: p.pairs]], x[second[differ][: p.pairs]]
    crossing = geometry.bisect(net, a, b)
    normal = geometry.gradient_normals(net, crossing.point, *crossing.classes.T)
    at, own, up = crossing.point[: p.bend_places], crossing.classes[: p.bend_places, 0], normal[: p.bend_places]
    frames = geometry.tangent_frames(up, p.bend_directions, generator=stream(4))
    height = geometry.heights(net, at, own, up, p.bend_reach * frames, p.bend_reach).abs().nan_to_num(nan=p.bend_reach)
    return {"degrees": geometry.incidence(b - a, normal).double().median(), "radius": p.bend_reach**2 / (2 * height.double().median())}


drawn = measure("boundary", lines, {"images": p.images, "pairs": p.pairs, "places": p.bend_places, "directions": p.bend_directions, "reach": p.bend_reach}, [right, geometry.crossings])

# %% [markdown]
# ### The kernel of training
#
# {doc}`06_path_kernel` writes a network as a kernel machine over its training images, with a kernel that is summed along the path of training.
# Such a path holds the weights before every step.
# The cell says how much that would be for the networks of this page, all of them together.
# What stands in the way even where that is little: the theorem, as the package has it, wants one loss of each image's scores over fixed images.
# The Magnet loss couples the images of a batch, and QTRADES, their sum and the yardstick train on images that move: four of the seven losses do not fit.
# A mass that half of the networks have orders nothing, so the path kernel's mass is *not run* here, and no number stands in for it.
#
# What can be had of every plain chain of layers is the kernel at the path's end: the tangent kernel of the trained weights.
# We read all networks alike, by the scores $2 f(x)^\top m_k - \lVert m_k \rVert^2$ with the class means $m_k$, and ask how well a query's kernel mass over training images, divided by the length of the query's own gradient, tells test images from outsiders.

# %% tags=["nbval-check-output"]
steps = sum(math.ceil(len(train) / 128) * (p.warm + p.tuned) for _ in nets)
weights = sum(value.numel() for value in nets[NAMES[0], seed].parameters())
print(f"a path of every network: {steps:,} steps of {weights:,} weights, {8 * steps * weights / 2**30:,.1f} GiB in float64")


def tangent(net) -> dict:
    """How well the normalised mass of the tangent kernel tells test images from outsiders."""
    count = p.kernel_images
    means = clustering.class_centroids(training.extract(net, train.x[:5000]), train.y[:5000].to(run.device), classes)
    read = models.with_head(net, heads.LinearHead(2 * means, -means.square().sum(1)))
    queries = torch.cat([train.x[:count].to(run.device), x[:count], outside[:count]])
    try:
        gram = path_kernel.ntk(read, queries, trace=True).double().cpu()
    except ValueError:  # a layer that the chain does not know, such as a residual block
        return {"outside": math.nan}
    mass = gram[count:, :count].mean(1) / gram.diagonal()[count:].sqrt()
    return {"outside": roc_auc_score([1] * count + [0] * (len(mass) - count), mass)}


kernelled = measure("tangent kernel", tangent, {"images": p.kernel_images, "outside": outside}, [path_kernel, clustering.class_centroids])

# %% [markdown]
# ### Measured robustness
#
# The judge of all others is the modern protocol ({doc}`02_softrmax`): attacks with several losses, towards all classes, with and without gradients, by transfer from the nominal network; an image counts as right if nothing breaks it.
# The budget is cut to what the machine of each profile can pay for all networks, and what it leaves out is not run.

# %%
budget = evaluation.Budget(
    images=p.protocol_images, noise_draws=5, bim=(10, 100), pgd_steps=p.protocol_steps, pgd_restarts=1, targeted_images=p.protocol_images, targeted_classes=3,
    autoattack_images=p.protocol_heavy, square_images=p.protocol_heavy, square_queries=500, hard_label_images=p.protocol_heavy, hard_label_queries=500,
    transfer_images=p.protocol_images, sweep=(0.1, 0.2, 0.35, 0.5), sweep_images=min(30, p.protocol_images),
)
ROWS_SHOWN = ("clean", "FGSM", "PGD cross-entropy", "PGD margin", "PGD targeted", "Square", evaluation.WORST)


def attack_all(net) -> dict:
    """Accuracy under the rows of the protocol, NaN for those that the budget leaves out, and how many flags of masked gradients are raised."""
    judged, truth = test.x[: p.protocol_images].to(run.device), test.y[: p.protocol_images].to(run.device)
    peer = nets["nominal", seed] if "nominal" in NAMES and net is not nets["nominal", seed] else None
    report = evaluation.evaluate(net, judged, truth, p.eps, budget=budget, peer=peer, seed=seed)
    found = {row: report.accuracy(row) for row in ROWS_SHOWN}
    return {row: math.nan if value is None else value for row, value in found.items()} | {"flags": sum(bool(flag.raised) for flag in report.flags), "robust": report.robust()}


judged = measure("protocol", attack_all, {"budget": repr(budget), "eps": p.eps, "peer": models.fingerprint(nets[NAMES[0], seed])}, [evaluation])

# %% tags=["hide-input"]
rows = {name: {row: np.mean([float(judged[name, s][row]) for s in run.seeds]) for row in ROWS_SHOWN} | {"flags raised": np.mean([float(judged[name, s]["flags"]) for s in run.seeds])} for name in NAMES}
display(pd.DataFrame(rows).style.format("{:.3f}", na_rep="–").set_caption(f"Accuracy under rows of the protocol, {p.protocol_images} images ({p.protocol_heavy} under Square), eps = {p.eps:.3g}, mean over {p.seeds} seeds; – : not run"))

# %% [markdown]
# ## The matrix
#
# All numbers side by side, the mean over the seeds in each cell.
# The colour is the rank within the row, turned so that dark blue is the side that the paper's story calls robust; grey cells have no number, and the table below says why.

# %%
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
    found: dict
    part: str
    form: str = "{:.2f}"
    undefined: str = ""


ONE_CENTRE = "Theorem 2 has one centre a class, these heads have two, or the body has no known Lipschitz bound"
NO_BOUND = "the body has no known Lipschitz bound"
PROBES = {
    "worst case of the protocol": Probe("", 1, judged, evaluation.WORST),
    "clean accuracy": Probe("", 1, answered, "accuracy", "{:.3f}"),
    "least perturbation, l2": Probe("bell2023", 1, attacked, "length"),
    "one pixel, any error": Probe("hess2020", -1, pricked, "any"),
    "one pixel, confident error": Probe("hess2020", -1, pricked, "confident"),
    "calibration error": Probe("hess2020", -1, answered, "calibration", "{:.3f}"),
    "confidence on noise": Probe("wang2022", -1, answered, "noise"),
    "outsiders by confidence, AUROC": Probe("wang2022", 1, answered, "outside"),
    "distance to own centre": Probe("hess2020", -1, gathered, "own"),
    "distance between centres": Probe("hess2020", 1, gathered, "between"),
    "Theorem 2's margin": Probe("hess2020", 1, attacked, "theorem2", "{:.2g}", ONE_CENTRE),
    "magnitude-margin ratio": Probe("wang2022", -1, sloped, "ratio", "{:.3f}"),
    "features in the null space": Probe("zou2018", -1, gathered, "unseen"),
    "attack in the null space": Probe("zou2018", -1, attacked, "unseen"),
    "certified radius": Probe("alfarra2021", 1, certified, "radius", "{:.2g}", NO_BOUND),
    "persistence, natural": Probe("bell2023", 1, shaken, "natural"),
    "persistence, least adversarial": Probe("bell2023", 1, shaken, "least", "{:.2g}"),
    "persistence behind over before": Probe("bell2023", 1, shaken, "behind"),
    "skewness between images, degrees": Probe("bell2023", -1, drawn, "degrees", "{:.0f}"),
    "skewness of attacks, degrees": Probe("bell2023", -1, attacked, "degrees", "{:.0f}"),
    "radius of curvature": Probe("bell2023", 1, drawn, "radius", "{:.3g}"),
    "outsiders by tangent kernel, AUROC": Probe("bell2023", 1, kernelled, "outside", "{:.2f}", "the chain of layers is not one that the kernel knows"),
}
values = {title: np.array([[float(probe.found[name, s][probe.part]) for s in run.seeds] for name in NAMES]) for title, probe in PROBES.items()}
mean = pd.DataFrame({title: found.mean(1) for title, found in values.items()}, index=NAMES).T

# %% tags=["hide-input"] mystnb={"image": {"alt": "Matrix of all probes, one a row, by all networks, one a column. Numbers in the cells are means over seeds; the colour is the rank within the row, dark blue on the side that the probe's paper calls robust."}}
def shade(row: pd.Series, story: int) -> np.ndarray:
    """Rank within the row from 0 to 1, 1 on the robust side; NaN where there is no number."""
    found = np.full(len(row), np.nan)
    known = row.notna().to_numpy()
    if known.sum() > 1:
        found[known] = (rankdata(story * row.to_numpy()[known]) - 1) / (known.sum() - 1)
    return found


shades = np.array([shade(mean.loc[title], probe.story) for title, probe in PROBES.items()])
figure, ax = plt.subplots(figsize=(2.9 + 0.72 * len(NAMES), 0.3 * len(PROBES) + 0.9))
ax.imshow(np.ma.masked_invalid(shades), cmap="Blues", vmin=-0.15, vmax=1.35, aspect="auto")
ax.set_facecolor("#d9d9d9")
for i, (title, probe) in enumerate(PROBES.items()):
    for j, name in enumerate(NAMES):
        number = mean.loc[title, name]
        text = "not\ndefined" if math.isnan(number) else probe.form.format(number)
        ax.text(j, i, text, ha="center", va="center", fontsize=6 if math.isnan(number) else 8, linespacing=0.8, color="white" if shades[i, j] > 0.8 else "black")
ax.set_xticks(range(len(NAMES)), [name.replace(" + ", " +\n") for name in NAMES], fontsize=8)
ax.xaxis.tick_top()
ax.set_yticks(range(len(PROBES)), [f"{title}  {'(+)' if probe.story > 0 else '(–)'}" for title, probe in PROBES.items()], fontsize=8)
ax.tick_params(length=0)
for side in ax.spines.values():
    side.set_visible(False)
ax.axhline(0.5, color="black", linewidth=1)
plt.show()

# %% tags=["hide-input"]
missing = {title: ", ".join(mean.columns[mean.loc[title].isna()]) for title in PROBES if mean.loc[title].isna().any()}
display(pd.DataFrame([{"probe": title, "networks without a number": names, "why": PROBES[title].undefined or "no image was left to measure it on"} for title, names in missing.items()] + [{"probe": "path-kernel mass", "networks without a number": "all: not run", "why": "no path is kept, and four of the losses are not of the theorem's form"}]).set_index("probe").style.set_caption("Not defined, or not run"))

# %% [markdown]
# The sign after each name is the story's: (+) if more of it should mean more robust.
# Where a column that is dark in the first row is pale further down, a story and the measurement part.
#
# ### What it cost
#
# Seconds of each unit, mean over the seeds, as they were when the unit was computed.

# %% tags=["hide-input"]
times = pd.DataFrame({"training": training_seconds, **seconds}).groupby(level=0, sort=False).mean().T
times["all"] = times.sum(axis=1)
times.loc["sum"] = times.sum()
display(times.style.format("{:.1f}").set_caption(f"Seconds a unit, mean over {p.seeds} seeds; the first network of a seed also pays for the common start"))

# %% [markdown]
# ## Which probe predicts robustness?
#
# The core of the answer is three lines: the ranks of one row of the matrix, the ranks of the first row, and their correlation.

# %%
one, worst = mean.loc["persistence, natural"], mean.loc["worst case of the protocol"]
ranks = np.array([rankdata(one), rankdata(worst)])
by_hand = float(np.corrcoef(ranks)[0, 1])
print(f"by hand {by_hand:.6f}, the package {rank_tests.rank_correlation(one, worst):.6f}, over {len(NAMES)} networks")

# %% [markdown]
# What makes it hard is the number of networks.
# Runs of one network differ by their seeds only: they are no new networks, so the number that counts is that of the columns, and everything below treats it so.
#
# - The *interval* redraws networks with replacement, and seeds within them. It treats the networks as drawn from something, and they were chosen; it shows how much the answer hangs on single columns.
# - The *p-value* deals out the robustness of the networks in every possible order and counts how often a correlation as far from zero arises. Holm's correction then pays for having asked about so many probes.
# - *Clean accuracy* goes along with many things. So we repeat the question twice: with what a straight line in the ranks of clean accuracy leaves (a partial rank correlation), and among the networks alone whose clean accuracy lies within `matched_points` of the best.
# - The *share of ordered pairs* asks in plain words: of two networks, how often does the probe name the more robust one?
#
# All numbers are turned so that positive means: as the story says.

# %%
TARGET = "worst case of the protocol"
ASKED = [title for title in PROBES if title not in (TARGET, "clean accuracy", "least perturbation, l2")]
accuracy = values["clean accuracy"]
matched = accuracy.mean(1) >= accuracy.mean(1).max() - p.matched_points


def question(title: str) -> dict[str, float]:
    """How one probe orders the networks that have it, turned by its story."""
    known = ~np.isnan(values[title]).any(1)
    found, robust, clean = PROBES[title].story * values[title][known], values[TARGET][known], accuracy[known]
    if known.sum() < 3:
        return {"networks": int(known.sum())}
    several = known.sum() >= 5  # fewer leave nothing beside a control
    alike = matched[known]
    dealt = rank_tests.permuted(found.mean(1), robust.mean(1))
    redrawn = rank_tests.bootstrap(found, robust, draws=p.draws, seed=seed)
    low, high = rank_tests.interval(redrawn)
    return {
        "networks": int(known.sum()),
        "correlation": rank_tests.rank_correlation(found.mean(1), robust.mean(1)), "low": low, "high": high,
        "p": rank_tests.p_value(dealt),
        "partial": rank_tests.rank_correlation(found.mean(1), robust.mean(1), clean.mean(1)) if several else math.nan,
        "partial p": rank_tests.p_value(rank_tests.permuted(found.mean(1), robust.mean(1), clean.mean(1))) if several else math.nan,
        "matched networks": int(alike.sum()),
        "matched": rank_tests.rank_correlation(found.mean(1)[alike], robust.mean(1)[alike]) if alike.sum() >= 3 else math.nan,
        "pairs": rank_tests.ordered_pairs(found.mean(1), robust.mean(1)),
        "of seeds": float(np.mean([rank_tests.rank_correlation(found[:, i], robust[:, i]) for i in range(p.seeds)])),
    }


columns = ["networks", "correlation", "low", "high", "p", "partial", "partial p", "matched networks", "matched", "pairs", "of seeds"]
asked = pd.DataFrame({title: question(title) for title in ASKED}, index=columns, dtype=float).T
asked["Holm p"] = rank_tests.holm(asked["p"])
asked["partial Holm p"] = rank_tests.holm(asked["partial p"])

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: rank correlation of each probe with the protocol's worst case, turned by the story, with bootstrap intervals over networks, and partial correlations given clean accuracy as open diamonds. Right: share of pairs of networks that each probe orders as the protocol does, with a dotted line at one half."}}
in_order = asked.sort_values("correlation").index
at = np.arange(len(in_order))
figure, axes = plt.subplots(1, 2, figsize=(8.6, 0.27 * len(ASKED) + 1.3), sharey=True, width_ratios=(2, 1))
shown = asked.loc[in_order]
axes[0].hlines(at, shown["low"], shown["high"], color=plots.PALETTE[5], linewidth=3)
axes[0].plot(shown["correlation"], at, "o", color=plots.PALETTE[0], label="rank correlation, 95 % interval over networks")
axes[0].plot(shown["partial"], at, "D", color=plots.PALETTE[1], fillstyle="none", label="given clean accuracy")
axes[0].axvline(0, color="grey", linewidth=0.8)
axes[0].set_yticks(at, [f"{title} ({PROBES[title].source[:-4]})" for title in in_order], fontsize=8)
axes[0].set(xlim=(-1.05, 1.05), xticks=np.linspace(-1, 1, 5), xlabel="rank correlation, turned by the story")
axes[1].plot(shown["pairs"], at, "s", color=plots.PALETTE[2], label="pairs in the protocol's order")
axes[1].axvline(0.5, color="grey", linewidth=0.8, linestyle=":")
axes[1].set(xlim=(-0.03, 1.03), xlabel="share of pairs")
for ax in axes:
    ax.tick_params(axis="x", labelsize=9)
    ax.xaxis.label.set_size(10)
figure.legend(loc="outside lower center", ncols=3, fontsize=8)
plt.show()

# %% tags=["hide-input", "output_scroll"]
counts = ["networks", "matched networks"]
display(asked.loc[in_order[::-1]].style.format("{:.2f}", na_rep="–").format("{:.0f}", subset=counts).format("{:.3f}", subset=["p", "Holm p", "partial p", "partial Holm p"], na_rep="–").set_caption(f"Rank correlations with the protocol's worst case over {len(NAMES)} networks; {int(matched.sum())} of them lie within {p.matched_points:g} of the best clean accuracy; – : too few networks"))

# %% [markdown]
# ### How sure can so few networks make us?
#
# The figure deals out the robustness of the networks in every order, for all probes at once, and notes the largest correlation that appears in any of them.
# That is what the best of so many probes looks like when none of them knows anything.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Histogram of the largest absolute rank correlation over all probes when robustness is dealt out to the networks at random, with vertical lines at the 95 percent quantile and at the largest one found."}}
complete = [title for title in ASKED if not np.isnan(values[title]).any()]
largest = np.nanmax(np.abs([rank_tests.permuted(values[title].mean(1), values[TARGET].mean(1)) for title in complete]), axis=0)
needed = float(np.quantile(largest, 0.95))
strongest = asked.loc[complete, "correlation"].abs()
figure, ax = plt.subplots(figsize=(6.4, 2.9))
ax.hist(largest, bins=np.linspace(0, 1, 41), color=plots.PALETTE[5], label="none knows anything")
ax.axvline(needed, color="black", linestyle="--", label="exceeded once in twenty times")
ax.axvline(strongest.max(), color=plots.PALETTE[1], label="found")
ax.set(xlabel=f"largest absolute correlation of {len(complete)} probes over {len(NAMES)} networks", ylabel="orders")
ax.legend(fontsize=8, loc="upper left")
plt.show()
beyond = [f"{title} ({asked.loc[title, 'correlation']:+.2f})" for title in complete if strongest[title] > needed]
print(f"needed with {len(NAMES)} networks and {len(complete)} probes: {needed:.2f}; beyond it: {', '.join(beyond) or 'none'}")

# %% [markdown]
# ### Story by story
#
# Each row asks one paper's story of all networks.
# The correlation is turned by the story; beside the verdict stand its interval, the correlation given clean accuracy, the one among matched networks, and the share of ordered pairs.

# %%
CLAIMS = {
    "probes2026.one-pixel": "one pixel, confident error",
    "probes2026.noise-confidence": "confidence on noise",
    "probes2026.own-centre": "distance to own centre",
    "probes2026.between-centres": "distance between centres",
    "probes2026.theorem2": "Theorem 2's margin",
    "probes2026.outsiders": "outsiders by confidence, AUROC",
    "probes2026.slope": "magnitude-margin ratio",
    "probes2026.null-features": "features in the null space",
    "probes2026.null-attack": "attack in the null space",
    "probes2026.certificate": "certified radius",
    "probes2026.persistence": "persistence, natural",
    "probes2026.cone": "persistence behind over before",
    "probes2026.skewness": "skewness between images, degrees",
    "probes2026.curvature": "radius of curvature",
    "probes2026.kernel-mass": "outsiders by tangent kernel, AUROC",
}


def number(value: float) -> float | None:
    """A number for the record, or nothing where it is not defined."""
    return None if math.isnan(value) else float(value)


for claim_id, title in CLAIMS.items():
    row = asked.loc[title]
    beside = {name: number(row[column]) for name, column in (("low", "low"), ("high", "high"), ("partial", "partial"), ("matched", "matched"), ("ordered_pairs", "pairs"), ("networks", "networks"))}
    run.claim(claim_id, correlation=number(row["correlation"]), adjusted_p=number(row["Holm p"]), **{name: value for name, value in beside.items() if value is not None})

# %% [markdown]
# ## What did not agree, and why
#
# A story can fail here in three ways, and the table tells them apart.
# The probe may order the networks the other way round; it may order them as told, but no better than chance can with so many questions and so few networks; or it may do so only because it goes along with clean accuracy.

# %% tags=["hide-input"]
def reading(row: pd.Series) -> str:
    """What one row says, in words."""
    if math.isnan(row["correlation"]):
        return "no answer: it does not vary"
    if row["correlation"] <= 0:
        return "the other way round" + (", beyond chance" if row["Holm p"] <= 0.05 else "")
    if row["Holm p"] > 0.05:
        return "as told, within what chance gives"
    return "as told, beyond chance" + (", and given clean accuracy" if row["partial Holm p"] <= 0.05 else ", but not given clean accuracy")


words = pd.DataFrame({"story of": [PROBES[title].source for title in ASKED], "asks for": ["more" if PROBES[title].story > 0 else "less" for title in ASKED], "correlation": asked["correlation"], "interval": [f"{low:.2f} to {high:.2f}" for low, high in zip(asked["low"], asked["high"], strict=True)], "found": asked.apply(reading, axis=1)}, index=ASKED)
display(words.sort_values(["story of", "correlation"], ascending=[True, False]).style.format("{:.2f}", subset=["correlation"], na_rep="–").set_caption(f"Story by story, over {len(NAMES)} networks"))

# %% [markdown]
# Whatever the table says, it says of the networks in it.
# They were chosen because five papers made them, not drawn from all networks there are.
# Of the eight, half come from one paper.
# And those that meet an adversary in training meet it in the protocol's own norm and radius, so any quantity which adversarial training happens to change will look like a predictor.
# A probe that survives here has passed a first test, and one that fails has failed it; neither is a law.
#
# Two limits lie in the probes themselves.
# Quantities in feature space have no unit in pixels: a loss that draws features to their centres can do so without moving any image away from the boundary.
# Only those that divide by a slope, as the ratio $R$ and the certificate do, can know how far an image is from it, and the certificate divides by a bound on the steepest slope anywhere.
# Quantities that are measured along an attack, such as the skewness of attacks, describe the attack's box and norm as well as the network.
#
# What would settle more is plain: more networks, made by more ideas than five papers have, at matched clean accuracy.
# The number of probes is no substitute for them; each one more raises the bar of the figure above.

# %% tags=["hide-input"]
run.show_verdicts()

# %% tags=["hide-input"]
run.finish()
