"""The command line as a user meets it: real commands, real servers, real files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
import standins
from commands import HILUM, called, hilum, report_of, written_in
from PIL import Image

from hilum.catalog import SYSTEMS
from hilum.catalog import cxr_severity as cxr
from hilum.export.repository import export_system
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom, write_png
from hilum.preprocessing.reading.series import open_series
from hilum.server.arguments import Ports
from hilum.server.launcher import TritonServer, free_ports


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xrays")
    for seed in range(6):
        phantom = chest_xray(seed, height=400, width=400, severity=seed / 5)
        write_png(phantom, folder / f"patient-name-{seed}.png")
    return folder


@pytest.fixture(scope="module")
def mixed_repository(standin_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins, one of them in FP16."""
    folder = tmp_path_factory.mktemp("mixed")
    repository = shutil.copytree(standin_repository, folder / "repository")
    file = standins.write_disease(folder / "manet.onnx", 544, 0.9)
    system = SYSTEMS["cxr-severity"]
    export_system(system, repository=repository, onnx={"manet": file}, precision="fp16")
    return repository


def test_run_with_a_server_of_its_own(xrays: Path, mixed_repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = hilum("run", "cxr-severity", xrays, "--out", out, "--repository", mixed_repository,
                 "--save-arrays")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = report_of(out)
    assert report["system"] == "cxr-severity"
    assert report["mode"] == "parity"
    assert [Path(r["input"]).name for r in report["results"]] == sorted(
        p.name for p in xrays.iterdir()
    )
    told = {w["network"]: (w["precision"], w["served_by"]) for w in report["weights"]}
    assert told == {"lung": ("fp32", "onnxruntime"), "manet": ("fp16", "onnxruntime")}
    assert all(w["source"].startswith("user file") for w in report["weights"])
    assert report["server"]["transport"] == "shm"
    for number, result in enumerate(report["results"], 1):
        assert len(result["fractions"]) == 6
        assert result["score"] == sum(f > 0.31 for f in result["fractions"])
        picture = Image.open(out / f"{number:04d}" / "overlay.png")
        assert picture.mode == "RGB"
        with np.load(out / f"{number:04d}" / "arrays.npz") as arrays:
            assert {k: (a.shape, a.dtype) for k, a in arrays.items()} == {
                "lung512": ((512, 512), np.uint8),
                "disease512": ((512, 512), np.uint8),
            }
    assert not [p for p in out.rglob("*") if "patient" in p.name]
    assert "Not a medical device" in done.stdout


def test_json_goes_to_standard_output(
    standin_server: TritonServer, xrays: Path, tmp_path: Path
) -> None:
    done = hilum("run", "cxr-severity", xrays / "patient-name-0.png", "--out", tmp_path,
                 "--url", standin_server.grpc_url, "--json", "--no-pictures")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == report_of(tmp_path)
    assert not list(tmp_path.rglob("*.png"))


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    head = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + head + end


def _dicom(path: Path, change: Callable[[pydicom.Dataset], None]) -> None:
    write_dicom(chest_xray(1, height=300, width=300), path)
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def _make_ct(dataset: pydicom.Dataset) -> None:
    dataset.Modality = "CT"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage


def _make_multiframe(dataset: pydicom.Dataset) -> None:
    dataset.NumberOfFrames = 2
    dataset.PixelData = dataset.PixelData * 2


@pytest.fixture(scope="module")
def bad_inputs(tmp_path_factory: pytest.TempPathFactory, xrays: Path) -> dict[Path, str]:
    """Bad files and a piece of the message that each must get."""
    folder = tmp_path_factory.mktemp("bad")
    good = (xrays / "patient-name-3.png").read_bytes()
    files = {
        "empty.png": (b"", "empty"),
        "truncated.png": (good[: len(good) // 2], "truncated"),
        "text.png": (b"These are notes, not a picture.\n" * 20, "neither PNG"),
        "huge.png": (_png_header(60_000, 60_000), "60000"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    cv2.imwrite(str(folder / "constant.png"), np.full((400, 400), 90, np.uint8))
    cv2.imwrite(str(folder / "tiny.png"), np.arange(900, dtype=np.uint8).reshape(30, 30))
    write_dicom(chest_xray(1, height=300, width=300), folder / "truncated.dcm")
    whole = (folder / "truncated.dcm").read_bytes()
    (folder / "truncated.dcm").write_bytes(whole[: len(whole) * 2 // 3])
    _dicom(folder / "ct.dcm", _make_ct)
    _dicom(folder / "frames.dcm", _make_multiframe)
    messages = {name: message for name, (_, message) in files.items()} | {
        "constant.png": "same value",
        "tiny.png": "30 × 30",
        "truncated.dcm": "truncated",
        "ct.dcm": "CT",
        "frames.dcm": "frame",
        "none.png": "no such file",
    }
    return {folder / name: message for name, message in messages.items()}


def test_bad_inputs_are_reported_and_the_batch_goes_on(
    standin_server: TritonServer, xrays: Path, bad_inputs: dict[Path, str], tmp_path: Path
) -> None:
    good = xrays / "patient-name-3.png"
    done = called("run", "cxr-severity", good, *bad_inputs, good, "--out", tmp_path,
                  "--url", standin_server.grpc_url)  # fmt: skip
    assert done.returncode == 1, done.stderr
    first, *failed, last = report_of(tmp_path)["results"]
    assert first["score"] == last["score"] is not None
    for result, (path, message) in zip(failed, bad_inputs.items(), strict=True):
        assert result["status"] == "failed", path.name
        assert message.lower() in result["error"].lower(), (path.name, result["error"])
        assert result["input"] == str(path)
        assert path.name in done.stderr


def test_folder_without_xrays_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    done = called(
        "run", "cxr-severity", tmp_path, "--out", tmp_path / "out", "--url", "127.0.0.1:1"
    )
    assert done.returncode == 2
    assert "no X-ray in" in done.stderr


def test_no_server_at_the_address(xrays: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    done = called("run", "cxr-severity", xrays, "--out", tmp_path, "--url", f"127.0.0.1:{port}")
    assert done.returncode == 3
    assert "nothing listens" in done.stderr


def test_server_that_is_not_triton(xrays: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1024)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            except OSError:
                return

        threading.Thread(target=answer, daemon=True).start()
        url = f"127.0.0.1:{listener.getsockname()[1]}"
        done = called("run", "cxr-severity", xrays, "--out", tmp_path, "--url", url)
    assert done.returncode == 3
    assert "HTTP server" in done.stderr


def test_server_without_the_model(
    standin_server: TritonServer, xrays: Path, tmp_path: Path
) -> None:
    done = called("run", "cxr-severity", xrays, "--out", tmp_path, "--network", "unet",
                  "--url", standin_server.grpc_url)  # fmt: skip
    assert done.returncode == 2
    assert "cxr_severity_unet" in done.stderr
    assert "hilum export" in done.stderr


def test_repository_without_the_model(
    standin_repository: Path, xrays: Path, tmp_path: Path
) -> None:
    done = called("run", "cxr-severity", xrays, "--out", tmp_path, "--network", "unet",
                  "--repository", standin_repository)  # fmt: skip
    assert done.returncode == 2
    assert "hilum export cxr-severity" in done.stderr


@pytest.fixture
def many(xrays: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:03d}.png").symlink_to(xrays / f"patient-name-{number % 6}.png")
    return folder


@pytest.fixture
def own_server(standin_repository: Path) -> Iterator[Callable[[], TritonServer]]:
    """Starts servers on one port, one after the other."""
    grpc, metrics = free_ports(2)
    servers = []

    def start() -> TritonServer:
        server = TritonServer(
            standin_repository,
            models=[cxr.ENSEMBLES["manet"].model],
            ports=Ports(grpc, metrics, None),
        )
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop(grace=0)


def _wait_for_pictures(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(out.glob("*/overlay.png"))) < count:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.05)


def _start_run(server: TritonServer, studies: Path, out: Path, window: int) -> subprocess.Popen:
    return subprocess.Popen(
        [*HILUM, "run", "cxr-severity", studies, "--out", out, "--url", server.grpc_url,
         "--retry-window", str(window)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_server_killed_in_the_middle(
    own_server: Callable[[], TritonServer], many: Path, tmp_path: Path
) -> None:
    server, out = own_server(), tmp_path / "out"
    run = _start_run(server, many, out, window=2)
    _wait_for_pictures(out, 5)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    text, _ = run.communicate(timeout=60)
    assert run.returncode == 1, text
    results = report_of(out)["results"]
    assert len(results) == 60
    done = [r for r in results if r["status"] != "failed"]
    failed = [r for r in results if r["status"] == "failed"]
    assert len(done) >= 5
    assert failed
    assert all("score" in r and (out / r["files"][0]).exists() for r in done)
    assert all(server.grpc_url in r["error"] for r in failed)


@pytest.mark.load
def test_server_restarted_within_the_window(
    own_server: Callable[[], TritonServer], many: Path, tmp_path: Path
) -> None:
    server, out = own_server(), tmp_path / "out"
    run = _start_run(server, many, out, window=60)
    _wait_for_pictures(out, 5)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    while server.alive:
        time.sleep(0.05)
    own_server()
    text, _ = run.communicate(timeout=120)
    assert run.returncode == 0, text
    assert report_of(out)["summary"]["studies"] == 60
    assert all("score" in r for r in report_of(out)["results"])


def test_interrupted_run_keeps_what_it_has(
    standin_server: TritonServer, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = _start_run(standin_server, many, out, window=5)
    _wait_for_pictures(out, 5)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130
    report = report_of(out)
    assert 0 < len(report["results"]) < 60
    assert report["summary"]["missing"] == 60 - len(report["results"])
    told = {file for result in report["results"] for file in result["files"]}
    assert written_in(out) == told


def test_systems_reports_what_there_is() -> None:
    text = called("systems")
    assert text.returncode == 0
    assert "manet" in text.stdout
    (system,) = [
        s for s in json.loads(called("systems", "--json").stdout) if s["name"] == "cxr-severity"
    ]
    assert len(system["networks"]) == 10
    speeds = {
        network["name"]: figure["value"]
        for network in system["networks"]
        for figure in network["published"]
        if figure["quantity"] == "throughput"
    }
    assert (speeds["pspnet"], speeds["manet"]) == (12.5, 7.9)


def test_doctor_names_what_is_missing(standin_repository: Path, tmp_path: Path) -> None:
    repository = shutil.copytree(standin_repository, tmp_path / "repository")
    (model,) = (repository / "cxr_manet").glob("1/model.onnx")
    assert called("doctor", "--repository", repository).returncode == 0
    model.write_bytes(model.read_bytes()[:-1])
    done = called("doctor", "--repository", repository)
    assert done.returncode == 1
    assert "cxr_manet" in done.stdout


@pytest.mark.parametrize("image_format", ["png", "dicom"])
def test_phantoms_can_be_scored(
    standin_server: TritonServer, tmp_path: Path, image_format: str
) -> None:
    made = called("phantom", "cxr", "--out", tmp_path / "x", "--count", 2, "--size", 300,
                  "--format", image_format)  # fmt: skip
    assert made.returncode == 0, made.stderr
    done = called("run", "cxr-severity", tmp_path / "x", "--out", tmp_path / "out",
                  "--url", standin_server.grpc_url, "--mode", "corrected")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert report_of(tmp_path / "out")["mode"] == "corrected"


def test_serve_answers_until_it_is_stopped(standin_repository: Path, tmp_path: Path) -> None:
    grpc, metrics = free_ports(2)
    with subprocess.Popen(
        [*HILUM, "serve", "--repository", standin_repository, "--model", "cxr_severity_manet",
         "--grpc-port", str(grpc), "--metrics-port", str(metrics)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            assert f":{grpc}" in server.stdout.readline()
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0
        finally:
            server.kill()
    shown = hilum("serve", "--repository", standin_repository, "--print-args")
    assert "--model-control-mode=none" in shown.stdout
    assert "--grpc-address=127.0.0.1" in shown.stdout


def test_a_generated_ct_comes_with_the_truth_on_its_grid(tmp_path: Path) -> None:
    made = called("phantom", "ct", "--out", tmp_path / "ct", "--slices", 12, "--size", 48,
                  "--columns", 64, "--spacing", 20, 7, 6,
                  "--truth", tmp_path / "truth")  # fmt: skip
    assert made.returncode == 0, made.stderr
    series = open_series(tmp_path / "ct")
    for name in ("lung", "airway", "vessel", "lesion"):
        mask = nibabel.load(tmp_path / f"truth/{name}.nii.gz")
        assert mask.shape == (64, 48, 12)
        assert np.allclose(mask.affine, series.geometry.nifti_affine, atol=1e-3)
    lung = np.asarray(nibabel.load(tmp_path / "truth/lung.nii.gz").dataobj).transpose(2, 1, 0)
    assert np.median(series.volume().voxels[lung > 0]) < -700
