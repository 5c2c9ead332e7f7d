"""Ports that servers are given when nobody chooses them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hilum.server import ports


def test_no_outgoing_connection_can_take_a_free_port_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "OUTGOING", tmp_path / "range")
    ports.OUTGOING.write_text("20000\t20099\n")
    found = ports.free_ports(50)
    assert len(set(found)) == 50
    assert all(ports.LOWEST <= one < 20_000 for one in found)
    for one in found:
        ports.check_free("127.0.0.1", one)


@pytest.mark.parametrize("said", ["1024 65535", "10050 60999", "", "none"])
def test_without_room_below_any_port_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(ports, "OUTGOING", tmp_path / "range")
    ports.OUTGOING.write_text(said)
    assert len(set(ports.free_ports(3))) == 3


def test_a_port_that_is_taken_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "OUTGOING", tmp_path / "range")
    ports.OUTGOING.write_text("32768 60999")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        numbers = iter([taken.getsockname()[1] - ports.LOWEST, 7])
        monkeypatch.setattr(ports.secrets, "randbelow", lambda _: next(numbers))
        assert ports.free_ports(1) == (ports.LOWEST + 7,)
