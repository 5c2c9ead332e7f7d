"""Slices as the frames of one file: in any order there, and not all of them part of the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .content import Content, Finding, Segment


def on_frames(content: Content, count: int) -> Content:
    """A content whose slices are all `count` frames of a file, in the file's order.

    Frames that are no slice of the volume stay empty.
    """
    places = np.asarray(content.frames, np.intp)

    def spread(array: NDArray[Any]) -> NDArray[Any]:
        whole = np.zeros((count, *array.shape[1:]), array.dtype)
        whole[places] = array
        return whole

    def segments(given: Sequence[Segment]) -> list[Segment]:
        return [
            replace(
                s,
                mask=spread(s.mask),
                probability=None if s.probability is None else spread(s.probability),
            )
            for s in given
        ]

    enhanced = content.enhanced
    return replace(
        content,
        anatomy=segments(content.anatomy),
        lesions=segments(content.lesions),
        findings=[_moved(finding, content.frames) for finding in content.findings],
        enhanced=enhanced and replace(enhanced, voxels=spread(enhanced.voxels)),
    )


def _moved(finding: Finding, frames: Sequence[int]) -> Finding:
    box = finding.box
    return finding if box is None else replace(finding, box=replace(box, slice=frames[box.slice]))
