"""Training a classifier, and reading its scores and features off in batches.

A run is a function of the model's first weights, the data and the settings: each epoch draws its
order, its augmentation and its dropout from (seed, epoch) alone. So a run that was killed goes on
from its last finished epoch as if nothing had happened, to the last bit for the same machine and
number of threads. Used by every chapter.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional

from support.attacks.base import LEAST_ROWS, first_outputs
from support.common import arguments, progress
from support.common.cache import Cache, Tensors
from support.models.architectures import Classifier

Loss = Callable[[Classifier, Tensor, Tensor], Tensor]
Hook = Callable[[Classifier, int], object]
SCHEDULES = ("onecycle", "cosine", "constant")
PADDING = 4  # pixels, of the random crops


@dataclass(frozen=True)
class FitResult:
    """A trained model and how it came about.

    Attributes:
        model: in evaluation mode, on the device asked for.
        history: ``loss`` and ``accuracy`` on the training batches as they were passed through, one
            number per epoch.
        seconds: what the training took, by :func:`clock`; kept with it in a cache.
    """

    model: Classifier
    history: dict[str, list[float]]
    seconds: float


def clock(device: torch.device) -> float:
    """Seconds: of this process on a CPU, which others on the machine do not lengthen; of the wall
    where a GPU computes."""
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def cross_entropy(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the model's scores with the labels, (N,)."""
    return functional.cross_entropy(model(x), y, reduction="none")


def fit(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = cross_entropy,
    epochs: int = 20,
    lr: float = 0.1,
    batch_size: int = 128,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: str = "onecycle",
    augment: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    cache: Cache | None = None,
    name: str = "fit",
    on_epoch: Hook | None = None,
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
        name: on the progress bar.
        on_epoch: called as ``on_epoch(model, epoch)`` after each epoch, with the model in
            evaluation mode. With a cache it is part of the key, with what it refers to, and may
            change nothing but the model: nothing else is restored after an interruption, and a
            cached result does not call it.

    Raises:
        ValueError: inputs that do not fit together or are out of range.
        FloatingPointError: the loss became infinite or NaN.
        CacheError: the cache cannot be written, or the loss or the hook refers to something without
            a lasting identity.
    """
    device = _device(device)
    plan = SimpleNamespace(
        epochs=arguments.whole_number("epochs", epochs, 1),
        lr=arguments.number("lr", lr, above=0),
        batch_size=arguments.whole_number("batch_size", batch_size, 1),
        momentum=arguments.number("momentum", momentum, least=0, below=1),
        weight_decay=arguments.number("weight_decay", weight_decay, least=0),
        schedule=arguments.choice("schedule", schedule, SCHEDULES),
        augment=augment,
        seed=seed,
    )
    arguments.images("images", x, pictures=True)
    arguments.labels("labels", y, x)
    place = None
    if cache is not None:
        decides = {"loss": loss, "on_epoch": on_epoch, "device": device.type, **vars(plan)}
        place = cache.place(fit, (model, x, y), decides)
        if (done := place.read()) is not None:
            history, seconds = _restore(done, model)
            return FitResult(model.to(device).eval(), history, seconds)
        cache.writable()
    cuda = device.type == "cuda"
    model.to(device)
    if cuda:
        model.to(memory_format=torch.channels_last)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        weights, lr, momentum, weight_decay=weight_decay, nesterov=momentum > 0
    )
    history, before, began = {"loss": [], "accuracy": []}, 0.0, clock(device)
    if place is not None and (state := place.partial.read()) is not None:
        history, before = _restore(state, model, optimizer)
    x, y = x.to(device), y.to(device)
    steps, first = -(-len(x) // batch_size), len(history["loss"])
    # Of cuDNN's algorithms those that give the same bits each time.
    same_bits = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    try:
        with progress.bar(epochs * steps, name, initial=first * steps) as bar, same_bits:
            for epoch in range(first, epochs):
                mean_loss, accuracy = _epoch(model, optimizer, x, y, loss, epoch, plan, bar)
                history["loss"].append(finite_loss(mean_loss, epoch, lr))
                history["accuracy"].append(accuracy)
                if on_epoch is not None:
                    on_epoch(model, epoch)
                if place is not None and epoch + 1 < epochs:
                    spent = before + clock(device) - began
                    state = _state(model, history, spent, optimizer)
                    place.partial.write(state, durable=False)
    finally:
        optimizer.zero_grad(set_to_none=True)
        model.to(memory_format=torch.contiguous_format).eval()
    seconds = before + clock(device) - began
    if place is not None:
        place.write(_state(model, history, seconds))
        place.partial.remove()
    return FitResult(model, history, seconds)


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


def mixed_features(model: Classifier, x: Tensor) -> Tensor:
    """Features in training, float32: on a GPU the body runs in bfloat16."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=x.device.type == "cuda"):
        return model.features(x).float()


def mixed_scores(model: Classifier, x: Tensor) -> Tensor:
    """Log-scores in training: the head on :func:`mixed_features`."""
    return model.head(mixed_features(model, x))


def evaluating(
    model: Classifier, scores: Callable[[Classifier, Tensor], Tensor] = mixed_scores
) -> Callable[[Tensor], Tensor]:
    """The scores of the model in evaluation mode, for an adversary made in the middle of a
    training; each of its modules is back in its own mode after every call."""

    def evaluated(x: Tensor) -> Tensor:
        in_training = [part for part in model.modules() if part.training]
        model.eval()
        try:
            return scores(model, x)
        finally:
            for part in in_training:
                part.training = True

    return evaluated


def finite_loss(value: float, epoch: int, lr: float) -> float:
    """The mean loss of an epoch.

    Raises:
        FloatingPointError: it is infinite or NaN.
    """
    if not math.isfinite(value):
        raise FloatingPointError(
            f"training diverged: the loss of epoch {epoch + 1} is {value} at lr={lr:g}; lower it"
        )
    return value


def learning_rate(schedule: str, done: float) -> float:
    """Share of the largest learning rate when a share ``done`` of the training, 0 to 1, is over."""
    arguments.choice("schedule", schedule, SCHEDULES)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if done < 0.3:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / 0.3)) / 2
    return (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2


def random_crop_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) shifted by up to 4 pixels each way, with zeros moving in, and
    mirrored with probability 1/2.

    The draws come from the CPU ``generator``, so that they do not depend on the device.
    """
    n, _, height, width = x.shape
    here = {"generator": generator, "device": generator.device}
    top, left = (torch.randint(2 * PADDING + 1, (n, 1), **here) for _ in range(2))
    mirrored = torch.rand(n, 1, dtype=torch.float32, **here) < 0.5
    columns = torch.arange(width, device=generator.device).expand(n, width)
    columns = (left + torch.where(mirrored, columns.flip(1), columns)).to(x.device)
    rows = (top + torch.arange(height, device=top.device)).to(x.device)
    image = torch.arange(n, device=x.device)[:, None, None]
    padded = functional.pad(x, (PADDING,) * 4)
    # Indices on both sides of the slice put the channels last.
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _epoch(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    epoch: int,
    plan: SimpleNamespace,
    bar,
) -> tuple[float, float]:
    """One pass over the data; mean loss and accuracy, measured on the way."""
    stream = hashlib.sha256(f"{plan.seed} {epoch}".encode()).digest()[:8]
    stream = int.from_bytes(stream, "big") >> 1
    generator = torch.Generator().manual_seed(stream)
    order = torch.randperm(len(x), generator=generator, device=generator.device)
    batches = order.tensor_split(-(-len(x) // plan.batch_size))
    total_loss = torch.zeros((), dtype=torch.float32, device=x.device)
    right = torch.zeros((), device=x.device, dtype=torch.int64)
    cuda = x.device.type == "cuda"
    layout = torch.channels_last if cuda else torch.contiguous_format
    # The features of the last pass: whatever the loss, they give the accuracy at the head's price.
    seen: list[Tensor] = []
    watcher = model.body.register_forward_hook(lambda *call: seen.append(call[-1].detach()))
    model.train()
    try:
        with torch.random.fork_rng(devices=[x.device] if cuda else []):
            # For dropout, which knows no other source. torch.manual_seed would also reach
            # generators that are not restored here.
            torch.random.default_generator.manual_seed(stream)
            if cuda:
                torch.cuda.default_generators[x.device.index].manual_seed(stream)
            for step, index in enumerate(batches):
                done = (epoch + step / len(batches)) / plan.epochs
                optimizer.param_groups[0]["lr"] = plan.lr * learning_rate(plan.schedule, done)
                index = index.to(x.device)
                images, labels = x[index], y[index]
                if plan.augment:
                    images = random_crop_flip(images, generator)
                images = images.contiguous(memory_format=layout)
                seen.clear()
                with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=cuda):
                    each = loss(model, images, labels)
                if each.shape != labels.shape:
                    raise ValueError(
                        f"a loss returns one number per image, shape {tuple(labels.shape)}; this "
                        f"one gave {tuple(each.shape)}"
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


def _state(
    model: Classifier,
    history: dict[str, list[float]],
    seconds: float,
    optimizer: torch.optim.Optimizer | None = None,
) -> Tensors:
    plain = {"dtype": torch.float64, "device": "cpu"}
    state = {"seconds": torch.tensor(seconds, **plain)}
    state |= {f"model.{k}": v for k, v in model.state_dict().items()}
    state |= {f"history.{k}": torch.tensor(v, **plain) for k, v in history.items()}
    for i, parameter in enumerate(optimizer.param_groups[0]["params"] if optimizer else ()):
        if (buffer := optimizer.state[parameter].get("momentum_buffer")) is not None:
            state[f"momentum.{i}"] = buffer
    return state


def _restore(
    state: Tensors, model: Classifier, optimizer: torch.optim.Optimizer | None = None
) -> tuple[dict[str, list[float]], float]:
    """Put a state back into the model and the optimizer; its history, and the seconds so far."""

    def part(prefix: str) -> Tensors:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    model.load_state_dict(part("model."))
    for i, buffer in part("momentum.").items():
        parameter = optimizer.param_groups[0]["params"][int(i)]
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
    return {k: v.tolist() for k, v in part("history.").items()}, float(state["seconds"])


def _batched(
    model: Classifier, function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int
) -> Tensor:
    arguments.images("images", x, pictures=True)
    arguments.whole_number("batch_size", batch_size, 1)
    arguments.scoring_model(model)
    device = next((t.device for t in (*model.parameters(), *model.buffers())), x.device)
    first_outputs(function, x[: 2 * LEAST_ROWS].to(device).contiguous(), module=model)
    with torch.no_grad():  # copies: a model may write where it reads, or where it wrote before
        batches = (batch.to(device, copy=True).contiguous() for batch in x.split(batch_size))
        parts = [function(batch).clone() for batch in batches]
    return torch.cat(parts)


def _device(device: str | torch.device) -> torch.device:
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device} was asked for, but PyTorch sees no GPU here; use cpu")
    return device
