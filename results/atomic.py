"""Files that are there whole or not at all, also after the machine has crashed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hilum.catalog.errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_UNABLE = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)
"""What `fsync` says of files and folders of systems that have no such thing."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a file its name once everything is in it, and on the disk.

    Half a mask looks like a mask: when the disk fills up or the machine stops, nothing must be
    left behind.

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
        sync(partial)
        os.replace(partial, path)  # noqa: PTH105 - atomic, also over an old file
        sync(path.parent)
    except OSError as failure:
        raise unwritten(path, failure) from failure
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder its name once everything is in it; an earlier one of this name goes away.

    Yields
    ------
    The folder to write to until then.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        make_folder(partial)
        yield partial
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)  # noqa: PTH105 - as a file's
        sync(path.parent)
    except OSError as failure:
        raise unwritten(path, failure) from failure
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk.

    Raises
    ------
    OSError
        When the disk does not take it.
    """
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as failure:
        if failure.errno not in _UNABLE:
            raise
    finally:
        os.close(opened)


def sync_tree(folder: Path) -> None:
    """Bring the files and folders below `folder` to the disk, and their names."""
    for place, _, files in os.walk(folder):
        for name in files:
            sync(Path(place, name))
        sync(Path(place))


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
        raise unwritten(path, failure) from failure


def unwritten(path: Path, failure: OSError) -> OutputError:
    """The message about a file or folder that could not be written."""
    if failure.errno in (errno.EEXIST, errno.ENOTDIR):  # `mkdir` says so of what is no folder
        for place in (path, *path.parents):
            if place.is_file():
                return OutputError(
                    f"{place} is a file, not a folder; give another folder with --out"
                )
    remedy = "free space" if failure.errno in _FULL else "check the folder and its permissions"
    return OutputError(
        f"{path.name} could not be written to {path.parent}: {failure.strerror or failure}; "
        f"{remedy}, or give another folder with --out"
    )
