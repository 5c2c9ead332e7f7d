"""A server of lungmask and the X-ray system, an Orthanc, and gateways between them."""

from __future__ import annotations

import signal
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from gateways import RULES, Running
from pacs import Orthanc, free_port

from hilum.server.launcher import TritonServer


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty PACS."""
    folder = tmp_path / "orthanc"
    folder.mkdir()
    running = Orthanc(folder).start()
    yield running
    running.stop(signal.SIGKILL)


@pytest.fixture
def gateway(tmp_path: Path, chest_server: TritonServer) -> Iterator[Callable[..., Running]]:
    """Make gateways of this test; what still runs at its end is killed."""
    made: list[Running] = []

    def make(source: str, more: str = "", *, rules: str = RULES, url: str = "") -> Running:
        text = f"""{source}
[servers]
urls = ["{url or chest_server.grpc_url}"]
retry_window_s = 2
[trigger]
idle_s = 0.6
poll_s = 0.3
[operation]
folder = '{tmp_path}/state'
port = {free_port()}
{more}
{rules}"""
        tomllib.loads(text)
        config = tmp_path / f"gateway-{len(made)}.toml"
        config.write_text(text)
        made.append(Running(config, tmp_path / f"gateway-{len(made)}.log"))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None:
            one.process.kill()
            one.process.wait()
