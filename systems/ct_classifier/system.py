"""Classifier of chest CT slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.catalog import ct_classifier as catalog
from hilum.catalog import lungmask
from hilum.client.calls import Calls
from hilum.preprocessing.reading.series import Series
from hilum.results.dicom.content import Content

from ..base import BaseSystem
from ..studies import find_studies
from .dicom import content
from .files import write
from .flow import classify
from .options import Options
from .pictures import draw_heat
from .result import CtClassifierResult


class CtClassifier(BaseSystem[Options, CtClassifierResult]):
    """The system `ct-classifier`."""

    declared = catalog.SYSTEM
    options_type = Options
    result_type = CtClassifierResult
    study_label = "chest CT"

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        if options.masked:
            steps = (catalog.MASKED_NETWORK.model, lungmask.R231.model)
            return (catalog.MASKED_ENSEMBLE.model, *steps)
        return self.networks(options)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        lungs = (lungmask.R231.model,) if options.masked or options.laterality else ()
        return (catalog.SYSTEM.network(options.profile).model, *lungs)

    def fallback(self, options: Options) -> Options | None:
        """Without the lung network profile `raw_hu` still classifies, but knows no sides."""
        if options.masked or not options.laterality:
            return None
        return dataclasses.replace(options, laterality=False)

    def find(self, path: Path) -> list[Path]:
        """The series that an argument of the command line stands for, see `find_studies`."""
        return find_studies(path)

    def run(self, study: Any, options: Options, calls: Calls) -> CtClassifierResult:
        """Classify the slices of one series, see `classify`."""
        return classify(study, options, calls)

    def draw(self, result: CtClassifierResult, note: str) -> Any:
        """An image of Pillow for a notebook."""
        return draw_heat(result, note).picture

    def dicom_content(self, result: CtClassifierResult, files: Sequence[Path]) -> Content:  # noqa: ARG002
        """What `--dicom` writes, see `dicom.content`."""
        return content(result)

    def dicom_files(self, study: Any, result: CtClassifierResult) -> tuple[Path, ...]:  # noqa: ARG002
        """Those of the series; none for a picture."""
        return result.study.files if isinstance(result.study, Series) else ()

    def write(
        self, result: CtClassifierResult, folder: Path, *, note: str, pictures: bool = True
    ) -> list[str]:
        """Write heat maps and the curve, see `System.write`."""
        return write(result, folder, note=note, pictures=pictures)


SYSTEM = CtClassifier()
"""What the entry point names."""
