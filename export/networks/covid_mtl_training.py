"""What COVID-MTL's networks were trained with: a rolling layer, a loss, a learning rate.

No trained weights were ever published, so who wants answers has to train the networks of
`covid_mtl` on cases of their own. The rest of the recipe is SGD with Nesterov's momentum `MOMENTUM`
and `WEIGHT_DECAY`, for `EPOCHS` in batches of `BATCH` that are not shuffled (spec covid_mtl §10,
§11). Nothing here is needed for answers, and nothing of it is exported.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...catalog.errors import InputError

EPOCHS, BATCH = 80, 10

BASE_RATE = 0.005
"""Learning rate of the first epoch."""

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-5

CHANCE, REACH = 0.25, 0.2
"""How often a sample is rolled, and how far at most: a share of the axis."""


class Shift3D(nn.Module):
    """Roll each channel of some samples along an axis of its own, while training.

    The layer stands after the ReLU of the stem, ``features.convbn``. It has no parameters and is
    the identity in ``eval`` mode, so a trained network is exported without it.

    Parameters
    ----------
    chance
        Of a sample to be rolled. As published, one of ``floor(1 / chance)`` numbers is drawn: 0.3
        acts like 1/3, and anything above 0.5 never acts.
    generator
        Where the numbers come from; None: Python's own, as published.

    Raises
    ------
    InputError
        For a chance that is not above 0 and at most 1.
    """

    def __init__(self, chance: float = CHANCE, generator: random.Random | None = None) -> None:
        super().__init__()
        if not 0 < chance <= 1:
            raise InputError(f"a chance of {chance:g}: give one above 0 and at most 1")
        self._numbers = math.floor(1 / chance)
        self._random = generator or random

    def forward(self, x: Tensor) -> Tensor:
        """Roll a map [N, C, d, h, w]."""
        if not self.training or self._numbers < 2:
            return x
        # Sample by sample, channel by channel: the order of the draws is the published one.
        return torch.stack([self._sample(one) for one in x])

    def _sample(self, x: Tensor) -> Tensor:
        if self._random.randint(1, self._numbers) != 1:
            return x
        return torch.stack([self._channel(channel) for channel in x])

    def _channel(self, x: Tensor) -> Tensor:
        axis = self._random.randint(0, 2)
        places = self._random.randint(0, math.floor(REACH * x.shape[axis]))
        backwards = self._random.randint(0, 1) == 1
        return x.roll(-places if backwards else places, axis)


def draw_weights(generator: np.random.Generator, tasks: int = 3) -> NDArray[np.float64]:
    """Draw a step's weights of the tasks: the mean of two draws of a flat Dirichlet distribution.

    Returns
    -------
    float64 [tasks], of sum 1; of three weights each has the mean 1/3 and the deviation 0.167.
    """
    first, second = generator.dirichlet(np.ones(tasks), size=2)
    return mean_weights(first, second)


def mean_weights(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of a step for two draws, [tasks] each."""
    return (first + second) / 2


def weighted_loss(
    scores: Sequence[Tensor], labels: Sequence[Tensor], weights: NDArray[np.float64]
) -> Tensor:
    """Add the cross entropies of the tasks by the weights of a step.

    Parameters
    ----------
    scores
        Class scores by task, in the order of `catalog.covid_mtl.HEADS`: float [N, classes] each.
    labels
        int64 [N] each.
    weights
        As `draw_weights` gives them for every step.

    Returns
    -------
    A scalar to be differentiated.
    """
    losses = [functional.cross_entropy(s, t) for s, t in zip(scores, labels, strict=True)]
    return sum_of(losses, weights)


def sum_of(losses: Sequence[Tensor], weights: NDArray[np.float64]) -> Tensor:
    """Add the losses of the tasks, scalars, by their weights."""
    parts = [float(w) * loss for w, loss in zip(weights, losses, strict=True)]
    return torch.stack(parts).sum()


def learning_rate(epoch: int) -> float:
    """The learning rate of an epoch, from 0: half a cosine from `BASE_RATE` to 0.

    Raises
    ------
    InputError
        For an epoch that there is not.
    """
    if not 0 <= epoch < EPOCHS:
        raise InputError(f"epoch {epoch}: give 0 to {EPOCHS - 1}")
    return BASE_RATE / 2 * (math.cos(math.pi * epoch / EPOCHS) + 1)
