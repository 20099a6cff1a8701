"""L-BFGS beside a loop of scipy's L-BFGS-B over the images: ``pytest tests/benchmarks/test_minimal_l2_speed.py -s``.

Both bisect the trade-off constant for the same objective; the ratio of CPU seconds is reported, distortions and passes are judged.
"""

import time

import numpy as np
import torch
from attack_nets import held_out, trained
from scipy import optimize
from torch.nn import functional

from support.attacks import lbfgs


def scipy_loop(model, x, wanted, *, search, growth, steps):
    """One image at a time; the constants tried are those of the batched attack: up or down by a factor, then bisected."""
    found, passes = [], 0
    for image, label in zip(x, wanted, strict=True):
        start = image.flatten().double().numpy()
        low, high, constant, at, best, left = 0.0, np.inf, 1.0, start, None, search + 1
        for _ in range(search + 8):

            def objective(z, constant=constant, image=start, label=label):
                nonlocal passes
                passes += 1
                leaf = torch.from_numpy(z).float().requires_grad_()
                loss = functional.cross_entropy(model(leaf.view(1, *x.shape[1:])), label[None])
                (slope,) = torch.autograd.grad(loss, leaf)
                distortion = z - image
                return distortion @ distortion / 2 + constant * loss.item(), distortion + constant * slope.double().numpy()

            at = optimize.minimize(
                objective, at, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * at.size, options={"maxfun": steps, "maxcor": 5}
            ).x
            with torch.no_grad():
                won = model(torch.from_numpy(at).float().view(1, *x.shape[1:])).argmax() == label
            if won and (best is None or np.linalg.norm(at - start) < np.linalg.norm(best - start)):
                best = at
            low, high = (low, constant) if won else (constant, high)
            left -= np.isfinite(high)
            if left == 0:
                break
            constant = constant * growth if np.isinf(high) else high / growth if low == 0 else (low * high) ** 0.5
        found.append(np.nan if best is None else np.linalg.norm(best - start))
    return torch.tensor(found), passes


def test_lbfgs_beside_a_loop_of_scipy(benchmark):
    """Target: at least ten times faster, at a distortion no larger."""
    x, y = held_out(100)
    wanted, model, options = (y + 1 + torch.arange(100) % 9) % 10, trained(), {"search": 6, "growth": 4.0, "steps": 25}
    few = 10 if benchmark.disabled else 40
    start = time.process_time()
    with torch.enable_grad():
        theirs, passes = scipy_loop(model, x[:few], wanted[:few], **options)
    loop = (time.process_time() - start) / few
    lbfgs(model, x[:16], wanted[:16], targeted=True, search=0)
    start = time.process_time()
    ours = lbfgs(model, x, wanted, targeted=True, **options)
    batched = (time.process_time() - start) / 100
    distance = (ours.x_adv - x).flatten(1).norm(dim=1)[:few].double()
    both = ours.success[:few] & theirs.isfinite()
    ratio = float((distance / theirs)[both].median())
    report = {
        "times faster": loop / batched,
        "passes an image": float(ours.queries.double().mean()),
        "scipy's": passes / few,
        "distortion ratio": ratio,
    }
    benchmark.extra_info |= report
    print("\nL-BFGS, targeted, digits: " + ", ".join(f"{name} {value:.3g}" for name, value in report.items()))
    assert int(both.sum()) >= 0.9 * few and ratio < 1.03
    assert float(ours.queries.double().mean()) <= 1.25 * passes / few
    benchmark.pedantic(lambda: lbfgs(model, x[:32], wanted[:32], targeted=True, search=0), rounds=1)
