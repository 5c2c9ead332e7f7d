"""A repository for rehearsals: stand-ins of the X-ray networks, small networks of DLPE."""

from __future__ import annotations

from pathlib import Path

import standins

from hilum.catalog import SYSTEMS
from hilum.export.repository import export_system


def assemble(folder: Path, dlpe: Path) -> Path:
    """Make the repository in `folder`; DLPE's networks are links into the repository `dlpe`."""
    files = {
        "lung": standins.write_lung(folder / "lung.onnx"),
        "pspnet": standins.write_disease(folder / "pspnet.onnx", 480, 0.9),
        "manet": standins.write_disease(folder / "manet.onnx", 544, 0.9),
    }
    repository = folder / "repository"
    export_system(SYSTEMS["cxr-severity"], repository=repository, onnx=files)
    for model in dlpe.glob("dlpe_*"):
        own = repository / model.name
        own.mkdir(exist_ok=True)
        for entry in model.iterdir():
            (own / entry.name).symlink_to(entry)
    return repository
