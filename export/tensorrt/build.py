"""Building the engines of a repository: what is missing or does not fit any more, nothing else.

All that can be said without a GPU is here: what to build, whether what is there is valid, how it is
published, and what happens when it fails. What needs one is behind `Builder`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from hilum.catalog import SYSTEMS, Network
from hilum.catalog.errors import ExportError, RepositoryError

from ..certificate import MODEL_FILE, as_exported, read_certificate, sha256_of, versions
from ..declarations import write_configuration
from .plan import (
    ENGINE_FILE,
    FINGERPRINT_FILE,
    PLAN_FILE,
    REFERENCE_FILE,
    Engine,
    fall_back,
    read_plan,
    refresh_plan,
    restored,
    write_json,
    write_plan,
)
from .reference import INPUT, judge, read_outputs
from .supervise import Outcome, failure


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine depends on besides its file: versions and the GPU, as `Builder` finds them."""

    tensorrt: str
    gpu: str
    capability: str
    driver: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that an engine depends on; the part of ``plan.json`` that validity is judged by.

    The same fields as in the server's module of that name, which compares them at start-up.
    """

    onnx_sha256: str
    tensorrt: str
    gpu: str
    capability: str
    driver: str
    flags: tuple[str, ...]

    def key(self) -> str:
        """Hexadecimal name; equal fingerprints have equal keys."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Tried:
    """One run of an engine.

    Attributes
    ----------
    outputs
        NumPy arrays by name.
    context_bytes
        By profile, GPU memory that an execution context takes for what lies between input and
        output.
    """

    outputs: Mapping[str, Any]
    context_bytes: Sequence[int]


class Builder(Protocol):
    """What builds engines and runs them."""

    def machine(self) -> Machine:
        """Versions and the GPU.

        Raises
        ------
        ExportError
            When engines cannot be built here.
        """
        ...

    def build(self, engine: Engine, onnx: Path, plan: Path) -> Outcome:
        """Build one engine into the file `plan`."""
        ...

    def run(self, plan: Path, reference: Path, prefix: str) -> Tried | None:
        """Run an engine on the stored inputs whose names begin with `prefix`.

        None where there is no GPU to run it on.

        Raises
        ------
        ExportError
            When it does not run.
        """
        ...


@dataclass(frozen=True, slots=True)
class Built:
    """What came of one engine.

    Attributes
    ----------
    outcome
        ``built``, ``valid`` (nothing was to be done), or ``failed``: ONNX Runtime serves it.
    """

    model: str
    outcome: Literal["built", "valid", "failed"]
    reason: str = ""
    seconds: float = 0.0
    bytes: int = 0

    def describe(self) -> str:
        """One line."""
        match self.outcome:
            case "built":
                return f"built in {self.seconds:.0f} s, {self.bytes / 2**20:.0f} MiB"
            case "valid":
                return "valid"
            case _:
                return f"failed, {self.reason}; ONNX Runtime serves it"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of `build_engines`: how many engines it looks at, and what comes of them in turn."""

    count: int
    results: Iterator[Built]


def build_engines(
    repository: Path,
    builder: Builder,
    *,
    models: Sequence[str] | None = None,
    retry: bool = False,
) -> Run:
    """Build the engines of a repository that was exported with ``--target tensorrt``.

    An engine that is there and has the fingerprint of file and machine stays. A new one replaces
    the old when it is complete and agrees with its ONNX file. A network whose engine fails is
    switched to ONNX Runtime, and back when a later build succeeds.

    Parameters
    ----------
    models
        Names of Triton models; default: all of the build plan.
    retry
        Also build what failed for this very file and machine before.

    Raises
    ------
    RepositoryError
        When there is no build plan, or it lacks one of the `models`.
    ExportError
        When engines cannot be built on this machine.
    """
    engines = refresh_plan(repository)
    if not engines:
        raise RepositoryError(
            f"{repository} has no {PLAN_FILE}: it was not exported for TensorRT; "
            f"`hilum export --target tensorrt --repository {repository}`"
        )
    if unknown := sorted(set(models or ()) - set(engines)):
        raise RepositoryError(
            f"the build plan of {repository} has no model {unknown[0]!r}; it has "
            f"{', '.join(sorted(engines))}"
        )
    # Those of types that TensorRT does not take are none of the builder's business.
    chosen = [
        engines[name]
        for name in sorted(models or engines)
        if engines[name].served_by == "tensorrt" or engines[name].failed_as
    ]
    for engine in chosen:
        if not (repository / engine.model / "1" / MODEL_FILE).is_file():
            raise RepositoryError(
                f"{engine.model}/1/{MODEL_FILE} is missing in {repository}; `hilum export "
                f"{engine.system} --network {engine.network} --target tensorrt`"
            )
    machine = builder.machine()
    return Run(len(chosen), (_one(repository, e, builder, machine, retry) for e in chosen))


def _one(
    repository: Path, engine: Engine, builder: Builder, machine: Machine, retry: bool
) -> Built:
    version = repository / engine.model / "1"
    onnx = version / MODEL_FILE
    engine = replace(engine, onnx_sha256=sha256_of(onnx))
    wanted = fingerprint(engine, machine)
    if is_valid(version, wanted):
        _serve(repository, restored(engine))
        return Built(engine.model, "valid")
    if engine.failed_as == wanted.key() and not retry:
        return Built(engine.model, "failed", engine.reason)
    with tempfile.TemporaryDirectory(prefix=".engine-", dir=repository) as folder:
        plan = Path(folder) / ENGINE_FILE
        outcome = builder.build(engine, onnx, plan)
        reason, parity = failure(outcome), dict[str, Any]()
        if not reason:
            parity, reason = _try(engine, version, builder, plan)
        if not reason:
            publish(plan, version, wanted, outcome, parity)
            _serve(repository, restored(engine))
            size = (version / ENGINE_FILE).stat().st_size
            return Built(engine.model, "built", "", outcome.seconds, size)
    _serve(repository, fall_back(engine, reason, wanted.key()))
    return Built(engine.model, "failed", reason, outcome.seconds)


def fingerprint(engine: Engine, machine: Machine) -> Fingerprint:
    """What an engine depends on that is built on a machine."""
    return Fingerprint(
        onnx_sha256=engine.onnx_sha256, flags=engine.flags, **asdict(machine)
    )  # fmt: skip


def is_valid(version: Path, wanted: Fingerprint) -> bool:
    """Whether the engine in a version folder is whole and has a fingerprint."""
    plan, record = version / ENGINE_FILE, version / FINGERPRINT_FILE
    try:
        written = json.loads(record.read_text("utf-8"))
        built = Fingerprint(**{k: _frozen(v) for k, v in written["fingerprint"].items()})
        return built == wanted and sha256_of(plan) == written["plan_sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def publish(
    plan: Path,
    version: Path,
    wanted: Fingerprint,
    outcome: Outcome,
    tried: Mapping[str, Any],
) -> None:
    """Put a built engine in its place: the engine, then the record that makes it valid.

    Whoever looks between the two sees an engine that is not that of its record, and no valid one.

    Parameters
    ----------
    tried
        What a run of it showed, for the record.
    """
    record = {
        "fingerprint": asdict(wanted),
        "plan_sha256": sha256_of(plan),
        "plan_bytes": plan.stat().st_size,
        "hilum_version": versions()["hilum"],
        "build_seconds": round(outcome.seconds, 1),
        **tried,
    }
    with plan.open("rb") as written:
        os.fsync(written.fileno())
    plan.replace(version / ENGINE_FILE)
    write_json(version / FINGERPRINT_FILE, record)


def _try(engine: Engine, version: Path, builder: Builder, plan: Path) -> tuple[dict[str, Any], str]:
    """What a run of an engine shows for its record, and why it must not be served.

    ``parity``: its certificate against its ONNX file; ``context_bytes``: the memory it takes. Both
    are None where there is no GPU to run it on.
    """
    nothing = {"parity": None, "context_bytes": None}
    reference = version / REFERENCE_FILE
    if not reference.is_file():
        return nothing, f"1/{REFERENCE_FILE} is missing, so it cannot be compared; export it again"
    try:
        tried = builder.run(plan, reference, INPUT)
    except ExportError as failed:
        return nothing, str(failed)
    if tried is None:
        return nothing, ""
    outputs, problem = judge(
        _network(engine, version), engine.precision, tried.outputs, read_outputs(reference)
    )
    parity = {"reference": "ONNX Runtime on model.onnx", "outputs": outputs}
    found = {"parity": parity, "context_bytes": list(tried.context_bytes)}
    return found, f"it does not agree with its ONNX file: {problem}" if problem else ""


def _network(engine: Engine, version: Path) -> Network:
    network = SYSTEMS[engine.system].network(engine.network)
    found = read_certificate(version.parent)
    return network if found is None else as_exported(network, found)


def _serve(repository: Path, engine: Engine) -> None:
    """Record what serves a network, and write its configuration if that has changed."""
    engines = read_plan(repository)
    before = engines[engine.model]
    if before == engine:
        return
    write_plan(repository, {**engines, engine.model: engine})
    if before.served_by != engine.served_by:
        write_configuration(repository, SYSTEMS[engine.system], engine.model)
