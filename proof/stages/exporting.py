"""Export networks one after the other; what is exported already stays."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import cast

from hilum.catalog import SYSTEMS, Precision

from ..done import Done, Say
from ..setting import Setting


def export(system: str, names: Sequence[str], setting: Setting, say: Say) -> Done:
    """Export the networks that the repository lacks: a stage that was cut off goes on."""
    from hilum.export.job import Origin  # brings PyTorch
    from hilum.export.repository import export_system

    declared = SYSTEMS[system]
    missing = [n for n in names if not _there(setting, declared.network(n).model)]
    target = "tensorrt" if find_spec("tensorrt") else "onnx"
    for name in missing:
        say(f"export {name}")
        export_system(
            declared, repository=setting.repository, networks=[name], target=target,
            weights=cast("Origin", setting.weights), precision=cast("Precision", setting.precision),
        )  # fmt: skip
    return Done(notes=(f"{system}: {len(names)} networks, {setting.precision}, for {target}",))


def _there(setting: Setting, model: str) -> bool:
    return (setting.repository / model / "1" / "certificate.json").is_file()
