"""TensorRT engines: for what a plan was built, and whether it may be served here.

A plan is code for one GPU, made by one TensorRT from one ONNX file. Whoever builds it writes a
record beside it (``1/plan.json``); a plan whose record does not fit the machine must not be served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from hilum.catalog.errors import ServerError

PLAN, RECORD = "model.plan", "plan.json"
"""Names of a plan and of its record in a version folder."""

BUILD_PLAN = "engines.json"
"""At the root of a repository: with which flags and shapes each engine is to be built."""

_MEANING = {
    "onnx_sha256": "ONNX file",
    "tensorrt": "TensorRT",
    "gpu": "GPU",
    "capability": "compute capability",
    "flags": "builder flags",
    "driver": "driver",
}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """All that a plan depends on; None where it is not known, which is then not compared.

    Attributes
    ----------
    onnx_sha256
        Of the ``model.onnx`` it was built from.
    tensorrt
        Version, ``"10.13.3.9"``.
    gpu
        Name as ``nvidia-smi`` reports it, ``"NVIDIA H200"``.
    capability
        Compute capability, ``"9.0"``.
    driver
        Version, ``"580.95.05"``. A plan outlives it, but was tuned with it.
    flags
        Options of the builder: profiles, precision, optimisation level.
    """

    onnx_sha256: str | None = None
    tensorrt: str | None = None
    gpu: str | None = None
    capability: str | None = None
    driver: str | None = None
    flags: tuple[str, ...] | None = None

    def key(self) -> str:
        """Hexadecimal name of the plan that fits; equal fingerprints have equal keys.

        Raises
        ------
        ServerError
            When a part of the fingerprint is not known.
        """
        parts = asdict(self)
        if unknown := sorted(name for name, value in parts.items() if value is None):
            raise ServerError(
                f"a plan has no key without its {', '.join(_MEANING[n] for n in unknown)}; build "
                "it in the container on the GPU that is to run it"
            )
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which a plan's fingerprint is not that of the machine.

    Attributes
    ----------
    fatal
        The plan would not load, or would give other results; else it is merely not the best.
    """

    what: str
    built: str
    here: str
    fatal: bool

    def __str__(self) -> str:
        return f"built for {self.what} {self.built}, here is {self.here}"


def differences(built: Fingerprint, here: Fingerprint) -> list[Difference]:
    """In what a plan does not fit; empty when it does. Unknown parts are not compared."""
    found = []
    for field in fields(Fingerprint):
        had, has = getattr(built, field.name), getattr(here, field.name)
        if had is None or has is None or _same(field.name, had, has):
            continue
        values = _shown(field.name, had, has), _shown(field.name, has, had)
        found.append(Difference(_MEANING[field.name], *values, fatal=field.name != "driver"))
    return found


def _same(name: str, had: Any, has: Any) -> bool:
    if name == "tensorrt":  # a library's file name lacks the build number
        mine, other = had.split("."), has.split(".")
        length = min(len(mine), len(other))
        return length >= 3 and mine[:length] == other[:length]
    return had == has


def _shown(name: str, value: Any, other: Any) -> str:
    if name == "onnx_sha256":
        return f"{value[:12]}…"
    if name == "flags":
        own = [flag for flag in value if flag not in other]
        return ", ".join(own if set(value) != set(other) else value) or "none"
    return str(value)


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """The record beside a plan.

    Attributes
    ----------
    plan_sha256, plan_bytes
        Of ``model.plan``: a plan is code, and is loaded only as it was built.
    hilum_version
        Which Hilum built it.
    context_bytes
        By profile, GPU memory that an execution context takes for what lies between input and
        output; None where the builder did not report it.
    """

    fingerprint: Fingerprint
    plan_sha256: str
    plan_bytes: int
    hilum_version: str
    context_bytes: tuple[int, ...] | None = None

    def as_json(self) -> str:
        """The text of ``plan.json``."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record in the text of a ``plan.json``.

        Raises
        ------
        ServerError
            When it is no complete record.
        """
        try:
            read = json.loads(text)
            contexts = read.get("context_bytes")
            return cls(
                _fingerprint(read["fingerprint"]),
                str(read["plan_sha256"]),
                int(read["plan_bytes"]),
                str(read["hilum_version"]),
                None if contexts is None else tuple(map(int, contexts)),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as broken:
            raise ServerError(f"not the record of a plan ({broken!r})") from broken


def _fingerprint(read: Mapping[str, Any]) -> Fingerprint:
    parts = {field.name: read[field.name] for field in fields(Fingerprint)}
    flags = parts.pop("flags")
    if not isinstance(flags, list) or not all(
        isinstance(v, str) for v in (*parts.values(), *flags)
    ):
        raise TypeError("a part of the fingerprint is missing")
    return Fingerprint(**parts, flags=tuple(flags))


@dataclass(frozen=True, slots=True)
class Engine:
    """A plan in a repository, as it was found.

    Attributes
    ----------
    model
        Name of the Triton model.
    record
        None when it has none, or none that can be read: see `problem`.
    onnx_sha256
        Of the ONNX file that the plan should be built from, None when that is not known.
    intact
        Whether the plan is the file of its record.
    flags
        With which it should be built, shapes among them; None when that is not known.
    """

    model: str
    record: PlanRecord | None
    onnx_sha256: str | None = None
    intact: bool = True
    problem: str = ""
    flags: tuple[str, ...] | None = None


def find_engines(repository: Path, deep: bool = True) -> list[Engine]:
    """Every plan of version 1 that the `repository`'s configurations serve.

    Parameters
    ----------
    deep
        Compare checksums; otherwise sizes only, and the ONNX file by its certificate.
    """
    if not repository.is_dir():
        return []
    folders = sorted(file.parent.parent for file in repository.glob(f"*/1/{PLAN}"))
    wanted = _wanted_flags(repository)
    return [
        replace(_engine(folder, deep), flags=wanted.get(folder.name))
        for folder in folders
        if _serves_plan(folder)
    ]


def context_bytes(repository: Path) -> dict[str, int]:
    """GPU memory of an instance's contexts by model, of the whole engines whose record has it.

    The numbers are the plan's own: they hold for whatever else the plan does not fit.
    """
    return {
        engine.model: sum(engine.record.context_bytes)
        for engine in find_engines(repository, deep=False)
        if engine.intact and engine.record and engine.record.context_bytes is not None
    }


def _wanted_flags(repository: Path) -> dict[str, tuple[str, ...]]:
    """By model; empty where the build plan cannot be read, which the repository's check reports."""
    try:
        entries = json.loads((repository / BUILD_PLAN).read_text("utf-8"))["engines"]
        return {model: tuple(map(str, entry["flags"])) for model, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _serves_plan(folder: Path) -> bool:
    from ..model_config import backend_of, read_config

    file = folder / "config.pbtxt"
    return file.is_file() and backend_of(read_config(file)) == "tensorrt"


def _engine(folder: Path, deep: bool) -> Engine:
    version, name = folder / "1", folder.name
    onnx = _onnx_sha256(version, deep)
    try:
        record = PlanRecord.from_json((version / RECORD).read_text("utf-8"))
    except FileNotFoundError:
        return Engine(name, None, onnx, problem=f"has no {RECORD}")
    except (ServerError, OSError, UnicodeDecodeError) as broken:
        return Engine(name, None, onnx, problem=f"1/{RECORD}: {broken}")
    plan = version / PLAN
    intact = plan.stat().st_size == record.plan_bytes
    if intact and deep:
        intact = _sha256(plan) == record.plan_sha256
    return Engine(name, record, onnx, intact)


def _onnx_sha256(version: Path, deep: bool) -> str | None:
    """Checksum of the model's ONNX file: of the file itself, or as its certificate states."""
    file, certificate = version / "model.onnx", version / "certificate.json"
    if deep and file.is_file():
        return _sha256(file)
    try:
        return str(json.loads(certificate.read_text("utf-8"))["file"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
