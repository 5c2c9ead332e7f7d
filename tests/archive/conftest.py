"""A server of the X-ray system and lungmask, and archives that are computed with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archives import Archive

from hilum.server.launcher import TritonServer

if TYPE_CHECKING:
    from buckets import Troubled


@pytest.fixture
def make_archive(tmp_path: Path, chest_server: TritonServer) -> Callable[..., Archive]:
    def make(name: str = "batch", url: str = "") -> Archive:
        folder = tmp_path / name
        folder.mkdir()
        return Archive(folder, url or chest_server.grpc_url)

    return make


@pytest.fixture
def archive(make_archive: Callable[..., Archive]) -> Archive:
    return make_archive()


@pytest.fixture(scope="module")
def s3() -> Iterator[Troubled]:
    from buckets import served

    with served() as troubled:
        yield troubled


@pytest.fixture
def bucket(s3: Troubled, request: pytest.FixtureRequest) -> Iterator[str]:
    from buckets import made

    s3.answer, s3.failed = lambda _: 0, 0
    yield made(f"b{abs(hash(request.node.name))}")
    s3.answer = lambda _: 0
