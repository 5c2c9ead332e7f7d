"""CT-Angel: slices of a generated CT."""

from __future__ import annotations

from ..figures import slices_per_second
from ..instrument.workloads import slices_of
from . import Description

DESCRIPTION = Description(
    usual=slices_of("ct-angel", quick=False), quick=slices_of("ct-angel", quick=True), unit="slice",
    networks=("lesion",),
    figures=slices_per_second(lambda quick: slices_of("ct-angel", quick=quick)), slow_export=True,
)  # fmt: skip
