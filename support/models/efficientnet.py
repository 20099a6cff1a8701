"""EfficientNet-Lite0 (Google, 2020; Tan and Le 2019) with its batch norms folded into the
convolutions: fewer passes over memory, and nothing that a mode of training could change."""

import torch
from torch import Tensor, nn

from support.models.architectures import Classifier, Normalise
from support.models.heads import LinearHead

_EPSILON = 1e-3  # of its batch norms
_STAGES = (  # blocks, kernel, stride of the first, expansion
    (1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6),
    (1, 3, 1, 6),
)  # fmt: skip


class _Block(nn.Module):
    """Expansion, a convolution of each channel, projection; beside the identity where it fits."""

    def __init__(self, layers: list[nn.Module], residual: bool):
        super().__init__()
        self.layers, self.residual = nn.Sequential(*layers), residual

    def extra_repr(self) -> str:
        return f"residual={self.residual}"

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def lite0(state: dict[str, Tensor]) -> Classifier:
    """The network of published weights, for (N, 3, 224, 224) pictures in [0, 1]; d = 1280 (pooled),
    K = 1000. Convolutions are in the order of memory that is fast for them (channels last).

    Args:
        state: parameters and statistics under the names of ``efficientnet-lite-pytorch``.

    Raises:
        KeyError: a name that is missing.
    """
    half = Normalise(127 / 255, 128 / 255)
    layers: list[nn.Module] = [half, *_folded(state, "_conv_stem", "_bn0", 3, 2), nn.ReLU6()]
    number = 0
    for count, kernel, first, expansion in _STAGES:
        for place in range(count):
            layers.append(
                _block(state, f"_blocks.{number}", kernel, 1 if place else first, expansion)
            )
            number += 1
    layers += [*_folded(state, "_conv_head", "_bn1", 1, 1), nn.ReLU6()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    body = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    return Classifier(body, LinearHead(state["_fc.weight"], state["_fc.bias"])).eval()


def _block(state: dict[str, Tensor], name: str, kernel: int, stride: int, expansion: int) -> _Block:
    layers: list[nn.Module] = []
    if expansion > 1:
        layers += [*_folded(state, f"{name}._expand_conv", f"{name}._bn0", 1, 1), nn.ReLU6()]
    layers += _folded(state, f"{name}._depthwise_conv", f"{name}._bn1", kernel, stride)
    layers += [nn.ReLU6(), *_folded(state, f"{name}._project_conv", f"{name}._bn2", 1, 1)]
    given = next(layer.in_channels for layer in layers if isinstance(layer, nn.Conv2d))
    return _Block(layers, stride == 1 and given == layers[-1].out_channels)


def _folded(
    state: dict[str, Tensor], name: str, norm: str, kernel: int, stride: int
) -> list[nn.Module]:
    """A convolution with its batch norm in it, behind the padding that keeps ``ceil(side /
    stride)`` positions of an even side, the odd row and column at the end."""
    weight = state[f"{name}.weight"]
    mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    factor = state[f"{norm}.weight"].double() / (variance.double() + _EPSILON).sqrt()
    bias = state[f"{norm}.bias"].double() - mean.double() * factor
    alone = weight.shape[1] == 1  # each channel by itself
    channels = len(weight) if alone else weight.shape[1]
    groups = channels if alone else 1
    layer = nn.utils.skip_init(
        nn.Conv2d, channels, len(weight), kernel, stride=stride, groups=groups
    )
    folded = {"weight": (weight.double() * factor[:, None, None, None]).float()}
    layer.load_state_dict(folded | {"bias": bias.float()})
    around = kernel - stride
    pad = (around // 2, around - around // 2)
    return [nn.ZeroPad2d(pad * 2), layer] if around > 0 else [layer]
