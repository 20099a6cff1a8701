"""Models that are not what their classes say, and what must happen to each: right as its twin, or refused with a word of the reason.

One table for all kernels: those that ask a model (``asked``: attacks, boundaries, noise, evaluation), those that bound it from its weights
(``bounded``), and tangent and path kernels (``followed``).
"""

import contextlib
import copy
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from support import models
from support.models.heads import SoftRmaxHead, log_softrmax

SHAPE, CLASSES, WIDTH = (1, 4, 4), 3, 8
UNKNOWN = "not supported|no Lipschitz bound is known|no interval rule|Classifier is wanted|wants a body"
MODE, NEIGHBOURS, DRAWS, HOOKS = "training mode", "depend on the other images", "draws random numbers", "has hooks"


@dataclass(frozen=True)
class Hostile:
    """``build`` returns the model and its twin, which computes the same by plain means (None where nothing is right). A reason is a
    pattern, or None where the kernels are right; ``but`` has kernels to which something else happens ("": nothing is promised)."""

    build: Callable
    asked: str | None
    bounded: str | None = UNKNOWN
    followed: str | None = UNKNOWN
    but: dict[str, str | None] = field(default_factory=dict)


def plain(seed: int = 1) -> models.Classifier:
    """Normalise, Flatten, Linear, ReLU, and a linear head, steep enough to be sure."""
    model = models.mlp(SHAPE, (WIDTH,), CLASSES, seed=seed, mean=0.4, std=0.5)
    with torch.no_grad():
        model.head.weight.mul_(6)
    return model


@contextlib.contextmanager
def other_defaults(dtype: torch.dtype = torch.float64) -> Iterator[None]:
    """Another default dtype, and a default device on which nothing has numbers: whatever forgets its own has none."""
    usual = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(usual)


class Layer(nn.Module):
    """A layer that is a function of the layer and its input."""

    def __init__(self, function, *, training=False, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            (self.register_buffer if isinstance(part, torch.Tensor) else self.__setattr__)(name, part)
        self.train(training)

    def forward(self, x):
        return self.function(self, x)


def before_head(layer):
    """The plain network with one layer more before its head; it has no twin."""
    model = plain()
    model.body.append(layer)
    return model, None


def drawing(draw):
    return lambda: before_head(Layer(lambda layer, h: h * draw(layer, h)))


def private_stream():
    stream = torch.Generator().manual_seed(0)
    return before_head(Layer(lambda layer, h: h + 0.1 * torch.randn(h.shape, generator=stream)))


def attention():
    inner = nn.MultiheadAttention(WIDTH, 2, dropout=0.4, batch_first=True).train()
    return before_head(Layer(lambda layer, h: layer.inner(h[:, None], h[:, None], h[:, None])[0][:, 0], inner=inner, training=True))


def recurrent():
    inner = nn.GRU(1, 4, 2, dropout=0.5, batch_first=True)
    return before_head(Layer(lambda layer, h: layer.inner(h[:, :, None])[0].flatten(1)[:, :WIDTH], inner=inner, training=True))


def scripted(layer):
    return before_head(torch.jit.script(layer.train()))


def traced():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return before_head(torch.jit.trace(nn.Dropout(0.4).train(), torch.rand(5, WIDTH), check_trace=False))


def functional_norm():
    return before_head(Layer(lambda layer, h: functional.batch_norm(h, None, None, training=True)))


def one_size():
    def rigid(layer, h):
        layer.size = layer.size or len(h)
        return h.view(layer.size, WIDTH)

    return before_head(Layer(rigid, size=0))


def altered(alter, twin_layer=None, place=3):
    """The plain network whose hidden layer is altered, and a twin that has the weight in effect, and one more layer for the rest."""

    def build():
        model, twin = plain(), plain()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would rather have parametrizations
            alter(model.body[2])
        model.eval()(torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0)))  # hooks set the weight when they are called
        with torch.no_grad():
            twin.body[2].weight.copy_(model.body[2].weight)
            twin.body[2].bias.copy_(model.body[2].bias)
        if twin_layer is not None:
            twin.body.insert(place, Layer(twin_layer))
        return model, twin

    return build


def double_output(layer):
    layer.register_forward_hook(lambda module, given, out: 2 * out)


def negative_input(layer):
    layer.register_forward_pre_hook(lambda module, given: (-given[0],))


def double_forward(layer):
    layer.forward = lambda x: 2 * functional.linear(x, layer.weight, layer.bias)


def loaded(norm):
    """A norm of the weights, and then weights from elsewhere: what the layer's attribute holds may be of before."""

    def alter(layer):
        norm(layer)
        layer.load_state_dict({name: 3 * value for name, value in layer.state_dict().items()})

    return alter


def taken_off(layer):
    prune.l1_unstructured(layer, "weight", 0.4)
    prune.remove(layer, "weight")
    loaded(parametrizations.weight_norm)(layer)
    parametrize.remove_parametrizations(layer, "weight")


def spectral_in_training():
    model = plain()
    parametrizations.spectral_norm(model.body[2]).train()
    return model, None


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def residual():
    model, twin = plain(), plain()
    inner = nn.Linear(WIDTH, WIDTH)
    model.body.append(Residual(inner))
    twin.body.append(Layer(lambda layer, h: h + inner(h)))
    return model, twin


class Louder(models.Classifier):
    def features(self, x):
        return 3 * self.body(x)


def louder():
    model, twin = plain(), plain()
    twin.body.append(Layer(lambda layer, h: 3 * h))
    return Louder(model.body, model.head).eval(), twin


def own_features():
    model, twin = plain(), louder()[1]
    model.features = lambda x: 3 * model.body(x)
    return model, twin


def tied(tie):
    def build():
        model = plain()
        pair = [nn.Linear(WIDTH, WIDTH) for _ in range(2)]
        tie(*pair)
        for layer in pair:
            model.body.extend([layer, nn.ReLU()])
        return model, models.Classifier(nn.Sequential(*map(copy.deepcopy, model.body)), model.head).eval()  # copied one by one

    return build


def tie_parameter(first, second):
    second.weight = first.weight


def tie_storage(first, second):
    second.weight.data = first.weight.data


def begins_with(layer, twin_layer):
    def build():
        return tuple(models.Classifier(nn.Sequential(part, *plain().body), plain().head).eval() for part in (layer, twin_layer))

    return build


def written(layer, x):
    x.data.mul_(0.5)  # behind autograd's back
    return x


def in_place():
    model = plain()
    model.body[3] = nn.ReLU(inplace=True)
    return model, plain()


def kept_output():
    model, kept = plain(), torch.zeros(4096, CLASSES)

    def same_place(layer, h):
        if torch.is_grad_enabled():
            return h
        kept[: len(h)] = h
        return kept[: len(h)]

    return models.Classifier(model.body, nn.Sequential(model.head, Layer(same_place))).eval(), model


def lazy():
    def shifted(layer, h):
        if layer.shift is None:
            layer.shift = torch.linspace(0, 1, h.shape[1])
        return h * layer.shift

    model, twin = before_head(Layer(shifted, shift=None))[0], before_head(Layer(lambda layer, h: h * torch.linspace(0, 1, h.shape[1])))[0]
    return model, twin


def inference():
    with torch.inference_mode():
        return plain(), plain()


def softrmax():
    model = plain()
    twin = models.Classifier(model.body, nn.Sequential(model.head, Layer(lambda layer, z: log_softrmax(z)))).eval()
    return models.with_head(model, SoftRmaxHead(model.head.weight, model.head.bias)), twin


def infected():
    model = plain()
    with torch.no_grad():
        model.body[2].weight[0, 0] = torch.nan
    return model, None


def backwards():
    model, twin = plain(), plain()
    model.body[0].std.neg_()
    with torch.no_grad():
        twin.body[2].weight.neg_()
    return model, twin


def half_frozen():
    model = plain()
    model.head.requires_grad_(False)
    return model, plain()


def jumping():
    model, twin = plain(), plain()
    model.body.append(nn.Softplus(threshold=0))
    twin.body.append(Layer(lambda layer, h: torch.where(h > 0, h, functional.softplus(h))))
    return model, twin


def convolutional():
    with models.architectures.seeded(0):
        layers = nn.Conv2d(1, 2, 2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, CLASSES)
    return nn.Sequential(*layers).eval(), nn.Sequential(nn.Sequential(*layers)).eval()


HOSTILE = {
    "functional dropout": Hostile(drawing(lambda layer, h: functional.dropout(torch.ones_like(h), 0.4)), DRAWS),
    "dropout of rare pixels": Hostile(drawing(lambda layer, h: (torch.rand_like(h) < 2).to(h)), DRAWS),
    "stochastic depth": Hostile(drawing(lambda layer, h: 2 * (torch.rand(()) < 0.5)), DRAWS),
    "Python's draws": Hostile(drawing(lambda layer, h: random.choice([1, 1, 2])), DRAWS),
    "NumPy's draws": Hostile(drawing(lambda layer, h: float(np.random.rand())), DRAWS),
    "draws of its own": Hostile(private_stream, "two passes over the same images differ"),
    "attention dropout": Hostile(attention, DRAWS),
    "recurrent dropout": Hostile(recurrent, DRAWS),
    "randomised ReLU": Hostile(lambda: before_head(nn.RReLU().train()), DRAWS),
    "scripted dropout": Hostile(lambda: scripted(nn.Dropout(0.4)), DRAWS),
    "traced dropout": Hostile(traced, DRAWS),
    "plain, in training mode": Hostile(lambda: (plain().train(), plain()), None, None, None),
    "dropout": Hostile(lambda: before_head(nn.Dropout(0.4).train()), MODE),
    "alpha dropout": Hostile(lambda: before_head(nn.AlphaDropout(0.4).train()), MODE),
    "batch norm": Hostile(lambda: before_head(nn.BatchNorm1d(WIDTH).train()), MODE),
    "batch norm without statistics": Hostile(
        lambda: before_head(nn.BatchNorm1d(WIDTH, track_running_stats=False).eval()), "running statistics"),
    "scripted batch norm": Hostile(lambda: scripted(nn.BatchNorm1d(WIDTH)), NEIGHBOURS),
    "functional batch norm": Hostile(functional_norm, NEIGHBOURS),
    "mean of the batch": Hostile(lambda: before_head(Layer(lambda layer, h: h - h.mean(0))), NEIGHBOURS),
    "first of the batch": Hostile(lambda: before_head(Layer(lambda layer, h: h + h[:1])), NEIGHBOURS),
    "one size of batch": Hostile(one_size, "fails on"),
    "spectral norm in training mode": Hostile(spectral_in_training, "buffer", "parametrization", "parametrization"),
    "a hook on the output": Hostile(altered(double_output, lambda layer, h: 2 * h), None, HOOKS, HOOKS),
    "a hook on the input": Hostile(altered(negative_input, lambda layer, h: -h, 2), None, HOOKS, HOOKS),
    "a forward of its own": Hostile(
        altered(double_forward, lambda layer, h: 2 * h), None, "forward that is not", "forward that is not"),
    "weight norm by a hook": Hostile(altered(loaded(nn.utils.weight_norm)), None, HOOKS, HOOKS),
    "weight norm": Hostile(altered(loaded(parametrizations.weight_norm)), None, "parametrization", "parametrization"),
    "spectral norm by a hook": Hostile(altered(nn.utils.spectral_norm), None, HOOKS, HOOKS),
    "spectral norm": Hostile(altered(parametrizations.spectral_norm), None, "parametrization", "parametrization"),
    "pruned": Hostile(altered(lambda layer: prune.l1_unstructured(layer, "weight", 0.4)), None, HOOKS, HOOKS),
    "pruned and normed, for good": Hostile(altered(taken_off), None, None, None),
    "residual": Hostile(residual, None),
    "a subclass of Classifier": Hostile(louder, None),
    "features of its own": Hostile(own_features, None, "features that is not", "features that is not"),
    "one parameter in two layers": Hostile(tied(tie_parameter), None, None, "share a parameter"),
    "two parameters on one storage": Hostile(tied(tie_storage), None, None, "share a parameter"),
    "in place": Hostile(in_place, None, None, None),
    "begins in place": Hostile(
        begins_with(nn.ReLU(inplace=True), nn.ReLU()), None, None, None, {"least_budget": "wants a body"}),
    "writes into its input": Hostile(begins_with(Layer(lambda layer, x: x.mul_(0.5)), Layer(lambda layer, x: x * 0.5)), None),
    "writes into its input unseen": Hostile(begins_with(Layer(written), Layer(lambda layer, x: x + (0.5 * x - x).detach())), None),
    "the same storage each time": Hostile(kept_output, None, "linear in the features", UNKNOWN, {"lipschitz_upper_bound": None}),
    "a constant made at the first call": Hostile(lazy, None),
    "made in inference mode": Hostile(inference, "inference_mode", None, None),
    "softRmax": Hostile(softrmax, None, "linear in the features", UNKNOWN, {"lipschitz_upper_bound": None}),
    "a negative unit": Hostile(backwards, None, "no interval rule", None, {"lipschitz_upper_bound": None}),
    "half frozen": Hostile(half_frozen, None, None, None, {"train_path": "frozen"}),
    "a softplus that jumps": Hostile(jumping, None),
    "no ReLU": Hostile(convolutional, None, None, None, {"centred_score_bounds": UNKNOWN, "least_budget": UNKNOWN}),
    "a NaN": Hostile(
        infected, "NaN", "not finite", "not finite",
        {"predict": "", "lipschitz_lower_bound": "", "corner_outputs": "", "gradient_normals": "no gradient"}),
}  # fmt: skip
