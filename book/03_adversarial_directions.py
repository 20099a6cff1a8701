# %% [markdown]
# # Adversarial directions
#
# {cite:t}`zou2018` look at the last layer of a classifier and make three statements, each larger than the one before.
# A whole subspace of the hidden space is invisible to the output.
# Every decision region reaches infinity along it.
# And therefore, they conjecture, almost any image has an imperceptible neighbour whose features are those of any other image you like.
#
# The abstract is two pages long and has no experiment, so all of it is open to a check.
# There are three reasons to look closely.
# The first statement is a theorem of linear algebra, and one dimension short.
# The second follows, but "reaches infinity" and "keeps its output" are two different properties, and trained layers have one without the other.
# And the third speaks of equality, which a search may come near and never decide; half of it can be decided all the same.
#
# This chapter proves what can be proved, measures it on trained networks, and asks at the end what an invisible subspace has to do with robustness.

# %% tags=["parameters"]
profile: str = "quick"  # quick, standard or paper: which column of data/profiles/03_adversarial_directions.yml
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, for example {"match_steps": 200}

# %% tags=["hide-input"]
import math
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.linalg
import torch
from IPython.display import display
from torch import nn
from torch.overrides import TorchFunctionMode

from support import attacks, clustering, data, evaluation, models, training
from support.book import chapter_run, plots
from support.certificates import exact_search
from support.common.vision import tv_models
from support.geometry import nullspace
from support.models import heads, pretrained

run = chapter_run.start("03_adversarial_directions", profile, seed, device, overrides)
p = run.profile
plots.use_style()
K = 10  # classes in every data set of this chapter

# %% [markdown]
# ## What we check
#
# The table lists the claims; each gets its row where the chapter computes it.
# *Identity* claims are theorems: they hold or fail on any computer.
# *Open* ones are questions that the paper leaves; *robustness* claims are judged twice, the second time under today's protocol.

# %% tags=["hide-input", "output_scroll"]
run.show_claims()

# %% [markdown]
# ## What the last layer cannot see
#
# Write $h = g(x) \in \mathbb{R}^l$ for the features of an image, $W \in \mathbb{R}^{m \times l}$ for the class weights, one row $w_k$ for each of the $m$ classes, and $S$ for the softmax.
# The paper writes $W^\top h$ where we write $Wh$.
#
# ```{prf:definition} Adversarial direction
# :label: def-adversarial-direction
#
# A direction $d \neq 0$ is *adversarial* at $h$ if $S(W(h + \theta d) + b) = S(Wh + b)$ for all $\theta \in \mathbb{R}$.
# ```
#
# Two vectors of scores have the same softmax exactly if they differ by a multiple of $\mathbf{1} = (1, \dots, 1)$.
# So $d$ is adversarial exactly if $Wd = c\,\mathbf{1}$ for some number $c$; neither $h$ nor $b$ nor $\theta$ matters.
# The numbers $c$ disappear when the mean row $\bar w$ is taken out of the weights: with $\tilde W = W - \mathbf{1} \bar w^\top$ the condition is $\tilde W d = 0$.
#
# ```{prf:theorem} Invisible subspace
# :label: thm-invisible
#
# The adversarial directions of a softmax layer, together with 0, are the null space of the centred weights $\tilde W$.
# Its dimension is $l - \operatorname{rank} \tilde W \geq l - m + 1$.
# ```
#
# ```{prf:proof}
# The first sentence was shown above.
# The rows of $\tilde W$ sum to zero, so they are linearly dependent and the rank is at most $m - 1$.
# ```
#
# Theorem 1 of the paper counts $l - m$, the null space of $W$ itself.
# The additional direction is the one that raises all scores by the same amount.
# Three lines compute a basis.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
weight = torch.randn(K, 64, dtype=torch.float64, generator=generator)  # one row per class, in general position

centred = weight - weight.mean(0)
_, singular, rows = torch.linalg.svd(centred)
basis = rows[int((singular > 1e-10 * singular[0]).sum()) :]

print(f"l = 64, m = 10: {len(basis)} directions, Theorem 1 counts {64 - 10}")
print("scores move together:", bool((basis @ weight.T - (basis @ weight.T)[:, :1]).abs().max() < 1e-12))

# %% [markdown]
# The package's version (`support.geometry.nullspace.adversarial_directions`) takes a QR decomposition instead, which is cheaper for a thousand classes, and treats the cases that three lines forget: repeated rows, weights that are zero, a single class.
# We compare it with SciPy's null space on such layers, with $l$ above, at and below $m$.

# %%
def planted(m: int, width: int, rank: int) -> torch.Tensor:
    """A weight matrix (m, width) of a given rank."""
    return torch.randn(m, rank, dtype=torch.float64, generator=generator) @ torch.randn(rank, width, dtype=torch.float64, generator=generator)


twice = torch.arange(K) // 2
layers = {
    "general position, l > m": planted(K, 64, K),
    "general position, l = m": planted(K, K, K),
    "general position, l = m - 1": planted(K, K - 1, K - 1),
    "l < m": planted(K, 5, 5),
    "rank 4": planted(K, 64, 4),
    "every row twice": planted(K, 64, K)[twice],
    "a common vector added": planted(K, 64, K) + 100 * torch.ones(64),
    "two classes": planted(2, 64, 2),
    "one class": planted(1, 64, 1),
    "zero": torch.zeros(K, 64, dtype=torch.float64),
}


def distance_to_scipy(w: torch.Tensor) -> float:
    """Largest entry of the difference of the projectors onto our null space of the centred weights and SciPy's."""
    seen, found = (w - w.mean(0)).numpy(), nullspace.adversarial_directions(w)
    expected = torch.from_numpy(scipy.linalg.null_space(seen, rcond=1e-12)) if np.abs(seen).max() > 0 else torch.eye(w.shape[1], dtype=torch.float64)
    return float((found.T @ found - expected @ expected.T).abs().max())


gap, table = 0.0, []
for name, w in layers.items():
    found = nullspace.adversarial_directions(w)
    gap = max(gap, distance_to_scipy(w))
    table.append({"layer": name, "l": w.shape[1], "m": len(w), "l - m": w.shape[1] - len(w), "directions": len(found), "kept by the scores themselves": len(nullspace.adversarial_directions(w, shift_invariant=False))})

# %% tags=["nbval-check-output"]
print(pd.DataFrame(table).to_string(index=False))

# %% [markdown]
# The last column is the null space of $W$ itself, whose directions leave not only the softmax but every score as it is.
#
# ### Trained networks
#
# The rest of the chapter looks at trained networks.
# `zoo` holds one of each architecture under three heads: the softmax, the Gauss head of {doc}`01_softmax_kmeans`, and softRmax, the head with polynomial tails of {cite:t}`wang2022`.
# `main` holds the softmax network of the first architecture for every seed.

# %%
images, images_test = run.load(p.images_data, "train").take(p.train), run.load(p.images_data, "test").take(p.test)
shape = images.x.shape[1:]


def fit(model: models.Classifier, name: str, *, s: int, train=images, loss=training.cross_entropy, epochs: int = p.epochs, lr: float = p.lr) -> models.Classifier:
    """The model, trained on the chapter's images."""
    return training.fit(model, train.x, train.y, loss=loss, epochs=epochs, lr=lr, seed=s, device=run.device, cache=run.cache, name=name).model


def gauss(soft: models.Classifier, name: str) -> models.Classifier:
    """A Gauss network: the features of a softmax network, pulled to its class means by a few more passes."""
    centers = clustering.class_centroids(training.extract(soft, images.x), images.y, K)
    unit = float((centers - centers.mean(0)).square().sum(1).mean())
    start = models.with_head(soft, heads.GaussHead(centers, gamma=5 / unit), copy=True)
    return fit(start, name, s=seed, epochs=max(p.epochs // 2, 1), lr=p.lr / 5)


main = {s: fit(models.build(p.networks[0], shape, K, seed=s), f"{p.networks[0]}-softmax-{s}", s=s) for s in run.seeds}
zoo = {}
for name in p.networks:
    start = models.build(name, shape, K, seed=seed)
    zoo[name, "softmax"] = main[seed] if name == p.networks[0] else fit(start, f"{name}-softmax-{seed}", s=seed)
    zoo[name, "Gauss"] = gauss(zoo[name, "softmax"], f"{name}-gauss-{seed}")
    start = models.build(name, shape, K, seed=seed)
    zoo[name, "softRmax"] = fit(models.with_head(start, heads.SoftRmaxHead(start.head.weight.detach(), start.head.bias.detach())), f"{name}-softrmax-{seed}", s=seed)


def accuracy(model, test=images_test) -> float:
    return float((training.predict(model, test.x).argmax(1).cpu() == test.y).double().mean())


def layer(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias, in float64, of the linear layer by whose scores the model decides; for a Gauss head it is 2 gamma c_k, -gamma |c_k|^2."""
    head = model.head
    if isinstance(head, heads.GaussHead):
        centers = head.centers.detach().double().cpu()
        return 2 * head.gamma * centers, -head.gamma * centers.square().sum(1)
    return head.weight.detach().double().cpu(), head.bias.detach().double().cpu()


def features(model, x: torch.Tensor) -> torch.Tensor:
    """Features (N, l) in float64."""
    return training.extract(model, x).double().cpu()


# %% tags=["hide-input"]
counted = pd.DataFrame([
    {"network": name, "head": head, "accuracy": accuracy(model), "l": layer(model)[0].shape[1], "directions": len(nullspace.adversarial_directions(layer(model)[0])), "kept by the scores themselves": len(nullspace.adversarial_directions(layer(model)[0], shift_invariant=False))}
    for (name, head), model in zoo.items()
]).set_index(["network", "head"])
display(counted.style.format({"accuracy": "{:.3f}"}).set_caption("Directions that leave the class scores' differences, and the scores themselves, as they are"))

# %% [markdown]
# A Gauss head decides by a linear layer, too (its score differences are linear in $h$), so the *class* does not change along the null space of its centres.
# Its *confidences* do: they fall with the distance from all centres, and no direction leaves them alone.
#
# ### How far is "arbitrarily far"?
#
# Exactly, nothing changes for any $\theta$.
# On a computer $h + \theta d$ is rounded, and the rounding does not lie in the null space.
# With unit roundoff $u$ ($2^{-53}$ in float64) it is of size $u\,\theta$, so the scores move by about $u\,\theta\,\lVert W \rVert$.
# `support.geometry.nullspace.rounding_bound` makes this a bound: twice that, times the number of terms of the sums.
# We travel along a random adversarial direction of each main network, up to $\theta = 10^9$, and count how often a probability moves by more than the bound allows.

# %%
def largest_change(h: torch.Tensor, w: torch.Tensor, b: torch.Tensor, d: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """How much the softmax output moves at most from h to h + theta d, (N, T)."""
    here = (h @ w.T + b).softmax(1)
    return torch.stack([((h + t * d) @ w.T + b).softmax(1).sub(here).abs().amax(1) for t in theta], 1)


def random_in(basis: torch.Tensor, source: torch.Generator = generator) -> torch.Tensor:
    """A direction of length 1, uniform in the span of orthonormal rows."""
    d = torch.randn(len(basis), dtype=torch.float64, generator=source) @ basis
    return d / d.norm()


theta = torch.logspace(0, 9, 19, dtype=torch.float64)
beyond, missing, mismatched, extra = 0, 0, 0, []
for model in [*main.values(), *(zoo[name, "softmax"] for name in p.networks[1:])]:
    w, b = layer(model)
    h, unseen = features(model, images_test.x), nullspace.adversarial_directions(w)
    bound = nullspace.rounding_bound(w, b, h, theta)
    for d in (unseen[0], random_in(unseen), -random_in(unseen)):
        beyond += int((largest_change(h, w, b, d, theta) > bound).sum())
    missing += max(w.shape[1] - len(w) - len(unseen), 0)
    rank = np.linalg.matrix_rank((w - w.mean(0)).numpy())
    mismatched += int(len(unseen) != w.shape[1] - rank)
    gap = max(gap, distance_to_scipy(w))
    extra.append(len(unseen) - (w.shape[1] - len(w)))

# %% [markdown]
# The figure shows one image of the first network.
# On the left is the probability of its class along an adversarial direction, along a random direction of the hidden space, and along a row of the centred weights.
# On the right is the largest change of any probability, over all test images, with the bound.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: the probability of the predicted class against theta stays flat along an adversarial direction and falls along a random one and along a row of the weights. Right: on logarithmic axes the largest change of a probability along the adversarial direction grows in proportion to theta and stays below the rounding bound, while along the random direction it is near one throughout."}}
w, b = layer(main[seed])
h, unseen = features(main[seed], images_test.x), nullspace.adversarial_directions(w)
top = (h @ w.T + b).argmax(1)
along = {"adversarial": random_in(unseen), "random": random_in(torch.eye(w.shape[1], dtype=torch.float64)), "against its own weights": -(w[top[0]] - w.mean(0)) / (w[top[0]] - w.mean(0)).norm()}
figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.5))
steps = torch.cat([-torch.logspace(3, -1, 60, dtype=torch.float64), torch.zeros(1), torch.logspace(-1, 3, 60, dtype=torch.float64)])
for (name, d), style in zip(along.items(), ("-", "--", ":"), strict=True):
    axes[0].plot(steps, ((h[0] + steps[:, None] * d) @ w.T + b).softmax(1)[:, top[0]], style, label=name)
axes[0].set(xscale="symlog", xlabel=r"$\theta$", ylabel="probability of the predicted class", ylim=(-0.03, 1.06))
axes[0].set_xscale("symlog", linthresh=0.1)
axes[0].set_xticks([-1e3, -10, 0, 10, 1e3])
axes[0].legend(fontsize=8, loc="center", bbox_to_anchor=(0.43, 0.4))
for name, style in (("adversarial", "-"), ("random", "--")):
    axes[1].loglog(theta, largest_change(h, w, b, along[name], theta).amax(0), style, label=f"{name}, largest of all images")
axes[1].loglog(theta, nullspace.rounding_bound(w, b, h, theta).amax(0), color="black", linewidth=1, label="rounding bound")
axes[1].loglog(theta, theta * 2.0**-53 * w.norm(dim=1).max(), color="grey", linewidth=1, linestyle="-.", label=r"$\theta\, u\, \max_k |w_k|$")
axes[1].set(xlabel=r"$\theta$", ylabel="largest change of a probability")
axes[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, 0.92))
plt.show()

# %% tags=["nbval-check-output"]
run.claim("zou2018.def1", changes_beyond_rounding=beyond, distance_to_scipys_null_space=gap)
run.claim("zou2018.thm1", missing_dimensions=missing, changes_beyond_rounding=beyond)

# %% [markdown]
# The change along the adversarial direction is rounding, and grows as rounding does: a test that asked for $10^{-9}$ at every $\theta$ would fail, for a reason that has nothing to do with the theorem.
# The random direction shows that the flat line is no accident of a saturated softmax.
#
# ### One direction more, and heads that see it
#
# The direction that Theorem 1 leaves out is invisible because the softmax ignores a number added to all scores.
# softRmax does not: its probabilities are $p_k \propto 1 / \lVert z - e_k \rVert^2$ for logits $z = Wh + b$ and unit vectors $e_k$.
# Along the additional direction it tends to the uniform distribution.
# Its own invisible space is the null space of $W$, as Theorem 1 has it, and the Gauss head's is empty.

# %%
soft_r, gauss_net = zoo[p.networks[0], "softRmax"], zoo[p.networks[0], "Gauss"]


def one_more(w: torch.Tensor) -> torch.Tensor:
    """The adversarial direction that moves the scores: inside the null space of the centred weights, orthogonal to that of the weights."""
    kept = nullspace.adversarial_directions(w, shift_invariant=False)
    pull = nullspace.adversarial_directions(w)
    pull = pull - pull @ kept.T @ kept
    return torch.linalg.svd(pull, full_matrices=False)[2][0]


distances = torch.logspace(-1, 6, 29, dtype=torch.float64)
responses = {}
for name, model in (("softmax", main[seed]), ("softRmax", soft_r), ("Gauss", gauss_net)):
    w, b = layer(model)
    h = features(model, images_test.x[:200])
    for kind, d in (("raises all scores alike", one_more(w)), ("leaves every score", random_in(nullspace.adversarial_directions(w, shift_invariant=False)))):
        def confidences(h, head=model.head, w=w, b=b):
            if isinstance(head, heads.GaussHead):
                return heads.GaussHead(head.centers.double().cpu(), head.gamma).double()(h).exp()
            return heads.softrmax(h @ w.T + b) if isinstance(head, heads.SoftRmaxHead) else (h @ w.T + b).softmax(1)

        here = confidences(h)
        responses[name, kind] = [float((confidences(h + t * d) - here).abs().amax(1).mean()) for t in distances]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels of the mean change of confidences against theta. Along the additional direction the softmax does not change, softRmax and Gauss do. Along a direction kept by the scores only the Gauss confidences change."}}
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.3), sharey=True)
for ax, kind in zip(axes, ("raises all scores alike", "leaves every score"), strict=True):
    for (name, color), style in zip((("softmax", plots.SOFTMAX), ("softRmax", plots.THIRD), ("Gauss", plots.GAUSS)), ("-", "--", ":"), strict=True):
        ax.loglog(distances, np.maximum(responses[name, kind], 1e-17), style, color=color, label=name)
    ax.set(xlabel=r"$\theta$", title=f"a direction that {kind}")
axes[0].set_ylabel("mean over images of the\nlargest change of a confidence")
axes[0].legend()
plt.show()

# %%
run.claim("zou2018.thm1-sharp", dimension_mismatches=mismatched, extra_dimensions=extra, softrmax_change_along_the_extra_one=max(responses["softRmax", "raises all scores alike"]), softmax_change_along_the_extra_one=max(responses["softmax", "raises all scores alike"][:10]))

# %% [markdown]
# ## Regions that reach infinity
#
# The region of class $k$ is the set of features at which its score is the strict maximum, an intersection of half-spaces.
# It may be empty: a class whose weight lies inside the hull of the others never wins without a bias.
# Theorem 2 is about the regions that are not.
#
# ```{prf:theorem} Bounded regions
# :label: thm-bounded
#
# A region that is not empty is bounded if and only if $w_k$ lies in the interior of the convex hull of $w_1, \dots, w_m$.
# Then $l \leq m - 2$, there is no adversarial direction, and the layer has a bias.
# ```
#
# ```{prf:proof}
# A non-empty intersection of half-spaces is unbounded exactly if some $d \neq 0$ has $(w_k - w_j)^\top d \geq 0$ for all $j$: along it no rival gains.
# Such a $d$ is the normal of a hyperplane through $w_k$ with all weights on one side, and there is one exactly if $w_k$ is not an interior point of the hull.
# A hull with an interior needs $l + 1$ corners besides $w_k$, and its differences span $\mathbb{R}^l$, so the null space is zero.
# Without a bias, scaling features keeps the winner.
# ```
#
# An adversarial direction $d$ satisfies the condition with equality, for every class at once.
# This is the paper's Theorem 2, and its second half is more than unboundedness: not only the class stays, but the output.
# The converse does not hold, as the second panel shows: three classes in the plane have unbounded regions although the layer sees everything.
#
# The panels are drawn by the scores of actual layers, and each region's kind is found by linear programming (`support.geometry.nullspace.region`), which also returns the direction of escape.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three decision maps in the plane. Left: six unbounded regions around a bounded one in the middle. Middle: three unbounded regions with arrows that show directions of escape. Right: three regions between two parallel lines, the outer two not adjacent."}}
angle = torch.arange(6, dtype=torch.float64) * math.pi / 3
hexagon = torch.cat([torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([[0.1, -0.05]], dtype=torch.float64)])
hexagon_bias = torch.tensor([0.0, 0.1, -0.1, 0.0, 0.15, 0.0, 1.0], dtype=torch.float64)
triangle = torch.tensor([[1.6, 0.3], [-0.4, 1.2], [-0.2, -0.9]], dtype=torch.float64)
triangle_bias = torch.tensor([0.0, 0.6, -0.4], dtype=torch.float64)
parallel = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[:, None] * torch.tensor([[0.9, 0.5]], dtype=torch.float64)
parallel_bias = torch.tensor([-0.9, 0.0, -0.6], dtype=torch.float64)
drawn = (("Figure 1, left: one region is bounded", hexagon, hexagon_bias), ("m = 3, l = 2: all unbounded, none hidden", triangle, triangle_bias), ("Figure 1, right: a parallel layer", parallel, parallel_bias))
figure, axes = plt.subplots(1, 3, figsize=(10.2, 3.6))
for ax, (title, w, b) in zip(axes, drawn, strict=True):
    plots.cells(ax, lambda grid, w=w, b=b: (grid @ w.T + b).argmax(1), 3.0)
    for k in range(len(w)):
        found = nullspace.region(w, b, k)
        if found.kind == "unbounded":
            tail = found.point if float(found.point.abs().max()) < 2 else found.point * 1.2 / float(found.point.norm())
            ax.annotate("", tail + 0.9 * found.direction, tail, arrowprops={"arrowstyle": "->", "color": "black"})
        elif found.kind == "bounded":
            ax.plot(*found.point, "o", color="black", markersize=4)
    ax.set(xlim=(-3, 3), ylim=(-3, 3))
    ax.set_title(title, fontsize=9)
plt.show()

# %% [markdown]
# For Figure 1, left, we also look for points of the bounded region outside a large box, and try the same weights without a bias, and random layers with one class more than dimensions.

# %% tags=["nbval-check-output"]
bounded = [k for k in range(len(hexagon)) if nullspace.region(hexagon, hexagon_bias, k).kind == "bounded"]
far = 20 * torch.nn.functional.normalize(torch.randn(100_000, 2, dtype=torch.float64, generator=generator), dim=1)
outside = int(sum(((far * t) @ hexagon.T + hexagon_bias).argmax(1).eq(k).sum() for k in bounded for t in (1, 10, 100)))
simplices = [(torch.randn(d + 1, d, dtype=torch.float64, generator=generator), torch.randn(d + 1, dtype=torch.float64, generator=generator)) for d in (1, 2, 3, 5, 9) for _ in range(5)]
run.claim(
    "zou2018.fig1-left",
    bounded_regions_drawn=len(bounded), points_of_the_region_beyond_its_hull=outside,
    bounded_without_bias=sum(nullspace.region(hexagon, None, k).kind == "bounded" for k in range(len(hexagon))),
    bounded_with_one_class_more_than_dimensions=sum(nullspace.region(w, b, k).kind == "bounded" for w, b in simplices for k in range(len(w))),
)

# %% [markdown]
# Now the trained layers.
# For every class of every network of the zoo we travel from its test images along an adversarial direction, and check class and output.

# %%
lost, beyond, without, empty = 0, 0, 0, 0
for model in (model for (_, head), model in zoo.items() if head == "softmax"):
    w, b = layer(model)
    h, unseen = features(model, images_test.x), nullspace.adversarial_directions(w)
    kinds = [nullspace.region(w, b, k).kind for k in range(K)]
    empty += kinds.count("empty")
    without += sum(kind != "empty" and not len(unseen) for kind in kinds)
    for t in (1e2, 1e4, 1e6):
        moved = h + t * random_in(unseen)
        clear = (h @ w.T + b).topk(2, dim=1).values.diff(dim=1)[:, 0].abs() > 1e-6  # a tie is in no region
        lost += int(((moved @ w.T + b).argmax(1) != (h @ w.T + b).argmax(1))[clear].sum())
        beyond += int(((moved @ w.T + b).softmax(1) - (h @ w.T + b).softmax(1)).abs().amax(1).gt(nullspace.rounding_bound(w, b, h, t)).sum())

# %% tags=["nbval-check-output"]
run.claim("zou2018.thm2", regions_without_direction=without, changes_beyond_rounding=beyond, classes_lost=lost, empty_regions=empty)

# %% [markdown]
# ### With fewer dimensions than classes
#
# The paper sets "$l > m$, all regions extend to infinity" against "$l < m$, a region does not".
# To see whether trained layers make that difference we train a family of small networks whose last hidden layer has $l$ units, from two units up, and classify all their regions.

# %%
family_data = images.take(p.width_train)


def family_member(width: int, s: int) -> models.Classifier:
    """A network with hidden layers of 64 and `width` units."""
    return fit(models.mlp(shape, (64, width), K, seed=s), f"width-{width}-{s}", s=s, train=family_data)


family = {(width, s): family_member(width, s) for width in p.widths for s in run.seeds}
kinds = pd.DataFrame([
    {"l": width, "s": s, "accuracy": accuracy(model), "directions": len(nullspace.adversarial_directions(layer(model)[0])), **{kind: sum(nullspace.region(*layer(model), k).kind == kind for k in range(K)) for kind in ("unbounded", "bounded", "empty")}}
    for (width, s), model in family.items()
])

# %% tags=["hide-input"]
display(kinds.groupby("l")[["accuracy", "directions", "unbounded", "bounded", "empty"]].mean().style.format("{:.2f}").format("{:.0f}", subset=["directions"]).set_caption("Regions of ten classes by the width of the last hidden layer, mean over runs"))

# %%
narrow, wide = kinds[kinds.l < K], kinds[kinds.l >= K]
zoo_bounded = sum(nullspace.region(*layer(model), k).kind == "bounded" for (_, head), model in zoo.items() if head == "softmax" for k in range(K))
def unbounded_share(rows: pd.DataFrame) -> list[float]:
    """Share of the regions that are not empty which reach infinity, for each run."""
    sums = rows.groupby("s")[["unbounded", "bounded"]].sum()
    return (sums.unbounded / sums.sum(axis=1)).tolist()


run.claim("zou2018.all-unbounded", bounded_regions_with_l_above_m=int(wide.bounded.sum()) + zoo_bounded, unbounded_share_l_above_m=unbounded_share(wide), unbounded_share_l_below_m=unbounded_share(narrow))

# %% [markdown]
# Training pushes the class weights apart, to corners of their hull, and a corner's region reaches infinity.
# Only where $l$ is a small part of $m$ do some weights find no corner, and bounded or empty regions appear.
# That a region is unbounded says little about the number of invisible dimensions.
#
# ### Convex regions, flat boundaries
#
# The paper adds that regions are convex and boundaries piece-wise linear.
# In the hidden space both are immediate; we check them on features of test images, with all pairs of images that are given to the same class, and with bisection between images of different classes.
# The row also says how it is in the space of images, where the region is the preimage under $g$.

# %%
model = main[seed]
w, b = layer(model)
h, x = features(model, images_test.x[:400]), images_test.x[:400]
top = (h @ w.T + b).argmax(1)
first, second = torch.triu_indices(len(h), len(h), 1)
same = top[first] == top[second]
first, second = first[same], second[same]
share = torch.rand(len(first), 1, dtype=torch.float64, generator=generator)
changed = int((((share * h[first] + (1 - share) * h[second]) @ w.T + b).argmax(1) != top[first]).sum())
some = torch.randperm(len(first), generator=generator)[:5000]
middle = (x[first[some]] + x[second[some]]) / 2
changed_pictures = float((training.predict(model, middle).argmax(1).cpu() != top[first][some]).double().mean())
run.claim("zou2018.convex-regions", midpoints_of_another_class=changed, share_in_the_space_of_images=changed_pictures)

# %% tags=["nbval-check-output"]
a, c = h[: len(h) // 2], h[len(h) // 2 : 2 * (len(h) // 2)]
crossing = (a @ w.T + b).argmax(1) != (c @ w.T + b).argmax(1)
a, c = a[crossing], c[crossing]
start, low, high = (a @ w.T + b).argmax(1), torch.zeros(len(a), 1, dtype=torch.float64), torch.ones(len(a), 1, dtype=torch.float64)
for _ in range(60):
    half = (low + high) / 2
    stays = (((1 - half) * a + half * c) @ w.T + b).argmax(1) == start
    low, high = torch.where(stays[:, None], half, low), torch.where(stays[:, None], high, half)
scores, pair = (((1 - low) * a + low * c) @ w.T + b).topk(2, dim=1)
distance = (scores[:, 0] - scores[:, 1]) / (w[pair[:, 0]] - w[pair[:, 1]]).norm(dim=1)
run.claim("zou2018.piecewise-linear", distance_to_hyperplane=float(distance.max()))

# %% [markdown]
# ## Is l larger than m?
#
# The paper assumes $l > m$, "which is the case in almost all top-performing neural networks on ImageNet".
# torchvision describes eighty classifiers, with their published accuracy.
# We build each without allocating its weights and read off the last layer.

# %%
class Unallocated(TorchFunctionMode):
    """Modules made inside have weights of the right shape and no memory: their tensors live on the meta device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


def last_layer(name: str) -> dict:
    """Width, classes and kind of a classifier's last layer with weights, and its best published top-1 accuracy in percent."""
    with Unallocated(), warnings.catch_warnings(action="ignore"):
        net = tv_models.get_model(name, weights=None)
    last = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    best = max(entry.meta["_metrics"]["ImageNet-1K"]["acc@1"] for entry in tv_models.get_model_weights(name))
    return {"network": name, "l": last.weight.shape[1], "m": last.weight.shape[0], "linear": isinstance(last, nn.Linear), "top-1": best}


architectures = pd.DataFrame([last_layer(name) for name in tv_models.list_models(module=tv_models)])
architectures["premise"] = architectures.linear & (architectures.l > architectures.m)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Width of the last layer against published top-1 accuracy for torchvision's classifiers on a logarithmic axis, with a line at l = m = 1000. A fair share of the points, some of high accuracy, lies on or below the line."}}
figure, ax = plt.subplots(figsize=(7.4, 3.9))
for held, linear, label, color, marker in ((True, True, "l > m", plots.PALETTE[0], "o"), (False, True, "l ≤ m", plots.PALETTE[1], "s"), (False, False, "no linear last layer", "black", "x")):
    chosen = architectures[(architectures.premise == held) & (architectures.linear == linear)]
    ax.scatter(chosen["top-1"], chosen.l, s=22, color=color, marker=marker, label=f"{label}: {len(chosen)}")
for name in ("alexnet", "vgg16", "inception_v3", "resnet50", "resnet18", "squeezenet1_0", "maxvit_t", "vit_b_16"):
    row = architectures[architectures.network == name].iloc[0]
    ax.annotate(name, (row["top-1"], row.l), xytext=(0, -11) if name == "inception_v3" else (4, 4), textcoords="offset points", fontsize=7)
ax.axhline(1000, color="grey", linewidth=0.8)
ax.set(yscale="log", xlabel="published top-1 accuracy on ImageNet, percent", ylabel="l, width of the last layer")
ax.legend(fontsize=8)
plt.show()

# %% tags=["hide-input"]
exceptions = architectures[~architectures.premise].sort_values(["l", "network"])
display(exceptions.groupby(["linear", "l"])["network"].agg(", ".join).to_frame("networks with l ≤ 1000, or without the layer").style.set_properties(**{"text-align": "left"}))

# %%
better = architectures[architectures["top-1"] >= architectures["top-1"].median()]
cited = architectures[architectures.network.isin(["alexnet", "vgg16", "inception_v3", "resnet50"])]
run.claim("zou2018.premise", cited_networks_without=int((~cited.premise).sum()), share_of_all=float(architectures.premise.mean()), share_of_the_better_half=float(better.premise.mean()))

# %% [markdown]
# The premise is right about the networks that the abstract names.
# It is not right about nearly all, nor about nearly all of the accurate ones: the exceptions lie at every accuracy, so that a network does not owe its accuracy to a wide last layer.
# The theorem itself asks for less than $l > m$: one direction is there as soon as $l = m$.
#
# ### Pretrained networks
#
# The networks of the profile's `pretrained` list are looked at with their trained weights, on the ImageNet sample pictures (none at the quick profile).
# AlexNet, VGG16 and ResNet-50 have the layer of the theorem; SqueezeNet {cite:p}`iandola2016` does not, and is the control.
# Its features pass through a $1 \times 1$ convolution, a ReLU and the mean over positions, so that its scores are not linear in any hidden vector.

# %%
def split(net: nn.Module) -> models.Classifier:
    """A pretrained network cut before its last linear layer."""
    name, last = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return models.Classifier(net, heads.LinearHead(last.weight.detach(), last.bias.detach())).eval()


def with_the_layer(name: str) -> dict:
    """Dimensions, invariance and shares of a network that ends with a linear layer."""
    model, x = split(pretrained.network(name)).to(run.device), pretrained.pictures()
    w, b = layer(model)
    h = features(model, x)
    unseen = nullspace.adversarial_directions(w)
    far = torch.tensor([1e6], dtype=torch.float64)
    y = training.predict(model, x).argmax(1)
    shifted = attacks.pgd(model, x.to(run.device), y, 4 / 255, steps=10, generator=torch.Generator().manual_seed(seed)).x_adv
    return {"network": name, "l": w.shape[1], "directions": len(unseen), "change beyond rounding": int((largest_change(h, w, b, random_in(unseen), far) > nullspace.rounding_bound(w, b, h, far)).sum()), "share of a random direction": len(unseen) / w.shape[1], "share of the features": pooled_share(w, h - h.mean(0)), "share of PGD's shift": pooled_share(w, features(model, shifted) - h), "ray in the orthant": nullspace.cone_ray(w) is not None, "Wendel": nullspace.cone_probability(w.shape[1], len(w))}


def pooled_share(w: torch.Tensor, vectors: torch.Tensor) -> float:
    """Share of the squared length of all vectors together that lies in the null space."""
    unseen = nullspace.adversarial_directions(w)
    return float((vectors @ unseen.T).square().sum() / vectors.square().sum())


def without_the_layer(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """SqueezeNet: how its output changes when the last feature maps travel along directions, and the rank of its last convolution."""
    net, source = net.to(run.device), torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        maps = net[1].features(net[0](x.to(run.device)))
        final = net[1].classifier[1]
        w = final.weight[:, :, 0, 0].double().cpu()
        here = net[1].classifier(maps).flatten(1)
        size = float(maps.square().sum(1).sqrt().mean())
        directions = {"least visible": torch.linalg.svd(w - w.mean(0), full_matrices=False)[2][-1], "random": random_in(torch.eye(w.shape[1], dtype=torch.float64), source)}
        moved = {name: [float((net[1].classifier(maps + t * size * d.to(maps)[:, None, None]).flatten(1).softmax(1) - here.softmax(1)).abs().amax(1).mean()) for t in (0.1, 1.0, 10.0, 100.0)] for name, d in directions.items()}
    return {"rank": torch.tensor(np.linalg.matrix_rank((w - w.mean(0)).numpy())), "zero": (here == 0).double().mean(), **{name: torch.tensor(found) for name, found in moved.items()}}


chosen = [name for name in p.pretrained if name != "none"]
linear = [with_the_layer(name) for name in chosen if not name.startswith("squeezenet")]
if linear:
    display(pd.DataFrame(linear).set_index("network").style.format(precision=3).set_caption("Pretrained networks with a linear last layer, on the sample pictures"))
for name in (name for name in chosen if name.startswith("squeezenet")):
    found = run.unit(f"control-{name}", {"name": name, "seed": seed}, lambda name=name: without_the_layer(pretrained.network(name), pretrained.pictures()), code=[without_the_layer])
    print(f"{name}: the last convolution maps l = 512 channels to m = 1000 maps, rank of the centred weights {int(found['rank'])}; adversarial directions {512 - int(found['rank'])}; {float(found['zero']):.0%} of the scores are exactly zero")
    display(pd.DataFrame({kind: found[kind].tolist() for kind in ("least visible", "random")}, index=["0.1", "1", "10", "100"]).rename_axis("theta / mean length of a feature").style.format("{:.3f}").set_caption(f"{name}: mean over pictures of the largest change of a probability"))
if not chosen:
    print("No pretrained network at this profile.")

# %% [markdown]
# Where SqueezeNet is looked at, its row shows what a layer without slack does: the last convolution reads all of its channels, and even the direction that it sees least changes the output once it is followed far enough.
#
# ## Inside the orthant
#
# After a ReLU all features are non-negative, and the image of $g$ lies in the orthant $h \geq 0$.
# The paper treats all of $\mathbb{R}^l$ only.
# Which adversarial directions stay inside?
#
# ```{prf:theorem} Rays in the orthant
# :label: thm-orthant
#
# $h + \theta d \geq 0$ for all $\theta \geq 0$ if and only if $d \geq 0$; for all $\theta \in \mathbb{R}$ only if $d = 0$.
# If the $l$ columns of the centred weights are independent, symmetric about zero and in general position in $m - 1$ dimensions, some $d \geq 0$, $d \neq 0$ has $\tilde W d = 0$ with probability
#
# $$P(l, m) = 1 - 2^{1-l} \sum_{i=0}^{m-2} \binom{l-1}{i} .$$
# ```
#
# The second half is Wendel's theorem {cite:p}`wendel1962`: there is no such $d$ exactly if all columns lie in one open half-space.
# It equals one half at $l = 2(m - 1)$: from $l > m$ to a ray in the orthant one needs about twice as many features.
# Linear programming decides each layer (`support.geometry.nullspace.cone_ray`).
# We do this for random layers, for the layers that training starts from, and for the trained ones.

# %%
def has_ray(w: torch.Tensor) -> bool:
    return nullspace.cone_ray(w) is not None


ray_share = pd.DataFrame([
    {
        "l": width,
        "Wendel": nullspace.cone_probability(width, K),
        "random": np.mean([has_ray(torch.randn(K, width, dtype=torch.float64, generator=generator)) for _ in range(p.layers)]),
        "at the start": np.mean([has_ray(models.mlp(shape, (64, width), K, seed=s).head.weight.detach().double()) for s in range(p.layers)]),
        "trained": np.mean([has_ray(layer(family[width, s])[0]) for s in run.seeds]),
    }
    for width in p.widths
])

# %% tags=["hide-input"] mystnb={"image": {"alt": "Share of layers with an invisible ray in the non-negative orthant against the width of the last layer. Random layers and layers before training follow Wendel's curve, which passes one half at twice the number of classes minus two; the trained ones are marked beside it."}}
figure, ax = plt.subplots(figsize=(6.4, 3.5))
line = np.arange(1, max(p.widths) + 1)
ax.plot(line, [nullspace.cone_probability(int(width), K) for width in line], color="black", linewidth=1, label="Wendel's formula")
for (name, marker), color in zip((("random", "o"), ("at the start", "s"), ("trained", "^")), plots.PALETTE, strict=False):
    ax.plot(ray_share.l, ray_share[name], marker, color=color, label=name, markersize=6, alpha=0.8)
ax.axvline(2 * (K - 1), color="grey", linewidth=0.8)
ax.axvline(K, color="grey", linewidth=0.8, linestyle=":")
ax.set(xlabel="l, width of the last layer (dotted: l = m, grey: l = 2 (m - 1))", ylabel="share with a ray in the orthant", ylim=(-0.05, 1.05))
ax.legend()
plt.show()

# %%
beyond, lines, rays = 0, 0, {}
for (name, head), model in zoo.items():
    w, b = layer(model)
    ray = nullspace.cone_ray(w)
    rays[name, head] = ray is not None
    if ray is None or head != "softmax":
        continue
    h = features(model, images_test.x)
    far = torch.tensor([1e3, 1e6], dtype=torch.float64)
    beyond += int((largest_change(h, w, b, ray, far) > nullspace.rounding_bound(w, b, h, far)).sum())
    lines += int(((h - 1e6 * ray >= 0).all(1)).sum())  # the other way along the same line
at_transition = ray_share[(ray_share.Wendel > 0.001) & (ray_share.Wendel < 0.999)]
run.claim("zou2018.relu-cone", two_sided_lines=lines, changes_beyond_rounding=beyond, trained_share_minus_wendel=float((at_transition.trained - at_transition.Wendel).mean()), networks_of_the_zoo_with_a_ray=sum(rays.values()), networks_of_the_zoo=len(rays))

# %% [markdown]
# A layer before training is a random layer, and behaves as one.
# Training changes that, and the last number of the third rule says by how much: above zero, more trained layers have a ray than chance gives them.
# One reading is that a ray balances the features against each other, and that training shares the features out among the classes more evenly than chance does; we have not tested it.
#
# ### An image on its way
#
# Which of the features $h + \theta d$ belong to an image is a question about $g$, which we put to a search.
# We take the adversarial direction along which the features of the test images spread most, start from a test image, and look for the image, with no bound on the change of its pixels, whose features come nearest to $h + \theta d$.
# Above each picture stand, in units of the standard deviation of the test features along $d$: $\theta$, the way that its features went along $d$, and how far they strayed to the side; then the probability of the class.
#
# The search takes signed gradient steps, as the attacks of the package do, with two differences: it follows the distance of the features and never stops at a change of class, and its steps shrink, since steps of one length cannot come nearer than that length allows.

# %%
def nearest_image(model, x: torch.Tensor, target: torch.Tensor, view: torch.Tensor, eps: float | torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images within eps (one for all or one each) of x (N, C, H, W) whose features, seen through the orthonormal rows of `view`, are nearest to one target (l,); and the distance."""
    view, goal = view.float().to(x.device), (target @ view.T).float().to(x.device)
    low, high = attacks.interval(x, eps)
    length = torch.as_tensor(eps, device=x.device).float().reshape(-1, 1, 1, 1) / 4
    at, best, least = x, x.clone(), torch.full((len(x),), torch.inf, device=x.device)
    for step in range(steps + 1):
        at = at.detach().requires_grad_()
        distance = (model.features(at) @ view.T - goal).square().sum(1).clamp_min(1e-24).sqrt()
        (slope,) = torch.autograd.grad(distance.sum(), at)
        with torch.no_grad():
            better = distance < least
            best[better], least[better] = at[better], distance[better]
            at = torch.clamp(at - length * 1000 ** (-step / steps) * slope.sign(), low, high)
    return best, least.detach().double().cpu()


def visible(w: torch.Tensor) -> torch.Tensor:
    """Orthonormal rows that span what the softmax sees: the row space of the centred weights."""
    _, singular, rows = torch.linalg.svd(w - w.mean(0), full_matrices=False)
    return rows[singular > 1e-10 * singular[0]]


model = main[seed]
w, b = layer(model)
unseen = nullspace.adversarial_directions(w)
x = images_test.x[:1].to(run.device)
h, every = features(model, x), features(model, images_test.x)
hidden_part = (every - every.mean(0)) @ unseen.T
_, _, axes_of_spread = torch.linalg.svd(hidden_part, full_matrices=False)
d = axes_of_spread[0] @ unseen  # where in the null space the features of real images spread most
unit = float((hidden_part @ axes_of_spread[0]).std())
ways = [-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]
everything = torch.eye(w.shape[1], dtype=torch.float64)
reached = [nearest_image(model, x, h[0] + way * unit * d, everything, 1.0, 4 * p.match_steps)[0] if way else x for way in ways]

# %% tags=["hide-input"] mystnb={"image": {"alt": "A row of seven pictures around a test digit: the images whose features come nearest to points along an invisible direction on both sides, with the way asked for, the way gone, the distance left and the probability of the digit's class above each."}}
titles = []
for way, picture in zip(ways, reached, strict=True):
    moved = features(model, picture) - h
    sure = float((features(model, picture) @ w.T + b).softmax(1)[0, (h @ w.T + b).argmax()])
    titles.append(f"asked {way:+g}\ngone {float(moved[0] @ d) / unit:+.2f}\naside {float((moved[0] - (moved[0] @ d) * d).norm()) / unit:.2f}\np = {sure:.3f}")
plots.pictures(torch.cat(reached).cpu(), titles, columns=len(ways), size=1.35)
plt.show()

# %% [markdown]
# The output stays near what it was while the picture changes, and what changes it at all is the straying to the side.
# This is what "no output difference could be observed" looks like from the other side: images that the network takes for the same, while a person sees the difference.
# How far the features fall short of the way asked for says what this search could do, not what the network allows.
#
# ## How much of the features does the layer not see?
#
# An invisible subspace matters only if something lies in it.
# We compare four shares of squared length: of the test features about their mean, of the shift that FGSM and PGD cause in the features, and of a uniformly random direction, which is the share of dimensions.
# For the Gauss network the layer is the one by which it decides.

# %%
x, y = images_test.x[: p.attack_images].to(run.device), images_test.y[: p.attack_images].to(run.device)


def shifts(model) -> dict[str, torch.Tensor]:
    """Features of the attacked images, clean and under FGSM and PGD, and where each attack succeeded."""
    stream = torch.Generator().manual_seed(seed)
    found = {"fgsm": attacks.fgsm(model, x, y, p.attack_eps), "pgd": attacks.pgd(model, x, y, p.attack_eps, steps=p.pgd_steps, generator=stream)}
    clean = features(model, x)
    return {"clean": clean, "right": model(x).argmax(1) == y, **{name: features(model, result.x_adv) for name, result in found.items()}, **{f"{name}.success": result.success for name, result in found.items()}}


def shares(model, name: str) -> dict[str, float]:
    """Shares of squared length in the null space of the layer by which the model decides."""
    key = {"model": models.fingerprint(model), "gamma": float(getattr(model.head, "gamma", 0.0)), "eps": p.attack_eps, "steps": p.pgd_steps, "images": len(y), "data": images_test.sha256, "seed": seed}
    unit = run.unit(f"shifts-{name}", key, lambda: shifts(model), code=[attacks])
    w, b = layer(model)
    see = visible(w)
    fooled = {}
    for attack in ("fgsm", "pgd"):
        hit = unit[f"{attack}.success"] & unit["right"]
        moved = (unit[attack] - unit["clean"])[hit]
        hidden_only = unit["clean"][hit] + moved - moved @ see.T @ see
        fooled[attack] = float(((hidden_only @ w.T + b).argmax(1) != (unit["clean"][hit] @ w.T + b).argmax(1)).double().mean()) if int(hit.sum()) else 0.0
    every = features(model, images_test.x)
    means = clustering.class_centroids(every, images_test.y, K)
    return {
        "random": 1 - len(see) / w.shape[1], "features": pooled_share(w, every - every.mean(0)), "within classes": pooled_share(w, every - means[images_test.y]),
        "FGSM": pooled_share(w, unit["fgsm"] - unit["clean"]), "PGD": pooled_share(w, unit["pgd"] - unit["clean"]), "fooled without the visible part": max(fooled.values()),
    }


measured = {(name, head): shares(model, f"{name}-{head}") for (name, head), model in zoo.items()}
main_shares = [shares(main[s], f"{p.networks[0]}-main-{s}") for s in run.seeds]

# %% tags=["hide-input"] mystnb={"image": {"alt": "For each network and head, markers for the share of squared length in the null space: of a random direction, of the features about their mean, of the features within classes, and of the shifts caused by FGSM and PGD."}}
figure, ax = plt.subplots(figsize=(8.2, 3.8))
markers = {"random": ("|", "black"), "features": ("o", plots.PALETTE[0]), "within classes": ("s", plots.PALETTE[2]), "FGSM": ("^", plots.PALETTE[1]), "PGD": ("v", plots.PALETTE[3])}
for label, (marker, color) in markers.items():
    ax.plot([found[label] for found in measured.values()], range(len(measured)), marker, color=color, label=label if label != "random" else "random direction", markersize=14 if label == "random" else 7, markeredgewidth=2 if label == "random" else 1)
ax.set(yticks=range(len(measured)), yticklabels=[f"{name}, {head}" for name, head in measured], xlim=(-0.02, 1.02), xlabel="share of squared length that the layer does not see")
ax.invert_yaxis()
ax.legend(fontsize=8, bbox_to_anchor=(1.01, 1), loc="upper left")
plt.show()

# %%
run.claim("zou2018.wide-range", fgsm_share=[found["FGSM"] for found in main_shares], pgd_share=[found["PGD"] for found in main_shares], random_share=[found["random"] for found in main_shares], feature_share=[found["features"] for found in main_shares], fooled_without_the_visible_part=[found["fooled without the visible part"] for found in main_shares])

# %% [markdown]
# The row's last rule repeats each successful attack with the visible part of its shift taken away: only what lies in the adversarial directions is left, and the class is the clean one.
# That is no surprise, and it is the point.
# Adversarial directions are those in which nothing can be seen, so nothing in them can mislead.
# An adversarial example needs the other directions.
#
# The black bars are what chance would put into the null space, and the distance of the markers from them is what training did.
# The class means lie where the layer can read them; of what differs between images of one class it reads less.
#
# ## The conjecture
#
# ```{prf:conjecture} Universality of adversarial examples
# :label: conj-universality
#
# For most $g$ and most layers that are not parallel, and for *any* $(x, y)$ and $(x', y')$ with $y \neq y'$, there is an $x^*$ with $\lVert x^* - x \rVert \leq \epsilon$, imperceptible, and an adversarial direction $d'$ with $g(x^*) = g(x') + \theta d'$.
# ```
#
# Features that agree up to an adversarial direction are features with the same softmax output: $S(Wg(x^*) + b) = S(Wg(x') + b)$.
# So the conjecture asks for much more than the wrong class.
# It asks that one can give $x$ every single probability of $x'$.
#
# First the search.
# For test images $x$ and one image $x'$ of each class we minimise the distance of the features, measured modulo the adversarial directions (in the row space of $\tilde W$), over the ball of radius $\epsilon$.
# Beside it we run the same search without that licence, on the features themselves, and the usual targeted attack, which only wants the class of $x'$.

# %%
def match(model, s: int) -> dict[str, torch.Tensor]:
    """Searches for each pair and radius, one row a pair: distances reached relative to the start, total variation, classes."""
    w, b = layer(model)
    h_all, top = features(model, images_test.x), training.predict(model, images_test.x).argmax(1).cpu()
    right = torch.nonzero(top == images_test.y)[:, 0]
    goals = [int(right[images_test.y[right] == k][0]) for k in range(K)]
    sources = torch.tensor([int(i) for i in right if int(i) not in goals][: p.match_sources])
    see = visible(w)
    views = {"modulo": see, "all": torch.eye(w.shape[1], dtype=torch.float64)}
    columns = {f"{kind}.{part}": [] for kind in views for part in ("start", "reached", "variation", "hit")} | {"targeted.hit": []}
    for goal in goals:
        rows = sources[images_test.y[sources] != images_test.y[goal]]
        # all radii in one call: the rows once for each
        x = images_test.x[rows].repeat(len(p.match_eps), 1, 1, 1).to(run.device)
        eps = torch.tensor(p.match_eps, dtype=torch.float64, device=run.device).repeat_interleave(len(rows))
        label = torch.full((len(x),), int(images_test.y[goal]), device=run.device)
        wanted = (h_all[goal] @ w.T + b).softmax(0)

        def by_radius(values: torch.Tensor, rows=rows) -> torch.Tensor:
            return values.cpu().reshape(len(p.match_eps), len(rows)).T

        for kind, view in views.items():
            picture, distance = nearest_image(model, x, h_all[goal], view, eps, p.match_steps)
            output = (features(model, picture) @ w.T + b).softmax(1)
            columns[f"{kind}.start"].append(((h_all[rows] - h_all[goal]) @ view.T).norm(dim=1))
            columns[f"{kind}.reached"].append(by_radius(distance))
            columns[f"{kind}.variation"].append(by_radius((output - wanted).abs().sum(1) / 2))
            columns[f"{kind}.hit"].append(by_radius(output.argmax(1) == label.cpu()))
        columns["targeted.hit"].append(by_radius(attacks.pgd(model, x, label, eps, steps=p.match_steps, targeted=True, loss="margin", generator=torch.Generator().manual_seed(s)).success))
    return {name: torch.cat(parts) for name, parts in columns.items()}


matches = {
    s: run.unit(f"match-{s}", {"model": models.fingerprint(main[s]), "eps": p.match_eps, "sources": p.match_sources, "steps": p.match_steps, "data": images_test.sha256, "seed": [seed, s]}, lambda s=s: match(main[s], s), code=[match, nearest_image, visible, attacks])
    for s in run.seeds
}
relative = {kind: torch.cat([found[f"{kind}.reached"] / found[f"{kind}.start"][:, None] for found in matches.values()]) for kind in ("modulo", "all")}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: cumulative share of pairs against the feature distance reached relative to the start, for each radius, modulo the adversarial directions as solid lines and without quotient as dashed lines. Right: share of pairs given the class of the second image by the two searches and by a targeted attack, and share matched, against the radius."}}
figure, axes = plt.subplots(1, 2, figsize=(9.8, 3.7))
levels = np.logspace(-4, 0, 200)
for column, (eps, color) in enumerate(zip(p.match_eps, plots.PALETTE, strict=False)):
    for kind, style in (("modulo", "-"), ("all", "--")):
        values = np.sort(relative[kind][:, column].numpy())
        axes[0].plot(levels, np.searchsorted(values, levels, side="right") / len(values), style, color=color, label=rf"$\epsilon$ = {eps:g}" if kind == "modulo" else None)
axes[0].axvline(0.01, color="grey", linewidth=0.8)
axes[0].set(xscale="log", xlabel="distance reached / distance at the start\n(solid: modulo null space, dashed: all features)", ylabel="share of pairs")
axes[0].legend(fontsize=8)
for (label, values), style in zip({
    "class of x', targeted attack": [found["targeted.hit"].double().mean(0).numpy() for found in matches.values()],
    "class of x', matching modulo": [found["modulo.hit"].double().mean(0).numpy() for found in matches.values()],
    "class of x', matching all": [found["all.hit"].double().mean(0).numpy() for found in matches.values()],
    "matched to 1 %, modulo": [(found["modulo.reached"] <= 0.01 * found["modulo.start"][:, None]).double().mean(0).numpy() for found in matches.values()],
}.items(), ("-", "--", ":", "-."), strict=True):
    plots.band(axes[1], p.match_eps, np.array(values), label=label, color=plots.PALETTE[("-", "--", ":", "-.").index(style)], style=style)
axes[1].set(xlabel=r"$\epsilon$, pixel units", ylabel="share of pairs", ylim=(-0.03, 1.03))
axes[1].legend(fontsize=8)
plt.show()

# %% tags=["hide-input"]
summary = pd.DataFrame({
    "median distance left, modulo": relative["modulo"].median(0).values.numpy(), "median distance left, all features": relative["all"].median(0).values.numpy(),
    "total variation of the outputs, median": torch.cat([found["modulo.variation"] for found in matches.values()]).median(0).values.numpy(),
    "matched to 1 %, modulo": (relative["modulo"] <= 0.01).double().mean(0).numpy(), "matched to 1 %, all features": (relative["all"] <= 0.01).double().mean(0).numpy(),
    "class of x', modulo": torch.cat([found["modulo.hit"] for found in matches.values()]).double().mean(0).numpy(),
    "class of x', targeted attack": torch.cat([found["targeted.hit"] for found in matches.values()]).double().mean(0).numpy(),
}, index=pd.Index(p.match_eps, name="eps"))
display(summary.style.format("{:.3f}").set_caption(f"The search over {len(relative['modulo'])} pairs and runs"))

# %%
run.claim(
    "zou2018.conjecture",
    share_matched=[float((found["modulo.reached"] <= 0.01 * found["modulo.start"][:, None]).double().mean(0)[0]) for found in matches.values()],
    share_misclassified=[float(found["modulo.hit"].double().mean(0)[0]) for found in matches.values()],
    median_distance_left=[float((found["modulo.reached"] / found["modulo.start"][:, None])[:, 0].median()) for found in matches.values()],
    median_distance_left_without_quotient=[float((found["all.reached"] / found["all.start"][:, None])[:, 0].median()) for found in matches.values()],
)

# %% [markdown]
# Two things are to be kept apart here.
# As $\epsilon$ grows, the search reaches the class of $x'$ long before it comes near the features of $x'$, so the wrong class needs no match.
# And where the search does not reach the features, that shows nothing: another search might.
#
# ### The half that can be decided
#
# Equal softmax outputs are equal *centred scores* $\tilde W g(x) + \tilde b$.
# These can be bounded over all images of the ball at once, by sending intervals through the network, layer by layer (`support.certificates.exact_search.centred_score_bounds`).
# If a single centred score of $x'$ lies outside the bounds around $x$, no image of the ball has the features of $x'$ modulo the adversarial directions, whatever the search: the conjecture is refuted for that pair and that $\epsilon$.
#
# Interval bounds widen quickly with depth.
# For a network of some dozens of hidden units we can do better, and compute the *least* $\epsilon$ exactly, by a mixed integer programme over the states of its ReLUs {cite:p}`tjeng2019`.
# We ask it twice: for the least budget that makes the outputs equal, and for the least one that gives $x$ the class of $x'$.

# %%
bounded_net = next(model for (name, head), model in zoo.items() if head == "softmax" and name != "small_cnn")
w, b = layer(bounded_net)
found = matches[seed]
right = torch.nonzero(training.predict(bounded_net, images_test.x).argmax(1).cpu() == images_test.y)[:, 0]
sources = right[: p.match_sources]
targets = torch.stack([right[images_test.y[right] == k][-1] for k in range(K)])
wanted = features(bounded_net, images_test.x[targets]) @ (w - w.mean(0)).T + b - b.mean()
different = images_test.y[sources][:, None] != images_test.y[targets]
budgets = sorted({0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, p.match_eps[0], 0.05, 0.07, 0.1})
excluded = []
for eps in budgets:
    low, high = (end.cpu()[:, None] for end in exact_search.centred_score_bounds(bounded_net.cpu(), images_test.x[sources], eps))
    excluded.append(((wanted < low - 1e-6) | (wanted > high + 1e-6)).any(2)[different])
bounded_net.to(run.device)
excluded = torch.stack(excluded, 1)

# %%
embedded, embedded_test = run.load("digits", "train"), run.load("digits", "test")
small = training.fit(models.mlp(embedded.x.shape[1:], p.exact_hidden, K, seed=seed), embedded.x, embedded.y, epochs=40, lr=0.1, seed=seed, cache=run.cache, name="exact").model
answers = training.predict(small, embedded_test.x).argmax(1)
kept = torch.nonzero(answers == embedded_test.y)[:, 0]


def least_budgets() -> dict[str, torch.Tensor]:
    """For pairs of correctly classified digits: distance, least budget for equal outputs (both ends), least budget for the class."""
    rows = []
    for i in range(p.exact_pairs):
        source = int(kept[i])
        other = next(int(j) for j in kept[p.exact_pairs + 3 * i :] if embedded_test.y[j] != embedded_test.y[source])
        x, x_other = embedded_test.x[source], embedded_test.x[other]
        equal, flipped = exact_search.least_budget(small, x, like=x_other), exact_search.least_budget(small, x, label=int(embedded_test.y[other]))
        rows.append([float((x - x_other).abs().max()), equal.lower, equal.upper, flipped.lower, flipped.upper])
    return dict(zip(("distance", "equal.lower", "equal.upper", "class.lower", "class.upper"), torch.tensor(rows, dtype=torch.float64).T.contiguous(), strict=True))


exact = run.unit("least-budgets", {"model": models.fingerprint(small), "pairs": p.exact_pairs, "data": embedded_test.sha256}, least_budgets, code=[least_budgets, exact_search])

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: share of pairs excluded by interval bounds against the radius, falling from one to zero, beside the share of pairs that the search matched. Right: for each pair of digits, the exact least budget for equal outputs against the exact least budget for the class; all points lie far above the diagonal."}}
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.6))
axes[0].semilogx(budgets, excluded.double().mean(0), "-o", markersize=4, color=plots.PALETTE[0], label="excluded by interval bounds")
axes[0].semilogx(p.match_eps, (relative["modulo"] <= 0.01).double().mean(0), "--s", markersize=4, color=plots.PALETTE[1], label="matched to 1 % by the search")
axes[0].set(xlabel=r"$\epsilon$, pixel units", ylabel="share of pairs", ylim=(-0.03, 1.03))
axes[0].legend(fontsize=8)
axes[1].plot(exact["class.upper"], exact["equal.upper"], "o", color=plots.PALETTE[2], label="pairs of digits")
top = 1.05 * float(exact["equal.upper"].max())
axes[1].plot([0, top], [0, top], color="grey", linewidth=0.8)
axes[1].set(xlim=(0, top), ylim=(0, top), xlabel=r"least $\epsilon$ for the class of $x'$", ylabel=r"least $\epsilon$ for the output of $x'$")
axes[1].legend(fontsize=8, loc="lower right")
plt.show()
display(pd.DataFrame({"least budget": {"equal outputs, median": float(exact["equal.upper"].median()), "equal outputs, smallest": float(exact["equal.lower"].min()), "class of x', median": float(exact["class.upper"].median()), "distance of x and x', median": float(exact["distance"].median())}}).style.format("{:.3f}").set_caption(f"Exact least budgets, {p.exact_pairs} pairs of digits, hidden layers {list(p.exact_hidden)}"))

# %%
imperceptible = budgets.index(p.match_eps[0])
run.claim("zou2018.conjecture-decidable", pairs_refuted_by_intervals=int(excluded[:, imperceptible].sum()), pairs_refuted_exactly=int((exact["equal.lower"] > p.match_eps[0]).sum()), pairs_tried_by_intervals=excluded.shape[0], pairs_tried_exactly=p.exact_pairs, smallest_exact_budget=float(exact["equal.lower"].min()))

# %% [markdown]
# So the conjecture deserves a split verdict.
# For a given network, "for any data pair" is decidable wherever a certificate exists, and false there: a single pair suffices, and we find many.
# Where the interval bounds exclude no pair, as they must for deep networks and large $\epsilon$, that shows nothing; the exact programme has no such gap.
# "For most $g$" makes the conjecture immune to any finite number of networks, and "imperceptible" to any number $\epsilon$.
# What is true is weaker and better known: the wrong class is near.
#
# ## Parallel layers
#
# Definition 2 calls a layer parallel if a pair of its decision boundaries is.
# It must mean the boundaries of two different pairs of classes; for two classes there is only one boundary, and the definition is empty.
# We plant parallel pairs in random layers, and pairs that miss by a millionth, and look at the trained layers.

# %%
missed, reported = 0, 0
for trial in range(20):
    w = torch.randn(K, 32, dtype=torch.float64, generator=generator)
    i, j, k, other = torch.randperm(K, generator=generator)[:4].tolist()
    w[i] = w[j] + (0.5 + trial) * (w[k] - w[other])  # i|j parallel to k|other
    wanted_family = tuple(sorted([tuple(sorted((i, j))), tuple(sorted((k, other)))]))
    missed += int(nullspace.parallel_pairs(w) != (wanted_family,))
    w[i] += 1e-6 * torch.randn(32, dtype=torch.float64, generator=generator)
    reported += len(nullspace.parallel_pairs(w))
in_trained = sum(len(nullspace.parallel_pairs(layer(model)[0])) for model in [*zoo.values(), *(member for (width, _), member in family.items() if width > 1)])

# %% tags=["nbval-check-output"]
run.claim("zou2018.def2", planted_pairs_missed=missed, near_parallel_pairs_reported=reported, families_in_trained_layers=in_trained, families_of_two_classes=len(nullspace.parallel_pairs(planted(2, 32, 2))))

# %% [markdown]
# Are adversarial examples between classes that are not adjacent harder to find, as the caption of Figure 1 says?
# We plant the layer and train the network around it: five classes whose weights are $w_k = a_k v$ with fixed $a = (-2, -1, 0, 1, 2)$ and a trained direction $v$, so that all boundaries are parallel and class 0 borders only on class 1.
# The same network with a free last layer is the control.
# Both are attacked towards every class, by PGD on the margin, and the successes sorted by the distance $|i - j|$ of the two classes in the order of the parallel layer.

# %%
ORDERED = 5


class ParallelHead(nn.Module):
    """Scores a_k (h . v) + b_k with fixed equidistant a_k: all decision boundaries are parallel."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.v = nn.Parameter((-1.0) ** torch.arange(width) / width**0.5)  # features are not negative: both signs are needed
        self.bias = nn.Parameter(-0.5 * (torch.arange(classes) - (classes - 1) / 2) ** 2)
        self.register_buffer("steps", torch.arange(classes) - (classes - 1) / 2)

    @property
    def weight(self) -> torch.Tensor:
        return self.steps[:, None] * self.v

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h @ self.weight.T + self.bias


def only(source, classes: int, most: int):
    """The images of the first classes."""
    index = torch.nonzero(source.y < classes)[:, 0][:most]
    return data.ImageData(source.x[index], source.y[index], source.classes[:classes], source.name, source.split, source.sha256)


five, five_test = only(images, ORDERED, p.width_train), only(images_test, ORDERED, p.attack_images)


def ordered_network(kind: str, s: int) -> models.Classifier:
    """A network of five classes with a parallel or a free last layer."""
    model = models.mlp(shape, (64, 32), ORDERED, seed=s)
    if kind == "parallel":
        model = models.with_head(model, ParallelHead(32, ORDERED))
    return fit(model, f"{kind}-{s}", s=s, train=five, lr=p.lr / 2, epochs=2 * p.epochs)


ordered = {(kind, s): ordered_network(kind, s) for kind in ("parallel", "free") for s in run.seeds}


JUDGED = p.parallel_eps[(len(p.parallel_eps) - 1) // 2]


def towards(model, radii: tuple[float, ...], strong: bool) -> dict[str, torch.Tensor]:
    """Success of targeted PGD for every image, target and radius: (radii, targets, images)."""
    x, y = five_test.x.to(run.device), five_test.y.to(run.device)
    shape = (len(radii), ORDERED, len(x))
    # one call for all radii and targets: the images once for each
    eps = torch.tensor(radii, dtype=torch.float64, device=run.device)[:, None, None].expand(shape).reshape(-1)
    target = torch.arange(ORDERED, device=run.device)[None, :, None].expand(shape).reshape(-1)
    settings = {"steps": 2 * p.pgd_steps, "restarts": 3} if strong else {"steps": p.pgd_steps}
    hits = [attacks.pgd(model, x.repeat(len(radii) * ORDERED, 1, 1, 1), target, eps, targeted=True, loss=loss, generator=torch.Generator().manual_seed(seed), **settings).success for loss in (("margin", "ce") if strong else ("margin",))]
    return {"hits": torch.stack(hits).any(0).reshape(shape), "right": model(x).argmax(1) == y}


def success_by_distance(kind: str, s: int, strong: bool = False) -> np.ndarray:
    """Share of correctly classified images led to a class at distance 1, 2, ..., by radius: (radii, distances)."""
    radii = (JUDGED,) if strong else p.parallel_eps
    key = {"model": models.fingerprint(ordered[kind, s]), "eps": radii, "steps": p.pgd_steps, "strong": strong, "images": len(five_test), "data": five_test.sha256, "seed": seed}
    unit = run.unit(f"towards-{kind}-{s}-{'strong' if strong else 'plain'}", key, lambda: towards(ordered[kind, s], radii, strong), code=[towards, attacks])
    apart = (torch.arange(ORDERED)[:, None] - five_test.y).abs()
    return np.array([[float(hits[(apart == step) & unit["right"]].double().mean()) for step in range(1, ORDERED)] for hits in unit["hits"]])


by_distance = {(kind, strong): np.array([success_by_distance(kind, s, strong) for s in run.seeds]) for kind in ("parallel", "free") for strong in (False, True)}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels, parallel and free last layer: success of targeted attacks against the radius, one curve for each distance between the class and the target in the order of the parallel layer."}}
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.5), sharey=True)
for ax, kind in zip(axes, ("parallel", "free"), strict=True):
    for step, (color, style) in enumerate(zip(plots.PALETTE, ("-", "--", ":", "-."), strict=False)):
        plots.band(ax, p.parallel_eps, by_distance[kind, False][:, :, step], label=f"|i - j| = {step + 1}", color=color, style=style)
    mean_accuracy = np.mean([accuracy(ordered[kind, s], five_test) for s in run.seeds])
    ax.set(xlabel=r"$\epsilon$, pixel units", title=f"{kind} last layer, accuracy {mean_accuracy:.2f}", ylim=(-0.03, 1.03))
axes[0].set_ylabel("targeted success")
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# The parallel layer has *more* adversarial directions than the free one: the rank of its centred weights is one, so all but one dimension is invisible.
# If the regions' freedom made adversarial examples, the parallel layer should have the most.
#
# ## The second question: what survives?
#
# Two claims are about robustness: that parallel layers protect classes which are not adjacent, and that adversarial directions are what makes fully connected layers prone to adversarial examples.
# For the second we compare members of the family: $l = 9$ has no adversarial direction, the widest has many, and the rest of the network is the same.

# %%
def pgd_accuracy(model, s: int, name: str) -> float:
    key = {"model": models.fingerprint(model), "eps": p.attack_eps / 2, "steps": p.pgd_steps, "images": len(y), "data": images_test.sha256, "seed": s}
    found = run.unit(f"pgd-{name}-{s}", key, lambda: {"success": attacks.pgd(model, x, y, p.attack_eps / 2, steps=p.pgd_steps, generator=torch.Generator().manual_seed(s)).success}, code=[attacks])
    return float((~found["success"]).double().mean())


x, y = images_test.x[: p.attack_images].to(run.device), images_test.y[: p.attack_images].to(run.device)
NARROW, WIDE = K - 1, p.widths[-1]
robust = {(width, s): pgd_accuracy(model, s, f"width-{width}") for (width, s), model in family.items()}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Clean accuracy and accuracy under PGD against the width of the last layer, with a line where the first adversarial direction appears; there is no step at the line."}}
figure, ax = plt.subplots(figsize=(6.4, 3.4))
plots.band(ax, p.widths, [[accuracy(family[width, s]) for width in p.widths] for s in run.seeds], label="clean", color=plots.PALETTE[0])
plots.band(ax, p.widths, [[robust[width, s] for width in p.widths] for s in run.seeds], label=rf"PGD, $\epsilon$ = {p.attack_eps / 2:g}", color=plots.PALETTE[1], style="--")
ax.axvline(NARROW + 0.5, color="grey", linewidth=0.8)
ax.set(xscale="log", xlabel="l, width of the last layer (right of the line: adversarial directions)", ylabel="accuracy", ylim=(0, 1.02))
ax.set_xticks(p.widths, [str(width) for width in p.widths])
ax.minorticks_off()
ax.legend()
plt.show()

# %% [markdown]
# ### Today's protocol
#
# The same networks under every row of the protocol that the profile's budget grants: noise, FGSM, BIM, PGD with three losses, and from the standard profile on AutoAttack and two black boxes.
# The worst case counts an image as right if no row broke it.

# %%
def under_the_protocol(nets: dict, own, other, images, labels, name: str) -> list[evaluation.Report]:
    """Reports of the networks `nets[own, s]` for the first seeds, with `nets[other, s]` as the peer for transfer."""
    budget = evaluation.BUDGETS[p.protocol_budget]
    return [evaluation.evaluate(nets[own, s], images, labels, p.attack_eps / 2, budget=budget, peer=nets[other, s], seed=s, unit=run.unit, name=f"{name}-{s}") for s in run.seeds[: p.protocol_seeds]]


x_five, y_five = five_test.x.to(run.device), five_test.y.to(run.device)
reports = {
    f"l = {NARROW}": under_the_protocol(family, NARROW, WIDE, x, y, "narrow"), f"l = {WIDE}": under_the_protocol(family, WIDE, NARROW, x, y, "wide"),
    "parallel": under_the_protocol(ordered, "parallel", "free", x_five, y_five, "parallel"), "free": under_the_protocol(ordered, "free", "parallel", x_five, y_five, "free"),
}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Accuracy of the narrow, wide, parallel and free networks under each row of the protocol, and the numbers behind each flag."}}
plots.protocol(reports)
plt.show()

# %% tags=["hide-input"]
display(evaluation.compare(reports).style.format("{:.2f}", na_rep="not run").set_caption(rf"Accuracy at eps = {p.attack_eps / 2:g}, mean over runs (the last two on five classes)"))
display(evaluation.compare_flags(reports).style.set_caption("Signs of masked gradients"))

# %%
judged = p.parallel_eps.index(JUDGED)
apart = {(kind, strong): found[:, 0 if strong else judged, 1:].mean(1).tolist() for (kind, strong), found in by_distance.items()}
worst = {name: [report.accuracy() for report in group] for name, group in reports.items()}
run.claim(
    "zou2018.fig1-right",
    adjacent_success=by_distance["parallel", False][:, judged, 0].tolist(), distant_success=apart["parallel", False], free_distant_success=apart["free", False], free_adjacent_success=by_distance["free", False][:, judged, 0].tolist(),
    modern={"free_distant_success_strong": apart["free", True], "distant_success_strong": apart["parallel", True], "parallel_worst_accuracy": worst["parallel"], "free_worst_accuracy": worst["free"]},
)
run.claim(
    "zou2018.significance",
    narrow_pgd_accuracy=[robust[NARROW, s] for s in run.seeds], wide_pgd_accuracy=[robust[WIDE, s] for s in run.seeds],
    modern={"narrow_worst_accuracy": worst[f"l = {NARROW}"], "wide_worst_accuracy": worst[f"l = {WIDE}"]},
)

# %% [markdown]
# ## What did not reproduce, and why
#
# The table collects the verdicts of this run.

# %% tags=["hide-input"]
run.show_verdicts()

# %% [markdown]
# The theorems hold, and one dimension is added to the first.
# What fails is the step from them to adversarial examples.
#
# An invisible direction is one along which nothing happens, so no attack can use it.
# Nor do trained features make much use of the room that is left to them: compare the shares of the features, and of the shifts that attacks cause, with that of a random direction.
#
# The number of invisible dimensions and the reach of the regions are separate matters, too.
# Regions are unbounded because weights lie at the corners of their hull, with or without an invisible subspace.
# And a last layer without one ($l = m - 1$) is no harder to attack than a wide one.
#
# The caption of Figure 1 is right about parallel layers: classes that are not adjacent are harder to reach from each other, also than in a free layer.
# The price is paid by the neighbours, and the network as a whole falls to smaller budgets than the free one.
# In a parallel layer nearly everything is invisible, so whatever protects its distant classes, it is not a lack of adversarial directions.
#
# The conjecture joins two statements of very different strength.
# The wrong class is near, as many chapters of this book show.
# Equal outputs are not, and where the network is small enough the distance between the two is exact.
#
# What this chapter does not settle: networks with a million hidden units lie beyond exact programmes and interval bounds, so that for them the conjecture is refuted at no $\epsilon$ that matters, and supported at none.
# The longer version with full proofs that the abstract points to is no longer at its address.

# %% tags=["hide-input"]
run.finish()
