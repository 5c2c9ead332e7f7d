"""What is asked of a worker, what comes of it, and the kinds of error."""

from __future__ import annotations

from dataclasses import dataclass

from hilum.catalog.errors import (
    ConnectionFailed,
    InferenceFailed,
    InputError,
    OutOfMemory,
    OutputError,
    RepositoryError,
    ServerError,
)

KINDS = {
    "input": "the study itself; it is never tried again",
    "source": "where it lies did not give it",
    "server": "a server answered with an error; tried again, elsewhere where there are others",
    "lost": "no server, or a node that went away; not counted against the study",
    "output": "the result could not be written",
    "crash": "its worker died; set aside after the second time",
    "deadline": "it took too long; set aside after the second time",
    "fault": "an error that Hilum does not know",
}
"""Kinds of error."""

MOST_TRIES = {"input": 1, "source": 4, "server": 4, "output": 3, "fault": 2}
"""How often a study is tried that fails with errors of a kind."""

MOST_CRASHES = 2


class SourceError(InputError):
    """A study could not be fetched, for a reason that says nothing about the study."""

    code = "source"


class OtherWeights(RepositoryError):
    """A server has other weights than the batch."""

    code = "other-weights"


@dataclass(frozen=True, slots=True)
class Task:
    """A study to compute; without a source, the question which weights a server has.

    Attributes
    ----------
    plan
        The plan as JSON.
    out
        Where results go: a folder, or ``s3://bucket/prefix``.
    urls
        Servers; a node's own setting ``HILUM_BATCH_URL`` comes first.
    weights
        Those of the batch as JSON; empty for the question.
    away
        Nodes that it must not run on.
    """

    key: bytes
    source: str
    identity: str
    plan: str
    out: str
    urls: tuple[str, ...]
    weights: str
    tries: int = 0
    away: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The study's name in logs and in the store."""
        return self.key.hex()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a task.

    Attributes
    ----------
    kind, reason
        Of the error; empty when the result is there.
    sha256, bytes
        Of the result.
    worker, node
        Who did it.
    crashes
        How many workers died of it.
    weights
        The answer to the question for weights.
    """

    key: bytes
    kind: str = ""
    reason: str = ""
    sha256: str = ""
    bytes: int = 0
    seconds: float = 0.0
    worker: str = ""
    node: str = ""
    crashes: int = 0
    weights: str = ""


def kind_of(failure: BaseException) -> str:
    """The kind of an error."""
    match failure:
        case SourceError():
            return "source"
        case InputError():
            return "input"
        case OutputError():
            return "output"
        case ConnectionFailed() | OtherWeights():
            return "lost"
        case InferenceFailed() | RepositoryError() | ServerError():
            return "server"
        case OutOfMemory() | MemoryError():
            return "crash"
    return "fault"
