"""A repository of analytic stand-ins for one X-ray network and lungmask: quick, exact."""

from __future__ import annotations

from pathlib import Path

import ct_standins
import standins

from hilum.catalog import SYSTEMS
from hilum.catalog import cxr_severity as cxr
from hilum.export.repository import export_system

CHEST_MODELS = ("lungmask_r231", cxr.ENSEMBLES["manet"].model)


def export_chest(folder: Path, disease: str = "manet") -> Path:
    """Write the files and the repository below `folder`; gives the repository."""
    xrays = {
        "lung": standins.write_lung(folder / "lung.onnx"),
        disease: standins.write_disease(folder / f"{disease}.onnx", cxr.DISEASE[disease].size, 0.9),
    }
    repository = folder / "repository"
    export_system(SYSTEMS["cxr-severity"], repository=repository, onnx=xrays)
    ct = {"r231": ct_standins.write_lung(folder / "r231.onnx")}
    export_system(SYSTEMS["lungmask"], repository=repository, onnx=ct)
    return repository
