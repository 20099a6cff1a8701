# %% [markdown]
# # Evidence: Adversarial directions
#
# Every claim of {cite:t}`zou2018` with the code that measures it; the {doc}`lesson <lesson>` tells what comes of it.

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # quick, standard or paper: see data/profiles
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, such as {"match_steps": 200}

# %% tags=["hide-input"]
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.linalg
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from support import (
    attacks,
    certificates,
    clustering,
    data,
    evaluation,
    geometry,
    models,
    networks,
    training,
)
from support.book import chapter_run, plots
from support.common.vision import tv_models
from support.measures import accuracy, draws, paired_bootstrap, share
from support.models import heads, pretrained
from support.sampling import Estimate, Share

run = chapter_run.start(
    "03_adversarial_directions/evidence", profile, seed, device, overrides
)
p = run.profile
plots.use_style()
K = 10  # classes in every data set of this chapter
network = partial(networks.get, profile=profile, device=run.device, cache=run.cache)

# %% [markdown]
# ## What the last layer cannot see
#
# A basis of the adversarial directions of a random layer, by a singular value decomposition of the centred weights.

# %% tags=["nbval-check-output", "hide-input"]
generator = draws(0)
weight = torch.randn(K, 64, dtype=torch.float64, generator=generator)
_, singular, rows = torch.linalg.svd(weight - weight.mean(0))
basis = rows[int((singular > 1e-10 * singular[0]).sum()) :]
moved = basis @ weight.T
together = bool((moved - moved[:, :1]).abs().max() < 1e-12)
print(f"l = 64, m = 10: {len(basis)} directions, Theorem 1 counts {64 - 10}")
print("scores move together:", together)

# %% [markdown]
# The package's version on ten planted layers, with $l$ above, at and below $m$, beside SciPy's null space of the centred weights.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Layer:
    """A linear last layer in float64: weight (m, l), one row per class, bias (m,)."""

    weight: Tensor
    bias: Tensor

    def scores(self, h: Tensor) -> Tensor:
        """Scores (N, m) of features (N, l)."""
        return h @ self.weight.T + self.bias

    def answers(self, h: Tensor) -> Tensor:
        """Classes (N,)."""
        return self.scores(h).argmax(1)

    def output(self, h: Tensor) -> Tensor:
        """Softmax outputs (N, m)."""
        return self.scores(h).softmax(1)

    def centred(self) -> Tensor:
        """The weights without their mean row."""
        return self.weight - self.weight.mean(0)

    def unseen(self) -> Tensor:
        """Orthonormal adversarial directions, as rows."""
        return geometry.adversarial_directions(self.weight)

    def visible(self) -> Tensor:
        """Orthonormal rows that span what the softmax sees."""
        _, singular, rows = torch.linalg.svd(self.centred(), full_matrices=False)
        return rows[singular > 1e-10 * singular[0]]

    def kept(self) -> Tensor:
        """Orthonormal directions that leave the scores themselves as they are."""
        return geometry.adversarial_directions(self.weight, shift_invariant=False)

    def change(self, h: Tensor, d: Tensor, theta: Tensor) -> Tensor:
        """Largest change of a probability from h to h + theta d, (N, T)."""
        here = self.output(h)
        there = [self.output(h + t * d) for t in theta]
        return torch.stack([moved.sub(here).abs().amax(1) for moved in there], 1)

    def bound(self, h: Tensor, theta: float | Tensor) -> Tensor:
        """What rounding alone can change."""
        return geometry.rounding_bound(self.weight, self.bias, h, theta)

    def kind(self, k: int) -> str:
        """Whether the region of class k is empty, bounded or unbounded."""
        return geometry.region(self.weight, self.bias, k).kind


def planted(m: int, width: int, rank: int) -> Tensor:
    """A weight matrix (m, width) of a given rank."""
    left = torch.randn(m, rank, dtype=torch.float64, generator=generator)
    right = torch.randn(rank, width, dtype=torch.float64, generator=generator)
    return left @ right


twice = torch.arange(K) // 2
layers = {
    "general position, l > m": planted(K, 64, K),
    "general position, l = m": planted(K, K, K),
    "general position, l = m - 1": planted(K, K - 1, K - 1),
    "l < m": planted(K, 5, 5),
    "rank 4": planted(K, 64, 4),
    "every row twice": planted(K, 64, K)[twice],
    "a common vector added": planted(K, 64, K) + 100 * torch.ones(64),
    "two classes": planted(2, 64, 2),
    "one class": planted(1, 64, 1),
    "zero": torch.zeros(K, 64, dtype=torch.float64),
}


def distance_to_scipy(w: Tensor) -> float:
    """Largest entry of the difference of two projectors onto the null space of the
    centred weights: ours and SciPy's."""
    seen, found = (w - w.mean(0)).numpy(), geometry.adversarial_directions(w)
    expected = torch.eye(w.shape[1], dtype=torch.float64)
    if np.abs(seen).max() > 0:
        expected = torch.from_numpy(scipy.linalg.null_space(seen, rcond=1e-12))
    return float((found.T @ found - expected @ expected.T).abs().max())


gap = max(map(distance_to_scipy, layers.values()))

# %% name="table-layers" tags=["nbval-check-output", "hide-input"]
counts = {}
for name, w in layers.items():
    kept = geometry.adversarial_directions(w, shift_invariant=False)
    counts[name] = {
        "l": w.shape[1],
        "m": len(w),
        "l - m": w.shape[1] - len(w),
        "directions": len(geometry.adversarial_directions(w)),
        "kept by the scores themselves": len(kept),
    }
plots.table(
    pd.DataFrame(counts).T.rename_axis("layer"),
    "Adversarial directions of planted layers, and what Theorem 1 counts",
)

# %% [markdown]
# ### Trained networks
#
# `zoo` holds one network of each architecture under three heads; `main` holds the softmax network of the first architecture for every seed.
# The table counts the directions that leave the class scores' differences as they are, and those that leave the scores themselves.

# %% tags=["hide-input"]
images = run.load(p.images_data, "train").take(p.train)
images_test = run.load(p.images_data, "test").take(p.test)
shape = images.x.shape[1:]
told = {"train": p.train, "epochs": p.epochs, "lr": p.lr}


@dataclass(frozen=True)
class Net:
    """A network of the zoo."""

    body: str
    head: str
    model: nn.Module


def one_of_each_head(body: str) -> list[Net]:
    """A softmax, a Gauss and a softRmax network of one architecture."""
    place = f"{p.images_data}/{body}"
    tuned = {"tuned": max(p.epochs // 2, 1), "tuned_lr": p.lr / 5}
    return [
        Net(body, "softmax", network(f"{place}/softmax", seed=seed, **told)),
        Net(
            body,
            "Gauss",
            network(f"{place}/gauss/cross-entropy", seed=seed, **told, **tuned),
        ),
        Net(body, "softRmax", network(f"{place}/softrmax", seed=seed, **told)),
    ]


zoo = [net for body in p.networks for net in one_of_each_head(body)]
softmax_zoo = [net for net in zoo if net.head == "softmax"]
main_body = f"{p.images_data}/{p.networks[0]}"
main = [network(f"{main_body}/softmax", seed=s, **told) for s in run.seeds]


def layer(model: nn.Module) -> Layer:
    """The linear layer by whose scores the model decides; for a Gauss head with centres
    c_k it has weights 2 gamma c_k and biases -gamma |c_k|^2."""
    head = model.head
    if isinstance(head, heads.GaussHead):
        centers = head.centers.detach().double().cpu()
        return Layer(2 * head.gamma * centers, -head.gamma * centers.square().sum(1))
    return Layer(head.weight.detach().double().cpu(), head.bias.detach().double().cpu())


def features(model: nn.Module, x: Tensor) -> Tensor:
    """Features (N, l) in float64."""
    return training.extract(model, x).double().cpu()


# %% name="table-zoo" tags=["hide-input"]
counts = {}
for net in zoo:
    last = layer(net.model)
    counts[net.body, net.head] = {
        "accuracy": f"{accuracy(net.model, images_test):.3f}",
        "l": last.weight.shape[1],
        "directions": len(last.unseen()),
        "kept by the scores themselves": len(last.kept()),
    }
plots.table(
    pd.DataFrame(counts).T.rename_axis(["network", "head"]),
    "Directions that leave the class scores' differences, and the scores themselves, "
    "as they are",
)

# %% [markdown]
# ### How far is "arbitrarily far"?
#
# We travel along adversarial directions of each softmax network (the first of the basis, and two random ones), up to $\theta = 10^9$, and count how often a probability of a test image moves by more than the rounding bound allows, and the same along a random direction of the hidden space.
# The number of directions is compared with the rank of the centred weights by NumPy.


# %% tags=["hide-input"]
def random_in(basis: Tensor, source: torch.Generator) -> Tensor:
    """A direction of length 1, uniform in the span of orthonormal rows."""
    d = torch.randn(len(basis), dtype=torch.float64, generator=source) @ basis
    return d / d.norm()


theta = torch.logspace(0, 9, 19, dtype=torch.float64)
beyond, at_random, missing, mismatched, extra = 0, 0, 0, 0, []
for model in [*main, *(net.model for net in softmax_zoo[1:])]:
    last, h = layer(model), features(model, images_test.x)
    unseen, width = last.unseen(), last.weight.shape[1]
    bound = last.bound(h, theta)
    one, other = random_in(unseen, generator), random_in(unseen, generator)
    for d in (unseen[0], one, -other):
        beyond += int((last.change(h, d, theta) > bound).sum())
    d = random_in(torch.eye(width, dtype=torch.float64), generator)
    at_random += int((last.change(h, d, theta) > bound).sum())
    missing += max(width - K - len(unseen), 0)
    rank = np.linalg.matrix_rank(last.centred().numpy())
    mismatched += int(len(unseen) != width - rank)
    gap = max(gap, distance_to_scipy(last.weight))
    extra.append(len(unseen) - (width - K))

# %% [markdown]
# The networks of the profile's `pretrained` list that end with a linear layer, on the first ImageNet sample pictures: the number of their adversarial directions beside the rank of the centred weights, whether a way of $10^6$ along a random one changes an output by more than rounding, and shares of squared length in the null space.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Pretrained:
    """Dimensions, invariance and shares of a network that ends with a linear layer."""

    network: str
    right: float
    l: int  # noqa: E741
    m: int
    directions: int
    rank: int
    distance_to_scipys: float
    changes_beyond_rounding: int
    share_of_a_random_direction: float
    share_of_the_features: float
    share_of_the_shift: float
    ray: bool
    wendel: float


def split(net: nn.Module) -> models.Classifier:
    """A pretrained network cut before its last linear layer."""
    if isinstance(net, models.Classifier):
        return net
    parts = list(net.named_modules())
    name, last = [part for part in parts if isinstance(part[1], nn.Linear)][-1]
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    head = heads.LinearHead(last.weight.detach(), last.bias.detach())
    return models.Classifier(net, head).eval()


def pooled_share(last: Layer, vectors: Tensor) -> float:
    """Share of the squared length of all vectors together in the null space."""
    hidden = (vectors @ last.unseen().T).square().sum()
    return float(hidden / vectors.square().sum())


def with_the_layer(
    name: str, model: models.Classifier, x: Tensor, own: Tensor, seed: int
) -> Pretrained:
    """A network that ends with a linear layer, on pictures of known classes."""
    last, h = layer(model), features(model, x)
    unseen, (m, width) = last.unseen(), last.weight.shape
    far = torch.tensor([1e6], dtype=torch.float64)
    y = last.answers(h).to(x.device)
    shifted = attacks.pgd(model, x, y, 4 / 255, steps=10, generator=draws(seed)).x_adv
    changed = last.change(h, random_in(unseen, draws(seed)), far) > last.bound(h, far)
    return Pretrained(
        name,
        share(y.cpu() == own),
        width,
        m,
        len(unseen),
        int(np.linalg.matrix_rank(last.centred().numpy())),
        distance_to_scipy(last.weight),
        int(changed.sum()),
        len(unseen) / width,
        pooled_share(last, h - h.mean(0)),
        pooled_share(last, features(model, shifted) - h),
        geometry.cone_ray(last.weight) is not None,
        geometry.cone_probability(width, m),
    )


chosen = [name for name in p.pretrained if name != "none"]
linear, shots = [], None
if chosen:
    photographed = pretrained.picture_names()[: p.pretrained_pictures]
    known_names = pretrained.class_names()
    photographed_as = torch.tensor([known_names.index(name) for name in photographed])
    shots = pretrained.pictures(photographed).to(run.device)
for name in chosen:
    if "squeezenet" not in name:
        net = split(networks.get(f"imagenet/{name}/published")).to(run.device)
        given = (name, net, shots, photographed_as)
        linear.append(run.once(with_the_layer, *given, seed=seed))
for one in linear:
    beyond += one.changes_beyond_rounding
    missing += max(one.l - one.m - one.directions, 0)
    mismatched += int(one.directions != one.l - one.rank)
    gap = max(gap, one.distance_to_scipys)
    extra.append(one.directions - (one.l - one.m))
run.keep("with_the_layer", [one.network for one in linear])

# %% [markdown]
# One image of the first network along three directions, and the largest change of any probability over all test images, with the bound.

# %% tags=["hide-input"]
first_layer, first_features = layer(main[0]), features(main[0], images_test.x)
everything = torch.eye(first_layer.weight.shape[1], dtype=torch.float64)
top = first_layer.answers(first_features)
own_row = first_layer.weight[top[0]] - first_layer.weight.mean(0)
along = {
    "adversarial": random_in(first_layer.unseen(), generator),
    "random": random_in(everything, generator),
    "against its own weights": -own_row / own_row.norm(),
}

# %% name="fig-travel" tags=["hide-input"] mystnb={"image": {"alt": "Left: the probability of the predicted class against theta stays flat along an adversarial direction, and falls to zero far along a random one and far against the weights of the class. Right: on logarithmic axes the largest change of a probability along the adversarial direction stays below the rounding bound and for large theta grows about in proportion to theta; along the random direction it soon comes near one."}}
_, axes = plt.subplots(1, 2, figsize=(9.6, 3.5))
outwards = torch.logspace(-1, 3, 60, dtype=torch.float64)
line = torch.cat([-outwards.flip(0), torch.zeros(1), outwards])
for (label, way), style in zip(along.items(), ("-", "--", ":"), strict=True):
    on_way = first_layer.output(first_features[0] + line[:, None] * way)
    axes[0].plot(line, on_way[:, top[0]], style, label=label)
axes[0].set(xlabel=r"$\theta$", ylim=(-0.03, 1.06))
axes[0].set_ylabel("probability of the predicted class")
axes[0].set_xscale("symlog", linthresh=0.1)
axes[0].set_xticks([-1e3, -10, 0, 10, 1e3])
axes[0].legend(fontsize=8, loc="center", bbox_to_anchor=(0.43, 0.4))
for label, style in (("adversarial", "-"), ("random", "--")):
    changes = first_layer.change(first_features, along[label], theta).amax(0)
    axes[1].loglog(theta, changes, style, label=f"{label}, largest of all images")
thin = {"color": "black", "linewidth": 1}
allowed = first_layer.bound(first_features, theta).amax(0)
axes[1].loglog(theta, allowed, **thin, label="rounding bound")
thin = {"color": "grey", "linewidth": 1, "linestyle": "-."}
rounding = theta * 2.0**-53 * first_layer.weight.norm(dim=1).max()
axes[1].loglog(theta, rounding, **thin, label=r"$\theta\, u\, \max_k |w_k|$")
axes[1].set(xlabel=r"$\theta$", ylabel="largest change of a probability")
axes[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, 0.92))
plt.show()

# %% tags=["hide-input"]
run.claim(
    "zou2018.def1",
    changes_beyond_rounding=beyond,
    distance_to_scipys_null_space=gap,
    changes_along_random_directions=at_random,
)

# %% tags=["nbval-check-output", "hide-input"]
run.claim(
    "zou2018.thm1",
    missing_dimensions=missing,
    changes_beyond_rounding=beyond,
)

# %% [markdown]
# ### One direction more, and heads that see it
#
# The mean over images of the largest change of a confidence, for the three heads of the first architecture, along the direction that raises all scores alike and along a random one that leaves every score.


# %% tags=["hide-input"]
def one_more(last: Layer) -> Tensor:
    """The adversarial direction that moves the scores: orthogonal to the null space of
    the weights themselves."""
    kept, pull = last.kept(), last.unseen()
    pull = pull - pull @ kept.T @ kept
    return torch.linalg.svd(pull, full_matrices=False)[2][0]


def confidences(model: nn.Module, h: Tensor) -> Tensor:
    """The confidences (N, m) of a model's own head in float64."""
    head = model.head
    if isinstance(head, heads.GaussHead):
        exact = heads.GaussHead(head.centers.double().cpu(), head.gamma)
        return exact.double()(h).exp()
    if isinstance(head, heads.SoftRmaxHead):
        return heads.softrmax(layer(model).scores(h))
    return layer(model).output(h)


@dataclass(frozen=True)
class Response:
    """Mean change of the confidences at each distance, along two directions."""

    head: str
    raised: list[float]  # along the direction that raises all scores alike
    left: list[float]  # along one that leaves every score as it is


distances = torch.logspace(-1, 6, 29, dtype=torch.float64)


def respond(model: nn.Module, d: Tensor) -> list[float]:
    """Mean over images of the largest change of a confidence, at each distance."""
    h = features(model, images_test.x[:200])
    here = confidences(model, h)
    moved = [confidences(model, h + t * d) for t in distances]
    return [float((there - here).abs().amax(1).mean()) for there in moved]


responses = []
for kind in ("softmax", "softRmax", "Gauss"):
    model = next(net.model for net in zoo if net.head == kind)
    up, still = one_more(layer(model)), random_in(layer(model).kept(), generator)
    responses.append(Response(kind, respond(model, up), respond(model, still)))

# %% name="fig-responses" tags=["hide-input"] mystnb={"image": {"alt": "Two panels of the mean change of confidences against theta. Left, along a direction that raises all scores alike, the confidences of softRmax and Gauss change, those of the softmax only by rounding. Right, along a direction that leaves every score unchanged, only the Gauss confidences change by more than rounding."}}
_, axes = plt.subplots(1, 2, figsize=(9.2, 3.3), sharey=True)
looks = ((plots.SOFTMAX, "-"), (plots.THIRD, "--"), (plots.GAUSS, ":"))
for answer, (color, style) in zip(responses, looks, strict=True):
    for ax, curve in zip(axes, (answer.raised, answer.left), strict=True):
        shown = np.maximum(curve, 1e-17)
        ax.loglog(distances, shown, style, color=color, label=answer.head)
axes[0].set(xlabel=r"$\theta$", title="a direction that raises all scores alike")
axes[1].set(xlabel=r"$\theta$", title="a direction that leaves every score")
axes[0].set_ylabel("mean over images of the\nlargest change of a confidence")
axes[0].legend()
plt.show()

# %% tags=["hide-input"]
softmax_response, softrmax_response, _ = responses
run.claim(
    "zou2018.thm1-sharp",
    dimension_mismatches=mismatched,
    extra_dimensions=extra,
    softrmax_change_along_the_extra_one=max(softrmax_response.raised),
    softmax_change_along_the_extra_one=max(softmax_response.raised[:10]),
)

# %% [markdown]
# ## Regions that reach infinity
#
# Three layers in the plane, their regions by the scores, and each region's kind by linear programming: a dot in a bounded region, an arrow along a direction of escape in an unbounded one.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Plane:
    """A layer in the plane."""

    title: str
    last: Layer

    def regions(self) -> list[geometry.Region]:
        """The region of each class."""
        w, b = self.last.weight, self.last.bias
        return [geometry.region(w, b, k) for k in range(len(w))]


def plane(title: str, weight: Sequence | Tensor, bias: Sequence) -> Plane:
    """A layer in the plane, in float64."""
    weight = torch.as_tensor(weight, dtype=torch.float64)
    return Plane(title, Layer(weight, torch.tensor(bias, dtype=torch.float64)))


angle = torch.arange(6, dtype=torch.float64) * math.pi / 3
corners = torch.stack([angle.cos(), angle.sin()], 1)
middle = torch.tensor([[0.1, -0.05]], dtype=torch.float64)
in_line = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[:, None]
normal = torch.tensor([[0.9, 0.5]], dtype=torch.float64)
planes = [
    plane(
        "Figure 1, left: one region is bounded",
        torch.cat([corners, middle]),
        [0.0, 0.1, -0.1, 0.0, 0.15, 0.0, 1.0],
    ),
    plane(
        "m = 3, l = 2: all unbounded, none hidden",
        [[1.6, 0.3], [-0.4, 1.2], [-0.2, -0.9]],
        [0.0, 0.6, -0.4],
    ),
    plane(
        "Figure 1, right: a parallel layer",
        in_line * normal,
        [-0.9, 0.0, -0.6],
    ),
]

# %% name="fig-planes" tags=["hide-input"] mystnb={"image": {"alt": "Three decision maps in the plane, with arrows that show directions of escape. Left: six unbounded regions around a bounded one in the middle. Middle: three unbounded regions. Right: three regions cut by two parallel lines, the outer two not adjacent."}}
_, axes = plt.subplots(1, 3, figsize=(10.2, 3.6))
for ax, drawn in zip(axes, planes, strict=True):
    plots.cells(ax, drawn.last.answers, 3.0)
    for place in drawn.regions():
        if place.kind == "unbounded":
            tail = place.point
            if float(tail.abs().max()) >= 2:
                tail = tail * 1.2 / float(tail.norm())
            arrow = {"arrowstyle": "->", "color": "black"}
            ax.annotate("", tail + 0.9 * place.direction, tail, arrowprops=arrow)
        elif place.kind == "bounded":
            ax.plot(*place.point, "o", color="black", markersize=4)
    ax.set(xlim=(-3, 3), ylim=(-3, 3))
    ax.set_title(drawn.title, fontsize=9)
plt.show()

# %% [markdown]
# For Figure 1, left, we also look for points of the bounded region outside a large box, and try the same weights without a bias, and random layers with one class more than dimensions.

# %% tags=["nbval-check-output", "hide-input"]
hexagon = planes[0].last
bounded = [k for k in range(len(hexagon.weight)) if hexagon.kind(k) == "bounded"]
directions = torch.randn(100_000, 2, dtype=torch.float64, generator=generator)
far = 20 * nn.functional.normalize(directions, dim=1)
outside = [hexagon.answers(far * t).eq(k).sum() for k in bounded for t in (1, 10, 100)]
without_bias = [
    geometry.region(hexagon.weight, None, k).kind for k in range(len(hexagon.weight))
]


def random_layer(d: int) -> Layer:
    """A random layer in d dimensions with d + 1 classes."""
    w = torch.randn(d + 1, d, dtype=torch.float64, generator=generator)
    return Layer(w, torch.randn(d + 1, dtype=torch.float64, generator=generator))


simplices = [random_layer(d) for d in (1, 2, 3, 5, 9) for _ in range(5)]
their_kinds = [last.kind(k) for last in simplices for k in range(len(last.bias))]
run.claim(
    "zou2018.fig1-left",
    bounded_regions_drawn=len(bounded),
    points_of_the_region_beyond_its_hull=int(sum(outside)),
    bounded_without_bias=without_bias.count("bounded"),
    bounded_with_one_class_more_than_dimensions=their_kinds.count("bounded"),
)

# %% [markdown]
# Now the trained layers.
# For every class of every softmax network of the zoo we travel from its test images along an adversarial direction, and check class and output.
# A tie of two scores (less than $10^{-6}$ apart) is in no region.

# %% tags=["hide-input"]
lost, beyond, without, empty = 0, 0, 0, 0
for net in softmax_zoo:
    last, h = layer(net.model), features(net.model, images_test.x)
    unseen = last.unseen()
    region_kinds = [last.kind(k) for k in range(K)]
    empty += region_kinds.count("empty")
    without += 0 if len(unseen) else K - region_kinds.count("empty")
    best = last.scores(h).topk(2, dim=1).values
    clear = best.diff(dim=1)[:, 0].abs() > 1e-6
    for t in (1e2, 1e4, 1e6):
        moved = h + t * random_in(unseen, generator)
        lost += int((last.answers(moved) != last.answers(h))[clear].sum())
        changed = (last.output(moved) - last.output(h)).abs().amax(1)
        beyond += int(changed.gt(last.bound(h, t)).sum())

# %% tags=["nbval-check-output", "hide-input"]
run.claim(
    "zou2018.thm2",
    regions_without_direction=without,
    changes_beyond_rounding=beyond,
    classes_lost=lost,
    empty_regions=empty,
)

# %% [markdown]
# ### With fewer dimensions than classes
#
# A family of small networks whose last hidden layer has $l$ units, from two units up, one of each width for every seed, and the kinds of all their regions.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Kinds:
    """The regions of one network of the family, counted by kind."""

    l: int  # noqa: E741
    seed: int
    accuracy: float
    directions: int
    unbounded: int
    bounded: int
    empty: int


family_told = {
    "train": min(p.width_train, p.train),
    "epochs": p.epochs,
    "lr": p.lr,
}


def member(width: int, seed: int) -> nn.Module:
    """A network with hidden layers of 64 and `width` units."""
    name = f"{p.images_data}/mlp-64-{width}/softmax"
    return network(name, seed=seed, **family_told)


def counted(width: int, seed: int, model: nn.Module) -> Kinds:
    """Accuracy, directions and regions of a network of the family."""
    last = layer(model)
    found = [last.kind(k) for k in range(K)]
    regions = (found.count(kind) for kind in ("unbounded", "bounded", "empty"))
    correct = accuracy(model, images_test)
    return Kinds(width, seed, correct, len(last.unseen()), *regions)


family = {width: [member(width, s) for s in run.seeds] for width in p.widths}
kinds = pd.DataFrame([
    vars(counted(width, s, model))
    for width, group in family.items()
    for s, model in zip(run.seeds, group, strict=True)
])  # fmt: skip

# %% name="table-family" tags=["hide-input"]
means = kinds.groupby("l")[["accuracy", "directions", "unbounded", "bounded", "empty"]]
plots.table(
    means.mean(),
    "Regions of ten classes by the width of the last hidden layer, mean over runs",
    digits=2,
    columns={"directions": ".0f"},
)


# %% tags=["hide-input"]
narrow, wide = kinds[kinds.l < K], kinds[kinds.l >= K]
zoo_kinds = [layer(net.model).kind(k) for net in softmax_zoo for k in range(K)]
run.claim(
    "zou2018.all-unbounded",
    bounded_regions_with_l_above_m=int(wide.bounded.sum()) + zoo_kinds.count("bounded"),
    bounded_regions_with_l_below_m=int(narrow.bounded.sum()),
    unbounded_regions_with_l_below_m=int(narrow.unbounded.sum()),
)

# %% [markdown]
# ### Convex regions, flat boundaries
#
# Convexity on features of test images of the first network, with all pairs of images that are given to the same class.
# The row also says how it is in the space of images, where the region is the preimage under $g$: the share of 5,000 midpoints of such images with another class.

# %% tags=["hide-input"]
h, x = features(main[0], images_test.x[:400]), images_test.x[:400]
top = first_layer.answers(h)
first, second = torch.triu_indices(len(h), len(h), 1)
same = top[first] == top[second]
first, second = first[same], second[same]
mix = torch.rand(len(first), 1, dtype=torch.float64, generator=generator)
between = mix * h[first] + (1 - mix) * h[second]
some = torch.randperm(len(first), generator=generator)[:5000]
middle = (x[first[some]] + x[second[some]]) / 2
answers = training.predict(main[0], middle).argmax(1).cpu()
run.claim(
    "zou2018.convex-regions",
    midpoints_of_another_class=int((first_layer.answers(between) != top[first]).sum()),
    share_in_the_space_of_images=share(answers != top[first][some]),
)

# %% [markdown]
# Flat boundaries: sixty bisections between features of images of different classes, and the distance of the point found to the hyperplane of the two classes.


# %% tags=["nbval-check-output", "hide-input"]
def bisected(last: Layer, a: Tensor, c: Tensor) -> Tensor:
    """The points (N, l) between a and c where the class of a ends."""
    start = last.answers(a)
    low = torch.zeros(len(a), 1, dtype=torch.float64)
    high = torch.ones(len(a), 1, dtype=torch.float64)
    for _ in range(60):
        half = (low + high) / 2
        stays = (last.answers((1 - half) * a + half * c) == start)[:, None]
        low, high = torch.where(stays, half, low), torch.where(stays, high, half)
    return (1 - low) * a + low * c


a, c = h[: len(h) // 2], h[len(h) // 2 : 2 * (len(h) // 2)]
crossing = first_layer.answers(a) != first_layer.answers(c)
border = bisected(first_layer, a[crossing], c[crossing])
scores, pair = first_layer.scores(border).topk(2, dim=1)
normals = first_layer.weight[pair[:, 0]] - first_layer.weight[pair[:, 1]]
distance = (scores[:, 0] - scores[:, 1]) / normals.norm(dim=1)
run.claim("zou2018.piecewise-linear", distance_to_hyperplane=float(distance.max()))

# %% [markdown]
# ## Is l larger than m?
#
# The last layer of each of torchvision's classifiers, which are built without allocating their weights, beside the published accuracy.


# %% tags=["hide-input"]
class Unallocated(TorchFunctionMode):
    """Modules made inside have weights of the right shape and no memory: their tensors
    live on the meta device, and what would fill them leaves them alone."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Send what `torch.empty` makes to the meta device, and skip what ends on _."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.startswith("_"):
            return args[0] if args else kwargs["tensor"]
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Last:
    """Width, classes and kind of a classifier's last layer with weights, and its best
    and its first published top-1 accuracy in percent."""

    network: str
    l: int  # noqa: E741
    m: int
    linear: bool
    top1: float
    first: float


def last_of(name: str) -> Last:
    """The last layer of one of torchvision's classifiers."""
    with Unallocated(), warnings.catch_warnings(action="ignore"):
        net = tv_models.get_model(name, weights=None)
    kinds = nn.Linear | nn.Conv2d
    last = [module for module in net.modules() if isinstance(module, kinds)][-1]
    metas = [entry.meta["_metrics"] for entry in tv_models.get_model_weights(name)]
    top1 = [meta["ImageNet-1K"]["acc@1"] for meta in metas]
    m, width = last.weight.shape[:2]
    return Last(name, width, m, isinstance(last, nn.Linear), max(top1), top1[0])


def last_layers() -> list[Last]:
    """The last layers of all of torchvision's classifiers."""
    return [last_of(name) for name in tv_models.list_models(module=tv_models)]


architectures = pd.DataFrame(run.once(last_layers))
architectures["premise"] = architectures.linear & (architectures.l > architectures.m)

# %% name="fig-premise" tags=["hide-input"] mystnb={"image": {"alt": "Width of the last layer against published top-1 accuracy for torchvision's classifiers on a logarithmic axis, with a line at l = m = 1000. A fair share of the points, some of high accuracy, lies on or below the line."}}
_, ax = plt.subplots(figsize=(7.4, 3.9))
NAMED = "alexnet vgg16 inception_v3 resnet50 resnet18 squeezenet1_0 maxvit_t vit_b_16"
for held, is_linear, label, color, marker in (
    (True, True, "l > m", plots.PALETTE[0], "o"),
    (False, True, "l ≤ m", plots.PALETTE[1], "s"),
    (False, False, "no linear last layer", "black", "x"),
):
    of_kind = (architectures.premise == held) & (architectures.linear == is_linear)
    dots = {"s": 22, "color": color, "marker": marker}
    shown = architectures[of_kind]
    ax.scatter(shown.top1, shown.l, **dots, label=f"{label}: {len(shown)}")
for known in NAMED.split():
    row = architectures[architectures.network == known].iloc[0]
    offset = (0, -11) if known == "inception_v3" else (4, 4)
    beside = {"xytext": offset, "textcoords": "offset points", "fontsize": 7}
    ax.annotate(known, (row.top1, row.l), **beside)
ax.axhline(1000, color="grey", linewidth=0.8)
ax.set(yscale="log", ylabel="l, width of the last layer")
ax.set_xlabel("published top-1 accuracy on ImageNet, percent")
ax.legend(fontsize=8)
plt.show()

# %% name="table-exceptions" tags=["hide-input"]
exceptions = architectures[~architectures.premise].sort_values(["l", "network"])
listed = exceptions.groupby(["linear", "l"])["network"].agg(", ".join)
plots.table(
    listed.to_frame("networks"),
    "Networks with l ≤ 1000, or without the layer",
)

# %% tags=["hide-input"]
# the families of 2012 to 2018
EARLY = "alexnet vgg googlenet inception resnet squeezenet densenet mobilenet_v2 "
EARLY += "shufflenet mnasnet wide_resnet resnext"
early = architectures[architectures.network.str.startswith(tuple(EARLY.split()))]


def better_half(rows: pd.DataFrame, accuracy: str) -> pd.Series:
    """Whether the premise holds, for the more accurate half."""
    return rows.premise[rows[accuracy] >= rows[accuracy].median()]


better = better_half(early, "first")
abstract = ["alexnet", "vgg16", "inception_v3", "resnet50"]
cited = architectures[architectures.network.isin(abstract)]
run.claim(
    "zou2018.premise",
    cited_networks_without=int((~cited.premise).sum()),
    share_of_the_better_half_up_to_2018=float(better.mean()),
    networks_of_that_half=len(better),
    share_of_all_up_to_2018=float(early.premise.mean()),
    share_of_all=float(architectures.premise.mean()),
    share_of_the_better_half=float(better_half(architectures, "top1").mean()),
)

# %% [markdown]
# ### Pretrained networks
#
# Those of the profile's `pretrained` list that end with a linear layer, measured above.

# %% name="table-pretrained" tags=["hide-input"]
if not linear:
    print("No such network at this profile.")
else:
    headings = {
        "right": "right",
        "l": "l",
        "directions": "directions",
        "changes_beyond_rounding": "changes beyond rounding",
        "share_of_a_random_direction": "share of a random direction",
        "share_of_the_features": "share of the features",
        "share_of_the_shift": "share of PGD's shift",
        "ray": "ray in the orthant",
        "wendel": "Wendel",
    }
    frame = pd.DataFrame([vars(one) for one in linear]).set_index("network")
    plots.table(
        frame[list(headings)].rename(columns=headings),
        "Pretrained networks with a linear last layer, on the first "
        f"{len(shots)} sample pictures",
        columns={"Wendel": ".2g"},
    )  # fmt: skip

# %% [markdown]
# SqueezeNet is the control: the rank of its last convolution, and how its output changes when the last feature maps travel along the direction that this sees least, and along a random one.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Control:
    """SqueezeNet: channels and rank of its last convolution, share of scores that are
    exactly zero, and mean changes of its output along two directions."""

    channels: int
    rank: int
    zero: float
    least_visible: list[float]
    random: list[float]


REACH = (0.1, 1.0, 10.0, 100.0)  # in mean lengths of a feature


def without_the_layer(net: nn.Module, x: Tensor, seed: int) -> Control:
    """How SqueezeNet's output changes along directions of its last feature maps."""
    with torch.inference_mode():
        maps = net[1].features(net[0](x))
        w = net[1].classifier[1].weight[:, :, 0, 0].double().cpu()
        scores = net[1].classifier(maps).flatten(1)
        here = scores.softmax(1)
        size = float(maps.square().sum(1).sqrt().mean())
        centred, all_axes = w - w.mean(0), torch.eye(w.shape[1], dtype=torch.float64)
        least = torch.linalg.svd(centred, full_matrices=False)[2][-1]
        moved = []
        for d in (least, random_in(all_axes, draws(seed))):
            ways = [t * size * d.to(maps)[:, None, None] for t in REACH]
            outs = [net[1].classifier(maps + way).flatten(1) for way in ways]
            gaps = [(out.softmax(1) - here).abs().amax(1).mean() for out in outs]
            moved.append([float(gap) for gap in gaps])
    rank = int(np.linalg.matrix_rank(centred.numpy()))
    return Control(w.shape[1], rank, share(scores == 0), *moved)


controls = {}
for name in chosen:
    if "squeezenet" in name:
        net = networks.get(f"imagenet/{name}/published").to(run.device)
        controls[name] = run.once(without_the_layer, net, shots, seed=seed)
run.keep("without_the_layer", list(controls))

# %% name="table-control" tags=["hide-input"]
reaches = pd.Index(REACH, name="theta / mean length of a feature").astype(str)
for control_name, control in controls.items():
    curves = {"least visible": control.least_visible, "random": control.random}
    plots.table(
        pd.DataFrame(curves, index=reaches),
        f"{control_name}: mean over pictures of the largest change of a probability. "
        f"The last convolution maps l = {control.channels} channels to m = 1000 maps, "
        f"rank of the centred weights {control.rank}, adversarial directions "
        f"{control.channels - control.rank}; {control.zero:.0%} of the scores are "
        "exactly zero",
    )
if not controls:
    print("No such network at this profile.")

# %% [markdown]
# ## Inside the orthant
#
# The share of layers with an invisible ray in the orthant, by linear programming: random layers, the layers that training starts from, and the trained ones of the family, by their width.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Rays:
    """Shares of layers of one width that have a ray in the orthant."""

    l: int  # noqa: E741
    wendel: float
    random: float
    at_the_start: float
    trained: float


def has_ray(w: Tensor) -> bool:
    """Whether an adversarial direction stays in the orthant."""
    return geometry.cone_ray(w) is not None


def first_weight(width: int, seed: int) -> Tensor:
    """The last layer of a network of the family before training."""
    model = models.mlp(shape, (64, width), K, seed=seed)
    return model.head.weight.detach().double()


def rays_of(width: int) -> Rays:
    """Random, untrained and trained layers of one width."""
    drawn = [
        torch.randn(K, width, dtype=torch.float64, generator=generator)
        for _ in range(p.layers)
    ]
    starts = [first_weight(width, s) for s in range(p.layers)]
    ends = [layer(model).weight for model in family[width]]
    shares = (np.mean([has_ray(w) for w in group]) for group in (drawn, starts, ends))
    return Rays(width, geometry.cone_probability(width, K), *shares)


ray_share = pd.DataFrame([rays_of(width) for width in p.widths])

# %% name="fig-rays" tags=["hide-input"] mystnb={"image": {"alt": "Share of layers with an invisible ray in the non-negative orthant against the width of the last layer. Random layers and layers before training follow Wendel's curve, which passes one half at the grey line, 2 (m - 1) for m classes. Triangles mark the trained layers."}}
_, ax = plt.subplots(figsize=(6.4, 3.5))
every_width = np.arange(1, max(p.widths) + 1)
formula = [geometry.cone_probability(int(l), K) for l in every_width]  # noqa: E741
ax.plot(every_width, formula, color="black", linewidth=1, label="Wendel's formula")
for column, label, marker, color in (
    ("random", "random", "o", plots.PALETTE[0]),
    ("at_the_start", "at the start", "s", plots.PALETTE[1]),
    ("trained", "trained", "^", plots.PALETTE[2]),
):
    look = {"color": color, "label": label, "markersize": 6, "alpha": 0.8}
    ax.plot(ray_share.l, ray_share[column], marker, **look)
ax.axvline(2 * (K - 1), color="grey", linewidth=0.8)
ax.axvline(K, color="grey", linewidth=0.8, linestyle=":")
ax.set_xlabel("l, width of the last layer (dotted: l = m, grey: l = 2 (m - 1))")
ax.set(ylabel="share with a ray in the orthant", ylim=(-0.05, 1.05))
ax.legend()
plt.show()

# %% [markdown]
# For each softmax network of the zoo whose layer has a ray: the change of the output along it, and the test images whose features stay in the orthant on the other side as well.
# *At the transition* are the widths at which Wendel's probability is neither 0 nor 1.

# %% tags=["hide-input"]
beyond, lines = 0, 0
rays = [geometry.cone_ray(layer(net.model).weight) for net in zoo]
for net, ray in zip(zoo, rays, strict=True):
    if ray is None or net.head != "softmax":
        continue
    last, h = layer(net.model), features(net.model, images_test.x)
    far = torch.tensor([1e3, 1e6], dtype=torch.float64)
    beyond += int((last.change(h, ray, far) > last.bound(h, far)).sum())
    lines += int(((h - 1e6 * ray >= 0).all(1)).sum())  # the other way along the line
undecided = (ray_share.wendel > 0.001) & (ray_share.wendel < 0.999)
at_transition = ray_share[undecided]
run.claim(
    "zou2018.relu-cone",
    networks_of_the_zoo_with_a_ray=sum(ray is not None for ray in rays),
    networks_of_the_zoo=len(rays),
    changes_beyond_rounding=beyond,
    two_sided_lines=lines,
    trained_share_at_the_transition=float(at_transition.trained.mean()),
    wendel_at_the_transition=float(at_transition.wendel.mean()),
    pretrained_with_a_ray=sum(one.ray for one in linear) if linear else None,
)

# %% [markdown]
# ### An image on its way
#
# The search takes signed gradient steps, as the attacks of the package do, with two differences: it follows the distance of the features and never stops at a change of class, and its steps shrink, since steps of one length cannot come nearer than that length allows.
# Here it starts from the first test image of the first network, with no bound on the change of its pixels.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Nearest:
    """Images (N, C, H, W) that a search found, and the distance (N,) that is left."""

    x: Tensor
    distance: Tensor


def nearest_image(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    view: Tensor,
    eps: float | Tensor,
    steps: int,
) -> Nearest:
    """Images within eps (one for all or one each) of x (N, C, H, W) whose features,
    seen through the orthonormal rows of `view`, are nearest to one target (l,)."""
    view, goal = view.float().to(x.device), (target @ view.T).float().to(x.device)
    low, high = attacks.interval(x, eps)
    length = torch.as_tensor(eps, device=x.device).float().reshape(-1, 1, 1, 1) / 4
    least = torch.full((len(x),), torch.inf, device=x.device)
    at, best = x, x.clone()
    for step in range(steps + 1):
        at = at.detach().requires_grad_()
        apart = (model.features(at) @ view.T - goal).square().sum(1)
        distance = apart.clamp_min(1e-24).sqrt()
        (slope,) = torch.autograd.grad(distance.sum(), at)
        with torch.no_grad():
            better = distance < least
            best[better], least[better] = at[better], distance[better]
            shrunk = length * 1000 ** (-step / steps)
            at = torch.clamp(at - shrunk * slope.sign(), low, high)
    return Nearest(best, least.detach().double().cpu())


unseen = first_layer.unseen()
x = images_test.x[:1].to(run.device)
h = features(main[0], x)
hidden_part = (first_features - first_features.mean(0)) @ unseen.T
spread = torch.linalg.svd(hidden_part, full_matrices=False)[2][0]
d = spread @ unseen  # where in the null space the features of real images spread most
unit = float((hidden_part @ spread).std())
steps = 4 * p.match_steps


def image_on_the_way(way: float) -> Tensor:
    """The image whose features come nearest to the first one's, moved along d."""
    if not way:
        return x
    target = h[0] + way * unit * d
    return run.once(nearest_image, main[0], x, target, everything, 1.0, steps).x


def words(way: float, picture: Tensor) -> str:
    """What stands above a picture: asked, gone, aside, and the class's probability."""
    moved = (features(main[0], picture) - h)[0]
    gone = moved @ d
    aside = float((moved - gone * d).norm()) / unit
    own = first_layer.answers(h)[0]
    sure = float(first_layer.output(features(main[0], picture))[0, own])
    there = f"gone {float(gone) / unit:+.2f}\naside {aside:.2f}"
    return f"asked {way:+g}\n{there}\np = {sure:.3f}"


WAYS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
reached = [image_on_the_way(way) for way in WAYS]
captions = [words(way, picture) for way, picture in zip(WAYS, reached, strict=True)]

# %% name="fig-way" tags=["hide-input"] mystnb={"image": {"alt": "A row of seven pictures, a test digit in the middle and on both sides the images whose features come nearest to points along an invisible direction. Above each stand the way asked for, the way gone, the distance aside from the direction, and the probability of the digit's class."}}
row_of_pictures = torch.cat([picture.cpu() for picture in reached])
plots.pictures(row_of_pictures, captions, columns=len(WAYS), size=1.35)
plt.show()

# %% [markdown]
# ## How much of the features does the layer not see?
#
# Shares of squared length in the null space: of the test features about their mean, of the test features about their class means, of the shift that FGSM and PGD cause in the features, and of a uniformly random direction, which is the share of dimensions.
# The lesson also has those of the main networks before training.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Shift:
    """Features (N, l) of the attacked images, and where the attack succeeded, (N,)."""

    features: Tensor
    success: Tensor


@dataclass(frozen=True)
class Shifts:
    """Features (N, l) of the clean images, which are right, of the images under noise,
    and both attacks."""

    clean: Tensor
    right: Tensor
    noise: Tensor
    fgsm: Shift
    pgd: Shift


def shifts(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, steps: int, seed: int
) -> Shifts:
    """Attack a network and look at its features; the noise is a corner of the ball."""
    corner = (torch.rand(x.shape, generator=draws(seed)) < 0.5).to(x) * 2 - 1
    noisy = (x + eps * corner).clamp(0, 1)
    pgd = attacks.pgd(model, x, y, eps, steps=steps, generator=draws(seed))
    moved = [
        Shift(features(model, found.x_adv), found.success)
        for found in (attacks.fgsm(model, x, y, eps), pgd)
    ]
    right = model(x).argmax(1) == y
    return Shifts(features(model, x), right, features(model, noisy), *moved)


def fooled_by_the_rest(last: Layer, clean: Tensor, moved: Tensor, hit: Tensor) -> float:
    """Share of the successful attacks (by the mask `hit`) that change the class
    without the visible part of their shift."""
    if not hit.any():
        return 0.0
    clean, moved, see = clean[hit], (moved - clean)[hit], last.visible()
    hidden_only = clean + moved - moved @ see.T @ see
    return share(last.answers(hidden_only) != last.answers(clean))


@dataclass(frozen=True)
class Shares:
    """Shares of squared length in the null space of the layer by which a model decides,
    and of the attacks that succeed without the visible part of their shift."""

    random: float
    features: float
    within_classes: float
    noise: float
    fgsm: float
    pgd: float
    fooled: float


def shifted(model: nn.Module, x: Tensor, y: Tensor) -> Shifts:
    """A network's features under noise and attacks."""
    budget = {"eps": p.attack_eps, "steps": p.pgd_steps, "seed": seed}
    return run.once(shifts, model, x, y, **budget)


def shares(model: nn.Module, x: Tensor, y: Tensor) -> Shares:
    """Where the features and the attacks of a network lie."""
    found = shifted(model, x, y)
    last, every = layer(model), features(model, images_test.x)
    means = clustering.class_centroids(every, images_test.y, K)
    both, noise = (found.fgsm, found.pgd), found.noise - found.clean
    fooled = [
        fooled_by_the_rest(last, found.clean, one.features, one.success & found.right)
        for one in both
    ]
    return Shares(
        1 - len(last.visible()) / last.weight.shape[1],
        pooled_share(last, every - every.mean(0)),
        pooled_share(last, every - means[images_test.y]),
        pooled_share(last, noise),
        *(pooled_share(last, one.features - found.clean) for one in both),
        max(fooled),
    )


x = images_test.x[: p.attack_images].to(run.device)
y = images_test.y[: p.attack_images].to(run.device)
zoo_shares = [shares(net.model, x, y) for net in zoo]
main_shares = [shares(model, x, y) for model in main]
begin = partial(networks.untrained, f"{main_body}/softmax", device=run.device)
untrained = [shares(begin(seed=s).eval(), x, y) for s in run.seeds]


def mean_shares(group: list[Shares]) -> dict[str, float | None]:
    """The mean over runs of each share, None where there was nothing to measure."""
    means = pd.DataFrame(map(vars, group)).mean().to_dict()
    return {name: None if math.isnan(mean) else mean for name, mean in means.items()}


run.keep(
    "shares", {"trained": mean_shares(main_shares), "untrained": mean_shares(untrained)}
)

# %% name="fig-shares" tags=["hide-input"] mystnb={"image": {"alt": "For each network and head, markers for the share of squared length in the null space: of a random direction, of the features about their mean, of the features within classes, and of the shifts caused by FGSM and PGD."}}
_, ax = plt.subplots(figsize=(8.2, 3.8))
heights = range(len(zoo))
bars = {"markersize": 14, "markeredgewidth": 2}
by_chance = [one.random for one in zoo_shares]
ax.plot(by_chance, heights, "|", color="black", label="random direction", **bars)
for field, label, marker, color in (
    ("features", "features", "o", plots.PALETTE[0]),
    ("within_classes", "within classes", "s", plots.PALETTE[2]),
    ("fgsm", "FGSM", "^", plots.PALETTE[1]),
    ("pgd", "PGD", "v", plots.PALETTE[3]),
):
    shown = [getattr(one, field) for one in zoo_shares]
    ax.plot(shown, heights, marker, color=color, label=label, markersize=7)
ax.set(yticks=heights, yticklabels=[f"{one.body}, {one.head}" for one in zoo])
ax.set(xlim=(-0.02, 1.02))
ax.set_xlabel("share of squared length that the layer does not see")
ax.invert_yaxis()
ax.legend(fontsize=8, bbox_to_anchor=(1.01, 1), loc="upper left")
plt.show()

# %% [markdown]
# The shares of the attacks' shifts stand against that of noise of the same size, image by image.
# The row's last number repeats each successful attack with the visible part of its shift taken away: only what lies in the adversarial directions is left.


# %% tags=["hide-input"]
def hidden_share(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> float:
    """Hidden and whole squared lengths of shifts (N,), and those of other shifts: the
    first share minus the second."""
    return a.sum() / b.sum() - c.sum() / d.sum()


def above_noise(model: nn.Module, attack: str) -> Estimate:
    """Share of an attack's shift in the null space, minus that of the noise's."""
    found, unseen = shifted(model, x, y), layer(model).unseen()
    moved = (getattr(found, attack).features - found.clean, found.noise - found.clean)
    lengths = [
        part.square().sum(1) for shift in moved for part in (shift @ unseen.T, shift)
    ]
    return paired_bootstrap(hidden_share, *lengths)


run.claim(
    "zou2018.wide-range",
    random_share=[one.random for one in main_shares],
    fgsm_share_above_noise=[above_noise(model, "fgsm") for model in main],
    pgd_share_above_noise=[above_noise(model, "pgd") for model in main],
    fgsm_share=[one.fgsm for one in main_shares],
    pgd_share=[one.pgd for one in main_shares],
    noise_share=[one.noise for one in main_shares],
    feature_share=[one.features for one in main_shares],
    fooled_without_the_visible_part=[one.fooled for one in main_shares],
)

# %% [markdown]
# ## The conjecture
#
# The search for test images $x$ and one image $x'$ of each class, over the ball of every radius: for the features modulo the adversarial directions (in the row space of $\tilde W$), for the features themselves, and for the class alone by targeted PGD on the margin.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Search:
    """A search over pairs (N) and radii (E): the distance at the start (N,); the
    distance reached, total variation of the outputs, and whether the class is that of
    x', (N, E)."""

    start: Tensor
    reached: Tensor
    variation: Tensor
    hit: Tensor

    def relative(self) -> Tensor:
        """Distance reached, relative to the start."""
        return self.reached / self.start[:, None]

    def matched(self) -> Tensor:
        """Share of pairs whose features come within 1 % of the start, by radius."""
        return (self.reached <= 0.01 * self.start[:, None]).double().mean(0)


@dataclass(frozen=True)
class Match:
    """The search modulo the adversarial directions and on all features, and which pairs
    (N, E) a targeted attack gives the class of x'."""

    modulo: Search
    whole: Search
    targeted: Tensor


@dataclass(frozen=True)
class Pairs:
    """Images x (N, C, H, W) and their features (N, l), the features (l,) of one x', its
    class, and the radii."""

    x: Tensor
    h: Tensor
    target: Tensor
    label: int
    budgets: tuple[float, ...]

    def repeated(self) -> tuple[Tensor, Tensor]:
        """The images once for each radius, and the radius of each."""
        eps = torch.tensor(self.budgets, dtype=torch.float64, device=self.x.device)
        many = self.x.repeat(len(self.budgets), 1, 1, 1)
        return many, eps.repeat_interleave(len(self.x))

    def by_radius(self, values: Tensor) -> Tensor:
        """Values of the repeated images as (N, E)."""
        return values.cpu().reshape(len(self.budgets), len(self.x)).T


def search(model: nn.Module, pairs: Pairs, view: Tensor, steps: int) -> Search:
    """Look for images whose features, seen through `view`, are those of x'."""
    last, (x, eps) = layer(model), pairs.repeated()
    found = nearest_image(model, x, pairs.target, view, eps, steps)
    output = last.output(features(model, found.x))
    apart = (output - last.scores(pairs.target).softmax(0)).abs().sum(1) / 2
    return Search(
        ((pairs.h - pairs.target) @ view.T).norm(dim=1),
        pairs.by_radius(found.distance),
        pairs.by_radius(apart),
        pairs.by_radius(output.argmax(1) == pairs.label),
    )


def targeted(model: nn.Module, pairs: Pairs, steps: int, seed: int) -> Tensor:
    """Which pairs (N, E) targeted PGD on the margin gives the class of x'."""
    x, eps = pairs.repeated()
    label = torch.full((len(x),), pairs.label, device=x.device)
    budget = {"steps": steps, "generator": draws(seed)}
    found = attacks.pgd(model, x, label, eps, targeted=True, loss="margin", **budget)
    return pairs.by_radius(found.success)


def joined(parts: list[Search]) -> Search:
    """The searches for several x' as one."""
    return Search(
        torch.cat([one.start for one in parts]),
        torch.cat([one.reached for one in parts]),
        torch.cat([one.variation for one in parts]),
        torch.cat([one.hit for one in parts]),
    )


def pairs_of(
    model: nn.Module, x: Tensor, y: Tensor, budgets: tuple[float, ...], sources: int
) -> list[Pairs]:
    """Pairs of images that are right: from the first `sources` of them to the first one
    of each other class."""
    h, where = features(model, x), next(model.parameters()).device
    right = torch.nonzero(training.predict(model, x).argmax(1).cpu() == y)[:, 0]
    goals = [int(right[y[right] == k][0]) for k in range(K)]
    first = torch.tensor([int(i) for i in right if int(i) not in goals][:sources])
    found = []
    for goal in goals:
        rows = first[y[first] != y[goal]]
        pairs = Pairs(x[rows].to(where), h[rows], h[goal], int(y[goal]), budgets)
        found.append(pairs)
    return found


def match(
    model: nn.Module, x: Tensor, y: Tensor, *,
    budgets: tuple[float, ...], sources: int, steps: int, seed: int,
) -> Match:  # fmt: skip
    """All searches over the pairs."""
    view, every = layer(model).visible(), pairs_of(model, x, y, budgets, sources)
    everything = torch.eye(view.shape[1], dtype=torch.float64)
    return Match(
        joined([search(model, pairs, view, steps) for pairs in every]),
        joined([search(model, pairs, everything, steps) for pairs in every]),
        torch.cat([targeted(model, pairs, steps, seed) for pairs in every]),
    )


def enclosed(model: nn.Module, pairs: Pairs, eps: float) -> Tensor:
    """Which pairs (N,) interval bounds exclude at a radius: a centred score of x' lies
    outside the bounds around x. None where they do not know a layer."""
    last = layer(model)
    wanted = last.centred() @ pairs.target + last.bias - last.bias.mean()
    try:
        low, high = certificates.centred_score_bounds(model.cpu(), pairs.x.cpu(), eps)
    except ValueError:  # batch norm
        return torch.zeros(len(pairs.x), dtype=torch.bool)
    finally:
        model.to(pairs.x.device)
    return ((wanted < low - 1e-6) | (wanted > high + 1e-6)).any(1)


budget = {
    "budgets": tuple(p.match_eps),
    "sources": p.match_sources,
    "steps": p.match_steps,
}
matches = [
    run.once(match, model, images_test.x, images_test.y, seed=s, **budget)
    for s, model in zip(run.seeds, main, strict=True)
]
modulo = torch.cat([found.modulo.relative() for found in matches])
whole = torch.cat([found.whole.relative() for found in matches])
at_smallest = [share(found.targeted[:, 0]) for found in matches]
run.keep("targeted", float(np.mean(at_smallest)))

# %% name="fig-search" tags=["hide-input"] mystnb={"image": {"alt": "Left: cumulative share of pairs against the feature distance reached relative to the start, for each radius; solid lines modulo the adversarial directions, dashed lines with all features. Right: against the radius, the share of pairs whose first image gets the class of the second, by the two searches and by a targeted attack, and the share matched."}}
_, axes = plt.subplots(1, 2, figsize=(9.8, 3.7))
levels = np.logspace(-4, 0, 200)
for column, size in enumerate(p.match_eps):
    look = {"color": plots.PALETTE[column]}
    for curve, style, label in (
        (modulo, "-", rf"$\epsilon$ = {size:g}"),
        (whole, "--", None),
    ):
        ordered_ratios = np.sort(curve[:, column].numpy())
        below = np.searchsorted(ordered_ratios, levels, side="right")
        axes[0].plot(levels, below / len(ordered_ratios), style, label=label, **look)
axes[0].axvline(0.01, color="grey", linewidth=0.8)
axes[0].set(xscale="log", ylabel="share of pairs")
axes[0].set_xlabel(
    "distance reached / distance at the start\n"
    "(solid: modulo null space, dashed: all features)"
)
axes[0].legend(fontsize=8)
for label, style, color, curves in (
    ("class of x', targeted attack", "-", 0, [one.targeted for one in matches]),
    ("class of x', matching modulo", "--", 1, [one.modulo.hit for one in matches]),
    ("class of x', matching all", ":", 2, [one.whole.hit for one in matches]),
):
    look = {"label": label, "color": plots.PALETTE[color], "style": style}
    hits = [curve.double().mean(0).numpy() for curve in curves]
    plots.band(axes[1], p.match_eps, np.array(hits), **look)
look = {"label": "matched to 1 %, modulo", "color": plots.PALETTE[3], "style": "-."}
near = [one.modulo.matched().numpy() for one in matches]
plots.band(axes[1], p.match_eps, np.array(near), **look)
axes[1].set(xlabel=r"$\epsilon$, pixel units", ylabel="share of pairs")
axes[1].set(ylim=(-0.03, 1.03))
axes[1].legend(fontsize=8)
plt.show()

# %% name="table-search" tags=["hide-input"]
apart = torch.cat([one.modulo.variation for one in matches])
with_class = torch.cat([one.modulo.hit for one in matches])
with_attack = torch.cat([one.targeted for one in matches])
summary = {
    "median distance left, modulo": modulo.median(0).values,
    "median distance left, all features": whole.median(0).values,
    "total variation of the outputs, median": apart.median(0).values,
    "matched to 1 %, modulo": (modulo <= 0.01).double().mean(0),
    "matched to 1 %, all features": (whole <= 0.01).double().mean(0),
    "class of x', modulo": with_class.double().mean(0),
    "class of x', targeted attack": with_attack.double().mean(0),
}
plots.table(
    pd.DataFrame(summary, index=pd.Index(p.match_eps, name="eps")),
    f"The search over {len(modulo)} pairs and runs",
)

# %% [markdown]
# What is known of the pairs at the smallest radius: the search matches some to 1 %, interval bounds on the centred scores exclude some.

# %% tags=["hide-input"]
sizes = (tuple(p.match_eps), p.match_sources)


def known_share(model: nn.Module, found: Match) -> Estimate:
    """Share of the pairs that have such an image: at least those that the search
    matched, at most those that no enclosure excludes."""
    every = pairs_of(model, images_test.x, images_test.y, *sizes)
    shut = torch.cat([enclosed(model, pairs, p.match_eps[0]) for pairs in every])
    least = float(found.modulo.matched()[0])
    return Estimate(
        least, least, max(1 - float(shut.double().mean()), least), len(shut)
    )


run.claim(
    "zou2018.conjecture",
    share_with_such_an_image=[
        known_share(*both) for both in zip(main, matches, strict=True)
    ],
    share_matched=[share(one.modulo.relative()[:, 0] <= 0.01) for one in matches],
    share_misclassified=[share(one.modulo.hit[:, 0]) for one in matches],
    share_targeted=at_smallest,
    share_matched_at_the_largest_radius=[
        share(one.modulo.relative()[:, -1] <= 0.01) for one in matches
    ],
    share_targeted_at_the_largest_radius=[
        share(one.targeted[:, -1]) for one in matches
    ],
    median_distance_left=[
        float(one.modulo.relative()[:, 0].median()) for one in matches
    ],
    median_distance_left_without_quotient=[
        float(one.whole.relative()[:, 0].median()) for one in matches
    ],
)

# %% [markdown]
# ### The half that can be decided
#
# Interval bounds on the centred scores of the first network that is no convolution with batch norm: the pairs for which a centred score of $x'$ lies outside the bounds around $x$.

# %% tags=["hide-input"]
bounded_net = next(net.model for net in softmax_zoo if net.body != "small_cnn")
answers = training.predict(bounded_net, images_test.x).argmax(1).cpu()
right = torch.nonzero(answers == images_test.y)[:, 0]
sources = right[: p.match_sources]
targets = torch.stack([right[images_test.y[right] == k][-1] for k in range(K)])
last = layer(bounded_net)
centred_bias = last.bias.mean()
wanted = features(bounded_net, images_test.x[targets]) @ last.centred().T
wanted = wanted + last.bias - centred_bias
different = images_test.y[sources][:, None] != images_test.y[targets]
small_budgets = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.05, 0.07, 0.1)
budgets = sorted({*small_budgets, p.match_eps[0]})


def excluded_at(eps: float) -> Tensor:
    """Which pairs of different classes the bounds at a radius exclude, (N,)."""
    net = bounded_net.cpu()
    ends = certificates.centred_score_bounds(net, images_test.x[sources], eps)
    low, high = (end.cpu()[:, None] for end in ends)
    return ((wanted < low - 1e-6) | (wanted > high + 1e-6)).any(2)[different]


excluded = torch.stack([excluded_at(eps) for eps in budgets], 1)
bounded_net.to(run.device)

# %% [markdown]
# The least budgets of a small network on scikit-learn's digits, by a mixed integer programme {cite:p}`tjeng2019`: to make the outputs of $x$ those of $x'$, and to give $x$ the class of $x'$.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Budgets:
    """For pairs (N,): distance, least budget for equal outputs (both ends of what is
    known), and least budget for the class of x'."""

    distance: Tensor
    equal_lower: Tensor
    equal_upper: Tensor
    of_class: Tensor


def least_budgets(net: nn.Module, x: Tensor, y: Tensor, pairs: int) -> Budgets:
    """Least budgets for pairs of correctly classified images."""
    kept = torch.nonzero(training.predict(net, x).argmax(1) == y)[:, 0]
    rows = []
    for i in range(pairs):
        a = int(kept[i])
        b = next(int(j) for j in kept[pairs + 3 * i :] if y[j] != y[a])
        equal = certificates.least_budget(net, x[a], like=x[b])
        flipped = certificates.least_budget(net, x[a], label=int(y[b]))
        apart = float((x[a] - x[b]).abs().max())
        rows.append([apart, equal.lower, equal.upper, flipped.upper])
    return Budgets(*torch.tensor(rows, dtype=torch.float64).T.contiguous())


run.load("digits", "train")  # its images train the small network
embedded_test = run.load("digits", "test")
small_name = f"digits/mlp-{'-'.join(map(str, p.exact_hidden))}/softmax"
small = network(small_name, seed=seed, device="cpu", epochs=40, lr=0.1)
pair_images = (embedded_test.x, embedded_test.y)
exact = run.once(least_budgets, small, *pair_images, pairs=p.exact_pairs)

# %% name="fig-budgets" tags=["hide-input"] mystnb={"image": {"alt": "Left: share of pairs excluded by interval bounds against the radius, falling from one to almost none, beside the share of pairs that the search matched. Right: for each pair of digits, the exact least budget for equal outputs against the exact least budget for the class; all points lie far above the diagonal."}}
_, axes = plt.subplots(1, 2, figsize=(9.4, 3.6))
look = {"markersize": 4, "color": plots.PALETTE[0]}
shut = excluded.double().mean(0)
axes[0].semilogx(budgets, shut, "-o", **look, label="excluded by interval bounds")
look = {"markersize": 4, "color": plots.PALETTE[1]}
found_close = (modulo <= 0.01).double().mean(0)
label = "matched to 1 % by the search"
axes[0].semilogx(p.match_eps, found_close, "--s", **look, label=label)
axes[0].set(xlabel=r"$\epsilon$, pixel units", ylabel="share of pairs")
axes[0].set(ylim=(-0.03, 1.03))
axes[0].legend(fontsize=8)
look = {"color": plots.PALETTE[2], "label": "pairs of digits"}
axes[1].plot(exact.of_class, exact.equal_upper, "o", **look)
edge = 1.05 * float(exact.equal_upper.max())
axes[1].plot([0, edge], [0, edge], color="grey", linewidth=0.8)
axes[1].set(xlim=(0, edge), xlabel=r"least $\epsilon$ for the class of $x'$")
axes[1].set(ylim=(0, edge), ylabel=r"least $\epsilon$ for the output of $x'$")
axes[1].legend(fontsize=8, loc="lower right")
plt.show()

# %% name="table-budgets" tags=["hide-input"]
least_of = {
    "equal outputs, median": float(exact.equal_upper.median()),
    "equal outputs, smallest": float(exact.equal_lower.min()),
    "class of x', median": float(exact.of_class.median()),
    "distance of x and x', median": float(exact.distance.median()),
}
plots.table(
    pd.DataFrame({"least budget": least_of}),
    f"Exact least budgets, {p.exact_pairs} pairs of digits, hidden layers "
    f"{list(p.exact_hidden)}",
)

# %% tags=["hide-input"]
imperceptible = budgets.index(p.match_eps[0])
run.claim(
    "zou2018.conjecture-decidable",
    pairs_refuted_by_intervals=int(excluded[:, imperceptible].sum()),
    pairs_refuted_exactly=int((exact.equal_lower > p.match_eps[0]).sum()),
    pairs_tried_by_intervals=len(excluded),
    pairs_tried_exactly=p.exact_pairs,
    smallest_exact_budget=float(exact.equal_lower.min()),
    smallest_budget_for_the_class=float(exact.of_class.min()),
)

# %% [markdown]
# ## Parallel layers
#
# Parallel pairs planted in twenty random layers, pairs that miss by a millionth, and the trained layers.

# %% tags=["hide-input"]
missed, reported = 0, 0
for trial in range(20):
    w = torch.randn(K, 32, dtype=torch.float64, generator=generator)
    i, j, k, other = torch.randperm(K, generator=generator)[:4].tolist()
    w[i] = w[j] + (0.5 + trial) * (w[k] - w[other])  # i|j parallel to k|other
    two = sorted([tuple(sorted((i, j))), tuple(sorted((k, other)))])
    missed += int(geometry.parallel_pairs(w) != (tuple(two),))
    w[i] += 1e-6 * torch.randn(32, dtype=torch.float64, generator=generator)
    reported += len(geometry.parallel_pairs(w))
wider = [model for width in p.widths if width > 1 for model in family[width]]
trained_layers = [layer(model) for model in [*(net.model for net in zoo), *wider]]
in_trained = sum(len(geometry.parallel_pairs(one.weight)) for one in trained_layers)

# %% tags=["nbval-check-output", "hide-input"]
run.claim(
    "zou2018.def2",
    planted_pairs_missed=missed,
    near_parallel_pairs_reported=reported,
    families_in_trained_layers=in_trained,
    families_of_two_classes=len(geometry.parallel_pairs(planted(2, 32, 2))),
)

# %% [markdown]
# Five classes with a parallel last layer, weights $w_k = a_k v$ with fixed $a = (-2, -1, 0, 1, 2)$ and a trained direction $v$, and the same network with a free one.
# Both are attacked towards every class, by PGD on the margin, and the successes sorted by the distance $|i - j|$ of the two classes in the order of the parallel layer.


# %% tags=["hide-input"]
ORDERED = 5


class ParallelHead(nn.Module):
    """Scores a_k (h . v) + b_k with fixed equidistant a_k: all decision boundaries are
    parallel."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        steps = torch.arange(classes) - (classes - 1) / 2
        # features are not negative: both signs are needed
        self.v = nn.Parameter((-1.0) ** torch.arange(width) / width**0.5)
        self.bias = nn.Parameter(-0.5 * steps**2)
        self.register_buffer("steps", steps)

    @property
    def weight(self) -> Tensor:
        """The class weights (m, l)."""
        return self.steps[:, None] * self.v

    def forward(self, h: Tensor) -> Tensor:
        """Scores (N, m) of features (N, l)."""
        return h @ self.weight.T + self.bias


def only(source: data.ImageData, classes: int, most: int) -> data.ImageData:
    """The images of the first classes."""
    index = torch.nonzero(source.y < classes)[:, 0][:most]
    x, y, names = source.x[index], source.y[index], source.classes[:classes]
    return data.ImageData(x, y, names, source.name, source.split, source.sha256)


five = only(images, ORDERED, p.width_train)
five_test = only(images_test, ORDERED, p.attack_images)
five_name = f"{p.images_data}:0,1,2,3,4/mlp-64-32/softmax"
five_told = {"epochs": 2 * p.epochs, "lr": p.lr / 2}


def parallel_network(s: int) -> nn.Module:
    """A network of five classes with a parallel last layer."""
    start = networks.untrained(five_name, seed=s)
    model = models.with_head(start, ParallelHead(32, ORDERED))
    where = {"device": run.device, "cache": run.cache, "name": f"parallel-{s}"}
    return training.fit(model, five.x, five.y, **five_told, seed=s, **where).model


parallel_nets = [parallel_network(s) for s in run.seeds]
free_nets = [
    network(five_name, seed=s, train=p.width_train, **five_told) for s in run.seeds
]


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Led:
    """Which images (R, T, N) are led to each target at each radius, and which are
    right before, (N,)."""

    hits: Tensor
    right: Tensor

    def by_distance(self, y: Tensor) -> np.ndarray:
        """Share led to a class at distance 1, 2, ...: (radii, distances)."""
        apart = (torch.arange(ORDERED)[:, None] - y).abs()
        masks = [(apart == step) & self.right for step in range(1, ORDERED)]
        return np.array([[share(hits[mask]) for mask in masks] for hits in self.hits])

    def led(self, y: Tensor, distances: tuple[int, ...], radius: int) -> Share:
        """Share of the images that are right and led to a class at such a distance."""
        apart = (torch.arange(ORDERED)[:, None] - y).abs()
        wanted = torch.isin(apart, torch.tensor(distances))
        return share((self.hits[radius].cpu() & wanted).any(0) & self.right.cpu())


def towards(
    model: nn.Module, x: Tensor, y: Tensor, *,
    radii: tuple[float, ...], losses: tuple[str, ...], seed: int, **budget: int,
) -> Led:  # fmt: skip
    """Targeted PGD for every image, target and radius, with any of the losses."""
    shape = (len(radii), ORDERED, len(x))
    # one call for all radii and targets: the images once for each
    eps = torch.tensor(radii, dtype=torch.float64, device=x.device)
    eps = eps[:, None, None].expand(shape).reshape(-1)
    target = torch.arange(ORDERED, device=x.device)
    target = target[None, :, None].expand(shape).reshape(-1)
    many = x.repeat(len(radii) * ORDERED, 1, 1, 1)
    aim = partial(attacks.pgd, model, many, target, eps, targeted=True, **budget)
    hits = [aim(loss=loss, generator=draws(seed)).success for loss in losses]
    return Led(torch.stack(hits).any(0).reshape(shape), model(x).argmax(1) == y)


@dataclass(frozen=True)
class Ordered:
    """Networks of five classes with one kind of last layer, one for each run, and where
    attacks lead."""

    kind: str
    nets: list[nn.Module]
    plain: list[Led]
    strong: list[Led]

    def by_distance(self) -> np.ndarray:
        """Success of the plain attack, (runs, radii, distances)."""
        return np.array([led.by_distance(five_test.y) for led in self.plain])


x_five, y_five = five_test.x.to(run.device), five_test.y.to(run.device)
judged = (len(p.parallel_eps) - 1) // 2
plain = {
    "radii": tuple(p.parallel_eps),
    "losses": ("margin",),
    "steps": p.pgd_steps,
}
strong = {
    "radii": (p.parallel_eps[judged],),
    "losses": ("margin", "ce"),
    "steps": 2 * p.pgd_steps,
    "restarts": 3,
}


def success(nets: list[nn.Module], budget: dict) -> list[Led]:
    """Where an attack leads, for each network."""
    told = {"seed": seed, **budget}
    return [run.once(towards, net, x_five, y_five, **told) for net in nets]


ordered = [
    Ordered(kind, nets, success(nets, plain), success(nets, strong))
    for kind, nets in (("parallel", parallel_nets), ("free", free_nets))
]

# %% name="fig-ordered" tags=["hide-input"] mystnb={"image": {"alt": "Two panels, parallel and free last layer: success of targeted attacks against the radius, one curve for each distance between the class and the target in the order of the parallel layer."}}
_, axes = plt.subplots(1, 2, figsize=(9.2, 3.5), sharey=True)
for ax, group in zip(axes, ordered, strict=True):
    for place, style in enumerate(("-", "--", ":", "-.")):
        look = {"color": plots.PALETTE[place], "style": style}
        label = f"|i - j| = {place + 1}"
        curve = group.by_distance()[:, :, place]
        plots.band(ax, p.parallel_eps, curve, label=label, **look)
    correct = np.mean([accuracy(one, five_test) for one in group.nets])
    ax.set(title=f"{group.kind} last layer, accuracy {correct:.2f}")
    ax.set(xlabel=r"$\epsilon$, pixel units", ylim=(-0.03, 1.03))
axes[0].set_ylabel("targeted success")
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# ## The second question: what survives?
#
# Members of the family under PGD at half the radius of the attacks: $l = 9$ has no adversarial direction, the widest has many, and the layers before are of the same size.
# Beside the widest stands the same network without its adversarial directions: its features are their coordinates in the row space of the centred weights.


# %% tags=["hide-input"]
def under_pgd(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, steps: int, seed: int
) -> Share:
    """Share right under PGD."""
    found = attacks.pgd(model, x, y, eps, steps=steps, generator=draws(seed))
    return share(~found.success)


NARROW, WIDE = K - 1, p.widths[-1]
eps = p.attack_eps / 2
x = images_test.x[: p.attack_images].to(run.device)
y = images_test.y[: p.attack_images].to(run.device)
robust = {
    width: [
        run.once(under_pgd, model, x, y, eps, steps=p.pgd_steps, seed=s)
        for s, model in zip(run.seeds, group, strict=True)
    ]
    for width, group in family.items()
}


def without_directions(model: nn.Module) -> nn.Module:
    """The same network without what its last layer does not see."""
    last = layer(model)
    seen = last.visible()
    drop = nn.Linear(seen.shape[1], len(seen), bias=False)
    drop.weight.data = seen.float()
    head = heads.LinearHead((last.weight @ seen.T).float(), last.bias.float())
    twin = models.Classifier(nn.Sequential(model.body, drop), head)
    return twin.to(run.device).eval()


twins = [without_directions(model) for model in family[WIDE]]
twins_robust = [
    run.once(under_pgd, model, x, y, eps, steps=p.pgd_steps, seed=s)
    for s, model in zip(run.seeds, twins, strict=True)
]

# %% name="fig-width" tags=["hide-input"] mystnb={"image": {"alt": "Clean accuracy and accuracy under PGD against the width of the last layer, with a line where the first adversarial direction appears; neither curve falls at the line."}}
_, ax = plt.subplots(figsize=(6.4, 3.4))
clean = kinds.pivot(index="seed", columns="l", values="accuracy")[list(p.widths)]
look = {"label": "clean", "color": plots.PALETTE[0]}
plots.band(ax, p.widths, clean.to_numpy(), **look)
look = {"label": rf"PGD, $\epsilon$ = {eps:g}", "color": plots.PALETTE[1]}
attacked_family = np.array([robust[size] for size in p.widths]).T
plots.band(ax, p.widths, attacked_family, style="--", **look)
ax.axvline(NARROW + 0.5, color="grey", linewidth=0.8)
ax.set(xscale="log", ylabel="accuracy", ylim=(0, 1.02))
ax.set_xlabel("l, width of the last layer (right of the line: adversarial directions)")
ax.set_xticks(p.widths, [str(size) for size in p.widths])
ax.minorticks_off()
ax.legend()
plt.show()

# %% [markdown]
# ### Today's protocol
#
# The same networks under every row of the protocol that the profile's budget grants, each with its rival as the peer for transfer.


# %% tags=["hide-input"]
def under_the_protocol(
    nets: list[nn.Module], peers: list[nn.Module], x: Tensor, y: Tensor
) -> list[evaluation.Report]:
    """Reports of the networks of the first seeds, each with its peer for transfer."""
    known = {"budget": evaluation.BUDGETS[p.protocol_budget], "once": run.once}
    chosen = run.seeds[: p.protocol_seeds]
    return [
        evaluation.evaluate(net, x, y, eps, peer=peer, seed=s, **known)
        for net, peer, s in zip(nets, peers, chosen, strict=False)
    ]


reports = {
    f"l = {NARROW}": under_the_protocol(family[NARROW], family[WIDE], x, y),
    f"l = {WIDE}": under_the_protocol(family[WIDE], family[NARROW], x, y),
    "parallel": under_the_protocol(parallel_nets, free_nets, x_five, y_five),
    "free": under_the_protocol(free_nets, parallel_nets, x_five, y_five),
}

# %% name="fig-protocol" tags=["hide-input"] mystnb={"image": {"alt": "Accuracy of the narrow, wide, parallel and free networks under each row of the protocol, and the numbers behind each flag."}}
plots.protocol(reports)
plt.show()

# %% name="table-protocol" tags=["hide-input"]
plots.table(
    evaluation.compare(reports),
    f"Accuracy at eps = {eps:g}, mean over runs (the last two on five classes)",
    digits=2,
    missing="not run",
)

# %% name="table-flags" tags=["hide-input"]
plots.table(evaluation.compare_flags(reports), "Signs of masked gradients")

# %% tags=["hide-input"]
in_order, at_will = ordered
FAR = tuple(range(2, ORDERED))


def led_to(found: list[Led], distances: tuple[int, ...], radius: int) -> list[Share]:
    """Share of the images led to a class at such a distance, for each run."""
    return [led.led(five_test.y, distances, radius) for led in found]


def worst(name: str) -> list[Share]:
    """Share right in the worst case of the protocol, for each run."""
    return [report.accuracy() for report in reports[name]]


run.claim(
    "zou2018.fig1-right",
    adjacent_success=led_to(in_order.plain, (1,), judged),
    distant_success=led_to(in_order.plain, FAR, judged),
    free_distant_success=led_to(at_will.plain, FAR, judged),
    free_adjacent_success=led_to(at_will.plain, (1,), judged),
    modern={
        "free_distant_success_strong": led_to(at_will.strong, FAR, 0),
        "distant_success_strong": led_to(in_order.strong, FAR, 0),
        "parallel_worst_accuracy": worst("parallel"),
        "free_worst_accuracy": worst("free"),
    },
)

# %% tags=["hide-input"]
run.claim(
    "zou2018.significance",
    pgd_accuracy_without_directions=twins_robust,
    wide_pgd_accuracy=robust[WIDE],
    adversarial_directions_left=sum(len(layer(twin).unseen()) for twin in twins),
    narrow_pgd_accuracy=robust[NARROW],
    narrow_worst_accuracy=worst(f"l = {NARROW}"),
    wide_worst_accuracy=worst(f"l = {WIDE}"),
)

# %% [markdown]
# ## What did not reproduce, and why
#
# The theorems hold, and one dimension is added to the first.
# What fails is the step from them to adversarial examples, which the paper calls probable and conjectures.
#
# An invisible direction is one along which the answer stays, so what lies along it gives no attack that wants another answer.
# A last layer can be replaced by one without any, and its regions can be bounded by further classes that win at no image; every image keeps its answer, and every adversarial example stays one.
# That concerns networks as they stand: whether a layer without such room is *trained* into a more robust network is another question, and the row compares only two widths.
#
# There is another kind of attack: it changes the picture until a person sees something else, while the answer stays ({cite:t}`jacobsen2019` and {cite:t}`tramer2020`: invariance-based adversarial examples).
# How far such attacks get is not measured here.
#
# The number of invisible dimensions and the reach of the regions are separate matters, too: a region is unbounded where its weight lies on the border of the hull of the weights, with or without an invisible subspace.
#
# The caption of Figure 1 speaks of parallel layers; where its row is decided for it, classes that are not adjacent are harder to reach from each other than in a free layer, and neighbours are easier to reach.
# In a parallel layer nearly everything is invisible, so whatever protects its distant classes, it is not a lack of adversarial directions.
#
# The conjecture joins two statements of very different strength.
# The class of $x'$ takes a smaller budget than its output, and where the network is small enough both budgets are exact.
# Here it was tried on grey digits only, whose classes lie far apart in pixels; on colour pictures, where the wrong class is nearer, the search was not run.
#
# What this chapter does not settle: the conjecture for networks of the size in use, which neither search nor bounds decide.
# The longer version with full proofs that the abstract points to is no longer at its address.

# %% tags=["hide-input"]
run.finish()
