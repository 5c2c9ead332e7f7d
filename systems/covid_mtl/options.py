"""What can be chosen for a run of COVID-MTL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hilum.catalog import covid_mtl as catalog
from hilum.catalog.errors import BadOption
from hilum.catalog.terms import Mode

from ..base import Place, option
from ..studies import ACQUISITION_HELP

Placement = Literal["client", "server"]

NETWORKS = {n.name: n for n in catalog.SYSTEM.networks if n.inputs[0] == catalog.VOLUME}
"""What can be run: the networks that see the window of the common box."""

MAX_PROCESSES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be chosen for a run.

    Mode ``parity`` is the published program with its faults: the file's numbers are taken for
    HU + 1024 whatever slope and intercept say, and of lungs that no airway joins one is lost.
    Mode ``corrected`` mends these, and refuses what cannot be lungs (spec covid_mtl §3, §4, §16).

    Raises
    ------
    InputError
        For a value that makes no sense.
    """

    mode: Mode = option("parity", "parity: the published program, faults included; or corrected.")
    network: str = option(catalog.DUAL.name, f"Network to ask: {', '.join(NETWORKS)}.")
    radiomics: Placement = option(
        "client", "Where the features of the network dual are computed: client, or server."
    )
    series: str | None = option(None, "Which series of a mixed folder: its number, or its UID.")
    acquisition: int | None = option(None, ACQUISITION_HELP)
    learned_mask: bool = option(
        True, "Mode corrected: ask lungmask, where it is served, when thresholds find no lungs."
    )
    processes: int = option(
        0,
        "Processes for lungs and features; 0: one for each core; 1: no further ones.",
        changes_result=False,
    )

    def __post_init__(self) -> None:
        choices = {
            "mode": get_args(Mode),
            "network": tuple(NETWORKS),
            "radiomics": get_args(Placement),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise BadOption(f"no {name} {getattr(self, name)!r}; choose {', '.join(known)}")
        if self.radiomics == "server" and not self.takes_features:
            raise BadOption(
                f"the network {self.network} takes no features, so there are none to compute on "
                f"the server; leave radiomics out or choose {catalog.DUAL.name}"
            )
        if not 0 <= self.processes <= MAX_PROCESSES:
            raise BadOption(f"{self.processes} processes; give 0 to {MAX_PROCESSES}")

    @property
    def takes_features(self) -> bool:
        """Whether the network takes features beside the volume."""
        return catalog.RADIOMICS in NETWORKS[self.network].inputs

    @property
    def asks_lungmask(self) -> bool:
        """Whether lungmask is asked when need be."""
        return self.learned_mask and self.mode == "corrected"

    @property
    def model(self) -> str:
        """The Triton model that answers."""
        if not self.takes_features:
            return NETWORKS[self.network].model
        on_server = self.radiomics == "server"
        return (catalog.SERVER_ENSEMBLE if on_server else catalog.ENSEMBLE).model


class Keywords(Place, total=False):
    """`Options` as keywords of `Client.run`, for type checkers."""

    mode: Mode
    network: str
    radiomics: Placement
    series: str | None
    acquisition: int | None
    learned_mask: bool
    processes: int
