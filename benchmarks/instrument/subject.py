"""What the lanes of a load send, and the rounds of it: one system's tasks, or several mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .arrivals import drawn, mixed
from .deployment import Deployment, Progress
from .loops import Tags, Task, Way, closed_loop, open_loop
from .record import Round
from .watched import Moved
from .workloads import Workload, moved

OVERTIME = 2.0
"""When the backlog of an open loop is given up: so many times the length of its arrivals after the
last of them, a minute at least."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a lane's tasks are.

    Attributes
    ----------
    shares, tasks
        By system.
    moved
        By one task; None for mixed traffic.
    """

    name: str
    shares: Mapping[str, float]
    tasks: Mapping[str, Task]
    loads: Sequence[Workload]
    moved: Moved | None = None

    @property
    def unit(self) -> str:
        """What the throughput counts."""
        return self.loads[0].unit if len(self.loads) == 1 else "task"

    @property
    def units(self) -> int:
        """Of one task."""
        return self.loads[0].units if len(self.loads) == 1 else 1

    @property
    def workers(self) -> int:
        """Tasks at once at most in an open loop."""
        return min(load.workers for load in self.loads)

    def turn(self, seed: int, systems: Sequence[str] = ()) -> tuple[Task, Tags | None]:
        """The task of a round, and whose turn it is where there are several systems.

        Parameters
        ----------
        systems
            Of each task, where that is set; else they are drawn by the shares.
        """
        if len(self.tasks) == 1:
            return next(iter(self.tasks.values())), None
        tags: Tags = systems.__getitem__ if systems else drawn(self.shares, seed)
        return mixed(self.tasks, tags, 0), tags


def subjects(
    loads: Sequence[Workload],
    mix: Mapping[str, float],
    there: Deployment,
    progress: Progress,
) -> list[Subject]:
    """Generate the studies; give each system as a subject of its own, or all of them mixed."""
    found: list[Subject] = []
    for load in loads:
        progress(f"generate studies of {load.system}, and count what one moves")
        studies = load.make()
        own = moved(there.client, load, studies[0])
        task = load.task(there.client, studies)
        found.append(Subject(load.system, {load.system: 1.0}, {load.system: task}, [load], own))
    if not mix:
        return found
    name = " + ".join(f"{share:g} {system}" for system, share in mix.items())
    return [Subject(name, mix, {s.name: s.tasks[s.name] for s in found}, loads)]


def closed_way(subject: Subject, concurrency: int, seconds: float, seed: int = 0) -> Way:
    """Rounds of a closed loop; mixed traffic is drawn again in each."""

    def way(number: int) -> Round:
        task, tags = subject.turn(seed + number)
        return closed_loop(task, concurrency=concurrency, seconds=seconds, tags=tags)

    return way


def open_way(
    subject: Subject,
    schedule: Callable[[int], Sequence[float]],
    seed: int = 0,
    systems: Sequence[str] = (),
) -> Way:
    """Rounds of an open loop.

    Parameters
    ----------
    schedule
        Arrivals by the number of the round.
    systems
        Of each arrival of recorded mixed traffic.
    """

    def way(number: int) -> Round:
        task, tags = subject.turn(seed + number, systems)
        times = schedule(number)
        end = times[-1] + max(OVERTIME * times[-1], 60.0)
        return open_loop(task, times, concurrency=subject.workers, tags=tags, give_up_after=end)

    return way
