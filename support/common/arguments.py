"""Checks that several kernels make of their inputs."""

import torch
from torch import Tensor


def class_vector(name: str, value: Tensor, n: int) -> Tensor:
    """``value``, once it is sure to be an int64 vector of n entries.

    Raises:
        ValueError: anything else; the message names it.
    """
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.shape != (n,):
        given = (
            f"{value.dtype} {tuple(value.shape)}"
            if isinstance(value, Tensor)
            else type(value).__name__
        )
        raise ValueError(f"{name} must be int64 of shape ({n},); {given} was given")
    return value
