"""Queues of known behaviour for tests of the capacity search: theory, and a simulated instance."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from records import make_round
from stand_in import lindley

from hilum.benchmarks.capacity_bisection import Limits
from hilum.benchmarks.capacity_rule import Bound
from hilum.benchmarks.capacity_search import Rule
from hilum.benchmarks.capacity_trials import Ask, Served, Trial
from hilum.benchmarks.instrument.arrivals import poisson

SERVED = Served("grpc", "random", "fp32", "image", 1, 64)


def still(_: str) -> None:
    """Nobody waits."""


def wait_within(rate: float, service: float, seconds: float) -> float:
    """P(wait ≤ seconds) of M/D/1 (Erlang; L. Takács, Theory of Queues, 1962)."""
    total = 0.0
    for k in range(int(seconds // service) + 1):
        left = rate * (k * service - seconds)  # at most 0
        total += left**k / math.factorial(k) * math.exp(-left)
    return (1 - rate * service) * total


def m_d_1_capacity(service: float, beside: float, bound: Bound) -> float:
    """The rate at which the percentile of service, wait and what lies beside is the bound."""
    low, high = 0.0, 0.999 / service
    for _ in range(50):
        rate = (low + high) / 2
        within = wait_within(rate, service, bound.seconds - service - beside)
        low, high = (rate, high) if within >= bound.percentile / 100 else (low, rate)
    return low


@dataclasses.dataclass(slots=True)
class Simulated:
    """One instance with a service time that is always the same."""

    service: float
    made: list[Ask] = dataclasses.field(default_factory=list)
    stop_after: int | None = None

    def make(self, ask: Ask) -> Trial:
        if self.stop_after is not None and len(self.made) >= self.stop_after:
            raise KeyboardInterrupt
        self.made.append(ask)
        service, seconds = self.service, ask.seconds
        if ask.kind == "open":
            due = np.array(poisson(ask.offered, seconds, ask.seed))
            ended = due + lindley(due, np.full(len(due), service)) + service
        else:
            number = min(ask.tasks or 10**9, int(seconds / service))
            ended = service * (1 + np.arange(number))
            due = np.maximum(ended - service * ask.offered, 0)
        return Trial(ask, make_round(due, ended), SERVED)


def rule(bound: Bound, **fields: object) -> Rule:
    usual = {"limits": Limits(0.05), "closed_seconds": 2.0, "least_seconds": 4.0}
    return Rule(bound, 64, **{**usual, **fields})  # type: ignore[arg-type]
