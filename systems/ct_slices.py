"""Where the slices of a CT study come from: a series, pictures, or an array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import BadFormat, InputError
from hilum.catalog.terms import Window
from hilum.preprocessing.reading.ct_headers import list_files
from hilum.preprocessing.reading.dicom import is_dicom
from hilum.preprocessing.reading.own_results import is_own_result
from hilum.preprocessing.reading.series import Series
from hilum.preprocessing.reading.slice_pictures import is_slice_picture, read_slice_picture
from hilum.preprocessing.reading.volume import Reorientation
from hilum.preprocessing.windows import ct_angel_window, jpeg_roundtrip

from . import studies
from .studies import open_study


@dataclass(frozen=True, slots=True)
class WindowedSlice:
    """One slice as its network and its picture show it.

    Attributes
    ----------
    pixels
        uint8 [H, W].
    range_hu
        Lowest and highest value before the window; None for pictures.
    notes
        What was done to it, human-readable.
    """

    pixels: NDArray[np.uint8]
    range_hu: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grey:
    """How Hounsfield units become grey levels.

    Attributes
    ----------
    jpeg
        Write and read a JPEG on the way, as the published recipe does.
    """

    window: Window
    jpeg: bool = False

    def apply(self, hu: NDArray[np.int16]) -> WindowedSlice:
        """Window one slice, int16 [H, W]."""
        pixels = ct_angel_window(hu, self.window)
        return WindowedSlice(
            jpeg_roundtrip(pixels) if self.jpeg else pixels, (int(hu.min()), int(hu.max()))
        )


class Slices(Protocol):
    """The slices of a study, read and windowed one by one.

    Attributes
    ----------
    description
        Number, size and spacing, human-readable.
    ordered
        They are one series: neighbours in the list are neighbours in the body.
    sides_known
        Column 0 is on the patient's right, row 0 anterior.
    positions
        Along the slices' normal in mm, ascending.
    numbers
        InstanceNumber of each.
    file_order
        Number of each in the file's own order.
    breaks
        Slices after which slices are missing.
    flags
        What casts doubt on lengths or sides: codes of `preprocessing.reading.notes`.
    notes
        What is unusual, human-readable; free of identifiers.
    """

    description: str
    ordered: bool
    sides_known: bool
    positions: tuple[float, ...] | None
    numbers: tuple[int | None, ...]
    file_order: tuple[int | None, ...]
    breaks: tuple[int, ...]
    flags: tuple[str, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, index: int) -> WindowedSlice:
        """Decode and window one slice."""
        ...


class SeriesSlices:
    """The slices of a series in LPS order."""

    ordered = sides_known = True

    def __init__(self, series: Series, grey: Grey) -> None:
        self.series, self._grey = series, grey
        self.description = series.description
        self.positions: tuple[float, ...] | None = series.positions
        self.numbers = series.numbers
        self.file_order = series.file_order
        self.flags = series.flags
        self.breaks = series.breaks
        self.notes = series.notes + tuple(_notes_on_frame(series))

    def __len__(self) -> int:
        return len(self.series)

    def read(self, index: int) -> WindowedSlice:
        """Decode and window one slice."""
        return self._grey.apply(self.series.slice(index))


class PictureSlices:
    """Windowed slices that are pictures; each stands for itself (spec ct-angel §10 P10)."""

    ordered = sides_known = False
    positions: tuple[float, ...] | None = None
    breaks: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self.description = f"{len(self._paths)} picture(s)"
        self.numbers: tuple[int | None, ...] = (None,) * len(self._paths)
        self.file_order: tuple[int | None, ...] = self.numbers
        self.notes: tuple[str, ...] = (
            "pictures are taken as they are: their window is not known, nor which side is left",
        )
        if len(self._paths) > 1:
            self.notes += ("pictures, in the order of their names; the order in the body is"
                           " not known",)  # fmt: skip

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> WindowedSlice:
        """Decode one picture."""
        try:
            picture = read_slice_picture(self._paths[index])
        except InputError as error:
            if len(self._paths) == 1:
                raise
            raise type(error)(f"picture {index + 1} in the order of names: {error}") from None
        return WindowedSlice(picture.pixels, None, picture.notes)


class ArraySlices:
    """An array of 8-bit slices that are windowed already; each stands for itself."""

    ordered = sides_known = False
    positions: tuple[float, ...] | None = None
    breaks: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ("8-bit slices are taken as windowed, each for itself",)

    def __init__(self, planes: NDArray[np.uint8]) -> None:
        """Check the array, uint8 [z, H, W] or [H, W].

        Raises
        ------
        InputError
            For any other shape.
        """
        planes = planes[None] if planes.ndim == 2 else planes
        if planes.ndim != 3 or 0 in planes.shape:
            raise BadFormat(f"array {list(planes.shape)}: give slices as [z, H, W] or [H, W]")
        self._planes = planes
        depth, height, width = planes.shape
        self.description = f"{depth} slice(s) of {width} × {height}"
        self.numbers: tuple[int | None, ...] = (None,) * depth
        self.file_order: tuple[int | None, ...] = self.numbers

    def __len__(self) -> int:
        return len(self._planes)

    def read(self, index: int) -> WindowedSlice:
        """One slice."""
        return WindowedSlice(np.ascontiguousarray(self._planes[index]))


def open_slices(
    study: Any, grey: Grey, series: str | None = None, acquisition: int | None = None
) -> Slices:
    """Open the slices of a study; no pixels are read.

    Parameters
    ----------
    study
        What `studies.open_study` takes, a picture or a folder of pictures, or an array of
        uint8 slices that are windowed already.
    series
        Which series of a folder with several; None: the axial chest CT with the most voxels.
    acquisition
        Which of several acquisitions of the series, see `open_series`.

    Raises
    ------
    InputError
        When it holds no CT slices.
    """
    if isinstance(study, np.ndarray) and study.dtype == np.uint8:
        return ArraySlices(np.asarray(study, np.uint8))
    if isinstance(study, (str, Path)):
        pictures = _pictures(Path(study))
        if pictures:
            return PictureSlices(pictures)
    return SeriesSlices(open_study(study, series=series, acquisition=acquisition), grey)


def find_studies(path: Path) -> list[Path]:
    """List the studies that `path` stands for: those of all CT systems, and folders of pictures."""
    found = studies.find_studies(path)
    if not path.is_dir():
        return found
    return list(dict.fromkeys(p.parent if is_slice_picture(p) else p for p in found))


def _pictures(path: Path) -> list[Path]:
    """A picture itself, or those of a folder without any DICOM."""
    if is_slice_picture(path):
        return [path]
    if not path.is_dir():
        return []
    files = list_files([path])
    pictures = [
        p for p in files if p.parent == path and is_slice_picture(p) and not is_own_result(p)
    ]
    return [] if pictures and any(map(_is_dicom_file, files)) else pictures


def _is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return is_dicom(stream.read(256))
    except OSError:
        return False


def _notes_on_frame(series: Series) -> Iterator[str]:
    """What is to be known about the pixels in which boxes are given."""
    turned = series.reorientation
    if turned.axes != (0, 1, 2) or any(turned.flips[1:]):
        yield (
            "slices were turned so that row 0 is anterior and column 0 on the patient's right; "
            "boxes are in pixels of the turned slices"
        )
    elif turned != Reorientation():
        yield "slices were stored from the head down; lists of slices begin at the feet"
    _, height, width = series.geometry.shape
    if height != width:
        yield f"slices of {width} × {height} were padded with black to a square"
