"""Small networks, pictures and counters that the tests of the attacks share."""

import copy
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from support.attacks import margin


class Counted(nn.Module):
    """A model that counts its passes and the images in them."""

    def __init__(self, model):
        super().__init__()
        self.model, self.passes, self.images = model, 0, 0

    def forward(self, x):
        self.passes += 1
        self.images += len(x)
        return self.model(x)


class Bomb(nn.Module):
    """A model that must not be reached."""

    def forward(self, x):
        raise AssertionError("the model was called before the input was checked")


class Recorder(nn.Module):
    """A model that keeps every batch that it is given."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x)


def never(scores: Tensor, y: Tensor) -> Tensor:
    """A success rule that nothing meets: a search goes on to its end."""
    return torch.zeros(len(y), dtype=torch.bool, device=y.device)


def linear(shape: tuple[int, ...], classes: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Scores that are linear in the image."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), classes)).to(dtype).eval()


def convolutional(channels: int, side: int, classes: int, *, seed: int = 0, sharp: float = 1.0) -> nn.Sequential:
    """A random network, scores scaled by ``sharp``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * side**2, classes)).eval()
        net[-1].weight.data *= sharp
        return net


def pictures(count: int, shape: tuple[int, ...], *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform noise, a tenth of the pixels black and a tenth white."""
    stream = torch.Generator().manual_seed(seed)
    return (torch.rand((count, *shape), generator=stream, dtype=dtype) * 1.25 - 0.125).clamp(0, 1)


def classes_of(model: nn.Module, x: Tensor) -> Tensor:
    """The model's own answers: labels under which every clean image is right."""
    with torch.no_grad():
        return model(x).argmax(1)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: 1,797 images (1, 8, 8) in [0,1] and their labels."""
    found = load_digits()
    return torch.tensor(found.images / 16, dtype=torch.float32)[:, None], torch.tensor(found.target, dtype=torch.int64)


@cache
def trained() -> nn.Sequential:
    """An undefended network that fits the first 1,297 digits: random convolutions, and a last layer by ridge regression (do not change
    it: the tests share it).

    There is no training whose noise could differ between machines: to the sixth digit this network is the same everywhere.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
        net = nn.Sequential(*body, nn.Flatten(), nn.Linear(2048, 10))
    regress(net[:-1], net[-1], *(part[:1297] for part in digits()))
    return net.eval()


def regress(body: nn.Module, layer: nn.Linear, x: Tensor, y: Tensor, *, ridge: float = 0.1) -> None:
    """Put the ridge regression of the labels on the features into the last layer, scaled to a median margin of 8."""
    with torch.no_grad():
        features = copy.deepcopy(body).double()(x.double())
        labels = nn.functional.one_hot(y).double()
        centred = features - features.mean(0)
        kernel = centred @ centred.T
        kernel.diagonal().add_(ridge * kernel.diagonal().mean())
        weight = centred.T @ torch.linalg.solve(kernel, labels - labels.mean(0))
        bias = labels.mean(0) - features.mean(0) @ weight
        scale = 8 / margin(features @ weight + bias, y).median()
        layer.weight.copy_(scale * weight.T)
        layer.bias.copy_(scale * bias)


def held_out(count: int) -> tuple[Tensor, Tensor]:
    """Digits that :func:`trained` has not seen."""
    x, y = digits()
    return x[1297 : 1297 + count], y[1297 : 1297 + count]


def looked(count: int) -> int:
    """Images that a model sees, in two passes, before a call on so many begins: up to eight of them, and as many negatives."""
    both = 2 * min(max(count // 2, 1), 8)
    return 2 * (both - (both == count))


def same(first, second, index=slice(None)) -> bool:
    """Whether two results agree to the bit; ``index`` selects images of the second."""
    return all(torch.equal(getattr(first, name), getattr(second, name)[index]) for name in ("x_adv", "success", "margin", "queries"))


def same_verdicts(first, second) -> bool:
    """What the contract promises across batch sizes: equal verdicts except at margins below 1e-5."""
    close = torch.minimum(first.margin.abs(), second.margin.abs()) < 1e-5
    return bool((close | (first.success == second.success)).all())


def margin_now(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return margin(model(x), y)
