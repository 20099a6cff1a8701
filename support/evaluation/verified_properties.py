"""Questions with known answers: images, balls and networks of which complete verifiers have proven
that every image of the ball keeps its class, or found one that does not.

They are the properties of three benchmarks of the verifiers' competition VNN-COMP 2021, with what
the competing tools said of each. Tools can be unsound: one said "violated" of nearly every property
of ``mnistfc``. So a property counts as violated where at least :data:`LEAST_VOTES` tools say so.
"""

import io
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from support.common.arguments import choice
from support.models import published
from support.models.published import File

LEAST_VOTES = 3
"""Tools that must have found a property violated for it to count as violated."""

_NETWORKS = {
    "mnist-net_256x2": "mnist/vnncomp-256x2",
    "mnist-net_256x4": "mnist/vnncomp-256x4",
    "mnist-net_256x6": "mnist/vnncomp-256x6",
    "cifar_base_kw": "cifar10/vnncomp-base",
    "cifar_deep_kw": "cifar10/vnncomp-deep",
    "cifar_wide_kw": "cifar10/vnncomp-wide",
    "resnet_2b": "cifar10/vnncomp-resnet_2b",
    "resnet_4b": "cifar10/vnncomp-resnet_4b",
}
_FILES = {
    "mnistfc": (
        (1, 28, 28), "e94424560ebce7c618e33939cb1e2fd72f85bcf5b6cb83c77fdc830e04b3e774"),
    "oval21": (
        (3, 32, 32), "e1ac448925d626155ff406c7bb2ad436a90a0a0c8bd63d35bf14750ff0a44c50"),
    "cifar10_resnet": (
        (3, 32, 32), "726a71e9c08ef875078b55a3d1cfb7ba2793811df9d72736f4ac20ff05074c72"),
}  # fmt: skip
SETS = tuple(_FILES)
"""The benchmarks."""


@dataclass(frozen=True)
class Properties:
    """Properties "all images within ``eps`` of ``x`` that lie in [0,1] have the class ``y``".

    Attributes:
        x: (N, C, H, W) float32 images in [0,1].
        y: (N,) int64 labels.
        eps: (N,) float64 radii in the maximum norm, in units of [0,1].
        networks: of each, by its name in :data:`support.models.published.NETWORKS`.
        votes: (N, 2) int64, how many tools proved it and how many found it violated.
    """

    x: Tensor
    y: Tensor
    eps: Tensor
    networks: tuple[str, ...]
    votes: Tensor

    @property
    def holds(self) -> Tensor:
        """(N,) bool: most of the tools that decided it proved it."""
        return self.votes[:, 0] > self.votes[:, 1]

    @property
    def violated(self) -> Tensor:
        """(N,) bool: at least :data:`LEAST_VOTES` tools found it violated, and most of those that
        decided it."""
        return (self.votes[:, 1] > self.votes[:, 0]) & (self.votes[:, 1] >= LEAST_VOTES)

    @property
    def disputed(self) -> Tensor:
        """(N,) bool: some tool proved it, and some tool found it violated; one of them is wrong."""
        return (self.votes > 0).all(1)

    def take(self, chosen: Tensor) -> "Properties":
        """Those of a mask (N,)."""
        networks = tuple(itertools.compress(self.networks, chosen))
        x, y, eps, votes = (part[chosen] for part in (self.x, self.y, self.eps, self.votes))
        return Properties(x, y, eps, networks, votes)


def load(name: str) -> Properties:
    """The properties of a benchmark.

    Args:
        name: one of :data:`SETS`.

    Raises:
        DataError: its file ``vnncomp2021/<name>.npz`` is not under ``BOOK_DATA`` (the competition
            publishes one text for each property and a table for each tool, not this file), or it is
            another one.
        ValueError: an unknown name.
    """
    shape, sha256 = _FILES[choice("benchmark", name, SETS)]
    content = published.content(File(f"vnncomp2021/{name}.npz", sha256, None))
    with np.load(io.BytesIO(content), allow_pickle=False) as parts:
        return Properties(
            torch.from_numpy(parts["x"]).reshape(-1, *shape),
            torch.from_numpy(parts["label"]),
            torch.from_numpy(parts["eps"]).double(),
            tuple(_NETWORKS[file.removesuffix(".onnx")] for file in parts["network"]),
            torch.from_numpy(parts["votes"]),
        )
