"""Surfaces: golden shapes as published and corrected, a ball, files that other readers take."""

from __future__ import annotations

import json
import struct
import sys

import numpy as np
import pytest

from hilum.results.meshes import (
    MeshesMissing,
    Structure,
    Surface,
    centred_affine,
    gltf_positions,
    published_triangles,
    surface,
    surfaces,
    write_glb,
    write_published_stl,
    write_stl,
)
from hilum.results.triangles import is_closed, manifold, signed_volume
from hilum.systems.dlpe.options import Options

MM = (334 / 512, 334 / 512, 1.0)


def golden_mask(stored, name):
    mask = stored[f"{name}_mask"]
    if mask.ndim == 3:
        return mask
    shape = stored[f"{name}_shape"]
    return np.unpackbits(mask, count=shape.prod()).reshape(shape)


def ball(radius=20.0, side=48):
    grid = np.indices((side,) * 3) - (side - 1) / 2
    return (np.square(grid).sum(axis=0) <= radius**2).astype(np.uint8)


def made(mask, **options) -> Surface:
    found = surface(Structure("ball", mask, (255, 0, 0), **options), MM)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["one", "row", "box", "border", "ball"])
def test_golden_surfaces(golden, name) -> None:
    stored = np.load(golden / "dlpe_quant" / "11_mesh.npz")
    expected = json.loads((golden / "dlpe_quant" / "11_mesh.json").read_text())[name]
    found = made(golden_mask(stored, name))
    report = found.report()
    assert found.closed is expected["closed"]
    edges = 3 * len(found.faces) // 2
    assert len(found.vertices) - edges + len(found.faces) == expected["euler"]
    np.testing.assert_allclose(found.vertices.min(axis=0), expected["lo"], atol=1e-4)
    np.testing.assert_allclose(found.vertices.max(axis=0), expected["hi"], atol=1e-4)
    assert report["volume_ml"] * 1000 == pytest.approx(expected["volume"], rel=5e-3)
    assert report["area_mm2"] == pytest.approx(expected["area"], rel=5e-3)


@pytest.mark.parametrize("name", ["one", "row", "cube2", "box", "border", "ball"])
def test_golden_surfaces_as_published(golden, name) -> None:
    stored = np.load(golden / "dlpe_quant" / "06_stl_parity.npz")
    found = published_triangles(stored[f"{name}_mask"]).astype(np.float64)
    area, volume = stored[f"{name}_area_volume"]
    a, b, c = (found[:, k] for k in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2 == pytest.approx(area, rel=1e-5)
    signed = np.einsum("ni,ni->", a, np.cross(b, c)) / 6
    assert signed == pytest.approx(volume, rel=1e-5)
    if name == "ball":
        assert len(found) == stored["ball_count"]
        low, high = stored["ball_lo"], stored["ball_hi"]
    elif f"{name}_triangles" in stored and len(stored[f"{name}_triangles"]):
        expected = stored[f"{name}_triangles"].reshape(-1, 3)
        low, high = expected.min(axis=0), expected.max(axis=0)
    else:
        assert not len(found)
        return
    np.testing.assert_array_equal(found.reshape(-1, 3).min(axis=0), low)
    np.testing.assert_array_equal(found.reshape(-1, 3).max(axis=0), high)


def test_the_published_file_has_its_header_and_size(golden, tmp_path) -> None:
    stored = np.load(golden / "dlpe_quant" / "06_stl_parity.npz")
    write_published_stl(tmp_path / "cube.stl", stored["cube2_mask"])
    ours, expected = (tmp_path / "cube.stl").read_bytes(), stored["cube2_file"].tobytes()
    assert (len(ours), ours[:40]) == (len(expected), expected[:40])
    assert ours[80:84] == expected[80:84]


@pytest.mark.parametrize("smooth", [False, True])
def test_a_ball_has_its_volume_is_closed_and_faces_outwards(smooth) -> None:
    mask = ball()
    found = made(mask, smooth=smooth)
    assert found.closed
    assert found.volume_ml == pytest.approx(mask.sum() * np.prod(MM) / 1000, rel=5e-3)
    middle = found.vertices.mean(axis=0)
    a, b, c = (found.vertices[found.faces[:, k]] for k in range(3))
    outwards = np.einsum("ni,ni->n", np.cross(b - a, c - a), (a + b + c) / 3 - middle)
    assert (outwards > 0).all()


def test_thin_tubes_keep_their_volume_where_surfaces_are_smoothed() -> None:
    """Vessels of a preview are one or two voxels thick; smoothing alone leaves less than half."""
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[3:37, 8, 8] = mask[20:22, 4:30, 30:32] = mask[30, 30, 5:30] = 1
    mask[5, 35, 5] = 1
    found = made(mask, smooth=True)
    assert found.closed
    assert found.volume_ml == pytest.approx(mask.sum() * np.prod(MM) / 1000, rel=5e-3)
    index = found.vertices @ np.linalg.inv(centred_affine(mask.shape, MM))[:3, :3].T
    index = np.rint(index + (np.array(mask.shape) - 1) / 2).astype(int)
    near = np.pad(mask, 1)
    near = np.max([np.roll(near, s, a) for a in range(3) for s in (-1, 0, 1)], axis=0)
    assert near[tuple((index + 1).T)].all()  # no vertex a voxel off


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_surfaces_of_masks_that_touch_everywhere_are_closed(tmp_path, smooth, share) -> None:
    trimesh = pytest.importorskip("trimesh")
    mask = (np.random.default_rng(5).random((16, 17, 18)) < share).astype(np.uint8)
    found = made(mask, smooth=smooth)
    assert found.closed
    assert found.volume_ml > 0
    write_stl(tmp_path / "noise.stl", found)
    read = trimesh.load(tmp_path / "noise.stl")
    assert read.is_watertight
    assert read.is_winding_consistent


def test_an_edge_of_four_triangles_is_not_closed() -> None:
    ahead = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]], np.int32)
    other = ahead.copy()
    other[ahead > 1] += 2  # a second body on the edge from 0 to 1
    both = np.concatenate([ahead, other])
    points = np.array(
        [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 1], [-1, 0, 0], [-1, -1, 1]], np.float32
    )
    assert is_closed(ahead, 4)
    assert not is_closed(both, 6)
    vertices, faces = manifold(points, both)
    assert is_closed(faces, len(vertices))
    assert signed_volume(vertices, faces) == pytest.approx(signed_volume(points, both))


def test_coordinates_are_the_patients(golden) -> None:
    analytic = json.loads((golden / "dlpe_quant" / "13_analytic.json").read_text())
    vector = analytic["lps_of_index"]
    affine = centred_affine(vector["shape"], MM)
    np.testing.assert_allclose((affine @ [*vector["index"], 1])[:3], vector["lps_mm"])
    found = gltf_positions(np.array(analytic["gltf"]["lps_mm"]))
    np.testing.assert_allclose(found, analytic["gltf"]["gltf_m"], rtol=1e-6)
    placed = surface(Structure("a", ball(), (0, 0, 0)), MM, np.diag([-1.0, 2.0, 3.0, 1.0]))
    assert placed is not None
    assert placed.volume_ml > 0
    np.testing.assert_allclose(placed.vertices.mean(axis=0), [-23.5, 47, 70.5], atol=0.1)


def test_empty_masks_have_no_surface() -> None:
    masks = (np.zeros((8, 8, 8), np.uint8), ball(3, 8))
    found = surfaces([Structure(str(k), m, (0, 0, 0)) for k, m in enumerate(masks)], MM)
    assert [one.name for one in found] == ["1"]
    assert len(published_triangles(masks[0])) == 0


def test_an_stl_file_says_its_space_and_holds_every_triangle(tmp_path) -> None:
    found = made(ball())
    write_stl(tmp_path / "ball.stl", found)
    data = (tmp_path / "ball.stl").read_bytes()
    assert not data.startswith(b"solid")
    assert b"SPACE=LPS" in data[:80]
    assert b"UNITS=mm" in data[:80]
    assert struct.unpack("<I", data[80:84]) == (len(found.faces),)
    assert len(data) == 84 + 50 * len(found.faces)


def test_another_library_reads_the_same_surfaces(tmp_path) -> None:
    trimesh = pytest.importorskip("trimesh")
    found = made(ball())
    write_stl(tmp_path / "ball.stl", found)
    read = trimesh.load(tmp_path / "ball.stl")
    assert read.is_watertight
    assert read.volume / 1000 == pytest.approx(found.volume_ml, rel=1e-5)
    np.testing.assert_allclose(read.bounds[0], found.vertices.min(axis=0), atol=1e-4)
    second = Surface("half", found.vertices, found.faces, (0, 255, 0), 0.25)
    write_glb(tmp_path / "scene.glb", [found, second])
    scene = trimesh.load(tmp_path / "scene.glb")
    assert set(scene.geometry) == {"ball", "half"}
    for one in scene.geometry.values():
        assert one.is_watertight
        assert one.volume * 1e6 == pytest.approx(found.volume_ml, rel=1e-4)
        material = one.visual.material
    assert material.alphaMode == "BLEND"


def test_a_scene_without_surfaces_is_a_scene(tmp_path) -> None:
    write_glb(tmp_path / "none.glb", [])
    data = (tmp_path / "none.glb").read_bytes()
    assert struct.unpack("<4sII", data[:12]) == (b"glTF", 2, len(data))


def test_without_the_library_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(MeshesMissing, match="extra 'meshes'"):
        made(ball())
    with pytest.raises(MeshesMissing, match="extra 'meshes'"):
        Options(meshes=True)
