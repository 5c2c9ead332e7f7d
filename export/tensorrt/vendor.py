"""All calls of NVIDIA's libraries: parsing ONNX, building an engine, running one.

The same code drives TensorRT (10.12 to 11, module ``tensorrt``, in the container on a GPU) and
TensorRT-RTX (module ``tensorrt_rtx``, builds ahead of time without a GPU). It runs in a process of
its own (`worker`) and imports nothing heavy. Nothing that TensorRT 11 removed is used: precision
lies in the ONNX file, and networks are strongly typed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ONE_MESSAGE = 500
"""Characters of a message that are kept; some hold whole shapes of graphs."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the worker is to do.

    Attributes
    ----------
    module
        ``tensorrt`` or ``tensorrt_rtx``.
    plan
        Where the engine goes, None: it is measured and thrown away.
    profiles
        As in ``engines.json``.
    tf32
        FP32 products may be rounded to TF32.
    capability
        Compute capability to build ahead of time for (``"8.9"``), with TensorRT-RTX only.
    timing_cache
        File of measured kernels that is read and written, None: none.
    """

    module: str
    onnx: str
    plan: str | None
    profiles: Sequence[Mapping[str, Any]]
    tf32: bool
    level: int
    capability: str | None = None
    timing_cache: str | None = None


def load(name: str) -> ModuleType | None:
    """NVIDIA's module called `name`, None where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def build(order: Order) -> dict[str, Any]:
    """Parse and build as ordered; returns what came of it.

    Returns
    -------
    dict
        ``version``, ``stage`` (``parse``, ``build`` or ``done``), ``messages`` (warnings and
        errors, each once), ``error`` (the first that is no warning), ``parse_seconds``,
        ``build_seconds``, ``layers``, ``bytes``.
    """
    trt: Any = import_module(order.module)
    logger = _logger(trt)
    result: dict[str, Any] = {"version": trt.__version__, "stage": "parse", "bytes": 0}
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    begun = time.monotonic()
    parsed = parser.parse_from_file(order.onnx)
    result["parse_seconds"] = time.monotonic() - begun
    errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
    result["layers"] = network.num_layers
    if parsed:
        result["stage"] = "build"
        config = _config(trt, builder, order)
        cache = _timing_cache(config, order)
        begun = time.monotonic()
        engine = builder.build_serialized_network(network, config)
        result["build_seconds"] = time.monotonic() - begun
        if engine is not None:
            result |= {"stage": "done", "bytes": engine.nbytes}
            if order.plan is not None:
                Path(order.plan).write_bytes(engine)
            if cache is not None and order.timing_cache is not None:
                _keep(Path(order.timing_cache), cache.serialize())
    result["error"] = next(iter([*errors, *logger.errors]), "")
    texts = [*errors, *logger.messages]
    result["messages"] = list(dict.fromkeys(t.strip()[:ONE_MESSAGE] for t in texts))
    return result


def _logger(trt: Any) -> Any:
    """A logger that keeps warnings and errors."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (
                trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING
            ):  # fmt: skip
                text = f"{str(severity).rpartition('.')[2].lower()}: {msg}"
                self.messages.append(text)
                if severity != trt.ILogger.WARNING:
                    self.errors.append(text)

    return Logger()


def _strongly_typed(trt: Any) -> int:
    """Flags of a strongly typed network; where all networks are, there may be no such flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _config(trt: Any, builder: Any, order: Order) -> Any:
    config = builder.create_builder_config()
    tf32 = getattr(trt.BuilderFlag, "TF32", None)
    if tf32 is not None:
        (config.set_flag if order.tf32 else config.clear_flag)(tf32)
    for ordered in order.profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in ordered["inputs"].items():
            profile.set_shape(name, shapes["min"], shapes["opt"], shapes["max"])
        config.add_optimization_profile(profile)
    if order.capability is None:
        config.builder_optimization_level = order.level
    else:
        config.num_compute_capabilities = 1
        name = f"SM{order.capability.replace('.', '')}"
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    return config


def _timing_cache(config: Any, order: Order) -> Any:
    if order.timing_cache is None:
        return None
    file = Path(order.timing_cache)
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    # A cache of another GPU or version is refused here, and then simply not used.
    return cache if config.set_timing_cache(cache, ignore_mismatch=False) else None


def _keep(file: Path, content: Any) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.replace(file)


def run(module: str, plan: Path, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Run an engine once on the GPU. Not yet run on a GPU.

    Parameters
    ----------
    inputs
        NumPy arrays by name.

    Returns
    -------
    dict
        NumPy arrays by name of output.
    list of int
        By profile, bytes of GPU memory that an execution context takes.

    Raises
    ------
    RuntimeError
        When the engine cannot be loaded or takes no such inputs.
    """
    import cupy  # pyright: ignore[reportMissingImports] - there is one only where GPUs are

    trt: Any = import_module(module)
    engine = trt.Runtime(_logger(trt)).deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise RuntimeError("the engine cannot be loaded")
    context, stream = engine.create_execution_context(), cupy.cuda.Stream(non_blocking=True)
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    with stream:
        context.set_optimization_profile_async(_profile(engine, inputs), stream.ptr)
        held: dict[str, Any] = {n: cupy.ascontiguousarray(cupy.asarray(inputs[n])) for n in inputs}
        for name, array in held.items():
            if not context.set_input_shape(name, array.shape):
                raise RuntimeError(f"the engine takes no {name} of shape {list(array.shape)}")
        for name in (n for n in names if n not in inputs):
            shape = tuple(context.get_tensor_shape(name))
            held[name] = cupy.empty(shape, trt.nptype(engine.get_tensor_dtype(name)))
        for name, array in held.items():
            context.set_tensor_address(name, array.data.ptr)
        if not context.execute_async_v3(stream.ptr):
            raise RuntimeError("the engine did not run")
        stream.synchronize()
        outputs = {name: cupy.asnumpy(held[name]) for name in names if name not in inputs}
    count = engine.num_optimization_profiles
    return outputs, [engine.get_device_memory_size_for_profile_v2(n) for n in range(count)]


def _profile(engine: Any, inputs: Mapping[str, Any]) -> int:
    """The first profile that takes the inputs."""

    def fits(number: int) -> bool:
        for name, array in inputs.items():
            least, _, most = engine.get_tensor_profile_shape(name, number)
            if any(not a <= b <= c for a, b, c in zip(least, array.shape, most, strict=True)):
                return False
        return True

    found = [n for n in range(engine.num_optimization_profiles) if fits(n)]
    if not found:
        shapes = {name: list(array.shape) for name, array in inputs.items()}
        raise RuntimeError(f"no profile of the engine takes {shapes}")
    return found[0]
