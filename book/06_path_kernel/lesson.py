# %% [markdown]
# # The path kernel
#
# A network that learns by gradient steps meets its training images only through inner products of gradients.
# {cite:t}`bell2023` (part II, "the text" below) turns this into an identity: every score is the score before training plus a *kernel machine*, a sum over the training images of weights times inner products, the kernel values, *exactly*, for a network of any width and steps of any size.
# If every answer is a sum of what single images added, then so is a wrong answer under attack: what does the sum tell us that the network did not?

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # quick, standard or paper: see data/profiles
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, such as {"steps": 100}

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.func import jacrev, vmap
from torch.nn import functional

from support import attacks, intervals, models, path_kernel
from support.book import chapter_run, movable, plots
from support.measures import area, draws, share

run = chapter_run.start("06_path_kernel/lesson", profile, seed, device, overrides)
plots.use_style()
judged = run.paper("bell2023")
verdict, found = judged.verdict, judged.found


def hull(name: str, what: str, form: str = ".2f") -> str:
    """A mean over networks; from the lowest to the highest end of their intervals."""
    one = judged.judgement(name).intervals[what]
    ends = "" if one.low is None else f" [{one.low:{form}}, {one.high:{form}}]"
    return f"{one.mean:{form}}{ends}"


K, M, H = 10, 200, 16  # classes, training images, hidden units
TIME, STEPS, EPS = 25.0, 100, 0.1  # step size times steps, steps, size of the attack
RATE = TIME / STEPS  # step size on the mean loss
train, test = run.load("digits", "train").take(M, seed), run.load("digits", "test")
x, y = train.x.double(), train.y
test = test.take(200)
xq, yq = test.x.double(), test.y
net = models.mlp(x.shape[1:], (H,), K, seed=seed)
path = path_kernel.train_path(net, x, y, lr=RATE, steps=STEPS)
trained = path.model_at(STEPS)
xa = attacks.pgd(trained, xq, yq, EPS, generator=draws(seed)).x_adv
clean, moved = path.contributions(xq), path.contributions(xa)
says, says_attacked = clean.network.argmax(1), moved.network.argmax(1)
good = torch.nonzero(says == yq)[:, 0]
fooled = torch.nonzero((says == yq) & (says_attacked != yq))[:, 0]


def as_rows(pictures: torch.Tensor) -> torch.Tensor:
    """Images as rows of 64 pixels and a constant 1."""
    return functional.pad(pictures.flatten(1), (0, 1), value=1.0)


def as_vector(w: torch.Tensor) -> torch.Tensor:
    """The package's weights as ours: biases are a last column of each matrix."""
    inner, shift, outer, last = w.split((64 * H, H, K * H, K))
    first = torch.cat([inner.view(H, 64), shift[:, None]], 1)
    second = torch.cat([outer.view(K, H), last[:, None]], 1)
    return torch.cat([first.flatten(), second.flatten()])


def power(value: float) -> str:
    """The power of ten that a small number does not exceed."""
    return f"$10^{{{math.ceil(math.log10(max(value, 1e-17)))}}}$"


def lead(values: torch.Tensor, own: int, rival: int) -> torch.Tensor:
    """Of scores or contributions (..., K): those of one class minus a rival's."""
    return values[..., own] - values[..., rival]


images, queries = as_rows(x), as_rows(xq[:6])
first_weights = as_vector(path.weights(0))

# %% name="fig-sum" tags=["hide-input"] mystnb={"image": {"alt": "Two test digits, clean above and attacked below, with the three training digits that raise the lead of the right class most and the three that lower it most, almost the same in both rows. Right, the running sum of all contributions, class by class: it climbs and falls far more than the small lead in which it ends, clean and attacked nearly alike."}}
figure = plt.figure(figsize=(11, 4.5))
grid = figure.add_gridspec(4, 11)
order = y.argsort(stable=True)
bounds = torch.bincount(y, minlength=K).cumsum(0)
for block, i in enumerate(fooled[:2].tolist()):
    own, rival = int(yq[i]), int(says_attacked[i])
    curve = figure.add_subplot(grid[2 * block : 2 * block + 2, 7:])
    looks = (("clean", xq, clean, "grey"), ("attacked", xa, moved, plots.GAUSS))
    for row, (name, shown, told, colour) in enumerate(looks):
        push = lead(told.contributions[i], own, rival)
        begin, end = (float(lead(z[i], own, rival)) for z in (told.start, told.network))
        ends = [*push.topk(3).indices, *push.topk(3, largest=False).indices.flip(0)]
        titles = [f"{name}: says {int(told.network[i].argmax())}"]
        titles += [f"{int(y[j])}: {push[j]:+.2f}" for j in ends]
        tiles = [shown[i], *(x[j] for j in ends)]
        for column, (tile, title) in enumerate(zip(tiles, titles, strict=True)):
            ax = figure.add_subplot(grid[2 * block + row, column])
            ax.imshow(tile[0], cmap="gray", vmin=0, vmax=1)
            ax.set_axis_off()
            ax.set_title(title, fontsize=8, pad=2)
        sums = begin + torch.cat([push.new_zeros(1), push[order].cumsum(0)])
        curve.plot(sums, "-" if row else "--", color=colour, linewidth=1.4)
        curve.plot(M, end, "o", color=colour, markersize=5)
        label = f"{name}: {end:+.2f}"
        curve.set_title(label, color=colour, fontsize=9, loc=("left", "right")[row])
    curve.axhline(0, color="black", linewidth=0.5)
    middles = (bounds - torch.bincount(y, minlength=K) / 2).tolist()
    curve.set_xticks(middles, labels=range(K), fontsize=8)
    curve.set_ylabel(f"lead of {own} over {rival}", fontsize=9)
    curve.tick_params(axis="y", labelsize=8)
curve.set_xlabel("training images, by class", fontsize=9)
plt.show()
off = max(float(told.residual.abs().max()) for told in (clean, moved))
run.say(
    f"A network of {H} hidden ReLU units was trained on {M} digits; PGD moved each "
    f"pixel of the attacked images by at most {EPS}. The *lead* is the score of the "
    "right class minus that of the class that wins under attack. Each training image "
    "adds to it or takes from it (its *contribution*, with its label), and the running "
    f"sum ends at the network's own lead (dot): on all {2 * len(xq)} images, clean and "
    f"attacked, it misses no score by more than {power(off)}."
)

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
own = yq[good]
rival = clean.network[good].scatter(1, own[:, None], -torch.inf).argmax(1)


def led(contributions):
    """Contributions (F, M) to the leads of the right classes over the runners-up."""
    ones = own[:, None, None].expand(-1, M, 1), rival[:, None, None].expand(-1, M, 1)
    right, wrong = (contributions.gather(2, one)[..., 0] for one in ones)
    return right - wrong


def another_of(classes):
    """A test image of each class, answered rightly, at random."""
    stream, found = draws(seed + 1), []
    for k, i in zip(classes.tolist(), good.tolist(), strict=True):
        pool = good[(yq[good] == k) & (good != i)]
        found.append(pool[torch.randint(len(pool), (1,), generator=stream)])
    return torch.cat(found)


signs = 2 * torch.randint(0, 2, xq[good].shape, generator=draws(seed + 2)) - 1
noisy = path.contributions((xq[good] + EPS * signs).clamp(0, 1))
before = led(clean.contributions[good])
groups = {
    "the attack": led(moved.contributions[good]),
    f"noise of ± {EPS}": led(noisy.contributions),
    "another of the class": led(clean.contributions[another_of(own)]),
    "one of the runner-up": led(clean.contributions[another_of(rival)]),
}
rows = {}
for name, after in groups.items():
    change = after - before
    total = change.abs().sum(1)
    same_top = [
        np.isin(a, b).mean()
        for a, b in zip(before.topk(5).indices, after.topk(5).indices, strict=True)
    ]
    rows[name] = {
        "change": float((total / before.abs().sum(1)).median()),
        "not cancelled": float((change.sum(1).abs() / total).median()),
        "five largest kept": float(np.mean(same_top)),
    }
attack, noise, kin, other = rows.values()
by, stays, kept_top = attack
remainder = float((before.sum(1).abs() / before.abs().sum(1)).median())
gap = max(judged.judgement("fig23").numbers["largest_residual"])
names = ("changed_without_top", "changed_without_the_class")
top, alike = (hull("sample-importance", name, ".0%") for name in names)
ranks = hull("sample-importance", "rank_correlation")
inside = found("fig21", "lowest_in_distribution")
outside = found("fig21", "highest_out_of_distribution")
spotted = hull("gaussian-process-adversarial", "auc_adversarial")
held = hull("gaussian-process", "coverage_of_the_true_class", ".0%")
run.say(
    "Numbers over several networks are means [span of their 95 % intervals].\n\n"
    "- The identity holds to rounding. The theorem's symmetric kernel is right outside "
    "the training set, and on it off by up to "
    f"{found('thm14-5', 'on_training_set'):.0%} of the largest score; the text's "
    f"second, asymmetric one is right everywhere. {verdict('thm14-5')}\n"
    f"- On images the kernel machine misses no score by more than {power(gap)}. The "
    "text's hundred places in each step, evenly spaced as we read it, leave "
    f"{found('fig23', 'left_rule'):.1g}. {verdict('fig23')}\n"
    "- Are kernel values lower far away from the data? In the plane the higher of two "
    f"far points has a mean value of {outside:,.0f}, the lower of two class means "
    f"{inside:,.0f}. {verdict('fig21')}\n"
    "- Do contributions say what a training image is worth? Their rank correlation "
    f"with what retraining without the image changes is {ranks}. Without the top "
    f"contributors {top} of the answers change; without as many random images of the "
    f"same class, {alike}. {verdict('sample-importance')}\n"
    f"- The contributions cancel to {remainder:.1%} of their absolute sum. An attack "
    f"changes them by {attack[by]:.1%}, noise of the same size by {noise[by]:.1%}; of "
    f"the attack's changes, made to move the sum, {attack[stays]:.0%} do not cancel, "
    f"of the noise's {noise[stays]:.0%}.\n"
    "- Does the kernel tell attacked images? The variance of a Gaussian process with "
    f"this kernel has an area under the ROC curve of {spotted} (chance: 0.5) "
    f"{verdict('gaussian-process-adversarial')}, and its 90 % intervals hold the "
    f"target of the true class in {held}. {verdict('gaussian-process')}"
)

# %% [markdown]
# ## What does one step do to one weight?
#
# Take the smallest model that is not linear in its weight, $f_w(x) = w^2 x$, one training point $(x_1, y_1)$ and the squared loss $\frac12 (f_w(x_1) - y_1)^2$.
# The gradient of the model is $2 w x$, and one gradient step of size $\varepsilon$ from $w_0$ goes to
#
# $$w_1 = w_0 + \Delta, \qquad \Delta = \underbrace{-\varepsilon\, (f_{w_0}(x_1) - y_1)}_{a} \cdot 2 w_0 x_1 .$$
#
# What has the step done to the prediction at another point $x$?
#
# $$f_{w_1}(x) - f_{w_0}(x) = (w_1^2 - w_0^2)\, x = (w_0 + w_1)\, x \cdot \Delta = a \cdot \underbrace{(w_0 + w_1)\, x \cdot 2 w_0 x_1}_{k(x,\, x_1)} .$$
#
# The number $a$ knows the training point and its error, and nothing of $x$.
# The kernel $k$ is a product of two gradients: that of the training point at the *start* of the step, $2 w_0 x_1$, and that of $x$ *averaged over the step*, $(w_0 + w_1)\, x = \int_0^1 2 (w_0 + t \Delta)\, x\, dt$.
# It would be simpler to take both gradients at one place, at the start or at the end, as tangent kernels do.

# %% tags=["nbval-check-output"]
w0, x1, y1, epsilon, query = 1.0, 1.0, 3.0, 0.1, 2.0
a = -epsilon * (w0**2 * x1 - y1)
w1 = w0 + a * 2 * w0 * x1
print(f"the prediction changes by {w1**2 * query - w0**2 * query:.3f}")
print(f"averaged over the step:   {a * (w0 + w1) * query * 2 * w0 * x1:.3f}")
print(f"both at the start:        {a * 2 * w0 * query * 2 * w0 * x1:.3f}")
print(f"both at the end:          {a * 2 * w1 * query * 2 * w1 * x1:.3f}")

# %% [markdown]
# The start misses by $\Delta^2 x$, the curvature of $f$ along the step.
# That is small for small steps, but training takes many.
#
# ## Why is it exact for every network?
#
# Write $f_w(x) \in \mathbb{R}^K$ for the scores of $K$ classes, $J_w(x)$ for their Jacobian (one row of derivatives by all weights for each score), and $g_{i,s} = \partial L(f_{w_s}(x_i), y_i) / \partial f$ for the slope of the loss at training point $i$ and step $s$; under cross-entropy it is the predicted probabilities minus 1 at the label.
# A step on the sum of the losses of $M$ points moves the weights to
#
# $$w_{s+1} = w_s + \Delta_s, \qquad \Delta_s = -\varepsilon \sum_{i=1}^{M} J_{w_s}(x_i)^\top g_{i,s} .$$ (eq-path-step)
#
# Now walk from $w_s$ to $w_{s+1}$ on the straight line $w_s(t) = w_s + t \Delta_s$.
# The change of a score is the integral of its derivative along the line, and by the chain rule that derivative is $J_{w_s(t)}(x)\, \Delta_s$:
#
# $$f_{w_{s+1}}(x) - f_{w_s}(x) = \int_0^1 J_{w_s(t)}(x)\, \Delta_s \, dt = -\varepsilon \sum_{i=1}^{M} \underbrace{\left( \int_0^1 J_{w_s(t)}(x) \, dt \right) J_{w_s}(x_i)^\top}_{k_s(x,\, x_i) \,\in\, \mathbb{R}^{K \times K}} g_{i,s} .$$ (eq-path-change)
#
# Nothing was approximated, and $x$ may be a training point or not.
#
# ```{prf:theorem} Exact kernel representation
# :label: thm-path-kernel
#
# Let $w_0, \dots, w_S$ be the weights of a gradient descent by the steps {eq}`eq-path-step`, and along each step let the scores of an input $x$, in the training set or not, be continuous and, but for finitely many places, continuously differentiable in the weights, with bounded derivatives.
# Then
#
# $$f_{w_S}(x) = f_{w_0}(x) + \sum_{s=0}^{S-1} \sum_{i=1}^{M} k_s(x, x_i)\, a_{i,s}, \qquad a_{i,s} = -\varepsilon\, g_{i,s} .$$
# ```
#
# ```{prf:proof}
# On each piece of a step between the finitely many places, the first equality of {eq}`eq-path-change` is the fundamental theorem of calculus; since the scores are continuous the pieces add up to the step.
# The second puts in {eq}`eq-path-step`.
# Summed over the steps, the left-hand sides telescope to $f_{w_S}(x) - f_{w_0}(x)$.
# ```
#
# ReLU networks are covered: along a step they are polynomials in $t$ between finitely many kinks, and a unit whose input stays at 0 adds nothing, whichever slope is taken.
# Theorem 14.5 of the text asks for a start $b$ that is the same for all $x$, where we store $f_{w_0}(x)$, and it takes another kernel, to which we come back.
# What the text adds to {cite:t}`domingos2020` stands: there the steps are infinitely small, here they are those that were taken.

# %% tags=["hide-input"]
adam, diagonal = found("remark0", "adam"), found("multiclass", "diagonal_only_residual")
run.say(
    "Minibatches have such a sum too, and so have momentum and Adam, where gradients "
    f"of different steps are paired (Adam: off by less than {power(adam)} of the "
    f"largest score; weight decay adds a term of no image). {verdict('remark0')} "
    "For several classes the $K \\times K$ blocks must be kept whole, as in the text's "
    "(93); with equal classes only, as in its last formula, (102), the sum is off by "
    f"{diagonal:.0%} of the largest score. {verdict('multiclass')}"
)

# %% [markdown]
# ## Can we rebuild a network?
#
# We want the network of the first figure back from its training images.
# It is a function of one long vector of weights and of one image (64 pixels and a constant 1).
# `jacrev` differentiates it, `vmap` does so for all images.


# %%
def scores(w, image):
    """The K scores of one image (65,): H hidden ReLU units, then a linear layer."""
    inner, outer = w[: 65 * H].view(H, 65), w[65 * H :].view(K, H + 1)
    hidden = (inner @ image).relu()
    return outer @ functional.pad(hidden, (0, 1), value=1.0)


jacobian = vmap(jacrev(scores), (None, 0))  # (images, classes, weights)


def loss_slopes(w):
    """g: probabilities minus 1 at the label, (M, K)."""
    return vmap(scores, (None, 0))(w, images).softmax(1) - functional.one_hot(y, K)


# %% [markdown]
# Training, step by step as in {eq}`eq-path-step`.
# Each training image pulls the weights by a move of its own, $J_{w_s}(x_i)^\top a_{i,s}$, and the step is their sum; `RATE` is on the mean loss, so that $\varepsilon$ is `RATE / M`.

# %%
walk, pulls, moves = [first_weights], [], []
for _ in range(STEPS):
    w = walk[-1]
    pulls.append(-RATE / M * loss_slopes(w))  # a, (M, K)
    moves.append(torch.einsum("mkp,mk->mp", jacobian(w, images), pulls[-1]))
    walk.append(w + moves[-1].sum(0))
same = torch.allclose(walk[-1], as_vector(path.weights(STEPS)), atol=1e-9)
print("the same network as in the first figure:", same)


# %% [markdown]
# A query answers to each move with a gradient of its own; `machine` takes any.


# %%
def machine(gradient):
    """What every training image adds to the scores of the queries, (N, M, K)."""
    total = 0
    for w, after, move in zip(walk[:-1], walk[1:], moves, strict=True):
        answer = gradient(w, after - w)  # (N, K, weights)
        total = total + torch.einsum("nkp,mp->nmk", answer, move)
    return total


def miss(added):
    """Largest error of a score, as a share of the largest score."""
    before, after = (vmap(scores, (None, 0))(w, queries) for w in (walk[0], walk[-1]))
    return float((before + added.sum(1) - after).abs().max() / after.abs().max())


# %% [markdown]
# First what is often put in the path's place: *one* tangent kernel $J_w(x) J_w(x_i)^\top$ for the whole training, with all the $a_{i,s}$ of a training image added up.
# Then one at every step's start.


# %%
def tangent_machine(w):
    """One tangent kernel, at the weights w, for all steps."""
    move = torch.einsum("mkp,mk->mp", jacobian(w, images), sum(pulls))
    return torch.einsum("nkp,mp->nmk", jacobian(w, queries), move)


def at_start(w, dw):
    return jacobian(w, queries)


kernels = {
    "before training": tangent_machine(walk[0]),
    "after": tangent_machine(walk[-1]),
}
kernels["every step's start"] = machine(at_start)
print({name: f"{miss(added):.2%}" for name, added in kernels.items()})

# %% [markdown]
# One tangent kernel misses by far: gradients change while a network learns, unless it is infinitely wide.
# Every step's start is much nearer, and not exact.
# To mend that we average over the step.
# Gauss-Legendre quadrature looks at a few well-chosen places, and is exact for polynomials of a degree that grows with their number.


# %%
def looks(count):
    """The mean gradient over a step, from so many looks at it."""
    places, shares = np.polynomial.legendre.leggauss(count)

    def gradient(w, dw):
        at = zip((places + 1) / 2, shares / 2, strict=True)
        return sum(part * jacobian(w + t * dw, queries) for t, part in at)

    return gradient


by_looks = {count: miss(machine(looks(count))) for count in (1, 2, 4)}
print({count: f"{error:.3%}" for count, error in by_looks.items()})

# %% [markdown]
# Better, but far from rounding.
# The reason is the ReLU: where a hidden unit switches on or off in the middle of a step, the gradient jumps, and no polynomial does.
# But we know where it jumps.
# A hidden unit's input $z + t\, \delta$ is linear along the step, so that it switches at $t = -z / \delta$, once at most.
# *Between* these kinks every derivative of our network is linear in $t$: by a weight of the last layer it is a hidden unit's value, by one of the first layer an outgoing weight times a pixel.
# The mean of a linear function is its value in the middle.


# %%
def pieces(w, dw, image):
    """Middles and lengths of the pieces of a step between the kinks of one image."""
    z, change = (v[: 65 * H].view(H, 65) @ image for v in (w, dw))
    t = -z / change
    kinks = t[(t > 0) & (t < 1)].sort().values
    ends = functional.pad(functional.pad(kinks, (1, 0)), (0, 1), value=1.0)
    return (ends[1:] + ends[:-1]) / 2, ends.diff()


def cut_at_kinks(w, dw):
    means = []
    for image in queries:
        middles, lengths = pieces(w, dw, image)
        at = vmap(jacrev(scores), (0, None))(w + middles[:, None] * dw, image)
        means.append(torch.einsum("t,tkp->kp", lengths, at))
    return torch.stack(means)


# %%
exact = machine(cut_at_kinks)
agree = torch.allclose(exact, clean.contributions[: len(queries)], atol=1e-9)
print(f"misses by less than 1e-12: {miss(exact) < 1e-12}")
print("every single contribution is that of the package:", agree)

# %% [markdown]
# The network is rebuilt to rounding from its training images.
# The package does the same without forming a Jacobian: the gradient of a layer's weights is an outer product $u v^\top$ of what flows back and what came in, and $\langle u v^\top, u' v'^\top \rangle = (u^\top u')(v^\top v')$.
# The text takes a hundred values of $t$ between 0 and 1 at each step, not saying which; we read *left ends*, evenly spaced from 0, equally weighted.
# Take larger steps over the same training time, or more looks.

# %% tags=["hide-input"]
COUNTS, WALKS = (1, 2, 4, 8, 16, 32, 100), (25, 50, 100, 200)


def along(states, t, bend, slope):
    """Derivatives by t of the scores at places t (T,) of all steps, (S, N, T, K)."""
    both = states[:-1], states.diff(dim=0)
    inner = (v[:, : 65 * H].view(-1, H, 65) for v in both)
    z, dz = (torch.einsum("shp,np->snh", v, queries)[:, :, None] for v in inner)
    outer, change = (v[:, 65 * H :].view(-1, K, H + 1) for v in both)
    at = z + t[:, None] * dz
    hidden = functional.pad(bend(at), (0, 1), value=1.0)
    rising = functional.pad(slope(at) * dz, (0, 1))
    now = torch.einsum("snth,skh->sntk", rising, outer)
    later = torch.einsum("snth,skh->sntk", rising, change)
    return torch.einsum("snth,skh->sntk", hidden, change) + now + t[:, None] * later


def rule_of(name, count):
    """Places and weights of a rule in [0, 1]."""
    if name == "left ends":
        return torch.arange(count) / count, torch.full((count,), 1 / count).double()
    places, weights = map(torch.tensor, np.polynomial.legendre.leggauss(count))
    return (places + 1) / 2, weights / 2


def tanh_slope(z):
    return 1 - z.tanh().square()


def step_at_zero(z):
    return (z > 0).double()


BENDS = {"ReLU": (torch.relu, step_at_zero), "tanh": (torch.tanh, tanh_slope)}
LINES = (
    ("ReLU, left ends", "ReLU", "left ends", plots.GAUSS, "-"),
    ("ReLU, Gauss", "ReLU", "Gauss", plots.SOFTMAX, "-"),
    ("tanh, left ends", "tanh", "left ends", plots.GAUSS, "--"),
    ("tanh, Gauss", "tanh", "Gauss", plots.SOFTMAX, "--"),
)
smooth = nn.Sequential(nn.Flatten(), nn.Linear(64, H), nn.Tanh(), nn.Linear(H, K))
start = [p.detach() for p in net.parameters()]
with torch.no_grad():  # tanh starts from the weights of the ReLU network
    for parameter, value in zip(smooth.parameters(), start, strict=True):
        parameter.copy_(value)


def misses_of(states, bend):
    """Largest errors as shares of the largest score, by rule and number of looks."""
    w0, w1 = (vmap(scores_of(bend), (None, 0))(states[i], queries) for i in (0, -1))
    found = {}
    for rule in ("left ends", "Gauss"):
        for count in COUNTS:
            t, weights = rule_of(rule, count)
            added = torch.einsum("sntk,t->nk", along(states, t, *BENDS[bend]), weights)
            found[rule, count] = float((w0 + added - w1).abs().max() / w1.abs().max())
    return found


def scores_of(bend):
    def found(w, image):
        inner, outer = w[: 65 * H].view(H, 65), w[65 * H :].view(K, H + 1)
        return outer @ functional.pad(BENDS[bend][0](inner @ image), (0, 1), value=1.0)

    return found


def worst_step(states):
    """The derivative along one step, where left ends miss a score most: on a fine
    grid, and as a function of t."""
    truth = along(states, rule_of("Gauss", 32)[0], *BENDS["ReLU"])
    mean = torch.einsum("sntk,t->snk", truth, rule_of("Gauss", 32)[1])
    left = along(states, torch.zeros(1).double(), *BENDS["ReLU"])[:, :, 0]
    s, n, k = np.unravel_index(int((left - mean).abs().argmax()), mean.shape)

    def derivative(t):
        return along(states[s : s + 2], t, *BENDS["ReLU"])[0, n, :, k]

    return derivative


FLOOR, FINE = 1e-16, torch.linspace(0, 1, 201).double()
walked = {}
for steps in WALKS:
    told = {"lr": TIME / steps, "steps": steps}
    paths = {
        "ReLU": path_kernel.train_path(net, x, y, **told),
        "tanh": path_kernel.train_path(smooth, x, y, **told),
    }
    states = {
        bend: torch.stack([as_vector(one.weights(s)) for s in range(steps + 1)])
        for bend, one in paths.items()
    }
    closed = paths["ReLU"].predict(xq[: len(queries)])
    walked[steps] = (
        {bend: misses_of(states[bend], bend) for bend in BENDS},
        float(closed.residual.abs().max() / closed.network.abs().max()),
        worst_step(states["ReLU"]),
    )


def plainly(error):
    """An error in words."""
    form = ".0f" if error > 0.1 else ".2g"
    return "rounding" if error < 1e-12 else f"{100 * error:{form}} %"


def at_walk(size, count):
    """What the figure shows for a step size and a number of looks."""
    misses, cut, derivative = walked[round(TIME / size)]
    curve, t = derivative(FINE), rule_of("left ends", count)[0].double()
    scale = float(curve.abs().max())
    seen = derivative(t) / scale
    edges = np.repeat(np.append(t, 1.0), 2)
    heights = np.concatenate([[0], np.repeat(seen, 2), [0]])
    look = {"color": plots.GAUSS}
    inside = [
        movable.Mark("area", edges, heights, **look),
        movable.Mark("line", FINE, curve / scale, "#000000", "along the step"),
        movable.Mark("dots", t, seen, label="left ends", **look),
    ]
    errors = [movable.Mark("line", [count] * 2, [-16, 2], "#999999", style=":")]
    for label, bend, rule, colour, style in LINES:
        values = np.log10([max(misses[bend][rule, n], FLOOR) for n in COUNTS])
        errors.append(movable.Mark("line", COUNTS, values, colour, label, style))
    cuts = "ReLU, cut at kinks"
    flat = [math.log10(max(cut, FLOOR))] * 2
    errors.append(movable.Mark("line", [1, 100], flat, plots.THIRD, cuts))
    left, gauss = (misses["ReLU"][rule, count] for rule in ("left ends", "Gauss"))
    return movable.State(
        [inside, errors],
        f"Step size {size:g}, {count} look{'s' * (count > 1)} at each step. ReLU: left "
        f"ends miss by {plainly(left)} of the largest score, Gauss by "
        f"{plainly(gauss)}, the cut at the kinks by {plainly(cut)}; tanh: Gauss by "
        f"{plainly(misses['tanh']['Gauss', count])}.",
    )


movable.show(
    [
        movable.Slider("size", "step size", [TIME / steps for steps in WALKS], 2),
        movable.Slider("count", "looks at each step", COUNTS, 2),
    ],
    [
        movable.Panel("place t in the step", "slope of a score / largest", (0, 1),
                      (-1.1, 1.1), "One step, one score"),
        movable.Panel("looks at each step", "error / largest score, power of ten",
                      (1, 100), (-16, 2), "The whole training", "log"),
    ],
    at_walk,
    alt="Left, the slope of a score along one step of the ReLU network, straight with "
    "jumps, and what left ends see of it. Right, the error of the whole kernel machine "
    "against the looks at each step: falling slowly with ReLU or left ends, to "
    "rounding with tanh and Gauss or with cuts at kinks.",
)  # fmt: skip
twice = walked[STEPS][0]["ReLU"]
run.say(
    "Left, the step and the score for which one left end is worst at this step size. "
    f"At step size {RATE:g} a hundred leave {plainly(twice['left ends', 100])} of the "
    f"largest score with ReLU, and Gauss-Legendre {plainly(twice['Gauss', 100])}; for "
    "predictions that is more than enough. Even where the step size is "
    f"{TIME / WALKS[0]:g}, too large to learn smoothly, the identity is exact (to "
    f"{power(walked[WALKS[0]][1])}): it does not ask how good the steps were."
)

# %% [markdown]
# ## And if the query is a training image?
#
# The text has a symmetric kernel first: both gradients are averaged together over the step where both points lie outside the training set, and the clock stands still at the step's start for every training point.
# As an average of inner products it is symmetric and positive semi-definite.
# For a query outside the training set it gives the sum of {prf:ref}`thm-path-kernel`; for a query *in* it both gradients stand at the start, our `at_start`, which misses.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: the network's score along a line, covered by the asymmetric kernel machine, and one dot away from it at the training point, the value of the symmetric kernel machine. Right: the height of the jump against step size on logarithmic axes, rising close to a line of slope one."}}
run.show("fig-jump")
run.say(
    "On points of the plane: the symmetric machine follows the network and jumps away "
    f"from it, by up to {found('remark1', 'symmetric_jump'):.2f}, at the training "
    "points alone. "
    f"{verdict('remark1')} It shrinks like the step size to the power "
    f"{found('remark1', 'jump_rate'):.1f}. The text knows of the "
    "jump, and has the asymmetric kernel for it (Remark 1); its Theorem 14.5 "
    f"is exact off the training set only {verdict('thm14-5')}. "
    "What it adds to the remark goes too far: that the jump *is* the distance of the "
    f"steps from the gradient flow {verdict('jump-flow')} (for $f_w(x) = w x$ there "
    "is no jump, and still a distance), that the asymmetric function is a kernel "
    f"*only if* mean and first gradient agree {verdict('eq17')} (for our $w^2 x$ they "
    "differ, and $k$ is a positive multiple of $x x'$), and, as we read section "
    f"17.1, that it is symmetric off the training set {verdict('asymmetric-remark')}."
)

# %% [markdown]
# ## Is a contribution what an image is worth?
#
# "Sample importance is produced directly" from kernel and weights, says section 16.
# A contribution says what an image added along *this* path, with all the others there.
# Worth is another question: what would the network say without it?
# We train a network (a tenth of its labels wrong) again without the image, and compare four predictions of the change: the path's contribution; TracIn {cite:p}`pruthi2020`, the same sum at eight checkpoints; influence functions {cite:p}`koh2017`, a Newton step at the end; and the last tangent kernel.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four scatter plots, first network: the change of a score found by retraining when one training point is left out, against the predicted change, in units of their spread: predicted by path contributions, TracIn, influence functions and the final tangent kernel."}}
run.show("fig-leave-out")
others = ("tracin", "influence_function", "final_tangent_kernel")
trace, influence, tangent = (hull("sample-importance", name) for name in others)
chance = hull("sample-importance", "changed_without_random", ".0%")
run.say(
    f"Rank correlation with what happened: {ranks} for the contributions, {trace} for "
    f"TracIn, {influence} for influence functions, {tangent} for the last tangent "
    "kernel. To know the whole path "
    "exactly is not to know what would have been on another, where other images may "
    "do the work of the missing one. Without the twentieth of the training images that "
    f"contributed most, {top} of the answers change, without as "
    f"many at random {chance}. But the largest contributors are mostly of the "
    f"predicted class, and as many random images of that class change {alike}. "
    f"{verdict('sample-importance')}"
)

# %% [markdown]
# ## What does an attack change?
#
# In $\sum_{i,s} k_s(x, x_i)\, a_{i,s}$ the weights belong to the training: an attack on $x$ cannot touch them.
# Besides the scores before training, all that it moves are the kernel values, that is, the gradients of the image under attack, averaged over each step.
# Walk from a clean image to the attacked one and watch what all training images add.

# %% tags=["hide-input"]
PARTS = torch.linspace(0, 1, 11).double()
shown = fooled[:4].tolist()
ways = [torch.lerp(xq[i], xa[i], PARTS[:, None, None, None]) for i in shown]
on_way = [path.contributions(way) for way in ways]
pairs = [(int(yq[i]), int(says_attacked[i])) for i in shown]
both = list(zip(on_way, pairs, strict=True))
pushes = [lead(told.contributions, *pair) for told, pair in both]
by_sum = [lead(told.scores, *pair) for told, pair in both]
by_network = [lead(told.network, *pair) for told, pair in both]
starts = [lead(told.start, *pair).tolist() for told, pair in both]
REACH = 1.1 * max(float(push.abs().max()) for push in pushes)
HEIGHT = 1.2 * max(float(one.abs().max()) for one in by_network)


def at_part(image, part):
    """Contributions and lead a part of the way to the attacked image."""
    place, push, (own, rival) = round(10 * part), pushes[image - 1], pairs[image - 1]
    line, dot = by_network[image - 1], by_sum[image - 1][place]
    groups = (
        ("images of the right class", y == own, plots.SOFTMAX),
        ("of the winning rival", y == rival, plots.GAUSS),
        ("of other classes", (y != own) & (y != rival), "#999999"),
    )
    diagonal = [-REACH, REACH]
    dots = [movable.Mark("line", diagonal, diagonal, "#000000", style=":")]
    for label, mask, colour in groups:
        before, now = push[0][mask], push[place][mask]
        dots.append(movable.Mark("dots", before, now, colour, label))
    here, begin = float(line[place]), starts[image - 1][place]
    rises = [
        movable.Mark("line", [0, 1], [0, 0], "#000000", style=":"),
        movable.Mark("line", PARTS, line, plots.THIRD, "network"),
        movable.Mark("dots", [part], [dot], "#000000", "start + all dots"),
    ]
    total = float(push[place].abs().sum())
    return movable.State(
        [dots, rises],
        f"Class {own}, {part:.0%} of the way to where the network says {rival}: a lead "
        f"of {begin:+.2f} before training, then contributions of "
        f"{float(push[place].clamp_min(0).sum()):.1f} for the right class and "
        f"{float(push[place].clamp_max(0).sum()):.1f} against it make "
        f"{here:+.2f}, {abs(here) / total:.1%} of what they add up to without their "
        "signs.",
    )


movable.show(
    [
        movable.Slider("image", "test image", range(1, len(shown) + 1), 0),
        movable.Slider("part", "part of the attack", PARTS.tolist(), 10, ".1f"),
    ],
    [
        movable.Panel("contribution to the lead, clean image", "and on the way",
                      (-REACH, REACH), (-REACH, REACH), "Each training image"),
        movable.Panel("part of the attack", "lead of the right class", (0, 1),
                      (-HEIGHT, HEIGHT), "Their sum"),
    ],
    at_part,
    alt="Left, the contribution of every training image on the way to the attacked "
    "image against that to the clean image: the dots hardly leave the diagonal. Right, "
    "the lead of the right class, the network's as a line and start plus dots on it, "
    "which falls below zero.",
)  # fmt: skip

# %% [markdown]
# The dots hardly leave the diagonal, and the answer flips.
# The reason lies in the sizes: the lead is a small remainder of large sums that cancel.
# We compare the attack with other changes, on all test images answered rightly, fooled or not, by the lead over the runner-up.

# %% tags=["hide-input"]
plots.table(
    pd.DataFrame(rows).T,
    f"Contributions to the lead against those for the clean image: medians over "
    f"{len(good)} images (last column: mean)",
    kind="%",
    digits=1,
)
coherent = [
    (after - before).sum(1).abs() / (after - before).abs().sum(1)
    for after in list(groups.values())[:2]
]
run.say(
    "*Change* is the absolute sum of all changes over that of the contributions, which "
    f"cancel to {remainder:.1%}; *not cancelled*, the part of the changes that is left "
    "in the sum. An attack is made to move the sum, so that its changes should agree "
    "more than those of noise: in "
    f"{share(coherent[0] > coherent[1]):.0%} of the images they do. The table adds "
    "how small they can be: another image of the class changes "
    f"{kin[by]:.0%}. And the largest contributors say little about the image: of the "
    f"five largest {attack[kept_top]:.0%} stay under attack, but {other[kept_top]:.0%} "
    "also for an image of the *runner-up* class."
)
broken = says_attacked[good] != own
sums = before.abs().sum(1)
ahead = clean.network[good]
ahead = (ahead.gather(1, own[:, None]) - ahead.gather(1, rival[:, None]))[:, 0]
withstood = ~broken
plain_area, shared_area = (area(v[withstood], v[broken]) for v in (ahead, ahead / sums))
run.say(
    "Which images withstand the attack? The lead over the runner-up tells with an area "
    f"under the ROC curve of {float(plain_area):.2f}, and its share of the "
    f"contributions' absolute sum with {float(shared_area):.2f}: "
    + (
        "here the decomposition adds something."
        if intervals.of(shared_area)[0] > intervals.of(plain_area)[1]
        else "the decomposition adds nothing that these images could show."
    )
)

# %% [markdown]
# ## Does it know what it has not seen?
#
# In the text's Figure 21 two points of the plane that are far from the data have smaller kernel values in total than two within it, though the detection "is not perfect"; a Gaussian process with this kernel should do more, "including adversarial attacks".
# Here are the two class means and two points far away (the last is ours, since the text does not name its second), with the training points coloured by their kernel values.

# %% tags=["hide-input"] mystnb={"image": {"alt": "First network: four panels of the two clouds coloured by kernel value with a test point marked by a star: two test points at the class means, one far above at (4, 15) and one far below at (-8, -8). The logarithmic colour scale is shared; the far point above has the largest values."}}
run.show("fig-stars")
plane = ("auc_in_against_out", "auc_untrained", "auc_normalised")
ring, untrained, normal = (hull("fig21", name) for name in plane)
kinds = ("kernel_mass", "normalised_mass", "max_score", "feature_neighbours")
mass, divided, score, near = (hull("ood", f"auc_{kind}") for kind in kinds)


def says_of(kind):
    """What the rule on the variance says in a word."""
    status = judged.judgement(f"gaussian-process-{kind}").rows[0].status
    return {"pass": "Yes", "fail": "No"}.get(status, "These images do not decide")


foreign = hull("gaussian-process-outsiders", "auc_out_of_distribution")
run.say(
    "A far point can have larger values than a class mean, since the gradients of a "
    "ReLU network can grow with its input. Against a ring around the data the mean "
    f"kernel value has an area of {ring} (1: always larger inside), {untrained} before "
    f"training, and {normal} divided by the length of the query's own gradients. "
    f"{verdict('fig21')} The text says little of its networks, which may do what it "
    "reports.\n\n"
    f"On images, against foreign ones ({run.profile.outside}), the area is {mass} for "
    f"the mean kernel value, {divided} divided by that length, {score} for the "
    f"network's largest score, and {near} for neighbours in the features; below 0.5 a "
    f"score ranks the wrong way round. {verdict('ood')} The Gaussian "
    "process is announced by the text, and run here. Is its variance larger for "
    f"foreign images? {says_of('outsiders')} (area {foreign}). "
    f"{verdict('gaussian-process-outsiders')} For attacked ones? "
    f"{says_of('adversarial')} (area {spotted}). "
    f"{verdict('gaussian-process-adversarial')}"
)

# %% [markdown]
# ## What else does the text claim?

# %% tags=["hide-input"]
few, many, part_few, part_many = (
    found("remark2", f"{name}_{steps}_steps")
    for name in ("error", "share_of_the_change")
    for steps in ("few", "many")
)
differ = found("fig22", "share_with_other_neighbour")
by_chance = found("fig22", "share_of_random_images_that_differ")
same_label, random = (
    found("fig22", f"label_agreement{end}") for end in ("", "_of_a_random_image")
)
in_pixels = found("inner-products", "label_agreement_pixels")
grown, turned = (
    found("angle-dominates", name) for name in ("norm_change", "degrees_turned")
)
arc, walk_arc = (
    found("arcs-chords", name) for name in ("arc_over_chord", "of_a_random_walk")
)
rate = found("remark3", "smooth_rate")
run.say(
    "- *Without a constant start the sum is approximate, and soon good.* With a "
    f"constant in its place the error is {few:.3f} after few steps and {many:.3f} "
    f"after many; its share of the change of a score goes from {part_few:.0%} to "
    f"{part_many:.0%}. {verdict('remark2')}\n"
    "- *Small steps bring mean and first gradient together.* For a smooth network like "
    f"the step size to the power {rate:.1f}; the Lipschitz constant must be the "
    "gradient's. "
    f"{verdict('remark3')}\n"
    "- *Under binary cross-entropy the sum is one kernel machine.* The signs of its "
    "weights are constant, as said; the kernel that is printed is not symmetric. "
    f"{verdict('ensemble-sign')}\n"
    "- *Neighbours in the kernel need not be those in pixels.* "
    f"{differ:.0%} differ (random images: {by_chance:.0%}); the label is right in "
    f"{same_label:.0%} (in pixels: {in_pixels:.0%}, random: {random:.0%}). "
    f"{verdict('fig22')}\n"
    "- *Learning is a change of angle, and the norm changes by only 20 to 30 %.* Here "
    f"{grown:.0%} more, and {turned:.0f} degrees {verdict('angle-dominates')}. *Arcs "
    f"are like chords.* The path is {arc:.2f} times as long as its chord, a random "
    f"walk {walk_arc:.0f} times. "
    f"{verdict('arcs-chords')}"
)

# %% [markdown]
# ## Does it survive?
#
# An identity needs no protection: it holds at attacked images as at others, and for the weakest network as for the strongest.
# The one claim on robustness in this part of the text is a heading (section 24): weights on the straight line from the random start to the trained state "yield robust models".
# We ask it of a convolutional network: the place on the line that does best under one gradient step (FGSM) on training images, against the end of the line, on test images under today's protocol.

# %% tags=["hide-input"]
sides = ("trained", "interpolated")
kinds = ("clean", "fgsm", "worst")
words = ("clean", f"FGSM, mean of {run.profile.seeds} networks", "worst case")
accuracies = [
    [found("interpolated-robust", f"{one}_{kind}_accuracy") for one in sides]
    for kind in kinds
]
plots.table(
    pd.DataFrame(accuracies, words, sides),
    f"Accuracy on {run.profile.protocol_images} images of {run.profile.data}, pixels "
    f"moved by up to {run.profile.eps:g}; clean and worst case: one network",
    kind="%",
    digits=0,
)
answer = {
    "pass": "The interpolated network is the more robust one",
    "fail": "The interpolated network is not the more robust one",
}.get(
    judged.judgement("interpolated-robust").rows[1].status,
    "These images do not decide which network is the more robust one",
)
run.say(
    f"{answer}. "
    f"{verdict('interpolated-robust')} The {{doc}}`evidence <evidence>` has the whole "
    "protocol and all claims; {doc}`../how_to_read` says what its flags mean."
)
run.say(
    "**It all comes to this:** the path kernel accounts for every answer to the last "
    "digit, the wrong ones too. It is a bookkeeping of training, and no evidence for "
    "or against robustness; what is made of its terms has to be tested like any other "
    "score."
)

# %% [markdown]
# ## What to remember
#
# - A step changes every score by a kernel times a weight, {prf:ref}`thm-path-kernel`: the training point's gradient at the start, the query's averaged over the step.
# - With the query's gradient at one place the sum is an approximation; between kinks a ReLU network is a polynomial along the step, so that few looks are exact if it is cut there.
# - The text's symmetric kernel gives the network off the training set only, the asymmetric one everywhere.
# - A contribution along this path need not be what would be missing on another.
# - The lead of an answer is a small remainder of large sums. An attack need not change what the sums are made of.
#
# Open are networks with batch normalisation, where the images of a batch take part in one another's scores, the networks behind the text's figures, and whether a network whose contributions cancel less is more robust.
# The {doc}`exercises <exercises>` have a kernel value by hand.

# %% tags=["hide-input"]
run.finish()
