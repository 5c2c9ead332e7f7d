"""A runtime copy of a model repository: chosen models, configured for this machine.

The repository stays as `hilum export` wrote it, the same for every machine. What depends on the
machine (instances, threads, processor) goes into the ``config.pbtxt`` of a copy whose version
folders and label files are links.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hilum.catalog import ABOUT, SYSTEMS
from hilum.catalog.errors import RepositoryError

from . import machine
from .gpus import devices
from .model_config import (
    ModelConfig,
    backend_of,
    callees,
    drop_fields,
    is_ensemble,
    model_file,
    read_config,
    write_config,
)
from .placement import MiB, network_needs, place

Runtime = Literal["onnxruntime", "pytorch"]
"""What computes the networks of ONNX files."""

_CPU_CORES_PER_INSTANCE = 8
"""More threads than these add little to one image; further cores get an instance of their own."""

_STREAM_INSTANCES = 4
"""On the CPU, a network with many inputs in flight does more of them side by side, each on few
threads, than one after the other on all: no thread waits for another. More copies than these cost
more memory than they gain."""

_CPU_BATCH = 2
"""Batches such networks make on the CPU, where larger ones are no faster for each of their items,
but leave other instances without work at the end."""

STREAMED = frozenset(n.model for s in SYSTEMS.values() for n in s.networks if n.streamed)

_FREE = frozenset(n.model for s in SYSTEMS.values() for n in s.networks if n.example)
"""Networks whose inputs have any length: an arena, which only grows, would keep the memory of the
largest request in each of them. Without one a run takes half, for a little more time."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What the models may use.

    Attributes
    ----------
    gpu
        Networks run where Triton puts them, which is on the GPUs; else on the CPU.
    instances
        Copies of each network (for each GPU).
    threads
        Threads of each copy on the CPU.
    stream_instances, stream_threads
        The same for networks whose inputs come many at a time.
    step_instances
        Processes for each Python step.
    queue_delay_ms
        How long a network that batches waits for more requests; None: as exported.
    gpu_free
        Free bytes of each GPU; empty where nothing reports them, and Triton places the networks.
    runtime
        What computes networks that are exported for ONNX Runtime.
    """

    gpu: bool
    instances: int
    threads: int
    stream_instances: int
    stream_threads: int
    step_instances: int
    queue_delay_ms: float | None = None
    gpu_free: tuple[int, ...] = ()
    runtime: Runtime = "onnxruntime"

    @classmethod
    def of_machine(
        cls,
        instances: int | None = None,
        threads: int | None = None,
        gpu: bool | None = None,
        queue_delay_ms: float | None = None,
    ) -> Resources:
        """What fits this machine: on the CPU, instances × threads ≈ cores."""
        gpu = machine.gpus() > 0 if gpu is None else gpu
        cores = machine.cores()
        if gpu:
            each = (instances or 1, threads or 1)
            free = tuple(device.free_mib * MiB for device in devices())
            return cls(True, *each, *each, max(1, min(8, cores // 2)), queue_delay_ms, free)
        steps = max(1, min(4, cores // 4))
        if instances is None and threads is None:
            one, stream = max(1, cores // _CPU_CORES_PER_INSTANCE), min(cores, _STREAM_INSTANCES)
            return cls(False, one, cores // one, stream, cores // stream, steps, queue_delay_ms)
        if instances is None:
            instances = max(1, cores // (threads or 1))
        each = (instances, threads or max(1, cores // instances))
        return cls(False, *each, *each, steps, queue_delay_ms)


@dataclass(frozen=True, slots=True)
class Staged:
    """A staged repository.

    Attributes
    ----------
    models
        Names of the models it holds, sorted.
    left_out
        Why a model of the source is not among them, by name; models that were simply not asked
        for are not listed.
    backends
        Names of the backends the models need.
    instances
        Number of model instances, by backend name.
    complete
        Every configuration names its model's inputs and outputs.
    """

    folder: Path
    models: tuple[str, ...]
    left_out: Mapping[str, str]
    backends: frozenset[str]
    instances: Mapping[str, int]
    complete: bool


def stage(
    source: Path,
    target: Path,
    resources: Resources,
    models: Iterable[str] | None = None,
    unknown_fields: Iterable[str] = (),
) -> Staged:
    """Write the runtime copy of `source` to the new folder `target`.

    Parameters
    ----------
    models
        Names of the models to serve; what ensembles among them call, and ``hilum_about``, come
        along. None: everything that is complete.
    unknown_fields
        Fields of a configuration that the server does not know and that are left out.

    Raises
    ------
    RepositoryError
        When a model that was asked for is missing or incomplete, or when nothing is left; the
        message has the command that exports what is missing.
    ServerError
        When a network fits no GPU.
    """
    source = source.resolve()
    configs = _configs(source)
    incomplete = _incomplete(source, configs)
    if models is None:
        chosen = sorted(set(configs) - set(incomplete))
        if not any(model_file(configs[name]) != "model.py" for name in chosen) and incomplete:
            raise RepositoryError(_nothing_left(source, incomplete))
    else:
        chosen = _closure(source, configs, incomplete, models)
    places = _places(source, [configs[name] for name in chosen], resources)
    target.mkdir(parents=True)
    instances: dict[str, int] = {}
    for name in chosen:
        config = configs[name]
        configure(config, resources, places.get(name, ()))
        drop_fields(config, unknown_fields)
        _link(source / name, target / name, config)
        backend = backend_of(config)
        count = sum(g.count * max(1, len(g.gpus)) for g in config.instance_group)
        instances[backend] = instances.get(backend, 0) + count
    return Staged(
        target,
        tuple(chosen),
        {name: lack.text for name, lack in incomplete.items()} if models is None else {},
        frozenset(instances) - {""},
        instances,
        all(configs[name].input and configs[name].output for name in chosen),
    )


def _places(
    source: Path, configs: Iterable[ModelConfig], resources: Resources
) -> dict[str, tuple[int, ...]]:
    """GPUs of each network; empty where networks run on the CPU or Triton places them."""
    if not (resources.gpu and resources.gpu_free):
        return {}
    counted = [(config, _instances(config.name, resources)) for config in configs]
    return place(network_needs(source, counted), resources.gpu_free)


def _instances(name: str, resources: Resources) -> int:
    return resources.stream_instances if name in STREAMED else resources.instances


def configure(config: ModelConfig, resources: Resources, gpus: Sequence[int] = ()) -> None:
    """Set the instances and threads of one model for the machine; ensembles have none.

    Parameters
    ----------
    gpus
        Those that a network runs on; empty: where Triton puts it.
    """
    if is_ensemble(config):
        return
    profiles = [name for group in config.instance_group for name in group.profile]
    del config.instance_group[:]
    group = config.instance_group.add(profile=profiles)  # of a TensorRT engine
    if backend_of(config) == "python":
        group.kind = group.KIND_CPU
        group.count = 1 if config.name == ABOUT.model else resources.step_instances
        return
    streamed = config.name in STREAMED
    group.count = _instances(config.name, resources)
    if gpus:
        group.kind = group.KIND_GPU
        group.gpus.extend(gpus)
    if resources.queue_delay_ms is not None and config.HasField("dynamic_batching"):
        delay = round(1e3 * resources.queue_delay_ms)
        config.dynamic_batching.max_queue_delay_microseconds = delay
    if not resources.gpu:
        group.kind = group.KIND_CPU
        batches = config.dynamic_batching
        if streamed and config.max_batch_size > 1 and not batches.preferred_batch_size:
            batches.preferred_batch_size.append(_CPU_BATCH)
    if backend_of(config) == "onnxruntime":
        threads = resources.stream_threads if streamed else resources.threads
        config.parameters["intra_op_thread_count"].string_value = str(threads)
        if config.name in _FREE and not resources.gpu:
            config.parameters["enable_mem_arena"].string_value = "0"
        # Waiting threads that spin take the cores from the other networks and from the steps.
        config.parameters["session.intra_op.allow_spinning"].string_value = "0"
        if resources.runtime == "pytorch":
            config.backend, config.default_model_filename = "pytorch", model_file(config) or ""
            config.ClearField("platform")
    elif backend_of(config) == "openvino":
        threads = resources.stream_threads if streamed else resources.threads
        config.parameters["INFERENCE_NUM_THREADS"].string_value = str(threads)
        config.parameters["NUM_STREAMS"].string_value = "1"


def _configs(source: Path) -> dict[str, ModelConfig]:
    if not source.is_dir():
        raise RepositoryError(
            f"there is no model repository at {source}; make one with `hilum export --repository "
            f"{source}` or name another with --repository"
        )
    files = sorted(source.glob("*/config.pbtxt"))
    if not files:
        raise RepositoryError(
            f"{source} holds no <model>/config.pbtxt; fill it with `hilum export --repository "
            f"{source}`"
        )
    return {file.parent.name: read_config(file) for file in files}


def _versions(folder: Path) -> list[Path]:
    return sorted(v for v in folder.iterdir() if v.is_dir() and v.name.isdigit())


@dataclass(frozen=True, slots=True)
class _Lack:
    """Why a model is not served.

    Attributes
    ----------
    text
        Human-readable, to follow the model's name.
    no_file
        It has no model file.
    unused
        Nothing is wrong with it, but nothing that is served uses it.
    """

    text: str
    no_file: bool = False
    unused: bool = False


def _incomplete(source: Path, configs: Mapping[str, ModelConfig]) -> dict[str, _Lack]:
    """Why each model that cannot be served cannot."""
    reasons: dict[str, _Lack] = {}
    for name, config in configs.items():
        file = model_file(config)
        if file and not any((v / file).is_file() for v in _versions(source / name)):
            reasons[name] = _Lack(f"has no {file}", no_file=True)
    callers: dict[str, list[str]] = {}
    for name, config in configs.items():
        for callee in callees(config):
            callers.setdefault(callee, []).append(name)
            if callee not in configs:
                reasons[name] = _Lack(f"needs {callee}, which is not there")
            elif callee in reasons and not is_ensemble(configs[callee]):
                text = f"needs {callee}, which {reasons[callee].text}"
                reasons.setdefault(name, _Lack(text))
    for name, using in callers.items():
        is_step = name in configs and backend_of(configs[name]) == "python"
        if is_step and name not in reasons and all(user in reasons for user in using):
            reasons[name] = _Lack("only models that were left out use it", unused=True)
    return reasons


def _closure(
    source: Path,
    configs: Mapping[str, ModelConfig],
    incomplete: Mapping[str, _Lack],
    models: Iterable[str],
) -> list[str]:
    chosen: set[str] = set()
    for name in models:
        if name not in configs:
            known = ", ".join(sorted(configs))
            raise RepositoryError(
                f"{source} has no model {name!r} (it has {known}); {_remedy([name], source)}"
            )
        needed = {name, *callees(configs[name])}
        missing = sorted(n for n in needed - {name} if n not in configs or n in incomplete)
        if name in incomplete and not incomplete[name].unused:
            raise RepositoryError(
                f"{name} cannot be served from {source}: it {incomplete[name].text}; "
                f"{_remedy(missing or [name], source)}"
            )
        chosen |= needed
    if ABOUT.model in configs and ABOUT.model not in incomplete:
        chosen.add(ABOUT.model)
    return sorted(chosen)


def _nothing_left(source: Path, incomplete: Mapping[str, _Lack]) -> str:
    without = [name for name, reason in incomplete.items() if reason.no_file]
    some = ", ".join(sorted(without)[:3]) + (" …" if len(without) > 3 else "")
    return f"no model of {source} can be served: {some} without a model file; " + _remedy(
        without, source
    )


def _remedy(models: Iterable[str], source: Path) -> str:
    """The command that exports the `models`, or builds their engines."""
    wanted = set(models)
    if any((source / name / "1" / "model.onnx").is_file() for name in wanted):
        return f"run `hilum engines build --repository {source}` on the GPU that is to serve it"
    for system in SYSTEMS.values():
        networks = [n.name for n in system.networks if n.model in wanted]
        for ensemble in system.ensembles:
            if ensemble.model in wanted:
                called = {call.target.model for call in ensemble.calls}
                networks += [n.name for n in system.networks if n.model in called]
        if networks or any(step.model in wanted for step in system.steps):
            every = len(set(networks)) == len(system.networks)
            chosen = "" if every else "".join(f" --network {n}" for n in dict.fromkeys(networks))
            return f"run `hilum export {system.name}{chosen} --repository {source}`"
    return f"run `hilum export --repository {source}`"


def _link(source: Path, target: Path, config: ModelConfig) -> None:
    """The model's folder with its own configuration; all else are links."""
    target.mkdir()
    write_config(config, target / "config.pbtxt")
    for entry in source.iterdir():
        if entry.name != "config.pbtxt" and not entry.name.startswith("."):
            (target / entry.name).symlink_to(entry)
    if not _versions(target):
        (target / "1").mkdir()  # an ensemble's is empty, and Git keeps no empty folders
