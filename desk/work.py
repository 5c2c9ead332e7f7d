"""What is done with jobs: the oldest first, so many at once, with progress, until the desk ends."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hilum.catalog.errors import HilumError, InputError, OutputError, WrongStudy, code_of
from hilum.client.batch import run_study
from hilum.client.calls import Calls, Progress
from hilum.client.client import Client
from hilum.client.client_pool import ClientPool
from hilum.client.protocols import AnySystem
from hilum.client.registry import find_system
from hilum.gateway.records import Job
from hilum.results.report import reason, write_json
from hilum.systems.study_folder import head_of, write_study

from .choices import options_from
from .scene import write_scene
from .store import Desk

_LOOK_S = 0.5
_SAY_EVERY_S = 0.25
_CRASHES = 3
"""A job during which the desk died this often is set aside."""

_CLEAN_EVERY_S = 600.0


@dataclass(slots=True)
class Work:
    """The threads that work on the jobs of a desk.

    Attributes
    ----------
    say
        Takes one line for the log, without identifiers.
    """

    desk: Desk
    client: Client | ClientPool
    say: Callable[[str], None]
    _taken: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin; jobs that ran when an earlier desk ended are begun again."""
        for number in range(self.desk.limits.slots):
            thread = threading.Thread(target=self._loop, name=f"desk-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Take nothing new, end what runs at its next call; it is begun again by the next desk."""
        self._ending.set()
        self.desk.news.set()
        for event in list(self.desk.stops.values()):
            event.set()
        for thread in self._threads:
            thread.join(10)

    def _loop(self) -> None:
        cleaned = 0.0
        while not self._ending.is_set():
            try:
                job = self._next()
                if job is not None:
                    self._run(job)
                    continue
                if time.monotonic() - cleaned > _CLEAN_EVERY_S:
                    cleaned = time.monotonic()
                    self.desk.clean()
            except HilumError as failure:  # the ledger: a full disk
                self.say(str(failure))
            self.desk.news.wait(_LOOK_S)
            self.desk.news.clear()

    def _next(self) -> Job | None:
        with self._lock:
            job = self.desk.ledger.claim(("running", "stable"), self._taken)
            if job is not None:
                self._taken.add(job.id)
            return job

    def _run(self, job: Job) -> None:
        stop = self.desk.stops[job.id] = threading.Event()
        try:
            if job.crashes >= _CRASHES:
                self._failed(
                    job, "crash", "crash", f"the desk died {job.crashes} times while it ran"
                )
            elif self.desk.ledger.move(job.id, "running", crashes=job.crashes + 1):
                self.desk.changed(job.series)
                self._compute(job, stop)
        except CancelledError:
            if self._ending.is_set():
                self.desk.ledger.move(job.id, "stable", crashes=job.crashes)
        except Exception as failure:  # noqa: BLE001 - the queue goes on, whatever happens
            self._failed(job, _kind(failure), code_of(failure), self._words(failure))
        finally:
            self.desk.progress.pop(job.id, None)
            self.desk.stops.pop(job.id, None)
            with self._lock:
                self._taken.discard(job.id)
            self.desk.changed(job.series)

    def _compute(self, job: Job, stop: threading.Event) -> None:
        """Run the system on each study of what was sent: one CT, or several X-rays."""
        began = time.monotonic()
        system = find_system(job.system)
        options = options_from(system, json.loads(job.options))
        head = head_of(system, options, self.client.about())
        inputs = self.desk.uploads.inputs(job.series)
        studies = system.find(inputs) if inputs.is_dir() else []
        if not studies:
            raise WrongStudy(f"no {system.study_label} is in what was sent")
        say = _Said(self.desk, job, system, options, len(studies))
        calls = Calls(self.client, say.progress, stop)
        rows: list[dict[str, Any]] = []
        failures: list[InputError] = []
        spool = self.desk.spool
        with (
            spool.written(spool.folder / job.id / "view") as views,
            spool.written(spool.result(job.id)) as place,
        ):
            for number, study in enumerate(studies, 1):
                say.study = number
                name = f"{number:04d}"
                try:
                    rows.append(
                        {"name": name}
                        | self._one(system, options, study, place / name, views / name, head, calls)
                    )
                except InputError as failure:
                    failures.append(failure)
                    said = {"error": self._words(failure), "code": failure.code}
                    rows.append({"name": name} | said)
            if len(failures) == len(studies):
                raise failures[0]
            seconds = round(time.monotonic() - began, 2)
            note = head["weights_note"]
            write_json(place / "summary.json", {"studies": rows, "seconds": seconds, "note": note})
            calls.check()
        self.desk.ledger.move(job.id, "done", kind="", code="", reason="", crashes=job.crashes)
        self.say(f"{job.id} done: {job.system}, {len(studies)} studies in {seconds:.1f} s")

    def _one(
        self, system: AnySystem, options: Any, study: Path, place: Path, view: Path,
        head: dict[str, Any], calls: Calls,
    ) -> dict[str, Any]:  # fmt: skip
        """Compute one study and write its folder, and what the viewer shows; gives its row."""
        result, _ = write_study(
            system, options, study, place, head,
            lambda: run_study(system, study, options, calls, self.client.metrics),
            dicom=lambda found: _can_be_dicom(system, study, found),
        )  # fmt: skip
        calls.progress("pictures", 0, 1)
        write_scene(options, study, result, place, view)
        return {"row": result.row()}

    def _failed(self, job: Job, kind: str, code: str, text: str) -> None:
        self.desk.ledger.move(job.id, "failed", kind=kind, code=code, reason=text, crashes=0)
        self.say(f"{job.id} failed ({kind}): {text}")

    def _words(self, failure: BaseException) -> str:
        """Why something failed, without places on this machine."""
        text = reason(failure)
        if isinstance(failure, OutputError):
            text = text.replace(", or give another folder with --out", "")
        return re.sub(
            rf"{re.escape(str(self.desk.folder))}/\S*?(?=[\s:;,'\"]|$)", "the study", text
        )


@dataclass(slots=True)
class _Said:
    """Progress of one job on its way to the pages, a few times a second."""

    desk: Desk
    job: Job
    system: AnySystem
    options: Any
    studies: int
    study: int = 1
    _began: float = field(default_factory=time.monotonic)
    _stage: tuple[str, float] = ("", 0.0)
    _last: float = 0.0

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage[0]:
            self._stage = progress.stage, now
        elif now - self._last < _SAY_EVERY_S and progress.done < progress.total:
            return
        self._last = now
        found = {
            "stage": progress.stage, "done": progress.done, "total": progress.total,
            "study": self.study, "studies": self.studies, "left_s": self._left(progress, now),
        }  # fmt: skip
        self.desk.progress[self.job.id] = found
        self.desk.events.publish("progress", {"job": self.job.id, **found})

    def _left(self, progress: Progress, now: float) -> float | None:
        """Seconds until this study is done; of the stage alone, where its share is not known."""
        since = now - self._stage[1]
        if not progress.done or since < 1:
            return None
        whole = since * progress.total / progress.done
        share = self.system.share_of(progress.stage, self.options)
        return round(max(0.0, (whole / share if share else whole) - since), 1)


def _can_be_dicom(system: AnySystem, study: Path, result: Any) -> bool:
    """Whether the study was read from DICOM files, and the library for it is there."""
    return find_spec("highdicom") is not None and bool(system.dicom_files(study, result))


def _kind(failure: Exception) -> str:
    if isinstance(failure, InputError):
        return "input"
    if isinstance(failure, OutputError):
        return "disk"
    return "server" if isinstance(failure, HilumError) else "fault"
