"""Marks in every attribute of every kind of input, and none of them in any output."""

from __future__ import annotations

import contextlib
import logging
import threading
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import planted
import pydicom
import pytest
from commands import hilum
from mtl_studies import chest

from hilum.catalog.errors import HilumError
from hilum.preprocessing.covid_mtl.container import container_bytes, read_container
from hilum.preprocessing.dlpe.ready import read_normalised
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading.images import read_xray
from hilum.preprocessing.reading.series import list_series, open_series
from hilum.preprocessing.reading.slice_pictures import read_slice_picture
from hilum.server.launcher import TritonServer, free_ports

PHANTOM = chest_xray(4, height=300, width=320, severity=0.6)
VOLUME = chest_ct(3, slices=8, size=64).volume

Folders = dict[str, Path]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Sound inputs and damaged ones, by kind."""
    folder = tmp_path_factory.mktemp("inputs")
    names = ("xrays", "damaged-xrays", "ct", "damaged-ct", "chest")
    folders = {name: folder / name for name in names}
    for one in folders.values():
        one.mkdir()
    xrays = folders["xrays"]
    write_dicom(PHANTOM, xrays / f"{planted.NAME}-1.dcm")
    planted.plant_dicom(pydicom.dcmread(xrays / f"{planted.NAME}-1.dcm")).save_as(
        xrays / f"{planted.NAME}-1.dcm"
    )
    planted.plant_png(PHANTOM.pixels, xrays / f"{planted.NAME}-2.png")
    planted.plant_jpeg(PHANTOM.pixels, xrays / f"{planted.NAME}-3.jpg")
    series = folders["ct"] / f"{planted.NAME}-series"
    paths = write_dicom_series(VOLUME, series)
    paths += write_dicom_series(chest(), folders["chest"] / f"{planted.NAME}-series")
    for path in paths:
        planted.plant_dicom(pydicom.dcmread(path)).save_as(path)
    voxels = np.asarray(VOLUME.voxels).transpose(2, 1, 0)
    nifti = folders["ct"] / f"{planted.NAME}.nii.gz"
    planted.plant_nifti(voxels, VOLUME.geometry.nifti_affine, nifti)
    _damage(xrays, folders["damaged-xrays"])
    for k, path in enumerate(sorted(series.iterdir())[:3]):
        (folders["damaged-ct"] / f"{k}").mkdir()
        dataset = pydicom.dcmread(path)
        setattr(dataset, ("Rows", "SamplesPerPixel", "BitsStored")[k], 7)
        dataset.save_as(folders["damaged-ct"] / f"{k}" / "a.dcm")
    cut = nifti.read_bytes()
    (folders["damaged-ct"] / "cut.nii.gz").write_bytes(cut[: len(cut) // 2])
    return folders


def _damage(sound: Path, into: Path) -> None:
    for path in sound.iterdir():
        data = path.read_bytes()
        (into / f"cut{path.suffix}").write_bytes(data[: len(data) * 6 // 10])
        # Marks where the reader expects what it reads.
        spoilt = bytearray(data)
        spoilt[len(data) // 2 : len(data) // 2 + 6] = planted.MARK.encode()
        (into / f"spoilt{path.suffix}").write_bytes(bytes(spoilt))
    write_dicom(PHANTOM, into / "plain.dcm")
    for keyword, dataset in planted.spoilt_by_marks(into / "plain.dcm"):
        if keyword in ("Rows", "Modality", "WindowCenter", "BitsStored", "PatientOrientation"):
            dataset.save_as(into / f"{keyword}.dcm")


def _read_ct(path: Path) -> str:
    listed = "" if path.name.endswith((".nii", ".nii.gz")) else repr(list_series(path))
    series = open_series(path)
    series.volume()
    return f"{listed} {series.notes} {series.description} {series.where(0)} {series.volume().notes}"


def _said(read: Callable[[], object], caplog: pytest.LogCaptureFixture) -> str:
    """All that reading a file says: what it gives as text, its error, log lines and warnings."""
    caplog.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            text = str(read())
        except HilumError as refused:
            text = f"refused: {refused!s} {refused!r} {refused.__cause__!r}"
    return f"{text}\n{caplog.text}\n{[str(w.message) for w in warned]}"


def test_readers_say_nothing_of_a_header(
    inputs: Folders, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("xrays", "damaged-xrays"):
        for path in inputs[name].iterdir():
            for mode in ("parity", "corrected"):
                said = _said(lambda: read_xray(path, mode=mode).decode, caplog)  # noqa: B023
                assert not planted.text_leaks(said), path
    for name in ("ct", "damaged-ct"):
        for path in inputs[name].iterdir():
            assert not planted.text_leaks(_said(lambda: _read_ct(path), caplog)), path  # noqa: B023
    for path in inputs["xrays"].glob("*.[pj]*"):
        said = _said(lambda: read_slice_picture(path).notes, caplog)  # noqa: B023
        assert not planted.text_leaks(said), path
    assert not planted.text_leaks("".join(capfd.readouterr()))


def test_an_attribute_that_is_a_mark_is_not_quoted(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    write_dicom(PHANTOM, tmp_path / "xray.dcm", window=(2000, 3000))
    ct = write_dicom_series(VOLUME, tmp_path / "ct")[0]
    path = tmp_path / "a.dcm"
    refused = 0
    for source, read in (
        (tmp_path / "xray.dcm", lambda: read_xray(path).decode),
        (ct, lambda: _read_ct(path)),
    ):
        for keyword, dataset in planted.spoilt_by_marks(source):
            dataset.save_as(path)
            said = _said(read, caplog)
            refused += said.startswith("refused: ")
            assert not planted.text_leaks(said), keyword
    assert refused > 10


def test_containers_and_arrays_are_not_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = container_bytes(np.ones((2, 16, 16), np.uint16))
    name = bytes.fromhex("10001000")
    named = data.replace(name + bytes(4), name + (6).to_bytes(4, "little") + b"ZZMARK")
    assert named != data
    assert read_container(named).shape == (2, 16, 16)
    for cut in (len(named) // 2, len(named) - 9, 180, 220):
        assert not planted.text_leaks(_said(lambda: read_container(named[:cut]), caplog))  # noqa: B023
    for path, arrays in (("a.npz", {"ZZMARK": np.ones(3)}), ("b.npz", {"array": np.ones(3)})):
        np.savez(tmp_path / path, **arrays)
        said = _said(lambda: read_normalised(tmp_path / path), caplog)  # noqa: B023
        assert not planted.text_leaks(said)
    np.save(tmp_path / "c.npy", np.zeros(16, [("ZZMARK", "f4")]))
    assert not planted.text_leaks(_said(lambda: read_normalised(tmp_path / "c.npy"), caplog))


@contextlib.contextmanager
def _metrics_of_a_run() -> Iterator[tuple[int, list[str]]]:
    """A port for the metrics of a run, and what they are from moment to moment."""
    (port,) = free_ports(1)
    ended, texts = threading.Event(), []

    def ask() -> None:
        while not ended.wait(0.1):
            with contextlib.suppress(OSError):
                texts.append(_text(f"http://127.0.0.1:{port}/metrics"))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield port, texts
    finally:
        ended.set()
        asking.join()


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - of this machine
        return answer.read().decode()


def _checked_run(system: str, out: Path, server: TritonServer, *arguments: object) -> int:
    """Run a system and search all that it prints and writes, and its server; the exit code."""
    with _metrics_of_a_run() as (port, metrics):
        done = hilum(
            "run", system, *arguments, "--out", out, "--url", server.grpc_url, "--trace",
            out / "t.json", "--metrics-port", port,
        )  # fmt: skip
    assert (out / "report.json").is_file(), done.stderr
    assert "hilum_client_requests_total" in metrics[-1]
    assert server.log is not None
    texts = (done.stdout, done.stderr, *metrics, _text(server.metrics_url), server.log.read_text())
    assert not planted.text_leaks("".join(texts))
    assert not planted.leaks(out)
    return done.returncode


def test_no_run_of_xrays_says_or_writes_anything_of_a_header(
    standin_server: TritonServer, inputs: Folders, tmp_path: Path
) -> None:
    server, objects = standin_server, tmp_path / "a"
    assert (
        _checked_run("cxr-severity", objects, server, inputs["xrays"], "--save-arrays", "--dicom")
        == 0
    )
    assert len(list(objects.rglob("*.png"))) >= 3
    assert len(list(objects.rglob("*.dcm"))) >= 3
    assert _checked_run("cxr-severity", tmp_path / "b", server, inputs["damaged-xrays"]) == 1


CT_SYSTEMS = {
    "lungmask": ("ct_server", ["--save-arrays"]),
    "ct-classifier": ("ct_server", ["--save-arrays"]),
    "ct-angel": ("angel_server", []),
    "dlpe": ("dlpe_server", ["--save-arrays", "--grid", "64", "--slab-slices", "16"]),
    "covid-mtl": ("mtl_server", ["--save-arrays"]),
}
"""By system: the server's fixture, and further options."""


@pytest.mark.parametrize("system", CT_SYSTEMS)
def test_no_run_of_a_ct_says_or_writes_anything_of_a_header(
    system: str, inputs: Folders, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixture, options = CT_SYSTEMS[system]
    server = request.getfixturevalue(fixture)
    sound = inputs["chest" if system == "covid-mtl" else "ct"]
    assert _checked_run(system, tmp_path / "a", server, sound, *options, "--dicom") == 0
    assert list((tmp_path / "a").rglob("*.dcm"))
    assert _checked_run(system, tmp_path / "b", server, inputs["damaged-ct"], *options) == 1


def test_marks_are_found_where_they_are(inputs: Folders) -> None:
    found = planted.leaks(inputs["xrays"].parent)
    for kind in (".dcm", ".png", ".jpg", ".nii.gz"):
        assert [f for f in found if f.partition(":")[0].endswith(kind) and "its name" not in f], (
            kind
        )
