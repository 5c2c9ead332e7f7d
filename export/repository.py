"""Exporting the networks of a system into a model repository."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from torch import nn

from hilum.catalog import SYSTEMS, Arithmetic, Fallback, Network, System, at_precision
from hilum.catalog.errors import ExportError, InputError
from hilum.catalog.extras import require

from . import openvino
from .calibration import OpenFinder
from .cards import card
from .certificate import (
    CERTIFICATE,
    MODEL_FILE,
    Parity,
    Weights,
    certificate,
    served_file,
    sha256_of,
)
from .declarations import write_declarations
from .graph import main_opset
from .int8_request import judge_of, wire_precision_of
from .job import (
    Job,
    Origin,
    Progress,
    check_precision,
    checked_options,
    chosen_networks,
    network_of,
    referenced_networks,
    silent,
    sizes_of,
    stored_networks,
)
from .onnx_export import to_onnx
from .parity import Runtime, compare, onnx_core, torch_core
from .precision import to_bfloat, to_half
from .recipes import CoreSignature, recipe
from .reference import load_reference
from .store import load_weights
from .tensorrt.target import Target, prepare_engine, update_plan
from .user_file import read_user_file


class DiffersError(ExportError):
    """An export that its reference contradicts.

    Attributes
    ----------
    what
        Differs, in words.
    """

    def __init__(self, network: str, reference: str, what: str) -> None:
        super().__init__(
            f"{network}: the export does not agree with {reference}: {what}. "
            "What was exported before is still in place"
        )
        self.what = what


@dataclass(frozen=True, slots=True)
class Made:
    """A served model before it is compared and written."""

    model: ModelProto | Path
    weights: Weights
    core: nn.Module | None
    precision: Arithmetic
    judged: Mapping[str, Any] = field(default_factory=dict)


def export_system(
    system: System,
    *,
    repository: Path,
    networks: Sequence[str] | None = None,
    weights: Origin = "random",
    store: Path | None = None,
    precision: Arithmetic = "fp32",
    calibration: Sequence[Path] = (),
    calibrate_with: OpenFinder | None = None,
    fallback: Fallback = "fp32",
    target: Target = "onnx",
    onnx: Mapping[str, Path] | None = None,
    options: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Export networks of a system, each with certificate and card, and all declarations.

    A network is written when it agrees with its reference, and replaces the one before in one
    step; when it does not, what was exported before stays.

    Parameters
    ----------
    repository
        The model repository; made if it is not there.
    networks
        Names of those to export; default: those of `onnx` when any are given, else all whose
        weights there are.
    weights, store
        ``store`` takes them from the weights store, ``reference`` those that come with Hilum,
        ``random`` makes them from the option ``seed``.
    calibration, fallback
        For ``int8``: chest CTs to calibrate on, and the precision of the networks that cannot be
        INT8, or that miss the tolerance (`networks.dlpe_int8`).
    calibrate_with
        For ``int8``: opens what finds in these CTs the volumes that networks see of each other, so
        that those can be INT8, too; None: only networks that see the CT alone.
    target
        ``tensorrt`` writes configurations for engines, a build plan, and beside each network what
        its engine is to be compared with; `hilum engines build` does the rest on the GPU.
    onnx
        ONNX files to serve in networks' places, by network.
    options
        ``seed`` (of random weights, of the inputs of the comparison, of the choice of slices),
        ``opset``, ``calibration_slices``, ``calibration_grid``.

    Returns
    -------
    list of dict
        The certificates, in the order of the catalog.

    Raises
    ------
    ExportError
        When a network cannot be exported, or differs from its reference beyond the tolerance.
    WeightsError
        When the store, or the reference weights, lack a network's.
    InputError
        When INT8 is not to be had so, or a series cannot be calibrated on.
    """
    onnx = onnx or {}
    how, declared = recipe(system), system
    wire = wire_precision_of(system, precision, calibration, fallback, onnx, calibrate_with)
    system = at_precision(declared, wire, wide=target == "tensorrt")
    chosen = chosen_networks(system, networks, onnx)
    if weights == "store" and networks is None and not onnx:
        chosen = stored_networks(system, chosen, store, progress or silent)
    if weights == "reference" and networks is None and not onnx:
        chosen = referenced_networks(system, chosen, progress or silent)
    job = Job(
        system,
        how,
        repository,
        weights,
        store,
        wire,
        target,
        {
            name: read_user_file(path, network, how.core_signature(network))
            for name, path in onnx.items()
            for network in [network_of(system, name)]
        },
        checked_options(options or {}),
        progress or silent,
    )
    check_precision(job, chosen)
    job = replace(job, bf16=_in_bf16(job, fallback if precision == "int8" else precision))
    sizes = sizes_of(job, chosen)
    repository.mkdir(parents=True, exist_ok=True)
    with judge_of(
        repository,
        calibration,
        job.options,
        lambda network: _core(job, network)[0],
        calibrate_with,
        _runtime(job),
    ) as judge:
        ready = replace(job, judge=judge, int8=precision == "int8")
        certificates = [_export_one(ready, network, sizes[network.name]) for network in chosen]
    update_plan(repository, system, certificates, target)
    write_declarations(repository, [declared, *_sharing(declared, chosen, repository)])
    return certificates


def _in_bf16(job: Job, precision: Arithmetic) -> bool:
    """Whether networks are tried in bfloat16; says so when this processor has none.

    Raises
    ------
    InputError
        For a target and a precision that do not go together, or without OpenVINO.
    """
    if job.target != "openvino":
        if precision == "bf16":
            raise InputError("bf16 is for --target openvino; add it, or take fp16")
        return False
    require("--target openvino", "openvino")
    if job.precision == "fp16":
        raise InputError(
            "--target openvino serves processors, which gain nothing from fp16: take bf16, int8 "
            "or fp32"
        )
    if precision == "bf16" and not openvino.computes_bf16():
        for network in job.system.networks[:1]:
            job.progress(network.name, f"fp32 instead of bf16: {openvino.NO_BF16}")
        return False
    return precision == "bf16"


def _sharing(system: System, chosen: Sequence[Network], repository: Path) -> list[System]:
    """Other systems of a repository with one of the networks, whose types may have changed."""
    models = {n.model for n in chosen}
    return [
        other
        for other in SYSTEMS.values()
        if other.name != system.name
        and models.intersection(n.model for n in other.networks)
        and any((repository / m.model).is_dir() for m in (*other.steps, *other.ensembles))
    ]


def _export_one(job: Job, network: Network, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Export a network; one that misses the tolerance in bfloat16 is exported in FP32."""
    if not job.bf16:
        return _export(job, network, sizes, {})
    try:
        return _export(job, network, sizes, {})
    except DiffersError as problem:
        job.progress(network.name, f"stays fp32: {problem.what}")
        refused = {"bf16": {"accepted": False, "reason": problem.what}}
        return _export(replace(job, bf16=False), network, sizes, refused)


def _export(
    job: Job, network: Network, sizes: Mapping[str, int], judged: Mapping[str, Any]
) -> dict[str, Any]:
    made = _make(job, network, sizes)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=job.repository) as folder:
        staged = Path(folder) / "1"
        staged.mkdir()
        path = staged / MODEL_FILE
        if isinstance(made.model, Path):
            shutil.copyfile(made.model, path)
            parity, file = None, served_file(path, None, None)
        else:
            _write(made.model, path, network)
            file = served_file(path, main_opset(made.model), made.model.ir_version)
            job.progress(network.name, "comparing")
            parity = _compare(job, network, sizes, path, made)
        precision = made.precision if parity is not None else "as given"
        served_by = {"served_by": "openvino"} if job.target == "openvino" else {}
        found = certificate(
            job.system.name, network, sizes, file, made.weights, precision, parity,
            {**judged, **made.judged, **served_by},
        )  # fmt: skip
        (staged / CERTIFICATE).write_text(json.dumps(found, indent=2) + "\n")
        (staged / "README.md").write_text(card(job.system, network, found))
        if job.target == "tensorrt":
            old, seed = job.repository / network.model / "1", job.options["seed"]
            prepare_engine(job.recipe, network, sizes, staged, old, seed)
        _swap(staged, job.repository / network.model / "1", Path(folder) / "old")
    job.progress(network.name, "done")
    return found


def _make(job: Job, network: Network, sizes: Mapping[str, int]) -> Made:
    core: nn.Module | None = None
    signature = job.recipe.core_signature(network)
    if network.name in job.files:
        file = job.files[network.name]
        weights = Weights(
            network.name, f"user file {file.path.name}", sha256_of(file.path), "user file"
        )
        if file.kind == "served":
            return Made(file.path, weights, None, job.precision)
        model = ModelProto()
        model.CopyFrom(file.model)  # the file itself is compared with later
    else:
        job.progress(network.name, "weights")
        core, weights = _core(job, network)
        job.progress(network.name, "exporting")
        opset = job.options["opset"]
        if job.recipe.to_onnx is not None:
            model = job.recipe.to_onnx(core, opset)
        else:
            shape = [sizes[d] if isinstance(d, str) else d for d in signature.shape]
            names = [signature.input], list(signature.outputs)
            model = to_onnx(core, shape, inputs=names[0], outputs=names[1], opset=opset)
    judged: dict[str, Any] = {}
    judge = job.judge
    if job.int8 and judge is not None and core is not None:
        job.progress(network.name, "calibrating")
        quantised, judged["int8"] = judge.attempt(network, core, model)
        if quantised is not None:
            wrapped = job.recipe.wrap(quantised, network, sizes)
            return Made(wrapped, weights, core, "int8", judged)
        job.progress(network.name, f"stays {job.precision}: {judged['int8']['reason']}")
    if job.bf16:
        model = to_bfloat(model)
        judged["bf16"] = {"accepted": True, "reason": None}
        if judge is not None and core is not None:
            found = judge.compare(network, core, model)
            if found and not found["accepted"]:
                raise DiffersError(network.name, "PyTorch in FP32", found["reason"])
            judged["bf16"] = {**found, **judged["bf16"]}
    elif job.precision == "fp16":
        model = to_half(model, keep_stem=signature.wide_input)
    precision: Arithmetic = "bf16" if job.bf16 else job.precision
    return Made(job.recipe.wrap(model, network, sizes), weights, core, precision, judged)


def _core(job: Job, network: Network) -> tuple[nn.Module, Weights]:
    if job.weights == "random":
        core, source = job.recipe.build_random(network, job.options["seed"])
        return core, Weights(network.name, source, _fingerprint(core), "random")
    reference = job.weights == "reference"
    if reference:
        tensors, found = load_reference(job.system.name, network.name)
    else:
        tensors, found = load_weights(job.system.name, network.name, job.store)
    core = job.recipe.build(network, tensors)
    core.load_state_dict(tensors, strict=True)
    if reference:
        return core, Weights(network.name, found.source, found.sha256, "reference")
    source = f"checkpoint {found.source}"
    return core, Weights(network.name, source, found.sha256, "checkpoint")


def _fingerprint(core: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(core.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(model: ModelProto, path: Path, network: Network) -> None:
    try:
        path.write_bytes(model.SerializeToString())
    except (ValueError, OSError) as failed:
        raise ExportError(f"{network.name}: {path.name} cannot be written: {failed}") from failed


def _compare(
    job: Job, network: Network, sizes: Mapping[str, int], path: Path, made: Made
) -> Parity:
    signature: CoreSignature = job.recipe.core_signature(network)
    if made.core is not None:
        core, reference = torch_core(made.core), f"PyTorch {torch.__version__}"
    else:
        core = onnx_core(job.files[network.name].model, signature)
        reference = "the user's file in ONNX Runtime"
    parity = compare(
        job.recipe, network, sizes, path, core, reference=reference, seed=job.options["seed"],
        runtime=_runtime(job),
    )  # fmt: skip
    problem = parity.problem(made.precision)
    if problem:
        raise DiffersError(network.name, reference, problem)
    return parity


def _runtime(job: Job) -> Runtime | None:
    """What will serve the networks, and judges them; None: ONNX Runtime."""
    return openvino.Session if job.target == "openvino" else None


def _swap(staged: Path, target: Path, old: Path) -> None:
    """Put a version folder in place of another; a reader sees one or the other."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    staged.rename(target)
