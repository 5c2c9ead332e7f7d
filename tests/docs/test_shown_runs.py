"""Runs, checks and programs that pages show, on one server of small stand-ins."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chest_repository import export_chest
from manual import ROOT, Typist, inline, shown

from hilum.client import Client
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.launcher import TritonServer, free_ports


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages take for there: models, X-rays, a CT."""
    folder = tmp_path_factory.mktemp("shown")
    export_chest(folder, "pspnet").rename(folder / "models")
    (folder / "lung.onnx").rename(folder / "my-lung.onnx")
    Typist(folder).type("hilum phantom cxr --count 4 --size 256 --out xrays")
    volume = chest_ct(1, slices=5, size=96, lesions=0).volume
    for name in ("series", "scans"):
        write_dicom_series(volume, folder / name)
    write_dicom(chest_xray(3, height=300, width=260, severity=0.8), folder / "study.dcm")
    return folder


@pytest.fixture(scope="module")
def server(materials: Path) -> Iterator[TritonServer]:
    with TritonServer(materials / "models", grace=0) as server:
        yield server


@pytest.fixture
def reader(materials: Path, tmp_path: Path) -> Typist:
    for there in materials.iterdir():
        (tmp_path / there.name).symlink_to(there)
    (tmp_path / "images").symlink_to(materials / "xrays")
    (tmp_path / "study").symlink_to(materials / "xrays")
    return Typist(tmp_path)


def results(folder: Path) -> list[str]:
    found = json.loads((folder / "report.json").read_text())["results"]
    return [entry["status"] for entry in found]


def test_a_run_in_the_mode_corrected(reader: Typist, server: TritonServer) -> None:
    (block,) = shown("docs/background/modes.md", "What parity and corrected mean", "sh")
    reader.type(block, {"--repository models": f"--url {server.grpc_url}"})
    report = json.loads((reader.folder / "results/report.json").read_text())
    assert report["mode"] == "corrected"


def test_lungs_for_other_systems(reader: Typist, server: TritonServer) -> None:
    from hilum.systems.lungmask.flow import series_lungs
    from hilum.systems.studies import open_study

    (block,) = shown("docs/background/lungmask.md", "For other systems", "python")
    with Client(server.grpc_url) as client:
        names = {
            "series_lungs": series_lungs, "series": open_study(reader.folder / "series"),
            "calls": client.calls(),
        }  # fmt: skip
        exec(block, names)  # noqa: S102
    labels = names["lungs"].labels
    assert (labels.shape, str(labels.dtype)) == ((5, 96, 96), "uint8")


def test_dicom_objects(reader: Typist, server: TritonServer) -> None:
    pytest.importorskip("highdicom", reason="the extra dicom is not installed")
    (block,) = shown("docs/how-to/pacs.md", "Write DICOM objects", "sh")
    reader.type(block, {"--repository models": f"--url {server.grpc_url}"})
    assert (reader.folder / "results/0001/dicom/report.dcm").is_file()


@pytest.mark.load
def test_an_onnx_file_of_ones_own(reader: Typist) -> None:
    (block,) = shown("docs/how-to/own-network.md", "An ONNX file of your own", "sh")
    said = reader.type(block, {"--repository models": "--repository own"})
    assert "lung" in said
    assert (reader.folder / "own/cxr_lung/1/model.onnx").is_file()


def test_metrics_while_a_run_lasts(reader: Typist, server: TritonServer) -> None:
    command, _ = shown("docs/reference/metrics.md", "Metrics", "sh", "python")
    own = {"--url triton:8001": f"--url {server.grpc_url} --network pspnet"}
    reader.type(command, {**own, "9464": str(free_ports(1)[0])})
    assert len(results(reader.folder / "results")) == 4


def test_metrics_of_a_program(reader: Typist, server: TritonServer) -> None:
    _, program = shown("docs/reference/metrics.md", "Metrics", "sh", "python")
    swaps = {"localhost:8001": server.grpc_url, "9464": str(free_ports(1)[0])}
    swaps |= {'"study.dcm")': '"study.dcm", network="pspnet")'}
    counted = '"hilum_client_studies_total", {"system": "cxr-severity", "outcome": "ok"}'
    said = reader.program(f"{program}print(metrics.registry.get_sample_value({counted}))\n", swaps)
    assert "1.0" in said


def test_queries_are_those_of_prometheus(tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        pytest.skip("no promtool on this machine")
    queries = shown(
        "docs/reference/metrics.md", "Questions, and the queries that answer them",
        "promql", "promql", "promql", "promql",
    )  # fmt: skip
    rules = [{"record": f"query{n}", "expr": query.strip()} for n, query in enumerate(queries)]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    documented = (ROOT / "client/metrics.py").read_text()
    for name in re.findall(r"hilum_client_\w+", " ".join(queries)):
        assert re.sub(r"_(total|bucket)$", "", name) in documented


def test_the_programs_of_the_python_reference(reader: Typist, server: TritonServer) -> None:
    (program,) = shown("docs/reference/python/index.md", "Python", "python")
    reader.program(f"{program}print(result.status)", {"localhost:8001": server.grpc_url})
    (program,) = shown("docs/reference/python/errors.md", "Errors", "python")
    shutil.copytree(reader.folder / "scans", reader.folder / "scan.nii.gz")
    nobody = {"localhost:8001": f"localhost:{free_ports(1)[0]}"}
    assert "nothing listens" in reader.program(program, nobody)


def test_what_runs_is_shown(reader: Typist, server: TritonServer) -> None:
    (block,) = shown("docs/how-to/service.md", "On one machine", "sh", "sh")[1:]
    said = reader.type(block, {"--url localhost:8001": f"--url {server.grpc_url}"})
    assert "ready" in said


@pytest.mark.load
def test_a_server_is_served_and_its_arguments_are_printed(reader: Typist) -> None:
    (block,) = shown("docs/how-to/service.md", "On one machine", "sh", "sh")[:1]
    grpc, metrics = free_ports(2)
    ports = {"models": f"models --grpc-port {grpc} --metrics-port {metrics}"}
    with reader.going(block.strip(), ports) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline().startswith(f"ready: gRPC 127.0.0.1:{grpc}")
    printed = inline("docs/how-to/service.md", "hilum serve --print-args")
    assert "--model-repository" in reader.type(f"{printed} --repository models")
    drained = inline("docs/how-to/service.md", "hilum serve --drain 15")
    ports = {"--drain 15": f"--drain 0.1 --repository models --grpc-port {grpc}"}
    with reader.going(f"{drained} --metrics-port {metrics}", ports) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline().startswith("ready")


def test_the_doctor_judges_the_machine(reader: Typist) -> None:
    (block,) = shown("docs/how-to/service.md", "Does this machine fit?", "sh")
    here, open_to_all = block.splitlines()
    assert "note" in reader.type(here)
    told = reader.type(open_to_all, None, 0, 1)  # 1: the wheel's Triton may not listen so
    assert "usable" in json.loads(told)
    whole = inline("docs/how-to/service.md", "hilum doctor --repository models --json")
    assert json.loads(reader.type(whole))["shm_size"]
    bare = inline("docs/how-to/service.md", "hilum doctor --json")
    assert "shm_size" in json.loads(reader.type(bare, None, 0, 1))
    again = inline("docs/how-to/upgrade-and-backup.md", "hilum doctor --repository models")
    reader.type(again)


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_without_a_gpu_what_asks_for_one_is_refused(reader: Typist) -> None:
    (block,) = shown("docs/how-to/servers-and-gpus.md", "Several GPUs in one server", "sh")
    assert "GPU" in reader.type(block, None, 2, 3)
