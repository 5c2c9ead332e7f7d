"""Severity scoring of a chest X-ray: file → stage I and II on the server → score of 0 to 6.

The client decodes and resizes; the ensemble ``cxr_severity_<network>`` does the rest. Response
contract: spec cxr §9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...catalog import cxr_severity as cxr
from ...catalog.errors import InputError
from ...preprocessing.arrays import Array, to_host
from ...preprocessing.images import Mode, XRay, is_xray_file, read_xray
from ...preprocessing.resize import resize_bilinear_u8
from .. import calls
from ..device import CPU, Device
from ..pictures.cxr_severity import draw
from ..trace import span
from .base import Source, filled_from, option

_OUTPUTS = tuple(t.name for t in cxr.ENSEMBLES[cxr.DEFAULT_NETWORK].outputs)


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
            raise InputError(
                f"no stage II network {self.network!r}; choose one of {', '.join(cxr.DISEASE)}"
            )
        if self.mode not in cxr.MODES:
            raise InputError(f"no mode {self.mode!r}; choose one of {', '.join(cxr.MODES)}")
        if self.zone_threshold is not None and not 0 <= self.zone_threshold <= 1:
            raise InputError(f"zone threshold {self.zone_threshold} is not between 0 and 1")
        if self.mode == "corrected" and self.facts.corrected_threshold is None:
            raise InputError(
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CxrResult:
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
    gated
        The gate (probability ≤ 0.5) silenced the disease mask.
    box, box_original
        Crop [left, top, right, bottom) in the network's frame and in pixels of the X-ray.
    lung
        uint8 [L, L] cleaned lung mask of the whole image.
    lung512, disease512
        uint8 [512, 512] lung and disease mask in the crop frame, in which zones are scored.
    xray
        The decoded X-ray.
    """

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

    def write_pictures(self, folder: Path, name: str, note: str) -> list[str]:
        """Write the overlay as ``<name>.png``; `note` says whose weights these are."""
        draw(self, note).save(folder / f"{name}.png")
        return [f"{name}.png"]


class CxrSeverity:
    """The pipeline of the system `cxr-severity`."""

    system: ClassVar = cxr.SYSTEM
    options_type: ClassVar = Options
    noun: ClassVar = "X-ray"

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        return (cxr.ENSEMBLES[options.network].model,)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        return (cxr.LUNG.model, cxr.SYSTEM.network(options.network).model)

    def find(self, path: Path) -> list[Path]:
        """The X-rays that an argument of the command line stands for: a file, or those below it."""
        if not path.is_dir():
            return [path]
        return [p for p in sorted(path.rglob("*")) if is_xray_file(p.relative_to(path), path)]

    def study(self, source: Source, options: Options) -> calls.Steps[CxrResult]:
        """Score one X-ray; yields actions for the client's drivers.

        Parameters
        ----------
        source
            A file, its bytes, or its pixels as uint8 or uint16 [H, W] or [H, W, 3] (B, G, R).

        Raises
        ------
        InputError
            For anything that is not one frontal chest X-ray.
        """
        return options.device.follow(_study(source, options))


def _study(source: Source, options: Options) -> calls.Steps[CxrResult]:
    ensemble = cxr.ENSEMBLES[options.network].model
    served = yield from calls.model(ensemble)
    side = int(served.inputs["image"].shape[-2])
    xray, image = yield calls.Compute(lambda: _prepare(source, options, side), "read")
    answer = yield from calls.infer(
        ensemble,
        {
            "image": image[None],
            "mode": np.array([[cxr.MODES[options.mode]]], np.uint8),
            "zone_threshold": np.array([[options.threshold]], np.float64),
        },
        _OUTPUTS,
    )
    return _result(
        {k: to_host(v)[0] for k, v in answer.outputs.items()}, xray, options, answer.transport
    )


def _prepare(source: Source, options: Options, side: int) -> tuple[XRay, Array]:
    """Decode and resize to the network's frame, whatever the aspect ratio (spec cxr §3)."""
    xray = read_xray(Path(source) if isinstance(source, str) else source, mode=options.mode)
    with span("preprocess"):
        return xray, resize_bilinear_u8(options.device.put(xray.pixels), (side, side))


def _result(
    out: dict[str, NDArray[Any]], xray: XRay, options: Options, transport: str
) -> CxrResult:
    score = int(out["score"][0])
    flags = tuple(f.name.lower() for f in cxr.Flag(int(out["flags"][0])) if f.name)
    box = tuple(int(v) for v in out["box"])
    side = out["lung"].shape[0]
    height, width = xray.pixels.shape[:2]
    sx, sy = width / side, height / side
    return CxrResult(
        score=None if score == cxr.NO_SCORE else score,
        status=flags[0] if flags else "ok",
        flags=flags,
        fractions=_numbers(out["fractions"]),
        fractions_ungated=_numbers(out["fractions_ungated"]),
        zone_threshold=options.threshold,
        disease_probability=float(out["probability"][0]),
        gated=bool(out["gated"][0]),
        box=(box[0], box[1], box[2], box[3]),
        box_original=(box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy),
        lung_components=int(out["lung_components"][0]),
        lung_area_px=int(out["lung_area"][0]),
        network=options.network,
        mode=options.mode,
        transport=transport,
        lung=out["lung"],
        lung512=out["lung512"],
        disease512=out["disease"],
        xray=xray,
    )


def _numbers(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(v) else float(v) for v in values)
