"""A frontal chest X-ray from a DICOM file, as 8-bit grey values with bone bright.

The published program reads no DICOM; what follows is the corrected decoding of spec cxr §4, in both
modes: modality LUT or rescale → VOI LUT or first window, else percentile range → inversion → 8 bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from hilum.catalog.errors import Damaged, NoGeometry, WrongStudy

from . import dicom
from .levels import percentile_range, stretch, to_u8

_ATTRIBUTES = (
    "PresentationIntentType", "ViewPosition", "ViewCodeSequence", "CodeMeaning",
    "PatientOrientation", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "PresentationLUTShape",
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
_FUNCTIONS = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})
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
    uint8 [H, W], bone bright and air dark; and human-readable notes on what was done.

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
    _check_sign(dataset, stored)
    counts = np.bincount((stored - low).ravel())
    levels = np.arange(low, low + len(counts), dtype=np.int32)
    first, last = dicom.padding_of(dataset) or (0, -1)
    counts[(levels >= first) & (levels <= last)] = 0
    grey = _display(dataset, levels, counts, steps)
    picture = _upright(to_u8(grey)[stored - low], dataset, steps)
    return picture, tuple(steps)


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
        raise WrongStudy(f"DICOM: {what}; give a frontal chest X-ray (modality DX or CR)")
    view = str(dataset.get("ViewPosition") or "").upper()
    codes = [str(c.get("CodeMeaning") or "").lower() for c in dataset.get("ViewCodeSequence") or ()]
    sideways = view in _NOT_FRONTAL or "LAT" in view or "OBL" in view
    sideways |= any("lateral" in code or "oblique" in code for code in codes)
    # In a lateral view the rows or the columns run from front to back.
    sideways |= any(direction[:1] in ("A", "P") for direction in _orientation(dataset))
    if sideways:
        raise WrongStudy("DICOM: a lateral or oblique view; give the frontal one (PA or AP)")


def _check_sign(dataset: Dataset, stored: NDArray[np.int32]) -> None:
    """Refuse values that are unsigned in a file that calls them signed.

    Then the header is not that of these pixels: digital X-rays are unsigned (PS3.3 C.8.11.3), and
    window, padding and rescale may be as wrong.
    """
    top = 2 ** (int(dataset.BitsStored) - 1)
    if dataset.PixelRepresentation == 1 and stored.min() >= 0 and stored.max() >= top:
        raise Damaged(
            "DICOM: PixelRepresentation (0028,0103) says that values are signed, and they are not; "
            "export the image again"
        )


def _orientation(dataset: Dataset) -> tuple[str, ...]:
    """PatientOrientation: where the rows and where the columns run; empty when it is not said."""
    value = dataset.get("PatientOrientation")
    parts = value if isinstance(value, list | tuple | MultiValue) else [value]
    found = tuple(str(p or "").strip().upper() for p in parts)
    return found if any(found) else ()


def as_stored(mask: NDArray[np.uint8], header: Dataset) -> NDArray[np.uint8]:
    """Bring a mask of the upright picture back to the rows and columns of its file.

    Parameters
    ----------
    header
        Of the file; PatientOrientation is enough.
    """
    exchanged, mirrored, turned = _turn(header)
    mask = mask[::-1] if turned else mask
    mask = mask[:, ::-1] if mirrored else mask
    return np.ascontiguousarray(mask.T if exchanged else mask)


def _upright(picture: NDArray[np.uint8], dataset: Dataset, steps: list[str]) -> NDArray[np.uint8]:
    """Turn and mirror a picture as PatientOrientation says: rows run to the left, columns down.

    Raises
    ------
    InputError
        When it does not name one of the eight ways in which a frontal view may lie.
    """
    exchanged, mirrored, turned = _turn(dataset)
    if exchanged:
        picture = picture.T
        steps.append("rows and columns exchanged (PatientOrientation)")
    if mirrored:
        picture = picture[:, ::-1]
        steps.append("mirrored (PatientOrientation)")
    if turned:
        picture = picture[::-1]
        steps.append("turned upside down (PatientOrientation)")
    return np.ascontiguousarray(picture)


def _turn(dataset: Dataset) -> tuple[bool, bool, bool]:
    """Whether rows and columns are exchanged, and then rows, and columns, run the other way.

    Each direction counts by its first letter, which is the main one (PS3.3 C.7.6.1.1.1).
    """
    main = [direction[:1] for direction in _orientation(dataset)]
    if not main:
        return False, False, False
    across = [m in ("L", "R") for m in main]
    if len(main) != 2 or not set(main) <= set("LRHF") or across[0] == across[1]:
        raise NoGeometry(
            "DICOM: PatientOrientation (0020,0020) is not that of a frontal view, so left and "
            "right are unknown; export the image again"
        )
    exchanged = not across[0]
    first, second = main[::-1] if exchanged else main
    return exchanged, first == "R", second == "H"


def _display(
    dataset: Dataset, levels: NDArray[np.int32], counts: NDArray[np.int64], steps: list[str]
) -> NDArray[np.float64]:
    """Grey value 0…255 of every stored level."""
    values = dicom.modality_values(dataset, levels)
    if dataset.get("ModalityLUTSequence"):
        steps.append("Modality LUT")
    width = dicom.number(dataset, "WindowWidth", 0.0)
    centre = dicom.number(dataset, "WindowCenter", 0.0)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _FUNCTIONS:
        # PS3.3 C.11.2.1.3: LINEAR stands for every value that is not known.
        function = "LINEAR"
        steps.append("VOI LUT Function unknown: taken as LINEAR")
    if dataset.get("VOILUTSequence"):
        table, top = dicom.look_up(dataset.VOILUTSequence[0], values, "VOI LUT")
        grey = stretch(table, 0, top)
        steps.append("VOI LUT")
    elif width >= 1 or (width > 0 and function != "LINEAR"):
        grey = window(values, centre, width, function)
        steps.append(f"window {centre:g} / {width:g}, {function.lower()}")
    else:
        if width:
            steps.append("window of an invalid width: passed over")
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
