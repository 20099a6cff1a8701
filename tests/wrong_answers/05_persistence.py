# ruff: noqa: F811, F821
# %% [markdown]
# Plausible wrong answers to the graded exercises of chapter 5, with the points that each must get.

# %% exercise="sheets" mistake="uses the closed form at the mean distance" points=3
def sheet_persistence(distances, gamma):
    if gamma <= 2.0 ** -len(distances):
        return math.inf
    return float(np.mean(distances) / stats.norm.ppf(gamma ** (1 / len(distances))))


# %% exercise="sheets" mistake="forgets that the class keeps a share of any noise" points=3
def sheet_persistence(distances, gamma):
    def excess(log_sigma):
        return sum(stats.norm.logcdf(d / math.exp(log_sigma)) for d in distances) - math.log(gamma)

    ends = math.log(min(distances)) - 8, math.log(max(distances)) + 8
    return math.exp(brentq(excess, *ends, xtol=1e-12))


# %% exercise="sheets" mistake="shares the lost noise evenly among the sheets" points=2
def sheet_persistence(distances, gamma):
    if gamma <= 2.0 ** -len(distances):
        return math.inf
    return float(np.min(distances) / stats.norm.ppf(1 - (1 - gamma) / len(distances)))


# %% exercise="interval" mistake="takes the normal approximation" points=0
def interval(kept, samples, confidence):
    share = kept / samples
    half = stats.norm.ppf((1 + confidence) / 2) * math.sqrt(share * (1 - share) / samples)
    return max(0.0, share - half), min(1.0, share + half)


# %% exercise="interval" mistake="uses the same Beta distribution for both ends" points=2
def interval(kept, samples, confidence):
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, kept, samples - kept + 1) if kept > 0 else 0.0
    high = stats.beta.isf(tail, kept, samples - kept + 1) if 0 < kept < samples else float(kept > 0)
    return float(low), float(high)


# %% exercise="interval" mistake="spends the whole error on each side" points=0
def interval(kept, samples, confidence):
    tail = 1 - confidence
    low = stats.beta.ppf(tail, kept, samples - kept + 1) if kept > 0 else 0.0
    high = stats.beta.isf(tail, kept + 1, samples - kept) if kept < samples else 1.0
    return float(low), float(high)


# %% exercise="search" mistake="halves sigma, not its logarithm" points=2
def search(stability, gamma, cap):
    low, high = 1e-5, cap
    if stability(high) >= gamma:
        return math.inf
    if stability(low) < gamma:
        return 0.0
    for _ in range(30):
        sigma = (low + high) / 2
        low, high = (sigma, high) if stability(sigma) >= gamma else (low, sigma)
    return (low + high) / 2


# %% exercise="search" mistake="has no cap, as published" points=2
def search(stability, gamma, cap):
    low, high = 0.5, 1.5
    while stability(low) < gamma:
        low /= 2
    while stability(high) > gamma:
        high *= 2
    for _ in range(25):
        sigma = math.sqrt(low * high)
        low, high = (sigma, high) if stability(sigma) >= gamma else (low, sigma)
    return math.sqrt(low * high)


# %% exercise="search" mistake="stops when the share is close to gamma" points=0
def search(stability, gamma, cap):
    low, high = 1e-5, cap
    if stability(high) >= gamma:
        return math.inf
    if stability(low) < gamma:
        return 0.0
    for _ in range(30):
        sigma = math.sqrt(low * high)
        share = stability(sigma)
        if abs(share - gamma) < 0.01:
            break
        low, high = (sigma, high) if share >= gamma else (low, sigma)
    return sigma


# %% exercise="outside" mistake="bisects as if the stability never came back" points=2
def outside_persistence(x1, x2, gamma):
    def excess(sigma):
        return 1 - stats.norm.cdf(x1 / sigma) * stats.norm.cdf(x2 / sigma) - gamma

    low, high = 1e-6, 1e9
    return math.inf if excess(high) >= 0 else float(brentq(excess, low, high, xtol=1e-13))


# %% exercise="outside" mistake="takes the boundary to be flat" points=0
def outside_persistence(x1, x2, gamma):
    return -min(x1, x2) / float(stats.norm.ppf(gamma))


# %% exercise="outside" mistake="forgets that no sigma at all may be unstable" points=0
def outside_persistence(x1, x2, gamma):
    sigmas = np.geomspace(1e-4, 1e6, 20_000)
    stable = 1 - stats.norm.cdf(x1 / sigmas) * stats.norm.cdf(x2 / sigmas) >= gamma
    return float(sigmas[np.argmin(stable)])


# %% exercise="units" mistake="gives the pair that refutes the visible test" points=1
def refute_bound(sigma):
    return 784, 8.0


# %% exercise="units" mistake="takes the length for as spread as a coordinate" points=0
def refute_bound(sigma):
    for eps in np.linspace(0.5, 60, 240):
        if 2 * stats.norm.sf(eps / sigma) > 1.1 * 2 * math.exp(-(eps**2) / 16):
            return 10_000, float(eps)


# %% exercise="peeking" mistake="adds up the looks" points=2
def ever_stops(stops, p, samples):
    return float(sum(stats.binom.pmf(kept, m, p) for m in range(1, samples + 1) for kept in range(m + 1) if stops(m, kept)))


# %% exercise="peeking" mistake="looks at the end only" points=0
def ever_stops(stops, p, samples):
    return float(sum(stats.binom.pmf(kept, samples, p) for kept in range(samples + 1) if stops(samples, kept)))


# %% exercise="peeking" mistake="leaves out the last copy" points=1
def ever_stops(stops, p, samples):
    on_the_way, stopped = np.ones(1), 0.0
    for m in range(1, samples):
        on_the_way = np.r_[on_the_way * (1 - p), 0.0] + np.r_[0.0, on_the_way * p]
        caught = np.array([stops(m, kept) for kept in range(m + 1)])
        stopped += on_the_way[caught].sum()
        on_the_way[caught] = 0.0
    return float(stopped)


# %% exercise="rounding" mistake="clips in float32" points=3
def sign_step(x, z, g, eps, alpha):
    return torch.minimum(torch.maximum(z - alpha * g.sign(), x - eps), x + eps).clamp(0, 1)


# %% exercise="rounding" mistake="makes the ball smaller to be safe" points=3
def sign_step(x, z, g, eps, alpha):
    eps = eps - 5e-7
    return torch.minimum(torch.maximum(z - alpha * g.sign(), x - eps), x + eps).clamp(0, 1)


# %% exercise="rounding" mistake="climbs away from the target" points=0
def sign_step(x, z, g, eps, alpha):
    low, high = (x.double() - eps).clamp(min=0), (x.double() + eps).clamp(max=1)
    low32, high32 = low.float(), high.float()
    low32 = torch.where(low32.double() < low, torch.nextafter(low32, torch.full_like(x, torch.inf)), low32)
    high32 = torch.where(high32.double() > high, torch.nextafter(high32, torch.full_like(x, -torch.inf)), high32)
    return torch.minimum(torch.maximum(z + alpha * g.sign(), low32), high32)
