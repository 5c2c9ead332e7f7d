"""DLPE through the real server with the networks of the golden files."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dlpe_networks
import numpy as np
import pytest
from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InputError
from hilum.client import AsyncClient, Client
from hilum.client.models import read_model
from hilum.client.pipelines import dlpe_stages as stages
from hilum.client.pipelines.dlpe import Dlpe
from hilum.client.pipelines.dlpe_ledger import Ledger
from hilum.client.pipelines.dlpe_options import Options
from hilum.client.pipelines.dlpe_result import DlpeResult
from hilum.client.pipelines.dlpe_views import How, Stage, Variant, three_views
from hilum.client.steps import Tell
from hilum.postprocessing import ranks
from hilum.postprocessing.extent import extent
from hilum.postprocessing.three_way import combine, positive
from hilum.preprocessing.dlpe_space import Normalised, read_normalised
from hilum.preprocessing.phantom_ct import chest_ct
from hilum.preprocessing.slabs import Slab, cut, slices_first
from hilum.preprocessing.volume import Volume
from hilum.server.launcher import TritonServer
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

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
    assert result.status == "ok"
    assert any("normalised" in note for note in result.notes)
    assert result.source == "normalised volume of 64 × 64 × 64"
    voxel_ml = 334 * 334 * 512 / 64**3 / 1000
    assert result.volumes_ml["lung"] == pytest.approx(expected["lung"].sum() * voxel_ml)
    json.dumps(result.report(), allow_nan=False)


def test_golden_sums_and_thresholds(client: Client, expected: Golden, study: Path) -> None:
    volume = read_normalised(study).voxels
    at = tuple(expected["sample_idx"].T)
    first = client.drive(three_views(stages.stage_one(volume, heart=False), ALL, Ledger()))
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
    second = client.drive(three_views(stages.stage_two(volume, channels, None), ALL, Ledger()))
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
        some = client.drive(three_views(stage, How(0, 4, skip=True), ledgers[0]))
        every = client.drive(three_views(stage, ALL, ledgers[1]))
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


def test_async_client_gives_the_same_and_tells_of_progress(
    dlpe_server: TritonServer, result: DlpeResult, study: Path
) -> None:
    told: list[Tell] = []

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
    sums = client.drive(three_views(stage, ALL, Ledger()))
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
    total = client.drive(three_views(stage, ALL, Ledger()))["heart"]
    np.testing.assert_array_equal(heart, total > np.float32(2.3))
    assert 0 < heart.sum() < lung.size / 2
    artery, vein = found.masks["artery"], found.masks["vein"]
    assert artery.any()
    assert vein.any()
    assert not (artery & vein).any()
    assert not ((artery | vein) & lung).any()
    assert "lesion" in found.masks
    assert whole.counts["passes"] == (3 + 1 + 2 + 1 + 1 + 1) * 192


def test_no_lung_is_told(client: Client, study: Path) -> None:
    ready = read_normalised(study)
    water = dataclasses.replace(ready, voxels=np.full((64, 64, 64), 0.375, np.float32))
    found = client.run("dlpe", water)
    assert found.status == "no_lung"
    assert found.enhancement is None
    assert set(found.masks) == {"lung"}
    assert any("check that this is a CT of the chest" in note for note in found.notes)
    assert found.counts["passes"] < 100  # all slices but those near the ends are the same
    json.dumps(found.report(), allow_nan=False)


def test_no_heart_is_told(client: Client, study: Path) -> None:
    ready = read_normalised(study)
    voxels = np.minimum(ready.voxels, -0.1)  # nothing but lung and air
    found = client.run("dlpe", dataclasses.replace(ready, voxels=voxels), roots=True,
                       cohort="none", visible=False)  # fmt: skip
    assert "no_heart" in found.flags
    assert found.enhancement is not None
    assert "artery" not in found.masks


def test_a_batch_goes_on(client: Client, result: DlpeResult, study: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "odd.npy", np.zeros((20, 16, 16), np.float32))
    (tmp_path / "short.npz").write_bytes(study.read_bytes()[:5000])
    sources = [tmp_path / "empty", study, tmp_path / "odd.npy", tmp_path / "short.npz", study]
    outcomes = list(client.run_many("dlpe", sources))
    assert [type(o.error) for o in outcomes] == [
        InputError, type(None), InputError, InputError, type(None),
    ]  # fmt: skip
    assert "16" in str(outcomes[2].error)
    for outcome in outcomes:
        if outcome.result is not None:
            assert_same(outcome.result, result)


@pytest.fixture(scope="module")
def phantom() -> Volume:
    return chest_ct(3, slices=60, size=96).volume


@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_a_series_becomes_a_preview(client: Client, phantom: Volume, mode: str) -> None:
    found = client.run("dlpe", phantom, grid=64, mode=mode)
    assert found.preview
    assert found.series is not None
    assert found.normalised.voxels.shape == (64, 64, 64)
    assert found.source == found.series.description
    lung, vessel = found.masks["lung"], found.masks["vessel"]
    rank = int(lung.sum() * catalog.VESSEL.ratio)
    box = ranks.lung_box(lung, (1, 62))
    assert vessel[box].sum() == pytest.approx(rank, abs=3)
    ready = client.run("dlpe", found.normalised, mode=mode, cohort="none", visible=False)
    assert not ready.preview
    np.testing.assert_array_equal(ready.masks["lung"], lung)
    assert ready.masks["vessel"][ranks.lung_box(lung)].sum() == pytest.approx(rank, abs=3)
    assert ready.masks["vessel"].sum() != vessel.sum()


def test_as_many_slabs_are_under_way_as_the_server_has_gpus_for() -> None:
    metadata = service_pb2.ModelMetadataResponse(name="dlpe_lung_x")

    def at(in_flight: int = 0, **group: object) -> How:
        config = model_config_pb2.ModelConfig(instance_group=[ModelInstanceGroup(**group)])
        network = read_model(metadata, service_pb2.ModelConfigResponse(config=config))
        return How(0, in_flight, skip=True).at(network)

    gpu = ModelInstanceGroup.KIND_GPU
    assert at(kind=ModelInstanceGroup.KIND_CPU).in_flight == 4
    assert at(kind=gpu, gpus=[0]).in_flight == 4
    assert at(kind=gpu, gpus=range(8)).in_flight == 16
    assert at(kind=gpu, gpus=range(8), in_flight=3).in_flight == 3


def test_options_are_checked(client: Client, study: Path) -> None:
    for given, words in (
        ({"mode": "upside-down"}, "parity, corrected"),
        ({"cohort": "all"}, "in-patient, follow-up"),
        ({"grid": 100}, "multiple of 16"),
        ({"airway_ratio": -0.1}, "share"),
        ({"slab_slices": 1000}, "slab_slices"),
        ({"slabs_in_flight": -1}, "slabs_in_flight"),
        ({"slice": 64}, "no slice 64"),
        ({"lung_only_trees": True, "refine": True}, "choose one"),
        ({"sampling": "everywhere"}, "upper-frontal"),
        ({"device": "gpu"}, "auto, cpu or cuda:N"),
    ):
        with pytest.raises(InputError, match=words):
            client.run("dlpe", study, **given)


def test_models_are_those_of_the_catalog() -> None:
    declared = {m.model for m in catalog.SYSTEM.models()}
    for options in (Options(), Options(roots=True, cohort="earlier"), Options(cohort="follow-up")):
        assert set(Dlpe().models(options)) <= declared
        assert set(Dlpe().networks(options)) <= {n.model for n in catalog.SYSTEM.networks}
    assert len(Dlpe().networks(Options())) == 24
    assert len(Dlpe().networks(Options(cohort="none", visible=False))) == 15
    assert len(Dlpe().networks(Options(roots=True))) == 30


def test_command(dlpe_server: TritonServer, study: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    done = subprocess.run(
        [Path(sys.executable).with_name("hilum"), "run", "dlpe", study, tmp_path / "bad.npy",
         "--out", tmp_path / "out", "--url", dlpe_server.grpc_url, "--no-pictures",
         "--save-arrays", "--cohort", "in-patient", "--slab-slices", "16"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    first, second = report["results"]
    assert first["status"] == "ok"
    assert second["status"] == "failed"
    assert first["cohort"] == "in-patient"
    assert first["counts"]["passes"] < first["counts"]["published_passes"] == 7 * 192
    assert len(report["weights"]) == 21
    with np.load(tmp_path / "out" / "0001.npz") as arrays:
        assert "in_patient" in arrays
        assert "follow_up" not in arrays


@contextmanager
def three_way_client(golden: Path, folder: Path, precision: str) -> Iterator[Client]:
    repository = dlpe_networks.export_three_way(folder / precision, golden, precision)
    models = [catalog.TASKS["lung"].network(d).model for d in catalog.DIRECTIONS]
    with TritonServer(repository, models=models) as server, Client(server.grpc_url) as client:
        yield client


def summed(client: Client, volume: np.ndarray) -> np.ndarray:
    stage = Stage(title="lung", variants=(Variant.single("lung"),), volume=volume)
    return client.drive(three_views(stage, How(7, 3, skip=True), Ledger()))["lung"]


def test_golden_three_way(golden: Path, tmp_path: Path) -> None:
    with np.load(golden / "dlpe" / "09_three_way.npz") as stored:
        expected = {k: stored[k] for k in stored if not k.startswith("weights")}
    volume = (expected["volume_q1024"] / 1024).astype(np.float32)
    views = []
    with three_way_client(golden, tmp_path, "fp32") as client:
        for direction in catalog.DIRECTIONS:
            count = volume.shape[catalog.DIRECTIONS.index(direction)]
            slab = cut(volume, Slab(direction, 0, count), 5)
            answer = client.infer(f"dlpe_lung_{direction}", {"slab": slab}, ["probability"])
            view = np.empty_like(volume)
            slices_first(view, direction)[:] = answer.outputs["probability"]
            np.testing.assert_allclose(view, expected[f"prob_{direction.upper()}"], atol=1e-4)
            views.append(view)
        total = summed(client, volume)
    np.testing.assert_array_equal(total, combine(*views))
    np.testing.assert_array_equal(positive(total, 2), expected["mask_gt2"])
    np.testing.assert_array_equal(positive(total, 1.5), expected["mask_gt1p5"])
    weights = (1.0, 2.0, 0.0)
    np.testing.assert_array_equal(
        positive(combine(*views, weights), 1.5, weights=weights), expected["weighted_120_mask_1p5"]
    )
    with three_way_client(golden, tmp_path, "fp16") as client:
        assert client.model("dlpe_lung_x").inputs["slab"].dtype == "FP16"
        half = summed(client, volume)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, total, atol=0.05)
    assert (positive(half, 2) == expected["mask_gt2"]).mean() > 0.995


def test_half_precision_meets_the_acceptance(
    result: DlpeResult, golden: Path, study: Path, tmp_path: Path
) -> None:
    repository = dlpe_networks.export_pipeline(tmp_path, golden, "fp16")
    models = stages.models(Options())
    with TritonServer(repository, models=models) as server, Client(server.grpc_url) as client:
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
