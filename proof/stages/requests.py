"""Requests to single networks, generated from what the server says that they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from hilum.catalog import SYSTEMS, Network
from hilum.catalog import dlpe as dlpe_catalog
from hilum.client import Client
from hilum.preprocessing.dlpe.space import normalise_signal
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.xray import chest_xray
from hilum.systems.dlpe import stages
from hilum.systems.dlpe.options import Options

from ..setting import NETWORKS, Setting

Arrays = dict[str, NDArray[Any]]

SEED = 7


def networks() -> Iterator[tuple[str, Network]]:
    """Those that are looked at, with their systems: the X-rays', and DLPE's of one direction."""
    xrays = SYSTEMS["cxr-severity"]
    yield from (("cxr-severity", xrays.network(name)) for name in NETWORKS)
    used = set(stages.networks(Options()))
    for task in dlpe_catalog.TASKS.values():
        network = task.network("z")
        if network.model in used:
            yield "dlpe", network


def request(client: Client, system: str, network: Network, setting: Setting) -> Arrays:
    """A request to a network, with a batch axis of 1 where it has one."""
    wanted = client.model(network.model).inputs
    if system == "dlpe":
        return _slab(network, setting, {n: _dtype(t.dtype) for n, t in wanted.items()})
    side = int(wanted["image"].shape[-2])
    pixels = chest_xray(SEED, height=side, width=side, severity=0.5).pixels
    made: Arrays = {"image": np.repeat(pixels.reshape(side, side, -1)[:, :, :1], 3, axis=2)}
    y, x = np.ogrid[:side, :side]
    middle = (y - side / 2) ** 2 / 2 + (x - side / 2) ** 2 < (side / 3) ** 2
    made |= {"lung": middle.astype(np.uint8), "box": np.array([0, 0, side, side], np.int32)}
    return {
        n: np.ascontiguousarray(made[n][None]).astype(_dtype(t.dtype)) for n, t in wanted.items()
    }


def _slab(network: Network, setting: Setting, dtypes: dict[str, Any]) -> Arrays:
    """A slab of a chest phantom, [S + 2·margin, side, side], and masks [S, side, side]."""
    slices, side = setting.sizes.slab
    margin = next(
        task.margin
        for task in dlpe_catalog.TASKS.values()
        for direction in dlpe_catalog.DIRECTIONS
        if task.network(direction).model == network.model
    )
    hu = chest_ct(SEED, slices=slices + 2 * margin, size=side).volume.voxels
    signal = hu.astype(np.float32)
    normalise_signal(signal)
    rng = np.random.default_rng(SEED)
    shape = (slices, side, side)
    made: Arrays = {name: (rng.random(shape) < 0.2).astype(dtypes[name]) for name in dtypes}
    return made | {"slab": signal.astype(dtypes["slab"])}


def _dtype(name: str) -> Any:
    return triton_to_np_dtype(name)
