"""Handlers of Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
import subprocess
import sys

from hilum.server.signals import handled

HOLDING = """
import signal, threading
from hilum.server.signals import call_apart, handled

event = threading.Event()
with handled(lambda *_: call_apart(event.set)):
    with event._cond:
        signal.raise_signal(signal.SIGTERM)
    print(event.wait(10))
"""


def test_an_event_is_set_while_its_lock_is_held() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLDING], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "True\n", done.stderr


def test_what_the_shell_ignores_stays_ignored() -> None:
    heard = list[int]()
    with handled(lambda number, _frame: heard.append(number)):
        signal.raise_signal(signal.SIGHUP)
    assert heard == [signal.SIGHUP]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled(lambda number, _frame: heard.append(number)):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard == [signal.SIGHUP]
