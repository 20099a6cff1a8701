"""Figures of the pages: which of them a dark page may turn."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from support.book import sphinx_figures


@pytest.mark.parametrize(("drawn", "expected"), [("lines", True), ("cells", True), ("digits", False)])
def test_a_drawing_is_told_from_images(tmp_path, drawn, expected):
    figure, ax = plt.subplots()
    if drawn == "lines":
        ax.plot([0, 1], [1, 0], color="black", linewidth=3)
    elif drawn == "cells":
        ax.pcolormesh(np.arange(12).reshape(3, 4), cmap="viridis")
    else:
        ax.imshow(np.eye(8), cmap="gray")
    figure.savefig(tmp_path / "picture.png")
    plt.close(figure)
    picture = tmp_path / "picture.png"
    assert sphinx_figures.may_turn(picture, "Accuracy under a white-box attack.") is expected
    assert not sphinx_figures.may_turn(picture, "One column an image, dark where it is misclassified.")
