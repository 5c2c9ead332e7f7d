"""What Hilum serves, as frozen declarations. A system is registered by one line below."""

from __future__ import annotations

from . import covid_mtl, ct_angel, ct_classifier, cxr_severity, dlpe, lungmask
from .errors import HilumError
from .precision import Arithmetic, Fallback, Precision, at_precision
from .server_info import ABOUT
from .types import (
    Call,
    Counts,
    Ensemble,
    Figure,
    Model,
    Network,
    PythonStep,
    System,
    Tensor,
    closure,
)

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        cxr_severity.SYSTEM,
        dlpe.SYSTEM,
        lungmask.SYSTEM,
        ct_classifier.SYSTEM,
        ct_angel.SYSTEM,
        covid_mtl.SYSTEM,
    )
}
"""Every system by its name on the command line."""


def find_model(name: str) -> Model:
    """The declaration of the Triton model called `name`.

    Raises
    ------
    KeyError
        When no system declares it.
    """
    if name == ABOUT.model:
        return ABOUT
    for system in SYSTEMS.values():
        for model in system.models():
            if model.model == name:
                return model
    raise KeyError(f"no system declares a model {name!r}")


__all__ = [
    "ABOUT",
    "SYSTEMS",
    "Arithmetic",
    "Call",
    "Counts",
    "Ensemble",
    "Fallback",
    "Figure",
    "HilumError",
    "Model",
    "Network",
    "Precision",
    "PythonStep",
    "System",
    "Tensor",
    "at_precision",
    "closure",
    "find_model",
]
