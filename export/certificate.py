"""Parity certificates: what is served agrees with the network it was made from.

A certificate is written beside every exported ``model.onnx``. It names the weights, fingerprints
the file, and records how far the served file, run by ONNX Runtime from 8-bit inputs to all its
outputs, is from an independent reference: the published procedure in PyTorch around the PyTorch
network or, for a file of the user's, around that file.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import Arithmetic, Model, Network, Precision, Tensor, at_precision
from hilum.catalog.errors import ExportError

CERTIFICATE = "certificate.json"
MODEL_FILE = "model.onnx"

HALF_PIXELS = 0.005
"""Share of a binary mask's pixels that an FP16 export may change; scores are the final judge, in
the tests (spec cxr §14)."""

HALF_MEAN = 0.005
"""Mean absolute difference that an FP16 export may have on a probability map."""

HALF_MEAN_UNBOUNDED = 0.05
"""The same on logits and scores (spec ct_densenet §5.3)."""

HALF_STEP = 2.0**-11
"""Distance of neighbouring FP16 numbers below 1: outputs in FP16 may be rounded differently."""

WIDE = 10.0
"""Logits and scores that reach farther may differ in proportion: rounding errors are relative."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a network's weights come from.

    Attributes
    ----------
    source
        In so many words, fit for a report.
    sha256
        Of the checkpoint file, the user's file, or of the random tensors.
    """

    network: str
    source: str
    sha256: str
    kind: Literal["random", "reference", "checkpoint", "user file"]


@dataclass(slots=True)
class Parity:
    """Differences between the served file and the reference, the worst over all inputs.

    Attributes
    ----------
    largest, mean
        Absolute difference of the network's input and outputs inside the file, and of the file's
        own float outputs given these.
    reach
        Largest absolute values of the same in the reference.
    half
        Those that are FP16.
    differing_pixels
        Of the binary outputs, given what the network gave.
    unexplained_pixels
        Those where the map that was thresholded is farther from the threshold than `tolerance`.
    outputs
        The file's outputs against those of the reference for the same network input: largest
        difference of float outputs, number of differing pixels of binary ones.
    """

    reference: str
    inputs: str
    seed: int
    tolerance: float
    unbounded: frozenset[str] = frozenset()
    batches: list[int] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)
    reach: dict[str, float] = field(default_factory=dict)
    half: set[str] = field(default_factory=set)
    differing_pixels: dict[str, int] = field(default_factory=dict)
    unexplained_pixels: int = 0
    outputs: dict[str, float] = field(default_factory=dict)
    pixels: dict[str, int] = field(default_factory=dict)

    def add_part(self, name: str, got: NDArray[Any], want: NDArray[Any]) -> None:
        """Compare one float tensor."""
        if got.shape != want.shape or got.dtype != want.dtype:
            raise ExportError(
                f"{name} is {got.dtype} {list(got.shape)} instead of {want.dtype} "
                f"{list(want.shape)}"
            )
        apart = np.abs(got.astype(np.float64) - want)
        reach = np.abs(want.astype(np.float64)).max()
        measured = (self.largest, apart.max()), (self.mean, apart.mean()), (self.reach, reach)
        for worst, value in measured:
            worst[name] = _worse(worst.get(name, 0.0), float(value))
        if got.dtype == np.float16:
            self.half.add(name)

    def add(
        self,
        network: Network,
        got: Mapping[str, NDArray[Any]],
        want: Mapping[str, NDArray[Any]],
        final: Mapping[str, NDArray[Any]],
    ) -> None:
        """Compare the outputs of one batch.

        Parameters
        ----------
        got
            What the file gave.
        want
            What the reference makes of what the network inside the file gave.
        final
            What the reference makes of what its own network gave.

        Notes
        -----
        Integer outputs are masks; the reference gives in ``probability of NAME`` the map that NAME
        was thresholded from.
        """
        for name in (t.name for t in network.outputs):
            mask = got[name].dtype.kind != "f"
            if mask:
                differs = got[name] != want[name]
                self._count(name, differs, want[f"probability of {name}"])
                value = float((got[name] != final[name]).sum())
            else:
                self.add_part(name, got[name], want[name])
                value = float(np.abs(got[name] - final[name]).max())
            known = self.outputs.get(name, 0.0)
            self.outputs[name] = known + value if mask else _worse(known, value)
        self.batches.append(len(got[network.outputs[0].name]))

    def _count(self, name: str, differs: NDArray[np.bool_], probability: NDArray[Any]) -> None:
        self.differing_pixels[name] = self.differing_pixels.get(name, 0) + int(differs.sum())
        self.pixels[name] = self.pixels.get(name, 0) + differs.size
        self.unexplained_pixels += int((np.abs(probability[differs] - 0.5) > self.tolerance).sum())

    def problem(self, precision: Arithmetic) -> str | None:
        """Why the export must not be served, or None.

        An INT8 core is judged on the user's images instead of these (`systems.dlpe.int8`).
        """
        if self.unexplained_pixels:
            return f"{self.unexplained_pixels} pixels of binary masks differ without cause"
        for name, value in self.largest.items():
            if precision != "fp32" and name.startswith("core ") and name != "core input":
                continue
            if not value <= (allowed := self._allowed(name)):
                return f"{name} differs by {value:.2g}, more than {allowed:.0e} allows"
        if precision in ("fp16", "bf16"):
            return self._half_problem()
        return None

    def _allowed(self, name: str) -> float:
        if name in self.half:
            return self.tolerance + HALF_STEP
        if name.removeprefix("core ") in self.unbounded:
            return self.tolerance * max(1.0, self.reach[name] / WIDE)
        return self.tolerance

    def _half_problem(self) -> str | None:
        for name, value in self.mean.items():
            scale = name.removeprefix("core ") in self.unbounded
            limit = HALF_MEAN_UNBOUNDED if scale else HALF_MEAN
            if not value <= limit:
                return f"{name} differs by {value:.2g} on average, more than {limit} allows"
        for name, pixels in self.pixels.items():
            if self.outputs[name] > HALF_PIXELS * pixels:
                return f"{self.outputs[name]:.0f} of {pixels} pixels of {name} differ"
        return None


def _worse(a: float, b: float) -> float:
    """The larger one; NaN wins, where ``max`` would lose it."""
    return b if not b <= a else a


def certificate(
    system: str,
    network: Network,
    sizes: Mapping[str, int],
    file: Mapping[str, Any],
    weights: Weights,
    precision: str,
    parity: Parity | None,
    judged: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The certificate as it is written to JSON.

    Parameters
    ----------
    file
        Name, sha256, bytes, opset and IR version of the served file.
    parity
        None when a user's file is served untouched and there is nothing to compare it with.
    judged
        More of what was asked for: ``int8`` (what the network was calibrated on, its Dice, why it
        was refused), ``bf16`` (whether it was accepted, why not), ``served_by`` where that is not
        ONNX Runtime.
    """
    return {
        "system": system,
        "network": network.name,
        "model": network.model,
        "title": network.title,
        "hilum_version": versions()["hilum"],
        "precision": precision,
        "sizes": {k: sizes[k] for k in sorted(network.sizes)},
        "inputs": [signature(t, sizes) for t in network.inputs],
        "outputs": [signature(t, sizes) for t in network.outputs],
        "file": dict(file),
        "weights": {
            "network": weights.network,
            "source": weights.source,
            "sha256": weights.sha256,
            "kind": weights.kind,
        },
        "parity": None
        if parity is None
        else {
            "reference": parity.reference,
            "inputs": parity.inputs,
            "seed": parity.seed,
            "batches": parity.batches,
            "tolerance": parity.tolerance,
            "largest_difference": parity.largest,
            "mean_difference": parity.mean,
            "differing_pixels": parity.differing_pixels,
            "compared_pixels": parity.pixels,
            "outputs": parity.outputs,
        },
        **(judged or {}),
        "versions": versions(),
    }


def signature(tensor: Tensor, sizes: Mapping[str, int]) -> dict[str, Any]:
    """One tensor as certificates describe it, without the batch axis."""
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.resolved(sizes))}


def has_half(model: Model) -> bool:
    """Whether the tensors that a model takes and gives depend on the precision of an export."""
    return any(t.half for t in (*model.inputs, *model.outputs))


def wire_precision(network: Network, certificate: Mapping[str, Any]) -> Precision:
    """Whether an exported network takes and gives FP16 where the catalog says it may."""
    tensors = (*certificate.get("inputs", ()), *certificate.get("outputs", ()))
    types = {t["name"]: t["dtype"] for t in tensors}
    half = [t.name for t in (*network.inputs, *network.outputs) if t.half]
    return "fp16" if any(types.get(name) == "FP16" for name in half) else "fp32"


def has_wide(model: Model) -> bool:
    """Whether the tensors that a model takes and gives depend on the target of an export."""
    return any(t.wide for t in (*model.inputs, *model.outputs))


def is_wide(network: Network, certificate: Mapping[str, Any]) -> bool:
    """Whether an exported network takes INT32 where the catalog says INT16."""
    types = {t["name"]: t["dtype"] for t in certificate.get("inputs", ())}
    return any(types.get(t.name) == "INT32" for t in network.inputs if t.wide)


def as_exported(network: Network, certificate: Mapping[str, Any]) -> Network:
    """The declaration of a network with the element types that its certificate states."""
    precision = wire_precision(network, certificate)
    return at_precision(network, precision, wide=is_wide(network, certificate))


def versions() -> dict[str, str]:
    """Versions of what takes part in an export."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("hilum", "torch", "onnx", "onnxruntime", "segmentation-models-pytorch", "timm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def read_certificate(model_folder: Path) -> dict[str, Any] | None:
    """The certificate of version 1 of the model in `model_folder`, None when it has none.

    Raises
    ------
    ExportError
        When the file is not a certificate.
    """
    path = model_folder / "1" / CERTIFICATE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        _ = found["file"]["sha256"], found["sizes"], found["weights"]["source"], found["network"]
    except (ValueError, KeyError, TypeError) as broken:
        raise ExportError(
            f"{path} is not a certificate ({broken}); export the network again"
        ) from broken
    return found


def served_file(path: Path, opset: int | None, ir_version: int | None) -> dict[str, Any]:
    """What a certificate states about the served file; versions are None for a user's own."""
    return {
        "name": path.name,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "opset": opset,
        "ir_version": ir_version,
    }


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
