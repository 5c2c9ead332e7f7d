"""From the content of a study to the DICOM files in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from hilum.preprocessing.reading.parsing import quiet

from ..atomic import make_folder, whole_file, whole_folder
from .content import Content, Provenance
from .enhanced import enhanced_series
from .frames import on_frames
from .identity import Identity
from .measurements import structured_report
from .parametric import parametric_map
from .pictures import captures
from .presentation import window_state
from .segmentation import Encoding, probabilities, segmentation
from .source import Source, read_source, without_name
from .surfaces import encapsulated
from .withdrawal import withdrawal

FOLDER = "dicom"
"""Sub-folder of a study's folder."""

WITHDRAWAL = "withdrawal.dcm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is written beside the segmentations and the report.

    Attributes
    ----------
    segmentation
        See `segmentation.segmentation`.
    pictures, enhanced, window, surfaces
        Secondary captures, the derived series, the presentation state, encapsulated STL, where
        there is content.
    parametric_map
        The enhanced volume as float32, besides.
    probability
        Probabilities of lesions as a fractional segmentation, besides, where a system has them.
    """

    segmentation: Encoding = "binary"
    pictures: bool = True
    enhanced: bool = True
    window: bool = True
    surfaces: bool = True
    parametric_map: bool = False
    probability: bool = False


def write_objects(
    content: Content,
    files: Sequence[Path],
    provenance: Provenance,
    folder: Path,
    choice: Choice | None = None,
    earlier: Path | None = None,
) -> list[str]:
    """Write all objects of one study below `folder`, or none; returns their names relative to it.

    Parameters
    ----------
    files
        The DICOM files that were processed, in the file's own order of slices.
    earlier
        Folder of an earlier result of the same study, if that is another one than `folder`. What
        it has and the new result has not is withdrawn by a key object, ``withdrawal.dcm``: a PACS
        may hold it.

    Raises
    ------
    InputError
        When the source lacks what results refer to.
    OutputError
        When a file cannot be written.
    """
    written: list[str] = []
    with quiet():
        source = read_source(files)
        make_folder(folder)
        before = _earlier(earlier or folder, str(source.first.StudyInstanceUID))
        with whole_folder(folder / FOLDER) as target:
            for name, dataset in objects(content, source, provenance, choice or Choice()):
                before.pop(str(dataset.SOPInstanceUID), None)
                _save(dataset, target / name)
                written.append(f"{FOLDER}/{name}")
            if before:
                identity = _identity(source, provenance)
                gone = withdrawal(list(before.values()), identity=identity, provenance=provenance)
                _save(gone, target / WITHDRAWAL)
                written.append(f"{FOLDER}/{WITHDRAWAL}")
    return written


def _identity(source: Source, provenance: Provenance) -> Identity:
    return Identity.of(provenance.key, source.first, source.patient_name, source.character_set)


def _save(dataset: Dataset, path: Path) -> None:
    make_folder(path.parent)
    with whole_file(path) as partial:
        dataset.save_as(partial, enforce_file_format=True)


def _earlier(folder: Path, study: str) -> dict[str, Dataset]:
    """Headers of an earlier result of this study by SOPInstanceUID; without its key object."""
    paths = sorted((folder / FOLDER).rglob("*.dcm"))
    found = (dcmread(p, stop_before_pixels=True) for p in paths if p.name != WITHDRAWAL)
    headers: dict[str, Dataset] = {
        str(one.SOPInstanceUID): one for one in found if one.StudyInstanceUID == study
    }
    for header in headers.values():
        without_name(header)
    return headers


def objects(
    content: Content, source: Source, provenance: Provenance, choice: Choice
) -> Iterator[tuple[str, Dataset]]:
    """The objects of one study with the names of their files, made one after the other."""
    identity = _identity(source, provenance)
    common = {"source": source, "identity": identity, "provenance": provenance}
    if source.multi_frame:
        content = on_frames(content, int(source.first.NumberOfFrames))
    made = {}
    for product, segments in (("anatomy", content.anatomy), ("lesions", content.lesions)):
        found = segmentation(
            segments,
            product=product,
            system=content.system,
            encoding=choice.segmentation,
            **common,
        )
        if found is not None:
            made[product] = found
            yield f"seg-{product}.dcm", found
    if choice.probability:
        both = (*content.anatomy, *content.lesions)
        found = probabilities(both, system=content.system, **common)
        if found is not None:
            yield "seg-probability.dcm", found
    if content.findings:
        yield "report.dcm", structured_report(content, made, **common)
    made.clear()
    if choice.window and content.window is not None and source.is_ct:
        state = window_state(content.window, **common)
        if state is not None:
            yield "window.dcm", state
    if choice.enhanced and content.enhanced is not None and not source.multi_frame:
        for number, instance in enumerate(enhanced_series(content.enhanced, **common), 1):
            yield f"enhanced/{number:04d}.dcm", instance
    if choice.parametric_map and content.enhanced is not None:
        yield "parametric-map.dcm", parametric_map(content.enhanced, **common)
    if choice.surfaces:
        for name, surface in encapsulated(content.surfaces, **common):
            yield f"surfaces/{name}.dcm", surface
    if choice.pictures:
        for number, picture in enumerate(captures(dict(content.pictures), **common), 1):
            yield f"picture-{number}.dcm", picture
