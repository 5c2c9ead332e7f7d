"""Repositories of DLPE's networks as a user makes them: checkpoints, import, export."""

from __future__ import annotations

from pathlib import Path

import dlpe_checkpoints as checkpoints
import torch

from hilum.catalog import SYSTEMS
from hilum.catalog import dlpe as catalog
from hilum.catalog.dlpe import TASKS
from hilum.export.repository import export_system
from hilum.export.store import import_weights
from hilum.export.systems.dlpe.network import UNet

SYSTEM = SYSTEMS["dlpe"]

ALSO = {"heart": "vessel1", "lesion": "in_patient"}
"""Tasks without golden networks, and whose they get."""


def export_pipeline(folder: Path, golden: Path, precision: str = "fp32") -> Path:
    """All networks: those of golden file 10, and others for the tasks that it leaves out."""
    file = golden / "dlpe" / "10_pipeline.npz"
    published = checkpoints.write_published(folder / "trained_models", file)
    states = checkpoints.golden_states(file)
    root = UNet(TASKS["root"].channels, 3, width=4)
    for number, direction in enumerate(checkpoints.DIRECTIONS):
        others = {name: states[TASKS[of].folder][direction] for name, of in ALSO.items()}
        torch.manual_seed(number)
        for layer in root.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)
        others["root"] = root.state_dict()
        for name, state in others.items():
            path = published / TASKS[name].folder / direction / "best_model.pth"
            checkpoints.write_checkpoint(path, state)
    return _export(folder, published, precision=precision)


def export_three_way(folder: Path, golden: Path, precision: str) -> Path:
    """The network of golden file 09, as that of the lungs."""
    file = golden / "dlpe" / "09_three_way.npz"
    lung = TASKS["lung"]
    published = checkpoints.write_published(folder / "trained_models", file, [lung.folder])
    return _export(folder, published, [lung.network(d).name for d in catalog.DIRECTIONS], precision)


def _export(
    folder: Path, published: Path, networks: list[str] | None = None, precision: str = "fp32"
) -> Path:
    torch.set_num_threads(1)
    store, repository = folder / "store", folder / "repository"
    import_weights(SYSTEM, published, store, allow_unknown=True)
    export_system(
        SYSTEM, repository=repository, networks=networks, weights="store", store=store,
        precision=precision,
    )  # fmt: skip
    return repository
