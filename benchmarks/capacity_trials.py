"""Trials of a capacity search, and the file that keeps them: what is finished is never lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hilum.catalog.errors import InputError

from .instrument.record import Counters, Round, plain, typed

SCHEMA = "hilum-trials/2"

FILE = "trials.jsonl"

Kind = Literal["alone", "closed", "open"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A trial to be made.

    Attributes
    ----------
    kind
        "alone": one task at a time; "closed": so many at once; "open": so many arrivals a second.
    offered
        Tasks at once, or arrivals per second.
    seconds
        Tasks start so long.
    tasks
        At most.
    """

    kind: Kind
    offered: float
    seconds: float
    seed: int = 0
    tasks: int | None = None

    def __str__(self) -> str:
        if self.kind == "open":
            return f"{self.offered:g}/s for {self.seconds:.0f} s"
        return f"closed loop, {self.offered:g} at once for {self.seconds:.0f} s"


@dataclass(frozen=True, slots=True)
class Served:
    """What answered: as in a lane of a record, and a record's `server`."""

    transport: str
    weights: str
    precision: str
    unit: str
    units: int
    workers: int
    sent_bytes: int | None = None
    received_bytes: int | None = None
    steady: bool = True
    server: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """A run that is finished, with every sample."""

    ask: Ask
    round: Round
    served: Served
    counters: Mapping[str, Counters] = field(default_factory=dict)


class Log:
    """The trials of a folder.

    Parameters
    ----------
    plan
        What must be the same for trials to be of one search; ready for JSON.
    resume
        Go on with what the folder holds.

    Raises
    ------
    InputError
        When the folder holds open loops and is not to be resumed, or trials of another plan.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], *, resume: bool) -> None:
        self.path = folder / FILE
        self.trials: list[Trial] = []
        head = plain({"schema": SCHEMA, "plan": plan})
        lines = _whole_lines(self.path)
        if not resume and not any(map(_is_open, lines)):
            lines = []  # nothing is lost that took long
        if lines and not resume:
            raise InputError(
                f"{self.path} holds trials of an earlier run; go on with --resume, or choose "
                "another folder"
            )
        if lines:
            _check_head(lines[0], json.loads(json.dumps(head)), self.path)
            self.trials = [_trial(x, n, self.path) for n, x in enumerate(lines[1:], 2)]
        folder.mkdir(parents=True, exist_ok=True)
        # Written again, so that half a line of a run that was killed is gone.
        text = "".join(f"{line}\n" for line in lines or [json.dumps(head)])
        self.path.write_text(text, encoding="utf-8")

    def add(self, trial: Trial) -> None:
        """Keep a trial; it is on the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(trial), allow_nan=False) + "\n")
        self.trials.append(trial)


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    return text.split("\n")[:-1]


def _is_open(line: str) -> bool:
    """Whether a line is, or may be, an open loop."""
    try:
        return json.loads(line).get("ask", {}).get("kind") == "open"
    except (ValueError, AttributeError):
        return True


def _check_head(line: str, head: Mapping[str, Any], path: Path) -> None:
    try:
        found = json.loads(line)
        before, now = found["plan"], head["plan"]
        same_schema = found["schema"] == SCHEMA
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no file of trials; choose another folder") from None
    if not same_schema:
        raise InputError(f"{path} is of another version of Hilum; choose another folder")
    other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if other:
        changes = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in other)
        raise InputError(
            f"{path} holds trials of another search ({changes}); give the same options, or choose "
            "another folder"
        )


def _trial(line: str, number: int, path: Path) -> Trial:
    try:
        return typed(Trial, json.loads(line), "trial")
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}, line {number}: no trial ({error})") from None
