"""Files of a severity result: the overlay."""

from __future__ import annotations

from pathlib import Path

from ..writing import save_drawings
from .pictures import draw
from .result import CxrResult


def write(result: CxrResult, folder: Path, *, note: str, pictures: bool = True) -> list[str]:
    """Write ``overlay.png``, see `System.write`."""
    return save_drawings(folder, [("overlay.png", draw(result, note))]) if pictures else []
