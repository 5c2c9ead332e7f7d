"""The options of `hilum run`: those of every system, and those of one."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.catalog.errors import InputError
from hilum.client.device import CPU, Device
from hilum.client.protocols import AnySystem
from hilum.systems.base import BaseSystem


@dataclass(frozen=True, slots=True)
class Common:
    """The options that every system's `run` has."""

    out_dir: Annotated[Path, typer.Option("--out", help="Folder for report and pictures.")]
    url: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST:PORT of a Triton's gRPC, or of several that serve the same, with commas or "
            "given again; without it one is started."
        ),
    ] = None
    repository: Annotated[
        Path | None, typer.Option(help="Model repository for the server that is started.")
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out: keep what still holds."),
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove what the report in --out lists, and begin.")
    ] = False
    save_arrays: Annotated[bool, typer.Option(help="Keep masks as arrays.npz.")] = False
    pictures: Annotated[bool, typer.Option(help="Write a picture for each study.")] = True
    dicom: Annotated[
        bool,
        typer.Option(
            "--dicom",
            help="Also write DICOM objects: segmentations, report, window, pictures (extra dicom).",
        ),
    ] = False
    seg: Annotated[
        str, typer.Option(help="Kind of the DICOM segmentations: binary, or labelmap.")
    ] = "binary"
    seg_probability: Annotated[
        bool,
        typer.Option(
            "--seg-probability",
            help="Also write probabilities as a fractional DICOM segmentation (ct-angel --heat).",
        ),
    ] = False
    parametric_map: Annotated[
        bool,
        typer.Option(
            "--parametric-map", help="Also write DLPE's enhanced volume as a DICOM parametric map."
        ),
    ] = False
    in_flight: Annotated[int, typer.Option(min=1, help="Studies at once.")] = (
        BaseSystem.studies_in_flight
    )
    transport: Annotated[str, typer.Option(help="auto, grpc, shm or cuda.")] = "auto"
    device: Annotated[
        str, typer.Option(help="Where arrays are worked on: auto, cpu, or cuda:N (a GPU).")
    ] = "auto"
    retry_window: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a server that went away.")
    ] = 30.0
    deadline: Annotated[float, typer.Option(min=0.001, help="Seconds for one request.")] = 300.0
    tls_ca: Annotated[
        Path | None, typer.Option(help="Certificates to trust (PEM); turns TLS on.")
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(help="This client's own certificate (PEM), for mutual TLS.")
    ] = None
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve Prometheus metrics on this loopback port."),
    ] = None
    ignore_doctor: Annotated[
        bool, typer.Option("--ignore-doctor", help="Start what `hilum doctor` calls broken.")
    ] = False
    permissions: Annotated[
        str, typer.Option(help="Who may read what is written: user, group or all.")
    ] = "user"
    trace: Annotated[
        Path | None,
        typer.Option(help="Record what was done when; a file for Perfetto or chrome://tracing."),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False


def fitted(parameter: inspect.Parameter, system: AnySystem) -> inspect.Parameter:
    """A common option with the default that suits the system."""
    if parameter.name == "in_flight":
        return parameter.replace(default=system.studies_in_flight)
    return parameter


def inputs_parameter(system: AnySystem) -> inspect.Parameter:
    """The argument for the studies."""
    annotation = Annotated[
        list[Path],
        typer.Argument(help=f"Files, or folders: one {system.study_label} each."),
    ]
    return inspect.Parameter("inputs", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)


def is_own(field: dataclasses.Field[Any]) -> bool:
    """Whether a field is a command-line option itself, not filled from another one."""
    return "from" not in field.metadata


def parameters(options_type: type) -> Iterator[inspect.Parameter]:
    """The fields of an options class as parameters that Typer understands."""
    hints = inspect.get_annotations(options_type, eval_str=True)
    for f in filter(is_own, dataclasses.fields(options_type)):
        annotation = hints[f.name]
        if "help" in f.metadata:
            annotation = Annotated[annotation, typer.Option(help=f.metadata["help"])]
        default = inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default
        yield inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )


def check_device(system: AnySystem, options: Any, common: Common) -> None:
    """Refuse a GPU that is not there or not to be used, and CUDA shared memory without one."""
    wanted, used = Device.of(common.device), system.device(options)
    if wanted != used and common.device != "auto":
        raise InputError(
            f"{system.name} works on arrays on the CPU only, not on {wanted}; "
            "leave --device out. Its networks run where the server has them"
        )
    if common.transport == "cuda" and used == CPU:
        raise InputError(
            "--transport cuda is for arrays on a GPU, and these are worked on on the CPU; "
            "choose --device cuda:N where the system takes one, or --transport auto"
        )
