"""INT8 graphs as TensorRT reads them, what they are calibrated on, and who is refused."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import dlpe_checkpoints
import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, numpy_helper

from hilum.catalog import SYSTEMS
from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InputError
from hilum.export.calibration import APART, MARGIN, Calibration, cut_slabs
from hilum.export.int8 import OPENVINO, QUANTISED, TENSORRT, islands, run_core, to_int8
from hilum.export.openvino import Session
from hilum.export.systems.dlpe import graph as dlpe_graph
from hilum.export.systems.dlpe import network as dlpe
from hilum.export.systems.dlpe.int8 import Judge
from hilum.preprocessing.dlpe.slabs import slices_first
from hilum.preprocessing.dlpe.space import normalise
from hilum.preprocessing.reading.series import Series, open_series

SYSTEM = SYSTEMS["dlpe"]
GRID = 64


@pytest.fixture(scope="module")
def calibration(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = tmp_path_factory.mktemp("slabs")
    return cut_slabs([study], folder, slices=32, grid=GRID, seed=0)


@pytest.fixture(scope="module")
def cores(golden: Path) -> dict[str, dlpe.UNet]:
    """The networks of golden file 10 along z by name, four channels wide."""
    states = dlpe_checkpoints.golden_states(golden / "dlpe" / "10_pipeline.npz")
    found = {}
    for task in ("lung", "airway1", "visible"):
        network = SYSTEM.network(f"{task}_z")
        tensors = states[catalog.TASKS[task].folder]["Z"]
        found[network.name] = dlpe.build(network, tensors)
        found[network.name].load_state_dict(tensors)
    return found


@pytest.fixture(scope="module")
def full(cores: dict[str, dlpe.UNet]) -> onnx.ModelProto:
    return dlpe_graph.to_onnx(cores["lung_z"], 18)


@pytest.fixture(scope="module")
def images(calibration: Calibration) -> list[np.ndarray]:
    """What the lung network sees of the calibration slabs."""
    task = catalog.TASKS["lung"]
    seen = [MARGIN + offset for offset in task.window]
    return [slab[seen][None] for slab in calibration.slabs("calibration", "z")]


@pytest.fixture(scope="module")
def quantised(full: onnx.ModelProto, images: list[np.ndarray]) -> onnx.ModelProto:
    return to_int8(full, lambda: images, TENSORRT)


def maker(model: onnx.ModelProto, name: str) -> NodeProto | None:
    return next((n for n in model.graph.node if name in n.output), None)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}


def layers(model: onnx.ModelProto) -> list[NodeProto]:
    return [n for n in model.graph.node if n.op_type in QUANTISED]


def test_convolutions_read_symmetric_int8(
    full: onnx.ModelProto, quantised: onnx.ModelProto
) -> None:
    values, originals = constants(quantised), constants(full)
    inner = [n for n in layers(quantised) if n.name not in islands(full)]
    assert len(inner) == len(layers(full)) - 2 == 21
    for node in inner:
        activation, weight = (maker(quantised, name) for name in node.input[:2])
        assert activation is not None and weight is not None
        assert {activation.op_type, weight.op_type} == {"DequantizeLinear"}
        quantiser = maker(quantised, activation.input[0])
        assert quantiser is not None and quantiser.op_type == "QuantizeLinear"
        assert list(quantiser.input[1:]) == list(activation.input[1:])
        for pair in (activation, weight):
            zero = values[pair.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
        assert values[activation.input[1]].shape == ()
        stored, scale = (values[name] for name in weight.input[:2])
        assert stored.dtype == np.int8
        # One scale for each channel that the layer gives: axis 0, or 1 of a transposed one.
        axis = 1 if node.op_type == "ConvTranspose" else 0
        assert [a.i for a in weight.attribute if a.name == "axis"] == [axis]
        original = originals[weight.input[0].removesuffix("_quantized")]
        moved = np.moveaxis(original, axis, 0).reshape(original.shape[axis], -1)
        largest = np.abs(moved).max(1)
        wanted = np.where(largest > 0, largest / 127, 1)  # a channel of zeros keeps them
        np.testing.assert_allclose(scale, wanted, rtol=1e-5)
        assert values[node.input[2]].dtype == np.float32
    assert quantised.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert quantised.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_nothing_else_is_quantised(full: onnx.ModelProto, quantised: onnx.ModelProto) -> None:
    added = {n.op_type for n in quantised.graph.node} - {n.op_type for n in full.graph.node}
    assert added == {"QuantizeLinear", "DequantizeLinear"}  # no QLinearConv and the like
    assert {n.domain for n in quantised.graph.node} == {""}
    assert [(o.domain, o.version) for o in quantised.opset_import] == [("", 18)]
    kept = [n for n in layers(quantised) if n.name in islands(full)]
    ends = layers(quantised)[0], layers(quantised)[-1]
    assert [n.name for n in kept] == [n.name for n in ends]
    values, originals = constants(quantised), constants(full)
    for node in kept:
        np.testing.assert_array_equal(values[node.input[1]], originals[node.input[1]])
    pairs = [n for n in quantised.graph.node if n.op_type == "DequantizeLinear"]
    readers = {n.op_type for n in quantised.graph.node for p in pairs if p.output[0] in n.input}
    assert readers == set(QUANTISED)


def test_the_mean_error_is_taken_up_by_the_last_bias(
    full: onnx.ModelProto, quantised: onnx.ModelProto, images: list[np.ndarray]
) -> None:
    exact, reduced = run_core(full), run_core(quantised)
    errors = np.array([(reduced(i) - exact(i)).mean((0, 2, 3)) for i in images])
    assert np.abs(errors.mean(0)).max() < 1e-4
    assert np.abs(errors).max() > 1e-4  # it is quantised after all


def test_openvino_gets_what_it_computes_exactly(
    full: onnx.ModelProto, images: list[np.ndarray]
) -> None:
    """Signed activations, as TensorRT wants them, it computes otherwise than the graph says."""
    pytest.importorskip("openvino", reason="openvino is not installed")

    def error(model: onnx.ModelProto) -> float:
        said, computed = run_core(model), run_core(model, Session)
        return float(np.mean([np.abs(said(i) - computed(i)).mean() for i in images]))

    model = to_int8(full, lambda: images, OPENVINO)
    assert error(model) < 1e-5
    assert error(to_int8(full, lambda: images, TENSORRT)) > 1e-2
    stored = [v for name, v in constants(model).items() if name.endswith("_quantized")]
    assert len(stored) == 21
    assert all(v.dtype == np.int8 and np.abs(v.astype(int)).max() <= 64 for v in stored)


def test_one_image_is_held_at_a_time(full: onnx.ModelProto) -> None:
    rng = np.random.default_rng(1)
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal most
        for _ in range(6):
            image = rng.normal(0, 0.3, (1, 5, 32, 48)).astype(np.float32)
            alive.append(weakref.ref(image))
            most = max(most, sum(r() is not None for r in alive))
            yield image
            del image

    to_int8(full, stream, TENSORRT)
    assert len(alive) == 12  # for the ranges, and for the bias
    assert most <= 3


def test_slabs_are_the_users_slices_and_do_not_overlap(
    study: Path, calibration: Calibration
) -> None:
    volume = normalise(open_series(study), "parity", GRID).voxels
    for direction in catalog.DIRECTIONS:
        slices = slices_first(volume, direction)
        middles = []
        for part in ("calibration", "held-out"):
            slabs = list(calibration.slabs(part, direction))
            assert slabs
            assert (
                len(slabs) == calibration.described(direction)[f"{part.replace('-', '_')}_slices"]
            )
            for slab in slabs:
                (found,) = np.flatnonzero((slices == slab[MARGIN]).all(axis=(1, 2)))
                middles.append(int(found))
                inside = [k for k in range(APART) if 0 <= found + k - MARGIN < GRID]
                np.testing.assert_array_equal(
                    slab[inside], slices[[found + k - MARGIN for k in inside]]
                )
        assert np.diff(sorted(middles)).min() >= APART


def test_slabs_of_found_volumes_are_of_the_same_slices(study: Path, tmp_path: Path) -> None:
    cts: list[np.ndarray] = []

    def find(series: Series, grid: int) -> dict[str, np.ndarray]:
        """Volumes whose voxels tell where they are."""
        cts.append(normalise(series, "parity", grid).voxels)
        places = np.arange(grid**3).reshape((grid,) * 3)
        return {"enhanced": places.astype(np.float32), "lung": (places % 251).astype(np.uint8)}

    made = cut_slabs([study, study], tmp_path, slices=8, grid=GRID, seed=0, find=find)
    assert len(cts) == made.series == 2
    assert made.volumes == {"ct", "enhanced", "lung"}
    numbers = np.arange(GRID**3, dtype=np.float32).reshape((GRID,) * 3)
    for direction in catalog.DIRECTIONS:
        slices, places = slices_first(cts[0], direction), slices_first(numbers, direction)
        for part in ("calibration", "held-out"):
            three = [made.slabs(part, direction, name) for name in ("ct", "enhanced", "lung")]
            for ct, enhanced, lung in zip(*three, strict=True):
                (at,) = np.flatnonzero((slices == ct[MARGIN]).all(axis=(1, 2)))
                there = [k for k in range(3) if 0 <= at + k - 1 < GRID]
                np.testing.assert_array_equal(enhanced[there], places[[at + k - 1 for k in there]])
                assert (enhanced.dtype, enhanced.shape) == (np.float32, (3, GRID, GRID))
                np.testing.assert_array_equal(lung[0], places[at].astype(np.int64) % 251)
                assert (lung.dtype, lung.shape) == (np.uint8, (1, GRID, GRID))


def test_lungs_that_were_found_need_no_lung_network(
    cores: dict[str, dlpe.UNet], study: Path, tmp_path: Path
) -> None:
    def find(series: Series, grid: int) -> dict[str, np.ndarray]:
        return {"lung": (normalise(series, "parity", grid).voxels < -0.1).astype(np.uint8)}

    found = cut_slabs([study], tmp_path, slices=16, grid=GRID, seed=0, find=find)
    voxels = sum(np.count_nonzero(slab) for slab in found.slabs("held-out", "z", "lung"))
    network, core = SYSTEM.network("airway1_z"), cores["airway1_z"]
    attempt = Judge(found, core_of({})).attempt  # asked for a core it would raise KeyError
    _, told = attempt(network, core, dlpe_graph.to_onnx(core, 18))
    assert voxels > 0
    assert set(told["dice"]) == {"airway, high recall", "airway, high precision"}
    assert told["held_out_slices"] == found.counts["held-out", "z"]


def test_the_seed_picks_the_slices_and_every_series_gives_some(
    study: Path, calibration: Calibration, tmp_path: Path
) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    for name, studies, seed in (("same", [study], 0), ("other", [study, study], 1)):
        (tmp_path / name).mkdir()
        made = cut_slabs(studies, tmp_path / name, slices=32, grid=GRID, seed=seed)
        assert made.series == len(studies)
    same, other = files(tmp_path / "same"), files(tmp_path / "other")
    assert same == files(calibration.folder)
    assert len(other) > len(same)
    assert any(other[name] != content for name, content in same.items())
    # The least that can be told apart, whatever was asked for.
    few = cut_slabs([study], tmp_path, slices=1, grid=GRID, seed=0)
    assert set(few.counts.values()) == {1}


def test_a_series_that_cannot_be_read_is_reported_by_its_number(
    study: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "secret-name.nii.gz"
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match="calibration series 2 of 2") as raised:
        cut_slabs([study, broken], tmp_path, slices=4, grid=GRID, seed=0)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["lung_z", "visible_z"])
def test_a_network_calibrated_on_air_is_refused(
    name: str, cores: dict[str, dlpe.UNet], calibration: Calibration, tmp_path: Path
) -> None:
    network, core = SYSTEM.network(name), cores[name]
    model = dlpe_graph.to_onnx(core, 18)
    accepted, told = Judge(calibration, core_of(cores)).attempt(network, core, model)
    assert accepted is not None
    assert told["accepted"] and told["reason"] == ""
    assert min(told["dice"].values()) >= told["least_dice"]

    rng = np.random.default_rng(2)
    for file in calibration.folder.glob("*-z-*.npy"):
        slab = np.load(file)
        if file.name.startswith("ct-calibration"):
            slab = rng.normal(-0.25, 0.003, slab.shape).astype(np.float32)  # -1000 HU
        np.save(tmp_path / file.name, slab)
    air = Calibration(tmp_path, 1, GRID, 0, calibration.counts)
    refused, told = Judge(air, core_of(cores)).attempt(network, core, model)
    assert refused is None
    assert not told["accepted"]
    assert told["reason"].startswith(f"Dice of {'lung' if name == 'lung_z' else 'lesion'} 0.")


def core_of(cores: dict[str, dlpe.UNet]) -> object:
    return lambda network: cores[network.name]


def test_a_refused_tree_is_reported_by_its_worst_mask(
    cores: dict[str, dlpe.UNet], calibration: Calibration
) -> None:
    network = SYSTEM.network("airway1_z")
    with torch.inference_mode():
        attempt = Judge(calibration, core_of(cores)).attempt
        model, told = attempt(
            network, cores[network.name], dlpe_graph.to_onnx(cores[network.name], 18)
        )
    assert model is None
    worst = min(told["dice"], key=told["dice"].__getitem__)
    assert told["reason"] == f"Dice of {worst} {told['dice'][worst]:.4f}, less than 0.995"
