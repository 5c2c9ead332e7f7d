"""Each limit is where it is said to be: what is just below passes, what is just above does not.

The files are drawn at random, from seeds; each is wrapped in the ways that its format has. Nothing
is unfolded that is refused: the memory that a reading takes is held against the limit.
"""

from __future__ import annotations

import io
import os
import socket
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from held import at_most, refused
from pydicom.dataset import FileMetaDataset

from hilum.client.registry import INSTALLED
from hilum.preprocessing.dlpe.ready import read_normalised
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading import ct_headers, dicom, limits
from hilum.preprocessing.reading.codestreams import check_rle, codestream_sizes
from hilum.preprocessing.reading.image_headers import check_scans, read_header
from hilum.preprocessing.reading.images import read_xray
from hilum.preprocessing.reading.nifti_limits import check_nifti

SEEDS = range(4)
HEADER = 4 * 2**20
"""Bytes that a deflated DICOM file may hold besides its pixels."""


def deflated(content: bytes, *, preamble: bool, level: int) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(buffer, meta, enforce_standard=False)
    packer = zlib.compressobj(level, wbits=-15)
    start = bytes(128) + b"DICM" if preamble else b""
    return start + buffer.getvalue() + packer.compress(content) + packer.flush()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("preamble", [True, False])
def test_a_deflated_file_may_hold_its_pixels_and_four_mebibytes(seed: int, preamble: bool) -> None:
    draw = np.random.default_rng(seed)
    rows, columns = (int(n) for n in draw.integers(1, 900, 2))
    samples = int(draw.choice([1, 3]))
    numbers = ((0x0002, samples), (0x0010, rows), (0x0011, columns), (0x0100, 16))
    head = b"".join(struct.pack("<HH2sHH", 0x28, tag, b"US", 2, n) for tag, n in numbers)
    limit = HEADER + 2 * samples * rows * columns
    for more, right in ((0, False), (2, True)):
        length = limit + more - len(head) - 12
        pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, length) + bytes(length)
        packed = deflated(head + pixels, preamble=preamble, level=int(draw.integers(1, 10)))
        with at_most(4 * limit):
            assert refused(lambda: dicom.parse(packed)) is right  # noqa: B023


@pytest.mark.parametrize("seed", SEEDS)
def test_the_size_of_a_jpeg_2000_picture_is_compared_behind_any_boxes(
    seed: int, tmp_path: Path
) -> None:
    draw = np.random.default_rng(seed)
    rows, columns = (int(n) for n in draw.integers(256, 300, 2))
    write_dicom(chest_xray(seed, height=rows, width=columns), tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.compress(pydicom.uid.JPEG2000Lossless)
    stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    boxes = b"".join(
        struct.pack(">I4s", 8 + len(filling), b"free") + filling
        for filling in (
            draw.bytes(int(n)).replace(b"\xff", b"\0") for n in draw.integers(0, 900, 5)
        )
    )
    signature = struct.pack(">I4sI", 12, b"jP  ", 0x0D0A870A)
    wrapped = signature + boxes + struct.pack(">I4s", 8 + len(stream), b"jp2c") + stream
    for frame in (stream, wrapped):
        assert codestream_sizes(frame) == {(rows, columns)}
        for more in (-1, 1):
            dataset.PixelData = pydicom.encaps.encapsulate([frame])
            dataset.Rows = rows + more
            dataset.save_as(tmp_path / "b.dcm")
            with at_most(2**24):
                assert refused(lambda: read_xray(tmp_path / "b.dcm"))
    dataset.PixelData, dataset.Rows = pydicom.encaps.encapsulate([stream]), rows
    dataset.save_as(tmp_path / "c.dcm")
    assert read_xray(tmp_path / "c.dcm").size == (rows, columns)


@pytest.mark.parametrize("seed", SEEDS)
def test_rle_pixels_may_unpack_to_what_is_declared_and_a_little(seed: int) -> None:
    draw = np.random.default_rng(seed)
    segments = int(draw.integers(1, 4))
    length = int(draw.integers(100, 5000))
    for total, right in ((length + 64 * segments, False), (length + 64 * segments + 1, True)):
        parts = [b""] * segments
        for _ in range(total):
            parts[int(draw.integers(segments))] += b"\0\7"  # one byte, as it is
        starts = [64 + sum(map(len, parts[:n])) for n in range(segments)]
        head = struct.pack("<16I", segments, *starts, *[0] * (15 - segments))
        assert refused(lambda: check_rle(head + b"".join(parts), length)) is right  # noqa: B023


@pytest.mark.parametrize("seed", SEEDS)
def test_a_jpeg_may_have_so_many_scans(seed: int) -> None:
    draw = np.random.default_rng(seed)
    between = [draw.bytes(int(n)).replace(b"\xff", b"\0") for n in draw.integers(0, 99, 66)]
    for count, right in ((limits.MAX_SCANS, False), (limits.MAX_SCANS + 1, True)):
        stream = b"\xff\xda".join(between[: count + 1])
        assert refused(lambda: check_scans(stream)) is right  # noqa: B023


@pytest.mark.parametrize("seed", SEEDS)
def test_a_picture_may_declare_so_many_pixels(seed: int) -> None:
    draw = np.random.default_rng(seed)
    width = 2 ** int(draw.integers(12, 15))
    for height, right in (
        (limits.MAX_PIXELS // width, False),
        (limits.MAX_PIXELS // width + 1, True),
    ):
        size = struct.pack(">II", width, height) + b"\x08\0\0\0\0"
        png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 13, b"IHDR") + size
        png += struct.pack(">I", zlib.crc32(b"IHDR" + size))
        frame = struct.pack(">BHHB3s", 8, height, width, 1, b"\1\x11\0")
        jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xda\0\x02"
        for data in (png, jpeg):
            with at_most(2**20):
                # What is below the limit is refused for lacking its pixels.
                found = refused(lambda: read_header(data), "more than the limit")  # noqa: B023
                assert found is right


def nifti(
    shape: tuple[int, ...], bits: int, offset: int, *, order: str, version: int, content: bytes
) -> bytes:
    """A header of NIfTI 1 or 2, and what follows it."""
    size, kind, dims, at = (348, "h", 40, 70) if version == 1 else (540, "q", 16, 12)
    head = bytearray(size)
    struct.pack_into(f"{order}i", head, 0, size)
    struct.pack_into(f"{order}8{kind}", head, dims, 3, *shape, 1, 1, 1, 1)
    struct.pack_into(f"{order}hh", head, at, 4, bits)
    struct.pack_into(
        *((f"{order}f", head, 108) if version == 1 else (f"{order}q", head, 168)), offset
    )
    return bytes(head) + content


def packed_nifti(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
def test_extensions_and_voxels_of_nifti_end_where_they_may(
    order: str, version: int, tmp_path: Path
) -> None:
    draw = np.random.default_rng(version)
    shape = tuple(int(n) for n in draw.integers(3, 12, 3))
    bits = int(draw.choice([8, 16, 32, 64]))
    voxels = int(np.prod(shape)) * bits // 8
    first = (352, 544)[version - 1]

    def write(offset: int, length: int) -> Iterator[Path]:
        # One extension that fills the room before the voxels.
        room = offset - first
        extension = struct.pack(f"{order}ii", room, 6) + bytes(room - 8) if room else b""
        mark = bytes([bool(room), 0, 0, 0])
        data = nifti(
            shape, bits, offset, order=order, version=version,
            content=mark + extension + bytes(length),
        )  # fmt: skip
        for name, content in (("a.nii", data), ("a.nii.gz", packed_nifti(data))):
            (tmp_path / name).write_bytes(content)
            yield tmp_path / name

    for offset, right in (
        (first, False),
        (first + limits.MAX_EXTENSION_BYTES, False),
        (first + limits.MAX_EXTENSION_BYTES + 16, True),
    ):
        for path in write(offset, voxels):
            with at_most(12 * limits.MAX_EXTENSION_BYTES):
                assert refused(lambda: check_nifti(path)) is right, path  # noqa: B023
    plain, _ = write(first, voxels - 1)
    assert refused(lambda: check_nifti(plain))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_small_nifti_file_may_declare_half_a_gibibyte(seed: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    bits = int(draw.choice([8, 16, 32, 64]))
    side = 2 ** int(draw.integers(8, 10))
    slices = (limits.RATIO_FROM - 352) * 8 // bits // side**2
    path = tmp_path / "a.nii.gz"
    for depth, right in ((slices, False), (slices + 1, True)):
        data = nifti((side, side, depth), bits, 352, order="<", version=1, content=bytes(5000))
        path.write_bytes(packed_nifti(data))
        with at_most(2**23):
            assert refused(lambda: check_nifti(path)) is right


@pytest.mark.parametrize("seed", SEEDS)
def test_an_array_may_be_packed_so_tightly(seed: int, tmp_path: Path, monkeypatch) -> None:
    """With the limit set low, so that what is just below it can be read as well."""
    monkeypatch.setattr(limits, "RATIO_FROM", 2**16)
    draw = np.random.default_rng(seed)
    array = np.zeros((32, 32, 16 * int(draw.integers(5, 9))), np.float32)
    path = tmp_path / "a.npz"

    def write(noise: int) -> float:
        array[:] = 0
        array.flat[:noise] = draw.normal(size=noise)
        np.savez_compressed(path, array=array)
        return (array.nbytes) / path.stat().st_size

    tight, loose = write(10), write(3000)
    assert loose < limits.MAX_RATIO < tight
    write(10)
    assert refused(lambda: read_normalised(path), "would unpack to")
    write(3000)
    assert not refused(lambda: read_normalised(path))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_pipe_socket_or_device_in_a_folder_is_opened(seed: int, tmp_path: Path) -> None:
    """Opened, a pipe would wait for ever, and a device would never end."""
    draw = np.random.default_rng(seed)
    folder = tmp_path / "inputs"
    folders = [folder, folder / "a", folder / "a" / "b"]
    folders[-1].mkdir(parents=True)
    strange: list[Path] = []
    for suffix in (".dcm", ".nii", ".nii.gz", ".png", ".jpg", ".npy", ".dtm", ""):
        path = folders[int(draw.integers(3))] / f"{draw.integers(10**6)}{suffix}"
        strange.append(path)
        match int(draw.integers(3)):
            case 0:
                os.mkfifo(path)
            case 1:
                path.symlink_to("/dev/zero")
            case _:
                with socket.socket(socket.AF_UNIX) as bound:
                    here = Path.cwd()
                    os.chdir(path.parent)  # paths of sockets must be short
                    try:
                        bound.bind(path.name)
                    finally:
                        os.chdir(here)
    assert not any(stat.S_ISREG(p.stat().st_mode) for p in strange)
    for system in INSTALLED.values():
        assert not set(system.find(folder)) & set(strange)
    assert ct_headers.list_files([folder]) == []
    for path in strange:
        assert refused(lambda: limits.read_bytes(path))  # noqa: B023
        assert refused(lambda: read_xray(path))  # noqa: B023
        assert refused(lambda: read_normalised(path))  # noqa: B023


def test_a_folder_may_hold_so_many_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ct_headers, "MAX_FILES", 40)
    for number in range(40):
        (tmp_path / f"{number}").touch()
    assert len(ct_headers.list_files([tmp_path])) == 40
    (tmp_path / "one-more").touch()
    assert refused(lambda: ct_headers.list_files([tmp_path]))


def test_zip_files_are_no_way_around(tmp_path: Path) -> None:
    """A volume in an archive counts by what its header declares, whatever the archive says."""
    path = tmp_path / "a.npz"
    header = {"descr": "<f8", "fortran_order": False, "shape": (512, 512, 512)}
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with packed, packed.open("array.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
    with at_most(2**24):
        assert refused(lambda: read_normalised(path))
