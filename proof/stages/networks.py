"""Each network on the server against the same file in ONNX Runtime on the processors."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hilum.catalog import Network
from hilum.client import Client

from ..done import Check, Done, Figure, Say, timed
from ..setting import Setting
from ..work import work_of
from .requests import Arrays, networks, request

DIFFERING = {"fp32": 1e-3, "fp16": 5e-3}
"""Share of a mask's pixels that may differ from the processors'."""

APART = {"fp32": 1e-3, "fp16": 5e-3}
"""Difference of probabilities: of FP32 the largest, of FP16 the mean, as for engines."""


def run(setting: Setting, say: Say) -> Done:
    """Compare and time every network."""
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    with Client(setting.url, deadline_s=240.0) as client:
        about = (client.about() or {"models": {}})["models"]
        for system, network in networks():
            say(network.model)
            sent = request(client, system, network, setting)
            precision = str(about.get(network.model, {}).get("precision", "fp32"))
            row, figure = _measured(client, network, sent, precision, setting)
            rows.append(row)
            figures.append(figure)
    good = [row["agrees"] for row in rows]
    check = Check(
        "networks on the server give what the processors give", all(good),
        f"{sum(good)} of {len(good)} within {DIFFERING} of masks, {APART} of probabilities",
    )  # fmt: skip
    return Done(figures=tuple(figures), checks=(check,), tables={"networks": tuple(rows)})


def file_of(setting: Setting, network: Network) -> Path:
    """The ONNX file that is served, or that its engine was built from."""
    return setting.repository / network.model / "1" / "model.onnx"


def _measured(
    client: Client, network: Network, sent: Arrays, precision: str, setting: Setting
) -> tuple[dict[str, Any], Figure]:
    file, names = file_of(setting, network), [t.name for t in network.outputs]
    found = client.infer(network.model, sent, names).outputs
    times = timed(lambda: client.infer(network.model, sent, names), setting.sizes.requests)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    expected: Any = dict(zip(names, session.run(names, sent), strict=True))
    size = np.max if precision == "fp32" else np.mean
    apart = {name: float(size(a)) for name, a in _differences(found, expected)}
    seconds, work = statistics.median(times), work_of(file, {n: a.shape for n, a in sent.items()})
    row = {
        "network": network.model, "precision": precision, "seconds_s": seconds, "apart": apart,
        "agrees": all(
            value <= (DIFFERING if expected[name].dtype == np.uint8 else APART)[precision]
            for name, value in apart.items()
        ),
    }  # fmt: skip
    figure = Figure(
        name=f"{network.model}: one request", value=1e3 * seconds, unit="ms", seconds=seconds,
        how=f"{', '.join(str(a.shape) for a in sent.values())} over {client.transport}",
        flops=work.flops, moved_bytes=work.moved_bytes, precision=precision,
    )  # fmt: skip
    return row, figure


def _differences(found: Any, expected: Any) -> Iterator[tuple[str, Any]]:
    """By output: of masks the share of pixels that differ, else the differences."""
    for name, theirs in expected.items():
        if name == "mask":
            continue  # scores before the sigmoid, whose scale is the network's own
        if theirs.dtype == np.uint8:
            yield name, np.mean(found[name] != theirs)
        else:
            yield name, np.abs(np.asarray(found[name], np.float32) - theirs)
