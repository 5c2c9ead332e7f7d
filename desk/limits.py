"""What the desk takes at most."""

from __future__ import annotations

from dataclasses import dataclass

from hilum.catalog.errors import HilumError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on size, number and time.

    Attributes
    ----------
    study_bytes, file_bytes, files
        Of one study, of one file of it, and how many it may have.
    open_uploads
        Studies that may be sent at once.
    jobs
        Jobs that may wait or run.
    idle_s
        A body that brings nothing for so long is given up.
    watermark
        Share of the disk above which nothing is taken.
    keep_h
        Hours for which the files of a study stay; results stay until they are deleted.
    slots
        Studies that run at once.
    """

    study_bytes: int = 4 * 2**30
    file_bytes: int = 512 * 2**20
    files: int = 20_000
    open_uploads: int = 8
    jobs: int = 200
    idle_s: float = 30.0
    watermark: float = 0.95
    keep_h: float = 24.0
    slots: int = 1


class Refused(HilumError):
    """What a caller asked for is not done.

    Attributes
    ----------
    status
        Of HTTP.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = REFUSALS[status]


REFUSALS = {
    400: "empty", 401: "token", 403: "gateway", 404: "none", 408: "slow", 409: "state", 410: "gone",
    413: "large", 415: "archive", 429: "many", 507: "room",
}  # fmt: skip
"""Codes of what is refused, by status."""
