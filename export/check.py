"""What is missing from a model repository, or does not fit together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from google.protobuf.text_format import ParseError

from hilum.catalog import ABOUT, SYSTEMS, Ensemble, Model, Network, Precision, System
from hilum.catalog.errors import ExportError, RepositoryError

from .certificate import (
    MODEL_FILE,
    as_exported,
    has_half,
    has_wide,
    is_wide,
    read_certificate,
    sha256_of,
    signature,
    wire_precision,
)
from .config import ModelConfig, model_config, parse_config
from .declarations import declared_files, resolve_sizes, runtime_config, served_models, shared_sizes
from .tensorrt.findings import check_engines
from .tensorrt.plan import read_plan

INTERFACE = (
    "name",
    "platform",
    "backend",
    "max_batch_size",
    "input",
    "output",
    "ensemble_scheduling",
)
"""Fields of a configuration that the code of steps and clients relies on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a repository, or worth knowing about it.

    Attributes
    ----------
    model
        Folder it is about; empty for the whole repository.
    severity
        ``error``: the model must not be served as it is. ``note``: it can, or it is just absent.
    what, why, remedy
        What was found, why it matters, what to do.
    """

    model: str
    severity: Literal["error", "note"]
    what: str
    why: str
    remedy: str


def check_repository(repository: Path, systems: Iterable[System] | None = None) -> list[Finding]:
    """Compare a repository with the catalog and with its certificates.

    Reads every ``model.onnx`` once, for its checksum.

    Parameters
    ----------
    systems
        Those to look at; default: all.

    Returns
    -------
    list of Finding
        Errors first; empty when all networks are there and everything fits.
    """
    chosen = list(SYSTEMS.values() if systems is None else systems)
    if not repository.is_dir():
        names = " ".join(s.name for s in chosen)
        return [
            Finding(
                "",
                "error",
                f"no model repository at {repository}",
                "there is nothing to serve",
                f"hilum export {names} --repository {repository}",
            )
        ]
    try:
        read_plan(repository)
    except RepositoryError as broken:
        remedy = "hilum export --target tensorrt"
        return [Finding("", "error", str(broken), "it is unknown what serves networks", remedy)]
    found = [finding for system in chosen for finding in _check_system(repository, system)]
    names = {model.model for system in chosen for model in system.models()}
    found += [Finding(*fields) for fields in check_engines(repository, names)]
    found += _check_declared(repository, ABOUT, {}, "hilum export")
    return sorted(found, key=lambda finding: finding.severity)


def _check_system(repository: Path, system: System) -> Iterator[Finding]:
    if not any((repository / name).is_dir() for name in _own(system)):
        return  # the repository is for other systems
    certificates: dict[str, dict[str, Any]] = {}
    for network in system.networks:
        try:
            found = read_certificate(repository / network.model)
        except ExportError as broken:
            yield Finding(network.model, "error", str(broken), _UNKNOWN, _again(system, network))
            continue
        if found is not None:
            certificates[network.model] = found
    exported = {
        model: {k: int(v) for k, v in found["sizes"].items()}
        for model, found in certificates.items()
    }
    sizes = resolve_sizes(system, exported)
    precisions: dict[str, Precision] = {
        n.model: wire_precision(n, certificates[n.model])
        for n in system.networks
        if n.model in certificates
    }
    command = f"hilum export {system.name}"
    wide = {
        n.model: is_wide(n, certificates[n.model])
        for n in system.networks
        if n.model in certificates and has_wide(n)
    }
    for model in served_models(system, precisions, wide):
        if isinstance(model, Ensemble):
            yield from _check_joined(model, precisions, command)
        if isinstance(model, Network) and not _onnx(repository, model).is_file():
            continue  # an export of it writes its configuration again
        yield from _check_declared(repository, model, sizes[model.model], command)
    for network in system.networks:
        found = certificates.get(network.model)
        yield from _check_network(repository, system, network, found, sizes[network.model])


def _own(system: System) -> set[str]:
    """Models that tell that a repository is for a system: those that no other has, else all."""
    names = {model.model for model in system.models()}
    others = {m.model for other in SYSTEMS.values() if other != system for m in other.models()}
    return names - others or names


def _check_joined(
    ensemble: Ensemble, precisions: Mapping[str, Precision], command: str
) -> Iterator[Finding]:
    """Compare the element types that an ensemble's exported networks take and give."""
    called = [c.target.model for c in ensemble.calls if has_half(c.target)]
    found = {name: precisions[name] for name in called if name in precisions}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {precision}" for name, precision in found.items())
        yield Finding(
            ensemble.model,
            "error",
            f"the networks that it joins were exported at different precisions: {listed}",
            "they run in one ensemble and must agree",
            f"{command} --precision fp16, or fp32, for all of them",
        )


def _onnx(repository: Path, network: Network) -> Path:
    return repository / network.model / "1" / MODEL_FILE


_MEANING = {
    "random": "results mean nothing",
    "reference": "results show what Hilum does, not what the published networks find",
}
"""What weights that are not the published ones mean for results, by kind."""

_UNKNOWN = "it is unknown which weights the model has"


def _again(system: System, network: Network) -> str:
    return f"hilum export {system.name} --network {network.name}"


def _check_declared(
    repository: Path, model: Model, sizes: Mapping[str, int], command: str
) -> Iterator[Finding]:
    folder = repository / model.model
    try:
        runtime = runtime_config(repository, model.model)
    except ExportError:  # a broken certificate is a finding of its own
        runtime = None
    for path, text in declared_files(model, sizes, runtime).items():
        file = folder / path
        if not file.is_file():
            if path != "config.pbtxt" and not (folder / "config.pbtxt").is_file():
                continue
            yield Finding(model.model, "error", f"{path} is missing", "Triton needs it", command)
        elif path == "config.pbtxt":
            yield from _check_config(file, model_config(model, sizes, runtime), command)
        elif file.read_text() != text:
            yield Finding(
                model.model,
                "error",
                f"{path} is not what this version of Hilum writes",
                "it was edited, or comes from another version",
                command,
            )


def _check_config(file: Path, want: ModelConfig, command: str) -> Iterator[Finding]:
    model = want.name
    try:
        have = parse_config(file.read_text())
    except (ParseError, UnicodeDecodeError) as broken:
        yield Finding(model, "error", f"config.pbtxt: {broken}", "Triton cannot read it", command)
        return
    if differing := [f for f in INTERFACE if getattr(have, f) != getattr(want, f)]:
        yield Finding(
            model,
            "error",
            f"config.pbtxt differs from the catalog in {', '.join(differing)}",
            "steps and clients rely on the names, types and shapes of the catalog",
            command,
        )
    elif have != want:
        yield Finding(
            model,
            "note",
            "config.pbtxt was tuned by hand",
            "an export overwrites it",
            f"{command}, to have the default back",
        )


def _check_network(
    repository: Path,
    system: System,
    network: Network,
    certificate: Mapping[str, Any] | None,
    sizes: Mapping[str, int],
) -> Iterator[Finding]:
    path = _onnx(repository, network)
    again = _again(system, network)
    if not path.is_file():
        users = [e.model for e in system.ensembles if network in [call.target for call in e.calls]]
        yield Finding(
            network.model,
            "note" if certificate is None else "error",
            f"1/{MODEL_FILE} is missing: the network was not exported",
            f"{_some(users)} cannot be served",
            again,
        )
        return
    if certificate is None:
        yield Finding(network.model, "error", "there is no certificate", _UNKNOWN, again)
        return
    if sha256_of(path) != certificate["file"]["sha256"]:
        yield Finding(
            network.model,
            "error",
            f"1/{MODEL_FILE} is not the file of its certificate (sha256 differs)",
            "it was replaced or damaged after the export, and its parity is unknown",
            again,
        )
    yield from _check_sizes(system, network, certificate, sizes)
    meaning = _MEANING.get(certificate["weights"].get("kind", ""))
    if meaning is not None:
        yield Finding(
            network.model,
            "note",
            f"the weights are {certificate['weights']['source']}",
            meaning,
            f"hilum weights import {system.name} DIR, then {again} --weights store",
        )


def _check_sizes(
    system: System, network: Network, certificate: Mapping[str, Any], sizes: Mapping[str, int]
) -> Iterator[Finding]:
    own = certificate["sizes"]
    for name in sorted(shared_sizes(system).intersection(own)):
        if own[name] != sizes[name]:
            yield Finding(
                network.model,
                "error",
                f"the network was exported for {name} = {own[name]}, but the system's first "
                f"network for {name} = {sizes[name]}",
                "they run in one ensemble and must agree",
                _again(system, network),
            )
            return
    served = as_exported(network, certificate)
    for kind, tensors in (("inputs", served.inputs), ("outputs", served.outputs)):
        if certificate.get(kind) != [signature(t, own) for t in tensors]:
            yield Finding(
                network.model,
                "error",
                f"its {kind} are not those of the catalog",
                "it was exported by another version of Hilum",
                _again(system, network),
            )
            return


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return (", ".join(names[:2]) or "it") + more
