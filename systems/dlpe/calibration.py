"""What DLPE's networks find in a study for each other to see: kept, to calibrate networks on.

The stages are those of a run (`Flow`), up to the enhanced volume. Lesions and roots are not
looked for: no other network sees them.
"""

from __future__ import annotations

from numpy.typing import NDArray

from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import NoLungs
from hilum.client.calls import Calls
from hilum.client.device import Device
from hilum.client.trace import span
from hilum.preprocessing.arrays import Array, to_host
from hilum.preprocessing.dlpe.space import normalise
from hilum.preprocessing.reading.series import Series

from .flow import NO_LUNG, Flow
from .ledger import Ledger
from .options import Options

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
    series: Series, calls: Calls, *, grid: int = catalog.SIDE, device: str = "auto"
) -> dict[str, NDArray]:
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
    served = set(calls.models())
    options = Options(
        grid=grid,
        cohort="none",
        visible=False,
        roots=served.issuperset(_HEART),
        device=Device.of(device),
    )
    with options.device:
        return _stages(
            series, options, calls.on(options.device), second=served.issuperset(_STAGE_TWO)
        )


def _stages(series: Series, options: Options, calls: Calls, *, second: bool) -> dict[str, NDArray]:
    with span("normalise"):
        xp = options.device.array_module
        ct = normalise(series, options.mode, options.grid, fill_hu=options.fill_hu, xp=xp).voxels
    flow = Flow(ct, options, options.limits(options.grid), Ledger(), calls)
    sums = flow.stage_one()
    if not flow.masks["lung"].any():
        raise NoLungs(NO_LUNG)
    channels = flow.channels(sums)
    kept = _on_host({**flow.masks, **channels})
    if second:
        flow.trees(channels)
        del channels
        flow.enhance()
        assert flow.enhancement is not None  # noqa: S101 - else it has raised
        kept |= _on_host({"outer_vessel": flow.outer_vessel(), "enhanced": flow.enhancement.volume})
    return kept


def _on_host(volumes: dict[str, Array]) -> dict[str, NDArray]:
    return {name: to_host(volume) for name, volume in volumes.items()}
