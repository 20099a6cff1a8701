"""A large last layer's null space beside one SVD of its weights: ``pytest tests/benchmarks/test_nullspace_speed.py -s`` shows ratios."""

import pytest
import scipy.linalg
import torch
from turns import compare

from support.geometry import nullspace

WIDTH, CLASSES = 4096, 1000  # AlexNet's and VGG's last layer; the tests, which time nothing, take a quarter of both


@pytest.fixture
def weight(benchmark):
    size = (CLASSES // 4, WIDTH // 4) if benchmark.disabled else (CLASSES, WIDTH)
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_basis_costs_about_one_svd_of_the_weights(benchmark, weight):
    """Ours, scipy's null space, and the floor: a thin SVD, which gives no basis of the null space yet."""
    centred = weight - weight.mean(0)
    contestants = {
        "ours": lambda: nullspace.adversarial_directions(weight),
        "one thin SVD": lambda: torch.linalg.svd(centred, full_matrices=False),
        "scipy null_space": lambda: scipy.linalg.null_space(centred.numpy()),
    }
    basis = nullspace.adversarial_directions(weight)
    compare(benchmark, "null space", contestants.pop("ours"), contestants, rounds=2)
    classes, width = weight.shape
    assert basis.shape == (width - classes + 1, width)
    assert float((basis @ basis.T - torch.eye(len(basis), dtype=torch.float64)).abs().max()) < 1e-12
    assert float((centred @ basis.T).abs().max()) < 1e-12 * float(weight.norm())


def test_parallel_boundaries_of_a_thousand_classes(benchmark, weight):
    """499,500 boundaries make 10^11 pairs of boundaries: the one planted pair is found without looking at each."""
    planted = weight.clone()
    planted[17] = planted[5] + 0.25 * (planted[201] - planted[133])
    families = benchmark.pedantic(lambda: nullspace.parallel_pairs(planted), rounds=1)
    assert families == (((5, 17), (133, 201)),)
