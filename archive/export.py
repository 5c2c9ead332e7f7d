"""One table of a whole batch, every study with all fields: JSON lines or Parquet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from hilum.catalog.errors import InputError, OutputError
from hilum.results.atomic import whole_file
from hilum.results.folder import RESULT

from .ledger import Ledger, Study
from .store import Store

_ROWS = 10_000

_LEFT_OUT = (
    "schema", "hilum_version", "system", "disclaimer", "weights", "weights_note", "key", "name",
    "seconds", "files",
)  # fmt: skip
"""Fields of a result that all have alike, or that the ledger has."""


def export(ledger: Ledger, store: Store, path: Path) -> int:
    """Write the table; returns its number of rows. Studies that failed are in it, with the reason.

    Raises
    ------
    InputError
        When the ending of the name is neither ``.parquet`` nor ``.jsonl``.
    OutputError
        When it cannot be written.
    """
    if path.suffix == ".jsonl":
        with whole_file(path) as partial, partial.open("w", encoding="utf-8") as lines:
            return _write_lines(ledger, store, lines)
    if path.suffix != ".parquet":
        raise InputError(f"{path.name}: give a name that ends with .parquet or .jsonl")
    with tempfile.TemporaryFile("w+", encoding="utf-8") as lines:
        count = _write_lines(ledger, store, lines)
        with whole_file(path) as partial:
            _write_parquet(lines, partial)
    return count


def _write_lines(ledger: Ledger, store: Store, lines: IO[str]) -> int:
    count = 0
    for study in ledger.studies():
        lines.write(json.dumps(_row(study, store), allow_nan=False) + "\n")
        count += 1
    return count


def _row(study: Study, store: Store) -> dict[str, Any]:
    row: dict[str, Any] = {
        "study": study.name,
        "source": study.source.encode("utf-8", "replace").decode(),
        "state": study.state,
        "error_kind": study.kind,
        "error": study.reason,
        "tries": study.tries,
        "seconds": study.seconds,
        "bytes": study.bytes,
        "result_sha256": study.sha256,
    }
    if study.state == "done":
        try:
            result = json.loads(store.read(study.name, RESULT))
        except (OutputError, ValueError):
            row["error"] = "the result cannot be read; `hilum batch verify`"
        else:
            row |= {k: v for k, v in _flat(result) if k not in row}
    return row


def _flat(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields as columns: those of an object as ``name.field``, objects in lists as JSON text."""
    for key, value in result.items():
        if not prefix and key in _LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and not _plain(value):
            yield f"{prefix}{key}", json.dumps(value)
        else:
            yield f"{prefix}{key}", value


def _plain(values: list[Any]) -> bool:
    """Whether a list is of numbers alone, or of texts alone."""
    return all(isinstance(v, str) for v in values) or all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in values
    )


def _kind(value: Any) -> str:
    """Name of the type of a column with such a value, as pyarrow has it."""
    if isinstance(value, list):
        return "list_" + _kind(value[0]) if value else ""
    if isinstance(value, bool):
        return "bool_"
    if isinstance(value, int):
        return "int64"
    return "float64" if isinstance(value, float) else "" if value is None else "string"


def _columns(lines: IO[str]) -> dict[str, str]:
    """The columns of all rows, and the type that holds every value of each."""
    found: dict[str, str] = {}
    lines.seek(0)
    for line in lines:
        for name, value in json.loads(line).items():
            new, old = _kind(value), found.setdefault(name, "")
            if new and new != old:
                found[name] = _joined(old, new)
    return {name: kind or "string" for name, kind in found.items()}


def _joined(old: str, new: str) -> str:
    if not old:
        return new
    if old.startswith("list_") and new.startswith("list_"):
        return "list_" + _joined(old[5:], new[5:])
    return "float64" if {old, new} == {"int64", "float64"} else "string"


def _write_parquet(lines: IO[str], path: Path) -> None:
    import pyarrow as pa  # pyright: ignore[reportMissingImports] - of an extra
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

    kinds = _columns(lines)

    def arrow(kind: str) -> pa.DataType:
        return pa.list_(arrow(kind[5:])) if kind.startswith("list_") else getattr(pa, kind)()

    schema = pa.schema([(name, arrow(kind)) for name, kind in kinds.items()])
    lines.seek(0)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while chunk := [json.loads(line) for line in islice(lines, _ROWS)]:
            rows = [{n: _fit(row.get(n), k) for n, k in kinds.items()} for row in chunk]
            try:
                writer.write_table(pa.Table.from_pylist(rows, schema))
            except OSError as failure:
                raise OutputError(f"{path.name}: {failure}") from failure


def _fit(value: Any, kind: str) -> Any:
    """A value as its column has it."""
    if value is None or isinstance(value, list):
        return (
            value if not isinstance(value, list) or kind.startswith("list_") else json.dumps(value)
        )
    if kind == "string" and not isinstance(value, str):
        return json.dumps(value)
    return float(value) if kind == "float64" else value
