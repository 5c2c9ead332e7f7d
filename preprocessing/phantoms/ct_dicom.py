"""Synthetic CT volumes as DICOM series, for tests, examples and benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ..reading.volume import Volume


def write_dicom_series(
    volume: Volume,
    folder: Path,
    *,
    series_number: int = 1,
    intercept: int = -1024,
) -> list[Path]:
    """Write a volume as a DICOM CT series whose identifiers all say PHANTOM.

    Parameters
    ----------
    volume
        In any orientation; axis 0 becomes the slices.
    folder
        Made if need be.
    series_number
        Also part of what the identifiers are made from: series of one folder need their own.
    intercept
        RescaleIntercept; the slope is 1.

    Returns
    -------
    The files, by slice index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = len(volume.voxels)
    source = ["PHANTOM", str(volume.geometry), "".join(volume.notes)]
    study, series, frame = (
        generate_uid(entropy_srcs=[*source, *extra])
        for extra in ([], [str(series_number)], ["frame of reference"])
    )
    paths = []
    for k in range(count):
        dataset = _ct_image(volume, k, intercept)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID = frame
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[*source, str(series_number), str(k)])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesNumber, dataset.InstanceNumber = series_number, count - k
        path = folder / f"PHANTOM_{series_number}_{count - k:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _ct_image(volume: Volume, k: int, intercept: int) -> FileDataset:
    geometry = volume.geometry
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = CTImageStorage
    dataset.PatientName = dataset.PatientID = "PHANTOM"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.ReferringPhysicianName = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.Modality, dataset.Manufacturer = "CT", "Hilum phantom"
    dataset.SeriesDescription, dataset.BodyPartExamined = "PHANTOM chest", "CHEST"
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    dataset.PatientPosition, dataset.PositionReferenceIndicator = "HFS", ""
    dataset.KVP, dataset.AcquisitionNumber = None, 1
    dataset.ImagePositionPatient = [f"{v:.6f}" for v in geometry.point((k, 0, 0))]
    dataset.ImageOrientationPatient = [
        f"{v:.9f}" for axis in (2, 1) for v in geometry.direction[axis]
    ]
    dataset.PixelSpacing = [f"{geometry.spacing[1]:.9g}", f"{geometry.spacing[2]:.9g}"]
    dataset.SliceThickness = f"{geometry.slice_distance:.9g}"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = intercept, 1, "HU"
    dataset.Rows, dataset.Columns = geometry.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.PixelData = (np.asarray(volume.voxels[k]) - intercept).astype("<i2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset
