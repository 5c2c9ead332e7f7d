"""What a stage gives: figures, checks, tables, lanes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hilum.benchmarks.instrument.record import Lane

from .setting import Setting

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure.

    Attributes
    ----------
    how
        What was measured, in words.
    seconds
        What one unit of work took, to set beside its floor; None for figures that have none.
    flops, moved_bytes
        Of that work: arithmetic of the networks, and bytes that must be read and written at least.
    precision
        "fp32" or "fp16": which arithmetic.
    host
        The bytes travel between host and GPU, not within the GPU.
    aim
        Name in `aims.AIMS`; empty for a figure without one.
    """

    name: str
    value: float
    unit: str
    how: str = ""
    seconds: float | None = None
    flops: float = 0.0
    moved_bytes: float = 0.0
    precision: str = "fp32"
    host: bool = False
    aim: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold on any hardware, and what was found."""

    name: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Done:
    """What a stage gives; `notes` are for the page."""

    figures: tuple[Figure, ...] = ()
    checks: tuple[Check, ...] = ()
    tables: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    lanes: tuple[Lane, ...] = ()
    notes: tuple[str, ...] = ()


Say = Callable[[str], None]
Run = Callable[[Setting, Say], Done]


def timed(work: Callable[[], Any], times: int) -> list[float]:
    """Seconds of each of some runs, after one that is left out."""
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found
