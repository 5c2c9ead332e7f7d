"""One process works on a ledger."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hilum.catalog.errors import OutputError


@contextmanager
def alone(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold the lock of a folder, which is made.

    Parameters
    ----------
    otherwise
        What is said when another process holds it; ``{}`` becomes the folder.

    Raises
    ------
    OutputError
        Then.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OutputError(otherwise.format(folder)) from None
    finally:
        os.close(held)
