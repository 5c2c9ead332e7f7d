"""One pipeline for each system. A system's pipeline is registered by one line below."""

from __future__ import annotations

from .base import Pipeline, Result, Source
from .covid_mtl import CovidMtl
from .ct_angel import CtAngel
from .ct_classifier import CtClassifier
from .cxr_severity import CxrSeverity
from .dlpe import Dlpe
from .lungmask import Lungmask

PIPELINES: dict[str, Pipeline] = {
    pipeline.system.name: pipeline
    for pipeline in (
        CxrSeverity(),
        Dlpe(),
        CovidMtl(),
        CtAngel(),
        Lungmask(),
        CtClassifier(),
    )
}
"""Every pipeline by its system's name."""

__all__ = ["PIPELINES", "Pipeline", "Result", "Source"]
