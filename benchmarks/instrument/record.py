"""What a benchmark writes: one JSON file that holds every sample, in a schema with a version.

Times are seconds from the start of their round, on one monotonic clock. A file can be read again
(`read`), compared (`hilum bench compare`) and drawn (`hilum bench page`).
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hilum.catalog.errors import InputError

SCHEMA = "hilum-bench/1"
"""Of the files; the number grows when a field changes its meaning or goes away."""

Loop = Literal["closed", "open"]
Arrivals = Literal["poisson", "fixed", "replay"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its confidence interval.

    Attributes
    ----------
    low, high
        Bounds of the interval, by bootstrap; None where there are too few samples for one.
    level
        Of the interval.
    """

    value: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class Round:
    """One stretch of load of one lane, after its warm-up. All lists are of equal length.

    Attributes
    ----------
    seconds
        From the first intended start to the last end.
    intended
        When each task should have started: in a closed loop when it did.
    started, finished
        When it did start and end.
    failures
        By number of the task (its place in the lists), why it failed.
    warm_up
        Tasks before the first one of the lists, left out.
    tags
        Of mixed traffic: the system of each task, else empty.
    """

    seconds: float
    intended: tuple[float, ...]
    started: tuple[float, ...]
    finished: tuple[float, ...]
    failures: Mapping[int, str] = field(default_factory=dict)
    warm_up: int = 0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counters:
    """What the server counted for one model while a lane ran.

    Attributes
    ----------
    queue_s, input_s, infer_s, output_s
        Sums over requests, of which several overlap.
    batches
        Executions by batch size.
    """

    inferences: int
    executions: int
    requests: int
    failures: int
    queue_s: float
    input_s: float
    infer_s: float
    output_s: float
    batches: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a lane's results lie from the FP32 reference's on the same inputs.

    Attributes
    ----------
    largest
        Largest difference of a number.
    differing, of
        Decisions (scores, masks, calls) that differ, of how many.
    """

    largest: float
    differing: int
    of: int
    reference: str


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a lane over all of its rounds.

    Attributes
    ----------
    per_second
        Units per second: the median over the rounds.
    latency_s
        By percentile as text, ``"50"`` … ``"99.9"``: only those that the samples support. From the
        intended start, so that a stalled server is seen (in a closed loop: from the start).
    longest_s
        The longest latency.
    """

    samples: int
    failures: Mapping[str, int]
    per_second: Estimate
    latency_s: Mapping[str, Estimate]
    longest_s: float


@dataclass(frozen=True, slots=True)
class Lane:
    """One way of doing the work under one load.

    Attributes
    ----------
    systems
        Of mixed traffic several, with their shares.
    unit, units
        What one task works on ("image", "slice", "study") and how many of it.
    concurrency
        Tasks in flight at once: exactly so in a closed loop, at most in an open one.
    rate
        Intended arrivals per second of an open loop.
    transport
        "grpc", "shm", "http", or "in process".
    sent_bytes, received_bytes
        Tensors of one task, over whichever transport; None where that was not counted.
    counters
        By Triton model; empty where no server is asked.
    blind_to_stalls
        A closed loop sends nothing while the server stalls, so its latencies hide the stall.
    """

    name: str
    systems: Mapping[str, float]
    loop: Loop
    unit: str
    units: int
    concurrency: int
    transport: str
    weights: str
    precision: str
    rounds: tuple[Round, ...]
    summary: Summary
    rate: float | None = None
    arrivals: Arrivals | None = None
    seed: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    counters: Mapping[str, Counters] = field(default_factory=dict)
    deviation: Deviation | None = None
    notes: tuple[str, ...] = ()

    @property
    def blind_to_stalls(self) -> bool:
        """Whether latencies leave out what a stalled server would have kept waiting."""
        return self.loop == "closed"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the figures were measured on.

    Attributes
    ----------
    load_before
        Load average over one minute before the run; None where the system does not report it.
    """

    processor: str
    cores: int
    memory_gib: float
    gpus: tuple[str, ...]
    load_before: float | None
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """One run of a benchmark.

    Attributes
    ----------
    kind
        Which one: "load", "peers", "targets", "capacity", or the name of a system.
    date
        ISO 8601, UTC.
    server
        Name, version and endpoint kind of the Triton, empty without one.
    lanes
        What was measured.
    tables
        What a kind has beyond lanes, by name: rows of values ready for JSON.
    """

    kind: str
    title: str
    command: str
    date: str
    hilum_version: str
    machine: Machine
    server: Mapping[str, Any] = field(default_factory=dict)
    lanes: tuple[Lane, ...] = ()
    tables: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    schema: str = SCHEMA


def new_record(kind: str, title: str, command: str, before: Machine, **fields: Any) -> Record:
    """A record of this version of Hilum and of now; `fields` are the others of `Record`.

    Parameters
    ----------
    before
        The machine as it was before the run.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Record(kind, title, command, date, version("hilum"), before, **fields)


def write(record: Record, path: Path) -> Path:
    """Write a record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(record), indent=1, allow_nan=False) + "\n")
    return path


def read(path: Path) -> Record:
    """Read a record.

    Raises
    ------
    InputError
        For a file that is not one, or of another version; names the field that is wrong.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path.name} is no benchmark's record: {error}") from None
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise InputError(
            f"{path.name} has the schema {found!r}, this version reads {SCHEMA!r}; measure again"
        )
    try:
        return typed(Record, content, "record")
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path.name} is no benchmark's record: {error}") from None


def plain(value: Any) -> Any:
    """What JSON can hold, of a dataclass, a mapping or a list; keys become text."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def typed(kind: Any, value: Any, where: str) -> Any:
    """Turn `value` from JSON into the type `kind`, such as a dataclass of this module.

    Raises
    ------
    TypeError, ValueError
        When it is of another; names the place, which begins with `where`.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (a for a in arguments if a is not type(None))
        return typed(inner, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where} is {value!r}; one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return tuple(typed(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is Mapping:
        key = arguments[0]
        return {key(k): typed(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        unknown = set(value) - set(hints)
        if unknown:
            raise ValueError(f"{where} has unknown fields {sorted(unknown)}")
        return kind(**{k: typed(hints[k], v, f"{where}.{k}") for k, v in value.items()})
    if kind is float and isinstance(value, int):
        return float(value)
    scalar: type = kind
    if not isinstance(value, scalar):
        raise TypeError(f"{where} is {value!r}; wanted {scalar.__name__}")
    return value
