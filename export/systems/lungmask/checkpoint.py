"""Published checkpoints of lungmask (spec lungmask §1–2): plain state dicts."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hilum.catalog import lungmask as catalog
from hilum.catalog.errors import WeightsError

from ...certificate import sha256_of
from ...checkpoints import Checkpoint
from ...checkpoints.keras import check_not_pointer
from ...checkpoints.pickles import check, read_state_dict
from . import network as lungmask

LAYOUT = "lungmask: state dict of a U-Net with unused residual path"

HASHED = re.compile(r".+-(?P<prefix>[0-9a-f]{8})\.pth")
"""Names of published files end in the first eight digits of their sha256."""

FILES = "unet_*.pth"

RESIDUAL = re.compile(r"(.+\.)?residual_(input_conv|batchnorm)\..+")
"""Tensors that are in the file but that no output depends on."""


def find(folder: Path, *, allow_unknown: bool = False) -> list[Checkpoint]:
    """The checkpoint in or below `folder`, see `published`.

    Raises
    ------
    WeightsError
        When there is none, or more than one.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder")
    found = published(folder, allow_unknown=allow_unknown)
    if not found:
        expected = ", ".join(catalog.WEIGHT_FILES.values())
        raise WeightsError(f"{folder}: no checkpoint below it; expected {expected}")
    return found


def published(folder: Path, *, allow_unknown: bool = False) -> list[Checkpoint]:
    """The checkpoint in or below `folder`, if there is one.

    Parameters
    ----------
    allow_unknown
        Take a file that is not one of the published ones, by its sha256.

    Raises
    ------
    WeightsError
        When there is more than one.
    """
    paths = sorted(folder.rglob(FILES))
    if len(paths) > 1:
        raise WeightsError(
            f"two checkpoints of {catalog.R231.name}: {paths[0]} and {paths[1]}; import the folder "
            "of the one you want"
        )
    return [
        Checkpoint(
            catalog.R231.name,
            path.name,
            LAYOUT,
            path,
            functools.partial(read_checkpoint, path, allow_unknown=allow_unknown),
        )
        for path in paths
    ]


def read_checkpoint(path: Path, *, allow_unknown: bool = False) -> Mapping[str, Tensor]:
    """Read and check a ``.pth``: the used tensors by their names in ``networks.lungmask.build``.

    Parameters
    ----------
    allow_unknown
        Take a file that is not one of the published ones, by its sha256.

    Raises
    ------
    WeightsError
        When the file's digest does not begin as its name says or as a published one does, or
        naming the tensor that is missing, extra or misshapen.
    """
    check_not_pointer(path)
    check_digest(path, allow_unknown=allow_unknown)
    tensors = read_state_dict(path)
    last = tensors.get("last.bias")
    if last is not None and last.shape != (lungmask.CLASSES,):
        raise WeightsError(
            f"{path} has {last.numel()} classes; R231 has {lungmask.CLASSES} (the lobe networks "
            "are not served)"
        )
    check(tensors, expected(), path.name)
    return {name: t for name, t in tensors.items() if not RESIDUAL.fullmatch(name)}


def check_digest(path: Path, *, allow_unknown: bool) -> str:
    """Compare a file's sha256 with its name and the published ones; give the whole digest.

    Raises
    ------
    WeightsError
        When it does not fit.
    """
    digest = sha256_of(path)
    named = HASHED.fullmatch(path.name)
    if named is not None and not digest.startswith(named["prefix"]):
        raise WeightsError(
            f"{path}: its sha256 begins with {digest[:8]}, not with {named['prefix']} as its name "
            "says: damaged or renamed; download it again"
        )
    if digest[:8] not in catalog.WEIGHT_FILES and not allow_unknown:
        known = ", ".join(catalog.WEIGHT_FILES.values())
        raise WeightsError(
            f"{path}: sha256 {digest} is not that of a published R231 file ({known})"
        )
    return digest


@functools.cache
def expected() -> dict[str, Tensor]:
    """Every tensor of a published file, without memory, by its name."""
    with torch.device("meta"):
        network = lungmask.build()
        tensors = dict(network.state_dict())
        before = 1
        for number, width in enumerate(lungmask.WIDTHS):
            tensors |= _residual(f"down_path.{number}.", before, width)
            before = width
        for number, width in enumerate(lungmask.WIDTHS[-2::-1]):
            for prefix in ("", "conv_block."):
                tensors |= _residual(f"up_path.{number}.{prefix}", 2 * width, width)
    return tensors


def _residual(prefix: str, channels: int, width: int) -> dict[str, Tensor]:
    layers = nn.ModuleDict(
        {
            "residual_input_conv": nn.Conv2d(channels, width, 1),
            "residual_batchnorm": nn.BatchNorm2d(width),
        }
    )
    return {f"{prefix}{name}": tensor for name, tensor in layers.state_dict().items()}
