"""The two ways in which torchvision may be installed: whole, or without its compiled operators."""

import subprocess
import sys
import textwrap

import pytest

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
    from support.common import vision
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
    from support.common import vision
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
