"""Files of the published follow-up data set: three masks, enhanced array, picture (spec §7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.preprocessing.arrays import to_host
from hilum.results.atomic import make_folder, whole_file

from .overlay import Picture, beside, ct_grey, further, to_8_bits
from .result import DlpeResult

FOLDER = "follow-up-set"

SEMANTIC_SLICE = 256
"""Slice of 512 of the published picture."""


def semantic_map(
    ct: NDArray[np.float32],
    lung: NDArray[np.uint8],
    airway: NDArray[np.uint8],
    vessel: NDArray[np.uint8],
) -> Picture:
    """Slice [H, W, …] plain on the left; on the right lungs green, vessels red, airways blue."""
    pair = beside(ct_grey(ct), lung, "G")
    return further(further(pair, vessel, "R"), airway, "B")


def write_follow_up_set(result: DlpeResult, folder: Path) -> list[str]:
    """Write the set's arrays (key ``array``, normalised space) and its picture.

    Raises
    ------
    OutputError
        When one cannot be written.
    """
    if result.enhancement is None:
        return []
    target = folder / FOLDER
    make_folder(target)
    masks = {name: to_host(result.masks[name]) for name in ("lung", "airway", "vessel")}
    arrays = {f"{name}_mask": mask for name, mask in masks.items()}
    for name, array in {**arrays, "enhanced": to_host(result.enhancement.volume)}.items():
        with whole_file(target / f"{name}.npz") as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, array=array)
    z = SEMANTIC_SLICE * result.normalised.space.shape[2] // 512
    ct = to_host(result.normalised.voxels[:, :, z])
    picture = semantic_map(ct, *(masks[n][:, :, z] for n in ("lung", "airway", "vessel")))
    with whole_file(target / "semantic.png") as partial:
        Image.fromarray(to_8_bits(picture)).save(partial, format="PNG")
    return [f"{FOLDER}/"]
