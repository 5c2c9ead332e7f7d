"""What a result depends on: the content that was read, options, weights, and the program."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.preprocessing.reading.own_results import is_own_result


def content_hash(source: Path | str | bytes | NDArray[Any], without: Path | None = None) -> str:
    """SHA-256 of a study's content, in hexadecimal; names above it do not count.

    A file is its bytes. A folder is the relative path and the bytes of every file below it, but
    for Hilum's own results: a file that is added may change which series is read, so it must
    change the key, too. An array is its element type, shape and values.

    Parameters
    ----------
    without
        A folder that is left out: results are written there meanwhile.

    Raises
    ------
    OSError
        When something cannot be read.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, np.ndarray):
        found = hashlib.sha256(f"{source.dtype.str}{source.shape}".encode())
        found.update(np.ascontiguousarray(source).data)
        return found.hexdigest()
    path = Path(source)
    if path.name == "DICOMDIR":
        path = path.parent
    if not path.is_dir():
        return _file_hash(path)
    found = hashlib.sha256()
    for file in _files_below(path, without):
        found.update(os.fsencode(file.relative_to(path)) + b"\0" + _file_hash(file).encode())
    return found.hexdigest()


def study_key(
    content: str,
    options: Any,
    weights: Sequence[Mapping[str, Any]],
    files: Mapping[str, bool | str],
) -> dict[str, Any]:
    """Everything that a study's result follows from, ready for JSON.

    Parameters
    ----------
    content
        `content_hash` of the study.
    options
        Those of the system; fields that are marked ``changes_result=False`` are left out, and so
        is what the command line fills in (the device).
    weights
        The report's entries.
    files
        Which files were asked for.
    """
    return {
        "content_sha256": content,
        "options": result_options(options),
        "weights": {w["network"]: {k: w[k] for k in ("sha256", "precision")} for w in weights},
        "hilum_version": version("hilum"),
        "files": dict(files),
    }


def fits(key: Mapping[str, Any], stored: object) -> bool:
    """Whether a stored result follows from `key`; never so where the weights are unknown."""
    known = all(weights["sha256"] for weights in key["weights"].values())
    return known and stored == key


def result_options(options: Any) -> dict[str, Any]:
    """The options that a result depends on, by name."""
    return {
        field.name: _plain(getattr(options, field.name))
        for field in dataclasses.fields(options)
        if "from" not in field.metadata and field.metadata.get("changes_result", True)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return {"path": str(value), "sha256": content_hash(value)}
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _files_below(folder: Path, without: Path | None) -> Iterator[Path]:
    """The files below a folder in a fixed order, links followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    if without is not None and without.is_dir():
        left_out = without.stat()
        seen.add((left_out.st_dev, left_out.st_ino))
    for place, below, names in os.walk(folder, followlinks=True):
        state = Path(place).stat()
        if (state.st_dev, state.st_ino) in seen or is_own_result(Path(place)):
            below.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        below.sort()
        files = (Path(place, name) for name in sorted(names))
        yield from (file for file in files if file.is_file() and not is_own_result(file))


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
