"""The commands of the compose files on a real Triton; its metrics behind dashboard and alerts."""

from __future__ import annotations

import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from prometheus_client import generate_latest
from small_repository import tensors
from tritonclient.utils import InferenceServerException

from hilum.archive.metrics import BatchMetrics
from hilum.catalog import SYSTEMS
from hilum.client import Client
from hilum.client.metrics import Metrics
from hilum.client.options import ConnectionOptions
from hilum.gateway.ledger import Ledger
from hilum.gateway.operation import GatewayCollector
from hilum.gateway.spool import Spool
from hilum.server import dashboard
from hilum.server.foreground import draining, draining_mark
from hilum.server.launcher import TritonServer, free_ports

BIN = Path(sys.executable).parent
GPU_METRICS = {"nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes", "nv_gpu_utilization"}
"""Triton tells these where there is a GPU."""


def ready(docker: Path, monkeypatch: pytest.MonkeyPatch, http: str, state: Path) -> bool:
    """What the health check of the container says."""
    monkeypatch.setenv("HILUM_READY_URL", f"http://{http}/v2/health/ready")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    return runpy.run_path(str(docker / "ready"))["ready"]()


def test_whoever_comes_over_the_network_gets_no_shared_memory(open_server: TritonServer) -> None:
    with triton.InferenceServerClient(open_server.grpc_url) as raw:
        with pytest.raises(InferenceServerException, match="restricted"):
            raw.register_system_shared_memory("mine", "/mine", 8)
        with pytest.raises(InferenceServerException, match="restricted"):
            raw.update_log_settings({"log_file": "mine"})
        with pytest.raises(InferenceServerException, match=r"polling|explicit|not allowed"):
            raw.load_model("double")
    options = ConnectionOptions(url=open_server.grpc_url, transport="auto")
    with Client(options) as client:  # it sits on the server's host, asks, and goes without
        answer = client.infer("double", {"x": np.full((1, 3), 2, np.float32)}, ["y"])
        assert answer.transport == "grpc"
        assert answer.outputs["y"].tolist() == [[4, 4, 4]]
        assert set(client.models()) >= {"double", "probe"}


def test_http_answers_the_machine_itself_alone(
    open_server: TritonServer, docker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert open_server.http_url is not None
    assert open_server.http_url.startswith("127.0.0.1:")
    assert ready(docker, monkeypatch, open_server.http_url, tmp_path)
    assert not ready(docker, monkeypatch, f"127.0.0.1:{free_ports(1)[0]}", tmp_path)


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def command(docker: Path, *changes: str) -> list[str]:
    """The command of the same-host profile, with some options changed."""
    text = (docker / "compose.same-host.yaml").read_text().replace("!override", "")
    options: list[str] = yaml.safe_load(text.replace("!reset", ""))["services"]["triton"]["command"]
    given = {change.partition("=")[0] for change in changes}
    return [o for o in options if o.partition("=")[0] not in given] + list(changes)


def test_the_same_host_profile_serves_and_drains(
    docker: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpc, metrics, http = free_ports(3)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    options = command(
        docker, f"--repository={repository}", f"--grpc-port={grpc}", f"--metrics-port={metrics}",
        f"--http-port={http}", "--drain=300", "--grace=2",
    )  # fmt: skip
    url = f"127.0.0.1:{http}"
    with subprocess.Popen(
        [BIN / "hilum", *options, "--model=double"], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            assert f":{grpc}" in server.stdout.readline()
            until(lambda: ready(docker, monkeypatch, url, tmp_path))
            server.send_signal(signal.SIGTERM)
            until(lambda: not ready(docker, monkeypatch, url, tmp_path))
            with triton.InferenceServerClient(f"127.0.0.1:{grpc}") as raw:  # still answers
                ones = tensors(x=np.ones((1, 3), np.float32))
                assert raw.infer("double", ones, client_timeout=5).as_numpy("y").sum() == 6
            server.send_signal(signal.SIGTERM)  # who cannot wait says so twice
            assert server.wait(30) == 0
        finally:
            server.kill()


def test_draining_marks_the_server_for_its_health_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    draining_mark().touch()  # of a server that was killed
    drain = draining(0.01)
    assert not draining_mark().exists()
    drain()
    assert draining_mark().exists()
    draining(0)()
    assert not draining_mark().exists()


def names(text: str) -> set[str]:
    """Metric names in PromQL."""
    return set(re.findall(r"\b(?:nv|hilum)_[a-z_]+", text))


def test_dashboard_and_alerts_ask_for_metrics_that_exist(
    open_server: TritonServer, docker: Path, tmp_path: Path
) -> None:
    ledger, spool = Ledger(tmp_path / "ledger"), Spool(tmp_path, 1e9, 1.0)
    gateway = {family.name for family in GatewayCollector(ledger, spool).collect()}
    with urllib.request.urlopen(open_server.metrics_url) as answer:  # noqa: S310
        told = answer.read().decode()
    client = generate_latest(Metrics().registry).decode()
    batch = generate_latest(BatchMetrics().registry).decode()
    there = names(told) | names(client) | names(batch) | GPU_METRICS | gateway
    for name in re.findall(r"# TYPE (\w+) histogram", client + batch):
        there |= {f"{name}_bucket", f"{name}_count"}
    asked = names("\n".join(dashboard.queries(dashboard.dashboard())))
    assert len(asked) > 10
    assert asked <= there
    assert gateway <= asked  # the gateway's row shows all that it has
    groups = yaml.safe_load((docker / "prometheus" / "rules.yaml").read_text())["groups"]
    alerts = names("\n".join(rule["expr"] for group in groups for rule in group["rules"]))
    assert alerts
    assert alerts <= there
    assert 'reason="BACKEND"' in told or 'reason="OTHER"' in told
    assert "CANCELED" in told  # the spelling that the alert leaves out


def test_the_dashboard_is_that_of_the_catalog(docker: Path) -> None:
    file = docker / "grafana" / "dashboards" / "hilum.json"
    assert file.read_text() == dashboard.text(), (
        "write it again: python -m hilum.server.dashboard > docker/grafana/dashboards/hilum.json"
    )
    board: dict[str, Any] = dashboard.dashboard()
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    assert [row["title"].partition(":")[0] for row in rows] == [*SYSTEMS, "gateway", "batch"]
    for row, system in zip(rows, SYSTEMS.values(), strict=False):
        text = str(row["panels"])
        assert all(re.search(rf"[\"|]{m.model}[\"|]", text) for m in system.models())
    every = [p for panel in board["panels"] for p in (panel, *panel.get("panels", ()))]
    ids = [panel["id"] for panel in every]
    assert len(set(ids)) == len(ids)
    source = yaml.safe_load(
        (docker / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )
    assert dashboard.DATASOURCE["uid"] == source["datasources"][0]["uid"]
    places = [tuple(p["gridPos"].values()) for p in board["panels"]]
    assert len(set(places)) == len(places)


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool (Debian: apt install prometheus)"
)


@needs_promtool
def test_rules_and_configuration_satisfy_promtool(docker: Path) -> None:
    folder = docker / "prometheus"
    for check in (
        ["check", "config", "prometheus.yaml"],
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "rules_test.yaml"],
    ):
        done = subprocess.run(["promtool", *check], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = (folder / "rules_test.yaml").read_text()
    groups = yaml.safe_load((folder / "rules.yaml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert f"alertname: {rule['alert']}\n" in tested, rule["alert"]


def ask(port: int, path: str) -> dict[str, Any]:
    """A query to Prometheus."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}") as answer:
            return yaml.safe_load(answer)["data"]
    except (OSError, KeyError):
        return {}


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus")
def test_a_real_prometheus_scrapes_triton_and_takes_every_query(
    open_server: TritonServer, docker: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "prometheus"
    shutil.copytree(docker / "prometheus", folder)
    shutil.rmtree(folder / "targets-gateway")  # mounted with the gateway alone
    config = folder / "prometheus.yaml"
    config.write_text(config.read_text().replace("15s", "1s"))
    port = free_ports(1)[0]
    address = open_server.metrics_url.split("/")[2]
    (folder / "targets" / "triton.yaml").write_text(f'- targets: ["{address}"]\n')
    with subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as prometheus:  # fmt: skip
        try:
            until(lambda: bool(ask(port, "query?query=nv_inference_count").get("result")))
            up = ask(port, "query?query=up")["result"]
            assert [(r["metric"]["job"], r["value"][1]) for r in up] == [("triton", "1")]
            for query in dashboard.queries(dashboard.dashboard()):
                data = urllib.parse.urlencode({"query": query}).encode()
                url = f"http://127.0.0.1:{port}/api/v1/query"
                with urllib.request.urlopen(url, data) as answer:
                    assert b'"status":"success"' in answer.read()
            groups = ask(port, "rules")["groups"]
            states = {rule["health"] for group in groups for rule in group["rules"]}
            assert states <= {"ok", "unknown"}  # unknown: not evaluated yet
        finally:
            prometheus.terminate()
            prometheus.wait(20)
