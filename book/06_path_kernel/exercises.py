# %% [markdown]
# # Exercises: The path kernel

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # the exercises have this profile only
seed: int = 0
device: str = "cpu"
overrides: dict = {}

# %% tags=["hide-input"]
from torch import nn

from support import data, models, path_kernel
from support.book import chapter_run
from support.models import heads

run = chapter_run.start("06_path_kernel/exercises", profile, seed, device, overrides)

# %% [markdown]
# ## Graded exercises
#
# The first seven are graded: each asks for one function, which the tests call at points that they draw themselves.
# They need no result of this chapter's cells, only its ideas.

# %% tags=["assignment", "hide-input"]
import torch


# %% tags=["assignment", "hide-input"]
def square_model(w, x):
    """(N, 1) scores that are quadratic in the weights w (P,), of inputs x (N, 1)."""
    return x * w.square().sum()


def tiny_scores(w, x):
    """(N, 2) scores of a small tanh network of the plane, 2 - 4 - 2 without biases, at
    its flat weights w (16,); float64.
    """
    return torch.tanh(x @ w[:8].reshape(4, 2).T) @ w[8:].reshape(2, 4).T


# %% tags=["assignment-parameters", "hide-input"]
SEED = 0

# %% [markdown] exercise="by-hand"
# ```{exercise-start} A kernel value by hand
# :label: ex-path-by-hand
# ```
# A network of two linear layers has the score $f_w(x) = v^\top U x$ with weights $w = (U, v)$, $U \in \mathbb{R}^{h \times d}$ and $v \in \mathbb{R}^h$.
# One training step moves *all* weights from $w_0 = (U_0, v_0)$ to $w_1 = (U_1, v_1)$, on the straight line $w(t) = w_0 + t\,(w_1 - w_0)$.
# The path kernel of the step is
#
# $$k(x, x') = \int_0^1 \left\langle \nabla_w f_{w(t)}(x),\ \nabla_w f_{w_0}(x') \right\rangle dt .$$
#
# Work the integral out, and write `step_kernel(u0, v0, u1, v1, xq, x)`, which returns the kernel of the queries `xq` (N, d) with the training points `x` (M, d) as an (N, M) tensor.
# The weights have the shapes (h, d) and (h,).
# Your function holds a closed form: no loop over nodes, no automatic derivative.
#
# The visible test has $h = d = 1$, where you can do everything on paper; the hidden ones have matrices, and ask whether a gradient step is explained to rounding.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="by-hand"
# ```{solution-start} ex-path-by-hand
# :class: dropdown
# ```
# The gradient with respect to $U$ is the matrix $v x^\top$, the one with respect to $v$ is the vector $U x$.
# Both are linear in the weights, so their averages over the step are their values at its middle, $\bar U = (U_0 + U_1)/2$ and $\bar v = (v_0 + v_1)/2$.
# The inner product of two matrices $v x^\top$ and $v' x'^\top$ is $(v^\top v')(x^\top x')$, hence
#
# $$k(x, x') = (\bar v^\top v_0)(x^\top x') + (\bar U x)^\top (U_0 x') .$$
#
# Only the first argument is averaged: the training point was looked at before the step.


# %% tags=["solution"] exercise="by-hand"
def step_kernel(u0, v0, u1, v1, xq, x):
    """Path kernel (N, M) of one step of f(x) = v . U x, from weights u0 (h, d) and
    v0 (h,) to u1 and v1.
    """
    ### BEGIN SOLUTION
    u, v = (u0 + u1) / 2, (v0 + v1) / 2
    return (v @ v0) * (xq @ x.T) + (xq @ u.T) @ (x @ u0.T).T
    ### END SOLUTION


# %% tags=["tests"] exercise="by-hand" points=1
start_u, start_v, end_u, end_v, query_, input_ = torch.tensor(
    [1.0, 2.0, 2.0, 6.0, 3.0, 5.0], dtype=torch.float64
)[:, None]
found = step_kernel(
    start_u[None], start_v, end_u[None], end_v, query_[None], input_[None]
)
assert found.shape == (1, 1), "one query and one training point make a (1, 1) kernel"
assert float(found) != 75, (
    "75 has the weights of the start in both places: the first "
    "argument is averaged over the step"
)
assert abs(float(found) - 142.5) < 1e-9, (
    "on paper: v goes from 2 to 6 and u from 1 to 2, so k = (4 * 2 + 1.5 * 1) * 3 * 5"
)

# %% tags=["hidden-tests"] exercise="by-hand" points=2
# Criterion: the kernel is the average over the step, for any number of units and inputs
draw = torch.Generator().manual_seed(SEED + 1)
a0, b0, da, db, queries_, inputs_ = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((3, 4), (3,), (3, 4), (3,), (5, 4), (6, 4))
)


def flat_gradients(a, b, z):
    """(N, P) gradients of b . a z by automatic differentiation."""
    by_a, by_b = torch.func.jacrev(lambda a, b: z @ a.T @ b, (0, 1))(a, b)
    return torch.cat([by_a.flatten(1), by_b], 1)


averaged_ = (
    sum(
        flat_gradients(a0 + t * da, b0 + t * db, queries_)
        for t in (torch.arange(8) + 0.5) / 8
    )
    / 8
)
wanted = averaged_ @ flat_gradients(a0, b0, inputs_).T
found = step_kernel(a0, b0, a0 + da, b0 + db, queries_, inputs_)
assert found.shape == (5, 6), (
    "queries along the first axis, training points along the second"
)
assert torch.allclose(found, wanted, atol=1e-9), (
    "the kernel is not the average of the inner products over the step"
)

# %% tags=["hidden-tests"] exercise="by-hand" points=1
# Criterion: kernel and loss slopes add up to the change of the scores
draw = torch.Generator().manual_seed(SEED + 2)
a0, b0, inputs_, aims = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((4, 3), (4,), (7, 3), (7,))
)
slopes_ = inputs_ @ a0.T @ b0 - aims  # of half the squared error
a1 = a0 - 0.1 * torch.outer(b0, slopes_ @ inputs_)
b1 = b0 - 0.1 * (slopes_ @ inputs_ @ a0.T)
queries_ = torch.cat([inputs_, torch.randn(4, 3, generator=draw, dtype=torch.float64)])
change_ = queries_ @ a1.T @ b1 - queries_ @ a0.T @ b0
assert torch.allclose(
    step_kernel(a0, b0, a1, b1, queries_, inputs_) @ (-0.1 * slopes_),
    change_,
    atol=1e-9,
), "the kernel machine misses the step, on the training points or off them"

# %% [markdown] tags=["solution-text"] exercise="by-hand"
# ```{solution-end}
# ```

# %% [markdown] exercise="crossing"
# ```{exercise-start} The unit that switches
# :label: ex-path-crossing
# ```
# At the place $t \in [0, 1]$ of a training step a ReLU unit has the pre-activation $z + t\,\delta$; it is *on* where that is positive.
# The exact path kernel of a network with one hidden ReLU layer needs, of each unit, the two moments
#
# $$m_k = \int_0^1 \mathbb{1}[z + t\,\delta > 0]\; t^k\, dt, \qquad k = 0, 1;$$
#
# the average of the unit's output, for example, is $z\, m_0 + \delta\, m_1$.
# Write `switch_moments(z, delta)`, which takes two float64 tensors of one shape and returns the pair $(m_0, m_1)$ in that shape, exact to rounding, for every sign of $z$ and $\delta$.
# The tests hold units that stay on, stay off, switch on, switch off, stand still ($\delta = 0$) or begin on the kink ($z = 0$).
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="crossing"
# ```{solution-start} ex-path-crossing
# :class: dropdown
# ```
# The pre-activation is linear in $t$, so the unit is on in one interval $(l, h)$, and $m_0 = h - l$, $m_1 = (h^2 - l^2)/2$.
# Let $\tau$ be the zero $-z/\delta$, moved into $[0, 1]$.
# A growing pre-activation makes $(\tau, 1)$, a falling one $(0, \tau)$, and one that stands still everything or nothing.
# The 100 points of the text, read as left points, count $\lceil 100\,\tau \rceil / 100$ in place of $\tau$ for a unit that switches off: an error of up to one hundredth, however small the step is.


# %% tags=["solution"] exercise="crossing"
def switch_moments(z, delta):
    """The integrals over t in [0, 1] of 1[z + t delta > 0] and of t times it, both in
    the shape of z.
    """
    ### BEGIN SOLUTION
    still = delta == 0
    turn = (-z / torch.where(still, 1.0, delta)).clamp(0, 1)
    low = torch.where(delta > 0, turn, 0.0)
    high = torch.where(delta < 0, turn, 1.0)
    high = torch.where(still & (z <= 0), 0.0, high)
    return high - low, (high.square() - low.square()) / 2
    ### END SOLUTION


# %% tags=["tests"] exercise="crossing" points=1
zeroth, first_ = switch_moments(
    torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64),
    torch.tensor([-4.0, 2.0, 0.5], dtype=torch.float64),
)
assert torch.allclose(
    zeroth, torch.tensor([0.25, 1.0, 0.0], dtype=torch.float64), atol=1e-12
), "m_0 is the share of the step in which the unit is on"
assert torch.allclose(
    first_, torch.tensor([0.03125, 0.5, 0.0], dtype=torch.float64), atol=1e-12
), "m_1 of a unit that is on up to t = 1/4 is the integral of t from 0 to 1/4"

# %% tags=["hidden-tests"] exercise="crossing" points=2
# Criterion: both moments are right for units that switch on, off, or not at all
draw = torch.Generator().manual_seed(SEED + 3)
pre = torch.randn(40, 50, generator=draw, dtype=torch.float64)
shift_ = torch.randn(40, 50, generator=draw, dtype=torch.float64) * 3
shift_ = torch.where(shift_.abs() < 0.05, 0.05, shift_)
before_, after_ = pre.clamp_min(0), (pre + shift_).clamp_min(0)
zeroth, first_ = switch_moments(pre, shift_)
assert zeroth.shape == first_.shape == pre.shape, "the shape of z"
assert torch.allclose(zeroth, (after_ - before_) / shift_, atol=1e-10), (
    "m_0 times delta is the change of max(z + t delta, 0): "
    "does your unit also switch on?"
)
assert torch.allclose(
    pre * zeroth + shift_ * first_,
    (after_.square() - before_.square()) / (2 * shift_),
    atol=1e-10,
), "z m_0 + delta m_1 is not the average output"

# %% tags=["hidden-tests"] exercise="crossing" points=1
# Criterion: units that stand still or begin at the kink are treated rightly
pre = torch.tensor([0.7, -0.7, 0.0, 0.0, 0.0, 2.0, -2.0], dtype=torch.float64)
shift_ = torch.tensor([0.0, 0.0, 0.0, 1.5, -1.5, 1e-320, -1e-320], dtype=torch.float64)
zeroth, first_ = switch_moments(pre, shift_)
assert torch.equal(
    zeroth, torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
), "a unit that stands still, or begins on the kink"
assert torch.equal(first_, zeroth / 2), (
    "m_1 of a unit that is on all the way is one half"
)

# %% [markdown] tags=["solution-text"] exercise="crossing"
# ```{solution-end}
# ```

# %% [markdown] exercise="blocks"
# ```{exercise-start} A block of the tangent kernel
# :label: ex-path-blocks
# ```
# A network with two hidden layers and $K$ scores is $f(x) = V \tanh(W \tanh(U x))$, with $U \in \mathbb{R}^{h_1 \times d}$, $W \in \mathbb{R}^{h_2 \times h_1}$ and $V \in \mathbb{R}^{K \times h_2}$.
# The tangent kernel of two points is the $K \times K$ matrix
#
# $$\Theta_{jk}(x, x') = \left\langle \nabla f_j(x),\ \nabla f_k(x') \right\rangle ,$$
#
# where the gradients hold the derivatives with respect to all entries of $U$, $W$ and $V$.
# No gradient needs to be formed: the one of a score with respect to a weight matrix is an outer product, of what flows back to the layer and what comes into it, and the inner product of two outer products is a product of two numbers.
# Use this to write `tangent_blocks(u, w, v, x1, x2)`, which returns the blocks of the points `x1` (N, d) and `x2` (M, d) as an (N, M, K, K) tensor, index $j$ before index $k$.
#
# The visible test has $V = 0$, where one layer's share is left; the hidden one compares with automatic differentiation.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="blocks"
# ```{solution-start} ex-path-blocks
# :class: dropdown
# ```
# Let $a_1 = \tanh(Ux)$ and $a_2 = \tanh(W a_1)$.
# Row $j$ of the matrices $B_3 = I$, $B_2 = V \operatorname{diag}(1 - a_2^2)$ and $B_1 = B_2 W \operatorname{diag}(1 - a_1^2)$ is what flows back from score $j$ to the three layers, whose inputs are $a_2$, $a_1$ and $x$.
# So
#
# $$\Theta(x, x') = (a_2^\top a_2')\, I + (a_1^\top a_1')\, B_2 B_2'^\top + (x^\top x')\, B_1 B_1'^\top .$$
#
# The last term is not symmetric in $j$ and $k$: the block of $(x', x)$ is the transpose.


# %% tags=["solution"] exercise="blocks"
def tangent_blocks(u, w, v, x1, x2):
    """Tangent kernel (N, M, K, K) of v tanh(w tanh(u x)), x1 (N, d), x2 (M, d)."""

    ### BEGIN SOLUTION
    def layers(x):
        """What comes into each layer (N, inputs), flows back to it (N, K, outputs)."""
        a1 = torch.tanh(x @ u.T)
        a2 = torch.tanh(a1 @ w.T)
        b3 = torch.eye(len(v), dtype=x.dtype).expand(len(x), -1, -1)
        b2 = v * (1 - a2.square())[:, None, :]
        b1 = b2 @ w * (1 - a1.square())[:, None, :]
        return (x, b1), (a1, b2), (a2, b3)

    pairs = zip(layers(x1), layers(x2), strict=True)
    return sum(
        torch.einsum("na,ma,nji,mki->nmjk", a, other_a, b, other_b)
        for (a, b), (other_a, other_b) in pairs
    )
    ### END SOLUTION


# %% tags=["tests"] exercise="blocks" points=1
draw = torch.Generator().manual_seed(SEED + 4)
u_, w_, one_side, other_side = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((5, 2), (4, 5), (3, 2), (6, 2))
)
found = tangent_blocks(
    u_, w_, torch.zeros(3, 4, dtype=torch.float64), one_side, other_side
)
into_last = [torch.tanh(torch.tanh(z @ u_.T) @ w_.T) for z in (one_side, other_side)]
assert found.shape == (3, 6, 3, 3), (
    "(N, M, K, K): one 3 x 3 block for each of the 3 x 6 pairs"
)
assert torch.allclose(
    found.diagonal(dim1=2, dim2=3),
    (into_last[0] @ into_last[1].T)[:, :, None].expand(3, 6, 3),
), (
    "V = 0 leaves the last layer's share: the inner "
    "product of its inputs, for each score"
)
assert (
    float((found - torch.diag_embed(found.diagonal(dim1=2, dim2=3))).abs().max()) == 0
), "a score's gradient has nothing in another score's row of V"

# %% tags=["hidden-tests"] exercise="blocks" points=4
# Criterion: all blocks agree with automatic differentiation, each the right way round
draw = torch.Generator().manual_seed(SEED + 5)
u_, w_, v_, one_side, other_side = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((5, 2), (4, 5), (3, 4), (3, 2), (6, 2))
)


def all_gradients(z):
    """(N, K, P) by automatic differentiation."""
    parts = torch.func.jacrev(
        lambda u, w, v: torch.tanh(torch.tanh(z @ u.T) @ w.T) @ v.T, (0, 1, 2)
    )(u_, w_, v_)
    return torch.cat([part.flatten(2) for part in parts], 2)


wanted = torch.einsum(
    "njp,mkp->nmjk", all_gradients(one_side), all_gradients(other_side)
)
found = tangent_blocks(u_, w_, v_, one_side, other_side)
assert not torch.allclose(found, wanted.mT, atol=1e-8), (
    "the blocks are transposed: the first index of a block belongs to x1"
)
assert torch.allclose(
    found.diagonal(dim1=2, dim2=3), wanted.diagonal(dim1=2, dim2=3), atol=1e-8
), "the diagonals of the blocks are wrong"
assert torch.allclose(found, wanted, atol=1e-8), (
    "different scores share the hidden layers: the blocks are full"
)

# %% [markdown] tags=["solution-text"] exercise="blocks"
# ```{solution-end}
# ```

# %% [markdown] exercise="jump"
# ```{exercise-start} What the left points miss
# :label: ex-path-jump
# ```
# On a step from the weights $w$ to $w + \Delta$ let $\varphi(t) = f_{w + t\Delta}(x)$, so that the scores change by $\varphi(1) - \varphi(0)$.
# The rule of $n$ left points puts
#
# $$\frac1n \sum_{j=0}^{n-1} \varphi'(j/n)$$
#
# in its place; for $n = 1$ this is the symmetric kernel on the training set.
# The *residual* is the rule minus the true change.
# Find its leading term for small $\Delta$, which is of second order in $\Delta$, and write `left_residual(scores, w, dw, x, nodes)`, which returns that term, (N, K).
# Here `scores(w, x)` is a differentiable function of flat weights `w` (P,) and inputs `x` (N, d), `dw` is $\Delta$ and `nodes` is $n$; `torch.func.jvp(function, (w,), (dw,))` returns the pair of a function's value and its derivative along `dw`.
#
# The tests have a model that is quadratic in its weights, for which the leading term is all there is, and a tanh network, where what you leave out must be of third order, and what you return must grow by exactly 4 as $\Delta$ doubles.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="jump"
# ```{solution-start} ex-path-jump
# :class: dropdown
# ```
# On a piece of length $h = 1/n$ the rule takes $h\,\varphi'(t)$ for $\varphi(t + h) - \varphi(t) = h\,\varphi'(t) + \tfrac{h^2}{2} \varphi''(t) + \dots$, and misses $-\tfrac{h^2}{2}\varphi''(t)$.
# There are $n$ pieces, and $\varphi''$ changes in third order only, so the residual is
#
# $$-\frac{1}{2n}\, \varphi''(0) = -\frac{1}{2n}\, \Delta^\top \nabla^2 f_w(x)\, \Delta ,$$
#
# one entry for each score.
# A hundred points make the jump a hundred times smaller; one Gauss-Legendre node, at the middle, removes this term altogether.


# %% tags=["solution"] exercise="jump"
def left_residual(scores, w, dw, x, nodes):
    """Leading term (N, K) of (left rule - true change) on the step from w (P,) to w +
    dw, with this number of left points.
    """

    ### BEGIN SOLUTION
    def slope(weights):
        """Derivative of the scores along the step, at some weights."""
        return torch.func.jvp(lambda one: scores(one, x), (weights,), (dw,))[1]

    return -torch.func.jvp(slope, (w,), (dw,))[1] / (2 * nodes)
    ### END SOLUTION


# %% tags=["tests"] exercise="jump" points=1
places_ = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
found = left_residual(
    square_model,
    torch.tensor([1.0], dtype=torch.float64),
    torch.tensor([0.5], dtype=torch.float64),
    places_,
    1,
)
assert found.shape == (2, 1), "one residual for each input and score"
assert torch.allclose(found, -0.25 * places_), (
    "f = w^2 x from w = 1 to 1.5: the rule says 2 * 0.5 x, the truth is (1.5^2 "
    "- 1) x, and the residual is the rule minus the truth"
)

# %% tags=["hidden-tests"] exercise="jump" points=1
# Criterion: the residual is right for any number of left points
draw = torch.Generator().manual_seed(SEED + 6)
w_, dw_, places_ = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((3,), (3,), (4, 1))
)
for count_ in (1, 2, 7, 100):
    rule_ = (
        sum(2 * places_ * ((w_ + j / count_ * dw_) @ dw_) for j in range(count_))
        / count_
    )
    truth_ = square_model(w_ + dw_, places_) - square_model(w_, places_)
    assert torch.allclose(
        left_residual(square_model, w_, dw_, places_, count_), rule_ - truth_, atol=1e-9
    ), f"with {count_} left points"

# %% tags=["hidden-tests"] exercise="jump" points=2
# Criterion: the leading term is quadratic in the step, and the error behind it is cubic
draw = torch.Generator().manual_seed(SEED + 7)
w_, dw_, places_ = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((16,), (16,), (5, 2))
)
half, whole = (
    left_residual(tiny_scores, w_, size * dw_, places_, 3) for size in (0.01, 0.02)
)
assert half.shape == (5, 2) and float(half.abs().max()) > 1e-6, (
    "each score has its own residual"
)
assert torch.allclose(whole, 4 * half, rtol=1e-9, atol=1e-14), (
    "the leading term is exactly quadratic in the step"
)
missed = []
for size in (0.01, 0.02):
    rule_ = (
        sum(
            torch.func.jvp(
                lambda w: tiny_scores(w, places_),
                (w_ + j / 3 * size * dw_,),
                (size * dw_,),
            )[1]
            for j in range(3)
        )
        / 3
    )
    truth_ = tiny_scores(w_ + size * dw_, places_) - tiny_scores(w_, places_)
    missed.append(
        float(
            (
                left_residual(tiny_scores, w_, size * dw_, places_, 3)
                - (rule_ - truth_)
            ).norm()
        )
    )
assert 6 < missed[1] / missed[0] < 10, (
    "what is left out should grow by 8 as the step doubles"
)

# %% [markdown] tags=["solution-text"] exercise="jump"
# ```{solution-end}
# ```

# %% [markdown] exercise="momentum"
# ```{exercise-start} Momentum remembers
# :label: ex-path-momentum
# ```
# Training with momentum $\mu$ and step size $\varepsilon$ keeps a velocity: it starts at $u_0 = 0$, and for $s = 0, \dots, S - 1$
#
# $$u_{s+1} = \mu\, u_s + \sum_{i=1}^{M} J_s(x_i)^\top g_{i,s}, \qquad w_{s+1} = w_s - \varepsilon\, u_{s+1} ,$$
#
# where $J_s(x)$ is the $K \times P$ Jacobian of the scores at the weights $w_s$ and $g_{i,s}$ the gradient of the loss at the scores of training point $i$.
# Write $A_s(x)$ for the Jacobian averaged over the straight line from $w_s$ to $w_{s+1}$, so that $f_{w_{s+1}}(x) - f_{w_s}(x) = A_s(x)\,(w_{s+1} - w_s)$.
# A training point that was seen at step $r$ pushes in *every* step from $r$ on.
#
# Derive what each training point has added to the scores of a query at the end, and write `momentum_contributions(averaged, jacobians, slopes, epsilon, mu)`, which returns it as an (N, M, K) tensor.
# The arguments are $A_s$ of the queries, (S, N, K, P), $J_s$ of the training points, (S, M, K, P), and $g_{i,s}$, (S, M, K).
# The tests ask for the contributions of single gradients, and whether all of them add up to $f_{w_S} - f_{w_0}$ on a real run.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="momentum"
# ```{solution-start} ex-path-momentum
# :class: dropdown
# ```
# The velocity is $u_{s+1} = \sum_{r \le s} \mu^{s-r} \sum_i J_r(x_i)^\top g_{i,r}$, so the scores of $x$ change by $-\varepsilon \sum_s A_s(x) \sum_{r \le s} \mu^{s-r} \sum_i J_r(x_i)^\top g_{i,r}$ in all.
# Exchange the sums: point $i$ adds
#
# $$-\varepsilon \sum_{r} \Big( \sum_{s \ge r} \mu^{s-r} A_s(x) \Big) J_r(x_i)^\top g_{i,r} .$$
#
# The bracket is built from the last step back, $T_r = A_r + \mu\, T_{r+1}$.
# The factor $1/(1 - \mu)$ of a long run with constant gradients is not exact: the last steps have not pushed to the end.


# %% tags=["solution"] exercise="momentum"
def momentum_contributions(averaged, jacobians, slopes, epsilon, mu):
    """What each training point adds to the scores of each query, (N, M, K), over a run
    with momentum mu and steps of size epsilon.
    """
    ### BEGIN SOLUTION
    tail, total = torch.zeros_like(averaged[0]), 0.0
    for s in reversed(range(len(averaged))):
        tail = averaged[s] + mu * tail
        total = total - epsilon * torch.einsum(
            "nkp,mcp,mc->nmk", tail, jacobians[s], slopes[s]
        )
    return total
    ### END SOLUTION


# %% tags=["tests"] exercise="momentum" points=1
draw = torch.Generator().manual_seed(SEED + 8)
mean_, seen, loss_ = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((3, 2, 2, 5), (3, 4, 2, 5), (3, 4, 2))
)
found = momentum_contributions(mean_, seen, loss_, 0.1, 0.0)
assert found.shape == (2, 4, 2), "(N, M, K)"
assert torch.allclose(
    found, -0.1 * torch.einsum("snkp,smcp,smc->nmk", mean_, seen, loss_)
), (
    "without momentum each step stands for itself, with a "
    "minus sign and all pairs of scores"
)

# %% tags=["hidden-tests"] exercise="momentum" points=2
# Criterion: a gradient pushes its own and all later steps, and no earlier one
draw = torch.Generator().manual_seed(SEED + 9)
mean_, seen, loss_ = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((4, 2, 3, 6), (4, 5, 3, 6), (4, 5, 3))
)
for seen_at in range(4):
    single = torch.zeros_like(loss_)
    single[seen_at, 2] = loss_[seen_at, 2]
    pushed_by = sum(0.7 ** (s - seen_at) * mean_[s] for s in range(seen_at, 4))
    found = momentum_contributions(mean_, seen, single, 0.2, 0.7)
    assert torch.allclose(
        found[:, 2],
        -0.2 * pushed_by @ (seen[seen_at, 2].T @ single[seen_at, 2]),
        atol=1e-10,
    ), f"a gradient that was seen at step {seen_at} of 0 to 3"
    assert float(found[:, [0, 1, 3, 4]].abs().max()) == 0, (
        "the other points added nothing"
    )

# %% tags=["hidden-tests"] exercise="momentum" points=2
# Criterion: the contributions add up to the change of the scores in training
draw = torch.Generator().manual_seed(SEED + 10)
w_, velocity = torch.randn(16, generator=draw, dtype=torch.float64), 0.0
inputs_, queries_ = (
    torch.randn(6, 2, generator=draw, dtype=torch.float64),
    torch.randn(3, 2, generator=draw, dtype=torch.float64),
)
aims, begin = (
    torch.eye(2, dtype=torch.float64)[torch.arange(6) % 2],
    tiny_scores(w_, queries_),
)
gauss_nodes = [(0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18)]
mean_, seen, loss_ = [], [], []
for _ in range(6):
    seen.append(torch.func.jacrev(tiny_scores)(w_, inputs_))
    loss_.append(tiny_scores(w_, inputs_).softmax(1) - aims)
    velocity = 0.8 * velocity + torch.einsum("mkp,mk->p", seen[-1], loss_[-1])
    mean_.append(
        sum(
            share_ * torch.func.jacrev(tiny_scores)(w_ - t * 0.02 * velocity, queries_)
            for t, share_ in gauss_nodes
        )
    )
    w_ = w_ - 0.02 * velocity
found = momentum_contributions(
    torch.stack(mean_), torch.stack(seen), torch.stack(loss_), 0.02, 0.8
)
assert torch.allclose(found.sum(1), tiny_scores(w_, queries_) - begin, atol=1e-6), (
    "the contributions do not add up to the change of the scores"
)

# %% [markdown] tags=["solution-text"] exercise="momentum"
# ```{solution-end}
# ```

# %% [markdown] exercise="decay"
# ```{exercise-start} Weight decay forgets
# :label: ex-path-decay
# ```
# Without weight decay the start $f_{w_0}(x)$ stays in the representation for ever.
# With it, it does not.
# Take the linear model $f_w(x) = w^\top x$, the loss $\tfrac12 \sum_i (f_w(x_i) - y_i)^2$ and the steps
#
# $$w_{s+1} = w_s - \varepsilon \Big( \sum_{i=1}^{M} g_{i,s}\, x_i + \lambda\, w_s \Big), \qquad g_{i,s} = f_{w_s}(x_i) - y_i .$$
#
# Show that the score after $S$ steps is $f_{w_S}(x) = c\, f_{w_0}(x) + \sum_i A_i(x)$, where the number $c$ depends on $\varepsilon$, $\lambda$ and $S$ alone, and $A_i(x)$ is what the gradients of point $i$ have added *and decay has left of it*.
# Write `decayed(w0, x, y, xq, epsilon, decay, steps)`, which returns the pair $c\, f_{w_0}$, (N,), and $A_i$, (N, M), at the queries `xq` (N, d).
# The arguments are the weights `w0` (d,), the training points `x` (M, d) with targets `y` (M,), the numbers $\varepsilon$, $\lambda$ and $S$.
# The tests ask for both parts, not only for their sum.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="decay"
# ```{solution-start} ex-path-decay
# :class: dropdown
# ```
# With $\rho = 1 - \varepsilon\lambda$ a step is $w_{s+1} = \rho\, w_s - \varepsilon \sum_i g_{i,s} x_i$.
# Unrolled, $w_S = \rho^S w_0 - \varepsilon \sum_s \rho^{S-1-s} \sum_i g_{i,s}\, x_i$: the gradient of the last step has not decayed at all, the one of the first step $S - 1$ times.
# So $c = \rho^S$ and $A_i(x) = -\varepsilon \sum_s \rho^{S-1-s} g_{i,s}\, x_i^\top x$.
# For any network the extra term is $-\varepsilon\lambda \sum_s A_s(x)\, w_s$ with the averaged Jacobian $A_s$; only for models that are linear in their weights does it become such a discount.
# A start that ceases to matter is a fact about weight decay, and not about long training.


# %% tags=["solution"] exercise="decay"
def decayed(w0, x, y, xq, epsilon, decay, steps):
    """What is left of the start (N,), and what each training point has added (N, M),
    to the scores of xq after these steps.
    """
    ### BEGIN SOLUTION
    keep = 1 - epsilon * decay
    w, total = w0, torch.zeros_like(y)  # total of each point: its gradients, discounted
    for _ in range(steps):
        slopes = x @ w - y
        total = keep * total - epsilon * slopes
        w = keep * w - epsilon * slopes @ x
    return keep**steps * (xq @ w0), (xq @ x.T) * total
    ### END SOLUTION


# %% tags=["tests"] exercise="decay" points=1
inputs_, aims = (
    torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64),
    torch.tensor([3.0, 0.0], dtype=torch.float64),
)
left_, added = decayed(
    torch.tensor([1.0, 1.0], dtype=torch.float64),
    inputs_,
    aims,
    torch.tensor([[1.0, 1.0]], dtype=torch.float64),
    0.1,
    0.5,
    1,
)
assert left_.shape == (1,) and added.shape == (1, 2), (
    "one number of the start for each query, one of each training point"
)
assert torch.allclose(left_, torch.tensor([1.9], dtype=torch.float64)), (
    "one step keeps 1 - 0.1 * 0.5 of the start, which is 2 at this query"
)
assert torch.allclose(added, torch.tensor([[0.2, -0.4]], dtype=torch.float64)), (
    "the loss gradients are -2 and 2; their step has not decayed yet"
)

# %% tags=["hidden-tests"] exercise="decay" points=1
# Criterion: the two parts add up to the score
draw = torch.Generator().manual_seed(SEED + 11)
w_, inputs_, aims, queries_ = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((3,), (5, 3), (5,), (4, 3))
)
for rate_, lam, count_ in ((0.05, 0.8, 2), (0.05, 0.8, 9), (0.02, 0.0, 30)):
    after_ = w_
    for _ in range(count_):
        after_ = after_ - rate_ * ((inputs_ @ after_ - aims) @ inputs_ + lam * after_)
    left_, added = decayed(w_, inputs_, aims, queries_, rate_, lam, count_)
    assert torch.allclose(left_ + added.sum(1), queries_ @ after_, atol=1e-9), (
        f"the parts do not add up to the score after {count_} steps"
    )

# %% tags=["hidden-tests"] exercise="decay" points=2
# Criterion: what is left of the start, and what each point adds, decay as they should
draw = torch.Generator().manual_seed(SEED + 15)
w_, inputs_, aims, queries_ = (
    torch.randn(size, generator=draw, dtype=torch.float64)
    for size in ((3,), (5, 3), (5,), (4, 3))
)
for rate_, lam, count_ in (
    (0.05, 0.8, 2),
    (0.05, 0.8, 9),
    (0.02, 0.0, 30),
    (0.1, 10.0, 4),
):
    after_, parts_ = (
        w_,
        torch.zeros(5, 3, dtype=torch.float64),
    )  # each point's share of the weights, carried along by itself
    for _ in range(count_):
        slopes_ = inputs_ @ after_ - aims
        after_ = after_ - rate_ * (slopes_ @ inputs_ + lam * after_)
        parts_ = parts_ - rate_ * (slopes_[:, None] * inputs_ + lam * parts_)
    left_, added = decayed(w_, inputs_, aims, queries_, rate_, lam, count_)
    assert torch.allclose(
        left_, (1 - rate_ * lam) ** count_ * (queries_ @ w_), atol=1e-9
    ), "what is left of the start"
    assert torch.allclose(added, queries_ @ parts_.T, atol=1e-9), (
        "what a point adds decays in the steps after it, and not in its own"
    )

# %% [markdown] tags=["solution-text"] exercise="decay"
# ```{solution-end}
# ```

# %% [markdown] exercise="one-machine"
# ```{exercise-start} One kernel machine
# :label: ex-path-one-machine
# ```
# The representation of a trained network with one score is a sum over steps, $f(x) = \sum_{s} \sum_{i} a_{s,i}\, k_s(x, x_i)$.
# It is *one* kernel machine, $f(x) = \sum_i \alpha_i K(x, x_i)$ with a symmetric, positive semi-definite $K$, where the weights factor: $a_{s,i} = c_s\, \alpha_i$ with numbers $c_s$ that do not have both signs.
# Weights whose signs do not change from step to step are not enough.
#
# Write `single_machine(kernels, weights)`, which takes the values of symmetric, positive semi-definite kernels at $M$ training points, (S, M, M), and the weights $a_{s,i}$, (S, M), and returns the pair $\alpha$, (M,), and $K$, (M, M).
# It returns `None` where the weights do not factor in this way, to a relative $10^{-9}$.
# The tests check that $K$ is symmetric and positive semi-definite and that $K \alpha$ gives the values of the sum at the training points; for every such $\alpha$ and $K$, scaled as you like.
# Some $c_s$ and some $\alpha_i$ can be zero, and the $\alpha_i$ can have both signs.
# ```{exercise-end}
# ```

# %% [markdown] tags=["solution-text"] exercise="one-machine"
# ```{solution-start} ex-path-one-machine
# :class: dropdown
# ```
# Weights that factor are a matrix of rank one, and its singular vectors are $c$ and $\alpha$ up to their lengths and one common sign.
# Then $\sum_s \sum_i c_s \alpha_i k_s(x, x_i) = \sum_i \alpha_i K(x, x_i)$ with $K = \sum_s c_s k_s$, and with $c_s \ge 0$ this is a sum of kernels, hence a kernel.
# The construction $K(x, x_i) = \sum_s |a_{s,i}|\, k_s(x, x_i)$ has the right sum for weights of constant sign, but it weighs each column by itself: it is not symmetric.


# %% tags=["solution"] exercise="one-machine"
def single_machine(kernels, weights):
    """alpha (M,) and a kernel (M, M) with the same sum as kernels (S, M, M) under
    weights (S, M), or None where these do not factor.
    """
    ### BEGIN SOLUTION
    left, lengths, right = torch.linalg.svd(weights, full_matrices=False)
    factors, alpha = left[:, 0] * lengths[0], right[0]
    if factors.sum() < 0:
        factors, alpha = -factors, -alpha
    small = 1e-9 * lengths[0]
    if (lengths[1:] > small).any() or (factors < -small).any():
        return None
    return alpha, torch.einsum("s,sij->ij", factors.clamp_min(0), kernels)
    ### END SOLUTION


# %% tags=["tests"] exercise="one-machine" points=1
draw = torch.Generator().manual_seed(SEED + 12)
roots = torch.randn(3, 4, 4, generator=draw, dtype=torch.float64)
grams, by_step, by_point = (
    roots @ roots.mT,
    torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64),
    torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=torch.float64),
)
found = single_machine(grams, torch.outer(by_step, by_point))
assert found is not None, "these weights factor"
assert torch.allclose(found[1], found[1].T), (
    "a kernel is symmetric: is a column weighed by its own training point?"
)
assert torch.allclose(
    found[1] @ found[0], torch.einsum("sij,s,j->i", grams, by_step, by_point)
), "the machine has other values than the sum"

# %% tags=["hidden-tests"] exercise="one-machine" points=2
# Criterion: weights that factor give one machine, with signs in the right place
draw = torch.Generator().manual_seed(SEED + 13)
roots = torch.randn(5, 6, 2, generator=draw, dtype=torch.float64)
grams, by_point = roots @ roots.mT, torch.randn(6, generator=draw, dtype=torch.float64)
by_point[0] = 0
for by_step in (
    (1.0, 0.2, 3.0, 0.0, 1.0),
    (-1.0, -0.2, -3.0, -1.0, 0.0),
    (0.0, 0.0, 2.0, 0.0, 0.0),
    (0.0, 1e-4, 1.0, 3e3, 1.0),
):
    by_step = torch.tensor(by_step, dtype=torch.float64)
    found = single_machine(grams, torch.outer(by_step, by_point))
    assert found is not None, "these weights factor"
    wanted = torch.einsum("sij,s,j->i", grams, by_step, by_point)
    assert torch.allclose(found[1], found[1].T), "the kernel must be symmetric"
    spectrum_ = torch.linalg.eigvalsh(found[1])
    assert float(spectrum_[0]) > -1e-9 * float(spectrum_.abs().max()), (
        "the kernel must be positive semi-definite: the sign belongs to alpha"
    )
    assert torch.allclose(
        found[1] @ found[0], wanted, atol=1e-8 * float(wanted.abs().max())
    ), "the machine has other values than the sum"

# %% tags=["hidden-tests"] exercise="one-machine" points=2
# Criterion: None where the weights do not factor
draw = torch.Generator().manual_seed(SEED + 14)
roots = torch.randn(3, 4, 4, generator=draw, dtype=torch.float64)
grams, by_point = roots @ roots.mT, torch.randn(4, generator=draw, dtype=torch.float64)
signs_only = torch.rand(3, 4, generator=draw, dtype=torch.float64) * by_point.sign()
assert single_machine(grams, signs_only) is None, (
    "constant signs do not make weights that factor"
)
assert single_machine(grams, by_point.expand(3, 4)) is not None, (
    "equal weights at every step factor"
)
assert (
    single_machine(
        grams,
        torch.outer(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64), by_point),
    )
    is None
), "steps of both signs do not make a kernel"

# %% [markdown] tags=["solution-text"] exercise="one-machine"
# ```{solution-end}
# ```

# %% [markdown]
# ## Further exercises
#
# These have no points.
#
# ```{exercise-start} One node is enough
# :label: ex-path-linear
# ```
# For which networks is the averaged gradient of *every* step equal to the gradient at its start, so that the symmetric and the asymmetric kernel are one?
# Check your answer with `Path.residual(x, rule="left", nodes=1)`.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-path-linear
# :class: dropdown
# ```
# For those whose scores are affine in the weights: a linear model, or a network of which only the last layer is trained.
# Then $J$ does not depend on the weights, and all rules are exact.

# %% tags=["nbval-check-output"]
points, labels = data.two_gaussians(24, 0)
points = points.double()
weight = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
linear = models.Classifier(
    nn.Flatten(), heads.LinearHead(weight, torch.zeros(2))
).double()
affine = path_kernel.train_path(linear, points, labels, lr=1.0, steps=30)
residual = affine.residual(points, rule="left", nodes=1).abs().max()
print("one left node is exact for a linear model:", bool(residual < 1e-13))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise} Break the explanation
# :label: ex-path-break
#
# Find, by PGD on the *contributions*, an image that the network classifies as before but whose largest contribution comes from a training image of another class.
# `Path.contributions` is not differentiable as it stands; the tangent kernel at the last step is, through `torch.func`.
# ```

# %% tags=["hide-input"]
run.finish()
