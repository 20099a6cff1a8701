"""Networks in ONNX files, read without the onnx package: feed-forward ones of convolutions, linear
layers, ReLU, flattening and sums.

The file is a protocol buffer, of which this reads the few fields that such networks have; nothing
in it is executed. A network whose layers stand in a row comes out as an ``nn.Sequential``, so that
all that reads a network's layers can read it; any other as a :class:`Graph`. The number of images
that the file was written for does not bind it.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

# Numbers of the fields, as onnx.proto has them.
_MODEL_GRAPH = 7
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_TENSOR_DIMENSIONS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_BYTES = 1, 2, 8, 9
_NAME, _ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_INTS = 1, 2, 3, 8
_FLOAT32 = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_Message = dict[int, list[int | bytes]]


class Sum(nn.Module):
    """The sum of two branches, of one shape."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first + second


class Graph(nn.Module):
    """Layers that each take the outputs of earlier ones; the last one's is the network's.

    Args:
        layers: in an order in which they can be applied.
        inputs: for each layer the places of what it takes: 0 is the network's input, i the output
            of layer i - 1 of the list.
    """

    def __init__(self, layers: Sequence[nn.Module], inputs: Sequence[tuple[int, ...]]):
        super().__init__()
        self.layers, self.inputs = nn.ModuleList(layers), tuple(inputs)

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}"

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer, places in zip(self.layers, self.inputs, strict=True):
            found.append(layer(*(found[place] for place in places)))
        return found[-1]


def read(content: bytes) -> nn.Sequential | Graph:
    """The network of an ONNX file, in evaluation mode, with weights in float32.

    Args:
        content: the bytes of the file.

    Raises:
        ValueError: bytes that are no such file, or a network with anything else in it: another
            operator, another setting of one, weights that are not float32.
    """
    try:
        graph = _fields(_one(_fields(content), _MODEL_GRAPH))
        weights = dict(map(_tensor, graph.get(_INITIALIZER, ())))
        nodes = [_node(part) for part in graph.get(_NODE, ())]
        output = _one(_fields(_one(graph, _OUTPUT)), _NAME).decode()
    except (
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        UnicodeDecodeError,
        struct.error,
    ) as error:
        raise ValueError("these bytes are not an ONNX file, or not a whole one") from error
    taken = {name for node in nodes for name in node.inputs if name not in weights}
    given = sorted(taken - {node.output for node in nodes})
    last = nodes[-1].output if nodes else "nothing"
    if len(given) != 1 or last != output:
        raise ValueError(
            f"one input, and a last layer that computes the output {output}, are wanted; the "
            f"inputs are {given}, and the last layer computes {last}"
        )
    places, layers, inputs = {given[0]: 0}, [], []
    for number, node in enumerate(nodes, 1):
        layer, names = _layer(node, weights)
        if not all(name in places for name in names):
            raise ValueError(f"layer {number} ({node.operator}) takes what is not computed before")
        layers.append(layer)
        inputs.append(tuple(places[name] for name in names))
        places[node.output] = number
    in_a_row = inputs == [(place,) for place in range(len(layers))]
    return (nn.Sequential(*layers) if in_a_row else Graph(layers, inputs)).eval()


# --- layers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Node:
    operator: str
    inputs: tuple[str, ...]
    output: str
    settings: dict[str, object] = field(default_factory=dict)

    def take(self, **defaults: object) -> dict[str, object]:
        """The settings by name, which must be those of the operator.

        Raises:
            ValueError: one that is not known here.
        """
        if strange := sorted(set(self.settings) - set(defaults)):
            raise ValueError(f"{self.operator} has settings that are not read here: {strange}")
        return defaults | self.settings


def _layer(node: _Node, weights: dict[str, Tensor]) -> tuple[nn.Module, tuple[str, ...]]:
    """The layer of a node, and the names of the inputs that are no weights."""
    kinds = {"Conv": _convolution, "Gemm": _linear, "Flatten": _flatten, "Relu": _relu, "Add": _sum}
    if node.operator not in kinds:
        raise ValueError(f"the operator {node.operator} is not read here; {', '.join(kinds)} are")
    wanted = {"Conv": "vww", "Gemm": "vww", "Flatten": "v", "Relu": "v", "Add": "vv"}[node.operator]
    if "".join("w" if name in weights else "v" for name in node.inputs) != wanted:
        raise ValueError(f"{node.operator} with the inputs {node.inputs} is not read here")
    own = [weights[name] for name in node.inputs if name in weights]
    return kinds[node.operator](node, *own), node.inputs[: wanted.count("v")]


def _convolution(node: _Node, weight: Tensor, bias: Tensor) -> nn.Module:
    if weight.ndim != 4 or bias.shape != weight.shape[:1]:
        raise ValueError(f"Conv wants four dimensions; its weights have {tuple(weight.shape)}")
    kernel = tuple(weight.shape[2:])
    chosen = node.take(
        dilations=(1, 1), group=1, kernel_shape=kernel, pads=(0, 0, 0, 0), strides=(1, 1)
    )
    top, left, bottom, right = chosen["pads"]
    if (top, left) != (bottom, right) or chosen["kernel_shape"] != kernel:
        raise ValueError(f"Conv with pads {chosen['pads']} is not read here: two sides differ")
    groups = chosen["group"]
    layer = nn.utils.skip_init(
        nn.Conv2d, weight.shape[1] * groups, len(weight), kernel, stride=chosen["strides"],
        padding=(top, left), dilation=chosen["dilations"], groups=groups, device=weight.device,
        dtype=weight.dtype,
    )  # fmt: skip
    return _holding(layer, weight, bias)


def _linear(node: _Node, weight: Tensor, bias: Tensor) -> nn.Module:
    chosen = node.take(alpha=1.0, beta=1.0, transA=0, transB=0)
    if (chosen["alpha"], chosen["beta"], chosen["transA"]) != (1.0, 1.0, 0) or weight.ndim != 2:
        raise ValueError(f"Gemm with {chosen} is not read here")
    weight = weight if chosen["transB"] else weight.T.contiguous()
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"Gemm: {tuple(bias.shape)} biases for {len(weight)} units")
    kind = {"device": weight.device, "dtype": weight.dtype}
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight), **kind)
    return _holding(layer, weight, bias)


def _holding(layer: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _flatten(node: _Node) -> nn.Module:
    if node.take(axis=1)["axis"] != 1:
        raise ValueError("Flatten from another axis than 1 is not read here: images stay apart")
    return nn.Flatten()


def _relu(node: _Node) -> nn.Module:
    node.take()
    return nn.ReLU()


def _sum(node: _Node) -> nn.Module:
    node.take()
    return Sum()


# --- messages -------------------------------------------------------------------------------------


def _fields(content: bytes) -> _Message:
    """The fields of a message by number, each with all its values in order."""
    found: _Message = {}
    for number, value in _values(content):
        found.setdefault(number, []).append(value)
    return found


def _values(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(content, place)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
            if kind == _BYTES:
                size, place = _varint(content, place)
            if size is None or place + size > len(content):
                raise IndexError
            value, place = content[place : place + size], place + size
        yield key >> 3, value


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, the last group marked, and the place behind it."""
    number = shift = 0
    while True:
        byte, place = content[place], place + 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, place


def _one(message: _Message, number: int) -> bytes:
    values = message[number]
    if len(values) != 1:
        raise IndexError
    return values[0]


def _whole_numbers(values: Sequence[int | bytes]) -> Iterator[int]:
    """Repeated whole numbers, one by one or packed together."""
    for value in values:
        place = 0
        while isinstance(value, bytes) and place < len(value):
            number, place = _varint(value, place)
            yield number
        if isinstance(value, int):
            yield value


def _tensor(content: bytes) -> tuple[str, Tensor]:
    parts = _fields(content)
    name, shape = _one(parts, _TENSOR_NAME).decode(), [*_whole_numbers(parts[_TENSOR_DIMENSIONS])]
    values = parts.get(_TENSOR_BYTES, [b""])[0]
    if parts[_TENSOR_TYPE] != [_FLOAT32] or len(values) != 4 * torch.Size(shape).numel():
        raise ValueError(f"the weights {name} are not {shape} float32 numbers as raw bytes")
    return name, torch.frombuffer(bytearray(values), dtype=torch.float32).reshape(shape)


def _node(content: bytes) -> _Node:
    parts = _fields(content)
    return _Node(
        _one(parts, _NODE_OPERATOR).decode(),
        tuple(name.decode() for name in parts[_NODE_INPUT]),
        _one(parts, _NODE_OUTPUT).decode(),
        dict(map(_setting, parts.get(_NODE_ATTRIBUTE, ()))),
    )


def _setting(content: bytes) -> tuple[str, object]:
    parts = _fields(content)
    name = _one(parts, _NAME).decode()
    if _ATTRIBUTE_INTS in parts:
        return name, tuple(_whole_numbers(parts[_ATTRIBUTE_INTS]))
    if _ATTRIBUTE_INT in parts:
        return name, _one(parts, _ATTRIBUTE_INT)
    if _ATTRIBUTE_FLOAT in parts:
        return name, struct.unpack("<f", _one(parts, _ATTRIBUTE_FLOAT))[0]
    raise ValueError(f"the setting {name} is neither a whole number, nor several, nor a float")
