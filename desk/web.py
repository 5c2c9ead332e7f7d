"""The desk over HTTP: the page, and the interface that the page itself uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hilum.catalog.errors import HilumError, InputError, OutputError
from hilum.client.client import Client
from hilum.client.client_pool import ClientPool
from hilum.client.registry import find_system
from hilum.results.canvas import DISCLAIMER

from .choices import describe, options_from
from .guard import Guard
from .interface import Operation, description
from .limits import Refused
from .store import Desk, shown_id
from .takeaway import csv_of, pdf_of
from .uploads import timely

PAGE = Path(__file__).parent / "page"
VENDOR = Path(__file__).parent / "vendor"
VIEWER = VENDOR / "niivue.umd.js"

_JSON_BYTES = 64 * 2**10
"""Of a body that is JSON."""

_PLACE = "/api/jobs/{job}/studies/{name}"


@dataclass(frozen=True, slots=True)
class Web:
    """The routes of one desk.

    Attributes
    ----------
    client
        Of the servers; None where a gateway's folder is only shown.
    """

    desk: Desk
    client: Client | ClientPool | None

    def app(self, token: str, hosts: list[str]) -> Starlette:
        """The application, which answers to the names `hosts` alone."""
        routes = [Route("/", self._index)]
        routes += [Route(o.path, self._safe(o), methods=[o.method]) for o in self._operations()]
        routes += [
            Mount("/page", StaticFiles(directory=PAGE)),
            Mount("/vendor", StaticFiles(directory=VENDOR)),
        ]
        return Starlette(
            routes=routes,
            middleware=[
                Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
                Middleware(Guard, token=token),
                Middleware(RequestBodyLimitMiddleware, max_body_size=self.desk.limits.file_bytes),
            ],
        )

    def _operations(self) -> list[Operation]:
        return [
            Operation("GET", "/api", "This description.", self._describe),
            Operation("GET", "/api/about", "Systems with their options, and limits.", self._about),
            Operation("GET", "/api/studies", "All studies with their jobs.", self._studies),
            Operation("GET", "/api/events", "What changes, as server-sent events; a header "
                      "Last-Event-ID resumes.", self._events, answer="text/event-stream"),
            Operation("POST", "/api/studies", "Make room for a study; where it is known how many "
                      "files it has, it runs when all are there.", self._begin, 201,
                      body="application/json", body_needed=False, fields=("files",)),
            Operation("PUT", "/api/studies/{study}/files/{number}", "Send one file of a study; "
                      "its number is its name.", self._file, body="application/octet-stream"),
            Operation("POST", "/api/studies/{study}/run", "Run a system on a study.", self._run,
                      202, body="application/json", fields=("system", "options")),
            Operation("DELETE", "/api/studies/{study}", "Remove a study with all results.",
                      self._delete),
            Operation("POST", "/api/jobs/{job}/retry", "Run a job again.", self._retry, 202),
            Operation("POST", "/api/jobs/{job}/cancel", "End a job.", self._cancel),
            Operation("GET", "/api/jobs/{job}/result", "Results of a job's studies.", self._result),
            Operation("GET", _PLACE + "/files/{file}", "A file of a result.", self._taken,
                      answer="application/octet-stream"),
            Operation("GET", _PLACE + "/view/{file}", "What the viewer shows.", self._view,
                      answer="application/octet-stream"),
            Operation("GET", _PLACE + "/report.{kind}", "The result as csv or pdf.", self._report,
                      answer="application/octet-stream"),
        ]  # fmt: skip

    def _safe(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        """An operation whose errors are answers."""

        async def answer(request: Request) -> Response:
            try:
                found = await operation.handler(request)
            except HilumError as failure:
                told = {"error": str(failure), "code": failure.code}
                return JSONResponse(told, _status(failure))
            except ClientDisconnect:
                return Response(status_code=400)
            if isinstance(found, Response):
                return found
            return JSONResponse(found, operation.status)

        return answer

    async def _index(self, _: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def _describe(self, _: Request) -> Any:
        return description(self._operations())

    async def _about(self, _: Request) -> Any:
        def ask() -> Any:
            client = self.client
            return [] if client is None else describe(client.models(), client.about())

        limits = self.desk.limits
        return {
            "version": version("hilum"), "disclaimer": DISCLAIMER, "works": self.desk.works,
            "systems": await asyncio.to_thread(ask),
            "limits": {"study_bytes": limits.study_bytes, "file_bytes": limits.file_bytes,
                       "files": limits.files},
        }  # fmt: skip

    async def _studies(self, _: Request) -> Any:
        return {"studies": self.desk.studies()}

    async def _events(self, request: Request) -> Response:
        stream = self.desk.events.follow(request.headers.get("last-event-id", ""))
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"}
        )

    async def _begin(self, request: Request) -> Any:
        self.desk.check_works()
        files = (await _json(request, self.desk.limits.idle_s)).get("files")
        if files is not None and (type(files) is not int or files < 1):
            raise InputError("files: give a number from 1")
        if files is not None and files > self.desk.limits.files:
            raise Refused(413, f"a study has {self.desk.limits.files} files at most")
        return {"id": self.desk.begin(files)}

    async def _file(self, request: Request) -> Any:
        self.desk.check_works()
        study, number = request.path_params["study"], request.path_params["number"]
        self.desk.check_study(study)
        if not number.isascii() or not number.isdecimal():
            raise Refused(404, "files are numbers from 1")
        uploads = self.desk.uploads
        size = await uploads.receive(study, int(number[:9]), request.stream())
        if uploads.size(study)[0] == uploads.expected(study):
            self.desk.changed(study)
        return {"bytes": size}

    async def _run(self, request: Request) -> Any:
        self.desk.check_works()
        asked = await _json(request, self.desk.limits.idle_s)
        name, options = asked.get("system"), asked.get("options", {})
        if not isinstance(name, str) or not isinstance(options, dict):
            raise InputError("give the name of a system, and its options as an object")
        options_from(find_system(name), options)
        return {"job": self.desk.submit(request.path_params["study"], name, options)}

    async def _delete(self, request: Request) -> Any:
        await asyncio.to_thread(self.desk.delete, request.path_params["study"])
        return {}

    async def _retry(self, request: Request) -> Any:
        return {"job": self.desk.retry(request.path_params["job"])}

    async def _cancel(self, request: Request) -> Any:
        self.desk.cancel(request.path_params["job"])
        return {}

    async def _result(self, request: Request) -> Any:
        job = self.desk.job(request.path_params["job"])

        def read() -> list[dict[str, Any]]:
            found = self.desk.result(job.id)
            return [one | {"patient": self.desk.patient(job.id, one["name"])} for one in found]

        found = await asyncio.to_thread(read)
        return {"job": job.id, "study": shown_id(job.series), "studies": found}

    async def _taken(self, request: Request) -> Response:
        found, place = await self._one(request)
        file = request.path_params["file"]
        if file not in {one["name"] for one in found["files"]}:
            raise Refused(404, "the result has no such file")
        return FileResponse(place / file, filename=Path(file).name)

    async def _view(self, request: Request) -> Response:
        found, _ = await self._one(request)
        file = request.path_params["file"]
        folder = self.desk.view(request.path_params["job"], found["name"])
        if file not in self.desk.view_files(request.path_params["job"], found["name"]):
            raise Refused(404, "the viewer has no such file")
        # Unpacked by the browser itself, which is faster than by a script.
        packed = {"content-encoding": "gzip"} if file.endswith(".gz") else None
        return FileResponse(folder / file, headers=packed, media_type=_kind(file))

    async def _report(self, request: Request) -> Response:
        found, place = await self._one(request)
        kind = request.path_params["kind"]
        if kind not in ("csv", "pdf"):
            raise Refused(404, "the report is there as csv and pdf")
        make = csv_of if kind == "csv" else pdf_of
        body = await asyncio.to_thread(make, found, place)
        name = f"{request.path_params['job']}-{found['name']}.{kind}"
        held = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(body, headers=held, media_type=_kind(name))

    async def _one(self, request: Request) -> tuple[dict[str, Any], Path]:
        """One study of a job's result, and its folder."""
        key = self.desk.job(request.path_params["job"]).id
        for found in await asyncio.to_thread(self.desk.result, key):
            if found["name"] == request.path_params["name"]:
                return found, self.desk.spool.result(key) / found["name"]
        raise Refused(404, "the job has no such study")


def _status(failure: HilumError) -> int:
    """The status of HTTP for an error."""
    match failure:
        case Refused():
            return failure.status
        case InputError():
            return 422
        case OutputError():
            return 507
    return 503


def _kind(name: str) -> str:
    kinds = {".csv": "text/csv; charset=utf-8", ".pdf": "application/pdf", ".png": "image/png",
             ".json": "application/json"}  # fmt: skip
    return kinds.get(Path(name).suffix, "application/octet-stream")


async def _json(request: Request, idle_s: float) -> dict[str, Any]:
    """The object that a body holds; nothing is one without fields."""
    body = b""
    async for chunk in timely(request.stream(), idle_s):
        body += chunk
        if len(body) > _JSON_BYTES:
            raise Refused(413, f"JSON has {_JSON_BYTES // 1024} KiB at most")
    try:
        found = json.loads(body or b"{}")
        json.dumps(found, ensure_ascii=False).encode()  # half a character would spoil the answer
    except (ValueError, RecursionError):
        raise InputError("the body is not JSON") from None
    if not isinstance(found, dict):
        raise InputError("the body is not a JSON object")
    return found
