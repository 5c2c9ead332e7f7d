"""A cluster of three nodes whose parts are killed with -9, and what is left: everything.

python tests/soak/cluster_chaos.py --xrays 300 --cts 12 --seed 1
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from archives import xrays
from chaos import EVENTS, Chaos, survive
from chest_repository import export_chest

from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series


def main() -> None:
    """Run a batch of each kind of study, and compare it with an undisturbed run."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--xrays", type=int, default=300)
    given.add_argument("--cts", type=int, default=12)
    given.add_argument("--servers", type=int, default=3)
    given.add_argument("--seed", type=int, default=1)
    chosen = given.parse_args()
    with tempfile.TemporaryDirectory(prefix="hc") as place:
        folder = Path(place)
        (folder / "models").mkdir()
        repository = export_chest(folder / "models")
        xrays(folder / "xrays", chosen.xrays)
        for seed in range(chosen.cts):
            phantom = chest_ct(seed, slices=80, size=320, lesions=0)
            write_dicom_series(phantom.volume, folder / "cts" / f"{seed}")
        with Chaos(folder, repository, seed=chosen.seed, servers=chosen.servers) as chaos:
            for system, name, count in (
                ("cxr-severity", "xrays", chosen.xrays),
                ("lungmask", "cts", chosen.cts),
            ):
                began = time.monotonic()
                again = survive(chaos, folder / name, system, count, EVENTS) if count else 0
                shown = {
                    "system": system, "equal to hilum run": count, "counted twice": again,
                    "seconds": round(time.monotonic() - began),
                }  # fmt: skip
                print(json.dumps(shown), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
