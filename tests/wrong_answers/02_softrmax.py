# %% [markdown]
# ruff: noqa: F811, F821
# Plausible wrong answers to the exercises of chapter 2, with the points that each must get.

# %% exercise="pole" mistake="the right values and no gradient: infinity in the branch that is not taken" points=2
def softrmax_everywhere(z):
    d = (z[:, None] - torch.eye(z.shape[1], dtype=z.dtype)).square().sum(2)
    inverse = 1 / d
    p = inverse / inverse.sum(1, keepdim=True)
    at_centre = (d == 0).any(1, keepdim=True)
    return torch.where(at_centre, (d == 0).to(z.dtype), p)


# %% exercise="pole" mistake="a constant added to the distances" points=3
def softrmax_everywhere(z):
    d = (z[:, None] - torch.eye(z.shape[1], dtype=z.dtype)).square().sum(2)
    inverse = 1 / (d + 1e-12)
    return inverse / inverse.sum(1, keepdim=True)


# %% exercise="pole" mistake="the distance for its square" points=0
def softrmax_everywhere(z):
    k = z.shape[1]
    one = torch.eye(k, dtype=z.dtype)
    d = (z[:, None] - one).square().sum(2).clamp_min(1e-300).sqrt()
    others = d[:, None].expand(-1, k, k).masked_fill(one.bool(), 1.0).prod(2)
    return others / others.sum(1, keepdim=True)


# %% exercise="lead" mistake="the difference of two logarithms, as it is written" points=1
def log_lead(z):
    d = ((z[:, None] - np.eye(z.shape[1])) ** 2).sum(2)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.log(d) - np.log(d.min(1, keepdims=True))


# %% exercise="lead" mistake="the right quotient, and log(1 + q) instead of log1p(q)" points=2
def log_lead(z):
    rows, m = np.arange(len(z)), z.argmax(1)
    gap = z[rows, m][:, None] - z
    away = z.copy()
    away[rows, m] -= 1
    size = np.abs(away).max(1, keepdims=True)
    size[size == 0] = 1
    nearest = size * ((away / size) ** 2).sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(1 + np.where(gap == 0, 0.0, 2 * (gap / size) / nearest))


# %% exercise="lead" mistake="the norm of z for the distance to the nearest centre" points=0
def log_lead(z):
    gap = z.max(1, keepdims=True) - z
    size = np.abs(z).max(1, keepdims=True)
    return np.log1p(2 * (gap / size) / (size * ((z / size) ** 2).sum(1, keepdims=True)))


# %% exercise="limit" mistake="1/k whatever the scales" points=0
def posterior_far_out(scales, nus, priors):
    return np.full(len(scales), 1 / len(scales))


# %% exercise="limit" mistake="all classes stay, whatever their degrees of freedom" points=1
def posterior_far_out(scales, nus, priors):
    logarithm = np.log(priors) + nus * np.log(scales)
    limit = np.exp(logarithm - logarithm.max())
    return limit / limit.sum()


# %% exercise="limit" mistake="the priors are forgotten" points=3
def posterior_far_out(scales, nus, priors):
    logarithm = np.where(nus == nus.min(), nus.min() * np.log(scales), -np.inf)
    limit = np.exp(logarithm - logarithm.max())
    return limit / limit.sum()


# %% exercise="weight" mistake="only the limit in the tail" points=0
def largest_weight(target, source, nu, lam):
    return (target[1] / source[1]) ** (nu * lam)


# %% exercise="weight" mistake="the larger of the weight at the target's centre and the limit" points=1
def largest_weight(target, source, nu, lam):
    centre = stats.t.pdf(target[0], nu, *target) / stats.t.pdf(target[0], nu, *source)
    return max(centre, (target[1] / source[1]) ** nu) ** lam


# %% exercise="weight" mistake="a search on a fixed interval" points=1
def largest_weight(target, source, nu, lam):
    x = np.linspace(-1000, 1000, 200_001)
    weight = np.exp(lam * (stats.t.logpdf(x, nu, *target) - stats.t.logpdf(x, nu, *source)))
    return max(float(weight.max()), (target[1] / source[1]) ** (nu * lam))


# %% exercise="ascent" mistake="climbs the softRmax loss itself" points=0
def strongest(scores, x, y, eps):
    def loss(z, y):
        d = (z[:, None] - torch.eye(z.shape[1], dtype=z.dtype)).square().sum(2)
        return -(-d.log()).log_softmax(1).gather(1, y[:, None])[:, 0]

    return climb(scores, loss, x, y, eps)


# %% exercise="ascent" mistake="the margin alone, which follows the runner-up of the moment" points=3
def strongest(scores, x, y, eps):
    def loss(z, y):
        own = z.gather(1, y[:, None])[:, 0]
        return z.scatter(1, y[:, None], -torch.inf).amax(1) - own

    return climb(scores, loss, x, y, eps)


# %% exercise="ascent" mistake="cross-entropy on z, which saturates" points=2
def strongest(scores, x, y, eps):
    best = x.clone()
    for rival in range(scores(x).shape[1]):
        found = climb(scores, lambda z, y, rival=rival: z.softmax(1)[:, rival] - z.softmax(1).gather(1, y[:, None])[:, 0], x, y, eps)
        for candidate in (found, climb(scores, lambda z, y: torch.nn.functional.cross_entropy(z, y, reduction="none"), x, y, eps)):
            fallen = scores(candidate).argmax(1) != y
            best[fallen] = candidate[fallen]
    return best


# %% exercise="inward" mistake="plain clipping in float32" points=2
def keep_inside(x_adv, x, eps):
    eps = np.float32(eps)
    return np.clip(np.clip(x_adv, x - eps, x + eps), np.float32(0), np.float32(1))


# %% exercise="inward" mistake="a slightly smaller eps" points=3
def keep_inside(x_adv, x, eps):
    eps = np.float32(max(eps - 1e-7, 0))
    return np.clip(np.clip(x_adv, x - eps, x + eps), np.float32(0), np.float32(1))


# %% exercise="inward" mistake="one number inward everywhere, needed or not" points=3
def keep_inside(x_adv, x, eps):
    exact = x.astype(np.float64)
    low, high = np.maximum(exact - eps, 0).astype(np.float32), np.minimum(exact + eps, 1).astype(np.float32)
    low, high = np.minimum(np.nextafter(low, np.float32(2)), x), np.maximum(np.nextafter(high, np.float32(-1)), x)
    return np.clip(x_adv, low, high)
