"""The ONNX nodes around the cores: crop, bicubic resize, normalisation, gate, thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import standins
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hilum.catalog import cxr_severity as catalog
from hilum.export.systems.cxr_severity import graph as cxr_graph
from hilum.export.systems.cxr_severity import reference as cxr_reference

SIDE, LENGTH = 96, 128
SIZES = {"L": LENGTH, "S": SIDE}
NETWORK = catalog.SYSTEM.network("pspnet")


def session(model: onnx.ModelProto, *inner: str) -> ort.InferenceSession:
    """A session of a model that also gives `inner` float tensors."""
    onnx.checker.check_model(model)
    for name in inner:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def served(tmp_path: Path, cls: float = 0.9, network: str = "pspnet") -> onnx.ModelProto:
    core = onnx.load(standins.write_disease(tmp_path / "core.onnx", SIDE, cls))
    return cxr_graph.wrap(core, catalog.SYSTEM.network(network), SIZES)


def batch(boxes: list[tuple[int, int, int, int]], seed: int = 0) -> dict[str, NDArray]:
    rng = np.random.default_rng(seed)
    count = len(boxes)
    return {
        "image": rng.integers(0, 256, (count, LENGTH, LENGTH, 3), dtype=np.uint8),
        "lung": rng.integers(0, 2, (count, LENGTH, LENGTH), dtype=np.uint8),
        "box": np.array(boxes, np.int32),
    }


def test_bicubic_golden_rows(tmp_path: Path) -> None:
    """The rows of spec cxr §16.8, laid as columns and as rows of a picture."""
    row = np.array([0, 255, 0, 0], np.uint8)
    want = [
        -0.10546875, 0.26171875, 0.87890625, 0.87890625,
        0.26171875, -0.10546875, -0.03515625, 0.0,
    ]  # fmt: skip
    core = onnx.load(standins.write_disease(tmp_path / "core.onnx", 8, 0.9))
    model = cxr_graph.wrap(core, NETWORK, {"L": 16, "S": 8})
    run = session(model, "core/image")
    inputs = {
        "image": np.zeros((2, 16, 16, 3), np.uint8),
        "lung": np.ones((2, 16, 16), np.uint8),
        "box": np.array([[5, 7, 9, 11], [5, 7, 9, 11]], np.int32),
    }
    inputs["image"][0, 7:11, 5:9] = row[None, :, None]
    inputs["image"][1, 7:11, 5:9] = row[:, None, None]
    (image,) = run.run(["core/image"], inputs)
    mean = np.array(catalog.MEAN).reshape(3, 1, 1)
    std = np.array(catalog.STD).reshape(3, 1, 1)
    pixels = np.asarray(image) * std + mean
    np.testing.assert_allclose(pixels[0], np.broadcast_to(want, (3, 8, 8)), atol=1e-6)
    np.testing.assert_allclose(pixels[1].swapaxes(1, 2), pixels[0], atol=1e-6)


@pytest.mark.parametrize("network", ["pspnet", "unet"])
def test_the_core_gets_what_the_published_program_computes(tmp_path: Path, network: str) -> None:
    run = session(served(tmp_path, network=network), "core/image")
    inputs = batch([(0, 0, 128, 128), (3, 17, 90, 128), (40, 50, 47, 127), (0, 0, 127, 127)])
    (got,) = run.run(["core/image"], inputs)
    want = cxr_reference.core_input(catalog.SYSTEM.network(network), SIZES, inputs)
    np.testing.assert_allclose(got, want.numpy(), atol=6e-6)


@pytest.mark.parametrize(
    ("value", "network", "want"),
    [
        (0, "pspnet", (-2.117904, -2.035714, -1.804444)),
        (128, "pspnet", (0.074065, 0.205182, 0.426492)),
        (255, "pspnet", (2.248908, 2.428571, 2.64)),
        (0, "unet", (-2.0708, -1.9539, -1.7368)),
        (128, "unet", (0.0668, 0.1837, 0.4008)),
        (255, "unet", (2.1877, 2.3046, 2.5217)),
    ],
)
def test_normalisation_golden_values(
    tmp_path: Path, value: int, network: str, want: tuple[float, ...]
) -> None:
    """Spec cxr §16.9; the channels stay in the order they come in."""
    run = session(served(tmp_path, network=network), "core/image")
    inputs = batch([(10, 10, 60, 70)])
    inputs["image"][:], inputs["lung"][:] = value, 1
    (got,) = run.run(["core/image"], inputs)
    tolerance = 2e-6 if network == "pspnet" else 6e-5
    np.testing.assert_allclose(np.asarray(got)[0, :, 5, 5], want, atol=tolerance)


def test_boxes_that_hold_nothing_do_no_harm(tmp_path: Path) -> None:
    """Warm-up sends zeros; a faulty client may send anything."""
    run = session(served(tmp_path), "core/image")
    huge = 2**31 - 1
    inputs = batch([(0, 0, 0, 0), (90, 90, 20, 20), (-50, -9, 400, 500), (huge, 0, huge, huge)])
    for name, array in zip(
        ("mask", "disease", "ungated", "probability", "core/image"),
        run.run(["mask", "disease", "ungated", "probability", "core/image"], inputs),
        strict=True,
    ):
        assert np.isfinite(np.asarray(array)).all(), name


@pytest.mark.parametrize(("cls", "gated"), [(0.5, True), (0.50001, False), (0.49999, True)])
def test_the_gate_rounds_half_to_even(tmp_path: Path, cls: float, gated: bool) -> None:
    run = session(served(tmp_path, cls))
    inputs = batch([(0, 0, 128, 128)])
    inputs["image"][:], inputs["lung"][:] = 255, 1
    mask, disease, ungated, probability = map(
        np.asarray, run.run(["mask", "disease", "ungated", "probability"], inputs)
    )
    assert ungated.all()
    assert ungated.dtype == disease.dtype == np.uint8
    assert probability[0, 0] == np.float32(cls)
    assert disease.all() != gated
    assert mask.any() != gated


def test_outputs_are_what_the_published_program_makes_of_the_core(tmp_path: Path) -> None:
    run = session(served(tmp_path), "core/mask", "core/cls")
    inputs = batch([(3, 17, 90, 128), (40, 50, 47, 127)])
    names = ["mask", "disease", "ungated", "probability", "core/mask", "core/cls"]
    got = dict(zip(names, map(np.asarray, run.run(names, inputs)), strict=True))
    core = torch.from_numpy(got["core/mask"]), torch.from_numpy(got["core/cls"])
    want = cxr_reference.outputs(NETWORK, core)
    assert 0.02 < got["disease"].mean() < 0.98
    for name in ("mask", "probability"):
        np.testing.assert_array_equal(got[name], want[name])
    for name in ("disease", "ungated"):
        differs = got[name] != want[name]
        assert (np.abs(want[f"probability of {name}"][differs] - 0.5) < 1e-6).all()


def test_the_lung_network_takes_pixels_and_gives_a_mask(tmp_path: Path) -> None:
    core = onnx.load(standins.write_lung(tmp_path / "core.onnx", LENGTH))
    run = session(cxr_graph.wrap(core, catalog.LUNG, {"L": LENGTH}), "core/image")
    inputs = {"image": batch([(0, 0, 1, 1)] * 3)["image"]}
    mask, lung, image = map(np.asarray, run.run(["mask", "lung", "core/image"], inputs))
    want = cxr_reference.core_input(catalog.LUNG, {"L": LENGTH}, inputs)
    np.testing.assert_allclose(image, want.numpy(), atol=1e-6)
    assert lung.shape == (3, LENGTH, LENGTH)
    np.testing.assert_array_equal(lung, mask[:, 0] > 0.5)


def test_names_of_a_core_never_clash(tmp_path: Path) -> None:
    """A core whose inner tensors are called like the served ones."""
    core = onnx.load(standins.write_disease(tmp_path / "core.onnx", SIDE, 0.9))
    for node in core.graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = {"weighted": "lung", "s": "box", "logit": "front/c0"}.get(
                    name, name
                )
    plain = session(served(tmp_path))
    renamed = session(cxr_graph.wrap(core, NETWORK, SIZES))
    inputs = batch([(3, 17, 90, 128)])
    np.testing.assert_array_equal(plain.run(["mask"], inputs)[0], renamed.run(["mask"], inputs)[0])


@pytest.mark.parametrize("side", [33, 96, 384, 416, 480, 511, 512, 513, 544, 700])
def test_any_side_becomes_the_crop_frame(tmp_path: Path, side: int) -> None:
    core = onnx.load(standins.write_disease(tmp_path / "core.onnx", side, 0.9))
    model = cxr_graph.wrap(core, NETWORK, {"L": LENGTH, "S": side})
    inputs = batch([(3, 17, 90, 128)])
    run = session(model, "core/mask")
    disease, mask = map(np.asarray, run.run(["disease", "core/mask"], inputs))
    assert disease.shape == (1, catalog.FRAME, catalog.FRAME)
    core_outputs = torch.from_numpy(mask), torch.full((1, 1), 0.9)
    want = cxr_reference.outputs(NETWORK, core_outputs)
    differs = disease != want["disease"]
    assert (np.abs(want["probability of disease"][differs] - 0.5) < 1e-5).all()
