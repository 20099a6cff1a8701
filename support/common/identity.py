"""What a value is, as text: the key under which :mod:`support.common.cache` keeps a result.

Equal for equal values, in every process; different as soon as anything differs that could change a
number. A function is what it does: its instructions, and everything that they refer to, down to
constants and the functions that it calls. Code of this package, of a chapter or of a script counts
by content, as it runs now; code of a library by the library's version. Comments, docstrings, the
names of local variables and the place of a definition do not count.
"""

import dis
import enum
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

PACKAGES = ("torch", "torchvision", "torchattacks", "numpy", "scipy", "scikit-learn")
"""Libraries whose versions are part of every key and of every run's record."""

_OWN = "support"
_SILENT = ("support.book", "support.classroom", "support.cli")  # they ask, judge and show
_SILENT += tuple(f"support.common.{name}" for name in ("cache", "files", "fingerprint"))
_SILENT += tuple(f"support.common.{name}" for name in ("identity", "paths", "progress", "vision"))
_GENERATED = {  # of a class: written by Python or by a decorator from what is described anyway
    "__abstractmethods__", "__annotations__", "__annotations_cache__", "__dataclass_fields__",
    "__annotate__", "__annotate_func__", "__dataclass_params__", "__dict__", "__doc__",
    "__firstlineno__", "__match_args__", "__module__", "__orig_bases__", "__parameters__",
    "__qualname__", "__slots__", "__static_attributes__", "__weakref__", "_abc_impl",
    "_field_defaults", "__classcell__",
}  # fmt: skip
_WRITTEN = {
    "__delattr__", "__eq__", "__ge__", "__gt__", "__hash__", "__init__", "__le__", "__lt__",
    "__new__", "__replace__", "__repr__", "__setattr__",
}  # fmt: skip
_MODULE_STATE = set(vars(torch.nn.Module()))


class NoIdentity(TypeError):
    """A value that cannot be part of a key; one line that says what to give instead."""


@functools.cache
def versions() -> dict[str, str]:
    """The version of Python and of each of :data:`PACKAGES`; ``"absent"`` where one is missing."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def describe(value: object) -> object:
    """A value as JSON.

    Args:
        value: numbers, strings, None, sequences, sets, mappings, enumerations and dataclasses stand
            for themselves; tensors and arrays for type, shape and content; a path for the content
            of its file; a model for its classes, settings, weights and hooks; a function or a class
            for its code and all that this refers to.

    Raises:
        NoIdentity: a value without a lasting identity, such as an open file, or whose use changes
            it, such as a generator of random numbers.
    """
    return _Walk().describe(value, "the key")


class _Walk:
    """One description: what was met before is named by its number, so that circles end."""

    def __init__(self) -> None:
        # The number of each, and the object: its id is good only as long as it lives.
        self._met: dict[int, tuple[int, object]] = {}
        self._open: list[int] = []  # containers that are being described

    def describe(self, value: Any, place: str) -> object:
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float | complex):
            return ["number", repr(value)]
        if isinstance(value, bytes):
            return ["bytes", hashlib.sha256(value).hexdigest()]
        if isinstance(value, torch.dtype | torch.device | range | slice | type(...)):
            return [type(value).__name__, str(value)]
        if isinstance(value, re.Pattern):
            return ["pattern", value.pattern, value.flags]
        if isinstance(value, enum.Enum):
            return ["member", type(value).__qualname__, value.name]
        if isinstance(value, torch.Tensor):
            return _tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            array = np.ascontiguousarray(value)
            return ["array", str(array.dtype), list(value.shape), _sum(array)]
        if isinstance(value, Path):
            return self._file(value, place)
        if isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState):
            raise NoIdentity(
                f"{place} holds a generator of random numbers, which a result from the cache would "
                "leave where it is: pass a seed and make the generator inside"
            )
        if isinstance(value, Mapping | set | frozenset | list | tuple):
            return self._container(value, place)
        if id(value) in self._met:
            return ["met", self._met[id(value)][0]]
        self._met[id(value)] = len(self._met), value
        return self._single(value, place)

    def _container(self, value: Any, place: str) -> object:
        if id(value) in self._open:
            return ["inside", self._open.index(id(value))]
        self._open.append(id(value))
        try:
            if isinstance(value, Mapping):
                found = [
                    [self.describe(k, place), self.describe(v, f"{place}[{k!r}]")]
                    for k, v in value.items()
                ]
                return {"mapping": sorted(found, key=repr)}
            if isinstance(value, set | frozenset):
                return {"set": sorted((self.describe(v, place) for v in value), key=repr)}
            kind = "list" if type(value) in (list, tuple) else self.describe(type(value), place)
            return [kind, *(self.describe(v, f"{place}[{i}]") for i, v in enumerate(value))]
        finally:
            self._open.pop()

    def _single(self, value: Any, place: str) -> object:
        """What is named by its number when it comes again: code, and objects that hold it."""
        if isinstance(value, torch.nn.Module):
            return self._network(value, place)
        if isinstance(value, ModuleType):
            return self._import(value, place)
        if isinstance(value, FunctionType | type):
            if _foreign(value.__module__):
                return _named(value)
            if _silent(value.__module__):
                return ["silent", value.__module__, value.__qualname__]
            describe = self._function if isinstance(value, FunctionType) else self._type
            return describe(value, place)
        parts = _parts(value)
        if parts is not None:
            return [type(value).__name__, *(self.describe(part, place) for part in parts)]
        kind = type(value)
        if kind.__module__.startswith("support.book."):
            raise NoIdentity(
                f"{place} holds a {kind.__qualname__} of the book's machinery: pass the values "
                "that matter (numbers, tensors), not the run or its profile"
            )
        if _silent(kind.__module__):
            return ["silent", kind.__module__, kind.__qualname__]
        if isinstance(getattr(value, "__name__", None), str) or kind.__module__ == "typing":
            return _named(value)
        if _foreign(kind.__module__) and (name := _constant_of_a_library(value)):
            return ["library", name, _version(kind.__module__)]
        if is_dataclass(value):  # also one with slots
            content = {field.name: getattr(value, field.name) for field in fields(value)}
            return ["object", self.describe(kind, place), self.describe(content, place)]
        if hasattr(value, "__dict__") and not isinstance(value, io.IOBase):
            return ["object", self.describe(kind, place), self.describe(vars(value), place)]
        raise NoIdentity(
            f"{place} holds a {kind.__qualname__}, which has no lasting identity: pass what "
            "matters of it instead, as numbers, text, tensors or functions"
        )

    def _file(self, path: Path, place: str) -> object:
        try:
            return ["file", hashlib.sha256(path.read_bytes()).hexdigest()]
        except OSError as error:
            raise NoIdentity(
                f"{place} names {path}, which cannot be read ({error.strerror}): a path in a key "
                "stands for the content of a file"
            ) from error

    def _network(self, value: torch.nn.Module, place: str) -> object:
        """A network: of each of its parts the class, the settings and the hooks; the weights."""
        parts = []
        for name, module in value.named_modules(remove_duplicate=False):
            state = vars(module)
            settings = {k: v for k, v in state.items() if k not in _MODULE_STATE or k == "training"}
            hooks = [list(v.values()) for k, v in state.items() if k.endswith("_hooks") and v]
            inside = f"{place}.{name}" if name else place
            if _foreign(type(module).__module__):
                settings = {k: v for k, v in settings.items() if _plain(v)}
            told = (type(module), settings, hooks)
            parts.append([name, *(self.describe(part, inside) for part in told)])
        tensors = [*value.named_parameters(remove_duplicate=False), *value.named_buffers()]
        return ["network", parts, [[name, _tensor(tensor)] for name, tensor in tensors]]

    def _type(self, value: type, place: str) -> object:
        inside = f"{place} ({value.__qualname__})"
        held = {
            name: self.describe(part, f"{inside}.{name}")
            for name, part in sorted(vars(value).items())
            if name not in _GENERATED and not _written(part) and not _descriptor(part)
        }
        bases = [self.describe(base, inside) for base in value.__bases__ if base is not object]
        names = [field.name for field in fields(value)] if is_dataclass(value) else []
        return ["class", value.__qualname__, bases, names, held]

    def _function(self, value: FunctionType, place: str) -> object:
        if wrapped := getattr(value, "__wrapped__", None):  # functools.wraps: both count
            wrapped = self.describe(wrapped, place)
        inside = f"{place}: {value.__qualname__}()"
        closure = {}
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                closure[name] = self.describe(cell.cell_contents, f"{inside}, its variable {name}")
            except ValueError:  # not yet filled
                closure[name] = "empty"
        used = {}
        for name, chain in _references(value.__code__):
            if name in value.__globals__:
                label, found = name, value.__globals__[name]
                for attribute in chain:
                    if not isinstance(found, ModuleType) or _foreign(found.__name__):
                        break
                    label = f"{label}.{attribute}"
                    if not hasattr(found, attribute):
                        raise NoIdentity(f"{inside} uses {label}, which is not there")
                    found = getattr(found, attribute)
                if label not in used:
                    used[label] = self.describe(found, f"{inside}, its global {label}")
        local = [
            self.describe(_imported(name), f"{inside}, its import {name}")
            for name in _imports(value.__code__)
            if not _foreign(name) and not _silent(name)
        ]
        given = (value.__defaults__, value.__kwdefaults__)
        defaults = [self.describe(part, f"{inside}, its defaults") for part in given]
        return ["function", _code_sum(value.__code__), closure, used, local, defaults, wrapped]

    def _import(self, value: ModuleType, place: str) -> object:
        """A module that is handed on as it is: any of its own definitions may be used."""
        if _foreign(value.__name__):
            return ["library", value.__name__, _version(value.__name__)]
        if _silent(value.__name__):
            return ["silent", value.__name__]
        held = {}
        for name, part in sorted(vars(value).items()):
            own = getattr(part, "__module__", value.__name__) == value.__name__
            if not name.startswith("__") and own and not isinstance(part, ModuleType):
                held[name] = self.describe(part, f"{place}, {value.__name__}.{name}")
        return ["import", value.__name__, held]


def _tensor(value: torch.Tensor) -> object:
    if value.is_quantized or value.layout != torch.strided:
        raise NoIdentity("a sparse or quantised tensor has no place in a key: pass a dense one")
    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return ["tensor", str(value.dtype), list(value.shape), _sum(flat.numpy())]


def _sum(content: np.ndarray) -> str:
    return hashlib.sha256(content.reshape(-1).view(np.uint8)).hexdigest()


def _parts(value: Any) -> tuple | None:
    """What a wrapper of functions wraps; None of anything else."""
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, property):
        return value.fget, value.fset
    if isinstance(value, classmethod | staticmethod):
        return (value.__func__,)
    if isinstance(value, functools.cached_property):
        return (value.func,)
    wrapped = getattr(value, "__wrapped__", None)  # functools.cache and its like
    return (wrapped,) if isinstance(wrapped, FunctionType) else None


def _plain(value: object) -> bool:
    simple = bool | int | float | str | None | torch.dtype
    return isinstance(value, simple) or (
        isinstance(value, list | tuple) and all(isinstance(part, simple) for part in value)
    )


def _constant_of_a_library(value: object) -> str:
    """The name under which a library publishes an object, such as ``scipy.stats.norm``."""
    parts = type(value).__module__.split(".")
    for length in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        for name, held in list(vars(module).items()) if module else ():
            if held is value:
                return f"{module.__name__}.{name}"
    return ""


def _named(value: Any) -> object:
    module = getattr(value, "__module__", None) or type(value).__module__
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or str(value)
    return ["library", module, name, _version(module)]


@functools.cache
def _version(module: str) -> str:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return platform.python_version()
    if said := str(getattr(sys.modules.get(top), "__version__", "")):
        return said
    names = importlib.metadata.packages_distributions().get(top)
    return importlib.metadata.version(names[0]) if names else "unknown"


@functools.cache
def _foreign(module: str) -> bool:
    """Whether a module belongs to Python or to an installed library; those count by version."""
    top = module.partition(".")[0]
    if top in (_OWN, "__main__"):
        return False
    if top in sys.stdlib_module_names:
        return True
    loaded = sys.modules.get(module) or sys.modules.get(top)
    spec = None if loaded else importlib.util.find_spec(top)
    file = spec.origin if spec else getattr(loaded, "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _imported(name: str) -> ModuleType | None:
    """A module that a function imports when it runs: now, since its content counts; None where
    it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _silent(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _SILENT)


def _written(part: object) -> bool:
    """A method that a decorator made from text, such as a dataclass's ``__init__``."""
    text = isinstance(part, FunctionType) and part.__code__.co_filename.startswith("<string>")
    return text and part.__name__ in _WRITTEN  # what a person gives to "python -c" is text as well


def _descriptor(part: object) -> bool:
    kind = type(part).__name__
    return kind in ("member_descriptor", "getset_descriptor", "wrapper_descriptor", "_tuplegetter")


@functools.cache
def _code_sum(code: CodeType) -> str:
    return hashlib.sha256(repr(_content(code)).encode()).hexdigest()[:16]


def _content(code: CodeType) -> tuple:
    """The instructions without what only a person reads: places, local names, the docstring."""
    constants = list(code.co_consts)
    loaded = {
        i.arg for i in dis.get_instructions(code) if i.opname.startswith(("LOAD_C", "RETURN_C"))
    }
    if constants and isinstance(constants[0], str) and 0 not in loaded:
        constants[0] = None
    arguments = code.co_argcount + code.co_kwonlyargcount
    return (
        code.co_code.hex(), code.co_names, code.co_varnames[:arguments], len(code.co_freevars),
        code.co_flags, code.co_exceptiontable.hex(), tuple(map(_constant, constants)),
    )  # fmt: skip


def _constant(value: object) -> object:
    if isinstance(value, CodeType):
        return _content(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    if isinstance(value, frozenset):  # its order changes from process to process
        return "frozenset", sorted(map(repr, value))
    return type(value).__name__, repr(value)


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    """Of a function and its inner functions."""
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)


@functools.cache
def _references(code: CodeType) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Global names that a function and its inner functions read, each with the attributes taken of
    it: ``attacks.pgd(...)`` gives ``("attacks", ("pgd",))``."""
    chains: list[list[str]] = []
    reading = False
    for instruction in _instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            reading = True
            chains.append([instruction.argval])
        elif reading and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chains[-1].append(instruction.argval)
        else:
            reading = False
    return tuple(sorted({(name, tuple(attributes)) for name, *attributes in chains}))


@functools.cache
def _imports(code: CodeType) -> tuple[str, ...]:
    """Modules that a function imports when it runs."""
    found = (each.argval for each in _instructions(code) if each.opname == "IMPORT_NAME")
    return tuple(sorted(found))


def of_call(function: Callable, args: tuple, settings: Mapping[str, object]) -> dict[str, object]:
    """What decides the result of a call: the function, the arguments and the versions."""
    walk = _Walk()
    return {
        "function": [function.__module__, function.__qualname__] if _silent(function.__module__)
        else walk.describe(function, function.__qualname__),
        "arguments": [walk.describe(a, f"argument {i + 1}") for i, a in enumerate(args)],
        "settings": {
            name: walk.describe(value, f"the argument {name}")
            for name, value in sorted(settings.items())
        },
        "versions": versions(),
    }  # fmt: skip
