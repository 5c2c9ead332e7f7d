"""The small process between a launcher and its ``tritonserver``.

It lives as long as the server and sees to it that nothing outlives them: whatever ends the launcher
(SIGKILL included) closes a pipe, and the supervisor then stops the server, kills stubs that stayed
behind, and removes shared memory and the runtime folder. When the server dies, the same clean-up
follows and the supervisor ends with the server's exit code.

It opens the server's doors when the server is ready. Triton does not notice that the process of a
Python model is gone: it goes on calling itself ready and fails that model for ever. The supervisor
does notice, closes the doors, lets Triton finish what the other models have under way, and ends
with `DEAD_PART`: a server is ready with all of its parts or not at all.

Protocol on standard input: one line of JSON (`Order`), then nothing until the end. A further line
with a number stops the server with that many seconds of grace; the end of the input stops it with
the grace of the order. On standard output: a line with the server's process id, and one that says
why the server was stopped, if that was not ordered.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from .cleanup import kill, remove, remove_environments
from .confine import confinement
from .door import Door
from .stubs import Stubs

DEAD_PART = 75
"""Exit code after the process of a model died: a temporary failure, by sysexits.h."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL = 0.5
"""Seconds between two looks at the parent process."""

_LOADING_POLL = 0.05
"""Seconds between two looks whether the server is ready."""

_DRAIN = 3.0
"""Seconds that the living models get for what they have under way when another one died. Triton
takes two of them to find out, and to answer the dead one's requests with an error that says so."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run and what to remove afterwards.

    Attributes
    ----------
    grace
        Seconds between SIGTERM and SIGKILL.
    answers_at
        Host and port that a server without doors binds when it is ready.
    doors
        Host, port and path of the server's Unix socket for each `Door`.
    group
        Whose members the doors let in as well.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    tag: str
    runtime_root: str
    grace: float
    answers_at: tuple[str, int]
    doors: tuple[tuple[str, int, str], ...] = ()
    group: int | None = None

    def line(self) -> bytes:
        """The order as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def reason(code: int, said: str) -> str:
    """What the exit code of a supervisor, and its last line, say of "the server …"."""
    if code == DEAD_PART:
        return f"was stopped: {said.partition(';')[0]}"
    if code < 0:
        return "lost its supervisor"
    if code > 128:
        return f"was ended by signal {code - 128} ({(signal.strsignal(code - 128) or '').lower()})"
    return f"ended with exit code {code}"


class _Doors:
    """All doors of a server: bound when the block begins, closed when it ends."""

    def __init__(self, order: Order) -> None:
        self._doors: list[Door] = []
        for host, port, target in order.doors:
            try:
                self._doors.append(Door(host, port, target, order.group))
            except OSError as failure:
                self.close()
                raise _PortTaken(f"Socket '{host}:{port}' already in use ({failure})") from failure

    def open(self) -> None:
        for door in self._doors:
            door.open()

    def close(self) -> None:
        while self._doors:
            self._doors.pop().close()

    def __enter__(self) -> _Doors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _PortTaken(Exception):
    """Another process has a door's port."""


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
    confine = confinement()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # our own death stops the server
        confine()

    try:
        doors = _Doors(order)
    except _PortTaken as taken:
        _log(f"error: {taken}")
        return 1
    here = Path.cwd()
    os.chdir(Path(order.runtime_root, order.tag))  # for paths of sockets that would be too long
    with doors:
        try:
            server = subprocess.Popen(
                order.argv,
                cwd=here,
                env=order.environment,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                stderr=sys.stderr.fileno(),
                start_new_session=True,
                preexec_fn=prepare,
            )
        except OSError as failure:
            _log(f"error: cannot run {order.argv[0]}: {failure}")
            return 127
        os.write(sys.stdout.fileno(), f"{server.pid}\n".encode())
        watch = _Watch(server, order, parent, doors)
        try:
            watch.until_end(wakeup, signals)
        finally:
            doors.close()
            _kill_all(server)
    return DEAD_PART if watch.dead_part else server.returncode


class _Watch:
    """One server under watch.

    Attributes
    ----------
    dead_part
        A process of a model died, and the server was stopped for that.
    """

    def __init__(
        self, server: subprocess.Popen[bytes], order: Order, parent: int, doors: _Doors
    ) -> None:
        self.dead_part = False
        self._server, self._order, self._parent, self._doors = server, order, parent, doors
        self._stubs: Stubs | None = None
        self._deadline: float | None = None
        self._since = time.time()
        targets = [target for _, _, target in order.doors]
        self._addresses: Sequence[str | tuple[str, int]] = targets or [order.answers_at]

    def until_end(self, wakeup: int, signals: list[int]) -> None:
        """Return when the server has ended, or has used up its grace after its stop was ordered."""
        waiting_for = [sys.stdin.fileno(), wakeup]
        while self._server.poll() is None:
            files = [] if self._stubs is None else self._stubs.files
            readable, _, _ = select.select([*waiting_for, *files], [], [], self._pause())
            if wakeup in readable:
                os.read(wakeup, 4096)
            if signals or os.getppid() != self._parent:
                self._stop(self._order.grace)
            if sys.stdin.fileno() in readable:
                line = os.read(sys.stdin.fileno(), 64)
                self._stop(float(line) if line.strip() else self._order.grace)
                waiting_for = [wakeup]
            if self._deadline is None:
                self._look()
            elif time.monotonic() >= self._deadline:
                return

    def _pause(self) -> float:
        if self._deadline is not None:
            return max(0.0, min(_POLL, self._deadline - time.monotonic()))
        return _LOADING_POLL if self._stubs is None else _POLL

    def _look(self) -> None:
        """Open the doors of a server that has become ready; stop one that has lost a part."""
        if self._stubs is None:
            if all(_answers(address) for address in self._addresses):
                remove_environments(self._since)
                self._stubs = Stubs(self._server.pid)
                self._doors.open()
        elif dead := self._stubs.dead():
            self.dead_part = True
            _report(f"{dead}; Triton does not start it again, so the server is stopped")
            self._stop(_DRAIN if self._order.grace > 0 else 0)

    def _stop(self, grace: float) -> None:
        if self._deadline is not None:
            return
        self._deadline = time.monotonic() + grace
        if self._stubs is not None:
            self._stubs.close()
            self._stubs = None
        self._doors.close()
        if grace > 0:
            self._server.terminate()


def _answers(address: str | tuple[str, int]) -> bool:
    """Whether something accepts connections there."""
    try:
        if isinstance(address, str):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(address)
        else:
            socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _log(line: str) -> None:
    os.write(sys.stderr.fileno(), f"{line}\n".encode())


def _report(line: str) -> None:
    """Say why the server ends: in its log, and to the launcher, if that is still there."""
    _log(f"error: {line}")
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), f"{line}\n".encode())


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
    """The order; None when the launcher gave up, or stops the server before it has begun."""
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as unbuffered:
        line = unbuffered.readline()  # and not a byte more: what follows is for select
    if not (line.startswith(b"{") and line.endswith(b"\n")):
        return None
    fields = json.loads(line)
    fields["answers_at"] = tuple(fields["answers_at"])
    return Order(**fields)


def main() -> int:
    """Read the order, supervise, clean up."""
    parent = os.getppid()
    order = _read_order()
    if order is None:
        return 0
    began = time.time()
    try:
        code = supervise(order, parent)
    finally:
        remove_environments(began)  # of a server that ended before it was ready
        remove(order.tag, Path(order.runtime_root))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
