"""Where logs and the runtime folders of servers are kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hilum.catalog.errors import ServerError

_LONGEST_SOCKET = 107 - len("/g:65535")
"""Bytes that the folder of a Unix socket may have (sun_path of unix(7))."""


def state_folder() -> Path:
    """The user's state folder for Hilum, created if need be.

    ``$XDG_STATE_HOME/hilum`` or ``~/.local/state/hilum``; where neither can be written (a container
    with an arbitrary user, or one that has no home), a private folder in the temporary directory.

    Raises
    ------
    ServerError
        When there is no place for it.
    """
    home = os.environ.get("XDG_STATE_HOME")
    try:
        preferred = Path(home) if home else Path.home() / ".local" / "state"
        return _private(preferred.absolute() / "hilum")
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        fallback = Path(tempfile.gettempdir()) / f"hilum-{os.getuid()}"
    try:
        return _private(fallback)
    except OSError as failure:
        raise ServerError(
            f"there is no folder for logs and running servers ({failure}); set XDG_STATE_HOME to "
            "one that can be written"
        ) from failure


def runtime_root() -> Path:
    """The folder that holds one runtime folder for each running server."""
    return _private(state_folder() / "run")


def log_folder() -> Path:
    """The folder for the logs of servers."""
    return _private(state_folder() / "logs")


def for_sockets(folder: Path, supervisor: int) -> Path:
    """A path to the `folder` that a supervisor works in, short enough for that of a socket."""
    if len(os.fsencode(folder)) <= _LONGEST_SOCKET:
        return folder
    return Path(f"/proc/{supervisor}/cwd")


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat().st_uid
    if owner != os.getuid() or not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is not this user's own writable folder")
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)  # made by an older version, or by hand
    return folder
