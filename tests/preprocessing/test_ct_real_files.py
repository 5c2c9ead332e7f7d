"""Public CTs: whole series, single slices, pictures of slices, every transfer syntax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hilum.catalog.errors import InputError
from hilum.preprocessing.reading.series import Series, open_series
from hilum.preprocessing.reading.slice_pictures import is_slice_picture, read_slice_picture


@pytest.mark.parametrize(
    ("name", "depth", "spacing", "low", "high"),
    [
        ("A0001_5mm", 64, (5.0, 0.841796875), -1024, 2976),
        ("A0002_8mm_B40f", 30, (8.0, 0.646484375), -1024, 1548),
    ],
)
def test_whole_real_series(
    shared: Path, name: str, depth: int, spacing: tuple[float, float], low: int, high: int
) -> None:
    series = open_series(shared / "data/tcia-lung-pet-ct-dx" / name)
    volume = series.volume()
    assert volume.voxels.shape == (depth, 512, 512)
    assert volume.geometry.spacing == pytest.approx((spacing[0], spacing[1], spacing[1]))
    assert (volume.voxels.min(), volume.voxels.max()) == (low, high)
    assert series.notes == () and series.breaks == ()
    # InstanceNumber 1 is the highest slice in both.
    assert series.numbers == tuple(range(depth, 0, -1))
    # The couch lies behind the patient: more tissue at the bottom rows than at the top ones.
    middle = volume.voxels[depth // 2]
    assert (middle[400:] > -500).sum() > (middle[:112] > -500).sum()


LOSSLESS = {"2", "2.1", "2.1.99", "2.2", "2.4.57", "2.4.70", "2.4.80", "2.4.90", "2.5"}
REFUSED_SYNTAXES = {"2.4.53", "2.4.55"}


def test_transfer_syntaxes(shared: Path) -> None:
    matrix = shared / "data/dicom-transfer-syntaxes"
    reference = open_series(matrix / "CTImage.dcm").slice(0)
    decoded = 0
    for path in sorted(matrix.glob("CTImage.dcm_*")):
        syntax = path.stem.rsplit("_", 1)[1].removeprefix("1.2.840.10008.1.")
        series: Series = open_series(path)
        if syntax in REFUSED_SYNTAXES:
            with pytest.raises(InputError, match="cannot be decoded"):
                series.slice(0)
            continue
        plane = series.slice(0)
        decoded += 1
        if syntax in LOSSLESS:
            assert np.array_equal(plane, reference), syntax
        else:
            inside = reference > -1100
            error = np.abs(plane[inside].astype(int) - reference[inside])
            assert 0 < error.mean() < 25, syntax
    assert decoded == 13


def test_single_real_slices(shared: Path) -> None:
    paths = sorted((shared / "data/tcia-covid-19-ny-sbu").rglob("*.dcm"))
    assert len(paths) == 20
    for path in paths:
        plane = open_series(path).slice(0)
        assert plane.min() <= -1000
        assert 100 < plane.max() < 10000


def test_slice_pictures(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/ct-angel-sample"
    grey = read_slice_picture(folder / "image_DJ20200112A0189_243.jpg")
    assert (grey.pixels.shape, grey.pixels.dtype) == ((512, 512), np.uint8)
    assert not any("luminance" in note for note in grey.notes)
    red = read_slice_picture(folder / "sample01.jpg")
    assert any("luminance" in note for note in red.notes)
    assert is_slice_picture(folder / "sample01.jpg")
    assert not is_slice_picture(folder / "README.md")
    assert not is_slice_picture(tmp_path)
    with pytest.raises(InputError, match="8 bits has no Hounsfield"):
        open_series(folder).volume()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((folder / "sample01.jpg").read_bytes()[:9000])
    with pytest.raises(InputError, match="truncated"):
        read_slice_picture(cut)
    with pytest.raises(InputError, match="neither PNG"):
        read_slice_picture(folder / "README.md")
