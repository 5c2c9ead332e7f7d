"""Results of DLPE: report, NIfTI on the anatomy, the series in its window, a full disk."""

from __future__ import annotations

import gzip
import json
import math
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from dlpe_study import RANDOM, Study, make_study, result_of, truth_volume
from PIL import Image

from hilum.catalog.errors import OutputError
from hilum.catalog.lungmask import RIGHT
from hilum.preprocessing.dlpe.space import normalise, read_normalised
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import Reorientation, Volume
from hilum.preprocessing.windows import Window, display_window
from hilum.results.atomic import whole_file
from hilum.systems.base import Result
from hilum.systems.dlpe.files import write_files, write_pictures
from hilum.systems.studies import open_study


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study()


def test_a_window_of_samples_outside_the_lungs_is_not_trusted(study: Study) -> None:
    enhancement = study.result.enhancement
    assert enhancement is not None
    for share, flags in ((0.049, ("gaps",)), (0.051, ("window_not_trusted", "gaps"))):
        found = replace(enhancement, ring_voxels=100_000, outside_lung=round(share * 100_000))
        result = replace(study.result, enhancement=found, flags=("gaps",))
        assert result.flags == flags
        assert result.status == flags[0]
        assert replace(result, slice=3).flags == flags
        assert ("outside the lungs" in " ".join(result.notes)) == (len(flags) == 2)


def test_the_report_says_what_was_found(study: Study) -> None:
    enhancement = study.result.enhancement
    assert enhancement is not None
    enhancement = replace(enhancement, outside_lung=enhancement.ring_voxels // 2)
    result = replace(study.result, enhancement=enhancement)
    found: Result = result
    report = json.loads(json.dumps(found.report(), allow_nan=False))
    assert report["status"] == "window_not_trusted"
    assert report["window_level"] == pytest.approx(-600 + 1600 * enhancement.baseline, abs=1e-3)
    assert report["window_width"] == pytest.approx(2400 * enhancement.std, abs=1e-3)
    assert report["window"]["level"] == round(enhancement.window_level)
    assert report["std_hu"] == pytest.approx(1600 * enhancement.std, abs=1e-3)
    assert report["ring_voxels"] == int(enhancement.ring.sum())
    assert report["ring_outside_lung_share"] == pytest.approx(0.5, abs=0.05)
    ml = math.prod(result.normalised.space.voxel_mm) / 1000
    for name, mask in result.masks.items():
        assert report["voxels"][name] == int(mask.sum())
        assert report["volumes_ml"][name] == pytest.approx(int(mask.sum()) * ml, abs=1e-3)
    assert report["preview"] is True
    assert report["preview_note"] == "PREVIEW on a 64 grid: not the published result."
    assert report["cohort"] == "in-patient"
    space = report["normalised_space"]
    assert space["shape"] == [64, 64, 64]
    assert space["declared_450_mm"] is False
    assert report["counts"]["passes"] == 700
    assert report["passes_share"] == pytest.approx(700 / 1536, abs=1e-4)
    assert report["timings_s"] == {"read": 0.5, "stage_one": 3.25}
    row = result.row()
    assert row["level HU"] == str(report["window"]["level"]).replace("-", "−")
    assert row["status"] == "window_not_trusted (preview 64)"


def test_lesions_outside_the_lungs_do_not_count_as_share_of_them(study: Study) -> None:
    lung = np.zeros((64, 64, 64), np.uint8)
    lung[10:30, 10:30, 10:20] = 1
    lesion = np.zeros_like(lung)
    lesion[20:40, 20:30, 10:20] = 1
    masks = {"lung": lung, "follow_up": lesion}
    report = replace(study.result, masks=masks, cohort="follow-up").report()["lesions"]
    assert report["follow_up"]["share_of_lungs"] == pytest.approx(1000 / 4000)
    ratio = report["follow_up"]["in_lungs_ml"] / report["follow_up"]["volume_ml"]
    assert ratio == pytest.approx(0.5, abs=1e-4)


def test_report_holds_no_value_that_is_no_number(study: Study) -> None:
    enhancement = study.result.enhancement
    assert enhancement is not None
    odd = replace(enhancement, std=float("nan"))
    odd_result = replace(study.result, enhancement=odd, timings={"read": math.inf})
    report = json.loads(json.dumps(odd_result.report(), allow_nan=False))
    assert report["std_hu"] is None
    assert report["timings_s"]["read"] is None
    empty = {"lung": np.zeros((64, 64, 64), np.uint8), "visible": np.ones((64, 64, 64), np.uint8)}
    lost = replace(study.result, masks=empty, enhancement=None, flags=("no_lung",))
    report = json.loads(json.dumps(lost.report(), allow_nan=False))
    assert report["window_level"] is report["ring_voxels"] is None
    assert report["lesions"]["visible"]["share_of_lungs"] is None
    assert lost.row()["level HU"] == "–"
    assert lost.row()["status"] == "no_lung (preview 64)"
    assert "enhanced" not in lost.arrays()


def test_rule_of_450_mm_is_reported() -> None:
    volume = chest_ct(1, slices=10, size=32, spacing=(60.0, 10.0, 10.0)).volume
    masks = {k: np.zeros((16, 16, 16), np.uint8) for k in ("lung", "airway", "vessel")}
    for mode, applied in (("parity", True), ("corrected", False)):
        result = result_of(normalise(volume, mode, 16), masks, None, mode)
        assert result.report()["normalised_space"]["declared_450_mm"] is applied
        assert ("declared_450_mm" in result.flags) is applied
        assert replace(result, slice=3).flags == result.flags


def test_arrays_are_in_normalised_space(study: Study) -> None:
    kept = study.result.arrays()
    assert set(kept) == {"lung", "airway", "vessel", "visible", "in_patient", "enhanced"}
    assert {a.shape for a in kept.values()} == {(64, 64, 64)}
    assert kept["enhanced"].dtype == np.float32
    assert kept["lung"].dtype == np.uint8


def canonical(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and affine of a NIfTI file, axes to the right, to the front, to the head."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asarray(image.dataobj), image.affine


def centre(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centre of mass in mm, RAS."""
    return nibabel.affines.apply_affine(affine, np.argwhere(mask > 0).mean(0))


TURNS = {
    "as it is": Reorientation(),
    "x": Reorientation(flips=(False, False, True)),
    "y": Reorientation(flips=(False, True, False)),
    "z": Reorientation(flips=(True, False, False)),
    "sagittal": Reorientation((2, 0, 1), (False, True, False)),
}
"""From LPS order to the order of the files."""


@pytest.mark.parametrize(
    ("turn", "mode"),
    [(t, m) for t in TURNS for m in ("parity", "corrected") if (t, m) != ("sagittal", "parity")],
)
def test_masks_lie_on_the_anatomy_whatever_the_files_order(
    turn: str, mode: Any, tmp_path: Path
) -> None:
    phantom = chest_ct(3, slices=30, size=64)
    right = phantom.lung == RIGHT
    write_dicom_series(truth_volume(phantom, right).reoriented(TURNS[turn]), tmp_path / "ct")
    series = open_series(tmp_path / "ct")
    normalised = normalise(series, mode, 96, fill_hu=-600)
    found = (normalised.voxels > 0.5).astype(np.uint8)
    result = result_of(normalised, {"lung": found}, series, mode, enhanced=False)
    assert write_files(result, tmp_path) == ["lung.nii.gz"]
    image = nibabel.load(tmp_path / "lung.nii.gz")
    assert image.shape == series.stored_geometry.shape[::-1]
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    back, affine = canonical(tmp_path / "lung.nii.gz")
    geometry = phantom.volume.geometry
    truth = right.transpose(2, 1, 0)  # LPS order [z, y, x]: to the left, to the back, to the head
    off = centre(back, affine) - centre(truth, geometry.nifti_affine)
    assert (np.abs(off) < 0.25 * np.array(geometry.spacing[::-1])).all(), off
    truth = truth[::-1, ::-1]
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.98


def test_enhanced_volume_is_in_hu_above_the_baseline(study: Study, tmp_path: Path) -> None:
    result = study.result
    files = write_files(result, tmp_path)
    assert files == [
        "enhanced.nii.gz", "lung.nii.gz", "airway.nii.gz", "vessel.nii.gz",
        "visible.nii.gz", "in-patient.nii.gz", "windowed/",
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f.strip("/") for f in files)
    image = nibabel.load(tmp_path / files[0])
    values = image.get_fdata()
    assert -80 <= values.min() < values.max() <= 400
    enhancement, geometry = result.enhancement, study.phantom.volume.geometry
    assert enhancement is not None
    space = result.normalised.space
    # A voxel of the file by hand: linear interpolation in normalised space.
    k, row, column = np.argwhere(study.phantom.lesion > 0)[200]
    place = (np.array([row, column, k]) - space.offset) / space.scale
    low = np.floor(place).astype(int)
    share = place - low
    corners = enhancement.volume[tuple(slice(n, n + 2) for n in low)].astype(np.float64)
    for axis in (2, 1, 0):
        corners = corners @ [1 - share[axis], share[axis]] if axis == 2 else np.tensordot(
            corners, [1 - share[axis], share[axis]], axes=(axis, 0)
        )  # fmt: skip
    assert values[column, row, k] == pytest.approx(1600 * float(corners), abs=1 / 16)
    assert image.header["cal_min"] == -40
    assert image.header["cal_max"] == 280
    np.testing.assert_allclose(image.affine, geometry.nifti_affine, atol=1e-4)


def test_headers_say_what_made_a_file(study: Study, tmp_path: Path) -> None:
    write_files(study.result, tmp_path)
    says = nibabel.load(tmp_path / "in-patient.nii.gz").header["descrip"].item().decode()
    assert says == "RANDOM WEIGHTS; PREVIEW 64; Hilum dlpe in-patient parity; research only"
    (tmp_path / "full").mkdir()
    real = replace(study.result, preview=False, weights_note="", mode="corrected")
    write_files(real, tmp_path / "full")
    says = nibabel.load(tmp_path / "full" / "lung.nii.gz").header["descrip"].item().decode()
    assert says == "Hilum dlpe lung corrected; research only"


def test_normalised_volumes_stay_on_their_own_grid(study: Study, tmp_path: Path) -> None:
    np.savez(tmp_path / "study.npz", array=study.result.normalised.voxels)
    ready = read_normalised(tmp_path / "study.npz")
    masks = dict(study.result.masks)
    result = result_of(ready, masks, None, "parity")
    files = write_files(result, tmp_path)
    assert not [f for f in files if "windowed" in f]
    image = nibabel.load(tmp_path / "lung.nii.gz")
    np.testing.assert_allclose(np.abs(image.header.get_zooms()), [334 / 64, 334 / 64, 8], rtol=1e-6)
    found, affine = canonical(tmp_path / "lung.nii.gz")
    # [x, y, z] runs to the back, the left, the head; RAS to the right, the front, the head.
    np.testing.assert_array_equal(found, masks["lung"].transpose(1, 0, 2)[::-1, ::-1])
    assert (np.diag(affine)[:3] > 0).all()


def test_series_is_shown_in_its_window_from_the_head(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "windowed"
    folder.mkdir()
    for stale in ("0999.png", "notes.png"):
        (folder / stale).write_bytes(b"old")
    result = study.result
    write_files(result, tmp_path)
    names = sorted(p.name for p in folder.iterdir())
    assert names == [f"{n:04d}.png" for n in range(1, 49)] + ["notes.png"]
    level, width = result.window or (0, 0)
    voxels = study.phantom.volume.voxels
    for number in (1, 20, 48):
        image = Image.open(folder / f"{number:04d}.png")
        assert image.mode == "L"
        shown = display_window(voxels[48 - number], Window(width, level))
        np.testing.assert_array_equal(np.asarray(image), shown)
    assert f"level {level} HU, width {width} HU" in image.info["Description"]
    assert "RANDOM WEIGHTS" in image.info["Description"]


def test_windowed_slices_are_not_distorted(study: Study, tmp_path: Path) -> None:
    whole = study.phantom.volume
    for axis, name in ((1, "rows"), (2, "columns")):
        taken: list[Any] = [slice(None)] * 3
        taken[axis] = slice(None, None, 2)
        voxels = whole.voxels[tuple(taken)]
        spacing = tuple(2 * mm if a == axis else mm for a, mm in enumerate(whole.geometry.spacing))
        geometry = replace(whole.geometry, shape=voxels.shape, spacing=spacing)
        (tmp_path / name).mkdir()
        series = open_study(Volume(voxels, geometry))
        result = replace(study.result, series=series, masks={"lung": study.result.masks["lung"]})
        write_files(result, tmp_path / name)
        picture = Image.open(tmp_path / name / "windowed" / "0024.png")
        assert picture.size == (96, 96)


def test_windows_of_no_width_still_show_something(study: Study, tmp_path: Path) -> None:
    assert study.result.enhancement is not None
    narrow = replace(study.result.enhancement, window_width=0.0023)
    result = replace(study.result, enhancement=narrow)
    assert result.report()["window"]["width"] == 1
    write_files(result, tmp_path)
    picture = np.asarray(Image.open(tmp_path / "windowed" / "0024.png"))
    assert {0, 255} <= set(np.unique(picture))


def test_files_reveal_nothing_about_the_patient(tmp_path: Path) -> None:
    phantom = chest_ct(3, slices=16, size=48)
    folder = tmp_path / "DOE_JANE_19500101"
    secrets = {"PatientName": "DOE^JANE", "PatientID": "MRN-778899", "AccessionNumber": "ACC4711",
               "InstitutionName": "St Elsewhere"}  # fmt: skip
    for path in write_dicom_series(phantom.volume, folder):
        dataset = pydicom.dcmread(path)
        for keyword, value in secrets.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    uid = str(dataset.SeriesInstanceUID)
    series = open_series(folder)
    normalised = normalise(series, "parity", 48)
    masks = {
        name: (normalise(truth_volume(phantom, mask), "parity", 48, fill_hu=-600).voxels > 0.5
               ).astype(np.uint8)
        for name, mask in (("lung", phantom.lung), ("airway", phantom.airway),
                           ("vessel", phantom.vessel))
    }  # fmt: skip
    result = result_of(normalised, masks, series, "parity")
    out = tmp_path / "out"
    out.mkdir()
    files = [*write_files(result, out), *write_pictures(result, out, RANDOM)]
    written = [p for p in out.rglob("*") if p.is_file()]
    assert len(written) == len(files) - 1 + 16
    hidden = re.compile(
        b"|".join(re.escape(s.encode()) for s in (*secrets.values(), uid, "DOE", "JANE"))
    )
    for path in written:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        said = data[:348] if path.suffix == ".gz" else data
        assert not hidden.search(said), path
        assert not hidden.search(path.name.encode())
    assert not hidden.search(json.dumps([result.report(), result.row()]).encode())


_FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dlpe_study import make_study
from hilum.catalog.errors import OutputError
from hilum.systems.dlpe.files import write_files, write_pictures
result = make_study(slices=24, size=64).result
out = Path(sys.argv[2])
(out / "full").mkdir()
write_files(result, out)
largest = {p.name: p.stat().st_size for p in out.rglob("*.nii.gz")}
limit = sorted(largest.values())[-1] - 100
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for write in (lambda: write_files(result, out / "full"),
              lambda: write_pictures(result, out / "full", "")):
    try:
        write()
    except OutputError as error:
        print(error)
"""


def test_full_disk_is_reported_and_leaves_no_half_files(tmp_path: Path) -> None:
    program = [sys.executable, "-c", _FULL_DISK, str(Path(__file__).parents[1]), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    volumes, pictures = done.stdout.strip().splitlines()
    assert volumes.startswith("enhanced.nii.gz could not be written to")
    assert "File too large" in volumes
    assert "free space" in volumes
    assert re.match(r"\w+\.png could not be written", pictures)
    left = {p.name for p in (tmp_path / "full").rglob("*")}
    assert "enhanced.nii.gz" not in left
    assert not [name for name in left if "partial" in name]


def test_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "mask"
    path.write_text("old")
    full = pytest.raises(OutputError, match=r"mask could not be written.*No space left")
    with full, whole_file(path) as partial:
        partial.write_text("ne")
        Path("/dev/full").write_bytes(b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["mask"]
    with whole_file(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    with (
        pytest.raises(OutputError, match="check the folder"),
        whole_file(tmp_path / "none" / "mask") as partial,
    ):
        partial.write_text("new")


def test_a_result_pickles_and_shows_itself(study: Study) -> None:
    found = pickle.loads(pickle.dumps(study.result))
    assert found.report() == study.result.report()
    shown = found._repr_html_()
    assert "<th>lungs ml</th>" in shown
    assert "data:image/png;base64," in shown


def test_series_of_every_kind_pickle(tmp_path: Path) -> None:
    volume = chest_ct(1, slices=4, size=64, lesions=0).volume
    write_dicom_series(volume, tmp_path / "series")
    image = nibabel.Nifti1Image(volume.voxels.transpose(2, 1, 0), volume.geometry.nifti_affine)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    for given in (tmp_path / "series", tmp_path / "scan.nii.gz", volume):
        series = open_study(given)
        np.testing.assert_array_equal(series.slice(1), volume.voxels[1])
        found = pickle.loads(pickle.dumps(series))
        np.testing.assert_array_equal(found.slice(2), volume.voxels[2])
