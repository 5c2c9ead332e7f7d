"""An ONNX file computed by PyTorch, operator by operator.

For GPUs on whose machine neither TensorRT nor an ONNX Runtime for CUDA is: PyTorch is often there.
No TF32 and no search for faster kernels: the same input gives the same output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor

from .torch_operators import DTYPES, ON_HOST, Operator, Unsupported, operator

_OPSETS = range(13, 24)
"""In which the operators mean what `torch_operators` does: axes are inputs from 13 on."""


@dataclass(frozen=True, slots=True)
class Border:
    """An input or output of a file: its name, ONNX's number of its element type, its lengths."""

    name: str
    element: int
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """One node: inputs by name (empty: left out), and values that nothing needs afterwards."""

    run: Operator
    inputs: tuple[str, ...]
    host: tuple[int, ...]
    output: str
    done: tuple[str, ...]


class TorchGraph:
    """One network, ready to compute.

    Parameters
    ----------
    path
        The ONNX file.
    device
        ``"cpu"`` or ``"cuda:N"``.

    Raises
    ------
    Unsupported
        For a graph with an operator that is not known; names it.
    """

    def __init__(self, path: Path | str, device: str = "cpu") -> None:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        graph = _checked(onnx.load(str(path)))
        self.device = torch.device(device)
        self._constants = {
            held.name: torch.from_numpy(np.array(numpy_helper.to_array(held)))
            for held in _held(graph)
        }
        self._moved = {name: value.to(self.device) for name, value in self._constants.items()}
        self.inputs, self.outputs = _borders(graph)
        self._steps = _steps(graph, {o.name for o in self.outputs})

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[NDArray[Any]]:
        """The outputs called `names` of NumPy's arrays `feed`."""
        found = self.compute({k: torch.from_numpy(_writeable(v)) for k, v in feed.items()})
        return [found[name].contiguous().cpu().numpy() for name in names]

    @torch.inference_mode()
    def compute(self, feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs, where the network computes."""
        values = {name: tensor.to(self.device) for name, tensor in feed.items()}
        for step in self._steps:
            values[step.output] = step.run(*self._arguments(step, values))
            for name in step.done:
                del values[name]
        constants = {o.name for o in self.outputs} & set(self._moved)
        return values | {name: self._moved[name] for name in constants}

    def _arguments(self, step: _Step, values: Mapping[str, Tensor]) -> list[Tensor | None]:
        """Inputs of a step: on the host what holds shapes, and steps that work on shapes alone."""
        worked = [
            values[n] for i, n in enumerate(step.inputs) if n in values and i not in step.host
        ]
        on_host = bool(worked) and all(value.device.type == "cpu" for value in worked)
        on_host = on_host and self.device.type != "cpu"
        found: list[Tensor | None] = []
        for place, name in enumerate(step.inputs):
            if not name:
                found.append(None)
            elif name not in values:
                host = place in step.host or on_host
                found.append((self._constants if host else self._moved)[name])
            elif place in step.host or on_host:
                found.append(values[name])
            else:
                found.append(values[name].to(self.device))
        return found


def borders(path: Path | str) -> tuple[tuple[Border, ...], tuple[Border, ...]]:
    """Inputs and outputs of an ONNX file."""
    return _borders(onnx.load(str(path), load_external_data=False).graph)


def _borders(graph: onnx.GraphProto) -> tuple[tuple[Border, ...], tuple[Border, ...]]:
    held = {v.name for v in graph.initializer}
    inputs = tuple(_border(v) for v in graph.input if v.name not in held)
    return inputs, tuple(map(_border, graph.output))


def _checked(model: onnx.ModelProto) -> onnx.GraphProto:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset not in _OPSETS or model.functions:
        raise Unsupported(f"opset {opset}, or a file with functions of its own")
    return model.graph


def _held(graph: onnx.GraphProto) -> list[TensorProto]:
    """Weights and constants, by name."""
    found = list(graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            held = TensorProto()
            held.CopyFrom(node.attribute[0].t)
            held.name = node.output[0]
            found.append(held)
    return found


def _steps(graph: onnx.GraphProto, kept: set[str]) -> tuple[_Step, ...]:
    nodes = [n for n in graph.node if n.op_type != "Constant" or n.attribute[0].name != "value"]
    computed = {node.output[0] for node in nodes} | {v.name for v in graph.input}
    last: dict[str, int] = {n: i for i, node in enumerate(nodes) for n in node.input if n}
    held = {v.name for v in graph.initializer}
    steps = []
    for number, node in enumerate(nodes):
        if node.domain not in ("", "ai.onnx") or sum(map(bool, node.output)) != 1:
            raise Unsupported(
                f"operator {node.domain}.{node.op_type} with {len(node.output)} outputs"
            )
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        done = {n for n in node.input if n in computed - held - kept and last[n] == number}
        steps.append(
            _Step(
                partial(operator(node.op_type), given), tuple(node.input),
                ON_HOST.get(node.op_type, ()), node.output[0], tuple(done),
            )
        )  # fmt: skip
    return tuple(steps)


def _border(value: onnx.ValueInfoProto) -> Border:
    kind = value.type.tensor_type
    if kind.elem_type not in DTYPES:
        raise Unsupported(f"{value.name} of element type {kind.elem_type}")
    dims = tuple(d.dim_value if d.dim_value > 0 else -1 for d in kind.shape.dim)
    return Border(value.name, kind.elem_type, dims)


def _writeable(array: NDArray[Any]) -> NDArray[Any]:
    """An array that PyTorch takes without a warning: it has no read-only tensors."""
    return array if array.flags.writeable and array.flags.c_contiguous else np.array(array)
