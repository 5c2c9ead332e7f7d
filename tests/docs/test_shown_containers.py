"""What pages show for Docker and Helm, as far as that can be run without an engine or a cluster."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from manual import MANUAL, ROOT, Typist, blocks, commands, inline, shown

yaml = pytest.importorskip("yaml")


class Loader(yaml.SafeLoader):
    """YAML of which only names count."""


Loader.add_multi_constructor("!", lambda loader, tag, node: None)

COMPOSE = sorted((ROOT / "docker").glob("compose*.yaml"))
TEXT = "\n".join(path.read_text() for path in COMPOSE)
SERVICES = {
    name for path in COMPOSE for name in yaml.load(path.read_text(), Loader).get("services", {})
}
PROFILES = set(re.findall(r"profiles: \[(\w+)\]", TEXT))
OPTIONS = {
    "up": {"--build", "--detach"}, "ps": set(), "stop": set(), "logs": {"--follow"},
    "run": {"--rm"}, "exec": set(),
}  # fmt: skip
"""Of the commands of Compose that pages show."""

TYPED = [
    (page, line.strip())
    for page in MANUAL
    for line in (
        *(line for block in blocks(page) if block.kind == "sh" for line in block.text.splitlines()),
        *commands(page),
    )
    if re.match(r"(?:[A-Z_]+=\S+ |[A-Z_]+='[^']*' )?docker ", line.strip())
]


def test_there_are_some() -> None:
    assert len(TYPED) > 8
    assert {page for page, _ in TYPED} >= {
        "docs/how-to/service.md", "docs/how-to/own-network.md", "docs/how-to/upgrade-and-backup.md"
    }  # fmt: skip


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_services_profiles_and_variables_are_those_of_the_files(page: str, line: str) -> None:
    """No engine runs it here, and the page says so."""
    assert re.search(r"No (?:Docker|container) engine", (ROOT / page).read_text())
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        assert f"${{{words[0].partition('=')[0]}" in TEXT
        words = words[1:]
    if words[1] == "run":
        image = next(word for word in words if "/" in word and ":" in word)
        assert f"{image}@sha256:" in (ROOT / "docker/Dockerfile").read_text()
        return
    assert words[:2] == ["docker", "compose"]
    words = words[2:]
    while words[0] == "--profile":
        assert words[1] in PROFILES
        words = words[2:]
    name, *rest = words
    options = [word for word in rest if word.startswith("-")]
    services = [word for word in rest if not word.startswith("-")]
    if name in ("run", "exec"):  # what comes after the service is for it
        options, services = options[: len(OPTIONS[name])], services[:1]
    assert set(options) <= OPTIONS[name]
    assert set(services) <= SERVICES


def test_the_steps_in_short(tmp_path: Path) -> None:
    """The registry is not asked, and Compose reads the files without an engine, where it is."""
    *_, block = shown("docs/how-to/service.md", "In containers", "sh", "sh")
    shutil.copytree(ROOT / "docker", tmp_path / "docker", ignore=shutil.ignore_patterns("secrets"))
    there = (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    )
    compose = "docker compose config --quiet" if there else "test -f compose.yaml"
    swaps = {"./pin >> .env": "test -x ./pin", "docker compose up --build --detach": compose}
    Typist(tmp_path).type(block, swaps)
    assert len((tmp_path / "docker/secrets/grafana_password").read_text().strip()) == 32


def test_a_key_is_given_to_its_user(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("gives files away, which root alone may")
    command = inline(
        "docs/how-to/service.md",
        "sudo chown 101 secrets/server.key && sudo chmod 400 secrets/server.key",
    )
    (tmp_path / "secrets").mkdir()
    key = tmp_path / "secrets/server.key"
    key.touch()
    Typist(tmp_path).type(command, {"sudo ": ""})
    assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (101, 0o400)


def test_the_dashboard_is_written(tmp_path: Path) -> None:
    inline("docker/README.md", "python -m hilum.server.dashboard")
    command = inline(
        "docs/how-to/service.md",
        "python -m hilum.server.dashboard > docker/grafana/dashboards/hilum.json",
    )
    (tmp_path / "docker/grafana/dashboards").mkdir(parents=True)
    Typist(tmp_path).type(command)
    written = "docker/grafana/dashboards/hilum.json"
    assert (tmp_path / written).read_text() == (ROOT / written).read_text()


def test_the_chart_is_taken_by_helm() -> None:
    """Without a cluster: what would be installed is rendered."""
    tools = Path(os.environ.get("HILUM_KUBERNETES", ROOT / "out/kubernetes")).absolute()
    found = tools / "layer/helm"
    if not (found / "helm").is_file() and not shutil.which("helm"):
        pytest.skip("no helm on this machine: make check-kubernetes")
    (block,) = shown("docs/how-to/kubernetes.md", "Install it", "sh")
    reader = Typist(ROOT, PATH=f"{found}:{os.environ['PATH']}")
    said = reader.type(block, {"helm install": "helm template", "sha256:…": "sha256:" + 64 * "0"})
    assert "registry.example/hilum@sha256:" in said


def test_another_triton_is_a_variable_of_the_files() -> None:
    (block,) = shown("docs/how-to/upgrade-and-backup.md", "Upgrade Triton", "sh")
    assert ("docs/how-to/upgrade-and-backup.md", block.strip()) in TYPED
