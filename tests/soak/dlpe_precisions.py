"""How far DLPE's whole pipeline in less precision is from that in FP32, on the CTs that are given.

    python tests/soak/dlpe_precisions.py fp32 bf16 int8 --series ct-1 --series ct-2 --grid 256

The first repository is what the others are compared with.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hilum.client import Client
from hilum.preprocessing.arrays import to_host
from hilum.server.launcher import TritonServer
from hilum.training.measure_xrays import overlap


def main() -> None:
    """Run every study on every repository, and print Dice, level and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repositories", nargs="+", type=Path)
    parser.add_argument("--series", action="append", type=Path, required=True)
    parser.add_argument("--grid", type=int, default=256)
    parser.add_argument("--mode", choices=("parity", "corrected"), default="corrected")
    asked = parser.parse_args()
    full: list[Any] = []
    for repository in asked.repositories:
        with ExitStack() as stack:
            server = stack.enter_context(TritonServer(repository, grace=0))
            client = stack.enter_context(Client(server.grpc_url, deadline_s=600))
            for number, series in enumerate(asked.series):
                found = client.run(
                    "dlpe", series, grid=asked.grid, mode=asked.mode, quantities=False
                )
                if repository is asked.repositories[0]:
                    full.append(found)
                show(repository, number, found, full[number])


def show(repository: Path, number: int, found: Any, full: Any) -> None:
    """One line for a study on a repository."""
    enhancement = found.enhancement
    window = "no window"
    if enhancement is not None:
        off = enhancement.window_level - full.enhancement.window_level
        window = f"level {enhancement.window_level:.1f} HU ({off:+.2f})"
    seconds = sum(found.timings.values())
    sys.stdout.write(f"{repository.name}, study {number + 1}: {seconds:.0f} s, {window}\n")
    for name, mask in found.masks.items():
        dice = overlap(to_host(mask), to_host(full.masks[name]))
        sys.stdout.write(f"  {name}: Dice {dice:.4f}, {found.voxels[name]} voxels\n")


if __name__ == "__main__":
    main()
