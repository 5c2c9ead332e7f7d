"""What a repository's check reports about its engines."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Literal

from .plan import ENGINE_FILE, FINGERPRINT_FILE, read_plan

Told = tuple[str, Literal["error", "note"], str, str, str]
"""Model, severity, what, why, remedy."""


def check_engines(repository: Path, models: Container[str]) -> Iterator[Told]:
    """What is to be said about the engines of some models: not built yet, or failed.

    Whether a built engine fits the machine is not looked at here: that needs the machine.
    """
    build = f"hilum engines build --repository {repository}"
    for name, engine in read_plan(repository).items():
        if name not in models:
            continue
        version = repository / name / "1"
        if engine.served_by == "onnxruntime":
            why = "the network is served by ONNX Runtime, which is slower"
            retry = f"{build} --retry" if engine.failed_as else "hilum export --target onnx"
            yield name, "note", f"no TensorRT engine: {engine.reason}", why, retry
        elif not all((version / n).is_file() for n in (ENGINE_FILE, FINGERPRINT_FILE)):
            yield (
                name, "note", f"1/{ENGINE_FILE} is missing: the engine was not built",
                "the network cannot be served", build,
            )  # fmt: skip
