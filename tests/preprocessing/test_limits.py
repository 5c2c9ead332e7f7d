"""Files that unfold, files that end too early, and settings that are not ours."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset

from hilum.catalog import HilumError
from hilum.preprocessing.dlpe.ready import read_normalised
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading import dicom
from hilum.preprocessing.reading.codestreams import check_rle, codestream_sizes
from hilum.preprocessing.reading.images import read_xray
from hilum.preprocessing.reading.nifti_limits import check_nifti
from hilum.preprocessing.reading.series import open_series

PIXELS = cv2.GaussianBlur(chest_xray(6, height=280, width=300).pixels, (3, 3), 0)


def jpeg(*options: int) -> bytes:
    return cv2.imencode(".jpg", PIXELS, list(options))[1].tobytes()


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_a_truncated_jpeg_is_refused_though_it_has_an_end_mark(options, share) -> None:
    whole = jpeg(*options)
    assert read_xray(whole).pixels.shape == (280, 300, 3)
    with pytest.raises(HilumError, match="JPEG"):
        read_xray(whole[: int(len(whole) * share)].rstrip(b"\xff") + b"\xff\xd9")


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_png_is_refused_though_its_chunks_are_whole(share) -> None:
    whole = cv2.imencode(".png", PIXELS)[1].tobytes()
    header = whole[:33]
    raw = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    packed = zlib.compress(raw)
    for content in (
        packed[: int(len(packed) * share)],
        zlib.compress(raw[: int(len(raw) * share)]),
    ):
        with pytest.raises(HilumError, match="PNG"):
            read_xray(header + chunk(b"IDAT", content) + chunk(b"IEND", b""))
    assert read_xray(header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")).pixels.shape[0] == 280


def test_a_jpeg_of_many_scans_is_refused() -> None:
    whole = jpeg()
    with pytest.raises(HilumError, match="scans"):
        read_xray(whole[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 200 + whole[-2:])


@pytest.mark.parametrize("preamble", [True, False])
def test_deflated_files_are_limited_however_they_are_wrapped(preamble, monkeypatch) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(buffer, meta, enforce_standard=False)
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(bytes(2**22)) + packer.flush()
    start = b"\0" * 128 + b"DICM" if preamble else b""
    monkeypatch.setattr(dicom, "MAX_FILE_BYTES", 2**20)
    with pytest.raises(HilumError, match="unpacks to more"):
        dicom.parse(start + buffer.getvalue() + bomb)


def deflated(content: bytes) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(buffer, meta, enforce_standard=False)
    packer = zlib.compressobj(wbits=-15)
    return bytes(128) + b"DICM" + buffer.getvalue() + packer.compress(content) + packer.flush()


def described(rows: int, columns: int) -> bytes:
    numbers = ((0x0010, rows), (0x0011, columns), (0x0100, 16))
    return b"".join(struct.pack("<HH2sHH", 0x28, tag, b"US", 2, n) for tag, n in numbers)


@pytest.mark.parametrize(
    ("rows", "columns", "limit"), [(0, 0, 4), (512, 512, 4), (4096, 4096, 36), (65535, 65535, 4)]
)
def test_deflated_files_unpack_to_their_declared_pixels_at_most(rows, columns, limit) -> None:
    bomb = deflated(described(rows, columns) + bytes(100 * 2**20))
    assert len(bomb) < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(HilumError, match=f"more than {limit} MiB"):
            dicom.parse(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (2 * limit + 40) * 2**20


def test_a_deflated_picture_larger_than_what_a_header_may_have_is_read() -> None:
    length = 2 * 3000 * 3000
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, length) + bytes(length)
    assert len(dicom.parse(deflated(described(3000, 3000) + pixels)).PixelData) == length


@pytest.mark.parametrize("intercept", ["2147483000", "3e9", "1e20", "-1e12"])
def test_an_intercept_that_leads_out_of_hounsfield_units_is_refused(tmp_path, intercept) -> None:
    for path in write_dicom_series(chest_ct(3, slices=3, size=40).volume, tmp_path):
        dataset = pydicom.dcmread(path)
        dataset.RescaleIntercept = intercept
        dataset.save_as(path)
    with pytest.raises(HilumError, match="RescaleIntercept"):
        open_series(tmp_path).slice(0)


def test_jpeg_ls_without_an_end_is_refused_before_it_is_decoded(tmp_path, monkeypatch) -> None:
    write_dicom(chest_xray(2, height=256, width=260), tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.compress(pydicom.uid.JPEGLSLossless)
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.save_as(tmp_path / "whole.dcm")
    assert read_xray(tmp_path / "whole.dcm").size == (256, 260)
    cut = frame[: frame.rindex(b"\xff\xd9") // 2 * 2]
    dataset.PixelData = pydicom.encaps.encapsulate([cut])
    dataset.save_as(tmp_path / "cut.dcm")
    monkeypatch.setattr(dicom, "decoded", None)
    with pytest.raises(HilumError, match="damaged pixel data"):
        read_xray(tmp_path / "cut.dcm")


def test_the_size_in_a_codestream_counts_behind_any_boxes() -> None:
    siz = struct.pack(">HHHH8IH", 0xFF4F, 0xFF51, 41, 0, 30000, 30000, 0, 0, 1, 1, 0, 0, 1)
    assert codestream_sizes(b"box" * 5000 + siz) == {(30000, 30000)}
    with pytest.raises(HilumError):
        codestream_sizes(b"box" * 5000)


def test_rle_is_limited_to_what_is_declared() -> None:
    head = struct.pack("<16I", 1, 64, *[0] * 14)
    check_rle(head + b"\x81\0" * 8, 1024)
    with pytest.raises(HilumError, match="RLE"):
        check_rle(head + b"\x81\0" * 1000, 1024)


@pytest.mark.parametrize(
    ("shape", "bits", "offset", "extension"),
    [((512, 512, 1500), 64, 352, b""), ((9, 9, 9), 16, 2**24, b""),
     ((9, 9, 9), 16, 384, struct.pack("<ii", 32, 32) + b"<!DOCTYPE ZZMARK>")],
)  # fmt: skip
def test_nifti_is_refused_by_what_it_declares(tmp_path, shape, bits, offset, extension) -> None:
    head = bytearray(348)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, 4, bits)
    struct.pack_into("<f", head, 108, offset)
    packer = zlib.compressobj(wbits=31)
    content = bytes(head) + bytes([bool(extension), 0, 0, 0]) + extension + bytes(5000)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(packer.compress(content) + packer.flush())
    with pytest.raises(HilumError) as refused:
        check_nifti(path)
    assert "ZZMARK" not in str(refused.value)


def test_an_array_that_unfolds_to_gigabytes_is_refused_by_its_header(tmp_path) -> None:
    path = tmp_path / "a.npz"
    header = {"descr": "<f4", "fortran_order": False, "shape": (1024, 1024, 1024)}
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with packed, packed.open("array.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(bytes(2**24))
    with pytest.raises(HilumError, match="would unpack to 4096 MiB"):
        read_normalised(path)


def test_fifos_in_folders_are_not_opened(tmp_path) -> None:
    from hilum.preprocessing.reading.ct_headers import list_files
    from hilum.preprocessing.reading.images import is_xray_file

    os.mkfifo(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(b"x")
    assert [f.name for f in list_files([tmp_path])] == ["b.dcm"]
    assert not is_xray_file((tmp_path / "a.dcm").relative_to(tmp_path), tmp_path)


def test_importing_the_readers_changes_no_setting_of_the_program() -> None:
    code = """
import logging, warnings, pydicom
def state():
    names = ("pydicom", "nibabel", "nibabel.global")
    loggers = [(logging.getLogger(n).level, logging.getLogger(n).disabled) for n in names]
    return list(warnings.filters), pydicom.config.settings.reading_validation_mode, loggers
import nibabel, cv2, h5py
before = state()
from hilum.preprocessing.reading import images, series, nifti
from hilum.catalog import HilumError
assert state() == before, "import"
for bad in (b"DICM", bytes(128) + b"DICM" + bytes(99)):
    try: images.read_xray(bad)
    except HilumError: pass
assert state() == before, "reading"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["Rows", "HighBit", "WindowCenter", "PatientOrientation"])
def test_damaged_attributes_give_one_error_without_their_text(name, tmp_path) -> None:
    write_dicom(chest_xray(2, height=256, width=260), tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.add(pydicom.DataElement(name, "LO", "ZZMARK"))
    dataset.save_as(tmp_path / "b.dcm")
    with pytest.raises(HilumError) as refused:
        read_xray(tmp_path / "b.dcm")
    assert "ZZMARK" not in str(refused.value)
