"""How long a plan of many studies takes, and a start over as many: figures of benchmarks.md.

Files and folders of results are real ones, though empty; nothing is computed.

    python tests/soak/ledger_scale.py --studies 1000000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from archives import Archive

from hilum.archive.ledger import Change, Ledger
from hilum.archive.store import FolderStore
from hilum.archive.verify import beside

_CHUNK = 10_000


def show(what: str, count: int, began: float, processor: float) -> None:
    """Print how long it took since `began`, and what of it was the processor's."""
    shown = {"did": what, "studies": count, "seconds": round(time.perf_counter() - began, 1),
             "of the processor": round(time.process_time() - processor, 1)}  # fmt: skip
    print(json.dumps(shown), flush=True)  # noqa: T201


def files(folder: Path, count: int) -> Path:
    """Empty files, a thousand in each folder, and the list that names them."""
    lines = folder / "list.txt"
    with lines.open("w") as listed:
        for number in range(count):
            place = folder / "in" / f"{number // 1000:04d}"
            if number % 1000 == 0:
                place.mkdir(parents=True)
            (place / f"{number % 1000:03d}.dcm").touch()
            listed.write(f"in/{place.name}/{number % 1000:03d}.dcm\n")
    return lines


def finish(ledger: Ledger, results: Path) -> None:
    """Enter every study as done, with a folder where its result would be."""
    for number in range(256):
        (results / f"{number:02x}").mkdir(parents=True)
    studies = ledger.studies()
    while chunk := list(islice(studies, _CHUNK)):
        for study in chunk:
            (results / study.name[:2] / study.name).mkdir()
        ledger.settle([Change(key=s.key, state="done", tries=1, crashes=0) for s in chunk])


def main() -> None:
    """Plan, then start over."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--studies", type=int, default=1_000_000)
    count = given.parse_args().studies
    with tempfile.TemporaryDirectory() as place:
        archive = Archive(Path(place), "")
        lines = files(archive.folder, count)
        began, processor = time.perf_counter(), time.process_time()
        archive.plan(lines)
        show("plan", count, began, processor)
        finish(Ledger(archive.ledger), archive.results)
        began, processor = time.perf_counter(), time.process_time()
        ledger = Ledger(archive.ledger)  # what a driver does before it hands out the first study
        ledger.resume()
        there = beside(ledger.studies(), FolderStore(archive.results).names())
        agreed = sum(committed == (study.state == "done") for study, committed in there)
        assert (agreed, ledger.due(1)) == (count, [])
        show("resume", count, began, processor)
        size = archive.ledger.stat().st_size
        print(json.dumps({"ledger_mb": round(size / 1e6)}))  # noqa: T201


if __name__ == "__main__":
    main()
