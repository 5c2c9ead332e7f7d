"""Desks for tests: one in this process with small limits, one in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.desk.limits import Limits
from hilum.desk.store import Desk
from hilum.desk.web import Web

TOKEN = "a-token-of-a-test-that-is-long-enough"  # noqa: S105

HILUM = (sys.executable, "-c", "from hilum.cli import main; main()")
"""The command of this checkout."""


EVIL = "<img src=x onerror=document.title='evil'><script>document.title='evil'</script>"
"""What no page may run."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Caller:
    """Asks one desk over its socket; paths go out as they are written."""

    port: int
    token: str = TOKEN
    desk: Desk | None = None

    def __call__(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> Answer:
        token = self.token if token is None else token
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            chunked = hasattr(body, "__next__")
            connection.putrequest(method, path, skip_host="host" in sent)
            for name, value in sent.items():
                connection.putheader(name, value)
            if chunked:
                connection.putheader("transfer-encoding", "chunked")
            elif body is not None and "content-length" not in sent:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders()
            try:
                for chunk in body if chunked else [body] if body else []:
                    connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk) if chunked else chunk)
                if chunked:
                    connection.send(b"0\r\n\r\n")
            except OSError:
                pass  # refused before all was sent
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def study(self, *files: bytes) -> str:
        """Send a study; gives its name."""
        study = self("POST", "/api/studies").json["id"]
        for number, content in enumerate(files, 1):
            assert self("PUT", f"/api/studies/{study}/files/{number}", content).status == 200
        return study

    def finished(self, system: str) -> str:
        """The newest job of a system that is done."""
        jobs = [j for study in self("GET", "/api/studies").json["studies"] for j in study["jobs"]]
        return next(j["id"] for j in jobs if (j["system"], j["state"]) == (system, "done"))

    def until(self, job: str, *states: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until a job is in one of these states."""
        deadline = time.monotonic() + seconds
        while True:
            studies = self("GET", "/api/studies").json["studies"]
            (found,) = (j for study in studies for j in study["jobs"] if j["id"] == job)
            if found["state"] in states:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


def send(page: Any, caller: Caller, files: list[Path], system: str, **options: object) -> str:
    """Send files and run a system on them through the page; gives the job."""
    before = {study["id"] for study in caller("GET", "/api/studies").json["studies"]}
    page.js("location.hash = '#/'")
    page.until(lambda: page.all("#files"))
    page.find("#files").send_keys("\n".join(map(str, files)))

    def sent() -> str | None:
        new = {s["id"]: s["files"] for s in caller("GET", "/api/studies").json["studies"]}
        return next(
            (n for n, count in new.items() if n not in before and count == len(files)), None
        )

    study = page.until(sent)
    form = f"form[data-study='{study}']"
    page.until(lambda: page.all(form))
    page.set(f"{form} [name=system]", system)
    for name, value in options.items():
        page.set(f"{form} [name={name}]", value)
    page.press(f"{form} button.primary")
    (job,) = page.until(
        lambda: [j["id"] for s in caller("GET", "/api/studies").json["studies"]
                 if s["id"] == study for j in s["jobs"]]
    )  # fmt: skip
    return job


USED: set[tuple[str, str]] = set()
"""Operations that the page was seen to use."""


def operations(caller: Caller) -> set[tuple[str, str]]:
    """Methods and paths that the interface describes."""
    paths = caller("GET", "/api").json["paths"]
    return {(method.upper(), path) for path, found in paths.items() for method in found}


def described_as(
    method: str, url: str, described: set[tuple[str, str]]
) -> tuple[str, str] | None:  # fmt: skip
    """The operation that an address stands for."""
    for how, path in described:
        parts = re.split(r"{(\w+)}", path)  # text, name, text, …
        form = "".join(
            (".+" if part == "file" else "[^/]+") if at % 2 else re.escape(part)
            for at, part in enumerate(parts)
        )
        if how == method and re.fullmatch(form, url):
            return how, path
    return None


@contextmanager
def served(folder: Path, limits: Limits | None = None, *, works: bool = True) -> Iterator[Caller]:
    """A desk in this process that runs nothing."""
    import uvicorn

    from hilum.desk.patience import configured

    desk = Desk(folder, limits or Limits(), works=works)
    app = Web(desk, None).app(TOKEN, ["127.0.0.1"])
    listening = socket.create_server(("127.0.0.1", 0))
    config = configured(app, desk.limits.idle_s, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Caller(listening.getsockname()[1], desk=desk)
    finally:
        desk.events.close()
        server.should_exit = True
        thread.join(10)
        desk.close()
        listening.close()


@contextmanager
def started(folder: Path, url: str, *more: str) -> Iterator[tuple[Caller, str]]:
    """`hilum desk` in a process of its own; gives the link that it printed, too."""
    with printed(folder, "desk", "--results", str(folder), "--url", url, *more) as found:
        yield found


@contextmanager
def printed(
    folder: Path, *words: str, hilum: Sequence[str] = HILUM
) -> Iterator[tuple[Caller, str]]:
    """A command that serves a page, in a process of its own; its log lies beside `folder`."""
    log = (folder.parent / f"{folder.name}.log").open("wb")
    process = subprocess.Popen(
        [*hilum, *words],
        stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        assert link, Path(log.name).read_text()
        place, _, token = link.partition("/#token=")
        yield Caller(int(place.rpartition(":")[2]), token), link
    finally:
        process.terminate()
        process.wait(30)
        log.close()
