"""What can be chosen for a run of the slice classifier."""

from __future__ import annotations

from dataclasses import dataclass

from hilum.catalog import ct_classifier as catalog
from hilum.catalog.errors import BadOption
from hilum.catalog.terms import Mode

from ..base import Place, option
from ..lungmask.options import check_in_flight
from ..studies import ACQUISITION_HELP


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be chosen for a run.

    Raises
    ------
    InputError
        For a mode or profile that does not exist, and for numbers out of range.
    """

    profile: str = option(
        catalog.DEFAULT_PROFILE, f"What the weights were trained on: {', '.join(catalog.PROFILES)}."
    )
    mode: Mode = option(
        "parity", "parity: lungs of profile masked slice by slice, as published; corrected: of all."
    )
    threshold: float = option(catalog.THRESHOLD, "A slice is positive at this probability.")
    laterality: bool = option(True, "Tell the sides apart; profile raw_hu needs r231 for it.")
    verdict_run: int | None = option(
        None, "Call the patient positive from so many consecutive slices on (default: no verdict)."
    )
    series: str | None = option(None, "Which series of a mixed folder: its number, or its UID.")
    acquisition: int | None = option(None, ACQUISITION_HELP)
    slices_in_flight: int = option(4, "Slices at once.", changes_result=False)

    def __post_init__(self) -> None:
        if self.profile not in catalog.PROFILES:
            known = ", ".join(catalog.PROFILES)
            raise BadOption(f"no profile {self.profile!r}; choose one of {known}")
        if self.mode not in ("parity", "corrected"):
            raise BadOption(f"no mode {self.mode!r}; choose parity or corrected")
        if not 0 < self.threshold < 1:
            raise BadOption(f"threshold {self.threshold} is not between 0 and 1")
        if self.verdict_run is not None and self.verdict_run < 1:
            raise BadOption(f"a verdict from {self.verdict_run} slices; give 1 or more")
        check_in_flight(self.slices_in_flight)

    @property
    def masked(self) -> bool:
        """The profile takes the lungs alone."""
        return self.profile == catalog.MASKED


class Keywords(Place, total=False):
    """`Options` as keywords of `Client.run`, for type checkers."""

    profile: str
    mode: Mode
    threshold: float
    laterality: bool
    verdict_run: int | None
    series: str | None
    acquisition: int | None
    slices_in_flight: int
