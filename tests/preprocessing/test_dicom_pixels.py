"""DICOM at the low level: recognition, limits, transfer syntaxes, signs, tables."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from hilum.catalog import HilumError
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading import dicom

SYNTAXES = {
    "1.2.840.10008.1.2": 0, "1.2.840.10008.1.2.1": 0, "1.2.840.10008.1.2.2": 0,
    "1.2.840.10008.1.2.1.99": 0, "1.2.840.10008.1.2.4.57": 0, "1.2.840.10008.1.2.4.70": 0,
    "1.2.840.10008.1.2.4.80": 0, "1.2.840.10008.1.2.4.81": 3, "1.2.840.10008.1.2.4.90": 0,
    "1.2.840.10008.1.2.4.91": 60, "1.2.840.10008.1.2.5": 0,
}  # fmt: skip
"""Transfer syntaxes of the same slice, with the largest loss in stored values."""


@pytest.fixture(scope="module")
def phantom_bytes(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("dicom") / "phantom.dcm"
    write_dicom(chest_xray(2, height=256, width=260), path)
    return path.read_bytes()


def rewritten(data: bytes, **changes) -> bytes:
    """The file again with some attributes changed; None deletes one."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def slice_file(shared, uid: str) -> bytes:
    folder = shared / "data" / "dicom-transfer-syntaxes"
    return next(p for p in folder.glob("*.dcm") if p.name.endswith(f"_{uid}.dcm")).read_bytes()


@pytest.mark.parametrize(("uid", "loss"), SYNTAXES.items())
def test_transfer_syntaxes_of_one_slice(shared, uid, loss) -> None:
    plain = pydicom.dcmread(shared / "data" / "dicom-transfer-syntaxes" / "CTImage.dcm")
    dataset = dicom.parse(slice_file(shared, uid))
    stored = dicom.stored_values(dataset)
    assert stored.dtype == np.int32
    assert np.abs(stored - plain.pixel_array.astype(int)).max() <= loss
    hu = dicom.modality_values(dataset, stored)
    assert hu.dtype == np.float32
    np.testing.assert_array_equal(hu, stored - 1024)


def test_lossy_8_and_12_bit_jpeg(shared) -> None:
    for uid, bits in (("1.2.840.10008.1.2.4.50", 8), ("1.2.840.10008.1.2.4.51", 12)):
        stored = dicom.stored_values(dicom.parse(slice_file(shared, uid)))
        assert stored.min() >= 0
        assert 2 ** (bits - 1) < stored.max() < 2**bits


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"])
def test_syntaxes_that_nothing_decodes_are_named(shared, uid) -> None:
    with pytest.raises(HilumError, match=r"transfer syntax JPEG .* cannot be decoded; export"):
        dicom.stored_values(dicom.parse(slice_file(shared, uid)))


@pytest.mark.filterwarnings("ignore:End of file reached")
@pytest.mark.parametrize("uid", [u for u in SYNTAXES if ".4." in u or u.endswith(".5")])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_compressed_files_are_refused(shared, uid, share) -> None:
    data = slice_file(shared, uid)
    with pytest.raises(HilumError, match="DICOM"):
        dicom.stored_values(dicom.parse(data[: int(len(data) * share)]))


@pytest.mark.parametrize("size", [140, 200, 400, 1500, 60_000, -1])
def test_truncated_plain_files_are_refused(phantom_bytes, size) -> None:
    with pytest.raises(HilumError, match="DICOM"):
        dicom.stored_values(dicom.parse(phantom_bytes[:size]))


def test_no_patient_attribute_is_parsed(phantom_bytes) -> None:
    dataset = dicom.parse(phantom_bytes)
    assert "PatientName" not in dataset
    assert "PatientID" not in dataset


def test_recognised_by_content(phantom_bytes) -> None:
    assert dicom.is_dicom(phantom_bytes)
    assert dicom.is_dicom(phantom_bytes[132:])
    assert not dicom.is_dicom(b"hello, this is a text and not an image at all")
    assert not dicom.is_dicom(b"\x89PNG\r\n\x1a\n")
    assert not dicom.is_dicom(b"")


@pytest.mark.parametrize("implicit", [True, False])
def test_file_without_preamble_and_meta(phantom_bytes, implicit) -> None:
    dataset = pydicom.dcmread(io.BytesIO(phantom_bytes))
    wanted = dataset.pixel_array
    bare = Dataset({e.tag: e for e in dataset})
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, bare, implicit_vr=implicit, little_endian=True)
    assert buffer.getvalue()[128:132] != b"DICM"
    assert dicom.is_dicom(buffer.getvalue())
    np.testing.assert_array_equal(dicom.stored_values(dicom.parse(buffer.getvalue())), wanted)


def test_signed_values_and_foreign_high_bits() -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 1, 4, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 1
    for overlay in range(4):
        dataset.add_new((0x6000 + 2 * overlay, 0x0100), "US", 16)
        dataset.add_new((0x6000 + 2 * overlay, 0x0102), "US", 12 + overlay)
    # −1 and −2048 without sign extension, 5 under an overlay in the top bits, 2047.
    dataset.PixelData = np.array([0x0FFF, 0x0800, 0xF005, 0x07FF], "<u2").tobytes()
    assert dicom.stored_values(dataset).tolist() == [[-1, -2048, 5, 2047]]
    dataset.PixelRepresentation = 0
    dataset.HighBit, dataset.BitsStored = 15, 12
    dataset.PixelData = np.array([0x0010, 0xFFF0, 0x800F, 0x0000], "<u2").tobytes()
    assert dicom.stored_values(dataset).tolist() == [[1, 4095, 2048, 0]]


def test_modality_lut_wins_over_rescale(phantom_bytes) -> None:
    item = Dataset()
    item.LUTDescriptor = [4, 10, 16]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "US", [100, 200, 300, 400])
    item.ModalityLUTType = "US"
    dataset = dicom.parse(rewritten(phantom_bytes, ModalityLUTSequence=[item], RescaleSlope=7))
    values = dicom.modality_values(dataset, np.array([0, 10, 12, 13, 4000], np.int32))
    assert values.tolist() == [100, 100, 300, 400, 400]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"Rows": 60_000, "Columns": 60_000}, "more than the limit"),
        ({"Rows": 0}, "0 pixels"),
        ({"Rows": None}, "not described"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "bits"),
        ({"BitsStored": 0}, "bits"),
        ({"PixelData": None}, "without pixel data"),
        ({"PixelData": b""}, "without pixel data"),
        ({"Rows": 300}, "truncated"),
    ],
)
def test_what_cannot_be_shown_is_refused(phantom_bytes, changes, message) -> None:
    with pytest.raises(HilumError, match=message):
        dicom.stored_values(dicom.parse(rewritten(phantom_bytes, **changes)))


@pytest.mark.parametrize(
    "changes", [{"RescaleSlope": 0}, {"RescaleSlope": "inf"}, {"RescaleIntercept": "nan"}]
)
def test_useless_rescale_is_refused(phantom_bytes, changes) -> None:
    with pytest.raises(HilumError, match="Rescale"):
        dataset = dicom.parse(phantom_bytes)
        for keyword, value in changes.items():
            dataset[keyword]._value = value
        dicom.modality_values(dataset, np.zeros(3, np.int32))


def test_compressed_pixels_of_another_size_are_refused(shared) -> None:
    for uid in ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.70"):
        with pytest.raises(HilumError, match="another size than declared"):
            dicom.stored_values(dicom.parse(rewritten(slice_file(shared, uid), Rows=511)))


def test_dicomdir_is_not_followed(phantom_bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(phantom_bytes))
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    with pytest.raises(HilumError, match="DICOMDIR"):
        dicom.parse(buffer.getvalue())


def test_deflated_bomb_is_refused_before_it_unpacks(phantom_bytes, monkeypatch) -> None:
    dataset = pydicom.dcmread(io.BytesIO(phantom_bytes))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert dicom.stored_values(dicom.parse(buffer.getvalue())).shape == (256, 260)
    monkeypatch.setattr(dicom, "MAX_FILE_BYTES", 100_000)
    with pytest.raises(HilumError, match="unpacks to more"):
        dicom.parse(buffer.getvalue())


def test_damaged_deflated_data_is_refused(phantom_bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(phantom_bytes))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    start = 144 + int.from_bytes(buffer.getvalue()[140:144], "little")
    assert zlib.decompress(buffer.getvalue()[start:], -15)
    with pytest.raises(HilumError, match="damaged"):
        dicom.parse(buffer.getvalue()[:start] + b"\xff" * 400)
