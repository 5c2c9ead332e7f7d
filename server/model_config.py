"""Read and write ``config.pbtxt`` through Triton's own protobuf."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from hilum.catalog.errors import RepositoryError

ModelConfig = Any
"""A ``model_config_pb2.ModelConfig``; its classes are made at run time and have no types."""

OPTIONAL_FIELDS = ("model_metrics", "max_inflight_requests")
"""Fields of newer servers that can be left out without another answer."""

_FILES = {
    "onnxruntime": "model.onnx",
    "openvino": "model.onnx",
    "pytorch": "model.onnx",
    "onnxruntime_onnx": "model.onnx",
    "tensorrt": "model.plan",
    "tensorrt_plan": "model.plan",
    "python": "model.py",
}


def read_config(file: Path) -> ModelConfig:
    """The configuration in `file`.

    Raises
    ------
    RepositoryError
        When it cannot be read, is no configuration, or names another model than its folder does.
    """
    try:
        config = text_format.Parse(file.read_text("utf-8"), _new())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as failure:
        raise RepositoryError(f"{file} is not a Triton model configuration: {failure}") from failure
    if config.name not in ("", file.parent.name):
        raise RepositoryError(
            f"{file} configures a model {config.name!r}, but its folder is {file.parent.name!r}"
        )
    config.name = file.parent.name
    return config


def write_config(config: ModelConfig, file: Path) -> None:
    """Write `config` as text, with the batch size even where it is zero."""
    text = text_format.MessageToString(config)
    if config.max_batch_size == 0:
        text = f"max_batch_size: 0\n{text}"  # left out, zero would mean "find out"
    file.write_text(text, "utf-8")


def drop_fields(config: ModelConfig, names: Iterable[str]) -> None:
    """Take the fields `names` out of a configuration, at its top or in an ensemble's schedule."""
    # to touch the schedule of a model that is no ensemble would make it one
    parts = (config, config.ensemble_scheduling) if is_ensemble(config) else (config,)
    for name in names:
        for part in parts:
            if name in part.DESCRIPTOR.fields_by_name:
                part.ClearField(name)


def is_ensemble(config: ModelConfig) -> bool:
    """Whether the model is a chain of others."""
    return config.platform == "ensemble" or config.HasField("ensemble_scheduling")


def backend_of(config: ModelConfig) -> str:
    """Name of the model's backend, "" for an ensemble."""
    if is_ensemble(config):
        return ""
    return config.backend or config.platform.partition("_")[0]


def callees(config: ModelConfig) -> tuple[str, ...]:
    """Names of the models that an ensemble calls."""
    return tuple(step.model_name for step in config.ensemble_scheduling.step)


def model_file(config: ModelConfig) -> str | None:
    """Name of the file that a version folder must hold; None where none is needed."""
    if is_ensemble(config):
        return None
    return config.default_model_filename or _FILES.get(config.backend or config.platform)


def _new() -> ModelConfig:
    return model_config_pb2.ModelConfig()  # pyright: ignore[reportAttributeAccessIssue]
