"""The properties that verifiers have settled, as they lie there."""

import pytest
import torch
from attack_nets import classes_of

from support.attacks import interval
from support.common import paths
from support.data import DataError
from support.evaluation import verified_properties
from support.models import published

# How many there are, hold, are violated, are disputed.
COUNTS = {"mnistfc": (90, 43, 22, 38), "oval21": (30, 17, 3, 3), "cifar10_resnet": (72, 58, 0, 0)}


@pytest.mark.parametrize("name", verified_properties.SETS)
def test_a_benchmark_is_read_whole(name):
    if not (paths.data_sets() / "vnncomp2021" / f"{name}.npz").is_file():
        pytest.skip("SKIPPED: no properties of VNN-COMP 2021 under BOOK_DATA")
    found = verified_properties.load(name)
    count, holds, violated, disputed = COUNTS[name]
    assert len(found.x) == len(found.y) == len(found.eps) == len(found.networks) == len(found.votes) == count
    assert found.x.dtype == torch.float32 and found.eps.dtype == torch.float64 and found.y.dtype == torch.int64
    assert float(found.x.min()) >= 0 and float(found.x.max()) <= 1 and float(found.eps.min()) > 0
    assert (int(found.holds.sum()), int(found.violated.sum()), int(found.disputed.sum())) == (holds, violated, disputed)
    assert not bool((found.holds & found.violated).any()) and set(found.networks) <= set(published.NETWORKS)
    low, high = interval(found.x, found.eps)
    assert bool((low <= found.x).all() and (found.x <= high).all())
    right = torch.zeros_like(found.holds)
    for network in set(found.networks):
        own = torch.tensor([one == network for one in found.networks])
        part = found.take(own)
        assert set(part.networks) == {network} and torch.equal(part.votes, found.votes[own])
        right[own] = classes_of(published.network(network), part.x) == part.y
    assert bool(right.all())  # no clean image is a counterexample


def test_what_is_missing_or_unknown_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"mnistfc\.npz is not there, and nobody publishes it in this form"):
        verified_properties.load("mnistfc")
    with pytest.raises(ValueError, match="acasxu"):
        verified_properties.load("acasxu")
