"""The ten networks: published names and shapes, padding, strict loading."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from hilum.catalog import cxr_severity as catalog
from hilum.export.systems.cxr_severity import checkpoint as checkpoints
from hilum.export.systems.cxr_severity import network as cxr

NAMES = [network.name for network in catalog.SYSTEM.networks]

Rows = dict[str, list[tuple[str, tuple[int, ...], str]]]


@pytest.fixture(scope="module")
def published(golden: Path) -> Rows:
    """Name, shape and element type of every tensor of the ten published checkpoints."""
    names = {cxr.parts(name): name for name in NAMES if name != "lung"}
    rows: Rows = defaultdict(list)
    with gzip.open(golden / "cxr" / "state_dict_keys.tsv.gz", "rt") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            parts = row["network"], row["encoder"]
            stage_one = row["stage"] == "lungs"
            name = "lung" if stage_one and parts == cxr.parts("lung") else names.get(parts)
            if name is not None and stage_one == (name == "lung"):
                shape = () if row["shape"] == "scalar" else tuple(map(int, row["shape"].split("x")))
                rows[name].append((row["key"], shape, row["dtype"]))
    return rows


def published_file(rows: list[tuple[str, tuple[int, ...], str]], path: Path) -> Path:
    """A checkpoint of the published layout; each tensor is one zero, repeated."""
    path.parent.mkdir(parents=True)
    zeros = {
        key: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)
        for key, shape, dtype in rows
    }
    torch.save(zeros, path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_the_published_ones(name: str, published: Rows) -> None:
    ours = [
        (cxr.published_name(name, key), tuple(t.shape), str(t.dtype).removeprefix("torch."))
        for key, t in cxr.skeleton(name).state_dict().items()
    ]
    assert ours == published[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_published_state_dict_loads_strictly(name: str, published: Rows, tmp_path: Path) -> None:
    architecture, encoder = cxr.parts(name)
    stage = "models_lungs" if name == "lung" else "models_covid"
    folder = tmp_path / stage / f"{architecture}_{encoder}_imagenet_050921_1102"
    published_file(published[name], folder / "weights.pth")
    (found,) = checkpoints.find(tmp_path)
    assert found.network == name
    assert found.source == folder.name
    core = cxr.build(name)
    core.load_state_dict(dict(found.read()), strict=True)
    assert not any(p.any() for p in core.parameters())


def paddings(name: str) -> dict[int, tuple[int, ...] | None]:
    """Zeros around the input of each strided depthwise convolution, by block."""
    blocks = cxr.build(name).network.encoder._blocks  # pyright: ignore
    return {
        number: tuple(block._depthwise_conv.static_padding.padding)
        for number, block in enumerate(blocks)
        if tuple(block._depthwise_conv.stride) == (2, 2)
    }


def test_strided_blocks_pad_as_published() -> None:
    # b2 in DeepLabV3: blocks 8 and 16 are dilated, block 5 is where SMP differs (spec cxr §12.3).
    assert paddings("deeplabv3") == {2: (0, 1, 0, 1), 5: (1, 2, 1, 2)}
    assert paddings("pspnet") == {
        1: (0, 1, 0, 1), 3: (1, 2, 1, 2), 5: (0, 1, 0, 1), 11: (1, 2, 1, 2)
    }  # fmt: skip


def test_padding_matters_where_the_library_differs() -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    ours = cxr.build("deeplabv3")
    plain = smp.DeepLabV3(
        "efficientnet-b2",
        encoder_weights=None,
        in_channels=3,
        classes=1,
        activation="sigmoid",
        aux_params=dict(cxr.GATE),
    ).eval()
    plain.load_state_dict(ours.network.state_dict())
    image = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        a, b = ours.network.encoder(image)[-1], plain.encoder(image)[-1]  # pyright: ignore
    assert a.shape == b.shape
    assert (a - b).abs().max() > 0.1 * a.std()


@pytest.mark.parametrize("name", ["lung", "pspnet"])
def test_a_core_gives_probabilities(name: str) -> None:
    core = cxr.build(name)
    with torch.inference_mode():
        outputs = core(torch.randn(2, 3, 96, 96))
    assert [tuple(o.shape) for o in outputs] == [(2, 1, 96, 96), (2, 1)][: len(outputs)]
    assert len(outputs) == (1 if name == "lung" else 2)
    assert all(o.min() >= 0 and o.max() <= 1 for o in outputs)
