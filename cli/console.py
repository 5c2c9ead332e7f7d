"""What every command shares: the terminal, progress, exit codes, errors as one readable line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import TracebackType

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hilum.catalog import SYSTEMS, System
from hilum.catalog.errors import ConnectionFailed, HilumError, InputError, ServerError

from .streams import SafeConsole

_PLAIN_WIDTH = 160
"""Columns of tables that do not go to a terminal."""

out = SafeConsole(
    highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PLAIN_WIDTH
)
"""Results go here (standard output)."""

err = SafeConsole(stderr=True, highlight=False, soft_wrap=True)
"""Progress, remarks and errors go here (standard error)."""


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    """Everything was done."""
    STUDY_FAILED = 1
    """A study failed; `hilum doctor`: this machine does not fit."""
    WRONG_USE = 2
    """Wrong use: an option, an input, weights or a repository that do not fit."""
    NO_SERVER = 3
    """No server: none answers, or none could be started."""


def exit_code(error: HilumError) -> Exit:
    """The exit code that an error ends a command with."""
    no_server = isinstance(error, (ServerError, ConnectionFailed))
    return Exit.NO_SERVER if no_server else Exit.WRONG_USE


@contextmanager
def errors_to_exit_codes() -> Iterator[None]:
    """Turn errors of Hilum's own into one message on standard error and an exit code."""
    try:
        yield
    except HilumError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(exit_code(error)) from None
    except OSError as failure:
        err.print(f"[bold red]error:[/] {escape(_described(failure))}")
        raise typer.Exit(Exit.WRONG_USE) from None
    except KeyboardInterrupt:
        err.print("interrupted")
        raise typer.Exit(130) from None


def _described(failure: OSError) -> str:
    """An error of the operating system as one line."""
    where = " ".join(str(name) for name in (failure.filename, failure.filename2) if name)
    what = failure.strerror or str(failure) or type(failure).__name__
    return f"{where}: {what}" if where else what


_LONG = 20
"""Steps within one part from which on plain lines report every tenth of them."""


class Steps:
    """Progress of long work: bars on a terminal, plain lines otherwise.

    Use as a context manager; call :meth:`advance` once for each finished part, and :meth:`part`
    for steps within one, from any thread.
    """

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done, self._kept = title, total, 0, 0
        self._began = time.monotonic()
        self._bar: Progress | None = None
        self._inner: TaskID | None = None
        self._tenths: dict[str, int] = {}
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=err,
            )

    def __enter__(self) -> Steps:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def part(self, stage: str, done: int, total: int) -> None:
        """Tell how far the work on one part has come: `done` of `total` steps of `stage`."""
        if self._bar:
            if self._inner is None:
                self._inner = self._bar.add_task(stage, total=total)
            self._bar.update(self._inner, description=f"  {stage}", completed=done, total=total)
        elif total >= _LONG and self._crossed(stage, done, total):
            err.print(f"  {stage} {done}/{total}", markup=False)

    def _crossed(self, stage: str, done: int, total: int) -> bool:
        """Whether another tenth of a stage is done; steps may come several at once."""
        before = self._tenths.pop(stage, 0)
        tenth = done * 10 // total
        if done < total:
            self._tenths[stage] = max(tenth, before)
        return before < tenth < 10

    def advance(self, text: str, *, kept: bool = False) -> None:
        """One part is done; `text` says which, for the plain line.

        Parameters
        ----------
        kept
            It was there already, so that it says nothing of the time that the others take.
        """
        self._done += 1
        self._kept += kept
        if self._bar:
            self._bar.advance(self._task)
        else:
            now = time.strftime("%H:%M:%S")
            line = f"{now} {self._title} {self._done}/{self._total}: {text}{self._left()}"
            err.print(line, markup=False)

    def _left(self) -> str:
        """How long the rest takes, if it goes on like this; empty where that is not known."""
        worked, left = self._done - self._kept, self._total - self._done
        if not worked or not left:
            return ""
        return f", {duration((time.monotonic() - self._began) / worked * left)} left"


def duration(seconds: float) -> str:
    """A length of time, to be read: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def chosen_system(name: str) -> System:
    """The system called `name`.

    Raises
    ------
    InputError
        With the names there are.
    """
    if name not in SYSTEMS:
        raise InputError(f"there is no system {name!r}; there are {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def default_repository() -> Path:
    """The checkout's `model_repository/` in the current folder, or above it; else one here."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "model_repository").is_dir() and (folder / "catalog").is_dir():
            return folder / "model_repository"
    return here / "model_repository"
