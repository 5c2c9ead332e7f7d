"""Codes of what Hilum finds: SNOMED CT, DICOM, LOINC, UCUM; 99HILUM where none of them fits.

Checked against pydicom's concept tables (DICOM PS3.16). The 99HILUM codes are listed in
docs/how-to/pacs.md.
"""

from __future__ import annotations

from typing import NamedTuple

SCHEME = "99HILUM"
"""Private coding scheme, declared in each report."""


class Code(NamedTuple):
    """A coded concept: value, scheme, meaning."""

    value: str
    scheme: str
    meaning: str


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


def hilum(value: str, meaning: str) -> Code:
    """A concept that no standard scheme has."""
    return Code(value, SCHEME, meaning)


def ucum(value: str, meaning: str) -> Code:
    """A unit of measurement."""
    return Code(value, "UCUM", meaning)


# Categories and structures (PS3.16 CID 7150, 7151, 7159)
ANATOMY = _sct("91723000", "Anatomical Structure")
ABNORMAL = _sct("49755003", "Morphologically Abnormal Structure")
LUNG = _sct("39607008", "Lung")
AIRWAYS = _sct("110726009", "Trachea and bronchus")
VESSELS = _sct("59820001", "Blood Vessel")
HEART = _sct("80891009", "Heart")
ARTERY = _sct("81040000", "Pulmonary artery")
VEIN = _sct("122972007", "Pulmonary vein")
LESION = _sct("52988006", "Lesion")
CHEST = _sct("51185008", "Chest")
RIGHT = _sct("24028007", "Right")
LEFT = _sct("7771000", "Left")

# What was done
CT_CHEST = Code("24627-2", "LN", "CT Chest")
XR_CHEST = Code("30745-4", "LN", "XR Chest Views")
AI = _dcm("123110", "Artificial Intelligence")
SOURCE_IMAGE = _dcm("121322", "Source image for image processing operation")
PROCESSING = _dcm("109102", "Processing Equipment")
MODEL = Code("85040-4", "LN", "CT 3D CAM model")
PLANNING = _dcm("129013", "Planning Intent")
REJECTED = _dcm("113001", "Rejected for Quality Reasons")

# Findings and measurements
OPACITY = _dcm("112033", "Abnormal opacity")
VOLUME = _sct("118565006", "Volume")
PROBABILITY = _dcm("122157", "Probability")
AREA = _sct("42798000", "Area")
LONG_AXIS = _sct("103339001", "Long axis")

ML = ucum("mL", "milliliter")
HU = ucum("[hnsf'U]", "Hounsfield unit")
ONE = ucum("1", "no units")
SCORE = ucum("{score}", "score")
HU_ML = ucum("[hnsf'U].mL", "Hounsfield unit times milliliter")
MM = ucum("mm", "millimeter")
GRAM = ucum("g", "gram")
PIXELS = ucum("{pixels}", "pixels")
COUNT = ucum("{count}", "count")

# No standard concept fits these
SEVERITY = hilum("cxr-severity", "Severity score of a chest X-ray, 0 to 6")
ZONE_SHARE = hilum("zone-share", "Diseased share of a lung zone")
ZONE_SCORE = hilum("zone-score", "Score of a lung zone by its diseased share, 0 to 4")
ZONES_SCORE = hilum("zones-score", "Sum of the scores of six lung zones, 0 to 24")
LUNG_SHARE = hilum("lung-share", "Share of the lungs")
WINDOW_LEVEL = hilum("window-level", "Scan-optimal window level")
WINDOW_WIDTH = hilum("window-width", "Scan-optimal window width")
BASELINE = hilum("baseline", "Attenuation of this scan's healthy parenchyma")
SEVERITY_MEDIAN = hilum("severity-median", "Median attenuation above this scan's baseline")
SEVERITY_MEAN = hilum("severity-mean", "Mean attenuation above this scan's baseline")
SEVERITY_P90 = hilum("severity-p90", "90th percentile of attenuation above this scan's baseline")
SEVERITY_TOTAL = hilum("severity-total", "Sum of attenuation above this scan's baseline")
SEVERITY_INDEX = hilum("severity-index", "Attenuation by which lesions densify the lungs")
EXCESS_MASS = hilum("excess-mass", "Mass of lesions above that of healthy parenchyma")
LESION_COUNT = hilum("lesion-count", "Connected lesions")
PLEURA_DISTANCE = hilum("pleura-distance", "Least distance to the surface of the lungs")
CENTRE = (
    hilum("centre-left", "Centre, towards the patient's left"),
    hilum("centre-back", "Centre, towards the patient's back"),
    hilum("centre-head", "Centre, towards the patient's head"),
)
ENHANCED = hilum("enhanced", "Attenuation above this scan's baseline, clipped")
ZONE = hilum("zone", "Third of a lung by height")
STUDY = hilum("study", "Result for the whole study")
PREDICTED = hilum("predicted-class", "Predicted class")
DECISION = hilum("patient-decision", "Decision for the patient")
POSITIVE = hilum("positive", "Positive")
NEGATIVE = hilum("negative", "Negative")
NOT_FOUND = hilum("not-found", "Not found")
PRESENCE = hilum("presence", "Presence")
