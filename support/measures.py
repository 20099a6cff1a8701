"""Small measurements that every chapter makes, and the random draws that they make them with."""

import torch
from torch import Tensor, nn

from support.data import ImageData
from support.training.fitting import predict


def draws(seed: int) -> torch.Generator:
    """A generator of random numbers on the CPU that begins at a seed."""
    return torch.Generator().manual_seed(seed)


def share(mask: Tensor) -> float:
    """Share of the true entries of a mask of any shape; NaN of an empty one.

    Raises:
        ValueError: not a mask.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"share wants a mask, dtype bool; {mask.dtype} was given")
    return float(mask.double().mean())


def accuracy(model: nn.Module, images: ImageData) -> float:
    """Share of images whose class a model gets right; see :func:`support.training.predict`."""
    return share(predict(model, images.x).argmax(1).cpu() == images.y.cpu())
