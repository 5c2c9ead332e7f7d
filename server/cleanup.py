"""What a server can leave behind when it is killed, and how to remove it.

Everything that belongs to one server carries the server's *tag*: its runtime folder, its regions in
``/dev/shm``, and through them the command lines of its Python stubs. The tag names the supervisor
by process id and start time, so a tag whose owner is gone is safe to remove, even after its
process id was given to another process.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from .machine import SHM

_TAG = re.compile(r"hilum-(?P<namespace>\d+)-(?P<pid>\d+)-(?P<start>\d+)")
_STUB = b"triton_python_backend_stub"
_TEMPORARY, _ENVIRONMENTS = Path("/tmp"), "python_env_??????"  # noqa: S108 - as Triton has it
_CLOCK_S = 0.1
"""How far the time of a file may lag behind the clock."""


def tag_of(pid: int) -> str:
    """The tag of the server whose supervisor is process `pid`.

    Raises
    ------
    ProcessLookupError
        When there is no such process.
    """
    start = _start_time(pid)
    if start is None:
        raise ProcessLookupError(f"no process {pid}")
    return f"hilum-{_namespace()}-{pid}-{start}"


def is_dead(tag: str) -> bool:
    """Whether `tag` is one of ours, of this process namespace, and its owner is gone."""
    match = _TAG.fullmatch(tag)
    if match is None or match["namespace"] != _namespace():
        return False
    return _start_time(int(match["pid"])) != match["start"]


def clean_dead(runtime_root: Path) -> list[str]:
    """Remove what dead servers of this user left behind; the tags that were removed."""
    found = {path.name for path in runtime_root.iterdir()}
    for name in (*_regions(), *(region for _, region in _stubs())):
        match = _TAG.match(name)
        if match:
            found.add(match[0])
    dead = sorted(tag for tag in found if is_dead(tag))
    for tag in dead:
        remove_environments(_since(tag))
        remove(tag, runtime_root)
    return dead


def remove_environments(since: float) -> None:
    """Remove the empty folders that Triton's Python backend made in ``/tmp`` after `since`.

    It makes one for each start of a backend, wherever TMPDIR points, for packed environments (which
    Hilum has none of), and leaves it there. `since` is in seconds of `time.time`.
    """
    for folder in _TEMPORARY.glob(_ENVIRONMENTS):
        try:
            made = folder.stat(follow_symlinks=False)
            if made.st_uid == os.getuid() and made.st_mtime >= since - _CLOCK_S:
                folder.rmdir()
        except OSError:
            continue  # gone, or in use: not empty


def remove(tag: str, runtime_root: Path) -> None:
    """Kill the stubs of the server `tag`, remove its regions and its runtime folder."""
    for pid, region in _stubs():
        if region.startswith(tag):
            kill(pid)
    for name in _regions():
        if name.startswith(tag):
            (SHM / name).unlink(missing_ok=True)
    if _TAG.fullmatch(tag):
        shutil.rmtree(runtime_root / tag, ignore_errors=True)


def make_private(tag: str) -> None:
    """Let only this user read the regions of the server `tag`.

    Triton creates them readable by everybody, whatever the umask, and images pass through them.
    """
    for name in _regions():
        if name.startswith(tag):
            (SHM / name).chmod(0o600)


def kill(pid: int) -> None:
    """SIGKILL the process `pid` if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def kill_session(leader: int) -> None:
    """SIGKILL every process of the session that process `leader` began, wherever it is now."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            kill(int(entry.name))


def _regions() -> list[str]:
    """Names of this user's files in ``/dev/shm``."""
    if not SHM.is_dir():
        return []
    own: list[str] = []
    for file in SHM.iterdir():
        try:
            if file.stat(follow_symlinks=False).st_uid == os.getuid():
                own.append(file.name)
        except OSError:
            continue  # gone meanwhile
    return own


def _stubs() -> Iterator[tuple[int, str]]:
    """Process id and name of the shared-memory region of every Python stub of this user."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != os.getuid():
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) > 2 and words[0].endswith(_STUB):
            yield int(entry.name), os.fsdecode(words[2])


def _namespace() -> str:
    return re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - not a file's path


def _since(tag: str) -> float:
    """When the supervisor that a tag names was started, in seconds of `time.time`."""
    match = _TAG.fullmatch(tag)
    stat = Path("/proc/stat").read_text()
    booted = re.search(r"^btime (\d+)$", stat, re.MULTILINE)
    if match is None or booted is None:
        return math.inf
    return int(booted[1]) + int(match["start"]) / os.sysconf("SC_CLK_TCK") - 1  # btime is rounded


def _start_time(pid: int) -> str | None:
    """Start of process `pid` in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # after the name, which may hold anything
    return None if fields[0] in ("Z", "X") else fields[19]
