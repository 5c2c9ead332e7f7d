"""Words of CT headers that are understood; nothing of a header's text goes any further.

What a header says in free text may name somebody. So text is only compared with these words, and
messages use the words written here.
"""

from __future__ import annotations

import re
from typing import Literal

Region = Literal["chest", "elsewhere", ""]
Kernel = Literal["sharp", "soft", ""]

MODALITIES = frozenset(
    {"CT", "MR", "PT", "NM", "CR", "DX", "MG", "US", "XA", "RF", "XC", "ES", "OT", "SC", "SEG",
     "SR", "PR", "KO", "REG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE", "DOC", "OCT", "SM"}
)  # fmt: skip
"""Values of Modality (0008,0060) that may be shown."""

_CHEST = re.compile(r"CHEST|THORA[XCK]|TORAX|TORAC|LUNG|PULMO|\bTHX\b|\bTAP\b|\bCAP\b|\bCTPA\b")
_CHEST_OF_THE_SPINE = re.compile(r"THORACIC\W*(SPINE|VERTEB|COLUMN)|SPINE\W*THORAC")
_ELSEWHERE = re.compile(
    r"HEAD|BRAIN|SKULL|CRANI|SINUS|FACE|FACIAL|ORBIT|NECK|SPINE|VERTEBR|ABDO|LIVER|HEART|CARDI"
    r"|CORONAR|PELVI|KIDNEY|RENAL|URO|COLON|PANCREA|SPLEEN|KNEE|ANKLE|WRIST|ELBOW|SHOULDER|EXTREM"
    r"|FEMUR|TIBIA|HUMERUS|CAROTID|DENTAL|MANDIB|MAXILL|TEMPORAL|LARYN|PHARYN"
    r"|\b(HIP|FOOT|FEET|HAND|LEG|ARM|JAW|EAR|IAC)S?\b"
)

_SHARP = re.compile(
    r"[BIU][FLRV]?[5-9]\d.*|LUNG|BONE.*|EDGE|ULTRA|YA|YB|YC|YD|D|E|L|FC[3-58]\d|FC0?[5-9]"
)
_SOFT = re.compile(r"[BIUQ][FLRVC]?[1-4]\d.*|STANDARD|STND|SOFT|DETAIL|CHEST|A|B|C|FC[0-2]?\d")

_NO_AGENT = re.compile(
    r"^\W*(NO|NONE|NIL|N/?A|OHNE|0)\b|WITHOUT|\bW/O\b|UNENHANCED|NATIV|NON\W?CON"
)

_DESCRIBED = {
    word: re.compile(pattern)
    for word, pattern in {
        "lung window": r"LUNG|PULMO|\bPARENCH",
        "soft-tissue window": r"MEDIAST|SOFT TISS|WEICHTEIL",
        "bone window": r"\bBONE|\bKNOCHEN|\bOSSEO",
        "axial": r"\b(AX|AXIAL|TRA|TRANSV\w*)\b",
        "coronal": r"\b(COR|CORONAL|CORO)\b",
        "sagittal": r"\b(SAG|SAGITTAL)\b",
        "maximum intensity": r"\bMIPS?\b",
        "reformatted": r"\b(MPR|REFORMAT\w*)\b",
        "thin": r"\bTHIN\b|HRCT|HIGH RES",
        "thick": r"\bTHICK\b",
        "low dose": r"LOW ?DOSE|\bLDCT\b",
        "without contrast agent": r"NATIV|UNENHANCED|NON ?CON|WITHOUT CON|\bW/O\b",
        "arterial": r"ARTERI|\bART\b|\bCTPA\b|ANGIO",
        "venous": r"VENOUS|VENO[ES]|\bVEN\b|PORTAL",
        "delayed": r"DELAY|\bLATE\b",
        "inspiration": r"\bINSP\w*",
        "expiration": r"\b(EXPIR\w*|EXSP\w*|EXP)\b",
        "supine": r"\bSUPINE\b",
        "prone": r"\bPRONE\b",
    }.items()
}
"""Words that a description may be shown with, and by what they are known."""


def region(text: str) -> Region:
    """Which part of the body a text of a header names: the chest, alone or with others, or not."""
    upper = re.sub(r"[^A-Z]+", " ", text.upper()).replace("HEAD FIRST", " ")
    if _CHEST.search(_CHEST_OF_THE_SPINE.sub("SPINE", upper)):
        return "chest"
    return "elsewhere" if _ELSEWHERE.search(upper) else ""


def claim(body_part: str, protocol: str, series: str, study: str) -> int:
    """Whether a series shows the chest: 1 yes, −1 no, 0 not known.

    Parameters
    ----------
    body_part, protocol
        BodyPartExamined and ProtocolName, which count most.
    series, study
        SeriesDescription and StudyDescription; they decide where the others do not.
    """
    weights = {"chest": 1, "elsewhere": -1, "": 0}
    strong = weights[region(body_part)] + weights[region(protocol)]
    weak = 2 * weights[region(series)] + weights[region(study)]
    total = strong or weak
    return (total > 0) - (total < 0)


def kernel(text: str) -> Kernel:
    """Whether a reconstruction kernel of the usual scanners is a sharp or a soft one."""
    name = text.strip().upper()
    if _SHARP.fullmatch(name):
        return "sharp"
    return "soft" if _SOFT.fullmatch(name) else ""


def contrast(text: str) -> bool:
    """Whether ContrastBolusAgent names an agent, and not that there was none."""
    return bool(text.strip()) and not _NO_AGENT.search(text.upper())


def described(text: str) -> tuple[str, ...]:
    """What the description of a series says, in words of ours: the window, plane or phase."""
    upper = re.sub(r"[^A-Z/]+", " ", text.upper())
    return tuple(word for word, pattern in _DESCRIBED.items() if pattern.search(upper))


def modality(text: str) -> str:
    """A modality, if it is one of the standard's."""
    name = text.strip().upper()
    return name if name in MODALITIES else ""
