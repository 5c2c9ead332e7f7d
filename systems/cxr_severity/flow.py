"""The way of an X-ray: file → stage I and II on the server → score of 0 to 6.

The client decodes and resizes; the ensemble ``cxr_severity_<network>`` does the rest. Response
contract: spec cxr §9.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite

from hilum.catalog import cxr_severity as cxr
from hilum.catalog.errors import BadFormat
from hilum.client.calls import Calls
from hilum.client.trace import span
from hilum.preprocessing.arrays import Array, to_host
from hilum.preprocessing.reading.images import XRay, read_xray
from hilum.preprocessing.resize import resize_bilinear_u8

from .options import Options
from .result import CxrResult

_FINDS_NOTHING = "network_finds_nothing"
"""Flag of the network that answers "no disease" to every image, as published."""

_OUTPUTS = tuple(t.name for t in cxr.ENSEMBLES[cxr.DEFAULT_NETWORK].outputs)


def score(study: Any, options: Options, calls: Calls) -> CxrResult:
    """Score one X-ray.

    Parameters
    ----------
    study
        A file, its bytes, or its pixels as uint8 or uint16 [H, W] or [H, W, 3] (B, G, R).

    Raises
    ------
    InputError
        For anything that is not one frontal chest X-ray.
    """
    ensemble = cxr.ENSEMBLES[options.network].model
    side = int(calls.model(ensemble).inputs["image"].shape[-2])
    with span("read"):
        xray, image = _prepare(study, options, side)
    answer = calls.infer(
        ensemble,
        {
            "image": image[None],
            "mode": np.array([[cxr.MODES[options.mode]]], np.uint8),
            "zone_threshold": np.array([[options.threshold]], np.float64),
        },
        _OUTPUTS,
    )
    return _result(
        {k: to_host(v)[0] for k, v in answer.outputs.items()}, xray, options, answer.transport
    )


def _prepare(study: Any, options: Options, side: int) -> tuple[XRay, Array]:
    """Decode and resize to the network's frame, whatever the aspect ratio (spec cxr §3)."""
    if isinstance(study, Dataset):
        stream = io.BytesIO()
        dcmwrite(stream, study, enforce_file_format=True)
        study = stream.getvalue()
    if not isinstance(study, (str, Path, bytes, np.ndarray)):
        raise BadFormat(
            f"{type(study).__name__} is no X-ray; give a DICOM, PNG or JPEG file, the bytes of "
            "one, a NumPy array of uint8 or uint16 [H, W], or a dataset of pydicom"
        )
    xray = read_xray(Path(study) if isinstance(study, str) else study, mode=options.mode)
    with span("preprocess"):
        return xray, resize_bilinear_u8(options.device.put(xray.pixels), (side, side))


def _result(
    out: dict[str, NDArray[Any]], xray: XRay, options: Options, transport: str
) -> CxrResult:
    score = int(out["score"][0])
    flags = tuple(f.name.lower() for f in cxr.Flag(int(out["flags"][0])) if f.name)
    if options.facts.corrected_threshold is None:
        flags = (_FINDS_NOTHING, *flags)
    box = tuple(int(v) for v in out["box"])
    side = out["lung"].shape[0]
    height, width = xray.pixels.shape[:2]
    sx, sy = width / side, height / side
    return CxrResult(
        score=None if score == cxr.NO_SCORE else score,
        status=flags[0] if flags else "ok",
        flags=flags,
        fractions=_numbers(out["fractions"]),
        fractions_ungated=_numbers(out["fractions_ungated"]),
        zone_threshold=options.threshold,
        disease_probability=float(out["probability"][0]),
        gated=bool(out["gated"][0]),
        box=(box[0], box[1], box[2], box[3]),
        box_original=(box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy),
        lung_components=int(out["lung_components"][0]),
        lung_area_px=int(out["lung_area"][0]),
        network=options.network,
        mode=options.mode,
        transport=transport,
        lung=out["lung"],
        lung512=out["lung512"],
        disease512=out["disease"],
        xray=xray,
    )


def _numbers(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(v) else float(v) for v in values)
