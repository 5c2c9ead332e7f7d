"""Where the authors keep their checkpoints: addresses, sizes, checksums, licences, what is missing.

Facts only; `export.fetch` downloads what an address is known of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .ct_classifier import PROFILES

_LUNGMASK = "https://github.com/JoHof/lungmask/releases/download/v0.0/"
_CLASSIFIER = "https://media.githubusercontent.com/media/Javiercbr/Covid19_DL/"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file that can be fetched.

    Attributes
    ----------
    sha256
        The digest, or as many first digits of it as are published.
    bytes
        Its size; None where it is not known.
    """

    name: str
    url: str
    sha256: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where the published checkpoints of a system are.

    Attributes
    ----------
    where, licence
        In words; the licence is that of the weights as far as it is stated.
    files
        Those with an address of their own.
    zenodo
        Number of a Zenodo record, whose files, sizes and checksums its own list gives.
    by_hand
        What has to be fetched with a browser, and what of it is expected; empty if nothing.
    missing
        What was never published; empty if nothing is known to be missing.
    """

    where: str
    licence: str
    files: tuple[PublishedFile, ...] = ()
    zenodo: int | None = None
    by_hand: str = ""
    missing: str = ""

    @property
    def fetched(self) -> bool:
        """Whether there is anything that a program can download."""
        return bool(self.files) or self.zenodo is not None


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "cxr-severity": Source(
            "Zenodo, doi 10.5281/zenodo.8393555",
            "MIT (code); that of the weights is in the record",
            zenodo=8393555,
        ),
        "dlpe": Source(
            "Google Drive, linked from github.com/LongxiZhou/DLPE-method",
            "BSD-3-Clause (code); none stated for the weights",
            by_hand=(
                "open the link on the project page and download the folder trained_models with "
                "its structure, <model>/<X|Y|Z>/<file>.pth, 7.8 MB a file"
            ),
        ),
        "covid-mtl": Source(
            "nowhere", "none stated", missing="no trained weights were ever published"
        ),
        "ct-angel": Source(
            "Google Drive 1bWmmCroyXs0VxapeVukvtR5pTlgeOEjh, Dropbox "
            "s/7l6ocnurn4f1bht/ct-angel-weights.zip",
            "none stated",
            by_hand="open either link and unpack it; ct-angel_weights.hdf5 is expected",
        ),
        "ct-classifier": Source(
            "Git LFS of github.com/Javiercbr/Covid19_DL",
            "none stated",
            (
                PublishedFile(
                    "modeloCovid.h5",
                    f"{_CLASSIFIER}7d2df06b28afd43a2762b09a76412933e87ede25/modeloCovid.h5",
                    PROFILES["raw_hu"].sha256,
                    PROFILES["raw_hu"].bytes,
                ),
            ),
            missing="the earlier generation (profile masked) is only in the repository's history",
        ),
        "lungmask": Source(
            "release v0.0 of github.com/JoHof/lungmask",
            "Apache-2.0 (code); none stated for the weights",
            (
                PublishedFile(
                    "unet_r231-d5d2fc3d.pth", f"{_LUNGMASK}unet_r231-d5d2fc3d.pth", "d5d2fc3d"
                ),
            ),
        ),
    }
)
"""By system."""
