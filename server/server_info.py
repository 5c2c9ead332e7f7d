"""The step behind the model ``hilum_about``: what the repository it is in serves, and how."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from hilum.catalog.errors import RepositoryError

from .model_config import backend_of, read_config


def about(model_dir: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Read the certificates and configurations beside the model's folder once.

    Parameters
    ----------
    model_dir
        Folder of the model ``hilum_about`` in the served repository.

    Returns
    -------
    A step that answers every query with UTF-8 JSON, uint8 [n]:
    ``{"hilum_version": str, "models": {model: certificate}, "served_by": {model: backend}}``.

    Raises
    ------
    RepositoryError
        When a certificate is not JSON.
    """
    certificates = _certificates(model_dir.parent)
    served = {
        "hilum_version": _version(),
        "models": certificates,
        "served_by": _backends(model_dir.parent, certificates),
    }
    text = json.dumps(served)
    encoded = np.frombuffer(text.encode("utf-8"), np.uint8)

    def answer(query: np.ndarray) -> dict[str, np.ndarray]:  # noqa: ARG001 - one query so far
        return {"json": encoded}

    return answer


def _certificates(repository: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for folder in sorted(repository.iterdir()):
        file = folder / "1" / "certificate.json"
        if file.is_file():
            try:
                found[folder.name] = json.loads(file.read_text("utf-8"))
            except ValueError as failure:
                raise RepositoryError(
                    f"{file} is not JSON ({failure}); write it again with `hilum export`"
                ) from failure
    return found


def _backends(repository: Path, models: Iterable[str]) -> dict[str, str]:
    """By model, ``onnxruntime`` or ``tensorrt``; without those that no configuration names."""
    found: dict[str, str] = {}
    for model in models:
        # One that cannot be read is for the server to judge: a report only lacks a word then.
        with contextlib.suppress(RepositoryError):
            found[model] = backend_of(read_config(repository / model / "config.pbtxt"))
    return found


def _version() -> str:
    try:
        return importlib.metadata.version("hilum")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
