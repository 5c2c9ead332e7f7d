"""How much of ``/dev/shm`` a server needs: tensors reach Python processes through it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hilum.catalog import ABOUT, Ensemble, Model, Network, PythonStep, Tensor

from ..placement import LONGEST, SLAB, MiB
from ..runtime_repository import STREAMED, Resources

_BYTES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip

_OVERHEAD = MiB
"""What a Python process keeps in its region besides tensors."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of ``/dev/shm``.

    Attributes
    ----------
    least
        With less, the largest model cannot answer a single request.
    full
        With this, every process can have its largest batch in flight at once.
    """

    least: int = 0
    full: int = 0

    def shm_size(self) -> str:
        """`full` for ``--shm-size``, rounded up to a quarter of a gigabyte: ``"1280m"``."""
        return f"{max(1, math.ceil(self.full / (256 * MiB))) * 256}m"


def shared_memory_need(
    models: Iterable[Model], resources: Resources, networks_in_python: bool = False
) -> Need:
    """What the Python processes behind `models` need.

    Parameters
    ----------
    networks_in_python
        Networks run in Hilum's own ``onnxruntime`` backend, which is Python; a container's is not.
    """
    least, full = 0, 0
    for model in models:
        if isinstance(model, Ensemble) or (isinstance(model, Network) and not networks_in_python):
            continue
        count = _instances(model, resources)
        least = max(least, _request(model, full=False))
        full += count * (_OVERHEAD + _request(model, full=True) * max(1, model.max_batch))
    return Need(least + _OVERHEAD if full else 0, full)


def _instances(model: Network | PythonStep, resources: Resources) -> int:
    if isinstance(model, PythonStep):
        return 1 if model.model == ABOUT.model else resources.step_instances
    return resources.stream_instances if model.model in STREAMED else resources.instances


def _request(model: Network | PythonStep, full: bool) -> int:
    """Bytes of all tensors of one item: of a large one, or of the smallest there can be."""
    return sum(
        _BYTES["INT32" if tensor.wide else tensor.dtype] * math.prod(_shape(model, tensor, full))
        for tensor in (*model.inputs, *model.outputs)
    )


def _shape(model: Network | PythonStep, tensor: Tensor, full: bool) -> list[int]:
    shape = list(tensor.resolved(model.sizes))
    free = [i for i, length in enumerate(shape) if length < 0]
    for i in free:
        shape[i] = LONGEST if full else 1
    if full and len(free) > 1 and isinstance(model, Network):
        shape[free[0]] = SLAB
    if model.model == ABOUT.model and free:
        shape[free[0]] = MiB  # certificates as text
    return shape
