# %% [markdown]
# # Exercises: Softmax is k-means

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # the exercises have this profile only
seed: int = 0
device: str = "cpu"
overrides: dict = {}

# %% tags=["hide-input"]
import torch

from support.book import chapter_run

run = chapter_run.start("01_softmax_kmeans/exercises", profile, seed, device, overrides)

# %% [markdown]
# ```{exercise-start} The sign
# :label: ex-softmax-sign
# ```
# Derive the linear equations for $v$ from $\lVert w_1 + v \rVert = \lVert w_l + v \rVert$, and find two class weights for which the sign printed in the paper makes the norms *more* unequal than $v = 0$ does.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-softmax-sign
# :class: dropdown
# ```
# Squaring and cancelling $\lVert v \rVert^2$ gives $2 (w_1 - w_l)^\top v = \lVert w_l \rVert^2 - \lVert w_1 \rVert^2$.
# On a line, $w_1 = 1$ and $w_2 = 3$ give $v = -2$ and norms 1 and 1; the printed sign gives $v = 2$ and norms 3 and 5, whose squares differ twice as much as before.
# It is always so: the difference of the squared norms is $\lVert w_1 \rVert^2 - \lVert w_l \rVert^2 + 2 (w_1 - w_l)^\top v$, and with the printed sign the second term equals the first.

# %% tags=["nbval-check-output"]
w1, w2 = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
right = 0.5 * (w2 @ w2 - w1 @ w1) * (w1 - w2) / (w1 - w2).square().sum()
for name, v in (("v = 0", 0 * right), ("derived", right), ("printed", -right)):
    difference = float((w1 + v).square().sum() - (w2 + v).square().sum())
    print(f"{name:>8}: difference of squared norms {difference:+.1f}")

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Break it yourself
# :label: ex-softmax-distance
# ```
# The lesson aims PGD at *confident* errors of the Gauss network by one more class, "none of these".
# Aim by the loss instead: write a loss for `support.attacks.pgd` that is large where a rival centroid is near.
# Compare the share of confident errors with that of the margin loss, and with that of the lesson's attack, at the same budget.
# What does `pgd` do with an image as soon as it is misclassified, and what does this mean for your loss?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-softmax-distance
# :class: dropdown
# ```
# The loss is the largest log-score of a rival, `model(x).scatter(1, y[:, None], -torch.inf).amax(1)`.
# Its gradient pulls the features towards the centroid of that rival, while the margin also pushes them away from their own, and so away from all.
# But an attack of the package returns the first success that it finds, and any error is one: an image is decided where it leaves its cell, often still far from the rival's centroid, and from there on no loss is climbed.
# With one more class the *goal* changes: an error that would be rejected is no success, and the search goes on.
# The published one-pixel search has the same defect, in its callback.
# ```{solution-end}
# ```
#
# ## Exercises with tests
#
# The exercises below stand alone: they need the imports of the next cell and nothing else.
# Each folded solution holds a derivation, the code, and the tests that it passes.

# %% tags=["assignment", "hide-input"]
import math

import numpy as np
from scipy.optimize import brentq, linprog

# %% tags=["assignment-parameters", "hide-input"]
SEED = 0  # the tests draw their numbers from it

# %% [markdown] exercise="shift"
# ```{exercise-start} The shift of Theorem 1
# :label: ex-softmax-shift
# ```
# A layer without a bias gives class $k$ the score $f^\top w_k$, for features $f \in \mathbb{R}^d$ and class weights $w_1, \dots, w_c \in \mathbb{R}^d$.
# If a vector $v$ makes all norms $\lVert w_k + v \rVert$ equal, then the class with the largest score is the one whose *centroid* $z_k = w_k + v$ is nearest to $f$.
#
# Derive the equations for $v$ from $\lVert w_k + v \rVert = \lVert w_1 + v \rVert$.
# Are they linear, how many are there, and when have they no solution, one, or many?
#
# Write `equidistant_shift(weight)` with NumPy.
# `weight` has shape `(c, d)`, one row for each class.
# It returns the shortest such $v$, of shape `(d,)`, or `None` where no $v$ makes the norms equal.
# Norms count as equal if no two of the $\lVert z_k \rVert^2$ differ by more than a billionth of their mean.
#
# The tests compare nearest centroids with largest scores, use fewer and more classes than dimensions, weights that lie on no common sphere, and weights that are very short or very long.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="shift"
# ```{solution-start} ex-softmax-shift
# :class: dropdown
# ```
# Squaring and cancelling $\lVert v \rVert^2$ leaves $2 (w_1 - w_k)^\top v = \lVert w_k \rVert^2 - \lVert w_1 \rVert^2$ for $k = 2, \dots, c$: linear equations, $c - 1$ of them.
# Without a solution the weights lie on no common sphere; with one, any vector orthogonal to all $w_1 - w_k$ can be added.
# The least-squares solution of least norm is the shortest solution where there is one, and no solution otherwise, so the norms must be looked at in the end, on the scale of the weights.


# %% tags=["solution"] exercise="shift"
def equidistant_shift(weight):
    """The shortest v (d,) with equal norms of all rows of weight + v, or None."""
    ### BEGIN SOLUTION
    squares = (weight**2).sum(1)
    v = np.linalg.lstsq(
        2 * (weight[0] - weight[1:]), squares[1:] - squares[0], rcond=1e-12
    )[0]
    norms = ((weight + v) ** 2).sum(1)
    return v if np.ptp(norms) <= 1e-9 * norms.mean() else None
    ### END SOLUTION


# %% tags=["tests"] exercise="shift" points=2
rng = np.random.default_rng([SEED, 10])
weight, f = rng.standard_normal((10, 64)), rng.standard_normal((1000, 64))
v = equidistant_shift(weight)
assert np.shape(v) == (64,), "v is one vector, the same for all classes"
z = weight + v
assert np.ptp((z**2).sum(1)) < 1e-9 * (z**2).sum(1).mean(), (
    "the norms of weight + v differ: check the sign of the right-hand side"
)
nearest = ((f[:, None] - z) ** 2).sum(2).argmin(1)
assert (nearest == (f @ weight.T).argmax(1)).all(), (
    "the nearest centroid is not the class with the largest score"
)

# %% tags=["hidden-tests"] exercise="shift" points=2
# Criterion: weights on a common sphere give the shortest shift, at any scale of the
# weights
rng = np.random.default_rng([SEED, 11])
frame = np.linalg.qr(rng.standard_normal((6, 4)))[
    0
].T  # three directions for the sphere, one at right angles to them
for size in (1e-4, 1.0, 1e4):  # 12 weights on a sphere of three dimensions, in R^6
    points = rng.standard_normal((12, 3))
    points = size * points / np.linalg.norm(points, axis=1, keepdims=True)
    middle = size * rng.standard_normal(3)
    found = equidistant_shift((points + middle) @ frame[:3] + 2 * size * frame[3])
    assert found is not None, (
        "weights on a common sphere have their centroids, "
        "however many classes there are"
    )
    assert np.abs(found + middle @ frame[:3]).max() < 1e-7 * size, (
        "this v is not the shortest one"
    )
assert np.abs(equidistant_shift(np.eye(5))).max() < 1e-12, "equal norms need no shift"

# %% tags=["hidden-tests"] exercise="shift" points=1
# Criterion: None where no sphere holds all weights, and a shift wherever one does
rng = np.random.default_rng([SEED, 12])
ends = rng.standard_normal((2, 10))
in_line = np.stack([ends[0], 0.3 * ends[0] + 0.7 * ends[1], ends[1]])
for size in (1e-6, 1.0, 1e6):
    assert equidistant_shift(size * in_line) is None, (
        "no sphere passes through three points of a line, in any number of dimensions"
    )
    assert equidistant_shift(size * rng.standard_normal((6, 2))) is None, (
        "six points of the plane lie on no circle as a rule"
    )
angle = rng.uniform(0, 2 * math.pi, 6)
circle = np.stack([3 + np.cos(angle), np.sin(angle) - 1], 1)
assert np.allclose(equidistant_shift(circle), [-3, 1]), "six points of a circle do"

# %% [markdown] tags=["solution-text"] exercise="shift"
# ```{solution-end}
# ```

# %% [markdown] exercise="hull"
# ```{exercise-start} A class that nobody predicts
# :label: ex-softmax-hull
# ```
# A layer without a bias gives class $l$ the score $f^\top w_l$.
# Class $k$ *wins somewhere* if features $f$ exist with $f^\top w_k > f^\top w_l$ for all $l \neq k$.
#
# Prove: class $k$ wins nowhere exactly if its weight lies in the convex hull of the other weights, $w_k = \sum_{l \neq k} a_l w_l$ with $a_l \geq 0$ and $\sum_l a_l = 1$.
# Either answer can be proved by a vector: by $f$, or by $a$.
#
# Write `certificate(weight, k)` for `weight` of shape `(c, d)` and a class `k`.
# It returns a pair: `(None, f)` with features `f` of shape `(d,)` at which the class wins, or `(a, None)` with the coefficients `a` of shape `(c,)`, where `a[k] = 0`.
# `scipy.optimize.linprog` solves linear programs.
#
# The tests check whatever you return, and try classes whose cell is a very narrow cone.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="hull"
# ```{solution-start} ex-softmax-hull
# :class: dropdown
# ```
# If $w_k = \sum_l a_l w_l$, the score of class $k$ is a weighted mean of the other scores and cannot exceed all of them.
# If $w_k$ lies outside the hull, a hyperplane separates the two, and its normal is an $f$ at which class $k$ wins.
# Two linear programs find them: the largest lead $t$ with $f^\top (w_k - w_l) \geq t$ in the box $|f_i| \leq 1$, and, where that is zero, the coefficients.
# The box is needed: without a bias, scaling $f$ scales the lead.
#
# With a bias, class $k$ wins somewhere exactly if $b_k > \sum_l a_l b_l$ for *every* such combination $a$, if there is more than one: a mean of the others' scores still is a bound, and without it the point $(w_k, b_k)$ lies above the hull of the points $(w_l, b_l)$, where a hyperplane separates them.
# It need not win near the origin: of the weights $-1, 0, 1$ with the biases $10, 1, -10$ the middle one wins for $9 < f < 11$ only.
# Its cell is bounded when $w_k$ lies in the interior of the hull, because in every direction some other score grows faster; on a face of the hull it is unbounded along the normal of that face.


# %% tags=["solution"] exercise="hull"
def certificate(weight, k):
    """(None, f) with features f (d,) at which class k wins, or (a, None) with w_k as a
    convex combination a (c,) of the others.
    """
    ### BEGIN SOLUTION
    c, d = weight.shape
    others = np.arange(c) != k
    lead = weight[k] - weight[others]
    box = [(-1, 1)] * d + [(None, None)]
    best = linprog(
        [0] * d + [-1],
        np.hstack([-lead, np.ones((c - 1, 1))]),
        np.zeros(c - 1),
        bounds=box,
    ).x
    if (lead @ best[:d]).min() > 1e-7 * np.abs(lead).max():
        return None, best[:d]
    system = np.vstack([weight[others].T, np.ones(c - 1)])
    a = np.zeros(c)
    a[others] = linprog(
        np.zeros(c - 1), A_eq=system, b_eq=np.append(weight[k], 1), bounds=(0, None)
    ).x
    return a, None
    ### END SOLUTION


# %% tags=["tests"] exercise="hull" points=1
rng = np.random.default_rng([SEED, 20])
ends = rng.standard_normal((2, 5))
weight = np.stack([ends[0], 0.25 * ends[0] + 0.75 * ends[1], ends[1]])
a, f = certificate(weight, 1)
assert f is None, (
    "the middle one of three weights on a line never wins: "
    "its score is a mean of the other two"
)
assert np.allclose(a, [0.25, 0, 0.75], atol=1e-6), (
    "a holds the coefficients of the other weights, 0 for the class itself"
)
a, f = certificate(weight, 0)
assert a is None, "an outer weight of a line wins somewhere"
assert ((weight[0] - weight[1:]) @ f > 0).all(), "class 0 does not win at this f"

# %% tags=["hidden-tests"] exercise="hull" points=3
# Criterion: each class gets a valid certificate, also where its cell is a very narrow
# cone
rng = np.random.default_rng([SEED, 21])


def check_certificate(weight, k, wins):
    others = np.arange(len(weight)) != k
    a, f = certificate(weight.copy(), k)
    assert (a is None) == wins and (f is None) != wins, (
        f"this class wins {'somewhere' if wins else 'nowhere'}"
    )
    if wins:
        assert ((weight[k] - weight[others]) @ f > 0).all(), (
            "the class does not win at this f"
        )
    else:
        assert a[k] == 0 and a.min() > -1e-7 and abs(a.sum() - 1) < 1e-6, (
            "not the coefficients of a convex combination"
        )
        assert np.abs(a @ weight - weight[k]).max() < 1e-6, (
            "the combination is not the weight of the class"
        )


for _ in range(5):  # inside the hull, of more weights than dimensions
    weight = rng.standard_normal((12, 3)) + 2 * rng.standard_normal(3)
    weight[4] = rng.dirichlet(np.ones(11)) @ np.delete(weight, 4, axis=0)
    check_certificate(weight, 4, False)
    longest = np.linalg.norm(weight, axis=1).argmax()
    check_certificate(weight, int(longest), True)  # the longest weight wins at f = w_k
corner = np.abs(rng.standard_normal((6, 3))) + 1
check_certificate(
    np.vstack([0.2 * corner[:1], corner]), 0, True
)  # a fifth of another weight, and wins where all features are negative
flat = rng.standard_normal(
    (12, 12)
)  # a hair above a point of a facet: a cone that no random search finds
normal = np.linalg.solve(flat, np.ones(12))
check_certificate(
    np.vstack(
        [
            flat,
            rng.dirichlet(np.ones(12)) @ flat + 0.001 * normal / np.linalg.norm(normal),
        ]
    ),
    12,
    True,
)

# %% [markdown] tags=["solution-text"] exercise="hull"
# ```{solution-end}
# ```

# %% [markdown] exercise="farthest"
# ```{exercise-start} Farthest centroids
# :label: ex-softmax-farthest
# ```
# Put $c$ centroids $z_1, \dots, z_c$ of the same length $r$ into $\mathbb{R}^d$ such that the *smallest* of their distances is as large as possible.
# One may think that they should be orthogonal, at distance $r \sqrt 2$.
#
# Start from $\lVert \sum_k z_k \rVert^2 \geq 0$, bound the largest of the inner products $z_k^\top z_l$ from below, and so the smallest distance from above.
# When is the bound attained, and how many dimensions does that take?
#
# Write `farthest_centroids(c, d, r)` for $c \geq 2$ and every $d$ that is large enough.
# It returns an array of shape `(c, d)`.
#
# The tests compare lengths and distances with the bound, down to the smallest possible $d$.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="farthest"
# ```{solution-start} ex-softmax-farthest
# :class: dropdown
# ```
# $0 \leq \lVert \sum_k z_k \rVert^2 = c\,r^2 + \sum_{k \neq l} z_k^\top z_l$, so the mean of the $c(c-1)$ inner products, and all the more the largest, is at least $-r^2 / (c-1)$.
# The smallest squared distance is $2 r^2$ minus twice the largest inner product, so at most $2 r^2 c / (c-1)$.
# It is attained when all inner products are equal and the sum is zero: a regular simplex, which takes $c - 1$ dimensions.
# The rows of $I - \frac1c \mathbf{1}\mathbf{1}^\top$ are one, but in $c$ coordinates; the singular value decomposition finds the $c - 1$ that are needed.


# %% tags=["solution"] exercise="farthest"
def farthest_centroids(c, d, r):
    """c points (c, d) of length r, as far apart as possible; d is at least c - 1."""
    ### BEGIN SOLUTION
    u, s, _ = np.linalg.svd(np.eye(c) - 1 / c)
    simplex = (u * s)[:, : c - 1]
    centers = np.zeros((c, d))
    centers[:, : c - 1] = r * simplex / np.linalg.norm(simplex, axis=1, keepdims=True)
    return centers
    ### END SOLUTION


# %% tags=["tests"] exercise="farthest" points=2
centers = farthest_centroids(4, 9, 1.0)
assert centers.shape == (4, 9), "one row for each centroid"
assert np.allclose(np.linalg.norm(centers, axis=1), 1), "all centroids have length r"
distances = np.linalg.norm(centers[:, None] - centers, axis=2)[np.triu_indices(4, 1)]
assert distances.min() > 1.42, (
    "these centroids are no farther apart than orthogonal "
    "ones; their sum should be zero"
)
assert np.allclose(distances, np.sqrt(8 / 3)), "all distances should attain the bound"

# %% tags=["hidden-tests"] exercise="farthest" points=2
# Criterion: lengths and distances attain the bound, down to the smallest possible
# dimension
for c, d, r in (
    (2, 1, 1.0),
    (2, 5, 3.0),
    (3, 2, 0.5),
    (10, 9, 7.0),
    (10, 10, 1.0),
    (10, 64, 100.0),
    (50, 49, 1e-3),
):
    centers = farthest_centroids(c, d, r)
    assert centers.shape == (c, d), f"{c} centroids fit into {d} dimensions"
    assert np.allclose(np.linalg.norm(centers, axis=1), r, rtol=1e-9, atol=0), (
        f"not all lengths are {r}"
    )
    distances = np.linalg.norm(centers[:, None] - centers, axis=2)[
        np.triu_indices(c, 1)
    ]
    assert np.allclose(distances, r * np.sqrt(2 * c / (c - 1)), rtol=1e-9, atol=0), (
        f"the distances of {c} centroids miss the bound"
    )

# %% [markdown] tags=["solution-text"] exercise="farthest"
# ```{solution-end}
# ```

# %% [markdown] exercise="width"
# ```{exercise-start} Any mean confidence you like
# :label: ex-softmax-width
# ```
# A Gauss network gives an image whose features lie at squared distance $s_n$ from the nearest class centroid the confidence $\exp(-\gamma s_n)$.
# The predicted classes do not depend on the width $\gamma > 0$, and the mean confidence $M(\gamma) = \frac1N \sum_n \exp(-\gamma s_n)$ does.
#
# How does $M$ depend on $\gamma$, which values does it take, and between which two bounds must the $\gamma$ with $M(\gamma) = m$ lie?
# The bounds may use the smallest and the largest positive $s_n$ and the share of images with $s_n = 0$.
#
# Write `width_for(squared_distances, m)` for an array of shape `(N,)` with non-negative entries and $0 < m < 1$.
# It returns the $\gamma$ at which the mean confidence is $m$ to nine digits, or `None` where no $\gamma$ has it.
# `scipy.optimize.brentq(function, low, high)` finds the zero of a function between two points of opposite sign.
#
# The tests use features in all kinds of units, and images that lie on their centroid.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="width"
# ```{solution-start} ex-softmax-width
# :class: dropdown
# ```
# $M$ falls strictly from 1 to the share $q$ of images with $s_n = 0$, if not all are.
# So every mean confidence between $q$ and 1 belongs to exactly one width, and a published mean confidence says nothing about a network unless the width is fixed by a rule.
# From $M(\gamma) \geq e^{-\gamma s_{\max}}$ follows $\gamma \geq \log(1/m) / s_{\max}$, and from $M(\gamma) \leq q + (1-q)\,e^{-\gamma s_{\min}}$ with the smallest *positive* distance $\gamma \leq \log\frac{1-q}{m-q} / s_{\min}$.
# The two may lie many powers of ten apart, so the search is over $\log \gamma$.
# Taking the logarithm of the mean for the mean of the logarithms gives $\log(1/m) / \bar s$, which is too small, by Jensen's inequality.


# %% tags=["solution"] exercise="width"
def width_for(squared_distances, m):
    """The gamma at which exp(-gamma * squared_distances) has mean m, or None."""
    ### BEGIN SOLUTION
    away = squared_distances[squared_distances > 0]
    q = 1 - len(away) / len(squared_distances)
    if m <= q:
        return None
    low = math.log(1 / m) / away.max()
    high = math.log((1 - q) / (m - q)) / away.min()
    span = (math.log(low) - 1e-6, math.log(high) + 1e-6)
    return math.exp(
        brentq(
            lambda t: np.exp(-math.exp(t) * squared_distances).mean() - m,
            *span,
            xtol=1e-13,
        )
    )
    ### END SOLUTION


# %% tags=["tests"] exercise="width" points=1
rng = np.random.default_rng([SEED, 30])
s = rng.chisquare(8, 500)
for m in (0.2, 0.56, 0.9):
    gamma = width_for(s, m)
    assert gamma is not None and gamma > 0, (
        "these distances reach every mean confidence between 0 and 1"
    )
    assert abs(np.exp(-gamma * s).mean() - m) < 1e-9, (
        f"the mean confidence at this width is not {m}"
    )

# %% tags=["hidden-tests"] exercise="width" points=2
# Criterion: the mean confidence is met in any unit, and for distances of very different
# size
rng = np.random.default_rng([SEED, 31])
for unit in (1e-15, 1e-6, 1e6, 1e15):
    s = unit * rng.chisquare(5, 300)
    gamma = width_for(s, 0.7)
    assert gamma is not None and abs(np.exp(-gamma * s).mean() - 0.7) < 1e-9, (
        "the unit of the features decides the width, and nothing else"
    )
s = np.exp(rng.uniform(-15, 15, 400))
for m in (0.01, 0.5, 0.99):
    gamma = width_for(s, m)
    assert gamma is not None and abs(np.exp(-gamma * s).mean() - m) < 1e-9, (
        "distances of very different size: the zero lies far from the ends"
    )

# %% tags=["hidden-tests"] exercise="width" points=1
# Criterion: None exactly where images on their centroids put the mean out of reach
rng = np.random.default_rng([SEED, 32])
s = np.concatenate([np.zeros(30), rng.chisquare(8, 70)])
assert width_for(s, 0.2) is None, (
    "three tenths of the images have confidence 1 at every width"
)
gamma = width_for(s, 0.31)
assert gamma is not None and abs(np.exp(-gamma * s).mean() - 0.31) < 1e-9, (
    "a mean just above the share of zeros has a width"
)
assert width_for(np.zeros(5), 0.5) is None, (
    "if all images lie on their centroid, the mean confidence is 1 at every width"
)

# %% [markdown] tags=["solution-text"] exercise="width"
# ```{solution-end}
# ```

# %% [markdown] exercise="bisector"
# ```{exercise-start} How far is certain
# :label: ex-softmax-bisector
# ```
# A network has features $f(x) \in \mathbb{R}^d$ with Lipschitz constant $L$, $\lVert f(x) - f(x') \rVert \leq L \lVert x - x' \rVert$, and class scores $f(x)^\top w_l + b_l$ for weights $w_l$ and biases $b_l$.
# At $x$ it predicts class $k$.
# To change the class, the features must at least reach the hyperplane on which the scores of $k$ and of some rival $l$ agree.
#
# Derive the largest radius $r$ of which this argument proves: no $x'$ with $\lVert x' - x \rVert < r$ is given to another class.
#
# Write `certified_radius(f, weight, bias, lipschitz)` for features `f` of shape `(N, d)`, `weight` of shape `(c, d)`, `bias` of shape `(c,)`.
# It returns an array of shape `(N,)`.
# A rival whose weight *equals* that of the predicted class never overtakes it; if no other rival is left, the radius is infinite.
#
# The tests walk to the radius: just inside nothing may change, and where the features are the input itself ($L = 1$) the class must change just outside.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="bisector"
# ```{solution-start} ex-softmax-bisector
# :class: dropdown
# ```
# The lead of $k$ over $l$ is $f^\top (w_k - w_l) + b_k - b_l$, and one unit of length of the features changes it by at most $\lVert w_k - w_l \rVert$.
# So the distance of the features to that hyperplane is the lead over this norm, the nearest rival counts, and the input moves at least $1/L$ of it.
# The nearest rival need not be the runner-up: a small lead over a weight nearby can be farther away than a large lead over a weight on the other side.


# %% tags=["solution"] exercise="bisector"
def certified_radius(f, weight, bias, lipschitz):
    """Radius (N,) below which no change of the input changes the class."""
    ### BEGIN SOLUTION
    scores = f @ weight.T + bias
    top = scores.argmax(1)
    lead = scores[np.arange(len(f)), top][:, None] - scores
    norm = np.linalg.norm(weight[top][:, None] - weight, axis=2)
    distance = np.divide(lead, norm, out=np.full_like(lead, np.inf), where=norm > 0)
    return distance.min(1) / lipschitz
    ### END SOLUTION


# %% tags=["tests"] exercise="bisector" points=1
weight, bias = np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([2.0, 0.0])
radius = certified_radius(np.array([[1.0, 0.0], [0.0, 1.0]]), weight, bias, 1.0)
assert np.shape(radius) == (2,), "one radius for each image"
assert np.allclose(radius, [1.0, 0.4]), (
    "the hyperplane is 3 x + 2 = 4 y: the point (1, 0) is at "
    "distance 5 / 5 from it, (0, 1) at 2 / 5"
)
assert np.allclose(certified_radius(np.array([[1.0, 0.0]]), weight, bias, 10.0), 0.1), (
    "a steeper network reaches the hyperplane sooner"
)

# %% tags=["hidden-tests"] exercise="bisector" points=3
# Criterion: no class changes within the radius, and some class changes just beyond it
rng = np.random.default_rng([SEED, 40])
weight, bias = (
    rng.standard_normal((7, 4)) * np.geomspace(0.1, 10, 7)[:, None],
    rng.standard_normal(7),
)
x = 2 * rng.standard_normal((300, 4))
top = (x @ weight.T + bias).argmax(1)
radius = certified_radius(x, weight, bias, 1.0)
directions = weight[top][:, None] - weight
directions = -directions / np.maximum(
    np.linalg.norm(directions, axis=2, keepdims=True), 1e-300
)
for share, expected in ((1 - 1e-6, False), (1 + 1e-6, True)):
    moved = x[:, None] + share * radius[:, None, None] * directions
    changed = ((moved @ weight.T + bias).argmax(2) != top[:, None]).any(1)
    assert (changed == expected).all(), (
        "a class changes inside the radius"
        if not expected
        else "the radius is smaller than it need be"
    )
a = rng.standard_normal((4, 6))
half = certified_radius(x, weight, bias, np.linalg.norm(a, 2))
assert np.allclose(half * np.linalg.norm(a, 2), radius), (
    "the radius is inversely proportional to the Lipschitz constant"
)

# %% tags=["hidden-tests"] exercise="bisector" points=1
# Criterion: rivals with equal weights are handled without a division by zero
rng = np.random.default_rng([SEED, 41])
weight, bias, x = (
    rng.standard_normal((2, 5)),
    np.array([2.0, 1.0]),
    rng.standard_normal((50, 5)),
)
with np.errstate(all="raise"):
    doubled = certified_radius(
        x, np.vstack([weight, weight]), np.concatenate([bias, bias - 1]), 2.0
    )
    same = certified_radius(x, np.ones((4, 5)), np.array([0.0, 0.0, 3.0, 0.0]), 2.0)
alone = (
    np.abs(x @ (weight[0] - weight[1]) + 1) / np.linalg.norm(weight[0] - weight[1]) / 2
)
assert np.allclose(doubled, alone), (
    "a rival with the same weight and a lower bias never overtakes"
)
assert np.isinf(same).all(), "where all weights are equal nothing can change the class"

# %% [markdown] tags=["solution-text"] exercise="bisector"
# ```{solution-end}
# ```

# %% [markdown] exercise="coverage"
# ```{exercise-start} At equal coverage
# :label: ex-softmax-coverage
# ```
# A network that may answer "none of these" has fewer confident errors because it answers less often.
# To compare two networks, let both accept the same number of clean images.
#
# For $N$ clean images we know the confidence in the predicted class, whether that class is right, and the highest confidence with which an attack can mislead the network on the image (0 where it cannot).
# For a *coverage* between 0 and 1, the threshold is such that exactly `round(coverage * N)` clean images have at least this confidence, right or wrong ones.
# The *attack rate at this coverage* is the share of images that the attack misleads at or above the threshold, among the images that are right and accepted while clean.
# Of all thresholds that accept the same clean images we take the largest.
#
# Should the rate change if every confidence $\kappa$ is replaced by $\kappa^3$, that is, if the width of a Gauss kernel changes?
#
# Write `rate_at_coverage(confidence, right, misled, coverage)` for three arrays of shape `(N,)` (`right` holds booleans) and a number.
# It returns the rate, or `nan` if no image is both right and accepted.
# No two clean confidences are equal.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="coverage"
# ```{solution-start} ex-softmax-coverage
# :class: dropdown
# ```
# The largest threshold that accepts $n$ images is the $n$-th largest clean confidence.
# Only the order of confidences enters: the clean ones are compared with each other, and the misled ones with one of them.
# So no increasing map of the confidences changes the rate, and the width of the kernel drops out.
# A threshold *between* two clean confidences, as interpolated quantiles give it, accepts the same images but not the same errors, and is moved by such a map.


# %% tags=["solution"] exercise="coverage"
def rate_at_coverage(confidence, right, misled, coverage):
    """Share of the right and accepted images that are misled at or above the threshold
    of this coverage.
    """
    ### BEGIN SOLUTION
    n = round(coverage * len(confidence))
    if n == 0:
        return math.nan
    threshold = np.sort(confidence)[-n]
    eligible = right & (confidence >= threshold)
    return float((misled[eligible] >= threshold).mean()) if eligible.any() else math.nan
    ### END SOLUTION


# %% tags=["tests"] exercise="coverage" points=1
confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
right = np.array([True, True, False, True, True])
misled = np.array([0.0, 0.75, 0.95, 0.99, 0.2])
assert np.isclose(rate_at_coverage(confidence, right, misled, 0.6), 1 / 2), (
    "images 0 to 2 are accepted, two of them are right, and "
    "one of these is misled above 0.7"
)
assert np.isclose(rate_at_coverage(confidence, right, misled, 1.0), 2 / 4), (
    "all are accepted; an error with confidence 0.2 is below the threshold"
)
assert rate_at_coverage(confidence, right, misled, 0.2) == 0, (
    "only the first image is accepted, and it is not misled"
)

# %% tags=["hidden-tests"] exercise="coverage" points=3
# Criterion: the rate follows the definition, and does not depend on the kernel's width
rng = np.random.default_rng([SEED, 50])
for _ in range(20):
    count = int(rng.integers(50, 300))
    confidence = rng.uniform(0.01, 1, count)
    right, misled = (
        rng.uniform(size=count) < 0.3 + 0.6 * confidence,
        rng.uniform(0, 1, count) * (rng.uniform(size=count) < 0.8),
    )
    for share in (0.1, 0.43, 0.5, 0.87, 1.0):
        order = np.argsort(-confidence)[: round(share * count)]
        hits = [misled[i] >= confidence[order[-1]] for i in order if right[i]]
        rate = rate_at_coverage(confidence, right, misled, share)
        assert np.isclose(rate, np.mean(hits)), "the rate is not that of the definition"
        for power in (0.1, 3.0, 20.0):
            assert np.isclose(
                rate_at_coverage(confidence**power, right, misled**power, share), rate
            ), "the rate depends on the width of the kernel"
nobody = np.array([False, True])
assert math.isnan(
    rate_at_coverage(np.array([0.9, 0.1]), nobody, np.array([0.5, 0.5]), 0.5)
), "no image is right and accepted"

# %% [markdown] tags=["solution-text"] exercise="coverage"
# ```{solution-end}
# ```

# %% [markdown] exercise="pixel"
# ```{exercise-start} The best single pixel
# :label: ex-softmax-pixel
# ```
# A grey image $x \in [0, 1]^n$ goes into a linear classifier with scores $W x + b$.
# An attacker may set one pixel to any value in $[0, 1]$.
# The *margin* is the score of the true class $y$ minus the largest other score; below zero the image is misclassified.
#
# Derive the smallest margin that one pixel can reach.
# Which values of the pixel need to be tried, and is it enough to look at the rival that is the runner-up on the clean image?
#
# Write `worst_margin(weight, bias, x, y)` for `weight` of shape `(c, n)`, `bias` of shape `(c,)`, images `x` of shape `(N, n)` and classes `y` of shape `(N,)`.
# It returns the smallest margin of each image over all single pixels, shape `(N,)`.
#
# The tests compare with a search over pixels and values.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="pixel"
# ```{solution-start} ex-softmax-pixel
# :class: dropdown
# ```
# The lead over one rival $l$ is linear in the pixel $i$, with slope $W_{yi} - W_{li}$, so its smallest value lies at 0 or 1: the pixel has room $x_i$ to fall and $1 - x_i$ to rise.
# The margin is the smallest lead, and the order of the two minima can be exchanged: for each rival the best pixel, then the best rival, who need not be the runner-up of the clean image.
# So the corners of the colour range are an exact search where leads are monotone in each pixel; elsewhere they give a lower bound of the damage.


# %% tags=["solution"] exercise="pixel"
def worst_margin(weight, bias, x, y):
    """The smallest margin (N,) that one pixel, with any value in [0, 1], can reach."""
    ### BEGIN SOLUTION
    scores = x @ weight.T + bias
    rows = np.arange(len(x))
    lead = scores[rows, y][:, None] - scores  # (N, c)
    slope = weight[y][:, None] - weight  # (N, c, n)
    change = np.minimum(-slope * x[:, None], slope * (1 - x[:, None])).min(2)
    worst = lead + change
    worst[rows, y] = np.inf
    return worst.min(1)
    ### END SOLUTION


# %% tags=["tests"] exercise="pixel" points=1
weight, bias = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 5.0]]), np.array([0.5, 0.0])
images = np.array([[0.8, 0.5, 0.1], [0.8, 0.5, 0.1]])
found = worst_margin(weight, bias, images, np.array([0, 1]))
assert np.shape(found) == (2,), "one margin for each image"
assert np.isclose(found[0], 1.3 - 1 - 5), (
    "for class 0 the third pixel rises to 1: its score is 1.3, the other 1 + 5"
)
assert np.isclose(found[1], 0.5 - 1.3), (
    "for class 1 the second pixel falls to 0, although the third has the steeper slope"
)

# %% tags=["hidden-tests"] exercise="pixel" points=3
# Criterion: no search over pixels, values and rivals finds a smaller margin, or misses
# yours
rng = np.random.default_rng([SEED, 60])
weight, bias = rng.standard_normal((6, 16)), rng.standard_normal(6)
images, classes = rng.uniform(size=(40, 16)) ** 3, rng.integers(0, 6, 40)
found = worst_margin(weight, bias, images.copy(), classes)
for image, y, margin in zip(images, classes, found, strict=True):
    tried = np.repeat(image[None], 16 * 21, 0)
    tried[np.arange(16 * 21), np.repeat(np.arange(16), 21)] = np.tile(
        np.linspace(0, 1, 21), 16
    )
    scores = tried @ weight.T + bias
    searched = (scores[:, y] - np.delete(scores, y, axis=1).max(1)).min()
    assert margin > searched - 1e-9, "no single pixel reaches this margin"
    assert margin < searched + 1e-9, "a search finds a worse pixel, value or rival"

# %% [markdown] tags=["solution-text"] exercise="pixel"
# ```{solution-end}
# ```

# %% tags=["hide-input"]
run.finish()
