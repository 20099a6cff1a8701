"""Every one-pixel colour corner of every image, for questions that no single search answers: rates
at all thresholds, several heads."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from support.attacks.base import _check_images, fast_rows, whole_number


def corner_outputs(
    function: Callable[[Tensor], Tensor], x: Tensor, *, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a function says of all ``H * W * 2**C`` ways to set one pixel to a corner of the colour
    cube, pass by pass.

    The candidates are those of :func:`support.attacks.one_pixel_corners`, which stops at the first
    success and keeps the best; here the caller sees them all and may reduce them by any rule
    (``scatter_reduce_`` over the index). Used in the chapter "Softmax is k-means" to read one
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
    _check_images(x, pictures=True)
    if batch_size is not None:
        whole_number("batch_size", batch_size, 1)
    count, channels, height, width = x.shape
    colours = (
        (
            torch.arange(2**channels, device=x.device)[:, None]
            >> torch.arange(channels, device=x.device)
        )
        & 1
    ).to(x.dtype)
    candidates = count * height * width * len(colours)
    flat, rows = x.detach().flatten(2), batch_size or fast_rows(x, candidates)
    for number in torch.arange(candidates, device=x.device).split(rows):
        rest, corner = number // len(colours), number % len(colours)
        index, position = rest // (height * width), rest % (height * width)
        with torch.inference_mode():
            painted = flat[index].scatter(
                2, position[:, None, None].expand(-1, channels, 1), colours[corner][:, :, None]
            )
            # convolutions of several channels are faster with the channels last, on a CPU as on a
            # GPU
            found = function(
                painted.view(-1, channels, height, width).contiguous(
                    memory_format=torch.channels_last
                )
            )
        yield index, found.clone()
