"""Results of DLPE that were written: found, read, compared, and summed up over a folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from hilum.catalog.dlpe import SYSTEM
from hilum.catalog.dlpe_quantities import PERIPHERAL_LEVEL
from hilum.catalog.errors import InputError
from hilum.postprocessing.dlpe.branching import Branching, branching
from hilum.postprocessing.dlpe.chest import Chest, Triple, cut_chest
from hilum.postprocessing.dlpe.cohort import Spread, spread
from hilum.postprocessing.dlpe.comparison import Fated, Lungs, Measured, changes, fates
from hilum.postprocessing.dlpe.quantities import ENHANCED_SETS, lesion_sets
from hilum.postprocessing.dlpe.sides import find_sides

REPORT = "report.json"

_ZONE_FIELDS = ("lung_ml", "lesion_ml", "share", "score")

_DAMAGED = (OSError, ValueError, EOFError, ImageFileError)


@dataclass(frozen=True, slots=True)
class Stored:
    """One study of a results folder.

    Attributes
    ----------
    folder
        Of its files.
    head, entry
        Fields of the report, and of this study.
    """

    folder: Path
    head: Mapping[str, Any] = field(repr=False)
    entry: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Number of the study."""
        return str(self.entry["name"])

    def volume(self, name: str) -> tuple[NDArray[Any], Triple]:
        """A written volume as [x, y, z] to the back, to the left and to the head, and its voxel."""
        path = self.folder / f"{name}.nii.gz"
        try:
            image: Any = nibabel.as_closest_canonical(nibabel.load(path))
            values = np.asanyarray(image.dataobj)
        except _DAMAGED:
            raise InputError(
                f"{path} cannot be read; compare folders that `hilum run dlpe` wrote whole"
            ) from None
        # Canonical is right, front, head; ours goes to the back and to the left.
        turned = np.ascontiguousarray(values[::-1, ::-1].transpose(1, 0, 2))
        right, front, up = (float(mm) for mm in image.header.get_zooms()[:3])
        return turned, (front, right, up)

    def masks(self) -> tuple[dict[str, NDArray[np.uint8]], Triple]:
        """Lungs, trees and lesions that were written."""
        found, voxel_mm = {}, (1.0, 1.0, 1.0)
        for name in ("lung", "airway", "vessel", "visible", *ENHANCED_SETS):
            if (self.folder / f"{name.replace('_', '-')}.nii.gz").is_file():
                volume, voxel_mm = self.volume(name.replace("_", "-"))
                found[name] = (volume > 0).astype(np.uint8)
        if "lung" not in found:
            raise InputError(f"{self.folder} has no lung.nii.gz; give a study's folder of a run")
        return found, voxel_mm


def find_stored(path: Path) -> list[Stored]:
    """The studies of a results folder, or the one whose own folder was named.

    Raises
    ------
    InputError
        Where there is no report of DLPE.
    """
    for folder, wanted in ((path, None), (path.parent, path.name)):
        report = _report(folder / REPORT)
        if report is not None:
            entries = [e for e in report["results"] if wanted in (None, e["name"])]
            measured = [e for e in entries if "volumes_ml" in e]
            if measured:
                head = {k: v for k, v in report.items() if k != "results"}
                return [Stored(folder / e["name"], head, e) for e in measured]
    raise InputError(
        f"{path} holds no result of dlpe; give the folder of a run (with {REPORT}), or a study's"
    )


def stored_below(path: Path) -> list[Stored]:
    """The studies of all results folders at or below a folder, in the order of their paths.

    Raises
    ------
    InputError
        Where there are none.
    """
    reports = sorted(p for p in path.rglob(REPORT) if _report(p) is not None)
    found = [one for report in reports for one in find_stored(report.parent)]
    return found or find_stored(path)


def one_stored(path: Path) -> Stored:
    """The only study of a folder.

    Raises
    ------
    InputError
        For several, or none.
    """
    found = find_stored(path)
    if len(found) > 1:
        raise InputError(
            f"{path} holds {len(found)} studies; name the folder of one, such as {found[0].folder}"
        )
    return found[0]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results of one patient.

    Attributes
    ----------
    fates
        By lesion set; for pictures and tables of lesions that of ``all``.
    """

    earlier: Stored
    later: Stored
    report: Mapping[str, Any]
    fates: Mapping[str, tuple[Fated, ...]]


def compare(earlier: Stored, later: Stored) -> Comparison:
    """Compare two results; the scans are not registered (spec dlpe_quantification §6)."""
    before, after = _chest(earlier), _chest(later)
    names = [n for n in ("all", "visible", *ENHANCED_SETS, "sub_visual") if n in _sets(earlier)]
    sets: dict[str, Any] = {}
    lesions: dict[str, tuple[Fated, ...]] = {}
    for name in (n for n in names if n in _sets(later)):
        sets[name] = changes(_measured(earlier, name), _measured(later, name))
        lesions[name] = fates(_lungs(before, name), _lungs(after, name))
        counted = {f"{fate}_lesions": sum(one.fate == fate for one in lesions[name])
                   for fate in ("new", "persisting", "resolved")}  # fmt: skip
        sets[name] |= counted | {"zones": _zones(earlier, later, name)}
    flags = sorted({flag for one in sets.values() for flag in one.pop("flags")})
    report = {
        "system": SYSTEM.name,
        "earlier": earlier.name,
        "later": later.name,
        "flags": [*_differences(earlier, later), *flags],
        "registered": False,
        "sets": sets,
        "branching": _branching(before, after),
    }
    return Comparison(earlier, later, report, lesions)


def summed_up(stored: list[Stored]) -> tuple[list[dict[str, Any]], Spread | None]:
    """A row for each study, and the spread of bias against severity; None of fewer than 3."""
    rows = [_row(one) for one in stored]
    pairs = [
        (row["baseline_hu"], row["median_severity_hu"])
        for row in rows
        if row["baseline_hu"] is not None and row["median_severity_hu"] is not None
    ]
    if len(pairs) < 3:
        return rows, None
    baselines, severities = zip(*pairs, strict=True)
    return rows, spread(baselines, severities)


def columns(rows: list[dict[str, Any]], *names: str) -> NDArray[np.float64]:
    """Columns of numbers, of the studies that have all: float64 [len(names), studies].

    Raises
    ------
    InputError
        For a column that is not there, or holds no numbers.
    """
    numbers = [k for k in rows[0] if k not in ("study", "status")] if rows else []
    for name in names:
        if name not in numbers:
            raise InputError(f"no column {name!r} of numbers; there are {', '.join(numbers)}")
    found = [[row[name] for name in names] for row in rows]
    whole = [values for values in found if None not in values]
    return np.array(whole, np.float64).reshape(-1, len(names)).T


def _report(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path} cannot be read; it is no report of `hilum run`") from None
    known = isinstance(report, dict) and isinstance(report.get("results"), list)
    return report if known and report.get("system") == SYSTEM.name else None


def _row(one: Stored) -> dict[str, Any]:
    entry = one.entry
    lesions = _sets(one).get("all", {})
    return {
        "study": one.name,
        "status": entry["status"],
        "baseline_hu": entry.get("severity_reference_hu"),
        "lung_ml": entry["volumes_ml"].get("lung"),
        "lesion_ml": lesions.get("volume_ml"),
        "share_of_lungs": lesions.get("share_of_lungs"),
        "median_severity_hu": lesions.get("median_severity_hu"),
        "total_severity_hu_ml": lesions.get("total_severity_hu_ml"),
        "lesion_count": lesions.get("lesion_count"),
        "score_0_24": (entry.get("zones") or {}).get("all", {}).get("score_0_24"),
    }


def _sets(one: Stored) -> Mapping[str, Any]:
    return {k: v for k, v in one.entry.get("lesions", {}).items() if "lesion_count" in v}


def _measured(one: Stored, name: str) -> Measured:
    values = _sets(one)[name]
    inside = values.get("in_parenchyma_ml", values["volume_ml"])
    return Measured(
        one.entry["severity_reference_hu"],
        one.entry["volumes_ml"]["lung"],
        {**values, "volume_ml": inside},
    )


def _zones(earlier: Stored, later: Stored, name: str) -> dict[str, dict[str, float | None]]:
    before, after = (one.entry["zones"][name] for one in (earlier, later))
    table: dict[str, dict[str, float | None]] = {}
    for zone, values in before.items():
        if isinstance(values, Mapping):
            table[zone] = {
                f"{field}_change": _less(after[zone].get(field), values.get(field))
                for field in _ZONE_FIELDS
                if field in values
            }
    return table


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else round(after - before, 6)


def _differences(earlier: Stored, later: Stored) -> Iterator[str]:
    if earlier.head.get("mode") != later.head.get("mode"):
        yield "different_mode"
    if earlier.head.get("weights") != later.head.get("weights"):
        yield "different_weights"
    grids = [one.entry["normalised_space"]["shape"] for one in (earlier, later)]
    if grids[0] != grids[1]:
        yield "different_grid"


_SAME_VOXEL = 0.01
"""Share by which voxels may differ in size before levels of the branching map do."""


def _branching(before: _Scan, after: _Scan) -> dict[str, Any]:
    """Parenchyma at the finest vessels, by levels that begin at the earlier scan's widest vessel.

    Both maps are made of the written masks. Where one cannot be made, or voxels differ in size,
    nothing can be compared and `flag` says why.
    """
    first, flag = _tree(before, None)
    second, other = (None, flag) if first is None else _tree(after, first.r1_mm)
    flag = flag if flag != "ok" else other
    if flag == "ok" and not _same_voxels(before, after):
        flag = "different_voxels"
    shares = [_share_above_nine(one, tree) for one, tree in ((before, first), (after, second))]
    if flag != "ok" or None in shares:
        shares = [None, None]
    return {
        "flag": flag,
        "r1_mm": None if first is None else first.r1_mm,
        "share_level_above_9": {"earlier": shares[0], "later": shares[1]},
        "share_change": _less(shares[1], shares[0]),
    }


def _tree(scan: _Scan, r1_mm: float | None) -> tuple[Branching | None, str]:
    vessel = scan.masks.get("vessel")
    if scan.chest is None or vessel is None:
        return None, "no_vessel"
    found = branching(scan.chest, vessel, r1_mm)
    return (found, "ok") if found.level is not None else (None, found.flag)


def _same_voxels(before: _Scan, after: _Scan) -> bool:
    if before.chest is None or after.chest is None:
        return False
    return bool(np.allclose(before.chest.voxel_mm, after.chest.voxel_mm, rtol=_SAME_VOXEL))


def _share_above_nine(scan: _Scan, tree: Branching | None) -> float | None:
    if scan.chest is None or tree is None or tree.level is None:
        return None
    levels = tree.level[scan.chest.parenchyma]
    above = np.count_nonzero(levels > PERIPHERAL_LEVEL)
    return round(above / len(levels), 6) if len(levels) else None


@dataclass(frozen=True, slots=True)
class _Scan:
    """Masks of a written study and its lungs."""

    masks: Mapping[str, NDArray[np.uint8]]
    chest: Chest | None
    sides: NDArray[np.uint8]


def _chest(one: Stored) -> _Scan:
    masks, voxel_mm = one.masks()
    trees = {n: m for n, m in masks.items() if n in ("lung", "airway", "vessel")}
    # Nothing is measured in the CT: severities are those of the report.
    chest = cut_chest(masks["lung"].astype(np.float32), trees, voxel_mm, 0.0)
    nothing = np.zeros_like(masks["lung"])
    sides = nothing if chest is None else chest.crop.uncut(find_sides(chest).labels)
    return _Scan(masks, chest, sides)


def _lungs(scan: _Scan, name: str) -> Lungs:
    lesions = np.zeros(scan.sides.shape, bool)
    chest = scan.chest
    if chest is not None:
        lesions = chest.crop.uncut(_lesions(scan, chest, name))
    return Lungs(
        sides=scan.sides,
        lesions=lesions,
        voxel_mm=(1.0, 1.0, 1.0) if chest is None else chest.voxel_mm,
        min_voxels=1 if chest is None else chest.min_voxels,
    )


def _lesions(scan: _Scan, chest: Chest, name: str) -> NDArray[np.bool_]:
    if name in scan.masks:
        return chest.lesions(scan.masks[name])
    return lesion_sets(chest, scan.masks)[name]


def fate_rows(found: tuple[Fated, ...]) -> list[dict[str, Any]]:
    """One row for each lesion."""
    return [dataclasses.asdict(one) for one in found]
