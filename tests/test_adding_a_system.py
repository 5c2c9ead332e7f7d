"""docs/how-to/adding-a-system.md, followed to the letter in an empty package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from manual import whole

from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.volume import Volume
from hilum.server.launcher import TritonServer

PAGE = (Path(__file__).parents[1] / "docs/how-to/adding-a-system.md").read_text()
FILES = re.findall(r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
PROGRAM = re.findall(r"```python\n(from hilum import Client.*?)```", PAGE, re.DOTALL)

BLOCKS = whole(
    "docs/how-to/adding-a-system.md",
    "toml", "python", "python", "python", "python", "python", "python", "python", "python",
    "python", "sh", "python",
)  # fmt: skip

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def volume() -> Volume:
    return chest_ct(1, slices=5, size=96, lesions=0).volume


@pytest.fixture(scope="module")
def package(volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hilum-laa")
    for name, text in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    write_dicom_series(volume, folder / "scans")
    return folder


@pytest.fixture(scope="module")
def run(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command of the page in the package's folder; pip installs beside this environment."""
    site = tmp_path_factory.mktemp("site")
    tools = Path(sys.executable).parent
    environment = {
        **os.environ, "PYTHONPATH": str(site), "PATH": f"{tools}:{os.environ['PATH']}",
        "PIP_TARGET": str(site), "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1",
    }  # fmt: skip

    def command(line: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = line.split()
        words[:1] = [sys.executable, "-m", "pip"] if words[0] == "pip" else words[:1]
        done = subprocess.run(
            [*words, *more], cwd=package, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return command


@pytest.fixture(scope="module")
def server(run: Run, package: Path) -> Iterator[TritonServer]:
    install, write, _ = COMMANDS[0].splitlines()
    run(install)
    run(write)
    with TritonServer(package / "models", grace=0) as server:
        yield server


def test_every_block_of_the_page_is_used() -> None:
    assert len(BLOCKS) == len(FILES) + len(COMMANDS) + len(PROGRAM)


def share(volume: Volume) -> float:
    return np.count_nonzero(volume.voxels < -950) / np.count_nonzero(volume.voxels < -500)


def test_the_command_line_runs_the_system(
    server: TritonServer, run: Run, package: Path, volume: Volume
) -> None:
    line = COMMANDS[0].splitlines()[-1].replace("--repository models", f"--url {server.grpc_url}")
    done = run(line, "--json")
    (entry,) = json.loads(done.stdout)["results"]
    assert entry["status"] == "ok"
    assert entry["share"] == pytest.approx(share(volume), rel=1e-6)
    written = {path.name for path in (package / "results").rglob("*")}
    assert {"laa.csv", "laa.png", "report.json"} <= written
    help_text = run("hilum run laa --help").stdout
    assert "--slices-in-flight" in help_text


def test_a_program_runs_the_system(
    server: TritonServer, run: Run, package: Path, volume: Volume
) -> None:
    (program,) = PROGRAM
    (package / "program.py").write_text(program.replace("localhost:8001", server.grpc_url))
    done = run(f"{sys.executable} program.py")
    assert float(done.stdout.splitlines()[0]) == pytest.approx(share(volume), rel=1e-6)


def test_the_system_has_its_name_and_its_picture(
    server: TritonServer, run: Run, package: Path
) -> None:
    (package / "by_name.py").write_text(
        "from hilum.client import Client\n"
        f"with Client({server.grpc_url!r}) as client:\n"
        "    shown = client.run('laa', 'scans', slices_in_flight=2)._repr_html_()\n"
        "print('data:image/png;base64,' in shown)\n"
    )
    assert run(f"{sys.executable} by_name.py").stdout == "True\n"
