"""The base install in an empty environment: size, start, doctor, and what it does not hold."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

LIMIT_MB = 430
"""Of what the packages bring, with the bytecode that pip writes."""

ABSENT = {
    "imageio", "ml_dtypes", "networkx", "onnx", "onnxruntime", "pylibjpeg_libjpeg", "pywt",
    "radiomics", "scipy", "skimage", "torch",
}  # fmt: skip

IMPORT = """
import sys, time
start = time.perf_counter()
import hilum.client
print(time.perf_counter() - start)
from hilum.client import AsyncClient, Client, ClientPool
print(*sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""

CLIENT = {
    "google", "grpc", "hilum", "numpy", "packaging", "rapidjson", "tritonclient",
    "typing_extensions",
}  # fmt: skip
"""What a client imports: NumPy, grpcio, tritonclient, and what these need."""


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments], capture_output=True, text=True, check=False, cwd=python.parent
    )


def hilum(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(python, str(python.parent / "hilum"), *arguments)


def test_it_is_small_and_holds_nothing_of_the_extras(python: Path) -> None:
    (packages,) = (python.parents[1] / "lib").glob("python3*/site-packages")
    own = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    files = [
        path
        for top in packages.iterdir()
        if not top.name.startswith(own)
        for path in (top.rglob("*") if top.is_dir() else [top])
        if path.is_file()
    ]
    # As `du` counts: whole blocks.
    size = sum(path.stat().st_blocks * 512 for path in files) / 1e6
    assert 200 < size < LIMIT_MB
    assert not ABSENT & {path.name for path in packages.iterdir()}


def test_a_client_starts_at_once_with_few_libraries(python: Path) -> None:
    times = []
    for _ in range(5):
        seconds, names = run(python, "-c", IMPORT).stdout.splitlines()
        times.append(float(seconds))
    assert min(times) < 0.15
    loaded = {n for n in names.split() if not n.startswith(("_", "sitecustomize"))}
    assert loaded - CLIENT <= {"cython_runtime", "distutils", "numpy_distutils_hack"}


def test_doctor_is_green_on_a_client(python: Path, tmp_path: Path) -> None:
    done = hilum(python, "doctor", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["usable"]) == (0, True)
    assert "problem" not in {finding["level"] for finding in found["findings"]}
    decoders = next(f["what"] for f in found["findings"] if f["what"].startswith("DICOM: "))
    for syntax in ("JPEG Lossless", "JPEG-LS", "JPEG 2000", "High-Throughput", "RLE Lossless"):
        assert syntax in decoders


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("export", "lungmask", "--weights", "random", "--repository", "models"), "export"),
        (("engines", "check"), "export"),
        (("bench", "cxr-severity", "--out", "bench"), "scipy"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_names_the_extra_that_it_needs(
    python: Path, arguments: tuple[str, ...], extra: str
) -> None:
    done = hilum(python, *arguments)
    assert done.returncode == 2
    assert f"pip install 'hilum[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_radiomics_name_their_extra_before_a_study_is_read(python: Path, tmp_path: Path) -> None:
    series = str(tmp_path / "series")
    assert hilum(python, "phantom", "ct", "--out", series, "--slices", "6").returncode == 0
    run = ("run", "covid-mtl", series, "--url", "localhost:1", "--out", str(tmp_path / "out"))
    done = hilum(python, *run, "--radiomics", "client")
    assert done.returncode == 2
    assert done.stderr.endswith("pip install 'hilum[radiomics]'\n")


def test_serve_names_what_brings_a_server(python: Path) -> None:
    done = hilum(python, "serve", "--repository", "models")
    assert done.returncode == 3
    assert "pip install 'hilum[server]'" in done.stderr


def test_every_system_answers_for_its_options(python: Path) -> None:
    for system in ("cxr-severity", "dlpe", "covid-mtl", "ct-angel", "ct-classifier", "lungmask"):
        assert hilum(python, "run", system, "--help").returncode == 0
