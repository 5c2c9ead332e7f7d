"""Files of a CT-Angel result: pictures of slices, contact sheet and chart."""

from __future__ import annotations

from pathlib import Path

from ..writing import save_drawings
from .pictures import drawings
from .result import CtAngelResult


def write(result: CtAngelResult, folder: Path, *, note: str, pictures: bool = True) -> list[str]:
    """Write ``slice-NNN.png`` of positive slices, ``contact.png`` and ``quadrants.png``.

    See `System.write`.
    """
    return save_drawings(folder, drawings(result, note)) if pictures else []
