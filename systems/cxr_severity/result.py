"""The severity of one chest X-ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import cxr_severity as cxr
from hilum.catalog.terms import Mode
from hilum.preprocessing.reading.images import XRay

from ..dicom_results import DicomResult
from ..notebook import ShownInNotebook


@dataclass(frozen=True, slots=True, kw_only=True)
class CxrResult(DicomResult, ShownInNotebook):
    """The severity of one chest X-ray.

    Attributes
    ----------
    score
        0 to 6, None where there are no lungs to score (mode corrected).
    status
        "ok", or the worst of the flags.
    flags
        What is unusual about the lung mask.
    fractions
        Diseased share of each zone, in the order of `catalog.cxr_severity.ZONES`; None for a zone
        of a lung that is not there.
    fractions_ungated
        The same had the network's image-level gate not been applied.
    zone_threshold
        A zone above this share adds one point.
    disease_probability
        Image-level probability of disease, 0 to 1.
    gated
        The gate (probability ≤ 0.5) silenced the disease mask.
    box, box_original
        Crop [left, top, right, bottom) in the network's frame and in pixels of the X-ray.
    lung_components, lung_area_px
        Connected parts of the lung mask, and its pixels in the network's frame.
    network, mode
        The stage II network; ``parity`` or ``corrected``.
    transport
        How tensors reached the server: ``grpc``, ``shm`` or ``cuda``.
    lung
        uint8 [L, L] cleaned lung mask of the whole image.
    lung512, disease512
        uint8 [512, 512] lung and disease mask in the crop frame, in which zones are scored.
    xray
        The decoded X-ray.
    """

    system: ClassVar[str] = "cxr-severity"

    score: int | None
    status: str
    flags: tuple[str, ...]
    fractions: tuple[float | None, ...]
    fractions_ungated: tuple[float | None, ...]
    zone_threshold: float
    disease_probability: float
    gated: bool
    box: tuple[int, int, int, int]
    box_original: tuple[float, float, float, float]
    lung_components: int
    lung_area_px: int
    network: str
    mode: Mode
    transport: str
    lung: NDArray[np.uint8] = field(repr=False)
    lung512: NDArray[np.uint8] = field(repr=False)
    disease512: NDArray[np.uint8] = field(repr=False)
    xray: XRay = field(repr=False)

    def report(self) -> dict[str, Any]:
        """The fields of the report, ready for JSON."""
        return {
            "status": self.status,
            "flags": list(self.flags),
            "score": self.score,
            "zones": list(cxr.ZONES),
            "fractions": list(self.fractions),
            "fractions_ungated": list(self.fractions_ungated),
            "zone_threshold": self.zone_threshold,
            "disease_probability": self.disease_probability,
            "gated": self.gated,
            "box": list(self.box),
            "box_original": list(self.box_original),
            "lung_components": self.lung_components,
            "lung_area_px": self.lung_area_px,
            "network": self.network,
            "decode": list(self.xray.decode),
            "transport": self.transport,
        }

    def arrays(self) -> dict[str, NDArray[np.uint8]]:
        """What `--save-arrays` keeps."""
        return {"lung512": self.lung512, "disease512": self.disease512}

    def row(self) -> dict[str, str]:
        """One line of the table on the terminal."""
        shares = ["–" if f is None else f"{f:.2f}" for f in self.fractions]
        return {
            "score": "–" if self.score is None else f"{self.score} / 6",
            "left low mid up": " ".join(shares[:3]),
            "right low mid up": " ".join(shares[3:]),
            "p": f"{self.disease_probability:.2f}" + (" gated" if self.gated else ""),
            "status": self.status,
        }
