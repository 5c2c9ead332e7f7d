"""COVID-MTL's graphs through a server against PyTorch, in batches of one and two.

Nothing in a graph but its declared size depends on that of the volume, so volumes are small here;
the dual network is served at its full size in `test_covid_mtl_graphs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hilum.catalog import Network
from hilum.catalog import covid_mtl as catalog
from hilum.client import Client
from hilum.export.config import config_text
from hilum.export.declarations import write_declarations
from hilum.export.recipes import all_inputs
from hilum.export.systems.covid_mtl import random as covid_mtl_random
from hilum.export.systems.covid_mtl.recipe import RECIPE
from hilum.server.launcher import TritonServer

SMALL = (40, 48, 56)

NAMES = ["volume", "ct", "severity", "resnet_ct", "decovnet"]


@dataclass(frozen=True)
class Served:
    """A network with random weights, and a batch of two for it."""

    network: Network
    core: torch.nn.Module
    inputs: dict[str, NDArray[Any]]

    def scores(self) -> list[NDArray[np.float32]]:
        """Class scores of PyTorch."""
        with torch.inference_mode():
            found = self.core(*all_inputs(RECIPE.core_input(self.network, {}, self.inputs)))
        return [scores.numpy() for scores in found]


def small(name: str) -> Network:
    network = catalog.SYSTEM.network(name)
    if network.inputs[0].name != catalog.VOLUME.name:
        return network
    return replace(network, inputs=(replace(catalog.VOLUME, shape=SMALL),))


def two(network: Network) -> dict[str, NDArray[Any]]:
    """A synthetic scan and noise."""
    if network.inputs[0].name != catalog.VOLUME.name:
        study = covid_mtl_random.synthetic_study(1, (21, *catalog.DECOVNET_PLANE))
        noise = np.random.default_rng(2).random(study.shape, np.float32)
        return {"study": np.stack([study, noise])}
    scan = covid_mtl_random.synthetic_volume(1, SMALL)
    noise = np.random.default_rng(2).integers(0, 2001, SMALL).astype(np.float16)
    return {"volume": np.stack([scan, noise])}


@pytest.fixture(scope="module")
def everything() -> dict[str, Served]:
    torch.set_num_threads(1)
    made = {}
    for name in NAMES:
        network = small(name)
        made[name] = Served(network, RECIPE.build_random(network, 3)[0], two(network))
    return made


@pytest.fixture(scope="module")
def client(
    everything: dict[str, Served], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    repository: Path = tmp_path_factory.mktemp("mtl-served")
    write_declarations(repository, [catalog.SYSTEM])
    for served in everything.values():
        folder = repository / served.network.model
        (folder / "1").mkdir()
        model = RECIPE.wrap(RECIPE.to_onnx(served.core, 18), served.network, {})
        (folder / "1" / "model.onnx").write_bytes(model.SerializeToString())
        (folder / "config.pbtxt").write_text(config_text(served.network, {}))
    models = [served.network.model for served in everything.values()]
    with (
        TritonServer(repository, models=models, grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_a_server_gives_the_scores_of_pytorch(
    everything: dict[str, Served], client: Client, name: str
) -> None:
    """Scores are told by probabilities up to one constant for each head."""
    served = everything[name]
    names = [t.name for t in served.network.outputs]
    wanted = served.scores()
    for count in (1, 2):
        few = RECIPE.first(served.network, served.inputs, count)
        answer = client.infer(served.network.model, few, names)
        for output, scores in zip(names, wanted, strict=True):
            apart = centred(np.log(answer.outputs[output])) - centred(scores[:count])
            assert np.abs(apart).max() <= 1e-4, (output, count)
    assert all(np.abs(s[0] - s[1]).max() > 1e-4 for s in wanted)


def centred(scores: NDArray[Any]) -> NDArray[Any]:
    return scores - scores.mean(1, keepdims=True)
