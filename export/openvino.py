"""Networks served by OpenVINO on processors: what computes them, and in which arithmetic.

The ONNX files are those of ONNX Runtime. OpenVINO computes them in FP32, in bfloat16 where the
processor can, or as INT8 where the file is quantised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from hilum.catalog.errors import ExportError
from hilum.catalog.openvino_runtime import Compiled

Arrays = dict[str, NDArray[Any]]

NO_BF16 = "this processor does not compute in bfloat16 (AVX-512 BF16 or AMX)"


def computes_bf16() -> bool:
    """Whether this processor computes in bfloat16, as OpenVINO sees it."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Session:
    """A compiled network, run like a session of ONNX Runtime.

    Parameters
    ----------
    model
        Content of an ONNX file.
    what
        Its name, for messages.

    Raises
    ------
    ExportError
        When OpenVINO cannot compile it.
    """

    def __init__(self, model: bytes, what: str) -> None:
        try:
            self._compiled = Compiled(model, {})
        except RuntimeError as refused:
            first = str(refused).strip().splitlines()[-1]
            raise ExportError(f"OpenVINO cannot run {what}: {first}") from refused

    def run(self, names: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """The outputs called `names`."""
        return self._compiled.run(names, inputs)
