"""The wheel, installed elsewhere, runs every system on a server, with nothing of the checkout."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from hilum.client.registry import INSTALLED
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_png
from hilum.server.launcher import TritonServer

SERVERS = {
    "cxr-severity": "standin_server",
    "dlpe": "dlpe_server",
    "covid-mtl": "mtl_server",
    "ct-angel": "angel_server",
    "ct-classifier": "ct_server",
    "lungmask": "ct_server",
}
OPTIONS = {
    "cxr-severity": ("--network", "manet"),
    "dlpe": ("--grid", "64"),
    "covid-mtl": ("--radiomics", "server"),
}


def test_no_system_is_left_out() -> None:
    assert set(SERVERS) == set(INSTALLED)


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An X-ray and a CT whose lungs have a plausible volume."""
    from mtl_studies import PLAUSIBLE, chest

    folder = tmp_path_factory.mktemp("studies")
    write_png(chest_xray(1), folder / "xray.png")
    write_dicom_series(chest(scale=PLAUSIBLE), folder / "series")
    return folder


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("system", "needs", "options"),
    [
        *((system, "python", OPTIONS.get(system, ())) for system in SERVERS),
        ("covid-mtl", "python_with_radiomics", ()),
    ],
)
def test_it_runs(
    request: pytest.FixtureRequest,
    system: str,
    needs: str,
    options: tuple[str, ...],
    studies: Path,
    tmp_path: Path,
) -> None:
    python: Path = request.getfixturevalue(needs)
    server: TritonServer = request.getfixturevalue(SERVERS[system])
    study = studies / ("xray.png" if system == "cxr-severity" else "series")
    words = ["run", system, study, "--url", server.grpc_url, "--out", tmp_path / "out"]
    done = subprocess.run(
        [python, "-I", python.parent / "hilum", *words, *options],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "out/report.json").read_text())["results"]
    assert result["status"] != "failed"
    assert all((tmp_path / "out" / file).stat().st_size for file in result["files"])
