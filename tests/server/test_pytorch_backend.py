"""The backend `pytorch`: the repository's ONNX files computed by PyTorch give what they give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, save
from torch._subclasses.fake_tensor import FakeTensorMode

from hilum.benchmarks.peer_networks import subject
from hilum.catalog import SYSTEMS, cxr_severity
from hilum.catalog.dlpe import TASKS
from hilum.catalog.errors import ServerError
from hilum.client import Client
from hilum.preprocessing.phantoms.xray import chest_xray
from hilum.server.backend_folder import VARIABLE, network_runtime
from hilum.server.binary import find_server
from hilum.server.launcher import TritonServer
from hilum.server.torch_graph import TorchGraph
from hilum.server.torch_operators import DTYPES, Unsupported

PROBABILITY = 1e-4
"""Largest difference of a probability of FP32 networks."""


def _compare(system: str, repository: Path, ending: str = "") -> int:
    """Networks of a repository on a valid input, against ONNX Runtime; how many there were.

    All, or those whose names end with `ending`.
    """
    declared, compared = SYSTEMS[system], 0
    for network in declared.networks:
        exported = (repository / network.model / "1" / "model.onnx").is_file()
        if not exported or not network.name.endswith(ending):
            continue
        one = subject(declared, network, repository, quick=True)
        session = onnxruntime.InferenceSession(one.file, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        expected = session.run(names, one.inputs[0])
        graph = TorchGraph(one.file)
        assert [o.name for o in graph.outputs] == names
        for name, ours, theirs in zip(
            names, graph.run(names, one.inputs[0]), expected, strict=True
        ):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), (network.model, name)
            if ours.dtype == np.uint8:
                assert np.mean(ours != theirs) < 1e-4, (network.model, name)
            else:
                np.testing.assert_allclose(ours, theirs, atol=PROBABILITY, err_msg=network.model)
        compared += 1
    return compared


def test_networks_give_the_same(dlpe_repository: Path) -> None:
    assert _compare("dlpe", dlpe_repository, "_z") == 11


@pytest.mark.load
def test_all_networks_give_the_same(
    dlpe_repository: Path, ct_repository: Path, whole_repository: Path
) -> None:
    assert _compare("dlpe", dlpe_repository) == 33
    assert _compare("lungmask", ct_repository) == 1
    assert _compare("cxr-severity", whole_repository) == 10


def test_no_step_on_a_gpu_takes_a_tensor_of_the_host(dlpe_repository: Path) -> None:
    """By PyTorch's tensors without values, which know a GPU's places without a GPU."""
    for task in TASKS.values():
        network = task.network("z")
        graph = TorchGraph(dlpe_repository / network.model / "1" / "model.onnx")
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            graph.device = torch.device("cuda:0")
            graph._moved = {
                name: torch.empty(held.shape, dtype=held.dtype, device="cuda:0")
                for name, held in graph._constants.items()
            }
            slices = {b.name: 6 + 2 * task.margin * (b.name == "slab") for b in graph.inputs}
            feed = {
                b.name: torch.empty((slices[b.name], 64, 64), dtype=DTYPES[b.element])
                for b in graph.inputs
            }
            found = TorchGraph.compute.__wrapped__(graph, feed)
        for output in graph.outputs:
            assert found[output.name].device == graph.device
            assert found[output.name].shape == (6, 64, 64)


def _graph(path: Path, nodes: list[Any], outputs: list[Any], constants: list[Any]) -> TorchGraph:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 9])
    graph = helper.make_graph(nodes, "small", [x], outputs, constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return TorchGraph(path)


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(0, 2**31, 1), (1, -2, 2), (-4, 9, 1), (8, -100, -1), (-2, 1, -3), (5, 5, 1), (-99, 99, 4)],
)
def test_slices_are_those_of_onnx(tmp_path: Path, start: int, end: int, step: int) -> None:
    values = {"starts": start, "ends": end, "axes": -1, "steps": step}
    constants = [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in values.items()]
    node = helper.make_node("Slice", ["x", *values], ["y"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = _graph(tmp_path / "m.onnx", [node], [y], constants)
    x = np.arange(72, dtype=np.float32).reshape(2, 4, 9)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (found,) = graph.run(["y"], {"x": x})
    np.testing.assert_array_equal(found, session.run(["y"], {"x": x})[0])


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    for name, given, words in (
        ("Erf", {}, "no operator Erf"),
        ("MaxPool", {"kernel_shape": [3], "auto_pad": "SAME_UPPER"}, "auto_pad"),
    ):
        with pytest.raises(Unsupported, match=words):
            node = helper.make_node(name, ["x"], ["y"], **given)
            _graph(tmp_path / "m.onnx", [node], [y], []).run(["y"], {"x": np.zeros((1, 4, 9))})


def test_a_repository_is_served_unchanged(
    standin_repository: Path, standin_server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same request, the same score, from a real server with PyTorch under its networks."""
    pixels = chest_xray(7, height=300, width=280, severity=0.5).pixels
    with Client(standin_server.grpc_url) as client:
        expected = client.run("cxr-severity", pixels, network="manet")
    monkeypatch.setenv(VARIABLE, "pytorch")
    models = [cxr_severity.ENSEMBLES["manet"].model]
    with (
        TritonServer(standin_repository, models=models, grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        assert server.staged is not None
        assert server.staged.backends == {"python", "pytorch"}
        found = client.run("cxr-severity", pixels, network="manet")
    assert (found.score, found.fractions) == (expected.score, expected.fractions)
    np.testing.assert_array_equal(found.lung512, expected.lung512)
    np.testing.assert_array_equal(found.disease512, expected.disease512)


def test_which_runtime_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_server()
    monkeypatch.delenv(VARIABLE, raising=False)
    assert network_runtime(found) == "onnxruntime"  # no GPU
    monkeypatch.setattr("hilum.server.backend_folder.gpus", lambda: 1)
    assert network_runtime(found) == "onnxruntime"  # neither sees it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert network_runtime(found) == "pytorch"
    monkeypatch.setenv(VARIABLE, "onnxruntime")
    assert network_runtime(found) == "onnxruntime"
    monkeypatch.setenv(VARIABLE, "jax")
    with pytest.raises(ServerError, match="HILUM_NETWORKS=jax: choose onnxruntime or pytorch"):
        network_runtime(found)
