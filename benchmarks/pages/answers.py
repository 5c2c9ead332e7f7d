"""What a record says, in sentences for a reader who runs a radiology department's computers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..instrument.record import Lane, Record
from .tables import number, plural

GLOSSARY: Mapping[str, str] = {
    "p50, p95, p99": "Half, 95 of 100 and 99 of 100 requests were answered within this time. The "
    "higher ones tell what the unlucky wait; a mean would hide them.",
    "95 % interval": "Where the figure would probably lie if the whole measurement were repeated. "
    "Two figures whose intervals overlap widely are not known to differ.",
    "closed loop": "So many requests are kept in work; the next one is sent when one ends, as in a "
    "batch job. It shows the most a server can do. While the server stalls nothing is sent, "
    "so its latencies look better than what people would see.",
    "open loop": "Requests start at times that were set beforehand, as studies come from scanners, "
    "whether or not the server keeps up. Latency counts from the time at which a request should "
    "have started, so waiting is counted, too.",
    "throughput": "Images, slices or studies done per second; those that failed do not count.",
    "queue": "Time a request waits in the server before its computation begins.",
    "batch": "Requests that the server computes together.",
    "gRPC, shared memory (shm)": "How images reach the server: through the network, or through "
    "memory that both sides see, which only works on one machine.",
    "round": "One stretch of load. Rounds of all lanes are measured in turns, so that a slow spell "
    "of the machine meets all of them alike.",
    "warm-up": "Requests before the measurement, while caches fill; they are left out.",
    "deviation": "How far results lie from those of the network in full (FP32) precision.",
}


def answers(record: Record) -> list[str]:
    """The headline: the most that was done, what patients would wait, what failed."""
    if rows := record.tables.get("capacity"):
        return [*_capacity(rows), *_failures(record)]
    found = [*_most(record), *_waits(record), *_failures(record), *_verdicts(record)]
    return found or ["The tables hold what was measured."]


def _capacity(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The best setting of a capacity search, which is the first."""
    best = rows[0]
    promise = f"{best['percentile']:g} of 100 answered within {_seconds(best['bound_s'])}"
    how = "" if len(rows) == 1 else f"; best of {len(rows)} settings: {best['setting']}"
    if best["outcome"] == "out of reach":
        yield (
            f"The bound is out of reach at any rate: alone, a task ({best['task']}) takes "
            f"{_seconds(best['alone_s'])} (median), and {_seconds(best['bound_s'])} were wanted"
            f"{how}."
        )
        return
    if best["per_second"]:
        hourly = number(3600 * best["per_second"])
        yield (
            f"{number(best['per_second'])} arrivals per second ({hourly} an hour, each of "
            f"{best['task']}) are borne with {promise}{how}."
        )
    else:
        yield f"No rate was found that is surely borne with {promise}{how}."
    if best["misses_from"]:
        yield f"From {number(best['misses_from'])} per second on that no longer holds."
    if best["samples"] is not None and best["samples"] < best["samples_needed"]:
        yield (
            f"The highest rate rests on {best['samples']} arrivals; its percentile needs "
            f"{best['samples_needed']}: measure longer."
        )
    yield (
        f"A batch job does {number(best['closed_loop_per_second'])} per second, because it fills "
        "every gap; arrivals that come when they come leave gaps, and meet each other."
    )


def _most(record: Record) -> Iterator[str]:
    """For each system the lane with the highest throughput."""
    by_system: dict[str, list[Lane]] = {}
    for lane in record.lanes:
        by_system.setdefault(" and ".join(lane.systems), []).append(lane)
    for system, lanes in by_system.items():
        best = max(lanes, key=lambda lane: lane.summary.per_second.value)
        done = best.summary.per_second
        sure = ""
        if done.low is not None and done.high is not None:
            sure = f" (95 % interval {number(done.low)} to {number(done.high)})"
        yield (
            f"The most of {system or 'this work'}: {number(done.value)} {plural(best.unit)} "
            f"per second{sure}, that is {number(3600 * done.value)} an hour, with “{best.name}”."
        )


def _waits(record: Record) -> Iterator[str]:
    for lane in record.lanes:
        times = lane.summary.latency_s
        if lane.loop != "open" or "50" not in times:
            continue
        top = max(times, key=float)
        coming = "arrivals as recorded" if lane.rate is None else f"{number(lane.rate)} per second"
        tail = ""
        if top != "50":
            tail = f", {top} % within {_seconds(times[top].value)}"
        yield (
            f"When requests come on their own ({coming}: “{lane.name}”), half are answered within "
            f"{_seconds(times['50'].value)}{tail}; the slowest took "
            f"{_seconds(lane.summary.longest_s)}."
        )


def _failures(record: Record) -> Iterator[str]:
    failed = [lane for lane in record.lanes if lane.summary.failures]
    for lane in failed:
        why = ", ".join(f"{n} {reason}" for reason, n in lane.summary.failures.items())
        yield (
            f"Some requests of “{lane.name}” failed: {why}, of "
            f"{lane.summary.samples + sum(lane.summary.failures.values())}."
        )
    if record.lanes and not failed:
        yield "No request failed."


def _verdicts(record: Record) -> Iterator[str]:
    """Of tables with a verdict in each row, how many of each."""
    for name, rows in record.tables.items():
        counts = Counter(str(row["verdict"]) for row in rows if row.get("verdict"))
        if counts:
            told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
            yield f"Of the table “{name.replace('_', ' ')}”: {told}."


def _seconds(value: float) -> str:
    return f"{number(value)} s" if value >= 1 else f"{number(1e3 * value)} ms"
