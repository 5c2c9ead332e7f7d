"""Severity scoring of a chest X-ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.catalog import cxr_severity as cxr
from hilum.client.calls import Calls
from hilum.client.device import Device
from hilum.preprocessing.reading.dicom import is_dicom
from hilum.preprocessing.reading.folders import walk
from hilum.preprocessing.reading.images import is_xray_file
from hilum.preprocessing.reading.own_results import is_own_result
from hilum.results.dicom.content import Content

from ..base import BaseSystem
from .dicom import content
from .files import write
from .flow import score
from .options import Options
from .pictures import draw
from .result import CxrResult


class CxrSeverity(BaseSystem[Options, CxrResult]):
    """The system `cxr-severity`."""

    declared = cxr.SYSTEM
    options_type = Options
    result_type = CxrResult
    study_label = "X-ray"
    whole_folders = False

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        return (cxr.ENSEMBLES[options.network].model,)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        return (cxr.LUNG.model, cxr.SYSTEM.network(options.network).model)

    def device(self, options: Options) -> Device:
        """Where arrays are worked on, as chosen."""
        return options.device

    def find(self, path: Path) -> list[Path]:
        """The X-rays that an argument of the command line stands for: a file, or those below it."""
        if not path.is_dir():
            return [path]
        below = sorted(file for _, files in walk(path) for file in files)
        found = (p for p in below if is_xray_file(p.relative_to(path), path))
        return [p for p in found if not is_own_result(p)]

    def run(self, study: Any, options: Options, calls: Calls) -> CxrResult:
        """Score one X-ray, see `score`."""
        return score(study, options, calls)

    def draw(self, result: CxrResult, note: str) -> Any:
        """An image of Pillow for a notebook."""
        return draw(result, note).picture

    def dicom_content(self, result: CxrResult, files: Sequence[Path]) -> Content:
        """What `--dicom` writes, see `dicom.content`."""
        return content(result, files[0])

    def dicom_files(self, study: Any, result: CxrResult) -> tuple[Path, ...]:  # noqa: ARG002
        """The X-ray's file, if it is DICOM."""
        path = Path(study) if isinstance(study, (str, Path)) else None
        return (path,) if path is not None and is_dicom(path.read_bytes()[:256]) else ()

    def write(
        self, result: CxrResult, folder: Path, *, note: str, pictures: bool = True
    ) -> list[str]:
        """Write the overlay, see `System.write`."""
        return write(result, folder, note=note, pictures=pictures)


SYSTEM = CxrSeverity()
"""What the entry point names."""
