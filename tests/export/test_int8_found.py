"""INT8 of networks that see what others find: found by the pipeline on a real server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlpe_checkpoints
import nibabel
import numpy as np
import onnxruntime as ort
import pytest
import torch
from typer.testing import CliRunner

from hilum.catalog import SYSTEMS
from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InputError
from hilum.cli import app
from hilum.client import Client
from hilum.export.calibration import Finder, Volumes
from hilum.export.repository import export_system
from hilum.export.store import import_weights
from hilum.export.systems.dlpe.network import UNet
from hilum.preprocessing.reading.series import Series, open_series
from hilum.server.launcher import TritonServer
from hilum.systems.dlpe import calibration as dlpe_found

SYSTEM = SYSTEMS["dlpe"]
GRID = 64
CHANNELS = {f"{t}_high_{k}" for t in ("airway", "vessel") for k in ("recall", "precision")}
TASKS = ("lung", "airway1", "vessel1", "visible", "airway2", "vessel2", "follow_up")
"""With networks in golden file 10."""


@pytest.fixture(scope="module")
def store(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks of golden file 10; the heart's are those of vessels, the roots' random."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("int8-found-store")
    file = golden / "dlpe" / "10_pipeline.npz"
    models = [catalog.TASKS[task].folder for task in TASKS]
    published = dlpe_checkpoints.write_published(folder / "trained_models", file, models)
    vessels = dlpe_checkpoints.golden_states(file)[catalog.TASKS["vessel1"].folder]
    for number, direction in enumerate(dlpe_checkpoints.DIRECTIONS):
        torch.manual_seed(number)
        root = UNet(catalog.TASKS["root"].channels, 3, width=4).state_dict()
        for task, state in (("heart", vessels[direction]), ("root", root)):
            path = published / catalog.TASKS[task].folder / direction / "best_model.pth"
            dlpe_checkpoints.write_checkpoint(path, state)
    import_weights(SYSTEM, published, folder / "store", allow_unknown=True)
    return folder / "store"


@pytest.fixture(scope="module")
def repository(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An earlier export: the networks that find something for others."""
    folder = tmp_path_factory.mktemp("int8-found-repository")
    networks = [n.name for n in dlpe_found.NETWORKS]
    networks += [f"visible_{d}" for d in catalog.DIRECTIONS]  # in the ensembles of stage one
    export_system(SYSTEM, repository=folder, networks=networks, weights="store", store=store)
    return folder


@pytest.fixture
def first_stage(repository: Path, tmp_path: Path) -> Path:
    """An earlier export of stage one only."""

    def others(folder: str, names: list[str]) -> list[str]:
        second = ("airway2", "vessel2", "heart")
        return names if any(f"dlpe_{task}_" in folder for task in second) else []

    return shutil.copytree(repository, tmp_path / "stage-one", ignore=others)


class Listening(Client):
    """A client that keeps what is sent to the models of stage two."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sent: dict[str, list[dict[str, np.ndarray]]] = {}

    def infer(self, model: str, inputs: Any, outputs: Any, **options: Any) -> Any:
        if "stage2" in model:
            self.sent.setdefault(model, []).append(dict(inputs))
        return super().infer(model, inputs, outputs, **options)


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[Listening]:
    with (
        TritonServer(repository, models=dlpe_found.MODELS[0], grace=0) as server,
        Listening(server.grpc_url) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def find(client: Client) -> Finder:
    def find(series: Series, grid: int) -> Volumes:
        return dlpe_found.found(series, client.calls(), grid=grid, device="cpu")

    return find


def test_found_is_what_the_pipeline_sends_in_a_run(
    client: Listening, find: Finder, study: Path
) -> None:
    found = find(open_series(study), GRID)
    client.sent.clear()
    run = {"grid": GRID, "cohort": "none", "visible": False, "skip": False, "device": "cpu"}
    result = client.run("dlpe", study, **run, slabs_in_flight=1)
    assert set(found) == CHANNELS | {"lung", "heart", "outer_vessel", "enhanced"}
    slabs = client.sent[catalog.ENSEMBLES["stage2", "z"].model]
    for name in CHANNELS:
        slices = np.concatenate([slab[name] for slab in slabs])
        np.testing.assert_array_equal(found[name], slices.transpose(1, 2, 0), err_msg=name)
        assert 0 < found[name].mean() < 0.1
    lung, vessel = result.masks["lung"], result.masks["vessel"]
    np.testing.assert_array_equal(found["lung"], lung)
    np.testing.assert_array_equal(found["outer_vessel"], vessel & ~lung)
    np.testing.assert_array_equal(found["enhanced"], result.enhancement.volume)
    assert found["enhanced"].any() and found["heart"].any()
    assert {found[name].dtype for name in set(found) - {"enhanced"}} == {np.dtype(np.uint8)}


@dataclass(frozen=True)
class Made:
    """An INT8 export, and what its finder gave."""

    repository: Path
    certificates: dict[str, dict[str, Any]]
    found: list[Volumes]


@pytest.fixture(scope="module")
def made(store: Path, find: Finder, study: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, found = tmp_path_factory.mktemp("int8-found-made"), list[Volumes]()

    def finder(series: Series, grid: int) -> Volumes:
        found.append(find(series, grid))
        return found[-1]

    names = ["vessel1_x", "airway2_x", "follow_up_z", "root_x"]
    certificates = export_system(
        SYSTEM, repository=folder, networks=names, weights="store", store=store,
        precision="int8", calibration=[study], calibrate_with=lambda: nullcontext(finder),
        options={"calibration_grid": str(GRID)},
    )  # fmt: skip
    return Made(folder, {c["network"]: c for c in certificates}, found)


def test_networks_of_later_stages_are_calibrated_and_judged(made: Made) -> None:
    assert [volumes["lung"].shape for volumes in made.found] == [(GRID,) * 3]
    dice = {name: set(c["int8"]["dice"]) for name, c in made.certificates.items()}
    assert dice["airway2_x"] == {"airway"}
    assert dice["root_x"] == {"artery", "vein"}
    for name, certificate in made.certificates.items():
        told = certificate["int8"]
        lowest = min(told["dice"].values())
        least = 0.995 if name.startswith(("airway", "vessel")) else 0.99
        assert told["accepted"] == (lowest >= least) == (certificate["precision"] == "int8"), name
        assert told["accepted"] or f" {lowest:.4f}, less than {least}" in told["reason"]
        assert (told["series"], told["grid"]) == (1, GRID)
    assert made.certificates["follow_up_z"]["precision"] == "int8"
    assert made.certificates["airway2_x"]["precision"] == "fp32"
    assert not [p for p in made.repository.iterdir() if p.name.startswith(".")]


def test_an_int8_lesion_network_gives_the_mask_of_fp32_on_the_enhanced_volume(
    made: Made, store: Path, tmp_path: Path
) -> None:
    """Of the whole volume, not of the slabs that it was calibrated on."""
    export_system(
        SYSTEM, repository=tmp_path, networks=["follow_up_z"], weights="store", store=store
    )
    slab = {"slab": np.ascontiguousarray(made.found[0]["enhanced"].transpose(2, 0, 1))}
    full, own = (
        ort.InferenceSession(folder / "dlpe_follow_up_z" / "1" / "model.onnx").run(None, slab)[0]
        for folder in (tmp_path, made.repository)
    )
    a, b = full > 2 / 3, own > 2 / 3
    assert 0.01 < a.mean() < 0.99
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) >= 0.99
    assert np.abs(full - own).max() > 1e-4  # it is not the FP32 network


def test_a_series_without_lungs_is_reported_by_its_number(
    store: Path, find: Finder, tmp_path: Path
) -> None:
    water = np.zeros((64, 64, 64), np.int16)
    nibabel.save(nibabel.Nifti1Image(water, np.diag([-5.2, -5.2, 8, 1])), tmp_path / "secret.nii")
    with pytest.raises(InputError, match="series 1 of 1 cannot be used: no lung was found") as told:
        export_system(
            SYSTEM, repository=tmp_path / "models", networks=["airway2_x"], weights="store",
            store=store, precision="int8", calibration=[tmp_path / "secret.nii"],
            calibrate_with=lambda: nullcontext(find), options={"calibration_grid": str(GRID)},
        )  # fmt: skip
    assert "secret" not in str(told.value)
    assert not list((tmp_path / "models").iterdir())


def command(repository: Path, *more: object) -> Any:
    words = ["export", "dlpe", "--repository", repository, *more]
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


@pytest.mark.load
def test_the_command_starts_a_server_and_reports_what_it_cannot_find(
    first_stage: Path, store: Path, study: Path, tmp_path: Path
) -> None:
    done = command(
        tmp_path / "models", "--network", "airway2_x", "--network", "follow_up_x",
        "--store", store, "--precision", "int8", "--calibration", study,
        "--calibrate-with", first_stage, "--option", f"calibration_grid={GRID}",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "calibration series 1/1" in done.stderr
    lines = {line.split(":")[0]: line for line in done.stdout.splitlines()}
    assert "fp32, not INT8: Dice of airway 0." in lines["dlpe airway2_x"]
    wanted = "needs what the networks airway2 and vessel2 find, which the repository"
    assert wanted in lines["dlpe follow_up_x"]


def test_a_repository_that_cannot_serve_is_refused(
    first_stage: Path, study: Path, tmp_path: Path
) -> None:
    def refused(*more: object) -> str:
        done = command(tmp_path / "models", "--calibrate-with", first_stage, *more)
        assert done.exit_code == 2
        return " ".join(done.stderr.split())

    assert "--calibrate-with is for --precision int8" in refused("--weights", "random")
    int8 = ["--weights", "random", "--precision", "int8", "--calibration", study]
    file = first_stage / "dlpe_lung_z" / "1" / "certificate.json"
    certificate = json.loads(file.read_text())
    file.write_text(json.dumps({**certificate, "precision": "int8"}))
    assert "dlpe_lung_z are INT8 there" in refused(*int8)
    shutil.rmtree(file.parent)
    told = refused(*int8)
    assert "--calibrate-with: dlpe_stage1_" in told
    assert "hilum export dlpe --network lung_z" in told
    assert not list((tmp_path / "models").iterdir())
