"""ImageNet pictures and pretrained classifiers, where they lie on the disk. Chapters 3 and 5.

Pictures are the files ``<synset>_<name>.JPEG`` of ``imagenet-samples`` under :func:`support.paths.data_sets`, with ``labels.csv`` naming
the 1,000 classes. Weights are the files ``weights/<network>.pth`` there, or torchvision's own, downloaded where there is a network.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from support import paths
from support.data import DataError
from support.models import Normalise

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WITHOUT = "point BOOK_DATA to a folder that has it, or take the quick profile, which needs none"


def class_names() -> list[str]:
    """The 1,000 class names in the networks' order.

    Raises:
        DataError: the list is not there.
    """
    with open(_found("imagenet-samples", "labels.csv"), encoding="utf-8", newline="") as lines:
        named = {int(row["imagenet_index"]): row["class_name"] for row in csv.DictReader(lines)}
    return [named[number] for number in range(1000)]


def pictures(names: Sequence[str] | None = None) -> Tensor:
    """(N, 3, 224, 224) in [0, 1]: shorter side resized to 256, the middle 224x224 of it.

    Args:
        names: of the files, without synset and ending: ``goldfinch``; ``None``: all there are, sorted by file name.

    Raises:
        DataError: no such picture, or none at all.
    """
    from PIL import Image

    from support.vision import transforms

    folder = _found("imagenet-samples")
    if names is None:
        files = sorted(folder.glob("*.JPEG"))
    else:
        files = [next(iter(sorted(folder.glob(f"*_{name}.JPEG"))), None) for name in names]
        if missing := [name for name, file in zip(names, files, strict=True) if file is None]:
            raise DataError(f"no picture of {', '.join(missing)} in {folder}: files are named <synset>_<name>.JPEG")
    if not files:
        raise DataError(f"no pictures *.JPEG in {folder}: {_WITHOUT}")
    prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    return torch.stack([prepare(Image.open(file).convert("RGB")) for file in files])


def network(name: str) -> nn.Sequential:
    """A pretrained classifier from [0, 1] pictures to (N, 1000) log-scores, in evaluation mode: normalisation, then torchvision's network.

    Raises:
        ValueError: unknown name.
        DataError: its weights are not there and cannot be had.
    """
    from support.vision import tv_models

    if name not in tv_models.list_models(module=tv_models):
        raise ValueError(f"unknown network {name!r}: choose one of torchvision's classifiers, such as squeezenet1_0 or resnet50")
    net, file = tv_models.get_model(name, weights=None), paths.data_sets() / "weights" / f"{name}.pth"
    if file.is_file():
        state = torch.load(file, weights_only=True, map_location="cpu")
    else:
        try:
            state = tv_models.get_model_weights(name).IMAGENET1K_V1.get_state_dict(progress=False)
        except OSError as error:
            raise DataError(f"{name} has no weights: {file} is not there ({_WITHOUT}), and they cannot be downloaded: {error}") from error
    net.load_state_dict(state)
    return nn.Sequential(Normalise(_MEAN, _STD), net).eval().requires_grad_(False)


def _found(*parts: str) -> Path:
    path = paths.data_sets().joinpath(*parts)
    if not path.exists():
        raise DataError(f"{path} is not there: {_WITHOUT}")
    return path
