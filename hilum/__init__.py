"""Published chest-imaging systems, served on NVIDIA Triton Inference Server.

The rooms are the folders at the top of the repository; here are links to them, so that
``hilum.<room>`` resolves without a build. Nothing is imported before it is used.

The clients here are those of `hilum.client`, typed by system: a misspelt system, option or field of
a result is an error in pyright and mypy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from hilum.catalog.errors import (
        BadFormat,
        BadOption,
        BadOrder,
        BadSize,
        CatalogError,
        ConnectionFailed,
        Damaged,
        DeadlineExceeded,
        ExportError,
        HilumError,
        InferenceFailed,
        InputError,
        MissingLibrary,
        NoGeometry,
        NoLungs,
        NoSeries,
        OutOfMemory,
        OutputError,
        RepositoryError,
        ServerError,
        Unreadable,
        WeightsError,
        WrongStudy,
    )
    from hilum.client.calls import Calls, Progress
    from hilum.client.metrics import Metrics
    from hilum.client.models import Inference
    from hilum.client.options import ConnectionOptions
    from hilum.client.protocols import Outcome, Result, System
    from hilum.systems.covid_mtl.result import CovidMtlResult
    from hilum.systems.ct_angel.result import CtAngelResult
    from hilum.systems.ct_classifier.result import CtClassifierResult
    from hilum.systems.cxr_severity.result import CxrResult
    from hilum.systems.dlpe.result import DlpeResult
    from hilum.systems.lungmask.result import LungmaskResult
    from hilum.systems.typed import AsyncClient, Client, ClientPool

_HOMES = {
    "AsyncClient": "hilum.systems.typed",
    "BadFormat": "hilum.catalog.errors",
    "BadOption": "hilum.catalog.errors",
    "BadOrder": "hilum.catalog.errors",
    "BadSize": "hilum.catalog.errors",
    "Calls": "hilum.client.calls",
    "CatalogError": "hilum.catalog.errors",
    "Client": "hilum.systems.typed",
    "ClientPool": "hilum.systems.typed",
    "ConnectionFailed": "hilum.catalog.errors",
    "ConnectionOptions": "hilum.client.options",
    "CovidMtlResult": "hilum.systems.covid_mtl.result",
    "CtAngelResult": "hilum.systems.ct_angel.result",
    "CtClassifierResult": "hilum.systems.ct_classifier.result",
    "CxrResult": "hilum.systems.cxr_severity.result",
    "Damaged": "hilum.catalog.errors",
    "DeadlineExceeded": "hilum.catalog.errors",
    "DlpeResult": "hilum.systems.dlpe.result",
    "ExportError": "hilum.catalog.errors",
    "HilumError": "hilum.catalog.errors",
    "Inference": "hilum.client.models",
    "InferenceFailed": "hilum.catalog.errors",
    "InputError": "hilum.catalog.errors",
    "LungmaskResult": "hilum.systems.lungmask.result",
    "Metrics": "hilum.client.metrics",
    "MissingLibrary": "hilum.catalog.errors",
    "NoGeometry": "hilum.catalog.errors",
    "NoLungs": "hilum.catalog.errors",
    "NoSeries": "hilum.catalog.errors",
    "OutOfMemory": "hilum.catalog.errors",
    "Outcome": "hilum.client.protocols",
    "OutputError": "hilum.catalog.errors",
    "Progress": "hilum.client.calls",
    "RepositoryError": "hilum.catalog.errors",
    "Result": "hilum.client.protocols",
    "ServerError": "hilum.catalog.errors",
    "System": "hilum.client.protocols",
    "Unreadable": "hilum.catalog.errors",
    "WeightsError": "hilum.catalog.errors",
    "WrongStudy": "hilum.catalog.errors",
}

__all__ = [
    "AsyncClient",
    "BadFormat",
    "BadOption",
    "BadOrder",
    "BadSize",
    "Calls",
    "CatalogError",
    "Client",
    "ClientPool",
    "ConnectionFailed",
    "ConnectionOptions",
    "CovidMtlResult",
    "CtAngelResult",
    "CtClassifierResult",
    "CxrResult",
    "Damaged",
    "DeadlineExceeded",
    "DlpeResult",
    "ExportError",
    "HilumError",
    "Inference",
    "InferenceFailed",
    "InputError",
    "LungmaskResult",
    "Metrics",
    "MissingLibrary",
    "NoGeometry",
    "NoLungs",
    "NoSeries",
    "OutOfMemory",
    "Outcome",
    "OutputError",
    "Progress",
    "RepositoryError",
    "Result",
    "ServerError",
    "System",
    "Unreadable",
    "WeightsError",
    "WrongStudy",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hilum")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
