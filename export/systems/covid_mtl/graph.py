"""COVID-MTL's networks in ONNX: the cores, and what surrounds them (spec covid_mtl §14).

Cores are written node by node with BatchNorm folded into the convolutions: that takes no time,
where tracing would run 43 billion multiplications on volumes of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from onnx import ModelProto
from torch import nn

from hilum.catalog import Network
from hilum.catalog import covid_mtl as catalog
from hilum.catalog.covid_mtl_features import FEATURES as RADIOMIC_FEATURES

from ...graph import Nodes, join, value_info
from ...layers.decovnet import DeCoVNet
from ...layers.layers3d import Layers
from ...layers.resnet3d import WIDTHS, Block, ResNet3D
from . import decovnet_graph
from . import network as covid_mtl

IMAGE, FEATURES = "image", "features"
"""Inputs of the cores."""

SCORES = "scores"
"""Output of a core with a single one; the others are called after the heads."""

NOTHING: Mapping[str, int] = MappingProxyType({})


def to_onnx(core: nn.Module, opset: int) -> ModelProto:
    """Any core as ONNX: ``image`` [N, 1, 200, 250, 250] and what else it takes → class scores."""
    n = Layers("net")
    match core:
        case covid_mtl.Dual():
            return _dual(n, core, opset)
        case covid_mtl.VolumeOnly():
            x = _last_map(n, cast("covid_mtl.Backbone", core.get_submodule("features")))
            for branch, head in zip(covid_mtl.BRANCHES, catalog.HEADS, strict=True):
                n.name(_branch(n, core.get_submodule(branch), x), head)
            return _model(n, {h.name: len(h.classes) for h in catalog.HEADS.values()}, opset)
        case covid_mtl.SingleTask():
            n.name(_branch(n, core.classifier, _last_map(n, core)), SCORES)
            return _model(n, {SCORES: _convolution(core.classifier).out_channels}, opset)
        case ResNet3D():
            n.linear(n.mean(_resnet(n, core)), core.fc, out=SCORES)
            return _model(n, {SCORES: core.fc.out_features}, opset)
        case DeCoVNet():
            return decovnet_graph.to_onnx(core, opset, IMAGE, SCORES)
        case _:
            raise TypeError(type(core).__name__)


def _model(
    n: Layers, outputs: Mapping[str, int], opset: int, *, more: Mapping[str, int] = NOTHING
) -> ModelProto:
    inputs = {IMAGE: (1, *catalog.WINDOW), **{name: (length,) for name, length in more.items()}}
    return n.model(inputs, {name: (length,) for name, length in outputs.items()}, opset)


def _dual(n: Layers, core: covid_mtl.Dual, opset: int) -> ModelProto:
    seen = _last_map(n, cast("covid_mtl.Backbone", core.get_submodule(covid_mtl.BACKBONE)))
    features = _feed_forward(n, core.get_submodule(covid_mtl.RADIOMICS), FEATURES)
    heads = zip(covid_mtl.BRANCHES, covid_mtl.HEADS, catalog.HEADS, strict=True)
    for branch, last, head in heads:
        both = n.add("Concat", _branch(n, core.get_submodule(branch), seen), features, axis=1)
        n.linear(n.relu(both), list(core.get_submodule(last).children())[-1], out=head)
    outputs = {h.name: len(h.classes) for h in catalog.HEADS.values()}
    return _model(n, outputs, opset, more={FEATURES: len(RADIOMIC_FEATURES)})


def _last_map(n: Layers, core: covid_mtl.Backbone) -> str:
    conv, norm, _ = core.convbn.children()
    x = n.relu(n.conv(IMAGE, conv, norm))
    for layer in core.features.children():
        x = _fire(n, layer, x) if isinstance(layer, covid_mtl.Fire) else n.max_pool(x, layer)
    return x


def _fire(n: Layers, fire: covid_mtl.Fire, x: str) -> str:
    y = n.relu(n.conv(x, fire.squeeze, fire.squeeze_bn))
    small = n.conv(y, fire.expand1x1, fire.expand1x1_bn)
    joined = n.add("Concat", small, n.conv(y, fire.expand3x3, fire.expand3x3_bn), axis=1)
    return n.relu(n.add("Add", joined, x) if fire.bypass else joined)


def _convolution(branch: nn.Module) -> nn.Conv3d:
    return next(layer for layer in branch.children() if isinstance(layer, nn.Conv3d))


def _branch(n: Layers, branch: nn.Module, x: str) -> str:
    return n.mean(n.relu(n.conv(x, _convolution(branch))))


def _feed_forward(n: Layers, branch: nn.Module, x: str) -> str:
    layers = [m for m in branch.modules() if isinstance(m, nn.Linear)]
    for layer in layers[:-1]:
        x = n.relu(n.linear(x, layer))
    return n.linear(x, layers[-1])


def _resnet(n: Layers, core: ResNet3D) -> str:
    x = n.max_pool(n.relu(n.conv(IMAGE, core.conv1, core.bn1)), core.maxpool)
    for number in range(1, 1 + len(WIDTHS)):
        for layer in core.get_submodule(f"layer{number}").children():
            block = cast("Block", layer)
            y = n.relu(n.conv(x, block.conv1, block.bn1))
            y = n.conv(y, block.conv2, block.bn2)
            if block.downsample is not None:
                x = n.conv(x, *block.downsample.children())
            x = n.relu(n.add("Add", y, x))
    return x


def core_outputs(network: Network) -> dict[str, str]:
    """Output of the core by the served output that its softmax is."""
    if len(network.outputs) == 1:
        return {network.outputs[0].name: SCORES}
    return {head.output: head.name for head in catalog.HEADS.values()}


def wrap(core: ModelProto, network: Network, sizes: Mapping[str, int]) -> ModelProto:
    """The served model around a core: normalisation before and softmax after it, both in FP32."""
    front, back = Nodes("front"), Nodes("back")
    first = network.inputs[0].name
    if first == catalog.VOLUME.name:
        stored = front.cast(first, "FP32")
        clipped = front.add("Clip", stored, "", front.floats(catalog.CLIP))
        centred = front.add("Sub", clipped, front.floats(catalog.MEAN))
        scaled = front.add("Div", centred, front.floats(catalog.STD))
        front.add("Unsqueeze", scaled, front.axes(1), out=f"core/{IMAGE}")
    else:
        front.cast(first, "FP32", out=f"core/{IMAGE}")
    if len(network.inputs) > 1:
        front.add("Identity", network.inputs[1].name, out=f"core/{FEATURES}")
    for served, scores in core_outputs(network).items():
        back.add("Softmax", f"core/{scores}", out=served, axis=1)
    free = {-1: "T"}
    return join(
        core,
        front,
        back,
        [value_info(t, [free.get(d, d) for d in t.resolved(sizes)]) for t in network.inputs],
        [value_info(t, t.resolved(sizes)) for t in network.outputs],
    )
