"""Clients for a Triton server that serves Hilum's systems."""

from __future__ import annotations

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
