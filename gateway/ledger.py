"""The ledger: every series that was seen and every job, in SQLite, with an audit of each change.

One process works on a ledger (it holds a lock beside it); others may read it and ask for things
(`hilum gateway status`, `retry`, `forget`, `drain`). Every change of state and its row of the audit
are one transaction that is on the disk when the call returns (WAL, ``synchronous=FULL``).

States of a series: ``seen`` → ``taken`` (it has jobs) or ``ignored``. States of a job:
``stable`` → ``fetching`` → ``running`` → ``sending`` → ``verifying`` → ``done``, or ``failed``, or
``ignored`` (the series grew before the job began to send).
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hilum.catalog.errors import InputError, OutputError

from .records import OPEN, SCHEMA, STATES, Job, Series, hashed


class Ledger:
    """The ledger in one file. Thread-safe.

    Raises
    ------
    OutputError
        When the file cannot be made, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600, exist_ok=True)
            path.chmod(0o600)  # SQLite gives its other files the same
            self._db = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(SCHEMA)
            if not any(row["name"] == "code" for row in self._db.execute("PRAGMA table_info(job)")):
                self._db.execute("ALTER TABLE job ADD COLUMN code TEXT NOT NULL DEFAULT ''")
        except (OSError, sqlite3.Error) as failure:
            raise OutputError(f"{path}: the ledger cannot be opened: {failure}") from failure

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is kept, or nothing; one within another belongs to it."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as failure:
                self._undo()
                raise OutputError(f"{self.path}: the ledger: {failure}") from failure
            except BaseException:
                self._undo()
                raise

    def see(self, uid: str, study: str, instances: int, *, again: bool = False) -> bool:
        """Enter that a series has so many instances; whether it is to be judged."""
        now = time.time()
        with self.change() as db:
            there = db.execute("SELECT instances FROM series WHERE uid = ?", (uid,)).fetchone()
            if there is not None and there["instances"] == instances and not again:
                return False
            db.execute(
                "INSERT INTO series (uid, study, instances, first_seen, changed, state) "
                "VALUES (?, ?, ?, ?, ?, 'seen') ON CONFLICT (uid) DO UPDATE SET "
                "instances = excluded.instances, changed = excluded.changed, state = 'seen', "
                "reason = '', "
                # A series that grows after it was judged waits as long as a new one.
                "first_seen = CASE state WHEN 'seen' THEN first_seen ELSE excluded.first_seen END",
                (uid, study, instances, now, now),
            )
            _audit(db, hashed(uid), "seen", f"{instances} instances")
        return True

    def waiting(self) -> list[Series]:
        """The series that are seen and not judged yet."""
        return [Series(**row) for row in self._rows("SELECT * FROM series WHERE state = 'seen'")]

    def delay(self, uid: str, reason: str) -> None:
        """Note why a series cannot be judged yet."""
        with self.change() as db:
            db.execute("UPDATE series SET reason = ? WHERE uid = ?", (reason, uid))

    def reasons(self) -> list[dict[str, Any]]:
        """Why series are left alone or cannot be judged yet, and how many for each reason."""
        rows = self._rows(
            "SELECT state, reason, count(*) AS series FROM series WHERE reason != '' "
            "GROUP BY state, reason ORDER BY series DESC, reason"
        )
        return [dict(row) for row in rows]

    def series(self, uid: str) -> Series | None:
        """A series by its UID."""
        rows = self._rows("SELECT * FROM series WHERE uid = ?", (uid,))
        return Series(**rows[0]) if rows else None

    def ignore(self, series: Series, identity: str, reason: str) -> None:
        """Leave a series alone, as long as it does not change."""
        with self.change() as db:
            _settle(db, series, identity, "ignored", reason)
            if identity:
                _leave_others(db, series, identity)

    def take(
        self, series: Series, identity: str, work: Sequence[tuple[str, str, Mapping[str, Any]]]
    ) -> list[str]:
        """Make the jobs of a series that is complete; those that are there already stay.

        Parameters
        ----------
        work
            Name of the rule, of the system, and its options.

        Returns
        -------
        list of str
            Identifiers of the jobs that are new.
        """
        now, made = time.time(), []
        with self.change() as db:
            _settle(db, series, identity, "taken", "")
            for rule, system, options in work:
                text = json.dumps(options, sort_keys=True)
                key = hashed("\n".join((series.uid, identity, system, text)))
                earlier = db.execute(
                    "SELECT id FROM job WHERE series = ? AND identity != ? AND system = ? "
                    "AND state != 'ignored' ORDER BY options = ? DESC, created DESC LIMIT 1",
                    (series.uid, identity, system, text),
                ).fetchone()
                replaces = earlier["id"] if earlier else ""
                added = db.execute(
                    "INSERT INTO job (id, series, study, identity, instances, system, rule, "
                    "options, state, replaces, created, changed) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'stable', ?, ?, ?) "
                    # A series that grew and is again as it was: what was left is taken up.
                    "ON CONFLICT (id) DO UPDATE SET state = 'stable', "
                    "replaces = excluded.replaces, attempts = 0, crashes = 0, "
                    "failing_since = NULL, next_at = 0, kind = '', code = '', reason = '', "
                    "created = excluded.created, changed = excluded.changed "
                    "WHERE state = 'ignored'",
                    (key, series.uid, series.study, identity, series.instances, system, rule, text,
                     replaces, now, now),
                )  # fmt: skip
                if added.rowcount:
                    made.append(key)
                    _audit(db, key, "stable", f"{system} by rule {rule!r} on {hashed(series.uid)}")
            _leave_others(db, series, identity)
        return made

    def claim(self, states: Sequence[str], taken: Collection[str]) -> Job | None:
        """The oldest job in one of `states` that is due and not in `taken`."""
        found: list[Job] = []
        for state in states:  # one by one, so that the index has their order
            rows = self._rows(
                "SELECT * FROM job WHERE state = ? AND next_at <= ? ORDER BY created, id LIMIT ?",
                (state, time.time(), len(taken) + 1),
            )
            found += [Job(**row) for row in rows if row["id"] not in taken][:1]
        return min(found, key=lambda job: (job.created, job.id), default=None)

    def job(self, key: str) -> Job:
        """A job by its identifier, or by the beginning of one.

        Raises
        ------
        InputError
            When none or several begin so.
        """
        rows = self._rows("SELECT * FROM job WHERE substr(id, 1, ?) = ?", (len(key), key))
        if len(rows) != 1:
            raise InputError(f"{'no job begins' if not rows else 'several jobs begin'} with {key}")
        return Job(**rows[0])

    def earlier(self, job: Job) -> list[Job]:
        """The jobs on the same series when it was smaller, down to the last one that is done.

        That one has withdrawn what was before it; of the others nobody knows what was sent.
        """
        found: dict[str, Job] = {}
        key = job.replaces
        while key and key != job.id and key not in found:
            rows = self._rows("SELECT * FROM job WHERE id = ?", (key,))
            if not rows:
                break  # forgotten
            found[key] = Job(**rows[0])
            key = "" if found[key].state == "done" else found[key].replaces
        return list(found.values())

    def jobs(self, *states: str) -> list[Job]:
        """The jobs in some states, the oldest first; all without any."""
        marks = ", ".join("?" * len(states or STATES))
        rows = self._rows(
            f"SELECT * FROM job WHERE state IN ({marks}) ORDER BY created, id",  # noqa: S608
            states or STATES,
        )
        return [Job(**row) for row in rows]

    def move(self, key: str, state: str, **columns: Any) -> bool:
        """Change the state of a job, and with it further columns.

        Returns
        -------
        bool
            Whether that was done: a job whose series grew meanwhile stays ignored.
        """
        with self.change() as db:
            return _move(db, key, state, **columns)

    def sending(self, key: str, outputs: Mapping[str, int], *, crashes: int = 0) -> bool:
        """Enter what a job is about to send, before anything is: instances by series.

        Returns
        -------
        bool
            Whether the job still runs; nothing is entered when its series grew meanwhile.
        """
        with self.change() as db:
            row = db.execute("SELECT state FROM job WHERE id = ?", (key,)).fetchone()
            if row is None or row["state"] != "running":
                return False
            db.executemany(
                "INSERT OR REPLACE INTO output VALUES (?, ?, ?)",
                [(uid, key, count) for uid, count in outputs.items()],
            )
            _move(
                db, key, "sending", attempts=0, crashes=crashes, failing_since=None, kind="",
                code="", reason="",
            )  # fmt: skip
        return True

    def outputs(self, key: str) -> dict[str, int]:
        """The series that a job sends, with the number of their instances."""
        rows = self._rows("SELECT series, instances FROM output WHERE job = ?", (key,))
        return {row["series"]: row["instances"] for row in rows}

    def is_output(self, series: str) -> bool:
        """Whether a series is a result of a job."""
        return bool(self._rows("SELECT 1 FROM output WHERE series = ?", (series,)))

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state, and how many series wait or are ignored."""
        found: dict[str, int] = dict.fromkeys(STATES, 0)
        for row in self._rows("SELECT state, count(*) AS n FROM job GROUP BY state"):
            found[row["state"]] = row["n"]
        for row in self._rows("SELECT state, count(*) AS n FROM series GROUP BY state"):
            found[f"series_{row['state']}"] = row["n"]
        return found

    def count(self, state: str) -> int:
        """How many jobs are in a state."""
        rows = self._rows("SELECT count(*) AS n FROM job WHERE state = ?", (state,))
        return rows[0]["n"]

    def oldest(self) -> float | None:
        """When the oldest job that is not over was made, in seconds since 1970."""
        marks = ", ".join("?" * len(OPEN))
        rows = self._rows(
            f"SELECT min(created) AS t FROM job WHERE state IN ({marks})",  # noqa: S608
            OPEN,
        )
        return rows[0]["t"]

    def forget(self, key: str) -> None:
        """Remove a job that is over; its series is judged again when it is seen to change."""
        with self.change() as db:
            db.execute(
                "UPDATE job SET replaces = (SELECT replaces FROM job WHERE id = ?) "
                "WHERE replaces = ? AND NOT EXISTS (SELECT 1 FROM output WHERE job = ?)",
                (key, key, key),
            )
            db.execute("DELETE FROM job WHERE id = ?", (key,))
            _audit(db, key, "forgotten", "")

    def setting(self, name: str, default: str = "") -> str:
        """A value that outlives the process."""
        rows = self._rows("SELECT value FROM setting WHERE name = ?", (name,))
        return rows[0]["value"] if rows else default

    def set(self, name: str, value: str) -> None:
        """Keep a value."""
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def audit(self) -> list[dict[str, Any]]:
        """All rows of the audit, the oldest first."""
        return [dict(row) for row in self._rows("SELECT * FROM audit ORDER BY rowid")]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as failure:
                raise OutputError(f"{self.path}: the ledger: {failure}") from failure

    def _undo(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _settle(db: sqlite3.Connection, series: Series, identity: str, state: str, reason: str) -> None:
    """Judge a series, unless it changed meanwhile: then it is judged when it is complete again."""
    changed = db.execute(
        "UPDATE series SET state = ?, reason = ?, identity = ? WHERE uid = ? AND instances = ?",
        (state, reason, identity, series.uid, series.instances),
    )
    if changed.rowcount:
        _audit(db, hashed(series.uid), state, reason)


def _leave_others(db: sqlite3.Connection, series: Series, identity: str) -> None:
    """Leave alone the jobs on other instances of a series that have not begun to send."""
    rows = db.execute(
        "SELECT id FROM job WHERE series = ? AND identity != ? "
        "AND state IN ('stable', 'fetching', 'running', 'failed')",
        (series.uid, identity),
    ).fetchall()
    for row in rows:
        _move(db, row["id"], "ignored", kind="", code="", reason="the series grew")


def _move(db: sqlite3.Connection, key: str, state: str, **columns: Any) -> bool:
    values = {"state": state, "changed": time.time(), **columns}
    names = ", ".join(f"{name} = ?" for name in values)
    changed = db.execute(
        f"UPDATE job SET {names} WHERE id = ? AND state != 'ignored'",  # noqa: S608 - own names
        (*values.values(), key),
    )
    if changed.rowcount:
        _audit(db, key, state, str(columns.get("reason", "")))
    return bool(changed.rowcount)


def _audit(db: sqlite3.Connection, subject: str, state: str, detail: str) -> None:
    """Add a row; the subject is a job, or the hash of a series."""
    db.execute(
        "INSERT INTO audit VALUES (?, ?, ?, 'gateway', ?)", (time.time(), subject, state, detail)
    )
