"""What a server answers: tensors, and what its models are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from hilum.catalog import Tensor
from hilum.preprocessing.arrays import Array

from .options import TransportName


@dataclass(frozen=True, slots=True)
class Inference:
    """The outcome of one request.

    Attributes
    ----------
    outputs
        Arrays by name, with the batch axis where the model has one: NumPy's, read-only; CuPy's
        where the transport is ``cuda`` and the shape was known beforehand.
    transport
        How the tensors travelled.
    seconds
        From the first attempt to the answer, the waiting between attempts included.
    attempts
        1 unless the server was away or busy.
    """

    outputs: Mapping[str, Array]
    transport: TransportName
    seconds: float
    attempts: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Signature of a model as the server has it; shapes are without the batch axis, -1 is any.

    Attributes
    ----------
    name, versions
        Name of the model, and its versions that are served.
    max_batch
        Largest batch; 0 for a model without a batch axis.
    inputs, outputs
        Tensors by name: element type and shape.
    on_cpu
        All of its instances run on the server's CPU; never so for an ensemble, which has
        none.
    gpus
        On how many GPUs of the server its instances run.
    """

    name: str
    versions: tuple[str, ...]
    max_batch: int
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    on_cpu: bool = False
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class ModelState:
    """An entry of the server's repository.

    Attributes
    ----------
    name, version
        Name and version of the model.
    state
        ``READY`` when it can be used.
    reason
        Why it cannot be used; empty when it can.
    """

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """What a server counted for one model since it started; times are sums in seconds.

    Attributes
    ----------
    inferences
        Images, slices …: a request with a batch of 8 counts 8.
    executions
        Runs of the network; fewer than `inferences` where requests were batched.
    successes, failures
        Requests.
    success_s
        Of requests that were answered, from their arrival to the answer.
    queue_s
        Waiting for a free instance.
    compute_input_s, compute_infer_s, compute_output_s
        Copying inputs, running the network, copying outputs.
    """

    inferences: int
    executions: int
    successes: int
    failures: int
    success_s: float
    queue_s: float
    compute_input_s: float
    compute_infer_s: float
    compute_output_s: float


def read_model(metadata: Any, config: Any) -> ModelInfo:
    """A `ModelInfo` from ``ModelMetadataResponse`` and ``ModelConfigResponse``."""
    max_batch = config.config.max_batch_size
    groups = config.config.instance_group

    def tensors(entries: Any) -> Mapping[str, Tensor]:
        first = 1 if max_batch > 0 else 0  # metadata shows the batch axis, our shapes do not
        return MappingProxyType(
            {t.name: Tensor(t.name, t.datatype, tuple(t.shape)[first:]) for t in entries}
        )

    return ModelInfo(
        name=metadata.name,
        versions=tuple(metadata.versions),
        max_batch=max_batch,
        inputs=tensors(metadata.inputs),
        outputs=tensors(metadata.outputs),
        on_cpu=bool(groups) and all(group.kind == group.KIND_CPU for group in groups),
        gpus=len({gpu for group in groups for gpu in group.gpus}),
    )


def read_index(index: Any) -> tuple[ModelState, ...]:
    """The entries of a ``RepositoryIndexResponse``."""
    return tuple(ModelState(m.name, m.version, m.state, m.reason) for m in index.models)


def read_statistics(response: Any) -> ModelStatistics:
    """The figures of a ``ModelStatisticsResponse``, summed over the model's versions."""
    entries = response.model_stats

    def seconds(part: str) -> float:
        return sum(getattr(e.inference_stats, part).ns for e in entries) / 1e9

    return ModelStatistics(
        inferences=sum(e.inference_count for e in entries),
        executions=sum(e.execution_count for e in entries),
        successes=sum(e.inference_stats.success.count for e in entries),
        failures=sum(e.inference_stats.fail.count for e in entries),
        success_s=seconds("success"),
        queue_s=seconds("queue"),
        compute_input_s=seconds("compute_input"),
        compute_infer_s=seconds("compute_infer"),
        compute_output_s=seconds("compute_output"),
    )


def output_specs(
    info: ModelInfo,
    inputs: Mapping[str, NDArray],
    known: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Element types and whole shapes of the outputs whose shape is known before the answer."""
    batch: tuple[int, ...] = ()
    if info.max_batch > 0:
        batch = next((a.shape[:1] for a in inputs.values()), (1,))
    specs = {}
    for name, tensor in info.outputs.items():
        shape = known.get(name, (*batch, *tensor.resolved({})))
        if tensor.dtype != "BYTES" and -1 not in shape:
            specs[name] = (tensor.dtype, tuple(shape))
    return specs
