"""NVIDIA's perf_analyzer: what it is given, how it is run, and what it writes."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.errors import InputError, ServerError
from .instrument.record import Round

WINDOWS = 3
"""Windows that perf_analyzer measures: it takes its figures from so many at least."""

_HOW = "benchmarks/README.md says how to install it"

_MARGIN_S = 120.0
"""For the start of the tool and a server that lags, beyond the windows."""


LARGEST = 1 << 20
"""Bytes of a request and its answer. The tool writes every tensor of every request as text into
the file of requests, which is gigabytes within seconds where they are larger."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent again and again.

    Attributes
    ----------
    inputs
        Arrays by name, the batch axis included where the model has one.
    batched
        Whether the first axis is the model's batch axis.
    """

    model: str
    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]
    batched: bool

    @property
    def batch(self) -> int:
        """Length of the batch axis, 1 without one."""
        return len(next(iter(self.inputs.values()))) if self.batched else 1

    @property
    def bytes(self) -> int:
        """Of all inputs."""
        return sum(array.nbytes for array in self.inputs.values())


@dataclass(frozen=True, slots=True)
class Told:
    """The tool's own figures at one concurrency, from its CSV file.

    Attributes
    ----------
    parts_s
        Seconds of a request by part, as the tool calls them: ``Client Send``, ``Server Queue`` …
    latency_s
        By percentile as text.
    """

    concurrency: int
    per_second: float
    parts_s: Mapping[str, float]
    latency_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of the tool.

    Attributes
    ----------
    processor_s
        Processor time of the tool itself.
    """

    round: Round
    told: Told
    processor_s: float


def find_tool(given: Path | None = None) -> Path:
    """The program.

    Parameters
    ----------
    given
        Where it is; None: looked for in PATH.

    Raises
    ------
    InputError
        When it is not there, or does not start, for instance on a glibc that is too old for it.
    """
    found = given or shutil.which("perf_analyzer")
    if found is None:
        raise InputError(f"perf_analyzer is not in PATH; {_HOW}, or give --perf-analyzer FILE")
    path = Path(found)
    try:
        told = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{path.name} does not start: {error}; {_HOW}") from None
    if told.returncode:
        raise InputError(f"{path.name} does not start: {told.stderr.strip()[-400:]}; {_HOW}")
    return path


def tool_version(tool: Path) -> str:
    """As the tool tells it."""
    told = subprocess.run(
        [tool, "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    return " ".join((told.stdout + told.stderr).split()) or "unknown"


def check_size(sent: int, received: int) -> None:
    """Whether the tool's file of requests can bear tensors of so many bytes.

    Raises
    ------
    InputError
        When it cannot.
    """
    if sent + received > LARGEST:
        raise InputError(
            f"perf_analyzer writes every tensor of every request as text; with {sent + received} "
            f"bytes each that fills the disk. Choose a model or --size of {LARGEST} or less"
        )


def write_inputs(request: Request, folder: Path) -> Path:
    """Write the inputs as the tool's ``--input-data``: one JSON file, the elements in base64.

    Of a batch the first item is written: the tool repeats it as often as ``-b`` says.
    """
    items = {name: array[0] if request.batched else array for name, array in request.inputs.items()}
    entry = {
        name: {
            "content": {"b64": base64.b64encode(np.ascontiguousarray(item).tobytes()).decode()},
            "shape": list(item.shape),
        }
        for name, item in items.items()
    }
    path = folder / "inputs.json"
    path.write_text(json.dumps({"data": [entry]}))
    return path


def words(
    tool: Path,
    request: Request,
    url: str,
    *,
    concurrency: int,
    seconds: float,
    folder: Path,
    output_bytes: int | None = None,
) -> list[str]:
    """The command line.

    Parameters
    ----------
    seconds
        Of all windows together.
    folder
        For what the tool reads and writes.
    output_bytes
        Of the largest output: sends and receives through system shared memory; None: over gRPC.
    """
    found = [
        str(tool), "-m", request.model, "-u", url, "-i", "grpc",
        "--concurrency-range", f"{concurrency}:{concurrency}",
        "--input-data", str(folder / "inputs.json"),
        "--measurement-interval", str(max(round(1000 * seconds / WINDOWS), 100)),
        # It would go on until three windows agree; that is for our statistics to judge.
        "--stability-percentage", "999", "--max-trials", str(WINDOWS),
        "-f", str(folder / "told.csv"), "--profile-export-file", str(folder / "requests.json"),
    ]  # fmt: skip
    if request.batched:
        found += ["-b", str(request.batch)]
    for name, array in request.inputs.items():
        shape = array.shape[1:] if request.batched else array.shape
        found += ["--shape", f"{name}:{','.join(map(str, shape))}"]
    if output_bytes is not None:
        found += ["--shared-memory", "system", "--output-shared-memory-size", str(output_bytes)]
    return found


def run(
    tool: Path, request: Request, url: str, *, concurrency: int, seconds: float,
    output_bytes: int | None = None,
) -> Ran:  # fmt: skip
    """Run the tool once.

    Raises
    ------
    ServerError
        When it fails, with what it says.
    """
    with tempfile.TemporaryDirectory(prefix="hilum-perf-") as name:
        folder = Path(name)
        write_inputs(request, folder)
        command = words(
            tool, request, url, concurrency=concurrency, seconds=seconds, folder=folder,
            output_bytes=output_bytes,
        )  # fmt: skip
        before = _children_s()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds + _MARGIN_S, check=False,
                env={**os.environ, "no_grpc_proxy": "localhost,127.0.0.1"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ServerError(f"perf_analyzer did not end in {seconds + _MARGIN_S:g} s") from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-600:]
            raise ServerError(
                f"perf_analyzer ended with code {done.returncode} on {request.model}. It writes "
                "every tensor of every request as text, which large ones fill memory with: choose "
                f"a smaller --size or fewer --seconds. It said: {said}"
            )
        return Ran(
            read_requests((folder / "requests.json").read_text()),
            read_told((folder / "told.csv").read_text()),
            _children_s() - before,
        )


def read_requests(text: str) -> Round:
    """A round from the JSON file of the tool's requests (``--profile-export-file``).

    Times there are nanoseconds; requests without an answer failed.

    Raises
    ------
    InputError
        For another file.
    """
    try:
        (experiment,) = json.loads(text)["experiments"]
        listed = sorted(experiment["requests"], key=lambda r: r["timestamp"])
        starts = [int(r["timestamp"]) for r in listed]
        ends = [max(map(int, r["response_timestamps"]), default=None) for r in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"this is no file of perf_analyzer's requests: {error!r}") from None
    if not starts:
        raise InputError("perf_analyzer sent nothing; give it more seconds")
    origin = starts[0]
    started = tuple((s - origin) / 1e9 for s in starts)
    finished = tuple(
        ((s if e is None else e) - origin) / 1e9 for s, e in zip(starts, ends, strict=True)
    )
    return Round(
        seconds=max(finished),
        intended=started,
        started=started,
        finished=finished,
        failures={i: "no answer" for i, e in enumerate(ends) if e is None},
    )


def read_told(text: str) -> Told:
    """The tool's own figures, from its CSV file (``-f``), whose times are microseconds.

    Raises
    ------
    InputError
        For another file.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        row = rows[0]
        numbers = {name: float(value) for name, value in row.items() if value}
        concurrency = int(numbers.pop("Concurrency"))
        per_second = numbers.pop("Inferences/Second")
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"this is no CSV file of perf_analyzer: {error!r}") from None
    latency = {
        name.split()[0].removeprefix("p"): value / 1e6
        for name, value in numbers.items()
        if name.startswith("p") and name.endswith("latency")
    }
    parts = {n: v / 1e6 for n, v in numbers.items() if n.split()[0] in ("Client", "Server")}
    parts |= {n: v / 1e6 for n, v in numbers.items() if n.startswith("Network")}
    return Told(concurrency, per_second, parts, latency)


def shapes(requests: Sequence[Request]) -> str:
    """What is sent, in words."""
    return "; ".join(
        ", ".join(f"{n} {a.dtype} {'×'.join(map(str, a.shape))}" for n, a in r.inputs.items())
        for r in requests
    )


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
