# %% [markdown]
# # Persistence
#
# {cite:t}`bell2023` looks at adversarial examples from the inside.
# Add Gaussian noise to an adversarial image and its new class is soon lost; add the same noise to a natural image and its class stays.
# The largest noise that an image stands, its *persistence*, is offered as a probe of the decision boundary: adversarial images are said to sit in narrow cones of their class, natural ones outside.
#
# There are three reasons to look again.
# On any boundary, a flat one too, persistence is zero and grows with the distance, and an adversarial image is an image close to the boundary.
# How close is a choice of the attack, and the paper prints neither the budget of one attack nor the stopping rule of the other.
# And the algorithm that computes persistence may look for a bracket without end, or end at a crossing that the definition does not mean.
#
# This chapter re-runs the attacks of the introduction and every claim of part I, with an algorithm that says how sure it is.
# Then it asks the second question: what does persistence know that the distance to the boundary does not?

# %% tags=["parameters"]
profile: str = "quick"  # quick, standard or paper: which column of data/profiles/05_persistence.yml
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, for example {"samples": 4000}

# %% tags=["hide-input"]
import contextlib
import io
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy import optimize, stats
from sklearn.metrics import roc_auc_score, roc_curve
from torch.nn import functional

from support import attacks, evaluation, models, smoothing, training
from support.book import chapter_run, plots
from support.models import pretrained

run = chapter_run.start("05_persistence", profile, seed, device, overrides)
p = run.profile
plots.use_style()
GAMMA, K = 0.7, 10
NATURAL, ADVERSARIAL = plots.PALETTE[:2]

# %% [markdown]
# ## What we check
#
# The table lists the claims with the numbers that the paper prints.
# *Identity* claims hold or fail on any computer, *empirical* ones depend on trained networks, *robustness* claims are judged twice: under the paper's protocol, and by what is left of them at matched distances, at other budgets, and against an adversary who knows the probe.

# %% tags=["hide-input", "output_scroll"]
run.show_claims()

# %% [markdown]
# ## Three attacks
#
# ### Signs
#
# IGSM {cite:p}`kurakin2017`, which others call BIM, follows the sign of the gradient and cuts the result to a ball in the maximum norm.
# The paper's Equations 4 and 5 write the loss as a function of the image twice; the second argument is the label $y$.
# Towards a target class $t$ the step is
#
# $$x_{m+1} = \operatorname{clip}_{x, \epsilon} \{ x_m - \alpha \operatorname{sign} \nabla \ell(f(x_m), t) \}, \qquad x_0 = x .$$
#
# The loop is short enough to be written out.
# It returns the *last* iterate, as the equation does; the package's `attacks.bim` returns the first success, which lies on the boundary and would make much of what follows trivial.
# The optional noise is for an adversary whom we meet at the end.


# %%
def igsm(model, x, target, eps: float, steps: int, noise=None) -> torch.Tensor:
    """Targeted iterative gradient sign method, steps of eps / 10; with noise (m, ...) the loss is a mean over m noisy copies."""
    at = x.clone()
    for _ in range(steps):
        leaf = at.detach().requires_grad_()
        seen = leaf if noise is None else (leaf[:, None] + noise).flatten(0, 1)
        labels = target if noise is None else target.repeat_interleave(len(noise))
        (slope,) = torch.autograd.grad(functional.cross_entropy(model(seen), labels, reduction="sum"), leaf)
        at = torch.minimum(torch.maximum(at - eps / 10 * slope.sign(), x - eps), x + eps).clamp(0, 1)
    return at


# %% [markdown]
# ### The least distortion
#
# {cite:t}`szegedy2014` look for the smallest perturbation instead: for a constant $c$ they minimise $\tfrac12 \lVert z - x \rVert^2 + c\,\ell(f(z), t)$ over images $z \in [0,1]^n$ with L-BFGS, and search for the smallest $c$ whose minimiser has the class $t$.
# In `attacks.lbfgs` each image has its own history, line search and constant, and all images take their passes together.
# The size of a perturbation is its *distortion*, $\lVert z - x \rVert / \sqrt n$.
#
# How far the search for $c$ is carried decides where the image ends.
# A fine search ends on the decision boundary.
# A coarse one, which takes the first success on a scale of factors, ends somewhere behind it.
# We keep both.

# %% tags=["hide-input"]
images_train, images_test = run.load(p.data_set, "train").take(p.train), run.load(p.data_set, "test").take(p.test)
shape = images_train.x.shape[1:]
pixels = images_train.x[0].numel()
SMALL = "784-100-20-10"  # the network of Figures 9, 10 and 13
DENSE = {SMALL: (100, 20), "FC100-100-10": (100, 100), "FC200-200-10": (200, 200)}
STARTS = 10  # of a convolutional network that dies


def decay(model, strength: float) -> torch.Tensor:
    """Weight decay of Szegedy et al., which the paper's table recreates: strength times the sum of squared weights over the units."""
    return strength * model.head.weight.square().sum() / len(model.head.weight)


def printed_decay(model, strength: float) -> torch.Tensor:
    """The regulariser as the paper prints it: strength times the norm of the weights over their number."""
    return strength * model.head.weight.norm() / model.head.weight.numel()


def train(name: str, s: int, penalty=decay):
    """A network of Table 1 by its name."""
    kind, last = name.split("-")[0], name.split("-")[-1]
    if kind == "FC10":
        strength = 10.0 ** -int(last)
        model = models.linear_model(shape, K, seed=s)
        return training.fit(model, images_train.x, images_train.y, loss=lambda model, x, y: training.cross_entropy(model, x, y) + penalty(model, strength), epochs=(p.epochs + 1) // 2, lr=p.lr, seed=s, device=run.device, cache=run.cache, name=f"persistence-{name}-{penalty.__name__}-{s}").model
    if kind == "C":
        return train_conv(name, s)[0]
    model = models.mlp(shape, DENSE[name], K, seed=s)
    return training.fit(model, images_train.x, images_train.y, epochs=p.epochs, lr=p.lr, seed=s, device=run.device, cache=run.cache, name=f"persistence-{name}-{s}").model


def train_conv(name: str, s: int) -> tuple:
    """A network C-Ch, and how many starts it took: one that answers at random after training has died and is started again."""
    count = min(p.conv_train, p.train)
    for start in range(STARTS):
        model = models.convnet(shape, int(name.split("-")[-1]), K, seed=s + 1000 * start, kernel=p.conv_kernel)
        model = training.fit(model, images_train.x[:count], images_train.y[:count], epochs=p.conv_epochs, lr=p.lr / 2, seed=s, device=run.device, cache=run.cache, name=f"persistence-{name}-{s}-{start}").model
        if accuracy(model) > 2 / K:
            break
    return model, start + 1


def accuracy(model) -> float:
    """Share of the test images classified right."""
    return float((training.predict(model, images_test.x).argmax(1).cpu() == images_test.y).double().mean())


def right_images(model, count: int) -> tuple:
    """The first test images that the model classifies correctly, their labels, and a target class for each, all nine in turn."""
    found = (training.predict(model, images_test.x).argmax(1).cpu() == images_test.y).nonzero()[:count, 0]
    x, y = images_test.x[found].to(run.device), images_test.y[found].to(run.device)
    return x, y, (y + 1 + torch.arange(len(y), device=run.device) % (K - 1)) % K


def distortion(z, x) -> torch.Tensor:
    """Definition 1.8, in float64."""
    return (z - x).double().flatten(1).norm(dim=1) / math.sqrt(x[0].numel())


def won(model, z, target) -> torch.Tensor:
    """Which images have the wanted class."""
    with torch.no_grad():
        return model(z).argmax(1) == target


# %% [markdown]
# We train FC200-200-10 and attack it with these and with FGSM {cite:p}`goodfellow2015`, R+FGSM {cite:p}`tramer2018` and MI-FGSM {cite:p}`dong2018`.
# The columns are the share of images that reach their target, and the mean distortion of those that do.

# %% tags=["hide-input"]
large = {s: train("FC200-200-10", s) for s in run.seeds}


def compare_attacks(model) -> dict:
    """Success and distorted images of each attack of the introduction."""
    x, _, target = right_images(model, p.images)
    found = {"x": x, "target": target}
    found["FGSM"] = attacks.fgsm(model, x, target, p.igsm_eps, targeted=True).x_adv
    found["R+FGSM"] = attacks.rfgsm(model, x, target, p.igsm_eps, targeted=True).x_adv
    found["MI-FGSM, first success"] = attacks.mifgsm(model, x, target, p.igsm_eps, steps=p.igsm_steps, targeted=True).x_adv
    found["IGSM"] = igsm(model, x, target, p.igsm_eps, p.igsm_steps)
    found["L-BFGS, first success"] = attacks.lbfgs(model, x, target, targeted=True, search=0, growth=p.lbfgs_growth).x_adv
    found["L-BFGS, least distortion"] = attacks.lbfgs(model, x, target, targeted=True).x_adv
    return found


def shared_key(model, **more) -> dict:
    """What decides a unit of work on a network, besides its code."""
    return {"model": models.fingerprint(model), "test": images_test.sha256, "images": p.images, "eps": p.igsm_eps, "steps": p.igsm_steps, "growth": p.lbfgs_growth, **more}


introduction = {s: run.unit(f"introduction-{s}", shared_key(large[s]), lambda s=s: compare_attacks(large[s]), code=[compare_attacks, igsm, right_images, attacks]) for s in run.seeds}
ATTACKS = ("FGSM", "R+FGSM", "IGSM", "MI-FGSM, first success", "L-BFGS, first success", "L-BFGS, least distortion")
rows_introduction = {}
for name in ATTACKS:
    success, length = [], []
    for s in run.seeds:
        unit = introduction[s]
        hit = won(large[s].cpu(), unit[name], unit["target"])
        success.append(float(hit.double().mean()))
        length.append(float(distortion(unit[name], unit["x"])[hit].mean()) if bool(hit.any()) else math.nan)
    rows_introduction[name] = {"success": success, "distortion": length}
large = {s: model.to(run.device) for s, model in large.items()}
display(pd.DataFrame({name: {"reaches its target": np.mean(row["success"]), "mean distortion": np.nanmean(row["distortion"])} for name, row in rows_introduction.items()}).T.style.format("{:.3f}").set_caption(f"Targeted attacks on FC200-200-10, budget {p.igsm_eps:g} for the first four, mean over runs"))

# %% [markdown]
# One digit under the least-distortion attack towards other classes: the original, the perturbation, and the result.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Rows of a digit, a faint perturbation in grey, and the perturbed digit, which looks unchanged, for six target classes."}}
model = large[seed]
x, y, _ = right_images(model, p.images)
one = x[:1].expand(K - 1, -1, -1, -1)
goals = torch.tensor([k for k in range(K) if k != int(y[0])], device=run.device)
shown = attacks.lbfgs(model, one, goals, targeted=True).x_adv
grid = torch.stack([one, (shown - one) / 2 + 0.5, shown], 1)[:6].flatten(0, 1)
plots.pictures(grid, [title for k in goals[:6].tolist() for title in (f"{int(y[0])}", "change", f"{k}")], columns=6)
plt.show()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two overlapping histograms of distortion, the least-distortion search to the left of the coarse search, with the published mean as a dashed line."}}
figure, ax = plt.subplots(figsize=(6.2, 3.0))
for name, color in (("L-BFGS, least distortion", NATURAL), ("L-BFGS, first success", ADVERSARIAL)):
    lengths = torch.cat([distortion(introduction[s][name], introduction[s]["x"]) for s in run.seeds])
    ax.hist(lengths.numpy(), bins=30, alpha=0.55, color=color, label=name)
ax.axvline(0.089, color="black", linestyle="--", label="published mean, MNIST")
ax.set(xlabel="distortion", ylabel="images")
ax.legend()
plt.show()

# %%
run.claim(
    "bell2023.fig2-3",
    mean_distortion=rows_introduction["L-BFGS, first success"]["distortion"],
    success_rate=rows_introduction["L-BFGS, first success"]["success"],
    least_mean_distortion=rows_introduction["L-BFGS, least distortion"]["distortion"],
)

# %%
run.claim(
    "bell2023.attack-ranking",
    igsm_success=rows_introduction["IGSM"]["success"],
    fgsm_success=rows_introduction["FGSM"]["success"],
    igsm_distortion=rows_introduction["IGSM"]["distortion"],
    lbfgs_distortion=rows_introduction["L-BFGS, first success"]["distortion"],
)

# %% [markdown]
# ## Stability and persistence
#
# ```{prf:definition} Stability and persistence
# :label: def-persistence
#
# For a classifier $\mathcal C$ on $\mathbb R^n$, a point $x$ is $(\gamma, \sigma)$-*stable* if $\mathbb P[\mathcal C(x') = \mathcal C(x)] \geq \gamma$ for $x' \sim \mathcal N(x, \sigma^2 I)$.
# Its $\gamma$-*persistence* $\sigma^*_\gamma$ is the largest $\sigma_\gamma$ such that $x$ is $(\gamma, \sigma)$-stable for **all** $\sigma < \sigma_\gamma$; it is infinite if there is no largest.
# ```
#
# The definition in three lines: draw noise, look which copies keep the class, halve an interval.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
noise = torch.randn(20_000, 2, generator=generator)


def half_plane(x):
    """Class 1 where the first coordinate is positive, class 0 where it is negative; a third class wins nowhere."""
    return torch.stack([-3 * x[:, 0], 3 * x[:, 0], torch.full_like(x[:, 0], -99.0)], 1)


point = torch.tensor([[1.0, 0.0]])  # at distance 1
low, high = 0.0, 10.0
for _ in range(30):
    sigma = (low + high) / 2
    stays = (half_plane(point + sigma * noise).argmax(1) == 1).double().mean()
    low, high = (sigma, high) if stays >= GAMMA else (low, sigma)
print(f"0.7-persistence at distance 1 from a half plane: {low:.1f}, exactly {smoothing.wedge_persistence(1, 1):.3f}")

# %% [markdown]
# The package's version does this for a whole batch at once.
# All images bisect in lockstep and share the noise; where the network begins with a linear layer, the product of that layer with the noise is computed once for all images and all $\sigma$.
# Sampling at one $\sigma$ stops as soon as the answer is beyond doubt.
# After $n$ samples of which $S$ kept the class, that is when
#
# $$(n + 1) \binom{n}{S} \gamma^S (1 - \gamma)^{n - S} \leq \alpha ,$$
#
# which on the wrong side of $\gamma$ happens with probability at most $\alpha$ however often one looks {cite:p}`robbins1970`.
# Every value comes with an interval that holds a crossing of $\gamma$ with a stated probability.

# %%
found = smoothing.persistence(half_plane, torch.tensor([[1.0, 0.0], [0.1, 5.0], [-3.0, 1.0]]), GAMMA, samples=5000)
display(pd.DataFrame({"distance": [1.0, 0.1, 3.0], "exact": smoothing.wedge_persistence(np.array([1.0, 0.1, 3.0]), 1), "persistence": found.sigma, "at least": found.lower, "at most": found.upper, "samples spent": found.queries}).style.hide(axis="index").format(precision=3))

# %% [markdown]
# ### The wedge
#
# The paper's model of a curved boundary is the wedge $W_k = \{x : x_1 \geq 0, \dots, x_k \geq 0\}$, and an adversarial image is a point inside it.
#
# ```{prf:theorem} Proposition 4.3, with its condition
# :label: thm-wedge
#
# At distance $d$ from each of the $k$ sheets the stability is $\Phi(d / \sigma)^k$ in every dimension $n \geq k$.
# If $\gamma > 2^{-k}$ the persistence is $d / \Phi^{-1}(\gamma^{1/k})$; otherwise it is infinite.
# ```
#
# ```{prf:proof}
# The coordinates of the noise are independent and each of the first $k$ stays positive with probability $\Phi(d/\sigma)$.
# This falls with $\sigma$ from $1$ to $2^{-k}$, so it crosses $\gamma$ exactly once if $\gamma > 2^{-k}$, and never otherwise.
# ```
#
# The paper omits the condition, and for $\gamma < 2^{-k}$ its formula is negative.
# We count how often a sampled stability lies outside the 99.99 % Clopper-Pearson band of the formula, for several $n$ and $k$, and compare the two forms of the formula.

# %% tags=["nbval-check-output"]
def wedge(planes: int):
    """Class 1 inside the wedge of so many planes, class 0 outside."""

    def scores(x):
        inside = 3 * x.flatten(1)[:, :planes].amin(1)
        return torch.stack([-inside, inside], 1)

    return scores


outside_band, n_samples = 0, 4000
for dimension in (10, 100, 784):
    for planes in (1, 2, 3, 5, 10):
        x = torch.full((1, dimension), 0.3)
        x[:, :planes] = 1.0
        for sigma in (0.4, 1.0, 2.5):
            share = float(smoothing.stability(wedge(planes), x, sigma, samples=n_samples))
            band = stats.binomtest(round(share * n_samples), n_samples).proportion_ci(0.9999)
            outside_band += not band.low <= smoothing.wedge_stability(1.0, planes, sigma) <= band.high
k = np.arange(1, 41)
ours, printed = smoothing.wedge_persistence(1.0, k), 1 / stats.norm.ppf(GAMMA ** (1 / k))
condition = [(planes, gamma) for planes in (1, 2, 3) for gamma in (0.1, 0.2, 0.4) if gamma <= 2.0**-planes]
infinite = sum(math.isinf(smoothing.wedge_persistence(1.0, planes, gamma)) for planes, gamma in condition)
run.claim("bell2023.prop4-3", samples_outside_band=outside_band, formula_difference=float(np.abs(ours - printed).max()), infinite_where_formula_is_not=infinite)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Curve of 0.7-persistence against the number of planes at distance 1: it starts near 1.9, crosses the dashed line of the distance between two and three planes and falls slowly; sampled points lie on it."}}
figure, ax = plt.subplots(figsize=(6.2, 3.2))
ax.plot(k, ours, color=NATURAL, label="closed form")
sampled = [smoothing.persistence(wedge(planes), torch.ones(1, 50), samples=4000, precision=0.05) for planes in (1, 2, 3, 5, 10, 20, 40)]
ax.scatter((1, 2, 3, 5, 10, 20, 40), [float(one.sigma) for one in sampled], color=ADVERSARIAL, zorder=3, label="sampled, n = 50")
ax.axhline(1, color="black", linestyle="--", linewidth=1, label="distance")
ax.set(xlabel="planes $k$", ylabel="0.7-persistence", ylim=(0, 2.1))
ax.legend()
plt.show()

# %% tags=["nbval-check-output"]
run.claim("bell2023.fig8", one_plane=round(float(ours[0]), 4), increases=int((np.diff(ours) >= 0).sum()), first_below_distance=int(k[ours < 1][0]))

# %% [markdown]
# ### Inside, outside, and no largest sigma
#
# Outside the cone persistence is "significantly larger", says the paper.
# We take the wedge of two planes at $\gamma = 0.9$, and three places at distance 1 from it: inside, outside before the edge, and outside in front of the middle of one face.
# The stability outside is one minus that of the wedge, so all three have closed forms, which a root finder turns into persistences.

# %% tags=["nbval-check-output"]
def solve(stability_of, gamma: float) -> float:
    """Where a stability that falls with sigma crosses gamma."""
    return optimize.brentq(lambda sigma: stability_of(sigma) - gamma, 1e-6, 1e3)


edge = 1 / math.sqrt(2)  # both coordinates at -edge: the edge is at distance 1
inside = float(smoothing.wedge_persistence(1.0, 2, 0.9))
outside = solve(lambda sigma: 1 - float(smoothing.wedge_stability(-edge, 2, sigma)), 0.9)
facing = solve(lambda sigma: 1 - stats.norm.cdf(-1 / sigma) * stats.norm.cdf(50 / sigma), 0.9)
flat = float(smoothing.wedge_persistence(1.0, 1, 0.9))
run.claim("bell2023.outside-cone", inside=inside, outside=outside, outside_near_one_face=facing, flat=flat)

# %% [markdown]
# A largest $\sigma$ need not exist.
# Half of all noise stays in a half plane however large it is, so for $\gamma \leq 1/2$ every point is stable at every $\sigma$.

# %% tags=["nbval-check-output"]
cases = [(1, 0.5), (1, 0.3), (2, 0.25), (3, 0.1)]
without = 0
for planes, gamma in cases:
    sampled = smoothing.persistence(wedge(planes), torch.ones(1, 10), gamma * 0.9, samples=4000, max_sigma=1e4)
    without += math.isinf(smoothing.wedge_persistence(1.0, planes, gamma)) and bool(sampled.sigma.isinf())
run.claim("bell2023.persistence-exists", points_without_a_largest=without)

# %% [markdown]
# ## The Bracketing Algorithm
#
# The paper's algorithm starts from the interval $[0.5, 1.5]$, halves its lower end until the point is stable there, doubles its upper end until it is not, and bisects.
# It is kept in the package as `persistence.bracketing`, with a cap where the original has none.
# Four points try it: one of a half plane; one on its boundary; one outside a wedge with two planes, a class that keeps three quarters of any noise; and the centre of a *dartboard* in 100 dimensions, whose inner disc and second ring are one class.

# %%
def dartboard(x):
    """Class 1 for lengths below 1 and from 3 to 10, class 0 elsewhere."""
    length = x.flatten(1).norm(dim=1)
    own = torch.where((length < 1) | ((length > 3) & (length < 10)), 3.0, -3.0)
    return torch.stack([-own, own], 1)


corner = torch.tensor([[-0.05, 0.3]])  # outside the wedge of two planes, close to one
places = {
    "half plane, distance 1": (half_plane, point),
    "on the boundary": (half_plane, torch.zeros(1, 2)),
    "outside a wedge": (wedge(2), corner),
    "centre of a dartboard": (dartboard, torch.zeros(1, 100)),
}
sigmas = np.geomspace(0.01, 30, 60)
board = []
for name, (judge, x) in places.items():
    published = smoothing.bracketing(judge, x, samples=4000, generator=torch.Generator().manual_seed(0))
    mended = smoothing.persistence(judge, x, samples=4000)
    curve = smoothing.stability_curve(judge, x, sigmas, samples=2000)
    audit = smoothing.crossings(sigmas, curve, GAMMA, slack=0.04)
    board.append({"point": name, "published": published.sigma, "ends": published.ended, "mended": float(mended.sigma), "Definition 4.2, on a grid": float(audit.first), "lost and regained": bool(audit.regained), "curve": curve[:, 0]})
display(pd.DataFrame(board).drop(columns="curve").set_index("point").style.format(precision=3))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Stability against sigma on a logarithmic axis for three points: the half plane falls once, the point outside a wedge dips below 0.7 and comes back, the dartboard falls to zero, returns to one and falls again."}}
figure, ax = plt.subplots(figsize=(6.6, 3.2))
for row, color in zip([row for row in board if row["point"] != "on the boundary"], plots.PALETTE, strict=False):
    ax.plot(sigmas, row["curve"], color=color, label=row["point"])
ax.axhline(GAMMA, color="black", linestyle="--", linewidth=1)
ax.set(xscale="log", xlabel=r"$\sigma$", ylabel="stability")
ax.legend(loc="lower left", bbox_to_anchor=(0.68, 0.06), fontsize=8)
plt.show()

# %% tags=["nbval-check-output"]
exact_half = float(smoothing.wedge_persistence(1.0, 1))
exact_board = solve(lambda sigma: stats.chi(100).cdf(1 / sigma), GAMMA)  # the first crossing; the ring is out of reach there
run.claim(
    "bell2023.bracketing",
    searches_without_end=sum(not row["ends"] for row in board),
    relative_error_on_a_half_space=round(abs(board[0]["published"] / exact_half - 1), 2),
    relative_error_where_stability_returns=round(abs(board[3]["published"] / exact_board - 1), 1),
)

# %% [markdown]
# The mended search has a cap, above which it answers infinity, and a floor, below which it answers zero.
# That it finds the first crossing of the dartboard is luck, for it starts below the second ring: bisection finds *a* crossing.
# If the class region is star-shaped about $x$ the stability never grows with $\sigma$ (scaling the noise down keeps a copy in the class), and any crossing is the first.
# Networks promise no such thing, so we audit one on a grid: for how many natural images is stability lost and regained?

# %%
small = {s: train(SMALL, s) for s in run.seeds}
model = small[seed]
x, y, target = right_images(model, p.audit_images)
grid = np.geomspace(0.02, 8, 40)
slack = 3 * math.sqrt(0.21 / p.samples)  # three standard errors
audit_curve = smoothing.stability_curve(model, x, grid, samples=p.samples)
audit = smoothing.crossings(grid, audit_curve, GAMMA, slack=slack)
bisected = smoothing.persistence(model, x, samples=p.samples).sigma
step = grid[1] / grid[0]
print(f"stability lost and regained: {int(audit.regained.sum())} of {len(x)} images")
print(f"bisection within a grid step of the first crossing: {float(((bisected / audit.first < step * 1.05) & (bisected / audit.first > 1 / 1.05)).double().mean()):.2f}")

# %% [markdown]
# ## Lengths of noise
#
# Section 10 defends Gaussian noise against uniform noise in a ball by two bounds.
# For $x \sim \mathcal N(0, \sigma^2 I)$ it prints $\mathbb P[\,|\lVert x \rVert - \sigma \sqrt n| \leq \epsilon\,] \geq 1 - 2 e^{-\epsilon^2 / 16}$, and for $y$ uniform in the ball of radius $r$, $\mathbb P[\,|\lVert y \rVert - r| \leq \delta\,] \geq 1 - e^{-\delta n / r}$.
# Both left-hand sides are known exactly, by the chi distribution and by $(1 - \delta/r)^n$, so the bounds can be checked without sampling.

# %% tags=["nbval-check-output"]
violations = {"as printed": 0, "with sigma in the exponent": 0, "ball": 0}
for n in (10, 784, 196_608):
    for sigma in (0.1, 0.5, 1.0, 2.0, 7.0):
        for share in np.linspace(0.01, 0.99, 50):
            eps = share * math.sqrt(n)
            exact = stats.chi(n).cdf(math.sqrt(n) + eps / sigma) - stats.chi(n).cdf(math.sqrt(n) - eps / sigma)
            violations["as printed"] += int(exact < 1 - 2 * math.exp(-(eps**2) / 16) - 1e-9)
            if eps <= sigma * math.sqrt(n):
                violations["with sigma in the exponent"] += int(exact < 1 - 2 * math.exp(-(eps**2) / (16 * sigma**2)) - 1e-9)
            delta = share * sigma  # the ball has radius sigma here
            violations["ball"] += int(1 - (1 - share) ** n < 1 - math.exp(-delta * n / sigma) - 1e-12)
print(violations)
run.claim("bell2023.prop10-1", violations_gauss=violations["as printed"], violations_ball=violations["ball"], violations_of_the_corrected_bound=violations["with sigma in the exponent"])

# %% tags=["hide-input"] mystnb={"image": {"alt": "Histograms of lengths for two dimensions: the ball's lengths pile up just below 7, the Gaussian's form a bell around 7, narrower in the higher dimension."}}
figure, axes = plt.subplots(1, 2, figsize=(9.0, 2.8))
spread = {}
for ax, n, count in ((axes[0], 784, 100_000), (axes[1], 196_608, 5000)):
    draws = np.random.default_rng(0)
    gauss, ball = 7 / math.sqrt(n) * np.sqrt(draws.chisquare(n, count)), 7 * draws.random(count) ** (1 / n)
    spread[n] = (7 / math.sqrt(n) * stats.chi(n).std() if n < 1e5 else 7 / math.sqrt(2 * n), 7 * math.sqrt(n / (n + 2) - (n / (n + 1)) ** 2))
    for lengths, color, label in ((gauss, NATURAL, "Gaussian"), (ball, ADVERSARIAL, "ball")):
        ax.hist(lengths, bins=60, color=color, label=label, density=True, histtype="step", linewidth=1.5)
    ax.set(xlabel="length", yscale="log", title=f"n = {n:,}")
axes[0].legend()
plt.show()

# %% tags=["nbval-check-output"]
run.claim("bell2023.fig19", gauss_spread_784=round(spread[784][0], 4), ball_spread_784=round(spread[784][1], 4), gauss_spread_196608=round(spread[196_608][0], 5), ball_spread_196608=round(spread[196_608][1], 6))

# %% [markdown]
# Does the choice matter for persistence?
# We rescale each Gaussian sample to a point of the ball of radius $\sigma \sqrt n$ and bisect once with each kind of noise, on the same directions.


# %%
def crossing_with(model, x, noise) -> torch.Tensor:
    """0.7-persistence (N,) under given noise (m, ...), by plain bisection from 0.01 to 20."""
    with torch.no_grad():
        own = model(x).argmax(1)
        low, high = torch.full((len(x),), 0.01, device=x.device), torch.full((len(x),), 20.0, device=x.device)
        for _ in range(10):
            sigma = (low * high).sqrt()
            share = torch.stack([(model(image + scale * noise).argmax(1) == label).double().mean() for image, scale, label in zip(x, sigma, own, strict=True)])
            low, high = torch.where(share >= GAMMA, sigma, low), torch.where(share >= GAMMA, high, sigma)
        return (low * high).sqrt().double().cpu()


few = x[: min(60, len(x))]
gauss = torch.randn(500, *shape, generator=torch.Generator().manual_seed(1))
radius = math.sqrt(pixels) * torch.rand(500, 1, 1, 1, generator=torch.Generator().manual_seed(2)) ** (1 / pixels)
ball = gauss / gauss.flatten(1).norm(dim=1)[:, None, None, None] * radius
by_noise = {name: crossing_with(model, few, noise.to(run.device)) for name, noise in (("gauss", gauss), ("ball", ball))}
run.claim("bell2023.ball-vs-gauss", rank_correlation=float(stats.spearmanr(by_noise["gauss"], by_noise["ball"]).statistic), median_relative_difference=float((by_noise["ball"] / by_noise["gauss"] - 1).abs().median()))

# %% [markdown]
# ## The neighbourhood of a digit
#
# Figures 9 and 13 follow one test image of a 1 in the network 784-100-20-10, and its nine IGSM neighbours, through noise of growing $\sigma$.
# The heavy black curve is the frequency of the natural class, the heavy red one that of the attacked class.

# %% tags=["hide-input"]
model = small[seed]
x, y, _ = right_images(model, p.images)
ones = (y == 1).nonzero()[:1, 0]
digit = x[ones]
goals = torch.tensor([k for k in range(K) if k != 1], device=run.device)
budget = next((eps for eps in sorted({*p.eps_curve, p.igsm_eps}) if bool(won(model, igsm(model, digit.expand(K - 1, -1, -1, -1), goals, eps, p.igsm_steps), goals).all())), max(p.eps_curve))
neighbours = igsm(model, digit.expand(K - 1, -1, -1, -1), goals, budget, p.igsm_steps)
reached = won(model, neighbours, goals)
frequency_grid = torch.linspace(0, 1.6 * (28 / shape[-1]) ** 0.5, p.frequency_sigmas + 1)[1:]
frequencies = smoothing.class_frequencies(model, torch.cat([digit, neighbours]), frequency_grid, samples=p.frequency_samples).cpu()
walk = torch.randn(shape, generator=torch.Generator().manual_seed(3))


def half_life(curve, grid) -> float:
    """The first sigma at which a class has less than half of the samples; the end of the grid if there is none."""
    below = (curve < 0.5).nonzero()
    return float(grid[below[0, 0]]) if len(below) else float(grid[-1])


def frequency_panel(ax, curves, grid, original: int, attacked: int | None) -> None:
    """Class frequencies against sigma."""
    for k in range(curves.shape[1]):
        if k not in (original, attacked) and curves[:, k].max() > 0.03:
            ax.plot(grid, curves[:, k], color="0.7", linewidth=1)
    ax.plot(grid, curves[:, original], color=plots.PALETTE[7], linewidth=2.2)
    if attacked is not None:
        ax.plot(grid, curves[:, attacked], color=ADVERSARIAL, linewidth=2.2)
    ax.set(ylim=(0, 1.02), xlabel=r"$\sigma$")


# %% tags=["hide-input"] mystnb={"image": {"alt": "Top: class frequencies around a natural 1 on the left and around its neighbour attacked towards 0 on the right, the natural class in black and the attacked one in red. Bottom: the two images under growing noise."}}
figure = plt.figure(figsize=(9.6, 4.4))
parts = figure.subfigures(1, 2)
for part, index, title in ((parts[0], 0, "natural 1"), (parts[1], 1, "the same image, attacked towards 0")):
    cells = part.subplot_mosaic([["curve"] * 5, [f"{i}" for i in range(5)]], height_ratios=(3, 1))
    frequency_panel(cells["curve"], frequencies[:, index], frequency_grid, 1, None if index == 0 else 0)
    cells["curve"].set_title(title)
    for i, sigma in enumerate(np.linspace(0, float(frequency_grid[-1]), 5)):
        image = (digit if index == 0 else neighbours[:1])[0].cpu() + sigma * walk
        cells[f"{i}"].imshow(image[0].clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        cells[f"{i}"].set_axis_off()
plt.show()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Eight small panels of class frequencies around the digit attacked towards classes 2 to 9, each with the attacked image under it; the red curves of the attacked classes fall at different rates."}}
figure, axes = plt.subplots(4, 4, figsize=(9.6, 7.2), height_ratios=(3, 1.2, 3, 1.2))
for i, k in enumerate(range(2, K)):
    at = int((goals == k).nonzero()[0, 0])
    top, bottom = axes[2 * (i // 4), i % 4], axes[2 * (i // 4) + 1, i % 4]
    frequency_panel(top, frequencies[:, 1 + at], frequency_grid, 1, k)
    top.set_title(f"towards {k}", fontsize=9)
    strip = torch.cat([(neighbours[at].cpu() + sigma * walk)[0] for sigma in (0.0, 0.4, 0.8)], 1).clamp(0, 1)
    bottom.imshow(strip, cmap="gray", vmin=0, vmax=1)
    bottom.set_axis_off()
plt.show()

# %% [markdown]
# To compare curves we take the *half-life* of a class: the $\sigma$ at which it first has less than half of the samples.
# The two claims are about one digit and use the first network only; the next section looks at many.

# %%
natural_half = half_life(frequencies[:, 0, 1], frequency_grid)
attacked_half = {int(k): half_life(frequencies[:, 1 + i, k], frequency_grid) for i, k in enumerate(goals.tolist()) if bool(reached[i])}
run.claim("bell2023.fig9", natural_half_life=natural_half, adversarial_half_life=attacked_half.get(0))

# %%
run.claim("bell2023.fig13", natural_half_life=natural_half, longest_adversarial_half_life=max(attacked_half.values(), default=None), shortest_adversarial_half_life=min(attacked_half.values(), default=None))

# %% [markdown]
# ## Many digits, and the budget that nobody printed
#
# Figure 10 compares the 0.7-persistence of natural images with that of their IGSM neighbours, all nine targets each.
# The paper prints no budget $\epsilon$ for IGSM, so we take one and then draw the result against it.


# %% tags=["hide-input"]
def enough_budget(model, x, target) -> float:
    """The least budget of the curve at which four images of five reach their target; the largest if none is enough."""
    return next((eps for eps in p.eps_curve if float(won(model, igsm(model, x, target, eps, p.igsm_steps), target).double().mean()) >= 0.8), max(p.eps_curve))


def distance(model, z, label) -> tuple:
    """Length of the least perturbation that leaves the class, an upper bound on the distance to the boundary, and where it ends."""
    end = attacks.lbfgs(model, z, label, search=5).x_adv
    return (end - z).double().flatten(1).norm(dim=1), end


GAMMAS = (0.6, 0.65, 0.7, 0.75, 0.8)


def probe(model) -> dict:
    """Natural images and IGSM images of several budgets: persistence, distance to the boundary, confidence; and an adaptive attack."""
    x, y, target = right_images(model, p.images)
    stand = {"samples": p.samples}
    found = {"natural": smoothing.persistence(model, x, GAMMA, **stand).sigma, "natural.distance": distance(model, x, y)[0]}
    with torch.no_grad():
        found["natural.margin"] = attacks.margin(model(x), y)
    found["natural.norm"] = x.double().flatten(1).norm(dim=1)
    least = attacks.lbfgs(model, x, target, targeted=True)
    found["least.won"], found["least"] = least.success, smoothing.persistence(model, least.x_adv, GAMMA, **stand).sigma
    found["natural.far"] = smoothing.class_frequencies(model, x, [8.0], samples=500)[0].gather(1, y[:, None])[:, 0]
    nine = x[: min(200, len(x))].repeat_interleave(K - 1, 0)
    goals = (y[: min(200, len(x))].repeat_interleave(K - 1) + 1 + torch.arange(len(nine), device=x.device) % (K - 1)) % K
    for name, inputs, wanted, eps in [("nine", nine, goals, p.igsm_eps), *((f"eps{i}", x, target, eps) for i, eps in enumerate(p.eps_curve)), ("chosen", x, target, p.igsm_eps)]:
        adversarial = igsm(model, inputs, wanted, eps, p.igsm_steps)
        found[f"{name}.won"] = won(model, adversarial, wanted)
        found[name] = smoothing.persistence(model, adversarial, GAMMA, **stand).sigma
        if name != "nine":
            found[f"{name}.distance"] = distance(model, adversarial, wanted)[0]
            found[f"{name}.length"] = (adversarial - x).double().flatten(1).norm(dim=1)
    chosen = igsm(model, x, target, p.igsm_eps, p.igsm_steps)
    for gamma in GAMMAS:
        for name, images in (("natural", x), ("chosen", chosen)):
            found[f"{name}.gamma{gamma}"] = smoothing.persistence(model, images, gamma, **stand).sigma
    found["natural.clipped"] = smoothing.persistence(model, x, GAMMA, clip=True, samples=p.samples // 2).sigma
    found["chosen.clipped"] = smoothing.persistence(model, chosen, GAMMA, clip=True, samples=p.samples // 2).sigma
    level = float(found["natural"][found["natural"].isfinite()].median())
    draws = level * torch.randn(p.adaptive_draws, *x.shape[1:], generator=torch.Generator().manual_seed(4)).to(x.device)
    knowing = igsm(model, x, target, p.igsm_eps, p.igsm_steps, noise=draws)
    found["adaptive.won"], found["adaptive"] = won(model, knowing, target), smoothing.persistence(model, knowing, GAMMA, **stand).sigma
    found["adaptive.distance"] = distance(model, knowing, target)[0]
    path = smoothing.class_frequencies(model, chosen, torch.linspace(0.05, 3, 25), samples=200)  # (S, N, K)
    leader = path.argmax(2)
    lost = (leader != target).long().argmax(0)  # the first sigma at which another class leads
    found["takes_over"], found["ever_lost"] = leader.gather(0, lost[None])[0], (leader != target).any(0)
    found["original_leads"] = (leader == y).any(0)
    found["x.y"], found["x.target"] = y, target
    return found


probes = {s: run.unit(f"probe-{s}", shared_key(small[s], samples=p.samples, curve=p.eps_curve, draws=p.adaptive_draws), lambda s=s: probe(small[s]), code=[probe, igsm, distance, right_images, won, smoothing, attacks]) for s in run.seeds}


def finite(values) -> np.ndarray:
    """Finite values as an array."""
    return values[torch.isfinite(values)].double().numpy()


def median(values) -> float:
    """Median in which infinity counts as the largest value; NaN of nothing."""
    return float(values.double().median()) if len(values) else math.nan


# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: histograms of 0.7-persistence of natural and IGSM images, overlapping, the natural ones to the right. Right: median persistence of IGSM images against their budget, rising, with the horizontal line of the natural median."}}
figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.3))
unit = probes[seed]
bins = np.linspace(0, np.quantile(finite(unit["natural"]), 0.99) * 1.2, 40)
axes[0].hist(finite(unit["natural"]), bins=bins, density=True, alpha=0.6, color=NATURAL, label="natural")
axes[0].hist(finite(unit["nine"][unit["nine.won"]]), bins=bins, density=True, alpha=0.6, color=ADVERSARIAL, label=f"IGSM, budget {p.igsm_eps:g}")
axes[0].set(xlabel="0.7-persistence", ylabel="density")
axes[0].legend()
enough = [i for i in range(len(p.eps_curve)) if all(float(probes[s][f"eps{i}.won"].double().mean()) > 0.05 for s in run.seeds)]
plots.band(axes[1], [p.eps_curve[i] for i in enough], [[median(probes[s][f"eps{i}"][probes[s][f"eps{i}.won"]]) for i in enough] for s in run.seeds], label="IGSM", color=ADVERSARIAL)
axes[1].axhline(np.mean([median(probes[s]["natural"]) for s in run.seeds]), color=NATURAL, label="natural")
axes[1].set(xlabel=r"budget $\epsilon$ of IGSM", ylabel="median 0.7-persistence", ylim=(0, None))
axes[1].legend()
plt.show()

# %% [markdown]
# The left panel is Figure 10.
# The right panel says that the gap is a choice: the deeper the attack may go into the other class, the more persistent its images are.
#
# Which class takes over when the attacked one loses the lead?
# And does the original class ever lead again?

# %%
takes = [(probes[s]["takes_over"] != probes[s]["x.y"])[probes[s]["chosen.won"] & probes[s]["ever_lost"]] for s in run.seeds]
run.claim("bell2023.background-class", share_neither=[float(found.double().mean()) if len(found) else None for found in takes])

# %%
returns = [probes[s]["original_leads"][probes[s]["chosen.won"]] for s in run.seeds]
run.claim("bell2023.class-return", share_returning=[float(found.double().mean()) if len(found) else None for found in returns])

# %% [markdown]
# ### Gamma, and noise that is cut to the pixel range
#
# The table shows medians for several $\gamma$, how well persistence tells natural images from IGSM images (the area under the ROC curve), and the rank correlation with $\gamma = 0.7$.
# The last row cuts the noisy images to $[0, 1]$, which the paper does not.


# %% tags=["hide-input"]
def auc(natural, adversarial) -> float | None:
    """Chance that a natural image has a larger value than an adversarial one; half counts for ties."""
    if not len(natural) or not len(adversarial):
        return None
    values = torch.cat([natural, adversarial]).double().clamp(max=1e9).numpy()
    return float(roc_auc_score(np.r_[np.ones(len(natural)), np.zeros(len(adversarial))], values))


insensitivity = []
for s in run.seeds:
    unit = probes[s]
    hit = unit["chosen.won"]
    for name in (*(f"gamma{gamma}" for gamma in GAMMAS), "clipped"):
        natural, adversarial = unit[f"natural.{name}"], unit[f"chosen.{name}"][hit]
        insensitivity.append({"run": s, "noise": name.replace("gamma", "γ = "), "natural": median(natural), "IGSM": median(adversarial), "AUC": auc(natural, adversarial), "rank correlation": float(stats.spearmanr(natural.clamp(max=99), unit["natural.gamma0.7"].clamp(max=99)).statistic)})
insensitivity = pd.DataFrame(insensitivity)
display(insensitivity.groupby("noise", sort=False)[["natural", "IGSM", "AUC", "rank correlation"]].mean().style.format("{:.3f}"))
by_gamma = insensitivity[insensitivity["noise"].str.startswith("γ")]

# %%
run.claim(
    "bell2023.gamma-insensitive",
    largest_change_of_auc=[float((part["AUC"] - part.loc[part["noise"] == "γ = 0.7", "AUC"].item()).abs().max()) for _, part in by_gamma.groupby("run")],
    least_rank_correlation=[float(part["rank correlation"].min()) for _, part in by_gamma.groupby("run")],
)

# %% [markdown]
# ## Table 1
#
# The table of the paper recreates one of {cite:t}`szegedy2014` with networks of growing size.
# First the small ones, linear in the pixels: FC10-$k$ has a regulariser with $\lambda = 10^{-k}$.
# The paper prints it as $\lambda \lVert w \rVert_2 / N$, with $N$ the number of weights.
# The gradient of that term is never longer than $\lambda / N$, so it cannot matter; the weight decay of Szegedy's table, $\lambda \sum w^2$ over the number of units, can.
# We train both.

# %%
linear_names = [name for name in ("FC10-4", "FC10-2", "FC10-0") if name in p.networks]
literal = {name: [accuracy(train(name, s, printed_decay)) for s in run.seeds] for name in linear_names}
decayed = {name: [accuracy(train(name, s)) for s in run.seeds] for name in linear_names}
display(pd.DataFrame({"published": {"FC10-4": 0.9209, "FC10-2": 0.9077, "FC10-0": 0.8689}, "as printed": {name: np.mean(found) for name, found in literal.items()}, "sum of squares over units": {name: np.mean(found) for name, found in decayed.items()}}).loc[linear_names].style.format("{:.3f}").set_caption("Test accuracy under the two readings of the regulariser"))


# %%
def snake(name: str) -> str:
    """A network's name as the claims write it."""
    return {"FC100-100-10": "fc100", "FC200-200-10": "fc200"}.get(name, name.lower().replace("-", "" if name.startswith("C-") else "_"))


def per_network(values, names, prefix: str) -> dict:
    """Measurements of the networks named, None for those that were not run."""
    return {f"{prefix}_{snake(name)}": values.get(name) for name in names}


run.claim("bell2023.table1-regulariser", **per_network(literal, ("FC10-4", "FC10-2", "FC10-0"), "accuracy"), **per_network(decayed, ("FC10-4", "FC10-2", "FC10-0"), "accuracy_units"))

# %% [markdown]
# The convolutional networks C-Ch are described by Table 3, which we check layer by layer.

# %% tags=["nbval-check-output"]
mismatches = 0
for channels in (2, 8):
    body = list(models.convnet((1, 28, 28), channels, K).body)
    at, sizes = torch.zeros(1, 1, 28, 28), []
    for layer in body:
        at = layer(at)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d):
            sizes.append(tuple(at.shape[1:]))
    dense = [layer for layer in body if isinstance(layer, torch.nn.Linear)]
    mismatches += sizes != [(channels, side, side) for side in (24, 20, 16, 12, 6)]
    mismatches += [(layer.in_features, layer.out_features) for layer in dense] != [(channels * 36, 256)]
run.claim("bell2023.table3", mismatches=mismatches)

# %% [markdown]
# Now persistence, for natural images and for adversarial ones.
# Which adversarial ones?
# The paper says L-BFGS and prints the mean distortion, but not where the search stopped.
# A fine search ends on the boundary, where persistence is zero by definition, so it was not that.
# We report three columns: the first success of a coarse search; the least distortion; and the least perturbation *pushed on*, by one factor for all images of a network, until the mean distortion is the printed one.
# The third uses all that the paper says, and is the one that is judged.
#
# A network of two channels is narrow enough to die in training: every unit of a layer is zero for every image, and the answer is the same for all.
# Such a network has no boundary to study, so it is started again from other weights; the last rows count the starts.

# %% tags=["hide-input"]
PUBLISHED = pd.DataFrame(
    {
        "FC10-4": (92.09, 0.123, 0.93, 1.68), "FC10-2": (90.77, 0.178, 1.37, 4.25), "FC10-0": (86.89, 0.278, 1.92, 12.22),
        "FC100-100-10": (97.31, 0.086, 0.65, 0.56), "FC200-200-10": (97.61, 0.087, 0.73, 0.56), "C-2": (95.94, 0.09, 3.33, 0.027),
        "C-4": (97.36, 0.12, 0.35, 0.027), "C-8": (98.50, 0.11, 0.43, 0.0517), "C-16": (98.90, 0.11, 0.53, 0.0994),
        "C-32": (98.96, 0.11, 0.78, 0.0836), "C-64": (99.00, 0.10, 0.81, 0.0865), "C-128": (99.17, 0.11, 0.77, 0.0883),
        "C-256": (99.09, 0.11, 0.83, 0.09), "C-512": (99.22, 0.10, 0.793, 0.0929),
    },
    index=["accuracy", "distortion", "natural", "adversarial"],
).T  # fmt: skip


def push(x, end, wanted: float) -> torch.Tensor:
    """Go on from x beyond ``end``, by one factor for all, until the mean distortion is as wanted."""
    low, high = 0.0, 50.0
    for _ in range(30):
        factor = (low + high) / 2
        low, high = (low, factor) if float(distortion(torch.lerp(x, end, factor).clamp(0, 1), x).mean()) > wanted else (factor, high)
    return torch.lerp(x, end, low).clamp(0, 1)


KINDS = ("natural", "first success", "least", "at the printed distortion", "IGSM", "mirrored")


def study(model, name: str, count: int, samples: int) -> dict:
    """Persistence of natural images, of their adversarial images, and of their mirror images beyond the boundary."""
    x, y, target = right_images(model, count)
    steps = {"steps": 15} if name.startswith("C-") else {}
    first = attacks.lbfgs(model, x, target, targeted=True, search=0, growth=p.lbfgs_growth, **steps).x_adv
    least = attacks.lbfgs(model, x, target, targeted=True, search=5, **steps).x_adv
    pushed = push(x, least, PUBLISHED.loc[name, "distortion"])
    eps = enough_budget(model, x, target)
    signs = igsm(model, x, target, eps, p.igsm_steps)
    end = attacks.lbfgs(model, x, y, search=5, **steps).x_adv
    mirrored = torch.lerp(x, end, 2.0).clamp(0, 1)
    with torch.no_grad():
        beyond = model(mirrored).argmax(1)
    images = dict(zip(KINDS, (x, first, least, pushed, signs, mirrored), strict=True))
    found = smoothing.persistence(model, torch.cat(list(images.values())), GAMMA, samples=samples)
    result = {}
    for i, (kind, z) in enumerate(images.items()):
        part = slice(i * len(x), (i + 1) * len(x))
        result[kind], result[f"{kind}.queries"] = found.sigma[part], found.queries[part]
        result[f"{kind}.distortion"] = distortion(z, x)
        result[f"{kind}.won"] = won(model, z, y if kind == "natural" else beyond if kind == "mirrored" else target)
    result["mirrored.won"] &= beyond != y
    result["natural.distance"] = (end - x).double().flatten(1).norm(dim=1)
    result["mirrored.distance"] = (attacks.lbfgs(model, mirrored, beyond, search=5, **steps).x_adv - mirrored).double().flatten(1).norm(dim=1)
    result["eps"] = torch.tensor(eps)
    return result


studies, accuracies, starts = {}, {}, {}
for name in p.networks:
    conv = name.startswith("C-")
    for s in run.seeds[: p.conv_seeds] if conv else run.seeds:
        net, starts[name, s] = train_conv(name, s) if conv else (train(name, s), 1)
        net = net.to(run.device)
        count, samples = (p.conv_images, p.conv_samples) if conv else (p.images, p.samples)
        key = shared_key(net, count=count, samples=samples, curve=p.eps_curve, printed=float(PUBLISHED.loc[name, "distortion"]))
        studies[name, s] = run.unit(f"study-{name}-{s}", key, lambda net=net, name=name, count=count, samples=samples: study(net, name, count, samples), code=[study, push, igsm, enough_budget, right_images, won, distortion, smoothing, attacks])
        accuracies[name, s] = accuracy(net)


def runs_of(name: str) -> list[int]:
    """Seeds of a network."""
    return [s for other, s in studies if other == name]


def average(name: str, s: int, kind: str, what: str = "") -> float | None:
    """Mean over the images that have the wanted class, without infinite persistences; None if there are none."""
    unit = studies[name, s]
    values = finite(unit[f"{kind}{what}"][unit[f"{kind}.won"]])
    return float(values.mean()) if len(values) else None


def mean_or_nan(values) -> float:
    """Mean without None."""
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else math.nan


rows = []
for name in p.networks:
    row = {"network": name, "accuracy": 100 * np.mean([accuracies[name, s] for s in runs_of(name)]), "published accuracy": PUBLISHED.loc[name, "accuracy"]}
    for kind in ("least", "first success", "at the printed distortion"):
        row[f"distortion, {kind}"] = mean_or_nan([average(name, s, kind, ".distortion") for s in runs_of(name)])
    for kind in ("natural", "least", "first success", "at the printed distortion"):
        row[f"persistence, {kind}"] = mean_or_nan([average(name, s, kind) for s in runs_of(name)])
    row |= {"published natural": PUBLISHED.loc[name, "natural"], "published adversarial": PUBLISHED.loc[name, "adversarial"]}
    row["starts"] = np.mean([starts[name, s] for s in runs_of(name)])
    row["infinite"] = mean_or_nan([float(studies[name, s]["natural"].isinf().double().mean()) for s in runs_of(name)])
    rows.append(row)
display(pd.DataFrame(rows).set_index("network").T.style.format("{:.3g}", na_rep="none").set_caption("Table 1, mean over runs; adversarial images by where the attack stops"))

# %% [markdown]
# The column of adversarial persistence follows the stopping rule more than the network: next to zero at the least distortion, larger the farther the image is pushed.
#
# The next three figures are Figures 14 to 16: histograms for natural images and IGSM images.
# The budget of IGSM is the least of our curve at which four images of five reach their target.


# %% tags=["hide-input"]
def histograms(names) -> None:
    """Natural against IGSM persistence, one panel per network."""
    _, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 2.7), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        natural, adversarial = (np.concatenate([finite(studies[name, s][kind][studies[name, s][f"{kind}.won"]]) for s in runs_of(name)]) for kind in ("natural", "IGSM"))
        bins = np.linspace(0, np.quantile(np.r_[natural, adversarial], 0.98) * 1.1, 30)
        ax.hist(natural, bins=bins, alpha=0.6, color=NATURAL, label="natural")
        ax.hist(adversarial, bins=bins, alpha=0.6, color=ADVERSARIAL, label="IGSM")
        ax.set(title=name, xlabel="0.7-persistence")
    axes[0, 0].legend()
    plt.show()


def medians(name: str, kind: str) -> list:
    """Median per run of what has the wanted class, infinity as the largest."""
    found = [median(studies[name, s][kind][studies[name, s][f"{kind}.won"]]) for s in runs_of(name)]
    return [value if math.isfinite(value) else None for value in found] or None


# %% tags=["hide-input"] mystnb={"image": {"alt": "Histograms of persistence for the linear networks with growing regularisation, natural and IGSM images, one panel per network."}}
histograms(linear_names)

# %%
run.claim("bell2023.fig14", **{f"median_{kind}_{snake(name)}": medians(name, source) for name in ("FC10-4", "FC10-0") for kind, source in (("natural", "natural"), ("adversarial", "IGSM"))})

# %% tags=["hide-input"] mystnb={"image": {"alt": "Histograms of persistence for two dense networks with hidden layers, natural and IGSM images overlapping."}}
histograms([name for name in p.networks if name in DENSE])

# %%
run.claim("bell2023.fig15", **{f"median_{kind}_{snake(name)}": medians(name, source) for name in ("FC100-100-10", "FC200-200-10") for kind, source in (("natural", "natural"), ("adversarial", "IGSM"))})

# %% tags=["hide-input"] mystnb={"image": {"alt": "Histograms of persistence for the convolutional networks, natural and IGSM images."}}
conv_names = [name for name in p.networks if name.startswith("C-")]
histograms(conv_names)

# %%
largest = conv_names[-1]
run.claim("bell2023.fig16", median_natural=medians(largest, "natural"), median_adversarial=medians(largest, "IGSM"))

# %%
at_printed = {(name, kind): [average(name, s, kind) for s in runs_of(name)] for name in p.networks for kind in ("natural", "at the printed distortion", "first success")}


def at(kind: str, names) -> dict:
    """Means per run by network, None for a network that was not run."""
    return {name: at_printed.get((name, kind)) for name in names}


run.claim(
    "bell2023.regularised-reversal",
    **per_network(at("natural", linear_names), ("FC10-4", "FC10-2", "FC10-0"), "natural"),
    **per_network(at("at the printed distortion", linear_names), ("FC10-4", "FC10-2", "FC10-0"), "adversarial"),
    **per_network({name: [average(name, s, "least", ".distortion") for s in runs_of(name)] for name in linear_names}, ("FC10-4", "FC10-2", "FC10-0"), "distortion"),
)

# %% [markdown]
# ## ImageNet
#
# The paper repeats the experiment on AlexNet and VGG16, with goldfinches attacked towards indigo bunting and other classes.
# This part needs pictures and pretrained weights and is left out of the quick profile; its claims are then *not run*.
# With the pretrained SqueezeNet of the standard profile they are *scaled down*, whatever they show: another network, a handful of pictures, and caps on the samples that the record at the end of the page names.
# The attacks are those of Table 2 at a budget of 8/255, all aimed at one target for each picture; CW comes from torchattacks, the others from the package.
# BIM, MI-FGSM and PGD return the last iterate here, as the paper's library does.

# %% tags=["hide-input"]
SOURCES = ("goldfinch", "indigo_bunting", "robin", "jay", "magpie", "hummingbird", "tabby", "monarch", "zebra", "airliner")
IMAGENET_EPS, IMAGENET_STEPS = 8 / 255, 10


def last_iterates(model, x, target, name: str) -> torch.Tensor:
    """The attacks of Table 2 as a library runs them: ten steps of 2/255, the last iterate."""
    from torchattacks import CW, FGSM, MIFGSM, PGD, RFGSM

    eps, step = IMAGENET_EPS, 2 / 255
    attack = {
        "BIM": lambda: PGD(model, eps=eps, alpha=step, steps=IMAGENET_STEPS, random_start=False),
        "MIFGSM": lambda: MIFGSM(model, eps=eps, alpha=step, steps=IMAGENET_STEPS),
        "PGD": lambda: PGD(model, eps=eps, alpha=step, steps=IMAGENET_STEPS),
        "FGSM": lambda: FGSM(model, eps=eps),
        "R+FGSM": lambda: RFGSM(model, eps=eps, alpha=eps / 2, steps=1),
        "CW": lambda: CW(model, c=1, steps=50),
    }[name]()
    with contextlib.redirect_stdout(io.StringIO()):  # it announces its mode
        attack.set_mode_targeted_by_function(lambda images, labels: labels)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        return attack(x, target).detach()


def imagenet_study(network: str) -> dict:
    """All that Figures 4 to 6, 11, 12, 17, 18 and Table 2 need of one network."""
    model, names = pretrained.network(network).to(run.device), pretrained.class_names()
    # A 224x224 picture has 150,528 values: the search starts where the paper's numbers are, far below those of MNIST.
    options = {"samples": p.imagenet_samples, "start": 0.03, "max_sigma": 8.0}
    sources = SOURCES[: p.imagenet_pictures]
    x = pretrained.pictures(sources).to(run.device)
    with torch.no_grad():
        label = model(x).argmax(1)
    aims = [names.index("indigo_bunting") if source != "indigo_bunting" else names.index("goldfinch") for source in sources]
    target = torch.tensor(aims, device=x.device)
    result = {"label": label, "target": target, "x": x[:1]}
    sets = {"natural": x, **{name: last_iterates(model, x, target, name) for name in ("BIM", "MIFGSM", "PGD", "FGSM", "R+FGSM", "CW")}}
    for name, z in sets.items():
        hit = torch.ones(len(x), dtype=torch.bool) if name == "natural" else won(model, z, target).cpu()
        sigma = torch.full((len(x),), math.nan, dtype=torch.float64)
        if bool(hit.any()):
            sigma[hit] = smoothing.persistence(model, z[hit.to(z.device)], GAMMA, **options).sigma.cpu()
        result |= {f"{name}.won": hit, name: sigma, f"{name}.distortion": distortion(z, x)}
    least = attacks.lbfgs(model, x, target, targeted=True, search=2, steps=12)
    result |= {"L-BFGS.won": least.success, "L-BFGS.distortion": distortion(least.x_adv, x)}
    noise, ratio = None, math.nan
    for eps in (0.25 / 255, 0.5 / 255, 1 / 255, 2 / 255, 4 / 255):
        adversarial = igsm(model, x[:1], target[:1], eps, IMAGENET_STEPS)
        if bool(won(model, adversarial, target[:1])):
            noise, ratio = adversarial - x[:1], float((adversarial - x[:1]).var() / x[:1].var())
            break
    result |= {"igsm": x[:1] if noise is None else x[:1] + noise, "igsm.ratio": torch.tensor(ratio)}
    lizard = torch.tensor([names.index("alligator_lizard")], device=x.device)
    other = last_iterates(model, x[:1], lizard, "PGD")
    bunting = pretrained.pictures(["indigo_bunting"]).to(run.device)
    shown = torch.cat([x[:1], sets["BIM"][:1], bunting, sets["PGD"][:1], other])
    grid = torch.linspace(0, 1, p.imagenet_sigmas + 1)[1:] ** 2  # most happens near zero
    result |= {"grid": grid, "frequencies": smoothing.class_frequencies(model, shown, grid, samples=p.imagenet_frequency), "lizard": lizard, "shown": shown}
    for name, end, gammas in (("to bunting", sets["BIM"][:1], (0.6, 0.7, 0.8)), ("to lizard", other, (0.7,))):
        for gamma in gammas:
            path = smoothing.along_path(model, x[:1], end, gamma, points=p.imagenet_points, **options)
            result |= {f"{name}.{gamma}": path.sigma[0], f"{name}.label": path.label[0], "t": path.t}
    return result


imagenet_units = {}
for network in [name for name in p.imagenet_networks if name != "none"]:
    key = {"network": network, **{name: getattr(p, name) for name in ("imagenet_pictures", "imagenet_samples", "imagenet_frequency", "imagenet_sigmas", "imagenet_points")}}
    imagenet_units[network] = run.unit(f"imagenet-{network}", key, lambda network=network: imagenet_study(network), code=[imagenet_study, last_iterates, igsm, distortion, won, smoothing, attacks, pretrained])
first_imagenet = next(iter(imagenet_units.values()), None)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Frequencies of ImageNet classes against sigma around a goldfinch and around its neighbour attacked towards indigo bunting, and pictures under growing noise, where the profile runs this part."}}
if first_imagenet is None:
    print("ImageNet is not run at this profile")
else:
    titles = ("goldfinch", "goldfinch, BIM to indigo bunting", "indigo bunting", "goldfinch, PGD to indigo bunting", "goldfinch, PGD to alligator lizard")
    bird, aim, lizard = int(first_imagenet["label"][0]), int(first_imagenet["target"][0]), int(first_imagenet["lizard"][0])
    attacked_class = (None, aim, None, aim, lizard)
    figure, axes = plt.subplots(2, 5, figsize=(12.0, 4.0), height_ratios=(2.2, 1))
    picture_noise = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(5))
    for i, title in enumerate(titles):
        frequency_panel(axes[0, i], first_imagenet["frequencies"][:, i], first_imagenet["grid"], aim if i == 2 else bird, attacked_class[i])
        axes[0, i].set_title(title, fontsize=8)
        axes[0, i].set_xscale("log")
        strip = torch.cat([(first_imagenet["shown"][i] + sigma * picture_noise).clamp(0, 1) for sigma in (0.0, 0.25)], 2)
        axes[1, i].imshow(strip.permute(1, 2, 0))
        axes[1, i].set_axis_off()
    plt.show()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Persistence along the straight path from a goldfinch to its attacked neighbour for three values of gamma, falling where the class changes, where the profile runs this part."}}
if first_imagenet is not None:
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.0))
    for ax, name, gammas in ((axes[0], "to bunting", (0.6, 0.7, 0.8)), (axes[1], "to lizard", (0.7,))):
        for gamma, color in zip(gammas, plots.PALETTE, strict=False):
            ax.plot(first_imagenet["t"], first_imagenet[f"{name}.{gamma}"], marker="o", markersize=4, color=color, label=rf"$\gamma = {gamma}$")
        changed = (first_imagenet[f"{name}.label"] != bird).nonzero()
        if len(changed):
            ax.axvline(float(first_imagenet["t"][changed[0, 0]]), color="black", linestyle="--", linewidth=1)
        ax.set(xlabel=f"progress {name}", ylabel="persistence")
        ax.legend()
    plt.show()


# %% tags=["hide-input"]
def steps_to_boundary(sigma, label) -> float:
    """Grid steps between the least persistence on a path and the first change of class."""
    changed = (label != label[0]).nonzero()
    return min(abs(int(sigma.argmin()) - (int(changed[0, 0]) - 0.5)), len(label)) if len(changed) else math.nan


def over_networks(measure) -> list | None:
    """One number per ImageNet network; None where the part is not run."""
    return [measure(unit) for unit in imagenet_units.values()] or None


def kept_mean(unit, name: str, what: str = "") -> float:
    """Mean over the attacks that reached their target."""
    values = finite(unit[f"{name}{what}"][unit[f"{name}.won"]])
    return float(values.mean()) if len(values) else math.nan


def natural_of(unit, name: str) -> float:
    """Mean natural persistence of the pictures whose attack reached its target."""
    values = finite(unit["natural"][unit[f"{name}.won"]])
    return float(values.mean()) if len(values) else math.nan


imagenet_rows = [
    {"network": network, "attack": name, "reach their target": int(unit[f"{name}.won"].sum()), "distortion": kept_mean(unit, name, ".distortion"), "natural": natural_of(unit, name), "adversarial": kept_mean(unit, name)}
    for network, unit in imagenet_units.items()
    for name in ("BIM", "MIFGSM", "PGD", "FGSM", "R+FGSM", "CW")
]
if imagenet_rows:
    display(pd.DataFrame(imagenet_rows).set_index(["network", "attack"]).style.format("{:.4f}", subset=["distortion", "natural", "adversarial"]).set_caption(f"Table 2 on {p.imagenet_pictures} pictures for each network"))

# %%
mnist_least = float(np.nanmean(rows_introduction["L-BFGS, first success"]["distortion"]))
run.claim("bell2023.fig4-5", mean_distortion=over_networks(lambda unit: kept_mean(unit, "L-BFGS", ".distortion")), mnist_distortion=[mnist_least] * len(imagenet_units) or None)

# %%
run.claim("bell2023.fig6", variance_ratio=over_networks(lambda unit: float(unit["igsm.ratio"])))

# %%
run.claim(
    "bell2023.fig11",
    natural_half_life=over_networks(lambda unit: half_life(unit["frequencies"][:, 0, int(unit["label"][0])], unit["grid"])),
    adversarial_half_life=over_networks(lambda unit: half_life(unit["frequencies"][:, 1, int(unit["target"][0])], unit["grid"])),
    original_at_its_best=over_networks(lambda unit: float(unit["frequencies"][:, 1, int(unit["label"][0])].max())),
)

# %%
run.claim("bell2023.fig17", targets_where_the_original_leads=over_networks(lambda unit: sum(bool((unit["frequencies"][:, i].argmax(1) == unit["label"][0]).any()) for i in (3, 4))))

# %%
run.claim(
    "bell2023.fig12",
    natural_end=over_networks(lambda unit: float(unit["to bunting.0.7"][0])),
    adversarial_end=over_networks(lambda unit: float(unit["to bunting.0.7"][-1])),
    steps_from_drop_to_boundary=over_networks(lambda unit: steps_to_boundary(unit["to bunting.0.7"], unit["to bunting.label"])),
)

# %%
run.claim(
    "bell2023.fig18",
    steps_from_drop_to_boundary=over_networks(lambda unit: max(steps_to_boundary(unit[f"to bunting.{gamma}"], unit["to bunting.label"]) for gamma in (0.6, 0.8))),
    least_rank_correlation=over_networks(lambda unit: min(float(stats.spearmanr(unit["to bunting.0.7"], unit[f"to bunting.{gamma}"]).statistic) for gamma in (0.6, 0.8))),
)

# %%
run.claim(
    "bell2023.table2",
    natural=over_networks(lambda unit: natural_of(unit, "BIM")),
    adversarial=over_networks(lambda unit: np.nanmean([kept_mean(unit, name) for name in ("BIM", "MIFGSM", "PGD")]).item()),
    distortion_mifgsm=over_networks(lambda unit: kept_mean(unit, "MIFGSM", ".distortion")),
    distortion_bim=over_networks(lambda unit: kept_mean(unit, "BIM", ".distortion")),
)

# %% [markdown]
# ## What does persistence know that the distance does not?
#
# ### The drop at the boundary
#
# Along the path from an image to its adversarial neighbour persistence falls where the class changes, "precisely around the decision boundary", and the paper reads curvature from it: otherwise persistence "would be roughly the same" on the way.
# The closed form says no.
# Before a flat boundary persistence is $d / \Phi^{-1}(\gamma)$: it falls to zero in proportion to the distance and rises again on the other side.

# %% tags=["nbval-check-output"]
flat_path = smoothing.along_path(half_plane, torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]), points=21, samples=4000)
closed = smoothing.wedge_persistence(np.array([1.0, 0.0]), 1)
run.claim("bell2023.drop-at-boundary", relative_drop_at_a_flat_boundary=float(1 - closed[1] / closed[0]))

# %% [markdown]
# What could speak of curvature is a difference of the two slopes.
# The figure puts the path of the flat boundary beside those from three digits to their IGSM neighbours, with the distance to the boundary along each path as the unit.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Persistence along straight paths, a symmetric V for the flat boundary and less regular V shapes for three digits; all are zero where the class changes."}}
model = small[seed]
x, y, target = right_images(model, p.images)
adversarial = igsm(model, x, target, p.igsm_eps, p.igsm_steps)
reach = won(model, adversarial, target).nonzero()[:3, 0]
figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.0))
axes[0].plot(1 - 2 * flat_path.t, flat_path.sigma[0], marker="o", markersize=3, color=NATURAL)
axes[0].set(title="flat boundary", xlabel="signed distance", ylabel="0.7-persistence", xticks=[-1, -0.5, 0, 0.5, 1])
path = smoothing.along_path(model, x[reach], adversarial[reach], points=31, samples=p.samples)
for i, color in zip(range(len(reach)), plots.PALETTE, strict=False):
    axes[1].plot(path.t, path.sigma[i].cpu(), marker="o", markersize=3, color=color, label=f"{int(y[reach[i]])} to {int(target[reach[i]])}")
axes[1].set(title="784-100-20-10, three digits to their IGSM images", xlabel="progress")
axes[1].legend()
plt.show()

# %% [markdown]
# ### Mirrored pairs
#
# Natural images lie far from the boundary and adversarial ones close to it, so to compare their persistence is to compare distances.
# A fair pair: from a natural image go the least distance $d$ to the boundary, and again as far beyond it.
# The two points see the same piece of boundary from its two sides.
# As a common measure we turn persistence into an *effective number of planes*: the $k$ of the wedge that would give this persistence at this distance,
#
# $$k_{\mathrm{eff}} = \frac{\ln \gamma}{\ln \Phi(d / \sigma^*)} .$$
#
# It is 1 for a flat boundary, larger inside a cone, and below 1 in front of a boundary that bends away.
# Distances are those of L-BFGS, measured again at the mirrored point, which may have come close to yet another class.


# %% tags=["hide-input"]
def planes(distances, sigma) -> torch.Tensor:
    """The effective number of planes."""
    inside = torch.special.log_ndtr(distances.double() / sigma.double())
    return math.log(GAMMA) / inside


mirrored = []
for (name, s), unit in studies.items():
    pair = unit["mirrored.won"]
    near, far = unit["natural"][pair], unit["mirrored"][pair]
    mirrored.append({
        "network": name, "run": s, "pairs": int(pair.sum()),
        "natural": median(near), "mirrored": median(far),
        "distance, natural": median(unit["natural.distance"][pair]), "distance, mirrored": median(unit["mirrored.distance"][pair]),
        "over distance, natural": median(near / unit["natural.distance"][pair]), "over distance, mirrored": median(far / unit["mirrored.distance"][pair]),
        "planes, natural": median(planes(unit["natural.distance"][pair], near)), "planes, mirrored": median(planes(unit["mirrored.distance"][pair], far)),
        "natural is larger": float((near > far).double().mean()) if len(near) else math.nan,
    })  # fmt: skip
mirrored = pd.DataFrame(mirrored)
display(mirrored.groupby("network", sort=False).mean().drop(columns="run").style.format("{:.3g}").set_caption("Mirrored pairs: medians, mean over runs"))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Scatter of persistence against distance to the boundary on logarithmic axes for natural and mirrored points of two networks, between straight lines that mark wedges of 1, 3, 10, 100 and 1000 planes."}}
figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.9), sharey=True)
for ax, name in zip(axes, ("FC100-100-10", largest), strict=True):
    for kind, color, marker in (("natural", NATURAL, "o"), ("mirrored", ADVERSARIAL, "^")):
        pair = [(studies[name, s][f"{kind}.distance"][studies[name, s]["mirrored.won"]], studies[name, s][kind][studies[name, s]["mirrored.won"]]) for s in runs_of(name)]
        ax.scatter(torch.cat([d for d, _ in pair]), torch.cat([sigma for _, sigma in pair]), s=9, color=color, marker=marker, alpha=0.6, label=kind if kind == "natural" else "as far beyond the boundary")
    reachable = np.geomspace(*ax.get_xlim(), 50) if ax.get_xlim()[0] > 0 else np.geomspace(0.05, ax.get_xlim()[1], 50)
    for count in (1, 3, 10, 100, 1000):
        ax.plot(reachable, smoothing.wedge_persistence(reachable, count), color="0.6", linewidth=0.8)
        ax.annotate(f"k = {count}", (reachable[-1], float(smoothing.wedge_persistence(reachable[-1], count))), fontsize=7, color="0.35")
    ax.set(xscale="log", yscale="log", xlabel="distance to the boundary", title=name)
axes[0].set_ylabel("0.7-persistence")
axes[0].legend()
plt.show()

# %% [markdown]
# The lines are wedges of so many planes.
# What is left of the cone hypothesis is the gap between the two clouds at the same distance.

# %%
pairs_of = {name: part for name, part in mirrored.groupby("network", sort=False)}


def column(name: str, what: str) -> list | None:
    """A column of the table of mirrored pairs for one network, per run."""
    return [value if math.isfinite(value) else None for value in pairs_of[name][what]] if name in pairs_of else None


run.claim("bell2023.cone-hypothesis", planes_natural=column("FC100-100-10", "planes, natural"), planes_beyond=column("FC100-100-10", "planes, mirrored"), share_of_pairs=column("FC100-100-10", "natural is larger"))

# %% [markdown]
# Table 1 can now be judged twice: at the printed distortion, and by the persistence per distance of mirrored pairs.

# %%
run.claim(
    "bell2023.table1",
    **{f"{kind}_{snake(name)}": at_printed.get((name, source)) for name in ("FC100-100-10", "FC200-200-10", "C-32") for kind, source in (("natural", "natural"), ("adversarial", "at the printed distortion"))},
    **{f"accuracy_{snake(name)}": [accuracies[name, s] for s in runs_of(name)] or None for name in ("FC100-100-10", "C-32")},
    **{f"first_success_{snake(name)}": at_printed.get((name, "first success")) for name in ("FC100-100-10", "C-32")},
    modern={f"per_distance_{kind}_{snake(name)}": column(name, f"over distance, {kind}") for name in ("FC100-100-10", "C-32") for kind in ("natural", "mirrored")},
)

# %% [markdown]
# ### Matched distances
#
# Mirrored points are no attacks.
# For IGSM images we match instead: each adversarial image, of any budget of the curve, is paired with the natural image whose distance to the boundary is nearest, if the two differ by less than a tenth.
# The table adds what else might explain persistence: the rank correlation of natural persistence with the distance, with the margin of the scores, and with the share of far noise that the class keeps.
# It also says how long the noise is that a natural image stands, $\sigma^* \sqrt n$ over the length of the image: this is no small neighbourhood.


# %% tags=["hide-input"]
def pool(unit) -> tuple:
    """Persistence and distance of the successful IGSM images of all budgets."""
    hits = [(unit[f"eps{i}"][unit[f"eps{i}.won"]], unit[f"eps{i}.distance"][unit[f"eps{i}.won"]]) for i in range(len(p.eps_curve))]
    return torch.cat([sigma for sigma, _ in hits]), torch.cat([d for _, d in hits])


def matched(unit) -> tuple:
    """Persistence of natural and adversarial images at matched distance."""
    sigma, d = pool(unit)
    gap = (d.log()[:, None] - unit["natural.distance"].log()[None]).abs()
    nearest = gap.min(1)
    keep = nearest.values < 0.1
    return unit["natural"][nearest.indices[keep]], sigma[keep]


correlations, pairs = [], {}
for s in run.seeds:
    unit = probes[s]
    pairs[s] = matched(unit)
    sigma = unit["natural"].clamp(max=99)
    correlations.append({
        "run": s, "with distance": float(stats.spearmanr(sigma, unit["natural.distance"]).statistic),
        "with margin": float(stats.spearmanr(sigma, unit["natural.margin"]).statistic), "with far noise kept": float(stats.spearmanr(sigma, unit["natural.far"]).statistic),
        "noise over image": median(unit["natural"] * math.sqrt(pixels) / unit["natural.norm"]), "matched pairs": len(pairs[s][0]), "natural, matched": median(pairs[s][0]), "IGSM, matched": median(pairs[s][1]),
    })  # fmt: skip
correlations = pd.DataFrame(correlations).set_index("run")
display(correlations.style.format("{:.3g}"))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Persistence against distance for natural images and IGSM images of all budgets; the two clouds overlap."}}
figure, ax = plt.subplots(figsize=(6.4, 3.8))
sigma, d = pool(probes[seed])
ax.scatter(d, sigma, s=7, color=ADVERSARIAL, alpha=0.35, label="IGSM, all budgets")
ax.scatter(probes[seed]["natural.distance"], probes[seed]["natural"], s=9, color=NATURAL, alpha=0.7, label="natural")
top = 1.1 * float(np.quantile(finite(probes[seed]["natural"]), 0.99))
line = np.linspace(0, float(probes[seed]["natural.distance"].max()), 50)
for count in (1, 10, 100, 1000):
    height = smoothing.wedge_persistence(line, count)
    end = np.flatnonzero(height < 0.97 * top)[-1]  # the last point inside the picture
    ax.plot(line, height, color="0.6", linewidth=0.8)
    ax.annotate(f"k = {count}", (line[end], height[end]), fontsize=7, color="0.35")
ax.set(xlabel="distance to the boundary", ylabel="0.7-persistence", ylim=(0, top))
ax.legend()
plt.show()

# %% [markdown]
# ### Persistence as a detector, and an adversary who knows it
#
# "Persistence below a threshold means adversarial" is a detector, announced in the paper's last section.
# We draw its ROC curve for three attackers: IGSM at the budget of Figure 10, IGSM at the largest budget of the curve, and an adversary who knows the detector.
# The table has a fourth, the minimal attack: its images end on the boundary, where any measure of depth finds them.
# The third has the budget of the first and one more idea: it descends the mean loss over noisy copies of its image, with noise of the size that natural images stand.
# Beside it stands the detector that uses the distance to the boundary alone.


# %% tags=["hide-input"]
def detection(unit) -> dict:
    """Areas under the ROC curve."""
    last, hit, knows = f"eps{len(p.eps_curve) - 1}", unit["chosen.won"], unit["adaptive.won"]
    return {
        "L-BFGS, least distortion": auc(unit["natural"], unit["least"][unit["least.won"]]),
        "IGSM": auc(unit["natural"], unit["chosen"][hit]),
        "IGSM, by distance": auc(unit["natural.distance"], unit["chosen.distance"][hit]),
        "IGSM, largest budget": auc(unit["natural"], unit[last][unit[f"{last}.won"]]),
        "adaptive": auc(unit["natural"], unit["adaptive"][knows]),
        "adaptive, by distance": auc(unit["natural.distance"], unit["adaptive.distance"][knows]),
        "adaptive reaches its target": float(knows.double().mean()),
        "IGSM reaches its target": float(hit.double().mean()),
    }


detections = pd.DataFrame({s: detection(probes[s]) for s in run.seeds})
display(detections.mean(axis=1, skipna=True).to_frame("mean over runs").style.format("{:.3f}"))

# %% tags=["hide-input"] mystnb={"image": {"alt": "ROC curves of the persistence detector: one each for IGSM at the chosen budget, at the largest budget, and for the adaptive adversary."}}
figure, ax = plt.subplots(figsize=(4.6, 3.8))
unit = probes[seed]
last = f"eps{len(p.eps_curve) - 1}"
for name, values, color, style in (("IGSM, chosen budget", unit["chosen"][unit["chosen.won"]], plots.PALETTE[0], "-"), ("IGSM, largest budget", unit[last][unit[f"{last}.won"]], plots.PALETTE[1], "--"), ("adaptive, chosen budget", unit["adaptive"][unit["adaptive.won"]], plots.PALETTE[2], "-.")):
    if len(values):
        both = torch.cat([unit["natural"], values]).clamp(max=1e9).numpy()
        wrong, caught, _ = roc_curve(np.r_[np.zeros(len(unit["natural"])), np.ones(len(values))], -both)
        ax.plot(wrong, caught, style, color=color, label=name)
ax.plot([0, 1], [0, 1], color="0.7", linewidth=1)
ax.set(xlabel="natural images flagged", ylabel="adversarial images flagged")
ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
plt.show()

# %%
run.claim(
    "bell2023.fig10",
    median_natural=[median(probes[s]["natural"]) for s in run.seeds],
    median_adversarial=[median(probes[s]["nine"][probes[s]["nine.won"]]) for s in run.seeds],
    modern={
        "median_larger_budget": [median(probes[s][last][probes[s][f"{last}.won"]]) for s in run.seeds],
        "matched_natural": [median(pairs[s][0]) for s in run.seeds],
        "matched_adversarial": [median(pairs[s][1]) for s in run.seeds],
        "median_adaptive": [median(probes[s]["adaptive"][probes[s]["adaptive.won"]]) for s in run.seeds],
        "median_natural": [median(probes[s]["natural"]) for s in run.seeds],
    },
)

# %%
run.claim(
    "bell2023.beyond-distance",
    rank_correlation_with_distance=correlations["with distance"].tolist(),
    auc_gain_over_distance=(detections.loc["IGSM"] - detections.loc["IGSM, by distance"]).tolist(),
)

# %%
run.claim("bell2023.detector", auc=detections.loc["IGSM"].tolist(), modern={"auc_larger_budget": detections.loc["IGSM, largest budget"].tolist(), "auc_adaptive": detections.loc["adaptive"].tolist()})

# %% [markdown]
# ### The radius of a smoothed classifier
#
# Stability has a second life as *randomised smoothing* {cite:p}`cohen2019`: if a point is $(\gamma, \sigma)$-stable, the classifier that answers with the most frequent class under noise keeps its answer within the radius $\sigma\,\Phi^{-1}(\gamma)$.
# At the persistence $\sigma^*$ this radius is exactly the distance of a flat boundary.
# The table compares it with the distance of the network's own boundary, for natural and for IGSM images.

# %% tags=["hide-input"]
quantile = float(stats.norm.ppf(GAMMA))
averaged = []
for s in run.seeds:
    unit = probes[s]
    for name, hit in (("natural", unit["natural"].isfinite()), ("chosen", unit["chosen.won"] & unit["chosen"].isfinite())):
        radius = quantile * unit[name][hit]
        averaged.append({"images": {"natural": "natural", "chosen": "IGSM"}[name], "radius of the smoothed": median(radius), "distance of the network": median(unit[f"{name}.distance"][hit]), "ratio": median(radius / unit[f"{name}.distance"][hit])})
display(pd.DataFrame(averaged).groupby("images", sort=False).mean().style.format("{:.3f}"))

# %% [markdown]
# The radius grows with $\gamma$ at fixed $\sigma$ and with $\sigma$ at fixed $\gamma$; persistence fixes one and reads the other.
# It certifies the smoothed classifier, not the network.
#
# ## Today's protocol
#
# None of the networks here is a defence, and the book's common evaluation says so for the network of Figures 9 to 13: accuracy under every attack, at one radius.

# %% tags=["hide-input"]
net = small[seed].to(run.device)
reports = {SMALL: evaluation.evaluate(net, images_test.x.to(run.device), images_test.y.to(run.device), p.protocol_eps, budget=evaluation.BUDGETS[p.protocol_budget], unit=run.unit, name=SMALL, seed=seed)}
display(evaluation.compare(reports).style.format("{:.3f}", na_rep="not run"))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Accuracy of the network under each row of the protocol at one radius, and beside it the panels of the flags."}}
plots.protocol(reports)
plt.show()

# %% [markdown]
# ## What did not reproduce, and why
#
# The table collects the verdicts of this run.

# %% tags=["hide-input"]
run.show_verdicts()

# %% [markdown]
# Three statements are refuted by a closed form, so that no larger experiment can rescue them: that persistence always exists, that a drop at the boundary speaks of curvature, and the printed bound on the length of Gaussian noise.
# Two more hold in part only: the Bracketing Algorithm, and the larger persistence outside a cone.
#
# The rest turns on one thing that the paper leaves open: where its attacks stop.
# A least perturbation has persistence zero whatever the boundary looks like; a generous budget makes adversarial images as persistent as natural ones or more so; and on the linear networks, whose boundaries are flat, the reversal of Table 1 can be nothing else.
# Mirrored pairs and matched distances take that freedom away.
# What they leave is the evidence for the cone hypothesis, and the table of mirrored pairs shows how large it is on each network.
#
# Persistence is a fine description of how an image sits in its class under noise.
# As a detector it shares the fate of its kind: it was not built against anyone who knows it.
#
# ## Exercises
#
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
far_out = torch.tensor([[-3.0, -3.0]])
for gamma in (0.7, 0.8):
    print(f"gamma = {gamma}: persistence {float(smoothing.persistence(wedge(2), far_out, gamma, samples=8000).sigma):.0f}")

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
# ### Graded exercises
#
# These stand by themselves: each asks for one function, and no result of the chapter is needed.
# $\Phi$ is the distribution function of the standard normal distribution, `stats.norm.cdf`, and $\Phi^{-1}$ its inverse, `stats.norm.ppf`.

# %% tags=["assignment", "hide-input"]
# Write every function yourself, without `support`: the tests compare it with closed forms, exact sums and the package.
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
    """gamma-persistence at these distances from orthogonal sheets, a float, possibly infinite."""
    ### BEGIN SOLUTION
    near = np.asarray(distances, dtype=float)
    if math.log(gamma) <= -len(near) * math.log(2):
        return math.inf
    unit = 1 / stats.norm.isf(-math.expm1(math.log(gamma) / len(near)))  # the persistence at distance 1 from all sheets

    def excess(log_sigma):
        return stats.norm.logcdf(near / math.exp(log_sigma)).sum() - math.log(gamma)

    return math.exp(brentq(excess, math.log(unit * near.min()) - 1e-6, math.log(unit * near.max()) + 1e-6, xtol=1e-12))
    ### END SOLUTION


# %% tags=["tests"] exercise="sheets" points=1
assert abs(sheet_persistence([1.0], 0.7) - 1 / stats.norm.ppf(0.7)) < 1e-6, "a flat boundary at distance 1: Phi(1 / sigma) = 0.7"
assert abs(sheet_persistence([2.0, 2.0, 2.0], 0.7) - 2 / stats.norm.ppf(0.7 ** (1 / 3))) < 1e-6, "three sheets: each is kept with probability gamma^(1/3)"

# %% tags=["hidden-tests"] exercise="sheets" points=2
numbers = np.random.default_rng(SEED)
for sheets, level, scale in ((2, 0.7, 1.0), (3, 0.5, 1e-4), (5, 0.9, 1e4), (30, 0.7, 1.0), (1000, 0.8, 0.1), (2, 0.26, 1.0)):
    lengths = scale * numbers.uniform(0.2, 3.0, sheets)
    answer = sheet_persistence(lengths, level)
    for factor, above in ((1 - 1e-5, True), (1 + 1e-5, False)):
        kept = math.exp(stats.norm.logcdf(lengths / (factor * answer)).sum())
        assert (kept > level) == above, f"{sheets} sheets, gamma = {level}: the stability does not cross gamma at {answer:.6g}"

# %% tags=["hidden-tests"] exercise="sheets" points=2
for sheets, level in ((1, 0.5), (1, 0.3), (2, 0.25), (3, 0.1), (40, 1e-13)):
    assert sheet_persistence(np.linspace(1, 2, sheets), level) == math.inf, f"{sheets} sheets: however large sigma is, the class keeps more than 2^-{sheets} of the noise"
assert math.isfinite(sheet_persistence([1.0, 1.5, 2.0], 0.13)), "three sheets at gamma = 0.13 are crossed, for 0.13 > 1/8"

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
assert 0.55 < low_end < 0.65 and 0.75 < high_end < 0.85, "the interval holds the share 0.7, with about a tenth to each side"
low_end, high_end = interval(20, 20, 0.95)
assert high_end == 1 and abs(low_end - 0.025 ** (1 / 20)) < 0.025, "20 of 20 happen with probability p^20: p = 0.83 is just possible"
assert interval(0, 20, 0.95)[0] == 0, "where no copy kept the class, no p is too small"

# %% tags=["hidden-tests"] exercise="interval" points=2
for samples, level in ((1, 0.9), (12, 0.95), (30, 0.99), (60, 0.8)):
    ends = np.array([interval(kept, samples, level) for kept in range(samples + 1)])
    truths = np.unique(np.r_[np.linspace(0.001, 0.999, 400), ends.ravel() - 1e-9, ends.ravel() + 1e-9].clip(0, 1))
    held = (ends[:, :1] <= truths) & (truths <= ends[:, 1:])
    coverage = (stats.binom.pmf(np.arange(samples + 1)[:, None], samples, truths) * held).sum(0)
    worst = coverage.argmin()
    assert coverage[worst] >= level - 1e-6, f"n = {samples}: at p = {truths[worst]:.3f} the interval holds p with probability {coverage[worst]:.3f} only, below {level}"

# %% tags=["hidden-tests"] exercise="interval" points=1
for kept, samples, level in ((0, 9, 0.95), (9, 9, 0.95), (3, 50, 0.99), (1400 + SEED % 50, 2000, 0.9999)):
    wanted = stats.binomtest(kept, samples).proportion_ci(level)
    assert np.allclose(interval(kept, samples, level), (wanted.low, wanted.high), atol=1e-9), f"{kept} of {samples}: the interval is not the one of Clopper and Pearson"

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
    """Where stability crosses gamma, between 1e-5 and the cap; 0.0 below and math.inf above."""
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
    """Stability at distance 1 from a flat boundary; it complains of a search without end."""
    global spent_calls
    spent_calls += 1
    assert spent_calls <= 400, "the search does not seem to end"
    return stats.norm.cdf(1 / sigma)


answer = search(flat_boundary, 0.7, 64.0)
assert abs(answer * stats.norm.ppf(0.7) - 1) < 1e-6, "the crossing is not found with six digits"
assert spent_calls <= 32, f"{spent_calls} calls of stability; 32 are allowed"

# %% tags=["hidden-tests"] exercise="search" points=3
for told, curve, level, cap, wanted in (
    ("a class that keeps three quarters of any noise", lambda sigma: 0.75 + 0.25 * math.exp(-sigma), 0.7, 64.0, math.inf),
    ("a point on the boundary", lambda sigma: 0.5, 0.7, 64.0, 0.0),
    ("stable exactly at gamma", lambda sigma: 0.7, 0.7, 64.0, math.inf),
    ("a crossing at 2e-4", lambda sigma: stats.norm.cdf(2e-4 * stats.norm.ppf(0.8) / sigma), 0.8, 1e3, 2e-4),
    ("a crossing at 900", lambda sigma: stats.norm.cdf(900 * stats.norm.ppf(0.6) / sigma), 0.6, 1e3, 900.0),
    ("a jump", lambda sigma: 1.0 if sigma < 3.3 else 0.0, 0.5, 64.0, 3.3),
    ("a flat stability", lambda sigma: 0.7 - 0.001 * math.log10(sigma / 5), 0.7, 100.0, 5.0),
    ("a drawn crossing", lambda sigma: math.exp(-sigma / (2 + SEED % 17)), 0.9, 64.0, -math.log(0.9) * (2 + SEED % 17)),
):
    asked = []

    def watched(sigma, curve=curve, asked=asked, cap=cap):
        asked.append(sigma)
        assert len(asked) <= 400, "the search does not seem to end"
        assert 1e-5 * (1 - 1e-9) <= sigma <= cap * (1 + 1e-9), f"stability was asked at {sigma:g}, outside of the range"
        return curve(sigma)

    answer = search(watched, level, cap)
    right = answer == wanted if wanted in (0, math.inf) else abs(answer / wanted - 1) < 1e-6
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
    return float(brentq(excess, sigmas[unstable[0] - 1], sigmas[unstable[0]], rtol=1e-10))
    ### END SOLUTION


# %% tags=["tests"] exercise="outside" points=1
answer = outside_persistence(-3.0, -3.0, 0.8)
assert abs(1 - stats.norm.cdf(-3 / answer) ** 2 - 0.8) < 1e-4, "both coordinates have to turn positive, independently of each other, for the class to be lost"
assert outside_persistence(-3.0, -3.0, 0.7) == math.inf, "three quarters of the plane are left however large the noise is"
assert abs(outside_persistence(-1.0, 500.0, 0.9) * stats.norm.ppf(0.9) - 1) < 1e-3, "far from the edge the boundary is flat"

# %% tags=["hidden-tests"] exercise="outside" points=3
for x1, x2, level in ((-0.05, 0.3, 0.7), (0.3, -0.05, 0.7), (-1.0, 3.0 + 0.01 * (SEED % 100), 0.74), (-20.0, 400.0, 0.6), (-0.002, 0.5, 0.55)):
    answer = outside_persistence(x1, x2, level)
    assert math.isfinite(answer), f"({x1}, {x2}), gamma = {level}: the stability falls below gamma before it comes back, and the definition says for all smaller sigma"
    below, after = (1 - stats.norm.cdf(x1 / sigma) * stats.norm.cdf(x2 / sigma) for sigma in (answer * np.linspace(0.01, 1 - 1e-4, 2000), answer * (1 + 1e-4)))
    assert below.min() >= level, f"({x1}, {x2}), gamma = {level}: a smaller sigma is unstable already"
    assert after < level, f"({x1}, {x2}), gamma = {level}: the stability does not cross gamma at {answer:.6g}"

# %% tags=["hidden-tests"] exercise="outside" points=1
assert outside_persistence(-0.6, 0.5, 0.7) == math.inf, "with x_2 below |x_1| the stability falls towards 3/4 all the way, and never below"
assert outside_persistence(-2.0, -0.003, 0.75) == math.inf, "both coordinates negative: the stability stays above 3/4"
for scale in (0.01, 100.0):
    assert abs(outside_persistence(-scale, 0.8 * scale, 0.9) / (scale * outside_persistence(-1.0, 0.8, 0.9)) - 1) < 1e-3, "in other units of length the persistence is the same length"

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
        tail = stats.chi(n).sf(math.sqrt(n) + eps / sigma) + stats.chi(n).cdf(math.sqrt(n) - eps / sigma)
        if tail > 1.2 * 2 * math.exp(-(eps**2) / 16):
            return n, float(eps)
    ### END SOLUTION


# %% tags=["tests"] exercise="units" points=1
n_found, eps_found = refute_bound(7.0)
assert n_found == int(n_found) >= 1 and eps_found > 0, "n is a whole number of at least 1, and eps positive"
outside_shell = stats.chi(n_found).sf(math.sqrt(n_found) + eps_found / 7) + stats.chi(n_found).cdf(math.sqrt(n_found) - eps_found / 7)
assert outside_shell >= 1.05 * 2 * math.exp(-(eps_found**2) / 16), f"outside of the shell lies {outside_shell:.4f}, and the bound allows {2 * math.exp(-(eps_found**2) / 16):.4f}: it holds here"

# %% tags=["hidden-tests"] exercise="units" points=3
for sigma_here in (4.5, 5.0, 5.5 + 0.01 * (SEED % 100), 10.0, 40.0, 1000.0):
    n_found, eps_found = refute_bound(sigma_here)
    assert n_found == int(n_found) >= 1 and eps_found > 0, "n is a whole number of at least 1, and eps positive"
    outside_shell = stats.chi(n_found).sf(math.sqrt(n_found) + eps_found / sigma_here) + stats.chi(n_found).cdf(math.sqrt(n_found) - eps_found / sigma_here)
    assert outside_shell >= 1.05 * 2 * math.exp(-(eps_found**2) / 16) > 0, f"sigma = {sigma_here:g}: outside of the shell lies {outside_shell:.3g}, and the bound allows {2 * math.exp(-(eps_found**2) / 16):.3g}: it holds here"

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
assert abs(ever_stops(lambda m, kept: m == 1 and kept == 0, 0.7, 5) - 0.3) < 1e-12, "a rule that stops if the first copy is lost, and never later"
assert abs(ever_stops(lambda m, kept: m == 12 and kept <= 5, 0.7, 12) - stats.binom.cdf(5, 12, 0.7)) < 1e-12, "a rule that looks once, after the last copy"

# %% tags=["hidden-tests"] exercise="peeking" points=2
table = np.random.default_rng(SEED).random((11, 11)) < 0.08
table[10, ::2] = True  # some walks are stopped by the last look
for p_here in (0.2, 0.7):
    total = 0.0
    for walk_number in range(2**10):
        bits = [(walk_number >> place) & 1 for place in range(10)]
        if any(table[m, sum(bits[:m])] for m in range(1, 11)):
            total += p_here ** sum(bits) * (1 - p_here) ** (10 - sum(bits))
    answer = ever_stops(lambda m, kept: bool(table[m, kept]), p_here, 10)
    assert abs(answer - total) < 1e-12, f"p = {p_here}: {answer:.6f}, and the sum over all 1024 walks is {total:.6f}"

# %% tags=["hidden-tests"] exercise="peeking" points=1
tails = [np.cumsum([math.comb(m, kept) * 0.7**kept * 0.3 ** (m - kept) for kept in range(m + 1)]) for m in range(151)]
each_look = ever_stops(lambda m, kept: bool(tails[m][kept] <= 0.05), 0.7, 150)
mended = ever_stops(lambda m, kept: kept < 0.7 * m and (m + 1) * math.comb(m, kept) * 0.7**kept * 0.3 ** (m - kept) <= 0.05, 0.7, 150)
assert 0.15 < each_look < 0.3, "a test at 5 % that is repeated after each of 150 copies errs in about a fifth of all cases"
assert 0 < mended <= 0.05, "the rule of Robbins errs in at most 5 % of all cases, however often one looks"

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
    low32 = torch.where(low32.double() < low, torch.nextafter(low32, torch.full_like(x, torch.inf)), low32)
    high32 = torch.where(high32.double() > high, torch.nextafter(high32, torch.full_like(x, -torch.inf)), high32)
    return torch.minimum(torch.maximum(z - alpha * g.sign(), low32), high32)
    ### END SOLUTION


# %% tags=["tests"] exercise="rounding" points=1
pixels_x, pixels_z = torch.tensor([0.5, 0.5, 0.5, 0.05, 0.95]), torch.tensor([0.5, 0.45, 0.5, 0.03, 0.97])
moved_z = sign_step(pixels_x, pixels_z, torch.tensor([2.0, 0.1, 0.0, 5.0, -5.0]), 0.1, 0.06)
assert moved_z.dtype == torch.float32, "float32 in, float32 out"
assert torch.allclose(moved_z, torch.tensor([0.44, 0.4, 0.5, 0.0, 1.0]), atol=1e-6), "against the sign of the gradient, from z; the ball is about x"

# %% tags=["hidden-tests"] exercise="rounding" points=2
drawn = torch.Generator().manual_seed(SEED)
pixels_x, slopes = torch.rand(50_000, generator=drawn), torch.randn(50_000, generator=drawn)
for budget_here in (0.1, 8 / 255, 0.3, 1e-3):
    moved_z = pixels_x
    for _ in range(12):
        moved_z = sign_step(pixels_x, moved_z, slopes, budget_here, budget_here / 10)
    too_long = int(((moved_z.double() - pixels_x.double()).abs() > budget_here).sum())
    assert too_long == 0, f"eps = {budget_here:.4g}: {too_long} of 50,000 entries are farther than eps from x when judged in float64"
    assert moved_z.min() >= 0 and moved_z.max() <= 1, "an image has values in [0, 1]"
    assert ((moved_z - pixels_x) * slopes <= 0).all(), "a step towards the target goes against the sign of the gradient"

# %% tags=["hidden-tests"] exercise="rounding" points=2
moved_z = pixels_x
for _ in range(3):  # with steps of eps / 2 the third is cut
    plain = (moved_z - 0.05 * slopes.sign()).clamp(min=(pixels_x - 0.1).clamp(min=0), max=(pixels_x + 0.1).clamp(max=1))
    moved_z = sign_step(pixels_x, moved_z, slopes, 0.1, 0.05)
    assert (moved_z - plain).abs().max() <= 2**-23, "this gives away more than one unit in the last place"
assert torch.equal(sign_step(pixels_x, moved_z, torch.zeros_like(slopes), 0.1, 0.05), moved_z), "without a gradient nothing moves"

# %% [markdown] tags=["solution-text"] exercise="rounding"
# ```{solution-end}
# ```

# %% tags=["hide-input"]
run.finish()
