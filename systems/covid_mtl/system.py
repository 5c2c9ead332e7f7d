"""Diagnosis and severity of COVID-19 on chest CT."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.catalog import covid_mtl as catalog
from hilum.catalog import lungmask
from hilum.client.calls import Calls
from hilum.preprocessing.covid_mtl.radiomics import check_installed
from hilum.results.dicom.content import Content

from ..base import BaseSystem
from . import source
from .dicom import content
from .files import write
from .flow import diagnose
from .options import NETWORKS, Options
from .pictures import draw_answers
from .result import CovidMtlResult


class CovidMtl(BaseSystem[Options, CovidMtlResult]):
    """The system `covid-mtl`."""

    declared = catalog.SYSTEM
    options_type = Options
    result_type = CovidMtlResult
    study_label = "chest CT"
    studies_in_flight = 2

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        if options.takes_features and options.radiomics == "client":
            check_installed()
        more = (lungmask.R231.model,) if options.asks_lungmask else ()
        return (options.model, *more)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        more = (lungmask.R231.model,) if options.asks_lungmask else ()
        return (NETWORKS[options.network].model, *more)

    def fallback(self, options: Options) -> Options | None:
        """Do without a learned lung mask, whose network not every server has."""
        return dataclasses.replace(options, learned_mask=False) if options.asks_lungmask else None

    def find(self, path: Path) -> list[Path]:
        """The studies that an argument of the command line stands for: `source.find`."""
        return source.find(path)

    def run(self, study: Any, options: Options, calls: Calls) -> CovidMtlResult:
        """Process one study, see `diagnose`."""
        return diagnose(study, options, calls)

    def draw(self, result: CovidMtlResult, note: str) -> Any:
        """An image of Pillow for a notebook."""
        return draw_answers(result, note)

    def dicom_content(self, result: CovidMtlResult, files: Sequence[Path]) -> Content:  # noqa: ARG002
        """What `--dicom` writes, see `dicom.content`."""
        return content(result)

    def write(
        self, result: CovidMtlResult, folder: Path, *, note: str, pictures: bool = True
    ) -> list[str]:
        """Write the lung mask and pictures, see `System.write`."""
        return write(result, folder, note=note, pictures=pictures)


SYSTEM = CovidMtl()
"""What the entry point names."""
