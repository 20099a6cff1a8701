"""ImageNet pictures and pretrained classifiers, where they lie on the disk. Chapters 3 and 5.

Pictures are the files ``<synset>_<name>.JPEG`` of ``imagenet-samples`` under
:func:`support.common.paths.data_sets`, with ``labels.csv`` naming the 1,000 classes. Weights are
the files ``weights/<network>.pth`` there, or torchvision's own, downloaded where there is a
network.
"""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from support.common import paths
from support.data import DataError
from support.models.architectures import Classifier, Normalise, linear_classifier, seeded

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DECODED = {  # published weights under torchvision's names: the sum of the file they were put into
    "squeezenet1_0": "bedee69dab6ebed4a357ff1c5b42f1a69bd1406d8d8514b510d3894f3d6d946c",
}
_WITHOUT = "point BOOK_DATA to a folder that has it, or take the quick profile, which needs none"


def class_names() -> list[str]:
    """The 1,000 class names in the networks' order.

    Raises:
        DataError: the list is not there.
    """
    with open(_found("imagenet-samples", "labels.csv"), encoding="utf-8", newline="") as lines:
        named = {int(row["imagenet_index"]): row["class_name"] for row in csv.DictReader(lines)}
    return [named[number] for number in range(1000)]


def picture_names() -> list[str]:
    """The names of all pictures, as :func:`pictures` takes them and in its order.

    Raises:
        DataError: there is no folder of pictures.
    """
    files = sorted(_found("imagenet-samples").glob("*.JPEG"))
    return [file.stem.split("_", 1)[-1] for file in files]


def pictures(names: Sequence[str] | None = None) -> Tensor:
    """(N, 3, 224, 224) in [0, 1]: shorter side resized to 256, the middle 224x224 of it.

    Args:
        names: of the files, without synset and ending: ``goldfinch``; ``None``: all there are,
            sorted by file name.

    Raises:
        DataError: no such picture, or none at all.
    """
    from PIL import Image

    from support.common.vision import transforms

    folder = _found("imagenet-samples")
    files = sorted(folder.glob("*.JPEG"))
    if names is not None:
        named = {file.stem.split("_", 1)[-1]: file for file in reversed(files)}
        if missing := [name for name in names if name not in named]:
            raise DataError(
                f"no picture of {', '.join(missing)} in {folder}: files are named "
                "<synset>_<name>.JPEG"
            )
        files = [named[name] for name in names]
    if not files:
        raise DataError(f"no pictures *.JPEG in {folder}: {_WITHOUT}")
    steps = transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()
    prepare, found = transforms.Compose(steps), []
    for file in files:
        try:
            found.append(prepare(Image.open(file).convert("RGB")))
        except OSError as error:  # PIL's errors of a file that is cut short or no picture
            raise DataError(f"{file} is damaged: {error}; {_WITHOUT}") from error
    return torch.stack(found)


def check(name: str) -> dict[str, str]:
    """What a study of a pretrained classifier needs is there and whole: its weights, downloaded if
    they are missing, the pictures and the list of classes.

    Returns:
        The checksums, 64 hexadecimal digits each, of the weights and of all the pictures.

    Raises:
        ValueError, DataError: as :func:`network` and :func:`support.models.published.network`,
            :func:`pictures` and :func:`class_names`.
    """
    from support.models.published import NETWORKS, get  # which nothing here is made of

    place = f"imagenet/{name}"
    if place in NETWORKS:
        get(place)
        weights = NETWORKS[place].file.sha256
    else:
        _, weights = _weights(name)
    class_names()
    pictures()
    total = hashlib.sha256()
    for file in sorted(_found("imagenet-samples").glob("*.JPEG")):
        total.update(f"{file.name} {_checksum(file)}\n".encode())
    return {place: weights, "imagenet-samples": total.hexdigest()}


def network(name: str) -> nn.Sequential:
    """A pretrained classifier from [0, 1] pictures to (N, 1000) log-scores, in evaluation mode:
    normalisation, then torchvision's network.

    Raises:
        ValueError: unknown name.
        DataError: its weights are not there and cannot be had.
    """
    from support.common.vision import tv_models

    state, _ = _weights(name)
    with seeded(0):  # the weights that are drawn are replaced
        net = tv_models.get_model(name, weights=None)
    net.load_state_dict(state)
    return nn.Sequential(Normalise(_MEAN, _STD), net).eval().requires_grad_(False)


def resnet50(n_classes: int, *, seed: int = 0, pretrained: bool = True) -> Classifier:
    """torchvision's ResNet-50 as it is, with ImageNet's normalisation and a new last layer; d =
    2048 (pooled).

    It keeps the strides made for large pictures, so that 32x32 colour images end at one position:
    wang2022 fine-tunes it on CIFAR-100 (section 4.2.1, chapter 2).

    Args:
        n_classes: K.
        seed: of the last layer's weights, and without ``pretrained`` of all.
        pretrained: start from torchvision's first ImageNet weights.

    Raises:
        DataError: the weights are not there and cannot be had.
    """
    from support.common.vision import tv_models

    with seeded(seed):
        if pretrained:
            net = network("resnet50")[1].requires_grad_()
        else:
            net = tv_models.resnet50(weights=None)
        net.fc = nn.Identity()
        return linear_classifier([Normalise(_MEAN, _STD), net], 2048, n_classes)


def _weights(name: str) -> tuple[dict[str, Tensor], str]:
    """A state and its file's checksum: of ``weights/<name>.pth``, which must be torchvision's file
    or one of :data:`_DECODED`, or torchvision's own in the same folder, whose name holds the start
    of its checksum."""
    from support.common.vision import tv_models

    if name not in tv_models.list_models(module=tv_models):
        raise ValueError(
            f"unknown network {name!r}: choose one of torchvision's classifiers, such as "
            "squeezenet1_0 or resnet50"
        )
    official = tv_models.get_model_weights(name).IMAGENET1K_V1
    folder = paths.data_sets() / "weights"
    published = official.url.rsplit("/", 1)[1]
    start = Path(published).stem.rsplit("-", 1)[1]
    if (file := folder / f"{name}.pth").is_file():
        found = _checksum(file)
        if found != _DECODED.get(name) and not found.startswith(start):
            raise DataError(
                f"{file} is not a file that is known: its sha256 sum begins {found[:12]}; remove "
                "it, and torchvision's is downloaded"
            )
        return torch.load(file, weights_only=True, map_location="cpu"), found
    settings = {"progress": False, "check_hash": True, "map_location": "cpu", "weights_only": True}
    try:
        state = official.get_state_dict(model_dir=str(folder), **settings)
    except (OSError, RuntimeError) as error:  # no network, no permission, or a download cut short
        raise DataError(
            f"{name} has no weights: neither {name}.pth nor {published} is in {folder} "
            f"({_WITHOUT}), and they cannot be downloaded: {error}"
        ) from error
    if not (found := _checksum(folder / published)).startswith(start):
        raise DataError(
            f"{folder / published} is not the official file: its checksum differs; remove it, and "
            "it is downloaded again"
        )
    return state, found


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _found(*parts: str) -> Path:
    path = paths.data_sets().joinpath(*parts)
    if not path.exists():
        raise DataError(f"{path} is not there: {_WITHOUT}")
    return path
