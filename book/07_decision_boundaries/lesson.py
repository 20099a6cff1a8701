# %% [markdown]
# # Decision boundaries
#
# An adversarial example lies just behind a *decision boundary*, the surface at which the class changes.
# The last part of {cite:t}`bell2023`, a workshop of definitions, calculations and announced questions, builds tools to measure its shape: angles of crossings, wedges of known sharpness, samples of the boundary.
# What do these tools show of a network, and what would they show of any line through any boundary?

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # quick, standard or paper: see data/profiles
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, such as {"centers": 20}

# %% tags=["hide-input"]
import copy
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from scipy.special import owens_t
from scipy.stats import norm
from torch import nn

from support import attacks, geometry, intervals, networks, training
from support.book import chapter_run, movable, plots
from support.measures import draws, mean_over, share

run = chapter_run.start(
    "07_decision_boundaries/lesson", profile, seed, device, overrides
)
plots.use_style()
bell = run.paper("bell2023")
found, verdict = bell.found, bell.verdict
KINDS = ("conv", "dense", "linear")
WORDS = {"conv": "convolutional", "dense": "fully connected", "linear": "linear"}
BODIES = {"conv": "two_convolutions", "dense": "mlp", "linear": "linear_normal"}
run.load("digits", "train")
test = run.load("digits", "test")
told = {"seed": seed, "profile": "quick", "cache": run.cache, "epochs": 12, "lr": 0.1}
nets = {
    kind: networks.get(f"digits/{body}/softmax", **told)
    for kind, body in BODIES.items()
}
right = torch.stack([training.predict(net, test.x).argmax(1) for net in nets.values()])
right = (right == test.y).all(0)
x, y = test.x[right], test.y[right]  # digits that all three networks get right
half = len(x) // 2
differ = y[:half] != y[half : 2 * half]
A, B = x[:half][differ][:100], x[half : 2 * half][differ][:100]  # pairs of two classes


def between(a, b, t):
    """Points of the way from a to b at the places t (T,)."""
    return a + torch.as_tensor(t, dtype=a.dtype)[:, None, None, None] * (b - a)


@torch.no_grad()
def classes_between(model, a, b, t):
    """The classes at these points."""
    return model(between(a, b, t)).argmax(1)


def skew(model, a, b):
    """Where the way from a to b leaves its class, and at which angle to the normal."""
    met = geometry.bisect(model, a, b)
    slope = geometry.gradient_normals(model, met.point, *met.classes.T)
    return met, geometry.incidence(b - a, slope)


# %% name="fig-ways" tags=["hide-input"] mystnb={"image": {"alt": "Three ways from one digit, with a convolutional network's answer and its confidence, and the class along each: to another digit, past other classes; to an image found by PGD; to one found by L-BFGS with little change. Above each strip: length, and angle to the boundary's normal at the black line, where the first class ends."}}
FINE = np.linspace(0, 1, 500)
classes = [classes_between(nets["conv"], a, b, FINE) for a, b in zip(A, B, strict=True)]
passing = [len(each.unique()) > 2 for each in classes]
chosen = passing.index(True) if any(passing) else 0
image, label = A[chosen : chosen + 1], y[:half][differ][chosen : chosen + 1]
with_margin = {"loss": "margin", "steps": 40, "generator": draws(seed)}
ways = {
    "to another\ndigit": B[chosen : chosen + 1],
    "PGD,\n$\\epsilon = 0.3$": attacks.pgd(
        nets["conv"], image, label, 0.3, **with_margin
    ).x_adv,
    "L-BFGS,\nleast change": attacks.lbfgs(nets["conv"], image, label).x_adv,
}
figure = plt.figure(figsize=(10.4, 4.5))
grid = figure.add_gridspec(6, 7, height_ratios=(5, 1) * 3)
for row, (words, end) in enumerate(ways.items()):
    met, degrees = skew(nets["conv"], image, end)
    length = float((end - image).norm())
    stops = between(image[0], end[0], np.linspace(0, 1, 7))
    answers = nets["conv"](stops).detach().softmax(1).max(1)
    for column, picture in enumerate(stops):
        ax = figure.add_subplot(grid[2 * row, column])
        ax.imshow(picture[0], cmap="gray", vmin=0, vmax=1)
        ax.set_axis_off()
        sure, answer = (float(part[column]) for part in answers)
        ax.set_title(f"{answer:.0f}, {sure:.2f}", fontsize=9, pad=2)
        if column == 0:
            at = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 9}
            ax.text(-0.12, 0.5, words, transform=ax.transAxes, **at)
    ax = figure.add_subplot(grid[2 * row + 1, :])
    along = classes_between(nets["conv"], image[0], end[0], FINE)
    strip = {"aspect": "auto", "extent": (0, 1, 0, 1), "cmap": "tab10", "alpha": 0.45}
    ax.imshow(along[None], vmin=-0.5, vmax=9.5, interpolation="nearest", **strip)
    ends = [0, *(along.diff().nonzero()[:, 0] + 1).tolist(), len(FINE)]
    for low, high in itertools.pairwise(ends):
        if high - low > 6:
            middle = (low + high) / 2 / len(FINE)
            ax.text(middle, 0.45, int(along[low]), ha="center", va="center")
    ax.axvline(float(met.t), color="black", linewidth=2)
    ax.set(yticks=[], xticks=[], ylabel="class")
    degree = f"length {length:.2f}, {float(degrees):.0f} degrees to the normal"
    ax.set_title(degree, fontsize=9, pad=2)
plt.show()

# %% [markdown]
# ## What we found
#
# The *persistence* of a point is the largest strength of Gaussian noise under which it keeps its class with a probability of at least $\gamma$, here 0.7 ({doc}`chapter 5 <../05_persistence/lesson>`).


# %% tags=["hide-input"]
def by_kind(name: str, what: str, form: str = ".0f") -> str:
    """A number of the convolutional and of the fully connected network."""
    return " and ".join(format(found(name, f"{k}_{what}"), form) for k in KINDS[:2])


dimensions = run.profile.delaunay_dimensions
where = run.profile.data.replace("mnist", "MNIST")
run.say(
    "- In the picture with which the research began, persistence drops where a path "
    "enters an adversarial class. Does a *wedge*, a class cut out by several planes, "
    "recreate that? At equal distance, a point inside ten orthogonal faces has "
    f"{found('persistence-recreated', 'orthant_over_plane'):.0%} of the persistence "
    "beside a plane, and inside ten tipped ones "
    f"{found('persistence-recreated', 'tipped_over_plane'):.0%}: the number of faces "
    f"makes the drop, not their sharpness. {verdict('persistence-recreated')}\n"
    f"- On {where}, lines between images meet the boundaries of a convolutional and "
    "a fully connected network at "
    f"{by_kind('skewness', 'natural_degrees')} degrees to the normal (medians), those "
    "to near adversarial examples of L-BFGS at "
    f"{by_kind('skewness', 'least_degrees')}, a random direction "
    f"at {found('skewness', 'random_degrees'):.0f}. {verdict('skewness')} "
    "A *linear* network, whose boundaries are planes, has "
    f"{found('skewness', 'linear_natural_degrees'):.0f} and "
    f"{found('skewness', 'linear_least_degrees'):.0f}: the angle tells how a line was "
    "chosen.\n"
    "- Does the boundary bend? On a way as long as an image's distance from it, its "
    f"normals turn by {by_kind('curvature-radius', 'turn_degrees')} degrees. "
    f"{verdict('curvature-radius')}\n"
    "- Do normals avoid the directions in which images differ, as for a boundary that "
    "runs along the images? They hold "
    f"{by_kind('dimpled-manifold', 'normal_share', '.0%')} of their squared length in "
    f"them, a random direction {found('dimpled-manifold', 'random_share'):.0%}. "
    f"{verdict('dimpled-manifold')}\n"
    "- Does the line between two training points whose Voronoi cells share a face "
    "cross that face? "
    f"{found('delaunay-orthogonal', 'share_in_the_plane'):.0%} of them do in the "
    "plane, "
    f"{found('delaunay-orthogonal', 'share_in_most_dimensions'):.0%} in "
    f"{dimensions[-1]} dimensions. {verdict('delaunay-orthogonal')}\n"
    "- Two of the paper's three definitions of the boundary name one set, the third "
    f"another. {verdict('definitions-agree')} Projecting onto half-spaces in turn "
    f"misses the nearest point of a wedge for "
    f"{found('pocs', 'points_farther_than_nearest'):.0%} of random points. "
    f"{verdict('pocs')}"
)

# %% [markdown]
# ## How much noise falls across a boundary?
#
# A network gives scores $F(x)$, and the class is the index of the largest; the *decision boundary* is the set of points of which every ball contains two classes or more.
# The simplest one is a plane.
# Gaussian noise of standard deviation $\sigma$, in any number of dimensions, moves a point at distance $d$ across it with probability $1 - \Phi(d / \sigma)$, $\Phi$ being the normal distribution function, since only the noise along the normal counts.
# The next is a *wedge*: two half-spaces with a common edge, at an opening angle $\omega$ between their faces.
# How much more noise crosses if the wedge is sharp?
#
# ```{prf:theorem} Noise and the angle of a wedge
# :label: thm-wedge-noise
#
# Let a point lie within a wedge of opening $0 < \omega \leq \pi$, at distance $d$ from both faces, and let $a = d / \sigma$.
# The noise leaves the wedge with probability
#
# $$q = 1 - \Phi(a) + 2\, T\!\left(a, \cot \tfrac{\omega}{2}\right), \qquad T(h, c) = P(X > h,\ 0 < Y < cX)$$
#
# for independent standard normal $X$ and $Y$ (Owen's function).
# From a point outside, at distance $d$ from the edge on the prolonged bisector, it enters the wedge with probability $1 - \Phi(a) - 2\, T(a, \cot \frac{\omega}{2})$, where $a = \frac{d}{\sigma} \sin \frac{\omega}{2}$.
# ```
#
# ```{prf:proof}
# Only the noise across the edge counts, two coordinates, and the bisector divides the wedge and what is outside it into mirror images.
# So $q$ is twice the probability of leaving on the first face's side of the bisector.
# Let $X$ be the noise along this face's outward normal and $Y$ along the face towards the edge, in units of $\sigma$: the edge lies at $(a, a \cot \frac{\omega}{2})$, and this side is $Y < X \cot \frac{\omega}{2}$.
# There whoever is beyond the second face is beyond the first as well, so that outside means $X > a$, which has probability $\frac{1}{2}(1 - \Phi(a)) + T(a, \cot \frac{\omega}{2})$.
# From outside, half of the wedge is $X > a$ and $Y < -X \cot \frac{\omega}{2}$, with $X$ along the inward normal.
# ```
#
# As $\omega$ falls from $\pi$ to 0, $2\,T$ grows from 0 to $1 - \Phi(a)$.
# So at a given distance from both faces a sharp wedge loses at most *twice* as much noise as a plane.
# We compare the formula with counted noise, from inside and from outside at each opening.

# %%
noise = torch.randn(10**6, 2, generator=draws(0), dtype=torch.float64).numpy()
formula, counts = [], []
for opening in np.radians([30, 90, 150]):
    s, c = np.sin(opening / 2), np.cos(opening / 2)
    normals = np.array([[s, -c], [s, c]])  # of the two faces, inward
    for centre, a, sign in ((1 / s, 1, 1), (-1, s, -1)):  # inside, outside
        wedge = ((noise + np.array([centre, 0])) @ normals.T > 0).all(1)
        formula.append(norm.sf(a) + sign * 2 * owens_t(a, c / s))
        counts.append((~wedge if sign > 0 else wedge).mean())
print("formula", np.round(formula, 3), "\ncounted", np.round(counts, 3))

# %% [markdown]
# Move the opening and the noise; both points lie at distance 1 from the boundary.

# %% tags=["hide-input"]
GAMMA = 0.7
OPENINGS = (30, 45, 60, 75, 90, 105, 120, 150, 180)
SIGMAS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
reach = np.linspace(0.05, 4, 80)
cloud = torch.randn(60, 2, generator=draws(1)).numpy()


def crosses(side: str, degrees: float, sigma: np.ndarray | float):
    """Share of noise that crosses from a point at distance 1 on one side."""
    half_way = math.radians(degrees) / 2
    c = 1 / math.tan(half_way)
    if side == "inside":
        return norm.sf(1 / sigma) + 2 * owens_t(1 / np.asarray(sigma), c)
    a = math.sin(half_way) / np.asarray(sigma)
    return norm.sf(a) - 2 * owens_t(a, c)


def persistence(side: str, degrees: float) -> str:
    """The persistence of that point, in words where there is no end to it."""
    level = 1 - GAMMA
    if side == "outside" and degrees / 360 <= level:
        return "under noise of any strength"
    least = brentq(lambda s: float(crosses(side, degrees, s)) - level, 0.05, 1e4)
    return f"up to σ = {least:.2f}"


def at_setting(degrees: float, sigma: float) -> movable.State:
    """The wedge, two points with noise, and the shares that cross."""
    half_way = math.radians(degrees) / 2
    turn = np.linspace(-half_way, half_way, 41)
    around = [0, *(20 * np.cos(turn))], [0, *(20 * np.sin(turn))]
    points = {"inside": (1 / math.sin(half_way), 0.0), "outside": (-1.0, 0.0)}
    stays, goes = [], []
    for side, point in points.items():
        there = np.array(point) + sigma * cloud
        within = np.abs(np.arctan2(there[:, 1], there[:, 0])) < half_way
        across = within != (side == "inside")
        goes.append(there[across])
        stays.append(there[~across])
    plane = [movable.Mark("area", *around, plots.SOFTMAX, "wedge")]
    for dots, colour, words in (
        (stays, "#999999", "noise that stays"), (goes, plots.GAUSS, "crosses"),
    ):  # fmt: skip
        plane.append(movable.Mark("dots", *np.concatenate(dots).T, colour, words))
    plane.append(movable.Mark("dots", *zip(*points.values(), strict=True), "#000000"))
    level = movable.Mark("line", [0, 4], [1 - GAMMA] * 2, "#000000", "0.3", ":")
    before = movable.Mark(
        "line", reach, norm.sf(1 / reach), "#555555", "from a plane", ":"
    )
    curves, says = [level, before], []
    looks = {"inside": (plots.SOFTMAX, "-"), "outside": (plots.THIRD, "--")}
    for side, (colour, style) in looks.items():
        height = crosses(side, degrees, reach)
        words = f"from {side}"
        curves.append(movable.Mark("line", reach, height, colour, words, style))
        q = float(crosses(side, degrees, sigma))
        curves.append(movable.Mark("dots", [sigma], [q], colour))
        says.append(
            f"from {side} {q:.1%} of the noise crosses, and 70 % stays "
            f"{persistence(side, degrees)}"
        )
    return movable.State(
        [plane, curves],
        f"Opening {degrees:g} degrees, σ = {sigma:g}: {'; '.join(says)}. "
        f"From a plane: {norm.sf(1 / sigma):.1%}, up to σ = {1 / norm.ppf(GAMMA):.2f}.",
    )


movable.show(
    [
        movable.Slider("degrees", "opening, degrees", OPENINGS, OPENINGS.index(60)),
        movable.Slider("sigma", "noise σ", SIGMAS, SIGMAS.index(1.0)),
    ],
    [
        movable.Panel("across the edge", "", (-4, 7), (-4, 4), "A wedge"),
        movable.Panel("noise σ", "share that crosses", (0, 4), (0, 0.8)),
    ],
    at_setting,
    alt="Left: a wedge, and a point on either side of its edge, each in a cloud of "
    "noise; dots that cross are orange. Right: the share that crosses against the "
    "strength of the noise: from inside it is larger than "
    "from a plane, from outside smaller.",
)
q = [float(crosses("inside", degrees, 1.0)) for degrees in (180, 90, 30)]
run.say(
    f"At σ = 1, {q[0]:.1%} of the noise crosses a plane, {q[1]:.1%} leaves a right "
    f"angle and {q[2]:.1%} a wedge of 30 degrees: a second face is felt, but from a "
    "right angle on hardly how sharp it stands. From outside less crosses the sharper "
    "the wedge is, and up to an opening "
    f"of {360 * (1 - GAMMA):.0f} degrees no noise is strong enough to move 30 %."
)

# %% [markdown]
# This is the asymmetry that the paper looks for: *persistence is small inside a wedge, large outside, and the same on both sides of a plane*.
# To lose still more noise takes more faces.
# Inside $k$ orthogonal ones noise stays with probability $\Phi(a)^k$; and at whatever angles $k$ faces stand, at most $k\,(1 - \Phi(a))$ of it leaves.

# %% tags=["hide-input"]
tipped = [
    found("persistence-recreated", f"tipped_over_untipped_{k}_faces") - 1
    for k in (2, 3, 10)
]
ten = 1 / norm.ppf(1 - (1 - GAMMA) / 10), 1 / norm.ppf(GAMMA**0.1)
run.say(
    "So at distance 1 ten faces leave a persistence of "
    f"{ten[0]:.2f} at least, and orthogonal ones have {ten[1]:.2f}, where a plane has "
    f"{1 / norm.ppf(GAMMA):.2f}. In the paper's wedges all faces but the first are "
    "tipped by an angle. Tipping by 75 degrees changes the persistence of two faces by "
    f"{tipped[0]:+.0%}, of three by {tipped[1]:+.0%}, of ten by {tipped[2]:+.0%}: many "
    f"tipped faces are nearly one. {verdict('persistence-recreated')}"
)
run.say(
    "A remark on the definition: the paper also takes the closure of all points that "
    "are not in the interior of a class, which by negation is the same set, and the "
    "points where two probabilities are equal and all others smaller, which is another "
    "one: without points where three classes meet, and with places where two scores "
    f"touch and do not cross. {verdict('definitions-agree')}"
)

# %% [markdown]
# ## How does one find a crossing?
#
# Halve a segment whose ends have two classes, keep the half on which the first class ends, and repeat.
# The normal there is the gradient of the gap between the two scores, and the *angle of incidence* is the angle between line and normal.


# %%
def bisect(classify, a, b, halvings=40):
    """Place t on the way from a to b up to which a's class was seen to reach."""
    near, width, own = 0.0, 1.0, classify(a)
    for _ in range(halvings):
        width /= 2
        if classify(a + (near + width) * (b - a)) == own:
            near += width
    return near


def normal(scores, point, own, other):
    """Unit normal of the boundary between two classes, into the first."""
    at = point.clone().requires_grad_()
    gap = scores(at)[own] - scores(at)[other]
    (slope,) = torch.autograd.grad(gap, at)
    return slope / slope.norm()


# %% [markdown]
# On a wedge we know the answers.
# The line from $(2, 0.5)$ in the direction $(-1, -1)$ crosses the face $x_2 = 0$ of a 60-degree wedge half-way to $(1, -0.5)$, at 45 degrees, and a line that crosses the other face has another normal: the angle between the two normals is 180 degrees less the opening.

# %%
faces = torch.tensor([[0, 1], [math.sqrt(3) / 2, -0.5]], dtype=torch.float64)


def wedge(point):
    """Scores: the least distance to a face, positive inside, and its opposite."""
    inside = (faces @ point).amin()
    return torch.stack([inside, -inside])


def angle(one, other):  # degrees
    return torch.rad2deg(torch.arccos(one @ other / (one.norm() * other.norm())))


# %% tags=["nbval-check-output"]
start = torch.tensor([2, 0.5], dtype=torch.float64)
two_normals = []
for way in (torch.tensor([-1.0, -1]).double(), torch.tensor([-2.0, 2]).double()):
    t = bisect(lambda p: int(wedge(p).argmax()), start, start + way)
    slope = normal(wedge, start + t * way, 0, 1)
    print(f"t = {t:.3f}, {angle(-way, slope):.0f} degrees to the normal")
    two_normals.append(slope)
print(f"between the normals: {angle(*two_normals):.0f} degrees")

# %% [markdown]
# Now a network: two hidden layers of ReLUs on scikit-learn's digits, and a line from one test image to another.
# We bisect from both ends.

# %%
dense = copy.deepcopy(nets["dense"]).double()


def class_of(image):
    return int(dense(image[None]).argmax())


for a, b in zip(A.double(), B.double(), strict=True):
    t, back = bisect(class_of, a, b), 1 - bisect(class_of, b, a)
    if back - t > 0.1:
        break
for name, at in (("from a", t), ("from b", back)):
    sides = [class_of(a + (at + s) * (b - a)) for s in (-1e-6, 1e-6)]
    print(f"{name}: at t = {at:.3f}, between classes {sides[0]} and {sides[1]}")

# %% [markdown]
# Two answers for one line: it passes through a third class, and a normal for the classes of the two *images* belongs to no boundary here; the classes must be read off the two sides of the crossing.
# A bisection finds one change of class out of several, and none where both ends have the same class.
#
# For ReLUs nothing need be missed.
# Along a line every unit of the first layer is linear and bends once, at its zero; between these places the units of the second layer are linear, and so on, up to the scores.
# So we collect the zeros layer by layer, at last those of all gaps between two scores, and read the class once in each piece.


# %%
def with_zeros(t, values):
    """Places t, and the zeros of functions (T, U) that are linear in between."""
    low, high = values[:-1], values[1:]
    piece, unit = (low * high < 0).nonzero(as_tuple=True)
    part = (low / (low - high))[piece, unit]
    return torch.cat([t, t[piece] + part * t.diff()[piece]]).sort().values


def kinks(model, a, b):
    """Where the network's slope changes on the way from a to b, ends included."""
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for depth, layer in enumerate(model.body.children()):
        if isinstance(layer, nn.ReLU):
            t = with_zeros(t, model.body[:depth](between(a, b, t)))
    return t


# %%
def changes(model, a, b):
    """Every place t where the class changes."""
    t = kinks(model, a, b)
    scores = model(between(a, b, t))
    t = with_zeros(t, (scores[:, :, None] - scores[:, None]).flatten(1))
    inside = classes_between(model, a, b, (t[:-1] + t[1:]) / 2)
    return t[1:-1][inside[1:] != inside[:-1]]


# %% name="fig-changes" tags=["hide-input"] mystnb={"image": {"alt": "Left: scores of the leading classes on one line between two digits, made of straight pieces, with a tick for each kink; dotted lines mark the two places that bisection finds from either end, with a third class between them. Right: shares of the lines by their number of class changes, for three networks; each network has lines with more than one."}}
linear = copy.deepcopy(nets["linear"]).double()
pairs = list(zip(A.double(), B.double(), strict=True))
with torch.no_grad():
    counted = {
        kind: [len(changes(net, *pair)) for pair in pairs]
        for kind, net in (("linear", linear), ("dense", dense))
    }
    pieces = [len(kinks(dense, *pair)) - 1 for pair in pairs]
    bends = kinks(dense, a, b)
    scores = dense(between(a, b, FINE))
counted["conv"] = [int((each.diff() != 0).sum()) for each in classes]
_, axes = plt.subplots(1, 2, figsize=(9.6, 2.8), width_ratios=(1.6, 1))
leading = scores.argmax(1).unique().tolist()
for k, colour in zip(leading, plots.PALETTE, strict=False):
    axes[0].plot(FINE, scores[:, k], color=colour, label=f"class {k}")
floor = float(scores[:, leading].min()) - 1
axes[0].plot(bends, [floor] * len(bends), "|", color="grey", label="kinks")
for words, place in (("from a", t), ("from b", back)):
    axes[0].axvline(place, color="black", linestyle=":", linewidth=1)
    label = {"ha": "center", "xycoords": ("data", "axes fraction"), "fontsize": 9}
    axes[0].annotate(words, (place, 1.02), **label)
axes[0].set(xlabel="place $t$ on the line", ylabel="score", xlim=(0, 1))
axes[0].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
for shift, kind in enumerate(("linear", "dense", "conv")):
    number = np.minimum(counted[kind], 3)
    height = [(number == k).mean() for k in (1, 2, 3)]
    look = {"color": plots.PALETTE[shift], "label": WORDS[kind]}
    axes[1].bar(np.arange(3) + 0.27 * (shift - 1), height, 0.25, **look)
axes[1].set_xticks(range(3), ["1", "2", "3 or more"])
axes[1].set(xlabel="changes of class on a line", ylabel="share of lines")
axes[1].legend(fontsize=8)
plt.show()

several = {kind: share(torch.tensor(number) > 1) for kind, number in counted.items()}
met, _ = skew(nets["dense"], A, B)
own, other = met.classes.T
meant = nets["dense"](B).argmax(1)
third = other != meant
turned = geometry.incidence(
    geometry.gradient_normals(nets["dense"], met.point, own, meant)[third],
    geometry.gradient_normals(nets["dense"], met.point, own, other)[third],
)
run.say(
    f"Of {len(A)} lines between digits of two classes "
    + ", ".join(f"{several[kind]:.0%} ({WORDS[kind]})" for kind in counted)
    + " change their class more than once; planes do that too. (The "
    "convolutional network, because of its pooling, was read at "
    f"{len(FINE)} places.) Where a bisection in the fully connected "
    f"network ends at a third class, on {int(third.sum())} lines, a normal for the "
    f"classes of the images is off by {float(turned.median()):.0f} degrees in the "
    f"median. A line of it has {np.median(pieces):.0f} straight pieces in the median; "
    "the gradient at the crossing knows one of them."
)

# %% [markdown]
# ## At which angle does a line cross?
#
# Any angle needs its null: for a random direction in $n$ dimensions $\cos^2 \alpha$ has the law $\mathrm{Beta}(\frac{1}{2}, \frac{n-1}{2})$, and $\alpha$ is nearly 90 degrees in many dimensions, whatever the boundary.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Cumulative shares of crossings against their angle of incidence, one panel per network. Crossings between images and by PGD have larger angles than those by L-BFGS, nearest points without the box the smallest; random directions (dotted) lie to the right of all."}}
run.show("fig-skewness")
size = math.prod(networks.IMAGES[run.profile.data][0])
low = geometry.incidence_null(size, 0.025)
run.say(
    f"(Networks on {where}, from the evidence, here and in two figures "
    f"below: `mlp` is fully connected, `{run.profile.convolutional}` convolutional.) "
    "The paper's Definition 30.1 has two angles, which add up to 90 degrees; this is "
    f"its second. {verdict('incidence')} "
    f"In {size} dimensions all but 2.5 % of random directions lie above {low:.0f} "
    "degrees. Natural lines, between two images, lie at "
    f"{by_kind('skewness', 'natural_degrees')} degrees (convolutional and fully "
    "connected, medians), L-BFGS "
    f"{{cite:p}}`szegedy2014` at {by_kind('skewness', 'least_degrees')}. "
    f"{verdict('skewness')} "
    "At the nearest point of a smooth boundary the way lies along the normal: FMN "
    "{cite:p}`pintor2021`, which here may leave the box of grey values, comes to "
    f"{by_kind('skewness', 'nearest_degrees')}."
)
run.say(
    "So the angle is small where a line was aimed at the nearest piece of the "
    "boundary. Does it speak of the boundary too? {cite:t}`shamir2021` picture a sheet "
    "that runs along the images, with a dimple at each; its normals avoid the "
    "directions in which images differ. In those that hold nine tenths of the "
    "images' variance, normals "
    f"have {by_kind('dimpled-manifold', 'normal_share', '.0%')} of their squared "
    f"length, a random direction {found('dimpled-manifold', 'random_share'):.0%}, and "
    f"lines between images {by_kind('dimpled-manifold', 'image_share', '.0%')}. "
    f"{verdict('dimpled-manifold')}"
)

# %% [markdown]
# ### Between neighbours?
#
# Which line must cross at a right angle?
# Give every point the class of its nearest training point: the boundary consists of faces of Voronoi cells, and *Delaunay edges* join the training points whose cells share a face.
# The paper claims, with a proof, that such an edge crosses the face orthogonally.
# It is orthogonal to the *plane* of the face and meets it half-way; but its midpoint lies in the *face* only if no third training point is nearer to it (a *Gabriel edge*).

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: random points with their Voronoi cells; blue Delaunay edges cross the shared face, orange ones pass through a third cell. Right: the share that cross falls with the dimension, for random points and for digits."}}
run.show("fig-delaunay")
run.say(
    f"Of the edges of random points "
    f"{found('delaunay-orthogonal', 'share_in_the_plane'):.0%} cross their face in "
    "the plane and "
    f"{found('delaunay-orthogonal', 'share_in_most_dimensions'):.0%} in "
    f"{dimensions[-1]} dimensions. {verdict('delaunay-orthogonal')} The proof ends "
    "with the perpendicular bisector, which is the plane; that the edge meets the face "
    "is nowhere shown."
)

# %% [markdown]
# A smoother classifier interpolates the labels within each Delaunay simplex.
# That its boundary tends to the true one on a manifold $M$ as the longest edge $\varepsilon$ tends to 0 (Theorem 30.6) needs conditions.
# Let $M$ be convex and flat, and the samples carry their true classes.
# Then every misclassified point lies within $\varepsilon$ of the true boundary, since a corner of its simplex has another class, and the segment to it, no longer than $\varepsilon$, stays in $M$ and meets the boundary.

# %% tags=["hide-input"]
run.say(
    "No Lipschitz constant is needed, but flatness is: on a circle some triangle holds "
    "the centre, so that its longest edge is never below $\\sqrt{3}$ radii (300 "
    "samples: "
    f"{found('thm30.6', 'longest_edge_on_a_circle'):.2f}). And a piece of a class "
    f"thinner than $\\varepsilon$ may hold no sample. {verdict('thm30.6')}"
)

# %% [markdown]
# ## Does the boundary bend?
#
# In a ReLU network second derivatives are zero almost everywhere, and still a boundary of many small planes can be round.
# The paper proposes to compare the *normals* of two boundary points, as we did for the two faces.
# We go a distance $r$ into random tangent directions, look how far along the normal the boundary lies from there (its *height*), and take the angle between the normals at the two places.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: height over the tangent plane as a share of the radius, against the radius; middle: angle between normals. Both stay near zero for the linear network at small radii and grow for the others. Right: principal curvatures at a middle radius, above zero where the first class is convex; at L-BFGS crossings of the convolutional network most lie below zero."}}
run.show("fig-bending")
turning = found("curvature-radius", "conv_radius_of_turning")
run.say(
    "Dotted: the median distance of an image from the boundary. Within it the normals "
    "of the convolutional network turn by "
    f"{found('curvature-radius', 'conv_turn_degrees'):.0f} degrees, those of the fully "
    f"connected one by {found('curvature-radius', 'dense_turn_degrees'):.1f}, those of "
    f"the linear one by {found('curvature-radius', 'linear_turn_degrees'):.0f}. "
    f"{verdict('curvature-radius')} The boundary of the convolutional network rises "
    f"only {found('curvature-radius', 'conv_height'):.1%} of the way over its tangent "
    "plane: a random direction is nearly flat, and a normal turns with the few that "
    "are not."
    + (
        f" By 30 degrees its normals have turned at a distance of {turning:.2f}."
        if not math.isnan(turning)
        else ""
    )
)

# %% [markdown]
# ### Is it a wedge?
#
# Back to the networks on scikit-learn's digits.
# From an image's nearest boundary point we go a distance $r$ along the normal to either side, and count the noise of $\sigma = r$ that loses the class.
# Beside a plane it is 15.9 % on both sides, inside two faces at most twice that; a wedge shows as a difference between the two sides, but so does a thin pocket of a class.
# With $r$ the median distance of an image from the boundary, we do the same on natural lines.


# %% name="fig-sides" tags=["hide-input"] mystnb={"image": {"alt": "Mean share of noise that loses the class before and behind the boundary, with 95 % intervals, for three networks at natural crossings and at nearest points. At the nearest points of the convolutional network it is larger behind; for the linear network the sides hardly differ."}}
@torch.no_grad()
def both_sides(model, met, r, sigma, count=300):
    """Share of noise that loses the class, before and behind each crossing."""
    own, other = met.classes.T
    slope = geometry.gradient_normals(model, met.point, own, other)
    cloud = sigma * torch.randn(count, *met.point.shape[1:], generator=draws(0))
    lost, seen = [], torch.ones(len(own), dtype=torch.bool)
    for side, mine in ((1, own), (-1, other)):
        at = met.point + side * r * slope
        seen &= model(at).argmax(1) == mine
        answer = model((at[:, None] + cloud).flatten(0, 1)).argmax(1)
        lost.append((answer.view(len(at), -1) != mine[:, None]).double().mean(1))
    return lost[0][seen], lost[1][seen]


sides = {}
for kind, net in nets.items():
    near = attacks.fmn(net, A, y[:half][differ][:100], space="free").x_adv
    r = float((near - A).flatten(1).norm(dim=1).median())
    for where, end in (("natural lines", B), ("nearest points", near)):
        sides[kind, where] = both_sides(net, skew(net, A, end)[0], r, r)
plane = float(norm.sf(1))
LOOKS = (
    ("o", plots.PALETTE[0], "before", 0.12), ("s", plots.PALETTE[1], "behind", -0.12),
)  # fmt: skip
_, ax = plt.subplots(figsize=(8.6, 2.5))
shown = [
    (kind, where) for kind in KINDS for where in ("natural lines", "nearest points")
]
for row, key in enumerate(shown):
    for part, (marker, colour, words, up) in zip(sides[key], LOOKS, strict=True):
        mean = mean_over(part)
        at = len(shown) - row + up
        ax.plot(intervals.of(mean), [at, at], color=colour)
        label = None if row else f"{words} the boundary"
        ax.plot(float(mean), at, marker, color=colour, label=label)
for place, style, words in ((plane, ":", "a plane"), (2 * plane, "--", "twice that")):
    ax.axvline(place, color="black", linestyle=style, linewidth=1, label=words)
ax.set_yticks(range(len(shown), 0, -1), [f"{WORDS[k]}, {w}" for k, w in shown])
ax.set(xlabel="share of noise that loses the class", xlim=(0, None))
ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
more = {key: mean_over(behind - before) for key, (before, behind) in sides.items()}


def points(kind: str, where: str = "nearest points") -> str:
    """By how much more noise loses the class behind, with its interval."""
    low, high = (100 * end for end in intervals.of(more[kind, where]))
    return f"{100 * more[kind, where]:.1f} points ({low:.1f} to {high:.1f})"


low, high = (intervals.of(more[kind, "nearest points"]) for kind in ("conv", "linear"))
run.say(
    "At the nearest boundary points, behind the boundary loses more than before it by "
    + ", ".join(f"{points(kind)} in the {WORDS[kind]} network" for kind in KINDS)
    + ". "
    + (
        "So the convolutional network leaves less room behind its nearest boundary "
        "than before it, as with a wedge or a thin pocket behind, and by decidedly "
        "more than the linear network, whose classes are cut out by planes. "
        if low[0] > high[1]
        else "On these images the convolutional network does not differ decidedly from "
        "the linear one. "
    )
    + "Nearest points favour places where the boundary bulges towards the image; on "
    "natural lines, which do not choose them, the convolutional network's difference "
    "is "
    f"{points('conv', 'natural lines')}. "
    + (
        "All shares exceed a plane's; in the linear network only faces of third "
        "classes can do that."
        if min(float(mean_over(part)) for pair in sides.values() for part in pair)
        > plane
        else ""
    )
)

# %% [markdown]
# ## How does one sample a boundary?
#
# The paper samples a boundary, takes the singular values of the sample, and reads the boundary's dimension off those that drop.
# It begins with wedges, for which noise has to be projected onto the nearest point, and proposes to project onto the violated half-spaces in turn.
# For orthogonal faces that is right (its Lemma 30.11).
# In a wedge of 120 degrees $(0.2, -1)$ goes to $(0.48, 0)$ if the face $x_2 = 0$ comes last, where $(0.2, 0)$ is nearest: the first projection was one too many, and {cite:t}`dykstra1983` has each half-space first take back its last step.
# For the paper's wedge $\{x_1 \geq 0,\ x_i \geq x_1 \tan\theta_{i-1}\}$ no iteration is needed.
#
# ```{prf:theorem} The nearest point of a wedge
# :label: thm-wedge-projection
#
# The nearest point $p$ of the wedge to $x$ has $p_i = \max(x_i, p_1 \tan\theta_{i-1})$ for $1 < i \le k$, $p_i = x_i$ for $i > k$, and $p_1 = \max(t, 0)$, where $t$ is the root of the increasing, piecewise linear function
#
# $$g(t) = t - x_1 + \sum_{i=2}^{k} \tan\theta_{i-1}\, \max(0,\ t \tan\theta_{i-1} - x_i) .$$
# ```
#
# ```{prf:proof}
# For fixed $p_1 = t \geq 0$ the constraints on the other coordinates are one each, so each takes the allowed value nearest to $x_i$.
# What remains is half the squared distance as a function of $t$ alone, which is convex with derivative $g$; its minimum over $t \geq 0$ is at the root of $g$, or at 0 where the root is negative.
# ```

# %% tags=["hide-input"]
run.say(
    "In the evidence, in turn misses the nearest point for "
    f"{found('pocs', 'points_farther_than_nearest'):.0%} of random points "
    f"{verdict('pocs')}, and projecting onto the *planes* of all violated faces, the "
    "paper's second proposal, hits it for "
    f"{found('projection', 'share_right_at_most_faces'):.0%} of the points outside "
    f"fifty faces {verdict('projection')}: a face that a point violates need not touch "
    "the nearest point, and one that it respects can. With exact projections the "
    "singular values do what the paper says: by differences of random pairs exactly as "
    f"many drop as the orthant has faces. {verdict('orthant-svd')} The mean "
    "of an uncentred sample lies along the diagonal and lifts one of them again."
)

# %% [markdown]
# And around a crossing of a network?
# There the paper adds noise to a boundary point and moves each noisy point towards that one of the two images that is on the other side, until the class changes.
# Around a plane with normal $\nu$, along a line of direction $u$, this is the oblique projection $I - u \nu^\top / (u^\top \nu)$, and we can say what to expect: one singular value is zero, along the normal; one is $1 / \cos\alpha$ for the angle of incidence $\alpha$; all others are one.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Singular values of boundary samples around natural crossings on the left and adversarial ones on the right, relative to their median. Each shows a level line and one value far below it; around the natural crossings one stands well above, close to a cross at one over the cosine of the angle."}}
run.show("fig-neighbourhoods")
run.say(
    "Crosses are $1 / \\cos\\alpha$. The paper sees two degenerate values between two "
    "test images, which seem to correspond with the images. In "
    f"{by_kind('mnist-plane', 'two_off_share', '.0%')} of the crossings one value lies "
    "below half the median and one above twice the median, in "
    f"{by_kind('mnist-plane', 'two_dropped_share', '.0%')} two lie below: what stands "
    "out is the normal, and the angle. The large one leans towards the "
    "line of the images; the direction that fits less has only "
    f"{by_kind('mnist-plane', 'directions_in_images', '.0%')} (medians) of its squared "
    "length in the images' plane. Is the boundary a plane there? If its "
    "spread along the fitted normal may be a twentieth of the median, in "
    f"{by_kind('mnist-plane', 'planar_share', '.0%')} of the crossings. "
    f"{verdict('mnist-plane')} The single dominant value of an uncentred sample is the "
    "boundary image itself, and differences remove it, as the paper says. "
    f"{verdict('svd-content')}"
)

# %% [markdown]
# ## Does it survive?
#
# What has to survive here is the reading of the angles.

# %% tags=["hide-input"]
ROWS = {
    "line between two images": "natural",
    "PGD": "pgd",
    "L-BFGS": "least",
    "L-BFGS, from a point on the natural line": "matched",
    "nearest point, without the box": "nearest",
}
table = {
    words: [found("skewness", f"{kind}_{way}_degrees") for kind in KINDS]
    for words, way in ROWS.items()
}
plots.table(
    pd.DataFrame(table, index=[WORDS[kind] for kind in KINDS]).T,
    "Angles of incidence in degrees, medians, mean over runs; random directions: "
    f"{found('skewness', 'random_degrees'):.1f}; – : in the figure above alone",
    digits=1,
)
run.say(
    "*Another attack*: PGD, which may change every pixel by "
    f"{run.profile.attack_eps:g}, finds its examples on lines about as skew as the "
    "natural ones. *Another place*: begun on the natural "
    "line, as far before its crossing as an image is from its adversarial example, "
    "L-BFGS still finds its small angle. *Another network*: planes show the same "
    "order. **A skew or a steep crossing says how the line was chosen, and nothing yet "
    "of wedges; of these say more the normals at a distance and the noise on the two "
    "sides, each beside the linear network.**"
)

# %% [markdown]
# ## What to remember
#
# - Inside a wedge, at equal distance, persistence counts faces, hardly sharpness ({prf:ref}`thm-wedge-noise`).
# - A bisection finds one change of class; read the two classes off its sides.
# - An angle of incidence wants a random direction, planes and another attack beside it.
# - A ReLU boundary is flat at a point; that it bends shows between points.
# - A singular value that stands out may be an image, or an angle.
#
# **Open**: the other projection of the text, descending a loss; the tangent space at one image; whose faces the noise meets behind a boundary.
# What the paper announces to measure has first answers here, on small networks.
# The {doc}`exercises <exercises>` let you write the bracket, the projection and the spectrum yourself.

# %% tags=["hide-input"]
run.finish()
