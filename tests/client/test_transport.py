"""Shared memory: when it is used, how its regions are reused, and that none is left behind."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc

from hilum.catalog.errors import ConnectionFailed, DeadlineExceeded, InferenceFailed
from hilum.client import AsyncClient, Client
from hilum.client.options import ConnectionOptions
from hilum.client.transport import system as shared_memory
from hilum.client.transport.regions import Pool, size_class
from hilum.client.transport.system import PREFIX, SystemMemory, SystemRegion
from hilum.server.launcher import TritonServer

IMAGES = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), np.uint8)
X = {"x": np.arange(16, dtype=np.float32)[None]}


def regions() -> set[str]:
    """Regions of this process, of its children, and of processes that are no more."""
    folder = Path("/dev/shm")  # noqa: S108 - where shared memory lives
    return {path.name for path in folder.glob(PREFIX + "*") if not _of_others(path.name)}


def _of_others(region: str) -> bool:
    """Whether a process lives that made the region and has nothing to do with these tests."""
    pid = region.removeprefix(PREFIX).partition("-")[0]
    while pid not in ("0", str(os.getpid())):
        try:
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            return False
    return pid == "0"


def registered(url: str) -> set[str]:
    """Our regions that a server knows."""
    with tritonclient.grpc.InferenceServerClient(url) as direct:
        status = direct.get_system_shared_memory_status()
    return {name for name in status.regions if name.startswith(PREFIX)}


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a region, on this side or on the shared server's."""
    before = regions()
    url = request.getfixturevalue("url") if "url" in request.fixturenames else None
    yield
    assert regions() <= before
    if url is not None:
        assert registered(url) <= before


def test_shared_memory_is_negotiated(url: str) -> None:
    with Client(url) as client:
        assert client.transport is None
        answer = client.infer("picture", {"image": IMAGES}, ["doubled"])
        assert answer.transport == client.transport == "shm"
        assert "shared memory" in client.transport_reason
        assert len(regions()) == len(registered(url)) == 1
    assert "closed" in repr(client)


def test_both_ways_give_the_same(url: str) -> None:
    turned = IMAGES.transpose(0, 2, 1, 3)  # not contiguous
    with Client(url) as shared, Client(url, transport="grpc") as inline:
        assert "asked for" in inline.transport_reason
        for images in (IMAGES, turned, IMAGES[:1]):
            a = shared.infer("picture", {"image": images}, ["doubled"])
            b = inline.infer("picture", {"image": images}, ["doubled"])
            assert (a.transport, b.transport) == ("shm", "grpc")
            for outputs in (a.outputs, b.outputs):
                assert not outputs["doubled"].flags.writeable
                expected = np.concatenate([images, images], axis=1)
                np.testing.assert_array_equal(outputs["doubled"], expected)


def test_a_server_elsewhere_gets_grpc(url: str) -> None:
    options = ConnectionOptions("192.0.2.1:8001", connect_window_s=0)
    assert not options.is_on_this_host()
    with Client(options, deadline_s=0.2) as client:
        with pytest.raises(ConnectionFailed):
            client.infer("small", X, ["y"])
        assert client.transport == "grpc"
        assert client.transport_reason == "gRPC: 192.0.2.1:8001 is not on this host"
    with (
        Client(options, transport="shm") as client,
        pytest.raises(ConnectionFailed, match=r"not on this host.*choose the transport 'auto'"),
    ):
        client.infer("small", X, ["y"])


def test_a_server_without_access_gets_grpc(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a /dev/shm of its own: the key does not exist over there."""
    monkeypatch.setattr(SystemRegion, "key", property(lambda region: f"/elsewhere-{region.name}"))
    with Client(url) as client:
        answer = client.infer("picture", {"image": IMAGES}, ["doubled"])
        assert answer.transport == client.transport == "grpc"
        assert "does not take shared memory: Unable to open" in client.transport_reason
        assert client.describe()["transport"] == "grpc"
        assert not regions()
    with Client(url, transport="shm") as client:
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match=r"Unable to open.*--allow-client-shm=true"):
                client.infer("picture", {"image": IMAGES}, ["doubled"])


def test_a_server_that_forbids_it_gets_grpc(
    bare_server: Callable[..., AbstractContextManager[int]],
) -> None:
    restricted = "--grpc-restricted-protocol=shared-memory,model-repository:key=value"
    with bare_server(restricted) as port:
        with Client(f"127.0.0.1:{port}") as client:
            assert client.infer("small", X, ["y"]).transport == "grpc"
            assert "protocol is restricted" in client.transport_reason
            with pytest.raises(ConnectionFailed, match=r"does not let this client in.*metadata"):
                client.models()
        # Its name and value in the metadata open what is restricted.
        told = {"triton-grpc-protocol-key": "value"}
        with Client(f"127.0.0.1:{port}", metadata=told) as client:
            assert client.infer("small", X, ["y"]).transport == "shm"
            assert client.models() == ("small",)


def test_lengths_that_are_not_known_come_over_grpc(url: str) -> None:
    x = np.arange(1000, dtype=np.float32)
    with Client(url) as client:
        for shapes in (None, {"y": (1000,)}, {"y": (2000,)}):
            answer = client.infer("dynamic", {"x": x}, ["y"], output_shapes=shapes)
            np.testing.assert_array_equal(answer.outputs["y"], x)
        with pytest.raises(InferenceFailed, match="at least 4000 bytes"):
            client.infer("dynamic", {"x": x}, ["y"], output_shapes={"y": (10,)})
        np.testing.assert_array_equal(client.infer("dynamic", {"x": x}, ["y"]).outputs["y"], x)


def test_regions_are_reused(url: str) -> None:
    with Client(url) as client:
        kept = [
            client.infer("picture", {"image": IMAGES[i : i + 1]}, ["doubled"]) for i in range(4)
        ]
        assert len(regions()) == 1
        for i, answer in enumerate(kept):  # none of them shares memory with a later request
            np.testing.assert_array_equal(answer.outputs["doubled"][0, :64], IMAGES[i])
        with ThreadPoolExecutor(4) as pool:
            for i, answer in enumerate(
                pool.map(
                    lambda i: client.infer("picture", {"image": IMAGES[i % 4][None]}, ["doubled"]),
                    range(40),
                )
            ):
                np.testing.assert_array_equal(answer.outputs["doubled"][0, 64:], IMAGES[i % 4])
        assert len(regions()) <= 4


def test_a_full_pool_sends_over_grpc(url: str) -> None:
    with Client(url, shared_memory_bytes=1 << 17) as client:
        client.infer("small", X, ["y"])
        large = client.infer("picture", {"image": IMAGES}, ["doubled"])
        assert (large.transport, client.transport) == ("grpc", "shm")
        assert client.infer("small", X, ["y"]).transport == "shm"


def test_idle_regions_make_room(url: str) -> None:
    bound = size_class(3 * IMAGES.nbytes, SystemMemory.smallest)
    with Client(url, shared_memory_bytes=bound) as client:
        for _ in range(3):
            assert client.infer("small", X, ["y"]).transport == "shm"
            assert client.infer("picture", {"image": IMAGES}, ["doubled"]).transport == "shm"
            assert len(regions()) == 1
        client.infer("small", X, ["y"])
        assert len(registered(url)) <= 2


def test_a_region_whose_request_timed_out_is_not_reused(url: str) -> None:
    with Client(url) as client:
        client.infer("slow", {"seconds": np.float32([0.0])}, ["done"])
        (first,) = regions()
        with pytest.raises(DeadlineExceeded):
            client.infer("slow", {"seconds": np.float32([0.5])}, ["done"], deadline_s=0.1)
        assert not regions()
        client.infer("small", X, ["y"])
        assert first not in regions()
        assert first in registered(url)  # the server still writes to it
        time.sleep(0.7)
        client.close()
        assert not registered(url)


def test_a_cancelled_request_gives_its_region_up(url: str) -> None:
    async def ask() -> None:
        async with AsyncClient(url) as client:
            await client.infer("slow", {"seconds": np.float32([0.0])}, ["done"])
            task = asyncio.create_task(
                client.infer("slow", {"seconds": np.float32([0.4])}, ["done"])
            )
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not regions()
            answer = await client.infer("small", X, ["y"])
            np.testing.assert_array_equal(answer.outputs["y"], X["x"])
            await asyncio.sleep(0.6)

    asyncio.run(ask())


def test_a_restarted_server_is_informed_of_the_regions_again(
    make_server: Callable[..., TritonServer],
) -> None:
    server = make_server()
    port = int(server.grpc_url.rpartition(":")[2])
    with Client(server.grpc_url) as client:
        client.infer("small", X, ["y"])
        (region,) = regions()
        server.stop(grace=0)
        make_server(port)
        assert not registered(server.grpc_url)
        answer = client.infer("small", X, ["y"])
        np.testing.assert_array_equal(answer.outputs["y"], X["x"])
        assert answer.transport == "shm"
        assert registered(server.grpc_url) == regions()
        assert regions() == {region}


CRASH = """
    import os, signal, sys
    import numpy as np
    from hilum.client.client import Client
    client = Client(sys.argv[1])
    client.infer("small", {"x": np.zeros((1, 16), np.float32)}, ["y"])
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


def test_nothing_stays_after_a_crash(url: str) -> None:
    before = regions()
    crashed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CRASH), url, "SIGKILL"], check=False
    )
    assert crashed.returncode == -signal.SIGKILL
    left = regions() - before
    assert len(left) == 1
    assert left <= registered(url)
    with Client(url) as client:
        own = client.describe()
        assert own["transport"] == "shm"
        assert not left & regions()
        assert not left & registered(url)


def test_the_living_keep_their_regions(url: str) -> None:
    with Client(url) as first, Client(url) as second:
        first.infer("small", X, ["y"])
        mine = regions()
        assert shared_memory.remove_leftovers() == []
        second.infer("small", X, ["y"])
        assert mine < regions()
        assert mine <= registered(url)


def test_nothing_stays_after_an_exit_without_close(url: str) -> None:
    before = regions()
    code = textwrap.dedent(CRASH).replace("os.kill", "print").replace("getattr(signal, ", "(")
    left = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, url, "-"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert left.stderr == ""
    assert regions() == before
    assert registered(url) <= before


def test_an_asyncio_client_that_nobody_closes(url: str) -> None:
    async def ask() -> set[str]:
        client = AsyncClient(url)
        await client.infer("small", X, ["y"])
        return regions()

    left = asyncio.run(ask())
    gc.collect()
    assert left
    assert not left & regions()
    with Client(url) as client:  # the next client tells the server
        client.infer("small", X, ["y"])
        assert not left & registered(url)


def test_a_fork_does_not_take_the_regions_away() -> None:
    region = SystemRegion(1 << 16)
    child = multiprocessing.get_context("fork").Process(target=region.free)
    child.start()
    child.join()
    assert region.name in regions()
    region.free()
    assert region.name not in regions()


def test_size_classes_waste_little() -> None:
    for size in (1, 65_536, 65_537, 100_000, 786_432, 2_000_000, 42_000_001):
        assert size <= size_class(size, SystemMemory.smallest) <= max(65_536, 1.25 * size)


def test_a_pool_without_room() -> None:
    pool = Pool(SystemMemory(), 1 << 17)
    first, second = pool.acquire(1 << 16), pool.acquire(1 << 16)
    assert first is not None and second is not None
    assert pool.acquire(1) is None
    pool.release(first)
    assert pool.acquire(1) is first
    pool.drop(first)
    assert first.name not in regions()
    assert pool.close() == []  # the server knows of none
    assert pool.acquire(1) is None


@pytest.mark.parametrize(("batch", "beside"), [(1, False), (8, True)])
def test_large_tensors_are_copied_beside_the_event_loop(
    url: str, monkeypatch: pytest.MonkeyPatch, batch: int, beside: bool
) -> None:
    write, threads = SystemRegion.write, set[int]()

    def noted(region: SystemRegion, offset: int, array: np.ndarray) -> None:
        threads.add(threading.get_ident())
        write(region, offset, array)

    async def ask() -> np.ndarray:
        async with AsyncClient(url, transport="shm") as client:
            image = np.ones((batch, 64, 64, 3), np.uint8)
            answer = await client.infer("picture", {"image": image}, ["doubled"])
            return answer.outputs["doubled"]

    monkeypatch.setattr(SystemRegion, "write", noted)
    assert (asyncio.run(ask()) == 1).all()
    assert (threading.get_ident() not in threads) == beside
