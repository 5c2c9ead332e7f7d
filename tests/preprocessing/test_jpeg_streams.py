"""JPEG streams as old and new modalities write them: every predictor, depth and restart."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import jpeg_ls
import jpeg_writer
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from hilum.catalog import HilumError
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading import dicom, jpeg_dct, jpeg_lossless
from hilum.preprocessing.reading.dicom_decoders import decoders
from hilum.preprocessing.reading.jpeg_stream import UnreadableJpegError, parse


def picture(bits: int, noise: float = 0.02, shape: tuple[int, int] = (37, 53)) -> np.ndarray:
    """Whole numbers from one seed, so that the streams are the same everywhere."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    random = np.random.default_rng(bits).integers(-1000, 1001, shape) / 1000
    values = ((x * 5 + y * 3) % 100 / 100 * 0.7 + 0.15 + noise * random) * (2**bits - 1)
    return np.clip(values, 0, 2**bits - 1).astype(np.int64)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [2, 8, 12, 16])
@pytest.mark.parametrize("lines", [0, 5])
def test_lossless_streams_give_every_sample_back(bits: int, predictor: int, lines: int) -> None:
    for noise in (0.02, 1):
        wanted = picture(bits, noise)
        stream = jpeg_writer.lossless(wanted, bits, predictor, lines)
        assert np.array_equal(jpeg_lossless.decode(parse(stream)), wanted)


def test_a_point_transform_takes_the_lowest_bits_away() -> None:
    wanted = picture(12)
    found = jpeg_lossless.decode(parse(jpeg_writer.lossless(wanted, 12, 1, shift=2)))
    assert np.array_equal(found, wanted >> 2 << 2)


def test_a_scan_of_several_parts_is_joined() -> None:
    wanted = picture(16, 1, (200, 300))
    stream = jpeg_writer.lossless(wanted, 16)
    assert len(stream) > 1 << 16
    assert np.array_equal(jpeg_lossless.decode(parse(stream)), wanted)


REFERENCE = {
    (8, 1, 0): "9b9969a0f9b8d832",
    (8, 7, 3): "5ec5ae362d8ab701",
    (8, 90, 0): "355c5cd0dc6f90d7",
    (12, 1, 0): "48d173bf76733149",
    (12, 7, 3): "59887e4857b2e030",
    (12, 90, 0): "12eb0f903d7bd5b2",
}
"""By bits, step and restarts: the JPEG committee's decoder (pylibjpeg-libjpeg 2.2) gives these."""


@pytest.mark.parametrize(("bits", "step", "restart"), REFERENCE)
def test_lossy_samples_are_those_of_the_reference_decoder(
    bits: int, step: int, restart: int
) -> None:
    wanted = picture(bits, 0.2)
    found = jpeg_dct.decode(parse(jpeg_writer.sequential(wanted, bits, step, restart)))
    assert np.abs(found - wanted).max() <= 4 * step
    digest = hashlib.sha256(found.astype("<u2").tobytes()).hexdigest()[:16]
    assert digest == REFERENCE[bits, step, restart]


@pytest.mark.parametrize("kind", ["lossless", "sequential"])
def test_damaged_streams_are_refused_or_give_a_picture(kind: str) -> None:
    good = getattr(jpeg_writer, kind)(picture(12, shape=(24, 24)), 12)
    decode = jpeg_lossless.decode if kind == "lossless" else jpeg_dct.decode
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        bad = bytearray(good)
        for place in random.integers(0, len(bad), random.integers(1, 5)):
            bad[place] = random.integers(256)
        try:
            stream = parse(bytes(bad))
            if stream.height * stream.width < 1 << 16:
                assert decode(stream).shape == (stream.height, stream.width)
        except UnreadableJpegError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("kind", ["lossless", "sequential"])
def test_a_stream_cut_anywhere_is_refused(kind: str) -> None:
    good = getattr(jpeg_writer, kind)(picture(12, shape=(24, 24)), 12)
    decode = jpeg_lossless.decode if kind == "lossless" else jpeg_dct.decode
    for end in range(2, len(good) - 3, 7):
        with pytest.raises(UnreadableJpegError):
            decode(parse(good[:end]))


@pytest.mark.parametrize(
    ("syntax", "kind", "bits", "loss"),
    [
        (JPEGLosslessSV1, "lossless", 12, 0),
        (JPEGExtended12Bit, "sequential", 12, 5),
        (JPEGBaseline8Bit, "sequential", 8, 5),
    ],
)
def test_an_xray_in_jpeg_is_read(tmp_path, syntax, kind, bits, loss) -> None:
    write_dicom(chest_xray(2, height=64, width=72), tmp_path / "x.dcm")
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    wanted = picture(bits, shape=(64, 72))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (
        8 if bits == 8 else 16,
        bits,
        bits - 1,
    )
    dataset.PixelData = encapsulate([getattr(jpeg_writer, kind)(wanted, bits)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    found = dicom.stored_values(dicom.parse(buffer.getvalue()))
    assert np.abs(found - wanted).max() <= loss
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.save_as(buffer := io.BytesIO())
    if bits == 12:
        with pytest.raises(HilumError, match="damaged"):
            dicom.stored_values(dicom.parse(buffer.getvalue()))


def _stream(kind: str, pixels: np.ndarray) -> bytes:
    if kind == "jpeg-ls":
        return bytes(jpeg_ls.encode(pixels.astype(np.uint8)))
    if kind == "jpeg-2000":
        Image.fromarray(pixels.astype(np.uint8)).save(
            out := io.BytesIO(), format="JPEG2000", no_jp2=True
        )
        return out.getvalue()
    return getattr(jpeg_writer, kind)(pixels, 8)


@pytest.mark.parametrize("modality", ["xray", "ct"])
@pytest.mark.parametrize(
    ("syntax", "kind"),
    [
        (JPEGBaseline8Bit, "sequential"),
        (JPEGLosslessSV1, "lossless"),
        (JPEGLSLossless, "jpeg-ls"),
        (JPEG2000Lossless, "jpeg-2000"),
    ],
)
def test_a_truncated_stream_in_a_whole_dicom_file_is_refused(
    tmp_path: Path, syntax: UID, kind: str, modality: str
) -> None:
    if modality == "xray":
        write_dicom(chest_xray(2, height=64, width=72), tmp_path / "x.dcm")
        path = tmp_path / "x.dcm"
    else:
        path = write_dicom_series(chest_ct(1, slices=3, size=64).volume, tmp_path)[0]
    dataset = pydicom.dcmread(path)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    stream = _stream(kind, picture(8, shape=(dataset.Rows, dataset.Columns)))
    dataset.file_meta.TransferSyntaxUID = syntax

    def read(part: bytes) -> np.ndarray:
        dataset.PixelData = encapsulate([part])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(buffer := io.BytesIO())
        return dicom.stored_values(dicom.parse(buffer.getvalue()))

    assert read(stream).shape == (dataset.Rows, dataset.Columns)
    for share in (0.3, 0.5, 0.9, 0.98):
        for end in (b"", b"\xff\xd9"):
            with pytest.raises(HilumError, match="damaged") as caught:
                read(stream[: int(len(stream) * share)] + end)
            assert "\n" not in str(caught.value)


def test_every_compressed_syntax_has_its_decoder_here() -> None:
    found = list(decoders())
    assert len(found) == 12
    assert all(decoder.there for decoder in found)
