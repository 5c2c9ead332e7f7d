"""Checkpoints of COVID-MTL and its comparators: PyTorch state dicts (spec covid_mtl §9.5, §13).

COVID-MTL's own weights were never published; these are files that the published scripts write. A
file is known by its name (``dual.pth``, ``resnet_ct.pth``, …) or else by the tensors in it, where a
network of two classes says by ``ct`` or ``nat`` in its name or folder which of the two it answers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hilum.catalog import Network
from hilum.catalog import covid_mtl as catalog
from hilum.catalog.errors import WeightsError

from ...checkpoints import Checkpoint
from ...checkpoints.keras import check_not_pointer
from ...checkpoints.pickles import check, check_tensors, load_restricted
from ...layers import decovnet
from . import network as covid_mtl

LAYOUT = "covid-mtl: PyTorch state dict"

CUT = "of 32 scores for each head, those of its classes are kept"

SUFFIXES = {".pth", ".pt", ".ckpt", ".tar"}

STATE, PARALLEL = "state_dict", "module."
"""Key of the state dict in a training checkpoint, and what DataParallel puts before names."""

SIGNS = {
    "dual": "radioFNN.classifier.weight",
    "volume": "classifier1_.1.weight",
    "decovnet": "s1.pathway0_stem.conv.weight",
    "resnet": "fc.weight",
    "single": "classifier.1.weight",
}
"""A tensor that shows the kind of a network; the first that is there counts."""

BINARY = (catalog.HEADS["ct"].name, catalog.HEADS["nat"].name)
"""The heads of two classes."""


def find(folder: Path) -> list[Checkpoint]:
    """The checkpoints in or below `folder`, one for each network at most.

    A file of DeCoVNet stands for both ways of running it.

    Raises
    ------
    WeightsError
        When there is none, two claim the same network, or one cannot be recognised.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder")
    found: dict[str, Checkpoint] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file()):
        for network in _networks(path):
            if network.name in found:
                raise WeightsError(
                    f"two checkpoints of {network.name}: {found[network.name].path} and {path}; "
                    "import the folder of the one you want"
                )
            layout = f"{LAYOUT}; {CUT}" if network == catalog.VOLUME_ONLY else LAYOUT
            read = functools.partial(read_checkpoint, path, network)
            found[network.name] = Checkpoint(network.name, path.name, layout, path, read)
    if not found:
        names = ", ".join(f"{n.name}.pth" for n in catalog.SYSTEM.networks[:3])
        raise WeightsError(f"{folder}: no checkpoint below it; expected {names}, …")
    return list(found.values())


def _networks(path: Path) -> tuple[Network, ...]:
    """What a file is a checkpoint of: by its name, else by what is in it."""
    names = {n.name: n for n in catalog.SYSTEM.networks}
    name = path.stem if path.stem in names else _name(path, read_tensors(path))
    if name == catalog.DECOVNET.name:
        return catalog.DECOVNET, catalog.DECOVNET_PARITY
    return (names[name],)


def _name(path: Path, tensors: Mapping[str, Tensor]) -> str:
    kind = next((kind for kind, sign in SIGNS.items() if sign in tensors), None)
    if kind is None:
        raise WeightsError(
            f"{path}: none of the networks of {catalog.SYSTEM.name} has such tensors "
            f"({', '.join(list(tensors)[:3])}, …)"
        )
    if kind not in {"resnet", "single"}:
        return kind
    prefix = "resnet_" if kind == "resnet" else ""
    return prefix + _head(path, len(tensors[SIGNS[kind]]))


def _head(path: Path, classes: int) -> str:
    if classes == len(catalog.HEADS["severity"].classes):
        return "severity"
    words = {w for part in path.absolute().parts[-2:] for w in re.split(r"[^a-z]+", part.lower())}
    named = [head for head in BINARY if head in words]
    if classes != len(catalog.HEADS[BINARY[0]].classes) or len(named) != 1:
        raise WeightsError(
            f"{path}: {classes} classes do not show which question it answers; put one of "
            f"{', '.join(BINARY)} into its name, as in resnet_ct.pth"
        )
    return named[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict, alone or in a training checkpoint: float32, names without ``module.``.

    Raises
    ------
    WeightsError
        For a file that cannot be read or holds something else.
    """
    check_not_pointer(path)
    found = load_restricted(path)
    if isinstance(found, Mapping) and STATE in found:
        found = found[STATE]
    tensors = check_tensors(found, path)
    if tensors and all(name.startswith(PARALLEL) for name in tensors):
        tensors = {name.removeprefix(PARALLEL): t for name, t in tensors.items()}
    # The published training keeps weights in FP16.
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}


def read_checkpoint(path: Path, network: Network) -> Mapping[str, Tensor]:
    """Read and check one file: tensors by their names in ``networks.covid_mtl.build``.

    Raises
    ------
    WeightsError
        Naming the file and the tensor that is missing, extra or misshapen.
    """
    tensors = read_tensors(path)
    if network == catalog.VOLUME_ONLY:
        tensors = _cut(_without_second_names(tensors, path))
    elif network in (catalog.DECOVNET, catalog.DECOVNET_PARITY):
        tensors = {n: t for n, t in tensors.items() if not n.startswith(decovnet.UNUSED)}
    with torch.device("meta"):
        expected = covid_mtl.build(network).state_dict()
    check(tensors, expected, str(path))
    return tensors


def _without_second_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Drop the second name that the published script gives to each head's convolution."""
    kept = dict(tensors)
    for branch, second in zip(covid_mtl.BRANCHES, covid_mtl.HEADS, strict=True):
        for part in ("1.weight", "1.bias"):
            copy = kept.pop(f"{second}.{part}", None)
            first = kept.get(f"{branch}.{part}")
            if copy is not None and (first is None or not torch.equal(copy, first)):
                raise WeightsError(
                    f"{path}: {second}.{part} is not {branch}.{part}, whose second name it is in "
                    "the published layout"
                )
    return kept


def _cut(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep the scores of the classes.

    The published script gives each head 32 scores and trains them on labels 0, 1 and 2 (spec
    covid_mtl §9.7): the others never had an example, and without them the probabilities are those
    given that one of the classes is true.
    """
    for branch, head in zip(covid_mtl.BRANCHES, catalog.HEADS.values(), strict=True):
        for name in (f"{branch}.1.weight", f"{branch}.1.bias"):
            if name in tensors and len(tensors[name]) == covid_mtl.BRANCH:
                tensors[name] = tensors[name][: len(head.classes)].clone()
    return tensors
