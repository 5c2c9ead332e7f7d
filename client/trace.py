"""What a run did when: spans of its steps, as Chrome trace events.

Whoever does something worth a bar in the picture says so with `span`, which costs next to nothing
while no trace is recorded. A row of the picture is a thread (or an asyncio task) while it works,
and on a GPU the stream of that thread, since a `Device` waits for it. Spans of a row lie within
each other. Studies are named by their number, never by name.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.catalog.errors import OutputError

from .overlap import Interval, Overlap

_PROCESS = 1
"""Number of the one process in the file."""


@dataclass(slots=True)
class _Row:
    """A row in use: its number, and how many spans are open in it."""

    number: int
    depth: int = 0


@dataclass(slots=True)
class Trace:
    """Spans in the order of their ends. Thread-safe.

    Attributes
    ----------
    origin
        Nanoseconds of the clock at time 0 of the trace.
    """

    origin: int = field(default_factory=time.perf_counter_ns)
    _events: list[dict[str, Any]] = field(default_factory=list)
    _rows: dict[object, _Row] = field(default_factory=dict)
    _most: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record what this thread does meanwhile, and the threads that work for it."""
        token = _active.set((self, None))
        try:
            yield
        finally:
            _active.reset(token)

    @contextmanager
    def span(
        self, name: str, study: int | None, about: dict[str, Any], *, whole: bool = False
    ) -> Iterator[None]:
        """Record one span; see the function of this name."""
        kind = "whole" if whole else "wait" if name == "wait" else "work"
        worker = _worker()
        with self._lock:
            row = self._rows.get(worker)
            if row is None:
                row = self._rows[worker] = _Row(self._free_row())
                self._most = max(self._most, row.number)
            row.depth += 1
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            end = time.perf_counter_ns()
            arguments = about if study is None else {"study": study, **about}
            event = {
                "name": name, "cat": kind, "ph": "X", "pid": _PROCESS, "tid": row.number,
                "ts": (start - self.origin) / 1000, "dur": (end - start) / 1000, "args": arguments,
            }  # fmt: skip
            with self._lock:
                self._events.append(event)
                row.depth -= 1
                if not row.depth:
                    del self._rows[worker]

    def overlap(self) -> Overlap:
        """How much was done at the same time, so far."""
        spans = defaultdict[str, list[Interval]](list)
        with self._lock:
            for event in self._events:
                kind = "study" if event["name"] == "study" else event["cat"]
                start = event["ts"] / 1e6
                spans[kind].append((start, start + event["dur"] / 1e6))
        return Overlap.of(spans["study"], spans["wait"], spans["work"])

    def save(self, path: Path) -> None:
        """Write the file, which Perfetto and chrome://tracing open.

        Raises
        ------
        OutputError
            When it cannot be written.
        """
        with self._lock:
            events = sorted(self._events, key=lambda event: event["ts"])
            rows = range(1, self._most + 1)
        names = [_named("process_name", 0, "hilum run")]
        names += [_named("thread_name", row, f"row {row}") for row in rows]
        text = json.dumps({"traceEvents": names + events}) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as failure:
            raise OutputError(
                f"the trace could not be written to {path}: {failure.strerror or failure}; check "
                "the folder, its permissions and its space"
            ) from failure

    def _free_row(self) -> int:
        taken = {row.number for row in self._rows.values()}
        return next(n for n in range(1, len(taken) + 2) if n not in taken)


_active: ContextVar[tuple[Trace, int | None] | None] = ContextVar("hilum_trace", default=None)
_NOTHING = nullcontext()


def span(name: str, *, whole: bool = False, **about: Any) -> AbstractContextManager[None]:
    """Record what is done meanwhile, where a trace is recorded.

    Parameters
    ----------
    name
        ``wait`` is that a request is under way.
    whole
        What is done meanwhile has spans of its own; this one counts for nothing by itself.
    **about
        Numbers and words for whoever looks at the span; nothing that comes from a study.
    """
    active = _active.get()
    return _NOTHING if active is None else active[0].span(name, active[1], about, whole=whole)


@contextmanager
def study(number: int) -> Iterator[None]:
    """Record the span of a study; the spans of all that works for it have its number."""
    active = _active.get()
    if active is None:
        yield
        return
    token = _active.set((active[0], number))
    try:
        with span("study", whole=True):
            yield
    finally:
        _active.reset(token)


def _worker() -> object:
    """Whose spans lie within each other: this asyncio task, or else this thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return task or threading.get_ident()


def _named(what: str, row: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": _PROCESS, "tid": row, "args": {"name": name}}
