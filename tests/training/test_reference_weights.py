"""What the reference weights find in images that they were not trained on: a small measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from hilum.catalog import SYSTEMS
from hilum.export import reference
from hilum.export.repository import export_system
from hilum.results.provenance import REFERENCE, weights_entry, weights_note
from hilum.training import measure_xrays, open_xrays
from hilum.training.plan import reference_core


@pytest.fixture(scope="module")
def lung() -> nn.Module:
    return reference_core("cxr-severity", "lung")


@pytest.fixture(scope="module")
def pspnet() -> nn.Module:
    return reference_core("cxr-severity", "pspnet")


def test_lungs_and_scores_of_unseen_generated_xrays(lung: nn.Module, pspnet: nn.Module) -> None:
    found = measure_xrays.measure(measure_xrays.unseen(12), lung, pspnet)
    assert found.dice.mean() >= 0.96
    assert found.error.mean() <= 0.5


@pytest.mark.load
def test_lungs_of_public_xrays_of_patients_that_were_held_out(
    lung: nn.Module, shared: Path
) -> None:
    held_out = open_xrays.read(shared / "data" / "cxr-hannover-ccby", held_out=True)
    assert measure_xrays.measure(held_out, lung).dice.mean() >= 0.92


def test_an_export_says_that_its_weights_are_reference_weights(exported_repository: Path) -> None:
    folder = exported_repository / "cxr_pspnet" / "1"
    made = json.loads((folder / "certificate.json").read_text())
    card = reference.load_reference("cxr-severity", "pspnet")[1]
    assert made["weights"]["kind"] == "reference"
    assert made["weights"]["sha256"] == card.sha256
    assert weights_note([weights_entry("cxr_pspnet", made)]) == REFERENCE
    page = (folder / "README.md").read_text()
    assert "eference weights (seed 1)" in page


def test_networks_without_reference_weights_are_left_out_or_refused(tmp_path: Path) -> None:
    from hilum.catalog.errors import WeightsError

    system = SYSTEMS["cxr-severity"]
    with pytest.raises(WeightsError, match="no reference weights of manet"):
        export_system(system, repository=tmp_path, networks=["manet"], weights="reference")
