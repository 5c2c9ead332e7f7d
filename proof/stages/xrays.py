"""X-rays per second, from the file to the score, with more and more of them in flight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hilum.benchmarks.figures import THROUGHPUT, figure_of
from hilum.benchmarks.instrument.counters import Watch
from hilum.benchmarks.instrument.loops import warmed
from hilum.benchmarks.instrument.machine import machine
from hilum.benchmarks.instrument.record import Lane, plain
from hilum.benchmarks.instrument.variant import Variant, closed, measure
from hilum.benchmarks.systems import workload
from hilum.catalog import SYSTEMS
from hilum.client import Client
from hilum.client.options import ConnectionOptions

from ..done import Check, Done, Figure, Say
from ..setting import DISEASE, Setting
from ..work import work_of
from .networks import file_of
from .requests import request


def run(setting: Setting, say: Say) -> Done:
    """Closed loops with every concurrency, in turns."""
    options = ConnectionOptions(setting.url, deadline_s=60.0, retry_window_s=0.0)
    with Client(options) as client:
        sources = workload("cxr-severity").make()
        variants = [v for name in DISEASE for v in _variants(client, setting, name, sources, say)]
        lanes = measure(variants, setting.sizes.rounds, say)
        best = {
            name: max(
                (x for x in lanes if x.name.startswith(f"{name},")),
                key=lambda x: x.summary.per_second.value,
            )
            for name in DISEASE
        }
        figures = tuple(_figure(client, setting, name, lane) for name, lane in best.items())
    failed = sum(n for lane in lanes for n in lane.summary.failures.values())
    check = Check("no X-ray fails under load", failed == 0, f"{failed} failed")
    measured = () if setting.rehearse else tuple(plain(_documented(n, x)) for n, x in best.items())
    return Done(figures=figures, checks=(check,), tables={"measured": measured}, lanes=lanes)


def _variants(
    client: Client, setting: Setting, name: str, sources: Sequence[Any], say: Say
) -> list[Variant]:
    load = workload("cxr-severity", network=name, device=setting.device)
    say(f"warm up {name}")
    task, watch = load.task(client, sources), Watch(client, load.counted)
    seconds = setting.sizes.seconds
    about = (client.about() or {"models": {}})["models"]
    precision = str(about.get(f"cxr_{name}", {}).get("precision", "fp32"))
    made = []
    for concurrency in setting.sizes.concurrencies:
        warm = warmed(task, concurrency=concurrency, most_tasks=40, most_seconds=seconds)
        made.append(
            Variant(
                name=f"{name}, {concurrency} in flight", systems={"cxr-severity": 1.0},
                way=closed(task, concurrency=concurrency, seconds=seconds),
                unit=load.unit, units=load.units, concurrency=concurrency,
                transport=client.transport or "grpc", weights=setting.weights,
                precision=precision, warm_up=warm.tasks, watch=watch,
            )
        )  # fmt: skip
    return made


def _figure(client: Client, setting: Setting, name: str, lane: Lane) -> Figure:
    """The best throughput, beside the work of both networks for one image."""
    system = SYSTEMS["cxr-severity"]
    flops = moved = 0.0
    for network in (system.network("lung"), system.network(name)):
        sent = request(client, "cxr-severity", network, setting)
        work = work_of(file_of(setting, network), {n: a.shape for n, a in sent.items()})
        flops, moved = flops + work.flops, moved + work.moved_bytes
    speed = lane.summary.per_second.value
    return Figure(
        name=f"X-rays with {name}", value=speed, unit="images/s",
        how=f"from the file to the score, {lane.concurrency} in flight", seconds=1 / speed,
        flops=flops, moved_bytes=moved, precision=lane.precision, aim=name,
    )  # fmt: skip


def _documented(name: str, lane: Lane) -> object:
    """What the lane says of the article's images per second."""
    return figure_of(
        machine(), "cxr-severity", THROUGHPUT, lane.summary.per_second.value, "images/s",
        lane.name, network=name, command="hilum bench gpu-proof", weights=lane.weights,
        precision=lane.precision,
    )  # fmt: skip
