"""A frontal chest X-ray from a DICOM file, as 8-bit grey values with bone bright.

The published program reads no DICOM; what follows is the corrected decoding of spec cxr §4, in both
modes: modality LUT or rescale → VOI LUT or first window, else percentile range → inversion → 8 bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ..catalog.errors import InputError
from . import dicom
from .levels import percentile_range, stretch, to_u8

_ATTRIBUTES = (
    "PresentationIntentType", "ViewPosition", "ViewCodeSequence", "CodeMeaning",
    "PatientOrientation", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "PresentationLUTShape", "PixelPaddingValue",
)  # fmt: skip

_XRAY = frozenset({"DX", "CR", "RG", "OT"})
_OTHERS = {
    "CT": "a CT slice", "MR": "an MR image", "PT": "a PET slice", "NM": "a nuclear medicine image",
    "US": "an ultrasound image", "MG": "a mammogram", "XA": "an angiogram", "SR": "a report",
    "RF": "a fluoroscopy image", "SEG": "a segmentation", "SM": "a microscopy image",
}  # fmt: skip
_XRAY_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.1",  # computed radiography
        "1.2.840.10008.5.1.4.1.1.1.1",  # digital X-ray, for presentation
        "1.2.840.10008.5.1.4.1.1.1.1.1",  # digital X-ray, for processing
    }
)
_CT_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"})
_NOT_FRONTAL = frozenset(
    {"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "L", "R"}
)


def read_dicom_xray(data: bytes) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode one frontal chest X-ray.

    Parameters
    ----------
    data
        The whole file.

    Returns
    -------
    uint8 [H, W], bone bright and air dark; and what was done, for people to read.

    Raises
    ------
    InputError
        For anything else than a single-frame monochrome frontal X-ray that can be decoded.
    """
    dataset = dicom.parse(data, _ATTRIBUTES)
    check_frontal_xray(dataset)
    stored = dicom.stored_values(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID.name
    steps = [f"DICOM, {syntax}, {dataset.BitsStored} of {dataset.BitsAllocated} bits"]
    if dataset.get("PresentationIntentType") == "FOR PROCESSING":
        steps.append("raw detector image (FOR PROCESSING)")
    low = int(stored.min())
    counts = np.bincount((stored - low).ravel())
    levels = np.arange(low, low + len(counts), dtype=np.int32)
    padding = dataset.get("PixelPaddingValue")
    if isinstance(padding, int) and low <= padding < low + len(counts):
        counts[padding - low] = 0
    grey = _display(dataset, levels, counts, steps)
    return to_u8(grey)[stored - low], tuple(steps)


def check_frontal_xray(dataset: Dataset) -> None:
    """Refuse what the X-ray networks were not made for.

    Raises
    ------
    InputError
        For another modality, or a lateral or oblique view.
    """
    modality = str(dataset.get("Modality") or "")
    kind = str(dataset.get("SOPClassUID") or "")
    if kind in _CT_CLASSES:
        modality = "CT"
    if modality not in _XRAY and not (modality == "" and kind in _XRAY_CLASSES):
        what = _OTHERS.get(modality, "an image of another or unknown modality")
        raise InputError(f"DICOM: {what}; give a frontal chest X-ray (modality DX or CR)")
    view = str(dataset.get("ViewPosition") or "").upper()
    codes = [str(c.get("CodeMeaning") or "").lower() for c in dataset.get("ViewCodeSequence") or ()]
    sideways = view in _NOT_FRONTAL or "LAT" in view or "OBL" in view
    sideways |= any("lateral" in code or "oblique" in code for code in codes)
    # In a lateral view the rows run from front to back.
    sideways |= str((dataset.get("PatientOrientation") or ("",))[0])[:1] in ("A", "P")
    if sideways:
        raise InputError("DICOM: a lateral or oblique view; give the frontal one (PA or AP)")


def _display(
    dataset: Dataset, levels: NDArray[np.int32], counts: NDArray[np.int64], steps: list[str]
) -> NDArray[np.float64]:
    """Grey value 0…255 of every stored level."""
    values = dicom.modality_values(dataset, levels)
    if dataset.get("ModalityLUTSequence"):
        steps.append("Modality LUT")
    width = dicom.number(dataset, "WindowWidth", 0.0)
    centre = dicom.number(dataset, "WindowCenter", 0.0)
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if dataset.get("VOILUTSequence"):
        table, top = dicom.look_up(dataset.VOILUTSequence[0], values, "VOI LUT")
        grey = stretch(table, 0, top)
        steps.append("VOI LUT")
    elif width >= 1 or (width > 0 and function != "LINEAR"):
        grey = window(values, centre, width, function)
        steps.append(f"window {centre:g} / {width:g}, {function.lower()}")
    else:
        low, high = percentile_range(values, counts if counts.any() else counts + 1)
        grey = stretch(values, low, high)
        steps.append(f"no window: 0.5th to 99.5th percentile, {low:g} to {high:g}")
    # The standard couples the two (PS3.3 C.8.11.3): both together still mean one inversion.
    monochrome1 = dataset.PhotometricInterpretation == "MONOCHROME1"
    if monochrome1 or dataset.get("PresentationLUTShape") == "INVERSE":
        grey = 255 - grey
        steps.append("inverted (MONOCHROME1)" if monochrome1 else "inverted (Presentation LUT)")
    return grey


def window(
    values: NDArray[np.float32], centre: float, width: float, function: str = "LINEAR"
) -> NDArray[np.float64]:
    """Apply a VOI window (PS3.3 C.11.2.1.2).

    Parameters
    ----------
    values
        Modality values, of any shape.
    centre, width
        In modality values; the width at least 1 for LINEAR, above 0 otherwise.
    function
        LINEAR, LINEAR_EXACT or SIGMOID.

    Returns
    -------
    float64, 0 to 255.
    """
    x = values.astype(np.float64)
    if function == "SIGMOID":
        return 255 / (1 + np.exp(np.clip(-4 * (x - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((x - centre) / width + 0.5, 0, 1) * 255
    if width == 1:
        return np.where(x > centre - 0.5, 255.0, 0.0)
    return np.clip((x - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
