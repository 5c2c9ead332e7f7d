"""What can be chosen for a run of the X-ray system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from hilum.catalog import cxr_severity as cxr
from hilum.catalog.errors import BadOption
from hilum.catalog.terms import Mode
from hilum.client.device import CPU, Device

from ..base import filled_from, option


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be chosen for a run.

    Raises
    ------
    InputError
        For a network that does not exist or has no corrected threshold.
    """

    network: str = option(cxr.DEFAULT_NETWORK, f"Stage II network: {', '.join(cxr.DISEASE)}.")
    mode: Mode = option("parity", "parity: the published program with its faults; corrected.")
    zone_threshold: float | None = option(
        None, "Diseased share above which a zone counts (default: the network's own)."
    )
    device: Device = filled_from("device", CPU)

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", Device.of(self.device))
        if self.network not in cxr.DISEASE:
            raise BadOption(
                f"no stage II network {self.network!r}; choose one of {', '.join(cxr.DISEASE)}"
            )
        if self.mode not in cxr.MODES:
            raise BadOption(f"no mode {self.mode!r}; choose one of {', '.join(cxr.MODES)}")
        if self.zone_threshold is not None and not 0 <= self.zone_threshold <= 1:
            raise BadOption(f"zone threshold {self.zone_threshold} is not between 0 and 1")
        if self.mode == "corrected" and self.facts.corrected_threshold is None:
            raise BadOption(
                f"{self.network} answers 'no disease' to every image as published, so the "
                "corrected mode leaves it out; choose another network or mode parity"
            )

    @property
    def facts(self) -> cxr.DiseaseFacts:
        """The catalog's facts of the chosen network."""
        return cxr.DISEASE[self.network]

    @property
    def threshold(self) -> float:
        """The zone threshold in force."""
        if self.zone_threshold is not None:
            return self.zone_threshold
        corrected = self.facts.corrected_threshold
        if self.mode == "corrected" and corrected is not None:
            return corrected
        return self.facts.zone_threshold


class Keywords(TypedDict, total=False):
    """`Options` as keywords of `Client.run`, for type checkers."""

    network: str
    mode: Mode
    zone_threshold: float | None
    device: Device | str
