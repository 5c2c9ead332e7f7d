"""The synthetic chest X-ray: reproducible, varied, and true to what it says."""

from __future__ import annotations

import cv2
import numpy as np
import pydicom
import pytest

from hilum.catalog import HilumError
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom, write_png


def test_same_arguments_same_picture() -> None:
    first, second = chest_xray(3, height=300, width=280), chest_xray(3, height=300, width=280)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.disease, second.disease)


def test_seeds_differ() -> None:
    first, second = (chest_xray(s, height=300, width=300) for s in (1, 2))
    assert np.abs(first.pixels.astype(int) - second.pixels).mean() > 5
    assert (first.lung != second.lung).mean() > 0.01


@pytest.mark.parametrize("seed", range(6))
def test_two_dark_lungs_with_disease_inside(seed) -> None:
    phantom = chest_xray(seed, severity=0.6)
    assert phantom.pixels.shape == phantom.lung.shape == phantom.disease.shape == (640, 640)
    assert phantom.pixels.dtype == phantom.lung.dtype == phantom.disease.dtype == np.uint8
    assert cv2.connectedComponents(phantom.lung)[0] == 3
    assert not (phantom.disease & ~phantom.lung & 1).any()
    healthy = phantom.pixels[(phantom.lung == 1) & (phantom.disease == 0)].mean()
    diseased = phantom.pixels[phantom.disease == 1].mean()
    heart = phantom.pixels[380:440, 330:370].mean()
    assert healthy + 15 < diseased < heart


def test_disease_grows_with_severity() -> None:
    shares = []
    for severity in (0.0, 0.25, 0.5, 1.0):
        phantom = chest_xray(7, height=256, width=256, severity=severity)
        shares.append(phantom.disease.sum() / phantom.lung.sum())
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert 0.8 < shares[-1] < 0.9


def test_same_patient_at_every_size() -> None:
    small, large = chest_xray(5, height=256, width=320), chest_xray(5, height=512, width=640)
    shrunk = cv2.resize(large.lung, (320, 256), interpolation=cv2.INTER_NEAREST)
    overlap = (shrunk & small.lung).sum() * 2 / (shrunk.sum() + small.lung.sum())
    assert overlap > 0.98


@pytest.mark.parametrize("arguments", [{"severity": 1.5}, {"height": 20}])
def test_impossible_wishes_are_refused(arguments) -> None:
    with pytest.raises(HilumError, match="phantom"):
        chest_xray(1, **arguments)


def test_png(tmp_path) -> None:
    phantom = chest_xray(1, height=256, width=300)
    write_png(phantom, tmp_path / "phantom.png")
    read = cv2.imread(str(tmp_path / "phantom.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, phantom.pixels)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("monochrome1", [False, True])
def test_dicom_says_phantom_and_nothing_else(tmp_path, bits, monochrome1) -> None:
    phantom = chest_xray(1, height=257, width=259)
    path = tmp_path / "phantom.dcm"
    write_dicom(phantom, path, bits=bits, monochrome1=monochrome1)
    dataset = pydicom.dcmread(path)
    assert dataset.PatientName == "PHANTOM"
    assert dataset.PatientID == "PHANTOM-1"
    assert dataset.SOPClassUID.name == "Digital X-Ray Image Storage - For Presentation"
    stored = dataset.pixel_array.astype(float) / (2**bits - 1) * 255
    shown = 255 - stored if monochrome1 else stored
    np.testing.assert_allclose(shown, phantom.pixels, atol=0.5)
