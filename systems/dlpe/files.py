"""Files of a DLPE result: NIfTI on the grid of the input, the series in its window, pictures."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hilum.catalog import dlpe as catalog
from hilum.catalog.terms import Window
from hilum.preprocessing.arrays import to_host
from hilum.preprocessing.dlpe.space import to_source
from hilum.preprocessing.reading.series import Series
from hilum.preprocessing.windows import display_window
from hilum.results.atomic import make_folder, whole_file
from hilum.results.canvas import DISCLAIMER
from hilum.results.nifti import nifti_image, save_nifti

from ..writing import save_drawings
from .follow_up_set import write_follow_up_set
from .meshes import write_meshes
from .pictures import draw_enhanced, draw_panels, draw_tissues, panel_pixels
from .quantities import TABLE, table
from .quantity_pictures import draw_quantities
from .result import DlpeResult

STEP_HU = 1 / 16
"""Step of the enhanced volume on disk, far below the noise of a CT: as int16 it is written in half
the time of float32 and takes half the room."""

SHOWN_HU = (-40.0, 280.0)
"""Black and white of the published picture, relative to the baseline: the file's display range."""

SQUARE = 0.01
"""Pixels whose sides differ by more than this share are made square in pictures."""

THREADS = 4
"""Slices that are decoded, windowed and compressed at once."""


def write(result: DlpeResult, folder: Path, *, note: str, pictures: bool = True) -> list[str]:
    """Write enhanced volume, masks, the series in its window, and pictures. See `System.write`.

    Volumes lie voxel for voxel on the grid of the input, be it a series or a normalised volume.

    Raises
    ------
    OutputError
        When one cannot be written; those before it are whole.
    """
    files = write_files(result, folder)
    return files + write_pictures(result, folder, note) if pictures else files


def write_files(result: DlpeResult, folder: Path) -> list[str]:
    """Write what is no picture, as `write` does."""
    files = list(_write_volumes(result, folder))
    if result.quantities is not None:
        with whole_file(folder / TABLE) as partial:
            partial.write_text(table(result.quantities), encoding="utf-8")
        files.append(TABLE)
    if result.options.get("preset") == "follow-up-set":
        files += write_follow_up_set(result, folder)
    if result.surfaces is not None:
        published = result.masks if result.mode == "parity" else {}
        files += write_meshes(folder, result.surfaces, published)
    if result.series is not None and result.window is not None:
        level, width = result.window
        text = f"level {level} HU, width {width} HU"
        write_windowed(
            result.series, Window(width, level), folder / "windowed", _info(result, text)
        )
        files.append("windowed/")
    return files


def write_pictures(result: DlpeResult, folder: Path, note: str) -> list[str]:
    """Write panels and montages, as `write` does."""
    with whole_file(folder / "panels.png") as partial:
        panels = Image.fromarray(panel_pixels(result))
        panels.save(partial, format="PNG", pnginfo=_info(result, "CT, tissues, enhanced", note))
    sheets = {
        "slice.png": draw_panels(result, note),
        "montage.png": draw_tissues(result, note),
        "enhanced.png": draw_enhanced(result, note),
    }
    drawn = ((name, sheet) for name, sheet in sheets.items() if sheet is not None)
    more = draw_quantities(result, note)
    return ["panels.png", *save_drawings(folder, drawn), *save_drawings(folder, more)]


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


def _write_volumes(result: DlpeResult, folder: Path) -> Iterator[str]:
    normalised = result.normalised
    forms = None if result.series is None else result.series.forms
    if result.enhancement is not None:
        volume = to_host(to_source(result.enhancement.volume, normalised.space, "linear"))
        volume *= np.float32(catalog.HU_SCALE / STEP_HU)
        steps = np.rint(volume, out=volume).astype(np.int16)
        text = _description(result, "enhanced")
        image = nifti_image(steps, normalised.geometry, text, forms=forms)
        image.header.set_slope_inter(STEP_HU, 0)
        image.header["cal_min"], image.header["cal_max"] = SHOWN_HU
        image.header["intent_name"] = b"HU-baseline"
        save_nifti(image, folder / "enhanced.nii.gz")
        yield "enhanced.nii.gz"
    for key, mask in result.masks.items():
        title = key.replace("_", "-")
        stored = to_host(to_source(mask, normalised.space, "nearest"))
        text = _description(result, title)
        image = nifti_image(stored, normalised.geometry, text, forms=forms)
        save_nifti(image, folder / f"{title}.nii.gz")
        yield f"{title}.nii.gz"


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
