"""What `hilum_about` tells of a repository."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hilum.catalog.errors import RepositoryError
from hilum.server.server_info import about

CERTIFICATE = {"weights": {"network": "lung", "source": "random", "sha256": "ab"}}


def network(repository: Path, name: str, config: str | None) -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "certificate.json").write_text(json.dumps(CERTIFICATE))
    if config is not None:
        (version.parent / "config.pbtxt").write_text(config)


def told(repository: Path) -> dict[str, object]:
    answer = about(repository / "hilum_about")(np.zeros(1, np.uint8))
    return json.loads(answer["json"].tobytes())


def test_what_serves_a_network_is_what_its_configuration_says(tmp_path: Path) -> None:
    network(tmp_path, "engine", "platform: 'tensorrt_plan'\nbackend: 'tensorrt'\n")
    network(tmp_path, "graph", "backend: 'onnxruntime'\n")
    network(tmp_path, "old", "platform: 'onnxruntime_onnx'\n")
    network(tmp_path, "damaged", "backend {")
    network(tmp_path, "none", None)
    (tmp_path / "step" / "1").mkdir(parents=True)
    (tmp_path / "step" / "config.pbtxt").write_text("backend: 'python'\n")
    found = told(tmp_path)
    names = ("damaged", "engine", "graph", "none", "old")
    assert found["models"] == dict.fromkeys(names, CERTIFICATE)
    assert found["served_by"] == {
        "engine": "tensorrt", "graph": "onnxruntime", "old": "onnxruntime"
    }  # fmt: skip


def test_a_broken_certificate_is_named(tmp_path: Path) -> None:
    network(tmp_path, "graph", None)
    (tmp_path / "graph" / "1" / "certificate.json").write_text("{")
    with pytest.raises(RepositoryError, match=r"graph/1/certificate.json is not JSON.*export"):
        about(tmp_path / "hilum_about")
