"""The strip below a picture: what it warns of is there to its last letter."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.results.canvas import Canvas
from hilum.results.provenance import REFERENCE


@pytest.mark.parametrize("shape", [(900, 700), (2400, 1000), (300, 300)])
def test_the_longest_note_ends_within_the_picture(shape: tuple[int, int]) -> None:
    canvas = Canvas(np.zeros(shape, np.uint8), footer=40)
    assert canvas.write((16, 8), REFERENCE, size=17) <= canvas.width - 8
    assert canvas.write((16, 8), "short", size=17) == Canvas(
        np.zeros((2000, 2000), np.uint8), footer=40
    ).write((16, 8), "short", size=17)
