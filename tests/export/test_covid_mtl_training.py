"""What COVID-MTL is trained with: the rolling layer, the loss and the learning rate."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hilum.catalog import covid_mtl as catalog
from hilum.catalog.errors import InputError
from hilum.export.networks.covid_mtl_training import (
    BASE_RATE,
    EPOCHS,
    Shift3D,
    draw_weights,
    learning_rate,
    mean_weights,
    sum_of,
    weighted_loss,
)
from torch.nn import functional


class Told(random.Random):
    """Gives the numbers it is told to."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def randint(self, a: int, b: int) -> int:
        number = self.numbers.pop(0)
        assert a <= number <= b
        return number


@pytest.mark.parametrize(
    ("sign", "rolled"), [(0, [3, 0, 1, 2]), (1, [1, 2, 3, 0])], ids=["+1", "-1"]
)
def test_a_channel_is_rolled(sign: int, rolled: list[int]) -> None:
    """Spec covid_mtl §17, vector 10; of four voxels the layer itself may move none."""
    x = torch.tensor([0, 1, 2, 3]).repeat(5)[None, None, None, None]
    layer = Shift3D(0.5, Told(1, 2, 1, sign))
    assert layer.train()(x).flatten().tolist() == rolled * 5


def test_golden_rolls(golden: Path) -> None:
    file = np.load(golden / "mtl" / "shift3d.npz")
    x = torch.arange(int(np.prod(file["shape"]))).reshape(*file["shape"])
    random.seed(5)
    assert np.array_equal(Shift3D(0.5).train()(x).numpy(), file["y"])
    assert torch.equal(Shift3D(0.5).eval()(x), x)


@pytest.mark.parametrize(
    ("chance", "share"), [(0.25, 1 / 4), (0.3, 1 / 3), (0.4, 1 / 2), (0.5, 1 / 2), (0.6, 0)]
)
def test_how_often_samples_are_rolled(chance: float, share: float) -> None:
    x = torch.arange(25.0).repeat(4000, 1, 1)[:, None, None]
    y = Shift3D(chance, random.Random(3)).train()(x)
    rolled = (y != x).any(-1).float().mean().item()
    # One axis of three has more than four voxels, and then a roll of 0 is one of six.
    assert rolled == pytest.approx(share / 3 * 5 / 6, abs=0.02)


def test_a_chance_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        Shift3D(0)


def test_weights_and_loss_of_a_step() -> None:
    """Spec covid_mtl §17, vector 11."""
    p = np.array([0.6673325442, 0.1886617095, 0.1440057463])
    q = np.array([0.3055872126, 0.4846602196, 0.2097525677])
    w = mean_weights(p, q)
    assert w == pytest.approx([0.4864598784, 0.3366609646, 0.1768791570], abs=1e-10)
    losses = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert sum_of(list(losses), w).item() == pytest.approx(1.6904192786, abs=2e-10)


def test_drawn_weights_are_spread_as_published() -> None:
    generator = np.random.default_rng(2)
    drawn = np.array([draw_weights(generator) for _ in range(4000)])
    assert drawn.sum(1) == pytest.approx(1)
    assert drawn.mean(0) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert drawn.std(0) == pytest.approx([1 / 6] * 3, abs=0.01)


def test_the_loss_teaches_every_task() -> None:
    torch.manual_seed(1)
    heads = [torch.nn.Linear(4, len(head.classes)) for head in catalog.HEADS.values()]
    seen, labels = torch.randn(6, 4), [torch.arange(6) % len(h.bias) for h in heads]
    weights = np.array([0.5, 0.0, 0.5])
    loss = weighted_loss([head(seen) for head in heads], labels, weights)
    single = [functional.cross_entropy(h(seen), t) for h, t in zip(heads, labels, strict=True)]
    assert loss.item() == pytest.approx(0.5 * (single[0] + single[2]).item())
    loss.backward()
    assert [bool(head.weight.grad.abs().max() > 1e-3) for head in heads] == [True, False, True]


def test_learning_rates() -> None:
    """Spec covid_mtl §17, vector 15."""
    rates = [learning_rate(epoch) for epoch in (0, 20, 40, 60)]
    assert rates == pytest.approx([0.005, 0.00426777, 0.0025, 0.00073223], abs=5e-9)
    assert learning_rate(0) == BASE_RATE
    for epoch in (-1, EPOCHS):
        with pytest.raises(InputError, match="give 0 to 79"):
            learning_rate(epoch)
