"""One CT in several files, as the tests of the CT systems use it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from hilum.preprocessing.reading.volume import Volume


def write_nifti(volume: Volume, path: Path, orientation: str) -> Path:
    """Write a volume in LPS order as NIfTI whose axes run to ``"LPS"`` or ``"RAS"``."""
    image = nibabel.Nifti1Image(
        np.asarray(volume.voxels).transpose(2, 1, 0), volume.geometry.nifti_affine
    )
    wanted = nibabel.orientations.axcodes2ornt(orientation)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted)
    nibabel.save(image.as_reoriented(turn), path)
    return path


def mirrored(volume: Volume) -> Volume:
    """The mirror image of a patient: what was on the right is on the left."""
    return Volume(np.ascontiguousarray(volume.voxels[:, :, ::-1]), volume.geometry)
