# %% [markdown]
# # Decision boundaries
#
# The last part of {cite:t}`bell2023` is a workshop: three definitions of a decision boundary, classifiers made of Voronoi cells, wedges of adjustable sharpness with half a projection algorithm, singular values of boundary samples, and a list of headings under which nothing stands yet.
# The questions are good ones.
# What shape has the surface that an adversarial example crosses, and does it cross it in another way than the line between two images does?
#
# There are reasons for care.
# A proof claims that every Delaunay edge crosses its Voronoi face, which every obtuse triangle contradicts.
# Two different sets are called "the wedge".
# And a picture of singular values that drop is evidence only beside a picture of what noise alone would show.
#
# This chapter re-runs what the part claims, corrects what it states, and does for the first time what it announces: the normals, the radius of curvature, the skewness of crossings.

# %% tags=["parameters"]
profile: str = "quick"  # quick, standard or paper: which column of data/profiles/07_decision_boundaries.yml
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, for example {"centers": 20}

# %% tags=["hide-input"]
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from matplotlib.collections import LineCollection
from scipy.ndimage import label
from scipy.spatial import Voronoi, voronoi_plot_2d
from torch import nn

from support import attacks, geometry, models, smoothing, training
from support.book import chapter_run, plots
from support.models import heads

run = chapter_run.start("07_decision_boundaries", profile, seed, device, overrides)
p = run.profile
plots.use_style()
stream = torch.Generator().manual_seed(seed)
DOUBLE = torch.float64

# %% [markdown]
# ## What we check
#
# *Identity* claims are definitions, theorems and calculations, which hold or fail on any computer; *empirical* ones depend on trained networks.
# *Open* claims are the announcements: the part asks, this chapter answers, and the rule that judges the answer was written before it was known.

# %% tags=["hide-input", "output_scroll"]
run.show_claims()

# %% [markdown]
# ## What a boundary is
#
# Write $F(x) \in \mathbb{R}^K$ for the scores and $f(x) = \arg\max F(x)$ for the class: $f$ is argmax *after* $F$, which the part writes the other way round.
# The *lead* of a score vector is its largest entry minus the second largest.
# As long as a change $\delta$ of the scores has $\lVert \delta \rVert_1$ below the lead, the class stays: what one score gains and another loses is together at most $\lVert \delta \rVert_1$.
# So each class owns an open set of scores, and the ties are what is left, a closed set.
#
# We draw score vectors on a grid of exact binary fractions, and change the leader and its rival in the worst way, by a hair less than the lead; then by the same amount in *every* coordinate, which the $\ell_1$ ball does not allow.

# %% tags=["nbval-check-output"]
scores = torch.randint(-1024, 1024, (20_000, 6), generator=stream).double() / 1024
top = scores.topk(2, dim=1)
lead = top.values[:, 0] - top.values[:, 1]
scores, lead, (first, second) = scores[lead > 0], lead[lead > 0], top.indices[lead > 0].T
rows = torch.arange(len(scores))


def pushed(amount: torch.Tensor, share: float) -> torch.Tensor:
    """Scores whose leader loses `share` of the amount and whose rival gains the rest."""
    moved = scores.clone()
    moved[rows, first] -= share * amount
    moved[rows, second] += (1 - share) * amount
    return moved


below = lead - 2.0**-20
changes = sum(int((pushed(below, share).argmax(1) != first).sum()) for share in (0.0, 0.25, 0.5, 1.0))
limit = pushed(lead, 0.5).topk(2, dim=1).values
everywhere = pushed(2 * below, 0.5)  # each coordinate moves by less than the lead
print("classes changed by l1 moves below the lead:", changes)
print("classes changed by moves of that size in each coordinate:", "all" if bool((everywhere.argmax(1) != first).all()) else "some")
run.claim("bell2023.argmax-open", changes=changes, lead_of_limits=float((limit[:, 0] - limit[:, 1]).max()))

# %% [markdown]
# *Is the boundary connected?* the part asks.
# Among the scores it is: pull a tie towards the point where all scores are equal, $s \mapsto c\mathbf{1} + t (s - c\mathbf{1})$, and every comparison stays, so that each tie is joined to that point by a straight line of ties.
# Among the inputs it need not be: the boundary of a ring has two pieces, and we count them on a grid.

# %% tags=["nbval-check-output"]
ties = torch.randint(-512, 512, (5_000, 5), generator=stream).double() / 512
ties[:, 1] = ties[:, 0] = ties.amax(1)  # two leaders
pulled = torch.cat([t * ties for t in (0.75, 0.5, 0.25, 0.0)]).topk(2, dim=1).values
line = np.linspace(-2, 2, 401)
radius = np.hypot(*np.meshgrid(line, line))
ring = (radius > 0.8) & (radius < 1.6)
edge = (ring[1:, 1:] != ring[:-1, 1:]) | (ring[1:, 1:] != ring[1:, :-1])
run.claim("bell2023.connected", ties_broken=int((pulled[:, 0] != pulled[:, 1]).sum()), pieces_in_data_space=int(label(edge, np.ones((3, 3)))[1]))

# %% [markdown]
# ### Three definitions
#
# The *complement* definition (29.1) takes the closure of all points that are not in a decision interior, where some small ball has one class.
# The *constructive* one (29.2) takes the points of which every ball has two classes or more.
# These are one set, by negation, as soon as a rule breaks ties; and the closure adds nothing, because the interior is open.
#
# The *level set* definition (29.3, repeated as 30.3) takes the points where two probabilities are equal and all others smaller.
# Four classifiers of the plane show the difference; ties go to the first class.

# %% tags=["nbval-check-output"]
planted = {  # scores of points (N, 2)
    "two classes cross": lambda z: torch.stack([z[:, 0], -z[:, 0]], 1),
    "three classes meet": lambda z: z @ torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]], dtype=DOUBLE),
    "an open set of ties": lambda z: torch.stack([0 * z[:, 0], 0 * z[:, 0], z[:, 0] - 9], 1),
    "scores that touch": lambda z: torch.stack([z[:, 0].square(), 0 * z[:, 0]], 1),
}
angle = 2 * math.pi * torch.arange(90, dtype=DOUBLE) / 90
circle = torch.stack([angle.cos(), angle.sin()], 1)
radii = torch.tensor([0.03, 1e-3, 1e-5], dtype=DOUBLE)
balls = torch.cat([radii[:, None, None] * share * circle for share in (0.0, 0.5, 1.0)], 1)  # (radii, points, 2)
grid = torch.cartesian_prod(*[torch.arange(-8, 9).double() / 8] * 2)  # exact binary fractions: an equality of scores is one


def classes_near(model, points: torch.Tensor) -> torch.Tensor:
    """(N, radii) number of classes in each ball around points (N, 2)."""
    around = points[:, None, None] + balls
    classes = model(around.reshape(-1, 2)).argmax(1).reshape(around.shape[:3])
    return nn.functional.one_hot(classes).amax(2).sum(2)


different = {"complement": 0, "level set": 0}
for name, model in planted.items():
    counts, values = classes_near(model, grid), model(grid).sort(dim=1, descending=True).values
    constructive = (counts >= 2).all(1)
    interior = torch.stack([(counts[:, i:] == 1).all(1) for i in range(len(radii))]).any(0)  # one class in all balls from some radius down
    level_set = (values[:, 0] == values[:, 1]) & (values[:, 1:2] > values[:, 2:]).all(1)
    different["complement"] += int((~interior != constructive).sum())
    different["level set"] += int((level_set != constructive).sum())
    print(f"{name:>20}: points of the grid on the boundary: constructive {int(constructive.sum()):3d}, level set {int(level_set.sum()):3d}")
run.claim("bell2023.definitions-agree", complement_against_constructive=different["complement"], level_set_against_constructive=different["level set"])

# %% [markdown]
# The level sets miss the point where three classes meet, and they hold the open set of ties and the line where two scores touch, although only one class is found around either.
#
# The part grades the boundary by the number of classes that every small ball meets.
# We plant points where $j$ of six scores tie and count the classes around them, first for random linear scores, then for one whose third score $-z_2^2$ only touches the tie of the first two.

# %% tags=["nbval-check-output"]
mismatches = 0
for j in range(2, 7):
    for _ in range(20):
        slopes = torch.randn(6, 8, generator=stream, dtype=DOUBLE)
        offsets = torch.where(torch.arange(6) < j, 0.0, -1.0).double()
        ball = 1e-4 * nn.functional.normalize(torch.randn(20_000, 8, generator=stream, dtype=DOUBLE), dim=1)
        # The direction that lifts one score over the others solves a small linear system, so no class is missed by chance.
        lifts = 1e-4 * nn.functional.normalize(torch.linalg.pinv(slopes - slopes.mean(0)).T, dim=1)
        mismatches += len((torch.cat([ball[:100], lifts]) @ slopes.T + offsets).argmax(1).unique()) != j
touch = lambda z: torch.stack([z[:, 0], -z[:, 0], -z[:, 1].square()], 1)  # noqa: E731
run.claim("bell2023.k-boundary", mismatches_in_general_position=mismatches, mismatches_at_a_touch=3 - int(classes_near(touch, torch.zeros(1, 2, dtype=DOUBLE))[0, -1]))

# %% [markdown]
# ### The image of the boundary
#
# $F$ maps the boundary into the simplex of probabilities, where the part sees "$K - 1$ components".
# Two counts are mixed there.
# There are $K - 1$ *strata*: two, three, ..., $K$ leaders tie.
# The stratum of two leaders alone falls into $K (K - 1) / 2$ pieces, one for each pair of classes.
# The stratum of $K$ leaders is one point of the simplex, where all probabilities are $1/K$; the "centroid line" meets it only there.
#
# We train a network on three classes of digits, bisect between its test images, and draw where the boundary points land.

# %%
digits, digits_test = run.load("digits", "train"), run.load("digits", "test")
THREE = (3, 5, 8)


def only(data, classes):
    """Images of some classes, labelled from 0."""
    kept = torch.stack([data.y == k for k in classes])
    return data.x[kept.any(0)], kept.long().argmax(0)[kept.any(0)]


x, y = only(digits, THREE)
three = training.fit(models.mlp(x.shape[1:], (32,), 3, seed=seed), x, y, epochs=20, lr=0.1, seed=seed, cache=run.cache, name="three").model
x, y = only(digits_test, THREE)
with torch.no_grad():
    predicted = three(x).argmax(1)
i, j = torch.combinations(torch.arange(len(x))).T
i, j = i[predicted[i] != predicted[j]][::7], j[predicted[i] != predicted[j]][::7]
found = geometry.bisect(three, x[i], x[j])
with torch.no_grad():
    image = three(found.point).double().softmax(1)

# %%
strata, pieces = {}, {}
for k in (3, 4, 5, 6):
    first, second = torch.randn(2, 4000, k, generator=stream, dtype=DOUBLE)
    differ = first.argmax(1) != second.argmax(1)
    met = geometry.bisect(lambda z: z, first[differ], second[differ]).classes  # the identity as F: the boundary of argmax itself
    pieces[k] = len(met.sort(1).values.unique(dim=0))
    strata[k] = len({len(tie) for size in range(2, k + 1) for tie in itertools.combinations(range(k), size)})
run.claim(
    "bell2023.simplex-image",
    distance_from_plane=float((image.sum(1) - 1).abs().max()),
    strata_beyond_k_minus_1=max(abs(strata[k] - (k - 1)) for k in strata),
    binary_pieces_beyond_k_minus_1=max(abs(pieces[k] - (k - 1)) for k in pieces),
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: a triangle with three dashed rays from its centre to the middles of its sides; coloured dots, images of boundary points, lie on the rays. Right: strata and binary pieces against the number of classes: the first grows by one a class, the second quadratically."}}
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.6), width_ratios=(1.1, 1))
corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]], dtype=DOUBLE)
axes[0].fill(*corners.T, fill=False, edgecolor="black", linewidth=0.8)
for pair, color in zip(((0, 1), (0, 2), (1, 2)), plots.PALETTE, strict=False):
    middle, centre = corners[list(pair)].mean(0), corners.mean(0)
    axes[0].plot(*torch.stack([middle, centre]).T, "--", color="grey", linewidth=0.8)
    mine = (found.classes.sort(1).values == torch.tensor(pair)).all(1)
    axes[0].scatter(*(image[mine] @ corners).T, s=12, alpha=0.6, color=color, edgecolors="none", label=f"{THREE[pair[0]]} against {THREE[pair[1]]}")
for corner, name, shift in zip(corners, THREE, ((-8, -10), (4, -10), (-3, 5)), strict=True):
    axes[0].annotate(str(name), corner, xytext=shift, textcoords="offset points")
axes[0].set_aspect("equal")
axes[0].set_axis_off()
axes[0].legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.12, 1.02))
axes[1].plot(list(strata), list(strata.values()), "-o", label="strata, by number of leaders")
axes[1].plot(list(pieces), list(pieces.values()), "--s", label="pieces with two leaders")
axes[1].set(xlabel="classes $K$", xticks=list(strata))
axes[1].legend()
plt.show()

# %% [markdown]
# The dots lie on the rays from the centre to the middles of the sides: a boundary point between two confident classes lands near a side, one that almost three classes share near the centre.
#
# ## Voronoi and Delaunay
#
# Give every query the class of its nearest training point, and the decision boundary consists of faces of the Voronoi diagram.
# Its dual, the Delaunay triangulation, joins two points whose cells share a face.
# The part claims with a proof that these edges cross the boundary orthogonally.
#
# An edge meets the plane half-way between its ends at a right angle: so far it is true.
# But the face is only a part of that plane, and the edge meets the plane at one point, its midpoint.
# The midpoint lies in the face exactly if no third training point is nearer to it, so that the ball over the edge is empty: the definition of a *Gabriel* edge.
# Three lines test it.

# %% tags=["nbval-check-output"]
obtuse = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 0.9], [2.0, -5.0]], dtype=DOUBLE)
a, b = obtuse[0], obtuse[1]
others = [float((c - (a + b) / 2).norm()) for c in obtuse[2:]]
print("half the edge:", float((b - a).norm() / 2), "- distances of the other points to its midpoint:", [round(o, 2) for o in others])

# %% [markdown]
# The package's version does this for whole triangulations, with the edges from Qhull and the nearest points from a tree.
# We count in random points of the unit cube, for edges whose midpoint is well inside it, and in scikit-learn's digits reduced to their first principal components.
#
# For a Poisson process in $d$ dimensions the answer is known: a point has $2^d$ Gabriel neighbours on average, and 6, 15.54 and 37.78 Delaunay neighbours for $d = 2, 3, 4$.

# %%
def edges_and_gabriel(points: torch.Tensor, margin: float = 0.0):
    """A triangulation, the midpoints' place well inside the unit cube, and which edges are Gabriel's."""
    found = geometry.triangulate(points)
    middle = points[found.edges].mean(1)
    return found, ((middle > margin) & (middle < 1 - margin)).all(1), geometry.gabriel(found)


poisson = {2: 4 / 6, 3: 8 / (2 + 48 * math.pi**2 / 35), 4: 16 / (340 / 9)}
flat = digits.x.flatten(1).double()
axes_of_digits = torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh
share, share_digits, missing = {}, {}, 0
for d in p.delaunay_dimensions:
    _, inner, crosses = edges_and_gabriel(torch.rand(p.delaunay_points, d, generator=stream, dtype=DOUBLE), 0.15)
    share[d] = float(crosses[inner].double().mean())
    missing += int((~crosses).sum())
    reduced = (flat[: p.delaunay_points] - flat.mean(0)) @ axes_of_digits[:d].T
    share_digits[d] = float(edges_and_gabriel(reduced)[2].double().mean())

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: random points in the plane with their Voronoi cells; blue Delaunay edges cross the shared face, orange dashed ones pass through a third cell. Right: the share of edges that cross, falling with the dimension for random points, close to the Poisson values, and for digits."}}
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.9))
shown = torch.rand(24, 2, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)
found, _, crosses = edges_and_gabriel(shown)
voronoi_plot_2d(Voronoi(shown.numpy()), ax=axes[0], show_points=False, show_vertices=False, line_colors="grey", line_width=0.8)
segments = shown[found.edges].numpy()
axes[0].add_collection(LineCollection(segments[crosses.numpy()], colors=plots.PALETTE[0], linewidths=1.6, label="crosses its face"))
axes[0].add_collection(LineCollection(segments[~crosses.numpy()], colors=plots.PALETTE[1], linewidths=1.6, linestyles="--", label="misses it"))
axes[0].scatter(*shown.T, s=18, color="black", zorder=3)
axes[0].set(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
axes[0].set_aspect("equal")
axes[0].set_axis_off()
axes[0].legend(fontsize=8, loc="upper right")
axes[1].plot(list(share), list(share.values()), "-o", label="random points")
axes[1].plot(list(poisson), list(poisson.values()), "x", color="black", markersize=9, label="Poisson process, exact")
axes[1].plot(list(share_digits), list(share_digits.values()), "--s", label="digits, first components")
axes[1].set(xlabel="dimension", ylabel="share of edges that cross their face", xticks=list(share), ylim=(0, 1))
axes[1].legend(fontsize=8)
plt.show()

# %%
run.claim("bell2023.delaunay-orthogonal", edges_that_miss=missing, share_in_the_plane=share[p.delaunay_dimensions[0]], share_in_most_dimensions=share[p.delaunay_dimensions[-1]])

# %% [markdown]
# The error of the proof is its first step: from "not orthogonal to the face" it concludes that a certain point exists, and then contradicts what is true of Gabriel edges only.
#
# ### The angle of incidence
#
# For other crossings the part defines the angle of incidence (Definition 30.1), once as the angle between the line and its projection onto the plane, once as $\pi/2$ minus that angle.
# We take the second, the angle to the *normal*: 0 for an orthogonal crossing, 90 degrees for a grazing one.
#
# Any measured angle needs its null.
# The direction of a line chosen uniformly at random in $n$ dimensions has $\cos^2 \alpha \sim \mathrm{Beta}(1/2, (n-1)/2)$, and in many dimensions that is nearly 90 degrees whatever the boundary.

# %% tags=["nbval-check-output"]
lines = torch.randn(1000, 3, generator=stream, dtype=DOUBLE)
normal = torch.eye(3, dtype=DOUBLE)[2:]
to_normal = geometry.incidence(lines, normal.expand(1000, 3))
shadow = lines - (lines @ normal.T) * normal
to_shadow = torch.rad2deg(torch.atan2(torch.linalg.cross(lines, shadow).norm(dim=1), (lines * shadow).sum(1)))
assert float((to_normal + to_shadow - 90).abs().max()) < 1e-9
for n in (2, 3, 64, 784, 3072):
    low, middle, high = (geometry.incidence_null(n, q) for q in (0.025, 0.5, 0.975))
    print(f"random direction in {n:4d} dimensions: {middle:5.2f} degrees, 95 % in {low:5.2f} to {high:5.2f}")
run.claim("bell2023.incidence", difference_of_readings=float((to_normal - to_shadow).abs().max()))

# %% [markdown]
# ### The dimension of a boundary
#
# Definition 30.4 calls *dimension* of the boundary at $x$ the number of dimensions that the offsets from $x$ to its whole decision level span.
# For a plane in $n$ dimensions that is $n - 1$.
# For a sphere, which has dimension $n - 1$ as well, it is $n$.
# Locally the count comes out right: of a sample within radius $r$ one singular value shrinks like $r^2$, the others like $r$.

# %%
n = 8
sphere = nn.functional.normalize(torch.randn(2000, n, generator=stream, dtype=DOUBLE), dim=1)
plane = torch.cat([torch.zeros(2000, 1, dtype=DOUBLE), torch.randn(2000, n - 1, generator=stream, dtype=DOUBLE)], 1)
span = {name: int(torch.linalg.matrix_rank(sample - sample[:1])) for name, sample in (("plane", plane), ("sphere", sphere))}
local_radii = np.geomspace(0.003, 1, 12)
noise = torch.randn(2000, n, generator=stream, dtype=DOUBLE)
local = [geometry.boundary_spectrum(nn.functional.normalize(torch.eye(n, dtype=DOUBLE)[0] + r * noise, dim=1)).values for r in local_radii]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Singular values of samples of a sphere against the sample's radius, both logarithmic: seven lines of slope one and a lowest one of slope two."}}
figure, ax = plt.subplots(figsize=(5.2, 3.3))
ax.loglog(local_radii, np.stack([v[:-1] for v in local]), color=plots.PALETTE[0], linewidth=1)
ax.loglog(local_radii, [float(v[-1]) for v in local], color=plots.PALETTE[1], linewidth=2)
ax.annotate("tangent directions", (0.0035, 0.07), color=plots.PALETTE[0])
ax.annotate("normal", (0.03, 0.0004), color=plots.PALETTE[1])
ax.set(xlabel="radius of the sample", ylabel="singular values", title=f"a sphere in {n} dimensions")
plt.show()

# %% tags=["nbval-check-output"]
run.claim("bell2023.dimension", span_of_a_plane_minus_its_dimension=span["plane"] - (n - 1), span_of_a_sphere_minus_its_dimension=span["sphere"] - (n - 1))

# %% [markdown]
# ### Bounded cells, noise and slivers
#
# Two remarks of the part about Voronoi cells and triangulations can be counted.
# A cell is bounded exactly if its point lies in the interior of the convex hull, and we compare the two for scipy's diagrams; the share of bounded cells falls quickly with the dimension.
# For images a witness is enough: if an image lies farther than all others in the direction from the mean to itself, its cell has no end.

# %%
mismatches, bounded = 0, {}
for d in p.delaunay_dimensions[:3]:
    points = torch.rand(p.delaunay_points, d, generator=stream, dtype=DOUBLE)
    voronoi = Voronoi(points.numpy())
    finite = torch.tensor([-1 not in voronoi.regions[region] for region in voronoi.point_region])
    hull = geometry.bounded_cells(geometry.triangulate(points))
    mismatches += int((finite != hull).sum())
    bounded[d] = float(finite.double().mean())
outward = flat - flat.mean(0)
witnessed = float(((outward @ outward.T).argmax(1) == torch.arange(len(flat))).double().mean())
run.claim("bell2023.bounded-cells", mismatches=mismatches, digits_witnessed_unbounded=witnessed, **{f"bounded_in_{d}_dimensions": value for d, value in bounded.items()})

# %% [markdown]
# The other remark says that triangulations are unstable in many dimensions, that small noise upsets them, and that plentiful data lessen both.
# We move every point by noise and count how many edges change: first by a twentieth of the mean spacing in two and in four dimensions, then by the *same* amount with few and with many points.
# The quality of a simplex is $d$ times its inradius over its circumradius: 1 for a regular one, 0 for a flat one.

# %%
def changed(points: torch.Tensor, noise: float) -> float:
    """Share of the edges that a triangulation exchanges when its points move by Gaussian noise."""
    moved = points + noise * torch.randn(points.shape, generator=stream, dtype=DOUBLE)
    before, after = ({tuple(edge) for edge in geometry.triangulate(each).edges.tolist()} for each in (points, moved))
    return len(before - after) / len(before)


n = p.delaunay_points
few, many = (torch.rand(count, 2, generator=stream, dtype=DOUBLE) for count in (n // 4, 4 * n))
low, high = (torch.rand(n, d, generator=stream, dtype=DOUBLE) for d in (2, 4))
run.claim(
    "bell2023.delaunay-limits",
    changed_in_the_plane=changed(low, 0.05 * n ** (-1 / 2)), changed_in_more_dimensions=changed(high, 0.05 * n ** (-1 / 4)),
    quality_in_the_plane=float(geometry.simplex_quality(geometry.triangulate(low)).median()),
    quality_in_more_dimensions=float(geometry.simplex_quality(geometry.triangulate(high)).median()),
    changed_with_few_points=changed(few, 0.003), changed_with_many_points=changed(many, 0.003),
)

# %% [markdown]
# ### Weighted Delaunay boundaries
#
# A Voronoi classifier knows only the nearest point.
# Definition 30.5 adds up the barycentric coordinates of a query in its Delaunay simplex by label, $w(z)_i$, and takes the class with the largest sum.
# On a triangulated square this works, and the weights are scipy's linear interpolation of the labels (the tests of the package check that).
# On a curved manifold it does not: new points of a circle lie outside every simplex that the samples span.

# %% tags=["nbval-check-output"]
square = torch.rand(300, 2, generator=stream, dtype=DOUBLE)
disc = ((square - 0.5).norm(dim=1) < 0.3).long()
triangulated = geometry.triangulate(square, disc)
query = 0.2 + 0.6 * torch.rand(2000, 2, generator=stream, dtype=DOUBLE)
weights = geometry.barycentric_weights(triangulated, query)
turn = 2 * math.pi * torch.rand(600, generator=stream, dtype=DOUBLE)
on_circle = torch.stack([turn.cos(), turn.sin()], 1)
samples, fresh = on_circle[:300], on_circle[300:]
outside = geometry.triangulate(samples).found.find_simplex(fresh.numpy()) < 0
print("new points of the circle outside every simplex:", int(outside.sum()), "of", len(fresh))
run.claim("bell2023.weighted-delaunay", weight_error=float((weights.sum(1) - 1).abs().max()), queries_outside_every_simplex=int(outside.sum()))

# %% [markdown]
# Theorem 30.6 says that the boundary of these weights converges to the true one.
# Here is what is true, with its conditions.
#
# ```{prf:theorem} The weighted Delaunay boundary lies in a tube
# :label: thm-delaunay-tube
#
# Let $M$ be convex and flat, let every point of it have a class, each class the closure of its interior, and let the samples carry their true classes.
# If $\varepsilon$ is the length of the longest Delaunay edge, every point of the samples' convex hull that the weights misclassify lies within $\varepsilon$ of the true boundary.
# ```
#
# ```{prf:proof}
# A simplex whose corners all have the true class of $z$ gives $z$ this class with weight one.
# So if $z$ is misclassified, a corner $c$ of its simplex has another class, and the segment from $z$ to $c$, which stays in $M$, meets the true boundary.
# Its length is at most the diameter of the simplex, which is its longest edge.
# ```
#
# No Lipschitz constant is needed, and the rate is one.
# We measure it on ever finer jittered grids with a disc as one of the classes, and ask how far from the circle the farthest error lies.
# The second curve has one label in twenty exchanged.

# %%
def farthest_error(side: int, wrong_labels: float) -> tuple[float, float, int]:
    """Longest edge, largest distance of an error from the circle, and errors farther away than the longest edge."""
    place = torch.linspace(0, 1, side, dtype=DOUBLE)
    points = torch.cartesian_prod(place, place)
    free = (points > 0) & (points < 1)  # points of the sides stay on them, so that the hull is the square
    points = points + free * (torch.rand(points.shape, generator=stream, dtype=DOUBLE) - 0.5) * 0.8 / (side - 1)
    labels = ((points - 0.5).norm(dim=1) < 0.3).long()
    labels = torch.where(torch.rand(len(labels), generator=stream) < wrong_labels, 1 - labels, labels)
    found = geometry.triangulate(points, labels)
    query = torch.rand(100_000, 2, generator=stream, dtype=DOUBLE)
    distance = ((query - 0.5).norm(dim=1) - 0.3).abs()
    wrong = geometry.delaunay_classifier(found)(query).argmax(1) != ((query - 0.5).norm(dim=1) < 0.3).long()
    return found.longest_edge, float(distance[wrong].max()), int((distance[wrong] > found.longest_edge).sum())


tube = {noise: [farthest_error(side, noise) for side in p.grids] for noise in (0.0, 0.05)}
eps, far = (np.array([row[i] for row in tube[0.0]]) for i in (0, 1))
rate = float(np.polyfit(np.log(eps), np.log(far), 1)[0])

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: a circle in a square with coarse samples, and the boundaries of the Voronoi and of the weighted Delaunay classifier around it; both follow it in steps. Right: distance of the farthest error from the true boundary against the longest Delaunay edge, both logarithmic. With true labels it falls with slope one below the diagonal; with one label in twenty exchanged it stays large."}}
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.7), width_ratios=(1, 1.25))
place = torch.linspace(0, 1, 301, dtype=DOUBLE)
dense = torch.cartesian_prod(place, place)
for classify, color, style in ((geometry.voronoi_classifier(square, disc), plots.PALETTE[1], "dashed"), (geometry.delaunay_classifier(triangulated), plots.PALETTE[0], "solid")):
    axes[0].contour(place, place, classify(dense).argmax(1).reshape(301, 301).T, levels=[0.5], colors=[color], linestyles=[style])
axes[0].add_patch(plt.Circle((0.5, 0.5), 0.3, fill=False, color="black", linewidth=1))
axes[0].scatter(*square.T, c=np.where(disc == 1, "black", "lightgrey"), s=6)
axes[0].plot([], [], "--", color=plots.PALETTE[1], label="Voronoi")
axes[0].plot([], [], color=plots.PALETTE[0], label="weighted Delaunay")
axes[0].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2)
axes[0].set_aspect("equal")
axes[0].set_axis_off()
for rows, color, style, name in zip(tube.values(), plots.PALETTE, ("-o", "--s"), ("true labels", "one in twenty exchanged"), strict=False):
    axes[1].loglog([row[0] for row in rows], [row[1] for row in rows], style, color=color, label=name)
axes[1].loglog(eps, eps, ":", color="grey", label=r"the tube, $\varepsilon$")
axes[1].minorticks_off()
axes[1].set_xticks(eps, [f"{e:.2g}" for e in eps])
axes[1].set(xlabel=r"longest edge $\varepsilon$", ylabel="farthest error from the boundary")
axes[1].legend(fontsize=8)
plt.show()

# %%
run.claim("bell2023.thm30.6", errors_outside_the_tube=sum(row[2] for row in tube[0.0]), rate=rate)

# %% [markdown]
# ## Wedges
#
# To test what a measurement says of a boundary one needs boundaries whose shape is known.
# The part proposes the $k$-orthant, $x_1, \dots, x_k > 0$, and tips its faces towards each other to make a wedge.
# It does so twice, and differently.
# Definition 30.8 is $\{x_1 > 0,\ x_i > x_1 \tan\theta_{i-1}\}$, which we call the *upper* wedge.
# The centreline of Definition 30.9, $x_i = t \tan(\theta_{i-1}/2)$, and most of the text belong to the *lower* wedge $\{0 < x_i < x_1 \tan\theta_{i-1}\}$.
# For two faces one is what the other leaves of the quadrant.
# Both are open, and an open set has no nearest point; from here on they are closed.
#
# The second crossing of Definition 30.9 runs parallel to the first axis, $x_1 = t$, $x_i = \varepsilon$, and leaves the upper wedge where $t \tan\theta$ reaches $\varepsilon$.

# %%
theta, k, n = torch.tensor([0.3, 0.8, 1.2], dtype=DOUBLE), 4, 6
t = torch.linspace(0.01, 3, 300, dtype=DOUBLE)


def line_through(slopes: torch.Tensor) -> torch.Tensor:
    """Points (300, n) of the line x_1 = t, x_i = t * slope, and 0 in the other coordinates."""
    return torch.cat([t[:, None], t[:, None] * slopes, torch.zeros(len(t), n - k, dtype=DOUBLE)], 1)


centreline, middle_line = line_through((theta / 2).tan()), line_through((math.pi / 4 + theta / 2).tan())
inside = {
    "upper, centreline": geometry.inside_wedge(centreline, theta), "upper, tan(pi/4 + theta/2)": geometry.inside_wedge(middle_line, theta),
    "lower, centreline": geometry.inside_lower_wedge(centreline, theta), "lower, tan(pi/4 + theta/2)": geometry.inside_lower_wedge(middle_line, theta),
}
for name, found in inside.items():
    print(f"{name:>28}: {int(found.sum()):3d} of {len(t)} points inside")
height = 0.5
parallel = torch.full((2, n), height, dtype=DOUBLE)
parallel[:, 0] = torch.tensor([1e-3, 5.0])
crossing = geometry.bisect(geometry.wedge_classifier(theta), parallel[:1], parallel[1:]).point[0, 0]
run.claim("bell2023.wedge", centreline_points_outside=int((~inside["upper, centreline"]).sum()), parallel_crossing_error=float(crossing - height / theta.tan().max()))

# %% [markdown]
# ### The nearest point
#
# The part looks for the nearest point of the angled wedge and stops in mid-sentence.
# There is a short way.
#
# ```{prf:theorem} The nearest point of a wedge
# :label: thm-wedge-projection
#
# The nearest point $p$ of the closed upper wedge to $x$ has $p_i = \max(x_i, p_1 \tan\theta_{i-1})$ for $1 < i \le k$, $p_i = x_i$ for $i > k$, and $p_1 = \max(t, 0)$, where $t$ is the root of the increasing, piecewise linear function
#
# $$g(t) = t - x_1 + \sum_{i=2}^{k} \tan\theta_{i-1}\, \max(0,\ t \tan\theta_{i-1} - x_i) .$$
# ```
#
# ```{prf:proof}
# For fixed $p_1 = t \geq 0$ the constraints on the other coordinates are one each, so each takes the allowed value nearest to $x_i$.
# What remains is half the squared distance as a function of $t$ alone, which is convex with derivative $g$; its minimum over $t \geq 0$ is at the root of $g$, or at 0 where the root is negative.
# ```
#
# In a line of code each, with a grid of candidates in place of the root:

# %% tags=["nbval-check-output"]
point, tangents = torch.tensor([1.0, -0.5, 0.2, 2.0], dtype=DOUBLE), torch.tensor([0.5, -0.4, 1.0], dtype=DOUBLE).tan()
candidates = torch.linspace(0, 3, 3_000_001, dtype=DOUBLE)
distance = (candidates - point[0]).square() + (candidates[:, None] * tangents - point[1:]).clamp_min(0).square().sum(1)
t_best = candidates[distance.argmin()]
print("by the grid:  ", np.round(torch.cat([t_best[None], torch.maximum(point[1:], t_best * tangents)]).numpy(), 4))
print("exact:        ", np.round(geometry.project_wedge(point[None], tangents.atan())[0].numpy(), 4))

# %% [markdown]
# `boundaries.project_wedge` sorts the corners of $g$ and takes the root from the piece that holds it: exact, batched, without iteration; the tests compare it with two quadratic-program solvers.
#
# For *orthogonal* faces, $\theta = 0$, projecting onto one half-space after the other is right, in one sweep and in any order (Lemma 30.11).
# For angled faces the part has two proposals: the same sweep repeated, von Neumann's alternating projections, and a sequence of directions made orthogonal, which amounts to projecting onto the intersection of the *planes* of all violated faces.
# {cite:t}`dykstra1983` has the correction that the first one lacks: each half-space takes back its last step before it makes a new one.

# %%
points = 3 * torch.randn(p.census_points, n, generator=stream, dtype=DOUBLE)
orthogonal = geometry.wedge_normals(n, torch.zeros(k - 1))
in_sequence = geometry.alternating_projections(points, orthogonal[torch.randperm(k, generator=stream)], sweeps=1)
run.claim("bell2023.lemma30.11", distance_from_nearest=float((in_sequence - geometry.project_wedge(points, torch.zeros(k - 1))).norm(dim=1).max()))

# %%
normals, nearest = geometry.wedge_normals(n, theta), geometry.project_wedge(points, theta)
alternating = geometry.alternating_projections(points, normals, sweeps=500)
corrected = geometry.dykstra(points[:500], normals, sweeps=3000)
run.claim(
    "bell2023.pocs",
    distance_from_nearest=float((alternating - nearest).norm(dim=1).max()),
    points_farther_than_nearest=float(((alternating - nearest).norm(dim=1) > 1e-6).double().mean()),
    outside_the_wedge_by=float(-(alternating @ normals.T).min()),
    dykstra_from_nearest=float((corrected - nearest[:500]).norm(dim=1).max()),
)

# %% [markdown]
# Equations 125 and 139 give the directions that the part makes orthogonal.
# They are right: up to length, the first is $w_j$ without its share of $w_i$, the second $w_k$ without its share of both.
# Several equations on the way are not.
# Equation 107 subtracts a number from a vector; 114 asks for $w_{ij} \perp w_j$ where the text asks for $w_{ij} \perp w_i$; 119, 128 and 129 multiply $a_1$ by the sine of the wrong angle, and 120 has a wrong sign; 137 says $w_j$ for $w_k$; 140 to 142 exchange sine and cosine, so that they speak of other planes.
#
# The method itself fails for another reason.
# A face that the point violates need not touch the nearest point, and a face that it respects can.

# %%
e_i, e_j, e_l = torch.eye(n, dtype=DOUBLE)[1:4]
ti, tj, tl = theta
printed_pair = normals[2] - e_i * tj.sin() * ti.tan() + e_j * tj.cos() * ti.tan() ** 2
printed_triple = normals[3] - e_i * tl.sin() * ti.tan() - e_j * tl.sin() * tj.tan() + e_l * tl.cos() * (ti.tan() ** 2 + tj.tan() ** 2)


def without(vector: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """A vector minus its projection onto the span of others (m, n): what Gram and Schmidt leave."""
    return vector - others.T @ torch.linalg.lstsq(others.T, vector[:, None]).solution[:, 0]


direction_error = max(
    float(1 - torch.cosine_similarity(printed, without(normals[m], normals[1:m]), dim=0).abs()) for m, printed in ((2, printed_pair), (3, printed_triple))
)
census = []
for faces in (2, 3, 5, 10, 20, 50):
    cloud = torch.randn(p.census_points, 50, generator=stream, dtype=DOUBLE)
    angles = torch.full((faces - 1,), math.radians(30), dtype=DOUBLE)
    which = geometry.wedge_faces(cloud, angles)
    out = which.violated.any(1)
    exact = geometry.project_wedge(cloud[out], angles)
    equal = (geometry.project_violated(cloud[out], geometry.wedge_normals(50, angles)) - exact).norm(dim=1) < 1e-9
    violated, active = which.violated[out], which.active[out]
    census.append({
        "faces": faces, "violated": float(violated.double().sum(1).mean()), "active": float(active.double().sum(1).mean()),
        "violated, not active": float((violated & ~active).double().sum(1).mean()), "active, not violated": float((active & ~violated).double().sum(1).mean()),
        "right": float(equal.double().mean()), "wrong points": int((~equal).sum()),
    })
census = pd.DataFrame(census)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: violated and active faces per outside point against the number of faces, with two dashed curves for faces in one set but not the other. Right: the share of outside points for which projecting onto the violated planes is right falls from near one at two faces to zero."}}
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.4))
for column, style, color in (("violated", "-o", 0), ("active", "-s", 1), ("violated, not active", "--o", 0), ("active, not violated", "--s", 1)):
    axes[0].loglog(census["faces"], census[column].clip(lower=1e-3), style, color=plots.PALETTE[color], label=column, markersize=4)
axes[0].set(xlabel="faces $k$, each tipped by 30 degrees", ylabel="faces per outside point")
axes[0].legend(fontsize=8)
axes[1].semilogx(census["faces"], census["right"], "-o", color=plots.PALETTE[2])
axes[1].set(xlabel="faces $k$", ylabel="share of points it is right for", title="projecting onto the violated planes", ylim=(-0.02, 1.02))
for ax in axes:
    ax.minorticks_off()
    ax.set_xticks(census["faces"], census["faces"])
plt.show()

# %%
run.claim("bell2023.projection", direction_error=direction_error, points_not_nearest=int(census["wrong points"].sum()), share_right_at_most_faces=float(census["right"].iloc[-1]))

# %% [markdown]
# ### Persistence in a wedge
#
# Chapter 5 measures the $\gamma$-persistence of a point, the largest $\sigma$ up to which Gaussian noise keeps its class with probability $\gamma$, and has a closed form for the orthant: $\sigma^* = d / \Phi^{-1}(\gamma^{1/k})$ at distance $d$ from all $k$ faces.
# Angled faces have an exact form too.
# Given the noise of the first coordinate the other faces are independent, so
#
# $$P(\text{inside}) = \int_{-x_1/\sigma}^{\infty} \varphi(z) \prod_{i=2}^{k} \Phi\!\left(\frac{x_i - (x_1 + \sigma z) \tan\theta_{i-1}}{\sigma}\right) dz ,$$
#
# one integral, whatever $k$.
# We keep the point at distance 1 from every face and vary the number of faces and their angle.

# %%
GAMMA, FARTHEST = 0.7, 64.0


def equidistant(faces: int, angle: float, distance: float = 1.0) -> torch.Tensor:
    """The point at the given signed distance from every face of a wedge whose faces all have one angle."""
    other = distance * (1 + math.sin(angle)) / math.cos(angle)
    return torch.tensor([[distance, *[other] * (faces - 1)]], dtype=DOUBLE)


def wedge_persistence(point: torch.Tensor, faces: int, angle: float) -> float:
    """gamma-persistence of a point of the class inside, or outside, a wedge: the first sigma at which the stability falls below gamma."""
    inside, low, high = bool(geometry.inside_wedge(point, [angle] * (faces - 1))), 1e-2, FARTHEST
    for _ in range(3):  # each round narrows the bracket to one step of its scan
        sigmas = torch.logspace(math.log10(low), math.log10(high), 60, dtype=DOUBLE)
        stable = geometry.wedge_probability(point.expand(60, -1), [angle] * (faces - 1), sigmas)
        under = torch.nonzero((stable if inside else 1 - stable) < GAMMA)
        if not len(under):
            return FARTHEST
        if (at := int(under[0])) == 0:
            return low
        low, high = float(sigmas[at - 1]), float(sigmas[at])
    return high


face_counts, tips = [1, 2, 3, 5, 10, 20, 50], [0, 15, 30, 45, 60, 75]
surface = np.array([[wedge_persistence(equidistant(faces, math.radians(tip)), faces, math.radians(tip)) for tip in tips] for faces in face_counts])
closed = smoothing.wedge_persistence(1.0, np.array(face_counts), GAMMA)
quantile = torch.special.ndtri(torch.tensor([1 - (1 - GAMMA) / faces for faces in face_counts], dtype=DOUBLE))
assert np.allclose(surface[:, 0], closed, rtol=1e-4)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Persistence at unit distance from all faces against their number, one curve for each tip angle. All curves fall steeply from one face to two, where they meet; beyond, the untipped ones fall on along a dotted lower bound and the tipped ones less."}}
figure, ax = plt.subplots(figsize=(5.6, 3.6))
for column, tip in enumerate(tips):
    ax.semilogx(face_counts, surface[:, column], "-o", markersize=4, color=plt.cm.viridis(column / len(tips)), label=f"{tip} degrees")
ax.semilogx(face_counts, 1 / quantile, ":", color="black", label="union bound")
ax.minorticks_off()
ax.set_xticks(face_counts, face_counts)
ax.set(xlabel="faces $k$", ylabel=r"persistence $\sigma^*$ at distance 1")
ax.legend(fontsize=8, title="tipped by")
plt.show()

# %% [markdown]
# Persistence counts faces.
# For two of them the angle changes it by a few per cent, however acute the wedge.
# For more, tipping *raises* it: all faces but the first turn towards one another, until they are nearly a single one, and the point is left with two.
# So acuteness alone lowers no persistence at a given distance, and the union bound $\sigma^* \geq d / \Phi^{-1}(1 - (1-\gamma)/k)$, which knows no angles at all, is nearly attained by the orthant.
#
# The picture that set the part going (section 32) is a path from an image to its adversarial example, along which persistence drops at the boundary.
# A heading asks whether a skewed orthant recreates it.
# We cross a plane, an orthant of ten faces and tipped wedges, along the line through their equidistant points; on the outside the class is the complement, whose persistence can be infinite and is cut at the largest $\sigma$ that we look at.

# %%
path = np.linspace(-1, 1, 24)  # an even number, so that the crossing itself is not among them
crossed = {"plane": (1, 0.0), "2 faces": (2, 0.0), "10 faces": (10, 0.0), "10 faces, tipped by 60 degrees": (10, math.radians(60))}
drops = {name: [wedge_persistence(equidistant(faces, angle, float(at)), faces, angle) for at in path] for name, (faces, angle) in crossed.items()}
inside_outside = {name: drops[name][-1] / drops[name][0] for name in drops}
few, many = face_counts.index(2), face_counts.index(10)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Persistence on a logarithmic axis along the line through the equidistant points of a plane and three wedges, outside on the left. The plane's curve dips symmetrically towards zero at the crossing; those of the wedges stay at the top outside and fall to low values inside, ten faces lowest, tipped ones a little higher."}}
figure, ax = plt.subplots(figsize=(5.8, 3.5))
for (name, curve), color, style in zip(drops.items(), plots.PALETTE, ("-", "--", "-.", ":"), strict=False):
    ax.semilogy(path, curve, style, color=color, label=name)
ax.axvline(0, color="grey", linewidth=0.8)
ax.set(xlabel="signed distance to the faces: outside, inside", ylabel=r"persistence $\sigma^*$")
ax.legend(fontsize=8)
plt.show()

# %% tags=["nbval-check-output"]
run.claim(
    "bell2023.persistence-recreated",
    ratio_plane=round(inside_outside["plane"], 4), ratio_orthant=round(inside_outside["10 faces"], 4),
    change_by_faces=round(1 - surface[many, 0] / surface[few, 0], 4), change_by_angle=round(float(1 - surface[few].min() / surface[few].max()), 4),
    tipped_over_untipped_at_ten_faces=round(float(surface[many, -1] / surface[many, 0]), 4),
)

# %% [markdown]
# A plane gives a symmetric dip to zero and no drop.
# Inside ten faces the persistence is a fraction of what it is at the mirrored point outside: the drop comes back, tipped or not.
#
# ## Singular values of boundary samples
#
# The part samples a boundary, takes singular values, and reads its dimension off the values that drop.
# It begins with orthants: noise of mean zero, projected.
#
# What should one see?
# Clipping a standard normal coordinate at zero leaves mean $1/\sqrt{2\pi}$, second moment $1/2$ and variance $1/2 - 1/2\pi \approx 0.341$.
# So around the *mean*, $k$ directions have $0.584$ of the standard deviation of the others.
# Around *zero*, the mean adds $k/2\pi$ along one of these directions: $k - 1$ values drop, and the last one has variance $0.341 + 0.159\,k$, which for $k \geq 5$ is more than one.
#
# And how small is small?
# A Gaussian sample of $N$ points in $n$ dimensions has singular values that spread over $1 \pm \sqrt{n/N}$ (the law of {cite:t}`marchenko1967`); a value counts as dropped only below that range.
# `boundary_spectrum` estimates the noise from the middle of the spectrum and counts what lies outside.

# %%
n = p.orthant_dimensions
orthant_k = [1, 3, 10, n // 4]
spectra, misses = {}, {"centred": 0, "raw": 0}
for k in orthant_k:
    sample = geometry.project_wedge(torch.randn(20 * n, n, generator=stream, dtype=DOUBLE), torch.zeros(k - 1))
    for way in misses:
        spectra[way, k] = geometry.boundary_spectrum(sample, way=way)
        misses[way] += int(spectra[way, k].dropped != k)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Sorted singular values of samples projected onto orthants of four dimensions, uncentred on the left and centred on the right, over a grey band of what noise explains. Centred, exactly k values lie below the band; uncentred, one value stands far above it instead."}}
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.5), sharey=True)
for ax, way, title in zip(axes, ("raw", "centred"), ("uncentred", "centred"), strict=True):
    for k, color in zip(orthant_k, plots.PALETTE, strict=False):
        found = spectra[way, k]
        ax.plot(range(1, n + 1), found.values, ".", markersize=4, color=color, label=f"k = {k}: {found.dropped} dropped")
    ax.axhspan(found.low, found.high, color="grey", alpha=0.2, linewidth=0)
    ax.set(xlabel="rank of the singular value", title=title)
    ax.legend(fontsize=8)
axes[0].set(ylabel="singular value / sqrt(N)")
plt.show()

# %% tags=["nbval-check-output"]
run.claim("bell2023.orthant-svd", misses_centred=misses["centred"], misses_raw=misses["raw"])

# %% [markdown]
# A "valid experiment" of the part is exact: the differences between points and their projections are combinations of the normals of the faces, so they have rank $k$, for the orthant and for tipped wedges alike.

# %% tags=["nbval-check-output"]
ranks = {"orthant": 0, "wedge": 0}
for k in orthant_k:
    sample = torch.randn(20 * n, n, generator=stream, dtype=DOUBLE)
    for name, angle in (("orthant", 0.0), ("wedge", 0.7)):
        ranks[name] += int(int(torch.linalg.matrix_rank(sample - geometry.project_wedge(sample, [angle] * (k - 1)), rtol=1e-9)) != k)
run.claim("bell2023.projection-differences-svd", misses_orthant=ranks["orthant"], misses_wedge=ranks["wedge"])

# %% [markdown]
# ### The flat distribution
#
# With few samples the noise's own spread hides a drop.
# The part replaces Gaussian noise by a sample whose singular values are all equal: take $X = U \Sigma V$ and put a constant in place of $\Sigma$.
# "$|\Sigma|_2$" is not the constant that keeps the Frobenius norm, in either reading; $\lVert X \rVert_F / \sqrt{r}$ is.
# The figure shows what it is good for: an orthant of five faces with three samples for two dimensions.

# %%
samples = 3 * n // 2
gaussian = torch.randn(samples, n, generator=stream, dtype=DOUBLE)
flat_sample = geometry.flat_spectrum(samples, n, generator=stream)
values = torch.linalg.svdvals(gaussian)
as_printed = [float((constant * math.sqrt(n) - values.norm()).abs() / values.norm()) for constant in (values.max(), values.norm())]
flat_values = torch.linalg.svdvals(flat_sample)
thin = {name: geometry.boundary_spectrum(geometry.project_wedge(noise, torch.zeros(4))) for name, noise in (("Gaussian", gaussian), ("flat", flat_sample))}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Sorted singular values of five-face orthant samples with few points. For Gaussian noise a smooth slope inside the grey noise band; for flat noise a level line with five values clearly below it."}}
figure, ax = plt.subplots(figsize=(5.6, 3.3))
for (name, found), color, marker in zip(thin.items(), plots.PALETTE, ("o", "s"), strict=False):
    ax.plot(range(1, n + 1), found.values, marker, markersize=3, color=color, label=f"{name} noise")
ax.plot(range(1, n + 1), geometry.noise_spectrum(samples - 1, n), "-", color="grey", linewidth=1, label="pure Gaussian noise, law")
ax.set(xlabel="rank of the singular value", ylabel="singular value / sqrt(N)")
ax.legend(fontsize=8)
plt.show()

# %% tags=["nbval-check-output"]
run.claim("bell2023.flat-svd", unevenness=float((flat_values.max() - flat_values.min()) / flat_values.mean()), norm_error_as_printed=min(as_printed))

# %% [markdown]
# ## Trained networks
#
# From here on the boundaries are those of networks.
# A *linear* classifier is trained beside them: its boundaries are planes, so whatever it shows too is no sign of curvature.
#
# Each network gives *natural* crossings, on the line between two test images of different classes, and *adversarial* ones, on the line from a test image to an adversarial example of it, by PGD (the budget in the largest pixel change) and by L-BFGS (the least Euclidean distance, {cite:p}`szegedy2014`).
# Bisection halves a bracket until its two sides are neighbours among the floats of the segment.

# %%
train, test = run.load(p.data, "train").take(p.train), run.load(p.data, "test")
shape, classes = train.x.shape[1:], len(train.classes)
pixels = math.prod(shape)
test_x, test_y = test.x.to(run.device), test.y.to(run.device)


def network(name: str, s: int):
    """A trained network by its name; `linear` has no hidden layer."""
    if name == "linear":
        weight = torch.randn(classes, pixels, generator=torch.Generator().manual_seed(s)) / math.sqrt(pixels)
        model = models.Classifier(nn.Flatten(), heads.LinearHead(weight, torch.zeros(classes)))
    else:
        model = models.build(name, shape, classes, seed=s)
    augment = p.data == "cifar10" and name != "linear"
    return training.fit(model, train.x, train.y, epochs=p.epochs, lr=p.lr, augment=augment, seed=s, device=run.device, cache=run.cache, name=f"{name}-{p.data}-{s}").model


curved = [(name, s) for name in p.networks for s in run.seeds]
keys = [("linear", s) for s in run.seeds] + curved
nets = {key: network(*key) for key in keys}
scores = {key: training.predict(net, test.x) for key, net in nets.items()}
accuracy = {name: np.mean([float((scores[key].argmax(1).cpu() == test.y).double().mean()) for key in keys if key[0] == name]) for name, _ in keys}
display(pd.Series(accuracy, name="test accuracy").to_frame().style.format("{:.3f}"))

# %%
def natural_pairs(key, count: int):
    """Images of different classes, correctly classified: the first ones that the test set holds, each used once."""
    right = torch.nonzero(scores[key].argmax(1) == test_y)[:, 0][: 3 * count]
    i, j = right[: len(right) // 2], right[len(right) // 2 : 2 * (len(right) // 2)]
    differ = test_y[i] != test_y[j]
    return test_x[i][differ][:count], test_x[j][differ][:count], test_y[i][differ][:count]


def crossing(model, a, b) -> dict[str, torch.Tensor]:
    """Where a segment leaves its class, the normal there, and the angle of incidence."""
    found = geometry.bisect(model, a, b)
    own, other = found.classes.T
    normal = geometry.gradient_normals(model, found.point, own, other)
    return {"a": a, "b": b, "point": found.point, "own": own, "other": other, "normal": normal, "degrees": geometry.incidence(b - a, normal), "residual": found.residual, "width": found.width}


def crossings_of(key) -> dict[str, dict[str, torch.Tensor]]:
    """Natural and adversarial crossings of a network, and attacks from points on the natural lines as near to the boundary as images are to theirs."""
    model = nets[key]

    def compute():
        a, b, y = natural_pairs(key, p.pairs)
        found = {"natural": crossing(model, a, b)}
        pgd = attacks.pgd(model, a, y, p.attack_eps, steps=p.attack_steps, loss="margin", generator=torch.Generator().manual_seed(seed))
        least = attacks.lbfgs(model, a, y)
        for name, result in (("PGD", pgd), ("L-BFGS", least)):
            found[name] = crossing(model, a[result.success], result.x_adv[result.success])
        distance = (least.x_adv - a)[least.success].flatten(1).norm(dim=1)
        at, own = found["natural"]["point"], found["natural"]["own"]
        back = (a - at).flatten(1).norm(dim=1)
        start = torch.lerp(at, a, (distance.median() / back).clamp(max=1).reshape(-1, *[1] * len(shape)))
        with torch.no_grad():
            kept = model(start).argmax(1) == own
        matched = attacks.lbfgs(model, start[kept], own[kept])
        found["L-BFGS, matched"] = crossing(model, start[kept][matched.success], matched.x_adv[matched.success])
        return {f"{kind}/{name}": value for kind, parts in found.items() for name, value in parts.items()} | {"distance": distance}

    settings = {"model": models.fingerprint(model), "data": test.sha256, "pairs": p.pairs, "eps": p.attack_eps, "steps": p.attack_steps, "seed": seed}
    unit = run.unit(f"crossings-{key[0]}-{key[1]}", settings, compute, code=[geometry.bisect, geometry.gradient_normals, geometry.incidence, attacks.pgd, attacks.lbfgs, natural_pairs, crossing, crossings_of])
    kinds = {}
    for name, value in unit.items():
        kind, _, part = name.partition("/")
        kinds.setdefault(kind, {})[part] = value.to(run.device)
    return kinds


found = {key: crossings_of(key) for key in keys}
KINDS = ("natural", "PGD", "L-BFGS", "L-BFGS, matched")
distances = {key: float(found[key]["distance"][""].median()) for key in keys}

# %% [markdown]
# ### Skewness
#
# How steeply does a line cross the boundary?
# The angle of incidence at each crossing, beside the null of a uniformly random direction.
# *Matched* attacks start on the natural line itself, as far before its crossing as an image is from its adversarial example in the median: the same place, and another direction.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Cumulative shares of crossings against their angle of incidence, one panel per network. Crossings on lines between images and by PGD are more grazing than those by L-BFGS; all are steeper than the dotted null of random directions."}}
names = ["linear", *p.networks]
figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names) + 1, 3.4), sharey=True, squeeze=False)
null = [geometry.incidence_null(pixels, q) for q in np.linspace(0, 1, 400)]
for ax, name in zip(axes[0], names, strict=True):
    for kind, color, style in zip(KINDS, plots.PALETTE, ("-", "--", "-.", ":"), strict=False):
        degrees = torch.cat([found[key][kind]["degrees"] for key in keys if key[0] == name]).sort().values.cpu()
        ax.plot(degrees, np.arange(1, len(degrees) + 1) / len(degrees), style, color=color, label=kind)
    ax.plot(null, np.linspace(0, 1, 400), ":", color="black", label="random direction")
    ax.set(xlabel="angle of incidence, degrees", title=name, xlim=(0, 90), xticks=range(0, 91, 15))
axes[0, 0].set(ylabel="share of crossings")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
plt.show()

# %%
median = {kind: [float(found[key][kind]["degrees"].median()) for key in curved] for kind in KINDS}
run.claim(
    "bell2023.skewness",
    natural_degrees=median["natural"], adversarial_degrees=median["L-BFGS"], adversarial_degrees_matched=median["L-BFGS, matched"],
    random_degrees=geometry.incidence_null(pixels, 0.5), pgd_degrees=median["PGD"],
    linear_natural_degrees=[float(found["linear", s]["natural"]["degrees"].median()) for s in run.seeds],
    linear_adversarial_degrees=[float(found["linear", s]["L-BFGS"]["degrees"].median()) for s in run.seeds],
)

# %% [markdown]
# The nearest point of a smooth boundary lies along its normal, so an attack of least distance would cross at 0 degrees; L-BFGS falls short of that because the box $[0, 1]$ lets no black pixel go darker.
# The line between two images is chosen without regard to the boundary, and meets it at an angle that is large, though smaller than chance alone would make it.
# PGD spends its budget in every pixel alike, and its angle tells of that more than of the boundary.
# The linear network shows the same order, and its boundaries are planes.
# So a difference in skewness says how a line was chosen; it is no evidence of a wedge.
#
# ### Samples around a crossing
#
# We add noise of the flat distribution to boundary points, interpolate each noisy point towards the parent on the other side, as the part does, and look at the singular values, uncentred and by differences.
# What should one see?
# Around a *plane* with unit normal $\nu$, interpolating along the line of the parents, with direction $u$, is the oblique projection $I - u \nu^\top / (u^\top \nu)$.
# Its singular values are 0 along $\nu$, $1 / \cos\alpha$ for the angle of incidence $\alpha$, and ones: two values that stand out, and neither belongs to an image.
#
# L-BFGS ends *on* the boundary, so that interpolating towards its result would gather half the sample in one point; behind those crossings we take the mirror image of the starting point as the second parent.

# %%
def neighbourhood(key, kind: str, radius: float, count: int) -> tuple:
    """Boundary samples around the first crossings of a kind, these crossings, and the noise, of the given root mean square length."""
    part = {name: value[: p.centers] for name, value in found[key][kind].items()}
    noise = geometry.flat_spectrum(count, pixels, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(run.device)
    offsets = (noise * radius / math.sqrt(pixels)).reshape(count, *shape)
    if kind != "natural":
        mirror = 2 * part["point"] - part["a"]
        with torch.no_grad():
            other = nets[key](mirror).argmax(1) != part["own"]
        part["b"] = torch.where(other.reshape(-1, *[1] * len(shape)), mirror, part["b"])
    one = [geometry.boundary_sample(nets[key], part["a"][i : i + 1], part["b"][i : i + 1], part["point"][i : i + 1], offsets) for i in range(len(part["a"]))]
    both = {name: torch.cat([getattr(sample, name) for sample in one]) for name in ("points", "moved", "inside", "classes")}
    return geometry.BoundarySample(**both), part, offsets


def summary(key, kind: str) -> dict[str, torch.Tensor]:
    """What the singular values and the fitted normals of each neighbourhood say."""

    def compute():
        sample, part, offsets = neighbourhood(key, kind, p.small_radius, p.samples)
        clouds = sample.points.flatten(2)
        normal, spread = geometry.fitted_normals(clouds)
        gradient = part["normal"].flatten(1)
        rows = {"values": [], "raw": [], "alignment raw": [], "alignment differences": [], "low": [], "high": []}
        image, line = (nn.functional.normalize(each.flatten(1).double(), dim=1) for each in (part["point"], part["b"] - part["a"]))
        for i, cloud in enumerate(clouds):
            raw, centred = geometry.boundary_spectrum(cloud, way="raw"), geometry.boundary_spectrum(cloud)
            difference = geometry.boundary_spectrum(cloud, way="differences", generator=torch.Generator().manual_seed(seed))
            rows["values"].append(centred.values / centred.values.median())
            rows["raw"].append(raw.values[:2])
            rows["alignment raw"].append((raw.directions[0] @ image[i]).abs())
            rows["alignment differences"].append((difference.directions[0] @ image[i]).abs())
            rows["low"].append((centred.directions[-1] @ gradient[i].double()).abs())
            rows["high"].append((centred.directions[0] @ line[i]).abs())
        moved = sample.points - (part["point"][:, None] + offsets)
        difference_degrees = torch.stack([geometry.incidence(each, g.expand_as(each)).median() for each, g in zip(moved.flatten(2) + 1e-12, gradient, strict=True)])
        return {name: torch.stack(values) for name, values in rows.items()} | {
            "spread": spread, "fitted": geometry.incidence(normal, gradient), "difference": difference_degrees, "incidence": part["degrees"],
            "other": (sample.classes != part["other"][:, None]).double().mean(1),
        }

    model = nets[key]
    settings = {"model": models.fingerprint(model), "data": test.sha256, "pairs": p.pairs, "centers": p.centers, "samples": p.samples, "radius": p.small_radius, "kind": kind, "eps": p.attack_eps, "steps": p.attack_steps, "seed": seed}
    parts = [geometry.boundary_sample, geometry.boundary_spectrum, geometry.fitted_normals, geometry.flat_spectrum, neighbourhood, summary]
    return run.unit(f"neighbourhoods-{kind}-{key[0]}-{key[1]}".replace(",", "").replace(" ", "-"), settings, compute, code=parts)


around = {(key, kind): summary(key, kind) for key in keys for kind in ("natural", "L-BFGS")}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Singular values of boundary samples around one natural and one adversarial crossing, relative to their median, on a logarithmic axis: a level line, one value at the bottom near zero, and for the natural crossing one value above it at one over the cosine of its angle of incidence."}}
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.4), sharey=True)
key = (p.networks[-1], seed)
for ax, kind in zip(axes, ("natural", "L-BFGS"), strict=True):
    some = around[key, kind]
    for i, color in zip(range(min(3, p.centers)), plots.PALETTE, strict=False):
        ax.plot(range(1, pixels + 1), some["values"][i].clamp_min(1e-4), ".", markersize=4, color=color, label=f"{float(some['incidence'][i]):.0f} degrees")
        ax.plot(1, 1 / math.cos(math.radians(float(some["incidence"][i]))), "x", markersize=9, color=color)
    ax.set(yscale="log", xlabel="rank of the singular value", title=f"{kind} crossings, {key[0]}")
    ax.legend(fontsize=8, title="angle of incidence")
axes[0].set(ylabel="relative to the median")
plt.show()

# %% [markdown]
# The crosses mark $1/\cos\alpha$ at the first rank: the large value of a natural crossing is its angle, and the smallest value its normal.
# The table collects all neighbourhoods.

# %% tags=["hide-input"]
def degenerate(values: torch.Tensor) -> torch.Tensor:
    """Exactly two values off the level: one below half the median, one above twice the median."""
    return ((values < 0.5).sum(1) == 1) & ((values > 2).sum(1) == 1)


table = pd.DataFrame([
    {
        "network": key[0], "run": key[1], "crossing": kind, "planar": float((some["spread"] < 0.05).double().mean()), "two degenerate": float(degenerate(some["values"]).double().mean()),
        "largest value": float(some["values"][:, 0].median()), "1 / cos": float((1 / torch.deg2rad(some["incidence"]).cos()).median()),
        "smallest along gradient": float(some["low"].median()), "largest along the line": float(some["high"].median()), "fitted to gradient": float(some["fitted"].median()), "differences to gradient": float(some["difference"].median()),
    }
    for (key, kind), some in around.items()
])
display(table.groupby(["network", "crossing"], sort=False).mean(numeric_only=True).drop(columns="run").rename(columns={
    "two degenerate": "two off", "largest value": "largest", "1 / cos": "1/cos", "smallest along gradient": "low, normal", "largest along the line": "high, line", "fitted to gradient": "fit", "differences to gradient": "moves",
}).style.format("{:.2f}").set_caption("Neighbourhoods of crossings. Shares of planar ones and of two values off the level; largest value beside 1/cos; cosines of the lowest direction with the normal and of the highest with the parents' line; degrees from the normal of the fitted one and of the moves to the boundary. Medians, mean over runs"))

# %%
natural = {key: around[key, "natural"] for key in curved}
run.claim(
    "bell2023.svd-content",
    first_value_raw=[float(natural[key]["raw"][:, 0].median()) for key in curved], second_value_raw=[float(natural[key]["raw"][:, 1].median()) for key in curved],
    alignment_raw=[float(natural[key]["alignment raw"].median()) for key in curved], alignment_differences=[float(natural[key]["alignment differences"].median()) for key in curved],
)

# %% [markdown]
# The large first value of the uncentred sample is the boundary image itself, and it grows with the image's norm over the noise: a fact about means, not about boundaries.
# Differences remove it.
#
# Is the boundary a plane there?
# In a ball of the small radius we call a neighbourhood planar if the spread along its fitted normal is below a twentieth of the median spread.
# In the larger ball we count the samples that leave the class into a third one, another piece of the boundary.

# %%
def other_pieces(key) -> float:
    """Share of samples in the larger ball that meet a piece of the boundary with a third class."""
    sample, part, _ = neighbourhood(key, "natural", p.large_radius, max(p.samples // 8, 50))
    return float((sample.classes != part["other"][:, None]).double().mean())


other = {key: other_pieces(key) for key in curved}
rows = table[(table["crossing"] == "natural") & (table["network"] != "linear")]
run.claim(
    "bell2023.mnist-plane",
    planar_share=rows["planar"].tolist(), two_degenerate_share=rows["two degenerate"].tolist(),
    other_pieces_large_ball=[other[key] for key in curved], other_pieces_small_ball=[float(natural[key]["other"].mean()) for key in curved],
    adversarial_two_degenerate=table[(table["crossing"] == "L-BFGS") & (table["network"] != "linear")]["two degenerate"].tolist(),
)

# %%
def loss_to_normal(key) -> float:
    """Median angle between the gradient of the cross-entropy of the own class, at natural crossings, and the normal there."""
    part = found[key]["natural"]
    at = part["point"].clone().requires_grad_()
    slope = torch.autograd.grad(nn.functional.cross_entropy(nets[key](at), part["own"], reduction="sum"), at)[0]
    return float(geometry.incidence(slope, part["normal"]).median())


run.claim(
    "bell2023.normals",
    fitted_to_gradient_degrees=rows["fitted to gradient"].tolist(), difference_to_gradient_degrees=rows["differences to gradient"].tolist(),
    loss_gradient_degrees=[loss_to_normal(key) for key in curved],
)

# %% [markdown]
# The normals that a least-squares fit finds are the gradients of the gap between the two scores; the gradient of the loss is near them as well, since of all classes only two have a share in it at a boundary between confident regions.
# The differences between noisy points and their place on the boundary are not: they lie along the lines to the parents, and so at the angle of incidence.
#
# ### The radius of curvature
#
# A plane looks flat at every radius.
# We go a distance $r$ into random tangent directions and look how far along the normal the boundary lies from there, the height $h$, as a share of $r$; where it is not found within $r$, the share counts as one.
# Beside it the angle between the normals at the two places.
# The radius at which $h$ reaches a tenth of $r$ in the median is our radius of curvature; the row also has the radius at which the normals have turned by 30 degrees.
# The largest radius of the range stands for "not within it".

# %%
def bending(key, kind: str) -> dict[str, torch.Tensor]:
    """Heights over the tangent plane, angles between normals, and principal curvatures, for each radius."""
    model = nets[key]

    def compute():
        at, own, other, normal = (found[key][kind][name][: p.curvature_centers] for name in ("point", "own", "other", "normal"))
        frames = geometry.tangent_frames(normal, p.curvature_directions, generator=torch.Generator().manual_seed(seed))
        height, turn, curvature = [], [], []
        for radius in p.curvature_radii:
            h = geometry.heights(model, at, own, normal, radius * frames, radius)
            height.append((h.abs() / radius).nan_to_num(nan=1.0).mean(1))
            seen = ~h.isnan()
            place = (at[:, None] + radius * frames + h.nan_to_num()[(..., *[None] * len(shape))] * normal[:, None])[seen]
            there, here = (each[:, None].expand(h.shape)[seen] for each in (own, other))
            slope = geometry.gradient_normals(model, place, there, here) if bool(seen.any()) else place
            angle = torch.full(h.shape, torch.nan, device=h.device)
            angle[seen] = geometry.incidence(slope, normal[:, None].expand(*h.shape, *shape)[seen])
            turn.append(angle.nanmedian(1).values)
            curvature.append(geometry.curvatures(model, at, own, normal, frames[:, :3], radius))
        return {"height": torch.stack(height), "turn": torch.stack(turn), "curvature": torch.stack(curvature)}

    settings = {"model": models.fingerprint(model), "data": test.sha256, "pairs": p.pairs, "centers": p.curvature_centers, "directions": p.curvature_directions, "radii": list(p.curvature_radii), "kind": kind, "eps": p.attack_eps, "steps": p.attack_steps, "seed": seed}
    return run.unit(f"bending-{kind}-{key[0]}-{key[1]}", settings, compute, code=[geometry.heights, geometry.curvatures, geometry.gradient_normals, geometry.tangent_frames, bending])


bent = {(key, kind): bending(key, kind) for key in keys for kind in ("natural", "L-BFGS")}
radii_shown = np.array(p.curvature_radii)


def radius_reaching(values: torch.Tensor, share: float) -> float:
    """Radius at which the median over the crossings reaches a share, by interpolation of logarithms; the ends of the range where it does not."""
    curve = values.nanmedian(1).values.cpu().numpy()
    above = np.nonzero(curve >= share)[0]
    if not len(above) or above[0] == 0:
        return float(radii_shown[0 if len(above) else -1])
    i = above[0]
    low, high = np.log(np.maximum(curve[i - 1 : i + 1], 1e-12))
    part = (math.log(share) - low) / (high - low)
    return float(radii_shown[i - 1] * (radii_shown[i] / radii_shown[i - 1]) ** part)


bend_radius, turn_radius = ({key: radius_reaching(bent[key, "natural"][name], share) for key in keys} for name, share in (("height", 0.1), ("turn", 30.0)))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: height over the tangent plane as a share of the radius, against the radius, both logarithmic, for linear and curved networks; middle: angle between normals. Both stay near zero for the linear network until other pieces are met and grow for the others. Right: principal curvatures at a middle radius, for natural and adversarial crossings."}}
figure, axes = plt.subplots(1, 3, figsize=(11.4, 3.5))
for name, color in zip(names, plots.PALETTE, strict=False):
    for kind, style in (("natural", "-o"), ("L-BFGS", "--s")):
        curves = np.stack([bent[key, kind]["height"].median(1).values.cpu().numpy() for key in keys if key[0] == name])
        turns = np.stack([bent[key, kind]["turn"].nanmedian(1).values.cpu().numpy() for key in keys if key[0] == name])
        axes[0].loglog(radii_shown, curves.mean(0).clip(1e-4), style, color=color, markersize=4, label=f"{name}, {kind}")
        axes[1].semilogx(radii_shown, turns.mean(0), style, color=color, markersize=4)
    reach = np.mean([distances[key] for key in keys if key[0] == name])
    axes[0].axvline(reach, color=color, linewidth=0.8, linestyle=":")
axes[0].axhline(0.1, color="grey", linewidth=0.8)
axes[0].set(xlabel="radius $r$", ylabel="height / $r$, median")
axes[1].set(xlabel="radius $r$", ylabel="angle between normals, degrees")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names) * 2, fontsize=7)
middle = len(radii_shown) // 2
samples_of = {f"{name}\n{kind}": torch.cat([bent[key, kind]["curvature"][middle].flatten() for key in keys if key[0] == name]).cpu() for name in names for kind in ("natural", "L-BFGS")}
axes[2].boxplot([values[~values.isnan()].numpy() for values in samples_of.values()], showfliers=False, widths=0.6, medianprops={"color": plots.PALETTE[1]})
axes[2].axhline(0, color="grey", linewidth=0.8)
axes[2].set_xticks(range(1, len(samples_of) + 1), samples_of, fontsize=6)
axes[2].set(ylabel="curvature (own class convex: > 0)", title=f"radius {radii_shown[middle]:g}")
plt.show()

# %%
run.claim(
    "bell2023.curvature-radius",
    radius_of_curvature=[bend_radius[key] for key in curved], distance_to_boundary=[distances[key] for key in curved],
    adversarial_radius=[radius_reaching(bent[key, "L-BFGS"]["height"], 0.1) for key in curved],
    radius_of_turning=[turn_radius[key] for key in curved],
)

# %% [markdown]
# Dotted lines mark the median distance of an image to the boundary along L-BFGS.
# A network of ReLUs is flat within each of its linear regions, and what the curves show is how many of them a step of that length crosses.
# The two measures need not agree: heights average over random directions, of which in many dimensions nearly all are flat, while a normal turns with the few that are not.
# What the linear network shows at large radii is not curvature but the next piece of its boundary, where a third class begins: its normals at the places that were found do not turn.
#
# ### The dimpled manifold
#
# {cite:t}`shamir2021` picture the boundary as a sheet that runs along the manifold of the images, with a dimple at each of them; adversarial directions then leave the manifold.
# If so, the boundary's normals should have little length in the directions in which images differ.
# We take the principal directions that hold nine tenths of the training images' variance, and measure the share of squared length in them: of the line between two images, of the boundary's normals, and of a random direction.

# %%
flat = train.x[:10_000].flatten(1).double()
eigenvalues, eigenvectors = torch.linalg.eigh(torch.cov(flat.T))
held = int((eigenvalues.flip(0).cumsum(0) / eigenvalues.sum() < 0.9).sum()) + 1
image_plane = eigenvectors[:, -held:].to(run.device)


def share_in_plane(directions: torch.Tensor) -> float:
    """Mean share of squared length that directions have among the images' principal directions."""
    unit = nn.functional.normalize(directions.flatten(1).double(), dim=1)
    return float((unit @ image_plane).square().sum(1).mean())


shares = {name: [share_in_plane(what(found[key])) for key in curved] for name, what in (
    ("image", lambda f: f["natural"]["b"] - f["natural"]["a"]), ("natural normal", lambda f: f["natural"]["normal"]),
    ("adversarial normal", lambda f: f["L-BFGS"]["normal"]), ("L-BFGS", lambda f: f["L-BFGS"]["b"] - f["L-BFGS"]["a"]),
)}
run.claim(
    "bell2023.dimpled-manifold",
    image_share=shares["image"], normal_share=shares["natural normal"], random_share=held / pixels,
    adversarial_normal_share=shares["adversarial normal"], adversarial_share=shares["L-BFGS"],
    linear_normal_share=[share_in_plane(found["linear", s]["natural"]["normal"]) for s in run.seeds],
)

# %% [markdown]
# The rule asks for two things: that normals hold less of the images' directions than the images' own differences do, and that they hold less than *chance* would.
# The first is what skewness says in other words.
# The second is the prediction that is peculiar to the dimpled manifold.
#
# ### The wedge, the spectrum and the network side by side
#
# Does anything in a trained network look like a wedge?
# Three measurements of one kind of crossing answer together.
# *Persistence* at mirrored points, at equal distance before and behind an adversarial crossing: the ratio is 1 for a plane and small for a wedge.
# The *spectrum* of boundary samples there, centred: a wedge of $k$ faces drops $k$ values, a plane one.
# And the *angle* at which the crossing meets the boundary: the way through the apex of an orthant has $\cos\alpha = 1/\sqrt{k}$ to each of its faces.

# %%
def mirrored(key) -> dict[str, torch.Tensor]:
    """Persistence at points as far behind a PGD crossing as before it, on its segment."""
    model, part = nets[key], {name: value[: p.persistence_pairs] for name, value in found[key]["PGD"].items()}

    def compute():
        before, behind = ((part[end] - part["point"]).flatten(1).norm(dim=1) for end in ("a", "b"))
        distance = torch.minimum(before, behind)
        ends = [torch.lerp(part["point"], part[end], (distance / length).reshape(-1, *[1] * len(shape))) for end, length in (("a", before), ("b", behind))]
        settings = {"samples": p.persistence_samples, "max_sigma": FARTHEST}
        sigma = [smoothing.persistence(model, x.clamp(0, 1), GAMMA, generator=torch.Generator().manual_seed(seed), **settings).sigma for x in ends]
        return {"before": sigma[0], "behind": sigma[1], "distance": distance * torch.deg2rad(part["degrees"]).cos()}

    settings = {"model": models.fingerprint(model), "data": test.sha256, "pairs": p.persistence_pairs, "of": p.pairs, "samples": p.persistence_samples, "eps": p.attack_eps, "steps": p.attack_steps, "seed": seed}
    return run.unit(f"mirrored-{key[0]}-{key[1]}", settings, compute, code=[smoothing.persistence, mirrored])


mirror = {key: mirrored(key) for key in keys}
ratio = {name: torch.cat([(mirror[key]["behind"] / mirror[key]["before"]) for key in keys if key[0] == name]).cpu().double() for name in names}
k_eff = {name: torch.cat([math.log(GAMMA) / torch.special.log_ndtr(mirror[key]["distance"].double() / mirror[key]["behind"].double()) for key in keys if key[0] == name]).cpu() for name in names}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels. Left: persistence behind over before the crossing against the number of faces of a wedge, with the networks' medians as horizontal lines. Middle: singular values of samples of a ten-face wedge, a plane and a network. Right: cumulative angles of incidence of natural and adversarial crossings of two networks, with vertical lines for the way through the apex of orthants of 2, 3 and 10 faces."}}
figure, axes = plt.subplots(1, 3, figsize=(11.4, 3.5))
closed_ratio = surface[:, 0] / surface[0, 0]
axes[0].semilogx(face_counts, closed_ratio, "-o", color="black", markersize=4, label="wedge beside a plane,\nclosed form of chapter 5")
for name, color, style in zip(names, plots.PALETTE, ("-", "--", "-.", ":"), strict=False):
    axes[0].axhline(float(ratio[name].median()), color=color, linestyle=style, label=name)
axes[0].minorticks_off()
axes[0].set_xticks(face_counts, face_counts)
axes[0].set(xlabel="faces $k$", ylabel="persistence behind / before", ylim=(0, None))
axes[0].legend(fontsize=7)
n, k = 64, 10
faces_cloud = geometry.project_wedge(torch.randn(40 * n, n, generator=stream, dtype=DOUBLE), [math.radians(30)] * (k - 1))
plane_cloud = geometry.project_wedge(torch.randn(40 * n, n, generator=stream, dtype=DOUBLE), [])
plane_cloud[:, 0] = 0
for name, values, marker in ((f"wedge, {k} faces", geometry.boundary_spectrum(faces_cloud).values, "o"), ("plane", geometry.boundary_spectrum(plane_cloud).values, "s")):
    axes[1].plot(np.linspace(0, 1, n), values / values.median(), marker, markersize=3, label=name)
last = p.networks[-1]
some = around[(last, seed), "L-BFGS"]["values"].median(0).values
axes[1].plot(np.linspace(0, 1, len(some)), some, ".", markersize=3, label=f"{last}, L-BFGS crossings")
axes[1].set(xlabel="rank / dimensions", ylabel="singular value / median")
axes[1].legend(fontsize=7)
for name, color, style in ((last, 0, "-"), ("linear", 1, "--")):
    for kind, shade in (("natural", 1.0), ("L-BFGS", 0.5)):
        degrees = torch.cat([found[key][kind]["degrees"] for key in keys if key[0] == name]).sort().values.cpu()
        axes[2].plot(degrees, np.linspace(0, 1, len(degrees)), style, color=plots.PALETTE[color], alpha=shade, label=f"{name}, {kind}")
for faces in (2, 3, 10):
    through_apex = float(geometry.incidence(equidistant(faces, 0.0), torch.eye(faces, dtype=DOUBLE)[:1]))
    axes[2].axvline(through_apex, color="black", linewidth=0.8, linestyle=":")
    axes[2].annotate(str(faces), (through_apex, 1.02), xycoords=("data", "axes fraction"), fontsize=7, ha="center")
axes[2].set(xlabel="angle of incidence, degrees", ylabel="share of crossings", xlim=(0, 90), xticks=range(0, 91, 30))
axes[2].set_title("dotted: through the apex of $k$ faces", fontsize=8, pad=14)
axes[2].legend(fontsize=7)
plt.show()

# %% tags=["hide-input"]
display(pd.DataFrame({
    "persistence behind / before, median": {name: float(values.median()) for name, values in ratio.items()},
    "share with less behind": {name: float((values < 1).double().mean()) for name, values in ratio.items()},
    "faces that fit, median": {name: float(values.median()) for name, values in k_eff.items()},
}).style.format("{:.2f}").set_caption("Mirrored points of PGD crossings; faces that fit: ln gamma / ln Phi(distance to the tangent plane / persistence)"))

# %% [markdown]
# The linear network is the ruler here: its classes are intersections of half-spaces, so it, too, may have less room behind a crossing than before it, without any curvature of a single piece.
# Only what a network shows beyond that ruler speaks of bending.
# Where persistence behind the crossing falls far below the ruler's, the curvatures under *The radius of curvature* should lie below zero at adversarial crossings, since then the class behind is the convex one: the cone of chapter 5, found by two measurements that share no step.
#
# ## What did not reproduce, and why
#
# The table collects the verdicts of this run.

# %% tags=["hide-input"]
run.show_verdicts()

# %% [markdown]
# What is refuted falls by a counterexample: an obtuse triangle for the Delaunay edges, a sphere for the dimension, the two readings of one definition for the incidence, one wedge's alternating projections for the nearest point.
# Most of it can be mended, and the corrected statements are short: Gabriel edges for Delaunay edges, a local count for the span, Dykstra's correction or one sorted sum for the projection, a centred sample for the spectrum, a tube of width $\varepsilon$ for a Lipschitz bound.
#
# The measurements on networks share one lesson.
# A large singular value is an image, or an angle of incidence; a skew crossing is a line that was not aimed at the boundary; and a linear network, whose boundaries are planes, shows both.
# Each quantity needs its null beside it, and what is left when the null is taken away differs from network to network, as the tables show.
#
# What this chapter does not settle: whether the pieces of a network's boundary meet at corners that matter, for which one would need the neighbours of a piece and not a sample of it, and the persistence of complements, which has no closed form here beyond the one integral.

# %% [markdown]
# ## Exercises
#
# The first seven are graded: each asks for one function of NumPy arrays, which the tests call at points that they draw themselves.
# They need no result of this chapter's cells, only its ideas; write them without `support.geometry`.

# %% tags=["assignment", "hide-input"]
import itertools
import math

import numpy as np
from scipy.optimize import nnls
from scipy.stats import norm

# %% tags=["assignment-parameters", "hide-input"]
SEED = 0

# %% [markdown] exercise="bracket"
# ```{exercise-start} A bracket, not a point
# :label: ex-boundary-bracket
# ```
# A boundary point that bisection finds is only as good as its two sides.
# Let `classify` give the classes (N,) of points (N, n), and let the ends $a$ and $b$ of $N$ segments, both (N, n), have different classes.
# Write `bracket(classify, a, b, steps)`, which returns two arrays *near* and *far*, both (N,), of places $t$ on the segments $a + t\,(b - a)$ such that
#
# - the class at *near* is the class of $a$,
# - the class at *far* is another one,
# - $\mathit{far} - \mathit{near} = 2^{-\mathit{steps}}$.
#
# All segments are bisected together: `classify` may be called at most `steps` + 2 times.
# There can be more than two classes, and a segment can cross several boundaries; any of the crossings that has the class of $a$ on its near side will do.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="bracket"
# ```{solution-start} ex-boundary-bracket
# :class: dropdown
# ```
# What has to stay true from step to step is the statement about the two sides, so the middle is compared with the class of $a$, and becomes *near* if it has it and *far* if not.
# Compared with the class of $b$ instead, a middle in a third class becomes *near*, and the search runs off to a boundary between the third class and that of $b$.

# %% tags=["solution"] exercise="bracket"
def bracket(classify, a, b, steps):
    """Places near (N,), far (N,) on the segments a + t (b - a): the class of a at near, another at far, 2^-steps apart."""
    ### BEGIN SOLUTION
    own = classify(a)
    near, far = np.zeros(len(a)), np.ones(len(a))
    for _ in range(steps):
        middle = (near + far) / 2
        stays = classify(a + middle[:, None] * (b - a)) == own
        near, far = np.where(stays, middle, near), np.where(stays, far, middle)
    return near, far
    ### END SOLUTION


# %% tags=["tests"] exercise="bracket" points=1
left_ends, right_ends = np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [4.0, 1.0]])
near_side, far_side = bracket(lambda z: (z[:, 0] > 0.3).astype(int), left_ends, right_ends, 20)
assert near_side.shape == far_side.shape == (2,), "one place for each segment"
assert np.allclose(far_side - near_side, 2.0**-20, rtol=1e-6, atol=0), "each step halves the bracket"
assert (near_side <= [0.3, 0.075]).all() and (far_side > [0.3, 0.075]).all(), "the crossings are at 0.3 and 0.075 of the segments, counted from a"

# %% tags=["hidden-tests"] exercise="bracket" points=2
draw = np.random.default_rng(SEED + 1)
slopes_ = draw.normal(size=(5, 4))


def many_classes(z):
    """The class of the largest of five linear scores."""
    return (z @ slopes_.T).argmax(1)


left_ends, right_ends = draw.normal(size=(2, 400, 4)) * 3
differ_ = many_classes(left_ends) != many_classes(right_ends)
left_ends, right_ends = left_ends[differ_], right_ends[differ_]
near_side, far_side = bracket(many_classes, left_ends, right_ends, 30)
own_ = many_classes(left_ends)
assert np.allclose(far_side - near_side, 2.0**-30, rtol=1e-6, atol=0), "the bracket has another width"
assert (many_classes(left_ends + near_side[:, None] * (right_ends - left_ends)) == own_).all(), "the near side must have the class of a, whatever else lies between a and b"
assert (many_classes(left_ends + far_side[:, None] * (right_ends - left_ends)) != own_).all(), "the far side must have another class than a"

# %% tags=["hidden-tests"] exercise="bracket" points=1
calls_ = []


def counted(z):
    """Outside the unit ball or inside, and a note that it was asked."""
    calls_.append(len(z))
    return (np.linalg.norm(z, axis=1) > 1).astype(int)


draw = np.random.default_rng(SEED + 2)
towards = draw.normal(size=(50, 3))
towards *= 2 / np.linalg.norm(towards, axis=1, keepdims=True)
near_side, far_side = bracket(counted, np.zeros((50, 3)), towards, 12)
assert ((near_side <= 0.5 + 1e-9) & (far_side >= 0.5 - 1e-9)).all(), "the sphere is half-way"
assert len(calls_) <= 14, f"12 steps took {len(calls_)} calls of the classifier: bisect all segments at once"

# %% [markdown] tags=["solution-text"] exercise="bracket"
# ```{solution-end}
# ```

# %% [markdown] exercise="ties"
# ```{exercise-start} A tie is not a boundary
# :label: ex-boundary-ties
# ```
# A classifier of the plane has three continuous scores and predicts the class of the largest one; a tie goes to the class with the smallest number, as in `argmax`.
# The *constructive* definition calls a point a boundary point if every ball around it holds two classes or more.
# The *level set* definition calls it one if exactly two scores share the largest value there, and the third is smaller.
#
# Neither contains the other.
# Write `tied_scores(z)`, which maps points (N, 2) to scores (N, 3), such that
#
# - the point $A = (-2, 0)$ belongs to the level set, but not to the constructive boundary,
# - the point $B = (2, 0)$ belongs to the constructive boundary, but not to the level set.
#
# The scores must be continuous: the tests look at pairs of points that are close to each other, anywhere in $[-4, 4]^2$ (Lipschitz constant below 1000), and at the classes on small circles around $A$ and $B$.
# Make the equal scores at $A$ equal exactly.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="ties"
# ```{solution-start} ex-boundary-ties
# :class: dropdown
# ```
# At $A$ two scores must be equal without exchanging their order: they touch, like $0$ and $-\lVert z - A \rVert^2$.
# At $B$ all three scores are equal and do exchange their order, like $u$, $-u$ and $z_2$ with $u = z_1 - 2$; three leaders are not "exactly two".
# A weight that goes from one to the other in between keeps the scores continuous.
# So the level set is neither larger nor smaller than the boundary: it has to be taken among points where the difference changes its sign, and its closure has to be added.

# %% tags=["solution"] exercise="ties"
def tied_scores(z):
    """Continuous scores (N, 3) of points (N, 2): a tie without a boundary at (-2, 0), a boundary without a tie of two at (2, 0)."""
    ### BEGIN SOLUTION
    touch = np.stack([0 * z[:, 0], -(z[:, 0] + 2) ** 2 - z[:, 1] ** 2, -1 + 0 * z[:, 0]], 1)
    meet = np.stack([z[:, 0] - 2, 2 - z[:, 0], z[:, 1]], 1)
    share = np.clip(-z[:, :1], 0, 1)  # 1 around A, 0 around B
    return share * touch + (1 - share) * meet
    ### END SOLUTION


# %% tags=["tests"] exercise="ties" points=1
two_points = tied_scores(np.array([[-2.0, 0.0], [2.0, 0.0]]))
turns_ = 2 * np.pi * np.arange(360) / 360
unit_circle = np.stack([np.cos(turns_), np.sin(turns_)], 1)
assert two_points.shape == (2, 3), "three scores for each point"
leaders_ = np.isclose(two_points, two_points.max(1, keepdims=True), rtol=0, atol=1e-12).sum(1)
assert leaders_[0] == 2, "at A exactly two scores share the largest value"
assert leaders_[1] != 2, "at B the level set definition must fail: one leader, or three"
around_a, around_b = (tied_scores(np.array([[at, 0.0]]) + 0.01 * unit_circle).argmax(1) for at in (-2, 2))
assert len(set(around_a)) == 1, "A is no boundary point: around it there is one class"
assert len(set(around_b)) > 1, "B is a boundary point: around it there are two classes or three"

# %% tags=["hidden-tests"] exercise="ties" points=2
turns_ = 2 * np.pi * (np.arange(720) + 0.123) / 720
for radius_ in (1e-3, 1e-5, 1e-6):
    rim = radius_ * np.stack([np.cos(turns_), np.sin(turns_)], 1)
    inside_a, inside_b = (tied_scores(np.concatenate([centre_, centre_ + rim / 2, centre_ + rim])).argmax(1) for centre_ in (np.array([[-2.0, 0.0]]), np.array([[2.0, 0.0]])))
    assert len(set(inside_a)) == 1, f"two classes within {radius_} of A"
    assert len(set(inside_b)) > 1, f"one class only within {radius_} of B"
at_both = np.sort(tied_scores(np.array([[-2.0, 0.0], [2.0, 0.0]])), 1)
assert at_both[0, 2] - at_both[0, 1] < 1e-12 and at_both[0, 1] - at_both[0, 0] > 1e-9, "A: two equal leaders and a smaller third score"
assert not (at_both[1, 2] - at_both[1, 1] < 1e-12 and at_both[1, 1] - at_both[1, 0] > 1e-9), "B must not belong to the level set"

# %% tags=["hidden-tests"] exercise="ties" points=1
draw = np.random.default_rng(SEED + 3)
spots = np.concatenate([draw.uniform(-4, 4, (20_000, 2)), np.array([[-2.0, 0.0], [2.0, 0.0]]).repeat(2_000, 0)])
for gap in (1e-2, 1e-4, 1e-7):
    beside_ = spots + gap * draw.normal(size=spots.shape)
    jumps_ = np.abs(tied_scores(beside_) - tied_scores(spots)).max(1) / np.linalg.norm(beside_ - spots, axis=1)
    assert np.isfinite(jumps_).all() and jumps_.max() < 1000, "the scores jump: a step makes any set a boundary"
across = np.stack([np.linspace(-4, 4, 80_001), np.zeros(80_001)], 1)
assert np.abs(np.diff(tied_scores(across), axis=0)).max() < 0.1, "the scores jump on the way from A to B"

# %% [markdown] tags=["solution-text"] exercise="ties"
# ```{solution-end}
# ```

# %% [markdown] exercise="midpoint"
# ```{exercise-start} Straight from one cell into the other
# :label: ex-boundary-midpoint
# ```
# The Voronoi cell of a point holds the places that are nearer to it than to all other points.
# The segment between two points of a set may lead straight from one cell into the other, through the face that they share; or it may pass through the cell of a third point, even where the two cells do touch.
# It does the former exactly if *one* place of the segment passes a test.
# Find the place and the test, and write `direct_edges(points)`, which takes points (n, d) in general position and returns a symmetric boolean array (n, n): whether the segment from $i$ to $j$ meets no third cell; `False` on the diagonal.
#
# The tests walk along the segments in 2, 3 and 6 dimensions.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="midpoint"
# ```{solution-start} ex-boundary-midpoint
# :class: dropdown
# ```
# Along the segment the squared distances to two points differ by a linear function of the place, so a third point $k$ that is nearer than $i$ somewhere between $i$ and the middle is nearer at the middle; the other half goes likewise with $j$.
# So the middle $m$ decides: no third point may lie in the ball over the segment, $\lVert k - m \rVert < \lVert i - j \rVert / 2$.
# By the parallelogram law $4 \lVert k - m \rVert^2 = 2 \lVert k - i \rVert^2 + 2 \lVert k - j \rVert^2 - \lVert i - j \rVert^2$, and the test becomes one of Thales and Pythagoras: there is no $k$ with $\lVert k - i \rVert^2 + \lVert k - j \rVert^2 < \lVert i - j \rVert^2$, that is, none that sees the segment under an obtuse angle.
# These are the edges of Gabriel, a part of Delaunay's.

# %% tags=["solution"] exercise="midpoint"
def direct_edges(points):
    """(n, n) bool: which segments between points (n, d) pass no third Voronoi cell."""
    ### BEGIN SOLUTION
    squares = ((points[:, None] - points[None]) ** 2).sum(2)
    seen = (squares[:, None, :] + squares[None, :, :] < squares[:, :, None]).any(2)
    return ~seen & ~np.eye(len(points), dtype=bool)
    ### END SOLUTION


# %% tags=["tests"] exercise="midpoint" points=1
flat_triangle = direct_edges(np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 0.9]]))
steep_triangle = direct_edges(np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 3.6]]))
assert flat_triangle.shape == (3, 3) and not flat_triangle.diagonal().any(), "(n, n), and no edge from a point to itself"
assert flat_triangle[0, 2] and flat_triangle[1, 2], "the short sides of the flat triangle meet two cells only"
assert not flat_triangle[0, 1], "the long side of the flat triangle passes through the cell of the third point, although it is a Delaunay edge"
assert steep_triangle.sum() == 6, "all three sides of the steep triangle meet two cells only, in both directions"

# %% tags=["hidden-tests"] exercise="midpoint" points=3
for dimensions_, count_ in ((2, 18), (3, 16), (6, 14)):
    cloud_ = np.random.default_rng(SEED + 10 * dimensions_).uniform(size=(count_, dimensions_))
    found = np.asarray(direct_edges(cloud_))
    assert found.shape == (count_, count_) and (found == found.T).all(), "a symmetric (n, n) array"
    for i, j in itertools.combinations(range(count_), 2):
        walk = cloud_[i] + np.linspace(0, 1, 101)[:, None] * (cloud_[j] - cloud_[i])
        away = np.linalg.norm(walk[:, None] - cloud_[None], axis=2)
        pair_, third_ = np.minimum(away[:, i], away[:, j]), np.delete(away, [i, j], 1).min(1)
        if abs((third_ - pair_).min()) > 1e-9:  # a walk that decides
            assert found[i, j] == ((third_ - pair_).min() > 0), f"in {dimensions_} dimensions a walk from one point to the other says otherwise"

# %% [markdown] tags=["solution-text"] exercise="midpoint"
# ```{solution-end}
# ```

# %% [markdown] exercise="weights"
# ```{exercise-start} Weights of the right triangle
# :label: ex-boundary-weights
# ```
# A query in the plane gets barycentric weights from the corners $a, b, c$ of a triangle that holds it: the numbers $w \ge 0$ with $w_a + w_b + w_c = 1$ and $w_a\, a + w_b\, b + w_c\, c = q$.
# Many triangles of sample points hold it; the weighted Delaunay classifier takes the one whose circumscribed circle holds no other sample point, and adds up its weights by the labels of the corners.
#
# Write `label_weights(points, labels, queries, classes)`, which returns these sums as an array (N, classes), from sample points (n, 2) with `labels` (n,) and queries (N, 2).
# A query outside all triangles gets zeros.
# Use linear algebra only, no Delaunay triangulation of a library: with 15 points at most, all triples can be tried.
# The points are in general position (no three on a line, no four on a circle), and no query lies on an edge.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="weights"
# ```{solution-start} ex-boundary-weights
# :class: dropdown
# ```
# With the edges $e = b - a$ and $e' = c - a$, the centre $m$ of the circle has $2\, e^\top (m - a) = \lVert e \rVert^2$ and the same for $e'$: two linear equations.
# The weights of $b$ and $c$ solve $w_b\, e + w_c\, e' = q - a$, two more, and $w_a$ is what is left of one.
# The triangles with an empty circle cover the convex hull once, so each query inside meets exactly one of them.
# The three *nearest* sample points need not even be a triangle that holds the query.

# %% tags=["solution"] exercise="weights"
def label_weights(points, labels, queries, classes):
    """Barycentric weights of queries (N, 2) in their Delaunay triangles, summed by label: (N, classes), zeros outside the hull."""
    ### BEGIN SOLUTION
    out = np.zeros((len(queries), classes))
    for corners in itertools.combinations(range(len(points)), 3):
        start, edges = points[corners[0]], points[list(corners[1:])] - points[corners[0]]
        to_centre = np.linalg.solve(2 * edges, (edges**2).sum(1))
        distances = ((points - start - to_centre) ** 2).sum(1)
        if (np.delete(distances, corners) < to_centre @ to_centre).any():
            continue
        others = np.linalg.solve(edges.T, (queries - start).T)
        shares = np.concatenate([1 - others.sum(0, keepdims=True), others])
        inside = (shares >= 0).all(0)
        for corner, share in zip(corners, shares, strict=True):
            out[inside, labels[corner]] += share[inside]
    return out
    ### END SOLUTION


# %% tags=["tests"] exercise="weights" points=1
corners_ = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
found = label_weights(corners_, np.array([0, 1, 1]), np.array([[1.0, 2.0], [3.0, 3.0]]), 3)
assert found.shape == (2, 3), "one row for each query, one column for each class"
assert np.allclose(found[0], [0.25, 0.75, 0]), "the weights of the corners are 1/4, 1/4 and 1/2; two of them have label 1"
assert np.allclose(found[1], 0), "no triangle holds the second query"

# %% tags=["hidden-tests"] exercise="weights" points=1
kite = np.array([[0.0, 0.0], [4.0, 0.1], [2.0, 1.0], [2.1, -1.2]])  # two triangles on either diagonal; the short one is Delaunay's
found = label_weights(kite, np.array([0, 1, 2, 3]), np.array([[1.0, 0.1], [2.02, 0.0], [3.0, -0.1]]), 4)
assert np.allclose(found.sum(1), 1) and (found >= 0).all(), "weights are not negative and add up to one"
assert (found[:2, 1] == 0).all() and found[2, 0] == 0, "of the two triangulations of four points the one with empty circles counts"

# %% tags=["hidden-tests"] exercise="weights" points=3
from scipy.spatial import Delaunay

draw = np.random.default_rng(SEED + 4)
for count_ in (6, 13):
    cloud_, marks_, asked = draw.uniform(size=(count_, 2)), draw.integers(0, 3, count_), draw.uniform(size=(60, 2))
    mesh_ = Delaunay(cloud_)
    cell_ = mesh_.find_simplex(asked)
    wanted = np.zeros((60, 3))
    for q in np.flatnonzero(cell_ >= 0):
        trio = mesh_.simplices[cell_[q]]
        np.add.at(wanted[q], marks_[trio], np.linalg.solve(np.vstack([cloud_[trio].T, np.ones(3)]), [*asked[q], 1]))
    assert np.allclose(label_weights(cloud_, marks_, asked, 3), wanted, atol=1e-6), f"with {count_} random points some weights differ from those of the Delaunay triangulation"

# %% [markdown] tags=["solution-text"] exercise="weights"
# ```{solution-end}
# ```

# %% [markdown] exercise="wedge"
# ```{exercise-start} The nearest point of a wedge
# :label: ex-boundary-wedge
# ```
# A closed wedge is an intersection of half-spaces through the origin, $C = \{ x : \nu_i^\top x \ge 0,\ i = 1, \dots, k \}$, with inward unit normals $\nu_i$ that are linearly independent, at *any* angles to one another.
# Write `nearest_in_wedge(x, normals)`, which returns the nearest points of $C$, (N, n), to the points `x` (N, n), exact to $10^{-6}$; `normals` has the shape (k, n), with $k \le 5$.
#
# Begin with the conditions of Karush, Kuhn and Tucker: $p$ is the nearest point exactly if it lies in $C$ and
#
# $$p - x = \sum_i \lambda_i \nu_i \quad \text{with} \quad \lambda_i \ge 0 \quad \text{and} \quad \lambda_i\, \nu_i^\top p = 0 .$$
#
# The tests check them.
# Three ways lead there: find the $\lambda_i$ directly as the answer to a least squares problem, search the subsets of faces that can be active, or project onto one half-space after the other with a correction.
# Without a correction, the last one ends in the wrong place; and the faces that $x$ violates are not the ones that are active.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="wedge"
# ```{solution-start} ex-boundary-wedge
# :class: dropdown
# ```
# Let $\lambda \ge 0$ minimise $\lVert x + \sum_i \lambda_i \nu_i \rVert^2$.
# The derivative with respect to $\lambda_i$ is $2\, \nu_i^\top p$ with $p = x + \sum_i \lambda_i \nu_i$; at the minimum it is zero where $\lambda_i > 0$ and not negative where $\lambda_i = 0$.
# These are the conditions, so the nearest point is the residual of a non-negative least squares problem, which `nnls` solves by trying active sets.
# Dykstra's method minimises the same function over one $\lambda_i$ after the other.
# Alternating projections without a correction keep what an earlier, farther point has made them add; projecting onto all violated planes at once forces $\nu_i^\top p = 0$ with a $\lambda_i$ that may be negative.

# %% tags=["solution"] exercise="wedge"
def nearest_in_wedge(x, normals):
    """Nearest points (N, n) of the wedge with inward unit normals (k, n) to x (N, n)."""
    ### BEGIN SOLUTION
    return np.stack([one + nnls(normals.T, -one)[0] @ normals for one in x])
    ### END SOLUTION


# %% tags=["tests"] exercise="wedge" points=2
starts_ = np.random.default_rng(SEED + 5).normal(size=(20, 4))
orthant_ = nearest_in_wedge(starts_, np.eye(4)[:3])
assert orthant_.shape == (20, 4), "a point for each point"
assert np.allclose(orthant_, np.concatenate([starts_[:, :3].clip(0), starts_[:, 3:]], 1), atol=1e-6), "the nearest point of an orthant cuts the negative coordinates off, and leaves the others"

# %% tags=["hidden-tests"] exercise="wedge" points=2
sixty = np.array([[1.0, 0.0], [-math.sin(math.pi / 3), math.cos(math.pi / 3)]])
asked = np.array([[0.1, -5.0], [1.0, 4.0], [2.0, 0.0], [-1.0, 2.0], [-1.0, -3.0]])
ray = np.array([0.5, math.sqrt(0.75)])
found = nearest_in_wedge(asked, sixty)
assert np.allclose(found[0], 0, atol=1e-6), "(0.1, -5) violates one face of the 30 degree wedge, but its nearest point is the apex, where both are active"
assert np.allclose(found[1], asked[1], atol=1e-6), "a point inside is its own nearest point"
assert np.allclose(found[2], ray * (ray @ asked[2]), atol=1e-6), "(2, 0) lands on the slanted face"
assert np.allclose(found[3], [0, 2], atol=1e-6) and np.allclose(found[4], 0, atol=1e-6), "(-1, 2) lands on the upright face, (-1, -3) on the apex"

# %% tags=["hidden-tests"] exercise="wedge" points=3
draw = np.random.default_rng(SEED + 6)
tips_ = draw.uniform(0.2, 1.2, 4)
tipped_ = np.zeros((5, 6))
tipped_[0, 0], tipped_[1:, 0] = 1, -np.sin(tips_)
tipped_[range(1, 5), range(1, 5)] = np.cos(tips_)
frame = np.linalg.qr(draw.normal(size=(4, 4)))[0][:3]
any_angle = frame + draw.uniform(-0.4, 0.4, (3, 3)) @ frame
any_angle /= np.linalg.norm(any_angle, axis=1, keepdims=True)
for faces_ in (tipped_, any_angle):
    asked = 2 * draw.normal(size=(40, faces_.shape[1]))
    found = nearest_in_wedge(asked, faces_)
    assert (found @ faces_.T > -1e-5).all(), "a point was put outside the wedge"
    pull = (found - asked) @ np.linalg.pinv(faces_)  # the multipliers, since the normals are independent
    assert np.allclose(pull @ faces_, found - asked, atol=1e-5), "a point was moved in a direction that no face pulls in"
    assert (pull > -1e-5).all(), "a face pushes the point outwards: it is violated and yet not active"
    assert (np.abs(pull * (found @ faces_.T)) < 1e-4).all(), "a face pulls at a point that does not touch it: the point has gone too far"

# %% [markdown] tags=["solution-text"] exercise="wedge"
# ```{solution-end}
# ```

# %% [markdown] exercise="spectrum"
# ```{exercise-start} What a corner does to a spectrum
# :label: ex-boundary-spectrum
# ```
# A cloud of points has the coordinates $c_i + \sigma z_i$ in $n$ dimensions, with independent standard normal $z_i$; the centre $c$ has $c_i = d$ for $i \le k$ and $c_i = 0$ beyond, and $d$ can have either sign.
# Every point is projected onto the orthant $\{x_1, \dots, x_k \ge 0\}$.
# The eigenvalues of the sample's second moments tell how many faces there are, if they are taken around the right place.
#
# Write `orthant_spectrum(k, n, d, sigma, centred)`, which returns the $n$ eigenvalues in the limit of many points, largest first: of the covariance matrix $\mathbb{E}[(x - \mathbb{E}x)(x - \mathbb{E}x)^\top]$ if `centred`, otherwise of $\mathbb{E}[x x^\top]$.
# Derive a closed form in the density $\varphi$ and the distribution function $\Phi$ of the standard normal law (`norm.pdf`, `norm.cdf`); no sampling.
# The visible test has $d = 0$, $\sigma = 1$; $k = 0$ means that nothing is cut off.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="spectrum"
# ```{solution-start} ex-boundary-spectrum
# :class: dropdown
# ```
# The projection cuts each of the first $k$ coordinates off by itself, $x_i = \max(0, d + \sigma z_i)$.
# With $r = d/\sigma$, and since $z \varphi(z) = -\varphi'(z)$, its mean and second moment are
#
# $$m = d\, \Phi(r) + \sigma \varphi(r), \qquad q = (d^2 + \sigma^2)\, \Phi(r) + d\, \sigma \varphi(r) .$$
#
# The coordinates stay independent, so the covariance matrix is diagonal, with $q - m^2$ at $k$ places and $\sigma^2$ at the others.
# Around zero, every pair of cut coordinates has the moment $m^2$: the matrix is the covariance plus $m^2$ times the matrix of ones on the first $k$ coordinates, whose one eigenvalue is $k$.
# So $k - 1$ eigenvalues are $q - m^2$, and one is $q - m^2 + k m^2$, which can hide a face.

# %% tags=["solution"] exercise="spectrum"
def orthant_spectrum(k, n, d, sigma, centred):
    """Eigenvalues (n,), descending, of the second moments of Gaussian noise around (d, ..., d, 0, ..., 0), projected onto the k-orthant."""
    ### BEGIN SOLUTION
    r = d / sigma
    mean = d * norm.cdf(r) + sigma * norm.pdf(r)
    variance = (d**2 + sigma**2) * norm.cdf(r) + d * sigma * norm.pdf(r) - mean**2
    values = np.array([variance] * k + [sigma**2] * (n - k), dtype=float)
    if k and not centred:
        values[0] += k * mean**2
    return np.sort(values)[::-1]
    ### END SOLUTION


# %% tags=["tests"] exercise="spectrum" points=1
found = orthant_spectrum(2, 5, 0.0, 1.0, True)
assert len(found) == 5, "n eigenvalues"
assert np.allclose(found[:3], 1) and np.allclose(found[3:], 0.5 - 0.5 / np.pi), "a coordinate that is cut off at zero has the second moment 1/2, the mean 1/sqrt(2 pi), and the variance 1/2 - 1/(2 pi)"

# %% tags=["hidden-tests"] exercise="spectrum" points=2
shape_of_noise = np.linspace(-12, 12, 400_001)
density_ = np.exp(-0.5 * shape_of_noise**2) / math.sqrt(2 * math.pi) * (shape_of_noise[1] - shape_of_noise[0])
draw = np.random.default_rng(SEED + 7)
for k_, n_ in ((1, 3), (3, 3), (4, 9)):
    place_, spread_ = draw.normal(), draw.uniform(0.3, 2)
    cut = (place_ + spread_ * shape_of_noise).clip(0)
    mean_, second_ = float(cut @ density_), float(cut**2 @ density_)
    wanted = np.sort(np.array([second_ - mean_**2] * k_ + [spread_**2] * (n_ - k_)))[::-1]
    assert np.allclose(orthant_spectrum(k_, n_, place_, spread_, True), wanted, atol=1e-6), f"centred: d = {place_:.2f}, sigma = {spread_:.2f}, {k_} faces in {n_} dimensions"

# %% tags=["hidden-tests"] exercise="spectrum" points=2
draw = np.random.default_rng(SEED + 8)
shape_of_noise = np.linspace(-12, 12, 400_001)
density_ = np.exp(-0.5 * shape_of_noise**2) / math.sqrt(2 * math.pi) * (shape_of_noise[1] - shape_of_noise[0])
for k_, n_ in ((1, 3), (3, 3), (6, 9)):
    place_, spread_ = draw.normal(), draw.uniform(0.3, 2)
    cut = (place_ + spread_ * shape_of_noise).clip(0)
    mean_, second_ = float(cut @ density_), float(cut**2 @ density_)
    matrix_ = np.diag([spread_**2] * n_)
    matrix_[:k_, :k_] = mean_**2
    matrix_[range(k_), range(k_)] = second_
    assert np.allclose(orthant_spectrum(k_, n_, place_, spread_, False), np.linalg.eigvalsh(matrix_)[::-1], atol=1e-6), "not centred: different coordinates have a second moment in common, too"
assert np.allclose(orthant_spectrum(0, 4, 0.5, 2.0, False), 4), "without faces the noise is what it was"

# %% [markdown] tags=["solution-text"] exercise="spectrum"
# ```{solution-end}
# ```

# %% [markdown] exercise="drop"
# ```{exercise-start} The drop at a corner
# :label: ex-boundary-drop
# ```
# The $\gamma$-persistence of a point is the largest $\sigma$ up to which Gaussian noise $\sigma z$ keeps its class with probability at least $\gamma$; it is infinite where no amount of noise brings the probability below $\gamma$.
# One class is the orthant $\{x_1, \dots, x_k > 0\}$, the other one all the rest.
# The point has the same signed distance $d \neq 0$ to all $k$ faces, $x_1 = \dots = x_k = d$: it lies in the orthant for $d > 0$, and behind its corner for $d < 0$.
#
# Write `corner_persistence(d, k, gamma)`, a closed form of numbers, for both sides and all $0 < \gamma < 1$; return `math.inf` where it is infinite.
# The distribution function of the standard normal law is `norm.cdf`, its inverse `norm.ppf`.
# Before you begin: which share of the noise lands in the orthant when $\sigma$ is very large?
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="drop"
# ```{solution-start} ex-boundary-drop
# :class: dropdown
# ```
# The noise lands in the orthant with probability $\Phi(d/\sigma)^k$, which tends to $2^{-k}$ as $\sigma$ grows, from above for $d > 0$ and from below for $d < 0$.
#
# Inside, the class is kept with that probability: it falls below $\gamma$ only if $2^{-k} < \gamma$, and then at $\sigma = d / \Phi^{-1}(\gamma^{1/k})$.
# Behind the corner it is kept with probability $1 - \Phi(d/\sigma)^k$, which falls to $1 - 2^{-k}$: below $\gamma$ only if $1 - 2^{-k} < \gamma$, and then at $\sigma = d / \Phi^{-1}((1 - \gamma)^{1/k})$.
# A plane, $k = 1$, is symmetric.
# With $\gamma = 0.7$ two faces are enough to make the persistence behind them infinite: the drop of persistence on the way into the class of an adversarial example is the solid angle of a corner.

# %% tags=["solution"] exercise="drop"
def corner_persistence(d, k, gamma):
    """gamma-persistence of the point at the signed distance d from all k faces of an orthant, outside for d < 0; may be infinite."""
    ### BEGIN SOLUTION
    landed = gamma if d > 0 else 1 - gamma  # probability of the orthant at which the class is lost
    far = 2.0**-k
    if (d > 0 and far >= landed) or (d < 0 and far <= landed):
        return math.inf
    return d / norm.ppf(landed ** (1 / k))
    ### END SOLUTION


# %% tags=["tests"] exercise="drop" points=1
assert abs(corner_persistence(1.0, 1, 0.7) - 1 / norm.ppf(0.7)) < 1e-9, "one face: the noise crosses the plane with probability Phi(-1 / sigma)"
assert abs(corner_persistence(-2.0, 1, 0.7) - 2 / norm.ppf(0.7)) < 1e-9, "a plane is the same from both sides, and twice the distance bears twice the noise"
assert abs(norm.cdf(1 / corner_persistence(1.0, 10, 0.7)) ** 10 - 0.7) < 1e-9, "ten faces: at the persistence the probability of staying inside is gamma"

# %% tags=["hidden-tests"] exercise="drop" points=2
draw = np.random.default_rng(SEED + 9)
for k_, gamma_ in ((1, 0.9), (2, 0.9), (3, 0.95), (5, 0.999)):
    far_off = draw.uniform(0.2, 3)
    for side_ in (far_off, -far_off):
        noise_ = corner_persistence(side_, k_, gamma_)
        assert 0 < noise_ < math.inf, f"finite and positive at d = {side_:.2f}, {k_} faces, gamma = {gamma_}"
        kept = norm.cdf(side_ / noise_) ** k_ if side_ > 0 else 1 - norm.cdf(side_ / noise_) ** k_
        assert abs(kept - gamma_) < 1e-9, f"at the persistence the class is kept with probability gamma: d = {side_:.2f}, {k_} faces"

# %% tags=["hidden-tests"] exercise="drop" points=2
assert corner_persistence(-1.0, 2, 0.7) == math.inf, "behind two faces at least 3/4 of the noise stays outside"
assert corner_persistence(-0.3, 10, 0.99) == math.inf, "behind ten faces at most one in 1024 lands inside"
assert corner_persistence(1.0, 1, 0.4) == math.inf and corner_persistence(-1.0, 1, 0.4) == math.inf, "half of the noise stays on either side of a plane, however strong it is"
assert corner_persistence(0.5, 3, 0.1) == math.inf, "an eighth of the noise stays inside three faces"
assert 0 < corner_persistence(0.5, 3, 0.2) < math.inf and 0 < corner_persistence(-0.5, 3, 0.9) < math.inf, "just above these shares the persistence is finite"

# %% [markdown] tags=["solution-text"] exercise="drop"
# ```{solution-end}
# ```

# %% [markdown]
# ### Further exercises
#
# These have no points, and use what the chapter has computed.
#
# ```{exercise-start} The other reading
# :label: ex-boundary-angle
# ```
# A line with direction $u$ crosses a plane with unit normal $\nu$ at the angle of incidence $\alpha$, measured to the normal.
# Show that the oblique projection $P = I - u \nu^\top / (u^\top \nu)$ along $u$ onto the plane has the singular values $0$, $1/\cos\alpha$ and $1$, and say to which directions they belong.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-boundary-angle
# :class: dropdown
# ```
# On vectors orthogonal to both $u$ and $\nu$, $P$ is the identity, which leaves a plane.
# There $P u = 0$, and $P$ has rank one, so its only other singular value is the length of $P w$ for the unit vector $w \perp u$.
# With $w = (\nu - \cos\alpha\, u)/\sin\alpha$ for unit $u$ one has $w^\top \nu = \sin\alpha$ and $P w = w - u \tan\alpha$, whose length is $\sqrt{1 + \tan^2\alpha} = 1/\cos\alpha$.
# A sample of noise $z$ becomes $P z$: its spread is $0$ along $\nu$, since $\nu^\top P = 0$, and largest along $P w$, the part of $u$ within the plane.

# %% tags=["nbval-check-output"]
alpha = math.radians(70)
u, nu = torch.tensor([math.cos(alpha), math.sin(alpha), 0.0], dtype=DOUBLE), torch.eye(3, dtype=DOUBLE)[0]
print(np.round(torch.linalg.svdvals(torch.eye(3, dtype=DOUBLE) - torch.outer(u, nu) / (u @ nu)).numpy(), 6), "and 1 / cos =", round(1 / math.cos(alpha), 6))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A face that is not violated, and active
# :label: ex-boundary-active
# ```
# Find a point of the plane and an upper wedge with two faces such that the point violates one face only and its nearest point is the apex, where both are active.
# Which of the methods in this chapter find it?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-boundary-active
# :class: dropdown
# ```
# Take $\theta = 60$ degrees and $x = (0.1, -5)$: it satisfies $x_1 > 0$, and violates $x_2 > x_1 \tan\theta$.
# Projecting onto that face's line gives a point with $x_1 < 0$, which violates the other face.
# The root of $g$ is negative, so the nearest point is the apex.
# Dykstra's method and the closed form find it; the plane of the violated face alone does not, and alternating projections happen to, because the second face sends the point to the line $x_1 = 0$ and back until it reaches the apex.

# %% tags=["nbval-check-output"]
x, sixty = torch.tensor([[0.1, -5.0]], dtype=DOUBLE), [math.radians(60)]
faces = geometry.wedge_faces(x, sixty)
print("violated", faces.violated.tolist()[0], "active", faces.active.tolist()[0])
print("violated plane alone:", np.round(geometry.project_violated(x, geometry.wedge_normals(2, sixty)).numpy(), 3), "nearest:", np.round(geometry.project_wedge(x, sixty).numpy() + 0.0, 3))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise} Two radii of one sphere
# :label: ex-boundary-sphere
#
# Sample the boundary of a ball of radius $R$ in $n$ dimensions around one of its points with noise of length $r$, and predict the smallest singular value from $r$, $R$ and $n$.
# At which $r$ would the sample be called planar by this chapter's rule?
# ```
#
# ```{exercise} Gabriel classifiers
# :label: ex-boundary-gabriel
#
# The nearest-neighbour classifier does not change when a training point is removed none of whose Delaunay neighbours has another class.
# Remove instead all points none of whose *Gabriel* neighbours has another class, and measure on digits how much of the training set is left and how many predictions change.
# ```

# %% tags=["hide-input"]
run.finish()
