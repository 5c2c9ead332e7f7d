"""What came of one graph that TensorRT parsed and built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one graph.

    Attributes
    ----------
    status
        ``ok`` or ``failed``.
    reason
        Why it failed, in one line.
    messages
        Warnings and errors of parser and builder.
    changed
        What was changed in a copy of the graph before it was parsed (`widen`).
    compiler, capability, flags
        What built it and how; with `onnx_sha256` the key of the result.
    peak_bytes
        Largest memory of the process that built it.
    """

    system: str
    network: str
    model: str
    precision: str
    status: str
    reason: str = ""
    onnx_sha256: str = ""
    onnx_bytes: int = 0
    engine_bytes: int = 0
    layers: int = 0
    parse_seconds: float = 0.0
    build_seconds: float = 0.0
    peak_bytes: int = 0
    messages: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    compiler: str = ""
    capability: str = ""
    flags: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """What the result depends on."""
        return (self.onnx_sha256, self.compiler, self.capability, *self.flags)
