"""What all CT systems take as a study: a series on disk, its bytes, or voxels in memory."""

from __future__ import annotations

import importlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite

from hilum.catalog.errors import BadFormat, NoGeometry
from hilum.client.protocols import Placed
from hilum.preprocessing.reading.ct_headers import holds_image, series_of
from hilum.preprocessing.reading.dicom import is_dicom
from hilum.preprocessing.reading.folders import walk
from hilum.preprocessing.reading.nifti import SUFFIXES, Forms
from hilum.preprocessing.reading.notes import Note
from hilum.preprocessing.reading.own_results import is_own_result
from hilum.preprocessing.reading.series import Series, open_series
from hilum.preprocessing.reading.slice_pictures import is_slice_picture
from hilum.preprocessing.reading.volume import Geometry, Volume

ACQUISITION_HELP = (
    "Which of several acquisitions in one series, from 1; default: the one with the most slices in "
    "regular steps."
)
"""What `--acquisition` says; the same for all CT systems."""

_GZIP = b"\x1f\x8b"

_LPS = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Axes of an array [z, y, x] in LPS order."""


class VolumeStack:
    """Voxels in memory as the slices of a series.

    Attributes
    ----------
    kind
        Where the voxels come from.
    """

    thickness: float | None = None
    even = True
    forms: Forms | None = None

    def __init__(self, volume: Volume, kind: str = "array") -> None:
        self.kind = kind
        self.geometry = volume.geometry
        depth, distance = volume.geometry.shape[0], volume.geometry.slice_distance
        self.positions = tuple(k * distance for k in range(depth))
        self.numbers: tuple[int | None, ...] = (None,) * depth
        self.notes = tuple(Note(text) for text in volume.notes)
        self._voxels = volume.voxels

    @classmethod
    def of_series(cls, series: Series) -> VolumeStack:
        """Decode a whole series; its places, numbers and remarks stay with it."""
        stored = series.reorientation.undo(series.volume().voxels)
        stack = cls(Volume(stored, series.stored_geometry), series.kind)
        stack.positions, stack.even = series.stored_positions, series.even
        stack.numbers, stack.thickness = series.stored_numbers, series.thickness
        stack.forms, stack.notes = series.forms, series.remarks
        return stack

    def read(self, index: int) -> NDArray[np.int16]:
        """A slice [rows, columns] in HU."""
        return np.asarray(self._voxels[index], np.int16)


ACCEPTED = (
    "give a DICOM or NIfTI file, a folder, the bytes of a file, a NumPy array in HU (with spacing= "
    "or affine=), an image of nibabel or SimpleITK, or one or several datasets of pydicom"
)
"""What a CT system takes."""


def open_study(study: Any, *, series: str | None = None, acquisition: int | None = None) -> Series:
    """Open a study as a series in LPS order; files are read when their slices are asked for.

    Parameters
    ----------
    study
        What `ACCEPTED` says; also a `Series` or a `Volume`. Bare arrays are [z, y, x] or [y, x] in
        HU and LPS order.
    series, acquisition
        Which series of a mixed folder, and which acquisition of it, see `open_series`.

    Raises
    ------
    InputError
        When there is no usable CT series.
    """
    match study:
        case Series():
            return study
        case str() | Path():
            return open_series(study, series=series, acquisition=acquisition)
        case bytes():
            return _from_files([study])
        case Volume():
            return Series(VolumeStack(study))
        case np.ndarray():
            return Series(VolumeStack(_from_array(study)))
        case Placed():
            return Series(VolumeStack(_from_placed(study)))
    if datasets := dataset_bytes(study):
        return _from_files(datasets)
    if isinstance(study, SpatialImage):
        array, affine = np.asarray(study.dataobj), np.asarray(study.affine)
        return Series(VolumeStack(_from_placed(Placed(array, affine=affine)), "NIfTI"))
    if type(study).__module__.partition(".")[0] == "SimpleITK":
        return Series(VolumeStack(_from_simpleitk(study), "SimpleITK"))
    raise BadFormat(f"{type(study).__name__} is no CT study; {ACCEPTED}")


def dataset_bytes(study: Any) -> list[bytes]:
    """The files that one or several datasets of pydicom would be; none for anything else."""
    datasets = [study] if isinstance(study, Dataset) else study
    if not isinstance(datasets, (list, tuple)) or not datasets:
        return []
    if not all(isinstance(one, Dataset) for one in datasets):
        return []
    files = []
    for one in datasets:
        stream = io.BytesIO()
        dcmwrite(stream, one, enforce_file_format=True)
        files.append(stream.getvalue())
    return files


def find_studies(path: Path) -> list[Path]:
    """The studies that an argument of the command line stands for.

    A file is a study. Below a folder each folder with DICOM images is one, and each NIfTI file;
    where there is neither, each picture. Each series is part of one study: a folder below a study
    is another one only if it holds other series. Hilum's own results are no studies, nor are
    folders with nothing but an index (DICOMDIR) or reports, if there is anything else.
    """
    if not path.is_dir():
        return [path]
    found = [(folder, [f for f in files if not is_own_result(f)]) for folder, files in walk(path)]
    studies: list[Path] = []
    reports: list[Path] = []
    above: dict[Path, frozenset[tuple[str, ...] | None]] = {}
    for folder, files in found:
        image = _holds_images(files)
        if image is None:
            reports.append(folder)
        elif image and not _belongs_above(folder, files, above):
            studies.append(folder)
        studies += [f for f in files if f.name.lower().endswith(SUFFIXES)]
    if studies or reports:
        return studies or reports
    return [f for _, files in found for f in files if is_slice_picture(f)]


def _holds_images(files: Sequence[Path]) -> bool | None:
    """Whether there is a DICOM image; None if there are only pictures of reports."""
    answers = set[bool | None]()
    for file in files:
        if not file.name.lower().endswith(SUFFIXES):
            answers.add(holds_image(file))
        if True in answers:
            return True
    return None if None in answers else False


def _belongs_above(
    folder: Path, files: Sequence[Path], above: dict[Path, frozenset[tuple[str, ...] | None]]
) -> bool:
    """Whether all series of a folder are those of a study above it, which is read with it.

    Parameters
    ----------
    above
        Series of the studies found so far, by folder.
    """
    studies = [parent for parent in folder.parents if parent in above]
    if not studies:
        above[folder] = frozenset()
        return False
    for study in studies:
        if not above[study]:
            own = (f for f in study.iterdir() if f.is_file() and not f.name.startswith("."))
            above[study] = frozenset(map(series_of, own))
    series = {uid for uid in map(series_of, files) if uid is not None}
    if any(series <= above[study] for study in studies):
        return True
    above[folder] = frozenset(series)
    return False


def _from_files(files: Sequence[bytes]) -> Series:
    """The content of one DICOM or NIfTI file, or of several of DICOM, decoded at once."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{n:05d}{_suffix(data)}") for n, data in enumerate(files)]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        found = open_series(paths[0] if len(paths) == 1 else folder)
        return Series(VolumeStack.of_series(found))


def _suffix(data: bytes) -> str:
    if is_dicom(data):
        return ".dcm"
    return ".nii.gz" if data.startswith(_GZIP) else ".nii"


def _from_placed(placed: Placed) -> Volume:
    """An array that says what its voxels measure, or where they lie."""
    if placed.affine is None:
        voxels, notes = _hounsfield(placed.array)
        spacing = tuple(float(mm) for mm in placed.spacing or ())
        if len(spacing) != 3:
            raise NoGeometry(f"spacing {placed.spacing}: give mm along z, y and x")
        geometry = Geometry(_shape(voxels), (0.0, 0.0, 0.0), spacing, _LPS)
        return Volume(voxels, geometry, ("an array: taken as LPS order", *notes))
    affine = np.asarray(placed.affine, np.float64)
    if affine.shape != (4, 4) or placed.array.ndim != 3:
        raise BadFormat(
            f"an array {list(placed.array.shape)} with an affine {list(affine.shape)}: give three "
            "axes and a matrix [4, 4]"
        )
    voxels, notes = _hounsfield(placed.array.transpose(2, 1, 0))
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    geometry = Geometry.from_steps(_shape(voxels), lps[:, 3], lps[:, 2::-1].T)
    return Volume(voxels, geometry, notes)


def _from_simpleitk(image: Any) -> Volume:
    """An image of SimpleITK, whose coordinates are LPS; its array is [z, y, x]."""
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise BadFormat("the image is no grey volume; give one with three axes in HU")
    voxels, notes = _hounsfield(importlib.import_module("SimpleITK").GetArrayFromImage(image))
    direction = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    steps = direction[:, ::-1].T
    return Volume(
        voxels, Geometry.from_steps(_shape(voxels), np.asarray(image.GetOrigin()), steps), notes
    )


def _from_array(voxels: NDArray[Any]) -> Volume:
    """Bare voxels: a grid of 1 mm whose place is not known."""
    whole, more = _hounsfield(voxels[None] if voxels.ndim == 2 else voxels)
    note = "an array: taken as LPS order with voxels of 1 mm, so volumes and lengths are not real"
    geometry = Geometry(_shape(whole), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), _LPS)
    return Volume(whole, geometry, (note, *more))


def _hounsfield(voxels: NDArray[Any]) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Numbers as int16 [z, y, x], and what is doubtful about them."""
    if voxels.ndim != 3 or voxels.size == 0:
        raise BadFormat(f"an array {list(voxels.shape)} is no CT; give [z, y, x] or [y, x] in HU")
    if voxels.dtype.kind not in "iuf":
        raise BadFormat(f"an array of {voxels.dtype} has no Hounsfield units; give numbers")
    if voxels.dtype.kind == "f":
        if not np.isfinite(voxels).all():
            raise BadFormat("the array holds values that are no numbers; replace them by −1024")
        voxels = np.rint(voxels)
    limits = np.iinfo(np.int16)
    notes = ("voxels of 8 bits: hardly Hounsfield units",) if voxels.dtype.itemsize == 1 else ()
    return np.clip(voxels, limits.min, limits.max).astype(np.int16), notes


def _shape(voxels: NDArray[np.int16]) -> tuple[int, int, int]:
    z, y, x = voxels.shape
    return z, y, x
