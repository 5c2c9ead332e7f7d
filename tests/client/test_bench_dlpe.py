"""`hilum bench dlpe` through real servers, on a small grid with the golden files' networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hilum.benchmarks import dlpe_published
from hilum.benchmarks.dlpe import Plan
from hilum.benchmarks.instrument.watched import called
from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InputError, RepositoryError
from hilum.export.networks.dlpe import UNet

GRID, SIDE = 32, 64

HILUM = Path(sys.executable).with_name("hilum")


@pytest.fixture(scope="module")
def environment(dlpe_repository: Path) -> dict[str, str]:
    """The store that the repository was exported from; one thread, for the machine may be busy."""
    store = str(dlpe_repository.parent / "store")
    return {**os.environ, "HILUM_STORE": store, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(
    dlpe_repository: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """All parts, with `bench.json`, `bench.md` and what was printed."""
    out = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [HILUM, "bench", "dlpe", "--grid", str(GRID), "--rounds", "1", "--weights", "store",
         "--repository", dlpe_repository, "--side", str(SIDE), "--slices", "16", "--out", out],
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (out / "printed").write_text(done.stdout)
    return out


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bench.json").read_text())


def test_waterfall(report: dict[str, Any]) -> None:
    study = report["study"]
    stages = {s["stage"]: s for s in study["stages"]}
    assert list(stages)[:2] == ["normalise", "stage_one"]
    assert list(stages)[-2:] == ["write files", "write pictures"]
    assert {"ranks", "masks", "stage_two", "enhancement", "lesions"} < set(stages)
    assert study["seconds"] == pytest.approx(sum(s["seconds"] for s in stages.values()))
    # Networks are extrapolated by voxels, what is written by nothing: it has the series' size.
    larger = {name: s["seconds_at_512"] / s["seconds"] for name, s in stages.items()}
    assert larger["stage_one"] == pytest.approx((512 / GRID) ** 3)
    assert larger["write files"] == 1
    assert study["written_bytes"] > 10**5
    assert study["client_peak_bytes"] > study["client_start_bytes"] > 10**7
    memory = study["server_memory"]
    assert memory["processes"] > 24  # Triton, and one for each network
    assert memory["upper_bound_bytes"] > memory["sampled_peak_bytes"] > study["client_peak_bytes"]


def test_networks_and_transfer(report: dict[str, Any]) -> None:
    study = report["study"]
    counts, models = study["counts"], study["models"]
    for asked, counted in {
        "requests": "slabs", "bytes_sent": "bytes_sent", "bytes_received": "bytes_received",
    }.items():  # fmt: skip
        assert sum(m[asked] for m in models) == counts[counted]
    assert sum(n["slices"] for n in study["networks"]) == counts["passes"]
    assert [n["task"] for n in study["networks"]] == sorted(
        dlpe_published.TASKS, key=list(catalog.TASKS).index
    )
    assert all(s > 0 for n in study["networks"] for s in n["compute_seconds"].values())
    # Whatever the requests wait for in the server, the client waits for, too.
    assert sum(m["client_seconds"] for m in models) > sum(m["server_seconds"] for m in models) > 0
    assert study["transport"] == "shm"


def test_published_procedure_finds_the_same(report: dict[str, Any]) -> None:
    found = report["published"]
    assert {m["mask"] for m in found["masks"]} == {
        "lung", "airway", "vessel", "follow_up", "in_patient", "visible"
    }  # fmt: skip
    assert sum(m["differing"] for m in found["masks"]) <= 2
    assert all(m["voxels"] > 0 for m in found["masks"])
    assert found["level"][0] == pytest.approx(found["level"][1], abs=0.1)
    assert found["width"][0] == pytest.approx(found["width"][1], abs=0.1)
    assert (
        found["published_passes"] == 8 * 3 * GRID == report["study"]["counts"]["published_passes"]
    )
    assert found["ratio"] == found["published_seconds"][0] / found["seconds"][0] > 0
    assert {s["stage"] for s in found["stages"]} == {
        "stage_one", "masks", "ranks", "stage_two", "enhancement", "lesions", "visible_lesions"
    }  # fmt: skip


def test_stage_one_and_steps(report: dict[str, Any]) -> None:
    found = report["stage_one"]
    assert (found["slices"], found["slabs"], found["all_slices"]["extrapolated"]) == (16, 2, True)
    assert found["deviation"] < 1e-4
    assert found["ratio"] == found["in_process_seconds"] / found["triton_seconds"] > 0
    # The volume, three sums and an interpreter; no PyTorch, no ONNX Runtime.
    assert 16 * SIDE**3 < found["client_peak_bytes"] < found["in_process_peak_bytes"]
    assert all(row["equal"] for row in report["steps"]["rows"])


def test_what_is_written_says_what_was_not_measured(folder: Path, report: dict[str, Any]) -> None:
    text = (folder / "bench.md").read_text()
    assert (folder / "printed").read_text().strip() == text.strip()
    assert f"at {GRID}³; at 512³" in text
    assert text.count("EXTRAPOLATED") >= 5
    assert "2 min on one V100 (project page)" in text
    assert "seconds for all slices EXTRAPOLATED" in text
    assert text.count("\n## ") == 4
    assert report["command"] in text
    # By the steps at 64³ nothing is said about 512³.
    assert "measured at 512³" not in text


def test_other_weights_are_noticed(
    dlpe_repository: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILUM_STORE", environment["HILUM_STORE"])
    network = catalog.TASKS["lung"].network("x")
    same = dlpe_published.torch_core(catalog.SYSTEM, network, "store")
    dlpe_published.check_same({("lung", "x"): same}, dlpe_repository, "store")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        other = UNet(5, 2, width=4).eval()
    with pytest.raises(RepositoryError, match=r"dlpe_lung_x .* other weights"):
        dlpe_published.check_same({("lung", "x"): other}, dlpe_repository, "store")


def test_an_ensemble_runs_what_is_requested() -> None:
    assert called("dlpe_lung_x", ["probability"]) == ["dlpe_lung_x"]
    ensemble = catalog.ENSEMBLES["stage1", "y"].model
    assert called(ensemble, ["vessel1", "lung"]) == ["dlpe_lung_y", "dlpe_vessel1_y"]


def test_plans_that_cannot_be_carried_out() -> None:
    with pytest.raises(InputError, match="nothing is left"):
        Plan(study=False, stage_one=False, steps=False)
    with pytest.raises(InputError, match="a grid of 40"):
        Plan(grid=40)
    with pytest.raises(InputError, match="a side of 48"):
        Plan(side=48)
    assert Plan(study=False, steps=False, slices=8).command == (
        "hilum bench dlpe --no-study --no-steps --direction z --slices 8 --side 512 "
        "--weights random"
    )
