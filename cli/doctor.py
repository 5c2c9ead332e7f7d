"""`hilum doctor`: does this machine fit what is to be served, and what is missing."""

from __future__ import annotations

import importlib.util
import json
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.catalog import SYSTEMS

from .console import Exit, default_repository, errors_to_exit_codes, out

if TYPE_CHECKING:
    from hilum.server.doctor.checks import Finding

COLOURS = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(
    repository: Annotated[
        Path | None, typer.Option(help="Model repository (default: the checkout's).")
    ] = None,
    host: Annotated[str, typer.Option(help="Address that the server is to bind.")] = "127.0.0.1",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check server, GPUs, driver, engines, repository, weights and memory. Exit code 1: broken."""
    from hilum.server.doctor.checks import broken, check
    from hilum.server.doctor.facts import gather

    with errors_to_exit_codes():
        folder = repository or default_repository()
        facts = gather(folder, host)
        client = facts.server is None and not folder.is_dir()
        findings = [
            *_packages(),
            *_decoders(),
            *(_as_client(check(facts)) if client else check(facts)),
            *_arrays(bool(facts.gpus)),
            *_weights(),
            *_repository(folder),
        ]
    usable = not broken(findings)
    if as_json:
        report = {
            "usable": usable,
            "shm_size": facts.shm_need.shm_size(),
            "findings": [asdict(finding) for finding in findings],
        }
        out.print(json.dumps(report, indent=2), markup=False)
    else:
        _show(findings)
    if not usable:
        raise typer.Exit(Exit.STUDY_FAILED)


def refuse_broken(
    repository: Path, host: str = "127.0.0.1", models: Iterable[str] | None = None
) -> None:
    """Refuse to serve what `hilum doctor` calls broken; quickly, without reading whole files.

    Raises
    ------
    ServerError
        With every problem and its remedy.
    """
    from hilum.server.doctor.checks import check, refuse
    from hilum.server.doctor.facts import gather

    refuse(check(gather(repository, host, models, deep=False)))


def refuse_unbuildable() -> None:
    """Refuse to build engines on a machine that `hilum doctor` calls broken for that.

    Raises
    ------
    ExportError
        With every problem and its remedy.
    """
    from hilum.server.doctor.buildable import check_build, refuse_build
    from hilum.server.doctor.facts import gather_machine

    refuse_build(check_build(gather_machine()))


def _show(findings: Iterable[Finding]) -> None:
    for finding in findings:
        out.print(f"{finding.level:8}", style=COLOURS[finding.level], end="")
        out.print(str(finding), markup=False)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    from hilum.server.doctor.checks import Finding, Level

    core = ("hilum", "tritonclient", "grpcio", "numpy", "opencv-python-headless", "pydicom")
    found = ", ".join(f"{name} {_version(name)}" for name in core)
    yield Finding(Level.OK, f"Python {platform.python_version()}, {found}")
    missing = [p for p in ("torch", "onnx", "onnxscript", "onnxruntime") if not _version(p)]
    missing += [p for p in ("segmentation_models_pytorch",) if not importlib.util.find_spec(p)]
    if missing:
        yield Finding(
            Level.NOTE,
            f"no {', '.join(missing)}",
            "`hilum export` needs them, a client does not",
            "`make install` in a checkout installs them, or pip install 'hilum[export]'",
        )
    else:
        yield Finding(Level.OK, f"export: torch {_version('torch')}, onnx {_version('onnx')}")
    if _version("openvino"):
        from hilum.export.openvino import NO_BF16, computes_bf16

        can = "bf16 computes about twice as fast as fp32" if computes_bf16() else NO_BF16
        yield Finding(Level.OK, f"OpenVINO {_version('openvino')}: {can}")


def _decoders() -> Iterator[Finding]:
    """What reads the compressed transfer syntaxes of DICOM."""
    from hilum.preprocessing.reading.dicom_decoders import decoders
    from hilum.server.doctor.checks import Finding, Level

    found = list(decoders())
    there = {
        d.package: [e.syntax for e in found if e.package == d.package] for d in found if d.there
    }
    yield Finding(
        Level.OK, "DICOM: " + "; ".join(f"{', '.join(s)} by {p}" for p, s in there.items())
    )
    for decoder in found:
        if not decoder.there:
            yield Finding(
                Level.PROBLEM,
                f"DICOM: nothing reads {decoder.syntax}",
                f"{decoder.package} is missing or too old",
                "install Hilum again with its dependencies",
            )


def _as_client(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Without a server and models a machine is a client, which needs neither."""
    from hilum.server.doctor.checks import NO_SERVER, Level

    for finding in findings:
        if finding.what == NO_SERVER:
            yield replace(
                finding, level=Level.NOTE, why="as a client (`hilum run --url`) it needs none"
            )
        else:
            yield finding


def _arrays(gpu: bool) -> Iterator[Finding]:
    """Whether the client's own array work can use the GPU."""
    from hilum.server.doctor.checks import Finding, Level

    if not gpu:
        return
    from hilum.client.device import gpus

    count, obstacle = gpus()
    if obstacle is None:
        yield Finding(Level.OK, f"CuPy sees {count} GPU(s)")
    else:
        yield Finding(
            Level.NOTE,
            f"CuPy cannot be used ({obstacle})",
            "array work of the client runs on the CPU",
            "pip install 'hilum[gpu]', for this CUDA and this NumPy (CuPy 14 needs NumPy 2)",
        )


def _weights() -> Iterator[Finding]:
    from hilum.export.store import list_store, store_folder
    from hilum.server.doctor.checks import Finding, Level

    have = {(card.system, card.network) for card in list_store()}
    for system in SYSTEMS.values():
        missing = [n.name for n in system.networks if (system.name, n.name) not in have]
        if not missing:
            yield Finding(Level.OK, f"{system.name}: all weights are in the store")
            continue
        yield Finding(
            Level.NOTE,
            f"{system.name}: no weights of {', '.join(missing)}",
            f"none in {store_folder()}",
            f"`hilum weights import {system.name} DIR`, or export with --weights random",
        )


def _repository(repository: Path) -> Iterator[Finding]:
    from hilum.export.check import check_repository
    from hilum.server.doctor.checks import Finding, Level

    if not repository.is_dir():
        yield Finding(
            Level.NOTE, f"no model repository at {repository}", remedy="`hilum export` makes one"
        )
        return
    findings = check_repository(repository)
    yield from _grouped(
        (
            finding.model,
            Finding(
                Level.PROBLEM if finding.severity == "error" else Level.NOTE,
                finding.what,
                finding.why,
                finding.remedy,
            ),
        )
        for finding in findings
    )
    if not findings:
        yield Finding(Level.OK, f"{repository} is complete and agrees with its certificates")


_ONE_NETWORK = re.compile(r" --network \S+")


def _grouped(findings: Iterable[tuple[str, Finding]]) -> Iterator[Finding]:
    """Findings about models as lines; the same about several models of a system as one line."""
    groups: dict[tuple[str, ...], dict[str, Finding]] = {}
    for model, finding in findings:
        about = _ONE_NETWORK.sub("", finding.remedy)
        groups.setdefault((finding.level, finding.what, about), {})[model] = finding
    for (_, what, remedy), members in groups.items():
        models, (first, *others) = ", ".join(filter(None, members)), members.values()
        if not others:
            yield replace(first, what=f"{models}: {what}" if models else what)
            continue
        whys = {finding.why for finding in members.values()}
        why = first.why if len(whys) == 1 else "neither they nor the ensembles that call them run"
        yield replace(first, what=f"{models}: {what}", why=why, remedy=remedy)
