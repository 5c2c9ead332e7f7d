"""The stages of a proof, in their order; each is one module with a `run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes
    ----------
    title
        In words.
    module
        Of this folder.
    needs
        Names of stages without which it has nothing to work on.
    served
        It asks a server.
    exports
        It fills the repository, and is left out where one was given.
    """

    title: str
    module: str
    needs: tuple[str, ...] = ()
    served: bool = False
    exports: bool = False


_EXPORTED = ("export-xrays", "export-dlpe", "engines")

STAGES: Mapping[str, Stage] = {
    "hardware": Stage("what the hardware does at most", "hardware"),
    "tests": Stage("the tests that need a GPU", "tests"),
    "export-xrays": Stage("export the X-ray networks", "export_xrays", exports=True),
    "export-dlpe": Stage("export DLPE's networks", "export_dlpe", exports=True),
    "engines": Stage("TensorRT engines, where TensorRT is", "engines", _EXPORTED[:2], exports=True),
    "doctor": Stage("hilum doctor", "doctor", _EXPORTED),
    "networks": Stage("each network against the processors", "networks", _EXPORTED, served=True),
    "arrays": Stage("CuPy against NumPy", "arrays", _EXPORTED, served=True),
    "transport": Stage("shared memory against gRPC", "transport", _EXPORTED, served=True),
    "dlpe": Stage("DLPE from DICOM to masks", "dlpe", _EXPORTED, served=True),
    "xrays": Stage("X-rays per second", "xrays", _EXPORTED, served=True),
}  # fmt: skip
