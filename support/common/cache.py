"""Finished work on disk: one file per unit, written whole or not at all.

A unit is a set of named tensors, such as a trained model or the result of one attack on one model.
Its file's name holds a hash of everything that decides its content (parameters, checksums of the
data, code), so a change of any of them is a miss, never a wrong hit. Files are safetensors: reading
one runs no code.
"""

import contextlib
import dis
import errno
import hashlib
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from support.common import fingerprint as support_code
from support.common import paths

Unit = dict[str, Tensor]
Code = Path | ModuleType | Callable
_STALE_SECONDS = 3600.0  # a temporary file this old belongs to a run that was killed


class CacheError(RuntimeError):
    """The cache folder cannot be used, or something cannot be part of a key. One line that says
    what to do."""


class Cache:
    """Units under one folder.

    Args:
        folder: default :func:`support.common.paths.cache` (``BOOK_CACHE``, else ``data/cache``). It
            is made when first written to.
    """

    def __init__(self, folder: Path | str | None = None):
        self.folder = paths.cache() if folder is None else Path(folder).expanduser().resolve()

    def writable(self) -> None:
        """See that the folder exists and takes a file, before hours of work depend on it; sweep up
        after killed runs.

        Raises:
            CacheError: it does not.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".probe-") as probe:
                probe.write(b"\0" * 4096)
                probe.flush()
                os.fsync(probe.fileno())
            for left in self.folder.glob(".*.tmp"):
                with contextlib.suppress(
                    FileNotFoundError
                ):  # another process has just finished with it
                    if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                        left.unlink()
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def unit(
        self,
        name: str,
        key: Mapping,
        compute: Callable[[], Mapping[str, Tensor | np.ndarray]],
        code: Iterable[Code] = (),
    ) -> Unit:
        """The unit of this name and key: read if it is there, else computed and kept.

        Args:
            name: for people; letters, digits, ``.``, ``_``, ``-``. Part of the file's name.
            key: everything besides ``code`` that decides the result: see :func:`describe` for the
                values it may hold.
            compute: makes the tensors; called only on a miss.
            code: whose change makes the unit stale: files and modules of ``support`` (with all that
                they import there), and functions (what they do, not what they call).

        Returns:
            Tensors on the CPU, the same on a hit and on a miss.

        Raises:
            CacheError: the folder cannot be written, or the key holds something without a lasting
                identity.
            ValueError: an unusable name, or a result that is not a mapping of strings to tensors.
        """
        path, header = self.locate(name, key, code)
        found = self.read(path, header)
        if found is None:
            self.writable()
            found = _as_unit(compute(), name)
            self.write(path, found, header)
        return found

    def locate(self, name: str, key: Mapping, code: Iterable[Code] = ()) -> tuple[Path, str]:
        """The file of a unit, and the canonical text of its key, which the file carries as well."""
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name.startswith("."):
            raise ValueError(
                f"a unit's name has letters, digits, '.', '_' and '-', and begins with no dot; {name!r} was given"
            )
        version = ".".join(torch.__version__.split(".")[:2])
        parts = {
            "name": name,
            "key": describe(key),
            "code": sorted(code_digest(part) for part in code),
            "torch": version,
        }
        header = json.dumps(parts, sort_keys=True)
        return (
            self.folder / f"{name}-{hashlib.sha256(header.encode()).hexdigest()[:16]}.safetensors",
            header,
        )

    def read(self, path: Path, header: str) -> Unit | None:
        """What a file holds, or None if there is none. An unreadable or foreign one counts as none,
        with a warning."""
        try:
            with safe_open(path, framework="pt") as stored:
                if (stored.metadata() or {}).get("key") != header:
                    raise SafetensorError("it belongs to another key")
                return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            warnings.warn(f"{path} cannot be read ({error}): computing it again", stacklevel=3)
            return None

    def write(self, path: Path, unit: Unit, header: str, *, durable: bool = True) -> None:
        """Write a unit beside its place and move it there. ``durable`` waits until the disk has it.

        Raises:
            CacheError: a full disk, a folder that cannot be written; nothing half-written stays.
        """
        data = safetensors.torch.save(unit, metadata={"key": header})
        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(
                dir=self.folder, prefix=f".{path.stem}-", suffix=".tmp"
            )
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            os.chmod(
                temporary, 0o644
            )  # mkstemp makes it private; a shared cache is to be read by others
            os.replace(temporary, path)
            temporary = None
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        finally:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)


class _NoCache:
    """Computes always, keeps nothing."""

    def writable(self) -> None:
        pass

    def unit(
        self,
        name: str,
        key: Mapping,
        compute: Callable[[], Mapping[str, Tensor | np.ndarray]],
        code: Iterable[Code] = (),
    ) -> Unit:
        return _as_unit(compute(), name)


NO_CACHE = _NoCache()


def describe(value: object) -> object:
    """A value of a key as JSON: equal for equal values, in every process, and different for
    different ones.

    Numbers, strings, None, sequences, mappings and paths stand for themselves; tensors and arrays
    for type, shape and checksum; functions for their code and what it refers to (their closure,
    their defaults, the global names they use).

    Raises:
        CacheError: a value without a lasting identity, such as an open file.
    """
    return _describe(value, ())


def _describe(value: object, seen: tuple[int, ...]) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return ["float", repr(value)]
    if isinstance(value, Tensor):
        bytes_ = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return ["tensor", str(value.dtype), list(value.shape), hashlib.sha256(bytes_).hexdigest()]
    if isinstance(value, np.ndarray | np.generic):
        return [
            "array",
            str(value.dtype),
            list(value.shape),
            hashlib.sha256(np.ascontiguousarray(value)).hexdigest(),
        ]
    if isinstance(value, Mapping):
        return {
            "mapping": sorted(
                [[_describe(k, seen), _describe(v, seen)] for k, v in value.items()], key=repr
            )
        }
    if isinstance(value, list | tuple):
        return ["list", *(_describe(v, seen) for v in value)]
    if isinstance(value, Path | torch.dtype | torch.device):
        return str(value)
    if isinstance(value, torch.nn.Module):
        return [
            "module",
            repr(value),
            [[name, _describe(t, seen)] for name, t in value.state_dict().items()],
        ]
    if isinstance(value, ModuleType):
        return ["import", value.__name__]
    if isinstance(value, FunctionType):
        if id(value) in seen:
            return ["recursion", seen.index(id(value))]
        seen = (*seen, id(value))
        closure = {
            n: c.cell_contents
            for n, c in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        }
        uses = (
            {}
            if _installed(value.__module__)
            else {
                n: value.__globals__[n] for n in _globals(value.__code__) if n in value.__globals__
            }
        )
        parts = (closure, uses, value.__defaults__, value.__kwdefaults__)
        return [
            "function",
            value.__qualname__,
            code_digest(value),
            *(_describe(part, seen) for part in parts),
        ]
    if (
        callable(value)
        and getattr(value, "__module__", None)
        and getattr(value, "__qualname__", None)
    ):
        return ["named", value.__module__, value.__qualname__]
    raise CacheError(
        f"a {type(value).__name__} has no lasting identity and cannot be part of a cache key: name what matters of it instead"
    )


def code_digest(part: Code) -> str:
    """Hash of code: a file, a module or a function of ``support`` with all that it uses there, or
    another function's own instructions."""
    if isinstance(part, Path):
        return support_code.digest([part])
    if isinstance(part, ModuleType):
        return support_code.digest([Path(part.__file__)])
    if (
        isinstance(part, FunctionType)
        and part.__module__.split(".")[0] == support_code.PACKAGE.name
        and part.__qualname__.isidentifier()
    ):
        return support_code.digest([(Path(sys.modules[part.__module__].__file__), part.__name__)])
    if isinstance(part, FunctionType):
        return hashlib.sha256(repr(_instructions(part.__code__)).encode()).hexdigest()[:16]
    raise CacheError(f"code must be files, modules or functions; a {type(part).__name__} was given")


def _instructions(code: CodeType) -> tuple:
    # Neither line numbers nor file names: moving a function to another cell does not change what it
    # computes.
    return (
        code.co_code.hex(),
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        tuple(_constant(c) for c in code.co_consts),
    )


def _constant(value: object) -> object:
    if isinstance(value, CodeType):
        return _instructions(value)
    if isinstance(value, frozenset):  # its order changes from process to process
        return "frozenset", sorted(repr(v) for v in value)
    return repr(value)


def _globals(code: CodeType) -> list[str]:
    """Names of the global variables that a function reads, its inner functions included, sorted."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return sorted(own.union(*(_globals(c) for c in code.co_consts if isinstance(c, CodeType))))


def _installed(module: str) -> bool:
    """Whether a function's module is this package or a library. Those are known by version and code
    digest; a notebook's or a script's functions use global variables whose values decide what they
    compute."""
    if module.split(".")[0] == support_code.PACKAGE.name or module.split(".")[
        0
    ] in sys.stdlib_module_names - {"__main__"}:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and "site-packages" in Path(file).parts


def _as_unit(computed: Mapping[str, Tensor | np.ndarray], name: str) -> Unit:
    if not isinstance(computed, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor | np.ndarray) for k, v in computed.items()
    ):
        raise ValueError(
            f"the unit {name!r} must compute a mapping of strings to tensors or arrays; it made {type(computed).__name__}"
        )
    # clone: tensors that share memory cannot be stored, and the caller's must not be changed behind
    # its back
    return {
        key: torch.as_tensor(value).detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in computed.items()
    }


def _cannot_write(folder: Path, error: OSError) -> CacheError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = (
        "free some space there"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else "make it writable"
    )
    return CacheError(
        f"the cache folder {folder} cannot be written ({reason}): {advice}, or set BOOK_CACHE to another folder"
    )
