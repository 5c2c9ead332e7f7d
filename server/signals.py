"""Ctrl-C, SIGTERM and a closed terminal, and what a handler of them may do."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(
    handler: Callable[[int, FrameType | None], object], numbers: tuple[signal.Signals, ...] = ENDING
) -> Iterator[None]:
    """Have a handler called for these signals while the block runs.

    What the shell ignores, as with `nohup`, stays ignored. Only the main thread can set handlers;
    elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]
    before = {n: signal.signal(n, handler) for n in heard}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


def call_apart(set_event: Callable[[], object]) -> None:
    """Have another thread call what sets an event, from a handler.

    A handler runs in the main thread between two of its instructions. That thread may be holding
    the event's lock, and would wait for itself.
    """
    _thread.start_new_thread(set_event, ())
