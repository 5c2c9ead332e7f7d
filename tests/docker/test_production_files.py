"""Image, compose files and proxy: checked as far as that goes without a Docker engine."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hilum.catalog import SYSTEMS
from hilum.cli import app
from hilum.server.doctor.checks import number, table
from hilum.server.doctor.gpu_memory import MiB, shared_memory_need
from hilum.server.runtime_repository import Resources

OVERLAYS = {
    "same host": ("compose.same-host.yaml",),
    "tls": ("compose.tls.yaml",),
    "mutual tls": ("compose.tls.yaml", "compose.mutual-tls.yaml"),
    "same host, gpu": ("compose.same-host.yaml", "compose.gpu.yaml"),
    "gateway": ("compose.gateway.yaml",),
    "tls, gateway": ("compose.tls.yaml", "compose.gateway.yaml"),
    "mutual tls, gpu": ("compose.tls.yaml", "compose.mutual-tls.yaml", "compose.gpu.yaml"),
}

SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image",
    "init", "ipc", "logging", "network_mode", "networks", "pids_limit", "ports", "profiles",
    "read_only", "restart", "secrets", "security_opt", "shm_size", "stop_grace_period",
    "stop_signal", "tmpfs", "ulimits", "user", "volumes",
}  # fmt: skip
"""Keys of a service that the Compose specification knows and these files use."""


class Loader(yaml.SafeLoader):
    """YAML with the two tags of Compose: `!reset` takes a value away, `!override` replaces it."""


class Reset:
    """A value that is taken away."""


class Override(list):
    """A list that replaces instead of being added."""


Loader.add_constructor("!reset", lambda loader, node: Reset())
Loader.add_constructor("!override", lambda loader, node: Override(loader.construct_sequence(node)))


def merge(base: Any, other: Any) -> Any:
    """Two compose files as Compose merges them, as far as these files need it."""
    if isinstance(base, dict) and isinstance(other, dict):
        merged = dict(base)
        for key, value in other.items():
            if isinstance(value, Reset):
                merged.pop(key, None)
            else:
                merged[key] = merge(base[key], value) if key in base else value
        return merged
    if isinstance(base, list) and isinstance(other, list) and not isinstance(other, Override):
        if all(isinstance(v, str) and ":/" in v for v in base + other):  # volumes: by target
            return list({v.split(":/")[1].split(":")[0]: v for v in base + other}.values())
        return base + [value for value in other if value not in base]
    return other


def load(docker: Path, name: str) -> dict[str, Any]:
    return yaml.load((docker / name).read_text(), Loader)  # noqa: S506 - a SafeLoader


@pytest.fixture(params=OVERLAYS, scope="session")
def composed(request: pytest.FixtureRequest, docker: Path) -> tuple[str, dict[str, Any]]:
    """Every choice of profiles, merged."""
    result = load(docker, "compose.yaml")
    for overlay in OVERLAYS[request.param]:
        result = merge(result, load(docker, overlay))
    return request.param, result


Composed = tuple[str, dict[str, Any]]


def defaults(text: str) -> str:
    """The text with every `${NAME:-default}` as without an environment."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_every_service_is_hardened(composed: Composed) -> None:
    for name, service in composed[1]["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        user = defaults(service["user"]).partition(":")[0]
        assert user not in ("", "0", "root"), name
        image = service["image"]
        pinned = defaults(image)
        named, _, digest = pinned.partition("@sha256:")
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", named), image  # a version, not `latest`
        assert "build" in service or named == "hilum:0.1.0" or re.fullmatch("[0-9a-f]{64}", digest)


def test_what_is_named_is_declared_and_what_is_mounted_is_there(
    composed: Composed, docker: Path
) -> None:
    whole = composed[1]
    for service in whole["services"].values():
        assert set(service.get("networks", ())) <= set(whole["networks"])
        assert set(service.get("secrets", ())) <= set(whole["secrets"])
        for other, how in dict.fromkeys(service.get("depends_on", ()), None).items():
            assert other in whole["services"], how
        assert not {"network_mode", "networks"} <= set(service)
        for volume in service.get("volumes", ()):
            source, target = defaults(volume).split(":")[:2]
            assert target.startswith("/")
            if source.startswith("."):
                assert (docker / source).exists(), volume
            else:
                assert source in whole["volumes"]


def test_only_the_chosen_door_is_open(composed: Composed) -> None:
    name, whole = composed
    ports = {n: s["ports"] for n, s in whole["services"].items() if s.get("ports")}
    wanted = {} if name.startswith("same host") else {"grafana": ["127.0.0.1:3000:3000"]}
    if "tls" in name:
        wanted["proxy"] = ["${HILUM_PORT:-8443}:8443"]
    if "gateway" in name:
        wanted["orthanc"] = ["${HILUM_DIMSE:-127.0.0.1:4242}:4242", "127.0.0.1:8042:8042"]
    assert ports == wanted
    triton = whole["services"]["triton"]
    private = "--host=127.0.0.1" in triton["command"]
    assert private is (triton.get("network_mode") == "host") is name.startswith("same host")
    assert private is (triton.get("ipc") == "host")  # clients' shared memory
    for network in triton.get("networks", ()):
        assert whole["networks"][network]["internal"] is True
    if "mutual" in name:
        assert "client_authority" in whole["services"]["proxy"]["secrets"]
        assert (
            "./nginx/mutual-tls.conf:/etc/nginx/clients.conf:ro"
            in (whole["services"]["proxy"]["volumes"])
        )


def test_models_cannot_be_changed_by_what_serves_them(composed: Composed) -> None:
    services = composed[1]["services"]
    models = {
        name: volume.rpartition(":")[2]
        for name, service in services.items()
        for volume in service.get("volumes", ())
        if ":/models" in volume
    }
    assert models.pop("triton") == "ro"
    assert set(models) <= {"engines"}
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            if volume.startswith("./"):
                assert volume.endswith(":ro"), name


def test_engines_come_before_triton_where_they_are_asked_for(docker: Path) -> None:
    gpu = load(docker, "compose.gpu.yaml")["services"]
    assert gpu["engines"]["profiles"] == ["gpu"]
    waits = gpu["triton"]["depends_on"]["engines"]
    assert waits == {"condition": "service_completed_successfully", "required": False}
    assert gpu["engines"]["network_mode"] == "none"


def seconds(options: list[str], name: str) -> float:
    return float(next(o.partition("=")[2] for o in options if o.startswith(f"--{name}=")))


def test_a_stop_takes_no_longer_than_it_may(composed: Composed) -> None:
    triton = composed[1]["services"]["triton"]
    command = triton["command"]
    allowed = float(triton["stop_grace_period"].removesuffix("s"))
    assert seconds(command, "drain") + seconds(command, "grace") + 10 <= allowed
    check = triton["healthcheck"]
    noticed = (check["retries"] + 1) * float(check["interval"].removesuffix("s"))
    assert noticed <= seconds(command, "drain")


def test_hilum_knows_the_options_and_binds_what_they_say(composed: Composed) -> None:
    name, whole = composed
    command = whole["services"]["triton"]["command"]
    shown = CliRunner().invoke(app, [*command, "--print-args"])
    assert shown.exit_code == 0, shown.output
    options = shlex.split(shown.stdout)
    host = "127.0.0.1" if name.startswith("same host") else "0.0.0.0"  # noqa: S104
    assert f"--grpc-address={host}" in options
    assert f"--metrics-address={host}" in options
    assert "--http-address=127.0.0.1" in options
    assert "--model-control-mode=none" in options
    assert "--model-repository=/models" in options
    (closed,) = [o for o in options if o.startswith("--grpc-restricted-protocol=")]
    assert ("shared-memory" in closed) is not name.startswith("same host")


def test_the_default_shared_memory_is_enough_for_every_system(docker: Path) -> None:
    triton = load(docker, "compose.yaml")["services"]["triton"]
    size = defaults(triton["shm_size"])
    given = int(size.removesuffix("g")) * 1024 * MiB
    largest = Resources(gpu=True, instances=1, threads=1, stream_instances=1, stream_threads=1,
                        step_instances=8)  # fmt: skip
    every = {model.model: model for s in SYSTEMS.values() for model in s.models()}
    assert 0 < shared_memory_need(every.values(), largest).full <= given
    assert f"HILUM_SHM_SIZE={size}\n" in (docker / ".env.example").read_text()


def instructions(docker: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", (docker / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_is_at_the_floor_or_above(docker: Path) -> None:
    (image,) = [r for w, r in instructions(docker) if w == "ARG" and "TRITON_IMAGE=" in r]
    built = load(docker, "compose.yaml")["services"]["triton"]["build"]["args"]["TRITON_IMAGE"]
    assert image.removeprefix("TRITON_IMAGE=") == defaults(built)
    version = image.partition("@")[0].rpartition(":")[2].removesuffix("-py3")
    assert number(version) >= number(table()["floor"]["container"])
    assert all(
        rest.startswith("${TRITON_IMAGE}") for w, rest in instructions(docker) if w == "FROM"
    )


def test_the_image_runs_for_a_user_without_rights(docker: Path) -> None:
    found = instructions(docker)
    last = dict(found[max(i for i, f in enumerate(found) if f[0] == "FROM") :])
    assert last["USER"] == "1000:1000"
    assert "hilum-ready" in last["HEALTHCHECK"]
    assert json.loads(last["ENTRYPOINT"]) == ["hilum"]
    words = [word for word, _ in found]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))
    compose = load(docker, "compose.yaml")["services"]["triton"]["command"]
    joined = json.loads(last["CMD"])
    assert [w for option in compose for w in option.split("=")] == joined


def ignored(docker: Path, path: str) -> bool:
    """Whether a file of the checkout stays out of what the image is built from."""
    out = False
    for line in (docker / "Dockerfile.dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = (
            re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        )
        if re.match(f"{pattern}(/|$)", path):
            out = not line.startswith("!")
    return out


def test_the_image_gets_the_package_and_no_weights_images_or_history(docker: Path) -> None:
    checkout = docker.parent
    named = [rest.split() for word, rest in instructions(docker) if word == "COPY"]
    sources = [words[:-1] for words in named if not any(w.startswith("--from") for w in words)]
    plain = [source for words in sources for source in words if not source.startswith("--")]
    assert "." in plain
    tracked = subprocess.run(
        ["git", "ls-files", "hilum", "pyproject.toml", "README.md", "LICENSE",
         *(link.name for link in (checkout / "hilum").iterdir() if link.is_symlink())],
        cwd=checkout, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert len(tracked) > 200
    for path in [*tracked, *(source for source in plain if source != ".")]:
        assert (checkout / path).exists()
        assert not ignored(docker, path), path
    for path in (".git/config", ".venv/bin/python", "out/results/report.json", "tests/conftest.py",
                 "model_repository/lung/1/model.onnx", "export/x.onnx", "docker/.env",
                 "docker/secrets/key.pem", "scan.dcm", "build/lib/hilum/old.py"):  # fmt: skip
        assert ignored(docker, path), path


def test_what_the_image_installs_is_known_by_its_hash(docker: Path) -> None:
    installs = [r for w, r in instructions(docker) if w == "RUN" and "pip install" in r]
    assert "--require-hashes --no-deps" in installs[0]
    assert "--no-deps ." in installs[1]
    locked = (docker.parent / "constraints/hashes-image.txt").read_text()
    entries = re.split(r"\n(?=\S)", locked.strip())
    assert len(entries) > 30
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize(
    ("folder", "base", "compose", "service"),
    [(".", "TRITON_IMAGE", "compose.yaml", "triton"),
     ("gateway", "DEBIAN_IMAGE", "compose.gateway.yaml", "orthanc")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("image", "allow", "builds"),
    [("nvcr.io/x/tritonserver:26.07-py3", "", False), ("x:1@sha256:" + 64 * "a", "", True),
     ("x:1", "0", False), ("x:1", "1", True)],
)  # fmt: skip
def test_the_build_refuses_a_base_that_is_named_by_a_tag_alone(
    image: str, allow: str, builds: bool, folder: str, base: str, compose: str, service: str,
    docker: Path,
) -> None:  # fmt: skip
    found = instructions(docker / folder)
    first = next(rest for word, rest in found if word == "RUN")
    done = subprocess.run(
        ["sh", "-c", first], capture_output=True, text=True,
        env={base: image, "ALLOW_TAG": allow, "PATH": "/bin"},
    )  # fmt: skip
    assert (done.returncode == 0) is builds
    assert builds or f"{image} has no digest: run 'docker/pin >> docker/.env'" in done.stderr
    defaults = [rest for word, rest in found if word == "ARG" and "ALLOW_TAG" in rest]
    assert defaults == ['ALLOW_TAG=""']
    arguments = load(docker, compose)["services"][service]["build"]["args"]
    taken = next(rest.partition("=")[2] for word, rest in found if rest.startswith(f"{base}="))
    assert re.fullmatch(r"[a-z0-9./-]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}", taken)
    assert arguments[base] == f"${{{base}:-{taken}}}"
    assert arguments["ALLOW_TAG"] == "${ALLOW_TAG:-}"


def test_images_are_pinned_by_the_digest_that_the_registry_gives(
    docker: Path, tmp_path: Path
) -> None:
    engine = tmp_path / "docker"
    engine.write_text('#!/bin/sh\necho "sha256:$(printf %s "$4" | sha256sum | cut -c1-64)"\n')
    engine.chmod(0o755)
    lines = subprocess.run(
        ["sh", docker / "pin"], check=True, capture_output=True, text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    ).stdout.splitlines()  # fmt: skip
    pinned = dict(line.split("=", 1) for line in lines)
    assert set(pinned) == {"TRITON_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE", "NGINX_IMAGE",
                           "DEBIAN_IMAGE"}  # fmt: skip
    for image in pinned.values():
        name, _, digest = image.partition("@sha256:")
        assert ":" in name
        assert digest == hashlib.sha256(name.encode()).hexdigest()


CALLS = {
    "is_server_ready": "ServerReady",
    "get_model_metadata": "ModelMetadata",
    "get_model_config": "ModelConfig",
    "get_model_repository_index": "RepositoryIndex",
    "infer": "ModelInfer",
    "get_server_metadata": "ServerMetadata",
    "get_inference_statistics": "ModelStatistics",
    "is_model_ready": "ModelReady",
}
"""What the client calls, by its names in Triton's client library and on the wire."""


def test_the_proxy_lets_through_what_clients_call_and_nothing_that_changes_the_server(
    docker: Path,
) -> None:
    text = (docker / "nginx" / "nginx.conf").read_text()
    (names,) = re.findall(r"GRPCInferenceService/\(([\w|]+)\)\$", text)
    offered = set(names.split("|"))
    source = "".join(f.read_text() for f in (docker.parent / "client").rglob("*.py"))
    needed = set(re.findall(r"lambda stub: stub\.(\w+)", source))
    assert {"infer", "is_server_ready", "get_model_config"} <= needed
    assert {CALLS[name] for name in needed} <= offered
    for word in ("Load", "Unload", "SharedMemory", "Trace", "Log"):
        assert not any(word in name for name in offered)
