"""The door of a server on this machine: a port that lets in only whom the server's user admits.

Triton asks nobody who they are, and whoever reaches it may have it open shared memory of others. On
the loopback, therefore, Triton listens on a Unix socket in a folder that only its user can enter,
and the port belongs to a `Door`. It asks the kernel which user owns the connecting socket, passes
the bytes of its own user and of root on to Triton, of members of a group where one is admitted, and
closes the connections of all others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_ESTABLISHED = "01"
_PIPE = 1 << 20
"""Bytes that are on their way at once, in each direction of a connection."""
_LOOKS = 5
"""Looks at the kernel's table, which may miss a line while others change it."""


class Door:
    """The ports of one service: bound at once, open when the server behind it is ready.

    Parameters
    ----------
    host, port
        Where clients connect; all loopback addresses of the host's name.
    target
        Path of the server's Unix socket.
    group
        Group id whose members are let in besides the server's user and root.

    Raises
    ------
    OSError
        When the port is in use.
    """

    def __init__(self, host: str, port: int, target: str, group: int | None = None) -> None:
        self._target, self._group = target, group
        self._allowed = frozenset((0, os.getuid()))
        self._refused: set[int] = set()
        self._listeners: list[socket.socket] = []
        try:
            for family, address in _addresses(host, port):
                listener = socket.socket(family, socket.SOCK_STREAM)
                self._listeners.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address, port))
        except OSError:
            self.close()
            raise

    def open(self) -> None:
        """Let clients in from now on."""
        for listener in self._listeners:
            listener.listen(1024)
            threading.Thread(target=self._receive, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse new connections; those that are there last as long as the server's end."""
        for listener in self._listeners:
            with contextlib.suppress(OSError):  # it may not listen yet
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()

    def _receive(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                if listener.fileno() < 0:
                    return
                time.sleep(0.05)  # no more files: others end meanwhile
                continue
            try:
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()
            except RuntimeError:  # no more threads
                client.close()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            try:
                owner = peer_uid(client)
                if not self._admits(owner):
                    self._refuse(owner)
                    return
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.connect(self._target)
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
            except (OSError, RuntimeError):
                return
            _pump(client, server)
            back.join()

    def _admits(self, owner: int | None) -> bool:
        if owner is None or self._group is None:
            return owner in self._allowed
        return owner in self._allowed or is_member(owner, self._group)

    def _refuse(self, owner: int | None) -> None:
        if owner is not None and owner not in self._refused:  # None: it has gone already
            self._refused.add(owner)
            group = "" if self._group is None else f" and members of group {self._group}"
            admitted = f"{sorted(self._allowed)}{group}"
            line = f"warning: the door refuses user {owner}; it admits {admitted}\n"
            os.write(sys.stderr.fileno(), line.encode())


def is_member(user: int, group: int) -> bool:
    """Whether a user belongs to a group, by the user database of this machine."""
    try:
        entry = pwd.getpwuid(user)
        return group in os.getgrouplist(entry.pw_name, entry.pw_gid)
    except (KeyError, OSError):
        return False


def peer_uid(connection: socket.socket) -> int | None:
    """User id of the owner of the other end of a TCP connection within this machine.

    None where the kernel does not say so: another machine, or an end that was closed already, whose
    line names nobody (and would read as root).
    """
    ours, theirs = connection.getsockname(), connection.getpeername()
    wanted = set(zip(_in_table(theirs), _in_table(ours), strict=True))
    for _ in range(_LOOKS):
        for line in _table():
            # sl local remote st tx:rx tr:when retransmits uid timeout inode …
            fields = line.split()
            if (fields[1], fields[2]) in wanted:
                alive = fields[3] == _ESTABLISHED and fields[9] != "0"
                return int(fields[7]) if alive else None
        time.sleep(0.005)
    return None


def _table() -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            yield from Path("/proc/net", name).read_text().splitlines()[1:]


def _in_table(address: tuple[str, int]) -> tuple[str, ...]:
    """An address and port as the kernel writes them: its words as numbers of this machine.

    A client may reach an IPv4 address through a socket of IPv6, and is then found as that.
    """
    host, port = address[0].partition("%")[0].removeprefix("::ffff:"), address[1]
    if ":" in host:
        return (f"{_words(socket.inet_pton(socket.AF_INET6, host))}:{port:04X}",)
    plain = socket.inet_pton(socket.AF_INET, host)
    mapped = socket.inet_pton(socket.AF_INET6, f"::ffff:{host}")
    return (f"{_words(plain)}:{port:04X}", f"{_words(mapped)}:{port:04X}")


def _words(packed: bytes) -> str:
    parts = (packed[i : i + 4] for i in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(part, sys.byteorder):08X}" for part in parts)


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass bytes on inside the kernel until `source` ends, then end that direction of `sink`."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a user's share of such memory may be used up
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE)
        with contextlib.suppress(OSError):
            while left := os.splice(source.fileno(), write_end, _PIPE):
                while left:
                    left -= os.splice(read_end, sink.fileno(), left)
    finally:
        for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
            with contextlib.suppress(OSError):
                end.shutdown(how)
        os.close(read_end)
        os.close(write_end)
