"""Where results go: each study's folder is committed once, by its marker, and never changed.

A marker is ``commit.json``: the study's key, what the result follows from, and the checksum of
each file. In a folder it appears by one rename together with the result; in a bucket it is the last
object, written only if there is none. So a study that was computed twice is there once, and a
worker that was believed dead does no harm.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from hilum.catalog.errors import OutputError
from hilum.results.atomic import make_folder, sync, sync_tree, unwritten
from hilum.results.folder import RESULT

MARKER = "commit.json"

_NOT_SAME = ("seconds", "name")
"""Fields of a result that differ from run to run."""


class Store(Protocol):
    """A place for results, by the names of studies."""

    def workspace(self, name: str) -> Any:
        """A context with a folder in which the result is written before it is committed."""
        ...

    def commit(self, name: str, folder: Path, marker: Mapping[str, Any]) -> dict[str, Any]:
        """Publish a folder; returns the marker that is there: an earlier one stays."""
        ...

    def marker(self, name: str) -> dict[str, Any] | None:
        """The marker of a study; None without a result."""
        ...

    def names(self) -> Iterator[str]:
        """Every study that has a marker, in the order of the names."""
        ...

    def read(self, name: str, file: str) -> bytes:
        """A file of a result.

        Raises
        ------
        OutputError
            When it is not there.
        """
        ...


def marker_of(name: str, folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """The marker of a result that lies in a folder."""
    files = {
        str(path.relative_to(folder)): _sha256(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    size = sum((folder / file).stat().st_size for file in files)
    return {
        "study": name,
        "follows_from": _sha256(json.dumps(result["key"], sort_keys=True).encode()),
        "sha256": result_hash(result, files),
        "bytes": size,
        "files": files,
    }


def result_hash(result: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """SHA-256 of what a result says and of its files, without what differs from run to run."""
    fields = {key: value for key, value in result.items() if key not in _NOT_SAME}
    others = {name: sha for name, sha in files.items() if name not in (RESULT, MARKER)}
    return _sha256(json.dumps([fields, others], sort_keys=True).encode())


def agree(name: str, there: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """An earlier marker, which must follow from the same.

    Raises
    ------
    OutputError
        When it does not.
    """
    if there.get("follows_from") != ours["follows_from"]:
        raise OutputError(
            f"{name} has a result of another content or other weights there; give another --out"
        )
    return dict(there)


class FolderStore:
    """Results in a folder: ``ab/abcd…/`` for each study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _place(self, name: str) -> Path:
        return self.folder / name[:2] / name

    @contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        """A folder beside the result's own."""
        shard = self._place(name).parent
        partial = shard / f".{name}.{uuid4().hex[:8]}.part"
        try:
            make_folder(partial)
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def commit(self, name: str, folder: Path, marker: Mapping[str, Any]) -> dict[str, Any]:
        """Publish by one rename, which fails when a result is there."""
        place = self._place(name)
        try:
            (folder / MARKER).write_text(json.dumps(marker, indent=1, sort_keys=True) + "\n")
            sync_tree(folder)
            try:
                folder.rename(place)
            except OSError as failure:
                there = self.marker(name)
                if failure.errno not in (errno.ENOTEMPTY, errno.EEXIST) or there is None:
                    raise
                return agree(name, there, marker)
            sync(place.parent)
        except OSError as failure:
            raise unwritten(place, failure) from failure
        return dict(marker)

    def marker(self, name: str) -> dict[str, Any] | None:
        """The marker in the study's folder."""
        try:
            found = json.loads((self._place(name) / MARKER).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def names(self) -> Iterator[str]:
        """The folders that have their name, and so a marker."""
        if not self.folder.is_dir():
            return
        for shard in sorted(os.scandir(self.folder), key=lambda entry: entry.name):
            if len(shard.name) == 2 and shard.is_dir():
                inner = (entry.name for entry in os.scandir(shard))
                yield from sorted(name for name in inner if not name.startswith("."))

    def read(self, name: str, file: str) -> bytes:
        """A file in the study's folder."""
        try:
            return (self._place(name) / file).read_bytes()
        except OSError as failure:
            raise OutputError(f"{file} of {name}: {failure.strerror}") from failure


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what is fetched or sent; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hilum-batch-") as folder:
        yield Path(folder)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
