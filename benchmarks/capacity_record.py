"""The record of a capacity search: lanes of the best setting, tables of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .capacity_bisection import ascending
from .capacity_rule import LEAD_IN, LEVEL, Bound, borne
from .capacity_search import Rule, State, next_ask, ranked, state
from .capacity_trials import FILE, Setting, Trial
from .instrument.counters import added
from .instrument.record import Counters, Lane
from .instrument.statistics import summarise

Row = dict[str, Any]

Of = Callable[[Setting], Sequence[Trial]]

FOUND = "found"
OUT_OF_REACH = "out of reach"
NO_RATE = "no rate meets the bound"
UNSURE = "no rate surely meets the bound"
NO_END = "no rate misses the bound"
LEFT = "left behind"


def rows(settings: Sequence[Setting], of: Of, rule: Rule) -> tuple[list[Row], list[Row]]:
    """Rows of the tables "capacity" (settings, the best first) and "trials" (rates)."""
    order = [s for s in ranked(settings, of, rule) if of(s)]
    capacity = [_capacity(s, of(s), rule) for s in order]
    return capacity, [row for s in order for row in _rates(s, of(s), rule)]


def lanes(system: str, setting: Setting, trials: Sequence[Trial]) -> list[Lane]:
    """A lane for each load of a setting, with the runs at it as rounds."""
    loads: dict[tuple[bool, float], list[Trial]] = {}
    for trial in trials:
        loads.setdefault((trial.ask.kind == "open", trial.ask.offered), []).append(trial)
    name = system if setting == Setting() else f"{system}, {setting}"
    return [_lane(name, system, own) for _, own in sorted(loads.items())]


def notes(settings: Sequence[Setting], of: Of, rule: Rule) -> list[str]:
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
        f"All samples are in {FILE} beside this file, in the record those of the best setting.",
    ]
    best = ranked(settings, of, rule)[0]
    found += _weak(state(of(best), rule), bound)
    if not all(t.served.steady for s in settings for t in of(s)):
        found.append("In a warm-up latencies were not steady by the rule MSER-5 when it ended.")
    if len(settings) > 1:
        found.append(
            "Settings were measured one after the other, not in turns: differences of less than "
            "what this machine's speed varies by mean nothing."
        )
    return found


def _weak(found: State, bound: Bound) -> Iterator[str]:
    low = found.interval.low
    tasks = found.judged[low].tasks if low in found.judged else 0
    if low and borne(tasks) < bound.percentile:
        yield (
            f"p{bound.percentile:g} needs {bound.needed} samples, the highest rate that meets the "
            f"bound has {tasks}: longer runs (--seconds) would make it sure."
        )
    if not ascending(found.tried):
        yield (
            "Some rate surely met the bound above one that did not: the machine was slower for a "
            "while. No rate counts that lies above one that surely missed; a quieter machine tells "
            "more."
        )


def _capacity(setting: Setting, trials: Sequence[Trial], rule: Rule) -> Row:
    found = state(trials, rule)
    edge, judged = found.interval, found.judged.get(found.interval.low)
    served = trials[0].served
    row: Row = {
        "setting": str(setting),
        "task": f"{served.units} {served.unit}{'s' * (served.units > 1)}",
        "transport": served.transport,
        "outcome": _outcome(found, rule, finished=next_ask(trials, rule) is None),
        "per_second": edge.low or None,
        "misses_from": edge.high,
        "percentile": rule.bound.percentile,
        "bound_s": rule.bound.seconds,
        "latency_s": judged and judged.latency_s,
        "samples": judged and judged.tasks,
        "samples_needed": rule.bound.needed,
        "alone_s": found.alone_s,
        "closed_loop_per_second": found.ceiling,
        "runs": sum(t.runs for t in found.tried),
    }
    if served.units > 1:
        row[f"{served.unit}s_per_second"] = served.units * edge.low or None
    return row


def _outcome(found: State, rule: Rule, *, finished: bool) -> str:
    if found.alone_s > rule.bound.seconds:
        return OUT_OF_REACH
    if not finished:
        return LEFT
    if not found.interval.low:
        return UNSURE if found.interval.doubtful else NO_RATE
    return FOUND if found.interval.high is not None else NO_END


def _rates(setting: Setting, trials: Sequence[Trial], rule: Rule) -> Iterator[Row]:
    found = state(trials, rule)
    runs = {t.rate: t.runs for t in found.tried}
    for rate, judged in sorted(found.judged.items()):
        yield {
            "setting": str(setting),
            "per_second": rate,
            "runs": runs[rate],
            "tasks": judged.tasks,
            "missed": judged.missed,
            "busy_spells": judged.events,
            "missed_share_least": judged.share_low,
            "missed_share_most": judged.share_high,
            "latency_s": judged.latency_s,
            "verdict": judged.verdict,
        }


def _lane(name: str, system: str, trials: Sequence[Trial]) -> Lane:
    served, ask = trials[0].served, trials[0].ask
    opened = ask.kind == "open"
    rounds = tuple(t.round for t in trials)
    load = f"open loop, poisson, {ask.offered:g}/s" if opened else (
        f"closed loop, {ask.offered:g} in work"
    )  # fmt: skip
    return Lane(
        name=f"{name}, {load}",
        systems={system: 1.0},
        loop="open" if opened else "closed",
        unit=served.unit,
        units=served.units,
        concurrency=served.workers if opened else int(ask.offered),
        transport=served.transport,
        weights=served.weights,
        precision=served.precision,
        rounds=rounds,
        summary=summarise(rounds, served.units),
        rate=ask.offered if opened else None,
        arrivals="poisson" if opened else None,
        seed=ask.seed if opened else None,
        sent_bytes=served.sent_bytes,
        received_bytes=served.received_bytes,
        counters=_summed(trials),
    )


def _summed(trials: Sequence[Trial]) -> dict[str, Counters]:
    total: dict[str, Counters] = {}
    for trial in trials:
        total = added(total, trial.counters)
    return total
