"""`hilum run covid-mtl`: report, files and pictures; and the processes that studies share."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import nibabel
import numpy as np
import pytest
from commands import hilum, report_of, written_in
from mtl_studies import PLAUSIBLE, chest
from PIL import Image

from hilum.catalog import covid_mtl as catalog
from hilum.catalog.covid_mtl_features import FEATURES
from hilum.client import Client
from hilum.client.calls import Calls, Progress
from hilum.preprocessing.covid_mtl.container import write_container
from hilum.preprocessing.covid_mtl.pipeline import prepare
from hilum.preprocessing.covid_mtl.resample import to_grid
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.workers import cores
from hilum.server.launcher import TritonServer
from hilum.systems.processes import SharedPools, watched

Done = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("DOE-JANE")
    write_dicom_series(chest(), folder / "series")
    return folder / "series"


@pytest.fixture(scope="module")
def finished(
    mtl_server: TritonServer, study: Path, tmp_path_factory: pytest.TempPathFactory
) -> Done:
    """One run: a series, a broken container, lungs that were segmented before."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "broken.dtm").write_bytes(b"nothing")
    prepared = prepare(open_series(study))
    write_container(folder / "lungs.dtm", prepared.stored * prepared.lungs.mask)
    inputs = [study, folder / "broken.dtm", folder / "lungs.dtm"]
    done = hilum("run", "covid-mtl", *inputs, "--out", folder / "out", "--save-arrays",
                 "--url", mtl_server.grpc_url)  # fmt: skip
    return folder / "out", done


def test_run_prints_answers_and_seconds(finished: Done) -> None:
    out, done = finished
    assert done.returncode == 1, done.stderr
    first, broken, lungs = report_of(out)["results"]
    assert (broken["status"], broken["files"]) == ("failed", [])
    assert "no container of COVID-MTL" in broken["error"]
    assert broken["error"] in done.stderr
    for head in catalog.HEADS.values():
        told = first[head.output]
        assert tuple(told) == head.classes
        assert sum(told.values()) == pytest.approx(1, abs=1e-5)
        assert first["classes"][head.name] == max(told, key=told.__getitem__)
        assert lungs[head.output] == told
        assert f"{first['classes'][head.name]} {max(told.values()):.2f}" in done.stdout
    assert first["consistent"] == (
        (first["classes"]["nat"] == "negative")
        == (first["classes"]["severity"] == "control or suspected")
    )
    assert list(first["features"]) == list(FEATURES)
    assert first["features"] == lungs["features"]
    assert (first["network"], first["placement"], first["transport"]) == ("dual", "client", "shm")
    assert (first["shape"], first["spacing_mm"]) == ([100, 120, 120], [2.5, 1.25, 1.25])
    stages = ["read", "resample", "lungs", "box", "features", "network", "total"]
    assert list(first["timings_s"]) == stages
    seconds = first["timings_s"]
    assert seconds["total"] >= sum(s for stage, s in seconds.items() if stage != "total") - 0.1
    assert f"features {seconds['features']:.1f}" in done.stdout.replace("\n", " ")
    assert "Not a medical device" in done.stdout
    assert "RANDOM WEIGHTS" in done.stderr


def test_run_writes_files_and_pictures(finished: Done, study: Path) -> None:
    out, _ = finished
    first, _, lungs = report_of(out)["results"]
    names = ["lung.nii.gz", "lungs.png", "answers.png", "arrays.npz"]
    assert first["files"] == [f"0001/{name}" for name in names]
    assert lungs["files"] == [f"0003/{name}" for name in names]
    assert written_in(out) == {*first["files"], *lungs["files"]}
    for path in out.glob("*/*.png"):
        assert min(Image.open(path).size) > 300
    with np.load(out / "0001" / "arrays.npz") as arrays:
        assert arrays["features"].tolist() == list(first["features"].values())
        assert tuple(arrays["feature_names"]) == FEATURES
        assert (arrays["volume"].shape, arrays["volume"].dtype) == (catalog.CROP, np.uint16)
        mask = arrays["lung"]
        assert mask.sum() == pytest.approx(1000 * first["lung_ml"], abs=51)
    series = open_series(study)
    stored = nibabel.load(out / "0001" / "lung.nii.gz")
    geometry = series.stored_geometry
    assert stored.shape == geometry.shape[::-1]
    assert np.allclose(stored.affine, geometry.nifti_affine, atol=1e-4)
    ml = np.asarray(stored.dataobj).sum() * geometry.voxel_ml
    assert ml == pytest.approx(first["lung_ml"], rel=0.05)


def test_run_starts_a_server_of_what_it_needs(
    mtl_repository: Path, study: Path, tmp_path: Path
) -> None:
    done = hilum(
        "run",
        "covid-mtl",
        study,
        "--out",
        tmp_path / "out",
        "--network",
        "volume",
        "--mode",
        "corrected",
        "--no-pictures",
        "--repository",
        mtl_repository,
    )
    assert done.returncode == 1, done.stderr  # its lungs are too small for an adult's
    (entry,) = report_of(tmp_path / "out")["results"]
    assert "plausible are 0.3 to 8 l" in entry["error"]
    weights = report_of(tmp_path / "out")["weights"]
    assert [w["network"] for w in weights] == ["volume", "r231"]


def test_no_identifiers_leave_the_study(finished: Done) -> None:
    out, done = finished
    report = report_of(out)
    for entry in report["results"]:
        entry.pop("input")
    assert "DOE" not in str(report)
    assert "DOE" not in done.stdout + done.stderr


def test_a_mask_comes_back_to_the_voxels_of_its_file(tmp_path: Path) -> None:
    """What is body in voxels of 1 mm is body in those of the file, whatever their order."""
    volume = chest(scale=PLAUSIBLE)
    write_dicom_series(volume, tmp_path / "series")
    image = nibabel.Nifti1Image(
        np.asarray(volume.voxels).transpose(2, 1, 0), volume.geometry.nifti_affine
    )
    turned = image.as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    nibabel.save(turned, tmp_path / "ct.nii")
    for path, mode in (("series", "parity"), ("series", "corrected"), ("ct.nii", "corrected")):
        series = open_series(tmp_path / path)
        prepared = prepare(series, mode)
        assert prepared.geometry is not None
        body = (prepared.stored > 600).astype(np.uint8)
        back = to_grid(body, prepared.geometry, series.stored_geometry)
        stored = [series.stored_slice(k) > 600 - 1024 for k in range(len(back))]
        assert back.shape == series.stored_geometry.shape
        assert (back == np.stack(stored)).mean() > 0.98, path


def test_studies_share_processes_until_they_are_idle() -> None:
    pools = SharedPools(idle_s=0.2)
    with pools.use(1) as none:
        assert none is None
    with pools.use(2) as first, pools.use(2) as second, pools.use(3) as other:
        assert first is second
        assert first is not other
        assert first is not None
        assert first.submit(os.getpid).result() != os.getpid()
    with pools.use(2) as again:
        assert again is first
    assert first is not None
    with pytest.raises(RuntimeError):
        while True:
            first.submit(os.getpid).result()
            time.sleep(0.1)
    with pools.use(0 if cores() > 1 else 2) as other:
        assert other is not first
    pools.close()
    assert other is not None
    with pytest.raises(RuntimeError):
        other.submit(os.getpid)


def test_a_pool_whose_process_died_is_replaced() -> None:
    pools = SharedPools()
    with pools.use(2) as broken:
        assert broken is not None
        with pytest.raises(Exception, match="terminated abruptly"):
            broken.submit(os._exit, 1).result()
        with pools.use(2) as whole:
            assert whole is not None
            assert whole.submit(abs, -3).result() == 3
    pools.close()


def test_processes_of_a_cancelled_study_are_ended_in_their_work() -> None:
    pools = SharedPools()
    with pytest.raises(CancelledError), pools.use(2) as pool:
        assert pool is not None
        assert pool.submit(abs, -3).result() == 3
        endless = [pool.submit(time.sleep, 3600) for _ in range(2)]
        large = [pool.submit(len, bytes(10**7)) for _ in range(4)]
        raise CancelledError
    for one in (*endless, *large):
        with pytest.raises(BrokenProcessPool):
            one.result(60)
    pool.shutdown()
    with pytest.raises(ValueError, match="bad study"), pools.use(2) as kept:
        raise ValueError("bad study")
    assert kept is not None
    assert kept.submit(abs, -3).result() == 3
    pools.close()


def test_long_work_is_watched_and_ended(url: str) -> None:
    reported: list[Progress] = []
    stop = threading.Event()

    def note(progress: Progress) -> None:
        reported.append(progress)
        stop.set()

    with Client(url) as client:
        watch = watched(Calls(client, note, stop), lambda share: ("work", share))
        watch.done(0.25)
        with pytest.raises(CancelledError):
            watch.done(0.5)
    assert reported == [Progress("work", 25, 100)]
