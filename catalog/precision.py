"""Declarations as a repository serves them: at reduced precision, or to engines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeVar, cast

from .types import Ensemble, Network, PythonStep, System, Tensor

Precision = Literal["fp32", "fp16"]
"""Arithmetic of exported networks; in fp16 the tensors declared as `Tensor.half` are FP16, too."""

Arithmetic = Literal["fp32", "fp16", "bf16", "int8"]
"""What a network is exported for; one in int8 takes and gives the tensors of fp32 or of fp16, one
in bf16 those of fp32: the runtime rounds, the file does not."""

Fallback = Literal["fp32", "fp16", "bf16"]
"""What a network is exported for that cannot be INT8; bf16 is for OpenVINO."""

Declared = TypeVar("Declared", bound=Network | PythonStep | Ensemble | System)


def at_precision(declared: Declared, precision: Precision, *, wide: bool = False) -> Declared:
    """The declaration of a model, or of a whole system, in a repository of this precision.

    Parameters
    ----------
    wide
        It was exported for engines: the tensors declared as `Tensor.wide` are INT32.

    Raises
    ------
    CatalogError
        When only one end of an ensemble's edge changes its type.
    """
    if precision == "fp32" and not wide:
        return declared
    return cast("Declared", _changed(declared, precision == "fp16", wide))


def _changed(declared: Any, half: bool, wide: bool) -> Any:
    match declared:
        case System():
            return replace(
                declared,
                networks=tuple(_changed(n, half, wide) for n in declared.networks),
                steps=tuple(_changed(s, half, wide) for s in declared.steps),
                ensembles=tuple(_changed(e, half, wide) for e in declared.ensembles),
            )
        case Ensemble():
            calls = tuple(replace(c, target=_changed(c.target, half, wide)) for c in declared.calls)
            return replace(declared, calls=calls, **_tensors(declared, half, wide))
        case _:
            return replace(declared, **_tensors(declared, half, wide))


def _tensors(
    model: Network | PythonStep | Ensemble, half: bool, wide: bool
) -> dict[str, tuple[Tensor, ...]]:
    return {
        "inputs": tuple(_tensor(t, half, wide) for t in model.inputs),
        "outputs": tuple(_tensor(t, half, wide) for t in model.outputs),
    }


def _tensor(tensor: Tensor, half: bool, wide: bool) -> Tensor:
    if half and tensor.half:
        return replace(tensor, dtype="FP16")
    return replace(tensor, dtype="INT32") if wide and tensor.wide else tensor
