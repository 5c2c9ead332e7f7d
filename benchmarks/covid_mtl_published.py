"""COVID-MTL as published, in one process: slice after slice, uncropped radiomics, PyTorch eager.

The program of spec covid_mtl §3 to §9 from a DICOM folder to probabilities, written from its
definitions with the libraries that it uses. Two things are not as published: the network computes
in single precision, for half precision is slow on a processor, and the features are limited to the
range that Hilum limits them to, so that both can give the same probabilities.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours, label
from skimage.segmentation import active_contour

from hilum.catalog import covid_mtl as catalog
from hilum.catalog.covid_mtl_features import BIN_WIDTH, FEATURES, WAVELET_GLCM
from hilum.preprocessing.covid_mtl.intake import published_values
from hilum.preprocessing.covid_mtl.pipeline import common_box, network_window
from hilum.preprocessing.covid_mtl.radiomics import scale
from hilum.preprocessing.covid_mtl.resample import target_shape

from .memory import peak_bytes

Stored = NDArray[np.uint16 | np.int16]
Mask = NDArray[np.bool_]
Triple = tuple[float, float, float]

_SMALL = (48, 48, 48)
"""Of a volume that the network is warmed up with."""

_OUTSIDE, _AIR, _ENCLOSED = range(3)
"""Classes of voxels before the lungs are filled."""


_PASSES = (
    ("Original", {"firstorder": None}),
    ("Original", {"glcm": None}),
    ("Original", {"glrlm": None}),
    ("Original", {"glszm": None}),
    ("Wavelet", {"glcm": list(WAVELET_GLCM)}),
    ("Wavelet", {"glrlm": None}),
)
"""What PyRadiomics computes, each with its own mask and wavelet transform (spec §7.1)."""


@dataclass(slots=True)
class Published:
    """A study by the published procedure.

    Attributes
    ----------
    seconds
        By the stages that Hilum's pipeline names.
    mask
        uint8 [z, y, x] in voxels of 1 mm.
    features
        float64 [375].
    probabilities
        By head.
    peak_bytes
        Most resident memory of the process.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    mask: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    features: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    probabilities: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    threads: int = 0
    peak_bytes: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


class Procedure:
    """Runs the procedure; for a process of its own, see `memory.apart`.

    Parameters
    ----------
    weights
        ``random`` or ``store``: those that are exported.
    box
        Size of the common box that the features are computed in. A smaller one than the published
        gives the same features when the lungs fit into it.
    """

    def __init__(self, weights: str, box: tuple[int, int, int] = catalog.CROP) -> None:
        self._box = box
        self._network = _network(weights)
        self._network(np.zeros(_SMALL, np.float16), np.zeros(375, np.float32))  # warm-up

    def run(self, folder: Path) -> Published:
        """Process the DICOM series in a folder."""
        import torch

        found = Published(threads=torch.get_num_threads())
        with found.stage("read"):
            raw, spacing = read(folder)
        with found.stage("resample"):
            stored = resample(raw, spacing)
        with found.stage("lungs"):
            lung = refined(stored, initial(stored))
        with found.stage("box"):
            masked = (stored * lung).astype(np.uint16)
            crop = common_box(masked)
            small = crop if self._box == catalog.CROP else common_box(masked, self._box)
        with found.stage("features"):
            found.features = published_features(small)
            scaled = scale(found.features).values
        with found.stage("network"):
            found.probabilities = self._network(network_window(crop), scaled)
        found.mask = lung.astype(np.uint8)
        found.peak_bytes = peak_bytes()
        return found


def read(folder: Path) -> tuple[Stored, Triple]:
    """Stack the files of a folder by the height of their corners (spec §3)."""
    files = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    files.sort(key=lambda f: float(f.ImagePositionPatient[2]))
    raw = np.stack([f.pixel_array.astype(np.int32) for f in files])
    heights = [float(f.ImagePositionPatient[2]) for f in files[:2]]
    z, y, x = (float(np.float32(s)) for s in (abs(heights[0] - heights[1]), *files[0].PixelSpacing))
    return published_values(raw), (z, y, x)


def resample(stored: Stored, spacing: Triple) -> Stored:
    """Bring a scan to voxels of 1 mm (spec §4.1)."""
    z, y, x = stored.shape
    shape = target_shape((z, y, x), spacing)
    factors = [t / n for n, t in zip(stored.shape, shape, strict=True)]
    zoomed: Any = ndimage.zoom(stored, factors, order=3, mode="nearest")
    return np.maximum(zoomed, zoomed.dtype.type(0))


def initial(stored: Stored) -> Mask:
    """The lungs by thresholds and components (spec §4.2)."""
    inner = np.stack([_inner_air(plane) for plane in stored < catalog.AIR])
    regions = _labels(inner + 1, 3)
    classes = np.where(inner, _AIR, _ENCLOSED)
    classes[(regions == regions[0, 0, 0]) | (regions == regions[-1, -1, -1])] = _OUTSIDE
    lung = np.stack([_all_but_largest(plane) for plane in classes])
    whole = _labels(lung, 3)
    sizes = np.bincount(whole.ravel())
    sizes[0] = 0
    return (whole == sizes.argmax()) & lung


def refined(stored: Stored, lung: Mask) -> Mask:
    """Refine the lungs, one slice after the other (spec §4.3)."""
    return np.stack([_refined(image, mask) for image, mask in zip(stored, lung, strict=True)])


def _inner_air(air: Mask) -> Mask:
    regions = _labels(air, 2)
    edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return air & ~np.isin(regions, edge)


def _all_but_largest(classes: NDArray[np.int64]) -> Mask:
    """Everything but the largest region of one class."""
    regions = _labels(classes + 1, 2)
    return regions != np.bincount(regions.ravel()).argmax()


def _refined(image: Stored, lung: Mask) -> Mask:
    regions = _labels(lung, 2)
    areas = np.bincount(regions.ravel())[1:]
    if len(areas) < 2 or areas.sum() < catalog.SMALL_LUNG:
        return _closing(lung, catalog.PLAIN_CLOSING)
    first = np.isin(regions, 1 + np.flatnonzero(areas == areas.max()))
    grown = lung | _outlined(image, first) | _outlined(image, lung & ~first)
    return _smoothed(grown)


def _outlined(image: Stored, lung: Mask) -> Mask:
    """What the active contours around a lung enclose."""
    inside = np.where(lung, image, image.dtype.type(0))
    closed = _closing(lung, catalog.OUTLINE_CLOSING).astype(np.float64)
    enclosed = np.zeros_like(lung)
    for contour in find_contours(closed, catalog.OUTLINE_LEVEL):
        snake: Any = active_contour(
            inside, contour, boundary_condition="periodic", **asdict(catalog.SNAKE)
        )
        outline = np.zeros_like(lung)
        rows, columns = snake.astype(np.int64).T
        outline[rows, columns] = True
        filled: Any = ndimage.binary_fill_holes(outline)
        enclosed |= filled
    return enclosed


def _smoothed(lung: Mask) -> Mask:
    regions = _labels(lung, 2)
    areas = np.bincount(regions.ravel())[1:]
    kept = (1 + np.flatnonzero(areas == areas.max())).tolist()
    rest = np.where(areas == areas.max(), 0, areas)
    if rest.any():
        kept.append(int(rest.argmax()) + 1)
    out = np.zeros_like(lung)
    for region in kept:
        smaller = _erosion(regions == region, catalog.LAST_EROSION)
        out |= _closing(smaller, catalog.LAST_CLOSING)
    return out


def _closing(mask: Mask, radius: int) -> Mask:
    grown: Any = ndimage.binary_dilation(mask, _disk(radius))
    return _erosion(grown, radius)


def _erosion(mask: Mask, radius: int) -> Mask:
    smaller: Any = ndimage.binary_erosion(mask, _disk(radius), border_value=1)
    return smaller


def _disk(radius: int) -> Mask:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius


def _labels(image: NDArray[Any], connectivity: int) -> NDArray[np.int64]:
    """Regions of equal values above 0, from 1 in scan order."""
    return np.asarray(label(image, connectivity=connectivity), np.int64)


def _network(weights: str) -> Callable[..., dict[str, NDArray[np.float32]]]:
    """The network in PyTorch: window and features to probabilities by head."""
    from .runs import torch_run

    run = torch_run(catalog.SYSTEM, catalog.DUAL, weights)

    def answer(
        window: NDArray[np.float16], scaled: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        found = run({"volume": window[None], "radiomics": scaled[None]})
        return {name: found[head.output][0] for name, head in catalog.HEADS.items()}

    return answer


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


def _is_feature(name: str) -> bool:
    return not name.startswith(("diagnostics_", "general_"))


def _short(name: str) -> str:
    """A name in the published table: bands keep their class, the original image does not."""
    kind, rest = name.split("_", 1)
    return (
        rest.split("_", 1)[1] if kind == "original" else f"{kind.removeprefix('wavelet-')}_{rest}"
    )
