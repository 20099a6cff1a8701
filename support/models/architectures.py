"""Classifiers: images in [0, 1] to log-scores. Normalisation lives inside, ``features`` ends where
``head`` begins.

Every builder draws its weights from its own seed and leaves the global random state alone, and
returns the model in evaluation mode on the CPU. Used by every chapter.
"""

import contextlib
import copy as copying
import hashlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from support.common.arguments import choice, whole_number
from support.models.heads import LinearHead

_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Normalise(nn.Module):
    """``(x - mean) / std`` per channel, for x (N, C, H, W); mean and std are numbers or one per
    channel."""

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]):
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            column = torch.as_tensor(value, dtype=torch.float32, device="cpu").reshape(-1, 1, 1)
            self.register_buffer(name, column)
        if not (self.std > 0).all():
            raise ValueError(f"std must be positive; {std} was given")

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Classifier(nn.Module):
    """A feature map and a head on it.

    Args:
        body: module from images (N, C, H, W) in [0, 1] to features (N, d).
        head: module from features (N, d) to log-scores (N, K), one of :mod:`support.models.heads`.
    """

    def __init__(self, body: nn.Module, head: nn.Module):
        super().__init__()
        self.body = body
        self.head = head

    def features(self, x: Tensor) -> Tensor:
        """(N, d): what the head sees."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) log-scores."""
        return self.head(self.features(x))


def mlp(
    shape: Sequence[int],
    hidden: Sequence[int],
    n_classes: int,
    *,
    seed: int = 0,
    mean: float = 0.0,
    std: float = 1.0,
) -> Classifier:
    """Multilayer perceptron with ReLU after every hidden layer; the features are the last hidden
    layer, d = hidden[-1].

    Args:
        shape: (C, H, W) of the images.
        hidden: widths of the hidden layers, at least one.
        n_classes: K.
        seed: of the initial weights.
        mean, std: normalisation of the pixels.
    """
    widths = [math.prod(_image_shape(shape)), *hidden]
    if not hidden or min(hidden) < 1:
        raise ValueError(
            f"hidden must hold at least one width, each at least 1; {tuple(hidden)} was given"
        )
    with seeded(seed):
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        body = (Normalise(mean, std), nn.Flatten(), *itertools.chain(*layers))
        return linear_classifier(body, widths[-1], n_classes)


def lenet(shape: Sequence[int] = (1, 28, 28), n_classes: int = 10, *, seed: int = 0) -> Classifier:
    """LeNet: 5x5 convolutions to 6 and 16 channels with 2x2 max pooling, fully connected 120 and
    84; ReLU, d = 84.

    Pixels are mapped to [-0.5, 0.5], as the authors of hess2020 do. 28x28 images give the second
    pooling 4x4 positions.

    Raises:
        ValueError: images smaller than 16x16.
    """
    channels, height, width = _image_shape(shape, 16)
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    with seeded(seed):
        body = (
            Normalise(0.5, 1.0),
            nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(16 * rows * columns, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
        )  # fmt: skip
        return linear_classifier(body, 84, n_classes)


def small_cnn(
    shape: Sequence[int], n_classes: int, *, seed: int = 0, width: int = 16
) -> Classifier:
    """Four 3x3 convolutions with batch norm and ReLU, each but the last followed by 2x2 max
    pooling, then the mean over positions.

    The channels are w, 2w, 4w, 4w for ``width`` w; d = 4w. Made to train on a CPU.

    Raises:
        ValueError: images smaller than 8x8.
    """
    channels, _, _ = _image_shape(shape, 8)
    widths = (channels, width, 2 * width, 4 * width, 4 * width)
    layers: list[nn.Module] = []
    with seeded(seed):
        for a, b in itertools.pairwise(widths):
            convolution = nn.Conv2d(a, b, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
        layers[-1] = nn.AdaptiveAvgPool2d(1)
        body = (_picture_normalisation(channels), *layers, nn.Flatten())
        return linear_classifier(body, 4 * width, n_classes)


def linear_model(shape: Sequence[int], n_classes: int, *, seed: int = 0) -> Classifier:
    """Scores linear in the pixels (FC10-k of bell2023, Table 1); the features are the pixels, d = C
    H W. Chapter 5."""
    with seeded(seed):
        return linear_classifier([nn.Flatten()], math.prod(_image_shape(shape)), n_classes)


def convnet(
    shape: Sequence[int], channels: int, n_classes: int, *, seed: int = 0, kernel: int = 5
) -> Classifier:
    """C-Ch of bell2023, Table 3: four convolutions without padding, 2x2 max pooling, a hidden layer
    of 256; d = 256. Chapter 5.

    The table names no activations; there is a ReLU after every convolution and after the hidden
    layer.

    Args:
        shape: (C, H, W) of the images.
        channels: Ch, of all four convolutions.
        n_classes: K.
        seed: of the initial weights.
        kernel: side of the convolutions, 5 in the paper; smaller images need a smaller one.

    Raises:
        ValueError: images that four such convolutions leave with less than two rows or columns.
    """
    inputs, height, width = _image_shape(shape)
    rows, columns = ((side - 4 * (kernel - 1)) // 2 for side in (height, width))
    if channels < 1 or kernel < 1 or min(rows, columns) < 1:
        raise ValueError(
            f"convnet needs channels and sides of at least {4 * (kernel - 1) + 2}; {channels} and "
            f"{height}x{width} were given"
        )
    widths = (inputs, *[channels] * 4)
    with seeded(seed):
        layers = [(nn.Conv2d(a, b, kernel), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        dense = nn.Flatten(), nn.Linear(channels * rows * columns, 256), nn.ReLU()
        body = (*itertools.chain(*layers), nn.MaxPool2d(2), *dense)
        return linear_classifier(body, 256, n_classes)


def resnet18(n_classes: int, *, seed: int = 0) -> Classifier:
    """torchvision's ResNet-18 for 32x32 colour images: first convolution 3x3 with stride 1, no max
    pooling; d = 512 (pooled)."""

    from support.common.vision import tv_models  # seconds to import, and only two builders need it

    with seeded(seed):
        net = tv_models.resnet18(weights=None)
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        # as torchvision starts the layer it replaces
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool, net.fc = nn.Identity(), nn.Identity()
        return linear_classifier([_picture_normalisation(3), net], 512, n_classes)


def vgg16(n_classes: int, *, seed: int = 0) -> Classifier:
    """torchvision's VGG-16 with batch norm for 32x32 colour images: its convolutions, then one
    linear layer; d = 512."""

    from support.common.vision import tv_models

    with seeded(seed):
        features = tv_models.vgg16_bn(weights=None).features  # five poolings leave one position
        return linear_classifier(
            [_picture_normalisation(3), features, nn.Flatten()], 512, n_classes
        )


class _CifarBlock(nn.Module):
    """Two 3x3 convolutions beside the identity. Where they halve the sides and double the channels,
    it takes every second pixel and adds channels of zeros (He et al. 2016, option A)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.stride, self.more = width // channels, width - channels
        self.conv1 = nn.Conv2d(channels, width, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        moved = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        before, behind = self.more // 2, self.more - self.more // 2
        kept = x[:, :, :: self.stride, :: self.stride]
        return (moved + nn.functional.pad(kept, (0, 0, 0, 0, before, behind))).relu()


def cifar_resnet(
    depth: int,
    n_classes: int,
    *,
    seed: int = 0,
    mean: float | Sequence[float] = _CIFAR_MEAN,
    std: float | Sequence[float] = _CIFAR_STD,
) -> Classifier:
    """The residual network for 32x32 colour images of He et al. (2016), section 4.2: three stages
    of 16, 32 and 64 channels with ``(depth - 2) / 6`` blocks each, shortcuts without weights; d =
    64 (pooled). Convolutions are in the order of memory that is fast for them (channels last).

    Args:
        depth: of the layers with weights, 6n + 2: 20, 32, 44, 56, ...
        n_classes: K.
        seed: of the initial weights.
        mean, std: normalisation of the pixels, per channel.

    Raises:
        ValueError: a depth that is not 6n + 2.
    """
    if whole_number("depth", depth, 8) % 6 != 2:
        raise ValueError(f"depth must be 6n + 2, such as 20 or 56; {depth} was given")
    count = (depth - 2) // 6
    with seeded(seed):
        layers: dict[str, nn.Module] = {"normalise": Normalise(mean, std)}
        layers["conv1"] = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        layers |= {"bn1": nn.BatchNorm2d(16), "relu": nn.ReLU()}
        for stage, (before, width) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            blocks = [
                _CifarBlock(before, width),
                *(_CifarBlock(width, width) for _ in range(1, count)),
            ]
            layers[f"layer{stage}"] = nn.Sequential(*blocks)
        layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        head = nn.Linear(64, n_classes)
        body = nn.Sequential(OrderedDict(layers)).to(memory_format=torch.channels_last)
        return Classifier(body, LinearHead(head.weight, head.bias)).eval()


NAMES = ("mlp", "lenet", "small_cnn", "resnet18", "vgg16")


def build(name: str, shape: Sequence[int], n_classes: int, *, seed: int = 0) -> Classifier:
    """A model by the name that profiles use, one of :data:`NAMES`; ``mlp`` has hidden layers of 128
    and 64.

    Raises:
        ValueError: an unknown name, or images that the model cannot take.
    """
    shape = _image_shape(shape)
    if choice("model", name, NAMES) == "mlp":
        return mlp(shape, (128, 64), n_classes, seed=seed)
    if name in ("lenet", "small_cnn"):
        return (lenet if name == "lenet" else small_cnn)(shape, n_classes, seed=seed)
    if shape != (3, 32, 32):
        raise ValueError(f"{name} takes images of shape (3, 32, 32); {shape} was given")
    return (resnet18 if name == "resnet18" else vgg16)(n_classes, seed=seed)


def with_head(model: Classifier, head: nn.Module, copy: bool = False) -> Classifier:
    """The same features under another head.

    Args:
        model: gives the body; its training or evaluation mode is kept.
        head: from features (N, d) to log-scores.
        copy: share nothing: body and head are deep copies, so training the result leaves ``model``
            as it is.
    """
    result = Classifier(model.body, head)
    if copy:
        result = copying.deepcopy(result)
    result.head.train(model.training)
    # not .train(): a shared body keeps the mode of each of its modules
    result.training = model.training
    return result


def fingerprint(model: nn.Module) -> str:
    """32 hexadecimal digits that stand for the model's structure, parameters and buffers: a cache
    key for work done on it."""
    total = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:32]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """:func:`float32_on` the CPU, with draws of its own from the CPU's generator; torch.manual_seed
    would reach the GPUs' too."""
    with torch.random.fork_rng(devices=[]), float32_on("cpu"):
        torch.random.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def float32_on(device: str | torch.device) -> Iterator[None]:
    """Factory calls make float32 on this device, whatever the defaults of the process are."""
    dtype = torch.get_default_dtype()
    with torch.device(device):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def plain_layers(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of a Classifier or a Sequential in the order in which they are applied, by name,
    one that stands there twice twice; any other module is one layer.

    For what reads a network's weights instead of asking it: each layer computes what its class says
    of its weights, or is refused. Whether the class is known is for the caller to see.

    Raises:
        ValueError: as :func:`refuse_altered`.
    """
    refuse_altered(module, name)
    if type(module) is Classifier:  # not isinstance: a subclass may compute something else
        yield from plain_layers(module.body, f"{name}.body".lstrip("."))
        yield from plain_layers(module.head, f"{name}.head".lstrip("."))
    elif type(module) is nn.Sequential:
        for place, part in enumerate(module):
            yield from plain_layers(part, f"{name}.{place}".lstrip("."))
    else:
        yield name or "the model", module


def refuse_altered(module: nn.Module, name: str = "") -> None:
    """Refuse a module that may compute something else than its class says, or with other weights
    than it holds.

    Raises:
        ValueError: hooks (``nn.utils.prune``, ``weight_norm`` and ``spectral_norm`` leave some), a
            parametrization, a method that was replaced, weights that are not plain, real and
            finite.
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        return  # of a class that nobody knows
    kind, everywhere = type(module), nn.modules.module
    values = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    own = [name for name in vars(module) if callable(getattr(kind, name, None))]
    maker = next(one for one in kind.__mro__ if "forward" in vars(one))
    own += ["forward"] if maker.forward.__module__ != maker.__module__ else []
    if is_parametrized(module):
        why = "a parametrization: torch.nn.utils.parametrize.remove_parametrizations takes it off"
    elif any(getattr(module, n) or getattr(everywhere, f"_global{n}") for n in _HOOKS):
        why = "hooks, which may change weights, inputs or outputs: remove them first"
    elif own:
        why = f"a {own[0]} that is not its class's own"
    elif any(type(value) not in (Tensor, nn.Parameter) or value.is_complex() for value in values):
        why = "weights of a kind of their own, where real tensors are wanted"
    elif not all(bool(value.detach().isfinite().all()) for value in values):
        why = "weights or statistics that are not finite"
    else:
        return
    raise ValueError(f"{name or 'the model'} ({kind.__name__}) has {why}")


def linear_classifier(body: Iterable[nn.Module], d: int, n_classes: int) -> Classifier:
    """Layers that end in features (N, d), and a linear head of fresh weights on them, in evaluation
    mode."""
    layer = nn.Linear(d, whole_number("n_classes", n_classes, 1))
    return Classifier(nn.Sequential(*body), LinearHead(layer.weight, layer.bias)).eval()


def _image_shape(shape: Sequence[int], least: int = 1) -> tuple[int, int, int]:
    shape = tuple(int(side) for side in shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"shape must be (channels, height, width), each at least 1; {shape} was given"
        )
    if min(shape[1:]) < least:
        raise ValueError(
            f"images of at least {least}x{least} pixels are wanted; {shape[1]}x{shape[2]} was "
            "given (mlp takes any size)"
        )
    return shape


def _picture_normalisation(channels: int) -> Normalise:
    return Normalise(_CIFAR_MEAN, _CIFAR_STD) if channels == 3 else Normalise(0.5, 0.5)
