"""What a pipeline can ask of the client that runs it.

A pipeline is a generator without any waiting of its own (`hilum.client.steps`); it needs no client
to be written or called, since the client that drives it answers::

    served = yield from calls.model("cxr_lung")
    pixels = yield calls.Compute(lambda: prepare(image))
    answer = yield from calls.infer("cxr_lung", {"image": pixels}, ["lung"])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from ..preprocessing.arrays import Array
from .models import ModelInfo
from .session import Inference
from .steps import Ask, Compute, Each, Sleep, Steps, Tell

T = TypeVar("T")
R = TypeVar("R")


def infer(
    model: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    *,
    deadline_s: float | None = None,
    output_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Steps[Inference]:
    """Run a model on arrays, see `Session.infer`."""
    options = {"deadline_s": deadline_s, "output_shapes": output_shapes}
    return (yield Ask("infer", (model, inputs, outputs), options))


def integers(name: str, inputs: Mapping[str, NDArray]) -> Steps[dict[str, NDArray]]:
    """Integer inputs of a model as wide as the server tells: engines take no 16-bit ones.

    What would lose something stays, and the server refuses it.
    """
    served = yield from model(name)
    found = dict(inputs)
    for key, array in inputs.items():
        wanted = triton_to_np_dtype(served.inputs[key].dtype)
        if wanted is not None and np.can_cast(array.dtype, wanted):
            found[key] = array.astype(wanted, copy=False)
    return found


def model(name: str) -> Steps[ModelInfo]:
    """Ask for the signature of a model as the server has it, see `Session.model`."""
    return (yield Ask("model", (name,)))


def models() -> Steps[tuple[str, ...]]:
    """Ask for the names of the models that are ready, see `Session.models`."""
    return (yield Ask("models"))


def about() -> Steps[dict[str, Any] | None]:
    """Ask what the server says about the weights it serves, see `Session.about`."""
    return (yield Ask("about"))


def each(make: Callable[[T], Steps[R]], items: Iterable[T], in_flight: int) -> Steps[list[R]]:
    """Run the steps that `make` gives for each item, `in_flight` at once; results in order."""
    return (yield Each(make, items, in_flight))


__all__ = [
    "Compute",
    "Inference",
    "ModelInfo",
    "Sleep",
    "Steps",
    "Tell",
    "about",
    "each",
    "infer",
    "integers",
    "model",
    "models",
]
