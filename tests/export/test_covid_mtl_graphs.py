"""COVID-MTL's served graphs against PyTorch, in ONNX Runtime and through a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mtl_networks
import numpy as np
import onnx
import pytest
import torch
from ct_networks import run
from mtl_networks import filled
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from torch import Tensor, nn

from hilum.catalog import Network, at_precision
from hilum.catalog import covid_mtl as catalog
from hilum.catalog.errors import ExportError
from hilum.client import Client
from hilum.export.declarations import write_declarations
from hilum.export.layers.layers3d import Layers
from hilum.export.precision import to_half
from hilum.export.recipes import all_inputs
from hilum.export.repository import export_system
from hilum.export.systems.covid_mtl import network as covid_mtl
from hilum.export.systems.covid_mtl import random as covid_mtl_random
from hilum.export.systems.covid_mtl.graph import FEATURES, IMAGE, core_outputs
from hilum.export.systems.covid_mtl.recipe import RECIPE
from hilum.server.launcher import TritonServer

SMALL = (40, 48, 56)
OPERATORS = {
    "Add", "Cast", "Clip", "Concat", "Conv", "Div", "Gemm", "Identity", "MaxPool", "ReduceMean",
    "Relu", "Softmax", "Sub", "Unsqueeze",
}  # fmt: skip
"""Of spec covid_mtl §14, and two that move nothing. None of them rolls."""

ALIKE = {"nat", "resnet_ct", "resnet_nat"}
"""These differ from others in the names and number of their scores alone."""

NETWORKS = [n.name for n in catalog.SYSTEM.networks if n.name not in ALIKE]


def small(network: Network) -> Network:
    """The network for a volume that takes no time: nothing in it depends on the size."""
    first, *more = network.inputs
    if first.name != catalog.VOLUME.name:
        return network
    return replace(network, inputs=(replace(first, shape=SMALL), *more))


def served(core: nn.Module, network: Network, *, half: bool = False) -> ModelProto:
    model = RECIPE.to_onnx(core, 18)
    return RECIPE.wrap(to_half(model) if half else model, network, {})


def with_scores(model: ModelProto, network: Network) -> ModelProto:
    """The graph with the class scores as further outputs."""
    for name in core_outputs(network).values():
        info = helper.make_tensor_value_info(f"core/{name}", TensorProto.FLOAT, None)
        model.graph.output.append(info)
    return model


def inputs(network: Network, count: int) -> dict[str, NDArray[Any]]:
    if network.inputs[0].name != catalog.VOLUME.name:
        shape = (21, *catalog.DECOVNET_PLANE)
        study = covid_mtl_random.synthetic_study(1, shape)
        noise = np.random.default_rng(2).random(study.shape, np.float32)
        return {"study": np.stack([study, noise][:count])}
    volumes = [covid_mtl_random.synthetic_volume(k, SMALL) for k in range(count)]
    made: dict[str, NDArray[Any]] = {"volume": np.stack(volumes)}
    if len(network.inputs) > 1:
        made["radiomics"] = np.random.default_rng(3).random((count, 375), np.float32)
    return made


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.load if n == "resnet_severity" else []) for n in NETWORKS],
)
def test_served_graphs_agree_with_pytorch(name: str) -> None:
    network = small(catalog.SYSTEM.network(name))
    core = filled(covid_mtl.build(network))
    model = served(core, network)
    onnx.checker.check_model(model, full_check=True)
    with_scores(model, network)
    everything = inputs(network, 2)
    with torch.inference_mode():
        scores = core(*all_inputs(RECIPE.core_input(network, {}, everything)))
    want = RECIPE.outputs(network, scores)
    for count in (1, 2):
        few = RECIPE.first(network, everything, count)
        got = run(model, **few)
        for (served_name, core_name), score in zip(
            core_outputs(network).items(), scores, strict=True
        ):
            apart = np.abs(got[f"core/{core_name}"] - score[:count].numpy()).max()
            assert apart <= 1e-4 * max(1.0, float(score.abs().max()) / 10)
            assert got[served_name].dtype == np.float32
            assert np.abs(got[served_name] - want[served_name][:count]).max() <= 1e-4
    assert all((t[0] - t[1]).abs().max() > 1e-4 for t in scores)


def test_graphs_consist_of_few_operators() -> None:
    for network in (catalog.DUAL, catalog.VOLUME_ONLY, *catalog.SINGLE.values()):
        model = served(covid_mtl.build(network), network)
        assert {node.op_type for node in model.graph.node} <= OPERATORS
        assert [i.name for i in model.graph.input] == [t.name for t in network.inputs]
    network = catalog.DECOVNET_PARITY
    model = served(covid_mtl.build(network), network)
    assert sum(n.op_type == "Sqrt" for n in model.graph.node) == 9
    study = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value or d.dim_param for d in study] == ["N", 2, "T", 224, 336]


def test_decovnet_is_exact_for_studies_of_any_length() -> None:
    core = filled(covid_mtl.build(catalog.DECOVNET))
    model = with_scores(served(core, catalog.DECOVNET), catalog.DECOVNET)
    for slices in (2, 33, 42):
        study = covid_mtl_random.synthetic_study(slices, (slices, *catalog.DECOVNET_PLANE))[None]
        with torch.inference_mode():
            (want,) = core(torch.from_numpy(study))
        assert np.abs(run(model, study=study)["core/scores"] - want.numpy()).max() <= 1e-5


def normalising_core() -> ModelProto:
    """Gives what a volume of 1 × 1 × 2 voxels is normalised to."""
    shape = np.array([-1, 2], np.int64)
    graph = helper.make_graph(
        [helper.make_node("Reshape", [IMAGE, "shape"], ["scores"])],
        "core",
        [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, ["N", 1, 1, 1, 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2])],
        [onnx.numpy_helper.from_array(shape, "shape")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_normalisation_is_that_of_the_specification() -> None:
    """Spec covid_mtl §17, vector 1."""
    network = catalog.SINGLE["ct"]
    network = replace(network, inputs=(replace(catalog.VOLUME, shape=(1, 1, 2)),))
    volume = np.array([[0, 500], [1024, 2000], [2048, 60000]], np.float16).reshape(3, 1, 1, 2)
    want = [-0.196196, 5.674416, 11.826817, 23.286251, 23.286251, 23.286251]
    model = with_scores(RECIPE.wrap(normalising_core(), network, {}), network)
    assert run(model, volume=volume)["core/scores"].ravel() == pytest.approx(want, abs=1e-6)
    reference = RECIPE.core_input(network, {}, {"volume": volume})
    assert reference.shape == (3, 1, 1, 1, 2)
    assert reference.ravel().tolist() == pytest.approx(want, abs=1e-6)
    half = reference.half().ravel()[:4].tolist()
    assert half == pytest.approx([-0.19617, 5.67578, 11.82813, 23.28125], abs=5e-6)


@pytest.mark.parametrize("name", ["dual", "decovnet", "decovnet_parity"])
def test_half_precision_changes_little(name: str) -> None:
    network = at_precision(small(catalog.SYSTEM.network(name)), "fp16")
    core, _ = RECIPE.build_random(network, 0)
    model = with_scores(served(core, network, half=True), network)
    weights = {i.data_type for i in model.graph.initializer if i.name.startswith("core/")}
    assert TensorProto.FLOAT16 in weights
    given = inputs(network, 1)
    given = {t.name: given[t.name].astype(DTYPES[t.dtype]) for t in network.inputs}
    with torch.inference_mode():
        scores = core(*all_inputs(RECIPE.core_input(network, {}, given)))
    got = run(model, **given)
    for served_name, want in RECIPE.outputs(network, scores).items():
        assert np.abs(got[served_name] - want).max() <= 5e-3


DTYPES = {"FP16": np.float16, "FP32": np.float32}


def test_random_weights_are_reproducible_and_reported() -> None:
    for network in (catalog.SINGLE["severity"], catalog.DECOVNET_PARITY):
        core, told = RECIPE.build_random(network, 4)
        again, _ = RECIPE.build_random(network, 4)
        other, _ = RECIPE.build_random(network, 5)
        state, same, differs = core.state_dict(), again.state_dict(), other.state_dict()
        assert all(torch.equal(t, same[name]) for name, t in state.items())
        assert not all(torch.equal(t, differs[name]) for name, t in state.items())
        assert "random (seed 4)" in told
    assert core.s1["pathway0_stem"].bn.per_volume


@pytest.fixture(scope="module")
def dual() -> nn.Module:
    """The golden dual network."""
    return filled(covid_mtl.build(catalog.DUAL))


@pytest.fixture(scope="module")
def scans() -> dict[str, NDArray[Any]]:
    """The golden scan, and the same mirrored with other features."""
    volume, radiomics = mtl_networks.stored_volume(), mtl_networks.radiomics()
    return {
        "volume": np.stack([volume, volume[::-1, :, ::-1]]),
        "radiomics": np.stack([radiomics, radiomics[::-1]]),
    }


@pytest.fixture(scope="module")
def computed(dual: nn.Module, scans: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Class scores of both scans, and what every stage gives for the first."""
    traces: dict[str, list[float]] = {}
    stages = ["radioFNN", "features.convbn", *covid_mtl.BRANCHES]
    stages += [f"features.features.{i}" for i in range(12)]

    def keep(stage: str, out: Tensor) -> None:
        first = out[0].double()
        traces[stage] = [
            first.mean().item(),
            first.std(correction=0).item(),
            first.abs().max().item(),
        ]

    hooks = [
        dual.get_submodule(s).register_forward_hook(lambda _m, _i, out, s=s: keep(s, out))
        for s in stages
    ]
    with torch.inference_mode():
        scores = dual(*all_inputs(RECIPE.core_input(catalog.DUAL, {}, scans)))
    for hook in hooks:
        hook.remove()
    return {"scores": scores, "traces": traces}


def test_the_dual_network_gives_the_golden_scores(
    golden: Path, dual: nn.Module, computed: dict[str, Any]
) -> None:
    expected = json.loads((golden / "mtl" / "network.json").read_text())["covid_mtl"]
    for got, want in zip(computed["scores"], expected["logits"], strict=True):
        assert got[0].tolist() == pytest.approx(want, abs=1e-4)
    probabilities = RECIPE.outputs(catalog.DUAL, computed["scores"])
    for got, want in zip(probabilities.values(), expected["softmax"], strict=True):
        assert got[0].tolist() == pytest.approx(want, abs=1e-5)
    assert computed["traces"].keys() == expected["trace"].keys()
    for stage, trace in expected["trace"].items():
        want = trace["mean_std_absmax"]
        assert computed["traces"][stage] == pytest.approx(want, rel=1e-5, abs=1e-5), stage
    with torch.no_grad():
        told = dual.get_submodule("radioFNN")(torch.from_numpy(mtl_networks.radiomics())[None])
    assert told[0].tolist() == pytest.approx(expected["radioFNN_out"], abs=1e-6)


@pytest.fixture(scope="module")
def server(dual: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with the golden dual network and the ensemble around it."""
    repository = tmp_path_factory.mktemp("mtl")
    write_declarations(repository, [catalog.SYSTEM])
    file = repository / catalog.DUAL.model / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(served(dual, catalog.DUAL).SerializeToString())
    with TritonServer(repository, models=[catalog.ENSEMBLE.model], grace=0) as running:
        yield running


def test_a_server_gives_the_same_scores_in_batches_of_one_and_two(
    server: TritonServer, scans: dict[str, NDArray[Any]], computed: dict[str, Any]
) -> None:
    """Scores are told by probabilities up to one constant for each head."""
    names = [t.name for t in catalog.ANSWERS]
    with Client(server.grpc_url, deadline_s=120) as client:
        for count in (1, 2):
            few = {name: np.ascontiguousarray(a[:count]) for name, a in scans.items()}
            answer = client.infer(catalog.ENSEMBLE.model, few, names)
            for name, scores in zip(names, computed["scores"], strict=True):
                told = np.log(answer.outputs[name])
                want = scores[:count].numpy()
                apart = centred(told) - centred(want)
                assert np.abs(apart).max() <= 1e-4, (name, count)


def centred(scores: NDArray[Any]) -> NDArray[Any]:
    return scores - scores.mean(1, keepdims=True)


def test_a_user_s_network_of_two_inputs_takes_the_place_of_the_dual_one(tmp_path: Path) -> None:
    """Its scores are means of the volume and of the features."""
    n = Layers("own")
    mean = n.mean(IMAGE)
    told = n.add("ReduceMean", FEATURES, n.axes(1), keepdims=1)
    for head in catalog.HEADS.values():
        two = [mean, told]
        n.add("Concat", *(two * 2)[: len(head.classes)], out=head.name, axis=1)
    shapes = {h.name: (len(h.classes),) for h in catalog.HEADS.values()}
    model = n.model({IMAGE: (1, *catalog.WINDOW), FEATURES: (375,)}, shapes, 18)
    onnx.save(model, tmp_path / "own.onnx")
    (certificate,) = export_system(
        catalog.SYSTEM, repository=tmp_path / "repository", onnx={"dual": tmp_path / "own.onnx"}
    )
    parity = certificate["parity"]
    assert parity["reference"] == "the user's file in ONNX Runtime"
    assert parity["batches"] == [1, 2]
    assert {"core input", "core features", "core severity"} < parity["largest_difference"].keys()
    del model.graph.input[1]
    with pytest.raises(ExportError, match="features"):
        onnx.save(model, tmp_path / "own.onnx")
        export_system(
            catalog.SYSTEM, repository=tmp_path / "repository", onnx={"dual": tmp_path / "own.onnx"}
        )
