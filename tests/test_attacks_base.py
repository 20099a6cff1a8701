"""What attacks stand on: the exact box of a ball, and passes of a few sizes."""

from fractions import Fraction

import pytest
import torch
from attack_nets import pictures

from support.attacks import interval
from support.attacks.base import packed

RADII = [0.0, 1e-45, 1e-20, 1e-9, 2**-24, 1 / 255, 8 / 255, 0.1, 0.3, 1 / 3, 0.5, 1.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", RADII)
def test_interval_lies_inside_the_ball_and_is_the_largest_such(dtype, eps):
    special = torch.tensor([0.0, 1.0, 0.5, 1e-45, 1e-38, 1e-9, 1 / 255, 8 / 255, 0.1, 1 - 2**-24, 254 / 255, 0.3], dtype=dtype)
    x = torch.cat([special, torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=dtype)])[:, None]
    low, high = interval(x, eps)
    assert low.dtype == high.dtype == dtype
    below, above = torch.nextafter(low, torch.full_like(low, -1)), torch.nextafter(high, torch.full_like(high, 2))
    columns = (part[:, 0].tolist() for part in (x, low, high, below, above))
    for value, bottom, top, less, more in zip(*columns, strict=True):
        assert 0 <= bottom <= value <= top <= 1
        assert value - bottom <= eps and top - value <= eps  # Python's floats are float64
        assert less < 0 or Fraction(value) - Fraction(less) > Fraction(eps)
        assert more > 1 or Fraction(more) - Fraction(value) > Fraction(eps)
        if dtype == torch.float32:  # then not only in float64: in exact arithmetic
            assert Fraction(value) - Fraction(bottom) <= Fraction(eps) and Fraction(top) - Fraction(value) <= Fraction(eps)


def test_plain_clipping_would_break_the_bound():
    # Why the interval exists: without it, the nearest float32 to x + eps lies outside the ball for some pixels.
    x = pictures(50, (1, 8, 8))
    plain = (x + 0.1).clamp(0, 1)
    assert bool(((plain.double() - x.double()).abs() > 0.1).any())
    assert not bool(((interval(x, 0.1)[1].double() - x.double()).abs() > 0.1).any())


def test_pieces_have_few_sizes_and_hold_everything_once():
    for count in range(1, 140):
        pieces = list(packed(torch.arange(count), 64))
        assert torch.equal(torch.cat([index[:real] for index, real in pieces]), torch.arange(count))
        assert {len(index) for index, _ in pieces} <= {64, 32, 16}
        assert all(4 * real > 3 * len(index) or len(index) == 16 or real > 48 for index, real in pieces)
