"""CT volumes from NIfTI files, in DICOM's patient coordinates.

nibabel interprets the header. Voxels are read from the file in its own order, once: its own reader
unpacks a compressed file from the beginning for every slice.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from hilum.catalog.errors import (
    BadFormat,
    BadSize,
    Damaged,
    InputError,
    NoGeometry,
    Unreadable,
    WrongStudy,
)
from hilum.catalog.terms import AIR_HU

from .limits import MAX_SLICES, MAX_UNPACKED_BYTES, MAX_VOXELS
from .locked import Locked
from .nifti_limits import GZIP, check_nifti
from .notes import FORMS_DISAGREE, IMPLAUSIBLE_SPACING, UNITS_UNKNOWN, Note
from .volume import Geometry

SUFFIXES = (".nii", ".nii.gz")

_UNITS = {1: (1000.0, "m"), 2: (1.0, "mm"), 3: (0.001, "µm")}
"""Millimetres of the units of length, by their code in ``xyzt_units``."""

_PLAUSIBLE_MM = (0.02, 50.0)
"""Distances of voxels in a CT; what lies outside was measured in another unit."""

_FORM_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip

_SILENT = logging.Logger("hilum.nifti", logging.CRITICAL + 1)
"""What nibabel says about a header that it corrects goes nowhere: it may quote the file."""

_DAMAGED = "NIfTI: the file is damaged; export it again"


@dataclass(frozen=True, slots=True)
class Forms:
    """Where a NIfTI header says its voxels lie, as it says it.

    Attributes
    ----------
    fields
        Raw values of qform and sform, with their codes.
    pixdim
        The first four of ``pixdim``: handedness of the qform, distances of voxels.
    units
        Unit of length (``xyzt_units``); that of a file without one is 2, mm.
    """

    fields: dict[str, Any]
    pixdim: tuple[float, float, float, float]
    units: int

    def write_into(self, header: Any) -> None:
        """Set the same in another header."""
        for name, value in self.fields.items():
            header[name] = value
        header["pixdim"][:4] = self.pixdim
        header["xyzt_units"] = self.units


class NiftiStack(Locked):
    """The slices of a NIfTI file along its third axis, read when asked for.

    A compressed file is unpacked as a whole on first use, because its slices cannot be reached one
    by one.

    Attributes
    ----------
    geometry
        Of the array [k, j, i], the file's axes in reverse order.
    forms
        What the header says about it.
    """

    kind = "NIfTI"
    thickness = None
    even = True

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises
        ------
        InputError
            For a damaged file, one that is no 3-D image of real numbers, one that is too large, and
            one that does not distinguish left from right.
        """
        super().__init__()
        self._path = path
        check_nifti(path)
        header = _read_header(path)
        with _of_nibabel():
            shape = tuple(int(n) for n in header.get_data_shape())
            self._type = header.get_data_dtype()
            self._scaling = header.get_slope_inter()
            self._offset = int(header["vox_offset"]) or header.single_vox_offset
            codes = int(header["sform_code"]), int(header["qform_code"])
            affine = np.asarray(header.get_best_affine(), np.float64)
        self._shape = self._check(shape, self._type)
        if max(codes) <= 0:
            raise NoGeometry(
                "NIfTI: neither sform nor qform is set, so left and right are unknown; write the "
                "file with its orientation"
            )
        other = _other_form(header, codes, affine)
        unit = int(header["xyzt_units"]) & 7
        scale, _ = _UNITS.get(unit, _UNITS[2])
        n_i, n_j, n_k = self._shape
        lps = np.diag([-scale, -scale, scale]) @ affine[:3]
        self.geometry = Geometry.from_steps((n_k, n_j, n_i), lps[:, 3], lps[:, 2::-1].T)
        self.forms = _forms(header, unit)
        self.notes = tuple(
            _notes(self.geometry, self._shape, (affine, other), codes[1] > 0, unit, self._type)
        )
        distance = self.geometry.slice_distance
        self.positions = tuple(k * distance for k in range(n_k))
        self.numbers: tuple[int | None, ...] = (None,) * n_k
        self._planes: NDArray[np.int16] | None = None
        with _opened(path) as (_, packed):
            self._packed = packed
        if not packed and path.stat().st_size < self._offset + n_k * self._plane_bytes:
            raise Damaged("NIfTI: the file is truncated or damaged; transfer it again")

    def read(self, index: int) -> NDArray[np.int16]:
        """Read a slice; int16 [j, i] in HU.

        Raises
        ------
        InputError
            When the file ends too early or is damaged.
        """
        if not self._packed:
            with _opened(self._path) as (stream, _):
                stream.seek(self._offset + index * self._plane_bytes)
                return self._plane(stream, index)
        with self._lock:
            if self._planes is None:
                self._planes = self._unpacked()
            return self._planes[index]

    @property
    def _plane_bytes(self) -> int:
        return self._shape[0] * self._shape[1] * self._type.itemsize

    def _unpacked(self) -> NDArray[np.int16]:
        """All slices, unpacked from the first to the last: the file is read once."""
        n_i, n_j, n_k = self._shape
        planes = np.empty((n_k, n_j, n_i), np.int16)
        with _opened(self._path) as (stream, _):
            self._exactly(stream, self._offset, 0)
            for k in range(n_k):
                planes[k] = self._plane(stream, k)
        return planes

    def _plane(self, stream: IO[bytes], index: int) -> NDArray[np.int16]:
        n_i, n_j, _ = self._shape
        raw = self._exactly(stream, self._plane_bytes, index)
        plane = np.frombuffer(raw, self._type).reshape(n_j, n_i)
        plane = apply_read_scaling(plane, *self._scaling)
        if plane.dtype.kind == "f":
            plane = np.rint(np.nan_to_num(plane, nan=AIR_HU, posinf=2**15, neginf=-(2**15)))
        return np.clip(plane, -(2**15), 2**15 - 1).astype(np.int16)

    def _exactly(self, stream: IO[bytes], count: int, index: int) -> bytes:
        try:
            data = stream.read(count)
        except (EOFError, OSError, zlib.error):
            data = b""
        if len(data) < count:
            raise Damaged(
                f"NIfTI: slice {index + 1} of {self._shape[2]} cannot be read, the file is "
                "truncated or damaged; transfer it again"
            )
        return data

    @staticmethod
    def _check(shape: tuple[int, ...], kind: np.dtype[Any]) -> tuple[int, int, int]:
        if len(shape) == 2:
            raise WrongStudy("NIfTI: a picture without a third axis; give a volume")
        if len(shape) < 3 or any(n != 1 for n in shape[3:]):
            raise WrongStudy(f"NIfTI: {list(shape)} is no single volume; give one of three axes")
        if kind.kind not in "iuf":
            raise BadFormat(f"NIfTI: voxels of type {kind}; give a volume in Hounsfield units")
        n_i, n_j, n_k = shape[:3]
        size = n_i * n_j * n_k
        if min(shape) < 1 or n_k > MAX_SLICES or size > MAX_VOXELS:
            raise BadSize(
                f"NIfTI: {n_i} × {n_j} × {n_k} voxels, more than the limit ({MAX_SLICES} slices, "
                f"{MAX_VOXELS / 1e9:.1f} · 10⁹ voxels); give a smaller volume"
            )
        if size * kind.itemsize > MAX_UNPACKED_BYTES:
            raise BadSize(
                f"NIfTI: {n_i} × {n_j} × {n_k} voxels of {kind}, more than the limit of "
                f"{MAX_UNPACKED_BYTES / 2**30:.0f} GiB; write Hounsfield units as int16"
            )
        return n_i, n_j, n_k


def _read_header(path: Path) -> Any:
    """Header of a file as nibabel interprets it; its extensions are left alone.

    Raises
    ------
    InputError
        For what is no NIfTI file.
    """
    if not path.is_file():
        raise Unreadable("no such file; check the path")
    try:
        with _opened(path) as (stream, _):
            head = stream.read(Nifti2Header.sizeof_hdr)
    except (EOFError, zlib.error):
        raise Damaged(_DAMAGED) from None
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise Damaged(_DAMAGED) from None
        raise Unreadable(f"the file cannot be read ({error.strerror}); check its rights") from None
    second = Nifti2Header.sizeof_hdr.to_bytes(4, "little"), Nifti2Header.sizeof_hdr.to_bytes(4)
    kind: Any = Nifti2Header if head[:4] in second else Nifti1Header
    if len(head) < kind.sizeof_hdr:
        raise Damaged(_DAMAGED)
    with _of_nibabel():
        header = kind(head[: kind.sizeof_hdr], check=False)
        header.check_fix(logger=_SILENT, error_level=40)
        if bytes(header["magic"])[:2] != b"n+":
            raise BadFormat("not a NIfTI file; give DICOM or NIfTI")
    return header


@contextmanager
def _of_nibabel() -> Iterator[None]:
    """Turn what nibabel raises on damaged headers into one error; nothing else runs within."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - nibabel raises whatever its parts do
        raise Damaged(_DAMAGED) from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, bool]]:
    """A file's content, unpacked if need be, and whether it is packed."""
    with path.open("rb") as stream:
        packed = stream.read(2) == GZIP
        stream.seek(0)
        if not packed:
            yield stream, False
            return
        with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
            yield unpacked, True


def _forms(header: Any, unit: int) -> Forms:
    fields = {name: np.array(header[name]) for name in _FORM_FIELDS}
    a, b, c, d = (float(v) for v in header["pixdim"][:4])
    return Forms(fields, (a, b, c, d), unit if unit in _UNITS else 2)


def _notes(
    geometry: Geometry,
    shape: tuple[int, int, int],
    forms: tuple[NDArray[np.float64], NDArray[np.float64] | None],
    qform: bool,
    unit: int,
    kind: np.dtype[Any],
) -> Iterator[Note]:
    """What is unusual about a header."""
    if kind.itemsize == 1:
        yield Note("voxels of 8 bits: hardly Hounsfield units")
    if unit == 0:
        yield Note("NIfTI: no unit of length in the header; taken as mm", UNITS_UNKNOWN)
    elif unit not in _UNITS:
        yield Note("NIfTI: a unit of length that does not exist; taken as mm", UNITS_UNKNOWN)
    elif unit != 2:
        yield Note(f"NIfTI: measured in {_UNITS[unit][1]}, turned into mm")
    if not all(_PLAUSIBLE_MM[0] <= mm <= _PLAUSIBLE_MM[1] for mm in geometry.spacing):
        z, y, x = geometry.spacing
        yield Note(
            f"voxels of {x:.3g} × {y:.3g} × {z:.3g} mm: hardly the unit of length that was meant",
            IMPLAUSIBLE_SPACING,
        )
    affine, other = forms
    if other is None:
        yield Note(
            "NIfTI: the qform is not usable; the sform was taken, and results keep both, so a "
            "viewer that goes by the qform may show neither the input nor them rightly",
            FORMS_DISAGREE,
        )
        return
    difference = _disagreement(affine, other, shape)
    if difference:
        yield Note(
            f"NIfTI: sform and {'qform' if qform else 'pixdim'} {difference}; the sform was taken, "
            "and results keep both, so a viewer that goes by the other one shows them as it shows "
            "the input",
            FORMS_DISAGREE,
        )


def _other_form(
    header: Any, codes: tuple[int, int], affine: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """What a header says besides the form that is taken: the qform, else the sform by ``pixdim``.

    Returns
    -------
    [4, 4]; None for a qform that stands for no rotation.

    Raises
    ------
    InputError
        For the same where it is all there is.
    """
    sform, qform = codes[0] > 0, codes[1] > 0
    if not sform:
        return affine
    if not qform:
        distances = np.linalg.norm(affine[:3, :3], axis=0)
        with np.errstate(all="ignore"):
            scale = np.abs(np.asarray(header["pixdim"][1:4], np.float64)) / distances
        return affine * np.append(scale, 1)
    try:
        with _of_nibabel():
            return np.asarray(header.get_qform(), np.float64)
    except InputError:
        return None


def _disagreement(
    affine: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, int, int]
) -> str:
    """How two forms of one header differ by more than a voxel; empty where they do not."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], np.float64)
    corners[:, :3] *= np.array(shape) - 1
    with np.errstate(all="ignore"):
        mirrored = np.linalg.det(affine[:3, :3]) * np.linalg.det(other[:3, :3]) < 0
        apart = np.linalg.norm((corners @ (other - affine).T)[:, :3], axis=1).max()
        voxel = np.linalg.norm(affine[:3, :3], axis=0).min()
    if mirrored:
        return "put the patient's left on different sides"
    return "" if apart <= voxel * 1.001 else "differ by more than a voxel"
