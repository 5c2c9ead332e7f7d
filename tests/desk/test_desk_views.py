"""What a reader does with a result of DLPE in a real Chromium: volumes, surfaces, mouse, keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

import nibabel
import numpy as np
import pytest
import trimesh
from browsers import AXE, Browser
from desks import Caller, send, started

from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.server.launcher import TritonServer

pytestmark = pytest.mark.usefixtures("well_behaved")

SIDE = 128
"""Enough voxels for half the resolution, and as many as software WebGL shows soon."""


@pytest.fixture(scope="module")
def started_desk(
    tmp_path_factory: pytest.TempPathFactory, dlpe_server: TritonServer
) -> Iterator[tuple[Caller, str]]:
    with started(tmp_path_factory.mktemp("desk") / "state", dlpe_server.grpc_url) as found:
        yield found


@pytest.fixture(scope="module")
def job(
    started_desk: tuple[Caller, str], chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A CT that was sent and run through the page, with surfaces."""
    folder = tmp_path_factory.mktemp("ct")
    write_dicom_series(chest_ct(3, slices=SIDE, size=SIDE).volume, folder)
    page = chromium.begin(started_desk[1])
    files = sorted(folder.iterdir())
    found = send(page, started_desk[0], files, "dlpe", grid=64, meshes="true")
    page.until(lambda: page.all(f"#job-{found}.done"), 120)
    return found


@pytest.fixture
def page(started_desk: tuple[Caller, str], chromium: Browser, job: str) -> Browser:
    """The result, opened."""
    chromium.see(job, "ct")
    return chromium


def pressed(page: Browser, name: str) -> bool:
    return page.attribute(f"#view-{name}", "aria-pressed") == "true"


def place(page: Browser, view: str = "hilumView") -> np.ndarray:
    return np.array(page.js(f"return {view}.place()"))


def window(page: Browser) -> tuple[float, float]:
    level, width = (page.attribute(f"#window-{n}", "value") for n in ("level", "width"))
    return float(level), float(width)


def test_half_the_resolution_comes_first_and_the_whole_when_it_is_asked_for(page: Browser) -> None:
    shape = "return hilumView.nv.volumes.map((one) => one.dimsRAS.slice(1))"
    asked = {url.rpartition("/")[2] for _, url in page.requests()}
    assert {"ct-half.nii.gz", "masks-half.nii.gz"} <= asked
    assert not {"ct.nii.gz", "masks.nii.gz"} & asked
    assert page.js(shape) == [[SIDE // 2] * 3] * 2
    assert "Half resolution" in page.said("#note")
    coarse, before = page.picture(), place(page)
    page.press("#full")
    page.until(lambda: page.js("return document.documentElement.dataset.quality") == "full")
    assert page.js(shape) == [[SIDE] * 3] * 2
    assert page.said("#note") == ""
    assert not page.find("#full").is_displayed()
    assert np.abs(page.picture() - coarse).mean() > 0.5
    np.testing.assert_allclose(place(page), before, atol=3)


def test_the_window_follows_the_mouse_and_the_masks_have_their_colours(page: Browser) -> None:
    level, width = window(page)
    (note,) = {page.attribute("#view-optimal", "aria-pressed")}
    assert note == "true"  # the window that DLPE found comes first
    before = page.picture()
    page.drag("#ct", 60, 45, button=2)
    after = page.picture()
    assert window(page) != (level, width)
    assert not pressed(page, "optimal")
    assert np.abs(after - before).mean() > 0.3
    colours = page.js("return hilumView.scene.layers.map((one) => one.colour)")
    dots = [d.value_of_css_property("background-color") for d in page.all(".check .dot")]
    assert [list(map(int, re.findall(r"\d+", dot)[:3])) for dot in dots] == colours
    page.set("#opacity", 100)
    full = page.picture()
    page.set("#opacity", 0)
    assert np.ptp(page.picture(), axis=2).mean() < np.ptp(full, axis=2).mean() / 2
    page.set("#opacity", 50)
    page.press("#layer-lung")
    page.press("#masks")
    page.press("#masks")
    assert page.find("#layer-lung").is_selected()


def test_keys_do_what_radiologists_expect(page: Browser) -> None:
    shown = "return hilumView.nv.opts.sliceType"
    kinds = {"1": ("axial", 0), "2": ("coronal", 1), "3": ("sagittal", 2), "4": ("render", 4),
             "5": ("multi", 3)}  # fmt: skip
    for key, (name, kind) in kinds.items():
        page.type("#ct", key)
        assert pressed(page, name)
        assert page.js(shown) == kind
    for key, name in {"l": "lung", "m": "mediastinum", "o": "optimal"}.items():
        page.type("#ct", key)
        assert pressed(page, name)
    page.type("#ct", "l")
    assert window(page) == (-600, 1500)
    page.type("#ct", " ")
    assert not page.find("#masks").is_selected()
    page.type("#ct", " ")
    before = page.said("#lesions tr.current")
    page.type("#ct", "n")
    assert page.said("#lesions tr.current") != before
    page.js("hilumView.go([2.8125, 2.8125, 147.65625])")  # the middle of a voxel
    for key, axis, name in (("1", 2, "axial"), ("2", 1, "coronal"), ("3", 0, "sagittal")):
        page.type("#ct", key)
        at = place(page)
        page.type("#ct", "\ue013")  # arrow up
        moved = place(page) - at
        assert moved[axis] > 1, name
        assert np.abs(np.delete(moved, axis)).max() < 1e-3
        page.type("#ct", "\ue015")  # arrow down
        np.testing.assert_allclose(place(page), at, atol=0.1)
    page.type("#ct", "f")
    page.until(lambda: page.js("return document.documentElement.dataset.quality") == "full")
    # Where somebody types, a letter is a letter.
    page.type("#window-level", "1")
    assert pressed(page, "sagittal")


def test_original_and_enhanced_stand_side_by_side_and_move_together(page: Browser) -> None:
    page.press("#beside")
    page.until(lambda: page.js("return Boolean(hilumView.linked)"))
    assert len(page.all(".pane canvas")) == 2
    names = page.js("return [hilumView, hilumView.linked].map((v) => v.nv.volumes[0].name)")
    assert names == ["ct-half.nii", "enhanced-half.nii"]
    left, right = page.picture("#ct"), page.picture("#second")
    assert right.std() > 10
    side = min(left.shape[1], right.shape[1])
    assert np.abs(left[:, :side] - right[:, :side]).mean() > 5
    for number in (1, 3):
        page.press(f"[data-lesion='{number}']")
        np.testing.assert_allclose(place(page), place(page, "hilumView.linked"), atol=0.5)
    page.press("#view-axial")
    assert page.js("return hilumView.linked.nv.opts.sliceType") == 0
    before = place(page)
    page.drag("#second", 25, 20)  # the other way round, by mouse
    assert np.abs(place(page) - before).max() > 1
    np.testing.assert_allclose(place(page), place(page, "hilumView.linked"), atol=0.5)
    if AXE.is_file():
        assert page.serious() == []
    page.press("#beside")
    assert len(page.all(".pane canvas")) == 1


def test_surfaces_are_shown_where_the_masks_are(page: Browser) -> None:
    page.press("#view-render")
    before = page.picture()
    page.press("#surfaces")
    page.until(lambda: page.js("return hilumView.nv.meshes.length"))
    assert page.all("#surfaces:checked")
    meshes = page.js("""return Object.fromEntries(hilumView.nv.meshes.map((one) =>
        [one.name, [[...one.extentsMin], [...one.extentsMax]]]))""")
    assert {"lung-right.stl", "lung-left.stl", "airway.stl"} <= set(meshes)
    low, high = np.array(list(meshes.values())).min(axis=0)[0], np.max(list(meshes.values()), 0)[1]
    corners = "return [[0, 0, 0], [1, 1, 1]].map((f) => [...hilumView.nv.frac2mm(f)].slice(0, 3))"
    box = np.sort(np.array(page.js(corners)), axis=0)
    coarse = 12  # mm: two voxels of the grid that was asked for, and the smoothing
    assert (low >= box[0] - coarse).all()
    assert (high <= box[1] + coarse).all()
    right, left = (np.mean(meshes[f"lung-{side}.stl"], axis=0)[0] for side in ("right", "left"))
    assert right < 0 < left  # in RAS
    assert np.abs(page.picture() - before).mean() > 3
    page.press("#surfaces")
    assert page.js("return hilumView.nv.meshes.length") == 0


def test_the_letters_say_the_sides_of_the_patient(page: Browser) -> None:
    """The right lung, whose place in the patient is known, is on the left of the picture."""
    page.press("#view-axial")
    assert page.js("return hilumView.nv.opts.isRadiologicalConvention")
    assert page.js("return hilumView.nv.opts.isOrientationTextVisible")
    box = "return document.getElementById('ct').getBoundingClientRect()"
    wide = page.js(box)["width"]
    at = "return [...hilumView.nv.screenXY2mm(arguments[0], arguments[1])].slice(0, 3)"
    ratio = page.js("return hilumView.nv.uiData.dpr")

    def seen(share: float) -> list[float | None]:
        return page.js(at, wide * ratio * share, 300 * ratio)

    page.until(lambda: seen(0.4)[0] is not None)  # drawn
    left, right = (seen(share)[0] for share in (0.4, 0.6))
    assert left > right  # RAS: greater is more to the right hand of the reader, the patient's left


def test_volumes_and_surfaces_that_are_taken_away_open(page: Browser) -> None:
    page.js("document.querySelector('#takeaway details').open = true")
    wanted = {b.get_attribute("textContent"): b for b in page.all("#takeaway .files button")}
    for name in ("enhanced.nii.gz", "lung.nii.gz", "meshes/lung-right.stl", "lesions.csv"):
        page.js("arguments[0].click()", wanted[name])
    for name in ("enhanced.nii.gz", "lung.nii.gz"):
        page.downloaded(name)
        image = nibabel.load(page.downloads / name)
        assert image.shape == (SIDE, SIDE, SIDE)
        assert np.ptp(np.asarray(image.dataobj)) > 0
    page.downloaded("lung-right.stl")
    assert len(trimesh.load(page.downloads / "lung-right.stl").faces) > 100
    assert page.downloaded("lesions.csv").startswith(b"lesion_id")
