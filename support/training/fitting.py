"""Training a classifier, and reading its scores and features off in batches.

A run is a function of the model's first weights, the data and the settings: each epoch draws its
order, its augmentation and its dropout from (seed, epoch) alone. So a run that was killed goes on
from its last finished epoch as if nothing had happened, to the last bit for the same machine and
number of threads. Used by every chapter.
"""

import hashlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from support import models
from support.common import progress
from support.common.cache import NO_CACHE, Cache, Unit
from support.models.architectures import Classifier

Loss = Callable[[Classifier, Tensor, Tensor], Tensor]
SCHEDULES = ("onecycle", "cosine", "constant")
PADDING = 4  # pixels, of the random crops


@dataclass(frozen=True)
class FitResult:
    """A trained model and how it came about.

    Attributes:
        model: in evaluation mode, on the device asked for.
        history: ``loss`` and ``accuracy`` on the training batches as they were passed through, one
            number per epoch.
    """

    model: Classifier
    history: dict[str, list[float]]


def cross_entropy(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the model's scores with the labels, (N,)."""
    return functional.cross_entropy(model(x), y, reduction="none")


def fit(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = cross_entropy,
    epochs: int,
    lr: float,
    batch_size: int = 128,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: str = "onecycle",
    augment: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    cache: Cache | None = None,
    name: str = "",
    on_epoch: Callable[[Classifier, int], object] | None = None,
    hook_key: object = None,
) -> FitResult:
    """Train ``model`` in place by SGD with Nesterov momentum.

    On a GPU the passes run in bfloat16 and channels-last; parameters stay float32. All data are
    kept on the device.

    Args:
        model: trained where it is; left in evaluation mode on ``device``, also when the training is
            interrupted.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        loss: ``(model, x, y) -> (N,)``; its mean over a batch is minimised. With a cache, what it
            refers to is part of the key.
        epochs: passes over the data.
        lr: the largest learning rate.
        batch_size: at most; the batches of an epoch differ by at most one image.
        momentum: of SGD, in [0, 1).
        weight_decay: of SGD, on all parameters that the loss reaches.
        schedule: ``onecycle`` (from lr/25 up to lr for the first 30 %, then down to 0), ``cosine``
            (from lr to 0), ``constant``.
        augment: random crops after padding by 4 pixels, and horizontal flips.
        seed: of the order of the images, the augmentation and dropout.
        device: where to train.
        cache: keeps the result, and the state after every epoch while training goes on; None
            computes always.
        name: of the unit in the cache, and on the progress bar.
        on_epoch: called as ``on_epoch(model, epoch)`` after each epoch, with the model in
            evaluation mode. With a cache it may
            change nothing but the model: nothing else is restored after an interruption, and a
                cached result does not call it.
        hook_key: what ``on_epoch`` does, as text or another value of a cache key. Needed if there
            are both a cache and a hook.

    Raises:
        ValueError: inputs that do not fit together or are out of range.
        FloatingPointError: the loss became infinite or NaN.
        CacheError: the cache cannot be written, or the loss refers to something without a lasting
            identity.
    """
    device = _device(device)
    settings = {
        "epochs": epochs, "lr": lr, "batch_size": batch_size, "momentum": momentum, "weight_decay": weight_decay,
        "schedule": schedule, "augment": augment, "seed": seed,
    }  # fmt: skip
    _check_images(x)
    _check_settings(x, y, settings)
    keep = None if cache is None or cache is NO_CACHE else cache
    if keep is not None:
        if on_epoch is not None and hook_key is None:
            raise ValueError(
                "fit with a cache and on_epoch needs hook_key, which says what the hook does: it is part of the key"
            )
        key = {
            "model": models.fingerprint(model),
            "x": x,
            "y": y,
            "loss": loss,
            "hook": hook_key,
            "device": device.type,
            **settings,
        }
        path, header = keep.locate(name or "fit", key, [Path(__file__)])
        partial = path.with_name(f"{path.stem}.partial.safetensors")
        if (done := keep.read(path, header)) is not None:
            return FitResult(_load(model, done).to(device).eval(), _history(done))
        keep.writable()
    model.to(device)
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        parameters, lr=lr, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay
    )
    history: dict[str, list[float]] = {"loss": [], "accuracy": []}
    if keep is not None and (state := keep.read(partial, header)) is not None:
        _load(model, state)
        _load_momentum(optimizer, state)
        history = _history(state)
    x, y = x.to(device), y.to(device)
    steps = -(-len(x) // batch_size)
    first = len(history["loss"])
    try:
        with (
            progress.bar(epochs * steps, name or "fit", initial=first * steps) as bar,
            _deterministic(device),
        ):
            for epoch in range(first, epochs):
                mean_loss, accuracy = _epoch(model, optimizer, x, y, loss, epoch, settings, bar)
                if not math.isfinite(mean_loss):
                    raise FloatingPointError(
                        f"training diverged: the loss of epoch {epoch + 1} is {mean_loss} at lr={lr:g}; lower it"
                    )
                history["loss"].append(mean_loss)
                history["accuracy"].append(accuracy)
                if on_epoch is not None:
                    on_epoch(model, epoch)
                if keep is not None and epoch + 1 < epochs:
                    keep.write(partial, _state(model, history, optimizer), header, durable=False)
    finally:
        optimizer.zero_grad(set_to_none=True)
        model.to(memory_format=torch.contiguous_format).eval()
    if keep is not None:
        keep.write(path, _state(model, history), header)
        partial.unlink(missing_ok=True)
    return FitResult(model, history)


def predict(model: Classifier, x: Tensor, batch_size: int = 256) -> Tensor:
    """Log-scores (N, K) of images (N, C, H, W), in batches, without gradients, on the model's
    device.

    Raises:
        ValueError: images out of [0, 1], or batch norm or dropout in training mode, where a batch's
            images influence one another.
    """
    return _batched(model, model, x, batch_size)


def extract(model: Classifier, x: Tensor, batch_size: int = 256) -> Tensor:
    """Features (N, d) of images (N, C, H, W), otherwise as :func:`predict`."""
    return _batched(model, model.features, x, batch_size)


def learning_rate(schedule: str, done: float) -> float:
    """Share of the largest learning rate when a share ``done`` of the training, 0 to 1, is over."""
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if schedule != "onecycle":
        raise ValueError(f"unknown schedule {schedule!r}: choose one of {', '.join(SCHEDULES)}")
    if done < 0.3:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / 0.3)) / 2
    return (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2


def random_crop_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) shifted by up to 4 pixels each way, with zeros moving in, and
    mirrored with probability 1/2.

    The draws come from the CPU ``generator``, so that they do not depend on the device.
    """
    n, _, height, width = x.shape
    top, left = (torch.randint(2 * PADDING + 1, (n, 1), generator=generator) for _ in range(2))
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.arange(width).expand(n, width)
    columns = (left + torch.where(mirrored, columns.flip(1), columns)).to(x.device)
    rows = (top + torch.arange(height)).to(x.device)
    image = torch.arange(n, device=x.device)[:, None, None]
    # Indices on both sides of the slice put the channels last.
    return functional.pad(x, (PADDING,) * 4)[
        image, :, rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)


def _epoch(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    epoch: int,
    settings: dict,
    bar,
) -> tuple[float, float]:
    """One pass over the data; mean loss and accuracy, measured on the way."""
    stream = (
        int.from_bytes(hashlib.sha256(f"{settings['seed']} {epoch}".encode()).digest()[:8], "big")
        >> 1
    )
    generator = torch.Generator().manual_seed(stream)
    batches = torch.randperm(len(x), generator=generator).tensor_split(
        -(-len(x) // settings["batch_size"])
    )
    total_loss, right = (
        torch.zeros((), device=x.device),
        torch.zeros((), device=x.device, dtype=torch.int64),
    )
    cuda = x.device.type == "cuda"
    seen: list[
        Tensor
    ] = []  # the features of the last pass: whatever the loss, they give the accuracy at the price of the head
    watcher = model.body.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.detach())
    )
    model.train()
    try:
        with torch.random.fork_rng(devices=[x.device] if cuda else []):
            # For dropout, which knows no other source. torch.manual_seed would also reach
            # generators that are not restored here.
            for source in (
                torch.random.default_generator,
                *([torch.cuda.default_generators[x.device.index]] if cuda else []),
            ):
                source.manual_seed(stream)
            for step, index in enumerate(batches):
                for group in optimizer.param_groups:
                    group["lr"] = settings["lr"] * learning_rate(
                        settings["schedule"], (epoch + step / len(batches)) / settings["epochs"]
                    )
                index = index.to(x.device)
                images, labels = x[index], y[index]
                if settings["augment"]:
                    images = random_crop_flip(images, generator)
                images = images.contiguous(
                    memory_format=torch.channels_last if cuda else torch.contiguous_format
                )
                seen.clear()
                with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=cuda):
                    each = loss(model, images, labels)
                if each.shape != labels.shape:
                    raise ValueError(
                        f"a loss returns one number per image, shape {tuple(labels.shape)}; this one gave {tuple(each.shape)}"
                    )
                value = each.float().mean()
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                optimizer.step()
                with torch.no_grad():
                    total_loss += value * len(index)
                    right += (model.head(seen[-1].float()).argmax(1) == labels).sum()
                bar.update()
    finally:
        watcher.remove()
        model.eval()
    mean_loss, accuracy = float(total_loss) / len(x), int(right) / len(x)
    bar.set_postfix(loss=f"{mean_loss:.3g}", accuracy=f"{accuracy:.3f}", refresh=False)
    return mean_loss, accuracy


def _deterministic(device: torch.device):
    """cuDNN restricted to algorithms that give the same bits each time."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=True
    )


def _state(
    model: Classifier,
    history: dict[str, list[float]],
    optimizer: torch.optim.Optimizer | None = None,
) -> Unit:
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    state |= {f"history.{k}": torch.tensor(v, dtype=torch.float64) for k, v in history.items()}
    if optimizer is not None:
        for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
            if (buffer := optimizer.state[parameter].get("momentum_buffer")) is not None:
                state[f"momentum.{i}"] = buffer
    return {
        k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in state.items()
    }


def _part(state: Unit, prefix: str) -> Unit:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _load(model: Classifier, state: Unit) -> Classifier:
    model.load_state_dict(_part(state, "model."))
    return model


def _load_momentum(optimizer: torch.optim.Optimizer, state: Unit) -> None:
    for i, buffer in _part(state, "momentum.").items():
        parameter = optimizer.param_groups[0]["params"][int(i)]
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)


def _history(state: Unit) -> dict[str, list[float]]:
    return {k: v.tolist() for k, v in _part(state, "history.").items()}


def _batched(
    model: Classifier, function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int
) -> Tensor:
    _check_images(x)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; {batch_size} was given")
    for name, module in model.named_modules():
        if module.training and isinstance(
            module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd
        ):
            raise ValueError(
                f"{name} ({type(module).__name__}) is in training mode, which ties a batch's images together: call eval()"
            )
    device = next((t.device for t in (*model.parameters(), *model.buffers())), x.device)
    with torch.inference_mode():
        parts = [function(batch.to(device)) for batch in x.split(batch_size)]
    return torch.cat(parts)  # outside: an inference tensor could not take part in a loss later


def _device(device: str | torch.device) -> torch.device:
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device} was asked for, but PyTorch sees no GPU here; use cpu")
    return device


def _check_images(x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dim() != 4 or not x.is_floating_point() or not len(x):
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"images must be a floating-point tensor (N, C, H, W) with N >= 1; {given} was given"
        )
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):  # false for NaN as well
        raise ValueError(
            f"images must lie in [0, 1], without NaN; their range is [{float(low):g}, {float(high):g}]"
        )


def _check_settings(x: Tensor, y: Tensor, settings: dict) -> None:
    if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != (len(x),):
        given = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"labels must be int64 of shape ({len(x)},); {given} was given")
    if y.min() < 0:
        raise ValueError(f"labels must not be negative; the smallest is {int(y.min())}")
    learning_rate(settings["schedule"], 0.0)
    for key in ("epochs", "batch_size"):
        if settings[key] < 1:
            raise ValueError(f"{key} must be at least 1; {settings[key]} was given")
    if not (math.isfinite(settings["lr"]) and settings["lr"] > 0):
        raise ValueError(f"lr must be a positive number; {settings['lr']} was given")
    if not 0 <= settings["momentum"] < 1:
        raise ValueError(f"momentum must be in [0, 1); {settings['momentum']} was given")
    if not settings["weight_decay"] >= 0:
        raise ValueError(f"weight_decay must be at least 0; {settings['weight_decay']} was given")
