"""How OpenVINO computes a network on a processor, for the server and for whoever judges an export.

Both compile it here, so that what a certificate tells of is what is served.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class Compiled:
    """A network compiled for the processor, with one infer request: threads wait for each other.

    Where nothing but the number of images is open, it is compiled for one image, and a batch goes
    through it image by image: shapes that are known make it faster, a batch of several did not
    (docs/background/precision.md). The results are the same for every batch.

    Parameters
    ----------
    model
        Path or content of an ONNX file.
        What a file has in bfloat16 is computed so, all else in FP32. That has to be said: unasked,
        OpenVINO would compute everything in bfloat16 where the processor can, which rounds
        coordinates above 256.
    options
        Further properties of OpenVINO's CPU plugin.

    Attributes
    ----------
    model
        As it was read.

    Raises
    ------
    RuntimeError
        OpenVINO's, when it cannot read or compile the model.
    """

    def __init__(self, model: str | bytes, options: Mapping[str, Any]) -> None:
        import openvino

        core = openvino.Core()
        self.model = core.read_model(model)
        compiling = self.model
        self._single = _only_batch_is_open(self.model)
        if self._single:
            compiling = self.model.clone()
            compiling.reshape(
                {p.any_name: [1, *list(p.partial_shape)[1:]] for p in compiling.inputs}
            )
        named = {"INFERENCE_PRECISION_HINT": "f32", **options}
        self._lock = threading.Lock()
        self._request = core.compile_model(compiling, "CPU", named).create_infer_request()

    def run(self, names: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """The outputs called `names`, with memory of their own."""
        if not self._single:
            return self._answer(names, inputs)
        count = len(next(iter(inputs.values())))
        rows = [
            self._answer(names, {name: array[k : k + 1] for name, array in inputs.items()})
            for k in range(count)
        ]
        return rows[0] if count == 1 else [np.concatenate(own) for own in zip(*rows, strict=True)]

    def _answer(self, names: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        with self._lock:
            found = self._request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        return [found[name] for name in names]


def _only_batch_is_open(model: Any) -> bool:
    shapes = [list(port.partial_shape) for port in model.inputs]
    return (
        all(dims and dims[0].is_dynamic for dims in shapes)
        and all(length.is_static for dims in shapes for length in dims[1:])
        and all(
            dims and dims[0].is_dynamic for dims in (list(p.partial_shape) for p in model.outputs)
        )
    )
