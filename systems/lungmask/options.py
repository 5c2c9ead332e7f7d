"""What can be chosen for a run of lungmask."""

from __future__ import annotations

from dataclasses import dataclass

from hilum.catalog.errors import BadOption
from hilum.catalog.terms import Mode

from ..base import Place, option
from ..studies import ACQUISITION_HELP

MAX_SLICES_IN_FLIGHT = 64
"""Beyond this, slices only wait."""


def check_in_flight(slices: int) -> None:
    """Refuse a number of slices in flight that makes no sense."""
    if not 1 <= slices <= MAX_SLICES_IN_FLIGHT:
        raise BadOption(f"{slices} slices in flight; give 1 to {MAX_SLICES_IN_FLIGHT}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be chosen for a run.

    Raises
    ------
    InputError
        For a mode that does not exist or a number of slices out of range.
    """

    mode: Mode = option("parity", "parity or corrected: the same here, no fault is known.")
    clean: bool = option(True, "Clean the volume: no stray pieces, no holes.")
    series: str | None = option(None, "Which series of a mixed folder: its number, or its UID.")
    acquisition: int | None = option(None, ACQUISITION_HELP)
    slices_in_flight: int = option(4, "Slices at once.", changes_result=False)

    def __post_init__(self) -> None:
        if self.mode not in ("parity", "corrected"):
            raise BadOption(f"no mode {self.mode!r}; choose parity or corrected")
        check_in_flight(self.slices_in_flight)


class Keywords(Place, total=False):
    """`Options` as keywords of `Client.run`, for type checkers."""

    mode: Mode
    clean: bool
    series: str | None
    acquisition: int | None
    slices_in_flight: int
