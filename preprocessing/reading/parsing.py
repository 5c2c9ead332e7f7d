"""Calls of other people's parsers: their exceptions become ours, their warnings go nowhere.

Warnings of pydicom, highdicom and nibabel quote the values they complain about, names of patients
among them. They are switched off while one of these calls runs, and only then: the settings belong
to the program that uses Hilum.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom import config

from hilum.catalog.errors import Damaged, HilumError, OutOfMemory

_LOGGERS = ("pydicom", "nibabel", "nibabel.global", "highdicom")
_SILENCE = (
    "ignore",
    None,
    Warning,
    re.compile(r"(pydicom|highdicom|nibabel|pylibjpeg|openjpeg|PIL|radiomics)\b"),
    0,
)

_lock = threading.Lock()
_running = 0
_before: tuple[Any, dict[str, bool]] = (None, {})


@contextmanager
def parsing(message: str) -> Iterator[None]:
    """Turn whatever a parser raises into an `InputError` with `message`.

    To be put around calls of parsers alone, not around code of ours.

    Raises
    ------
    InputError
        For an exception of the parser.
    OutOfMemory
        When memory ran out, which is not the file's fault.
    """
    with quiet():
        try:
            yield
        except HilumError:
            raise
        except MemoryError:
            raise OutOfMemory(
                "not enough memory to read the file; free some, or read fewer at once"
            ) from None
        except Exception:  # noqa: BLE001  a damaged file can make a parser raise anything
            raise Damaged(message) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Switch the parsers' warnings off; the last of several threads switches them on again."""
    global _running, _before
    with _lock:
        _running += 1
        if _running == 1:
            loggers = {name: logging.getLogger(name).disabled for name in _LOGGERS}
            _before = (config.settings._reading_validation_mode, loggers)
            config.settings.reading_validation_mode = config.IGNORE
            for name in _LOGGERS:
                logging.getLogger(name).disabled = True
        if _SILENCE not in warnings.filters:
            warnings.filters.insert(0, _SILENCE)  # pyright: ignore[reportAttributeAccessIssue]
            warnings._filters_mutated()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if _running == 0:
                mode, loggers = _before
                config.settings._reading_validation_mode = mode
                for name, disabled in loggers.items():
                    logging.getLogger(name).disabled = disabled
                if _SILENCE in warnings.filters:
                    warnings.filters.remove(_SILENCE)  # pyright: ignore[reportAttributeAccessIssue]
                    warnings._filters_mutated()  # pyright: ignore[reportAttributeAccessIssue]
