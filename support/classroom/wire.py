"""Plain values, and calls of functions by name, between two processes that do not trust each other.

A message is a line of JSON. Numbers, strings, lists, arrays and tensors cross it as values, random
generators as their states; nothing is unpickled, so what arrives is exactly of these types. A
function crosses as a number under which the other side may call it. Gradients cross too: the
backward pass asks the other side for the vector-Jacobian product.
"""

import base64
import builtins
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

RUN = "run a cell"  # no name of Python: the function that executes a cell
MOST = 64_000_000  # characters of one message
_TEXT = 2000  # of an error
_BITS = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)


class WireError(Exception):
    """A value that cannot cross."""


class Lost(BaseException):
    """The other side is gone, or talks nonsense; the message says which. No test catches it."""


class AnswerError(Exception):
    """An error of the other side, of a type that Python itself does not have."""


@dataclass(eq=False)
class Peer:
    """One end of the line.

    Args:
        send: takes a line.
        receive: waits for the next line; it raises, or gives an empty one, if none can come.
        resolve: the function that a name stands for, for calls by the other side.
        shared: names of functions that both sides have, by their ``id``.
    """

    send: Callable[[str], None]
    receive: Callable[[], str]
    resolve: Callable[[str], Callable]
    shared: Mapping[int, str] = field(default_factory=dict)
    _lent: list[Callable] = field(default_factory=list, init=False)

    def function(self, name: str | int) -> Callable:
        """The other side's function of that name, to be called like any."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if any(map(_is_tracked, [*args, *kwargs.values()])):
                return self._attached(name, args, kwargs)
            return self._ask({"call": name, "args": args, "kwargs": kwargs})

        return call

    def serve(self) -> None:
        """Answer calls until the line ends."""
        with contextlib.suppress(Lost):
            while True:
                self._answer(self._read())

    def _attached(self, name: str | int, args: tuple, kwargs: dict) -> Any:
        import torch

        given = dict(enumerate(args)) | kwargs
        leaves = [place for place, each in given.items() if _is_tracked(each)]

        def request(values: tuple, **more: Any) -> Any:
            filled = given | dict(zip(leaves, values, strict=True))
            first = [filled.pop(place) for place in range(len(args))]
            message = {"call": name, "args": first, "kwargs": filled, "leaves": leaves}
            return self._ask(message | more)

        class Remote(torch.autograd.Function):
            @staticmethod
            def forward(*values: Any) -> Any:
                found = request(values)
                shape.append(found)
                return tuple(_tensors(found))

            @staticmethod
            def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
                ctx.save_for_backward(*inputs)
                kept = zip(output, _tensors(shape[0]), strict=True)
                ctx.mark_non_differentiable(*(out for out, t in kept if not t.is_tracked))

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(ctx: Any, *slopes: Any) -> Any:
                return tuple(request(ctx.saved_tensors, slopes=list(slopes)))

        shape: list[Any] = []
        found = iter(Remote.apply(*(given[place] for place in leaves)))
        return _replaced(shape[0], found)

    # --- messages ---------------------------------------------------------------------------------

    def _ask(self, message: dict) -> Any:
        if len(self._lent) > 1000:
            self._lent.clear()
        raised: BaseException | None = None
        self._write(message | {"errors": np.geterr()})
        while True:
            reply = self._read()
            if "value" in reply:
                return reply["value"]
            if "error" in reply:
                if raised is not None:  # an error of ours that went through the other side
                    raise raised
                raise _error(reply)
            raised = self._answer(reply) or raised

    def _answer(self, message: dict) -> Exception | None:
        """Do what the other side asks; the error, if there was one."""
        try:
            self._write({"value": self._done(message)})
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            self._write(_told(error))
            return error if isinstance(error, Exception) else None

    def _done(self, message: dict) -> Any:
        name, args, kwargs = message["call"], message["args"], message["kwargs"]
        work = self._lent[name] if isinstance(name, int) else self.resolve(str(name))
        given = dict(enumerate(args)) | kwargs
        leaves = [given[place] for place in message.get("leaves", ())]
        for leaf in leaves:
            leaf.requires_grad_()
        with np.errstate(**message["errors"]):
            found = work(*args, **kwargs)
            return _pulled(found, leaves, message["slopes"]) if "slopes" in message else found

    def _write(self, message: dict) -> None:
        text = json.dumps(self._plain(message))
        if len(text) > MOST:
            raise WireError(f"a value of {len(text) / 1e6:.0f} million characters; {MOST} at most")
        self.send(text)

    def _read(self) -> dict:
        text = self.receive()
        try:
            found = self._value(json.loads(text))
        except Exception as error:  # whatever the other side makes up
            raise Lost("the kernel is out of order") from error
        if not isinstance(found, dict):
            raise Lost("the kernel is out of order")
        return found

    # --- values -----------------------------------------------------------------------------------

    def _plain(self, value: Any) -> Any:
        """A value as JSON has it; everything but a number, a string and None has its kind."""
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            if array.dtype.kind not in "biufc":
                raise WireError(f"an array of {array.dtype} is no array of numbers")
            kind = "scalar" if isinstance(value, np.generic) else "array"
            data = base64.b64encode(array.tobytes()).decode()
            return {kind: [array.dtype.str, array.shape, data]}
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return kind(value)  # without what a subclass adds
        if value is None:
            return None
        if _is_tensor(value):
            value = sys.modules["torch"].func.debug_unwrap(value, recurse=True)
            try:
                array = value.numpy(force=True)
            except RuntimeError:  # within torch.func.grad
                array = np.array(value.tolist(), str(value.dtype).removeprefix("torch."))
            return {"tensor": [*self._plain(array)["array"], value.requires_grad]}
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self._plain(each) for each in value]}
        if isinstance(value, Mapping):
            return {"dict": [[self._plain(key), self._plain(each)] for key, each in value.items()]}
        if isinstance(value, Fraction):
            return {"fraction": [value.numerator, value.denominator]}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, np.random.Generator):
            return {"numpy-generator": self._plain(value.bit_generator.state)}
        if type(value).__module__ == "torch._C" and type(value).__name__ == "Generator":
            return {"torch-generator": self._plain(value.get_state())}
        if id(value) in self.shared:
            return {"shared": self.shared[id(value)]}
        if callable(value):
            self._lent.append(value)
            return {"function": len(self._lent) - 1}
        raise WireError(f"a {type(value).__name__} is no plain value")

    def _value(self, plain: Any) -> Any:
        if not isinstance(plain, dict | list):
            return plain
        ((kind, given),) = plain.items()  # a list without its kind has none
        if kind in ("array", "scalar", "tensor"):
            dtype, shape = np.dtype(given[0]), tuple(int(size) for size in given[1])
            if dtype.kind not in "biufc":
                raise WireError(f"an array of {dtype}")
            array = np.frombuffer(bytearray(base64.b64decode(given[2])), dtype).reshape(shape)
            if kind == "tensor":
                return _tensor(array, given[3] is True)
            return array if kind == "array" else array[()]
        if kind in ("list", "tuple"):
            return (list if kind == "list" else tuple)(self._value(each) for each in given)
        if kind == "dict":
            return {self._value(key): self._value(each) for key, each in given}
        if kind == "fraction":
            return Fraction(int(given[0]), int(given[1]))
        if kind == "complex":
            return complex(given[0], given[1])
        if kind == "numpy-generator":
            state = self._value(given)
            bits = {kind.__name__: kind for kind in _BITS}[state["bit_generator"]]()
            bits.state = state
            return np.random.Generator(bits)
        if kind == "torch-generator":
            import torch

            generator = torch.Generator()
            generator.set_state(self._value(given))
            return generator
        if kind == "shared":
            return self.resolve(str(given))
        if kind == "function":
            return self.function(int(given))
        raise WireError(f"a value of the kind {kind!r}")


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_tracked(value: Any) -> bool:
    """Whether a tensor's gradient is asked for, by autograd or by ``torch.func``."""
    unwrap = sys.modules["torch"].func.debug_unwrap if _is_tensor(value) else None
    return unwrap is not None and (value.requires_grad or unwrap(value) is not value)


def _tensor(array: np.ndarray, tracked: bool) -> Any:
    import torch

    tensor = torch.from_numpy(array)
    tensor.is_tracked = tracked
    if tracked:
        with contextlib.suppress(RuntimeError):  # torch.func tracks by itself
            tensor.requires_grad_()
    return tensor


def _tensors(value: Any) -> list:
    if _is_tensor(value):
        return [value]
    if isinstance(value, list | tuple):
        return [leaf for each in value for leaf in _tensors(each)]
    return []


def _replaced(value: Any, tensors: Iterator) -> Any:
    """A value with other tensors in the places of its own."""
    if _is_tensor(value):
        return next(tensors)
    if isinstance(value, list | tuple):
        return type(value)(_replaced(each, tensors) for each in value)
    return value


def _pulled(found: Any, leaves: list, slopes: list) -> list:
    """The vector-Jacobian product of the tensors in what a function returned."""
    import torch

    pairs = [
        (out, slope)
        for out, slope in zip(_tensors(found), slopes, strict=True)
        if out.requires_grad and slope is not None
    ]
    outs, slopes = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outs, leaves, slopes, allow_unused=True))


def _told(error: BaseException) -> dict:
    try:
        text = str(error)[:_TEXT]
    except Exception:  # an error of the student's own making
        text = ""
    return {"error": type(error).__name__, "text": text}


def _error(reply: dict) -> Exception:
    """The other side's error, as one of Python's own types or as an :class:`AnswerError`."""
    name, text = str(reply.get("error")), str(reply.get("text"))
    known = getattr(builtins, name, None)
    plain = isinstance(known, type) and issubclass(known, Exception)
    if plain and known not in (AssertionError, UnicodeDecodeError, UnicodeEncodeError):
        with contextlib.suppress(TypeError):
            return known(text)
    return AnswerError(f"{name}: {text}")
