"""Pictures as secondary captures, with the disclaimer in their pixels.

They are JPEG, which every viewer and PACS reads: a tenth of the bytes. Masks and numbers are in the
other objects.
"""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.uid import JPEGBaseline8Bit

from .content import Provenance
from .equipment import MANUFACTURER, contribution, described
from .identity import SERIES_NUMBERS, Identity
from .source import Source


def captures(
    pictures: dict[str, NDArray[np.uint8]],
    *,
    source: Source,
    identity: Identity,
    provenance: Provenance,
) -> list[SCImage]:
    """One object for each picture, of one series."""
    made = []
    for number, (title, pixels) in enumerate(pictures.items(), 1):
        image = SCImage.from_ref_dataset(
            ref_dataset=source.first,
            pixel_array=np.ascontiguousarray(pixels),
            photometric_interpretation="YBR_FULL_422",
            bits_allocated=8,
            coordinate_system="PATIENT",
            series_instance_uid=identity.uid("pictures", "series"),
            series_number=SERIES_NUMBERS["pictures"],
            sop_instance_uid=identity.uid("pictures", title),
            instance_number=number,
            manufacturer=MANUFACTURER,
            patient_orientation=("L", "F"),
            transfer_syntax_uid=JPEGBaseline8Bit,
            series_description=described("pictures"),
            contributing_equipment=contribution(provenance),
        )
        image.DerivationDescription = f"{title}. Research use only."
        image.LossyImageCompression = "01"
        image.LossyImageCompressionMethod = "ISO_10918_1"
        image.LossyImageCompressionRatio = round(pixels.nbytes / len(image.PixelData), 1)
        image.BurnedInAnnotation = "NO"  # no identifiers are drawn
        identity.settle(image, "pictures")
        made.append(image)
    return made
