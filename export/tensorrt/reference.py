"""What a network answers to a fixed input, stored beside it, and the judgement of an engine by it.

The answers are ONNX Runtime's on the served file, computed at export. So an engine is compared with
its ONNX on a machine that has neither PyTorch nor ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import Network

from ..certificate import HALF_MEAN, HALF_MEAN_UNBOUNDED, HALF_PIXELS, WIDE

Arrays = dict[str, NDArray[Any]]

INPUT, OUTPUT = "input/", "output/"
"""Prefixes of the arrays' names in ``reference.npz``."""

FULL_PIXELS = 1e-4
"""Share of a mask's pixels that an engine of an FP32 graph may change: kernels add in another
order, and a voxel at the threshold may fall to the other side (Dice 0.9999, spec dlpe §13.14)."""

FULL_TIMES = 5.0
"""Times an export's own tolerance that such an engine may differ: the export was compared with
PyTorch kernel by kernel alike, engines fuse and add in other orders."""


def write_reference(file: Path, served: Path, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Run a served file on the inputs and store both (compressed ``.npz``)."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(served, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = session.run(names, dict(inputs))
    arrays = {f"{INPUT}{name}": array for name, array in inputs.items()}
    arrays |= {f"{OUTPUT}{n}": np.asarray(a) for n, a in zip(names, answers, strict=True)}
    np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def read_outputs(file: Path) -> Arrays:
    """The stored answers by the name of the output."""
    with np.load(file) as stored:
        return {n.removeprefix(OUTPUT): stored[n] for n in stored.files if n.startswith(OUTPUT)}


def judge(
    network: Network,
    precision: str,
    got: Mapping[str, NDArray[Any]],
    want: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, Any], str]:
    """Compare an engine's answers with the stored ones.

    Masks are judged by the share of their pixels that differ; float outputs of an FP32 graph by
    their largest difference, in proportion where they reach beyond 10, those of an FP16 graph by
    the mean, as exports are (`certificate`).

    Returns
    -------
    dict
        Largest and mean difference, or share of differing pixels, by output.
    str
        Why the engine must not be served; empty when it may.
    """
    outputs: dict[str, Any] = {}
    problem = ""
    for name, wanted in want.items():
        found = got.get(name)
        if found is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
            have = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            reason = f"{name} is {have} instead of {wanted.dtype} {list(wanted.shape)}"
        elif wanted.dtype.kind != "f":
            outputs[name], reason = _pixels(name, precision, found, wanted)
        else:
            outputs[name], reason = _values(network, name, precision, found, wanted)
        problem = problem or reason
    return outputs, problem


def _pixels(
    name: str, precision: str, got: NDArray[Any], want: NDArray[Any]
) -> tuple[dict[str, float], str]:
    share = float((got != want).mean())
    allowed = FULL_PIXELS if precision == "fp32" else HALF_PIXELS
    problem = "" if share <= allowed else f"{share:.2%} of the pixels of {name} differ"
    return {"differing_share": share}, problem


def _values(
    network: Network, name: str, precision: str, got: NDArray[Any], want: NDArray[Any]
) -> tuple[dict[str, float], str]:
    wide = want.astype(np.float64)
    apart = np.abs(got.astype(np.float64) - wide)
    largest, mean, reach = float(apart.max()), float(apart.mean()), float(np.abs(wide).max())
    measured = {"largest": largest, "mean": mean, "reach": reach}
    if precision == "fp32":
        value, limit = largest, FULL_TIMES * network.tolerance * max(1.0, reach / WIDE)
        what = "differs by"
    else:
        value, limit = mean, HALF_MEAN if reach <= 1 else HALF_MEAN_UNBOUNDED
        what = "differs on average by"
    # Written so that a difference that is no number is a problem, too.
    return measured, "" if value <= limit else f"{name} {what} {value:.2g}, more than {limit:.2g}"
