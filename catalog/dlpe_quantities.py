"""Constants of what DLPE measures: severity, spatial distribution, branching map, two scans."""

from __future__ import annotations

import math

MIN_LESION_ML = 24 * (334 / 512) ** 2 / 1000
"""Smallest lesion that is counted and listed: 24 voxels of the published grid, about 0.01 ml."""

ENHANCED_HU = (-80.0, 400.0)
"""Severities that the enhanced volume can hold."""

SECOND_LUNG = 0.1
"""A second component of this share of the first is the other lung."""

SINGLE_LUNG_MM = 180.0
"""A largest component narrower than this is one lung, a wider one two lungs that touch."""

SIDES = ("right", "left")
ZONES = ("lower", "middle", "upper")
HALVES = ("anterior", "posterior")

SCORE_SHARES = (0.25, 0.5, 0.75)
"""A zone with lesions scores 1, and one more from each of these shares on."""

HEIGHT_PARTS = 10
"""Equal parts of the lungs' height in the distribution."""

PLEURA_EDGES_MM = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, math.inf)
TUBE_EDGES_MM = (0.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, math.inf)
LEVEL_EDGES = tuple(float(level) for level in range(13))
"""Limits of the bins: half-open, the last one closed."""

LEVELS = (0.0, 12.0)
"""The branching map is clipped to these; level 1 is the widest vessel."""

LEVEL_TEN = 10
"""The level at which the logarithm of a vessel's radius in voxels is `LOG_RADIUS_TEN`."""

LOG_RADIUS_TEN = -0.5

PERIPHERAL_LEVEL = 9.0
"""Above this level the published figure paints parenchyma red."""

SEVERITY_HU = (-100.0, 400.0)
SEVERITY_BIN_HU = 5.0
"""Range and bins of the histogram of severity."""

BRANCHING_BLOCK, BRANCHING_MARGIN = 30, 30
"""The published branching map works in cubes, with this margin, in voxels."""

BRANCHING_STEP = 3
"""It looks at every third voxel."""

BRANCHING_MOST, BRANCHING_KEPT = 2000, 0.8
"""Of more vessel voxels than this it keeps a share, again and again."""

BRANCHING_PI = 3.1415926
"""Its π."""

SAME_LESION_MM = 5.0
"""A lesion that comes this close to one of the other scan persists."""

INFLATION = 0.15
"""Lungs whose volume differs by more are inflated differently: density follows inspiration."""

LEAST_SCANS = 3
"""Fewer scans have no spread to speak of."""
