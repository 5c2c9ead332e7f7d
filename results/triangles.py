"""Closed surfaces of triangles: their volume, whether they are closed, and what makes them so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vertices = NDArray[np.float32]
Faces = NDArray[np.int32]

_STEPS, _CLOSE = 8, 1e-3
"""Steps to a volume at most, one or two but for the thinnest masks; and the share that may lack."""


def signed_volume(vertices: NDArray[Any], faces: NDArray[Any]) -> float:
    """Volume inside a closed surface, positive if its triangles are oriented outwards."""
    middle = vertices.mean(axis=0, dtype=np.float64)
    a, b, c = (vertices[faces[:, k]].astype(np.float64) - middle for k in range(3))
    return float(np.einsum("ni,ni->", a, np.cross(b, c)) / 6)


def is_closed(faces: NDArray[Any], count: int) -> bool:
    """Every edge belongs to two triangles that run along it in opposite directions.

    Parameters
    ----------
    faces
        int [m, 3].
    count
        Number of vertices.
    """
    ahead, behind = _edges(faces, count)
    ahead.sort()
    behind.sort()
    return bool(np.array_equal(ahead, behind) and (np.diff(ahead) > 0).all())


def with_volume(vertices: Vertices, faces: Faces, wanted: float) -> Vertices:
    """Move a surface outwards, everywhere alike, until it has a volume.

    Smoothing costs volume, thin parts the most of it. Of a closed surface the volume grows by a
    vertex's move times a third of the area of the triangles around it (the gradient of the volume).

    Parameters
    ----------
    wanted
        In the cube of the vertices' unit.
    """
    moved, corners = vertices.astype(np.float64), faces.ravel()
    for _ in range(_STEPS):
        lacking = wanted - signed_volume(moved, faces)
        if abs(lacking) <= _CLOSE * wanted:
            break
        a, b, c = (moved[faces[:, k]] for k in range(3))
        across = np.cross(b - a, c - a) / 6
        share = np.stack(
            [np.bincount(corners, np.repeat(part, 3), len(moved)) for part in across.T], axis=1
        )
        length = np.linalg.norm(share, axis=1)
        outwards = share / np.maximum(length, np.finfo(float).tiny)[:, None]
        moved += outwards * (lacking / length.sum())
    return moved.astype(np.float32)


def manifold(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """The same surface with no edge of more than two triangles.

    Marching cubes leave some edges of four where two parts of a surface touch. All but two
    triangles of such an edge get a vertex on it, in pairs: their edges are others then, and nothing
    has moved.

    Parameters
    ----------
    faces
        int32 [m, 3] of a surface without a border.
    """
    while touching := list(_touching(faces, len(vertices))):
        points, halves = [vertices], []
        cut = np.zeros(len(faces), bool)
        count = len(vertices)
        for edge, along, against in touching:
            if cut[along].any() or cut[against].any():
                continue  # in the next round
            start, end = vertices[list(edge)]
            for k, pair in enumerate(zip(along[1:], against[1:], strict=True), 1):
                points.append((start + (end - start) * np.float32(k / len(along)))[None])
                halves += [_halved(faces[face].tolist(), edge, count) for face in pair]
                cut[list(pair)] = True
                count += 1
        vertices = np.concatenate(points)
        faces = np.concatenate([faces[~cut], np.array(halves, np.int32).reshape(-1, 3)])
    return vertices, faces


def _edges(faces: NDArray[Any], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for each edge of each triangle, in its direction and against it."""
    start = faces.astype(np.int64)
    end = np.roll(start, -1, axis=1)
    return (start * count + end).ravel(), (end * count + start).ravel()


def _touching(
    faces: Faces, count: int
) -> Iterator[tuple[tuple[int, int], NDArray[np.int64], NDArray[np.int64]]]:
    """Edges of more than two triangles, with those along the edge and as many against it."""
    ahead, _ = _edges(faces, count)
    order = np.argsort(ahead, kind="stable")
    sorted_ahead = ahead[order]
    repeated = np.unique(sorted_ahead[1:][np.diff(sorted_ahead) == 0])
    for start, end in zip(*(part.tolist() for part in np.divmod(repeated, count)), strict=True):
        if start < end:
            spans = (
                np.searchsorted(sorted_ahead, [key, key + 1])
                for key in (start * count + end, end * count + start)
            )
            along, against = (order[first:last] // 3 for first, last in spans)
            yield (start, end), along, against


def _halved(corners: list[int], edge: tuple[int, int], middle: int) -> list[list[int]]:
    """A triangle in two halves, cut from a vertex on one of its edges to the opposite corner."""
    k = next(k for k in range(3) if {corners[k], corners[(k + 1) % 3]} == set(edge))
    a, b, c = corners[k], corners[(k + 1) % 3], corners[k - 1]
    return [[a, middle, c], [middle, b, c]]
