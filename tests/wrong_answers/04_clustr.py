# ruff: noqa: F811, F821
# %% [markdown]
# Plausible wrong answers to the graded exercises of chapter 4, with the points that each must get.

# %% exercise="refute" mistake="walks towards the second nearest centre" points=0
def refute(centers):
    tries = torch.randn(4_000, centers.shape[1], generator=torch.Generator().manual_seed(0), dtype=centers.dtype)
    tries = centers.mean(0) + 1.5 * centers.std(0) * tries
    d2 = squared(tries, centers)
    first, second = d2.topk(2, dim=1, largest=False).indices.T
    claim = claimed_radius(tries, centers)
    at = claim.argmax()
    way = centers[second[at]] - centers[first[at]]
    return tries[at], tries[at] + 0.94 * claim[at] * way / way.norm()


# %% exercise="refute" mistake="searches a box that fits the visible centres only" points=2
def refute(centers):
    tries = 6 * torch.rand(4_000, centers.shape[1], generator=torch.Generator().manual_seed(0), dtype=centers.dtype) - 3
    d2 = squared(tries, centers)
    nearest = d2.argmin(1, keepdim=True)
    apart = torch.cdist(centers, centers)[nearest[:, 0]]
    to_bisector = ((d2 - d2.gather(1, nearest)) / (2 * apart)).scatter(1, nearest, torch.inf)
    shortest, rival = to_bisector.min(1)
    at = (claimed_radius(tries, centers) / shortest).argmax()
    way = centers[rival[at]] - centers[nearest[at, 0]]
    return tries[at], tries[at] + (1 + 1e-6) * shortest[at] * way / way.norm()


# %% exercise="certificate" mistake="takes the nearest centre of another class for the only rival" points=1
def certificate(features, centers, kinds, lipschitz):
    d2 = squared(features, centers)
    own = d2.argmin(1)
    others = d2.masked_fill(kinds == kinds[own][:, None], torch.inf)
    rival = others.argmin(1)
    return (others.amin(1) - d2.amin(1)) / (2 * lipschitz * (centers[rival] - centers[own]).norm(dim=1))


# %% exercise="certificate" mistake="asks the nearest own centre only" points=3
def certificate(features, centers, kinds, lipschitz):
    d2 = squared(features, centers)
    own = d2.argmin(1)
    apart = torch.cdist(centers, centers)[own]
    same = kinds == kinds[own][:, None]
    return ((d2 - d2.amin(1, keepdim=True)) / (2 * apart)).masked_fill(same, torch.inf).amin(1) / lipschitz


# %% exercise="certificate" mistake="multiplies by the Lipschitz constant" points=0
def certificate(features, centers, kinds, lipschitz):
    d2 = squared(features, centers)
    own = kinds[d2.argmin(1)]
    best = torch.full_like(d2[:, 0], -torch.inf)
    for m in range(len(centers)):
        rivals = kinds != kinds[m]
        to_bisector = (d2[:, rivals] - d2[:, m, None]) / (2 * (centers[rivals] - centers[m]).norm(dim=1))
        best = torch.where(own == kinds[m], torch.maximum(best, to_bisector.amin(1)), best)
    return best * lipschitz


# %% exercise="magnet" mistake="puts a floor under the sum of exponentials" points=2
def magnet(features, labels, centers, kinds, alpha, variance):
    d2 = squared(features, centers)
    same = labels[:, None] == kinds
    total = (-d2 / (2 * variance)).exp().masked_fill(same, 0).sum(1)
    return (alpha + d2.masked_fill(~same, torch.inf).amin(1) / (2 * variance) + (total + 1e-8).log()).clamp(min=0)


# %% exercise="magnet" mistake="sums over the centres of all classes" points=0
def magnet(features, labels, centers, kinds, alpha, variance):
    d2 = squared(features, centers)
    same = labels[:, None] == kinds
    return (alpha + d2.masked_fill(~same, torch.inf).amin(1) / (2 * variance) + (-d2 / (2 * variance)).logsumexp(1)).clamp(min=0)


# %% exercise="magnet" mistake="takes the nearest rival for the sum over all rivals" points=2
def magnet(features, labels, centers, kinds, alpha, variance):
    d2 = squared(features, centers)
    same = labels[:, None] == kinds
    gap = d2.masked_fill(~same, torch.inf).amin(1) - d2.masked_fill(same, torch.inf).amin(1)
    return (alpha + gap / (2 * variance)).clamp(min=0)


# %% exercise="idle" mistake="takes an underflow for a zero" points=2
def without_gradient(features, labels, centers, nearest):
    leaf = features.clone().requires_grad_()
    log_kernel, at = (-squared(leaf, centers.flatten(0, 1)) / 2).topk(nearest, dim=1)
    own = (at // centers.shape[1] == labels[:, None]).double()
    kernel = log_kernel.exp()
    p = (kernel * own).sum(1) / kernel.sum(1)
    return (torch.autograd.grad(p.sum(), leaf)[0].nan_to_num().abs().amax(1) == 0) & own.any(1)


# %% exercise="idle" mistake="forgets the label" points=2
def without_gradient(features, labels, centers, nearest):
    kinds = squared(features, centers.flatten(0, 1)).topk(nearest, dim=1, largest=False).indices // centers.shape[1]
    return (kinds == kinds[:, :1]).all(1)


# %% exercise="idle" mistake="counts the nearest clusters of each class by itself" points=0
def without_gradient(features, labels, centers, nearest):
    per_class = squared(features, centers.flatten(0, 1)).unflatten(1, centers.shape[:2])
    counted = per_class.topk(min(nearest, centers.shape[1]), dim=2, largest=False).values.flatten(1)
    return counted.shape[1] * torch.ones(len(features)) == centers.shape[1]


# %% exercise="saturated" mistake="aims at the nearest rival only" points=2
def break_all(x, y, centers, eps):
    rival = squared(x, centers).scatter(1, y[:, None], torch.inf).argmin(1)
    return x + eps * (centers[rival] - centers[y]).sign()


# %% exercise="saturated" mistake="climbs the cross-entropy of the saturated scores" points=0
def break_all(x, y, centers, eps):
    leaf = x.clone().requires_grad_()
    loss = functional.cross_entropy((-squared(leaf, centers) / 2e-4).exp(), y, reduction="sum")
    return x + eps * torch.autograd.grad(loss, leaf)[0].sign()


# %% exercise="saturated" mistake="takes the step of the Euclidean norm" points=0
def break_all(x, y, centers, eps):
    way = centers - centers[y][:, None]
    ends = x[:, None] + eps * way / way.norm(dim=2, keepdim=True).clamp_min(1e-12)
    lead = (ends - centers[y][:, None]).square().sum(2) - (ends - centers).square().sum(2)
    return ends[torch.arange(len(x)), lead.scatter(1, y[:, None], -torch.inf).argmax(1)]


# %% exercise="merge" mistake="multiplies losses by successes" points=1
def merge(losses, broken):
    found = broken.any(0)
    kept = torch.where(found, (losses * broken).argmax(0), losses.argmax(0))
    return kept, int((found & ~broken.gather(0, losses.argmax(0)[None])[0]).sum())


# %% exercise="merge" mistake="counts starts, not images" points=0
def merge(losses, broken):
    found = broken.any(0)
    kept = losses.masked_fill(found & ~broken, -torch.inf).argmax(0)
    return kept, int(broken.sum() - broken.gather(0, losses.argmax(0)[None]).sum())


# %% exercise="merge" mistake="keeps the largest loss" points=0
def merge(losses, broken):
    kept = losses.argmax(0)
    return kept, int((broken.any(0) & ~broken.gather(0, kept[None])[0]).sum())


# %% exercise="convolution" mistake="takes the norm of the weights as a matrix" points=0
def convolution_norm(weight, height, width, padding):
    return float(torch.linalg.matrix_norm(weight.flatten(1), ord=2))


# %% exercise="convolution" mistake="takes the convolution for its own adjoint" points=2
def convolution_norm(weight, height, width, padding):
    u = torch.randn(1, weight.shape[1], height, width, generator=torch.Generator().manual_seed(0), dtype=weight.dtype)
    for _ in range(400):
        u = u / u.norm()
        image = functional.conv2d(u, weight, padding=padding)
        u = functional.conv2d(image, weight.transpose(0, 1), padding=weight.shape[2] - 1 - padding)
    return float(image.norm())


# %% exercise="convolution" mistake="lets the image wrap round, so that the size does not matter" points=0
def convolution_norm(weight, height, width, padding):
    spectrum = torch.fft.fft2(weight, s=(height, width)).permute(2, 3, 0, 1)
    return float(torch.linalg.matrix_norm(spectrum, ord=2).max())
