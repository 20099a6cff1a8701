"""What the images of an eps-ball can reach, from outside: an enclosure of the scores (chapter 3).

A search that finds nothing proves nothing. An enclosure that leaves a value out proves that no
image of the ball has it. In float64, up to its rounding.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from support.attacks import interval
from support.common.arguments import images
from support.models.architectures import Classifier, Normalise, plain_layers
from support.models.heads import LinearHead, last_layer

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_MONOTONE = (nn.ReLU, nn.Flatten, nn.Identity, Normalise, *_POOLING)


@torch.inference_mode(False)
def centred_score_bounds(model: Classifier, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Bounds on each class's score minus the mean score over the images within eps of each x
    (interval bound propagation).

    Each layer maps a box to the smallest box that holds its image (Gowal et al. 2019); the mean is
    taken into the last layer first. Two images have the same softmax output exactly if their
    centred scores agree, so a centred score out of bounds is out of reach.

    Args:
        model: its body has layers among Linear, Conv2d with zero padding, ReLU, pooling, Flatten,
            Normalise, its head a weight and a bias.
        x: (N, C, H, W) images in [0, 1].
        eps: radius in the maximum norm, pixel units; the images of the ball lie in [0, 1] too.

    Returns:
        Lower and upper bounds, (N, K) float64 each.

    Raises:
        ValueError: a layer without a rule here, named; a head that is not linear; what
            :func:`support.models.architectures.refuse_altered` refuses.
    """
    images("x", x)
    model = double_copy(model)
    low, high = body_bounds(model, *interval(x.double(), eps))[-1]
    weight, bias = centred_head(model)
    return _affine(low, high, functional.linear, weight, bias)


def double_copy(model: Classifier) -> Classifier:
    """A classifier in float64, which computes what its layers say.

    Raises:
        ValueError: another module, or one that was altered.
    """
    if type(model) is not Classifier:
        raise ValueError(f"a Classifier is wanted; {type(model).__name__} was given")
    list(plain_layers(model))  # an altered layer is refused
    return copy.deepcopy(model).double()


def centred_head(model: Classifier) -> tuple[Tensor, Tensor]:
    """Weight (K, d) and bias (K,) of the scores minus their mean, float64.

    Raises:
        ValueError: a head that is not linear.
    """
    head = model.head
    if type(head) not in (LinearHead, nn.Linear):
        raise ValueError(
            "a head with a weight is wanted, whose scores are linear in the features; "
            f"{type(head).__name__} was given"
        )
    parts = last_layer(head.weight, head.bias)
    return tuple(part.detach() - part.detach().mean(0) for part in parts)


def body_bounds(model: Classifier, low: Tensor, high: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The box before the first layer of the body and after each, (N, ...) ends each.

    Raises:
        ValueError: a layer without a rule here, named.
    """
    boxes = [(low, high)]
    for name, layer in plain_layers(model.body):
        kind = type(layer)
        if kind is nn.Linear:
            box = _affine(*boxes[-1], functional.linear, layer.weight, layer.bias)
        elif kind is nn.Conv2d and layer.padding_mode == "zeros":
            bias = None if layer.bias is None else layer.bias[:, None, None]
            settings = layer.stride, layer.padding, layer.dilation, layer.groups
            box = _affine(*boxes[-1], functional.conv2d, layer.weight, bias, *settings)
        elif kind in _MONOTONE and _monotone(layer):
            box = tuple(layer(end.clone()) for end in boxes[-1])  # it may work in place
        else:
            written = " ".join(str(layer).split())
            raise ValueError(
                f"no interval rule is known here for {name}, a {kind.__name__}: {written:.100}"
            )
        boxes.append(box)
    return boxes


def _monotone(layer: nn.Module) -> bool:
    if type(layer) is Normalise:
        return bool((layer.std > 0).all())
    divided = getattr(layer, "divisor_override", None) is not None
    return not divided and not getattr(layer, "return_indices", False)


@torch.no_grad()
def _affine(
    low: Tensor, high: Tensor, product, weight: Tensor, bias: Tensor | None, *settings
) -> tuple[Tensor, Tensor]:
    """The box of an affine map: its middle is mapped by the weights, its half width by their
    absolute values."""
    middle = product((low + high) / 2, weight, None, *settings)
    half = product((high - low) / 2, weight.abs(), None, *settings)
    middle = middle if bias is None else middle + bias
    return middle - half, middle + half
