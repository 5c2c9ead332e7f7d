"""`covid-mtl` through a server: from a CT or the published files to three answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import mtl_studies
import nibabel
import numpy as np
import pydicom
import pytest
from mtl_studies import PLAUSIBLE, chest

from hilum.catalog import SYSTEMS
from hilum.catalog import covid_mtl as catalog
from hilum.catalog.covid_mtl_features import FEATURES
from hilum.catalog.errors import InferenceFailed, InputError
from hilum.client import AsyncClient, Client
from hilum.client.batch import Outcome
from hilum.client.calls import Progress
from hilum.client.registry import INSTALLED
from hilum.preprocessing.covid_mtl.container import write_container
from hilum.preprocessing.covid_mtl.pipeline import network_window, prepare
from hilum.preprocessing.covid_mtl.radiomics import radiomic_features, scale
from hilum.preprocessing.covid_mtl.resample import mask_to_millimetres
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import open_series
from hilum.preprocessing.reading.volume import Geometry, Volume
from hilum.server.launcher import TritonServer
from hilum.systems.covid_mtl.files import write
from hilum.systems.covid_mtl.result import CovidMtlResult
from hilum.systems.covid_mtl.system import NETWORKS, Options

PIPELINE: Any = INSTALLED["covid-mtl"]


@pytest.fixture(scope="module")
def client(mtl_server: TritonServer) -> Iterator[Client]:
    with Client(mtl_server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chest")
    write_dicom_series(chest(), folder)
    return folder


@pytest.fixture(scope="module")
def result(client: Client, study: Path) -> CovidMtlResult:
    return client.run("covid-mtl", study)


@pytest.fixture(scope="module")
def files(result: CovidMtlResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study as the published program stores it, lung volume and mask, and its common box."""
    folder, lungs = tmp_path_factory.mktemp("published"), result.prepared.lungs.mask
    write_container(folder / "case.dtm", result.prepared.stored * lungs)
    write_container(folder / "case.dmm", lungs)
    write_container(folder / "cropped.dcm", result.prepared.crop)
    return folder


def assert_same(found: CovidMtlResult, wanted: CovidMtlResult) -> None:
    assert np.array_equal(found.prepared.crop, wanted.prepared.crop)
    assert found.probabilities.keys() == wanted.probabilities.keys()
    for name, values in wanted.probabilities.items():
        assert np.array_equal(found.probabilities[name], values), name
    assert found.features is not None
    assert np.array_equal(found.features, wanted.features)
    assert found.scaled is not None
    assert found.classes == wanted.classes


def test_a_study_gives_what_its_parts_give(
    result: CovidMtlResult, study: Path, mtl_repository: Path
) -> None:
    prepared = prepare(open_series(study), "parity")
    assert np.array_equal(result.prepared.crop, prepared.crop)
    features = radiomic_features(prepared.crop)
    assert result.features is not None
    assert np.array_equal(result.features, features)
    assert result.scaled is not None
    wanted = mtl_studies.dual_answers(
        mtl_repository, network_window(prepared.crop), scale(features).values
    )
    assert result.probabilities.keys() == wanted.keys() == catalog.HEADS.keys()
    for name, values in wanted.items():
        assert result.probabilities[name] == pytest.approx(values, abs=1e-6)
        assert result.classes[name] == catalog.HEADS[name].classes[values.argmax()]
    assert result.lung_ml == pytest.approx(prepared.lungs.mask.sum() / 1000)
    assert (result.placement, result.transport, result.mode) == ("client", "shm", "parity")
    assert "implausible_volume" in result.flags
    assert list(result.seconds) == [
        "read", "resample", "lungs", "box", "features", "network", "total",
    ]  # fmt: skip


@pytest.mark.parametrize("transport", [pytest.param("grpc", marks=pytest.mark.load), "shm"])
def test_features_from_the_server_give_the_same(
    mtl_server: TritonServer, result: CovidMtlResult, study: Path, transport: Any
) -> None:
    with Client(mtl_server.grpc_url, transport=transport) as client:
        found = client.run("covid-mtl", study, radiomics="server", processes=1)
        if transport == "grpc":
            assert_same(client.run("covid-mtl", study, processes=1), result)
    assert_same(found, result)
    assert (found.placement, found.transport) == ("server", transport)
    assert "features" not in found.seconds


@pytest.mark.parametrize("network", ["volume", "ct"])
def test_networks_without_features(client: Client, result: CovidMtlResult, network: str) -> None:
    found = client.run("covid-mtl", chest(), network=network)
    wanted = mtl_studies.mean_answers(network_window(result.prepared.crop), network)
    assert found.probabilities.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found.probabilities[name] == pytest.approx(values, abs=1e-5)
    assert (found.features, found.scaled, found.placement) == (None, None, "none")
    assert (found.answers is None) == (network == "ct")
    report = found.report()
    assert report["features"] is report["replaced"] is None
    assert ("p_severity" in report) == (network == "volume")
    assert found.arrays().keys() == {"lung", "volume"}
    assert ("severity" in found.row()) == (network == "volume")


def test_published_files_are_studies(
    client: Client, result: CovidMtlResult, files: Path, tmp_path: Path
) -> None:
    assert PIPELINE.find(files) == [files / "case.dtm", files / "cropped.dcm"]
    content = (files / "cropped.dcm").read_bytes()
    assert_same(client.run("covid-mtl", files / "case.dtm"), result)
    for source in (*PIPELINE.find(files), content):
        found = client.run("covid-mtl", source, network="ct")
        assert np.array_equal(found.prepared.crop, result.prepared.crop)
        assert found.series is None
        assert found.prepared.geometry is None
        assert found.lung_ml == pytest.approx(result.lung_ml, rel=1e-3)
        assert {"lungs", "resample"}.isdisjoint(found.seconds)
    found = client.run("covid-mtl", files / "case.dtm", network="volume")
    assert np.array_equal(found.prepared.lungs.mask, result.prepared.lungs.mask)
    (name,) = write(found, tmp_path, note="", pictures=False)
    stored = nibabel.load(tmp_path / name)
    assert np.array_equal(np.asarray(stored.dataobj).T, found.prepared.lungs.mask)
    assert stored.header.get_zooms() == (1, 1, 1)


def test_a_folder_with_files_and_a_series_is_both(files: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "case.dtm").write_bytes((files / "case.dtm").read_bytes())
    write_dicom_series(chest(), tmp_path / "both")
    write_dicom_series(chest(), tmp_path / "series")
    assert PIPELINE.find(tmp_path) == [
        tmp_path / "both" / "case.dtm", tmp_path / "both", tmp_path / "series",
    ]  # fmt: skip
    assert PIPELINE.find(files / "case.dtm") == [files / "case.dtm"]


def test_mode_corrected_reads_what_parity_does_not(client: Client, tmp_path: Path) -> None:
    """HU without an intercept: the published threshold then means +604 HU."""
    volume = chest(scale=PLAUSIBLE)
    write_dicom_series(volume, tmp_path, intercept=0)
    found = client.run("covid-mtl", tmp_path, mode="corrected", network="volume")
    assert np.array_equal(found.prepared.crop, prepare(volume, "corrected").crop)
    assert found.prepared.lungs.litres > 0.3
    assert "learned_mask" not in found.flags
    with pytest.raises(InputError, match=r"no lung found.*choose mode corrected"):
        client.run("covid-mtl", tmp_path, network="volume")


def test_a_learned_mask_takes_over(client: Client) -> None:
    volume = mtl_studies.opened(chest(scale=PLAUSIBLE))
    found = client.run("covid-mtl", volume, mode="corrected", network="volume")
    assert "learned_mask" in found.flags
    assert any("the mask is a learned one" in note for note in found.notes)
    labels = client.run("lungmask", volume).lung
    learned = mask_to_millimetres(labels, volume.geometry) > 0
    assert np.array_equal(found.prepared.lungs.mask, learned)
    inside = prepare(chest(scale=PLAUSIBLE), "corrected").lungs.mask[learned]
    assert inside.mean() > 0.95
    with pytest.raises(InputError, match=r"no lung found|plausible are"):
        client.run("covid-mtl", volume, mode="corrected", network="volume", learned_mask=False)


def test_features_that_cannot_be_computed_are_flagged(client: Client, tmp_path: Path) -> None:
    """Two voxels far apart have no neighbours, so no textures."""
    volume = np.zeros((8, 20, 20), np.uint16)
    volume[4, 9, 9] = volume[6, 12, 13] = 100
    write_container(tmp_path / "few.dtm", volume)
    found = client.run("covid-mtl", tmp_path / "few.dtm", processes=1)
    assert found.features is not None
    missing = {name for name, v in zip(FEATURES, found.features, strict=True) if math.isnan(v)}
    assert found.scaled is not None
    assert set(found.scaled.replaced) == missing
    assert found.status == "imputed_features"
    assert any("not to be trusted" in note for note in found.notes)
    report = found.report()
    assert (
        set(report["replaced"])
        == missing
        == {k for k, v in report["features"].items() if v is None}
    )
    server = client.run("covid-mtl", tmp_path / "few.dtm", radiomics="server")
    assert server.status == found.status


def uneven(folder: Path) -> Path:
    """A series that lacks a slice."""
    paths = write_dicom_series(chest(), folder)
    paths[20].unlink()
    return folder


def test_a_batch_goes_on_past_bad_studies(
    client: Client, result: CovidMtlResult, files: Path, tmp_path: Path
) -> None:
    volume = chest()
    one = np.zeros((9, 9, 9), np.uint16)
    write_container(tmp_path / "empty.dtm", one)
    one[4, 4, 4] = 100
    write_container(tmp_path / "one.dtm", one)
    write_container(tmp_path / "thin.dtm", np.ones((2, 9, 9), np.uint16))
    write_container(tmp_path / "other.dtm", np.ones((5, 9, 9), np.uint16))
    write_container(tmp_path / "other.dmm", np.ones((4, 9, 9), np.uint16))
    content = (files / "case.dtm").read_bytes()
    (tmp_path / "broken.dtm").write_bytes(content[: len(content) // 2])
    (tmp_path / "broken.dcm").write_bytes(content[: len(content) // 2])
    (tmp_path / "other-file.dtm").write_bytes(b"nothing of the kind")
    flesh = Volume(np.full(volume.geometry.shape, 40, np.int16), volume.geometry)
    few = Geometry((2, *volume.geometry.shape[1:]), (0.0, 0.0, 0.0), (2.5, 1.25, 1.25),
                   volume.geometry.direction)  # fmt: skip
    coarse = Geometry(volume.geometry.shape, (0.0, 0.0, 0.0), (12.0, 1.0, 1.0),
                      volume.geometry.direction)  # fmt: skip
    (tmp_path / "bad.nii").write_bytes(b"nothing")
    bad = [
        (flesh, "no lung found"),
        (tmp_path / "empty.dtm", "no lung in the volume"),
        (tmp_path / "one.dtm", "a single voxel has no radiomic features"),
        (tmp_path / "thin.dtm", r"2 slice\(s\)"),
        (tmp_path / "other.dtm", "lung mask.*same voxels"),
        (tmp_path / "other.dmm", "give the lung volume"),
        (tmp_path / "broken.dtm", "damaged or truncated"),
        (tmp_path / "broken.dcm", "damaged or truncated"),
        (tmp_path / "other-file.dtm", "no container of COVID-MTL"),
        (Volume(volume.voxels[:2], few), r"2 slice\(s\)"),
        (Volume(volume.voxels, coarse), "0.3 to 10 mm"),
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "bad.nii", "NIfTI"),
    ]
    outcomes = list(
        client.run_many("covid-mtl", [*(s for s, _ in bad), files / "case.dtm"], processes=1)
    )
    for outcome, (_, words) in zip(outcomes, bad, strict=False):
        assert outcome.result is None
        with pytest.raises(InputError, match=words):
            raise outcome.error
    assert_same(outcomes[-1].result, result)
    with pytest.raises(InferenceFailed, match="a single voxel has no radiomic features"):
        client.run("covid-mtl", tmp_path / "one.dtm", radiomics="server")


def test_missing_slices(client: Client, tmp_path: Path) -> None:
    folder = uneven(tmp_path)
    with pytest.raises(InputError, match="slices are missing or uneven"):
        client.run("covid-mtl", folder, mode="corrected")
    for path in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.ConvolutionKernel, dataset.ContrastBolusAgent = "B70f", "Iohexol"
        dataset.save_as(path)
    found = client.run("covid-mtl", folder, network="ct")
    assert "gaps" in found.flags
    assert {"sharp_kernel", "contrast_agent"} <= set(found.flags)
    assert not any("Iohexol" in note for note in found.notes)
    assert any("missing between slices" in note for note in found.notes)


def test_async_client_gives_the_same_and_reports_progress(
    mtl_server: TritonServer, result: CovidMtlResult, study: Path
) -> None:
    told: list[Progress] = []

    async def run() -> CovidMtlResult:
        async with AsyncClient(mtl_server.grpc_url) as client:
            client.on_progress = told.append
            return await client.run("covid-mtl", study)

    assert_same(asyncio.run(run()), result)
    stages = list(dict.fromkeys(t.stage for t in told))
    assert stages[-2:] == ["features", "network"]
    assert set(stages[:-2]) <= {"read and resample", "lungs"}
    done = [t.done for t in told if t.stage == "features"]
    assert done == sorted(done)


def test_the_end_of_a_batch_ends_what_is_computed(client: Client) -> None:
    """A chest of full size takes long; it is given up when nobody waits for it any more."""
    outcomes: list[Outcome] = []
    studies = [chest(), chest(scale=1.0)]
    batch = client.run_many("covid-mtl", studies, finish=outcomes.append, network="dual")
    next(batch)
    batch.close()
    first, second = sorted(outcomes, key=lambda outcome: outcome.index)
    assert first.error is None
    assert isinstance(second.error, CancelledError)


def test_an_error_of_the_server_is_the_study_s_own(
    standin_server: TritonServer, files: Path
) -> None:
    with (
        Client(standin_server.grpc_url) as client,
        pytest.raises(InferenceFailed, match=r"no model 'covid_mtl_nat'.*hilum export covid-mtl"),
    ):
        client.run("covid-mtl", files / "case.dtm", network="nat")


def test_options_are_checked() -> None:
    for given, words in (
        ({"mode": "other"}, "no mode 'other'; choose parity, corrected"),
        ({"network": "decovnet"}, "choose dual, volume, ct, nat, severity, resnet_ct"),
        ({"radiomics": "nowhere"}, "choose client, server"),
        ({"radiomics": "server", "network": "volume"}, "takes no features"),
        ({"processes": -1}, "give 0 to 256"),
    ):
        with pytest.raises(InputError, match=words):
            Options(**given)


def test_models_are_those_of_the_catalog() -> None:
    assert list(NETWORKS) == [
        "dual", "volume", "ct", "nat", "severity", "resnet_ct", "resnet_nat", "resnet_severity",
    ]  # fmt: skip
    assert PIPELINE.models(Options()) == ("covid_mtl",)
    assert PIPELINE.networks(Options(radiomics="server")) == ("covid_mtl_dual",)
    assert PIPELINE.models(Options(radiomics="server")) == ("covid_mtl_server",)
    corrected = Options(mode="corrected", network="nat")
    assert PIPELINE.models(corrected) == ("covid_mtl_nat", "lungmask_r231")
    less = PIPELINE.fallback(corrected)
    assert PIPELINE.models(less) == ("covid_mtl_nat",)
    assert PIPELINE.fallback(less) is PIPELINE.fallback(Options()) is None
    known = {m.model for s in SYSTEMS.values() for m in s.models()}
    assert set(PIPELINE.models(corrected)) <= known


def test_a_real_series_runs_from_dicom_to_report(
    client: Client, shared: Path, tmp_path: Path
) -> None:
    folder = shared / "data" / "tcia-lung-pet-ct-dx" / "A0002_8mm_B40f"
    found = client.run("covid-mtl", folder, network="volume")
    prepared = found.prepared
    assert not {"one_lung", "implausible_volume", "gaps"} & set(found.flags)
    inside = prepared.stored[prepared.lungs.mask > 0]
    assert (inside < catalog.AIR).mean() > 0.9
    wanted = mtl_studies.mean_answers(network_window(prepared.crop), "volume")
    for name, values in wanted.items():
        assert found.probabilities[name] == pytest.approx(values, abs=1e-5)
    (name,) = write(found, tmp_path, note="", pictures=False)
    stored = nibabel.load(tmp_path / name)
    assert found.series is not None
    assert stored.shape == found.series.stored_geometry.shape[::-1]
    ml = np.asarray(stored.dataobj).sum() * found.series.geometry.voxel_ml
    assert ml == pytest.approx(found.lung_ml, rel=0.1)
    assert found.report()["timings_s"]["lungs"] > 0
