"""What is unusual about an input: a code for programs, a sentence for human readers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import ct_words

UNEVEN_SLICES = "uneven_slices"
"""Steps between slices differ by more than the rounding of a header."""

ACQUISITION_CHOSEN = "acquisition_chosen"
"""The series holds several acquisitions, of which one was taken."""

FORMS_DISAGREE = "sform_qform_disagree"
"""A NIfTI header says two different things about where the voxels lie."""

UNITS_UNKNOWN = "units_unknown"
"""A NIfTI header does not say in which unit it measures, or names none that exists."""

IMPLAUSIBLE_SPACING = "implausible_spacing"
"""Voxels of a size that no CT has."""

SHARP_KERNEL = "sharp_kernel"
"""The header names a reconstruction kernel for bone or lung, which makes edges and noise strong."""

CONTRAST_AGENT = "contrast_agent"
"""The header names a contrast agent, which makes vessels and tissue bright."""

FLAGS = (UNEVEN_SLICES, FORMS_DISAGREE, IMPLAUSIBLE_SPACING)
"""Codes that cast doubt on volumes, lengths or sides: systems put them among the flags."""


@dataclass(frozen=True, slots=True)
class Note:
    """One remark.

    Attributes
    ----------
    text
        Free of identifiers and of any text of a header.
    code
        What flags depend on; empty where nothing does.
    """

    text: str
    code: str = ""


def look_of(kernel: str, contrast: bool) -> tuple[Note, ...]:
    """What a header says about kernel and contrast agent that networks did not count on.

    Parameters
    ----------
    kernel
        ConvolutionKernel as the file has it; no part of the remark.
    """
    found = []
    if ct_words.kernel(kernel) == "sharp":
        text = "a sharp reconstruction kernel (0018,1210) changes edges, noise and textures"
        found.append(Note(text, SHARP_KERNEL))
    if contrast:
        text = "a contrast agent (0018,0010) makes vessels and tissue brighter"
        found.append(Note(text, CONTRAST_AGENT))
    return tuple(found)


def flags_of(notes: Iterable[Note]) -> tuple[str, ...]:
    """Codes among some notes that are flags, in the order of `FLAGS`."""
    found = {note.code for note in notes}
    return tuple(flag for flag in FLAGS if flag in found)
