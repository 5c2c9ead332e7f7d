"""COVID-MTL's networks and its comparators against their specification."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mtl_networks
import numpy as np
import onnxruntime as ort
import pytest
import torch
from ct_networks import macs
from mtl_networks import filled
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hilum.catalog import covid_mtl as catalog
from hilum.catalog.covid_mtl_features import FEATURES
from hilum.export.layers.decovnet import POOLS, DeCoVNet, Norm, windows
from hilum.export.layers.layers3d import Layers
from hilum.export.layers.resnet3d import ResNet3D
from hilum.export.systems.covid_mtl import network as covid_mtl
from hilum.export.systems.covid_mtl.decovnet_graph import BEFORE_HEAD, adaptive_pool
from hilum.export.systems.covid_mtl.recipe import RECIPE

COUNTS = {  # parameters, entries of the state dict, GMAC (spec §9.6, §9.7, §13)
    "dual": (3_848_199, 195, 43.588),
    "ct": (3_660_034, 177, 43.566),
    "severity": (3_660_547, 177, None),
    "resnet_ct": (63_460_930, 224, 52.291),
    # Of 838 242, those of the stages s4 and s5 are never computed.
    "decovnet": (346_978, None, 19.00),
}


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "mtl" / "network.json").read_text())


def example(network: Any, slices: int = 80) -> tuple[Tensor, ...]:
    shape = network.inputs[0].shape
    first = (1, *shape) if len(shape) == 3 else (2, slices, *shape[2:])
    more = [torch.zeros(1, len(FEATURES)) for _ in network.inputs[1:]]
    return (torch.zeros(1, *first), *more)


@pytest.mark.parametrize("name", COUNTS)
def test_sizes_are_the_published_ones(name: str) -> None:
    network = catalog.SYSTEM.network(name)
    parameters, entries, gmac = COUNTS[name]
    with torch.device("meta"):
        core = covid_mtl.build(network)
        assert sum(p.numel() for p in core.parameters()) == parameters
        assert entries in (None, len(core.state_dict()))
        assert [t.shape[1:] for t in core(*example(network))] == [t.shape for t in network.outputs]
        if gmac is not None:
            counts = macs(core, *example(network))
            assert counts["Global"] == pytest.approx(gmac * 1e9, abs=0.006e9)


def test_maps_have_the_sizes_of_the_table() -> None:
    table = {
        "convbn": (64, 100, 125, 125), "features.0": (64, 50, 63, 63),
        "features.1": (128, 50, 63, 63), "features.2": (128, 50, 63, 63),
        "features.3": (128, 25, 32, 32), "features.4": (256, 25, 32, 32),
        "features.5": (256, 25, 32, 32), "features.6": (256, 13, 16, 16),
        "features.7": (384, 13, 16, 16), "features.8": (384, 13, 16, 16),
        "features.9": (384, 7, 8, 8), "features.10": (512, 7, 8, 8), "features.11": (512, 7, 8, 8),
    }  # fmt: skip
    cost = {
        "convbn": 2700, "features.1": 11786, "features.2": 12193, "features.4": 6082,
        "features.5": 6291, "features.7": 1799, "features.8": 1840, "features.10": 433,
        "features.11": 440,
    }  # fmt: skip
    seen: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        core = covid_mtl.build(catalog.SINGLE["ct"])
        for name in table:
            core.get_submodule(name).register_forward_hook(
                lambda _m, _i, out, name=name: seen.__setitem__(name, tuple(out.shape[1:]))
            )
        counts = macs(core, *example(catalog.SINGLE["ct"]))
    assert seen == table
    for name, million in cost.items():
        assert counts[f"SingleTask.{name}"] == pytest.approx(million * 1e6, abs=0.6e6), name
    assert core.get_submodule("features.2").bypass
    assert not core.get_submodule("features.1").bypass


def test_names_are_those_of_the_table() -> None:
    """Spec covid_mtl §9.5, in its order."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    both = ("weight", "bias")
    names = [f"radioFNN.{layer}.{p}" for layer in
             ("features.0", "features.2", "features.4", "classifier") for p in both]  # fmt: skip
    names += [f"features.convbn.0.{p}" for p in both] + [f"features.convbn.1.{p}" for p in norm]
    for i in (1, 2, 4, 5, 7, 8, 10, 11):
        for layer in ("squeeze", "expand1x1", "expand3x3"):
            names += [f"features.features.{i}.{layer}.{p}" for p in both]
            names += [f"features.features.{i}.{layer}_bn.{p}" for p in norm]
    names += [f"classifier{k}_.1.{p}" for k in (1, 2, 3) for p in both]
    names += [f"classifier{k}.1.{p}" for k in (1, 2, 3) for p in both]
    with torch.device("meta"):
        state = covid_mtl.build(catalog.DUAL).state_dict()
    assert list(state) == names
    shapes = {
        "radioFNN.features.0.weight": (256, 375), "radioFNN.classifier.weight": (32, 64),
        "features.convbn.0.weight": (64, 1, 3, 3, 3), "classifier2_.1.weight": (32, 512, 1, 1, 1),
        "features.features.7.squeeze.weight": (96, 256, 1, 1, 1),
        "features.features.7.expand3x3.weight": (192, 96, 3, 3, 3),
        "classifier3.1.weight": (3, 64), "classifier3.1.bias": (3,),
    }  # fmt: skip
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_the_volume_only_network_is_the_dual_one_with_class_scores() -> None:
    with torch.device("meta"):
        core = covid_mtl.build(catalog.VOLUME_ONLY)
        published = sum(p.numel() for p in core.parameters())
        for head in catalog.HEADS.values():
            published += (512 + 1) * (32 - len(head.classes))
    assert published == 3_708_256  # with 32 scores for each head (spec §9.7)


@pytest.mark.parametrize(
    ("name", "build", "tolerance"),
    [
        ("squeezenet3d_2", lambda: covid_mtl.SingleTask(2), 1e-4),
        pytest.param("resnet3d34_2", lambda: ResNet3D(2), 1e-2, marks=pytest.mark.load),
        pytest.param("decovnet_1ch_200x250x250", lambda: DeCoVNet(1), 1e-4, marks=pytest.mark.load),
    ],
)
def test_comparators_give_the_golden_scores(
    expected: dict[str, Any], name: str, build: Callable[[], nn.Module], tolerance: float
) -> None:
    stored = mtl_networks.stored_volume()[None]
    image = RECIPE.core_input(catalog.VOLUME_ONLY, {}, {"volume": stored})
    with torch.inference_mode():
        (scores,) = filled(build())(image)
    assert scores[0].tolist() == pytest.approx(expected[name]["logits"], abs=tolerance)


def test_scores_without_radiomics_or_evidence_are_the_biases() -> None:
    """Spec covid_mtl §17, vectors 12 and 14."""
    core = covid_mtl.build(catalog.DUAL)
    volume = torch.zeros(1, 1, 40, 40, 40)
    with torch.no_grad():
        for name in covid_mtl.BRANCHES:
            core.get_submodule(f"{name}.1").weight.zero_()
            core.get_submodule(f"{name}.1").bias.fill_(-1)
        last = core.get_submodule("radioFNN.classifier")
        last.weight.zero_()
        last.bias.fill_(-1)
        scores = core(volume, torch.rand(1, 375))
        for name, got in zip(covid_mtl.HEADS, scores, strict=True):
            assert torch.equal(got[0], core.get_submodule(f"{name}.1").bias)
            for parameter in core.get_submodule(f"{name}.1").parameters():
                parameter.zero_()
        served = RECIPE.outputs(catalog.DUAL, core(volume, torch.rand(1, 375)))
    assert [p[0].tolist() for p in served.values()] == [
        [0.5, 0.5],
        [0.5, 0.5],
        pytest.approx([1 / 3] * 3),
    ]
    assert [int(p.argmax()) for p in served.values()] == [0, 0, 0]


@pytest.mark.parametrize("cells", [1, 4, 6, 16, 24, 36])
def test_windows_are_those_of_adaptive_pools(cells: int) -> None:
    rng = np.random.default_rng(cells)
    for length in range(1, 120):
        x = rng.standard_normal(length, np.float32)
        want = functional.adaptive_max_pool1d(torch.from_numpy(x)[None], cells)[0].numpy()
        assert np.array_equal(x[windows(length, cells)].max(1), want), length


def pool_session(before: Any, size: Any) -> ort.InferenceSession:
    n = Layers("pool")
    n.name(adaptive_pool(n, "x", before, size), "y")
    free = ("T", *BEFORE_HEAD) if before is None else before
    model = n.model({"x": (2, *free)}, {"y": (2, *size)}, 18)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_pools_in_onnx_are_exact_for_every_number_of_slices() -> None:
    rng = np.random.default_rng(1)
    first, *others = POOLS
    session = pool_session(None, first)
    for slices in (*range(1, 40), 63, 64, 65, 150):
        check_pool(session, rng.standard_normal((1, 2, slices, *BEFORE_HEAD), np.float32), first)
    for before, size in zip(POOLS, others, strict=False):
        check_pool(pool_session(before, size), rng.random((3, 2, *before), np.float32), size)


def check_pool(session: ort.InferenceSession, x: NDArray[np.float32], size: Any) -> None:
    want = functional.adaptive_max_pool3d(torch.from_numpy(x), size).numpy()
    (got,) = session.run(None, {"x": x})
    assert np.array_equal(got, want), x.shape


def test_decovnet_by_each_volume_s_own_statistics_is_its_training_mode() -> None:
    x = torch.rand(2, 2, 9, *catalog.DECOVNET_PLANE)
    own = filled(DeCoVNet(per_volume=True))
    stored = filled(DeCoVNet())
    with torch.no_grad():
        (got,) = own(x)
        (usual,) = stored(x)
        for module in stored.modules():
            if isinstance(module, Norm):
                module.train()
        alone = torch.cat([stored(volume[None])[0] for volume in x])
    assert (got - alone).abs().max() <= 1e-5
    assert (got - usual).abs().max() > 1e-3
