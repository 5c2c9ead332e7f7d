"""What answers on a port, when it is not the gRPC server that was expected there."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from enum import Enum
from pathlib import Path

# What an HTTP/2 client says first (RFC 9113 §3.4): the preface, then an empty SETTINGS frame.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4


class Listener(Enum):
    """What was found on a port; the value completes the sentence "at host:port …"."""

    GRPC = "a gRPC server answers"
    HTTP = "an HTTP server answers, not a gRPC server"
    TLS = "a server answers that wants TLS"
    HTTP2_OVER_TLS = "a server answers that speaks HTTP/2 over TLS, as gRPC servers and proxies do"
    NO_TLS = "something answers with which no TLS connection can be made"
    OTHER = "something answers that is not a gRPC server"
    HANGS_UP = (
        "something accepts connections and closes them, as Triton's HTTP port does, and as a "
        "server of Hilum does for every user but its own"
    )
    SILENT = "something accepts connections and says nothing"
    REFUSED = "nothing listens"
    UNREACHABLE = "nothing can be reached"
    UNKNOWN_HOST = "there is no host of this name"

    @property
    def is_foreign(self) -> bool:
        """Whether waiting cannot help: it speaks another protocol."""
        return self in (Listener.HTTP, Listener.TLS, Listener.OTHER)


def identify(
    host: str, port: int, timeout_s: float = 1.0, *, tls: ssl.SSLContext | None = None
) -> Listener:
    """Connect to a port, greet it as an HTTP/2 client does, and judge by the first bytes back.

    Where no TLS is wanted, a second connection finds out whether one that hangs up wants it.
    Blocks for a few times `timeout_s` at most.

    Parameters
    ----------
    tls
        How to encrypt (`unverified`); None for plain text. A port that wants TLS is never greeted
        in plain text: a proxy's answer to that says nothing of what it stands for.
    """
    found = _greet(host, port, timeout_s, tls)
    if tls is not None:
        return Listener.HTTP2_OVER_TLS if found is Listener.GRPC else found
    if found is Listener.HANGS_UP and _speaks_tls(host, port, timeout_s):
        return Listener.TLS
    return found


def unverified(
    certificate: Path | str | None = None, key: Path | str | None = None
) -> ssl.SSLContext:
    """TLS for a greeting: nothing is sent that is worth protecting, so nobody has to prove who.

    Parameters
    ----------
    certificate, key
        PEM files of this client, for servers that ask for them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        with suppress(ssl.SSLError):  # what is no certificate, gRPC has refused already
            context.load_cert_chain(certificate, key, password=lambda: "")
    return context


def _greet(host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None) -> Listener:
    try:
        connection = socket.create_connection((host, port), timeout_s)
    except ConnectionRefusedError:
        return Listener.REFUSED
    except socket.gaierror:
        return Listener.UNKNOWN_HOST
    except OSError:
        return Listener.UNREACHABLE
    with connection:
        try:
            if tls is not None:
                connection = tls.wrap_socket(connection, server_hostname=host)
            with connection:
                connection.sendall(_GREETING)
                return _judge(connection.recv(256))
        except TimeoutError:
            return Listener.SILENT
        except ssl.SSLError:
            return Listener.NO_TLS
        except OSError:
            return Listener.HANGS_UP


def _speaks_tls(host: str, port: int, timeout_s: float) -> bool:
    try:
        with (
            socket.create_connection((host, port), timeout_s) as connection,
            unverified().wrap_socket(connection),
        ):
            return True
    except OSError:
        return False


def _judge(reply: bytes) -> Listener:
    if not reply:
        return Listener.HANGS_UP
    if len(reply) >= 9 and reply[3] == _SETTINGS and reply[5:9] == bytes(4):
        return Listener.GRPC
    start = reply[:64].lstrip().upper()
    if start.startswith((b"HTTP/1", b"HTTP/0", b"<!DOCTYPE HTML", b"<HTML")):
        return Listener.HTTP
    return Listener.OTHER
