"""The driver: a small loop that hands out studies and enters what came of them in the ledger."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hilum.catalog.errors import ConnectionFailed, InputError

from .engine import Engine
from .ledger import Change, Ledger, Study, renew
from .metrics import BatchMetrics
from .outcomes import MOST_CRASHES, MOST_TRIES, Outcome, Task
from .store import Store
from .verify import beside

_LOOK_S = 0.5
_RENEW_S = 15.0
_READ = 2000
"""Rows that are read ahead."""

_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
"""First and longest pause before a study is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a driver works.

    Attributes
    ----------
    deadline_s
        For one study, from when a worker has it.
    limit
        Studies that are handed out, then it ends; None for all.
    patience_s
        How long it waits while no server answers at all.
    """

    out: str
    urls: tuple[str, ...]
    deadline_s: float = 1800.0
    limit: int | None = None
    patience_s: float = 600.0


@dataclass(slots=True)
class Driver:
    """One run over a ledger.

    Attributes
    ----------
    say
        Takes one line for the log, without identifiers.
    stop
        Once it is set, nothing new is handed out, and the run ends with what is under way.
    """

    ledger: Ledger
    store: Store
    engine: Engine
    settings: RunSettings
    say: Callable[[str], None]
    stop: threading.Event
    metrics: BatchMetrics = field(default_factory=BatchMetrics)
    _plan: str = ""
    _weights: str = ""
    _flight: dict[bytes, tuple[Study, Task, float]] = field(default_factory=dict)
    _late: set[bytes] = field(default_factory=set)
    _ahead: deque[Study] = field(default_factory=deque)
    _cursor: bytes = b""
    _away: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    _handed: int = 0
    _slots: int = 0
    _lost_since: float | None = None
    _renewed: float = 0.0
    _looked: float = 0.0

    def run(self) -> None:
        """Work until nothing is left, or until the end is asked for.

        Raises
        ------
        ConnectionFailed
            When no server answers for longer than `patience_s`.
        """
        self._plan = self.ledger.plan.as_json()
        self.ledger.resume()
        self._pin_out()
        self._pin_weights()
        adopted = self._adopt()
        left = self.ledger.counts()["pending"]
        self.ledger.set("began", f"{time.time():.0f}")
        self.say(f"to do {left}, found done {adopted}, slots {self.engine.slots()}")
        while self._step():
            pass

    def _step(self) -> bool:
        """One turn; whether there is more to do."""
        if not self.stop.is_set():
            self._hand_out()
        self.metrics.fly(len(self._flight))
        if not self._flight and (self.stop.is_set() or self._over()):
            self.metrics.count(self.ledger.counts())
            return False
        outcomes = self.engine.wait(_LOOK_S)
        changes = [change for one in outcomes if (change := self._change(one)) is not None]
        if changes:
            self.ledger.settle(changes)
        self._look_after()
        return True

    def _over(self) -> bool:
        """Whether nothing is left that this run may do."""
        limit = self.settings.limit
        if limit is not None and self._handed >= limit:
            return True
        return not self._ahead and self.ledger.next_due() is None

    def _hand_out(self) -> None:
        room = self.engine.slots() - len(self._flight)
        if self.settings.limit is not None:
            room = min(room, self.settings.limit - self._handed)
        chosen: list[Study] = []
        while len(chosen) < room and (study := self._next()) is not None:
            chosen.append(study)
        if not chosen:
            return
        self.ledger.begin(study.key for study in chosen)
        self._handed += len(chosen)
        for study in chosen:
            task = Task(
                study.key, study.source, study.identity, self._plan, self.settings.out,
                self.settings.urls, self._weights, study.tries, self._away.get(study.key, ()),
            )  # fmt: skip
            self._flight[study.key] = (study, task, time.monotonic())
            self.engine.submit(task)

    def _next(self) -> Study | None:
        if not self._ahead:
            if not self._cursor and time.monotonic() - self._looked < _LOOK_S:
                return None  # the whole ledger was looked through a moment ago
            found = self.ledger.due(_READ, self._cursor)
            self._looked = time.monotonic()
            self._cursor = found[-1].key if len(found) == _READ else b""
            self._ahead.extend(study for study in found if study.key not in self._flight)
        return self._ahead.popleft() if self._ahead else None

    def _change(self, outcome: Outcome) -> Change | None:
        """What an outcome makes of its study; None for one that this run does not wait for."""
        if outcome.key not in self._flight:
            return None
        study, _, began = self._flight.pop(outcome.key)
        kind, why = outcome.kind, outcome.reason
        if outcome.key in self._late:
            self._late.discard(outcome.key)
            if kind == "crash":
                kind, why = "deadline", f"it took longer than {self.settings.deadline_s:g} s"
        if kind != "lost":
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = time.monotonic()
        self.metrics.tried(kind, outcome.seconds)
        tries = study.tries + (kind != "lost")
        crashes = study.crashes
        if kind in ("crash", "deadline"):
            crashes += max(1, outcome.crashes) if kind == "crash" else 1
        given_up = crashes >= MOST_CRASHES or tries >= MOST_TRIES.get(kind, 1 << 30)
        state = "done" if not kind else "failed" if given_up else "pending"
        if outcome.node and kind == "server":
            self._away[study.key] = (*self._away.get(study.key, ()), outcome.node)
        if kind:
            self.say(f"{study.name} {state}: {kind}: {why}")
        pause = min(_LONGEST_WAIT_S, _WAIT_S * 2 ** min(study.tries, 10)) if kind else 0.0
        return Change(
            key=study.key, state=state, tries=tries, crashes=crashes, kind=kind, reason=why,
            next_at=time.time() + pause if state == "pending" else 0.0, sha256=outcome.sha256,
            bytes=outcome.bytes, seconds=outcome.seconds or time.monotonic() - began,
            worker=outcome.worker,
        )  # fmt: skip

    def _look_after(self) -> None:
        """Deadlines, the sign of life, and whether any server is left."""
        now = time.monotonic()
        slots = self.engine.slots()
        if slots != self._slots:  # studies may have begun to wait for a place: they begin again
            self._slots = slots
            self._flight = {k: (study, task, now) for k, (study, task, _) in self._flight.items()}
        for key, (_, task, began) in self._flight.items():
            if now - began > self.settings.deadline_s and key not in self._late:
                self._late.add(key)
                self.engine.cancel(task)
        if now - self._renewed > _RENEW_S:
            self._renewed = now
            renew(self.ledger)
            self.metrics.count(self.ledger.counts())
        if not slots and self._lost_since is None:
            self._lost_since = now
        if self._lost_since is not None and now - self._lost_since > self.settings.patience_s:
            raise ConnectionFailed(
                f"nothing was done for {self.settings.patience_s:.0f} s: no server answers, or no "
                "node is there; the same command goes on"
            )

    def _pin_out(self) -> None:
        """A ledger has one place for its results."""
        there = self.ledger.setting("out")
        if there and there != self.settings.out:
            raise InputError(f"{self.ledger.path} has its results elsewhere; give the same --out")
        if not there:
            self.ledger.set("out", self.settings.out)

    def _pin_weights(self) -> None:
        """Ask which weights the servers have; a ledger takes one kind.

        Raises
        ------
        ConnectionFailed, InputError
            When no server answers, or it has others.
        """
        there = self.ledger.setting("weights")
        outcome = self._ask(there)
        if outcome.kind:
            raise ConnectionFailed(outcome.reason)
        if not there:
            self.ledger.set("weights", outcome.weights)
        self._weights = outcome.weights

    def _ask(self, weights: str) -> Outcome:
        """Ask a worker, and again as long as none finds a server, until patience is over."""
        question = Task(b"", "", "", self._plan, self.settings.out, self.settings.urls, weights)
        deadline = time.monotonic() + self.settings.patience_s
        found = Outcome(b"", "lost", "no worker answered; is a node there, with the resource?")
        self.engine.submit(question)
        while time.monotonic() < deadline and not self.stop.is_set():
            for outcome in self.engine.wait(_LOOK_S):
                if outcome.kind not in ("lost", "crash"):
                    return outcome
                if outcome.reason != found.reason:
                    self.say(f"waiting: {outcome.reason}")
                found = outcome
                self.stop.wait(_WAIT_S)
                self.engine.submit(question)
        return found

    def _adopt(self) -> int:
        """Make the ledger agree with the markers; returns how many results are there.

        A worker may have committed after the driver died; a result may have been removed.

        Raises
        ------
        InputError
            When the ledger has results and none is there: the place is not the right one.
        """
        changes: list[Change] = []
        there = 0
        done = self.ledger.counts()["done"]
        for study, committed in beside(self.ledger.studies(), self.store.names()):
            there += committed
            if committed == (study.state == "done"):
                continue
            marker = self.store.marker(study.name) if committed else None
            if marker is not None:
                changes.append(Change(
                    key=study.key, state="done", tries=study.tries + 1, crashes=study.crashes,
                    sha256=marker["sha256"], bytes=marker["bytes"], worker="an earlier run's",
                ))  # fmt: skip
            elif study.state == "done":
                changes.append(Change(key=study.key, state="pending", tries=0, crashes=0))
        if done and not there:
            raise InputError(
                f"none of {done} results is where they were written; is --out the same, and there?"
            )
        for start in range(0, len(changes), _READ):
            self.ledger.settle(changes[start : start + _READ])
        return there
