"""Records for tests: a server with one instance and a known service time, worked out by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from hilum.benchmarks.instrument.record import (
    Counters,
    Deviation,
    Estimate,
    Lane,
    Machine,
    Record,
    Round,
    Summary,
)
from hilum.benchmarks.instrument.statistics import summarise

MACHINE = Machine("Processor <of a test>", 2, 16.0, (), 0.1, {"numpy": "1.26.4"})

NO_SUMMARY = Summary(0, {}, Estimate(0.0), {}, 0.0)
"""Of lanes that are only compared: that works every figure out from the rounds."""


def make_round(intended: np.ndarray, finished: np.ndarray, **fields: object) -> Round:
    start = tuple(map(float, intended))
    end = tuple(map(float, finished))
    return Round(max(end) - min(start), start, start, end, **fields)  # type: ignore[arg-type]


def closed_round(seconds: np.ndarray, concurrency: int = 1) -> Round:
    """Tasks of so many seconds each, one after the other on one instance, `concurrency` waiting."""
    finished = np.cumsum(seconds)
    intended = np.concatenate([np.zeros(concurrency), finished[:-concurrency]])
    return make_round(intended, finished)


def open_round(rate: float, service: np.ndarray, seed: int) -> Round:
    """Poisson arrivals at one instance, which takes them in turn."""
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, len(service)))
    finished, free = [], 0.0
    for arrival, seconds in zip(arrivals, service, strict=True):
        free = max(arrival, free) + seconds
        finished.append(free)
    return make_round(arrivals - arrivals[0], np.array(finished) - arrivals[0])


def make_lane(name: str, rounds: Sequence[Round], **fields: object) -> Lane:
    lane = Lane(
        name=name, systems={"cxr-severity": 1.0}, loop="closed", unit="image", units=1,
        concurrency=1, transport="shm", weights="random", precision="fp32", rounds=tuple(rounds),
        summary=NO_SUMMARY if "summary" in fields else summarise(rounds, 1),
    )  # fmt: skip
    return dataclasses.replace(lane, **fields)  # type: ignore[arg-type]


def make_record(lanes: Sequence[Lane], **fields: object) -> Record:
    record = Record(
        kind="load", title="cxr-severity under load", command="hilum bench load cxr-severity",
        date="2026-11-21T10:00:00+00:00", hilum_version="0.1.0", machine=MACHINE,
        server={"name": "triton", "version": "2.51.0"}, lanes=tuple(lanes),
    )  # fmt: skip
    return dataclasses.replace(record, **fields)  # type: ignore[arg-type]


def service(number: int, seed: int, mean: float = 0.05) -> np.ndarray:
    return mean * np.random.default_rng(seed).lognormal(0, 0.15, number)


def load_record() -> Record:
    """Closed loops with 1, 2 and 4 in flight and open ones at 5, 10 and 15/s."""
    counters = {
        "cxr_lung": Counters(
            600, 450, 600, 0, 6.0, 0.9, 25.0, 0.6, {1: 300, 2: 150}
        )
    }  # fmt: skip
    lanes = [
        make_lane(
            f"cxr-severity, closed loop, {c} in flight",
            [closed_round(service(200, 10 * c + r), c) for r in range(3)],
            concurrency=c, counters=counters, sent_bytes=250_000, received_bytes=66_000,
        )
        for c in (1, 2, 4)
    ]  # fmt: skip
    lanes += [
        make_lane(
            f"cxr-severity, open loop, poisson, {rate}/s",
            [open_round(rate, service(200, 100 * rate + r), r) for r in range(3)],
            concurrency=16, loop="open", rate=float(rate), arrivals="poisson", seed=0,
            deviation=Deviation(2e-6, 0, 32, "FP32"), notes=("half the load <b>",),
        )
        for rate in (5, 10, 15)
    ]  # fmt: skip
    where = tuple(
        {"lane": lane.name, "waiting_s": 0.0, "queue_s": 0.012 * lane.concurrency / 4,
         "copy_s": 0.002, "infer_s": 0.043, "rest_s": 0.006,
         "latency_s": 0.051 + 0.012 * lane.concurrency / 4}
        for lane in lanes
    )  # fmt: skip
    return make_record(lanes, tables={"where": where}, notes=("Inputs <are> generated.",))
