"""What all CT pipelines take as a study: a series on disk, its bytes, or voxels in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...catalog.errors import InputError
from ...preprocessing.nifti import SUFFIXES
from ...preprocessing.series import Series, open_series
from ...preprocessing.slice_pictures import is_slice_picture
from ...preprocessing.volume import Geometry, Volume
from .base import Source

CtSource = Source | Series | Volume
"""A study of a CT pipeline; arrays are [z, y, x] or [y, x] in HU and LPS order."""

_GZIP = b"\x1f\x8b"


class VolumeStack:
    """Voxels in memory as the slices of a series.

    Attributes
    ----------
    kind
        Where the voxels come from.
    """

    thickness = None

    def __init__(self, volume: Volume, kind: str = "array") -> None:
        self.kind = kind
        self.geometry = volume.geometry
        depth, distance = volume.geometry.shape[0], volume.geometry.slice_distance
        self.positions = tuple(k * distance for k in range(depth))
        self.numbers: tuple[int | None, ...] = (None,) * depth
        self.notes = volume.notes
        self._voxels = volume.voxels

    def read(self, index: int) -> NDArray[np.int16]:
        """A slice [rows, columns] in HU."""
        return np.asarray(self._voxels[index], np.int16)


def open_source(source: CtSource, *, series: str | None = None) -> Series:
    """Open a study as a series in LPS order; files are read when their slices are asked for.

    Parameters
    ----------
    source
        A DICOM or NIfTI file, a folder, the bytes of one file, voxels.
    series
        Which series of a mixed folder, see `open_series`.

    Raises
    ------
    InputError
        When there is no usable CT series.
    """
    if isinstance(source, Series):
        return source
    if isinstance(source, Volume):
        return Series(VolumeStack(source))
    if isinstance(source, bytes):
        return _from_bytes(source)
    if isinstance(source, np.ndarray):
        return Series(VolumeStack(_from_array(source)))
    return open_series(source, series=series)


def find_studies(path: Path) -> list[Path]:
    """The studies that an argument of the command line stands for.

    A file is a study. Below a folder each folder with DICOM files is one, and each NIfTI file;
    where there is neither, each picture.
    """
    if not path.is_dir():
        return [path]
    folders = [path, *(p for p in sorted(path.rglob("*")) if p.is_dir())]
    shown = [f for f in folders if not _hidden(f.relative_to(path))]
    studies = [study for folder in shown for study in _studies_in(folder)]
    if studies:
        return studies
    return [p for f in shown for p in sorted(f.iterdir()) if is_slice_picture(p)]


def _studies_in(folder: Path) -> Iterator[Path]:
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    if any(_is_dicom(p) for p in files):
        yield folder
    yield from (p for p in files if p.name.lower().endswith(SUFFIXES))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _from_bytes(data: bytes) -> Series:
    """The content of one DICOM or NIfTI file, decoded at once."""
    suffix = ".dcm" if data[128:132] == b"DICM" else ".nii"
    if data.startswith(_GZIP):
        suffix = ".nii.gz"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"study{suffix}")
        path.write_bytes(data)
        found = open_series(path)
        stored = found.reorientation.undo(found.volume().voxels)
    return Series(VolumeStack(Volume(stored, found.stored_geometry, found.notes), found.kind))


def _from_array(voxels: NDArray[Any]) -> Volume:
    """Bare voxels: a grid of 1 mm whose place is not known."""
    if voxels.ndim == 2:
        voxels = voxels[None]
    if voxels.ndim != 3 or voxels.size == 0:
        raise InputError(f"an array {list(voxels.shape)} is no CT; give [z, y, x] or [y, x] in HU")
    if voxels.dtype.kind not in "iuf":
        raise InputError(f"an array of {voxels.dtype} has no Hounsfield units; give numbers")
    if voxels.dtype.kind == "f":
        if not np.isfinite(voxels).all():
            raise InputError("the array holds values that are no numbers; replace them by −1024")
        voxels = np.rint(voxels)
    limits = np.iinfo(np.int16)
    whole = np.clip(voxels, limits.min, limits.max).astype(np.int16)
    shape = cast("tuple[int, int, int]", whole.shape)
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    notes = [
        "an array: taken as LPS order with voxels of 1 mm, so volumes and lengths are not real"
    ]
    if voxels.dtype.itemsize == 1:
        notes.append("voxels of 8 bits: hardly Hounsfield units")
    return Volume(whole, Geometry(shape, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), axes), tuple(notes))
