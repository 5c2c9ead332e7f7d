"""The synthetic chest CT has an anatomy that the pipelines can find."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.catalog.errors import InputError
from hilum.preprocessing.lungmask import body_box
from hilum.preprocessing.phantoms.ct import chest_ct


def test_the_anatomy_is_plausible() -> None:
    phantom = chest_ct(1, slices=40, size=96)
    voxels, geometry = phantom.volume.voxels, phantom.volume.geometry
    assert voxels.dtype == np.int16
    assert geometry.spacing == pytest.approx((7.5, 3.75, 3.75))
    right, left = (float((phantom.lung == k).sum()) * geometry.voxel_ml for k in (1, 2))
    assert 1500 < left < right < 4000
    # The right lung lies at small x, on the patient's right.
    columns = [np.nonzero(phantom.lung == k)[2].mean() for k in (1, 2)]
    assert columns[0] < 48 < columns[1]
    clear = (phantom.lung > 0) & (phantom.lesion == 0) & (phantom.vessel == 0)
    clear &= phantom.airway == 0
    assert -900 < np.median(voxels[clear]) < -800
    assert -700 < np.median(voxels[phantom.lesion > 0]) < -300
    assert np.median(voxels[phantom.airway > 0]) < -800
    assert ((phantom.lesion > 0) <= (phantom.lung > 0)).all()
    y0, x0, y1, x1 = body_box(voxels[20])
    assert x1 - x0 > 70 and y1 - y0 > 45


def test_the_same_seed_gives_the_same_patient_at_every_size() -> None:
    one, again = chest_ct(5, slices=10, size=40), chest_ct(5, slices=10, size=40)
    assert np.array_equal(one.volume.voxels, again.volume.voxels)
    assert not np.array_equal(one.volume.voxels, chest_ct(6, slices=10, size=40).volume.voxels)
    fine = chest_ct(5, slices=20, size=80)
    shares = [(p.lung > 0).mean() for p in (one, fine)]
    assert shares[0] == pytest.approx(shares[1], rel=0.03)


def test_options() -> None:
    plain = chest_ct(2, slices=6, size=40, lesions=0, noise=0, spacing=(20.0, 9.0, 9.0))
    assert not plain.lesion.any()
    assert plain.volume.geometry.spacing == (20.0, 9.0, 9.0)


def test_rows_and_columns_may_differ() -> None:
    square, wide = (
        chest_ct(5, slices=10, size=size, spacing=(30, 9, 6)) for size in (60, (40, 60))
    )
    assert wide.volume.voxels.shape == wide.lung.shape == (10, 40, 60)
    # The same body, cut by 10 rows at the front and the back.
    assert np.array_equal(wide.lung, square.lung[:, 10:50])


@pytest.mark.parametrize(
    "wrong", [{"size": 16}, {"slices": 2}, {"lesions": -1}, {"spacing": (0.0, 1.0, 1.0)}]
)
def test_impossible_phantoms_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="phantom"):
        chest_ct(1, **wrong)
