"""Lung segmentation on chest CT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.catalog import lungmask as catalog
from hilum.client.calls import Calls
from hilum.results.dicom.content import Content

from ..base import BaseSystem
from ..studies import find_studies
from .dicom import content
from .files import write
from .flow import segment
from .options import Options
from .pictures import draw
from .result import LungmaskResult


class Lungmask(BaseSystem[Options, LungmaskResult]):
    """The system `lungmask`."""

    declared = catalog.SYSTEM
    options_type = Options
    result_type = LungmaskResult
    study_label = "chest CT"

    def models(self, options: Options) -> tuple[str, ...]:  # noqa: ARG002
        """Names of the Triton models that a run asks for."""
        return (catalog.R231.model,)

    def find(self, path: Path) -> list[Path]:
        """The series that an argument of the command line stands for, see `find_studies`."""
        return find_studies(path)

    def run(self, study: Any, options: Options, calls: Calls) -> LungmaskResult:
        """Segment one series, see `segment`."""
        return segment(study, options, calls)

    def draw(self, result: LungmaskResult, note: str) -> Any:
        """An image of Pillow for a notebook."""
        return draw(result, note).picture

    def dicom_content(self, result: LungmaskResult, files: Sequence[Path]) -> Content:  # noqa: ARG002
        """What `--dicom` writes, see `dicom.content`."""
        return content(result)

    def write(
        self, result: LungmaskResult, folder: Path, *, note: str, pictures: bool = True
    ) -> list[str]:
        """Write the labels and a picture of them, see `System.write`."""
        return write(result, folder, note=note, pictures=pictures)


SYSTEM = Lungmask()
"""What the entry point names."""
