"""DLPE: chest CT → lungs, airways, vessels → scan-optimal window, enhanced volume, lesions.

The client normalises the scan, sends slabs of it, ranks and masks what comes back, and enhances;
the server runs the networks. See `flow` for the order and `views` for the slabs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.catalog import dlpe as catalog
from hilum.client.calls import Calls
from hilum.client.device import Device
from hilum.preprocessing.reading.folders import walk
from hilum.preprocessing.reading.own_results import is_own_result
from hilum.results.dicom.content import Content

from ..base import BaseSystem
from ..studies import find_studies
from . import stages
from .dicom import content
from .files import write
from .options import Options
from .pictures import draw_panels
from .result import DlpeResult
from .study import READY, process


class Dlpe(BaseSystem[Options, DlpeResult]):
    """The system `dlpe`."""

    declared = catalog.SYSTEM
    options_type = Options
    result_type = DlpeResult
    study_label = "chest CT"
    studies_in_flight = 1

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        return stages.models(options)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        return stages.networks(options)

    def share_of(self, stage: str, options: Options) -> float | None:
        """Share of a study's passes that a stage has; None for stages that are not the first."""
        return stages.share_of_first(options) if stage == stages.FIRST else None

    def find(self, path: Path) -> list[Path]:
        """The studies that an argument of the command line stands for.

        Those of `find_studies`; of a folder with neither DICOM nor NIfTI the ready
        normalised volumes.
        """
        found = find_studies(path)
        if found or not path.is_dir():
            return found
        files = (file for _, found in walk(path) for file in found if not is_own_result(file))
        return sorted(file for file in files if file.suffix.lower() in READY)

    def device(self, options: Options) -> Device:
        """Where arrays are worked on, as chosen."""
        return options.device

    def run(self, study: Any, options: Options, calls: Calls) -> DlpeResult:
        """Process one study, see `process`."""
        return process(study, options, calls)

    def draw(self, result: DlpeResult, note: str) -> Any:
        """An image of Pillow for a notebook."""
        sheet = draw_panels(result, note)
        return sheet and sheet.picture

    def dicom_content(self, result: DlpeResult, files: Sequence[Path]) -> Content:  # noqa: ARG002
        """What `--dicom` writes, see `dicom.content`."""
        return content(result)

    def write(
        self, result: DlpeResult, folder: Path, *, note: str, pictures: bool = True
    ) -> list[str]:
        """Write volumes, masks, the windowed series and pictures, see `System.write`."""
        return write(result, folder, note=note, pictures=pictures)


SYSTEM = Dlpe()
"""What the entry point names."""
