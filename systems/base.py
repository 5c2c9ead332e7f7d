"""What most systems have in common."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

from hilum import catalog
from hilum.client.calls import Calls
from hilum.client.device import CPU, Device
from hilum.client.protocols import Result
from hilum.results.dicom.content import Content

from .dicom_results import DicomResult, Origin

Options = TypeVar("Options")
Found = TypeVar("Found", bound=Result)


def option(default: Any, text: str, *, changes_result: bool = True) -> Any:
    """A field of a system's options, with the help text of its command-line option.

    Parameters
    ----------
    default
        Its default.
    text
        What `--help` says.
    changes_result
        Whether a result depends on it; a run that is resumed keeps results where it does not.
    """
    return dataclasses.field(
        default=default, metadata={"help": text, "changes_result": changes_result}
    )


def filled_from(name: str, default: Any) -> Any:
    """A field of a system's options that the command line fills from an option of its own.

    Parameters
    ----------
    name
        Of that option, for instance ``device``.
    default
        In Python.
    """
    return dataclasses.field(default=default, metadata={"from": name})


class Place(TypedDict, total=False):
    """What an array of a CT may come with, as keywords of `Client.run`: see `Placed`.

    Attributes
    ----------
    spacing
        mm between neighbours along each axis of the array.
    affine
        As in NIfTI: float [4, 4] from indices to RAS coordinates in mm.
    """

    spacing: Sequence[float]
    affine: Any


class BaseSystem(ABC, Generic[Options, Found]):
    """A system, see `hilum.client.protocols.System`; what is not abstract here suits most."""

    declared: catalog.System
    options_type: type[Options]
    result_type: type[Found]
    study_label: str = "study"
    studies_in_flight: int = 4
    whole_folders: bool = True
    """Whether a folder may be one study, as for a CT; else each file is one."""

    @property
    def name(self) -> str:
        """Name on the command line."""
        return self.declared.name

    @abstractmethod
    def models(self, options: Options) -> tuple[str, ...]:
        """Triton models that a run asks for.

        Parameters
        ----------
        options
            Of the run.
        """

    def networks(self, options: Options) -> tuple[str, ...]:
        """Triton models whose weights stand behind a result: those that are asked.

        Parameters
        ----------
        options
            Of the run.
        """
        return self.models(options)

    def fallback(self, options: Options) -> Options | None:  # noqa: ARG002
        """The options that need fewer models: none.

        Parameters
        ----------
        options
            Of the run.
        """
        return None

    def device(self, options: Options) -> Device:  # noqa: ARG002
        """Where arrays are worked on: on the CPU.

        Parameters
        ----------
        options
            Of the run.
        """
        return CPU

    def dicom_files(self, study: Any, result: Found) -> tuple[Path, ...]:  # noqa: ARG002
        """The DICOM files that were processed, one for each slice in the file's own order.

        Parameters
        ----------
        study
            As it was given.
        result
            Of the study.
        """
        series = getattr(result, "series", None)
        return () if series is None else series.files

    def dicom_content(self, result: Found, files: Sequence[Path]) -> Content | None:  # noqa: ARG002
        """A result in terms of DICOM objects on the grid of `files`; None where there are none.

        Parameters
        ----------
        result
            Of a study.
        files
            The DICOM files that were processed.
        """
        return None

    def remember(
        self, result: Found, study: Any, options: Options, about: Callable[[], Any]
    ) -> None:
        """Let a result know the run that it comes from, for its DICOM objects.

        Parameters
        ----------
        result
            Of the study.
        study
            As it was given.
        options
            Of the run.
        about
            Asks the server about its weights.
        """
        if isinstance(result, DicomResult):
            source = study if isinstance(study, (str, Path)) else None
            result.comes_from(Origin(self, source, options, about))

    def share_of(self, stage: str, options: Options) -> float | None:  # noqa: ARG002
        """Share of a study's work that a stage has, where it is known before: none.

        Parameters
        ----------
        stage
            Name of the stage.
        options
            Of the run.
        """
        return None

    def find(self, path: Path) -> list[Path]:
        """The studies that one argument of the command line stands for: itself.

        Parameters
        ----------
        path
            A file or folder that exists.
        """
        return [path]

    @abstractmethod
    def run(self, study: Any, options: Options, calls: Calls) -> Found:
        """Process one study in this thread.

        Parameters
        ----------
        study
            As it was given: a path, bytes, an array.
        options
            Of the run.
        calls
            Asks the server.

        Raises
        ------
        InputError
            When the study cannot be read or is not what the system was made for.
        """

    def draw(self, result: Found, note: str) -> Any:  # noqa: ARG002
        """What shows most of a result, for a notebook: an image of Pillow, or None.

        Parameters
        ----------
        result
            Of a study.
        note
            Whose weights made the result, for the picture; may be empty.
        """
        return None

    @abstractmethod
    def write(self, result: Found, folder: Path, *, note: str, pictures: bool = True) -> list[str]:
        """Write a result's files, and its pictures if wanted, into the study's own folder.

        Parameters
        ----------
        result
            Of a study.
        folder
            The study's own folder, which exists.
        note
            Whose weights made the result, for pictures; may be empty.
        pictures
            Whether pictures are wanted.

        Returns
        -------
        list of str
            Names of what was written, relative to `folder`; folders end with a slash.

        Raises
        ------
        OutputError
            When something cannot be written.
        """
