"""Models: shapes, seeds, normalisation, shared and copied bodies, and the two ways torchvision may be installed."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from support import models
from support.models import heads

BUILDERS = {
    "mlp": (lambda **k: models.build("mlp", (1, 8, 8), 10, **k), (1, 8, 8), 64),
    "lenet": (lambda **k: models.build("lenet", (1, 28, 28), 10, **k), (1, 28, 28), 84),
    "linear_model": (lambda **k: models.linear_model((1, 8, 8), 10, **k), (1, 8, 8), 64),
    "convnet": (lambda **k: models.convnet((1, 28, 28), 3, 10, **k), (1, 28, 28), 256),
    "convnet, small kernel": (lambda **k: models.convnet((1, 8, 8), 3, 10, kernel=2, **k), (1, 8, 8), 256),
    "small_cnn": (lambda **k: models.build("small_cnn", (3, 32, 32), 10, **k), (3, 32, 32), 64),
    "resnet18": (lambda **k: models.build("resnet18", (3, 32, 32), 10, **k), (3, 32, 32), 512),
    "vgg16": (lambda **k: models.build("vgg16", (3, 32, 32), 10, **k), (3, 32, 32), 512),
}


def images(shape, n=3):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", BUILDERS)
def test_scores_are_the_head_of_the_features(name):
    make, shape, d = BUILDERS[name]
    model, x = make(), images(shape)
    with torch.no_grad():
        features = model.features(x)
        assert features.shape == (3, d)
        assert torch.equal(model(x), features @ model.head.weight.T + model.head.bias)
        assert (features >= 0).all()  # every body here ends in a ReLU, or in pooling after one
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_a_seed_decides_the_weights_and_nothing_else_moves(name):
    make, _, _ = BUILDERS[name]
    torch.random.default_generator.manual_seed(5)
    before = torch.random.get_rng_state()
    first = make(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert models.fingerprint(make(seed=1)) == models.fingerprint(first)
    assert models.fingerprint(make(seed=2)) != models.fingerprint(first)


@pytest.mark.parametrize("name", BUILDERS)
def test_models_come_in_evaluation_mode_so_images_are_independent(name):
    make, shape, _ = BUILDERS[name]
    model, x = make(), images(shape, 4)
    assert not any(m.training for m in model.modules())
    with torch.no_grad():
        together, apart = model(x), torch.cat([model(one) for one in x.split(1)])
    assert torch.allclose(together, apart, atol=1e-5)


def test_normalisation_is_inside():
    normalise = models.Normalise((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    x = images((3, 2, 2))
    expected = torch.stack([(x[:, 0] - 0.1) / 1, (x[:, 1] - 0.2) / 2, (x[:, 2] - 0.3) / 4], 1)
    assert torch.allclose(normalise(x), expected)
    assert isinstance(models.lenet().body[0], models.Normalise)
    assert torch.equal(models.lenet().body[0](torch.tensor([[[[0.0, 1.0]]]])), torch.tensor([[[[-0.5, 0.5]]]]))
    assert "body.0.mean" in models.lenet().state_dict()
    with pytest.raises(ValueError, match="std must be positive"):
        models.Normalise(0.0, 0.0)


def test_the_small_input_stems():
    net = models.resnet18(10).body[1]
    assert (net.conv1.kernel_size, net.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(net.maxpool, nn.Identity)
    linear = [m for m in models.vgg16(10).modules() if isinstance(m, nn.Linear | heads.LinearHead)]
    assert len(linear) == 1
    assert sum(isinstance(m, nn.Conv2d) for m in models.vgg16(10).modules()) == 13
    assert sum(isinstance(m, nn.Conv2d) for m in models.small_cnn((1, 8, 8), 10).modules()) == 4


def test_with_head_shares_the_body_and_copy_shares_nothing():
    model = models.mlp((1, 4, 4), (6,), 3)
    head = heads.GaussHead(torch.zeros(3, 6))
    shared, copied = models.with_head(model, head), models.with_head(model, head, copy=True)
    assert shared.body is model.body and shared.head is head
    pointers = {p.data_ptr() for p in model.parameters()}
    assert not pointers & {t.data_ptr() for t in (*copied.parameters(), *copied.buffers())}
    x = images((1, 4, 4))
    assert torch.equal(shared.features(x), copied.features(x))
    assert not shared.training and not shared.head.training


def test_with_head_changes_no_mode():
    model = models.small_cnn((1, 8, 8), 2).train()
    model.body[2].eval()  # one batch norm is frozen on purpose
    head = models.with_head(model, heads.GaussHead(torch.zeros(2, 64)))
    assert head.training and head.head.training and head.body[1].training and not head.body[2].training


def test_the_fingerprint_sees_structure_parameters_and_buffers():
    model = models.small_cnn((1, 8, 8), 3, width=4)
    seen = {models.fingerprint(model)}
    with torch.no_grad():
        model.head.bias[1] += 1e-7
        seen.add(models.fingerprint(model))
        model.body[2].running_var[0] += 1e-6
        seen.add(models.fingerprint(model))
    for gamma in (1.0, 1.0000001):
        seen.add(models.fingerprint(models.with_head(model, heads.GaussHead(torch.zeros(3, 16), gamma))))
    model.body[3] = nn.Tanh()
    seen.add(models.fingerprint(model))
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.build("alexnet", (3, 32, 32), 10), "unknown model 'alexnet': choose one of mlp, lenet"),
        (lambda: models.build("vgg16", (1, 28, 28), 10), r"vgg16 takes images of shape \(3, 32, 32\); \(1, 28, 28\)"),
        (lambda: models.build("lenet", (1, 8, 8), 10), "at least 16x16 pixels; 8x8"),
        (lambda: models.convnet((1, 17, 28), 4, 10), "sides of at least 18; 4 and 17x28"),
        (lambda: models.small_cnn((3, 4, 4), 10), "at least 8x8"),
        (lambda: models.mlp((1, 4), (3,), 2), "shape must be"),
        (lambda: models.mlp((1, 4, 4), (), 2), "at least one width"),
        (lambda: models.lenet(n_classes=0), "n_classes must be at least 1; 0"),
    ],
)
def test_what_cannot_be_built_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- torchvision's import ---------------------------------------------------------------------------------------------

FAKE = """
import sys, types, importlib.abc, importlib.machinery

class Fake(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" or name.startswith("torchvision."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        if module.__name__ == "torchvision":
            {body}

sys.meta_path.insert(0, Fake())
"""


def run(body: str, after: str) -> subprocess.CompletedProcess:
    script = FAKE.format(body=body) + textwrap.dedent(after)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


def test_a_sound_torchvision_is_left_alone():
    after = """
    from support import vision
    import torch
    print(vision.DECLARED, vision.datasets.__name__, hasattr(torch.ops.torchvision, "nms"))
    """
    done = run("pass", after)
    assert done.stdout.strip() == "[] torchvision.datasets False", done.stderr


def test_missing_operators_are_declared_and_only_those_named():
    body = """
            import torch
            for name in ("nms",):
                if not hasattr(torch.ops.torchvision, name):
                    raise RuntimeError(f"operator torchvision::{name} does not exist")
    """
    after = """
    from support import vision
    import torch
    print(vision.DECLARED, hasattr(torch.ops.torchvision, "nms"), hasattr(torch.ops.torchvision, "qnms"))
    """
    done = run(body.strip(), after)
    assert done.stdout.strip() == "['nms'] True False", done.stderr


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("RuntimeError('operator torchvision::unheard_of does not exist')", "operator torchvision::unheard_of does not exist"),
        ("RuntimeError('the disk is on fire')", "the disk is on fire"),
        ("ImportError('libjpeg.so is missing')", "libjpeg.so is missing"),
    ],
)
def test_any_other_failure_is_passed_on(error, shown):
    done = run(f"raise {error}", "import support.common.vision")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith(shown)


def test_torchvision_works_here():
    from support.common import vision

    assert set(vision.DECLARED) <= {"nms", "qnms"}
    assert vision.transforms.ToTensor and vision.datasets.MNIST and vision.tv_models.resnet18
    assert vision.import_torchvision() == []  # imported already: nothing more to declare
