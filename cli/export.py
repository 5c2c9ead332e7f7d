"""`hilum export`: networks into a model repository, each with its parity certificate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.catalog import SYSTEMS, System
from hilum.catalog.errors import ExportError, InputError, RepositoryError
from hilum.results.provenance import weights_entry, weights_note

from .console import Steps, chosen_system, default_repository, err, errors_to_exit_codes, out
from .doctor import refuse_broken

if TYPE_CHECKING:
    from hilum.export.calibration import Finder, Volumes
    from hilum.preprocessing.reading.series import Series
    from hilum.server.launcher import Progress, TritonServer

DEADLINE_S = 300.0
"""For one slab of a calibration series; as in `hilum run`."""


class WeightsFrom(StrEnum):
    """Where weights come from."""

    STORE = "store"
    REFERENCE = "reference"
    RANDOM = "random"


class Precision(StrEnum):
    """Arithmetic of the exported networks."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class Fallback(StrEnum):
    """Arithmetic of networks that cannot be INT8."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class Target(StrEnum):
    """What serves the networks."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"


def export(
    systems: Annotated[
        list[str] | None, typer.Argument(help="Systems to export (default: all).")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="Only these networks; may be repeated.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Model repository (default: the checkout's).")
    ] = None,
    weights: Annotated[
        WeightsFrom,
        typer.Option(
            help="From the store; reference: those that come with Hilum, to try it; or random ones "
            "from a seed."
        ),
    ] = WeightsFrom.STORE,
    store: Annotated[Path | None, typer.Option(help="Weights store.")] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Arithmetic of the networks; bf16 is for --target openvino."),
    ] = Precision.FP32,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="For int8, and to judge bf16 of dlpe: chest CTs, DICOM or NIfTI; may be repeated."
        ),
    ] = None,
    calibrate_with: Annotated[
        Path | None,
        typer.Option(
            metavar="REPOSITORY",
            help="With --calibration: DLPE's networks in fp32 or fp16, an earlier export. A server "
            "of them finds in the CTs what networks see of each other; without, only those that "
            "see the CT alone can be int8, or are judged by masks in bf16.",
        ),
    ] = None,
    fallback: Annotated[
        Fallback, typer.Option(help="For int8: what networks get that miss the tolerance.")
    ] = Fallback.FP32,
    target: Annotated[
        Target,
        typer.Option(
            help="Served by ONNX Runtime, by OpenVINO on processors, or by engines: "
            "`hilum engines build`."
        ),
    ] = Target.ONNX,
    onnx: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK=FILE", help="Serve this ONNX file in a network's place."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="seed, opset, calibration_slices, calibration_grid."
        ),
    ] = None,
) -> None:
    """Export networks as ONNX with certificates and all Triton configurations."""
    from hilum.export.reference import reference_networks
    from hilum.export.repository import export_system
    from hilum.systems.studies import find_studies

    with errors_to_exit_codes():
        folder = repository or default_repository()
        chosen = [chosen_system(name) for name in systems or SYSTEMS]
        if weights is WeightsFrom.REFERENCE and not systems:
            chosen = [system for system in chosen if reference_networks(system)]
        if len(chosen) > 1 and (network or onnx):
            raise ExportError("--network and --onnx belong to one system; name it")
        studies = [study for path in calibration or () for study in find_studies(path)]
        if calibration and not studies:
            raise InputError("--calibration: there is no chest CT, neither DICOM nor NIfTI")
        finder = None if calibrate_with is None else partial(_finder, calibrate_with, len(studies))
        for system in chosen:
            certificates = export_system(
                system,
                networks=network or None,
                repository=folder,
                weights=weights.value,
                store=store,
                precision=precision.value,
                calibration=studies,
                calibrate_with=finder,
                fallback=fallback.value,
                target=target.value,
                onnx={n: Path(file) for n, file in _pairs(onnx, "--onnx").items()},
                options=_pairs(option, "--option"),
                progress=lambda name, step: err.print(f"{name}: {step}", markup=False),
            )
            _show(system, certificates)
        out.print(f"Model repository: {folder}", markup=False)
        if target is Target.TENSORRT:
            out.print(
                "In the container on the GPU that is to serve it: "
                f"hilum engines build --repository {folder}",
                markup=False,
            )


@contextmanager
def _finder(repository: Path, studies: int) -> Iterator[Finder]:
    """DLPE's pipeline on a server of a repository, as far as other networks see what it finds."""
    from hilum.client.client import Client
    from hilum.systems.dlpe import calibration as dlpe_found

    _check_weights(repository)
    with (
        _serve(repository) as server,
        Client(server.grpc_url, deadline_s=DEADLINE_S) as client,
        Steps("calibration series", studies) as steps,
    ):
        client.on_progress = lambda part: steps.part(part.stage, part.done, part.total)

        def find(series: Series, grid: int) -> Volumes:
            found = dlpe_found.found(series, client.calls(), grid=grid)
            steps.advance("done")
            return found

        yield find


def _check_weights(repository: Path) -> None:
    """Refuse networks of reduced precision; say when the weights are random."""
    from hilum.export.certificate import read_certificate
    from hilum.systems.dlpe import calibration as dlpe_found

    read = {n.model: read_certificate(repository / n.model) for n in dlpe_found.NETWORKS}
    known = {model: certificate for model, certificate in read.items() if certificate}
    reduced = [model for model, weights in known.items() if weights["precision"] == "int8"]
    if reduced:
        raise InputError(
            f"--calibrate-with: {', '.join(reduced)} are INT8 there; give a repository that has "
            "them in fp32 or fp16"
        )
    if note := weights_note([weights_entry(model, weights) for model, weights in known.items()]):
        err.print(f"[bold yellow]{note}[/]")


def _serve(repository: Path) -> TritonServer:
    """Start a server of the networks that others need; of fewer, where that is all there is."""
    from hilum.server.launcher import TritonServer
    from hilum.systems.dlpe import calibration as dlpe_found

    lack = RepositoryError()
    for models in dlpe_found.MODELS:
        try:
            refuse_broken(repository, models=models)
            return TritonServer(repository, models=models, progress=_say, grace=0).start()
        except RepositoryError as error:
            lack = error
    raise RepositoryError(f"--calibrate-with: {lack}") from lack


def _say(progress: Progress) -> None:
    err.print(f"server: {len(progress.loaded)} of {progress.total} models loaded", markup=False)


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in given or []:
        name, _, value = item.partition("=")
        if not name or not value:
            raise ExportError(f"{option} {item}: write NAME=VALUE")
        pairs[name] = value
    return pairs


def _show(system: System, certificates: list[dict[str, Any]]) -> None:
    for found in certificates:
        compared = "served as given"
        if parity := found["parity"]:
            largest = max(parity["largest_difference"].values())
            compared = f"at most {largest:.1e} from {parity['reference']}"
        if int8 := found.get("int8"):
            compared = _int8_note(int8, found["precision"], compared)
        if bf16 := found.get("bf16"):
            asked = "bf16" if bf16["accepted"] else f"fp32, not bf16: {bf16['reason']}"
            compared = f"{asked}; {compared}"
        source = found["weights"]["source"]
        out.print(f"{system.name} {found['network']}: {compared}; {source}", markup=False)


def _int8_note(int8: dict[str, Any], precision: str, compared: str) -> str:
    if not int8["accepted"]:
        return f"{precision}, not INT8: {int8['reason']}; {compared}"
    lowest = min(int8["dice"].values())
    return f"INT8, Dice {lowest:.4f} on {int8['held_out_slices']} held-out slices"
