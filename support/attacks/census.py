"""Every one-pixel colour corner of every image, for questions that no single search answers: rates
at all thresholds, several heads."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from support.attacks.base import fast_rows
from support.common.arguments import images, whole_number


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
        Pairs of the images' indices (n,) int64 and the outputs (n, ...), computed in inference mode
        and returned as ordinary tensors.

    Raises:
        ValueError: images of a wrong shape, dtype or range.
    """
    images("x", x, pictures=True)
    if batch_size is not None:
        whole_number("batch_size", batch_size, 1)
    count, channels, height, width = x.shape
    bits = torch.arange(channels, device=x.device)
    corners = (torch.arange(2**channels, device=x.device)[:, None] >> bits) & 1
    candidates = count * height * width * len(corners)
    flat, rows = x.detach().flatten(2), batch_size or fast_rows(x, candidates)
    for number in torch.arange(candidates, device=x.device).split(rows):
        place, corner = number // len(corners), corners[number % len(corners)].to(x.dtype)
        index, position = place // (height * width), place % (height * width)
        with torch.inference_mode():
            pixel = position[:, None, None].expand(-1, channels, 1)
            painted = flat[index].scatter(2, pixel, corner[:, :, None]).view(-1, *x.shape[1:])
            # convolutions of several channels are faster with the channels last, on a CPU as on a
            # GPU
            found = function(painted.contiguous(memory_format=torch.channels_last))
        yield index, found.clone()
