"""Small models for a real server, written as a model repository."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from tritonclient.utils import np_to_triton_dtype

from hilum.catalog import PythonStep
from hilum.catalog.cxr_severity import CLEAN, ZONE_STEP

TYPES = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
}
CERTIFICATE = {"weights": {"network": "double", "source": "random (seed 0)", "sha256": "ab" * 32}}

PROBE = """
import threading
import time

import numpy as np
from hilum.catalog import PythonStep, Tensor
from hilum.catalog.errors import InputError
from hilum.server import python_step

STEP = PythonStep(
    "probe", "a step that does as it is told", f"{__name__}:probe_step",
    inputs=(Tensor("task", "INT32", (1,)), Tensor("image", "UINT8", ("L", 4))),
    outputs=(Tensor("sum", "FP64", (1,)), Tensor("copy", "UINT8", ("L", 4)),
             Tensor("calls", "INT32", (1,))),
    max_batch=8, sizes={"L": 3},
)
calls = 0


def probe_step(task, image):
    global calls
    calls += 1
    task = int(task[0])
    if task == 1:
        raise InputError("image 7 shows no chest; leave it out")
    if task == 2:
        raise ZeroDivisionError("one of the areas is zero")
    if task == 3:
        return {"sum": np.zeros(1), "copy": image.astype(np.int16),
                "calls": np.zeros(1, np.int32)}
    if task == 4:
        return {"sum": np.zeros(1)}
    if task == 5:
        image[0] = 0
    if task == 6:
        time.sleep(0.7)
    if task == 7:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            pass
    if task == 8:
        threading.Event().wait()
    return {"sum": np.array([image.sum()], np.float64), "copy": image[::-1],
            "calls": np.array([calls], np.int32)}


class TritonPythonModel(python_step.TritonPythonModel):
    @staticmethod
    def declaration(name):
        return STEP

    def initialize(self, args):
        super().initialize(args)
        self._function = probe_step
"""


def write(repository: Path) -> None:
    """Write every model of the tests."""
    write_onnx(repository, "double", config=DOUBLE)
    write_types(repository)
    write_python(repository, "probe", PROBE, PROBE_CONFIG)
    about = "from hilum.server.python_step import TritonPythonModel\n"
    write_python(repository, "hilum_about", about, ABOUT_CONFIG)
    write_config(repository, "chain", CHAIN)
    for step in (CLEAN, ZONE_STEP):
        write_python(repository, step.model, about, step_config(step))
    (repository / "double" / "labels.txt").write_text("a\nb\nc\n")
    (repository / "double" / "1" / "certificate.json").write_text(json.dumps(CERTIFICATE))


def write_onnx(repository: Path, name: str, config: str) -> Path:
    """A network that doubles [N, 3]."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    file = _folder(repository, name) / "model.onnx"
    _save(nodes, {"x": (TensorProto.FLOAT, ["N", 3])}, {"y": (TensorProto.FLOAT, ["N", 3])}, file)
    write_config(repository, name, config)
    return file


def write_types(repository: Path) -> None:
    """A network that hands every element type through, without a batch axis."""
    nodes = [helper.make_node("Identity", [f"in_{t}"], [f"out_{t}"]) for t in TYPES]
    tensors = [{f"{d}_{t}": (code, ["n"]) for t, (code, _) in TYPES.items()} for d in ("in", "out")]
    _save(nodes, *tensors, _folder(repository, "types") / "model.onnx")

    def listed(way: str) -> str:
        return "".join(
            f'{way}put {{ name: "{way}_{t}" data_type: TYPE_{t} dims: -1 }}\n' for t in TYPES
        )

    head = 'backend: "onnxruntime"\nmax_batch_size: 0\n'
    write_config(repository, "types", head + listed("in") + listed("out"))


def write_python(repository: Path, name: str, code: str, config: str) -> None:
    (_folder(repository, name) / "model.py").write_text(code)
    write_config(repository, name, config)


def step_config(step: PythonStep) -> str:
    """The configuration of a step of the catalog, with a field that old servers do not know."""
    lines = ['backend: "python"', f"max_batch_size: {step.max_batch}", "dynamic_batching {}"]
    for way, group in (("input", step.inputs), ("output", step.outputs)):
        for t in group:
            dims = list(t.resolved(step.sizes))
            lines.append(f'{way} {{ name: "{t.name}" data_type: TYPE_{t.dtype} dims: {dims} }}')
    family = "nv_inference_first_response_histogram_ms"
    control = f'metric_identifier {{ family: "{family}" }} histogram_options {{ buckets: 9 }}'
    lines.append(f"model_metrics {{ metric_control {{ {control} }} }}")
    return "\n".join(lines)


def write_config(repository: Path, name: str, text: str) -> None:
    (repository / name).mkdir(parents=True, exist_ok=True)
    (repository / name / "config.pbtxt").write_text(text)


def tensors(**arrays: np.ndarray) -> list[triton.InferInput]:
    """Inputs of a request."""
    made = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        made.append(tensor.set_data_from_numpy(array))
    return made


def _folder(repository: Path, name: str) -> Path:
    folder = repository / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save(nodes: list, inputs: dict, outputs: dict, file: Path) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, *t) for n, t in inputs.items()],
        [helper.make_tensor_value_info(n, *t) for n, t in outputs.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), file)


DOUBLE = """
backend: "onnxruntime"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: 3 }
output { name: "y" data_type: TYPE_FP32 dims: 3 label_filename: "labels.txt" }
dynamic_batching { max_queue_delay_microseconds: 5000 }
instance_group { count: 5 }
"""

PROBE_CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "task" data_type: TYPE_INT32 dims: 1 }
input { name: "image" data_type: TYPE_UINT8 dims: [ 3, 4 ] }
output { name: "sum" data_type: TYPE_FP64 dims: 1 }
output { name: "copy" data_type: TYPE_UINT8 dims: [ 3, 4 ] }
output { name: "calls" data_type: TYPE_INT32 dims: 1 }
dynamic_batching { max_queue_delay_microseconds: 20000 }
"""

ABOUT_CONFIG = """
backend: "python"
max_batch_size: 0
input { name: "query" data_type: TYPE_UINT8 dims: 1 }
output { name: "json" data_type: TYPE_UINT8 dims: -1 }
"""

CHAIN = """
platform: "ensemble"
max_batch_size: 8
input { name: "task" data_type: TYPE_INT32 dims: 1 }
input { name: "image" data_type: TYPE_UINT8 dims: [ 3, 4 ] }
output { name: "again" data_type: TYPE_FP64 dims: 1 }
ensemble_scheduling {
  max_inflight_requests: 32
  step {
    model_name: "probe" model_version: -1
    input_map { key: "task" value: "task" } input_map { key: "image" value: "image" }
    output_map { key: "copy" value: "turned" }
  }
  step {
    model_name: "probe" model_version: -1
    input_map { key: "task" value: "task" } input_map { key: "image" value: "turned" }
    output_map { key: "sum" value: "again" }
  }
}
"""
