"""What DLPE's networks find in a study for each other to see: kept, to calibrate networks on.

The stages are those of a run (`dlpe_flow`), up to the enhanced volume. Lesions and roots are not
looked for: no other network sees them.
"""

from __future__ import annotations

from numpy.typing import NDArray

from ...catalog import dlpe as catalog
from ...catalog.errors import InputError
from ...preprocessing.arrays import Array, to_host
from ...preprocessing.dlpe_space import normalise
from ...preprocessing.series import Series
from .. import calls
from ..device import Device
from .dlpe_flow import NO_LUNG, Flow
from .dlpe_ledger import Ledger
from .dlpe_options import Options

NETWORKS = tuple(
    catalog.TASKS[task].network(direction)
    for task in ("lung", "airway1", "vessel1", "heart", "airway2", "vessel2")
    for direction in catalog.DIRECTIONS
)
"""What finds something for others; by the heart roots are measured."""


def _ensembles(*stages: str) -> tuple[str, ...]:
    return tuple(catalog.ENSEMBLES[s, d].model for s in stages for d in catalog.DIRECTIONS)


_HEART, _STAGE_TWO = _ensembles("stage1_heart"), _ensembles("stage2")

MODELS = (
    _ensembles("stage1", "stage1_heart", "stage2"),
    _ensembles("stage1", "stage2"),
    _ensembles("stage1"),
)
"""Triton models that a server may have of them, the most first: with fewer, less is found."""


def found(
    series: Series, grid: int = catalog.SIDE, device: str = "auto"
) -> calls.Steps[dict[str, NDArray]]:
    """Run the stages that find what other networks see, in mode ``parity``.

    Parameters
    ----------
    series
        A chest CT.
    grid
        Side of normalised space in voxels.
    device
        Where arrays are worked on, see `Device.of`.

    Returns
    -------
    Volumes [x, y, z] of normalised space on the host by name. uint8: ``lung``,
    ``airway_high_recall``, ``airway_high_precision``, ``vessel_high_recall``,
    ``vessel_high_precision`` (spec dlpe §6.2); where the server has stage two ``outer_vessel``
    (§4.4) and float32 ``enhanced`` (§7); where it has the network of the heart ``heart``.

    Raises
    ------
    InputError
        Without lungs, or with too little of them to find the rest.
    """
    served = set((yield from calls.models()))
    options = Options(
        grid=grid,
        cohort="none",
        visible=False,
        roots=served.issuperset(_HEART),
        device=Device.of(device),
    )
    steps = _stages(series, options, second=served.issuperset(_STAGE_TWO))
    return (yield from options.device.follow(steps))


def _stages(series: Series, options: Options, *, second: bool) -> calls.Steps[dict[str, NDArray]]:
    def normalised() -> Array:
        xp = options.device.array_module
        return normalise(series, options.mode, options.grid, fill_hu=options.fill_hu, xp=xp).voxels

    ct: Array = yield calls.Compute(normalised, "normalise")
    flow = Flow(ct, options, options.limits(options.grid), Ledger())
    sums = yield from flow.stage_one()
    if not flow.masks["lung"].any():
        raise InputError(NO_LUNG)
    channels = yield from flow.channels(sums)
    kept = yield from _on_host({**flow.masks, **channels})
    if second:
        yield from flow.trees(channels)
        del channels
        yield from flow.enhance()
        assert flow.enhancement is not None  # noqa: S101 - else it has raised
        outer = yield calls.Compute(flow.outer_vessel, "masks")
        more = {"outer_vessel": outer, "enhanced": flow.enhancement.volume}
        kept |= yield from _on_host(more)
    return kept


def _on_host(volumes: dict[str, Array]) -> calls.Steps[dict[str, NDArray]]:
    return (yield calls.Compute(lambda: {name: to_host(v) for name, v in volumes.items()}))
