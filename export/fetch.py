"""Downloading published checkpoints: resumed where it stopped, compared with their checksums.

Proxies are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from hilum.catalog.errors import WeightsError
from hilum.catalog.sources import PublishedFile, Source

ZENODO = "https://zenodo.org/api/records/"

TIMEOUT_S = 60.0
"""Without any answer."""

ATTEMPTS = 4
"""Connections for one file; each goes on where the last one broke off."""

BLOCK = 1 << 20

LARGEST = 20 << 30
"""Bytes of an archive's contents beyond which it is taken for a bomb."""

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are there, and all of them where that is known."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to download; `digest` is the beginning of the hexadecimal digest by `algorithm`."""

    name: str
    url: str
    algorithm: str
    digest: str
    bytes: int | None


def fetch(
    source: Source, folder: Path, *, mirror: str | None = None, progress: Progress | None = None
) -> list[Path]:
    """Download a system's files into `folder` and unpack archives there; gives their paths.

    What is there already and has the right checksum is kept.

    Parameters
    ----------
    mirror
        Address of a copy inside: ``https://HOST/PATH`` is then asked for as ``MIRROR/HOST/PATH``.

    Raises
    ------
    WeightsError
        When a file cannot be had, or is not what its checksum says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for wanted in _wanted(source, mirror):
        path = folder / wanted.name
        if not (path.is_file() and _matches(path, wanted)):
            _download(wanted, path, mirror, progress)
        paths.append(path)
        if zipfile.is_zipfile(path) and path.suffix == ".zip":
            _unpack(path, folder)
    return paths


def _wanted(source: Source, mirror: str | None) -> Iterator[Wanted]:
    for file in source.files:
        yield _known(file)
    if source.zenodo is None:
        return
    with _open(f"{ZENODO}{source.zenodo}", mirror) as answer:
        record = _record(answer.read())
    for entry in record:
        algorithm, _, digest = entry["checksum"].partition(":")
        name = PurePosixPath(entry["key"]).name
        yield Wanted(name, entry["links"]["self"], algorithm, digest, int(entry["size"]))


def _known(file: PublishedFile) -> Wanted:
    return Wanted(file.name, file.url, "sha256", file.sha256, file.bytes)


def _record(text: bytes) -> list[dict[str, Any]]:
    try:
        files = json.loads(text)["files"]
        known = all(f["checksum"].split(":")[0] in ("md5", "sha256") for f in files)
        named = all(f["key"] and f["links"]["self"] and int(f["size"]) >= 0 for f in files)
    except (ValueError, KeyError, TypeError, AttributeError) as strange:
        raise WeightsError(f"Zenodo's list of files is not understood ({strange})") from strange
    if not (files and known and named):
        raise WeightsError("Zenodo's list of files is empty, or lacks checksums")
    return files


def _download(wanted: Wanted, path: Path, mirror: str | None, progress: Progress | None) -> None:
    part = path.with_name(f"{path.name}.part")
    for attempt in range(ATTEMPTS):
        try:
            _append(wanted, part, mirror, progress)
            break
        except (OSError, http.client.HTTPException) as broken:
            if attempt + 1 == ATTEMPTS:
                raise WeightsError(
                    f"{wanted.url} broke off ({broken}); the beginning is kept in {part}: the same "
                    "command goes on from there"
                ) from broken
    if not _matches(part, wanted):
        part.unlink()
        raise WeightsError(
            f"{wanted.url} is not the published file ({wanted.algorithm} differs); it was removed. "
            "A proxy may have answered in its place"
        )
    part.replace(path)


def _append(wanted: Wanted, part: Path, mirror: str | None, progress: Progress | None) -> None:
    """Ask for what is missing and write it behind what is there."""
    have = part.stat().st_size if part.is_file() else 0
    if wanted.bytes is not None and have >= wanted.bytes:
        return
    with _open(wanted.url, mirror, start=have) as answer:
        if have and answer.status != http.client.PARTIAL_CONTENT:
            have = 0  # a server that does not resume sends everything again
        length = answer.headers.get("Content-Length")
        whole = wanted.bytes or (have + int(length) if length else None)
        with part.open("ab" if have else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                if progress is not None:
                    progress(wanted.name, have, whole)
    if whole is not None and have < whole:
        raise ConnectionError(f"{have} of {whole} bytes came")


def _open(url: str, mirror: str | None, start: int = 0) -> Any:
    parts = urlsplit(url)
    if mirror is not None:
        url = f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise WeightsError(f"{url}: only http and https addresses are fetched")
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    try:
        return build_opener().open(request, timeout=TIMEOUT_S)  # with the proxies of now
    except HTTPError as refused:
        raise WeightsError(
            f"{url}: HTTP {refused.code} {refused.reason}; fetch it with a browser and use "
            "`hilum weights import`"
        ) from refused
    except URLError as away:
        raise WeightsError(
            f"{url} cannot be reached ({away.reason}); set HTTPS_PROXY when there is a proxy, or "
            "fetch it elsewhere and use `hilum weights import`"
        ) from away


def _matches(path: Path, wanted: Wanted) -> bool:
    digest = hashlib.new(wanted.algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest().startswith(wanted.digest.lower())


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            if sum(member.file_size for member in packed.infolist()) > LARGEST:
                raise WeightsError(f"{archive}: unpacked it would be larger than 20 GiB")
            packed.extractall(folder)
    except zipfile.BadZipFile as broken:
        raise WeightsError(f"{archive} is no whole archive ({broken})") from broken
