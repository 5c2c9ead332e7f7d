"""A Triton "Python-based backend" named ``onnxruntime``.

Loads the model repository (``backend: "onnxruntime"``, ``<version>/model.onnx``) that the C++
backend of the containers loads, for servers without that backend.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]
from hilum.server.triton_arrays import (  # pyright: ignore[reportMissingImports]
    NUMPY2,
    answer,
    as_array,
    as_tensor,
    refusal,
)

Config = Mapping[str, Any]
"""A model configuration as Triton hands it over: JSON."""

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

_DEFAULT_MAX_BATCH = 4
"""Largest batch of a model without a configured one, as in the C++ backend."""

_IDLE_S = 1.0
"""Seconds without a run after which a network without an arena gives its memory back."""

_OPTIMISATION = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class TritonPythonModel:
    """One ONNX Runtime session."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what the configuration leaves open and check the rest against the model."""
        config = auto_complete_model_config.as_dict()
        session = ort.InferenceSession(_model_path(config), providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
        batchable = all(v.shape and _dims(v)[0] == -1 for v in (*inputs, *outputs))
        configured = config["input"] or config["output"]
        if config["max_batch_size"] == 0 and not configured and batchable:
            auto_complete_model_config.set_max_batch_size(_DEFAULT_MAX_BATCH)
            auto_complete_model_config.set_dynamic_batching()
        batched = auto_complete_model_config.as_dict()["max_batch_size"] > 0
        for nodes, given, add in (
            (inputs, config["input"], auto_complete_model_config.add_input),
            (outputs, config["output"], auto_complete_model_config.add_output),
        ):
            missing = _check(nodes, given, batched=batched)
            for node in missing:
                dims = _dims(node)[1:] if batched else _dims(node)
                data_type = ORT_TO_TRITON[node.type]
                add({"name": node.name, "data_type": data_type, "dims": dims or [1]})
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the session and check the configuration against the model."""
        config = json.loads(args["model_config"])
        device = int(args["model_instance_device_id"] or 0)
        providers = _providers(config, args["model_instance_kind"], device)
        self._batched = config["max_batch_size"] > 0
        options = _session_options(config)
        self._idle = None if options.enable_cpu_mem_arena else _Idle()
        self._session = ort.InferenceSession(_model_path(config), options, providers=providers)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        _check(inputs, config["input"], batched=self._batched)
        _check(outputs, config["output"], batched=self._batched)
        self._inputs = [v.name for v in inputs]
        self._outputs = [v.name for v in outputs]
        self._strings = {v.name for v in inputs if v.type == "tensor(string)"}
        if NUMPY2 and any(v.type == "tensor(string)" for v in outputs):
            raise pb_utils.TritonModelException("string outputs need numpy < 2 with this Triton")
        pb_utils.Logger.log_info(
            f"{args['model_instance_name']}: {', '.join(self._session.get_providers())}"
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run requests of equal shapes as one batch; a failed run answers only its own requests."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[Any, list[tuple[int, Any, dict[str, np.ndarray]]]] = {}
        for i, request in enumerate(requests):
            if request.is_cancelled():
                cancelled = pb_utils.TritonError.CANCELLED
                responses[i] = refusal("cancelled by the client", cancelled)
                continue
            feed = {
                t.name(): as_array(t, strings=t.name() in self._strings) for t in request.inputs()
            }
            key = tuple(feed[n].shape[1:] for n in self._inputs) if self._batched else i
            groups.setdefault(key, []).append((i, request, feed))
        for members in groups.values():
            try:
                self._run(members, responses)
            except Exception as failure:  # noqa: BLE001 - ONNX Runtime's errors share no base class
                pb_utils.Logger.log_error(str(failure))
                code = pb_utils.TritonError.INTERNAL
                if type(failure).__name__ == "InvalidArgument":
                    code = pb_utils.TritonError.INVALID_ARG
                for i, _, _ in members:
                    responses[i] = refusal(str(failure), code)
        return responses

    def _run(
        self, members: list[tuple[int, Any, dict[str, np.ndarray]]], responses: list[Any]
    ) -> None:
        wanted = {name for _, request, _ in members for name in request.requested_output_names()}
        names = [n for n in self._outputs if n in wanted] or self._outputs
        if len(members) == 1:
            feed = members[0][2]
        else:
            feed = {n: np.concatenate([own[n] for _, _, own in members]) for n in self._inputs}
        if self._idle is not None:
            self._idle.ends()
        arrays = self._session.run(names, feed)
        if self._idle is not None:
            self._idle.begins()
        start = 0
        for i, request, own in members:
            stop = start + len(own[self._inputs[0]]) if self._batched else None
            mine = set(request.requested_output_names()) or set(names)
            responses[i] = answer(
                [
                    as_tensor(n, np.asarray(a)[start:stop] if len(members) > 1 else np.asarray(a))
                    for n, a in zip(names, arrays, strict=True)
                    if n in mine
                ]
            )
            start = stop or 0

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


def _model_path(config: Config) -> str:
    name = config.get("default_model_filename") or "model.onnx"
    return str(Path(pb_utils.get_model_dir()) / name)


def _parameters(config: Config) -> dict[str, str]:
    return {k: v["string_value"] for k, v in config.get("parameters", {}).items()}


def _session_options(config: Config) -> ort.SessionOptions:
    """Session options from the parameters that the C++ backend understands."""
    given = _parameters(config)
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


def _dims(node: Any) -> list[int]:
    return [d if isinstance(d, int) and d > 0 else -1 for d in node.shape]


def _check(nodes: Sequence[Any], given: Sequence[Config], *, batched: bool) -> list[Any]:
    """Compare configured tensors with the model's; the model's that are not configured."""
    configured = {t["name"]: t for t in given if t.get("dims")}
    known = [v.name for v in nodes]
    for tensor in given:
        if tensor["name"] not in known:
            raise pb_utils.TritonModelException(
                f"config.pbtxt has a tensor {tensor['name']!r}, the model has {known}"
            )
    for node in nodes:
        tensor = configured.get(node.name)
        if tensor is None:
            continue
        if tensor["data_type"] != ORT_TO_TRITON[node.type]:
            raise pb_utils.TritonModelException(
                f"{node.name!r} is {tensor['data_type']} in config.pbtxt, "
                f"{ORT_TO_TRITON[node.type]} in the model"
            )
        want = [int(d) for d in tensor["dims"]]
        have = _dims(node)[1:] if batched else _dims(node)
        if len(want) != len(have) or any(
            a != b for a, b in zip(want, have, strict=True) if -1 not in (a, b)
        ):
            raise pb_utils.TritonModelException(
                f"{node.name!r} is {want} in config.pbtxt, {have} in the model"
            )
    return [node for node in nodes if node.name not in configured]
