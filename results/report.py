"""The report of a run, kept up to date while it goes on, and the result of each study."""

from __future__ import annotations

import json
import threading
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import HilumError, OutputError

from .atomic import make_folder, whole_file
from .canvas import DISCLAIMER
from .provenance import weights_note
from .schema import REPORT, RESULT, Entry, ResultFile
from .summary import write_summary

FAILED = "failed"
"""Status of a study that gave no result."""

_SAVE_EVERY_S = 5.0

_RESULT_HEAD = frozenset(ResultFile.__annotations__) - frozenset(Entry.__annotations__)
"""Fields of `result.json` that the report has once for all studies."""

_COMPRESSION = 1
"""zlib level of arrays: the default takes several times as long for little."""


class Result(Protocol):
    """What a report needs of a system's result."""

    def report(self) -> dict[str, Any]:
        """The result's fields of the report, ready for JSON."""
        ...


@dataclass(slots=True)
class Report:
    """Collects outcomes and writes `report.json` and `summary.csv`. Thread-safe.

    An interrupted run keeps its results: each study's own file is there when it is added.

    Attributes
    ----------
    head
        The report's fields before `results`.
    """

    folder: Path
    head: dict[str, Any]
    total: int
    _entries: dict[int, dict[str, Any]] = field(default_factory=dict)
    _saved: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def begin(
        cls,
        folder: Path,
        *,
        system: str,
        mode: str,
        device: str,
        weights: Sequence[Mapping[str, Any]],
        server: Mapping[str, Any],
        total: int,
    ) -> Report:
        """Start the report of `total` studies in `folder`, which is created."""
        make_folder(folder)
        head = {
            "schema": REPORT,
            "system": system,
            "mode": mode,
            "device": device,
            "hilum_version": version("hilum"),
            "disclaimer": DISCLAIMER,
            "weights": list(weights),
            "weights_note": weights_note(weights),
            "server": dict(server),
        }
        return cls(folder, head, total)

    def add(self, index: int, entry: Mapping[str, Any]) -> None:
        """Enter one study, counted from 0; now and then the report is saved."""
        with self._lock:
            self._entries[index] = dict(entry)
            if time.monotonic() - self._saved > _SAVE_EVERY_S:
                self._saved = time.monotonic()
                with suppress(OutputError):  # said at the end, if it is so still
                    self.save()

    @property
    def failed(self) -> int:
        """How many studies gave no result so far, or not all of their files."""
        with self._lock:
            entries = list(self._entries.values())
        return sum(e["status"] == FAILED or "unwritten" in e for e in entries)

    @property
    def done(self) -> int:
        """How many studies are in it."""
        with self._lock:
            return len(self._entries)

    def as_dict(self) -> dict[str, Any]:
        """The whole report."""
        with self._lock:
            results = [self._entries[i] for i in sorted(self._entries)]
        counts = Counter(e["status"] for e in results)
        counts["missing"] = self.total - len(results)
        summary = {"studies": self.total} | {k: v for k, v in sorted(counts.items()) if v}
        return self.head | {"summary": summary, "results": results}

    def save(self) -> Path:
        """Write `report.json` and `summary.csv`, each whole or not at all.

        Raises
        ------
        OutputError
            When one cannot be written.
        """
        path = self.folder / "report.json"
        with self._lock:
            whole = self.as_dict()
            write_json(path, whole)
            write_summary(self.folder / "summary.csv", whole["results"])
            self._saved = time.monotonic()
        return path

    def result_file(
        self,
        name: str,
        entry: Mapping[str, Any],
        files: Sequence[str],
        key: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """What `result.json` of one study holds: its entry, and whose result it is.

        The path of its input is left out: the folder may be passed on.
        """
        kept = ("hilum_version", "system", "mode", "disclaimer", "weights", "weights_note")
        head = {"schema": RESULT} | {field: self.head[field] for field in kept}
        own = {field: value for field, value in entry.items() if field != "input"}
        return head | {"key": key} | own | {"name": name, "files": list(files)}


def entry_of(
    name: str, source: object, result: Result | None, error: Exception | None, seconds: float
) -> dict[str, Any]:
    """A study's entry in the report, still without files."""
    entry: dict[str, Any] = {"input": label(name, source), "name": name}
    if result is not None:
        entry |= result.report()
    else:
        entry |= {"status": FAILED, "error": reason(error)}
    return entry | {"seconds": round(seconds, 4), "files": []}


def kept_entry(stored: Mapping[str, Any], source: object) -> dict[str, Any]:
    """The entry of a study whose `result.json` an earlier run wrote."""
    name = stored["name"]
    own = {k: v for k, v in stored.items() if k not in _RESULT_HEAD}
    files = [f"{name}/{file}" for file in stored["files"]]
    return {"input": label(name, source)} | own | {"files": files}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def reason(error: BaseException | None) -> str:
    """Why a study failed: Hilum's own words, or the kind and the place of any other error.

    Other libraries quote what they stumble over, which may be text of a header.
    """
    if isinstance(error, HilumError):
        return str(error)
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        kind = f"{kind} ({error.strerror})"
    frames = traceback.walk_tb(error.__traceback__ if error else None)
    modules = [(f.f_globals.get("__name__", ""), line) for f, line in frames]
    ours = [f"{name}, line {line}" for name, line in modules if name.startswith("hilum.")]
    return f"{kind} in {ours[-1]}" if ours else kind


def save_arrays(folder: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write ``<name>.npz``, whole or not at all; returns the file's name."""
    file = f"{name}.npz"
    with (
        whole_file(folder / file) as partial,
        zipfile.ZipFile(
            partial, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION, allowZip64=True
        ) as packed,
    ):
        for key, array in arrays.items():
            with packed.open(f"{key}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
    return file


def label(name: str, source: object) -> str:
    """What a report calls an input: the path as it was given."""
    return str(source) if isinstance(source, (str, Path)) else f"#{int(name)}"
