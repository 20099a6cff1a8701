"""Small networks, pictures and counters that the tests of the attacks share."""

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
    """An undefended network on the first 1,297 digits (do not change it: the tests share it)."""
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        body = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
        net = nn.Sequential(*body, nn.Flatten(), nn.Linear(2048, 10))
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        x, y = (part[:1297] for part in digits())
        for _ in range(6):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()
        net.zero_grad(set_to_none=True)
        return net.eval()


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
