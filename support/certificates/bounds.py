"""What the images of an eps-ball can reach, from outside: an enclosure of the scores (chapter 3).

A search that finds nothing proves nothing. An enclosure that leaves a value out proves that no
image of the ball has it. In float64, up to its rounding.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from support.attacks import interval
from support.models.architectures import Classifier, Normalise
from support.models.heads import last_layer

_MONOTONE = (
    nn.ReLU,
    nn.Flatten,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Identity,
    Normalise,
)


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
        ValueError: a layer without a rule here, named; a head that is not linear.
    """
    model = copy.deepcopy(model).double()
    low, high = body_bounds(model, *interval(x.double(), eps))[-1]
    weight, bias = centred_head(model)
    return _affine(low, high, functional.linear, weight, bias)


def centred_head(model: Classifier) -> tuple[Tensor, Tensor]:
    """Weight (K, d) and bias (K,) of the scores minus their mean, float64.

    Raises:
        ValueError: a head that is not linear.
    """
    weight, bias = getattr(model.head, "weight", None), getattr(model.head, "bias", None)
    if weight is None:
        raise ValueError(
            "a head with a weight is wanted, whose scores are linear in the features; "
            f"{type(model.head).__name__} was given"
        )
    return tuple(part.detach() - part.detach().mean(0) for part in last_layer(weight, bias))


def body_bounds(model: Classifier, low: Tensor, high: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The box before the first layer of the body and after each, (N, ...) ends each.

    Raises:
        ValueError: a layer without a rule here, named.
    """
    boxes = [(low, high)]
    for layer in model.body:
        kind = type(layer)
        if kind is nn.Linear:
            box = _affine(*boxes[-1], functional.linear, layer.weight, layer.bias)
        elif kind is nn.Conv2d and layer.padding_mode == "zeros":
            bias = None if layer.bias is None else layer.bias[:, None, None]
            settings = layer.stride, layer.padding, layer.dilation, layer.groups
            box = _affine(*boxes[-1], functional.conv2d, layer.weight, bias, *settings)
        elif kind in _MONOTONE:
            box = tuple(map(layer, boxes[-1]))
        else:
            raise ValueError(f"no interval rule is known here for a {kind.__name__}: {layer}")
        boxes.append(box)
    return boxes


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
