"""The CT classifier: slices of a generated CT."""

from __future__ import annotations

from ..figures import slices_per_second
from ..instrument.workloads import slices_of
from . import Description

DESCRIPTION = Description(
    usual=slices_of("ct-classifier", quick=False),
    quick=slices_of("ct-classifier", quick=True),
    unit="slice",
    networks=("raw_hu",),
    figures=slices_per_second(lambda quick: slices_of("ct-classifier", quick=quick)),
)
