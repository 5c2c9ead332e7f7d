"""What objects say about the program that made them, and how they are titled."""

from __future__ import annotations

from typing import Any

from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
from highdicom.sr import CodedConcept

from . import codes
from .codes import Code
from .content import Provenance

MANUFACTURER = "Hilum"
RESEARCH = "RESEARCH ONLY"
STATEMENT = "Research use only. Not a medical device."


def concept(code: Code) -> CodedConcept:
    """A code as highdicom takes it."""
    return CodedConcept(*code)


def described(title: str) -> str:
    """A SeriesDescription: whose, what, and that it is for research; at most 64 characters."""
    room = 64 - len(f"{MANUFACTURER}  {RESEARCH}")
    return f"{MANUFACTURER} {title[:room]} {RESEARCH}"


def serial(provenance: Provenance) -> str:
    """DeviceSerialNumber: there is no device, so the first digits of the key."""
    return provenance.key[:16]


def algorithm(provenance: Provenance, system: str, model: str) -> AlgorithmIdentificationSequence:
    """Which algorithm found something: system, version, mode and checksums of the weights."""
    parameters = {"mode": provenance.mode}
    for name in filter(None, model.split(",")):
        parameters[f"weights_sha256 {name}"] = provenance.weights.get(name, "unknown")
    if provenance.weights_note:
        parameters["weights_note"] = provenance.weights_note
    return AlgorithmIdentificationSequence(
        name=f"Hilum {system}",
        family=concept(codes.AI),
        version=provenance.version,
        source=MANUFACTURER,
        parameters=parameters,
    )


def contribution(provenance: Provenance) -> list[ContributingEquipment]:
    """Hilum as a piece of equipment that took part, as IHE's AI Results profile asks for."""
    return [
        ContributingEquipment(
            manufacturer=MANUFACTURER,
            purpose_of_reference=concept(codes.PROCESSING),
            manufacturer_model_name=MANUFACTURER,
            software_versions=provenance.version,
            device_serial_number=serial(provenance),
            contribution_description=STATEMENT,
        )
    ]


def maker(provenance: Provenance) -> dict[str, Any]:
    """Keyword arguments with which highdicom names the maker of an object."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": provenance.version,
        "device_serial_number": serial(provenance),
    }
