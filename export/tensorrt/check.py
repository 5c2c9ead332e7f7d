"""Every exported graph through NVIDIA's parser and compiler, without a GPU.

TensorRT-RTX builds ahead of time on any machine. Its engines are not served; that they can be
built shows that TensorRT's parser knows every operator of a graph, that all types fit in a strongly
typed network, and that the shapes of all optimisation profiles go through.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hilum.catalog.errors import ExportError, HilumError

from ..certificate import MODEL_FILE, as_exported, read_certificate, sha256_of
from .checked import Checked
from .graphs import Wanted
from .plan import OPTIMISATION_LEVEL, Engine, engine_of, write_json
from .report import page
from .supervise import Limits, failure, run_worker
from .vendor import Order
from .widen import widened

MODULE, CAPABILITY = "tensorrt_rtx", "8.9"
"""What builds, and for which compute capability: the newest that TensorRT-RTX and servers share."""

REPORT, PAGE = "report.json", "report.md"

Progress = Callable[[str, str], None]
"""Called with the name of a network and what is being done with it."""


def compiler_version() -> str | None:
    """Version of TensorRT-RTX as workers find it, None where it is not installed."""
    outcome = run_worker({"probe": [MODULE]}, Limits(120, 4 << 30))
    return None if outcome.result is None else outcome.result[MODULE]


def check_graphs(
    graphs: Sequence[Wanted],
    out: Path,
    *,
    repository: Path | None = None,
    again: bool = False,
    limits: Limits,
    progress: Progress = lambda _name, _step: None,
) -> Iterator[tuple[Wanted, Checked, bool]]:
    """Check graphs one after the other; the report in `out` is complete after each of them.

    Parameters
    ----------
    out
        Folder of the report, of what is exported for it, and of the results of earlier runs: a
        graph whose file, compiler and shapes have passed is not built again.
    repository
        Take the exported files from here instead; what is not there at a precision is left out.
    again
        Export and build everything again.

    Yields
    ------
    The graph, what came of it, and whether that is of an earlier run.

    Raises
    ------
    ExportError
        When TensorRT-RTX is not installed.
    """
    version = compiler_version()
    if version is None:
        raise ExportError(
            "TensorRT-RTX is not installed; `make check-tensorrt` does it, or: pip install "
            "--no-deps --target DIR -r constraints/tensorrt-rtx.txt, then HILUM_TENSORRT=DIR"
        )
    compiler = f"TensorRT-RTX {version}"
    out.mkdir(parents=True, exist_ok=True)
    known = {(c.model, c.precision): c for c in read_report(out)}
    for graph in graphs:
        place = (graph.network.model, graph.precision)
        try:
            file = _exported(graph, out, repository, again, progress)
            if file is None:
                continue
            engine = _engine(graph, file)
            key = (engine.onnx_sha256, compiler, CAPABILITY, *engine.flags)
            before = known.get(place)
            if before is not None and before.status == "ok" and before.key == key and not again:
                yield graph, before, True
                continue
            found = _build(graph, file, engine, compiler, limits, progress)
        except HilumError as failed:
            found = _failure(graph, str(failed), compiler)
        known[place] = found
        write_report(out, known.values())
        yield graph, found, False
    write_report(out, known.values())


def _exported(
    graph: Wanted, out: Path, repository: Path | None, again: bool, progress: Progress
) -> Path | None:
    """The graph's file; exported with random weights unless it is there."""
    model = graph.network.model
    if repository is not None:
        file = repository / model / "1" / MODEL_FILE
        found = read_certificate(repository / model)
        return file if found is not None and found["precision"] == graph.precision else None
    own = out / graph.precision
    file = own / model / "1" / MODEL_FILE
    if again or not file.is_file():
        own.mkdir(parents=True, exist_ok=True)
        _export(graph, own, progress)
    return file


def _export(graph: Wanted, repository: Path, progress: Progress) -> None:
    if graph.precision == "int8":
        from .quantised import write_quantised

        progress(graph.label, "quantising")
        write_quantised(graph.system, graph.network, repository / graph.network.model / "1")
        return
    from ..repository import export_system

    export_system(
        graph.system,
        repository=repository,
        networks=[graph.network.name],
        precision=graph.precision,
        target="tensorrt",
        progress=lambda name, step: progress(graph.label, step),  # noqa: ARG005
    )


def _engine(graph: Wanted, file: Path) -> Engine:
    certificate = read_certificate(file.parent.parent)
    if certificate is None:
        raise ExportError(f"{file} has no certificate; export it again")
    network = as_exported(graph.network, certificate)
    if sha256_of(file) != certificate["file"]["sha256"]:
        raise ExportError(f"{file} is not the file of its certificate; export it again")
    return engine_of(graph.system.name, network, certificate)


def _build(
    graph: Wanted,
    file: Path,
    engine: Engine,
    compiler: str,
    limits: Limits,
    progress: Progress,
) -> Checked:
    progress(graph.label, "building")
    with tempfile.TemporaryDirectory(prefix="hilum-check-") as folder:
        copy = Path(folder) / MODEL_FILE
        changed = [] if not engine.reason else widened(file, copy)
        order = Order(
            module=MODULE,
            onnx=str(copy if changed else file),
            plan=None,
            profiles=[p.as_json() for p in engine.profiles],
            tf32=engine.tf32 == "on",
            level=OPTIMISATION_LEVEL,
            capability=CAPABILITY,
        )
        outcome = run_worker(asdict(order), limits)
    result = outcome.result or {"stage": "", "messages": [], "bytes": 0}
    reason = failure(outcome)
    return Checked(
        graph.system.name,
        graph.network.name,
        graph.network.model,
        graph.precision,
        "failed" if reason else "ok",
        reason,
        engine.onnx_sha256,
        file.stat().st_size,
        result["bytes"],
        result.get("layers", 0),
        round(result.get("parse_seconds", 0.0), 2),
        round(result.get("build_seconds", 0.0), 2),
        outcome.peak,
        tuple(result["messages"]),
        tuple(changed),
        compiler,
        CAPABILITY,
        engine.flags,
    )


def _failure(graph: Wanted, reason: str, compiler: str) -> Checked:
    return Checked(
        graph.system.name,
        graph.network.name,
        graph.network.model,
        graph.precision,
        "failed",
        f"the export: {reason}",
        compiler=compiler,
        capability=CAPABILITY,
    )


def read_report(out: Path) -> list[Checked]:
    """The results of earlier runs in a folder; a report of another version is not looked at."""
    try:
        entries = json.loads((out / REPORT).read_text("utf-8"))["graphs"]
        found = [Checked(**{k: _frozen(v) for k, v in entry.items()}) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def write_report(out: Path, results: Iterable[Checked]) -> None:
    """Write ``report.json`` and ``report.md``."""
    ordered = sorted(results, key=lambda c: (c.system, c.model, c.precision))
    write_json(out / REPORT, {"graphs": [asdict(c) for c in ordered]})
    temporary = out / f".{PAGE}-{os.getpid()}"
    temporary.write_text(page(ordered), "utf-8")
    temporary.replace(out / PAGE)
