"""X-rays from PNG, JPEG and BMP files and from arrays."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from hilum.catalog import HilumError
from hilum.preprocessing.phantoms.xray import chest_xray
from hilum.preprocessing.reading import limits
from hilum.preprocessing.reading.images import decode, read_xray

PIXELS = chest_xray(6, height=280, width=300).pixels
TINTED = np.stack([PIXELS // 2, PIXELS, 255 - (255 - PIXELS) // 3], axis=2)


def encoded(kind: str, image: np.ndarray) -> bytes:
    done, data = cv2.imencode(kind, image)
    assert done
    return data.tobytes()


def test_sixteen_bit_png_keeps_the_high_byte_in_parity(golden) -> None:
    pixels, steps = decode((golden / "cxr" / "e2e" / "p16.png").read_bytes(), "parity")
    assert pixels.tolist() == [[0, 0, 0, 0, 0], [1, 1, 1, 127, 128], [156, 255, 255, 255, 255]]
    assert steps == ("PNG, 16-bit grey, high byte",)


@pytest.mark.parametrize(
    "name", ["gray_640x760", "gray_900x512_mild", "nolung_300x300", "color_500x400"]
)
def test_golden_pictures_as_opencv_reads_them(golden, name) -> None:
    path = golden / "cxr" / "e2e" / f"{name}.png"
    xray = read_xray(path)
    wanted = cv2.imread(str(path))
    np.testing.assert_array_equal(xray.pixels, wanted)
    assert xray.size == wanted.shape[:2]


def test_real_xrays(shared) -> None:
    files = sorted((shared / "data" / "cxr-hannover-ccby" / "images").glob("*.png"))
    assert len(files) == 77
    for path in files:
        wanted = cv2.imread(str(path))
        for mode in ("parity", "corrected"):
            xray = read_xray(path, mode=mode)
            np.testing.assert_array_equal(xray.pixels, wanted)
            assert xray.decode == ("PNG, 8-bit grey",)


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("image", [PIXELS, TINTED], ids=["grey", "colour"])
def test_parity_is_opencv_for_every_format(kind, image) -> None:
    data = encoded(kind, image)
    wanted = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read_xray(data).pixels, wanted)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_parity_is_opencv_for_every_kind_of_png(tmp_path, mode) -> None:
    path = tmp_path / "picture.png"
    if mode == "I;16":
        Image.fromarray(PIXELS.astype(np.uint16) * 251).save(path)
    else:
        Image.fromarray(TINTED).convert(mode).save(path)
    xray = read_xray(path)
    np.testing.assert_array_equal(xray.pixels, cv2.imread(str(path)))
    assert ("16-bit" in xray.decode[0]) == (mode == "I;16")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_exif_orientation_is_applied(tmp_path, orientation, mode) -> None:
    path = tmp_path / "picture.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(TINTED).convert(mode).save(path, exif=exif, quality=95)
    xray = read_xray(path)
    np.testing.assert_array_equal(xray.pixels, cv2.imread(str(path)))
    assert xray.size == ((280, 300) if orientation < 5 else (300, 280))


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp"])
def test_corrected_replicates_one_luminance_plane(kind) -> None:
    xray = read_xray(encoded(kind, TINTED), mode="corrected")
    assert (xray.pixels == xray.pixels[:, :, :1]).all()
    wanted = cv2.cvtColor(TINTED, cv2.COLOR_BGR2GRAY).astype(int)
    assert np.abs(xray.pixels[:, :, 0] - wanted).mean() < 2
    assert "luminance" in xray.decode


def test_corrected_stretches_twelve_bits_stored_in_sixteen() -> None:
    data = encoded(".png", PIXELS.astype(np.uint16) * 16)
    dark, shown = (read_xray(data, mode=m).pixels[:, :, 0] for m in ("parity", "corrected"))
    assert dark.max() <= 15
    low, high = np.percentile(PIXELS, [0.5, 99.5])
    wanted = np.clip((PIXELS - low) / (high - low) * 255, 0, 255)
    assert np.abs(shown - wanted).max() <= 1


def test_corrected_believes_a_declared_depth() -> None:
    values = PIXELS.astype(np.uint16) * 100
    plain = encoded(".png", values)
    body = b"sBIT" + bytes([16])
    chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
    declared = plain[:33] + chunk + plain[33:]
    xray = read_xray(declared, mode="corrected")
    wanted = np.rint(values / 65535 * 255)
    np.testing.assert_array_equal(xray.pixels[:, :, 0], wanted)
    assert "full 16-bit range, as declared" in xray.decode


def test_corrected_colour_of_sixteen_bits() -> None:
    xray = read_xray(encoded(".png", TINTED.astype(np.uint16) * 257), mode="corrected")
    assert (xray.pixels == xray.pixels[:, :, :1]).all()
    assert xray.pixels.max() == 255


@pytest.mark.parametrize("shape", ["grey", "colour"])
def test_arrays(shape) -> None:
    image = PIXELS if shape == "grey" else TINTED
    xray = read_xray(image)
    np.testing.assert_array_equal(
        xray.pixels, image if shape == "colour" else np.repeat(image[:, :, None], 3, axis=2)
    )
    np.testing.assert_array_equal(read_xray(image.astype(np.uint16) * 257).pixels, xray.pixels)
    np.testing.assert_array_equal(
        read_xray(image, mode="corrected").pixels,
        read_xray(encoded(".png", image), mode="corrected").pixels,
    )


@pytest.mark.parametrize(
    "array",
    [
        PIXELS.astype(np.float32),
        PIXELS[None],
        np.zeros((300, 300, 4), np.uint8),
        PIXELS.astype(np.int16),
        PIXELS[0],
    ],
)
def test_other_arrays_are_refused(array) -> None:
    with pytest.raises(HilumError, match="give uint8 or uint16"):
        read_xray(array)


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.95, 0.999])
def test_truncated_pictures_are_refused(kind, share) -> None:
    data = encoded(kind, TINTED)
    with pytest.raises(HilumError, match=r"truncated|damaged|neither"):
        read_xray(data[: int(len(data) * share)])


def test_damaged_png_is_refused() -> None:
    data = bytearray(encoded(".png", PIXELS))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(HilumError, match="checksum"):
        read_xray(bytes(data))


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


HUGE = {
    "PNG": png_header(60_000, 60_000) + b"\0\0\0\0IEND\xaeB`\x82",
    "JPEG": b"\xff\xd8\xff\xc0\x00\x0b\x08\xea\x60\xea\x60\x01\x01\x11\x00\xff\xda\x00\x02\xff\xd9",
    "BMP": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", HUGE)
def test_huge_headers_are_refused_without_memory(kind) -> None:
    tracemalloc.start()
    with pytest.raises(HilumError, match=f"{kind} header: 60000 × 60000 pixels, more than"):
        read_xray(HUGE[kind])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_what_is_no_picture_is_refused(tmp_path) -> None:
    path = tmp_path / "picture.png"
    with pytest.raises(HilumError, match="no such file"):
        read_xray(path)
    path.write_bytes(b"")
    with pytest.raises(HilumError, match="empty"):
        read_xray(path)
    path.write_text("This is a text, not a picture. " * 20)
    with pytest.raises(HilumError, match="neither PNG, JPEG, BMP nor DICOM"):
        read_xray(path)
    with pytest.raises(HilumError, match="not a file"):
        read_xray(tmp_path)


def test_large_files_are_not_read(tmp_path, monkeypatch) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(limits.MAX_FILE_BYTES + 1)
    with pytest.raises(HilumError, match="more than the limit of 256 MiB"):
        read_xray(path)


def test_small_and_constant_pictures_are_refused() -> None:
    with pytest.raises(HilumError, match="too small"):
        read_xray(PIXELS[:255])
    with pytest.raises(HilumError, match="same value"):
        read_xray(np.full((300, 300), 9, np.uint8))
    with pytest.raises(HilumError, match="same value"):
        read_xray(encoded(".jpg", np.full((300, 300), 9, np.uint8)))


def test_messages_do_not_name_the_file(tmp_path) -> None:
    path = tmp_path / "Secret_Name.png"
    path.write_bytes(encoded(".png", PIXELS)[:900])
    with pytest.raises(HilumError) as refused:
        read_xray(path)
    assert "Secret" not in str(refused.value)


@pytest.mark.parametrize("restarts", [0, 4])
@pytest.mark.parametrize("end", [b"\xff\xd9", b"\xff\xd9\xff\xd9", b"\xff\xd9" + bytes(20)])
@pytest.mark.parametrize("missing", [2, 9, 28, 60, 400, 3000])
def test_a_truncated_jpeg_is_refused_however_it_is_closed(missing, end, restarts) -> None:
    """The last pixels are dark, so what the decoder leaves grey lies elsewhere."""
    dark = PIXELS.copy()
    dark[-40:] //= 8
    flags = [cv2.IMWRITE_JPEG_RST_INTERVAL, restarts, cv2.IMWRITE_JPEG_QUALITY, 90]
    data = cv2.imencode(".jpg", dark, flags)[1].tobytes()
    assert read_xray(data[:-2] + end).size == dark.shape[:2]
    with pytest.raises(HilumError, match="truncated"):
        read_xray(data[: -2 - missing] + end)
