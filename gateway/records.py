"""What the ledger holds: its tables, a series, a job."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

OPEN = ("stable", "fetching", "running", "sending", "verifying")
"""States of jobs that are not over."""

STATES = (*OPEN, "done", "failed", "ignored")

SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
  uid TEXT PRIMARY KEY, study TEXT NOT NULL, instances INTEGER NOT NULL, first_seen REAL NOT NULL,
  changed REAL NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
  identity TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS job (
  id TEXT PRIMARY KEY, series TEXT NOT NULL, study TEXT NOT NULL, identity TEXT NOT NULL,
  instances INTEGER NOT NULL, system TEXT NOT NULL, rule TEXT NOT NULL, options TEXT NOT NULL,
  state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0,
  failing_since REAL, next_at REAL NOT NULL DEFAULT 0, kind TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '', replaces TEXT NOT NULL DEFAULT '', created REAL NOT NULL,
  changed REAL NOT NULL, code TEXT NOT NULL DEFAULT '');
DROP INDEX IF EXISTS job_state;
CREATE INDEX IF NOT EXISTS job_order ON job (state, created, id);
CREATE INDEX IF NOT EXISTS job_series ON job (series);
CREATE TABLE IF NOT EXISTS output (
  series TEXT PRIMARY KEY, job TEXT NOT NULL, instances INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS audit (
  time REAL NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, actor TEXT NOT NULL,
  detail TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A series as it was last seen; see the states of the module."""

    uid: str
    study: str
    instances: int
    first_seen: float
    changed: float
    state: str
    reason: str
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One system on one series with exactly these instances.

    Attributes
    ----------
    id
        Hash of series, identity, system and options: the same work is there once.
    identity
        Hash of the sorted SOPInstanceUIDs.
    kind, reason
        Why it failed or waits: ``input``, ``server``, ``pacs``, ``crash`` or ``fault``, and a text.
    code
        The same more closely: `HilumError.code`; empty where an earlier version entered it.
    replaces
        The job whose result is withdrawn, because the series grew.
    """

    id: str
    series: str
    study: str
    identity: str
    instances: int
    system: str
    rule: str
    options: str
    state: str
    attempts: int
    crashes: int
    failing_since: float | None
    next_at: float
    kind: str
    reason: str
    replaces: str
    created: float
    changed: float
    code: str


def hashed(text: str) -> str:
    """What stands for an identifier in logs and audits."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def identity_of(instances: Sequence[str]) -> str:
    """Identity of a series with these SOPInstanceUIDs."""
    return hashlib.sha256("\n".join(sorted(instances)).encode()).hexdigest()
