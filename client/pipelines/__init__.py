"""One pipeline for each system. A system's pipeline is registered by one line below."""

from __future__ import annotations

from .base import Pipeline, Result, Source
from .cxr_severity import CxrSeverity

PIPELINES: dict[str, Pipeline] = {pipeline.system.name: pipeline for pipeline in (CxrSeverity(),)}
"""Every pipeline by its system's name."""

__all__ = ["PIPELINES", "Pipeline", "Result", "Source"]
