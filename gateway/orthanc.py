"""A PACS that is an Orthanc: its own interface says what is new, who sent it, and much faster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import requests
from pydicom.tag import Tag

from .pacs import Pacs
from .rules import SeriesFacts
from .sources import FACTS, Found, facts_of

_CHANGES = 1000
"""Rows of one page of the list of changes."""

_PAGES = 10
"""Pages of one look, between which the gateway does nothing else with its source."""

_REMEMBERED = 10_000
"""Studies whose UID is not asked again."""


_NAMES = {f"{Tag(name).group:04x},{Tag(name).element:04x}": name for name in FACTS}
"""Attributes that rules ask, by the tags of Orthanc's JSON."""


@dataclass(slots=True)
class OrthancSource(Pacs):
    """News by Orthanc's list of changes, which also knows who sent a series.

    Attributes
    ----------
    orthanc
        Root of its own interface.
    senders
        Whether rules ask for the AE title of who sent a series.
    """

    orthanc: str = ""
    senders: bool = True
    _studies: dict[str, str] = field(default_factory=dict)
    _places: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Ask for one study, and for one change.

        Raises
        ------
        PacsError
            When that fails.
        """
        Pacs.check(self)
        with self.errors("changes"):
            self._get("/changes", limit=1)

    def news(self, cursor: str) -> tuple[list[Found], str]:
        """Series that changed since `cursor`; every series when the list begins again.

        Orthanc forgets to call a series stable that grew shortly before it ended, so each new
        instance counts.
        """
        touched: dict[str, None] = {}
        with self.errors("changes"):
            for _ in range(_PAGES):
                page = self._get("/changes", since=cursor or 0, limit=_CHANGES)
                if cursor and int(page["Last"]) < int(cursor):  # the database was reset
                    page = self._get("/changes", since=0, limit=_CHANGES)
                new = [one["ID"] for one in page["Changes"] if one["ChangeType"] == "NewInstance"]
                touched |= {row["ParentSeries"]: None for row in self._bulk(new)}
                cursor = str(page["Last"])
                if page["Done"]:
                    break
            return self._series(list(touched)), cursor

    def listed(self, study: str) -> list[Found]:
        """All series of one study; one that lies under two patients comes twice."""
        with self.errors("series"):
            rows = self._find("Series", StudyInstanceUID=study)
            return [
                Found(row["MainDicomTags"]["SeriesInstanceUID"], study, len(row["Instances"]))
                for row in rows
            ]

    def instances(self, series: Found) -> list[str]:
        """SOPInstanceUIDs of a series."""
        with self.errors("instances"):
            rows = self._find(
                "Instance", StudyInstanceUID=series.study, SeriesInstanceUID=series.uid
            )
            self._places = {row["MainDicomTags"]["SOPInstanceUID"]: row["ID"] for row in rows}
            return sorted(self._places)

    def facts(self, series: Found, instance: str) -> SeriesFacts:
        """What rules ask, from one instance; the AE title is that of the sender."""
        with self.errors("tags"):
            place = self._places[instance]
            tags = self._get(f"/instances/{place}/tags")
            sender = ""
            if self.senders:
                metadata = self._get(f"/instances/{place}/metadata", expand="")
                sender = metadata.get("RemoteAET", "")
        return facts_of(_read(tags), series.instances, sender)

    def _series(self, identifiers: list[str]) -> list[Found]:
        """Series by Orthanc's own identifiers; those that were removed meanwhile are left out."""
        rows = self._bulk(identifiers)
        if len(self._studies) > _REMEMBERED:
            self._studies.clear()
        parents = dict.fromkeys(row["ParentStudy"] for row in rows)
        for study in self._bulk([one for one in parents if one not in self._studies]):
            self._studies[study["ID"]] = study["MainDicomTags"]["StudyInstanceUID"]
        return [
            Found(
                row["MainDicomTags"]["SeriesInstanceUID"], self._studies[row["ParentStudy"]],
                len(row["Instances"]),
            )
            for row in rows if row["ParentStudy"] in self._studies
        ]  # fmt: skip

    def _bulk(self, identifiers: list[str]) -> list[Any]:
        if not identifiers:
            return []
        return self._post("/tools/bulk-content", json={"Resources": identifiers})

    def _find(self, level: str, **query: str) -> Any:
        return self._post("/tools/find", json={"Level": level, "Expand": True, "Query": query})

    def _get(self, path: str, **parameters: Any) -> Any:
        return self._answer(
            self.session().get(self._url(path), params=parameters, timeout=self.web.timeout_s)
        )

    def _post(self, path: str, **body: Any) -> Any:
        return self._answer(
            self.session().post(self._url(path), timeout=self.web.timeout_s, **body)
        )

    def _url(self, path: str) -> str:
        return self.orthanc.rstrip("/") + path

    def _answer(self, answer: requests.Response) -> Any:
        answer.raise_for_status()
        return answer.json()


def _read(tags: dict[str, Any]) -> dict[str, Any]:
    """What rules ask, by keyword, from Orthanc's JSON of an instance or of an item of one."""
    read: dict[str, Any] = {}
    for tag, name in _NAMES.items():
        value = tags.get(tag, {}).get("Value")
        if name == "ImageType":
            value = str(value or "").split("\\")
        elif isinstance(value, list):
            value = [_read(item) for item in value]
        read[name] = value
    return read
