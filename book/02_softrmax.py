# %% [markdown]
# # softRmax: polynomial tails
#
# {cite:t}`wang2022` trace the overconfidence of classifiers to exponentials: far from all data, a Gaussian class density, and the softmax that comes from it, is certain.
# They replace the exponentials by polynomials.
# LDA gets Student's t densities, importance weights become harmless for outliers, and the last layer gets *softRmax*, $p_i \propto \lVert z - e_i \rVert^{-2}$, which is uncertain wherever $z$ is far from all unit vectors.
# Their Table 1 adds a second gain: without any adversarial training, softRmax networks withstand FGSM and BIM far better than softmax networks, and "without gradient obfuscation".
#
# There are three reasons to look again.
# The limits are stated too widely: equal tail powers do not make a posterior $1/k$, and a large $x$ is not a large $z$.
# The published numbers on CIFAR come from a protocol whose epsilon is not in pixels and whose BIM leaves its ball.
# And the attacks climb the loss that softRmax bends: its class is simply $\arg\max z$, so an attack can climb a loss on $z$ itself, which the paper never tries.
#
# This chapter re-runs every claim, and then asks the second question with attacks on $z$ and with the protocol that all later chapters use.

# %% tags=["parameters"]
profile: str = "quick"  # quick, standard or paper: which column of data/profiles/02_softrmax.yml
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, for example {"draws": 100}

# %% tags=["hide-input"]
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy import stats
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from sklearn.svm import SVC
from torch.nn import functional

from support import attacks, data, heads, models, plots, protocol, radius, runs, shift, substitute, training

run = runs.start("02_softrmax", profile, seed, device, overrides)
p = run.profile
plots.use_style()
K = 10  # classes of the digits and pictures
EPS = (0.1, 0.3)  # the budgets of Table 1
KINDS = ("softmax", "softRmax")
COLORS = {"softmax": plots.SOFTMAX, "softRmax": plots.GAUSS}

# %% [markdown]
# ## What we check
#
# The table lists the claims, with the numbers that the paper prints; each gets its row where the chapter computes it.
# *Identity* claims are theorems and equations: they hold or fail on any computer.
# *Empirical* claims depend on data and trained networks; *robustness* claims are judged twice, under the paper's protocol and under today's.

# %% tags=["hide-input", "output_scroll"]
run.show_claims()

# %% [markdown]
# ## Tails of class densities
#
# Linear discriminant analysis (LDA) fits one density to each class and applies Bayes' rule with equal priors:
#
# $$p(y_i \mid x) = \frac{p(x \mid y_i)}{\sum_k p(x \mid y_k)} .$$
#
# With Gaussians of a common variance the squares cancel, and the ratio of two densities is the exponential of a linear function of $x$ (Equation 7): far out, one class has everything.
# A Student t density falls off like $s^\nu |x|^{-(\nu+1)}$, a power, and so does the ratio of two: to a constant.
#
# The paper's example has two uniform classes, on $[-2, -1]$ and $[1, 2]$.
# Three lines fit Gaussians with a common standard deviation and apply Bayes' rule.

# %% tags=["nbval-check-output"]
points = np.concatenate([np.linspace(-2, -1, 101), np.linspace(1, 2, 101)])
labels = np.repeat([0, 1], 101)

means = np.array([points[labels == k].mean() for k in (0, 1)])
deviation = math.sqrt(np.square(points - means[labels]).mean())
likelihood = stats.norm.pdf(1.3, means, deviation)
print(f"posterior of class 1 at x = 1.3: {likelihood[1] / likelihood.sum():.4f}")

# %% [markdown]
# The package's version (`support.shift`) works with logarithms of ratios, which stay exact where both densities underflow, and fits t densities by maximum likelihood with scipy.
# We fix $\nu = 1$, the Cauchy density: fitted to small samples of light tails, $\nu$ tends to run away to infinity, where the t density is the Gaussian again.
#
# First the algebra, for three classes at unequal distances: Equation 7 against Bayes' rule, the limit of Gaussians, and three ways to put t densities in their place.
# The first has a common $\nu$ and a common scale; the second a scale for each class; the third is the *noncentral* t of the text, whose class centres are noncentrality parameters.

# %% tags=["nbval-check-output"]
mu, sigma, nu = np.array([-1.0, 0.5, 2.0]), 0.8, 3.0
x = np.linspace(-4, 4, 81)
direct = np.exp(shift.log_posterior(x, [shift.Density(m, sigma) for m in mu]))
eq7 = np.stack([1 / np.exp(-(2 * x[:, None] * (m - mu) - m**2 + mu**2) / (2 * sigma**2)).sum(1) for m in mu], axis=1)

far = np.array([-1e6, 1e6])
gaussian = np.exp(shift.log_posterior(far, [shift.Density(m, sigma) for m in mu]))
common = np.exp(shift.log_posterior(far, [shift.Density(m, sigma, nu) for m in mu]))
scales = np.array([0.5, 1.0, 2.0])
own = np.exp(shift.log_posterior(far, [shift.Density(m, s, nu) for m, s in zip(mu, scales, strict=True)]))
noncentral = stats.nct.pdf(1e3, nu, mu)
print("limit, own scales:      ", own[1].round(3), " s^nu / sum:", (scales**nu / (scales**nu).sum()).round(3))
print("limit, noncentral t:    ", (noncentral / noncentral.sum()).round(3))
print("limit, common nu, scale:", common[1].round(3))

# %% tags=["nbval-check-output"]
run.claim(
    "wang2022.eq5-7",
    closed_form_difference=float(np.abs(direct - eq7).max()),
    gaussian_from_one_hot=float((1 - gaussian.max(1)).max()),
    common_scale_from_uniform=float(np.abs(common - 1 / 3).max()),
    own_scales_from_uniform=round(float(np.abs(own - 1 / 3).max()), 3),
    noncentral_from_uniform=round(float(np.abs(noncentral / noncentral.sum() - 1 / 3).max()), 3),
)

# %% [markdown]
# Equal powers of the tails are not enough; the factors in front must agree as well.
#
# Now Figures 1a and 1b on a random sample of the two uniform classes, and beside them what a scale for each class does.
# The paper does not say that its fits share a scale, but only then do its figures come out on every sample.

# %%
rng = np.random.default_rng(seed)
labels = np.repeat([0, 1], 100)
points = np.concatenate([rng.uniform(-2, -1, 100), rng.uniform(1, 2, 100)])
fits = {
    ("Gaussian", "common scale"): shift.class_densities(points, labels, nu=math.inf),
    ("Gaussian", "own scales"): shift.class_densities(points, labels, nu=math.inf, shared_scale=False),
    ("t, ν = 1", "common scale"): shift.class_densities(points, labels, nu=1.0),
    ("t, ν = 1", "own scales"): shift.class_densities(points, labels, nu=1.0, shared_scale=False),
}


def first_class(x: np.ndarray, densities) -> np.ndarray:
    """Posterior of class 0 at x."""
    return np.exp(shift.log_posterior(x, densities)[:, 0])


# %% tags=["hide-input"] mystnb={"image": {"alt": "Posterior of class 0 against x for Gaussian densities on the left and t densities on the right, with a common scale and with own scales. Gaussian posteriors end at one or zero, t posteriors near one half for a common scale."}}
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.1), sharey=True)
grid = np.linspace(-40, 40, 2001)
for (name, scale), densities in fits.items():
    ax = axes[0 if name == "Gaussian" else 1]
    ax.plot(grid, first_class(grid, densities), "-" if scale == "common scale" else "--", color=plots.SOFTMAX if scale == "common scale" else plots.GAUSS, label=scale)
    ax.set(title=name, xlabel="x")
for ax in axes:
    ax.axhline(0.5, color="grey", linewidth=0.8)
    for low, high in ((-2, -1), (1, 2)):
        ax.axvspan(low, high, color="grey", alpha=0.2, linewidth=0)
axes[0].set(ylabel="posterior of class 0")
axes[0].legend()
plt.show()

# %%
inside = points[labels == 0]
ends = np.array([-1e4, 1e4])
left, right = first_class(ends, fits["Gaussian", "common scale"])
run.claim("wang2022.fig1a", left_tail=float(left), right_tail=float(right), **dict(zip(("left_tail_own_scales", "right_tail_own_scales"), map(float, first_class(ends, fits["Gaussian", "own scales"])), strict=True)))
left, right = first_class(ends, fits["t, ν = 1", "common scale"])
run.claim("wang2022.fig1b", bulk=float(first_class(inside, fits["t, ν = 1", "common scale"]).min()), left_tail=float(left), right_tail=float(right))

# %% [markdown]
# With a variance for each class the Gaussian posterior is certain in both tails and names the same class on both sides, whichever happened to have the wider sample.
# The grey bands are the two classes.
# The t posterior needs a long way to come near one half: a ratio of powers forgets the classes slowly.
#
# ## Softmax is a posterior of Gaussians
#
# A softmax of linear scores has the form of Equation 7 (Equation 8).
# The paper adds that along a direction in which the score of class $i$ does not lead, its posterior tends to 0.
# Two cases are missing: the lead can be shared, and a direction may not move the scores apart at all.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
w, b = torch.randn(3, 5, dtype=torch.float64, generator=generator), torch.randn(3, dtype=torch.float64, generator=generator)
x = torch.randn(200, 5, dtype=torch.float64, generator=generator)
softmax = (x @ w.T + b).softmax(1)
eq8 = torch.stack([1 / ((x @ (w - w[i]).T + (b - b[i])).exp().sum(1)) for i in range(3)], 1)

differences = w - w.mean(0)
leading = torch.linalg.lstsq(differences, torch.tensor([2.0, -1.0, -1.0], dtype=torch.float64), driver="gelsd").solution
tied = torch.linalg.lstsq(differences, torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64), driver="gelsd").solution
far = {name: (1e4 * d @ w.T + b).softmax(0) for name, d in (("leads", leading), ("tied", tied))}
print({name: value.numpy().round(4).tolist() for name, value in far.items()})
run.claim(
    "wang2022.eq8",
    closed_form_difference=float((softmax - eq8).abs().max()),
    leading_from_one=float(1 - far["leads"][0]),
    tied_from_one_hot=round(float(torch.minimum(far["tied"], 1 - far["tied"]).max()), 4),
)

# %% [markdown]
# For the score vector $z$ itself, softmax is the posterior of unit Gaussians at the basis vectors $e_1, \dots, e_k$ (Equation 11), since $\lVert z - e_i \rVert^2 = \lVert z \rVert^2 - 2 z_i + 1$ differs between the classes only by $-2 z_i$.

# %% tags=["nbval-check-output"]
z = 3 * torch.randn(500, K, dtype=torch.float64, generator=generator)
e = torch.eye(K, dtype=torch.float64)
gaussian = torch.distributions.MultivariateNormal(torch.zeros(K, dtype=torch.float64), e)
densities = torch.stack([gaussian.log_prob(z - e[i]) for i in range(K)], 1)
run.claim("wang2022.eq11", difference=float((densities.softmax(1) - z.softmax(1)).abs().max()))

# %% [markdown]
# ## softRmax
#
# Replace the Gaussian $\exp(-\tfrac12 \lVert z - e_i \rVert^2)$ by the polynomial $\lVert z - e_i \rVert^{-2}$:
#
# $$p_i = \frac{\lVert z - e_i \rVert^{-2}}{\sum_k \lVert z - e_k \rVert^{-2}} .$$
#
# Three lines, and they already break at a centre, where the authors' code has $\infty / \infty$ too:

# %% tags=["nbval-check-output"]
inverse = 1 / torch.cdist(torch.stack([e[0], e[0] + 0.1, 5 * e[3]]), e).square()
print((inverse / inverse.sum(1, keepdim=True))[:, :4].numpy().round(3))

# %% [markdown]
# The package computes the logarithm, from the identity
#
# $$\log p = \operatorname{log\,softmax}\left(-\log \lVert z - e_1 \rVert^2, \dots, -\log \lVert z - e_k \rVert^2\right),$$
#
# in a form that subtracts no two large numbers: with $m = \arg\max z$, every distance is $\lVert z - e_i \rVert^2 = \lVert z - e_m \rVert^2 + 2 (z_m - z_i)$.
# This also shows at once that **the class is the argmax of $z$**: the nearest unit vector belongs to the largest entry.
#
# What is finite at a centre depends on the object.
# The *probabilities* are smooth everywhere, also at the centres.
# The *log-probability* of a class is finite at its own centre (it is 0, with gradient 0), and minus infinity at the centre of any other class.
# The *score* $-\log \lVert z - e_i \rVert^2$ is plus infinity at its own centre.
# A network of this book returns the log-probabilities.

# %% tags=["nbval-check-output"]
at = e.clone().requires_grad_()
log_p = heads.log_softrmax(at)
own = torch.autograd.grad(log_p.diagonal().sum(), at, retain_graph=True)[0]
at_probability = e.clone().requires_grad_()
through = torch.autograd.grad(heads.softrmax(at_probability).diagonal().sum(), at_probability)[0]
print("own log-probabilities at the centres:", log_p.diagonal().detach().unique().tolist(), "gradient:", float(own.abs().max()))
print("log-probabilities of the others:     ", log_p[~e.bool()].detach().unique().tolist())
print("gradient of the own probability:     ", float(through.abs().max()))

# %% [markdown]
# Is softRmax a posterior of densities?
# Its values are positive and sum to one.
# But $\lVert z \rVert^{-2}$ has no finite integral over $\mathbb{R}^k$: a shell of radius $r$ contributes $r^{k-3}\,dr$, which diverges towards the centre for $k \leq 2$ and towards infinity for $k \geq 2$.
# The last entry of the row is the mass between radius 10 and 100 over that between 1 and 10, for $k = 2$; for a density it would have to fall.

# %% tags=["nbval-check-output"]
by_distances = (-torch.cdist(z, e).square().log()).softmax(1)
decade = [float(np.trapezoid(r ** (2 - 3) * r, np.log(r))) for r in (np.geomspace(1, 10, 201), np.geomspace(10, 100, 201))]
run.claim(
    "wang2022.eq12",
    difference_from_softmax_of_log_distances=float((heads.softrmax(z) - by_distances).abs().max()),
    sum_minus_one=float((heads.softrmax(z).sum(1) - 1).abs().max()),
    mass_of_a_decade_over_the_one_inside=round(decade[1] / decade[0], 6),
)

# %% [markdown]
# ### The tail
#
# As $\lVert z \rVert$ grows, all distances grow alike, and $p$ tends to $1/k$, at the speed of $1 / \lVert z \rVert$.
# Equation 13 says this of $\lVert x \rVert$.
# But a last layer of $d$ features and $k < d$ classes has null directions, along which $z$ does not move at all: chapter 3 is about them.

# %% tags=["nbval-check-output"]
w, b = torch.randn(K, 64, dtype=torch.float64, generator=generator), torch.zeros(K, dtype=torch.float64)
x = torch.linalg.lstsq(w, e[:1].T, driver="gelsd").solution.T  # mapped onto the centre of class 0
null = torch.linalg.svd(w).Vh[K:]  # 54 directions that the layer does not see
along = heads.softrmax((x + 1e6 * null[:1]) @ w.T + b)
outward = heads.softrmax(1e6 * functional.normalize(z, dim=1))
run.claim("wang2022.eq13", from_uniform_far_in_z=float((outward - 1 / K).abs().max()), from_uniform_along_null_direction=round(float((along - 1 / K).abs().max()), 3))

# %% [markdown]
# At a distance of a million, the network is as certain as at the centre.
#
# Equation 14 is the chain rule; we use it to check the gradients of the package in float64, against central differences, on points from near a centre to far out in the tail.

# %% tags=["nbval-check-output"]
start = torch.cat([e[:3] + 0.05 * z[:3], z[3:20], 30 * z[20:30]])


def gradient(function, at: torch.Tensor) -> torch.Tensor:
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at).sum(), at)[0]


errors = []
for i in range(K):
    def one(at, i=i):
        return heads.log_softrmax(at)[:, i]

    differences = torch.stack([(one(start + 1e-6 * e[j]) - one(start - 1e-6 * e[j])) / 2e-6 for j in range(K)], 1)
    errors.append(float(((gradient(one, start) - differences).abs() / (1 + differences.abs())).max()))
x = torch.randn(20, 64, dtype=torch.float64, generator=generator) / 8
through_x = gradient(lambda x: heads.softrmax(x @ w.T + b)[:, 0], x)
through_z = gradient(lambda z: heads.softrmax(z)[:, 0], x @ w.T + b) @ w
run.claim("wang2022.eq14", finite_difference_error=max(errors), chain_rule_error=float((through_x - through_z).abs().max()))

# %% [markdown]
# ### Figure 1c
#
# Logistic regression in one dimension, classes uniform on $[-1, 0]$ and $[1, 2]$: $z = w x + b \in \mathbb{R}^2$, trained by plain gradient descent, followed by softmax or softRmax.

# %%
log_probability = {"softmax": lambda z: z.log_softmax(-1), "softRmax": heads.log_softrmax}
labels_1d = torch.arange(2).repeat_interleave(100)
points_1d = torch.as_tensor(np.concatenate([rng.uniform(-1, 0, 100), rng.uniform(1, 2, 100)]))[:, None]


def descend(kind: str, x: torch.Tensor, y: torch.Tensor, *, steps: int, lr: float, start: torch.Tensor, record=None) -> torch.Tensor:
    """Full-batch gradient descent on the mean loss of linear scores; x (S, n, d) and y (S, n) hold S problems at once, weights (S, d + 1, K)."""
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    weights = start.clone().requires_grad_()
    for step in range(1, steps + 1):
        log_p = log_probability[kind]((x @ weights).flatten(0, 1)).unflatten(0, y.shape)
        loss = -log_p.gather(-1, y[..., None]).mean((1, 2)).sum()
        with torch.no_grad():
            weights -= lr * torch.autograd.grad(loss, weights)[0]
        if record is not None:
            record(step, weights.detach())
    return weights.detach()


line = {kind: descend(kind, points_1d[None], labels_1d[None], steps=3000, lr=0.5, start=torch.zeros(1, 2, 2, dtype=torch.float64) + 0.01 * torch.eye(2))[0] for kind in KINDS}


def posterior_1d(kind: str, x: torch.Tensor) -> torch.Tensor:
    return log_probability[kind](torch.stack([x, torch.ones_like(x)], 1) @ line[kind])[:, 0].exp()


# %% tags=["hide-input"] mystnb={"image": {"alt": "Posterior of class 0 against x for softmax and softRmax logistic regression: softmax ends at one and zero, softRmax rises within the classes and returns towards one half on both sides."}}
figure, ax = plt.subplots(figsize=(5.8, 3.1))
grid = torch.linspace(-20, 21, 2001, dtype=torch.float64)
for kind in KINDS:
    ax.plot(grid, posterior_1d(kind, grid), color=COLORS[kind], linestyle="-" if kind == "softmax" else "--", label=kind)
ax.axhline(0.5, color="grey", linewidth=0.8)
for low, high in ((-1, 0), (1, 2)):
    ax.axvspan(low, high, color="grey", alpha=0.2, linewidth=0)
ax.set(xlabel="x", ylabel="posterior of class 0")
ax.legend()
plt.show()

# %%
ends = torch.tensor([-1e4, 1e4], dtype=torch.float64)
tails = {kind: torch.maximum(q := posterior_1d(kind, ends), 1 - q) for kind in KINDS}
bulk = posterior_1d("softRmax", points_1d[:, 0])
run.claim("wang2022.fig1c", softmax_confidence_in_tails=float(tails["softmax"].min()), softrmax_confidence_in_tails=float(tails["softRmax"].mean()), softrmax_bulk=float(torch.where(labels_1d == 0, bulk, 1 - bulk).mean()))

# %% [markdown]
# ### Does the loss rise towards the tail?
#
# The paper says that under softRmax the loss increases monotonically towards the tail, so that an attack is right to go there.
# We walk along straight rays from the origin and watch the loss of one class.

# %% mystnb={"image": {"alt": "Loss of class 0 against the norm of z along three rays: towards the own centre it falls to zero at norm one and rises to log k, towards another centre it peaks at norm one and falls to log k, along a mixed direction it changes little."}}
length = torch.linspace(0.0, 8.0, 1601, dtype=torch.float64)[1:]
rays = {"towards the own centre": e[0], "towards another centre": e[1], "between the two": functional.normalize(e[0] + e[1], dim=0), "away from the own centre": -e[0]}
losses = {name: -heads.log_softrmax(length[:, None] * ray)[:, 0] for name, ray in rays.items()}
figure, ax = plt.subplots(figsize=(6.2, 3.3))
for (name, loss), color, style in zip(losses.items(), plots.PALETTE, ("-", "--", "-.", ":"), strict=False):
    ax.plot(length, loss, style, color=color, label=name)
ax.axhline(math.log(K), color="grey", linewidth=0.8)
ax.set(xlabel=r"$\Vert z \Vert$ along the ray", ylabel=r"loss $-\log p_0$ (grey: $\log k$)", ylim=(0, 6))
ax.legend(fontsize=8)
plt.show()

# %% tags=["nbval-check-output"]
random_rays = functional.normalize(torch.randn(1000, K, dtype=torch.float64, generator=generator), dim=1)
along = -heads.log_softrmax((length[:, None, None] * random_rays).flatten(0, 1))[:, 0].unflatten(0, (len(length), -1))
falls = (along.diff(dim=0) < -1e-12).any(0)
correct = (random_rays.argmax(1) == 0).expand(len(length), -1)
run.claim("wang2022.loss-monotone", rays_with_a_decrease=int(falls.sum()) + sum(bool((loss.diff() < -1e-12).any()) for loss in losses.values()), correct_points_above_log_k=int((along[correct] > math.log(K) + 1e-9).sum()))

# %% [markdown]
# Two facts matter for what follows.
# A point that is classified correctly has $p_y \geq 1/k$, so its loss is at most $\log k$, the grey line, and the tail is where that maximum lies.
# A misclassified point has a larger loss nearby, on the other side of a boundary.
# An ascent from a correct point can therefore end in the tail, at a maximum among the correct points that is no error.
#
# ## Covariate shift: a lottery
#
# The setting is that of {cite:t}`sugiyama2007`: the function is $\operatorname{sinc}(x) = \sin(\pi x) / (\pi x)$, source points are drawn from $N(1.1, (1/2)^2)$, target points from $N(2.1, (10/17)^2)$, and a regression on the source is weighted by
#
# $$w(x) = \left(\frac{p_T(x)}{p_S(x)}\right)^{\lambda}$$
#
# so that it fits where the target lies.
# After both densities are fitted, five outliers from $[-5, -4]$ join the source.
#
# The text leaves out the regressor, the values of $\lambda$, the noise of the outliers and $\nu$.
# Our assumptions: a straight line, as in the original work (`degree`); $\lambda$ from 0 to 1 (`lambdas`); outliers on the curve with the same noise; $\nu \in \{1, 3\}$, or fitted.
#
# "With the use of a t-distribution, a weight of 1 is obtained": the limit is $(s_T / s_S)^{\nu \lambda}$.
# Far out in the tail we compare with the true scales of the experiment, for $\nu = 3$ and $\lambda = 1$.

# %% tags=["nbval-check-output"]
source, target = shift.Density(1.1, 1 / 2, 3.0), shift.Density(2.1, 10 / 17, 3.0)
limit = float(shift.importance_weights([-1e9], target, source, 1.0)[0])
print(f"(s_T / s_S)^nu = {((10 / 17) / (1 / 2)) ** 3:.4f}, weight far out {limit:.4f}, weight at -4.5: {shift.importance_weights([-4.5], target, source, 1.0)[0]:.3f}")
run.claim("wang2022.weight-one", limit_minus_one=round(limit - 1, 4))

# %% [markdown]
# Now many draws of the whole experiment.
# For each we note how much of the total weight the five outliers hold, and the error of the fit against the noise-free function under the target density.

# %%
DENSITIES = {"Gaussian": math.inf, "t, ν = 1": 1.0, "t, ν = 3": 3.0, "t, ν fitted": None}
queries = stats.norm.ppf((np.arange(400) + 0.5) / 400, 2.1, 10 / 17)  # quantiles of the target


def one_draw(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """For each family of densities and each lambda: the outliers' share of the weight, the error with and without them; and the fitted nu."""
    x_source, x_target, x_out = rng.normal(1.1, 0.5, 150), rng.normal(2.1, 10 / 17, 100), rng.uniform(-5, -4, 5)
    x = np.concatenate([x_source, x_out])
    y = np.sinc(x) + rng.normal(0, 0.25, len(x))
    result = np.empty((len(DENSITIES), len(p.lambdas), 3))
    fitted = []
    for i, nu in enumerate(DENSITIES.values()):
        source, target = shift.fit_density(x_source, nu=nu), shift.fit_density(x_target, nu=nu)
        fitted.append(source.nu)
        for j, lam in enumerate(p.lambdas):
            weights = shift.importance_weights(x, target, source, lam)
            error = [np.square(shift.weighted_fit(x[:n], y[:n], weights[:n], p.degree).predict(queries[:, None]) - np.sinc(queries)).mean() for n in (155, 150)]
            result[i, j] = weights[150:].sum() / weights.sum(), *error
    return {"result": result, "nu": np.array(fitted)}


def all_draws() -> dict[str, np.ndarray]:
    found = [one_draw(np.random.default_rng([seed, i])) for i in range(p.draws)]
    return {name: np.stack([draw[name] for draw in found]) for name in found[0]}


lottery = run.unit("covariate-shift", {"draws": p.draws, "lambdas": p.lambdas, "degree": p.degree, "seed": seed}, all_draws, code=[one_draw, shift])
outlier_share, error, error_without = (lottery["result"][..., i].numpy() for i in range(3))  # (draws, densities, lambdas)
print(f"fitted nu of the source is infinite, that is, Gaussian, in {float(lottery['nu'][:, -1].isinf().double().mean()):.0%} of {p.draws} draws")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: sorted share of the total weight held by five outliers over all draws, for four density families; Gaussian and fitted nu run from zero to one, fixed nu stays near zero. Right: error against lambda, median and range, for the same families."}}
figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.5))
for i, (name, color, style) in enumerate(zip(DENSITIES, plots.PALETTE, ("-", "--", "-.", ":"), strict=False)):
    axes[0].plot(np.linspace(0, 1, p.draws), np.sort(outlier_share[:, i, -1]), style, color=color, label=name)
    low, middle, high = np.quantile(error[:, i], [0.1, 0.5, 0.9], axis=0)
    place = np.array(p.lambdas) + 0.012 * (i - 1.5)
    axes[1].errorbar(place, middle, [middle - low, high - middle], fmt=style, marker="o", markersize=4, color=color, capsize=2)
axes[0].set(xlabel="draws, sorted", ylabel=rf"outliers' share of the weight, $\lambda$ = {p.lambdas[-1]:g}", ylim=(-0.02, 1.02))
axes[1].set(xlabel=r"$\lambda$", ylabel="mean squared error on the target", yscale="log", title="median and 10 to 90 % of the draws", )
axes[0].legend()
plt.show()

# %% tags=["hide-input"]
table = pd.DataFrame(
    [
        {"densities": name, "λ": lam, "outliers' weight, mean": outlier_share[:, i, j].mean(), "draws they dominate": (outlier_share[:, i, j] > 0.5).mean(), "error, median": np.median(error[:, i, j]), "error, mean": error[:, i, j].mean(), "error, worst tenth from": np.quantile(error[:, i, j], 0.9), "median without outliers": np.median(error_without[:, i, j])}
        for i, name in enumerate(DENSITIES) for j, lam in enumerate(p.lambdas)
    ]
).set_index(["densities", "λ"])
display(table.style.format("{:.3f}").set_caption(f"Figure 3 over {p.draws} draws"))

# %% [markdown]
# The sorted curve on the left is the whole story: for Gaussian weights the outliers hold almost nothing in one part of the draws and almost everything in another.
# Which of the two fitted standard deviations happens to be larger, and by how much, is then raised to the power of the squared distance.
# With the true densities nothing of the kind happens, as the first number of the next row says.
# Fitting $\nu$ does not help, because the likelihood of a sample from a Gaussian often has its maximum at $\nu = \infty$.

# %%
names = list(DENSITIES)
true_weight = float(shift.importance_weights(np.linspace(-5, -4, 101), shift.Density(2.1, 10 / 17), shift.Density(1.1, 1 / 2), 1.0).max())
gauss, student = names.index("Gaussian"), names.index("t, ν = 3")
run.claim("wang2022.extreme-weights", outlier_weight_true_densities=true_weight, share_of_draws_dominated=float((outlier_share[:, gauss, -1] > 0.5).mean()))
overfits = error[:, gauss, -1] > 2 * error_without[:, gauss, -1]  # with outliers at least twice the error without
run.claim(
    "wang2022.fig3",
    error_gaussian=error[:, gauss, -1].tolist(), error_t=error[:, student, -1].tolist(),
    outlier_weight_share_t=outlier_share[:, student, -1].tolist(),
    share_of_draws_gaussian_overfits=float(overfits.mean()),
)

# %% [markdown]
# ## Margins
#
# Section 3.2.2 argues that softRmax enlarges the margin: since $\lVert z \rVert \approx 1$ bounds the weights, the loss cannot fall by making the posterior steeper, and enlarging the margin is the only option left.
# Under softmax, it says, posteriors saturate and the boundary stops moving.
#
# For softmax there is a theorem.
#
# ```{prf:theorem} Gradient descent on separable data
# :label: thm-soudry
#
# On linearly separable points, gradient descent on the softmax cross-entropy of a linear classifier converges in direction to the maximum-margin separator, at the speed of $1 / \log t$ {cite:p}`soudry2018`.
# ```
#
# A speed of $1 / \log t$ looks like a standstill on an axis of epochs, and like a slope on a logarithmic one.
# We train on separable points of the plane, some of which lie near the boundary, by full-batch gradient descent, for both heads, and measure the margin after each step: the smallest distance of a training point to the boundary, negative if it lies on the wrong side.
# The dashed line is the maximum margin, from a support vector machine.

# %%
def separable(s: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two separable blobs of 30 points, and three points of class 1 near the boundary that tilt it."""
    rng = np.random.default_rng(s)
    left, right = rng.uniform([-2.2, -1.0], [-1.0, 1.0], (30, 2)), rng.uniform([1.0, -1.0], [2.2, 1.0], (30, 2))
    near = rng.uniform([-0.6, 1.2], [0.0, 1.6], (3, 2))
    return torch.as_tensor(np.concatenate([left, right, near])), torch.tensor([0] * 30 + [1] * 33)


def line_margin(weights: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Least signed distance of the points to the line where both scores agree, (S,)."""
    normal = weights[:, :, 1] - weights[:, :, 0]
    signed = (torch.cat([x, torch.ones_like(x[..., :1])], -1) @ normal[:, :, None])[..., 0] * (2 * y - 1)
    return (signed / normal[:, :2].norm(dim=1, keepdim=True)).amin(1)


blobs = [separable(s) for s in run.seeds]
blob_x, blob_y = (torch.stack(part) for part in zip(*blobs, strict=True))
best_line = []
for x, y in blobs:
    machine = SVC(kernel="linear", C=1e6).fit(x.numpy(), y.numpy())
    best_line.append(1 / float(np.linalg.norm(machine.coef_)))
marks = np.unique(np.geomspace(1, p.linear_steps, 120).astype(int))


def line_history(kind: str) -> dict[str, torch.Tensor]:
    """Weights of the linear classifiers at the marked steps, (marks, S, 3, 2)."""
    kept = []
    generator = torch.Generator().manual_seed(seed)
    start = 0.1 * torch.randn(len(run.seeds), 3, 2, dtype=torch.float64, generator=generator)
    wanted = set(marks.tolist())
    descend(kind, blob_x, blob_y, steps=p.linear_steps, lr=0.1, start=start, record=lambda step, weights: kept.append(weights.clone()) if step in wanted else None)
    return {"weights": torch.stack(kept)}


history = {kind: run.unit(f"margin-linear-{kind}", {"kind": kind, "steps": p.linear_steps, "seeds": run.seeds}, lambda kind=kind: line_history(kind), code=[line_history, descend, separable, heads])["weights"] for kind in KINDS}
line_margins = {kind: torch.stack([line_margin(weights, blob_x, blob_y) for weights in history[kind]], 1) for kind in KINDS}  # (S, marks)


def line_slope(kind: str, weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Steepest change of the posterior across the boundary, (S,): the largest norm of its gradient at the points' feet on the line."""
    normal = weights[:, :, 1] - weights[:, :, 0]
    signed = (torch.cat([x, torch.ones_like(x[..., :1])], -1) @ normal[:, :, None])[..., 0] / normal[:, :2].square().sum(1, keepdim=True)
    feet = x - signed[..., None] * normal[:, None, :2]

    def posterior(at):
        z = torch.cat([at, torch.ones_like(at[..., :1])], -1) @ weights
        return log_probability[kind](z.flatten(0, 1))[:, 1].exp()

    return gradient(posterior, feet).norm(dim=-1).amax(1)


line_slopes = {kind: torch.stack([line_slope(kind, weights, blob_x) for weights in history[kind]], 1) for kind in KINDS}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Six panels: bands of the posterior over two classes of points in the plane after few, some and all epochs, softmax above and softRmax below; softmax bands become narrow, softRmax bands stay wide."}}
def bands(ax, posterior, x, y, limits) -> None:
    """Posterior of class 1 as bands, with the points."""
    a, b = (np.linspace(*limit, 161) for limit in limits)
    grid = torch.as_tensor(np.stack(np.meshgrid(a, b), -1).reshape(-1, 2))
    ax.contourf(a, b, posterior(grid).reshape(161, 161), levels=np.linspace(0, 1, 11), cmap="RdBu_r", alpha=0.75)
    ax.scatter(*x.T, c=[plots.SOFTMAX if label == 0 else plots.GAUSS for label in y], s=9, edgecolors="black", linewidths=0.4)
    ax.set(xticks=[], yticks=[])


shown = [int(np.searchsorted(marks, step)) for step in (min(30, p.linear_steps), min(300, p.linear_steps), p.linear_steps)]
figure, axes = plt.subplots(2, 3, figsize=(8.6, 4.6))
for row, kind in enumerate(KINDS):
    for ax, index in zip(axes[row], shown, strict=True):
        weights = history[kind][index][0]
        bands(ax, lambda grid, kind=kind, weights=weights: log_probability[kind](torch.cat([grid, torch.ones_like(grid[:, :1])], 1) @ weights)[:, 1].exp(), *blobs[0], ((-3, 3), (-1.8, 2.2)))
        ax.set_title(f"{kind}, epoch {marks[index]}", fontsize=9)
plt.show()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: margin of the linear classifiers against epochs on a logarithmic axis, with the maximum margin as a dashed line. Right: steepness of the posterior at the boundary against epochs."}}
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.2))
for kind in KINDS:
    style = "-" if kind == "softmax" else "--"
    plots.band(axes[0], marks, line_margins[kind], label=kind, color=COLORS[kind], style=style, marker="")
    plots.band(axes[1], marks, line_slopes[kind], label=kind, color=COLORS[kind], style=style, marker="")
axes[0].axhline(np.mean(best_line), color="black", linestyle=(0, (1, 3)), label="maximum margin")
axes[0].set(xscale="log", xlabel="epoch", ylabel="margin, mean and range over draws", ylim=(-0.3, None))
axes[1].set(xscale="log", yscale="log", xlabel="epoch", ylabel="slope of the posterior at the boundary")
axes[0].legend()
plt.show()

# %%
def first_separated(margins: torch.Tensor) -> list[float]:
    """The margin at the first marked step at which all points are classified correctly; NaN if there is none."""
    return [float(row[(row > 0).nonzero()[0, 0]]) if bool((row > 0).any()) else math.nan for row in margins]


run.claim(
    "wang2022.fig2-linear",
    softrmax_margin_first=first_separated(line_margins["softRmax"]), softrmax_margin_last=line_margins["softRmax"][:, -1].tolist(),
    softmax_margin_first=first_separated(line_margins["softmax"]), softmax_margin_last=line_margins["softmax"][:, -1].tolist(),
    softmax_slope_last=line_slopes["softmax"][:, -1].tolist(), softrmax_slope_last=line_slopes["softRmax"][:, -1].tolist(),
    maximum_margin=best_line,
)
late = int(np.searchsorted(marks, p.linear_steps // 30))
closed = [(end - then) / (top - then) for then, end, top in zip(line_margins["softmax"][:, late].tolist(), line_margins["softmax"][:, -1].tolist(), best_line, strict=True)]
run.claim("wang2022.softmax-stuck", share_of_missing_margin_closed_later=closed, steps_seen_as_later=float(p.linear_steps - marks[late]))

# %% [markdown]
# The right panel agrees with the paper: the softmax posterior becomes steeper without end, that of softRmax settles.
# The left one agrees only in part: the softmax margin goes on growing where the paper sees it stand still.
#
# ### Is the margin the only option left?
#
# Take a line with a hundred points of class 0 at $t = 0$, a hundred of class 1 at $t = 1$, and one point of class 0 at $t = 0.6$.
# Any threshold between 0.6 and 1 separates them.
# For two classes, softRmax loss at a given margin $g = z_y - z_{\text{other}}$ is smallest for $z$ on the line through both centres, where it is $\log(1 + (1-g)^2 / (1+g)^2)$.
# So the global optimum over all affine $z(t)$ is a problem in two numbers, $g(t) = a + b t$, and a fine grid solves it.

# %% tags=["nbval-check-output"]
t, sign, count = np.array([0.0, 1.0, 0.6]), np.array([-1.0, 1.0, -1.0]), np.array([100, 100, 1])
a, b = np.meshgrid(np.linspace(-2, 1, 601), np.linspace(0.005, 4, 800), indexing="ij")
g = sign * (a[..., None] + b[..., None] * t)
with np.errstate(divide="ignore"):
    total = (count * np.log1p(np.square(1 - g) / np.square(1 + g))).sum(-1)
separates = (g > 0).all(-1)
best = np.unravel_index(total.argmin(), total.shape)
threshold = -a[best] / b[best]
machine = SVC(kernel="linear", C=1e6).fit(np.repeat(t, count)[:, None], np.repeat(sign, count))
print(f"best loss {total[best]:.3f} at threshold {threshold:.3f}; best loss that separates {total[separates].min():.3f}; maximum margin {1 / abs(machine.coef_[0, 0]):.3f}")
run.claim("wang2022.margin-only-option", misclassified_at_softrmax_optimum=int((g[best] <= 0).sum()), margin_at_softrmax_optimum=round(float((sign * (t - threshold)).min()), 3))

# %% [markdown]
# The optimum of the softRmax loss puts both crowds on their centres and gives the single point up, because being wrong costs a bounded price and leaving a centre costs each of the many points something.
# This is a kind of robustness too, against outliers, and the opposite of a maximum margin.
#
# ### The moons
#
# The same with a network (two hidden layers of 32) on two moons.
# The margin is measured on the boundary itself, which we trace on a fine grid.
# No boundary can have a larger margin than half the distance between the two nearest points of different classes; the dashed line shows it.

# %%
AXES = (torch.linspace(-1.8, 2.8, 231), torch.linspace(-1.3, 1.8, 156))
MOON_GRID = torch.cartesian_prod(*AXES)


def traced(values: torch.Tensor) -> np.ndarray:
    """Points where values on the grid (231, 156) change sign between neighbours, by linear interpolation, (B, 2)."""
    found = []
    for axis in (0, 1):
        here, there = (values[:-1], values[1:]) if axis == 0 else (values[:, :-1], values[:, 1:])
        i, j = torch.nonzero((here > 0) != (there > 0), as_tuple=True)
        step = (here[i, j] / (here[i, j] - there[i, j])) * (AXES[axis][1] - AXES[axis][0])
        found.append(torch.stack([AXES[0][i] + (step if axis == 0 else 0), AXES[1][j] + (step if axis == 1 else 0)], 1))
    return torch.cat(found).numpy()


moon_marks = np.unique(np.geomspace(5, p.moons_steps, 40).astype(int))


def moon_history(kind: str, s: int) -> dict[str, torch.Tensor]:
    """Margin, slope at the boundary and scores on the grid at the marked steps of one training."""
    x, y = data.moons(120, seed=s)
    net = models.mlp((1, 1, 2), (32, 32), 2, seed=s)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    margins, slopes, kept, wanted = [], [], [], set(moon_marks.tolist())

    def scores(at):
        return net(at[:, None, None])

    for step in range(1, p.moons_steps + 1):
        loss = -log_probability[kind](scores(x)).gather(1, y[:, None]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step in wanted:
            with torch.no_grad():
                z = scores(MOON_GRID)
                right = (scores(x).argmax(1) == y).numpy()
            boundary = traced((z[:, 1] - z[:, 0]).reshape(len(AXES[0]), -1))
            distance = cKDTree(boundary).query(x.numpy())[0] if len(boundary) else np.full(len(x), np.nan)
            margins.append(float(np.where(right, distance, -distance).min()))
            near = torch.as_tensor(boundary).float()
            slopes.append(float(gradient(lambda at: log_probability[kind](scores(at))[:, 1].exp(), near).norm(dim=1).median()) if len(near) else math.nan)
            kept.append(log_probability[kind](z)[:, 1].exp())
    few = [0, len(kept) // 2, len(kept) - 1]
    return {"margins": torch.tensor(margins), "slopes": torch.tensor(slopes), "posterior": torch.stack([kept[i] for i in few])}


moons = {(kind, s): run.unit(f"margin-moons-{kind}-{s}", {"kind": kind, "seed": s, "steps": p.moons_steps}, lambda kind=kind, s=s: moon_history(kind, s), code=[moon_history, traced, data, heads, models]) for kind in KINDS for s in run.seeds}
possible = [float(cdist(x[y == 0], x[y == 1]).min()) / 2 for x, y in (data.moons(120, seed=s) for s in run.seeds)]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Six panels: bands of the posterior over two moons early, in the middle and at the end of training, softmax above and softRmax below."}}
figure, axes = plt.subplots(2, 3, figsize=(8.6, 4.2))
x, y = data.moons(120, seed=seed)
for row, kind in enumerate(KINDS):
    for column, ax in enumerate(axes[row]):
        ax.contourf(*AXES, moons[kind, seed]["posterior"][column].reshape(len(AXES[0]), -1).T, levels=np.linspace(0, 1, 11), cmap="RdBu_r", alpha=0.75)
        ax.scatter(*x.T, c=[plots.SOFTMAX if label == 0 else plots.GAUSS for label in y], s=7, edgecolors="black", linewidths=0.3)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{kind}, epoch {moon_marks[[0, len(moon_marks) // 2, -1][column]]}", fontsize=9)
plt.show()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: measured margin on the moons against epochs for both heads, with half the smallest distance between classes as a dashed line. Right: median slope of the posterior on the boundary against epochs."}}
moon_margins = {kind: torch.stack([moons[kind, s]["margins"] for s in run.seeds]) for kind in KINDS}
moon_slopes = {kind: torch.stack([moons[kind, s]["slopes"] for s in run.seeds]) for kind in KINDS}
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.2))
for kind in KINDS:
    style = "-" if kind == "softmax" else "--"
    plots.band(axes[0], moon_marks, moon_margins[kind], label=kind, color=COLORS[kind], style=style, marker="")
    plots.band(axes[1], moon_marks, moon_slopes[kind], label=kind, color=COLORS[kind], style=style, marker="")
axes[0].axhline(np.mean(possible), color="black", linestyle=(0, (1, 3)), label="no margin is larger")
axes[0].set(xscale="log", xlabel="epoch", ylabel="margin, mean and range over seeds", ylim=(-0.3, None))
axes[1].set(xscale="log", yscale="log", xlabel="epoch", ylabel="slope of the posterior at the boundary")
axes[0].legend()
plt.show()

# %%
run.claim(
    "wang2022.fig2-moons",
    softrmax_margin_first=first_separated(moon_margins["softRmax"]), softrmax_margin_last=moon_margins["softRmax"][:, -1].tolist(),
    softmax_margin_first=first_separated(moon_margins["softmax"]), softmax_margin_last=moon_margins["softmax"][:, -1].tolist(),
    softmax_slope_last=moon_slopes["softmax"][:, -1].tolist(), softrmax_slope_last=moon_slopes["softRmax"][:, -1].tolist(),
    largest_possible=possible,
)
