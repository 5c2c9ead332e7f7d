"""Where a voxel of DLPE's normalised space lies in the patient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .grid import Normalised


def patient_affine(normalised: Normalised) -> NDArray[np.float64] | None:
    """The map from an index of normalised space to the patient's coordinates.

    Returns
    -------
    float64 [4, 4]: (x, y, z, 1) → LPS in mm, in the frame of the scan's own files. For a volume
    that came normalised it is centred on 0. None where mode ``parity`` mixed up the slices, so that
    no such map exists.
    """
    space = normalised.space
    seen = normalised.geometry.reoriented(space.reorientation)
    order = space.order
    # Place in the scan (row, column, slice) → LPS; `seen` counts slice, row, column.
    scan = np.eye(4)
    scan[:3, :3] = seen.steps[[1, 2, 0]].T
    scan[:3, 3] = seen.origin
    if order is not None:
        steps = np.diff(order)
        if len(set(steps.tolist())) > 1 or abs(int(steps[0])) != 1:
            return None
        scan[:3, 3] += order[0] * seen.steps[0]
        scan[:3, 2] *= steps[0]
    place = np.eye(4)
    place[:3, :3] = space.matrix
    place[:3, 3] = space.offset
    return scan @ place
