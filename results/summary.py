"""`summary.csv`: one row for each study, for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .atomic import whole_file

FIRST = ("name", "input", "status", "flags", "error", "unwritten")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A text that begins so is a formula to a spreadsheet, which may call programs."""


def write_summary(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write the plain values of a report's entries, whole or not at all.

    A mapping of plain values becomes columns ``name.key``, a list of words one text; other lists
    are left out.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    rows = [dict(_cells(entry)) for entry in entries]
    there = dict.fromkeys(column for row in rows for column in row)
    columns = [c for c in FIRST if c in there] + [c for c in there if c not in FIRST]
    with (
        whole_file(path) as partial,
        partial.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, columns or FIRST[:3], restval="")
        writer.writeheader()
        writer.writerows(rows)


def _cells(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in entry.items():
        name = f"{prefix}{key}"
        if isinstance(value, str):
            yield name, _harmless(value)
        elif value is None or isinstance(value, (bool, int, float)):
            yield name, "" if value is None else value
        elif isinstance(value, Mapping) and not prefix:
            yield from _cells(value, f"{name}.")
        elif key == "flags" and isinstance(value, list):
            yield name, _harmless(" ".join(map(str, value)))


def _harmless(text: str) -> str:
    """Text that neither calls programs nor moves a terminal's cursor."""
    formula = text.startswith(_FORMULA)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"'{shown}" if formula else shown
