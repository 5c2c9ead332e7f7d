"""Whose turn it is among several servers, and what is done about one that does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from tritonclient.utils import InferenceServerException

from hilum.catalog.errors import ConnectionFailed, HilumError

from . import errors as failures
from .client import Client
from .options import ConnectionOptions
from .retry import Deaths, pauses
from .transport import status_of

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Member:
    """One server of a pool.

    Attributes
    ----------
    in_flight
        Requests of this pool that it has now.
    last
        Number of the last request that it was given; lower is longer ago.
    away
        Why it gets no requests now; None while it does.
    """

    client: Client
    in_flight: int = 0
    last: int = -1
    away: HilumError | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return self.client.options.url


class Servers:
    """The servers of a pool. Thread-safe.

    Attributes
    ----------
    members
        In the order of their addresses.
    closing
        Set once the pool is closed.
    """

    def __init__(self, clients: Sequence[Client], options: ConnectionOptions) -> None:
        self.members = [Member(client) for client in clients]
        self.closing = threading.Event()
        self._options = options
        self._changed = threading.Condition()
        self._turn = count()
        self._answered = False

    @property
    def _window(self) -> float:
        """Seconds that a request waits for a server."""
        options = self._options
        return options.retry_window_s if self._answered else options.connect_window_s

    def away(self) -> dict[str, str]:
        """Why a server gets no requests now, by address."""
        with self._changed:
            return {m.url: str(m.away) for m in self.members if m.away is not None}

    def close(self) -> None:
        """End all requests and close the connections. May be repeated."""
        self.closing.set()
        with self._changed:
            self._changed.notify_all()
        for member in self.members:
            member.client.close()

    def ask(self, question: Callable[[Client], T]) -> T:
        """Ask one server after the other until one answers."""
        waiting = _Waiting()
        while True:
            member = self._take(waiting)
            try:
                answer = question(member.client)
            except HilumError as error:
                if self.closing.is_set() or not _elsewhere(member, error):
                    raise
                self._leave(member, error)
                if waiting.kills(error):
                    deaths, detail = waiting.deaths, str(error)
                    raise failures.kills_parts(member.url, None, deaths, detail) from error
                if waiting.failed(error) > self._window:
                    raise  # all are there, and refuse it again and again
            else:
                self._answered = True
                return answer
            finally:
                with self._changed:
                    member.in_flight -= 1

    def ask_all(self, question: Callable[[Client], T]) -> dict[Member, T]:
        """Ask every server that is not away; those that do not answer are left out."""
        waiting = _Waiting()
        while True:
            found: dict[Member, T] = {}
            for member in [m for m in self.members if m.away is None]:
                try:
                    found[member] = question(member.client)
                except HilumError as error:
                    if self.closing.is_set() or not _elsewhere(member, error):
                        raise
                    self._leave(member, error)
                    waiting.failed(error)
            if found:
                self._answered = True
                return found
            back = self._take(waiting)
            with self._changed:
                back.in_flight -= 1

    def _take(self, waiting: _Waiting) -> Member:
        """The server whose turn it is, as soon as there is one.

        Raises
        ------
        ConnectionFailed
            When none is left and none comes back within the window.
        """
        with self._changed:
            while True:
                if self.closing.is_set():
                    raise failures.client_closed()
                there = [m for m in self.members if m.away is None]
                if there:
                    chosen = min(there, key=lambda m: (m.in_flight, m.last))
                    chosen.in_flight += 1
                    chosen.last = next(self._turn)
                    return chosen
                window = self._window
                left = waiting.since + window - time.monotonic()
                if left <= 0:
                    last = waiting.last or self.members[0].away
                    raise ConnectionFailed(
                        f"none of {', '.join(m.url for m in self.members)} is there, waited for "
                        f"{window:g} s; the last one said: {last}"
                    ) from last
                self._changed.wait(left)

    def _leave(self, member: Member, error: HilumError) -> None:
        """Give a server no requests until it answers again."""
        with self._changed:
            if member.away is not None:
                return
            member.away = error
        threading.Thread(target=self._await, args=(member,), name="hilum-pool", daemon=True).start()

    def _await(self, member: Member) -> None:
        for pause in pauses(self._options):
            if self.closing.wait(pause):
                return
            try:
                back = member.client.ready()
            except ConnectionFailed:
                return  # the pool was closed meanwhile
            if back:
                with self._changed:
                    member.away = None
                    self._changed.notify_all()
                return


class _Waiting:
    """How long a request has been without a server, and why."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.last: HilumError | None = None
        self.deaths = 0

    def kills(self, error: HilumError) -> bool:
        """Note the death of a process that had the request; whether it is likely its cause."""
        cause = error.__cause__
        if isinstance(cause, InferenceServerException):
            self.deaths += failures.is_dead_part(status_of(cause), cause)
        return self.deaths >= Deaths.most

    def failed(self, error: HilumError) -> float:
        """Note a failure; seconds since the first one."""
        now = time.monotonic()
        if self.last is None:
            self.since = now  # until now a server was at work on it
        self.last = error
        return now - self.since


def _elsewhere(member: Member, error: HilumError) -> bool:
    """Whether another server may answer what this one did not.

    Not so where the request itself is at fault, nor where the time for the answer is over: a study
    that takes too long on one server would keep them all busy.
    """
    if isinstance(error, ConnectionFailed):
        return True
    cause = error.__cause__
    if not isinstance(cause, InferenceServerException):
        return False
    status = status_of(cause)
    if status in ("NOT_FOUND", "CANCELLED"):  # a server on its way down has unloaded its models
        return not member.client.ready()
    return failures.is_retried(status, cause)
