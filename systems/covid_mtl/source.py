"""What COVID-MTL takes as a study: a CT, or the published files with lungs that are segmented."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import WrongStudy
from hilum.preprocessing.arrays import to_host
from hilum.preprocessing.covid_mtl.container import MAX_BYTES, is_container, read_container
from hilum.preprocessing.dlpe.source import Scan
from hilum.preprocessing.reading.ct_headers import holds_image
from hilum.preprocessing.reading.folders import walk
from hilum.preprocessing.reading.limits import read_bytes
from hilum.preprocessing.reading.own_results import is_own_result
from hilum.preprocessing.reading.series import Series
from hilum.preprocessing.reading.volume import Volume

from ..studies import find_studies, open_study

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
        """Size, human-readable."""
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
        """Size and spacing, human-readable."""
        return self.series.description


def open_ct(study: Any, series: str | None, acquisition: int | None = None) -> Opened | Segmented:
    """Open a study.

    Raises
    ------
    InputError
        When there is no usable CT series, and for a damaged container.
    """
    if isinstance(study, Volume):
        host = Volume(to_host(study.voxels), study.geometry, study.notes)
        return Opened(study, open_study(host))
    held = _container(study)
    if held is not None:
        return held
    opened = open_study(study, series=series, acquisition=acquisition)
    return Opened(opened, opened)


def find(path: Path) -> list[Path]:
    """The studies that an argument of the command line stands for.

    Those of `studies.find_studies`, and in a folder each published file but the masks.
    """
    studies = find_studies(path)
    if not path.is_dir():
        return studies
    held = [
        file
        for _, files in walk(path)
        for file in files
        if _looks_like_container(file) and not is_own_result(file)
    ]
    if not held:
        return studies
    beside = {file for file in held if file.suffix.lower() == _CROPPED}
    series = [study for study in studies if study not in beside and _holds_more(study, beside)]
    volumes = [file for file in held if file.suffix.lower() != _MASK]
    return sorted([*volumes, *series], key=lambda p: (p if p.is_dir() else p.parent, p.is_dir()))


def _holds_more(study: Path, held: set[Path]) -> bool:
    """Whether a folder has images beside published files; a file always does."""
    if not study.is_dir():
        return True
    files = [p for p in study.iterdir() if p.is_file() and not p.name.startswith(".")]
    return any(p not in held and holds_image(p) is not False for p in files)


def _container(source: Any) -> Segmented | None:
    """The lungs of a published file; None for anything else."""
    if isinstance(source, bytes):
        return Segmented(read_container(source)) if is_container(source) else None
    if not isinstance(source, (str, Path)) or Path(source).is_dir():
        return None
    path = Path(source)
    ending = path.suffix.lower()
    if ending == _MASK:
        raise WrongStudy(f"a lung mask ({_MASK}) alone; give the lung volume ({_LUNGS}) beside it")
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
