"""How lesions are spread over distance, branching level and height (spec §4.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.preprocessing.arrays import Array, namespace


@dataclass(frozen=True, slots=True)
class Distribution:
    """Voxels of lesions and of parenchyma by bins of one measure of position.

    Attributes
    ----------
    edges
        Limits of the bins, one more than bins: half-open, the last one closed.
    lesion, parenchyma
        Voxels in each bin.
    share
        Of all parenchyma that the lesions are; None without any.
    """

    edges: tuple[float, ...]
    lesion: tuple[int, ...]
    parenchyma: tuple[int, ...]
    share: float | None

    @property
    def ratio(self) -> tuple[float | None, ...]:
        """Share of each bin's parenchyma that is lesion; None for an empty bin."""
        pairs = zip(self.lesion, self.parenchyma, strict=True)
        return tuple(a / b if b else None for a, b in pairs)

    @property
    def enrichment(self) -> tuple[float | None, ...]:
        """The same as a multiple of the share anywhere; None without lesions."""
        return tuple(None if r is None or not self.share else r / self.share for r in self.ratio)

    def report(self) -> dict[str, Any]:
        """For JSON; the last edge is null where it is infinite."""
        return {
            "edges": [edge if math.isfinite(edge) else None for edge in self.edges],
            "lesion": list(self.lesion),
            "parenchyma": list(self.parenchyma),
            "ratio": list(self.ratio),
            "enrichment": list(self.enrichment),
        }


def counts(values: Array, edges: Sequence[float]) -> NDArray[np.int64]:
    """Values in each bin [n bins]; half-open, the last one closed."""
    xp = namespace(values)

    def number(chosen: Array) -> int:
        return int(xp.count_nonzero(chosen))

    least = [number(values >= edge) for edge in edges[:-1]]
    beyond = number(values > edges[-1])
    return -np.diff([*least, beyond])
