"""Loading several deployments in turns, for `hilum bench scale`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .instrument.counters import Watch, added
from .instrument.deployment import Progress
from .instrument.loops import Task, Way, closed_loop, interleave, warmed
from .instrument.record import Counters, Estimate, Round
from .instrument.statistics import throughputs
from .scale_fleet import Fleet
from .scale_model import Point, Setting

LOADS = (1, 2, 4)
"""Tasks in work, by instances of a deployment: 2 and more keep all of them busy."""


def loads(servers: int, instances: int) -> tuple[int, ...]:
    """Tasks in work at which a deployment is measured."""
    return tuple(times * servers * instances for times in LOADS)


@dataclass(frozen=True, slots=True)
class Run:
    """One lane, measured.

    Attributes
    ----------
    counters
        Of all servers of the fleet together.
    """

    fleet: Fleet
    concurrency: int
    rounds: tuple[Round, ...]
    counters: Mapping[str, Counters]

    def point(self) -> Point:
        """For the model: what failed was not done."""
        at = Setting(self.fleet.servers, self.fleet.instances, self.concurrency)
        return Point(at, tuple(throughputs(self.rounds, 1)))


def drive(
    tasks: Sequence[tuple[Fleet, Task]],
    *,
    models: Sequence[str],
    seconds: float,
    rounds: int,
    warm_up_seconds: float,
    progress: Progress,
) -> list[Run]:
    """Measure fleets at several loads in turns.

    Parameters
    ----------
    tasks
        What a task of each fleet is.
    models
        Triton models whose counts are read.
    """
    ways: dict[str, Way] = {}
    lanes: dict[str, tuple[Fleet, int]] = {}
    watches: dict[str, list[Watch]] = {}
    for fleet, task in tasks:
        progress(f"warm-up: {fleet.name}")
        most = loads(fleet.servers, fleet.instances)[-1]
        warmed(task, concurrency=most, most_seconds=warm_up_seconds)
        for c in loads(fleet.servers, fleet.instances):
            name = f"{fleet.name}, closed loop, {c} in work"
            way = _way(task, c, seconds)
            watches[name] = [Watch(client, tuple(models)) for client in fleet.each]
            for watch in watches[name]:
                way = watch.over(name, way)
            ways[name], lanes[name] = way, (fleet, c)
    measured = interleave(ways, rounds, progress)
    found = []
    for name, (fleet, c) in lanes.items():
        counters: dict[str, Counters] = {}
        for watch in watches[name]:
            counters = added(counters, watch.counts_of(name))
        found.append(Run(fleet, c, measured[name], counters))
    return found


def _way(task: Task, concurrency: int, seconds: float) -> Way:
    return lambda number: closed_loop(
        task, concurrency=concurrency, seconds=seconds, first=1000 * number
    )


def per_second(estimate: Estimate, units: int) -> Estimate:
    """Units per second from tasks per second."""
    low, high = (None if x is None else units * x for x in (estimate.low, estimate.high))
    return Estimate(units * estimate.value, low, high, estimate.level)
