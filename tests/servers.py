"""Repositories and the servers of them that the tests of several rooms share."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import exports
import onnx
import pytest
import standins
from angel_slices import SIDE
from array_modules import CUPY, imported
from onnx import TensorProto, helper
from server_pool import borrowed, stop_all

from hilum.catalog import SYSTEMS
from hilum.client.probe import Listener, identify
from hilum.export.repository import export_system
from hilum.preprocessing.phantoms.ct import CtPhantom, chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.server.arguments import Ports, Settings, arguments
from hilum.server.backend_folder import assemble_backends
from hilum.server.binary import find_server
from hilum.server.environment import server_environment
from hilum.server.launcher import TritonServer, free_ports

_ONNX_CONFIG = """
backend: "onnxruntime"
max_batch_size: {batch}
input [ {{ name: "{input}" data_type: TYPE_{dtype} dims: {dims} }} ]
output [ {{ name: "{output}" data_type: TYPE_{dtype} dims: {out_dims} }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""

_SLOW_MODEL = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "seconds").as_numpy()
            if seconds[0] < 0:
                code = pb_utils.TritonError.INVALID_ARG
                if seconds[0] == -2:
                    self.refusals = getattr(self, "refusals", 0) + 1
                    code = pb_utils.TritonError.UNAVAILABLE
                if code == pb_utils.TritonError.INVALID_ARG or self.refusals % 3:
                    error = pb_utils.TritonError("refused", code)
                    answers.append(pb_utils.InferenceResponse([], error))
                    continue
            time.sleep(max(0.0, float(seconds[0])))
            done = np.tile(seconds, 100_000).astype(np.float32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("done", done)]))
        return answers
"""

_ABOUT_MODEL = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        text = json.dumps({"version": "0.1.0", "models": {"cxr_lung": {"source": "random"}}})
        told = pb_utils.Tensor("json", np.frombuffer(text.encode(), np.uint8))
        return [pb_utils.InferenceResponse([told]) for _ in requests]
"""

_PYTHON_CONFIG = """
backend: "python"
max_batch_size: 0
input [ {{ name: "{input}" data_type: TYPE_{in_type} dims: [ 1 ] }} ]
output [ {{ name: "{output}" data_type: TYPE_{out_type} dims: [ {size} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""


def _write_onnx(folder: Path, node: onnx.NodeProto, config: dict[str, object]) -> None:
    element = getattr(
        TensorProto, {"FP32": "FLOAT"}.get(str(config["dtype"]), str(config["dtype"]))
    )
    first = ["N"] if config["batch"] else []

    def value(name: str, dims: str) -> onnx.ValueInfoProto:
        numbers = [int(d) for d in str(config[dims]).strip("[] ").split(",")]
        shape = [*first, *(f"d{i}" if d < 0 else d for i, d in enumerate(numbers))]
        return helper.make_tensor_value_info(str(config[name]), element, shape)

    graph = helper.make_graph([node], "g", [value("input", "dims")], [value("output", "out_dims")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "1").mkdir(parents=True)
    onnx.save(model, str(folder / "1" / "model.onnx"))
    (folder / "config.pbtxt").write_text(_ONNX_CONFIG.format(**config))


def _write_python(folder: Path, code: str, **config: object) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(code)
    (folder / "config.pbtxt").write_text(_PYTHON_CONFIG.format(**config))


@pytest.fixture(scope="session")
def cupy() -> Any:
    """CuPy, where it finds a GPU; a test's first fixture, so that nothing starts in vain."""
    return imported(CUPY)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that show how tensors travel.

    `small`: FP32 [N, 16], identity. `picture`: UINT8 [N, 64, 64, 3], doubled along the rows.
    `dynamic`: FP32 [-1], identity. `slow`: FP32 [1], sleeps so many seconds; -1 is an
    invalid argument; of every three requests with -2 the first two are refused as UNAVAILABLE.
    """
    root = tmp_path_factory.mktemp("repository")
    identity = helper.make_node("Identity", ["x"], ["y"])
    _write_onnx(
        root / "small",
        identity,
        {"batch": 8, "dtype": "FP32", "input": "x", "output": "y", "dims": "[ 16 ]",
         "out_dims": "[ 16 ]"},
    )  # fmt: skip
    _write_onnx(
        root / "dynamic",
        identity,
        {"batch": 0, "dtype": "FP32", "input": "x", "output": "y", "dims": "[ -1 ]",
         "out_dims": "[ -1 ]"},
    )  # fmt: skip
    _write_onnx(
        root / "picture",
        helper.make_node("Concat", ["image", "image"], ["doubled"], axis=1),
        {"batch": 8, "dtype": "UINT8", "input": "image", "output": "doubled",
         "dims": "[ 64, 64, 3 ]", "out_dims": "[ 128, 64, 3 ]"},
    )  # fmt: skip
    _write_python(
        root / "slow", _SLOW_MODEL, input="seconds", in_type="FP32", output="done",
        out_type="FP32", size=100_000,
    )  # fmt: skip
    _write_python(
        root / "hilum_about", _ABOUT_MODEL, input="query", in_type="UINT8", output="json",
        out_type="UINT8", size=-1,
    )  # fmt: skip
    return root


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """A server of the whole repository, with HTTP; no test stops it."""
    with TritonServer(repository, http=True, grace=0) as running:
        yield running


@pytest.fixture
def url(server: TritonServer) -> str:
    """Address of the shared server."""
    return server.grpc_url


@pytest.fixture
def make_server(repository: Path) -> Iterator[Callable[..., TritonServer]]:
    """Start servers of a test's own, by default of `small` alone, that a test may kill."""
    started: list[TritonServer] = []

    def make(port: int | None = None, models: tuple[str, ...] = ("small",)) -> TritonServer:
        ports = Ports(port or free_ports(1)[0], free_ports(1)[0])
        started.append(TritonServer(repository, models=models, ports=ports))
        return started[-1].start()

    yield make
    for one in started:
        one.stop(grace=0)


@pytest.fixture(scope="session")
def bare_server(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[int]]:
    """Start a server of `small` with options that the launcher does not have; gives its port."""

    @contextmanager
    def serve(*options: str) -> Iterator[int]:
        found = find_server()
        folder = tmp_path_factory.mktemp("bare")
        (folder / "repository").mkdir()
        (folder / "repository" / "small").symlink_to(repository / "small")
        port, metrics = free_ports(2)
        settings = Settings(
            repository=folder / "repository",
            tag=folder.name,
            ports=Ports(port, metrics),
            backends=assemble_backends(found, folder / "backends"),
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [found.binary, *arguments(found, settings), *options],
                env=server_environment(found.binary), stdout=log, stderr=log,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while identify("127.0.0.1", port, 0.2) is Listener.REFUSED:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait(30)

    return serve


@pytest.fixture(scope="session", autouse=True)
def _servers_end() -> Iterator[None]:
    """No shared server outlives the tests."""
    yield
    stop_all()


@pytest.fixture(scope="session")
def ct_cores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Analytic stand-ins for the networks of the CT classifier, as ONNX files by network."""
    return _write_ct_cores(tmp_path_factory.mktemp("ct-cores"))


def _write_ct_cores(folder: Path) -> dict[str, Path]:
    import ct_standins

    return {
        "r231": ct_standins.write_lung(folder / "r231.onnx"),
        "raw_hu": ct_standins.write_raw_hu(folder / "raw_hu.onnx"),
        "masked": ct_standins.write_masked(folder / "masked.onnx"),
    }


@pytest.fixture(scope="session")
def chest_repository() -> Path:
    """A repository that serves the stand-ins of lungmask and of one X-ray network."""
    from chest_repository import export_chest

    return exports.cached("chest", export_chest) / "repository"


@pytest.fixture(scope="module")
def chest_server(chest_repository: Path) -> Iterator[TritonServer]:
    """A running Triton with both."""
    from chest_repository import CHEST_MODELS

    with borrowed("chest", chest_repository, CHEST_MODELS) as server:
        yield server


@pytest.fixture(scope="session")
def ct_repository() -> Path:
    """A repository that serves the stand-ins of the CT classifier and lungmask."""

    def make(folder: Path) -> None:
        cores = _write_ct_cores(folder)
        export_system(SYSTEMS["ct-classifier"], repository=folder / "repository", onnx=cores)

    return exports.cached("ct", make) / "repository"


@pytest.fixture(scope="module")
def ct_server(ct_repository: Path) -> Iterator[TritonServer]:
    """A running Triton with the CT classifier's two networks and lungmask."""
    models = ["ct_densenet", "ct_classifier_masked", "lungmask_r231"]
    with borrowed("ct", ct_repository, models) as server:
        yield server


@pytest.fixture(scope="session")
def dlpe_repository(golden: Path) -> Path:
    """A repository of all networks of DLPE, as small as those of the golden files."""
    import dlpe_networks

    made = exports.cached("dlpe", lambda folder: dlpe_networks.export_pipeline(folder, golden))
    return made / "repository"


@pytest.fixture(scope="module")
def dlpe_server(dlpe_repository: Path) -> Iterator[TritonServer]:
    """A running Triton with all networks and ensembles of DLPE."""
    with borrowed("dlpe", dlpe_repository) as server:
        yield server


@pytest.fixture(scope="session")
def angel_repository() -> Path:
    def make(folder: Path) -> None:
        files = {
            name: standins.write_ct_angel(folder / f"{name}.onnx", SIDE, valid=name == "valid")
            for name in ("lesion", "valid")
        }
        export_system(SYSTEMS["ct-angel"], repository=folder / "repository", onnx=files)

    return exports.cached("ct-angel", make) / "repository"


@pytest.fixture(scope="session")
def lesion_repository() -> Path:
    def make(folder: Path) -> None:
        file = standins.write_ct_angel(folder / "lesion.onnx", 512)
        export_system(SYSTEMS["ct-angel"], repository=folder / "repository", onnx={"lesion": file})

    return exports.cached("ct-angel-lesion", make) / "repository"


@pytest.fixture(scope="module")
def angel_server(angel_repository: Path) -> Iterator[TritonServer]:
    with borrowed("angel", angel_repository, ["ct_angel"]) as running:
        yield running


@pytest.fixture(scope="session")
def angel_phantom() -> CtPhantom:
    return chest_ct(3, slices=30, size=SIDE, lesions=6)


@pytest.fixture(scope="session")
def angel_series(angel_phantom: CtPhantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patient-name")
    write_dicom_series(angel_phantom.volume, folder)
    return folder


@pytest.fixture(scope="session")
def mtl_repository() -> Path:
    """A repository of COVID-MTL with the dual network, two stand-ins, and lungmask's."""
    import mtl_studies

    return exports.cached("covid-mtl", mtl_studies.export) / "repository"


@pytest.fixture(scope="module")
def mtl_server(mtl_repository: Path) -> Iterator[TritonServer]:
    """A running Triton with COVID-MTL and lungmask."""
    models = ["covid_mtl", "covid_mtl_server", "covid_mtl_volume", "covid_mtl_ct", "lungmask_r231"]
    with borrowed("mtl", mtl_repository, models) as server:
        yield server
