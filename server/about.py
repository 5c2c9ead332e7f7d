"""The step behind the model ``hilum_about``: the certificates of the repository it is in."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..catalog.errors import RepositoryError


def about(model_dir: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Read the certificates beside the model's folder once.

    Parameters
    ----------
    model_dir
        Folder of the model ``hilum_about`` in the served repository.

    Returns
    -------
    A step that answers every query with UTF-8 JSON, uint8 [n]:
    ``{"hilum_version": str, "models": {model: certificate}}``.

    Raises
    ------
    RepositoryError
        When a certificate is not JSON.
    """
    text = json.dumps({"hilum_version": _version(), "models": _certificates(model_dir.parent)})
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


def _version() -> str:
    try:
        return importlib.metadata.version("hilum")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
