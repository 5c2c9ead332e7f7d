"""When the tasks of an open loop arrive, and of which system each is."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilum.catalog.errors import InputError

from .loops import Tags, Task

MOST = 1_000_000
"""Arrivals of one round: a slip of the rate or of a file's unit is reported, not carried out."""

_DRAWN = 65_521
"""Systems of mixed traffic that are drawn beforehand; longer rounds begin again."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Arrivals from a file.

    Attributes
    ----------
    seconds
        Ascending, the first at 0.
    systems
        Of each arrival; empty when the file names none.
    """

    seconds: tuple[float, ...]
    systems: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Arrivals per second on average."""
        span = self.seconds[-1]
        return (len(self.seconds) - 1) / span if span > 0 else float(len(self.seconds))


def poisson(rate: float, seconds: float, seed: int) -> tuple[float, ...]:
    """Arrivals of a Poisson process: the gaps are independent and exponential; one at least.

    Parameters
    ----------
    rate
        Arrivals per second.
    seconds
        Length of the process.

    Raises
    ------
    InputError
        For a rate or a length that is not above 0, or for too many arrivals.
    """
    _check(rate, seconds)
    generator = np.random.default_rng(seed)
    count = max(1, int(generator.poisson(rate * seconds)))
    # Given their number, the arrivals of a Poisson process are uniform in time.
    return tuple(float(t) for t in np.sort(generator.uniform(0.0, seconds, count)))


def fixed(rate: float, seconds: float) -> tuple[float, ...]:
    """Arrivals at equal distances, the first at 0.

    Parameters and errors are those of `poisson`.
    """
    _check(rate, seconds)
    return tuple(i / rate for i in range(math.ceil(rate * seconds)))


def replay(path: Path) -> Recorded:
    """Read recorded arrivals.

    A file that ends in ``.csv`` has a header line with the column ``seconds`` and, if wanted,
    ``system``; any other holds one JSON object a line with these keys. Seconds count from any
    beginning and need not ascend; every line names a system, or none does. Other columns and keys
    are left alone.

    Raises
    ------
    InputError
        For a file that cannot be read so; names the line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"arrivals in {path.name} cannot be read: {error}") from None
    rows = _csv_rows(text) if path.suffix.lower() == ".csv" else _json_rows(text, path.name)
    found = sorted(_entry(row, line, path.name) for line, row in rows)
    if not 0 < len(found) <= MOST:
        raise InputError(f"{path.name} has {len(found)} arrivals; it takes 1 to {MOST}")
    named = [system for _, system in found if system]
    if named and len(named) < len(found):
        raise InputError(
            f"{path.name}: {len(found) - len(named)} of {len(found)} lines name no system; name "
            "one on every line, or on none"
        )
    start = found[0][0]
    return Recorded(tuple(t - start for t, _ in found), tuple(named))


def shares(text: str, known: Iterable[str]) -> dict[str, float]:
    """Shares of mixed traffic from ``SYSTEM=SHARE,SYSTEM=SHARE``.

    Raises
    ------
    InputError
        For anything else, a system that does not exist or comes twice, a share not above 0.
    """
    known, found = tuple(known), {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        try:
            share = float(number) if equals else 1.0
        except ValueError:
            share = math.nan
        if name not in known:
            raise InputError(f"mix {text!r}: no system {name!r}; there are {', '.join(known)}")
        if not 0 < share < math.inf or name in found:
            raise InputError(f"mix {text!r}: give each system once, with a share above 0")
        found[name] = share
    return found


def drawn(shares: Mapping[str, float], seed: int) -> Tags:
    """The system of each task of mixed traffic, drawn by shares; the same for the same seed."""
    names = list(shares)
    weights = np.array(list(shares.values()), np.float64)
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(names), size=_DRAWN, p=weights / weights.sum())
    return lambda place: names[chosen[place % _DRAWN]]


def mixed(tasks: Mapping[str, Task], tags: Tags, first: int) -> Task:
    """A task that is the system's whose turn it is.

    Parameters
    ----------
    first
        Number of the round's first task: tags are by place in the round.
    """

    def task(number: int) -> Any:
        return tasks[tags(number - first)](number)

    return task


def _check(rate: float, seconds: float) -> None:
    if not (0 < rate < math.inf and 0 < seconds < math.inf):
        raise InputError(f"{rate:g} arrivals per second for {seconds:g} s: both must be above 0")
    if rate * seconds > MOST:
        raise InputError(f"{rate * seconds:g} arrivals in one round; at most {MOST}")


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    for row in reader:
        yield reader.line_num, row


def _json_rows(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            raise InputError(f"{name}, line {line}: no JSON object ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{name}, line {line}: no JSON object")
        yield line, row


def _entry(row: Mapping[str, Any], line: int, name: str) -> tuple[float, str]:
    try:
        seconds = float(row["seconds"])
    except (KeyError, TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"{name}, line {line}: no number under 'seconds'")
    return seconds, str(row.get("system") or "").strip()
