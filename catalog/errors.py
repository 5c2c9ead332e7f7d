"""The exception tree of Hilum: every message says what is wrong, where, and what to do about it."""

from __future__ import annotations

MAX_LINES, MAX_CHARACTERS = 20, 1000
"""What fits a screen: no message is longer."""


class HilumError(Exception):
    """Base of every error that Hilum raises on purpose; its message is never over a screen long.

    Attributes
    ----------
    code
        What kind of error it is: stays the same when its words change, and is the key of its texts
        in other languages.
    """

    code = "error"

    def __str__(self) -> str:
        return _fit_screen(super().__str__())


def code_of(failure: BaseException) -> str:
    """The code of an error; ``fault`` for one that Hilum did not raise on purpose."""
    return failure.code if isinstance(failure, HilumError) else "fault"


def _fit_screen(text: str) -> str:
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        kept = [*lines[: MAX_LINES - 2], f"… ({len(lines) - MAX_LINES + 1} more lines)", lines[-1]]
        text = "\n".join(kept)
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2 - 2
        text = f"{text[:half]} … {text[-half:]}"
    return text


class CatalogError(HilumError):
    """A declaration contradicts itself: an edge of an ensemble whose ends do not fit."""

    code = "catalog"


class InputError(HilumError):
    """A study that cannot be read or that the system was not made for."""

    code = "input"


class Unreadable(InputError):
    """There is no such file, or it may not be read."""

    code = "unreadable"


class Damaged(InputError):
    """A file is truncated, or what it says cannot be."""

    code = "damaged"


class BadFormat(InputError):
    """A file or an array of a kind that is not read here."""

    code = "format"


class WrongStudy(InputError):
    """An image that the system was not made for."""

    code = "study"


class NoSeries(InputError):
    """The series that was asked for is not there, or several have equal claims."""

    code = "series"


class NoGeometry(InputError):
    """Where the pixels lie in the patient is not known, or contradicts itself."""

    code = "geometry"


class BadOrder(InputError):
    """The published program, which mode ``parity`` follows, cannot order these slices."""

    code = "numbers"


class BadSize(InputError):
    """Larger or smaller than what is read here."""

    code = "size"


class NoLungs(InputError):
    """No lungs were found, or too little of them."""

    code = "lungs"


class BadOption(InputError):
    """A choice that there is not, or that does not go with another one."""

    code = "option"


class MissingLibrary(InputError):
    """A library of an extra is not installed."""

    code = "library"


class OutOfMemory(HilumError):
    """The machine has not the memory that a step needs; the input is not to blame."""

    code = "memory"


class WeightsError(HilumError):
    """A checkpoint or the weights store does not hold what a network needs."""

    code = "weights"


class ExportError(HilumError):
    """A network could not be exported, or its export does not agree with its source."""

    code = "export"


class RepositoryError(HilumError):
    """A model repository is incomplete or contradicts itself."""

    code = "repository"


class ServerError(HilumError):
    """A Triton server could not be found, started or kept running."""

    code = "server"


class ConnectionFailed(HilumError):
    """No answer from a server: it is not there, not Triton, or it went away."""

    code = "connection"


class InferenceFailed(HilumError):
    """The server answered a request with an error."""

    code = "inference"


class DeadlineExceeded(InferenceFailed):
    """The server did not answer a request within its deadline."""

    code = "deadline"


class OutputError(HilumError):
    """A result could not be written: no space left, no permission, a folder that went away."""

    code = "disk"
