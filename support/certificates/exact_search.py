"""What the images of an eps-ball can reach: an enclosure of the scores, and for small networks the
least budget, exactly.

A search that finds nothing proves nothing. An enclosure that leaves a value out proves that no
image of the ball has it, and a mixed integer programme finds the least ball that has one. Both are
in float64, up to its rounding. Chapter 3.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_array, hstack, identity, vstack
from torch import Tensor, nn
from torch.nn import functional

from support.attacks import interval
from support.models.architectures import Classifier, Normalise

_MONOTONE = (
    nn.ReLU,
    nn.Flatten,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Identity,
    Normalise,
)


@dataclass(frozen=True)
class LeastBudget:
    """The least radius at which a ball holds a wanted image.

    Attributes:
        lower: no smaller radius does, in pixel units.
        upper: this one does; equal to ``lower`` up to 1e-6 unless the time ran out. Infinite if no
            image was found.
        x: (C, H, W) float64, the image found, or None.
    """

    lower: float
    upper: float
    x: Tensor | None


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
    low, high = _body_bounds(model, *interval(x.double(), eps))[-1]
    weight, bias = _centred_head(model)
    return _affine(
        low, high, lambda value: value @ weight.T, lambda value: value @ weight.abs().T, bias
    )


def least_budget(
    model: Classifier,
    x: Tensor,
    *,
    like: Tensor | None = None,
    label: int | None = None,
    within: float = 1.0,
    seconds: float = 60.0,
) -> LeastBudget:
    """The least eps at which some image within eps of x has another's softmax output, or goes to a
    class: a mixed integer programme.

    Each ReLU that is not fixed on the ball of radius ``within`` is one binary variable (Tjeng, Xiao
    and Tedrake 2019), so this is for networks of some dozens of hidden units.

    Args:
        model: a multilayer perceptron of Linear and ReLU, with Normalise (one channel) and Flatten,
            and a linear head.
        x: (C, H, W), one image in [0, 1].
        like: (C, H, W), the image whose softmax output shall be equalled, or
        label: the class whose score shall be at least every other one. One of the two.
        within: no larger radius is looked at; smaller is faster. The distance to ``like`` is one
            that suffices.
        seconds: when to stop and return what is known.

    Returns:
        Both ends; infinity for both where no image within ``within`` does.

    Raises:
        ValueError: a network that is not piecewise linear as above, or both or neither of the
            goals.
    """
    if (like is None) == (label is None):
        raise ValueError(
            "least_budget wants either an image to be like or a label to reach, one of the two"
        )
    model = copy.deepcopy(model).double()  # equality asks for all the digits that there are
    layers = [layer for layer in model.body if not isinstance(layer, nn.Flatten | nn.Identity)]
    mean, std = 0.0, 1.0
    if layers and isinstance(layers[0], Normalise) and layers[0].mean.numel() == 1:
        mean, std = float(layers[0].mean), float(layers[0].std)
        layers = layers[1:]
    if [type(layer) for layer in layers] != [nn.Linear, nn.ReLU] * (len(layers) // 2) or not layers:
        raise ValueError(
            f"least_budget wants a body of Linear and ReLU in turns; {[type(layer).__name__ for layer in layers]} was given"
        )
    if like is not None:
        within = min(within, float((like.double() - x.double()).abs().max()))
    start = x.detach().double().reshape(-1).numpy()
    bounds = [
        (low.numpy(), high.numpy())
        for layer, (low, high) in zip(
            model.body, _body_bounds(model, *interval(x[None].double(), within))[1:], strict=True
        )
        if isinstance(layer, nn.Linear)
    ]
    # Variables: pixels, then per hidden layer its outputs and its switches, and the radius last.
    widths = [layer.out_features for layer in layers if isinstance(layer, nn.Linear)]
    places = np.cumsum([len(start), *(size for width in widths for size in (width, width))])
    count = int(places[-1]) + 1

    def at(place: int, matrix: np.ndarray) -> csr_array:
        """Columns of a constraint matrix: ``matrix`` at a place, zeros elsewhere."""
        rows, columns = matrix.shape
        return hstack(
            [
                csr_array((rows, place)),
                csr_array(matrix),
                csr_array((rows, count - place - columns)),
            ],
            format="csr",
        )

    least, most = np.zeros(count), np.full(count, np.inf)
    least[: len(start)], most[: len(start)] = (
        np.maximum(start - within, 0),
        np.minimum(start + within, 1),
    )
    most[-1] = within
    radius = at(count - 1, np.ones((len(start), 1)))
    pixels = at(0, identity(len(start)).toarray())
    rows = [
        LinearConstraint(pixels - radius, -np.inf, start),
        LinearConstraint(pixels + radius, start, np.inf),
    ]
    whole = np.zeros(count)
    before = 0
    for index, (layer, (low, high)) in enumerate(zip(layers[::2], bounds, strict=True)):
        weight, bias = (value.detach().numpy() for value in (layer.weight, layer.bias))
        if index == 0:
            weight, bias = weight / std, bias - weight.sum(1) * mean / std
        low, high = low[0], high[0]
        out, switch = int(places[2 * index]), int(places[2 * index + 1])
        unit = np.eye(len(bias))
        below, above = np.minimum(low, 0), np.maximum(high, 0)
        rest = at(out, unit) - at(
            before, weight
        )  # output minus pre-activation, without the bias: at least b, and b where the unit is on
        rows += [
            LinearConstraint(rest, bias, np.inf),
            LinearConstraint(rest - at(switch, np.diag(below)), -np.inf, bias - below),
            LinearConstraint(at(out, unit) - at(switch, np.diag(above)), -np.inf, 0.0),
        ]
        most[out : out + len(bias)] = above
        least[switch : switch + len(bias)], most[switch : switch + len(bias)] = (
            (low >= 0),
            (high > 0),
        )
        whole[switch : switch + len(bias)] = 1
        before = out
    weight, bias = (value.numpy() for value in _centred_head(model))
    if like is not None:
        with torch.no_grad():
            wanted = weight @ model.features(like[None].double())[0].numpy()
        rows.append(LinearConstraint(at(before, weight), wanted, wanted))
    else:
        rows.append(
            LinearConstraint(at(before, weight[label] - weight), bias - bias[label], np.inf)
        )
    cost = np.zeros(count)
    cost[-1] = 1.0
    ends = (
        np.concatenate([np.broadcast_to(getattr(row, end), row.A.shape[0]) for row in rows])
        for end in ("lb", "ub")
    )
    together = LinearConstraint(vstack([row.A for row in rows]), *ends)
    answer = milp(
        cost,
        constraints=together,
        integrality=whole,
        bounds=(least, most),
        options={"time_limit": seconds, "mip_rel_gap": 1e-6},
    )
    if answer.status == 2:
        return LeastBudget(math.inf, math.inf, None)
    lower = float(answer.mip_dual_bound) if answer.mip_dual_bound is not None else 0.0
    if answer.x is None:
        return LeastBudget(max(lower, 0.0), math.inf, None)
    found = torch.from_numpy(answer.x[: len(start)].clip(0, 1)).reshape(x.shape)
    return LeastBudget(max(lower, 0.0), float(answer.x[-1]), found)


def _centred_head(model: Classifier) -> tuple[Tensor, Tensor]:
    weight, bias = getattr(model.head, "weight", None), getattr(model.head, "bias", None)
    if weight is None:
        raise ValueError(
            f"a head with a weight is wanted, whose scores are linear in the features; {type(model.head).__name__} was given"
        )
    weight = weight.detach()
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    return weight - weight.mean(0), bias - bias.mean()


def _body_bounds(model: Classifier, low: Tensor, high: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The box before the first layer of the body and after each."""
    boxes = [(low, high)]
    for layer in model.body:
        low, high = boxes[-1]
        kind = type(layer)
        if kind is nn.Linear:
            boxes.append(_affine(low, high, *_products(layer, functional.linear, {})))
        elif kind is nn.Conv2d and layer.padding_mode == "zeros":
            settings = {
                name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")
            }
            boxes.append(_affine(low, high, *_products(layer, functional.conv2d, settings)))
        elif kind in _MONOTONE:
            boxes.append((layer(low), layer(high)))
        else:
            raise ValueError(f"no interval rule is known here for a {kind.__name__}: {layer}")
    return boxes


def _products(layer: nn.Module, function, settings: dict):
    weight = layer.weight.detach()
    bias = (
        None if layer.bias is None else layer.bias.detach().reshape(-1, *[1] * (weight.dim() - 2))
    )
    return (
        (lambda value: function(value, weight, **settings)),
        (lambda value: function(value, weight.abs(), **settings)),
        bias,
    )


def _affine(
    low: Tensor, high: Tensor, product, absolute, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The box of an affine map: its middle is mapped by the weights, its half width by their
    absolute values."""
    middle, half = product((low + high) / 2), absolute((high - low) / 2)
    middle = middle if bias is None else middle + bias
    return middle - half, middle + half
