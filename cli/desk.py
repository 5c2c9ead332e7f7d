"""`hilum desk`: a page in the browser to send studies, to watch them and to see their results."""

from __future__ import annotations

import os
import re
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.catalog.errors import InputError, OutputError
from hilum.catalog.extras import require
from hilum.client.client import Client
from hilum.client.client_pool import ClientPool
from hilum.client.options import ConnectionOptions
from hilum.results.canvas import DISCLAIMER

from .console import default_repository, err, errors_to_exit_codes, out

_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "mb": 10**6, "gb": 10**9}
_TOKEN = 32
"""Characters of a token at least."""


def desk(
    results: Annotated[
        Path | None,
        typer.Option(help="Folder for studies and results; default: in the user's state folder."),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST:PORT of a Triton's gRPC, or of several that serve the same, with commas or "
            "given again; without it one is started."
        ),
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Model repository for the server that is started.")
    ] = None,
    gateway: Annotated[
        Path | None,
        typer.Option(help="Settings of a gateway, whose studies are shown; nothing is run."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Further names by which browsers reach this machine or its proxy."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="The token, instead of a new one; a proxy may send it as Bearer."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate of the page (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    max_upload: Annotated[str, typer.Option(help="Size of a study at most.")] = "4GiB",
    keep: Annotated[
        str, typer.Option(help="How long the files of a study stay; results stay till deleted.")
    ] = "24h",
    slots: Annotated[int, typer.Option(min=1, max=16, help="Studies that run at once.")] = 1,
) -> None:
    """Serve a page to send studies, to watch them and to see their results."""
    with errors_to_exit_codes():
        require("hilum desk", "starlette", "uvicorn")
        if gateway is not None:
            require("--gateway", "msgspec")
            if url or repository or results:
                raise InputError("--gateway shows what a gateway did; it takes no servers")
        _check_exposure(host, token_file, tls_cert, tls_key)
        if any("*" in one for one in name or ()):
            raise InputError("--name: give whole names; with * a foreign page could use its own")
        from hilum.desk.limits import Limits

        limits = Limits(study_bytes=_bytes(max_upload), keep_h=_hours(keep), slots=slots)
        token = secrets.token_urlsafe(_TOKEN) if token_file is None else _read_token(token_file)
        os.umask(0o077)
        with ExitStack() as stack:
            app = stack.enter_context(
                _application(results, url, repository, gateway, limits, token,
                             [host, "127.0.0.1", "localhost", "[::1]", *(name or ())])
            )  # fmt: skip
            listening = stack.enter_context(_listening(host, port))
            secure = "https" if tls_cert else "http"
            shown = f"[{host}]" if ":" in host else host
            link = f"{secure}://{shown}:{listening.getsockname()[1]}/#token={token}"
            out.print(link, markup=False)
            err.print(DISCLAIMER)
            _serve(app, listening, limits.idle_s, tls_cert, tls_key)


@contextmanager
def _application(
    results: Path | None, url: list[str] | None, repository: Path | None, gateway: Path | None,
    limits: Any, token: str, hosts: list[str],
) -> Iterator[Any]:  # fmt: skip
    """The application over its folder, with work going on in it."""
    from hilum.desk.store import Desk
    from hilum.desk.web import VIEWER, Web
    from hilum.desk.work import Work
    from hilum.gateway.lock import alone

    if not VIEWER.is_file():
        raise InputError(f"{VIEWER.name} is not there: run `make desk`, or install a wheel")
    with ExitStack() as stack:
        if gateway is not None:
            from hilum.gateway.config import read_settings

            shown = Desk(read_settings(gateway).folder, limits, works=False)
            stack.callback(shown.close)
            yield Web(shown, None).app(token, hosts)
            return
        folder = (results or _state_folder()).absolute()
        stack.enter_context(alone(folder, "another desk works in {}; end it, or give --results"))
        client = stack.enter_context(_client(url, repository))
        shown = Desk(folder, limits)
        stack.callback(shown.close)
        work = Work(shown, client, _log)
        work.start()
        stack.callback(work.stop)
        yield Web(shown, client).app(token, hosts)


@contextmanager
def _client(url: list[str] | None, repository: Path | None) -> Iterator[Client | ClientPool]:
    """A client of the servers that were named, or of one that is started with all models."""
    urls = [one for given in url or () for one in given.split(",")]
    if urls and repository is not None:
        raise InputError("--url names a running server and --repository starts one; give one")
    with ExitStack() as stack:
        if not urls:
            from hilum.server.foreground import kept
            from hilum.server.launcher import TritonServer

            server = TritonServer(repository or default_repository(), grace=0)
            urls = [stack.enter_context(kept(server, _log)).grpc_url]
        made = ClientPool(urls) if len(urls) > 1 else Client(ConnectionOptions(url=urls[0]))
        client = stack.enter_context(made)
        client.models()  # none answers: say so now
        yield client


def _check_exposure(host: str, token: Path | None, cert: Path | None, key: Path | None) -> None:
    """Refuse to serve others than this machine without encryption and a token that stays."""
    if (cert is None) != (key is None):
        raise InputError("--tls-cert and --tls-key belong together; give both")
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and (cert is None or token is None):
        raise InputError(
            f"--host {host} is reached by others: give --tls-cert, --tls-key and --token-file, or "
            "stay on 127.0.0.1 behind a proxy"
        )


def _read_token(path: Path) -> str:
    token = path.read_text().strip()
    if len(token) < _TOKEN or not re.fullmatch(r"[\w.~+/=-]+", token, re.ASCII):
        raise InputError(f"{path}: give a token of {_TOKEN} letters, digits or -._~+/= at least")
    return token


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise InputError(f"--max-upload {text}: give a size as 4GiB or 600MB")
    return int(float(found[1]) * _UNITS[found[2]])


def _hours(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hd]?)", text.strip().lower())
    if found is None:
        raise InputError(f"--keep {text}: give a time as 24h or 7d")
    return float(found[1]) * (24 if found[2] == "d" else 1)


def _state_folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(home) / "hilum" / "desk"


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()  # who opens the link at once waits
        except OSError as failure:
            raise OutputError(f"{host}:{port}: {failure.strerror}") from failure
        yield listening


def _serve(
    app: Any, listening: socket.socket, idle_s: float, cert: Path | None, key: Path | None
) -> None:
    import uvicorn

    from hilum.desk.patience import configured

    config = configured(
        app, idle_s, log_level="warning", timeout_graceful_shutdown=2,
        ssl_certfile=cert, ssl_keyfile=str(key) if key else None,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


def _log(line: str) -> None:
    err.print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}", markup=False, soft_wrap=True)
