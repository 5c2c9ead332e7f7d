"""The X-ray networks."""

from __future__ import annotations

from ..done import Done, Say
from ..setting import NETWORKS, Setting
from .exporting import export


def run(setting: Setting, say: Say) -> Done:
    """Export stage I and both networks of stage II."""
    return export("cxr-severity", NETWORKS, setting, say)
