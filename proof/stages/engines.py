"""TensorRT engines, where TensorRT's Python package is; else there is nothing to do."""

from __future__ import annotations

from importlib.util import find_spec

from ..done import Check, Done, Say
from ..setting import Setting
from .commands import hilum


def run(setting: Setting, say: Say) -> Done:
    """Build what is not built yet: a stage that was cut off goes on."""
    if not find_spec("tensorrt"):
        return Done(notes=("no TensorRT here: ONNX Runtime or PyTorch computes the networks",))
    say("hilum engines build")
    done = hilum("engines", "build", "--repository", str(setting.repository))
    said = (done.stdout + done.stderr).strip().splitlines()[-1:]
    return Done(checks=(Check("TensorRT engines are built", done.returncode == 0, "".join(said)),))
