"""The census of one-pixel corners: every candidate once, the right pixel, and the same answer as a loop."""

import itertools

import pytest
import torch
from attack_nets import classes_of, convolutional, margin_now, pictures

from support import attacks


def test_every_pixel_meets_every_corner_once():
    x = torch.rand(2, 3, 2, 3, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    seen = [set(), set()]
    for index, images in attacks.corner_outputs(lambda batch: batch, x, batch_size=7):
        for i, image in zip(index.tolist(), images, strict=True):
            changed = (image != x[i]).any(0)
            assert int(changed.sum()) == 1
            seen[i].add((int(changed.flatten().nonzero()), tuple(image[:, changed][:, 0].tolist())))
    assert [len(found) for found in seen] == [2 * 3 * 8, 2 * 3 * 8]


@pytest.mark.parametrize("channels", [1, 3])
def test_least_margin_is_that_of_a_loop_over_pixels_and_colours(channels):
    model, x = convolutional(channels, 4, 5, seed=1, sharp=4.0), pictures(6, (channels, 4, 4))
    y = classes_of(model, x)
    least, expected = torch.full((6,), torch.inf), torch.full((6,), torch.inf)
    for index, scores in attacks.corner_outputs(model, x, batch_size=50):
        least.scatter_reduce_(0, index, attacks.margin(scores, y[index]), "amin")
    for row, column, *colour in itertools.product(range(4), range(4), *[(0.0, 1.0)] * channels):
        changed = x.clone()
        changed[:, :, row, column] = torch.tensor(colour)
        expected = torch.minimum(expected, margin_now(model, changed, y))
    assert torch.allclose(least, expected, atol=1e-5) and int((least < 0).sum()) > 0


def test_the_outputs_can_take_part_in_a_loss():
    weight = torch.ones(3, requires_grad=True)
    for _, output in attacks.corner_outputs(lambda batch: batch.flatten(1)[:, :3], torch.zeros(1, 1, 2, 2)):
        (output * weight).sum().backward()
    assert weight.grad is not None


NO_IMAGES = (
    torch.rand(2, 3),
    torch.rand(1, 1, 2, 2) + 1,
    torch.full((1, 1, 2, 2), float("nan")),
    torch.zeros(1, 1, 2, 2, dtype=torch.int64),
)


@pytest.mark.parametrize("bad", NO_IMAGES)
def test_images_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="x must be"):
        next(attacks.corner_outputs(lambda batch: batch, bad))


def test_a_batch_size_of_zero_is_refused():
    with pytest.raises(ValueError, match="batch_size"):
        next(attacks.corner_outputs(lambda batch: batch, torch.rand(1, 1, 2, 2), batch_size=0))
