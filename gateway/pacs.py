"""A PACS by DICOMweb: what is new, what rules ask, fetch, send, verify."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from hilum.catalog.errors import Damaged, HilumError
from hilum.preprocessing.reading.dicom import header
from hilum.preprocessing.reading.parsing import quiet

from .config import Web
from .multipart import body_of, files_of
from .records import hashed
from .rules import SeriesFacts
from .sessions import session_of
from .sources import BELONGS, FACTS, MIXED, ODD, Found, OneOf, facts_of, is_uid, merged

_AGAIN = {401, 403, 408, 413, 425, 429}
"""Answers that say nothing about the study: entry that is denied for now, limits, time."""

_STORED = (200, 202, 409)
"""Answers to a store that say what became of each instance: all, some, none is there."""

_THERE = 0x0111
"""Why an instance is refused that is there already."""

_PAGE = 500
"""Rows of one query."""

_BATCH_BYTES = 32 << 20
"""Instances are sent together up to this size."""


class PacsError(HilumError):
    """A PACS did not answer, or not as it must.

    Attributes
    ----------
    again
        Whether the same may succeed later.
    status
        Of HTTP; 0 without an answer.
    """

    code = "pacs"
    _EVERYWHERE = (0, 401, 403, 429, 503)

    def __init__(self, text: str, *, again: bool, status: int = 0) -> None:
        super().__init__(text)
        self.again = again
        self.status = status

    @property
    def everywhere(self) -> bool:
        """Whether it would be the same for any other study: no answer, no entry, too much."""
        return self.status in self._EVERYWHERE


@contextmanager
def _errors(what: str, web: Web) -> Iterator[None]:
    """Turn what the libraries raise into a `PacsError`, without identifiers from their texts."""
    try:
        yield
    except HilumError:
        raise
    except requests.HTTPError as failure:
        status = failure.response.status_code if failure.response is not None else 0
        again = status in _AGAIN or status >= 500 or not status
        raise PacsError(
            f"{what}: {web.dicomweb} answers {status}", again=again, status=status
        ) from None
    except requests.JSONDecodeError:
        raise PacsError(
            f"{what}: {web.dicomweb} sent what is no JSON", again=True, status=200
        ) from None
    except requests.exceptions.SSLError:
        raise PacsError(
            f"{what}: {web.dicomweb} has no certificate of an authority that is trusted (tls_ca), "
            "or wants one of ours (tls_cert)",
            again=True,
        ) from None
    except requests.RequestException as failure:
        raise PacsError(
            f"{what}: {web.dicomweb} cannot be reached ({type(failure).__name__})", again=True
        ) from None
    except OSError as failure:
        if failure.errno is not None:
            raise  # of the disk
        raise PacsError(f"{what}: {failure}", again=True) from None  # requests: no such PEM file
    except Exception as failure:  # noqa: BLE001 - parsers of answers fail in many ways
        raise PacsError(
            f"{what}: {web.dicomweb} sent what is no DICOM ({type(failure).__name__})",
            again=True,
            status=200,
        ) from None


def _dataset(row: dict[str, Any]) -> Dataset:
    """DICOM JSON as a dataset, without what would have to be fetched by itself (pixels)."""
    return Dataset.from_json({tag: one for tag, one in row.items() if "BulkDataURI" not in one})


def _facts(row: dict[str, Any]) -> Dataset:
    """What rules ask, from DICOM JSON; a value that cannot be read counts as missing."""
    read = Dataset()
    for name in FACTS:
        tag = f"{Tag(name):08X}"
        if tag in row:
            with suppress(Exception):
                read.update(_dataset({tag: row[tag]}))
    return read


@dataclass(slots=True)
class Pacs:
    """One service. Thread-safe: each thread has a session of its own, whose connection stays."""

    web: Web
    trouble: str = ""
    _of_thread: threading.local = field(default_factory=threading.local, repr=False)

    def session(self) -> requests.Session:
        """The session of this thread; a new one, with secrets as they are now, after a failure."""
        found = getattr(self._of_thread, "session", None)
        if found is None:
            found = self._of_thread.session = session_of(self.web)
        return found

    def client(self) -> DICOMwebClient:
        """A client of DICOMweb; retries are the ledger's."""
        session = self.session()
        if getattr(self._of_thread, "of", None) is not session:
            client = DICOMwebClient(
                self.web.dicomweb.rstrip("/"), session=session, timeout=self.web.timeout_s
            )
            client.set_http_retry_params(retry=False)
            self._of_thread.client, self._of_thread.of = client, session
        return self._of_thread.client

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn failures of this service into a `PacsError`, and begin a new session after one."""
        try:
            with quiet(), _errors(what, self.web):  # warnings of parsers quote what they read
                yield
        except PacsError:
            self._of_thread.session = None
            raise

    def check(self) -> None:
        """Ask for one study.

        Raises
        ------
        PacsError
            When that fails.
        """
        with self.errors("query"):
            self.client().search_for_studies(limit=1)

    def study(self, study: str) -> list[Found]:
        """All series of one study."""
        return merged(self.listed(study))

    def listed(self, study: str) -> list[Found]:
        """All series of one study; one that lies under two patients comes twice."""
        rows = self._pages("search_for_series", study, fields=["NumberOfSeriesRelatedInstances"])
        found = []
        for row in rows:
            uid = str(row.get("SeriesInstanceUID") or "")
            count = row.get("NumberOfSeriesRelatedInstances")
            if count is None and is_uid(uid):  # not every PACS counts
                count = len(self.instances(Found(uid, study, 0)))
            found.append(Found(uid, study, int(count or 0)))
        return found

    def instances(self, series: Found) -> list[str]:
        """SOPInstanceUIDs of a series."""
        rows = self._pages("search_for_instances", series.study, series.uid)
        return sorted(str(row.get("SOPInstanceUID") or "") for row in rows)

    def headers(self, study: str, series: str) -> list[Dataset]:
        """The headers of all instances of a series; none when it is not there."""
        try:
            with self.errors("metadata"):
                found = self.client().retrieve_series_metadata(study, series)
                return [_dataset(one) for one in found]
        except PacsError as failure:
            if failure.status == 404:
                return []
            raise

    def facts(self, series: Found, instance: str) -> SeriesFacts:
        """What rules ask, from one instance."""
        if not is_uid(instance):
            raise Damaged(ODD)
        with self.errors("metadata"):
            row = self.client().retrieve_instance_metadata(series.study, series.uid, instance)
            return facts_of(_facts(row), series.instances)

    def fetch(self, series: Found, folder: Path) -> list[str]:
        """Write the instances into a folder, byte by byte, named in the order of their UIDs."""
        one, uids = OneOf(series), []
        try:
            with self.errors("retrieve"), self._retrieved(series) as answer:
                uids += (one.check(header(path, BELONGS)) for path in files_of(answer, folder))
        except PacsError as failure:  # Orthanc: 404 for a series that it has twice
            if failure.status == 404 and self._is_twofold(series):
                raise Damaged(MIXED.format("patient")) from None
            raise
        if len(set(uids)) != len(uids):
            raise Damaged("the PACS sent an instance of the series twice")
        places = {uid: place for place, uid in enumerate(sorted(uids), 1)}
        for number, uid in enumerate(uids):
            (folder / f"came-{number}").rename(folder / f"{places[uid]:05d}.dcm")
        return sorted(uids)

    def _retrieved(self, series: Found) -> requests.Response:
        """The instances of a series as they lie in the PACS (PS3.18 §10.4)."""
        study, uid = (quote(one, safe="") for one in (series.study, series.uid))
        answer = self.session().get(
            f"{self.web.dicomweb.rstrip('/')}/studies/{study}/series/{uid}",
            headers={"Accept": 'multipart/related; type="application/dicom"'},
            stream=True,
            timeout=self.web.timeout_s,
        )
        answer.raise_for_status()
        return answer

    def _is_twofold(self, series: Found) -> bool:
        return [one.uid for one in self.listed(series.study)].count(series.uid) > 1

    def store(self, files: Sequence[Path]) -> None:
        """Send files; those that are there already count as sent.

        Raises
        ------
        PacsError
            When one is refused.
        """
        batch: list[Path] = []
        size = 0
        for path in files:
            size += path.stat().st_size
            if batch and size > _BATCH_BYTES:
                self._store(batch)
                batch, size = [], path.stat().st_size
            batch.append(path)
        if batch:
            self._store(batch)

    def _store(self, batch: Sequence[Path]) -> None:
        try:
            with self.errors("store"):
                answer = self._stow(batch)
        except PacsError as failure:
            if failure.status != 413 or len(batch) == 1:
                raise
            for path in batch:
                self._store([path])
            return
        reasons = [
            int(item.get("FailureReason", 0)) for item in answer.get("FailedSOPSequence", ())
        ]
        refused = [reason for reason in reasons if reason != _THERE]
        if refused:
            codes = sorted({f"{reason:04X}" for reason in refused})
            raise PacsError(
                f"store: {self.web.dicomweb} refuses {len(refused)} of {len(batch)} instances "
                f"(reason {', '.join(codes)})",
                again=any(code.startswith("A7") or code == "0110" for code in codes),
            )

    def _stow(self, batch: Sequence[Path]) -> Dataset:
        """STOW-RS of the very bytes of files (PS3.18 §10.5); what the PACS says of each.

        Some PACS answer in XML whatever is asked for. Such an answer is not read: what is not there
        then, the query afterwards shows.
        """
        body, kind = body_of(batch)
        answer = self.session().post(
            self.web.dicomweb.rstrip("/") + "/studies",
            data=body,
            headers={"Content-Type": kind, "Accept": "application/dicom+json"},
            timeout=self.web.timeout_s,
        )
        said = Dataset()
        if "json" in answer.headers.get("Content-Type", "") and answer.status_code in _STORED:
            said = _dataset(answer.json())
        if answer.status_code != 409 or not said.get("FailedSOPSequence"):
            answer.raise_for_status()
        return said

    def lacks(self, study: str, outputs: dict[str, int]) -> list[str]:
        """The series of `outputs` (instances by UID) that are not there whole."""
        there = {series.uid: series.instances for series in self.study(study)}
        return [uid for uid, count in outputs.items() if there.get(uid, 0) < count]

    def _pages(self, method: str, *uids: str, **more: Any) -> Iterator[Dataset]:
        """All rows of a query, page by page."""
        offset = 0
        while True:
            with self.errors("query"):
                rows = getattr(self.client(), method)(*uids, limit=_PAGE, offset=offset, **more)
                found = [_dataset(row) for row in rows]
            yield from found
            if len(found) < _PAGE:
                return
            offset += len(found)


@dataclass(slots=True)
class QuerySource(Pacs):
    """News by queries: the studies of the last days, and the series of those that grew."""

    days: int = 2
    _counts: dict[str, str] = field(default_factory=dict)
    _cursor: str = ""

    def news(self, cursor: str) -> tuple[list[Found], str]:
        """Series of the studies in the window that are not as they were at the last look.

        A PACS that does not count instances of studies is asked for the series of all of them. The
        cursor stands for what was seen: where it was not kept, nothing counts as seen.
        """
        filters = {}
        if self.days:
            first = datetime.date.today() - datetime.timedelta(days=self.days)
            filters["StudyDate"] = f"{first:%Y%m%d}-"
        rows = self._pages(
            "search_for_studies", search_filters=filters, fields=["NumberOfStudyRelatedInstances"]
        )
        before = self._counts if cursor == self._cursor else {}
        counts: dict[str, str] = {}
        found: list[Found] = []
        trouble = ""
        for row in rows:
            study = str(row.get("StudyInstanceUID") or "")
            counts[study] = str(row.get("NumberOfStudyRelatedInstances") or "")
            if counts[study] and before.get(study) == counts[study]:
                continue
            try:
                found += self.study(study) if is_uid(study) else [Found(study, study, 0)]
            except PacsError as failure:
                if failure.everywhere:
                    raise
                del counts[study]  # asked again at the next look
                trouble = str(failure)
        self.trouble, self._counts = trouble, counts
        self._cursor = hashed(json.dumps(counts))
        return found, self._cursor
