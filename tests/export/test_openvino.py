"""Networks served by OpenVINO: bfloat16 in files, certificates, and a server that runs them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from standins import write_disease, write_lung

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import InputError
from hilum.client import Client
from hilum.export import openvino
from hilum.export.certificate import read_certificate
from hilum.export.check import check_repository
from hilum.export.precision import to_bfloat
from hilum.export.repository import export_system
from hilum.preprocessing.phantoms.xray import chest_xray
from hilum.server.launcher import TritonServer
from hilum.server.model_config import read_config

pytest.importorskip("openvino")

SYSTEM = SYSTEMS["cxr-severity"]

needs_bf16 = pytest.mark.skipif(not openvino.computes_bf16(), reason=openvino.NO_BF16)


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cores")
    lung, disease = folder / "lung.onnx", folder / "pspnet.onnx"
    return {"lung": write_lung(lung), "pspnet": write_disease(disease, 384, 0.9)}


def _certificate(repository: Path, model: str) -> dict:
    found = read_certificate(repository / model)
    assert found is not None
    return found


def _two_layers() -> onnx.ModelProto:
    """Two convolutions with values that FP16 would flush to zero or clip."""
    weights = np.random.default_rng(0).normal(size=(2, 4, 4, 3, 3)).astype(np.float32)
    weights[0, 0], weights[1, 0] = 1e-30, 1e30
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], name="n1", **pads),
        helper.make_node("Relu", ["a"], ["b"], name="n2"),
        helper.make_node("Conv", ["b", "second"], ["c"], name="n3", **pads),
        helper.make_node("Sigmoid", ["c"], ["y"], name="n4"),
    ]
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 32, 32]) for name in "xy"
    ]
    named = zip(("first", "second"), weights, strict=True)
    tensors = [numpy_helper.from_array(array, name) for name, array in named]
    graph = helper.make_graph(nodes, "two", value[:1], value[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_weights_are_rounded_from_fp32_to_the_nearest_bfloat16() -> None:
    exact = {t.name: numpy_helper.to_array(t) for t in _two_layers().graph.initializer}
    reduced = to_bfloat(_two_layers())
    found = {t.name: t for t in reduced.graph.initializer if t.data_type == TensorProto.BFLOAT16}
    assert set(found) == {"first", "second"}
    for name, tensor in found.items():
        bits = np.frombuffer(tensor.raw_data, "<u2").astype(np.uint32) << 16
        near = bits.view(np.float32).reshape(tensor.dims)
        np.testing.assert_allclose(near, exact[name], rtol=2.0**-8, atol=0)
    kinds = {t.type.tensor_type.elem_type for t in (*reduced.graph.input, *reduced.graph.output)}
    assert kinds == {TensorProto.FLOAT}


def test_a_batch_gives_what_each_image_gives_also_in_several_threads() -> None:
    content = _two_layers().SerializeToString()
    images = np.random.default_rng(2).random((5, 4, 32, 32), np.float32)
    session = openvino.Session(content, "two layers")
    (batch,) = session.run(["y"], {"x": images})
    with ThreadPoolExecutor(4) as pool:
        each = list(pool.map(lambda k: session.run(["y"], {"x": images[k : k + 1]})[0], range(5)))
    np.testing.assert_array_equal(batch, np.concatenate(each))
    full = ort.InferenceSession(content).run(["y"], {"x": images})[0]
    np.testing.assert_allclose(batch, full, atol=1e-5)


def test_a_file_in_bfloat16_is_computed_so() -> None:
    image = np.random.default_rng(1).random((1, 4, 32, 32), np.float32)
    model = _two_layers()
    for tensor in model.graph.initializer:
        values = np.clip(numpy_helper.to_array(tensor), -1, 1)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    full, reduced = (
        openvino.Session(one.SerializeToString(), "two layers").run(["y"], {"x": image})[0]
        for one in (model, to_bfloat(model))
    )
    apart = np.abs(full - reduced).max()
    assert 1e-5 < apart < 0.05


@needs_bf16
def test_only_the_network_is_in_bfloat16_and_the_server_gives_the_score_of_fp32(
    cores: dict[str, Path], tmp_path: Path
) -> None:
    xray = chest_xray(3, height=420, width=380, severity=0.6).pixels
    scores = {}
    for target, precision in (("onnx", "fp32"), ("openvino", "bf16")):
        repository = tmp_path / target
        export_system(SYSTEM, repository=repository, onnx=cores, target=target, precision=precision)
        assert not [f for f in check_repository(repository, [SYSTEM]) if f.severity == "error"]
        with TritonServer(repository) as server, Client(server.grpc_url) as client:
            scores[target] = client.run("cxr-severity", xray, network="pspnet").score
            served = client.about()["served_by"]
        assert served["cxr_pspnet"] == {"onnx": "onnxruntime"}.get(target, target)
    assert scores["openvino"] == scores["onnx"] > 0
    found = _certificate(tmp_path / "openvino", "cxr_pspnet")
    assert (found["precision"], found["served_by"]) == ("bf16", "openvino")
    assert found["parity"]["largest_difference"]["core input"] <= 2e-5


@needs_bf16
def test_a_network_that_misses_the_tolerance_stays_in_fp32(
    cores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hilum.export.certificate.HALF_MEAN", 0.0)
    said = []
    export_system(
        SYSTEM, repository=tmp_path, onnx={"lung": cores["lung"]}, target="openvino",
        precision="bf16", progress=lambda name, step: said.append((name, step)),
    )  # fmt: skip
    found = _certificate(tmp_path, "cxr_lung")
    assert found["precision"] == "fp32"
    assert not found["bf16"]["accepted"]
    assert "on average" in found["bf16"]["reason"]
    assert ("lung", f"stays fp32: {found['bf16']['reason']}") in said


def test_a_processor_without_bfloat16_gets_fp32_and_is_named(
    cores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "computes_bf16", lambda: False)
    said = []
    export_system(
        SYSTEM, repository=tmp_path, onnx={"lung": cores["lung"]}, target="openvino",
        precision="bf16", progress=lambda _name, step: said.append(step),
    )  # fmt: skip
    assert _certificate(tmp_path, "cxr_lung")["precision"] == "fp32"
    assert f"fp32 instead of bf16: {openvino.NO_BF16}" in said
    config = read_config(tmp_path / "cxr_lung" / "config.pbtxt")
    assert (config.backend, config.default_model_filename) == ("openvino", "model.onnx")


@pytest.mark.parametrize(
    ("target", "precision", "message"),
    [
        ("onnx", "bf16", "bf16 is for --target openvino"),
        ("openvino", "fp16", "gain nothing from fp16"),
    ],
)
def test_a_precision_that_the_target_has_not_is_refused(
    target: str, precision: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export_system(SYSTEM, repository=tmp_path, target=target, precision=precision)
    assert not list(tmp_path.iterdir())
