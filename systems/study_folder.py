"""The folder of one study, for rooms where studies come one by one: result, pictures, files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hilum.client.protocols import AnySystem
from hilum.results.canvas import DISCLAIMER
from hilum.results.folder import RESULT
from hilum.results.key import content_hash, study_key
from hilum.results.provenance import weights_entries, weights_note
from hilum.results.report import entry_of, save_arrays, write_json
from hilum.results.schema import RESULT as RESULT_SCHEMA

from .dicom_results import write_dicom

SENT_FILES = {"pictures": True, "arrays": False, "dicom": True}
"""What a PACS and a page are given."""


def head_of(system: AnySystem, options: Any, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a result says of Hilum, the mode and the weights.

    Parameters
    ----------
    about
        What the client says about the weights that are served.
    """
    weights = weights_entries(system.networks(options), about)
    return {
        "schema": RESULT_SCHEMA,
        "hilum_version": version("hilum"),
        "system": system.name,
        "mode": options.mode,
        "disclaimer": DISCLAIMER,
        "weights": weights,
        "weights_note": weights_note(weights),
    }


def write_study(
    system: AnySystem,
    options: Any,
    study: Path,
    place: Path,
    head: Mapping[str, Any],
    run: Callable[[], Any],
    *,
    files: Mapping[str, bool] = SENT_FILES,
    dicom: Callable[[Any], bool] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Compute one study and write its folder `place`, which is made.

    Parameters
    ----------
    head
        See `head_of`.
    run
        Computes the result.
    files
        Which are asked for: ``pictures``, ``arrays`` and ``dicom``.
    dicom
        Whether a result can have DICOM objects, for inputs of which that is not known before; None:
        each has them where they are asked for.

    Returns
    -------
    The result, and what its ``result.json`` holds.

    Raises
    ------
    InputError
        When the study cannot be processed, or has no DICOM objects where they are asked for.
    OutputError
        When something cannot be written.
    """
    key = study_key(content_hash(study), options, head["weights"], files)
    began = time.monotonic()
    result = run()
    entry = entry_of(place.name, study, result, None, time.monotonic() - began)
    del entry["input"]
    place.mkdir()
    written = system.write(result, place, note=head["weights_note"], pictures=files["pictures"])
    if files["arrays"]:
        written.append(save_arrays(place, "arrays", result.arrays()))
    if files["dicom"] and (dicom is None or dicom(result)):
        written += write_dicom(
            system, study, result, place, pictures=place, head=head, key=key, choice=None
        )
    whole = {**head, "key": key, **entry, "files": written}
    write_json(place / RESULT, whole)
    return result, whole
