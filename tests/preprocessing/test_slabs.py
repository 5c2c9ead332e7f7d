"""Slabs: every published sample is in one, and no slice with the same input is cut twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hilum.catalog.dlpe import DIRECTIONS, W3, W5, Direction
from hilum.preprocessing.dlpe.slabs import Slab, add, cut, plan, same_inputs, slices_first

SHAPE = {"x": 0, "y": 1, "z": 2}


def whole(length: int, direction: Direction, parts: int) -> Iterator[Slab]:
    edges = [length * k // parts for k in range(parts + 1)]
    for a, b in pairwise(edges):
        yield Slab(direction, a, b)


def windows(slab: np.ndarray, offsets: tuple[int, ...], margin: int) -> np.ndarray:
    """What a network gathers from a slab: [S, H, W, C]."""
    count = len(slab) - 2 * margin
    return np.stack([slab[margin + w : margin + w + count] for w in offsets], axis=-1)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("key", "offsets"), [("w5", W5), ("w3", W3), ("w3e2", W3)])
@pytest.mark.parametrize(("margin", "parts"), [(5, 1), (5, 3), (8, 2)])
def test_every_published_sample_is_in_a_slab(
    golden: Path, direction: Direction, key: str, offsets: tuple[int, ...], margin: int, parts: int
) -> None:
    stored = np.load(golden / "dlpe" / "03_slicing.npz")
    volume, wanted = stored["volume"], stored[f"{key}_{direction.upper()}"]
    samples = []
    for slab in whole(volume.shape[SHAPE[direction]], direction, parts):
        sample = windows(cut(volume[..., 0], slab, margin), offsets, margin)
        if key == "w3e2":
            channels = [cut(volume[..., c], slab) for c in (1, 2)]
            sample = np.concatenate([sample, np.stack(channels, -1)], axis=-1)
        samples.append(sample)
    np.testing.assert_array_equal(np.concatenate(samples), wanted)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_slabs_are_contiguous_and_of_the_type_of_the_wire(direction: Direction) -> None:
    volume = np.random.default_rng(0).normal(size=(6, 7, 12)).astype(np.float32)
    slab = cut(volume, Slab(direction, 2, 3), 3, np.float16)
    assert slab.flags.c_contiguous
    assert slab.dtype == np.float16
    np.testing.assert_array_equal(slab[0], 0)
    np.testing.assert_array_equal(slab[1:], slices_first(volume, direction)[:6].astype(np.float16))
    assert cut(volume > 0, Slab(direction, 0, 2)).dtype == bool


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_outputs_come_back_to_their_slices(direction: Direction) -> None:
    volume = np.random.default_rng(1).random((6, 7, 12), np.float32)
    total = np.zeros_like(volume)
    for slab in whole(volume.shape[SHAPE[direction]], direction, 3):
        add(total, slab, cut(volume, slab))
    np.testing.assert_array_equal(total, volume)
    slices = slices_first(total, direction)
    slices[:] = 0
    add(total, Slab(direction, 1, 3, {2: (0, 5)}), np.stack([slices[0] + 1, slices[0] + 2]))
    assert slices[:6, 0, 0].tolist() == [2, 1, 2, 0, 0, 2]


def padded() -> np.ndarray:
    """Noise in the middle of a fill, which is not the value outside the volume."""
    volume = np.full((20, 24, 60), 0.375, np.float32)
    volume[3:, :, 25:40] = np.random.default_rng(2).random((17, 24, 15))
    return volume


@pytest.mark.parametrize("window", [W3, W5, (-5, -2, -1, 0, 1, 2, 5)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_same_input_is_computed_once(direction: Direction, window: tuple[int, ...]) -> None:
    volume = padded()
    channel = np.zeros(volume.shape, np.uint8)
    channel[:, 3:20, 50:52] = 1
    channel[:, :, 52] = 1
    length = volume.shape[SHAPE[direction]]
    margin = max(window)
    inputs = windows(cut(volume, Slab(direction, 0, length), margin), window, margin)
    for channels in ((), (channel,)):
        seen = inputs
        if channels:
            own = cut(channel, Slab(direction, 0, length)).astype(np.float32)
            seen = np.concatenate([inputs, own[..., None]], axis=-1)
        same = same_inputs(volume, direction, window, channels)
        first: dict[bytes, int] = {}
        for i in range(length):
            constant = (seen[i] == seen[i, :1, :1]).all()
            want = first.setdefault(seen[i].tobytes(), i) if constant else i
            assert same[i] == want
    if direction == "z":
        assert len(set(same.tolist())) < 45


def test_the_plan_takes_each_wanted_slice_once() -> None:
    volume = padded()
    wanted = np.ones(60, bool)
    wanted[[0, 1, 30]] = False
    same = same_inputs(volume, "z", W5)
    slabs = plan("z", wanted, same, 4)
    computed = [i for s in slabs for i in range(s.start, s.stop)]
    copies = [i for s in slabs for c in s.copies.values() for i in c]
    assert sorted(computed + copies) == np.flatnonzero(wanted).tolist()
    assert len(computed) == len(set(same[wanted].tolist()))
    assert max(map(len, slabs)) <= 4
    assert sum(s.settled for s in slabs) == wanted.sum()
    for slab in slabs:
        for source, others in slab.copies.items():
            assert slab.start <= source < slab.stop
            assert {int(same[i]) for i in others} == {int(same[source])}


def test_slabs_of_a_run_are_about_as_long() -> None:
    same = np.arange(40)
    assert [len(s) for s in plan("x", np.ones(40, bool), same, 16)] == [13, 13, 14]
    assert plan("x", np.zeros(40, bool), same, 16) == []
