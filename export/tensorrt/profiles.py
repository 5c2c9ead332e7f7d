"""Optimisation profiles: the shapes that an engine is built for, from the catalog.

TensorRT chooses kernels for the middle shape of a profile and takes every shape between its ends;
Triton gives each request to the profile whose middle is nearest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hilum.catalog import Network
from hilum.catalog.dlpe import MULTIPLE, PLANES
from hilum.catalog.errors import ExportError

Shape = tuple[int, ...]

SLABS = dict(zip(PLANES, (32, 32, 8), strict=True))
"""Slices of the longest slabs that a client sends by itself, margins not counted, by the side of
their planes: what kernels are chosen for, and the most that engines take. An execution context has
memory for it, whatever is sent."""

SHORTEST, LONGEST = 16, 512
"""Free lengths other than those of slabs: slices of 1 mm."""


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest, usual and largest shape of an input, batch axis included."""

    least: Shape
    usual: Shape
    most: Shape


@dataclass(frozen=True, slots=True)
class Profile:
    """One optimisation profile: a range for every input, by name."""

    name: str
    inputs: Mapping[str, Range]

    def as_json(self) -> dict[str, Any]:
        """The profile as ``engines.json`` has it."""
        return {
            "name": self.name,
            "inputs": {
                name: {"min": list(r.least), "opt": list(r.usual), "max": list(r.most)}
                for name, r in self.inputs.items()
            },
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Profile:
        """The reverse of `as_json`."""
        return cls(
            entry["name"],
            {
                name: Range(tuple(r["min"]), tuple(r["opt"]), tuple(r["max"]))
                for name, r in entry["inputs"].items()
            },
        )


def profiles(network: Network, sizes: Mapping[str, int]) -> tuple[Profile, ...]:
    """The profiles of a network whose named sizes are `sizes`.

    Networks that batch get one, from a single item to the largest batch; those of slabs one for
    each size of plane, all of which take smaller planes of any shape, too.

    Raises
    ------
    ExportError
        When the network has free lengths that nothing is known about.
    """
    if network.max_batch:
        return (_batches(network, sizes),)
    if all(tensor.shape == (-1, -1, -1) for tensor in network.inputs):
        return tuple(_slabs(network))
    raise ExportError(
        f"{network.model} neither batches nor takes slabs: export/tensorrt/profiles.py does not "
        "know which shapes its engine is for"
    )


def _batches(network: Network, sizes: Mapping[str, int]) -> Profile:
    """From one item to the largest batch, free lengths from the shortest to the longest."""
    ranges = {}
    for tensor in network.inputs:
        shape, example = tensor.resolved(sizes), network.example_shape(tensor, sizes)
        least = tuple(SHORTEST if d == -1 else d for d in shape)
        most = tuple(LONGEST if d == -1 else d for d in shape)
        # A study with free lengths comes alone: its usual shape is that of one.
        usual = 1 if -1 in shape else network.max_batch
        ranges[tensor.name] = Range((1, *least), (usual, *example), (network.max_batch, *most))
    return Profile("batch", ranges)


def _slabs(network: Network) -> Iterator[Profile]:
    margins = {t.name: network.example[t.name][0] - 1 for t in network.inputs}
    for side, slices in SLABS.items():
        yield Profile(
            f"planes of {side}",
            {
                name: Range(
                    (1 + margin, MULTIPLE, MULTIPLE),
                    (slices + margin, side, side),
                    (slices + margin, side, side),
                )
                for name, margin in margins.items()
            },
        )
