"""lungmask R231: right and left lung on chest CT, slice by slice.

Hofmanninger et al., Eur Radiol Exp 4:50 (2020), doi 10.1186/s41747-020-00173-2.

HU slice → body box, crop, 256 × 256 → network → label map → volume post-processing → back to the
slice. Left and right are those of the *patient*, for arrays in LPS order: x grows toward the
patient's left, y toward posterior, z toward superior.
"""

from __future__ import annotations

from types import MappingProxyType

from .types import Network, System, Tensor

SIZE = 256
"""Side of the network's input in pixels."""

LOWEST_HU, HIGHEST_HU = -1024, 600
"""Limits of the input; they become 0 and 1."""

BODY_SIDE = 128
"""Side of the grid on which the body is found."""

BODY_HU = -500
"""A pixel belongs to the body when its value is strictly greater."""

BACKGROUND, RIGHT, LEFT = 0, 1, 2
"""Labels: sides of the patient."""

LABELS = ("background", "right lung", "left lung")
"""Names of the labels in order."""

MIN_MERGED = 3
"""Components with fewer voxels are never merged into a neighbour."""

MAX_HOLE = 64
"""Holes of a single slice are filled when they have fewer pixels."""

WEIGHT_FILES = MappingProxyType(
    {
        "d5d2fc3d": "unet_r231-d5d2fc3d.pth",
        "0de78a7e": "unet_r231covid-0de78a7e.pth",
    }
)
"""Published files with three classes by the first eight digits of their sha256."""

R231 = Network(
    name="r231",
    model="lungmask_r231",
    title="Right and left lung (U-Net)",
    inputs=(Tensor("hu", "INT16", ("R", "R"), "body crop, resampled; HU", wide=True),),
    outputs=(Tensor("label", "UINT8", ("R", "R"), "0 background, 1 right lung, 2 left lung"),),
    sizes={"R": SIZE},
    max_batch=32,
    tolerance=1e-4,  # of class scores, which are no probabilities and reach ±30
    streamed=True,
)

SYSTEM = System(
    name="lungmask",
    title="Lung segmentation on chest CT",
    summary="chest CT → right and left lung",
    paper="Hofmanninger et al., Eur Radiol Exp 4:50 (2020), doi 10.1186/s41747-020-00173-2",
    networks=(R231,),
    steps=(),
    ensembles=(),
)
