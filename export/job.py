"""What an export was asked for, and whether it can be done, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hilum.catalog import Network, Precision, System
from hilum.catalog.errors import ExportError

from .certificate import has_half, read_certificate, wire_precision
from .declarations import repository_sizes, shared_sizes
from .graph import OPSET
from .int8_request import OPTIONS as INT8_OPTIONS
from .recipes import Recipe
from .reference import reference_networks
from .store import find_card
from .tensorrt.target import Target
from .user_file import UserFile

if TYPE_CHECKING:
    from .systems.dlpe.int8 import Judge

Origin = Literal["random", "reference", "store"]
"""Where weights are taken from."""

Progress = Callable[[str, str], None]
"""Called with the name of a network and what is being done with it."""

OPTIONS = {"seed": (0, 0, 2**31 - 1), "opset": (OPSET, OPSET, 20), **INT8_OPTIONS}
"""``--option NAME=VALUE``: default, smallest and largest value."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of `export_system`; the system as it is at the precision, that of its tensors.

    `int8` and `bf16` say what is tried, in this order; the judge, when there is one, judges both.
    """

    system: System
    recipe: Recipe
    repository: Path
    weights: Origin
    store: Path | None
    precision: Precision
    target: Target
    files: Mapping[str, UserFile]
    options: Mapping[str, int]
    progress: Progress
    judge: Judge | None = None
    int8: bool = False
    bf16: bool = False


def silent(network: str, step: str) -> None:
    """Tell nobody."""


def chosen_networks(
    system: System, names: Sequence[str] | None, onnx: Mapping[str, Path]
) -> list[Network]:
    """The networks to export, in the catalog's order: as named, else those of files, else all.

    Raises
    ------
    ExportError
        For a name that is no network of the system.
    """
    if names is None:
        names = list(onnx) or [n.name for n in system.networks]
    wanted = {network_of(system, name).name for name in (*names, *onnx)}
    return [n for n in system.networks if n.name in wanted]


def stored_networks(
    system: System, chosen: list[Network], store: Path | None, progress: Progress
) -> list[Network]:
    """Those whose weights the store has, the others left out and reported; all when it has none."""
    stored = [n for n in chosen if find_card(system.name, n.name, store) is not None]
    return _reported(chosen, stored, "no weights in the store", progress)


def referenced_networks(system: System, chosen: list[Network], progress: Progress) -> list[Network]:
    """Those that have reference weights, the others left out and reported; all when none has."""
    names = reference_networks(system)
    found = [n for n in chosen if n.name in names]
    return _reported(chosen, found, "no reference weights", progress)


def _reported(
    chosen: list[Network], found: list[Network], lack: str, progress: Progress
) -> list[Network]:
    for network in chosen:
        if found and network not in found:
            progress(network.name, f"left out: {lack}")
    return found or chosen


def network_of(system: System, name: str) -> Network:
    """A network by its name; ExportError when there is none."""
    try:
        return system.network(name)
    except KeyError as unknown:
        raise ExportError(str(unknown.args[0])) from None


def checked_options(given: Mapping[str, str]) -> dict[str, int]:
    """Every option's value: as given, else the default.

    Raises
    ------
    ExportError
        For an option that there is not, or a value out of its range.
    """
    values = {name: default for name, (default, _, _) in OPTIONS.items()}
    for name, text in given.items():
        if name not in OPTIONS:
            raise ExportError(f"no option {name!r}; there are {', '.join(OPTIONS)}")
        _, low, high = OPTIONS[name]
        try:
            values[name] = int(text)
        except ValueError:
            raise ExportError(f"option {name}={text}: give a whole number") from None
        if not low <= values[name] <= high:
            raise ExportError(f"option {name}={text}: give {low} to {high}")
    return values


def check_precision(job: Job, chosen: Sequence[Network]) -> None:
    """Check that what stays in the repository has the element types that are exported now.

    Raises
    ------
    ExportError
        When an ensemble would join FP16 and FP32 tensors.
    """
    models = {n.model for n in chosen}
    for ensemble in job.system.ensembles:
        called = [c.target for c in ensemble.calls if isinstance(c.target, Network)]
        new = next((n for n in called if n.model in models), None)
        for kept in called:
            if new is None or kept.model in models or not has_half(kept):
                continue
            found = read_certificate(job.repository / kept.model)
            if found is not None and (have := wire_precision(kept, found)) != job.precision:
                raise ExportError(
                    f"{new.name} is to be {job.precision}, but the exported {kept.name} is {have}; "
                    f"they run in one ensemble ({ensemble.model}) and must agree: export "
                    f"{new.name} with --precision {have}, or both at once"
                )


def sizes_of(job: Job, chosen: Sequence[Network]) -> dict[str, dict[str, int]]:
    """Sizes by network: the user's files decide, then what the repository holds, then the catalog.

    Raises
    ------
    ExportError
        When two files, or a file and the networks beside it, need different shared sizes.
    """
    shared, owner = dict[str, int](), dict[str, str]()
    names = shared_sizes(job.system)
    kept = repository_sizes(job.repository, job.system)
    for network in job.system.networks:
        certified = read_certificate(job.repository / network.model)
        replaced = network in chosen
        if network.name in job.files:
            sizes, by = job.files[network.name].sizes, str(job.files[network.name].path)
        elif certified is not None and not replaced:
            sizes, by = certified["sizes"], f"the exported {network.name}"
        elif replaced and network is job.system.networks[0]:
            sizes, by = network.sizes, f"the catalog's {network.name}"
        else:
            continue
        for name in names.intersection(sizes):
            if network.name in job.files and shared.get(name, sizes[name]) != sizes[name]:
                raise ExportError(
                    f"{by} has {name} = {sizes[name]}, but {owner[name]} has {shared[name]}; "
                    "they run in one ensemble and must agree"
                )
            shared.setdefault(name, sizes[name])
            owner.setdefault(name, by)
    return {
        n.name: {
            **n.sizes,
            **{k: v for k, v in shared.items() if k in n.sizes},
            **(job.files[n.name].sizes if n.name in job.files else {}),
        }
        for n in chosen
        if n.model in kept
    }
