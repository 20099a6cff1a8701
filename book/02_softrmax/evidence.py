# %% [markdown]
# # Evidence: softRmax: polynomial tails
#
# Every claim of {cite:t}`wang2022` with the code that measures it; the {doc}`lesson <lesson>` tells what comes of it.

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # quick, standard or paper: see data/profiles
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, such as {"draws": 100}

# %% tags=["hide-input"]
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn import functional

from support import attacks, data, evaluation, models, networks, training
from support.book import chapter_run, plots
from support.distribution_shift import (
    Density,
    class_densities,
    fit_density,
    importance_weights,
    log_posterior,
    weighted_fit,
)
from support.evaluation import substitute_model
from support.measures import accuracy, draws, mean_over, paired_bootstrap, share
from support.models import heads, pretrained

run = chapter_run.start("02_softrmax/evidence", profile, seed, device, overrides)
p = run.profile
plots.use_style()
K = 10  # classes of the digits and pictures
EPS = (0.1, 0.3)  # the budgets of Table 1
network = partial(networks.get, profile=profile, device=run.device, cache=run.cache)

# What is missing is said before anything is computed.
for name in (p.digits_data, p.pictures_data, p.hundred_data):
    if name != "none":
        run.load(name, "train")
if p.hundred_data != "none" and p.hundred_model == "resnet50":
    pretrained.resnet50(1)


def log_softmax(z: Tensor) -> Tensor:
    """Log-probabilities of softmax, over the last dimension."""
    return z.log_softmax(-1)


@dataclass(frozen=True)
class Head:
    """One of the two last activations: its name, log-probabilities of z, and look."""

    name: str
    log_p: Callable[[Tensor], Tensor]
    color: str
    line: str


HEADS = (
    Head("softmax", log_softmax, plots.SOFTMAX, "-"),
    Head("softRmax", heads.log_softrmax, plots.GAUSS, "--"),
)


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Gradient of a function's sum, in the shape of `at`."""
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at).sum(), at)[0]


# %% [markdown]
# ## Tails of class densities
#
# First the algebra, for three classes at unequal distances: Equation 7 against Bayes' rule, the limit of Gaussians, and three ways to put t densities in their place.
# The first has a common $\nu$ and a common scale; the second a scale for each class; the third is the *noncentral* t of the text, whose class centres are noncentrality parameters.


# %% tags=["nbval-check-output", "hide-input"]
def from_uniform(posterior: np.ndarray) -> float:
    """Largest distance of a posterior's entries from one third."""
    return float(np.abs(posterior - 1 / 3).max())


mu, sigma, nu = np.array([-1.0, 0.5, 2.0]), 0.8, 3.0
scales = np.array([0.5, 1.0, 2.0])
normal = [Density(m, sigma) for m in mu]
student = [Density(m, sigma, nu) for m in mu]
student_own = [Density(m, s, nu) for m, s in zip(mu, scales, strict=True)]

points = np.linspace(-4, 4, 81)
direct = np.exp(log_posterior(points, normal))
at = points[:, None]
odds = [np.exp(-(2 * at * (m - mu) - m**2 + mu**2) / (2 * sigma**2)) for m in mu]
eq7 = np.stack([1 / ratios.sum(1) for ratios in odds], axis=1)

far = np.array([-1e6, 1e6])
gaussian = np.exp(log_posterior(far, normal))
common = np.exp(log_posterior(far, student))
own = np.exp(log_posterior(far, student_own))
noncentral = stats.nct.pdf(1e3, nu, mu)
noncentral = noncentral / noncentral.sum()
powers = scales**nu / (scales**nu).sum()
print("limit, own scales:      ", own[1].round(3), " s^nu / sum:", powers.round(3))
print("limit, noncentral t:    ", noncentral.round(3))
print("limit, common nu, scale:", common[1].round(3))

# %% tags=["nbval-check-output", "hide-input"]
run.claim(
    "wang2022.eq5-7",
    closed_form_difference=float(np.abs(direct - eq7).max()),
    gaussian_from_one_hot=float((1 - gaussian.max(1)).max()),
    common_scale_from_uniform=from_uniform(common),
    own_scales_from_uniform=round(from_uniform(own), 3),
    noncentral_from_uniform=round(from_uniform(noncentral), 3),
)

# %% [markdown]
# Equal powers of the tails are not enough, the factors in front must agree as well: with a scale for each class the posterior tends to $s_i^\nu / \sum_k s_k^\nu$, and the noncentral t tends to limits of its own.

# %% [markdown]
# Figures 1a and 1b: Gaussian and Cauchy densities, fitted by maximum likelihood to a random sample of the two uniform classes, with a common scale and with a scale for each class.
# The tails are read off at $x = \pm 10^4$.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Fit:
    """Densities of the two classes, fitted."""

    title: str
    scale: str
    densities: Sequence[Density]

    def first_class(self, x: np.ndarray) -> np.ndarray:
        """Posterior of class 0 at x."""
        return np.exp(log_posterior(x, self.densities)[:, 0])


rng = np.random.default_rng(seed)
labels = np.repeat([0, 1], 100)
sample = np.concatenate([rng.uniform(-2, -1, 100), rng.uniform(1, 2, 100)])
fits = [
    Fit(title, scale, class_densities(sample, labels, nu=nu, shared_scale=shared))
    for title, nu in (("Gaussian", math.inf), ("t, ν = 1", 1.0))
    for scale, shared in (("common scale", True), ("own scales", False))
]
gauss_common, gauss_own, cauchy_common, cauchy_own = fits

# %% name="fig-tails" tags=["hide-input"] mystnb={"image": {"alt": "Posterior of class 0 against x for Gaussian densities on the left and t densities on the right, with a common scale and with own scales. Gaussian posteriors end at one or zero, t posteriors near one half."}}
_, axes = plt.subplots(1, 2, figsize=(9.2, 3.1), sharey=True)
outward = np.geomspace(0.01, 1e3, 800)
line = np.concatenate([-outward[::-1], outward])
for ax, shown in ((axes[0], fits[:2]), (axes[1], fits[2:])):
    for fit, colour, style in zip(shown, plots.PALETTE, ("-", "--"), strict=False):
        ax.plot(line, fit.first_class(line), style, color=colour, label=fit.scale)
    ax.set(title=shown[0].title, xlabel="x, logarithmic outside the classes")
    ax.set_xscale("symlog", linthresh=3)
    ax.set_xticks([-1000, -100, -10, 0, 10, 100, 1000])
    ax.axhline(0.5, color="grey", linewidth=0.8)
    for low, high in ((-2, -1), (1, 2)):
        ax.axvspan(low, high, color="grey", alpha=0.2, linewidth=0)
axes[0].set(ylabel="posterior of class 0")
axes[0].legend()
plt.show()

# %% tags=["hide-input"]
ends = np.array([-1e4, 1e4])
left, right = gauss_common.first_class(ends)
left_own, right_own = gauss_own.first_class(ends)
run.claim(
    "wang2022.fig1a",
    left_tail=float(left),
    right_tail=float(right),
    left_tail_own_scales=float(left_own),
    right_tail_own_scales=float(right_own),
)

# %% [markdown]
# The figure holds for the common variance of LDA; with a variance for each class, the class with the wider sample takes both tails, and chance says which it is.

# %% tags=["hide-input"]
left, right = cauchy_common.first_class(ends)
run.claim(
    "wang2022.fig1b",
    bulk=float(cauchy_common.first_class(sample[labels == 0]).min()),
    left_tail=float(left),
    right_tail=float(right),
)

# %% [markdown]
# With $\nu = 1$ and a common scale the posterior comes back to one half, but slowly: a ratio of powers forgets the classes over decades of $x$.
# The paper does not say that its fits share a scale, but only then do its figures come out on every sample; and fitted to small samples of light tails, $\nu$ itself tends to run away to infinity, where the t density is the Gaussian again.

# %% [markdown]
# ## Softmax is a posterior of Gaussians
#
# Equation 8 on random linear scores of three classes, and their posterior far along two directions: in one the score of the first class leads, in the other the first two share the lead.

# %% tags=["nbval-check-output", "hide-input"]
generator = draws(0)
w = torch.randn(3, 5, dtype=torch.float64, generator=generator)
b = torch.randn(3, dtype=torch.float64, generator=generator)
x = torch.randn(200, 5, dtype=torch.float64, generator=generator)
softmax = (x @ w.T + b).softmax(1)
odds = [(x @ (w - w[i]).T + (b - b[i])).exp() for i in range(3)]
eq8 = torch.stack([1 / ratios.sum(1) for ratios in odds], 1)


def along(rises: list[float]) -> Tensor:
    """Posterior far out in the direction in which the scores rise by these numbers."""
    aim = torch.tensor(rises, dtype=torch.float64)
    direction = torch.linalg.lstsq(w - w.mean(0), aim, driver="gelsd").solution
    return (1e4 * direction @ w.T + b).softmax(0)


leads, tied = along([2.0, -1.0, -1.0]), along([1.0, 1.0, -2.0])
for name, posterior in (("leads", leads), ("tied", tied)):
    print(f"{name}: {posterior.numpy().round(4).tolist()}")

# %% tags=["nbval-check-output", "hide-input"]
run.claim(
    "wang2022.eq8",
    closed_form_difference=float((softmax - eq8).abs().max()),
    leading_from_one=float(1 - leads[0]),
    tied_from_one_hot=round(float(torch.minimum(tied, 1 - tied).max()), 4),
)

# %% [markdown]
# Two cases are missing in the sentence after the equation: the lead can be shared, and a direction may not move the scores apart at all.

# %% [markdown]
# Equation 11 on random $z$ of ten classes, with the Gaussian densities of torch.

# %% tags=["nbval-check-output", "hide-input"]
z = 3 * torch.randn(500, K, dtype=torch.float64, generator=generator)
e = torch.eye(K, dtype=torch.float64)
centre = torch.zeros(K, dtype=torch.float64)
unit = torch.distributions.MultivariateNormal(centre, e)
log_densities = torch.stack([unit.log_prob(z - e[i]) for i in range(K)], 1)
apart = log_densities.softmax(1) - z.softmax(1)
run.claim("wang2022.eq11", difference=float(apart.abs().max()))

# %% [markdown]
# $\lVert z - e_i \rVert^2 = \lVert z \rVert^2 - 2 z_i + 1$ differs between the classes only by $-2 z_i$, so softmax is this posterior exactly.

# %% [markdown]
# ## softRmax
#
# The package's head against the definition, on the same $z$.
# The last entry of the row is the mass of $\lVert z \rVert^{-2}$ between radius 10 and 100 over that between 1 and 10, for $k = 2$; for a density it would have to fall.


# %% tags=["nbval-check-output", "hide-input"]
def mass(inner: float, outer: float) -> float:
    """Integral of r^(k - 3) dr between two radii, for k = 2."""
    r = np.geomspace(inner, outer, 201)
    return float(np.trapezoid(r ** (2 - 3) * r, np.log(r)))


by_distances = (-torch.cdist(z, e).square().log()).softmax(1)
found = heads.softrmax(z)
run.claim(
    "wang2022.eq12",
    difference_from_softmax_of_log_distances=float((found - by_distances).abs().max()),
    sum_minus_one=float((found.sum(1) - 1).abs().max()),
    mass_of_a_decade_over_the_one_inside=round(mass(10, 100) / mass(1, 10), 6),
)

# %% [markdown]
# softRmax is Bayes' formula in form only: a shell of radius $r$ contributes $r^{k-3}\,dr$ to the mass of $\lVert z \rVert^{-2}$, which is infinite, so there are no densities behind it.
#
# What is finite at a centre depends on the object.
# The *probabilities* are smooth everywhere.
# The *log-probability* of a class is 0 with gradient 0 at its own centre, and minus infinity at the centre of any other class.
# The *score* $-\log \lVert z - e_i \rVert^2$ is plus infinity at its own centre.
# The package subtracts no two large numbers: with $m = \arg\max z$, every distance is $\lVert z - e_i \rVert^2 = \lVert z - e_m \rVert^2 + 2 (z_m - z_i)$.
# The authors' code (`ziqiwangsilvia/attack`, `cifar/network.py`, commit 2577c28) adds a constant outside the denominator and gives infinity over infinity at a centre.

# %% [markdown]
# ### The tail
#
# softRmax at a million times unit vectors $z$, and at an input whose $z$ is the centre of class 0, moved by a million along a direction that the last layer does not see.

# %% tags=["nbval-check-output", "hide-input"]
w = torch.randn(K, 64, dtype=torch.float64, generator=generator)
b = torch.zeros(K, dtype=torch.float64)
x = torch.linalg.lstsq(w, e[:1].T, driver="gelsd").solution.T  # mapped onto e_0
null = torch.linalg.svd(w).Vh[K:]  # 54 directions that the layer does not see
unseen = heads.softrmax((x + 1e6 * null[:1]) @ w.T + b)
outermost = heads.softrmax(1e6 * functional.normalize(z, dim=1))
run.claim(
    "wang2022.eq13",
    from_uniform_far_in_z=float((outermost - 1 / K).abs().max()),
    from_uniform_along_null_direction=round(float((unseen - 1 / K).abs().max()), 3),
)

# %% [markdown]
# The limit belongs to $\lVert z \rVert \to \infty$, where it is approached at the speed of $1 / \lVert z \rVert$; a last layer of $d > k$ features has directions along which $z$ never moves, and along one of them a network stays as sure as it was.

# %% [markdown]
# Equation 14 in float64: the gradients of the package against central differences, on points from near a centre to far out in the tail, and against the chain rule through a linear layer.


# %% tags=["nbval-check-output", "hide-input"]
def slope_error(i: int, at: Tensor) -> float:
    """Largest relative error of the gradient of class i's log-probability."""

    def own(z: Tensor) -> Tensor:
        return heads.log_softrmax(z)[:, i]

    rises = [(own(at + 1e-6 * e[j]) - own(at - 1e-6 * e[j])) / 2e-6 for j in range(K)]
    differences = torch.stack(rises, 1)
    error = (gradient(own, at) - differences).abs() / (1 + differences.abs())
    return float(error.max())


start = torch.cat([e[:3] + 0.05 * z[:3], z[3:20], 30 * z[20:30]])
errors = [slope_error(i, start) for i in range(K)]
x = torch.randn(20, 64, dtype=torch.float64, generator=generator) / 8
through_x = gradient(lambda x: heads.softrmax(x @ w.T + b)[:, 0], x)
through_z = gradient(lambda z: heads.softrmax(z)[:, 0], x @ w.T + b) @ w
run.claim(
    "wang2022.eq14",
    finite_difference_error=max(errors),
    chain_rule_error=float((through_x - through_z).abs().max()),
)

# %% [markdown]
# The chain rule holds, so the row checks our gradients and not the paper.

# %% [markdown]
# ### Figure 1c
#
# Logistic regression in one dimension by full-batch gradient descent, 1,000 steps for each head; the tails are read off at $x = \pm 10^4$.


# %% tags=["hide-input"]
def descend(
    log_p: Callable, x: Tensor, y: Tensor, *,
    marks: list[int], lr: float, start: Tensor,
) -> Tensor:  # fmt: skip
    """Full-batch gradient descent on the loss of linear scores, S problems at once.

    Points are (S, n, d), labels (S, n), weights (S, d + 1, classes); returned are the
    weights after each marked number of steps, (marks, S, d + 1, classes).
    """
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    weights = start.clone().requires_grad_()
    kept = []
    for step in range(1, marks[-1] + 1):
        found = log_p((x @ weights).flatten(0, 1)).unflatten(0, y.shape)
        loss = -found.gather(-1, y[..., None]).mean((1, 2)).sum()
        with torch.no_grad():
            weights -= lr * torch.autograd.grad(loss, weights)[0]
        if step in marks:
            kept.append(weights.detach().clone())
    return torch.stack(kept)


labels_1d = torch.arange(2).repeat_interleave(100)
points_1d = np.concatenate([rng.uniform(-1, 0, 100), rng.uniform(1, 2, 100)])
points_1d = torch.as_tensor(points_1d)[:, None]
begin = torch.zeros(1, 2, 2, dtype=torch.float64) + 0.01 * torch.eye(2)
told = {"marks": [1000], "lr": 1.0, "start": begin}
logistic = [
    run.once(descend, head.log_p, points_1d[None], labels_1d[None], **told)[0, 0]
    for head in HEADS
]


def posterior_1d(head: Head, weights: Tensor, x: Tensor) -> Tensor:
    """Posterior of class 0 at points (N,) of the line."""
    z = torch.stack([x, torch.ones_like(x)], 1) @ weights
    return head.log_p(z)[:, 0].exp()


# %% name="fig-logistic" tags=["hide-input"] mystnb={"image": {"alt": "Posterior of class 0 against x for softmax and softRmax logistic regression: softmax ends at one and zero, softRmax comes near one within class 0 and near zero within class 1 and returns towards one half on both sides."}}
_, ax = plt.subplots(figsize=(5.8, 3.1))
line = torch.linspace(-20, 21, 2001, dtype=torch.float64)
for kind, fitted in zip(HEADS, logistic, strict=True):
    height = posterior_1d(kind, fitted, line)
    ax.plot(line, height, kind.line, color=kind.color, label=kind.name)
ax.axhline(0.5, color="grey", linewidth=0.8)
for low, high in ((-1, 0), (1, 2)):
    ax.axvspan(low, high, color="grey", alpha=0.2, linewidth=0)
ax.set(xlabel="x", ylabel="posterior of class 0")
ax.legend()
plt.show()

# %% tags=["hide-input"]
ends = torch.tensor([-1e4, 1e4], dtype=torch.float64)
first = [posterior_1d(*pair, ends) for pair in zip(HEADS, logistic, strict=True)]
softmax_tails, softrmax_tails = (torch.maximum(one, 1 - one) for one in first)
bulk = posterior_1d(HEADS[1], logistic[1], points_1d[:, 0])
run.claim(
    "wang2022.fig1c",
    softmax_confidence_in_tails=float(softmax_tails.min()),
    softrmax_confidence_in_tails=float(softrmax_tails.mean()),
    softrmax_bulk=float(torch.where(labels_1d == 0, bulk, 1 - bulk).mean()),
)

# %% [markdown]
# softmax ends at one and zero; softRmax rises within the classes and returns to one half on both sides, because here $x$ and $z$ grow together.

# %% [markdown]
# ### Does the loss rise towards the tail?
#
# The loss of class 0 along four straight rays from the origin; then 500 random rays, outside the unit sphere and inside, for the class of the largest entry of $z$ (a correct point) and of the smallest.

# %% tags=["hide-input"]
length = torch.linspace(0.0, 8.0, 401, dtype=torch.float64)[1:]
rays = {
    "towards the own centre": e[0],
    "towards another centre": e[1],
    "between the two": functional.normalize(e[0] + e[1], dim=0),
    "away from the own centre": -e[0],
}
ray_losses = {
    name: -heads.log_softrmax(length[:, None] * ray)[:, 0] for name, ray in rays.items()
}

# %% name="fig-rays" tags=["hide-input"] mystnb={"image": {"alt": "Loss of class 0 against the norm of z along four rays: towards the own centre it falls to zero at norm one and rises to log k, towards another centre it peaks at norm one and falls to log k, between the two it dips below log k, and away from the own centre it stays above log k."}}
_, ax = plt.subplots(figsize=(6.2, 3.3))
styles = ("-", "--", "-.", ":")
for ray_name, style in zip(ray_losses, styles, strict=True):
    ax.plot(length, ray_losses[ray_name], style, label=ray_name)
ax.axhline(math.log(K), color="grey", linewidth=0.8)
ax.set(xlabel=r"$\Vert z \Vert$ along the ray", ylim=(0, 6))
ax.set(ylabel=r"loss $-\log p_0$ (grey: $\log k$)")
ax.legend(fontsize=8)
plt.show()

# %% tags=["nbval-check-output", "hide-input"]
directions = torch.randn(500, K, dtype=torch.float64, generator=generator)
directions = functional.normalize(directions, dim=1)
on_rays = (length[:, None, None] * directions).flatten(0, 1)
losses = -heads.log_softrmax(on_rays).unflatten(0, (len(length), -1))


def falls(label: Tensor, part: Tensor) -> int:
    """Rays along which the loss of their label falls somewhere in a part."""
    along = losses[part].gather(2, label.expand(int(part.sum()), -1)[:, :, None])
    return int((along.diff(dim=0) < -1e-12).any(0).sum())


right, wrong = directions.argmax(1), directions.argmin(1)
outside, inside = length >= 1, length <= 1
correct = losses.gather(2, right.expand(len(length), -1)[:, :, None])
run.claim(
    "wang2022.loss-monotone",
    correct_rays_that_fall_outside=falls(right, outside),
    correct_rays_that_fall_inside=falls(right, inside),
    wrong_rays_that_fall_outside=falls(wrong, outside),
    correct_points_above_log_k=int((correct > math.log(K) + 1e-9).sum()),
)

# %% [markdown]
# Along a ray $z = r u$ the ratio $\lVert z - e_y \rVert^2 / \lVert z - e_k \rVert^2$ changes with the sign of $(u_y - u_k)(r^2 - 1)$.
# So for a correct point, whose $u_y$ is the largest, the loss falls inside the unit sphere and rises outside it, and the claim is true where the paper makes it; for a misclassified point it can do the opposite.
# A correct point has $p_y \geq 1/k$ and a loss of at most $\log k$ (grey), and an ascent that ends in the tail has found a maximum among the correct points that is no error.

# %% [markdown]
# ## Covariate shift: a lottery
#
# The text leaves out the regressor, the values of $\lambda$, the noise of the outliers and $\nu$.
# Our assumptions: a straight line, as in the original work (`degree`); $\lambda$ from 0 to 1 (`lambdas`); outliers on the curve with the same noise; $\nu \in \{1, 3\}$, or fitted.
#
# Far out in the tail we compare the weight with the true scales of the experiment, for $\nu = 3$ and $\lambda = 1$.

# %% tags=["nbval-check-output", "hide-input"]
source, target = Density(1.1, 1 / 2, 3.0), Density(2.1, 10 / 17, 3.0)
limit = float(importance_weights([-1e9], target, source, 1.0)[0])
nearer = importance_weights([-4.5], target, source, 1.0)[0]
print(f"(s_T / s_S)^nu = {((10 / 17) / (1 / 2)) ** 3:.4f}, weight far out {limit:.4f}")
print(f"weight at -4.5: {nearer:.3f}")
run.claim("wang2022.weight-one", limit_minus_one=round(limit - 1, 4))

# %% [markdown]
# The limit is $(s_T / s_S)^{\nu \lambda}$; the paper's point, that it is of the order of one and never extreme, stands.

# %% [markdown]
# Many draws of the whole experiment.
# For each: how much of the total weight the five outliers hold, and the error of the fit against the noise-free function under the target density, with and without the outliers.

# %% tags=["hide-input"]
FAMILIES = {"Gaussian": math.inf, "t, ν = 1": 1.0, "t, ν = 3": 3.0}
FAMILIES["t, ν fitted"] = None


@dataclass(frozen=True)
class Lottery:
    """By draw, family of densities and lambda; the source's nu by draw and family, and
    by draw whether the fitted Gaussian of the target is the wider one."""

    weight: np.ndarray  # the outliers' share of the total weight
    error: np.ndarray
    error_without: np.ndarray
    nu: np.ndarray
    wider: np.ndarray


def target_error(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, degree: int
) -> float:
    """Mean squared error of a weighted fit at 400 quantiles of the target."""
    queries = stats.norm.ppf((np.arange(400) + 0.5) / 400, 2.1, 10 / 17)
    fitted = weighted_fit(x, y, weights, degree).predict(queries[:, None])
    return np.square(fitted - np.sinc(queries)).mean()


def play(
    *, seed: int, count: int, nus: list, lambdas: list[float], degree: int
) -> Lottery:
    """Figure 3's experiment, drawn so many times."""
    shape = (count, len(nus), len(lambdas))
    empty = [np.empty(shape) for _ in range(3)]
    found = Lottery(*empty, np.empty(shape[:2]), np.empty(count, dtype=bool))
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        x_source, x_target = rng.normal(1.1, 0.5, 150), rng.normal(2.1, 10 / 17, 100)
        x = np.concatenate([x_source, rng.uniform(-5, -4, 5)])
        y = np.sinc(x) + rng.normal(0, 0.25, len(x))
        found.wider[i] = x_target.std() > x_source.std()
        for j, nu in enumerate(nus):
            source, target = fit_density(x_source, nu=nu), fit_density(x_target, nu=nu)
            found.nu[i, j] = source.nu
            for k, lam in enumerate(lambdas):
                w = importance_weights(x, target, source, lam)
                found.weight[i, j, k] = w[150:].sum() / w.sum()
                found.error[i, j, k] = target_error(x, y, w, degree)
                found.error_without[i, j, k] = target_error(
                    x[:150], y[:150], w[:150], degree
                )
    return found


told = {"nus": list(FAMILIES.values()), "lambdas": list(p.lambdas), "degree": p.degree}
lottery = run.once(play, seed=seed, count=p.draws, **told)
run.keep("fitted_gaussian", float(np.isinf(lottery.nu[:, -1]).mean()))

# %% name="fig-lottery" tags=["hide-input"] mystnb={"image": {"alt": "Left: sorted share of the total weight held by five outliers over all draws, for four density families; Gaussian and fitted nu run from zero to one, fixed nu stays near zero. Right: error against lambda, median and the range from 10 to 90 per cent, for the same families."}}
_, axes = plt.subplots(1, 2, figsize=(9.6, 3.5))
styles = ("-", "--", "-.", ":")
for place, (family, style) in enumerate(zip(FAMILIES, styles, strict=True)):
    colour, ranks = plots.PALETTE[place], np.linspace(0, 1, p.draws)
    by_rank = np.sort(lottery.weight[:, place, -1])
    axes[0].plot(ranks, by_rank, style, color=colour, label=family)
    low, middle, high = np.quantile(lottery.error[:, place], [0.1, 0.5, 0.9], axis=0)
    look = {"fmt": style, "marker": "o", "markersize": 4, "color": colour, "capsize": 2}
    beside = np.array(p.lambdas) + 0.012 * (place - 1.5)
    axes[1].errorbar(beside, middle, [middle - low, high - middle], **look)
axes[0].set(xlabel="draws, sorted", ylim=(-0.02, 1.02))
axes[0].set(ylabel=rf"outliers' share of the weight, $\lambda$ = {p.lambdas[-1]:g}")
axes[1].set(xlabel=r"$\lambda$", ylabel="mean squared error on the target")
axes[1].set(yscale="log", title="median and 10 to 90 % of the draws")
axes[0].legend()
plt.show()

# %% name="table-lottery" tags=["hide-input"]
rows = []
for i, family in enumerate(FAMILIES):
    for j, lam in enumerate(p.lambdas):
        weight, error = lottery.weight[:, i, j], lottery.error[:, i, j]
        found = {
            "outliers' weight, mean": weight.mean(),
            "draws they dominate": (weight > 0.5).mean(),
            "error, median": np.median(error),
            "error, mean": error.mean(),
            "error, worst tenth from": np.quantile(error, 0.9),
            "median without outliers": np.median(lottery.error_without[:, i, j]),
        }
        rows.append({"densities": family, "λ": f"{lam:g}", **found})
by_family = pd.DataFrame(rows).set_index(["densities", "λ"])
plots.table(by_family, f"Figure 3 over {p.draws} draws")

# %% [markdown]
# Extreme weights: the share of draws, among those in which the fitted target is the wider one, where the five outliers hold more than half of the weight.
# Beside it the mean weight of an outlier under the *true* densities, where an ordinary source point has a mean weight of one.

# %% tags=["hide-input"]
true_source, true_target = Density(1.1, 1 / 2), Density(2.1, 10 / 17)
outliers = np.linspace(-5, -4, 101)
by_truth = importance_weights(outliers, true_target, true_source, 1.0)
dominated = torch.as_tensor(lottery.weight[:, 0, -1] > 0.5)  # by Gaussian weights
run.claim(
    "wang2022.extreme-weights",
    share_of_wide_draws_dominated=share(dominated[torch.as_tensor(lottery.wider)]),
    share_of_draws_dominated=share(dominated),
    outlier_weight_true_densities=float(by_truth.mean()),
)

# %% [markdown]
# A wider target is what the paper names as the cause, but *how much* wider decides, and of that a sample of 150 points knows little: the weight of an outlier at $-4.5$ is the exponential of its squared distance times a difference of fitted variances.
# Under the true densities nothing of the kind happens.

# %% [markdown]
# Figure 3 at the last $\lambda$, Gaussian and t with $\nu = 3$; a draw *overfits* if the error with outliers is at least twice the error without.
# Five outliers among 155 equal weights hold 3 % of the weight.

# %% tags=["hide-input"]
overfits = torch.as_tensor(lottery.error[..., -1] > 2 * lottery.error_without[..., -1])
gaussian_error, t_error = (torch.as_tensor(lottery.error[:, i, -1]) for i in (0, 2))
run.claim(
    "wang2022.fig3",
    share_of_draws_gaussian_overfits=share(overfits[:, 0]),
    share_of_draws_t_overfits=share(overfits[:, 2]),
    outlier_weight_share_t=mean_over(torch.as_tensor(lottery.weight[:, 2, -1])),
    outlier_weight_share_equal=5 / 155,
    error_gaussian=mean_over(gaussian_error),
    error_t=mean_over(t_error),
)

# %% [markdown]
# "Overfits to the outliers" is a statement about the draws that they dominate: the mean error of the Gaussian weights is large because it is very large in these, and the median is not.
# Without weights a straight line is a poor fit to the target, and outliers that lie on the curve even improve it.

# %% [markdown]
# ## Margins
#
# Separable points of the plane, `toy_draws` draws of them, under full-batch gradient descent of linear scores.
# The margin after each marked step is the smallest signed distance of a training point to the boundary; the largest possible one comes from a support vector machine.
# The slope is the largest norm of the posterior's gradient at the points' feet on the boundary.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Course:
    """Margin, relative to the largest there is, and slope at the boundary, by draw and
    marked step, (S, marks)."""

    margins: Tensor
    slopes: Tensor

    def first(self) -> Tensor:
        """By draw, the margin where all points are right for the first time, or NaN."""
        right = self.margins > 0
        first = self.margins.gather(1, right.int().argmax(1, keepdim=True))[:, 0]
        return torch.where(right.any(1), first, math.nan)


def race(softmax: Course, softrmax: Course) -> dict[str, float]:
    """What Figure 2 says, as shares of the draws in which it is so, and the medians."""
    margin, rival = softrmax.margins[:, -1], softmax.margins[:, -1]
    slope, steeper = softrmax.slopes[:, -1], softmax.slopes[:, -1]
    return {
        "share_softrmax_margin_grows": share(margin > softrmax.first()),
        "share_softrmax_margin_larger": share(margin > rival),
        "share_softmax_steeper": share(steeper > slope),
        "softrmax_margin_of_largest": float(margin.median()),
        "softmax_margin_of_largest": float(rival.median()),
        "softmax_slope_over_softrmax": float((steeper / slope).median()),
    }


def separable(s: int) -> tuple[Tensor, Tensor]:
    """Two separable blobs of 30 points, and three points of class 1 near the boundary
    that tilt it."""
    rng = np.random.default_rng(s)
    left = rng.uniform([-2.2, -1.0], [-1.0, 1.0], (30, 2))
    right = rng.uniform([1.0, -1.0], [2.2, 1.0], (30, 2))
    near = rng.uniform([-0.6, 1.2], [0.0, 1.6], (3, 2))
    x = torch.as_tensor(np.concatenate([left, right, near]))
    return x, torch.tensor([0] * 30 + [1] * 33)


def with_one(x: Tensor) -> Tensor:
    """Points with a last coordinate of one, for the bias."""
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


def line_margin(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Least signed distance of the points to the line where both scores agree, (S,)."""
    normal = weights[:, :, 1] - weights[:, :, 0]
    signed = (with_one(x) @ normal[:, :, None])[..., 0] * (2 * y - 1)
    return (signed / normal[:, :2].norm(dim=1, keepdim=True)).amin(1)


def line_slope(log_p: Callable, weights: Tensor, x: Tensor) -> Tensor:
    """Largest norm of the posterior's gradient at the points' feet, (S,)."""
    normal = weights[:, :, 1] - weights[:, :, 0]
    signed = (with_one(x) @ normal[:, :, None])[..., 0]
    signed = signed / normal[:, :2].square().sum(1, keepdim=True)
    feet = x - signed[..., None] * normal[:, None, :2]

    def posterior(at: Tensor) -> Tensor:
        return log_p((with_one(at) @ weights).flatten(0, 1))[:, 1].exp()

    return gradient(posterior, feet).norm(dim=-1).amax(1)


def course(
    log_p: Callable, history: Tensor, x: Tensor, y: Tensor, largest: list[float]
) -> Course:
    """Margins, relative to the largest ones, and slopes of a history of weights."""
    margins = torch.stack([line_margin(weights, x, y) for weights in history], 1)
    slopes = torch.stack([line_slope(log_p, weights, x) for weights in history], 1)
    return Course(margins / torch.tensor(largest)[:, None], slopes)


toys = list(range(seed, seed + p.toy_draws))
blobs = [separable(s) for s in toys]
blob_x, blob_y = (torch.stack(part) for part in zip(*blobs, strict=True))
best_line = []
for x, y in blobs:
    machine = SVC(kernel="linear", C=1e6).fit(x.numpy(), y.numpy())
    best_line.append(1 / float(np.linalg.norm(machine.coef_)))

marks = np.unique(np.geomspace(1, p.linear_steps, 60).astype(int)).tolist()
shape = (len(toys), 3, 2)
start = 0.1 * torch.randn(shape, dtype=torch.float64, generator=draws(seed))
told = {"marks": marks, "lr": 0.1, "start": start}
line_history = [run.once(descend, head.log_p, blob_x, blob_y, **told) for head in HEADS]
softmax_line, softrmax_line = (
    course(head.log_p, weights, blob_x, blob_y, best_line)
    for head, weights in zip(HEADS, line_history, strict=True)
)


# %% tags=["hide-input"]
def bands(panel: plt.Axes, a: np.ndarray, b: np.ndarray, posterior: Tensor) -> None:
    """Posterior of class 1 on a grid of the plane as bands."""
    look = {"levels": np.linspace(0, 1, 11), "cmap": "RdBu_r", "alpha": 0.75}
    panel.contourf(a, b, posterior, **look)
    panel.set(xticks=[], yticks=[])


def dots(panel: plt.Axes, x: Tensor, y: Tensor) -> None:
    """Points of two classes."""
    colours = [plots.PALETTE[label] for label in y.tolist()]
    panel.scatter(*x.T, c=colours, s=8, edgecolors="black", linewidths=0.4)


# %% name="fig-line-bands" tags=["hide-input"] mystnb={"image": {"alt": "Six panels: bands of the posterior over two classes of points in the plane after few, some and all epochs, softmax above and softRmax below; softmax bands become narrower, softRmax bands hardly change."}}
across, up = np.linspace(-3, 3, 161), np.linspace(-1.8, 2.2, 161)
mesh = torch.as_tensor(np.stack(np.meshgrid(across, up), -1).reshape(-1, 2))
steps_shown = (min(30, p.linear_steps), min(300, p.linear_steps), p.linear_steps)
indices = [int(np.searchsorted(marks, number)) for number in steps_shown]
_, axes = plt.subplots(2, 3, figsize=(8.6, 4.6))
for panels, kind, passed in zip(axes, HEADS, line_history, strict=True):
    for ax, index in zip(panels, indices, strict=True):
        height = kind.log_p(with_one(mesh) @ passed[index][0])[:, 1].exp()
        bands(ax, across, up, height.reshape(161, 161))
        dots(ax, *blobs[0])
        ax.set_title(f"{kind.name}, epoch {marks[index]}", fontsize=9)
plt.show()


# %% tags=["hide-input"]
def draw_courses(ax_margin, ax_slope, epochs, courses) -> None:
    """Margins relative to the largest, and slopes, of both heads against epochs."""
    for head, found in zip(HEADS, courses, strict=True):
        look = {"label": head.name, "color": head.color, "style": head.line}
        plots.band(ax_margin, epochs, found.margins, marker="", **look)
        plots.band(ax_slope, epochs, found.slopes, marker="", **look)
    ax_margin.set(xscale="log", xlabel="epoch", ylim=(-0.6, 1.1))
    ax_slope.set(xscale="log", xlabel="epoch", yscale="log")
    ax_slope.set(ylabel="slope of the posterior")


# %% name="fig-line" tags=["hide-input"] mystnb={"image": {"alt": "Left: margin of the linear classifiers against epochs on a logarithmic axis, with the maximum margin as a dotted line. Right: steepness of the posterior at the boundary against epochs."}}
_, axes = plt.subplots(1, 2, figsize=(9.2, 3.2))
draw_courses(*axes, marks, (softmax_line, softrmax_line))
axes[0].axhline(1, color="black", linestyle=(0, (1, 3)), label="maximum margin")
axes[0].set(ylabel="margin / maximum margin", title="mean and range over draws")
axes[1].set(title="at the boundary")
axes[0].legend(loc="lower right")
plt.show()

# %% tags=["hide-input"]
run.claim("wang2022.fig2-linear", **race(softmax_line, softrmax_line))

# %% [markdown]
# Who ends with the larger margin depends on how long one trains, since softmax still climbs where softRmax has settled; one draw, as the paper shows it, cannot say how often either is ahead.

# %% [markdown]
# The sentence speaks of a boundary that separates the points, so a draw counts from a thirtieth of the steps on, or from the first step after which it stays separated if that is later; a draw that is never separated does not count.
# How much of the margin that softmax lacks then do the remaining steps give it?
# In a draw where that is a tenth or less, the boundary hardly moves.

# %% tags=["hide-input"]
late = int(np.searchsorted(marks, p.linear_steps // 30))
margins = softmax_line.margins
separates = (margins > 0).flip(1).cummin(1).values.flip(1)  # from here to the end
from_here = separates.long().argmax(1).clamp_min(late)
counted = separates[:, -1] & (from_here < margins.shape[1] - 1)
then, last = margins.gather(1, from_here[:, None])[:, 0], margins[:, -1]
closed = ((last - then) / (1 - then))[counted]
run.claim(
    "wang2022.softmax-stuck",
    share_of_draws_that_hardly_move=share(closed <= 0.1) if len(closed) else None,
    share_of_missing_margin_closed_later=float(closed.median())
    if len(closed)
    else None,
    draws_that_are_separated=float(counted.sum()),
    steps_before_any_counts=float(marks[late]),
)

# %% [markdown]
# On separable points gradient descent on the softmax loss converges in direction to the maximum margin {cite:p}`soudry2018`, at the speed of $1 / \log t$: a standstill on an axis of epochs, a slope on a logarithmic one.

# %% [markdown]
# ### Is the margin the only option left?
#
# The softRmax loss of the 201 points of the lesson, for affine $z(t)$ on the line through both centres, on a fine grid over $g(t) = a + b t$.

# %% tags=["nbval-check-output", "hide-input"]
t, sign = np.array([0.0, 1.0, 0.6]), np.array([-1.0, 1.0, -1.0])
count = np.array([100, 100, 1])
grid = np.linspace(-2, 1, 601), np.linspace(0.005, 4, 800)
a, b = np.meshgrid(*grid, indexing="ij")
g = sign * (a[..., None] + b[..., None] * t)
with np.errstate(divide="ignore"):
    total = (count * np.log1p(np.square(1 - g) / np.square(1 + g))).sum(-1)
separates = (g > 0).all(-1)
best = np.unravel_index(total.argmin(), total.shape)
threshold = -a[best] / b[best]
machine = SVC(kernel="linear", C=1e6)
machine.fit(np.repeat(t, count)[:, None], np.repeat(sign, count))
print(f"best loss {total[best]:.3f} at threshold {threshold:.3f}")
print(f"best loss that separates {total[separates].min():.3f}")
print(f"maximum margin {1 / abs(machine.coef_[0, 0]):.3f}")
run.claim(
    "wang2022.margin-only-option",
    misclassified_at_softrmax_optimum=int((g[best] <= 0).sum()),
    margin_at_softrmax_optimum=round(float((sign * (t - threshold)).min()), 3),
)

# %% [markdown]
# For two classes the softRmax loss at a given margin $g = z_y - z_{\text{other}} \geq 0$ is smallest for $z$ on the line through both centres, where it is $\log(1 + (1-g)^2 / (1+g)^2)$.
# So the best of all $z(t)$ that separate lies on the grid, and one on the grid that does not separate is better: the global optimum does not separate either.

# %% [markdown]
# ### The moons
#
# A network with two hidden layers of 32 on two moons, by full-batch gradient descent with momentum.
# The margin is measured on the boundary itself, traced on a fine grid; the slope is the median over the boundary.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Moons:
    """Margin and slope at the boundary, by draw and marked step, and of the first draw
    the posterior on the grid early, in the middle and at the end."""

    margins: Tensor
    slopes: Tensor
    posterior: Tensor


def moon_axes() -> tuple[Tensor, Tensor]:
    """The grid over the moons."""
    return torch.linspace(-1.8, 2.8, 116), torch.linspace(-1.3, 1.8, 78)


def traced(values: Tensor, axes: tuple[Tensor, Tensor]) -> np.ndarray:
    """Points (B, 2) where values on the grid change sign between neighbours."""
    found = []
    for axis in (0, 1):
        pairs = values.shape[axis] - 1
        here, there = values.narrow(axis, 0, pairs), values.narrow(axis, 1, pairs)
        i, j = torch.nonzero((here > 0) != (there > 0), as_tuple=True)
        step = here[i, j] / (here[i, j] - there[i, j]) * (axes[axis][1] - axes[axis][0])
        place = [axes[0][i], axes[1][j]]
        place[axis] = place[axis] + step
        found.append(torch.stack(place, 1))
    return torch.cat(found).numpy()


def scores_of(layers: list[list[Tensor]], x: Tensor) -> Tensor:
    """z of points (S, n, 2) by S networks at once, their weights and biases stacked."""
    for weight, bias in layers[:-1]:
        x = torch.baddbmm(bias[:, None], x, weight.mT).relu()
    weight, bias = layers[-1]
    return torch.baddbmm(bias[:, None], x, weight.mT)


def moon_histories(log_p: Callable, *, marks: list[int], seeds: list[int]) -> Moons:
    """A network on each draw of the moons, watched while it is trained."""
    x, y = map(torch.stack, zip(*(data.moons(120, seed=s) for s in seeds), strict=True))
    nets = [models.mlp((1, 1, 2), (32, 32), 2, seed=s) for s in seeds]
    lists = zip(*(net.parameters() for net in nets), strict=True)
    flat = [torch.stack(list(same)).detach().requires_grad_() for same in lists]
    layers = [flat[i : i + 2] for i in range(0, len(flat), 2)]
    optimizer = torch.optim.SGD(flat, lr=0.05, momentum=0.9)
    axes = moon_axes()
    mesh = torch.cartesian_prod(*axes).expand(len(seeds), -1, -1)
    margins, slopes, kept = [], [], []

    def log_posterior_of(z: Tensor) -> Tensor:
        return log_p(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    for step in range(1, marks[-1] + 1):
        z = scores_of(layers, x)
        loss = -log_posterior_of(z).gather(2, y[..., None]).mean((1, 2)).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step not in marks:
            continue
        with torch.no_grad():
            z = scores_of(layers, mesh)
            right = scores_of(layers, x).argmax(2) == y
        lead = (z[..., 1] - z[..., 0]).unflatten(1, (len(axes[0]), -1))
        found = [edge_of(log_p, layers, i, lead[i], x[i], axes) for i in range(len(x))]
        distance, slope = map(torch.stack, zip(*found, strict=True))
        margins.append(torch.where(right, distance, -distance).amin(1))
        slopes.append(slope)
        kept.append(log_posterior_of(z[:1])[0, :, 1].exp())
    few = torch.stack([kept[i] for i in (0, len(kept) // 2, -1)])
    return Moons(torch.stack(margins, 1), torch.stack(slopes, 1), few)


def edge_of(
    log_p: Callable, layers: list, i: int, lead: Tensor, x: Tensor, axes: tuple
) -> tuple[Tensor, Tensor]:
    """Distances (n,) of points to network i's boundary, and the median slope of the
    posterior on it; NaN where there is no boundary."""
    edge = traced(lead, axes)
    if not len(edge):
        return torch.full((len(x),), math.nan), torch.tensor(math.nan)
    one = [[part[i : i + 1].detach() for part in layer] for layer in layers]

    def posterior(at: Tensor) -> Tensor:
        return log_p(scores_of(one, at[None])[0])[:, 1].exp()

    steep = gradient(posterior, torch.as_tensor(edge).float()).norm(dim=1)
    return torch.as_tensor(cKDTree(edge).query(x.numpy())[0]).float(), steep.median()


moon_marks = np.unique(np.geomspace(5, p.moons_steps, 12).astype(int)).tolist()
moons = [
    run.once(moon_histories, head.log_p, marks=moon_marks, seeds=toys) for head in HEADS
]
possible = []
for s in toys:
    x, y = data.moons(120, seed=s)
    possible.append(float(cdist(x[y == 0], x[y == 1]).min()) / 2)
softmax_moons, softrmax_moons = (
    Course(found.margins / torch.tensor(possible)[:, None], found.slopes)
    for found in moons
)

# %% name="fig-moons-bands" tags=["hide-input"] mystnb={"image": {"alt": "Six panels: bands of the posterior over two moons early, in the middle and at the end of training, softmax above and softRmax below."}}
across, up = moon_axes()
epochs_shown = (moon_marks[0], moon_marks[len(moon_marks) // 2], moon_marks[-1])
_, axes = plt.subplots(2, 3, figsize=(8.6, 4.2))
for panels, kind, watched in zip(axes, HEADS, moons, strict=True):
    for ax, height, epoch in zip(panels, watched.posterior, epochs_shown, strict=True):
        bands(ax, across, up, height.reshape(len(across), -1).T)
        dots(ax, *data.moons(120, seed=seed))
        ax.set_title(f"{kind.name}, epoch {epoch}", fontsize=9)
plt.show()

# %% name="fig-moons" tags=["hide-input"] mystnb={"image": {"alt": "Left: measured margin on the moons against epochs for both heads, with half the smallest distance between classes as a dotted line. Right: median slope of the posterior on the boundary against epochs."}}
_, axes = plt.subplots(1, 2, figsize=(9.2, 3.2))
draw_courses(*axes, moon_marks, (softmax_moons, softrmax_moons))
axes[0].axhline(1, color="black", linestyle=(0, (1, 3)), label="no margin is larger")
axes[0].set(ylabel="margin / largest possible", title="mean and range over draws")
axes[1].set(title="median over the boundary")
axes[0].legend(loc="lower right")
plt.show()

# %% tags=["hide-input"]
run.claim("wang2022.fig2-moons", **race(softmax_moons, softrmax_moons))

# %% [markdown]
# No boundary can have a larger margin than half the distance between the two nearest points of different classes (dotted); the left panel shows how far either head stays from it, and from the other.

# %% [markdown]
# ## Networks
#
# The paper's MNIST network has four convolutions and one dense layer, trained with Adam (batch 32, learning rate $10^{-3}$); its widths are not given.
# Ours has four convolutions and one dense layer, with batch norm (`small_cnn`), and is trained by SGD with momentum and a one-cycle schedule: an assumption, and the same for both heads.
# At the quick profile it is a small multilayer perceptron on scikit-learn's digits.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Study:
    """A data set with a network of each head for each seed."""

    name: str  # of the paper's data set, as the claims write it
    title: str
    test: data.ImageData
    softmax: list[nn.Module]
    softrmax: list[nn.Module]
    attack_images: int  # under iterated attacks
    curve_images: int  # under BIM with growing numbers of iterations

    @property
    def nets(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The networks in the order of HEADS."""
        return self.softmax, self.softrmax

    @property
    def historical(self) -> bool:
        """Whether the paper's epsilon is in units of normalised images."""
        return self.name.startswith("cifar")

    def pixels(self, eps: float) -> float:
        """The paper's epsilon in pixel units."""
        if not self.historical:
            return eps
        return round(eps * float(self.softmax[0].body[0].std.mean()), 4)


def body(model: str, width: int) -> str:
    """A profile's network as the list of networks names it."""
    return f"small_cnn-{width}" if model == "small_cnn" else model


def study(
    name: str, title: str, test: data.ImageData, images: str, seeds: Sequence[int],
    attack_images: int = p.attack_images, curve_images: int = p.curve_images, **told,
) -> Study:  # fmt: skip
    """Train both heads from the same weights on the same batches."""
    kinds = []
    for kind in ("softmax", "softrmax"):
        train = partial(network, f"{images}/{kind}", weight_decay=5e-6, **told)
        kinds.append([train(seed=s) for s in seeds])
    return Study(name, title, test, *kinds, attack_images, curve_images)


def two_classes(images: data.ImageData, a: int, b: int) -> data.ImageData:
    """The images of two classes, relabelled 0 and 1."""
    keep = (images.y == a) | (images.y == b)
    y, names = (images.y[keep] == b).long(), (str(a), str(b))
    mark = f"{images.sha256}:{a},{b}"
    return replace(images, x=images.x[keep], y=y, classes=names, sha256=mark)


digits = run.load(p.digits_data, "train").take(p.digits_train)
digits_test = run.load(p.digits_data, "test").take(p.digits_test)
pictures_test = run.load(p.pictures_data, "test").take(p.pictures_test)
digits_body = body(p.digits_model, p.digits_width)
told = {"train": p.digits_train, "lr": p.lr, "batch_size": p.batch_size}
pair_study = study(
    "mnist37",
    f"{p.digits_data}, 3 and 7",
    two_classes(digits_test, 3, 7),
    f"{p.digits_data}:3,7/{digits_body}",
    run.seeds,
    epochs=p.pair_epochs,
    **told,
)
digits_study = study(
    "mnist",
    p.digits_data,
    digits_test,
    f"{p.digits_data}/{digits_body}",
    run.seeds,
    epochs=p.digits_epochs,
    **told,
)
pictures_study = study(
    "cifar10",
    f"{p.pictures_data} (pictures)",
    pictures_test,
    f"{p.pictures_data}/{body(p.pictures_model, p.pictures_width)}",
    run.seeds[: p.pictures_seeds],
    p.pictures_attack_images,
    p.pictures_curve_images,
    train=p.pictures_train,
    epochs=p.pictures_epochs,
    lr=p.pictures_lr,
    batch_size=p.pictures_batch,
)
studies = [pair_study, digits_study, pictures_study]

# %% tags=["hide-input"]
if p.hundred_data == "none":
    print("CIFAR-100 is left out: hundred_data is none, so its claims are not run")
else:
    hundred = study(
        "cifar100",
        f"{p.hundred_data} (hundred)",
        run.load(p.hundred_data, "test").take(p.hundred_test),
        f"{p.hundred_data}/{body(p.hundred_model, p.pictures_width)}",
        run.seeds,
        train=p.hundred_train,
        epochs=p.hundred_epochs,
        lr=p.hundred_lr,
        batch_size=p.hundred_batch,
    )
    studies.append(hundred)

# %% tags=["hide-input"]
clean = {}
for one in studies:
    soft, polynomial = ([accuracy(net, one.test) for net in nets] for nets in one.nets)
    both = zip(soft, polynomial, strict=True)
    clean[f"{one.name}_change"] = [after - before for before, after in both]
    clean |= {f"{one.name}_softmax": soft, f"{one.name}_softrmax": polynomial}
run.claim("wang2022.clean-kept", **clean)

# %% [markdown]
# The pairs start from the same weights and see the same batches, so their accuracies are compared image by image.

# %% [markdown]
# ### Is the norm of z near one?
#
# $\lVert z \rVert$ on the test images, and the norms of the class weights of the last layer.
# The row adds an exact case: two points of different classes at distance $\delta$, each mapped onto its centre, at $\delta = 0.01$ over $\delta = 1$.


# %% tags=["hide-input"]
def on_z(model: nn.Module) -> nn.Module:
    """The same classifier with z as its scores: softRmax names the class of the largest
    z, so nothing changes but what an attack sees."""
    head = heads.LinearHead(model.head.weight, model.head.bias)
    return models.with_head(model, head)


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """z of images, (N, K), on the CPU."""
    return training.predict(on_z(model), x).cpu()


for net in digits_study.softrmax:
    answers = training.predict(net, digits_test.x).argmax(1).cpu()
    assert torch.equal(answers, logits(net, digits_test.x).argmax(1))
z_norms = [
    [logits(net, digits_test.x).norm(dim=1) for net in nets]
    for nets in digits_study.nets
]
weight_norms = [
    [float(net.head.weight.detach().norm()) for net in nets]
    for nets in digits_study.nets
]


def fitted_weight(gap: float) -> float:
    """Norm of the weight that maps 0 to e_0 and `gap` to e_1."""
    places = torch.tensor([[0.0, 1.0], [gap, 1.0]], dtype=torch.float64)
    return float(
        torch.linalg.solve(places, torch.eye(2, dtype=torch.float64))[0].norm()
    )


# %% tags=["hide-input"]
softmax_median, softrmax_median = (
    [paired_bootstrap(np.median, norms) for norms in runs] for runs in z_norms
)
run.claim(
    "wang2022.norm-regularised",
    median_norm=softrmax_median,
    softmax_median_norm=softmax_median,
    softrmax_weight_norm=weight_norms[1],
    softmax_weight_norm=weight_norms[0],
    weight_growth_of_close_classes=fitted_weight(0.01) / fitted_weight(1.0),
)

# %% [markdown]
# $\lVert z \rVert$ does gather at one, where it is data that the network fits.
# It bounds no weight: two points of different classes at distance $\delta$, each mapped onto its centre, have no loss, $\lVert z \rVert = 1$, and a weight of $\sqrt 2 / \delta$.

# %% name="fig-norms" tags=["hide-input"] mystnb={"image": {"alt": "Left: histogram of the norm of z on test images for both heads on a logarithmic axis, softRmax concentrated at one. Right: norms of the ten class weights for both heads, per seed."}}
_, axes = plt.subplots(1, 2, figsize=(9.2, 3.1))
for kind, sizes, trained, offset in zip(
    HEADS, z_norms, digits_study.nets, (-0.08, 0.08), strict=True
):
    joined = torch.cat(sizes).clamp_min(1e-2).numpy()
    look = {"color": kind.color, "alpha": 0.6, "label": kind.name}
    axes[0].hist(joined, bins=np.geomspace(0.1, 100, 61), **look)
    for place, member in enumerate(trained):
        rows_norm = member.head.weight.detach().norm(dim=1).cpu()
        at_seed = np.full(K, place + offset)
        axes[1].plot(at_seed, rows_norm, "o", ms=4, alpha=0.7, color=kind.color)
axes[0].axvline(1, color="black", linewidth=0.8)
axes[0].set(xscale="log", xlabel=r"$\Vert z \Vert$ on test images")
axes[0].set(ylabel="images, all seeds")
axes[0].legend()
axes[1].set(xticks=range(len(run.seeds)), xticklabels=run.seeds, xlabel="seed")
axes[1].set(ylabel="norms of the class weights", ylim=(0, None))
plt.show()

# %% [markdown]
# ### Initial weights
#
# The initial last layer as it is and a hundred times as large: the mean norm of the gradient of the loss with respect to $z$ on 500 images, and the accuracy after a few epochs on a part of the data.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Beginning:
    """Where a training begins and where a few epochs lead: one number a seed."""

    head: str
    factor: float
    slopes: list[float]
    accuracies: list[float]


few = digits.take(min(len(digits), 5000))
short = {"epochs": p.initial_epochs, "lr": p.lr, "batch_size": p.batch_size}


def beginning(head: Head, factor: float, recipe: str) -> Beginning:
    """Untrained and shortly trained networks from weights of one size."""
    name = f"{p.digits_data}/{digits_body}/{recipe}"
    found = Beginning(head.name, factor, [], [])

    def own(z: Tensor) -> Tensor:
        return head.log_p(z).gather(1, few.y[: len(z), None])

    for s in run.seeds:
        z = logits(networks.untrained(name, seed=s), few.x[:500])
        found.slopes.append(float(gradient(own, z).norm(dim=1).mean()))
        net = network(name, seed=s, train=min(p.digits_train, 5000), **short)
        found.accuracies.append(accuracy(net, digits_test))
    return found


usual, far_out, softmax_usual, softmax_far_out = (
    beginning(head, factor, head.name.lower() + end)
    for head in reversed(HEADS)
    for factor, end in ((1.0, ""), (100.0, "/far"))
)

# %% name="table-initial" tags=["hide-input"]
rows = [
    {
        "head": one.head,
        "factor": f"{one.factor:g}",
        "gradient at z": np.mean(one.slopes),
        f"accuracy after {p.initial_epochs} epochs": np.mean(one.accuracies),
    }
    for one in (softmax_usual, softmax_far_out, usual, far_out)
]
plots.table(
    pd.DataFrame(rows).set_index(["head", "factor"]),
    "Initial last layer multiplied by a factor, mean over seeds",
    kind="g",
)

# %% tags=["hide-input"]
run.claim(
    "wang2022.init-vanishing",
    gradient_usual=usual.slopes,
    gradient_far=far_out.slopes,
    accuracy_usual=usual.accuracies,
    accuracy_far=far_out.accuracies,
    softmax_accuracy_usual=softmax_usual.accuracies,
    softmax_accuracy_far=softmax_far_out.accuracies,
)

# %% [markdown]
# Far from the centres the gradient of the loss with respect to $z$ is of the order $1 / \lVert z \rVert^2$ or smaller, so a large initial layer leaves little to learn from; softmax suffers too, for the other reason that it saturates.

# %% [markdown]
# ## Attacks, and the unit of epsilon
#
# **Every epsilon on this page is in pixel units**: images lie in $[0, 1]$, and $\varepsilon = 0.1$ is $25.5/255$.
#
# Equation 3 with ten steps, the gradient taken at the iterate as it is meant and at the clean $x$ as it is printed, beside one step of FGSM: the share of images that end elsewhere.


# %% name="bim-as-printed" tags=["hide-input"]
def away_from_fgsm(model: nn.Module, x: Tensor, y: Tensor, printed: bool) -> Tensor:
    """Whether each image ends elsewhere under Equation 3 than under FGSM, (N,)."""

    def step(at: Tensor) -> Tensor:
        entropy = partial(functional.cross_entropy, target=y, reduction="none")
        return gradient(lambda x: entropy(model(x)), at).sign()

    at, once = x, x + 0.1 * step(x)
    for _ in range(10):
        at = at + (0.1 / 10) * step(x if printed else at)
    return ((at - once).abs() > 1e-5).flatten(1).any(1)


model = digits_study.softmax[0]
x, y = digits_test.x[:50].to(run.device), digits_test.y[:50].to(run.device)
meant = away_from_fgsm(model, x, y, printed=False)
printed = away_from_fgsm(model, x, y, printed=True)
run.claim(
    "wang2022.eq3",
    images_unlike_fgsm=share(meant),
    images_unlike_fgsm_as_printed=float(share(printed)),
)

# %% [markdown]
# With the gradient at the clean $x$, as printed, all steps point the same way and add up to FGSM; with the gradient at the iterate, as it is meant, they do not.
# The paper does not state its unit of $\varepsilon$.
# The authors' CIFAR code (`ziqiwangsilvia/attack`, `cifar/attack_cifar_NLLLoss.py`, commit 2577c28) measures it *after* normalisation, where 0.1 is a tenth of a standard deviation of the pixels, about $6.4/255$ on CIFAR-10; there is no MNIST code, so its MNIST numbers are read as pixels.

# %% [markdown]
# ### Figure 4: far outside the images
#
# FGSM without any clipping, along the log-odds of the true class, and the posterior of the predicted class of every test image that is then misclassified.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Far:
    """One step of FGSM without clipping: the posterior of the predicted class of the
    misclassified images, and the accuracy."""

    posterior: Tensor
    accuracy: float

    def mean(self) -> float:
        """Mean posterior of the wrong answers, NaN if there is none."""
        return mean_over(self.posterior) if len(self.posterior) > 1 else math.nan


def log_odds(scores: Tensor, y: Tensor) -> Tensor:
    """log of (1 - p) / p for the probability p of class y, (N,)."""
    others = scores.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    return others - scores.gather(1, y[:, None])[:, 0]


def stepped(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Log-scores after one step of FGSM without any clipping, (N, K)."""
    slope = gradient(lambda at: log_odds(model(at), y), x)
    return model(x + eps * slope.sign()).detach()


def step_far(model: nn.Module, x: Tensor, y: Tensor, sizes: list[float]) -> list[Far]:
    """What is left of the test images after steps of these sizes."""
    found = []
    for eps in sizes:
        parts = zip(x.split(100), y.split(100), strict=True)
        scores = torch.cat([stepped(model, *part, eps) for part in parts])
        sure, answer = model.head.confidence(scores).max(1)
        wrong = answer != y
        found.append(Far(sure[wrong].cpu(), share(~wrong)))
    return found


x, y = digits_test.x.to(run.device), digits_test.y.to(run.device)
sizes = list(p.posterior_eps)
outside = [
    [run.once(step_far, net, x, y, sizes) for net in nets] for nets in digits_study.nets
]

# %% name="fig-far" tags=["hide-input"] mystnb={"image": {"alt": "Histograms of the posterior of the predicted class of misclassified images at growing epsilon, softmax and softRmax; at the largest epsilon softmax stands at one and softRmax near one tenth."}}
panels = len(p.posterior_eps)
_, axes = plt.subplots(1, panels, figsize=(2.3 * panels, 2.8), sharey=True)
for index, (ax, step_size) in enumerate(zip(axes, p.posterior_eps, strict=True)):
    for kind, by_run in zip(HEADS, outside, strict=True):
        confident = torch.cat([row[index].posterior for row in by_run]).numpy()
        number = len(confident)
        look = {"color": kind.color, "label": f"{kind.name}: {number} wrong"}
        look["weights"] = np.full(number, 1 / max(number, 1))
        ax.hist(confident, bins=np.linspace(0, 1, 26), alpha=0.6, **look)
    ax.set(title=rf"$\epsilon$ = {step_size:g}", xlabel="posterior", xlim=(0, 1))
    ax.legend(fontsize=6, loc="upper center")
axes[0].set_ylabel("share of wrong answers")
plt.show()

# %% tags=["hide-input"]
softmax_far, softrmax_far = ([found[-1] for found in runs] for runs in outside)
run.claim(
    "wang2022.fig4",
    softmax_posterior_eps100=[found.mean() for found in softmax_far],
    softmax_accuracy_eps100=[found.accuracy for found in softmax_far],
    softrmax_posterior_eps100=[found.mean() for found in softrmax_far],
    softrmax_accuracy_eps100=[found.accuracy for found in softrmax_far],
    chance=1 / K,
)

# %% [markdown]
# At the largest step the images are far outside $[0, 1]$, and the row says what the tail does there; at the small steps, where the images are still images, look at how far apart the two histograms really are.
# The step climbs the log-odds of the true class, which has the gradient of the cross-entropy up to a factor that underflows where a network is sure.

# %% [markdown]
# ### The attack that the paper did not try
#
# For each network: FGSM and BIM with ten steps on its own loss, PGD on $z$ with cross-entropy and with the margin, and short rounds of steps on $z$ towards each other class.
# FGSM sees all test images, the others the first ones; the worst case is over all of them.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Fallen:
    """Which images fall to each attack, and to any of them."""

    fgsm: Tensor
    bim: Tensor
    ce_on_z: Tensor
    margin_on_z: Tensor
    worst: Tensor


def under_attack(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *,
    images: int, steps: int, restarts: int, seed: int,
) -> Fallen:  # fmt: skip
    """FGSM (all images) and BIM on the own loss, attacks on z, the worst case."""
    z, few, labels = on_z(model), x[:images], y[:images]
    told = {"steps": steps, "restarts": restarts}
    pgd = partial(attacks.pgd, z, few, labels, eps, **told)
    fgsm = attacks.fgsm(model, x, y, eps).success
    bim = attacks.bim(model, few, labels, eps, steps=10).success
    ce = pgd(generator=draws(seed)).success
    margin = pgd(loss="margin", generator=draws(seed)).success
    worst = fgsm[:images] | bim | ce | margin
    left = (~worst).nonzero()[:, 0]
    if len(left):  # only what the others left is attacked again
        rest = z, few[left], labels[left], eps
        again = attacks.multi_targeted(*rest, generator=draws(seed))
        worst[left] = again.success
    return Fallen(fgsm, bim, ce, margin, worst)


@dataclass(frozen=True)
class Under:
    """The networks of a study under attack at one budget, one result a seed."""

    printed: float
    pixels: float
    softmax: list
    softrmax: list

    @property
    def runs(self) -> tuple[list, list]:
        """The results in the order of HEADS."""
        return self.softmax, self.softrmax


def held(runs: list, attack: str) -> list[float]:
    """Accuracy of each run under an attack, by the name of its field."""
    return [share(~getattr(one, attack)) for one in runs]


def attacked_at(one: Study, eps: float, pixels: float) -> Under:
    """All networks of a study under attack at a budget."""
    x, y = one.test.x.to(run.device), one.test.y.to(run.device)
    told = {
        "images": one.attack_images,
        "steps": p.pgd_steps,
        "restarts": p.pgd_restarts,
    }
    told["seed"] = seed
    kinds = []
    for nets in one.nets:
        kinds.append(
            [run.once(under_attack, net, x, y, pixels, **told) for net in nets]
        )
    return Under(eps, pixels, *kinds)


attacked = [[attacked_at(one, eps, one.pixels(eps)) for eps in EPS] for one in studies]
attacked_as_table_2 = attacked_at(digits_study, p.table2_eps, p.table2_eps)

# %% [markdown]
# ### The historical protocol of the CIFAR rows
#
# The authors' CIFAR code repeated on normalised images: FGSM without clipping, and a BIM of ten steps, as in the paper's text, that projects around the *current* iterate and clamps the lower end of its box at 0.
# The first question of the CIFAR rows is judged by these two.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Historical:
    """Which images fall to FGSM and to the drifting BIM of the authors' code, and the
    largest distance that BIM went with each, in its epsilons."""

    fgsm: Tensor
    bim: Tensor
    distance: Tensor


def historical_batch(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int
) -> Historical:
    """The authors' protocol on one batch."""
    normalise, rest = model.body[0], model.body[1:]

    def loss(at: Tensor) -> Tensor:
        return functional.cross_entropy(model.head(rest(at)), y, reduction="none")

    def falls(at: Tensor) -> Tensor:
        with torch.no_grad():
            return model.head(rest(at)).argmax(1) != y

    start = normalise(x).detach()
    at = start
    for _ in range(steps):
        moved = at + (eps / steps) * gradient(loss, at).sign()
        low, high = (at - eps).clamp(min=0), at + eps
        at = torch.minimum(torch.maximum(moved, low), high).clamp(max=255).detach()
    once = start + eps * gradient(loss, start).sign()
    wrong = falls(start)
    distance = (at - start).abs().flatten(1).amax(1) / eps
    return Historical(falls(once) | wrong, falls(at) | wrong, distance)


def historical(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, steps: int
) -> Historical:
    """The authors' protocol, 250 images at a time."""
    batches = zip(x.split(250), y.split(250), strict=True)
    parts = [historical_batch(model, *batch, eps, steps) for batch in batches]
    return Historical(
        torch.cat([part.fgsm for part in parts]),
        torch.cat([part.bim for part in parts]),
        torch.cat([part.distance for part in parts]),
    )


def historically_at(one: Study, eps: float) -> Under:
    """All networks of a study under the authors' protocol at a budget."""
    x = one.test.x[: one.attack_images].to(run.device)
    y = one.test.y[: one.attack_images].to(run.device)
    kinds = []
    for nets in one.nets:
        kinds.append([run.once(historical, net, x, y, eps, steps=10) for net in nets])
    return Under(eps, eps, *kinds)


drifting = [
    [historically_at(one, eps) for eps in EPS if one.historical] for one in studies
]
farthest = 0.0
for rows in drifting:
    for under in rows:
        for one in under.softmax + under.softrmax:
            farthest = max(farthest, float(one.distance.max()))
print(f"largest distance of the historical BIM, in epsilons: {farthest:.1f}")
run.keep("farthest", farthest)

# %% [markdown]
# The published numbers beside those here: *historical*, the authors' protocol in normalised units; *here*, pixel units, at the step that the row names.

# %% name="table-attacks" tags=["hide-input"]
PUBLISHED = {  # softmax and softRmax: FGSM at 0.1 and 0.3, then BIM
    "mnist37": ((0.7718, 0.1869, 0.7164, 0.0024), (0.9588, 0.8871, 0.9490, 0.6624)),
    "mnist": ((0.4830, 0.0041, 0.5349, 0.0002), (0.7555, 0.4930, 0.6973, 0.3394)),
    "cifar10": ((0.1762, 0.1395, 0.1039, 0.0483), (0.4993, 0.4103, 0.4425, 0.1811)),
    "cifar100": ((0.1123, 0.0678, 0.0194, 0.0005), (0.1931, 0.1104, 0.0906, 0.0216)),
}
COLUMNS = {
    "FGSM": "fgsm",
    "BIM": "bim",
    "CE on z": "ce_on_z",
    "margin on z": "margin_on_z",
    "worst case": "worst",
}


def mean_held(runs: list, columns: Sequence[str]) -> dict[str, float]:
    """Mean accuracy over runs under each attack."""
    return {column: np.mean(held(runs, COLUMNS[column])) for column in columns}


rows = {}
for one, unders, drifts in zip(studies, attacked, drifting, strict=True):
    for i, under in enumerate(unders):
        for j, head in enumerate(HEADS):
            place = one.title, f"{under.printed:g}", head.name
            printed = PUBLISHED[one.name][j][i::2]
            rows[*place, "published"] = dict(zip(("FGSM", "BIM"), printed, strict=True))
            if drifts:
                found = mean_held(drifts[i].runs[j], ("FGSM", "BIM"))
                rows[*place, "historical"] = found
            found = mean_held(under.runs[j], list(COLUMNS))
            rows[*place, f"here, {under.pixels:.3g}"] = found
table1 = pd.DataFrame(list(rows.values()), columns=list(COLUMNS))
table1.index = pd.MultiIndex.from_tuples(rows, names=["data", "epsilon", "head", "row"])
plots.table(
    table1,
    f"Table 1: accuracy under attack, mean over {p.seeds} seeds ({p.pictures_seeds} on "
    f"pictures). BIM and the attacks on z see up to {p.attack_images} images "
    f"({p.pictures_attack_images})",
    kind="%",
    digits=1,
    missing="",
)

# %% name="fig-attacks" tags=["hide-input"] mystnb={"image": {"alt": "Accuracy of each study under FGSM, BIM on the own loss and the attacks on z, softmax and softRmax side by side, at both budgets; under attacks on z the bars of softRmax fall to those of softmax or near zero at the larger budget."}}
columns_of_panels = len(studies)
figure, axes = plt.subplots(
    2, columns_of_panels, figsize=(3.3 * columns_of_panels, 4.6), sharey=True
)
bars = np.arange(len(COLUMNS))
for column, shown_study in enumerate(studies):
    for ax, budget_row in zip(axes[:, column], attacked[column], strict=True):
        for kind, runs_of_kind, offset in zip(
            HEADS, budget_row.runs, (-0.2, 0.2), strict=True
        ):
            heights = [held(runs_of_kind, name) for name in COLUMNS.values()]
            middle = np.mean(heights, axis=1)
            low, high = np.min(heights, axis=1), np.max(heights, axis=1)
            ax.bar(bars + offset, middle, 0.38, color=kind.color, label=kind.name)
            ax.vlines(bars + offset, low, high, color="black", linewidth=1)
        title = rf"{shown_study.title}, $\epsilon$ = {budget_row.pixels:.3g}"
        ax.set_title(title, fontsize=9)
        ax.set(xticks=bars, ylim=(0, 1))
        ax.set_xticklabels([text.replace(" ", "\n", 1) for text in COLUMNS], fontsize=7)
handles = axes[0, 0].get_legend_handles_labels()
figure.legend(*handles, loc="outside upper center", ncols=2, fontsize=9)
for ax in axes[:, 0]:
    ax.set_ylabel("accuracy")
plt.show()

# %% [markdown]
# ### Why: into the tail
#
# BIM with ten steps as a generator that yields its iterates, so that $z$ can be watched along the way: its norm, the margin, and whether a step went into the tail, for images that are right at first.
# Steps of the same size along one random direction an image are the null model.


# %% tags=["hide-input"]
def iterates(loss: Callable, x: Tensor, eps: float, steps: int) -> Iterator[Tensor]:
    """BIM's iterates x_1, x_2, ...: signed steps of eps / steps that climb the loss,
    kept in the ball and in [0, 1]."""
    low, high = attacks.interval(x, eps)
    for _ in range(steps):
        x = (x + (eps / steps) * gradient(loss, x).sign()).clamp(low, high)
        yield x


@dataclass(frozen=True)
class Paths:
    """Step by step and image by image: norm of z, margin z_y - max z_j, (steps + 1, N),
    and whether the step went into the tail, (steps, N)."""

    norms: Tensor
    margins: Tensor
    into: Tensor

    @property
    def failed(self) -> Tensor:
        """Images that are right all the way, (N,)."""
        return (self.margins > 0).all(0)

    def into_tail(self, images: Tensor) -> float:
        """Share of an image's steps that go into the tail, of those taken while it was
        still right: mean over some images, NaN of fewer than two."""
        alive = self.margins[:-1] > 0
        of_image = (self.into & alive).sum(0) / alive.sum(0)
        return mean_over(of_image[images]) if images.sum() > 1 else math.nan

    @property
    def all(self) -> Tensor:
        """Every image, (N,)."""
        return torch.ones_like(self.failed)


def watch(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, kind: str, steps: int = 10
) -> Paths:
    """BIM on the `own` loss, on `z`, or along one `random` direction, as z goes."""
    z_model = on_z(model)
    aim = torch.randn(x.shape, generator=draws(seed)).to(x)

    def climbed(at: Tensor) -> Tensor:
        if kind == "random":
            return at * aim
        return log_odds((model if kind == "own" else z_model)(at), y)

    zs = [z_model(x).detach()]
    for at in iterates(climbed, x, eps, steps):
        zs.append(z_model(at).detach())
    centres = torch.eye(zs[0].shape[1], device=x.device)
    distances = torch.stack([torch.cdist(z, centres) for z in zs])
    norms = torch.stack([z.norm(dim=1) for z in zs])
    margins = torch.stack([attacks.margin(z, y) for z in zs])
    into = (norms.diff(dim=0) > 0) & (distances.diff(dim=0) > 0).all(2)
    right = margins[0] > 0
    return Paths(*(found[:, right].cpu() for found in (norms, margins, into)))


eps = EPS[-1]
x = digits_test.x[: p.attack_images].to(run.device)
y = digits_test.y[: p.attack_images].to(run.device)
own_paths = [watch(net, x, y, eps, "own") for net in digits_study.softrmax]
z_paths = [watch(net, x, y, eps, "z") for net in digits_study.softrmax]
random_paths = [watch(net, x, y, eps, "random") for net in digits_study.softrmax]
softmax_paths = [watch(net, x, y, eps, "own") for net in digits_study.softmax]

# %% tags=["hide-input"]
run.claim(
    "wang2022.tail-direction",
    failed_into_tail=[found.into_tail(found.failed) for found in own_paths],
    succeeded_into_tail=[found.into_tail(~found.failed) for found in own_paths],
    adaptive_into_tail=[found.into_tail(found.all) for found in z_paths],
    random_into_tail=[found.into_tail(found.all) for found in random_paths],
    softmax_into_tail=[found.into_tail(found.all) for found in softmax_paths],
)

# %% [markdown]
# On the left of the figure an image whose attack fails ends at a large $\lVert z \rVert$, often with a *larger* margin than it started with; on the right nothing draws the path there.
# So going into the tail belongs to the loss that is climbed and not to the classifier.

# %% name="fig-paths" tags=["hide-input"] mystnb={"image": {"alt": "Paths of forty softRmax images under BIM in the plane of the norm of z and the margin. Left, on the own loss: many paths run to the right, to large norms with a positive margin. Right, on z: the paths fall below zero margin."}}
_, axes = plt.subplots(1, 2, figsize=(9.4, 3.6), sharex=True, sharey=True)
for ax, trail, caption in (
    (axes[0], own_paths[0], "BIM on the own loss"),
    (axes[1], z_paths[0], "BIM on z"),
):
    for column in range(min(40, trail.norms.shape[1])):
        lost = bool(trail.failed[column])
        style, colour = ("-", plots.SOFTMAX) if lost else (":", plots.GAUSS)
        across, up = trail.norms[:, column], trail.margins[:, column]
        ax.plot(across, up, style, color=colour, linewidth=1, alpha=0.7)
        ax.plot(across[-1], up[-1], "o", color=colour, markersize=3)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel=r"$\Vert z \Vert$", title=rf"{caption}, $\epsilon$ = {EPS[-1]:g}")
axes[0].set_ylabel(r"margin $z_y - \max_{j \neq y} z_j$")
axes[0].plot([], [], color=plots.SOFTMAX, label="attack fails")
axes[0].plot([], [], ":", color=plots.GAUSS, label="attack succeeds")
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# The confidence of errors, found in two ways: by FGSM on the own loss (Figure 4's step nearest to the same budget), and by signed steps that lower $-\log p_t$ for the runner-up class $t$, of which the most confident error of each image is kept.


# %% tags=["hide-input"]
def confident_errors(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int
) -> float:
    """Mean posterior of the wrong class over images that an attack towards the
    runner-up misclassifies, each at its most confident error."""
    with torch.no_grad():
        aim = model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    sure = torch.zeros(len(x), device=x.device)

    def towards(at: Tensor) -> Tensor:
        return model(at).log_softmax(1).gather(1, aim[:, None])[:, 0]

    for at in iterates(towards, x, eps, steps):
        with torch.no_grad():
            posterior, answer = model.head.confidence(model(at)).max(1)
        sure = torch.maximum(sure, torch.where(answer != y, posterior, 0.0))
    wrong = sure[sure > 0]
    return mean_over(wrong) if len(wrong) > 1 else math.nan


nearest = int(np.abs(np.array(p.posterior_eps) - eps).argmin())
softmax_fgsm_sure, softrmax_fgsm_sure = (
    [found[nearest].mean() for found in runs] for runs in outside
)
softmax_targeted_sure, softrmax_targeted_sure = (
    [confident_errors(net, x, y, eps, 2 * p.pgd_steps) for net in nets]
    for nets in digits_study.nets
)

# %% [markdown]
# ### Figure 5: more iterations
#
# BIM with growing numbers of iterations, each of length $\varepsilon / T$, on the own loss and on $z$.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Iterations:
    """Accuracy under BIM by the number of steps: on the own loss, on z, on both."""

    own: list[float]
    z: list[float]
    both: list[float]


def iteration_curve(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, counts: list[int]
) -> Iterations:
    """What withstands BIM with each number of steps."""
    own = [~attacks.bim(model, x, y, eps, steps=count).success for count in counts]
    other = on_z(model)
    z = [~attacks.bim(other, x, y, eps, steps=count).success for count in counts]
    both = [a & b for a, b in zip(own, z, strict=True)]
    return Iterations(*([share(one) for one in found] for found in (own, z, both)))


def iterated_at(one: Study, eps: float) -> Under:
    """Curves of all networks of a study at a budget."""
    x = one.test.x[: one.curve_images].to(run.device)
    y = one.test.y[: one.curve_images].to(run.device)
    told = {"eps": one.pixels(eps), "counts": list(p.curve_steps)}
    kinds = []
    for nets in one.nets:
        kinds.append([run.once(iteration_curve, net, x, y, **told) for net in nets])
    return Under(eps, one.pixels(eps), *kinds)


digits_curves = [iterated_at(digits_study, eps) for eps in EPS]
pictures_curves = [iterated_at(pictures_study, eps) for eps in EPS]

# %% name="fig-iterations" tags=["hide-input"] mystnb={"image": {"alt": "Accuracy under BIM against the number of iterations, for the digits and for the data set used as pictures, at two budgets each: softmax, softRmax on its own loss, and softRmax attacked on z. At the larger budget the own-loss curve of softRmax stays above zero, while the curve on z ends at zero."}}
_, axes = plt.subplots(1, 4, figsize=(12.4, 3.1), sharey=True)
panels = [(digits_study, found_at) for found_at in digits_curves]
panels += [(pictures_study, found_at) for found_at in pictures_curves]
for ax, (shown_study, found_at) in zip(axes, panels, strict=True):
    polynomial_curves = found_at.softrmax
    for label, heights, colour, style in (
        ("softmax", [c.own for c in found_at.softmax], plots.SOFTMAX, "-"),
        ("softRmax, own loss", [c.own for c in polynomial_curves], plots.GAUSS, "--"),
        ("softRmax, on z", [c.z for c in polynomial_curves], plots.THIRD, ":"),
    ):
        look = {"label": label, "color": colour, "style": style}
        plots.band(ax, p.curve_steps, heights, **look)
    title = rf"{shown_study.title}, $\epsilon$ = {found_at.pixels:.3g}"
    ax.set_title(title, fontsize=9)
    ax.set(xscale="log", xlabel="BIM iterations", ylim=(0, 1))
axes[0].set_ylabel("accuracy")
axes[0].legend(fontsize=7)
plt.show()

# %% [markdown]
# ### Table 2: targeted, black-box and average-sample attacks
#
# The paper gives neither epsilon nor the targets.
# Our assumptions: `table2_eps` in pixels, and every other class in turn as the target, so that a class's accuracy is a mean over its images and targets.
# The substitute has the same architecture, other initial weights, and starts from images at the end of the test set, which are not attacked.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Targeted:
    """Accuracy of each image (N,), a mean over the targets, under each attack."""

    clean: Tensor
    white: Tensor
    white_on_z: Tensor
    black: Tensor
    average: Tensor


def build(start: int) -> nn.Module:
    """An untrained network of the digits' architecture."""
    name = f"{p.digits_data}/{digits_body}/softmax"
    return networks.untrained(name, seed=start)


def copy_of(model: nn.Module, s: int) -> nn.Module:
    """A substitute trained on the model's answers."""
    own_images = digits_test.x[-p.substitute_seed :].to(run.device)
    told = {"rounds": p.substitute_rounds, "epochs": 10, "lr": p.lr, "seed": 1000 + s}
    copy = partial(substitute_model.substitute, cache=run.cache)
    return copy(model, own_images, build, name=f"substitute-{s}", **told).model


def targeted(
    model: nn.Module, stranger: nn.Module, x: Tensor, y: Tensor, eps: float,
    means: Tensor,
) -> Targeted:  # fmt: skip
    """One step towards every other class in turn."""
    z_model = on_z(model)
    found = [
        torch.zeros(len(x), dtype=torch.float64, device=x.device) for _ in range(4)
    ]
    for shift in range(1, K):
        aim = (y + shift) % K
        white, on_scores, black = (
            attacks.fgsm(net, x, aim, eps, targeted=True).x_adv
            for net in (model, z_model, stranger)
        )
        told = {"means": means, "target": aim}
        average = attacks.average_sample(model, x, y, eps, **told).x_adv
        for total, moved in zip(found, (white, on_scores, black, average), strict=True):
            right = training.predict(model, moved).argmax(1) == y
            total += right.double() / (K - 1)
    clean = (training.predict(model, x).argmax(1) == y).double()
    return Targeted(clean, *found)


means_of_classes = attacks.class_means(digits.x, digits.y, K).to(run.device)
x = digits_test.x[: p.table2_images].to(run.device)
y = digits_test.y[: p.table2_images].to(run.device)
table2, agreement = [], []
for head, nets in zip(HEADS, digits_study.nets, strict=True):
    copies = [copy_of(net, s) for net, s in zip(nets, run.seeds, strict=True)]
    told = {"x": x, "y": y, "eps": p.table2_eps, "means": means_of_classes}
    couples = list(zip(nets, copies, strict=True))
    table2.append([run.once(targeted, *couple, **told) for couple in couples])
    answers = [[training.predict(net, x).argmax(1) for net in pair] for pair in couples]
    agreement.append(np.mean([share(own == other) for own, other in answers]))
    print(f"{head.name}: substitute and target agree on {agreement[-1]:.0%}")

# %% name="table-targeted" tags=["hide-input"]
ATTACKS = ("clean", "white", "white_on_z", "black", "average")
own_class = [(y == k).cpu() for k in range(K)]
rows = {}
for attack in ATTACKS:
    for head, runs in zip(HEADS, table2, strict=True):
        found = [getattr(one, attack) for one in runs]
        by_seed = [[one[k].mean() for one in found] for k in own_class]
        rows[attack.replace("_", " "), head.name] = np.nanmean(by_seed, axis=1)
by_class = pd.DataFrame(rows).T.rename_axis(["attack", "head"])
plots.table(
    by_class,
    f"Table 2, here: accuracy by class at epsilon {p.table2_eps:g} (pixels), "
    f"{p.table2_images} images, every other class as target, mean over seeds",
    kind="%",
    digits=0,
)

# %% name="fig-targeted" tags=["hide-input"] mystnb={"image": {"alt": "Accuracy by class under the white-box, white-box on z, black-box and average-sample attacks, for softmax on the left and softRmax on the right."}}
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.3), sharey=True)
for ax, kind in zip(axes, HEADS, strict=True):
    for label, marker in zip(ATTACKS[1:], ("o", "s", "^", "D"), strict=True):
        label = label.replace("_", " ")
        look = {"marker": marker, "markersize": 4, "linewidth": 0.8, "label": label}
        ax.plot(range(K), by_class.loc[(label, kind.name)], **look)
    ax.set(title=kind.name, xlabel="class", xticks=range(K), ylim=(0, 1))
axes[0].set_ylabel("accuracy")
handles = axes[0].get_legend_handles_labels()
figure.legend(*handles, loc="outside right center", fontsize=9)
plt.show()

# %% [markdown]
# Does the *published* table say what its text says, that for softRmax the average-sample attack is the worst of the three and that the black box is weaker than the white box?
# In the means over the ten classes, and class by class.

# %% tags=["nbval-check-output", "hide-input"]
published2 = pd.DataFrame({
    "white": [53.2, 46.73, 54.0, 51.73, 51.84, 52.24, 51.52, 52.88, 54.38, 51.72],
    "black": [74.3, 60.73, 50.42, 58.99, 63.03, 64.52, 52.14, 60.10, 73.04, 68.58],
    "average": [58.13, 63.44, 42.26, 37.77, 47.94, 46.76, 44.56, 45.5, 41.93, 49.67],
})  # the softRmax columns of Table 2, in percent  # fmt: skip
not_worst = published2["average"] > published2.min(axis=1)
below = published2["black"] < published2["white"]
print("average is not the worst for classes", published2.index[not_worst].tolist())
print("black box below white box for", published2.index[below].tolist())
run.claim(
    "wang2022.table2-order",
    **{
        f"published_{attack}": float(published2[attack].mean()) for attack in published2
    },
    classes_where_average_is_not_worst=int(not_worst.sum()),
    classes_with_black_below_white=int(below.sum()),
)

# %% [markdown]
# In the means over classes the text says what the table shows; class by class it has exceptions.

# %% [markdown]
# Average-sample steps of eight sizes without clipping: the share after which $z$ is farther from the origin and from every centre.
# The guarantee is judged by the images and targets for which one of the steps up to 0.5, half of the pixel range, leads there.


# %% tags=["hide-input"]
def into_the_tail(model: nn.Module, eps: float) -> Tensor:
    """Which average-sample steps, without clipping, lead into the tail: images and
    targets."""
    scores, centres, into = on_z(model), torch.eye(K, device=x.device), []
    for shift in range(1, K):
        aim = means_of_classes[(y + shift) % K]
        with torch.no_grad():
            before = scores(x)
            after = scores(x + eps * (aim - means_of_classes[y]).sign())
        farther = torch.cdist(after, centres) > torch.cdist(before, centres)
        into.append((after.norm(dim=1) > before.norm(dim=1)) & farther.all(1))
    return torch.cat(into)


steps = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 10.0, 100.0)
into_by_step = [
    [into_the_tail(net, eps) for net in digits_study.softrmax] for eps in steps
]
small_steps = into_by_step[: steps.index(0.5) + 1]

# %% name="table-tail-share" tags=["hide-input"]
into = pd.DataFrame(
    [[np.mean([share(into) for into in runs]) for runs in into_by_step]],
    columns=pd.Index([f"{eps:g}" for eps in steps], name="epsilon"),
    index=["share into the tail"],
)
plots.table(
    into,
    "Average-sample steps after which z is farther from the origin and every centre",
    kind="%",
    digits=1,
)

# %% tags=["hide-input"]
run.claim(
    "wang2022.eq16-no-tail",
    share_into_tail_at_small_eps=[
        share(torch.stack(runs).any(0)) for runs in zip(*small_steps, strict=True)
    ],
    share_into_tail_at_large_eps=list(map(share, into_by_step[-1])),
)

# %% [markdown]
# "Guaranteed" fails already for steps within the images: past the mean of the target class a step goes on along the same signs, and without clipping $x + \varepsilon d$ leaves every bounded region, and $z$ follows unless the network is blind to $d$.

# %% [markdown]
# ### The magnitude-margin ratio
#
# Equation 17 on a linear classifier, for which it is exact, and on a softRmax network at a small step.


# %% tags=["hide-input"]
def on_logits(model: nn.Module, x: Tensor) -> Tensor:
    """z of images, with gradients."""
    return on_z(model)(x)


def ratio(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """R of the images that are right."""
    x, y = x.to(run.device), y.to(run.device)
    found = evaluation.magnitude_margin_ratio(model, x, y, scores=on_logits).cpu()
    return found[found.isfinite()]


@dataclass(frozen=True)
class SignedStep:
    """Change of z_y - z_j for the clean runner-up j, and Equation 17's prediction."""

    changed: Tensor
    predicted: Tensor

    def error(self) -> Tensor:
        """The prediction's error."""
        return (self.changed - self.predicted).abs()


def after_step(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> SignedStep:
    """The signed step against the margin."""
    z_model = on_z(model)
    rival = z_model(x).detach().scatter(1, y[:, None], -torch.inf).argmax(1)

    def lead(at: Tensor) -> Tensor:
        z = z_model(at)
        return (z.gather(1, y[:, None]) - z.gather(1, rival[:, None]))[:, 0]

    slope = gradient(lead, x)
    predicted = eps * slope.abs().flatten(1).mean(1) * x[0].numel()
    with torch.no_grad():
        return SignedStep(lead(x) - lead(x - eps * slope.sign()), predicted)


weight = torch.randn(K, digits.x[0].numel(), generator=draws(0)) / 10
linear = models.mlp(digits.x.shape[1:], (8,), K)
linear = models.with_head(linear, heads.LinearHead(weight))
linear.body = nn.Flatten()
flat = digits_test.x[:200]
on_linear = after_step(linear, flat, linear(flat).detach().argmax(1), 0.1)
real = after_step(digits_study.softrmax[0], x[:200], y[:200], 0.02)

# %% tags=["hide-input"]
relative = real.error() / real.predicted.abs().clamp_min(1e-9)
run.claim(
    "wang2022.eq17",
    linear_difference=float((on_linear.error() / on_linear.predicted).max()),
    network_median_error_at_eps_002=float(relative.median()),
)

# %% [markdown]
# $\eta = -\varepsilon \operatorname{sign}(\nabla M_z)$ changes the margin $M_z = z_y - z_j$ over the runner-up $j$ by $\varepsilon m n$ for $n$ pixels, exactly if $z$ is linear; how far a network is from that at $\varepsilon = 0.02$ stands in the row, and with it how far $R$ is from a forecast at 0.1.

# %% [markdown]
# A softmax network whose last layer is multiplied by ten.

# %% tags=["hide-input"]
net = digits_study.softmax[0]
larger = heads.LinearHead(10 * net.head.weight, 10 * net.head.bias)
tenfold = models.with_head(net, larger)
right = training.predict(net, x).argmax(1) == y
few_x, few_y = x[right][:200], y[right][:200]
once, ten_times = (attacks.margin(one(few_x).detach(), few_y) for one in (net, tenfold))
changed = net(few_x).argmax(1) != tenfold(few_x).argmax(1)
quotient = ratio(tenfold, few_x, few_y) / ratio(net, few_x, few_y)
run.claim(
    "wang2022.scale-invariant",
    change_of_ratio=float((quotient - 1).abs().max()),
    factor_on_margin=float((ten_times / once).median()),
    changed_predictions=int(changed.sum()),
)

# %% [markdown]
# $R = m / M_z$ says how much of the margin a given small step can take, whatever the unit of $z$.
# The authors' code needs two backward passes over the batch for each sample (`ziqiwangsilvia/attack`, `cifar/ratio.py`, commit 2577c28); the margins of a batch add up, so one backward pass of their sum gives all gradients.

# %% [markdown]
# $R$ on the test images of each data set, all seeds.


# %% tags=["hide-input"]
@dataclass(frozen=True)
class Ratios:
    """R of a study's networks, by head and seed, and the study."""

    study: Study
    softmax: list[Tensor]
    softrmax: list[Tensor]

    def medians(self) -> dict[str, list[float]]:
        """As the claims name them."""
        return {
            f"{head}_median": [paired_bootstrap(np.median, one) for one in found]
            for head, found in (("softrmax", self.softrmax), ("softmax", self.softmax))
        }


ratios = []
for one in studies[1:]:
    images = one.test.x, one.test.y
    ratios.append(
        Ratios(one, *([ratio(net, *images) for net in nets] for nets in one.nets))
    )

# %% name="fig-ratio" tags=["hide-input"] mystnb={"image": {"alt": "Histograms of the magnitude-margin ratio on a logarithmic axis for softmax and softRmax, one panel for each data set."}}
panels = len(ratios)
_, axes = plt.subplots(1, panels, figsize=(4.4 * panels, 3.1), squeeze=False)
for ax, measured in zip(axes[0], ratios, strict=True):
    for kind, sizes in zip(HEADS, (measured.softmax, measured.softrmax), strict=True):
        joined = torch.cat(sizes).clamp(1e-3, 1e1).numpy()
        look = {"color": kind.color, "alpha": 0.6, "label": kind.name}
        ax.hist(joined, bins=np.geomspace(1e-3, 1e1, 49), **look)
    ax.set(xscale="log", xlabel="R = m / M, per unit of [0, 1]")
    ax.set(title=measured.study.title)
axes[0, 0].set_ylabel("correct test images, all seeds")
axes[0, 0].legend()
plt.show()

# %% [markdown]
# ## The second question: what survives?
#
# ### The modern protocol
#
# `support.evaluation.evaluate` on the digits' networks, for the first runs: the softmax network; the softRmax network as it is, with its log-probabilities (*log p*); and the same softRmax network with $z$ as its scores (*z*), where the rows of its own loss are added.


# %% tags=["hide-input"]
def own_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """softRmax's training loss of a classifier whose scores are z, (N,)."""
    log_p = heads.log_softrmax(model(x))
    return functional.nll_loss(log_p, y, reduction="none")


granted = evaluation.BUDGETS[p.name]
budget = replace(
    granted,
    images=p.protocol_images,
    long_images=min(granted.long_images, p.library_images),
    pgd_steps=p.pgd_steps,
    pgd_restarts=p.pgd_restarts,
    targeted_images=p.protocol_images,
    transfer_images=p.protocol_images,
    sweep_images=min(p.protocol_images, 100),
    autoattack_images=p.library_images,
    square_images=p.library_images,
    hard_label_images=p.hard_label_images,
)
x, y = digits_test.x.to(run.device), digits_test.y.to(run.device)
softmax_reports, log_p_reports, z_reports = [], [], []
judged = run.seeds[: p.protocol_seeds]
for s, soft, polynomial in zip(judged, *digits_study.nets, strict=False):
    told = {"x": x, "y": y, "eps": p.protocol_eps, "budget": budget, "seed": s}
    evaluate = partial(evaluation.evaluate, once=run.once, **told)
    softmax_reports.append(evaluate(soft, peer=polynomial))
    log_p_reports.append(evaluate(polynomial, peer=soft))
    z_reports.append(evaluate(on_z(polynomial), peer=soft, loss_own=own_loss))
reports = {
    "softmax": softmax_reports,
    "softRmax, log p": log_p_reports,
    "softRmax, z": z_reports,
}

# %% name="table-protocol" tags=["hide-input"]
plots.table(
    evaluation.compare(reports),
    f"Accuracy under the modern protocol, {p.digits_data}, up to {p.protocol_images} "
    f"images, pixel units, mean over {len(judged)} seed{'s' * (len(judged) > 1)}",
    kind="%",
    digits=1,
    missing="not run",
)

# %% name="table-flags" tags=["hide-input"]
flags = evaluation.compare_flags(reports)
plots.table(flags, "Flags: signs that gradients are masked")

# %% name="fig-protocol" tags=["hide-input"] mystnb={"image": {"alt": "Accuracy under every row of the modern protocol for softmax, softRmax with log-probabilities and softRmax on z, and a panel for each masking flag with the numbers behind it."}}
plots.protocol(reports, eps=p.protocol_eps[-1])
plt.show()

# %% [markdown]
# ### The robustness claims, judged twice
#
# Each row has two verdicts: under the paper's own attacks, and in the worst case over these and the attacks on $z$.


# %% tags=["hide-input"]
def named(unders: list[Under], attacks_named: Sequence[str]) -> dict:
    """Accuracies at both budgets, named as the claims name them; None if not run."""
    values = {}
    for head, place in (("softmax", 0), ("softrmax", 1)):
        for attack in attacks_named:
            for under in unders:
                key = f"{head}_{attack}_{under.printed:g}".replace(".", "")
                values[key] = held(under.runs[place], attack) or None
    return values


not_run = [Under(eps, math.nan, [], []) for eps in EPS]
names = [one.name for one in studies]


def worst(name: str) -> dict:
    """The worst case of a study, as the claims name it."""
    return named(attacked[names.index(name)] if name in names else not_run, ["worst"])


for name in ("mnist37", "mnist", "cifar10", "cifar100"):
    unders = not_run
    if name in names:
        place = names.index(name)
        unders = drifting[place] or attacked[place]
    paper = named(unders, ("fgsm", "bim"))
    run.claim(f"wang2022.table1.{name}", **paper, modern=worst(name))

# %% [markdown]
# FGSM and BIM climb the network's own loss from the image, and there the gap of Table 1 is what they leave to softRmax; the worst case is over all that we ran on the same images, the attacks on $z$ among them.
# For CIFAR the first question is judged by the authors' protocol in normalised units, where a pixel below the mean is pushed up in every step whatever the gradient says, and the second in pixel units.

# %% tags=["hide-input"]
run.claim(
    "wang2022.attention-defences",
    gain_over_attention=None,
    modern={"worst_case_gain_over_attention": None},
)

# %% [markdown]
# The text gives no numbers and no network to compare with, so nothing is judged.

# %% tags=["hide-input"]
run.claim(
    "wang2022.conservative-under-attack",
    softmax_confidence_fgsm=softmax_fgsm_sure,
    softrmax_confidence_fgsm=softrmax_fgsm_sure,
    modern={
        "softmax_confidence_targeted": softmax_targeted_sure,
        "softrmax_confidence_targeted": softrmax_targeted_sure,
    },
)


# %% [markdown]
# FGSM on the own loss is one step along the gradient at the image, and aims at no centre of another class; an attack that aims at one finds errors that the network is sure of, where there are any.


# %% tags=["hide-input"]
def most_steps(runs: list[Iterations], loss: str) -> list[float]:
    """Accuracy under the longest BIM on a loss, by seed."""
    return [getattr(one, loss)[-1] for one in runs]


def last_doubling(runs: list[Iterations]) -> list[float]:
    """What the last increase of the steps took from the accuracy, by seed."""
    return [one.own[-2] - one.own[-1] for one in runs]


small, large = pictures_curves
run.claim(
    "wang2022.fig5",
    softrmax_most_steps_01=most_steps(small.softrmax, "own"),
    softmax_most_steps_01=most_steps(small.softmax, "own"),
    softrmax_most_steps_03=most_steps(large.softrmax, "own"),
    softmax_most_steps_03=most_steps(large.softmax, "own"),
    softrmax_change_of_the_last_doubling_01=last_doubling(small.softrmax),
    modern={
        "softrmax_adaptive_most_steps_01": most_steps(small.softrmax, "both"),
        "softmax_most_steps_01": most_steps(small.softmax, "own"),
        "softrmax_adaptive_most_steps_03": most_steps(large.softrmax, "both"),
        "softmax_most_steps_03": most_steps(large.softmax, "own"),
    },
)


# %% [markdown]
# A curve that has gone flat says that the attack has converged, and not that it has found the errors that there are; one that *rises* with the iterations says that a better search for a high loss finds fewer errors, so that the loss is not the question.


# %% tags=["hide-input"]
def over_classes(runs: list[Targeted], attack: str) -> list[float]:
    """Mean accuracy over all images and targets, by seed."""
    return [mean_over(getattr(one, attack).cpu()) for one in runs]


softmax_table, softrmax_table = table2
run.claim(
    "wang2022.table2",
    softmax_white=over_classes(softmax_table, "white"),
    softmax_black=over_classes(softmax_table, "black"),
    softmax_average=over_classes(softmax_table, "average"),
    softrmax_white=over_classes(softrmax_table, "white"),
    softrmax_black=over_classes(softrmax_table, "black"),
    softrmax_average=over_classes(softrmax_table, "average"),
    modern={
        "softrmax_white_on_z": over_classes(softrmax_table, "white_on_z"),
        "softmax_white": over_classes(softmax_table, "white"),
        "softmax_worst": held(attacked_as_table_2.softmax, "worst"),
        "softrmax_worst": held(attacked_as_table_2.softrmax, "worst"),
    },
)

# %% [markdown]
# For softmax the two white boxes are one attack, and their curves coincide.
# What the black box says hangs on the substitute: it was trained on the target's *answers* by the recipe of {cite:t}`papernot2017`, and the share of images on which the two agree is printed above the table.

# %% tags=["hide-input"]
largest = p.protocol_eps[-1]
ROWS = {
    "own_loss_accuracy": "BIM-100, own loss",
    "z_accuracy": "BIM-100",
    "pgd_on_z_accuracy": "PGD margin",
    "transfer_accuracy": "transfer from peer",
}
found = {
    name: [share(report.robust(row, largest)) for report in z_reports]
    for name, row in ROWS.items()
}
by_loss = zip(found["own_loss_accuracy"], found["z_accuracy"], strict=True)
run.claim(
    "wang2022.no-obfuscation",
    black_box=over_classes(softrmax_table, "black"),
    white_box=over_classes(softrmax_table, "white"),
    change_with_more_steps=last_doubling(digits_curves[-1].softrmax),
    modern={
        "own_loss_minus_z": [own - z for own, z in by_loss],
        **found,
        "pgd_on_own_loss_accuracy": [
            share(report.robust("PGD cross-entropy", largest))
            for report in log_p_reports
        ],
    },
)

# %% [markdown]
# Columns *log p* and *z* are the same function from images to classes, so every difference between them is a difference of attacks.
# An attack needs two things, a set of images that it may reach and a direction in which to look; *log p* and *z* share the first and differ in the second, and inside the column *log p* BIM and PGD share the second and differ in where they start.
# To attack the log-scores is not enough here: the margin of the log-probabilities, $\log(\lVert z - e_j \rVert^2 / \lVert z - e_y \rVert^2)$, shrinks to zero in the tail without changing its sign, so even a margin loss is drawn there.
# The flag *more iterations* can be raised for softmax as well, because BIM has no restarts and may settle above the worst case at a small budget; the *loss gap*, which compares two losses of one classifier, names the cause.

# %% tags=["hide-input"]
medians = {found.study.name: found.medians() for found in ratios}
nothing = {"softrmax_median": None, "softmax_median": None}
run.claim("wang2022.fig6", **medians["mnist"], modern=worst("mnist"))
for name in ("cifar10", "cifar100"):
    found = medians.get(name, nothing)
    run.claim(f"wang2022.fig6.{name}", **found, modern=worst(name))

# %% [markdown]
# A smaller $R$ says that a *small* step takes a smaller part of the margin, and so a larger margin at the clean image; whether it says anything about $\varepsilon = 0.1$ or 0.3 is the second question.

# %% [markdown]
# ## What did not reproduce, and why
#
# What is *refuted* is refuted by exact arithmetic or float64: the weight of one, the margin as the only option, and the average-sample attack's guarantee.
# Three limits hold with a condition that the paper leaves out: a common scale of the t densities, a strict lead for the softmax, a growing $z$ for softRmax.
#
# The conservative tail itself is real, and does what it promises where the question is what a classifier says about points far from all data, and where outliers meet importance weights.
# What the paper adds to it, that the tail makes a network robust, is the tail seen from the attack's side: an ascent of the own loss that sets out from the image is often drawn there and finds no error, where random starts and attacks on $z$ find many.
# The claim on the margin is the other half of the paper's explanation, and the half that an attack on $z$ leaves standing if there is anything in it.
# On images the worst case at the *smaller* budget is its measure, and $R$ a first-order statement at the clean image.
# So read the two budgets of Table 1 apart: whatever advantage softRmax keeps in the worst case at the smaller one may be called a margin, and whatever BIM leaves it at the larger one and the worst case does not, was the tail.
#
# What this chapter does not settle: the paper's own networks and epsilon on MNIST, of which no code exists; the targets and epsilon of Table 2; and the comparison with attention-based defences, for which the text gives no numbers.

# %% tags=["hide-input"]
run.finish()
