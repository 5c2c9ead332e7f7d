"""`hilum export`: networks into a model repository, each with its parity certificate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ...catalog import SYSTEMS, System
from ...catalog.errors import ExportError, InputError
from ..pipelines.ct_source import find_studies
from .console import chosen_system, default_repository, err, errors_to_exit_codes, out


class WeightsFrom(StrEnum):
    """Where weights come from."""

    STORE = "store"
    RANDOM = "random"


class Precision(StrEnum):
    """Arithmetic of the exported networks."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Fallback(StrEnum):
    """Arithmetic of networks that cannot be INT8."""

    FP32 = "fp32"
    FP16 = "fp16"


class Target(StrEnum):
    """What serves the networks."""

    ONNX = "onnx"
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
        WeightsFrom, typer.Option(help="From the store, or random ones from a seed.")
    ] = WeightsFrom.STORE,
    store: Annotated[Path | None, typer.Option(help="Weights store.")] = None,
    precision: Annotated[Precision, typer.Option(help="Arithmetic inside the graph.")] = (
        Precision.FP32
    ),
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="For int8: chest CTs, DICOM folders or NIfTI; may be repeated."),
    ] = None,
    fallback: Annotated[
        Fallback, typer.Option(help="For int8: what networks get that miss the tolerance.")
    ] = Fallback.FP32,
    target: Annotated[
        Target, typer.Option(help="Served by ONNX Runtime, or by engines: `hilum engines build`.")
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
    from ...export.repository import export_system

    with errors_to_exit_codes():
        folder = repository or default_repository()
        chosen = [chosen_system(name) for name in systems or SYSTEMS]
        if len(chosen) > 1 and (network or onnx):
            raise ExportError("--network and --onnx belong to one system; name it")
        studies = [study for path in calibration or () for study in find_studies(path)]
        if calibration and not studies:
            raise InputError("--calibration: there is no chest CT, neither DICOM nor NIfTI")
        for system in chosen:
            certificates = export_system(
                system,
                networks=network or None,
                repository=folder,
                weights=weights.value,
                store=store,
                precision=precision.value,
                calibration=studies,
                fallback=fallback.value,
                target=target.value,
                onnx={n: Path(file) for n, file in _pairs(onnx, "--onnx").items()},
                options=_pairs(option, "--option"),
                progress=lambda name, step: err.print(f"{name}: {step}", markup=False),
            )
            _tell(system, certificates)
        out.print(f"Model repository: {folder}", markup=False)
        if target is Target.TENSORRT:
            out.print(
                "In the container on the GPU that is to serve it: "
                f"hilum engines build --repository {folder}",
                markup=False,
            )


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in given or []:
        name, _, value = item.partition("=")
        if not name or not value:
            raise ExportError(f"{option} {item}: write NAME=VALUE")
        pairs[name] = value
    return pairs


def _tell(system: System, certificates: list[dict[str, Any]]) -> None:
    for found in certificates:
        compared = "served as given"
        if parity := found["parity"]:
            largest = max(parity["largest_difference"].values())
            compared = f"at most {largest:.1e} from {parity['reference']}"
        if int8 := found.get("int8"):
            compared = _told_int8(int8, found["precision"], compared)
        source = found["weights"]["source"]
        out.print(f"{system.name} {found['network']}: {compared}; {source}", markup=False)


def _told_int8(int8: dict[str, Any], precision: str, compared: str) -> str:
    if not int8["accepted"]:
        return f"{precision}, not INT8: {int8['reason']}; {compared}"
    lowest = min(int8["dice"].values())
    return f"INT8, Dice {lowest:.4f} on {int8['held_out_slices']} held-out slices"
