"""Triton model configurations from the catalog's declarations, through Triton's own protobuf.

Field by field: `model_config.proto` of triton-inference-server/common. The text is the same on
every machine and for all weights; what depends on a machine (instance and thread counts) is set
when a server starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from hilum.catalog import Ensemble, Model, Network, PythonStep, Tensor

pb: Any = model_config_pb2
"""The generated classes, which type checkers cannot see."""

ModelConfig = Any
"""A ``ModelConfig`` message."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What a network's configuration needs to know about its TensorRT engine.

    Attributes
    ----------
    profiles
        Number of optimisation profiles; each request gets the one whose middle is nearest.
    graphs
        CUDA graphs are recorded: the launches of many small kernels become one.
    """

    profiles: int
    graphs: bool


RuntimeConfig = EngineConfig | Literal["openvino"]
"""Of a network that ONNX Runtime does not serve."""

LATENCY_BUCKETS_MS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 15000, 60000, 300000)
"""Upper bounds of the latency histogram in milliseconds; Triton's own end at 5 s."""

LATENCY_FAMILIES = ("nv_inference_first_response_histogram_ms",)
"""Metric families that have buckets."""


def model_config(
    model: Model, sizes: Mapping[str, int], runtime: RuntimeConfig | None = None
) -> ModelConfig:
    """The configuration of a model whose named sizes are `sizes`.

    Parameters
    ----------
    runtime
        What serves the network instead of ONNX Runtime.
    """
    config = pb.ModelConfig(name=model.model, max_batch_size=model.max_batch)
    for tensor in model.inputs:
        dims, dtype = tensor.resolved(sizes), data_type(tensor)
        config.input.append(pb.ModelInput(name=tensor.name, data_type=dtype, dims=dims))
    for tensor in model.outputs:
        output = pb.ModelOutput(
            name=tensor.name, data_type=data_type(tensor), dims=tensor.resolved(sizes)
        )
        if tensor.labels:
            output.label_filename = label_file(tensor)
        config.output.append(output)
    if isinstance(model, Ensemble):
        _ensemble(config, model)
    else:
        _served(config, model, sizes, runtime)
    return config


def config_text(
    model: Model, sizes: Mapping[str, int], runtime: RuntimeConfig | None = None
) -> str:
    """The text of ``config.pbtxt``."""
    config = model_config(model, sizes, runtime)
    text = text_format.MessageToString(config, use_short_repeated_primitives=True)
    if config.max_batch_size == 0:
        # Protobuf's text leaves zeros out; Triton would then ask the backend to choose.
        first, rest = text.split("\n", 1)
        text = f"{first}\nmax_batch_size: 0\n{rest}"
    return f"# {model.title}\n# Written by `hilum export` from the catalog.\n{text}"


def parse_config(text: str) -> ModelConfig:
    """Read the text of a ``config.pbtxt``.

    Raises
    ------
    google.protobuf.text_format.ParseError
        With line and column.
    """
    return text_format.Parse(text, pb.ModelConfig())


def label_file(tensor: Tensor) -> str:
    """Name of the file with the labels of an output."""
    return f"{tensor.name}_labels.txt"


def labels(tensors: Iterable[Tensor]) -> dict[str, str]:
    """Label files by name: one line for each entry of an output that has names for them."""
    return {label_file(t): "\n".join(t.labels) + "\n" for t in tensors if t.labels}


def data_type(tensor: Tensor) -> int:
    """Triton's number for the element type."""
    return pb.DataType.Value(f"TYPE_{tensor.dtype}")


def _served(
    config: ModelConfig,
    model: Network | PythonStep,
    sizes: Mapping[str, int],
    runtime: RuntimeConfig | None,
) -> None:
    engine = runtime if isinstance(runtime, EngineConfig) else None
    if isinstance(model, Network):
        if engine is not None:
            config.platform, config.backend = "tensorrt_plan", "tensorrt"
            config.default_model_filename = "model.plan"
            if engine.graphs:
                config.optimization.cuda.graphs = True
        else:
            backend = "onnxruntime" if runtime is None else "openvino"
            config.backend, config.default_model_filename = backend, "model.onnx"
        config.model_warmup.append(_warmup(model, sizes))
    else:
        config.backend, config.default_model_filename = "python", "model.py"
    # Without a count the core gives an onnxruntime model two instances on a CPU; without a kind
    # Triton takes the GPU where there is one.
    # An engine's instance uses its first profile only, unless all are named.
    several = engine.profiles if engine is not None and engine.profiles > 1 else 0
    numbers = [str(number) for number in range(several)]
    config.instance_group.append(pb.ModelInstanceGroup(count=1, profile=numbers))
    if several:
        # There is a context for each profile; else each would have memory for the largest one.
        strategy = config.parameters["execution_context_allocation_strategy"]
        strategy.string_value = "ON_PROFILE_CHANGE"
    if model.max_batch:
        # No delay: a lone client must not wait for company that does not come.
        config.dynamic_batching.max_queue_delay_microseconds = 0
    for family in LATENCY_FAMILIES:
        control = config.model_metrics.metric_control.add()
        control.metric_identifier.family = family
        control.histogram_options.buckets.extend(LATENCY_BUCKETS_MS)


def _warmup(network: Network, sizes: Mapping[str, int]) -> Any:
    """Zeros before the model is ready: first calls allocate and choose kernels."""
    warmup = pb.ModelWarmup(name="zeros", batch_size=1)
    for tensor in network.inputs:
        entry = warmup.inputs[tensor.name]
        entry.data_type, entry.zero_data = data_type(tensor), True
        entry.dims.extend(network.example_shape(tensor, sizes))
    return warmup


def _ensemble(config: ModelConfig, ensemble: Ensemble) -> None:
    config.platform = "ensemble"
    for call in ensemble.calls:
        step = config.ensemble_scheduling.step.add()
        step.model_name, step.model_version = call.target.model, -1
        for name in (t.name for t in call.target.inputs):
            step.input_map[name] = call.inputs[name]
        for name in (t.name for t in call.target.outputs if t.name in call.outputs):
            step.output_map[name] = call.outputs[name]
