"""What COVID-MTL takes as a study: a CT, or the published files with lungs that are segmented."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...catalog.errors import InputError
from ...preprocessing.arrays import to_host
from ...preprocessing.dlpe_source import Scan
from ...preprocessing.limits import read_bytes
from ...preprocessing.mtl_container import MAX_BYTES, is_container, read_container
from ...preprocessing.series import Series
from ...preprocessing.volume import Volume
from .ct_source import CtSource, find_studies, open_source

_LUNGS, _MASK, _CROPPED = ".dtm", ".dmm", ".dcm"
"""Endings of the published files: lung volume, lung mask, common box of the lung volume."""

_HEAD = 2**16
"""Bytes within which the first frame of a container begins."""


@dataclass(frozen=True, slots=True)
class Segmented:
    """Lungs from the published files.

    Attributes
    ----------
    volume
        uint16 [z, y, x]: stored values in voxels of 1 mm, 0 where no lung is.
    mask
        Of another file beside it; None without one.
    """

    volume: NDArray[np.uint16]
    mask: NDArray[np.uint16] | None = None

    @property
    def description(self) -> str:
        """Size, for people to read."""
        z, y, x = self.volume.shape
        return f"segmented lungs, {x} × {y} × {z} voxels of 1 mm"


@dataclass(frozen=True, slots=True)
class Opened:
    """A CT that was opened.

    Attributes
    ----------
    scan
        What is worked on: the series, or a volume where it is (its voxels may lie on a GPU).
    series
        The same on the host, on its own grid.
    """

    scan: Scan
    series: Series

    @property
    def description(self) -> str:
        """Size and spacing, for people to read."""
        return self.series.description


def open_study(source: CtSource, series: str | None) -> Opened | Segmented:
    """Open a study.

    Raises
    ------
    InputError
        When there is no usable CT series, and for a damaged container.
    """
    if isinstance(source, Volume):
        host = Volume(to_host(source.voxels), source.geometry, source.notes)
        return Opened(source, open_source(host))
    held = _container(source)
    if held is not None:
        return held
    opened = open_source(source, series=series)
    return Opened(opened, opened)


def find(path: Path) -> list[Path]:
    """The studies that an argument of the command line stands for.

    Those of `ct_source.find_studies`, and in a folder each published file but the masks.
    """
    studies = find_studies(path)
    if not path.is_dir():
        return studies
    return list(itertools.chain.from_iterable(_split(study) for study in studies))


def _split(study: Path) -> Iterator[Path]:
    """A folder with published files stands for these; anything else for itself."""
    files = [p for p in sorted(study.iterdir()) if p.is_file()] if study.is_dir() else []
    held = [p for p in files if _looks_like_container(p)]
    if not held:
        yield study
        return
    yield from (p for p in held if p.suffix.lower() != _MASK)
    if any(p.suffix.lower() == _CROPPED for p in files if p not in held):
        yield study  # beside them there is a series


def _container(source: Any) -> Segmented | None:
    """The lungs of a published file; None for anything else."""
    if isinstance(source, bytes):
        return Segmented(read_container(source)) if is_container(source) else None
    if not isinstance(source, (str, Path)) or Path(source).is_dir():
        return None
    path = Path(source)
    ending = path.suffix.lower()
    if ending == _MASK:
        raise InputError(f"a lung mask ({_MASK}) alone; give the lung volume ({_LUNGS}) beside it")
    if ending == _LUNGS:
        return Segmented(read_container(path), _mask_beside(path))
    if ending == _CROPPED and _looks_like_container(path):
        data = read_bytes(path, limit=MAX_BYTES)
        return Segmented(read_container(data)) if is_container(data) else None
    return None


def _mask_beside(path: Path) -> NDArray[np.uint16] | None:
    mask = next((p for e in (_MASK, _MASK.upper()) if (p := path.with_suffix(e)).is_file()), None)
    return None if mask is None else read_container(mask)


def _looks_like_container(path: Path) -> bool:
    """Tell a published file from a DICOM image by its beginning, without reading all of it."""
    if path.suffix.lower() in (_LUNGS, _MASK):
        return True
    if path.suffix.lower() != _CROPPED:
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    return head[128:132] == b"DICM" and b"\x89PNG" in head
