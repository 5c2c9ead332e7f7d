"""CT-Angel from files to boxes and a decision, through the real server with analytic stand-ins."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
import standins
from hilum.catalog import SYSTEMS
from hilum.catalog import ct_angel as ct
from hilum.catalog.errors import InferenceFailed, InputError
from hilum.client import AsyncClient, Client
from hilum.client.pipelines.ct_angel import Options
from hilum.client.pipelines.ct_angel_result import CtAngelResult, SliceResult
from hilum.export.repository import export_system
from hilum.postprocessing.boxes import BoxRules, SliceFinding, assess_slice, scale_rectangle
from hilum.preprocessing.phantom import chest_xray, write_dicom
from hilum.preprocessing.phantom_ct import CtPhantom, chest_ct
from hilum.preprocessing.phantom_ct_dicom import write_dicom_series
from hilum.preprocessing.series import open_series
from hilum.preprocessing.square import fit_square
from hilum.preprocessing.volume import Geometry, Volume
from hilum.preprocessing.windows import ct_angel_window, jpeg_roundtrip
from hilum.server.launcher import TritonServer
from PIL import Image
from scipy import ndimage

SIDE = 256
"""Of the stand-ins' input; the lesion network that is served alone has the published 512."""

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def angel_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct-angel")
    files = {
        name: standins.write_ct_angel(folder / f"{name}.onnx", SIDE, valid=name == "valid")
        for name in ("lesion", "valid")
    }
    export_system(SYSTEMS["ct-angel"], repository=folder / "repository", onnx=files)
    return folder / "repository"


@pytest.fixture(scope="module")
def lesion_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct-angel-lesion")
    file = standins.write_ct_angel(folder / "lesion.onnx", 512)
    export_system(SYSTEMS["ct-angel"], repository=folder / "repository", onnx={"lesion": file})
    return folder / "repository"


@pytest.fixture(scope="module")
def angel_server(angel_repository: Path) -> Iterator[TritonServer]:
    with TritonServer(angel_repository, models=["ct_angel"]) as running:
        yield running


@pytest.fixture(scope="module", params=["grpc", "shm"])
def client(request: pytest.FixtureRequest, angel_server: TritonServer) -> Iterator[Client]:
    with Client(angel_server.grpc_url, transport=request.param) as client:
        yield client


@pytest.fixture(scope="module")
def shm_client(angel_server: TritonServer) -> Iterator[Client]:
    with Client(angel_server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def phantom() -> CtPhantom:
    return chest_ct(3, slices=30, size=SIDE, lesions=6)


@pytest.fixture(scope="module")
def series(phantom: CtPhantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patient-name")
    write_dicom_series(phantom.volume, folder)
    return folder


def standin(grey: np.ndarray, *, valid: bool = False) -> np.ndarray:
    """What `standins.write_ct_angel` computes, in NumPy: float32 probability."""
    centre, reach = (0.36, 0.12) if valid else (0.7, 0.25)
    bright = grey.astype(np.float32) / np.float32(255)
    near = np.abs(bright - np.float32(centre)) * np.float32(-1 / reach) + np.float32(1)
    low = ndimage.minimum_filter(near, 5, mode="nearest")
    if valid:
        low = np.broadcast_to(low.max(axis=1, keepdims=True), low.shape)
    return np.clip(low, 0, 1)


def expected(
    grey: np.ndarray,
    rules: BoxRules | None = None,
    side: int = SIDE,
    *,
    alone: bool = False,
    threshold: float = ct.THRESHOLD,
) -> SliceFinding:
    """What one windowed slice shows, without server and client."""
    image = fit_square(grey, side)
    probability, valid = standin(image), None
    if not alone:
        valid = (standin(image, valid=True) >= np.float32(ct.THRESHOLD)).astype(np.uint8)
    mask = (probability >= np.float32(threshold)).astype(np.uint8)
    return assess_slice(mask, probability.astype(np.float16), valid, rules)


def assert_same(found: SliceResult, want: SliceFinding, side: int = SIDE) -> None:
    assert [b.box for b in found.boxes] == [x.box for x in want.lesions]
    assert [b.area for b in found.boxes] == [x.area for x in want.lesions]
    assert [b.quadrants for b in found.boxes] == [x.quadrants for x in want.lesions]
    assert [b.mean_probability for b in found.boxes] == [x.mean_probability for x in want.lesions]
    assert [b.box_original for b in found.boxes] == [
        scale_rectangle(x.box, side, found.shape) for x in want.lesions
    ]
    assert (found.valid, found.dropped) == (want.valid, want.dropped)
    assert found.valid_missing == want.valid_missing


def test_a_series_gives_what_its_voxels_give(
    client: Client, phantom: CtPhantom, series: Path
) -> None:
    result = client.run("ct-angel", series)
    assert len(result.slices) == 30
    for k, found in enumerate(result.slices):
        grey = ct_angel_window(phantom.volume.voxels[k], ct.WINDOWS["doc"])
        assert_same(found, expected(grey))
        assert (found.index, found.number) == (k, 30 - k)
        for box in found.boxes:
            x, y, w, h = box.box_original
            assert phantom.lesion[k, y : y + h, x : x + w].any()
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


def test_parity_is_the_published_program(shm_client: Client, phantom: CtPhantom) -> None:
    result = shm_client.run("ct-angel", phantom.volume, mode="parity", heat=True)
    rules = BoxRules(parity=True, valid_mode="off")
    for k, found in enumerate(result.slices):
        grey = jpeg_roundtrip(ct_angel_window(phantom.volume.voxels[k], ct.WINDOWS["doc"]))
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
def test_windows(shm_client: Client, phantom: CtPhantom, given: str, window: ct.Window) -> None:
    plane = phantom.volume.voxels[15]
    (found,) = shm_client.run("ct-angel", plane, window=given).slices
    assert_same(found, expected(ct_angel_window(plane, window)))


BLOBS = {0: (70, 60), 1: (70, 170), 2: (150, 60), 3: (150, 170)}
"""Upper left corners (row, column) of what the stand-in takes for lesions, by quadrant."""


def constructed(flags: Sequence[set[int]], spacing: float = 1.0) -> Volume:
    """Slices of lung with a blob in each flagged quadrant, and a rim of bone and air."""
    voxels = np.full((len(flags), SIDE, SIDE), -850, np.int16)
    voxels[:, :3], voxels[:, -3:] = 400, -1000
    for k, flagged in enumerate(flags):
        for quadrant in flagged:
            row, column = BLOBS[quadrant]
            voxels[k, row : row + 30, column : column + 24] = -530
    geometry = Geometry(voxels.shape, (0.0, 0.0, 0.0), (spacing, 0.7, 0.7), AXES)
    return Volume(voxels, geometry)


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
    result = shm_client.run("ct-angel", constructed(flags, 0.625))
    assert [set(s.quadrants) for s in result.slices] == flags
    assert [(r.quadrant, r.first, r.last) for r in result.runs] == runs
    assert result.positive == bool(runs)
    assert [r.length_mm for r in result.runs] == pytest.approx([0.625 * 3] * len(runs))
    assert result.status == "ok"


def test_too_short_a_series_has_no_decision(shm_client: Client) -> None:
    result = shm_client.run("ct-angel", constructed([{2}, {2}]))
    assert (result.positive, result.status, result.runs) == (None, "too_few_slices", ())
    assert shm_client.run("ct-angel", constructed([{2}, {2}]), run_length=2).positive is True


def test_a_gap_breaks_runs(shm_client: Client, tmp_path: Path) -> None:
    paths = write_dicom_series(constructed([{0}] * 5 + [set()] * 3), tmp_path)
    assert shm_client.run("ct-angel", tmp_path).positive is True
    paths[2].unlink()
    result = shm_client.run("ct-angel", tmp_path)
    assert (result.positive, result.status) == (False, "gaps")
    assert len(result.slices) == 7
    assert any("no run crosses" in note for note in result.notes)


def test_left_and_right_follow_the_patient(shm_client: Client, tmp_path: Path) -> None:
    volume = constructed([{0}, {0, 3}, {0}, {3}])
    flipped = Volume(np.ascontiguousarray(volume.voxels[:, :, ::-1]), volume.geometry)
    straight = shm_client.run("ct-angel", volume)
    mirrored = shm_client.run("ct-angel", flipped)
    swap = {0: 1, 1: 0, 2: 3, 3: 2}
    for a, b in zip(straight.slices, mirrored.slices, strict=True):
        assert sorted(swap[q] for q in a.quadrants) == list(b.quadrants)
    assert [r.quadrant for r in straight.runs] == [0]
    assert [r.quadrant for r in mirrored.runs] == [1]


def test_dicom_and_nifti_of_any_orientation_agree(
    shm_client: Client, phantom: CtPhantom, series: Path, tmp_path: Path
) -> None:
    volume = phantom.volume
    affine = volume.geometry.nifti_affine
    array = volume.voxels.transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "lps.nii.gz")
    turned = affine.copy()
    turned[:3, :2] *= -1
    turned[:3, 3] += affine[:3, 0] * (array.shape[0] - 1) + affine[:3, 1] * (array.shape[1] - 1)
    nibabel.save(nibabel.Nifti1Image(array[::-1, ::-1], turned), tmp_path / "ras.nii")
    dicom, lps, ras = (
        shm_client.run("ct-angel", p)
        for p in (series, tmp_path / "lps.nii.gz", tmp_path / "ras.nii")
    )
    for one in (lps, ras):
        assert [s.boxes for s in one.slices] == [s.boxes for s in dicom.slices]
        assert [(r.quadrant, r.first, r.last) for r in one.runs] == [
            (r.quadrant, r.first, r.last) for r in dicom.runs
        ]
    assert any("turned" in note for note in ras.notes)
    assert not any("turned" in note for note in (*lps.notes, *dicom.notes))


def test_slices_are_batched_on_the_server(shm_client: Client, phantom: CtPhantom) -> None:
    before = shm_client.statistics("ct_angel_lesion")
    studies = [phantom.volume] * 3
    done = list(shm_client.run_many("ct-angel", studies, in_flight=3, slices_in_flight=8))
    assert all(o.error is None for o in done)
    after = shm_client.statistics("ct_angel_lesion")
    assert after.inferences - before.inferences == 90
    assert after.executions - before.executions < 90


def test_async_gives_the_same_and_tells_of_progress(
    angel_server: TritonServer, series: Path
) -> None:
    told: list[tuple[str, int, int]] = []

    async def run() -> CtAngelResult:
        async with AsyncClient(angel_server.grpc_url) as client:
            client.on_progress = lambda t: told.append((t.stage, t.done, t.total))
            return await client.run("ct-angel", series, slices_in_flight=3)

    found = asyncio.run(run())
    with Client(angel_server.grpc_url) as client:
        assert client.run("ct-angel", series).report() == found.report()
    assert sorted(told) == [("slices", i, 30) for i in range(1, 31)]


def test_arrays_are_kept_only_when_asked_for(shm_client: Client, phantom: CtPhantom) -> None:
    assert shm_client.run("ct-angel", phantom.volume).arrays() == {}
    kept = shm_client.run("ct-angel", phantom.volume, keep_arrays=True).arrays()
    assert {k: (a.shape, a.dtype) for k, a in kept.items()} == {
        "probability": ((30, SIDE, SIDE), np.float16),
        "mask": ((30, SIDE, SIDE), np.uint8),
    }
    grey = ct_angel_window(phantom.volume.voxels, ct.WINDOWS["doc"])
    want = np.stack([standin(plane) for plane in grey])
    np.testing.assert_array_equal(kept["mask"], want >= np.float32(ct.THRESHOLD))
    np.testing.assert_allclose(kept["probability"], want, atol=5e-4)


def test_pictures_are_independent_slices(shm_client: Client, tmp_path: Path) -> None:
    grey = ct_angel_window(constructed([{0}, {0, 3}, {0}]).voxels, ct.WINDOWS["doc"])
    for k, plane in enumerate(grey):
        cv2.imwrite(str(tmp_path / f"{k}.png"), plane)
    result = shm_client.run("ct-angel", tmp_path)
    assert (result.positive, result.status) == (None, "independent_slices")
    assert [s.quadrants for s in result.slices] == [(0,), (0, 3), (0,)]
    single = shm_client.run("ct-angel", tmp_path / "1.png")
    array = shm_client.run("ct-angel", grey[1])
    assert single.slices[0].boxes == array.slices[0].boxes == result.slices[1].boxes


def test_slices_that_are_not_square_are_padded(shm_client: Client, tmp_path: Path) -> None:
    plane = np.full((200, 300), 92, np.uint8)
    plane[40:80, 250:290] = 178
    cv2.imwrite(str(tmp_path / "wide.png"), plane)
    (found,) = shm_client.run("ct-angel", tmp_path / "wide.png", valid_mode="off").slices
    (box,) = found.boxes
    x, y, w, h = box.box_original
    assert (250 <= x <= 255, 285 <= x + w <= 290, 40 <= y <= 45, 75 <= y + h <= 80) == (True,) * 4


def test_lesions_outside_the_valid_region_do_not_count(shm_client: Client) -> None:
    volume = constructed([{0, 2}])
    volume.voxels[0, 140:] = -1000
    volume.voxels[0, 150:180, 60:84] = -530
    (found,) = shm_client.run("ct-angel", volume).slices
    assert (found.quadrants, found.dropped) == ((2,), 1)
    assert found.valid is not None
    (unfiltered,) = shm_client.run("ct-angel", volume, valid_mode="off").slices
    assert (unfiltered.quadrants, unfiltered.dropped, unfiltered.valid) == ((0, 2), 0, None)


def test_caps_and_modes(shm_client: Client) -> None:
    volume = constructed([{0, 1, 2, 3}])
    (capped,) = shm_client.run("ct-angel", volume, max_boxes=2).slices
    assert capped.quadrants == (0, 1)
    high = shm_client.run("ct-angel", volume, threshold=1.0, valid_threshold=0.0)
    assert not high.slices[0].positive
    lost = shm_client.run("ct-angel", volume, valid_threshold=1.0)
    assert (lost.status, lost.slices[0].valid_missing) == ("too_few_slices", True)
    assert "no_valid_region" in lost.flags


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "fast"}, "corrected, parity"),
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


def test_bad_inputs_are_told_and_the_batch_goes_on(
    shm_client: Client, series: Path, bad_inputs: dict[Path, str]
) -> None:
    first, *failed, last = shm_client.run_many("ct-angel", [series, *bad_inputs, series])
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
    for outcome in shm_client.run_many("ct-angel", files):
        assert outcome.error is None, (outcome.source, outcome.error)
        (found,) = outcome.result.slices
        plane = open_series(outcome.source).slice(0)
        assert_same(found, expected(ct_angel_window(plane, ct.WINDOWS["doc"])))
    sample = data / "ct-angel-sample" / "image_DJ20200112A0189_243.jpg"
    (found,) = shm_client.run("ct-angel", sample).slices
    grey = cv2.imread(str(sample), cv2.IMREAD_GRAYSCALE)
    assert_same(found, expected(np.asarray(grey, np.uint8)))


@pytest.mark.parametrize(
    ("name", "slices", "spacing"), [("A0001_5mm", 64, 5.0), ("A0002_8mm_B40f", 30, 8.0)]
)
def test_real_series(
    shm_client: Client, shared: Path, name: str, slices: int, spacing: float
) -> None:
    folder = shared / "data" / "tcia-lung-pet-ct-dx" / name
    result = shm_client.run("ct-angel", folder, threshold=0.2, run_length=1)
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


def test_server_with_the_lesion_network_alone(
    lesion_repository: Path, phantom: CtPhantom, tmp_path: Path
) -> None:
    with (
        TritonServer(lesion_repository, models=["ct_angel_lesion"]) as server,
        Client(server.grpc_url) as client,
    ):
        result = client.run("ct-angel", phantom.volume)
        assert result.report()["valid_filter"] == "off"
        assert any("no valid-region filter" in note for note in result.notes)
        for k, found in enumerate(result.slices):
            grey = ct_angel_window(phantom.volume.voxels[k], ct.WINDOWS["doc"])
            assert_same(found, expected(grey, BoxRules(valid_mode="off"), 512, alone=True), 512)
        write_dicom_series(constructed([{1}]), tmp_path / "one")
        done = hilum("run", "ct-angel", tmp_path / "one", "--out", tmp_path / "out",
                     "--url", server.grpc_url)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the server has no ct_angel; running without" in done.stderr
    assert [w["network"] for w in report_of(tmp_path / "out")["weights"]] == ["lesion"]


def test_repository_with_the_lesion_network_alone(lesion_repository: Path, tmp_path: Path) -> None:
    write_dicom_series(constructed([{1}]), tmp_path / "one")
    done = hilum("run", "ct-angel", tmp_path / "one", "--out", tmp_path / "out",
                 "--repository", lesion_repository)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (entry,) = report_of(tmp_path / "out")["results"]
    assert entry["valid_filter"] == "off"


def test_server_without_any_of_it_is_told(server: TritonServer) -> None:
    with (
        Client(server.grpc_url) as client,
        pytest.raises(InferenceFailed, match=r"no model 'ct_angel'.*hilum export ct-angel"),
    ):
        client.run("ct-angel", constructed([{0}]))


def hilum(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("hilum")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def finished(
    angel_server: TritonServer, series: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The output of one run: a phantom, a positive and a negative series, a negative picture."""
    folder = tmp_path_factory.mktemp("run")
    write_dicom_series(constructed([{0}, {0}, {0}]), folder / "positive")
    write_dicom_series(constructed([set()] * 4), folder / "negative")
    cv2.imwrite(str(folder / "picture.png"), np.full((SIDE, SIDE), 92, np.uint8))
    inputs = [series, *(folder / name for name in ("positive", "negative", "picture.png"))]
    done = hilum("run", "ct-angel", *inputs, "--out", folder / "out", "--heat", "--save-arrays",
                 "--url", angel_server.grpc_url, "--in-flight", 1)  # fmt: skip
    return folder / "out", done


def test_run_writes_report_pictures_and_arrays(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, done = finished
    assert done.returncode == 0, done.stderr
    assert "POSITIVE" in done.stdout
    assert "Not a medical device" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("  slices")]
    assert lines == [f"  slices {n}/30" for n in range(3, 30, 3)]
    report = report_of(out)
    assert report["mode"] == "corrected"
    assert [w["network"] for w in report["weights"]] == ["lesion", "valid"]
    entry, _, negative, picture = report["results"]
    positive = [s["slice"] for s in entry["slices"] if s["positive"]]
    names = [f"0001-slice-{n:03d}{end}.png" for n in positive for end in ("", "-heat")]
    assert entry["files"] == [*names, "0001-contact.png", "0001-quadrants.png", "0001.npz"]
    assert negative["files"] == ["0003-quadrants.png", "0003.npz"]
    assert picture["files"] == ["0004-slice-001.png", "0004.npz"]
    told = {file for r in report["results"] for file in r["files"]}
    assert {p.name for p in out.iterdir()} == told | {"report.json"}
    for path in out.glob("*.png"):
        pixels = np.asarray(Image.open(path))
        assert pixels.shape[2] == 3
        assert min(pixels.shape[:2]) > 300
    with np.load(out / "0001.npz") as arrays:
        mask = arrays["mask"]
    for found in entry["slices"]:
        for box in found["boxes"]:
            x, y, w, h = box["box"]
            assert mask[found["slice"] - 1, y : y + h, x : x + w].sum() >= box["mask_area"]


def test_red_boxes_lie_where_the_report_says(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = finished
    (box,) = report_of(out)["results"][1]["slices"][0]["boxes"]
    red, green, blue = np.moveaxis(np.asarray(Image.open(out / "0002-slice-001.png")), 2, 0)
    rows, columns = np.nonzero((red > 200) & (green < 90) & (blue < 90))
    scale = red.shape[1] / SIDE
    x, y, w, h = (v * scale for v in box["box_original"])
    assert columns.min() == pytest.approx(x, abs=3)
    assert columns.max() == pytest.approx(x + w, abs=3)
    assert rows.max() == pytest.approx(y + h, abs=3)


def test_folders_stand_for_what_is_in_them(
    angel_server: TritonServer, series: Path, tmp_path: Path
) -> None:
    """One study a folder of DICOM, one a folder of pictures; bad ones do not end the run."""
    for name in ("a", "b"):
        write_dicom_series(constructed([{0}] * 3), tmp_path / "in" / name)
    for path in (tmp_path / "in" / "b").iterdir():
        path.write_bytes(path.read_bytes()[:400])
    done = hilum("run", "ct-angel", tmp_path / "in", "--out", tmp_path / "out",
                 "--url", angel_server.grpc_url, "--no-pictures")  # fmt: skip
    assert done.returncode == 1
    good, bad = report_of(tmp_path / "out")["results"]
    assert good["positive"] is True
    assert bad["status"] == "failed"
    empty = hilum("run", "ct-angel", tmp_path / "out", "--out", tmp_path / "o", "--url", "x:1")
    assert empty.returncode == 2
    assert "no CT study in" in empty.stderr


def test_phantom_series_can_be_run(angel_server: TritonServer, tmp_path: Path) -> None:
    made = hilum("phantom", "ct", "--out", tmp_path / "ct", "--slices", 12, "--size", 96)
    assert made.returncode == 0, made.stderr
    voxels = chest_ct(0, slices=12, size=96).volume.voxels
    assert np.array_equal(open_series(tmp_path / "ct").volume().voxels, voxels)
    done = hilum("run", "ct-angel", tmp_path / "ct", "--out", tmp_path / "out", "--json",
                 "--url", angel_server.grpc_url, "--no-pictures", "--mode", "parity")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["mode"], report["results"][0]["slice_count"]) == ("parity", 12)
