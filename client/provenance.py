"""Whose weights made a result, and in which arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def weights_entry(
    model: str, certificate: Mapping[str, Any] | None, served_by: str | None = None
) -> dict[str, Any]:
    """One network of the report's `weights`, from what the server tells of it.

    Parameters
    ----------
    certificate
        That of the network; None where the server tells none.
    served_by
        Name of the backend; None where the server does not tell.

    Returns
    -------
    dict
        ``network``, ``source``, ``sha256``, ``precision`` (``fp32``, ``fp16``, ``int8``, or ``as
        given`` for a file of the user's that nothing was compared with) and ``served_by``
        (``onnxruntime`` or ``tensorrt``). None stands for what the server does not tell.
    """
    if certificate is None:
        weights, precision = {"network": model, "source": "unknown", "sha256": None}, None
    else:
        weights, precision = certificate["weights"], certificate.get("precision")
    told = {key: weights[key] for key in ("network", "source", "sha256")}
    return {**told, "precision": precision, "served_by": served_by}


def weights_note(entries: Sequence[Mapping[str, Any]]) -> str:
    """Whose weights made a result, for pictures and reports; empty for imported checkpoints."""
    if any(str(e["source"]).startswith("random") for e in entries):
        return "RANDOM WEIGHTS: not the published networks, the result means nothing."
    if any(e["source"] == "unknown" for e in entries):
        return "Weights unknown: the server does not tell."
    return ""
