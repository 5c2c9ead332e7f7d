"""The ledger of a batch: every study with its state, in SQLite. Only the driver writes to it.

States of a study: ``pending`` → ``running`` → ``done`` or ``failed``. A driver that starts makes
``running`` studies ``pending`` again. Every end of a try is an event.

The file must lie on a disk of the driver's own machine: SQLite's locks are not reliable on NFS.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hilum.catalog.errors import InputError, OutputError

from .plan import Keys, Plan

STATES = ("pending", "running", "done", "failed")

_CHUNK = 20_000
"""Rows of one transaction of the plan, and of one step over the ledger."""

_LEASE_S = 60.0
"""How long a driver on another machine counts as alive after its last sign of life."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (
  key BLOB PRIMARY KEY, source TEXT NOT NULL, identity TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending', tries INTEGER NOT NULL DEFAULT 0,
  crashes INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL DEFAULT 0,
  kind TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', sha256 TEXT NOT NULL DEFAULT '',
  bytes INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0,
  worker TEXT NOT NULL DEFAULT '', at REAL NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY, key BLOB NOT NULL, state TEXT NOT NULL, kind TEXT NOT NULL,
  at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Study:
    """A row of the ledger.

    Attributes
    ----------
    identity
        What the source looked like when it was planned.
    tries, crashes
        Tries that ended, and those that ended with a dead worker or at the deadline.
    kind, reason
        Why the last try failed; see `archive.outcomes`.
    sha256
        Of the result, as its marker has it.
    """

    key: bytes
    source: str
    identity: str
    state: str
    tries: int
    crashes: int
    next_at: float
    kind: str
    reason: str
    sha256: str
    bytes: int
    seconds: float
    worker: str
    at: float

    @property
    def name(self) -> str:
        """Its name in logs, and of the folder of its result: without identifiers."""
        return self.key.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of a study after a try."""

    key: bytes
    state: str
    tries: int
    crashes: int
    next_at: float = 0.0
    kind: str = ""
    reason: str = ""
    sha256: str = ""
    bytes: int = 0
    seconds: float = 0.0
    worker: str = ""


class Ledger:
    """The ledger in one file.

    Raises
    ------
    InputError
        When there is none, and `create` is not set.
    OutputError
        When it cannot be opened, read or written.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        if not create and not path.is_file():
            raise InputError(f"{path}: there is no ledger; `hilum batch plan` makes one")
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            if create:
                self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as failure:
            raise self._broken(failure) from failure

    def _broken(self, failure: Exception) -> OutputError:
        return OutputError(f"{self.path}: the ledger: {failure}")

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is kept, on the disk, or nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as failure:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(failure, sqlite3.Error):
                raise self._broken(failure) from failure
            raise

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as failure:
            raise self._broken(failure) from failure

    def setting(self, name: str) -> str:
        """A value of the whole batch; empty where it is not set."""
        rows = self._rows("SELECT value FROM setting WHERE name = ?", (name,))
        return rows[0][0] if rows else ""

    def set(self, name: str, value: str) -> None:
        """Keep a value of the whole batch."""
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    @property
    def plan(self) -> Plan:
        """What is done with the studies.

        Raises
        ------
        InputError
            When nothing was planned.
        """
        text = self.setting("plan")
        if not text:
            raise InputError(f"{self.path} has no plan; make it with `hilum batch plan`")
        return Plan.of_json(text)

    def enter(self, plan: Plan, found: Iterable[tuple[str, str]]) -> tuple[int, int]:
        """Enter studies, by source and identity; those that are there already stay.

        Returns
        -------
        tuple of int
            How many are new, and how many were there, or came twice.

        Raises
        ------
        InputError
            When the ledger has another plan.
        """
        there = self.setting("plan")
        if there and there != plan.as_json():
            raise InputError(
                f"{self.path} is the ledger of another plan (system, options, files or version); "
                "give another ledger"
            )
        if not there:
            self.set("plan", plan.as_json())
        keys, new, seen, studies = Keys(plan), 0, 0, iter(found)
        while chunk := list(islice(studies, _CHUNK)):
            rows = sorted((keys.key(*one), *one) for one in chunk)
            with self.change() as db:
                before = db.total_changes
                db.executemany(
                    "INSERT OR IGNORE INTO study (key, source, identity) VALUES (?, ?, ?)", rows
                )
                new += db.total_changes - before
            seen += len(rows)
        return new, seen - new

    def due(self, count: int, after: bytes = b"") -> list[Study]:
        """At most `count` studies that may be tried now, in the order of their keys."""
        rows = self._rows(
            "SELECT * FROM study WHERE key > ? AND state = 'pending' AND next_at <= ? "
            "ORDER BY key LIMIT ?",
            (after, time.time(), count),
        )
        return [Study(*row) for row in rows]

    def studies(self, *states: str) -> Iterator[Study]:
        """All studies in some states, in the order of their keys; every one without any."""
        marks, after = ", ".join("?" * len(states or STATES)), b""
        while True:
            rows = self._rows(
                f"SELECT * FROM study WHERE key > ? AND state IN ({marks}) "  # noqa: S608
                "ORDER BY key LIMIT ?",
                (after, *(states or STATES), _CHUNK),
            )
            yield from (Study(*row) for row in rows)
            if len(rows) < _CHUNK:
                return
            after = rows[-1][0]

    def begin(self, keys: Iterable[bytes]) -> None:
        """Enter that studies run."""
        now = time.time()
        with self.change() as db:
            db.executemany(
                "UPDATE study SET state = 'running', at = ? WHERE key = ?",
                [(now, key) for key in keys],
            )

    def settle(self, changes: Sequence[Change]) -> None:
        """Enter what became of studies, all in one transaction."""
        now = time.time()
        with self.change() as db:
            db.executemany(
                "UPDATE study SET state = ?, tries = ?, crashes = ?, next_at = ?, kind = ?, "
                "reason = ?, sha256 = ?, bytes = ?, seconds = ?, worker = ?, at = ? WHERE key = ?",
                [(c.state, c.tries, c.crashes, c.next_at, c.kind, c.reason, c.sha256, c.bytes,
                  c.seconds, c.worker, now, c.key) for c in changes],
            )  # fmt: skip
            db.executemany(
                "INSERT INTO event (key, state, kind, at) VALUES (?, ?, ?, ?)",
                [(c.key, c.state, c.kind, now) for c in changes],
            )

    def reset(self, states: Sequence[str], kinds: Sequence[str] = ()) -> int:
        """Make studies pending again, as if they had not been tried; returns how many."""
        query = f"state IN ({', '.join('?' * len(states))})"
        if kinds:
            query += f" AND kind IN ({', '.join('?' * len(kinds))})"
        with self.change() as db:
            return db.execute(
                "UPDATE study SET state = 'pending', tries = 0, crashes = 0, next_at = 0, "  # noqa: S608
                f"kind = '', reason = '', sha256 = '' WHERE {query}",
                (*states, *kinds),
            ).rowcount

    def resume(self) -> int:
        """Make what a dead driver had running pending; returns how many studies that are."""
        with self.change() as db:
            return db.execute("UPDATE study SET state = 'pending' WHERE state = 'running'").rowcount

    def counts(self) -> dict[str, int]:
        """How many studies are in each state."""
        rows = self._rows("SELECT state, count(*) FROM study GROUP BY state")
        return dict.fromkeys(STATES, 0) | dict(rows)

    def kinds(self) -> dict[str, int]:
        """How many studies failed, by kind of error."""
        return dict(
            self._rows("SELECT kind, count(*) FROM study WHERE state = 'failed' GROUP BY kind")
        )

    def done_since(self, moment: float) -> int:
        """How many studies were done since `moment`, in seconds since 1970."""
        rows = self._rows(
            "SELECT count(*) FROM event WHERE seq > (SELECT max(seq) FROM event) - 200000 "
            "AND state = 'done' AND at > ?",
            (moment,),
        )
        return rows[0][0]

    def next_due(self) -> float | None:
        """When the next study that waits may be tried; None without one."""
        return self._rows("SELECT min(next_at) FROM study WHERE state = 'pending'")[0][0]

    def close(self) -> None:
        """Close the file."""
        self._db.close()


@contextmanager
def alone(ledger: Ledger) -> Iterator[None]:
    """Be the only driver of a ledger.

    Raises
    ------
    OutputError
        When another one works on it, here or on another machine.
    """
    # A file of its own: to close the ledger's would give up SQLite's locks.
    lock = ledger.path.with_name(f"{ledger.path.name}.lock")
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another driver works on {ledger.path}; wait for it, or stop it"
            ) from None
        host, _, at = ledger.setting("lease").rpartition(" ")
        if host and host != socket.gethostname() and time.time() - float(at) < _LEASE_S:
            raise OutputError(
                f"a driver on {host} worked on {ledger.path} less than {_LEASE_S:.0f} s ago; wait "
                "for it, or stop it"
            )
        renew(ledger)
        yield
        ledger.set("lease", "")
    finally:
        os.close(held)


def renew(ledger: Ledger) -> None:
    """Give a sign of life."""
    ledger.set("lease", f"{socket.gethostname()} {time.time():.0f}")
