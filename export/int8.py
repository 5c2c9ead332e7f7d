"""INT8 variants: explicit Q/DQ pairs in front of each convolution.

Weights are stored as INT8, symmetric, with one scale for each output channel; activations are
quantised with one scale for a tensor, as the runtime takes them (`Form`). Biases stay FP32. Ranges
are the least and the largest value on the calibration data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from hilum.catalog.errors import ExportError

from .parity import Runtime, onnx_session

Image = NDArray[np.float32]
"""A network's only input, with its batch axis."""

Images = Callable[[], Iterable[Image]]
"""Gives the calibration data again, one after the other."""

QUANTISED = ("Conv", "ConvTranspose")
"""Operators that compute in INT8: nearly all of a U-Net's work."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a runtime wants activations and weights.

    Attributes
    ----------
    signed
        Activations INT8 with zero point 0; else UINT8 with a zero point.
    narrow
        Weights use 7 of their 8 bits.
    """

    signed: bool
    narrow: bool


TENSORRT = Form(signed=True, narrow=False)
"""TensorRT refuses unsigned activations and zero points."""

OPENVINO = Form(signed=False, narrow=True)
"""OpenVINO computes signed activations far less exactly (docs/background/precision.md). Without
VNNI a processor adds two products in 16 bits: with 7 bits of weights they fit, so that every
processor gives the same."""

_OPTIONS: dict[str, Any] = {
    "WeightSymmetric": True,
    # TensorRT refuses a quantised bias; it adds it in FP32 inside the same kernel.
    "QuantizeBias": False,
    # Only inputs: then convolution, ReLU and quantisation of the next input are one kernel.
    "OpTypesToExcludeOutputQuantization": list(QUANTISED),
    # The output channels of a transposed convolution's weights [C, K, 2, 2].
    "QDQOpTypePerChannelSupportToAxis": {"ConvTranspose": 1},
}


def to_int8(core: ModelProto, images: Images, form: Form) -> ModelProto:
    """Quantise the convolutions of a core with one input; inputs and outputs stay FP32.

    FP32 remain the first convolution, which sees grey values of a wide range, the last one before
    an output, and everything that is no convolution. The last one's bias then takes up the mean
    error that quantisation makes on the calibration data (Nagel et al., ICCV 2019, doi
    10.1109/ICCV.2019.00141).

    Parameters
    ----------
    core
        FP32, normalisation folded into the convolutions.
    images
        Calibration data: one image is held at a time.
    form
        Of the runtime that will serve it: `TENSORRT` or `OPENVINO`.

    Raises
    ------
    ExportError
        When the core has no convolutions to quantise, or ONNX Runtime refuses it.
    """
    excluded = islands(core)
    kinds = [node.name for node in core.graph.node if node.op_type in QUANTISED]
    if not set(kinds) - excluded:
        raise ExportError("the network has no convolutions between its first and its last one")
    given = ModelProto()
    given.CopyFrom(core)
    add_pre_process_metadata(given)  # else a warning: the graph is folded and simple already
    with tempfile.TemporaryDirectory(prefix="hilum-int8-") as folder:
        file = Path(folder, "int8.onnx")
        try:
            quantize_static(
                given,
                file,
                _Reader(core.graph.input[0].name, images()),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                nodes_to_exclude=sorted(excluded),
                per_channel=True,
                reduce_range=form.narrow,
                activation_type=QuantType.QInt8 if form.signed else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"ActivationSymmetric": form.signed, **_OPTIONS},
            )
        except ValueError as refused:
            raise ExportError(f"ONNX Runtime cannot quantise the network: {refused}") from refused
        quantised = onnx.load(file)
    _correct_bias(quantised, core, images)
    return quantised


def islands(core: ModelProto) -> set[str]:
    """Names of the convolutions that stay in FP32: those next to the input and to the outputs."""
    producer = {output: node for node in core.graph.node for output in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in core.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    first = _nearest(
        [node for i in core.graph.input for node in readers.get(i.name, [])],
        lambda node: [r for output in node.output for r in readers.get(output, [])],
    )
    last = _nearest(
        [producer[o.name] for o in core.graph.output if o.name in producer],
        lambda node: [producer[i] for i in node.input if i in producer],
    )
    return first | last


def _nearest(nodes: list[NodeProto], further: Callable[[NodeProto], list[NodeProto]]) -> set[str]:
    """The first convolutions on every way through a graph."""
    found: set[str] = set()
    seen: set[str] = set()
    while nodes:
        node = nodes.pop()
        if node.op_type in QUANTISED:
            found.add(node.name)
        elif node.name not in seen:
            nodes += further(node)
        seen.add(node.name)
    return found


class _Reader(CalibrationDataReader):
    """Calibration data as ONNX Runtime asks for it."""

    def __init__(self, name: str, images: Iterable[Image]) -> None:
        self._name, self._images = name, iter(images)

    def get_next(self) -> dict[str, Image] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        image = next(self._images, None)
        return None if image is None else {self._name: image}


def _correct_bias(quantised: ModelProto, core: ModelProto, images: Images) -> None:
    """Shift the last convolution's bias by the mean error of each channel that it gives."""
    output = core.graph.output[0].name
    last = next((node for node in quantised.graph.node if output in node.output), None)
    if last is None or last.op_type != "Conv" or len(last.input) < 3:
        return
    full, reduced = (run_core(model) for model in (core, quantised))
    errors = [
        (np.asarray(reduced(image), np.float64) - full(image)).mean((0, 2, 3)) for image in images()
    ]
    bias = next(c for c in quantised.graph.initializer if c.name == last.input[2])
    shifted = numpy_helper.to_array(bias) - np.mean(errors, axis=0)
    bias.CopyFrom(numpy_helper.from_array(shifted.astype(np.float32), bias.name))


def run_core(
    model: ModelProto, runtime: Runtime | None = None
) -> Callable[[Image], NDArray[np.float32]]:
    """A core with one input and one output as a function; None: in ONNX Runtime."""
    session = (runtime or onnx_session)(model.SerializeToString(), "the quantised network")
    name, output = model.graph.input[0].name, model.graph.output[0].name

    def run(image: Image) -> NDArray[np.float32]:
        return cast("NDArray[np.float32]", session.run([output], {name: image})[0])

    return run


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice of two masks of which one is not empty."""
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
