"""Whether two results are of one patient, as far as their DICOM objects can say.

Nothing of a patient leaves this module: an attribute becomes a number that says only whether two
attributes are equal, and that another start of the desk makes differently.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

_TAGS = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")


@dataclass(frozen=True, slots=True)
class Patients:
    """Marks by which patients are told apart, for one start of the desk."""

    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def of(self, place: Path) -> dict[str, str]:
        """A mark for each attribute that the objects of a study's folder have; often none.

        Results carry the patient's attributes of their source; those of pictures and of NIfTI files
        have no objects.
        """
        first = next((p for p in sorted(place.glob("dicom/**/*.dcm")) if not p.is_symlink()), None)
        if first is None:
            return {}
        try:
            found = pydicom.dcmread(first, stop_before_pixels=True, specific_tags=list(_TAGS))
        except (OSError, InvalidDicomError):
            return {}
        values = {tag: str(found.get(tag, "")).strip() for tag in _TAGS}
        return {tag: self._mark(tag, value) for tag, value in values.items() if value}

    def _mark(self, tag: str, value: str) -> str:
        text = f"{tag}\0{value}".encode()
        return hashlib.blake2b(text, key=self._secret, digest_size=12).hexdigest()
