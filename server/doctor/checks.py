"""Does this machine fit what is to be served? Pure checks over recorded facts.

Every check takes `Facts` and says one line per finding: what, why, what to do. The versions it
compares with are in ``data/compatibility.toml``, with their sources.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources import files
from typing import Any

from hilum.catalog.errors import ServerError

from ..arguments import is_loopback
from ..machine import SHM
from .engines import Engine, Fingerprint, differences
from .gpu_memory import MiB, Need


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: what it is, why it matters, what to do."""

    level: Level
    what: str
    why: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return "; ".join(text for text in (self.what, self.why, self.remedy) if text)


NO_SERVER = "no Triton server on this machine"
"""A problem where something is to be served; a client needs none."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as ``nvidia-smi`` reports it; memory in MiB."""

    name: str
    capability: str
    driver: str
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a machine has and is to serve.

    Attributes
    ----------
    server
        The ``tritonserver`` in one line, None when there is none: `server_missing` says why.
    triton
        Its version, None when it is unknown.
    embedded
        It is the one inside the nvidia-pytriton wheel.
    tensorrt
        Version of the server's TensorRT, None when it is unknown.
    host
        Address that the server binds.
    gpus_unread
        There are GPUs, but ``nvidia-smi`` does not report which.
    shm_free
        Free bytes of ``/dev/shm``, None without it.
    rebuild
        Command that builds the engines again.
    """

    server: str | None
    triton: str | None
    embedded: bool = False
    server_missing: str = ""
    tensorrt: str | None = None
    host: str = "127.0.0.1"
    gpus: tuple[Gpu, ...] = ()
    gpus_unread: bool = False
    shm_free: int | None = None
    shm_need: Need = field(default_factory=Need)
    engines: tuple[Engine, ...] = ()
    rebuild: str = "hilum engines build"


@functools.cache
def table() -> dict[str, Any]:
    """The data file: versions, floors, sources."""
    text = files("hilum.server.doctor").joinpath("data", "compatibility.toml").read_text("utf-8")
    return tomllib.loads(text)


def number(version: str) -> tuple[int, ...]:
    """A version for comparisons: its leading numbers (``"2.71.0"`` → ``(2, 71, 0)``)."""
    parts: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def check(facts: Facts) -> list[Finding]:
    """Every finding about the machine, in the order of the checks."""
    return [
        *check_server(facts),
        *check_address(facts),
        *check_gpus(facts),
        *check_driver(facts),
        *check_engines(facts),
        *check_shared_memory(facts),
    ]


def broken(findings: Iterable[Finding]) -> list[Finding]:
    """Those that forbid to serve."""
    return [finding for finding in findings if finding.level is Level.PROBLEM]


def refuse(findings: Iterable[Finding]) -> None:
    """Raise when something is broken.

    Raises
    ------
    ServerError
        With every problem and its remedy.
    """
    if problems := broken(findings):
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ServerError(
            f"this machine does not fit what is to be served:{listed}\n"
            "`hilum doctor` shows more; --ignore-doctor serves all the same"
        )


def check_server(facts: Facts) -> Iterator[Finding]:
    """Whether there is a server."""
    if facts.server is None:
        yield Finding(Level.PROBLEM, NO_SERVER, remedy=facts.server_missing)
    else:
        yield Finding(Level.OK, facts.server)


def check_address(facts: Facts) -> Iterator[Finding]:
    """The server's version against the floor, and who can reach it."""
    if facts.server is None:
        return
    floor = table()["floor"]
    private = is_loopback(facts.host)
    if facts.triton is None:
        what = "the server's version is unknown"
        why = f"below Triton {floor['triton']} ({floor['container']}) it would be open to attack"
        remedy = f"set TRITON_SERVER_VERSION, or use {floor['image']}"
    elif number(facts.triton) < number(floor["triton"]):
        what = f"Triton {facts.triton} is older than {floor['triton']} ({floor['container']})"
        why = floor["why"]
        remedy = f"in production run {floor['image']} or newer"
    else:
        if not private:
            yield Finding(
                Level.NOTE,
                f"it listens on {facts.host}",
                "Triton asks nobody who they are and encrypts nothing",
                "let a firewall or the TLS proxy of docker/ stand before it",
            )
        return
    if private:
        yield Finding(Level.NOTE, what, why, f"so it serves this machine's loopback only; {remedy}")
    else:
        yield Finding(
            Level.PROBLEM,
            f"{what}, and is to listen on {facts.host}",
            why,
            f"bind 127.0.0.1, or {remedy}",
        )


def check_gpus(facts: Facts) -> Iterator[Finding]:
    """GPUs against what the server was compiled for."""
    if facts.gpus_unread:
        yield Finding(
            Level.NOTE,
            "there are NVIDIA devices, but nvidia-smi does not answer",
            "neither GPU nor driver can be checked",
            "install the driver's tools; in a container add the `utility` driver capability",
        )
    elif not facts.gpus:
        yield Finding(
            Level.NOTE,
            "no NVIDIA GPU found",
            "networks run on the CPU, slowly",
            "a container needs `--gpus all` (compose.gpu.yaml)",
        )
    rule = None if facts.triton is None else _rule("capability", facts.triton)
    for gpu in dict.fromkeys(facts.gpus):
        described = f"{gpu.name}, compute capability {gpu.capability}, {gpu.memory_mib} MiB"
        if rule is None or number(gpu.capability) >= number(rule["minimum"]):
            yield Finding(Level.OK, described)
            continue
        legacy = table()["legacy"]
        yield Finding(
            Level.PROBLEM,
            described,
            f"Triton {facts.triton} needs {rule['minimum']} or more",
            f"hide it (CUDA_VISIBLE_DEVICES) or use a newer GPU; the last container for it is "
            f"{legacy['container']}, which is open to attack: on a machine's own loopback only",
        )


def check_driver(facts: Facts) -> Iterator[Finding]:
    """The driver against the server's CUDA."""
    rule = None if facts.triton is None else _rule("cuda", facts.triton)
    for driver in dict.fromkeys(gpu.driver for gpu in facts.gpus):
        if rule is None or facts.embedded:  # the wheel brings no CUDA
            yield Finding(Level.OK, f"driver {driver}")
        elif number(driver) >= number(rule["driver"]):
            yield Finding(Level.OK, f"driver {driver} runs CUDA {rule['version']}")
        else:
            yield Finding(
                Level.PROBLEM,
                f"driver {driver}",
                f"CUDA {rule['version']} of Triton {facts.triton} needs {rule['driver']} or newer",
                "update the driver; if this is a data-centre GPU and the container's own "
                "compatibility package covers the driver, --ignore-doctor",
            )


def check_engines(facts: Facts) -> Iterator[Finding]:
    """TensorRT engines against machine and repository: GPU, TensorRT, ONNX file, flags, shapes."""
    for engine in facts.engines:
        yield from _check_engine(facts, engine)
    rule = table()["tensorrt"]
    if facts.engines and facts.tensorrt and number(facts.tensorrt) < number(rule["minimum"]):
        yield Finding(
            Level.NOTE,
            f"TensorRT {facts.tensorrt} is older than {rule['minimum']}",
            "its engines can be served, but not built as Hilum builds them",
            f"use {table()['floor']['image']} or newer",
        )


def _check_engine(facts: Facts, engine: Engine) -> Iterator[Finding]:
    what = f"{engine.model}: its TensorRT plan"
    again = f"{facts.rebuild} --model {engine.model}"
    if engine.record is None:
        why = "it is unknown for which GPU and from which network it was built"
        yield Finding(Level.PROBLEM, f"{what} {engine.problem}", why, again)
        return
    if not engine.intact:
        why = "a plan is code: it was replaced or damaged after it was built"
        yield Finding(Level.PROBLEM, f"{what} is not the file of its record", why, again)
    if not facts.gpus:
        if not facts.gpus_unread:
            why = "without a GPU it cannot be loaded"
            remedy = "serve it where it was built, or export the network with `--target onnx`"
            yield Finding(Level.PROBLEM, what, why, remedy)
        return
    fits = True
    for gpu in dict.fromkeys(facts.gpus):
        here = Fingerprint(
            engine.onnx_sha256, facts.tensorrt, gpu.name, gpu.capability, gpu.driver, engine.flags
        )
        for difference in differences(engine.record.fingerprint, here):
            level = Level.PROBLEM if difference.fatal else Level.NOTE
            why = "it would not load or not do the same" if difference.fatal else "it may be slower"
            fits = False
            yield Finding(level, f"{what} was {difference}", why, again)
    if fits and engine.intact:
        yield Finding(Level.OK, f"{what} was built for this machine")


def check_shared_memory(facts: Facts) -> Iterator[Finding]:
    """Free shared memory against the tensors of the Python processes."""
    free, need = facts.shm_free, facts.shm_need
    if free is None:
        yield Finding(
            Level.PROBLEM if need.least else Level.NOTE,
            f"no {SHM}",
            "Triton's Python processes get their tensors through it",
            f"mount a tmpfs on {SHM}",
        )
        return
    space = f"{SHM} has {free // MiB} MiB free"
    remedy = f"start the container with --shm-size={need.shm_size()}, or free some"
    if free < need.least:
        why = f"one request of the largest model takes {-(-need.least // MiB)} MiB"
        yield Finding(Level.PROBLEM, space, why, remedy)
    elif free < need.full:
        why = f"all processes with their largest batches at once take {-(-need.full // MiB)} MiB"
        yield Finding(Level.NOTE, space, why, remedy)
    else:
        yield Finding(Level.OK, f"{space}; the models need {-(-need.full // MiB)} MiB")


def _rule(name: str, triton: str) -> dict[str, Any] | None:
    """The latest rule of a list in the table that holds for the version of Triton."""
    holding = [rule for rule in table()[name] if number(rule["since"]) <= number(triton)]
    return max(holding, key=lambda rule: number(rule["since"]), default=None)
