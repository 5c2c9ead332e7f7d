"""Files of classified slices: heat maps and the curve."""

from __future__ import annotations

from pathlib import Path

from ..writing import save_drawings
from .pictures import draw_curve, draw_heat
from .result import CtClassifierResult


def write(
    result: CtClassifierResult, folder: Path, *, note: str, pictures: bool = True
) -> list[str]:
    """Write ``heat.png`` and ``curve.png``, see `System.write`."""
    if not pictures:
        return []
    drawn = {"heat.png": draw_heat, "curve.png": draw_curve}
    return save_drawings(folder, ((name, draw(result, note)) for name, draw in drawn.items()))
