"""Pictures of DLPE: the published overlay rule and panels, sections of the patient, captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dlpe_study import RANDOM, Study, make_study
from PIL import Image, ImageDraw

from hilum.catalog import dlpe as catalog
from hilum.preprocessing.reading.volume import Reorientation
from hilum.results.sheet import Sheet
from hilum.systems.dlpe import pictures
from hilum.systems.dlpe.files import write_pictures
from hilum.systems.dlpe.overlay import beside, ct_grey, enhanced_grey, further, panels
from hilum.systems.dlpe.sections import UPRIGHT, choose_sections, sides_of


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study()


def pixels_of(sheet: Any, path: Path) -> np.ndarray:
    sheet.save(path)
    return np.asarray(Image.open(path))


def near(pixels: np.ndarray, colour: tuple[int, int, int], far: int = 40) -> np.ndarray:
    return np.abs(pixels.astype(int) - colour).max(-1) <= far


def test_overlay_is_the_published_one(golden: Path) -> None:
    stored = np.load(golden / "dlpe" / "08_overlay.npz")
    grey, mask = stored["array"], stored["mask"]
    for colour in "RGBYAP":
        np.testing.assert_array_equal(beside(grey, mask, colour), stored[f"first_{colour}"])
    both = further(beside(grey, mask, "R"), stored["mask2"], "B")
    np.testing.assert_array_equal(both, stored["R_then_B"])
    pale = beside(grey, mask, "R", transparency=0.4)
    np.testing.assert_array_equal(pale, stored["R_transparency_0p4"])
    assert pale.dtype == np.float32


def test_grey_values_and_colours_of_the_specification() -> None:
    ct = np.array([-0.7, -0.5, -0.25, -0.1, 0, 0.25, 0.5, 0.9], np.float32)
    np.testing.assert_allclose(ct_grey(ct), [0, 0, 0.25, 0.4, 0.5, 0.75, 1, 1], atol=1e-7)
    enhanced = np.array([-0.05, -0.03, -0.025, 0, 0.05, 0.1, 0.175, 0.25], np.float32)
    np.testing.assert_allclose(
        enhanced_grey(enhanced), [0, 0, 0, 0.125, 0.375, 0.625, 1, 1], atol=1e-6
    )
    masks = np.array([[[1, 0, 1, 0]], [[0, 1, 1, 0]]], np.uint8)
    row = np.full((1, 4), 0.1, np.float32)
    shown = panels(row, masks[0], masks[1], row)
    np.testing.assert_array_equal(shown[0, 4:7], [[1, 0, 0], [0, 0, 1], [0, 0, 1]])
    assert shown.shape == (1, 12, 3)


def test_panels_are_the_slice_itself(study: Study, tmp_path: Path) -> None:
    result = study.result
    assert result.picture_slice == 250 * 64 // 512
    for z in (None, 40):
        chosen = replace(result, slice=z)
        level = chosen.picture_slice
        (tmp_path / str(z)).mkdir()
        files = write_pictures(chosen, tmp_path / str(z), RANDOM)
        assert files[0] == "panels.png"
        image = Image.open(tmp_path / str(z) / files[0])
        stored = np.asarray(image)
        assert stored.shape == (64, 3 * 64, 3)
        assert stored.dtype == np.uint8
        ct = np.clip(result.normalised.voxels[:, :, level].astype(np.float64) + 0.5, 0, 1) * 255
        assert np.abs(stored[:, :64] - ct[:, :, None]).max() <= 0.5 + 1e-4
        middle = stored[:, 64:128]
        airway, vessel = (result.masks[k][:, :, level] > 0 for k in ("airway", "vessel"))
        assert airway.any()
        assert (middle[airway] == (0, 0, 255)).all()
        assert (middle[vessel & ~airway] == (255, 0, 0)).all()
        rest = ~(airway | vessel)
        np.testing.assert_array_equal(middle[rest], stored[:, :64][rest])
        assert result.enhancement is not None
        e = result.enhancement.volume[:, :, level].astype(np.float64)
        right = 5 * np.clip(e + 0.025, 0, 0.2) * 255
        assert np.abs(stored[:, 128:] - right[:, :, None]).max() <= 0.5 + 1e-3
        said = image.info["Description"]
        assert "RANDOM WEIGHTS" in said
        assert "PREVIEW on a 64 grid" in said
        assert "Not a medical device" in said


def test_published_grid_shows_the_published_slice(study: Study) -> None:
    space = replace(study.result.normalised.space, shape=(16, 16, catalog.SIDE))
    normalised = replace(study.result.normalised, space=space)
    assert replace(study.result, normalised=normalised).picture_slice == 250


def test_sections_stand_upright(study: Study) -> None:
    result = study.result
    lung = result.masks["lung"]
    axial, long = choose_sections(lung, result.voxel_mm)
    levels = [s.index[2] for s in axial]
    assert levels == sorted(levels, reverse=True)  # from the head
    inside = np.flatnonzero(lung.any((0, 1)))
    assert inside[0] <= levels[-1] < levels[0] <= inside[-1]
    assert len(axial) == 12
    grid = np.indices(lung.shape)
    down, across = (axial[5].cut(g) for g in grid[:2])
    assert (np.diff(down, axis=0) == 1).all()  # to the back
    assert (np.diff(across, axis=1) == 1).all()  # to the patient's left
    coronal, *sagittal = long
    assert (np.diff(coronal.cut(grid[2]), axis=0) == -1).all()  # from the head
    assert (np.diff(coronal.cut(grid[1]), axis=1) == 1).all()
    for section, name in zip(sagittal, ("right", "left"), strict=True):
        assert (np.diff(section.cut(grid[0]), axis=1) == 1).all()  # the front is on the left
        assert section.caption == f"sagittal, {name} lung"
        assert section.cut(lung).mean() > 0.3
    assert (sagittal[0].index[1] < 32) & (sagittal[1].index[1] > 32)
    height, width = axial[0].size
    rows, columns = axial[0].cut(lung).shape
    assert height / rows == pytest.approx(result.voxel_mm[0])
    assert width / columns == pytest.approx(result.voxel_mm[1])


def test_sections_of_thin_and_of_empty_lungs() -> None:
    thin = np.zeros((16, 16, 16), np.uint8)
    thin[4:9, 3:13, 7:9] = 1
    axial, _ = choose_sections(thin, (1.0, 1.0, 1.0))
    assert [s.index[2] for s in axial] == [8, 7]
    axial, long = choose_sections(np.zeros((16, 16, 16), np.uint8), (1.0, 1.0, 1.0))
    assert len(axial) == 12
    assert len(long) == 3


@pytest.mark.parametrize("box", [(1, 1, 50), (1, 60, 1), (60, 1, 1), (1, 1, 1), (64, 64, 64)])
def test_odd_lungs_have_pictures_of_a_reasonable_size(
    study: Study, box: tuple[int, int, int], tmp_path: Path
) -> None:
    lung = np.zeros((64, 64, 64), np.uint8)
    lung[tuple(slice(0, n) for n in box)] = 1
    result = replace(study.result, masks={"lung": lung})
    height, width, _ = pixels_of(pictures.draw_tissues(result, ""), tmp_path / "odd.png").shape
    assert width == 1272
    assert 300 < height < 2600


def test_sides_are_those_of_the_patient_not_of_the_file() -> None:
    upside_down = Reorientation(flips=(False, False, True))  # columns run to the right
    published = make_study(turn=upside_down, slices=16, size=48).result
    # The phantom is no DICOM, so it comes in LPS order in both modes.
    assert sides_of(published.normalised) == UPRIGHT
    space = replace(published.normalised.space, reorientation=Reorientation())
    as_filed = replace(published.normalised, space=space)
    assert sides_of(as_filed) == ("AP", "LR", "FH")
    _, (coronal, first, second) = choose_sections(
        published.masks["lung"], (1.0, 1.0, 1.0), ("PA", "LR", "HF")
    )
    assert coronal.caption == "coronal, F above"
    assert (first.caption, second.caption) == (
        "sagittal, left lung, F above", "sagittal, right lung, F above",
    )  # fmt: skip
    assert coronal.sides == "LR"


def test_montage_shows_tissues_where_they_are(study: Study, tmp_path: Path) -> None:
    result = study.result
    bare = replace(result, masks={"lung": result.masks["lung"]})
    pair = []
    for number, shown in enumerate((result, bare)):
        pair.append(pixels_of(pictures.draw_tissues(shown, RANDOM), tmp_path / f"{number}.png"))
    assert near(pair[0], pictures.BLUE).sum() > 300
    assert near(pair[0], pictures.RED).sum() > 300
    assert near(pair[1], pictures.BLUE).sum() == near(pair[1], pictures.RED).sum() == 0
    assert near(pair[1], pictures.GREEN, 60).sum() > 3000  # the lungs' outlines remain
    marked = np.zeros_like(result.masks["lung"])
    axial, _ = choose_sections(result.masks["lung"], result.voxel_mm)
    x, y, level = axial[5].index
    assert isinstance(x, slice)
    assert isinstance(y, slice)
    row, column = (x.start + x.stop) // 2 - 6, y.start + 4  # in front, on the patient's right
    marked[row - 2 : row + 2, column - 2 : column + 2, level] = 1
    one = pixels_of(
        pictures.draw_tissues(replace(bare, masks={**bare.masks, "vein": marked}), RANDOM),
        tmp_path / "one.png",
    )
    ys, xs = np.nonzero((one != pair[1]).any(-1)[:-120])
    wide = y.stop - y.start
    # Second row, second column of the montage.
    left, scale = 24 + 308, 300 / wide
    assert abs(xs.mean() - (left + 4 * scale)) < scale
    height = round(300 * axial[0].size[0] / axial[0].size[1])
    top = 88 + height + 8
    assert abs(ys.mean() - (top + (row - x.start) * height / (x.stop - x.start))) < scale


def test_lesions_of_both_cohorts_are_distinguished(study: Study, tmp_path: Path) -> None:
    result = study.result
    lesion = result.masks["in_patient"]
    grown = cv2.dilate(lesion.reshape(64, -1), np.ones((3, 1), np.uint8)).reshape(lesion.shape)
    masks = {"lung": result.masks["lung"], "in_patient": lesion, "follow_up": grown}
    both = replace(result, masks=masks, cohort="both")
    shown = pixels_of(pictures.draw_enhanced(both, ""), tmp_path / "both.png")
    assert near(shown, pictures.PURPLE).sum() > 100
    none = replace(result, masks={"lung": result.masks["lung"]}, cohort="none")
    shown = pixels_of(pictures.draw_enhanced(none, ""), tmp_path / "none.png")
    assert near(shown, pictures.RED).sum() == 0


def test_captions_say_what_limits_a_result(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    written = list[str]()
    draw_text = ImageDraw.ImageDraw.text

    def keep(self: ImageDraw.ImageDraw, at: Any, text: str, *rest: Any, **more: Any) -> None:
        written.append(text)
        draw_text(self, at, text, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", keep)
    result = study.result
    window = "level {} HU, width {} HU".format(*result.window or ())
    for draw in (pictures.draw_panels, pictures.draw_tissues, pictures.draw_enhanced):
        written.clear()
        sheet = draw(result, RANDOM)
        assert isinstance(sheet, Sheet)
        said = " ".join(written)
        for text in (window, "parity", "RANDOM WEIGHTS", "PREVIEW on a 64 grid: not the published",
                     "Not a medical device"):  # fmt: skip
            assert text in said, (draw, text)
        written.clear()
        assert draw(replace(result, preview=False), "") is not None
        assert not [text for text in written if "PREVIEW" in text or "RANDOM" in text]


def test_no_lung_has_pictures_of_the_ct_alone(study: Study, tmp_path: Path) -> None:
    empty = np.zeros_like(study.result.masks["lung"])
    lost = replace(
        study.result, masks={"lung": empty}, enhancement=None, flags=("no_lung",), cohort="none"
    )
    files = write_pictures(lost, tmp_path, "")
    assert files == ["panels.png", "slice.png", "montage.png"]
    assert (np.asarray(Image.open(tmp_path / files[0]))[:, 128:] == 0).all()
