"""`hilum run ct-angel`: files, pictures, servers without all networks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from angel_slices import SIDE, assert_same, constructed, expected
from commands import called, hilum, report_of, written_in
from PIL import Image

from hilum.catalog import ct_angel as ct
from hilum.catalog.errors import InferenceFailed
from hilum.client import Client
from hilum.postprocessing.ct_angel.boxes import BoxRules
from hilum.preprocessing.phantoms.ct import CtPhantom, chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.windows import ct_angel_window
from hilum.server.launcher import TritonServer


def test_server_with_the_lesion_network_alone(
    lesion_repository: Path, angel_phantom: CtPhantom, tmp_path: Path
) -> None:
    with (
        TritonServer(lesion_repository, models=["ct_angel_lesion"], grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        result = client.run("ct-angel", angel_phantom.volume, mode="corrected")
        assert result.report()["valid_filter"] == "off"
        assert any("no valid-region filter" in note for note in result.notes)
        for k, found in enumerate(result.slices):
            grey = ct_angel_window(angel_phantom.volume.voxels[k], ct.WINDOWS["doc"])
            assert_same(found, expected(grey, BoxRules(valid_mode="off"), 512, alone=True), 512)
        write_dicom_series(constructed([{1}]), tmp_path / "one")
        done = hilum("run", "ct-angel", tmp_path / "one", "--out", tmp_path / "out",
                     "--mode", "corrected",
                     "--url", server.grpc_url)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the server has no ct_angel; running without" in done.stderr
    assert [w["network"] for w in report_of(tmp_path / "out")["weights"]] == ["lesion"]


def test_repository_with_the_lesion_network_alone(lesion_repository: Path, tmp_path: Path) -> None:
    write_dicom_series(constructed([{1}]), tmp_path / "one")
    done = hilum("run", "ct-angel", tmp_path / "one", "--out", tmp_path / "out",
                 "--mode", "corrected",
                 "--repository", lesion_repository)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (entry,) = report_of(tmp_path / "out")["results"]
    assert entry["valid_filter"] == "off"


def test_server_without_any_of_it_is_reported(server: TritonServer) -> None:
    with (
        Client(server.grpc_url) as client,
        pytest.raises(InferenceFailed, match=r"no model 'ct_angel'.*hilum export ct-angel"),
    ):
        client.run("ct-angel", constructed([{0}]), mode="corrected")


@pytest.fixture(scope="module")
def finished(
    angel_server: TritonServer, angel_series: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The output of one run: a phantom, a positive and a negative series, a negative picture."""
    folder = tmp_path_factory.mktemp("run")
    write_dicom_series(constructed([{0}, {0}, {0}]), folder / "positive")
    write_dicom_series(constructed([set()] * 4), folder / "negative")
    cv2.imwrite(str(folder / "picture.png"), np.full((SIDE, SIDE), 92, np.uint8))
    inputs = [angel_series, *(folder / name for name in ("positive", "negative", "picture.png"))]
    done = hilum("run", "ct-angel", *inputs, "--out", folder / "out", "--heat", "--save-arrays",
                 "--mode", "corrected",
                 "--url", angel_server.grpc_url, "--in-flight", 1)  # fmt: skip
    return folder / "out", done


def test_run_writes_report_pictures_and_arrays(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, done = finished
    assert done.returncode == 0, done.stderr
    assert "POSITIVE" in done.stdout
    assert "Not a medical device" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("  slices")]
    assert lines == [f"  slices {n}/30" for n in range(3, 30, 3)]
    report = report_of(out)
    assert report["mode"] == "corrected"
    assert [w["network"] for w in report["weights"]] == ["lesion", "valid"]
    entry, _, negative, picture = report["results"]
    positive = sorted(s["slice_from_head"] for s in entry["slices"] if s["positive"])
    names = [f"0001/slice-{n:03d}{end}.png" for n in positive for end in ("", "-heat")]
    assert entry["files"] == [*names, "0001/contact.png", "0001/quadrants.png", "0001/arrays.npz"]
    assert negative["files"] == ["0003/quadrants.png", "0003/arrays.npz"]
    assert picture["files"] == ["0004/slice-001.png", "0004/arrays.npz"]
    told = {file for r in report["results"] for file in r["files"]}
    assert written_in(out) == told
    for path in out.glob("*/*.png"):
        pixels = np.asarray(Image.open(path))
        assert pixels.shape[2] == 3
        assert min(pixels.shape[:2]) > 300
    with np.load(out / "0001" / "arrays.npz") as arrays:
        mask = arrays["mask"]
    for found in entry["slices"]:
        for box in found["boxes"]:
            x, y, w, h = box["box"]
            assert mask[found["slice"] - 1, y : y + h, x : x + w].sum() >= box["mask_area"]


def test_red_boxes_lie_where_the_report_says(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = finished
    (box,) = report_of(out)["results"][1]["slices"][0]["boxes"]
    red, green, blue = np.moveaxis(np.asarray(Image.open(out / "0002" / "slice-001.png")), 2, 0)
    rows, columns = np.nonzero((red > 200) & (green < 90) & (blue < 90))
    scale = red.shape[1] / SIDE
    x, y, w, h = (v * scale for v in box["box_original"])
    assert columns.min() == pytest.approx(x, abs=3)
    assert columns.max() == pytest.approx(x + w, abs=3)
    assert rows.max() == pytest.approx(y + h, abs=3)


def test_folders_stand_for_what_is_in_them(
    angel_server: TritonServer, angel_series: Path, tmp_path: Path
) -> None:
    """One study a folder of DICOM, one a folder of pictures; bad ones do not end the run."""
    for name in ("a", "b"):
        write_dicom_series(constructed([{0}] * 3), tmp_path / "in" / name)
    for path in (tmp_path / "in" / "b").iterdir():
        path.write_bytes(path.read_bytes()[:400])
    done = called("run", "ct-angel", tmp_path / "in", "--out", tmp_path / "out",
                  "--mode", "corrected",
                  "--url", angel_server.grpc_url, "--no-pictures")  # fmt: skip
    assert done.returncode == 1
    good, bad = report_of(tmp_path / "out")["results"]
    assert good["positive"] is True
    assert bad["status"] == "failed"
    empty = called("run", "ct-angel", tmp_path / "out", "--out", tmp_path / "o", "--url", "x:1")
    assert empty.returncode == 2
    assert "no CT study in" in empty.stderr


def test_phantom_series_can_be_run(angel_server: TritonServer, tmp_path: Path) -> None:
    made = called("phantom", "ct", "--out", tmp_path / "ct", "--slices", 12, "--size", 96)
    assert made.returncode == 0, made.stderr
    voxels = chest_ct(0, slices=12, size=96).volume.voxels
    assert np.array_equal(open_series(tmp_path / "ct").volume().voxels, voxels)
    done = called("run", "ct-angel", tmp_path / "ct", "--out", tmp_path / "out", "--json",
                  "--url", angel_server.grpc_url, "--no-pictures", "--mode", "parity")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["mode"], report["results"][0]["slice_count"]) == ("parity", 12)
