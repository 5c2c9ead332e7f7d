"""The record of a capacity search: lanes and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .capacity_bisection import ascending
from .capacity_rule import LEAD_IN, LEVEL, Bound, supported
from .capacity_search import Rule, State, state
from .capacity_trials import FILE, Trial
from .instrument.counters import added
from .instrument.record import Counters, Lane
from .instrument.statistics import summarise

Row = dict[str, Any]

FOUND = "found"
OUT_OF_REACH = "out of reach"
NO_RATE = "no rate meets the bound"
UNSURE = "no rate surely meets the bound"
NO_END = "no rate misses the bound"


def rows(trials: Sequence[Trial], rule: Rule) -> tuple[Row, list[Row]]:
    """The row of the table "capacity", and those of "trials", one for each rate."""
    return _capacity(trials, rule), list(_rates(trials, rule))


def lanes(system: str, trials: Sequence[Trial]) -> list[Lane]:
    """A lane for each load, with the runs at it as rounds."""
    loads: dict[tuple[bool, float], list[Trial]] = {}
    for trial in trials:
        loads.setdefault((trial.ask.kind == "open", trial.ask.offered), []).append(trial)
    return [_lane(system, own) for _, own in sorted(loads.items())]


def notes(trials: Sequence[Trial], rule: Rule) -> list[str]:
    """How the figures are meant, and what weighs on them."""
    bound, limits = rule.bound, rule.limits
    found = [
        f"A rate meets the bound {bound} when, of all its runs together, the share of tasks that "
        f"were slower or failed is at most {bound.allowed:.3g} with {LEVEL:.0%} confidence; it "
        "misses it when the share is above that with the same confidence, when more than half of "
        f"the tasks miss, or when a backlog was given up; else it is undecided after {limits.runs} "
        "runs. Misses with few tasks between them count as one event.",
        f"Arrivals are Poisson, latency counts from the intended start, and the first "
        f"{LEAD_IN:.0%} of each run is not judged, since its queue begins empty.",
        f"All samples are in {FILE} beside this file, too.",
        *_weak(state(trials, rule), bound),
    ]
    if not all(t.served.steady for t in trials):
        found.append("In the warm-up latencies were not steady by the rule MSER-5 when it ended.")
    return found


def _weak(found: State, bound: Bound) -> Iterator[str]:
    low = found.interval.low
    tasks = found.judged[low].tasks if low in found.judged else 0
    if low and supported(tasks) < bound.percentile:
        yield (
            f"p{bound.percentile:g} needs {bound.needed} samples, the highest rate that meets the "
            f"bound has {tasks}: longer runs (--seconds) would make it sure."
        )
    if not ascending(found.tried):
        yield (
            "Some rate surely met the bound above one that did not: the machine was slower for a "
            "while. No rate counts that lies above one that surely missed; a quieter machine shows "
            "more."
        )


def _capacity(trials: Sequence[Trial], rule: Rule) -> Row:
    found = state(trials, rule)
    edge, judged = found.interval, found.judged.get(found.interval.low)
    served = trials[0].served
    row: Row = {
        "task": f"{served.units} {served.unit}{'s' * (served.units > 1)}",
        "transport": served.transport, "outcome": _outcome(found, rule),
        "per_second": edge.low or None, "misses_from": edge.high,
        "percentile": rule.bound.percentile, "bound_s": rule.bound.seconds,
        "latency_s": judged and judged.latency_s, "samples": judged and judged.tasks,
        "samples_needed": rule.bound.needed, "alone_s": found.alone_s,
        "closed_loop_per_second": found.ceiling, "runs": sum(t.runs for t in found.tried),
    }  # fmt: skip
    if served.units > 1:
        row[f"{served.unit}s_per_second"] = served.units * edge.low or None
    return row


def _outcome(found: State, rule: Rule) -> str:
    if found.alone_s > rule.bound.seconds:
        return OUT_OF_REACH
    if not found.interval.low:
        return UNSURE if found.interval.doubtful else NO_RATE
    return FOUND if found.interval.high is not None else NO_END


def _rates(trials: Sequence[Trial], rule: Rule) -> Iterator[Row]:
    found = state(trials, rule)
    runs = {t.rate: t.runs for t in found.tried}
    for rate, judged in sorted(found.judged.items()):
        yield {
            "per_second": rate, "runs": runs[rate], "tasks": judged.tasks, "missed": judged.missed,
            "busy_spells": judged.events, "missed_share_least": judged.share_low,
            "missed_share_most": judged.share_high, "latency_s": judged.latency_s,
            "verdict": judged.verdict,
        }  # fmt: skip


def _lane(system: str, trials: Sequence[Trial]) -> Lane:
    served, ask = trials[0].served, trials[0].ask
    opened = ask.kind == "open"
    rounds = tuple(t.round for t in trials)
    load = f"open loop, poisson, {ask.offered:g}/s" if opened else (
        f"closed loop, {ask.offered:g} in flight"
    )  # fmt: skip
    return Lane(
        name=f"{system}, {load}", systems={system: 1.0}, loop="open" if opened else "closed",
        unit=served.unit, units=served.units,
        concurrency=served.workers if opened else int(ask.offered), transport=served.transport,
        weights=served.weights, precision=served.precision, rounds=rounds,
        summary=summarise(rounds, served.units), rate=ask.offered if opened else None,
        arrivals="poisson" if opened else None, seed=ask.seed if opened else None,
        sent_bytes=served.sent_bytes, received_bytes=served.received_bytes,
        counters=_summed(trials),
    )  # fmt: skip


def _summed(trials: Sequence[Trial]) -> dict[str, Counters]:
    total: dict[str, Counters] = {}
    for trial in trials:
        total = added(total, trial.counters)
    return total
