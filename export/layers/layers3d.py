"""Writing the layers of 3-D PyTorch networks as ONNX nodes, BatchNorm folded in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from onnx import ModelProto, TensorProto, helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..graph import BATCH, NEWEST_IR, Nodes

SPACE = (2, 3, 4)
"""Axes of depth, height and width."""


class Layers(Nodes):
    """Nodes for layers in eval mode; tensors are FP32 [N, C, D, H, W]."""

    def parameter(self, tensor: Tensor | None) -> str:
        """Add a weight or bias and return its name."""
        return self.floats(cast("Tensor", tensor).detach().numpy())

    def conv(self, x: str, layer: nn.Module, norm: nn.Module | None = None) -> str:
        """Add a convolution that does the normalisation after it, too."""
        conv = cast("nn.Conv3d", layer)
        weight, bias = conv.weight, conv.bias
        if norm is not None:
            weight, bias = folded(conv, cast("nn.BatchNorm3d", norm))
        parameters = [self.parameter(weight)] + ([] if bias is None else [self.parameter(bias)])
        padding = cast("tuple[int, ...]", conv.padding)
        return self.add(
            "Conv",
            x,
            *parameters,
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[*padding, *padding],
        )

    def instance_norm(self, x: str, norm: nn.BatchNorm3d) -> str:
        """Add a normalisation by the statistics of each volume.

        ONNX has an operator for it, but ONNX Runtime sums 400 000 voxels one after the other in
        float32 there, which costs the fourth digit of a score.
        """
        column = (1, -1, 1, 1, 1)
        weight, bias = (self.parameter(p.reshape(column)) for p in (norm.weight, norm.bias))
        centred = self.add("Sub", x, self._means(x))
        variance = self._means(self.add("Mul", centred, centred))
        spread = self.add("Sqrt", self.add("Add", variance, self.floats(norm.eps)))
        scale = self.add("Div", weight, spread)
        return self.add("Add", self.add("Mul", centred, scale), bias)

    def _means(self, x: str) -> str:
        for axis in reversed(SPACE):
            x = self.add("ReduceMean", x, self.axes(axis), keepdims=1)
        return x

    def relu(self, x: str) -> str:
        """Add a ReLU."""
        return self.add("Relu", x)

    def max_pool(self, x: str, layer: nn.Module) -> str:
        """Add a max-pool."""
        pool = cast("nn.MaxPool3d", layer)
        kernel, stride, padding = (
            [value] * 3 if isinstance(value, int) else list(value)
            for value in (pool.kernel_size, pool.stride, pool.padding)
        )
        return self.add(
            "MaxPool", x, kernel_shape=kernel, strides=stride, pads=[*padding, *padding]
        )

    def mean(self, x: str) -> str:
        """Add the mean over the map: [N, C]."""
        return self.add("ReduceMean", x, self.axes(*SPACE), keepdims=0)

    def linear(self, x: str, layer: nn.Module, out: str | None = None) -> str:
        """Add a linear layer; [N, C] → [N, K]."""
        linear = cast("nn.Linear", layer)
        weight, bias = self.parameter(linear.weight), self.parameter(linear.bias)
        return self.add("Gemm", x, weight, bias, out=out, transB=1)

    def name(self, x: str, out: str) -> str:
        """Give a tensor the name of an output."""
        return self.add("Identity", x, out=out)

    def model(
        self,
        inputs: Mapping[str, Sequence[int | str]],
        outputs: Mapping[str, Sequence[int | str]],
        opset: int,
    ) -> ModelProto:
        """The nodes as a model; shapes by name, without the batch axis."""
        given, made = (
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])
                for name, shape in tensors.items()
            ]
            for tensors in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, self.prefix, given, made, self.constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=NEWEST_IR
        )


def folded(layer: nn.Conv3d, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does its normalisation, too.

    In float64, rounded once.
    """
    mean, var = (cast("Tensor", t).double() for t in (norm.running_mean, norm.running_var))
    with torch.no_grad():
        weight, bias = fuse_conv_bn_weights(
            layer.weight.double(),
            None if layer.bias is None else layer.bias.double(),
            mean,
            var,
            norm.eps,
            norm.weight.double(),
            norm.bias.double(),
        )
    return weight.float(), bias.float()
