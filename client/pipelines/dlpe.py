"""DLPE: chest CT → lungs, airways, vessels → scan-optimal window, enhanced volume, lesions.

The client normalises the scan, sends slabs of it, ranks and masks what comes back, and enhances;
the server runs the networks. See `dlpe_flow` for the order and `dlpe_views` for the slabs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...catalog import dlpe as catalog
from ...catalog.errors import InputError
from ...postprocessing import ranks
from ...postprocessing.enhancement import Enhancement
from ...preprocessing.arrays import namespace, to_host
from ...preprocessing.dlpe_space import Normalised, normalise, read_normalised
from ...preprocessing.series import Series
from ...preprocessing.volume import Volume
from ...preprocessing.windows import doubts_about_hu
from .. import calls
from ..provenance import weights_entry, weights_note
from . import ct_source
from . import dlpe_stages as stages
from .ct_source import CtSource, open_source
from .dlpe_flow import Flow
from .dlpe_ledger import Ledger
from .dlpe_options import Options
from .dlpe_result import DlpeResult

Source = CtSource | Normalised
"""A study: what all CT pipelines take, or a ready normalised volume."""

_READY = (".npy", ".npz")
"""Endings of ready normalised volumes."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A study in normalised space.

    Attributes
    ----------
    limits
        Of the box in which scores are ranked.
    """

    normalised: Normalised
    series: Series | None
    limits: ranks.Limits


class Dlpe:
    """The pipeline of the system `dlpe`."""

    system: ClassVar = catalog.SYSTEM
    options_type: ClassVar = Options
    noun: ClassVar = "chest CT"
    studies_in_flight: ClassVar = 1

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        return stages.models(options)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        return stages.networks(options)

    def find(self, path: Path) -> list[Path]:
        """The studies that an argument of the command line stands for.

        Those of `ct_source.find_studies`; of a folder with neither DICOM nor NIfTI the ready
        normalised volumes.
        """
        found = ct_source.find_studies(path)
        if found or not path.is_dir():
            return found
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in _READY)

    def study(self, source: Source, options: Options) -> calls.Steps[DlpeResult]:
        """Process one study; yields actions for the client's drivers.

        Parameters
        ----------
        source
            A DICOM folder or file, a NIfTI file, its bytes, a `Series`, a `Volume`, voxels
            [z, y, x] in HU and LPS order; or a ready normalised volume: `Normalised`, or a file
            ``.npy`` or ``.npz``.

        Raises
        ------
        InputError
            For anything that is not one chest CT.
        """
        return options.device.follow(_study(source, options))


def _study(source: Source, options: Options) -> calls.Steps[DlpeResult]:
    ledger = Ledger()
    with ledger.stage("normalise"):
        opened: _Opened = yield calls.Compute(lambda: _open(source, options))
    about = yield from calls.about()
    flow = Flow(opened.normalised.voxels, options, opened.limits, ledger)
    yield from flow.run()
    return (
        yield calls.Compute(lambda: _result(opened, flow, _whose(about, options)), "postprocess")
    )


def _open(source: Source, options: Options) -> _Opened:
    """Bring a study into normalised space."""
    ready = _ready(source)
    if ready is None:
        scan, series, xp = _scan(source, options)
        normalised = normalise(scan, options.mode, options.grid, fill_hu=options.fill_hu, xp=xp)
        opened = _Opened(normalised, series, options.limits(options.grid))
    else:
        there = dataclasses.replace(ready, voxels=options.device.put(ready.voxels))
        opened = _Opened(there, None, ranks.LIMITS)
    depth = opened.normalised.voxels.shape[2]
    if options.slice is not None and options.slice >= depth:
        raise InputError(
            f"there is no slice {options.slice}: normalised space has {depth}, from 0 at the feet"
        )
    return opened


def _ready(source: Source) -> Normalised | None:
    """A volume that is normalised already; anything else is none."""
    if isinstance(source, Normalised):
        return source
    if isinstance(source, (str, Path)) and Path(source).suffix.lower() in _READY:
        return read_normalised(Path(source))
    return None


def _scan(source: Any, options: Options) -> tuple[Series | Volume, Series, Any]:
    """The scan to normalise, its slices on the host, and the array module to work with.

    Voxels that lie on a GPU are worked on there, whatever the device.
    """
    if isinstance(source, Volume):
        host = Volume(to_host(source.voxels), source.geometry, source.notes)
        there = dataclasses.replace(source, voxels=options.device.put(source.voxels))
        return there, open_source(host), namespace(there.voxels)
    series = open_source(source, series=options.series)
    return series, series, options.device.array_module


def _whose(about: dict[str, Any] | None, options: Options) -> str:
    """Whose weights the server has, for headers of files; empty for imported checkpoints."""
    known = (about or {}).get("models", {})
    return weights_note([weights_entry(m, known.get(m)) for m in stages.networks(options)])


def _result(opened: _Opened, flow: Flow, whose: str) -> DlpeResult:
    options, normalised, series = flow.options, opened.normalised, opened.series
    flags, notes = list(flow.flags), list(flow.notes)
    low, high = (
        round(float(extreme) * catalog.HU_SCALE + catalog.HU_OFFSET)
        for extreme in (normalised.voxels.min(), normalised.voxels.max())
    )
    if doubt := doubts_about_hu(low, high):
        flags.append("doubtful_hu")
        notes.append(doubt)
    if series is not None and series.breaks:
        flags.append("gaps")
        notes.append(_told_gaps(series))
    return DlpeResult(
        source=_description(opened),
        mode=options.mode,
        cohort=options.cohort,
        preview=series is not None and options.grid < catalog.SIDE,
        slice=options.slice,
        normalised=dataclasses.replace(normalised, voxels=to_host(normalised.voxels)),
        masks={name: to_host(mask) for name, mask in flow.masks.items()},
        enhancement=_on_host(flow.enhancement),
        timings=flow.ledger.timings,
        counts=flow.ledger.counts(),
        flags=tuple(flags),
        notes=tuple(dict.fromkeys((*_source_notes(opened), *notes))),
        transport=flow.ledger.transport,
        series=series,
        weights_note=whose,
        options=_chosen(options),
    )


def _description(opened: _Opened) -> str:
    if opened.series is not None:
        return opened.series.description
    x, y, z = opened.normalised.voxels.shape
    return f"normalised volume of {x} × {y} × {z}"


def _source_notes(opened: _Opened) -> tuple[str, ...]:
    series = () if opened.series is None else opened.series.notes
    return (*series, *opened.normalised.notes)


def _told_gaps(series: Series) -> str:
    after = ", ".join(str(i + 1) for i in series.breaks)
    return f"slices are missing after slice {after}: what lies there is interpolated"


def _on_host(found: Enhancement | None) -> Enhancement | None:
    if found is None:
        return None
    return dataclasses.replace(found, volume=to_host(found.volume), ring=to_host(found.ring))


def _chosen(options: Options) -> dict[str, Any]:
    """The options for the report, but for those that it tells elsewhere."""
    elsewhere = ("mode", "cohort", "slice", "series", "device")  # a UID may identify the patient
    return {k: v for k, v in dataclasses.asdict(options).items() if k not in elsewhere}
