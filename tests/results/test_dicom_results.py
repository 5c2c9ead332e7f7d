"""`hilum run --dicom` through the real server: the objects say what the report says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_judges import assert_valid
from dicom_reports import groups, walk
from mtl_studies import chest as mtl_chest
from pydicom import dcmread

from hilum.catalog import covid_mtl
from hilum.catalog.errors import InputError
from hilum.client import AsyncClient, Client
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.launcher import TritonServer

hd = pytest.importorskip("highdicom")

VOLUME, AREA, PROBABILITY = "118565006", "42798000", "122157"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from hilum.cli import main; main()", "run", *words],
        capture_output=True, text=True,
    )  # fmt: skip


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_lungs_of_a_series_come_as_objects(ct_server: TritonServer, tmp_path: Path) -> None:
    write_dicom_series(chest_ct(5, slices=16, size=96, lesions=0).volume, tmp_path / "series")
    done = run(
        "lungmask", str(tmp_path / "series"), "--url", ct_server.grpc_url, "--out",
        str(tmp_path / "out"), "--dicom",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_valid((tmp_path / "out/0001/dicom").rglob("*.dcm"))
    entry = read(tmp_path / "out/0001/result.json")
    assert "dicom/seg-anatomy.dcm" in entry["files"]
    objects = hd.seg.segread(tmp_path / "out/0001/dicom/seg-anatomy.dcm")
    _, right, left = entry["voxels"].values()
    counted = [int(objects.get_volume(segment_numbers=[n]).array.sum()) for n in (1, 2)]
    assert counted == [right, left]
    told = groups(tmp_path / "out/0001/dicom/report.dcm")
    for side in ("right", "left"):
        volume = told[f"{side} lung"].numbers[VOLUME]
        assert volume == pytest.approx(entry["volumes_ml"][side], abs=1e-3)


def test_objects_are_kept_by_resume_and_the_same_bytes_after_overwrite(
    ct_server: TritonServer, tmp_path: Path
) -> None:
    write_dicom_series(chest_ct(5, slices=16, size=96, lesions=0).volume, tmp_path / "series")
    words = ("lungmask", str(tmp_path / "series"), "--url", ct_server.grpc_url,
             "--out", str(tmp_path / "out"), "--dicom")  # fmt: skip
    assert run(*words).returncode == 0
    first = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.dcm")}
    times = {p: p.stat().st_mtime_ns for p in first}
    assert run(*words, "--resume").returncode == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.dcm")} == times
    assert run(*words, "--overwrite").returncode == 0
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.dcm")} == first
    assert all(p.stat().st_mtime_ns > times[p] for p in first)


def test_a_program_gets_the_same_bytes_as_the_command_line(
    ct_server: TritonServer, tmp_path: Path
) -> None:
    write_dicom_series(chest_ct(5, slices=16, size=96, lesions=0).volume, tmp_path / "series")
    done = run(
        "lungmask", str(tmp_path / "series"), "--url", ct_server.grpc_url, "--out",
        str(tmp_path / "out"), "--dicom",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Client(ct_server.grpc_url) as client:
        (outcome,) = client.run_many("lungmask", [tmp_path / "series"])
        written = outcome.result.to_dicom(tmp_path / "own")
    assert [p.relative_to(tmp_path / "own/dicom").as_posix() for p in written] == [
        "seg-anatomy.dcm", "report.dcm", "picture-1.dcm"
    ]  # fmt: skip
    for path in written:
        twin = tmp_path / "out/0001" / path.relative_to(tmp_path / "own")
        assert path.read_bytes() == twin.read_bytes()


def test_a_result_without_dicom_files_says_so_and_writes_nothing(
    ct_server: TritonServer, tmp_path: Path
) -> None:
    with Client(ct_server.grpc_url) as client:
        found = client.run("lungmask", chest_ct(5, slices=16, size=96, lesions=0).volume)
        with pytest.raises(InputError, match="not read from DICOM files"):
            found.to_dicom(tmp_path / "own")
    with pytest.raises(InputError, match="on what a client returned"):
        dataclasses.replace(found).to_dicom(tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_objects_of_an_asyncio_client_are_written_from_a_thread(
    ct_server: TritonServer, tmp_path: Path
) -> None:
    write_dicom_series(chest_ct(5, slices=16, size=96, lesions=0).volume, tmp_path / "series")

    async def go() -> list[Path]:
        async with AsyncClient(ct_server.grpc_url) as client:
            found = await client.run("lungmask", tmp_path / "series")
            with pytest.raises(InputError, match="to_thread"):
                found.to_dicom(tmp_path / "own")
            return await asyncio.to_thread(found.to_dicom, tmp_path / "own", pictures=False)

    assert [path.name for path in asyncio.run(go())] == ["seg-anatomy.dcm", "report.dcm"]


def test_an_xray_lying_on_its_side_has_its_masks_in_its_own_rows(
    standin_server: TritonServer, tmp_path: Path
) -> None:
    upright, turned = tmp_path / "a.dcm", tmp_path / "b.dcm"
    phantom = chest_xray(3, height=480, width=400, severity=1.0)
    write_dicom(phantom, upright)
    dataset = dcmread(upright)
    pixels = dataset.pixel_array[:, ::-1]  # rows run to the patient's right
    dataset.PixelData, dataset.PatientOrientation = (
        np.ascontiguousarray(pixels).tobytes(),
        ["R", "F"],
    )
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(turned)
    done = run(
        "cxr-severity", str(upright), str(turned), "--network", "manet", "--url",
        standin_server.grpc_url, "--out", str(tmp_path / "out"), "--dicom",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_valid((tmp_path / "out/0001/dicom").rglob("*.dcm"))
    for number in (1, 2):
        assert_the_same_numbers(tmp_path / f"out/000{number}")
    masks = [dcmread(tmp_path / f"out/000{n}/dicom/seg-anatomy.dcm").pixel_array for n in (1, 2)]
    assert masks[0].shape[-2:] == (480, 400)
    assert masks[0].any()
    assert not np.array_equal(masks[0], masks[0][..., ::-1])
    np.testing.assert_array_equal(masks[1], masks[0][..., ::-1])


def assert_the_same_numbers(folder: Path) -> None:
    """The report of an X-ray says what result.json says."""
    entry, told = read(folder / "result.json"), groups(folder / "dicom/report.dcm")
    assert told["study"].numbers == pytest.approx(
        {"cxr-severity": entry["score"], PROBABILITY: entry["disease_probability"]}
    )
    zones = {
        f"zone {zone}": share
        for zone, share in zip(entry["zones"], entry["fractions"], strict=True)
        if share is not None
    }
    assert zones
    for name, share in zones.items():
        assert told[name].numbers == {"zone-share": pytest.approx(share)}


def test_a_picture_has_no_dicom_results_and_says_so(
    standin_server: TritonServer, tmp_path: Path
) -> None:
    from hilum.preprocessing.phantoms.xray import write_png

    write_png(chest_xray(1, height=300, width=300, severity=0.5), tmp_path / "a.png")
    done = run(
        "cxr-severity", str(tmp_path / "a.png"), "--network", "manet", "--url",
        standin_server.grpc_url, "--out", str(tmp_path / "out"), "--dicom",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "0001: not read from DICOM" in done.stderr


def test_boxes_lie_on_the_slices_that_they_were_found_on(
    angel_server: TritonServer, angel_series: Path, tmp_path: Path
) -> None:
    done = run(
        "ct-angel", str(angel_series), "--mode", "corrected", "--valid-mode", "off", "--url",
        angel_server.grpc_url, "--out", str(tmp_path / "out"), "--dicom", "--seg-probability",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_valid((tmp_path / "out/0001/dicom").rglob("*.dcm"))
    entry = read(tmp_path / "out/0001/result.json")
    number_of = {str(d.SOPInstanceUID): int(d.InstanceNumber) for d in headers(angel_series)}
    expected = sorted(
        (one["instance_number"], *box["box_original"][:2])
        for one in entry["slices"]
        for box in one["boxes"]
    )
    report = dcmread(tmp_path / "out/0001/dicom/report.dcm")
    found = sorted(
        (
            number_of[
                str(item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
            ],
            *item.GraphicData[:2],
        )
        for item in walk(report)
        if item.get("ValueType") == "SCOORD"
    )
    assert len(expected) > 0
    np.testing.assert_allclose(found, expected, atol=1e-3)
    told = groups(tmp_path / "out/0001/dicom/report.dcm")
    assert told["study"].numbers == {"slices-positive": entry["positive_slices"]}
    for one in entry["slices"]:
        for number, box in enumerate(one["boxes"], 1):
            measured = told[f"slice {one['slice']} box {number}"].numbers
            same = {AREA: box["mask_area"], "lesion-prob": box["mean_probability"]}
            assert measured == pytest.approx(same, abs=1e-4)
    lesions = hd.seg.segread(tmp_path / "out/0001/dicom/seg-lesions.dcm")
    uids = [str(d.SOPInstanceUID) for d in headers(angel_series)]
    pixels = lesions.get_pixels_by_source_instance(uids, segment_numbers=[1])[..., 0]
    filled = {number_of[uid] for uid, plane in zip(uids, pixels, strict=True) if plane.any()}
    assert filled == {number for number, *_ in expected}
    for number, left, top in expected:
        (plane,) = (p for u, p in zip(uids, pixels, strict=True) if number_of[u] == number)
        assert plane[round(top) :, round(left) :].any()
    assert (tmp_path / "out/0001/dicom/seg-probability.dcm").is_file()


def headers(folder: Path) -> list[Any]:
    return [dcmread(path, stop_before_pixels=True) for path in folder.glob("*.dcm")]


def test_probabilities_of_a_classified_series_are_in_the_report(
    ct_server: TritonServer, tmp_path: Path
) -> None:
    write_dicom_series(chest_ct(5, slices=8, size=96, lesions=2).volume, tmp_path / "series")
    done = run(
        "ct-classifier", str(tmp_path / "series"), "--url", ct_server.grpc_url, "--out",
        str(tmp_path / "out"), "--dicom",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_valid((tmp_path / "out/0001/dicom").rglob("*.dcm"))
    summary = read(tmp_path / "out/0001/result.json")["summary"]
    told = groups(tmp_path / "out/0001/dicom/report.dcm")["series"].numbers
    assert told["covid-highest"] == pytest.approx(summary["maximum"], rel=1e-5)
    assert told["positive-slices"] == pytest.approx(summary["fraction"], rel=1e-5)


def test_answers_of_covid_mtl_and_its_lungs_are_in_the_objects(
    mtl_server: TritonServer, tmp_path: Path
) -> None:
    write_dicom_series(mtl_chest(), tmp_path / "series")
    done = run(
        "covid-mtl", str(tmp_path / "series"), "--url", mtl_server.grpc_url, "--out",
        str(tmp_path / "out"), "--dicom",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_valid((tmp_path / "out/0001/dicom").rglob("*.dcm"))
    entry = read(tmp_path / "out/0001/result.json")
    told = groups(tmp_path / "out/0001/dicom/report.dcm")
    for head, of in covid_mtl.HEADS.items():
        answers = list(told[f"answer {head}"].numbers.values())
        np.testing.assert_allclose(answers, list(entry[of.output].values()), atol=1e-6)
    lungs = hd.seg.segread(tmp_path / "out/0001/dicom/seg-anatomy.dcm")
    lungs = lungs.get_volume(combine_segments=True)
    at = np.argwhere(lungs.array > 0)
    lps = (np.c_[at, np.ones(len(at))] @ lungs.affine.T)[:, :3]
    image = nibabel.load(next((tmp_path / "out/0001").glob("lung*.nii.gz")))
    inside = np.argwhere(np.asarray(image.dataobj) > 0)
    nifti = nibabel.affines.apply_affine(image.affine, inside) * (-1, -1, 1)
    np.testing.assert_allclose(lps.mean(0), nifti.mean(0), atol=0.5)
    assert told["lungs"].numbers[VOLUME] == pytest.approx(entry["lung_ml"], rel=1e-3)
