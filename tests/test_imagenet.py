"""ImageNet pictures and networks: what is missing is named; what is there is read as the networks want it."""

import csv

import pytest
import torch
from PIL import Image

from support import imagenet
from support.data import DataError


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """A folder of two pictures and a list of classes whose rows stand in no order."""
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    folder = tmp_path / "imagenet-samples"
    folder.mkdir()
    Image.new("RGB", (300, 400), (255, 0, 0)).save(folder / "n01_red_bird.JPEG")
    Image.new("L", (500, 260), 128).save(folder / "n02_grey_bird.JPEG")
    with open(folder / "labels.csv", "w", newline="") as lines:
        rows = csv.DictWriter(lines, ["file", "wnid", "imagenet_index", "class_name"])
        rows.writeheader()
        rows.writerows({"file": "", "wnid": "", "imagenet_index": i, "class_name": f"class {i}"} for i in reversed(range(1000)))
    return folder


def test_pictures_are_cut_to_their_middle_and_grey_ones_get_colours(samples):
    found = imagenet.pictures(["red_bird", "grey_bird"])
    assert found.shape == (2, 3, 224, 224) and found.dtype == torch.float32
    assert float(found[0, 0].mean()) > 0.95 and float(found[0, 2].mean()) < 0.05
    assert torch.allclose(found[1], torch.tensor(128 / 255), atol=0.02)


def test_class_names_are_in_the_order_of_the_networks(samples):
    names = imagenet.class_names()
    assert len(names) == 1000 and names[11] == "class 11"


def test_what_is_missing_is_named(tmp_path, monkeypatch, samples):
    with pytest.raises(DataError, match="blue_bird"):
        imagenet.pictures(["red_bird", "blue_bird"])
    with pytest.raises(DataError, match=r"squeezenet1_0\.pth"):
        imagenet.network("squeezenet1_0")
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "nowhere"))
    for call in (imagenet.class_names, lambda: imagenet.pictures(["red_bird"])):
        with pytest.raises(DataError, match="BOOK_DATA"):
            call()


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match="squeezenet1_0, alexnet, vgg16"):
        imagenet.network("resnet50")


def test_a_network_normalises_inside(samples):
    from support.vision import tv_models

    net = tv_models.squeezenet1_0().eval()
    (samples.parent / "weights").mkdir()
    torch.save(net.state_dict(), samples.parent / "weights" / "squeezenet1_0.pth")
    found, x = imagenet.network("squeezenet1_0"), imagenet.pictures(["red_bird"])
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        assert torch.allclose(found(x), net((x - mean) / std), atol=1e-5)
    assert not found.training and not any(part.requires_grad for part in found.parameters())
