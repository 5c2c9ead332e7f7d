"""Which networks run on which GPU: each on at least one, and on as many as have room for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hilum.catalog.errors import ServerError

from .doctor.engines import context_bytes
from .model_config import ModelConfig, backend_of, model_file

MiB = 1024 * 1024

LONGEST, SLAB = 512, 40
"""What lengths of -1 count as: the side of a CT; the first of several of a network, which makes a
slab, as many slices."""

ESTIMATED, REPORTED = 0.5, 0.9
"""How much of the memory that is set aside for a network may be what is known of its need.

Of networks with ONNX Runtime, and of engines whose record lacks it, weights and the tensors at
the border are known; what they compute in between is not known before they run, and half is left to
that and to CUDA. A TensorRT engine reports what it takes in between. A tenth is left to what it
does not report: the code of its kernels, CUDA graphs, CUDA itself and Triton's pools. Both shares
are estimates. Not yet run on a GPU."""

_BYTES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "INT32": 4, "FP32": 4, "INT64": 8, "FP64": 8}
_OTHER = 2


def network_needs(repository: Path, networks: Iterable[tuple[ModelConfig, int]]) -> dict[str, int]:
    """`network_need` by model; Python steps and ensembles need no GPU and are left out.

    Parameters
    ----------
    networks
        Configurations as they are in the `repository`, each with its copies on each GPU.
    """
    contexts, needs = context_bytes(repository), dict[str, int]()
    for config, instances in networks:
        if (file := model_file(config)) and backend_of(config) != "python":
            found = (repository / config.name).glob(f"[0-9]*/{file}")
            size = max(version.stat().st_size for version in found)
            needs[config.name] = network_need(config, size, instances, contexts.get(config.name))
    return needs


def network_need(
    config: ModelConfig, file_bytes: int, instances: int, contexts: int | None = None
) -> int:
    """Bytes of a GPU's free memory to set aside for a network.

    Each of its instances holds its weights: Triton's TensorRT backend shares an engine between
    instances only where no axis is free, and in every engine of Hilum the batch or the slab is.
    An instance of an engine has one execution context for each of its profiles.

    Parameters
    ----------
    file_bytes
        Size of its ONNX file or engine.
    instances
        Copies on each GPU.
    contexts
        Bytes of the execution contexts of one instance; None where that is not known.
    """
    batch = max(1, config.max_batch_size)
    known = file_bytes + batch * sum(_tensor_bytes(t) for t in (*config.input, *config.output))
    if contexts is None:
        return math.ceil(instances * known / ESTIMATED)
    return math.ceil(instances * (known + contexts) / REPORTED)


def place(needs: Mapping[str, int], free: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Numbers of the GPUs of every network.

    First each network gets one GPU, the largest first and where most is free; then every further
    GPU that has room for it. Where all fit everywhere, all are everywhere: any GPU answers any
    request, with the same instances and so with the same results, however many there are.

    Parameters
    ----------
    needs
        Bytes to set aside, by model.
    free
        Free bytes, by GPU.

    Raises
    ------
    ServerError
        When a network fits no GPU; the message says which one, and what is left for it.
    """
    left = list(free)
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
        f"{name} fits no GPU: {math.ceil(need / MiB)} MiB are to be set aside for it, and the "
        f"emptiest, GPU {gpu}, has {left // MiB} MiB left (of {free // MiB} MiB free); serve fewer "
        "models (--model) or instances (--instances), end what else uses the GPU, or add one "
        "(--gpus)"
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
