"""DLPE through the real server with the networks of the golden files."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import dlpe_networks
import exports
import numpy as np
import pydicom
import pytest

from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import BadFormat, Damaged
from hilum.client import AsyncClient, Client
from hilum.client.calls import Progress
from hilum.postprocessing.dlpe import ranks
from hilum.postprocessing.dlpe.extent import extent
from hilum.postprocessing.dlpe.three_way import positive
from hilum.preprocessing.dlpe.space import Normalised, read_normalised
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.server.launcher import TritonServer
from hilum.systems.dlpe import stages
from hilum.systems.dlpe.files import write
from hilum.systems.dlpe.ledger import Ledger
from hilum.systems.dlpe.options import Options
from hilum.systems.dlpe.result import DlpeResult
from hilum.systems.dlpe.views import How, Stage, Variant, three_views

MASKS = {
    "lung": "lung", "airway": "airway", "vessel": "vessel", "follow_up": "follow_up",
    "in_patient": "inpatient", "visible": "visible",
}  # fmt: skip
"""Masks of the result and of the golden file."""

ALL = How(slab_slices=0, in_flight=4, skip=False)

Golden = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def expected(golden: Path) -> Golden:
    with np.load(golden / "dlpe" / "10_pipeline.npz") as stored:
        return {k: stored[k] for k in stored if not k.startswith("w__")}


@pytest.fixture(scope="module")
def study(expected: Golden, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden phantom as a ready normalised volume."""
    path = tmp_path_factory.mktemp("study") / "volume.npz"
    np.savez(path, array=(expected["hu"].astype(np.float32) + 600) / 1600)
    return path


@pytest.fixture(scope="module")
def client(dlpe_server: TritonServer) -> Iterator[Client]:
    with Client(dlpe_server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def result(client: Client, study: Path) -> DlpeResult:
    return client.run("dlpe", study)


def assert_same(a: DlpeResult, b: DlpeResult) -> None:
    """Every mask and the enhanced volume, bit for bit."""
    assert a.masks.keys() == b.masks.keys()
    for name, mask in a.masks.items():
        np.testing.assert_array_equal(mask, b.masks[name], err_msg=name)
    assert a.enhancement is not None
    assert b.enhancement is not None
    np.testing.assert_array_equal(a.enhancement.volume, b.enhancement.volume)
    assert a.window == b.window


def test_golden_pipeline(result: DlpeResult, expected: Golden, study: Path) -> None:
    assert result.masks.keys() == MASKS.keys()
    for name, stored in MASKS.items():
        assert result.masks[name].dtype == np.uint8
        np.testing.assert_array_equal(result.masks[name], expected[stored], err_msg=name)
    found = result.enhancement
    assert found is not None
    assert found.window_level == pytest.approx(float(expected["window_level"]), abs=0.1)
    assert found.window_width == pytest.approx(float(expected["window_width"]), abs=0.1)
    np.testing.assert_array_equal(found.ring, expected["up_ring"])
    at = tuple(expected["sample_idx"].T)
    np.testing.assert_allclose(found.volume[at], expected["enhanced_sample"], atol=1e-6)
    assert found.volume.sum(dtype=np.float64) == pytest.approx(float(expected["enhanced_sum"]))
    assert (result.mode, result.cohort, result.preview) == ("parity", "both", False)
    assert result.ring_outside_share > 0.05  # of masks that mean nothing
    assert result.status == "window_not_trusted"
    assert any("normalised" in note for note in result.notes)
    assert result.source == "normalised volume of 64 × 64 × 64"
    voxel_ml = 334 * 334 * 512 / 64**3 / 1000
    assert result.volumes_ml["lung"] == pytest.approx(expected["lung"].sum() * voxel_ml)
    json.dumps(result.report(), allow_nan=False)


def test_golden_sums_and_thresholds(client: Client, expected: Golden, study: Path) -> None:
    volume = read_normalised(study).voxels
    at = tuple(expected["sample_idx"].T)
    first = three_views(stages.stage_one(volume, heart=False), ALL, Ledger(), client.calls())
    channels = {}
    for name, tree, told in (
        ("airway", catalog.AIRWAY, expected["rank_thresholds"][0]),
        ("vessel", catalog.VESSEL, expected["rank_thresholds"][1]),
    ):
        total = first[f"{name}1"]
        np.testing.assert_allclose(total[at], expected[f"{name}_stage1_sum"], atol=1e-4)
        shares = (tree.high_recall, tree.high_precision)
        found = ranks.rank_thresholds(expected["lung"], total, shares)
        np.testing.assert_allclose(found, told[:2], atol=1e-4)
        masks = ranks.channels(expected["lung"], total, tree)
        for kind, mask in zip(("high_recall", "high_precision"), masks, strict=True):
            np.testing.assert_array_equal(mask, expected[f"{name}_{kind}"])
            channels[f"{name}_{kind}"] = mask
    second = three_views(stages.stage_two(volume, channels, None), ALL, Ledger(), client.calls())
    for row, name in enumerate(("airway", "vessel")):
        total = second[f"{name}2"]
        np.testing.assert_allclose(total[at], expected[f"{name}_stage2_sum"], atol=1e-4)
        ratio = getattr(catalog, name.upper()).ratio
        found = ranks.rank_threshold(expected["lung"], total, ratio)
        assert found == pytest.approx(expected["rank_thresholds"][row, 2], abs=1e-4)


def test_golden_refined_masks(client: Client, expected: Golden, study: Path) -> None:
    options = {
        "airway_ratio": catalog.AIRWAY.default_ratio,
        "vessel_ratio": catalog.VESSEL.default_ratio,
    }
    found = client.run("dlpe", study, refine=True, cohort="none", visible=False, **options)
    assert set(found.masks) == {"lung", "airway", "vessel"}
    for name in ("airway", "vessel"):
        np.testing.assert_array_equal(found.masks[name], expected[f"{name}_default_refined"])
    assert "refinement" in found.timings
    free = client.run("dlpe", study, airway_ratio=0, cohort="none", visible=False)
    at = tuple(expected["sample_idx"].T)
    sampled = expected["airway_stage2_sum"]
    np.testing.assert_array_equal(free.masks["airway"][at], sampled > 2)
    assert 0 < (sampled > 2).sum() != expected["airway"][at].sum()


def test_nothing_changes_when_work_is_left_out(
    client: Client, result: DlpeResult, study: Path
) -> None:
    whole = client.run("dlpe", study, skip=False)
    assert_same(result, whole)
    assert whole.counts["passes"] == whole.counts["published_passes"] == 8 * 3 * 64
    assert result.counts["published_passes"] == whole.counts["passes"]
    assert result.counts["passes"] < 0.95 * whole.counts["passes"]


@pytest.fixture(scope="module")
def padded(study: Path) -> Normalised:
    """The phantom in the middle of a larger field: sides differ, and much is constant."""
    ready = read_normalised(study)
    voxels = np.full((64, 80, 112), 0.375, np.float32)
    voxels[:, 8:72, 24:88] = ready.voxels
    space = dataclasses.replace(ready.space, shape=voxels.shape)
    return dataclasses.replace(ready, voxels=voxels, space=space)


@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_constant_slices_are_computed_once(client: Client, padded: Normalised, mode: str) -> None:
    found = client.run("dlpe", padded, mode=mode)
    whole = client.run("dlpe", padded, mode=mode, skip=False, slab_slices=11, slabs_in_flight=2)
    assert_same(found, whole)
    assert whole.counts["passes"] == 8 * (64 + 80 + 112)
    assert found.counts["passes"] < 0.8 * whole.counts["passes"]
    assert whole.counts["most_in_flight"] <= 2


def test_sums_are_the_same_when_work_is_left_out(client: Client, padded: Normalised) -> None:
    lung = np.zeros(padded.voxels.shape, np.uint8)
    lung[10:50, 20:60, 50:90] = 1
    names = [f"{tree}_high_{kind}" for tree in ("airway", "vessel")
             for kind in ("recall", "precision")]  # fmt: skip
    channels = dict.fromkeys(names, lung)
    box = extent(lung)
    for within in (None, lung):
        stage = stages.stage_two(padded.voxels, channels, within)
        ledgers = Ledger(), Ledger()
        some = three_views(stage, How(0, 4, skip=True), ledgers[0], client.calls())
        every = three_views(stage, ALL, ledgers[1], client.calls())
        for name, total in every.items():
            kept = np.s_[:] if within is None else box
            np.testing.assert_array_equal(some[name][kept], total[kept])
        assert ledgers[0].passes < ledgers[1].passes == stage.passes


def test_trees_in_the_lungs_only(client: Client, result: DlpeResult, study: Path) -> None:
    found = client.run("dlpe", study, lung_only_trees=True)
    assert found.enhancement is not None
    assert result.enhancement is not None
    np.testing.assert_array_equal(found.enhancement.volume, result.enhancement.volume)
    box = extent(result.masks["lung"])
    assert box is not None
    for name in ("airway", "vessel"):
        np.testing.assert_array_equal(found.masks[name][box], result.masks[name][box])
        assert found.masks[name].sum() == found.masks[name][box].sum()
    assert result.masks["airway"].sum() > found.masks["airway"].sum()
    assert found.counts["passes"] < result.counts["passes"]
    assert any("left out" in note for note in found.notes)


def test_grpc_and_shared_memory_give_the_same(
    dlpe_server: TritonServer, result: DlpeResult, study: Path
) -> None:
    with Client(dlpe_server.grpc_url, transport="grpc") as client:
        found = client.run("dlpe", study, slab_slices=9)
    assert (found.transport, result.transport) == ("grpc", "shm")
    assert_same(found, result)


def test_async_client_gives_the_same_and_reports_progress(
    dlpe_server: TritonServer, result: DlpeResult, study: Path
) -> None:
    told: list[Progress] = []

    async def run() -> DlpeResult:
        async with AsyncClient(dlpe_server.grpc_url) as client:
            client.on_progress = told.append
            return await client.run("dlpe", study)

    assert_same(asyncio.run(run()), result)
    assert list(dict.fromkeys(t.stage for t in told)) == [
        "stage one", "stage two", "lesions", "visible lesions",
    ]  # fmt: skip
    for stage in {t.stage for t in told}:
        steps = [t for t in told if t.stage == stage]
        assert max(t.done for t in steps) == steps[-1].done == steps[-1].total == 192
        assert len(steps) > 2


def test_counts_add_up(result: DlpeResult) -> None:
    counts = result.counts
    assert 1 < counts["most_in_flight"] <= 4
    assert counts["bytes_received"] == 4 * 64 * 64 * counts["passes"]
    assert counts["slabs"] >= 4 * 3 * 2
    assert {"normalise", "stage_one", "ranks", "stage_two", "enhancement"} < set(result.timings)


def test_corrected_lesions_lie_in_parenchyma(client: Client, study: Path) -> None:
    found = client.run("dlpe", study, mode="corrected")
    assert found.enhancement is not None
    masks = found.masks
    allowed = masks["lung"] & (1 - masks["airway"]) & (1 - masks["vessel"])
    stage = stages.lesions(found.enhancement.volume, ("follow_up", "in_patient"), None)
    sums = three_views(stage, ALL, Ledger(), client.calls())
    for name, total in sums.items():
        free = positive(total, catalog.POSITIVE)
        assert (free & (1 - allowed)).any()
        np.testing.assert_array_equal(masks[name], free & allowed)
    assert found.enhancement.outside_lung == 0


def test_heart_and_roots(client: Client, study: Path) -> None:
    found = client.run("dlpe", study, roots=True, cohort="earlier")
    whole = client.run("dlpe", study, roots=True, cohort="earlier", skip=False)
    assert_same(found, whole)
    heart, lung = found.masks["heart"], found.masks["lung"]
    volume = read_normalised(study).voxels
    stage = Stage(title="heart", variants=(Variant.single("heart"),), volume=volume)
    total = three_views(stage, ALL, Ledger(), client.calls())["heart"]
    np.testing.assert_array_equal(heart, total > np.float32(2.3))
    assert 0 < heart.sum() < lung.size / 2
    artery, vein = found.masks["artery"], found.masks["vein"]
    assert artery.any()
    assert vein.any()
    assert not (artery & vein).any()
    assert not ((artery | vein) & lung).any()
    assert "lesion" in found.masks
    assert whole.counts["passes"] == (3 + 1 + 2 + 1 + 1 + 1) * 192


def test_no_lung_is_reported(client: Client, study: Path) -> None:
    ready = read_normalised(study)
    water = dataclasses.replace(ready, voxels=np.full((64, 64, 64), 0.375, np.float32))
    found = client.run("dlpe", water)
    assert found.status == "no_lung"
    assert found.enhancement is None
    assert set(found.masks) == {"lung"}
    assert any("check that this is a CT of the chest" in note for note in found.notes)
    assert found.counts["passes"] < 100  # all slices but those near the ends are the same
    json.dumps(found.report(), allow_nan=False)


def test_what_its_networks_were_not_made_for_is_a_flag(client: Client, tmp_path: Path) -> None:
    for path in write_dicom_series(chest_ct(2, slices=20, size=48).volume, tmp_path):
        dataset = pydicom.dcmread(path)
        dataset.ConvolutionKernel, dataset.ContrastBolusAgent = "B70f", "Iohexol"
        dataset.save_as(path)
    found = client.run("dlpe", tmp_path, grid=64, quantities=False)
    assert found.flags[-2:] == ("sharp_kernel", "contrast_agent")
    assert not any("Iohexol" in note for note in found.notes)


def test_no_heart_is_reported(client: Client, study: Path) -> None:
    ready = read_normalised(study)
    voxels = np.minimum(ready.voxels, -0.1)  # nothing but lung and air
    found = client.run("dlpe", dataclasses.replace(ready, voxels=voxels), roots=True,
                       cohort="none", visible=False)  # fmt: skip
    assert "no_heart" in found.flags
    assert found.enhancement is not None
    assert "artery" not in found.masks


def test_every_lesion_set_is_measured(result: DlpeResult) -> None:
    found = result.quantities
    assert found is not None
    assert set(found.sets) == {"visible", "follow_up", "in_patient", "all", "sub_visual"}
    report = result.report()
    parenchyma = result.masks["lung"] & ~result.masks["airway"] & ~result.masks["vessel"] & 1
    inside = int((result.masks["follow_up"] & parenchyma).sum())
    assert report["lesions"]["follow_up"]["voxels"] == inside
    assert report["severity_reference_hu"] == pytest.approx(report["window_level"], abs=1e-3)
    assert "quantities" in result.timings


def test_measurements_can_be_left_out(client: Client, result: DlpeResult, study: Path) -> None:
    without = client.run("dlpe", study, quantities=False)
    assert_same(without, result)
    assert without.quantities is None
    assert json.dumps(without.report(), allow_nan=False)


def test_follow_up_set_with_surfaces_and_the_published_map(
    client: Client, result: DlpeResult, study: Path, tmp_path: Path
) -> None:
    found = client.run("dlpe", study, preset="follow-up-set", meshes=True, branching="parity")
    lung, visible = found.masks["lung"], found.masks["visible"]
    np.testing.assert_array_equal(lung, result.masks["lung"])
    np.testing.assert_array_equal(visible, result.masks["visible"])
    assert 0 < found.masks["vessel"].sum() < result.masks["vessel"].sum()
    removed = (visible & lung & ~found.masks["vessel"] & ~found.masks["airway"] & 1) > 0
    assert found.enhancement is not None
    plateau = np.clip(-found.enhancement.baseline, -0.05, 0.25)
    np.testing.assert_allclose(found.enhancement.volume[removed], plateau, atol=1e-6)
    files = write(found, tmp_path, note="", pictures=True)
    assert {"follow-up-set/", "meshes/", "lesions.csv", "branching-published.png"} <= set(files)
    report = json.loads(json.dumps(found.report(), allow_nan=False))
    assert all(surface["closed"] for surface in report["surfaces"])
    assert report["published_branching"]["alpha"] > 0


def test_a_batch_goes_on(client: Client, result: DlpeResult, study: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "odd.npy", np.zeros((20, 16, 16), np.float32))
    (tmp_path / "short.npz").write_bytes(study.read_bytes()[:5000])
    sources = [tmp_path / "empty", study, tmp_path / "odd.npy", tmp_path / "short.npz", study]
    outcomes = list(client.run_many("dlpe", sources))
    assert [type(o.error) for o in outcomes] == [
        BadFormat, type(None), BadFormat, Damaged, type(None),
    ]  # fmt: skip
    assert "16" in str(outcomes[2].error)
    for outcome in outcomes:
        if outcome.result is not None:
            assert_same(outcome.result, result)


@pytest.mark.load
def test_half_precision_meets_the_acceptance(result: DlpeResult, golden: Path, study: Path) -> None:
    made = exports.cached(
        "dlpe-fp16", lambda folder: dlpe_networks.export_pipeline(folder, golden, "fp16")
    )
    repository = made / "repository"
    models = stages.models(Options())
    with (
        TritonServer(repository, models=models, grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        assert client.model("dlpe_stage1_x").inputs["slab"].dtype == "FP16"
        half = client.run("dlpe", study)
    for name, mask in result.masks.items():
        other = half.masks[name]
        dice = 2 * np.count_nonzero(mask & other) / (int(mask.sum()) + int(other.sum()))
        assert dice > (0.995 if name == "lung" else 0.99), name
    assert not all(np.array_equal(half.masks[name], mask) for name, mask in result.masks.items())
    assert half.window is not None
    assert result.window is not None
    assert abs(half.window[0] - result.window[0]) <= 1
