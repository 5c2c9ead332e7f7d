"""CT-Angel's network against its specification."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from ct_networks import arrays, calibrated, elements, hand_core, macs, run

from hilum.catalog import ct_angel as catalog
from hilum.export.onnx_export import to_onnx
from hilum.export.systems.ct_angel import network as ct_angel
from hilum.export.systems.ct_angel.recipe import RECIPE

SIDE = 64

NODES = {  # name: parameters, GMAC at 512 (spec ct_angel §4.3)
    "5-1": (674_176, 0.288),
    "4-1": (5_965_824, 11.543),
    "4-2": (2_426_880, 9.731),
    "3-1": (1_491_968, 11.543),
    "3-2": (1_115_136, 11.811),
    "3-3": (1_262_592, 14.227),
    "2-1": (336_384, 9.127),
    "2-2": (242_176, 9.395),
    "2-3": (279_040, 11.811),
    "2-4": (315_904, 14.227),
    "1-5": (42_240, 4.563),
}


@pytest.fixture(scope="module")
def network() -> ct_angel.NestedUNet:
    return calibrated(ct_angel.build, (4, 3, SIDE, SIDE), 1.0, seed=3)


def _node(name: str) -> str:
    return f"decoder_stage{name}_"


def test_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = ct_angel.build()
    found = arrays(network)
    assert len(found) == 368
    assert elements(network) == 37_698_666
    assert sum(p.numel() for p in network.parameters()) == 37_648_292
    decoder = sum(
        t.numel() for n, t in found.items() if n.startswith(("layers.dec", "layers.final"))
    )
    assert decoder == 14_152_609
    assert network.layers["decoder_stage5-1_upsample"].weight.shape == (2048, 16, 4, 4)


def test_every_node_costs_what_the_table_says() -> None:
    with torch.device("meta"):
        network = ct_angel.build()
        counts = macs(network, torch.zeros(1, 3, 512, 512))
    assert counts["Global"] == pytest.approx(129.69e9, abs=0.005e9)
    for name, (parameters, gmac) in NODES.items():
        own = sum(t.numel() for k, t in arrays(network).items() if _node(name) in k)
        cost = sum(n for k, n in counts.items() if _node(name) in k)
        assert own == parameters, name
        assert cost == pytest.approx(gmac * 1e9, abs=0.0006e9), name
    decoder = sum(n for k, n in counts.items() if ".decoder_" in k or "final_conv" in k)
    assert decoder == pytest.approx(108.34e9, abs=0.005e9)


def test_taps_are_the_activations_of_the_table(network: ct_angel.NestedUNet) -> None:
    norms = {
        "X1": "bn0", "X2": "stage2_unit1_bn1", "X3": "stage3_unit1_bn1",
        "X4": "stage4_unit1_bn1", "D2": "stage1_unit2_bn1", "D3": "stage2_unit2_bn1",
        "D4": "stage3_unit2_bn1", "D5": "bn1",
    }  # fmt: skip
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        network.layers[layer].register_forward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(name, out.relu())
        )
        for name, layer in norms.items()
    ]
    with torch.no_grad():
        skips, sources = network.encode(torch.rand(1, 3, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    taps = {f"X{i}": t for i, t in skips.items()} | {f"D{i}": t for i, t in sources.items()}
    assert taps.keys() == norms.keys()
    for name, tap in taps.items():
        assert torch.equal(tap, seen[name]), name
    shapes = {name: (SIDE // tap.shape[-1], tap.shape[1]) for name, tap in taps.items()}
    assert shapes == {
        "X1": (2, 64), "X2": (4, 256), "X3": (8, 512), "X4": (16, 1024),
        "D2": (4, 256), "D3": (8, 512), "D4": (16, 1024), "D5": (32, 2048),
    }  # fmt: skip


def test_nodes_join_the_upsampled_first_then_the_skips_in_order(
    network: ct_angel.NestedUNet,
) -> None:
    seen: dict[str, torch.Tensor] = {}
    names = ("2-1_bn1", "2-1_bn2", "2-2_bn2", "2-3_bn1", "3-2_bn2")
    hooks = [
        network.layers[f"decoder_stage{name}"].register_forward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(name, out.relu())
        )
        for name in names
    ]
    joined: list[torch.Tensor] = []
    hooks.append(
        network.layers["decoder_stage2-3_conv2"].register_forward_pre_hook(
            lambda _m, args: joined.append(args[0])
        )
    )
    image = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        skips, _ = network.encode(image)
        network(image)
        layers = network.layers
        up = layers["decoder_stage2-3_bn1"](layers["decoder_stage2-3_upsample"](seen["3-2_bn2"]))
    for hook in hooks:
        hook.remove()
    expected = torch.cat([up.relu(), skips[1], seen["2-1_bn2"], seen["2-2_bn2"]], 1)
    assert torch.equal(joined[0], expected)


def test_bn_data_is_not_folded_over_the_border(network: ct_angel.NestedUNet) -> None:
    """Zeros are padded after ``bn_data``: what it adds must not reach beyond the border."""
    image = torch.rand(1, 3, SIDE, SIDE)
    norm, conv = network.layers["bn_data"], network.layers["conv0"]
    with torch.no_grad():
        scale = (norm.running_var + ct_angel.ENCODER_EPS).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        normed = image * scale[:, None, None] + shift[:, None, None]
        padded = torch.nn.functional.pad(normed, (3, 3, 3, 3))
        expected = torch.nn.functional.conv2d(padded, conv.weight, stride=2)
        assert torch.allclose(conv(norm(image)), expected, atol=1e-5)


def test_the_served_graph_agrees_with_pytorch(network: ct_angel.NestedUNet) -> None:
    core = to_onnx(network, (3, SIDE, SIDE), inputs=["image"], outputs=["prob"])
    session = ort.InferenceSession(core.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(4)
    grey = np.clip(rng.normal(120, 60, (3, SIDE, SIDE)), 0, 255).astype(np.uint8)
    image = RECIPE.core_input(catalog.LESION, {"S": SIDE}, {"image": grey})
    with torch.no_grad():
        (expected,) = network(image)
    assert expected.std() > 0.01
    for count in (1, 3):
        (got,) = session.run(None, {"image": image[:count].numpy()})
        assert np.abs(got - expected[:count].numpy()).max() <= 1e-5

    served = RECIPE.wrap(core, catalog.LESION, {"S": SIDE})
    threshold = np.quantile(expected.numpy(), [0.3, 0.6, 0.9]).astype(np.float32)[:, None]
    out = run(served, image=grey, threshold=threshold)
    assert out["probability"].dtype == np.float16
    assert np.abs(out["probability"] - expected[:, 0].numpy()).max() <= 5e-4
    want = expected[:, 0].numpy() >= threshold[:, :, None]
    near = np.abs(expected[:, 0].numpy() - threshold[:, :, None]) <= 1e-5
    assert out["mask"].dtype == np.uint8
    assert ((out["mask"] == want) | near).all()
    assert out["mask"].mean((1, 2)) == pytest.approx([0.7, 0.4, 0.1], abs=0.01)


def test_threshold_is_compared_in_float32_and_inclusive() -> None:
    table = np.array([0.5, 0.5019, 0.50196075, 128 / 255, 0.502], np.float32)

    def write(n) -> None:
        index = n.cast(n.add("Round", n.add("Mul", "image", n.floats(255))), "INT64")
        chosen = n.add("Gather", n.floats(table), index)
        n.add("Slice", chosen, n.axes(0), n.axes(1), n.axes(1), out="prob")

    core = hand_core(write, {"image": (3, 1, 5)}, ["prob"])
    # The graph is wrapped for squares; a single row of five values is served all the same.
    served = RECIPE.wrap(core, catalog.LESION, {"S": 5})
    for value in (*served.graph.input, *served.graph.output):
        if len(value.type.tensor_type.shape.dim) == 3:
            value.type.tensor_type.shape.dim[1].dim_value = 1
    image = np.arange(5, dtype=np.uint8).reshape(1, 1, 5)
    default = np.full((1, 1), catalog.THRESHOLD, np.float32)
    assert run(served, image=image, threshold=default)["mask"].tolist() == [[[0, 0, 0, 1, 1]]]
    lower = np.full((1, 1), 0.5, np.float32)
    assert run(served, image=image, threshold=lower)["mask"].tolist() == [[[1, 1, 1, 1, 1]]]
