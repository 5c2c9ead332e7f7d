"""A random forest of scikit-learn as ONNX: opened without running code, and Triton can serve it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

INPUT, OUTPUT = "features", "probabilities"

_IR, _OPSET, _ML_OPSET = 10, 17, 3


def forest_to_onnx(forest: Any) -> ModelProto:
    """Write a fitted ``RandomForestClassifier`` whose classes are 0, 1, … as ONNX.

    Returns
    -------
    A model from ``features`` float32 [N, features] to ``probabilities`` float32 [N, classes]: the
    same as ``predict_proba`` gives for these features, but for rounding in single precision.
    """
    nodes: dict[str, list[Any]] = {name: [] for name in _NODE}
    leaves: dict[str, list[Any]] = {name: [] for name in _LEAF}
    for number, one in enumerate(forest.estimators_):
        _add(number, one.tree_, len(forest.estimators_), nodes, leaves)
    classes = len(forest.classes_)
    attributes: dict[str, Any] = {
        "classlabels_int64s": list(range(classes)),
        "post_transform": "NONE",
        **{f"nodes_{name}": values for name, values in nodes.items()},
        **{f"class_{name}": values for name, values in leaves.items()},
    }
    node = helper.make_node(
        "TreeEnsembleClassifier", [INPUT], ["label", OUTPUT], domain="ai.onnx.ml", **attributes
    )
    graph = helper.make_graph(
        [node],
        "forest",
        [_value(INPUT, forest.n_features_in_)],
        [_value(OUTPUT, classes)],
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR)


_NODE = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
_LEAF = ("treeids", "nodeids", "ids", "weights")


def _add(
    number: int, tree: Any, trees: int, nodes: dict[str, list[Any]], leaves: dict[str, list[Any]]
) -> None:
    """Add a tree: its nodes, and at its leaves the shares of the classes, divided by the trees."""
    count, inner = tree.node_count, tree.children_left >= 0
    columns: tuple[list[Any], ...] = (
        [number] * count,
        list(range(count)),
        np.where(inner, tree.feature, 0).tolist(),
        np.where(inner, _rounded_down(tree.threshold), 0).tolist(),
        np.where(inner, "BRANCH_LEQ", "LEAF").tolist(),
        np.where(inner, tree.children_left, 0).tolist(),
        np.where(inner, tree.children_right, 0).tolist(),
    )
    for name, column in zip(_NODE, columns, strict=True):
        nodes[name] += column
    shares = tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True) / trees
    at = np.flatnonzero(~inner)
    classes = shares.shape[1]
    ids = np.tile(np.arange(classes), len(at)).tolist()
    places = ([number] * len(ids), at.repeat(classes).tolist(), ids, shares[at].ravel().tolist())
    for name, column in zip(_LEAF, places, strict=True):
        leaves[name] += column


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 up to each threshold: float32 features then fall to the same side."""
    near = thresholds.astype(np.float32)
    lower = np.nextafter(near, np.float32(-np.inf))
    return np.where(near > thresholds, lower, near)


def _value(name: str, width: int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
