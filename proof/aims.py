"""What is to be reached on a GPU, and what a figure says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MEANT_FOR = ("H100", "H200")
"""GPUs that the aims were set for; on others a missed one says nothing."""

Verdict = Literal["pass", "fail", "not comparable", "rehearsed", "not measured"]


@dataclass(frozen=True, slots=True)
class Aim:
    """One aim."""

    text: str
    limit: float
    unit: str
    better: Literal["higher", "lower"]


AIMS: Mapping[str, Aim] = {
    "dlpe": Aim("DLPE: from DICOM to the enhanced volume, 512³", 10.0, "s", "lower"),
    "pspnet": Aim("X-rays with PSPNet", 300.0, "images/s", "higher"),
    "manet": Aim("X-rays with MA-Net", 100.0, "images/s", "higher"),
    "ends": Aim("DLPE: from DICOM to masks, over the networks' own time", 3.0, "times", "lower"),
    "triton": Aim("Triton over CUDA shared memory, over in process", 1.05, "times", "lower"),
}  # fmt: skip


def judge(aim: Aim, value: float | None, *, rehearsed: bool, gpus: tuple[str, ...]) -> Verdict:
    """What a measured value says; that of a rehearsal says nothing about a GPU.

    Parameters
    ----------
    gpus
        Names of the machine's GPUs.
    """
    if value is None:
        return "not measured"
    if rehearsed or not gpus:
        return "rehearsed"
    if value >= aim.limit if aim.better == "higher" else value <= aim.limit:
        return "pass"
    meant = any(name in gpu for gpu in gpus for name in MEANT_FOR)
    return "fail" if meant else "not comparable"
