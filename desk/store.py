"""Studies and their jobs: what is there, what is to be done, what came of it.

State is that of a gateway: a ledger and a spool in one folder, so that a page shows either. Beside
them ``uploads/<study>/in`` holds what was sent, and ``spool/<job>/view`` what the viewer shows.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.gateway.ledger import Ledger
from hilum.gateway.records import Job, hashed
from hilum.gateway.spool import Spool
from hilum.results.folder import RESULT

from .events import Events
from .limits import Limits, Refused
from .patient import Patients
from .uploads import Uploads

CANCELLED = "cancelled"
"""Kind of a job that somebody ended; those that another one replaces have none."""

_STATES = {"stable": "waiting", "fetching": "running", "sending": "running", "verifying": "running"}
"""What a page calls the states of the ledger; the others keep their names."""


@dataclass(slots=True)
class Desk:
    """What the page shows of one folder. Thread-safe but for `uploads`.

    Attributes
    ----------
    works
        Whether studies are taken and run here; else the folder is a gateway's, and only shown.
    """

    folder: Path
    limits: Limits
    works: bool = True
    events: Events = field(default_factory=Events)
    ledger: Ledger = field(init=False)
    spool: Spool = field(init=False)
    uploads: Uploads = field(init=False)
    progress: dict[str, dict[str, Any]] = field(default_factory=dict)
    stops: dict[str, threading.Event] = field(default_factory=dict)
    news: threading.Event = field(default_factory=threading.Event)
    _patients: Patients = field(default_factory=Patients)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.folder / "ledger.sqlite")
        (self.folder / "spool").mkdir(exist_ok=True, mode=0o700)
        self.spool = Spool(self.folder / "spool", float("inf"), self.limits.watermark)
        self.uploads = Uploads(self.folder / "uploads", self.limits)

    def studies(self) -> list[dict[str, Any]]:
        """Every study with its jobs, the newest first."""
        jobs: dict[str, list[Job]] = {name: [] for name in self.uploads.names()}
        for job in self.ledger.jobs():
            if job.state != "ignored" or job.kind == CANCELLED:
                jobs.setdefault(job.series, []).append(job)
        found = [self._study(series, own) for series, own in jobs.items()]
        return sorted(found, key=lambda study: -study["created"])

    def study(self, series: str) -> dict[str, Any]:
        """One study with its jobs."""
        jobs = (j for j in self.ledger.jobs() if j.series == series)
        return self._study(series, [j for j in jobs if j.state != "ignored" or j.kind == CANCELLED])

    def job(self, key: str) -> Job:
        """A job by its identifier.

        Raises
        ------
        Refused
            When there is none.
        """
        found = next((job for job in self.ledger.jobs() if job.id == key), None)
        if found is None:
            raise Refused(404, "there is no such job")
        return found

    def begin(self, expected: int | None = None) -> str:
        """Make room for a new study, which is to have so many files."""
        self.check_works()
        waiting = [n for n in self.uploads.names() if not self.study(n)["jobs"]]
        if len(waiting) >= self.limits.open_uploads:
            raise Refused(429, f"{len(waiting)} studies are sent and not run: run or delete some")
        study = self.uploads.begin(expected)
        self.changed(study)
        return study

    def submit(self, study: str, system: str, options: Mapping[str, Any]) -> str:
        """Enter a job for a study; the same work that is there already stays."""
        self.check_works()
        self.check_study(study)
        files, size = self.uploads.size(study)
        if not files:
            raise Refused(409, "the study has no files")
        if files < (expected := self.uploads.expected(study) or 0):
            raise Refused(409, f"{files} of {expected} files arrived: send them again")
        own = [job for job in self.ledger.jobs() if job.series == study and job.system == system]
        if any(job.state in ("stable", "running") for job in own):
            raise Refused(409, f"{system} is at work on this study already")
        if sum(self.ledger.counts()[s] for s in ("stable", "running")) >= self.limits.jobs:
            raise Refused(429, f"{self.limits.jobs} jobs wait already")
        text = json.dumps(dict(options), sort_keys=True)
        for job in own:  # one that is over and did not succeed makes room for the next
            if job.state in ("failed", "ignored"):
                self.remove(job)
            elif job.options == text:
                return job.id
        self.ledger.see(study, study, files, again=True)
        series = self.ledger.series(study)
        if series is None:
            raise Refused(404, "there is no such study")
        keys = self.ledger.take(series, f"{files} files, {size} bytes", [("desk", system, options)])
        self.changed(study)
        self.news.set()
        return keys[0]

    def retry(self, key: str) -> str:
        """Run a job again that failed or was cancelled."""
        job = self.job(key)
        if job.state not in ("failed", "ignored"):
            raise Refused(409, "the job is not over, or done")
        return self.submit(job.series, job.system, json.loads(job.options))

    def cancel(self, key: str) -> None:
        """End a job; what it computed so far is lost."""
        self.check_works()
        job = self.job(key)
        if job.state not in ("stable", "running"):
            raise Refused(409, "the job is over")
        self.ledger.move(key, "ignored", kind=CANCELLED, reason="somebody ended it")
        if key in self.stops:
            self.stops[key].set()
        self.changed(job.series)

    def delete(self, study: str) -> None:
        """Remove a study with all its jobs and results."""
        self.check_works()
        own = [job for job in self.ledger.jobs() if job.series == study]
        if not own:
            self.check_study(study)
        for job in own:
            self.remove(job)
        self.uploads.drop(study)
        self.events.publish("gone", {"id": study})

    def remove(self, job: Job) -> None:
        """Remove a job and its result."""
        if job.id in self.stops:
            self.stops[job.id].set()
        self.spool.drop(job.id)
        self.ledger.forget(job.id)

    def clean(self) -> None:
        """Remove files of studies that were sent long ago and are not at work."""
        before = time.time() - 3600 * self.limits.keep_h
        for name in self.uploads.names():
            study = self.study(name)
            over = all(job["state"] not in ("waiting", "running") for job in study["jobs"])
            if over and max([study["created"], *(j["changed"] for j in study["jobs"])]) < before:
                self.uploads.drop(name)

    def result(self, key: str) -> list[dict[str, Any]]:
        """What came of a job: for each of its studies the result, its files and what is shown."""
        found = []
        home = self.spool.folder.resolve() / key
        for path in sorted(self.spool.result(key).glob(f"*/{RESULT}")):
            if _leads_out(path, home):
                continue
            with suppress(OSError, ValueError):
                entry = {"name": path.parent.name, "result": json.loads(path.read_bytes())}
                scene = self.view(key, path.parent.name) / "scene.json"
                there = scene.is_file() and not _leads_out(scene, home)
                entry["scene"] = json.loads(scene.read_bytes()) if there else None
                entry["files"] = [
                    {"name": str(file.relative_to(path.parent)), "bytes": file.stat().st_size}
                    for file in sorted(path.parent.rglob("*"))
                    if file.is_file() and not _leads_out(file, home)
                ]
                found.append(entry)
        if not found:
            raise Refused(404, "the job has no result")
        return found

    def patient(self, key: str, name: str) -> dict[str, str]:
        """Marks of whose study a result is, to compare with those of another; see `Patients`."""
        return self._patients.of(self.spool.result(key) / name)

    def view(self, key: str, name: str) -> Path:
        """Where what the viewer shows of one study lies."""
        return self.spool.folder / key / "view" / name

    def view_files(self, key: str, name: str) -> set[str]:
        """Names of the files that the viewer may ask for."""
        place, home = self.view(key, name), self.spool.folder.resolve() / key
        if not place.is_dir():
            return set()
        return {p.name for p in place.iterdir() if p.is_file() and not _leads_out(p, home)}

    def changed(self, series: str) -> None:
        """Say that a study changed, if it is still there."""
        if (self.uploads.folder / series).is_dir() or any(
            job.series == series for job in self.ledger.jobs()
        ):
            self.events.publish("study", self.study(series))

    def check_works(self) -> None:
        """Refuse changes of what belongs to a gateway."""
        if not self.works:
            raise Refused(403, "these studies are a gateway's, which works on them: see only")

    def check_study(self, study: str) -> None:
        """Refuse a study that is not there."""
        if study not in self.uploads.names():
            known = any(job.series == study for job in self.ledger.jobs())
            raise Refused(*(410, "the files of this study are gone: send it again") if known else
                          (404, "there is no such study"))  # fmt: skip

    def close(self) -> None:
        """Close the ledger."""
        self.events.close()
        self.ledger.close()

    def _study(self, series: str, jobs: list[Job]) -> dict[str, Any]:
        place = self.uploads.folder / series
        there = self.works and place.is_dir()
        files, size = self.uploads.size(series) if there else (jobs[0].instances if jobs else 0, 0)
        created = min((job.created for job in jobs), default=0.0)
        if there and not jobs:
            created = place.stat().st_ctime
        return {
            "id": shown_id(series),
            "created": created, "files": files, "bytes": size, "there": there,
            "expected": self.uploads.expected(series) if there else None,
            "jobs": [self._job(job) for job in jobs],
        }  # fmt: skip

    def _job(self, job: Job) -> dict[str, Any]:
        state = CANCELLED if job.state == "ignored" else _STATES.get(job.state, job.state)
        found = {
            "id": job.id, "system": job.system, "options": json.loads(job.options), "state": state,
            "kind": job.kind, "code": job.code, "reason": job.reason,
            "created": job.created, "changed": job.changed,
            "progress": self.progress.get(job.id), "summary": None,
        }  # fmt: skip
        summary = self.spool.result(job.id) / "summary.json"
        if job.state == "done" and summary.is_file():
            with suppress(OSError, ValueError):
                found["summary"] = json.loads(summary.read_bytes())
        return found


def shown_id(series: str) -> str:
    """What a study is called; a gateway's are UIDs, which are not shown."""
    return series if "." not in series else hashed(series)


def _leads_out(file: Path, folder: Path) -> bool:
    """Whether a link leads out of a folder, which is a resolved one; nothing here makes links."""
    return not file.resolve().is_relative_to(folder)
