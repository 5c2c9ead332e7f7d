"""What judges DICOM objects: dicom3tools, and the standard's tables of 2026 as highdicom has them.

The tables do not say when a conditional attribute must be there, nor know functional groups and
content trees: they judge objects of one frame. dicom3tools knows these, by an older standard.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

KNOWN = (
    "needed to build DICOMDIR",
    "Retired Person Name form",
    "DLPE_ENHANCED",  # a fourth value of ImageType is allowed
    "99HILUM",
    "Unrecognized defined term = <US>",  # PS3.3 C.11.1.1.2 has it: unspecified
    "Laterality(0020,0060)> - Missing",  # only of paired body parts
    "PatientOrientation(0020,0020)> - Missing",  # of a segmentation on an X-ray
    "<QUANTITY>",  # PS3.3 C.8.32.2 has it
    "RecommendedDisplayCIELabValue(0062,000d)> - Attribute is not present",  # PS3.3 C.35.1 has it
)
"""Complaints that are none, with the reason in docs/how-to/pacs.md."""


def complaints(file: Path) -> list[str]:
    """What dciodvfy finds wrong in a file, by the tables of the standard."""
    judged = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True)
    lines = (judged.stdout + judged.stderr).splitlines()
    assert lines
    found = [line for line in lines if line.startswith(("Error", "Warning"))]
    return [line for line in found if not any(known in line for known in KNOWN)]


def tabled(file: Path) -> list[str]:
    """What the tables of PS3.3 find in a file: attributes that lack, are empty, or do not belong.

    Nothing is found in objects of several frames and in reports.
    """
    from highdicom import _standard_utils as tables

    dataset = dcmread(file, stop_before_pixels=True)
    kind = tables.get_sop_class_iod_map()[str(dataset.SOPClassUID)]
    if dataset.Modality in ("SEG", "SR", "KO") or "SharedFunctionalGroupsSequence" in dataset:
        return []
    modules = tables.get_iod_module_map()[kind]
    attributes = tables.get_module_attribute_map()
    found, known = [], {("SpecificCharacterSet",), *_PIXELS}
    for module in modules:
        for row in attributes[module["key"]]:
            path = (*row["path"], row["keyword"])
            known.add(path)
            for parent in _parents(dataset, row["path"]):
                has = path in _PIXELS or row["keyword"] in (e.keyword for e in parent)
                if module["usage"] == "M" and row["type"] in ("1", "2") and not has:
                    found.append(f"{path} is missing, type {row['type']}")
                elif has and row["type"] == "1" and parent.get(row["keyword"], 0) in ("", None, []):
                    found.append(f"{path} is empty, type 1")
    return found + [f"{path} is not of {kind}" for path in _paths(dataset) if path not in known]


_PIXELS = {("PixelData",), ("EncapsulatedDocument",)}
"""Not read."""


def _parents(dataset: Dataset, path: list[str]) -> list[Dataset]:
    """The datasets at a path through sequences."""
    found = [dataset]
    for keyword in path:
        found = [item for parent in found for item in parent.get(keyword, [])]
    return found


def _paths(dataset: Dataset, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of each attribute of a dataset."""
    found: list[tuple[str, ...]] = []
    for element in dataset:
        path = (*above, str(element.keyword or element.tag))
        found.append(path)
        if element.VR == "SQ":
            items: Any = element.value
            found += [below for item in items for below in _paths(item, path)]
    return found


def assert_valid(files: Iterable[Path]) -> None:
    """Each file is valid and they agree on the study; by the tables alone without dicom3tools."""
    paths = list(files)
    assert paths
    assert {p.name: found for p in paths if (found := tabled(p))} == {}
    if shutil.which("dciodvfy") is None:
        return
    assert {p.name: found for p in paths if (found := complaints(p))} == {}
    entities = subprocess.run(["dcentvfy", *map(str, paths)], capture_output=True, text=True)
    lines = (entities.stdout + entities.stderr).splitlines()
    assert [line for line in lines if "AccessionNumber" not in line] == []  # also of a request
