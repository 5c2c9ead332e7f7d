"""The folder of a run: one folder for each study, published by one rename, and what was there."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.catalog.errors import InputError, OutputError

from .atomic import make_folder, sync, sync_tree, unwritten

REPORT, RESULT, SUMMARY = "report.json", "result.json", "summary.csv"

_NUMBER = re.compile(r"\d{4,}")
_OWN_FILE = re.compile(r"\d{4,}(-[\w-]+)?(\.[a-z]+)*")
"""First part of what a report may list: a study's folder, or a file beside the report."""

_CLOSE_S = 0.5
"""How long closing waits for a study that is being published."""

_PARTIAL = re.compile(r"\.\d{4,}\.partial-[0-9a-f]+")


@dataclass(slots=True)
class RunFolder:
    """The folder that a run writes to. No other run may, as long as this one has it.

    Attributes
    ----------
    earlier
        The report that was there, None without one.
    """

    path: Path
    earlier: dict[str, Any] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _closed: bool = False
    _claim: int = -1

    @classmethod
    def claim(
        cls, path: Path, *, system: str, count: int, resume: bool, overwrite: bool
    ) -> RunFolder:
        """Take a folder for `count` studies of a system; it is made if need be.

        Raises
        ------
        InputError
            When it holds results, and neither `resume` nor `overwrite` is chosen, or when they
            cannot be continued.
        OutputError
            When nothing can be written to it, or another run writes to it.
        """
        if resume and overwrite:
            raise InputError("--resume keeps results and --overwrite removes them; give one")
        make_folder(path)
        _check_writable(path)
        folder = cls(path)
        folder._hold()
        try:
            folder._look(system, count, resume=resume, overwrite=overwrite)
        except BaseException:
            folder.close()
            raise
        return folder

    def result(self, name: str) -> dict[str, Any] | None:
        """The `result.json` of a study whose files are all there; None without one."""
        found = _read(self.path / name / RESULT)
        if found is None or "unwritten" in found or found.get("name") != name:
            return None
        files = found.get("files")
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            return None
        return found if all((self.path / name / file).exists() for file in files) else None

    @contextmanager
    def study(self, name: str) -> Iterator[Path]:
        """A folder to write a study's files to; afterwards it has its name, with all of them.

        An earlier result of the same number goes. Nothing new is left when the block fails.

        Raises
        ------
        OutputError
            When it cannot be made or published.
        """
        partial = self.path / f".{name}.partial-{secrets.token_hex(4)}"
        try:
            with self._lock:
                self._check_open()
                partial.mkdir()
            yield partial
            sync_tree(partial)
            with self._lock:
                self._check_open()
                self.remove(name)
                partial.rename(self.path / name)
            sync(self.path)
        except OSError as failure:
            raise unwritten(self.path / name, failure) from failure
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Remove what the result of a study lists, and its folder, if nothing else is in it."""
        listed = _read(self.path / name / RESULT) or {}
        self._remove_listed([f"{name}/{file}" for file in _texts(listed.get("files"))])
        if listed:
            (self.path / name / RESULT).unlink(missing_ok=True)
        with suppress(OSError):
            (self.path / name).rmdir()

    def close(self) -> None:
        """Let others have the folder; studies that are not published yet never will be."""
        taken = self._lock.acquire(timeout=_CLOSE_S)  # whoever has it may hang with the disk
        try:
            if self._closed:
                return
            self._closed = True
            self._remove_partial()
            os.close(self._claim)
        finally:
            if taken:
                self._lock.release()

    def _hold(self) -> None:
        self._claim = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._claim)
            raise OutputError(
                f"another run writes to {self.path}; wait for it, or give another folder with --out"
            ) from None
        except OSError:
            return  # a file system without locks

    def _look(self, system: str, count: int, *, resume: bool, overwrite: bool) -> None:
        """Deal with what is there: refuse it, keep it, or remove it."""
        if (self.path / REPORT).exists():
            self.earlier = _read(self.path / REPORT)
            if self.earlier is None:
                raise InputError(
                    f"{self.path} has a {REPORT} that Hilum did not write; give another folder "
                    "with --out"
                )
        there = self._published()
        if (self.earlier is not None or there) and not (resume or overwrite):
            raise InputError(
                f"{self.path} holds the results of an earlier run; --resume goes on with it, "
                "--overwrite removes what its report lists; or give another folder with --out"
            )
        if resume and self.earlier is not None and self.earlier.get("system") != system:
            raise InputError(
                f"{self.path} holds results of {self.earlier.get('system')}, not of {system}; give "
                "another folder with --out"
            )
        listed = self._listed()
        self._refuse_strangers(count, listed)
        if resume and len(there) and int(max(there, key=int)) > count:
            raise InputError(
                f"{self.path} holds the result of study {max(there, key=int)}, and these are only "
                f"{count}; resume with all inputs of the run, or give another folder with --out"
            )
        self._remove_partial()
        if overwrite:
            self._remove_listed(listed)
            for name in there:
                self.remove(name)
            for name in (SUMMARY, REPORT):  # the report last: it lists the others
                if self.earlier is not None:
                    (self.path / name).unlink(missing_ok=True)

    def _published(self) -> list[str]:
        """Names of the studies whose result is there."""
        names = (entry.name for entry in self.path.iterdir() if _NUMBER.fullmatch(entry.name))
        return sorted(name for name in names if _read(self.path / name / RESULT) is not None)

    def _listed(self) -> list[str]:
        entries = (self.earlier or {}).get("results")
        entries = entries if isinstance(entries, list) else []
        return [f for e in entries if isinstance(e, dict) for f in _texts(e.get("files"))]

    def _refuse_strangers(self, count: int, listed: Sequence[str]) -> None:
        """Refuse a folder where a study's own has something else in it."""
        known = {self.path / name.rstrip("/") for name in listed}
        for entry in sorted(self.path.iterdir()):
            if not _NUMBER.fullmatch(entry.name) or not 0 < int(entry.name) <= count:
                continue
            own = _read(entry / RESULT)
            mine = {entry / f.rstrip("/") for f in _texts((own or {}).get("files"))}
            mine |= {entry / RESULT} if own is not None else set()
            for file in _unlisted(entry, known | mine):
                raise InputError(
                    f"{file.relative_to(self.path)} in {self.path} is in the place of a "
                    "study's results, and no report lists it; move it, or give another folder "
                    "with --out"
                )

    def _remove_listed(self, files: Sequence[str]) -> None:
        """Remove files, and their folders once they are empty; nothing beside results."""
        for file in files:
            path = self.path / file
            parts = Path(file).parts
            if not parts or ".." in parts or not _OWN_FILE.fullmatch(parts[0]):
                continue
            if any(parent.is_symlink() for parent in path.parents if parent != self.path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(FileNotFoundError):
                    path.unlink()
            with suppress(OSError):
                for parent in path.parents[: len(parts) - 1]:
                    parent.rmdir()

    def _remove_partial(self) -> None:
        """Remove what a run that was killed had not published."""
        for entry in self.path.iterdir():
            if _PARTIAL.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True)
        for name in (REPORT, SUMMARY):
            (self.path / f"{name}.partial").unlink(missing_ok=True)

    def _check_open(self) -> None:
        if self._closed:
            raise OutputError(f"the run has ended; nothing more is written to {self.path}")


def _unlisted(entry: Path, listed: set[Path]) -> Iterator[Path]:
    """What lies in a study's place and is neither listed nor in a folder that is."""
    if entry in listed:
        return
    if not entry.is_dir() or entry.is_symlink():
        yield entry
        return
    for inside in sorted(entry.iterdir()):
        yield from _unlisted(inside, listed)


def refuse_inputs(path: Path, inputs: Sequence[Path], studies: Sequence[Path]) -> None:
    """Refuse a folder for results that is an input, or in which results would hit one.

    Raises
    ------
    InputError
        Then.
    """
    where = _real(path)
    names = {f"{number:04d}" for number in range(1, len(studies) + 1)} | {REPORT, SUMMARY}
    for given in (*inputs, *studies):
        place = _real(given)
        inner = place.relative_to(where).parts if place.is_relative_to(where) else None
        if inner == () or (inner and inner[0] in names):
            raise InputError(
                f"--out {path} holds the input {given}, which results would mix with or overwrite; "
                "give another folder"
            )
        if where.is_relative_to(place) and not place.is_dir():
            raise InputError(f"--out {path} lies in {given}, which is a file")


def _real(path: Path) -> Path:
    """Where links lead; a circle of links, which `Path.resolve` fails on, leads to itself."""
    return Path(os.path.realpath(path))


def _check_writable(path: Path) -> None:
    probe = path / f".hilum-{secrets.token_hex(4)}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as failure:
        raise unwritten(path, failure) from failure


def _read(path: Path) -> dict[str, Any] | None:
    """One of Hilum's own JSON files; None for any other, or without one."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "hilum_version" in found else None


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


__all__ = ["REPORT", "RESULT", "SUMMARY", "RunFolder", "refuse_inputs"]
