"""DLPE's networks in ONNX: the core with BatchNorm folded, and what surrounds it.

Slabs come in and probabilities go out: the windows of slices are cut from the slab inside the
graph, so a voxel travels once (spec dlpe §5.1, §5.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from hilum.catalog import Network
from hilum.catalog import dlpe as catalog

from ...graph import BATCH, NEWEST_IR, Nodes, join, value_info
from .network import LEVELS, UNet, task_of

IMAGE, LOGITS = "image", "logits"

END = 2**63 - 1
"""End of a slice that goes to the last entry."""


def to_onnx(core: nn.Module, opset: int) -> ModelProto:
    """The core with BatchNorm folded into the convolutions; number, height and width are free.

    Written node by node: that takes no time, where tracing a network in PyTorch takes seconds for
    each of 33.
    """
    network = cast("UNet", core)
    n = Nodes("unet")
    skips: list[str] = []
    x = IMAGE
    for level in LEVELS:
        skips.append(_block(n, network.get_submodule(f"encoder{level}"), x))
        x = n.add("MaxPool", skips[-1], kernel_shape=[2, 2], strides=[2, 2])
    x = _block(n, network.bottleneck, x)
    for level in reversed(LEVELS):
        up = cast("nn.ConvTranspose2d", network.get_submodule(f"upconv{level}"))
        x = n.add(
            "ConvTranspose", x, _weights(n, up.weight), _weights(n, up.bias),
            kernel_shape=[2, 2], strides=[2, 2],
        )  # fmt: skip
        x = n.add("Concat", x, skips.pop(), axis=1)
        x = _block(n, network.get_submodule(f"decoder{level}"), x)
    last = network.conv
    n.add(
        "Conv", x, _weights(n, last.weight), _weights(n, last.bias), out=LOGITS,
        kernel_shape=[1, 1],
    )  # fmt: skip
    first = cast("nn.Conv2d", next(network.get_submodule("encoder1").children()))
    graph = helper.make_graph(
        n.nodes,
        "unet",
        [_image(IMAGE, first.in_channels)],
        [_image(LOGITS, last.out_channels)],
        n.constants,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=NEWEST_IR
    )


def _image(name: str, channels: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, channels, "H", "W"])


def _block(n: Nodes, block: nn.Module, x: str) -> str:
    layers = list(block.children())
    for layer, norm in zip(layers[::3], layers[1::3], strict=True):
        weight, bias = folded(cast("nn.Conv2d", layer), cast("nn.BatchNorm2d", norm))
        x = n.add(
            "Conv", x, _weights(n, weight), _weights(n, bias),
            kernel_shape=[3, 3], pads=[1, 1, 1, 1],
        )  # fmt: skip
        x = n.add("Relu", x)
    return x


def folded(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution that does its normalisation, too (spec dlpe §4.1).

    In float64, rounded once.
    """
    mean, var = norm.running_mean, norm.running_var
    weight, bias = fuse_conv_bn_weights(
        layer.weight.double(),
        None,
        cast("torch.Tensor", mean).double(),
        cast("torch.Tensor", var).double(),
        norm.eps,
        norm.weight.double(),
        norm.bias.double(),
    )
    return weight.float(), bias.float()


def _weights(n: Nodes, tensor: torch.Tensor | None) -> str:
    return n.floats(cast("torch.Tensor", tensor).detach().numpy())


def wrap(core: ModelProto, network: Network, sizes: Mapping[str, int]) -> ModelProto:  # noqa: ARG001
    """The served model around a core that takes ``image`` and gives ``logits``."""
    task = task_of(network)
    front, back = Nodes("front"), Nodes("back")
    _gather(front, task, network.inputs[0].dtype)
    _probabilities(back, network)
    slices = {"slab": f"S + {2 * task.margin}"}
    return join(
        core,
        front,
        back,
        [value_info(t, [slices.get(t.name, "S"), "H", "W"], batch=False) for t in network.inputs],
        [value_info(t, ["S", "H", "W"], batch=False) for t in network.outputs],
    )


def _gather(n: Nodes, task: catalog.Task, dtype: str) -> None:
    """Each slice of the middle with its neighbours and masks: FP32 [S, C, H, W]."""
    channels = []
    for offset in task.window:
        start, end = task.margin + offset, offset - task.margin
        channels.append(n.add("Slice", "slab", n.axes(start), n.axes(end or END), n.axes(0)))
    channels += [n.cast(name, dtype) for name in task.enhance]
    axis = n.axes(1)
    image = n.add("Concat", *(n.add("Unsqueeze", c, axis) for c in channels), axis=1)
    n.cast(image, "FP32", out=f"core/{IMAGE}")


def _probabilities(n: Nodes, network: Network) -> None:
    """Entries of a softmax: p_k = 1 / (1 + Σ exp(l_j − l_k)) over the other classes j.

    As exact as the operator, and ten times as fast along an axis that is not the last. An exp
    that overflows gives 0.
    """
    count = 1 + len(network.outputs)
    logits = [
        n.add("Gather", f"core/{LOGITS}", n.constant(k, np.int64), axis=1) for k in range(count)
    ]
    for k, tensor in enumerate(network.outputs, 1):
        total = n.floats(1)
        for other in (*logits[:k], *logits[k + 1 :]):
            total = n.add("Add", total, n.add("Exp", n.add("Sub", other, logits[k])))
        n.cast(n.add("Reciprocal", total), tensor.dtype, out=tensor.name)
