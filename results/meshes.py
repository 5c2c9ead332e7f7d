"""Surfaces of masks as STL and GLB, in the patient's millimetres (LPS); needs the extra `meshes`.

Spec dlpe_quantification §8.4 (as published) and §8.5. Marching cubes are scikit-image's.
"""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.errors import HilumError
from hilum.preprocessing.arrays import to_host

from .atomic import whole_file
from .triangles import Faces, Vertices, is_closed, manifold, signed_volume, with_volume

Rgb = tuple[int, int, int]

SMOOTH_VOXELS = 0.7
"""Standard deviation in voxels by which masks are smoothed that are no lesions."""

_STL_HEADER = b"Hilum surface; SPACE=LPS; UNITS=mm; research only"
_PUBLISHED_HEADER = b"Visualization Toolkit generated SLA File"

_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])

_GLB_JSON, _GLB_BINARY = 0x4E4F534A, 0x004E4942
_FLOAT, _UNSIGNED, _POSITIONS, _INDICES = 5126, 5125, 34962, 34963


class MeshesMissing(HilumError):
    """The library for surfaces is not installed."""

    code = "meshes"


@dataclass(frozen=True, slots=True)
class Structure:
    """A mask of which a surface is made.

    Attributes
    ----------
    mask
        uint8 or bool [x, y, z].
    colour, alpha
        In scenes.
    smooth
        Smooth the surface; its volume stays that of the mask.
    """

    name: str
    mask: NDArray[Any] = field(repr=False)
    colour: Rgb
    alpha: float = 1.0
    smooth: bool = False


@dataclass(frozen=True, slots=True)
class Surface:
    """A closed surface.

    Attributes
    ----------
    vertices
        float32 [n, 3], LPS in mm.
    faces
        int32 [m, 3], counter-clockwise from outside.
    """

    name: str
    vertices: Vertices = field(repr=False)
    faces: Faces = field(repr=False)
    colour: Rgb = (255, 255, 255)
    alpha: float = 1.0

    @property
    def area_mm2(self) -> float:
        """Area."""
        return float(np.linalg.norm(self._cross(), axis=1).sum() / 2)

    @property
    def volume_ml(self) -> float:
        """Volume inside; negative if it were turned inside out."""
        return signed_volume(self.vertices, self.faces) / 1000

    @property
    def closed(self) -> bool:
        """Every edge belongs to two triangles that run along it in opposite directions."""
        return is_closed(self.faces, len(self.vertices))

    def report(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "vertices": len(self.vertices),
            "triangles": len(self.faces),
            "area_mm2": self.area_mm2,
            "volume_ml": self.volume_ml,
            "closed": self.closed,
        }

    def _cross(self) -> NDArray[np.float64]:
        a, b, c = (self.vertices[self.faces[:, k]].astype(np.float64) for k in range(3))
        return np.cross(b - a, c - a)


def check_meshes() -> None:
    """Refuse surfaces where their library is not installed, before work is done.

    Raises
    ------
    MeshesMissing
        Naming the extra.
    """
    _marching_cubes()


def surface(
    structure: Structure,
    voxel_mm: Sequence[float],
    lps_affine: NDArray[np.float64] | None = None,
) -> Surface | None:
    """Make the surface of a mask; None of an empty one.

    Parameters
    ----------
    voxel_mm
        Size of a voxel along each axis; without an affine the volume is centred on 0.
    lps_affine
        float64 [4, 4]: index (x, y, z, 1) → LPS in mm.

    Raises
    ------
    MeshesMissing
        Without scikit-image.
    """
    marching_cubes = _marching_cubes()
    mask = to_host(structure.mask)
    box = _box(mask)
    if box is None:
        return None
    values = np.pad(mask[box].astype(np.float32), _RIM)
    if structure.smooth:
        values = _smoothed(values)
    vertices, faces = marching_cubes(values, 0.5, allow_degenerate=False)[:2]
    vertices += np.array([s.start - _RIM for s in box], np.float32)
    affine = centred_affine(mask.shape, voxel_mm) if lps_affine is None else lps_affine
    placed = (vertices @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)
    faces = faces.astype(np.int32)
    if signed_volume(placed, faces) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    if structure.smooth:
        voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
        placed = with_volume(placed, faces, np.count_nonzero(mask[box]) * voxel_mm3)
    placed, faces = manifold(placed, faces)
    return Surface(structure.name, placed, faces, structure.colour, structure.alpha)


def surfaces(
    structures: Iterable[Structure],
    voxel_mm: Sequence[float],
    lps_affine: NDArray[np.float64] | None = None,
) -> list[Surface]:
    """Surfaces of all structures that are not empty; see `surface`."""
    made = (surface(one, voxel_mm, lps_affine) for one in structures)
    return [one for one in made if one is not None]


def centred_affine(shape: Sequence[int], voxel_mm: Sequence[float]) -> NDArray[np.float64]:
    """Index of a volume [x, y, z] → mm to the left, back and head from the volume's middle."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for row, axis in enumerate((1, 0, 2)):
        affine[row, axis] = voxel_mm[axis]
        affine[row, 3] = (0.5 - shape[axis] / 2) * voxel_mm[axis]
    return affine


def published_triangles(mask: NDArray[Any]) -> NDArray[np.float32]:
    """Triangles as the published program exports them: float32 [n, 3, 3] (spec §8.4).

    The surface runs through the centres of the mask's outer voxels, half a voxel too far inside;
    single voxels and rows have none, and it is open where the mask meets a face of the volume.
    Coordinates are voxels: axis 1, axis 0, axis 2.
    """
    marching_cubes = _marching_cubes()
    values = (to_host(mask) > 0.5).astype(np.float32)
    if not values.any() or values.all():
        return np.zeros((0, 3, 3), np.float32)
    # Value 1 of a mask of 0 and 1: a crossing lies, but for rounding, on the voxel with 1.
    level = 1 - 1e-4
    vertices, faces = marching_cubes(values, level, method="lorensen", allow_degenerate=True)[:2]
    triangles = np.rint(vertices)[:, [1, 0, 2]].astype(np.float32)[faces]
    a, b, c = (triangles[:, k] for k in range(3))
    seen = (a != b).any(axis=1) & (b != c).any(axis=1) & (c != a).any(axis=1)
    triangles = triangles[seen]
    flat = triangles.astype(np.float64)
    if np.einsum("ni,ni->n", flat[:, 0], np.cross(flat[:, 1], flat[:, 2])).sum() < 0:
        triangles = triangles[:, ::-1]
    return np.ascontiguousarray(triangles)


def write_stl(path: Path, found: Surface) -> None:
    """Write a surface as binary STL, whole or not at all.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    _write_triangles(path, found.vertices[found.faces], _STL_HEADER)


def stl_bytes(found: Surface) -> bytes:
    """What `write_stl` writes."""
    return _stl(found.vertices[found.faces], _STL_HEADER)


def write_published_stl(path: Path, mask: NDArray[Any]) -> None:
    """Write the published surface of a mask, see `published_triangles`."""
    _write_triangles(path, published_triangles(mask), _PUBLISHED_HEADER)


def write_glb(path: Path, found: Sequence[Surface]) -> None:
    """Write surfaces as one scene, GLB (glTF 2.0): metres, y to the head, z to the front.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    binary: list[bytes] = []
    scene: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "Hilum"},
        "extras": {"note": "Not a medical device. For research only."},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(found)))}],
        "nodes": [{"name": one.name, "mesh": k} for k, one in enumerate(found)],
        "meshes": [], "materials": [], "accessors": [], "bufferViews": [],
    }  # fmt: skip
    for one in found:
        _add(scene, binary, one)
    whole = b"".join(binary)
    scene["buffers"] = [{"byteLength": len(whole)}]
    if not found:  # glTF has no empty lists
        scene = {"asset": scene["asset"]}
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), _GLB_JSON) + text
    if whole:
        chunks += struct.pack("<II", len(whole), _GLB_BINARY)
    with whole_file(path) as partial, partial.open("wb") as stream:
        stream.write(b"glTF" + struct.pack("<II", 2, 12 + len(chunks) + len(whole)))
        stream.write(chunks)
        stream.write(whole)


def gltf_positions(lps_mm: NDArray[Any]) -> Vertices:
    """LPS in mm → glTF in metres: left, head, front."""
    left, back, head = np.moveaxis(np.asarray(lps_mm, np.float64), -1, 0)
    return (np.stack([left, head, -back], axis=-1) / 1000).astype(np.float32)


_RIM = 4
"""Background around a mask: room for smoothing."""


def _marching_cubes() -> Any:
    try:
        return importlib.import_module("skimage.measure").marching_cubes
    except ImportError:
        raise MeshesMissing(
            "surfaces need scikit-image: install Hilum's extra 'meshes', or leave --meshes out"
        ) from None


def _box(mask: NDArray[Any]) -> tuple[slice, slice, slice] | None:
    first = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(first):
        return None
    flat = mask[first[0] : first[-1] + 1].any(axis=0)
    second, third = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    a, b, c = (slice(int(f[0]), int(f[-1]) + 1) for f in (first, second, third))
    return a, b, c


def _smoothed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A Gaussian along each axis, three voxels to both sides; thin parts that it loses stay."""
    kernel = cv2.getGaussianKernel(7, SMOOTH_VOXELS, cv2.CV_32F)
    one = np.ones(1, np.float32)
    lines = values.reshape(values.shape[0], -1)
    lines = np.asarray(cv2.sepFilter2D(lines, -1, one, kernel, borderType=cv2.BORDER_CONSTANT))
    smoothed = lines.reshape(values.shape)
    for k, plane in enumerate(smoothed):
        smoothed[k] = cv2.sepFilter2D(plane, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    smoothed[(values > 0.5) & ~_grown(smoothed > 0.5)] = 1
    return np.asarray(smoothed, np.float32)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and the 26 neighbours of its voxels."""
    grown = mask.view(np.uint8)
    lines = cv2.dilate(grown.reshape(len(grown), -1), np.ones((3, 1), np.uint8))
    grown = np.asarray(lines).reshape(mask.shape)
    return np.stack([cv2.dilate(plane, np.ones((3, 3), np.uint8)) for plane in grown]) > 0


def _write_triangles(path: Path, corners: NDArray[Any], header: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(_stl(corners, header))


def _stl(corners: NDArray[Any], header: bytes) -> bytes:
    triangles = np.zeros(len(corners), _TRIANGLE)
    triangles["corners"] = corners
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(across, axis=1, keepdims=True)
    triangles["normal"] = np.divide(across, length, out=np.zeros_like(across), where=length > 0)
    return header.ljust(80, b"\0") + struct.pack("<I", len(triangles)) + triangles.tobytes()


def _add(scene: dict[str, Any], binary: list[bytes], one: Surface) -> None:
    """Add a surface to a scene and its arrays to the binary part."""
    positions = gltf_positions(one.vertices)
    arrays = (
        (positions, _POSITIONS, {"componentType": _FLOAT, "type": "VEC3",
         "min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}),
        (one.faces.astype("<u4").ravel(), _INDICES,
         {"componentType": _UNSIGNED, "type": "SCALAR"}),
    )  # fmt: skip
    first = len(scene["accessors"])
    for array, target, more in arrays:
        start = sum(map(len, binary))
        binary.append(array.tobytes())
        scene["bufferViews"].append(
            {"buffer": 0, "byteOffset": start, "byteLength": array.nbytes, "target": target}
        )
        view = len(scene["bufferViews"]) - 1
        scene["accessors"].append({"bufferView": view, "count": len(array), **more})
    colour = [(c / 255) ** 2.2 for c in one.colour]  # glTF's colours are linear
    scene["materials"].append(
        {
            "name": one.name,
            "pbrMetallicRoughness": {
                "baseColorFactor": [*colour, one.alpha], "metallicFactor": 0.0,
                "roughnessFactor": 0.8,
            },
            "alphaMode": "BLEND" if one.alpha < 1 else "OPAQUE",
            "doubleSided": True,
        }
    )  # fmt: skip
    scene["meshes"].append(
        {
            "name": one.name,
            "primitives": [
                {
                    "attributes": {"POSITION": first}, "indices": first + 1,
                    "material": len(scene["materials"]) - 1,
                }
            ],
        }
    )  # fmt: skip
