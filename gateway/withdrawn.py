"""The note that withdraws an earlier result from a PACS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hilum.preprocessing.reading.parsing import quiet
from hilum.results.atomic import whole_file
from hilum.results.dicom.content import Provenance
from hilum.results.dicom.identity import Identity
from hilum.results.dicom.withdrawal import withdrawal
from hilum.results.dicom.writer import FOLDER, WITHDRAWAL

from .pacs import Pacs


def write_withdrawal(
    pacs: Pacs,
    study: str,
    outputs: Mapping[str, int],
    folder: Path,
    provenance: Provenance,
) -> list[str]:
    """Write a key object note on all instances of the series `outputs` that the PACS has.

    Returns
    -------
    list of str
        Names of files relative to `folder`: none when the PACS has none of the instances.
    """
    headers = [header for uid in sorted(outputs) for header in pacs.headers(study, uid)]
    if not headers:
        return []
    name = f"{FOLDER}/{WITHDRAWAL}"
    with quiet(), whole_file(folder / name) as partial:
        identity = Identity.of(provenance.key, headers[0])
        note = withdrawal(headers, identity=identity, provenance=provenance)
        note.save_as(partial, enforce_file_format=True)
    return [name]
