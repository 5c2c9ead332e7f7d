"""Analytic stand-ins for networks, as ONNX files.

X-ray severity scoring, with s(x) = 0.5·x₀ + 0.3·x₁ + 0.2·x₂ over the normalised channels: lung
probability sigmoid(12·(0.95 − s)), disease probability sigmoid(12·s), image-level probability
constant. CT-Angel: see `write_ct_angel`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.array([0.5, 0.3, 0.2], np.float32).reshape(1, 3, 1, 1)


def write_lung(path: Path, side: int = 512) -> Path:
    """Write the stage I stand-in: ``image`` FP32 [N, 3, side, side] → ``mask``."""
    return _write(
        path, side, [("Mul", ["s", "minus_gain"], "a"), ("Add", ["a", "offset"], "logit")]
    )


def write_disease(path: Path, side: int, cls: float) -> Path:
    """Write a stage II stand-in: ``mask``, and ``cls`` constant."""
    return _write(path, side, [("Mul", ["s", "gain"], "logit")], cls)


def _write(
    path: Path, side: int, steps: list[tuple[str, list[str], str]], cls: float | None = None
) -> Path:
    constants = {
        "weights": WEIGHTS,
        "gain": np.float32(12),
        "minus_gain": np.float32(-12),
        "offset": np.float32(12 * 0.95),
        "one": np.array([1], np.int64),
        "axes": np.array([1], np.int64),
        "pool": np.array([1, 2, 3], np.int64),
        "zero": np.float32(0),
        "cls_value": np.float32(0 if cls is None else cls),
    }
    nodes = [
        helper.make_node("Mul", ["image", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axes"], ["s"], keepdims=1),
        *(helper.make_node(op, inputs, [output]) for op, inputs, output in steps),
        helper.make_node("Sigmoid", ["logit"], ["mask"]),
    ]
    outputs: list[tuple[str, list[str | int]]] = [("mask", ["N", 1, side, side])]
    if cls is not None:
        nodes += [
            helper.make_node("ReduceMean", ["logit", "pool"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", "one"], ["column"]),
            helper.make_node("Add", ["column", "cls_value"], ["cls"]),
        ]
        outputs.append(("cls", ["N", 1]))
    return _save(path, nodes, constants, outputs, side)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    outputs: list[tuple[str, list[str | int]]],
    side: int,
) -> Path:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_ct_angel(path: Path, side: int, *, valid: bool = False) -> Path:
    """Write a stand-in for CT-Angel: ``image`` FP32 [N, 3, side, side] on 0…1 → ``prob``.

    With b the brightness of the first channel in the published window, lesions are where
    1 − |b − 0.7| / 0.25 is high over 5 × 5 pixels (about −670 to −390 HU); the valid region is all
    rows in which 1 − |b − 0.36| / 0.12 is (lungs), over the whole width.
    """
    centre, reach = (0.36, 0.12) if valid else (0.7, 0.25)
    constants = {
        "starts": np.array([0], np.int64),
        "ends": np.array([1], np.int64),
        "axes": np.array([1], np.int64),
        "centre": np.float32(centre),
        "slope": np.float32(-1 / reach),
        "one": np.float32(1),
        "low": np.float32(0),
        "across": np.array([3], np.int64),
    }
    nodes = [
        helper.make_node("Slice", ["image", "starts", "ends", "axes"], ["grey"]),
        helper.make_node("Sub", ["grey", "centre"], ["off"]),
        helper.make_node("Abs", ["off"], ["distance"]),
        helper.make_node("Mul", ["distance", "slope"], ["fall"]),
        helper.make_node("Add", ["fall", "one"], ["near"]),
        helper.make_node("Neg", ["near"], ["far"]),
        helper.make_node("MaxPool", ["far"], ["farthest"], kernel_shape=[5, 5], pads=[2] * 4),
        helper.make_node("Neg", ["farthest"], ["eroded"]),
        helper.make_node("ReduceMax", ["eroded", "across"], ["rows"], keepdims=1),
        helper.make_node("Mul", ["eroded", "low"], ["nothing"]),
        helper.make_node("Add", ["rows" if valid else "eroded", "nothing"], ["value"]),
        helper.make_node("Clip", ["value", "low", "one"], ["prob"]),
    ]
    return _save(path, nodes, constants, [("prob", ["N", 1, side, side])], side)
