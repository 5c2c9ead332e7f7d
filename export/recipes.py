"""How the networks of each system are made, wrapped and checked: one line a system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import Network, System
from hilum.catalog.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

    from .checkpoints import Checkpoint

Arrays = dict[str, NDArray[Any]]
Sizes = Mapping[str, int]


def batch_of(network: Network, arrays: Mapping[str, NDArray[Any]], count: int) -> Arrays:  # noqa: ARG001
    """The first `count` items of a batch, contiguous."""
    return {name: np.ascontiguousarray(a[:count]) for name, a in arrays.items()}


def as_declared(network: Network, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Integers in the element types that a network declares, which engines have wider."""
    kinds = {t.name: "int32" if t.dtype == "INT32" else "int16" for t in network.inputs if t.wide}
    return {n: a.astype(kinds[n]) if n in kinds else a for n, a in arrays.items()}


def all_inputs(given: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What `Recipe.core_input` gives as a tuple, in the order of `CoreSignature.inputs`."""
    return given if isinstance(given, tuple) else (given,)


@dataclass(frozen=True, slots=True)
class CoreSignature:
    """What the bare network of a served model takes and gives, all FP32 with a batch axis.

    Attributes
    ----------
    input
        Name of the input, the first one if there are more.
    shape
        Of the input without the batch axis; names are sizes of the network, -1 is any length.
    outputs
        Shape without the batch axis by name.
    unbounded
        Outputs that are no probabilities: scores before a softmax, logits, activation maps.
    wide_input
        The input is not normalised, so what reads it needs FP32's range.
    more
        Shapes of further inputs by name, in order.
    """

    input: str
    shape: tuple[int | str, ...]
    outputs: Mapping[str, tuple[int | str, ...]]
    unbounded: frozenset[str] = frozenset()
    wide_input: bool = False
    more: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, tuple[int | str, ...]]:
        """Shapes of all inputs by name."""
        return {self.input: self.shape, **self.more}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the exporter needs to know about the networks of one system.

    Attributes
    ----------
    build
        Network and the tensors that it is to take → PyTorch core with the signature
        `core_signature`, untrained, in eval mode.
    build_random
        Network and seed → core with seeded weights, and what these are in words.
    wrap
        Core as ONNX → served model.
    core_input, outputs
        The reference path in PyTorch before and after the core: what it is given, its only input
        or a tuple of all, and what is made of what it gives.
    samples
        Network, sizes, seed → a batch of served inputs to compare on.
    sampled
        What these are, in words.
    checkpoints
        Folder → published checkpoints found below it; also others when the second argument says so.
    to_onnx
        PyTorch core and operator set → core as ONNX; without it torch traces the core.
    first
        The first items of served inputs: images of a batch, slices of a slab.
    """

    core_signature: Callable[[Network], CoreSignature]
    build: Callable[[Network, Mapping[str, Tensor]], nn.Module]
    build_random: Callable[[Network, int], tuple[nn.Module, str]]
    wrap: Callable[[ModelProto, Network, Sizes], ModelProto]
    core_input: Callable[[Network, Sizes, Mapping[str, NDArray[Any]]], Tensor | tuple[Tensor, ...]]
    outputs: Callable[[Network, tuple[Tensor, ...]], dict[str, NDArray[Any]]]
    samples: Callable[[Network, Sizes, int], Arrays]
    sampled: str
    checkpoints: Callable[[Path, bool], Sequence[Checkpoint]]
    to_onnx: Callable[[nn.Module, int], ModelProto] | None = None
    first: Callable[[Network, Mapping[str, NDArray[Any]], int], Arrays] = batch_of


_MODULES = {
    "covid-mtl": "covid_mtl",
    "ct-angel": "ct_angel",
    "ct-classifier": "ct_classifier",
    "cxr-severity": "cxr_severity",
    "dlpe": "dlpe",
    "lungmask": "lungmask",
}
"""Folder of `export/systems/` whose `recipe` has the RECIPE, by system."""


def recipe(system: System) -> Recipe:
    """The recipe of a system; imports torch."""
    try:
        module = _MODULES[system.name]
    except KeyError:
        raise ExportError(f"nothing is known about the networks of {system.name}") from None
    return import_module(f"{__package__}.systems.{module}.recipe").RECIPE
