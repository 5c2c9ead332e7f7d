"""Desks of these tests; skipped where the extra or the viewer is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from desks import EVIL, USED, Caller, described_as, operations, served
from server_pool import borrowed

from hilum.catalog import SYSTEMS
from hilum.catalog import cxr_severity as cxr
from hilum.desk.limits import Limits
from hilum.desk.web import VIEWER
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.server.launcher import TritonServer

if TYPE_CHECKING:
    from browsers import Browser

SMALL = Limits(study_bytes=300_000, file_bytes=200_000, files=20, open_uploads=3, jobs=2, idle_s=1)


@pytest.fixture(scope="session", autouse=True)
def viewer() -> None:
    if not VIEWER.is_file():
        pytest.skip("the viewer is not there: make desk")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Caller]:
    """A desk with small limits that runs nothing."""
    with served(tmp_path / "desk", SMALL) as caller:
        yield caller


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of the page."""
    from browsers import browser

    with browser(tmp_path_factory.mktemp("downloads")) as opened:
        yield opened


@pytest.fixture
def well_behaved(page: Browser, started_desk: tuple[Caller, str]) -> Iterator[None]:
    """A test may not break the content policy, ask what is not described, or leave an error."""
    yield
    assert page.js("return window.violations") == []
    origin = f"http://127.0.0.1:{started_desk[0].port}"
    asked = page.requests()
    own = (f"{origin}/", f"blob:{origin}/", "data:")
    assert [url for _, url in asked if not url.startswith(own)] == []
    called = {(how, url.removeprefix(origin)) for how, url in asked if f"{origin}/api" in url}
    described = operations(started_desk[0])
    found = {call: described_as(*call, described) for call in called}
    assert [call for call, operation in found.items() if operation is None] == []
    USED.update(filter(None, found.values()))
    severe = [e["message"] for e in page.driver.get_log("browser") if e["level"] == "SEVERE"]
    assert severe == []


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("ct")
    write_dicom_series(chest_ct(3, slices=24, size=96, lesions=4).volume, folder)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def evil(ct: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The CT of a patient whose every text is markup, in files with such names."""
    import pydicom

    folder = tmp_path_factory.mktemp("evil")
    for number, path in enumerate(ct):
        dataset = pydicom.dcmread(path)
        for tag in ("PatientName", "PatientID", "SeriesDescription", "StudyDescription",
                    "ProtocolName", "InstitutionName", "OperatorsName"):  # fmt: skip
            setattr(dataset, tag, EVIL)
        dataset.save_as(folder / f"<img src=x onerror=document.title='evil'>{number}.dcm")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def desk_repository(ct_cores: dict[str, Path]) -> Path:
    """Small networks of four systems."""
    import exports

    return exports.cached("desk", lambda folder: _export(folder, ct_cores)) / "repository"


def _export(folder: Path, ct_cores: dict[str, Path]) -> None:
    import standins

    from hilum.export.repository import export_system

    files = {
        "cxr-severity": {
            "lung": standins.write_lung(folder / "lung.onnx"),
            "manet": standins.write_disease(folder / "manet.onnx", 544, 0.9),
        },
        "lungmask": {"r231": ct_cores["r231"]},
        "ct-classifier": {"raw_hu": ct_cores["raw_hu"]},
        "ct-angel": {"lesion": standins.write_ct_angel(folder / "lesion.onnx", 512)},
    }
    for system, onnx in files.items():
        export_system(SYSTEMS[system], repository=folder / "repository", onnx=onnx)


@pytest.fixture(scope="module")
def desk_server(desk_repository: Path) -> Iterator[TritonServer]:
    """A running Triton with all of them."""
    models = ["lungmask_r231", "ct_densenet", "ct_angel_lesion", cxr.ENSEMBLES["manet"].model]
    with borrowed("desk", desk_repository, models) as server:
        yield server
