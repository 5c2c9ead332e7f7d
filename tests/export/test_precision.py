"""FP16 variants: what stays in FP32, and that scores do not change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hilum.catalog import SYSTEMS
from hilum.catalog import cxr_severity as catalog
from hilum.export.precision import to_half
from hilum.export.repository import export_system
from hilum.export.systems.cxr_severity.random import sample
from hilum.postprocessing.cxr_severity.zones import zones_step

SYSTEM = SYSTEMS["cxr-severity"]
CASES = 24


@pytest.fixture(scope="module")
def half_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("half")
    export_system(SYSTEM, repository=repository, networks=["pspnet"], precision="fp16")
    return repository


@pytest.mark.load
def test_the_certificate_names_the_precision(half_repository: Path) -> None:
    folder = half_repository / "cxr_pspnet" / "1"
    found = json.loads((folder / "certificate.json").read_text())
    assert found["precision"] == "fp16"
    # Before and after the network everything is FP32 and judged as such.
    assert found["parity"]["largest_difference"]["core input"] <= 2e-5
    model = onnx.load(folder / "model.onnx")
    kinds = [c.data_type for c in model.graph.initializer if c.name.startswith("core/")]
    weights = sum(k == TensorProto.FLOAT16 for k in kinds)
    assert weights > 0.8 * len(kinds)


@pytest.mark.load
def test_scores_do_not_change(half_repository: Path, whole_repository: Path) -> None:
    """Acceptance of spec cxr §14: fractions within 0.005, and the same scores.

    Random weights put many fractions near the threshold; a score may change only where that is why.
    """
    sessions = [
        ort.InferenceSession(folder / "cxr_pspnet" / "1" / "model.onnx")
        for folder in (whole_repository, half_repository)
    ]
    threshold = np.array([catalog.DISEASE["pspnet"].zone_threshold])
    mode = np.array([catalog.PARITY], np.uint8)
    largest, changed = 0.0, 0
    for number in range(CASES):
        inputs = sample(
            SYSTEM.network("pspnet"), catalog.LUNG_SIZE, 9000 + number, number / CASES
        ).inputs
        results, gates = [], []
        for session in sessions:
            names = ["disease", "ungated", "probability"]
            disease, ungated, probability = (np.asarray(a)[0] for a in session.run(names, inputs))
            gates.append(float(probability[0]))
            results.append(
                zones_step(
                    lung=inputs["lung"][0],
                    box=inputs["box"][0],
                    disease=disease,
                    ungated=ungated,
                    probability=probability,
                    zone_threshold=threshold,
                    mode=mode,
                )
            )
        full, half = results
        full_p, half_p = gates
        apart = np.abs(full["fractions_ungated"] - half["fractions_ungated"])
        largest = max(largest, float(np.nanmax(apart)))
        if full["score"][0] != half["score"][0]:
            changed += 1
            near = np.nanmin(np.abs(full["fractions_ungated"] - threshold))
            assert near <= 0.005 or abs(full_p - half_p) >= abs(full_p - 0.5)
    assert largest <= 0.005
    assert changed <= 0.05 * CASES


def attention() -> ModelProto:
    """A softmax whose product goes through a reshape, as in MA-Net, between two convolutions."""
    weight = np.full((4, 3, 1, 1), 0.1, np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["features"], "conv"),
        helper.make_node("Reshape", ["features", "flat"], ["rows"], "reshape"),
        helper.make_node("Softmax", ["rows"], ["soft"], "softmax", axis=1),
        helper.make_node("Reshape", ["soft", "grid"], ["scores"], "scores_reshape"),
        helper.make_node("MatMul", ["scores", "features"], ["attended"], "product"),
        helper.make_node("Conv", ["attended", "out"], ["logit"], "head"),
        helper.make_node("Sigmoid", ["logit"], ["mask"], "sigmoid"),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.full((1, 4, 1, 1), 0.2, np.float32), "out"),
            numpy_helper.from_array(np.array([0, -1]), "flat"),
            numpy_helper.from_array(np.array([0, 4, 8, 8]), "grid"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_attention_and_sigmoid_stay_in_fp32() -> None:
    half = onnx.shape_inference.infer_shapes(to_half(attention()))
    onnx.checker.check_model(half)
    kinds = {v.name: v.type.tensor_type.elem_type for v in half.graph.value_info}
    kinds |= {c.name: c.data_type for c in half.graph.initializer}
    kinds |= {v.name: v.type.tensor_type.elem_type for v in half.graph.input}
    by_name = {n.name: kinds[n.input[0]] for n in half.graph.node}
    assert by_name["conv"] == by_name["head"] == TensorProto.FLOAT16
    for name in ("softmax", "scores_reshape", "product", "sigmoid"):
        assert by_name[name] == TensorProto.FLOAT, name
    image = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    full, small = (
        ort.InferenceSession(m.SerializeToString()).run(None, {"image": image})[0]
        for m in (attention(), half)
    )
    np.testing.assert_allclose(full, small, atol=1e-3)
