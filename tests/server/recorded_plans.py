"""A TensorRT plan with its record, as a build leaves them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from hilum.server.doctor.engines import Fingerprint, PlanRecord

BUILT = Fingerprint(
    onnx_sha256="1f" * 32,
    tensorrt="10.13.3.9",
    gpu="NVIDIA H200",
    capability="9.0",
    driver="580.95.05",
    flags=("--stronglyTyped", "--optShapes=image:8x3x512x512"),
)


RECORD = PlanRecord(BUILT, plan_sha256="ab" * 32, plan_bytes=4, hilum_version="0.1.0")


def write_plan(repository: Path, plan: bytes = b"plan", onnx: bytes = b"onnx") -> Path:
    """A model that serves a plan, with the record of its builder."""
    folder = repository / "cxr_manet" / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text('platform: "tensorrt_plan"\nmax_batch_size: 8\n')
    (folder / "model.plan").write_bytes(plan)
    (folder / "model.onnx").write_bytes(onnx)
    built = dataclasses.replace(BUILT, onnx_sha256=hashlib.sha256(onnx).hexdigest())
    record = PlanRecord(built, hashlib.sha256(plan).hexdigest(), len(plan), "0.1.0")
    (folder / "plan.json").write_text(record.as_json())
    return folder
