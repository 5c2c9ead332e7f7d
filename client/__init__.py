"""Clients for a Triton server that serves Hilum's systems.

Names are imported when they are first used, so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .async_client import AsyncClient
    from .balance import ClientPool
    from .batch import Outcome
    from .client import Client
    from .options import ConnectionOptions
    from .pipelines.ct_classifier_result import CtClassifierResult
    from .pipelines.cxr_severity import CxrResult
    from .pipelines.lungmask import LungmaskResult
    from .session import Inference

__all__ = [
    "AsyncClient",
    "Client",
    "ClientPool",
    "ConnectionOptions",
    "CtClassifierResult",
    "CxrResult",
    "Inference",
    "LungmaskResult",
    "Outcome",
]

_HOMES = {
    "AsyncClient": ".async_client",
    "Client": ".client",
    "ClientPool": ".balance",
    "ConnectionOptions": ".options",
    "CtClassifierResult": ".pipelines.ct_classifier_result",
    "CxrResult": ".pipelines.cxr_severity",
    "Inference": ".session",
    "LungmaskResult": ".pipelines.lungmask",
    "Outcome": ".batch",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
