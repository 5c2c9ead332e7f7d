"""Lung segmentation on chest CT: series → slices on the server → right and left lung.

The client crops each slice to the body, the network labels the crop, and the client cleans the
volume and puts the labels back where they belong (spec lungmask §3 to §5).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...catalog import lungmask as catalog
from ...catalog.errors import InputError
from ...postprocessing.lungmask import lungs_of_volume, uncrop
from ...preprocessing.images import Mode
from ...preprocessing.lungmask import Box, prepare_slice
from ...preprocessing.series import Series
from ...preprocessing.windows import display_window, doubts_about_hu
from .. import calls
from ..nifti_image import nifti_image, save_nifti
from ..pictures.lungmask import draw
from .base import option
from .ct_source import CtSource, find_studies, open_source

Slice = NDArray[np.int16]
Labels = NDArray[np.uint8]

MAX_SLICES_IN_FLIGHT = 64
"""Beyond this, slices only wait."""

PREVIEW_SIDE = 288
"""Longer side in pixels of the slices that are kept for the pictures."""


def check_in_flight(slices: int) -> None:
    """Refuse a number of slices in flight that makes no sense."""
    if not 1 <= slices <= MAX_SLICES_IN_FLIGHT:
        raise InputError(f"{slices} slices in flight; give 1 to {MAX_SLICES_IN_FLIGHT}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be chosen for a run.

    Raises
    ------
    InputError
        For a mode that does not exist or a number of slices out of range.
    """

    mode: Mode = option("parity", "parity or corrected: the same here, no fault is known.")
    clean: bool = option(True, "Clean the volume: no stray pieces, no holes.")
    series: str | None = option(None, "Which series of a mixed folder: its number, or its UID.")
    slices_in_flight: int = option(4, "Slices in work at once.")

    def __post_init__(self) -> None:
        if self.mode not in ("parity", "corrected"):
            raise InputError(f"no mode {self.mode!r}; choose parity or corrected")
        check_in_flight(self.slices_in_flight)


@dataclass(frozen=True, slots=True)
class CropLabels:
    """What the network says about the body's box of one slice.

    Attributes
    ----------
    labels
        uint8 [256, 256].
    """

    labels: Labels
    box: Box
    transport: str


@dataclass(frozen=True, slots=True)
class Lungs:
    """The lungs of a series.

    Attributes
    ----------
    labels
        uint8 [z, y, x] in LPS order: 0, 1 right lung, 2 left lung.
    hu_range
        Lowest and highest value of the series.
    """

    labels: Labels
    hu_range: tuple[int, int]
    transport: str


def slice_lungs(hu: Slice) -> calls.Steps[CropLabels]:
    """Label the lungs of one slice [H, W] in HU, row 0 anterior, column 0 patient right."""
    crop, box = yield calls.Compute(lambda: prepare_slice(hu), "preprocess")
    inputs = yield from calls.integers(catalog.R231.model, {"hu": crop[None]})
    answer = yield from calls.infer(catalog.R231.model, inputs, ["label"])
    return CropLabels(answer.outputs["label"][0], box, answer.transport)


def assemble_lungs(
    crops: list[CropLabels], shape: tuple[int, int], *, clean: bool = True
) -> Labels:
    """Put the labels of all slices together.

    Parameters
    ----------
    crops
        In the order of the slices.
    shape
        Height and width of a slice.
    clean
        Clean the volume, see `postprocessing.lungmask.clean_volume`.

    Returns
    -------
    uint8 [z, y, x].
    """
    labels, boxes = np.stack([c.labels for c in crops]), [c.box for c in crops]
    return (lungs_of_volume if clean else uncrop)(labels, boxes, shape)


def series_lungs(
    series: Series,
    *,
    clean: bool = True,
    in_flight: int = 4,
    look: Callable[[int, Slice], None] | None = None,
) -> calls.Steps[Lungs]:
    """Segment the lungs of a series; for other pipelines, too.

    Slices are decoded as they are needed: `in_flight` are in work at once, so that decoding, the
    network and the way there overlap, and the server makes batches of what waits.

    Parameters
    ----------
    look
        Called with the index and the HU of each slice once it is decoded, from several threads.

    Raises
    ------
    InputError
        When a slice cannot be decoded.
    """
    done, show = itertools.count(1), look or _unseen

    def read(index: int) -> tuple[Slice, tuple[int, int]]:
        hu = series.slice(index)
        show(index, hu)
        return hu, (int(hu.min()), int(hu.max()))

    def one(index: int) -> calls.Steps[tuple[CropLabels, tuple[int, int]]]:
        hu, limits = yield calls.Compute(lambda: read(index), "read")
        crop = yield from slice_lungs(hu)
        yield calls.Tell("slices", next(done), len(series))
        return crop, limits

    found = yield from calls.each(one, range(len(series)), in_flight)
    crops = [crop for crop, _ in found]
    _, height, width = series.geometry.shape
    labels = yield calls.Compute(
        lambda: assemble_lungs(crops, (height, width), clean=clean), "postprocess"
    )
    lows, highs = zip(*(limits for _, limits in found), strict=True)
    return Lungs(labels, (min(lows), max(highs)), crops[0].transport)


def _unseen(index: int, hu: Slice) -> None:
    """Nobody looks at the slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LungmaskResult:
    """The lungs of one chest CT.

    Attributes
    ----------
    status
        "ok", or the worst of the flags.
    flags
        ``doubtful_hu``, ``no_lung``, ``no_right_lung``, ``no_left_lung``.
    voxels
        By label, in the order of `catalog.lungmask.LABELS`.
    volumes_ml
        Right and left lung.
    notes
        What is unusual about the series, for people to read.
    lung
        uint8 [z, y, x] in LPS order: 0, 1 right lung, 2 left lung.
    preview
        uint8 [z, h, w], the slices in the lung window, every n-th pixel.
    """

    status: str
    flags: tuple[str, ...]
    voxels: tuple[int, ...]
    volumes_ml: tuple[float, float]
    hu_range: tuple[int, int]
    notes: tuple[str, ...]
    clean: bool
    mode: Mode
    transport: str
    lung: Labels = field(repr=False)
    preview: NDArray[np.uint8] = field(repr=False)
    series: Series = field(repr=False)

    def report(self) -> dict[str, Any]:
        """The fields of the report, ready for JSON."""
        geometry = self.series.geometry
        right, left = (round(v, 3) for v in self.volumes_ml)
        return {
            "status": self.status,
            "flags": list(self.flags),
            "volumes_ml": {"right": right, "left": left, "both": round(right + left, 3)},
            "voxels": dict(zip(catalog.LABELS, self.voxels, strict=True)),
            "shape": list(geometry.shape),
            "spacing_mm": [round(s, 6) for s in geometry.spacing],
            "hu_range": list(self.hu_range),
            "format": self.series.kind,
            "clean": self.clean,
            "notes": list(self.notes),
            "transport": self.transport,
        }

    def arrays(self) -> dict[str, NDArray[np.uint8]]:
        """What `--save-arrays` keeps."""
        return {"lung": self.lung}

    def row(self) -> dict[str, str]:
        """One line of the table on the terminal."""
        right, left = self.volumes_ml
        return {
            "slices": str(len(self.series)),
            "right ml": f"{right:.0f}",
            "left ml": f"{left:.0f}",
            "status": self.status,
        }

    def write_files(self, folder: Path, name: str) -> list[str]:
        """Write the labels on the grid of the input as ``<name>-lung.nii.gz``."""
        file = f"{name}-lung.nii.gz"
        stored = self.series.reorientation.undo(self.lung)
        save_nifti(nifti_image(stored, self.series.stored_geometry), folder / file)
        return [file]

    def write_pictures(self, folder: Path, name: str, note: str) -> list[str]:
        """Write three sections as ``<name>-lung.png``; `note` says whose weights these are."""
        file = f"{name}-lung.png"
        draw(self, note).save(folder / file)
        return [file]


class Lungmask:
    """The pipeline of the system `lungmask`."""

    system: ClassVar = catalog.SYSTEM
    options_type: ClassVar = Options
    noun: ClassVar = "chest CT"

    def models(self, options: Options) -> tuple[str, ...]:  # noqa: ARG002
        """Names of the Triton models that a run asks for."""
        return (catalog.R231.model,)

    networks = models

    def find(self, path: Path) -> list[Path]:
        """The series that an argument of the command line stands for, see `find_studies`."""
        return find_studies(path)

    def study(self, source: CtSource, options: Options) -> calls.Steps[LungmaskResult]:
        """Segment one series; yields actions for the client's drivers.

        Parameters
        ----------
        source
            A DICOM folder or file, a NIfTI file, its bytes, a `Series`, a `Volume`, or voxels
            [z, y, x] in HU and LPS order.

        Raises
        ------
        InputError
            For anything that is not one CT series.
        """
        series = yield calls.Compute(lambda: open_source(source, series=options.series), "read")
        depth, height, width = series.geometry.shape
        step = -(-max(height, width) // PREVIEW_SIDE)
        preview = np.empty((depth, -(-height // step), -(-width // step)), np.uint8)

        def look(index: int, hu: Slice) -> None:
            preview[index] = display_window(hu[::step, ::step])

        lungs = yield from series_lungs(
            series, clean=options.clean, in_flight=options.slices_in_flight, look=look
        )
        return (
            yield calls.Compute(lambda: _result(series, lungs, preview, options), "postprocess")
        )


def _result(
    series: Series, lungs: Lungs, preview: NDArray[np.uint8], options: Options
) -> LungmaskResult:
    counts = [int(np.count_nonzero(lungs.labels == k)) for k in range(len(catalog.LABELS))]
    flags, notes = [], list(series.notes)
    if doubt := doubts_about_hu(*lungs.hu_range):
        flags.append("doubtful_hu")
        notes.append(doubt)
    if not any(counts[1:]):
        flags.append("no_lung")
    else:
        sides = ((catalog.RIGHT, "no_right_lung"), (catalog.LEFT, "no_left_lung"))
        flags += [flag for label, flag in sides if not counts[label]]
    if series.breaks:
        after = ", ".join(str(i + 1) for i in series.breaks)
        notes.append(f"slices are missing after slice {after}: the volumes are not real")
    ml = series.geometry.voxel_ml
    return LungmaskResult(
        status=flags[0] if flags else "ok",
        flags=tuple(flags),
        voxels=tuple(counts),
        volumes_ml=(counts[catalog.RIGHT] * ml, counts[catalog.LEFT] * ml),
        hu_range=lungs.hu_range,
        notes=tuple(notes),
        clean=options.clean,
        mode=options.mode,
        transport=lungs.transport,
        lung=lungs.labels,
        preview=preview,
        series=series,
    )
