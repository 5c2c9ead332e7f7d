"""How far results lie from a reference's: the largest difference, and decisions that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import Network
from hilum.catalog.errors import InferenceFailed

from .instrument.record import Deviation

Outputs = Mapping[str, NDArray[Any]]

CUT = 0.5
"""A probability above it is a decision."""

FEW_DECISIONS, FAR = 0.005, 0.1
"""Share of decisions, and difference in proportion to the reference's reach, beyond which results
are called other results: FP16 and bfloat16 stay below, other weights do not."""


@dataclass(frozen=True, slots=True)
class Found:
    """A deviation, and whether it is larger than rounding explains."""

    deviation: Deviation
    other_result: bool


def compare(
    network: Network,
    unbounded: frozenset[str],
    given: Sequence[Outputs],
    wanted: Sequence[Outputs],
    reference: str,
) -> Found:
    """Compare results with the reference's on the same inputs.

    Numbers are those of the outputs of floating point type. Decisions are labels and masks, element
    by element; probabilities above one half; and of a vector of classes the likeliest one.

    Parameters
    ----------
    unbounded
        Outputs of floating point type that are no probabilities.
    given
        For each input what was found, some or all outputs.
    wanted
        For each input the reference's, all outputs.

    Raises
    ------
    InferenceFailed
        For numbers that are not finite, or outputs of other shapes.
    """
    largest, reach, differing, total = 0.0, 0.0, 0, 0
    for found, reference_outputs in zip(given, wanted, strict=True):
        for tensor in network.outputs:
            if tensor.name not in found:
                continue
            a, b = found[tensor.name], reference_outputs[tensor.name]
            if a.shape != b.shape:
                raise InferenceFailed(
                    f"{network.model}: output {tensor.name!r} is {list(a.shape)}, the reference's "
                    f"{list(b.shape)}"
                )
            if a.dtype.kind == "f":
                apart, far = _apart(network, tensor.name, a, b)
                largest, reach = max(largest, apart), max(reach, far)
                if tensor.name in unbounded:
                    continue
                a, b = (_decisions(x, bool(tensor.labels)) for x in (a, b))
            differing += int(np.count_nonzero(a != b))
            total += a.size
    share = differing / total if total else 0.0
    other = share > FEW_DECISIONS or largest > FAR * max(reach, 1.0)
    return Found(Deviation(largest, differing, total, reference), other)


def _apart(network: Network, name: str, a: NDArray[Any], b: NDArray[Any]) -> tuple[float, float]:
    wide, reference = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(wide).all() and np.isfinite(reference).all()):
        raise InferenceFailed(f"{network.model}: output {name!r} has numbers that are not finite")
    return float(np.abs(wide - reference).max()), float(np.abs(reference).max())


def _decisions(array: NDArray[Any], classes: bool) -> NDArray[Any]:
    return array.argmax(axis=-1) if classes else array > CUT
