"""COVID-MTL studies as `hilum run` does them, in a process of its own, with what they cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import covid_mtl as catalog
from hilum.client import Client
from hilum.client.malloc import keep_large_buffers
from hilum.preprocessing.covid_mtl.radiomics import radiomic_features
from hilum.preprocessing.phantoms.ct import FIELD_MM, HEIGHT_MM, chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import Geometry, Volume
from hilum.systems.covid_mtl.result import CovidMtlResult
from hilum.systems.processes import POOLS

from .memory import peak_bytes, session

DEADLINE_S = 1800.0
"""For one request: features of large lungs take minutes on few cores."""

SLICES, PIXELS = 300, 512
"""Of the phantom series at full size."""

CLIENT, SERVER = "client", "server"
"""Where the features are computed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One study.

    Attributes
    ----------
    seconds
        By stage as the pipeline names them, ``total`` included.
    mask
        uint8 [z, y, x] in voxels of 1 mm.
    features
        float64 [375].
    probabilities
        By head.
    replaced, clipped
        Features that are stand-ins, and those that were limited.
    peak_bytes
        Sum of what this process and those that it started had at most so far.
    """

    placement: str
    seconds: Mapping[str, float]
    mask: NDArray[np.uint8]
    features: NDArray[np.float64]
    probabilities: Mapping[str, NDArray[np.float32]]
    replaced: int
    clipped: int
    flags: tuple[str, ...]
    transport: str
    peak_bytes: int


class Studies:
    """Runs studies; for a process of its own, see `memory.apart`.

    Parameters
    ----------
    url
        Of the server.
    series
        Folder of the DICOM series.
    """

    def __init__(self, url: str, series: Path) -> None:
        keep_large_buffers()  # as the command line does
        os.setsid()  # what it starts is then known from what others start
        self._url, self._series = url, series
        with Client(url, deadline_s=DEADLINE_S) as client:  # the first answer takes longer
            window = np.zeros((1, *catalog.WINDOW), np.float16)
            given = {"volume": window, "radiomics": np.zeros((1, 375), np.float32)}
            client.infer(catalog.ENSEMBLE.model, given, [t.name for t in catalog.ANSWERS])

    def one(self, placement: str) -> Outcome:
        """Run one study, as a service does: its processes are there already."""
        warm_up()
        with Client(self._url, deadline_s=DEADLINE_S) as client:
            found: CovidMtlResult = client.run(
                catalog.SYSTEM.name, self._series, radiomics=placement
            )
        if found.features is None or found.scaled is None:
            raise TypeError("the network took no features")
        return Outcome(
            found.placement, dict(found.seconds), found.prepared.lungs.mask, found.features,
            dict(found.probabilities), len(found.scaled.replaced), len(found.scaled.clipped),
            found.flags, found.transport,
            sum(peak_bytes(process) for process in session(os.getpid())),
        )  # fmt: skip


def warm_up() -> None:
    """Start the processes that studies share, and load what the first features would wait for."""
    few = np.arange(1, 65, dtype=np.uint16).reshape(4, 4, 4)
    radiomic_features(few)
    with POOLS.use(0) as pool:
        radiomic_features(few, pool=pool)


def write_phantom(folder: Path, scale: float, seed: int) -> str:
    """Write a chest phantom as a DICOM series; what it is in words.

    Parameters
    ----------
    scale
        Of the body: at 0.5 it has half of its sizes along every axis, in voxels of the same size.
    """
    slices, pixels = round(SLICES * scale), round(PIXELS * scale)
    made = chest_ct(seed, slices=slices, size=pixels).volume
    spacing = (HEIGHT_MM / SLICES, FIELD_MM / PIXELS, FIELD_MM / PIXELS)
    geometry = Geometry(made.geometry.shape, made.geometry.origin, spacing, made.geometry.direction)
    write_dicom_series(Volume(made.voxels, geometry, made.notes), folder)
    return open_series(folder).description
