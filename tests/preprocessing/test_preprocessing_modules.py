"""Each step before a network on NumPy, array-api-strict and CuPy: the same as on NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from array_modules import Case, check, check_cupy_signatures, check_refused, only_beyond, parameters

from hilum.catalog.terms import Window
from hilum.preprocessing.arrays import as_bool, as_uint8, namespace
from hilum.preprocessing.covid_mtl.pipeline import common_box, network_window, window_share
from hilum.preprocessing.covid_mtl.pipeline import normalise as normalise_stored
from hilum.preprocessing.covid_mtl.resample import mask_to_millimetres, to_grid, to_millimetres
from hilum.preprocessing.ct_angel.square import fit_square
from hilum.preprocessing.dlpe.grid import published_space
from hilum.preprocessing.dlpe.resample import sample_points
from hilum.preprocessing.dlpe.slabs import Slab, add, cut, same_inputs, slices_first
from hilum.preprocessing.dlpe.source import by_position
from hilum.preprocessing.dlpe.space import normalise, normalise_signal, to_source
from hilum.preprocessing.lungmask import body_box, prepare_slice, resize_corners_int
from hilum.preprocessing.lungmask import normalise as normalise_hu
from hilum.preprocessing.nearest import resize_nearest
from hilum.preprocessing.reading.volume import Geometry, Reorientation, Volume
from hilum.preprocessing.resize import resize_bilinear, resize_bilinear_u8
from hilum.preprocessing.windows import ct_angel_window, display_window, padding_to_air

FLOAT16 = "float16 is not in the standard"
IN_PLACE = "rounds in place: maximum with out="
INDEXED = "assigns to slices by an array of indices"
STRIDES = "looks at strides: a plane that stands for three channels is read once"

RNG = np.random.default_rng(11)
HU = RNG.integers(-1100, 1500, (14, 12, 10)).astype(np.int16)
FLOATS = RNG.normal(0, 1, (14, 12, 10)).astype(np.float32)
MASK = (FLOATS > 0.3).astype(np.uint8)
SLICE = np.full((150, 140), -1000, np.int16)
SLICE[20:120, 30:125] = RNG.integers(-200, 300, (100, 95))
SMALL = SLICE[20:90, 30:90]
PICTURE = RNG.integers(0, 256, (61, 47), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (40, 31, 3), dtype=np.uint8)
CROP = np.tile(RNG.integers(0, 2500, (17, 39, 39), dtype=np.uint16), (20, 10, 10))
BLANK = FLOATS.copy()
BLANK[3:9] = 0
BLANK[:, :, 7:] = -0.375

ALONG = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
ACROSS = ((0.0, 0.28, 0.96), (0.0, 0.96, -0.28), (1.0, 0.0, 0.0))
GEOMETRY = Geometry((14, 12, 10), (1.0, 2.0, 3.0), (24.0, 25.0, 26.0), ALONG)
TILTED = Geometry((14, 12, 10), (1.0, 2.0, 3.0), (24.0, 25.0, 26.0), ACROSS)
FINE = Geometry((14, 12, 10), (1.0, 2.0, 3.0), (2.0, 1.5, 1.7), ALONG)
MILLIMETRES = Geometry((28, 18, 17), (1.0, 2.0, 3.0), (1.0, 1.0, 1.0), ALONG)
FEET_FIRST = Reorientation((1, 2, 0), (True, False, True))
SPACE = published_space((14, 12, 10), (24.0, 25.0, 33.0), 16)
INVERSE = np.repeat(np.repeat(FLOATS[:8, :8, :8], 2, axis=0), 2, axis=1).repeat(2, axis=2)
INVERSE_MASK = (INVERSE > 0).astype(np.uint8)
STRAIGHT = normalise(Volume(HU, GEOMETRY), "corrected", 16).space
OBLIQUE = normalise(Volume(HU, TILTED), "corrected", 16).space
ORDERED = type(SPACE)(
    "parity", SPACE.shape, SPACE.field_mm, SPACE.source_shape, SPACE.spacing, SPACE.matrix,
    SPACE.offset, SPACE.reorientation, order=(3, 1, 0, 2, 4, 5, 6, 9, 8, 7),
)  # fmt: skip


def normalised(voxels, geometry, mode):
    return normalise(Volume(voxels, geometry), mode, 16).voxels


def copied(array):
    return namespace(array).asarray(array, copy=True)


def signal(hu):
    hu = copied(hu)
    normalise_signal(hu)
    return hu


def added(total, slab, values):
    total = copied(total)
    add(total, slab, values)
    return total


def sampled(array, places, order):
    return sample_points(array, list(places), order, -7.0)


def there_and_back(array):
    return FEET_FIRST.apply(array), FEET_FIRST.undo(array)


def reoriented(voxels):
    return Volume(voxels, GEOMETRY).reoriented(FEET_FIRST).voxels


def planes(voxels):
    return by_position(Volume(voxels, GEOMETRY)).whole()


def bytes_and_bools(scores):
    mask = as_uint8(scores > 0)
    return mask, as_bool(mask)


def square_of(image):
    return fit_square(image, 32)


PLACES = tuple(RNG.uniform(-1, n, (5, 6)) for n in HU.shape)

CASES = [
    Case("bytes and bools", bytes_and_bools, (FLOATS,)),
    Case("reorientation", there_and_back, (HU,)),
    Case("reoriented volume", reoriented, (HU,)),
    Case("planes by position", planes, (HU,)),
    Case("ct-angel window", ct_angel_window, (HU, Window(1500, -600))),
    Case("display window", display_window, (HU,)),
    Case("display window of floats", display_window, (FLOATS * 500,)),
    Case("padding to air", padding_to_air, (HU,)),
    Case("normalised signal", signal, (FLOATS * 500,)),
    Case("parity space", normalised, (HU, GEOMETRY, "parity")),
    Case("parity space of floats", normalised, (FLOATS, GEOMETRY, "parity")),
    Case("corrected space", normalised, (HU, GEOMETRY, "corrected")),
    Case("corrected space of floats", normalised, (FLOATS, GEOMETRY, "corrected")),
    # Single precision on a GPU: up to 2000 HU in steps of 2⁻¹³, over 1600.
    Case("oblique space", normalised, (HU, TILTED, "corrected"), atol=1e-6),
    Case("mask to the scan", to_source, (INVERSE_MASK, STRAIGHT)),
    Case("volume to the scan", to_source, (INVERSE, STRAIGHT, "linear", 0.5)),
    Case("mask to an ordered scan", to_source, (INVERSE_MASK, ORDERED), INDEXED),
    Case("volume to an ordered scan", to_source, (INVERSE, ORDERED, "linear"), INDEXED),
    Case("mask to an oblique scan", to_source, (INVERSE_MASK, OBLIQUE)),
    Case("volume to an oblique scan", to_source, (INVERSE, OBLIQUE, "linear"),
         atol=1e-5),
    Case("nearest samples", sampled, (FLOATS, PLACES, "nearest")),
    Case("linear samples", sampled, (FLOATS, PLACES, "linear"), atol=1e-5),
    *(
        case
        for d in ("x", "y", "z")
        for case in (
            Case(f"slices along {d}", slices_first, (FLOATS, d)),
            Case(f"slab along {d}", cut, (FLOATS, Slab(d, 1, 5), 3)),
            Case(f"slab in float16, {d}", cut, (FLOATS, Slab(d, 1, 5), 3, np.float16), FLOAT16),
            Case(f"same inputs along {d}", same_inputs, (BLANK, d, (-1, 0, 1)), on_host=True),
        )
    ),
    Case("slab added", added, (FLOATS, Slab("x", 2, 6, {3: (0, 9)}), FLOATS[:4] * 3)),
    Case("body box", body_box, (SLICE,)),
    Case("body box of a small slice", body_box, (SMALL,)),
    Case("lungmask's slice", prepare_slice, (SLICE,)),
    Case("lungmask's slice of 8 bits", prepare_slice, ((SLICE // 16).astype(np.int8),)),
    Case("lungmask's slice of floats", prepare_slice, (SLICE.astype(np.float32),)),
    Case("lungmask's signal", normalise_hu, (SLICE,)),
    Case("resized on the corners", resize_corners_int, (SLICE, (65, 64))),
    Case("resized on the corners to an odd unit", resize_corners_int, (SLICE, (64, 64))),
    *(Case(f"nearest, {rule}", resize_nearest, (HU, (7, 23), rule))
      for rule in ("pillow", "opencv", "corners")),
    Case("resized in 8 bits", resize_bilinear_u8, (PICTURE, (64, 80))),
    Case("resized to a quarter in 8 bits", resize_bilinear_u8, (PICTURE, (15, 12))),
    Case("resized in 8 bits and colours", resize_bilinear_u8, (COLOURS, (64, 80)), STRIDES),
    Case("resized grey in 8 bits", resize_bilinear_u8,
         (np.repeat(PICTURE[:, :, None], 3, axis=2), (64, 80)), STRIDES),
    Case("resized in floats", resize_bilinear, (FLOATS, (20, 9)), atol=1e-6),
    Case("resized mask in floats", resize_bilinear, (PICTURE, (20, 90)), rtol=1e-6),
    Case("square", square_of, (PICTURE,)),
    Case("square that fits", square_of, (PICTURE[:32, :32],)),
    Case("voxels of 1 mm", to_millimetres, (HU + np.int16(1024), (2.0, 1.5, 1.7)), IN_PLACE),
    # Every second voxel lies half way: the library itself, on the host.
    Case("voxels of 1 mm, half way", to_millimetres,
         (np.tile(np.arange(12, dtype=np.int16), (12, 12, 1)), (1.0, 1.0, 23 / 12)), IN_PLACE),
    Case("mask in voxels of 1 mm", mask_to_millimetres, (MASK, FINE)),
    Case("mask back to the scan", to_grid, (np.ones((28, 18, 17), np.uint8), MILLIMETRES, FINE)),
    Case("common box of a smaller scan", common_box, (HU, (20, 10, 12))),
    Case("network's window", network_window, (CROP,), FLOAT16),
    Case("window's share", window_share, (CROP,)),
    Case("stored values normalised", normalise_stored, (HU + np.int16(1100),), FLOAT16),
]  # fmt: skip


@pytest.mark.parametrize(("case", "module"), parameters(CASES))
def test_a_step_is_the_same_on(case: Case, module: str) -> None:
    check(case, module)


@pytest.mark.parametrize("case", only_beyond(CASES))
def test_what_is_said_to_be_beyond_the_standard_is(case: Case) -> None:
    check_refused(case)


def test_cupy_has_what_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(check_cupy_signatures(CASES, monkeypatch)) > 10
