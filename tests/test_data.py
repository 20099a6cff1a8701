"""Data sets: what they hold, how they are drawn from, and every way in which one can be missing or damaged."""

import functools
import gzip
import hashlib
import http.server
import os
import re
import shutil
import socket
import stat
import struct
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from support import data
from support.common import paths
from support.common.vision import datasets


def have(name: str) -> bool:
    """Whether the official files of a set are on this machine, without a download."""
    try:
        data.check(name)
    except (data.DataError, FileNotFoundError):
        return False
    return True


def need(name: str):
    return pytest.mark.skipif(not have(name), reason=f"{name} is not under BOOK_DATA ({os.environ.get('BOOK_DATA', 'data/sets')})")


# --- digits and toys --------------------------------------------------------------------------------------------------


def test_digits_are_all_of_scikit_learns_split_once():
    train, test = data.load("digits"), data.load("digits", "test")
    assert (len(train), len(test)) == (1297, 500)
    assert train.x.shape == (1297, 1, 8, 8) and train.x.dtype == torch.float32 and train.y.dtype == torch.int64
    assert float(train.x.min()) == 0 and float(train.x.max()) == 1
    assert train.classes == tuple("0123456789")
    together = np.concatenate([train.x.numpy(), test.x.numpy()])[:, 0] * 16
    bunch = load_digits()
    key = np.lexsort(together.reshape(1797, -1).T), np.lexsort(bunch.images.reshape(1797, -1).T)
    assert np.array_equal(together[key[0]], bunch.images[key[1]])
    assert np.array_equal(np.concatenate([train.y, test.y])[key[0]], bunch.target[key[1]])
    assert test.y.bincount().min() >= 30  # every class is tested


def test_digits_never_change():
    assert data.load("digits").sha256 == data.load("digits").sha256
    assert data.load("digits").y[:10].tolist() == load_digits().target[np.random.RandomState(0).permutation(1797)[:10]].tolist()
    assert data.check("digits") == data.get("digits") == "digits: 1297 + 500 images inside scikit-learn"


def test_take_the_first():
    digits = data.load("digits")
    some = digits.take(100)
    assert torch.equal(some.x, digits.x[:100]) and torch.equal(some.y, digits.y[:100])
    assert some.sha256 != digits.sha256 and len(some) == 100
    assert digits.take(1297) is digits
    assert some.take(50).sha256 == digits.take(50).sha256  # the sum is of the content, not of the way there


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(0, 1000))
def test_a_seeded_draw_is_balanced_repeatable_and_without_repetition(n, seed):
    digits = data.load("digits")
    drawn = digits.take(n, seed)
    counts = drawn.y.bincount(minlength=10)
    assert len(drawn) == n and int(counts.max() - counts.min()) <= 1
    assert torch.equal(drawn.y, digits.take(n, seed).y) and drawn.sha256 == digits.take(n, seed).sha256
    source = {(image.numpy().tobytes(), int(label)) for image, label in zip(digits.x, digits.y, strict=True)}
    assert {(image.numpy().tobytes(), int(label)) for image, label in zip(drawn.x, drawn.y, strict=True)} <= source
    assert drawn.x.unique(dim=0).shape[0] >= n - (1297 - digits.x.unique(dim=0).shape[0])


def test_a_seeded_draw_of_everything_is_everything_shuffled():
    digits = data.load("digits")
    drawn = digits.take(1297, 3)
    assert torch.equal(drawn.y.sort().values, digits.y.sort().values) and not torch.equal(drawn.y, digits.y)
    assert drawn.take(200, 1).sha256 != digits.take(200, 2).sha256


@pytest.mark.parametrize("n", [0, -1, 1298])
def test_an_impossible_count_is_refused(n):
    with pytest.raises(ValueError, match=f"{n} images of digits/train were asked for; between 1 and 1297"):
        data.load("digits").take(n)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown data set 'imagenet': choose one of digits, mnist"):
        data.load("imagenet")
    with pytest.raises(ValueError, match="unknown split 'valid': choose one of train, test"):
        data.load("digits", "valid")


def test_toy_sets():
    x, y = data.two_gaussians(4000, 1, distance=3.0)
    assert x.shape == (4000, 2) and y.bincount().tolist() == [2000, 2000]
    for k, mean in ((0, -1.5), (1, 1.5)):
        assert torch.allclose(x[y == k].mean(0), torch.tensor([mean, 0.0]), atol=0.1)
        assert torch.allclose(x[y == k].std(0), torch.ones(2), atol=0.1)
    x, y = data.moons(400, 1, noise=0.0)
    centre = torch.where(y[:, None] == 0, torch.zeros(2), torch.tensor([1.0, 0.5]))
    assert torch.allclose((x - centre).norm(dim=1), torch.ones(400), atol=1e-6)
    assert (x[y == 0, 1] >= 0).all() and (x[y == 1, 1] <= 0.5).all()
    assert torch.equal(data.moons(10, 5)[0], data.moons(10, 5)[0])
    with pytest.raises(ValueError, match="at least 1; 0"):
        data.moons(0)


# --- the real sets ----------------------------------------------------------------------------------------------------


@need("mnist")
def test_mnist():
    test = data.load("mnist", "test")
    assert test.x.shape == (10000, 1, 28, 28) and test.y.shape == (10000,)
    assert test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert float(test.x.min()) == 0 and float(test.x.max()) == 1
    assert test.x.mean().item() == pytest.approx(0.1325, abs=1e-4)
    assert test.classes == tuple("0123456789")
    assert data.load("mnist").y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert "4 files, 55 MB" in data.check("mnist")


@need("fashion-mnist")
def test_fashion_mnist():
    test = data.load("fashion-mnist", "test")
    assert test.x.shape == (10000, 1, 28, 28) and test.y.bincount().tolist() == [1000] * 10
    assert test.classes[0] == "T-shirt/top"


@need("cifar10")
def test_cifar10():
    test = data.load("cifar10", "test")
    assert test.x.shape == (10000, 3, 32, 32) and test.y.bincount().tolist() == [1000] * 10
    assert test.classes[3] == "cat" and test.y[:3].tolist() == [3, 8, 8]
    means = test.x.mean((0, 2, 3))
    assert torch.allclose(means, torch.tensor([0.4942, 0.4851, 0.4504]), atol=1e-3)  # red first, as photographs of the sky have it
    assert "7 files" in data.check("cifar10")


def test_every_layout_of_torchvision_s_becomes_channels_rows_columns():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    last = SimpleNamespace(data=pictures.transpose(0, 2, 3, 1), targets=[3, 0, 1, 2], classes=["airplane", "cat - no digit"])
    first = SimpleNamespace(data=pictures, labels=np.array([3, 0, 1, 2]))
    grey = SimpleNamespace(data=torch.from_numpy(pictures[:, 0]), targets=torch.tensor([3, 0, 1, 2]), classes=["0 - zero"])
    for found, expected, names in (
        (last, pictures, ("airplane", "cat")),
        (first, pictures, tuple("0123456789")),
        (grey, pictures[:, :1], ("0",)),
    ):
        x, y, classes = data._read(found)
        assert np.array_equal(x.numpy(), expected) and y.tolist() == [3, 0, 1, 2] and classes == names


# --- damage -----------------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    """A file in the format of MNIST."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def small_mnist(monkeypatch, tmp_path):
    """A set of MNIST's form with a few images, official in every respect here: its sums are put in the table."""
    generator = np.random.default_rng(0)
    content, table = {}, {}
    shapes = {"train-images-idx3": (30, 28, 28), "train-labels-idx1": (30,), "t10k-images-idx3": (10, 28, 28), "t10k-labels-idx1": (10,)}
    for stem, shape in shapes.items():
        content[f"{stem}-ubyte"] = raw = idx(generator.integers(0, 256 if len(shape) == 3 else 10, shape, dtype=np.uint8))
        table[f"MNIST/raw/{stem}-ubyte"] = data._File("sha256", hashlib.sha256(raw).hexdigest(), len(raw))
    monkeypatch.setattr(data, "_MNIST", table)
    root = tmp_path / "sets"
    (root / "MNIST" / "raw").mkdir(parents=True)
    for name, raw in content.items():
        (root / "MNIST" / "raw" / name).write_bytes(raw)
    return root


@pytest.fixture
def mirror(small_mnist, monkeypatch, tmp_path):
    """The small set, packed, on a web server of this machine, where torchvision now looks for it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    sums = []
    for file in sorted((small_mnist / "MNIST" / "raw").iterdir()):
        packed = gzip.compress(file.read_bytes())
        (folder / f"{file.name}.gz").write_bytes(packed)
        sums.append((f"{file.name}.gz", hashlib.md5(packed).hexdigest()))
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(datasets.MNIST, "resources", sums)
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        yield folder
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass


@pytest.fixture
def no_network(monkeypatch):
    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])


def everything_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def damage(root, name="t10k-images-idx3-ubyte"):
    return root / "MNIST" / "raw" / name


def test_a_whole_set_is_read(small_mnist):
    train = data.load("mnist", root=small_mnist)
    assert train.x.shape == (30, 1, 28, 28) and float(train.x.max()) <= 1
    assert "4 files, 0 MB" in data.check("mnist", small_mnist)


def test_a_corrupt_file_is_named_and_not_read(small_mnist):
    file = damage(small_mnist)
    raw = bytearray(file.read_bytes())
    raw[500] ^= 1
    file.write_bytes(raw)
    before = everything_below(small_mnist)
    message = r"mnist: .*t10k-images-idx3-ubyte is corrupt: its sha256 sum begins \w{12}, the official one \w{12}\. Delete it"
    for call in (data.check, data.get, functools.partial(data.load, split="test")):
        with pytest.raises(data.DataError, match=message):
            call("mnist", root=small_mnist)
    assert everything_below(small_mnist) == before
    assert len(data.load("mnist", "train", small_mnist)) == 30  # the other split is whole


def test_a_truncated_file_is_told_from_a_corrupt_one(small_mnist):
    file = damage(small_mnist, "train-labels-idx1-ubyte")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(data.DataError, match=r"train-labels-idx1-ubyte is truncated: 31 of 38 bytes\..*python -m support data get mnist"):
        data.load("mnist", "train", small_mnist)


@pytest.mark.parametrize("inner", ["MNIST", "MNIST/raw"])
def test_a_folder_too_deep_is_recognised(small_mnist, inner, no_network):
    with pytest.raises(data.DataError, match=rf"lies directly in .*{inner}, but BOOK_DATA must name .*{small_mnist.name} would do"):
        data.load("mnist", root=small_mnist / inner)
    assert len(everything_below(small_mnist)) == 6


def test_a_folder_that_does_not_exist_or_is_a_file(tmp_path, monkeypatch):
    with pytest.raises(data.DataError, match=r"there is no folder .*nowhere .*correct BOOK_DATA"):
        data.load("mnist", root=tmp_path / "nowhere")
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "a_file"))
    with pytest.raises(data.DataError, match="a_file is a file: BOOK_DATA must name the folder"):
        data.load("mnist")
    assert everything_below(tmp_path) == ["a_file"]


def test_without_network_the_error_says_what_to_do_and_leaves_nothing(tmp_path, no_network):
    expected = rf"mnist is not in {re.escape(str(tmp_path))} and could not be downloaded .*connect to a network.*BOOK_DATA.*quick profile"
    for call in (data.load, data.get):
        with pytest.raises(data.DataError, match=expected) as caught:
            call("mnist", root=tmp_path)
        assert "\n" not in str(caught.value)
    assert everything_below(tmp_path) == []
    with pytest.raises(data.DataError, match=r"MNIST/raw/train-images-idx3-ubyte is not in"):
        data.check("mnist", tmp_path)


def test_the_default_folder_is_made_for_a_download_and_unmade_when_it_fails(tmp_path, monkeypatch, no_network, mirror):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / paths.MARKER).write_text("")
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path / "book"))
    monkeypatch.delenv("BOOK_DATA", raising=False)
    whole = datasets.MNIST.mirrors
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(data.DataError, match="could not be downloaded"):
        data.load("mnist")
    assert everything_below(tmp_path / "book") == [paths.MARKER]
    monkeypatch.setattr(datasets.MNIST, "mirrors", whole)
    assert len(data.load("mnist")) == 30
    assert (tmp_path / "book" / "data" / "sets" / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()


def test_a_download_brings_what_is_missing_and_touches_nothing_else(small_mnist, mirror):
    kept = damage(small_mnist, "train-labels-idx1-ubyte")
    before = kept.stat().st_mtime_ns, kept.stat().st_ino
    damage(small_mnist).unlink()
    assert "checksums agree" in data.get("mnist", small_mnist)
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before
    assert len(everything_below(small_mnist)) == 6  # no archives, no temporary folder


def test_a_download_that_ends_early_leaves_nothing(small_mnist, mirror):
    shutil.rmtree(small_mnist / "MNIST")
    packed = mirror / "train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(data.DataError, match="could not be downloaded"):
        data.get("mnist", small_mnist)
    assert everything_below(small_mnist) == []


def test_an_interrupted_download_leaves_nothing(small_mnist, mirror, monkeypatch):
    shutil.rmtree(small_mnist / "MNIST")

    def interrupt(self):
        (small_mnist / "seen").write_text(str(list(small_mnist.glob(".download-*"))))
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets.MNIST, "download", interrupt)
    with pytest.raises(KeyboardInterrupt):
        data.get("mnist", small_mnist)
    assert ".download-" in (small_mnist / "seen").read_text()
    assert everything_below(small_mnist) == ["seen"]
    assert socket.getdefaulttimeout() is None


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the administrator")
def test_a_read_only_folder(tmp_path, mirror):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(data.DataError, match=r"cannot be written \(Permission denied\)"):
        data.get("mnist", folder)


def test_a_full_disk(tmp_path, mirror, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data.os, "replace", full)
    with pytest.raises(data.DataError, match=r"cannot be written \(No space left on device\): make room"):
        data.get("mnist", tmp_path)
    assert not list(tmp_path.glob(".download-*"))
    assert not (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").exists()


@need("cifar10")
def test_a_damaged_cifar_file_is_named(tmp_path):
    source = paths.data_sets() / "cifar-10-batches-py"
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for file in source.iterdir():
        if file.name != "data_batch_3":
            (folder / file.name).symlink_to(file)
    raw = (source / "data_batch_3").read_bytes()
    (folder / "data_batch_3").write_bytes(raw[:1000])
    with pytest.raises(data.DataError, match=r"data_batch_3 is truncated: 1000 of 31035999 bytes"):
        data.load("cifar10", "train", tmp_path)
    (folder / "data_batch_3").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(data.DataError, match="data_batch_3 is corrupt: its md5 sum"):
        data.load("cifar10", "train", tmp_path)
