"""How throughput grows with servers: a queueing model, its fit, and how far it may be off.

A closed network with three terms, after the operational laws (Lazowska, Zahorjan, Graham and
Sevcik, *Quantitative System Performance*, 1984, ch. 5–8):

- **compute**: as many instances as all servers have together, one queue in front of them, since
  requests go to the least busy server. Instances of one server share its processor or GPU: each
  one more makes all of them slower by the same share of the time alone (contention, the linear
  term of N. J. Gunther's universal scalability law);
- **shared**: what all tasks go through one after the other: the client's own work, its link, the
  balancer. It is what ends the growth;
- **parallel**: what a task takes beside, without keeping another one waiting.

The throughput of so many tasks in work is exact for this network when times are exponential, and
also for fixed times where one term rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ..catalog.errors import InputError
from .instrument.record import Estimate
from .instrument.statistics import ROUNDS_NEEDED, widening

REPEATS = 60
"""Fits to rounds drawn anew, for the interval of a prediction."""

_STARTS = ((0.02, 0.02, 0.1), (0.3, 0.02, 0.5), (0.02, 0.5, 0.9))
"""Shared and parallel time, in units of the time of a lone task, and contention."""


@dataclass(frozen=True, slots=True)
class Setting:
    """So many servers of so many instances each, and tasks in work at once."""

    servers: int
    instances: int
    concurrency: int

    @property
    def deployment(self) -> tuple[int, int]:
        """Servers and instances of each."""
        return self.servers, self.instances


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at a setting.

    Attributes
    ----------
    per_second
        Tasks per second, one figure for each round.
    """

    at: Setting
    per_second: tuple[float, ...]

    @property
    def median(self) -> float:
        """Over the rounds."""
        return float(np.median(self.per_second))


@dataclass(frozen=True, slots=True)
class Model:
    """The terms of a task, in seconds.

    Attributes
    ----------
    compute_s
        In an instance that is alone on its server.
    contention
        By what share of that a further instance on the same server slows each of them: 0 where
        instances do not meet, 1 where they share one processor that was busy already.
    shared_s, parallel_s
        See the module.
    """

    compute_s: float
    contention: float
    shared_s: float
    parallel_s: float

    def per_second(self, at: Setting) -> float:
        """Tasks per second, by the convolution algorithm (J. P. Buzen, 1973)."""
        compute = self.compute_s * (1 + self.contention * (at.instances - 1))
        instances = at.servers * at.instances
        unit = max(compute / instances, self.shared_s)  # keeps the numbers near 1
        tasks = np.arange(1, at.concurrency + 1)
        terms = (
            np.cumprod(compute / unit / np.minimum(tasks, instances)),
            np.cumprod(np.full(at.concurrency, self.shared_s / unit)),
            np.cumprod(self.parallel_s / unit / tasks),
        )
        found = np.ones(1)
        for term in terms:
            found = np.convolve(found, np.concatenate([[1.0], term]))[: at.concurrency + 1]
        return float(found[-2] / found[-1] / unit)

    def most_servers(self, instances: int) -> float:
        """Servers from which on more of them bring next to nothing: what is shared is then busy."""
        compute = self.compute_s * (1 + self.contention * (instances - 1))
        return float("inf") if self.shared_s == 0 else compute / instances / self.shared_s


def fit(points: Sequence[Point], start: Model | None = None) -> Model:
    """The model whose throughputs are closest to those of the points, as ratios.

    Parameters
    ----------
    start
        Where to begin; None: at several places.

    Raises
    ------
    InputError
        For fewer points than terms, or a point at which nothing was done.
    """
    several = len({p.at.instances for p in points}) > 1
    terms = 4 if several else 3
    if len(points) < terms:
        raise InputError(
            f"{len(points)} points do not settle {terms} terms; measure more servers, instances "
            "or tasks in work"
        )
    measured = np.array([p.median for p in points])
    if measured.min() <= 0:
        raise InputError("nothing was done at one of the points; look at why its tasks failed")
    lone = max(p.at.servers * p.at.instances / p.median for p in points)

    def model(x: NDArray[np.float64]) -> Model:
        compute, shared, parallel = lone * np.exp(x[0]), lone * x[1], lone * x[2]
        return Model(float(compute), float(x[3]) if several else 0.0, float(shared), float(parallel))

    def off(x: NDArray[np.float64]) -> NDArray[np.float64]:
        found = model(x)
        return np.log([found.per_second(p.at) for p in points]) - np.log(measured)

    starts = [(0.0, *one) for one in _STARTS]
    if start is not None:
        relative = (start.shared_s / lone, start.parallel_s / lone, start.contention)
        starts = [(float(np.log(start.compute_s / lone)), *relative)]
    low, high = np.array([-12.0, 0.0, 0.0, 0.0]), np.array([4.0, 10.0, 100.0, 10.0])
    used = slice(0, terms)
    best = min(
        (
            least_squares(
                off, np.clip(one, low + 1e-9, high - 1e-9)[used], bounds=(low[used], high[used])
            )
            for one in starts
        ),
        key=lambda found: found.cost,
    )
    return model(best.x)


def held_out(settings: Sequence[Setting]) -> frozenset[Setting]:
    """The settings to keep from the fit and to test it on.

    The largest number of servers, and of instances, where there are three or more: the question is
    what more of them bring. Of every other deployment but the smallest, its middle load.
    """
    found: set[Setting] = set()
    for count in (lambda s: s.servers, lambda s: s.instances):
        values = sorted({count(s) for s in settings})
        if len(values) >= 3:
            found |= {s for s in settings if count(s) == values[-1]}
    deployments = sorted({s.deployment for s in settings if s not in found})
    for deployment in deployments[1:]:
        own = sorted(
            (s for s in settings if s.deployment == deployment), key=lambda s: s.concurrency
        )
        if len(own) >= 3:
            found.add(own[len(own) // 2])
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Checked:
    """A model and its test.

    Attributes
    ----------
    tested
        Fitted without the points held out.
    errors
        Its prediction over what was measured, less 1, at the points held out.
    model
        Fitted to all points, for predictions.
    """

    tested: Model
    errors: dict[Setting, float]
    model: Model
    points: tuple[Point, ...]

    @property
    def largest(self) -> float:
        """The largest error at a point held out, as a share."""
        return max(abs(e) for e in self.errors.values())

    @property
    def median(self) -> float:
        """The median of the errors' sizes."""
        return float(np.median([abs(e) for e in self.errors.values()]))

    def predict(self, at: Setting, repeats: int = REPEATS, seed: int = 0) -> Estimate:
        """Tasks per second at a setting.

        Returns
        -------
        Estimate
            Its interval is that of fits to rounds drawn anew, widened for few rounds, and on both
            sides by the largest error at a point held out.
        """
        value = self.model.per_second(at)
        rounds = min(len(p.per_second) for p in self.points)
        if rounds < ROUNDS_NEEDED:
            return Estimate(value)
        generator = np.random.default_rng(seed)
        draws = [
            fit([_redrawn(p, generator) for p in self.points], self.model).per_second(at)
            for _ in range(repeats)
        ]
        low, high = np.percentile(np.log(np.array(draws) / value), [2.5, 97.5])
        wider, error = widening(rounds), np.log1p(self.largest)
        return Estimate(
            value,
            value * float(np.exp(wider * min(low, 0.0) - error)),
            value * float(np.exp(wider * max(high, 0.0) + error)),
        )


def check(points: Sequence[Point], out: frozenset[Setting] | None = None) -> Checked:
    """Fit a model, and test it on points that the fit did not see.

    Parameters
    ----------
    out
        The settings held out; None: see `held_out`.

    Raises
    ------
    InputError
        When no point is left to test on, or too few to fit to.
    """
    out = held_out([p.at for p in points]) if out is None else out
    if not any(p.at in out for p in points):
        raise InputError(
            "no point can be held out to test the model on; measure two numbers of servers or of "
            "instances at least"
        )
    tested = fit([p for p in points if p.at not in out])
    errors = {p.at: tested.per_second(p.at) / p.median - 1 for p in points if p.at in out}
    return Checked(tested, errors, fit(points), tuple(points))


def _redrawn(point: Point, generator: np.random.Generator) -> Point:
    drawn = generator.choice(point.per_second, size=len(point.per_second))
    return dataclasses.replace(point, per_second=tuple(float(x) for x in drawn))


