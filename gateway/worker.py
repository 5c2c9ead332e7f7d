"""What is done with a job, stage by stage: fetch, run, send and verify.

Each stage may be repeated after a crash: instances are fetched into a new folder, a result that is
published is not computed again, and the same bytes are sent again.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hilum.catalog.errors import (
    ConnectionFailed,
    HilumError,
    InferenceFailed,
    InputError,
    OutOfMemory,
    OutputError,
    RepositoryError,
    ServerError,
    WrongStudy,
    code_of,
)
from hilum.client.client import Client
from hilum.client.client_pool import ClientPool
from hilum.client.registry import find_system
from hilum.preprocessing.reading.dicom import header
from hilum.results.folder import RESULT
from hilum.results.report import reason, write_json
from hilum.systems.dicom_results import provenance_of
from hilum.systems.study_folder import head_of, write_study

from .config import Settings, options_of
from .ledger import Ledger
from .pacs import Pacs, PacsError
from .records import Job, identity_of
from .sources import Found, Source
from .spool import Spool
from .withdrawn import write_withdrawal

_FAULTS = 3
"""How often a study that fails for no known reason is tried."""


_LISTED_AFTER_S = (0.0, 0.2, 0.8, 2.0)
"""Waits before the looks at what the PACS lists."""


_WEIGHTS_S = 2.0
"""How long an answer about the servers' weights holds: no server starts again in less."""


class Later(HilumError):
    """Something else must be done first."""

    code = "order"


class _Gone(Later):
    """What was fetched is not there any more."""


@dataclass(slots=True)
class Worker:
    """Works on one job at a time in each thread that calls it."""

    settings: Settings
    ledger: Ledger
    spool: Spool
    source: Source
    client: Client | ClientPool
    say: Callable[[str], None]
    _target: Pacs = field(init=False)
    _about: tuple[float, dict[str, Any] | None] = field(default=(-math.inf, None), init=False)

    def __post_init__(self) -> None:
        self._target = Pacs(self.settings.out)

    def stage(self, job: Job) -> bool:
        """Do the stage that a job is in; whether what came of it could be entered."""
        try:
            match job.state:
                case "stable" | "fetching":
                    self._fetch(job)
                case "running":
                    self._run(job)
                case _:
                    self._send(job)
        except Exception as failure:  # noqa: BLE001 - the queue goes on, whatever happens
            return self._failed(job, failure)
        return True

    def _fetch(self, job: Job) -> None:
        if not self.ledger.move(job.id, "fetching"):
            return
        with self.spool.written(self.spool.inputs(job.id), lasting=False) as place:
            came = self.source.fetch(Found(job.series, job.study, job.instances), place)
            if identity_of(came) != job.identity:
                self.ledger.see(job.series, job.study, len(came), again=True)
                raise Later("the series changed while it was fetched")
        self.ledger.move(job.id, "running")

    def _run(self, job: Job) -> None:
        """Compute a result, unless it is there already."""
        folder = self.spool.result(job.id)
        if not folder.is_dir():
            if job.crashes >= self.settings.limits.crashes:
                self._over(
                    job, "crash", "crash", f"the gateway died {job.crashes} times while it ran"
                )
                return
            self._wait_for_earlier(job)
            # Counted before, and taken back afterwards: what remains are runs that never ended.
            if not self.ledger.move(job.id, "running", crashes=job.crashes + 1):
                return
            try:
                self._compute(job, folder)
            except BaseException as failure:
                state = "stable" if isinstance(failure, _Gone) else "running"
                self.ledger.move(job.id, state, crashes=job.crashes)
                raise
        outputs: dict[str, int] = {}
        for path in self.spool.objects(job.id):
            uid = str(header(path, ["SeriesInstanceUID"]).SeriesInstanceUID)
            outputs[uid] = outputs.get(uid, 0) + 1
        if self.ledger.sending(job.id, outputs, crashes=job.crashes):
            self.spool.drop_inputs(job.id)
        else:  # the series grew meanwhile
            self.spool.drop(job.id)

    def _wait_for_earlier(self, job: Job) -> None:
        if any(one.state in ("sending", "verifying") for one in self.ledger.earlier(job)):
            raise Later("the earlier result of the series is still being sent")

    def _compute(self, job: Job, folder: Path) -> None:
        """Run the system on each study of a series: one CT, or several X-rays."""
        system = find_system(job.system)
        rule = next((r for r in self.settings.rule if r.name == job.rule), None)
        if rule is None:
            raise InputError(f"the settings have no rule {job.rule!r} any more")
        options = options_of(rule, job.system)
        head = head_of(system, options, self._weights())
        inputs = self.spool.inputs(job.id)
        if not inputs.is_dir():
            raise _Gone("what was fetched is gone")
        failures: list[InputError] = []
        with self.spool.written(folder) as place:
            studies = system.find(inputs)
            for number, study in enumerate(studies, 1):
                try:
                    write_study(
                        system, options, study, place / f"{number:04d}", head,
                        partial(self.client.run, system, study, options=options),
                    )  # fmt: skip
                except InputError as failure:
                    failures.append(failure)
            if len(failures) == len(studies):
                raise failures[0] if failures else WrongStudy("the series holds no image")
            if job.replaces and self.settings.target.withdraw and not self.settings.target.folder:
                self._withdraw(job, place)
        for failure in failures:
            self.say(f"{job.id}: one of {len(studies)} studies has no result: {failure}")

    def _weights(self) -> dict[str, Any] | None:
        """What the servers say about the weights that they serve."""
        asked, said = self._about
        if time.monotonic() - asked > _WEIGHTS_S:
            asked = time.monotonic()
            said = self.client.about()
            self._about = asked, said
        return said

    def _withdraw(self, job: Job, place: Path) -> None:
        """Add the note on the earlier results to the first study."""
        outputs: dict[str, int] = {}
        for one in self.ledger.earlier(job):
            outputs |= self.ledger.outputs(one.id)
        first = next(iter(sorted(place.glob(f"*/{RESULT}"))))
        found = json.loads(first.read_bytes())
        provenance = provenance_of(find_system(job.system), found, found["key"])
        found["files"] += write_withdrawal(
            self._target, job.study, outputs, first.parent, provenance
        )
        write_json(first, found)

    def _send(self, job: Job) -> None:
        """Send the result, and make sure that it is there whole."""
        outputs = self.ledger.outputs(job.id)
        if self.settings.target.folder:
            target = Path(self.settings.target.folder) / job.id
            if not target.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                with self.spool.written(target) as place:
                    shutil.copytree(self.spool.result(job.id), place, dirs_exist_ok=True)
        else:
            if job.state == "sending":
                self._target.store(self.spool.objects(job.id))
                self.ledger.move(job.id, "verifying")
            if not self._verified(job, outputs):
                self.ledger.move(job.id, "sending")
                raise PacsError("the PACS does not list all that was sent", again=True)
        self.ledger.move(job.id, "done", kind="", code="", reason="", failing_since=None)
        self.say(f"{job.id} done: {job.system}, {sum(outputs.values())} instances sent")

    def _verified(self, job: Job, outputs: dict[str, int]) -> bool:
        """Whether the PACS lists all; it may take a moment after it has taken them."""
        for wait in _LISTED_AFTER_S:
            time.sleep(wait)
            if not self._target.lacks(job.study, outputs):
                return True
        return False

    def _failed(self, job: Job, failure: Exception) -> bool:
        """Enter a failure: try again later, or set the job aside; whether that was possible."""
        kind, again = _kind(failure)
        text = reason(failure)
        limits, now = self.settings.limits, time.time()
        try:
            current = self.ledger.job(job.id)
            if current.state == "ignored":
                return True
            since = current.failing_since or now
            tries = current.attempts + 1
            over = now - since > 3600 * limits.give_up_h or (kind == "fault" and tries >= _FAULTS)
            if not again or over:
                self._over(current, kind, code_of(failure), text)
                return True
            wait = min(limits.longest_retry_s, limits.first_retry_s * 2 ** min(tries - 1, 20))
            wait *= random.uniform(0.75, 1.25)  # noqa: S311 - jitter
            self.ledger.move(
                job.id, current.state, attempts=tries, failing_since=since, next_at=now + wait,
                kind=kind, code=code_of(failure), reason=text,
            )  # fmt: skip
            self.say(f"{job.id} waits {wait:.0f} s: {text}")
        except HilumError as broken:  # the ledger itself: the job stays where it was
            self.say(f"{job.id}: {broken}")
            return False
        return True

    def _over(self, job: Job, kind: str, code: str, text: str) -> None:
        self.ledger.move(job.id, "failed", kind=kind, code=code, reason=text)
        self.spool.drop_inputs(job.id)
        self.say(f"{job.id} failed ({kind}): {text}")


def _kind(failure: Exception) -> tuple[str, bool]:
    """What kind of failure it is, and whether the same may succeed later."""
    match failure:
        case InputError():
            return "input", False
        case PacsError():
            return "pacs", failure.again
        case Later():
            return "order", True
        case OutputError():
            return "disk", True
        case ConnectionFailed() | InferenceFailed() | RepositoryError() | ServerError():
            return "server", True
        case OutOfMemory():
            return "memory", True
    return "fault", True


def explained(job: Job) -> dict[str, Any]:
    """A job for people and programs: no identifiers."""
    return {
        "job": job.id,
        "system": job.system,
        "rule": job.rule,
        "options": json.loads(job.options),
        "state": job.state,
        "attempts": job.attempts,
        "kind": job.kind,
        "code": job.code,
        "reason": job.reason,
        "instances": job.instances,
        "created": job.created,
        "changed": job.changed,
        "next_at": job.next_at,
    }
