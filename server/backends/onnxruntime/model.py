"""A Triton "Python-based backend" named ``onnxruntime``.

Loads the model repository (``backend: "onnxruntime"``, ``<version>/model.onnx``) that the C++
backend of the containers loads, for servers without that backend.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

from hilum.server.network_backend import Config, NetworkModel, Node, Nodes, parameters
from hilum.server.triton_arrays import NUMPY2

Provider = tuple[str, dict[str, Any]]

ORT_TO_TRITON = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(double)": "TYPE_FP64",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(string)": "TYPE_STRING",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
}

_IDLE_S = 1.0
"""Seconds without a run after which a network without an arena gives its memory back."""

_OPTIMISATION = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class TritonPythonModel(NetworkModel):
    """One ONNX Runtime session."""

    INVALID: ClassVar[frozenset[str]] = frozenset({"InvalidArgument"})

    @classmethod
    def read(cls, path: str, config: Config) -> Nodes:  # noqa: ARG003
        """The tensors of an ONNX file."""
        return _nodes(ort.InferenceSession(path, providers=["CPUExecutionProvider"]))

    def open(self, path: str, config: Config, kind: str, device: int) -> tuple[Nodes, str]:
        """Open the session."""
        options = _session_options(config)
        self._idle = None if options.enable_cpu_mem_arena else _Idle()
        providers = _providers(config, kind, device)
        self._session = ort.InferenceSession(path, options, providers=providers)
        if NUMPY2 and any(v.type == "tensor(string)" for v in self._session.get_outputs()):
            raise pb_utils.TritonModelException("string outputs need numpy < 2 with this Triton")
        return _nodes(self._session), ", ".join(self._session.get_providers())

    def compute(self, names: list[str], feed: dict[str, np.ndarray]) -> list[Any]:
        """Run the session."""
        if self._idle is not None:
            self._idle.ends()
        try:
            return list(self._session.run(names, feed))
        finally:
            if self._idle is not None:
                self._idle.begins()

    def finalize(self) -> None:
        """Let go of the session's memory."""
        if self._idle is not None:
            self._idle.ends()
        del self._session


class _Idle:
    """Returns what runs needed to the system when none has come for a while.

    While they come the memory is kept, whatever the environment says: fresh pages would cost a
    sixth of their time.
    """

    def __init__(self) -> None:
        # The GNU C library has it, others need no asking.
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._timer: threading.Timer | None = None

    def begins(self) -> None:
        """A run is over."""
        self.ends()
        if self._trim is not None:
            self._timer = threading.Timer(_IDLE_S, self._trim, (0,))
            self._timer.daemon = True
            self._timer.start()

    def ends(self) -> None:
        """The next run begins, or there will be none."""
        if self._timer is not None:
            self._timer.cancel()


def _session_options(config: Config) -> ort.SessionOptions:
    """Session options from the parameters that the C++ backend understands."""
    given = parameters(config)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = int(given.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(given.get("inter_op_thread_count", 0))
    if given.get("execution_mode") == "1":
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = given.get("enable_mem_arena", "1") != "0"
    options.enable_mem_pattern = given.get("enable_mem_pattern", "1") != "0"
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    options.graph_optimization_level = _OPTIMISATION.get(
        level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    )
    for key, value in given.items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    return options


def _providers(config: Config, kind: str, device: int) -> list[str | Provider]:
    """Execution providers in order; one that this onnxruntime lacks is skipped with a warning."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    wanted: list[Provider] = []
    if kind == "GPU":
        chosen = accelerators.get("gpu_execution_accelerator", [])
        given = {a["name"]: a.get("parameters", {}) for a in chosen}
        if "tensorrt" in given:
            options = _tensorrt_options(given["tensorrt"], device)
            wanted.append(("TensorrtExecutionProvider", options))
        wanted.append(("CUDAExecutionProvider", {"device_id": device, **given.get("cuda", {})}))
    elif any(a["name"] == "openvino" for a in accelerators.get("cpu_execution_accelerator", [])):
        wanted.append(("OpenVINOExecutionProvider", {"device_type": "CPU"}))
    have = ort.get_available_providers()
    for name, _ in wanted:
        if name not in have:
            pb_utils.Logger.log_warn(f"{config['name']}: this onnxruntime has no {name}")
    return [*(w for w in wanted if w[0] in have), "CPUExecutionProvider"]


def _tensorrt_options(given: Mapping[str, str], device: int) -> dict[str, Any]:
    options: dict[str, Any] = {"device_id": device}
    for key, value in given.items():
        if key == "precision_mode":
            options[f"trt_{value.lower()}_enable"] = value.upper() != "FP32"
        elif key == "max_workspace_size_bytes":
            options["trt_max_workspace_size"] = value
        else:
            options[key if key.startswith("trt_") else f"trt_{key}"] = value
    return options


def _nodes(session: ort.InferenceSession) -> Nodes:
    def node(found: Any) -> Node:
        dims = tuple(d if isinstance(d, int) and d > 0 else -1 for d in found.shape)
        return Node(found.name, ORT_TO_TRITON[found.type], dims)

    return Nodes(
        tuple(node(v) for v in session.get_inputs()), tuple(node(v) for v in session.get_outputs())
    )
