"""Limits of pictures of slices, containers and volumes: exactly where they are said to be."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from ct_files import write_slices
from held import at_most, refused

from hilum.preprocessing.covid_mtl import container
from hilum.preprocessing.covid_mtl.container import container_bytes, read_container
from hilum.preprocessing.reading import ct_stack, limits, nifti
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.slice_pictures import MAX_SIDE, MIN_SIDE, read_slice_picture

SEEDS = range(4)


def sides(draw: np.random.Generator) -> list[tuple[int, int, bool]]:
    """Widths and heights at both limits and one pixel beyond, and whether they are refused."""
    between = int(draw.integers(MIN_SIDE, 300))
    found = [
        (MIN_SIDE, between, False), (MIN_SIDE - 1, between, True),
        (MAX_SIDE, between, False), (MAX_SIDE + 1, between, True),
    ]  # fmt: skip
    turned = [(height, width, right) for width, height, right in found]
    return [*found, *turned, (1, 1, True)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_picture_of_a_slice_may_have_such_sides(seed: int, suffix: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    path = tmp_path / f"slice{suffix}"
    for width, height, right in sides(draw):
        noise = draw.integers(0, 256, (height, width)).astype(np.uint8)
        path.write_bytes(cv2.imencode(suffix, noise)[1].tobytes())
        with at_most(4 * 3 * (MAX_SIDE + 1) * 300, seconds=10):
            assert refused(lambda: read_slice_picture(path)) is right, (width, height)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_picture_of_a_slice_is_refused_by_its_header_alone(seed: int, tmp_path: Path) -> None:
    """A few bytes that declare more: the picture is never unfolded."""
    draw = np.random.default_rng(seed)
    width, height = (int(n) for n in draw.integers(MAX_SIDE + 1, 2**13, 2))
    size = struct.pack(">II", width, height) + b"\x08\0\0\0\0"
    rows = zlib.compress(bytes((width + 1) * height))
    path = tmp_path / "slice.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    with at_most(2 * len(rows) + 4 * 2**20):  # rows are counted piece by piece
        assert refused(lambda: read_slice_picture(path), f"{width} × {height} pixels")


def chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_of_a_slice_may_have_eight_bits(bits: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(bits).integers(0, 256, (80, 90)).astype(f"u{bits // 8}")
    path = tmp_path / "slice.png"
    path.write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    assert refused(lambda: read_slice_picture(path), "of 16 bits") is (bits > 8)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_container_may_have_so_many_frames_voxels_and_bytes(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limits set low, so that what is just below them can be read as well."""
    draw = np.random.default_rng(seed)
    volume = draw.integers(0, 2**16, tuple(draw.integers(3, 9, 3))).astype(np.uint16)
    data = container_bytes(volume)
    path = tmp_path / "lungs.dtm"
    path.write_bytes(data)
    for name, size in (("MAX_SLICES", len(volume)), ("MAX_VOXELS", volume.size),
                       ("MAX_BYTES", len(data))):  # fmt: skip
        for limit, right in ((size, False), (size - 1, True)):
            with monkeypatch.context() as low:
                low.setattr(container, name, limit)
                assert refused(lambda: read_container(path)) is right, (name, limit)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_container_is_refused_by_its_first_frame(seed: int) -> None:
    """Frames that are all the same cost nothing in a file, and the volume is never made."""
    draw = np.random.default_rng(seed)
    side = int(draw.integers(500, 700))
    frame = container_bytes(np.zeros((1, side, side), np.uint16))
    start = frame.index(b"\x89PNG") - 8
    item = frame[start : frame.rindex(struct.pack("<HH", 0xFFFE, 0xE0DD))]
    many = frame[:start] + item * (container.MAX_VOXELS // side**2 + 1) + frame[start + len(item) :]
    with at_most(4 * 2 * side**2 + 2 * len(many)):
        assert refused(lambda: read_container(many), "more than the limit")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_series_may_have_so_many_slices_and_voxels(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = int(np.random.default_rng(seed).integers(3, 9))
    write_slices(tmp_path, np.arange(count) * 2.0)
    voxels = count * 32 * 40
    for name, size in (("MAX_SLICES", count), ("MAX_VOXELS", voxels)):
        for limit, right in ((size, False), (size - 1, True)):
            with monkeypatch.context() as low:
                low.setattr(ct_stack, name, limit)
                assert refused(lambda: open_series(tmp_path), "more than the limit") is right


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_nifti_volume_may_have_so_many_slices_voxels_and_bytes(
    seed: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(seed)
    shape = tuple(int(n) for n in draw.integers(4, 12, 3))
    kind = str(draw.choice(["i2", "i4", "f8"]))
    path = tmp_path / f"a{suffix}"
    noise = draw.integers(-1000, 400, shape).astype(kind)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
    voxels = int(np.prod(shape))
    for name, size in (
        ("MAX_SLICES", shape[2]), ("MAX_VOXELS", voxels),
        ("MAX_UNPACKED_BYTES", voxels * np.dtype(kind).itemsize),
    ):  # fmt: skip
        for limit, right in ((size, False), (size - 1, True)):
            with monkeypatch.context() as low:
                low.setattr(nifti, name, limit)
                assert refused(lambda: open_series(path), "more than the limit") is right, name


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_may_have_so_many_bytes(seed: int, tmp_path: Path) -> None:
    limit = int(np.random.default_rng(seed).integers(1, 2000))
    path = tmp_path / "file"
    for size, right in ((limit, False), (limit + 1, True), (0, True)):
        path.write_bytes(bytes(size))
        assert refused(lambda: limits.read_bytes(path, limit=limit)) is right
    with path.open("wb") as sparse:
        sparse.truncate(limits.MAX_FILE_BYTES + 1)
    with at_most(2**20):
        assert refused(lambda: limits.read_bytes(path), "more than the limit of 256 MiB")
