"""A process that does one order and writes what came of it: NVIDIA's libraries may end a process.

Run by `supervise`: ``python -m hilum.export.tensorrt.worker ORDER.json RESULT.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .vendor import Order, build, load, run


def main(order_file: str, result_file: str) -> None:
    """Do the order: report versions, build an engine, or run one on stored inputs."""
    order = json.loads(Path(order_file).read_text("utf-8"))
    if "probe" in order:
        found = {name: load(name) for name in order["probe"]}
        result = {name: module and module.__version__ for name, module in found.items()}
    elif "inputs" in order:
        import numpy as np

        with np.load(order["inputs"]) as stored:
            inputs = {
                name.removeprefix(order["prefix"]): stored[name]
                for name in stored.files
                if name.startswith(order["prefix"])
            }
        outputs, context = run(order["module"], Path(order["plan"]), inputs)
        np.savez(order["outputs"], **outputs)
        result = {"outputs": sorted(outputs), "context_bytes": context}
    else:
        result = build(Order(**order))
    Path(result_file).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
