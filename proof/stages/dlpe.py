"""One scan through DLPE, from its DICOM files to its masks, with a trace."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from hilum.benchmarks.instrument.counters import gained, settled
from hilum.benchmarks.instrument.watched import Watched
from hilum.catalog import Ensemble, Network, find_model
from hilum.client import Client
from hilum.client.models import Inference
from hilum.client.registry import INSTALLED
from hilum.client.trace import Trace, study
from hilum.preprocessing.arrays import Array
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series

from ..done import Check, Done, Figure, Say
from ..setting import Setting
from ..work import Work, work_of
from .networks import file_of
from .requests import networks, request

SEED = 7

TRACE = "dlpe-trace.json"

ENHANCED = ("normalise", "stage_one", "masks", "ranks", "stage_two", "enhancement")
"""Stages of a study up to the enhanced volume."""

Shapes = dict[str, tuple[int, ...]]


def asked(model: str, outputs: Sequence[str]) -> Iterator[Network]:
    """Networks behind some outputs of a model: Triton leaves out those of an ensemble's others."""
    found = find_model(model)
    if isinstance(found, Network):
        yield found
    elif isinstance(found, Ensemble):
        for call in found.calls:
            if isinstance(call.target, Network) and set(call.outputs.values()) & set(outputs):
                yield call.target


class Noted(Watched):
    """Calls of one study that note what every network was sent."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.sent: list[tuple[Network, Shapes]] = []

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], **options: Any
    ) -> Inference:
        """Run a model and note the shapes of inputs by the networks that are asked."""
        shapes = {name: tuple(a.shape) for name, a in inputs.items()}
        self.sent += [(network, shapes) for network in asked(model, outputs)]
        return super().infer(model, inputs, outputs, **options)


def run(setting: Setting, say: Say) -> Done:
    """Warm up on a few slices, then one scan."""
    with (
        tempfile.TemporaryDirectory(prefix="hilum-proof-") as name,
        Client(setting.url, deadline_s=240.0) as client,
    ):
        sizes, scan, few = setting.sizes, Path(name) / "scan", Path(name) / "few"
        say(f"generate {sizes.slices} slices of {sizes.pixels} × {sizes.pixels}")
        write_dicom_series(chest_ct(SEED, slices=sizes.slices, size=sizes.pixels).volume, scan)
        small = chest_ct(SEED, slices=40, size=96, lesions=2).volume
        write_dicom_series(small, few)
        options = INSTALLED["dlpe"].options_type(grid=sizes.grid, device=setting.device)
        less = INSTALLED["dlpe"].options_type(
            grid=min(sizes.grid, sizes.arrays_grid), device=setting.device
        )
        say("warm up")
        client.run("dlpe", few, options=less)
        say(f"the scan, grid {sizes.grid}")
        return _scan(setting, client, scan, options)


def _scan(setting: Setting, client: Client, scan: Path, options: Any) -> Done:
    pipeline = INSTALLED["dlpe"]
    calls, trace = Noted(client), Trace()
    start = time.perf_counter()
    with trace.recorded(), study(1):
        result = calls.run(pipeline, scan, options)
    seconds = time.perf_counter() - start
    trace.save(setting.out / TRACE)
    computed, work = _alone(setting, client, calls.sent), _work(setting, calls.sent)
    precision = _precision(client, pipeline.networks(options))
    enhanced = sum(result.timings.get(name, 0.0) for name in ENHANCED)
    side, of = f"{setting.sizes.grid}³", f"{setting.sizes.slices} slices"
    figures = (
        Figure(name="DLPE: from DICOM to the enhanced volume", value=enhanced, unit="s",
               how=f"{of}, {side}", aim="dlpe"),
        Figure(
            name="DLPE: from DICOM to masks and quantities", value=seconds, unit="s",
            how=f"{of}, {side}, arrays on {setting.device}, {result.transport}", seconds=seconds,
            flops=work.flops, moved_bytes=work.moved_bytes, precision=precision,
        ),
        Figure(name="DLPE: the networks' own time", value=computed, unit="s",
               how="one after the other, by what the server counts as compute",
               seconds=computed, flops=work.flops, moved_bytes=work.moved_bytes,
               precision=precision),
        Figure(name="DLPE: over the networks' time", value=seconds / computed, unit="times",
               how="from DICOM to masks", aim="ends"),
        Figure(name="DLPE: tensors", value=(calls.moved.sent_bytes + calls.moved.received_bytes)
               / 1e6, unit="MB", how=f"{calls.moved.requests} requests"),
    )  # fmt: skip
    stages = tuple({"stage": n, "seconds": s} for n, s in result.timings.items())
    found = {name: int(mask.sum(dtype=int)) for name, mask in result.masks.items()}
    check = Check("DLPE's scan has lungs, airways and vessels", all(
        found[name] > 0 for name in ("lung", "airway", "vessel")), str(found))  # fmt: skip
    notes = (f"{TRACE}: {trace.overlap()}", *(f"flag of the scan: {f}" for f in result.flags))
    return Done(
        figures=figures,
        checks=(check,),
        tables={"where_the_scan_takes_its_time": stages},
        notes=notes,
    )


def _precision(client: Client, networks: Sequence[str]) -> str:
    """Of the networks; where they differ, the faster arithmetic makes the floor."""
    about = (client.about() or {"models": {}})["models"]
    found = {str(about.get(model, {}).get("precision", "fp32")) for model in networks}
    return "fp16" if "fp16" in found else "fp32"


def _work(setting: Setting, sent: Sequence[tuple[Network, Shapes]]) -> Work:
    """Of all networks on what they were sent: it grows with the voxels of a slab."""
    each: dict[str, tuple[Work, int]] = {}
    flops = moved = 0.0
    for network, shapes in sent:
        own = {t.name: shapes[t.name] for t in network.inputs if t.name in shapes}
        voxels = prod(own["slab"])
        if network.model not in each:
            each[network.model] = work_of(file_of(setting, network), own), voxels
        work, of = each[network.model]
        flops += work.flops * voxels / of
        moved += work.moved_bytes * voxels / of
    return Work(flops, moved)


def _alone(setting: Setting, client: Client, sent: Sequence[tuple[Network, Shapes]]) -> float:
    """Seconds that the networks would compute for the same slabs one after the other.

    The server's counts of the scan itself would be too long: networks that run side by side wait
    for each other. Each task is timed alone in one direction, by what the server counts as compute.
    """
    each: dict[str, float] = {}
    for system, network in networks():
        if system == "dlpe":
            slab = request(client, system, network, setting)
            outputs = [t.name for t in network.outputs]
            client.infer(network.model, slab, outputs)
            before = settled(client, [network.model])
            for _ in range(setting.sizes.rounds):
                client.infer(network.model, slab, outputs)
            found = (gained(before, settled(client, [network.model])) or {})[network.model]
            each[_task(network)] = found.infer_s / found.requests / slab["slab"].size
    return sum(each[_task(network)] * prod(shapes["slab"]) for network, shapes in sent)


def _task(network: Network) -> str:
    """A network's name without its direction."""
    return network.name.rpartition("_")[0]
