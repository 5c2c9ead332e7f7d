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

With exponential times the throughput of so many tasks in work is exact for this network; with fixed
ones that never meet it lies on the asymptotic bounds. What is measured lies between, at a share of
the way that is fitted, too (variability).

What is shared cannot be told from what is parallel until it is nearly busy. Predictions therefore
come with the range over every shared time that fits the points as well (profile likelihood).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ..catalog.errors import InputError
from .instrument.record import Estimate

PROFILE = 8
"""Shared times that are tried for the interval of a prediction."""

_AS_WELL = 3.84
"""What the sum of squares, in units of its variance, may grow by for a fit to be as good: the 95 %
quantile of chi-square for one term."""

_SURE = 0.01
"""No throughput is known better than to this share, however much its rounds agree."""

_STARTS = ((0.02, 0.02, 0.5, 0.1), (0.3, 0.02, 0.9, 0.5), (0.1, 0.3, 0.1, 0.9))
"""Shared and parallel time, in units of the time of a lone task, variability and contention."""


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
    variability
        0 for fixed times that never meet, 1 for exponential ones.
    """

    compute_s: float
    contention: float
    shared_s: float
    parallel_s: float
    variability: float = 1.0

    def per_second(self, at: Setting) -> float:
        """Tasks per second."""
        compute = self.compute_s * (1 + self.contention * (at.instances - 1))
        instances = at.servers * at.instances
        unit = max(compute / instances, self.shared_s)
        bound = min(at.concurrency / (compute + self.shared_s + self.parallel_s), 1 / unit)
        queued = self._queued(at.concurrency, compute, instances, unit)
        return float(queued**self.variability * bound ** (1 - self.variability))

    def _queued(self, concurrency: int, compute: float, instances: int, unit: float) -> float:
        """With exponential times, by the convolution algorithm (J. P. Buzen, 1973).

        Times are told in a unit, that of the bottleneck, which keeps the numbers near 1.
        """
        tasks = np.arange(1, concurrency + 1)
        terms = (
            np.cumprod(compute / unit / np.minimum(tasks, instances)),
            np.cumprod(np.full(concurrency, self.shared_s / unit)),
            np.cumprod(self.parallel_s / unit / tasks),
        )
        found = np.ones(1)
        for term in terms:
            found = np.convolve(found, np.concatenate([[1.0], term]))[: concurrency + 1]
        return float(found[-2] / found[-1] / unit)

    def most_servers(self, instances: int) -> float:
        """Servers from which on more of them bring next to nothing: what is shared is then busy."""
        compute = self.compute_s * (1 + self.contention * (instances - 1))
        return float("inf") if self.shared_s == 0 else compute / instances / self.shared_s


def fit(points: Sequence[Point], shared_s: float | None = None, near: Model | None = None) -> Model:
    """The model whose throughputs are closest to those of the points, as ratios.

    Parameters
    ----------
    shared_s
        Kept as it is; None: fitted, too.
    near
        Where to begin; None: at several places.

    Raises
    ------
    InputError
        For fewer points than terms, or a point at which nothing was done.
    """
    several = len({p.at.instances for p in points}) > 1
    terms = 5 if several else 4
    if len(points) < terms:
        raise InputError(
            f"{len(points)} points do not settle {terms} terms; measure more servers, instances "
            "or tasks in work"
        )
    measured = np.array([p.median for p in points])
    if measured.min() <= 0:
        raise InputError("nothing was done at one of the points; look at why its tasks failed")
    lone = max(p.at.servers * p.at.instances / p.median for p in points)
    fixed = None if shared_s is None else shared_s / lone

    def model(x: NDArray[np.float64]) -> Model:
        shared = x[1] if fixed is None else fixed
        contention = float(x[4]) if several else 0.0
        times = lone * np.array([np.exp(x[0]), shared, x[2]])
        return Model(float(times[0]), contention, float(times[1]), float(times[2]), float(x[3]))

    def off(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return _off(model(x), points)

    low, high = np.array([-12.0, 0.0, 0.0, 0.0, 0.0]), np.array([4.0, 10.0, 100.0, 1.0, 10.0])
    used = slice(0, terms)
    begin = [(-0.1, *one) for one in _STARTS]
    if near is not None:
        times = np.array([near.shared_s, near.parallel_s]) / lone
        begin = [(np.log(near.compute_s / lone), *times, near.variability, near.contention)]
    starts = (np.clip(one, low + 1e-9, high - 1e-9)[used] for one in begin)
    tried = (least_squares(off, x, bounds=(low[used], high[used]), max_nfev=60) for x in starts)
    return model(min(tried, key=lambda found: found.cost).x)


def _off(model: Model, points: Sequence[Point]) -> NDArray[np.float64]:
    """By how much the model is off at each point, as logarithms of ratios."""
    return np.log([model.per_second(p.at) / p.median for p in points])


def as_good(points: Sequence[Point], best: Model) -> list[Model]:
    """Models with other shared times that fit the points as well as the best one.

    The variance of a point is that of its rounds' median and of what the best model leaves.
    """
    left = float(np.sum(_off(best, points) ** 2))
    rounds = np.array([np.std(np.log(p.per_second)) / len(p.per_second) ** 0.5 for p in points])
    variance = left / len(points) + float(np.mean(rounds**2)) + _SURE**2
    beside = best.shared_s + best.parallel_s + 0.5 * best.compute_s
    tried = (fit(points, float(t), best) for t in np.linspace(0.0, beside, PROFILE))
    return [m for m in tried if float(np.sum(_off(m, points) ** 2)) - left <= _AS_WELL * variance]


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
class Family:
    """The best model of some points, and others that fit them as well (`as_good`)."""

    best: Model
    others: tuple[Model, ...]

    def between(self, at: Setting) -> tuple[float, float]:
        """The lowest and the highest tasks per second that they tell."""
        told = [m.per_second(at) for m in (self.best, *self.others)]
        return min(told), max(told)

    def per_second(self, at: Setting) -> float:
        """The middle of what they tell, as a ratio: none of them is known to be right."""
        low, high = self.between(at)
        return (low * high) ** 0.5


def family(points: Sequence[Point]) -> Family:
    """Fit the models to the points; see `fit` for what it raises."""
    best = fit(points)
    return Family(best, tuple(as_good(points, best)))


@dataclass(frozen=True, slots=True)
class Checked:
    """Models and their test.

    Attributes
    ----------
    tested
        Fitted without the points held out.
    errors
        Its prediction over what was measured, less 1, at the points held out.
    fitted
        To all points, for predictions.
    """

    tested: Family
    errors: dict[Setting, float]
    fitted: Family
    points: tuple[Point, ...]

    @property
    def largest(self) -> float:
        """The largest error at a point held out, as a share."""
        return max(abs(e) for e in self.errors.values())

    @property
    def median(self) -> float:
        """The median of the errors' sizes."""
        return float(np.median([abs(e) for e in self.errors.values()]))

    def predict(self, at: Setting) -> Estimate:
        """Tasks per second at a setting.

        Returns
        -------
        Estimate
            Its interval is the range of all models that fit as well, widened on both sides by the
            largest error at a point held out.
        """
        low, high = self.fitted.between(at)
        wider = 1 + self.largest
        return Estimate(self.fitted.per_second(at), low / wider, high * wider)


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
    tested = family([p for p in points if p.at not in out])
    errors = {p.at: tested.per_second(p.at) / p.median - 1 for p in points if p.at in out}
    return Checked(tested, errors, family(points), tuple(points))
