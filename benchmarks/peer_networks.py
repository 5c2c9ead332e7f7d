"""One network as all peers run it: the same file, the same weights, the same generated inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hilum.catalog import SYSTEMS, Network, System
from hilum.catalog import dlpe as dlpe_catalog
from hilum.catalog.errors import InputError, RepositoryError
from hilum.export.certificate import MODEL_FILE, as_exported, read_certificate
from hilum.export.recipes import Arrays, recipe
from hilum.export.systems.dlpe.network import task_of
from hilum.preprocessing.dlpe.space import normalise_signal
from hilum.preprocessing.phantoms.ct import chest_ct

from .systems import described

INPUTS = 4
"""Generated inputs that every variant works on in turn."""

FIRST_SEED = 300
"""Of the inputs; exports are fitted to, and compared on, those of other seeds."""

SLAB, QUICK_SLAB = (8, 512), (4, 256)
"""Slices of a DLPE slab and voxels along their sides."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What all peers are measured on.

    Attributes
    ----------
    network
        As the repository serves it: sizes and element types.
    file
        The ONNX file that Triton serves.
    weights
        Where they come from, in words.
    precision
        "fp32" or "fp16".
    unit, units
        What one task works on, and how many of it.
    inputs
        Served inputs, with a batch axis of 1 where the network has one.
    outputs
        Those that the system's own pipelines ask for.
    of_user
        The file was given with ``--onnx``: there is no PyTorch network of it.
    """

    system: System
    network: Network
    file: Path
    weights: str
    precision: str
    unit: str
    units: int
    inputs: tuple[Arrays, ...]
    outputs: tuple[str, ...]
    of_user: bool

    @property
    def sent_bytes(self) -> int:
        """Bytes of the tensors of one task that a server is sent."""
        return sum(a.nbytes for a in self.inputs[0].values())


def chosen_networks(system: str, names: tuple[str, ...]) -> tuple[System, tuple[Network, ...]]:
    """The system and the networks of it that are measured: those named, or the usual ones.

    Raises
    ------
    InputError
        For a name that is not known, with those that are.
    """
    if system not in SYSTEMS:
        raise InputError(f"there is no system {system!r}; there are {', '.join(SYSTEMS)}")
    declared = SYSTEMS[system]
    about = described(system)
    chosen = names or ((declared.networks[0].name,) if about is None else about.networks)
    try:
        return declared, tuple(declared.network(name) for name in chosen)
    except KeyError as unknown:
        raise InputError(str(unknown.args[0])) from None


def subject(system: System, declared: Network, repository: Path, *, quick: bool) -> Subject:
    """A network of a repository, with its inputs.

    Raises
    ------
    RepositoryError
        When the repository does not hold it.
    """
    certificate = read_certificate(repository / declared.model)
    if certificate is None:
        raise RepositoryError(
            f"{repository} holds no {declared.model}; export it with `hilum export {system.name} "
            f"--network {declared.name} --repository {repository}`, or leave out --repository"
        )
    served = as_exported(declared, certificate)
    network = replace(served, sizes={**served.sizes, **certificate["sizes"]})
    weights, about = certificate["weights"], described(system.name)
    inputs, units = _inputs(system, network, quick)
    return Subject(
        system, network, repository / declared.model / "1" / MODEL_FILE, weights["source"],
        str(certificate["precision"]), "input" if about is None else about.unit, units, inputs,
        used_outputs(system, declared), weights["kind"] == "user file",
    )  # fmt: skip


def used_outputs(system: System, network: Network) -> tuple[str, ...]:
    """Outputs that the system's ensembles ask the network for; all where none calls it."""
    calls = [c for e in system.ensembles for c in e.calls if c.target.model == network.model]
    used = {name for call in calls for name in call.outputs}
    return tuple(t.name for t in network.outputs if t.name in used or not used)


def _inputs(system: System, network: Network, quick: bool) -> tuple[tuple[Arrays, ...], int]:
    if system.name == dlpe_catalog.SYSTEM.name:
        slices, side = QUICK_SLAB if quick else SLAB
        return tuple(_slab(network, FIRST_SEED + k, slices, side) for k in range(INPUTS)), slices
    how = recipe(system)
    made = (how.samples(network, network.sizes, FIRST_SEED + k) for k in range(INPUTS))
    return tuple(how.first(network, arrays, 1) for arrays in made), 1


def _slab(network: Network, seed: int, slices: int, side: int) -> Arrays:
    """A slab of a chest phantom, [S + 2·margin, side, side], and random masks."""
    task = task_of(network)
    hu = chest_ct(seed, slices=slices + 2 * task.margin, size=side).volume.voxels
    signal = hu.astype(np.float32)
    normalise_signal(signal)
    half = network.inputs[0].dtype == "FP16"
    made: dict[str, Any] = {"slab": signal.astype(np.float16) if half else signal}
    rng = np.random.default_rng(seed)
    for name in task.enhance:
        made[name] = (rng.random((slices, side, side)) < 0.2).astype(np.uint8)
    return made
