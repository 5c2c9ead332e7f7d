"""What Hilum's Python-based backends for networks share: shapes, batches, refusals.

A backend is one runtime: it names the tensors of a model file and computes outputs from inputs.
Imports only inside Triton's Python backend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

from .triton_arrays import answer, as_array, as_tensor, is_question, refusal

Config = Mapping[str, Any]
"""A model configuration as Triton hands it over: JSON."""

_DEFAULT_MAX_BATCH = 4
"""Largest batch of a model without a configured one, as in the C++ backend."""


@dataclass(frozen=True, slots=True)
class Node:
    """An input or output of a model file; open lengths are -1."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Nodes:
    """All inputs and outputs of a model file."""

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]


class NetworkModel:
    """One instance of a network; a runtime's backend derives its ``TritonPythonModel`` from it.

    Attributes
    ----------
    INVALID
        Names of the runtime's exceptions that are the request's fault.
    """

    INVALID: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def read(cls, path: str, config: Config) -> Nodes:
        """The tensors of the model file at `path`."""
        raise NotImplementedError

    def open(self, path: str, config: Config, kind: str, device: int) -> tuple[Nodes, str]:
        """Load the file for computing; its tensors, and in words what computes."""
        raise NotImplementedError

    def compute(self, names: list[str], feed: dict[str, np.ndarray]) -> list[Any]:
        """The outputs called `names`, in their order."""
        raise NotImplementedError

    @classmethod
    def auto_complete_config(cls, auto_complete_model_config: Any) -> Any:
        """Fill in what the configuration leaves open and check the rest against the model."""
        config = auto_complete_model_config.as_dict()
        nodes = cls.read(_model_path(config), config)
        batchable = all(v.dims and v.dims[0] == -1 for v in (*nodes.inputs, *nodes.outputs))
        configured = config["input"] or config["output"]
        if config["max_batch_size"] == 0 and not configured and batchable:
            auto_complete_model_config.set_max_batch_size(_DEFAULT_MAX_BATCH)
            auto_complete_model_config.set_dynamic_batching()
        batched = auto_complete_model_config.as_dict()["max_batch_size"] > 0
        for found, given, add in (
            (nodes.inputs, config["input"], auto_complete_model_config.add_input),
            (nodes.outputs, config["output"], auto_complete_model_config.add_output),
        ):
            for node in _check(found, given, batched=batched):
                dims = list(node.dims[1:] if batched else node.dims)
                add({"name": node.name, "data_type": node.data_type, "dims": dims or [1]})
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the network and check the configuration against it."""
        config = json.loads(args["model_config"])
        kind, device = args["model_instance_kind"], int(args["model_instance_device_id"] or 0)
        self._batched = config["max_batch_size"] > 0
        nodes, said = self.open(_model_path(config), config, kind, device)
        _check(nodes.inputs, config["input"], batched=self._batched)
        _check(nodes.outputs, config["output"], batched=self._batched)
        self._inputs = [v.name for v in nodes.inputs]
        self._outputs = [v.name for v in nodes.outputs]
        self._strings = {v.name for v in nodes.inputs if v.data_type == "TYPE_STRING"}
        pb_utils.Logger.log_info(f"{args['model_instance_name']}: {said}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run requests of equal shapes as one batch; a failed run answers only its own requests."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[Any, list[tuple[int, Any, dict[str, np.ndarray]]]] = {}
        for i, request in enumerate(requests):
            if request.is_cancelled():
                cancelled = pb_utils.TritonError.CANCELLED
                responses[i] = refusal("cancelled by the client", cancelled)
                continue
            if is_question(request):
                responses[i] = answer([])
                continue
            feed = {
                t.name(): as_array(t, strings=t.name() in self._strings) for t in request.inputs()
            }
            key = tuple(feed[n].shape[1:] for n in self._inputs) if self._batched else i
            groups.setdefault(key, []).append((i, request, feed))
        for members in groups.values():
            try:
                self._run(members, responses)
            except Exception as failure:  # noqa: BLE001 - runtimes' errors share no base class
                pb_utils.Logger.log_error(str(failure))
                code = pb_utils.TritonError.INTERNAL
                if type(failure).__name__ in self.INVALID:
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
        arrays = self.compute(names, feed)
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


def parameters(config: Config) -> dict[str, str]:
    """The free parameters of a configuration."""
    return {k: v["string_value"] for k, v in config.get("parameters", {}).items()}


def _model_path(config: Config) -> str:
    name = config.get("default_model_filename") or "model.onnx"
    return str(Path(pb_utils.get_model_dir()) / name)


def _check(nodes: Sequence[Node], given: Sequence[Config], *, batched: bool) -> list[Node]:
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
        if tensor["data_type"] != node.data_type:
            raise pb_utils.TritonModelException(
                f"{node.name!r} is {tensor['data_type']} in config.pbtxt, "
                f"{node.data_type} in the model"
            )
        want = [int(d) for d in tensor["dims"]]
        have = list(node.dims[1:] if batched else node.dims)
        if len(want) != len(have) or any(
            a != b for a, b in zip(want, have, strict=True) if -1 not in (a, b)
        ):
            raise pb_utils.TritonModelException(
                f"{node.name!r} is {want} in config.pbtxt, {have} in the model"
            )
    return [node for node in nodes if node.name not in configured]
