"""Findings: what is missing from a repository, or does not fit together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ct_standins
import pytest
import standins

from hilum.catalog import SYSTEMS
from hilum.export.check import Finding, check_repository
from hilum.export.repository import export_system

SYSTEM = SYSTEMS["cxr-severity"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with stand-ins for all networks, 96 pixels square."""
    folder = tmp_path_factory.mktemp("sound")
    files = {"lung": standins.write_lung(folder / "lung.onnx", 96)}
    for network in SYSTEM.networks[1:]:
        path = folder / f"{network.name}.onnx"
        files[network.name] = standins.write_disease(path, 64, 0.9)
    export_system(SYSTEM, repository=folder / "repository", onnx=files)
    return folder / "repository"


def test_a_sound_repository_has_no_findings(sound: Path) -> None:
    assert check_repository(sound, [SYSTEM]) == []


def test_a_network_that_two_systems_share_is_the_other_systems_too(tmp_path: Path) -> None:
    """`ct-classifier` needs the network of `lungmask`; who exports that alone misses nothing."""
    lung = ct_standins.write_lung(tmp_path / "r231.onnx")
    export_system(SYSTEMS["lungmask"], repository=tmp_path / "models", onnx={"r231": lung})
    assert check_repository(tmp_path / "models") == []


def edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(repository: Path) -> None:
        file = repository / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return damage


def remove(path: str) -> Callable[[Path], None]:
    return lambda repository: (repository / path).unlink()


def append(path: str) -> Callable[[Path], None]:
    def damage(repository: Path) -> None:
        with (repository / path).open("ab") as file:
            file.write(b"x")

    return damage


def other_size(repository: Path) -> None:
    file = repository / "cxr_fpn" / "1" / "certificate.json"
    found = json.loads(file.read_text())
    found["sizes"]["L"] = 512
    file.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("damage", "severity", "model", "words"),
    [
        (remove("cxr_fpn/1/model.onnx"), "error", "cxr_fpn", "missing"),
        (remove("cxr_fpn/1/certificate.json"), "error", "cxr_fpn", "no certificate"),
        (append("cxr_fpn/1/model.onnx"), "error", "cxr_fpn", "sha256"),
        (append("cxr_fpn/1/certificate.json"), "error", "cxr_fpn", "not a certificate"),
        (other_size, "error", "cxr_fpn", "L = 512"),
        (remove("cxr_clean/config.pbtxt"), "error", "cxr_clean", "config.pbtxt is missing"),
        (remove("cxr_clean/1/model.py"), "error", "cxr_clean", "model.py is missing"),
        (append("cxr_clean/1/model.py"), "error", "cxr_clean", "model.py is not what"),
        (append("cxr_clean/config.pbtxt"), "error", "cxr_clean", "config.pbtxt: "),
        (
            edit("cxr_fpn/config.pbtxt", "dims: [96, 96, 3]", "dims: [95, 95, 3]"),
            "error", "cxr_fpn", "differs from the catalog in input",
        ),
        (
            edit("cxr_zones/config.pbtxt", "TYPE_FP64", "TYPE_FP32"),
            "error", "cxr_zones", "input, output",
        ),
        (
            edit("cxr_fpn/config.pbtxt", "count: 1", "count: 2"),
            "note", "cxr_fpn", "tuned by hand",
        ),
        (
            edit("cxr_fpn/1/certificate.json", '"UINT8"', '"INT8"'),
            "error", "cxr_fpn", "inputs are not those of the catalog",
        ),
        (
            edit("cxr_fpn/1/certificate.json", '"user file"', '"random"'),
            "note", "cxr_fpn", "the weights are",
        ),
        (
            edit("cxr_fpn/1/certificate.json", '"user file"', '"reference"'),
            "note", "cxr_fpn", "the weights are",
        ),
    ],
)  # fmt: skip
def test_damage_is_found(
    sound: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    severity: str,
    model: str,
    words: str,
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(sound, repository)
    damage(repository)
    findings = [f for f in check_repository(repository, [SYSTEM]) if f.model == model]
    assert any(words in f.what and f.severity == severity for f in findings), findings
    assert all(f.why and f.remedy.startswith("hilum ") for f in findings)


def test_networks_that_were_not_exported_are_notes(sound: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(sound, repository)
    shutil.rmtree(repository / "cxr_pan" / "1")
    (finding,) = check_repository(repository, [SYSTEM])
    assert finding == Finding(
        "cxr_pan",
        "note",
        "1/model.onnx is missing: the network was not exported",
        "cxr_severity_pan cannot be served",
        "hilum export cxr-severity --network pan",
    )


def test_no_repository(tmp_path: Path) -> None:
    (finding,) = check_repository(tmp_path / "nowhere")
    assert finding.severity == "error"
    assert finding.remedy.startswith("hilum export cxr-severity")
