"""One study of DLPE: opened, sent through the stages, and made a result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import BadOption
from hilum.client.calls import Calls
from hilum.client.trace import span
from hilum.postprocessing.dlpe import ranks
from hilum.postprocessing.dlpe.enhancement import Enhancement
from hilum.preprocessing.arrays import namespace, to_host
from hilum.preprocessing.dlpe.space import Normalised, normalise, read_normalised
from hilum.preprocessing.reading.series import Series
from hilum.preprocessing.reading.volume import Volume
from hilum.preprocessing.windows import doubts_about_hu
from hilum.results.provenance import weights_entry, weights_note

from ..studies import open_study
from . import stages
from .flow import Flow
from .ledger import Ledger
from .meshes import make_surfaces
from .options import Options
from .quantities import measure, published_map
from .result import DlpeResult

READY = (".npy", ".npz")
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


def process(study: Any, options: Options, calls: Calls) -> DlpeResult:
    """Process one study.

    Parameters
    ----------
    study
        What `systems.studies.open_study` takes; or a ready normalised volume: `Normalised`, or a
        file ``.npy`` or ``.npz``.

    Raises
    ------
    InputError
        For anything that is not one chest CT.
    """
    ledger = Ledger()
    with ledger.stage("normalise"):
        opened = _open(study, options)
    about = calls.about()
    flow = Flow(opened.normalised.voxels, options, opened.limits, ledger, calls)
    flow.run()
    measured = _measured(opened, flow)
    with span("postprocess"):
        return _result(opened, flow, _weights_note(about, options), **measured)


def _measured(opened: _Opened, flow: Flow) -> dict[str, Any]:
    """Quantities, surfaces and the published branching map, as far as they are asked for."""
    options, ledger, masks = flow.options, flow.ledger, flow.masks
    found: dict[str, Any] = {}
    if options.quantities:
        with ledger.stage("quantities"):
            found["quantities"] = measure(
                opened.normalised, masks, flow.enhancement, branching=options.branching != "none"
            )
    if options.branching == "parity":
        with ledger.stage("published_branching"):
            found["published_branching"] = published_map(masks, flow.enhancement, options.seed)
    if options.meshes:
        with ledger.stage("surfaces"):
            found["surfaces"], empty = make_surfaces(
                opened.normalised, masks, found.get("quantities")
            )
        if empty:
            flow.notes.append(f"without a surface, being empty: {', '.join(empty)}")
    return found


def _open(study: Any, options: Options) -> _Opened:
    """Bring a study into normalised space."""
    ready = _ready(study)
    if ready is None:
        scan, series, xp = _scan(study, options)
        normalised = normalise(scan, options.mode, options.grid, fill_hu=options.fill_hu, xp=xp)
        opened = _Opened(normalised, series, options.limits(options.grid))
    else:
        there = dataclasses.replace(ready, voxels=options.device.put(ready.voxels))
        opened = _Opened(there, None, ranks.LIMITS)
    depth = opened.normalised.voxels.shape[2]
    if options.slice is not None and options.slice >= depth:
        raise BadOption(
            f"there is no slice {options.slice}: normalised space has {depth}, from 0 at the feet"
        )
    return opened


def _ready(study: Any) -> Normalised | None:
    """A volume that is normalised already; anything else is none."""
    if isinstance(study, Normalised):
        return study
    if isinstance(study, (str, Path)) and Path(study).suffix.lower() in READY:
        return read_normalised(Path(study))
    return None


def _scan(study: Any, options: Options) -> tuple[Series | Volume, Series, Any]:
    """The scan to normalise, its slices on the host, and the array module to work with.

    Voxels that lie on a GPU are worked on there, whatever the device.
    """
    if isinstance(study, Volume):
        host = Volume(to_host(study.voxels), study.geometry, study.notes)
        there = dataclasses.replace(study, voxels=options.device.put(study.voxels))
        return there, open_study(host), namespace(there.voxels)
    series = open_study(study, series=options.series, acquisition=options.acquisition)
    return series, series, options.device.array_module


def _weights_note(about: dict[str, Any] | None, options: Options) -> str:
    """The weights note for headers of files; empty for imported checkpoints."""
    known = (about or {}).get("models", {})
    return weights_note([weights_entry(m, known.get(m)) for m in stages.networks(options)])


def _result(opened: _Opened, flow: Flow, note: str, **measured: Any) -> DlpeResult:
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
        notes.append(_gaps_note(series))
    if series is not None:
        flags += (*series.flags, *(doubt.code for doubt in series.look))
        notes += [doubt.text for doubt in series.look]
    return DlpeResult(
        source=_description(opened),
        mode=options.mode,
        cohort=options.cohort,
        preview=series is not None and options.grid < catalog.SIDE,
        slice=options.slice,
        normalised=dataclasses.replace(normalised, voxels=to_host(normalised.voxels)),
        masks={name: to_host(mask) for name, mask in flow.masks.items()},
        enhancement=_on_host(flow.enhancement),
        **measured,
        timings=flow.ledger.timings,
        counts=flow.ledger.counts(),
        flags=tuple(flags),
        notes=tuple(dict.fromkeys((*_source_notes(opened), *notes))),
        transport=flow.ledger.transport,
        series=series,
        weights_note=note,
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


def _gaps_note(series: Series) -> str:
    where = series.where_missing()
    return (
        f"slices are missing between slices {where} from the head: what lies there is interpolated"
    )


def _on_host(found: Enhancement | None) -> Enhancement | None:
    if found is None:
        return None
    return dataclasses.replace(found, volume=to_host(found.volume), ring=to_host(found.ring))


def _chosen(options: Options) -> dict[str, Any]:
    """The options for the report, but for those that it has elsewhere."""
    elsewhere = ("mode", "cohort", "slice", "series", "device")  # a UID may identify the patient
    return {k: v for k, v in dataclasses.asdict(options).items() if k not in elsewhere}
