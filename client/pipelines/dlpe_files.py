"""Files of a DLPE result: NIfTI on the grid of the input, the series in its window, pictures."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...catalog import dlpe as catalog
from ...catalog.ct_angel import Window
from ...preprocessing.arrays import to_host
from ...preprocessing.dlpe_space import to_source
from ...preprocessing.series import Series
from ...preprocessing.windows import display_window
from ..nifti_image import nifti_image, save_nifti
from ..pictures.canvas import DISCLAIMER
from ..pictures.dlpe import draw_enhanced, draw_panels, draw_tissues, panel_pixels
from ..whole_file import make_folder, whole_file

if TYPE_CHECKING:
    from .dlpe_result import DlpeResult

STEP_HU = 1 / 16
"""Step of the enhanced volume on disk, far below the noise of a CT: as int16 it is written in half
the time of float32 and takes half the room."""

SHOWN_HU = (-40.0, 280.0)
"""Black and white of the published picture, relative to the baseline: the file's display range."""

SQUARE = 0.01
"""Pixels whose sides differ by more than this share are made square in pictures."""

THREADS = 4
"""Slices that are decoded, windowed and compressed at once."""


def write_files(result: DlpeResult, folder: Path, name: str) -> list[str]:
    """Write enhanced volume, masks, and the series in its window; returns their names.

    Volumes lie voxel for voxel on the grid of the input, be it a series or a normalised volume.

    Raises
    ------
    OutputError
        When one cannot be written; those before it are whole.
    """
    files = list(_write_volumes(result, folder, name))
    if result.series is not None and result.window is not None:
        level, width = result.window
        target = folder / f"{name}-windowed"
        text = f"level {level} HU, width {width} HU"
        write_windowed(result.series, Window(width, level), target, _info(result, text))
        files.append(f"{target.name}/")
    return files


def write_pictures(result: DlpeResult, folder: Path, name: str, note: str) -> list[str]:
    """Write panels and montages; returns the files' names.

    Parameters
    ----------
    note
        Whose weights made the result.

    Raises
    ------
    OutputError
        When one cannot be written.
    """
    sheets = {
        "slice": draw_panels(result, note),
        "montage": draw_tissues(result, note),
        "enhanced": draw_enhanced(result, note),
    }
    files = [f"{name}-panels.png"]
    with whole_file(folder / files[0]) as partial:
        panels = Image.fromarray(panel_pixels(result))
        panels.save(partial, format="PNG", pnginfo=_info(result, "CT, tissues, enhanced", note))
    for kind, sheet in sheets.items():
        if sheet is not None:
            files.append(f"{name}-{kind}.png")
            with whole_file(folder / files[-1]) as partial:
                sheet.save(partial)
    return files


def write_windowed(series: Series, window: Window, folder: Path, info: PngInfo) -> None:
    """Write the slices of a series as they are seen in a window, 8-bit PNG with square pixels.

    ``0001.png`` is the slice next to the head; rows run from anterior to posterior, columns from
    the patient's right to left. Pixels that are square on the grid of the series stay as they are.

    Raises
    ------
    OutputError
        When a file cannot be written.
    """
    make_folder(folder)
    count = len(series)
    digits = max(4, len(str(count)))
    _, row_mm, column_mm = series.geometry.spacing

    def one(number: int) -> str:
        pixels = display_window(series.slice(count - number), window)
        picture = Image.fromarray(_squared(pixels, row_mm, column_mm))
        path = folder / f"{number:0{digits}d}.png"
        with whole_file(path) as partial:
            picture.save(partial, format="PNG", compress_level=1, pnginfo=info)
        return path.name

    with ThreadPoolExecutor(THREADS, thread_name_prefix="hilum-windowed") as pool:
        written = set(pool.map(one, range(1, count + 1)))
    for path in folder.glob("*.png"):
        if path.name not in written and path.stem.isdecimal():
            path.unlink()  # of an earlier and longer series


def _write_volumes(result: DlpeResult, folder: Path, name: str) -> Iterator[str]:
    normalised = result.normalised
    if result.enhancement is not None:
        volume = to_host(to_source(result.enhancement.volume, normalised.space, "linear"))
        volume *= np.float32(catalog.HU_SCALE / STEP_HU)
        steps = np.rint(volume, out=volume).astype(np.int16)
        image = nifti_image(steps, normalised.geometry, _description(result, "enhanced"))
        image.header.set_slope_inter(STEP_HU, 0)
        image.header["cal_min"], image.header["cal_max"] = SHOWN_HU
        image.header["intent_name"] = b"HU-baseline"
        save_nifti(image, folder / f"{name}-enhanced.nii.gz")
        yield f"{name}-enhanced.nii.gz"
    for key, mask in result.masks.items():
        title = key.replace("_", "-")
        stored = to_host(to_source(mask, normalised.space, "nearest"))
        image = nifti_image(stored, normalised.geometry, _description(result, title))
        save_nifti(image, folder / f"{name}-{title}.nii.gz")
        yield f"{name}-{title}.nii.gz"


def _description(result: DlpeResult, title: str) -> str:
    """What a NIfTI header says in 79 characters, the warnings first."""
    parts = [result.weights_note.partition(":")[0]]
    if result.preview:
        parts.append(f"PREVIEW {result.side}")
    parts += [f"Hilum dlpe {title} {result.mode}", "research only"]
    return "; ".join(part for part in parts if part)


def _info(result: DlpeResult, text: str, note: str = "") -> PngInfo:
    """What pictures without a caption say in their header."""
    info = PngInfo()
    warnings = (result.preview_note, note or result.weights_note, DISCLAIMER)
    info.add_text("Software", "Hilum dlpe")
    info.add_text("Description", f"{text}; {result.mode}. {' '.join(w for w in warnings if w)}")
    return info


def _squared(pixels: NDArray[np.uint8], row_mm: float, column_mm: float) -> NDArray[np.uint8]:
    """Make pixels square by adding rows or columns; none are lost."""
    ratio = row_mm / column_mm
    if abs(ratio - 1) <= SQUARE:
        return pixels
    height, width = pixels.shape
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
