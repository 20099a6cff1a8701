"""Published networks: checked, fetched, and as good as their publishers say."""

import csv
import hashlib
import pickle
from functools import partial

import pytest
import torch
from hostile_models import other_defaults
from onnx_files import file, node

from support import data
from support.common import paths
from support.data import DataError
from support.models import efficientnet, pretrained, published
from support.models.architectures import Classifier, cifar_resnet
from support.models.published import File

CONTENT = file(node("Flatten", "x", "s"), output="s")
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """An empty data folder, and a publication of one network: a file that stands for a server's."""
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "sets"))
    (tmp_path / "sets").mkdir()
    (tmp_path / "server").write_bytes(CONTENT)
    known = File("weights/a.onnx", SHA256, (tmp_path / "server").as_uri())
    monkeypatch.setitem(published.NETWORKS, "mnist/made-up", published._Weights(known, lambda found: published._exchanged(None, found)))
    return tmp_path / "sets" / "weights" / "a.onnx", tmp_path / "server"


def test_a_network_is_downloaded_once_and_then_read(made_up):
    place, server = made_up
    with pytest.raises(DataError, match=r"a\.onnx is not there; python -m support data get mnist/made-up"):
        published.check("mnist/made-up")
    net = published.network("mnist/made-up")
    assert place.read_bytes() == CONTENT and not net.training and net(torch.rand(2, 1, 3, 3)).shape == (2, 9)
    server.unlink()
    assert published.check("mnist/made-up") == published.get("mnist/made-up")
    assert [found.name for found in place.parents[1].rglob("*")] == ["weights", "a.onnx"]


def test_defaults_of_device_and_dtype_change_nothing(made_up, monkeypatch):
    place, _ = made_up
    shapes = {"0": (16, 1, 4, 4), "2": (32, 16, 4, 4), "5": (100, 1568), "7": (10, 100)}
    state = {f"{name}.weight": torch.randn(shape) / 30 for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}
    place.parent.mkdir()
    torch.save(state, place)
    known = File("weights/a.onnx", hashlib.sha256(place.read_bytes()).hexdigest(), None)
    monkeypatch.setitem(published.NETWORKS, "mnist/made-up", published._Weights(known, partial(published._provable, None)))
    plain, x = published.network("mnist/made-up"), torch.rand(2, 1, 28, 28)
    with other_defaults():
        net = published.network("mnist/made-up")
    assert torch.equal(net(x), plain(x))


def test_what_is_not_the_published_file_is_not_read(made_up):
    place, server = made_up
    server.write_bytes(CONTENT + b"\0")
    with pytest.raises(DataError, match=r"no longer has the file that was published.*point BOOK_DATA"):
        published.network("mnist/made-up")
    assert not place.parent.exists()
    place.parent.mkdir()
    place.write_bytes(pickle.dumps(made_up))
    with pytest.raises(DataError, match=r"a\.onnx is not the published file.*remove it"):
        published.network("mnist/made-up")


def test_without_a_network_the_error_says_what_to_do_and_leaves_nothing(made_up, monkeypatch):
    place, server = made_up
    server.unlink()
    with pytest.raises(DataError, match=r"cannot be downloaded from file:.*connect to a network, or point BOOK_DATA to a folder that has"):
        published.get("mnist/made-up")
    assert not any(place.parents[1].iterdir())
    with pytest.raises(DataError, match="nobody publishes it in this form"):
        published.content(File("a.npz", SHA256, None))
    monkeypatch.setenv("BOOK_DATA", str(place.parents[2] / "nowhere"))
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        published.get("mnist/made-up")


def test_unknown_names_are_refused():
    for ask in (published.network, published.get, published.check):
        with pytest.raises(ValueError, match="unknown published network 'cifar10/resnet18': there are cifar10/resnet20"):
            ask("cifar10/resnet18")


def test_the_residual_network_is_that_of_its_paper():
    for depth, millions in ((20, 0.27), (32, 0.46), (56, 0.85)):  # He et al. (2016), Table 6
        net = cifar_resnet(depth, 10, seed=1)
        assert round(sum(value.numel() for value in net.parameters()) / 1e6, 2) == millions
        layers = [part for part in net.modules() if isinstance(part, torch.nn.Conv2d)]
        assert len(layers) + 1 == depth
    with torch.no_grad():
        assert net.features(torch.rand(2, 3, 32, 32)).shape == (2, 64)
    same, other = (cifar_resnet(20, 10, seed=seed).state_dict()["body.conv1.weight"] for seed in (1, 2))
    assert torch.equal(same, cifar_resnet(20, 10, seed=1).body.conv1.weight) and not torch.equal(same, other)
    with pytest.raises(ValueError, match="depth must be 6n"):
        cifar_resnet(18, 10)


# Test error in per cent as published; of the verifiers' networks without a number, that they have learned.
ERRORS = {
    "cifar10/resnet20": 8.27, "cifar10/resnet32": 7.37, "cifar10/resnet44": 6.90, "cifar10/resnet56": 6.61,
    "mnist/provable-0.1": 1.8, "cifar10/vnncomp-resnet_2b": 100 - 69.25, "cifar10/vnncomp-resnet_4b": 100 - 77.20,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in published.NETWORKS if "imagenet" not in name])
def test_the_networks_err_as_their_publishers_say(name):
    if not published.path(published.NETWORKS[name].file).is_file():
        pytest.skip(f"SKIPPED: {name} is not under BOOK_DATA")
    source = name.split("/")[0]
    try:
        data.check(source)
    except DataError:
        pytest.skip(f"SKIPPED: {source} is not under BOOK_DATA")
    net, images = published.network(name), data.load(source, "test").take(1000)
    assert not any(value.requires_grad for value in net.parameters())
    assert isinstance(net, Classifier) == ("vnncomp" not in name)
    with torch.no_grad():
        wrong = torch.cat([net(part) for part in images.x.split(250)]).argmax(1) != images.y
    share = float(wrong.double().mean())
    if name in ERRORS:
        published_share = ERRORS[name] / 100
        assert abs(share - published_share) <= 3 * (published_share * (1 - published_share) / 1000) ** 0.5
    else:
        assert share < 0.75


def test_a_folded_convolution_is_the_convolution_and_its_batch_norm():
    stream = torch.Generator().manual_seed(0)
    for shape, groups, kernel, stride in (
        ((6, 3, 3, 3), 1, 3, 2),
        ((4, 1, 5, 5), 4, 5, 2),
        ((4, 1, 3, 3), 4, 3, 1),
        ((7, 4, 1, 1), 1, 1, 1),
    ):
        state = {"c.weight": torch.randn(shape, generator=stream), "n.running_var": torch.rand(shape[0], generator=stream) + 0.1}
        state |= {f"n.{part}": torch.randn(shape[0], generator=stream) for part in ("weight", "bias", "running_mean")}
        layers = torch.nn.Sequential(*efficientnet._folded(state, "c", "n", kernel, stride))
        x = torch.randn(2, 4 if groups == 4 or shape[1] == 4 else 3, 8, 8, generator=stream)
        before = (kernel - stride) // 2
        behind = max(kernel - stride, 0) - max(before, 0)
        padded = torch.nn.functional.pad(x, (max(before, 0), behind) * 2)
        plain = torch.nn.functional.conv2d(padded, state["c.weight"], stride=stride, groups=groups)
        statistics = [state[f"n.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        wanted = torch.nn.functional.batch_norm(plain, *statistics, eps=1e-3)
        assert wanted.shape[2:] == (8 // stride, 8 // stride)
        torch.testing.assert_close(layers(x), wanted, rtol=1e-4, atol=1e-5)


def test_efficientnet_knows_its_pictures_and_without_its_package_says_what_to_install(monkeypatch):
    name = "imagenet/efficientnet_lite0"
    monkeypatch.setitem(published.NETWORKS, "imagenet/none", published._Weights(File("a.pth", SHA256, None, "no_such_package"), None))
    with pytest.raises(DataError, match=r"the package no_such_package is not installed: .*\[imagenet\]"):
        published.network("imagenet/none")
    try:
        net, pictures = published.network(name), pretrained.pictures()[:28]
    except DataError as missing:
        pytest.skip(f"SKIPPED: {missing}")
    with open(paths.data_sets() / "imagenet-samples" / "labels.csv", encoding="utf-8", newline="") as lines:
        known = {row["file"]: int(row["imagenet_index"]) for row in csv.DictReader(lines)}
    files = sorted((paths.data_sets() / "imagenet-samples").glob("*.JPEG"))[:28]
    with torch.no_grad():
        answers = torch.cat([net(part) for part in pictures.split(7)]).argmax(1).tolist()
        assert net.features(pictures[:1]).shape == (1, 1280)
    right = sum(answer == known[file.name] for answer, file in zip(answers, files, strict=True))
    assert right >= 16  # 21 of 28 are the published 75 %, and two standard errors are 4.6
