"""Networks that take HU, exported for engines: INT32 at the border, and the same answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ct_standins
import numpy as np
import onnxruntime as ort
import pytest

from hilum.catalog import SYSTEMS, at_precision
from hilum.catalog.errors import ExportError, InferenceFailed
from hilum.client import Client
from hilum.export.check import check_repository
from hilum.export.config import parse_config
from hilum.export.declarations import write_declarations
from hilum.export.repository import export_system
from hilum.export.tensorrt.build import Machine, build_engines
from hilum.export.tensorrt.plan import Engine, read_plan
from hilum.export.tensorrt.supervise import Outcome
from hilum.postprocessing.lungmask import masked_slice_step
from hilum.preprocessing.lungmask import prepare_slice
from hilum.preprocessing.nearest import resize_nearest
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.server.launcher import TritonServer

CLASSIFIER, LUNGS = SYSTEMS["ct-classifier"], SYSTEMS["lungmask"]
INT16, INT32 = "TYPE_INT16", "TYPE_INT32"


class NoGpu:
    """A builder whose engines all fail, so that ONNX Runtime serves the very same files."""

    def machine(self) -> Machine:
        return Machine("10.13.3.9", "NVIDIA H200", "9.0", "580.95.05")

    def build(self, engine: Engine, onnx: Path, plan: Path) -> Outcome:
        return Outcome(None, "there is no GPU", 0.1, 0)

    def run(self, plan: Path, reference: Path, prefix: str) -> None:
        return None


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cores")
    return {
        "r231": ct_standins.write_lung(folder / "r231.onnx"),
        "raw_hu": ct_standins.write_raw_hu(folder / "raw_hu.onnx"),
        "masked": ct_standins.write_masked(folder / "masked.onnx"),
    }


@pytest.fixture(scope="module")
def narrow(cores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("narrow") / "repository"
    export_system(CLASSIFIER, repository=folder, onnx=cores)
    return folder


@pytest.fixture(scope="module")
def wide(cores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide") / "repository"
    export_system(CLASSIFIER, repository=folder, onnx=cores, target="tensorrt")
    return folder


@pytest.fixture(scope="module")
def server(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """The wide repository after a build in which every engine failed."""
    served = tmp_path_factory.mktemp("served") / "repository"
    shutil.copytree(wide, served)
    assert {b.outcome for b in build_engines(served, NoGpu()).results} == {"failed"}
    with TritonServer(served, models=["ct_densenet", "ct_classifier_masked"], grace=1) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def slices() -> np.ndarray:
    """HU of slices through the lungs, with values that FP16 would round."""
    voxels = np.array(chest_ct(3, slices=12, size=512, lesions=6).volume.voxels[5:8])
    voxels[:, 200:216, 200:216] = np.arange(2049, 2049 + 256, dtype=np.int16).reshape(16, 16)
    return voxels


def types(repository: Path, model: str, way: str) -> dict[str, str]:
    config = parse_config((repository / model / "config.pbtxt").read_text())
    field = getattr(config, way)
    return {t.name: t.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[
        t.data_type].name for t in field}  # fmt: skip


def errors(repository: Path) -> list[str]:
    return [f.what for f in check_repository(repository, [CLASSIFIER]) if f.severity == "error"]


def in_process(repository: Path, model: str, **inputs: np.ndarray) -> dict[str, Any]:
    session = ort.InferenceSession(repository / model / "1" / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_an_export_for_engines_takes_int32_everywhere_hu_meets_a_network(wide: Path) -> None:
    for model in ("ct_densenet", "lungmask_r231"):
        engine = read_plan(wide)[model]
        assert (engine.served_by, engine.reason) == ("tensorrt", "")
        assert types(wide, model, "input") == {"hu": INT32}
        certificate = json.loads((wide / model / "1" / "certificate.json").read_text())
        assert [t["dtype"] for t in certificate["inputs"]] == ["INT32"]
        assert certificate["parity"]["batches"]
        with np.load(wide / model / "1" / "reference.npz") as stored:
            assert stored["input/hu"].dtype == np.int32
    # Between steps only what a network reads is wider; what clients send to the ensemble is not.
    assert types(wide, "ct_classifier_prepare", "output")["crop"] == INT32
    assert types(wide, "ct_classifier_prepare", "input") == {"hu": INT16}
    assert types(wide, "ct_classifier_masked", "input") == {"hu": INT16}
    assert types(wide, "ct_densenet_masked", "input") == {"image": "TYPE_UINT8"}
    assert errors(wide) == []


def test_a_wide_file_is_the_narrow_one_but_for_its_input(wide: Path, narrow: Path) -> None:
    hu = np.random.default_rng(1).integers(-32768, 32768, (2, 256, 256)).astype(np.int16)
    for model in ("ct_densenet", "lungmask_r231"):
        want = in_process(narrow, model, hu=hu)
        got = in_process(wide, model, hu=hu.astype(np.int32))
        for name, array in want.items():
            np.testing.assert_array_equal(got[name], array)


def test_the_server_answers_the_same_for_int32(
    client: Client, narrow: Path, slices: np.ndarray
) -> None:
    hu = np.stack([resize_nearest(s, (256, 256), "opencv") for s in slices])
    want = in_process(narrow, "ct_densenet", hu=hu)
    given = {"hu": hu.astype(np.int32)}
    got = client.infer("ct_densenet", given, ["probability", "logit", "cam"]).outputs
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-6, atol=1e-6)


def test_the_ensemble_still_takes_int16_and_answers_the_same(
    client: Client, narrow: Path, slices: np.ndarray
) -> None:
    names = ["logit", "lung"]
    got = client.infer("ct_classifier_masked", {"hu": slices}, names).outputs
    for index, hu in enumerate(slices):
        crop, box = prepare_slice(hu)
        label = in_process(narrow, "lungmask_r231", hu=crop[None])["label"][0]
        step = masked_slice_step(hu, label, np.array(box, np.int32))
        want = in_process(narrow, "ct_densenet_masked", image=step["image"][None])
        assert step["lung"].any()
        np.testing.assert_array_equal(got["lung"][index], step["lung"])
        np.testing.assert_allclose(got["logit"][index], want["logit"][0], rtol=1e-5, atol=1e-5)


def test_clients_send_what_the_server_reports(client: Client, narrow: Path) -> None:
    volume = chest_ct(4, slices=4, size=128, lesions=4).volume
    result = client.run("ct-classifier", volume)
    grid = np.arange(256) * 128 // 256
    hu = np.ascontiguousarray(volume.voxels[:, grid][:, :, grid])
    want = in_process(narrow, "ct_densenet", hu=hu)["logit"][:, 0]
    np.testing.assert_allclose([s.logit for s in result.slices], want, rtol=1e-5, atol=1e-5)
    assert result.lung is not None  # of lungmask_r231, which takes INT32 as well
    with pytest.raises(InferenceFailed, match="INT16"):
        client.infer("ct_densenet", {"hu": hu}, ["logit"])


def test_an_export_of_the_lungs_alone_takes_the_classifiers_steps_along(
    wide: Path, cores: dict[str, Path], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(wide, repository)
    lungs = {"r231": cores["r231"]}
    for target, crop in (("onnx", INT16), ("tensorrt", INT32)):
        export_system(LUNGS, repository=repository, onnx=lungs, target=target)
        assert types(repository, "lungmask_r231", "input") == {"hu": crop}
        assert types(repository, "ct_classifier_prepare", "output")["crop"] == crop
        assert errors(repository) == []
    alone = tmp_path / "alone"
    export_system(LUNGS, repository=alone, onnx=lungs, target="tensorrt")
    assert not (alone / "ct_classifier_prepare").exists()


def test_a_users_file_of_the_other_type_is_shown_its_target(
    wide: Path, narrow: Path, tmp_path: Path
) -> None:
    for source, target, remedy in ((wide, "onnx", "tensorrt"), (narrow, "tensorrt", "onnx")):
        file = {"r231": source / "lungmask_r231" / "1" / "model.onnx"}
        with pytest.raises(ExportError, match=f"or the export's --target {remedy}"):
            export_system(LUNGS, repository=tmp_path, onnx=file, target=target)


def test_declarations_without_an_export_are_the_catalogs(tmp_path: Path) -> None:
    write_declarations(tmp_path, [CLASSIFIER])
    assert types(tmp_path, "ct_densenet", "input") == {"hu": INT16}
    assert types(tmp_path, "ct_classifier_prepare", "output")["crop"] == INT16


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_every_edge_fits_when_all_networks_are_wide(name: str) -> None:
    for precision in ("fp32", "fp16"):
        changed = at_precision(SYSTEMS[name], precision, wide=True)  # ensembles check their edges
        for network in changed.networks:
            assert not {t.dtype for t in network.inputs} & {"INT16", "UINT16"}
