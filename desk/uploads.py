"""Files on their way in: numbered, bounded, and gone when they are refused.

Nothing of a file's name is kept: its number is its name, and what it is follows from its content.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hilum.catalog.errors import OutputError

from .limits import Limits, Refused

_HEAD = 352
"""Bytes from which the kind of a file is seen: the header of a NIfTI file."""

_EXPECTED = "expected"
"""Beside the files: how many there are to be, so that a study that came in part is known."""

_ID = re.compile(r"[0-9a-f]{32}")

_MAGIC = (
    (0, b"\x1f\x8b", ".nii.gz"), (128, b"DICM", ".dcm"), (0, b"\x89PNG", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"), (0, b"BM", ".bmp"), (344, b"n+1\0", ".nii"),
    (4, b"n+2\0", ".nii"),
)  # fmt: skip
"""Offset, bytes, and the ending by which readers know the kind."""

_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf", b"Rar!")


@dataclass(slots=True)
class Uploads:
    """The files of studies below one folder; used from one event loop.

    Attributes
    ----------
    folder
        ``<study>/in`` holds the files of a study.
    """

    folder: Path
    limits: Limits
    _sizes: dict[str, dict[int, tuple[Path, int]]] = field(default_factory=dict)
    _totals: dict[str, int] = field(default_factory=dict)
    _coming: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for partial in self.folder.glob("*/in/*.part"):
            partial.unlink()

    def inputs(self, study: str) -> Path:
        """Where the files of a study lie."""
        return self.folder / study / "in"

    def names(self) -> list[str]:
        """The studies that have files, or may get some."""
        places = self.folder.iterdir() if self.folder.is_dir() else ()
        return [place.name for place in places if _ID.fullmatch(place.name)]

    def size(self, study: str) -> tuple[int, int]:
        """How many files of how many bytes a study has."""
        return len(self._files(study)), self._totals[study]

    def expected(self, study: str) -> int | None:
        """How many files a study is to have; None where nobody said it."""
        try:
            return int((self.folder / study / _EXPECTED).read_text())
        except (OSError, ValueError):
            return None

    def begin(self, expected: int | None = None) -> str:
        """Make room for a study, which is to have so many files; its name is chance."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk = shutil.disk_usage(self.folder)
        if disk.used > self.limits.watermark * disk.total:
            raise Refused(507, f"the disk is fuller than {self.limits.watermark:.0%}")
        study = secrets.token_hex(16)
        try:
            self.inputs(study).mkdir(parents=True, mode=0o700)
            if expected is not None:
                (self.folder / study / _EXPECTED).write_text(str(expected))
        except OSError as failure:
            raise OutputError(f"{self.folder}: {failure.strerror}") from failure
        return study

    def drop(self, study: str) -> None:
        """Remove the files of a study."""
        self._sizes.pop(study, None)
        self._totals.pop(study, None)
        shutil.rmtree(self.folder / study, ignore_errors=True)

    async def receive(self, study: str, number: int, body: AsyncIterator[bytes]) -> int:
        """Write one file; one of the same number before it is replaced.

        Returns
        -------
        Its size in bytes.

        Raises
        ------
        Refused
            When it is too long, too slow, empty or an archive, or the study has too many; nothing
            of it is left then, nor when the connection ends.
        """
        if not 0 < number <= self.limits.files:
            raise Refused(413, f"a study has {self.limits.files} files at most")
        files, place = self._files(study), self.inputs(study)
        if not place.is_dir():
            raise Refused(404, "there is no such study")
        partial = place / f"{number:05d}.{secrets.token_hex(4)}.part"
        earlier = files.get(number)
        self._coming.setdefault(study, 0)
        size, head = 0, b""
        try:
            with partial.open("xb") as stream:
                async for chunk in timely(body, self.limits.idle_s):
                    head = (head + chunk[:_HEAD])[:_HEAD]
                    size += len(chunk)
                    self._coming[study] += len(chunk)
                    self._check(study, size, earlier[1] if earlier else 0)
                    stream.write(chunk)
            if not size:
                raise Refused(400, "the file is empty")
            if head.startswith(_ARCHIVES):
                raise Refused(415, "archives are not taken: send the files themselves")
            target = place / f"{number:05d}{_ending(head)}"
            if earlier:
                earlier[0].unlink(missing_ok=True)
            partial.rename(target)
            files[number] = target, size
            self._totals[study] += size - (earlier[1] if earlier else 0)
        except OSError as failure:
            raise Refused(507, f"the file cannot be written: {failure.strerror}") from failure
        finally:
            self._coming[study] -= size
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return size

    def _check(self, study: str, size: int, replaced: int) -> None:
        if size > self.limits.file_bytes:
            raise Refused(413, f"a file has {_mib(self.limits.file_bytes)} at most")
        if self.size(study)[1] - replaced + self._coming[study] > self.limits.study_bytes:
            raise Refused(413, f"a study has {_mib(self.limits.study_bytes)} at most")

    def _files(self, study: str) -> dict[int, tuple[Path, int]]:
        """The files of a study by number; read from the disk once."""
        if study not in self._sizes:
            found = sorted(self.inputs(study).glob("[0-9]*"))
            self._sizes[study] = {
                int(path.name[:5]): (path, path.stat().st_size)
                for path in found
                if path.suffix != ".part"
            }
            self._totals[study] = sum(size for _, size in self._sizes[study].values())
        return self._sizes[study]


async def timely(body: AsyncIterator[bytes], idle_s: float) -> AsyncIterator[bytes]:
    """A body whose parts come in time; else `Refused` is raised."""
    while True:
        try:
            async with asyncio.timeout(idle_s):
                chunk = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refused(408, f"nothing came for {idle_s:g} s") from None
        yield chunk


def _ending(head: bytes) -> str:
    return next((end for at, magic, end in _MAGIC if head[at : at + len(magic)] == magic), "")


def _mib(size: int) -> str:
    return f"{size / 2**20:g} MiB"
