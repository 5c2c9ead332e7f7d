"""The small process between a launcher and its ``tritonserver``.

It lives as long as the server and sees to it that nothing outlives them: whatever ends the launcher
(SIGKILL included) closes a pipe, and the supervisor then stops the server, kills stubs that stayed
behind, and removes shared memory and the runtime folder. When the server dies, the same clean-up
follows and the supervisor ends with the server's exit code.

Protocol on standard input: one line of JSON (`Order`), then nothing until the end. A further line
with a number stops the server with that many seconds of grace; the end of the input stops it with
the grace of the order. On standard output one line: the server's process id.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .leftovers import kill, remove

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL = 0.5
"""Seconds between two looks at the parent process."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run and what to remove afterwards.

    Attributes
    ----------
    grace
        Seconds between SIGTERM and SIGKILL.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    tag: str
    runtime_root: str
    grace: float

    def line(self) -> bytes:
        """The order as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def supervise(order: Order, parent: int) -> int:
    """Run the server of `order` until it ends or `parent` does; the server's exit code."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphaned stubs become our children
    wakeup, wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: signals.append(received))
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def own_death_stops_server() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    try:
        server = subprocess.Popen(
            order.argv,
            env=order.environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            stderr=sys.stderr.fileno(),
            start_new_session=True,
            preexec_fn=own_death_stops_server,
        )
    except OSError as failure:
        os.write(sys.stderr.fileno(), f"error: cannot run {order.argv[0]}: {failure}\n".encode())
        return 127
    os.write(sys.stdout.fileno(), f"{server.pid}\n".encode())
    try:
        _watch(server, order.grace, parent, wakeup, signals)
    finally:
        _kill_all(server)
    return server.returncode


def _watch(
    server: subprocess.Popen[bytes],
    grace: float,
    parent: int,
    wakeup: int,
    signals: list[int],
) -> None:
    """Return when the server has ended, or has used up its grace after it was told to."""
    waiting_for = [sys.stdin.fileno(), wakeup]
    deadline: float | None = None
    while server.poll() is None:
        left = _POLL if deadline is None else max(0.0, min(_POLL, deadline - time.monotonic()))
        readable, _, _ = select.select(waiting_for, [], [], left)
        if wakeup in readable:
            os.read(wakeup, 4096)
        ordered: float | None = grace if signals or os.getppid() != parent else None
        if sys.stdin.fileno() in readable:
            line = os.read(sys.stdin.fileno(), 64)
            ordered = float(line) if line.strip() else grace
            waiting_for = [wakeup]
        if ordered is not None and deadline is None:
            deadline = time.monotonic() + ordered
            if ordered > 0:
                server.terminate()
        if deadline is not None and time.monotonic() >= deadline:
            return


def _kill_all(server: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """SIGKILL the server, its process group, and every process that was orphaned to this one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group may be gone
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for pid in _children():
            kill(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.02)


def _children() -> list[int]:
    me = str(os.getpid())
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[1] == me:
                found.append(int(entry.name))
    return found


def _read_order() -> Order | None:
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as unbuffered:
        line = unbuffered.readline()  # and not a byte more: what follows is for select
    return Order(**json.loads(line)) if line.endswith(b"\n") else None


def main() -> int:
    """Read the order, supervise, clean up."""
    parent = os.getppid()
    order = _read_order()
    if order is None:
        return 0
    try:
        code = supervise(order, parent)
    finally:
        remove(order.tag, Path(order.runtime_root))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
