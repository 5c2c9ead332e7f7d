"""The studies of a run: computed, written and shown one by one, until all are done or it ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.catalog.errors import OutputError
from hilum.client.calls import Progress
from hilum.client.client import Client
from hilum.client.client_pool import ClientPool
from hilum.client.protocols import AnySystem, Outcome, Result
from hilum.client.trace import span
from hilum.results.folder import RESULT, RunFolder
from hilum.results.key import content_hash, fits, study_key
from hilum.results.report import (
    FAILED,
    Report,
    entry_of,
    kept_entry,
    reason,
    save_arrays,
    write_json,
)
from hilum.systems.dicom_results import write_dicom

from .console import Steps, err
from .forecast import Forecast
from .interrupts import WAIT_S, Interrupts
from .run_options import Common

AnyClient = Client | ClientPool

_LOOK_S = 0.1
"""How often a run looks whether it is to end."""


_NOTHING = object()


@dataclass(frozen=True, slots=True)
class _Line:
    """What is said of one study once it is done."""

    name: str
    source: Path
    status: str
    problem: str | None = None
    kept: bool = False


@dataclass(slots=True)
class BatchRun:
    """One run over its studies.

    Attributes
    ----------
    rows
        The line of each finished study in the table, by its name.
    """

    client: AnyClient
    system: AnySystem
    studies: list[Path]
    options: Any
    common: Common
    folder: RunFolder
    report: Report
    interrupts: Interrupts
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    _taken: list[tuple[int, dict[str, Any] | None]] = field(default_factory=list)
    _finished: int = 0
    _said: queue.SimpleQueue[_Line | BaseException | None] = field(
        default_factory=queue.SimpleQueue
    )

    def run(self) -> None:
        """Run all studies, or end early when the run is interrupted.

        Raises
        ------
        Interrupted
            Then, after at most `WAIT_S` seconds: studies that still compute are left behind, and
            nothing of them is written any more.
        """
        context = copy_context()
        pump = threading.Thread(target=context.run, args=(self._pump,), daemon=True)
        with self.interrupts.deferred(), Steps(self.system.study_label, len(self.studies)) as steps:
            forecast = Forecast(self.system, self.options, lambda t: err.print(t, markup=False))

            def part(progress: Progress) -> None:
                steps.part(progress.stage, progress.done, progress.total)
                forecast.part(progress.stage, progress.done, progress.total)

            self.client.on_progress = part
            pump.start()
            self._follow(steps)
        if (interrupted := self.interrupts.interrupted) is not None:
            self.interrupts.end_soon(interrupted.code)
            raise interrupted

    def _pump(self) -> None:
        """Run the batch in a thread of its own, so that the main one can always end."""
        try:
            batch = self.client.run_many(
                self.system,
                self._sources(),
                in_flight=self.common.in_flight,
                options=self.options,
                finish=self._finish,
                stop=self.interrupts.stop,
            )
            for line in batch:
                if line is not None:
                    self._said.put(line)
        except BaseException as failure:  # noqa: BLE001 - raised where the run is followed
            self._said.put(failure)
        self._said.put(None)

    def _follow(self, steps: Steps) -> None:
        """Say what is done, until it is all or the time after an interruption is over."""
        deadline: float | None = None
        while True:
            said = self._next()
            if deadline is None and self.interrupts.interrupted is not None:
                deadline = time.monotonic() + WAIT_S
                self._say_stopping()
            if deadline is not None and time.monotonic() > deadline:
                self.folder.close()  # from here on nothing is published
                return
            if said is _NOTHING:
                continue
            if said is None:
                return
            if isinstance(said, BaseException):
                raise said
            assert isinstance(said, _Line)  # noqa: S101 - nothing else is put there
            self._say(said, steps)

    def _next(self) -> _Line | BaseException | object | None:
        """What is to be said; `_NOTHING` when there is nothing for a while, None at the end."""
        try:
            return self._said.get(timeout=_LOOK_S)
        except queue.Empty:
            return _NOTHING

    def _say(self, line: _Line, steps: Steps) -> None:
        steps.advance(f"{line.name} {line.status}", kept=line.kept)
        if line.problem:
            err.print(f"{line.name} ({line.source.name}): {line.problem}", markup=False)

    def _say_stopping(self) -> None:
        running = min(self.common.in_flight, len(self._taken) - self._finished)
        err.print(
            f"stopping: waiting for {running} {'study' if running == 1 else 'studies'}, "
            f"{WAIT_S:g} s at most; Ctrl-C again ends at once",
            markup=False,
        )
        with suppress(OutputError):  # said at the end, if it is so still
            self.report.save()

    def _sources(self) -> Iterator[Path]:
        """Studies that are still to be done; those that an earlier run has done are entered."""
        for index, source in enumerate(self.studies):
            if self.interrupts.interrupted is not None:
                return
            key = self._key(source)
            if self.common.resume and self._keep(index, source, key):
                continue
            self._taken.append((index, key))
            yield source

    def _key(self, source: Path) -> dict[str, Any] | None:
        """What the study's result follows from; None when it cannot be read."""
        try:
            content = content_hash(source, without=self.common.out_dir)
        except OSError:
            return None  # the reader says why
        files = {
            "pictures": self.common.pictures,
            "arrays": self.common.save_arrays,
            "dicom": self._dicom_files(),
        }
        return study_key(content, self.options, self.report.head["weights"], files)

    def _dicom_files(self) -> bool | str:
        """Which DICOM files were asked for; an earlier run that wrote others does not fit."""
        more = (self.common.seg, self.common.parametric_map, self.common.seg_probability)
        return self.common.dicom and (more == ("binary", False, False) or repr(more))

    def _keep(self, index: int, source: Path, key: dict[str, Any] | None) -> bool:
        """Enter the result of an earlier run, if there is one that fits."""
        name = _name(index)
        stored = self.folder.result(name)
        if key is None or stored is None or not fits(key, stored.get("key")):
            return False
        self.report.add(index, kept_entry(stored, source))
        self._said.put(_Line(name, source, f"{stored['status']} (kept)", kept=True))
        return True

    def _finish(self, outcome: Outcome) -> _Line | None:
        """Write what a study leaves behind, where it was computed; None for a cancelled one."""
        index, key = self._taken[outcome.index]
        self._finished += 1
        if isinstance(outcome.error, CancelledError):
            return None
        name, result = _name(index), outcome.result
        entry = entry_of(name, outcome.study, result, outcome.error, outcome.seconds)
        if result is None:
            with suppress(OSError):
                self.folder.remove(name)  # that of another content
            problem = reason(outcome.error)
        else:
            self.rows[name] = result.row()
            with span("write"):
                problem = self._publish(name, outcome.study, result, entry, key)
        # Here, not in the studies' order: an interrupted run keeps what waits for a slower one.
        self.report.add(index, entry)
        status = FAILED if result is None else result.status
        return _Line(name, outcome.study, status, problem)

    def _publish(
        self,
        name: str,
        study: Path,
        result: Result,
        entry: dict[str, Any],
        key: dict[str, Any] | None,
    ) -> str | None:
        """Write the study's folder; says what could not be written."""
        try:
            with self.folder.study(name) as place:
                try:
                    files = self._write(name, study, result, place, key)
                except Exception as failure:  # noqa: BLE001 - the result itself is kept
                    entry["unwritten"] = f"not all files could be written: {reason(failure)}"
                    files = sorted(p.name + "/" * p.is_dir() for p in place.iterdir())
                write_json(place / RESULT, self.report.result_file(name, entry, files, key))
        except OutputError as failure:
            entry.setdefault("unwritten", f"no files could be written: {failure}")
        else:
            entry["files"] = [f"{name}/{file}" for file in files]
        return entry.get("unwritten")

    def _write(
        self, name: str, study: Path, result: Result, place: Path, key: dict[str, Any] | None
    ) -> list[str]:
        note = self.report.head["weights_note"]
        files = self.system.write(result, place, note=note, pictures=self.common.pictures)
        if self.common.save_arrays:
            files.append(save_arrays(place, "arrays", result.arrays()))
        if self.common.dicom:
            files += self._objects(name, study, result, place, key)
        return files

    def _objects(
        self, name: str, study: Path, result: Result, place: Path, key: dict[str, Any] | None
    ) -> list[str]:
        if not self.system.dicom_files(study, result):
            err.print(f"{name}: not read from DICOM, so it has no DICOM results", markup=False)
            return []
        from hilum.results.dicom.writer import Choice  # of an extra

        choice = Choice(
            segmentation="labelmap" if self.common.seg == "labelmap" else "binary",
            parametric_map=self.common.parametric_map,
            probability=self.common.seg_probability,
        )
        return write_dicom(
            self.system, study, result, place,
            pictures=place, head=self.report.head, key=key, choice=choice,
            earlier=self.folder.path / name,
        )  # fmt: skip


def _name(index: int) -> str:
    """The folder of a study: its number; file names often hold a patient's name or number."""
    return f"{index + 1:04d}"
