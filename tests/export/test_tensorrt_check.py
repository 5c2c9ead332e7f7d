"""Graphs through NVIDIA's own parser and compiler; without TensorRT-RTX only what surrounds it."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import standins
from onnx import TensorProto, helper

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import ExportError
from hilum.export.certificate import sha256_of
from hilum.export.repository import export_system
from hilum.export.tensorrt import vendor
from hilum.export.tensorrt.build import Machine, build_engines
from hilum.export.tensorrt.check import (
    CAPABILITY,
    MODULE,
    Checked,
    check_graphs,
    compiler_version,
    read_report,
    write_report,
)
from hilum.export.tensorrt.graphs import wanted
from hilum.export.tensorrt.plan import Engine
from hilum.export.tensorrt.quantised import write_quantised
from hilum.export.tensorrt.supervise import VARIABLE, Limits, Outcome, run_worker
from hilum.export.tensorrt.vendor import Order
from hilum.export.tensorrt.widen import widened
from hilum.server.doctor.engines import find_engines

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = SYSTEMS["cxr-severity"]
LIMITS = Limits(120, 8 << 30)


@pytest.fixture(scope="module")
def compiler() -> str:
    """TensorRT-RTX where it is installed, also in the folder of `make check-tensorrt`."""
    patch = pytest.MonkeyPatch()
    folder = ROOT / "out" / "tensorrt-rtx"
    if folder.is_dir():
        patch.setenv(VARIABLE, str(folder))
    version = compiler_version()
    patch.undo()
    if version is None:
        pytest.skip("TensorRT-RTX is not installed; `make check-tensorrt` does it")
    return version


@pytest.fixture
def found(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ROOT / "out" / "tensorrt-rtx"
    if folder.is_dir():
        monkeypatch.setenv(VARIABLE, str(folder))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    files = {"lung": standins.write_lung(folder / "lung.onnx", 96)}
    files["fpn"] = standins.write_disease(folder / "fpn.onnx", 64, 0.9)
    export_system(SYSTEM, repository=folder / "repository", onnx=files)
    return folder / "repository"


def graphs(*networks: str):
    return wanted([SYSTEM], networks, ["fp32"])


def test_small_systems_come_first_and_shared_networks_once() -> None:
    order = wanted(SYSTEMS.values(), None, ["fp32", "fp16"])
    assert order[0].network.model == "lungmask_r231"
    assert order[-1].system.name == "dlpe"
    models = {n.model for s in SYSTEMS.values() for n in s.networks}
    assert len(order) == len({(g.network.model, g.precision) for g in order}) == 2 * len(models)
    with pytest.raises(ExportError, match="no network 'nose'"):
        wanted(SYSTEMS.values(), ["nose"], ["fp32"])


def test_only_networks_that_can_be_int8_are_checked_as_int8() -> None:
    order = wanted(SYSTEMS.values(), None, ["fp32", "int8"])
    reduced = [g.network for g in order if g.precision == "int8"]
    assert reduced == list(SYSTEMS["dlpe"].networks)


def test_an_int8_graph_is_quantised_and_says_that_it_is_not_to_be_served(tmp_path: Path) -> None:
    system = SYSTEMS["dlpe"]
    network = system.network("airway2_y")
    write_quantised(system, network, tmp_path)
    found = json.loads((tmp_path / "certificate.json").read_text())
    assert (found["precision"], found["parity"]) == ("int8", None)
    assert not found["int8"]["accepted"]
    file = tmp_path / "model.onnx"
    assert found["file"]["sha256"] == sha256_of(file)
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert kinds.count("QuantizeLinear") > 10
    rng = np.random.default_rng(0)
    masks = {t.name: rng.integers(0, 2, (1, 32, 32), np.uint8) for t in network.inputs[1:]}
    slab = rng.normal(-0.2, 0.2, (3, 32, 32)).astype(np.float32)
    (probability,) = ort.InferenceSession(file).run(None, {"slab": slab, **masks})
    assert np.asarray(probability).shape == (1, 32, 32)
    assert np.asarray(probability).std() > 0


def test_wider_inputs_compute_the_same(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["hu"], ["x"], to=TensorProto.FLOAT)],
        "cast",
        [helper.make_tensor_value_info("hu", TensorProto.INT16, ["N", 3])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "a.onnx")
    assert widened(tmp_path / "a.onnx", tmp_path / "b.onnx") == ["hu: INT16 → INT32"]
    hu = np.array([[-1024, 0, 3071]])
    answers = [
        ort.InferenceSession(tmp_path / f"{name}.onnx").run(None, {"hu": hu.astype(dtype)})[0]
        for name, dtype in (("a", np.int16), ("b", np.int32))
    ]
    np.testing.assert_array_equal(*answers)
    assert widened(tmp_path / "b.onnx", tmp_path / "c.onnx") == []
    assert not (tmp_path / "c.onnx").exists()


def test_the_report_reads_back_and_says_what_is_missing(tmp_path: Path) -> None:
    checked = Checked(
        "cxr-severity", "fpn", "cxr_fpn", "fp32", "failed", "the parser: no | kernel", "ab" * 32,
        messages=("warning: layer 17 of /core/a",), flags=("strongly typed",),
    )  # fmt: skip
    write_report(tmp_path, [checked])
    assert read_report(tmp_path) == [checked]
    page = (tmp_path / "report.md").read_text()
    assert "0 of 1 graphs passed" in page
    assert "- `cxr_fpn` fp32: the parser: no ¦ kernel" in page
    assert "- cxr-severity fp16: lung, unet" in page
    assert "- 1 ×: warning: layer … of …" in page
    (tmp_path / "report.json").write_text(json.dumps({"graphs": [{"system": 1}]}))
    assert read_report(tmp_path) == []


def test_without_the_compiler_it_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{MODULE}.py").write_text("raise ImportError")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(ExportError, match="make check-tensorrt"):
        list(check_graphs(graphs("fpn"), tmp_path / "out", limits=LIMITS))


def test_served_graphs_pass(found: None, repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run(**options):
        jobs = graphs("lung", "fpn", "pan")
        return list(check_graphs(jobs, out, repository=repository, limits=LIMITS, **options))

    # pan is not in the repository
    first = run()
    assert [(g.network.name, c.status, c.reason, earlier) for g, c, earlier in first] == [
        ("lung", "ok", "", False), ("fpn", "ok", "", False)
    ]  # fmt: skip
    for _, checked, _ in first:
        assert checked.engine_bytes > 0
        assert checked.layers > 0
        assert checked.compiler.startswith("TensorRT-RTX ")
    assert [earlier for *_, earlier in run()] == [True, True]
    # Another file is another graph.
    other = standins.write_disease(tmp_path / "fpn.onnx", 64, 0.2)
    export_system(SYSTEM, repository=repository, onnx={"fpn": other})
    assert [earlier for *_, earlier in run()] == [True, False]
    assert [c.network for c in read_report(out)] == ["fpn", "lung"]


def test_what_the_parser_does_not_know_fails(found: None, repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(repository, copy)
    file = copy / "cxr_fpn" / "1" / "model.onnx"
    model = onnx.load(file)
    (last,) = (n for n in model.graph.node if n.output[0] == "probability")
    last.op_type, last.domain = "Unheard", "of"
    model.opset_import.append(helper.make_opsetid("of", 1))
    onnx.save(model, file)
    certificate = file.with_name("certificate.json")
    told = json.loads(certificate.read_text())
    told["file"]["sha256"] = sha256_of(file)
    certificate.write_text(json.dumps(told))
    ((_, checked, _),) = check_graphs(
        graphs("fpn"), tmp_path / "out", repository=copy, limits=LIMITS
    )
    assert checked.status == "failed"
    assert checked.reason.startswith("the parser: ")
    assert "Unheard" in checked.reason


def test_an_int8_graph_passes(found: None, tmp_path: Path) -> None:
    jobs = wanted([SYSTEMS["dlpe"]], ["airway2_y"], ["int8"])
    ((_, checked, _),) = check_graphs(jobs, tmp_path, limits=LIMITS)
    assert (checked.status, checked.reason, checked.precision) == ("ok", "", "int8")
    assert "- dlpe int8: lung_x" in (tmp_path / "report.md").read_text()


def test_what_a_run_calls_is_there(found: None) -> None:
    """The names in `vendor.run`, on the objects of NVIDIA's module; running needs a GPU."""
    called = {
        "ICudaEngine": (
            "num_io_tensors", "get_tensor_name", "get_tensor_dtype", "create_execution_context",
            "num_optimization_profiles", "get_tensor_profile_shape",
            "get_device_memory_size_for_profile_v2",
        ),
        "IExecutionContext": (
            "set_optimization_profile_async", "set_input_shape", "get_tensor_shape",
            "set_tensor_address", "execute_async_v3",
        ),
        "Runtime": ("deserialize_cuda_engine",),
    }  # fmt: skip
    source = inspect.getsource(vendor.run) + inspect.getsource(vendor._profile)
    assert all(f".{name}" in source for names in called.values() for name in names)
    program = (
        "import json, sys, tensorrt_rtx as t\n"
        "called = json.loads(sys.argv[1])\n"
        "print([n for c in called for n in called[c] if not hasattr(getattr(t, c), n)])"
    )
    path = {"PYTHONPATH": os.environ.get(VARIABLE, "")}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(called)],
        env=os.environ | path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


class AheadOfTime:
    """Engines by TensorRT-RTX: the same parser, profiles and worker as on a GPU, but not run."""

    def __init__(self, version: str) -> None:
        self.version, self.built = version, 0

    def machine(self) -> Machine:
        return Machine(self.version, "none, built ahead of time", CAPABILITY, "none")

    def build(self, engine: Engine, onnx: Path, plan: Path) -> Outcome:
        self.built += 1
        shapes = [p.as_json() for p in engine.profiles]
        tf32 = engine.tf32 == "on"
        order = Order(MODULE, str(onnx), str(plan), shapes, tf32, 4, CAPABILITY)
        return run_worker(asdict(order), LIMITS)

    def run(self, plan: Path, reference: Path, prefix: str) -> None:
        """There is no GPU."""


def test_engines_of_nvidias_compiler_are_published_once(
    found: None, compiler: str, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    files = {"fpn": standins.write_disease(tmp_path / "fpn.onnx", 64, 0.9)}
    export_system(SYSTEM, repository=repository, onnx=files, target="tensorrt")
    builder = AheadOfTime(compiler)
    (built,) = build_engines(repository, builder).results
    assert (built.outcome, built.reason) == ("built", "")
    assert built.bytes == (repository / "cxr_fpn/1/model.plan").stat().st_size > 1000
    (engine,) = find_engines(repository)
    assert engine.intact
    assert engine.record is not None
    assert engine.record.fingerprint.tensorrt == compiler
    assert engine.onnx_sha256 == engine.record.fingerprint.onnx_sha256
    assert [b.outcome for b in build_engines(repository, builder).results] == ["valid"]
    assert builder.built == 1
