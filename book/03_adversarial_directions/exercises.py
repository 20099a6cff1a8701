# %% [markdown]
# # Exercises: Adversarial directions

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # the exercises have this profile only
seed: int = 0
device: str = "cpu"
overrides: dict = {}

# %% tags=["hide-input"]
import numpy as np
import torch
from scipy import special

from support import data, models, training
from support.book import chapter_run
from support.geometry import nullspace

run = chapter_run.start(
    "03_adversarial_directions/exercises", profile, seed, device, overrides
)

# %% [markdown]
# ```{exercise-start} Travel along a null direction
# :label: ex-null-travel
# ```
# Find an adversarial direction of the small network below with NumPy alone, without a decomposition: solve a linear system for a vector that is orthogonal to all differences of class weights.
# Travel along it from the features of the first test image, and compare the change of the output with the rounding bound.
# By how much does the bound grow if everything is computed in float32?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-null-travel
# :class: dropdown
# ```
# Take any vector and subtract its least-squares fit by the differences $w_k - w_1$: the residual is orthogonal to all of them.
# The bound is proportional to the unit roundoff, $2^{-53}$ in float64 and $2^{-24}$ in float32: it grows by a factor of $2^{29}$.

# %%
digits = data.load("digits")
net = models.mlp((1, 8, 8), (64,), 10, seed=0)
net = training.fit(net, digits.x, digits.y, epochs=5, lr=0.1).model
w, b = (part.detach().double().numpy() for part in (net.head.weight, net.head.bias))
differences = (w[1:] - w[0]).T
anything = np.random.default_rng(0).standard_normal(w.shape[1])
d = anything - differences @ np.linalg.lstsq(differences, anything, rcond=None)[0]
d /= np.linalg.norm(d)
h = training.extract(net, data.load("digits", "test").x[:1]).double().numpy()

# %% tags=["nbval-check-output"]
lengths = np.array([1.0, 1e3, 1e6])
bound = nullspace.rounding_bound(*map(torch.from_numpy, (w, b, h, lengths)))[0]
still = special.softmax(h @ w.T + b, axis=1)
for t, allowed in zip(lengths, bound.tolist(), strict=True):
    moved = np.abs(special.softmax((h + t * d) @ w.T + b, axis=1) - still).max()
    print(
        f"theta = {t:>9,.0f}: moved by no more than rounding allows: {moved <= allowed}"
    )

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A bounded region in space
# :label: ex-null-bounded
# ```
# How many classes does a layer with $l = 3$ need for a bounded region?
# Build one, and confirm it with `nullspace.region`.
# Then remove one outer class at random: what happens to the region, and in which direction does it open?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-null-bounded
# :class: dropdown
# ```
# Five: the hull of the others needs an interior, so at least $l + 1 = 4$ corners, and the class itself lies inside.
# Without one of the corners, $w_k$ is no longer in the interior of what is left, and the region opens towards the side that the removed class had closed.

# %% tags=["nbval-check-output"]
corners = [[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
weights = torch.tensor([*corners, [0, 0, 0]], dtype=torch.float64)
bias = torch.tensor([0, 0, 0, 0, 1], dtype=torch.float64)
print("five classes:", nullspace.region(weights, bias, 4).kind)
opened = nullspace.region(weights[1:], bias[1:], 3)
print("one corner less:", opened.kind)
print("it opens towards the removed weight:", bool(opened.direction @ weights[0] > 0))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Heads or tails
# :label: ex-null-wendel
# ```
# Read Wendel's formula as a statement about coins, and say without a computer which of two random layers for 1,000 classes is likely to have an invisible ray in the orthant: one with $l = 4096$ features, as AlexNet and VGG16 have, and one with $l = 1280$, as MobileNet has.
# For which of the widths in the figure of torchvision's classifiers is the question most open?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-null-wendel
# :class: dropdown
# ```
# $P$ is the probability that $l - 1$ throws of a coin show at least $m - 1 = 999$ heads.
# Of 4095 throws about 2047 are heads, 33 standard deviations above 999; of 1279 about 640, 20 below.
# The question is open where $l$ is close to $2 (m - 1) = 1998$, for which $P$ is one half.
# In the figure the nearest is $l = 2016$, of RegNetY-8GF: 1007.5 heads are expected, less than half a standard deviation (22.4) above 999.
# With $l = 2048$, as ResNet-50 has, it is one standard deviation, and with $l = 1920$, as DenseNet-201 has, nearly two below.

# %% tags=["nbval-check-output"]
for width in (4096, 2048, 2016, 1920, 1280):
    print(f"l = {width}: P = {nullspace.cone_probability(width, 1000):.3f}")

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise} Hide in the null space
# :label: ex-null-hide
#
# Write a loss for `support.attacks.pgd` that makes the features travel as far as possible along the adversarial directions while the visible part moves as little as possible.
# How far does it come within the budget of the chapter, as a share of the shift that PGD causes, and what does the picture look like?
# Use `nearest_image` with a target far along the null space as a first answer, and say what the distance it reports leaves out.
# ```
#
# ```{exercise} A last layer without slack
# :label: ex-null-regularise
#
# Train the widest network of the family with a penalty on the part of the features that lies in the null space (the squared length of `h @ basis.T`).
# Does the accuracy under PGD change?
# Whatever you find, say which of the statements of this chapter it bears on.
# ```

# %% [markdown]
# ## Exercises with tests
#
# The exercises below stand alone: they need the imports of the next cell and nothing else.
# Each folded solution holds a derivation, the code, and the tests that it passes.

# %% tags=["assignment", "hide-input"]
import math

import numpy as np
from scipy.optimize import linprog
from scipy.stats import binom

# %% tags=["assignment-parameters", "hide-input"]
SEED = 0  # the tests draw their numbers from it

# %% [markdown] exercise="twin"
# ```{exercise-start} A hidden twin
# :label: ex-null-twin
# ```
# A softmax layer turns features $h \in \mathbb{R}^l$ into the probabilities of the scores $W h + b$, with one row $w_k$ of $W$ for each of $m$ classes.
# A *twin* of $h$ has other features and exactly the same probabilities, whatever the bias $b$ is.
#
# Which vectors $d$ leave the probabilities of $h + \theta d$ as they are for all $\theta$?
# The scores need not stand still for that.
# When is there no such $d \neq 0$?
#
# Write `twin(weight, h, distance)` with NumPy for `weight` of shape `(m, l)` and `h` of shape `(l,)` in float64.
# It returns a twin at the Euclidean distance `distance` from `h`, shape `(l,)`, or `None` if there is none.
#
# On a computer $h + \theta d$ is rounded, so the probabilities may move by about $2^{-53}\, \theta \lVert W \rVert$; the tests allow $4 (l + m)$ times that, at distances up to $10^9$.
# They use layers with $l > m$, $l = m$ and $l < m$, some with dependent rows.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="twin"
# ```{solution-start} ex-null-twin
# :class: dropdown
# ```
# Two vectors of scores have the same softmax exactly if they differ by the same number in every entry.
# So $W d = c\,\mathbf{1}$ for some $c$, or: $d$ is orthogonal to all differences of rows, and so to the rows of the centred weights $\tilde W = W - \mathbf{1} \bar w^\top$.
# These have rank $m - 1$ at most, so there is a twin whenever $l \geq m$, although $W d = 0$ has no solution but zero for $l = m$ and independent rows.
# In general the twins fill $l - \operatorname{rank} \tilde W$ dimensions, which may be more than $l - m + 1$ if rows depend on each other.
# The singular value decomposition gives the rank and a vector to the singular value zero.


# %% tags=["solution"] exercise="twin"
def twin(weight, h, distance):
    """Features (l,) at this distance from h with the same softmax output for every
    bias, or None.
    """
    ### BEGIN SOLUTION
    _, singular, rows = np.linalg.svd(weight - weight.mean(0))
    rank = (singular > 1e-12 * np.linalg.norm(weight)).sum()
    return h + distance * rows[-1] if rank < weight.shape[1] else None
    ### END SOLUTION


# %% tags=["tests"] exercise="twin" points=2
rng = np.random.default_rng([SEED, 10])
weight, bias, h = (
    rng.standard_normal((5, 12)),
    rng.standard_normal(5),
    rng.standard_normal(12),
)
for distance in (1.0, 1e4):
    found = twin(weight, h, distance)
    assert found is not None, "with more features than classes there is always a twin"
    assert np.isclose(np.linalg.norm(found - h), distance, rtol=1e-9), (
        f"the twin lies at another distance than {distance}"
    )
    output = []
    for features in (h, found):
        scores = weight @ features + bias
        output.append(
            np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        )
    allowed = (
        4 * 17 * 2.0**-53 * np.linalg.norm(weight) * (distance + np.linalg.norm(h) + 1)
    )
    assert np.abs(output[0] - output[1]).max() <= allowed, (
        "the probabilities move: d must be orthogonal to "
        "all differences of rows at once"
    )

# %% tags=["hidden-tests"] exercise="twin" points=2
# Criterion: a twin is found whenever there is one, whatever the rank and size of the
# weights
rng = np.random.default_rng([SEED, 11])
layers = {
    "l = m": rng.standard_normal((6, 6)),
    "l < m, rank 4": rng.standard_normal((10, 4)) @ rng.standard_normal((4, 8)),
    "l < m, every row twice": np.repeat(rng.standard_normal((4, 5)), 2, axis=0),
    "l = m, a long common vector": rng.standard_normal((7, 7)) + 1000,
    "l > m": rng.standard_normal((10, 64)),
    "short weights": 1e-8 * rng.standard_normal((6, 6)),
}
for name, weight in layers.items():
    h, bias = rng.standard_normal(weight.shape[1]), rng.standard_normal(len(weight))
    for distance in (1e-3, 1e3, 1e9):
        found = twin(weight.copy(), h.copy(), distance)
        assert found is not None, (
            f"a twin exists ({name}): must the scores stand still?"
        )
        assert np.isclose(np.linalg.norm(found - h), distance, rtol=1e-9), (
            f"the twin lies at another distance ({name})"
        )
        output = []
        for features in (h, found):
            scores = weight @ features + bias
            output.append(
                np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            )
        allowed = (
            4
            * sum(weight.shape)
            * 2.0**-53
            * (np.linalg.norm(weight) * (distance + np.linalg.norm(h)) + 1)
        )
        assert np.abs(output[0] - output[1]).max() <= allowed, (
            f"the probabilities move by more than rounding ({name})"
        )

# %% tags=["hidden-tests"] exercise="twin" points=1
# Criterion: None exactly where every direction changes the probabilities
rng = np.random.default_rng([SEED, 12])
for m, width in ((6, 5), (10, 3), (3, 1)):
    assert (
        twin(rng.standard_normal((m, width)), rng.standard_normal(width), 1.0) is None
    ), f"{m} rows in general position see all {width} dimensions"
assert twin(np.ones((4, 3)), np.zeros(3), 2.0) is not None, "equal rows see nothing"

# %% [markdown] tags=["solution-text"] exercise="twin"
# ```{solution-end}
# ```

# %% [markdown] exercise="heads"
# ```{exercise-start} What each head cannot see
# :label: ex-null-heads
# ```
# Four heads look at features $h \in \mathbb{R}^l$ through the rows $w_1, \dots, w_m$ of one matrix $W$, $m \geq 2$:
#
# - `"softmax"`: $p_k \propto \exp(h^\top w_k)$;
# - `"softRmax"`: $p_k \propto 1 / \lVert W h - e_k \rVert^2$, with the unit vectors $e_k$ of $\mathbb{R}^m$;
# - `"gauss"`: the confidences $\kappa_k = \exp(-\lVert h - w_k \rVert^2)$, which need not sum to one;
# - `"normalised gauss"`: $p_k = \kappa_k / \sum_j \kappa_j$.
#
# A direction $d$ is *invisible* to a head if all its outputs at $h + \theta d$ equal those at $h$, for every $h$ and every number $\theta$.
# Together with 0 the invisible directions form a linear space.
#
# Derive its dimension for each head.
#
# Write `invisible_dimensions(weight, head)` for `weight` of shape `(m, l)`; it returns a whole number.
#
# The tests use weights of many ranks, with repeated rows, and rows that share a long common vector.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="heads"
# ```{solution-start} ex-null-heads
# :class: dropdown
# ```
# The softmax ignores a number that is added to all scores: $l - \operatorname{rank} \tilde W$ with the centred weights.
# softRmax does not ignore it: with two classes or more, its probabilities stay the same for all $h$ only if $W d = 0$, so $l - \operatorname{rank} W$.
# A Gauss confidence changes along every line: 0.
# Normalised, the squares of $h$ cancel, $p_k \propto \exp(2 h^\top w_k - \lVert w_k \rVert^2)$, a softmax with weights $2 w_k$.
#
# On a computer a rank is a count of singular values above a threshold, which must be in proportion to the weights *as they are given*: centring leaves rounding errors of that size behind.


# %% tags=["solution"] exercise="heads"
def invisible_dimensions(weight, head):
    """Dimension of the space of directions that no output of the head sees."""
    ### BEGIN SOLUTION
    if head == "gauss":
        return 0
    seen = weight if head == "softRmax" else weight - weight.mean(0)
    threshold = 1e-12 * np.linalg.norm(weight)
    return int(
        weight.shape[1] - (np.linalg.svd(seen, compute_uv=False) > threshold).sum()
    )
    ### END SOLUTION


# %% tags=["tests"] exercise="heads" points=1
rng = np.random.default_rng([SEED, 20])
weight = rng.standard_normal((10, 64))
assert invisible_dimensions(weight, "softRmax") == 54, (
    "ten independent rows: softRmax sees ten dimensions"
)
assert invisible_dimensions(weight, "softmax") == 55, (
    "the softmax does not see a number that is added to all scores"
)
assert invisible_dimensions(weight, "gauss") == 0, (
    "no straight line keeps all distances to a point"
)

# %% tags=["hidden-tests"] exercise="heads" points=3
# Criterion: the number is right for each head, whatever the rank and the mean of the
# weights
rng = np.random.default_rng([SEED, 21])
planted = rng.standard_normal((10, 4)) @ rng.standard_normal((4, 32))
balanced = rng.standard_normal((5, 9))
balanced -= balanced.mean(0)
layers = (  # weights, what the softmax does not see, what softRmax does not see
    (rng.standard_normal((6, 6)), 1, 0),
    (rng.standard_normal((6, 5)), 0, 0),
    (rng.standard_normal((6, 3)), 0, 0),
    (rng.standard_normal((2, 3)), 2, 1),
    (planted, 28, 28),
    (np.repeat(rng.standard_normal((3, 8)), 4, axis=0), 6, 5),
    (rng.standard_normal((5, 9)) + 1e5, 5, 4),
    (balanced, 5, 5),
    (1e-9 * rng.standard_normal((4, 7)), 4, 3),
    (np.tile(rng.standard_normal(7), (4, 1)), 7, 6),
)
for weight, softmax, softrmax in layers:
    shape = f"weights of shape {weight.shape}"
    assert invisible_dimensions(weight.copy(), "softmax") == softmax, (
        f"softmax, {shape}"
    )
    assert invisible_dimensions(weight.copy(), "softRmax") == softrmax, (
        f"softRmax, {shape}"
    )
    assert invisible_dimensions(weight.copy(), "gauss") == 0, (
        f"Gauss confidences, {shape}"
    )
    assert invisible_dimensions(weight.copy(), "normalised gauss") == softmax, (
        f"normalised Gauss confidences, {shape}"
    )

# %% [markdown] tags=["solution-text"] exercise="heads"
# ```{solution-end}
# ```

# %% [markdown] exercise="exit"
# ```{exercise-start} Where the region ends
# :label: ex-null-exit
# ```
# A layer gives features $h \in \mathbb{R}^l$ the scores $W h + b$ and predicts the class with the largest one.
# From $h$ we travel along a direction $d$: at which $t > 0$ does the class of $h + t d$ change, and to which?
#
# Derive the answer for all classes at once, without a search.
# When does the class never change, however far we go?
#
# Write `first_change(weight, bias, h, d)` for `weight` of shape `(m, l)`, `bias` `(m,)`, `h` and `d` `(l,)`.
# It returns a pair: the `t` at which the first rival draws level, and that rival.
# If no rival ever does, it returns `(math.inf, None)`.
# At `h` one class is strictly ahead.
#
# The tests look a little before and a little behind `t`.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="exit"
# ```{solution-start} ex-null-exit
# :class: dropdown
# ```
# The lead of the predicted class $k$ over $j$ is linear in $t$: $a_j + t\,s_j$ with $a_j = (w_k - w_j)^\top h + b_k - b_j > 0$ and $s_j = (w_k - w_j)^\top d$.
# Only rivals that gain, $s_j < 0$, ever draw level, at $t = -a_j / s_j$, and the first of them counts.
# If all $s_j \geq 0$ the class never changes: $d$ is a direction in which the region reaches infinity.
# If all $s_j = 0$ the probabilities do not change either.


# %% tags=["solution"] exercise="exit"
def first_change(weight, bias, h, d):
    """(t, rival) where the class of h + t d first changes, or (inf, None)."""
    ### BEGIN SOLUTION
    scores = weight @ h + bias
    k = scores.argmax()
    lead, slope = scores[k] - scores, (weight[k] - weight) @ d
    gains = np.flatnonzero(slope < 0)
    if len(gains) == 0:
        return math.inf, None
    times = -lead[gains] / slope[gains]
    return float(times.min()), int(gains[times.argmin()])
    ### END SOLUTION


# %% tags=["tests"] exercise="exit" points=1
weight, bias = (
    np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
    np.array([1.0, 0.0, 0.0]),
)
h = np.array([1.0, 0.0])
t, rival = first_change(weight, bias, h, np.array([0.0, 1.0]))
assert np.isclose(t, 2) and rival == 1, (
    "upwards, the score of class 1 grows by 1 per unit of t and starts 2 behind"
)
t, rival = first_change(weight, bias, h, np.array([-1.0, 0.0]))
assert np.isclose(t, 1.5) and rival == 2, (
    "to the left, class 2 draws level at x = -1/2 and class 1 only at x = -1"
)
assert first_change(weight, bias, h, np.array([1.0, 0.0])) == (math.inf, None), (
    "to the right nobody gains on class 0"
)

# %% tags=["hidden-tests"] exercise="exit" points=3
# Criterion: no change before t, the named rival behind it, infinity where nobody
# catches up
rng = np.random.default_rng([SEED, 30])
reached = set()
for _ in range(200):
    weight, bias, h, d = (
        rng.standard_normal((8, 4)),
        rng.standard_normal(8),
        2 * rng.standard_normal(4),
        rng.standard_normal(4),
    )
    k = (weight @ h + bias).argmax()
    t, rival = first_change(weight, bias, h, d)
    steps = np.concatenate(
        [
            np.linspace(0, 1, 50) * (1 - 1e-9) * min(t, 1e6),
            np.geomspace(1e-3, 1e6, 50) * (t == math.inf),
        ]
    )
    assert (((h + steps[:, None] * d) @ weight.T + bias).argmax(1) == k).all(), (
        "the class changes before this t"
    )
    reached.add(t == math.inf)
    if t < math.inf:
        assert (weight @ (h + t * (1 + 1e-6) * d) + bias).argmax() == rival, (
            "behind this t another class is predicted"
        )
assert reached == {True, False}, (
    "of these directions some lead out of the region and some do not"
)
h, weight = rng.standard_normal(5), rng.standard_normal((4, 5))
weight[2] += 10 * h
tied = np.linalg.svd(weight - weight.mean(0))[2][-1]
assert first_change(weight, np.zeros(4), h, tied)[0] > 1e12, (
    "along a direction that the softmax does not see nobody draws level"
)

# %% [markdown] tags=["solution-text"] exercise="exit"
# ```{solution-end}
# ```

# %% [markdown] exercise="escape"
# ```{exercise-start} A way out, or a proof that there is none
# :label: ex-null-escape
# ```
# The region of class $k$ is the set of features $h \in \mathbb{R}^l$ at which its score $h^\top w_k + b_k$ is the largest.
# If it is not empty, it is unbounded exactly if some $d \neq 0$ has $d^\top (w_k - w_j) \geq 0$ for all $j$: no rival gains along $d$.
#
# Such a $d$ proves that the region is unbounded.
# A proof that it is *bounded* consists of numbers $a_j > 0$, one for each rival, with $\sum_{j \neq k} a_j (w_k - w_j) = 0$, where the differences $w_k - w_j$ span $\mathbb{R}^l$.
# Show that it is one, and that one of the two proofs always exists (a theorem of Stiemke on systems of linear inequalities).
#
# Write `way_out(weight, k)` for `weight` of shape `(m, l)`.
# It returns a pair: `(d, None)` with `d` of shape `(l,)` and length 1, or `(None, a)` with `a` of shape `(m,)`, where `a[k] = 0` and the entries sum to 1.
# `scipy.optimize.linprog` solves linear programs.
#
# The tests check your proofs to a tolerance of $10^{-7}$.
# They look also at weights on the boundary of the convex hull of all weights, and at layers that do not see every direction.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="escape"
# ```{solution-start} ex-null-escape
# :class: dropdown
# ```
# If $\sum_j a_j (w_k - w_j) = 0$ with all $a_j > 0$ and no rival gains along $d$, then $\sum_j a_j\, d^\top (w_k - w_j) = 0$ is a sum of non-negative terms, so all of them vanish, and $d$ is orthogonal to vectors that span the space: $d = 0$.
# Stiemke's theorem says that either such positive numbers exist, or a $d$ along which no rival gains and some rival loses.
# What is left is the case where the differences do not span the space: then a vector orthogonal to all of them leaves every lead as it is.
#
# The first program maximises the sum of all gains and not the smallest gain, because along an edge of the hull some rival keeps its distance.


# %% tags=["solution"] exercise="escape"
def way_out(weight, k):
    """(d, None) with a direction d (l,) along which no rival of k gains, or (None, a)
    with a proof a (m,) that there is none.
    """
    ### BEGIN SOLUTION
    m, width = weight.shape
    rivals = np.arange(m) != k
    lead = weight[k] - weight[rivals]
    lead = lead / (np.abs(lead).max() or 1.0)
    _, singular, rows = np.linalg.svd(lead)
    if (singular > 1e-10).sum() < width:
        return rows[-1], None
    d = linprog(-lead.sum(0), -lead, np.zeros(m - 1), bounds=(-1, 1)).x
    if (lead @ d).sum() > 1e-6:
        return d / np.linalg.norm(d), None
    # the largest t with a_j >= t
    system = np.vstack(
        [np.hstack([lead.T, np.zeros((width, 1))]), np.append(np.ones(m - 1), 0)]
    )
    floor = np.hstack([-np.eye(m - 1), np.ones((m - 1, 1))])
    found = linprog(
        np.append(np.zeros(m - 1), -1),
        floor,
        np.zeros(m - 1),
        system,
        np.append(np.zeros(width), 1),
    )
    a = np.zeros(m)
    a[rivals] = found.x[:-1]
    return None, a
    ### END SOLUTION


# %% tags=["tests"] exercise="escape" points=1
square = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [0.2, 0.1]])
d, a = way_out(square, 0)
assert a is None, "a corner of the hull has an unbounded region"
assert (
    np.isclose(np.linalg.norm(d), 1) and ((square[0] - square[1:]) @ d >= -1e-7).all()
), "some rival gains along this d"
d, a = way_out(square, 4)
assert d is None, "a weight inside the hull: in every direction some rival gains"
assert a[4] == 0 and (a[:4] > 0).all() and np.isclose(a.sum(), 1), (
    "a holds one positive number for each rival, and they sum to 1"
)
assert np.abs(a @ (square[4] - square)).max() < 1e-7, (
    "the weighted differences do not cancel"
)

# %% tags=["hidden-tests"] exercise="escape" points=2
# Criterion: each region gets the right answer with a proof that holds
rng = np.random.default_rng([SEED, 40])


def check_proof(weight, k, unbounded):
    d, a = way_out(weight.copy(), k)
    assert (d is None) != unbounded and (a is None) == unbounded, (
        f"this region is {'unbounded' if unbounded else 'bounded'}"
    )
    lead = np.delete(weight[k] - weight, k, axis=0)
    if unbounded:
        assert np.isclose(np.linalg.norm(d), 1) and (lead @ d).min() >= -1e-7, (
            "some rival gains along this d"
        )
    else:
        assert a[k] == 0 and np.delete(a, k).min() > 0 and np.isclose(a.sum(), 1), (
            "one positive number for each rival, with sum 1"
        )
        assert np.abs(np.delete(a, k) @ lead).max() < 1e-7, (
            "the weighted differences do not cancel"
        )


for width in (2, 3, 5):
    stretch = (
        np.geomspace(0.1, 2, width)[:, None]
        * np.linalg.qr(rng.standard_normal((width, width)))[0]
    )
    weight = rng.standard_normal((2 * width + 4, width)) @ stretch
    weight[1] = rng.dirichlet(np.full(len(weight) - 1, 5.0)) @ np.delete(
        weight, 1, axis=0
    )
    check_proof(weight, 1, False)
    for k in {
        int((weight @ normal).argmax()) for normal in rng.standard_normal((10, width))
    }:
        check_proof(weight, k, True)
    simplex = rng.standard_normal((width + 1, width)) @ stretch
    for k in range(width + 1):
        check_proof(simplex, k, True)  # l + 1 classes are too few for a bounded region

# %% tags=["hidden-tests"] exercise="escape" points=1
# Criterion: the borderline cases: an edge of the hull, a line, an unseen direction, a
# unit
rng = np.random.default_rng([SEED, 41])
corners = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
for weight, k, why in (
    (
        np.vstack([corners, [[0.3, 1.0]]]),
        4,
        "on an edge of the hull some rivals keep their distance and the others lose",
    ),
    (
        np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]),
        1,
        "weights on a line do not see the other direction",
    ),
    (
        np.vstack([corners, [[0.2, 0.1]]]) @ rng.standard_normal((2, 5)),
        4,
        "along a direction that the layer does not see nobody gains",
    ),
):
    d, a = way_out(weight.copy(), k)
    assert a is None and d is not None, why
    assert (
        np.isclose(np.linalg.norm(d), 1) and ((weight[k] - weight) @ d).min() >= -1e-7
    ), "some rival gains along this d"
assert way_out(100 * np.vstack([corners, [[0.99, 0.98]]]), 4)[0] is None, (
    "just inside the hull a region is bounded, whatever the unit"
)

# %% [markdown] tags=["solution-text"] exercise="escape"
# ```{solution-end}
# ```

# %% [markdown] exercise="ray"
# ```{exercise-start} A ray for features that are never negative
# :label: ex-null-ray
# ```
# Features behind a ReLU are non-negative.
# A ray $h + t d$, $t \geq 0$, stays non-negative for ever exactly if $d \geq 0$ in every entry.
# The softmax of the scores $W h + b$ does not change along it if all entries of $W d$ are equal.
#
# Let $\tilde W$ be $W$ with the mean of its rows subtracted from each row.
# Show that exactly one of two things exists (a theorem of Gordan):
# a $d \geq 0$ with $\tilde W d = 0$ and $\sum_i d_i = 1$, or a vector $y \in \mathbb{R}^m$ with $(\tilde W^\top y)_i > 0$ for all $i$.
# What does $y$ mean for the features?
#
# Write `ray_or_reason(weight)` for `weight` of shape `(m, l)`.
# It returns `(d, None)` with `d` of shape `(l,)`, or `(None, y)` with `y` of shape `(m,)`.
#
# The tests check what you return to a tolerance of $10^{-7}$, for layers with $l$ above and below $2(m - 1)$, and for weights that are all positive.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="ray"
# ```{solution-start} ex-null-ray
# :class: dropdown
# ```
# Both cannot be: $0 = y^\top \tilde W d = \sum_i d_i (\tilde W^\top y)_i$ would be positive.
# That one of them exists is the separation of the origin from the convex hull of the columns of $\tilde W$: either the origin is a convex combination of columns, and the coefficients are $d$, or some $y$ has a positive inner product with all columns.
# In the second case $y^\top \tilde W h$, a combination of differences of scores, grows with every feature: no ray can hide from it.
#
# Centring matters: where all weights are positive, $W d = 0$ has no solution $d \geq 0$ but zero, and a ray may exist all the same, along which all scores grow alike.


# %% tags=["solution"] exercise="ray"
def ray_or_reason(weight):
    """(d, None) with a non-negative ray d (l,) that the softmax does not see, or
    (None, y) with a proof y (m,) that there is none.
    """
    ### BEGIN SOLUTION
    m, width = weight.shape
    seen = weight - weight.mean(0)
    seen = seen / (np.abs(seen).max() or 1.0)
    # the largest t with (seen^T y)_i >= t
    best = linprog(
        [0] * m + [-1],
        np.hstack([-seen.T, np.ones((width, 1))]),
        np.zeros(width),
        bounds=[(-1, 1)] * m + [(None, None)],
    ).x
    if best[-1] > 1e-7:
        return None, best[:-1]
    return linprog(
        np.zeros(width),
        A_eq=np.vstack([seen, np.ones(width)]),
        b_eq=np.append(np.zeros(m), 1),
        bounds=(0, None),
    ).x, None
    ### END SOLUTION


# %% tags=["tests"] exercise="ray" points=1
weight = np.array([[1.0, -2.0], [-1.0, 2.0]])
d, y = ray_or_reason(weight)
assert y is None, "the two features can grow together without a change of the scores"
assert np.allclose(d, [2 / 3, 1 / 3], atol=1e-6), (
    "two parts of the first feature balance one part of the second"
)
weight = np.array([[1.0, 2.0], [0.0, 1.0]])
d, y = ray_or_reason(weight)
assert d is None, "every feature favours class 0: no ray can hide"
assert ((weight - weight.mean(0)).T @ y > 0).all(), (
    "this y is no reason: some feature lowers or keeps the combination"
)

# %% tags=["hidden-tests"] exercise="ray" points=3
# Criterion: either a ray that the softmax does not see, or a valid reason that there is
# none
rng = np.random.default_rng([SEED, 50])


def check_ray(weight, expected=None):
    d, y = ray_or_reason(weight.copy())
    seen = weight - weight.mean(0)
    assert (d is None) != (y is None), "return one of the two"
    if d is not None:
        assert expected in (None, "ray"), "this layer sees every ray"
        assert d.min() >= -1e-9 and np.isclose(d.sum(), 1), (
            "d is non-negative and sums to one"
        )
        assert np.abs(seen @ d).max() < 1e-7 * np.abs(seen).max() + 1e-12, (
            "the softmax sees this d"
        )
    else:
        assert expected in (None, "reason"), "this layer has a ray that it does not see"
        assert (seen.T @ y).min() > 0, (
            "this y is no reason: it needs a positive product with every column"
        )


for width in (3, 6, 9, 12, 15, 18, 24):  # 2 (m - 1) = 18
    for _ in range(3):
        check_ray(rng.standard_normal((10, width)))
        check_ray(rng.uniform(1, 2, (6, width)))  # positive weights
check_ray(rng.standard_normal((4, 40)), "ray")
check_ray(rng.uniform(1, 2, (4, 40)), "ray")
one_sided = rng.standard_normal((5, 8))
one_sided -= one_sided.mean(0)
check_ray(one_sided * np.sign(rng.standard_normal(5) @ one_sided), "reason")

# %% [markdown] tags=["solution-text"] exercise="ray"
# ```{solution-end}
# ```

# %% [markdown] exercise="width"
# ```{exercise-start} How wide must a layer be
# :label: ex-null-width
# ```
# Throw $n$ independent points, symmetric about the origin, into $\mathbb{R}^r$.
# Wendel's theorem: they all lie in one open half-space through the origin with probability
#
# $$2^{1-n} \sum_{i=0}^{r-1} \binom{n-1}{i} .$$
#
# A random softmax layer with $l$ features and $m$ classes has a ray of non-negative features that it does not see exactly if the $l$ columns of its *centred* weights (the mean row subtracted) do *not* all lie in one open half-space.
# Which $n$ and $r$ belong to this question?
#
# Write `chance_of_a_ray(width, classes)` for $l$ and $m$, the probability that there is such a ray, and with it `smallest_width(classes, chance)`, the smallest $l$ for which the probability is at least `chance`, for $m \geq 2$ and $0 <$ `chance` $< 1$.
#
# The tests go to a thousand classes, where binomial coefficients have hundreds of digits.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="width"
# ```{solution-start} ex-null-width
# :class: dropdown
# ```
# The columns are $n = l$ points; their entries sum to zero, so they lie in $r = m - 1$ dimensions.
# The sum is the probability that $l - 1$ throws of a fair coin show at most $m - 2$ heads, so the chance of a ray is that of at least $m - 1$ heads.
# It grows with $l$, which allows bisection, and is one half at $l - 1 = 2 (m - 1) - 1$, where $m - 1$ heads or more are as likely as $m - 1$ tails or more: $l = 2 (m - 1)$.


# %% tags=["solution"] exercise="width"
def chance_of_a_ray(width, classes):
    """Probability that a random layer has a non-negative ray unseen by its softmax."""
    ### BEGIN SOLUTION
    return float(binom.sf(classes - 2, width - 1, 0.5))
    ### END SOLUTION


def smallest_width(classes, chance):
    """The smallest width with chance_of_a_ray(width, classes) of at least chance."""
    ### BEGIN SOLUTION
    low, high = 1, 2
    while chance_of_a_ray(high, classes) < chance:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high)
            if chance_of_a_ray(middle, classes) < chance
            else (low, middle)
        )
    return high
    ### END SOLUTION


# %% tags=["tests"] exercise="width" points=1
assert np.isclose(chance_of_a_ray(3, 2), 3 / 4), (
    "two classes, three features: no ray only if all three columns have the same sign"
)
assert chance_of_a_ray(9, 10) == 0, (
    "nine columns in nine dimensions always lie in one half-space"
)
assert smallest_width(2, 0.75) == 3, (
    "the chance at l = 2 is one half, at l = 3 three quarters"
)

# %% tags=["hidden-tests"] exercise="width" points=2
# Criterion: the chance is Wendel's, for few classes and for many
for m in (2, 3, 10, 100, 1000):
    assert np.isclose(chance_of_a_ray(2 * (m - 1), m), 0.5, rtol=1e-9), (
        "the chance is one half at l = 2 (m - 1)"
    )
    for width in (m - 1, m, m + 1, 2 * m, 3 * m + 5):
        exact = 1 - sum(math.comb(width - 1, i) for i in range(m - 1)) / 2 ** (
            width - 1
        )
        assert np.isclose(chance_of_a_ray(width, m), exact, rtol=1e-6, atol=1e-12), (
            f"not Wendel's probability for l = {width}, m = {m}"
        )

# %% tags=["hidden-tests"] exercise="width" points=2
# Criterion: the width is the smallest one that has the chance
for m in (2, 5, 10, 1000):
    assert smallest_width(m, 0.499) == 2 * (m - 1), "just below one half: l = 2 (m - 1)"
    for chance in (0.01, 0.3, 0.9, 0.999):
        found = smallest_width(m, chance)
        below, at = (
            1 - sum(math.comb(width - 1, i) for i in range(m - 1)) / 2 ** (width - 1)
            for width in (max(found - 1, 1), found)
        )
        assert below < chance <= at + 1e-12, (
            f"not the smallest width for m = {m} and a chance of {chance}"
        )

# %% [markdown] tags=["solution-text"] exercise="width"
# ```{solution-end}
# ```

# %% tags=["hide-input"]
run.finish()
