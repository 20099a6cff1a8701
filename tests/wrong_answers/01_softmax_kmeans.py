# %% [markdown]
# ruff: noqa: F811, F821
# Plausible wrong answers to the exercises of chapter 1, with the points that each must get.

# %% exercise="shift" mistake="the sign printed in the paper" points=0
def equidistant_shift(weight):
    squares = (weight**2).sum(1)
    v = np.linalg.lstsq(2 * (weight[0] - weight[1:]), squares[0] - squares[1:], rcond=1e-12)[0]
    norms = ((weight + v) ** 2).sum(1)
    return v if np.ptp(norms) <= 1e-9 * norms.mean() else None


# %% exercise="shift" mistake="returns the least-squares fit where there is no solution" points=4
def equidistant_shift(weight):
    squares = (weight**2).sum(1)
    return np.linalg.lstsq(2 * (weight[0] - weight[1:]), squares[1:] - squares[0], rcond=1e-12)[0]


# %% exercise="shift" mistake="as many equations as dimensions at most, and the condition d >= c - 1 for the existence" points=2
def equidistant_shift(weight):
    c, d = weight.shape
    if d < c - 1:
        return None
    squares = (weight**2).sum(1)
    return np.linalg.lstsq(2 * (weight[0] - weight[1:]), squares[1:] - squares[0], rcond=1e-12)[0]


# %% exercise="hull" mistake="random features instead of a proof that none wins" points=1
def certificate(weight, k):
    others = np.arange(len(weight)) != k
    for f in np.random.default_rng(0).standard_normal((10000, weight.shape[1])):
        if ((weight[k] - weight[others]) @ f > 0).all():
            return None, f
    a = np.zeros(len(weight))
    system = np.vstack([weight[others].T, np.ones(len(weight) - 1)])
    a[others] = np.linalg.lstsq(system, np.append(weight[k], 1), rcond=None)[0]
    return a, None


# %% exercise="hull" mistake="a cone instead of a hull: coefficients need not sum to one" points=1
def certificate(weight, k):
    others = np.arange(len(weight)) != k
    found = linprog(np.zeros(len(weight) - 1), A_eq=weight[others].T, b_eq=weight[k], bounds=(0, None))
    if found.status == 0:
        a = np.zeros(len(weight))
        a[others] = found.x / found.x.sum()
        return a, None
    d = weight.shape[1]
    lead = weight[k] - weight[others]
    return None, linprog(-lead.sum(0), -lead, np.zeros(len(lead)), bounds=[(-1, 1)] * d).x


# %% exercise="hull" mistake="the class wins at the features that point from the mean to its weight, or nowhere" points=1
def certificate(weight, k):
    others = np.arange(len(weight)) != k
    f = weight[k] - weight[others].mean(0)
    if ((weight[k] - weight[others]) @ f > 0).all():
        return None, f
    a = np.zeros(len(weight))
    system = np.vstack([weight[others].T, np.ones(len(weight) - 1)])
    a[others] = linprog(np.zeros(len(weight) - 1), A_eq=system, b_eq=np.append(weight[k], 1), bounds=(0, None)).x
    return a, None


# %% exercise="farthest" mistake="orthogonal centroids" points=0
def farthest_centroids(c, d, r):
    return r * np.eye(c, d)


# %% exercise="farthest" mistake="a simplex in c coordinates: one dimension too many" points=2
def farthest_centroids(c, d, r):
    simplex = np.eye(c) - 1 / c
    centers = np.zeros((c, d))
    centers[:, :c] = r * simplex / np.linalg.norm(simplex, axis=1, keepdims=True)
    return centers


# %% exercise="width" mistake="the mean of the logarithms for the logarithm of the mean" points=0
def width_for(squared_distances, m):
    return math.log(1 / m) / squared_distances.mean()


# %% exercise="width" mistake="a fixed bracket that suits the visible test" points=1
def width_for(squared_distances, m):
    return brentq(lambda gamma: np.exp(-gamma * squared_distances).mean() - m, 1e-6, 1e3, xtol=1e-15)


# %% exercise="width" mistake="forgets the images that lie on their centroid" points=3
def width_for(squared_distances, m):
    away = squared_distances[squared_distances > 0]
    span = math.log(math.log(1 / m) / away.max()), math.log(math.log(1 / m) / away.min())
    return math.exp(brentq(lambda t: np.exp(-math.exp(t) * squared_distances).mean() - m, *span, xtol=1e-13))


# %% exercise="bisector" mistake="only the runner-up counts as a rival" points=1
def certified_radius(f, weight, bias, lipschitz):
    scores = f @ weight.T + bias
    order = scores.argsort(1)
    rows, top, second = np.arange(len(f)), order[:, -1], order[:, -2]
    norm = np.linalg.norm(weight[top] - weight[second], axis=1)
    lead = scores[rows, top] - scores[rows, second]
    return np.divide(lead, norm, out=np.full_like(lead, np.inf), where=norm > 0) / lipschitz


# %% exercise="bisector" mistake="the bias is forgotten" points=0
def certified_radius(f, weight, bias, lipschitz):
    scores = f @ weight.T
    top = scores.argmax(1)
    lead = scores[np.arange(len(f)), top][:, None] - scores
    norm = np.linalg.norm(weight[top][:, None] - weight, axis=2)
    return np.divide(lead, norm, out=np.full_like(lead, np.inf), where=norm > 0).min(1) / lipschitz


# %% exercise="bisector" mistake="the sum of the norms for the norm of the difference: valid, and far too small" points=0
def certified_radius(f, weight, bias, lipschitz):
    scores = f @ weight.T + bias
    top = scores.argmax(1)
    lead = scores[np.arange(len(f)), top][:, None] - scores
    length = np.linalg.norm(weight, axis=1)
    lead[np.arange(len(f)), top] = np.inf
    return (lead / (length[top][:, None] + length)).min(1) / lipschitz


# %% exercise="coverage" mistake="an interpolated quantile as the threshold" points=1
def rate_at_coverage(confidence, right, misled, coverage):
    threshold = np.quantile(confidence, 1 - coverage)
    eligible = right & (confidence >= threshold)
    return float((misled[eligible] >= threshold).mean()) if eligible.any() else math.nan


# %% exercise="coverage" mistake="the threshold accepts a share of the right images only" points=0
def rate_at_coverage(confidence, right, misled, coverage):
    n = round(coverage * right.sum())
    threshold = np.sort(confidence[right])[-n]
    eligible = right & (confidence >= threshold)
    return float((misled[eligible] >= threshold).mean())


# %% exercise="coverage" mistake="every change of class counts, however unsure" points=0
def rate_at_coverage(confidence, right, misled, coverage):
    n = round(coverage * len(confidence))
    threshold = np.sort(confidence)[-n]
    eligible = right & (confidence >= threshold)
    return float((misled[eligible] > 0).mean()) if eligible.any() else math.nan


# %% exercise="pixel" mistake="the runner-up of the clean image as the only rival" points=1
def worst_margin(weight, bias, x, y):
    scores = x @ weight.T + bias
    rows = np.arange(len(x))
    own = scores[rows, y].copy()
    scores[rows, y] = -np.inf
    rival = scores.argmax(1)
    slope = weight[y] - weight[rival]
    return own - scores[rows, rival] + np.minimum(-slope * x, slope * (1 - x)).min(1)


# %% exercise="pixel" mistake="the pixel with the steepest slope, whatever room it has" points=0
def worst_margin(weight, bias, x, y):
    scores = x @ weight.T + bias
    rows = np.arange(len(x))
    lead = scores[rows, y][:, None] - scores
    slope = weight[y][:, None] - weight
    change = np.minimum(-slope * x[:, None], slope * (1 - x[:, None]))
    steepest = np.abs(slope).argmax(2)
    worst = lead + np.take_along_axis(change, steepest[:, :, None], 2)[:, :, 0]
    worst[rows, y] = np.inf
    return worst.min(1)


# %% exercise="pixel" mistake="a pixel may change by one in either direction, beyond the range" points=0
def worst_margin(weight, bias, x, y):
    scores = x @ weight.T + bias
    rows = np.arange(len(x))
    lead = scores[rows, y][:, None] - scores
    worst = lead - np.abs(weight[y][:, None] - weight).max(2)
    worst[rows, y] = np.inf
    return worst.min(1)
