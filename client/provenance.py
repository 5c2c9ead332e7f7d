"""Whose weights made a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def weights_entry(model: str, certificate: Mapping[str, Any] | None) -> dict[str, Any]:
    """One network of the report's `weights`, from the certificate that the server tells."""
    if certificate is None:
        return {"network": model, "source": "unknown", "sha256": None}
    weights = certificate["weights"]
    return {k: weights[k] for k in ("network", "source", "sha256")}


def weights_note(entries: Sequence[Mapping[str, Any]]) -> str:
    """Whose weights made a result, for pictures and reports; empty for imported checkpoints."""
    if any(str(e["source"]).startswith("random") for e in entries):
        return "RANDOM WEIGHTS: not the published networks, the result means nothing."
    if any(e["source"] == "unknown" for e in entries):
        return "Weights unknown: the server does not tell."
    return ""
