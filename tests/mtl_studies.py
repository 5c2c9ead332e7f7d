"""Small chests and networks for the tests of COVID-MTL's pipeline."""

from __future__ import annotations

from pathlib import Path

import ct_standins
import numpy as np
import onnx
import onnxruntime
import torch

from hilum.catalog import SYSTEMS
from hilum.catalog import covid_mtl as catalog
from hilum.export.layers.layers3d import Layers
from hilum.export.repository import export_system
from hilum.export.systems.covid_mtl.graph import IMAGE, SCORES
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.reading.volume import Geometry, Volume

SMALL, PLAUSIBLE = 1 / 3, 0.5
"""Size of a chest with 0.22 l of lung, quickly worked on, and of one whose lungs are plausible."""


def chest(seed: int = 3, scale: float = SMALL) -> Volume:
    """The phantom of an adult as if it were smaller."""
    volume = chest_ct(seed, slices=40, size=96).volume
    old = volume.geometry
    z, y, x = (step * scale for step in old.spacing)
    return Volume(volume.voxels, Geometry(old.shape, old.origin, (z, y, x), old.direction))


def opened(volume: Volume) -> Volume:
    """The same with a gap through which the air of both lungs is joined to that of the room."""
    voxels = np.array(volume.voxels)
    voxels[:, 40:46, :] = -1000
    return Volume(voxels, volume.geometry)


def export(folder: Path) -> Path:
    """The dual network with random weights; stand-ins for `volume`, `ct` and lungmask."""
    torch.set_num_threads(1)
    repository, system = folder / "repository", SYSTEMS["covid-mtl"]
    export_system(system, repository=repository, networks=["dual"], weights="random")
    files = {name: _write_mean(folder / f"{name}.onnx", name) for name in ("volume", "ct")}
    export_system(system, repository=repository, onnx=files)
    lung = ct_standins.write_lung(folder / "lung.onnx")
    export_system(SYSTEMS["lungmask"], repository=repository, onnx={"r231": lung})
    return repository


def mean_answers(volume: np.ndarray, network: str) -> dict[str, np.ndarray]:
    """Probabilities of a stand-in by head for a window of stored values."""
    mean = (np.minimum(volume, 2000).mean(dtype=np.float64) - 16.71) / 85.17
    scores = {
        name: layer.weight.detach().numpy()[:, 0] * mean + layer.bias.detach().numpy()
        for name, layer in _heads(network).items()
    }
    return {name: np.exp(s) / np.exp(s).sum() for name, s in scores.items()}


def dual_answers(
    repository: Path, volume: np.ndarray, radiomics: np.ndarray
) -> dict[str, np.ndarray]:
    """Probabilities by head from the exported dual network in ONNX Runtime itself."""
    file = repository / catalog.DUAL.model / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    given = {"volume": volume[None], "radiomics": radiomics[None]}
    names = [head.output for head in catalog.HEADS.values()]
    return dict(zip(catalog.HEADS, (a[0] for a in session.run(names, given)), strict=True))


def _heads(network: str) -> dict[str, torch.nn.Linear]:
    names = ["ct"] if network == "ct" else list(catalog.HEADS)
    layers = {}
    for number, name in enumerate(names):
        torch.manual_seed(number)
        layers[name] = torch.nn.Linear(1, len(catalog.HEADS[name].classes))
    return layers


def _write_mean(path: Path, network: str) -> Path:
    """Scores are linear in the mean of the normalised window, summed in parts for its digits."""
    n = Layers("standin")
    mean = n.mean(n.add("AveragePool", IMAGE, kernel_shape=[10] * 3, strides=[10] * 3))
    outputs = {name if network == "volume" else SCORES: h for name, h in _heads(network).items()}
    for name, layer in outputs.items():
        n.linear(mean, layer, out=name)
    shapes = {name: (layer.out_features,) for name, layer in outputs.items()}
    onnx.save(n.model({IMAGE: (1, *catalog.WINDOW)}, shapes, 18), path)
    return path
