"""The least eps-ball that holds a wanted image, exactly, for small networks: a mixed integer
programme (chapter 3). In float64, up to its rounding.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import LinearConstraint, milp
from torch import Tensor, nn

from support.attacks import interval
from support.certificates.bounds import body_bounds, centred_head, double_copy
from support.common.arguments import images
from support.models.architectures import Classifier, Normalise, plain_layers
from support.models.heads import last_layer


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


@torch.inference_mode(False)
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
    model = double_copy(model)  # equality asks for all the digits that there are
    body = [layer for _, layer in plain_layers(model.body)]
    layers = [layer for layer in body if not isinstance(layer, nn.Flatten | nn.Identity)]
    mean, std = 0.0, 1.0
    if layers and isinstance(layers[0], Normalise) and layers[0].mean.numel() == 1:
        mean, std = float(layers[0].mean), float(layers[0].std)
        layers = layers[1:]
    kinds = [type(layer) for layer in layers]
    if kinds != [nn.Linear, nn.ReLU] * (len(layers) // 2) or not layers:
        given = [kind.__name__ for kind in kinds]
        raise ValueError(
            f"least_budget wants a body of Linear and ReLU in turns; {given} was given"
        )
    images("x", x[None])
    if like is not None:
        images("like", like[None])
        within = min(within, float((like.double() - x.double()).abs().max()))
    start = x.detach().double().reshape(-1).numpy()
    boxes = body_bounds(model, *interval(x[None].double(), within))[1:]
    bounds = [
        (low[0].numpy(), high[0].numpy())
        for layer, (low, high) in zip(body, boxes, strict=True)
        if isinstance(layer, nn.Linear)
    ]
    # Variables: pixels, then per hidden layer its outputs and its switches, and the radius last.
    widths = [layer.out_features for layer in layers[::2]]
    places = np.cumsum([len(start), *np.repeat(widths, 2)]).tolist()
    count = places[-1] + 1

    def at(place: int, matrix: np.ndarray) -> np.ndarray:
        """Columns of a constraint matrix: ``matrix`` at a place, zeros elsewhere."""
        return np.pad(matrix, ((0, 0), (place, count - place - matrix.shape[1])))

    least, whole, cost = np.zeros((3, count))
    most = np.full(count, np.inf)
    least[: len(start)] = np.maximum(start - within, 0)
    most[: len(start)] = np.minimum(start + within, 1)
    most[-1], cost[-1] = within, 1
    radius, pixels = at(count - 1, np.ones((len(start), 1))), at(0, np.eye(len(start)))
    rows = [
        LinearConstraint(pixels - radius, -np.inf, start),
        LinearConstraint(pixels + radius, start, np.inf),
    ]
    before = 0
    for index, (layer, (low, high)) in enumerate(zip(layers[::2], bounds, strict=True)):
        weight, bias = (v.detach().numpy() for v in last_layer(layer.weight, layer.bias))
        if index == 0:
            weight, bias = weight / std, bias - weight.sum(1) * mean / std
        out, switch, end = places[2 * index : 2 * index + 3]
        unit = at(out, np.eye(len(bias)))
        below, above = np.minimum(low, 0), np.maximum(high, 0)
        # output minus pre-activation, without the bias: at least b, and b where the unit is on
        rest = unit - at(before, weight)
        rows += [
            LinearConstraint(rest, bias, np.inf),
            LinearConstraint(rest - at(switch, np.diag(below)), -np.inf, bias - below),
            LinearConstraint(unit - at(switch, np.diag(above)), -np.inf, 0.0),
        ]
        most[out:switch], whole[switch:end] = above, 1
        least[switch:end], most[switch:end] = low >= 0, high > 0
        before = out
    weight, bias = (value.numpy() for value in centred_head(model))
    if like is not None:
        with torch.no_grad():
            wanted = weight @ model.features(like[None].double())[0].numpy()
        rows.append(LinearConstraint(at(before, weight), wanted, wanted))
    else:
        ahead, short = weight[label] - weight, bias - bias[label]
        rows.append(LinearConstraint(at(before, ahead), short, np.inf))
    limits = {"time_limit": seconds, "mip_rel_gap": 1e-6}
    answer = milp(cost, constraints=rows, integrality=whole, bounds=(least, most), options=limits)
    infeasible = answer.status == 2
    lower = math.inf if infeasible else max(float(answer.mip_dual_bound or 0.0), 0.0)
    if answer.x is None:
        return LeastBudget(lower, math.inf, None)
    found = torch.from_numpy(answer.x[: len(start)].clip(0, 1)).reshape(x.shape)
    return LeastBudget(lower, float(answer.x[-1]), found)
