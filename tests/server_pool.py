"""Servers that several test files share, one after the other.

A file takes a server and gives it back; the last few that were given back keep running for the next
file that asks. All at once would be hundreds of processes: one for each Python model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hilum.server.launcher import TritonServer

IDLE = 2
"""Servers that keep running while no file uses them."""

_idle: OrderedDict[str, TritonServer] = OrderedDict()


@contextmanager
def borrowed(
    name: str, repository: Path, models: Sequence[str] | None = None
) -> Iterator[TritonServer]:
    """The running server called `name`; started when there is none."""
    server = _idle.pop(name, None)
    if server is None or server.poll() is not None:
        server = TritonServer(repository, models=models, grace=0).start()
    try:
        yield server
    finally:
        _idle[name] = server
        _stop_beyond(IDLE)


def stop_all() -> None:
    """Stop those that nobody uses."""
    _stop_beyond(0)


def _stop_beyond(count: int) -> None:
    while len(_idle) > count:
        _idle.popitem(last=False)[1].stop()
