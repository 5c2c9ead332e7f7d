"""Pictures of COVID-MTL: where lungs, boxes, letters and bars are drawn."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilum.catalog.covid_mtl import CROP, WINDOW, WINDOW_START
from hilum.catalog.covid_mtl_features import FEATURES
from hilum.postprocessing.covid_mtl import answer
from hilum.preprocessing.covid_mtl.pipeline import Prepared, prepare_lungs
from hilum.preprocessing.covid_mtl.radiomics import scale, scaling
from hilum.preprocessing.reading.volume import Geometry
from hilum.results.canvas import AMBER, BACKGROUND, DISCLAIMER, GREY
from hilum.results.sections import Rect
from hilum.results.sheet import Sheet
from hilum.systems.covid_mtl import pictures
from hilum.systems.covid_mtl.result import CovidMtlResult

NOTE = "RANDOM WEIGHTS: not the published networks, the result means nothing."

SHAPE = (80, 420, 120)
LUNG = (slice(30, 60), slice(150, 190), slice(20, 50))
"""On the patient's right, below the middle, in front; a scan with more rows than the box has."""

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))

PROBABILITIES = {
    "ct": np.array([0.25, 0.75], np.float32),
    "nat": np.array([0.4, 0.6], np.float32),
    "severity": np.array([0.1, 0.7, 0.2], np.float32),
}


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    stored = np.full(SHAPE, 1064, np.uint16)
    stored[LUNG] = 200
    mask = np.zeros(SHAPE, np.uint8)
    mask[LUNG] = 1
    geometry = Geometry(SHAPE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), AXES)
    return replace(prepare_lungs(stored, mask), geometry=geometry)


def result_of(prepared: Prepared, **changed: Any) -> CovidMtlResult:
    features = scaling().mean
    given: dict[str, Any] = {
        "study": "80 slices", "mode": "parity", "network": "dual", "placement": "client",
        "probabilities": PROBABILITIES, "answers": answer(PROBABILITIES), "prepared": prepared,
        "features": features, "scaled": scale(features), "seconds": {"total": 1.0}, "flags": (),
        "notes": (), "transport": "shm",
    }  # fmt: skip
    return CovidMtlResult(**(given | changed))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, float], Any]]:
    """Everything that sheets write, with place and colour."""
    found: list[tuple[str, tuple[float, float], Any]] = []
    write, begin = Sheet.text, Sheet.__init__

    def text(self: Sheet, at: tuple[float, float], text: str, **how: Any) -> int:
        found.append((text, at, how.get("colour")))
        return write(self, at, text, **how)

    def init(self: Sheet, *size: int, **words: Any) -> None:
        found.extend((str(words[name]), (0, 0), None) for name in ("title", "subtitle", "note"))
        begin(self, *size, **words)

    monkeypatch.setattr(Sheet, "text", text)
    monkeypatch.setattr(Sheet, "__init__", init)
    return found


def near(pixels: np.ndarray, colour: tuple[int, int, int], far: int = 24) -> np.ndarray:
    return np.abs(pixels.astype(int) - colour).max(-1) <= far


def shown(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row, and first and last column."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return rows[0], rows[-1], columns[0], columns[-1]


def painted(prepared: Prepared, title: str) -> np.ndarray:
    """A section with one pixel for each voxel, framed in more of them than the scan has."""
    section = next(s for s in pictures.choose(prepared) if s.title == title)
    return pictures.paint(prepared, section, Rect(0, 0, section.size[1], section.size[0]))


# --- where sections lie ---------------------------------------------------------------------------


def test_sections_show_most_of_the_lungs(prepared: Prepared) -> None:
    mask = prepared.lungs.mask.copy()
    mask[40, 150:250, 20:90] = 1  # most in slice 40; then rows 150… and columns 20… have most
    mask[30:60, 170, 20:50] = 0
    changed = replace(prepared, lungs=replace(prepared.lungs, mask=mask))
    coronal, axial, sagittal = pictures.choose(changed)
    assert (axial.across, axial.at) == (0, 40)
    assert (coronal.across, coronal.at) == (1, 150)
    assert (sagittal.across, sagittal.at) == (2, 20)


def test_scan_and_box_are_both_shown(prepared: Prepared) -> None:
    # The scan is 420 rows deep, the box 390; along the other axes the box is larger.
    sizes = {s.title: s.size for s in pictures.choose(prepared)}
    assert sizes == {"coronal": (340, 390), "axial": (420, 390), "sagittal": (340, 420)}
    assert pictures.box_start(SHAPE) == (-130, 15, -135)


def test_sections_have_one_scale_and_one_lower_edge(prepared: Prepared) -> None:
    sections = pictures.choose(prepared)
    rects = pictures.places(sections)
    scales = [r.width / s.size[1] for r, s in zip(rects, sections, strict=True)]
    scales += [r.height / s.size[0] for r, s in zip(rects, sections, strict=True)]
    assert scales == pytest.approx([scales[0]] * 6, rel=0.01)
    assert len({r.bottom for r in rects}) == 1
    assert rects[-1].right == pytest.approx(pictures.WIDTH, abs=1)
    for left, right in itertools.pairwise(rects):
        assert right.left - left.right == pytest.approx(pictures.GAP, abs=1)


# --- what is painted where ------------------------------------------------------------------------


def test_lungs_are_tinted_where_they_are(prepared: Prepared) -> None:
    """The box begins at voxel (-130, 15, -135); the picture with the smaller of that and 0."""
    z, y, x = LUNG
    for title, rows, columns in (
        ("axial", (y.start, y.stop), (x.start + 135, x.stop + 135)),
        ("coronal", (340 - 130 - z.stop, 340 - 130 - z.start), (x.start + 135, x.stop + 135)),
        ("sagittal", (340 - 130 - z.stop, 340 - 130 - z.start), (y.start, y.stop)),
    ):
        picture = painted(prepared, title)
        top, bottom, left, right = shown(near(picture, pictures.LUNG))
        assert (top, bottom + 1) == pytest.approx(rows, abs=1), title
        assert (left, right + 1) == pytest.approx(columns, abs=1), title
        # Inside the contour: 28 % of the colour over the grey of 200 - 1024 HU.
        middle = picture[sum(rows) // 2, sum(columns) // 2].astype(int)
        grey = (200 - 1024 + 1350) * 255 / 1500
        wanted = [grey * 0.72 + c * 0.28 for c in pictures.LUNG]
        assert middle == pytest.approx(wanted, abs=2), title


def test_what_is_no_scan_is_dark(prepared: Prepared) -> None:
    axial = painted(prepared, "axial")
    assert near(axial[:, 10:130], BACKGROUND, 2).mean() > 0.95  # the box alone: its outline
    assert not near(axial[:, 140:250], BACKGROUND, 40).any()


@pytest.mark.parametrize(
    ("colour", "start", "size"),
    [
        (pictures.BOX, (0, 0, 0), CROP),
        (pictures.SEEN, WINDOW_START, WINDOW),
    ],
    ids=["box", "window"],
)
def test_boxes_are_outlined(
    prepared: Prepared, colour: Any, start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    _, y, x = (a + b for a, b in zip(pictures.box_start(SHAPE), start, strict=True))
    top, bottom, left, right = shown(near(painted(prepared, "axial"), colour, 2))
    assert (top, bottom + 1) == (pytest.approx(y, abs=1), pytest.approx(y + size[1], abs=1))
    assert (left, right + 1) == (
        pytest.approx(x + 135, abs=1), pytest.approx(x + 135 + size[2], abs=1),
    )  # fmt: skip
    # In a coronal section the head is above: rows count from the end of the box.
    top, bottom, *_ = shown(near(painted(prepared, "coronal"), colour, 2))
    above = CROP[0] - start[0] - size[0]
    assert (top, bottom + 1) == (
        pytest.approx(above, abs=1), pytest.approx(above + size[0], abs=1),
    )  # fmt: skip


def test_no_window_where_a_section_misses_it(prepared: Prepared) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[30:60, 20:40, 20:50] = 1  # the window begins at row 85
    changed = replace(prepared, lungs=replace(prepared.lungs, mask=mask))
    assert not near(painted(changed, "coronal"), pictures.SEEN, 2).any()
    assert near(painted(changed, "coronal"), pictures.BOX, 2).any()
    assert near(painted(changed, "axial"), pictures.SEEN, 2).any()


# --- the whole picture ----------------------------------------------------------------------------


def test_the_picture_names_sides_and_doubts(
    prepared: Prepared, said: list[Any], tmp_path: Path
) -> None:
    flags, notes = ("one_lung", "truncated_window"), ("0.04 l of lung",)
    drawn = pictures.draw_lungs(result_of(prepared, flags=flags, notes=notes), NOTE)
    drawn.save(tmp_path / "lungs.png")
    assert drawn.size[0] > pictures.WIDTH
    texts = [text for text, *_ in said]
    assert [t for t in texts if len(t) == 1] == list("RLHF") + list("RLAP") + list("APHF")
    places = {text: at for text, at, _ in said if len(text) == 1}
    assert places["R"][0] < places["L"][0]
    assert places["H"][1] < places["F"][1]
    assert {NOTE, "100 mm", "one lung; truncated window", "0.04 l of lung"} < set(texts)
    assert "Lungs 36 ml" in texts
    share = 100 * prepared.window_share
    assert any(f": {share:g} % of those" in t for t in texts)
    pixels = np.asarray(drawn)
    sections = pictures.choose(prepared)
    rect = pictures.places(sections)[1]
    bar = shown((pixels == 255).all(-1)[: 88 + rect.bottom, 24 + rect.left : 24 + rect.right])
    assert bar[3] - bar[2] + 1 >= 100 * rect.width / sections[1].size[1] - 1


def test_a_scan_that_lies_otherwise_is_named_so(prepared: Prepared, said: list[Any]) -> None:
    turned = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))
    geometry = Geometry(SHAPE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), turned)
    pictures.draw_lungs(result_of(replace(prepared, geometry=geometry)), NOTE)
    letters = [text for text, *_ in said if len(text) == 1]
    assert letters[:4] == ["L", "R", "F", "H"]  # left, right, above, below of the coronal section
    said.clear()
    pictures.draw_lungs(result_of(replace(prepared, geometry=None)), NOTE)
    assert not [text for text, *_ in said if len(text) == 1]


# --- the chart ------------------------------------------------------------------------------------


def bars(drawn: Any) -> list[tuple[tuple[int, int, int], int]]:
    """Colour and length of the bars from above."""
    pixels = np.asarray(drawn)
    column = pixels[:, 24 + pictures.NAMES + 2]
    found, before = [], None
    for y, pixel in enumerate(column):
        colour = next((c for c in (pictures.TAKEN, pictures.OTHER) if tuple(pixel) == c), None)
        if colour is not None and before is None:
            row = pixels[y + 4, 24 + pictures.NAMES :]
            found.append((colour, int((row == colour).all(-1).sum())))
        before = colour
    return found


def test_bars_are_as_long_as_probabilities(prepared: Prepared, said: list[Any]) -> None:
    drawn = pictures.draw_answers(result_of(prepared), NOTE)
    values = [float(p) for head in PROBABILITIES.values() for p in head]
    taken, other = pictures.TAKEN, pictures.OTHER
    found = bars(drawn)
    assert [length for _, length in found] == [round(pictures.BARS * v) for v in values]
    assert [colour for colour, _ in found] == [other, taken, other, taken, other, taken, other]
    texts = [text for text, *_ in said]
    assert "CT positive; nucleic-acid test positive; severity mild or regular" in texts
    assert [t for t in texts if t.startswith("0.")] == [f"{v:.3f}" for v in values]
    assert "nucleic-acid test and severity agree" in texts
    assert "375 radiomic features, computed by the client" in texts
    assert NOTE in texts


def test_doubts_stand_below_the_bars(prepared: Prepared, said: list[Any]) -> None:
    probabilities = {**PROBABILITIES, "nat": np.array([0.7, 0.3], np.float32)}
    features = scaling().mean.copy()
    features[:5] = np.nan
    features[FEATURES.index("Energy")] = np.nan
    features[-1] = 1e30
    given = result_of(
        prepared, probabilities=probabilities, answers=answer(probabilities), features=features,
        scaled=scale(features), flags=("imputed_features", "inconsistent"),
    )  # fmt: skip
    pictures.draw_answers(given, NOTE)
    amber = [text for text, _, colour in said if colour == AMBER]
    assert amber[0] == "the nucleic-acid test and the severity contradict each other"
    assert amber[1].startswith("5 not computable, means of the published cases instead: 10Perc")
    assert amber[1].endswith("and 2 more")
    assert amber[2] == f"1 far outside the published cases, limited: {FEATURES[-1]}"
    assert amber[3] == "imputed features; inconsistent"


def test_a_network_of_one_question_without_features(prepared: Prepared, said: list[Any]) -> None:
    given = result_of(
        prepared, network="nat", placement="none", probabilities={"nat": PROBABILITIES["nat"]},
        answers=None, features=None, scaled=None,
    )  # fmt: skip
    drawn = pictures.draw_answers(given, NOTE)
    assert len(bars(drawn)) == 2
    grey = [text for text, _, colour in said if colour == GREY]
    assert "this network takes no radiomic features" in grey
    assert "one question only: nothing to compare the answer with" in grey
    assert "Nucleic-acid test positive" in [text for text, *_ in said]


def test_pictures_carry_the_disclaimer(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn: without it the pictures differ."""
    for draw in (pictures.draw_lungs, pictures.draw_answers):
        drawn = np.asarray(draw(result_of(prepared), NOTE))
        with monkeypatch.context() as patch:
            patch.setattr("hilum.results.sheet.DISCLAIMER", " " * len(DISCLAIMER))
            without = np.asarray(draw(result_of(prepared), NOTE))
        assert (drawn != without).any()
