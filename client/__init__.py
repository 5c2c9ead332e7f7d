"""Clients for a Triton server that serves Hilum's systems."""

from __future__ import annotations

from .client import AsyncClient, Client
from .options import ConnectionOptions
from .session import Inference

__all__ = ["AsyncClient", "Client", "ConnectionOptions", "Inference"]
