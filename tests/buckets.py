"""A bucket for tests: moto's server, with answers that fail or take long as a test chooses."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import s3fs
from archives import xrays
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response


class Troubled:
    """An S3 that answers some requests with an error, as a function chooses."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.answer: Callable[[Request], int] = lambda _: 0
        self.failed = 0

    def __call__(self, environment: dict[str, object], start: object) -> object:
        status = self.answer(Request(environment))  # type: ignore[arg-type]
        if not status:
            return self.app(environment, start)
        self.failed += 1
        code = {503: "SlowDown", 403: "AccessDenied"}[status]
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
        return Response(body, status, content_type="application/xml")(environment, start)  # type: ignore[arg-type]


@contextmanager
def served() -> Iterator[Troubled]:
    """A server that this environment's AWS_… name; clients of an earlier one are forgotten."""
    s3fs.S3FileSystem.clear_instance_cache()
    troubled = Troubled()
    server = make_server("127.0.0.1", 0, troubled, threaded=True)  # type: ignore[arg-type]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before = dict(os.environ)
    os.environ.update(
        AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="y", AWS_DEFAULT_REGION="us-east-1",  # noqa: S106
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.port}",
    )  # fmt: skip
    try:
        yield troubled
    finally:
        os.environ.clear()
        os.environ.update(before)
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()


def made(name: str) -> str:
    """A new bucket."""
    s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True).mkdir(name)
    return name


def filled(bucket: str, folder: Path, count: int) -> list[Path]:
    studies = xrays(folder, count)
    system = s3fs.S3FileSystem(use_listings_cache=False)
    for study in studies:
        system.put_file(str(study), f"{bucket}/in/{study.name}")
    return studies
