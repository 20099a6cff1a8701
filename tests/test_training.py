"""Training: what one step does, that nothing but the seed decides a run, and that a killed run ends with the same numbers."""

import itertools
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binom
from torch import nn
from torch.nn import functional

from support import data, models, training
from support.common import progress
from support.common.cache import Cache, CacheError, Place
from support.models import heads
from support.training import fitting


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("BOOK_PROGRESS", "off")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits").take(300)


def network(seed=0, **kwargs):
    return models.mlp((1, 8, 8), (16,), 10, seed=seed, **kwargs)


def dropout_network():
    model = models.small_cnn((1, 8, 8), 10, width=4)
    model.body.append(nn.Dropout(0.3))
    return model.eval()


def same_weights(a, b) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# --- one step, many steps ---------------------------------------------------------------------------------------------


def test_one_full_batch_step_is_nesterovs(digits):
    model, reference = network(), network()
    lr, decay = 0.1, 0.01
    training.fit(model, digits.x, digits.y, epochs=1, lr=lr, batch_size=300, momentum=0.9, weight_decay=decay, schedule="constant")
    loss = functional.cross_entropy(reference(digits.x), digits.y)
    for (name, p), g in zip(reference.named_parameters(), torch.autograd.grad(loss, list(reference.parameters())), strict=True):
        g = g + decay * p
        expected = p - lr * (g + 0.9 * g)  # the buffer starts as the gradient, and Nesterov looks one step ahead
        assert torch.allclose(model.get_parameter(name), expected, atol=1e-6), name


def test_schedules():
    for schedule in fitting.SCHEDULES:
        rates = [fitting.learning_rate(schedule, i / 1000) for i in range(1001)]
        assert max(rates) == pytest.approx(1) and min(rates) >= 0
        assert max(abs(a - b) for a, b in itertools.pairwise(rates)) < 0.01  # no jumps
    assert fitting.learning_rate("onecycle", 0) == pytest.approx(1 / 25)
    assert fitting.learning_rate("onecycle", 0.3) == 1
    assert fitting.learning_rate("onecycle", 1) == pytest.approx(0, abs=1e-12)
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(reference, 1.0, total_steps=1001, final_div_factor=1e12, cycle_momentum=False)
    for i in range(0, 1000):
        assert fitting.learning_rate("onecycle", i / 1000) == pytest.approx(theirs.get_last_lr()[0], abs=0.01)
        reference.step()
        theirs.step()
    with pytest.raises(ValueError, match="unknown schedule 'step': choose one of onecycle, cosine, constant"):
        fitting.learning_rate("step", 0)


def test_training_learns_and_tells_its_history(digits):
    result = training.fit(network(), digits.x, digits.y, epochs=30)
    assert result.history.keys() == {"loss", "accuracy"} and all(len(v) == 30 for v in result.history.values())
    assert result.history["loss"][-1] < 0.5 * result.history["loss"][0]
    right = (training.predict(result.model, digits.x).argmax(1) == digits.y).double().mean()
    assert result.history["accuracy"][-1] == pytest.approx(float(right), abs=0.02)
    test = data.load("digits", "test")
    unseen = int((training.predict(result.model, test.x).argmax(1) == test.y).sum())
    assert binom.sf(unseen - 1, len(test), 0.5) < 1e-6  # decidedly more than half, of ten classes
    assert result.seconds > 0


def test_history_is_measured_on_the_way(digits):
    """With a learning rate of nearly zero the passes see the same network: loss and accuracy are the plain ones, whatever the loss."""
    for loss in (training.cross_entropy, lambda model, x, y: 0.5 * model.features(x).square().sum(1)):
        model = network(seed=3)
        result = training.fit(model, digits.x, digits.y, loss=loss, epochs=1, lr=1e-12, batch_size=64)
        expected = loss(model, digits.x, digits.y).mean().item()
        assert result.history["loss"][0] == pytest.approx(expected, rel=1e-5)
        assert result.history["accuracy"][0] == pytest.approx((model(digits.x).argmax(1) == digits.y).double().mean().item(), abs=1e-9)


def test_a_loss_of_the_features_leaves_the_head_alone(digits):
    model = network()
    head = model.head.weight.detach().clone()
    training.fit(model, digits.x, digits.y, loss=lambda m, x, y: m.features(x).square().sum(1), epochs=2, lr=0.01, weight_decay=0.1)
    assert torch.equal(model.head.weight, head)
    assert all(p.grad is None for p in model.parameters())


def test_batches_of_an_epoch_are_even_and_cover_the_data_once(digits):
    seen = []

    def loss(model, x, y):
        seen.append(x)
        return training.cross_entropy(model, x, y)

    training.fit(network(), digits.x, digits.y, loss=loss, epochs=2, lr=0.01, batch_size=128)
    assert [len(batch) for batch in seen] == [100] * 6
    for epoch in (seen[:3], seen[3:]):
        assert torch.equal(torch.cat(epoch).flatten(1).sum(1).sort().values, digits.x.flatten(1).sum(1).sort().values)
    assert not torch.equal(seen[0], seen[3])


def test_the_model_is_trained_where_it_is_and_left_in_evaluation_mode(digits):
    model = dropout_network()
    modes = []
    result = training.fit(model, digits.x, digits.y, epochs=2, lr=0.01, on_epoch=lambda m, e: modes.append((e, m.training, m is model)))
    assert result.model is model
    assert modes == [(0, False, True), (1, False, True)]
    assert not any(m.training for m in model.modules())
    assert int(model.body[2].num_batches_tracked) == 2 * 3  # it did train in training mode


# --- determinism ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [False, True])
def test_nothing_but_the_seed_decides(digits, augment):
    def run(seed):
        return training.fit(dropout_network(), digits.x, digits.y, epochs=2, lr=0.05, seed=seed, augment=augment)

    torch.manual_seed(1)
    first = run(0)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second, third = run(0), run(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same_weights(first.model, second.model) and first.history == second.history
    assert not same_weights(first.model, third.model)


def test_crops_and_flips_are_those_of_a_plain_loop():
    x = torch.rand(40, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    found = fitting.random_crop_flip(x, torch.Generator().manual_seed(7))
    assert found.shape == x.shape
    seen = set()
    for image, result in zip(x, found, strict=True):
        padded = functional.pad(image, (4,) * 4)
        windows = {
            (top, left, flip): (window.flip(2) if flip else window)
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
            for window in (padded[:, top : top + 10, left : left + 12],)
        }
        (match,) = [key for key, window in windows.items() if torch.equal(window, result)]
        seen.add(match)
    assert len({s[0] for s in seen}) > 5 and len({s[1] for s in seen}) > 5 and {s[2] for s in seen} == {False, True}
    assert len({s[:2] for s in seen}) > 20, "rows and columns move by draws of their own"


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_second_run_is_read_and_equal(digits, tmp_path):
    def run(cache, **changes):
        return training.fit(dropout_network(), digits.x, digits.y, **({"epochs": 3, "lr": 0.05, "cache": cache} | changes))

    plain, first, second = run(None), run(Cache(tmp_path)), run(Cache(tmp_path))
    assert same_weights(plain.model, first.model) and same_weights(first.model, second.model)
    assert plain.history == first.history == second.history and first.seconds == second.seconds != plain.seconds
    run(Cache(tmp_path), name="a label")
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("fit-") and "partial" not in file.name
    changes = {"epochs": 2, "lr": 0.06, "seed": 1, "augment": True, "schedule": "cosine", "weight_decay": 1e-4, "batch_size": 64}
    for key, value in (changes | {"momentum": 0.8}).items():
        run(Cache(tmp_path), **{key: value})
    assert len(list(tmp_path.iterdir())) == 9


def pull(centers):
    return lambda model, x, y: (model.features(x) - centers[y]).square().sum(1)


def shrink(factor=0.9):
    """A hook that changes the model."""

    def hook(model, epoch):
        with torch.no_grad():
            model.head.weight.mul_(factor)

    return hook


def test_weights_data_loss_and_hook_are_part_of_the_key(digits, tmp_path):
    cache, centers = Cache(tmp_path), torch.zeros(10, 16)
    for model, x, y, more in (
        (network(), digits.x, digits.y, {}),
        (network(seed=1), digits.x, digits.y, {}),
        (network(), digits.x.flip(3), digits.y, {}),
        (network(), digits.x, digits.y.flip(0), {}),
        (network(), digits.x, digits.y, {"loss": pull(centers)}),
        (network(), digits.x, digits.y, {"loss": pull(centers + 1e-3)}),
        (models.with_head(network(), heads.GaussHead(centers)), digits.x, digits.y, {}),
        (network(), digits.x, digits.y, {"on_epoch": shrink()}),
        (network(), digits.x, digits.y, {"on_epoch": shrink(0.8)}),
    ):
        training.fit(model, x, y, epochs=1, lr=0.01, cache=cache, **more)
    assert (cache.hits, len(list(tmp_path.iterdir()))) == (0, 9)
    training.fit(network(), digits.x, digits.y, loss=pull(torch.zeros(10, 16)), epochs=1, lr=0.01, cache=cache)
    training.fit(network(), digits.x, digits.y, on_epoch=shrink(0.8), epochs=1, lr=0.01, cache=cache)
    assert len(list(tmp_path.iterdir())) == 9


@pytest.mark.parametrize("what", ["loss", "on_epoch"])
def test_what_has_no_identity_is_refused_before_training(digits, tmp_path, what):
    model = network()
    with open(__file__, encoding="utf-8") as stream, pytest.raises(CacheError):
        training.fit(model, digits.x, digits.y, cache=Cache(tmp_path), **{what: lambda *given: stream})
    assert same_weights(model, network()) and not list(tmp_path.iterdir())


class Interruption:
    """Stops a training, like a person at the keyboard, once the bar has moved so many times."""

    def __init__(self, monkeypatch):
        self.left, self.begun = math.inf, []
        monkeypatch.setattr(progress, "tqdm", self.bar)

    @contextmanager
    def bar(self, *, initial, **shown):
        self.begun.append(initial)
        yield SimpleNamespace(update=self.update, set_postfix=lambda **shown: None)

    def update(self):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_continues_and_ends_with_the_same_bits(digits, tmp_path, monkeypatch):
    bar = Interruption(monkeypatch)
    options = {"epochs": 6, "lr": 0.05, "augment": True, "on_epoch": shrink()}
    whole = training.fit(dropout_network(), digits.x, digits.y, **options)
    for batches in (3 * 2 + 1, 3 * 2):  # in the third epoch, and at the end of the fourth, before it is kept
        bar.left = batches
        model = dropout_network()
        with pytest.raises(KeyboardInterrupt):
            training.fit(model, digits.x, digits.y, cache=Cache(tmp_path), **options)
        assert not any(m.training for m in model.modules())
        (partial,) = tmp_path.iterdir()
        assert partial.name.endswith(".partial.safetensors")
    bar.left = math.inf
    resumed = training.fit(dropout_network(), digits.x, digits.y, cache=Cache(tmp_path), **options)
    assert bar.begun == [0, 0, 3 * 2, 3 * 4]
    assert same_weights(whole.model, resumed.model) and whole.history == resumed.history
    (final,) = tmp_path.iterdir()
    assert "partial" not in final.name


def test_the_seconds_of_a_killed_run_count(digits, tmp_path, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(time, "process_time", lambda: float(next(ticks)))
    bar = Interruption(monkeypatch)
    bar.left = 3 * 2 + 1
    with pytest.raises(KeyboardInterrupt):  # one tick at the start, one for each of the two epochs that were kept
        training.fit(network(), digits.x, digits.y, epochs=3, cache=Cache(tmp_path))
    bar.left = math.inf
    assert training.fit(network(), digits.x, digits.y, epochs=3, cache=Cache(tmp_path)).seconds == 2 + 1


def test_a_damaged_checkpoint_starts_over(digits, tmp_path, monkeypatch):
    bar = Interruption(monkeypatch)
    bar.left = 3 * 3
    options = {"epochs": 4, "lr": 0.05, "cache": Cache(tmp_path)}
    with pytest.raises(KeyboardInterrupt):
        training.fit(network(), digits.x, digits.y, **options)
    (partial,) = tmp_path.iterdir()
    partial.write_bytes(partial.read_bytes()[:-10])
    bar.left = math.inf
    with pytest.warns(UserWarning, match="computing it again"):
        resumed = training.fit(network(), digits.x, digits.y, **options)
    assert same_weights(resumed.model, training.fit(network(), digits.x, digits.y, epochs=4, lr=0.05).model)


KILLED = """
import os, sys
os.environ["BOOK_PROGRESS"] = "off"
import torch
torch.set_num_threads(1)
from support import data, models, training
from support.common.cache import Cache

def slow(model, x, y):
    print("batch", flush=True)
    return torch.nn.functional.cross_entropy(model(x), y, reduction="none")

digits = data.load("digits").take(300)
cache = Cache(sys.argv[1]) if len(sys.argv) > 1 else None
model = models.small_cnn((1, 8, 8), 10, width=4)
result = training.fit(model, digits.x, digits.y, loss=slow, epochs=8, lr=0.05, augment=True, cache=cache)
print(models.fingerprint(result.model), result.history["loss"])
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_run_killed_in_training_continues_and_ends_with_the_same_numbers(tmp_path):
    def start(*arguments):
        return subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True)

    with start() as whole:
        expected = whole.communicate(timeout=300)[0].splitlines()
    killed = start(str(tmp_path))
    for _ in range(3 * 4 + 2):  # three batches an epoch: in the middle of the fifth
        assert killed.stdout.readline() == "batch\n"
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert any(f.name.endswith(".partial.safetensors") for f in tmp_path.iterdir())
    with start(str(tmp_path)) as again:
        resumed = again.communicate(timeout=300)[0].splitlines()
    assert expected.count("batch") == 24 and resumed.count("batch") in (9, 12)  # not from the start
    assert resumed[-1] == expected[-1]
    assert [f.name for f in tmp_path.iterdir() if "partial" in f.name] == []


def test_checkpoints_cost_little(digits, tmp_path, monkeypatch):
    """Counted, not timed: one small write an epoch, and none that waits for the disk before the last."""
    written, write = [], Place.write
    monkeypatch.setattr(Place, "write", lambda place, found, durable=True: written.append(durable) or write(place, found, durable=durable))
    training.fit(network(), digits.x, digits.y, epochs=5, lr=0.01, cache=Cache(tmp_path))
    assert written == [False] * 4 + [True]


# --- reading off ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 300, 1000])
def test_predict_and_extract_are_the_model_in_batches(digits, batch_size):
    model = network()
    assert torch.allclose(training.predict(model, digits.x, batch_size), model(digits.x), atol=1e-6)
    features = training.extract(model, digits.x, batch_size)
    assert torch.allclose(features, model.features(digits.x), atol=1e-6)
    # what was read off can take part in a loss
    loss = (model.features(digits.x) * features).sum()
    assert torch.autograd.grad(loss, model.body[2].weight)[0].isfinite().all()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(300, 64)}, r"images must be .* \(N, C, H, W\).*; torch.float32 \(300, 64\) was given"),
        ({"x": torch.zeros(300, 1, 8, 8, dtype=torch.uint8)}, "torch.uint8"),
        ({"x": torch.full((300, 1, 8, 8), 255.0)}, r"values in \[0,1\]; values from 255 to 255"),
        ({"x": torch.full((300, 1, 8, 8), math.nan)}, "values from nan to nan were given"),
        ({"y": torch.zeros(299, dtype=torch.int64)}, r"int64 of shape \(300,\); torch.int64 \(299,\)"),
        ({"y": torch.zeros(300)}, "torch.float32"),
        ({"y": torch.full((300,), -1)}, "labels must hold labels from 0; -1"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1; 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1; 0"),
        ({"lr": 0.0}, "lr must be a positive number; 0"),
        ({"lr": math.nan}, "lr must be a positive number; nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\); 1"),
        ({"weight_decay": -1.0}, "weight_decay must be a number of at least 0; -1"),
        ({"schedule": "step"}, "unknown schedule 'step'"),
        ({"loss": lambda m, x, y: m(x).mean()}, r"one number per image, shape \(100,\); this one gave \(\)"),
    ],
)
def test_bad_input_is_refused(digits, changes, message):
    options = {"x": digits.x, "y": digits.y, "epochs": 1, "lr": 0.1} | changes
    model = network()
    before = models.fingerprint(model)
    with pytest.raises(ValueError, match=message):
        training.fit(model, options.pop("x"), options.pop("y"), **options)
    assert models.fingerprint(model) == before


def test_a_missing_gpu_is_said(digits):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="device cuda was asked for, but PyTorch sees no GPU here; use cpu"):
        training.fit(network(), digits.x, digits.y, epochs=1, lr=0.1, device="cuda")


def test_divergence_is_said(digits, tmp_path):
    with pytest.raises(FloatingPointError, match=r"training diverged: the loss of epoch \d is (nan|inf) at lr=1e\+30"):
        training.fit(network(), digits.x, digits.y, epochs=5, lr=1e30, cache=Cache(tmp_path))
    assert not [f for f in tmp_path.iterdir() if "partial" not in f.name]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("augment", [False, True])
def test_a_gpu_trains_as_well_alike_each_time_and_gives_float32_weights(digits, augment):
    def run():
        return training.fit(models.small_cnn((1, 8, 8), 10), digits.x, digits.y, epochs=15, lr=0.1, device="cuda", augment=augment)

    first, second = run(), run()
    assert same_weights(first.model, second.model) and first.history == second.history
    assert all(p.dtype == torch.float32 and p.is_cuda and p.is_contiguous() for p in first.model.parameters())
    assert augment or first.history["accuracy"][-1] > 0.9


# --- progress ---------------------------------------------------------------------------------------------------------


def test_bars_go_where_they_are_sent(monkeypatch, tmp_path, capfd):
    target = tmp_path / "terminal"
    for where in ("off", str(target), str(tmp_path / "no" / "such" / "terminal")):
        monkeypatch.setenv("BOOK_PROGRESS", where)
        with progress.bar(3, "counting") as shown:
            shown.update()
    assert "counting:   0%" in target.read_text() and "0/3" in target.read_text()
    assert capfd.readouterr() == ("", "")
    monkeypatch.delenv("BOOK_PROGRESS")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm's, where the notebook widgets are not installed
        with progress.bar(2, "seen"):
            pass
    assert "seen" in capfd.readouterr().err


def test_training_shows_loss_and_accuracy(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("BOOK_PROGRESS", str(tmp_path / "terminal"))

    def wait(model, epoch):
        time.sleep(0.11)  # tqdm redraws at most every tenth of a second

    training.fit(network(), digits.x, digits.y, epochs=4, lr=0.1, name="a-network", on_epoch=wait)
    shown = (tmp_path / "terminal").read_text()
    assert "a-network" in shown and "/12" in shown and "accuracy=0." in shown and "loss=" in shown
