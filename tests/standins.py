"""Analytic stand-ins for the networks of X-ray severity scoring, as ONNX files.

With s(x) = 0.5·x₀ + 0.3·x₁ + 0.2·x₂ over the normalised channels: lung probability
sigmoid(12·(0.95 − s)), disease probability sigmoid(12·s), image-level probability constant.
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
    outputs = [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 1, side, side])]
    if cls is not None:
        nodes += [
            helper.make_node("ReduceMean", ["logit", "pool"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", "one"], ["column"]),
            helper.make_node("Add", ["column", "cls_value"], ["cls"]),
        ]
        outputs.append(helper.make_tensor_value_info("cls", TensorProto.FLOAT, ["N", 1]))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, side, side])],
        outputs,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
