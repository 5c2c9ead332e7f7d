"""Everything of a model repository but the networks: configurations, labels, Python steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hilum.catalog import (
    ABOUT,
    SYSTEMS,
    Ensemble,
    Model,
    Precision,
    PythonStep,
    System,
    at_precision,
)

from .certificate import has_half, has_wide, is_wide, read_certificate, wire_precision
from .config import EngineConfig, RuntimeConfig, config_text, labels
from .tensorrt.plan import read_plan

PYTHON_STEP = '''"""Runs the Python step that the catalog declares under this model's name."""

from hilum.server.python_step import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

EMPTY_VERSION = ".gitkeep"
"""Keeps the empty version folder of an ensemble, without which Triton does not load it, in git."""

Sizes = Mapping[str, Mapping[str, int]]
"""Named sizes by the name of the model."""


def declared_files(
    model: Model, sizes: Mapping[str, int], runtime: RuntimeConfig | None = None
) -> dict[str, str]:
    """Texts by path below the model's folder: all of the model but its network."""
    files = {"config.pbtxt": config_text(model, sizes, runtime), **labels(model.outputs)}
    if isinstance(model, PythonStep):
        files["1/model.py"] = PYTHON_STEP
    elif isinstance(model, Ensemble):
        files[f"1/{EMPTY_VERSION}"] = ""
    return files


def write_declarations(
    repository: Path, systems: Iterable[System] | None = None, sizes: Sizes | None = None
) -> list[Path]:
    """Write every declared file of the `systems` (default: all) into a model repository.

    Parameters
    ----------
    sizes
        By model; what is not given is taken from the repository's certificates, then the catalog.

    Returns
    -------
    list of pathlib.Path
        The files, whether or not their text changed.
    """
    written = []
    for system in SYSTEMS.values() if systems is None else systems:
        known = {**repository_sizes(repository, system), **(sizes or {})}
        served = repository_models(repository, system)
        written += [
            _write(repository / model.model / path, text)
            for model in served
            for path, text in declared_files(
                model, known[model.model], runtime_config(repository, model.model)
            ).items()
        ]
    written += [
        _write(repository / ABOUT.model / path, text)
        for path, text in declared_files(ABOUT, ABOUT.sizes).items()
    ]
    return written


def runtime_config(repository: Path, model: str) -> RuntimeConfig | None:
    """What a configuration needs to know of what serves the network; None: ONNX Runtime.

    Raises
    ------
    ExportError
        When the network's certificate cannot be read.
    RepositoryError
        When the build plan of engines cannot be.
    """
    engine = read_plan(repository).get(model)
    if engine is not None and engine.served_by == "tensorrt":
        return EngineConfig(len(engine.profiles), engine.graphs)
    certificate = read_certificate(repository / model)
    if certificate is not None and certificate.get("served_by") == "openvino":
        return "openvino"
    return None


def _write(path: Path, text: str) -> Path:
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path


def shared_sizes(system: System) -> set[str]:
    """Names of the sizes that the system's models must agree on: those that ensembles pass on."""
    models = (*system.steps, *system.ensembles)
    tensors = (t for m in models for t in (*m.inputs, *m.outputs))
    return {dim for t in tensors for dim in t.shape if isinstance(dim, str)}


def repository_models(repository: Path, system: System) -> list[Model]:
    """Every model of the system with the element types that a repository's certificates state.

    One that was not exported has those of the networks that ensembles join it with.
    """
    precisions: dict[str, Precision] = {}
    wide: dict[str, bool] = {}
    for network in system.networks:
        if not (has_half(network) or has_wide(network)):
            continue
        certificate = read_certificate(repository / network.model)
        if certificate is not None and has_half(network):
            precisions[network.model] = wire_precision(network, certificate)
        if certificate is not None and has_wide(network):
            wide[network.model] = is_wide(network, certificate)
    return served_models(system, precisions, wide)


def served_models(
    system: System, precisions: Mapping[str, Precision], wide: Mapping[str, bool]
) -> list[Model]:
    """Every model of the system.

    Parameters
    ----------
    precisions, wide
        Of its exported networks by model name: the precision of what they take and give, and
        whether they take INT32 instead of INT16.
    """
    joined = [[e.model, *(call.target.model for call in e.calls)] for e in system.ensembles]

    def served(model: Model) -> Model:
        mates = [name for names in joined if model.model in names for name in names]
        near = [model.model, *mates]
        certified: list[Precision] = [precisions[m] for m in near if m in precisions]
        return at_precision(
            model, certified[0] if certified else "fp32", wide=any(wide.get(m, False) for m in near)
        )

    return [served(model) for model in system.models()]


def repository_sizes(repository: Path, system: System) -> dict[str, dict[str, int]]:
    """Sizes by model that a repository's certificates state; the catalog's where there is none.

    The first network of the system that was exported with a shared size decides it for all.
    """
    return resolve_sizes(system, dict(_certified(repository, system)))


def resolve_sizes(system: System, exported: Sizes) -> dict[str, dict[str, int]]:
    """Sizes of every model of the system, given those of its exported networks by model name."""
    shared: dict[str, int] = {}
    names = shared_sizes(system)
    for network in system.networks:
        for name, value in exported.get(network.model, {}).items():
            if name in names:
                shared.setdefault(name, value)
    return {
        model.model: {
            **model.sizes,
            **exported.get(model.model, {}),
            **{k: v for k, v in shared.items() if k in model.sizes},
        }
        for model in system.models()
    }


def _certified(repository: Path, system: System) -> Iterator[tuple[str, dict[str, int]]]:
    for network in system.networks:
        found = read_certificate(repository / network.model)
        if found is not None:
            yield network.model, {k: int(found["sizes"][k]) for k in network.sizes}


def write_configuration(repository: Path, system: System, name: str) -> None:
    """Write the ``config.pbtxt`` of one model again, after what serves it has changed."""
    (model,) = (m for m in repository_models(repository, system) if m.model == name)
    sizes = repository_sizes(repository, system)[name]
    text = config_text(model, sizes, runtime_config(repository, name))
    file = repository / name / "config.pbtxt"
    temporary = file.with_name(".config.pbtxt.new")
    temporary.write_text(text)
    temporary.replace(file)
