"""Words with more in them than BitsStored says."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.catalog import HilumError
from hilum.preprocessing.reading.stored_words import Layout, values_of

ROW, COLUMN = np.mgrid[0:200, 0:220]
RAMP = np.rint(ROW * 7 + COLUMN * 4).astype(np.int32)
"""0 to 2269, smooth."""


def test_values_larger_than_declared_are_read_in_full() -> None:
    words = RAMP.astype("<u2")
    np.testing.assert_array_equal(values_of(words, Layout(10, 0, False)), RAMP)


def test_an_overlay_is_masked_off_whether_declared_or_seen() -> None:
    values = RAMP // 4
    words = values.astype("<u2")
    words[50:60, 20:90] |= 0x4000
    for overlays in (0, 0x4000):
        layout = Layout(12, 0, False, overlays=overlays)
        np.testing.assert_array_equal(values_of(words, layout), values)


def test_an_overlay_on_signed_values_is_masked_off() -> None:
    values = RAMP - 1100
    words = values.astype("<i2").view("<u2")
    packed = words & 0x0FFF
    for base in (words, packed):
        marked = base.copy()
        marked[50:60, 20:90] ^= 0x4000
        layout = Layout(12, 0, True, overlays=0x4000)
        np.testing.assert_array_equal(values_of(marked, layout), np.clip(values, -2048, 2047))


def test_signed_values_that_do_not_fit_are_read_in_full() -> None:
    values = RAMP - 1500
    values[:9, :9], values[100:120, 100:120] = -3024, 2500
    words = values.astype("<i2").view("<u2")
    np.testing.assert_array_equal(values_of(words, Layout(12, 0, True)), values)


def test_negative_values_without_sign_extension_are_the_standards() -> None:
    values = RAMP - 1100
    words = values.astype("<i2").view("<u2") & 0x0FFF
    np.testing.assert_array_equal(values_of(words, Layout(12, 0, True)), values)


@pytest.mark.parametrize("signed", [False, True])
def test_padding_is_compared_before_anything_is_masked_off(signed) -> None:
    values = RAMP // 2 - (500 if signed else 0)
    words = values.astype("<i2").view("<u2").copy()
    words[:30, :30] = 63536
    padding = (-2000, -2000) if signed else (63536, 63536)
    read = values_of(words, Layout(12, 0, signed, padding))
    assert (read[:30, :30] == padding[0]).all()
    np.testing.assert_array_equal(read[30:], values[30:])


def test_words_that_cannot_be_decided_are_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 2**16, (64, 64)).astype("<u2")
    for signed in (False, True):
        with pytest.raises(HilumError, match="BitsStored"):
            values_of(noise, Layout(10, 0, signed))


def test_all_words_that_fit_are_read_as_they_are() -> None:
    noise = np.random.default_rng(0).integers(0, 2**16, (64, 64)).astype("<u2")
    for bits in (8, 12, 16):
        fits = noise & (2**bits - 1)
        np.testing.assert_array_equal(values_of(fits, Layout(bits, 0, False)), fits)
        np.testing.assert_array_equal(
            values_of(fits << (16 - bits), Layout(bits, 16 - bits, False)), fits
        )
