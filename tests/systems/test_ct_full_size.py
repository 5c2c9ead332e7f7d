"""Real slices through the CT systems' own networks, full size, with random weights.

The other tests of these systems put analytic networks of the same signature in their place.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import exports
import pytest
from typer.testing import CliRunner

from hilum.catalog import SYSTEMS as CATALOG
from hilum.cli import app
from hilum.export.repository import export_system
from hilum.server.launcher import TritonServer

NETWORKS = {"ct-angel": "lesion", "ct-classifier": "raw_hu", "lungmask": "r231"}
"""One of each system; the others are built alike, and CT-Angel does without the valid region."""


def _export(system: str, repository: Path) -> None:
    export_system(CATALOG[system], repository=repository, networks=[NETWORKS[system]])


@pytest.mark.load
@pytest.mark.parametrize(
    ("system", "inputs", "slices"),
    [
        ("ct-angel", ["ct-angel-sample/image_DJ20200112A0189_243.jpg", "lungmask-tests"], 3),
        ("ct-classifier", ["lungmask-tests", "ct-densenet-samples/IM2048_cruda.nii"], 3),
        ("lungmask", ["lungmask-tests", "ct-densenet-samples/IM6508_cruda.nii"], 3),
    ],
)
def test_real_slices(
    shared: Path, tmp_path: Path, system: str, inputs: list[str], slices: int
) -> None:
    repository = exports.cached(f"full-size-{system}", lambda folder: _export(system, folder))
    with TritonServer(repository, grace=0) as server:
        studies = [str(shared / "data" / name) for name in inputs]
        done = CliRunner().invoke(
            app, ["run", system, *studies, "--url", server.grpc_url, "--out", str(tmp_path)]
        )
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert "RANDOM WEIGHTS" in report["weights_note"]
    assert len(report["results"]) == len(inputs)
    for result in report["results"]:
        assert result["status"] != "failed"
        assert all((tmp_path / file).stat().st_size for file in result["files"])
    if system == "ct-classifier":
        found = [s for r in report["results"] for s in r["slices"]]
        assert len(found) == slices
        assert all(0 < s["probability"] < 1 and math.isfinite(s["logit"]) for s in found)
