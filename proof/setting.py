"""What a proof is measured with: where, on what, and how large."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hilum.client.options import TransportChoice

LIMIT_S = 480.0
"""Of one stage: many machines end a command after ten minutes."""

NETWORKS = ("lung", "pspnet", "manet")
"""Of X-rays: the two with figures in the article's abstract, and what comes before them."""

DISEASE = NETWORKS[1:]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large everything is.

    Attributes
    ----------
    grid, arrays_grid
        Voxels along each side of normalised space: of the scan that is timed, and of those whose
        masks are compared.
    pixels, slices
        Of the generated DICOM series.
    slab
        Slices of a slab and voxels along their sides.
    matrix, copied
        Side of the matrices, and bytes of the copies, by which the hardware is measured.
    requests
        Of one kind that are timed.
    """

    grid: int
    arrays_grid: int
    pixels: int
    slices: int
    slab: tuple[int, int]
    matrix: int
    copied: int
    requests: int
    seconds: float
    rounds: int
    concurrencies: tuple[int, ...]


FULL = Sizes(512, 256, 512, 240, (8, 512), 8192, 1 << 30, 30, 8.0, 3, (1, 2, 4, 8, 16, 32))

REDUCED = Sizes(64, 64, 96, 40, (4, 64), 256, 1 << 24, 3, 0.8, 1, (1, 2))
"""Of a rehearsal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One proof.

    Attributes
    ----------
    repository
        Model repository: one that is given, or where the first stages export to.
    given
        It was given.
    rehearse
        Without a GPU: NumPy for CuPy, system for CUDA shared memory, small sizes.
    url
        Of the server's gRPC, for the stages that ask it.
    """

    out: Path
    repository: Path
    given: bool
    rehearse: bool
    weights: str = "random"
    precision: str = "fp16"
    url: str = ""

    @property
    def sizes(self) -> Sizes:
        """How large everything is."""
        return REDUCED if self.rehearse else FULL

    @property
    def device(self) -> str:
        """Where the client works on arrays."""
        return "cpu" if self.rehearse else "cuda:0"

    @property
    def memory(self) -> TransportChoice:
        """The shared memory that is proved."""
        return "shm" if self.rehearse else "cuda"

    @property
    def key(self) -> dict[str, Any]:
        """What must be the same for the records of stages to stand in one proof."""
        repository = str(self.repository.resolve()) if self.given else ""
        return {
            "rehearse": self.rehearse, "weights": self.weights, "precision": self.precision,
            "repository": repository,
        }  # fmt: skip

    def at(self, url: str) -> Setting:
        """The same for a server."""
        return replace(self, url=url)

    def text(self) -> str:
        """As JSON, for the process of a stage."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def parse(cls, text: str) -> Setting:
        """From `text`."""
        held = json.loads(text)
        return cls(**held | {name: Path(held[name]) for name in ("out", "repository")})
