"""DICOM results through a real PACS: Orthanc takes, shows and gives back what Hilum writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from dicom_content import PROVENANCE, content, made_series, one_file
from dicomweb_client import DICOMwebClient
from pacs import Orthanc

from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading.series import open_series
from hilum.results.dicom import codes
from hilum.results.dicom.content import Content, Finding, Quantity, Segment
from hilum.results.dicom.writer import Choice, write_objects


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A running Orthanc with DICOMweb on the loopback."""
    running = Orthanc(tmp_path_factory.mktemp("orthanc")).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def pacs(orthanc: Orthanc) -> DICOMwebClient:
    return orthanc.client()


def store(pacs: DICOMwebClient, files: list[Path]) -> Any:
    return pacs.store_instances([dcmread(path) for path in files])


def test_a_pacs_takes_shows_and_gives_back_every_object(
    orthanc: Orthanc, pacs: DICOMwebClient, tmp_path: Path
) -> None:
    series = made_series(tmp_path / "in")
    given = content(series)
    lesion = replace(given.lesions[0], probability=(given.lesions[0].mask * 200).astype("uint8"))
    choice = Choice(parametric_map=True, probability=True)
    given = replace(given, lesions=[lesion])
    names = write_objects(given, series.files, PROVENANCE, tmp_path, choice)
    assert {"dicom/parametric-map.dcm", "dicom/seg-probability.dcm"} <= set(names)
    written = [tmp_path / name for name in names]
    for _ in range(2):  # twice: once there
        answer = store(pacs, [*series.files, *written])
        assert len(answer.get("FailedSOPSequence", [])) == 0
    source = dcmread(series.files[0])
    studies = pacs.search_for_studies(search_filters={"PatientID": "PHANTOM"})
    assert len(studies) == 1
    study = source.StudyInstanceUID
    instances = pacs.search_for_instances(study)
    assert len(instances) == len(series.files) + len(written)
    for path in written:
        sent = dcmread(path)
        back = pacs.retrieve_instance(study, sent.SeriesInstanceUID, sent.SOPInstanceUID)
        assert back.to_json_dict() == sent.to_json_dict()
        assert orthanc.file(sent.SOPInstanceUID) == path.read_bytes()


def test_objects_of_an_xray_are_kept_with_it(
    orthanc: Orthanc, pacs: DICOMwebClient, tmp_path: Path
) -> None:
    write_dicom(chest_xray(3, height=320, width=280, severity=1.0), tmp_path / "xray.dcm")
    mask = np.zeros((320, 280), np.uint8)
    mask[60:200, 30:100] = 1
    common = {"category": codes.ANATOMY, "type": codes.LUNG, "colour": (26, 144, 153)}
    share = [Quantity(codes.ZONE_SHARE, 0.25, codes.ONE)]
    given = Content(
        system="cxr-severity", procedure=codes.XR_CHEST,
        anatomy=[Segment(name="lungs", mask=mask, **common)],
        findings=[Finding(name="zone", type=codes.OPACITY, site=codes.LUNG, quantities=share)],
        pictures={"overlay": np.zeros((64, 64, 3), np.uint8)},
    )  # fmt: skip
    names = write_objects(
        given, [tmp_path / "xray.dcm"], replace(PROVENANCE, key="d" * 64), tmp_path
    )
    assert names == ["dicom/seg-anatomy.dcm", "dicom/report.dcm", "dicom/picture-1.dcm"]
    answer = store(pacs, [tmp_path / name for name in ("xray.dcm", *names)])
    assert len(answer.get("FailedSOPSequence", [])) == 0
    study = str(dcmread(tmp_path / "xray.dcm").StudyInstanceUID)
    assert len(pacs.search_for_instances(study)) == 4
    for name in names:
        sent = dcmread(tmp_path / name)
        assert orthanc.file(sent.SOPInstanceUID) == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("several", [False, True], ids=["slices", "one file of several frames"])
def test_a_withdrawal_reaches_a_pacs_and_shows_what_it_withdraws(
    pacs: DICOMwebClient, tmp_path: Path, several: bool
) -> None:
    series = made_series(tmp_path / "in", "oblique")
    if several:
        one_file(series.files, tmp_path / "whole.dcm")
        series = open_series(tmp_path / "whole.dcm")
    key = "c" if several else "b"
    for number in (1, 2):
        provenance = replace(PROVENANCE, key=key * 63 + str(number))
        names = write_objects(content(series), series.files, provenance, tmp_path)
        answer = store(pacs, [tmp_path / name for name in names])
        assert len(answer.get("FailedSOPSequence", [])) == 0
    sent = dcmread(tmp_path / "dicom/withdrawal.dcm")
    study = str(sent.StudyInstanceUID)
    (shown,) = pacs.search_for_series(
        study, search_filters={"SeriesInstanceUID": str(sent.SeriesInstanceUID)}
    )
    assert shown["00080060"]["Value"] == ["KO"]
    note = pacs.retrieve_instance(study, sent.SeriesInstanceUID, sent.SOPInstanceUID)
    assert note.to_json_dict() == sent.to_json_dict()
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    withdrawn = [
        (str(series.SeriesInstanceUID), str(one.ReferencedSOPInstanceUID))
        for evidence in note.CurrentRequestedProcedureEvidenceSequence
        for series in evidence.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    ]
    assert len(withdrawn) == len(names) - 1
    for place in withdrawn:  # nothing is deleted
        assert pacs.retrieve_instance(study, *place).SOPInstanceUID == place[1]


def test_a_pacs_renders_pictures_and_the_enhanced_series(
    pacs: DICOMwebClient, tmp_path: Path
) -> None:
    series = made_series(tmp_path / "in", "prone")
    write_objects(content(series), series.files, replace(PROVENANCE, key="a" * 64), tmp_path)
    files = [tmp_path / "dicom/picture-1.dcm", tmp_path / "dicom/enhanced/0003.dcm"]
    store(pacs, files)
    for path in files:
        made = dcmread(path)
        shown = pacs.retrieve_instance_rendered(
            made.StudyInstanceUID,
            made.SeriesInstanceUID,
            made.SOPInstanceUID,
            media_types=("image/png",),
        )
        assert shown.startswith(b"\x89PNG")
