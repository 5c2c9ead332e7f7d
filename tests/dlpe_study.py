"""A DLPE result whose masks are the truth of a phantom, in normalised space and with real parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hilum.postprocessing.dlpe.enhancement import enhance
from hilum.preprocessing.dlpe.space import Normalised, normalise
from hilum.preprocessing.phantoms.ct import CtPhantom, chest_ct
from hilum.preprocessing.reading.series import Series
from hilum.preprocessing.reading.volume import Reorientation, Volume
from hilum.systems.dlpe.result import DlpeResult
from hilum.systems.studies import open_study

RANDOM = "RANDOM WEIGHTS: not the published networks, the result means nothing."


@dataclass(frozen=True)
class Study:
    """A phantom, and what DLPE would find if its networks knew the truth."""

    phantom: CtPhantom
    result: DlpeResult


def truth_volume(phantom: CtPhantom, mask: np.ndarray) -> Volume:
    """A mask of the phantom as a CT whose normalised values are 0 and 1."""
    hu = np.where(mask > 0, 1000, -600).astype(np.int16)
    return Volume(hu, phantom.volume.geometry)


def make_study(
    *, side: int = 64, size: int = 96, slices: int = 48, turn: Reorientation | None = None,
    mode: Any = "parity", **changed: Any,
) -> Study:  # fmt: skip
    """Normalise a phantom, lay the truth over it, enhance it.

    `turn`: the order in which the file has the volume.
    """
    phantom = chest_ct(3, slices=slices, size=size)
    turn = turn or Reorientation()

    def opened(volume: Volume) -> Series:
        return open_study(volume.reoriented(turn))

    series = opened(phantom.volume)
    normalised = normalise(series, mode, side)
    truth = {
        "lung": phantom.lung, "airway": phantom.airway, "vessel": phantom.vessel,
        "visible": phantom.lesion, "in_patient": phantom.lesion,
    }  # fmt: skip
    masks = {
        name: (normalise(opened(truth_volume(phantom, mask)), mode, side, fill_hu=-600).voxels
               > 0.5).astype(np.uint8)
        for name, mask in truth.items()
    }  # fmt: skip
    result = result_of(normalised, masks, series, mode, **changed)
    return Study(phantom, result)


def result_of(
    normalised: Normalised, masks: dict[str, np.ndarray], series: Series | None, mode: Any,
    *, enhanced: bool = True, **changed: Any,
) -> DlpeResult:  # fmt: skip
    """A result of masks in normalised space; with the real enhancement."""
    enhancement = None
    if enhanced and masks["lung"].any():
        enhancement = enhance(
            normalised.voxels, masks["lung"], masks["airway"], masks["vessel"], mode
        )
    result = DlpeResult(
        source=series.description if series else "a normalised volume",
        mode=mode,
        cohort="in-patient",
        preview=normalised.space.shape != (512, 512, 512),
        normalised=normalised,
        masks=masks,
        enhancement=enhancement,
        timings={"read": 0.5, "stage_one": 3.25},
        counts={"passes": 700, "published_passes": 1536, "slabs": 48, "bytes_sent": 10**7},
        notes=normalised.notes,
        transport="shared memory",
        series=series,
        weights_note=RANDOM,
    )
    return replace(result, **changed)
