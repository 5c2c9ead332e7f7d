"""What a client runs, by its outlines: a system, its studies, its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum import catalog
from hilum.catalog.errors import InputError

from .calls import Calls
from .device import Device

Study = Any
"""What is processed: a file or folder, the bytes of a file, an array, or an object of a library.

Which ones a system takes is said, and checked, where it opens its studies.
"""

Options = TypeVar("Options")
Found = TypeVar("Found", bound="Result")
Found_co = TypeVar("Found_co", bound="Result", covariant=True)


class Result(Protocol):
    """What comes out of a study: data alone."""

    @property
    def status(self) -> str:
        """Status of the study, "ok" if nothing is unusual."""
        ...

    def report(self) -> dict[str, Any]:
        """The result's fields of the report, ready for JSON."""
        ...

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Arrays kept by `--save-arrays`."""
        ...

    def row(self) -> dict[str, str]:
        """One line of the table on the terminal, by column."""
        ...


class System(Protocol[Options, Found]):
    """One system: how a study becomes a result, and a result files.

    `hilum.systems.base.BaseSystem` has what most systems have in common. A client finds systems by
    the entry points ``hilum.systems`` (`hilum.client.registry`).

    Attributes
    ----------
    declared
        Its declaration: name, title, models.
    options_type
        A frozen dataclass whose fields become options of the command line.
    result_type
        The class of its results; `hilum.client` exports it by its name.
    study_label
        What one study is called ("X-ray").
    studies_in_flight
        Studies that one server runs at once, unless chosen otherwise.
    """

    declared: catalog.System
    options_type: type[Options]
    result_type: type[Found]
    study_label: str
    studies_in_flight: int

    @property
    def name(self) -> str:
        """Name on the command line, for instance ``cxr-severity``."""
        ...

    def models(self, options: Options) -> tuple[str, ...]:
        """Triton models that a run asks for.

        Parameters
        ----------
        options
            Of the run.
        """
        ...

    def networks(self, options: Options) -> tuple[str, ...]:
        """Triton models whose weights stand behind a result.

        Parameters
        ----------
        options
            Of the run.
        """
        ...

    def fallback(self, options: Options) -> Options | None:
        """The options that need fewer models, None when these need the fewest.

        Parameters
        ----------
        options
            Of the run.
        """
        ...

    def device(self, options: Options) -> Device:
        """Where arrays are worked on.

        Parameters
        ----------
        options
            Of the run.
        """
        ...

    def share_of(self, stage: str, options: Options) -> float | None:
        """Share of a study's work that a stage has, where it is known before; else None.

        Parameters
        ----------
        stage
            Name of the stage.
        options
            Of the run.
        """
        ...

    def find(self, path: Path) -> list[Path]:
        """The studies that one argument of the command line stands for.

        Parameters
        ----------
        path
            A file or folder that exists.
        """
        ...

    def run(self, study: Any, options: Options, calls: Calls) -> Found:
        """Process one study in this thread; what it needs of the server it asks of `calls`.

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
        concurrent.futures.CancelledError
            When the study is to end.
        """
        ...

    def remember(
        self, result: Found, study: Any, options: Options, about: Callable[[], Any]
    ) -> None:
        """Let a result know the run that it comes from, and ask the server about its weights.

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
        ...

    def dicom_files(self, study: Any, result: Found) -> tuple[Path, ...]:
        """The DICOM files that were processed, one for each slice in the file's own order.

        Parameters
        ----------
        study
            As it was given.
        result
            Of the study.
        """
        ...

    def dicom_content(self, result: Found, files: Sequence[Path]) -> Any:
        """A result in terms of DICOM objects (`hilum.results.dicom.content`), or None.

        Parameters
        ----------
        result
            Of a study.
        files
            The DICOM files that were processed.
        """
        ...

    def draw(self, result: Found, note: str) -> Any:
        """What shows most of a result, for a notebook: an image of Pillow, or None.

        Parameters
        ----------
        result
            Of a study.
        note
            Whose weights made the result, for the picture; may be empty.
        """
        ...

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
        ...


AnySystem = System[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An array whose voxels have a size, or a place in space.

    Attributes
    ----------
    array
        The voxels.
    spacing
        mm between neighbours along each axis of the array, for instance ``(2.5, 0.7, 0.7)``.
    affine
        As in NIfTI: float [4, 4] from indices along the array's axes to RAS coordinates in mm.
    """

    array: Any
    spacing: Sequence[float] | None = None
    affine: Any = None

    def __post_init__(self) -> None:
        if (self.spacing is None) == (self.affine is None):
            raise InputError("an array takes either spacing or affine; give one")
        if not isinstance(self.array, np.ndarray):
            raise InputError("spacing and affine are for NumPy arrays; files say it themselves")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Found_co]):
    """What became of one study of a batch.

    Attributes
    ----------
    index
        Place in the batch, from 0.
    study
        The input as it was given.
    result, error
        Exactly one of them is set.
    seconds
        From the start of reading to the result.
    """

    index: int
    study: Any
    result: Found_co | None
    error: Exception | None
    seconds: float

    @property
    def name(self) -> str:
        """Name of the folder of this study: its number, never its file's name.

        File names of studies often hold a patient's name or number.
        """
        return f"{self.index + 1:04d}"
