# %% [markdown]
# # Exercises: Persistence

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # the exercises have this profile only
seed: int = 0
device: str = "cpu"
overrides: dict = {}

# %% tags=["hide-input"]
import torch

from support import smoothing
from support.book import chapter_run

run = chapter_run.start("05_persistence/exercises", profile, seed, device, overrides)

# %% [markdown]
# ```{exercise-start} Why an average of persistences is fragile
# :label: ex-persistence-mean
# ```
# Table 1 averages persistences.
# Give a classifier of the plane and a point whose persistence is infinite at $\gamma = 0.7$ and finite at $\gamma = 0.8$, with the point off the boundary.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-persistence-mean
# :class: dropdown
# ```
# Outside the wedge of two planes, the class is three quarters of the plane.
# At any point of it stability tends to 3/4 as $\sigma$ grows, and where the point lies far from the edge it never falls below 0.7; it does fall below 0.8.


# %% tags=["nbval-check-output"]
def wedge(x: torch.Tensor) -> torch.Tensor:
    """Scores of class 0 outside the first quadrant, class 1 inside it."""
    inside = 3 * x.amin(1)
    return torch.stack([-inside, inside], 1)


far_out = torch.tensor([[-3.0, -3.0]])
for gamma in (0.7, 0.8):
    found = smoothing.persistence(wedge, far_out, gamma, samples=8000)
    print(f"gamma = {gamma}: persistence {float(found.sigma):.0f}")

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Star-shaped classes
# :label: ex-persistence-star
# ```
# Let the class region of $x$ be star-shaped about $x$.
# Prove that the stability never grows with $\sigma$, so that every crossing of $\gamma$ is the first.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-persistence-star
# :class: dropdown
# ```
# Use the same noise $\varepsilon$ for both: if $x + \sigma \varepsilon$ has the class of $x$ and $\sigma' < \sigma$, then $x + \sigma' \varepsilon$ lies on the segment between, and so in the region.
# Hence the event at $\sigma$ is contained in the event at $\sigma'$.
# ```{solution-end}
# ```
#
# ```{exercise} A cone that persistence overlooks
# :label: ex-persistence-cone
#
# Keep the distance to all sheets at 1 and change the angle between two of them.
# How much does the persistence move between a flat boundary and a cone of ten degrees, and why does it count sheets rather than measure their sharpness?
# ```
#
# ```{exercise} A better adversary
# :label: ex-persistence-adaptive
#
# The adaptive attack uses one size of noise.
# Descend the loss over several sizes at once and report the area under the ROC curve; then let the detector use the whole stability curve instead of one number.
# ```

# %% [markdown]
# ## Graded exercises
#
# These stand by themselves: each asks for one function, and no result of the chapter is needed.
# $\Phi$ is the distribution function of the standard normal distribution, `stats.norm.cdf`, and $\Phi^{-1}$ its inverse, `stats.norm.ppf`.

# %% tags=["assignment", "hide-input"]
# Write every function yourself, without `support`: the tests compare it with closed
# forms, exact sums and the package.
import math

import numpy as np
import torch
from scipy import stats
from scipy.optimize import brentq

# %% tags=["assignment-parameters", "hide-input"]
SEED = 0  # the tests draw their numbers from it

# %% [markdown] exercise="sheets"
# ```{exercise-start} Persistence between unequal sheets
# :label: ex-persistence-sheets
# ```
# A class is the set $\{x \in \mathbb R^n : x_1 \ge 0, \dots, x_k \ge 0\}$, bounded by $k \le n$ orthogonal sheets, and a point of it has the distances $d_1, \dots, d_k > 0$ from them.
# The *stability* of the point at $\sigma$ is the probability that it keeps its class under Gaussian noise, $x + \sigma \varepsilon$ with $\varepsilon \sim \mathcal N(0, I_n)$.
# Its $\gamma$-*persistence* is the largest $\sigma^*$ such that the stability is at least $\gamma$ for all $\sigma < \sigma^*$, and infinite if it is so for all $\sigma$.
#
# Derive the stability, with $\Phi$ the distribution function of the standard normal distribution, and decide for which $\gamma$ the persistence is infinite.
# For equal distances there is a closed form; for unequal ones, find a bracket that is sure to hold the crossing, and solve.
#
# Write `sheet_persistence(distances, gamma)` for a sequence of positive distances and $0 < \gamma < 1$.
# It returns $\sigma^*$ as a float, `math.inf` where it is infinite, with a relative error below $10^{-6}$, for distances of any size and for a thousand sheets as well as for one.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="sheets"
# ```{solution-start} ex-persistence-sheets
# :class: dropdown
# ```
# The coordinates of the noise are independent, so the stability is $\prod_i \Phi(d_i / \sigma)$.
# It falls with $\sigma$ from 1 to $2^{-k}$ and crosses $\gamma$ once if $\gamma > 2^{-k}$; otherwise the persistence is infinite, however near the sheets are.
# For equal distances it is $d / \Phi^{-1}(\gamma^{1/k})$.
# The stability grows with every distance, so the crossing lies between the closed forms for $\min d_i$ and for $\max d_i$.
# Logarithms keep a product of a thousand factors from losing its digits.


# %% tags=["solution"] exercise="sheets"
def sheet_persistence(distances, gamma):
    """gamma-persistence, maybe infinite, at these distances from orthogonal sheets."""
    ### BEGIN SOLUTION
    near = np.asarray(distances, dtype=float)
    if math.log(gamma) <= -len(near) * math.log(2):
        return math.inf
    unit = 1 / stats.norm.isf(
        -math.expm1(math.log(gamma) / len(near))
    )  # the persistence at distance 1 from all sheets

    def excess(log_sigma):
        return stats.norm.logcdf(near / math.exp(log_sigma)).sum() - math.log(gamma)

    return math.exp(
        brentq(
            excess,
            math.log(unit * near.min()) - 1e-6,
            math.log(unit * near.max()) + 1e-6,
            xtol=1e-12,
        )
    )
    ### END SOLUTION


# %% tags=["tests"] exercise="sheets" points=1
assert abs(sheet_persistence([1.0], 0.7) - 1 / stats.norm.ppf(0.7)) < 1e-6, (
    "a flat boundary at distance 1: Phi(1 / sigma) = 0.7"
)
assert (
    abs(sheet_persistence([2.0, 2.0, 2.0], 0.7) - 2 / stats.norm.ppf(0.7 ** (1 / 3)))
    < 1e-6
), "three sheets: each is kept with probability gamma^(1/3)"

# %% tags=["hidden-tests"] exercise="sheets" points=2
# Criterion: the stability crosses gamma at the answer, for sheets at unequal distances
numbers = np.random.default_rng(SEED)
for sheets, level, scale in (
    (2, 0.7, 1.0),
    (3, 0.5, 1e-4),
    (5, 0.9, 1e4),
    (30, 0.7, 1.0),
    (1000, 0.8, 0.1),
    (2, 0.26, 1.0),
):
    lengths = scale * numbers.uniform(0.2, 3.0, sheets)
    answer = sheet_persistence(lengths, level)
    for factor, above in ((1 - 1e-5, True), (1 + 1e-5, False)):
        kept = math.exp(stats.norm.logcdf(lengths / (factor * answer)).sum())
        assert (kept > level) == above, (
            f"{sheets} sheets, gamma = {level}: the stability does "
            f"not cross gamma at {answer:.6g}"
        )

# %% tags=["hidden-tests"] exercise="sheets" points=2
# Criterion: infinite exactly where the class keeps more than gamma of any noise
for sheets, level in ((1, 0.5), (1, 0.3), (2, 0.25), (3, 0.1), (40, 1e-13)):
    assert sheet_persistence(np.linspace(1, 2, sheets), level) == math.inf, (
        f"{sheets} sheets: however large sigma is, the class keeps "
        f"more than 2^-{sheets} of the noise"
    )
assert math.isfinite(sheet_persistence([1.0, 1.5, 2.0], 0.13)), (
    "three sheets at gamma = 0.13 are crossed, for 0.13 > 1/8"
)

# %% [markdown] tags=["solution-text"] exercise="sheets"
# ```{solution-end}
# ```

# %% [markdown] exercise="interval"
# ```{exercise-start} An interval for the stability
# :label: ex-persistence-interval
# ```
# Of $n$ noisy copies of an image, $S$ kept its class, and $S / n$ estimates the stability $p$.
# The usual interval $S/n \pm z \sqrt{S (n - S) / n^3}$ has length zero where all copies kept the class, which proves too much.
#
# The interval of Clopper and Pearson consists of all $p$ that the observation does not contradict in either direction: with the error $1 - c$ shared evenly, $p$ is too small if $\mathbb P[\mathrm{Bin}(n, p) \ge S] < (1 - c) / 2$, and too large if $\mathbb P[\mathrm{Bin}(n, p) \le S] < (1 - c) / 2$.
# Both ends are quantiles of Beta distributions: for whole numbers, $\mathbb P[\mathrm{Bin}(n, p) \ge S]$ is the distribution function of $\mathrm{Beta}(S, n - S + 1)$ at $p$.
#
# Write `interval(kept, samples, confidence)` for $0 \le S \le n$ and $0 < c < 1$.
# It returns the two ends as floats.
# Tested is that for every $p$ the interval holds $p$ with probability at least $c$ (an exact sum, no sampling), and that it is no longer than this one.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="interval"
# ```{solution-start} ex-persistence-interval
# :class: dropdown
# ```
# The lower end is where $\mathbb P[\mathrm{Bin}(n, p) \ge S]$ equals $(1 - c)/2$, a quantile of $\mathrm{Beta}(S, n - S + 1)$; for $S = 0$ no $p$ is too small.
# The upper end is where $\mathbb P[\mathrm{Bin}(n, p) \le S] = 1 - \mathbb P[\mathrm{Bin}(n, p) \ge S + 1]$ equals it: the upper quantile of $\mathrm{Beta}(S + 1, n - S)$, with other parameters, since the observation itself is counted on both sides.
# If $p$ lies outside, one of two events of probability below $(1 - c) / 2$ has happened, so the interval errs with probability at most $1 - c$.


# %% tags=["solution"] exercise="interval"
def interval(kept, samples, confidence):
    """Ends of the Clopper-Pearson interval, two floats."""
    ### BEGIN SOLUTION
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, kept, samples - kept + 1) if kept > 0 else 0.0
    high = stats.beta.isf(tail, kept + 1, samples - kept) if kept < samples else 1.0
    return float(low), float(high)
    ### END SOLUTION


# %% tags=["tests"] exercise="interval" points=2
low_end, high_end = interval(70, 100, 0.95)
assert 0.55 < low_end < 0.65 and 0.75 < high_end < 0.85, (
    "the interval holds the share 0.7, with about a tenth to each side"
)
low_end, high_end = interval(20, 20, 0.95)
assert high_end == 1 and abs(low_end - 0.025 ** (1 / 20)) < 0.025, (
    "20 of 20 happen with probability p^20: p = 0.83 is just possible"
)
assert interval(0, 20, 0.95)[0] == 0, "where no copy kept the class, no p is too small"

# %% tags=["hidden-tests"] exercise="interval" points=2
# Criterion: the interval holds the truth at least as often as it says
for samples, level in ((1, 0.9), (12, 0.95), (30, 0.99), (60, 0.8)):
    ends = np.array([interval(kept, samples, level) for kept in range(samples + 1)])
    truths = np.unique(
        np.r_[
            np.linspace(0.001, 0.999, 400), ends.ravel() - 1e-9, ends.ravel() + 1e-9
        ].clip(0, 1)
    )
    held = (ends[:, :1] <= truths) & (truths <= ends[:, 1:])
    coverage = (
        stats.binom.pmf(np.arange(samples + 1)[:, None], samples, truths) * held
    ).sum(0)
    worst = coverage.argmin()
    assert coverage[worst] >= level - 1e-6, (
        f"n = {samples}: at p = {truths[worst]:.3f} the interval holds p with "
        f"probability {coverage[worst]:.3f} only, below {level}"
    )

# %% tags=["hidden-tests"] exercise="interval" points=1
# Criterion: the ends are those of Clopper and Pearson
for kept, samples, level in (
    (0, 9, 0.95),
    (9, 9, 0.95),
    (3, 50, 0.99),
    (1400 + SEED % 50, 2000, 0.9999),
):
    wanted = stats.binomtest(kept, samples).proportion_ci(level)
    assert np.allclose(
        interval(kept, samples, level), (wanted.low, wanted.high), atol=1e-9
    ), f"{kept} of {samples}: the interval is not the one of Clopper and Pearson"

# %% [markdown] tags=["solution-text"] exercise="interval"
# ```{solution-end}
# ```

# %% [markdown] exercise="search"
# ```{exercise-start} A search that ends
# :label: ex-persistence-search
# ```
# A search for the persistence halves $\sigma$ until the point is stable, doubles it until the point is not, and bisects until the measured stability is within 0.01 of $\gamma$.
# It has no end for a class that keeps more than $\gamma$ of the noise however large $\sigma$ is, no end on the boundary itself, and it may stop far from the crossing where the stability is flat.
#
# Write `search(stability, gamma, cap)` for a function `stability(sigma)` that never grows with $\sigma$ and is exact.
# It returns
#
# - `math.inf` if the point is stable, that is `stability(cap) >= gamma`, at the cap;
# - `0.0` if it is not stable at $\sigma = 10^{-5}$;
# - otherwise the crossing, with a relative error below $10^{-6}$.
#
# It calls `stability` at most 32 times, and only for $10^{-5} \le \sigma \le$ `cap`; the cap is at most $10^3$.
# Work out first how many halvings the range from $10^{-5}$ to $10^3$ takes: which scale has to be halved?
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="search"
# ```{solution-start} ex-persistence-search
# :class: dropdown
# ```
# Two calls settle the two ends.
# A relative error is an absolute one of $\log \sigma$, so $\log \sigma$ is halved: its range is $\log 10^8 \approx 18.4$, and $18.4 / 2^{25} < 10^{-6}$.
# On the linear scale a crossing at $10^{-4}$ would need 43 halvings.
# The share is compared with $\gamma$ and never asked to be close to it: a flat stability is close to $\gamma$ on a wide range of $\sigma$, and one that jumps is never.


# %% tags=["solution"] exercise="search"
def search(stability, gamma, cap):
    """Where stability crosses gamma in [1e-5, cap]; 0.0 below and math.inf above."""
    ### BEGIN SOLUTION
    low, high = 1e-5, cap
    if stability(high) >= gamma:
        return math.inf
    if stability(low) < gamma:
        return 0.0
    for _ in range(28):
        sigma = math.sqrt(low * high)
        low, high = (sigma, high) if stability(sigma) >= gamma else (low, sigma)
    return math.sqrt(low * high)
    ### END SOLUTION


# %% tags=["tests"] exercise="search" points=2
spent_calls = 0


def flat_boundary(sigma):
    """Stability at distance 1 from a flat boundary; a search without end fails."""
    global spent_calls
    spent_calls += 1
    assert spent_calls <= 400, "the search does not seem to end"
    return stats.norm.cdf(1 / sigma)


answer = search(flat_boundary, 0.7, 64.0)
assert abs(answer * stats.norm.ppf(0.7) - 1) < 1e-6, (
    "the crossing is not found with six digits"
)
assert spent_calls <= 32, f"{spent_calls} calls of stability; 32 are allowed"

# %% tags=["hidden-tests"] exercise="search" points=3
# Criterion: the crossing is found in few calls and within the range, or zero, or
# infinity
for told, curve, level, cap, wanted in (
    (
        "a class that keeps three quarters of any noise",
        lambda sigma: 0.75 + 0.25 * math.exp(-sigma),
        0.7,
        64.0,
        math.inf,
    ),
    ("a point on the boundary", lambda sigma: 0.5, 0.7, 64.0, 0.0),
    ("stable exactly at gamma", lambda sigma: 0.7, 0.7, 64.0, math.inf),
    (
        "a crossing at 2e-4",
        lambda sigma: stats.norm.cdf(2e-4 * stats.norm.ppf(0.8) / sigma),
        0.8,
        1e3,
        2e-4,
    ),
    (
        "a crossing at 900",
        lambda sigma: stats.norm.cdf(900 * stats.norm.ppf(0.6) / sigma),
        0.6,
        1e3,
        900.0,
    ),
    ("a jump", lambda sigma: 1.0 if sigma < 3.3 else 0.0, 0.5, 64.0, 3.3),
    (
        "a flat stability",
        lambda sigma: 0.7 - 0.001 * math.log10(sigma / 5),
        0.7,
        100.0,
        5.0,
    ),
    (
        "a drawn crossing",
        lambda sigma: math.exp(-sigma / (2 + SEED % 17)),
        0.9,
        64.0,
        -math.log(0.9) * (2 + SEED % 17),
    ),
):
    asked = []

    def watched(sigma, curve=curve, asked=asked, cap=cap):
        asked.append(sigma)
        assert len(asked) <= 400, "the search does not seem to end"
        assert 1e-5 * (1 - 1e-9) <= sigma <= cap * (1 + 1e-9), (
            f"stability was asked at {sigma:g}, outside of the range"
        )
        return curve(sigma)

    answer = search(watched, level, cap)
    right = (
        answer == wanted if wanted in (0, math.inf) else abs(answer / wanted - 1) < 1e-6
    )
    assert right, f"{told}: {answer:g}, and {wanted:g} is right"
    assert len(asked) <= 32, f"{told}: {len(asked)} calls of stability; 32 are allowed"

# %% [markdown] tags=["solution-text"] exercise="search"
# ```{solution-end}
# ```

# %% [markdown] exercise="outside"
# ```{exercise-start} Lost and regained
# :label: ex-persistence-outside
# ```
# The plane has two classes: the quarter $\{x_1 \ge 0, x_2 \ge 0\}$, and the rest.
# A point $x = (x_1, x_2)$ lies in the rest: at least one coordinate is negative.
# Its stability at $\sigma$ is the probability that $x + \sigma \varepsilon$, with $\varepsilon \sim \mathcal N(0, I_2)$, lies in the rest, too.
# Its $\gamma$-persistence is the largest $\sigma^*$ such that the stability is at least $\gamma$ for **all** $\sigma < \sigma^*$, and infinite if the stability is at least $\gamma$ for all $\sigma$.
#
# Derive the stability.
# What does it tend to for large $\sigma$?
# Where $x$ lies close in front of the middle of one face, say at $(-0.05, 0.3)$, draw it as a function of $\sigma$ before you decide how to find the persistence.
#
# Write `outside_persistence(x1, x2, gamma)`, which returns $\sigma^*$ as a float, with a relative error below $10^{-4}$, or `math.inf`.
# The coordinates are between $10^{-3}$ and $10^3$ in size, and $\gamma$ between 0.5 and 0.95.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="outside"
# ```{solution-start} ex-persistence-outside
# :class: dropdown
# ```
# The stability is $1 - \Phi(x_1 / \sigma) \Phi(x_2 / \sigma)$, and it tends to $3/4$.
# With both coordinates negative it falls all the way, so the persistence is infinite exactly for $\gamma \le 3/4$.
# With $x_1 < 0 < x_2$ and $x_2 > |x_1|$ it first falls towards $1/2$, as in front of a flat boundary, and comes back to $3/4$ when the noise is long enough to find the far side of the edge.
# There a bisection between a small and a large $\sigma$ finds both ends stable and no crossing, though the definition, "for all $\sigma < \sigma^*$", gives a finite value.
# A scan upwards finds the first $\sigma$ at which the stability is below $\gamma$; the root lies in the step before it.


# %% tags=["solution"] exercise="outside"
def outside_persistence(x1, x2, gamma):
    """gamma-persistence outside of the quarter plane, a float, possibly infinite."""

    ### BEGIN SOLUTION
    def excess(sigma):
        return 1 - stats.norm.cdf(x1 / sigma) * stats.norm.cdf(x2 / sigma) - gamma

    sizes = np.abs([x1, x2])
    sigmas = np.geomspace(0.1 * sizes.min(), 1e5 * sizes.max(), 4000)
    unstable = np.flatnonzero(excess(sigmas) < 0)
    if not len(unstable):
        return math.inf
    return float(
        brentq(excess, sigmas[unstable[0] - 1], sigmas[unstable[0]], rtol=1e-10)
    )
    ### END SOLUTION


# %% tags=["tests"] exercise="outside" points=1
answer = outside_persistence(-3.0, -3.0, 0.8)
assert abs(1 - stats.norm.cdf(-3 / answer) ** 2 - 0.8) < 1e-4, (
    "both coordinates have to turn positive, independently of "
    "each other, for the class to be lost"
)
assert outside_persistence(-3.0, -3.0, 0.7) == math.inf, (
    "three quarters of the plane are left however large the noise is"
)
assert abs(outside_persistence(-1.0, 500.0, 0.9) * stats.norm.ppf(0.9) - 1) < 1e-3, (
    "far from the edge the boundary is flat"
)

# %% tags=["hidden-tests"] exercise="outside" points=3
# Criterion: the answer is the first sigma at which the stability falls below gamma
for x1, x2, level in (
    (-0.05, 0.3, 0.7),
    (0.3, -0.05, 0.7),
    (-1.0, 3.0 + 0.01 * (SEED % 100), 0.74),
    (-20.0, 400.0, 0.6),
    (-0.002, 0.5, 0.55),
):
    answer = outside_persistence(x1, x2, level)
    assert math.isfinite(answer), (
        f"({x1}, {x2}), gamma = {level}: the stability falls below gamma before it "
        "comes back, and the definition says for all smaller sigma"
    )
    below, after = (
        1 - stats.norm.cdf(x1 / sigma) * stats.norm.cdf(x2 / sigma)
        for sigma in (answer * np.linspace(0.01, 1 - 1e-4, 2000), answer * (1 + 1e-4))
    )
    assert below.min() >= level, (
        f"({x1}, {x2}), gamma = {level}: a smaller sigma is unstable already"
    )
    assert after < level, (
        f"({x1}, {x2}), gamma = {level}: the stability does "
        f"not cross gamma at {answer:.6g}"
    )

# %% tags=["hidden-tests"] exercise="outside" points=1
# Criterion: infinite where it never does, and the same in other units of length
assert outside_persistence(-0.6, 0.5, 0.7) == math.inf, (
    "with x_2 below |x_1| the stability falls towards 3/4 all the way, and never below"
)
assert outside_persistence(-2.0, -0.003, 0.75) == math.inf, (
    "both coordinates negative: the stability stays above 3/4"
)
for scale in (0.01, 100.0):
    assert (
        abs(
            outside_persistence(-scale, 0.8 * scale, 0.9)
            / (scale * outside_persistence(-1.0, 0.8, 0.9))
            - 1
        )
        < 1e-3
    ), "in other units of length the persistence is the same length"

# %% [markdown] tags=["solution-text"] exercise="outside"
# ```{solution-end}
# ```

# %% [markdown] exercise="units"
# ```{exercise-start} A bound that fails in other units
# :label: ex-persistence-units
# ```
# A thesis prints for $x \sim \mathcal N(0, \sigma^2 I_n)$ and $\epsilon > 0$
#
# $$\mathbb P\big[\, \big| \lVert x \rVert - \sigma \sqrt n \,\big| \le \epsilon \,\big] \ge 1 - 2 e^{-\epsilon^2 / 16} .$$
#
# The right side does not know $\sigma$.
# Multiply $x$ by a number, that is, choose another unit of length, and see that this cannot be right for every $\sigma$.
# What would have to stand in the exponent?
#
# Write `refute_bound(sigma)`, which returns for a given $\sigma > 4$ a whole number $n \ge 1$ and an $\epsilon > 0$ at which the printed bound is false, and not by a hair: the exact $\mathbb P[\,|\lVert x \rVert - \sigma \sqrt n| > \epsilon\,]$ is to be at least $1.05 \cdot 2 e^{-\epsilon^2 / 16}$.
# Use that $\lVert x \rVert / \sigma$ has the chi distribution with $n$ degrees of freedom, `stats.chi(n)`, whose standard deviation is close to $1 / \sqrt 2$ for every large $n$.
# Tested are several $\sigma$ from 4.5 to 1000.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="units"
# ```{solution-start} ex-persistence-units
# :class: dropdown
# ```
# In units of $\sigma$ the left side depends on $\epsilon / \sigma$ only, so a bound that holds for $\sigma = 1$ holds for all with $\epsilon^2 / 16 \sigma^2$ in the exponent.
# The exact tail is close to $2 \Phi(-\sqrt 2 \epsilon / \sigma)$, about $e^{-\epsilon^2 / \sigma^2}$ up to a factor that varies slowly.
# It falls more slowly than $e^{-\epsilon^2 / 16}$ as soon as $\sigma > 4$, and then a large $\epsilon$ refutes the bound; the nearer $\sigma$ is to 4, the larger it has to be.
# So we go up in $\epsilon$ until the exact tail is the larger one.


# %% tags=["solution"] exercise="units"
def refute_bound(sigma):
    """n and eps at which the printed bound is false for this sigma."""
    ### BEGIN SOLUTION
    n = 10_000
    for eps in np.linspace(0.5, 60, 240):
        tail = stats.chi(n).sf(math.sqrt(n) + eps / sigma) + stats.chi(n).cdf(
            math.sqrt(n) - eps / sigma
        )
        if tail > 1.2 * 2 * math.exp(-(eps**2) / 16):
            return n, float(eps)
    ### END SOLUTION


# %% tags=["tests"] exercise="units" points=1
n_found, eps_found = refute_bound(7.0)
assert n_found == int(n_found) >= 1 and eps_found > 0, (
    "n is a whole number of at least 1, and eps positive"
)
outside_shell = stats.chi(n_found).sf(math.sqrt(n_found) + eps_found / 7) + stats.chi(
    n_found
).cdf(math.sqrt(n_found) - eps_found / 7)
assert outside_shell >= 1.05 * 2 * math.exp(-(eps_found**2) / 16), (
    f"outside of the shell lies {outside_shell:.4f}, and the bound allows "
    f"{2 * math.exp(-(eps_found**2) / 16):.4f}: it holds here"
)

# %% tags=["hidden-tests"] exercise="units" points=3
# Criterion: the pair refutes the bound, whatever sigma is
for sigma_here in (4.5, 5.0, 5.5 + 0.01 * (SEED % 100), 10.0, 40.0, 1000.0):
    n_found, eps_found = refute_bound(sigma_here)
    assert n_found == int(n_found) >= 1 and eps_found > 0, (
        "n is a whole number of at least 1, and eps positive"
    )
    outside_shell = stats.chi(n_found).sf(
        math.sqrt(n_found) + eps_found / sigma_here
    ) + stats.chi(n_found).cdf(math.sqrt(n_found) - eps_found / sigma_here)
    assert outside_shell >= 1.05 * 2 * math.exp(-(eps_found**2) / 16) > 0, (
        f"sigma = {sigma_here:g}: outside of the shell lies {outside_shell:.3g}, and "
        f"the bound allows {2 * math.exp(-(eps_found**2) / 16):.3g}: it holds here"
    )

# %% [markdown] tags=["solution-text"] exercise="units"
# ```{solution-end}
# ```

# %% [markdown] exercise="peeking"
# ```{exercise-start} Looking again and again
# :label: ex-persistence-peeking
# ```
# To save samples, one counts noisy copies one by one, looks after each, and stops as soon as a rule says that the answer is beyond doubt.
# A test that errs in 5 % of all cases when it looks once errs more often when it may look after each copy.
# How much more often can be computed without any sampling.
#
# Each copy keeps the class with probability $p$, independently of the others.
# After $m$ copies, $S$ of which kept the class, the rule `stops(m, S)` is true or false.
# Write `ever_stops(stops, p, samples)`, which returns the probability that the rule stops at some $m$ with $1 \le m \le$ `samples`.
# The result is exact up to rounding.
# Think about which walks of $S$ are still on their way after $m$ copies, and with what probability: a walk that was stopped is not on its way again.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="peeking"
# ```{solution-start} ex-persistence-peeking
# :class: dropdown
# ```
# Keep the probabilities of the walks that have not been stopped, by $S$.
# With a further copy each is shared out between $S$ and $S + 1$; those at which the rule stops are added to the result and removed.
# To add up the probabilities of stopping at each look without removing them counts a walk as often as the rule would have stopped it, and to look at the end only forgets the walks that came back.
# The hidden tests compare two rules at the same nominal error: a binomial test at each look errs several times as often as it says, while the rule $(m + 1) \binom{m}{S} \gamma^S (1 - \gamma)^{m - S} \le \alpha$ of {cite:t}`robbins1970` keeps its word however often one looks.


# %% tags=["solution"] exercise="peeking"
def ever_stops(stops, p, samples):
    """Probability that the rule stops within so many copies, a float."""
    ### BEGIN SOLUTION
    on_the_way, stopped = np.ones(1), 0.0
    for m in range(1, samples + 1):
        on_the_way = np.r_[on_the_way * (1 - p), 0.0] + np.r_[0.0, on_the_way * p]
        caught = np.array([stops(m, kept) for kept in range(m + 1)])
        stopped += on_the_way[caught].sum()
        on_the_way[caught] = 0.0
    return float(stopped)
    ### END SOLUTION


# %% tags=["tests"] exercise="peeking" points=2
assert abs(ever_stops(lambda m, kept: m == 1 and kept == 0, 0.7, 5) - 0.3) < 1e-12, (
    "a rule that stops if the first copy is lost, and never later"
)
assert (
    abs(
        ever_stops(lambda m, kept: m == 12 and kept <= 5, 0.7, 12)
        - stats.binom.cdf(5, 12, 0.7)
    )
    < 1e-12
), "a rule that looks once, after the last copy"

# %% tags=["hidden-tests"] exercise="peeking" points=2
# Criterion: the probability is that of a sum over all sequences of copies
table = np.random.default_rng(SEED).random((11, 11)) < 0.08
table[10, ::2] = True  # some walks are stopped by the last look
for p_here in (0.2, 0.7):
    total = 0.0
    for walk_number in range(2**10):
        bits = [(walk_number >> place) & 1 for place in range(10)]
        if any(table[m, sum(bits[:m])] for m in range(1, 11)):
            total += p_here ** sum(bits) * (1 - p_here) ** (10 - sum(bits))
    answer = ever_stops(lambda m, kept: bool(table[m, kept]), p_here, 10)
    assert abs(answer - total) < 1e-12, (
        f"p = {p_here}: {answer:.6f}, and the sum over all 1024 walks is {total:.6f}"
    )

# %% tags=["hidden-tests"] exercise="peeking" points=1
# Criterion: many looks are counted right, and a rule that is mended keeps its promise
tails = [
    np.cumsum(
        [math.comb(m, kept) * 0.7**kept * 0.3 ** (m - kept) for kept in range(m + 1)]
    )
    for m in range(151)
]
each_look = ever_stops(lambda m, kept: bool(tails[m][kept] <= 0.05), 0.7, 150)
mended = ever_stops(
    lambda m, kept: (
        kept < 0.7 * m
        and (m + 1) * math.comb(m, kept) * 0.7**kept * 0.3 ** (m - kept) <= 0.05
    ),
    0.7,
    150,
)
assert 0.15 < each_look < 0.3, (
    "a test at 5 % that is repeated after each of 150 copies "
    "errs in about a fifth of all cases"
)
assert 0 < mended <= 0.05, (
    "the rule of Robbins errs in at most 5 % of all cases, however often one looks"
)

# %% [markdown] tags=["solution-text"] exercise="peeking"
# ```{solution-end}
# ```

# %% [markdown] exercise="rounding"
# ```{exercise-start} A step that keeps its promise
# :label: ex-persistence-rounding
# ```
# The iterative sign method moves an image $z$ towards a target class by
#
# $$z \leftarrow z - \alpha \operatorname{sign} g , \qquad g = \nabla_z \ell(z, t) ,$$
#
# and cuts the result to the ball $\lVert z - x \rVert_\infty \le \epsilon$ about the original image $x$ and to $[0, 1]$.
# In float32, clipping to `x - eps` and `x + eps` breaks the promise: these sums are rounded, half of them to the outside, and a perturbation may be a little longer than $\epsilon$.
#
# Write `sign_step(x, z, g, eps, alpha)` for float32 tensors of one shape, `x` in $[0, 1]$, and Python floats $\epsilon$ and $\alpha$.
# It returns a float32 tensor with
#
# - $|z' - x| \le \epsilon$, computed in float64 (`z.double() - x.double()`), for every entry, and $0 \le z' \le 1$;
# - no entry farther than one unit in the last place ($2^{-23}$ is enough) from the plain, clipped step: to be safe by a wide margin is no solution;
# - entries with $g = 0$ where they were, if that is inside.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="rounding"
# ```{solution-start} ex-persistence-rounding
# :class: dropdown
# ```
# In float64 the ends of the interval are exact for our purpose.
# Rounded to float32, the lower end is moved up by one float where it was rounded down, and the upper end down where it was rounded up; `torch.nextafter` gives the neighbouring float.
# The interval is then inside of the true one, and clipping to it needs no further arithmetic.
# It still contains $x$, so it is never empty.


# %% tags=["solution"] exercise="rounding"
def sign_step(x, z, g, eps, alpha):
    """One signed step against g, cut to the ball about x and to [0, 1], exactly."""
    ### BEGIN SOLUTION
    low, high = (x.double() - eps).clamp(min=0), (x.double() + eps).clamp(max=1)
    low32, high32 = low.float(), high.float()
    low32 = torch.where(
        low32.double() < low,
        torch.nextafter(low32, torch.full_like(x, torch.inf)),
        low32,
    )
    high32 = torch.where(
        high32.double() > high,
        torch.nextafter(high32, torch.full_like(x, -torch.inf)),
        high32,
    )
    return torch.minimum(torch.maximum(z - alpha * g.sign(), low32), high32)
    ### END SOLUTION


# %% tags=["tests"] exercise="rounding" points=1
pixels_x, pixels_z = (
    torch.tensor([0.5, 0.5, 0.5, 0.05, 0.95]),
    torch.tensor([0.5, 0.45, 0.5, 0.03, 0.97]),
)
moved_z = sign_step(
    pixels_x, pixels_z, torch.tensor([2.0, 0.1, 0.0, 5.0, -5.0]), 0.1, 0.06
)
assert moved_z.dtype == torch.float32, "float32 in, float32 out"
assert torch.allclose(moved_z, torch.tensor([0.44, 0.4, 0.5, 0.0, 1.0]), atol=1e-6), (
    "against the sign of the gradient, from z; the ball is about x"
)

# %% tags=["hidden-tests"] exercise="rounding" points=2
# Criterion: no entry leaves the ball or the box, judged in double precision
drawn = torch.Generator().manual_seed(SEED)
pixels_x, slopes = (
    torch.rand(50_000, generator=drawn),
    torch.randn(50_000, generator=drawn),
)
for budget_here in (0.1, 8 / 255, 0.3, 1e-3):
    moved_z = pixels_x
    for _ in range(12):
        moved_z = sign_step(pixels_x, moved_z, slopes, budget_here, budget_here / 10)
    too_long = int(((moved_z.double() - pixels_x.double()).abs() > budget_here).sum())
    assert too_long == 0, (
        f"eps = {budget_here:.4g}: {too_long} of 50,000 entries are "
        "farther than eps from x when judged in float64"
    )
    assert moved_z.min() >= 0 and moved_z.max() <= 1, "an image has values in [0, 1]"
    assert (moved_z - pixels_x).abs().max() > budget_here / 2, "nothing moves"
    assert ((moved_z - pixels_x) * slopes <= 0).all(), (
        "a step towards the target goes against the sign of the gradient"
    )

# %% tags=["hidden-tests"] exercise="rounding" points=2
# Criterion: nothing but a rounding error is given away, and no gradient means no step
moved_z = pixels_x
for _ in range(3):  # with steps of eps / 2 the third is cut
    plain = (moved_z - 0.05 * slopes.sign()).clamp(
        min=(pixels_x - 0.1).clamp(min=0), max=(pixels_x + 0.1).clamp(max=1)
    )
    moved_z = sign_step(pixels_x, moved_z, slopes, 0.1, 0.05)
    assert (moved_z - plain).abs().max() <= 2**-23, (
        "this gives away more than one unit in the last place"
    )
assert torch.equal(
    sign_step(pixels_x, moved_z, torch.zeros_like(slopes), 0.1, 0.05), moved_z
), "without a gradient nothing moves"

# %% [markdown] tags=["solution-text"] exercise="rounding"
# ```{solution-end}
# ```

# %% tags=["hide-input"]
run.finish()
