"""DLPE's network: published sizes and names, the graph that is served, FP16 on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dlpe_checkpoints as golden_networks
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from hilum.catalog import SYSTEMS, at_precision
from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import ExportError
from hilum.export.precision import to_half
from hilum.export.repository import export_system
from hilum.export.systems.dlpe import graph as dlpe_graph
from hilum.export.systems.dlpe import network as dlpe
from hilum.export.systems.dlpe import recipe as dlpe_recipe
from hilum.preprocessing.dlpe.slabs import Slab, cut

SYSTEM = SYSTEMS["dlpe"]
OPSET = 18


def run(model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(names, dict(inputs))), strict=True))


def served(core: dlpe.UNet, name: str, precision: str = "fp32") -> onnx.ModelProto:
    network = at_precision(SYSTEM, precision).network(name)
    model = dlpe_graph.to_onnx(core, OPSET)
    if precision == "fp16":
        model = to_half(model)
    return dlpe_graph.wrap(model, network, {})


def lively(name: str, width: int, seed: int = 0) -> dlpe.UNet:
    """A small network in which no array has its default."""
    torch.manual_seed(seed)
    task = dlpe.task_of(SYSTEM.network(name))
    network = dlpe.UNet(task.channels, dlpe.classes(task), width).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.2)
                module.bias.uniform_(-0.2, 0.2)
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.3, 0.6)
    return network


@pytest.fixture(scope="module")
def three_way(golden: Path) -> dict[str, NDArray[Any]]:
    with np.load(golden / "dlpe" / "09_three_way.npz") as stored:
        return {k: stored[k] for k in stored if not k.startswith("weights")}


@pytest.fixture(scope="module")
def states(golden: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = golden_networks.golden_states(golden / "dlpe" / "09_three_way.npz")
    return found[golden_networks.THREE_WAY_MODEL]


@pytest.mark.parametrize(
    ("name", "parameters"), [("airway1_x", 1_942_594), ("lung_x", 1_942_882), ("root_x", 1_943_187)]
)
def test_sizes_and_names_are_the_published_ones(name: str, parameters: int) -> None:
    with torch.device("meta"):
        state = dlpe.build(SYSTEM.network(name)).state_dict()
    tensors = {k: v for k, v in state.items() if "running" not in k and "num_batches" not in k}
    assert sum(t.numel() for t in tensors.values()) == parameters
    assert sum(t.numel() for t in state.values()) - parameters == 2_962
    assert len(state) == 118
    keys = list(state)
    assert keys[0] == "encoder1.enc1conv1.weight"
    assert keys[-2:] == ["conv.weight", "conv.bias"]
    assert state["upconv4.weight"].shape == (256, 128, 2, 2)
    assert state["decoder1.dec1conv1.weight"].shape == (16, 32, 3, 3)
    assert state["bottleneck.bottlenecknorm2.running_var"].shape == (256,)


def test_logits_are_the_golden_ones(
    three_way: dict[str, NDArray[Any]], states: dict[str, dict[str, torch.Tensor]]
) -> None:
    network = SYSTEM.network("lung_x")
    core = dlpe.build(network, states["X"])
    core.load_state_dict(states["X"])
    assert core.conv.in_channels == 4
    sample = three_way["slice_input"][None]
    with torch.inference_mode():
        logits = core(torch.from_numpy(sample))[0][0].numpy()
    assert np.abs(logits - three_way["slice_logits"]).max() < 1e-4
    folded = run(dlpe_graph.to_onnx(core, OPSET), {"image": sample})["logits"][0]
    assert np.abs(folded - three_way["slice_logits"]).max() < 1e-4


@pytest.mark.parametrize("direction", catalog.DIRECTIONS)
@pytest.mark.parametrize("length", [3, 14])
def test_slabs_of_any_length_give_the_golden_probabilities(
    three_way: dict[str, NDArray[Any]], states: dict[str, dict[str, torch.Tensor]],
    direction: str, length: int,
) -> None:  # fmt: skip
    name = f"lung_{direction}"
    core = dlpe.build(SYSTEM.network(name), states[direction.upper()])
    core.load_state_dict(states[direction.upper()])
    volume = (three_way["volume_q1024"] / 1024).astype(np.float32)
    axis = catalog.DIRECTIONS.index(direction)
    slab = cut(volume, Slab(direction, 2, 2 + length), catalog.TASKS["lung"].margin)
    found = run(served(core, name), {"slab": slab})["probability"]
    expected = np.moveaxis(three_way[f"prob_{direction.upper()}"], axis, 0)[2 : 2 + length]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("name", ["airway2_z", "root_y"])
def test_the_graph_sees_the_slices_and_masks_of_the_specification(name: str) -> None:
    core, network = lively(name, 4), SYSTEM.network(name)
    inputs = dlpe_recipe.samples(network, {}, seed=3)
    with torch.inference_mode():
        expected = dlpe_recipe.outputs(network, core(dlpe_recipe.core_input(network, {}, inputs)))
    found = run(served(core, name), inputs)
    assert found.keys() == {t.name for t in network.outputs}
    for output, values in expected.items():
        assert np.ptp(values) > 0.01
        assert np.abs(found[output] - values).max() < 1e-5


def test_samples_are_those_of_the_golden_file(golden: Path) -> None:
    with np.load(golden / "dlpe" / "03_slicing.npz") as stored:
        volume, samples = stored["volume"], stored["w5_X"]
    volume = np.ascontiguousarray(volume[..., 0])
    slab = cut(volume, Slab("x", 0, len(volume)), catalog.TASKS["lung"].margin)
    seen = dlpe_recipe.core_input(SYSTEM.network("lung_x"), {}, {"slab": slab}).numpy()
    assert np.array_equal(seen.transpose(0, 2, 3, 1), samples)


def test_half_precision_meets_its_tolerance(
    three_way: dict[str, NDArray[Any]], states: dict[str, dict[str, torch.Tensor]]
) -> None:
    core = dlpe.build(SYSTEM.network("lung_x"), states["X"])
    core.load_state_dict(states["X"])
    volume = (three_way["volume_q1024"] / 1024).astype(np.float32)
    slab = cut(volume, Slab("x", 0, len(volume)), 5, np.dtype(np.float16))
    found = run(served(core, "lung_x", "fp16"), {"slab": slab})["probability"]
    assert found.dtype == np.float32  # in FP16 high probabilities would tie
    a, b = found > 0.5, three_way["prob_X"] > 0.5
    assert 0.05 < b.mean() < 0.95
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.995


def test_directions_and_tasks_have_weights_of_their_own() -> None:
    chosen = ("follow_up_x", "in_patient_x", "in_patient_y")
    cores = [dlpe_recipe.build_random(SYSTEM.network(name), 0) for name in chosen]
    assert all("synthetic" in told for _, told in cores)
    first = [core.get_submodule("encoder2").state_dict()["enc2conv1.weight"] for core, _ in cores]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])
    again, _ = dlpe_recipe.build_random(SYSTEM.network("in_patient_x"), 0)
    assert torch.equal(first[1], again.get_submodule("encoder2").state_dict()["enc2conv1.weight"])


def test_an_ensemble_never_joins_two_precisions(tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    onnx.save(dlpe_graph.to_onnx(lively("lung_x", 4), OPSET), str(bare))
    export_system(SYSTEM, repository=tmp_path / "r", onnx={"lung_x": bare})
    config = (tmp_path / "r/dlpe_stage1_x/config.pbtxt").read_text()
    assert "TYPE_FP16" not in config
    with pytest.raises(ExportError, match=r"visible_x is to be fp16, but the exported lung_x"):
        export_system(SYSTEM, repository=tmp_path / "r", onnx={"visible_x": bare}, precision="fp16")
    export_system(SYSTEM, repository=tmp_path / "h", onnx={"lung_x": bare}, precision="fp16")
    assert "TYPE_FP16" in (tmp_path / "h/dlpe_stage1_x/config.pbtxt").read_text()
    assert "TYPE_FP16" not in (tmp_path / "h/dlpe_enhanced_x/config.pbtxt").read_text()
