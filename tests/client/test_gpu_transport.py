"""CUDA shared memory: refused by a server without a GPU, used by one with it, and given back.

What does not need a GPU is tested on the host's memory, in the same pool and the same calls.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from hilum.catalog.errors import ConnectionFailed, InferenceFailed
from hilum.client.client import Client
from hilum.client.options import ConnectionOptions
from hilum.client.transport.channel import Sharing
from hilum.client.transport.cuda import CudaMemory, as_device_array, device_of
from hilum.client.transport.regions import Pool
from hilum.client.transport.request import Request
from hilum.client.transport.system import PREFIX, SystemMemory, SystemRegion

X = np.arange(16, dtype=np.float32)[None]
IMAGES = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), np.uint8)
SMALL = Request("small", {"x": X}, ("y",), 10.0, {"y": ("FP32", (1, 16))})
FOLDER = Path("/dev/shm")  # noqa: S108 - where shared memory lives


class KeptRegion(SystemRegion):
    """Memory that must not go before the server lets go of it, as a GPU's must not."""

    def retire(self) -> None:
        """Nothing goes."""


class Kept(SystemMemory):
    """Regions of the host that are given up as those of a GPU."""

    def make(self, size: int) -> KeptRegion:
        """A new region."""
        return KeptRegion(size)


class ForeignRegion(SystemRegion):
    """A region that is registered with the server as a GPU's, with a handle of no allocation."""

    def registration(self) -> dict[str, Any]:
        """Arguments of the call that registers it."""
        handle = base64.b64encode(bytes(range(64)))
        return {
            "name": self.name, "raw_handle": handle, "device_id": 0, "byte_size": self.size,
        }  # fmt: skip


class Foreign(SystemMemory):
    """A kind of memory that a server without a GPU cannot open."""

    name = "cuda"
    noun = "CUDA shared memory"

    def make(self, size: int) -> ForeignRegion:
        """A new region."""
        return ForeignRegion(size)

    def register(self, stub: InferenceServerClient) -> Any:
        """The call that makes a region of a GPU known to the server."""
        return stub.register_cuda_shared_memory


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.mark.parametrize("memory", [SystemMemory(), Kept()])
def test_one_region_serves_many_requests(client: Client, memory: SystemMemory) -> None:
    sharing = Sharing(memory, client.options)
    for _ in range(3):
        answer = client.drive(sharing.attempt(SMALL))
        assert answer is not None
        np.testing.assert_array_equal(answer.outputs["y"], X)
    assert len(sharing) == 1
    client.drive(sharing.close())
    assert len(sharing) == 0


def test_memory_outlives_what_the_server_still_writes(client: Client) -> None:
    made: list[KeptRegion] = []

    class Noted(Kept):
        def make(self, size: int) -> KeptRegion:
            made.append(super().make(size))
            return made[-1]

    sharing = Sharing(Noted(), client.options)
    slow = Request("slow", {"seconds": np.float32([0.5])}, ("done",), 0.1,
                   {"done": ("FP32", (100_000,))})  # fmt: skip
    with pytest.raises(InferenceServerException, match="Deadline"):
        client.drive(sharing.attempt(slow))
    (region,) = made
    assert len(sharing) == 0
    assert (FOLDER / region.name).exists()  # it is given up, and there
    time.sleep(0.6)
    client.drive(sharing.close())
    assert not (FOLDER / region.name).exists()


def test_a_server_without_a_gpu_refuses(client: Client) -> None:
    sharing = Sharing(Foreign(), client.options)
    for _ in range(2):
        assert client.drive(sharing.attempt(SMALL)) is None
    assert not sharing.accepted
    assert sharing.obstacle is not None
    assert "does not take CUDA shared memory" in sharing.obstacle
    assert len(sharing) == 0

    demanding = Sharing(Foreign(), ConnectionOptions(client.options.url, transport="cuda"))
    with pytest.raises(ConnectionFailed, match=r"CUDA shared memory was asked for.*'auto'"):
        client.drive(demanding.attempt(SMALL))


def test_arrays_on_the_host_never_come_near_a_gpu(url: str) -> None:
    assert as_device_array(X) is None
    assert as_device_array([1.0]) is None
    assert device_of({"x": X}) is None
    for transport in ("auto", "cuda"):
        with Client(url, transport=transport) as client:
            answer = client.infer("small", {"x": X}, ["y"])
            assert answer.transport == client.transport == "shm"
            assert "CUDA" not in client.transport_reason


def test_arrays_of_other_libraries_on_the_host(url: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(X)
    assert as_device_array(tensor) is None
    with Client(url) as client:
        np.testing.assert_array_equal(client.infer("small", {"x": tensor}, ["y"]).outputs["y"], X)


@pytest.mark.gpu
@pytest.mark.parametrize("transport", ["cuda", "shm", "grpc"])
def test_all_ways_give_the_same(cupy: Any, url: str, transport: str) -> None:
    turned = IMAGES.transpose(0, 2, 1, 3)  # not contiguous
    with Client(url, transport=transport) as client:
        for images in (IMAGES, turned, IMAGES[:1]):
            answer = client.infer("picture", {"image": cupy.asarray(images)}, ["doubled"])
            assert answer.transport == transport
            found = answer.outputs["doubled"]
            assert isinstance(found, cupy.ndarray) == (transport == "cuda")
            expected = np.concatenate([images, images], axis=1)
            np.testing.assert_array_equal(cupy.asnumpy(found), expected)


@pytest.mark.gpu
def test_a_region_of_a_gpu_is_registered_once(
    cupy: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is copied to the host on the way."""
    image = cupy.asarray(IMAGES)
    with Client(url, transport="cuda") as client:
        status = client._stub.get_cuda_shared_memory_status
        monkeypatch.setattr("hilum.client.transport.on_host", None)
        answers = [client.infer("picture", {"image": image}, ["doubled"]) for _ in range(5)]
        assert [n for n in status().regions if n.startswith(PREFIX)] != []
        assert client.session.transport.regions == len(status().regions) == 1
        for answer in answers:  # none of them shares memory with a later request
            np.testing.assert_array_equal(cupy.asnumpy(answer.outputs["doubled"])[:, :64], IMAGES)
    with Client(url) as other:
        other.models()
        assert not other._stub.get_cuda_shared_memory_status().regions


@pytest.mark.gpu
def test_copies_wait_for_the_callers_stream(cupy: Any, url: str) -> None:
    with Client(url, transport="cuda") as client, cupy.cuda.Stream(non_blocking=True):
        for n in range(20):
            x = cupy.zeros((1, 16), cupy.float32)
            for _ in range(200):
                x += 1
            answer = client.infer("small", {"x": x + n}, ["y"])
            assert float(answer.outputs["y"].sum()) == 16 * (200 + n)


@pytest.mark.gpu
def test_a_pool_of_a_gpu_frees_its_memory(cupy: Any) -> None:
    pool = Pool(CudaMemory(0), 1 << 22)
    first, second = pool.acquire(1), pool.acquire(1)
    assert first is not None and second is not None
    assert (FOLDER / first.name).exists()
    assert pool.acquire(1) is None
    pool.release(first)
    assert pool.acquire(1) is first
    pool.drop(first)
    assert not (FOLDER / first.name).exists()
    assert pool.close() == []
    assert not (FOLDER / second.name).exists()


@pytest.mark.gpu
def test_inputs_on_several_gpus_are_refused(cupy: Any) -> None:
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one GPU only")
    with cupy.cuda.Device(1):
        other = cupy.zeros(1)
    with pytest.raises(InferenceFailed, match="several GPUs"):
        device_of({"a": cupy.zeros(1), "b": other})
