"""Typed declarations of what Hilum serves: tensors, networks, Python steps, ensembles, systems.

Everything else is generated from these: Triton configurations, client signatures, model cards,
benchmark targets. The declarations hold facts only; they do no I/O and need the standard library
alone. An ensemble checks every one of its edges when it is created, that is, at import.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from .errors import CatalogError

DType = Literal["BOOL", "UINT8", "UINT16", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]
"""Element types by their names in Triton's protocol."""

Dim = int | str
"""A length: a number, ``-1`` for "any", or the name of a size (``"L"``) fixed at export."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named input or output of a model.

    Attributes
    ----------
    shape
        Without the batch axis when the model batches.
    labels
        Names of the entries of a vector; Triton serves them with its classification extension.
    half
        FP16 instead of FP32 in a repository that was exported with ``--precision fp16``.
    wide
        INT32 instead of INT16 where the network was exported with ``--target tensorrt``: engines
        take no 16-bit integers.
    """

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    description: str = ""
    labels: tuple[str, ...] = ()
    half: bool = False
    wide: bool = False

    def resolved(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with every named size replaced by its number from `sizes`."""
        try:
            return tuple(sizes[d] if isinstance(d, str) else d for d in self.shape)
        except KeyError as unknown:
            raise CatalogError(f"tensor {self.name!r}: no value for size {unknown}") from None


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that the authors published, with the hardware it was measured on."""

    quantity: str
    value: float
    unit: str
    hardware: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Cases of a two-class test: true and false positives and negatives."""

    tp: int
    fn: int
    fp: int
    tn: int

    def __str__(self) -> str:
        return f"TP {self.tp}, FN {self.fn}, FP {self.fp}, TN {self.tn}"

    @property
    def rates(self) -> Mapping[str, float]:
        """Its rates, 0 to 1, by the words that documented quantities begin with."""
        shares = {
            "sensitivity": (self.tp, self.tp + self.fn),
            "specificity": (self.tn, self.tn + self.fp),
            "accuracy": (self.tp + self.tn, self.tp + self.fn + self.fp + self.tn),
            "positive predictive value": (self.tp, self.tp + self.fp),
            "negative predictive value": (self.tn, self.tn + self.fn),
        }
        return {name: part / of if of else math.nan for name, (part, of) in shares.items()}


def _frozen(sizes: Mapping[str, int]) -> Mapping[str, int]:
    return MappingProxyType(dict(sizes))


@dataclass(frozen=True, slots=True)
class Network:
    """A neural network, served from one ONNX file or TensorRT engine.

    Attributes
    ----------
    name
        Short name on the command line, unique within its system (``manet``).
    model
        Name of the Triton model (``cxr_manet``).
    max_batch
        Largest batch, 0 for a model without a batch axis.
    sizes
        Value of every named length in the shapes.
    tolerance
        Largest absolute difference between the exported and the PyTorch network that an export
        may have, on its probabilities.
    streamed
        Its inputs come many at a time, as the slices of a series do, so that throughput counts and
        not the latency of one.
    example
        Small valid shape, without the batch axis, of every input that has a length of -1.
    """

    name: str
    model: str
    title: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    sizes: Mapping[str, int] = field(default_factory=dict)
    tolerance: float = 2e-5
    published: tuple[Figure, ...] = ()
    streamed: bool = False
    example: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", _frozen(self.sizes))
        object.__setattr__(self, "example", MappingProxyType(dict(self.example)))
        _check_model(self)
        _check_example(self)

    def example_shape(self, tensor: Tensor, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Whole shape of one input without the batch axis, lengths of -1 as in `example`."""
        return self.example.get(tensor.name) or tensor.resolved(sizes)


@dataclass(frozen=True, slots=True)
class PythonStep:
    """A step between networks that runs as Python code inside Triton.

    Attributes
    ----------
    function
        ``"package.module:function"``; takes one array for each input by name, without a batch
        axis, and returns a dictionary with one array for each output.
    factory
        The function is called once with the model's folder (``pathlib.Path``) instead, and returns
        the function described above.
    """

    model: str
    title: str
    function: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    sizes: Mapping[str, int] = field(default_factory=dict)
    factory: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", _frozen(self.sizes))
        _check_model(self)


@dataclass(frozen=True, slots=True)
class Call:
    """One step of an ensemble: a model, and which tensor of the ensemble each of its own is.

    `inputs` and `outputs` map names of the model to names of the ensemble; inputs must all be
    named, outputs only where something uses them.
    """

    target: Network | PythonStep
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Models chained inside Triton, so that what passes between them never leaves the server."""

    model: str
    title: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    max_batch: int

    def __post_init__(self) -> None:
        check_edges(self)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Every named size of the ensemble's models."""
        return MappingProxyType({k: v for c in self.calls for k, v in c.target.sizes.items()})


Model = Network | PythonStep | Ensemble


@dataclass(frozen=True, slots=True)
class System:
    """A published imaging system: its networks, the steps between them, and its ensembles.

    Attributes
    ----------
    published
        Figures of the whole system.
    published_cases
        By the setting of published rates (`Figure.hardware`): the counts behind them, or only how
        many cases there were, as the publication has it.
    """

    name: str
    title: str
    summary: str
    paper: str
    networks: tuple[Network, ...]
    steps: tuple[PythonStep, ...]
    ensembles: tuple[Ensemble, ...]
    published: tuple[Figure, ...] = ()
    published_cases: Mapping[str, Counts | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label, names in (
            ("network", [n.name for n in self.networks]),
            ("model", [m.model for m in self.models()]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise CatalogError(f"system {self.name}: {label} {twice[0]!r} is declared twice")

    def models(self) -> Iterator[Model]:
        """Every Triton model of the system: networks, steps, ensembles."""
        yield from (*self.networks, *self.steps, *self.ensembles)

    def network(self, name: str) -> Network:
        """The network called `name` on the command line.

        Raises
        ------
        KeyError
            With the names there are.
        """
        for network in self.networks:
            if network.name == name:
                return network
        known = ", ".join(n.name for n in self.networks)
        raise KeyError(f"{self.name} has no network {name!r}; it has {known}")


def closure(ensembles: Iterable[Ensemble]) -> tuple[Model, ...]:
    """Every model that the `ensembles` need, themselves included, each once, callees first."""
    found: dict[str, Model] = {}
    for ensemble in ensembles:
        for call in ensemble.calls:
            found.setdefault(call.target.model, call.target)
        found[ensemble.model] = ensemble
    return tuple(found.values())


def check_edges(ensemble: Ensemble) -> None:
    """Check that every edge of an ensemble fits: names, element types, shapes, sizes, batching.

    Raises
    ------
    CatalogError
        Naming the model, the tensor and both ends of the edge.
    """
    where = f"ensemble {ensemble.model}"
    sizes: dict[str, tuple[int, str]] = {}
    known = {t.name: (t, f"input of {ensemble.model}") for t in ensemble.inputs}
    used: set[str] = set()
    for call in ensemble.calls:
        target = call.target
        if (target.max_batch > 0) != (ensemble.max_batch > 0):
            raise CatalogError(f"{where}: {target.model} and the ensemble differ in batching")
        if target.max_batch < ensemble.max_batch:
            raise CatalogError(
                f"{where}: batches of {ensemble.max_batch}, but {target.model} takes "
                f"{target.max_batch} at most"
            )
        for size, value in target.sizes.items():
            first, owner = sizes.setdefault(size, (value, target.model))
            if first != value:
                raise CatalogError(
                    f"{where}: size {size} is {first} in {owner} but {value} in {target.model}"
                )
        _check_names(where, target, call)
        for tensor in target.inputs:
            source = call.inputs[tensor.name]
            if source not in known:
                raise CatalogError(
                    f"{where}: {target.model}.{tensor.name} reads {source!r}, which no earlier "
                    "step or input provides"
                )
            _check_same(where, *known[source], tensor, f"{target.model}.{tensor.name}")
            used.add(source)
        for tensor in target.outputs:
            if tensor.name in call.outputs:
                name = call.outputs[tensor.name]
                if name in known:
                    raise CatalogError(f"{where}: {name!r} is written twice")
                known[name] = (tensor, f"{target.model}.{tensor.name}")
    for tensor in ensemble.outputs:
        if tensor.name not in known:
            raise CatalogError(f"{where}: no step provides the output {tensor.name!r}")
        _check_same(where, *known[tensor.name], tensor, f"output of {ensemble.model}")
        used.add(tensor.name)
    unused = [owner for name, (_, owner) in known.items() if name not in used]
    if unused:
        raise CatalogError(f"{where}: nothing uses {unused[0]}")


def _check_names(where: str, target: Network | PythonStep, call: Call) -> None:
    inputs, outputs = {t.name for t in target.inputs}, {t.name for t in target.outputs}
    for name in sorted(inputs.symmetric_difference(call.inputs)):
        problem = "is not connected" if name in inputs else "does not exist"
        raise CatalogError(f"{where}: input {target.model}.{name} {problem}")
    for name in sorted(set(call.outputs) - outputs):
        raise CatalogError(f"{where}: output {target.model}.{name} does not exist")


def _check_same(where: str, a: Tensor, a_name: str, b: Tensor, b_name: str) -> None:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        raise CatalogError(
            f"{where}: {a_name} is {a.dtype} {list(a.shape)} but {b_name} is "
            f"{b.dtype} {list(b.shape)}"
        )


def _check_model(model: Network | PythonStep) -> None:
    tensors = (*model.inputs, *model.outputs)
    for tensor in tensors:
        for dim in tensor.shape:
            if isinstance(dim, str) and dim not in model.sizes:
                raise CatalogError(f"{model.model}.{tensor.name}: size {dim!r} has no value")
    for group in (model.inputs, model.outputs):
        names = [t.name for t in group]
        if len(set(names)) != len(names):
            raise CatalogError(f"{model.model}: two tensors of one name among {names}")


def _check_example(network: Network) -> None:
    for tensor in network.inputs:
        shape = network.example.get(tensor.name, ())
        fits = len(shape) == len(tensor.shape) and all(
            length > 0 and want in (-1, length)
            for want, length in zip(tensor.shape, shape, strict=True)
        )
        if (-1 in tensor.shape or shape) and not fits:
            raise CatalogError(
                f"{network.model}.{tensor.name}: {list(shape)} is no example of "
                f"{list(tensor.shape)}"
            )
