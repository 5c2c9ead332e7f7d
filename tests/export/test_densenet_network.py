"""The CT classifier's network and its closed-form Grad-CAM against their specification."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from ct_networks import arrays, calibrated, elements, hand_core, macs, run
from torch import Tensor, nn

from hilum.catalog import ct_classifier as catalog
from hilum.export.compat import declare_torchvision_operators
from hilum.export.layers import densenet
from hilum.export.onnx_export import to_onnx
from hilum.export.systems.ct_classifier.recipe import RECIPE

SIDE = 64
SIZES = {"S": SIDE, "C": SIDE // 32}


@pytest.fixture(scope="module")
def network() -> densenet.DenseNet:
    return calibrated(densenet.build, (6, 1, SIDE, SIDE), 1.0, seed=8)


def test_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = densenet.build()
        assert len(arrays(network)) == 606
        assert elements(network) == 7_038_529
        assert sum(p.numel() for p in network.parameters()) == 6_954_881
        for side, gmac in ((256, 3.700), (224, 2.833)):
            counts = macs(network, torch.zeros(1, 1, side, side))
            assert counts["Global"] == pytest.approx(gmac * 1e9, abs=0.0006e9)
        for side, cells in ((256, 8), (320, 10)):
            maps = network.features(torch.zeros(1, 3, side, side))
            assert maps.shape == (1, 1024, cells, cells)


def torchvision_name(layer: str) -> str:
    """The table of spec ct_densenet §5.3."""
    fixed = {
        "conv1/conv": "features.conv0", "conv1/bn": "features.norm0", "bn": "features.norm5",
        densenet.HEAD: "classifier",
    }  # fmt: skip
    if layer in fixed:
        return fixed[layer]
    block, _, rest = layer.partition("_")
    if block.startswith("pool"):
        return f"features.transition{int(block[4:]) - 1}.{'norm' if rest == 'bn' else 'conv'}"
    k, part = rest.removeprefix("block").split("_", 1)
    name = {"0_bn": "norm1", "1_conv": "conv1", "1_bn": "norm2", "2_conv": "conv2"}[part]
    return f"features.denseblock{int(block[4:]) - 1}.denselayer{k}.{name}"


def test_it_is_torchvision_s_densenet121_but_for_epsilon(network: densenet.DenseNet) -> None:
    declare_torchvision_operators()
    from torchvision.models import densenet121

    other = densenet121(weights=None, num_classes=1).eval()
    other.load_state_dict(
        {
            f"{torchvision_name(name.removeprefix('layers.').rpartition('.')[0])}"
            f".{name.rpartition('.')[2]}": tensor
            for name, tensor in network.state_dict().items()
        },
        strict=True,
    )
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = densenet.EPS
    grey = torch.rand(3, 1, 96, 96)
    with torch.no_grad():
        _, logit, _ = network(grey)
        assert logit.std() > 1e-3
        assert (other(grey.expand(-1, 3, -1, -1)) - logit).abs().max() <= 1e-5


def test_the_toy_of_the_specification() -> None:
    maps = torch.tensor([[[4.0, 0], [0, 0]], [[0, 2], [2, 0]], [[1, 1], [1, 1]]])[None]
    weight, bias = torch.tensor([[1, -0.5, 0.25]]), torch.tensor([-0.2])
    logit, cam = densenet.activation_map(maps, weight, bias)
    assert cam.ravel().tolist() == [4.25, -0.75, -0.75, 0.25]
    assert logit.item() == pytest.approx(0.55)
    p = torch.sigmoid(logit).item()
    assert p == pytest.approx(0.63413559)
    assert (cam.relu() / 4).ravel().tolist() == [1.0625, 0, 0, 0.0625]
    grad_cam = (p * (1 - p) * cam.relu() / 4).ravel().tolist()
    assert grad_cam == pytest.approx([0.24650812, 0, 0, 0.01450048])


@pytest.mark.parametrize("of", ["logit", "probability"])
def test_the_closed_form_is_grad_cam(network: densenet.DenseNet, of: str) -> None:
    """Against gradients of the network itself, as Selvaraju et al. (2017) define Grad-CAM."""
    grey = torch.rand(2, 1, 128, 128)
    kept: list[Tensor] = []
    features = network.features

    def keep(image: Tensor) -> Tensor:
        kept.append(features(image).detach().requires_grad_())
        return kept[0]

    network.features = keep
    try:
        p, z, cam = network(grey)
    finally:
        del network.features
    (gradient,) = torch.autograd.grad((z if of == "logit" else p).sum(), kept)
    alpha = gradient.mean((2, 3), keepdim=True)
    expected = (alpha * kept[0]).sum(1, keepdim=True).relu()
    factor = 1 if of == "logit" else (p * (1 - p))[:, :, None, None]
    closed = factor * cam.relu() / cam[0].numel()
    assert expected.max() > 1e-3
    assert (closed - expected).abs().max() <= 1e-5
    biggest = expected.amax((2, 3), keepdim=True)
    assert (cam.relu() / cam.amax((2, 3), keepdim=True) - expected / biggest).abs().max() <= 1e-5


def test_standardised_values_of_the_specification() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    x = RECIPE.core_input(catalog.MASKED_NETWORK, {}, {"image": image})
    assert x.ravel()[:3].tolist() == pytest.approx([-1.593255, -1.303572, -1.013890], abs=1e-6)

    def write(n) -> None:
        mean = n.add("ReduceMean", "image", n.axes(2, 3), keepdims=0)
        n.add("Identity", mean, out="logit")
        n.add("Sigmoid", mean, out="prob")
        n.add("Identity", "image", out="cam_raw")

    core = hand_core(write, {"image": (1, 4, 4)}, ["prob", "logit", "cam_raw"])
    served = RECIPE.wrap(core, catalog.MASKED_NETWORK, {"S": 4, "C": 4})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 4, 4), dtype=np.uint8)
    images[2] = 7  # constant: no division by zero
    cam = run(served, image=images)["cam"]
    grey = images.astype(np.float64)
    expected = np.stack([(s - s.mean()) / (s.std() + 1e-6) for s in grey])
    assert np.abs(cam - expected).max() <= 1e-5
    assert not cam[2].any()


def test_the_served_graphs_agree_with_pytorch(network: densenet.DenseNet) -> None:
    core = to_onnx(network, (1, SIDE, SIDE), inputs=["x"], outputs=["prob", "logit", "cam_raw"])
    session = ort.InferenceSession(core.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(9)
    grey = rng.random((3, 1, SIDE, SIDE), np.float32)
    with torch.no_grad():
        expected = [t.numpy() for t in network(torch.from_numpy(grey))]
    for count in (1, 3):
        for got, want in zip(session.run(None, {"x": grey[:count]}), expected, strict=True):
            assert np.abs(got - want[:count]).max() <= 1e-5

    bias = network.layers[densenet.HEAD].bias.item()
    for served_network, pixels in (
        (catalog.RAW_HU_NETWORK, rng.integers(-1024, 1400, (3, SIDE, SIDE)).astype(np.int16)),
        (catalog.MASKED_NETWORK, rng.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)),
    ):
        name = served_network.inputs[0].name
        renamed = type(core).FromString(core.SerializeToString())
        for node in renamed.graph.node:
            node.input[:] = [name if i == "x" else i for i in node.input]
        renamed.graph.input[0].name = name
        out = run(RECIPE.wrap(renamed, served_network, SIZES), **{name: pixels})
        x = RECIPE.core_input(served_network, SIZES, {name: pixels})
        with torch.no_grad():
            want = RECIPE.outputs(served_network, network(x))
        scale = max(1.0, float(np.abs(want["cam"]).max()))
        for output in ("probability", "logit", "cam"):
            assert out[output].shape == want[output].shape
            assert np.abs(out[output] - want[output]).max() <= 1e-5 * scale, (name, output)
        check = out["cam"].mean((1, 2)) + bias - out["logit"][:, 0]
        assert (np.abs(check) <= 1e-3 * (1 + np.abs(out["logit"][:, 0]))).all()
