"""Exporting all networks of the X-ray system once for all tests that need them."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

SHARES = (
    ("lung", "unet", "deeplabv3", "deeplabv3plus", "fpn"),
    ("manet", "unetplusplus", "pan", "linknet", "pspnet"),
)
"""Two halves of about the same work: tracing uses one core, so two processes are twice as fast."""


def export_all(repository: Path) -> None:
    """Export all ten networks with random weights into the new folder `repository`."""
    folders = [repository, repository.with_name("second-half")]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(_export, folders, SHARES))
    for version in folders[1].glob("*/1/certificate.json"):
        model = version.parents[1].name
        version.parent.rename(repository / model / "1")


def _export(repository: Path, networks: tuple[str, ...]) -> None:
    import torch
    from hilum.catalog import SYSTEMS
    from hilum.export.repository import export_system

    torch.set_num_threads(1)
    export_system(SYSTEMS["cxr-severity"], repository=repository, networks=networks)
