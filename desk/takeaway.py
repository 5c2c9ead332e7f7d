"""What a reader takes away: a result as one line of CSV, and as one page."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from hilum.results.canvas import DISCLAIMER, font, spelled
from hilum.results.summary import write_summary

_WIDTH, _HEIGHT, _MARGIN = 1240, 1754, 70
"""A4 at 150 pixels per inch."""

_INK, _FAINT, _WARNING = (20, 24, 28), (95, 102, 110), (176, 60, 0)

_FIRST = ("overlay.png", "slice.png", "lung.png", "heat.png", "lungs.png", "overview.png")
"""Pictures that show most, by what the systems call them; else the first one."""

_HEAD = ("schema", "hilum_version", "key", "weights", "files", "disclaimer", "transport")


def csv_of(found: Mapping[str, Any], place: Path) -> bytes:  # noqa: ARG001
    """The plain values of a result as one row."""
    entry = {k: v for k, v in found["result"].items() if k not in ("key", "weights", "files")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "summary.csv")
        write_summary(path, [entry])
        return path.read_bytes()


def pdf_of(found: Mapping[str, Any], place: Path) -> bytes:
    """One page: what was run, the picture that shows most, values, lesions, warnings."""
    result = found["result"]
    page = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(page)
    pen = _Pen(draw)
    pen.line(f"Hilum {result['system']}", 44)
    pen.line(f"{result['mode']}; version {result['hilum_version']}; study {result['name']}", 24,
             _FAINT)  # fmt: skip
    for text in filter(None, (DISCLAIMER, result.get("weights_note"), result.get("preview_note"))):
        pen.line(text, 26, _WARNING)
    pen.top += 14
    if (picture := _picture(place)) is not None:
        picture.thumbnail((_WIDTH - 2 * _MARGIN, 760))
        page.paste(picture, ((_WIDTH - picture.width) // 2, pen.top))
        pen.top += picture.height + 24
    values = list(_values(result))
    half = (len(values) + 1) // 2
    top = pen.top
    for column, part in enumerate((values[:half], values[half:])):
        pen.top, pen.left = top, _MARGIN + column * (_WIDTH - 2 * _MARGIN) // 2
        for name, value in part:
            if pen.top < _HEIGHT - 420:
                pen.line(f"{name}: {value}"[:58], 20)
    pen.left, pen.top = _MARGIN, min(top + 28 * half, _HEIGHT - 420) + 20
    _lesions(pen, place / "lesions.csv")
    draw.text((_MARGIN, _HEIGHT - _MARGIN), DISCLAIMER, font=font(20), fill=_WARNING)
    packed = io.BytesIO()
    page.save(packed, "PDF", resolution=150, title="Hilum result, research only")
    return packed.getvalue()


class _Pen:
    """Writes lines down a page."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw, self.left, self.top = draw, _MARGIN, _MARGIN

    def line(self, text: str, size: int, colour: tuple[int, int, int] = _INK) -> None:
        self._draw.text((self.left, self.top), spelled(text), font=font(size), fill=colour)
        self.top += round(size * 1.4)


def _picture(place: Path) -> Image.Image | None:
    there = [place / name for name in _FIRST if (place / name).is_file()]
    there += sorted(place.glob("*.png"))
    if not there:
        return None
    with Image.open(there[0]) as picture:
        return picture.convert("RGB")


def _values(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values that fit on a page."""
    for key, value in result.items():
        name = f"{prefix}{key}".replace("_", " ")
        if not prefix and key in _HEAD:
            continue
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, float):
            yield name, f"{value:.4g}"
        elif isinstance(value, (int, str)) and value != "":
            yield name, str(value)
        elif isinstance(value, Mapping) and prefix.count(".") < 1 and key not in (
            "counts", "timings_s", "options", "normalised_space",
        ):  # fmt: skip
            yield from _values(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(v, (int, float)) for v in value):
            yield name, ", ".join(f"{v:.3g}" for v in value[:8])


def _lesions(pen: _Pen, path: Path) -> None:
    if not path.is_file():
        return
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if rows:
        pen.line(f"Lesions: {len(rows)}", 24)
    for row in rows[:8]:
        pen.line(
            f"{row['lesion_id']}: {float(row['volume_ml']):.2f} ml, {row['side']}, {row['zone']}, "
            f"{float(row['axial_diameter_mm']):.0f} mm",
            20,
        )
