"""A study with something of everything, from which tests make DICOM objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from hilum.catalog.terms import Window
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.reading.series import Series, open_series
from hilum.preprocessing.reading.volume import Geometry, Volume
from hilum.results.dicom import codes
from hilum.results.dicom.content import (
    Box,
    Content,
    Enhanced,
    Evaluation,
    Finding,
    Provenance,
    Quantity,
    Segment,
)
from hilum.results.meshes import Structure, surfaces

PROVENANCE = Provenance(
    key="0" * 63 + "1", mode="parity", version="0.1.0", weights={"lungmask_r231": "ab" * 32}
)

AXES = {
    "axial": np.eye(3),
    "columns to the right": np.diag([1.0, 1.0, -1.0]),
    "rows to the front": np.diag([1.0, -1.0, 1.0]),
    "slices downwards": np.diag([-1.0, 1.0, 1.0]),
    "prone": np.diag([1.0, -1.0, -1.0]),
    "oblique": None,
}


def geometry(kind: str, shape: tuple[int, int, int]) -> Geometry:
    """Of an array [z, y, x] with unequal spacing, in LPS directions by `kind`."""
    steps = np.diag([3.0, 0.8, 0.7])[:, ::-1].copy()  # rows: steps of z, y, x in (x, y, z) mm
    axes = AXES[kind]
    if axes is None:
        angle = np.radians(12.0)
        turn = np.array(
            [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
        )
        return Geometry.from_steps(shape, np.array([-20.0, 15.0, 100.0]), steps @ turn.T)
    return Geometry.from_steps(shape, np.array([-20.0, 15.0, 100.0]), axes @ steps)


def made_series(folder: Path, kind: str = "axial") -> Series:
    """A series of noise with its geometry."""
    shape = (6, 24, 20)
    hu = np.random.default_rng(3).integers(-900, 100, shape).astype(np.int16)
    write_dicom_series(Volume(hu, geometry(kind, shape), ()), folder)
    return open_series(folder)


def masks(series: Series) -> dict[str, np.ndarray]:
    """Blocks off the centre, so that a turned mask is seen; in the file's own order."""
    shape = series.stored_geometry.shape
    found = {name: np.zeros(shape, np.uint8) for name in ("right lung", "left lung", "visible")}
    found["right lung"][1:4, 3:9, 2:8] = 1
    found["left lung"][2:5, 4:12, 11:18] = 1
    found["visible"][2:3, 5:7, 3:6] = 1
    return found


def content(series: Series) -> Content:
    """Something of everything."""
    found = masks(series)
    lung = {"category": codes.ANATOMY, "type": codes.LUNG, "model": "lungmask_r231"}
    anatomy = [
        Segment(name="right lung", mask=found["right lung"], modifier=codes.RIGHT,
                colour=(26, 144, 153), **lung),
        Segment(name="left lung", mask=found["left lung"], modifier=codes.LEFT,
                colour=(230, 150, 30), **lung),
        Segment(name="heart", mask=np.zeros_like(found["visible"]), category=codes.ANATOMY,
                type=codes.HEART, colour=(200, 0, 0)),
    ]  # fmt: skip
    lesions = [
        Segment(name="visible", mask=found["visible"], category=codes.ABNORMAL, type=codes.LESION,
                region=codes.LUNG, colour=(220, 30, 30)),
    ]  # fmt: skip
    ml = series.stored_geometry.voxel_ml
    findings = [
        Finding(name=s.name, type=s.type, segment=s.name,
                quantities=[Quantity(codes.VOLUME, float(s.mask.sum()) * ml, codes.ML)])
        for s in (*anatomy[:2], *lesions)
    ]  # fmt: skip
    findings.append(
        Finding(name="heart", type=codes.HEART, site=codes.CHEST,
                evaluations=[Evaluation(codes.PRESENCE, codes.NOT_FOUND)])
    )  # fmt: skip
    findings.append(
        Finding(name="box 1", type=codes.LESION, box=Box(2, 3, 5, 9, 8),
                quantities=[Quantity(codes.AREA, 18.0, codes.PIXELS)])
    )  # fmt: skip
    picture = np.full((40, 60, 3), 90, np.uint8)
    voxels = np.linspace(-1, 4, found["visible"].size, dtype=np.float32)
    return Content(
        system="dlpe",
        procedure=codes.CT_CHEST,
        anatomy=anatomy,
        lesions=lesions,
        findings=findings,
        window=Window(600, -700),
        enhanced=Enhanced(voxels.reshape(found["visible"].shape), Window(2, 1), "enhanced"),
        pictures={"overview": picture},
        frames=series.frames,
        surfaces=surfaces([Structure("visible", found["visible"].T, (255, 45, 45))], (1, 1, 1)),
    )


def walk(dataset: Dataset) -> Iterator[Dataset]:
    """A dataset and those of its sequences, at every depth."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from walk(item)


def one_file(paths: Sequence[Path], target: Path) -> None:
    """Write an Enhanced CT of single slices, one frame each, in the order given (PS3.3 A.38)."""
    parts = [dcmread(path) for path in paths]
    whole = dcmread(paths[0])
    kind = "1.2.840.10008.5.1.4.1.1.2.1"
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = kind
    groups = {
        "PlaneOrientationSequence": ("ImageOrientationPatient",),
        "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
        "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    }
    shared = _described(whole)
    for group, keywords in groups.items():
        setattr(shared, group, [_item(**{k: parts[0][k].value for k in keywords})])
        for keyword in keywords:
            delattr(whole, keyword)
    frames = []
    for number, part in enumerate(parts, 1):
        frame = Dataset()
        frame.PlanePositionSequence = [_item(ImagePositionPatient=part.ImagePositionPatient)]
        frame.FrameContentSequence = [
            _item(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[number])
        ]
        frames.append(frame)
    del whole.ImagePositionPatient, whole.KVP
    whole.NumberOfFrames = len(parts)
    whole.SharedFunctionalGroupsSequence = [shared]
    whole.PerFrameFunctionalGroupsSequence = frames
    whole.PixelData = b"".join(part.PixelData for part in parts)
    whole.save_as(target)


def _described(whole: Dataset) -> Dataset:
    """Give a header what an Enhanced CT must have; returns its shared functional groups."""
    whole.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    common = {
        "PixelPresentation": "MONOCHROME", "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
    }  # fmt: skip
    organised = "2.25.1"
    attributes = {
        **common, "ContentQualification": "RESEARCH", "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00", "PresentationLUTShape": "IDENTITY",
        "AcquisitionContextSequence": [], "ManufacturerModelName": "tests",
        "DeviceSerialNumber": "1", "SoftwareVersions": "1", "ContentDate": "20200101",
        "ContentTime": "120000", "AcquisitionDateTime": "20200101120000",
        "DimensionOrganizationSequence": [_item(DimensionOrganizationUID=organised)],
        "DimensionIndexSequence": [
            _item(DimensionIndexPointer=0x00209057, FunctionalGroupPointer=0x00209111,
                  DimensionOrganizationUID=organised)
        ],
    }  # fmt: skip
    for keyword, value in attributes.items():
        setattr(whole, keyword, value)
    chest = _item(CodeValue="51185008", CodingSchemeDesignator="SCT", CodeMeaning="Chest")
    return _item(
        FrameAnatomySequence=[_item(FrameLaterality="U", AnatomicRegionSequence=[chest])],
        CTImageFrameTypeSequence=[_item(FrameType=whole.ImageType, **common)],
        IrradiationEventIdentificationSequence=[_item(IrradiationEventUID="2.25.2")],
    )


def _item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made
