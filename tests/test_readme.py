"""What the README shows is run as it stands, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHECKPOINTS = {
    "lung": "models_lungs/DeepLabV3+_efficientnet-b1_imagenet_240821_2250",
    "pspnet": "models_covid/PSPNet_efficientnet-b0_imagenet_030921_1848",
}


def _published_checkpoints(folder: Path) -> None:
    """Random weights in the published layout."""
    import torch
    from hilum.export.networks import cxr

    for network, name in CHECKPOINTS.items():
        state = cxr.build(network).state_dict()
        (folder / name).mkdir(parents=True)
        torch.save(
            {cxr.published_name(network, n): t for n, t in state.items()},
            folder / name / "weights.pth",
        )


def _commands(block: str) -> list[list[str]]:
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def test_readme_holds(tmp_path: Path) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", 8001)) == 0:
            pytest.skip("port 8001, which the README uses, is taken on this machine")
    _published_checkpoints(tmp_path / "checkpoints")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert [kind for kind, _ in blocks] == ["sh", "sh", "sh", "python", "sh"]
    server = None
    try:
        for kind, block in blocks:
            if kind == "python":
                (tmp_path / "example.py").write_text(block)
                block = f"{shlex.quote(sys.executable)} example.py"
            for command in _commands(block):
                if command[:2] == ["hilum", "serve"]:
                    server = subprocess.Popen(
                        command, cwd=tmp_path, env=environment, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    )  # fmt: skip
                    assert server.stdout is not None
                    assert "ready" in server.stdout.readline()
                    continue
                done = subprocess.run(
                    command, cwd=tmp_path, env=environment, capture_output=True, text=True,
                    timeout=300,
                )  # fmt: skip
                assert done.returncode == 0, (command, done.stderr)
                if kind == "python":
                    assert "phantom" in done.stdout
    finally:
        if server is not None:
            server.terminate()
            server.wait(30)
    report = json.loads((tmp_path / "results/report.json").read_text())
    assert len(report["results"]) == 4
    assert all(w["source"].startswith("checkpoint") for w in report["weights"])
    (scan,) = json.loads((tmp_path / "scans/report.json").read_text())["results"]
    assert scan["preview"]
    assert scan["volumes_ml"]["lung"] > 0
