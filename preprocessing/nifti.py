"""CT volumes from NIfTI files, in DICOM's patient coordinates."""

from __future__ import annotations

import logging
import threading
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ..catalog.ct_classifier import AIR_HU
from ..catalog.errors import InputError
from .ct_stack import MAX_SLICES, MAX_VOXELS
from .volume import Geometry

# It reports what it corrects in a header on the standard error output.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

SUFFIXES = (".nii", ".nii.gz")

_UNREADABLE = (
    ImageFileError, AttributeError, EOFError, IndexError, KeyError, MemoryError, OSError,
    OverflowError, TypeError, ValueError, HeaderDataError, zlib.error,
)  # fmt: skip


class NiftiStack:
    """The slices of a NIfTI file along its third axis, read when asked for.

    A compressed file is unpacked as a whole on first use, because its slices cannot be reached one
    by one.

    Attributes
    ----------
    geometry
        Of the array [k, j, i], the file's axes in reverse order.
    """

    kind = "NIfTI"
    thickness = None

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises
        ------
        InputError
            For a damaged file, one that is no 3-D image of real numbers, one that is too large, and
            one that does not tell left from right.
        """
        if not path.is_file():
            raise InputError("no such file; check the path")
        try:
            self._image: Any = nibabel.load(path, mmap="c")
            header: Any = self._image.header
            shape = tuple(int(n) for n in self._image.shape)
            kind = header.get_data_dtype()
            oriented = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
            affine = np.asarray(self._image.affine, np.float64)
        except _UNREADABLE:
            raise InputError("NIfTI: the file is damaged; export it again") from None
        self._shape = self._check(shape, kind)
        if not oriented:
            raise InputError(
                "NIfTI: neither sform nor qform is set, so left and right are unknown; write the "
                "file with its orientation"
            )
        self.notes: tuple[str, ...] = ()
        if kind.itemsize == 1:
            self.notes = ("voxels of 8 bits: hardly Hounsfield units",)
        n_i, n_j, n_k = self._shape
        lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
        self.geometry = Geometry.from_steps((n_k, n_j, n_i), lps[:, 3], lps[:, 2::-1].T)
        distance = self.geometry.slice_distance
        self.positions = tuple(k * distance for k in range(n_k))
        self.numbers: tuple[int | None, ...] = (None,) * n_k
        self._packed = path.name.lower().endswith(".gz")
        self._planes: NDArray[np.int16] | None = None
        self._lock = threading.Lock()

    def read(self, index: int) -> NDArray[np.int16]:
        """Read a slice; int16 [j, i] in HU.

        Raises
        ------
        InputError
            When the file ends too early or is damaged.
        """
        if not self._packed:
            return self._plane(index)
        with self._lock:
            if self._planes is None:
                n_i, n_j, n_k = self._shape
                planes = np.empty((n_k, n_j, n_i), np.int16)
                for k in range(n_k):
                    planes[k] = self._plane(k)
                self._planes = planes
        return self._planes[index]

    def _plane(self, index: int) -> NDArray[np.int16]:
        try:
            # A fourth axis and beyond have length 1.
            plane = np.asarray(self._image.dataobj[(slice(None), slice(None), index)])
        except _UNREADABLE:
            raise InputError(
                f"NIfTI: slice {index + 1} of {self._shape[2]} cannot be read, the file is "
                "truncated or damaged; transfer it again"
            ) from None
        plane = plane.reshape(self._shape[:2]).T
        if plane.dtype.kind == "f":
            plane = np.rint(np.nan_to_num(plane, nan=AIR_HU, posinf=2**15, neginf=-(2**15)))
        return np.clip(plane, -(2**15), 2**15 - 1).astype(np.int16)

    @staticmethod
    def _check(shape: tuple[int, ...], kind: np.dtype[Any]) -> tuple[int, int, int]:
        if len(shape) == 2:
            raise InputError("NIfTI: a picture without a third axis; give a volume")
        if len(shape) < 3 or any(n != 1 for n in shape[3:]):
            raise InputError(f"NIfTI: {list(shape)} is no single volume; give one of three axes")
        if kind.kind not in "iuf":
            raise InputError(f"NIfTI: voxels of type {kind}; give a volume in Hounsfield units")
        n_i, n_j, n_k = shape[:3]
        if min(shape) < 1 or n_k > MAX_SLICES or n_i * n_j * n_k > MAX_VOXELS:
            raise InputError(
                f"NIfTI: {n_i} × {n_j} × {n_k} voxels, more than the limit ({MAX_SLICES} slices, "
                f"{MAX_VOXELS / 1e9:.1f} · 10⁹ voxels); give a smaller volume"
            )
        return n_i, n_j, n_k
