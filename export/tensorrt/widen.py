"""Graphs that were exported for ONNX Runtime, with types at their border that TensorRT lacks."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

NARROW: dict[int, str] = {TensorProto.INT16: "INT16", TensorProto.UINT16: "UINT16"}
"""16-bit integers: ONNX and Triton have them, TensorRT does not."""


def widened(source: Path, target: Path) -> list[str]:
    """Write a copy of a file to `target` whose 16-bit integer inputs are INT32.

    The copy computes the same, and TensorRT's parser can look at all of it.

    Returns
    -------
    list of str
        What was changed, in words; when nothing is, nothing is written.
    """
    model = onnx.load(source)
    changed = []
    for value in model.graph.input:
        kind = value.type.tensor_type
        if kind.elem_type in NARROW:
            changed.append(f"{value.name}: {NARROW[kind.elem_type]} → INT32")
            kind.elem_type = TensorProto.INT32
    if changed:
        target.write_bytes(model.SerializeToString())
    return changed
