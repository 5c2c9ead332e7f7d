"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..catalog.errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a file its name once everything is in it.

    Half a mask looks like a mask: when the disk fills up, nothing must be left behind.

    Yields
    ------
    The path to write to until then.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)  # noqa: PTH105 - atomic, also over an old file
    except OSError as failure:
        raise _unwritten(path, failure) from failure
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder, with those above it.

    Raises
    ------
    OutputError
        When it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise _unwritten(path, failure) from failure


def _unwritten(path: Path, failure: OSError) -> OutputError:
    remedy = "free space" if failure.errno in _FULL else "check the folder and its permissions"
    return OutputError(
        f"{path.name} could not be written to {path.parent}: {failure.strerror or failure}; "
        f"{remedy}, or give another folder with --out"
    )
