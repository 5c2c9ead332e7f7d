"""Declarations as a repository of reduced precision serves them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeVar, cast

from .types import Ensemble, Network, PythonStep, System, Tensor

Precision = Literal["fp32", "fp16"]
"""Arithmetic of exported networks; in fp16 the tensors declared as `Tensor.half` are FP16, too."""

Declared = TypeVar("Declared", bound=Network | PythonStep | Ensemble | System)


def at_precision(declared: Declared, precision: Precision) -> Declared:
    """The declaration of a model, or of a whole system, in a repository of this precision.

    Raises
    ------
    CatalogError
        When an ensemble's tensor becomes FP16 at one end of an edge only.
    """
    if precision == "fp32":
        return declared
    return cast("Declared", _half(declared))


def _half(declared: Any) -> Any:
    match declared:
        case System():
            return replace(
                declared,
                networks=tuple(map(_half, declared.networks)),
                steps=tuple(map(_half, declared.steps)),
                ensembles=tuple(map(_half, declared.ensembles)),
            )
        case Ensemble():
            calls = tuple(replace(c, target=_half(c.target)) for c in declared.calls)
            return replace(declared, calls=calls, **_tensors(declared))
        case _:
            return replace(declared, **_tensors(declared))


def _tensors(model: Network | PythonStep | Ensemble) -> dict[str, tuple[Tensor, ...]]:
    return {
        "inputs": tuple(_tensor(t) for t in model.inputs),
        "outputs": tuple(_tensor(t) for t in model.outputs),
    }


def _tensor(tensor: Tensor) -> Tensor:
    return replace(tensor, dtype="FP16") if tensor.half else tensor
