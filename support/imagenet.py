"""ImageNet pictures and pretrained classifiers, where they lie on the disk. Chapter 5.

Pictures are the files ``<synset>_<name>.JPEG`` of ``imagenet-samples`` under :func:`support.paths.data_sets`, with ``labels.csv`` naming
the 1,000 classes. SqueezeNet's weights lie in ``weights``; the others are torchvision's, downloaded where there is a network.
"""

import csv
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from support import paths
from support.data import DataError
from support.models import Normalise

NETWORKS = ("squeezenet1_0", "alexnet", "vgg16")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def class_names() -> list[str]:
    """The 1,000 class names in the networks' order.

    Raises:
        DataError: the list is not there.
    """
    with open(_found("imagenet-samples", "labels.csv"), encoding="utf-8", newline="") as lines:
        named = {int(row["imagenet_index"]): row["class_name"] for row in csv.DictReader(lines)}
    return [named[number] for number in range(1000)]


def pictures(names: Sequence[str]) -> Tensor:
    """(N, 3, 224, 224) in [0, 1]: shorter side resized to 256, the middle 224x224 of it.

    Args:
        names: of the files, without synset and ending: ``goldfinch``.

    Raises:
        DataError: no such picture.
    """
    from PIL import Image

    from support.vision import transforms

    prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    folder = _found("imagenet-samples")
    files = [next(iter(sorted(folder.glob(f"*_{name}.JPEG"))), None) for name in names]
    if missing := [name for name, file in zip(names, files, strict=True) if file is None]:
        raise DataError(f"no picture of {', '.join(missing)} in {folder}: files are named <synset>_<name>.JPEG")
    return torch.stack([prepare(Image.open(file).convert("RGB")) for file in files])


def network(name: str) -> nn.Module:
    """A pretrained classifier from [0, 1] pictures to (N, 1000) log-scores, in evaluation mode.

    Raises:
        ValueError: unknown name.
        DataError: its weights are not there and cannot be had.
    """
    from support.vision import tv_models

    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}: choose one of {', '.join(NETWORKS)}")
    if name == "squeezenet1_0":
        net = tv_models.squeezenet1_0()
        net.load_state_dict(torch.load(_found("weights", f"{name}.pth"), weights_only=True))
    else:
        try:
            net = getattr(tv_models, name)(weights="IMAGENET1K_V1")
        except OSError as error:
            raise DataError(f"the weights of {name} cannot be downloaded ({error}); networks=squeezenet1_0 needs a file only") from error
    return nn.Sequential(Normalise(_MEAN, _STD), net).eval().requires_grad_(False)


def _found(*parts: str):
    path = paths.data_sets().joinpath(*parts)
    if not path.exists():
        raise DataError(f"{path} is not there: point BOOK_DATA to a folder that has it, or take the quick profile, which needs none")
    return path
