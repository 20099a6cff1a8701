"""A chapter's side of a run: its parameters, seeds, device and data, the rows of its claims, and
the record that it leaves.

The second cell of a chapter starts the run, and its last cell finishes it::

    run = runs.start("01_softmax_kmeans", profile, seed, device, overrides)
    p = run.profile
    images = run.load("digits", "test").take(p.digits_test)
    run.claim("hess2020.thm1", mismatches=0, norm_spread=1e-12)
    run.finish()

What is shown is also left as data in the metadata of the cell's output, under ``support``: that is
the record, from which :mod:`support.book.execute` makes the manifest and
:mod:`support.book.verdict_table` the table of verdicts.
"""

import html
import importlib.metadata
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.core.getipython import get_ipython
from IPython.display import display
from threadpoolctl import threadpool_limits

from support import data
from support.book import claims, profiles
from support.common import fingerprint, paths
from support.common.cache import Cache

QUICK_THREADS = (
    1  # the thread count changes the last digits of a training run, so the committed pages fix it
)
DEVICES = ("cpu", "cuda", "auto")
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn")
GENERATED = (
    "book/*.ipynb",
    "data/runs",
    "data/verdicts.csv",
)  # written by recording: they do not make a working tree dirty


class RunError(RuntimeError):
    """A run that cannot start where it is meant to. The message is one line that says what to
    do."""


class CountingCache(Cache):
    """The cache of a run. ``hits`` counts what earlier runs had left there: a run that found much
    says little about the time it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.hits = 0
        self._begun = time.time()

    def read(self, path: Path, header: str) -> dict[str, torch.Tensor] | None:
        found = super().read(path, header)
        self.hits += found is not None and path.stat().st_mtime < self._begun
        return found


class Run:
    """One execution of a chapter. Made by :func:`start`.

    Attributes:
        chapter: its name, for example ``"01_softmax_kmeans"``.
        profile: the parameters, one attribute per field, frozen.
        seed: the first seed; ``seeds`` are all of them, ``seed .. seed + profile.seeds - 1``.
        device: where tensors go.
        cache: trained models and attack results of earlier runs.
    """

    def __init__(
        self,
        chapter: str,
        profile: profiles.Profile,
        seed: int,
        device: torch.device,
        overrides: dict[str, Any],
        cache: CountingCache,
    ) -> None:
        self.chapter, self.profile, self.seed, self.device, self.cache = (
            chapter,
            profile,
            seed,
            device,
            cache,
        )
        self.seeds = list(range(seed, seed + profile.seeds))
        self._overrides = overrides
        self._registered = {claim.id: claim for claim in claims.of_chapter(chapter)}
        self._stated: dict[str, claims.Judgement] = {}
        self._data: dict[str, str] = {}
        # Now, not at the end: a source that is edited while the run goes on is not what it computes
        # with.
        self._code = fingerprint.digest([paths.root() / "book" / f"{chapter}.py"])
        self._started = time.perf_counter()

    def load(self, name: str, split: str = "train") -> data.ImageData:
        """:func:`support.data.load`, with the checksum noted in the run's record."""
        found = data.load(name, split)
        self._data[f"{name}/{split}"] = found.sha256
        return found

    def unit(
        self, name: str, key: Mapping[str, Any], compute: Callable[[], dict], code: Iterable[Any]
    ) -> dict[str, torch.Tensor]:
        """A piece of long work, computed once: :meth:`support.common.cache.Cache.unit` of this
        run's cache.

        The device and, on a CPU, the number of threads join the key, because both change the last
        digits.
        """
        place = "cuda" if self.device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        return self.cache.unit(name, {"computed on": place, "key": dict(key)}, compute, code)

    def claim(self, claim_id: str, modern: claims.Measured | None = None, **measured: Any) -> None:
        """Judge a claim and show its row: published, here with the interval over runs, and the
        verdicts.

        Args:
            claim_id: an id of the registry that belongs to this chapter.
            modern: what the claim's ``survives_rules`` name, under today's protocol.
            **measured: what its ``rules`` name, each a number or one number per run; further
                numbers are shown beside them.

        Raises:
            ClaimError: an unknown id, a claim of another chapter, one stated before, or a
                measurement that does not fit its rules.
        """
        if claim_id not in self._registered:
            paper, claim = claims.find(claim_id)
            raise claims.ClaimError(
                f"{claim_id} belongs to chapter {paper.chapter_of(claim)}, not to {self.chapter}"
            )
        if claim_id in self._stated:
            raise claims.ClaimError(
                f"{claim_id} is stated twice in {self.chapter}: each claim has one row"
            )
        claim = self._registered[claim_id]
        judgement = claims.judge(claim, measured, self.profile.name, modern)
        self._stated[claim_id] = judgement
        record = {
            "id": claim_id,
            "profile": self.profile.name,
            "measured": claims.plain(measured),
            "modern": claims.plain(modern),
        }
        _show(claims.render(claim, judgement), {"claim": record})

    def show_claims(self) -> None:
        """The claims of this chapter, with their published numbers, before anything is computed."""
        _show(claims.render_claims(list(self._registered.values())), {"table": "claims"})

    def show_verdicts(self) -> None:
        """The verdicts so far, and what is true where the paper is not."""
        _show(
            claims.render_verdicts(
                [(self._registered[name], found) for name, found in self._stated.items()]
            ),
            {"table": "verdicts"},
        )

    def finish(self) -> None:
        """Show how this page was computed and leave it as the run's record.

        Raises:
            ClaimError: a registered claim of this chapter has no row.
        """
        if missing := [name for name in self._registered if name not in self._stated]:
            raise claims.ClaimError(
                f"{self.chapter} never states {', '.join(missing)}: each registered claim of a chapter needs its run.claim(...)"
            )
        record = self.record()
        _show(render_record(record), {"run": record})

    def record(self) -> dict[str, Any]:
        """What this run is: everything that is needed to repeat it, as JSON can hold it."""
        return {
            "chapter": self.chapter,
            "profile": self.profile.name,
            "parameters": self.profile.model_dump(mode="json"),
            "overrides": self._overrides,
            "seed": self.seed,
            "seeds": self.seeds,
            "device": self.device.type,
            "device_name": _device_name(self.device),
            "threads": torch.get_num_threads(),
            "versions": _versions(),
            "platform": f"{platform.system()} {platform.machine()}",
            **_commit(),
            "data": dict(sorted(self._data.items())),
            "code": self._code,
            "units_from_cache": self.cache.hits,
            "computing_seconds": round(time.perf_counter() - self._started, 1),
            "peak_memory_mb": _peak_memory_mb(),
            "peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated(self.device) / 2**20)
            if self.device.type == "cuda"
            else None,
        }


def start(
    chapter: str,
    profile: str = "quick",
    seed: int = 0,
    device: str = "cpu",
    overrides: Mapping[str, Any] = profiles.NOTHING,
) -> Run:
    """Begin a chapter: read its parameters, choose the device, and make what follows repeatable.

    The quick profile computes on one thread, the others on as many as torch takes
    (``OMP_NUM_THREADS`` says otherwise); cuDNN and torch take their deterministic algorithms; the
    global generators start from ``seed``.

    Args:
        chapter: name of the chapter's source in ``book/``, without its ending.
        profile: ``"quick"``, ``"standard"`` or ``"paper"``.
        seed: first seed, 0 or more.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU where there is one.
        overrides: fields of the profile to change.

    Raises:
        ProfileError: unknown chapter, profile or field, or a value or seed that is not allowed.
        RunError: no such device.
        CacheError: the cache folder cannot be written.
    """
    found = profiles.load(chapter, profile, overrides)
    profiles.check_seed(seed)
    target = resolve_device(device)
    cache = CountingCache()
    cache.writable()
    if profile == "quick":
        torch.set_num_threads(QUICK_THREADS)
        threadpool_limits(QUICK_THREADS, user_api="blas")
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # cuBLAS is deterministic only with this, read when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    values, usual = (
        found.model_dump(mode="json"),
        profiles.load(chapter, profile).model_dump(mode="json"),
    )
    return Run(
        chapter,
        found,
        seed,
        target,
        {name: values[name] for name in overrides if values[name] != usual[name]},
        cache,
    )


def resolve_device(device: str) -> torch.device:
    """The torch device that a name stands for.

    Raises:
        RunError: not one of ``cpu``, ``cuda``, ``auto``, or ``cuda`` without a GPU that torch can
            use.
    """
    if device not in DEVICES:
        raise RunError(
            f"unknown device {device!r}: {profiles.near(str(device), DEVICES)}there are {', '.join(DEVICES)}"
        )
    if device == "cuda" and not torch.cuda.is_available():
        built = "finds no GPU" if torch.version.cuda else "is a CPU build"
        raise RunError(
            f"no device cuda: torch {torch.__version__} {built}; use --device cpu, or auto for a GPU where there is one"
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def render_record(record: Mapping[str, Any]) -> claims.Rendered:
    """A run's record as a folded table."""
    chosen = ", ".join(f"{name} = {value}" for name, value in record["overrides"].items())
    rows = {
        "Profile": record["profile"] + (f", with {chosen}" if chosen else ""),
        "Seeds": ", ".join(map(str, record["seeds"])),
        "Device": f"{record['device_name']}, {record['threads']} thread{'s' * (record['threads'] != 1)}",
        "Versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        + f", {record['platform']}",
        "Data": ", ".join(
            f"{name} (sha256 {checksum[:12]}…)" for name, checksum in record["data"].items()
        )
        or "computed here",
        "Code": f"{record['code']}, commit {(record['commit'] or 'unknown')[:12]}"
        + (", with changes that are not committed" if record["dirty"] else ""),
        "Computing": f"{record['computing_seconds']} s"
        + (
            f", {record['units_from_cache']} results taken from the cache"
            if record["units_from_cache"]
            else ""
        )
        + (f", {record['peak_memory_mb']} MB of memory" if record["peak_memory_mb"] else ""),
        "Parameters": ", ".join(
            f"{name} = {value}" for name, value in record["parameters"].items()
        ),
    }
    cells = claims.table(
        ["", "This page was computed with"],
        [[html.escape(name), html.escape(value)] for name, value in rows.items()],
    )
    summary = f"How this page was computed: profile {html.escape(rows['Profile'])}, {html.escape(rows['Device'])}"
    return claims.Rendered(
        f"<details><summary>{summary}</summary>{cells}</details>",
        "\n".join(f"{name}: {value}" for name, value in rows.items()),
    )


def _show(rendered: claims.Rendered, record: dict[str, Any]) -> None:
    if get_ipython() is None:
        print(rendered.text)
        return
    # A MIME type of our own would carry the record more openly, but breaks a strict build of the
    # book and nbval.
    display(
        {"text/html": rendered.html, "text/plain": rendered.text},
        raw=True,
        metadata={"support": record},
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if sys.platform.startswith("linux"):
        lines = (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            if os.path.exists("/proc/cpuinfo")
            else []
        )
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if models:
            return models[0]
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _commit() -> dict[str, Any]:
    """The commit and whether files other than records differ from it; None where this is no git
    checkout."""
    git = ["git", "-C", str(paths.root())]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = [
            *git,
            "status",
            "--porcelain",
            "--",
            ".",
            *(f":(exclude,glob){pattern}" for pattern in GENERATED),
        ]
        return {
            "commit": commit,
            "dirty": bool(
                subprocess.run(changed, capture_output=True, text=True, check=True).stdout.strip()
            ),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _peak_memory_mb() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
