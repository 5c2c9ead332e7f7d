"""When to try again, and for how long."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

from .options import ConnectionOptions


class Outage:
    """Since when the server has been unavailable, shared by all requests of a client.

    Every request of a batch that meets a dead server would otherwise wait the whole window, one
    after the other. Thread-safe; times are those of `time.monotonic`.
    """

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._since: float | None = None
        self._last = 0.0
        self._answered = False

    @property
    def answered(self) -> bool:
        """Whether the server has ever answered."""
        return self._answered

    @property
    def window_s(self) -> float:
        """Seconds to wait for the server, by whether it has ever answered."""
        options = self._options
        return options.retry_window_s if self._answered else options.connect_window_s

    def seen(self) -> None:
        """Note that there is a server, though this was not the answer that was asked for."""
        self._answered = True

    def failed(self, now: float) -> float:
        """Note that the server was unavailable; return since when it has been."""
        with self._lock:
            # A request long after the last failure belongs to a new outage, not of the old one.
            if self._since is None or now - self._last > max(self.window_s, 1.0):
                self._since = now
            self._last = now
            return self._since

    def over(self) -> bool:
        """Note that the server answered; return whether that ended an outage."""
        with self._lock:
            ended = self._since is not None
            self._since, self._answered = None, True
            return ended


class Deaths:
    """How often a process of a server died while it had one and the same request.

    Such a request is sent again, as the process may have died of anything. When it happens again
    and again, the request itself is the most likely cause, and no further server is to die of it.
    """

    most = 3

    def __init__(self) -> None:
        self.count = 0
        self._same = False

    def died(self) -> bool:
        """Note the answer of a server with a dead process; whether that is enough.

        Answers that follow each other are of one death: until the server is away, or answers.
        """
        self.count += not self._same
        self._same = True
        return self.count >= self.most

    def other(self) -> None:
        """Note another answer, or none: the next death is a new one."""
        self._same = False


def pauses(options: ConnectionOptions) -> Iterator[float]:
    """Pauses between attempts, in seconds: doubling up to the longest, half of each at random."""
    pause = options.backoff_s
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, hides nothing
        pause = min(2 * pause, options.max_backoff_s)
