# %% [markdown]
# # Exercises: Every probe on every model

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # the exercises have this profile only
seed: int = 0
device: str = "cpu"
overrides: dict = {}

# %% tags=["hide-input"]
from support.book import chapter_run

run = chapter_run.start("08_every_probe/exercises", profile, seed, device, overrides)

# %% [markdown]
# ## Graded exercises
#
# Each asks for one function of NumPy arrays, and needs nothing but the imports of the next cell.

# %% tags=["assignment", "hide-input"]
import numpy as np
from scipy.stats import rankdata

# %% tags=["assignment-parameters", "hide-input"]
SEED = 0

# %% [markdown] exercise="auroc"
# ```{exercise-start} The area without a curve
# :label: ex-probes-auroc
# ```
# The area under the ROC curve is the chance that a randomly drawn insider has a larger score than a randomly drawn outsider, where a tie counts one half.
# Scores of confident networks are full of ties: many of them are exactly 1.
#
# Write `auroc(inside, outside)` for two arrays of scores, (N,) and (M,), which returns this chance as a float.
# Neither loop over pairs nor form an N by M table: the tests have hundreds of thousands of scores on each side.
# Derive it from the ranks of all scores together, averaged at ties: how many outsiders lie below an insider, if its rank among all is $r$ and its rank among the insiders is $r'$?
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="auroc"
# ```{solution-start} ex-probes-auroc
# :class: dropdown
# ```
# The rank of an insider among all is one half, plus the number of scores below it, plus half the number of those equal to it (itself among them).
# Its rank among the insiders counts the same, without the outsiders.
# So $r - r'$ is the number of outsiders below it plus half of those equal to it, which is what the insider contributes.
# Summed over the insiders, the ranks $r'$ give $N(N+1)/2$ whatever the ties, and the area is $\left(\sum r - N(N+1)/2\right) / NM$: the statistic of Mann and Whitney.


# %% tags=["solution"] exercise="auroc"
def auroc(inside, outside):
    """Chance that an insider's score (N,) exceeds an outsider's (M,), ties one half."""
    ### BEGIN SOLUTION
    n, m = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
    ### END SOLUTION


# %% tags=["tests"] exercise="auroc" points=2
assert auroc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1.0, (
    "every insider lies above every outsider"
)
assert auroc(np.array([1.0, 4.0]), np.array([2.0, 3.0])) == 0.5, (
    "one insider below both outsiders, one above both"
)
assert auroc(np.ones(3), np.ones(5)) == 0.5, "all scores tie, and a tie counts one half"

# %% tags=["hidden-tests"] exercise="auroc" points=3
# Criterion: the area is that of the count over all pairs, and fast for many scores
rng = np.random.default_rng(SEED)
for _ in range(20):
    a, b = (
        rng.integers(0, 5, rng.integers(1, 12)) / 4,
        rng.integers(1, 7, rng.integers(1, 12)) / 4,
    )
    pairs = np.mean([0.5 * (u == v) + (u > v) for u in a for v in b])
    assert abs(auroc(a, b) - pairs) < 1e-12, "it differs from the count over all pairs"
many, more = rng.integers(0, 1000, 300_000) / 1000, rng.integers(0, 900, 200_000) / 1000
assert abs(auroc(many, more) + auroc(more, many) - 1) < 1e-9, (
    "turned round, the two areas sum to one"
)
assert abs(auroc(many, more) - (0.55 + 0.0005 * 0.9)) < 0.004, (
    "the area of two uniform scores is known"
)

# %% [markdown] tags=["solution-text"] exercise="auroc"
# ```{solution-end}
# ```

# %% [markdown] exercise="calibration"
# ```{exercise-start} A calibrated network has a calibration error
# :label: ex-probes-calibration
# ```
# The expected calibration error is a sum of absolute values, so noise does not cancel in it: a network whose confidences are exactly right has an error above zero on every finite test set.
# How large a part of the error is that?
#
# Write `calibration(confidence, correct, bins, draws, rng)`, where `confidence` (N,) lies in $[0, 1]$ and `correct` (N,) holds 0 and 1.
# It returns a pair: the expected calibration error, and its *floor*, the mean of the error over `draws` sets of answers that are right with exactly the probability of their confidence, drawn with `rng.random((draws, N))`.
#
# The bins have equal width; bin $i$ holds $i / \mathrm{bins} \leq \mathrm{confidence} < (i+1) / \mathrm{bins}$, and the last one also confidence 1.
# The error is the mean over all answers of the gap between mean confidence and accuracy of their bin.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="calibration"
# ```{solution-start} ex-probes-calibration
# :class: dropdown
# ```
# A bin with $n$ answers contributes $n/N$ times its gap, which is $|\sum (\mathrm{confidence} - \mathrm{correct})| / N$: no division by $n$ is needed, and empty bins contribute nothing.
# Under perfect calibration the sum has mean zero and a standard deviation of $\sqrt{\sum c (1 - c)}$, so a bin's absolute value is about $\sqrt{2/\pi}$ of that: the floor falls as $1/\sqrt N$, and grows with the number of bins.


# %% tags=["solution"] exercise="calibration"
def calibration(confidence, correct, bins, draws, rng):
    """Expected calibration error, and its mean for exactly calibrated answers."""
    ### BEGIN SOLUTION
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    member = np.eye(bins)[place]  # (N, bins)
    answers = np.concatenate(
        [
            np.asarray(correct, dtype=float)[None],
            rng.random((draws, len(confidence))) < confidence,
        ]
    )
    errors = np.abs((confidence - answers) @ member).sum(1) / len(confidence)
    return float(errors[0]), float(errors[1:].mean())
    ### END SOLUTION


# %% tags=["tests"] exercise="calibration" points=2
sure = np.array([0.95, 0.95, 0.55, 0.55])
error, _ = calibration(sure, np.array([1, 1, 1, 0]), 10, 10, np.random.default_rng(0))
assert abs(error - 0.05) < 1e-12, "both bins have a gap of 0.05"
error, floor = calibration(np.ones(5), np.zeros(5), 15, 10, np.random.default_rng(0))
assert error == 1 and floor == 0, (
    "certain and always wrong; a calibrated network with confidence 1 is always right"
)

# %% tags=["hidden-tests"] exercise="calibration" points=3
# Criterion: error and floor agree with a count by hand and with known values
rng = np.random.default_rng(SEED)
sure, answers = np.append(rng.random(380), np.ones(20)), rng.random(400) < 0.7
places = np.minimum(np.floor(sure * 15), 14)
gaps = [
    (places == b).mean() * abs(sure[places == b].mean() - answers[places == b].mean())
    for b in set(places)
]
assert (
    abs(calibration(sure, answers, 15, 1, np.random.default_rng(0))[0] - sum(gaps))
    < 1e-12
), "the error differs from bins counted one by one"
halves = np.full(10, 0.5)
exact = sum(
    abs(k / 10 - 0.5) * c
    for k, c in enumerate(
        np.array([1, 10, 45, 120, 210, 252, 210, 120, 45, 10, 1]) / 1024
    )
)
assert (
    abs(
        calibration(halves, halves > 0, 15, 20_000, np.random.default_rng(1))[1] - exact
    )
    < 0.005
), "ten coins: the floor is the mean distance of their share from one half"
floors = [
    calibration(
        np.random.default_rng(2).random(n),
        np.ones(n),
        15,
        200,
        np.random.default_rng(3),
    )[1]
    for n in (400, 6400)
]
assert 3.2 < floors[0] / floors[1] < 4.8, (
    "sixteen times the answers, a quarter of the floor"
)

# %% [markdown] tags=["solution-text"] exercise="calibration"
# ```{solution-end}
# ```

# %% [markdown] exercise="partial"
# ```{exercise-start} At equal clean accuracy
# :label: ex-probes-partial
# ```
# The partial rank correlation of $x$ and $y$ given a control is the correlation of what two straight lines leave: replace all three by their ranks (averaged at ties), fit the ranks of $x$ and those of $y$ by a straight line in the ranks of the control, and correlate the residuals.
#
# Write `partial_rank(x, y, control)` for three arrays (M,), and let it return `nan` where nothing is left of $x$ or of $y$.
# Show on paper that with the three rank correlations $a = \rho_{xy}$, $b = \rho_{xc}$, $c = \rho_{yc}$ the result is $(a - bc)/\sqrt{(1 - b^2)(1 - c^2)}$; the tests use it.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="partial"
# ```{solution-start} ex-probes-partial
# :class: dropdown
# ```
# Let the three rank vectors be centred and of length one.
# The line leaves $x - b\,c$-vector of $x$, and of $y$ the same with its own coefficient; their inner product is $a - bc$ and their squared lengths are $1 - b^2$ and $1 - c^2$.
# Ranks come first: a line in the raw control would leave a monotone but curved relation in the residuals.


# %% tags=["solution"] exercise="partial"
def partial_rank(x, y, control):
    """Rank correlation of x and y (M,) given a control."""
    ### BEGIN SOLUTION
    x, y, control = (
        rankdata(values) - (len(values) + 1) / 2 for values in (x, y, control)
    )
    if control.any():
        x, y = (
            values - control * (values @ control) / (control @ control)
            for values in (x, y)
        )
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 1e-9 else float("nan")
    ### END SOLUTION


# %% tags=["tests"] exercise="partial" points=2
assert abs(partial_rank([1, 2, 3, 4], [1, 2, 3, 4], [1, 3, 4, 2]) - 1) < 1e-12, (
    "x and y agree entirely, whatever the control"
)
assert (
    abs(partial_rank([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], [1, 1, 1, 1, 1]) - 0.8) < 1e-12
), "a control that does not vary changes nothing"
assert np.isnan(partial_rank([1, 2, 3, 4], [4, 1, 3, 2], [10, 20, 30, 40])), (
    "the control explains all of x"
)


# %% tags=["hidden-tests"] exercise="partial" points=3
# Criterion: the correlation is that of the closed form, and only ranks count
def correlation_of_ranks(u, v):
    return np.corrcoef(rankdata(u), rankdata(v))[0, 1]


rng = np.random.default_rng(SEED)
for _ in range(20):
    c = rng.normal(size=9)
    u, v = np.exp(2 * c) + rng.normal(size=9), rng.integers(0, 4, 9) + c
    a, b, d = (
        correlation_of_ranks(u, v),
        correlation_of_ranks(u, c),
        correlation_of_ranks(v, c),
    )
    if (
        max(abs(b), abs(d)) > 0.999
    ):  # the control explains all, and the closed form divides by zero
        continue
    assert (
        abs(partial_rank(u, v, c) - (a - b * d) / np.sqrt((1 - b**2) * (1 - d**2)))
        < 1e-9
    ), "it differs from the closed form"
    assert abs(partial_rank(u, v, np.exp(5 * c)) - partial_rank(u, v, c)) < 1e-9, (
        "only the order of the control may count"
    )

# %% [markdown] tags=["solution-text"] exercise="partial"
# ```{solution-end}
# ```

# %% [markdown] exercise="holm"
# ```{exercise-start} Nineteen questions
# :label: ex-probes-holm
# ```
# With a level of 0.05 and nineteen questions whose true answer is no, one answer is yes by chance in every other table.
# Holm's procedure keeps the chance of *any* false yes below the level, whatever ties the questions to one another: sort the $n$ p-values upwards, compare the smallest with $0.05/n$, the next with $0.05/(n-1)$ and so on, and stop at the first that is not below.
#
# Turn it into adjusted p-values: write `holm(p)`, which returns for each p-value, in the order given, the smallest level at which the procedure would say yes to it, and at most 1.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="holm"
# ```{solution-start} ex-probes-holm
# :class: dropdown
# ```
# The $i$-th smallest (from 0) gets a yes at the level $\alpha$ only if $(n - i)\,p_{(i)} \leq \alpha$ *and* all before it got theirs.
# So its level is the largest of $(n - j)\,p_{(j)}$ over $j \leq i$: a running maximum.
# Why it works: at the first question whose true answer is no, at least as many questions are still open as there are true noes, so Bonferroni's bound for those covers the first false yes, and without a first there is none.


# %% tags=["solution"] exercise="holm"
def holm(p):
    """Adjusted p-values (n,)."""
    ### BEGIN SOLUTION
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(
        np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1
    )
    return adjusted
    ### END SOLUTION


# %% tags=["tests"] exercise="holm" points=2
assert np.allclose(holm([0.01, 0.3]), [0.02, 0.3]), (
    "the smallest counts for two questions, the next for one"
)
assert np.allclose(holm([0.3, 0.01]), [0.3, 0.02]), "the result is in the order given"
assert np.allclose(holm([0.6, 0.7]), [1, 1]), "no p-value exceeds 1"


# %% tags=["hidden-tests"] exercise="holm" points=3
# Criterion: each answer is that of the procedure, step by step, at every level
def says_yes(p, level):
    """The procedure itself, step by step."""
    yes = np.zeros(len(p), dtype=bool)
    for step, place in enumerate(np.argsort(p, kind="stable")):
        if p[place] * (len(p) - step) > level:
            break
        yes[place] = True
    return yes


assert np.allclose(holm([0.02, 0.021, 0.022]), 0.06), (
    "a later question cannot get its yes at a lower level than an earlier one"
)
rng = np.random.default_rng(SEED)
for _ in range(30):
    p = rng.random(7) ** 3
    for level in (0.01, 0.05, 0.2, 0.7):
        assert np.array_equal(holm(p) <= level, says_yes(p, level)), (
            "it differs from the procedure, step by step"
        )

# %% [markdown] tags=["solution-text"] exercise="holm"
# ```{solution-end}
# ```

# %% [markdown] exercise="redraw"
# ```{exercise-start} Eight networks, not twenty-four
# :label: ex-probes-redraw
# ```
# A table has M networks with S seeds each, (M, S), for a probe `x` and for robustness `y`.
# To see how much their rank correlation hangs on the networks that happen to be there, networks are drawn with replacement.
# Seeds of one network are not independent: taking all M S runs as so many rows pretends to know far more.
#
# Write `redraw(x, y, draws, rng)`, which returns (draws,) rank correlations.
# Each draw takes the means over the seeds, draws M networks with replacement, both columns alike, and correlates the ranks (averaged at ties) of the two drawn columns; where a drawn column does not vary, the result is `nan`.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="redraw"
# ```{solution-start} ex-probes-redraw
# :class: dropdown
# ```
# The rows of indices serve both columns, else the pairs are torn.
# A network that is drawn twice is a tie with itself in both columns: it adds weight, not knowledge.
# With three networks, one draw in nine holds a single network three times and has no correlation at all; with eight that is rare, but a draw holds only about five different ones.


# %% tags=["solution"] exercise="redraw"
def redraw(x, y, draws, rng):
    """Rank correlations of redrawn networks, x and y (M, S)."""
    ### BEGIN SOLUTION
    x, y = np.mean(x, 1), np.mean(y, 1)
    index = rng.integers(len(x), size=(draws, len(x)))
    u, v = (rankdata(values[index], axis=1) for values in (x, y))
    u, v = (ranks - ranks.mean(1, keepdims=True) for ranks in (u, v))
    size = np.sqrt((u**2).sum(1) * (v**2).sum(1))
    return np.where(size > 0, (u * v).sum(1) / np.where(size > 0, size, 1), np.nan)
    ### END SOLUTION


# %% tags=["tests"] exercise="redraw" points=2
two = np.array([[0.0, 0.2, 0.1], [1.0, 1.1, 0.9]])
found = redraw(two, -two, 2000, np.random.default_rng(0))
assert found.shape == (2000,), "one correlation a draw"
assert 0.45 < np.isnan(found).mean() < 0.55, (
    "half of the draws of two networks hold one of them twice, and nothing varies"
)
assert np.allclose(found[~np.isnan(found)], -1), (
    "where both are there, the columns are opposed"
)

# %% tags=["hidden-tests"] exercise="redraw" points=3
# Criterion: whole networks are drawn, with the known frequencies of each outcome
rng = np.random.default_rng(SEED)
order = rng.permutation(3)
x3 = np.array([0.0, 1.0, 2.0])[order][:, None] + 0.1 * rng.normal(size=(3, 4)) * [
    1,
    -1,
    1,
    -1,
]
y3 = np.array([0.0, 2.0, 1.0])[order][:, None] + 0.1 * rng.normal(size=(3, 4)) * [
    1,
    -1,
    1,
    -1,
]
found = redraw(x3, y3, 8000, np.random.default_rng(5))
shares = {value: np.isclose(found, value).mean() for value in (1.0, 0.5, -1.0)}
assert abs(np.isnan(found).mean() - 3 / 27) < 0.02, (
    "three of 27 equally likely draws hold one network only"
)
assert abs(shares[0.5] - 6 / 27) < 0.02, "six of 27 draws hold all three networks"
assert abs(shares[1.0] - 12 / 27) < 0.025 and abs(shares[-1.0] - 6 / 27) < 0.02, (
    "two networks agree or disagree entirely, however often each is drawn"
)

# %% [markdown] tags=["solution-text"] exercise="redraw"
# ```{solution-end}
# ```

# %% tags=["hide-input"]
run.finish()
