# %% [markdown]
# Plausible wrong answers to the graded exercises of "The path kernel", with the points that each must get.
# ruff: noqa: F811, F821


# %% exercise="by-hand" mistake="looks at the training point at the middle of the step, too" points=0
def step_kernel(u0, v0, u1, v1, xq, x):
    u, v = (u0 + u1) / 2, (v0 + v1) / 2
    return (v @ v) * (xq @ x.T) + (xq @ u.T) @ (x @ u.T).T


# %% exercise="by-hand" mistake="takes the case of one dimension for the general one" points=1
def step_kernel(u0, v0, u1, v1, xq, x):
    u, v = (u0 + u1) / 2, (v0 + v1) / 2
    return ((v * v0).sum() + (u * u0).sum()) * (xq @ x.T)


# %% exercise="by-hand" mistake="returns the number of the visible test" points=1
def step_kernel(u0, v0, u1, v1, xq, x):
    return torch.full((len(xq), len(x)), 142.5, dtype=torch.float64)


# %% exercise="crossing" mistake="every zero of the pre-activation switches the unit off" points=2
def switch_moments(z, delta):
    still = delta == 0
    turn = -z / torch.where(still, 1.0, delta)
    crosses = ~still & (turn > 0) & (turn < 1)
    share = torch.where(crosses, turn, (z + delta / 2 > 0).double())
    return share, share.square() / 2


# %% exercise="crossing" mistake="divides by a step that stands still" points=3
def switch_moments(z, delta):
    turn = (-z / delta).clamp(0, 1)
    low, high = torch.where(delta > 0, turn, 0.0), torch.where(delta < 0, turn, 1.0)
    return high - low, (high.square() - low.square()) / 2


# %% exercise="crossing" mistake="a hundred left points" points=0
def switch_moments(z, delta):
    place = torch.arange(100, dtype=z.dtype) / 100
    on = (z[..., None] + delta[..., None] * place > 0).double()
    return on.mean(-1), (on * place).mean(-1)


# %% exercise="blocks" mistake="transposed blocks" points=1
def tangent_blocks(u, w, v, x1, x2):
    def layers(x):
        a1 = torch.tanh(x @ u.T)
        a2 = torch.tanh(a1 @ w.T)
        b2 = v * (1 - a2.square())[:, None, :]
        return (x, b2 @ w * (1 - a1.square())[:, None, :]), (a1, b2), (a2, torch.eye(len(v), dtype=x.dtype).expand(len(x), -1, -1))

    return sum(torch.einsum("na,ma,nji,mki->nmkj", a, c, b, d) for (a, b), (c, d) in zip(layers(x1), layers(x2), strict=True))


# %% exercise="blocks" mistake="equal classes only" points=1
def tangent_blocks(u, w, v, x1, x2):
    def layers(x):
        a1 = torch.tanh(x @ u.T)
        a2 = torch.tanh(a1 @ w.T)
        b2 = v * (1 - a2.square())[:, None, :]
        return (x, b2 @ w * (1 - a1.square())[:, None, :]), (a1, b2), (a2, torch.eye(len(v), dtype=x.dtype).expand(len(x), -1, -1))

    same = sum(torch.einsum("na,ma,nji,mji->nmj", a, c, b, d) for (a, b), (c, d) in zip(layers(x1), layers(x2), strict=True))
    return torch.diag_embed(same)


# %% exercise="blocks" mistake="forgets the last layer" points=0
def tangent_blocks(u, w, v, x1, x2):
    def layers(x):
        a1 = torch.tanh(x @ u.T)
        a2 = torch.tanh(a1 @ w.T)
        b2 = v * (1 - a2.square())[:, None, :]
        return (x, b2 @ w * (1 - a1.square())[:, None, :]), (a1, b2)

    return sum(torch.einsum("na,ma,nji,mki->nmjk", a, c, b, d) for (a, b), (c, d) in zip(layers(x1), layers(x2), strict=True))


# %% exercise="jump" mistake="forgets that there are n pieces" points=1
def left_residual(scores, w, dw, x, nodes):
    def slope(weights):
        return torch.func.jvp(lambda one: scores(one, x), (weights,), (dw,))[1]

    return -torch.func.jvp(slope, (w,), (dw,))[1] / 2


# %% exercise="jump" mistake="returns the whole residual" points=2
def left_residual(scores, w, dw, x, nodes):
    rule = sum(torch.func.jvp(lambda one: scores(one, x), (w + j / nodes * dw,), (dw,))[1] for j in range(nodes)) / nodes
    return rule - (scores(w + dw, x) - scores(w, x))


# %% exercise="jump" mistake="sign" points=0
def left_residual(scores, w, dw, x, nodes):
    def slope(weights):
        return torch.func.jvp(lambda one: scores(one, x), (weights,), (dw,))[1]

    return torch.func.jvp(slope, (w,), (dw,))[1] / (2 * nodes)


# %% exercise="momentum" mistake="the geometric series to its end at every step" points=1
def momentum_contributions(averaged, jacobians, slopes, epsilon, mu):
    return -epsilon / (1 - mu) * torch.einsum("snkp,smcp,smc->nmk", averaged, jacobians, slopes)


# %% exercise="momentum" mistake="pushes the steps before in place of those after" points=1
def momentum_contributions(averaged, jacobians, slopes, epsilon, mu):
    tail, total = torch.zeros_like(averaged[0]), 0.0
    for s in range(len(averaged)):
        tail = averaged[s] + mu * tail
        total = total - epsilon * torch.einsum("nkp,mcp,mc->nmk", tail, jacobians[s], slopes[s])
    return total


# %% exercise="momentum" mistake="one factor of mu too many for the steps after" points=1
def momentum_contributions(averaged, jacobians, slopes, epsilon, mu):
    total = 0.0
    for r in range(len(averaged)):
        tail = averaged[r] + sum(mu ** (s - r + 1) * averaged[s] for s in range(r + 1, len(averaged)))
        total = total - epsilon * torch.einsum("nkp,mcp,mc->nmk", tail, jacobians[r], slopes[r])
    return total


# %% exercise="decay" mistake="gradients do not decay, and the start takes the rest" points=2
def decayed(w0, x, y, xq, epsilon, decay, steps):
    w, total = w0, torch.zeros_like(y)
    for _ in range(steps):
        slopes = x @ w - y
        total = total - epsilon * slopes
        w = (1 - epsilon * decay) * w - epsilon * slopes @ x
    added = (xq @ x.T) * total
    return xq @ w - added.sum(1), added


# %% exercise="decay" mistake="decays a gradient in its own step" points=0
def decayed(w0, x, y, xq, epsilon, decay, steps):
    keep, w, total = 1 - epsilon * decay, w0, torch.zeros_like(y)
    for _ in range(steps):
        slopes = x @ w - y
        total = keep * (total - epsilon * slopes)
        w = keep * w - epsilon * slopes @ x
    return keep**steps * (xq @ w0), (xq @ x.T) * total


# %% exercise="decay" mistake="the start decays along a line" points=1
def decayed(w0, x, y, xq, epsilon, decay, steps):
    keep, w, total = 1 - epsilon * decay, w0, torch.zeros_like(y)
    for _ in range(steps):
        slopes = x @ w - y
        total = keep * total - epsilon * slopes
        w = keep * w - epsilon * slopes @ x
    return (1 - steps * epsilon * decay) * (xq @ w0), (xq @ x.T) * total


# %% exercise="one-machine" mistake="weighs each column by its own training point" points=0
def single_machine(kernels, weights):
    return weights[0].sign(), torch.einsum("si,sji->ji", weights.abs(), kernels)


# %% exercise="one-machine" mistake="does not look at the signs of the steps" points=3
def single_machine(kernels, weights):
    if (torch.linalg.svdvals(weights)[1:] > 1e-9 * weights.norm()).any():
        return None
    alpha = weights[weights.norm(dim=1).argmax()]
    return alpha, torch.einsum("s,sij->ij", weights @ alpha / (alpha @ alpha), kernels)


# %% exercise="one-machine" mistake="asks for constant signs only" points=1
def single_machine(kernels, weights):
    if not ((weights >= 0).all(0) | (weights <= 0).all(0)).all():
        return None
    return weights[0], torch.einsum("s,sij->ij", weights[:, 0] / weights[0, 0], kernels)
