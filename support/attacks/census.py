"""Every one-pixel colour corner of every image, for questions that no single search answers: rates
at all thresholds, several heads."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from support.attacks.base import LEAST_ROWS, fast_rows, first_outputs
from support.common.arguments import images, scoring_model, whole_number


def corner_outputs(
    function: Callable[[Tensor], Tensor], x: Tensor, *, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a function says of all ``H * W * 2**C`` ways to set one pixel to a corner of the colour
    cube, pass by pass.

    For a model that is linear in the pixel the best of them is the optimum over all colours; for a
    network it is a lower bound of the damage. The caller sees them all and may reduce them by any
    rule (``scatter_reduce_`` over the index). Used in the chapter "Softmax is k-means" to read one
    search through two heads and at every confidence threshold.

    Args:
        function: maps (n, C, H, W) images to (n, ...), for example a model or its features.
        x: (N, C, H, W) images in [0,1], float32 or float64.
        batch_size: candidates in a pass; ``None`` picks what is fast on the device.

    Yields:
        Pairs of the images' indices (n,) int64 and the outputs (n, ...), without gradients.

    Raises:
        ValueError: images of a wrong shape, dtype or range, or outputs that are random or depend on
            the other images.
    """
    images("x", x, pictures=True)
    scoring_model(function, "function")
    if batch_size is not None:
        whole_number("batch_size", batch_size, 1)
    count, channels, height, width = x.shape
    bits = torch.arange(channels, device=x.device)
    corners = (torch.arange(2**channels, device=x.device)[:, None] >> bits) & 1
    candidates = count * height * width * len(corners)
    flat, rows = x.detach().flatten(2), batch_size or fast_rows(x, candidates)
    # Convolutions of several channels are twice as fast with the channels last, on a CPU as on a
    # GPU; a function that views its input as rows cannot have it so.
    layout, look = torch.channels_last, x.detach()[: 2 * LEAST_ROWS]
    try:
        first_outputs(function, look.contiguous(memory_format=layout))
    except RuntimeError:
        layout = torch.contiguous_format
        first_outputs(function, look.contiguous())
    for number in torch.arange(candidates, device=x.device).split(rows):
        place, corner = number // len(corners), corners[number % len(corners)].to(x.dtype)
        index, position = place // (height * width), place % (height * width)
        with torch.no_grad():
            pixel = position[:, None, None].expand(-1, channels, 1)
            painted = flat[index].scatter(2, pixel, corner[:, :, None]).view(-1, *x.shape[1:])
            found = function(painted.contiguous(memory_format=layout))
        yield index, found.clone()
