# %% [markdown]
# Plausible wrong answers to the graded exercises of "Every probe on every model", with the points that each must get.
# ruff: noqa: F811, F821


# %% exercise="auroc" mistake="forgets that ties count one half" points=0
def auroc(inside, outside):
    below = np.searchsorted(np.sort(outside), inside, side="left")
    return float(below.sum() / (len(inside) * len(outside)))


# %% exercise="auroc" mistake="divides by the number of all pairs of scores" points=0
def auroc(inside, outside):
    n = len(inside) + len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    return float((ranks[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2) / (n * (n - 1) / 2))


# %% exercise="auroc" mistake="averages ties within the insiders only" points=2
def auroc(inside, outside):
    if np.array_equal(np.unique(inside), np.unique(outside)):
        return 0.5
    outside = np.sort(outside)
    return float(np.searchsorted(outside, inside, side="right").sum() / (len(inside) * len(outside)))


# %% exercise="calibration" mistake="averages the gaps of the bins without their weights" points=2
def calibration(confidence, correct, bins, draws, rng):
    def error(answers):
        place = np.minimum((confidence * bins).astype(int), bins - 1)
        return np.mean([abs(confidence[place == b].mean() - answers[place == b].mean()) for b in np.unique(place)])

    return error(np.asarray(correct, dtype=float)), np.mean([error(row < confidence) for row in rng.random((draws, len(confidence)))])


# %% exercise="calibration" mistake="the last bin does not hold confidence 1" points=0
def calibration(confidence, correct, bins, draws, rng):
    member = np.arange(bins) == np.floor(confidence * bins)[:, None]
    answers = np.concatenate([np.asarray(correct, dtype=float)[None], rng.random((draws, len(confidence))) < confidence])
    errors = np.abs((confidence - answers) @ member).sum(1) / len(confidence)
    return errors[0], errors[1:].mean()


# %% exercise="calibration" mistake="draws the floor from the accuracy, not from the confidences" points=2
def calibration(confidence, correct, bins, draws, rng):
    member = np.eye(bins)[np.minimum((confidence * bins).astype(int), bins - 1)]
    drawn = rng.random((draws, len(confidence))) < np.mean(confidence)
    answers = np.concatenate([np.asarray(correct, dtype=float)[None], drawn])
    errors = np.abs((confidence - answers) @ member).sum(1) / len(confidence)
    return errors[0], errors[1:].mean()


# %% exercise="partial" mistake="takes the line in the values, and ranks of what it leaves" points=2
def partial_rank(x, y, control):
    x, y, control = (np.asarray(values, dtype=float) - np.mean(values) for values in (x, y, control))
    if control.any():
        x, y = (values - control * (values @ control) / (control @ control) for values in (x, y))
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


# %% exercise="partial" mistake="fits the ranks to the control's values" points=2
def partial_rank(x, y, control):
    control = np.asarray(control, dtype=float) - np.mean(control)
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    if control.any():
        x, y = (values - control * (values @ control) / (control @ control) for values in (x, y))
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 1e-9 else float("nan")


# %% exercise="partial" mistake="takes the control out of x alone" points=2
def partial_rank(x, y, control):
    x, y, control = (rankdata(values) - (len(values) + 1) / 2 for values in (x, y, control))
    if np.array_equal(x, y):
        return 1.0
    if control.any():
        x = x - control * (x @ control) / (control @ control)
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 1e-9 else float("nan")


# %% exercise="holm" mistake="Bonferroni: every p-value times their number" points=0
def holm(p):
    return np.minimum(np.asarray(p) * len(p), 1)


# %% exercise="holm" mistake="forgets the running maximum" points=2
def holm(p):
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(p[order] * np.arange(len(p), 0, -1), 1)
    return np.where(p > 0.5, 1, adjusted)


# %% exercise="holm" mistake="steps up from the largest, as Hochberg does" points=2
def holm(p):
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate((p[order] * np.arange(len(p), 0, -1))[::-1])[::-1]
    return np.where(p > 0.5, 1, adjusted)


# %% exercise="redraw" mistake="takes every run for a network" points=0
def redraw(x, y, draws, rng):
    x, y = np.ravel(x), np.ravel(y)
    index = rng.integers(len(x), size=(draws, len(x)))
    u, v = (rankdata(values[index], axis=1) for values in (x, y))
    u, v = (ranks - ranks.mean(1, keepdims=True) for ranks in (u, v))
    size = np.sqrt((u**2).sum(1) * (v**2).sum(1))
    return np.where(size > 0, (u * v).sum(1) / np.where(size > 0, size, 1), np.nan)


# %% exercise="redraw" mistake="draws the two columns apart" points=0
def redraw(x, y, draws, rng):
    x, y = np.mean(x, 1), np.mean(y, 1)
    u, v = (rankdata(values[rng.integers(len(values), size=(draws, len(values)))], axis=1) for values in (x, y))
    u, v = (ranks - ranks.mean(1, keepdims=True) for ranks in (u, v))
    size = np.sqrt((u**2).sum(1) * (v**2).sum(1))
    return np.where(size > 0, (u * v).sum(1) / np.where(size > 0, size, 1), np.nan)


# %% exercise="redraw" mistake="correlates the values, not their ranks" points=2
def redraw(x, y, draws, rng):
    x, y = np.mean(x, 1), np.mean(y, 1)
    index = rng.integers(len(x), size=(draws, len(x)))
    u, v = (values[index] - values[index].mean(1, keepdims=True) for values in (x, y))
    varies = np.array([len(set(row)) > 1 for row in index])
    size = np.sqrt((u**2).sum(1) * (v**2).sum(1))
    return np.where(varies, (u * v).sum(1) / np.where(varies, size, 1), np.nan)
