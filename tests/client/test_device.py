"""Where arrays are worked on: `--device`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import called, report_of

from hilum.catalog.errors import InputError
from hilum.client.client import Client
from hilum.client.device import CPU, Device
from hilum.client.registry import INSTALLED
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.server.launcher import TritonServer

without_cupy = pytest.mark.skipif(find_spec("cupy") is not None, reason="CuPy is installed here")


def test_the_processors() -> None:
    assert Device.of("cpu") == Device.of(CPU) == CPU
    assert str(CPU) == "cpu"
    assert CPU.array_module is np
    array = np.arange(3)
    assert CPU.put(array) is array


@without_cupy
def test_without_a_gpu() -> None:
    assert Device.of("auto") == CPU
    with pytest.raises(InputError, match=r"cuda:0 cannot be used: .*extra 'gpu'.*device cpu"):
        Device.of("cuda:0")


def test_why_cupy_cannot_be_used_is_reported_in_a_line(tmp_path: Path) -> None:
    """CuPy wraps what fails below it in a page of advice; doctor tells the cause."""
    (tmp_path / "cupy.py").write_text(
        "try:\n    raise ImportError('numpy.core failed\\nto import')\n"
        "except ImportError as low:\n    raise ImportError('=====\\nadvice\\n=====') from low\n"
    )
    program = "from hilum.cli.doctor import _arrays; print(*map(str, _arrays(True)))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith("CuPy cannot be used (ImportError: numpy.core failed to import)")


@pytest.mark.parametrize(
    "text", ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:x", "CPU", "cuda:0 "]
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="choose auto, cpu or cuda:N"):
        Device.of(text)


def test_which_systems_take_a_device() -> None:
    taking = {name for name, s in INSTALLED.items() if hasattr(s.options_type(), "device")}
    assert taking == {"cxr-severity", "dlpe"}
    with pytest.raises(InputError, match="choose auto, cpu or cuda:N"):
        INSTALLED["dlpe"].options_type(device="arrays")


def test_the_command_line(ct_server: TritonServer, tmp_path: Path) -> None:
    write_dicom_series(chest_ct(1, slices=3, size=64, lesions=0).volume, tmp_path / "scan")
    run = ["run", "lungmask", tmp_path / "scan", "--out", tmp_path / "out",
           "--url", ct_server.grpc_url, "--no-pictures"]  # fmt: skip
    done = called(*run)
    assert done.returncode == 0, done.stderr
    assert report_of(tmp_path / "out")["device"] == str(CPU)
    for given, words in (
        (["--device", "gpu"], "choose auto, cpu or cuda:N"),
        (["--device", "cpu", "--transport", "cuda"], "for arrays on a GPU"),
    ):
        refused = called(*run, *given)
        assert refused.returncode == 2
        assert words in " ".join(refused.stderr.split())


@pytest.mark.gpu
def test_what_is_computed_on_a_gpu(cupy: Any, url: str) -> None:
    """Inside `map`, too, and the current device and stream are the caller's own afterwards."""
    device, outside = Device.of("cuda:0"), cupy.cuda.get_current_stream()
    with Client(url) as client, device:
        assert cupy.cuda.get_current_stream() != outside
        found = client.calls().on(device).map(lambda n: _summed(cupy, n), range(8), 4)
    assert [total for total, _, _ in found] == [1000 * n for n in range(8)]
    assert {gpu for _, gpu, _ in found} == {0}
    assert all(stream != outside for _, _, stream in found)
    assert cupy.cuda.get_current_stream() == outside


def _summed(cupy: Any, n: int) -> tuple[int, int, object]:
    total = int(cupy.full(1000, n).sum())
    return total, cupy.cuda.Device().id, cupy.cuda.get_current_stream()


@pytest.mark.gpu
@pytest.mark.parametrize("transport", ["auto", "shm", "grpc"])
def test_dlpe_gives_the_same_on_a_gpu(cupy: Any, dlpe_server: TritonServer, transport: str) -> None:
    phantom = chest_ct(3, slices=40, size=96, lesions=4).volume
    with (
        Client(dlpe_server.grpc_url) as host,
        Client(dlpe_server.grpc_url, transport=transport) as client,
    ):
        expected = host.run("dlpe", phantom, grid=64)
        found = client.run("dlpe", phantom, grid=64, device="cuda:0")
    for name, mask in expected.masks.items():
        np.testing.assert_array_equal(found.masks[name], mask)
