"""Studies through the gateway while it, Triton and Orthanc are killed in every state of a study.

``python tests/soak/gateway_chaos.py --studies 20 --seed 0``: the studies go through a gateway
undisturbed, and again from an empty PACS while each of the three parts is killed (-9) once when a
study is stable, fetched, run, sent and verified; after each kill a further study comes. Then both
PACS must hold the same series with the same instances, byte by byte. Prints figures as JSON; exit
code 1 when anything is missing, there twice or different.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chest_repository import CHEST_MODELS, export_chest
from gateway_parts import Server, Site, kills, studies


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = name
        server = Server(export_chest(folder), folder, folder / "serve.log", CHEST_MODELS)
        made = studies(folder / "made", given.studies)
        quiet, loud = Site(folder / "quiet", server), Site(folder / "loud", server)
        try:
            quiet.start(made)
            quiet.wait(given.studies, 1800)
            quiet.gateway.end()
            began = time.monotonic()
            pairs = kills(given.seed)
            first = max(2, given.studies - len(pairs))
            loud.start(made[:first])
            missed = loud.disturb(pairs, made[first:], say)
            loud.wait(given.studies, 1800)
            seconds = time.monotonic() - began
            wanted, found = quiet.stored(made), loud.stored(made)
            audit = Counter(row["state"] for row in loud.ledger.audit())
        finally:
            quiet.stop()
            loud.stop()
            server.stop()
    uids = [set(study) for study in wanted]
    figures = {
        "studies": given.studies,
        "killed": dict(Counter(part for part, state in pairs if (part, state) not in missed)),
        "not met": [f"{part} while {state}" for part, state in missed],
        "instances": sum(len(files) for study in found for files in study.values()),
        "series missing": sum(len(u - set(f)) for u, f in zip(uids, found, strict=True)),
        "series too many": sum(len(set(f) - u) for u, f in zip(uids, found, strict=True)),
        "series that differ": sum(
            study.get(uid) != files
            for reference, study in zip(wanted, found, strict=True)
            for uid, files in reference.items()
        ),
        "rows of the audit": dict(audit),
        "seconds": round(seconds),
    }
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    sys.exit(wanted != found)


if __name__ == "__main__":
    main()
