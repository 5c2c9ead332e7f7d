"""What a worker asks of TensorRT and CuPy to run an engine; stand-ins answer without a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from hilum.catalog.errors import ExportError
from hilum.export.tensorrt.machine import TensorRT
from hilum.export.tensorrt.supervise import VARIABLE, Limits

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is not None for name in ("tensorrt", "cupy")),
    reason="the libraries themselves are installed here",
)

TENSORRT = '''
import ctypes

import numpy as np

__version__ = "11.0.0.1"


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


def nptype(dtype):
    return dtype


class Engine:
    """Doubles `x`, float32 [N, 3] with 1 to 4 or 5 to 8 items."""

    num_io_tensors = 2
    num_optimization_profiles = 2

    def get_device_memory_size_for_profile_v2(self, profile):
        return (123 << 20, 234 << 20)[profile]

    def get_tensor_name(self, index):
        return ("x", "y")[index]

    def get_tensor_dtype(self, name):
        return np.float32

    def get_tensor_profile_shape(self, name, profile):
        return [((1, 3), (4, 3), (4, 3)), ((5, 3), (8, 3), (8, 3))][profile]

    def create_execution_context(self):
        return Context()


class Context:
    def __init__(self):
        self.address = {}

    def set_optimization_profile_async(self, profile, stream):
        self.least = (1, 5)[profile]

    def set_input_shape(self, name, shape):
        self.shape = shape
        return self.least <= shape[0] < self.least + 4

    def get_tensor_shape(self, name):
        return self.shape

    def set_tensor_address(self, name, address):
        self.address[name] = address

    def execute_async_v3(self, stream):
        count = int(np.prod(self.shape))
        x, y = (
            np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.address[name]))
            for name in "xy"
        )
        y[:] = 2 * x
        return True


class Runtime:
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, plan):
        return Engine() if plan == b"an engine" else None
'''

CUPY = """
import contextlib
import types

import numpy as np


class Array(np.ndarray):
    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)


class Stream(contextlib.nullcontext):
    ptr = 0

    def __init__(self, non_blocking):
        super().__init__()

    def synchronize(self):
        pass


cuda = types.SimpleNamespace(Stream=Stream)


def asarray(array):
    return np.asarray(array).view(Array)


def ascontiguousarray(array):
    return np.ascontiguousarray(array).view(Array)


def empty(shape, dtype):
    return np.empty(shape, dtype).view(Array)


def asnumpy(array):
    return np.array(array)
"""


@pytest.fixture
def tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorRT:
    folder = tmp_path / "stand-ins"
    folder.mkdir()
    (folder / "tensorrt.py").write_text(TENSORRT)
    (folder / "cupy.py").write_text(CUPY)
    monkeypatch.setenv(VARIABLE, str(folder))
    return TensorRT(Limits(60, 1 << 34), tmp_path)


def stored(folder: Path, items: int) -> tuple[np.ndarray, Path]:
    x = np.arange(items * 3, dtype=np.float32).reshape(items, 3)
    np.savez(folder / "reference.npz", **{"input/x": x, "output/y": 2 * x})
    return x, folder / "reference.npz"


@pytest.mark.parametrize("items", [2, 8])
def test_a_run_gives_outputs_and_the_memory_of_contexts(
    tensorrt: TensorRT, tmp_path: Path, items: int
) -> None:
    x, reference = stored(tmp_path, items)
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"an engine")
    tried = tensorrt.run(plan, reference, "input/")
    assert tried is not None
    assert tried.context_bytes == [123 << 20, 234 << 20]
    assert set(tried.outputs) == {"y"}
    np.testing.assert_array_equal(tried.outputs["y"], 2 * x)


@pytest.mark.parametrize(
    ("plan", "items", "told"),
    [
        (b"no engine", 2, "the engine cannot be loaded"),
        (b"an engine", 9, r"no profile of the engine takes {'x': \[9, 3\]}"),
    ],
)
def test_an_engine_that_does_not_run_is_reported(
    tensorrt: TensorRT, tmp_path: Path, plan: bytes, items: int, told: str
) -> None:
    _, reference = stored(tmp_path, items)
    (tmp_path / "model.plan").write_bytes(plan)
    with pytest.raises(ExportError, match=f"the engine does not run: .*{told}"):
        tensorrt.run(tmp_path / "model.plan", reference, "input/")
