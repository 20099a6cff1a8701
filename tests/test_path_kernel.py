"""The path kernel against explicit Jacobians, finite differences, torch's own optimisers, and the network itself."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional

from support import models
from support.models import heads
from support.path_kernel import layers, ntk, ntk_by_jacobian, quadrature, train_path

SHAPE, CLASSES = (1, 8, 8), 5
F64 = torch.float64


def build(name):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        flat = (models.Normalise(0.3, 0.5), nn.Flatten())
        bodies = {
            "one hidden ReLU": (*flat, nn.Linear(64, 12), nn.ReLU()),
            "deep ReLU": (*flat, nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10, bias=False), nn.ReLU()),
            "tanh": (*flat, nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh()),
            "gelu": (*flat, nn.Linear(64, 10), nn.GELU()),
            "linear": flat,
            "convolutions": (
                models.Normalise(0.3, 0.5), nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(2, 8, 3, stride=2, bias=False), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            ),
            "dilated": (nn.Conv2d(1, 4, 3, dilation=2), nn.Tanh(), nn.AvgPool2d(2), nn.Identity(), nn.Flatten()),
        }  # fmt: skip
        width = {"one hidden ReLU": 12, "gelu": 10, "linear": 64, "convolutions": 8, "dilated": 16}.get(name, 10)
        last = nn.Linear(width, CLASSES)
        return models.Classifier(nn.Sequential(*bodies[name]), heads.LinearHead(last.weight, last.bias)).to(F64).eval()


NAMES = ("one hidden ReLU", "deep ReLU", "tanh", "gelu", "linear", "convolutions", "dilated")


def points(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, generator=generator, dtype=F64), torch.randint(CLASSES, (count,), generator=generator)


def jacobians(model, x):
    """(N, K, P) by torch.func, parameters in the order of the layers."""
    named = dict(model.named_parameters())
    found = vmap(jacrev(lambda p, one: functional_call(model, p, (one[None],))[0]), (None, 0))(named, x)
    return torch.cat([found[name].detach().flatten(2) for name in named], 2)


@pytest.fixture(scope="module")
def paths():
    x, y = points(14)
    return {name: train_path(build(name), x, y, lr=0.4, steps=6) for name in NAMES}


# --- the tangent kernel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_tangent_kernel_is_its_definition(name):
    model, x1, x2 = build(name), points(4)[0], points(3, 1)[0]
    wanted = ntk_by_jacobian(model, x1, x2)
    found = ntk(model, x1, x2)
    assert found.shape == (4, 3, CLASSES, CLASSES)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))
    assert torch.allclose(ntk(model, x1, x2, trace=True), wanted.diagonal(dim1=2, dim2=3).sum(2), rtol=1e-11)
    assert torch.equal(ntk(model, x1), ntk(model, x1, x1)) and torch.equal(ntk_by_jacobian(model, x1), ntk_by_jacobian(model, x1, x1))


@pytest.mark.parametrize("name", ["tanh", "gelu", "dilated"])
def test_the_definition_agrees_with_finite_differences(name):
    """A sum over the parameters of products of central differences, by Richardson's extrapolation."""
    model, x = build(name), points(2)[0]
    named = {key: value.detach() for key, value in model.named_parameters()}
    start = torch.cat([value.reshape(-1) for value in named.values()])

    def scores(w):
        parts = w.split([value.numel() for value in named.values()])
        return functional_call(model, {key: part.view_as(named[key]) for key, part in zip(named, parts, strict=True)}, (x,)).detach()

    def differences(h):
        step = h * torch.eye(len(start), dtype=F64)
        return torch.stack([(scores(start + one) - scores(start - one)) / (2 * h) for one in step])

    slopes = (4 * differences(1e-3) - differences(2e-3)) / 3
    wanted = torch.einsum("pnj,pmk->nmjk", slopes, slopes)
    assert torch.allclose(ntk_by_jacobian(model, x), wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))


def test_both_ways_to_multiply_convolutions_agree():
    """Few positions and many weights, and the other way round, in one net each."""
    for channels, kernel in ((2, 2), (40, 7)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            last = nn.Linear(channels * (9 - kernel) ** 2, 2)
            model = models.Classifier(nn.Sequential(nn.Conv2d(1, channels, kernel), nn.Tanh(), nn.Flatten()), last).to(F64)
        x = points(3)[0]
        assert torch.allclose(ntk(model, x), ntk_by_jacobian(model, x), rtol=1e-10, atol=1e-10)


def test_a_tangent_kernel_is_positive_semi_definite():
    for name in NAMES:
        block = ntk(build(name), points(6)[0]).permute(0, 2, 1, 3).reshape(6 * CLASSES, -1)
        eigenvalues = torch.linalg.eigvalsh(block)
        assert torch.allclose(block, block.T, rtol=0, atol=1e-12 * float(eigenvalues[-1]))
        assert eigenvalues[0] > -1e-12 * eigenvalues[-1]


# --- the path ---------------------------------------------------------------------------------------------------------------------


def torch_run(model, x, y, make, batches, steps):
    """The same training by torch's autograd and optimiser."""
    model = copy.deepcopy(model)
    optimizer = make(model.parameters())
    for step in range(steps):
        index = batches[step]
        optimizer.zero_grad()
        functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("options", [{}, {"batch_size": 5}, {"momentum": 0.9}, {"momentum": 0.5, "batch_size": 4}, {"optimizer": "adam"}])
@pytest.mark.parametrize("name", ["deep ReLU", "convolutions"])
def test_a_path_is_the_run_of_torchs_optimiser(name, options):
    x, y = points(14)
    model, lr, steps = build(name), 0.02, 9
    path = train_path(model, x, y, lr=lr, steps=steps, seed=7, **options)
    kinds = {"adam": lambda p: torch.optim.Adam(p, lr=lr)}
    make = kinds.get(options.get("optimizer"), lambda p: torch.optim.SGD(p, lr=lr, momentum=options.get("momentum", 0.0)))
    batches = [path.recipe.batches[step] for step in range(steps)]
    ours, theirs = path.model_at(steps)(x), torch_run(model, x, y, make, batches, steps)(x)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert torch.equal(path.model_at(0)(x), model(x))


STEPS_OF = [{"batch_size": 5}, {"momentum": 0.9}, {"optimizer": "adam", "lr": 0.02, "batch_size": 4}]
EXACT = [(name, {}) for name in NAMES] + [(name, options) for name in ("one hidden ReLU", "deep ReLU", "tanh") for options in STEPS_OF]


@pytest.mark.parametrize(("name", "options"), [*EXACT, ("convolutions", STEPS_OF[1]), ("dilated", STEPS_OF[2])])
def test_every_prediction_is_exact(name, options):
    """Off the training set and on it, whatever the optimiser, and point by point."""
    x, y = points(10)
    path = train_path(build(name), x, y, **{"lr": 0.4, "steps": 4} | options)
    queries = torch.cat([points(2, 1)[0], x[:1]])
    found, parts = path.predict(queries), path.contributions(queries)
    largest = float(found.network.abs().max())
    assert torch.allclose(found.network, path.model_at(4)(queries), rtol=0, atol=1e-14 * largest)
    assert float(found.residual.abs().max()) < 1e-12 * largest
    assert float(found.step_residual.max()) < 1e-12 * largest
    assert float(parts.residual.abs().max()) < 1e-12 * largest
    assert parts.contributions.shape == (3, 10, CLASSES)
    assert torch.allclose(parts.start + parts.contributions.sum(1), found.scores, rtol=0, atol=1e-12 * largest)
    assert torch.equal(path.residual(queries), found.residual)


@pytest.mark.parametrize("loss", ["squared", "targets", "function", "binary_cross_entropy"])
def test_losses(loss):
    x, y = points(8)
    model = build("tanh")
    if loss == "binary_cross_entropy":
        model, y = models.mlp(SHAPE, (6,), 1), y % 2
    if loss == "targets":
        loss, y = "squared", functional.one_hot(y, CLASSES).to(F64)
    given = (lambda s, t: functional.cross_entropy(s, t, reduction="none") + 0.01 * s.square().sum(1)) if loss == "function" else loss
    path = train_path(model, x, y, lr=0.2, steps=4, loss=given)
    found = path.contributions(points(3, 1)[0])
    assert float(found.residual.abs().max()) < 1e-12 * float(found.network.abs().max())


def brute_contributions(path, queries, rule, nodes):
    """Every training point's term by explicit Jacobians at given places of each step."""
    x, y, total = path.recipe.x, path.recipe.y, 0
    for step in range(path.steps):
        here, w, after = path.model_at(step), path.weights(step), path.weights(step + 1)
        slope = (here(x).softmax(1) - functional.one_hot(y, CLASSES)) / len(x)
        right = torch.einsum("mc,mcp->mp", slope, jacobians(here, x))
        mean = 0
        for t, share in zip(*quadrature.fixed_rule(rule, nodes), strict=True):
            model = copy.deepcopy(here)
            nn.utils.vector_to_parameters(w + float(t) * (after - w), model.parameters())
            mean = mean + float(share) * jacobians(model.requires_grad_(True), queries)
        total = total - path.recipe.lr[step] * torch.einsum("nkp,mp->nmk", mean, right)
    return total


# At a kink, midpoints are off by a part of their distance.
@pytest.mark.parametrize(("name", "rule", "nodes", "exact"), [("one hidden ReLU", "midpoint", 200, 4e-3), ("tanh", "gauss", 8, 1e-9)])
def test_contributions_are_those_of_explicit_jacobians(name, rule, nodes, exact):
    x, y = points(6)
    path = train_path(build(name), x, y, lr=0.5, steps=2)
    queries = points(2, 1)[0]
    wanted = brute_contributions(path, queries, rule, nodes)
    assert torch.allclose(path.contributions(queries).contributions, wanted, rtol=0, atol=exact * float(wanted.abs().max()))


@pytest.mark.parametrize("options", [{"momentum": 0.8}, {"optimizer": "adam", "lr": 0.05}])
def test_contributions_with_momentum_and_adam_are_derivatives_along_the_realised_steps(options):
    """Take one point's gradients out of the optimiser's sums, at the realised scales, and integrate what it moved."""
    x, y = points(6)
    path = train_path(build("tanh"), x, y, **{"lr": 0.3, "steps": 4} | options)
    queries, recipe = points(2, 1)[0], path.recipe
    wanted = torch.zeros(2, 6, CLASSES, dtype=F64)
    memory = torch.zeros(6, recipe.stages[-1].where[1], dtype=F64)
    b1 = recipe.momentum
    for step in range(4):
        w, dw = path.weights(step), path.weights(step + 1) - path.weights(step)
        here = path.model_at(step)
        slope = (here(x).softmax(1) - functional.one_hot(y, CLASSES)) / 6
        own = torch.einsum("mc,mcp->mp", slope, jacobians(here.requires_grad_(True), x)).detach()
        memory = b1 * memory + (own * (1 - b1) if recipe.optimizer == "adam" else own)
        moves = -recipe.lr[step] * memory
        if recipe.optimizer == "adam":
            moves = moves / (1 - b1 ** (step + 1)) / recipe.scale(path.states[step + 1][2], step)
        assert torch.allclose(moves.sum(0), dw, rtol=0, atol=1e-13)
        for t, share in zip(*quadrature.fixed_rule("gauss", 6), strict=True):
            model = copy.deepcopy(here)
            nn.utils.vector_to_parameters(w + float(t) * dw, model.parameters())
            wanted += float(share) * torch.einsum("nkp,mp->nmk", jacobians(model.requires_grad_(True), queries), moves)
    found = path.contributions(queries, rule="gauss", nodes=6).contributions
    assert torch.allclose(found, wanted, rtol=0, atol=1e-11 * float(wanted.abs().max()))


def test_contributions_by_phase_add_up(paths):
    queries = points(3, 1)[0]
    for path in (paths["tanh"], train_path(build("tanh"), *points(14), lr=0.1, steps=6, momentum=0.9)):
        whole = path.contributions(queries)
        parts = [path.contributions(queries, steps=span) for span in (range(2), range(2, 6))]
        assert torch.allclose(sum(part.contributions for part in parts), whole.contributions, rtol=0, atol=1e-13)
        assert parts[0].residual.isnan().all()


# --- the kernel -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_weighs_to_the_contributions(name, paths):
    """a_is times the kernel of each step is the contribution: the contracted sums and the K x K blocks agree."""
    path, queries = paths[name], points(3, 1)[0]
    total = 0
    for step in range(path.steps):
        slope = (path.model_at(step)(path.recipe.x).softmax(1) - functional.one_hot(path.recipe.y, CLASSES)) / 14
        block = path.kernel(queries, steps=[step])
        total = total - path.recipe.lr[step] * torch.einsum("nmjk,mk->nmj", block, slope.detach())
    wanted = path.contributions(queries).contributions
    assert torch.allclose(total, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


def test_the_kernel_sums_over_steps_and_traces(paths):
    path, queries = paths["deep ReLU"], points(3, 1)[0]
    whole = path.kernel(queries)
    steps = sum(path.kernel(queries, steps=[step]) for step in range(path.steps))
    assert torch.allclose(whole, steps, rtol=1e-12)
    assert torch.allclose(path.kernel(queries, trace=True), whole.diagonal(dim1=2, dim2=3).sum(2), rtol=1e-11)
    assert torch.allclose(path.kernel(queries, path.recipe.x), whole, rtol=0, atol=0)


def test_one_left_node_is_the_tangent_kernel_at_the_start(paths):
    for name, path in paths.items():
        queries = points(3, 1)[0]
        wanted = ntk(path.model_at(2), queries, path.recipe.x)
        found = path.kernel(queries, steps=[2], rule="left", nodes=1)
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max())), name


@pytest.mark.parametrize("name", NAMES)
def test_the_symmetric_kernel_is_symmetric_and_positive_semi_definite(name, paths):
    queries = torch.cat([points(4, 1)[0], paths[name].recipe.x[:3]])
    block = paths[name].kernel(queries, queries, both=True).permute(0, 2, 1, 3).reshape(7 * CLASSES, -1)
    eigenvalues = torch.linalg.eigvalsh(block)
    assert torch.allclose(block, block.T, rtol=0, atol=1e-12 * float(eigenvalues[-1]))
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]


@pytest.mark.parametrize(("name", "rule", "exact"), [("tanh", "gauss", 1e-9), ("deep ReLU", "midpoint", 0.02)])
def test_the_nodes_of_the_symmetric_kernel_are_enough(name, rule, exact, paths):
    queries = points(3, 1)[0]
    found = paths[name].kernel(queries, queries, both=True, trace=True)
    many = paths[name].kernel(queries, queries, both=True, trace=True, rule=rule, nodes=64)
    error = float((found - many).abs().max() / many.abs().max())
    assert error < exact
    few = paths[name].kernel(queries, queries, both=True, trace=True, rule=rule, nodes=1)
    assert float((few - many).abs().max() / many.abs().max()) > 2 * error


def test_the_exact_kernel_is_not_symmetric(paths):
    x = paths["tanh"].recipe.x
    block = paths["tanh"].kernel(x).permute(0, 2, 1, 3).reshape(14 * CLASSES, -1)
    assert float((block - block.T).abs().max()) > 1e-6 * float(block.abs().max())


# --- rules of integration ---------------------------------------------------------------------------------------------------------


def test_rules_converge_at_their_rates(paths):
    path, queries = paths["tanh"], points(3, 1)[0]

    def error(rule, nodes):
        return float(path.residual(queries, rule=rule, nodes=nodes).abs().max())

    assert error("left", 20) / error("left", 40) == pytest.approx(2, rel=0.1)
    assert error("midpoint", 20) / error("midpoint", 40) == pytest.approx(4, rel=0.1)
    assert error("gauss", 5) < 1e-13 < error("midpoint", 100) < error("left", 100)


def test_a_kink_free_relu_step_needs_one_node_for_each_two_layers():
    """Between kinks the output is a polynomial of degree 3 in t: two nodes are exact, one is not."""
    x, y = points(14)
    path = train_path(build("deep ReLU"), x, y, lr=1e-4, steps=1)
    queries = points(6, 1)[0]
    stages, w, dw = path.recipe.stages, path.weights(0), path.weights(1) - path.weights(0)

    def activity(line):
        places = [torch.full((6,), float(t), dtype=F64) for t in torch.linspace(0, 1, 50)]
        return [line.derivative(line.begin(queries), at)[2] > 0 for at in places]

    signs = activity(layers.Line(stages, w, dw))
    smooth = torch.stack([(s == signs[0]).all(1) for s in signs]).all(0)
    assert smooth.sum() >= 3
    scaled = dw * 0.2 / dw.norm()  # long enough for the cubic term to show, where no unit changes its sign
    line = layers.Line(stages, w, scaled)
    signs = activity(line)
    smooth = torch.stack([(s == signs[0]).all(1) for s in signs]).all(0)
    assert smooth.any()
    ends = [layers.output(stages, v, queries) for v in (w, w + scaled)]
    two, one = (quadrature.fixed(line, queries, "gauss", count).change for count in (2, 1))
    assert float((two - (ends[1] - ends[0]))[smooth].abs().max()) < 1e-14
    assert float((one - (ends[1] - ends[0]))[smooth].abs().max()) > 1e-9


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_closed_form_is_the_integral_cut_at_every_crossing(seed):
    """Crossings either way, several units at once, units that start or end at zero."""
    generator = torch.Generator().manual_seed(seed)
    model = models.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3, 5), nn.ReLU()), nn.Linear(5, 2)).to(F64)
    stages = layers.chain(model)
    w, dw = torch.randn(2, stages[-1].where[1], generator=generator, dtype=F64)
    x = torch.randn(4, 3, generator=generator, dtype=F64)
    if seed % 3 == 0:  # a pre-activation that starts at zero, and one that does not move
        w[:3], w[15] = 0, 0
        dw[3:6], dw[16] = 0, 0
    line = layers.Line(stages, w, dw)
    z, dz = line.begin(x)
    crossings = (-z / dz).nan_to_num(0, 0, 0).clamp(0, 1)
    cuts = torch.cat([crossings, torch.zeros(4, 1), torch.ones(4, 1)], 1).sort(1).values
    points, weights = quadrature.fixed_rule("gauss", 2)
    wanted = [0, 0]
    for low, high in zip(cuts.T, cuts.T[1:], strict=False):
        for place, share in zip(points, weights, strict=True):
            parts = line.factors(x, t=low + float(place) * (high - low))
            wanted = [a + float(share) * _grown(high - low, f) for a, f in zip(wanted, parts, strict=True)]
    found = quadrature.closed(line, x)
    for f, total in zip(found.factors, wanted, strict=True):
        assert torch.allclose(_grown(torch.ones(4), f), total, rtol=0, atol=1e-12)
    ends = [layers.output(stages, v, x) for v in (w, w + dw)]
    assert torch.allclose(found.change, ends[1] - ends[0], rtol=0, atol=1e-12)


def _grown(width, f):
    return width[None, :, None, None] * f.deltas[..., :, None] * f.inputs[:, None, :]


def test_adaptive_and_closed_form_agree(paths):
    path, queries = paths["one hidden ReLU"], points(5, 1)[0]
    closed, adaptive = (path.contributions(queries, rule=rule) for rule in ("closed", "adaptive"))
    assert torch.allclose(closed.contributions, adaptive.contributions, rtol=0, atol=1e-12)
    assert closed.nodes == 0 and adaptive.nodes >= 5 * path.steps


def test_cuts_at_kinks_spare_work(paths):
    """A residual that hundreds of midpoints do not come near, from a few nodes."""
    path, queries = paths["deep ReLU"], points(5, 1)[0]
    found = path.predict(queries)
    assert found.nodes < 100 * 5 * path.steps
    midpoints = path.predict(queries, rule="midpoint", nodes=500)
    assert float(found.residual.abs().max()) < 1e-6 * float(midpoints.residual.abs().max())


def test_a_coarser_tolerance_takes_fewer_nodes(paths):
    path, queries = paths["deep ReLU"], points(5, 1)[0]
    fine, coarse = path.predict(queries), path.predict(queries, tolerance=1e-5)
    assert coarse.nodes < fine.nodes
    assert float(coarse.step_residual.max()) < 1e-3


def test_the_tolerance_is_relative_to_the_largest_output(paths):
    """Outputs multiplied by a power of two are looked at in the same places."""
    path, queries, counts = paths["deep ReLU"], points(5, 1)[0], []
    stages, place = path.recipe.stages, slice(*path.recipe.stages[-1].where)
    for scale in (2.0**8, 2.0**20):
        w, dw = path.weights(0).clone(), path.weights(1) - path.weights(0)
        w[place], dw[place] = scale * w[place], scale * dw[place]
        ends = layers.output(stages, w, queries), layers.output(stages, w + dw, queries)
        counts.append(len(quadrature.adaptive(layers.Line(stages, w, dw), queries, ends, 1e-10).row))
    assert counts[0] == counts[1]


# --- the contract -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one hidden ReLU", "deep ReLU", "dilated"])
def test_a_query_does_not_depend_on_its_neighbours(name, paths):
    queries = points(5, 1)[0]
    whole, parts = paths[name].contributions(queries), paths[name].contributions(queries[[3, 1]])
    assert torch.allclose(whole.contributions[[3, 1]], parts.contributions, rtol=0, atol=1e-14)
    assert torch.allclose(paths[name].predict(queries).scores[[3]], paths[name].predict(queries[[3]]).scores, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["deep ReLU", "convolutions"])
def test_small_memory_changes_nothing(name):
    x, y = points(14)
    queries = points(5, 1)[0]
    large = train_path(build(name), x, y, lr=0.4, steps=3)
    small, rule = dataclasses.replace(large, memory=200_000), {"rule": "gauss", "nodes": 3}
    found, wanted = (path.contributions(queries, **rule).contributions for path in (small, large))
    assert torch.allclose(found, wanted, rtol=0, atol=1e-14)
    assert torch.allclose(large.kernel(queries, **rule), small.kernel(queries, **rule), rtol=0, atol=1e-11)


def test_the_model_is_left_as_it_is_and_float32_works():
    x, y = points(14)
    model = models.mlp(SHAPE, (9,), CLASSES)
    before = models.fingerprint(model)
    path = train_path(model, x.float(), y, lr=0.3, steps=20, dtype=torch.float32)
    assert models.fingerprint(model) == before
    found = path.predict(points(3, 1)[0])
    assert found.scores.dtype == torch.float32 and 0 < float(found.residual.abs().max()) < 1e-5


def test_learning_rates_may_change_from_step_to_step():
    x, y = points(8)
    path = train_path(build("tanh"), x, y, lr=[0.5, 0.1, 0.02], steps=3)
    assert float(path.contributions(x).residual.abs().max()) < 1e-13


def chained(*layers_):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(layer() for layer in layers_)).to(F64)


CHAINS = {
    "convolution, max pooling": chained(lambda: nn.Conv2d(1, 2, 3), lambda: nn.MaxPool2d(2), nn.Flatten, lambda: nn.Linear(18, CLASSES)),
    "max pooling, linear": chained(lambda: nn.MaxPool2d(2), nn.Flatten, lambda: nn.Linear(16, CLASSES, bias=False)),
    "linear, linear": chained(nn.Flatten, lambda: nn.Linear(64, 6), lambda: nn.Linear(6, CLASSES)),
    "ReLU, linear": chained(nn.ReLU, nn.Flatten, lambda: nn.Linear(64, CLASSES)),
    "one hidden ReLU, no bias": chained(
        nn.Flatten, lambda: nn.Linear(64, 6, bias=False), lambda: nn.ReLU(inplace=True), lambda: nn.Linear(6, CLASSES, bias=False)
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_without_what_most_have(name):
    """No ReLU, no hidden layer, no bias."""
    x, y = points(6)
    model, queries = CHAINS[name], points(3, 1)[0]
    wanted = ntk_by_jacobian(model, x, queries)
    assert torch.allclose(ntk(model, x, queries), wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    for options in ({}, {"momentum": 0.9}):
        path = train_path(model, x, y, lr=0.3, steps=3, **options)
        assert float(path.predict(queries).residual.abs().max()) < 1e-12
        assert float(path.contributions(queries).residual.abs().max()) < 1e-12


def test_a_model_that_the_kernel_cannot_follow_is_refused():
    x, y = points(4)
    flat, layer, twice = nn.Flatten(), nn.Linear(64, CLASSES), nn.Linear(64, 64)
    cases = [
        *[
            (models.Classifier(nn.Sequential(flat, kind), layer), rf"body\.1 \({type(kind).__name__}\) is not supported")
            for kind in (nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Sigmoid(), nn.LayerNorm(64), nn.PReLU(), nn.LeakyReLU())
        ],
        (models.Classifier(flat, heads.SoftRmaxHead(layer.weight, layer.bias)), "head .SoftRmaxHead. is not supported"),
        (models.Classifier(flat, heads.GaussHead(torch.rand(CLASSES, 64))), "head .GaussHead. is not supported"),
        (models.Classifier(nn.Sequential(flat, twice, nn.ReLU(), twice), layer), "share a parameter"),
        (models.Classifier(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3, groups=2), flat), nn.Linear(72, 2)), r"body.1 \(Conv2d\)"),
        (nn.Sequential(flat, layer, nn.ReLU()), "ends in ReLU"),
        (nn.Sequential(), "ends in nothing"),
        (models.small_cnn(SHAPE, CLASSES), "BatchNorm2d"),
        (lambda x: x, "the model .function. is not supported"),
    ]
    for model, words in cases:
        for call in (lambda model=model: ntk(model, x.float()), lambda model=model: train_path(model, x, y, lr=0.1, steps=1)):
            with pytest.raises(ValueError, match=words):
                call()
    shapes = [
        (nn.Sequential(nn.Linear(8, CLASSES)), "wants inputs of 2 axes"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(6, CLASSES)), "wants inputs of 2 axes"),
        (nn.Sequential(nn.Flatten(0), layer), "wants inputs of 2 axes"),
        (nn.Sequential(nn.Flatten(0, 2), nn.Linear(8, CLASSES)), "several rows"),
        (nn.Sequential(flat, nn.Linear(63, CLASSES)), "cannot be multiplied"),
    ]
    for model, words in shapes:
        for call in (lambda model=model: ntk(model.to(F64), x), lambda model=model: train_path(model, x, y, lr=0.1, steps=1)):
            with pytest.raises(ValueError, match=f"does not take points of shape .*{words}"):
                call()


def test_inference_mode_changes_nothing(paths):
    path, (x, y) = paths["deep ReLU"], points(14)
    with torch.inference_mode():
        again = train_path(build("deep ReLU"), x.clone(), y.clone(), lr=0.4, steps=6)
        found, kernel = again.contributions(x[:2].clone()), ntk(build("deep ReLU"), x[:2].clone())
        assert torch.equal(again.states, path.states) and not (found.scores.is_inference() or kernel.is_inference())
    assert torch.equal(found.contributions, path.contributions(x[:2]).contributions)


def test_states_that_do_not_match_their_steps_are_refused(paths):
    path = paths["tanh"]
    states = path.states.clone()
    states[3] += 1e-4 * torch.randn(states[3].shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    changed = dataclasses.replace(path, states=states)
    for call in (changed.predict, changed.contributions):
        with pytest.raises(ValueError, match="do not match its steps: step 2"):
            call(points(2)[0])
    swapped = dataclasses.replace(path, recipe=dataclasses.replace(path.recipe, lr=(0.2, *path.recipe.lr[1:])))
    with pytest.raises(ValueError, match="do not match its steps: step 0"):
        swapped.predict(points(2)[0])


def test_bad_queries_and_options_are_refused(paths):
    path = paths["tanh"]
    good = points(2)[0]
    for queries, words in (
        (good[:, :, :7], "must have the shape"), (good.long(), "must be a float"), (good[:0], "not empty"), (good / 0, "NaN or infinite"),
        (good[0], "must have the shape"), ([1.0], "list was given"),
    ):  # fmt: skip
        for call in (path.predict, path.contributions, path.kernel):
            with pytest.raises(ValueError, match=words):
                call(queries)
    for options, words in (
        ({"rule": "simpson"}, "unknown rule"), ({"rule": "closed"}, "one hidden ReLU layer"), ({"rule": "left"}, "nodes of rule 'left'"),
        ({"rule": "left", "nodes": 0}, "at least 1"), ({"tolerance": -1.0}, "positive"),
        ({"rule": "left", "nodes": 2, "tolerance": 1.0}, "only 'adaptive' has a tolerance"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            path.predict(good, **options)
    for span in (range(7), [], [-1, 2], [3, 3]):
        with pytest.raises(ValueError, match="from 0 to 5"):
            path.kernel(good, steps=span)
    with pytest.raises(ValueError, match="'closed' has no nodes"):
        paths["one hidden ReLU"].predict(good, rule="closed", nodes=3)
    with pytest.raises(ValueError, match="two averages along a step"):
        path.kernel(good, good, both=True, rule="adaptive")
    with pytest.raises(ValueError, match="step must be a whole number from 0 to 6"):
        path.weights(7)


def test_bad_training_is_refused():
    x, y = points(8)
    model = build("tanh")
    usual = {"lr": 0.1, "steps": 3}
    for changed, words in (
        ({"lr": 0.0}, "lr must be"), ({"lr": [0.1]}, "or 3 of them"), ({"steps": 0}, "steps must be"), ({"steps": 2.5}, "steps must be"),
        ({"batch_size": 0}, "batch_size"), ({"optimizer": "lbfgs"}, "unknown optimizer"), ({"momentum": 1.0}, "momentum"),
        ({"momentum": 0.9, "optimizer": "adam"}, "momentum"), ({"dtype": torch.float16}, "dtype"),
        ({"loss": "hinge"}, "unknown loss"), ({"loss": lambda s, t: s.sum()}, "one number per point"),
        ({"loss": "binary_cross_entropy"}, "one output"), ({"memory_mb": 1e-3}, "4 x 1 x .* numbers need 1 MiB"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            train_path(model, x, y, **usual | changed)
    for xs, ys, words in (
        (x / 0, y, "x must be finite"), (x[:0], y[:0], "not empty"), (x, y[:3], "int64 of shape"), (x, y.int(), "int64 of shape"),
        (x, y - 9, r"0 \.\. 4"), (x, y + 9, r"0 \.\. 4"), (x[:, :, :6], y, "does not take points"), (x.long(), y, "x must be a float"),
        (x, torch.rand(8, 5), "wants int64"), (x, torch.rand(8, 5) / 0, "y must be finite"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            train_path(model, xs, ys, **usual)
    with pytest.raises(FloatingPointError, match="smaller lr"):
        train_path(models.mlp(SHAPE, (9,), CLASSES), x, y, lr=1e8, steps=60, loss="squared")


def test_a_budget_too_small_is_refused(paths):
    path = dataclasses.replace(paths["tanh"], memory=1000)
    x = points(4)[0]
    for call in (path.contributions, path.kernel):
        with pytest.raises(ValueError, match="MiB; the path's memory is"):
            call(x)
    with pytest.raises(ValueError, match="5 x 4 x 5 x 4 numbers need 1 MiB"):
        ntk(build("tanh"), x, memory_mb=1e-4)
    momentum = train_path(build("tanh"), *points(8), lr=0.1, steps=2, momentum=0.5)
    with pytest.raises(ValueError, match="for one query"):
        dataclasses.replace(momentum, memory=20_000).contributions(x)


def test_bad_points_of_a_tangent_kernel_are_refused():
    model, x = build("tanh"), points(3)[0]
    for first, second, words in (
        (x.float(), None, "float64, and of one shape"), (x, x[:, :, :3], "of one shape"), (x / 0, None, "x1 must be finite"),
        (x[:0], None, "not empty"), (x, 3, "x2 must be"), (x[:, :, :3], None, "does not take points"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            ntk(model, first, second)
