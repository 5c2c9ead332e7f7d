"""DLPE on real chest CTs, from DICOM to all outputs, as a preview on a grid of 128.

The networks of golden file 10 are no trained ones; their lungs are what has the density of lung,
outside the body too, which is enough to see whether masks lie where they belong.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from commands import hilum, report_of
from scipy import ndimage

from hilum.preprocessing.reading.series import open_series
from hilum.server.launcher import TritonServer

SERIES = ["A0001_5mm", "A0002_8mm_B40f"]

pytestmark = pytest.mark.load

FILES = {
    "lung.nii.gz", "airway.nii.gz", "vessel.nii.gz", "visible.nii.gz", "follow-up.nii.gz",
    "in-patient.nii.gz", "enhanced.nii.gz", "panels.png", "montage.png", "slice.png",
}  # fmt: skip


@pytest.fixture(scope="module", params=SERIES)
def series(request: pytest.FixtureRequest, shared: Path) -> Path:
    return shared / "data" / "tcia-lung-pet-ct-dx" / request.param


@pytest.fixture(scope="module")
def out(dlpe_server: TritonServer, series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "out"
    done = hilum("run", "dlpe", series, "--grid", "128", "--mode", "corrected", "--out", out,
                 "--url", dlpe_server.grpc_url)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def affine(folder: Path) -> np.ndarray:
    """Index (column, row, slice) to RAS in mm, from the files' headers alone."""
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for f in folder.rglob("*.dcm")]
    headers = [h for h in headers if "ImagePositionPatient" in h]
    positions = sorted((h.ImagePositionPatient for h in headers), key=lambda p: p[2])
    row, column = headers[0].PixelSpacing
    found = np.diag([column, row, (positions[-1][2] - positions[0][2]) / (len(headers) - 1), 1])
    found[:3, 3] = positions[0]
    return np.diag([-1, -1, 1, 1]) @ found


def lps(path: Path) -> np.ndarray:
    """The voxels of a NIfTI file as [z, y, x], in the order of LPS, by its affine."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0)


def anatomy(hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Air inside the body, and soft tissue and bone away from its border."""
    inside = np.zeros(hu.shape, bool)
    for plane, air in zip(inside, hu < -500, strict=True):
        labels, _ = ndimage.label(air)
        border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        plane[:] = air & ~np.isin(labels, border)
    lungs = ndimage.binary_opening(inside, iterations=3)
    return lungs, ndimage.binary_erosion(hu > -100, iterations=6)


def test_all_outputs_are_there(out: Path) -> None:
    (entry,) = report_of(out)["results"]
    assert entry["status"] == "ok"
    assert entry["preview"]
    folder = out / "0001"
    assert {f.name for f in folder.iterdir()} >= FILES
    windowed = list((folder / "windowed").iterdir())
    assert len(windowed) == nibabel.load(folder / "lung.nii.gz").shape[2]


def test_masks_lie_on_the_anatomy(out: Path, series: Path) -> None:
    path = out / "0001" / "lung.nii.gz"
    np.testing.assert_allclose(nibabel.load(path).affine, affine(series), atol=1e-3)
    mask = lps(path) > 0
    hu = open_series(series).volume().voxels
    assert mask.shape == hu.shape
    lungs, tissue = anatomy(hu)

    def fits(found: np.ndarray) -> bool:
        return bool(found[lungs].mean() > 0.985 and found[tissue].mean() < 0.02)

    assert fits(mask)
    for axis in range(3):
        assert not fits(np.flip(mask, axis))
        assert not fits(np.roll(mask, 8 if axis else 3, axis))
