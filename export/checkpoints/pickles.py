"""Reading PyTorch files without running what is in them."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import _weights_only_unpickler

from hilum.catalog.errors import WeightsError

PICKLE = "data.pkl"
"""Name of the record that describes the others, in the archive's only folder."""

MAX_UNFOLDED = 4 << 30
"""Bytes that the tensors of one file may take; the largest published network has 0.5 GiB."""

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
            _check_storages(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as refused:
        raise WeightsError(_why(path, refused)) from refused
    except Exception as broken:  # a damaged pickle can raise anything
        raise WeightsError(
            f"{path}: truncated or not a PyTorch file ({_first_line(broken)}); download it again"
        ) from broken


def _check_storages(path: Path) -> None:
    """Refuse an archive that unpacks to more than it holds, or whose storages are not in it.

    torch trusts the sizes in the pickle and reads beyond a record that is shorter. Here the pickle
    is read as torch reads it, restricted alike, but with storages that have no memory.

    Raises
    ------
    WeightsError
        When it does. What the restricted unpickler raises passes.
    """
    if not zipfile.is_zipfile(path):
        return  # the format before archives: there torch compares sizes itself
    with zipfile.ZipFile(path) as archive:
        records = {m.filename.partition("/")[2]: m for m in archive.infolist()}
        if len(records) < len(archive.infolist()):
            raise WeightsError(f"{path}: holds a record twice; download it again")
        unpacked = sum(member.file_size for member in records.values())
        if unpacked > path.stat().st_size:
            raise WeightsError(
                f"{path}: unpacks to {unpacked / 2**20:.0f} MiB, more than the file holds; "
                "download it again"
            )
        content = io.BytesIO(archive.read(records[PICKLE]))

    def storage(described: tuple[Any, ...]) -> torch.storage.TypedStorage:
        _, kind, key, _, count = described
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        length = count * dtype.itemsize
        if records[f"data/{key}"].file_size != length:
            raise WeightsError(f"{path}: a tensor's values are not all there; download it again")
        empty = torch.UntypedStorage(length, device="meta")
        return torch.storage.TypedStorage(wrap_storage=empty, dtype=dtype, _internal=True)

    unpickler: Any = _weights_only_unpickler.Unpickler(content)
    unpickler.persistent_load = storage
    unpickler.load()


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
        if not _is_plain(value):
            raise WeightsError(f"{path}: entry {name!r} is no plain dense tensor of the CPU")
    unfolded = sum(value.numel() * value.element_size() for value in found.values())
    if unfolded > MAX_UNFOLDED:
        raise WeightsError(
            f"{path}: its tensors unfold to {unfolded / 2**30:.1f} GiB, but no published network "
            f"has more than {MAX_UNFOLDED / 2**30:.0f} GiB"
        )
    return dict(found)


def _is_plain(tensor: torch.Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return not (tensor.is_nested or tensor.is_conj() or tensor.is_neg())


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
