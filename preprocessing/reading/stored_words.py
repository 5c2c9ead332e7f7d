"""From the words of a DICOM file to stored values: what lies outside of BitsStored.

By the standard the bits beyond BitsStored mean nothing or hold overlays (PS3.5 8.1.1). In practice
they also hold the rest of values that are larger than declared, and padding written as a whole
word. So they are masked off where an overlay is declared or the picture itself shows that they are
no part of the values, read where it shows that they are, and otherwise the file is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import Damaged

_SMOOTH = 1 / 8
"""Neighbours differ by less than this share of the range of BitsStored."""

_CLEAR = 4
"""One reading must have so many times more smooth neighbours than the other."""

Words = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Layout:
    """How values lie in 16-bit words.

    Attributes
    ----------
    padding
        Whole words from the first to the second stand for no measurement.
    overlays
        Bits of the word that are declared as overlays.
    """

    bits: int
    shift: int
    signed: bool
    padding: tuple[int, int] | None = None
    overlays: int = 0


def values_of(words: NDArray[Any], layout: Layout) -> Words:
    """Read stored values.

    Parameters
    ----------
    words
        [H, W], of 8 or 16 bits, signed or not.

    Returns
    -------
    int32 [H, W]. Padding keeps the value of its whole word, whatever BitsStored says.

    Raises
    ------
    InputError
        When values do not fit BitsStored and it cannot be decided what they mean.
    """
    width = 8 * words.dtype.itemsize
    unsigned = words.view(f"u{words.dtype.itemsize}").astype(np.int32)
    whole = _signed(unsigned, width) if layout.signed else unsigned
    masked = (unsigned >> layout.shift) & (2**layout.bits - 1)
    if layout.signed:
        masked = _signed(masked, layout.bits)
    beyond = width - layout.shift - layout.bits
    if beyond <= 0:
        return masked
    padded, pad = _padding_of(unsigned, width, layout.padding)
    full = whole >> layout.shift
    strange = (full != masked) & ~padded
    if strange.any():
        high = unsigned >> (layout.shift + layout.bits)
        declared = layout.overlays >> (layout.shift + layout.bits)
        if not _read_whole(full, masked, high, beyond, declared, padded, layout.bits):
            full = masked
    return np.where(padded, pad, full) if padded.any() else full


def _read_whole(
    full: Words,
    masked: Words,
    high: Words,
    beyond: int,
    declared: int,
    padded: NDArray[np.bool_],
    bits: int,
) -> bool:
    """Whether the bits beyond BitsStored (`high`) belong to the values.

    Parameters
    ----------
    declared
        Those of them that are overlays.
    """
    ones = 2**beyond - 1
    usual = ((high & ~declared) == 0) | ((masked < 0) & ((high | declared) == ones))
    if declared and (usual | padded).all():
        return False
    negative = (masked < 0) & ~padded
    extended = np.count_nonzero(negative & (high == ones))
    if extended > _CLEAR * np.count_nonzero(negative & (high == 0)) and not declared:
        return True  # the writer extends the sign, so words are values of their whole width
    limit = int(2**bits * _SMOOTH)
    votes = [_smooth(values, full - masked, padded, limit) for values in (full, masked)]
    if votes[0] > _CLEAR * votes[1]:
        return True
    if votes[1] > _CLEAR * votes[0] or ((high == 0) | padded).all():
        return False
    raise Damaged(
        "DICOM: words with more bits than BitsStored (0028,0101) says, and no overlay is "
        "declared, so the values are unknown; export the image again"
    )


def _smooth(values: Words, apart: Words, padded: NDArray[np.bool_], limit: int) -> int:
    """Count neighbours of similar value where the two readings differ; 0 if most are not."""
    count = pairs = 0
    for one, other in (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ):
        where = (apart[one] != apart[other]) & ~padded[one] & ~padded[other]
        pairs += int(np.count_nonzero(where))
        count += int(np.count_nonzero(np.abs(values[one] - values[other])[where] < limit))
    return count if 2 * count > pairs else 0


def _padding_of(
    unsigned: Words, width: int, padding: tuple[int, int] | None
) -> tuple[NDArray[np.bool_], Words]:
    """Where whole words are padding, and the words by the sign of the padding's value.

    The value may have a sign although the pixels have none.
    """
    if padding is None:
        return np.zeros(unsigned.shape, bool), unsigned
    low, high = padding
    words = unsigned if high > 0x7FFF else _signed(unsigned, width)
    return (words >= low) & (words <= high), words


def _signed(values: Words, bits: int) -> Words:
    sign = 1 << (bits - 1)
    return (values ^ sign) - sign
