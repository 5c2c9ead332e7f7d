"""PyTorch → ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import torch
from onnx import ModelProto
from torch import nn

from hilum.catalog.errors import ExportError

from .graph import BATCH, NEWEST_IR, OPSET, strip

LARGEST_BATCH = 64


def to_onnx(
    core: nn.Module,
    shape: Sequence[int],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int = OPSET,
) -> ModelProto:
    """Export a core with a symbolic batch axis and every other length fixed.

    Parameters
    ----------
    core
        In eval mode; takes one float32 tensor, returns a tuple.
    shape
        Of its input without the batch axis.
    inputs, outputs
        Names that the tensors get.

    Raises
    ------
    ExportError
        When torch cannot export the network.
    """
    # Two images: an axis of length 1 would be taken for one that can never grow.
    example = torch.zeros(2, *shape)
    batch = torch.export.Dim(BATCH, min=1, max=LARGEST_BATCH)
    try:
        with _quiet(), torch.inference_mode(mode=False), torch.no_grad():
            program = torch.onnx.export(
                core,
                (example,),
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=({0: batch},),
                opset_version=opset,
                verbose=False,
            )
    except Exception as failed:
        raise ExportError(
            f"torch {torch.__version__} could not export the network to ONNX: {failed}"
        ) from failed
    if program is None:
        raise ExportError(f"torch {torch.__version__} exported nothing")
    model: ModelProto = program.model_proto
    model.ir_version = min(model.ir_version, NEWEST_IR)
    strip(model)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and deprecation warnings off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
