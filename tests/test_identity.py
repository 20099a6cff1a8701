"""Keys that mean what they say: whatever could change a number is a miss, and nothing else is."""

import dataclasses
import functools
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import support
from support import attacks, models, training
from support.book import chapter_run, profiles
from support.common import identity
from support.common.cache import Cache, CacheError
from support.common.identity import NoIdentity, describe
from support.models import heads


def digest(value: object) -> str:
    return json.dumps(describe(value), sort_keys=True)


# --- a chapter with a package of its own, in which changes are planted ------------------------------------------------------------

KERNELS = '''
"""Kernels."""
import functools
import torch
from dataclasses import dataclass

STEP = 0.25
TABLE = {"short": 1, "long": [2, 3]}

def deep(x):
    # how far
    return STEP * x

def middle(x, factor=2):
    """Twice."""
    moved = deep(x)
    return factor * moved

@functools.cache
def remembered(n):
    return n + TABLE["short"]

def imported_late(x):
    from planted.late import shift
    return shift(x)

class Head(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
    def forward(self, x):
        return self.width * x

def unrelated(x):
    return x - 1
'''
LATE = "def shift(x):\n    return x + 3\n"
CHAPTER = '''
from dataclasses import dataclass
import planted.kernels as kernels
from planted import kernels as same
from planted.kernels import middle, remembered

GAMMA = 0.7
K = 10

@dataclass(frozen=True)
class Found:
    value: float
    def doubled(self):
        return 2 * self.value

def make_loss(weight):
    def loss(x):
        return weight * x
    return loss

loss = make_loss(0.5)

def helper(x):
    return GAMMA * middle(x) + kernels.imported_late(x)

def study(x, *, seed):
    """What the chapter measures."""
    inside = [helper(part) for part in (x, x + 1)]
    return Found(sum(inside) + loss(x) + remembered(K) + kernels.Head(2)(x))

def elsewhere(x):
    return x
'''
SOURCES = {"planted.kernels": KERNELS, "planted.late": LATE, "chapter": CHAPTER}
MISSES = {
    "a body": ("chapter", "sum(inside) + loss(x)", "sum(inside) - loss(x)"),
    "a helper": ("chapter", "GAMMA * middle(x)", "0 * GAMMA * middle(x)"),
    "a helper two calls deep, in a module": ("planted.kernels", "return STEP * x", "return STEP * x * x"),
    "a loss's weight": ("chapter", "loss = make_loss(0.5)", "loss = make_loss(500.0)"),
    "a loss's body": ("chapter", "return weight * x", "return weight + x"),
    "a constant of the chapter": ("chapter", "GAMMA = 0.7", "GAMMA = 0.71"),
    "a constant of a module": ("planted.kernels", "STEP = 0.25", "STEP = 0.125"),
    "a value inside a table": ("planted.kernels", '"short": 1', '"short": 2'),
    "a default": ("planted.kernels", "factor=2", "factor=3"),
    "a function behind a decorator": ("planted.kernels", "return n +", "return n -"),
    "a module that is imported late": ("planted.late", "x + 3", "x + 4"),
    "a method": ("planted.kernels", "return self.width * x", "return self.width + x"),
    "a field": ("chapter", "value: float", "value: float\n    more: float = 0.0"),
    "a constant in an expression": ("chapter", "(x, x + 1)", "(x, x + 2)"),
    "a type of constant": ("chapter", "K = 10", "K = 10.0"),
}
HITS = {
    "a comment": ("planted.kernels", "# how far", "# how very far it goes"),
    "a docstring": ("chapter", '"""What the chapter measures."""', '"""Something else."""'),
    "a renamed local": ("planted.kernels", "moved", "shifted"),
    "a blank line": ("chapter", "        return 2 * self.value", "\n\n        return 2 * self.value"),
    "an annotation": ("chapter", "def helper(x):", "def helper(x: float) -> float:"),
    "another function of the chapter": ("chapter", "return x\n", "return x * x\n"),
    "another function of a module": ("planted.kernels", "return x - 1", "return x - 2"),
}


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Import the planted package afresh, with one piece of text replaced."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "__init__.py").write_text("")

    def load(name="", old="", new=""):
        for module, text in SOURCES.items():
            assert module != name or text.count(old) >= 1
            file = tmp_path / f"{module.replace('.', '/')}.py"
            file.write_text(text.replace(old, new) if module == name else text)
        for module in [m for m in sys.modules if m.partition(".")[0] in ("planted", "chapter")]:
            del sys.modules[module]
        identity._foreign.cache_clear()
        importlib.invalidate_caches()
        sys.dont_write_bytecode = True
        return importlib.import_module("chapter")

    yield load
    for module in [m for m in sys.modules if m.partition(".")[0] in ("planted", "chapter")]:
        del sys.modules[module]


def key(chapter) -> str:
    return json.dumps(identity.of_call(chapter.study, (1.0,), {"seed": 0}), sort_keys=True)


@pytest.mark.parametrize("change", MISSES)
def test_a_planted_change_is_a_miss(plant, tmp_path, change):
    cache, chapter = Cache(tmp_path / "cache"), plant()
    first = cache.once(chapter.study, 1.0, seed=0)
    assert cache.once(chapter.study, 1.0, seed=0) == first and cache.misses == 1
    before, changed = key(chapter), plant(*MISSES[change])
    assert key(changed) != before
    cache.once(changed.study, 1.0, seed=0)
    assert cache.misses == 2


@pytest.mark.parametrize("change", HITS)
def test_what_changes_no_number_is_a_hit(plant, tmp_path, change):
    cache, chapter = Cache(tmp_path / "cache"), plant()
    cache.once(chapter.study, 1.0, seed=0)
    changed = plant(*HITS[change])
    found = cache.once(changed.study, 1.0, seed=0)
    assert cache.misses == 1 and type(found) is changed.Found  # of the class as it is now


def test_other_arguments_are_a_miss(plant, tmp_path):
    chapter, cache = plant(), Cache(tmp_path / "cache")
    for arguments, seed in ((1.0, 0), (1, 0), (1.0, 1), (1.0 + 2**-52, 0)):
        cache.once(chapter.study, arguments, seed=seed)
    assert cache.misses == 4


@pytest.mark.parametrize("package", identity.PACKAGES)
def test_a_librarys_version_is_a_miss(plant, monkeypatch, package):
    chapter = plant()
    before, known = key(chapter), identity.versions()
    monkeypatch.setattr(identity, "versions", lambda: known | {package: "0.0"})
    assert key(chapter) != before


def test_a_data_file_counts_by_its_content(tmp_path):
    file = tmp_path / "images.bin"
    file.write_bytes(b"one")
    first, moved = digest(file), tmp_path / "elsewhere.bin"
    moved.write_bytes(b"one")
    assert digest(moved) == first
    file.write_bytes(b"two")
    assert digest(file) != first
    with pytest.raises(NoIdentity, match="cannot be read"):
        describe(tmp_path)


# --- values ---------------------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def plain(value):
    """A value whose equality is that of types and contents: True is not 1, -0.0 is not 0.0."""
    if isinstance(value, list):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return "dict", frozenset((k, plain(v)) for k, v in value.items())
    return type(value), repr(value)


@settings(max_examples=200, deadline=None)
@given(values, values)
def test_descriptions_differ_exactly_where_values_do(a, b):
    assert (json.dumps(describe(a)) == json.dumps(describe(b))) == (plain(a) == plain(b))  # as JSON: to Python, 0 == False


def test_tensors_are_described_by_type_shape_and_content():
    x = torch.arange(6.0)
    different = [x, x.double(), x.reshape(2, 3), x + 1e-6, x.int(), x.bfloat16(), x.numpy(), torch.tensor(3.0), torch.tensor(3)]
    assert len({digest(v) for v in different}) == len(different)
    assert digest(x) == digest(torch.arange(12.0)[:6]) == digest(torch.arange(0.0, 3.0, 0.5)[:, None].repeat(1, 2)[:, 1] * 2)
    shared = np.zeros(3)
    seen, before = torch.from_numpy(shared), digest(torch.from_numpy(shared))
    shared[0] = 1.0  # a change that torch is not told
    assert digest(seen) != before


class Doubled(torch.nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_network_is_its_classes_settings_hooks_and_weights():
    def net(kind=torch.nn.Sequential, stride=1, value=1.0, after=None, train=False):
        made = kind(torch.nn.Conv2d(1, 1, 2, stride=stride), torch.nn.ReLU())
        torch.nn.init.constant_(made[0].weight, value)
        torch.nn.init.zeros_(made[0].bias)
        if after:
            made[0].register_forward_hook(after)
        return made.train(train)

    def halve(module, given, output):
        return output / 2

    different = [net(), net(Doubled), net(stride=2), net(value=2.0), net(after=halve), net(train=True)]
    different += [heads.GaussHead(torch.zeros(2, 3)), heads.GaussHead(torch.zeros(2, 3), 2.0)]
    assert len({digest(model) for model in different}) == len(different)
    assert digest(net(after=halve)) == digest(net(after=halve))
    assert digest(models.mlp((1, 2, 2), (3,), 2)) == digest(models.mlp((1, 2, 2), (3,), 2))


def make_loss(factor, head=None):
    def loss(model, x, y):
        return factor * model(x).sum(1) if head is None else head(model.features(x)).sum(1)

    return loss


@dataclasses.dataclass
class Setting:
    value: object


def test_functions_and_objects_are_told_apart():
    gauss, wider = heads.GaussHead(torch.zeros(2, 3)), heads.GaussHead(torch.zeros(2, 3), 2.0)
    different = [
        make_loss(1.0), make_loss(2.0), make_loss(torch.ones(3)), make_loss(1.0, gauss), make_loss(1.0, wider), Setting(1), Setting(2),
        training.cross_entropy, torch.nn.functional.cross_entropy, lambda a, b, c: a, lambda a, b, c: b, lambda a, b, c=1: b,
        functools.partial(make_loss, 1.0), functools.partial(make_loss, 2.0), functools.partial(make_loss, factor=1.0), Setting,
        Setting(1).__eq__, np.sin, np.cos, torch.sin, {1}, {2}, b"a", b"b", 1 + 2j, slice(1), range(3),
    ]  # fmt: skip
    assert len({digest(f) for f in different}) == len(different)
    assert digest(make_loss(1.0)) == digest(make_loss(1.0))
    assert digest([Setting(1), Setting(1)]) == digest([Setting(1), Setting(1)])


def test_a_method_counts_wherever_its_text_came_from():
    """``python -c`` names its code as a dataclass's own methods are named."""

    def given(body):
        space = {"__name__": "__main__"}
        exec(compile(f"class Probe:\n    def measure(self, x):\n        return {body}\n", "<string>", "exec"), space)
        return space["Probe"]

    assert digest(given("x + 1")) == digest(given("x + 1")) != digest(given("x + 2"))


def test_circles_end():
    loop = [1]
    loop.append(loop)
    assert digest(loop) != digest([1, [1]])
    one, other = Setting(1), Setting(1)
    one.value, other.value = other, one
    assert digest(one)


def test_what_has_no_lasting_identity_is_refused_in_one_line(tmp_path):
    run = object.__new__(chapter_run.Run)
    profile = profiles.load("01_softmax_kmeans", "quick")
    with open(__file__, encoding="utf-8") as stream:
        for thing, reason in (
            (stream, "has no lasting identity"),
            (threading.Lock(), "has no lasting identity"),
            (make_loss(stream), "has no lasting identity"),
            (object(), "has no lasting identity"),
            (torch.Generator(), "pass a seed"),
            (np.random.default_rng(0), "pass a seed"),
            (run, "not the run or its profile"),
            (profile, "not the run or its profile"),
            ({"deep": [make_loss(profile)]}, "not the run or its profile"),
        ):
            with pytest.raises(CacheError, match=reason) as caught:
                Cache(tmp_path).once(make_loss, thing)
            assert "\n" not in str(caught.value)


# --- the package ------------------------------------------------------------------------------------------------------------------


def science() -> list:
    """Every public function and class of the science."""
    found = []
    for module in pkgutil.walk_packages(support.__path__, "support."):
        if not module.name.startswith(("support.book", "support.classroom", "support.cli", "support.__main__", "support.common")):
            held = vars(importlib.import_module(module.name)).items()
            found += [v for _, v in held if (inspect.isfunction(v) or inspect.isclass(v)) and v.__module__ == module.name]
    return found


def test_every_function_of_the_science_has_an_identity():
    found = science()
    assert len(found) > 200
    assert len({digest(thing) for thing in found}) > 0.98 * len(found)  # two that do the same are the same


def test_a_constant_deep_in_the_package_is_a_miss(monkeypatch):
    before = digest(attacks.pgd), digest(attacks.lbfgs)
    name, value = next((k, v) for k, v in sorted(vars(attacks.gradient).items()) if k.isupper() and isinstance(v, int | float))
    monkeypatch.setattr(attacks.gradient, name, value + 1)
    assert digest(attacks.pgd) != before[0]


def test_keys_are_alike_in_every_process():
    script = "from support import attacks, evaluation, models; from support.common.identity import describe\n"
    script += "print(describe([attacks.pgd, evaluation.evaluate, models.lenet((1, 28, 28)), {'a', 'b', 'c'}, {'x': 1, 'y': (2.5,)}]))"
    package = str(Path(support.__file__).parents[1])
    seen = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": package}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
        seen.add(done.stdout)
    assert len(seen) == 1
