"""lungmask: slices of a generated CT."""

from __future__ import annotations

from ..instrument.workloads import slices_of
from . import Description

DESCRIPTION = Description(
    usual=slices_of("lungmask", quick=False), quick=slices_of("lungmask", quick=True), unit="slice",
    networks=("r231",), procedure=False,
)  # fmt: skip
