"""Pixels of CT slices: decoded once each, in Hounsfield units, padding kept apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from hilum.catalog.errors import Damaged
from hilum.catalog.terms import AIR_HU

from . import dicom
from .ct_frames import Frame, of_pydicom
from .limits import MAX_MULTIFRAME_BYTES, read_bytes
from .locked import Locked

_HIGHEST_HU = 3071
"""A padding value above this looks like metal."""

_WHOLE_FILE = ("PixelData", "NumberOfFrames", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")


class FrameReader(Locked):
    """Decodes slices. The last file of several frames stays in memory, taken apart once."""

    def __init__(self) -> None:
        super().__init__()
        self._open: tuple[Path, Dataset, list[bytes]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_open": None}  # a header names the patient

    def stored(self, frame: Frame) -> NDArray[np.int32]:
        """Stored values, int32 [rows, columns].

        Raises
        ------
        InputError
            When the slice cannot be decoded.
        """
        return dicom.stored_values(self._dataset(frame))

    def hounsfield(self, frame: Frame) -> NDArray[np.int16]:
        """A slice in HU, int16 [rows, columns]; padding that would show as tissue becomes air.

        Raises
        ------
        InputError
            When it cannot be decoded.
        """
        dataset = self._dataset(frame)
        stored = dicom.stored_values(dataset)
        slope, intercept = frame.rescale or (1.0, 0.0)
        if slope == 1 and intercept.is_integer():
            hu = stored + np.int32(intercept)
        else:
            hu = np.rint(stored * slope + intercept)
        hu = np.clip(hu, -(2**15), 2**15 - 1).astype(np.int16)
        if frame.padding is not None:
            low, high = frame.padding
            shows = max(low * slope, high * slope) + intercept > AIR_HU
            padded = _padded(dataset, frame, stored)
            # What is padding by its whole word alone looks like a measurement once it is masked.
            hu[padded if shows else padded & ((stored < low) | (stored > high))] = AIR_HU
        return hu

    def exact(self, frame: Frame, *, padding_to_air: bool) -> NDArray[np.float32]:
        """A slice in HU, float32 [rows, columns], not rounded and not limited.

        Parameters
        ----------
        padding_to_air
            Voxels of PixelPaddingValue become −1024 HU.

        Raises
        ------
        InputError
            When it cannot be decoded.
        """
        dataset = self._dataset(frame)
        stored = dicom.stored_values(dataset)
        slope, intercept = frame.rescale or (1.0, 0.0)
        hu = (stored * slope + intercept).astype(np.float32)
        if padding_to_air and frame.padding is not None:
            hu[_padded(dataset, frame, stored)] = AIR_HU
        return hu

    def _dataset(self, frame: Frame) -> Dataset:
        if frame.frames == 1:
            return dicom.parse(read_bytes(frame.path))
        with self._lock:
            if self._open is None or self._open[0] != frame.path:
                self._open = frame.path, *_taken_apart(frame)
            _, whole, parts = self._open
        return _single_frame(whole, parts[frame.index])


def _padded(dataset: Dataset, frame: Frame, stored: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where a slice is padding, by its values or by its whole words.

    Of a value that tissue may have, too, in spite of the standard, only what reaches the edge.
    """
    low, high = frame.padding or (1, 0)
    slope, intercept = frame.rescale or (1.0, 0.0)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    padded = ((stored >= low) & (stored <= high)) | _padded_words(dataset, frame)
    if ends[1] <= AIR_HU or ends[0] > _HIGHEST_HU or not padded.any():
        return padded
    _, parts = cv2.connectedComponents(padded.astype(np.uint8))
    edge = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return padded & np.isin(parts, edge)


def _padded_words(dataset: Dataset, frame: Frame) -> NDArray[np.bool_]:
    """Where whole words, before any bit of them is masked off, are padding."""
    nothing = np.zeros((frame.rows, frame.columns), bool)
    syntax = dataset.file_meta.TransferSyntaxUID
    if frame.padding is None or syntax.is_encapsulated or not syntax.is_little_endian:
        return nothing
    if dataset.BitsAllocated != 16:
        return nothing
    low, high = frame.padding
    kind = "<i2" if low < 0 else "<u2"
    words = np.frombuffer(dataset.PixelData, kind, frame.rows * frame.columns)
    return ((words >= low) & (words <= high)).reshape(frame.rows, frame.columns)


def _taken_apart(frame: Frame) -> tuple[Dataset, list[bytes]]:
    """A file of several frames without its pixels, and the pixels of each."""
    whole = dicom.parse(read_bytes(frame.path, limit=MAX_MULTIFRAME_BYTES))
    pixels: Any = whole.PixelData
    with of_pydicom():
        if whole.file_meta.TransferSyntaxUID.is_encapsulated:
            parts = list(generate_frames(pixels, number_of_frames=frame.frames))
        else:
            length = frame.rows * frame.columns * int(whole.BitsAllocated) // 8
            parts = [pixels[i * length : (i + 1) * length] for i in range(frame.frames)]
        whole["PixelData"].value = b""
    if len(parts) != frame.frames:
        raise Damaged("DICOM: fewer frames than declared; transfer or export the file again")
    return whole, parts


def _single_frame(whole: Dataset, pixels: bytes) -> Dataset:
    """Make a single-frame image of one frame of a multi-frame one."""
    one = Dataset()
    one.file_meta = whole.file_meta
    with of_pydicom():
        for element in whole:
            if element.keyword not in _WHOLE_FILE:
                one.add(element)
        packed = whole.file_meta.TransferSyntaxUID.is_encapsulated
        one.PixelData = encapsulate([pixels]) if packed else pixels
        one["PixelData"].VR = whole["PixelData"].VR
        one["PixelData"].is_undefined_length = whole["PixelData"].is_undefined_length
    return one
