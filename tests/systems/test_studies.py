"""What a CT system takes as a study: the same scan in every form is the same series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from hilum.catalog.errors import InputError
from hilum.client.protocols import Placed
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.volume import Volume
from hilum.systems.studies import open_study


@pytest.fixture(scope="module")
def volume() -> Volume:
    return chest_ct(1, slices=6, size=64, lesions=1).volume


@pytest.fixture(scope="module")
def folder(volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_dicom_series(volume, folder)
    return folder


def nifti(volume: Volume) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(volume.voxels.transpose(2, 1, 0), volume.geometry.nifti_affine)


def simpleitk(volume: Volume) -> Any:
    sitk = pytest.importorskip("SimpleITK")
    image, geometry = sitk.GetImageFromArray(volume.voxels), volume.geometry
    image.SetOrigin(geometry.origin)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetDirection(np.array(geometry.direction)[::-1].T.ravel().tolist())
    return image


def flipped(volume: Volume) -> Placed:
    """With its affine, stored from the left and from the head."""
    array = volume.voxels.transpose(2, 1, 0)
    back = np.diag([-1.0, 1.0, -1.0, 1.0])
    back[[0, 2], 3] = array.shape[0] - 1, array.shape[2] - 1
    return Placed(array[::-1, :, ::-1], affine=volume.geometry.nifti_affine @ back)


FORMS: dict[str, Any] = {
    "folder": lambda _volume, folder: folder,
    "datasets": lambda _volume, folder: [pydicom.dcmread(p) for p in folder.rglob("*.dcm")],
    "nibabel": lambda volume, _folder: nifti(volume),
    "SimpleITK": lambda volume, _folder: simpleitk(volume),
    "array with affine": lambda volume, _folder: flipped(volume),
    "array with spacing": lambda v, _folder: Placed(v.voxels, spacing=v.geometry.spacing),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_series(form: str, volume: Volume, folder: Path) -> None:
    series = open_study(FORMS[form](volume, folder))
    np.testing.assert_array_equal(series.volume().voxels, volume.voxels)
    assert series.geometry.spacing == pytest.approx(volume.geometry.spacing, abs=1e-4)
    if "spacing" not in form:
        assert series.geometry.origin == pytest.approx(volume.geometry.origin, abs=1e-3)


def test_a_single_dataset_is_one_slice(folder: Path) -> None:
    dataset = pydicom.dcmread(next(iter(sorted(folder.rglob("*.dcm")))))
    assert len(open_study(dataset)) == 1


@pytest.mark.parametrize("study", [None, 3.5, [], ["a.dcm"], {"array": 1}])
def test_anything_else_says_what_is_taken(study: Any) -> None:
    with pytest.raises(InputError, match=r"is no CT study; give a DICOM or NIfTI file.*pydicom"):
        open_study(study)


def test_a_place_is_for_arrays_and_needs_one_way(volume: Volume) -> None:
    with pytest.raises(InputError, match="either spacing or affine"):
        Placed(volume.voxels, spacing=(1, 1, 1), affine=np.eye(4))
    with pytest.raises(InputError, match="for NumPy arrays"):
        Placed("scan.nii", spacing=(1, 1, 1))
    with pytest.raises(InputError, match="mm along z, y and x"):
        open_study(Placed(volume.voxels, spacing=(1, 1)))
