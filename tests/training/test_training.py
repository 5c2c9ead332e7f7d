"""Training from nothing: the same twice, resumable, and published as exports read it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import InputError, WeightsError
from hilum.export import reference
from hilum.export.recipes import recipe
from hilum.preprocessing.phantoms.xray import chest_xray
from hilum.training import cts, dlpe, fields, open_xrays, plan, xrays
from hilum.training.loop import Lesson, Phase, train


def drawn(rng: np.random.Generator, side: int, count: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    images = torch.from_numpy(rng.standard_normal((count, 1, side, side), np.float32))
    return images, ((images > 0).float(),)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))


def missed(out: Tensor, truth: tuple[Tensor, ...]) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(out, truth[0])


LESSON = Lesson("toy", network, drawn, missed, (Phase(8, 4, 20), Phase(16, 2, 12)), rate=0.05)  # pyright: ignore


def test_a_stopped_training_goes_on_as_if_it_never_stopped(tmp_path: Path) -> None:
    whole = train(LESSON, 3, tmp_path / "whole").state_dict()

    def stop(done: int, steps: int, loss: float) -> None:
        if done == 27:  # two steps after a checkpoint
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(LESSON, 3, tmp_path / "parts", stop)
    steps = list[int]()
    resumed = train(LESSON, 3, tmp_path / "parts", lambda done, *_: steps.append(done))
    assert steps == list(range(26, 33))
    assert all(torch.equal(resumed.state_dict()[name], whole[name]) for name in whole)


def test_a_training_learns_and_depends_on_its_seed(tmp_path: Path) -> None:
    losses = list[float]()
    first = train(LESSON, 3, tmp_path / "3", lambda _done, _steps, loss: losses.append(loss))
    assert losses[-1] < 0.7 * losses[0]
    other = train(LESSON, 4, tmp_path / "4")
    assert not torch.equal(first.state_dict()["0.weight"], other.state_dict()["0.weight"])


def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    train(LESSON, 3, tmp_path)
    with pytest.raises(WeightsError, match="another"):
        train(LESSON, 4, tmp_path)
    with pytest.raises(WeightsError, match="another"):
        train(dataclasses.replace(LESSON, rate=0.1), 3, tmp_path)


def test_a_network_starts_from_its_parent_once_that_is_trained(tmp_path: Path) -> None:
    child = dataclasses.replace(LESSON, name="child", parent="toy", phases=(Phase(8, 4, 1),))
    with pytest.raises(WeightsError, match="toy is not trained in"):
        train(child, 3, tmp_path)

    def stop(done: int, steps: int, loss: float) -> None:
        if done == 27:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(LESSON, 3, tmp_path, stop)
    with pytest.raises(WeightsError, match="toy is not trained in"):
        train(child, 3, tmp_path)
    parent = train(LESSON, 3, tmp_path).state_dict()
    still = train(dataclasses.replace(child, rate=0.0), 3, tmp_path).state_dict()
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        assert torch.equal(still[name], parent[name])


def test_harder_xrays_are_the_same_for_the_same_seed() -> None:
    made = xrays.synthetic(1, 2)
    views = [
        xrays.varied(made.pixels[0], made.labels[0], np.random.default_rng(5), side=96)
        for _ in range(2)
    ]
    assert np.array_equal(views[0][0], views[1][0])
    assert np.array_equal(views[0][1], views[1][1])
    assert views[0][0].dtype == np.uint8
    assert set(np.unique(made.labels)) <= {0, xrays.LUNG, xrays.LUNG | xrays.DISEASE}
    assert not np.array_equal(made.pixels[0], made.pixels[1])


def test_seventeen_public_xrays_are_held_out(shared: Path) -> None:
    folder = shared / "data" / "cxr-hannover-ccby"
    assert len(open_xrays.HELD_OUT) == len(set(open_xrays.HELD_OUT)) == 17
    assert len(open_xrays.read(folder, held_out=True)) == 17
    assert len(open_xrays.read(folder, held_out=False)) == 60


@pytest.mark.parametrize("left", [12, 60, 99])
def test_a_mask_is_put_back_where_its_edges_fit(tmp_path: Path, left: int) -> None:
    """As the public collection has it: of a square, but stretched over the whole X-ray."""
    made = chest_xray(7, height=400, width=500)
    square = made.lung[:, left : left + 400]
    stretched = cv2.resize(square * np.uint8(255), (500, 400), interpolation=cv2.INTER_NEAREST)
    for name, plane in (("images", made.pixels), ("lung_masks", stretched)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "one.png"), plane)
    (labels,) = open_xrays.read(tmp_path, held_out=False).labels
    known = labels & xrays.UNKNOWN == 0
    columns = np.flatnonzero(known.any(axis=0)) * 500 / xrays.SIDE
    assert columns[[0, -1]] == pytest.approx([left, left + 400], abs=4)
    truth = cv2.resize(made.lung, (xrays.SIDE,) * 2, interpolation=cv2.INTER_NEAREST)
    assert np.mean((labels == xrays.LUNG)[known] != truth[known]) < 0.03


def test_a_folder_without_the_public_xrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the public X-rays"):
        open_xrays.read(tmp_path, held_out=False)


def test_chests_have_vessels_and_airways_of_about_the_published_shares() -> None:
    made = cts.chest(1, 96)
    lung = np.count_nonzero(made.labels & cts.LUNG)
    assert 0.05 < np.count_nonzero(made.labels & cts.VESSEL) / lung < 0.12
    assert 0.012 < np.count_nonzero(made.labels & cts.AIRWAY) / lung < 0.04
    assert -900 < made.healthy < -800
    for task, truth in (("airway2", cts.AIRWAY), ("vessel2", cts.VESSEL)):
        recall, precision = (made.labels & bit > 0 for bit in cts.CHANNELS[task])
        assert recall[made.labels & truth > 0].mean() > 0.6
        assert (made.labels[precision] & truth > 0).mean() > 0.6


@pytest.mark.parametrize("task", ["lung", "airway2", "in_patient"])
def test_a_network_of_dlpe_sees_what_its_task_declares(task: str) -> None:
    chests = {64: [cts.chest(2, 64)]}
    lesson = dlpe.lesson(task, "x", chests, (Phase(64, 2, 1),))
    images, (truth,) = lesson.draw(np.random.default_rng(0), 64, 2)
    channels = {"lung": 5, "airway2": 5, "in_patient": 3}[task]
    assert tuple(images.shape) == (2, channels, 64, 64)
    assert tuple(truth.shape) == (2, 1, 64, 64)
    assert lesson.build()(images)[0].shape == (2, 2, 64, 64)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_lungs_that_a_scan_leaves_out_are_not_asked_for(axis: int) -> None:
    rng, sizes = np.random.default_rng(axis), set[int]()
    hu = np.full((5, 64, 64), 40, np.float32)
    lung = np.zeros((64, 64), bool)
    lung[16:48, 12:52] = True
    hu[:, lung] = -850
    for _ in range(40):
        planes, left = fields.seen(hu, lung, axis, rng)
        assert planes.shape == hu.shape and planes.dtype == np.float32
        assert np.median(planes[:, left]) == pytest.approx(-850, abs=1)
        sizes.add(int(left.sum()))
    assert min(sizes) < 0.7 * lung.sum() < lung.sum() < max(sizes)


@pytest.mark.parametrize(
    ("system", "name"),
    [pytest.param("cxr-severity", "pspnet", marks=pytest.mark.load), ("dlpe", "vessel2_z")],
)
def test_a_small_training_is_published_as_exports_read_it(
    system: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = list[str]()
    chosen = plan.Plan(
        system, tmp_path / "checkpoints", [name], publish=tmp_path / "weights", small=True
    )
    plan.run(chosen, lambda what, *_: steps.append(what))
    assert name in steps
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "weights")
    assert reference.reference_networks(SYSTEMS[system]) == [name]
    tensors, card = reference.load_reference(system, name)
    core = recipe(SYSTEMS[system]).build(SYSTEMS[system].network(name), tensors)
    core.load_state_dict(tensors)
    assert card.source == "reference weights (seed 1)"
    page = (tmp_path / "weights" / system / f"{name}.md").read_text()
    assert f"hilum train {system}" in page
    assert str(tmp_path) not in page
    file = tmp_path / "weights" / system / f"{name}.safetensors"
    assert file.stat().st_size < 1_500_000  # what the network does not use is left out
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsError, match="sha256 differs"):
        reference.load_reference(system, name)


def test_networks_without_a_lesson_are_named() -> None:
    with pytest.raises(InputError, match="nothing is trained for lungmask"):
        plan.networks_of("lungmask")


def test_lesions_are_learnt_with_masks_of_trees_a_voxel_too_narrow_and_too_wide() -> None:
    """So that what is left of a vessel is not taken for a lesion."""
    labels = np.full((1, 32, 32), cts.LUNG, np.uint8)
    labels[0, 8:18, 8:18] |= cts.VESSEL
    shown = {_left_out(labels, seed) for seed in range(40)}
    assert {64, 100, 140} <= shown  # without its rim, as it is, with another voxel around
    assert min(shown) >= 60  # a thick branch is never missed, but for its corners


def test_lesions_are_learnt_where_thin_branches_are_missed() -> None:
    labels = np.full((1, 32, 32), cts.LUNG, np.uint8)
    labels[0, 8:10] |= cts.VESSEL
    shown = {_left_out(labels, seed) for seed in range(40)}
    assert {0, 64, 128} <= shown  # whole, as above
    assert len([n for n in shown if 0 < n < 64]) > 2  # parts of it are missed


def _left_out(labels: NDArray[np.uint8], seed: int) -> int:
    """Voxels of an enhanced volume that are 0 because of trees."""
    raised = np.full(labels.shape, 0.1, np.float32)
    return int((dlpe._enhanced(raised, labels, 0.0, np.random.default_rng(seed)) == 0).sum())
