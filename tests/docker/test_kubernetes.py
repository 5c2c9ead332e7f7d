"""The chart: what the real helm makes of it is valid, and says what Hilum's server needs.

`make check-kubernetes` brings helm and the schemas to out/kubernetes; without them these tests say
so.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import HILUM
from typer.testing import CliRunner

from hilum.cli import app
from hilum.client import Client
from hilum.server.launcher import free_ports

ROOT = Path(__file__).parents[2]
CHART = ROOT / "docker" / "kubernetes"
TOOLS = Path(os.environ.get("HILUM_KUBERNETES", ROOT / "out" / "kubernetes")).absolute()
sys.path.append(str(TOOLS / "python"))
DIGEST = "sha256:" + 64 * "0"
IMAGE: dict[str, Any] = {"image": {"repository": "registry.example/hilum", "digest": DIGEST}}
MONITORED = {"monitoring": {"enabled": True}}
CLUSTER = {
    "enabled": True, "image": f"registry.example/batch@{DIGEST}", "token": "ray",
    "sources": ["s3://in/"], "out": "s3://out/x",
}  # fmt: skip
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject", "RayJob"}

MATRIX: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("1.31", {}),
    "without network policy and budget": (
        "1.31", {"network": {"enabled": False}, "disruption": {"enabled": False}},
    ),
    "engines": ("1.31", {"engines": {"build": True}, "gpus": [
        {"name": "a100", "product": "NVIDIA-A100-SXM4-80GB", "claim": "a100",
         "resource": "nvidia.com/gpu"},
        {"name": "mig", "product": "NVIDIA-A100-SXM4-80GB-MIG-2g.20gb", "claim": "mig",
         "resource": "nvidia.com/mig-2g.20gb"},
    ]}),
    "no GPU": ("1.31", {"gpus": [{"name": "cpu", "resource": ""}]}),
    "models as image": ("1.35", {"models": {"from": "image", "image": f"r/m@{DIGEST}"}}),
    "DRA": ("1.34", {"dra": {"enabled": True, "selector": "true"}}),
    "HPA": ("1.31", {"scaling": {"by": "hpa"}, **MONITORED}),
    "KEDA": ("1.31", {"scaling": {"by": "keda"}, **MONITORED}),
    "all parts": ("1.31", {
        "gateway": {"enabled": True, "settings": "[source]\nfolder = '/data/in'\n", "secret": "s"},
        "desk": {"enabled": True, "token": "t"},
        "orthanc": {"enabled": True, "image": f"r/o@{DIGEST}", "secret": "o"},
        "batch": CLUSTER,
    }),
}  # fmt: skip
"""Values by what they are, with the first version of Kubernetes that takes them."""

VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")

REFUSED: dict[str, dict[str, Any]] = {
    "digest": {"image": {"repository": "r/h", "digest": ""}},
    "/image/digest": {"image": {"repository": "r/h", "digest": "v1"}},
    "maxSurge and maxUnavailable": {"rollout": {"maxSurge": 0, "maxUnavailable": 0}},
    "maxUnavailable": {"disruption": {"maxUnavailable": 0}},
    "monitoring.enabled": {"scaling": {"by": "keda"}},
    "/scaling/by": {"scaling": {"by": "both"}},
    "claim of its own": {"engines": {"build": True}},
    "product": {"gpus": [{"name": "bad", "product": "NVIDIA-A100-MIG-INVALID"}]},
    "additional properties": {"replica": 3},
    "request": {"stopping": {"request": 20}},
    "connectionAge": {"connectionAge": 300},
    "token": {"batch": {**CLUSTER, "token": ""}},
    "1.34": {"dra": {"enabled": True}},
    "image volumes": {"models": {"from": "image", "image": f"r/m@{DIGEST}"}},
}
"""Values that are refused, by a word of the message (Kubernetes 1.31)."""


def helm(*words: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    found = TOOLS / "layer" / "helm" / "helm"
    binary = str(found) if found.is_file() else shutil.which("helm")
    if binary is None:
        pytest.skip("no helm on this machine: make check-kubernetes")
    return subprocess.run(
        [binary, *words, "--values", "-"], input=json.dumps(IMAGE | values), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip


def rendered(values: dict[str, Any], version: str = "1.31") -> list[dict[str, Any]]:
    done = helm("template", "x", str(CHART), "--kube-version", f"{version}.0", values=values)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def server(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [
        m["spec"]["template"]["spec"] for m in manifests
        if m["kind"] == "Deployment" and "hilum.io/gpu" in m["spec"]["selector"]["matchLabels"]
    ]  # fmt: skip
    return found


@pytest.mark.parametrize("name", MATRIX)
def test_helm_finds_nothing_to_say(name: str) -> None:
    first, values = MATRIX[name]
    done = helm("lint", "--strict", str(CHART), "--kube-version", f"{first}.0", values=values)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("name", MATRIX)
def test_what_is_rendered_fits_the_schemas_of_kubernetes(name: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="make check-kubernetes")
    first, values = MATRIX[name]
    for version in VERSIONS[VERSIONS.index(first) :]:
        for manifest in rendered(values, version):
            if manifest["kind"] not in CUSTOM:  # an unknown kind or version is an error
                assert validator.validate(manifest, version, strict=True) == version


def test_custom_resources_fit_their_schemas() -> None:
    if not (TOOLS / "node_modules" / "@kubernetes-models").is_dir() or not shutil.which("node"):
        pytest.skip("no schemas of custom resources: make check-kubernetes")
    manifests = rendered(MATRIX["KEDA"][1])
    custom = [m for m in manifests if m["kind"] in CUSTOM]
    assert {m["kind"] for m in custom} == CUSTOM - {"RayJob"}

    def check(given: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
        script = Path(__file__).with_name("custom_resources.mjs")
        return subprocess.run(["node", script, TOOLS], input=json.dumps(given),
                              capture_output=True, text=True)  # fmt: skip

    done = check(custom)
    assert done.returncode == 0, done.stderr
    (scaled,) = [m for m in custom if m["kind"] == "ScaledObject"]
    assert scaled["spec"]["triggers"][0]["metadata"]["ignoreNullValues"] == "false"
    scaled["spec"]["triggers"] = "none"
    assert check([scaled]).returncode != 0


@pytest.mark.parametrize("word", REFUSED)
def test_bad_values_are_refused_with_a_message(word: str) -> None:
    values = REFUSED[word]
    done = helm("template", "x", str(CHART), "--kube-version", "1.31.0", values=values)
    assert done.returncode != 0
    assert word in done.stderr


def test_a_pod_has_the_time_that_it_takes_to_end() -> None:
    pod = server(rendered({"stopping": {"preStop": 20, "drain": 31, "request": 400, "spare": 9}}))
    (container,) = pod["containers"]
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": 20}}
    assert {"--drain=31", "--grace=400"} <= set(container["args"])
    assert pod["terminationGracePeriodSeconds"] == 20 + 31 + 400 + 9


def test_hilum_makes_of_the_arguments_what_the_chart_means() -> None:
    (container,) = server(rendered({}))["containers"]
    shown = CliRunner().invoke(app, [*container["args"], "--print-args"])
    assert shown.exit_code == 0, shown.output
    options = set(shlex.split(shown.stdout))
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert {
        "--model-repository=/models",
        f"--grpc-port={ports['grpc']}",
        f"--metrics-port={ports['metrics']}",
        f"--http-port={ports['health']}",
        "--exit-timeout-secs=300",
        "--grpc-max-connection-age=20000",
        "--grpc-max-connection-age-grace=300000",
        "--grpc-address=0.0.0.0",
    } <= options
    assert {"--model-control-mode=none"} <= options
    mounted = {one["mountPath"]: one for one in container["volumeMounts"]}
    assert mounted["/models"]["readOnly"]


@pytest.mark.parametrize("name", ["engines", "all parts"])
def test_every_container_is_closed_and_named_by_its_digest(name: str) -> None:
    def pods(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            own = [value] if "containers" in value else []
            return own + [pod for one in value.values() for pod in pods(one)]
        return [p for one in value for p in pods(one)] if isinstance(value, list) else []

    found = [pod for manifest in rendered(MATRIX[name][1]) for pod in pods(manifest)]
    assert len(found) >= 4
    for pod in found:
        assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"] + pod.get("initContainers", []):
            assert "@sha256:" in container["image"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip


@contextmanager
def named(addresses: list[str]) -> Iterator[int]:
    """A name server that gives every name these addresses, as a headless service does."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked, socket = self.request
            end = asked.index(b"\0", 12) + 5
            kind = asked[end - 4 : end - 2]
            found = list(addresses) if kind == b"\0\1" else []
            head = asked[:2] + b"\x85\x80" + b"\0\1" + struct.pack(">HHH", len(found), 0, 0)
            rows = b"".join(
                b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 0, 4) + bytes(map(int, one.split(".")))
                for one in found
            )
            socket.sendto(head + asked[12:end] + rows, self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"stopping": {"preStop": 6, "drain": 11, "spare": 10}, "connectionAge": 10},
                     id="shorter", marks=pytest.mark.load),
        pytest.param({}, id="as the chart has them", marks=pytest.mark.load),
    ],
)  # fmt: skip
def test_no_request_fails_while_servers_are_drained_one_by_one(
    repository: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    """With the rendered arguments and times, and a name that loses a pod when its end begins."""
    pod = server(rendered(values))
    (container,) = pod["containers"]
    waits = ("--drain=", "--grace=", "--connection-age=")
    given = [argument for argument in container["args"] if argument.startswith(waits)]
    assert len(given) == len(waits)
    age = int(given[-1].partition("=")[2])
    port, metrics = free_ports(2)
    hosts = ["127.0.0.2", "127.0.0.3"]

    def start(host: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*HILUM, "serve", "--repository", str(repository), f"--host={host}", "--model=double",
             f"--grpc-port={port}", f"--metrics-port={metrics}", *given],
            stdout=subprocess.PIPE, stderr=(tmp_path / "log").open("a"), text=True,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / host)},
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready"), (tmp_path / "log").read_text()
        return process

    servers = {host: start(host) for host in hosts}
    there, over, asked = list(hosts), threading.Event(), []

    def ask(names: int) -> None:
        with Client(f"dns://127.0.0.1:{names}/hilum.test:{port}", transport="grpc") as client:
            while not over.is_set():
                answer = client.infer("double", {"x": np.ones((1, 3), np.float32)}, ["y"])
                asked.append(bool(answer.outputs["y"].sum() == 6))
                time.sleep(0.01)

    try:
        with named(there) as names, ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask, names)
            try:
                for host in hosts:
                    there.remove(host)
                    time.sleep(container["lifecycle"]["preStop"]["sleep"]["seconds"])
                    servers[host].send_signal(signal.SIGTERM)
                    assert servers[host].wait(pod["terminationGracePeriodSeconds"]) == 0
                    servers[host] = start(host)
                    there.append(host)
                    time.sleep(2 + 1.1 * age)  # until the client knows of it
            finally:
                over.set()
            asking.result()
        assert len(asked) > 100
        assert all(asked)
    finally:
        for process in servers.values():
            process.kill()


def test_rules_of_scaling_and_alerts_hold() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on this machine")
    done = subprocess.run(["promtool", "test", "rules", "rules_test.yaml"], cwd=CHART,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_keda_asks_for_what_the_rule_records() -> None:
    manifests = rendered(MATRIX["KEDA"][1])
    (rule,) = [m for m in manifests if m["kind"] == "PrometheusRule"]
    assert rule["spec"] == yaml.safe_load((CHART / "rules.yaml").read_text())
    (scaled,) = [m for m in manifests if m["kind"] == "ScaledObject"]
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert query.startswith("sum(hilum_queue_compute_ratio{")
    assert scaled["spec"]["minReplicaCount"] >= 1


def test_the_notes_say_what_it_is_for() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    assert "Not a medical device. For research only." in notes
