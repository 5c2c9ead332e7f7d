"""`--precision int8` from a CT to a server: who becomes INT8, who falls back, what is told."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dlpe_checkpoints
import nibabel
import numpy as np
import onnxruntime as ort
import pytest
import torch
from typer.testing import CliRunner

from hilum.catalog import SYSTEMS, at_precision
from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InputError
from hilum.cli import app
from hilum.client import Client
from hilum.export import openvino
from hilum.export.check import check_repository
from hilum.export.repository import export_system
from hilum.export.store import import_weights
from hilum.export.systems.dlpe import phantom as dlpe_phantom
from hilum.server.launcher import TritonServer

SYSTEM = SYSTEMS["dlpe"]
NETWORKS = ["lung_z", "airway1_z", "visible_z", "airway2_z"]
GRID = {"calibration_grid": "64"}


@pytest.fixture(scope="module")
def store(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks of golden file 10 as imported weights."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("int8-store")
    file = golden / "dlpe" / "10_pipeline.npz"
    models = [catalog.TASKS[task].folder for task in ("lung", "airway1", "visible", "airway2")]
    published = dlpe_checkpoints.write_published(folder / "trained_models", file, models)
    import_weights(SYSTEM, published, folder / "store", allow_unknown=True)
    return folder / "store"


def export(store: Path, repository: Path, **chosen: Any) -> dict[str, dict[str, Any]]:
    given = {"weights": "store", "store": store, "networks": NETWORKS, "options": GRID, **chosen}
    found = export_system(SYSTEM, repository=repository, **given)
    return {certificate["network"]: certificate for certificate in found}


@pytest.fixture(scope="module")
def repositories(
    store: Path, study: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("int8-repositories")
    export(store, folder / "fp32", networks=["lung_z", "visible_z"], options={})
    export(store, folder / "int8", precision="int8", calibration=[study], fallback="fp16")
    return {name: folder / name for name in ("fp32", "int8")}


def certificates(repository: Path) -> dict[str, dict[str, Any]]:
    return {
        name: json.loads(file.read_text())
        for name in NETWORKS
        if (file := repository / f"dlpe_{name}" / "1" / "certificate.json").is_file()
    }


def test_certificates_say_who_is_int8_and_why_others_are_not(
    repositories: dict[str, Path],
) -> None:
    found = certificates(repositories["int8"])
    told = {name: c["precision"] for name, c in found.items()}
    assert told == {"lung_z": "int8", "visible_z": "int8", "airway1_z": "fp16", "airway2_z": "fp16"}
    for name in ("lung_z", "visible_z"):
        int8 = found[name]["int8"]
        assert int8["accepted"] and int8["reason"] == ""
        assert min(int8["dice"].values()) >= int8["least_dice"]
        assert int8["least_dice"] == (0.995 if name == "lung_z" else 0.99)
        assert (int8["series"], int8["grid"]) == (1, 64)
        assert int8["calibration_slices"] > int8["held_out_slices"] > 0
    assert "less than 0.99" in found["airway1_z"]["int8"]["reason"]
    assert "what other networks found" in found["airway2_z"]["int8"]["reason"]
    assert "--calibrate-with" in found["airway2_z"]["int8"]["reason"]
    assert "int8" not in certificates(repositories["fp32"])["lung_z"]
    # Nothing of the user's images stays.
    assert not [p for p in repositories["int8"].iterdir() if p.name.startswith(".")]


def test_int8_takes_and_gives_what_the_fallback_does(repositories: dict[str, Path]) -> None:
    half = at_precision(SYSTEM, "fp16")
    assert len(certificates(repositories["int8"])) == len(NETWORKS)
    for name, found in certificates(repositories["int8"]).items():
        wanted = {t.name: t.dtype for t in half.network(name).inputs}
        assert {t["name"]: t["dtype"] for t in found["inputs"]} == wanted
        assert wanted["slab"] == "FP16"
        assert {t["dtype"] for t in found["outputs"]} == {"FP32"}
    errors = [f for f in check_repository(repositories["int8"], [SYSTEM]) if f.severity == "error"]
    assert errors == []
    sizes = {
        kind: (repositories[kind] / "dlpe_lung_z" / "1" / "model.onnx").stat().st_size
        for kind in repositories
    }
    assert sizes["int8"] < 0.4 * sizes["fp32"]


def test_a_server_gives_the_masks_of_fp32(repositories: dict[str, Path]) -> None:
    """On a patient that the networks were not calibrated on."""
    ct = dlpe_phantom.phantom(11, 64).volumes["ct"].transpose(2, 0, 1)[20:40]
    slab = np.ascontiguousarray(ct, np.float16)
    models = ["dlpe_lung_z", "dlpe_visible_z"]
    with (
        TritonServer(repositories["int8"], models=models, grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        answers = {m: client.infer(m, {"slab": slab}, ["probability"]).outputs for m in models}
    for model in models:
        served = answers[model]["probability"]
        assert (served.shape, served.dtype) == ((10, 64, 64), np.float32)
        files = {k: folder / model / "1" / "model.onnx" for k, folder in repositories.items()}
        (own,) = ort.InferenceSession(files["int8"]).run(None, {"slab": slab})
        np.testing.assert_allclose(served, own, atol=1e-5)
        (full,) = ort.InferenceSession(files["fp32"]).run(None, {"slab": slab.astype(np.float32)})
        a, b = served > 2 / 3, np.asarray(full) > 2 / 3
        assert 0.02 < b.mean() < 0.98
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) >= 0.995
        assert np.abs(served - full).max() > 1e-4  # it is not the FP32 network


def test_openvino_judges_what_it_serves_and_falls_back_to_bfloat16(
    store: Path, study: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    found = export(
        store, tmp_path, networks=["visible_z", "airway2_z"], target="openvino", precision="int8",
        calibration=[study], fallback="bf16",
    )  # fmt: skip
    small, other = found["visible_z"], found["airway2_z"]
    assert (small["precision"], small["served_by"]) == ("int8", "openvino")
    assert "bf16" not in small
    assert other["precision"] == ("bf16" if openvino.computes_bf16() else "fp32")
    assert not other["int8"]["accepted"]
    ct = dlpe_phantom.phantom(11, 64).volumes["ct"].transpose(2, 0, 1)[20:40]
    slab = np.ascontiguousarray(ct, np.float32)
    with (
        TritonServer(tmp_path, models=["dlpe_visible_z"], grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        answer = client.infer("dlpe_visible_z", {"slab": slab}, ["probability"])
    file = tmp_path / "dlpe_visible_z" / "1" / "model.onnx"
    (own,) = openvino.Session(file.read_bytes(), "it").run(["probability"], {"slab": slab})
    np.testing.assert_allclose(answer.outputs["probability"], own, atol=1e-5)


def test_bfloat16_is_judged_by_the_masks_of_a_series(
    store: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the processor has none OpenVINO rounds as the file says, and computes in FP32."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(openvino, "computes_bf16", lambda: True)

    def judged(weights: str, *names: str) -> list[tuple[str, dict[str, Any]]]:
        found = export(
            store, tmp_path / weights, networks=names, target="openvino", precision="bf16",
            calibration=[study], weights=weights,
        )  # fmt: skip
        return [(found[name]["precision"], found[name]["bf16"]) for name in names]

    (visible, of_visible), (airway, of_airway) = judged("store", "visible_z", "airway2_z")
    assert visible == airway == "bf16"
    assert of_visible["accepted"]
    assert of_visible["dice"]["lesion"] >= of_visible["least_dice"] == 0.99
    assert of_visible["mean_difference"] > 0
    assert of_airway == {"accepted": True, "reason": None}  # sees more than a CT
    ((precision, refused),) = judged("random", "lung_z")
    assert precision == "fp32"
    assert not refused["accepted"]
    assert refused["reason"].startswith("Dice of lung 0.")


def test_a_series_of_air_makes_no_network_int8(store: Path, tmp_path: Path) -> None:
    air = np.random.default_rng(0).normal(-1000, 15, (64, 64, 64)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(air, np.diag([-5.6, -5.6, 4.7, 1])), tmp_path / "air.nii")
    steps: list[str] = []
    found = export(
        store,
        tmp_path / "repository",
        precision="int8",
        calibration=[tmp_path / "air.nii"],
        networks=["lung_z", "visible_z"],
        progress=lambda name, step: steps.append(f"{name}: {step}"),
    )
    assert {c["precision"] for c in found.values()} == {"fp32"}
    for name, certificate in found.items():
        assert not certificate["int8"]["accepted"]
        assert f"{name}: stays fp32: {certificate['int8']['reason']}" in steps
        assert certificate["parity"]["largest_difference"]["core logits"] <= 1e-4


def test_an_engine_is_planned_from_the_int8_graph(store: Path, study: Path, tmp_path: Path) -> None:
    found = export(
        store,
        tmp_path,
        precision="int8",
        calibration=[study],
        networks=["lung_z", "airway2_z"],
        target="tensorrt",
    )
    plan = json.loads((tmp_path / "engines.json").read_text())["engines"]
    assert plan["dlpe_lung_z"]["precision"] == "int8"
    assert plan["dlpe_airway2_z"]["precision"] == "fp32"
    assert plan["dlpe_lung_z"]["onnx_sha256"] == found["lung_z"]["file"]["sha256"]
    assert "tf32 off" in plan["dlpe_lung_z"]["flags"]
    with np.load(tmp_path / "dlpe_lung_z" / "1" / "reference.npz") as stored:
        (own,) = ort.InferenceSession(tmp_path / "dlpe_lung_z" / "1" / "model.onnx").run(
            None, {"slab": stored["input/slab"]}
        )
        np.testing.assert_array_equal(own, stored["output/probability"])


@pytest.mark.parametrize(
    ("system", "chosen", "message"),
    [
        ("dlpe", {"precision": "int8"}, "needs --calibration"),
        ("dlpe", {"calibration": [Path("study")]}, "--calibration is for --precision int8"),
        ("dlpe", {"calibrate_with": nullcontext}, "--calibrate-with is for --precision int8"),
        (
            "lungmask",
            {"precision": "int8", "calibration": [Path("study")]},
            "for the networks of dlpe, not of lungmask",
        ),
        (
            "dlpe",
            {
                "precision": "int8",
                "calibration": [Path("study")],
                "onnx": {"lung_z": Path("lung.onnx")},
            },
            "not quantised",
        ),
        (
            "dlpe",
            {"precision": "int8", "calibration": [Path("nowhere")]},
            "calibration series 1 of 1 cannot be used",
        ),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_exported(
    system: str, chosen: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export_system(SYSTEMS[system], repository=tmp_path / "repository", **chosen)
    assert not list(tmp_path.glob("repository/*")) and not list(tmp_path.glob("repository/.*"))


def test_the_command_reports_what_became_of_each_network(
    store: Path, study: Path, tmp_path: Path
) -> None:
    def command(*more: object) -> Any:
        words = ["export", "dlpe", "--repository", tmp_path, "--precision", "int8", *more]
        return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)

    refused = command()
    assert refused.exit_code == 2
    assert "--calibration" in refused.stderr
    networks = [word for name in ("lung_x", "airway1_x") for word in ("--network", name)]
    done = command(
        *networks, "--store", store, "--calibration", study, "--option", "calibration_grid=64"
    )
    assert done.exit_code == 0, done.stderr
    lines = {line.split(":")[0]: line for line in done.stdout.splitlines()}
    assert "INT8, Dice" in lines["dlpe lung_x"]
    assert "fp32, not INT8: Dice of airway" in lines["dlpe airway1_x"]
