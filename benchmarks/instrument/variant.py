"""What is measured: a variant, which becomes a lane of the record when its rounds are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from .counters import Watch
from .loops import Task, Way, closed_loop, interleave
from .record import Arrivals, Counters, Deviation, Lane, Loop, Round
from .statistics import summarise

IN_PROCESS = "in process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way of doing the work under one load; fields that `Lane` has, too, mean the same there.

    Attributes
    ----------
    way
        Measures one round.
    warm_up
        Tasks before the first round, left out.
    watch
        Counts what the server does meanwhile; None where none is asked.
    """

    name: str
    systems: Mapping[str, float]
    way: Way
    weights: str
    unit: str
    units: int = 1
    concurrency: int = 1
    transport: str = IN_PROCESS
    precision: str = "fp32"
    loop: Loop = "closed"
    rate: float | None = None
    arrivals: Arrivals | None = None
    seed: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    deviation: Deviation | None = None
    notes: tuple[str, ...] = ()
    warm_up: int = 0
    watch: Watch | None = field(default=None, compare=False)


_SHARED = tuple({f.name for f in fields(Variant)} & {f.name for f in fields(Lane)})


def measure(
    variants: Sequence[Variant], rounds: int, progress: Callable[[str], None]
) -> tuple[Lane, ...]:
    """Measure variants in turn, `rounds` times; their lanes in the same order."""
    ways = {v.name: v.watch.over(v.name, v.way) if v.watch else v.way for v in variants}
    found = interleave(ways, rounds, progress)
    return tuple(_lane(v, found[v.name]) for v in variants)


def closed(
    task: Task, *, concurrency: int = 1, tasks: int | None = None, seconds: float | None = None
) -> Way:
    """Rounds of a closed loop; each goes on with the inputs where the last one ended.

    Parameters
    ----------
    tasks, seconds
        When a round stops starting tasks, whichever comes first; one of them is needed.
    """
    step = tasks or 1000
    return lambda number: closed_loop(
        task, concurrency=concurrency, tasks=tasks, seconds=seconds, first=number * step
    )


def timed(
    name: str,
    system: str,
    seconds: Sequence[float],
    *,
    weights: str,
    transport: str = IN_PROCESS,
    precision: str = "fp32",
    deviation: Deviation | None = None,
    counters: Mapping[str, Counters] | None = None,
) -> Lane:
    """A lane of rounds with one study each, whose seconds were taken in another process."""
    rounds = tuple(Round(s, (0.0,), (0.0,), (s,)) for s in seconds)
    return Lane(
        name=name, systems={system: 1.0}, loop="closed", unit="study", units=1, concurrency=1,
        transport=transport, weights=weights, precision=precision, rounds=rounds,
        summary=summarise(rounds, 1), deviation=deviation, counters=counters or {},
    )  # fmt: skip


def _lane(variant: Variant, rounds: tuple[Round, ...]) -> Lane:
    first = replace(rounds[0], warm_up=variant.warm_up)
    counters, notes = {}, variant.notes
    if variant.watch is not None:
        counters = variant.watch.counts_of(variant.name)
        if restarts := variant.watch.restarts_of(variant.name):
            notes = (
                *notes,
                f"in {restarts} of {len(rounds)} rounds the server was restarted or did not give "
                "its counts; these rounds are not in the server's counts",
            )
    shared = {name: getattr(variant, name) for name in _SHARED}
    return Lane(
        **{**shared, "notes": notes},
        rounds=(first, *rounds[1:]),
        summary=summarise(rounds, variant.units),
        counters=counters,
    )
