"""Lesion boxes on chest CT and a decision for the patient: series → slices → boxes → runs.

The client decodes and windows one slice after the other while earlier ones are with the server;
the ensemble ``ct_angel`` runs both networks. What the patient rule needs is taken from each slice
at once, so that a long series needs the memory of a few slices.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...catalog import ct_angel as ct
from ...catalog.errors import InputError
from ...postprocessing.boxes import BoxRules, assess_slice
from ...preprocessing.square import fit_square
from .. import calls
from ..models import ModelInfo
from ..trace import span
from .base import filled_from, option
from .ct_angel_result import Arrays, CtAngelResult, SliceResult, slice_result, study_result
from .ct_slices import Grey, Slices, WindowedSlice, find_studies, open_slices
from .ct_source import CtSource

Mode = Literal["corrected", "parity"]

_MODES = ("corrected", "parity")
_CHOICES = {
    "mode": _MODES,
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

    mode: Mode = option("corrected", "corrected: the article's rules; parity: the program's boxes.")
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
    heat: bool = option(False, "Also draw heat maps of the positive slices.")
    slices_in_flight: int = option(4, "Slices of one study in work at once.")
    keep_arrays: bool = filled_from("save_arrays", False)

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"no {name.replace('_', ' ')} {getattr(self, name)!r}; choose one of "
                    f"{', '.join(known)}"
                )
        for name in ("threshold", "valid_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)} is not between 0 and 1")
        for name, least in (("run_length", 1), ("slices_in_flight", 1), ("max_boxes", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} {getattr(self, name)}: give {least} or more")
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
        raise InputError(
            f"window {text!r}: give {', '.join(ct.WINDOWS)}, or WIDTH/LEVEL in HU, for instance "
            "1500/-600"
        ) from None
    if not (0 < width < math.inf and math.isfinite(level)):
        raise InputError(f"window {text!r}: the width must be above 0")
    return ct.Window(width, level)


class CtAngel:
    """The pipeline of the system `ct-angel`."""

    system: ClassVar = ct.SYSTEM
    options_type: ClassVar = Options
    noun: ClassVar = "CT study"

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        alone = options.valid_filter == "off"
        return (ct.LESION.model if alone else ct.ENSEMBLE.model,)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        if options.valid_filter == "off":
            return (ct.LESION.model,)
        return (ct.LESION.model, ct.VALID.model)

    def fallback(self, options: Options) -> Options | None:
        """Do without the valid region, whose network not every server has (spec §6.3)."""
        if options.valid_filter == "off":
            return None
        return dataclasses.replace(options, valid_mode="off")

    def find(self, path: Path) -> list[Path]:
        """List the studies that an argument stands for: see `ct_slices.find_studies`."""
        return find_studies(path)

    def study(self, source: CtSource, options: Options) -> calls.Steps[CtAngelResult]:
        """Find lesions on the slices of one study; yields actions for the client's drivers.

        Parameters
        ----------
        source
            A folder or file of DICOM, a NIfTI file, the bytes of one of these, an 8-bit picture or
            a folder of such; or an array [z, H, W] or [H, W] in LPS order: HU, or uint8 slices
            that are windowed already.

        Raises
        ------
        InputError
            For anything that has no CT slices.
        """
        served, options = yield from self._served(options)
        slices: Slices = yield calls.Compute(
            lambda: open_slices(source, options.grey, options.series), "read"
        )
        work = _Work.begin(served, slices, options)
        found = yield from calls.each(work.process, range(len(slices)), options.slices_in_flight)
        return study_result(slices, found, options, work.arrays)

    def _served(self, options: Options) -> calls.Steps[tuple[ModelInfo, Options]]:
        """The model to ask, and the options that it can fulfil."""
        ready = yield from calls.models()
        less = self.fallback(options)
        if less is not None and self.models(options)[0] not in ready:
            options = less if self.models(less)[0] in ready else options
        return (yield from calls.model(self.models(options)[0])), options


@dataclass(frozen=True, slots=True)
class _Work:
    """One study in work.

    Attributes
    ----------
    side
        Of the network's input in pixels.
    arrays
        Filled slice by slice when they are to be kept.
    count
        Numbers finished slices.
    """

    model: str
    side: int
    slices: Slices
    options: Options
    arrays: Arrays
    count: Callable[[], int]

    @classmethod
    def begin(cls, served: ModelInfo, slices: Slices, options: Options) -> _Work:
        side = int(served.inputs["image"].shape[-1])
        arrays: Arrays = {}
        if options.keep_arrays:
            shape = (len(slices), side, side)
            arrays = {"probability": np.zeros(shape, np.float16), "mask": np.zeros(shape, np.uint8)}
        return cls(served.name, side, slices, options, arrays, itertools.count(1).__next__)

    def process(self, index: int) -> calls.Steps[SliceResult]:
        """One slice from its file to its boxes."""
        windowed, image = yield calls.Compute(lambda: self._prepare(index), "read")
        inputs = {"image": image[None], "threshold": _scalar(self.options.threshold)}
        outputs = ["probability", "mask"]
        if self.options.valid_filter != "off":
            inputs["valid_threshold"] = _scalar(self.options.valid_threshold)
            outputs.append("valid")
        answer = yield from calls.infer(self.model, inputs, outputs)
        out = {name: array[0] for name, array in answer.outputs.items()}
        found = yield calls.Compute(
            lambda: self._assess(index, windowed, out, answer.transport), "postprocess"
        )
        yield calls.Tell("slices", self.count(), len(self.slices))
        return found

    def _prepare(self, index: int) -> tuple[WindowedSlice, NDArray[np.uint8]]:
        windowed = self.slices.read(index)
        with span("preprocess"):
            return windowed, fit_square(windowed.pixels, self.side)

    def _assess(
        self, index: int, windowed: WindowedSlice, out: Arrays, transport: str
    ) -> SliceResult:
        probability, mask = out["probability"], out["mask"]
        if self.arrays:
            self.arrays["probability"][index], self.arrays["mask"][index] = probability, mask
        finding = assess_slice(mask, probability, out.get("valid"), self.options.rules)
        cap = 0 if self.options.mode == "parity" else self.options.max_boxes
        heat = None
        if self.options.heat and finding.positive:
            heat = np.rint(probability.astype(np.float32) * 255).astype(np.uint8)
        return slice_result(
            index, self.slices, windowed, finding, cap, side=self.side, heat=heat,
            transport=transport,
        )  # fmt: skip


def _scalar(value: float) -> NDArray[np.float32]:
    return np.array([[value]], np.float32)
