"""Keep what a server creates private from the moment at which it is created.

Triton's Python backend creates its shared memory with ``shm_open`` and then calls ``fchmod`` to
make it readable by everybody, whatever the umask. Images pass through it, and who has once opened a
region keeps it. A filter of the kernel (seccomp) therefore answers ``fchmod`` with success, and
does nothing, in the server and all its processes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable

_NUMBERS = {"x86_64": (0xC000003E, 91), "aarch64": (0xC00000B7, 52)}
"""By machine: what the kernel calls it (AUDIT_ARCH), and its number of ``fchmod``."""

_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _SUCCESS = 0x7FFF0000, 0x00050000
_NUMBER, _MACHINE = 0, 4


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confinement() -> Callable[[], None]:
    """What a child process calls before it becomes the server (after the fork: it only calls C).

    Its files are then private to its user, and stay so; on machines other than x86-64 and ARM
    the umask alone does what it can.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    code = _instructions(platform.machine())
    program = _Program(len(code) // 8, code)

    def confine() -> None:
        os.umask(0o077)
        if code:
            libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)

    return confine


def _instructions(machine: str) -> bytes:
    """The filter: ``fchmod`` of this machine succeeds without effect, all else is as ever."""
    if machine not in _NUMBERS:
        return b""
    kernel_name, fchmod = _NUMBERS[machine]
    steps = (
        (_LOAD, 0, 0, _MACHINE),
        (_JUMP_EQUAL, 0, 3, kernel_name),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_EQUAL, 0, 1, fchmod),
        (_RETURN, 0, 0, _SUCCESS),
        (_RETURN, 0, 0, _ALLOW),
    )
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
