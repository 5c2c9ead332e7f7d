"""What can be chosen for a run of CT-Angel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from hilum.catalog import ct_angel as ct
from hilum.catalog.errors import BadOption
from hilum.catalog.terms import Mode
from hilum.postprocessing.ct_angel.boxes import BoxRules

from ..base import Place, filled_from, option
from ..ct_slices import Grey
from ..studies import ACQUISITION_HELP

_CHOICES = {
    "mode": get_args(Mode),
    "size_mode": ("box", "mask"),
    "valid_mode": ("centroid", "overlap", "off"),
    "quadrant_mode": ("pixels", "centroid"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be chosen for a run.

    Mode ``parity`` is the published program: a JPEG round trip after the window, every lesion
    whatever its size, the three boxes with the most contour vertices, no valid region. It leaves
    `size_mode`, `valid_mode` and `max_boxes` unused. The patient rule, which the program lacks and
    the article describes, is applied in both modes.

    Raises
    ------
    InputError
        For a value that makes no sense.
    """

    mode: Mode = option("parity", "parity: the program's boxes; corrected: the article's rules.")
    window: str = option(
        ct.DEFAULT_WINDOW, f"Grey window: {', '.join(ct.WINDOWS)}, or WIDTH/LEVEL in HU."
    )
    threshold: float = option(ct.THRESHOLD, "Lesion at this probability and above.")
    valid_threshold: float = option(ct.THRESHOLD, "Valid region at this probability and above.")
    size_mode: ct.SizeMode = option(
        "box", f"What must exceed {ct.MIN_BOX_AREA} pixels: box, or mask."
    )
    valid_mode: ct.ValidMode = option(
        "centroid", "A lesion counts with its centroid in the valid region; overlap: half of it."
    )
    quadrant_mode: ct.QuadrantMode = option(
        "pixels", "A lesion flags every quadrant with one of its pixels; centroid: that of it."
    )
    run_length: int = option(ct.RUN_LENGTH, "Slices in a row that make a patient positive.")
    max_boxes: int = option(0, "Largest boxes kept on a slice; 0: all.")
    jpeg: bool | None = option(None, "JPEG round trip after the window (default: by mode).")
    series: str | None = option(None, "Number of the series in a folder with several.")
    acquisition: int | None = option(None, ACQUISITION_HELP)
    heat: bool = option(False, "Also draw heat maps of the positive slices.")
    slices_in_flight: int = option(4, "Slices of one study at once.", changes_result=False)
    keep_arrays: bool = filled_from("save_arrays", False)
    keep_heat: bool = filled_from("dicom", False)

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise BadOption(
                    f"no {name.replace('_', ' ')} {getattr(self, name)!r}; choose one of "
                    f"{', '.join(known)}"
                )
        for name in ("threshold", "valid_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadOption(f"{name} {getattr(self, name)} is not between 0 and 1")
        for name, least in (("run_length", 1), ("slices_in_flight", 1), ("max_boxes", 0)):
            if getattr(self, name) < least:
                raise BadOption(f"{name} {getattr(self, name)}: give {least} or more")
        _ = self.grey

    @property
    def grey(self) -> Grey:
        """The window, and whether a JPEG follows."""
        jpeg = self.mode == "parity" if self.jpeg is None else self.jpeg
        return Grey(parse_window(self.window), jpeg)

    @property
    def valid_filter(self) -> ct.ValidMode:
        """The valid-region filter in force."""
        return "off" if self.mode == "parity" else self.valid_mode

    @property
    def rules(self) -> BoxRules:
        """How masks become boxes."""
        return BoxRules(
            self.mode == "parity", self.size_mode, self.valid_filter, self.quadrant_mode
        )


def parse_window(text: str) -> ct.Window:
    """The window that a preset's name or ``WIDTH/LEVEL`` stands for.

    Raises
    ------
    InputError
        For anything else, and for a width that is not positive.
    """
    if text in ct.WINDOWS:
        return ct.WINDOWS[text]
    try:
        width, level = (float(part) for part in text.split("/"))
    except ValueError:
        raise BadOption(
            f"window {text!r}: give {', '.join(ct.WINDOWS)}, or WIDTH/LEVEL in HU, for instance "
            "1500/-600"
        ) from None
    if not (0 < width < math.inf and math.isfinite(level)):
        raise BadOption(f"window {text!r}: the width must be above 0")
    return ct.Window(width, level)


class Keywords(Place, total=False):
    """`Options` as keywords of `Client.run`, for type checkers."""

    mode: Mode
    window: str
    threshold: float
    valid_threshold: float
    size_mode: ct.SizeMode
    valid_mode: ct.ValidMode
    quadrant_mode: ct.QuadrantMode
    run_length: int
    max_boxes: int
    jpeg: bool | None
    series: str | None
    acquisition: int | None
    heat: bool
    slices_in_flight: int
    keep_arrays: bool
    keep_heat: bool
