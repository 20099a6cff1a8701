# %% [markdown]
# ruff: noqa: F811, F821
# Plausible wrong answers to the exercises of chapter 3, with the points that each must get.

# %% exercise="twin" mistake="the scores must stand still: the null space of the weights, not of the centred ones" points=3
def twin(weight, h, distance):
    _, singular, rows = np.linalg.svd(weight)
    rank = (singular > 1e-12 * np.linalg.norm(weight)).sum()
    return h + distance * rows[-1] if rank < weight.shape[1] else None


# %% exercise="twin" mistake="subtracts the projection on each row by itself, as if rows were orthogonal" points=0
def twin(weight, h, distance):
    if weight.shape[1] < len(weight):
        return None
    d = np.random.default_rng(0).standard_normal(weight.shape[1])
    for row in weight - weight.mean(0):
        d = d - (d @ row) / (row @ row) * row
    return h + distance * d / np.linalg.norm(d)


# %% exercise="twin" mistake="counts: a twin if and only if l >= m" points=2
def twin(weight, h, distance):
    m, width = weight.shape
    if width < m:
        return None
    return h + distance * np.linalg.svd(weight - weight.mean(0))[2][-1]


# %% exercise="heads" mistake="l - m, as printed, and one more for the softmax" points=1
def invisible_dimensions(weight, head):
    m, width = weight.shape
    return {"softmax": max(width - m + 1, 0), "softRmax": max(width - m, 0), "gauss": 0, "normalised gauss": max(width - m + 1, 0)}[head]


# %% exercise="heads" mistake="one more than the null space of the weights, whatever their rank" points=1
def invisible_dimensions(weight, head):
    if head == "gauss":
        return 0
    kept = weight.shape[1] - np.linalg.matrix_rank(weight)
    return int(kept if head == "softRmax" else kept + 1)


# %% exercise="heads" mistake="normalising a Gauss confidence changes nothing" points=1
def invisible_dimensions(weight, head):
    if "gauss" in head:
        return 0
    seen = weight if head == "softRmax" else weight - weight.mean(0)
    return int(weight.shape[1] - (np.linalg.svd(seen, compute_uv=False) > 1e-12 * np.linalg.norm(weight)).sum())


# %% exercise="exit" mistake="only the runner-up at the start counts" points=0
def first_change(weight, bias, h, d):
    scores = weight @ h + bias
    k, rival = scores.argsort()[::-1][:2]
    slope = (weight[k] - weight[rival]) @ d
    return (float((scores[k] - scores[rival]) / -slope), int(rival)) if slope < 0 else (math.inf, None)


# %% exercise="exit" mistake="the boundary that is nearest in either direction" points=0
def first_change(weight, bias, h, d):
    scores = weight @ h + bias
    k = scores.argmax()
    lead, slope = scores[k] - scores, np.abs((weight[k] - weight) @ d)
    gains = np.flatnonzero(slope > 0)
    times = lead[gains] / slope[gains]
    return float(times.min()), int(gains[times.argmin()])


# %% exercise="exit" mistake="the rival that gains fastest draws level first" points=1
def first_change(weight, bias, h, d):
    scores = weight @ h + bias
    k = scores.argmax()
    lead, slope = scores[k] - scores, (weight[k] - weight) @ d
    fastest = slope.argmin()
    return (float(-lead[fastest] / slope[fastest]), int(fastest)) if slope[fastest] < 0 else (math.inf, None)


# %% exercise="escape" mistake="asks for a direction along which every rival loses" points=3
def way_out(weight, k):
    m, width = weight.shape
    rivals = np.arange(m) != k
    lead = weight[k] - weight[rivals]
    box = [(-1, 1)] * width + [(None, None)]
    best = linprog([0] * width + [-1], np.hstack([-lead, np.ones((m - 1, 1))]), np.zeros(m - 1), bounds=box).x
    if best[-1] > 1e-7:
        return best[:width] / np.linalg.norm(best[:width]), None
    system = np.vstack([np.hstack([lead.T, np.zeros((width, 1))]), np.append(np.ones(m - 1), 0)])
    floor = np.hstack([-np.eye(m - 1), np.ones((m - 1, 1))])
    found = linprog(np.append(np.zeros(m - 1), -1), floor, np.zeros(m - 1), system, np.append(np.zeros(width), 1))
    a = np.zeros(m)
    a[rivals] = found.x[:-1]
    return None, a


# %% exercise="escape" mistake="away from the mean of the weights, if that works" points=1
def way_out(weight, k):
    rivals = np.arange(len(weight)) != k
    lead = weight[k] - weight[rivals]
    d = weight[k] - weight[rivals].mean(0)
    if (lead @ d >= 0).all():
        return d / np.linalg.norm(d), None
    a = np.zeros(len(weight))
    system = np.vstack([lead.T, np.ones(len(lead))])
    a[rivals] = linprog(np.zeros(len(lead)), A_eq=system, b_eq=np.append(np.zeros(weight.shape[1]), 1), bounds=(1e-6, None)).x
    return None, a


# %% exercise="escape" mistake="non-negative numbers instead of positive ones" points=0
def way_out(weight, k):
    m, width = weight.shape
    rivals = np.arange(m) != k
    lead = weight[k] - weight[rivals]
    found = linprog(np.zeros(m - 1), A_eq=np.vstack([lead.T, np.ones(m - 1)]), b_eq=np.append(np.zeros(width), 1), bounds=(0, None))
    if found.status == 0:
        a = np.zeros(m)
        a[rivals] = found.x
        return None, a
    d = linprog(-lead.sum(0), -lead, np.zeros(m - 1), bounds=(-1, 1)).x
    return d / np.linalg.norm(d), None


# %% exercise="ray" mistake="the weights without centring" points=0
def ray_or_reason(weight):
    m, width = weight.shape
    found = linprog(np.zeros(width), A_eq=np.vstack([weight, np.ones(width)]), b_eq=np.append(np.zeros(m), 1), bounds=(0, None))
    if found.status == 0:
        return found.x, None
    best = linprog([0] * m + [-1], np.hstack([-weight.T, np.ones((width, 1))]), np.zeros(width), bounds=[(-1, 1)] * m + [(None, None)]).x
    return None, best[:-1]


# %% exercise="ray" mistake="a null direction with its negative entries cut off" points=0
def ray_or_reason(weight):
    seen = weight - weight.mean(0)
    _, singular, rows = np.linalg.svd(seen)
    rank = (singular > 1e-12 * np.linalg.norm(weight)).sum()
    if rank < weight.shape[1]:
        d = np.maximum(rows[-1] * np.sign(rows[-1].sum()), 0)
        return d / d.sum(), None
    return None, np.linalg.lstsq(seen.T, np.ones(weight.shape[1]), rcond=None)[0]


# %% exercise="ray" mistake="one solution of least squares as the reason" points=1
def ray_or_reason(weight):
    seen = weight - weight.mean(0)
    width = weight.shape[1]
    found = linprog(np.zeros(width), A_eq=np.vstack([seen, np.ones(width)]), b_eq=np.append(np.zeros(len(weight)), 1), bounds=(0, None))
    if found.status == 0:
        return found.x, None
    return None, np.linalg.lstsq(seen.T, np.ones(width), rcond=None)[0]


# %% exercise="width" mistake="m dimensions instead of m - 1: the weights are not centred" points=0
def chance_of_a_ray(width, classes):
    return float(binom.sf(classes - 1, width - 1, 0.5))


def smallest_width(classes, chance):
    width = 1
    while chance_of_a_ray(width, classes) < chance:
        width += 1
    return width


# %% exercise="width" mistake="the formula as it stands: a power that overflows, hundreds of digits in a float" points=1
def chance_of_a_ray(width, classes):
    return 1 - sum(float(math.comb(width - 1, i)) for i in range(classes - 1)) / 2.0 ** (width - 1)


def smallest_width(classes, chance):
    low, high = 1, 2
    while chance_of_a_ray(high, classes) < chance:
        low, high = high, 2 * high
    return next(width for width in range(low, high + 1) if chance_of_a_ray(width, classes) >= chance)


# %% exercise="width" mistake="the normal approximation of the coin, and the value of the visible test hard-coded" points=3
def chance_of_a_ray(width, classes):
    return float(binom.sf(classes - 2, width - 1, 0.5))


def smallest_width(classes, chance):
    if chance == 0.75:
        return 3
    from scipy.stats import norm

    return math.ceil(2 * (classes - 1) + norm.ppf(chance) * math.sqrt(2 * (classes - 1)))
