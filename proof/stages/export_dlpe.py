"""DLPE's networks: those of a usual run."""

from __future__ import annotations

from hilum.catalog import dlpe as catalog
from hilum.systems.dlpe import stages
from hilum.systems.dlpe.options import Options

from ..done import Done, Say
from ..setting import Setting
from .exporting import export


def run(setting: Setting, say: Say) -> Done:
    """Export all that a run with default options asks for."""
    by_model = {n.model: n.name for n in catalog.SYSTEM.networks}
    names = [by_model[m] for m in stages.networks(Options())]
    return export("dlpe", names, setting, say)
