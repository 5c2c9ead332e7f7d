"""Studies of a PACS by DICOMweb: found by a query, fetched when their turn comes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from hilum.catalog.errors import HilumError, InputError
from hilum.catalog.extras import require

from .outcomes import SourceError
from .plan import Plan

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient

_PAGE = 1000
_TIMEOUT_S = 120
_USER, _PASSWORD, _TOKEN = "HILUM_DICOMWEB_USER", "HILUM_DICOMWEB_PASSWORD", "HILUM_DICOMWEB_TOKEN"
"""Variables of the environment with the entry to the PACS."""


def find(url: str, plan: Plan) -> Iterator[tuple[str, str]]:
    """The series that a query finds (each instance where a file is a study), page by page.

    Parameters
    ----------
    url
        ``https://HOST/dicom-web?Modality=CT&StudyDate=20200101-20201231``.
    """
    base, _, query = url.partition("?")
    filters = dict(parse_qsl(query))
    if "/series/" in urlsplit(base).path:
        raise InputError(f"{url}: give the address of the service and a query")
    folders = getattr(plan.found_system(), "whole_folders", True)
    client, offset = _client(base), 0
    while True:
        with _errors("query"):
            rows = client.search_for_series(
                search_filters=filters, limit=_PAGE, offset=offset,
                fields=["NumberOfSeriesRelatedInstances"],
            )  # fmt: skip
        for row in rows:
            study, series = _text(row, "0020000D"), _text(row, "0020000E")
            place = f"{base.rstrip('/')}/studies/{study}/series/{series}"
            if folders:
                yield place, _text(row, "00201209")
                continue
            with _errors("query"):
                instances = client.search_for_instances(study, series)
            yield from ((f"{place}/instances/{_text(one, '00080018')}", "1") for one in instances)
        if len(rows) < _PAGE:
            return
        offset += len(rows)


def fetch(url: str, planned: str, folder: Path) -> Path:
    """Copy a series, or an instance, to a folder.

    Raises
    ------
    InputError
        When the series has another number of instances than it had.
    SourceError
        When the PACS does not give it.
    """
    base, _, path = url.partition("/studies/")
    study, _, series, *instance = path.split("/")
    client, count = _client(base), 0
    with _errors("retrieve"):
        if instance:
            target = folder / "00001.dcm"
            found = client.retrieve_instance(study, series, instance[1])
            found.save_as(target, enforce_file_format=True)
            return target
        for count, one in enumerate(client.iter_series(study, series), 1):
            one.save_as(folder / f"{count:05d}.dcm", enforce_file_format=True)
    if planned and str(count) != planned:
        raise InputError(f"the series has {count} instances, not {planned}; plan it again")
    return folder


def _client(base: str) -> DICOMwebClient:
    require("a PACS", "dicomweb_client")
    import requests
    from dicomweb_client import DICOMwebClient

    session = requests.Session()
    if token := os.environ.get(_TOKEN):
        session.headers["Authorization"] = f"Bearer {token}"
    elif user := os.environ.get(_USER):
        session.auth = (user, os.environ.get(_PASSWORD, ""))
    client = DICOMwebClient(base.rstrip("/"), session=session, timeout=_TIMEOUT_S)
    client.set_http_retry_params(retry=False)  # the ledger does that
    return client


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Turn what the libraries raise into our errors, without identifiers from their texts."""
    try:
        yield
    except HilumError:
        raise
    except Exception as failure:  # noqa: BLE001 - parsers of answers fail in many ways
        answer = getattr(failure, "response", None)
        status = getattr(answer, "status_code", None)
        if status == 404:
            raise InputError(f"{doing}: the PACS does not have it") from None
        what = f"answers {status}" if status else f"cannot be read ({type(failure).__name__})"
        raise SourceError(f"{doing}: the PACS {what}") from None


def _text(row: dict[str, Any], tag: str) -> str:
    return str((row.get(tag, {}).get("Value") or [""])[0])
