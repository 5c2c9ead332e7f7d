"""What an INT8 export is asked for: checked before anything is computed, then made ready."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.catalog import Arithmetic, Fallback, Network, Precision, System, dlpe
from hilum.catalog.errors import InputError

from .calibration import OpenFinder, cut_slabs

if TYPE_CHECKING:
    from torch import nn

    from .parity import Runtime
    from .systems.dlpe.int8 import Judge

OPTIONS = {"calibration_slices": (32, 4, 512), "calibration_grid": (dlpe.SIDE, 64, dlpe.SIDE)}
"""Slices of each direction that are calibrated and judged on, and the grid they are cut from:
default, smallest and largest value."""


def wire_precision_of(
    system: System,
    precision: Arithmetic,
    calibration: Sequence[Path],
    fallback: Fallback,
    files: Collection[str],
    calibrate_with: OpenFinder | None = None,
) -> Precision:
    """Check what was asked for; the precision of the tensors that networks take and give.

    Networks of one ensemble share their slab, so those that become INT8 take what those that fall
    back take.

    Raises
    ------
    InputError
        For INT8 without series to calibrate on, of another system, or of a user's ONNX file; for
        series, or what finds volumes in them, that nothing would be calibrated or judged on.
    """
    if precision != "int8":
        judged = precision == "bf16" and system.name == dlpe.SYSTEM.name and calibration
        for option, given in (("calibration", calibration), ("calibrate-with", calibrate_with)):
            if given and not judged:
                raise InputError(
                    f"--{option} is for --precision int8, or bf16 of {dlpe.SYSTEM.name}; leave one "
                    "out or add the other"
                )
        return "fp32" if precision == "bf16" else precision
    if system.name != dlpe.SYSTEM.name:
        raise InputError(
            f"--precision int8 is for the networks of {dlpe.SYSTEM.name}, not of {system.name}; "
            "export it with --precision fp16"
        )
    if files:
        raise InputError(
            "--onnx FILE is served as it is and not quantised: leave --precision int8 out, or "
            "quantise the file yourself"
        )
    if not calibration:
        raise InputError(
            "--precision int8 needs --calibration with chest CTs like those it will be used on: "
            "DICOM folders or NIfTI files; they are read on this machine only"
        )
    return "fp32" if fallback == "bf16" else fallback


@contextmanager
def judge_of(
    repository: Path,
    calibration: Sequence[Path],
    options: Mapping[str, int],
    core_of: Callable[[Network], nn.Module],
    calibrate_with: OpenFinder | None = None,
    runtime: Runtime | None = None,
) -> Iterator[Judge | None]:
    """Cut the slabs and keep them while networks are exported; None without `calibration`.

    They lie in a hidden folder of the repository, on whose disk there is room for networks, and are
    removed in any case. The finder is open only while they are cut. `runtime` judges, since it will
    serve them; None: ONNX Runtime.
    """
    if not calibration:
        yield None
        return
    from .systems.dlpe.int8 import Judge

    with tempfile.TemporaryDirectory(prefix=".calibration-", dir=repository) as folder:
        with nullcontext() if calibrate_with is None else calibrate_with() as find:
            slabs = cut_slabs(
                calibration,
                Path(folder),
                slices=options["calibration_slices"],
                grid=options["calibration_grid"],
                seed=options["seed"],
                find=find,
            )
        yield Judge(slabs, core_of, runtime)
