"""The CT slice classifier from files to report through the real server, with analytic networks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ct_standins
import nibabel
import numpy as np
import onnxruntime
import pytest
from commands import report_of, written_in
from ct_studies import mirrored, write_nifti
from PIL import Image

from hilum.catalog.errors import InputError
from hilum.client import AsyncClient, Client
from hilum.postprocessing.ct_classifier.gradcam import grad_cam
from hilum.postprocessing.lungmask import lungs_of_volume, masked_image
from hilum.preprocessing.lungmask import prepare_slice
from hilum.preprocessing.phantoms.ct import CtPhantom, chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import Geometry, Volume
from hilum.server.launcher import TritonServer
from hilum.systems.ct_classifier.files import write
from hilum.systems.ct_classifier.scores import Score, Scores

NETWORKS = ("ct_densenet", "ct_densenet_masked", "lungmask_r231")


@pytest.fixture(scope="module")
def client(ct_server: TritonServer) -> Iterator[Client]:
    with Client(ct_server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def phantom() -> CtPhantom:
    """A chest with lesions in the patient's right lung alone."""
    sick, well = chest_ct(3, slices=30, size=160), chest_ct(3, slices=30, size=160, lesions=0)
    voxels = np.array(well.volume.voxels)
    voxels[:, :, :80] = sick.volume.voxels[:, :, :80]
    lesion = sick.lesion.copy()
    lesion[:, :, 80:] = 0
    assert lesion.any()
    volume = Volume(voxels, well.volume.geometry)
    return CtPhantom(volume, well.lung, lesion, well.airway, well.vessel)


@pytest.fixture(scope="module")
def dicom(phantom: CtPhantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom")
    write_dicom_series(phantom.volume, folder)
    return folder


@pytest.fixture(scope="module")
def result(client: Client, dicom: Path) -> Any:
    return client.run("ct-classifier", dicom)


@pytest.fixture(scope="module")
def large() -> np.ndarray:
    """Slices of 512 × 512, through the lungs."""
    return np.array(chest_ct(3, slices=12, size=512, lesions=6).volume.voxels[4:9])


def _answers(session: Any, hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logit and map of the raw HU stand-in for slices [n, 256, 256], in this process."""
    logit, cam = session.run(["logit", "cam_raw"], {"hu": hu[:, None].astype(np.float32)})
    return np.asarray(logit)[:, 0], np.asarray(cam)[:, 0]


def test_slices_are_scored_and_summed_up(
    result: Any, phantom: CtPhantom, ct_cores: dict[str, Path]
) -> None:
    grid = np.arange(256) * 160 // 256
    session = onnxruntime.InferenceSession(ct_cores["raw_hu"])
    logit, cam = _answers(session, phantom.volume.voxels[:, grid][:, :, grid])
    np.testing.assert_allclose([s.logit for s in result.slices], logit, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.cam, cam, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        result.cam.mean((1, 2)) + ct_standins.RAW_BIAS, logit, rtol=1e-4, atol=1e-4
    )
    probability = 1 / (1 + np.exp(-logit))
    report = result.report()
    positive = [s["positive"] for s in report["slices"]]
    assert positive == (probability >= 0.5).tolist()
    assert 2 < sum(positive) < 20
    summary = report["summary"]
    assert summary["positive"] == sum(positive)
    assert summary["maximum"] == pytest.approx(probability.max())
    assert summary["maximum_at"] == probability.argmax()
    assert summary["longest_run"]["length_mm"] == pytest.approx(
        10 * summary["longest_run"]["slices"]
    )
    assert report["patient"] is None
    assert (result.status, result.profile) == ("ok", "raw_hu")
    assert [s["number"] for s in report["slices"]] == list(range(30, 0, -1))


def test_maps_of_other_logits_are_noticed(result: Any) -> None:
    scores = [
        Score(s.probability, s.logit, cam, "grpc")
        for s, cam in zip(result.slices, result.cam, strict=True)
    ]
    assert Scores(scores, None, None).maps_fit
    assert "cam_mismatch" not in result.flags
    swapped = [replace(s, cam=t.cam) for s, t in zip(scores, scores[15:] + scores, strict=False)]
    assert not Scores(swapped, None, None).maps_fit


def test_sides_are_those_of_the_patient(client: Client, result: Any, phantom: CtPhantom) -> None:
    assert result.sides.dominance == "right"
    assert result.sides.share_right > 0.6
    other = client.run("ct-classifier", mirrored(phantom.volume))
    assert other.sides.dominance == "left"
    assert other.sides.share_right == pytest.approx(1 - result.sides.share_right, abs=0.05)
    for one, two in zip(result.slices, other.slices, strict=True):
        if one.positive:
            assert two.logit == pytest.approx(one.logit, abs=0.5)
    for part in (result.sides, other.sides):
        assert sum(part.shells_right) == pytest.approx(part.right)
        assert sum(part.shells_left) == pytest.approx(part.left)


def test_dicom_and_both_orientations_of_nifti_agree(
    client: Client, result: Any, phantom: CtPhantom, tmp_path: Path
) -> None:
    want = result.report()
    for orientation in ("LPS", "RAS", "LAI"):
        path = write_nifti(phantom.volume, tmp_path / f"{orientation}.nii", orientation)
        found = client.run("ct-classifier", path)
        np.testing.assert_array_equal(found.cam, result.cam)
        np.testing.assert_array_equal(found.lung, result.lung)
        assert found.report()["laterality"] == want["laterality"]
        assert [s.probability for s in found.slices] == [s.probability for s in result.slices]


def test_masked_ensemble_does_what_its_steps_do(client: Client, large: np.ndarray) -> None:
    found = client.run("ct-classifier", large, profile="masked")
    assert found.lung_source == "slice"
    for index, hu in enumerate(large):
        crop, box = prepare_slice(hu)
        answer = client.infer("lungmask_r231", {"hu": crop[None]}, ["label"])
        lung = lungs_of_volume(answer.outputs["label"], [box], (512, 512))[0]
        np.testing.assert_array_equal(found.lung[index], lung)
        image = masked_image(hu, lung)
        out = client.infer("ct_densenet_masked", {"image": image[None]}, ["logit", "cam"]).outputs
        assert found.slices[index].logit == pytest.approx(float(out["logit"][0, 0]), abs=1e-5)
        np.testing.assert_allclose(found.cam[index], out["cam"][0], rtol=1e-5, atol=1e-6)


def test_masked_slices_of_another_size_and_modes(client: Client, phantom: CtPhantom) -> None:
    parity = client.run("ct-classifier", phantom.volume, profile="masked")
    corrected = client.run("ct-classifier", phantom.volume, profile="masked", mode="corrected")
    assert (parity.lung_source, corrected.lung_source) == ("slice", "series")
    whole = client.run("lungmask", phantom.volume)
    np.testing.assert_array_equal(corrected.lung, whole.lung)
    assert (parity.lung != corrected.lung).any()
    single = [
        client.run("ct-classifier", phantom.volume.voxels[15], profile="masked", mode=mode)
        for mode in ("parity", "corrected")
    ]
    assert single[0].slices[0].logit == single[1].slices[0].logit
    blind = [s for s in parity.slices if s.lung_share < 0.01]
    assert blind
    assert any(f"{len(blind)} slice(s) with less than 1% lung" in n for n in parity.notes)


def test_empty_mask_is_reported(client: Client, tmp_path: Path) -> None:
    air = client.run("ct-classifier", np.full((1, 512, 512), -1000, np.int16), profile="masked")
    assert air.flags == ("doubtful_hu", "no_lung")
    assert air.slices[0].lung_share == 0
    write(air, tmp_path, note="")
    picture = np.asarray(Image.open(tmp_path / "heat.png").convert("RGB"))
    assert (picture == (255, 193, 7)).all(2).sum() > 10_000  # the banner


@pytest.mark.parametrize("profile", ["raw_hu", "masked"])
def test_profiles_are_never_mixed(client: Client, large: np.ndarray, profile: str) -> None:
    before = {m: client.statistics(m).inferences for m in NETWORKS}
    client.run("ct-classifier", large[:2], profile=profile)
    ran = {m: client.statistics(m).inferences - before[m] for m in NETWORKS}
    masked = 2 if profile == "masked" else 0
    assert ran == {"ct_densenet": 2 - masked, "ct_densenet_masked": masked, "lungmask_r231": 2}


def test_slices_are_batched_on_the_server(client: Client, large: np.ndarray) -> None:
    """Triton joins what waits during an execution; a slow client may leave nothing waiting."""
    many = np.concatenate([large] * 6)
    for _ in range(10):
        before = client.statistics("ct_densenet")
        found = client.run("ct-classifier", many, laterality=False, slices_in_flight=16)
        after = client.statistics("ct_densenet")
        assert after.inferences - before.inferences == len(many)
        assert found.lung is None
        logits = np.reshape([s.logit for s in found.slices], (6, -1))
        assert np.ptp(logits, axis=0).max() < 1e-5
        if after.executions - before.executions < len(many):
            return
    pytest.fail("ten runs with 16 slices in flight, and never two in one execution")


def test_server_without_lungs_gives_no_sides(ct_repository: Path, large: np.ndarray) -> None:
    with (
        TritonServer(ct_repository, models=["ct_densenet"], grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        found = client.run("ct-classifier", large[:1])
    assert found.sides is None
    assert any("does not serve lungmask_r231" in note for note in found.notes)
    assert found.report()["lungs_from"] is None


def test_runs_end_at_gaps_and_verdict_is_asked_for(
    client: Client, result: Any, phantom: CtPhantom, tmp_path: Path
) -> None:
    first, last = result.summary.longest_run
    gap = (first + last) // 2
    for path in write_dicom_series(phantom.volume, tmp_path):
        if open_series(path).numbers == (30 - gap,):
            path.unlink()
    found = client.run("ct-classifier", tmp_path, verdict_run=last - first)
    assert found.breaks == (gap - 1,)
    assert found.summary.longest_run_slices < last - first
    assert found.patient_positive is False
    assert any("runs end there" in n for n in found.notes)
    assert "gaps" in found.flags
    whole = client.run("ct-classifier", phantom.volume, verdict_run=last - first)
    assert whole.report()["patient"]["positive"] is True
    strict = client.run("ct-classifier", phantom.volume, threshold=0.999)
    assert strict.summary.positive == 0
    assert strict.sides.dominance == "free"


def test_padding_becomes_air_and_is_reported(client: Client, large: np.ndarray) -> None:
    clean = large[:1].copy()
    clean[:, :40] = -1024
    padded = clean.copy()
    padded[:, :40] = -3024
    a, b = (client.run("ct-classifier", x) for x in (clean, padded))
    assert a.slices[0].logit == b.slices[0].logit
    assert any("below −1024 HU in 1 slice(s)" in n for n in b.notes)
    assert not any("below" in n for n in a.notes)


def test_async_client_gives_the_same(ct_server: TritonServer, dicom: Path, result: Any) -> None:
    async def run() -> Any:
        async with AsyncClient(ct_server.grpc_url) as client:
            return await client.run("ct-classifier", dicom, slices_in_flight=2)

    found = asyncio.run(run())
    assert found.report() == result.report()


def test_command_writes_pictures_arrays_and_report(
    ct_server: TritonServer, dicom: Path, result: Any, tmp_path: Path
) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hilum"), "run", "ct-classifier", dicom, "--out", tmp_path,
         "--url", ct_server.grpc_url, "--save-arrays"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path)
    assert [w["network"] for w in report["weights"]] == ["raw_hu", "r231"]
    (entry,) = report["results"]
    assert entry["files"] == ["0001/heat.png", "0001/curve.png", "0001/arrays.npz"]
    assert written_in(tmp_path) == set(entry["files"])
    assert entry["slices"] == result.report()["slices"]
    with np.load(tmp_path / "0001" / "arrays.npz") as arrays:
        assert set(arrays) == {"probability", "gradcam", "lung"}
        np.testing.assert_array_equal(arrays["gradcam"], grad_cam(result.cam))
        np.testing.assert_array_equal(arrays["lung"], result.lung)
        assert arrays["probability"].shape == (30,)
    heat = np.asarray(Image.open(tmp_path / "0001" / "heat.png").convert("HSV"))
    assert (heat[:, :, 1] > 100).mean() > 0.05  # there is colour
    assert Image.open(tmp_path / "0001" / "curve.png").width > 1000


def test_negative_slices_get_no_heat(client: Client, large: np.ndarray, tmp_path: Path) -> None:
    found = client.run("ct-classifier", large[:1], threshold=0.9999, laterality=False)
    write(found, tmp_path, note="")
    picture = np.asarray(Image.open(tmp_path / "heat.png").convert("HSV"))
    assert (picture[100:700, 40:700, 1] > 60).mean() < 0.001


def test_bad_studies_are_refused(client: Client, phantom: CtPhantom, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((512, 512), np.uint8)).save(tmp_path / "slice.png")
    geometry = phantom.volume.geometry
    thin = Geometry((3, *geometry.shape[1:]), geometry.origin, geometry.spacing, geometry.direction)
    for number in (1, 2):
        write_dicom_series(
            Volume(phantom.volume.voxels[:3], thin), tmp_path / "mixed", series_number=number
        )
    with pytest.raises(InputError, match="profile masked"):
        client.run("ct-classifier", tmp_path / "slice.png")
    with pytest.raises(InputError, match="equal claims"):
        client.run("ct-classifier", tmp_path / "mixed")
    for given, message in (
        ({"profile": "raw"}, r"'raw'.*raw_hu, masked"),
        ({"threshold": 1.0}, "not between 0 and 1"),
        ({"verdict_run": 0}, "give 1 or more"),
        ({"mode": "exact"}, "parity or corrected"),
    ):
        with pytest.raises(InputError, match=message):
            client.run("ct-classifier", phantom.volume, **given)


def test_real_slices_are_read_as_published(
    client: Client, shared: Path, ct_cores: dict[str, Path]
) -> None:
    session = onnxruntime.InferenceSession(ct_cores["raw_hu"])
    for path in sorted((shared / "data/ct-densenet-samples").glob("*.nii")):
        # The files are in LPS order: column 0 is on the patient's right.
        plane = np.asarray(nibabel.load(path).dataobj)[:, :, 0].T
        logit, cam = _answers(session, plane[None, ::2, ::2])
        found = client.run("ct-classifier", path)
        assert found.slices[0].logit == pytest.approx(float(logit[0]), abs=1e-5)
        np.testing.assert_allclose(found.cam, cam, rtol=1e-5, atol=1e-6)
        assert found.sides is not None


def test_ready_masked_pictures_go_straight_to_their_network(client: Client, shared: Path) -> None:
    files = sorted((shared / "data/ct-densenet-samples/png_gen1_segmented").glob("*.png"))
    assert len(files) == 2
    for path in files:
        pixels = np.asarray(Image.open(path).convert("RGB"))[1::2, 1::2, 0]
        answer = client.infer(
            "ct_densenet_masked", {"image": np.ascontiguousarray(pixels)[None]}, ["probability"]
        )
        found = client.run("ct-classifier", path, profile="masked")
        assert found.slices[0].probability == float(answer.outputs["probability"][0, 0])
        assert found.sides is None
        assert found.report()["slices"][0]["position_mm"] is None


def test_real_series_and_single_slices(client: Client, shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    files = sorted((data / "tcia-covid-19-ny-sbu").rglob("*.dcm"))
    assert len(files) == 20
    studies = [data / "tcia-lung-pet-ct-dx/A0002_8mm_B40f", data / "lungmask-tests", *files]
    outcomes = list(client.run_many("ct-classifier", studies, in_flight=3))
    assert [o.error for o in outcomes] == [None] * len(studies)
    assert len(outcomes[0].result.slices) == 30
    assert any("below −1024" in n for o in outcomes for n in o.result.notes)
    assert len(write(outcomes[0].result, tmp_path, note="")) == 2
    masked = client.run("ct-classifier", files[0], profile="masked")
    assert masked.lung_source == "slice"
