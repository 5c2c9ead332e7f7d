"""The table of lesions: one row for each connected part (spec §3.3)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog.dlpe_quantities import SIDES, ZONES
from hilum.preprocessing.arrays import Array, namespace, to_host

from .chest import Chest, Triple, flattened
from .components import Parts
from .lesions import percentile
from .rims import inner_rim
from .sides import Sides

Place = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """One connected lesion.

    Attributes
    ----------
    lesion_id
        Its rank by size among all parts, from 1.
    voxels, volume_ml
        Its size.
    side, zone
        ``right`` or ``left`` lung; ``upper``, ``middle`` or ``lower`` third.
    centroid, box
        Mean index, and half-open ranges, in normalised space.
    centroid_mm
        To the patient's left, back and head; of the patient where the scan has a geometry, else
        from the middle of the volume.
    axial_diameter_mm
        The largest distance of two of its voxels in one axial plane.
    equivalent_diameter_mm
        Diameter of a ball of its volume.
    median_severity_hu, mean_severity_hu, p90_severity_hu
        HU above the baseline: median, mean, 90th percentile.
    total_severity_hu_ml
        Sum of severities times the voxel's volume.
    pleura_min_mm, pleura_mean_mm, vessel_min_mm, airway_min_mm
        Distances; None without vessels, airways.
    branching_mean
        Mean level of the branching map; None without one.
    touches_pleura
        A voxel of it lies at the surface of the lungs.
    visible_share
        Share of it that the network of visible lesions found, too.
    sets
        Names of the lesion sets that it has a voxel of; no column of the table.
    """

    lesion_id: int
    voxels: int
    volume_ml: float
    side: str
    zone: str
    centroid: Place
    centroid_mm: Place
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    axial_diameter_mm: float
    equivalent_diameter_mm: float
    median_severity_hu: float
    mean_severity_hu: float
    p90_severity_hu: float
    total_severity_hu_ml: float
    pleura_min_mm: float | None
    pleura_mean_mm: float | None
    vessel_min_mm: float | None
    airway_min_mm: float | None
    branching_mean: float | None
    touches_pleura: bool
    visible_share: float
    sets: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """One line of the table, by column."""
        row: dict[str, Any] = {}
        for name in (f.name for f in fields(self) if f.name != "sets"):
            value = getattr(self, name)
            if name == "centroid":
                row |= dict(zip(("centroid_x", "centroid_y", "centroid_z"), value, strict=True))
            elif name == "centroid_mm":
                row |= {f"centroid_{a}_mm": mm for a, mm in zip("lps", value, strict=True)}
            elif name == "box":
                row |= {
                    f"box_{a}{n}": v[n] for a, v in zip("xyz", value, strict=True) for n in (0, 1)
                }
            else:
                row[name] = value
        return row


@dataclass(frozen=True, slots=True)
class Maps:
    """Where each voxel of the lungs lies; boxes [x, y, z], None where there is no map.

    Attributes
    ----------
    pleura, vessel, airway
        float32, mm.
    branching
        float32, levels.
    """

    pleura: Array
    vessel: Array | None
    airway: Array | None
    branching: Array | None


def lesion_table(
    chest: Chest,
    found: Parts,
    sides: Sides,
    maps: Maps,
    sets: Mapping[str, Array],
    lps_affine: NDArray[np.float64] | None = None,
) -> tuple[Lesion, ...]:
    """List the lesions that are large enough, the largest first.

    Parameters
    ----------
    found
        Connected parts of the lesions, in parenchyma.
    sets
        bool boxes by name, as of `quantities.lesion_sets`; ``visible`` among them.
    lps_affine
        float64 [4, 4] from an index of normalised space to the patient's mm (LPS).
    """
    voxels = _Voxels.of(chest, found, sides, maps, sets)
    order, starts = found.by_component()
    rows = []
    for rank in range(int((found.sizes >= chest.min_voxels).sum())):
        one = voxels.take(order[starts[rank] : starts[rank + 1]])
        rows.append(_lesion(rank + 1, one, chest, sides, lps_affine))
    return tuple(rows)


def centred_mm(index: Place, shape: tuple[int, ...], voxel_mm: Triple) -> Place:
    """Index of a volume → mm to the left, back and head from the volume's middle."""
    p, left, s = ((i + 0.5 - n / 2) * mm for i, n, mm in zip(index, shape, voxel_mm, strict=True))
    return left, p, s


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> str:
    """A table as CSV: a header, decimal points, empty cells for None."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: _cell(v) for k, v in row.items()})
    return stream.getvalue()


@dataclass(frozen=True, slots=True)
class _Voxels:
    """Voxels of lesions on the host, [n].

    Attributes
    ----------
    columns
        By name, None without a map.
    sets
        bool by set: whether the set has the voxel.
    """

    columns: Mapping[str, NDArray[Any] | None]
    sets: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(
        cls, chest: Chest, found: Parts, sides: Sides, maps: Maps, sets: Mapping[str, Array]
    ) -> _Voxels:
        host = {"flat": to_host(found.flat), "severity": to_host(chest.severity(found.flat))}
        boxes = {
            "side": sides.labels,
            "pleura": maps.pleura,
            "vessel": maps.vessel,
            "airway": maps.airway,
            "branching": maps.branching,
            "border": inner_rim(chest.lung),
        }
        xp = namespace(chest.ct)

        def at(box: Array) -> NDArray[Any]:
            return to_host(xp.take(flattened(box), found.flat))

        taken = {name: None if box is None else at(box) for name, box in boxes.items()}
        named = {name: at(box) for name, box in sets.items() if name != "all"}
        return cls({**host, **taken}, named)

    def take(self, places: NDArray[np.int64]) -> _Voxels:
        columns = {k: None if v is None else v[places] for k, v in self.columns.items()}
        return _Voxels(columns, {k: v[places] for k, v in self.sets.items()})

    def __getitem__(self, name: str) -> NDArray[Any]:
        column = self.columns[name]
        assert column is not None  # noqa: S101 - only those that always exist are asked for
        return column

    def least(self, name: str) -> float | None:
        column = self.columns[name]
        return None if column is None else float(column.min())

    def mean(self, name: str) -> float | None:
        column = self.columns[name]
        return None if column is None else float(column.mean(dtype=np.float64))


def _lesion(
    number: int, one: _Voxels, chest: Chest, sides: Sides, affine: NDArray[np.float64] | None
) -> Lesion:
    index = np.stack(np.unravel_index(one["flat"], chest.crop.shape))
    low, high = index.min(axis=1), index.max(axis=1) + 1
    middle = index.mean(axis=1)
    origin = np.array(chest.crop.origin)
    severity = np.sort(one["severity"])
    volume = len(severity) * chest.voxel_ml
    left = 2 * np.count_nonzero(one["side"] == 2) > len(severity)
    centre = _place(middle + origin)
    (x0, y0, z0), (x1, y1, z1) = (low + origin).tolist(), (high + origin).tolist()
    visible = one.sets.get("visible")
    return Lesion(
        lesion_id=number,
        voxels=len(severity),
        volume_ml=volume,
        side=SIDES[int(left)],
        zone=ZONES[int(sides.zone(math.floor(middle[2] + 0.5)))],
        centroid=centre,
        centroid_mm=(
            centred_mm(centre, chest.crop.whole, chest.voxel_mm)
            if affine is None
            else _place(affine[:3, :3] @ np.array(centre) + affine[:3, 3])
        ),
        box=((x0, x1), (y0, y1), (z0, z1)),
        axial_diameter_mm=axial_diameter(index, chest.voxel_mm),
        equivalent_diameter_mm=(6 * volume * 1000 / math.pi) ** (1 / 3),
        median_severity_hu=percentile(severity, 50) or 0.0,
        mean_severity_hu=float(severity.mean()),
        p90_severity_hu=percentile(severity, 90) or 0.0,
        total_severity_hu_ml=float(severity.sum()) * chest.voxel_ml,
        pleura_min_mm=one.least("pleura"),
        pleura_mean_mm=one.mean("pleura"),
        vessel_min_mm=one.least("vessel"),
        airway_min_mm=one.least("airway"),
        branching_mean=one.mean("branching"),
        touches_pleura=bool(one["border"].any()),
        visible_share=0.0 if visible is None else float(visible.mean()),
        sets=tuple(name for name, inside in one.sets.items() if inside.any()),
    )


def axial_diameter(index: NDArray[np.int64], voxel_mm: Triple) -> float:
    """Largest distance in mm of two voxels, int [3, n], that lie in one plane across axis 2."""
    order = np.argsort(index[2], kind="stable")
    x, y, z = index[:, order]
    cuts = np.flatnonzero(np.diff(z)) + 1
    longest = 0.0
    for plane in np.split(np.stack([x, y], axis=1).astype(np.int32), cuts):
        hull = cv2.convexHull(plane)[:, 0].astype(np.float64) * voxel_mm[:2]
        apart = ((hull[:, None] - hull[None]) ** 2).sum(axis=2).max()
        longest = max(longest, float(apart))
    return math.sqrt(longest)


def _place(values: NDArray[Any]) -> Place:
    x, y, z = values.tolist()
    return x, y, z


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value


COLUMNS = tuple(
    Lesion(
        lesion_id=0, voxels=0, volume_ml=0, side="", zone="", centroid=(0, 0, 0),
        centroid_mm=(0, 0, 0), box=((0, 0), (0, 0), (0, 0)), axial_diameter_mm=0,
        equivalent_diameter_mm=0, median_severity_hu=0, mean_severity_hu=0, p90_severity_hu=0,
        total_severity_hu_ml=0, pleura_min_mm=None, pleura_mean_mm=None, vessel_min_mm=None,
        airway_min_mm=None, branching_mean=None, touches_pleura=False, visible_share=0,
    ).row()
)  # fmt: skip
"""Columns of the table."""
