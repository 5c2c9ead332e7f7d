"""Where studies come from, by their addresses: paths, buckets, a PACS; listing and fetching."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hilum.catalog.errors import InputError
from hilum.preprocessing.reading.folders import walk
from hilum.preprocessing.reading.own_results import is_own_result
from hilum.results.key import content_hash

from .plan import Plan
from .store import scratch

Found = tuple[str, str]
"""Source and identity of a study."""

_LIST = ".txt"
"""Ending of files that list studies."""


def find(source: str, plan: Plan) -> Iterator[Found]:
    """The studies that an argument of the command line stands for.

    A folder or file stands for what `hilum run` finds there; a pattern (``*``) for every match; a
    list (``.txt``) for the path or address in each of its lines; ``s3://…`` and the like for what
    lies below; ``https://…/dicom-web?Modality=CT`` for the series that a PACS finds. What is named
    by itself and is not there becomes a study that fails.

    Raises
    ------
    InputError
        When there is no such list or folder.
    SourceError
        When a bucket or a PACS does not answer.
    """
    if source.endswith(_LIST) and "://" not in source:
        yield from _listed(Path(source), plan)
    elif source.startswith(("http://", "https://")):
        from . import dicomweb  # of an extra

        yield from dicomweb.find(source, plan)
    elif "://" in source:
        from . import bucket  # of an extra

        yield from bucket.find(source, plan)
    else:
        yield from _local(source, plan)


def _local(source: str, plan: Plan) -> Iterator[Found]:
    matches = [source]
    if not os.path.lexists(source) and glob.has_magic(source):
        matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - of a whole path
    if not matches or not os.path.lexists(matches[0]):
        raise InputError(f"{source}: no such file or folder")
    system = plan.found_system()
    for match in matches:
        path = Path(match).absolute()
        studies = system.find(path)
        if path.is_dir():
            studies = [study for study in studies if not is_own_result(study)]
        for study in studies:
            yield str(study), identity(study, plan)


def _listed(path: Path, plan: Plan) -> Iterator[Found]:
    """The lines of a list, without empty ones and those that begin with ``#``."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                text = line.strip()
                if not text or text.startswith("#"):
                    continue
                if "://" in text:
                    yield from find(text, plan)
                else:
                    place = os.path.join(path.parent.absolute(), text)  # noqa: PTH118 - 10^6 of them
                    yield place, identity(place, plan)
    except OSError as failure:
        raise InputError(f"{path}: {failure.strerror}") from failure


def identity(study: str | Path, plan: Plan) -> str:
    """What a local study is recognised by; ``missing`` when it is not there."""
    try:
        if plan.hashed == "content":
            return content_hash(study)
        state = os.stat(study)  # noqa: PTH116 - 10^6 of them
        if state.st_mode & 0o170000 != 0o040000:
            return f"{state.st_size}-{state.st_mtime_ns}"
        found = hashlib.sha256()
        for folder, files in walk(Path(study)):
            for file in files:
                state = file.stat()
                name = os.fsencode(os.path.relpath(file, study))
                found.update(name + f"\0{state.st_size}-{state.st_mtime_ns}\0".encode())
            found.update(os.fsencode(os.path.relpath(folder, study)))
        return found.hexdigest()[:32]
    except OSError:
        return "missing"


@contextmanager
def fetched(source: str, planned: str, plan: Plan) -> Iterator[Path]:
    """A study on a disk of this machine, as it was when it was planned.

    Raises
    ------
    InputError
        When it is not there any more, or has changed.
    SourceError
        When it cannot be fetched now.
    """
    if "://" not in source:
        now = identity(source, plan)
        if now == "missing":
            raise InputError("there is no such file or folder")
        if now != planned:
            raise InputError("the study changed after it was planned; plan it again")
        yield Path(source)
        return
    with scratch() as folder:
        if source.startswith(("http://", "https://")):
            from . import dicomweb

            yield dicomweb.fetch(source, planned, folder)
        else:
            from . import bucket

            yield bucket.fetch(source, planned, folder)
