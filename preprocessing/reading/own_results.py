"""Hilum's own results, which are never taken for studies."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path

REPORT, RESULT = "report.json", "result.json"
"""Report of a batch, and result of one study in its own folder."""

_MARK = "hilum_version"

_NUMBERED = re.compile(r"(\d{4,})(-[a-z0-9-]+)?\.(png|npz|nii\.gz)")
"""Names that results have beside a report: the number of the study, and what the file is."""

_DEEPEST = 4
"""Folders below that of a report in which its files may lie."""


def is_own_result(path: Path) -> bool:
    """Tell whether a file or folder was written by Hilum.

    A folder with the result of a study is, with everything in it; so is what a report lists, and
    the numbered files beside it. Other files beside a report are not: someone may have written
    results into the folder of the inputs.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - links are not followed
    folder = path if path.is_dir() else path.parent
    for above in (folder, *list(folder.parents)[:_DEEPEST]):
        if _read(above / RESULT) is not None:
            return True
        listed = _read(above / REPORT)
        if listed is None or above == path:
            continue
        inner = path.relative_to(above)
        names = {str(inner), *(str(p) for p in inner.parents)}
        if names & listed or str(inner) in (REPORT, RESULT):
            return True
        numbered = _NUMBERED.fullmatch(str(inner))
        if numbered is not None and f"#{numbered[1]}" in listed:
            return True
    return False


def _read(path: Path) -> frozenset[str] | None:
    """What one of Hilum's own JSON files lists; None for any other file, or without one."""
    try:
        state = path.stat()
    except OSError:
        return None
    return _listed(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _listed(path: Path, changed: int, size: int) -> frozenset[str] | None:  # noqa: ARG001
    """Paths of files and folders, relative to the report, and ``#number`` of each study."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or _MARK not in found:
        return None
    results = found.get("results")
    entries = [e for e in results if isinstance(e, dict)] if isinstance(results, list) else []
    listed = {f"#{entry.get('name')}" for entry in entries}
    for entry in entries:
        files = entry.get("files")
        for value in (entry.get("folder"), *(files if isinstance(files, list) else ())):
            if isinstance(value, str):
                listed.add(value.strip("/"))
    return frozenset(listed - {"", "."})
