"""One network through Triton over gRPC and over shared memory, and in this process."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from hilum.catalog import dlpe as catalog
from hilum.catalog.errors import InferenceFailed
from hilum.client import Client
from hilum.client.device import Device
from hilum.client.options import TransportChoice
from hilum.preprocessing.arrays import to_host
from hilum.server.backend_folder import network_runtime
from hilum.server.binary import find_server

from ..done import Check, Done, Figure, Say, timed
from ..setting import Setting
from ..work import work_of
from .networks import file_of
from .requests import Arrays, request

NETWORK = catalog.TASKS["airway1"].network("z")
"""One of those that a scan keeps busiest."""

OUTPUTS = [t.name for t in NETWORK.outputs]


def run(setting: Setting, say: Say) -> Done:
    """Time, bytes, and whether the answers are the same."""
    device = Device.of(setting.device)
    answers: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    with Client(setting.url, deadline_s=240.0) as client:
        sent = request(client, "dlpe", NETWORK, setting)
        precision = (client.about() or {"models": {}})["models"].get(NETWORK.model, {})
    for name in ("grpc", setting.memory):
        say(f"{NETWORK.model} over {name}")
        seconds[name], answers[name] = _served(setting, device, sent, name)
    say(f"{NETWORK.model} in process")
    alone = _in_process(setting, sent)
    seconds["in process"] = statistics.median(timed(alone, setting.sizes.requests))
    answers["in process"] = alone()
    arrived = sum(a.nbytes for a in answers["grpc"])
    moved = sum(a.nbytes for a in sent.values()) + arrived
    rows = tuple(
        {
            "way": name, "seconds_s": took, "bytes": moved if name != "in process" else 0,
            "over_in_process": took / seconds["in process"],
            "same": all(map(np.array_equal, answers["grpc"], answers[name])),
        }
        for name, took in seconds.items()
    )  # fmt: skip
    work = work_of(file_of(setting, NETWORK), {n: a.shape for n, a in sent.items()})
    figures = (
        Figure(
            name=f"{setting.memory} over in process", value=rows[1]["over_in_process"],
            unit="times", how=f"{NETWORK.model}, {sent['slab'].shape}", aim="triton",
        ),
        Figure(
            name=f"tensors over {setting.memory}", value=1e3 * seconds[setting.memory], unit="ms",
            how="one request", seconds=seconds[setting.memory], moved_bytes=float(moved),
            flops=work.flops, precision=str(precision.get("precision", "fp32")), host=True,
        ),
        Figure(name="gRPC over shared memory", value=seconds["grpc"] / seconds[setting.memory],
               unit="times", how=f"{moved / 1e6:.1f} MB in one request and its answer"),
    )  # fmt: skip
    check = Check(
        f"answers over {setting.memory} are those over gRPC", rows[1]["same"],
        "the same bits" if rows[1]["same"] else "they differ",
    )  # fmt: skip
    return Done(figures=figures, checks=(check,), tables={"transport": rows})


def _served(
    setting: Setting, device: Device, sent: Arrays, transport: TransportChoice
) -> tuple[float, list[Any]]:
    shape = dict.fromkeys(OUTPUTS, (setting.sizes.slab[0], *sent["slab"].shape[1:]))
    with Client(setting.url, transport=transport, deadline_s=240.0) as client, device:
        there = {name: device.put(array) for name, array in sent.items()}
        device.synchronize()

        def ask() -> Any:
            return client.infer(NETWORK.model, there, OUTPUTS, output_shapes=shape)

        answer = ask()
        if answer.transport != transport:
            raise InferenceFailed(
                f"{transport} was asked for, tensors went over {answer.transport}"
            )
        took = statistics.median(timed(ask, setting.sizes.requests))
        return took, [to_host(answer.outputs[name]) for name in OUTPUTS]


def _in_process(setting: Setting, sent: Arrays) -> Callable[[], list[Any]]:
    """What the server's runtime does with the same file in this process, with as many threads.

    An engine of TensorRT is not run in process: ONNX Runtime's CUDA provider stands in.
    """
    file = file_of(setting, NETWORK)
    if network_runtime(find_server()) == "pytorch":
        from hilum.server.torch_graph import TorchGraph  # brings PyTorch

        graph = TorchGraph(file, setting.device)
        return lambda: graph.run(OUTPUTS, sent)
    import onnxruntime

    have = onnxruntime.get_available_providers()
    wanted = [] if setting.rehearse else ["CUDAExecutionProvider"]
    providers = [*(p for p in wanted if p in have), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(file, providers=providers)
    return lambda: list(session.run(OUTPUTS, sent))
