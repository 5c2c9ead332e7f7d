"""The files of the gateway's service fit each other, and a real Orthanc takes its own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

pytest.importorskip("msgspec")
pytest.importorskip("dicomweb_client")

import requests
from pacs import PLUGIN, free_port
from test_production_files import defaults, instructions, load, merge

from hilum.catalog import SYSTEMS
from hilum.gateway.config import Source, read_settings
from hilum.gateway.orthanc import OrthancSource
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.arguments import Ports


@pytest.fixture(scope="module")
def whole(docker: Path) -> dict[str, Any]:
    return merge(load(docker, "compose.yaml"), load(docker, "compose.gateway.yaml"))


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Sources of the volumes by where they are mounted."""
    return {defaults(v).split(":")[1]: defaults(v).split(":")[0] for v in service["volumes"]}


def meet(whole: dict[str, Any], one: str, other: str) -> bool:
    services = whole["services"]
    return bool(set(services[one]["networks"]) & set(services[other]["networks"]))


def test_the_settings_of_the_gateway_fit_the_services(docker: Path, whole: dict[str, Any]) -> None:
    service, secret = whole["services"]["gateway"], "/run/secrets/pacs_password"
    config = next(o.partition("=")[2] for o in service["command"] if o.startswith("--config"))
    settings = read_settings(docker / mounts(service)[config])
    orthanc = json.loads((docker / "gateway/orthanc.json").read_text())
    for url in (settings.source.dicomweb, settings.source.orthanc):
        parts = urlsplit(url)
        assert (parts.hostname, parts.port) == ("orthanc", orthanc["HttpPort"])
        assert parts.path.rstrip("/") in ("", orthanc["DicomWeb"]["Root"].rstrip("/"))
    assert meet(whole, "gateway", "orthanc")
    assert settings.servers.urls == [f"triton:{Ports().grpc}"]
    assert meet(whole, "gateway", "triton")
    assert orthanc["RegisteredUsers"] == {settings.source.user: "${HILUM_PACS_PASSWORD}"}
    assert settings.source.password == f"file:{secret}"
    for name in ("gateway", "orthanc"):
        assert whole["services"][name]["secrets"] == [Path(secret).name]
    assert mounts(service)[str(settings.folder)] == "gateway"
    assert float(service["stop_grace_period"].rstrip("s")) > settings.operation.drain_s
    assert {system for rule in settings.rule for system in rule.systems} <= set(SYSTEMS)


def test_prometheus_and_the_health_check_ask_the_gateway(
    docker: Path, whole: dict[str, Any]
) -> None:
    service = whole["services"]["gateway"]
    port = read_settings(docker / "gateway/gateway.toml").operation.port
    assert service["environment"]["HILUM_READY_URL"] == f"http://127.0.0.1:{port}/live"
    prometheus = whole["services"]["prometheus"]
    folder = docker / mounts(prometheus)["/etc/prometheus/targets-gateway"]
    assert yaml.safe_load((folder / "gateway.yaml").read_text()) == [
        {"targets": [f"gateway:{port}"]}
    ]
    asked = yaml.safe_load((docker / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    (files,) = (j["file_sd_configs"][0]["files"] for j in asked if j["job_name"] == "gateway")
    assert f"{folder.name}/*.yaml" in files
    assert meet(whole, "gateway", "prometheus")
    assert not service.get("ports")


def test_orthanc_finds_its_files_and_keeps_to_this_machine(
    docker: Path, whole: dict[str, Any]
) -> None:
    service = whole["services"]["orthanc"]
    orthanc = json.loads((docker / "gateway/orthanc.json").read_text())
    image = dict(instructions(docker / "gateway"))
    where = mounts(service)
    assert json.loads(image["CMD"]) == [next(p for p, s in where.items() if s.endswith(".json"))]
    assert orthanc["StorageDirectory"] == orthanc["IndexDirectory"]
    assert where[orthanc["StorageDirectory"]] == "orthanc"
    assert image["USER"] == service["user"]
    inside = {orthanc["DicomPort"], orthanc["HttpPort"]}
    assert {int(port.rpartition(":")[2]) for port in service["ports"]} == inside
    assert all(defaults(port).startswith("127.0.0.1:") for port in service["ports"])
    assert orthanc["AuthenticationEnabled"]
    assert not orthanc["DicomAlwaysAllowStore"]
    assert not orthanc["OverwriteInstances"]


@pytest.fixture
def start(docker: Path, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Start an Orthanc with the image's own script and settings, on other ports; gives its port."""
    if shutil.which("Orthanc") is None or not PLUGIN.is_file():
        pytest.skip("Orthanc and its DICOMweb plugin are not installed")
    started: list[subprocess.Popen[bytes]] = []
    secret = tmp_path / "password"
    secret.write_text("sesame")

    def run(name: str, **changes: Any) -> int:
        settings = json.loads((docker / "gateway/orthanc.json").read_text())
        folder = tmp_path / name
        folder.mkdir()
        settings |= {"StorageDirectory": str(folder), "IndexDirectory": str(folder)}
        settings |= {"HttpPort": free_port()} | changes
        config = folder / "orthanc.json"
        config.write_text(json.dumps(settings))
        process = subprocess.Popen(
            ["sh", docker / "gateway/start", config],
            env={"PATH": "/usr/bin:/bin:/usr/sbin", "HILUM_PACS_PASSWORD_FILE": str(secret)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(f"http://127.0.0.1:{settings['HttpPort']}/system", timeout=5)
            except requests.ConnectionError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return settings["HttpPort"]

    yield run
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_what_a_modality_sends_by_dimse_is_news_of_the_gateway_and_strangers_send_nothing(
    start: Callable[..., int], tmp_path: Path
) -> None:
    door = free_port()
    port = start("door", DicomPort=door)
    to = {"DicomModalities": {"door": ["ORTHANC", "127.0.0.1", door]}}
    senders = {
        aet: f"http://127.0.0.1:{start(aet, DicomPort=free_port(), DicomAet=aet, **to)}"
        for aet in ("PACS", "STRANGER")
    }
    web = f"http://127.0.0.1:{port}"
    assert requests.get(f"{web}/dicom-web/studies", timeout=30).status_code == 401
    source = OrthancSource(
        Source(dicomweb=f"{web}/dicom-web", user="hilum", password=f"file:{tmp_path}/password"),
        orthanc=web,
    )
    source.check()
    session = requests.Session()
    session.auth = ("hilum", "sesame")
    for seed, (aet, sender) in enumerate(senders.items()):
        path = tmp_path / f"{aet}.dcm"
        write_dicom(chest_xray(seed, height=300, width=260), path)
        stored = session.post(f"{sender}/instances", data=path.read_bytes()).json()["ID"]
        sent = session.post(f"{sender}/modalities/door/store", data=stored)
        assert sent.ok is (aet == "PACS"), sent.text
    (found,), _ = source.news("")
    (instance,) = source.instances(found)
    assert source.facts(found, instance).aet == "PACS"


def test_requests_finds_the_authorities_of_the_system_in_the_image(docker: Path) -> None:
    done = subprocess.run(
        ["python3", "-c", "import certifi; print(certifi.where())"],
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "PYTHONPATH": str(docker / "authorities")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "/etc/ssl/certs/ca-certificates.crt", done.stderr
    locked = (docker.parent / "constraints/hashes-image.txt").read_text()
    assert "\nrequests==" in locked
    assert "\ncertifi==" not in locked
