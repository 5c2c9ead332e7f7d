"""What `report.json` and `result.json` hold; the schemas in `docs/schema` are made from it.

Each system adds fields of its own to a result, which its page in `docs/background/` describes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

REPORT: Literal["hilum-report/1"] = "hilum-report/1"
RESULT: Literal["hilum-result/1"] = "hilum-result/1"
"""Versions of the two files: the number rises when a field goes or changes its meaning."""


class Weights(TypedDict):
    """One network: whose weights, in which arithmetic, served by what."""

    network: str
    """Name of the network, or of the served model."""
    source: str
    """Where the weights come from: a checkpoint, reference, random, or a file."""
    sha256: str | None
    """Checksum of the weights; None where the server does not report it."""
    kind: NotRequired[str]
    """``checkpoint``, ``reference``, ``random``, ``user file``, or ``unknown``."""
    precision: str | None
    """Arithmetic of the served file: ``fp32``, ``fp16``, ``bf16``, ``int8``, or ``as given`` for a
    file of yours that was not compared."""
    served_by: str | None
    """``onnxruntime``, ``pytorch``, ``tensorrt`` or ``openvino``."""


class KeyWeights(TypedDict):
    """The weights of one network, as far as a result depends on them."""

    sha256: str | None
    """Checksum of the weights."""
    precision: str | None
    """Arithmetic of the served file."""


class Key(TypedDict):
    """What a result follows from: where it is the same, so is the result."""

    content_sha256: str
    """Checksum of the study's content."""
    options: dict[str, Any]
    """Options that change the result."""
    weights: dict[str, KeyWeights]
    """By network, its `KeyWeights`."""
    hilum_version: str
    """Version of Hilum."""
    files: dict[str, bool]
    """What was asked to be written: pictures, arrays, DICOM objects."""


class Entry(TypedDict):
    """One study in the report; a system's own fields are beside these."""

    input: str
    """Path of the study as it was given; ``#1`` and so on for one that is no file."""
    name: str
    """The study's number, which names its folder."""
    status: str
    """``ok``, the worst of the flags, or ``failed``."""
    seconds: float
    """From the start of reading to the result."""
    files: list[str]
    """What was written, relative to the report."""
    error: NotRequired[str]
    """Why the study failed."""
    unwritten: NotRequired[str]
    """The file that could not be written, and why."""
    flags: NotRequired[list[str]]
    """What is unusual about the study."""


class ReportFile(TypedDict):
    """`report.json`: a whole batch."""

    schema: Literal["hilum-report/1"]
    """Version of this file."""
    hilum_version: str
    """Version of Hilum that wrote it."""
    system: str
    """Name of the system."""
    mode: str
    """``parity`` or ``corrected``."""
    device: str
    """Where arrays were worked on: ``cpu``, or a GPU."""
    disclaimer: str
    """Not a medical device."""
    weights: list[Weights]
    """One entry for each network: see `Weights`."""
    weights_note: str
    """Whose weights these are in words, where they are not the published ones; else empty."""
    server: dict[str, Any]
    """Address, name and version of the server, how tensors travelled, and why."""
    summary: dict[str, int]
    """How many studies there are, and how many have each status."""
    results: list[Entry]
    """One entry for each study, in the order of the batch."""


class ResultFile(TypedDict):
    """`result.json`: one study, in its own folder; a system's own fields are beside these."""

    schema: Literal["hilum-result/1"]
    """Version of this file."""
    hilum_version: str
    """Version of Hilum that wrote it."""
    system: str
    """Name of the system."""
    mode: str
    """``parity`` or ``corrected``."""
    disclaimer: str
    """Not a medical device."""
    weights: list[Weights]
    """One entry for each network: see `Weights`."""
    weights_note: str
    """Whose weights these are in words; else empty."""
    key: Key | None
    """What the result depends on: see `Key`."""
    name: str
    """The study's number."""
    status: str
    """``ok``, or the worst of the flags."""
    seconds: float
    """From the start of reading to the result."""
    files: list[str]
    """What was written, relative to the study's folder."""
    unwritten: NotRequired[str]
    """The file that could not be written, and why."""
    flags: NotRequired[list[str]]
    """What is unusual about the study."""


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema of one of the files; needs msgspec, of the extra ``dev``."""
    import msgspec

    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(kind)


FILES: Mapping[str, type] = {"report-1.json": ReportFile, "result-1.json": ResultFile}
"""Files in `docs/schema`, by what they describe; ``python -m hilum.results.schema`` writes them."""


if __name__ == "__main__":
    for name, kind in FILES.items():
        Path("docs/schema", name).write_text(json.dumps(json_schema(kind), indent=2) + "\n")
