"""DLPE's result in terms of DICOM objects: anatomy, lesions, window, enhanced volume, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hilum.catalog import dlpe as catalog
from hilum.catalog.terms import Window
from hilum.preprocessing.arrays import to_host
from hilum.preprocessing.dlpe.placement import patient_affine
from hilum.preprocessing.dlpe.space import to_source
from hilum.results.canvas import CYAN, RED
from hilum.results.dicom import codes
from hilum.results.dicom.codes import Code
from hilum.results.dicom.content import Content, Enhanced, Finding, Quantity, Rgb, Segment
from hilum.results.meshes import Surface
from hilum.results.sections import ORANGE

from ..dicom_terms import volume_finding
from .dicom_lesions import severity_of, table_rows
from .dicom_lungs import lungs_apart, zones
from .files import SHOWN_HU
from .meshes import YELLOW, lesions_in_parenchyma
from .result import LESIONS, DlpeResult

_ANATOMY: dict[str, tuple[str, Code, Rgb]] = {
    "lung": ("lungs", codes.LUNG, CYAN),
    "airway": ("airways", codes.AIRWAYS, (80, 160, 255)),
    "vessel": ("vessels", codes.VESSELS, ORANGE),
    "heart": ("heart", codes.HEART, (200, 60, 60)),
    "artery": ("arteries", codes.ARTERY, (90, 90, 255)),
    "vein": ("veins", codes.VEIN, (255, 90, 90)),
}
_LESION_COLOURS: dict[str, Rgb] = {
    "visible": RED,
    "follow_up": (60, 220, 90),
    "in_patient": (255, 210, 0),
    "lesion": (255, 80, 200),
}
SUB_VISUAL = "sub-visual lesions"


def content(result: DlpeResult) -> Content:
    """Everything that the result holds, on the grid of the input."""
    apart = list(lungs_apart(result, _models("lung")))
    organs = [name for name in _ANATOMY if name != "lung" or not apart]
    anatomy = [*(lung for lung, _ in apart), *_segments(result, organs)]
    lesions = list(_lesions(result))
    volumes = {_title(name): ml for name, ml in result.volumes_ml.items()}
    volumes |= {lung.name: ml for lung, ml in apart}
    shares = {_title(name): share for name, share in result.lesion_shares.items()}
    findings = [volume_finding(s, volumes[s.name]) for s in anatomy]
    for segment in lesions:
        share = shares[segment.name]
        more = () if share is None else (Quantity(codes.LUNG_SHARE, share, codes.ONE),)
        weight = severity_of(result, segment.name)
        findings.append(volume_finding(segment, volumes[segment.name], *more, *weight))
    hidden = _sub_visual(result)
    if hidden is not None:
        lesions.append(hidden[0])
        findings.append(volume_finding(hidden[0], hidden[1], *severity_of(result, SUB_VISUAL)))
    findings += [*zones(result), *table_rows(result, _title)]
    window = None
    if result.window is not None:
        level, width = result.window
        window = Window(width, level)
        findings.append(_window(result, window))
    return Content(
        system=catalog.SYSTEM.name,
        procedure=codes.CT_CHEST,
        frames=() if result.series is None else result.series.frames,
        anatomy=anatomy,
        lesions=lesions,
        findings=findings,
        window=window,
        enhanced=_enhanced(result),
        surfaces=_surfaces(result),
    )


def _title(name: str) -> str:
    return _ANATOMY[name][0] if name in _ANATOMY else f"{name.replace('_', '-')} lesions"


def _segments(result: DlpeResult, organs: Sequence[str]) -> Iterator[Segment]:
    for name in organs:
        _, kind, colour = _ANATOMY[name]
        if name in result.masks:
            yield Segment(
                name=_title(name),
                mask=_stored(result, name),
                category=codes.ANATOMY,
                type=kind,
                region=codes.LUNG if name == "vessel" else None,
                colour=colour,
                model=_models(name),
            )


def _lesions(result: DlpeResult) -> Iterator[Segment]:
    for name in LESIONS:
        if name in result.masks:
            yield Segment(
                name=_title(name),
                mask=_stored(result, name),
                category=codes.ABNORMAL,
                type=codes.LESION,
                region=codes.LUNG,
                colour=_LESION_COLOURS[name],
                model=_models(name),
            )


def _sub_visual(result: DlpeResult) -> tuple[Segment, float] | None:
    """What only the enhanced volume showed, with its ml; None where that is all there is."""
    if "visible" not in result.masks or not result.voxels["lung"]:
        return None
    mask = lesions_in_parenchyma(result.masks).get("sub-visual")
    if mask is None:
        return None
    segment = Segment(
        name=SUB_VISUAL,
        mask=to_host(to_source(mask.astype(np.uint8), result.normalised.space, "nearest")),
        category=codes.ABNORMAL,
        type=codes.LESION,
        region=codes.LUNG,
        colour=YELLOW,
        model=",".join(_models(n) for n in LESIONS if n in result.masks and n != "visible"),
    )
    return segment, int(np.count_nonzero(mask)) * result.normalised.space.voxel_ml


def _stored(result: DlpeResult, name: str) -> np.ndarray:
    return to_host(to_source(result.masks[name], result.normalised.space, "nearest"))


def _models(name: str) -> str:
    """Triton models of a mask's last networks; those of several masks have names of their own."""
    task = catalog.TASKS.get(name)
    if task is None:
        return ""
    return ",".join(task.network(direction).model for direction in catalog.DIRECTIONS)


def _window(result: DlpeResult, window: Window) -> Finding:
    quantities = [
        Quantity(codes.WINDOW_LEVEL, window.level, codes.HU),
        Quantity(codes.WINDOW_WIDTH, window.width, codes.HU),
    ]
    if result.enhancement is not None:
        quantities.append(Quantity(codes.BASELINE, result.enhancement.window_level, codes.HU))
    return Finding(name="window", type=codes.STUDY, site=codes.LUNG, quantities=quantities)


def _surfaces(result: DlpeResult) -> tuple[Surface, ...]:
    """Those that lie in the patient; where the scan's slices were mixed up, none do."""
    placed = patient_affine(result.normalised) is not None
    return (result.surfaces or ()) if placed else ()


def _enhanced(result: DlpeResult) -> Enhanced | None:
    if result.enhancement is None:
        return None
    volume = to_host(to_source(result.enhancement.volume, result.normalised.space, "linear"))
    volume *= np.float32(catalog.HU_SCALE)
    low, high = SHOWN_HU
    return Enhanced(volume, Window(high - low, (low + high) / 2), "enhanced parenchyma")
