"""COVID-MTL: a generated CT of a body, whose features are computed of every voxel of the lungs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hilum.catalog import covid_mtl as catalog
from hilum.client import Client
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.server.launcher import TritonServer

from ..figures import Figures, Setting, figure, variant
from ..instrument.variant import measure
from ..instrument.workloads import Make, Study, Workload
from ..runs import Progress, exported
from ..target_rows import LABELS, PREDICTIONS
from . import Description

STUDY_SLICES = 200
"""Of the generated volume for DeCoVNet, in millimetres: an adult's lungs."""

DEADLINE_S = 600.0


def _body(scale: float) -> Make:
    """A generated CT of a body that is smaller than an adult's along every axis.

    A coarser picture would not do: it would leave fewer voxels of lung.
    """

    def make() -> list[Study]:
        made = chest_ct(7, slices=round(240 * scale), size=round(512 * scale)).volume
        z, y, x = (scale * mm for mm in made.geometry.spacing)
        return [replace(made, geometry=replace(made.geometry, spacing=(z, y, x)))]

    return make


def _load(scale: float) -> Workload:
    return Workload(
        system="covid-mtl", unit="study", units=1, make=_body(scale),
        describe=f"covid-mtl: CT of a body of {scale:g} of an adult's sizes, from memory",
    )  # fmt: skip


def seconds_per_volume(setting: Setting, progress: Progress) -> Figures:
    """Seconds per volume of DeCoVNet, the only time that COVID-MTL's sources document."""
    network, system = catalog.DECOVNET, catalog.SYSTEM
    shape = (1, 2, STUDY_SLICES, *catalog.DECOVNET_PLANE)
    outputs = [t.name for t in network.outputs]
    with (
        exported(system, [network.name], setting.repository, setting.weights, progress) as folder,
        TritonServer(folder, models=[network.model], grace=0) as server,
        Client(server.grpc_url, deadline_s=DEADLINE_S) as client,
    ):
        wanted = client.model(network.model).inputs["study"].dtype
        dtype = np.float16 if wanted == "FP16" else np.float32
        study = np.random.default_rng(7).random(shape, np.float32).astype(dtype)

        def task(_number: int) -> Any:
            return client.infer(network.model, {"study": study}, outputs)

        about = (client.about() or {"models": {}})["models"].get(network.model, {})
        one = variant(
            setting, task, client, progress, name="covid-mtl, decovnet", system=system.name,
            unit="volume", weights=setting.weights, precision=about.get("precision", "fp32"),
        )  # fmt: skip
        (lane,) = measure([one], setting.rounds, progress)
    how = f"the network alone, {STUDY_SLICES} slices of 224 × 336, {lane.transport}"
    median = lane.summary.latency_s["50"].value
    own = figure(setting, lane, "time per volume", median, "s", how, network=network.name)
    return Figures((own,), (lane,))


DESCRIPTION = Description(
    usual=_load(1.0), quick=_load(0.35), unit="volume", networks=("dual",),
    figures=seconds_per_volume, remedies={
        **{f.quantity: LABELS for f in catalog.SYSTEM.published},
        **{f.quantity: PREDICTIONS for f in catalog.DECOVNET.published if f.unit == ""},
    },
)  # fmt: skip
