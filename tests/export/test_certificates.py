"""Certificates of the networks of X-rays, and exports that must not happen."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import standins
from onnx import numpy_helper

from hilum.catalog import SYSTEMS, System
from hilum.catalog.errors import ExportError, WeightsError
from hilum.export.certificate import Parity, sha256_of
from hilum.export.check import check_repository
from hilum.export.repository import export_system
from hilum.export.systems.cxr_severity.random import sample

SYSTEM = SYSTEMS["cxr-severity"]
NAMES = [
    *(pytest.param(name, "reference", id=f"{name}-reference") for name in ("lung", "pspnet")),
    *(pytest.param(n.name, "random", marks=pytest.mark.load, id=n.name) for n in SYSTEM.networks),
]

LARGEST = {"reference": 5e-5, "random": 2e-5}
"""Differences from PyTorch; half and a fifth of what an export may have."""

SOURCES = {
    "reference": "reference weights (seed 1)",
    "random": "random (seed 0); only the output layer is fitted, to synthetic X-rays",
}


@pytest.fixture
def exported(name: str, kind: str, request: pytest.FixtureRequest) -> Path:
    """Where the network called `name` was exported to."""
    repository = {"reference": "exported_repository", "random": "whole_repository"}[kind]
    return request.getfixturevalue(repository) / SYSTEM.network(name).model / "1"


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_every_network_agrees_with_pytorch(exported: Path, name: str, kind: str) -> None:
    found = json.loads((exported / "certificate.json").read_text())
    parity = found["parity"]
    assert parity["reference"].startswith("PyTorch 2.")
    assert parity["tolerance"] == SYSTEM.network(name).tolerance == 1e-4
    assert sorted(parity["batches"]) == [1, 2]
    assert max(parity["largest_difference"].values()) <= LARGEST[kind]
    for output, count in parity["differing_pixels"].items():
        assert count <= 2e-5 * parity["compared_pixels"][output]
    assert found["file"]["sha256"] == sha256_of(exported / "model.onnx")
    assert 17 <= found["file"]["opset"] <= 20
    assert found["file"]["ir_version"] <= 10
    source = SOURCES[kind]
    assert found["weights"] == {
        "network": name,
        "source": source,
        "sha256": found["weights"]["sha256"],
        "kind": kind,
    }
    card = (exported / "README.md").read_text()
    assert f"{source[0].upper()}{source[1:]}" in card
    assert "Not a medical device" in card


def test_the_exported_repository_is_sound(exported_repository: Path) -> None:
    findings = check_repository(exported_repository, [SYSTEM])
    assert [f for f in findings if f.severity == "error"] == []
    assert {f.what.split(" (")[0] for f in findings} == {
        "the weights are reference weights",
        "1/model.onnx is missing: the network was not exported",  # those of make test-load
    }


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_files_reveal_nothing_of_this_machine(exported: Path, name: str, kind: str) -> None:
    model = onnx.load(exported / "model.onnx")
    assert not model.doc_string
    assert not model.metadata_props
    assert not any(n.doc_string or n.metadata_props for n in model.graph.node)


@pytest.mark.load
def test_random_weights_find_lungs_and_gate_healthy_ones(whole_repository: Path) -> None:
    """Enough for a demonstration: the masks are where they should be."""
    run = {
        name: ort.InferenceSession(
            whole_repository / SYSTEM.network(name).model / "1" / "model.onnx"
        )
        for name in ("lung", "pspnet")
    }
    network = SYSTEM.network("pspnet")
    probabilities = []
    for severity in (0.8, 0.0):
        inputs = sample(network, 512, 4242, severity).inputs
        (lung,) = run["lung"].run(["lung"], {"image": inputs["image"]})
        overlap = 2 * (lung & inputs["lung"]).sum() / (lung.sum() + inputs["lung"].sum())
        assert overlap > 0.75
        (probability,) = run["pspnet"].run(["probability"], inputs)
        probabilities.append(float(probability[0, 0]))
    assert probabilities[0] > 0.5
    assert probabilities[0] > probabilities[1]


def with_tolerance(system: System, tolerance: float) -> System:
    networks = tuple(dataclasses.replace(n, tolerance=tolerance) for n in system.networks)
    return dataclasses.replace(system, networks=networks)


def test_an_export_that_does_not_agree_leaves_the_one_before(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    first = standins.write_disease(tmp_path / "first.onnx", 64, 0.9)
    export_system(SYSTEM, repository=repository, onnx={"fpn": first})
    folder = repository / "cxr_fpn"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    second = standins.write_disease(tmp_path / "second.onnx", 96, 0.9)
    with pytest.raises(ExportError, match=r"fpn: .*core input differs by .*still in place"):
        export_system(with_tolerance(SYSTEM, 0.0), repository=repository, onnx={"fpn": second})
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert not [p for p in repository.iterdir() if p.name.startswith(".")]


def test_a_network_that_gives_nan_is_refused(tmp_path: Path) -> None:
    path = standins.write_disease(tmp_path / "fpn.onnx", 64, 0.9)
    model = onnx.load(path)
    for constant in model.graph.initializer:
        if constant.name == "gain":
            constant.CopyFrom(numpy_helper.from_array(np.float32(np.nan), "gain"))
    onnx.save(model, path)
    with pytest.raises(ExportError, match="leaves 0…1"):
        export_system(SYSTEM, repository=tmp_path / "repository", onnx={"fpn": path})


def test_pixels_that_differ_without_cause_are_a_problem() -> None:
    network = SYSTEM.network("lung")
    plane = np.full((1, 4, 4), 0.9, np.float32)
    plane[0, 0, 0] = 0.5 + 1e-6
    want = {"mask": plane[:, None], "lung": np.ones((1, 4, 4), np.uint8)}
    want["probability of lung"] = plane
    for pixel, problem in (((0, 0, 0), None), ((0, 1, 1), "without cause")):
        got = {"mask": plane[:, None], "lung": want["lung"].copy()}
        got["lung"][pixel] = 0
        parity = Parity("PyTorch", "one picture", 0, 2e-5)
        parity.add(network, got, want, want)
        assert parity.differing_pixels == {"lung": 1}
        found = parity.problem("fp32")
        assert (found is None) if problem is None else problem in str(found)


@pytest.mark.parametrize("bad", [float("nan"), 3e-5])
def test_nan_is_worse_than_any_number(bad: float) -> None:
    parity = Parity("PyTorch", "one picture", 0, 2e-5)
    for value in random.Random(0).sample([bad, 1e-6, 0.0], 3):
        parity.add_part("mask", np.array([value], np.float32), np.zeros(1, np.float32))
    assert "mask differs by" in str(parity.problem("fp32"))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"networks": ["resnet"]}, ExportError, "no network 'resnet'"),
        ({"options": {"colour": "red"}}, ExportError, "no option 'colour'; there are seed, opset"),
        ({"options": {"seed": "x"}}, ExportError, "whole number"),
        ({"options": {"opset": "9"}}, ExportError, "give 18 to 20"),
        ({"networks": ["fpn"], "weights": "store"}, WeightsError, "no weights of fpn"),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        export_system(
            SYSTEM, repository=tmp_path / "repository", store=tmp_path / "store", **arguments
        )
    assert not list((tmp_path / "repository").glob("*/1/model.onnx"))
