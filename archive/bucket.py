"""Studies in a bucket, and results in one: S3, and what else fsspec knows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from hilum.catalog.errors import HilumError, InputError, OutputError
from hilum.catalog.extras import require
from hilum.preprocessing.reading.images import SUFFIXES as PICTURES
from hilum.preprocessing.reading.nifti import SUFFIXES as NIFTI

from .outcomes import SourceError
from .plan import Plan
from .store import agree, scratch

_MARKERS = "commit"


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Secrets come from the environment."""
    require("buckets", "fsspec")
    if url.startswith("s3://"):
        require("s3://", "s3fs")
    import fsspec

    try:
        system, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as failure:
        raise InputError(f"{url.partition('://')[0]}://: {failure}") from failure
    return system, path.rstrip("/")


@contextmanager
def _errors(doing: str, kind: type[HilumError]) -> Iterator[None]:
    """Turn what a file system raises into one of our errors, without names of objects."""
    try:
        yield
    except HilumError:
        raise
    except PermissionError:
        raise kind(f"{doing}: the bucket denies it") from None
    except FileNotFoundError:
        raise kind(f"{doing}: it is not there") from None
    except Exception as failure:  # noqa: BLE001 - every backend has errors of its own
        raise kind(f"{doing}: {type(failure).__name__}") from None


def find(url: str, plan: Plan) -> Iterator[tuple[str, str]]:
    """The studies below an address: each picture, or each folder with files and each NIfTI file.

    What is recognised by is the ETag of the listing; nothing is read.
    """
    system, path = filesystem(url)
    scheme = url.partition("://")[0]
    folders = getattr(plan.found_system(), "whole_folders", True)
    with _errors(url, SourceError):
        if not any(True for _ in system.ls(path, detail=False)):
            raise SourceError(f"{url}: there is nothing")
        for place, _, files in system.walk(path, detail=True):
            objects = [f for f in files.values() if f["type"] == "file"]
            alone = NIFTI if folders else tuple(PICTURES)
            single = [f for f in objects if f["name"].lower().endswith(alone)]
            for one in single:
                yield f"{scheme}://{one['name']}", _identity([one])
            rest = [f for f in objects if f not in single]
            if folders and rest:
                yield f"{scheme}://{place.rstrip('/')}/", _identity(rest)


def fetch(url: str, planned: str, folder: Path) -> Path:
    """Copy a study to a folder.

    Raises
    ------
    InputError
        When it changed after it was planned, or is not there any more.
    SourceError
        When the bucket does not give it.
    """
    system, path = filesystem(url)
    with _errors("fetching the study", SourceError):
        single = not url.endswith("/")
        try:
            objects = [system.info(path)] if single else system.ls(path, detail=True)
        except FileNotFoundError:
            raise InputError("there is no such object") from None
        objects = [one for one in objects if one["type"] == "file"]
        if not single:
            objects = [f for f in objects if not f["name"].lower().endswith(NIFTI)]
        if _identity(objects) != planned:
            raise InputError("the study changed after it was planned; plan it again")
        names = [one["name"] for one in objects]
        contents = system.cat(names) if len(names) > 1 else {names[0]: system.cat_file(names[0])}
        for name, data in contents.items():
            (folder / Path(name).name).write_bytes(data)
    return folder / Path(path).name if single else folder


def _identity(objects: list[dict[str, Any]]) -> str:
    marks = sorted(
        (Path(o["name"]).name, str(o.get("ETag") or o.get("mtime") or ""), o.get("size") or 0)
        for o in objects
    )
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:32]


class BucketStore:
    """Results in a bucket: objects below ``<study>/<attempt>/``, markers in ``commit/``."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = filesystem(url)

    @contextmanager
    def workspace(self, name: str) -> Iterator[Path]:  # noqa: ARG002
        """A folder on this machine."""
        with scratch() as folder:
            yield folder

    def commit(self, name: str, folder: Path, marker: Mapping[str, Any]) -> dict[str, Any]:
        """Upload the files, then the marker, which is written only if there is none."""
        attempt = f"{name}/{uuid4().hex[:8]}"
        whole = {**marker, "at": attempt}
        with _errors("writing the result", OutputError):
            for file in whole["files"]:
                self._fs.pipe_file(f"{self._root}/{attempt}/{file}", (folder / file).read_bytes())
            data = json.dumps(whole, sort_keys=True).encode()
            try:
                self._fs.pipe_file(self._marker(name), data, mode="create")
            except FileExistsError:
                there = self.marker(name)
            else:
                return whole
        if there is None:
            raise OutputError(f"{name}: its marker is there and cannot be read")
        if there.get("at") == attempt:
            return there  # the answer was lost, and the request sent again
        with _errors("removing a second result", OutputError):
            self._fs.rm(f"{self._root}/{attempt}", recursive=True)
        return agree(name, there, marker)

    def marker(self, name: str) -> dict[str, Any] | None:
        """The marker's object."""
        with _errors("reading a marker", OutputError):
            try:
                return json.loads(self._fs.cat_file(self._marker(name)))
            except FileNotFoundError:
                return None

    def names(self) -> Iterator[str]:
        """The markers, as one listing has them."""
        with _errors("listing results", OutputError):
            try:
                found = self._fs.ls(f"{self._root}/{_MARKERS}", detail=False)
            except FileNotFoundError:
                return
        yield from sorted(Path(name).stem for name in found if name.endswith(".json"))

    def read(self, name: str, file: str) -> bytes:
        """A file of the attempt that was committed."""
        marker = self.marker(name)
        if marker is None:
            raise OutputError(f"{name} has no marker")
        with _errors(f"reading {file} of {name}", OutputError):
            return self._fs.cat_file(f"{self._root}/{marker['at']}/{file}")

    def _marker(self, name: str) -> str:
        return f"{self._root}/{_MARKERS}/{name}.json"
