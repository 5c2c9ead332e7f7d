"""Readers: DICOM, NIfTI and pictures, within limits that hold before anything is decoded."""
