"""Analytic stand-ins for the lung network and the slice classifiers, as ONNX cores.

Lung: a pixel is lung where the mean of its 3 × 3 neighbours lies within 195 of −750 HU, opened by
5 × 5; it is the right lung in the left half of the crop.

Classifiers: the share of pixels near −450 HU (raw HU), or one deviation under the mean (masked), in
each of 8 × 8 cells; its mean, scaled and shifted, is the logit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

RAW_GAIN, RAW_BIAS = 200.0, -2.0
"""Of the raw HU stand-in: logit = gain · mean share + bias."""


def write_lung(path: Path, side: int = 256) -> Path:
    """``x`` FP32 [N, 1, side, side] → ``scores`` [N, 3, side, side]."""
    left = np.zeros((1, 2, 1, side), np.float32)
    left[:, 0, :, side // 2 :] = left[:, 1, :, : side // 2] = -10
    constants = {
        "centre": np.float32((1024 - 750) / 1624),
        "width": np.float32(195 / 1624),
        "left": left,
        "zero": np.float32(0),
    }
    nodes = [
        helper.make_node(
            "AveragePool", ["x"], ["mean"], kernel_shape=[3, 3], pads=[1, 1, 1, 1],
            count_include_pad=0,
        ),
        helper.make_node("Sub", ["mean", "centre"], ["off"]),
        helper.make_node("Abs", ["off"], ["distance"]),
        helper.make_node("Sub", ["width", "distance"], ["inside"]),
        helper.make_node("Neg", ["inside"], ["outside"]),
        helper.make_node("MaxPool", ["outside"], ["grown"], kernel_shape=[5, 5], pads=[2] * 4),
        helper.make_node("Neg", ["grown"], ["core"]),
        helper.make_node("MaxPool", ["core"], ["opened"], kernel_shape=[5, 5], pads=[2] * 4),
        helper.make_node("Mul", ["opened", "zero"], ["background"]),
        helper.make_node("Add", ["opened", "left"], ["sides"]),
        helper.make_node("Concat", ["background", "sides"], ["scores"], axis=1),
    ]  # fmt: skip
    return _save(path, nodes, ("x", side), {"scores": [3, side, side]}, constants)


def write_raw_hu(path: Path) -> Path:
    """``hu`` FP32 [N, 1, 256, 256] → ``prob``, ``logit``, ``cam_raw``."""
    head = (RAW_GAIN, RAW_BIAS)
    return _classifier(path, "hu", _near("hu"), {"centre": -450, "scale": 1 / 200}, head)


def write_masked(path: Path) -> Path:
    """``image`` FP32 [N, 1, 256, 256], standardised → ``prob``, ``logit``, ``cam_raw``."""
    return _classifier(path, "image", _near("image"), {"centre": -1, "scale": 1 / 0.6}, (60, -2))


def _near(name: str) -> list[NodeProto]:
    """1 at a value, falling to 0 on both sides of it."""
    return [
        helper.make_node("Sub", [name, "centre"], ["off"]),
        helper.make_node("Abs", ["off"], ["distance"]),
        helper.make_node("Mul", ["distance", "scale"], ["relative"]),
        helper.make_node("Sub", ["one", "relative"], ["near"]),
        helper.make_node("Relu", ["near"], ["share"]),
    ]


def _classifier(
    path: Path,
    name: str,
    nodes: list[NodeProto],
    near: dict[str, float],
    head: tuple[float, float],
) -> Path:
    constants = {k: np.float32(v) for k, v in near.items()} | {
        "one": np.float32(1),
        "gain": np.float32(head[0]),
        "bias": np.float32(head[1]),
        "axes": np.array([2, 3], np.int64),
    }
    nodes += [
        helper.make_node(
            "AveragePool", ["share"], ["cell"], kernel_shape=[32, 32], strides=[32] * 2
        ),
        helper.make_node("Mul", ["cell", "gain"], ["cam_raw"]),
        helper.make_node("ReduceMean", ["cam_raw", "axes"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["prob"]),
    ]
    shapes = {"prob": [1], "logit": [1], "cam_raw": [1, 8, 8]}
    return _save(path, nodes, (name, 256), shapes, constants)


def _save(
    path: Path,
    nodes: list[NodeProto],
    image: tuple[str, int],
    outputs: dict[str, list[int]],
    constants: dict[str, Any],
) -> Path:
    def value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])

    graph = helper.make_graph(
        nodes,
        "stand-in",
        [value(image[0], [1, image[1], image[1]])],
        [value(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
