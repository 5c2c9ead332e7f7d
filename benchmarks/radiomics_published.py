"""The 375 radiomic features as the published program computes them, and runs on their own.

PyRadiomics six times over the whole common box (spec covid_mtl §7.1): four classes on the original
image, two on all wavelet bands, each with its own reading of the mask and its own wavelet
transform.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.covid_mtl_features import BIN_WIDTH, FEATURES, WAVELET_GLCM
from ..preprocessing.radiomics import radiomic_features
from ..preprocessing.workers import open_pool
from .memory import peak_bytes

_PASSES = (
    ("Original", {"firstorder": None}),
    ("Original", {"glcm": None}),
    ("Original", {"glrlm": None}),
    ("Original", {"glszm": None}),
    ("Wavelet", {"glcm": list(WAVELET_GLCM)}),
    ("Wavelet", {"glrlm": None}),
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run in a process of its own.

    Attributes
    ----------
    features
        float64 [375].
    seconds
        Of the computation, the start of the process left out; the start of its own ones counts.
    cpu_seconds
        Of the process and its own ones; steadier than `seconds` on a busy machine.
    peak_bytes
        Most resident memory of the process, and of the largest of its own ones for each of them.
    """

    features: NDArray[np.float64]
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def published_features(volume: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Compute the features as published; see `preprocessing.radiomics.radiomic_features`."""
    import SimpleITK
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    image = SimpleITK.GetImageFromArray(volume)
    mask = SimpleITK.GetImageFromArray((volume > 0).astype(np.uint8))
    found: dict[str, float] = {}
    for kind, classes in _PASSES:
        extractor = RadiomicsFeatureExtractor(binWidth=BIN_WIDTH)
        extractor.disableAllImageTypes()
        extractor.enableImageTypeByName(kind)
        extractor.disableAllFeatures()
        extractor.enableFeaturesByName(**classes)
        values: dict[str, Any] = extractor.execute(image, mask)
        found |= {_short(name): float(v) for name, v in values.items() if _is_feature(name)}
    return np.array([found[name] for name in FEATURES])


def run_alone(volume: NDArray[np.uint16], processes: int | None) -> Run:
    """Run one of the two in a fresh process.

    Parameters
    ----------
    volume
        uint16 [z, y, x].
    processes
        None: the published procedure; else Hilum's in as many processes.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_run, volume, processes).result()


def _run(volume: NDArray[np.uint16], processes: int | None) -> Run:
    start, cpu = time.perf_counter(), _cpu_seconds()
    if processes is None:
        features = published_features(volume)
    elif processes == 1:
        features = radiomic_features(volume)
    else:
        with open_pool(processes) as pool:
            features = radiomic_features(volume, pool=pool)
    seconds = time.perf_counter() - start
    # The kernel's ru_maxrss of this process would be that of the one that started it.
    peak = peak_bytes()
    if processes is not None and processes > 1:
        peak += 1024 * processes * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Run(features, seconds, _cpu_seconds() - cpu, peak)


def _cpu_seconds() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _is_feature(name: str) -> bool:
    return not name.startswith(("diagnostics_", "general_"))


def _short(name: str) -> str:
    """A name in the published table: bands keep their class, the original image does not."""
    kind, rest = name.split("_", 1)
    return (
        rest.split("_", 1)[1] if kind == "original" else f"{kind.removeprefix('wavelet-')}_{rest}"
    )
