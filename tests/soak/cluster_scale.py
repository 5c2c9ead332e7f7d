"""How a cluster scales with its servers, and what Ray costs, for docs/background/benchmarks.md.

The servers are real Tritons with small stand-in networks whose last step sleeps for a known time,
so that neither cores nor memory of one machine decide.

    python tests/soak/cluster_scale.py --service 4 --studies 12
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import standins
from archives import Archive, xrays
from clusters import Cluster

from hilum.archive.cluster import RayEngine
from hilum.archive.ledger import Ledger
from hilum.archive.outcomes import Task
from hilum.catalog import SYSTEMS
from hilum.catalog import cxr_severity as cxr
from hilum.export.repository import export_system
from hilum.server.launcher import TritonServer

STEP = """
import time

from hilum.server.python_step import TritonPythonModel as Step


class TritonPythonModel(Step):
    def execute(self, requests):
        time.sleep(SECONDS * len(requests))
        return super().execute(requests)
"""


def standin(folder: Path, seconds: float) -> Path:
    """A repository whose last step sleeps, one request after the other."""
    files = {
        "lung": standins.write_lung(folder / "lung.onnx"),
        "manet": standins.write_disease(folder / "manet.onnx", 544, 0.9),
    }
    repository = folder / "repository"
    export_system(SYSTEMS["cxr-severity"], repository=repository, onnx=files)
    zones = repository / "cxr_zones"
    (zones / "1" / "model.py").write_text(STEP.replace("SECONDS", str(seconds)))
    with (zones / "config.pbtxt").open("a") as config:
        config.write("instance_group { count: 1 kind: KIND_CPU }\n")
    return repository


def rate(folder: Path, servers: int, repository: Path, studies: list[Path]) -> float:
    """Studies per second with so many servers, from the first to the last outcome."""
    (folder / "ray").mkdir(parents=True)
    with ExitStack() as stack:
        cluster = Cluster(folder / "ray").start_head()
        stack.callback(cluster.stop)
        running = [
            stack.enter_context(
                TritonServer(repository, models=[cxr.ENSEMBLES["manet"].model], grace=0)
            )
            for _ in range(servers)
        ]
        for server in running:
            cluster.start_node(server.grpc_url, slots=2)
        archive = Archive(folder, running[0].grpc_url, cluster.environment)
        lines = folder / "list.txt"
        lines.write_text("\n".join(map(str, studies)))
        made = archive.call("plan", lines, "--system", "cxr-severity", "--option",
                            "network=manet", "--no-pictures")  # fmt: skip
        assert made.exit_code == 0, made.output
        run = archive.start("--engine", "ray", "--address", cluster.address)
        code = run.wait(900)
        assert code == 0, (folder / "log").read_text()
        ends = sorted(study.at for study in Ledger(archive.ledger).studies("done"))
        warm = 2 * servers  # the first of each slot also starts a worker
        found = (len(ends) - warm) / (ends[-1] - ends[warm - 1])
        if servers == 1:
            overhead(cluster, archive)
        return found


def overhead(cluster: Cluster, archive: Archive, count: int = 300) -> None:
    """Print what a task costs that finds its answer in the worker already."""
    os.environ.update(cluster.environment)
    ledger = Ledger(archive.ledger)
    task = Task(b"", "", "", ledger.plan.as_json(), "", (archive.url,), ledger.setting("weights"))
    engine = RayEngine(cluster.address)

    def ask(tasks: int) -> float:
        began, done, sent = time.perf_counter(), 0, 0
        while done < tasks:
            while sent - done < 6 and sent < tasks:
                engine.submit(task)
                sent += 1
            done += len(engine.wait(5))
        return (time.perf_counter() - began) / tasks

    ask(60)  # workers start, and connect
    print(json.dumps({"overhead_ms_per_study": round(1000 * ask(count), 2)}))  # noqa: T201
    engine.close()


def main() -> None:
    """Measure one, two and three servers."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--service", type=float, default=4.0, help="seconds of one study")
    given.add_argument("--studies", type=int, default=12, help="for each server")
    given.add_argument("--servers", default="1,2,3", help="how many, one after the other")
    chosen = given.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        repository = standin(folder, chosen.service)
        studies = xrays(folder / "in", 3 * (chosen.studies + 2))
        found = {}
        for servers in map(int, chosen.servers.split(",")):
            mine = studies[: servers * (chosen.studies + 2)]
            found[servers] = rate(folder / str(servers), servers, repository, mine)
            shown = {
                "servers": servers,
                "studies_per_s": round(found[servers], 4),
                "of_ideal": round(found[servers] * chosen.service / servers, 4),
                "of_one": round(found[servers] / found[1] / servers, 4),
            }
            print(json.dumps(shown), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
