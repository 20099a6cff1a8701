# %% [markdown]
# # Adversarial directions
#
# {cite:t}`zou2018` observe that the last layer of a network cannot see a whole subspace of its features: along a direction of it one may travel as far as one likes, and no output changes.
# They call such directions *adversarial*, show that every decision region reaches infinity along them, and conjecture that in most networks any image has an imperceptible neighbour with the features of any image of another class, up to such a direction.

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # quick, standard or paper: see data/profiles
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, such as {"match_steps": 200}

# %% tags=["hide-input"]
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from support import certificates, geometry, intervals, networks, training
from support.book import chapter_run, movable, plots
from support.certificates import bounds
from support.measures import draws
from support.models import heads

run = chapter_run.start(
    "03_adversarial_directions/lesson", profile, seed, device, overrides
)
p = run.profile
plots.use_style()
K = 10  # classes of scikit-learn's digits
told = {"profile": "quick", "seed": seed, "cache": run.cache, "epochs": 40, "lr": 0.1}
net = networks.get("digits/mlp/softmax", **told).requires_grad_(False)
digits = run.load("digits", "test").take(500)
x, y = digits.x, digits.y
judged = run.paper("zou2018")
verdict, found, judgement = judged.verdict, judged.found, judged.judgement


def ends(name, what):
    """Lower and upper end of the interval of a measurement, over all runs."""
    interval = judgement(name).intervals[what]
    exact = interval.low is None
    return (interval.mean,) * 2 if exact else (interval.low, interval.high)


# %% name="fig-same-answer" tags=["hide-input"] mystnb={"image": {"alt": "Seven digits, their ten probabilities, and how far the features moved where the last layer sees it and where it does not. The first five have equal probabilities and no shift that is seen; the sixth, a clean digit, and the seventh, the first one attacked, have others, and a shift that is seen."}}
weight = net.head.weight.double()
unseen = geometry.adversarial_directions(weight)
seen = torch.linalg.svd(unseen)[2][len(unseen) :]  # what is at right angles to them


def seen_shift(image, of):
    """What the layer sees of the way between two feature vectors: (9,)."""
    return seen @ (net.features(image[None])[0].double() - of)


def to_its_output(image, like, rounds=60):
    """A short way from an image to one whose output is that of another."""
    goal = net.features(like[None])[0].double()
    at = image.clone()
    for _ in range(rounds):
        slope = torch.autograd.functional.jacobian(partial(seen_shift, of=goal), at)
        slope, left = slope.flatten(1), seen_shift(at, goal)
        flat, step = at.flatten().double(), torch.zeros(at.numel()).double()
        free = torch.ones_like(flat, dtype=torch.bool)
        for _ in range(4):  # a pixel at its end stays where the step would push it out
            step[~free] = 0
            step[free] = -torch.linalg.pinv(slope[:, free].double()) @ left
            free &= ~((flat <= 0) & (step < 0) | (flat >= 1) & (step > 0))
        tried = [
            (flat + step / 2**halved).clamp(0, 1).view_as(at).to(at)
            for halved in range(6)
        ]
        at = min(tried, key=lambda image: float(seen_shift(image, goal).norm()))
    return at


with torch.no_grad():
    h, p_clean = training.extract(net, x).double(), net(x).softmax(1)
right = p_clean.argmax(1) == y
unsure = right & (p_clean.amax(1) < 0.9)
sure = right & (p_clean.amax(1) > 0.99)
apart = torch.cdist(h @ seen.T, h @ seen.T)
apart[~(unsure[:, None] & sure & (y[:, None] != y))] = torch.inf
one, other = divmod(int(apart.argmin()), len(x))
mixed = [torch.lerp(x[one], x[other], t) for t in (0.25, 0.5, 0.75, 1.0)]
way = [to_its_output(image, x[one]) for image in mixed]
attacked = x[one : one + 1]
for _ in range(10):  # as BIM does, with a budget of 0.1
    at = attacked.clone().requires_grad_()
    loss = functional.cross_entropy(net(at), y[one : one + 1])
    step = 0.02 * torch.autograd.grad(loss, at)[0].sign()
    attacked = (attacked + step).clamp(x[one] - 0.1, x[one] + 0.1).clamp(0, 1)
row = torch.stack([x[one], *way, x[other], attacked[0]])
names = ["x'", "", "", "", "x*", "x", "x' attacked"]
_, axes = plt.subplots(3, 7, figsize=(9.6, 4.3), height_ratios=(3, 1.7, 1.7))
moved = net.features(row).double() - h[one]
lengths = torch.stack([(moved @ seen.T).norm(dim=1), (moved @ unseen.T).norm(dim=1)], 1)
for place, (top, middle, bottom) in enumerate(axes.T):
    odds = net(row[place : place + 1]).softmax(1)[0]
    top.imshow(row[place, 0], cmap="gray", vmin=0, vmax=1)
    top.set_title(f"{names[place]}\n{odds.argmax()}: {odds.amax():.2f}".strip())
    top.set_axis_off()
    colours = [plots.SOFTMAX if place < 5 else plots.GAUSS] * K
    middle.bar(np.arange(K), odds, color=colours)
    middle.set(ylim=(0, 1), xticks=range(K), yticks=[0, 1] if not place else [])
    bottom.barh([1, 0], lengths[place], color=["black", "grey"])
    bottom.set(xlim=(0, 1.1 * float(lengths.max())))
    bottom.set(yticks=[1, 0], yticklabels=["seen", "unseen"] if not place else [])
    middle.tick_params(labelsize=6)
    bottom.tick_params(labelsize=7)
axes[1, 0].set_ylabel("probability", fontsize=9)
axes[2, 3].set_xlabel("how far the features are from those of x'", fontsize=9)
plt.show()
correction = float((way[-1] - x[other]).abs().max())
far, near = lengths[4], lengths[6]
run.say(
    f"From $x'$ to $x^*$ the picture changes and the output stays: "
    f"the features go {far[1]:.1f} where the layer is blind and {far[0]:.1f} where it "
    "sees. $x^*$ is made from $x$, a digit that the network is sure of, by moving no "
    f"pixel by more than {correction:.2f}. On the right is $x'$ under an ordinary "
    "attack, "
    "which moves each pixel by at most 0.1: its features go "
    f"{near[0]:.1f} where the layer sees and {near[1]:.1f} where it does not. This is "
    "the "
    f"most favourable pair: of all unsure digits (here $x'$, labelled {int(y[one])}) "
    "and sure ones of another class, the layer tells these two apart least."
)

# %% [markdown]
# The first five are what an invisible direction does: a person sees a change, the network does not; the attack does the reverse.
# And $x^*$ is both, since beside $x$ it is an adversarial example, though a visible one: a changed $x$ with all the probabilities of $x'$.
# How small such a change can be is what the conjecture is about.
#
# ## What we found
#
# A layer has $l$ features and $m$ classes. *Invisible* is a direction of the features along which no output changes, a *region* is where one class wins, and PGD is an attack of many steps.

# %% tags=["hide-input"]
size, small_eps = p.images_data.replace("mnist", "MNIST"), p.match_eps[0]
open_below, bounded_below = (
    found("all-unbounded", f"{kind}_regions_with_l_below_m")
    for kind in ("unbounded", "bounded")
)
better, of_all = (
    found("premise", f"share_of_{which}")
    for which in ("the_better_half_up_to_2018", "all")
)
empty_below = sum(width < K for width in p.widths) * K * p.seeds
empty_below -= open_below + bounded_below
refuted, tried, least_equal, least_class = (
    found("conjecture-decidable", name)
    for name in (
        "pairs_refuted_exactly", "pairs_tried_exactly", "smallest_exact_budget",
        "smallest_budget_for_the_class",
    )
)  # fmt: skip
matched, misled, targeted = (
    found("conjecture", f"share_{name}")
    for name in ("matched", "misclassified", "targeted")
)
without, wide = (
    found("significance", name)
    for name in ("pgd_accuracy_without_directions", "wide_pgd_accuracy")
)
beside, distant, free_beside, free_distant = (
    found("fig1-right", f"{name}_success")
    for name in ("adjacent", "distant", "free_adjacent", "free_distant")
)
run.say(
    "- The invisible directions form a subspace, as Theorem 1 says, of dimension at "
    f"least $l - m$ {verdict('thm1')}; exactly it is $l - m + 1$ for weights in "
    "general "
    f"position (no accidental dependence). {verdict('thm1-sharp')} That $l > m$ holds "
    f"for {better:.0%} of "
    f"the more accurate half of torchvision's architectures up to 2018, and for "
    f"{of_all:.0%} of all that it has today. "
    f"{verdict('premise')}\n"
    "- Every region reaches infinity along such a direction, with the same output. "
    f"{verdict('thm2')} But it needs none to reach infinity: of the regions of trained "
    f"layers with $l < m$, which see every direction, {open_below:.0f} do and "
    f"{bounded_below:.0f} do not. That a bounded one needs $l < m$, the paper says. "
    f"{verdict('all-unbounded')}\n"
    f"- The conjecture: where each pixel may move by {small_eps:g} of its range, a "
    f"search gives {matched:.1%} of the images the features of another, up to an "
    f"invisible direction, and an attack {targeted:.1%} the class. "
    f"{verdict('conjecture')} On a network that is small enough to decide it, "
    f"{refuted:.0f} of {tried:.0f} pairs are refuted: the "
    f"output of another image takes {least_equal:.2f} or more, its class "
    f"{least_class:.2f} or more. "
    f"{verdict('conjecture-decidable')}\n"
    "- The subspace by itself decides nothing about robustness: it can be taken out of "
    "a trained network without a change of any output. "
    f"Under PGD {wide:.1%} of the images stay right "
    f"with it and {without:.1%} without: is a network less prone without it? "
    f"{verdict('significance')}\n"
    "- In a *parallel* layer (regions like stripes) an attack reaches a class not "
    f"adjacent from {distant:.0%} of the images, in a free one from {free_distant:.0%} "
    f"{verdict('fig1-right')}, and a neighbour from {beside:.0%} and {free_beside:.0%}."
)

# %% [markdown]
# ## What can the last layer not see?
#
# Take two classes and features $h$ in the plane, with scores $z_1 = h^\top w_1$ and $z_2 = h^\top w_2$.
# The softmax $S(z)_k = e^{z_k} / \sum_j e^{z_j}$ depends on $z_1 - z_2 = h^\top (w_1 - w_2)$ alone.
# So it cannot see a step at right angles to $w_1 - w_2$, however long.
# Does one find it in the null space of the weights, which leaves the *scores* as they are?


# %% tags=["nbval-check-output"]
def null_space(matrix):
    """Orthonormal rows that a matrix maps to zero."""
    _, size, rows = torch.linalg.svd(matrix)
    return rows[int((size > 1e-10 * size[0]).sum()) :]


w = torch.tensor([[2.0, 0.5], [-1.0, 1.5]], dtype=torch.float64)  # two class weights
h2 = torch.tensor([0.6, 0.4], dtype=torch.float64)  # the features of one image
print("invisible to the scores:", len(null_space(w)))
(d,) = null_space(w - w.mean(0))
for theta in (0.0, 1.0, 10.0):
    z = (h2 + theta * d.sign()[1] * d) @ w.T
    probabilities = z.softmax(0).numpy().round(3)
    print(f"theta {theta:4}: scores {z.numpy().round(2)}, softmax {probabilities}")

# %% [markdown]
# No, it holds none, and yet there is one: along it both scores rise by the same amount, which the softmax ignores.
# The mean weight has to be taken out first.
#
# ```{prf:definition} Adversarial direction
# :label: def-adversarial-direction
#
# Let a layer have weights $W \in \mathbb{R}^{m \times l}$, one row $w_k$ for each of the $m$ classes, and biases $b$ (the paper writes $W^\top h$ for our $Wh$).
# A direction $d \neq 0$ is *adversarial* at $h \in \mathbb{R}^l$ if $S(W(h + \theta d) + b) = S(Wh + b)$ for all $\theta \in \mathbb{R}$.
# ```
#
# ```{prf:theorem} Invisible subspace
# :label: thm-invisible
#
# The adversarial directions of a softmax layer, together with 0, are the null space of the centred weights $\tilde W = W - \mathbf{1} \bar w^\top$, where $\bar w$ is the mean row and $\mathbf{1} = (1, \dots, 1)$.
# Its dimension is $l - \operatorname{rank} \tilde W \geq l - m + 1$.
# ```
#
# ```{prf:proof}
# Two vectors of scores have the same softmax exactly if they differ by a multiple of $\mathbf{1}$, so $d$ is adversarial exactly if $Wd = c\,\mathbf{1}$ for some number $c$; neither $h$ nor $b$ nor $\theta$ matters.
# Then $c = \bar w^\top d$, which says $\tilde W d = 0$.
# The rows of $\tilde W$ sum to zero, so its rank is at most $m - 1$.
# ```
#
# Theorem 1 of the paper has $\dim \geq l - m$, which is true, and one short.
# The missing direction is the only one that moves the scores, and other heads feel it.
# softRmax (chapter 2) compares the distances of $z$ to the unit vectors and tends to $1/m$ along it; its own invisible space is the null space of $W$.
# A Gauss head (chapter 1) has confidences $\exp(-\gamma \lVert h - c_k \rVert^2)$ that vanish far from the centres $c_k$ in *every* direction.
#
# Turn the direction and travel: all three heads read the same two vectors, as weights or as centres.

# %% tags=["hide-input"]
ANGLES, THETAS = np.arange(0, 180, 15), np.arange(-8, 8.5, 1.0)
across = functional.normalize(w[0] - w[1], dim=0)
upwards = torch.stack([-across[1], across[0]])
FINE = torch.linspace(-8, 8, 129, dtype=torch.float64)
PLANE = {"xlim": (-9, 9), "ylim": (-7, 7)}


def of_own_class(at):
    """Confidences (3, N) in class 1 of softmax, softRmax and Gauss at (N, 2)."""
    z, apart = at @ w.T, torch.cdist(at, w).square()
    found = z.softmax(1), heads.softrmax(z), (-0.1 * apart).exp()
    return torch.stack([part[:, 0] for part in found])


def travelled(angle, theta):
    """The plane and the three confidences after a way theta."""
    turn = math.radians(angle)
    way = math.cos(turn) * across + math.sin(turn) * upwards
    line, at = h2 + FINE[:, None] * way, (h2 + theta * way)[None]
    edge = torch.stack([-12 * upwards, 12 * upwards])
    plane = [
        movable.Mark(
            "line", *edge.T.tolist(), "#555555", "boundary of the softmax", ":"
        ),
        movable.Mark("line", *line.T.tolist(), "#999999"),
        movable.Mark("dots", *w.T.tolist(), "#000000", "w1 and w2"),
        movable.Mark("dots", *h2[:, None].tolist(), plots.FOURTH, "h"),
    ]
    if theta:
        ends_at = torch.stack([h2, at[0]]).T.tolist()
        plane.append(movable.Mark("arrow", *ends_at, plots.FOURTH))
    curves, told = [], []
    start, here = of_own_class(h2[None])[:, 0], of_own_class(at)[:, 0]
    for name, curve, before, after, colour, style in zip(
        ("softmax", "softRmax", "Gauss"), of_own_class(line), start, here,
        (plots.SOFTMAX, plots.THIRD, plots.GAUSS), ("-", "--", ":"), strict=True,
    ):  # fmt: skip
        curves.append(
            movable.Mark("line", FINE.tolist(), curve.tolist(), colour, name, style)
        )
        curves.append(movable.Mark("dots", [theta], [float(after)], colour))
        told.append(f"{name} {before:.2f} → {after:.2f}")
    z = (at @ w.T)[0].tolist()
    return movable.State(
        [plane, curves],
        f"At {angle}° to w1 − w2, after {theta:g}: scores {z[0]:.1f} and {z[1]:.1f}; "
        f"confidence in class 1: {', '.join(told)}.".replace("-", "−"),
    )


movable.show(
    [
        movable.Slider("angle", "angle to w1 − w2", ANGLES.tolist(), 3, ".0f"),
        movable.Slider("theta", "θ, how far", THETAS.tolist(), 12),
    ],
    [
        movable.Panel("h1", "h2", **PLANE, title="Features"),
        movable.Panel(
            "θ", "confidence in class 1", (-8, 8), (0, 1.03), "Along the direction"
        ),
    ],
    travelled,
    alt="Left, the plane of two features with the two weights, the boundary of the "
    "softmax and a way from h. Right, the confidence of softmax, softRmax and Gauss in "
    "class 1 along it. The softmax curve runs between zero and one, and is flat only "
    "where "
    "the way is parallel to the boundary, at 90 degrees; the other two are flat "
    "nowhere.",
)

# %% [markdown]
# At 90°, along the boundary, the softmax stands still, softRmax tends to one half, and the Gauss confidence to zero.
# At every other angle all three change.
#
# A trained network has many more directions: ours has 64 features for ten classes.
# "All $\theta$" is exact only on paper, for a computer rounds $h + \theta d$, and the rounding does not lie in the null space.
# `support.geometry.rounding_bound` says how far it can move an output: about as far as $\theta$, the unit roundoff and the weights multiplied.

# %%
weight, bias = net.head.weight.double(), net.head.bias.double()
unseen = null_space(weight - weight.mean(0))
print(f"{len(unseen)} invisible directions, {len(null_space(weight))} keep all scores")
anywhere = functional.normalize(torch.randn(64, generator=draws(0)), dim=0).double()
output = (h @ weight.T + bias).softmax(1)
for theta in (1.0, 1e6):
    for name, d in (("invisible", unseen[0]), ("random", anywhere)):
        moved = ((h + theta * d) @ weight.T + bias).softmax(1) - output
        print(f"theta {theta:.0e}, {name}: {moved.abs().max():.0e}", end="; ")
    print(f"bound {geometry.rounding_bound(weight, bias, h, theta).max():.0e}")

# %% tags=["hide-input"]
run.say(
    "The largest change of a probability, over 500 digits, is rounding along an "
    "invisible direction. In the evidence, up to $\\theta = 10^9$ and over all "
    "networks, a probability moves by more than the bound "
    f"{found('def1', 'changes_beyond_rounding'):.0f} times. {verdict('def1')}"
)

# %% [markdown]
# ## Is unbounded the same as invisible?
#
# The *region* of class $k$ is the set of features at which its score is the largest, an intersection of half-spaces $(w_k - w_j)^\top h + b_k - b_j > 0$.
# Theorem 2 of the paper says that with an adversarial direction every region reaches infinity with the same output, and its Figure 1 shows a bounded region where $l < m$.
# But when does a region end?
# Who walks from inside in a direction $d$ stays inside for ever if no rival gains, $(w_k - w_j)^\top d \geq 0$ for all $j$: if no weight lies farther along $d$ than $w_k$.
# For a weight *inside* the hull of the others there is no such $d$.
#
# ```{prf:theorem} Bounded regions
# :label: thm-bounded
#
# A region that is not empty is bounded if and only if $w_k$ lies in the interior of the convex hull of $w_1, \dots, w_m$.
# Then $l \leq m - 2$, there is no adversarial direction, and the biases are not all equal.
# ```
#
# ```{prf:proof}
# A non-empty intersection of half-spaces is unbounded exactly if some $d \neq 0$ has $(w_k - w_j)^\top d \geq 0$ for all $j$.
# Such a $d$ is the normal of a hyperplane through $w_k$ with all weights on one side, and there is one exactly if $w_k$ is not an interior point of the hull.
# A hull with an interior needs $l + 1$ corners besides $w_k$, and the differences of weights then span $\mathbb{R}^l$, so that the null space is zero.
# With equal biases, scaling the features keeps the winner.
# ```
#
# Move the weight of a seventh class through a hexagon of six, and its bias.

# %% tags=["hide-input"]
turns = torch.arange(6, dtype=torch.float64) * math.pi / 3
hexagon = torch.stack([turns.cos(), turns.sin()], 1)
PLACES = np.arange(0, 1.31, 0.1).round(1)
BIASES = np.arange(-0.5, 1.6, 0.25)
EDGE = math.sqrt(0.75) / math.cos(math.pi / 6 - 0.5)  # where the hull ends
heading = torch.tensor([math.cos(0.5), math.sin(0.5)], dtype=torch.float64)
FRAME = np.array([[-4.0, -3], [4, -3], [4, 3], [-4, 3]])


def clipped(corners, normal, offset):
    """The part of a convex polygon (N, 2) where normal . h + offset >= 0."""
    kept, heights = [], corners @ normal + offset
    for place in range(len(corners)):
        a, b, up, after = (
            part[(place + step) % len(corners)]
            for part in (corners, heights)
            for step in (0, 1)
        )
        kept += [a] if up >= 0 else []
        if (up >= 0) != (after >= 0):
            kept.append(a + up / (up - after) * (b - a))
    return np.array(kept).reshape(-1, 2)


def seven(place, lift):
    """Weights and regions with the seventh class at a place, with a bias."""
    weights = torch.cat([hexagon, place * heading[None]])
    biases = torch.tensor([0.0] * 6 + [lift], dtype=torch.float64)
    panels = [[], []]
    ring = torch.cat([hexagon, hexagon[:1]]).T.tolist()
    panels[0] += [movable.Mark("line", *ring, "#555555", "hull of the six", ":")]
    for k, colour in enumerate((*plots.PALETTE[:6], "#000000")):
        polygon = FRAME
        for j in set(range(7)) - {k}:
            normal = (weights[k] - weights[j]).numpy()
            if len(polygon):
                polygon = clipped(polygon, normal, float(biases[k] - biases[j]))
        name = "seventh class" if k == 6 else ""
        spot = movable.Mark("dots", *weights[k : k + 1].T.tolist(), colour, name)
        panels[0].append(spot)
        if len(polygon) > 2:
            panels[1].append(movable.Mark("area", *polygon.T.tolist(), colour))
    kind = geometry.region(weights, biases, 6).kind
    where = "inside" if place < EDGE else "outside"
    hidden = kind != "empty" and len(polygon) < 3  # the last polygon is the seventh's
    return movable.State(
        panels,
        f"The seventh weight lies {where} the hull of the six, its bias is {lift:g}: "
        "its "
        f"region is {kind}{', and lies beyond the frame' if hidden else ''}.",
    )


movable.show(
    [
        movable.Slider("place", "how far out its weight is", PLACES.tolist(), 2, ".1f"),
        movable.Slider("lift", "its bias", BIASES.tolist(), 6),
    ],
    [
        movable.Panel("w1", "w2", (-2, 2), (-1.5, 1.5), "Weights of seven classes"),
        movable.Panel("h1", "h2", (-4, 4), (-3, 3), "Regions of their features"),
    ],
    seven,
    alt="Left, six weights at the corners of a hexagon and a seventh one. Right, the "
    "regions of the seven classes in the plane of two features. With the seventh "
    "weight "
    "inside the hexagon its region is a polygon in the middle, or empty if the bias is "
    "small; outside, the region opens to infinity, and may lie beyond the frame.",
)

# %% [markdown]
# Inside the hull the bias decides whether there is a region, and the region ends; outside there always is one, and it does not.
# The layer in the figure has no invisible direction at all, and six of its regions reach infinity whatever the sliders say.
#
# So unbounded is the weaker property, and the common one: every weight at a corner of the hull has it.
# From $l = m - 1$ on, weights in general position are all corners; below that we count.

# %% tags=["hide-input"]
narrow = [width for width in p.widths if width < K]
run.say(
    f"In the evidence, networks with {', '.join(map(str, narrow))} features for ten "
    f"classes have no invisible direction; {open_below:.0f} of their regions reach "
    f"infinity, {bounded_below:.0f} are bounded and {empty_below:.0f} empty. With more "
    "features than classes "
    f"{found('all-unbounded', 'bounded_regions_with_l_above_m'):.0f} are bounded. "
    f"{verdict('all-unbounded')} The paper's bounded region exists as drawn, if the "
    "layer "
    f"has a bias. {verdict('fig1-left')}"
)

# %% [markdown]
# ## Is the invisible subspace used?
#
# The paper treats features in all of $\mathbb{R}^l$.
# Features of images form a bounded set, since images do, so that "infinitely far" is said of the layer and never of images.
# And after a ReLU none is negative: does any direction stay among such features, at least as a ray?
#
# ```{prf:theorem} Rays in the orthant
# :label: thm-orthant
#
# For $h \geq 0$, $h + \theta d \geq 0$ for all $\theta \geq 0$ if and only if $d \geq 0$; for all $\theta \in \mathbb{R}$ only if $d = 0$.
# If the $l$ columns of $\tilde W$ are independent, symmetric about zero and in general position in $m - 1$ dimensions, some $d \geq 0$, $d \neq 0$ has $\tilde W d = 0$ with probability $P(l, m) = 1 - 2^{1-l} \sum_{i=0}^{m-2} \binom{l-1}{i}$, which is one half at $l = 2(m - 1)$.
# ```
#
# ```{prf:proof}
# The first half is read off each coordinate.
# By Gordan's theorem there is no such $d$ exactly if all columns lie in one open half-space, whose probability is Wendel's formula {cite:p}`wendel1962`.
# ```
#
# A subspace can be there and hold nothing.
# What share of the squared length lies in it: of the features about their mean, about their class means, and of the shift that an attack causes (FGSM takes one step, PGD many)?
# A random direction gives the share of dimensions (upright bars).

# %% tags=["hide-input"] mystnb={"image": {"alt": "For each network and head, markers for the share of squared length in the null space: of a random direction, of the features about their mean, of the features within classes, and of the shifts caused by FGSM and PGD."}}
run.show("fig-shares")
rays, layers = (
    found("relu-cone", f"networks_of_the_zoo{end}") for end in ("_with_a_ray", "")
)
shares = run.evidence.kept["shares"]
before, after = (
    {name: "none" if part is None else f"{part:.0%}" for name, part in group.items()}
    for group in (shares["untrained"], shares["trained"])
)
low, high = ends("wide-range", "pgd_share_above_noise")
less = (
    "less than"
    if high < 0
    else "more than"
    if low > 0
    else "not decidedly another than"
)
run.say(
    "In the main networks, of which the first row is one, the share of the features "
    "is "
    f"{before['features']} before training and {after['features']} after it, where "
    f"chance has {after['random']}"
    + (
        ": most of what differs between images ends where the layer can read it. "
        if shares["trained"]["features"] < 0.5
        else ". "
    )
    + f"Of the shift by PGD {after['pgd']} lies there, {less} of the shift by noise of "
    f"the same size ({after['noise']}). An attack follows a gradient that comes "
    "through "
    "the layer, so it starts with what the layer sees. Do the directions open a “wide "
    f"range” for adversarial examples, as the paper says? {verdict('wide-range')} Of "
    "the "
    f"networks of the figure {rays:.0f} of {layers:.0f} have a ray in the orthant "
    f"{verdict('relu-cone')}, as random layers would: $P(64, 10)$ is "
    f"{geometry.cone_probability(64, K):.4f}."
)

# %% [markdown]
# ## Can any two images share their features?
#
# ```{prf:conjecture} Universality of adversarial examples
# :label: conj-universality
#
# For most $g$ and most layers that are not parallel, and for *any* $(x, y)$ and $(x', y')$ with $y \neq y'$, there is an $x^*$ with $\lVert x^* - x \rVert \leq \epsilon$, imperceptible, and an adversarial direction $d'$ with $g(x^*) = g(x') + \theta d'$.
# ```
#
# Here $g(x) = h$ are the features of an image.
# By {prf:ref}`thm-invisible` the last equation says $\tilde W g(x^*) = \tilde W g(x')$, and this is the same as *equal softmax outputs*.
# So the subspace turns a request for $l$ equal features into one for $m - 1$ equal numbers.
# This is less than all features and much more than a wrong class: every single probability of $x'$ is to be met.
#
# A search for $x^*$ descends the distance of the features, seen through the rows $V$ that span the visible directions.
# Its steps shrink, as steps of one length come no nearer than their length.


# %%
def nearest(model, view, x, goal, eps, steps=200):
    """How near features within eps of x come to a goal, through a view: (N,)."""
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    at, least = x, torch.full((len(x),), torch.inf)
    for step in range(steps):
        at = at.detach().requires_grad_()
        apart = ((model.features(at) - goal) @ view.T).norm(dim=1)
        (slope,) = torch.autograd.grad(apart.sum(), at)
        least = torch.minimum(least, apart.detach())
        length = eps / 4 * 1000 ** (-step / steps)
        at = (at - length * slope.sign()).clamp(low, high)
    return least


# %% [markdown]
# A search that comes close has found $x^*$; one that does not has shown nothing.
# The other half of the question needs a proof, and equal outputs make one possible.
# Send the whole ball of images within $\epsilon$ of $x$ through the network as an interval, layer by layer {cite:p}`gowal2019`: if a single centred score of $x'$ (a score minus the mean score) lies outside the interval around $x$, no image of the ball has the output of $x'$.
#
# Between the two lies what stays open, unless the network is small.
# With 12 hidden ReLUs the least $\epsilon$ is the solution of a mixed integer programme {cite:p}`tjeng2019`, exact up to rounding.
# We take such a network, which has $12 - 10 + 1 = 3$ invisible directions, and twelve pairs of digits that it gets right.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Twelve pairs of digits along epsilon: grey where interval bounds exclude equal outputs, a black dot at the exact least epsilon for them, a blue triangle where the search first finds them, an orange cross, left of the dot, at the exact least epsilon for the class of the other image."}}
PAIRS, GRID = 12, torch.arange(1, 41) / 40
small = networks.get("digits/mlp-12/softmax", **told).requires_grad_(False)
layer = small.head.weight.double()
blind = null_space(layer - layer.mean(0))
view = torch.linalg.svd(blind)[2][len(blind) :].float()
good = torch.nonzero(small(x).argmax(1) == y)[:, 0].tolist()
firsts = good[:PAIRS]
seconds = [
    next(j for j in good[PAIRS + place :] if y[j] != y[i])
    for place, i in enumerate(firsts)
]
goal = small.features(x[seconds])
start = ((small.features(x[firsts]) - goal) @ view.T).norm(dim=1)
wanted = small(x[seconds]).double()
wanted = wanted - wanted.mean(1, keepdim=True)
excluded, matched_at = torch.zeros(PAIRS), torch.full((PAIRS,), torch.nan)
for eps in torch.arange(1, 251) / 500:
    low, high = certificates.centred_score_bounds(small, x[firsts], float(eps))
    out = ((wanted < low - 1e-6) | (wanted > high + 1e-6)).any(1)
    excluded[out] = eps
for eps in GRID:
    todo = torch.nonzero(matched_at.isnan())[:, 0]
    if len(todo):
        here = torch.tensor(firsts)[todo]
        left = nearest(small, view, x[here], goal[todo], float(eps))
        matched_at[todo[left < 0.01 * start[todo]]] = eps
equal = [
    certificates.least_budget(small, x[i], like=x[j])
    for i, j in zip(firsts, seconds, strict=True)
]
of_class = [
    certificates.least_budget(small, x[i], label=int(y[j])).upper
    for i, j in zip(firsts, seconds, strict=True)
]
exact = np.array([budget.lower for budget in equal])
order = exact.argsort()
_, ax = plt.subplots(figsize=(8.4, 3.4))
for place, pair in enumerate(order):
    edge = float(excluded[pair])
    ax.plot([0, edge], [place, place], color="grey", linewidth=5, solid_capstyle="butt",
            label="" if place else "excluded by intervals")  # fmt: skip
marks = (
    (np.array(of_class), "X", plots.GAUSS, "class of x', exact"),
    (exact, "o", "black", "output of x', exact"),
    (matched_at.numpy(), "<", plots.SOFTMAX, "output of x', found by the search"),
)
for values, marker, colour, label in marks:
    ax.plot(values[order], range(PAIRS), marker, color=colour, label=label)
ax.axvline(small_eps, color="black", linewidth=1, linestyle=":")
ax.set_yticks(range(PAIRS), [f"{y[firsts[i]]} to {y[seconds[i]]}" for i in order])
ax.tick_params(axis="y", labelsize=8)
ax.set(xlabel=r"$\epsilon$, in units of the pixel range", xlim=(0, None))
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
plt.show()
factor, late = exact / np.array(of_class), matched_at.numpy() - exact
run.say(
    f"Equal outputs take a change of {exact.min():.2f} to {exact.max():.2f} of the "
    "pixel "
    f"range, {factor.min():.1f} to {factor.max():.1f} times what the class alone "
    "takes. "
    f"At the dotted line, {small_eps:g}, which the chapter calls imperceptible, the "
    f"conjecture fails for {(exact > small_eps).sum()} of {PAIRS} pairs. The search, "
    f"in steps of {float(GRID[0]):g}, first succeeds {np.nanmedian(late):.2f} above "
    "the truth in the median, at worst "
    f"{np.nanmax(late):.2f}; the intervals exclude up to {float(excluded.min()):.2f} "
    "to "
    f"{float(excluded.max()):.2f}."
)
left, left_whole = (
    found("conjecture", f"median_distance_left{end}")
    for end in ("", "_without_quotient")
)
matched_far, targeted_far = (
    found("conjecture", f"share_{name}_at_the_largest_radius")
    for name in ("matched", "targeted")
)
by_intervals, bounded_pairs = (
    found("conjecture-decidable", f"pairs_{name}_by_intervals")
    for name in ("refuted", "tried")
)
run.say(
    "For larger networks the programme takes too long, and the evidence searches and "
    f"bounds. On {size}, at {small_eps:g}, the search leaves {left:.3f} of the "
    "distance at the "
    f"start, and {left_whole:.3f} if it must meet all features: to be free in the "
    f"invisible subspace saves little there. {matched:.1%} of the pairs are matched to "
    "1 %, "
    f"{misled:.1%} get the class of $x'$ by it and {targeted:.1%} by an attack that "
    "wants "
    f"only the class. At {p.match_eps[-1]:g} the attack reaches the class for "
    f"{targeted_far:.0%}, and the search matches {matched_far:.1%}. "
    f"{verdict('conjecture')} At {small_eps:g} intervals exclude {by_intervals:.0f} of "
    f"{bounded_pairs:.0f} pairs of a larger network, and the exact programme "
    f"{refuted:.0f} of {tried:.0f} of a small one. {verdict('conjecture-decidable')}"
)

# %% [markdown]
# The conjecture deserves a split verdict.
# "For any data pair" is false for every network on which one pair is refuted.
# "For most $g$" makes it immune to any finite number of networks, and "imperceptible" to any number $\epsilon$.
# And digits are a hard case for it: their classes lie so far apart in pixels that at this radius even the class is rarely reached.
#
# ## What has it to do with robustness?
#
# That regions are unbounded is, for the paper, "probably leading to the universality of adversarial examples combined with the non-linear preceding layers".
# To compare a wide last layer with a narrow one does not tell, since width changes more than the subspace.
# An exact argument does: change the subspace, or the reach of the regions, and no image's answer.
#
# ```{prf:theorem} Neither the subspace nor the reach changes an answer
# :label: thm-no-cause
#
# Let the features $g(x)$ of all images be bounded, and let the rows of $V$ be an orthonormal basis of the row space of $\tilde W$.
#
# 1. The network with features $Vg$, weights $WV^\top$ and biases $b$ has the same softmax output at every image, and no adversarial direction.
# 2. For every $\delta > 0$ one can add $2l$ classes that win at no image, so that every region that holds an image is bounded, no adversarial direction is left, and no output at an image changes by more than $\delta$.
# ```
#
# ```{prf:proof}
# $h - V^\top V h$ lies in the null space of $\tilde W$, so $Wh$ and $WV^\top V h$ differ by a multiple of $\mathbf{1}$; and the centred weights $\tilde W V^\top$ have as many columns as rank.
# For the second, give the new classes the weights $\pm C e_i$ with the unit vectors $e_i$, $C > \max_k \lVert w_k \rVert_1$, and one bias $-B$.
# The hull of all is $\{w : \lVert w \rVert_1 \leq C\}$, with every old $w_k$ in its interior, so {prf:ref}`thm-bounded` applies.
# As features are bounded, a large $B$ keeps the new scores below all old ones at every image, by as much as one likes.
# ```
#
# Both, for the network of the picture at the head:

# %%
narrow = weight @ seen.T  # seen is V: nine rows
by_nine = (h @ seen.T @ narrow.T + bias).softmax(1)
left = len(null_space(narrow - narrow.mean(0)))

black, white = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
largest = bounds.body_bounds(net, black, white)[-1][1].max()  # over all images
steep, axes = 1.1 * weight.abs().sum(1).max(), torch.eye(64).double()
fence = torch.cat([steep * axes, -steep * axes])
low = (-2 * steep * largest - bias.abs().max() - 40).expand(128)
w_in, b_in = torch.cat([weight, fence]), torch.cat([bias, low])
behind = (h @ w_in.T + b_in).softmax(1)[:, :K]
kinds = [geometry.region(w_in, b_in, k).kind for k in range(K)]
moved = [(other - output).abs().max() for other in (by_nine, behind)]
print(f"{left} invisible directions, outputs moved by {moved[0]:.0e}")
print(f"{kinds.count('bounded')} regions bounded, outputs moved by {moved[1]:.0e}")

# %% [markdown]
# An image that fools one of these three networks fools the other two, since all give it the same answer (up to rounding).
# So no network owes its adversarial examples to the invisible directions of its last layer, or to regions that reach infinity.
# More is not shown: the blindness moves into the layers before, the old regions end beyond all images while new ones reach infinity (some region always does), and *training* without that room may lead elsewhere.

# %% tags=["hide-input"]
tight, roomy = (
    found("significance", f"{name}_worst_accuracy") for name in ("narrow", "wide")
)
run.say(
    f"The evidence attacks such a pair: {wide:.1%} of the images stay right under PGD "
    "with "
    f"{p.widths[-1]} features, and {without:.1%} with the coordinates that the layer "
    f"sees. {verdict('significance')} A network *trained* with nine features, where no "
    f"direction is invisible, keeps {tight:.0%} in the worst case of the protocol "
    f"below, against {roomy:.0%}, but that compares two networks, not two subspaces."
)

# %% [markdown]
# Another kind of attack changes the picture until a person sees something else, and the answer stays ({cite:t}`jacobsen2019` and {cite:t}`tramer2020` speak of invariance), as in the pictures at the head.
# It needs no subspace either: the network of nine features answers alike.
#
# ## Are distant classes safer?
#
# Definition 2 of the paper calls a layer *parallel* if two of its decision boundaries are, and the caption of its Figure 1 says that then classes which are not adjacent are harder to reach from each other.
# (It must mean boundaries of different pairs of classes, since two classes have only one.)
# Layers are not parallel by themselves, so we plant one and train the network around it: five classes with $w_k = a_k v$, fixed $a = (-2, -1, 0, 1, 2)$ and a trained $v$, so that class 0 borders on class 1 only.
# The control is the same network with a free last layer.
# Attacks go from every image to every class, and are sorted by $|i - j|$, the distance of the two classes in that order.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels, parallel and free last layer: success of targeted attacks against the radius, one curve for each distance between the class and the target in the order of the parallel layer."}}
run.show("fig-ordered")
radius = p.parallel_eps[(len(p.parallel_eps) - 1) // 2]
paid = (
    ends("fig1-right", "adjacent_success")[0]
    > ends("fig1-right", "free_adjacent_success")[1]
)
price = "Neighbours pay for it: they" if paid else "Neighbours"
run.say(
    f"At a radius of {radius:g} a class that is not adjacent is reached from "
    f"{distant:.0%} of the images in the parallel layer, and from {free_distant:.0%} "
    "in "
    f"the free one. {verdict('fig1-right')} {price} are reached from {beside:.0%} of "
    "the "
    f"images, against {free_beside:.0%}. The curves count pairs of image and target, "
    "these numbers images that reach one such class at least."
)

# %% [markdown]
# The parallel layer is blind in all directions but one; neighbours and distant classes share this invisible subspace, so that it does not tell them apart.
#
# ## Does it survive?
#
# One claim of the paper says that something is harder to attack, the one on parallel layers.
# Stronger attacks (two losses, more steps, more starts) put it to the test, and the protocol with which every chapter ends asks about the network as a whole.

# %% tags=["hide-input"]
SIDES = {"parallel": "", "free": "free_"}
ROWS = {
    "to a neighbour, PGD": "{}adjacent_success",
    "to a class that is not adjacent, PGD": "{}distant_success",
    "to a class that is not adjacent, stronger": "{}distant_success_strong",
}
measured = judgement("fig1-right").intervals


def shown(name):
    """A share with the ends of its interval."""
    mean, (low, high) = measured[name].mean, ends("fig1-right", name)
    return f"{mean:.0%} ({low:.0%} to {high:.0%})"


short = {
    row: [shown(name.format(side)) for side in SIDES.values()]
    for row, name in ROWS.items()
}
short["right in the worst case of the protocol"] = [
    shown(f"{side}_worst_accuracy") for side in SIDES
]
plots.table(
    pd.DataFrame(short, index=list(SIDES)).T,
    f"Reached at ε = {radius:g}, and right at ε = {p.attack_eps / 2:g}; {size}, five "
    f"classes, up to {p.attack_images} images, and the ends of 95 % intervals",
)
run.show("table-flags")
WORST = [f"{side}_worst_accuracy" for side in ("free", "parallel")]
worst = [found("fig1-right", name, True) for name in WORST]
numbers = judgement("fig1-right").numbers
gaps = map(intervals.difference, *(numbers[name] for name in WORST))
decided = min(low for low, _ in gaps) > 0
safer = {
    "survives": "under stronger attacks, too, distant classes are harder to reach",
    "weakened": "under stronger attacks distant classes are a little harder to reach",
    "broken": "under stronger attacks distant classes are not harder to reach",
}.get(
    judgement("fig1-right").survives,
    "whether distant classes are harder to reach is undecided on so few images",
)
run.say(
    "The flags are those of the two networks of different width as well. A raised one "
    "({doc}`../how_to_read` says which there are) is a warning about attacks, not "
    "about "
    f"a network. **It all comes to this:** {safer} "
    f"{verdict('fig1-right', second=True)}, "
    + (
        "and neighbours are easier; "
        if paid
        else "and neighbours are not decidedly easier; "
    )
    + f"in the worst case the parallel networks keep {worst[1]:.0%} of the answers and "
    f"the free ones {worst[0]:.0%}"
    + (". " if decided else ", too close for so few images. ")
    + "The claims about the subspace are "
    "theorems, and need not survive anything; what does not follow from them is an "
    "adversarial example."
)

# %% [markdown]
# ## What to remember
#
# - A softmax layer is blind along the null space of its *centred* weights ({prf:ref}`thm-invisible`): from $l = m$ on one dimension more than the weights' own.
# - That a region reaches infinity is another property, and the commoner one: its weight need only lie on the border of the hull ({prf:ref}`thm-bounded`).
# - What the layer cannot see changes no answer, and can be cut off without changing any ({prf:ref}`thm-no-cause`). Ask of every proposed cause of adversarial examples whether it can be taken away while the function stays.
# - A search that fails shows nothing; an enclosure can refute. Where a network is small enough, decide.
#
# **Open**: the conjecture for networks of the size in use, which neither search nor bounds decide; colour pictures, on which no pair was tried; what training does with the invisible subspace, and why.
#
# The {doc}`exercises <exercises>` let you hide in a null space, and close a region yourself.

# %% tags=["hide-input"]
run.finish()
