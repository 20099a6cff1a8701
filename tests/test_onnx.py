"""Networks from ONNX files: what is read computes what torch's layers do, and what is not known is refused."""

import pytest
import torch
from hostile_models import other_defaults
from onnx_files import file, message, node, weights
from torch import nn

from support.models import onnx


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = drawn(5, 2, 6, 7, seed=9)
CONVOLUTION = {"dilations": (1, 1), "group": 1, "kernel_shape": (3, 3), "pads": (1, 0, 1, 0), "strides": (2, 1)}
W, B = drawn(4, 2, 3, 3, seed=1), drawn(4, seed=2)
V, C = drawn(3, 4 * 3 * 5, seed=3), drawn(3, seed=4)
PARTS = [weights("w", W), weights("b", B, packed=True), weights("v", V), weights("c", C)]
ROW = [
    node("Conv", "x w b", "a", **CONVOLUTION), node("Relu", "a", "r"), node("Flatten", "r", "f", axis=1),
    node("Gemm", "f v c", "s", alpha=1.0, beta=1.0, transB=1),
]  # fmt: skip


def hidden(x):
    return nn.functional.conv2d(x, W, B, stride=(2, 1), padding=(1, 0)).relu()


def test_layers_in_a_row_become_a_sequential_of_any_number_of_images():
    net = onnx.read(file(*ROW, *PARTS, output="s"))
    assert [type(layer) for layer in net] == [nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear] and not net.training
    for count in (1, 5):
        assert torch.equal(net(X[:count]), nn.functional.linear(hidden(X[:count]).flatten(1), V, C))


def test_defaults_of_device_and_dtype_change_nothing():
    with other_defaults():
        net = onnx.read(file(*ROW, *PARTS, output="s"))
    assert torch.equal(net(X), nn.functional.linear(hidden(X).flatten(1), V, C))


def test_branches_are_added_and_the_wiring_is_seen():
    branch = [node("Add", "r a", "t"), node("Flatten", "t", "f"), ROW[3]]
    net = onnx.read(file(*ROW[:2], *branch, *PARTS, output="s"))
    kept = nn.functional.conv2d(X, W, B, stride=(2, 1), padding=(1, 0))
    assert isinstance(net, onnx.Graph) and torch.equal(net(X), nn.functional.linear((kept.relu() + kept).flatten(1), V, C))
    assert "inputs=((0,), (1,), (2, 1), (3,), (4,))" in repr(net)  # a fingerprint of the model holds it


def test_weights_the_other_way_round_groups_and_dilations():
    turned = [ROW[0], ROW[2], node("Gemm", "f v c", "s")]
    flat = [node("Conv", "x w b", "r", **CONVOLUTION), *turned[1:]]
    net = onnx.read(file(*flat, *PARTS[:2], weights("v", V.T.contiguous()), PARTS[3], output="s"))
    plain = nn.functional.conv2d(X, W, B, stride=(2, 1), padding=(1, 0))
    torch.testing.assert_close(net(X), nn.functional.linear(plain.flatten(1), V, C))
    grouped = {"group": 2, "dilations": (2, 1)}
    own = file(node("Conv", "x w b", "y", **grouped), weights("w", W[:, :1].contiguous()), PARTS[1], output="y")
    assert torch.equal(onnx.read(own)(X), nn.functional.conv2d(X, W[:, :1].contiguous(), B, dilation=(2, 1), groups=2))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([node("Sigmoid", "x", "s")], "the operator Sigmoid is not read here; Conv, Gemm"),
        ([node("Flatten", "x", "s", axis=2)], "another axis"),
        ([node("Relu", "x", "s", alpha=1.0)], r"settings that are not read here: \['alpha'\]"),
        ([node("Conv", "x w b", "s", pads=(1, 1, 0, 0)), *PARTS[:2]], "two sides differ"),
        ([node("Conv", "x w", "s"), PARTS[0]], "Conv with the inputs"),
        ([node("Conv", "x v c", "s"), *PARTS[2:]], "four dimensions"),
        ([node("Gemm", "x v c", "s", transA=1), *PARTS[2:]], "Gemm with"),
        ([node("Gemm", "x v b", "s", transB=1), *PARTS[1:3]], "4 biases|biases for 3 units"),
        ([node("Add", "x c", "s"), PARTS[3]], "Add with the inputs"),
        ([node("Add", "x y", "s")], r"the inputs are \['x', 'y'\]"),
        ([node("Relu", "x", "t")], "the last layer computes t"),
        ([node("Relu", "t", "r"), node("Relu", "x", "t"), node("Add", "r t", "s")], r"layer 1 \(Relu\) takes what is not computed"),
        ([], "the last layer computes nothing"),
        ([node("Relu", "x", "s"), weights("w", W, kind=11)], "not .* float32 numbers"),
        ([node("Relu", "x", "s"), weights("w", W.double())], "not .* float32 numbers"),
    ],
)
def test_what_is_not_known_is_refused(parts, says):
    with pytest.raises(ValueError, match=says):
        onnx.read(file(*parts, output="s"))


def test_what_is_no_whole_file_is_refused():
    whole = file(*ROW, *PARTS, output="s")
    for content in (b"", b"\x80", b"PK\x03\x04" * 10, whole[:-40], whole[: len(whole) // 2], message((7, 3)), message((7, "a"), (7, "b"))):
        with pytest.raises(ValueError, match="not an ONNX file"):
            onnx.read(content)
