"""Whether a reading is refused, and what it takes."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hilum.catalog import HilumError


def refused(read: Callable[[], object], why: str = "") -> bool:
    """Whether a reading ends with Hilum's own error, for that reason; others fail the test."""
    try:
        read()
    except HilumError as error:
        return why in str(error)
    return False


@contextmanager
def at_most(byte_count: float, seconds: float = 2.0) -> Iterator[None]:
    """Fail when the block takes more memory, or more time of the processor."""
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= byte_count
    assert time.process_time() - start < seconds
