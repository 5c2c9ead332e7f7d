"""The spool: what was fetched and what is to be sent, a folder for each job.

``<job>/in`` holds the instances, whole or not at all; ``<job>/result`` a folder for each study as
`hilum run` writes it, published by one rename and never changed afterwards. Names hold no
identifiers.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hilum.catalog.errors import OutputError
from hilum.results.atomic import sync, sync_tree, unwritten

_REST = 50
"""How much longer than a look at all folders the time until the next one is."""


@dataclass(frozen=True, slots=True)
class Spool:
    """The spool in one folder, with its limits.

    Attributes
    ----------
    most_bytes, watermark
        Bytes that it may hold, and the share of its disk above which nothing is added.
    """

    folder: Path
    most_bytes: float
    watermark: float
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)
    _held: list[float] = field(default_factory=lambda: [-math.inf, 0], repr=False, compare=False)

    def inputs(self, job: str) -> Path:
        """Where the instances of a job lie."""
        return self.folder / job / "in"

    def result(self, job: str) -> Path:
        """The folder of a job's result."""
        return self.folder / job / "result"

    def objects(self, job: str) -> list[Path]:
        """The DICOM files to send, in a fixed order."""
        return sorted(self.result(job).glob("*/dicom/**/*.dcm"))

    @contextmanager
    def written(self, target: Path, *, lasting: bool = True) -> Iterator[Path]:
        """A folder to fill; afterwards it is `target`, `lasting` on the disk with all its files.

        What need not last outlives the process, not the machine.

        Raises
        ------
        OutputError
            When it cannot be written.
        """
        partial = target.with_name(f".{target.name}.partial")
        try:
            for old in (partial, target):
                shutil.rmtree(old, ignore_errors=True)
            partial.mkdir(parents=True, mode=0o700)
            yield partial
            if lasting:
                sync_tree(partial)
            partial.rename(target)
            if lasting:
                sync(target.parent)
        except OSError as failure:
            raise unwritten(target, failure) from failure
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def bytes(self) -> int:
        """How many bytes it holds; what is being written is counted from its end on.

        Where many results are kept, looking at all takes a while. So it takes a fiftieth of the
        time at most, and in between says what it was.
        """
        began = time.monotonic()
        valid, held = self._held
        if began < valid:
            return int(held)
        sizes: dict[str, tuple[int, int]] = {}
        for place in self._places():
            try:
                changed = place.stat().st_mtime_ns  # changes when `in` or `result` come or go
                known = self._sizes.get(place.name)
                size = known[1] if known and known[0] == changed else _size(place)
            except OSError:
                continue  # removed meanwhile
            sizes[place.name] = changed, size
        self._sizes.clear()
        self._sizes.update(sizes)
        held = sum(size for _, size in sizes.values())
        ended = time.monotonic()
        self._held[:] = ended + _REST * (ended - began), held
        return held

    def _places(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except OSError as failure:
            raise OutputError(f"{self.folder}: {failure.strerror}") from failure

    def full(self) -> str:
        """Why nothing may be added; empty when there is room."""
        try:
            disk = shutil.disk_usage(self.folder)
        except OSError as failure:
            raise OutputError(f"{self.folder}: {failure.strerror}") from failure
        if disk.used > self.watermark * disk.total:
            return f"the disk of the spool is fuller than {self.watermark:.0%}"
        held = self.bytes()
        if held > self.most_bytes:
            return f"the spool holds {held / 1e9:.1f} GB"
        return ""

    def drop_inputs(self, job: str) -> None:
        """Remove what was fetched."""
        shutil.rmtree(self.inputs(job), ignore_errors=True)

    def drop(self, job: str) -> None:
        """Remove everything of a job."""
        shutil.rmtree(self.folder / job, ignore_errors=True)


def _size(folder: Path) -> int:
    """Bytes in a folder of a job, without what is being written."""
    total = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        total += sum(Path(place, name).stat().st_size for name in files)
    return total
