# %% [markdown]
# # Exercises: softRmax: polynomial tails

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # the exercises have this profile only
seed: int = 0
device: str = "cpu"
overrides: dict = {}

# %% tags=["hide-input"]
import math

import numpy as np
import torch
from scipy import optimize

from support import distribution_shift
from support.book import chapter_run

run = chapter_run.start("02_softrmax/exercises", profile, seed, device, overrides)

# %% [markdown]
# ```{exercise-start} The other finite objects
# :label: ex-softrmax-centre
# ```
# The score $-\log \lVert z - e_i \rVert^2$ is infinite at its own centre.
# Add a constant $\delta > 0$ to every squared distance, $p_i \propto 1 / (\lVert z - e_i \rVert^2 + \delta)$.
# Which of the objects (score, log-probability, probability) become finite everywhere, is the class still $\arg\max z$, and what happens to the tail?
# Is the largest possible confidence still 1?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-softrmax-centre
# :class: dropdown
# ```
# All three are finite and smooth everywhere.
# The order of the distances does not change, so the class is still $\arg\max z$, and the ratio of any two terms still tends to one, so the tail is still $1/k$.
# But at a centre the confidence is $\frac{1/\delta}{1/\delta + (k-1)/(2+\delta)} < 1$.
# Nor is the centre the most confident point any more: a step of length $t$ away from all other centres raises their squared distances by $2 c t$ to first order, $c = \sqrt{k/(k-1)}$, and the own one by $t^2$ only.
# The ratio $1 + (2 + 2 c t) / (t^2 + \delta)$ of the two is largest at $t = (\sqrt{1 + c^2 \delta} - 1) / c$, where it is $1 + c / t$.
# So the confidence has a ceiling of $1 / (1 + (k-1)\,t / (t + c))$, and a training loss of zero is out of reach.


# %%
def smoothed(z: torch.Tensor, delta: float) -> torch.Tensor:
    """Probabilities (N, k) of points z (N, k)."""
    squares = torch.cdist(z, torch.eye(z.shape[1], dtype=z.dtype)).square()
    return (-(squares + delta).log()).softmax(1)


def negative_confidence(z, delta):
    return -float(smoothed(torch.tensor(z)[None], delta)[0, 0])


# %% tags=["nbval-check-output"]
K = 10
e = torch.eye(K, dtype=torch.float64)
c = math.sqrt(K / (K - 1))
for delta in (1e-3, 0.1, 1.0):
    most = optimize.minimize(negative_confidence, e[0].numpy(), args=(delta,), tol=1e-9)
    t = (math.sqrt(1 + c**2 * delta) - 1) / c
    ceiling = 1 / (1 + (K - 1) * t / (t + c))
    print(
        f"delta = {delta:g}: at a centre {float(smoothed(e, delta).max()):.4f}, "
        f"found at most {-most.fun:.4f}, formula {ceiling:.4f}, "
        f"tail {float(smoothed(1e6 * e, delta).max()):.4f}"
    )

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Any weight you like
# :label: ex-softrmax-weight
# ```
# The limit of a t weight is $(s_T / s_S)^{\nu\lambda}$.
# For the scales of the experiment, which $\nu$ gives outliers a weight of 10 in the limit, and at what distance from the data is half of that reached?
# What does this say about "choosing a heavy tail"?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-softrmax-weight
# :class: dropdown
# ```
# $\nu = \log 10 / \log(20/17) \approx 14$ for $\lambda = 1$.
# The larger $\nu$, the farther out the limit is approached, and the nearer the densities are to Gaussians, whose weight has no limit at all: heavy tails are not a switch but a scale, and a small $\nu$ buys safety with weights that hardly adapt (the effective sample size, `support.distribution_shift.effective_sample_size`, shows it).

# %% tags=["nbval-check-output"]
nu = math.log(10) / math.log(20 / 17)
s, t = (
    distribution_shift.Density(1.1, 0.5, nu),
    distribution_shift.Density(2.1, 10 / 17, nu),
)
reach = np.linspace(-200, 0, 200_001)
weights = distribution_shift.importance_weights(reach, t, s, 1.0)
print(f"nu = {nu:.2f}; half the limit is passed at x = {reach[weights > 5].max():.1f}")

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise} Break a saturated evaluation
# :label: ex-softrmax-saturated
#
# Multiply the weight and bias of a softmax network's last layer by 100 and evaluate it with BIM on the plain cross-entropy, passed as a callable loss, with `attacks.bim` and its named loss `"ce"`, and with `support.evaluation.evaluate`.
# The classes do not change at all.
# Which rows believe in the new robustness, which flags are raised, and why does the named loss not fall for it?
# ```
#
# ```{exercise} A fair rival
# :label: ex-softrmax-rival
#
# Part of what softRmax gains at the small budget may be the regularisation of $\lVert z \rVert$.
# Train the softmax network of this chapter with an extra loss $\mu (\lVert z \rVert - 1)^2$, choose $\mu$ such that both heads have the same median magnitude-margin ratio $R$, and compare the worst cases.
# ```
#
# ```{exercise} Null directions
# :label: ex-softrmax-null
#
# Take a trained softRmax network of this chapter and a test image that it classifies with confidence above 0.9.
# Move its *features* along a null direction of the last layer to a distance of $10^6$, and check that the posterior stands still.
# Then ask whether an image has such features (chapter 3 is about this question).
# ```

# %% [markdown]
# ## Exercises with tests
#
# The exercises below stand alone: they need the next cells and nothing else.
# Each folded solution holds a derivation, the code, and the tests that it passes.

# %% tags=["assignment", "hide-input"]
import math
from fractions import Fraction

import numpy as np
import torch
from scipy import stats


# %% tags=["assignment"]
def climb(scores, loss, x, y, eps, steps=40):
    """Signed gradient steps that raise loss(scores(x), y), (N,), and stay within eps
    of x in every coordinate.
    """
    at = x
    for _ in range(steps):
        at = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(scores(at), y).sum(), at)
        at = torch.clamp(at + eps / 8 * slope.sign(), x - eps, x + eps)
    return at.detach()


# %% tags=["assignment-parameters", "hide-input"]
SEED = 0  # the tests draw their numbers from it

# %% [markdown] exercise="pole"
# ```{exercise-start} softRmax at a centre
# :label: ex-softrmax-pole
# ```
# softRmax turns $z \in \mathbb{R}^k$ into the probabilities
#
# $$p_i = \frac{\lVert z - e_i \rVert^{-2}}{\sum_j \lVert z - e_j \rVert^{-2}}$$
#
# with the unit vectors $e_1, \dots, e_k$.
# At $z = e_i$ the formula is infinity over infinity.
# The probabilities themselves have no pole: show that they, and their gradients, are finite everywhere, and find their values at $e_i$.
#
# Write `softrmax_everywhere(z)` with PyTorch for `z` of shape `(N, k)` in float64, with any $k$ up to 20.
# It returns the probabilities, shape `(N, k)`, through which gradients can be taken.
#
# The tests look at the centres, at points as near as $10^{-7}$ to a centre, where the *small* probabilities must be right to six digits, and at gradients.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="pole"
# ```{solution-start} ex-softrmax-pole
# :class: dropdown
# ```
# Multiply numerator and denominator by the product of all squared distances $d_j = \lVert z - e_j \rVert^2$:
#
# $$p_i = \frac{\prod_{j \neq i} d_j}{\sum_l \prod_{j \neq l} d_j} .$$
#
# Both are polynomials in $z$, and the denominator is never zero, because two distances cannot vanish at once.
# At $e_i$ only one of the products is left, so $p = e_i$, and since $p_i \leq 1$ is largest there, its gradient is zero.
#
# Two repairs that suggest themselves are not enough.
# A constant added to the distances keeps everything finite, but is a different function near the centre.
# And `torch.where(d == 0, 1, 1 / d)` has the right values and no gradient: the branch that is not taken has an infinite slope, and zero times infinity is not a number.


# %% tags=["solution"] exercise="pole"
def softrmax_everywhere(z):
    """softRmax probabilities (N, k), finite like their gradients for every z (N, k)."""
    ### BEGIN SOLUTION
    k = z.shape[1]
    one = torch.eye(k, dtype=z.dtype)
    d = (z[:, None] - one).square().sum(2)
    others = d[:, None].expand(-1, k, k).masked_fill(one.bool(), 1.0).prod(2)
    return others / others.sum(1, keepdim=True)
    ### END SOLUTION


# %% tags=["tests"] exercise="pole" points=1
point = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
found = softrmax_everywhere(point)
assert found.shape == (2, 3), "one probability for each class"
assert torch.allclose(found[0], torch.full((3,), 1 / 3, dtype=torch.float64)), (
    "the origin is equally far from all centres"
)
assert torch.allclose(found[1], torch.tensor([10, 2, 2], dtype=torch.float64) / 14), (
    "squared distances 1, 5, 5 have inverses 1, 0.2, 0.2: distances are squared"
)
centres = torch.eye(4, dtype=torch.float64)
assert torch.allclose(softrmax_everywhere(centres), centres, atol=1e-9), (
    "at a centre its class has probability 1"
)

# %% tags=["hidden-tests"] exercise="pole" points=2
# Criterion: gradients are finite at the centres, and right everywhere else
generator = torch.Generator().manual_seed(SEED)
for k in (2, 5, 12):
    at = torch.cat(
        [
            torch.eye(k, dtype=torch.float64),
            torch.randn(5, k, dtype=torch.float64, generator=generator),
        ]
    ).requires_grad_()
    slopes = torch.stack(
        [
            torch.autograd.grad(softrmax_everywhere(at)[:, i].sum(), at)[0]
            for i in range(k)
        ],
        1,
    )
    assert bool(torch.isfinite(slopes).all()), "a gradient is infinite or not a number"
    assert float(slopes[:k].abs().max()) < 1e-9, "at a centre all gradients are zero"
    inverse = at.detach()[k:].clone().requires_grad_()
    plain = 1 / (inverse[:, None] - torch.eye(k, dtype=torch.float64)).square().sum(2)
    expected = torch.autograd.grad((plain[:, 0] / plain.sum(1)).sum(), inverse)[0]
    assert torch.allclose(slopes[k:, 0], expected, rtol=1e-6, atol=1e-9), (
        "away from the centres the gradient is that of the formula"
    )

# %% tags=["hidden-tests"] exercise="pole" points=1
# Criterion: small probabilities keep their digits very close to a centre
generator = torch.Generator().manual_seed(SEED + 1)
for distance in (1e-2, 1e-4, 1e-7):
    near = torch.eye(6, dtype=torch.float64) + distance * torch.randn(
        6, 6, dtype=torch.float64, generator=generator
    )
    for row, found in zip(
        near.tolist(), softrmax_everywhere(near).tolist(), strict=True
    ):
        inverse = [
            1 / sum((Fraction(entry) - (i == j)) ** 2 for j, entry in enumerate(row))
            for i in range(6)
        ]
        for got, exact in zip(found, inverse, strict=True):
            assert math.isclose(got, float(exact / sum(inverse)), rel_tol=1e-6), (
                f"a small probability is wrong at a distance of about {distance}"
            )

# %% [markdown] tags=["solution-text"] exercise="pole"
# ```{solution-end}
# ```

# %% [markdown] exercise="lead"
# ```{exercise-start} Who leads, far out
# :label: ex-softrmax-lead
# ```
# With $p_i \propto \lVert z - e_i \rVert^{-2}$ and $m = \arg\max_i z_i$, the *log-lead* over class $i$ is $\log p_m - \log p_i = \log \lVert z - e_i \rVert^2 - \log \lVert z - e_m \rVert^2$.
# In the tail all distances are nearly the same, and the lead is tiny, but it is never negative, and zero only for $z_i = z_m$.
# An attack that follows a difference of log-scores needs its digits.
#
# Find a form of the log-lead in which no two nearly equal numbers are subtracted, and which overflows nowhere.
#
# Write `log_lead(z)` with NumPy for `z` of shape `(N, k)` in float64 with entries up to $10^{200}$ in absolute value.
# It returns the log-leads, shape `(N, k)`, to nine digits; at a centre they are 0 for its class and infinity for the others.
#
# The tests compare with exact rational arithmetic.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="lead"
# ```{solution-start} ex-softrmax-lead
# :class: dropdown
# ```
# $\lVert z - e_i \rVert^2 = \lVert z \rVert^2 - 2 z_i + 1$ for every $i$, so $\lVert z - e_i \rVert^2 = D + 2 (z_m - z_i)$ with $D = \lVert z - e_m \rVert^2$, and the log-lead is
#
# $$\log\left(1 + \frac{2 (z_m - z_i)}{D}\right) .$$
#
# The gap $z_m - z_i$ is a single subtraction, exact to rounding.
# `log1p` keeps the digits of a small quotient, where `log(1 + q)` is zero from $q < 10^{-16}$ on.
# $D$ overflows from $10^{154}$ on, and the quotient does not if $z$ is divided by its largest entry first.
# The sign of the lead shows that the class is $\arg\max z$ however far out $z$ lies.


# %% tags=["solution"] exercise="lead"
def log_lead(z):
    """log p_m - log p_i (N, k) for softRmax and m = argmax z, to nine digits for any z
    (N, k) up to 1e200.
    """
    ### BEGIN SOLUTION
    rows, m = np.arange(len(z)), z.argmax(1)
    gap = z[rows, m][:, None] - z
    away = z.copy()
    away[rows, m] -= 1
    size = np.abs(away).max(1, keepdims=True)
    size[size == 0] = 1
    nearest = size * ((away / size) ** 2).sum(1, keepdims=True)  # D / size
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log1p(np.where(gap == 0, 0.0, 2 * (gap / size) / nearest))
    ### END SOLUTION


# %% tags=["tests"] exercise="lead" points=1
rng = np.random.default_rng([SEED, 10])
z = 3 * rng.standard_normal((50, 6))
d = ((z[:, None] - np.eye(6)) ** 2).sum(2)
found = log_lead(z.copy())
assert found.shape == (50, 6), "one lead for each class"
assert (found >= 0).all(), "nobody is ahead of the leading class"
assert np.allclose(
    found, np.log(d) - np.log(d.min(1, keepdims=True)), rtol=1e-9, atol=1e-12
), "not the log of the ratio of squared distances"

# %% tags=["hidden-tests"] exercise="lead" points=2
# Criterion: the lead is exact to rounding, for entries of any size
rng = np.random.default_rng([SEED, 11])
for size in (1.0, 1e3, 1e8, 1e17, 1e80, 1e160, 1e200):
    z = size * rng.uniform(-1, 1, (8, 5))
    with np.errstate(over="raise", invalid="raise"):
        found = log_lead(z.copy())
    for row, leads in zip(z.tolist(), found.tolist(), strict=True):
        m = max(range(5), key=row.__getitem__)
        nearest = sum((Fraction(entry) - (j == m)) ** 2 for j, entry in enumerate(row))
        for i in range(5):
            exact = math.log1p(
                float(2 * (Fraction(row[m]) - Fraction(row[i])) / nearest)
            )
            assert math.isclose(leads[i], exact, rel_tol=1e-9), (
                f"the lead is wrong for entries of size {size:g}"
            )

# %% tags=["hidden-tests"] exercise="lead" points=1
# Criterion: a centre leads by infinity, and close to a centre no digits are lost
found = log_lead(np.eye(4))
assert np.array_equal(np.diag(found), np.zeros(4)), (
    "a centre's own class leads itself by nothing"
)
assert np.isinf(found[~np.eye(4, dtype=bool)]).all(), (
    "at a centre the lead over the other classes is infinite"
)
near = np.eye(3)[:1] + np.array([[1e-8, -2e-8, 1e-8]])
exact = [
    float(
        sum(
            (Fraction(entry) - (i == j)) ** 2
            for j, entry in enumerate(near[0].tolist())
        )
    )
    for i in range(3)
]
assert np.allclose(
    log_lead(near.copy())[0, 1:], np.log(exact[1:]) - np.log(exact[0]), rtol=1e-9
), "the lead is wrong near a centre"
assert np.array_equal(log_lead(np.full((1, 3), 7e150)), np.zeros((1, 3))), (
    "equal entries are level"
)

# %% [markdown] tags=["solution-text"] exercise="lead"
# ```{solution-end}
# ```

# %% [markdown] exercise="limit"
# ```{exercise-start} Where the posterior ends
# :label: ex-softrmax-limit
# ```
# Class $i$ has prior $\pi_i$ and a Student t density with centre $\mu_i$, scale $s_i > 0$ and $\nu_i$ degrees of freedom,
#
# $$p(x \mid i) = \frac{C(\nu_i)}{s_i} \left(1 + \frac{(x - \mu_i)^2}{\nu_i s_i^2}\right)^{-(\nu_i + 1)/2} ,$$
#
# where $C$ depends on $\nu$ only; $\nu_i = \infty$ stands for a Gaussian with standard deviation $s_i$.
# "Far from the data, the posterior tends to $1/k$."
# Under which conditions?
# Derive the limit of the posterior $p(i \mid x)$ for $|x| \to \infty$.
#
# Write `posterior_far_out(scales, nus, priors)` with NumPy for three arrays of shape `(k,)`, where at least one entry of `nus` is finite.
# It returns the limit, shape `(k,)`.
#
# The tests compare with the posterior at a very large $x$.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="limit"
# ```{solution-start} ex-softrmax-limit
# :class: dropdown
# ```
# For large $|x|$ the density behaves like $C(\nu)\, \nu^{(\nu+1)/2}\, s^\nu\, |x|^{-(\nu+1)}$.
# The smallest $\nu$ has the heaviest tail, so only the classes with $\nu_i = \nu_{\min}$ are left, and a Gaussian never is.
# Among these the factors that depend on $\nu$ cancel, and the limit is $\pi_i s_i^\nu / \sum_j \pi_j s_j^\nu$.
# It is $1/k$ only for a common $\nu$, common scales and equal priors.


# %% tags=["solution"] exercise="limit"
def posterior_far_out(scales, nus, priors):
    """Limit (k,) of the posterior of k t densities as |x| grows."""
    ### BEGIN SOLUTION
    heaviest = nus == nus.min()
    logarithm = np.where(heaviest, np.log(priors) + nus.min() * np.log(scales), -np.inf)
    limit = np.exp(logarithm - logarithm.max())
    return limit / limit.sum()
    ### END SOLUTION


# %% tags=["tests"] exercise="limit" points=1
found = posterior_far_out(np.ones(4), np.full(4, 2.0), np.full(4, 0.25))
assert np.allclose(found, 0.25), "everything equal: 1/k"
found = posterior_far_out(
    np.array([1.0, 2.0]), np.array([3.0, 3.0]), np.array([0.5, 0.5])
)
assert np.allclose(found, [1 / 9, 8 / 9]), (
    "a scale twice as large is 2^nu times as likely far out"
)

# %% tags=["hidden-tests"] exercise="limit" points=2
# Criterion: degrees of freedom that differ: the limit is that of the heaviest tail
rng = np.random.default_rng([SEED, 20])
for _ in range(10):
    scales, nus, centres = (
        rng.uniform(0.5, 3, 6),
        rng.choice([1.5, 3.0, 7.0], 6),
        rng.normal(0, 5, 6),
    )
    logarithm = stats.t.logpdf(1e60, nus, centres, scales)
    direct = np.exp(logarithm - logarithm.max())
    found = posterior_far_out(scales, nus, np.full(6, 1 / 6))
    assert np.allclose(found, direct / direct.sum(), atol=1e-6), (
        "different degrees of freedom: which tail is the heaviest?"
    )

# %% tags=["hidden-tests"] exercise="limit" points=1
# Criterion: priors, Gaussian classes and the unit of the scales are treated rightly
rng = np.random.default_rng([SEED, 21])
scales, priors = rng.uniform(0.5, 3, 5), rng.dirichlet(3 * np.ones(5))
logarithm = np.log(priors) + stats.t.logpdf(-1e40, 2.5, rng.normal(size=5), scales)
direct = np.exp(logarithm - logarithm.max())
assert np.allclose(
    posterior_far_out(scales, np.full(5, 2.5), priors), direct / direct.sum(), atol=1e-6
), "the priors do not cancel"
mixed = posterior_far_out(
    np.array([9.0, 1.0, 2.0]), np.array([np.inf, 4.0, 4.0]), np.array([0.8, 0.1, 0.1])
)
assert np.allclose(mixed, [0, 1 / 17, 16 / 17]), (
    "a Gaussian has the lightest tail of all"
)
large = posterior_far_out(
    np.array([2e8, 1e8]), np.array([50.0, 50.0]), np.array([0.5, 0.5])
)
assert np.allclose(large[1], 2.0**-50, rtol=1e-6, atol=0), (
    "the limit does not depend on the unit of the scales"
)

# %% [markdown] tags=["solution-text"] exercise="limit"
# ```{solution-end}
# ```

# %% [markdown] exercise="weight"
# ```{exercise-start} The largest weight
# :label: ex-softrmax-largest-weight
# ```
# Under covariate shift a source point $x$ is weighted by $w(x) = \left(p_T(x) / p_S(x)\right)^\lambda$ with $0 < \lambda \leq 1$.
# Let both densities be Student t with the same $\nu$, with centres $\mu_T, \mu_S$ and scales $s_T, s_S$,
#
# $$p(x) \propto \frac{1}{s} \left(1 + \frac{(x - \mu)^2}{\nu s^2}\right)^{-(\nu + 1)/2} .$$
#
# Unlike the weight of two Gaussians, $w$ is bounded.
# Derive its least upper bound over all real $x$.
# Where is it attained: at the centre of the target, far out, or elsewhere?
# A ratio of two quadratic polynomials is a ratio of two quadratic forms in $(x, 1)$, and $x \to \infty$ is the vector $(1, 0)$.
#
# Write `largest_weight(target, source, nu, lam)`, where `target` and `source` are pairs `(centre, scale)`.
# It returns the bound, a number.
#
# The tests search for a larger weight and for points that come close to the bound, in several units.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="weight"
# ```{solution-start} ex-softrmax-largest-weight
# :class: dropdown
# ```
# With $u = (x - \mu_T) / (\sqrt\nu\, s_T)$, $\delta = (\mu_S - \mu_T) / (\sqrt\nu\, s_T)$ and $\rho = s_S / s_T$,
#
# $$\frac{p_T}{p_S} = \rho^{-\nu} R^{(\nu+1)/2}, \qquad R = \frac{\rho^2 + (u - \delta)^2}{1 + u^2} .$$
#
# $R$ is the Rayleigh quotient of the matrix $\begin{pmatrix} 1 & -\delta \\ -\delta & \rho^2 + \delta^2 \end{pmatrix}$ at the vector $(u, 1)$, so its least upper bound is the larger eigenvalue.
# The limit for $x \to \infty$ is $R = 1$, the weight $(s_T / s_S)^{\nu \lambda}$: a special vector, and the largest weight only if $\delta = 0$ and $\rho \leq 1$.
# As a rule the largest weight lies on the side of the target that is turned away from the source.


# %% tags=["solution"] exercise="weight"
def largest_weight(target, source, nu, lam):
    """Least upper bound of (p_T / p_S)^lam for t densities (centre, scale) with nu
    degrees of freedom.
    """
    ### BEGIN SOLUTION
    delta = (source[0] - target[0]) / (math.sqrt(nu) * target[1])
    rho = source[1] / target[1]
    r = np.linalg.eigvalsh([[1, -delta], [-delta, rho**2 + delta**2]])[1]
    return float((r ** ((nu + 1) / 2) / rho**nu) ** lam)
    ### END SOLUTION


# %% tags=["tests"] exercise="weight" points=1
assert np.isclose(largest_weight((0.0, 1.0), (0.0, 2.0), 3.0, 1.0), 2.0), (
    "a common centre and a wider source: the weight is largest at the centre"
)
assert np.isclose(largest_weight((0.0, 2.0), (0.0, 1.0), 3.0, 1.0), 8.0), (
    "a common centre and a wider target: the weight grows towards its limit (2 / 1)^3"
)
assert np.isclose(largest_weight((0.0, 2.0), (0.0, 1.0), 3.0, 0.5), math.sqrt(8.0)), (
    "lam flattens the weight"
)

# %% tags=["hidden-tests"] exercise="weight" points=3
# Criterion: no point has a larger weight, some point comes near it, in any unit
rng = np.random.default_rng([SEED, 30])
quantiles = np.tan(np.linspace(-math.pi / 2, math.pi / 2, 20_001)[1:-1])
for unit in (1.0, 1e-6, 1e6):
    for _ in range(3):
        (m_t, m_s), (s_t, s_s) = (
            unit * rng.normal(0, 2, 2),
            unit * rng.uniform(0.4, 2, 2),
        )
        nu, lam = rng.uniform(1, 6), rng.uniform(0.2, 1)
        found = largest_weight((m_t, s_t), (m_s, s_s), nu, lam)
        x = m_t + s_t * quantiles
        searched = np.exp(
            lam * (stats.t.logpdf(x, nu, m_t, s_t) - stats.t.logpdf(x, nu, m_s, s_s))
        ).max()
        assert searched <= found * (1 + 1e-9), "some point has a larger weight"
        assert searched >= found * (1 - 1e-5), (
            "no point comes near this weight: the bound is not the least one"
        )

# %% [markdown] tags=["solution-text"] exercise="weight"
# ```{solution-end}
# ```

# %% [markdown] exercise="ascent"
# ```{exercise-start} Climb what the class depends on
# :label: ex-softrmax-ascent
# ```
# A classifier has class scores $z(x)$ and predicts $\arg\max z$.
# Its authors report its robustness under an attack that climbs $-\log p_y$ with the softRmax probabilities $p_i \propto \lVert z - e_i \rVert^{-2}$.
# Many points withstand it.
# But the class depends on $z$ alone, and you may climb whatever you like.
#
# `climb(scores, loss, x, y, eps)`, given above, takes signed gradient steps: `scores` maps points `(N, n)` to $z$ `(N, k)`, `loss(z, y)` returns `(N,)`, and the result stays within `eps` of `x` in every coordinate.
#
# Write `strongest(scores, x, y, eps)`, which returns one point for each row of `x`, shape `(N, n)`, within `eps` of it, and misclassified wherever you can find such a point.
# It may call `climb` several times.
#
# The test classifiers have $z = W x + b$, where the points that *can* be misled are known exactly: those with $z_y - z_l < \varepsilon \lVert w_y - w_l \rVert_1$ for some class $l$ (why?).
# All of them must fall: with two classes and with more, and with scores a thousand times as large, in float32.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="ascent"
# ```{solution-start} ex-softrmax-ascent
# :class: dropdown
# ```
# Within $\varepsilon$ of $x$ in every coordinate, the lead $z_y - z_l$ of a linear classifier can be lowered by $\varepsilon \lVert w_y - w_l \rVert_1$ and no more, by a step of $\varepsilon$ against the sign of $w_y - w_l$.
# So the loss $z_l - z_y$, whose gradient is the constant $w_l - w_y$, finds the error towards class $l$ if there is one.
#
# The largest of these losses, the margin, follows the runner-up of the moment and can end beside a rival farther off that could have been reached: one ascent for each rival is needed.
# Cross-entropy on $z$ does nearly as well as long as $p_y$ is not rounded to 1; from there on its gradient is zero.
# And $-\log p_y$ of softRmax leads to where *all* classes are far from $z$, a maximum beside the boundary.


# %% tags=["solution"] exercise="ascent"
def strongest(scores, x, y, eps):
    """One point (N, n) within eps of each row of x, misclassified wherever the search
    finds such a point.
    """
    ### BEGIN SOLUTION
    best = x.clone()

    def towards(rival):
        return lambda z, y: z[:, rival] - z.gather(1, y[:, None])[:, 0]

    for rival in range(scores(x).shape[1]):
        found = climb(scores, towards(rival), x, y, eps)
        fallen = scores(found).argmax(1) != y
        best[fallen] = found[fallen]
    return best
    ### END SOLUTION


# %% tags=["tests"] exercise="ascent" points=2
generator = torch.Generator().manual_seed(SEED)
w, b = (
    3 * torch.randn(2, 6, dtype=torch.float64, generator=generator),
    torch.randn(2, dtype=torch.float64, generator=generator),
)
x = torch.randn(300, 6, dtype=torch.float64, generator=generator)
y = (x @ w.T + b).argmax(1)
lead = (x @ w.T + b).gather(1, y[:, None])[:, 0] - (x @ w.T + b).gather(
    1, 1 - y[:, None]
)[:, 0]
reachable = lead < 0.3 * (w[0] - w[1]).abs().sum() - 1e-6
moved = strongest(lambda at: at @ w.T + b, x, y, 0.3)
assert moved.shape == x.shape, "one point for each point"
assert float((moved - x).abs().max()) <= 0.3 + 1e-9, (
    "a point has moved by more than eps"
)
fallen = (moved @ w.T + b).argmax(1) != y
assert bool(fallen[reachable].all()), (
    f"{int((reachable & ~fallen).sum())} of {int(reachable.sum())} "
    "points withstand although they can be misled"
)

# %% tags=["hidden-tests"] exercise="ascent" points=2
# Criterion: every point that can be misled is, with many classes and at any size of
# scores
generator = torch.Generator().manual_seed(SEED + 1)
for size in (1.0, 1e3):
    w, b = (
        size * torch.randn(10, 3, generator=generator),
        size * torch.randn(10, generator=generator),
    )
    x = torch.randn(400, 3, generator=generator)
    z = x @ w.T + b
    y = z.argmax(1)
    slack = 0.4 * (w[y][:, None] - w).abs().sum(2) - (z.gather(1, y[:, None]) - z)
    reachable = (slack > 1e-3 * size).any(1)

    def scores_of(at):
        return at @ w.T + b  # noqa: B023  called before w and b change

    moved = strongest(scores_of, x, y, 0.4)
    assert float((moved - x).abs().max()) <= 0.4 + 1e-6, (
        "a point has moved by more than eps"
    )
    missed = reachable & ((moved @ w.T + b).argmax(1) == y)
    assert not bool(missed.any()), (
        f"{int(missed.sum())} of {int(reachable.sum())} points withstand "
        f"although they can be misled, at scores of size {size:g}"
    )

# %% tags=["hidden-tests"] exercise="ascent" points=1
# Criterion: the attack also succeeds where probabilities are saturated
generator = torch.Generator().manual_seed(SEED + 2)
w, b = 1e3 * torch.randn(2, 5, generator=generator), torch.zeros(2)
x = torch.randn(300, 5, generator=generator)
y = (x @ w.T).argmax(1)
lead = (x @ (w[0] - w[1])).abs()
reachable = lead < 0.3 * (w[0] - w[1]).abs().sum() - 1
fallen = (strongest(lambda at: at @ w.T + b, x, y, 0.3) @ w.T).argmax(1) != y
assert bool(fallen[reachable].all()), (
    "a probability of one has no gradient left: with scores in "
    "the thousands some points seem robust"
)

# %% [markdown] tags=["solution-text"] exercise="ascent"
# ```{solution-end}
# ```

# %% [markdown] exercise="inward"
# ```{exercise-start} Round inward
# :label: ex-softrmax-inward
# ```
# An adversarial image must lie within $\varepsilon$ of the clean one in every pixel, and in $[0, 1]$.
# Images are float32, and $\varepsilon$ (say 8/255) is not a float32 number: clipping to `x - eps` and `x + eps` in float32 leaves some of the pixels at the bound outside it, by a rounding error.
# Shrinking $\varepsilon$ a little keeps the bound and gives away some of it.
#
# Write `keep_inside(x_adv, x, eps)` with NumPy for float32 arrays of one shape, `x` in $[0, 1]$, and a float `eps`.
# It returns float32: where `x_adv` is allowed, `x_adv` itself; elsewhere the allowed float32 number that is nearest to it.
# Allowed is a number $a$ in $[0, 1]$ with $|a - x| \leq \varepsilon$ when the difference is taken in float64.
# `numpy.nextafter(a, b)` is the float32 number next to `a` on the way to `b`.
#
# The tests ask for the bound without any tolerance, and that the next float32 number outward is not allowed.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="inward"
# ```{solution-start} ex-softrmax-inward
# :class: dropdown
# ```
# The ends of the interval are computed in float64, where $x$ and $\varepsilon$ are exact, and rounded to float32; where the rounding has led out of the interval, the next number inward is taken.
# One step is enough, because the rounded end is the nearest float32 number to the true one.
# The interval is computed once from the clean image and never from an iterate: an attack that clips to a ball about its last iterate can drift away by as much as it likes.


# %% tags=["solution"] exercise="inward"
def keep_inside(x_adv, x, eps):
    """x_adv, or where needed the nearest float32 within eps of x and in [0, 1]."""
    ### BEGIN SOLUTION
    exact = x.astype(np.float64)
    low, high = (
        np.maximum(exact - eps, 0).astype(np.float32),
        np.minimum(exact + eps, 1).astype(np.float32),
    )
    low = np.where(exact - low > eps, np.nextafter(low, np.float32(2)), low)
    high = np.where(high - exact > eps, np.nextafter(high, np.float32(-1)), high)
    return np.clip(x_adv, low, high)
    ### END SOLUTION


# %% tags=["tests"] exercise="inward" points=1
rng = np.random.default_rng([SEED, 40])
x = rng.uniform(size=10_000).astype(np.float32)
wanted = (x + rng.uniform(-0.1, 0.1, 10_000)).astype(np.float32)
kept = keep_inside(wanted.copy(), x.copy(), 8 / 255)
assert kept.dtype == np.float32 and kept.shape == x.shape, "float32 in, float32 out"
assert kept.min() >= 0 and kept.max() <= 1, "pixels lie in [0, 1]"
assert np.abs(kept.astype(float) - x).max() < 8 / 255 + 1e-6, (
    "a pixel is far outside the bound"
)
free = (np.abs(wanted.astype(float) - x) < 8 / 255) & (wanted >= 0) & (wanted <= 1)
assert (kept == wanted)[free].all(), "what is allowed stays as it is"

# %% tags=["hidden-tests"] exercise="inward" points=2
# Criterion: the bound holds when it is judged in double precision, for any budget
rng = np.random.default_rng([SEED, 41])
for eps in (0.0, 1e-4, 1 / 255, 8 / 255, 0.1, 0.3, 1.0):
    x = np.concatenate(
        [rng.uniform(size=100_000), rng.uniform(size=1000) ** 20, [0, 1]]
    ).astype(np.float32)
    for direction in (-2, 2):
        kept = keep_inside(np.clip(x + np.float32(direction), -1, 2), x.copy(), eps)
        assert (np.abs(kept.astype(np.float64) - x.astype(np.float64)) <= eps).all(), (
            f"the bound {eps:.6g} is broken, if only by a rounding error"
        )
        assert kept.min() >= 0 and kept.max() <= 1, "pixels lie in [0, 1]"

# %% tags=["hidden-tests"] exercise="inward" points=1
# Criterion: nothing is given away: no allowed number lies nearer to the wanted one
rng = np.random.default_rng([SEED, 42])
x = np.concatenate(
    [rng.uniform(size=100_000), rng.uniform(size=1000) ** 20, [0, 1]]
).astype(np.float32)
for eps in (0.0, 1 / 255, 0.3):
    for direction in (np.float32(-2), np.float32(2)):
        kept = keep_inside(np.full_like(x, direction), x.copy(), eps)
        assert np.abs(kept.astype(float) - x).max() <= eps + 1e-6, (
            "a pixel is far outside the bound"
        )
        beyond = np.nextafter(kept, direction)
        allowed = (
            (np.abs(beyond.astype(np.float64) - x.astype(np.float64)) <= eps)
            & (beyond >= 0)
            & (beyond <= 1)
        )
        assert not allowed.any(), (
            "a float32 number nearer to the wanted one is allowed, too"
        )

# %% [markdown] tags=["solution-text"] exercise="inward"
# ```{solution-end}
# ```

# %% tags=["hide-input"]
run.finish()
