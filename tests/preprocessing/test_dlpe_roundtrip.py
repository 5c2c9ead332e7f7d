"""What DLPE finds in normalised space comes back to where it is in the patient."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from hilum.catalog.errors import InputError
from hilum.preprocessing.dlpe.source import as_published, by_position
from hilum.preprocessing.dlpe.space import Normalised, normalise, to_source
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import Series, open_series
from hilum.preprocessing.reading.volume import Geometry, Reorientation, Volume

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
FLIPS = [Reorientation(flips=f) for f in product((False, True), repeat=3)]
OTHER = [
    Reorientation((a[0], a[1], a[2]), (False, True, False))
    for a in list(permutations(range(3)))[1:]
]
# Rows ≠ columns, and a field of 341 mm in one direction: the outermost columns are left out.
LUNGS = chest_ct(7, slices=22, size=46, spacing=(11.0, 7.0, 7.5))
LUNGS_VOLUME = Volume(
    LUNGS.volume.voxels[:, :40],
    Geometry((22, 40, 46), LUNGS.volume.geometry.origin, (11.0, 7.0, 7.5), AXES),
)
TRUTH = (LUNGS.lung[:, :40] > 0).astype(np.uint8)
HALF = 0.0625
"""−500 HU, half way between mask and surroundings."""


def of_mask(mask: np.ndarray, geometry: Geometry) -> Volume:
    """A CT in which the mask is water and all else air."""
    return Volume(np.where(mask, 0, -1000).astype(np.int16), geometry)


def in_file(series: Series) -> np.ndarray:
    """The mask of `of_mask` in the order of the file's slices."""
    depth = series.stored_geometry.shape[0]
    return np.stack([series.stored_slice(k) > -500 for k in range(depth)]).astype(np.uint8)


def at_places_of(geometry: Geometry) -> np.ndarray:
    """The truth at the voxels of another grid, by their places in the patient alone."""
    index = np.stack([*np.indices(geometry.shape), np.ones(geometry.shape)])
    places = np.tensordot(np.linalg.inv(LUNGS_VOLUME.geometry.affine) @ geometry.affine, index, 1)
    z, y, x = np.rint(places[:3]).astype(int)
    assert np.abs(places[:3] - [z, y, x]).max() < 1e-3
    return TRUTH[z, y, x]


def mask_of(normalised: Normalised) -> np.ndarray:
    return (normalised.voxels > HALF).astype(np.uint8)


def bodies(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """Two ellipsoids of different size, off the centre, which no flip brings onto each other."""
    z, y, x = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)),
        indexing="ij",
    )
    big = (x - 25) ** 2 / 30**2 + (y + 12) ** 2 / 22**2 + (z - 9) ** 2 / 45**2 < 1
    small = (x + 40) ** 2 + (y - 20) ** 2 + (z + 30) ** 2 < 14**2
    return (big | small).astype(np.uint8)


def center(mask: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(mask))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a.astype(bool) & b.astype(bool)).sum()) / (int(a.sum()) + int(b.sum()))


def worst_distance_mm(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """How far a voxel that differs lies from the surface of `b` at most."""
    fine = ndimage.distance_transform_edt(b, spacing) + ndimage.distance_transform_edt(
        1 - b, spacing
    )
    return float((fine * (a != b)).max())


@pytest.mark.parametrize("way", FLIPS + OTHER)
def test_phantom_lands_on_its_voxels_in_every_orientation(
    way: Reorientation, tmp_path: Path
) -> None:
    stored = of_mask(TRUTH, LUNGS_VOLUME.geometry).reoriented(way)
    write_dicom_series(stored, tmp_path)
    series = open_series(tmp_path)
    normalised = normalise(series, "corrected", 128, fill_hu=-1000)
    back = to_source(mask_of(normalised), normalised.space)
    assert back.dtype == np.uint8
    # The source is so coarse that every voxel must come back, not only to within half of one.
    assert np.array_equal(back, in_file(series))
    assert np.array_equal(back, at_places_of(normalised.geometry))
    # Axis 0 runs to the back, 1 to the left, 2 to the head, whatever the file's order.
    upright = normalise(of_mask(TRUTH, LUNGS_VOLUME.geometry), "corrected", 128, fill_hu=-1000)
    assert np.abs(normalised.voxels - upright.voxels).max() < 1e-6


@pytest.mark.parametrize("spacing", [(1.5, 1.1, 0.9), (2.5, 0.8, 1.0)])
def test_fine_scan_comes_back_to_within_half_a_voxel(
    spacing: tuple[float, float, float], tmp_path: Path
) -> None:
    shape = (81, 90, 121)
    truth = bodies(shape, spacing)
    geometry = Geometry(shape, (5.0, -60.0, -300.0), spacing, AXES)
    write_dicom_series(of_mask(truth, geometry), tmp_path)
    normalised = normalise(open_series(tmp_path), "corrected", 256, fill_hu=-1000)
    back = to_source(mask_of(normalised), normalised.space)
    half = np.linalg.norm(np.maximum(normalised.space.voxel_mm, np.roll(spacing, -1))) / 2
    # A voxel beside the surface is at its own distance from the nearest voxel of the other side.
    assert worst_distance_mm(back, truth, spacing) <= max(spacing) + half
    assert np.abs(center(back) - center(truth)).max() < 0.25
    assert dice(back, truth) > 0.97
    linear = to_source(mask_of(normalised), normalised.space, "linear")
    assert linear.dtype == np.float32
    assert np.abs(center(linear) - center(truth)).max() < 0.1


@pytest.mark.parametrize("shape", [(41, 60, 75), (40, 61, 74), (41, 61, 75), (40, 60, 74)], ids=str)
def test_published_map_is_inverted_exactly(shape: tuple[int, int, int], tmp_path: Path) -> None:
    """Odd and even lengths, T and offsets: the published half-voxel shifts cancel."""
    spacing = (3.1, 2.3, 1.9)
    truth = bodies(shape, spacing)
    geometry = Geometry(shape, (0.0, 0.0, 0.0), spacing, AXES)
    write_dicom_series(of_mask(truth, geometry), tmp_path)
    normalised = normalise(open_series(tmp_path), "parity", 256, fill_hu=-1000)
    back = to_source(mask_of(normalised), normalised.space)
    assert np.abs(center(back) - center(truth)).max() < 0.05
    assert dice(back, truth) > 0.98
    ramp = np.arange(shape[1], dtype=np.int16)[None, :, None] * np.ones(shape, np.int16)
    ramps = normalise(Volume(ramp, geometry), "parity", 256)
    returned = to_source(ramps.voxels * 1600 - 600, ramps.space, "linear")
    assert np.abs(returned - ramp)[1:-1, 2:-2, 1:-1].max() < 1e-2


def test_linear_volume_comes_back(tmp_path: Path) -> None:
    write_dicom_series(LUNGS_VOLUME, tmp_path)
    normalised = normalise(open_series(tmp_path), "corrected", 256, fill_hu=-1000)
    back = to_source(normalised.voxels, normalised.space, "linear") * 1600 - 600
    inside = np.zeros(back.shape, bool)
    inside[1:-1, 1:-1, 2:-2] = True  # columns beyond 334 mm are outside
    error = np.abs(back - np.maximum(LUNGS_VOLUME.voxels, -1024))[inside]
    spread = np.ptp(LUNGS_VOLUME.voxels)
    # A voxel comes back as a mean over at most half a normalised voxel around its centre.
    assert error.mean() < 0.05 * spread


def test_outside_of_normalised_space_is_fill() -> None:
    geometry = Geometry((4, 20, 24), (0.0, 0.0, 0.0), (200.0, 20.0, 20.0), AXES)
    space = normalise(Volume(np.zeros(geometry.shape, np.int16), geometry), "corrected", 32).space
    mask = to_source(np.ones((32, 32, 32), np.uint8), space, fill=7)
    assert (mask[1:3, 2:18, 4:20] == 1).all()
    assert (mask[0] == 7).all() and (mask[:, 0] == 7).all() and (mask[:, :, 0] == 7).all()
    volume = to_source(np.ones((32, 32, 32), np.float32), space, "linear", fill=-5.0)
    assert set(np.unique(volume)) == {-5.0, 1.0}


def test_results_as_nifti_lie_where_the_scan_says(tmp_path: Path) -> None:
    """In millimetres, through the affine of the file, and not by index."""
    way = Reorientation(flips=(True, False, True))
    write_dicom_series(of_mask(TRUTH, LUNGS_VOLUME.geometry).reoriented(way), tmp_path / "series")
    normalised = normalise(open_series(tmp_path / "series"), "corrected", 128, fill_hu=-1000)
    stored = to_source(mask_of(normalised), normalised.space)
    image = nibabel.Nifti1Image(stored.transpose(2, 1, 0), normalised.geometry.nifti_affine)
    nibabel.save(image, tmp_path / "mask.nii.gz")
    read = nibabel.load(tmp_path / "mask.nii.gz")
    place = read.affine @ [*center(np.asarray(read.dataobj)), 1]
    expected = LUNGS_VOLUME.geometry.affine @ [*center(TRUTH), 1]
    assert place[:3] == pytest.approx([-expected[0], -expected[1], expected[2]], abs=1e-3)


def tilted(degrees: float, about: str, shape: tuple[int, int, int]) -> Geometry:
    """Slices turned about the x axis: by a gantry (table along z), or as a whole."""
    s, c = float(np.sin(np.radians(degrees))), float(np.cos(np.radians(degrees)))
    table = (0.0, 0.0, 1.0) if about == "gantry" else (0.0, s, c)
    return Geometry(shape, (0.0, 0.0, 0.0), (3.0, 1.6, 1.5), (table, (0.0, c, -s), (1.0, 0.0, 0.0)))


@pytest.mark.parametrize("about", ["gantry", "patient"])
@pytest.mark.parametrize("way", [Reorientation(), Reorientation((1, 0, 2), (True, False, True))])
def test_oblique_scan_is_resampled_along_the_patient(
    about: str, way: Reorientation, tmp_path: Path
) -> None:
    shape = (60, 90, 100)
    geometry = tilted(17, about, shape)
    centre = geometry.point(tuple((n - 1) / 2 for n in shape))
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(index @ geometry.steps + np.array(geometry.origin) - centre, -1, 0)
    # Long and thin, so that a turn of 17° would be seen.
    truth = (np.abs(z - 10) < 10) & (np.abs(y) < 40) & (np.abs(x - 20) < 30)
    write_dicom_series(of_mask(truth, geometry).reoriented(way), tmp_path)
    series = open_series(tmp_path)
    normalised = normalise(series, "corrected", 128, fill_hu=-1000)
    assert not normalised.space.straight
    assert any("turned by up to 17°" in note for note in normalised.notes)
    mask = mask_of(normalised)
    y, x, z = ((np.arange(128) + 0.5 - 64) * v for v in normalised.space.voxel_mm)
    expected = (
        (np.abs(y) < 40)[:, None, None] & (np.abs(x - 20) < 30)[:, None] & (np.abs(z - 10) < 10)
    )
    assert dice(mask, expected) > 0.97
    assert np.abs(center(mask) - center(expected)).max() < 0.3
    stored = in_file(series)
    back = to_source(mask, normalised.space)
    assert dice(back, stored) > 0.93
    assert np.abs(center(back) - center(stored)).max() < 0.3
    linear = to_source(normalised.voxels, normalised.space, "linear", fill=-0.25)
    assert ((linear > HALF) == stored).mean() > 0.99


def test_slightly_turned_scan_keeps_its_axes(tmp_path: Path) -> None:
    write_dicom_series(of_mask(TRUTH, tilted(1.5, "patient", TRUTH.shape)), tmp_path)
    normalised = normalise(open_series(tmp_path), "corrected", 128, fill_hu=-1000)
    assert normalised.space.straight
    # 1.5 mm columns in a field of 334 mm: all of the scan is inside.
    back = to_source(mask_of(normalised), normalised.space)
    assert np.abs(center(back) - center(TRUTH)).max() < 0.2


@pytest.mark.parametrize("way", [Reorientation(), FLIPS[4], Reorientation((1, 0, 2))])
def test_gap_is_bridged_by_position(way: Reorientation, tmp_path: Path) -> None:
    stored = of_mask(TRUTH, LUNGS_VOLUME.geometry).reoriented(way)
    files = write_dicom_series(stored, tmp_path)
    for path in files[8:11]:
        path.unlink()
    series = open_series(tmp_path)
    normalised = normalise(series, "corrected", 128, fill_hu=-1000)
    assert any("1 gap(s)" in note for note in normalised.notes)
    assert any("each at its own place" in note for note in normalised.notes)
    assert len(normalised.space.levels) == len(files) - 3
    back = to_source(mask_of(normalised), normalised.space)
    assert np.array_equal(back, in_file(series))
    # Away from the gap nothing moves: the whole scan's normalised voxels are the same there.
    whole = normalise(of_mask(TRUTH, LUNGS_VOLUME.geometry), "corrected", 128, fill_hu=-1000)
    assert (np.abs(normalised.voxels - whole.voxels) < 1e-6).mean() > 0.9
    with pytest.raises(InputError, match=r"not consecutive.*missing.*mode corrected"):
        normalise(open_series(tmp_path), "parity", 128)


def test_gap_in_a_tilted_scan_is_bridged_by_position(tmp_path: Path) -> None:
    geometry = tilted(17, "gantry", (60, 90, 100))
    files = write_dicom_series(of_mask(bodies((60, 90, 100), geometry.spacing), geometry), tmp_path)
    whole = normalise(open_series(tmp_path), "corrected", 128, fill_hu=-1000)
    for path in files[20:23]:
        path.unlink()
    series = open_series(tmp_path)
    normalised = normalise(series, "corrected", 128, fill_hu=-1000)
    assert not normalised.space.straight
    assert (mask_of(normalised) != mask_of(whole)).sum() < 0.05 * mask_of(whole).sum()
    back, stored = to_source(mask_of(normalised), normalised.space), in_file(series)
    assert dice(back, stored) > 0.95
    assert np.abs(center(back) - center(stored)).max() < 0.3


def test_slices_at_growing_distances_keep_their_places(tmp_path: Path) -> None:
    geometry = Geometry((14, 24, 24), (0.0, 0.0, 0.0), (10.0, 12.0, 12.0), AXES)
    values = (100 * np.arange(14, dtype=np.int16))[:, None, None] * np.ones((14, 24, 24), np.int16)
    places = np.cumsum([0, *np.linspace(10, 14, 13)])
    for path, place in zip(
        write_dicom_series(Volume(values, geometry), tmp_path), places, strict=True
    ):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [0, 0, float(place)]
        dataset.save_as(path)
    normalised = normalise(open_series(tmp_path), "corrected", 256, fill_hu=-1000)
    column = normalised.voxels[128, 128] * 1600 - 600
    z = (np.arange(256) + 0.5 - 128) * 2 + places[-1] / 2
    inside = (z > 0) & (z < places[-1])
    expected = np.interp(z[inside], places, 100 * np.arange(14))
    assert np.abs(column[inside] - expected).max() < 0.05
    back = to_source(normalised.voxels, normalised.space, "linear")[1:-1, 12, 12] * 1600 - 600
    assert np.abs(back - values[1:-1, 0, 0]).max() < 10


def numbered(folder: Path, numbers: Any) -> None:
    """Give the slices of a folder, from the lowest up, these InstanceNumbers."""
    paths = sorted(folder.glob("*.dcm"), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])
    for path, number in zip(paths, numbers, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = int(number)
        dataset.save_as(path)


@pytest.mark.parametrize("numbers", ["downwards", "upwards", "mixed", "from 100"])
def test_published_order_is_by_number_and_comes_back(numbers: str, tmp_path: Path) -> None:
    depth = len(TRUTH)
    given = {
        "downwards": np.arange(depth, 0, -1),
        "upwards": np.arange(1, depth + 1),
        "mixed": np.random.default_rng(0).permutation(depth) + 1,
        "from 100": np.arange(depth, 0, -1) + 99,
    }[numbers]
    write_dicom_series(of_mask(TRUTH, LUNGS_VOLUME.geometry), tmp_path)
    numbered(tmp_path, given)
    series = open_series(tmp_path)
    source = as_published(series)
    planes = np.stack([source.plane(z) for z in range(depth)])
    assert np.array_equal(planes > -500, TRUTH[np.argsort(given)[::-1]])
    normalised = normalise(series, "parity", 128, fill_hu=-1000)
    assert any("do not run" in note for note in normalised.notes) == (
        numbers in ("upwards", "mixed")
    )
    marked = np.zeros(normalised.space.shape, np.float32)
    # Each slice of normalised space says its own z; back in the file the numbers must decide.
    marked += np.arange(128, dtype=np.float32)
    back = to_source(marked, normalised.space, "linear")
    start, step = normalised.space.offset[2], normalised.space.scale[2]
    z = given.max() - given
    expected = np.clip((z - start) / step, 0, 127)
    assert back[:, 20, 20] == pytest.approx(expected, abs=1e-4)
    nearest = to_source(mask_of(normalised), normalised.space)
    if numbers != "mixed":  # where neighbours are others, half a normalised voxel counts
        assert dice(nearest, TRUTH) > 0.97


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("mode", ["parity", "corrected"])
def test_nifti_in_both_modes(mode: Any, suffix: str, tmp_path: Path) -> None:
    way = Reorientation(flips=(False, True, True))  # the usual RAS file
    volume = of_mask(TRUTH, LUNGS_VOLUME.geometry)
    stored = volume.reoriented(way)
    image = nibabel.Nifti1Image(stored.voxels.transpose(2, 1, 0), stored.geometry.nifti_affine)
    nibabel.save(image, tmp_path / f"x{suffix}")
    normalised = normalise(open_series(tmp_path / f"x{suffix}"), mode, 128, fill_hu=-1000)
    direct = normalise(volume, mode, 128, fill_hu=-1000)
    assert np.abs(normalised.voxels - direct.voxels).max() < 1e-6
    back = to_source(mask_of(normalised), normalised.space)
    assert dice(back, way.apply(TRUTH)) > 0.97
    assert any("no DICOM files" in note for note in normalised.notes) == (mode == "parity")


def test_one_slice(tmp_path: Path) -> None:
    path = write_dicom_series(LUNGS_VOLUME, tmp_path)[10]
    series = open_series(path)
    for mode in ("parity", "corrected"):
        normalised = normalise(series, mode, 128)
        filled = (normalised.voxels != 0.375).any(axis=(0, 1))
        # Planes of 4 mm: 11 mm, or in the published way also what fades into the fill.
        assert filled.sum() in ((5, 6) if mode == "parity" else (2, 3))
        back = to_source(normalised.voxels, normalised.space, "linear") * 1600 - 600
        assert (
            np.corrcoef(back[0, 2:-2, 3:-3].ravel(), LUNGS_VOLUME.voxels[10, 2:-2, 3:-3].ravel())[
                0, 1
            ]
            > 0.95
        )


def test_real_series(shared: Path) -> None:
    series = open_series(shared / "data/tcia-lung-pet-ct-dx/A0001_5mm")
    parity, corrected = (normalise(series, mode, 128) for mode in ("parity", "corrected"))
    assert parity.notes == corrected.notes == ()
    # Both maps differ by less than a voxel, and the scans by little.
    assert np.corrcoef(parity.voxels[::3].ravel(), corrected.voxels[::3].ravel())[0, 1] > 0.98
    air = (corrected.voxels < (-700 + 600) / 1600).astype(np.uint8)
    back = to_source(air, corrected.space)
    voxels = series.volume().voxels
    assert back.shape == voxels.shape
    inside = np.zeros(back.shape, bool)
    inside[:, 130:380, 80:430] = True
    assert (back == (voxels < -700))[inside].mean() > 0.9
    assert np.array_equal(as_published(series).plane(30), by_position(series).plane(30))
