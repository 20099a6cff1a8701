# %% [markdown]
# # Exercises: ClusTR: clustering for robustness

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # the exercises have this profile only
seed: int = 0
device: str = "cpu"
overrides: dict = {}

# %% tags=["hide-input"]
from support.book import chapter_run

run = chapter_run.start("04_clustr/exercises", profile, seed, device, overrides)

# %% [markdown]
# ```{exercise-start} Counting dropped successes
# :label: ex-clustr-drop
# ```
# Run the published loop on the ClusTR network with kernel sums and all clusters, once merged by loss and once by success.
# How many images does the merge alone decide, and can it ever be the other way round?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-clustr-drop
# :class: dropdown
# ```
# ```python
# def broken(merge):
#     """Which images fall; the starts are the same at every call."""
#     draws = torch.Generator().manual_seed(0)
#     budget = {"steps": 20, "restarts": 10, "step_size": eps / 4, "generator": draws}
#     return attacks.clustr_pgd(net, x, y, eps, merge=merge, **budget).success
#
# by_loss, by_success = broken("loss"), broken("success")
# print(int((by_success & ~by_loss).sum()), int((by_loss & ~by_success).sum()))
# ```
# Here `net` is the ClusTR network and `x, y` are the images of the attack.
# Both runs pass through the same end points, because the starts are the same.
# By success an image counts as broken whenever some end point is, so the second number can differ from zero only where the loop's scores and the network's verdict disagree.
# ```{solution-end}
# ```
#
# ```{exercise-start} A loss that does not see the scale
# :label: ex-clustr-scale
# ```
# Multiply features and centres by 10.
# What happens to the Magnet loss with its own variance, to the Magnet loss with a fixed variance, and to the certified radius?
# Which of the three is an argument that training with the loss enlarges the radius?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-clustr-scale
# :class: dropdown
# ```
# With its own variance the loss stays the same, and so does the radius, since $L$ grows by 10 as well.
# With a fixed variance the loss of a well-classified image falls to zero, and the radius stays the same: a lower loss is no larger radius.
# ```{solution-end}
# ```
#
# ```{exercise-start} Entropy in the loss
# :label: ex-clustr-entropy
# ```
# Train QTRADES on digits from random weights with $\lambda = 8$, once with `clustr.qtrades_loss`, once with the entropy of the clean prediction subtracted, which leaves the Kullback-Leibler divergence of TRADES.
# Look at the accuracy and at the largest probability.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-clustr-entropy
# :class: dropdown
# ```
# ```python
# quick = one_step(0.1, 8.0)
#
# def divergence(model, x, y):
#     return quick(model, x, y) - 8.0 * torch.special.entr(model(x).softmax(1)).sum(1)
#
# train, test = data.load("digits"), data.load("digits", "test")
# for loss in (quick, divergence):
#     net = models.mlp((1, 8, 8), (128, 64), 10, seed=0)
#     net = training.fit(net, train.x, train.y, epochs=30, lr=0.1, loss=loss).model
#     accuracy = (net(test.x).argmax(1) == test.y).double().mean()
#     print(float(accuracy), float(net(train.x).softmax(1).amax(1).mean()))
# ```
# With the cross-entropy, answering every image with the same certain class costs less than keeping ten classes apart: the term is at its least there.
# ```{solution-end}
# ```

# %% [markdown]
# ## Graded exercises
#
# These stand by themselves: each asks for one function, and no result of the chapter is needed.
# Here $f$ is a vector of features, the centres are given, and so the features are the input unless an exercise says otherwise.

# %% tags=["assignment", "hide-input"]
# Write every function yourself, without `support`: the tests compare it with closed
# forms, with searches and with the package.
import math

import torch
from torch.nn import functional

# %% tags=["assignment-parameters", "hide-input"]
SEED = 0  # the tests draw their numbers from it


# %% tags=["assignment", "hide-input"]
def normal(*sizes: int, offset: int = 0) -> torch.Tensor:
    """Standard normal numbers, float64, drawn from SEED."""
    return torch.randn(
        sizes,
        generator=torch.Generator().manual_seed(1000 * SEED + offset),
        dtype=torch.float64,
    )


def squared(f: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Squared distances (N, M) of features (N, d) to centres (M, d)."""
    return (f[:, None] - centers).square().sum(2)


def claimed_radius(f: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """(N,) (|f - b|^2 - |f - a|^2) / (2 |b - a|) with a the nearest and b the second
    nearest centre: the distance to their bisector.
    """
    near = squared(f, centers).topk(2, dim=1, largest=False)
    apart = (centers[near.indices[:, 1]] - centers[near.indices[:, 0]]).norm(dim=1)
    return (near.values[:, 1] - near.values[:, 0]) / (2 * apart)


# %% [markdown] exercise="refute"
# ```{exercise-start} Prove a radius wrong
# :label: ex-clustr-refute
# ```
# A point $f \in \mathbb R^d$ gets the class of the nearest of $K$ centres, one per class.
# With $a$ its nearest and $b$ its second nearest centre, somebody claims that no move shorter than
#
# $$r(f) = \frac{\lVert f - b \rVert^2 - \lVert f - a \rVert^2}{2 \lVert b - a \rVert}$$
#
# changes the class of $f$.
# For two centres this is right.
# Show that it is wrong for three or more, by a counterexample for any centres that you are given.
#
# Write `refute(centers)` for centres of shape `(K, d)`, $K \ge 3$, float64, in general position.
# It returns two tensors of shape `(d,)`: a point $f$ and a point $f'$ whose nearest centre is another one, with $\lVert f' - f \rVert < 0.95\, r(f)$.
# The helper `claimed_radius(f, centers)` computes $r$ for rows of points.
# The tests verify your pair on centres of different number, dimension and scale.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="refute"
# ```{solution-start} ex-clustr-refute
# :class: dropdown
# ```
# What counts is the nearest *bisector*, not the second nearest centre.
# Where $b$ and a farther centre $c$ are about equally far from $f$, the two numerators are about equal, and the bisector of $a$ and $c$ is the nearer one if $c$ lies farther from $a$ than $b$ does.
# So we draw points on the scale of the centres, compute both distances, and keep the point at which the claim exceeds the truth by the largest factor.
# The shortest way across a bisector is along the difference of its two centres.


# %% tags=["solution"] exercise="refute"
def refute(centers):
    """A point (d,), and a point (d,) of another class that is closer to it than 0.95
    times the claimed radius.
    """
    ### BEGIN SOLUTION
    tries = torch.randn(
        4_000,
        centers.shape[1],
        generator=torch.Generator().manual_seed(0),
        dtype=centers.dtype,
    )
    tries = centers.mean(0) + 1.5 * centers.std(0) * tries
    d2 = squared(tries, centers)
    nearest = d2.argmin(1, keepdim=True)
    apart = torch.cdist(centers, centers)[nearest[:, 0]]
    to_bisector = ((d2 - d2.gather(1, nearest)) / (2 * apart)).scatter(
        1, nearest, torch.inf
    )
    shortest, rival = to_bisector.min(1)
    at = (claimed_radius(tries, centers) / shortest).argmax()
    way = centers[rival[at]] - centers[nearest[at, 0]]
    return tries[at], tries[at] + (1 + 1e-6) * shortest[at] * way / way.norm()
    ### END SOLUTION


# %% tags=["tests"] exercise="refute" points=2
for corners in (
    torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3.0]], dtype=torch.float64),
    normal(5, 2, offset=1),
):
    origin_point, moved_point = refute(corners)
    assert origin_point.shape == moved_point.shape == corners.shape[1:], (
        "return two points, each of shape (d,)"
    )
    assert (
        squared(origin_point[None], corners).argmin()
        != squared(moved_point[None], corners).argmin()
    ), "the class has not changed, so nothing is refuted"
    share_of_claim = (moved_point - origin_point).norm() / claimed_radius(
        origin_point[None], corners
    )[0]
    assert share_of_claim < 0.95, (
        f"the move has {share_of_claim:.3f} of the claimed radius: "
        "that is no counterexample, or hardly one"
    )

# %% tags=["hidden-tests"] exercise="refute" points=3
# Criterion: a move well inside the claimed radius changes the class, for any centres
for case in range(12):
    scale, count, width = (
        (1e3, 1e-3, 1.0)[case % 3],
        (6, 10)[case % 2],
        (2, 3)[case // 6],
    )
    corners = scale * (
        normal(count, width, offset=100 + case) + (5.0 if case % 3 == 2 else 0.0)
    )
    origin_point, moved_point = refute(corners)
    where = f"{count} centres in {width} dimensions, scale {scale:g}"
    assert (
        squared(origin_point[None], corners).argmin()
        != squared(moved_point[None], corners).argmin()
    ), f"{where}: the class has not changed"
    assert (moved_point - origin_point).norm() < 0.95 * claimed_radius(
        origin_point[None], corners
    )[0], f"{where}: the move is not inside the claimed radius"

# %% [markdown] tags=["solution-text"] exercise="refute"
# ```{solution-end}
# ```

# %% [markdown] exercise="certificate"
# ```{exercise-start} The radius that holds
# :label: ex-clustr-certificate
# ```
# An image $x$ has features $f(x) \in \mathbb R^d$ with a Lipschitz constant $L$: $\lVert f(x) - f(x') \rVert \le L \lVert x - x' \rVert$.
# There are $M$ centres, each of them belongs to a class, and a class may have several.
# The image gets the class of the nearest centre.
#
# An own centre $m$, that is one of this class, *certifies* a radius $r$ if no $x'$ with $\lVert x' - x \rVert < r$ can bring $f(x')$ nearer to any centre of any other class than to $m$.
# Derive the largest radius that the Lipschitz bound and the bisectors of $m$ give, and note that the answer may change from one own centre to another without harm.
# The certificate is the best radius over all own centres $m$, not only the nearest one.
#
# Write `certificate(features, centers, kinds, lipschitz)` for features `(N, d)`, centres `(M, d)`, integer classes of the centres `kinds` of shape `(M,)`, at least two different ones, and a positive number $L$.
# It returns the certificates, shape `(N,)`.
# The helper `squared(features, centers)` computes all squared distances.
# Tested are values known in closed form, that nothing changes inside the radius, and that it is not smaller than it needs to be.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="certificate"
# ```{solution-start} ex-clustr-certificate
# :class: dropdown
# ```
# The features stay nearer to $m$ than to a rival $c$ on one side of a hyperplane, whose distance from $f$ is $(\lVert f - c \rVert^2 - \lVert f - m \rVert^2) / 2 \lVert c - m \rVert$.
# All rivals at once: the minimum over $c$.
# The image may move by $1/L$ of what the features may.
# Each own centre gives a proof by itself, so the maximum over $m$ is proven, too; a farther own centre that lies deeper in its class may well prove more.


# %% tags=["solution"] exercise="certificate"
def certificate(features, centers, kinds, lipschitz):
    """Certified l2 radius of each row of features, (N,)."""
    ### BEGIN SOLUTION
    d2 = squared(features, centers)
    own = kinds[d2.argmin(1)]
    best = torch.full_like(d2[:, 0], -torch.inf)
    for m in range(len(centers)):
        rivals = kinds != kinds[m]
        to_bisector = (d2[:, rivals] - d2[:, m, None]) / (
            2 * (centers[rivals] - centers[m]).norm(dim=1)
        )
        best = torch.where(
            own == kinds[m], torch.maximum(best, to_bisector.amin(1)), best
        )
    return best / lipschitz
    ### END SOLUTION


# %% tags=["tests"] exercise="certificate" points=1
seats, seat_kinds = (
    torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=torch.float64),
    torch.tensor([0, 1]),
)
guests = torch.tensor([[1.0, 7.0], [2.0, 0.0], [3.5, -1.0]], dtype=torch.float64)
expected_radii = torch.tensor([0.5, 0.0, 0.75], dtype=torch.float64)
assert certificate(guests, seats, seat_kinds, 2.0).shape == (3,), (
    "one radius for each row"
)
assert torch.allclose(certificate(guests, seats, seat_kinds, 2.0), expected_radii), (
    "with L = 2 half the distance to the plane x = 2 is certified"
)
seats, seat_kinds = (
    torch.tensor([[0.0, 1.0], [0.0, -1.0], [4.0, 0.0]], dtype=torch.float64),
    torch.tensor([5, 5, 2]),
)
assert (
    certificate(torch.zeros(1, 2, dtype=torch.float64), seats, seat_kinds, 1.0)[0] > 1.5
), "to pass from one centre of a class to another of the same class is no change"

# %% tags=["hidden-tests"] exercise="certificate" points=2
# Criterion: with one centre a class the nearest of all bisectors decides
seats, guests = normal(7, 3, offset=2), normal(300, 3, offset=3)
seat_kinds = torch.arange(7)
at_seats = squared(guests, seats)
lengths = torch.stack(
    [
        (at_seats[:, k] - at_seats.amin(1))
        / (2 * (seats[k] - seats[at_seats.argmin(1)]).norm(dim=1))
        for k in range(7)
    ],
    1,
)
expected_radii = lengths.nan_to_num(torch.inf).amin(1) / 3
assert torch.allclose(
    certificate(guests, seats, seat_kinds, 3.0), expected_radii, atol=1e-9
), "one centre a class: the nearest of all bisectors decides, whosever it is"
assert torch.allclose(
    certificate(guests, seats, seat_kinds, 0.5), 6 * expected_radii, atol=1e-9
), "a smaller Lipschitz constant certifies more"

# %% tags=["hidden-tests"] exercise="certificate" points=2
# Criterion: with several centres a class the best own centre counts for each rival
from support.certificates import robustness_radius

seats, guests = normal(8, 2, offset=4), normal(400, 2, offset=5)
seat_kinds = torch.tensor([3, 0, 1, 1, 0, 3, 3, 0])
found_radii = certificate(guests, seats, seat_kinds, 2.0)
assert torch.allclose(
    found_radii, robustness_radius(guests, seats, seat_kinds, 2.0), atol=1e-9
), "the best own centre is not always the nearest one"

# %% [markdown] tags=["solution-text"] exercise="certificate"
# ```{solution-end}
# ```

# %% [markdown] exercise="magnet"
# ```{exercise-start} A loss without a floor
# :label: ex-clustr-magnet
# ```
# Features $f \in \mathbb R^d$ have a class $y$; there are centres $\mu_j$, each of a class $k_j$.
# The Magnet loss of $f$ is
#
# $$\Big\{ \alpha + \frac{1}{2 v} \min_{j : k_j = y} \lVert f - \mu_j \rVert^2 + \log \sum_{j : k_j \ne y} e^{-\lVert f - \mu_j \rVert^2 / 2 v} \Big\}_+ , \qquad \{t\}_+ = \max(t, 0) .$$
#
# Far from all centres every exponential is zero in floating point, and the logarithm of their sum is minus infinity; a small number added to the sum makes it finite and wrong.
# The loss itself is an ordinary number there.
#
# Write `magnet(features, labels, centers, kinds, alpha, variance)` for features `(N, d)`, labels `(N,)`, centres `(M, d)`, their classes `kinds` `(M,)`, and the numbers $\alpha$ and $v$.
# It returns the losses `(N,)`, exact to rounding at distances of 1000 as well as at distances of 1, and differentiable by autograd with respect to the features.
# Work out the gradient on paper: where the loss is positive it is $\frac 1 v$ times a weighted mean of the other classes' centres minus the own centre.
# The tests compare both, values and gradients.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="magnet"
# ```{solution-start} ex-clustr-magnet
# :class: dropdown
# ```
# `logsumexp` takes the largest exponent out before it exponentiates, so the sum is at least 1.
# Centres of the own class get the exponent minus infinity, that is weight 0.
# The gradient of the second term is $(f - \mu_{\text{own}}) / v$, that of the third $-\sum_j w_j (f - \mu_j) / v$ with weights $w$ that are the softmax of the exponents and sum to 1; so $f$ cancels, and $\frac 1 v (\sum_j w_j \mu_j - \mu_{\text{own}})$ is left.


# %% tags=["solution"] exercise="magnet"
def magnet(features, labels, centers, kinds, alpha, variance):
    """Magnet loss of each row of features, (N,)."""
    ### BEGIN SOLUTION
    exponents = -squared(features, centers) / (2 * variance)
    same = labels[:, None] == kinds
    pull = -exponents.masked_fill(~same, -torch.inf).amax(1)
    push = exponents.masked_fill(same, -torch.inf).logsumexp(1)
    return (alpha + pull + push).clamp(min=0)
    ### END SOLUTION


# %% tags=["tests"] exercise="magnet" points=2
pole_kinds, pole_labels = torch.tensor([0, 1]), torch.tensor([0, 0, 1])
poles, probes_at = (
    torch.tensor([[0.0], [3.0]], dtype=torch.float64),
    torch.tensor([[1.0], [2.0], [2.0]], dtype=torch.float64),
)
expected_losses = torch.tensor(
    [1.0 - 0.75, 1.0 + 0.75, 1.0 - 0.75], dtype=torch.float64
)
assert torch.allclose(
    magnet(probes_at, pole_labels, poles, pole_kinds, 1.0, 2.0),
    expected_losses,
    atol=1e-6,
), "one centre a class: alpha plus the difference of the squared distances over 2 v"
assert not magnet(probes_at, pole_labels, poles, pole_kinds, -1.0, 2.0)[[0, 2]].any(), (
    "the loss is cut off at zero"
)

# %% tags=["hidden-tests"] exercise="magnet" points=1
# Criterion: the loss has the nearest own centre and the sum over all rival centres
poles, probes_at = normal(6, 4, offset=6), normal(90, 4, offset=7)
pole_kinds, pole_labels = torch.tensor([2, 0, 1, 1, 0, 2]), torch.arange(90) % 3
at_poles = squared(probes_at, poles)
for row, kind in enumerate(pole_labels.tolist()):
    own_part = (
        min(float(at_poles[row, j]) for j in range(6) if pole_kinds[j] == kind) / 1.6
    )
    rival_part = math.log(
        sum(
            math.exp(-float(at_poles[row, j]) / 1.6)
            for j in range(6)
            if pole_kinds[j] != kind
        )
    )
    answer = float(
        magnet(
            probes_at[row : row + 1],
            pole_labels[row : row + 1],
            poles,
            pole_kinds,
            2.0,
            0.8,
        )
    )
    assert abs(answer - max(0.0, 2.0 + own_part + rival_part)) < 1e-9, (
        "the nearest own centre, the sum over all centres of "
        "other classes, nothing added to it"
    )

# %% tags=["hidden-tests"] exercise="magnet" points=2
# Criterion: far from all centres loss and gradient are still right
poles, pole_kinds = (
    torch.tensor([[0.0, 0.0], [0.0, 2.0], [0.0, -1.0]], dtype=torch.float64),
    torch.tensor([0, 1, 1]),
)
far_probe = torch.tensor(
    [[1000.0, 0.5], [-1000.0, 1.25]], dtype=torch.float64, requires_grad=True
)
far_labels = torch.zeros(2, dtype=torch.int64)
far_losses = magnet(far_probe, far_labels, poles, pole_kinds, 4.0, 1.0)
assert torch.isfinite(far_losses).all(), (
    "at a distance of 1000 the loss is an ordinary number"
)
gap = [[(x2 - c) ** 2 - x2**2 for c in (2.0, -1.0)] for x2 in (0.5, 1.25)]
expected_losses = torch.tensor(
    [4.0 + math.log(sum(math.exp(-g / 2) for g in row)) for row in gap],
    dtype=torch.float64,
)
assert torch.allclose(far_losses, expected_losses, atol=1e-6), (
    "the squared distance of 10^6 is common to all terms and cancels"
)
(far_slope,) = torch.autograd.grad(far_losses.sum(), far_probe)
weight = [math.exp(-row[0] / 2) / sum(math.exp(-g / 2) for g in row) for row in gap]
assert torch.allclose(
    far_slope,
    torch.tensor([[0.0, 2 * w - (1 - w)] for w in weight], dtype=torch.float64),
    atol=1e-6,
), "the gradient is the weighted mean of the rivals minus the own centre, over v"

# %% [markdown] tags=["solution-text"] exercise="magnet"
# ```{solution-end}
# ```

# %% [markdown] exercise="idle"
# ```{exercise-start} When nothing is left to climb
# :label: ex-clustr-idle
# ```
# Each of $K$ classes has $M$ clusters with centres $\mu_{c,j}$.
# Only the $D$ clusters that are nearest to the features $f$, of all classes together, are counted:
#
# $$p_c(f) = \frac{\sum_{j \text{ counted}} e^{-\lVert f - \mu_{c,j} \rVert^2 / 2 \sigma^2}}{\sum_{c', j \text{ counted}} e^{-\lVert f - \mu_{c',j} \rVert^2 / 2 \sigma^2}} .$$
#
# An attack climbs the loss $-\log p_y(f)$ of the label $y$ by its gradient with respect to $f$.
# For which $f$ is that gradient zero *in exact arithmetic*, for every $\sigma^2 > 0$?
# (If no cluster of $y$ is counted, the loss is infinite and the image is misclassified anyhow: such an $f$ does not count as idle.)
# Mind that a gradient which merely underflows in floating point is another matter: it can be mended by climbing the margin, this one cannot.
#
# Write `without_gradient(features, labels, centers, nearest)` for features `(N, d)`, labels `(N,)`, centres `(K, M, d)` and the number $D$.
# It returns a bool tensor `(N,)`, true where the gradient is exactly zero; take $f$ to be in general position.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="idle"
# ```{solution-start} ex-clustr-idle
# :class: dropdown
# ```
# The gradient of $-\log p_y$ is $\frac{1}{\sigma^2}$ times a difference of two means of centres, weighted by their kernels: over all counted clusters, minus over those of $y$.
# For $f$ in general position they agree for every $\sigma^2$ only if both run over the same clusters.
# So the gradient is zero exactly where all $D$ counted clusters are of the class $y$: the fraction is 1 there, and 1 in a whole neighbourhood.
# With $D = 1$ these are all images that are classified correctly.


# %% tags=["solution"] exercise="idle"
def without_gradient(features, labels, centers, nearest):
    """Whether the loss has a gradient of exactly zero at each row, (N,) bool."""
    ### BEGIN SOLUTION
    counted = (
        squared(features, centers.flatten(0, 1))
        .topk(nearest, dim=1, largest=False)
        .indices
    )
    return (counted // centers.shape[1] == labels[:, None]).all(1)
    ### END SOLUTION


# %% tags=["tests"] exercise="idle" points=2
pairs_at = torch.tensor(
    [[[0.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [3.0, 1.0]]], dtype=torch.float64
)  # two classes of two clusters
walkers = torch.tensor([[0.2, 0.3], [1.4, 0.1], [2.9, 0.6]], dtype=torch.float64)
walker_labels = torch.tensor([0, 0, 1])
assert without_gradient(walkers, walker_labels, pairs_at, 1).tolist() == [
    True,
    True,
    True,
], "with one cluster the fraction is 1 wherever the answer is right"
assert without_gradient(walkers, walker_labels, pairs_at, 2).tolist() == [
    True,
    False,
    True,
], (
    "the two clusters nearest to the second point are of "
    "both classes: compare all distances"
)
assert not without_gradient(walkers, walker_labels, pairs_at, 4).any(), (
    "with all clusters every class is in the sum"
)

# %% tags=["hidden-tests"] exercise="idle" points=3
# Criterion: points are judged as the gradient of the loss judges them, in any unit of
# length
from support.models import heads

for stretch in (1.0, 100.0):
    pairs_at, walkers = (
        stretch * normal(4, 3, 2, offset=8),
        stretch * 1.5 * normal(300, 2, offset=9),
    )
    walker_labels = (
        squared(walkers, pairs_at.flatten(0, 1)).argmin(1) // 3
        + (torch.arange(300) % 5 == 0)
    ) % 4  # every fifth is misclassified
    for count in (1, 2, 3, 5, 12):
        leaf = walkers.clone().requires_grad_()
        log_p = heads.cluster_log_prob(
            leaf, pairs_at, (20 * stretch) ** 2, count
        ).gather(1, walker_labels[:, None])[:, 0]
        (slope_at,) = torch.autograd.grad(
            log_p[log_p.isfinite()].sum(), leaf
        )  # kernels this wide do not underflow
        zero = (slope_at.norm(dim=1) * stretch < 1e-10) & log_p.isfinite()
        answer = without_gradient(walkers, walker_labels, pairs_at, count)
        assert answer.dtype == torch.bool, "return a bool tensor"
        assert torch.equal(answer, zero), (
            f"D = {count}, centres at distances of about {stretch:g}: "
            f"{int((answer != zero).sum())} of 300 points are judged wrongly"
        )

# %% [markdown] tags=["solution-text"] exercise="idle"
# ```{solution-end}
# ```

# %% [markdown] exercise="saturated"
# ```{exercise-start} Break a saturated evaluation
# :label: ex-clustr-saturated
# ```
# A classifier has one centre $\mu_c \in \mathbb R^d$ per class and answers with the largest of the scores $s_c(x) = e^{-\lVert x - \mu_c \rVert^2 / 2 \sigma^2}$.
# Its authors attack it within $\lVert \delta \rVert_\infty \le \epsilon$ by the gradient of the cross-entropy of these scores.
# But $\sigma^2$ is so small that near the data every score and every gradient is 0 in floating point, no step is taken, and they report that nothing can be broken.
#
# Break it.
# Find out when some $\delta$ with $\lVert \delta \rVert_\infty \le \epsilon$ brings $x + \delta$ nearer to $\mu_c$ than to $\mu_y$, and which $\delta$ does best.
# The difference of two squared distances is a simple function of $\delta$.
#
# Write `break_all(x, y, centers, eps)` for points `(N, d)`, labels `(N,)`, centres `(K, d)`, all float64, and $\epsilon$.
# It returns points `(N, d)` at a distance of at most $\epsilon$ from `x` in the maximum norm; there is no other bound.
# Every point that can be misclassified must be: the tests know by a closed form which ones can.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="saturated"
# ```{solution-start} ex-clustr-saturated
# :class: dropdown
# ```
# $\lVert x + \delta - \mu_y \rVert^2 - \lVert x + \delta - \mu_c \rVert^2 = \lVert x - \mu_y \rVert^2 - \lVert x - \mu_c \rVert^2 + 2 \delta^\top (\mu_c - \mu_y)$ is linear in $\delta$.
# In the cube it is largest at the corner $\delta = \epsilon \operatorname{sign}(\mu_c - \mu_y)$, where it has grown by $2 \epsilon \lVert \mu_c - \mu_y \rVert_1$.
# So one step for each rival decides, and *each* rival has to be tried: the nearest centre is not the one that is the easiest to reach.
# This is the margin loss with all targets; it knows no $\sigma$.


# %% tags=["solution"] exercise="saturated"
def break_all(x, y, centers, eps):
    """Points (N, d) in the cubes of half-width eps about x, misclassified wherever
    that is possible.
    """
    ### BEGIN SOLUTION
    corner = (
        x[:, None] + eps * (centers - centers[y][:, None]).sign()
    )  # (N, K, d), one corner for each rival
    to_own = (corner - centers[y][:, None]).square().sum(2)
    to_rival = (corner - centers).square().sum(2)
    lead = (to_own - to_rival).scatter(1, y[:, None], -torch.inf)
    return corner[torch.arange(len(x)), lead.argmax(1)]
    ### END SOLUTION


# %% tags=["tests"] exercise="saturated" points=2
hearts = torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, 0.0]], dtype=torch.float64)
victims = hearts[0] + 0.6 * normal(200, 3, offset=10)
victim_labels = torch.zeros(200, dtype=torch.int64)
attacked = break_all(victims, victim_labels, hearts, 0.3)
assert (
    attacked.shape == victims.shape and (attacked - victims).abs().max() <= 0.3 + 1e-12
), "stay within eps in the maximum norm"
# The bisector is 2 x_1 + x_2 = 2.5;
# within the cube 2 x_1 + x_2 grows by at most 0.3 * (2 + 1).
can_break = 2 * victims[:, 0] + victims[:, 1] > 2.5 - 0.9
assert torch.equal(squared(attacked, hearts).argmin(1) == 1, can_break), (
    "some points that can be misclassified are not"
)

# %% tags=["hidden-tests"] exercise="saturated" points=3
# Criterion: every point that can be misclassified is, and none leaves its cube
for width, half_width in ((3, 0.1), (3, 0.3), (20, 0.1), (20, 0.3)):
    hearts = (
        normal(10, width, offset=11)
        * torch.linspace(0.2, 2, 10, dtype=torch.float64)[:, None]
    )
    victims = hearts[torch.arange(400) % 10] + 0.9 * normal(400, width, offset=12)
    to_hearts = squared(victims, hearts)
    victim_labels = to_hearts.argmin(1)
    attacked = break_all(victims, victim_labels, hearts, half_width)
    assert (attacked - victims).abs().max() <= half_width + 1e-12, (
        "stay within eps in the maximum norm"
    )
    reach = 2 * half_width * (hearts - hearts[victim_labels][:, None]).abs().sum(2)
    lead = (
        (to_hearts.gather(1, victim_labels[:, None]) - to_hearts + reach)
        .scatter(1, victim_labels[:, None], -torch.inf)
        .amax(1)
    )
    missed = int(
        ((lead > 1e-9) & (squared(attacked, hearts).argmin(1) == victim_labels)).sum()
    )
    assert missed == 0, (
        f"{width} dimensions, eps = {half_width}: {missed} of "
        f"{int((lead > 0).sum())} points that can be misclassified are not"
    )

# %% [markdown] tags=["solution-text"] exercise="saturated"
# ```{solution-end}
# ```

# %% [markdown] exercise="merge"
# ```{exercise-start} Successes that a loop forgets
# :label: ex-clustr-merge
# ```
# An attack was started $R$ times on each of $N$ images.
# For every start and image you have the final loss and whether the image was misclassified there, as tensors `losses` (float, any sign) and `broken` (bool) of shape `(R, N)`.
# An evaluation keeps for each image the start of largest loss and reports the image as robust if it is classified correctly *there*.
#
# Write `merge(losses, broken)`, which returns two things: `kept`, shape `(N,)`, the start that should be kept, and `dropped`, an int.
# To be kept is, of the starts that broke the image, the one of largest loss; if none did, the one of largest loss.
# `dropped` is the number of images that the evaluation reports as robust although a start broke them.
# Losses may be negative: think of the margin.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="merge"
# ```{solution-start} ex-clustr-merge
# :class: dropdown
# ```
# Success and loss are two orders; only the first is the question, and the second may break ties.
# Failed starts get the loss minus infinity, which is below every loss of any sign, but only where there is a success to prefer.
# An image is counted once, however many of its starts succeeded.


# %% tags=["solution"] exercise="merge"
def merge(losses, broken):
    """The start to keep for each image, (N,), and how many successes keeping the
    largest loss would drop.
    """
    ### BEGIN SOLUTION
    found = broken.any(0)
    kept = losses.masked_fill(found & ~broken, -torch.inf).argmax(0)
    by_loss = broken.gather(0, losses.argmax(0)[None])[0]
    return kept, int((found & ~by_loss).sum())
    ### END SOLUTION


# %% tags=["tests"] exercise="merge" points=1
final_losses = torch.tensor([[2.2, 0.3, 1.0], [2.3, 0.9, 3.0], [0.1, 0.5, 2.0]])
final_broken = torch.tensor(
    [[True, False, False], [False, False, True], [False, False, True]]
)
kept_start, forgotten = merge(final_losses, final_broken)
assert kept_start.tolist() == [0, 1, 1], (
    "a success goes before any failure; among equals the largest loss decides"
)
assert forgotten == 1, (
    "the first image was broken, and its largest loss belongs to a start that failed"
)

# %% tags=["hidden-tests"] exercise="merge" points=3
# Criterion: the right start is kept for each image, and each forgotten image counts
# once
final_losses, final_broken = (
    normal(8, 500, offset=13) - 2.0,
    normal(8, 500, offset=14) > 1.2,
)
kept_start, forgotten = merge(final_losses, final_broken)
missing = 0
for image in range(500):
    of_image = final_losses[:, image]
    wins = [start for start in range(8) if final_broken[start, image]]
    missing += bool(wins) and not final_broken[of_image.argmax(), image]
    allowed = wins or list(range(8))
    assert int(kept_start[image]) == allowed[int(of_image[allowed].argmax())], (
        "the wrong start is kept: mind losses below zero, "
        "and images that no start broke"
    )
assert forgotten == missing, "count images, each once"

# %% [markdown] tags=["solution-text"] exercise="merge"
# ```{solution-end}
# ```

# %% [markdown] exercise="convolution"
# ```{exercise-start} The norm of a convolution
# :label: ex-clustr-convolution
# ```
# A certified radius divides by the Lipschitz constant of the network, and so needs the spectral norm of its convolutions: the largest $\lVert A u \rVert / \lVert u \rVert$ over images $u$, where $A u$ is `functional.conv2d(u, weight, padding=padding)`.
# It belongs to the convolution *on images of this size*, and is no norm of the small tensor of weights.
# Power iteration finds it without ever writing $A$ down: $u \leftarrow A^\top A u / \lVert A^\top A u \rVert$.
# The adjoint $A^\top$ is the map with $\langle A u, w \rangle = \langle u, A^\top w \rangle$ for all $u$ and $w$; think about what it does to the kernel, or find the function in `functional` that computes it.
#
# Write `convolution_norm(weight, height, width, padding)` for a weight of shape `(out, in, kh, kw)`, float64, stride 1 and zero padding.
# It returns the norm as a float, with a relative error below 0.1 %.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="convolution"
# ```{solution-start} ex-clustr-convolution
# :class: dropdown
# ```
# The adjoint of a convolution is the transposed convolution: the kernel turned by 180 degrees, inputs and outputs exchanged.
# For a symmetric kernel on one channel it looks like the convolution itself, which is why a wrong adjoint may go unnoticed.
# The visible test has a closed form: the 3 × 3 kernel of ones is the product of two tridiagonal matrices of ones, whose largest eigenvalue on $n$ places is $1 + 2 \cos \frac{\pi}{n + 1}$.


# %% tags=["solution"] exercise="convolution"
def convolution_norm(weight, height, width, padding):
    """Spectral norm of the convolution on images of this size, a float."""
    ### BEGIN SOLUTION
    u = torch.randn(
        1,
        weight.shape[1],
        height,
        width,
        generator=torch.Generator().manual_seed(0),
        dtype=weight.dtype,
    )
    for _ in range(400):
        u = u / u.norm()
        image = functional.conv2d(u, weight, padding=padding)
        u = functional.conv_transpose2d(image, weight, padding=padding)
    return float(image.norm())
    ### END SOLUTION


# %% tags=["tests"] exercise="convolution" points=2
box = torch.ones(1, 1, 3, 3, dtype=torch.float64)
for side, other_side in ((6, 6), (9, 5)):
    exact_norm = (1 + 2 * math.cos(math.pi / (side + 1))) * (
        1 + 2 * math.cos(math.pi / (other_side + 1))
    )
    assert abs(convolution_norm(box, side, other_side, 1) / exact_norm - 1) < 1e-3, (
        "nine ones, padding 1: the norm is just below 9 and "
        "depends on the size of the image"
    )

# %% tags=["hidden-tests"] exercise="convolution" points=3
# Criterion: the norm is that of the convolution as a matrix, for any shape and padding
for number, (
    outputs,
    inputs,
    kernel_height,
    kernel_width,
    side,
    other_side,
    margin_width,
) in enumerate(
    [
        (4, 3, 3, 3, 6, 7, 1),
        (2, 5, 3, 3, 7, 5, 0),
        (3, 3, 2, 4, 6, 6, 2),
        (6, 2, 1, 1, 4, 5, 0),
    ]
):
    filters = normal(outputs, inputs, kernel_height, kernel_width, offset=20 + number)
    units = torch.eye(inputs * side * other_side, dtype=torch.float64).view(
        -1, inputs, side, other_side
    )
    exact_norm = float(
        torch.linalg.matrix_norm(
            functional.conv2d(units, filters, padding=margin_width).flatten(1), ord=2
        )
    )
    answer = convolution_norm(filters, side, other_side, margin_width)
    assert abs(answer / exact_norm - 1) < 1e-3, (
        f"{tuple(filters.shape)} on {side} x {other_side}, padding {margin_width}: "
        f"{answer:.4f}, and the matrix has {exact_norm:.4f}"
    )

# %% [markdown] tags=["solution-text"] exercise="convolution"
# ```{solution-end}
# ```

# %% tags=["hide-input"]
run.finish()
