"""Networks without a batch axis whose inputs have any length, and FP16 on the wire."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dlpe_checkpoints as golden_networks
import onnx
import pytest
import torch

from hilum.catalog import SYSTEMS, at_precision
from hilum.catalog.errors import CatalogError, ExportError, WeightsError
from hilum.export.certificate import Parity
from hilum.export.check import check_repository
from hilum.export.config import model_config
from hilum.export.declarations import repository_models
from hilum.export.repository import export_system
from hilum.export.store import import_weights
from hilum.export.systems.dlpe import graph as dlpe_graph
from hilum.export.systems.dlpe import network as dlpe
from hilum.export.systems.dlpe.recipe import core_signature
from hilum.export.user_file import read_user_file

SYSTEM = SYSTEMS["dlpe"]
LUNG = SYSTEM.network("lung_x")


def bare(path: Path) -> Path:
    torch.manual_seed(0)
    onnx.save(dlpe_graph.to_onnx(dlpe.UNet(5, 2, 4).eval(), 18), str(path))
    return path


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories with one network each: the lungs in FP32, the airways in FP16."""
    folder = tmp_path_factory.mktemp("halves")
    lung = bare(folder / "lung.onnx")
    export_system(SYSTEM, repository=folder / "fp32", onnx={"lung_x": lung})
    export_system(SYSTEM, repository=folder / "fp16", onnx={"lung_x": lung}, precision="fp16")
    return folder


def test_only_what_is_declared_so_becomes_half() -> None:
    half = at_precision(SYSTEM, "fp16")
    network = half.network("airway2_x")
    assert [t.dtype for t in network.inputs] == ["FP16", "UINT8", "UINT8"]
    assert [t.dtype for t in network.outputs] == ["FP32"]  # ranked, so nothing may tie
    assert {t.dtype for e in half.ensembles for t in e.outputs} == {"FP32"}
    assert {e.inputs[0].dtype for e in half.ensembles} == {"FP16"}
    assert at_precision(SYSTEM, "fp32") is SYSTEM
    for name in ("cxr-severity", "lungmask", "ct-classifier", "ct-angel"):
        assert at_precision(SYSTEMS[name], "fp16") == SYSTEMS[name]


def test_the_warm_up_has_the_example_shape() -> None:
    network = SYSTEM.network("vessel2_z")
    (warmup,) = model_config(network, {}).model_warmup
    assert warmup.batch_size == 1  # Triton skips one of 0
    assert {name: list(i.dims) for name, i in warmup.inputs.items()} == {
        "slab": [3, 16, 16],
        "high_recall": [1, 16, 16],
        "high_precision": [1, 16, 16],
    }


@pytest.mark.parametrize("example", [{}, {"slab": (11, 16)}, {"slab": (0, 16, 16)}])
def test_a_free_length_needs_an_example(example: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(CatalogError, match=r"dlpe_lung_x\.slab: .* is no example of"):
        replace(LUNG, example=example)


def test_a_card_shows_a_call_without_a_batch_axis(halves: Path) -> None:
    card = (halves / "fp16/dlpe_lung_x/1/README.md").read_text()
    assert "| inputs | `slab` | FP16 | [-1, -1, -1] |" in card
    assert 'InferInput("slab", [11, 16, 16], "FP16")' in card


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_served_file_is_taken_as_it_is(halves: Path, tmp_path: Path, precision: str) -> None:
    made = halves / precision / "dlpe_lung_x/1/model.onnx"
    (found,) = export_system(
        SYSTEM, repository=tmp_path, onnx={"lung_x": made}, precision=precision
    )
    assert (tmp_path / "dlpe_lung_x/1/model.onnx").read_bytes() == made.read_bytes()
    assert found["parity"] is None
    assert found["inputs"][0]["dtype"] == precision.upper()
    assert [f for f in check_repository(tmp_path, [SYSTEM]) if f.severity == "error"] == []


def test_a_served_file_of_the_other_precision_names_the_option(halves: Path) -> None:
    made = halves / "fp16/dlpe_lung_x/1/model.onnx"
    with pytest.raises(ExportError, match=r"'slab' is FP16; it must be FP32.*--precision fp16"):
        export_system(SYSTEM, repository=halves / "none", onnx={"lung_x": made})
    assert not (halves / "none").exists()


def fixed(axis: int, length: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = length

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (fixed(2, 512), "length 512 must be symbolic"),
        (fixed(1, 3), r"must be \['N', 5, -1, -1\]"),
        (fixed(0, 1), "fixed batch of 1"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    path = bare(tmp_path / "lung.onnx")
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    with pytest.raises(ExportError, match=words):
        read_user_file(path, LUNG, core_signature(LUNG))


def test_models_that_were_not_exported_follow_their_ensemble(halves: Path) -> None:
    served = {m.model: m for m in repository_models(halves / "fp16", SYSTEM)}
    for name in ("dlpe_lung_x", "dlpe_airway1_x", "dlpe_stage1_x", "dlpe_stage1_heart_x"):
        assert served[name].inputs[0].dtype == "FP16", name
    for name in ("dlpe_lung_y", "dlpe_stage2_x", "dlpe_root_x"):
        assert served[name].inputs[0].dtype == "FP32", name


def test_mixed_precisions_are_found(halves: Path, tmp_path: Path) -> None:
    shutil.copytree(halves / "fp32", tmp_path / "r")
    shutil.copytree(halves / "fp16/dlpe_lung_x/1", tmp_path / "r/dlpe_airway1_x/1")
    path = tmp_path / "r/dlpe_airway1_x/1/certificate.json"
    told = json.loads(path.read_text()) | {"network": "airway1_x", "model": "dlpe_airway1_x"}
    path.write_text(json.dumps(told))
    found = {f.model: f.what for f in check_repository(tmp_path / "r", [SYSTEM])}
    assert "dlpe_lung_x fp32, dlpe_airway1_x fp16" in found["dlpe_stage1_x"]


def test_a_store_with_some_weights_exports_those(golden: Path, tmp_path: Path) -> None:
    file = golden / "dlpe" / "10_pipeline.npz"
    golden_networks.write_published(tmp_path / "p", file, ["lung_seg"])
    import_weights(SYSTEM, tmp_path / "p", tmp_path / "store")
    told: dict[str, str] = {}
    found = export_system(
        SYSTEM, repository=tmp_path / "r", weights="store", store=tmp_path / "store",
        progress=told.__setitem__,
    )  # fmt: skip
    assert [c["network"] for c in found] == ["lung_x", "lung_y", "lung_z"]
    assert all(c["parity"]["batches"] == [1, 2, 3] for c in found)
    assert told["heart_x"] == "left out: no weights in the store"
    with pytest.raises(WeightsError, match="no weights of lung_x"):
        export_system(SYSTEM, repository=tmp_path / "r", weights="store", store=tmp_path / "none")


@pytest.mark.parametrize(("reach", "off", "fits"), [(1, 2e-4, False), (100, 2e-4, True)])
def test_far_reaching_logits_may_differ_in_proportion(reach: float, off: float, fits: bool) -> None:
    parity = Parity("PyTorch", "a slab", 0, 1e-4, frozenset({"logits"}))
    want = torch.full((4,), float(reach)).numpy()
    parity.add_part("core logits", want + want.dtype.type(off), want)
    assert (parity.problem("fp32") is None) == fits
