"""A connection that the PACS closes just when a request sets out costs nothing but another one."""

from __future__ import annotations

import socket
import threading

import pytest

pytest.importorskip("dicomweb_client")

from hilum.gateway.config import Web
from hilum.gateway.pacs import Pacs, PacsError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 2\r\n\r\n[]"


def asked(connection: socket.socket) -> bool:
    """Read one request; whether there was one."""
    read = b""
    while b"\r\n\r\n" not in read:
        chunk = connection.recv(4096)
        if not chunk:
            return False
        read += chunk
    return True


def test_a_connection_that_ended_is_opened_again() -> None:
    requests: list[int] = []

    def serve() -> None:
        for number in range(2):
            connection, _ = listening.accept()
            with connection:
                while asked(connection):
                    requests.append(number)
                    if len(requests) == 2:
                        break  # the second request gets no answer
                    connection.sendall(ANSWER)
                    if len(requests) == 4:
                        break

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        pacs = Pacs(Web(dicomweb=f"http://127.0.0.1:{listening.getsockname()[1]}"))
        for _ in range(3):
            pacs.check()
        thread.join(10)
    assert requests == [0, 0, 1, 1]


def test_a_pacs_that_is_away_is_said_to_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(PacsError, match="cannot be reached") as failure:
        Pacs(Web(dicomweb=f"http://127.0.0.1:{port}")).check()
    assert failure.value.again
    assert failure.value.everywhere
