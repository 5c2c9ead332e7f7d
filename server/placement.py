"""Which networks run on which GPU: each on at least one, and on as many as have room for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..catalog.errors import ServerError
from .configuration import ModelConfig

MiB = 1024 * 1024

LONGEST, SLAB = 512, 40
"""What lengths of -1 count as: the side of a CT; the first of several of a network, which makes a
slab, as many slices."""

USABLE = 0.5
"""Share of a GPU's free memory that is given away. What networks compute between input and output
is not known before they run; the rest is left to that, and to CUDA. An estimate: not yet measured
on a GPU."""

_BYTES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "INT32": 4, "FP32": 4, "INT64": 8, "FP64": 8}
_OTHER = 2


def network_need(config: ModelConfig, file_bytes: int, instances: int) -> int:
    """Bytes of a GPU that a network holds for certain: weights, and the tensors at its border.

    Parameters
    ----------
    file_bytes
        Size of its ONNX file or engine.
    instances
        Copies on each GPU.
    """
    batch = max(1, config.max_batch_size)
    tensors = sum(_tensor_bytes(t) for t in (*config.input, *config.output))
    return instances * (file_bytes + batch * tensors)


def place(needs: Mapping[str, int], free: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Numbers of the GPUs of every network.

    First each network gets one GPU, the largest first and where most is free; then every further
    GPU that has room for it. Where all fit everywhere, all are everywhere: any GPU answers any
    request, with the same instances and so with the same results, however many there are.

    Parameters
    ----------
    needs
        Bytes by model.
    free
        Bytes by GPU.

    Raises
    ------
    ServerError
        When a network fits no GPU; the message says which one, and what is left for it.
    """
    left = [int(USABLE * bytes_) for bytes_ in free]
    order = sorted(needs, key=lambda name: (-needs[name], name))
    chosen: dict[str, set[int]] = {}
    for name in order:
        best = max(range(len(left)), key=lambda gpu: (left[gpu], -gpu))
        if needs[name] > left[best]:
            raise ServerError(_does_not_fit(name, needs[name], best, left[best], free[best]))
        left[best] -= needs[name]
        chosen[name] = {best}
    for name in order:
        for gpu in range(len(left)):
            if gpu not in chosen[name] and needs[name] <= left[gpu]:
                left[gpu] -= needs[name]
                chosen[name].add(gpu)
    return {name: tuple(sorted(gpus)) for name, gpus in chosen.items()}


def _does_not_fit(name: str, need: int, gpu: int, left: int, free: int) -> str:
    return (
        f"{name} fits no GPU: it needs {math.ceil(need / MiB)} MiB, and the emptiest, GPU {gpu}, "
        f"has {max(0, left) // MiB} MiB left for it (of {free // MiB} MiB free, {USABLE:.0%} of "
        "which are given to networks); serve fewer models (--model) or instances (--instances), "
        "end what else uses the GPU, or add one (--gpus)"
    )


def _tensor_bytes(tensor: ModelConfig) -> int:
    kind = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    name = kind[tensor.data_type].name.removeprefix("TYPE_")
    dims = list(tensor.dims)
    free = [axis for axis, length in enumerate(dims) if length < 0]
    for axis in free:
        dims[axis] = LONGEST
    if len(free) > 1:
        dims[free[0]] = SLAB
    return _BYTES.get(name, _OTHER) * math.prod(dims)
