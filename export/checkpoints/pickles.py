"""Reading PyTorch files without running what is in them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...catalog.errors import WeightsError

DTYPES = {torch.float32: "float32", torch.int64: "int64"}


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a plain state dict; unpickling is restricted to tensors and containers.

    Raises
    ------
    WeightsError
        For a file that is missing, truncated, not a PyTorch file, holds other objects than
        tensors, or would run code.
    """
    return check_tensors(load_restricted(path), path)


def load_restricted(path: Path, allowed: Sequence[Any] = ()) -> Any:
    """Read a PyTorch file on the CPU; unpickling is restricted.

    Parameters
    ----------
    allowed
        What may be made besides tensors and containers: functions and types, or pairs of one and
        the name that it stands for in the file.

    Raises
    ------
    WeightsError
        For a file that is missing, truncated, not a PyTorch file, or would run code.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: the file is empty; download it again")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
            warnings.simplefilter("ignore")  # of pickles that are refused just after
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as refused:
        raise WeightsError(_why(path, refused)) from refused
    except Exception as broken:  # a damaged pickle can raise anything
        raise WeightsError(
            f"{path}: truncated or not a PyTorch file ({_first_line(broken)}); download it again"
        ) from broken


def check_tensors(found: object, path: Path) -> dict[str, torch.Tensor]:
    """Check that what was read is tensors by name.

    Raises
    ------
    WeightsError
        Naming the first entry that is no tensor.
    """
    if not isinstance(found, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(found).__name__}, not a state dict (tensor by name)"
        )
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"{path}: entry {name!r} is a {type(value).__name__}, not a tensor; a plain state "
                "dict is expected, without a wrapper or an optimiser"
            )
    return dict(found)


def check(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], where: str
) -> None:
    """Check names, shapes and element types against the tensors `expected` by name.

    Raises
    ------
    WeightsError
        Naming the tensors.
    """
    for problem, names in (
        ("lacks", [n for n in expected if n not in tensors]),
        ("has unknown", [n for n in tensors if n not in expected]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WeightsError(
                f"{where} {problem} {', '.join(names[:3])}{more}: not the published layout"
            )
    for name, tensor in tensors.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise WeightsError(
                f"{where}: {name} is {_kind(tensor)}, but the network has {_kind(want)}"
            )


def _kind(tensor: torch.Tensor) -> str:
    return f"{DTYPES.get(tensor.dtype, tensor.dtype)} {list(tensor.shape)}"


def _why(path: Path, refused: pickle.UnpicklingError) -> str:
    text = str(refused)
    for sign in ("Unsupported global", "Unsupported class", "GLOBAL"):
        if sign in text:
            return (
                f"{path}: holds objects other than tensors and was not loaded, for loading them "
                "runs code from the file; a plain state dict is expected"
            )
    return f"{path}: truncated or not a PyTorch file; download it again"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
