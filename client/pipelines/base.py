"""What a pipeline is: one system's way from a study to its result, without any waiting of its own.

A pipeline's `study` is a generator that yields actions (an RPC, a computation, a pause) and gets
their results; the synchronous and the asyncio client drive the same generator.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...catalog import System
from ..device import Device
from ..steps import Steps

Source = Path | str | bytes | NDArray[np.generic]
"""A study: a file or folder, the bytes of a file, or an array."""


def option(default: Any, text: str) -> Any:
    """A field of a pipeline's options, with the help text of its command-line option."""
    return dataclasses.field(default=default, metadata={"help": text})


def filled_from(name: str, default: Any) -> Any:
    """A field of a pipeline's options that the command line fills from its own option `name`."""
    return dataclasses.field(default=default, metadata={"from": name})


@runtime_checkable
class OnDevice(Protocol):
    """The options of a pipeline that works on arrays on the processors or on a GPU, as chosen."""

    @property
    def device(self) -> Device:
        """Where."""
        ...


class Result(Protocol):
    """What every system's result can do."""

    @property
    def status(self) -> str:
        """Status of the study, "ok" if nothing is unusual."""
        ...

    def report(self) -> dict[str, Any]:
        """The result's fields of the report, ready for JSON."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays kept by `--save-arrays`."""
        ...

    def row(self) -> dict[str, str]:
        """One line of the table on the terminal, by column."""
        ...

    def write_pictures(self, folder: Path, name: str, note: str) -> list[str]:
        """Write the pictures into `folder`; returns the files' names."""
        ...


@runtime_checkable
class WritesFiles(Protocol):
    """A result that is a file itself, such as a label map, written with or without pictures."""

    def write_files(self, folder: Path, name: str) -> list[str]:
        """Write the files into `folder`; returns their names."""
        ...


class Pipeline(Protocol):
    """One system's pipeline.

    Attributes
    ----------
    options_type
        A frozen dataclass whose fields become options of the command line.
    noun
        What one study is called ("X-ray").
    """

    system: ClassVar[System]
    options_type: ClassVar[type]
    noun: ClassVar[str]

    def models(self, options: Any) -> tuple[str, ...]:
        """Triton models that a run asks for."""
        ...

    def networks(self, options: Any) -> tuple[str, ...]:
        """Triton models whose weights stand behind a result."""
        ...

    def find(self, path: Path) -> list[Path]:
        """The studies that one argument of the command line stands for."""
        ...

    def study(self, source: Source, options: Any) -> Steps[Result]:
        """Process one study; yields actions for the client's drivers."""
        ...


@runtime_checkable
class Frugal(Protocol):
    """A pipeline that can do with fewer models than it would rather use."""

    def fallback(self, options: Any) -> Any | None:
        """The options that need fewer models, None when these need the fewest."""
        ...


@runtime_checkable
class Heavy(Protocol):
    """A pipeline of which a machine bears fewer studies at once than of others."""

    @property
    def studies_in_flight(self) -> int:
        """Studies in work at once, unless chosen otherwise."""
        ...
