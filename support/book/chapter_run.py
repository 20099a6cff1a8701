"""A notebook's side of a run: its parameters, seeds, device and data, the rows of its claims, and
the record that it leaves.

The second cell of a part starts the run, and its last cell finishes it::

    run = chapter_run.start("01_softmax_kmeans/evidence", profile, seed, device, overrides)
    p = run.profile
    images = run.load("digits", "test").take(p.digits_test)
    broken = run.once(broken_by_pgd, model, images.x, images.y, eps=0.1, steps=p.pgd_steps)
    run.claim("hess2020.thm1", mismatches=0, norm_spread=1e-12)
    run.keep("accuracy", 0.98)
    run.finish()

What is shown is also left as data in the metadata of the cell's output, under ``support``: that is
the record, from which :mod:`support.book.execute` makes the manifest. The lesson reads it::

    run = chapter_run.start("01_softmax_kmeans/lesson", profile, seed, device, overrides)
    run.evidence.kept["accuracy"]
    run.show("fig-distances")  # the output of the evidence's cell of this name
    run.finish()
"""

import contextlib
import functools
import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.core.getipython import get_ipython
from IPython.display import Markdown, display
from threadpoolctl import threadpool_limits

from support import data
from support.book import claims, manifests, profiles, rules
from support.common import identity, paths
from support.common.cache import Cache

QUICK_THREADS = 1  # the number of threads changes the last digits, so the committed pages fix it
DEVICES = ("cpu", "cuda", "auto")
GENERATED = ("book/*/*.ipynb", "data/runs", "data/verdicts.csv")  # recording writes them


class RunError(RuntimeError):
    """A run that cannot start where it is meant to. The message is one line that says what to
    do."""


class Run:
    """One execution of a part of a chapter. Made by :func:`start`.

    Attributes:
        chapter: its name, for example ``"01_softmax_kmeans"``.
        part: ``"evidence"``, ``"lesson"`` or ``"exercises"``.
        profile: the parameters, one attribute per field, frozen.
        seed: the first seed; ``seeds`` are all of them, ``seed .. seed + profile.seeds - 1``.
        device: where tensors go.
        cache: trained models and results of earlier runs; :meth:`once` uses it.
    """

    def __init__(
        self,
        chapter: str,
        part: str,
        profile: profiles.Profile,
        seed: int,
        device: torch.device,
        overrides: dict[str, Any],
        cache: Cache,
    ) -> None:
        self.chapter, self.part, self.profile = chapter, part, profile
        self.seed, self.device, self.cache = seed, device, cache
        self.seeds = list(range(seed, seed + profile.seeds))
        self._overrides = overrides
        self._registered = {claim.id: claim for claim in claims.of_chapter(chapter)}
        self._stated: dict[str, claims.Judgement] = {}
        self._kept: dict[str, Any] = {}
        self._data: dict[str, str] = {}
        # Now, not at the end: a source that is edited while the run goes on is not what it computes
        # with.
        self._code = manifests.code_of(chapter, part)
        self._commit = commit()
        self._cache_origin = cache.origin(self._commit)
        self._started = time.perf_counter()

    def load(self, name: str, split: str = "train") -> data.ImageData:
        """:func:`support.data.load`, with the checksum noted in the run's record."""
        found = data.load(name, split)
        self._data[f"{name}/{split}"] = found.sha256
        return found

    def once(self, function: Callable, *args: Any, **settings: Any) -> Any:
        """A piece of long work, computed once: :meth:`support.common.cache.Cache.once`."""
        return self.cache.once(function, *args, **settings)

    def each_seed(self, function: Callable, *args: Any, **settings: Any) -> list[Any]:
        """``function(*args, seed=s, **settings)`` for each seed of the run, each computed once."""
        return [self.once(function, *args, seed=s, **settings) for s in self.seeds]

    def claim(self, claim_id: str, modern: rules.Measured | None = None, **measured: Any) -> None:
        """Judge a claim and show its row: published, here with intervals, and the verdicts.

        Args:
            claim_id: an id of the registry that belongs to this chapter.
            modern: what the claim's ``survives_rules`` name, under today's protocol.
            **measured: what its ``rules`` and ``nulls`` name, each a number or one number per
                run, with its sampling error where it has one (:mod:`support.measures`); further
                numbers are shown beside them.

        Raises:
            ClaimError: an unknown id, a claim of another chapter, one stated before, a measurement
                that does not fit its rules, or a part that is not the evidence.
        """
        if self.part != "evidence":
            raise claims.ClaimError(f"claims are stated in the evidence, not in the {self.part}")
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
        if absent := sorted(set(claim.nulls.values()) - set(judgement.numbers)):
            raise claims.ClaimError(f"{claim_id}: its nulls want {', '.join(absent)}")
        numbers = {
            "measured": rules.plain(claims.read(claim, claim.rules, measured)),
            "modern": rules.plain(claims.read(claim, claim.survives_rules, modern or {})),
        }
        _show(claims.render(claim, judgement), {"claim": {"id": claim_id, **numbers}})

    def keep(self, name: str, value: Any) -> None:
        """Leave numbers for the lesson: a number, text, or lists and mappings of them.

        Raises:
            ClaimError: kept before, or something that JSON cannot hold, such as a number that is
                not finite (keep None); tensors are rounded to lists by the chapter, which knows how
                many digits mean something.
        """
        if name in self._kept:
            raise claims.ClaimError(f"{name} is kept twice in {self.chapter}")
        try:
            self._kept[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise claims.ClaimError(f"{name} cannot be kept: {error}") from error

    @functools.cached_property
    def evidence(self) -> manifests.Manifest:
        """The record of the chapter's evidence at these parameters: ``claims`` and ``kept``.

        Raises:
            RecordError: the evidence was not run.
        """
        return manifests.manifest_of(self._evidence)

    @functools.cached_property
    def _evidence(self) -> Path:
        parameters = self.profile.model_dump(mode="json")
        return manifests.evidence_run(self.chapter, self.profile.name, parameters, self.seed)

    @functools.cached_property
    def _shown(self) -> dict[str, list]:
        cells = json.loads(self._evidence.read_text(encoding="utf-8"))["cells"]  # nbformat is slow
        named = (cell for cell in cells if "name" in cell["metadata"])
        return {cell["metadata"]["name"]: cell["outputs"] for cell in named}

    def show(self, name: str) -> None:
        """Show what a cell of the evidence shows: a figure or a table.

        Args:
            name: of the cell: ``# %% name="fig-distances"`` in the evidence's source.

        Raises:
            RecordError: no such cell, or one that shows nothing.
        """
        outputs = [output for output in self._shown.get(name, []) if "data" in output]
        if not outputs:
            near = profiles.near(name, list(self._shown))
            raise manifests.RecordError(
                f"the evidence of {self.chapter} shows nothing named {name!r}: {near}there are "
                f"{', '.join(self._shown) or 'no names'}"
            )
        for output in outputs:
            # The file of a notebook may hold a text as its lines.
            texts = {kind: "".join(content) for kind, content in output["data"].items()}
            display(texts, raw=True)

    def found(self, claim_id: str, name: str, *, modern: bool = False) -> float:
        """What the evidence measured for a claim: the mean over runs of the number of this name,
        NaN where nothing was measured.

        Raises:
            RecordError: the evidence states no such claim.
        """
        known = self.evidence.claims
        if claim_id not in known:
            near = profiles.near(claim_id, list(known))
            raise manifests.RecordError(f"the evidence does not state {claim_id}: {near}")
        record = known[claim_id]
        values = rules.numbers(claim_id, record.modern if modern else record.measured).get(name)
        return rules.interval(values).mean if values else math.nan

    @functools.cached_property
    def _judged(self) -> dict[str, claims.Judgement]:
        return {claim.id: found for claim, found in manifests.judged(self.evidence)}

    def paper(self, key: str) -> "Paper":
        """What the evidence says of the claims of one paper, of this key in the bibliography."""
        return Paper(self, key)

    def say(self, text: str) -> None:
        """A paragraph of Markdown that holds numbers of the run."""
        display(Markdown(text))

    def show_verdicts(self) -> None:
        """All verdicts of the chapter, and what is true where the paper is not."""
        if self.part == "evidence":
            judged = [(self._registered[name], found) for name, found in self._stated.items()]
        else:
            judged = manifests.judged(self.evidence)
        _show(claims.render_verdicts(judged), {"table": "verdicts"})

    def finish(self) -> None:
        """Show how this page was computed and leave it as the run's record.

        Raises:
            ClaimError: a registered claim of this chapter has no row.
        """
        missing = [name for name in self._registered if name not in self._stated]
        if missing and self.part == "evidence":
            raise claims.ClaimError(
                f"{self.chapter} never states {', '.join(missing)}: each registered claim of a "
                "chapter needs its run.claim(...)"
            )
        record = self.record()
        _show(claims.render_record(record), {"run": record})

    def _from_cache(self) -> int:
        """How many results are of earlier runs. Those of other chapters do not count that were
        computed at this very commit, in a cache that was empty before."""
        clean = self._commit["commit"] is not None and not self._commit["dirty"]
        return 0 if clean and self._cache_origin == self._commit else self.cache.hits

    def record(self) -> dict[str, Any]:
        """What this run is: everything that is needed to repeat it, as JSON can hold it."""
        cuda = self.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated(self.device) / 2**20 if cuda else None
        return {
            "chapter": self.chapter,
            "part": self.part,
            "profile": self.profile.name,
            "parameters": self.profile.model_dump(mode="json"),
            "overrides": self._overrides,
            "seed": self.seed,
            "seeds": self.seeds,
            "device": self.device.type,
            "device_name": _device_name(self.device),
            "threads": torch.get_num_threads(),
            "versions": identity.versions(),
            "platform": f"{platform.system()} {platform.machine()}",
            **self._commit,
            "data": dict(sorted(self._data.items())),
            "code": self._code,
            "units": self.cache.hits + self.cache.misses,
            "units_from_cache": self._from_cache(),
            "computing_seconds": round(time.perf_counter() - self._started, 1),
            "peak_memory_mb": _peak_memory_mb(),
            "peak_gpu_memory_mb": None if memory is None else round(memory),
            "evidence": self.evidence.content() if "_evidence" in vars(self) else None,
            "kept": self._kept,
        }


@dataclass(frozen=True)
class Paper:
    """The claims of one paper as the evidence judged them, named without the paper's key."""

    run: Run
    key: str

    def judgement(self, name: str) -> claims.Judgement:
        """How a claim was judged.

        Raises:
            RecordError: the evidence states no such claim, or numbers that today's rules do not
                know.
        """
        if (found := self.run._judged.get(f"{self.key}.{name}")) is None:
            raise manifests.RecordError(f"the evidence has no judgement of {self.key}.{name}")
        return found

    def found(self, name: str, what: str, modern: bool = False) -> float:
        """As :meth:`Run.found`."""
        return self.run.found(f"{self.key}.{name}", what, modern=modern)

    def verdict(self, name: str, *, second: bool = False) -> str:
        """The badge of a claim's verdict, which leads to its row in the evidence."""
        return claims.verdict_link(self.judgement(name), second=second)


def start(
    page: str,
    profile: str = "quick",
    seed: int = 0,
    device: str = "cpu",
    overrides: Mapping[str, Any] = profiles.NOTHING,
) -> Run:
    """Begin a part of a chapter: read its parameters, choose the device, and make what follows
    repeatable.

    The quick profile computes on one thread, the others on as many as torch takes
    (``OMP_NUM_THREADS`` says otherwise); cuDNN and torch take their deterministic algorithms; the
    global generators start from ``seed``.

    Args:
        page: the chapter and the part, such as ``"01_softmax_kmeans/evidence"``.
        profile: ``"quick"``, ``"standard"`` or ``"paper"``.
        seed: first seed, 0 or more.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU where there is one.
        overrides: fields of the profile to change.

    Raises:
        ProfileError: unknown chapter, profile or field, or a value or seed that is not allowed.
        RunError: no such part or device.
        CacheError: the cache folder cannot be written.
    """
    chapter, _, part = page.partition("/")
    if part not in manifests.PARTS:
        raise RunError(f"{page!r}: wants a chapter and a part, such as 01_softmax_kmeans/evidence")
    found = profiles.load(chapter, profile, overrides)
    profiles.check_seed(seed)
    target = resolve_device(device)
    if profile == "quick":
        torch.set_num_threads(QUICK_THREADS)
        threadpool_limits(QUICK_THREADS, user_api="blas")
    # The device and, on a CPU, the number of threads change the last digits.
    where = "cuda" if target.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    cache = Cache(where=where)
    cache.writable()
    # cuBLAS is deterministic only with this, read when CUDA starts
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    values = found.model_dump(mode="json")
    usual = profiles.load(chapter, profile).model_dump(mode="json")
    changed = {name: values[name] for name in overrides if values[name] != usual[name]}
    return Run(chapter, part, found, seed, target, changed, cache)


def resolve_device(device: str) -> torch.device:
    """The torch device that a name stands for.

    Raises:
        RunError: not one of ``cpu``, ``cuda``, ``auto``, or ``cuda`` without a GPU that torch can
            use.
    """
    if device not in DEVICES:
        raise RunError(
            f"unknown device {device!r}: {profiles.near(str(device), DEVICES)}there are "
            f"{', '.join(DEVICES)}"
        )
    if device == "cuda" and not torch.cuda.is_available():
        built = "finds no GPU" if torch.version.cuda else "is a CPU build"
        raise RunError(
            f"no device cuda: torch {torch.__version__} {built}; use --device cpu, or auto for a "
            "GPU where there is one"
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


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
        file = Path("/proc/cpuinfo")
        lines = file.read_text("utf-8", errors="replace").splitlines() if file.exists() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if models:
            return models[0]
    return platform.processor() or platform.machine()


def commit() -> dict[str, Any]:
    """The commit and whether files other than records differ from it; None where the book is not
    the top of a git checkout."""
    root = paths.root()
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if Path(git(root, "rev-parse", "--show-toplevel")).resolve() == root.resolve():
            excluded = (f":(exclude,glob){pattern}" for pattern in GENERATED)
            dirty = git(root, "status", "--porcelain", "--", ".", *excluded)
            return {"commit": git(root, "rev-parse", "HEAD"), "dirty": bool(dirty)}
    return {"commit": None, "dirty": None}


def git(root: Path, *arguments: str) -> str:
    """What git says of a repository, in one string without blanks around it.

    Raises:
        OSError, subprocess.CalledProcessError: there is no git, or it fails.
    """
    # What git is told of another repository (a hook of it may have started us) is not for this one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    words = {"encoding": "utf-8", "errors": "replace", "env": environment}
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, check=True, **words).stdout.strip()


def _peak_memory_mb() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
