"""Data sets: images in [0, 1] with labels, checked before they are read, and two toy problems of
the plane.

``digits`` lies inside scikit-learn and needs no download. The others are torchvision's, in
torchvision's layout, under :func:`support.common.paths.data_sets` (``BOOK_DATA``); one that is
missing is downloaded where there is a network. No file is read whose checksum is not the official
one.
"""

import errno
import hashlib
import os
import socket
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from support.common import paths
from support.common.arguments import choice, whole_number

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn")
SPLITS = ("train", "test")
DIGITS_TRAIN = 1297  # of 1797 images; the other 500 are the test split
_ELSEWHERE = (
    "point BOOK_DATA to a folder that has the set, or take the quick profile, which needs no "
    "download"
)
_PLAIN = {"dtype": torch.float32, "device": "cpu"}  # whatever the defaults of the process are
_RESPONSE_SECONDS = 30.0  # a server that is silent for so long counts as no network


class DataError(RuntimeError):
    """A data set cannot be had: absent, corrupt, truncated, in the wrong place, or out of reach.
    The message says what to do."""


@dataclass(frozen=True)
class ImageData:
    """Labelled images.

    Attributes:
        x: float32 (N, C, H, W) in [0, 1].
        y: int64 (N,), labels 0 .. len(classes) - 1.
        classes: the classes' names.
        name: of the data set, one of :data:`NAMES`.
        split: ``"train"`` or ``"test"``.
        sha256: checksum of these very images and labels, 64 hexadecimal digits.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    name: str
    split: str
    sha256: str

    def __len__(self) -> int:
        return len(self.y)

    def take(self, n: int, seed: int | None = None) -> "ImageData":
        """``n`` of the images: the first ones, or with a ``seed`` a random draw with as many of
        each class as of any other.

        The draw gives each class floor(n/K) or ceil(n/K) images as long as the classes have them,
        and shuffles.

        Raises:
            ValueError: ``n`` is not between 1 and the number of images.
        """
        if not 1 <= n <= len(self):
            raise ValueError(
                f"{n} images of {self.name}/{self.split} were asked for; between 1 and {len(self)} "
                "can be taken"
            )
        if seed is None and n == len(self):
            return self
        index = torch.arange(n, device="cpu") if seed is None else _balanced(self.y, n, seed)
        x, y = self.x[index], self.y[index]
        return replace(self, x=x, y=y, sha256=_checksum(x, y))


def load(name: str, split: str = "train", root: Path | str | None = None) -> ImageData:
    """A split of a data set, downloaded first if it is missing.

    ``digits`` is shuffled once by a fixed permutation (NumPy's ``RandomState(0)``): 1297 images
    train, the other 500 test. The other sets keep their official order and splits. Used by every
    chapter.

    Args:
        name: one of :data:`NAMES`.
        split: ``"train"`` or ``"test"``.
        root: folder of the data sets, default :func:`support.common.paths.data_sets`.

    Raises:
        DataError: the set is not there and cannot be downloaded, or its files are not the official
            ones.
        ValueError: unknown name or split.
    """
    choice("split", split, SPLITS)
    if name == "digits":
        return _digits(split)
    source, folder = _source(name), _folder(root)
    if any(not (folder / file).is_file() for file in source.files):
        get(name, root)
    _verify(name, source, folder, split)
    x, y, classes = _read(source.open(folder, split))
    x, y = x.float().div_(255), y.long()
    return ImageData(x, y, classes, name, split, _checksum(x, y))


def check(name: str, root: Path | str | None = None) -> str:
    """One line that says that a data set is whole. Reads every file of the set; downloads nothing.

    Raises:
        DataError: something is missing, truncated or corrupt; the message names it.
        ValueError: unknown name.
    """
    if name == "digits":
        train, test = (len(_digits(split)) for split in SPLITS)
        return f"digits: {train} + {test} images inside scikit-learn"
    source, folder = _source(name), _folder(root)
    _verify(name, source, folder)
    size = sum((folder / file).stat().st_size for file in source.files)
    return f"{name}: {len(source.files)} files, {size / 1e6:.0f} MB in {folder}, checksums agree"


def get(name: str, root: Path | str | None = None) -> str:
    """Download what is missing of a data set, check it, and say so in one line.

    The download goes to a temporary folder beside its place and is moved there when it is whole, so
    an interrupted one leaves nothing behind. Files that are there already are never overwritten.

    Raises:
        DataError: no network, a folder that cannot be written, or files that are not the official
            ones.
        ValueError: unknown name.
    """
    if name == "digits":
        return check(name)
    source, folder = _source(name), _folder(root)
    if missing := [file for file in source.files if not (folder / file).is_file()]:
        _refuse_wrong_folder(name, source, folder)
        _download(name, source, folder, missing)
    return check(name, root)


def two_gaussians(n: int, seed: int = 0, *, distance: float = 4.0) -> tuple[Tensor, Tensor]:
    """Two classes of the plane, each a unit Gaussian, with means ``distance`` apart on the first
    axis.

    Returns:
        x float32 (n, 2) and y int64 (n,), labels alternating 0, 1.
    """
    y = torch.arange(whole_number("n", n, 1), device="cpu") % 2
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), **_PLAIN)
    x[:, 0] += distance * (y.float() - 0.5)
    return x, y


def moons(n: int, seed: int = 0, *, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Two interleaved half circles of radius 1, centred at (0, 0) and (1, 0.5), with Gaussian
    noise.

    Returns:
        x float32 (n, 2) and y int64 (n,), labels alternating 0 (upper arc), 1 (lower arc).
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(whole_number("n", n, 1), device="cpu") % 2
    angle = torch.pi * torch.rand(n, generator=generator, **_PLAIN)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    x = torch.where(y[:, None] == 0, upper, torch.tensor([1.0, 0.5], **_PLAIN) - upper)
    return x + noise * torch.randn(n, 2, generator=generator, **_PLAIN), y


# --- the sets -----------------------------------------------------------------------------------


class _File(NamedTuple):
    algorithm: str
    digest: str
    size: int | None = (
        None  # in bytes, where it is known: tells a truncated file from a corrupt one
    )


@dataclass(frozen=True)
class _Source:
    files: dict[str, _File]  # path below the root of the data sets
    open: Callable[..., Any]  # (root, split, download=False): torchvision's data set


def _idx(folder: str, digests: tuple[str, str, str, str]) -> dict[str, _File]:
    stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    sizes = (47_040_016, 60_008, 7_840_016, 10_008)
    return {
        f"{folder}/raw/{stem}-ubyte": _File("sha256", digest, size)
        for stem, digest, size in zip(stems, digests, sizes, strict=True)
    }


_MNIST = _idx("MNIST", (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
))  # fmt: skip
_FASHION = _idx("FashionMNIST", (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
))  # fmt: skip
_CIFAR10_SIZES = {
    "batches.meta": 158, "data_batch_1": 31_035_704, "data_batch_2": 31_035_320,
    "data_batch_3": 31_035_999, "data_batch_4": 31_035_696, "data_batch_5": 31_035_623,
    "test_batch": 31_035_526,
}  # fmt: skip


def _source(name: str) -> _Source:
    choice("data set", name, NAMES)
    # torchvision takes seconds to import, and the quick profile does without it.
    from support.common.vision import datasets

    if name == "mnist":
        return _Source(_MNIST, _by_train(datasets.MNIST))
    if name == "fashion-mnist":
        return _Source(_FASHION, _by_train(datasets.FashionMNIST))
    if name == "svhn":
        lists = datasets.SVHN.split_list
        files = {f"SVHN/{file}": _File("md5", md5) for _, file, md5 in map(lists.get, SPLITS)}
        return _Source(
            files, lambda root, *given, **more: datasets.SVHN(root / "SVHN", *given, **more)
        )
    loader = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    meta = [loader.meta["filename"], loader.meta["md5"]]
    sizes = _CIFAR10_SIZES if name == "cifar10" else {}
    files = {
        f"{loader.base_folder}/{file}": _File("md5", md5, sizes.get(file))
        for file, md5 in (*loader.train_list, *loader.test_list, meta)
    }
    return _Source(files, _by_train(loader))


def _by_train(loader) -> Callable[..., Any]:
    return lambda root, split, **more: loader(root, train=split == "train", **more)


def _read(found) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images (N, C, H, W) of bytes, labels and class names of one of torchvision's data sets."""
    x = torch.from_numpy(np.ascontiguousarray(found.data))
    x = x[:, None] if x.ndim == 3 else x
    x = x.permute(0, 3, 1, 2).contiguous() if x.shape[3] == 3 else x
    y = found.targets if hasattr(found, "targets") else found.labels
    names = getattr(found, "classes", range(10))
    return x, torch.as_tensor(y, device="cpu"), tuple(str(name).split(" - ")[0] for name in names)


def _digits(split: str) -> ImageData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))
    order = order[:DIGITS_TRAIN] if split == "train" else order[DIGITS_TRAIN:]
    x = torch.from_numpy(bunch.images[order] / 16).float()[:, None]
    y = torch.from_numpy(bunch.target[order]).long()
    return ImageData(x, y, tuple(map(str, bunch.target_names)), "digits", split, _checksum(x, y))


# --- checks and downloads -----------------------------------------------------------------------


def _folder(root: Path | str | None) -> Path:
    """The folder of the data sets; one that somebody named must exist, lest a slip of the pen
    starts a download."""
    folder = paths.data_sets() if root is None else Path(root).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"{folder} is a file: BOOK_DATA must name the folder that holds the data sets"
        )
    if not folder.exists() and (root is not None or os.environ.get("BOOK_DATA")):
        raise DataError(
            f"there is no folder {folder} for the data sets: make it, correct BOOK_DATA, or unset "
            "BOOK_DATA to use data/sets"
        )
    return folder


def _refuse_wrong_folder(name: str, source: _Source, folder: Path) -> None:
    for file in source.files:
        parts = Path(file).parts
        for depth in range(1, len(parts)):
            inside = Path(*parts[depth:])
            if (folder / inside).is_file():
                fits = folder.parts[-depth:] == parts[:depth]
                hint = f"; {folder.parents[depth - 1]} would do" if fits else ""
                raise DataError(
                    f"{name}: {inside} lies directly in {folder}, but BOOK_DATA must name the "
                    f"folder that holds {file}{hint}"
                )


def _verify(name: str, source: _Source, folder: Path, split: str | None = None) -> None:
    """Raise a DataError for the first file that is missing, truncated or corrupt; with a split,
    only that split's idx files."""
    others = {"train": "t10k-", "test": "train-"}.get(split, " ")
    again = f"Delete it and run `python -m support data get {name}`, {_ELSEWHERE}."
    for file, wanted in source.files.items():
        path = folder / file
        if path.name.startswith(others):
            continue
        if not path.is_file():
            _refuse_wrong_folder(name, source, folder)
            raise DataError(
                f"{name}: {file} is not in {folder}. Run `python -m support data get {name}`, "
                f"{_ELSEWHERE}."
            )
        try:
            size = path.stat().st_size
            if wanted.size is not None and size < wanted.size:
                raise DataError(
                    f"{name}: {path} is truncated: {size} of {wanted.size} bytes. {again}"
                )
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, wanted.algorithm).hexdigest()
        except OSError as error:
            raise DataError(f"{name}: {path} cannot be read: {error.strerror}") from error
        if found != wanted.digest:
            raise DataError(
                f"{name}: {path} is corrupt: its {wanted.algorithm} sum begins {found[:12]}, the "
                f"official one {wanted.digest[:12]}. {again}"
            )


def _download(name: str, source: _Source, folder: Path, missing: list[str]) -> None:
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    seconds = socket.getdefaulttimeout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            socket.setdefaulttimeout(_RESPONSE_SECONDS)  # torchvision's own calls have none
            for split in SPLITS:
                source.open(Path(temporary), split, download=True)
            _verify(name, source, Path(temporary))
            for file in missing:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(temporary) / file, folder / file)
    except DataError:
        raise
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.EDQUOT):
            why, advice = f", which cannot be written ({os.strerror(number)})", "make room"
        else:
            reason = textwrap.shorten(str(error), 180, placeholder=" ...")
            why = f" and could not be downloaded ({reason})"
            advice = f"connect to a network and run `python -m support data get {name}`"
        raise DataError(f"{name} is not in {folder}{why}: {advice}, {_ELSEWHERE}.") from error
    finally:
        socket.setdefaulttimeout(seconds)
        for parent in made:  # innermost first; a folder made for nothing is taken away again
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


# --- small things -------------------------------------------------------------------------------


def _checksum(x: Tensor, y: Tensor) -> str:
    total = hashlib.sha256(repr((tuple(x.shape), str(x.dtype))).encode())
    for tensor in (x, y):
        total.update(np.ascontiguousarray(tensor.numpy()))
    return total.hexdigest()


def _balanced(y: Tensor, n: int, seed: int) -> Tensor:
    """Indices of n images: all classes' first ones in a random order, then all their second ones,
    and so on; shuffled."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator, device="cpu")
    by_class = order[y[order].argsort(stable=True)]
    counts = y.bincount()
    rank = torch.cat([torch.arange(int(count), device="cpu") for count in counts])
    position = torch.empty_like(order).scatter_(0, order, torch.arange(len(y), device="cpu"))
    first = by_class[(rank * len(y) + position[by_class]).argsort()[:n]]
    return first[torch.randperm(n, generator=generator, device="cpu")]
