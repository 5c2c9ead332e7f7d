"""Lesion boxes on chest CT and a decision for the patient: series → slices → boxes → runs.

The client decodes and windows one slice after the other while earlier ones are with the server;
the ensemble ``ct_angel`` runs both networks. What the patient rule needs is taken from each slice
at once, so that a long series needs the memory of a few slices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.client.calls import Calls
from hilum.client.models import ModelInfo
from hilum.client.trace import span
from hilum.postprocessing.ct_angel.boxes import assess_slice
from hilum.preprocessing.ct_angel.square import fit_square

from ..ct_slices import Slices, WindowedSlice, open_slices
from .options import Options
from .result import Arrays, CtAngelResult, SliceResult, slice_result, study_result


def find_lesions(study: Any, model: str, options: Options, calls: Calls) -> CtAngelResult:
    """Find lesions on the slices of one study.

    Parameters
    ----------
    study
        A folder or file of DICOM, a NIfTI file, the bytes of one of these, an 8-bit picture or
        a folder of such; or an array [z, H, W] or [H, W] in LPS order: HU, or uint8 slices
        that are windowed already.
    model
        The Triton model to ask.

    Raises
    ------
    InputError
        For anything that has no CT slices.
    """
    served = calls.model(model)
    with span("read"):
        slices = open_slices(study, options.grey, options.series, options.acquisition)
    run = _Run.begin(served, slices, options, calls)
    found = calls.map(run.process, range(len(slices)), options.slices_in_flight)
    return study_result(slices, found, options, run.arrays)


@dataclass(frozen=True, slots=True)
class _Run:
    """One study that runs.

    Attributes
    ----------
    side
        Of the network's input in pixels.
    arrays
        Filled slice by slice when they are to be kept.
    step
        Called after each slice.
    """

    model: str
    side: int
    slices: Slices
    options: Options
    arrays: Arrays
    step: Callable[[], None]
    calls: Calls

    @classmethod
    def begin(cls, served: ModelInfo, slices: Slices, options: Options, calls: Calls) -> _Run:
        side = int(served.inputs["image"].shape[-1])
        arrays: Arrays = {}
        if options.keep_arrays:
            shape = (len(slices), side, side)
            arrays = {"probability": np.zeros(shape, np.float16), "mask": np.zeros(shape, np.uint8)}
        step = calls.steps("slices", len(slices))
        return cls(served.name, side, slices, options, arrays, step, calls)

    def process(self, index: int) -> SliceResult:
        """One slice from its file to its boxes."""
        with span("read"):
            windowed, image = self._prepare(index)
        inputs = {"image": image[None], "threshold": _scalar(self.options.threshold)}
        outputs = ["probability", "mask"]
        if self.options.valid_filter != "off":
            inputs["valid_threshold"] = _scalar(self.options.valid_threshold)
            outputs.append("valid")
        answer = self.calls.infer(self.model, inputs, outputs)
        out = {name: array[0] for name, array in answer.outputs.items()}
        with span("postprocess"):
            found = self._assess(index, windowed, out, answer.transport)
        self.step()
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
        if (self.options.heat or self.options.keep_heat) and finding.positive:
            heat = np.rint(probability.astype(np.float32) * 255).astype(np.uint8)
        return slice_result(
            index, self.slices, windowed, finding, cap, side=self.side, heat=heat,
            transport=transport,
        )  # fmt: skip


def _scalar(value: float) -> NDArray[np.float32]:
    return np.array([[value]], np.float32)
