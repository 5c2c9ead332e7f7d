"""ONNX files of the user's that are served in a network's place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, ValueInfoProto

from hilum.catalog import Network, Tensor
from hilum.catalog.errors import ExportError

from .graph import ELEMENTS, modernise
from .recipes import CoreSignature

NAMES: dict[int, str] = {number: name for name, number in ELEMENTS.items()}

PRECISIONS = {"FP16": "fp16", "FP32": "fp32"}
"""Precision of an export by the element type of what it serves."""

TARGETS = {"INT16": "onnx", "INT32": "tensorrt"}
"""Target of an export by the element type of the integers that it serves."""

Dims = list[int | None]
"""Lengths of a tensor; None: symbolic."""


@dataclass(frozen=True, slots=True)
class UserFile:
    """A user's ONNX file whose signature fits a network.

    Attributes
    ----------
    kind
        ``core``: takes the normalised image and is wrapped. ``served``: has the whole served
        signature and is served untouched.
    sizes
        What the file itself states of the network's sizes.
    """

    path: Path
    model: ModelProto
    kind: Literal["core", "served"]
    sizes: Mapping[str, int]


def read_user_file(path: Path, network: Network, core: CoreSignature) -> UserFile:
    """Read an ONNX file and find out how it can stand for `network`.

    Raises
    ------
    ExportError
        When it is not ONNX, or fits neither the core's nor the served signature; the message
        says what differs and how to export the file instead.
    """
    model = _load(path)
    inputs, outputs = _interface(model)
    if inputs.keys() == {t.name for t in network.inputs} and inputs.keys() != core.inputs.keys():
        return _served(path, model, network)
    image = inputs.get(core.input)
    served = {t.name: t.dtype for t in network.inputs}.get(core.input)
    if image is not None and len(inputs) == 1 and _element(image) == served != "FP32":
        return _served(path, model, network)
    where = f"{path} (for {network.name})"
    _require(where, "inputs", inputs, set(core.inputs))
    if missing := [name for name in core.outputs if name not in outputs]:
        raise ExportError(
            f"{where}: no output {missing[0]!r}; it has {_list(outputs)}. "
            f"Name the outputs {_list(core.outputs)}"
        )
    sizes: dict[str, int] = {}
    for name, shape in core.inputs.items():
        _fit(where, inputs[name], Tensor(name, "FP32", shape), sizes)
    for name, shape in core.outputs.items():
        _fit(where, outputs[name], Tensor(name, "FP32", shape), sizes)
    keep = [o for o in model.graph.output if o.name in core.outputs]
    del model.graph.output[:]
    model.graph.output.extend(keep)
    return UserFile(path, modernise(model, where), "core", sizes)


def _served(path: Path, model: ModelProto, network: Network) -> UserFile:
    where = f"{path} (for {network.name})"
    inputs, outputs = _interface(model)
    _require(where, "inputs", inputs, {t.name for t in network.inputs})
    _require(where, "outputs", outputs, {t.name for t in network.outputs})
    sizes: dict[str, int] = {}
    batch = network.max_batch > 0
    for tensor in network.inputs:
        _fit(where, inputs[tensor.name], tensor, sizes, batch=batch)
    for tensor in network.outputs:
        _fit(where, outputs[tensor.name], tensor, sizes, batch=batch)
    return UserFile(path, model, "served", sizes)


def _load(path: Path) -> ModelProto:
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, UnicodeDecodeError) as broken:
        raise ExportError(f"{path} is not an ONNX file, or it is truncated") from broken
    except (onnx.checker.ValidationError, ValueError, OSError, RuntimeError) as broken:
        first = str(broken).strip().splitlines()[0]
        raise ExportError(f"{path} is not a valid ONNX model: {first}") from broken
    if not model.graph.node:
        raise ExportError(f"{path} is an ONNX file without a network")
    return model


def _interface(
    model: ModelProto,
) -> tuple[dict[str, ValueInfoProto], dict[str, ValueInfoProto]]:
    constants = {c.name for c in model.graph.initializer}
    inputs = {i.name: i for i in model.graph.input if i.name not in constants}
    return inputs, {o.name: o for o in model.graph.output}


def _fit(
    where: str,
    info: ValueInfoProto,
    tensor: Tensor,
    sizes: dict[str, int],
    *,
    batch: bool = True,
) -> None:
    """Check one tensor of the file and learn the sizes that it states."""
    name, kind = f"{where}: {tensor.name!r}", _element(info)
    if kind != tensor.dtype:
        remedy = ""
        if tensor.half and kind in PRECISIONS:
            remedy = f", or the export's --precision {PRECISIONS[kind]}"
        if tensor.wide and kind in TARGETS:
            remedy = f", or the export's --target {TARGETS[kind]}"
        raise ExportError(f"{name} is {kind}; it must be {tensor.dtype}{remedy}")
    dims = _dims(info)
    if dims is None:
        return  # an output without a shape is checked when it is run
    wanted = ["N", *tensor.shape] if batch else list(tensor.shape)
    if len(dims) != len(wanted):
        raise ExportError(f"{name} has {len(dims)} axes {_show(dims)}; it must have {wanted}")
    if batch and dims[0] is not None:
        raise ExportError(
            f"{name} has a fixed batch of {dims[0]}; the server batches requests. Export it with "
            f"a symbolic first axis: dynamic_axes={{{tensor.name!r}: {{0: 'N'}}}}, or "
            "dynamic_shapes with dynamo=True"
        )
    for have, want in zip(dims[batch:], tensor.shape, strict=True):
        if have is None:
            if isinstance(want, str) and want not in sizes:
                raise ExportError(
                    f"{name} is {_show(dims)}: height and width must be fixed, only the batch "
                    "axis symbolic"
                )
            continue
        if want == -1:
            raise ExportError(
                f"{name} is {_show(dims)}: the length {have} must be symbolic, requests have any"
            )
        expected = sizes.setdefault(want, have) if isinstance(want, str) else want
        if have != expected:
            raise ExportError(
                f"{name} is {_show(dims)}; it must be {wanted}"
                + "".join(f" with {k} = {v}" for k, v in sizes.items() if k in wanted)
            )


def _element(info: ValueInfoProto) -> str:
    number = info.type.tensor_type.elem_type
    known = number in onnx.TensorProto.DataType.values()
    return NAMES.get(number) or (onnx.TensorProto.DataType.Name(number) if known else f"#{number}")


def _dims(info: ValueInfoProto) -> Dims | None:
    if not info.type.tensor_type.HasField("shape"):
        return None
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in info.type.tensor_type.shape.dim
    ]


def _require(where: str, what: str, have: Mapping[str, object], want: set[str]) -> None:
    if have.keys() != want:
        raise ExportError(
            f"{where}: its {what} are {_list(have)}; they must be {_list(sorted(want))}"
        )


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(n) for n in names) or "none"


def _show(dims: Dims) -> str:
    return f"[{', '.join('?' if d is None else str(d) for d in dims)}]"
