"""Volumes that come normalised: the input in which the authors published their follow-up data."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hilum.catalog.dlpe import FIELD_MM, MULTIPLE, SIDE
from hilum.catalog.errors import BadFormat, Unreadable

from ..reading.limits import check_crammed
from ..reading.parsing import parsing
from ..reading.volume import Geometry, Reorientation
from .grid import MAX_SIDE, Normalised, Shape, Space

SUFFIXES = (".npy", ".npz")

KEY = "array"
"""Name of the volume in an ``.npz`` file."""

_LARGEST = 25.0
"""Largest normalised value (16 bits of HU reach ±21); beyond it, values are Hounsfield units."""


def read_normalised(path: Path | str) -> Normalised:
    """Read a volume that is in normalised space already.

    Parameters
    ----------
    path
        ``.npy``, or ``.npz`` with the key ``array``: floating point [x, y, z], sides multiples of
        16.

    Returns
    -------
    The volume with a geometry of its own, centred on 0: where it lay in the scanner is not known.
    Voxels of a cube cover the field of 334 × 334 × 512 mm; of another shape they are those of the
    published 512³.

    Raises
    ------
    InputError
        For a damaged file, one that holds something else, and values that are not normalised.
    """
    path = Path(path)
    unreadable = (
        f"no readable {path.suffix or 'array'} file of one array; write it with numpy.save, or "
        f"numpy.savez with the key {KEY!r}"
    )
    with parsing(unreadable), _opened(path) as stream:
        shape, dtype = _header(stream)
    _check(shape, dtype)
    check_crammed(math.prod(shape) * dtype.itemsize, path.stat().st_size)
    with parsing(unreadable), _opened(path) as stream:
        read = npy.read_array(stream, allow_pickle=False)
    voxels = np.ascontiguousarray(read, np.float32)
    _check_values(voxels)
    space, geometry = _own_space((shape[0], shape[1], shape[2]))
    return Normalised(voxels=voxels, space=space, geometry=geometry, notes=space.notes)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if not path.is_file():
        raise Unreadable("no such file; check the path")
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive, archive.open(f"{KEY}.npy") as stream:
            yield stream
    else:
        with path.open("rb") as stream:
            yield stream


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that a file declares, before memory is set aside for them."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _check(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    sides = f"multiples of {MULTIPLE} up to {MAX_SIDE}"
    if len(shape) != 3 or any(n % MULTIPLE or not MULTIPLE <= n <= MAX_SIDE for n in shape):
        raise BadFormat(
            f"an array {list(shape)} is no normalised volume; give [x, y, z] whose sides are "
            f"{sides}, or the CT itself"
        )
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise BadFormat(
            f"an array of {dtype} is no normalised volume; give floating point numbers, "
            "(HU + 600) / 1600, or the CT itself"
        )


def _check_values(voxels: NDArray[np.float32]) -> None:
    low, high = float(voxels.min()), float(voxels.max())
    if not max(-low, high) <= _LARGEST:  # not so for values that are no numbers, too
        raise BadFormat(
            f"values from {low:g} to {high:g} are not normalised; give (HU + 600) / 1600, without "
            "values that are no numbers, or the CT itself"
        )


def _own_space(shape: Shape) -> tuple[Space, Geometry]:
    """The grid of the volume itself as its scan, and that grid around the origin."""
    sides = shape if len(set(shape)) == 1 else (SIDE, SIDE, SIDE)
    size = tuple(mm / n for mm, n in zip(FIELD_MM, sides, strict=True))
    back, left, up = shape
    along_y, along_x, along_z = size
    geometry = Geometry(
        (up, back, left),
        (-(left - 1) / 2 * along_x, -(back - 1) / 2 * along_y, -(up - 1) / 2 * along_z),
        (along_z, along_y, along_x),
        ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    space = Space(
        mode="parity",
        shape=shape,
        field_mm=(back * along_y, left * along_x, up * along_z),
        source_shape=shape,
        spacing=(along_y, along_x, along_z),
        matrix=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        offset=(0.0, 0.0, 0.0),
        reorientation=Reorientation(),
        notes=("a volume that came normalised: its place in the scanner is not known",),
    )
    return space, geometry
