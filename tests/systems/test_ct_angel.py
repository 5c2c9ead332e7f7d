"""CT-Angel from files to boxes and a decision, through the real server with analytic stand-ins."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
from angel_slices import SIDE, assert_same, constructed, expected, standin

from hilum.catalog import ct_angel as ct
from hilum.catalog.errors import InputError
from hilum.client import AsyncClient, Client
from hilum.postprocessing.ct_angel.boxes import BoxRules
from hilum.preprocessing.phantoms.ct import CtPhantom
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import Volume
from hilum.preprocessing.windows import ct_angel_window, jpeg_roundtrip
from hilum.server.launcher import TritonServer
from hilum.systems.ct_angel.result import CtAngelResult
from hilum.systems.ct_angel.system import Options


@pytest.fixture(scope="module", params=["grpc", "shm"])
def client(request: pytest.FixtureRequest, angel_server: TritonServer) -> Iterator[Client]:
    with Client(angel_server.grpc_url, transport=request.param) as client:
        yield client


@pytest.fixture(scope="module")
def shm_client(angel_server: TritonServer) -> Iterator[Client]:
    with Client(angel_server.grpc_url) as client:
        yield client


def test_a_series_gives_what_its_voxels_give(
    client: Client, angel_phantom: CtPhantom, angel_series: Path
) -> None:
    result = client.run("ct-angel", angel_series, mode="corrected")
    assert len(result.slices) == 30
    for k, found in enumerate(result.slices):
        grey = ct_angel_window(angel_phantom.volume.voxels[k], ct.WINDOWS["doc"])
        assert_same(found, expected(grey))
        assert (found.index, found.number) == (k, 30 - k)
        for box in found.boxes:
            x, y, w, h = box.box_original
            assert angel_phantom.lesion[k, y : y + h, x : x + w].any()
    assert sum(s.positive for s in result.slices) >= 5
    assert result.positive
    assert {s.transport for s in result.slices} == {client.options.transport}
    report = result.report()
    json.dumps(report, allow_nan=False)
    assert report["window"] == {"preset": "doc", "width": 1200, "level": -700}
    assert report["status"] == "wide_spacing"
    assert any("10.00 mm apart" in note for note in report["notes"])
    (first, *_) = report["runs"]
    assert first["length_mm"] == pytest.approx(10.0 * first["slices"])
    assert first["slices"] == first["last"] - first["first"] + 1
    flagged = [s["slice"] for s in report["slices"] if first["quadrant"] in s["quadrants"]]
    assert set(range(first["first"], first["last"] + 1)) <= set(flagged)


def test_parity_is_the_published_program(shm_client: Client, angel_phantom: CtPhantom) -> None:
    result = shm_client.run("ct-angel", angel_phantom.volume, mode="parity", heat=True)
    rules = BoxRules(parity=True, valid_mode="off")
    for k, found in enumerate(result.slices):
        grey = jpeg_roundtrip(ct_angel_window(angel_phantom.volume.voxels[k], ct.WINDOWS["doc"]))
        assert_same(found, expected(grey, rules, alone=True))
        assert len(found.boxes) <= 3
    assert any(b.box[2] * b.box[3] <= ct.MIN_BOX_AREA for s in result.slices for b in s.boxes)
    report = result.report()
    assert report["jpeg"] is True
    assert (report["max_boxes"], report["size_mode"], report["valid_filter"]) == (3, None, "off")
    assert result.positive_slices[0].heat is not None


@pytest.mark.parametrize(
    ("given", "window"),
    [("sample", ct.Window(1500, -750)), ("1600/-550", ct.Window(1600, -550))],
)
def test_windows(
    shm_client: Client, angel_phantom: CtPhantom, given: str, window: ct.Window
) -> None:
    plane = angel_phantom.volume.voxels[15]
    (found,) = shm_client.run("ct-angel", plane, window=given, mode="corrected").slices
    assert_same(found, expected(ct_angel_window(plane, window)))


@pytest.mark.parametrize(
    ("flags", "runs"),
    [
        ([{0}, {0}, {0}], [(0, 0, 2)]),
        ([{0}, {0}, {1}, {0}], []),
        ([{0, 1}, {1}, {1, 2}, {2}, {2}], [(1, 0, 2), (2, 2, 4)]),
        ([{3}, set(), {3}, {3}], []),
    ],
)
def test_patient_rule(
    shm_client: Client, flags: list[set[int]], runs: list[tuple[int, int, int]]
) -> None:
    result = shm_client.run("ct-angel", constructed(flags, 0.625), mode="corrected")
    assert [set(s.quadrants) for s in result.slices] == flags
    assert [(r.quadrant, r.first, r.last) for r in result.runs] == runs
    assert result.positive == bool(runs)
    assert [r.length_mm for r in result.runs] == pytest.approx([0.625 * 3] * len(runs))
    assert result.status == "ok"


def test_too_short_a_series_has_no_decision(shm_client: Client) -> None:
    result = shm_client.run("ct-angel", constructed([{2}, {2}]), mode="corrected")
    assert (result.positive, result.status, result.runs) == (None, "too_few_slices", ())
    assert (
        shm_client.run("ct-angel", constructed([{2}, {2}]), run_length=2, mode="corrected").positive
        is True
    )


def test_a_gap_breaks_runs(shm_client: Client, tmp_path: Path) -> None:
    paths = write_dicom_series(constructed([{0}] * 5 + [set()] * 3), tmp_path)
    assert shm_client.run("ct-angel", tmp_path, mode="corrected").positive is True
    paths[2].unlink()
    result = shm_client.run("ct-angel", tmp_path, mode="corrected")
    assert (result.positive, result.status) == (False, "gaps")
    assert len(result.slices) == 7
    assert any("no run crosses" in note for note in result.notes)


def test_left_and_right_follow_the_patient(shm_client: Client, tmp_path: Path) -> None:
    volume = constructed([{0}, {0, 3}, {0}, {3}])
    flipped = Volume(np.ascontiguousarray(volume.voxels[:, :, ::-1]), volume.geometry)
    straight = shm_client.run("ct-angel", volume, mode="corrected")
    mirrored = shm_client.run("ct-angel", flipped, mode="corrected")
    swap = {0: 1, 1: 0, 2: 3, 3: 2}
    for a, b in zip(straight.slices, mirrored.slices, strict=True):
        assert sorted(swap[q] for q in a.quadrants) == list(b.quadrants)
    assert [r.quadrant for r in straight.runs] == [0]
    assert [r.quadrant for r in mirrored.runs] == [1]


def test_dicom_and_nifti_of_any_orientation_agree(
    shm_client: Client, angel_phantom: CtPhantom, angel_series: Path, tmp_path: Path
) -> None:
    volume = angel_phantom.volume
    affine = volume.geometry.nifti_affine
    array = volume.voxels.transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "lps.nii.gz")
    turned = affine.copy()
    turned[:3, :2] *= -1
    turned[:3, 3] += affine[:3, 0] * (array.shape[0] - 1) + affine[:3, 1] * (array.shape[1] - 1)
    nibabel.save(nibabel.Nifti1Image(array[::-1, ::-1], turned), tmp_path / "ras.nii")
    dicom, lps, ras = (
        shm_client.run("ct-angel", p, mode="corrected")
        for p in (angel_series, tmp_path / "lps.nii.gz", tmp_path / "ras.nii")
    )
    for one in (lps, ras):
        assert [s.boxes for s in one.slices] == [s.boxes for s in dicom.slices]
        assert [(r.quadrant, r.first, r.last) for r in one.runs] == [
            (r.quadrant, r.first, r.last) for r in dicom.runs
        ]
    assert any("turned" in note for note in ras.notes)
    assert not any("turned" in note for note in (*lps.notes, *dicom.notes))


def test_slices_are_batched_on_the_server(shm_client: Client, angel_phantom: CtPhantom) -> None:
    before = shm_client.statistics("ct_angel_lesion")
    studies = [angel_phantom.volume] * 3
    done = list(
        shm_client.run_many("ct-angel", studies, in_flight=3, slices_in_flight=8, mode="corrected")
    )
    assert all(o.error is None for o in done)
    after = shm_client.statistics("ct_angel_lesion")
    assert after.inferences - before.inferences == 90
    assert after.executions - before.executions < 90


def test_async_gives_the_same_and_reports_progress(
    angel_server: TritonServer, angel_series: Path
) -> None:
    told: list[tuple[str, int, int]] = []

    async def run() -> CtAngelResult:
        async with AsyncClient(angel_server.grpc_url) as client:
            client.on_progress = lambda t: told.append((t.stage, t.done, t.total))
            return await client.run("ct-angel", angel_series, slices_in_flight=3, mode="corrected")

    found = asyncio.run(run())
    with Client(angel_server.grpc_url) as client:
        assert client.run("ct-angel", angel_series, mode="corrected").report() == found.report()
    assert sorted(told) == [("slices", i, 30) for i in range(1, 31)]


def test_arrays_are_kept_only_when_asked_for(shm_client: Client, angel_phantom: CtPhantom) -> None:
    assert shm_client.run("ct-angel", angel_phantom.volume, mode="corrected").arrays() == {}
    kept = shm_client.run(
        "ct-angel", angel_phantom.volume, keep_arrays=True, mode="corrected"
    ).arrays()
    assert {k: (a.shape, a.dtype) for k, a in kept.items()} == {
        "probability": ((30, SIDE, SIDE), np.float16),
        "mask": ((30, SIDE, SIDE), np.uint8),
    }
    grey = ct_angel_window(angel_phantom.volume.voxels, ct.WINDOWS["doc"])
    want = np.stack([standin(plane) for plane in grey])
    np.testing.assert_array_equal(kept["mask"], want >= np.float32(ct.THRESHOLD))
    np.testing.assert_allclose(kept["probability"], want, atol=5e-4)


def test_pictures_are_independent_slices(shm_client: Client, tmp_path: Path) -> None:
    grey = ct_angel_window(constructed([{0}, {0, 3}, {0}]).voxels, ct.WINDOWS["doc"])
    for k, plane in enumerate(grey):
        cv2.imwrite(str(tmp_path / f"{k}.png"), plane)
    result = shm_client.run("ct-angel", tmp_path, mode="corrected")
    assert (result.positive, result.status) == (None, "independent_slices")
    assert [s.quadrants for s in result.slices] == [(0,), (0, 3), (0,)]
    single = shm_client.run("ct-angel", tmp_path / "1.png", mode="corrected")
    array = shm_client.run("ct-angel", grey[1], mode="corrected")
    assert single.slices[0].boxes == array.slices[0].boxes == result.slices[1].boxes


def test_slices_that_are_not_square_are_padded(shm_client: Client, tmp_path: Path) -> None:
    plane = np.full((200, 300), 92, np.uint8)
    plane[40:80, 250:290] = 178
    cv2.imwrite(str(tmp_path / "wide.png"), plane)
    (found,) = shm_client.run(
        "ct-angel", tmp_path / "wide.png", valid_mode="off", mode="corrected"
    ).slices
    (box,) = found.boxes
    x, y, w, h = box.box_original
    assert (250 <= x <= 255, 285 <= x + w <= 290, 40 <= y <= 45, 75 <= y + h <= 80) == (True,) * 4


def test_lesions_outside_the_valid_region_do_not_count(shm_client: Client) -> None:
    volume = constructed([{0, 2}])
    volume.voxels[0, 140:] = -1000
    volume.voxels[0, 150:180, 60:84] = -530
    (found,) = shm_client.run("ct-angel", volume, mode="corrected").slices
    assert (found.quadrants, found.dropped) == ((2,), 1)
    assert found.valid is not None
    (unfiltered,) = shm_client.run("ct-angel", volume, valid_mode="off", mode="corrected").slices
    assert (unfiltered.quadrants, unfiltered.dropped, unfiltered.valid) == ((0, 2), 0, None)


def test_caps_and_modes(shm_client: Client) -> None:
    volume = constructed([{0, 1, 2, 3}])
    (capped,) = shm_client.run("ct-angel", volume, max_boxes=2, mode="corrected").slices
    assert capped.quadrants == (0, 1)
    high = shm_client.run("ct-angel", volume, threshold=1.0, valid_threshold=0.0, mode="corrected")
    assert not high.slices[0].positive
    lost = shm_client.run("ct-angel", volume, valid_threshold=1.0, mode="corrected")
    assert (lost.status, lost.slices[0].valid_missing) == ("too_few_slices", True)
    assert "no_valid_region" in lost.flags


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "fast"}, "parity, corrected"),
        ({"window": "lung"}, "WIDTH/LEVEL"),
        ({"window": "0/-600"}, "above 0"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"size_mode": "area"}, "box, mask"),
        ({"run_length": 0}, "1 or more"),
    ],
)
def test_options_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**given)


@pytest.fixture
def bad_inputs(tmp_path: Path) -> dict[Path, str]:
    """Bad studies and a piece of the message that each must get."""
    volume = constructed([{0}] * 3)
    for name in ("no-slope", "twice", "cut"):
        write_dicom_series(volume, tmp_path / name)
    for path in (tmp_path / "no-slope").iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.RescaleSlope
        dataset.save_as(path)
    write_dicom_series(volume, tmp_path / "twice", series_number=2)
    cut = sorted((tmp_path / "cut").iterdir())[1]
    cut.write_bytes(cut.read_bytes()[:-5000])
    write_dicom(chest_xray(1, height=300, width=300), tmp_path / "xray.dcm")
    cv2.imwrite(str(tmp_path / "sixteen.png"), np.full((300, 300), 900, np.uint16))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no slices here")
    messages = {
        "no-slope": "RescaleSlope", "twice": "equal claims", "cut": "shorter than the pixels",
        "xray.dcm": "no CT series", "sixteen.png": "16 bits", "empty": "no DICOM images",
        "notes.txt": "no DICOM images", "missing": "no such file",
    }  # fmt: skip
    return {tmp_path / name: message for name, message in messages.items()}


def test_bad_inputs_are_reported_and_the_batch_goes_on(
    shm_client: Client, angel_series: Path, bad_inputs: dict[Path, str]
) -> None:
    first, *failed, last = shm_client.run_many(
        "ct-angel", [angel_series, *bad_inputs, angel_series], mode="corrected"
    )
    assert first.result.report() == last.result.report()
    for outcome, (path, message) in zip(failed, bad_inputs.items(), strict=True):
        assert isinstance(outcome.error, InputError), (path.name, outcome.error)
        assert message in str(outcome.error), (path.name, outcome.error)
        assert "PHANTOM" not in str(outcome.error)


def test_real_slices(shm_client: Client, shared: Path) -> None:
    data = shared / "data"
    files = sorted((data / "tcia-covid-19-ny-sbu").rglob("*.dcm"))
    files += sorted((data / "lungmask-tests").glob("*.dcm"))
    files += sorted((data / "ct-densenet-samples").glob("*.nii"))
    assert len(files) == 24
    for outcome in shm_client.run_many("ct-angel", files, mode="corrected"):
        assert outcome.error is None, (outcome.study, outcome.error)
        (found,) = outcome.result.slices
        plane = open_series(outcome.study).slice(0)
        assert_same(found, expected(ct_angel_window(plane, ct.WINDOWS["doc"])))
    sample = data / "ct-angel-sample" / "image_DJ20200112A0189_243.jpg"
    (found,) = shm_client.run("ct-angel", sample, mode="corrected").slices
    grey = cv2.imread(str(sample), cv2.IMREAD_GRAYSCALE)
    assert_same(found, expected(np.asarray(grey, np.uint8)))


@pytest.mark.parametrize(
    ("name", "slices", "spacing"), [("A0001_5mm", 64, 5.0), ("A0002_8mm_B40f", 30, 8.0)]
)
def test_real_series(
    shm_client: Client, shared: Path, name: str, slices: int, spacing: float
) -> None:
    folder = shared / "data" / "tcia-lung-pet-ct-dx" / name
    result = shm_client.run("ct-angel", folder, threshold=0.2, run_length=1, mode="corrected")
    assert len(result.slices) == slices
    positions = np.array([s.position for s in result.slices])
    assert np.diff(positions) == pytest.approx(spacing, abs=0.01)
    opened = open_series(folder)
    for k in range(0, slices, 5):
        grey = ct_angel_window(opened.slice(k), ct.WINDOWS["doc"])
        assert_same(result.slices[k], expected(grey, threshold=0.2))
    assert result.positive is True
    for run in result.runs:
        assert run.length_mm == pytest.approx(run.slices * spacing, abs=0.01)
