"""The exception tree of Hilum: every message says what is wrong, where, and what to do about it."""

from __future__ import annotations


class HilumError(Exception):
    """Base of every error that Hilum raises on purpose."""


class CatalogError(HilumError):
    """A declaration contradicts itself: an edge of an ensemble whose ends do not fit."""


class InputError(HilumError):
    """A study that cannot be read or that the system was not made for."""


class WeightsError(HilumError):
    """A checkpoint or the weights store does not hold what a network needs."""


class ExportError(HilumError):
    """A network could not be exported, or its export does not agree with its source."""


class RepositoryError(HilumError):
    """A model repository is incomplete or contradicts itself."""


class ServerError(HilumError):
    """A Triton server could not be found, started or kept running."""


class ConnectionFailed(HilumError):
    """No answer from a server: it is not there, not Triton, or it went away."""


class InferenceFailed(HilumError):
    """The server answered a request with an error."""


class DeadlineExceeded(InferenceFailed):
    """The server did not answer a request within its deadline."""


class OutputError(HilumError):
    """A result could not be written: no space left, no permission, a folder that went away."""
