"""lungmask from files to labels through the real server, with an analytic lung network."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import onnxruntime
import pytest
from commands import report_of, written_in
from ct_studies import mirrored, write_nifti
from PIL import Image

from hilum.catalog.errors import InputError
from hilum.catalog.lungmask import LEFT, RIGHT
from hilum.client import AsyncClient, Client
from hilum.postprocessing.lungmask import lungs_of_volume, uncrop
from hilum.preprocessing.lungmask import normalise, prepare_slice
from hilum.preprocessing.phantoms.ct import CtPhantom, chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.volume import Volume
from hilum.server.launcher import TritonServer
from hilum.systems.lungmask.files import write
from hilum.systems.lungmask.result import LungmaskResult


@pytest.fixture(scope="module")
def client(ct_server: TritonServer) -> Iterator[Client]:
    with Client(ct_server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def phantom() -> CtPhantom:
    return chest_ct(5, slices=24, size=160, lesions=0)


@pytest.fixture(scope="module")
def dicom(phantom: CtPhantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom")
    write_dicom_series(phantom.volume, folder)
    return folder


@pytest.fixture(scope="module")
def result(client: Client, dicom: Path) -> Any:
    return client.run("lungmask", dicom)


def test_lungs_of_a_phantom_are_found_on_their_sides(result: Any, phantom: CtPhantom) -> None:
    for label in (RIGHT, LEFT):
        found, truth = result.lung == label, phantom.lung == label
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        assert dice > 0.9, (label, dice)
    assert result.status == "ok"
    report = result.report()
    ml = phantom.volume.geometry.voxel_ml
    for side, label, name in (("right", RIGHT, "right lung"), ("left", LEFT, "left lung")):
        count = int((result.lung == label).sum())
        assert report["voxels"][name] == count
        assert report["volumes_ml"][side] == pytest.approx(count * ml, abs=1e-3)
    assert sum(report["voxels"].values()) == phantom.lung.size


def test_labels_are_those_of_the_same_steps_done_here(
    result: Any, phantom: CtPhantom, ct_cores: dict[str, Path], client: Client
) -> None:
    session = onnxruntime.InferenceSession(ct_cores["r231"])
    crops, boxes = zip(*(prepare_slice(s) for s in phantom.volume.voxels), strict=True)
    (scores,) = session.run(None, {"x": np.stack([normalise(c) for c in crops])[:, None]})
    labels = np.asarray(scores).argmax(1).astype(np.uint8)
    plane = phantom.lung.shape[1:]
    np.testing.assert_array_equal(result.lung, lungs_of_volume(labels, boxes, plane))
    raw = client.run("lungmask", phantom.volume, clean=False)
    np.testing.assert_array_equal(raw.lung, uncrop(labels, boxes, plane))
    assert (raw.lung != result.lung).any()


def test_dicom_and_both_orientations_of_nifti_agree(
    client: Client, result: Any, phantom: CtPhantom, tmp_path: Path
) -> None:
    truth = _world(write_nifti(Volume(result.lung, phantom.volume.geometry), tmp_path / "t.nii",
                               "LPS"))  # fmt: skip
    (file,) = write(result, tmp_path, note="", pictures=False)
    np.testing.assert_array_equal(_world(tmp_path / file)[0], truth[0])
    for orientation in ("LPS", "RAS", "PIR"):
        path = write_nifti(phantom.volume, tmp_path / f"{orientation}.nii.gz", orientation)
        found = client.run("lungmask", path)
        np.testing.assert_array_equal(found.lung, result.lung)
        (file,) = write(found, tmp_path, note="", pictures=False)
        written, source = nibabel.load(tmp_path / file), nibabel.load(path)
        assert written.shape == source.shape
        assert written.get_data_dtype() == np.uint8
        np.testing.assert_allclose(written.affine, source.affine, atol=1e-4)
        np.testing.assert_allclose(written.get_qform(), written.get_sform(), atol=1e-3)
        labels, affine = _world(tmp_path / file)
        np.testing.assert_array_equal(labels, truth[0])
        np.testing.assert_allclose(affine, truth[1], atol=1e-3)


def _world(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels and affine of a NIfTI file brought to the canonical order."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asarray(image.dataobj), image.affine


def test_mirrored_patient_has_mirrored_lungs(
    client: Client, result: Any, phantom: CtPhantom
) -> None:
    found = client.run("lungmask", mirrored(phantom.volume))
    swapped = np.array([0, LEFT, RIGHT], np.uint8)[result.lung[:, :, ::-1]]
    assert (found.lung == swapped).mean() > 0.995
    assert abs(found.volumes_ml[0] / result.volumes_ml[1] - 1) < 0.02
    assert abs(found.volumes_ml[0] / result.volumes_ml[0] - 1) > 0.03  # the lungs differ in size


def test_arrays_bytes_and_volumes_give_the_same(
    client: Client, result: Any, phantom: CtPhantom, tmp_path: Path
) -> None:
    path = write_nifti(phantom.volume, tmp_path / "x.nii.gz", "RAS")
    for source in (phantom.volume, phantom.volume.voxels, path.read_bytes(), str(path)):
        found = client.run("lungmask", source)
        np.testing.assert_array_equal(found.lung, result.lung)
    assert any("1 mm" in n for n in client.run("lungmask", phantom.volume.voxels).notes)


def test_slices_are_batched_on_the_server_and_reported(
    ct_server: TritonServer, phantom: CtPhantom
) -> None:
    with Client(ct_server.grpc_url) as client:
        for _ in range(5):  # a client that is kept waiting by other work gives nothing to batch
            told = []
            client.on_progress = told.append
            before = client.statistics("lungmask_r231")
            client.run("lungmask", phantom.volume, slices_in_flight=16)
            after = client.statistics("lungmask_r231")
            assert after.inferences - before.inferences == len(phantom.lung)
            if after.executions - before.executions < len(phantom.lung):
                break
        else:
            raise AssertionError("each slice was computed alone")
    assert {(t.stage, t.total) for t in told} == {("slices", len(phantom.lung))}
    assert sorted(t.done for t in told) == list(range(1, len(phantom.lung) + 1))


def test_async_client_gives_the_same(ct_server: TritonServer, result: Any, dicom: Path) -> None:
    async def run() -> Any:
        async with AsyncClient(ct_server.grpc_url) as client:
            return await client.run("lungmask", dicom, slices_in_flight=3)

    found = asyncio.run(run())
    assert found.report() == result.report()
    np.testing.assert_array_equal(found.lung, result.lung)


def test_command_writes_labels_pictures_and_report(
    ct_server: TritonServer, dicom: Path, result: Any, tmp_path: Path
) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hilum"), "run", "lungmask", dicom, "--out", tmp_path,
         "--url", ct_server.grpc_url, "--save-arrays"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (entry,) = report_of(tmp_path)["results"]
    assert set(entry["files"]) == {"0001/lung.nii.gz", "0001/lung.png", "0001/arrays.npz"}
    assert written_in(tmp_path) == set(entry["files"])
    assert entry["volumes_ml"] == result.report()["volumes_ml"]
    with np.load(tmp_path / "0001" / "arrays.npz") as arrays:
        np.testing.assert_array_equal(arrays["lung"], result.lung)
    picture = np.asarray(Image.open(tmp_path / "0001" / "lung.png").convert("RGB"))
    for colour in ((0, 229, 255), (255, 148, 72)):  # both lungs are outlined
        assert (picture == colour).all(2).sum() > 500


def test_nothing_and_no_hounsfield_units_are_reported(client: Client, tmp_path: Path) -> None:
    air = client.run("lungmask", np.full((3, 64, 64), -1000, np.int16))
    assert air.flags == ("doubtful_hu", "no_lung")
    assert air.volumes_ml == (0, 0)
    assert write(air, tmp_path, note="RANDOM WEIGHTS") == ["lung.nii.gz", "lung.png"]
    grey = np.random.default_rng(0).integers(0, 255, (2, 64, 64)).astype(np.uint8)
    assert "doubtful_hu" in client.run("lungmask", grey).flags


def test_missing_slices_are_a_flag(client: Client, phantom: CtPhantom, tmp_path: Path) -> None:
    paths = write_dicom_series(phantom.volume, tmp_path)
    for path in paths[10:12]:
        path.unlink()
    found = client.run("lungmask", tmp_path)
    assert {"gaps", "uneven_slices"} <= set(found.flags)
    assert any("volumes hold what is interpolated there" in note for note in found.notes)


def test_bad_studies_are_refused(
    client: Client, phantom: CtPhantom, dicom: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    whole = write_nifti(phantom.volume, tmp_path / "x.nii", "RAS").read_bytes()
    (tmp_path / "short.nii").write_bytes(whole[: len(whole) // 2])
    mixed = tmp_path / "mixed"
    for number in (1, 2):
        write_dicom_series(phantom.volume, mixed, series_number=number)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "slice.png")
    for source, message in (
        (tmp_path / "none", "no such file"),
        (tmp_path / "notes.txt", "no DICOM"),
        (tmp_path / "short.nii", "truncated"),
        (tmp_path / "slice.png", "Hounsfield"),
        (mixed, "2 CT series have equal claims"),
        (np.zeros((2, 3, 4, 5)), "no CT"),
        (np.full((2, 8, 8), np.nan), "no numbers"),
        (b"text", "damaged"),
    ):
        with pytest.raises(InputError, match=message):
            client.run("lungmask", source)
    found = client.run("lungmask", mixed, series="2")
    assert any("one of 2 series" in n for n in found.notes)
    with pytest.raises(InputError, match="slices in flight"):
        client.run("lungmask", dicom, slices_in_flight=0)


def test_folders_stand_for_their_studies(dicom: Path, phantom: CtPhantom, tmp_path: Path) -> None:
    from hilum.client.registry import INSTALLED

    root = tmp_path / "studies"
    for name in ("b", "a"):
        write_dicom_series(phantom.volume, root / name / "axial")
    write_nifti(phantom.volume, root / "c.nii.gz", "RAS")
    (root / ".hidden").mkdir()
    (root / "a" / "notes.txt").write_text("nothing")
    found = INSTALLED["lungmask"].find(root)
    assert found == [root / "c.nii.gz", root / "a" / "axial", root / "b" / "axial"]


@pytest.mark.parametrize("study", ["tcia-lung-pet-ct-dx/A0002_8mm_B40f", "lungmask-tests"])
def test_real_series(client: Client, shared: Path, study: str) -> None:
    result = client.run("lungmask", shared / "data" / study, slices_in_flight=8)
    right, left = result.volumes_ml
    assert result.status == "ok"
    assert 0.4 < right / (right + left) < 0.75
    if len(result.series) > 2:
        assert 1500 < right + left < 8000
    middle = result.lung.shape[2] // 2
    for label, half in ((RIGHT, np.s_[..., :middle]), (LEFT, np.s_[..., middle:])):
        assert (result.lung[half] == label).sum() > 0.9 * (result.lung == label).sum()


def test_real_single_slices(client: Client, shared: Path) -> None:
    files = sorted((shared / "data" / "tcia-covid-19-ny-sbu").rglob("*.dcm"))
    files += sorted((shared / "data" / "ct-densenet-samples").glob("*.nii"))
    assert len(files) == 22
    outcomes = list(client.run_many("lungmask", files, in_flight=4))
    assert [o.error for o in outcomes] == [None] * len(files)
    assert sum(o.result.lung.any() for o in outcomes if o.result) >= 13


def test_a_result_pickles_and_shows_itself(result: LungmaskResult) -> None:
    found = pickle.loads(pickle.dumps(result))
    assert found.report() == result.report()
    assert "data:image/png;base64," in found._repr_html_()
