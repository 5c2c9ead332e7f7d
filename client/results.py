"""The report of a run: `report.json`, kept up to date while the run goes on, and arrays."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.errors import HilumError
from .batch import Outcome
from .pictures.canvas import DISCLAIMER
from .provenance import weights_note
from .whole_file import whole_file

FAILED = "failed"
"""Status of a study that gave no result."""

_SAVE_EVERY_S = 5.0

_COMPRESSION = 1
"""zlib level of arrays: the default takes several times as long for little."""


@dataclass(slots=True)
class Report:
    """Collects outcomes and writes them to `folder`, so that an interrupted run keeps its results.

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
        folder.mkdir(parents=True, exist_ok=True)
        head = {
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

    def add(
        self, outcome: Outcome, files: Sequence[str] = (), unwritten: str | None = None
    ) -> None:
        """Enter one outcome with the names of its files; now and then the report is saved.

        Thread-safe.

        Parameters
        ----------
        unwritten
            Why some of its files could not be written.
        """
        entry: dict[str, Any] = {"input": _label(outcome), "name": outcome.name}
        if outcome.result is not None:
            entry |= outcome.result.report()
        else:
            entry |= {"status": FAILED, "error": reason(outcome.error)}
        if unwritten is not None:
            entry["unwritten"] = unwritten
        entry |= {"seconds": round(outcome.seconds, 4), "files": list(files)}
        with self._lock:
            self._entries[outcome.index] = entry
            if time.monotonic() - self._saved > _SAVE_EVERY_S:
                self.save()

    @property
    def failed(self) -> int:
        """How many studies gave no result so far, or not all of their files."""
        with self._lock:
            entries = list(self._entries.values())
        return sum(e["status"] == FAILED or "unwritten" in e for e in entries)

    def as_dict(self) -> dict[str, Any]:
        """The whole report."""
        with self._lock:
            results = [self._entries[i] for i in sorted(self._entries)]
        counts = Counter(e["status"] for e in results)
        counts["missing"] = self.total - len(results)
        summary = {"studies": self.total} | {k: v for k, v in sorted(counts.items()) if v}
        return self.head | {"summary": summary, "results": results}

    def save(self) -> Path:
        """Write `report.json`, whole or not at all."""
        path = self.folder / "report.json"
        with self._lock:
            text = json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n"
            with whole_file(path) as partial:
                partial.write_text(text)
            self._saved = time.monotonic()
        return path


def reason(error: Exception | None) -> str:
    """Why a study failed: Hilum's own words, or the kind of any other error with its text."""
    return str(error) if isinstance(error, HilumError) else f"{type(error).__name__}: {error}"


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


def _label(outcome: Outcome) -> str:
    source = outcome.source
    return str(source) if isinstance(source, (str, Path)) else f"#{outcome.index + 1}"
