"""Definitions of DLPE's steps that only tests need, word for word as the specification has them."""

from __future__ import annotations

from collections import deque
from itertools import product

import numpy as np

from hilum.benchmarks.dlpe_direct import Mask, drawn, inner_rim, neighbours, parts

_AROUND = [step for step in product((-1, 0, 1), repeat=3) if any(step)]


def extend_plane_corrected(plane: Mask, percent: int, cap: int) -> Mask:
    """Corrected definition (§7.4) in one plane [x, y]; `percent` is 10 or 20."""
    image = {(int(y), int(x)) for x, y in np.argwhere(plane)}
    grown = set(image)
    for region in parts(image):
        whole = set(region)
        rim = np.array(sorted(inner_rim(whole)))
        longest = max(float(np.hypot(*(rim - p).T).max()) for p in rim)
        for _ in range(int(min(round(longest), cap) * percent / 200 + 0.5)):
            whole |= {n for p in whole for n in neighbours(p)}
        grown |= whole
    return drawn(grown, plane.shape)


def refine(mask: Mask, keep: int, lowest_ratio: float) -> Mask:
    """Connectivity refinement (§9) with sets of voxels; faces count as background."""
    inner = mask.copy()
    for axis in range(3):
        np.moveaxis(inner, axis, 0)[[0, -1]] = 0
    left = {tuple(p) for p in np.argwhere(inner > 0.5).tolist()}
    components = []
    for seed in sorted(left):
        if seed not in left:
            continue
        left.discard(seed)
        found, waiting = [seed], deque([seed])
        while waiting:
            x, y, z = waiting.popleft()
            for i, j, k in _AROUND:
                near = (x + i, y + j, z + k)
                if near in left:
                    left.discard(near)
                    found.append(near)
                    waiting.append(near)
        components.append(found)
    components.sort(key=len, reverse=True)
    kept = np.zeros(mask.shape, np.uint8)
    for component in components[:keep]:
        if len(component) < lowest_ratio * len(components[0]):
            break
        kept[tuple(np.array(component).T)] = 1
    return kept
