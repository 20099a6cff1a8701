"""ImageNet pictures and pretrained networks from a data folder: found, and missed in one clear line."""

import numpy as np
import pytest
import torch
from PIL import Image

from support import imagenet, paths
from support.data import DataError
from support.vision import tv_models


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with two made-up pictures and a list of classes."""
    samples = tmp_path / "imagenet-samples"
    samples.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("n1_goldfinch", (300, 260)), ("n0_two_words", (256, 500))):
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(samples / f"{name}.JPEG")
    lines = ["imagenet_index,synset,class_name", *(f"{i},n{i:08d},class {i}" for i in reversed(range(1000)))]
    (samples / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    return tmp_path


def test_pictures_are_cut_and_in_order(folder):
    both = imagenet.pictures()
    assert both.shape == (2, 3, 224, 224) and both.dtype == torch.float32 and both.min() >= 0 and both.max() <= 1
    assert torch.equal(imagenet.pictures(["goldfinch", "two_words"]), both.flip(0))  # files sort by synset
    with Image.open(folder / "imagenet-samples" / "n0_two_words.JPEG") as picture:  # 256 wide: cut without resizing
        middle = np.asarray(picture)[138:362, 16:240]
    assert torch.equal(both[0], torch.from_numpy(middle.copy()).permute(2, 0, 1) / 255)


def test_class_names_stand_in_the_order_of_their_index(folder):
    names = imagenet.class_names()
    assert len(names) == 1000 and names[11] == "class 11"


def test_a_network_from_a_file_scores_normalised_pictures(folder):
    plain = tv_models.squeezenet1_0(weights=None).eval()
    (folder / "weights").mkdir()
    torch.save(plain.state_dict(), folder / "weights" / "squeezenet1_0.pth")
    model, x = imagenet.network("squeezenet1_0"), imagenet.pictures()[:1]
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        torch.testing.assert_close(model(x), plain((x - mean) / std))
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


def test_what_is_missing_is_named(folder, monkeypatch):
    with pytest.raises(DataError, match=r"no picture of ostrich in .*<synset>_<name>\.JPEG"):
        imagenet.pictures(["goldfinch", "ostrich"])
    with pytest.raises(ValueError, match="unknown network 'lenet'"):
        imagenet.network("lenet")

    def refused(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refused)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refused)
    with pytest.raises(DataError, match=r"alexnet has no weights: .*alexnet\.pth is not there .* they cannot be downloaded: no route"):
        imagenet.network("alexnet")
    monkeypatch.setenv("BOOK_DATA", str(folder / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere.*is not there: point BOOK_DATA"):
        imagenet.pictures()


def test_the_real_pictures_and_network_agree():
    folder = paths.data_sets()
    if not (folder / "weights" / "squeezenet1_0.pth").is_file() or not (folder / "imagenet-samples").is_dir():
        pytest.skip("SKIPPED: no pretrained SqueezeNet and ImageNet pictures under BOOK_DATA")
    names = imagenet.class_names()
    with torch.inference_mode():
        answers = imagenet.network("squeezenet1_0")(imagenet.pictures(["goldfinch", "indigo_bunting"])).argmax(1)
    assert [names[i] for i in answers] == [names[11], names[14]] and "goldfinch" in names[11]
