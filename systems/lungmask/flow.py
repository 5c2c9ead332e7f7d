"""Lung segmentation on chest CT: series → slices on the server → right and left lung.

The client crops each slice to the body, the network labels the crop, and the client cleans the
volume and puts the labels back where they belong (spec lungmask §3 to §5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import lungmask as catalog
from hilum.client.calls import Calls
from hilum.client.trace import span
from hilum.postprocessing.lungmask import lungs_of_volume, uncrop
from hilum.preprocessing.lungmask import Box, prepare_slice
from hilum.preprocessing.reading.series import Series
from hilum.preprocessing.windows import display_window, doubts_about_hu

from ..studies import open_study
from .options import Options
from .result import Labels, LungmaskResult

Slice = NDArray[np.int16]

PREVIEW_SIDE = 288
"""Longer side in pixels of the slices that are kept for the pictures."""


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


def slice_lungs(hu: Slice, calls: Calls) -> CropLabels:
    """Label the lungs of one slice [H, W] in HU, row 0 anterior, column 0 patient right."""
    with span("preprocess"):
        crop, box = prepare_slice(hu)
    inputs = calls.integers(catalog.R231.model, {"hu": crop[None]})
    answer = calls.infer(catalog.R231.model, inputs, ["label"])
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
    calls: Calls,
    *,
    clean: bool = True,
    in_flight: int = 4,
    look: Callable[[int, Slice], None] | None = None,
) -> Lungs:
    """Segment the lungs of a series; for other systems, too.

    Slices are decoded as they are needed: `in_flight` run at once, so that decoding, the
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
    step, show = calls.steps("slices", len(series)), look or _unseen

    def one(index: int) -> tuple[CropLabels, tuple[int, int]]:
        with span("read"):
            hu = series.slice(index)
            show(index, hu)
            limits = int(hu.min()), int(hu.max())
        crop = slice_lungs(hu, calls)
        step()
        return crop, limits

    found = calls.map(one, range(len(series)), in_flight)
    crops = [crop for crop, _ in found]
    _, height, width = series.geometry.shape
    with span("postprocess"):
        labels = assemble_lungs(crops, (height, width), clean=clean)
    lows, highs = zip(*(limits for _, limits in found), strict=True)
    return Lungs(labels, (min(lows), max(highs)), crops[0].transport)


def _unseen(index: int, hu: Slice) -> None:
    """Nobody looks at the slices."""


def segment(study: Any, options: Options, calls: Calls) -> LungmaskResult:
    """Segment one series.

    Parameters
    ----------
    study
        What `systems.studies.open_study` takes.

    Raises
    ------
    InputError
        For anything that is not one CT series.
    """
    with span("read"):
        series = open_study(study, series=options.series, acquisition=options.acquisition)
    depth, height, width = series.geometry.shape
    step = -(-max(height, width) // PREVIEW_SIDE)
    preview = np.empty((depth, -(-height // step), -(-width // step)), np.uint8)

    def look(index: int, hu: Slice) -> None:
        preview[index] = display_window(hu[::step, ::step])

    lungs = series_lungs(
        series, calls, clean=options.clean, in_flight=options.slices_in_flight, look=look
    )
    with span("postprocess"):
        return _result(series, lungs, preview, options)


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
    flags += series.flags
    if missing := series.where_missing():
        flags.append("gaps")
        notes.append(
            f"slices are missing between slices {missing} from the head: volumes hold what is "
            "interpolated there"
        )
    return LungmaskResult(
        status=flags[0] if flags else "ok",
        flags=tuple(flags),
        voxels=tuple(counts),
        volumes_ml=(
            series.millilitres(lungs.labels == catalog.RIGHT),
            series.millilitres(lungs.labels == catalog.LEFT),
        ),
        hu_range=lungs.hu_range,
        notes=tuple(notes),
        clean=options.clean,
        mode=options.mode,
        transport=lungs.transport,
        lung=lungs.labels,
        preview=preview,
        series=series,
    )
