# %% [markdown]
# # Exercises: Decision boundaries

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # the exercises have this profile only
seed: int = 0
device: str = "cpu"
overrides: dict = {}

# %% tags=["hide-input"]
import torch

from support import geometry
from support.book import chapter_run

run = chapter_run.start(
    "07_decision_boundaries/exercises", profile, seed, device, overrides
)

# %% [markdown]
# ## Graded exercises
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
    """Places near (N,), far (N,) on the segments a + t (b - a): the class of a at
    near, another at far, 2^-steps apart.
    """
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
left_ends, right_ends = (
    np.array([[0.0, 0.0], [0.0, 1.0]]),
    np.array([[1.0, 0.0], [4.0, 1.0]]),
)
near_side, far_side = bracket(
    lambda z: (z[:, 0] > 0.3).astype(int), left_ends, right_ends, 20
)
assert near_side.shape == far_side.shape == (2,), "one place for each segment"
assert np.allclose(far_side - near_side, 2.0**-20, rtol=1e-6, atol=0), (
    "each step halves the bracket"
)
assert (near_side <= [0.3, 0.075]).all() and (far_side > [0.3, 0.075]).all(), (
    "the crossings are at 0.3 and 0.075 of the segments, counted from a"
)

# %% tags=["hidden-tests"] exercise="bracket" points=2
# Criterion: the near side keeps the class of a, the far side has another, among many
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
assert np.allclose(far_side - near_side, 2.0**-30, rtol=1e-6, atol=0), (
    "the bracket has another width"
)
assert (
    many_classes(left_ends + near_side[:, None] * (right_ends - left_ends)) == own_
).all(), "the near side must have the class of a, whatever else lies between a and b"
assert (
    many_classes(left_ends + far_side[:, None] * (right_ends - left_ends)) != own_
).all(), "the far side must have another class than a"

# %% tags=["hidden-tests"] exercise="bracket" points=1
# Criterion: all segments are bisected at once, with one call for each step
calls_ = []


def counted(z):
    """Outside the unit ball or inside, and a note that it was asked."""
    calls_.append(len(z))
    return (np.linalg.norm(z, axis=1) > 1).astype(int)


draw = np.random.default_rng(SEED + 2)
towards = draw.normal(size=(50, 3))
towards *= 2 / np.linalg.norm(towards, axis=1, keepdims=True)
near_side, far_side = bracket(counted, np.zeros((50, 3)), towards, 12)
assert ((near_side <= 0.5 + 1e-9) & (far_side >= 0.5 - 1e-9)).all(), (
    "the sphere is half-way"
)
assert len(calls_) <= 14, (
    f"12 steps took {len(calls_)} calls of the classifier: bisect all segments at once"
)

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
    """Continuous scores (N, 3) of points (N, 2): a tie without a boundary at (-2, 0),
    a boundary without a tie of two at (2, 0).
    """
    ### BEGIN SOLUTION
    touch = np.stack(
        [0 * z[:, 0], -((z[:, 0] + 2) ** 2) - z[:, 1] ** 2, -1 + 0 * z[:, 0]], 1
    )
    meet = np.stack([z[:, 0] - 2, 2 - z[:, 0], z[:, 1]], 1)
    share = np.clip(-z[:, :1], 0, 1)  # 1 around A, 0 around B
    return share * touch + (1 - share) * meet
    ### END SOLUTION


# %% tags=["tests"] exercise="ties" points=1
two_points = tied_scores(np.array([[-2.0, 0.0], [2.0, 0.0]]))
turns_ = 2 * np.pi * np.arange(360) / 360
unit_circle = np.stack([np.cos(turns_), np.sin(turns_)], 1)
assert two_points.shape == (2, 3), "three scores for each point"
leaders_ = np.isclose(
    two_points, two_points.max(1, keepdims=True), rtol=0, atol=1e-12
).sum(1)
assert leaders_[0] == 2, "at A exactly two scores share the largest value"
assert leaders_[1] != 2, "at B the level set definition must fail: one leader, or three"
around_a, around_b = (
    tied_scores(np.array([[at, 0.0]]) + 0.01 * unit_circle).argmax(1) for at in (-2, 2)
)
assert len(set(around_a)) == 1, "A is no boundary point: around it there is one class"
assert len(set(around_b)) > 1, (
    "B is a boundary point: around it there are two classes or three"
)

# %% tags=["hidden-tests"] exercise="ties" points=2
# Criterion: the two points are what they should be at every distance
turns_ = 2 * np.pi * (np.arange(720) + 0.123) / 720
for radius_ in (1e-3, 1e-5, 1e-6):
    rim = radius_ * np.stack([np.cos(turns_), np.sin(turns_)], 1)
    inside_a, inside_b = (
        tied_scores(np.concatenate([centre_, centre_ + rim / 2, centre_ + rim])).argmax(
            1
        )
        for centre_ in (np.array([[-2.0, 0.0]]), np.array([[2.0, 0.0]]))
    )
    assert len(set(inside_a)) == 1, f"two classes within {radius_} of A"
    assert len(set(inside_b)) > 1, f"one class only within {radius_} of B"
at_both = np.sort(tied_scores(np.array([[-2.0, 0.0], [2.0, 0.0]])), 1)
assert at_both[0, 2] - at_both[0, 1] < 1e-12 and at_both[0, 1] - at_both[0, 0] > 1e-9, (
    "A: two equal leaders and a smaller third score"
)
assert not (
    at_both[1, 2] - at_both[1, 1] < 1e-12 and at_both[1, 1] - at_both[1, 0] > 1e-9
), "B must not belong to the level set"

# %% tags=["hidden-tests"] exercise="ties" points=1
# Criterion: the scores are continuous
draw = np.random.default_rng(SEED + 3)
spots = np.concatenate(
    [
        draw.uniform(-4, 4, (20_000, 2)),
        np.array([[-2.0, 0.0], [2.0, 0.0]]).repeat(2_000, 0),
    ]
)
assert tied_scores(spots).shape == (len(spots), 3), "three scores for each point"
for gap in (1e-2, 1e-4, 1e-7):
    beside_ = spots + gap * draw.normal(size=spots.shape)
    jumps_ = np.abs(tied_scores(beside_) - tied_scores(spots)).max(1) / np.linalg.norm(
        beside_ - spots, axis=1
    )
    assert np.isfinite(jumps_).all() and jumps_.max() < 1000, (
        "the scores jump: a step makes any set a boundary"
    )
across = np.stack([np.linspace(-4, 4, 80_001), np.zeros(80_001)], 1)
assert np.abs(np.diff(tied_scores(across), axis=0)).max() < 0.1, (
    "the scores jump on the way from A to B"
)

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
assert flat_triangle.shape == (3, 3) and not flat_triangle.diagonal().any(), (
    "(n, n), and no edge from a point to itself"
)
assert flat_triangle[0, 2] and flat_triangle[1, 2], (
    "the short sides of the flat triangle meet two cells only"
)
assert not flat_triangle[0, 1], (
    "the long side of the flat triangle passes through the cell of the "
    "third point, although it is a Delaunay edge"
)
assert steep_triangle.sum() == 6, (
    "all three sides of the steep triangle meet two cells only, in both directions"
)

# %% tags=["hidden-tests"] exercise="midpoint" points=3
# Criterion: edges agree with a walk from point to point, in any number of dimensions
for dimensions_, count_ in ((2, 18), (3, 16), (6, 14)):
    cloud_ = np.random.default_rng(SEED + 10 * dimensions_).uniform(
        size=(count_, dimensions_)
    )
    found = np.asarray(direct_edges(cloud_))
    assert found.shape == (count_, count_) and (found == found.T).all(), (
        "a symmetric (n, n) array"
    )
    for i, j in itertools.combinations(range(count_), 2):
        walk = cloud_[i] + np.linspace(0, 1, 101)[:, None] * (cloud_[j] - cloud_[i])
        away = np.linalg.norm(walk[:, None] - cloud_[None], axis=2)
        pair_, third_ = (
            np.minimum(away[:, i], away[:, j]),
            np.delete(away, [i, j], 1).min(1),
        )
        if abs((third_ - pair_).min()) > 1e-9:  # a walk that decides
            assert found[i, j] == ((third_ - pair_).min() > 0), (
                f"in {dimensions_} dimensions a walk from one point "
                "to the other says otherwise"
            )

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
    """Barycentric weights of queries (N, 2) in their Delaunay triangles, summed by
    label: (N, classes), zeros outside the hull.
    """
    ### BEGIN SOLUTION
    out = np.zeros((len(queries), classes))
    for corners in itertools.combinations(range(len(points)), 3):
        start, edges = (
            points[corners[0]],
            points[list(corners[1:])] - points[corners[0]],
        )
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
found = label_weights(
    corners_, np.array([0, 1, 1]), np.array([[1.0, 2.0], [3.0, 3.0]]), 3
)
assert found.shape == (2, 3), "one row for each query, one column for each class"
assert np.allclose(found[0], [0.25, 0.75, 0]), (
    "the weights of the corners are 1/4, 1/4 and 1/2; two of them have label 1"
)
assert np.allclose(found[1], 0), "no triangle holds the second query"

# %% tags=["hidden-tests"] exercise="weights" points=1
# Criterion: of two possible triangulations the one with empty circles counts
kite = np.array(
    [[0.0, 0.0], [4.0, 0.1], [2.0, 1.0], [2.1, -1.2]]
)  # two triangles on either diagonal; the short one is Delaunay's
found = label_weights(
    kite, np.array([0, 1, 2, 3]), np.array([[1.0, 0.1], [2.02, 0.0], [3.0, -0.1]]), 4
)
assert np.allclose(found.sum(1), 1) and (found >= 0).all(), (
    "weights are not negative and add up to one"
)
assert (found[:2, 1] == 0).all() and found[2, 0] == 0, (
    "of the two triangulations of four points the one with empty circles counts"
)

# %% tags=["hidden-tests"] exercise="weights" points=3
# Criterion: the weights are those of the Delaunay triangulation
from scipy.spatial import Delaunay

draw = np.random.default_rng(SEED + 4)
for count_ in (6, 13):
    cloud_, marks_, asked = (
        draw.uniform(size=(count_, 2)),
        draw.integers(0, 3, count_),
        draw.uniform(size=(60, 2)),
    )
    mesh_ = Delaunay(cloud_)
    cell_ = mesh_.find_simplex(asked)
    wanted = np.zeros((60, 3))
    for q in np.flatnonzero(cell_ >= 0):
        trio = mesh_.simplices[cell_[q]]
        np.add.at(
            wanted[q],
            marks_[trio],
            np.linalg.solve(np.vstack([cloud_[trio].T, np.ones(3)]), [*asked[q], 1]),
        )
    assert np.allclose(label_weights(cloud_, marks_, asked, 3), wanted, atol=1e-6), (
        f"with {count_} random points some weights differ from "
        "those of the Delaunay triangulation"
    )

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
    """Points (N, n) nearest to x (N, n) in the wedge with inward normals (k, n)."""
    ### BEGIN SOLUTION
    return np.stack([one + nnls(normals.T, -one)[0] @ normals for one in x])
    ### END SOLUTION


# %% tags=["tests"] exercise="wedge" points=2
starts_ = np.random.default_rng(SEED + 5).normal(size=(20, 4))
orthant_ = nearest_in_wedge(starts_, np.eye(4)[:3])
assert orthant_.shape == (20, 4), "a point for each point"
assert np.allclose(
    orthant_, np.concatenate([starts_[:, :3].clip(0), starts_[:, 3:]], 1), atol=1e-6
), (
    "the nearest point of an orthant cuts the negative "
    "coordinates off, and leaves the others"
)

# %% tags=["hidden-tests"] exercise="wedge" points=2
# Criterion: faces, edge, apex and inside of a wedge are all projected rightly
sixty = np.array([[1.0, 0.0], [-math.sin(math.pi / 3), math.cos(math.pi / 3)]])
asked = np.array([[0.1, -5.0], [1.0, 4.0], [2.0, 0.0], [-1.0, 2.0], [-1.0, -3.0]])
ray = np.array([0.5, math.sqrt(0.75)])
found = nearest_in_wedge(asked, sixty)
assert np.allclose(found[0], 0, atol=1e-6), (
    "(0.1, -5) violates one face of the 30 degree wedge, but its "
    "nearest point is the apex, where both are active"
)
assert np.allclose(found[1], asked[1], atol=1e-6), (
    "a point inside is its own nearest point"
)
assert np.allclose(found[2], ray * (ray @ asked[2]), atol=1e-6), (
    "(2, 0) lands on the slanted face"
)
assert np.allclose(found[3], [0, 2], atol=1e-6) and np.allclose(
    found[4], 0, atol=1e-6
), "(-1, 2) lands on the upright face, (-1, -3) on the apex"

# %% tags=["hidden-tests"] exercise="wedge" points=3
# Criterion: the nearest point satisfies the conditions of optimality, for any faces
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
    pull = (found - asked) @ np.linalg.pinv(
        faces_
    )  # the multipliers, since the normals are independent
    assert np.allclose(pull @ faces_, found - asked, atol=1e-5), (
        "a point was moved in a direction that no face pulls in"
    )
    assert (pull > -1e-5).all(), (
        "a face pushes the point outwards: it is violated and yet not active"
    )
    assert (np.abs(pull * (found @ faces_.T)) < 1e-4).all(), (
        "a face pulls at a point that does not touch it: the point has gone too far"
    )

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
    """Eigenvalues (n,), descending, of the second moments of Gaussian noise around
    (d, ..., d, 0, ..., 0), projected onto the k-orthant.
    """
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
assert np.allclose(found[:3], 1) and np.allclose(found[3:], 0.5 - 0.5 / np.pi), (
    "a coordinate that is cut off at zero has the second moment 1/2, the "
    "mean 1/sqrt(2 pi), and the variance 1/2 - 1/(2 pi)"
)

# %% tags=["hidden-tests"] exercise="spectrum" points=2
# Criterion: the centred spectrum agrees with integration, wherever the centre is
shape_of_noise = np.linspace(-12, 12, 400_001)
density_ = (
    np.exp(-0.5 * shape_of_noise**2)
    / math.sqrt(2 * math.pi)
    * (shape_of_noise[1] - shape_of_noise[0])
)
draw = np.random.default_rng(SEED + 7)
for k_, n_ in ((1, 3), (3, 3), (4, 9)):
    place_, spread_ = draw.normal(), draw.uniform(0.3, 2)
    cut = (place_ + spread_ * shape_of_noise).clip(0)
    mean_, second_ = float(cut @ density_), float(cut**2 @ density_)
    wanted = np.sort(np.array([second_ - mean_**2] * k_ + [spread_**2] * (n_ - k_)))[
        ::-1
    ]
    assert np.allclose(
        orthant_spectrum(k_, n_, place_, spread_, True), wanted, atol=1e-6
    ), (
        f"centred: d = {place_:.2f}, sigma = {spread_:.2f}, "
        f"{k_} faces in {n_} dimensions"
    )

# %% tags=["hidden-tests"] exercise="spectrum" points=2
# Criterion: the spectrum about the centre has the common mean of the coordinates
draw = np.random.default_rng(SEED + 8)
shape_of_noise = np.linspace(-12, 12, 400_001)
density_ = (
    np.exp(-0.5 * shape_of_noise**2)
    / math.sqrt(2 * math.pi)
    * (shape_of_noise[1] - shape_of_noise[0])
)
for k_, n_ in ((1, 3), (3, 3), (6, 9)):
    place_, spread_ = draw.normal(), draw.uniform(0.3, 2)
    cut = (place_ + spread_ * shape_of_noise).clip(0)
    mean_, second_ = float(cut @ density_), float(cut**2 @ density_)
    matrix_ = np.diag([spread_**2] * n_)
    matrix_[:k_, :k_] = mean_**2
    matrix_[range(k_), range(k_)] = second_
    assert np.allclose(
        orthant_spectrum(k_, n_, place_, spread_, False),
        np.linalg.eigvalsh(matrix_)[::-1],
        atol=1e-6,
    ), "not centred: different coordinates have a second moment in common, too"
assert np.allclose(orthant_spectrum(0, 4, 0.5, 2.0, False), 4), (
    "without faces the noise is what it was"
)

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
    """gamma-persistence of the point at the signed distance d from all k faces of an
    orthant, outside for d < 0; may be infinite.
    """
    ### BEGIN SOLUTION
    landed = (
        gamma if d > 0 else 1 - gamma
    )  # probability of the orthant at which the class is lost
    far = 2.0**-k
    if (d > 0 and far >= landed) or (d < 0 and far <= landed):
        return math.inf
    return d / norm.ppf(landed ** (1 / k))
    ### END SOLUTION


# %% tags=["tests"] exercise="drop" points=1
assert abs(corner_persistence(1.0, 1, 0.7) - 1 / norm.ppf(0.7)) < 1e-9, (
    "one face: the noise crosses the plane with probability Phi(-1 / sigma)"
)
assert abs(corner_persistence(-2.0, 1, 0.7) - 2 / norm.ppf(0.7)) < 1e-9, (
    "a plane is the same from both sides, and twice the distance bears twice the noise"
)
assert abs(norm.cdf(1 / corner_persistence(1.0, 10, 0.7)) ** 10 - 0.7) < 1e-9, (
    "ten faces: at the persistence the probability of staying inside is gamma"
)

# %% tags=["hidden-tests"] exercise="drop" points=2
# Criterion: at the persistence the class is kept with probability gamma, on either side
draw = np.random.default_rng(SEED + 9)
for k_, gamma_ in ((1, 0.9), (2, 0.9), (3, 0.95), (5, 0.999)):
    far_off = draw.uniform(0.2, 3)
    for side_ in (far_off, -far_off):
        noise_ = corner_persistence(side_, k_, gamma_)
        assert 0 < noise_ < math.inf, (
            f"finite and positive at d = {side_:.2f}, {k_} faces, gamma = {gamma_}"
        )
        kept = (
            norm.cdf(side_ / noise_) ** k_
            if side_ > 0
            else 1 - norm.cdf(side_ / noise_) ** k_
        )
        assert abs(kept - gamma_) < 1e-9, (
            "at the persistence the class is kept with probability "
            f"gamma: d = {side_:.2f}, {k_} faces"
        )

# %% tags=["hidden-tests"] exercise="drop" points=2
# Criterion: infinite exactly where some share of the noise always keeps the class
assert corner_persistence(-1.0, 2, 0.7) == math.inf, (
    "behind two faces at least 3/4 of the noise stays outside"
)
assert corner_persistence(-0.3, 10, 0.99) == math.inf, (
    "behind ten faces at most one in 1024 lands inside"
)
assert (
    corner_persistence(1.0, 1, 0.4) == math.inf
    and corner_persistence(-1.0, 1, 0.4) == math.inf
), "half of the noise stays on either side of a plane, however strong it is"
assert corner_persistence(0.5, 3, 0.1) == math.inf, (
    "an eighth of the noise stays inside three faces"
)
assert (
    0 < corner_persistence(0.5, 3, 0.2) < math.inf
    and 0 < corner_persistence(-0.5, 3, 0.9) < math.inf
), "just above these shares the persistence is finite"

# %% [markdown] tags=["solution-text"] exercise="drop"
# ```{solution-end}
# ```

# %% [markdown]
# ## Further exercises
#
# These have no points.
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
u, nu = np.array([math.cos(alpha), math.sin(alpha), 0.0]), np.eye(3)[0]
along = np.eye(3) - np.outer(u, nu) / (u @ nu)
singular = np.linalg.svd(along, compute_uv=False)
print(singular.round(6), "and 1 / cos =", round(1 / math.cos(alpha), 6))

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
x, sixty = torch.tensor([[0.1, -5.0]], dtype=torch.float64), [math.radians(60)]
faces = geometry.wedge_faces(x, sixty)
print("violated", faces.violated.tolist()[0], "active", faces.active.tolist()[0])
alone = geometry.project_violated(x, geometry.wedge_normals(2, sixty))
print("violated plane alone:", alone.numpy().round(3))
print("nearest:", geometry.project_wedge(x, sixty).numpy().round(3) + 0.0)

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
