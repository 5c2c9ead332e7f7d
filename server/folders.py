"""Where logs and the runtime folders of servers are kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def state_folder() -> Path:
    """The user's state folder for Hilum, created if need be.

    ``$XDG_STATE_HOME/hilum`` or ``~/.local/state/hilum``; where neither can be written (a container
    with an arbitrary user), a private folder in the temporary directory.
    """
    home = os.environ.get("XDG_STATE_HOME")
    preferred = Path(home) if home else Path.home() / ".local" / "state"
    try:
        return _private(preferred / "hilum")
    except OSError:
        return _private(Path(tempfile.gettempdir()) / f"hilum-{os.getuid()}")


def runtime_root() -> Path:
    """The folder that holds one runtime folder for each running server."""
    return _private(state_folder() / "run")


def log_folder() -> Path:
    """The folder for the logs of servers."""
    return _private(state_folder() / "logs")


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat().st_uid
    if owner != os.getuid() or not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is not this user's own writable folder")
    return folder
