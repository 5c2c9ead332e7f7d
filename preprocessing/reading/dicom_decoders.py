"""Which decoder reads which compressed transfer syntax.

Each syntax has one, named here: pydicom by itself tries whatever is installed, so that a machine
could give other pixels than its neighbour, or a missing library would go unnoticed. All are under
permissive licences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from hilum.catalog.errors import BadFormat

from . import jpeg_dct, jpeg_lossless, jpeg_stream

_OWN = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
"""Read by `jpeg_dct` and `jpeg_lossless`."""

_PLUGINS = {
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
    RLELossless: "pydicom",
}
"""Plugins by pydicom's names."""

_PACKAGES = {"pylibjpeg": "pylibjpeg-openjpeg"}
"""What a plugin's decoder comes in, where that has another name."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """What reads a transfer syntax on this machine.

    Attributes
    ----------
    syntax
        Its name.
    package
        Where the decoder comes from, with its version.
    there
        It is installed.
    """

    syntax: str
    package: str
    there: bool


def decoders() -> Iterator[Decoder]:
    """The decoder of each compressed transfer syntax."""
    for syntax in _OWN:
        yield Decoder(UID(syntax).name, "hilum", there=True)
    for syntax, plugin in _PLUGINS.items():
        package = _PACKAGES.get(plugin, plugin)
        there = plugin in get_decoder(syntax).available_plugins
        try:
            named = f"{package} {version(package)}"
        except PackageNotFoundError:
            named = package
        yield Decoder(UID(syntax).name, named, there)


def decoded(dataset: Dataset) -> NDArray[Any]:
    """Decode the words of a grey image of one frame.

    Returns
    -------
    [H, W], unsigned or already with their sign.

    Raises
    ------
    NotImplementedError
        For a transfer syntax that nothing here reads.
    ValueError, RuntimeError
        For damaged pixels, as the decoders do.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return pixel_array(dataset)
    if syntax in _OWN:
        words = _jpeg(get_frame(dataset.PixelData, 0, number_of_frames=1))
        if words.max() >> dataset.BitsAllocated:
            raise ValueError("more bits than are allocated")
        return words
    if syntax not in _PLUGINS:
        raise NotImplementedError(syntax.name)
    options: Any = {"raw": True, "correct_unused_bits": False}  # words as they are
    return get_decoder(syntax).as_array(dataset, decoding_plugin=_PLUGINS[syntax], **options)[0]


def name_syntax(dataset: Dataset) -> None:
    """Make sure that the transfer syntax is one; name it where the file does not.

    Raises
    ------
    InputError
        For one that is not of the standard.
    """
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit
            else ExplicitVRLittleEndian if little
            else ExplicitVRBigEndian
        )  # fmt: skip
    syntax = dataset.file_meta.TransferSyntaxUID
    if not isinstance(syntax, UID) or not syntax.is_transfer_syntax or syntax.is_private:
        raise BadFormat(
            "DICOM: unknown transfer syntax; export the image as Explicit VR Little Endian"
        )


def _jpeg(data: bytes) -> NDArray[np.uint16]:
    """By what the stream says, whatever the transfer syntax promises."""
    stream = jpeg_stream.parse(data)
    lossless = stream.process == jpeg_stream.LOSSLESS
    return jpeg_lossless.decode(stream) if lossless else jpeg_dct.decode(stream)
