"""ONNX files of small networks, written field by field after onnx.proto."""

import struct

from torch import Tensor


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def message(*fields: tuple[int, object]) -> bytes:
    """Fields of a number each: whole numbers, floats, text, or bytes (also of another message)."""
    found = b""
    for number, value in fields:
        if isinstance(value, int):
            found += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            found += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            content = value.encode() if isinstance(value, str) else value
            found += varint(number << 3 | 2) + varint(len(content)) + content
    return found


def node(operator: str, inputs: str, output: str, **settings) -> tuple[int, bytes]:
    """``inputs`` are names apart by spaces."""
    attributes = [(5, message((1, name), *_setting(value))) for name, value in settings.items()]
    return 1, message(*((1, name) for name in inputs.split()), (2, output), (4, operator), *attributes)


def _setting(value) -> list[tuple[int, object]]:
    if isinstance(value, tuple):
        return [(8, number) for number in value]
    return [(2 if isinstance(value, float) else 3, value)]


def weights(name: str, values: Tensor, *, packed: bool = False, kind: int = 1) -> tuple[int, bytes]:
    sizes = [(1, b"".join(map(varint, values.shape)))] if packed else [(1, size) for size in values.shape]
    return 5, message(*sizes, (2, kind), (8, name), (9, values.numpy().tobytes()))


def file(*parts: tuple[int, bytes], output: str) -> bytes:
    """The file of a graph of nodes and weights."""
    return message((1, 4), (2, "a test"), (7, message(*parts, (12, message((1, output))))), (8, message((2, 9))))
