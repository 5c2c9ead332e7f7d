"""Running a served file against its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto
from torch import Tensor, nn

from hilum.catalog import Network
from hilum.catalog.errors import ExportError

from .certificate import Parity
from .recipes import Arrays, CoreSignature, Recipe, all_inputs

CoreFunction = Callable[..., tuple[Tensor, ...]]
"""Takes the inputs of the core in order."""


class Session(Protocol):
    """A network that a runtime has loaded."""

    def run(self, names: Sequence[str], inputs: Arrays, /) -> Sequence[Any]:
        """The outputs called `names`."""
        ...


Runtime = Callable[[bytes, str], Session]
"""Loads an ONNX file's content; the second argument names it in errors."""


def torch_core(core: nn.Module) -> CoreFunction:
    """A PyTorch network as a function."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return core(*inputs)

    return run


def onnx_core(model: ModelProto, signature: CoreSignature) -> CoreFunction:
    """A bare network in ONNX as a function; what it gives is checked to be probabilities."""
    session = onnx_session(model.SerializeToString(), "the file")

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = {n: t.numpy() for n, t in zip(signature.inputs, inputs, strict=True)}
        arrays = session.run(list(signature.outputs), given)
        for name, array in zip(signature.outputs, arrays, strict=True):
            found = np.asarray(array)
            bounded = name in signature.unbounded or (found.min() >= 0 and found.max() <= 1)
            if not (np.isfinite(found).all() and bounded):
                raise ExportError(
                    f"output {name!r} of the file leaves 0…1 (it reaches {found.min():.3g} and "
                    f"{found.max():.3g}); it must be a probability: put the sigmoid into the graph"
                )
        return tuple(torch.from_numpy(np.asarray(a)) for a in arrays)

    return run


def compare(
    how: Recipe,
    network: Network,
    sizes: Mapping[str, int],
    served: Path,
    core: CoreFunction,
    *,
    reference: str,
    seed: int,
    runtime: Runtime | None = None,
) -> Parity:
    """Compare a served file with the reference path around `core`, in batches of 1, 2 ….

    The file's nodes are looked at in three places, so that each part is judged by itself: what the
    network gets, what it gives for just that, and what is made of this. A network may magnify the
    last bit of its input, so only this separates a wrong graph from a sensitive network.

    Parameters
    ----------
    runtime
        What serves the file; default: ONNX Runtime.
    """
    signature = how.core_signature(network)
    parity = Parity(reference, how.sampled, seed, network.tolerance, signature.unbounded)
    before = {f"core/{name}": f"core {name}" for name in signature.more}
    before = {f"core/{signature.input}": "core input", **before}
    inner = [*before, *(f"core/{name}" for name in signature.outputs)]
    session = (runtime or onnx_session)(_with_outputs(served, inner), network.name)
    names = [*(tensor.name for tensor in network.outputs), *inner]
    inputs = how.samples(network, sizes, seed)
    entry = all_inputs(how.core_input(network, sizes, inputs))
    got = _run(session, names, inputs)
    own = core(*(torch.from_numpy(got[name]) for name in before))
    final = how.outputs(network, own)
    for count in range(1, len(entry[0]) + 1):
        few = how.first(network, inputs, count)
        part = got if count == len(entry[0]) else _run(session, names, few)
        for (name, output), want in zip(before.items(), entry, strict=True):
            parity.add_part(output, part[name], want[:count].numpy())
        for name, want in zip(signature.outputs, own, strict=True):
            parity.add_part(f"core {name}", part[f"core/{name}"], want[:count].numpy())
        after = tuple(torch.from_numpy(part[name]) for name in inner[len(before) :])
        wanted = {name: array[:count] for name, array in final.items()}
        parity.add(network, part, how.outputs(network, after), wanted)
    return parity


def _run(session: Session, names: Sequence[str], inputs: Arrays) -> Arrays:
    arrays = session.run(list(names), inputs)
    return {name: np.asarray(a) for name, a in zip(names, arrays, strict=True)}


def _with_outputs(served: Path, names: Sequence[str]) -> bytes:
    """The served file with inner float tensors as further outputs.

    Serialised messages that follow each other are one message whose lists are joined: the file
    need not be parsed for this.
    """
    more = onnx.ModelProto()
    more.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return served.read_bytes() + more.SerializeToString()


def onnx_session(model: str | bytes, what: str) -> ort.InferenceSession:
    """A file, or its content, in ONNX Runtime; `what` names it in errors."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as refused:
        first = str(refused).strip().splitlines()[0]
        raise ExportError(f"ONNX Runtime cannot run {what}: {first}") from refused
