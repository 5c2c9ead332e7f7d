"""Numbers as a structured report: TID 1500 in a Comprehensive 3D SR, preliminary and unverified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from highdicom import sr
from highdicom.seg import Segmentation
from pydicom.dataset import Dataset

from .codes import SCHEME
from .content import Box, Content, Finding, Provenance, Segment
from .equipment import MANUFACTURER, algorithm, concept, contribution, described
from .identity import SERIES_NUMBERS, Identity
from .segmentation import numbers, tracking_uid
from .source import Source

IMAGING_REPORT = ("126000", "DCM", "Imaging Measurement Report")


def structured_report(
    content: Content,
    segmentations: Mapping[str, Segmentation],
    *,
    source: Source,
    identity: Identity,
    provenance: Provenance,
) -> sr.Comprehensive3DSR:
    """The report of a study.

    Parameters
    ----------
    segmentations
        The objects of `content`, by ``anatomy`` and ``lesions``; the report refers to them.
    """
    writer = _Writer(content, segmentations, source, identity, provenance)
    report = sr.MeasurementReport(
        observation_context=_observer(identity, provenance),
        procedure_reported=concept(content.procedure),
        imaging_measurements=[writer.group(finding) for finding in content.findings],
        title=sr.CodedConcept(*IMAGING_REPORT),
        referenced_images=None if source.is_ct else list(source.images),
    )
    made = sr.Comprehensive3DSR(
        evidence=[*source.images, *segmentations.values()],
        content=report[0],
        series_instance_uid=identity.uid("report", "series"),
        series_number=SERIES_NUMBERS["report"],
        sop_instance_uid=identity.uid("report"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=described("report"),
        contributing_equipment=contribution(provenance),
    )
    made.CodingSchemeIdentificationSequence = [_own_scheme()]
    made.ManufacturerModelName = MANUFACTURER
    made.SoftwareVersions = provenance.version
    identity.settle(made, "report")
    return made


class _Writer:
    """Makes the groups of one report."""

    def __init__(
        self,
        content: Content,
        segmentations: Mapping[str, Segmentation],
        source: Source,
        identity: Identity,
        provenance: Provenance,
    ) -> None:
        self._source, self._identity, self._provenance = source, identity, provenance
        self._system = content.system
        self._segments: dict[str, tuple[Segment, Segmentation, int]] = {}
        for product, segments in (("anatomy", content.anatomy), ("lesions", content.lesions)):
            made = segmentations.get(product)
            if made is not None:
                for name, number in numbers(segments).items():
                    segment = next(s for s in segments if s.name == name)
                    self._segments[name] = segment, made, number

    def group(self, finding: Finding) -> Any:
        """One finding as a group of measurements."""
        common = {
            "tracking_identifier": sr.TrackingIdentifier(
                uid=tracking_uid(self._identity, finding.segment or finding.name),
                identifier=finding.name,
            ),
            "finding_type": concept(finding.type),
            "finding_sites": None
            if finding.site is None
            else [
                sr.FindingSite(
                    anatomic_location=concept(finding.site),
                    laterality=None if finding.side is None else concept(finding.side),
                )
            ],
            "measurements": [
                sr.Measurement(name=concept(q.name), value=float(q.value), unit=concept(q.unit))
                for q in finding.quantities
            ],
            "qualitative_evaluations": [
                sr.QualitativeEvaluation(name=concept(e.name), value=concept(e.value))
                for e in finding.evaluations
            ],
        }
        if finding.box is not None:
            region = _region(finding.box, self._source)
            return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                referenced_region=region, algorithm_id=self._algorithm(""), **common
            )
        found = self._segments.get(finding.segment or "")
        if found is None:
            parts = [_part(*self._segments[n][1:]) for n in finding.within if n in self._segments]
            return sr.MeasurementsAndQualitativeEvaluations(
                algorithm_id=self._algorithm(""), source_images=parts or None, **common
            )
        segment, made, number = found
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_reference(made, number, self._source),
            algorithm_id=self._algorithm(segment.model),
            **common,
        )

    def _algorithm(self, model: str) -> sr.AlgorithmIdentification:
        found = algorithm(self._provenance, self._system, model)[0]
        parameters = found.AlgorithmParameters if "AlgorithmParameters" in found else None
        return sr.AlgorithmIdentification(
            name=str(found.AlgorithmName),
            version=str(found.AlgorithmVersion),
            parameters=None if parameters is None else [str(parameters)],
        )


def _reference(made: Segmentation, number: int, source: Source) -> sr.ReferencedSegment:
    """A segment of an object that is written beside the report."""
    series = sr.SourceSeriesForSegmentation(str(source.first.SeriesInstanceUID))
    return sr.ReferencedSegment(
        sop_class_uid=str(made.SOPClassUID),
        sop_instance_uid=str(made.SOPInstanceUID),
        segment_number=number,
        source_series=series,
    )


def _part(made: Segmentation, number: int) -> sr.SourceImageForMeasurementGroup:
    """The segment of which the measured region is a part (PS3.16 TID 1501)."""
    found = sr.SourceImageForMeasurementGroup(str(made.SOPClassUID), str(made.SOPInstanceUID))
    found.ReferencedSOPSequence[0].ReferencedSegmentNumber = number
    return found


def _region(box: Box, source: Source) -> sr.ImageRegion:
    """A rectangle as a closed line of five points in column and row (PS3.3 C.18.6)."""
    corners = [
        (box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom),
    ]  # fmt: skip
    image, frame = source.first, box.slice + 1
    if not source.multi_frame:
        image, frame = source.images[box.slice], None
    return sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array([*corners, corners[0]], np.float64),
        source_image=sr.SourceImageForRegion(
            referenced_sop_class_uid=str(image.SOPClassUID),
            referenced_sop_instance_uid=str(image.SOPInstanceUID),
            referenced_frame_numbers=None if frame is None else [frame],
        ),
    )


def _observer(identity: Identity, provenance: Provenance) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=identity.uid("device"),
        name="Hilum, research use only",
        manufacturer_name=MANUFACTURER,
        model_name=MANUFACTURER,
        serial_number=provenance.key[:16],
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=sr.CodedConcept("121007", "DCM", "Device"),
            observer_identifying_attributes=device,
        )
    )


def _own_scheme() -> Dataset:
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = "Hilum's codes where no standard scheme has one"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    return scheme
