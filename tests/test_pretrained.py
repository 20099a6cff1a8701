"""ImageNet pictures and pretrained networks from a data folder: found, and missed in one clear line."""

import hashlib
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from support.common import paths
from support.common.vision import tv_models
from support.data import DataError
from support.models import pretrained
from support.models import published as published_networks


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
    both = pretrained.pictures()
    assert both.shape == (2, 3, 224, 224) and both.dtype == torch.float32 and both.min() >= 0 and both.max() <= 1
    assert torch.equal(pretrained.pictures(["goldfinch", "two_words"]), both.flip(0))  # files sort by synset
    assert pretrained.picture_names() == ["two_words", "goldfinch"]
    with Image.open(folder / "imagenet-samples" / "n0_two_words.JPEG") as picture:  # 256 wide: cut without resizing
        middle = np.asarray(picture)[138:362, 16:240]
    assert torch.equal(both[0], torch.from_numpy(middle.copy()).permute(2, 0, 1) / 255)


def test_of_two_pictures_of_one_name_the_first_is_taken_and_a_part_of_a_name_is_none(folder):
    samples = folder / "imagenet-samples"
    (samples / "n0_goldfinch.JPEG").write_bytes((samples / "n0_two_words.JPEG").read_bytes())
    assert torch.equal(*pretrained.pictures(["goldfinch", "two_words"]))
    with pytest.raises(DataError, match="no picture of words"):
        pretrained.pictures(["words"])


def test_class_names_stand_in_the_order_of_their_index(folder):
    names = pretrained.class_names()
    assert len(names) == 1000 and names[11] == "class 11"


@pytest.fixture
def decoded(folder, monkeypatch):
    """A SqueezeNet whose weights are a file that is known, and the file."""
    net, file = tv_models.squeezenet1_0(weights=None).eval(), folder / "weights" / "squeezenet1_0.pth"
    file.parent.mkdir()
    torch.save(net.state_dict(), file)
    monkeypatch.setitem(pretrained._DECODED, "squeezenet1_0", hashlib.sha256(file.read_bytes()).hexdigest())
    return net, file


def test_a_network_from_a_file_scores_normalised_pictures(decoded):
    plain, _ = decoded
    model, x = pretrained.network("squeezenet1_0"), pretrained.pictures()[:1]
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        torch.testing.assert_close(model(x), plain((x - mean) / std))
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


def test_what_a_study_needs_is_checked_at_once_and_has_a_checksum(folder, decoded, monkeypatch):
    net, weights = decoded
    sums = pretrained.check("squeezenet1_0")
    assert sums["imagenet/squeezenet1_0"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    picture = folder / "imagenet-samples" / "n1_goldfinch.JPEG"
    whole = picture.read_bytes()
    with Image.open(picture) as seen:
        seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(picture)
    assert pretrained.check("squeezenet1_0")["imagenet-samples"] != sums["imagenet-samples"]  # another picture of that name
    for damaged in (whole[: len(whole) // 2], b"no picture"):
        picture.write_bytes(damaged)
        with pytest.raises(DataError, match=r"n1_goldfinch\.JPEG is damaged: .*; point BOOK_DATA"):
            pretrained.check("squeezenet1_0")
    picture.write_bytes(whole)
    assert pretrained.check("squeezenet1_0") == sums
    weights.write_bytes(weights.read_bytes()[:-1])
    for read in (pretrained.check, pretrained.network):
        with pytest.raises(DataError, match=r"squeezenet1_0\.pth is not a file that is known: its sha256 sum begins \w{12}; remove it"):
            read("squeezenet1_0")
    torch.save(net.state_dict(), weights)
    monkeypatch.setitem(pretrained._DECODED, "squeezenet1_0", hashlib.sha256(weights.read_bytes()).hexdigest())
    (folder / "imagenet-samples" / "labels.csv").unlink()
    with pytest.raises(DataError, match=r"labels\.csv is not there"):
        pretrained.check("squeezenet1_0")


def test_what_is_missing_is_named(folder, monkeypatch):
    with pytest.raises(DataError, match=r"no picture of ostrich in .*<synset>_<name>\.JPEG"):
        pretrained.pictures(["goldfinch", "ostrich"])
    with pytest.raises(ValueError, match="unknown network 'lenet'"):
        pretrained.network("lenet")

    def no_network(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(DataError, match=r"alexnet has no weights: neither alexnet\.pth nor .* is in .*be downloaded: .*no route"):
        pretrained.network("alexnet")
    monkeypatch.setenv("BOOK_DATA", str(folder / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere.*is not there: point BOOK_DATA"):
        pretrained.pictures()


def test_the_real_pictures_and_network_agree():
    folder = paths.data_sets()
    if not (folder / "weights" / "squeezenet1_0.pth").is_file() or not (folder / "imagenet-samples").is_dir():
        pytest.skip("SKIPPED: no pretrained SqueezeNet and ImageNet pictures under BOOK_DATA")
    names = pretrained.class_names()
    with torch.inference_mode():
        answers = pretrained.network("squeezenet1_0")(pretrained.pictures(["goldfinch", "indigo_bunting"])).argmax(1)
    assert [names[i] for i in answers] == [names[11], names[14]] and "goldfinch" in names[11]


def test_a_network_of_a_package_is_checked_by_its_own_file(folder, monkeypatch):
    file = SimpleNamespace(sha256="a" * 64)
    monkeypatch.setitem(published_networks.NETWORKS, "imagenet/efficientnet_lite0", SimpleNamespace(file=file))
    asked = []
    monkeypatch.setattr(published_networks, "get", asked.append)
    assert pretrained.check("efficientnet_lite0")["imagenet/efficientnet_lite0"] == file.sha256
    assert asked == ["imagenet/efficientnet_lite0"]


@pytest.fixture
def published(folder, monkeypatch):
    """A made-up publication of ResNet-50's weights: the network that has them, and their file under the data folder."""
    net = tv_models.resnet50(weights=None)
    file = folder / "weights" / "resnet50-.pth"
    file.parent.mkdir()
    torch.save(net.state_dict(), file)
    file = file.rename(file.with_name(f"resnet50-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"))
    real = tv_models.ResNet50_Weights.IMAGENET1K_V1
    weights = SimpleNamespace(url=f"https://example.org/{file.name}")
    weights.get_state_dict = lambda **k: type(real).get_state_dict(weights, **k)
    monkeypatch.setattr(tv_models, "get_model_weights", lambda name: SimpleNamespace(IMAGENET1K_V1=weights))
    return net.eval(), file


def test_resnet50_starts_from_the_published_weights_and_a_seeded_last_layer(published):
    net, _ = published
    model, x = pretrained.resnet50(7, seed=3), torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net.fc = torch.nn.Identity()
    with torch.no_grad():
        features = model.features(x)
        assert features.shape == (3, 2048) and torch.equal(features, net(model.body[0](x)))
        assert torch.equal(model(x), features @ model.head.weight.T + model.head.bias) and model(x).shape == (3, 7)
    assert torch.equal(model.head.weight, pretrained.resnet50(7, seed=3).head.weight)
    assert not torch.equal(model.head.weight, pretrained.resnet50(7, seed=4).head.weight)
    assert all(parameter.requires_grad for parameter in model.parameters())
    fresh = [pretrained.resnet50(7, seed=3, pretrained=False).body[1].conv1.weight for _ in range(2)]
    assert torch.equal(*fresh) and not torch.equal(fresh[0], model.body[1].conv1.weight)


def test_weights_that_are_damaged_or_missing_are_refused(published, monkeypatch):
    net, file = published
    torch.save({name: value + 1 for name, value in net.state_dict().items()}, file)
    with pytest.raises(DataError, match="is not the official file"):
        pretrained.resnet50(7)
    file.unlink()

    def cut(*_, **__):
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr(torch.hub, "download_url_to_file", cut)
    with pytest.raises(DataError, match=f"{file.name} is in .*cannot be downloaded: invalid hash value"):
        pretrained.resnet50(7)
