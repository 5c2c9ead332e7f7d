"""Memory of processes as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hilum.benchmarks.memory import SessionMemory, apart, peak_bytes, session

pytestmark = pytest.mark.serial

HELD = 60_000_000
"""Bytes that each of two processes of a session holds at a time."""

_CHILD = f"a = b'x' * {HELD}; print('ready', flush=True); input()"

_LEADER = f"""
import subprocess, sys
a = b"x" * {HELD}
del a
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
child.wait()
"""


@pytest.fixture
def leader() -> Iterator[int]:
    """A process that has held something, and a child of it that does."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LEADER, _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process.pid
    process.communicate(b"\n", timeout=20)


def test_memory_of_a_session(leader: int) -> None:
    pids = session(leader)
    assert len(pids) == 2
    assert leader in pids
    assert all(HELD < peak_bytes(pid) < HELD + 60_000_000 for pid in pids)
    memory = SessionMemory(leader)
    for _ in range(2):  # it may look several times
        with memory:
            pass
    assert memory.processes == 2
    # One of them has given its memory back; both had it once.
    assert HELD < memory.sampled_peak < 2 * HELD < memory.upper_bound


def test_a_process_that_is_gone_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert peak_bytes(process.pid) == 0
    assert session(process.pid) == []


def test_an_object_in_a_process_of_its_own(tmp_path: Path) -> None:
    from io import BytesIO

    with apart(BytesIO, b"some bytes") as stream:
        assert stream.read(4) == b"some"
        assert stream.read() == b" bytes"
        with pytest.raises(TypeError):
            stream.read("x")
