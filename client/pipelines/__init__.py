"""One pipeline for each system. A system's pipeline is registered by one line below.

A pipeline is imported when it is asked for, and the libraries that it computes with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from .base import Pipeline, Result, Source

_HOMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "cxr-severity": ("cxr_severity", "CxrSeverity"),
        "dlpe": ("dlpe", "Dlpe"),
        "covid-mtl": ("covid_mtl", "CovidMtl"),
        "ct-angel": ("ct_angel", "CtAngel"),
        "lungmask": ("lungmask", "Lungmask"),
        "ct-classifier": ("ct_classifier", "CtClassifier"),
    }
)
"""Module and class of each system's pipeline."""


class _Pipelines(Mapping[str, Pipeline]):
    def __getitem__(self, system: str) -> Pipeline:
        return _loaded(*_HOMES[system])

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


@cache
def _loaded(module: str, name: str) -> Pipeline:
    return getattr(import_module(f".{module}", __name__), name)()


PIPELINES: Mapping[str, Pipeline] = _Pipelines()
"""Every pipeline by its system's name."""

__all__ = ["PIPELINES", "Pipeline", "Result", "Source"]
