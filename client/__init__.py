"""Clients for a Triton server that serves Hilum's systems.

Names are imported when they are first used, so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hilum.catalog.errors import (
        ConnectionFailed,
        DeadlineExceeded,
        HilumError,
        InferenceFailed,
        InputError,
        OutOfMemory,
        OutputError,
        RepositoryError,
    )

    from .async_client import AsyncClient
    from .calls import Calls, Progress
    from .client import Client
    from .client_pool import ClientPool
    from .metrics import Metrics
    from .models import Inference, ModelInfo, ModelState, ModelStatistics
    from .options import ConnectionOptions
    from .protocols import Outcome, Result, System
    from .registry import INSTALLED

_ERRORS = "hilum.catalog.errors"

_HOMES = {
    "AsyncClient": ".async_client",
    "Calls": ".calls",
    "Client": ".client",
    "ClientPool": ".client_pool",
    "ConnectionFailed": _ERRORS,
    "ConnectionOptions": ".options",
    "DeadlineExceeded": _ERRORS,
    "HilumError": _ERRORS,
    "Inference": ".models",
    "InferenceFailed": _ERRORS,
    "InputError": _ERRORS,
    "Metrics": ".metrics",
    "ModelInfo": ".models",
    "ModelState": ".models",
    "ModelStatistics": ".models",
    "OutOfMemory": _ERRORS,
    "Outcome": ".protocols",
    "OutputError": _ERRORS,
    "Progress": ".calls",
    "RepositoryError": _ERRORS,
    "Result": ".protocols",
    "INSTALLED": ".registry",
    "System": ".protocols",
}

__all__ = [
    "INSTALLED",
    "AsyncClient",
    "Calls",
    "Client",
    "ClientPool",
    "ConnectionFailed",
    "ConnectionOptions",
    "DeadlineExceeded",
    "HilumError",
    "Inference",
    "InferenceFailed",
    "InputError",
    "Metrics",
    "ModelInfo",
    "ModelState",
    "ModelStatistics",
    "OutOfMemory",
    "Outcome",
    "OutputError",
    "Progress",
    "RepositoryError",
    "Result",
    "System",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    if name[:1].isupper():
        from .registry import result_type

        if (found := result_type(name)) is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
