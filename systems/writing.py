"""Drawings of a study as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from hilum.results.atomic import whole_file


class Drawing(Protocol):
    """What can be saved as a picture."""

    def save(self, path: Path) -> None:
        """Write it as PNG."""
        ...


def save_drawings(folder: Path, drawings: Iterable[tuple[str, Drawing]]) -> list[str]:
    """Write drawings one after the other, each whole or not at all; returns the files' names.

    Parameters
    ----------
    drawings
        File names and what is saved under them, drawn as they are taken.

    Raises
    ------
    OutputError
        When one cannot be written.
    """
    files: list[str] = []
    for name, drawing in drawings:
        with whole_file(folder / name) as partial:
            drawing.save(partial)
        files.append(name)
    return files
