"""What COVID-MTL says about one chest CT: three answers, the lungs they rest on, and the doubts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hilum.catalog.covid_mtl import HEADS
from hilum.catalog.covid_mtl_features import FEATURES
from hilum.catalog.terms import Mode

from ..dicom_results import DicomResult
from ..notebook import ShownInNotebook

if TYPE_CHECKING:
    from hilum.postprocessing.covid_mtl import Answers
    from hilum.preprocessing.covid_mtl.pipeline import Prepared
    from hilum.preprocessing.covid_mtl.radiomics import Scaled
    from hilum.preprocessing.reading.series import Series

COLUMNS = {"ct": "CT", "nat": "NAT", "severity": "severity"}
"""Headings of the answers on the terminal, by head."""

STAGES = ("read", "resample", "lungs", "features", "network")
"""Stages whose seconds are shown there; the report has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CovidMtlResult(DicomResult, ShownInNotebook):
    """Diagnosis and severity of COVID-19 from one chest CT.

    Attributes
    ----------
    study
        What the study is, human-readable: size and spacing; free of identifiers.
    mode
        ``parity`` or ``corrected``.
    network
        Name of the network in the catalog: ``dual``, ``volume``, …
    placement
        Where the features were computed: ``client`` or ``server``; ``none`` for a network that
        takes no features.
    probabilities
        By head (`catalog.covid_mtl.HEADS`), those that the network answers: float32, in the order
        of the head's classes.
    answers
        The decision over all three heads; None for a network that answers one.
    prepared
        Lungs, common box and how they came about. For the published containers the scan is the
        masked one, without a place in space.
    features
        float64 [375] in the order of `catalog.covid_mtl_features.FEATURES`, NaN where they cannot
        be computed; None for a network that takes none.
    scaled
        The same as the network saw them, with the names of stand-ins.
    seconds
        By stage: ``read``, ``resample``, ``lungs``, ``box``, ``features``, ``network``, ``total``,
        as far as they were run. Features that the server computes are part of ``network``.
    flags
        What casts doubt on the answers, the worst first.
    notes
        The same and more, human-readable and free of identifiers.
    transport
        How tensors reached the server.
    series
        The series on its own grid; None for the published containers.
    """

    system: ClassVar[str] = "covid-mtl"

    study: str
    mode: Mode
    network: str
    placement: str
    probabilities: Mapping[str, NDArray[np.float32]]
    answers: Answers | None
    prepared: Prepared = field(repr=False)
    features: NDArray[np.float64] | None = field(repr=False)
    scaled: Scaled | None = field(repr=False)
    seconds: Mapping[str, float]
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    transport: str
    series: Series | None = field(default=None, repr=False)

    @property
    def status(self) -> str:
        """Status of the study: "ok", or the worst of the flags."""
        return self.flags[0] if self.flags else "ok"

    @property
    def classes(self) -> dict[str, str]:
        """The most probable class of each head that was answered, in words."""
        return {
            name: HEADS[name].classes[int(values.argmax())]
            for name, values in self.probabilities.items()
        }

    @property
    def lung_ml(self) -> float:
        """Volume of the lungs."""
        return 1000 * self.prepared.lungs.litres

    def report(self) -> dict[str, Any]:
        """The fields of the report, ready for JSON."""
        prepared, scaled = self.prepared, self.scaled
        return {
            "status": self.status,
            "flags": list(self.flags),
            "study": self.study,
            "mode": self.mode,
            "network": self.network,
            "placement": self.placement,
            **{HEADS[name].output: self._by_class(name) for name in self.probabilities},
            "classes": self.classes,
            "consistent": None if self.answers is None else self.answers.consistent,
            "lung_ml": round(self.lung_ml, 1),
            "share_in_box": round(prepared.box_share, 6),
            "share_in_window": round(prepared.window_share, 6),
            "shape": list(prepared.stored.shape),
            "spacing_mm": [round(mm, 6) for mm in prepared.spacing],
            "features": self._named_features(),
            "replaced": None if scaled is None else list(scaled.replaced),
            "clipped": None if scaled is None else list(scaled.clipped),
            "timings_s": {stage: round(s, 4) for stage, s in self.seconds.items()},
            "notes": list(self.notes),
            "transport": self.transport,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `--save-arrays` keeps.

        ``lung`` uint8 and [z, y, x] as the whole scan in voxels of 1 mm; ``volume`` uint16, the
        common box; and with features ``features`` float64 [375] and ``feature_names``.
        """
        kept: dict[str, NDArray[Any]] = {
            "lung": self.prepared.lungs.mask,
            "volume": self.prepared.crop,
        }
        if self.features is not None:
            kept |= {"features": self.features, "feature_names": np.array(FEATURES)}
        return kept

    def row(self) -> dict[str, str]:
        """One line of the table on the terminal."""
        found = self.classes
        return {
            **{
                title: f"{found[name]} {self.probabilities[name].max():.2f}"
                for name, title in COLUMNS.items()
                if name in found
            },
            "lungs ml": f"{self.lung_ml:.0f}",
            "seconds": ", ".join(
                f"{stage} {self.seconds[stage]:.1f}" for stage in STAGES if stage in self.seconds
            ),
            "status": self.status,
        }

    def _by_class(self, name: str) -> dict[str, float]:
        values = self.probabilities[name]
        named = zip(HEADS[name].classes, values, strict=True)
        return {title: round(float(value), 6) for title, value in named}

    def _named_features(self) -> dict[str, float | None] | None:
        if self.features is None:
            return None
        named = zip(FEATURES, self.features.tolist(), strict=True)
        return {name: value if math.isfinite(value) else None for name, value in named}
