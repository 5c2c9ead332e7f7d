"""Lesion boxes on chest CT and a decision for the patient."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.catalog import ct_angel as ct
from hilum.client.calls import Calls
from hilum.results.dicom.content import Content

from ..base import BaseSystem
from ..ct_slices import SeriesSlices, find_studies
from .dicom import content
from .files import write
from .flow import find_lesions
from .options import Options
from .pictures import drawings
from .result import CtAngelResult


class CtAngel(BaseSystem[Options, CtAngelResult]):
    """The system `ct-angel`."""

    declared = ct.SYSTEM
    options_type = Options
    result_type = CtAngelResult
    study_label = "CT study"

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        alone = options.valid_filter == "off"
        return (ct.LESION.model if alone else ct.ENSEMBLE.model,)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        if options.valid_filter == "off":
            return (ct.LESION.model,)
        return (ct.LESION.model, ct.VALID.model)

    def fallback(self, options: Options) -> Options | None:
        """Do without the valid region, whose network not every server has (spec §6.3)."""
        if options.valid_filter == "off":
            return None
        return dataclasses.replace(options, valid_mode="off")

    def find(self, path: Path) -> list[Path]:
        """List the studies that an argument stands for: see `ct_slices.find_studies`."""
        return find_studies(path)

    def run(self, study: Any, options: Options, calls: Calls) -> CtAngelResult:
        """Find lesions on the slices of one study, see `find_lesions`.

        Without the network of the valid region on the server it does without.
        """
        less = self.fallback(options)
        if less is not None:
            ready = calls.models()
            missing = self.models(options)[0] not in ready
            options = less if missing and self.models(less)[0] in ready else options
        return find_lesions(study, self.models(options)[0], options, calls)

    def draw(self, result: CtAngelResult, note: str) -> Any:
        """An image of Pillow for a notebook."""
        return next((drawing.picture for _, drawing in drawings(result, note)), None)

    def dicom_content(self, result: CtAngelResult, files: Sequence[Path]) -> Content:  # noqa: ARG002
        """What `--dicom` writes, see `dicom.content`."""
        return content(result)

    def dicom_files(self, study: Any, result: CtAngelResult) -> tuple[Path, ...]:  # noqa: ARG002
        """Those of the series; none for pictures."""
        return result.source.series.files if isinstance(result.source, SeriesSlices) else ()

    def write(
        self, result: CtAngelResult, folder: Path, *, note: str, pictures: bool = True
    ) -> list[str]:
        """Write pictures of slices, contact sheet and chart, see `System.write`."""
        return write(result, folder, note=note, pictures=pictures)


SYSTEM = CtAngel()
"""What the entry point names."""
