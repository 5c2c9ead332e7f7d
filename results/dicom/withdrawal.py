"""An earlier result is withdrawn by a key object note, never deleted (PS3.3 A.35.4)."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset

from . import codes
from .content import Provenance
from .equipment import MANUFACTURER, STATEMENT, concept, contribution, described
from .identity import SERIES_NUMBERS, Identity


def withdrawal(
    objects: Sequence[Dataset], *, identity: Identity, provenance: Provenance
) -> KeyObjectSelectionDocument:
    """Mark earlier objects of one study as rejected.

    Parameters
    ----------
    objects
        The earlier objects, headers are enough.
    """
    earlier = [str(found.SOPInstanceUID) for found in objects]
    made = KeyObjectSelectionDocument(
        evidence=list(objects),
        content=KeyObjectSelection(
            document_title=concept(codes.REJECTED),
            referenced_objects=list(objects),
            description=f"Replaced by a later result. {STATEMENT}",
        ),
        series_instance_uid=identity.uid("withdrawal", "series"),
        series_number=SERIES_NUMBERS["withdrawal"],
        sop_instance_uid=identity.uid("withdrawal", *sorted(earlier)),
        instance_number=1,
        manufacturer=MANUFACTURER,
        series_description=described("withdrawal"),
        contributing_equipment=contribution(provenance),
    )
    identity.settle(made, "withdrawal")
    return made
