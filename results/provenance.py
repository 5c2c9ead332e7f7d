"""Whose weights made a result, and in which arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def weights_entry(
    model: str, certificate: Mapping[str, Any] | None, served_by: str | None = None
) -> dict[str, Any]:
    """One network of the report's `weights`, from what the server reports of it.

    Parameters
    ----------
    certificate
        That of the network; None where the server reports none.
    served_by
        Name of the backend; None where the server does not report it.

    Returns
    -------
    dict
        ``network``, ``source``, ``sha256``, ``kind`` (``random``, ``reference``, ``checkpoint``,
        ``user file`` or ``unknown``), ``precision`` (``fp32``, ``fp16``, ``int8``, or ``as
        given`` for a file of the user's that nothing was compared with) and ``served_by``
        (``onnxruntime`` or ``tensorrt``). None stands for what the server does not report.
    """
    if certificate is None:
        weights, precision = {"network": model, "source": "unknown", "sha256": None}, None
    else:
        weights, precision = certificate["weights"], certificate.get("precision")
    entry = {key: weights[key] for key in ("network", "source", "sha256")}
    kind = weights.get("kind", "unknown")
    return {**entry, "kind": kind, "precision": precision, "served_by": served_by}


def weights_entries(models: Iterable[str], about: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The report's `weights` of some models.

    Parameters
    ----------
    about
        What a client's `about` says: ``models`` with certificates, and ``served_by``.
    """
    known = (about or {}).get("models", {})
    served_by = (about or {}).get("served_by", {})
    return [weights_entry(model, known.get(model), served_by.get(model)) for model in models]


REFERENCE = (
    "REFERENCE WEIGHTS: trained on generated images and 60 public X-rays, to try Hilum; "
    "not the published networks."
)


def weights_note(entries: Sequence[Mapping[str, Any]]) -> str:
    """Whose weights made a result, for pictures and reports; empty for imported checkpoints."""
    kinds = {e.get("kind", "unknown") for e in entries}
    if "random" in kinds:
        return "RANDOM WEIGHTS: not the published networks, the result means nothing."
    if "reference" in kinds:
        return REFERENCE
    if "user file" in kinds:
        return "USER'S OWN NETWORK: not the published networks; nobody has checked the result."
    if "unknown" in kinds:
        return "Weights unknown: the server does not report them."
    return ""
